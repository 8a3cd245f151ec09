//! Two controllers with different timeouts at the same endpoints, one of which they don't answer.
//!
//! Never lets a HEAD tell that an endpoint lives: only the answers to the other controller's calls do.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::TryStreamExt as _;
use serde_json::json;

use crate::cluster::{Context, Scope};
use crate::replicas::calls::now;
use crate::replicas::changes::{Changes, served, summary};
use crate::suites::scene::{LATER, SOON, condition};
use crate::suites::webhooks::Stage;

/// The timeout of the one that isn't answered. Its calls keep their places for so long.
const SHORT: Duration = Duration::from_secs(1);
const PARENTS: usize = 60;
/// One fewer than an endpoint has places at first: nobody takes a running call's place from it.
const HELD: usize = 3;
/// Changes a second of those that are answered.
const RATE: u32 = 50;
/// Calls of the one that isn't answered, which run out of time.
const LOST: f64 = 10.0;

pub(super) async fn shares(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::new(ctx, 2).await?;
    let others = stage.ctx.crd("Other", "others", Scope::Namespaced, None).await?;
    stage.ctx.grant(&Context::rules_for(&[&others])).await?;
    stage.start(&[0, 1], &["holds=held-", "head=0"]).await?;
    stage.replicas.publish(&[0, 1], &[]).await?;
    stage.controller(&json!({}), &json!({})).await?;
    stage.create(PARENTS).await?;
    stage.all_called(PARENTS, Duration::ZERO).await?;
    let changes = Changes::start(&stage.ctx, &stage.things, PARENTS, RATE);
    stage.all_called(PARENTS, now()).await?;

    // Another controller of the same webhook, with little time, and without luck.
    let mut webhook = stage.replicas.webhook();
    webhook["timeout"] = json!(format!("{}s", SHORT.as_secs()));
    let spec = json!({
        "parentResource": { "apiVersion": others.api_version, "resource": others.plural },
        "generateSelector": true, "hooks": { "sync": { "webhook": webhook } },
    });
    stage.ctx.controller("others", spec).await?;
    let create = |number: usize| {
        let body = json!({ "metadata": { "name": format!("held-{number}") }, "spec": {} });
        let (admin, others) = (&stage.ctx.admin, &others);
        async move { admin.create(others, body).await.map(drop) }
    };
    futures::stream::iter((0..HELD).map(Ok)).try_for_each(create).await?;
    let lost = async || {
        let scrape = stage.scrape()?;
        let lost = scrape.sum("ringmaster_hook_endpoint_requests_total", &[("result", "lost")]);
        ensure!(lost >= LOST, "{lost} lost");
        Ok((lost, scrape.sum("ringmaster_hook_endpoint_ejections_total", &[])))
    };
    let (lost, ejections) = stage.ctx.wait("calls run out of time", LATER, lost).await?;
    condition(&stage.ctx, "others", ["HookReachable", "False", "Timeout"]).await?;
    let until = now();
    let changes = changes.stop().await?;
    let times = served(&changes, &stage.replicas.calls()?);
    // What was changed last may still be on its way.
    let settled = changes.iter().zip(times).filter(|(change, _)| change.at + Duration::from_secs(1) < until);
    let times: Vec<_> = settled.map(|(_, time)| time).collect();
    let (most, p99, unserved) = summary(&times);
    println!(
        "webhooks two timeouts: {lost} calls of the short one without an answer, {ejections} ejections meanwhile; {} \
         changes of the other one served after p99 {p99:?}, at most {most:?}",
        times.len()
    );
    ensure!(ejections == 0.0, "an endpoint that answers was left out {ejections} times");
    ensure!(unserved == 0, "{unserved} of {} changes were never served", times.len());
    ensure!(most <= SHORT, "a change waited {most:?} for a controller that isn't answered");

    // With nobody who is answered, the same silence is enough.
    stage.ringmaster.wait_log(&stage.ctx, "is left out", SOON).await.context("silence to all")?;
    Ok(())
}
