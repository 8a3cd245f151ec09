//! Shards' Leases in every state that they can be in, written by the trial itself.
//!
//! Never more Secrets than show who is available.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::scene::{LATER, SOON, event};
use crate::cluster::Context;
use crate::members::figures::seconds;
use crate::objects::Resource;
use crate::rings::lease::{Kept, held, leases, moment, release};
use crate::rings::record::History;
use crate::rings::shard::DURATION;
use crate::rings::stage::{Plan, Stage};
use crate::trial::Case;

/// Secrets of a trial.
const SECRETS: usize = 12;
/// D of a Lease that doesn't say it.
const DEFAULT: Duration = Duration::from_secs(15);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.own_server();
    vec![
        case(Case::new("rings_leases", "silent_is_taken_and_may_return", silent)),
        case(Case::new("rings_leases", "released_is_left_at_once", released)),
        case(Case::new("rings_leases", "without_its_fields_is_told_and_taken", incomplete)),
        case(Case::new("rings_leases", "of_one_name_in_two_namespaces_are_told", two_of_a_name)),
    ]
}

async fn stage(ctx: Context, name: &'static str) -> anyhow::Result<Stage> {
    let mut stage = Stage::set(ctx, Plan::named(name)).await?;
    stage.lead(&["m1"]).await?;
    Ok(stage)
}

/// Makes the Secrets once these shards are there: none of them ever lets one go.
async fn fill(stage: &Stage, shards: &[&str]) -> anyhow::Result<()> {
    counted(stage, shards.len(), shards.len()).await?;
    stage.secrets.create_many(SECRETS).await?;
    had_by(stage, shards).await
}

async fn keep(stage: &Stage, shard: &str) -> anyhow::Result<Kept> {
    Kept::new(stage.admin(), (stage.names(), &stage.ring), &stage.ctx.namespace, shard).await
}

/// Waits until the Secrets are these shards' alone.
async fn had_by(stage: &Stage, shards: &[&str]) -> anyhow::Result<()> {
    let ask = async || {
        let counts = stage.recorder.read(History::counts);
        let total: usize = counts.values().sum();
        ensure!(total == SECRETS && counts.keys().eq(shards), "{counts:?}");
        Ok(())
    };
    stage.ctx.wait(&format!("{shards:?} have all"), LATER, ask).await
}

/// Waits until a Lease is as `check` wants it.
async fn lease(
    stage: &Stage,
    shard: &str,
    what: &str,
    deadline: Duration,
    check: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    let ask = async || {
        let lease = stage.admin().get(&leases(&stage.ctx.namespace), shard).await?;
        ensure!(check(&lease), "{} {}", lease["metadata"]["labels"], lease["spec"]);
        Ok(lease)
    };
    stage.ctx.wait(&format!("the Lease of {shard} is {what}"), deadline, ask).await
}

/// Waits until the ring has so many shards, and so many that are available.
async fn counted(stage: &Stage, shards: usize, available: usize) -> anyhow::Result<()> {
    let ask = async || {
        let ring = stage.ring().await?;
        let status = &ring["status"];
        ensure!(status["shards"] == shards && status["availableShards"] == available, "{status}");
        Ok(())
    };
    stage.ctx.wait(&format!("{available} of {shards} shards are available"), LATER, ask).await
}

async fn silent(ctx: Context) -> anyhow::Result<()> {
    let stage = stage(ctx, "silent Leases").await?;
    let names = stage.names();
    let (a, _b) = (keep(&stage, "a").await?, keep(&stage, "b").await?);
    fill(&stage, &["a", "b"]).await?;
    for shard in ["a", "b"] {
        let is = |lease: &Value| lease["metadata"]["labels"][names.lease_state] == "ready";
        lease(&stage, shard, "shown as ready", SOON, is).await?;
    }
    counted(&stage, 2, 2).await?;
    drop(a);
    let since = Instant::now();
    let is_taken = |lease: &Value| lease["spec"]["holderIdentity"] == names.taker;
    let taken = lease(&stage, "a", "taken", LATER, is_taken).await?;
    let took = since.elapsed();
    // It was renewed up to half a second before.
    ensure!(took + Duration::from_secs(1) >= DURATION, "taken after {}", seconds(took));
    let spec = &taken["spec"];
    ensure!(spec["leaseDurationSeconds"] == 2 * DURATION.as_secs() && spec["leaseTransitions"] == 1, "{spec}");
    ensure!(taken["metadata"]["labels"][names.lease_state] == "dead", "{taken}");
    had_by(&stage, &["b"]).await?;
    counted(&stage, 2, 1).await?;
    // It comes back after it has waited, and is available at once.
    let back = json!({ "spec": { "holderIdentity": "a", "renewTime": moment(5000), "leaseTransitions": 2 } });
    stage.admin().patch_merge(&leases(&stage.ctx.namespace), "a", &back).await?;
    let is_ready = |lease: &Value| lease["metadata"]["labels"][names.lease_state] == "ready";
    lease(&stage, "a", "shown as ready", SOON, is_ready).await?;
    counted(&stage, 2, 2).await?;
    stage.close(&format!("taken {} after the last renewal", seconds(took))).await
}

async fn released(ctx: Context) -> anyhow::Result<()> {
    let stage = stage(ctx, "released Leases").await?;
    let (_a, b) = (keep(&stage, "a").await?, keep(&stage, "b").await?);
    fill(&stage, &["a", "b"]).await?;
    let since = Instant::now();
    release(stage.admin(), &stage.ctx.namespace, "b").await?;
    had_by(&stage, &["a"]).await?;
    let took = since.elapsed();
    ensure!(took < DURATION, "left after {}", seconds(took));
    let is_over = async || {
        ensure!(!b.is_held(), "it is renewed");
        Ok(())
    };
    stage.ctx.wait("b has ended", SOON, is_over).await?;
    stage.close(&format!("left {} after", seconds(took))).await
}

async fn incomplete(ctx: Context) -> anyhow::Result<()> {
    let stage = stage(ctx, "incomplete Leases").await?;
    let _a = keep(&stage, "a").await?;
    fill(&stage, &["a"]).await?;
    let (names, admin) = (stage.names(), stage.admin());
    let mut object = held(names, &stage.ring, "bare");
    object["spec"] = json!({ "holderIdentity": "bare" });
    admin.create(&leases(&stage.ctx.namespace), object).await?;
    let since = Instant::now();
    let words = ["spec.acquireTime", "spec.renewTime", "spec.leaseDurationSeconds"];
    event(&stage.ctx, &stage.ring().await?, "LeaseIncomplete", &words).await?;
    let is_taken = |lease: &Value| lease["spec"]["holderIdentity"] == names.taker;
    lease(&stage, "bare", "taken", LATER, is_taken).await?;
    let took = since.elapsed();
    ensure!(took + Duration::from_secs(1) >= DEFAULT, "taken after {}", seconds(took));
    had_by(&stage, &["a"]).await?;
    stage.close(&format!("taken after {}", seconds(took))).await
}

async fn two_of_a_name(ctx: Context) -> anyhow::Result<()> {
    let stage = stage(ctx, "Leases of one name").await?;
    let _a = keep(&stage, "a").await?;
    fill(&stage, &["a"]).await?;
    let other = format!("{}-other", stage.ctx.namespace);
    let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
    let body = json!({ "metadata": { "name": other, "labels": { "suite": stage.ctx.id } } });
    stage.admin().create(&namespaces, body).await?;
    let second = Kept::new(stage.admin(), (stage.names(), &stage.ring), &other, "a").await?;
    event(&stage.ctx, &stage.ring().await?, "ShardNameTaken", &[other.as_str()]).await?;
    counted(&stage, 1, 1).await?;
    // The second's end is nobody's.
    release(stage.admin(), &other, "a").await?;
    let is_over = async || {
        ensure!(!second.is_held(), "it is renewed");
        Ok(())
    };
    stage.ctx.wait("the second has ended", SOON, is_over).await?;
    had_by(&stage, &["a"]).await?;
    counted(&stage, 1, 1).await?;
    let state = async || {
        let scrape = stage.cast.member("m1")?.metrics()?;
        let of_ring = [("ring", stage.ring.as_str()), ("state", "ready")];
        ensure!(scrape.sum("ringmaster_ring_shards", &of_ring) >= 1.0, "no shard is counted as ready");
        Ok(())
    };
    stage.ctx.wait("metrics count it", SOON, state).await.context("ringmaster_ring_shards")?;
    stage.close("").await
}
