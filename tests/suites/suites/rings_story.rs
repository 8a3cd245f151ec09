//! A ring's whole life in one: 1,000 Secrets and shards in each language, that come, go, die and stand still, while the
//! sharder dies, the webhook is turned on and off, the API server restarts, and Secrets change all the time.
//!
//! Never smaller than a user's ring: what each event does by itself is the other suites' matter.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::rings_die::{TAKEN_OVER, pause, taken_over};
use super::rings_scale::{RATE, cost};
use crate::cluster::Context;
use crate::members::cast::Cast;
use crate::members::figures::{Times, seconds};
use crate::rings::record::Kind;
use crate::rings::rights;
use crate::rings::secrets::child;
use crate::rings::stage::{Plan, SETTLED, Stage, are_figures};
use crate::rings::{language, record::History, webhook};
use crate::trial::Case;

/// Secrets that are there from the begin.
const SECRETS: usize = 1_000;
/// Those that are made while the webhook is on, and again once it is off; how many a second.
const MORE: usize = 100;
const MORE_RATE: u32 = 50;
/// The most that one shard may have by the mean.
const SPREAD: f64 = 1.1;
/// What may be added to the time in which so many objects are taken over, unless the machine is this trial's.
const SLACK: Duration = Duration::from_secs(4);
/// How long a member may take to lead and to have the webhook configured: its predecessor's Lease, and a round.
const CONFIGURED: Duration = Duration::from_secs(60);
/// How long all of it may take.
const TIMEOUT: Duration = Duration::from_secs(900);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("rings_story", "a_thousand_secrets", story).own_server().needs(language::needed).timeout(TIMEOUT)]
}

/// Starts a member whose webhook the API server is to call.
async fn lead_with_webhook(stage: &mut Stage, base: &str) -> anyhow::Result<()> {
    let [address, url] = webhook::flags()?;
    let own = "--target-label-selector=";
    stage.cast.start_with(&[base], |build| build.arg(own).arg(address.clone()).arg(url.clone())).await
}

/// Makes more Secrets, and waits until each has its place: how many had a shard in the very answer to their creation, and
/// how long the others took to get one.
async fn more(stage: &Stage) -> anyhow::Result<(usize, Times)> {
    let before = stage.secrets.names();
    stage.secrets.create_at(MORE, MORE_RATE).await?;
    stage.placed(SETTLED).await?;
    let new = stage.secrets.names().difference(&before).cloned().collect();
    let times = stage.recorder.read(|history: &History| history.assigned(&new));
    ensure!(times.len() == MORE, "{} of {MORE} were seen to be assigned", times.len());
    Ok((times.iter().filter(|time| time.is_zero()).count(), Times::of(times)))
}

/// Makes Secrets until one comes labelled: the API server learns of a webhook a little later than it is configured.
async fn labelled(stage: &Stage) -> anyhow::Result<()> {
    let end = Instant::now() + CONFIGURED;
    for number in 0.. {
        let name = stage.secrets.create(json!({ "name": format!("early-{number}") })).await?;
        stage.placed(SETTLED).await?;
        let times = stage.recorder.read(|history| history.assigned(&[name].into()));
        if times.first().is_some_and(Duration::is_zero) {
            break;
        }
        ensure!(Instant::now() < end, "no object comes labelled within {CONFIGURED:?}");
    }
    Ok(())
}

/// Waits until the ring's webhook is configured, or isn't any more.
async fn configured(stage: &Stage, wanted: bool) -> anyhow::Result<()> {
    let name = webhook::configuration(&stage.ring);
    let ask = async || {
        let found = stage.admin().find(&webhook::configurations(), &name).await?;
        ensure!(found.is_some() == wanted, "configured: {}, not {wanted}", found.is_some());
        Ok(())
    };
    stage.ctx.wait("the webhook is configured or not", CONFIGURED, ask).await
}

async fn story(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::set(ctx, Plan::named("story")).await?;
    // Their certificate is a Secret, which is not to be the ring's.
    let home = format!("{}-members", stage.ctx.namespace);
    rights::give_home(&stage.ctx, &home).await?;
    stage.cast = Cast::new(stage.ctx.clone(), home);
    stage.secrets.create_many(SECRETS).await?;
    stage.lead(&["m1", "m2"]).await?;
    stage.join(3).await?;
    stage.balanced().await?;
    stage.settled(SETTLED).await?;
    let changing = stage.secrets.keep_changing(RATE);
    let mut lines = vec![out(&mut stage).await?];

    lines.push(webhook_on(&mut stage).await?);
    lines.push(kill_one(&mut stage).await?);

    // The sharder dies while objects are on their way to the one that comes for it.
    let mark = stage.recorder.mark();
    stage.join(1).await?;
    stage.draining(mark).await?;
    let leader = stage.leader().await?;
    let (_, since) = stage.cast.kill(&leader)?;
    let spread = stage.balanced().await?;
    ensure!(spread <= SPREAD, "max/mean {spread:.3}");
    lines.push(format!("leader killed in a scale-out: balanced {} after", seconds(since.elapsed())));

    let names: Vec<String> = stage.shard_names().into_iter().take(3).collect();
    lines.push(format!("SIGSTOP and SIGCONT: {}", pause(&mut stage, &names).await?));
    let changes = changing.stop().await?;
    stage.check().await?;

    // The API server restarts while objects go from the two that stop.
    let changing = stage.secrets.keep_changing(RATE);
    stage.may_miss = true;
    let (mark, since) = (stage.recorder.mark(), Instant::now());
    for name in stage.shard_names().into_iter().take(2) {
        stage.stop(&name).await?;
    }
    stage.ctx.server.stop_api(false)?;
    stage.ctx.server.start_api()?;
    stage.ctx.server.ready().await?;
    let starts = stage.renewing().await?;
    let spread = stage.balanced().await?;
    let moved = stage.recorder.read(|history| history.moved(Kind::Secret, mark));
    ensure!(moved > 0 && spread <= SPREAD, "{moved} moved, max/mean {spread:.3}");
    lines.push(format!(
        "4 to 2 with a restart of the API server: {moved} Secrets moved, balanced {} after, max/mean {spread:.3}, {starts} \
         shards ended and came back",
        seconds(since.elapsed()),
    ));

    lines.push(webhook_off(&mut stage).await?);
    let changes = changes + changing.stop().await?;
    stage.end(&format!("{changes} changes meanwhile\n  {}", lines.join("\n  "))).await
}

async fn out(stage: &mut Stage) -> anyhow::Result<String> {
    let (mark, since, start) = (stage.recorder.mark(), stage.ctx.mark()?, Instant::now());
    stage.join(1).await?;
    let spread = stage.balanced().await?;
    let took = start.elapsed();
    let (is_cheap, out) = cost(stage, mark, since)?;
    ensure!(is_cheap && spread <= SPREAD, "{out}, max/mean {spread:.3}");
    let wrong = stage.recorder.read(|history| history.misordered(mark, child));
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    let failed = stage.all_lines()?.iter().filter(|line| line.event == "failed" && line.verb == "create").count();
    ensure!(failed == 0, "{failed} failed creates");
    Ok(format!("3 to 4: {out}, {failed} failed creates, max/mean {spread:.3}, {}", seconds(took)))
}

/// Another two members take over, who have a webhook.
async fn webhook_on(stage: &mut Stage) -> anyhow::Result<String> {
    for (old, new) in [("m1", "w1"), ("m2", "w2")] {
        lead_with_webhook(stage, new).await?;
        stage.cast.stop(old).await?;
    }
    configured(stage, true).await?;
    labelled(stage).await?;
    let (at_once, times) = more(stage).await?;
    ensure!(at_once == MORE, "{at_once} of {MORE} came labelled, the others {times}");
    Ok(format!("webhook on: {at_once} of {MORE} came labelled"))
}

/// A member without one takes over.
async fn webhook_off(stage: &mut Stage) -> anyhow::Result<String> {
    stage.lead(&["m3"]).await?;
    let with_one: Vec<String> = stage.cast.members().iter().map(|member| member.base.clone()).collect();
    for base in with_one.iter().filter(|base| *base != "m3") {
        stage.cast.stop(base).await?;
    }
    configured(stage, false).await?;
    let (at_once, times) = more(stage).await?;
    ensure!(at_once < MORE, "all came labelled by a webhook that isn't there");
    Ok(format!("webhook off: {MORE} assigned within {times}"))
}

async fn kill_one(stage: &mut Stage) -> anyhow::Result<String> {
    let name = stage.shard_names().into_iter().next().context("no shard")?;
    let mark = stage.recorder.mark();
    let since = stage.kill(&name)?;
    let took = taken_over(stage, &name, mark, since).await?;
    let most = if are_figures() { TAKEN_OVER } else { TAKEN_OVER + SLACK };
    ensure!(took <= most, "{name}'s taken over within {took:?}, not {most:?}");
    stage.placed(SETTLED).await?;
    Ok(format!("kill -9 of {name}: taken over within {}", seconds(took)))
}
