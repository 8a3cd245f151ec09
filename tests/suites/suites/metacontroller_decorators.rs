//! Parity: what Metacontroller's decorators add to objects, and what they leave alone.
//!
//! Never about which objects are selected: see `decorators`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::decorators::{obey, thing};
use super::metacontroller_scene::{LAST_APPLIED, Strategy, declare, decorators, each, scene};
use super::scene::{SOON, Scene, config_map};
use crate::cluster::{Context, Scope};
use crate::hook::Reply;
use crate::trial::Case;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("parity", "a_decorator_asks_what_is_related", related),
        Case::new("parity", "a_decorator_has_credentials_and_periods", settings),
    ];
    cases.extend(each("parity", ["an_object_is_decorated_merged", "an_object_is_decorated_applied"], decorated));
    let named = ["names_of_attachments_that_are_taken_merged", "names_of_attachments_that_are_taken_applied"];
    cases.extend(each("parity", named, taken));
    cases
}

/// A decorator of things, with attached ConfigMaps.
fn spec(scene: &Scene) -> Value {
    json!({
        "resources": [{ "apiVersion": scene.things.api_version, "resource": "things" }],
        "attachments": [{ "apiVersion": "v1", "resource": "configmaps", "updateStrategy": { "method": "InPlace" } }],
        "hooks": { "sync": { "webhook": { "url": scene.hook.url("/sync") } } },
    })
}

async fn decorated(ctx: Context, strategy: Strategy) -> anyhow::Result<()> {
    let scene = scene(ctx, Scope::Namespaced, strategy).await?;
    scene.hook.set(obey);
    declare(&scene, &decorators(), "d", spec(&scene)).await?;
    let reply = json!({
        "labels": { "team": "a", "old": null }, "annotations": { "note": "some words", "old": null },
        "status": { "seen": 1 }, "attachments": [config_map("a", json!({ "x": "1" }))],
    });
    let metadata = json!({
        "name": "p", "labels": { "old": "1", "mine": "1" }, "annotations": { "old": "1", "mine": "1" },
    });
    let body = json!({ "metadata": metadata, "spec": { "reply": reply.to_string() } });
    let object = scene.ctx.admin.create(&scene.things, body).await?;
    let check = |thing: &Value| {
        ensure!(thing["metadata"]["labels"] == json!({ "mine": "1", "team": "a" }), "{thing}");
        ensure!(thing["metadata"]["annotations"] == json!({ "mine": "1", "note": "some words" }), "{thing}");
        ensure!(thing["status"] == json!({ "seen": 1 }), "without an observedGeneration: {thing}");
        Ok(())
    };
    thing(&scene, "p", "is decorated", check).await?;
    let wanted = json!([{
        "apiVersion": scene.things.api_version, "kind": "Thing", "name": "p", "uid": object["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true,
    }]);
    let name = scene.ctx.controller_name("d");
    let check = |map: &Value| {
        let annotations = &map["metadata"]["annotations"];
        ensure!(annotations["metacontroller.k8s.io/decorator-controller"] == name.as_str(), "{map}");
        ensure!(annotations[LAST_APPLIED].is_string() == (strategy == Strategy::Merged), "{map}");
        ensure!(map["metadata"]["ownerReferences"] == wanted, "{map}");
        Ok(())
    };
    scene.map("a", "is attached", check).await?;

    // What the object owns and this decorator didn't attach isn't shown to its hook, and is left alone.
    let mut others = config_map("others", json!({ "x": "1" }));
    others["metadata"]["ownerReferences"] = wanted.clone();
    let others = scene.ctx.admin.create(&scene.maps, others).await?;
    let before = scene.calls("p");
    let reply = json!({ "labels": { "team": null }, "status": null, "attachments": [] });
    scene.wants("p", reply.to_string().into()).await?;
    let check = |thing: &Value| {
        ensure!(thing["metadata"]["labels"] == json!({ "mine": "1" }), "{thing}");
        // What isn't named stays, and a null leaves the status as it is.
        ensure!(thing["metadata"]["annotations"]["note"] == "some words", "{thing}");
        ensure!(thing["status"] == json!({ "seen": 1 }), "{thing}");
        Ok(())
    };
    thing(&scene, "p", "has lost what is null", check).await?;
    scene.no_map("a", SOON).await?;
    scene.quiet().await?;
    for call in &scene.hook.calls_for(&scene.key("p"))[before..] {
        let attachments = &call.request["attachments"]["ConfigMap.v1"];
        ensure!(attachments.get("others").is_none(), "{attachments}");
    }
    let left = scene.ctx.admin.get(&scene.maps, "others").await?;
    ensure!(left["metadata"]["resourceVersion"] == others["metadata"]["resourceVersion"], "{left}");
    Ok(())
}

async fn taken(ctx: Context, strategy: Strategy) -> anyhow::Result<()> {
    let scene = scene(ctx, Scope::Namespaced, strategy).await?;
    scene.hook.set(obey);
    declare(&scene, &decorators(), "d", spec(&scene)).await?;
    let orphan = scene.ctx.admin.create(&scene.maps, config_map("orphan", json!({ "x": "theirs" }))).await?;
    let reply = json!({ "attachments": [config_map("orphan", json!({ "x": "ours" }))] });
    let object = scene.thing("p", reply).await?;
    scene.event(&object, "SyncError", &["ConfigMap", "orphan", "left alone"]).await?;
    let left = scene.ctx.admin.get(&scene.maps, "orphan").await?;
    ensure!(left["metadata"] == orphan["metadata"] && left["data"] == orphan["data"], "{left}");
    Ok(())
}

/// The object is the customize hook's `parent`; what it names is in the sync hook's request, and a reply may ask for
/// another sync.
async fn related(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|request, info| {
        if info.path != "/customize" {
            return obey(request, info);
        }
        let home = &request["parent"]["metadata"]["namespace"];
        let rule = json!({ "apiVersion": "v1", "resource": "configmaps", "namespace": home, "names": ["theme"] });
        Reply::json(&json!({ "relatedResources": [rule] }))
    });
    let mut spec = spec(&scene);
    spec["hooks"]["customize"] = json!({ "webhook": { "url": scene.hook.url("/customize") } });
    declare(&scene, &decorators(), "d", spec).await?;
    scene.ctx.admin.create(&scene.maps, config_map("theme", json!({ "v": "1" }))).await?;
    scene.thing("p", json!({ "resyncAfterSeconds": 0.3 })).await?;
    let ask = async || {
        let calls = scene.hook.calls();
        let last = calls.iter().rfind(|call| call.path == "/sync").context("no sync")?;
        ensure!(last.request["related"]["ConfigMap.v1"]["theme"]["data"]["v"] == "1", "{}", last.request);
        Ok(())
    };
    scene.ctx.wait("the hook is sent what is related", SOON, ask).await?;
    let customize = scene.hook.calls().into_iter().find(|call| call.path == "/customize").context("not asked")?;
    ensure!(customize.request["parent"]["kind"] == "Thing", "{}", customize.request);
    ensure!(customize.request.get("object").is_none(), "{}", customize.request);
    // Nothing changes: time alone leads to more.
    scene.called("p", scene.calls("p") + 3).await
}

/// `endpointConfigs`, `ignoreStatusChanges` and `resyncPeriodSeconds`.
async fn settings(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(obey);
    let verbs = json!(["get", "list", "watch"]);
    let rule = json!({ "apiGroups": [""], "resources": ["secrets"], "resourceNames": ["token"], "verbs": verbs });
    scene.ctx.grant(&json!([rule])).await?;
    let secrets = scene.ctx.namespaced("v1", "Secret", "secrets");
    let secret = json!({ "metadata": { "name": "token" }, "stringData": { "token": "by-host" } });
    scene.ctx.admin.create(&secrets, secret).await?;
    let reference = json!({ "name": "token", "namespace": scene.ctx.namespace, "key": "token" });
    let host = scene.hook.address().to_string();
    let mut spec = spec(&scene);
    spec["endpointConfigs"] = json!([{ "host": host, "authorization": { "secretRef": reference } }]);
    spec["resources"][0]["ignoreStatusChanges"] = true.into();
    declare(&scene, &decorators(), "d", spec).await?;
    scene.thing("p", json!({ "labels": { "seen": "1" } })).await?;
    let check = |thing: &Value| {
        ensure!(thing["metadata"]["labels"]["seen"] == "1", "{thing}");
        Ok(())
    };
    thing(&scene, "p", "is decorated", check).await?;
    scene.quiet().await?;
    for call in scene.hook.calls() {
        ensure!(call.header("authorization") == "Bearer by-host", "{:?}", call.headers);
    }
    scene.ctx.admin.patch_status(&scene.things, "p", &json!({ "status": { "odd": 1 } })).await?;
    scene.no_call("changes of the status are ignored").await?;
    // Time passes all the same.
    let name = scene.ctx.controller_name("d");
    scene.ctx.admin.patch_merge(&decorators(), &name, &json!({ "spec": { "resyncPeriodSeconds": 1 } })).await?;
    let before = scene.calls("p");
    scene.called("p", before + 4).await?;
    let calls = scene.hook.calls_for(&scene.key("p"));
    // The first may be the start's. Half of two periods: a busy machine may show us a call late.
    let took = calls[before + 3].started - calls[before + 1].started;
    ensure!(took >= Duration::from_secs(1), "three calls within {took:?}");
    Ok(())
}
