//! The admission webhook of external rings: objects come labelled in the answer to their creation, and whatever becomes of
//! the webhook, nobody's creation fails or waits for longer than it may.
//!
//! Its shard is a Lease alone: nobody acts on an object here. Never behind a Service, which neither server reaches here.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cluster::{Context, Scope};
use crate::objects::{Resource, read_yaml};
use crate::process::{Build, Ringmaster};
use crate::rings::webhook;
use crate::trial::Case;

/// How long all of it may take: members wait for one another's Leases twice.
const TIMEOUT: Duration = Duration::from_secs(360);
/// How long a member may take to lead, be it after one that was killed, and its rings to run.
const LEADS: Duration = Duration::from_secs(60);
/// How long a round of the leader's may be away, and some more.
const ROUND: Duration = Duration::from_secs(45);
/// The webhook's timeout, and what a busy machine adds to a creation.
const SLOWEST: Duration = Duration::from_secs(4);
/// The one shard.
const SHARD: &str = "a";

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("rings_admission", "labels_at_once_and_never_in_the_way", labels).own_server().timeout(TIMEOUT)]
}

/// A ring of one main kind and of ConfigMaps that it controls, with one shard that never goes.
struct Stage {
    ctx: Context,
    things: Resource,
    ring: String,
    made: usize,
}

impl Stage {
    async fn new(ctx: Context) -> anyhow::Result<Self> {
        let things = ctx.crd("Thing", "things", Scope::Namespaced, None).await?;
        let roles = read_yaml(&Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/rings/clusterrole.yaml"))?;
        ctx.grant(&roles.first().context("no role")?["rules"]).await?;
        let secrets = json!({ "apiGroups": [""], "resources": ["secrets"], "verbs": ["create", "get", "list", "watch", "update"] });
        let maps =
            json!({ "apiGroups": [""], "resources": ["configmaps"], "verbs": ["get", "list", "watch", "patch"] });
        ctx.grant(&json!([secrets, maps])).await?;
        ctx.grant(&Context::rules_for(&[&things])).await?;
        let ring = ctx.controller_name("r");
        let leases = ctx.namespaced("coordination.k8s.io/v1", "Lease", "leases");
        let long_ago = "2026-01-01T00:00:00.000000Z";
        let lease = json!({
            "metadata": { "name": SHARD, "labels": { "ringmaster.dev/ring": ring } },
            "spec": {
                "holderIdentity": SHARD, "leaseDurationSeconds": 3600, "acquireTime": long_ago, "renewTime": long_ago,
                "leaseTransitions": 1,
            },
        });
        ctx.admin.create(&leases, lease).await?;
        let rings = Resource::new("ringmaster.dev/v1alpha1", "ControllerRing", "controllerrings", None);
        let body = json!({
            "metadata": { "name": ring, "labels": { "suite": ctx.id } },
            "spec": {
                "resources": [{
                    "group": things.group(), "resource": "things", "controlledResources": [{ "resource": "configmaps" }],
                }],
                "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": ctx.namespace } },
            },
        });
        ctx.admin.create(&rings, body).await?;
        Ok(Self { ctx, things, ring, made: 0 })
    }

    /// A Ringmaster that runs rings, in this trial's namespace.
    fn member(&self) -> Build<'_> {
        let namespace = format!("--lease-namespace={}", self.ctx.namespace);
        Ringmaster::build(&self.ctx).arg("--target-label-selector=").arg(namespace)
    }

    /// The shard that an object's label names.
    fn shard(&self, object: &Value) -> Option<String> {
        let labels = &object["metadata"]["labels"];
        labels[format!("ring.ringmaster.dev/{}", self.ring)].as_str().map(str::to_owned)
    }

    /// Creates one more main object; what the API server answers, and after how long.
    async fn create(&mut self) -> anyhow::Result<(Value, Duration)> {
        self.made += 1;
        let name = format!("t{}", self.made);
        let begun = Instant::now();
        let created = self.ctx.admin.create(&self.things, json!({ "metadata": { "name": name } })).await?;
        Ok((created, begun.elapsed()))
    }

    /// Waits until created objects come labelled.
    async fn wait_labelled(&mut self, what: &str, deadline: Duration) -> anyhow::Result<Value> {
        let begun = Instant::now();
        loop {
            let (created, took) = self.create().await?;
            ensure!(took < SLOWEST, "{what}: a creation took {took:?}");
            if self.shard(&created).as_deref() == Some(SHARD) {
                return Ok(created);
            }
            ensure!(begun.elapsed() < deadline, "{what}: not within {deadline:?}: {created}");
            // One that isn't labelled at once is by the watch, once somebody leads.
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Waits until the object that was created is labelled, by whomever.
    async fn wait_assigned(&self, created: &Value) -> anyhow::Result<()> {
        let name = created["metadata"]["name"].as_str().context("no name")?;
        let ask = async || {
            let now = self.ctx.admin.get(&self.things, name).await?;
            ensure!(self.shard(&now).as_deref() == Some(SHARD), "{}", now["metadata"]["labels"]);
            Ok(())
        };
        self.ctx.wait("an object is assigned by the watch", LEADS, ask).await
    }

    fn configuration(&self) -> String {
        webhook::configuration(&self.ring)
    }

    /// Waits until the ring's configuration is there, and carries this bundle if one is given; gives it back.
    async fn wait_configured(&self, what: &str, bundle: Option<&str>) -> anyhow::Result<Value> {
        let name = self.configuration();
        let ask = async || {
            let found = self.ctx.admin.get(&webhook::configurations(), &name).await?;
            let carried = &found["webhooks"][0]["clientConfig"]["caBundle"];
            ensure!(carried.is_string() && bundle.is_none_or(|bundle| *carried == bundle), "{carried}");
            Ok(found)
        };
        self.ctx.wait(what, ROUND, ask).await
    }
}

async fn labels(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::new(ctx).await?;
    let on = webhook::flags()?;
    let serving = |stage: &Stage| {
        let [address, url] = on.clone();
        stage.member().arg(address).arg(url).start()
    };
    let ringmaster = serving(&stage)?;
    let thing = stage.wait_labelled("objects come labelled", LEADS).await?;
    let configured = stage.wait_configured("the ring has a webhook", None).await?;
    let asked = &configured["webhooks"][0];
    ensure!(asked["failurePolicy"] == "Ignore" && asked["timeoutSeconds"] == 2, "{asked}");

    let maps = stage.ctx.configmaps();
    let owner = json!({
        "apiVersion": stage.things.api_version, "kind": "Thing", "name": thing["metadata"]["name"],
        "uid": thing["metadata"]["uid"], "controller": true,
    });
    let child = json!({ "metadata": { "name": "child", "ownerReferences": [owner] }, "data": {} });
    let child = stage.ctx.admin.create(&maps, child).await?;
    ensure!(stage.shard(&child).as_deref() == Some(SHARD), "a child is where its owner is: {child}");
    let alone = stage.ctx.admin.create(&maps, json!({ "metadata": { "name": "alone" } })).await?;
    ensure!(stage.shard(&alone).is_none(), "nobody owns it: {alone}");
    let unnamed = stage.ctx.admin.create(&stage.things, json!({ "metadata": { "generateName": "g-" } })).await?;
    ensure!(stage.shard(&unnamed).is_none(), "it had no name yet: {unnamed}");
    stage.wait_assigned(&unnamed).await?;

    let bundle = configured["webhooks"][0]["clientConfig"]["caBundle"].as_str().context("no bundle")?.to_owned();
    let configurations = webhook::configurations();
    // A merge patch replaces lists: the webhook is all there but for its bundle.
    let mut spoilt = configured["webhooks"].clone();
    spoilt[0]["clientConfig"]["caBundle"] = Value::Null;
    stage.ctx.admin.patch_merge(&configurations, &stage.configuration(), &json!({ "webhooks": spoilt })).await?;
    stage.wait_configured("what somebody edited is put right", Some(&bundle)).await?;
    stage.ctx.admin.delete(&configurations, &stage.configuration()).await?;
    stage.wait_configured("what somebody deleted is back", Some(&bundle)).await?;

    let secrets = stage.ctx.namespaced("v1", "Secret", "secrets");
    let before = stage.ctx.admin.get(&secrets, "ringmaster-admission").await?;
    stage.ctx.admin.delete(&secrets, "ringmaster-admission").await?;
    let back = async || {
        let now = stage.ctx.admin.get(&secrets, "ringmaster-admission").await?;
        ensure!(now["data"]["tls.crt"] == before["data"]["tls.crt"], "another certificate");
        Ok(())
    };
    stage.ctx.wait("the deleted certificate is put back", ROUND, back).await?;
    stage.wait_labelled("objects come labelled still", ROUND).await?;

    ringmaster.freeze(true)?;
    let (paused, took) = stage.create().await?;
    ensure!(took < SLOWEST, "a creation waited {took:?} for a paused member");
    ringmaster.kill()?;
    let (orphan, took) = stage.create().await?;
    ensure!(took < SLOWEST, "a creation waited {took:?} for a killed member");
    ensure!(stage.shard(&paused).is_none() && stage.shard(&orphan).is_none(), "nobody answered: {paused} {orphan}");

    let ringmaster = serving(&stage)?;
    stage.wait_labelled("another member labels them", LEADS).await?;
    stage.wait_assigned(&paused).await?;
    stage.wait_assigned(&orphan).await?;
    ringmaster.stop().await?;

    let ringmaster = stage.member().start()?;
    let name = stage.configuration();
    let gone = async || {
        let found = stage.ctx.admin.find(&configurations, &name).await?;
        ensure!(found.is_none(), "it is there still");
        Ok(())
    };
    stage.ctx.wait("turned off, the webhook isn't configured any more", LEADS, gone).await?;
    let (created, _) = stage.create().await?;
    stage.wait_assigned(&created).await?;
    ringmaster.stop().await?;
    Ok(())
}
