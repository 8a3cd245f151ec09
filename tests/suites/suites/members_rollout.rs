//! A rolling update whose member dies or leaves in the middle: another goes on where it was, one part at a time.
//!
//! Never about what holds a rollout up: see `rollouts`.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context as _, ensure};
use serde_json::{Map, Value, json};

use super::members_scale::TIMEOUT;
use super::rollouts::{SIZE, Stage};
use super::scene::SOON;
use crate::cluster::{Context, Scope};
use crate::members::cast::Cast;
use crate::members::stage::BALANCE;
use crate::members::table::Watcher;
use crate::objects::Resource;
use crate::trial::Case;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.timeout(TIMEOUT);
    vec![
        case(Case::new("members_rollout", "its_member_is_killed", |ctx| goes_on(ctx, "RollingRecreate", End::Killed))),
        case(Case::new("members_rollout", "its_member_leaves", |ctx| goes_on(ctx, "RollingInPlace", End::Leaves))),
    ]
}

/// How the member ends that has the set.
#[derive(Clone, Copy, Debug)]
enum End {
    Killed,
    Leaves,
}

async fn goes_on(ctx: Context, method: &str, end: End) -> anyhow::Result<()> {
    let stage = Stage::set(ctx, Scope::Namespaced).await?;
    let ctx = Arc::clone(&stage.ctx);
    let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
    let own = ctx.admin.get(&namespaces, &ctx.namespace).await?;
    let installation = own["metadata"]["uid"].as_str().context("a namespace without a uid")?.to_owned();
    let watcher = Watcher::start(ctx.server.admin()?, installation);
    let mut cast = Cast::new(Arc::clone(&ctx), ctx.namespace.clone());
    let mut spec = stage.spec(method);
    spec["sharding"] = json!({});
    ctx.controller("c", spec).await?;
    cast.start(&["m1", "m2", "m3"]).await?;
    let names = cast.names();
    ctx.wait("the members share the work", BALANCE, async || watcher.table()?.balanced(&names)).await?;
    stage.begin().await?;

    stage.roll(2).await?;
    stage.updated(0, 2).await?;
    stage.ready(0, true).await?;
    // Not by the usual wait, which would look too seldom: it may be gone and not yet made anew.
    let latest = Instant::now() + SOON;
    while stage.versions().await?[1] == 1 {
        ensure!(Instant::now() < latest, "the second part doesn't move");
    }
    let calls = stage.hook.count();
    let owner = stage.hook.calls().last().context("no call")?.header("ringmaster-member").to_owned();
    let base = cast.members().iter().find(|member| member.name == owner).map(|member| member.base.clone());
    let base = base.with_context(|| format!("{owner:?} called, and doesn't run"))?;
    match end {
        End::Killed => {
            cast.kill(&base)?;
        }
        End::Leaves => {
            cast.stop(&base).await?;
        }
    }
    let others = async || {
        let calls = stage.hook.calls().into_iter().filter(|call| call.number >= calls);
        let by: Vec<String> = calls.map(|call| call.header("ringmaster-member").to_owned()).collect();
        ensure!(by.iter().any(|member| *member != owner), "{} calls, all by {owner}", by.len());
        Ok(())
    };
    ctx.wait("another member syncs", cast.timing().duration * 2 + BALANCE, others).await?;
    stage.updated(1, 2).await?;
    stage.stands(&[2, 2, 1, 1, 1]).await?;
    stage.finish_told(1, 1, 2, None).await?;
    stage.settled("ringmaster.dev", 2).await?;
    one_at_a_time(&stage)?;
    written_once(&stage, usize::from(method == "RollingRecreate"))?;
    ensure!(cast.bury().is_empty(), "a member ended");
    Ok(())
}

/// Fails if the hook was ever shown two parts at once that moved and aren't ready, or that lack.
fn one_at_a_time(stage: &Stage) -> anyhow::Result<()> {
    for call in stage.hook.calls() {
        // Of the set as it is since its change, also where the hook is asked for the state before.
        if call.request["parent"]["metadata"]["generation"].as_u64().is_none_or(|generation| generation < 2) {
            continue;
        }
        let kinds = call.request["children"].as_object().into_iter().flat_map(Map::values);
        let parts: Vec<&Value> = kinds.filter_map(Value::as_object).flat_map(Map::values).collect();
        let moving = parts.iter().filter(|part| part["spec"]["version"] == 2 && !is_ready(part)).count();
        let lacking = SIZE.saturating_sub(parts.len());
        ensure!(moving + lacking <= 1, "{moving} move and {lacking} lack in call {}: {parts:?}", call.number);
    }
    Ok(())
}

fn is_ready(part: &Value) -> bool {
    let status = &part["status"];
    status["conditions"][0]["status"] == "True" && status["observedGeneration"] == part["metadata"]["generation"]
}

/// Fails if members made a part more often than once and `anew` times, or deleted one more often than `anew` times.
fn written_once(stage: &Stage, anew: usize) -> anyhow::Result<()> {
    let (mut made, mut deleted): (BTreeMap<String, usize>, BTreeMap<String, usize>) = Default::default();
    for request in stage.ctx.all_requests()? {
        if request.resource != stage.parts.plural || !(200..300).contains(&request.code) {
            continue;
        }
        if request.code == 201 {
            *made.entry(request.name).or_default() += 1;
        } else if request.verb == "delete" {
            *deleted.entry(request.name).or_default() += 1;
        }
    }
    ensure!(made.values().all(|times| *times <= 1 + anew), "made: {made:?}");
    ensure!(deleted.values().all(|times| *times <= anew), "deleted: {deleted:?}");
    Ok(())
}
