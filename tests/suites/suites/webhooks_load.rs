//! Replicas that take less than is wanted of them: what waits, where, and who is held up by it.
//!
//! Never about replicas that are down: see `webhooks`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::ensure;
use serde_json::json;

use crate::cluster::Context;
use crate::replicas::calls::{Call, now};
use crate::replicas::changes::{Change, Changes, served, summary};
use crate::suites::scene::LATER;
use crate::suites::webhooks::Stage;

/// Changes of parents that were called at one replica, which had time enough to be served.
fn of(changes: Vec<Change>, calls: &[Call], replica: usize, time: Duration) -> Vec<Change> {
    let at_it: BTreeSet<&str> =
        calls.iter().filter(|call| call.replica == replica).map(|call| call.parent.as_str()).collect();
    let until = now() - time;
    changes.into_iter().filter(|change| at_it.contains(change.parent.as_str()) && change.at < until).collect()
}

/// Waits until so many calls to a replica had no answer.
async fn lost(stage: &Stage, name: &str, least: f64) -> anyhow::Result<()> {
    let lost = async || {
        let lost =
            stage.scrape()?.sum("ringmaster_hook_endpoint_requests_total", &[("endpoint", name), ("result", "lost")]);
        ensure!(lost >= least, "{lost} calls lost");
        Ok(())
    };
    stage.ctx.wait("calls to the one that is stuck are lost", LATER, lost).await
}

/// Fails unless each change of a parent of the first replica was served soon; what was changed last may still be on its way.
fn others_are_served(changes: Vec<Change>, calls: &[Call], what: &str) -> anyhow::Result<()> {
    let well = of(changes, calls, 0, Duration::from_secs(2));
    let (most, p99, lost) = summary(&served(&well, calls));
    println!(
        "webhooks one of 2 {what}: {} changes of the other's parents served after p99 {p99:?}, at most {most:?}",
        well.len()
    );
    ensure!(well.len() >= 50 && lost == 0, "{} changes, {lost} never served", well.len());
    ensure!(most <= Duration::from_secs(1), "a change of a parent that is elsewhere was served after {most:?}");
    Ok(())
}

/// One that looks alive and does nothing: its parents fail, and only they.
pub(super) async fn dumb(ctx: Context) -> anyhow::Result<()> {
    const PARENTS: usize = 300;
    let mut stage = Stage::new(ctx, 2).await?;
    stage.start(&[0], &[]).await?;
    stage.start(&[1], &["work-ms=3600000"]).await?;
    stage.replicas.publish(&[0, 1], &[]).await?;
    stage.controller(&json!({}), &json!({ "timeout": "5s" })).await?;
    stage.create(PARENTS).await?;
    let changes = Changes::start(&stage.ctx, &stage.things, PARENTS, 50);
    lost(&stage, &stage.replicas.name(1), 8.0).await?;
    let changes = changes.stop().await?;
    others_are_served(changes, &stage.replicas.calls()?, "answers nothing but HEAD")
}

/// One that takes many calls at once answers nothing but HEAD from one moment on: the workers are not all held there.
pub(super) async fn stuck(ctx: Context) -> anyhow::Result<()> {
    const PARENTS: usize = 400;
    let mut stage = Stage::new(ctx, 2).await?;
    stage.start(&[0], &["work-ms=20"]).await?;
    stage.start(&[1], &["work-ms=20", "stuck-after=900"]).await?;
    stage.replicas.publish(&[0, 1], &[]).await?;
    stage.controller(&json!({ "resyncPeriodSeconds": 1 }), &json!({ "timeout": "5s" })).await?;
    stage.create(PARENTS).await?;
    stage.all_called(PARENTS, Duration::ZERO).await?;
    let name = stage.replicas.name(1);
    let limit = async || {
        let scrape = stage.scrape()?;
        let places = scrape.sum("ringmaster_hook_endpoint_limit", &[("endpoint", &name)]);
        ensure!(places >= 16.0, "{places} places");
        Ok(places)
    };
    let places = stage.ctx.wait("it gets many places", LATER, limit).await?;
    let changes = Changes::start(&stage.ctx, &stage.things, PARENTS, 50);
    lost(&stage, &name, 40.0).await?;
    let changes = changes.stop().await?;
    others_are_served(changes, &stage.replicas.calls()?, &format!("is stuck with {places} places"))
}

/// One of two takes one call at a time, and has work for long: its parents wait in the queue, changes before others, and
/// it costs no empty syncs.
pub(super) async fn slow(ctx: Context) -> anyhow::Result<()> {
    const PARENTS: usize = 600;
    const WORK: Duration = Duration::from_millis(60);
    let mut stage = Stage::new(ctx, 2).await?;
    stage.start(&[0], &[]).await?;
    stage.start(&[1], &["work-ms=60", "threads=1"]).await?;
    stage.replicas.publish(&[0, 1], &[]).await?;
    stage.create(PARENTS).await?;
    // They are there before the controller: nobody has changed them just now.
    stage.controller(&json!({}), &json!({ "timeout": "3s" })).await?;
    let begun = async || {
        let calls = stage.replicas.calls()?;
        let seen = calls.iter().filter(|call| call.replica == 1).count();
        ensure!(seen >= 20, "{seen} calls");
        Ok(calls)
    };
    let calls = stage.ctx.wait("the slow one is at work", LATER, begun).await?;
    // Of parents that nobody has called yet: at the fast one all were.
    let known: BTreeSet<&str> = calls.iter().map(|call| call.parent.as_str()).collect();
    let names = (0..PARENTS).rev().map(|number| format!("thing-{number}"));
    let waiting: Vec<String> = names.filter(|name| !known.contains(name.as_str())).take(5).collect();
    let mut changes = Vec::new();
    for parent in waiting {
        let changed = stage.ctx.admin.patch_merge(&stage.things, &parent, &json!({ "spec": { "value": 1 } })).await?;
        let generation = changed["metadata"]["generation"].as_u64().unwrap_or_default();
        changes.push(Change { parent, generation, at: now() });
    }
    ensure!(changes.len() == 5, "too late: {} wait", changes.len());
    let calls = stage.all_called(PARENTS, Duration::ZERO).await?;
    let slow: Vec<&Call> = calls.iter().filter(|call| call.replica == 1).collect();
    let took = slow.iter().map(|call| call.began).max().unwrap_or_default()
        - slow.iter().map(|call| call.began).min().unwrap_or_default();
    let (most, _, lost) = summary(&served(&changes, &stage.replicas.calls()?));
    let scrape = stage.scrape()?;
    let syncs = scrape.sum("controller_runtime_reconcile_total", &[]);
    let done = scrape.sum("ringmaster_hook_requests_total", &[]);
    println!(
        "webhooks one of 2 takes one call at a time, {WORK:?} each: {} of {PARENTS} parents there took {took:?}; 5 changes \
         among them were served within {most:?}; {syncs} syncs for {done} calls",
        slow.len()
    );
    ensure!(lost == 0 && most < took / 2, "changes waited {most:?} of {took:?}");
    ensure!(syncs <= done * 1.2 + 20.0, "{syncs} syncs for {done} calls");
    stage.none_failed()
}
