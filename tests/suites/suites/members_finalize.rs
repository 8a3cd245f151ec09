//! A controller with a finalize hook is deleted, and the leader, who lets its parents go, dies over it: all of them lose
//! the finalizer, and the controller goes.
//!
//! Never about what else a deletion waits for: see `controllers_change`.

use std::time::Instant;

use anyhow::ensure;
use serde_json::json;

use super::members_scale::TIMEOUT;
use crate::cluster::Context;
use crate::members::figures::seconds;
use crate::members::stage::{BALANCE, Plan, Stage, spec};
use crate::trial::Case;

/// So many that a sweep over them takes a while.
const PARENTS: usize = 120;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.timeout(TIMEOUT);
    vec![
        case(Case::new("members_finalize", "the_leader_dies_as_it_is_deleted", |ctx| leader_dies(ctx, Moment::Told))),
        case(Case::new("members_finalize", "the_leader_dies_as_parents_are_freed", |ctx| {
            leader_dies(ctx, Moment::Freeing)
        })),
    ]
}

/// When the leader is killed.
#[derive(Clone, Copy, Debug)]
enum Moment {
    /// The deletion was asked for.
    Told,
    /// A parent has lost the finalizer.
    Freeing,
}

impl Moment {
    const fn name(self) -> &'static str {
        match self {
            Self::Told => "kill the leader as a controller is deleted",
            Self::Freeing => "kill the leader as parents are freed",
        }
    }
}

/// How many parents have the finalizer.
async fn guarded(stage: &Stage) -> anyhow::Result<usize> {
    let finalizer = json!(format!("ringmaster.dev/compositecontroller-{}", stage.controller));
    let things = stage.ctx.admin.list(&stage.things, "").await?;
    let has = |finalizers: &Vec<serde_json::Value>| finalizers.contains(&finalizer);
    Ok(things.iter().filter(|thing| thing["metadata"]["finalizers"].as_array().is_some_and(has)).count())
}

async fn leader_dies(ctx: Context, moment: Moment) -> anyhow::Result<()> {
    let plan = Plan { parents: PARENTS, rate: 0, late: true, ..Plan::named(moment.name()) };
    let mut stage = Stage::set(ctx, plan).await?;
    let mut spec = spec(&stage.things, &stage.ctx.configmaps(), &stage.hook.url("/sync"), true);
    spec["hooks"]["finalize"] = json!({ "webhook": { "url": stage.hook.url("/finalize") } });
    stage.ctx.controller("c0", spec).await?;
    stage.cast.start(&["m1", "m2", "m3"]).await?;
    stage.begin().await?;
    let before = guarded(&stage).await?;
    ensure!(before == PARENTS, "{before} of {PARENTS} parents have the finalizer");
    let leader = stage.leader().await?;

    stage.ctx.admin.delete(&Context::controllers(), &stage.controller).await?;
    if let Moment::Freeing = moment {
        // Not by the usual wait, which would look too seldom.
        let latest = Instant::now() + BALANCE;
        while guarded(&stage).await? == PARENTS {
            ensure!(Instant::now() < latest, "no parent is freed");
        }
    }
    let (_, since) = stage.cast.kill(&leader)?;
    let left = guarded(&stage).await?;
    let free = async || {
        let left = guarded(&stage).await?;
        ensure!(left == 0, "{left} parents keep the finalizer");
        let found = stage.ctx.admin.find(&Context::controllers(), &stage.controller).await?;
        let found = found.map(|controller| controller["metadata"]["finalizers"].to_string());
        ensure!(found.is_none(), "the controller is there, with {found:?}");
        Ok(())
    };
    let deadline = stage.cast.timing().duration * 2 + BALANCE;
    stage.ctx.wait("no parent keeps the finalizer, and the controller is gone", deadline, free).await?;
    let took = since.elapsed();
    stage.balanced().await?;
    ensure!(stage.cast.bury().is_empty(), "a member ended");
    // No parent was finalized, and no child deleted.
    stage.end(&format!("{left} parents were left at its death, and free {} later", seconds(took))).await
}
