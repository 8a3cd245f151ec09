//! Members that die or stand still, under load: killed, the leader too, in each step of a hand-over, paused.
//!
//! Never about the way to the API server: see `members_net`.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};

use super::members_scale::TIMEOUT;
use crate::cluster::Context;
use crate::members::figures::{Times, seconds};
use crate::members::stage::{BALANCE, Plan, Stage};
use crate::members::table::Table;
use crate::trial::Case;

/// What a take-over may take beyond the Lease's duration on a machine that runs other trials too.
const SLACK: Duration = Duration::from_secs(5);
/// Rounds of pauses.
const PAUSES: u32 = 4;
/// A call that is long enough for a hand-over to wait for it.
const LONG_CALL: Duration = Duration::from_millis(700);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.timeout(TIMEOUT);
    vec![
        case(Case::new("members_kill", "a_member", a_member)),
        case(Case::real("members_kill", "the_leader", the_leader)),
        case(Case::real("members_kill", "the_leader_and_a_member", both)),
        case(Case::real("members_kill", "the_last_and_then_another", the_last)),
        case(Case::real("members_kill", "the_leader_once_next_is_set", |ctx| in_step(ctx, Step::Next))),
        case(Case::real("members_kill", "the_leader_once_releasing_is_set", |ctx| in_step(ctx, Step::Releasing))),
        case(Case::real("members_kill", "the_leader_once_an_owner_is_set", |ctx| in_step(ctx, Step::Owner))),
        case(Case::new("members_kill", "paused_for_too_long", paused)),
        case(Case::real("members_kill", "paused_at_random", paused_at_random)),
    ]
}

fn in_time(stage: &Stage, times: &Times) -> anyhow::Result<()> {
    let most = stage.cast.timing().duration + SLACK;
    ensure!(times.most() <= most, "taken over within {times}, not {most:?}");
    Ok(())
}

async fn a_member(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("kill a member"), &["m1", "m2", "m3"]).await?;
    let victim = stage.followers().await?.pop().context("nobody follows")?;
    killed(&mut stage, &[&victim]).await
}

async fn the_leader(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("kill the leader"), &["m1", "m2", "m3"]).await?;
    let leader = stage.leader().await?;
    killed(&mut stage, &[&leader]).await
}

async fn both(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("kill the leader and a member"), &["m1", "m2", "m3"]).await?;
    let (leader, other) = (stage.leader().await?, stage.followers().await?.pop().context("nobody follows")?);
    killed(&mut stage, &[&leader, &other]).await
}

async fn killed(stage: &mut Stage, victims: &[&str]) -> anyhow::Result<()> {
    let mark = stage.mark();
    let times = stage.kill(victims).await?;
    stage.balanced().await?;
    let moved = stage.moved(mark);
    stage.cast.start(&["m4"]).await?;
    stage.balanced().await?;
    stage.end(&format!("{moved} moved by the kill, called again within {times}")).await?;
    in_time(stage, &times)
}

/// Nobody is left who could take over, until somebody comes.
async fn the_last(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("kill the last"), &["m1"]).await?;
    let name = stage.cast.member("m1")?.name.clone();
    let (_, since) = stage.cast.kill("m1")?;
    stage.cast.start(&["m2"]).await?;
    let all = (0..crate::members::check::SHARDS).collect();
    let times = stage.taken_over(since, &all, &[name]).await?;
    stage.balanced().await?;
    stage.end(&format!("called again within {times}")).await?;
    in_time(&stage, &times)
}

/// Where a hand-over stands.
#[derive(Clone, Copy, Debug)]
enum Step {
    Next,
    Releasing,
    Owner,
}

impl Step {
    const fn name(self) -> &'static str {
        match self {
            Self::Next => "kill the leader once next is set",
            Self::Releasing => "kill the leader once releasing is set",
            Self::Owner => "kill the leader once an owner is set",
        }
    }

    /// Whether the table shows it, with `newcomer` about to gain.
    fn shows(self, table: &Table, newcomer: &str) -> bool {
        table.shards.iter().any(|row| {
            let is_next = row.next.as_deref() == Some(newcomer);
            match self {
                Self::Next => is_next && !row.releasing,
                Self::Releasing => is_next && row.releasing,
                Self::Owner => row.owner.as_deref() == Some(newcomer),
            }
        })
    }
}

async fn in_step(ctx: Context, step: Step) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named(step.name()), &["m1", "m2", "m3"]).await?;
    let leader = stage.leader().await?;
    let leader_name = stage.cast.member(&leader)?.name.clone();
    if matches!(step, Step::Releasing) {
        stage.hook.work(LONG_CALL);
    }
    stage.cast.start(&["m4"]).await?;
    let newcomer = stage.cast.member("m4")?.name.clone();
    let end = Instant::now() + BALANCE;
    // Not by the usual wait, which would look too seldom.
    let seen = loop {
        let table = stage.watcher.table()?;
        if step.shows(&table, &newcomer) {
            break table;
        }
        if Instant::now() > end {
            bail!("no hand-over came to {step:?}: {:?}", table.counts());
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    };
    let (_, since) = stage.cast.kill(&leader)?;
    stage.hook.work(Duration::from_millis(5));
    let at_death = stage.watcher.table()?;
    let times = stage.taken_over(since, &seen.of(&leader_name), &[leader_name]).await?;
    stage.balanced().await?;
    let moving = at_death.shards.iter().filter(|row| row.next.is_some()).count();
    let late = if step.shows(&at_death, &newcomer) { "" } else { " (the step was over)" };
    stage.end(&format!("{moving} rows were moving at its death{late}, called again within {times}")).await
}

async fn paused(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("pause past the deadline"), &["m1", "m2", "m3"]).await?;
    let victim = stage.followers().await?.pop().context("nobody follows")?;
    let (name, since) = (stage.cast.member(&victim)?.name.clone(), Instant::now());
    let shards = stage.watcher.table()?.of(&name);
    stage.cast.pause(&victim)?;
    let times = stage.taken_over(since, &shards, std::slice::from_ref(&name)).await?;
    stage.play(Duration::from_secs(1)).await;
    stage.cast.resume(&victim)?;
    // Its Lease is somebody else's: it finds that out and ends.
    let process = stage.cast.take(&victim)?.process;
    let resumed = Instant::now();
    process.ended(&stage.ctx, BALANCE).await?;
    let ended = resumed.elapsed();
    stage.balanced().await?;
    stage.end(&format!("called again within {times}, ended {} after it was resumed", seconds(ended))).await?;
    in_time(&stage, &times)
}

/// For any time, before and after its deadline and its Lease's end, members and leaders.
async fn paused_at_random(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("pauses at random"), &["m1", "m2", "m3"]).await?;
    let mut ended = Vec::new();
    for round in 0..PAUSES {
        stage.play(Duration::from_millis(fastrand::u64(..1500))).await;
        let bases: Vec<String> = stage.cast.members().iter().map(|member| member.base.clone()).collect();
        let victim = fastrand::choice(bases).context("nobody is left")?;
        stage.cast.pause(&victim)?;
        // Too short and long enough for others to take over, in turn.
        let part = if round % 2 == 0 { 0.3 } else { 1.0 };
        let span = stage.cast.timing().duration.mul_f64(part + fastrand::f64() * 0.8);
        stage.play(span).await;
        stage.cast.resume(&victim)?;
        // If it was given up it ends within a retry period and its drain.
        stage.play(stage.cast.timing().retry * 4).await;
        if !stage.cast.bury().is_empty() {
            ended.push(format!("{span:.1?}"));
            stage.cast.start(&[format!("n{round}").as_str()]).await?;
        }
    }
    stage.play(stage.cast.timing().duration).await;
    let gone = stage.cast.bury();
    ensure!(gone.is_empty(), "{gone:?} ended late");
    stage.balanced().await?;
    stage.end(&format!("{} of {PAUSES} ended, after pauses of {ended:?}", ended.len())).await
}
