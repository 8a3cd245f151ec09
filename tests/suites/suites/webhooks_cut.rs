//! A replica that is killed in the middle of calls: what becomes of those that it had begun, and of their parents.
//!
//! Never kills by luck: the victim is stopped first, its own record says which calls it has begun and not ended, and only
//! with such calls it is killed.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::cluster::Context;
use crate::replicas::Replicas;
use crate::replicas::calls::{Call, now};
use crate::replicas::changes::{Changes, served, summary};
use crate::suites::scene::{LATER, SOON};
use crate::suites::webhooks::Stage;

const PARENTS: usize = 120;
/// How long a call takes.
const WORK: Duration = Duration::from_millis(200);
/// Changes a second: about three calls run at each of four replicas.
const RATE: u32 = 60;
/// Calls that are cut at least.
const CUT: usize = 2;
/// What a kill may add to a parent's own work.
const DELAY: Duration = Duration::from_secs(1);
/// Who is killed.
const VICTIM: usize = 1;

/// Calls that may not be repeated at once: each that is cut fails, and nothing else.
pub(super) async fn fails(ctx: Context) -> anyhow::Result<()> {
    cut(ctx, false).await
}

/// Calls that may: none fails.
pub(super) async fn repeated(ctx: Context) -> anyhow::Result<()> {
    cut(ctx, true).await
}

/// The calls that the victim has begun and not ended.
fn running(replicas: &Replicas) -> anyhow::Result<Vec<Call>> {
    let mut calls = replicas.calls()?;
    calls.retain(|call| call.replica == VICTIM && call.ended.is_none());
    Ok(calls)
}

async fn cut(ctx: Context, idempotent: bool) -> anyhow::Result<()> {
    let mut stage = Stage::new(ctx, 4).await?;
    let work = format!("work-ms={}", WORK.as_millis());
    stage.start(&[0, 1, 2, 3], &[&work]).await?;
    stage.replicas.publish(&[0, 1, 2, 3], &[]).await?;
    stage.controller(&json!({}), &json!({ "idempotent": idempotent })).await?;
    stage.create(PARENTS).await?;
    stage.all_called(PARENTS, Duration::ZERO).await?;
    let changes = Changes::start(&stage.ctx, &stage.things, PARENTS, RATE);
    stage.all_called(PARENTS, now()).await?;
    stage.none_failed()?;
    let before = stage.scrape()?;

    // What it runs once it is stopped, it will never end.
    let replicas = &mut stage.replicas;
    let caught = async || {
        replicas.freeze(VICTIM, true)?;
        let frozen = now();
        let running = running(replicas)?;
        if running.len() < CUT {
            replicas.freeze(VICTIM, false)?;
        }
        ensure!(running.len() >= CUT, "{} calls run", running.len());
        Ok((frozen, running))
    };
    let (frozen, running) = stage.ctx.wait("the victim runs calls", SOON, caught).await?;
    stage.replicas.kill(VICTIM)?;
    let killed = now();

    // Until each of their parents has been answered elsewhere, and the others' changes go on.
    let next_of = |cut: &Call, calls: &[Call]| {
        let of_it = calls.iter().filter(|call| call.parent == cut.parent && call.began > cut.began);
        of_it.filter(|call| call.ended.is_some_and(|(_, code)| code == 200)).min_by_key(|call| call.began).cloned()
    };
    let again = async || {
        let calls = stage.replicas.calls()?;
        let next = running.iter().map(|cut| next_of(cut, &calls).with_context(|| format!("not yet: {cut:?}")));
        next.collect::<anyhow::Result<Vec<Call>>>()
    };
    let next = stage.ctx.wait("the parents of cut calls are answered elsewhere", LATER, again).await?;
    stage.all_called(PARENTS, killed).await?;
    let changes = changes.stop().await?;
    let all_served = async || {
        let times = served(&changes, &stage.replicas.calls()?);
        let lost = times.iter().filter(|time| time.is_none()).count();
        ensure!(lost == 0, "{lost} changes aren't");
        Ok(times)
    };
    let times = stage.ctx.wait("all changes are served", SOON, all_served).await?;
    let (most, p99, _) = summary(&times);

    // Its own work would have ended so long after it began.
    let delays = running.iter().zip(&next).map(|(cut, next)| {
        let (end, _) = next.ended.unwrap_or_default();
        end.saturating_sub(cut.began + WORK)
    });
    let longest = delays.max().unwrap_or_default();
    let begun = next.iter().map(|next| next.began.saturating_sub(killed)).max().unwrap_or_default();
    let after = stage.scrape()?;
    let grown = |name: &str, labels: &[(&str, &str)]| after.sum(name, labels) - before.sum(name, labels);
    let errors = grown("controller_runtime_reconcile_errors_total", &[]);
    let victim = stage.replicas.name(VICTIM);
    let lost_there = grown("ringmaster_hook_endpoint_requests_total", &[("endpoint", &victim), ("result", "lost")]);
    let bad = grown("ringmaster_hook_endpoint_requests_total", &[("result", "bad")]);
    println!(
        "webhooks one of 4 killed in the middle of calls, idempotent: {idempotent}: {} calls cut, stopped for {:?} before; \
         their parents' next calls began at most {begun:?} after the kill and ended at most {longest:?} after their own \
         work would have; {} changes, served after p99 {p99:?}, at most {most:?}; {errors} syncs failed, {lost_there} calls \
         were lost",
        running.len(),
        killed - frozen,
        changes.len(),
    );
    ensure!(next.iter().all(|call| call.replica != VICTIM), "{next:?}");
    ensure!(longest <= DELAY, "a parent whose call was cut was delayed by {longest:?}");
    // A change may come in the middle of a call for the one before.
    ensure!(most <= DELAY + 2 * WORK, "a change was served after {most:?}");
    #[expect(clippy::cast_precision_loss, reason = "small")]
    let cuts = running.len() as f64;
    if idempotent {
        ensure!(errors == 0.0, "{errors} syncs failed");
    } else {
        ensure!(errors >= cuts, "{cuts} calls were cut, and only {errors} syncs failed");
        ensure!(errors <= lost_there, "{errors} syncs failed, and {lost_there} calls were lost");
    }
    ensure!(lost_there >= cuts && bad == 0.0, "{lost_there} calls lost, {bad} answered with errors");
    Ok(())
}
