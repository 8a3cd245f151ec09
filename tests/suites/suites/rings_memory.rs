//! What assigned objects cost the sharder: nothing that grows with them.
//!
//! Never with shards that work: one Lease that the trial keeps is enough to have them all.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::cluster::Context;
use crate::rings::lease::Kept;
use crate::rings::record::History;
use crate::rings::stage::{Plan, Stage, are_figures};
use crate::rings::waits::paced;
use crate::trial::Case;

/// How many assigned objects there are, one after the other; and in figures.
const STEPS: &[usize] = &[500, 2_500];
const MANY: &[usize] = &[10_000, 100_000];
/// What the process may grow by for all of them.
const GROWTH_KIB: u64 = 5 << 10;
/// Over this time it is looked whether the process works.
const IDLE: Duration = Duration::from_millis(500);
/// How long it may take to be idle: connections that many objects at once took are closed after 90 s without a call.
const CALM: Duration = Duration::from_secs(150);
const TIMEOUT: Duration = Duration::from_secs(1_500);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("rings_memory", "assigned_objects_cost_nothing", flat).own_server().timeout(TIMEOUT)]
}

/// Waits until all are the shard's.
async fn assigned(stage: &Stage, wanted: usize, deadline: Duration) -> anyhow::Result<()> {
    let ask = async || {
        let counts = stage.recorder.read(History::counts);
        ensure!(counts.values().sum::<usize>() == wanted, "{counts:?} of {wanted}");
        Ok(())
    };
    stage.ctx.wait("all are assigned", deadline, async || paced(ask).await).await
}

/// What the member takes once it hardly works any more; it may be more than that for a while.
async fn rss_kib(stage: &Stage, member: &str, most: u64) -> anyhow::Result<u64> {
    let process = &stage.cast.member(member)?.process;
    let ask = async || {
        let before = process.cpu()?;
        tokio::time::sleep(IDLE).await;
        let (worked, rss) = (process.cpu()?.saturating_sub(before), process.rss_kib()?);
        ensure!(worked < IDLE / 10, "it worked {worked:?} in {IDLE:?}");
        ensure!(rss <= most, "{rss} KiB, not {most}");
        Ok(rss)
    };
    stage.ctx.wait("memory is within its bound", CALM, ask).await
}

async fn flat(ctx: Context) -> anyhow::Result<()> {
    let steps = if are_figures() { MANY } else { STEPS };
    let mut stage = Stage::set(ctx, Plan::named("memory")).await?;
    stage.lead(&["m1"]).await?;
    let kept = Kept::new(stage.admin(), (stage.names(), &stage.ring), &stage.ctx.namespace, "kept").await?;
    let none = rss_kib(&stage, "m1", u64::MAX).await?;
    let (mut there, mut told) = (0, vec![format!("{none} KiB with 0")]);
    // An unoptimised build pays more for what is done for the first time: it is measured from its first objects on.
    let mut most = if are_figures() { none + GROWTH_KIB } else { u64::MAX };
    for wanted in steps {
        stage.secrets.create_many(wanted - there).await?;
        there = *wanted;
        assigned(&stage, there, TIMEOUT).await?;
        let rss = rss_kib(&stage, "m1", most).await.with_context(|| told.join(", "))?;
        told.push(format!("{rss} KiB with {there}"));
        most = most.min(rss + GROWTH_KIB);
    }
    // One that finds them there.
    stage.cast.stop("m1").await?;
    stage.lead(&["m2"]).await?;
    told.push(format!("{} KiB in another that finds {there}", rss_kib(&stage, "m2", most).await?));
    ensure!(kept.is_held(), "the Lease was taken");
    stage.close(&format!("RSS {}", told.join(", "))).await
}
