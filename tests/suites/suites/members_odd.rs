//! Members that are alive but useless, that crash again and again, or whose clock is wrong, under load.
//!
//! Never about one clean death: see `members_kill`.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::faults_clock::shim;
use super::members_scale::TIMEOUT;
use crate::cluster::Context;
use crate::members::figures::seconds;
use crate::members::stage::{BALANCE, Plan, SERVED, Stage};
use crate::trial::Case;

/// The annotation that makes a sync fail, in processes that are started with [`FAULT`].
const ANNOTATION: &str = "trial.ringmaster.dev/fault";
/// The variable that names it.
const FAULT: &str = "RINGMASTER_TEST_FAULT_ANNOTATION";
/// Parents that wedge their worker: more than a process has threads.
const WEDGES: usize = 12;
/// Starts of the member that crashes.
const STARTS: usize = 4;
/// How long a poison object is there.
const POISONED: Duration = Duration::from_secs(60);
/// How soon a crashed member is started again.
const RESTART: Duration = Duration::from_secs(1);
/// Most crashes by one poison object in that time: the delays grow.
const CRASHES: usize = 12;
/// Seconds.
const HOUR: i64 = 3600;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.timeout(TIMEOUT);
    vec![
        case(Case::real("members_odd", "a_wedged_pool", wedged)),
        case(Case::real("members_odd", "a_member_that_crashes_at_every_start", crashes_at_start)),
        case(Case::real("members_odd", "an_object_that_crashes_its_member", poison)),
        case(Case::real("members_odd", "clocks_that_are_an_hour_off", clocks)),
    ]
}

fn fault(value: &Value) -> Value {
    json!({ "metadata": { "annotations": { ANNOTATION: value } } })
}

async fn armed(ctx: Context, name: &'static str) -> anyhow::Result<Stage> {
    let mut stage = Stage::set(ctx, Plan::named(name)).await?;
    stage.cast.start_with(&["m1", "m2", "m3"], |build| build.env(FAULT, ANNOTATION)).await?;
    stage.begin().await?;
    Ok(stage)
}

/// It goes on renewing nothing: whoever can't work must not keep what it has.
async fn wedged(ctx: Context) -> anyhow::Result<()> {
    let mut stage = armed(ctx, "wedged pool").await?;
    let victim = stage.followers().await?.pop().context("nobody follows")?;
    let name = stage.cast.member(&victim)?.name.clone();
    let shards = stage.watcher.table()?.of(&name);
    let names: Vec<String> = stage.parents_in(&shards).into_iter().take(WEDGES).collect();
    let bare = |key: &String| key.rsplit('/').next().unwrap_or_default().to_owned();
    stage.stop_load().await?;
    for key in &names {
        stage.ctx.admin.patch_merge(&stage.things, &bare(key), &fault(&json!("wedge"))).await?;
    }
    let since = Instant::now();
    // It has taken them; for the others they must be as good as ever.
    stage.play(Duration::from_secs(1)).await;
    for key in &names {
        stage.ctx.admin.patch_merge(&stage.things, &bare(key), &fault(&Value::Null)).await?;
    }
    stage.start_load();
    let times = stage.taken_over(since, &shards, std::slice::from_ref(&name)).await?;
    let wedged = stage.cast.take(&victim)?;
    stage.balanced().await?;
    // It ends by itself, or is ended by its liveness probe, which isn't here.
    drop(wedged);
    stage.end(&format!("{} parents wedged it; called again within {times}", names.len())).await
}

async fn crashes_at_start(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("crashes at every start"), &["m1", "m2"]).await?;
    let mark = stage.mark();
    for _ in 0..STARTS {
        stage.cast.start(&["m3"]).await?;
        stage.cast.kill("m3")?;
        stage.play(Duration::from_secs(3)).await;
    }
    stage.play(stage.cast.timing().duration * 2).await;
    stage.balanced().await?;
    let moved = stage.moved(mark);
    // Each start could have cost a share of the table, there and back.
    ensure!(moved == 0, "{moved} shards moved");
    stage.end(&format!("{STARTS} crashes moved {moved}")).await
}

async fn poison(ctx: Context) -> anyhow::Result<()> {
    let mut stage = armed(ctx, "poison object").await?;
    stage.stop_load().await?;
    let poisoned = stage.load.any().context("no parent")?;
    stage.ctx.admin.patch_merge(&stage.things, &poisoned, &fault(&json!("crash"))).await?;
    let (start, mut crashes) = (Instant::now(), Vec::new());
    while start.elapsed() < POISONED {
        stage.play(RESTART).await;
        for base in stage.cast.bury() {
            crashes.push((base.clone(), start.elapsed()));
            // Whoever crashes before its Lease is seen fails this, and the trial.
            stage.cast.start_with(&[&base], |build| build.env(FAULT, ANNOTATION)).await?;
        }
    }
    let names: BTreeSet<&String> = crashes.iter().map(|(base, _)| base).collect();
    let figures = format!("{} crashes of {} members in {POISONED:?}", crashes.len(), names.len());
    ensure!((1..=CRASHES).contains(&crashes.len()), "{figures}: {crashes:?}");
    stage.ctx.admin.patch_merge(&stage.things, &poisoned, &fault(&Value::Null)).await?;
    stage.start_load();
    stage.play(Duration::from_secs(2)).await;
    stage.stop_load().await?;
    let healed = stage.shown(SERVED * 2).await?;
    stage.end(&format!("{figures}; all served {} after it was healed", seconds(healed))).await
}

/// One ahead, one behind, one right: nobody compares another's clock with its own.
async fn clocks(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::set(ctx, Plan::named("clocks an hour off")).await?;
    let dir = tempfile::tempdir()?;
    let shim = shim(dir.path())?.display().to_string();
    for (base, offset) in [("m1", HOUR), ("m2", -HOUR), ("m3", 0)] {
        let file = dir.path().join(base);
        std::fs::write(&file, offset.to_string())?;
        let file = file.display().to_string();
        stage.cast.start_with(&[base], |build| build.env("LD_PRELOAD", &shim).env("CLOCKSHIFT_FILE", &file)).await?;
    }
    stage.begin().await?;
    let mark = stage.mark();
    stage.play(stage.cast.timing().duration * 2).await;
    ensure!(stage.moved(mark) == 0, "{} moved at rest", stage.moved(mark));
    let first = stage.kill(&["m1"]).await?;
    stage.balanced().await?;
    let second = stage.kill(&["m2"]).await?;
    stage.balanced_within(BALANCE).await?;
    stage.end(&format!("the one ahead was taken over within {first}, the one behind within {second}")).await
}
