//! A ring's objects get their shards by a watch alone: all that there are, those that are made later, and their children.
//!
//! Never anything that moves: see `rings_scale`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use super::scene::{LATER, SOON};
use crate::cluster::Context;
use crate::members::figures::Times;
use crate::objects::Resource;
use crate::rings::language;
use crate::rings::names::THEIRS;
use crate::rings::record::{History, Kind};
use crate::rings::secrets::secret;
use crate::rings::stage::{Plan, SETTLED, Stage, are_figures};
use crate::trial::Case;

/// Secrets that are made later, and those of figures; how many a second.
const LATER_ONES: usize = 100;
const MANY: usize = 1_000;
const RATE: u32 = 50;
/// An object is assigned within this, 99 times of 100; and on a machine that is busy with other trials.
const BUDGET: Duration = Duration::from_millis(50);
const BUSY: Duration = Duration::from_secs(2);
/// How long objects of a shard that never had a Lease are left alone at most: its Lease may yet come.
const UNKNOWN: Duration = Duration::from_secs(30);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.own_server().needs(language::needed);
    vec![
        case(Case::new("rings_assign", "everything_that_is_there_and_comes_later", everything)),
        case(Case::new("rings_assign", "odd_objects", odd)),
        case(Case::new("rings_assign", "in_the_other_group", in_the_other_group)),
    ]
}

async fn everything(ctx: Context) -> anyhow::Result<()> {
    let (count, budget) = if are_figures() { (MANY, BUDGET) } else { (LATER_ONES, BUSY) };
    let stage = Stage::with(ctx, Plan::named("assign"), 3).await?;
    let before = stage.secrets.names();
    let since = stage.ctx.mark()?;
    stage.secrets.create_at(count, RATE).await?;
    stage.settled(SETTLED).await?;
    let new: BTreeSet<String> = stage.secrets.names().difference(&before).cloned().collect();
    let times = Times::of(stage.recorder.read(|history| history.assigned(&new)));
    ensure!(times.len() == count, "{} of {count} were seen to be assigned", times.len());
    ensure!(times.at(990) <= budget, "assigned within {times}");
    // One write each; their shards label the children.
    let (mains, children) = (stage.writes(since, Kind::Secret)?, stage.writes(since, Kind::ConfigMap)?);
    ensure!(mains.most() == 1 && mains.total() == count, "{mains:?}");
    ensure!(children.total() == 0, "{children:?}");
    let counts = stage.recorder.read(History::counts);
    stage.end(&format!("{count} at {RATE}/s assigned within {times}; by shard {counts:?}")).await
}

/// A ConfigMap that a Secret controls, and that no shard made.
fn part(secret: &Value, name: &str) -> Value {
    let owner = json!({
        "apiVersion": "v1", "kind": "Secret", "name": secret["metadata"]["name"], "uid": secret["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": false,
    });
    json!({ "metadata": { "name": name, "ownerReferences": [owner] } })
}

async fn odd(ctx: Context) -> anyhow::Result<()> {
    let stage = Stage::with(ctx, Plan::named("odd objects"), 2).await?;
    let (ctx, admin) = (&stage.ctx, stage.admin());
    // By a name that it hasn't got yet.
    let mut names = Vec::new();
    for _ in 0..5 {
        names.push(stage.secrets.create(json!({ "generateName": "generated-" })).await?);
    }
    // Its label names nobody, or is empty.
    let mut labels = json!({});
    labels[&stage.keys.shard] = "nobody".into();
    names.push(stage.secrets.create(json!({ "name": "of-nobody", "labels": labels })).await?);
    labels[&stage.keys.shard] = "".into();
    names.push(stage.secrets.create(json!({ "name": "of-no-name", "labels": labels })).await?);
    // In a namespace that the ring doesn't select.
    let outside = format!("{}-outside", ctx.namespace);
    let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
    admin.create(&namespaces, json!({ "metadata": { "name": outside, "labels": { "suite": ctx.id } } })).await?;
    let outside = stage.secrets.resource().in_namespace(Some(&outside));
    let stranger = admin.create(&outside, secret(json!({ "name": "stranger" }), 1)).await?;
    // Children that their owner's shard didn't make, and one that nobody controls.
    let owner = admin.get(stage.secrets.resource(), &names[0]).await?;
    let maps = ctx.configmaps();
    admin.create(&maps, part(&owner, "by-hand")).await?;
    let free = admin.create(&maps, json!({ "metadata": { "name": "of-no-owner" } })).await?;
    let ask = async || {
        let owner = admin.get(stage.secrets.resource(), &names[0]).await?;
        let child = admin.get(&maps, "by-hand").await?;
        let [shard, its] = [&owner, &child].map(|object| object["metadata"]["labels"][&stage.keys.shard].clone());
        ensure!(shard.is_string() && shard == its, "{shard} and {its}");
        Ok(())
    };
    ctx.wait("the child that was made by hand follows its owner", SOON, ask).await?;
    let taken = async || {
        let present = stage.present().await?;
        let of = |name: &str| present.mains.iter().find(|main| main.name == name).and_then(|main| main.shard.clone());
        for name in &names {
            let shard = of(name);
            ensure!(shard.as_ref().is_some_and(|shard| present.living.contains(shard)), "{name} is {shard:?}'s");
        }
        Ok(())
    };
    ctx.wait("those of nobody have a shard", UNKNOWN, taken).await?;
    for (resource, object) in [(&outside, &stranger), (&maps, &free)] {
        let name = object["metadata"]["name"].as_str().unwrap_or_default();
        let now = admin.get(resource, name).await?;
        ensure!(now["metadata"]["resourceVersion"] == object["metadata"]["resourceVersion"], "written: {now}");
    }
    stage.end("").await
}

/// The contract's labels, by its shards, and its hash.
async fn in_the_other_group(ctx: Context) -> anyhow::Result<()> {
    let stage = Stage::with(ctx, Plan::named("assign by the contract").names(&THEIRS).spec(json!({})), 3).await?;
    let ask = async || {
        let ring = stage.ring().await?;
        let status = &ring["status"];
        ensure!(status["shards"] == 3 && status["availableShards"] == 3, "{status}");
        Ok(())
    };
    stage.ctx.wait("the ring counts its shards", LATER, ask).await?;
    stage.end("").await
}
