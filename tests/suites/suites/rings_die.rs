//! Shards that die, stand still and come back, in each language, while Secrets change.
//!
//! Never about the sharder: see `rings_sharder`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::rings_scale::RATE;
use crate::cluster::Context;
use crate::members::figures::seconds;
use crate::rings::language::{self, Language};
use crate::rings::record::Kind;
use crate::rings::shard::DURATION;
use crate::rings::stage::{Plan, SETTLED, Stage};
use crate::trial::Case;
use crate::wait;

/// From its last sign of life to the last of its objects that has another shard.
pub(super) const TAKEN_OVER: Duration = DURATION.saturating_add(Duration::from_secs(2));
/// How long a shard that lost its Lease may take to end once it goes on.
const ENDS: Duration = Duration::from_secs(20);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.own_server().needs(language::needed);
    vec![
        case(Case::new("rings_die", "killed", killed)),
        case(Case::new("rings_die", "killed_and_back_at_once", back_at_once)),
        case(Case::new("rings_die", "paused_for_longer_than_their_leases", paused)),
        case(Case::new("rings_die", "paused_for_a_moment", paused_shortly)),
    ]
}

/// Waits until all that was a shard's is others'; from `since` to the last of it.
pub(super) async fn taken_over(stage: &Stage, name: &str, mark: usize, since: Instant) -> anyhow::Result<Duration> {
    let ask = async || {
        let times = stage.recorder.read(|history| history.taken_over(Kind::Secret, name, mark));
        times.context("some aren't yet")
    };
    let times = stage.ctx.wait(&format!("{name}'s are others'"), SETTLED, ask).await?;
    let last = times.iter().max().with_context(|| format!("{name} had nothing"))?;
    Ok(last.saturating_duration_since(since))
}

async fn killed(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("kill -9"), 4).await?;
    let changing = stage.secrets.keep_changing(RATE);
    let mut told = Vec::new();
    // One of each language; the last stays.
    for name in stage.shard_names().into_iter().take(3) {
        let (mark, language) = (stage.recorder.mark(), stage.shard(&name)?.language);
        let since = stage.kill(&name)?;
        let took = taken_over(&stage, &name, mark, since).await?;
        told.push(format!("{language}'s taken over within {}", seconds(took)));
        ensure!(took <= TAKEN_OVER, "{told:?}, not {TAKEN_OVER:?}");
        stage.placed(SETTLED).await?;
    }
    let changes = changing.stop().await?;
    stage.end(&format!("{}; {changes} changes meanwhile", told.join(", "))).await
}

/// As a container's restart: before its Lease has run out it is here again, under its name.
async fn back_at_once(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("kill -9 and back"), 3).await?;
    let changing = stage.secrets.keep_changing(RATE);
    let mark = stage.recorder.mark();
    // The one that starts fastest.
    let name = stage.shard_names().into_iter().find(|name| name.starts_with(Language::Rust.name()));
    let name = name.context("no shard in Rust")?;
    let since = stage.kill(&name)?;
    stage.rejoin(&name, Language::Rust)?;
    stage.shard(&name)?.started(&stage.ctx).await?;
    let back = since.elapsed();
    let still = async || {
        let moved = stage.recorder.read(|history| history.moved(Kind::Secret, mark));
        ensure!(moved == 0, "{moved} Secrets moved");
        Ok(())
    };
    wait::stays("its objects are its own", DURATION + Duration::from_secs(1), still).await?;
    changing.stop().await?;
    stage.end(&format!("back after {}", seconds(back))).await
}

/// Stops these for so long that their Leases are taken. When they go on they find that out before they write, end, and come
/// back under their names; how long each step took.
pub(super) async fn pause(stage: &mut Stage, names: &[String]) -> anyhow::Result<String> {
    let (mark, since) = (stage.recorder.mark(), Instant::now());
    let mut stopped = Vec::new();
    for name in names {
        let shard = stage.take(name)?;
        shard.freeze(true)?;
        stopped.push(shard);
    }
    let mut told = Vec::new();
    for shard in &stopped {
        let took = taken_over(stage, &shard.name, mark, since).await?;
        told.push(format!("{}'s taken over within {}", shard.language, seconds(took)));
    }
    stage.placed(SETTLED).await?;
    // Changes that they would act on, if they did.
    tokio::time::sleep(Duration::from_secs(1)).await;
    for shard in &stopped {
        shard.freeze(false)?;
    }
    let resumed = Instant::now();
    for shard in stopped {
        let name = shard.name.clone();
        let ask = async || shard.status()?.context("it runs");
        let status = stage.ctx.wait(&format!("{name} ends"), ENDS, ask).await?;
        ensure!(!status.success(), "{name} lost its Lease and ended with {status}");
        ensure!(shard.told("lost")? && !shard.told("stopped")?, "{name} didn't say that it lost its right");
        told.push(format!("{} ended {} after it went on", shard.language, seconds(resumed.elapsed())));
        stage.lines.extend(shard.lines()?);
        stage.rejoin(&name, shard.language)?;
    }
    // They wait until the taken Leases have run out.
    for name in names {
        stage.shard(name)?.started(&stage.ctx).await?;
    }
    told.push(format!("back {} after", seconds(resumed.elapsed())));
    stage.balanced().await?;
    Ok(told.join(", "))
}

async fn paused(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("SIGSTOP for longer than the Lease"), 4).await?;
    let changing = stage.secrets.keep_changing(RATE);
    // One of each language; the last stays.
    let names: Vec<String> = stage.shard_names().into_iter().take(3).collect();
    let told = pause(&mut stage, &names).await?;
    changing.stop().await?;
    stage.end(&told).await
}

/// Too short for anybody to take their Leases, and longer than their own right to work.
async fn paused_shortly(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("SIGSTOP for a moment"), 3).await?;
    let changing = stage.secrets.keep_changing(RATE);
    for shard in stage.shards.values() {
        shard.freeze(true)?;
    }
    // Longer than the renew deadline of 2 s, shorter than the Lease.
    tokio::time::sleep(Duration::from_secs(3)).await;
    for shard in stage.shards.values() {
        shard.freeze(false)?;
    }
    // Whoever found its right gone has ended and comes back; whoever renewed first goes on.
    let starts = stage.renewing().await?;
    stage.placed(SETTLED).await?;
    changing.stop().await?;
    stage.end(&format!("{starts} of them ended and came back")).await
}
