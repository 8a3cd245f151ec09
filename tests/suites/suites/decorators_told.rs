//! Decorators: what their hooks and their declarations may not say, and what they leave alone.
//!
//! Never about what they do when all is well: see `decorators`.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cluster::Context;
use crate::hook::Reply;
use crate::objects::{self, Resource};
use crate::server::served;
use crate::suites::decorators::{declare, decorators, obey, ready, scene, spec, thing};
use crate::suites::scene::{SOON, Scene, config_map, event};
use crate::trial::Case;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("decorators_told", "a_kind_without_status", without_status),
        Case::new("decorators_told", "what_others_made_is_left_alone", strangers),
        Case::new("decorators_told", "bad_replies_change_nothing_and_are_told", bad_replies),
        Case::new("decorators_told", "bad_declarations_are_told", bad_declarations),
    ]
}

async fn without_status(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(obey);
    let group = format!("bare.{}", scene.ctx.group());
    let mut crd = objects::crd(&group, "Bare", "bares", "Namespaced", None);
    crd["metadata"]["labels"] = json!({ "suite": scene.ctx.id });
    if let Some(version) = crd["spec"]["versions"][0].as_object_mut() {
        version.remove("subresources");
    }
    served(&scene.ctx.admin, &scene.ctx.admin.apply(&crd).await?).await?;
    let bares = Resource::new(&format!("{group}/v1"), "Bare", "bares", Some(&scene.ctx.namespace));
    scene.ctx.grant(&Context::rules_for(&[&bares])).await?;
    let mut spec = spec(&scene, "InPlace");
    spec["resources"] = json!([{ "apiVersion": bares.api_version, "resource": "bares" }]);
    declare(&scene, "d", spec).await?;
    let body = |name: &str, reply: Value| json!({ "metadata": { "name": name }, "spec": { "reply": reply } });
    scene.ctx.admin.create(&bares, body("fine", json!({ "labels": { "seen": "1" } }))).await?;
    let ask = async || {
        let bare = scene.ctx.admin.get(&bares, "fine").await?;
        ensure!(bare["metadata"]["labels"]["seen"] == "1", "{bare}");
        Ok(())
    };
    scene.ctx.wait("it is decorated", SOON, ask).await?;
    let reply = json!({ "labels": { "seen": "1" }, "status": { "ready": true } });
    let bad = scene.ctx.admin.create(&bares, body("bad", reply)).await?;
    event(&scene.ctx, &bad, "SyncError", &["status: Bare", "has no status subresource"]).await?;
    let bad = scene.ctx.admin.get(&bares, "bad").await?;
    ensure!(bad["metadata"].get("labels").is_none(), "nothing of it is done: {bad}");
    Ok(())
}

async fn strangers(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx, "InPlace").await?;
    // A composite of the same name has things as parents too, and an orphan lies about.
    scene.ctx.admin.create(&scene.maps, config_map("orphan", json!({ "x": "0" }))).await?;
    let mut composite = scene.spec("InPlace");
    composite["hooks"]["sync"]["webhook"]["url"] = scene.hook.url("/composite").into();
    scene.hook.set(|request, info| {
        if info.path != "/composite" {
            return obey(request, info);
        }
        Reply::json(&json!({ "children": [config_map("theirs", json!({ "x": "1" }))] }))
    });
    scene.ctx.controller("d", composite).await?;
    let reply = json!({ "attachments": [config_map("ours", json!({ "x": "1" }))] });
    let made = scene.thing("p", reply).await?;
    let theirs = scene.map("theirs", "is made", |_| Ok(())).await?;
    ensure!(theirs["metadata"]["annotations"].get("ringmaster.dev/decorator-controller").is_none(), "{theirs}");
    scene.map("ours", "is made", |_| Ok(())).await?;
    scene.quiet().await?;
    let calls = scene.hook.calls_for(&scene.key("p"));
    let seen = calls.iter().filter(|call| call.path == "/sync");
    for call in seen {
        let attachments = &call.request["attachments"]["ConfigMap.v1"];
        ensure!(attachments.get(scene.key("theirs")).is_none(), "{attachments}");
    }
    for (name, words) in
        [("theirs", "belongs to the object, but isn't this controller's"), ("orphan", "isn't the object's")]
    {
        scene.wants("p", json!({ "attachments": [config_map(name, json!({ "x": "9" }))] })).await?;
        scene.event(&made, "SyncError", &[name, words]).await?;
        let left = scene.ctx.admin.get(&scene.maps, name).await?;
        ensure!(left["data"]["x"] != "9", "{left}");
    }
    Ok(())
}

async fn bad_replies(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx, "InPlace").await?;
    let mut elsewhere = config_map("a", json!({}));
    elsewhere["metadata"]["namespace"] = "default".into();
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" } });
    for (number, (reply, words)) in [
        (json!({ "labels": { "a b": "1" } }), ["labels: ", "a b"]),
        (json!({ "labels": { "a": "no value" } }), ["labels: [a]", "value"]),
        (json!({ "annotations": { "a": 1 } }), ["annotations: ", "string"]),
        (json!({ "labels": { "x": "1" }, "children": [] }), ["children: unknown field", "attachments"]),
        (json!({ "labels": { "x": "1" }, "attachments": [secret] }), ["attachments[0] (Secret s)", "spec.attachments"]),
        (json!({ "labels": { "x": "1" }, "attachments": [elsewhere] }), ["attachments[0]", "metadata.namespace"]),
        (json!({ "status": "x" }), ["status: ", "object or null"]),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("p-{number}");
        let made = scene.thing(&name, reply).await?;
        scene.event(&made, "SyncError", &words).await?;
        let left = scene.ctx.admin.get(&scene.things, &name).await?;
        ensure!(left["metadata"].get("labels").is_none() && left.get("status").is_none(), "{left}");
        // It is put right.
        let right = json!({ "spec": { "reply": null } });
        scene.ctx.admin.patch_merge(&scene.things, &name, &right).await?;
        let right = json!({ "spec": { "reply": { "labels": { "right": "1" } } } });
        scene.ctx.admin.patch_merge(&scene.things, &name, &right).await?;
        let check = |thing: &Value| {
            ensure!(thing["metadata"]["labels"] == json!({ "right": "1" }), "{thing}");
            Ok(())
        };
        thing(&scene, &name, "is synced", check).await?;
    }
    Ok(())
}

async fn bad_declarations(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let metadata = |name: &str| json!({ "name": scene.ctx.controller_name(name), "labels": { "suite": scene.ctx.id } });
    let create = async |spec: Value| {
        let body = json!({ "metadata": metadata("refused"), "spec": spec });
        let made = scene.ctx.admin.create(&decorators(), body).await;
        Ok::<_, anyhow::Error>(format!("{:#}", made.err().context("the API server takes it")?))
    };
    let good = spec(&scene, "InPlace");
    let with = |pointer: &str, value: Value| {
        let mut spec = good.clone();
        *spec.pointer_mut(pointer).unwrap_or(&mut Value::Null) = value;
        spec
    };
    for (spec, words) in [
        (with("/resources", json!([])), "spec.resources"),
        (with("/resources/0/resource", json!("Things")), "resource: must be the plural name"),
        (with("/resources/0/apiVersion", json!("a/b/c")), "apiVersion: must be group/version"),
        (with("/attachments/0/updateStrategy/method", json!("RollingInPlace")), "Unsupported value"),
        (with("/hooks", json!({})), "sync"),
    ] {
        let told = create(spec).await?;
        ensure!(told.contains(words), "{words}: {told}");
    }
    // What only a look at the cluster shows. The good half of it waits too.
    let mut spec = good.clone();
    spec["resources"] = json!([
        { "apiVersion": scene.things.api_version, "resource": "things" },
        { "apiVersion": "none.example/v1", "resource": "nothings" },
    ]);
    let body = json!({ "metadata": metadata("absent"), "spec": spec });
    scene.ctx.admin.create(&decorators(), body).await?;
    let told = ready(&scene, "absent", ["Ready", "False"]).await?;
    ensure!(told.contains("spec.resources[1]") && told.contains("nothings"), "{told}");
    let mut spec = good.clone();
    spec["resources"] = json!([{ "apiVersion": "v1", "resource": "configmaps" }]);
    let body = json!({ "metadata": metadata("endless"), "spec": spec });
    scene.ctx.admin.create(&decorators(), body).await?;
    let told = ready(&scene, "endless", ["Accepted", "False"]).await?;
    ensure!(told.contains("spec.attachments[0]") && told.contains("without end"), "{told}");
    Ok(())
}
