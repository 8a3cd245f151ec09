//! Members come and go by a user's will, under load: from one to five, one stops, all are replaced, all stop at once.
//!
//! Never about faults: see `members_kill` and `members_net`.

use std::time::Duration;

use anyhow::{Context as _, ensure};

use crate::cluster::Context;
use crate::members::check::{SHARDS, unwritten};
use crate::members::figures::seconds;
use crate::members::stage::{Plan, SERVED, Stage, told};
use crate::trial::Case;

/// How long one of these trials may take.
pub(super) const TIMEOUT: Duration = Duration::from_secs(400);
/// What a rolling update of three members may move: each shard once, and a little.
const ROLLING: usize = 260;
/// Most writes of the table by one member more or less.
const TABLE_WRITES: usize = 10;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.timeout(TIMEOUT);
    vec![
        case(Case::new("members_scale", "one_to_five", one_to_five)),
        case(Case::new("members_scale", "one_stops", one_stops)),
        case(Case::real("members_scale", "rolling_restart_of_all", rolling_restart)),
        case(Case::real("members_scale", "all_stop_and_start_at_once", all_at_once)),
        case(Case::real("members_scale", "is_seen_in_metrics_and_conditions", seen)),
        case(Case::new("members_scale", "nothing_is_written_to_objects", writes_nothing)),
    ]
}

/// The share of one of so many members.
pub(super) fn share(members: usize) -> usize {
    SHARDS.div_ceil(members)
}

async fn one_to_five(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("one to five"), &["m1"]).await?;
    let mark = stage.mark();
    stage.cast.start(&["m2"]).await?;
    let second = stage.balanced().await?;
    let moved = stage.moved(mark);
    ensure!(moved == share(2), "{moved} shards moved to the second");
    let mark = stage.mark();
    stage.cast.start(&["m3", "m4", "m5"]).await?;
    let rest = stage.balanced().await?;
    let more = stage.moved(mark);
    // What the three get.
    ensure!(more <= 3 * share(5), "{more} shards moved to three more");
    let told = format!("{moved} moved to the second in {}, {more} to three more in {}", seconds(second), seconds(rest));
    stage.end(&told).await
}

async fn one_stops(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("one stops"), &["m1", "m2", "m3"]).await?;
    stage.play(Duration::from_secs(2)).await;
    let mark = stage.mark();
    let took = stage.cast.stop("m2").await?;
    stage.balanced().await?;
    let moved = stage.moved(mark);
    ensure!(moved <= share(3), "{moved} shards moved");
    // The leader, who has more to leave behind.
    let (mark, leader) = (stage.mark(), stage.leader().await?);
    let leaders = stage.cast.stop(&leader).await?;
    stage.balanced().await?;
    let more = stage.moved(mark);
    ensure!(more <= share(2), "{more} shards moved");
    let told = format!("stopped in {} ({moved} moved), the leader in {} ({more})", seconds(took), seconds(leaders));
    stage.end(&told).await
}

async fn rolling_restart(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("rolling restart"), &["m1", "m2", "m3"]).await?;
    let mark = stage.mark();
    for (old, new) in [("m1", "m4"), ("m2", "m5"), ("m3", "m6")] {
        stage.cast.start(&[new]).await?;
        stage.cast.stop(old).await?;
    }
    let took = stage.balanced().await?;
    let moved = stage.moved(mark);
    stage.end(&format!("{moved} moved in all, at rest {} after the last", seconds(took))).await?;
    ensure!(moved <= ROLLING, "{moved} shards moved");
    Ok(())
}

async fn all_at_once(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("all stop and start"), &["m1", "m2", "m3"]).await?;
    let took = stage.cast.stop_all().await?;
    let calls = stage.hook.count();
    stage.play(Duration::from_secs(2)).await;
    ensure!(stage.hook.count() == calls, "somebody works on");
    stage.cast.start(&["m1", "m2", "m3"]).await?;
    let back = stage.balanced().await?;
    stage.end(&format!("stopped in {}, shared again {} after the start", seconds(took), seconds(back))).await
}

/// Without a load: what is written then is written by scaling.
async fn writes_nothing(ctx: Context) -> anyhow::Result<()> {
    let plan = Plan { parents: 200, each: 2, rate: 0, ..Plan::named("writes nothing") };
    let mut stage = Stage::with(ctx, plan, &["m1", "m2", "m3", "m4"]).await?;
    stage.quiet(SERVED).await?;
    let mut told_writes = Vec::new();
    for step in ["join", "stop", "kill"] {
        let (audit, mark) = (stage.ctx.mark()?, stage.mark());
        match step {
            "join" => stage.cast.start(&["m5"]).await?,
            "stop" => {
                stage.cast.stop("m5").await?;
            }
            _ => {
                stage.kill(&["m4"]).await?;
            }
        }
        stage.balanced().await?;
        stage.quiet(SERVED).await?;
        let (requests, moved) = (stage.ctx.requests(audit)?, stage.moved(mark));
        let wrong = unwritten(&requests);
        ensure!(wrong.is_empty(), "{step}: {}", told(&wrong));
        let writes = requests.iter().filter(|r| r.resource == "shardtables" && r.is_write()).count();
        ensure!(moved <= share(4) && moved > 0, "{step}: {moved} shards moved");
        ensure!(writes <= TABLE_WRITES, "{step}: {writes} writes of the table");
        told_writes.push(format!("{step}: {moved} moved, {writes} writes of the table, none of objects"));
    }
    stage.end(&told_writes.join("; ")).await
}

/// What an operator sees of it.
async fn seen(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("seen"), &["m1", "m2"]).await?;
    stage.cast.start(&["m3"]).await?;
    stage.balanced().await?;
    let victim = stage.followers().await?.pop().context("nobody follows")?;
    stage.kill(&[&victim]).await?;
    stage.balanced().await?;
    // Members learn of the table when we do, not before.
    let (handed, taken) = stage.ctx.wait("metrics tell", SERVED, async || counted(&stage)).await?;
    let ask = async || {
        let object = stage.ctx.admin.get(&Context::controllers(), &stage.controller).await?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        for (kind, status) in [("Sharded", "True"), ("Rebalancing", "False"), ("Unassigned", "False")] {
            ensure!(conditions.iter().any(|c| c["type"] == kind && c["status"] == status), "{kind}: {conditions:?}");
        }
        Ok(())
    };
    stage.ctx.wait("conditions tell", SERVED, ask).await?;
    stage.end(&format!("{handed} hand-overs, {taken} take-overs are counted")).await
}

/// Whether each member's metrics say what the table says: the hand-overs and take-overs that all of them have counted.
fn counted(stage: &Stage) -> anyhow::Result<(f64, f64)> {
    let (mut handed, mut taken) = (0.0, 0.0);
    for member in stage.cast.members() {
        let (scrape, name) = (member.metrics()?, member.name.as_str());
        let text: Vec<&str> = scrape.text.lines().filter(|line| line.starts_with("ringmaster_")).collect();
        let text = text.join("\n");
        let owned = stage.watcher.table()?.of(name).len() as f64;
        let says = scrape.sum("ringmaster_shards", &[("member", name), ("state", "owned")]);
        ensure!((says - owned).abs() < 0.5, "{name} says {says} instead of {owned}:\n{text}");
        ensure!(scrape.sum("ringmaster_shards", &[("state", "moving")]) < 0.5, "{text}");
        ensure!(scrape.sum("ringmaster_unassigned_objects", &[]) < 0.5, "{text}");
        let age = scrape.sum("ringmaster_lease_age_seconds", &[]);
        ensure!(age >= 0.0 && age < stage.cast.timing().deadline.as_secs_f64(), "{age}:\n{text}");
        for name in ["ringmaster_unassigned_oldest_seconds", "ringmaster_guard_refusals"] {
            ensure!(scrape.metrics.keys().any(|key| key.starts_with(name)), "no {name}:\n{text}");
        }
        handed += scrape.sum("ringmaster_handover_seconds_count", &[]);
        taken += scrape.sum("ringmaster_takeover_seconds_count", &[]);
    }
    ensure!(handed > 0.0 && taken > 0.0, "{handed} hand-overs and {taken} take-overs are counted");
    Ok((handed, taken))
}
