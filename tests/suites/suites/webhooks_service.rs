//! A webhook's Service in the hands of people: its EndpointSlices may not be read, it is deleted and made again, its ports
//! get other numbers and names.
//!
//! Never asks for more than a Service can do: while there is none, or none with that port, calls fail; afterwards every
//! parent is served, and none waits for its own retries.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cluster::Context;
use crate::objects::Resource;
use crate::replicas::calls::{counts, now, within};
use crate::replicas::changes::{Changes, served};
use crate::replicas::{Replicas, SERVICE, slice};
use crate::server::GROUP;
use crate::suites::scene::{LATER, SOON, condition};
use crate::suites::webhooks::Stage;

/// How long parents may wait once their hook can be reached again.
const AT_ONCE: Duration = Duration::from_secs(2);
/// A call that was being connected by the Service's name has so long for it: a question to DNS that is lost is asked anew
/// after 5 s, and a call isn't taken from where it is under way.
const BY_NAME: Duration = Duration::from_secs(5);

/// The shipped role without the right to EndpointSlices, for everybody at this server.
async fn without_slices(ctx: &Context) -> anyhow::Result<()> {
    let of = |kind: &str, plural: &str| Resource::new("rbac.authorization.k8s.io/v1", kind, plural, None);
    let mut role = ctx.admin.get(&of("ClusterRole", "clusterroles"), "ringmaster-engine").await?;
    let rules = role["rules"].as_array_mut().context("no rules")?;
    let before = rules.len();
    rules.retain(|rule| rule["resources"] != json!(["endpointslices"]));
    ensure!(rules.len() == before - 1, "no rule for endpointslices alone");
    let name = "suites-narrow";
    let metadata = json!({ "name": name });
    let narrow = json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": metadata,
        "rules": role["rules"] });
    ctx.admin.apply(&narrow).await?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": metadata,
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name },
        "subjects": [{ "apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": GROUP }],
    });
    ctx.admin.apply(&binding).await?;
    ctx.admin.delete(&of("ClusterRoleBinding", "clusterrolebindings"), "suites-engine").await?;
    let slices = ctx.namespaced("discovery.k8s.io/v1", "EndpointSlice", "endpointslices");
    let gone = async || {
        ensure!(ctx.as_user()?.list(&slices, "limit=1").await.is_err(), "still allowed");
        ctx.as_user()?.list(&ctx.namespaced("v1", "Service", "services"), "limit=1").await.map(drop)
    };
    ctx.wait("the right to endpointslices is gone, and no other", SOON, gone).await
}

/// A Service whose slices may not be read: called by its name if that leads anywhere, told if it doesn't, and by its slices
/// once they can be read.
pub(super) async fn forbidden(ctx: Context) -> anyhow::Result<()> {
    const PARENTS: usize = 20;
    without_slices(&ctx).await?;
    let name = |ctx: &Context| format!("{SERVICE}.{}.svc:80", ctx.namespace);
    let mut stage = Stage::with(ctx, 2, |ctx, replicas| vec![replicas.flag_to(0, &name(ctx))]).await?;
    stage.start(&[0, 1], &[]).await?;
    stage.replicas.publish(&[1], &[]).await?;
    stage.controller(&json!({ "resyncPeriodSeconds": 1 }), &json!({})).await?;
    stage.create(PARENTS).await?;
    let calls = stage.steady(PARENTS, 2).await?;
    ensure!(counts(&calls).keys().eq([&0]), "{:?}", counts(&calls));
    let text = condition(&stage.ctx, "things", ["EndpointsReady", "True", "ByName"]).await?;
    ensure!(text.contains("--hook-resolve"), "{text}");
    stage.none_failed()?;

    // Its name leads nowhere, as no DNS knows it.
    let stage = stage.restart().await?;
    let text = condition(&stage.ctx, "things", ["EndpointsReady", "False", "NoneAnswers"]).await?;
    let words = [&name(&stage.ctx), "orbidden", "grant get, list and watch on endpointslices"];
    ensure!(words.iter().all(|word| text.contains(word)), "{text}");
    condition(&stage.ctx, "things", ["HookReachable", "False", "NameNotResolved"]).await?;
    let rule = json!([{ "apiGroups": ["discovery.k8s.io"], "resources": ["endpointslices"],
        "verbs": ["get", "list", "watch"] }]);
    stage.ctx.grant(&rule).await?;
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;
    let ready = now();
    let calls = stage.all_called(PARENTS, ready).await?;
    ensure!(counts(&within(&calls, ready, now())).keys().eq([&1]), "{:?}", counts(&calls));
    Ok(())
}

/// The Service with one port, and its EndpointSlice with one address.
struct Published<'a> {
    stage: &'a Stage,
}

impl Published<'_> {
    async fn service(&self, port: &Value) -> anyhow::Result<()> {
        let metadata = json!({ "name": SERVICE, "namespace": self.stage.ctx.namespace });
        let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": { "selector": { "app": SERVICE }, "ports": [port] } });
        self.stage.ctx.admin.apply(&service).await.map(drop)
    }

    /// The first replica's address, with a port of this name and number.
    async fn slice(&self, name: &str, port: u16) -> anyhow::Result<()> {
        let ready = vec![self.stage.replicas.address(0).to_owned()];
        let mut slice = slice((&self.stage.ctx.namespace, SERVICE), ready, Vec::new());
        slice["ports"] = json!([{ "name": name, "port": port, "protocol": "TCP" }]);
        self.stage.ctx.admin.apply(&slice).await.map(drop)
    }

    /// Both, as a cluster does it.
    async fn delete(&self) -> anyhow::Result<()> {
        let ctx = &self.stage.ctx;
        ctx.admin.delete(&ctx.namespaced("v1", "Service", "services"), SERVICE).await?;
        let slices = ctx.namespaced("discovery.k8s.io/v1", "EndpointSlice", "endpointslices");
        ctx.admin.delete(&slices, &format!("{SERVICE}-1")).await.map(drop)
    }
}

/// Waits until all parents are called since then, where they should be; answers with how long it took for three of four,
/// and for all.
async fn called_at(
    stage: &Stage,
    parents: usize,
    (replica, since): (usize, Duration),
) -> anyhow::Result<(Duration, Duration)> {
    let calls = within(&stage.all_called(parents, since).await?, since, now());
    let mut first = HashMap::new();
    for call in calls.iter().filter(|call| call.replica == replica) {
        first.entry(&call.parent).or_insert_with(|| call.began.saturating_sub(since));
    }
    ensure!(first.len() == parents, "{} of {parents} are called at {replica}", first.len());
    let mut waits: Vec<Duration> = first.into_values().collect();
    waits.sort();
    let at = |index: usize| waits.get(index).copied().unwrap_or_default();
    Ok((at(parents * 3 / 4), at(parents - 1)))
}

/// Whatever becomes of the Service, what parents want is served once there is one with the port.
pub(super) async fn changes(ctx: Context) -> anyhow::Result<()> {
    const PARENTS: usize = 40;
    // The same address at other ports is another process.
    let others = |_: &Context, replicas: &Replicas| {
        let at = |port: u16| format!("{}:{port}", replicas.address(0));
        vec![replicas.flag_to(1, &at(8081)), replicas.flag_to(2, &at(8082))]
    };
    let mut stage = Stage::with(ctx, 3, others).await?;
    stage.start(&[0, 1, 2], &[]).await?;
    let port = |name: &str, port: u16, target: u16| json!({ "name": name, "port": port, "targetPort": target });
    let published = Published { stage: &stage };
    published.service(&port("http", 80, 8080)).await?;
    published.slice("http", 8080).await?;
    let controller = stage.controller(&json!({}), &json!({})).await?;
    stage.create(PARENTS).await?;
    stage.all_called(PARENTS, Duration::ZERO).await?;
    let changes = Changes::start(&stage.ctx, &stage.things, PARENTS, 40);
    stage.none_failed()?;

    // Another target port: there is always one that answers, and nothing fails.
    published.service(&port("http", 80, 8081)).await?;
    published.slice("http", 8081).await?;
    let quiet = async || {
        let late = stage.replicas.calls()?.iter().filter(|call| call.replica == 0).map(|call| call.began).max();
        ensure!(now() - late.unwrap_or_default() > Duration::from_millis(500), "it is called");
        Ok(())
    };
    stage.ctx.wait("nobody calls the old port", SOON, quiet).await?;
    called_at(&stage, PARENTS, (1, now())).await?;
    stage.none_failed()?;

    // It goes, and comes back with another target port.
    published.delete().await?;
    let text = condition(&stage.ctx, "things", ["EndpointsReady", "False", "NoneAnswers"]).await?;
    ensure!(text.contains("there is no Service"), "{text}");
    condition(&stage.ctx, "things", ["HookReachable", "False", "NameNotResolved"]).await?;
    published.service(&port("http", 80, 8082)).await?;
    let since = now();
    published.slice("http", 8082).await?;
    let back = called_at(&stage, PARENTS, (2, since)).await?;
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;

    // Its port gets another name; the slice follows.
    published.service(&port("web", 80, 8080)).await?;
    condition(&stage.ctx, "things", ["EndpointsReady", "False", "NoEndpoints"]).await?;
    let since = now();
    published.slice("web", 8080).await?;
    let renamed = called_at(&stage, PARENTS, (0, since)).await?;
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;

    // And another number, which the controller must name.
    published.service(&port("web", 81, 8081)).await?;
    let text = condition(&stage.ctx, "things", ["EndpointsReady", "False", "NoEndpoints"]).await?;
    ensure!(text.contains("no port 80"), "{text}");
    published.slice("web", 8081).await?;
    let patch = json!({ "spec": { "hooks": { "sync": { "webhook": { "service": { "port": 81 } } } } } });
    let name = controller["metadata"]["name"].as_str().context("no name")?;
    let since = now();
    stage.ctx.admin.patch_merge(&Context::controllers(), name, &patch).await?;
    let renumbered = called_at(&stage, PARENTS, (1, since)).await?;
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;

    let changes = changes.stop().await?;
    let all = async || {
        let lost = served(&changes, &stage.replicas.calls()?).iter().filter(|served| served.is_none()).count();
        ensure!(lost == 0, "{lost} of {} changes aren't", changes.len());
        Ok(())
    };
    stage.ctx.wait("all changes are served", LATER, all).await?;
    println!(
        "webhooks Service changed: three of four of {PARENTS} parents, and all, called {back:?} after it was made again, \
         {renamed:?} after its port had a new name, {renumbered:?} after the controller named the new number; {} changes, \
         all served",
        changes.len()
    );
    for (most, all) in [back, renamed, renumbered] {
        ensure!(most <= AT_ONCE && all <= AT_ONCE + BY_NAME, "parents wait for their own retries: {most:?}, {all:?}");
    }
    Ok(())
}
