//! The sharder and the API server fail in the middle of a scale-out.
//!
//! Never more than one of them at a time.

use std::time::Instant;

use anyhow::ensure;
use serde_json::json;

use super::rings_scale::RATE;
use crate::cluster::Context;
use crate::members::figures::seconds;
use crate::rings::language;
use crate::rings::stage::{Plan, SECRETS, SETTLED, Stage};
use crate::trial::Case;

/// Few at a time, so that there is a middle.
const AT_ONCE: usize = 2;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.own_server().needs(language::needed);
    vec![
        case(Case::new("rings_sharder", "the_leader_is_killed_in_a_scale_out", leader_killed)),
        case(Case::new("rings_sharder", "the_leader_stops_in_a_scale_out", leader_stops)),
        case(Case::new("rings_sharder", "the_api_server_restarts_in_a_scale_out", api_restarts)),
    ]
}

/// Two members and three shards, and a fourth that objects are on their way to.
async fn in_scale_out(ctx: Context, name: &'static str) -> anyhow::Result<Stage> {
    let moves = json!({ "moves": { "settleSeconds": 1, "concurrent": AT_ONCE } });
    let mut stage = Stage::set(ctx, Plan::named(name).spec(moves)).await?;
    stage.secrets.create_many(SECRETS).await?;
    stage.lead(&["m1", "m2"]).await?;
    stage.join(3).await?;
    stage.balanced().await?;
    stage.settled(SETTLED).await?;
    let mark = stage.recorder.mark();
    stage.join(1).await?;
    stage.draining(mark).await?;
    Ok(stage)
}

async fn leader_killed(ctx: Context) -> anyhow::Result<()> {
    let mut stage = in_scale_out(ctx, "leader killed").await?;
    let leader = stage.leader().await?;
    let (_, since) = stage.cast.kill(&leader)?;
    let changing = stage.secrets.keep_changing(RATE);
    stage.balanced().await?;
    let took = since.elapsed();
    changing.stop().await?;
    ensure!(stage.leader().await? != leader, "{leader} is dead");
    stage.end(&format!("balanced {} after its death", seconds(took))).await
}

async fn leader_stops(ctx: Context) -> anyhow::Result<()> {
    let mut stage = in_scale_out(ctx, "leader stops").await?;
    let (leader, since) = (stage.leader().await?, Instant::now());
    stage.cast.stop(&leader).await?;
    stage.balanced().await?;
    stage.end(&format!("balanced {} after", seconds(since.elapsed()))).await
}

/// Shards that couldn't renew in time have ended, as they should, and are started again.
async fn api_restarts(ctx: Context) -> anyhow::Result<()> {
    let mut stage = in_scale_out(ctx, "API server restarted").await?;
    stage.may_miss = true;
    stage.ctx.server.stop_api(false)?;
    stage.ctx.server.start_api()?;
    stage.ctx.server.ready().await?;
    let since = Instant::now();
    let starts = stage.renewing().await?;
    stage.balanced().await?;
    stage.end(&format!("balanced {} after, {starts} shards ended and came back", seconds(since.elapsed()))).await
}
