//! A ring of the other group: everything that a shard or a dashboard of controller-sharding relies on.
//!
//! Never what is ours alone.

use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde_json::json;

use super::scene::{LATER, SOON};
use crate::cluster::Context;
use crate::members::figures::seconds;
use crate::rings::language;
use crate::rings::lease::leases;
use crate::rings::names::THEIRS;
use crate::rings::record::Kind;
use crate::rings::shard::DURATION;
use crate::rings::stage::{Plan, SETTLED, Stage};
use crate::trial::Case;

/// What its dashboards look for.
const METRICS: [&str; 8] = [
    "controller_sharding_assignments_total",
    "controller_sharding_movements_total",
    "controller_sharding_drains_total",
    "controller_sharding_ring_calculations_total",
    "controller_sharding_controllerring_metadata_generation",
    "controller_sharding_controllerring_observed_generation",
    "controller_sharding_controllerring_status_shards",
    "controller_sharding_controllerring_status_available_shards",
];

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("rings_contract", "labels_leases_status_and_metrics", contract).own_server().needs(language::needed)]
}

async fn contract(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("contract").names(&THEIRS).spec(json!({})), 3).await?;
    ensure!(stage.keys.shard.starts_with("shard.alpha.sharding.timebertt.dev/"), "{:?}", stage.keys);
    let namespace = stage.ctx.namespace.clone();
    for name in stage.shard_names() {
        let ready = async || {
            let lease = stage.admin().get(&leases(&namespace), &name).await?;
            let labels = &lease["metadata"]["labels"];
            ensure!(labels["alpha.sharding.timebertt.dev/state"] == "ready", "{labels}");
            ensure!(labels["alpha.sharding.timebertt.dev/controllerring"] == stage.ring, "{labels}");
            Ok(())
        };
        stage.ctx.wait(&format!("the Lease of {name} is shown as ready"), SOON, ready).await?;
    }
    let told = async || {
        let ring = stage.ring().await?;
        let status = &ring["status"];
        let conditions = status["conditions"].as_array().context("no conditions")?;
        let [ready] = &conditions[..] else { bail!("not one condition: {status}") };
        ensure!(ready["type"] == "Ready" && ready["status"] == "True", "{status}");
        ensure!(ready["reason"] == "ReconciliationSucceeded", "{status}");
        ensure!(status["shards"] == 3 && status["availableShards"] == 3, "{status}");
        ensure!(status["observedGeneration"] == ring["metadata"]["generation"], "{ring}");
        Ok(())
    };
    stage.ctx.wait("its status is the contract's", LATER, told).await?;
    let scraped = async || {
        let scrape = stage.cast.member("m1")?.metrics()?;
        let of_ring = [("controllerring", stage.ring.as_str())];
        let missing: Vec<&str> = METRICS.into_iter().filter(|name| !scrape.text.contains(name)).collect();
        // Nothing was moved or drained yet.
        ensure!(missing.iter().all(|name| name.contains("movements") || name.contains("drains")), "no {missing:?}");
        let assigned = scrape.sum("controller_sharding_assignments_total", &of_ring);
        ensure!(assigned > 0.0, "{assigned} assignments");
        ensure!(scrape.sum("controller_sharding_controllerring_status_shards", &of_ring) == 3.0, "not 3 shards");
        Ok(())
    };
    stage.ctx.wait("its metrics are there", LATER, scraped).await?;

    // After two durations its Lease is taken, and only then anything of it.
    let victim = stage.shard_names().pop().context("no shard")?;
    let mark = stage.recorder.mark();
    let since = stage.kill(&victim)?;
    let is_taken = async || {
        let lease = stage.admin().get(&leases(&namespace), &victim).await?;
        ensure!(lease["spec"]["holderIdentity"] == "shardlease-controller", "{}", lease["spec"]);
        Ok((lease, Instant::now()))
    };
    let (lease, at) = stage.ctx.wait("its Lease is taken", LATER, is_taken).await?;
    let took = at.saturating_duration_since(since);
    ensure!(took + Duration::from_secs(1) >= 2 * DURATION, "taken after {}", seconds(took));
    ensure!(lease["spec"]["leaseDurationSeconds"] == 2 * DURATION.as_secs(), "{lease}");
    ensure!(lease["metadata"]["labels"]["alpha.sharding.timebertt.dev/state"] == "dead", "{lease}");
    let others = async || {
        let times = stage.recorder.read(|history| history.taken_over(Kind::Secret, &victim, mark));
        times.context("it has some yet")
    };
    let times = stage.ctx.wait("its objects are others'", LATER, others).await?;
    let last = times.iter().max().context("it had nothing")?.saturating_duration_since(since);
    ensure!(last <= 2 * DURATION + Duration::from_secs(2), "taken over within {}", seconds(last));
    stage.placed(SETTLED).await?;
    stage.end(&format!("taken {}, all moved {} after kill -9", seconds(took), seconds(last))).await
}
