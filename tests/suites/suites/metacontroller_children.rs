//! Parity: whose children are, how they are written and how they go, by both of Metacontroller's strategies.
//!
//! Never about what a hook is sent: see `metacontroller_hooks`.

use anyhow::{Context as _, ensure};
use http::Method;
use serde_json::{Map, Value, json};

use super::children_claim::keep;
use super::metacontroller_scene::{LAST_APPLIED, Strategy, composites, declare, each, scene};
use super::scene::{LATER, NEVER, SOON, Scene, config_map};
use crate::cluster::{Context, Scope};
use crate::gate::{Act, Ask};
use crate::objects::Resource;
use crate::trial::Case;
use crate::wait;

/// Fields that name the items of a list that is merged, in Metacontroller's order, with a value each.
const ITEM_KEYS: [(&str, &str); 7] = [
    ("containerPort", "1"),
    ("port", "1"),
    ("mountPath", "/a"),
    ("name", "a"),
    ("uid", "a"),
    ("ip", "127.0.0.1"),
    ("path", "/a"),
];

/// Children whose dry run is refused, each with its code.
const REFUSED: [(&str, u16); 2] = [("bad", 400), ("forbidden", 403)];

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![Case::new("parity", "a_child_whose_dry_run_is_refused_is_kept", refused)];
    cases.extend(each("parity", ["fields_of_children_merged", "fields_of_children_applied"], fields));
    cases.extend(each("parity", ["lists_of_children_merged", "lists_of_children_applied"], lists));
    cases.extend(each("parity", ["update_methods_merged", "update_methods_applied"], methods));
    cases.extend(each("parity", ["a_name_that_is_taken_merged", "a_name_that_is_taken_applied"], taken));
    cases.extend(each("parity", ["adopted_and_released_merged", "adopted_and_released_applied"], claims));
    cases.extend(each(
        "parity",
        ["updated_and_deleted_as_seen_merged", "updated_and_deleted_as_seen_applied"],
        deleted,
    ));
    cases
}

/// A scene with a controller whose children are updated in place.
async fn declared(ctx: Context, strategy: Strategy) -> anyhow::Result<Scene> {
    let scene = scene(ctx, Scope::Namespaced, strategy).await?;
    declare(&scene, &composites(), "c", scene.spec("InPlace")).await?;
    Ok(scene)
}

/// What tells how a child was written is Metacontroller's, and nothing of ours is there.
fn written(child: &Value, strategy: Strategy) -> anyhow::Result<()> {
    let metadata = &child["metadata"];
    let last = &metadata["annotations"][LAST_APPLIED];
    let managers = metadata["managedFields"].as_array().map(Vec::as_slice).unwrap_or_default();
    let applies = managers.iter().any(|entry| entry["manager"] == "metacontroller" && entry["operation"] == "Apply");
    match strategy {
        Strategy::Merged => {
            let last: Value = serde_json::from_str(last.as_str().context("nothing was recorded")?)?;
            ensure!(last["kind"] == child["kind"] && last["metadata"].get("ownerReferences").is_none(), "{last}");
            ensure!(!applies, "{child}");
        }
        Strategy::Applied => {
            ensure!(last.is_null() && applies, "{child}");
            ensure!(managers.iter().all(|entry| entry["manager"] != "ringmaster-create"), "{child}");
        }
    }
    for field in ["labels", "annotations"] {
        let ours = metadata[field].as_object().into_iter().flatten().any(|(key, _)| key.contains("ringmaster.dev/"));
        ensure!(!ours, "{metadata}");
    }
    Ok(())
}

/// Nobody writes an object for a while.
async fn left_alone(ctx: &Context, resource: &Resource, name: &str) -> anyhow::Result<()> {
    let version = ctx.admin.get(resource, name).await?["metadata"]["resourceVersion"].clone();
    wait::stays("the object is left alone", NEVER, async || {
        let object = ctx.admin.get(resource, name).await?;
        ensure!(object["metadata"]["resourceVersion"] == version, "{object}");
        Ok(())
    })
    .await
}

async fn fields(ctx: Context, strategy: Strategy) -> anyhow::Result<()> {
    let scene = declared(ctx, strategy).await?;
    let mut child = config_map("a", json!({ "x": "1", "y": "1" }));
    child["metadata"]["labels"] = json!({ "ours": "1" });
    child["metadata"]["annotations"] = json!({ "ours": "1" });
    child["status"] = json!({ "never": "written" });
    scene.thing("p", json!({ "children": [child] })).await?;
    let check = |map: &Value| written(map, strategy);
    let made = scene.map("a", "is made", check).await?;
    ensure!(made["data"] == json!({ "x": "1", "y": "1" }) && made["status"].is_null(), "{made}");
    scene.quiet().await?;
    left_alone(&scene.ctx, &scene.maps, "a").await?;
    // What others change of ours is put right, also labels and annotations alone; what they add stays.
    for drift in [
        json!({ "metadata": { "labels": { "ours": "2", "theirs": "2" }, "annotations": { "ours": null } } }),
        json!({ "data": { "x": "2", "z": "theirs" } }),
    ] {
        scene.ctx.admin.patch_merge(&scene.maps, "a", &drift).await?;
        let check = |map: &Value| {
            let metadata = &map["metadata"];
            ensure!(metadata["labels"]["ours"] == "1" && metadata["annotations"]["ours"] == "1", "{metadata}");
            ensure!(metadata["labels"]["theirs"] == "2", "{metadata}");
            ensure!(map["data"]["x"] == "1", "{map}");
            Ok(())
        };
        scene.map("a", "is put right", check).await?;
        scene.quiet().await?;
    }
    // What the hook leaves out goes.
    scene.wants("p", json!({ "children": [config_map("a", json!({ "x": "3" }))] })).await?;
    let check = |map: &Value| {
        ensure!(map["data"] == json!({ "x": "3", "z": "theirs" }), "{}", map["data"]);
        let metadata = &map["metadata"];
        ensure!(metadata["labels"]["ours"].is_null() && metadata["annotations"]["ours"].is_null(), "{metadata}");
        ensure!(metadata["labels"]["theirs"] == "2" && metadata["uid"] == made["metadata"]["uid"], "{metadata}");
        written(map, strategy)
    };
    scene.map("a", "has lost what is left out", check).await?;
    scene.quiet().await?;
    left_alone(&scene.ctx, &scene.maps, "a").await
}

/// A list for each key, of one item with this field.
fn keyed(x: &str) -> Map<String, Value> {
    ITEM_KEYS.iter().map(|(key, value)| ((*key).to_owned(), json!([{ (*key): value, "x": x }]))).collect()
}

async fn lists(ctx: Context, strategy: Strategy) -> anyhow::Result<()> {
    let scene = scene(ctx, Scope::Namespaced, strategy).await?;
    let parts = scene.ctx.crd("Part", "parts", Scope::Namespaced, None).await?;
    scene.ctx.grant(&Context::rules_for(&[&parts])).await?;
    let mut spec = scene.spec("InPlace");
    let method = json!({ "method": "InPlace" });
    spec["childResources"] =
        json!([{ "apiVersion": parts.api_version, "resource": "parts", "updateStrategy": method }]);
    declare(&scene, &composites(), "c", spec).await?;
    let wants = |x: &str, name: &str| {
        let first = json!([{ "port": "1", "name": name, "x": x }]);
        let spec = json!({ "keyed": keyed(x), "first": first, "scalars": ["a", x] });
        let part = json!({
            "apiVersion": parts.api_version, "kind": "Part", "metadata": { "name": "a" }, "spec": spec,
        });
        json!({ "children": [part] })
    };
    let is_merged = strategy == Strategy::Merged;
    let has = async |x: &str, name: &str, changed: bool| {
        let mut keyed = keyed(x);
        let mut first = json!({ "port": "1", "name": name, "x": x });
        // Of a kind without a schema each list is one whole to server-side apply.
        if changed && is_merged {
            for (key, list) in &mut keyed {
                *list = json!([list[0], { (key.as_str()): "theirs" }]);
            }
            first["theirs"] = "1".into();
        }
        let wanted = json!({ "keyed": keyed, "first": [first], "scalars": ["a", x] });
        let ask = async || {
            let part = scene.ctx.admin.get(&parts, "a").await?;
            ensure!(part["spec"] == wanted, "{} instead of {wanted}", part["spec"]);
            Ok(())
        };
        scene.ctx.wait("the part is as it is wanted", SOON, ask).await
    };
    scene.thing("p", wants("1", "n")).await?;
    has("1", "n", false).await?;
    scene.quiet().await?;
    let mut theirs = vec![
        json!({ "op": "add", "path": "/spec/scalars/-", "value": "theirs" }),
        json!({ "op": "add", "path": "/spec/first/0/theirs", "value": "1" }),
    ];
    for (key, _) in ITEM_KEYS {
        let item = json!({ (key): "theirs" });
        theirs.push(json!({ "op": "add", "path": format!("/spec/keyed/{key}/-"), "value": item }));
    }
    let (path, patch) = (parts.object("a"), Value::Array(theirs));
    scene.ctx.admin.send(Method::PATCH, &path, "application/json-patch+json", Some(&patch)).await?;
    has("1", "n", true).await?;
    // The item of port 1 is the same under another name.
    scene.wants("p", wants("2", "m")).await?;
    has("2", "m", true).await?;
    scene.quiet().await?;
    left_alone(&scene.ctx, &parts, "a").await
}

async fn methods(ctx: Context, strategy: Strategy) -> anyhow::Result<()> {
    let scene = scene(ctx, Scope::Namespaced, strategy).await?;
    let names = ["inplace", "recreate", "default"];
    for (name, method) in names.into_iter().zip(["InPlace", "Recreate", "OnDelete"]) {
        let mut spec = scene.spec(method);
        spec["parentResource"]["labelSelector"] = json!({ "matchLabels": { "method": name } });
        if name == "default" {
            spec["childResources"] = json!([{ "apiVersion": "v1", "resource": "configmaps" }]);
        }
        declare(&scene, &composites(), name, spec).await?;
    }
    let wants = |name: &str, x: &str| json!({ "children": [config_map(name, json!({ "x": x }))] });
    let mut uids = Vec::new();
    for name in names {
        let metadata = json!({ "name": name, "labels": { "method": name } });
        let body = json!({ "metadata": metadata, "spec": { "reply": wants(name, "1") } });
        scene.ctx.admin.create(&scene.things, body).await?;
        let made = scene.map(name, "is made", |map| written(map, strategy)).await?;
        uids.push(made["metadata"]["uid"].clone());
    }
    scene.quiet().await?;
    for name in names {
        scene.wants(name, wants(name, "2")).await?;
        scene.synced(name).await?;
    }
    let is_changed = |map: &Value| {
        ensure!(map["data"]["x"] == "2", "{map}");
        Ok(())
    };
    let updated = scene.map("inplace", "is updated", is_changed).await?;
    ensure!(updated["metadata"]["uid"] == uids[0], "it is another one: {updated}");
    let anew = scene.map("recreate", "is made anew", is_changed).await?;
    ensure!(anew["metadata"]["uid"] != uids[1], "it is the same one: {anew}");
    scene.quiet().await?;
    let kept = scene.ctx.admin.get(&scene.maps, "default").await?;
    ensure!(kept["data"]["x"] == "1", "{kept}");
    scene.ctx.admin.delete(&scene.maps, "default").await?;
    let anew = scene.map("default", "is made anew", is_changed).await?;
    ensure!(anew["metadata"]["uid"] != uids[2], "{anew}");
    let kind = scene.ctx.namespaced("metacontroller.k8s.io/v1alpha1", "ControllerRevision", "controllerrevisions");
    let revisions = scene.ctx.admin.list(&kind, "").await?;
    ensure!(revisions.is_empty(), "none of these methods rolls: {revisions:?}");
    Ok(())
}

/// Before a child is made anew it is applied without effect. What is refused then stays as it is, and is tried again.
async fn refused(ctx: Context) -> anyhow::Result<()> {
    let flag = Strategy::Applied.flag();
    let (scene, gate) = Scene::behind_gate(ctx, &[flag.as_str()]).await?;
    declare(&scene, &composites(), "c", scene.spec("Recreate")).await?;
    let is_of = |ask: &Ask, name: &str| ask.path.ends_with(&format!("/configmaps/{name}"));
    let is_trial = |ask: &Ask| ask.method == Method::PATCH && ask.query.contains("dryRun=All");
    gate.set(move |ask| {
        let refused = REFUSED.iter().find(|(name, _)| is_trial(ask) && is_of(ask, name));
        refused.map_or(Act::Pass, |(_, code)| Act::Refuse(*code, None))
    });
    let wants = |x: &str| json!({ "children": REFUSED.map(|(name, _)| config_map(name, json!({ "x": x }))) });
    let thing = scene.thing("p", wants("1")).await?;
    let mut made = Vec::new();
    for (name, _) in REFUSED {
        made.push(scene.map(name, "is made", |map| written(map, Strategy::Applied)).await?);
    }
    scene.quiet().await?;
    scene.wants("p", wants("2")).await?;
    for (name, code) in REFUSED {
        let ask = async || {
            let tried = gate.asked(|asked| is_trial(&asked.ask) && is_of(&asked.ask, name)).len();
            ensure!(tried >= 2, "{tried} times");
            Ok(())
        };
        scene.ctx.wait(&format!("{name} is tried again"), SOON, ask).await?;
        scene.event(&thing, "SyncError", &["refused by the trial", &code.to_string()]).await?;
    }
    for map in &made {
        let name = map["metadata"]["name"].as_str().context("no name")?;
        let now = scene.ctx.admin.get(&scene.maps, name).await?;
        ensure!(now["metadata"]["resourceVersion"] == map["metadata"]["resourceVersion"], "{now}");
    }
    gate.open();
    for ((name, _), before) in REFUSED.into_iter().zip(&made) {
        let is_anew = |map: &Value| {
            ensure!(map["data"]["x"] == "2" && map["metadata"]["uid"] != before["metadata"]["uid"], "{map}");
            Ok(())
        };
        scene.map(name, "is made anew", is_anew).await?;
        let is_step = |ask: &Ask| is_of(ask, name) && (is_trial(ask) || ask.method == Method::DELETE);
        let steps = gate.asked(|asked| is_step(&asked.ask));
        let delete = steps.iter().position(|asked| asked.ask.method == Method::DELETE).context("no delete")?;
        ensure!(delete > 0 && steps[delete - 1].code == Some(200), "deleted without a dry run: {steps:?}");
    }
    Ok(())
}

async fn taken(ctx: Context, strategy: Strategy) -> anyhow::Result<()> {
    let scene = scene(ctx, Scope::Namespaced, strategy).await?;
    let other = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "other", "uid": "u", "controller": true });
    let mut owned = config_map("owned", json!({ "x": "theirs" }));
    owned["metadata"]["ownerReferences"] = json!([other]);
    // Nobody collects it: its owner is there.
    let owner = scene.ctx.admin.create(&scene.maps, config_map("other", json!({}))).await?;
    owned["metadata"]["ownerReferences"][0]["uid"] = owner["metadata"]["uid"].clone();
    let mut before = Vec::new();
    for map in [config_map("orphan", json!({ "x": "theirs" })), owned] {
        before.push(scene.ctx.admin.create(&scene.maps, map).await?);
    }
    declare(&scene, &composites(), "c", scene.spec("InPlace")).await?;
    for map in &before {
        let name = map["metadata"]["name"].as_str().context("no name")?;
        let reply = json!({ "children": [config_map(name, json!({ "x": "ours" }))] });
        let thing = scene.thing(&format!("p-{name}"), reply).await?;
        scene.event(&thing, "SyncError", &["ConfigMap", name, "left alone"]).await?;
        let after = scene.ctx.admin.get(&scene.maps, name).await?;
        ensure!(after["metadata"] == map["metadata"] && after["data"] == map["data"], "{after}");
    }
    // Once it is gone there is room for the child.
    scene.ctx.admin.delete(&scene.maps, "orphan").await?;
    let is_ours = |map: &Value| {
        ensure!(map["data"]["x"] == "ours", "{map}");
        Ok(())
    };
    scene.map("orphan", "is made", is_ours).await.map(drop)
}

async fn claims(ctx: Context, strategy: Strategy) -> anyhow::Result<()> {
    let scene = scene(ctx, Scope::Namespaced, strategy).await?;
    scene.hook.set(keep);
    let mut spec = scene.spec("InPlace");
    spec["generateSelector"] = false.into();
    declare(&scene, &composites(), "c", spec).await?;
    let orphan = async |name: &str, app: &str| {
        let mut map = config_map(name, json!({ "x": "1" }));
        map["metadata"]["labels"] = json!({ "app": app });
        scene.ctx.admin.create(&scene.maps, map).await
    };
    let (first, other) = (orphan("a", "x").await?, orphan("b", "y").await?);
    let selector = json!({ "matchLabels": { "app": "x" } });
    let body = json!({ "metadata": { "name": "p" }, "spec": { "selector": selector } });
    let thing = scene.ctx.admin.create(&scene.things, body).await?;
    let wanted = json!([{
        "apiVersion": scene.things.api_version, "kind": "Thing", "name": "p", "uid": thing["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true,
    }]);
    let is_owned = |map: &Value| {
        ensure!(map["metadata"]["ownerReferences"] == wanted, "{}", map["metadata"]);
        Ok(())
    };
    let adopted = scene.map("a", "is adopted", is_owned).await?;
    ensure!(adopted["metadata"]["uid"] == first["metadata"]["uid"] && adopted["data"] == first["data"], "{adopted}");
    scene.quiet().await?;
    let bystander = scene.ctx.admin.get(&scene.maps, "b").await?;
    ensure!(bystander["metadata"]["resourceVersion"] == other["metadata"]["resourceVersion"], "{bystander}");
    let app = |app: &str| json!({ "metadata": { "labels": { "app": app } } });
    scene.ctx.admin.patch_merge(&scene.maps, "a", &app("z")).await?;
    let is_free = |map: &Value| {
        ensure!(map["metadata"]["ownerReferences"].is_null(), "{}", map["metadata"]);
        Ok(())
    };
    let released = scene.map("a", "is released", is_free).await?;
    ensure!(released["metadata"]["uid"] == first["metadata"]["uid"] && released["data"] == first["data"]);
    scene.quiet().await?;
    left_alone(&scene.ctx, &scene.maps, "a").await?;
    // And adopted again, as it matches again.
    scene.ctx.admin.patch_merge(&scene.maps, "a", &app("x")).await?;
    scene.map("a", "is adopted again", is_owned).await.map(drop)
}

async fn deleted(ctx: Context, strategy: Strategy) -> anyhow::Result<()> {
    let flag = strategy.flag();
    let (scene, gate) = Scene::behind_gate(ctx, &[flag.as_str()]).await?;
    declare(&scene, &composites(), "c", scene.spec("InPlace")).await?;
    let both = json!([config_map("a", json!({ "x": "1" })), config_map("b", json!({ "x": "1" }))]);
    scene.thing("p", json!({ "children": both })).await?;
    let kept = scene.map("a", "is made", |_| Ok(())).await?;
    let goes = scene.map("b", "is made", |_| Ok(())).await?;
    let held = json!({ "metadata": { "finalizers": ["example.com/held"] } });
    scene.ctx.admin.patch_merge(&scene.maps, "b", &held).await?;
    scene.quiet().await?;
    scene.wants("p", json!({ "children": [config_map("a", json!({ "x": "2" }))] })).await?;
    let is_going = |map: &Value| {
        ensure!(map["metadata"]["deletionTimestamp"].is_string(), "{map}");
        // Foreground deletion, or orphaning, would add a finalizer.
        ensure!(map["metadata"]["finalizers"] == json!(["example.com/held"]), "{map}");
        Ok(())
    };
    scene.map("b", "is going", is_going).await?;
    let is_updated = |map: &Value| {
        ensure!(map["data"]["x"] == "2" && map["metadata"]["uid"] == kept["metadata"]["uid"], "{map}");
        Ok(())
    };
    scene.map("a", "is updated", is_updated).await?;
    scene.quiet().await?;
    let deletes = gate.asked(|asked| asked.ask.method == Method::DELETE && asked.ask.path.ends_with("/configmaps/b"));
    // The first may have met the version before its finalizer.
    ensure!(deletes.len() <= 2, "what is going is deleted again: {deletes:?}");
    let delete = deletes.last().context("no delete")?;
    let options = delete.ask.json();
    ensure!(options["propagationPolicy"] == "Background", "{options}");
    ensure!(options["preconditions"]["uid"] == goes["metadata"]["uid"], "{options}");
    let (method, query) = match strategy {
        Strategy::Merged => (Method::PUT, Vec::new()),
        Strategy::Applied => (Method::PATCH, vec!["fieldManager=metacontroller", "force=true"]),
    };
    let updates = gate.asked(|asked| asked.ask.method == method && asked.ask.path.ends_with("/configmaps/a"));
    // The last: before it some fields may have been handed over.
    let update = &updates.last().context("no update")?.ask;
    ensure!(query.iter().all(|part| update.query.contains(part)), "{update:?}");
    ensure!(update.json()["metadata"]["resourceVersion"].is_string(), "only what was seen is written: {update:?}");
    scene.ctx.admin.patch_merge(&scene.maps, "b", &json!({ "metadata": { "finalizers": null } })).await?;
    scene.no_map("b", LATER).await
}
