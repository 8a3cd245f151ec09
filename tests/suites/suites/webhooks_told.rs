//! What is told of a webhook's endpoints where it isn't all known at one place, or no longer.
//!
//! Never about where calls go: see `webhooks`.

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::json;

use super::webhooks::Stage;
use crate::cluster::Context;
use crate::gate::{Act, Gate};
use crate::process::{Build, Ringmaster};
use crate::replicas::calls::now;
use crate::suites::scene::{LATER, condition};

/// Parents enough that every member calls every replica.
const PARENTS: usize = 100;
/// Requests at once where all of them are changed.
const CONNECTIONS: usize = 16;

async fn change(stage: &Stage, value: u32) -> anyhow::Result<()> {
    let patch = json!({ "spec": { "value": value } });
    let change = |number| {
        let patch = &patch;
        async move { stage.ctx.admin.patch_merge(&stage.things, &format!("thing-{number}"), patch).await.map(drop) }
    };
    stream::iter(0..PARENTS).map(change).buffer_unordered(CONNECTIONS).try_collect().await
}

/// EndpointSlices can't be read any more: the last that could count, and it is told.
pub(super) async fn stale(ctx: Context) -> anyhow::Result<()> {
    let gate = Gate::start(&ctx.as_user()?).await?;
    let kubeconfig = format!("--kubeconfig={}", gate.kubeconfig(&ctx)?.display());
    let mut stage = Stage::with(ctx, 3, |_, _| vec![kubeconfig]).await?;
    stage.start(&[0, 1, 2], &[]).await?;
    stage.replicas.publish(&[0, 1], &[]).await?;
    stage.controller(&json!({}), &json!({})).await?;
    stage.create(PARENTS).await?;
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;
    gate.set(|ask| if ask.path.contains("endpointslices") { Act::Refuse(403, None) } else { Act::Pass });
    gate.cut_streams();
    stage.replicas.publish(&[0, 1, 2], &[]).await?;
    let text = condition(&stage.ctx, "things", ["EndpointsReady", "Unknown", "Stale"]).await?;
    ensure!(text.starts_with("2 of 2 endpoints are ready; as it was read last: EndpointSlice: "), "{text}");
    ensure!(text.contains("grant get, list and watch on endpointslices"), "{text}");
    let from = now();
    change(&stage, 1).await?;
    let calls = stage.all_called(PARENTS, from).await?;
    ensure!(calls.iter().all(|call| call.replica != 2), "the third can't be known yet");
    gate.open();
    let ask = async || {
        let text = condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;
        ensure!(text == "3 of 3 endpoints are ready", "{text}");
        Ok(())
    };
    stage.ctx.wait("the third is known", LATER, ask).await?;
    stage.none_failed()
}

/// One member can't reach a replica that the other one calls: whoever writes the status tells it.
pub(super) async fn elsewhere(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::new(ctx, 2).await?;
    stage.start(&[0, 1], &[]).await?;
    stage.replicas.publish(&[0, 1], &[]).await?;
    stage.controller(&json!({ "sharding": {} }), &json!({})).await?;
    stage.create(PARENTS).await?;
    // Before there is another member: it is this one that writes.
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;
    let lost = stage.replicas.name(1);
    let mut flags = stage.replicas.flags();
    let flag = flags.iter_mut().find(|flag| flag.contains(&lost)).context("no flag")?;
    // Discard: nobody listens there.
    *flag = format!("--hook-resolve={lost}=127.0.0.1:9");
    let second = flags.into_iter().fold(Ringmaster::build(&stage.ctx), Build::arg).start()?;
    let wait = async || {
        second.check()?;
        change(&stage, 2).await?;
        let text = condition(&stage.ctx, "things", ["EndpointsReady", "False", "LeftOut"]).await?;
        let told = format!("2 of 2 endpoints are ready; left out for now: {lost} (at ");
        ensure!(text.starts_with(&told), "{text}");
        Ok(())
    };
    stage.ctx.wait("the other member's is told", LATER, wait).await?;
    drop(second);
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await.map(drop)
}
