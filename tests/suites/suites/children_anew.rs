//! Children that are merged and made anew: what the API server stores otherwise than the hook said is no reason.
//!
//! Never about server-side apply, which has its trial of the same in `serverside`.

use anyhow::ensure;
use serde_json::{Value, json};

use super::scene::{LATER, Scene};
use crate::cluster::Context;
use crate::objects::Resource;
use crate::process::Ringmaster;
use crate::trial::Case;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("children_anew", "a_restart_makes_nothing_anew", a_restart_makes_nothing_anew),
        Case::new("children_anew", "a_refused_trial_keeps_the_child", a_refused_trial_keeps_the_child),
    ]
}

/// A controller whose children of these kinds are merged and made anew.
async fn declare(scene: &Scene, kinds: &[&Resource]) -> anyhow::Result<()> {
    let mut spec = scene.spec("Recreate");
    spec["applyStrategy"] = "Merge".into();
    let method = json!({ "method": "Recreate" });
    let rule =
        |kind: &&Resource| json!({ "apiVersion": kind.api_version, "resource": kind.plural, "updateStrategy": method });
    spec["childResources"] = kinds.iter().map(rule).collect();
    scene.ctx.controller("c", spec).await.map(drop)
}

/// A Secret that can't be changed; the API server stores `data` in the place of its `stringData`.
fn secret(x: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" }, "stringData": { "x": x }, "immutable": true,
    })
}

/// A Deployment; the API server stores `1` in the place of its `1000m`.
fn deployment(replicas: u8) -> Value {
    let container = json!({ "name": "c", "image": "i", "resources": { "limits": { "cpu": "1000m" } } });
    let template = json!({ "metadata": { "labels": { "a": "b" } }, "spec": { "containers": [container] } });
    let spec = json!({ "replicas": replicas, "selector": { "matchLabels": { "a": "b" } }, "template": template });
    json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" }, "spec": spec })
}

/// Waits until an object is there.
async fn made(ctx: &Context, resource: &Resource, name: &str) -> anyhow::Result<Value> {
    ctx.wait(&format!("{name} is made"), LATER, async || ctx.admin.get(resource, name).await).await
}

/// Waits until another object is in the place of one.
async fn anew(ctx: &Context, resource: &Resource, before: &Value) -> anyhow::Result<Value> {
    let name = before["metadata"]["name"].as_str().unwrap_or_default();
    let ask = async || {
        let object = ctx.admin.get(resource, name).await?;
        ensure!(object["metadata"]["uid"] != before["metadata"]["uid"], "{object}");
        Ok(object)
    };
    ctx.wait(&format!("{name} is made anew"), LATER, ask).await
}

/// An object is the one that it was, in its last version.
async fn same(ctx: &Context, resource: &Resource, before: &Value) -> anyhow::Result<()> {
    let name = before["metadata"]["name"].as_str().unwrap_or_default();
    let object = ctx.admin.get(resource, name).await?;
    for field in ["uid", "resourceVersion"] {
        ensure!(object["metadata"][field] == before["metadata"][field], "{object}");
    }
    Ok(())
}

async fn a_restart_makes_nothing_anew(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let secrets = scene.ctx.namespaced("v1", "Secret", "secrets");
    let deployments = scene.ctx.namespaced("apps/v1", "Deployment", "deployments");
    scene.ctx.grant(&Context::rules_for(&[&secrets, &deployments])).await?;
    declare(&scene, &[&secrets, &deployments]).await?;
    let children = |x: &str, replicas: u8| json!({ "children": [secret(x), deployment(replicas)] });
    scene.thing("p", children("1", 0)).await?;
    let first = made(&scene.ctx, &secrets, "s").await?;
    let second = made(&scene.ctx, &deployments, "d").await?;
    ensure!(first["stringData"].is_null() && first["data"]["x"] == "MQ==", "{first}");
    let container = &second["spec"]["template"]["spec"]["containers"][0];
    ensure!(container["resources"]["limits"]["cpu"] == "1", "{second}");
    scene.quiet().await?;
    let Scene { ringmaster, hook, things, maps, ctx } = scene;
    ensure!(ringmaster.stop().await?.success());
    let mark = ctx.mark()?;
    let scene = Scene { ringmaster: Ringmaster::start(&ctx)?, hook, things, maps, ctx };
    let writes = || -> anyhow::Result<Vec<_>> {
        let kinds = [&secrets.plural, &deployments.plural];
        let requests = scene.ctx.requests(mark)?.into_iter();
        Ok(requests.filter(|request| request.is_write() && kinds.contains(&&request.resource)).collect())
    };
    let ask = async || {
        let writes = writes()?;
        ensure!(writes.len() >= 2, "{writes:?}");
        Ok(())
    };
    scene.ctx.wait("both are tried", LATER, ask).await?;
    scene.quiet().await?;
    // Once each, which tells the process that they are as they shall be.
    let tried = writes()?;
    let is_trial = |verb: &str, uri: &str| verb == "update" && uri.contains("dryRun=All");
    ensure!(tried.len() == 2 && tried.iter().all(|write| is_trial(&write.verb, &write.uri)), "{tried:?}");
    same(&scene.ctx, &secrets, &first).await?;
    same(&scene.ctx, &deployments, &second).await?;
    // What is changed is made anew: where the API server would take the change...
    scene.wants("p", children("1", 1)).await?;
    let third = anew(&scene.ctx, &deployments, &second).await?;
    ensure!(third["spec"]["replicas"] == 1, "{third}");
    scene.quiet().await?;
    same(&scene.ctx, &secrets, &first).await?;
    // ...and where it finds it invalid.
    scene.wants("p", children("2", 1)).await?;
    let last = anew(&scene.ctx, &secrets, &first).await?;
    ensure!(last["data"]["x"] == "Mg==", "{last}");
    let writes = writes()?;
    let is_refused = |verb: &str, uri: &str, code: u16| is_trial(verb, uri) && code == 422;
    ensure!(writes.iter().any(|write| is_refused(&write.verb, &write.uri, write.code)), "{writes:?}");
    scene.quiet().await?;
    same(&scene.ctx, &deployments, &third).await
}

async fn a_refused_trial_keeps_the_child(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let secrets = scene.ctx.namespaced("v1", "Secret", "secrets");
    let rule = |verbs: &[&str]| json!([{ "apiGroups": [""], "resources": [secrets.plural], "verbs": verbs }]);
    scene.ctx.grant(&rule(&["get", "list", "watch", "create", "patch", "delete"])).await?;
    declare(&scene, &[&secrets]).await?;
    let thing = scene.thing("p", json!({ "children": [secret("1")] })).await?;
    let before = made(&scene.ctx, &secrets, "s").await?;
    scene.quiet().await?;
    scene.wants("p", json!({ "children": [secret("2")] })).await?;
    scene.event(&thing, "SyncError", &["secrets", "orbidden", "update"]).await?;
    same(&scene.ctx, &secrets, &before).await?;
    scene.ctx.grant(&rule(&["update"])).await?;
    let after = anew(&scene.ctx, &secrets, &before).await?;
    ensure!(after["data"]["x"] == "Mg==", "{after}");
    Ok(())
}
