//! Parity: Metacontroller's finalizers, when its finalize hooks are called, and what becomes of parents without one.
//!
//! Never about hooks that fail: see `finalize`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::metacontroller_scene::{Strategy, composites, declare, decorators, each, scene};
use super::scene::{LATER, NEVER, SOON, Scene, config_map, obey};
use crate::cluster::{Context, Scope};
use crate::hook::{CallInfo, Reply};
use crate::trial::Case;
use crate::wait;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("parity", "finalizers_go_with_their_hooks", hooks_go),
        Case::new("metacontroller", "a_controller_that_is_made_again_finalizes", made_again),
        Case::new("metacontroller", "one_that_is_edited_and_deleted_leaves_no_finalizer", edited_and_deleted),
    ];
    let named = ["a_parent_that_is_selected_no_longer_merged", "a_parent_that_is_selected_no_longer_applied"];
    cases.extend(each("parity", named, unselected));
    let named = ["a_parent_that_goes_without_a_hook_merged", "a_parent_that_goes_without_a_hook_applied"];
    cases.extend(each("parity", named, without_hook));
    cases
}

/// At the end first the children go, then the parent may.
fn last(request: &Value, info: &CallInfo) -> Reply {
    if info.path != "/finalize" {
        return obey(request, info);
    }
    if request["finalizing"] != true {
        return Reply::status(500);
    }
    let is_done = request["children"]["ConfigMap.v1"] == json!({});
    Reply::json(&json!({ "status": { "phase": "going" }, "children": [], "finalized": is_done }))
}

async fn hooks_go(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|_, info| if info.path == "/finalize" { Reply::status(500) } else { Reply::json(&json!({})) });
    let finalize = json!({ "webhook": { "url": scene.hook.url("/finalize") } });
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["finalize"] = finalize.clone();
    declare(&scene, &composites(), "c", spec).await?;
    let decorator = json!({
        "resources": [{ "apiVersion": scene.things.api_version, "resource": "things" }],
        "hooks": { "sync": { "webhook": { "url": scene.hook.url("/sync") } }, "finalize": finalize },
    });
    declare(&scene, &decorators(), "d", decorator).await?;
    let metadata = json!({ "name": "p", "finalizers": ["example.com/other"] });
    scene.ctx.admin.create(&scene.things, json!({ "metadata": metadata, "spec": {} })).await?;
    let of_composite = format!("metacontroller.io/compositecontroller-{}", scene.ctx.controller_name("c"));
    let of_decorator = format!("metacontroller.io/decoratorcontroller-{}", scene.ctx.controller_name("d"));
    let has = async |wanted: &[&str]| {
        let ask = async || {
            let thing = scene.ctx.admin.get(&scene.things, "p").await?;
            let finalizers = thing["metadata"]["finalizers"].as_array().context("no finalizers")?;
            let mut finalizers: Vec<&str> = finalizers.iter().filter_map(Value::as_str).collect();
            finalizers.sort_unstable();
            ensure!(finalizers == wanted, "{finalizers:?}");
            Ok(())
        };
        scene.ctx.wait(&format!("the finalizers are {wanted:?}"), SOON, ask).await
    };
    has(&["example.com/other", of_composite.as_str(), of_decorator.as_str()]).await?;
    scene.quiet().await?;
    let without = json!({ "spec": { "hooks": { "finalize": null } } });
    scene.ctx.admin.patch_merge(&composites(), &scene.ctx.controller_name("c"), &without).await?;
    has(&["example.com/other", of_decorator.as_str()]).await?;
    scene.ctx.admin.patch_merge(&decorators(), &scene.ctx.controller_name("d"), &without).await?;
    has(&["example.com/other"]).await?;
    let calls = scene.hook.calls();
    ensure!(calls.iter().all(|call| call.path == "/sync"), "the finalize hook was called");
    // Each finalizer was there before the hook was called for the first time.
    let first = |field: &str| calls.iter().find(|call| call.request[field].is_object()).context("no call");
    for (field, finalizer) in [("parent", &of_composite), ("object", &of_decorator)] {
        let seen = &first(field)?.request[field]["metadata"]["finalizers"];
        ensure!(seen.as_array().is_some_and(|all| all.iter().any(|name| name == finalizer.as_str())), "{seen}");
    }
    Ok(())
}

async fn unselected(ctx: Context, strategy: Strategy) -> anyhow::Result<()> {
    let scene = scene(ctx, Scope::Namespaced, strategy).await?;
    scene.hook.set(last);
    let mut spec = scene.spec("InPlace");
    spec["parentResource"]["labelSelector"] = json!({ "matchLabels": { "tier": "gold" } });
    spec["hooks"]["finalize"] = json!({ "webhook": { "url": scene.hook.url("/finalize") } });
    declare(&scene, &composites(), "c", spec).await?;
    let finalizer = format!("metacontroller.io/compositecontroller-{}", scene.ctx.controller_name("c"));
    let reply = json!({ "children": [config_map("a", json!({ "x": "1" }))] });
    let metadata = json!({ "name": "p", "labels": { "tier": "gold" } });
    scene.ctx.admin.create(&scene.things, json!({ "metadata": metadata, "spec": { "reply": reply } })).await?;
    scene.map("a", "is made", |_| Ok(())).await?;
    scene.quiet().await?;
    let thing = scene.ctx.admin.get(&scene.things, "p").await?;
    ensure!(thing["metadata"]["finalizers"] == json!([finalizer]), "{thing}");
    scene.ctx.admin.patch_merge(&scene.things, "p", &json!({ "metadata": { "labels": null } })).await?;
    let ask = async || {
        let thing = scene.ctx.admin.get(&scene.things, "p").await?;
        ensure!(thing["metadata"]["finalizers"].is_null(), "{thing}");
        Ok(thing)
    };
    let left = scene.ctx.wait("it is finalized", SOON, ask).await?;
    ensure!(left["metadata"]["deletionTimestamp"].is_null() && left["status"]["phase"] == "going", "{left}");
    scene.no_map("a", SOON).await?;
    scene.no_call("it is none of the controller's any more").await?;
    // The owner's deletion, for one that is selected: the parent waits until the hook is done.
    let metadata = json!({ "name": "q", "labels": { "tier": "gold" } });
    let reply = json!({ "children": [config_map("b", json!({ "x": "1" }))] });
    scene.ctx.admin.create(&scene.things, json!({ "metadata": metadata, "spec": { "reply": reply } })).await?;
    scene.map("b", "is made", |_| Ok(())).await?;
    scene.ctx.admin.delete(&scene.things, "q").await?;
    let ask = async || {
        ensure!(scene.ctx.admin.find(&scene.things, "q").await?.is_none(), "it is there");
        Ok(())
    };
    scene.ctx.wait("the parent goes", LATER, ask).await?;
    ensure!(scene.ctx.admin.find(&scene.maps, "b").await?.is_none(), "its child was to go first");
    Ok(())
}

async fn without_hook(ctx: Context, strategy: Strategy) -> anyhow::Result<()> {
    let scene = scene(ctx, Scope::Namespaced, strategy).await?;
    declare(&scene, &composites(), "c", scene.spec("InPlace")).await?;
    let reply = json!({ "children": [config_map("a", json!({ "x": "1" })), config_map("b", json!({ "x": "1" }))] });
    let metadata = json!({ "name": "p", "finalizers": ["example.com/hold"] });
    scene.ctx.admin.create(&scene.things, json!({ "metadata": metadata, "spec": { "reply": reply } })).await?;
    scene.map("a", "is made", |_| Ok(())).await?;
    scene.map("b", "is made", |_| Ok(())).await?;
    scene.quiet().await?;
    let before = [scene.ctx.admin.get(&scene.maps, "a").await?, scene.ctx.admin.get(&scene.maps, "b").await?];
    // One child less, one that is changed, one more: the parent is going, so only its status is written.
    scene.hook.set(|request, info| match &request["parent"]["metadata"]["deletionTimestamp"] {
        Value::Null => obey(request, info),
        _ => {
            let children = [config_map("a", json!({ "x": "2" })), config_map("c", json!({}))];
            Reply::json(&json!({ "status": { "going": true }, "children": children }))
        }
    });
    scene.ctx.admin.delete(&scene.things, "p").await?;
    let ask = async || {
        let thing = scene.ctx.admin.get(&scene.things, "p").await?;
        ensure!(thing["status"]["going"] == true, "{}", thing["status"]);
        Ok(())
    };
    scene.ctx.wait("the status is written", SOON, ask).await?;
    let same = async || {
        for map in &before {
            let now = scene.ctx.admin.get(&scene.maps, map["metadata"]["name"].as_str().unwrap_or_default()).await?;
            ensure!(now["metadata"]["resourceVersion"] == map["metadata"]["resourceVersion"], "{now}");
        }
        ensure!(scene.ctx.admin.find(&scene.maps, "c").await?.is_none(), "c was made");
        Ok(())
    };
    wait::stays("no child changes", NEVER, same).await?;
    let free = json!({ "metadata": { "finalizers": null } });
    scene.ctx.admin.patch_merge(&scene.things, "p", &free).await?;
    scene.no_map("a", LATER).await
}

/// A composite with a finalize hook, and what it was declared as.
async fn finalizing(scene: &Scene) -> anyhow::Result<Value> {
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["finalize"] = json!({ "webhook": { "url": scene.hook.url("/finalize") } });
    declare(scene, &composites(), "c", spec.clone()).await?;
    Ok(spec)
}

async fn guarded(scene: &Scene, name: &str) -> anyhow::Result<()> {
    let ask = async || {
        let thing = scene.ctx.admin.get(&scene.things, name).await?;
        ensure!(thing["metadata"]["finalizers"].is_array(), "{thing}");
        Ok(())
    };
    scene.ctx.wait(&format!("{name} has the finalizer"), SOON, ask).await
}

/// Its successor has the same finalizer, so a parent that waits for its hook goes on waiting.
async fn made_again(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|request, info| {
        let done = &request["parent"]["spec"]["done"];
        let is_last = info.path == "/finalize";
        if is_last { Reply::json(&json!({ "finalized": done == true })) } else { Reply::json(&json!({})) }
    });
    let spec = finalizing(&scene).await?;
    scene.thing("p", json!({})).await?;
    guarded(&scene, "p").await?;
    scene.quiet().await?;
    scene.ctx.admin.delete(&scene.things, "p").await?;
    let last = |calls: &[crate::hook::Call]| calls.iter().filter(|call| call.path == "/finalize").count();
    let ask = async || {
        ensure!(last(&scene.hook.calls()) > 0, "no call");
        Ok(())
    };
    scene.ctx.wait("its end is asked for", SOON, ask).await?;
    scene.ctx.admin.delete(&composites(), &scene.ctx.controller_name("c")).await?;
    let again = declare(&scene, &composites(), "c", spec).await?;
    scene.event(&again, "Started", &[]).await?;
    let kept = async || scene.ctx.admin.get(&scene.things, "p").await.map(drop);
    wait::stays("the parent waits for its hook", NEVER, kept).await?;
    scene.ctx.admin.patch_merge(&scene.things, "p", &json!({ "spec": { "done": true } })).await?;
    let ask = async || {
        ensure!(scene.ctx.admin.find(&scene.things, "p").await?.is_none(), "it is there");
        Ok(())
    };
    scene.ctx.wait("the parent goes", LATER, ask).await
}

/// While a call holds its end up, it is changed, and then deleted.
async fn edited_and_deleted(ctx: Context) -> anyhow::Result<()> {
    const LONG: Duration = Duration::from_secs(4);
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|request, _| {
        let reply = Reply::json(&json!({}));
        if request["parent"]["spec"]["slow"] == true { reply.delay(LONG) } else { reply }
    });
    finalizing(&scene).await?;
    for name in ["p", "q"] {
        scene.thing(name, json!({})).await?;
        guarded(&scene, name).await?;
    }
    scene.quiet().await?;
    let before = scene.hook.count();
    scene.ctx.admin.patch_merge(&scene.things, "p", &json!({ "spec": { "slow": true } })).await?;
    let ask = async || {
        ensure!(scene.hook.count() > before, "no call");
        Ok(())
    };
    scene.ctx.wait("a long call runs", SOON, ask).await?;
    let name = scene.ctx.controller_name("c");
    let edit = json!({ "spec": { "resyncPeriodSeconds": 3600 } });
    scene.ctx.admin.patch_merge(&composites(), &name, &edit).await?;
    scene.ctx.admin.delete(&composites(), &name).await?;
    for name in ["p", "q"] {
        let ask = async || {
            let thing = scene.ctx.admin.get(&scene.things, name).await?;
            ensure!(thing["metadata"]["finalizers"].is_null(), "{thing}");
            Ok(())
        };
        scene.ctx.wait(&format!("{name} has no finalizer any more"), LATER, ask).await?;
    }
    ensure!(scene.hook.calls().iter().all(|call| call.path == "/sync"), "the finalize hook was called");
    Ok(())
}
