//! Server-side apply of children: whose each field is, what is repaired, what a restart costs, and the way there.
//!
//! What holds however children are written is in `children`, which runs with the default, that is server-side too.

use anyhow::ensure;
use serde_json::{Value, json};

use super::scene::{LATER, NEVER, Scene, config_map};
use crate::cluster::Context;
use crate::objects::Resource;
use crate::process::Ringmaster;
use crate::trial::Case;
use crate::wait;

/// Children of the trial of a restart.
const CHILDREN: usize = 20;
const CREATED_AS: &str = "ringmaster.dev/created-as";
const LAST_APPLIED: &str = "ringmaster.dev/last-applied-configuration";

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("serverside", "fields_come_change_and_go", fields_come_change_and_go),
        Case::new("serverside", "items_come_and_go_by_key", items_come_and_go_by_key),
        Case::new("serverside", "drift_of_metadata_is_repaired", drift_of_metadata_is_repaired),
        Case::new("serverside", "a_strangers_object_is_left_alone", a_strangers_object_is_left_alone),
        Case::new("serverside", "nothing_is_made_anew_for_nothing", nothing_is_made_anew_for_nothing),
        Case::new("serverside", "a_restart_writes_nothing", a_restart_writes_nothing),
        Case::new("serverside", "merged_children_are_handed_over", merged_children_are_handed_over),
        Case::new("serverside", "by_metacontrollers_flags", by_metacontrollers_flags),
    ]
}

/// The fields of an entry of `managedFields`.
fn fields<'a>(object: &'a Value, manager: &str, operation: &str) -> Option<&'a Value> {
    let entries = object["metadata"]["managedFields"].as_array()?;
    let is_wanted = |entry: &&Value| entry["manager"] == manager && entry["operation"] == operation;
    entries.iter().find(is_wanted).map(|entry| &entry["fieldsV1"])
}

fn data(map: &Value, wanted: &Value) -> anyhow::Result<()> {
    ensure!(map["data"] == *wanted, "data is {}", map["data"]);
    Ok(())
}

/// Nobody writes an object for a while.
async fn stays(ctx: &Context, resource: &Resource, name: &str) -> anyhow::Result<()> {
    let version = ctx.admin.get(resource, name).await?["metadata"]["resourceVersion"].clone();
    wait::stays("the object is left alone", NEVER, async || {
        let object = ctx.admin.get(resource, name).await?;
        ensure!(object["metadata"]["resourceVersion"] == version, "{object}");
        Ok(())
    })
    .await
}

async fn fields_come_change_and_go(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    scene.thing("p", json!({ "children": [config_map("a", json!({ "x": "1", "y": "1" }))] })).await?;
    let made = scene.map("a", "is there", |map| data(map, &json!({ "x": "1", "y": "1" }))).await?;
    let annotations = &made["metadata"]["annotations"];
    ensure!(annotations[CREATED_AS].is_string() && annotations[LAST_APPLIED].is_null(), "{made}");
    ensure!(fields(&made, "ringmaster-create", "Update").is_some(), "{made}");
    scene.ctx.admin.patch_merge(&scene.maps, "a", &json!({ "data": { "z": "theirs" } })).await?;
    for (x, wanted) in [("2", json!({ "x": "2", "z": "theirs" })), ("3", json!({ "x": "3", "z": "theirs" }))] {
        let reply = json!([config_map("a", json!({ "x": x }))]);
        scene.wants("p", json!({ "children": reply })).await?;
        let map = scene.map("a", "has the fields that are wanted and theirs", |map| data(map, &wanted)).await?;
        ensure!(map["metadata"]["uid"] == made["metadata"]["uid"], "{map}");
        ensure!(map["metadata"]["annotations"][CREATED_AS].is_null(), "{map}");
        ensure!(fields(&map, "ringmaster-create", "Update").is_none(), "{map}");
        let ours = fields(&map, "ringmaster", "Apply");
        ensure!(ours.is_some_and(|ours| ours["f:data"]["f:x"].is_object() && ours["f:data"]["f:z"].is_null()), "{map}");
    }
    scene.quiet().await?;
    stays(&scene.ctx, &scene.maps, "a").await
}

/// Waits until a Service has ports of these names, sorted.
async fn has_ports(scene: &Scene, services: &Resource, wanted: &[&str]) -> anyhow::Result<()> {
    let ask = async || {
        let there = scene.ctx.admin.get(services, "s").await?;
        let ports = there["spec"]["ports"].as_array().into_iter().flatten();
        let mut names: Vec<&str> = ports.filter_map(|port| port["name"].as_str()).collect();
        names.sort_unstable();
        ensure!(names == wanted, "{names:?}");
        Ok(())
    };
    scene.ctx.wait("the Service has its ports", LATER, ask).await
}

async fn items_come_and_go_by_key(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let services = scene.ctx.namespaced("v1", "Service", "services");
    scene.ctx.grant(&Context::rules_for(&[&services])).await?;
    let mut spec = scene.spec("InPlace");
    spec["childResources"] =
        json!([{ "apiVersion": "v1", "resource": "services", "updateStrategy": { "method": "InPlace" } }]);
    scene.ctx.controller("c", spec).await?;
    let service = |ports: Value| {
        json!({ "children": [{ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s" },
            "spec": { "clusterIP": "None", "selector": { "a": "b" }, "ports": ports } }] })
    };
    scene.thing("p", service(json!([{ "name": "a", "port": 80 }, { "name": "b", "port": 81 }]))).await?;
    has_ports(&scene, &services, &["a", "b"]).await?;
    let theirs = json!([{ "op": "add", "path": "/spec/ports/-", "value": { "name": "z", "port": 99 } }]);
    let path = services.object("s");
    scene.ctx.admin.send(http::Method::PATCH, &path, "application/json-patch+json", Some(&theirs)).await?;
    scene.wants("p", service(json!([{ "name": "a", "port": 80 }, { "name": "c", "port": 82 }]))).await?;
    // One is gone, one is new, one is theirs.
    has_ports(&scene, &services, &["a", "c", "z"]).await?;
    scene.quiet().await?;
    stays(&scene.ctx, &services, "s").await
}

async fn drift_of_metadata_is_repaired(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let mut child = config_map("a", json!({ "x": "1" }));
    child["metadata"]["labels"] = json!({ "ours": "1" });
    child["metadata"]["annotations"] = json!({ "ours": "1", "gone": "1" });
    scene.thing("p", json!({ "children": [child] })).await?;
    scene.map("a", "is there", |map| data(map, &json!({ "x": "1" }))).await?;
    // Twice: as it was created, and as it was applied.
    for theirs in ["2", "3"] {
        let drift = json!({ "metadata": {
            "labels": { "ours": theirs, "theirs": theirs },
            "annotations": { "ours": theirs, "gone": null, "theirs": theirs },
        }});
        scene.ctx.admin.patch_merge(&scene.maps, "a", &drift).await?;
        let repaired = |map: &Value| {
            let metadata = &map["metadata"];
            ensure!(metadata["labels"]["ours"] == "1" && metadata["labels"]["theirs"] == theirs, "{metadata}");
            let annotations = &metadata["annotations"];
            ensure!(annotations == &json!({ "ours": "1", "gone": "1", "theirs": theirs }), "{annotations}");
            Ok(())
        };
        scene.map("a", "is repaired", repaired).await?;
        scene.quiet().await?;
    }
    stays(&scene.ctx, &scene.maps, "a").await
}

async fn a_strangers_object_is_left_alone(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let theirs = json!({ "metadata": { "name": "a" }, "data": { "x": "theirs" } });
    let before = scene.ctx.admin.create(&scene.maps, theirs).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let thing = scene.thing("p", json!({ "children": [config_map("a", json!({ "x": "1" }))] })).await?;
    scene.event(&thing, "SyncError", &["ConfigMap", "left alone"]).await?;
    let after = scene.ctx.admin.get(&scene.maps, "a").await?;
    ensure!(after["metadata"] == before["metadata"] && after["data"] == before["data"], "{after}");
    Ok(())
}

async fn nothing_is_made_anew_for_nothing(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("Recreate")).await?;
    let mut child = config_map("a", json!({ "x": "1" }));
    scene.thing("p", json!({ "children": [child] })).await?;
    let made = scene.map("a", "is there", |map| data(map, &json!({ "x": "1" }))).await?;
    scene.quiet().await?;
    // Said otherwise, and the same to the API server, which drops what is empty.
    child["binaryData"] = json!({});
    scene.wants("p", json!({ "children": [child] })).await?;
    scene.synced("p").await?;
    scene.quiet().await?;
    let map = scene.ctx.admin.get(&scene.maps, "a").await?;
    ensure!(map["metadata"]["uid"] == made["metadata"]["uid"], "it was made anew: {map}");
    scene.wants("p", json!({ "children": [config_map("a", json!({ "y": "2" }))] })).await?;
    let map = scene.map("a", "has the new data alone", |map| data(map, &json!({ "y": "2" }))).await?;
    ensure!(map["metadata"]["uid"] != made["metadata"]["uid"], "it was updated, not made anew: {map}");
    Ok(())
}

async fn a_restart_writes_nothing(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let children = |x: &str| {
        let children = (0..CHILDREN).map(|n| config_map(&format!("a{n}"), json!({ "x": if n < 5 { x } else { "1" } })));
        json!({ "children": children.collect::<Vec<Value>>() })
    };
    scene.thing("p", children("1")).await?;
    scene.synced("p").await?;
    // Some were applied, the others are as they were created.
    scene.wants("p", children("2")).await?;
    scene.synced("p").await?;
    scene.map("a0", "is applied", |map| data(map, &json!({ "x": "2" }))).await?;
    scene.quiet().await?;
    let Scene { ringmaster, hook, things, maps, ctx } = scene;
    ensure!(ringmaster.stop().await?.success());
    hook.clear();
    let mark = ctx.mark()?;
    let _again = Ringmaster::start(&ctx)?;
    let key = format!("{}/p", ctx.namespace);
    ctx.wait("it is synced again", LATER, async || {
        ensure!(!hook.calls_for(&key).is_empty(), "no call");
        Ok(())
    })
    .await?;
    wait::stays("no write to an object", NEVER, async || {
        let requests = ctx.requests(mark)?;
        let written = requests
            .iter()
            .filter(|request| request.is_write() && [&things.plural, &maps.plural].contains(&&request.resource));
        let written: Vec<_> = written.collect();
        ensure!(written.is_empty(), "{written:?}");
        Ok(())
    })
    .await
}

async fn merged_children_are_handed_over(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let mut spec = scene.spec("InPlace");
    spec["applyStrategy"] = "Merge".into();
    scene.ctx.controller("c", spec).await?;
    scene.thing("p", json!({ "children": [config_map("a", json!({ "x": "1", "y": "1" }))] })).await?;
    let annotated = |map: &Value| {
        ensure!(map["metadata"]["annotations"][LAST_APPLIED].is_string(), "{map}");
        Ok(())
    };
    let made = scene.map("a", "is merged", annotated).await?;
    let name = scene.ctx.controller_name("c");
    let server_side = json!({ "spec": { "applyStrategy": "ServerSide" } });
    scene.ctx.admin.patch_merge(&Context::controllers(), &name, &server_side).await?;
    let applied = |map: &Value| {
        ensure!(map["metadata"]["annotations"][LAST_APPLIED].is_null(), "{map}");
        ensure!(fields(map, "ringmaster", "Apply").is_some() && fields(map, "ringmaster", "Update").is_none(), "{map}");
        Ok(())
    };
    let map = scene.map("a", "is applied", applied).await?;
    ensure!(map["metadata"]["uid"] == made["metadata"]["uid"], "{map}");
    // What was merged before is ours to drop.
    scene.wants("p", json!({ "children": [config_map("a", json!({ "x": "1" }))] })).await?;
    scene.map("a", "has lost the field", |map| data(map, &json!({ "x": "1" }))).await?;
    // And back.
    let merge = json!({ "spec": { "applyStrategy": "Merge" } });
    scene.ctx.admin.patch_merge(&Context::controllers(), &name, &merge).await?;
    scene.map("a", "is merged again", annotated).await?;
    scene.wants("p", json!({ "children": [config_map("a", json!({ "z": "1" }))] })).await?;
    scene.map("a", "has the new field alone", |map| data(map, &json!({ "z": "1" }))).await?;
    Ok(())
}

async fn by_metacontrollers_flags(ctx: Context) -> anyhow::Result<()> {
    let args = ["--apply-strategy=server-side-apply", "--apply-strategy-ssa-field-manager=me"].map(str::to_owned);
    let scene = Scene::with_args(ctx, &args).await?;
    let controllers =
        Resource::new("metacontroller.k8s.io/v1alpha1", "CompositeController", "compositecontrollers", None);
    let metadata = json!({ "name": scene.ctx.controller_name("c"), "labels": { "suite": scene.ctx.id } });
    scene.ctx.admin.create(&controllers, json!({ "metadata": metadata, "spec": scene.spec("InPlace") })).await?;
    scene.thing("p", json!({ "children": [config_map("a", json!({ "x": "1", "y": "1" }))] })).await?;
    let ours = |map: &Value, wanted: &Value| {
        data(map, wanted)?;
        ensure!(fields(map, "me", "Apply").is_some_and(|ours| ours["f:data"]["f:x"].is_object()), "{map}");
        ensure!(fields(map, "ringmaster-create", "Update").is_none(), "{map}");
        ensure!(map["metadata"]["annotations"].is_null(), "{map}");
        Ok(())
    };
    scene.map("a", "is created and handed over", |map| ours(map, &json!({ "x": "1", "y": "1" }))).await?;
    scene.wants("p", json!({ "children": [config_map("a", json!({ "x": "2" }))] })).await?;
    scene.map("a", "is applied", |map| ours(map, &json!({ "x": "2" }))).await?;
    scene.quiet().await?;
    stays(&scene.ctx, &scene.maps, "a").await
}
