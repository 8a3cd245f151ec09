//! Figures of installations with many parents: moves, writes, take-over, hand-over, memory; and parents of every sort.
//!
//! Small unless RINGMASTER_MEMBERS_PARENTS says how many parents: then the budgets of a machine that does nothing else hold
//! too, and foreign objects are created beside.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::TryStreamExt as _;
use serde_json::json;

use super::members_hands::{OWNER, SELF};
use super::members_scale::share;
use crate::cluster::{Context, Scope};
use crate::members::check::unwritten;
use crate::members::figures::seconds;
use crate::members::stage::{Plan, Stage, told};
use crate::trial::Case;

/// How long one of these trials may take.
const TIMEOUT: Duration = Duration::from_secs(1800);
/// Parents unless the environment says otherwise.
const PARENTS: usize = 1_000;
/// How long all of them may take to be served, or to be spread.
const PHASE: Duration = Duration::from_secs(300);
/// Most writes of the table by one member more or less.
const TABLE_WRITES: usize = 10;
/// What a take-over may take beyond the Lease's duration.
const TAKE_OVER: Duration = Duration::from_secs(2);
/// What a hand-over may take, at the 99th percentile.
const HAND_OVER: Duration = Duration::from_millis(300);
/// What both may take beyond that on a machine that runs other trials too.
const SLACK: Duration = Duration::from_secs(8);
/// Wholes, and members that share them.
const WHOLES: u64 = 100;
/// Foreign objects for each parent that was asked for.
const FOREIGN: usize = 10;
/// What they may add to a member's memory.
const FOREIGN_KIB: u64 = 10 << 10;
/// Requests at once for them.
const CONNECTIONS: usize = 32;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.timeout(TIMEOUT);
    vec![
        case(Case::real("members_large", "one_joins_and_one_leaves", joins_and_leaves)),
        case(Case::real("members_large", "one_is_killed", one_is_killed)),
        // What other trials' members have labelled would be cached too.
        case(Case::real("members_large", "each_caches_its_share", each_caches)).own_server(),
        case(Case::new("members_large", "parents_that_were_there_before", before)),
        case(Case::real("members_large", "parents_by_generate_name", |ctx| {
            sort(ctx, Plan { generated: true, ..Plan::named("generateName") })
        })),
        case(Case::real("members_large", "cluster_scoped_parents", |ctx| {
            sort(ctx, Plan { scope: Scope::Cluster, ..Plan::named("cluster-scoped") })
        })),
        case(Case::real("members_large", "a_hundred_wholes", wholes)),
    ]
}

fn asked() -> anyhow::Result<Option<usize>> {
    match std::env::var("RINGMASTER_MEMBERS_PARENTS") {
        Ok(text) => Ok(Some(text.parse().context("RINGMASTER_MEMBERS_PARENTS must be a number")?)),
        Err(_) => Ok(None),
    }
}

/// A budget, with some slack unless the machine is this trial's.
fn budget(time: Duration) -> anyhow::Result<Duration> {
    Ok(if asked()?.is_some() { time } else { time + SLACK })
}

/// So many parents without a load, and these members, once all is served.
async fn many(ctx: Context, plan: Plan, members: &[&str]) -> anyhow::Result<Stage> {
    let parents = asked()?.unwrap_or(PARENTS);
    let mut stage = Stage::set(ctx, Plan { parents, ..plan }).await?;
    stage.cast.start(members).await?;
    stage.balanced().await?;
    stage.quiet(PHASE).await?;
    Ok(stage)
}

async fn joins_and_leaves(ctx: Context) -> anyhow::Result<()> {
    let plan = Plan { rate: 0, ..Plan::named("one joins and leaves") };
    let mut stage = many(ctx, plan, &["m1", "m2", "m3", "m4"]).await?;
    let mut figures = Vec::new();
    for step in ["joins", "leaves"] {
        let (audit, mark, since) = (stage.ctx.mark()?, stage.mark(), Instant::now());
        if step == "joins" {
            stage.cast.start(&["m5"]).await?;
        } else {
            stage.cast.stop("m5").await?;
        }
        stage.balanced().await?;
        let took = since.elapsed();
        stage.quiet(PHASE).await?;
        let (requests, moved) = (stage.ctx.requests(audit)?, stage.moved(mark));
        let [rows, gaps] = stage.gaps(mark)?;
        let wrong = unwritten(&requests);
        ensure!(wrong.is_empty(), "{step}: {}", told(&wrong));
        let writes = requests.iter().filter(|r| r.resource == "shardtables" && r.is_write()).count();
        let lists = requests.iter().filter(|r| r.verb == "list").count();
        figures.push(format!(
            "one {step}: {moved} shards in {}, {writes} writes of the table, 0 of objects, {lists} lists, handed over within {rows}, first call after {gaps}",
            seconds(took)
        ));
        ensure!(moved > 0 && moved <= share(5) && writes <= TABLE_WRITES, "{figures:?}");
        ensure!(gaps.at(990) <= budget(HAND_OVER)?, "{figures:?}");
    }
    stage.end(&figures.join("; ")).await
}

async fn one_is_killed(ctx: Context) -> anyhow::Result<()> {
    let plan = Plan { rate: 5, ..Plan::named("one of many is killed") };
    // As the budget says, whatever was asked for.
    let mut stage = Stage::set(ctx, Plan { parents: PARENTS, ..plan }).await?;
    stage.cast.start(&["m1", "m2", "m3"]).await?;
    stage.balanced().await?;
    stage.shown(PHASE).await?;
    stage.start_load();
    let most = budget(stage.cast.timing().duration + TAKE_OVER)?;
    let mut figures = Vec::new();
    for who in ["a member", "the leader"] {
        let leader = stage.leader().await?;
        let victim =
            if who == "the leader" { leader } else { stage.followers().await?.pop().context("nobody follows")? };
        let times = stage.kill(&[&victim]).await?;
        stage.balanced().await?;
        figures.push(format!("{who}: called again within {times}"));
        ensure!(times.most() <= most, "{figures:?}, not {most:?}");
    }
    stage.end(&figures.join("; ")).await
}

async fn each_caches(ctx: Context) -> anyhow::Result<()> {
    let plan = Plan { rate: 0, ..Plan::named("each caches its share") };
    let mut stage = many(ctx, plan, &["m1"]).await?;
    let mut figures = Vec::new();
    for more in [&[][..], &["m2"], &["m3", "m4"]] {
        stage.cast.start(more).await?;
        stage.balanced_within(PHASE).await?;
        stage.shown(PHASE).await?;
        let (mut bytes, mut objects, mut rss) = (Vec::new(), Vec::new(), Vec::new());
        for member in stage.cast.members() {
            let scrape = member.metrics()?;
            bytes.push(scrape.sum("ringmaster_cache_bytes", &[]) / 1024.0);
            objects.push(scrape.sum("ringmaster_cache_objects", &[]));
            rss.push(member.process.rss_kib()?);
        }
        figures.push(format!("{} members: {objects:?} objects, {bytes:.0?} KiB of them, RSS {rss:?} KiB", bytes.len()));
        // Parent and child, and nothing of the others'.
        let all = (stage.load.wishes().len() * 2) as f64;
        let most = all / objects.len() as f64 * 1.5 + 20.0;
        ensure!(objects.iter().all(|objects| *objects <= most), "{figures:?}");
        ensure!(objects.iter().sum::<f64>() <= all + 20.0, "{figures:?}");
    }
    if let Some(parents) = asked()? {
        let before: Vec<u64> = stage.cast.members().iter().map(|m| m.process.rss_kib()).collect::<Result<_, _>>()?;
        let foreign = futures::stream::iter((0..parents * FOREIGN).map(anyhow::Ok));
        let (admin, maps) = (&stage.ctx.admin, stage.ctx.configmaps());
        foreign
            .try_for_each_concurrent(CONNECTIONS, |number| {
                let body = json!({ "metadata": { "name": format!("foreign-{number}") }, "data": { "k": "v" } });
                let maps = &maps;
                async move { admin.create(maps, body).await.map(drop) }
            })
            .await?;
        let after: Vec<u64> = stage.cast.members().iter().map(|m| m.process.rss_kib()).collect::<Result<_, _>>()?;
        figures.push(format!("RSS before and after {} foreign ConfigMaps: {before:?}, {after:?}", parents * FOREIGN));
        let grew = before.iter().zip(&after).any(|(before, after)| *after > before + FOREIGN_KIB);
        ensure!(!grew, "{figures:?}");
    }
    stage.end(&figures.join("; ")).await
}

/// The members are there, and the parents, before the controller is.
async fn before(ctx: Context) -> anyhow::Result<()> {
    let parents = asked()?.unwrap_or(PARENTS).min(5_000);
    let plan = Plan { parents, late: true, rate: 0, ..Plan::named("parents from before") };
    let mut stage = Stage::set(ctx, plan).await?;
    stage.cast.start(&["m1", "m2", "m3"]).await?;
    stage.balanced().await?;
    let since = Instant::now();
    stage.control().await?;
    stage.shown(PHASE).await?;
    let took = since.elapsed();
    labelled(&stage).await?;
    stage.end(&format!("all were served {} after the controller came", seconds(took))).await
}

/// Parents of another sort, under load, with a member more and one less.
async fn sort(ctx: Context, plan: Plan) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan { parents: 200, ..plan }, &["m1", "m2"]).await?;
    stage.cast.start(&["m3"]).await?;
    stage.balanced().await?;
    let victim = stage.followers().await?.pop().context("nobody follows")?;
    let times = stage.kill(&[&victim]).await?;
    stage.balanced().await?;
    stage.stop_load().await?;
    stage.shown(PHASE).await?;
    labelled(&stage).await?;
    stage.end(&format!("called again within {times}")).await
}

/// Every parent and every child has its label.
async fn labelled(stage: &Stage) -> anyhow::Result<()> {
    for (resource, label) in [(stage.things.clone(), SELF), (stage.ctx.configmaps(), OWNER)] {
        let bare = stage.ctx.admin.list(&resource, &format!("labelSelector=!{label}")).await?;
        let owned = bare.iter().filter(|o| label == SELF || o["metadata"]["ownerReferences"].is_array());
        let names: Vec<_> = owned.map(|object| &object["metadata"]["name"]).collect();
        ensure!(names.is_empty(), "{} {} without {label}", names.len(), resource.plural);
    }
    Ok(())
}

async fn wholes(ctx: Context) -> anyhow::Result<()> {
    let plan = Plan { parents: 200, is_sharded: false, controllers: WHOLES, ..Plan::named("a hundred wholes") };
    let mut stage = Stage::set(ctx, plan).await?;
    stage.cast.start(&["m1", "m2", "m3", "m4"]).await?;
    stage.begin().await?;
    let all = |stage: &Stage| -> anyhow::Result<()> {
        let wholes = stage.watcher.table()?.wholes();
        ensure!(wholes.values().sum::<usize>() as u64 == WHOLES, "{wholes:?}");
        Ok(())
    };
    all(&stage)?;
    let mut figures = vec![format!("{:?}", stage.watcher.table()?.wholes().values().collect::<Vec<_>>())];
    for who in ["a member", "the leader"] {
        let leader = stage.leader().await?;
        let victim =
            if who == "the leader" { leader } else { stage.followers().await?.pop().context("nobody follows")? };
        let since = Instant::now();
        stage.cast.kill(&victim)?;
        stage.balanced().await?;
        all(&stage)?;
        figures.push(format!(
            "{:?} {} after the kill of {who}",
            stage.watcher.table()?.wholes(),
            seconds(since.elapsed())
        ));
    }
    stage.end(&figures.join("; ")).await
}
