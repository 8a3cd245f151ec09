//! Decorators: what they add to objects of existing kinds, and which objects these are.
//!
//! Never about what goes wrong: see `decorators_told`.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, anyhow, ensure};
use serde_json::{Value, json};

use crate::cluster::Context;
use crate::hook::{CallInfo, Reply};
use crate::objects::Resource;
use crate::process::Ringmaster;
use crate::server::audit::Mark;
use crate::suites::scene::{LATER, SOON, Scene, config_map};
use crate::trial::Case;

/// How long shards may take to move to a member that came: moves for balance wait until the members are calm.
const BALANCE: Duration = Duration::from_secs(120);
/// The trial that waits for that takes longer than others.
const SHARDED: Duration = Duration::from_secs(360);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("decorators", "labels_annotations_and_status_come_and_go", decorates),
        Case::new("decorators", "attachments_follow_their_update_methods", strategies),
        Case::new("decorators", "two_kinds_are_selected_by_labels_and_annotations", selects),
        Case::new("decorators", "an_object_stays_until_the_hook_is_done", finalizes),
        Case::new("decorators", "two_members_share_the_objects", sharded).timeout(SHARDED),
        Case::new("decorators", "a_decorator_of_metacontroller_runs", metacontroller),
    ]
}

pub(super) fn decorators() -> Resource {
    Resource::new("ringmaster.dev/v1alpha1", "DecoratorController", "decoratorcontrollers", None)
}

/// The hook that gives each object what its `spec.reply` or its `data.reply` says, and its `spec.final` at the end. Each
/// may be the text of the reply: an object's own fields can't be relied on to hold a null.
pub(super) fn obey(request: &Value, info: &CallInfo) -> Reply {
    let object = &request["object"];
    let reply = match info.path.as_str() {
        "/finalize" if request["finalizing"] != true => return Reply::status(500),
        "/finalize" => &object["spec"]["final"],
        _ if object["data"]["reply"].is_string() => &object["data"]["reply"],
        _ => &object["spec"]["reply"],
    };
    match reply {
        Value::Null => Reply::json(&json!({})),
        Value::String(text) => Reply::status(200).body(text.clone()),
        reply => Reply::json(reply),
    }
}

/// The spec of a decorator of things, to which ConfigMaps are attached.
pub(super) fn spec(scene: &Scene, method: &str) -> Value {
    json!({
        "resources": [{ "apiVersion": scene.things.api_version, "resource": scene.things.plural }],
        "attachments": [{ "apiVersion": "v1", "resource": "configmaps", "updateStrategy": { "method": method } }],
        "hooks": { "sync": { "webhook": { "url": scene.hook.url("/sync") } } },
    })
}

/// Declares a decorator, and waits until it runs.
pub(super) async fn declare(scene: &Scene, name: &str, spec: Value) -> anyhow::Result<Value> {
    let metadata = json!({ "name": scene.ctx.controller_name(name), "labels": { "suite": scene.ctx.id } });
    let made = scene.ctx.admin.create(&decorators(), json!({ "metadata": metadata, "spec": spec })).await?;
    ready(scene, name, ["Ready", "True"]).await?;
    Ok(made)
}

/// Waits for a condition of a decorator; answers with its message.
pub(super) async fn ready(scene: &Scene, name: &str, [kind, status]: [&str; 2]) -> anyhow::Result<String> {
    let ask = async || {
        let object = scene.ctx.admin.get(&decorators(), &scene.ctx.controller_name(name)).await?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|condition| condition["type"] == kind && condition["status"] == status);
        let found = found.with_context(|| format!("{conditions:?}"))?;
        Ok(found["message"].as_str().unwrap_or_default().to_owned())
    };
    scene.ctx.wait(&format!("{name} has condition {kind} {status}"), LATER, ask).await
}

pub(super) async fn scene(ctx: Context, method: &str) -> anyhow::Result<Scene> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(obey);
    declare(&scene, "d", spec(&scene, method)).await?;
    Ok(scene)
}

/// Waits until a thing is as `check` wants it.
pub(super) async fn thing(
    scene: &Scene,
    name: &str,
    what: &str,
    check: impl Fn(&Value) -> anyhow::Result<()>,
) -> anyhow::Result<Value> {
    let ask = async || {
        let thing = scene.ctx.admin.get(&scene.things, name).await?;
        check(&thing)?;
        Ok(thing)
    };
    scene.ctx.wait(&format!("{name} {what}"), SOON, ask).await
}

/// The writes of Ringmaster to objects of the trial's own kinds since `mark`.
pub(super) fn writes(scene: &Scene, mark: Mark) -> anyhow::Result<Vec<String>> {
    let own = [scene.things.plural.as_str(), "configmaps"];
    let requests = scene.ctx.requests(mark)?;
    let writes = requests.iter().filter(|request| request.is_write() && own.contains(&request.resource.as_str()));
    Ok(writes.map(|request| format!("{} {}", request.verb, request.uri)).collect())
}

async fn decorates(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx, "InPlace").await?;
    let reply = json!({
        "labels": { "team": "a", "old": null }, "annotations": { "note": "some words" }, "status": { "seen": 1 },
    });
    let metadata = json!({ "name": "p", "labels": { "old": "1", "mine": "1" }, "annotations": { "own": "x" } });
    let body = json!({ "metadata": metadata, "spec": { "reply": reply.to_string() } });
    scene.ctx.admin.create(&scene.things, body).await?;
    let check = |thing: &Value| {
        ensure!(thing["metadata"]["labels"] == json!({ "mine": "1", "team": "a" }), "{thing}");
        ensure!(thing["metadata"]["annotations"] == json!({ "own": "x", "note": "some words" }), "{thing}");
        ensure!(thing["status"] == json!({ "seen": 1 }), "as it was answered: {thing}");
        Ok(())
    };
    thing(&scene, "p", "is decorated", check).await?;
    scene.quiet().await?;
    let call = scene.hook.calls_for(&scene.key("p")).pop().context("no call")?;
    ensure!(call.request["attachments"] == json!({ "ConfigMap.v1": {} }) && call.request["related"] == json!({}));
    ensure!(call.request["controller"]["kind"] == "DecoratorController" && call.request["finalizing"] == false);
    ensure!(call.request.get("parent").is_none() && call.request.get("children").is_none());

    // What changes nothing is no request.
    let mark = scene.ctx.mark()?;
    let before = scene.calls("p");
    scene.ctx.admin.patch_merge(&scene.things, "p", &json!({ "spec": { "unrelated": 1 } })).await?;
    scene.called("p", before + 1).await?;
    scene.quiet().await?;
    ensure!(writes(&scene, mark)? == Vec::<String>::new(), "{:?}", writes(&scene, mark)?);

    // Somebody takes it away.
    scene.ctx.admin.patch_merge(&scene.things, "p", &json!({ "metadata": { "labels": { "team": null } } })).await?;
    thing(&scene, "p", "is decorated again", check).await?;

    let reply = json!({ "labels": { "team": null, "old": null }, "annotations": { "note": null }, "status": null });
    scene.wants("p", reply.to_string().into()).await?;
    let check = |thing: &Value| {
        ensure!(thing["metadata"]["labels"] == json!({ "mine": "1" }), "{thing}");
        ensure!(thing["metadata"]["annotations"] == json!({ "own": "x" }), "{thing}");
        ensure!(thing["status"] == json!({ "seen": 1 }), "null leaves it: {thing}");
        Ok(())
    };
    thing(&scene, "p", "is plain again", check).await.map(drop)
}

async fn strategies(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(obey);
    let mut spec = spec(&scene, "InPlace");
    spec["resources"][0]["labelSelector"] = json!({ "matchLabels": { "method": "inplace" } });
    declare(&scene, "inplace", spec.clone()).await?;
    for (name, method) in [("recreate", "Recreate"), ("ondelete", "OnDelete")] {
        spec["resources"][0]["labelSelector"]["matchLabels"]["method"] = name.into();
        spec["attachments"][0]["updateStrategy"]["method"] = method.into();
        declare(&scene, name, spec.clone()).await?;
    }
    let wants = |name: &str, x: &str| json!({ "attachments": [config_map(name, json!({ "x": x }))] });
    let mut first = Vec::new();
    for name in ["inplace", "recreate", "ondelete"] {
        let metadata = json!({ "name": name, "labels": { "method": name } });
        let body = json!({ "metadata": metadata, "spec": { "reply": wants(name, "1") } });
        let owner = scene.ctx.admin.create(&scene.things, body).await?;
        let check = |map: &Value| {
            let reference = &map["metadata"]["ownerReferences"][0];
            ensure!(reference["uid"] == owner["metadata"]["uid"] && reference["blockOwnerDeletion"] == true, "{map}");
            let annotations = &map["metadata"]["annotations"];
            ensure!(annotations["ringmaster.dev/decorator-controller"] == *scene.ctx.controller_name(name), "{map}");
            Ok(())
        };
        first.push(scene.map(name, "is attached", check).await?);
    }
    scene.quiet().await?;
    let call = scene.hook.calls_for(&scene.key("inplace")).pop().context("no call")?;
    let key = scene.key("inplace");
    ensure!(call.request["attachments"]["ConfigMap.v1"][&key]["data"]["x"] == "1", "{}", call.request);
    for name in ["inplace", "recreate", "ondelete"] {
        scene.wants(name, wants(name, "2")).await?;
    }
    let uid = |object: &Value| object["metadata"]["uid"].clone();
    let is_changed = |map: &Value| {
        ensure!(map["data"]["x"] == "2", "{map}");
        Ok(())
    };
    let updated = scene.map("inplace", "is updated", is_changed).await?;
    ensure!(uid(&updated) == uid(&first[0]), "it is another one");
    let recreated = scene.map("recreate", "is made anew", is_changed).await?;
    ensure!(uid(&recreated) != uid(&first[1]), "it is the same one");
    scene.quiet().await?;
    let kept = scene.ctx.admin.get(&scene.maps, "ondelete").await?;
    ensure!(kept["data"]["x"] == "1", "{kept}");
    scene.ctx.admin.delete(&scene.maps, "ondelete").await?;
    scene.map("ondelete", "is made anew", is_changed).await?;
    for name in ["inplace", "recreate", "ondelete"] {
        scene.wants(name, json!({ "attachments": [] })).await?;
        scene.no_map(name, SOON).await?;
    }
    Ok(())
}

async fn selects(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(obey);
    let mut spec = spec(&scene, "InPlace");
    let id = scene.ctx.id.clone();
    let annotation = format!("{id}.ringmaster.dev/decorate");
    spec["resources"] = json!([
        { "apiVersion": scene.things.api_version, "resource": "things",
          "labelSelector": { "matchLabels": { "tier": "gold" } },
          "annotationSelector": { "matchExpressions": [{ "key": "off", "operator": "DoesNotExist" }] } },
        { "apiVersion": "v1", "resource": "configmaps",
          "annotationSelector": { "matchAnnotations": { (annotation.clone()): "yes" } } },
    ]);
    declare(&scene, "d", spec).await?;
    let reply = json!({ "labels": { "seen": "1" }, "attachments": [config_map("by-map", json!({ "x": "1" }))] });
    let map = json!({
        "metadata": { "name": "m", "annotations": { (annotation.clone()): "yes" } },
        "data": { "reply": reply.to_string() },
    });
    scene.ctx.admin.create(&scene.maps, map).await?;
    let plain = json!({ "metadata": { "name": "plain" }, "data": { "reply": reply.to_string() } });
    scene.ctx.admin.create(&scene.maps, plain).await?;
    for (name, mut metadata) in [
        ("both", json!({ "labels": { "tier": "gold" } })),
        ("unlabelled", json!({})),
        ("off", json!({ "labels": { "tier": "gold" }, "annotations": { "off": "" } })),
    ] {
        metadata["name"] = name.into();
        let body = json!({ "metadata": metadata, "spec": { "reply": { "labels": { "seen": "1" } } } });
        scene.ctx.admin.create(&scene.things, body).await?;
    }
    let is_seen = |object: &Value| {
        ensure!(object["metadata"]["labels"]["seen"] == "1", "{object}");
        Ok(())
    };
    scene.map("m", "is decorated", is_seen).await?;
    scene.map("by-map", "is attached to a ConfigMap", |_| Ok(())).await?;
    thing(&scene, "both", "is decorated", is_seen).await?;
    scene.quiet().await?;
    for name in ["unlabelled", "off"] {
        ensure!(scene.calls(name) == 0, "{name} isn't selected");
    }
    ensure!(scene.hook.calls_for(&scene.key("plain")).is_empty(), "plain isn't selected");
    let ask = async || {
        let controller = scene.ctx.admin.get(&decorators(), &scene.ctx.controller_name("d")).await?;
        ensure!(controller["status"]["parents"] == 2, "{}", controller["status"]);
        Ok(())
    };
    scene.ctx.wait("the objects of both kinds are counted", SOON, ask).await?;
    // It comes to be selected, and another one leaves the selection: what it has stays.
    scene.ctx.admin.patch_merge(&scene.things, "off", &json!({ "metadata": { "annotations": null } })).await?;
    thing(&scene, "off", "is decorated", is_seen).await?;
    let leave = json!({ "metadata": { "annotations": { (annotation): "no" }, "labels": { "seen": null } } });
    scene.ctx.admin.patch_merge(&scene.maps, "m", &leave).await?;
    scene.no_call("it left the selection").await?;
    let left = scene.ctx.admin.get(&scene.maps, "m").await?;
    ensure!(left["metadata"]["labels"].get("seen").is_none(), "{left}");
    scene.map("by-map", "is still there", |_| Ok(())).await.map(drop)
}

async fn finalizes(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(obey);
    let mut spec = spec(&scene, "InPlace");
    spec["resources"][0]["labelSelector"] = json!({ "matchLabels": { "tier": "gold" } });
    spec["hooks"]["finalize"] = json!({ "webhook": { "url": scene.hook.url("/finalize") } });
    declare(&scene, "d", spec).await?;
    let finalizer = format!("ringmaster.dev/decoratorcontroller-{}", scene.ctx.controller_name("d"));
    for name in ["gone", "left"] {
        let metadata = json!({ "name": name, "labels": { "tier": "gold" } });
        let spec = json!({
            "reply": { "labels": { "seen": "1" }, "attachments": [config_map(name, json!({ "x": "1" }))] },
            "final": json!({ "labels": { "seen": null }, "attachments": [], "finalized": true }).to_string(),
        });
        scene.ctx.admin.create(&scene.things, json!({ "metadata": metadata, "spec": spec })).await?;
        scene.map(name, "is attached", |_| Ok(())).await?;
        let check = |thing: &Value| {
            ensure!(thing["metadata"]["finalizers"] == json!([finalizer]), "{thing}");
            ensure!(thing["metadata"]["labels"]["seen"] == "1", "{thing}");
            Ok(())
        };
        thing(&scene, name, "is decorated and guarded", check).await?;
    }
    scene.ctx.admin.delete(&scene.things, "gone").await?;
    let ask = async || {
        ensure!(scene.ctx.admin.find(&scene.things, "gone").await?.is_none(), "it is there");
        Ok(())
    };
    scene.ctx.wait("the deleted one goes", SOON, ask).await?;
    scene.no_map("gone", LATER).await?;
    let leave = json!({ "metadata": { "labels": { "tier": null } } });
    scene.ctx.admin.patch_merge(&scene.things, "left", &leave).await?;
    let check = |thing: &Value| {
        ensure!(thing["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty), "{thing}");
        ensure!(thing["metadata"].get("labels").is_none_or(|labels| labels.get("seen").is_none()), "{thing}");
        Ok(())
    };
    thing(&scene, "left", "is finalized, because it isn't selected any more", check).await?;
    scene.no_map("left", SOON).await?;
    let finals = scene.hook.calls().into_iter().filter(|call| call.path == "/finalize");
    ensure!(finals.count() >= 2, "the finalize hook wasn't called for each");
    Ok(())
}

async fn sharded(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let second = Ringmaster::start(&scene.ctx)?;
    scene.hook.set(obey);
    let annotation = format!("{}.ringmaster.dev/decorate", scene.ctx.id);
    let mut spec = spec(&scene, "InPlace");
    spec["sharding"] = json!({});
    spec["resyncPeriodSeconds"] = json!(1);
    spec["resources"] = json!([
        { "apiVersion": scene.things.api_version, "resource": "things" },
        { "apiVersion": "v1", "resource": "configmaps",
          "annotationSelector": { "matchAnnotations": { (annotation.clone()): "yes" } } },
    ]);
    declare(&scene, "d", spec).await?;
    for number in 0..20 {
        let attached = json!({ "labels": { "seen": "1" },
            "attachments": [config_map(&format!("of-p-{number}"), json!({ "x": "1" }))] });
        scene.thing(&format!("p-{number}"), attached).await?;
        let attached = json!({ "labels": { "seen": "1" },
            "attachments": [config_map(&format!("of-m-{number}"), json!({ "x": "1" }))] });
        let metadata = json!({ "name": format!("m-{number}"), "annotations": { (annotation.clone()): "yes" } });
        let map = json!({ "metadata": metadata, "data": { "reply": attached.to_string() } });
        scene.ctx.admin.create(&scene.maps, map).await?;
    }
    for number in 0..20 {
        for (kind, resource) in [("p", &scene.things), ("m", &scene.maps)] {
            let name = format!("{kind}-{number}");
            let ask = async || {
                let object = scene.ctx.admin.get(resource, &name).await?;
                let labels = &object["metadata"]["labels"];
                ensure!(labels["seen"] == "1" && labels["shard.ringmaster.dev/self"].is_string(), "{labels}");
                let attached = scene.ctx.admin.get(&scene.maps, &format!("of-{name}")).await?;
                let owner = &attached["metadata"]["labels"]["shard.ringmaster.dev/owner"];
                ensure!(*owner == labels["shard.ringmaster.dev/self"], "{attached}");
                Ok(())
            };
            scene.ctx.wait(&format!("{name} is decorated"), LATER, ask).await?;
        }
    }
    // Both work, once the shards have moved; each on its own part of both kinds.
    let ask = async || {
        let calls = scene.hook.calls();
        for kind in ["Thing", "ConfigMap"] {
            let calls = calls.iter().filter(|call| call.request["object"]["kind"] == kind);
            let members: BTreeSet<&str> = calls.map(|call| call.header("ringmaster-member")).collect();
            ensure!(members.len() == 2, "{kind}: {members:?}");
        }
        Ok(())
    };
    scene.ctx.wait("both members work on both kinds", BALANCE, ask).await?;
    // One goes: the other has all.
    ensure!(second.stop().await?.success());
    for number in 0..20 {
        scene.wants(&format!("p-{number}"), json!({ "labels": { "seen": "2" } })).await?;
    }
    for number in 0..20 {
        let ask = async || {
            let object = scene.ctx.admin.get(&scene.things, &format!("p-{number}")).await?;
            ensure!(object["metadata"]["labels"]["seen"] == "2", "{object}");
            Ok(())
        };
        scene.ctx.wait("it is decorated by the other", LATER, ask).await?;
    }
    for number in 0..20 {
        for kind in ["p", "m"] {
            scene.map(&format!("of-{kind}-{number}"), "is still there", |_| Ok(())).await?;
        }
    }
    Ok(())
}

/// Objects as the contract has them: `object` and `attachments` in the request, Rolling methods, the finalizer and the
/// annotation of that group, v1 keys.
async fn metacontroller(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(obey);
    let yaml = r#"
apiVersion: metacontroller.k8s.io/v1alpha1
kind: DecoratorController
spec:
  resources:
  - apiVersion: GROUP/v1
    resource: things
    labelSelector:
      matchLabels: {tier: gold}
    annotationSelector:
      matchExpressions:
      - {key: service-per-thing, operator: Exists}
  attachments:
  - apiVersion: v1
    resource: configmaps
    updateStrategy: {method: RollingInPlace}
  hooks:
    sync:
      webhook: {url: "HOOK/sync"}
    finalize:
      webhook: {url: "HOOK/finalize"}
"#;
    let yaml = yaml.replace("GROUP", &scene.ctx.group()).replace("HOOK", &scene.hook.url(""));
    let mut declared: Value = serde_saphyr::from_str(&yaml).map_err(|error| anyhow!("{error}"))?;
    let name = scene.ctx.controller_name("d");
    declared["metadata"] = json!({ "name": name, "labels": { "suite": scene.ctx.id } });
    let kind = Resource::new("metacontroller.k8s.io/v1alpha1", "DecoratorController", "decoratorcontrollers", None);
    let declared = scene.ctx.admin.create(&kind, declared).await?;
    scene.event(&declared, "Ignored", &["spec.attachments[0].updateStrategy.method", "InPlace"]).await?;
    let metadata = json!({ "name": "p", "labels": { "tier": "gold" }, "annotations": { "service-per-thing": "x" } });
    let spec = json!({
        // Read loosely: what isn't known is only logged.
        "reply": { "unknown": 1, "labels": { "seen": "1" }, "status": { "seen": true },
            "attachments": [config_map("a", json!({ "x": "1" }))] },
        "final": { "attachments": [], "finalized": true },
    });
    scene.ctx.admin.create(&scene.things, json!({ "metadata": metadata, "spec": spec })).await?;
    let finalizer = format!("metacontroller.io/decoratorcontroller-{name}");
    let check = |thing: &Value| {
        ensure!(thing["metadata"]["labels"] == json!({ "tier": "gold", "seen": "1" }), "{thing}");
        ensure!(thing["metadata"]["finalizers"] == json!([finalizer]) && thing["status"]["seen"] == true, "{thing}");
        Ok(())
    };
    thing(&scene, "p", "is decorated", check).await?;
    let check = |map: &Value| {
        let annotations = &map["metadata"]["annotations"];
        ensure!(annotations["metacontroller.k8s.io/decorator-controller"] == *name, "{map}");
        ensure!(annotations["metacontroller.k8s.io/last-applied-configuration"].is_string(), "{map}");
        Ok(())
    };
    let first = scene.map("a", "is attached", check).await?;
    scene.wants("p", json!({ "attachments": [config_map("a", json!({ "x": "2" }))] })).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "2" && map["metadata"]["uid"] == first["metadata"]["uid"], "{map}");
        Ok(())
    };
    scene.map("a", "is updated", check).await?;
    scene.quiet().await?;
    let call = scene.hook.calls_for(&scene.key("p")).pop().context("no call")?;
    ensure!(call.request["attachments"]["ConfigMap.v1"]["a"]["kind"] == "ConfigMap", "{}", call.request);
    ensure!(call.request["object"]["kind"] == "Thing", "{}", call.request);
    scene.ctx.admin.delete(&scene.things, "p").await?;
    let ask = async || {
        ensure!(scene.ctx.admin.find(&scene.things, "p").await?.is_none(), "it is there");
        Ok(())
    };
    scene.ctx.wait("it goes", SOON, ask).await?;
    scene.no_map("a", LATER).await
}
