//! Children: made, updated by each method, repaired, made again and removed, as the hook wants them.
//!
//! Never about who owns what (`children_claim`) or when a parent is synced (`children_when`).

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::scene::{LATER, NEVER, SOON, Scene, config_map, obey, spec};
use crate::cluster::{Context, Scope};
use crate::hook::Hook;
use crate::objects::{Resource, code};
use crate::scrape::{Scrape, free_port};
use crate::trial::Case;
use crate::wait;

/// How long the hook takes in the trial of a child that is written more often than that.
const SLOW_REPLY: Duration = Duration::from_millis(200);
/// Writes after which that child isn't wanted any more.
const BEATS: usize = 50;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("children", "are_owned_and_labelled", are_owned_and_labelled),
        Case::new("children", "in_place_repairs_and_keeps_foreign_fields", in_place_repairs),
        Case::new("children", "in_place_changes_and_removes_fields", in_place_changes),
        Case::new("children", "recreate_makes_anew", recreate),
        Case::new("children", "on_delete_waits", on_delete),
        Case::new("children", "unwanted_goes_and_deleted_comes_back", unwanted_and_deleted),
        Case::new("children", "unwanted_goes_while_it_is_written", unwanted_while_written),
        Case::new("children", "of_cluster_scoped_parents", of_cluster_scoped_parents),
        Case::new("children", "stay_while_the_parent_is_deleted", stay_while_the_parent_is_deleted),
        Case::new("children", "go_with_the_parent", go_with_the_parent),
        Case::new("children", "of_two_controllers", of_two_controllers),
        Case::new("children", "are_parents_too_by_one_watch", parents_too),
    ]
}

fn data(map: &Value, wanted: &Value) -> anyhow::Result<()> {
    ensure!(map["data"] == *wanted, "data is {}", map["data"]);
    Ok(())
}

async fn are_owned_and_labelled(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let reply = json!({ "status": { "colour": "red" }, "children": [config_map("a", json!({ "k": "v" }))] });
    let thing = scene.thing("p", reply).await?;
    let map = scene.map("a", "is there", |_| Ok(())).await?;
    let uid = &thing["metadata"]["uid"];
    ensure!(map["metadata"]["labels"]["controller-uid"] == *uid, "{map}");
    let wanted = json!([{
        "apiVersion": scene.things.api_version, "kind": "Thing", "name": "p", "uid": uid,
        "controller": true, "blockOwnerDeletion": true,
    }]);
    ensure!(map["metadata"]["ownerReferences"] == wanted, "{map}");
    let synced = scene.synced("p").await?;
    ensure!(synced["status"] == json!({ "colour": "red", "observedGeneration": 1 }), "{}", synced["status"]);
    // The next request shows the child under its kind and its name.
    scene.called("p", 2).await?;
    let calls = scene.hook.calls_for(&scene.key("p"));
    let first = &calls[0].request;
    ensure!(first["children"] == json!({ "ConfigMap.v1": {} }) && first["finalizing"] == false, "{first}");
    let key = format!("{}/a", scene.ctx.namespace);
    let seen = &calls[1].request["children"]["ConfigMap.v1"][&key];
    ensure!(seen["metadata"]["uid"] == map["metadata"]["uid"], "{}", calls[1].request);
    Ok(())
}

async fn in_place_repairs(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let mut child = config_map("a", json!({ "x": "1" }));
    child["metadata"]["labels"] = json!({ "ours": "1" });
    scene.thing("p", json!({ "children": [child] })).await?;
    let made = scene.map("a", "is there", |map| data(map, &json!({ "x": "1" }))).await?;
    let drift = json!({
        "metadata": { "labels": { "ours": "2", "theirs": "2" }, "annotations": { "theirs": "2" } },
        "data": { "x": "2", "y": "2" },
    });
    scene.ctx.admin.patch_merge(&scene.maps, "a", &drift).await?;
    let repaired = |map: &Value| {
        let metadata = &map["metadata"];
        ensure!(metadata["labels"]["ours"] == "1", "labels are {}", metadata["labels"]);
        data(map, &json!({ "x": "1", "y": "2" }))
    };
    let map = scene.map("a", "is repaired", repaired).await?;
    let metadata = &map["metadata"];
    ensure!(metadata["labels"]["theirs"] == "2" && metadata["annotations"]["theirs"] == "2", "{map}");
    ensure!(metadata["uid"] == made["metadata"]["uid"], "{map}");
    // What is removed comes back too.
    scene.ctx.admin.patch_merge(&scene.maps, "a", &json!({ "data": { "x": null } })).await?;
    scene.map("a", "is repaired again", repaired).await?;
    // And that is all: nobody fights.
    scene.quiet().await?;
    let version = scene.ctx.admin.get(&scene.maps, "a").await?["metadata"]["resourceVersion"].clone();
    wait::stays("the repaired ConfigMap is left alone", NEVER, async || {
        let map = scene.ctx.admin.get(&scene.maps, "a").await?;
        ensure!(map["metadata"]["resourceVersion"] == version, "{map}");
        Ok(())
    })
    .await
}

async fn in_place_changes(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    scene.thing("p", json!({ "children": [config_map("a", json!({ "x": "1", "y": "1" }))] })).await?;
    let made = scene.map("a", "is there", |map| data(map, &json!({ "x": "1", "y": "1" }))).await?;
    scene.ctx.admin.patch_merge(&scene.maps, "a", &json!({ "data": { "z": "theirs" } })).await?;
    scene.wants("p", json!({ "children": [config_map("a", json!({ "x": "2", "w": "2" }))] })).await?;
    let wanted = json!({ "x": "2", "w": "2", "z": "theirs" });
    let map = scene.map("a", "has the new fields, not the dropped one", |map| data(map, &wanted)).await?;
    ensure!(map["metadata"]["uid"] == made["metadata"]["uid"], "{map}");
    Ok(())
}

async fn recreate(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("Recreate")).await?;
    let children = |x: &str| json!({ "children": [config_map("a", json!({ "x": x })), config_map("b", json!({}))] });
    scene.thing("p", children("1")).await?;
    let made = scene.map("a", "is there", |map| data(map, &json!({ "x": "1" }))).await?;
    let other = scene.map("b", "is there", |_| Ok(())).await?;
    scene.wants("p", children("2")).await?;
    let map = scene.map("a", "has the new data", |map| data(map, &json!({ "x": "2" }))).await?;
    ensure!(map["metadata"]["uid"] != made["metadata"]["uid"], "it was updated, not made anew: {map}");
    scene.quiet().await?;
    let same = scene.ctx.admin.get(&scene.maps, "b").await?;
    ensure!(same["metadata"]["resourceVersion"] == other["metadata"]["resourceVersion"], "b didn't differ: {same}");
    let last = scene.ctx.admin.get(&scene.maps, "a").await?;
    ensure!(last["metadata"]["uid"] == map["metadata"]["uid"], "it is made anew again and again: {last}");
    Ok(())
}

async fn on_delete(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let mut spec = scene.spec("OnDelete");
    // It is the default.
    spec["childResources"] = json!([{ "apiVersion": "v1", "resource": "configmaps" }]);
    scene.ctx.controller("c", spec).await?;
    scene.thing("p", json!({ "children": [config_map("a", json!({ "x": "1" }))] })).await?;
    let made = scene.map("a", "is there", |map| data(map, &json!({ "x": "1" }))).await?;
    scene.wants("p", json!({ "children": [config_map("a", json!({ "x": "2" }))] })).await?;
    scene.synced("p").await?;
    scene.quiet().await?;
    let kept = scene.ctx.admin.get(&scene.maps, "a").await?;
    ensure!(kept["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"], "{kept}");
    ensure!(scene.ctx.admin.delete(&scene.maps, "a").await?);
    scene.map("a", "is made anew", |map| data(map, &json!({ "x": "2" }))).await.map(drop)
}

async fn unwanted_and_deleted(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let both = json!([config_map("a", json!({ "x": "1" })), config_map("b", json!({ "x": "1" }))]);
    scene.thing("p", json!({ "children": both })).await?;
    let a = scene.map("a", "is there", |_| Ok(())).await?;
    scene.map("b", "is there", |_| Ok(())).await?;
    scene.wants("p", json!({ "children": [both[0]] })).await?;
    scene.no_map("b", LATER).await?;
    ensure!(scene.ctx.admin.delete(&scene.maps, "a").await?);
    let again = scene.map("a", "comes back", |map| data(map, &json!({ "x": "1" }))).await?;
    ensure!(again["metadata"]["uid"] != a["metadata"]["uid"], "{again}");
    // None at all is a wish like any other.
    scene.wants("p", json!({ "children": null, "status": { "none": true } })).await?;
    scene.no_map("a", LATER).await
}

/// Somebody who writes a ConfigMap as fast as can be, until it is gone or this is dropped.
struct Heartbeat {
    beats: Arc<AtomicUsize>,
    task: JoinHandle<()>,
}

impl Heartbeat {
    fn start(scene: &Scene, name: &'static str) -> Self {
        let (admin, maps, beats) = (scene.ctx.admin.clone(), scene.maps.clone(), Arc::new(AtomicUsize::new(0)));
        let count = Arc::clone(&beats);
        let task = tokio::spawn(async move {
            loop {
                let beat = count.load(Ordering::Relaxed).to_string();
                let patch = json!({ "metadata": { "annotations": { "beat": beat } } });
                match admin.patch_merge(&maps, name, &patch).await {
                    Ok(_) => {
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                    Err(error) if code(&error) == Some(404) => return,
                    // One that fails is followed by the next.
                    Err(_) => {}
                }
            }
        });
        Self { beats, task }
    }
}

impl Drop for Heartbeat {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn unwanted_while_written(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    // Whatever it saw of the child is old once it has answered.
    scene.hook.set(|request, info| obey(request, info).delay(SLOW_REPLY));
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let both = json!([config_map("a", json!({ "x": "1" })), config_map("b", json!({ "x": "1" }))]);
    scene.thing("p", json!({ "children": both })).await?;
    let kept = scene.map("a", "is there", |_| Ok(())).await?;
    scene.map("b", "is there", |_| Ok(())).await?;
    let heart = Heartbeat::start(&scene, "b");
    let ask = async || {
        let beats = heart.beats.load(Ordering::Relaxed);
        ensure!(beats >= BEATS, "{beats} beats");
        Ok(())
    };
    scene.ctx.wait("b is written all the time", SOON, ask).await?;
    scene.wants("p", json!({ "children": [both[0]] })).await?;
    scene.no_map("b", LATER).await?;
    scene.quiet().await?;
    let left = scene.ctx.admin.get(&scene.maps, "a").await?;
    ensure!(left["metadata"]["uid"] == kept["metadata"]["uid"], "{left}");
    let requests = scene.ctx.all_requests()?.into_iter();
    let deletes: Vec<_> =
        requests.filter(|request| request.verb.starts_with("delete") && request.resource == "configmaps").collect();
    ensure!(deletes.iter().all(|delete| delete.name == "b"), "{deletes:?}");
    let count = |code: u16| deletes.iter().filter(|delete| delete.code == code).count();
    ensure!(count(200) == 1 && count(409) > 0, "{deletes:?}");
    Ok(())
}

async fn of_cluster_scoped_parents(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::with(ctx, Scope::Cluster).await?;
    let other = format!("{}-b", scene.ctx.namespace);
    let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
    let body = json!({ "metadata": { "name": other, "labels": { "suite": scene.ctx.id } } });
    scene.ctx.admin.create(&namespaces, body).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let child = |namespace: &str, x: &str| {
        let mut map = config_map("a", json!({ "x": x }));
        map["metadata"]["namespace"] = namespace.into();
        map
    };
    let home = scene.ctx.namespace.clone();
    scene.thing("p", json!({ "children": [child(&home, "1"), child(&other, "1")] })).await?;
    let there = scene.maps.in_namespace(Some(&other));
    let has = async |maps: &Resource, x: &str| {
        let what = format!("a in {:?} has {x}", maps.namespace);
        let ask = async || data(&scene.ctx.admin.get(maps, "a").await?, &json!({ "x": x }));
        scene.ctx.wait(&what, LATER, ask).await
    };
    has(&scene.maps, "1").await?;
    has(&there, "1").await?;
    // Both go by namespace/name in requests.
    scene.called("p", 2).await?;
    scene.quiet().await?;
    let calls = scene.hook.calls_for("p");
    let seen = calls.last().map(|call| call.request["children"]["ConfigMap.v1"].clone()).unwrap_or_default();
    for namespace in [&home, &other] {
        ensure!(seen[format!("{namespace}/a")].is_object(), "{seen}");
    }
    // Changes in either place are seen, and unwanted ones go from either.
    scene.ctx.admin.patch_merge(&there, "a", &json!({ "data": { "x": "drift" } })).await?;
    has(&there, "1").await?;
    scene.wants("p", json!({ "children": [child(&other, "2")] })).await?;
    has(&there, "2").await?;
    scene.no_map("a", LATER).await
}

async fn stay_while_the_parent_is_deleted(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let reply = json!({ "children": [config_map("a", json!({ "x": "1" })), config_map("b", json!({ "x": "1" }))] });
    let held = json!({
        "metadata": { "name": "p", "finalizers": ["test.ringmaster.dev/hold"] }, "spec": { "reply": reply },
    });
    scene.ctx.admin.create(&scene.things, held).await?;
    let made = scene.map("a", "is there", |_| Ok(())).await?;
    scene.map("b", "is there", |_| Ok(())).await?;
    scene.quiet().await?;
    // Whatever is wanted from now on (one child less, one more, one changed): the parent is going.
    scene.hook.set(|request, info| match &request["parent"]["metadata"]["deletionTimestamp"] {
        Value::Null => obey(request, info),
        _ => crate::hook::Reply::json(&json!({
            "status": { "going": true },
            "children": [config_map("a", json!({ "x": "2" })), config_map("c", json!({}))],
        })),
    });
    scene.ctx.admin.delete(&scene.things, "p").await?;
    let ask = async || {
        let thing = scene.ctx.admin.get(&scene.things, "p").await?;
        ensure!(thing["status"]["going"] == true, "{}", thing["status"]);
        Ok(())
    };
    scene.ctx.wait("a parent that is being deleted gets its status", LATER, ask).await?;
    let same = async || {
        let a = scene.ctx.admin.get(&scene.maps, "a").await?;
        ensure!(a["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"], "a was written: {a}");
        ensure!(scene.ctx.admin.find(&scene.maps, "b").await?.is_some(), "b was deleted");
        ensure!(scene.ctx.admin.find(&scene.maps, "c").await?.is_none(), "c was made");
        Ok(())
    };
    wait::stays("no child changes", NEVER, same).await?;
    // Without its holder it goes, and its children with it.
    scene.ctx.admin.patch_merge(&scene.things, "p", &json!({ "metadata": { "finalizers": null } })).await?;
    scene.no_map("a", LATER).await
}

async fn go_with_the_parent(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    scene.thing("p", json!({ "children": [config_map("a", json!({})), config_map("b", json!({}))] })).await?;
    scene.map("a", "is there", |_| Ok(())).await?;
    scene.map("b", "is there", |_| Ok(())).await?;
    scene.quiet().await?;
    let calls = scene.hook.count();
    ensure!(scene.ctx.admin.delete(&scene.things, "p").await?);
    scene.no_map("a", LATER).await?;
    scene.no_map("b", LATER).await?;
    // Watches of two kinds have no order: a child may be seen to go before its parent is, which is worth a call each.
    let more = scene.hook.count() - calls;
    ensure!(more <= 2, "the hook was called {more} times for a parent that is gone");
    // One of the same name is another parent.
    let again = scene.thing("p", json!({ "children": [config_map("a", json!({}))] })).await?;
    scene
        .map("a", "is made for the new parent", |map| {
            let owner = &map["metadata"]["ownerReferences"][0]["uid"];
            ensure!(*owner == again["metadata"]["uid"], "{map}");
            Ok(())
        })
        .await?;
    Ok(())
}

async fn of_two_controllers(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let others = scene.ctx.crd("Other", "others", Scope::Namespaced, None).await?;
    scene.ctx.grant(&Context::rules_for(&[&others])).await?;
    let second = Hook::start(obey)?;
    scene.ctx.controller("one", scene.spec("InPlace")).await?;
    scene.ctx.controller("two", spec(&others, &second.url("/sync"), "InPlace")).await?;
    // Both parents have the same name, so that only kind and uid tell them apart.
    scene.thing("p", json!({ "children": [config_map("a", json!({ "x": "1" }))] })).await?;
    let reply = json!({ "children": [config_map("b", json!({ "x": "1" }))] });
    let other = json!({ "metadata": { "name": "p" }, "spec": { "reply": reply } });
    scene.ctx.admin.create(&others, other).await?;
    scene.map("a", "is there", |_| Ok(())).await?;
    let b = scene.map("b", "is there", |_| Ok(())).await?;
    scene.quiet().await?;
    let (name, calls) = (format!("{}/b", scene.ctx.namespace), second.count());
    scene.wants("p", json!({ "children": [config_map("a", json!({ "x": "2" }))] })).await?;
    scene.map("a", "is changed", |map| data(map, &json!({ "x": "2" }))).await?;
    scene.ctx.admin.delete(&scene.maps, "a").await?;
    scene.map("a", "is made again", |map| data(map, &json!({ "x": "2" }))).await?;
    wait::stays("the other controller has nothing to do", NEVER, async || {
        ensure!(second.count() == calls, "{} calls, not {calls}", second.count());
        let now = scene.ctx.admin.get(&scene.maps, "b").await?;
        ensure!(now["metadata"]["resourceVersion"] == b["metadata"]["resourceVersion"], "{now}");
        Ok(())
    })
    .await?;
    for call in scene.hook.calls() {
        ensure!(call.request["children"]["ConfigMap.v1"][&name].is_null(), "saw another's child: {}", call.request);
    }
    Ok(())
}

/// One controller's children are another's parents: one watch shows both, and each learns what the other does.
async fn parents_too(ctx: Context) -> anyhow::Result<()> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let scene = Scene::with_args(ctx, &[format!("--metrics-address={address}")]).await?;
    let ctx = &scene.ctx;
    let middles = ctx.crd("Middle", "middles", Scope::Namespaced, None).await?;
    ctx.grant(&Context::rules_for(&[&middles])).await?;
    let lower = ctx.controller("lower", spec(&middles, &scene.hook.url("/lower"), "InPlace")).await?;
    scene.event(&lower, "Started", &[]).await?;
    let mut upper = scene.spec("InPlace");
    upper["childResources"][0]["apiVersion"] = middles.api_version.as_str().into();
    upper["childResources"][0]["resource"] = "middles".into();
    ctx.controller("upper", upper).await?;
    let middle = |value: &str| {
        let reply = json!({ "status": { "at": value }, "children": [config_map("a", json!({ "k": value }))] });
        let spec = json!({ "reply": reply });
        json!({
            "children": [{
                "apiVersion": middles.api_version, "kind": "Middle", "metadata": { "name": "m" }, "spec": spec,
            }],
        })
    };
    scene.thing("p", middle("1")).await?;
    for value in ["1", "2"] {
        if value == "2" {
            scene.wants("p", middle(value)).await?;
        }
        scene.map("a", "is as the middle wants it", |map| data(map, &json!({ "k": value }))).await?;
        let kind = format!("Middle.{}", middles.api_version);
        let key = format!("{}/m", ctx.namespace);
        let ask = async || {
            let calls = scene.hook.calls_for(&scene.key("p"));
            let seen = calls.last().map(|call| call.request["children"][&kind][&key]["status"]["at"].clone());
            ensure!(seen == Some(json!(value)), "{seen:?}");
            Ok(())
        };
        ctx.wait("the upper hook sees the middle's status", SOON, ask).await?;
    }
    let watches = Scrape::of(&format!("http://{address}/metrics"))?;
    let watches = watches.sum("ringmaster_watch_streams", &[("kind", "Middle")]);
    ensure!(watches == 1.0, "{watches} watches");
    Ok(())
}
