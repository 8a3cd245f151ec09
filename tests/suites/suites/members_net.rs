//! Members whose way to the API server breaks, or goes silent; and an API server that restarts or is away, under load.
//!
//! Never about processes that die: see `members_kill`.

use std::time::{Duration, Instant};

use anyhow::ensure;

use super::members_scale::TIMEOUT;
use crate::cluster::Context;
use crate::members::figures::seconds;
use crate::members::stage::{BALANCE, Plan, Stage};
use crate::members::tunnel::Way;
use crate::trial::Case;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.timeout(TIMEOUT);
    vec![
        case(Case::real("members_net", "a_member_is_cut_off", |ctx| cut(ctx, false, Way::Drop))),
        case(Case::real("members_net", "a_member_is_cut_off_silently", |ctx| cut(ctx, false, Way::Silent))),
        case(Case::real("members_net", "the_leader_is_cut_off", |ctx| cut(ctx, true, Way::Drop))),
        case(Case::real("members_net", "the_leader_is_cut_off_silently", |ctx| cut(ctx, true, Way::Silent))),
        case(Case::real("members_net", "a_short_cut_loses_nobody", short_cut)),
        case(Case::new("members_net", "the_api_server_restarts", |ctx| away(ctx, "API restart", 0))).own_server(),
        case(Case::new("members_net", "the_api_server_is_away", |ctx| away(ctx, "API away", 4))).own_server(),
    ]
}

async fn cut(ctx: Context, is_leader: bool, way: Way) -> anyhow::Result<()> {
    let name = match (is_leader, way) {
        (false, Way::Drop) => "cut off",
        (false, _) => "cut off silently",
        (true, Way::Drop) => "leader cut off",
        (true, _) => "leader cut off silently",
    };
    let mut stage = Stage::set(ctx, Plan::named(name)).await?;
    if is_leader {
        // The first leads.
        stage.cast.start_in_tunnel("m1").await?;
        stage.balanced().await?;
        stage.cast.start(&["m2", "m3"]).await?;
    } else {
        stage.cast.start(&["m2"]).await?;
        stage.balanced().await?;
        stage.cast.start(&["m3"]).await?;
        stage.cast.start_in_tunnel("m1").await?;
    }
    stage.begin().await?;
    let leader = stage.leader().await?;
    ensure!((leader == "m1") == is_leader, "{leader} leads");
    let member = stage.cast.take("m1")?;
    let shards = stage.watcher.table()?.of(&member.name);
    let since = Instant::now();
    let Some(tunnel) = &member.tunnel else { anyhow::bail!("no tunnel") };
    tunnel.set(way);
    let times = stage.taken_over(since, &shards, std::slice::from_ref(&member.name)).await?;
    stage.balanced().await?;
    tunnel.set(Way::Pass);
    let open = Instant::now();
    member.process.ended(&stage.ctx, BALANCE).await?;
    let ended = open.elapsed();
    stage.balanced().await?;
    stage.end(&format!("called again within {times}, ended {} after it could see", seconds(ended))).await
}

/// Past its right to work, but not past its Lease: it stops, and goes on as the same member.
async fn short_cut(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::set(ctx, Plan::named("short cut")).await?;
    stage.cast.start(&["m2", "m3"]).await?;
    stage.cast.start_in_tunnel("m1").await?;
    stage.begin().await?;
    let (mark, timing) = (stage.mark(), stage.cast.timing());
    let span = timing.deadline + (timing.duration - timing.deadline) / 3;
    if let Some(tunnel) = &stage.cast.member("m1")?.tunnel {
        tunnel.set(Way::Drop);
        tokio::time::sleep(span).await;
        tunnel.set(Way::Pass);
    }
    stage.play(timing.duration).await;
    stage.balanced().await?;
    let moved = stage.moved(mark);
    stage.end(&format!("{moved} moved by a cut of {}", seconds(span))).await?;
    ensure!(moved == 0 && stage.cast.bury().is_empty(), "{moved} moved");
    Ok(())
}

/// For so many Lease durations. Nobody else took anything meanwhile, as nobody could: each goes on with what it had.
async fn away(ctx: Context, name: &'static str, durations: u32) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named(name), &["m1", "m2", "m3"]).await?;
    stage.play(Duration::from_secs(2)).await;
    let (mark, server) = (stage.mark(), stage.ctx.server.clone());
    let gone = Instant::now();
    stage.ctx.server.stop_api(durations == 0)?;
    stage.play(stage.cast.timing().duration * durations).await;
    server.start_api()?;
    server.ready().await?;
    let span = gone.elapsed();
    // Calls again: every change from now on is served, and none was lost.
    let back = Instant::now();
    let before = stage.hook.count();
    stage
        .ctx
        .wait("somebody works", BALANCE, async || {
            ensure!(stage.hook.count() > before);
            Ok(())
        })
        .await?;
    let first = back.elapsed();
    stage.balanced().await?;
    stage.play(stage.cast.timing().duration * 2).await;
    let (moved, ended) = (stage.moved(mark), stage.cast.bury());
    stage.end(&format!("away for {}, first call {} after it; {moved} moved", seconds(span), seconds(first))).await?;
    ensure!(moved == 0 && ended.is_empty(), "{moved} moved, {ended:?} ended");
    Ok(())
}
