//! Shards come and go by their user's will, while Secrets change: what that costs in writes and time, and that nothing is
//! done twice.
//!
//! Never about faults: see `rings_die`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::cluster::Context;
use crate::members::figures::seconds;
use crate::rings::language;
use crate::rings::record::Kind;
use crate::rings::secrets::child;
use crate::rings::stage::{Plan, SETTLED, Stage};
use crate::server::audit::Mark;
use crate::trial::Case;

/// Changes of Secrets a second meanwhile.
pub(super) const RATE: u32 = 20;
/// How long shards must be still in the rolling update: longer than one takes to come.
const STILL: u64 = 8;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.own_server().needs(language::needed);
    vec![
        case(Case::new("rings_scale", "three_to_four_to_two", three_to_four_to_two)),
        case(Case::new("rings_scale", "rolling_update", rolling_update)),
    ]
}

/// What was moved since, and what the members wrote for it, as figures: at most two writes for each main object, and one
/// for each child.
pub(super) fn cost(stage: &Stage, mark: usize, since: Mark) -> anyhow::Result<(bool, String)> {
    let moved = |kind| stage.recorder.read(|history| history.moved(kind, mark));
    let (mains, children) = (moved(Kind::Secret), moved(Kind::ConfigMap));
    ensure!(mains > 0 && children > 0, "{mains} Secrets and {children} ConfigMaps moved");
    let (of_mains, of_children) = (stage.writes(since, Kind::Secret)?, stage.writes(since, Kind::ConfigMap)?);
    let told = format!(
        "{mains} Secrets moved by {} writes (at most {} each), {children} ConfigMaps by {} (at most {} each)",
        of_mains.total(),
        of_mains.most(),
        of_children.total(),
        of_children.most(),
    );
    Ok((of_mains.total() <= 2 * mains && of_children.total() <= children, told))
}

async fn three_to_four_to_two(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("scale"), 3).await?;
    let changing = stage.secrets.keep_changing(RATE);
    let (mark, since, start) = (stage.recorder.mark(), stage.ctx.mark()?, Instant::now());
    stage.join(1).await?;
    let spread = stage.balanced().await?;
    let took = start.elapsed();
    let (is_cheap, out) = cost(&stage, mark, since)?;
    ensure!(is_cheap, "{out}");
    let wrong = stage.recorder.read(|history| history.misordered(mark, child));
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));

    let (mark, since, start) = (stage.recorder.mark(), stage.ctx.mark()?, Instant::now());
    for name in stage.shard_names().into_iter().take(2) {
        stage.stop(&name).await?;
    }
    stage.placed(SETTLED).await?;
    let back = start.elapsed();
    let left = stage.balanced().await?;
    // What the first leaves may be the second's for a moment.
    let (_, into) = cost(&stage, mark, since)?;
    let changes = changing.stop().await?;
    let told = format!(
        "out in {}: {out}, max/mean {spread:.3}; in in {}: {into}, max/mean {left:.3}; {changes} changes meanwhile",
        seconds(took),
        seconds(back),
    );
    stage.end(&told).await
}

/// One shard comes for each that goes, as a Deployment does it; each object is to move once.
async fn rolling_update(ctx: Context) -> anyhow::Result<()> {
    let plan = Plan::named("rolling update").spec(json!({ "moves": { "settleSeconds": STILL } }));
    let mut stage = Stage::with(ctx, plan, 3).await?;
    let old = stage.shard_names();
    let (mark, since) = (stage.recorder.mark(), stage.ctx.mark()?);
    for name in &old {
        stage.join(1).await?;
        stage.stop(name).await?;
    }
    stage.placed(SETTLED).await?;
    stage.balanced().await?;
    // What moves for balance alone comes later.
    stage.quiet(Duration::from_secs(STILL)).await?;
    let changes = stage.recorder.read(|history| history.changes(mark));
    let most = changes.first().copied().context("nothing moved")?;
    let mean = changes.iter().sum::<usize>() as f64 / changes.len() as f64;
    // controller-sharding: 1.5 times, for three shards.
    ensure!(mean <= 1.5, "each Secret that moved did so {mean:.2} times, one {most} times");
    let (_, cost) = cost(&stage, mark, since)?;
    let told = format!("each moved {mean:.2} times, at most {most}; {cost}");
    stage.end(&told).await
}
