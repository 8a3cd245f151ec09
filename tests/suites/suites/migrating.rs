//! A controller moves from Metacontroller's group to our own by the steps of docs/migrating-from-metacontroller.md: no child
//! is lost, and none is made anew.
//!
//! Never about taking Metacontroller's own place: see `takeover`.

use std::collections::BTreeMap;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::decorators;
use super::faults_hook::well;
use super::metacontroller_scene::{self as theirs, LAST_APPLIED, Strategy};
use super::scene::{self, SOON, Scene, config_map};
use crate::cluster::{Context, Scope};
use crate::hook::{CallInfo, Reply};
use crate::objects::Resource;
use crate::trial::Case;

/// The parents; each has two children.
const PARENTS: [&str; 2] = ["p", "q"];
/// Most requests that hand one merged child over.
const HAND_OVER_WRITES: usize = 2;
/// Who applies for Metacontroller, and who for us.
const MANAGERS: [&str; 2] = ["metacontroller", "ringmaster"];

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("migrating", "merged_children_in_place", |ctx| composite(ctx, Strategy::Merged, "InPlace")),
        Case::new("migrating", "applied_children_in_place", |ctx| composite(ctx, Strategy::Applied, "InPlace")),
        Case::new("migrating", "merged_children_on_delete", |ctx| composite(ctx, Strategy::Merged, "OnDelete")),
        Case::new("migrating", "merged_children_to_be_recreated", |ctx| composite(ctx, Strategy::Merged, "Recreate")),
        Case::new("migrating", "attachments", decorator),
    ]
}

/// What a parent's spec says; at the end nothing, and done at once.
fn obey(request: &Value, info: &CallInfo) -> Reply {
    if info.path == "/finalize" {
        return Reply::json(&json!({ "children": [], "finalized": true }));
    }
    scene::obey(request, info)
}

/// The same for objects.
fn decorate(request: &Value, info: &CallInfo) -> Reply {
    if info.path == "/finalize" {
        return Reply::json(&json!({ "attachments": [], "finalized": true }));
    }
    decorators::obey(request, info)
}

/// The first so many children of a parent.
fn children(parent: &str, count: usize, data: &Value) -> Value {
    (0..count).map(|number| config_map(&format!("{parent}-{number}"), data.clone())).collect()
}

/// Waits until each parent has these finalizers and no others.
async fn guarded(scene: &Scene, wanted: &[&str]) -> anyhow::Result<()> {
    let ask = async || {
        for thing in scene.ctx.admin.list(&scene.things, "").await? {
            let finalizers = thing["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            ensure!(finalizers == *wanted, "{}: {finalizers:?}", thing["metadata"]["name"]);
        }
        Ok(())
    };
    scene.ctx.wait(&format!("parents have the finalizers {wanted:?}"), SOON, ask).await
}

/// The uids of all children, by their names.
async fn uids(scene: &Scene) -> anyhow::Result<BTreeMap<String, String>> {
    let maps = scene.ctx.admin.list(&scene.maps, "").await?;
    let owned = maps.iter().filter(|map| map["metadata"]["ownerReferences"].is_array());
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    Ok(owned.map(|map| (text(&map["metadata"]["name"]), text(&map["metadata"]["uid"]))).collect())
}

/// The controller in Metacontroller's group, with parents whose children are there; answers with these.
async fn begin(
    scene: &Scene,
    kind: &Resource,
    mut spec: Value,
    list: &str,
) -> anyhow::Result<BTreeMap<String, String>> {
    spec["hooks"]["finalize"] = json!({ "webhook": { "url": scene.hook.url("/finalize") } });
    theirs::declare(scene, kind, "old", spec).await?;
    let data = json!({ "x": "1", "y": "1" });
    for parent in PARENTS {
        scene.thing(parent, json!({ (list): children(parent, 2, &data) })).await?;
    }
    for parent in PARENTS {
        for number in 0..2 {
            scene.map(&format!("{parent}-{number}"), "is there", |_| Ok(())).await?;
        }
    }
    let name = scene.ctx.controller_name("old");
    let word = kind.plural.trim_end_matches('s');
    guarded(scene, &[&format!("metacontroller.io/{word}-{name}")]).await?;
    scene.quiet().await?;
    let before = uids(scene).await?;
    ensure!(before.len() == PARENTS.len() * 2, "{before:?}");
    Ok(before)
}

/// Steps 1 and 2.
async fn remove(scene: &Scene, kind: &Resource) -> anyhow::Result<()> {
    let name = scene.ctx.controller_name("old");
    scene.ctx.admin.patch_merge(kind, &name, &json!({ "spec": { "hooks": { "finalize": null } } })).await?;
    guarded(scene, &[]).await?;
    ensure!(scene.ctx.admin.delete(kind, &name).await?, "no controller {name}");
    let ask = async || {
        ensure!(scene.ctx.admin.find(kind, &name).await?.is_none(), "it is there");
        Ok(())
    };
    scene.ctx.wait("the old controller is gone", SOON, ask).await
}

/// What the page says of the hooks of a controller that moves.
fn moved(mut spec: Value, scene: &Scene) -> Value {
    for hook in ["sync", "finalize"] {
        let webhook = json!({ "url": scene.hook.url(&format!("/{hook}")), "insecure": true });
        spec["hooks"][hook] = json!({ "version": "v1", "webhook": webhook });
    }
    spec
}

/// Fails unless all children are those that were there, and each was made once and none deleted.
async fn kept(scene: &Scene, before: &BTreeMap<String, String>) -> anyhow::Result<()> {
    let now = uids(scene).await?;
    ensure!(now == *before, "{now:?} instead of {before:?}");
    let mut made: BTreeMap<String, usize> = BTreeMap::new();
    for request in scene.ctx.all_requests()? {
        if request.resource != "configmaps" || !(200..300).contains(&request.code) {
            continue;
        }
        ensure!(!request.verb.starts_with("delete"), "{request:?}");
        if request.code == 201 {
            *made.entry(request.name).or_default() += 1;
        }
    }
    ensure!(made.len() == before.len() && made.values().all(|times| *times == 1), "{made:?}");
    let finals = scene.hook.calls().iter().filter(|call| call.path == "/finalize").count();
    ensure!(finals == 0, "the finalize hook was called");
    Ok(())
}

/// The new controller does with the children what the old one did, and with what it dropped.
async fn works(scene: &Scene, before: &BTreeMap<String, String>, list: &str) -> anyhow::Result<()> {
    let data = json!({ "x": "2" });
    scene.wants("p", json!({ (list): children("p", 1, &data) })).await?;
    let check = |map: &Value| {
        ensure!(map["data"] == data && before.get("p-0").is_some_and(|uid| map["metadata"]["uid"] == **uid), "{map}");
        Ok(())
    };
    scene.map("p-0", "is updated, and without what was dropped", check).await?;
    scene.no_map("p-1", SOON).await
}

/// Whether somebody applied a field of an object.
fn applies(object: &Value, manager: &str) -> bool {
    let mut entries = object["metadata"]["managedFields"].as_array().into_iter().flatten();
    entries.any(|entry| entry["manager"] == manager && entry["operation"] == "Apply")
}

async fn composite(ctx: Context, left: Strategy, method: &str) -> anyhow::Result<()> {
    let scene = theirs::scene(ctx, Scope::Namespaced, left).await?;
    scene.hook.set(obey);
    let before = begin(&scene, &theirs::composites(), scene.spec(method), "children").await?;
    remove(&scene, &theirs::composites()).await?;
    let mark = scene.ctx.mark()?;
    let mut spec = moved(scene.spec(method), &scene);
    spec["parentResource"]["ignoreStatusChanges"] = false.into();
    scene.ctx.controller("new", spec).await?;
    let name = scene.ctx.controller_name("new");
    guarded(&scene, &[&format!("ringmaster.dev/compositecontroller-{name}")]).await?;
    let is_in_place = method == "InPlace";
    let [them, us] = MANAGERS;
    for child in before.keys().filter(|_| is_in_place) {
        let check = |map: &Value| {
            ensure!(map["metadata"]["annotations"][LAST_APPLIED].is_null() && applies(map, us), "{map}");
            Ok(())
        };
        scene.map(child, "is handed over", check).await?;
    }
    scene.quiet().await?;
    well(&scene.ctx, "new").await?;
    kept(&scene, &before).await?;
    let requests = scene.ctx.requests(mark)?;
    let most = match method {
        "InPlace" => HAND_OVER_WRITES,
        "OnDelete" => 0,
        // What is only tried is in the log, too.
        _ => usize::MAX,
    };
    for child in before.keys() {
        let writes = requests.iter().filter(|r| r.is_write() && r.resource == "configmaps" && r.name == *child).count();
        ensure!(writes <= most, "{writes} writes of {child}");
    }
    if left == Strategy::Applied {
        for child in before.keys() {
            let map = scene.ctx.admin.get(&scene.maps, child).await?;
            ensure!(applies(&map, them), "{map}");
            let mut entries = map["metadata"]["managedFields"].as_array().context("no managedFields")?.clone();
            entries.retain(|entry| entry["manager"] != them);
            let version = &map["metadata"]["resourceVersion"];
            let patch = json!({ "metadata": { "resourceVersion": version, "managedFields": entries } });
            let now = scene.ctx.admin.patch_merge(&scene.maps, child, &patch).await?;
            ensure!(!applies(&now, them) && applies(&now, us), "{now}");
        }
        scene.quiet().await?;
    }
    if is_in_place {
        works(&scene, &before, "children").await?;
    }
    goes(&scene, "q").await
}

/// A parent is finalized as before.
async fn goes(scene: &Scene, parent: &str) -> anyhow::Result<()> {
    scene.ctx.admin.delete(&scene.things, parent).await?;
    let ask = async || {
        ensure!(scene.ctx.admin.find(&scene.things, parent).await?.is_none(), "it is there");
        Ok(())
    };
    scene.ctx.wait("the parent is finalized", SOON, ask).await?;
    scene.no_map(&format!("{parent}-0"), SOON).await?;
    let finals = scene.hook.calls_for(&scene.key(parent)).into_iter().filter(|call| call.path == "/finalize").count();
    ensure!(finals > 0, "the finalize hook wasn't called");
    Ok(())
}

async fn decorator(ctx: Context) -> anyhow::Result<()> {
    const THEIRS: &str = "metacontroller.k8s.io/decorator-controller";
    const OURS: &str = "ringmaster.dev/decorator-controller";
    let scene = theirs::scene(ctx, Scope::Namespaced, Strategy::Merged).await?;
    scene.hook.set(decorate);
    let spec = decorators::spec(&scene, "InPlace");
    let before = begin(&scene, &theirs::decorators(), spec.clone(), "attachments").await?;
    remove(&scene, &theirs::decorators()).await?;
    let name = scene.ctx.controller_name("new");
    for child in before.keys() {
        let patch = json!({ "metadata": { "annotations": { (OURS): name, (THEIRS): null } } });
        scene.ctx.admin.patch_merge(&scene.maps, child, &patch).await?;
    }
    decorators::declare(&scene, "new", moved(spec, &scene)).await?;
    guarded(&scene, &[&format!("ringmaster.dev/decoratorcontroller-{name}")]).await?;
    for child in before.keys() {
        let check = |map: &Value| {
            let annotations = &map["metadata"]["annotations"];
            ensure!(annotations[LAST_APPLIED].is_null() && annotations[THEIRS].is_null(), "{annotations}");
            ensure!(annotations[OURS] == *name && applies(map, MANAGERS[1]), "{map}");
            Ok(())
        };
        scene.map(child, "is handed over", check).await?;
    }
    scene.quiet().await?;
    kept(&scene, &before).await?;
    works(&scene, &before, "attachments").await?;
    goes(&scene, "q").await
}
