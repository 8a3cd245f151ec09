//! The finalize hook: when it is called, what it may do, and the finalizer that keeps a parent until it is done.
//!
//! Never about which member calls it: see the trials of members.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::faults_hook::well;
use crate::cluster::Context;
use crate::hook::{CallInfo, Hook, Reply};
use crate::objects::Resource;
use crate::scrape::{Scrape, free_port};
use crate::suites::scene::{LATER, SOON, Scene, config_map};
use crate::trial::Case;

/// Parents in a namespace that goes.
const DOOMED: usize = 5;
/// How long its end may take: its controller looks again and again at what finalizers hold, in ever longer steps.
const GONE: Duration = Duration::from_secs(120);
/// For the trial that waits for that.
const SLOW: Duration = Duration::from_secs(300);
/// Most calls for one of them.
const CALLS: usize = 20;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("finalize", "a_parent_stays_until_the_hook_is_done", done_in_steps),
        Case::new("finalize", "a_parent_that_is_not_selected_any_more", not_selected),
        Case::new("finalize", "children_of_a_foreground_deletion_are_left_alone", foreground),
        Case::new("finalize", "a_hook_that_is_not_declared_any_more", hook_removed),
        Case::new("finalize", "a_hook_that_fails_keeps_the_parent", fails),
        Case::new("finalize", "a_failure_is_forgotten_with_its_parent", forgotten),
        Case::new("finalize", "a_controller_that_is_deleted", controller_deleted),
        Case::new("finalize", "a_namespace_that_is_deleted", namespace_deleted).timeout(SLOW),
        Case::new("finalize", "a_hook_elsewhere_that_is_slower_than_its_parents_go", crowded),
    ]
}

/// While it is finalized, a parent gets what its `spec.final` says, by a list: one for each number of children.
fn obey(request: &Value, info: &CallInfo) -> Reply {
    let spec = &request["parent"]["spec"];
    if info.path != "/finalize" {
        return if request["finalizing"] == false { Reply::json(&spec["reply"]) } else { Reply::status(500) };
    }
    if request["finalizing"] != true {
        return Reply::status(500);
    }
    let children = request["children"]["ConfigMap.v1"].as_object().map_or(0, serde_json::Map::len);
    match &spec["final"][children] {
        Value::Null => Reply::status(500),
        reply => Reply::json(reply),
    }
}

fn spec(scene: &Scene) -> Value {
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["finalize"] = json!({ "webhook": { "url": scene.hook.url("/finalize") } });
    spec
}

/// A scene with a controller that has a finalize hook.
async fn scene(ctx: Context, change: impl FnOnce(&mut Value)) -> anyhow::Result<Scene> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(obey);
    let mut spec = spec(&scene);
    change(&mut spec);
    scene.ctx.controller("c", spec).await?;
    Ok(scene)
}

fn finalizer(scene: &Scene) -> String {
    format!("ringmaster.dev/compositecontroller-{}", scene.ctx.controller_name("c"))
}

/// A parent `p` with the child `a`, which says what becomes of it at the end.
async fn parent(scene: &Scene, labels: Value, last: Value) -> anyhow::Result<Value> {
    let spec = json!({ "reply": { "children": [config_map("a", json!({ "x": "1" }))] }, "final": last });
    let metadata = json!({ "name": "p", "labels": labels, "finalizers": ["example.com/other"] });
    scene.ctx.admin.create(&scene.things, json!({ "metadata": metadata, "spec": spec })).await?;
    scene.map("a", "is there", |_| Ok(())).await?;
    scene.quiet().await?;
    let parent = scene.ctx.admin.get(&scene.things, "p").await?;
    ensure!(parent["metadata"]["finalizers"] == json!(["example.com/other", finalizer(scene)]), "{parent}");
    // Before anything could be made for it.
    let first = &scene.hook.calls_for(&scene.key("p"))[0].request["parent"]["metadata"]["finalizers"];
    ensure!(first[1] == *finalizer(scene), "{first}");
    Ok(parent)
}

/// Waits until only the other finalizer is left; answers with the parent.
async fn finalized(scene: &Scene) -> anyhow::Result<Value> {
    let ask = async || {
        let parent = scene.ctx.admin.get(&scene.things, "p").await?;
        ensure!(parent["metadata"]["finalizers"] == json!(["example.com/other"]), "{parent}");
        Ok(parent)
    };
    scene.ctx.wait("our finalizer is gone", SOON, ask).await
}

fn calls(scene: &Scene, path: &str) -> usize {
    scene.hook.calls_for(&scene.key("p")).iter().filter(|call| call.path == path).count()
}

async fn done_in_steps(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx, |_| ()).await?;
    // First the child goes, then the parent may.
    let last = json!([
        { "status": { "phase": "gone" }, "children": [], "finalized": true },
        { "status": { "phase": "going" }, "children": [] },
    ]);
    parent(&scene, json!({}), last).await?;
    let before = calls(&scene, "/sync");
    scene.ctx.admin.delete(&scene.things, "p").await?;
    let left = finalized(&scene).await?;
    ensure!(left["status"]["phase"] == "gone", "{left}");
    ensure!(scene.ctx.admin.find(&scene.maps, "a").await?.is_none(), "the child is there");
    scene.quiet().await?;
    ensure!(calls(&scene, "/finalize") >= 2, "{} calls", calls(&scene, "/finalize"));
    // Its other finalizer keeps it: a change is the finalize hook's too, without a child to be made.
    let (finals, last) = (calls(&scene, "/finalize"), json!([{ "children": [config_map("a", json!({ "x": "3" }))] }]));
    scene.ctx.admin.patch_merge(&scene.things, "p", &json!({ "spec": { "final": last } })).await?;
    let ask = async || {
        ensure!(calls(&scene, "/finalize") > finals, "not called");
        Ok(())
    };
    scene.ctx.wait("the change is told", SOON, ask).await?;
    scene.quiet().await?;
    ensure!(calls(&scene, "/sync") == before, "the sync hook was called");
    let others = json!({ "metadata": { "finalizers": null } });
    scene.ctx.admin.patch_merge(&scene.things, "p", &others).await?;
    let ask = async || {
        ensure!(scene.ctx.admin.find(&scene.things, "p").await?.is_none(), "it is there");
        Ok(())
    };
    scene.ctx.wait("the parent goes", LATER, ask).await?;
    ensure!(scene.ctx.admin.find(&scene.maps, "a").await?.is_none(), "the child was made again");
    Ok(())
}

/// The queue keeps room for calls where the sync hook is, and not elsewhere: who finds too many there comes again after
/// growing pauses, until all have gone.
async fn crowded(ctx: Context) -> anyhow::Result<()> {
    const PARENTS: usize = 100;
    const WORK: Duration = Duration::from_millis(500);
    let address = format!("127.0.0.1:{}", free_port()?);
    let scene = Scene::with_args(ctx, &[format!("--metrics-address={address}")]).await?;
    let slow = Hook::start(|_, _| Reply::json(&json!({ "children": [], "finalized": true })).delay(WORK))?;
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["finalize"] = json!({ "webhook": { "url": slow.url("/finalize") } });
    scene.ctx.controller("c", spec).await?;
    for number in 0..PARENTS {
        scene.thing(&format!("p{number}"), json!({})).await?;
    }
    let synced = async || {
        let things = scene.ctx.admin.list(&scene.things, "").await?;
        let synced = things.iter().filter(|thing| thing["status"]["observedGeneration"] == 1).count();
        ensure!(synced == PARENTS, "{synced} of {PARENTS}");
        Ok(())
    };
    scene.ctx.wait("all are synced", LATER, synced).await?;
    scene.quiet().await?;
    let syncs = || -> anyhow::Result<[f64; 2]> {
        let scrape = Scrape::of(&format!("http://{address}/metrics"))?;
        let ended = |result| scrape.sum("controller_runtime_reconcile_total", &[("result", result)]);
        Ok(["requeue_after", "error"].map(ended))
    };
    let before = syncs()?;
    scene.ctx.admin.delete_all(&scene.things, "").await?;
    let gone = async || {
        let left = scene.ctx.admin.list(&scene.things, "").await?.len();
        ensure!(left == 0, "{left} are there");
        Ok(())
    };
    scene.ctx.wait("all are gone", LATER, gone).await?;
    let after = syncs()?;
    let [polls, failures] = [after[0] - before[0], after[1] - before[1]];
    println!("finalize: {PARENTS} parents went, {} calls, {failures} syncs found too many waiting", slow.count());
    ensure!(polls == 0.0, "{polls} syncs came again without a growing pause");
    ensure!(failures >= 1.0 && failures <= 10.0 * PARENTS as f64, "{failures} syncs found too many waiting");
    Ok(())
}

async fn not_selected(ctx: Context) -> anyhow::Result<()> {
    let gold = json!({ "matchLabels": { "tier": "gold" } });
    let scene = scene(ctx, |spec| spec["parentResource"]["labelSelector"] = gold).await?;
    let keep = json!([null, { "children": [config_map("a", json!({ "x": "last" }))], "finalized": true }]);
    let made = parent(&scene, json!({ "tier": "gold" }), keep).await?;
    let tier = |value: Value| json!({ "metadata": { "labels": { "tier": value } } });
    scene.ctx.admin.patch_merge(&scene.things, "p", &tier(Value::Null)).await?;
    finalized(&scene).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "last" && map["metadata"]["ownerReferences"][0]["uid"] == made["metadata"]["uid"]);
        Ok(())
    };
    scene.map("a", "is as the finalize hook left it", check).await?;
    scene.no_call("it is none of the controller's any more").await?;
    // It comes back.
    scene.ctx.admin.patch_merge(&scene.things, "p", &tier("gold".into())).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "1", "{map}");
        Ok(())
    };
    scene.map("a", "is synced again", check).await.map(drop)
}

async fn foreground(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx, |_| ()).await?;
    let last =
        json!([{ "finalized": true }, { "children": [config_map("a", json!({ "x": "2" }))], "finalized": false }]);
    parent(&scene, json!({}), last).await?;
    // Another keeps the child, so that the garbage collector isn't done with it at once.
    let held = json!({ "metadata": { "finalizers": ["example.com/held"] } });
    scene.ctx.admin.patch_merge(&scene.maps, "a", &held).await?;
    scene.quiet().await?;
    scene.ctx.admin.delete_with(&scene.things, "p", &json!({ "propagationPolicy": "Foreground" })).await?;
    let ask = async || {
        ensure!(calls(&scene, "/finalize") > 0, "not called");
        let child = scene.ctx.admin.get(&scene.maps, "a").await?;
        ensure!(child["metadata"]["deletionTimestamp"].is_string(), "{child}");
        Ok(child)
    };
    // The garbage collector looks for new kinds each half minute.
    let child = scene.ctx.wait("it is finalized, and the child goes", LATER, ask).await?;
    ensure!(child["data"]["x"] == "1", "{child}");
    let free = json!({ "metadata": { "finalizers": null } });
    scene.ctx.admin.patch_merge(&scene.maps, "a", &free).await?;
    let ask = async || {
        let parent = scene.ctx.admin.get(&scene.things, "p").await?;
        ensure!(!parent["metadata"]["finalizers"].to_string().contains(&finalizer(&scene)), "{parent}");
        Ok(())
    };
    scene.ctx.wait("our finalizer is gone", SOON, ask).await
}

async fn hook_removed(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx, |_| ()).await?;
    parent(&scene, json!({}), json!([])).await?;
    let patch = json!({ "spec": { "hooks": { "finalize": null } } });
    scene.ctx.admin.patch_merge(&Context::controllers(), &scene.ctx.controller_name("c"), &patch).await?;
    finalized(&scene).await?;
    ensure!(calls(&scene, "/finalize") == 0, "it was called");
    let check = |_: &Value| Ok(());
    scene.map("a", "is still there", check).await.map(drop)
}

async fn fails(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx, |_| ()).await?;
    // Nothing that it could be answered with.
    let parent = parent(&scene, json!({}), json!([{ "finalized": true }])).await?;
    scene.ctx.admin.delete(&scene.things, "p").await?;
    scene.event(&parent, "SyncError", &["/finalize", "500"]).await?;
    let kept = scene.ctx.admin.get(&scene.things, "p").await?;
    ensure!(kept["metadata"]["finalizers"][1] == *finalizer(&scene), "{kept}");
    scene.map("a", "is still there", |_| Ok(())).await?;
    let last = json!({ "spec": { "final": [{ "finalized": true }, { "finalized": true }] } });
    scene.ctx.admin.patch_merge(&scene.things, "p", &last).await?;
    finalized(&scene).await.map(drop)
}

async fn forgotten(ctx: Context) -> anyhow::Result<()> {
    let gold = json!({ "matchLabels": { "tier": "gold" } });
    let scene = scene(ctx, |spec| spec["parentResource"]["labelSelector"] = gold).await?;
    // Nothing that it could be answered with.
    parent(&scene, json!({ "tier": "gold" }), json!([])).await?;
    let tier = |value: Value| json!({ "metadata": { "labels": { "tier": value } } });
    scene.ctx.admin.patch_merge(&scene.things, "p", &tier(Value::Null)).await?;
    let message = scene.condition("c", ["HookReachable", "False", "BadCode"]).await?;
    ensure!(message.contains("/finalize"), "{message}");
    // As it does for the only parent that there is.
    scene.condition("c", ["Ready", "False", "SyncsFailing"]).await?;
    // It is synced again, without that hook.
    scene.ctx.admin.patch_merge(&scene.things, "p", &tier("gold".into())).await?;
    scene.condition("c", ["HookReachable", "True", "Answered"]).await?;
    scene.condition("c", ["Ready", "True", "Running"]).await?;
    // Somebody takes it from the hook, which never gave leave.
    scene.ctx.admin.delete(&scene.things, "p").await?;
    scene.condition("c", ["HookReachable", "False", "BadCode"]).await?;
    scene.ctx.admin.patch_merge(&scene.things, "p", &json!({ "metadata": { "finalizers": null } })).await?;
    scene.condition("c", ["HookReachable", "True", "Answered"]).await?;
    scene.condition("c", ["Ready", "True", "Running"]).await?;
    scene.ringmaster.check()
}

async fn controller_deleted(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx, |spec| spec["sharding"] = json!({})).await?;
    parent(&scene, json!({}), json!([])).await?;
    for number in 0..20 {
        scene.thing(&format!("q-{number}"), json!({})).await?;
    }
    scene.quiet().await?;
    scene.ctx.admin.delete(&Context::controllers(), &scene.ctx.controller_name("c")).await?;
    finalized(&scene).await?;
    let ask = async || {
        for thing in scene.ctx.admin.list(&scene.things, "").await? {
            ensure!(!thing["metadata"]["finalizers"].to_string().contains("ringmaster"), "{thing}");
        }
        Ok(())
    };
    scene.ctx.wait("no parent keeps the finalizer", SOON, ask).await?;
    ensure!(calls(&scene, "/finalize") == 0, "it was called");
    scene.map("a", "is still there", |_| Ok(())).await.map(drop)
}

async fn namespace_deleted(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx, |_| ()).await?;
    parent(&scene, json!({}), json!([])).await?;
    let kept = scene.ctx.admin.get(&scene.maps, "a").await?;
    let doomed = format!("{}-doomed", scene.ctx.namespace);
    let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
    let body = json!({ "metadata": { "name": doomed, "labels": { "suite": scene.ctx.id } } });
    scene.ctx.admin.create(&namespaces, body).await?;
    let (things, maps) = (scene.things.in_namespace(Some(&doomed)), scene.maps.in_namespace(Some(&doomed)));
    // First the child, as in order; whoever deletes it.
    let last = json!([{ "children": [], "finalized": true }, { "children": [] }]);
    for number in 0..DOOMED {
        let reply = json!({ "children": [config_map(&format!("a{number}"), json!({ "x": "1" }))] });
        let body = json!({ "metadata": { "name": format!("p{number}") }, "spec": { "reply": reply, "final": last } });
        scene.ctx.admin.create(&things, body).await?;
    }
    for number in 0..DOOMED {
        let ask = async || scene.ctx.admin.get(&maps, &format!("a{number}")).await;
        scene.ctx.wait(&format!("ConfigMap a{number} is there"), SOON, ask).await?;
    }
    scene.quiet().await?;
    scene.ctx.admin.delete(&namespaces, &doomed).await?;
    let ask = async || {
        let namespace = scene.ctx.admin.find(&namespaces, &doomed).await?;
        ensure!(namespace.is_none(), "{}", namespace.unwrap_or_default()["status"]);
        Ok(())
    };
    scene.ctx.wait("the namespace is gone", GONE, ask).await?;
    for number in 0..DOOMED {
        let calls = scene.hook.calls_for(&format!("{doomed}/p{number}"));
        ensure!(calls.len() <= CALLS, "{} calls: it is no hot loop", calls.len());
        for call in &calls {
            let goes = call.request["parent"]["metadata"]["deletionTimestamp"].is_string();
            ensure!(goes == (call.path == "/finalize"), "{} for {}", call.path, call.request["parent"]["metadata"]);
        }
        // What let it go: an answer to a request that showed no child.
        let end = calls.last().context("no call")?;
        let children = end.request["children"]["ConfigMap.v1"].as_object().map_or(0, serde_json::Map::len);
        ensure!(end.path == "/finalize" && end.status == Some(200) && children == 0, "{}", end.request);
    }
    let now = scene.ctx.admin.get(&scene.maps, "a").await?;
    ensure!(now["metadata"]["resourceVersion"] == kept["metadata"]["resourceVersion"], "{now}");
    well(&scene.ctx, "c").await
}
