//! What assigned objects cost the sharder: nothing that grows with them.
//!
//! Never with shards that work: one Lease that the trial keeps is enough to have them all.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use super::scene::LATER;
use crate::cluster::Context;
use crate::rings::lease::Kept;
use crate::rings::record::History;
use crate::rings::stage::{Plan, Stage};
use crate::trial::Case;

/// Assigned objects, if the variable doesn't say.
const OBJECTS: usize = 2_000;
/// The variable that says it: 10000 and 100000 for figures.
const VARIABLE: &str = "RINGMASTER_RINGS_MEMORY";
/// What the process may grow by for all of them.
const GROWTH_KIB: u64 = 5 << 10;
/// Over this time it is looked whether the process works.
const IDLE: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(900);
/// A few that are there from the begin, so that what is needed once is there.
const FIRST: usize = 50;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("rings_memory", "assigned_objects_cost_nothing", flat).own_server().timeout(TIMEOUT)]
}

fn objects() -> anyhow::Result<usize> {
    match std::env::var(VARIABLE) {
        Ok(text) if !text.is_empty() => text.parse::<usize>().with_context(|| format!("{VARIABLE}={text}")),
        _ => Ok(OBJECTS),
    }
}

/// Waits until all are the shard's.
async fn assigned(stage: &Stage, wanted: usize, deadline: Duration) -> anyhow::Result<()> {
    let ask = async || {
        let counts = stage.recorder.read(History::counts);
        ensure!(counts.values().sum::<usize>() == wanted, "{counts:?} of {wanted}");
        Ok(())
    };
    stage.ctx.wait("all are assigned", deadline, ask).await
}

/// Waits until the process hardly works any more.
async fn idle(stage: &Stage) -> anyhow::Result<()> {
    let process = &stage.cast.member("m1")?.process;
    let ask = async || {
        let before = process.cpu()?;
        tokio::time::sleep(IDLE).await;
        let worked = process.cpu()?.saturating_sub(before);
        ensure!(worked < IDLE / 10, "it worked {worked:?} in {IDLE:?}");
        Ok(())
    };
    stage.ctx.wait("what was created is taken in", LATER, ask).await
}

async fn flat(ctx: Context) -> anyhow::Result<()> {
    let wanted = objects()?;
    let mut stage = Stage::set(ctx, Plan::named("memory")).await?;
    stage.lead(&["m1"]).await?;
    let kept = Kept::new(stage.admin(), (stage.names(), &stage.ring), &stage.ctx.namespace, "kept").await?;
    stage.secrets.create_many(FIRST).await?;
    assigned(&stage, FIRST, LATER).await?;
    idle(&stage).await?;
    let before = stage.cast.member("m1")?.process.rss_kib()?;
    stage.secrets.create_many(wanted).await?;
    assigned(&stage, FIRST + wanted, TIMEOUT).await?;
    idle(&stage).await?;
    let bounded = async || {
        let rss = stage.cast.member("m1")?.process.rss_kib()?;
        ensure!(rss <= before + GROWTH_KIB, "{rss} KiB, {before} KiB without them");
        Ok(rss)
    };
    let after = stage.ctx.wait("memory is within its bound", LATER, bounded).await?;
    ensure!(kept.is_held(), "the Lease was taken");
    stage.close(&format!("RSS {before} KiB with {FIRST}, {after} KiB with {wanted} more")).await
}
