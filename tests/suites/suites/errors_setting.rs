//! What Ringmaster stands on fails: kinds, rights, declarations, the API server, and Ringmaster itself when it ends.
//!
//! Never about hooks: they work here.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::scene::{LATER, NEVER, SOON, Scene, condition, config_map, event, obey, spec};
use crate::cluster::{Context, Scope};
use crate::hook::{Hook, Reply};
use crate::objects::Resource;
use crate::process::Ringmaster;
use crate::server;
use crate::trial::Case;
use crate::wait;

/// How long the API server is silent.
const FROZEN: Duration = Duration::from_secs(5);
/// Parents made before, between and after the API server's troubles.
const BATCH: usize = 20;
/// How long the hook takes while Ringmaster is asked to stop.
const SLOW: Duration = Duration::from_secs(3);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("errors", "parent_kind_comes_later", parent_kind_comes_later),
        Case::new("errors", "parent_without_status", parent_without_status),
        Case::new("errors", "missing_rights", missing_rights),
        Case::new("errors", "bad_metacontroller_controller", bad_metacontroller_controller),
        Case::new("errors", "api_server_outage", api_server_outage).own_server().timeout(Duration::from_secs(300)),
        Case::new("errors", "sigterm_during_a_hook_call", sigterm_during_a_hook_call),
    ]
}

/// A thing that wants one ConfigMap.
fn wanting(name: &str, map: &str) -> Value {
    let reply = json!({ "children": [config_map(map, json!({ "x": "1" }))] });
    json!({ "metadata": { "name": name }, "spec": { "reply": reply } })
}

async fn made(ctx: &Context, map: &str) -> anyhow::Result<()> {
    let ask = async || ctx.admin.get(&ctx.configmaps(), map).await.map(drop);
    ctx.wait(&format!("ConfigMap {map} is made"), LATER, ask).await
}

async fn parent_kind_comes_later(ctx: Context) -> anyhow::Result<()> {
    let things = ctx.namespaced(&format!("{}/v1", ctx.group()), "Thing", "things");
    ctx.grant(&Context::rules_for(&[&things, &ctx.configmaps()])).await?;
    let hook = Hook::start(obey)?;
    let ringmaster = Ringmaster::start(&ctx)?;
    let controller = ctx.controller("c", spec(&things, &hook.url("/sync"), "InPlace")).await?;
    let message = condition(&ctx, "c", ["Ready", "False", "ParentKindNotServed"]).await?;
    ensure!(message.contains("things") && message.contains(&things.api_version), "{message}");
    event(&ctx, &controller, "CreateError", &["spec.parentResource", "things"]).await?;
    ctx.crd("Thing", "things", Scope::Namespaced, None).await?;
    ctx.admin.create(&things, wanting("p", "a")).await?;
    made(&ctx, "a").await?;
    condition(&ctx, "c", ["Ready", "True", "Running"]).await?;
    ringmaster.check()
}

async fn parent_without_status(ctx: Context) -> anyhow::Result<()> {
    let group = ctx.group();
    let crd = |subresources: Value| {
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": { "name": format!("plains.{group}"), "labels": { "suite": ctx.id } },
            "spec": {
                "group": group, "scope": "Namespaced",
                "names": { "kind": "Plain", "plural": "plains", "singular": "plain" },
                "versions": [{
                    "name": "v1", "served": true, "storage": true, "subresources": subresources,
                    "schema": { "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } },
                }],
            },
        })
    };
    let applied = ctx.admin.apply(&crd(json!({}))).await?;
    server::served(&ctx.admin, &applied).await?;
    let plains = ctx.namespaced(&format!("{group}/v1"), "Plain", "plains");
    ctx.grant(&Context::rules_for(&[&plains, &ctx.configmaps()])).await?;
    let hook = Hook::start(obey)?;
    let _ringmaster = Ringmaster::start(&ctx)?;
    ctx.controller("c", spec(&plains, &hook.url("/sync"), "InPlace")).await?;
    ctx.admin.create(&plains, wanting("p", "a")).await?;
    let message = condition(&ctx, "c", ["Ready", "False", "ParentHasNoStatus"]).await?;
    ensure!(message.contains("status") && message.contains("CRD"), "{message}");
    wait::stays("nothing is synced", NEVER, async || {
        ensure!(hook.count() == 0, "{} calls", hook.count());
        Ok(())
    })
    .await?;
    ctx.admin.apply(&crd(json!({ "status": {} }))).await?;
    made(&ctx, "a").await?;
    condition(&ctx, "c", ["Ready", "True", "Running"]).await.map(drop)
}

async fn missing_rights(ctx: Context) -> anyhow::Result<()> {
    let things = ctx.crd("Thing", "things", Scope::Namespaced, None).await?;
    ctx.grant(&Context::rules_for(&[&things])).await?;
    let hook = Hook::start(obey)?;
    let ringmaster = Ringmaster::start(&ctx)?;
    ctx.controller("c", spec(&things, &hook.url("/sync"), "InPlace")).await?;
    let thing = ctx.admin.create(&things, wanting("p", "a")).await?;
    let message = condition(&ctx, "c", ["Ready", "False", "Forbidden"]).await?;
    ensure!(message.contains("configmaps") && message.contains("spec.childResources[0]"), "{message}");
    ensure!(hook.count() == 0, "a controller that doesn't see its children called its hook");
    // To read is enough to run, but not to write.
    let rule = |verbs: &[&str]| json!([{ "apiGroups": [""], "resources": ["configmaps"], "verbs": verbs.to_vec() }]);
    ctx.grant(&rule(&["get", "list", "watch"])).await?;
    let message = condition(&ctx, "c", ["Ready", "False", "SyncsFailing"]).await?;
    ensure!(message.contains("1 of 1") && message.contains("cannot create"), "{message}");
    event(&ctx, &thing, "SyncError", &["configmaps", "orbidden"]).await?;
    ctx.grant(&rule(&["create", "update", "patch", "delete"])).await?;
    made(&ctx, "a").await?;
    condition(&ctx, "c", ["Ready", "True", "Running"]).await?;
    ringmaster.check()
}

async fn bad_metacontroller_controller(ctx: Context) -> anyhow::Result<()> {
    let things = ctx.crd("Thing", "things", Scope::Namespaced, None).await?;
    ctx.grant(&Context::rules_for(&[&things, &ctx.configmaps()])).await?;
    let hook = Hook::start(obey)?;
    let _ringmaster = Ringmaster::start(&ctx)?;
    let composites =
        Resource::new("metacontroller.k8s.io/v1alpha1", "CompositeController", "compositecontrollers", None);
    let declare = async |name: &str, hooks: Value| {
        let mut spec = spec(&things, &hook.url("/sync"), "InPlace");
        spec["hooks"] = hooks;
        let metadata = json!({ "name": ctx.controller_name(name), "labels": { "suite": ctx.id } });
        ctx.admin.create(&composites, json!({ "metadata": metadata, "spec": spec })).await
    };
    ctx.admin.create(&things, wanting("p", "a")).await?;
    let webhook = json!({ "webhook": { "url": hook.url("/sync") } });
    let odd = json!({ "sync": { "version": "v9", "webhook": webhook["webhook"] } });
    for (name, hooks, field) in [
        ("finalize", json!({ "sync": webhook, "finalize": {} }), "spec.hooks.finalize.webhook"),
        ("version", odd, "spec.hooks.sync.version"),
        ("nowhere", json!({ "sync": { "webhook": {} } }), "spec.hooks.sync.webhook"),
    ] {
        let declared = declare(name, hooks).await?;
        event(&ctx, &declared, "CreateError", &[field]).await?;
    }
    ensure!(hook.count() == 0, "a bad controller runs");
    // A good one beside them runs.
    declare("good", json!({ "sync": webhook })).await?;
    made(&ctx, "a").await
}

async fn api_server_outage(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let mut spec = scene.spec("InPlace");
    spec["parentResource"]["ignoreStatusChanges"] = false.into();
    scene.ctx.controller("c", spec).await?;
    let admin = &scene.ctx.admin;
    let batch = async |number: usize| {
        for index in (number * BATCH)..((number + 1) * BATCH) {
            admin.create(&scene.things, wanting(&format!("p{index}"), &format!("a{index}"))).await?;
        }
        anyhow::Ok(())
    };
    let converged = async |batches: usize| {
        let ask = async || {
            let things = admin.list(&scene.things, "").await?;
            let maps = admin.list(&scene.maps, "").await?;
            let synced = things.iter().filter(|t| t["status"]["observedGeneration"] == t["metadata"]["generation"]);
            let counts = (things.len(), synced.count(), maps.len());
            ensure!(counts == (batches * BATCH, batches * BATCH, batches * BATCH), "things, synced, maps: {counts:?}");
            Ok(maps)
        };
        scene.ctx.wait(&format!("{batches} batches are synced"), LATER, ask).await
    };
    batch(0).await?;
    let first = converged(1).await?;

    // Silent while there is work: requests hang, then go on.
    batch(1).await?;
    scene.ctx.server.freeze_api(true)?;
    let runs = async || scene.ringmaster.check();
    let frozen = wait::stays("ringmaster runs while the API server is silent", FROZEN, runs).await;
    scene.ctx.server.freeze_api(false)?;
    frozen?;
    converged(2).await?;

    // Gone while there is work: connections break, requests are refused, then there is another process.
    for (number, kill) in [(2, false), (3, true)] {
        batch(number).await?;
        scene.ctx.server.stop_api(kill)?;
        scene.ringmaster.check()?;
        scene.ctx.server.start_api()?;
        scene.ctx.server.ready().await?;
        let ready = async || admin.list(&scene.things, "").await.map(drop);
        scene.ctx.wait("things are served again", LATER, ready).await?;
        let x = number.to_string();
        let reply = json!({ "children": [config_map("a0", json!({ "x": x }))] });
        scene.wants("p0", reply).await?;
        let maps = converged(number + 1).await?;
        let changed = async || {
            let map = admin.get(&scene.maps, "a0").await?;
            ensure!(map["data"]["x"] == *x, "{}", map["data"]);
            Ok(())
        };
        scene.ctx.wait("a change is followed", LATER, changed).await?;
        // Nothing of it looked like a deletion.
        for before in &first {
            let uid = &before["metadata"]["uid"];
            ensure!(
                maps.iter().any(|map| map["metadata"]["uid"] == *uid),
                "{} was made anew",
                before["metadata"]["name"]
            );
        }
    }
    let deletes: Vec<_> = scene.ctx.all_requests()?.into_iter().filter(|request| request.verb == "delete").collect();
    ensure!(deletes.is_empty(), "{deletes:?}");
    scene.condition("c", ["Ready", "True", "Running"]).await?;
    scene.ringmaster.check()
}

async fn sigterm_during_a_hook_call(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|request, info| obey(request, info).delay(SLOW));
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let thing = wanting("p", "a");
    scene.ctx.admin.create(&scene.things, thing).await?;
    scene.called("p", 1).await?;
    let Scene { ringmaster, hook, things, maps, ctx } = scene;
    ensure!(hook.calls()[0].ended.is_none(), "the call has ended already");
    let status = ringmaster.stop().await?;
    ensure!(status.success(), "{status}");
    // All of it was done before the end: nothing is awaited here.
    let calls = hook.calls();
    ensure!(calls.len() == 1 && calls[0].status == Some(200), "{calls:?}");
    let map = ctx.admin.get(&maps, "a").await.context("the running sync's child wasn't made")?;
    ensure!(map["data"]["x"] == "1", "{map}");
    let thing = ctx.admin.get(&things, "p").await?;
    ensure!(thing["status"]["observedGeneration"] == 1, "the status wasn't written: {}", thing["status"]);

    // The next process finds nothing to change.
    hook.set(|request, _| Reply::json(&request["parent"]["spec"]["reply"]));
    let mark = ctx.mark()?;
    let next = Ringmaster::start(&ctx)?;
    let ask = async || {
        ensure!(hook.count() >= 2, "{} calls", hook.count());
        Ok(())
    };
    ctx.wait("the next process syncs", SOON, ask).await?;
    let status = next.stop().await?;
    ensure!(status.success(), "{status}");
    let mut writes = ctx.requests(mark)?;
    writes.retain(|request| request.is_write() && (request.resource == "configmaps" || request.group == ctx.group()));
    ensure!(writes.is_empty(), "{writes:?}");
    Ok(())
}
