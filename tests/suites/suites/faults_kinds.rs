//! Kinds and namespaces that go, come, and change beneath running controllers, one trial each: the cause is told, others
//! go on, nobody else's objects are touched, and all is well once it is mended.
//!
//! Never about rights: see `faults_rights`. A parent kind that comes later is in `errors_setting`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::faults_hook::well;
use super::scene::{LATER, NEVER, SOON, Scene, config_map, spec};
use crate::cluster::{Context, Scope};
use crate::objects::{Resource, code};
use crate::server;
use crate::trial::Case;
use crate::wait;

/// How long the end of a kind or a namespace may take: both servers clean up by themselves.
const GONE: Duration = Duration::from_secs(60);
/// Watches of a kind that goes end within a minute, and then it is looked up again.
pub(super) const NOTICED: Duration = Duration::from_secs(100);
/// For trials that wait for that.
pub(super) const SLOW: Duration = Duration::from_secs(420);
/// What may be asked for in vain until a kind's end is noticed.
const IN_VAIN: usize = 60;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let slow = |case: Case| case.timeout(SLOW);
    vec![
        slow(Case::new("faults_kinds", "parent_kind_goes_and_comes_back", parent_kind_goes)),
        slow(Case::new("faults_kinds", "parent_version_goes_and_comes_back", parent_version_goes).own_server()),
        slow(Case::new("faults_kinds", "parent_kind_loses_its_status_and_gets_it_back", parent_status_goes)),
        slow(Case::new("faults_kinds", "parent_kind_made_anew_with_another_scope", parent_scope_changes)),
        Case::new("faults_kinds", "child_kind_comes_later", child_kind_comes_later),
        slow(Case::new("faults_kinds", "child_kind_goes_and_comes_back", child_kind_goes)),
        slow(Case::new("faults_kinds", "controllers_kind_goes_and_comes_back", controllers_kind_goes)).own_server(),
        Case::new("faults_kinds", "child_in_a_namespace_that_is_not_there", no_namespace),
        slow(Case::new("faults_kinds", "namespace_goes_under_running_syncs", namespace_goes)),
    ]
}

pub(super) fn crds() -> Resource {
    Resource::new("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", None)
}

pub(super) fn crd_name(kind: &Resource) -> String {
    format!("{}.{}", kind.plural, kind.group())
}

/// Deletes a CRD and waits until it is gone.
pub(super) async fn remove(ctx: &Context, name: &str) -> anyhow::Result<()> {
    ensure!(ctx.admin.delete(&crds(), name).await?, "no CRD {name}");
    let ask = async || {
        ensure!(ctx.admin.find(&crds(), name).await?.is_none(), "it is there");
        Ok(())
    };
    ctx.wait(&format!("CRD {name} is gone"), GONE, ask).await
}

/// A thing that wants a ConfigMap of this name.
async fn thing(ctx: &Context, kind: &Resource, name: &str, map: &str) -> anyhow::Result<Value> {
    let reply = json!({ "children": [config_map(map, json!({ "x": "1" }))] });
    ctx.admin.create(kind, json!({ "metadata": { "name": name }, "spec": { "reply": reply } })).await
}

async fn there(ctx: &Context, kind: &Resource, name: &str) -> anyhow::Result<Value> {
    let ask = async || ctx.admin.get(kind, name).await;
    ctx.wait(&format!("{} {name} is made", kind.kind), LATER, ask).await
}

/// A second controller, from another kind to ConfigMaps, with a parent whose child is `others`; the kind and that child.
async fn other(scene: &Scene) -> anyhow::Result<(Resource, Value)> {
    let others = scene.ctx.crd("Other", "others", Scope::Namespaced, None).await?;
    scene.ctx.grant(&Context::rules_for(&[&others])).await?;
    scene.ctx.controller("other", spec(&others, &scene.hook.url("/sync"), "InPlace")).await?;
    thing(&scene.ctx, &others, "o", "others").await?;
    let child = there(&scene.ctx, &scene.maps, "others").await?;
    Ok((others, child))
}

/// The other controller serves, and its first child is the same.
async fn other_goes_on(scene: &Scene, (others, child): &(Resource, Value), name: &str) -> anyhow::Result<()> {
    thing(&scene.ctx, others, name, name).await?;
    there(&scene.ctx, &scene.maps, name).await?;
    let now = scene.ctx.admin.get(&scene.maps, "others").await?;
    ensure!(now["metadata"]["resourceVersion"] == child["metadata"]["resourceVersion"], "it was touched: {now}");
    // What the new one needs is done, and counts for nothing that follows.
    scene.quiet().await?;
    well(&scene.ctx, "other").await
}

/// Ringmaster deleted nothing.
fn no_deletions(ctx: &Context) -> anyhow::Result<()> {
    let deletes: Vec<_> = ctx.all_requests()?.into_iter().filter(|r| r.verb.starts_with("delete")).collect();
    ensure!(deletes.is_empty(), "{deletes:?}");
    Ok(())
}

/// Waits for the condition `Ready` of a controller to have this reason; answers with its message.
pub(super) async fn condition_within(
    ctx: &Context,
    controller: &str,
    reason: &str,
    deadline: Duration,
) -> anyhow::Result<String> {
    let name = ctx.controller_name(controller);
    let ask = async || {
        let object = ctx.admin.get(&Context::controllers(), &name).await?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.into_iter().find(|c| c["type"] == "Ready").context("no condition")?;
        ensure!(ready["reason"] == reason, "{ready}");
        Ok(ready["message"].as_str().unwrap_or_default().to_owned())
    };
    ctx.wait(&format!("{controller} is {reason}"), deadline, ask).await
}

async fn parent_kind_goes(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let controller = scene.ctx.controller("c", scene.spec("InPlace")).await?;
    thing(&scene.ctx, &scene.things, "p", "a").await?;
    there(&scene.ctx, &scene.maps, "a").await?;
    let other = other(&scene).await?;
    remove(&scene.ctx, &crd_name(&scene.things)).await?;
    let message = condition_within(&scene.ctx, "c", "ParentKindNotServed", NOTICED).await?;
    ensure!(message.contains("spec.parentResource") && message.contains("things"), "{message}");
    scene.event(&controller, "CreateError", &["spec.parentResource", "things"]).await?;
    // Its owner is gone: whether and when it is collected isn't our business.
    other_goes_on(&scene, &other, "meanwhile").await?;
    scene.no_call("no hook is called for parents that can't be").await?;
    scene.ctx.crd("Thing", "things", Scope::Namespaced, None).await?;
    let new = thing(&scene.ctx, &scene.things, "p", "b").await?;
    let made = there(&scene.ctx, &scene.maps, "b").await?;
    ensure!(made["metadata"]["ownerReferences"][0]["uid"] == new["metadata"]["uid"], "{made}");
    well(&scene.ctx, "c").await?;
    other_goes_on(&scene, &other, "afterwards").await?;
    no_deletions(&scene.ctx)?;
    scene.ringmaster.check()
}

/// The versions of a CRD of things: `v1` is served or not, `v2` always is and keeps them.
pub(super) fn versions(served: bool) -> Value {
    let schema = json!({ "openAPIV3Schema": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } });
    let version = |name: &str, served: bool, storage: bool| {
        json!({
            "name": name, "served": served, "storage": storage, "schema": schema, "subresources": { "status": {} },
        })
    };
    json!({ "spec": { "versions": [version("v1", served, false), version("v2", true, true)] } })
}

/// The same kind in the version that is always served.
fn in_v2(kind: &Resource) -> Resource {
    Resource { api_version: kind.api_version.replace("/v1", "/v2"), ..kind.clone() }
}

/// Changes an object in the version that is always served. An API server whose kind has just changed may not know that for
/// a moment.
pub(super) async fn patch_v2(ctx: &Context, kind: &Resource, name: &str, patch: &Value) -> anyhow::Result<()> {
    let ask = async || ctx.admin.patch_merge(&in_v2(kind), name, patch).await.map(drop);
    ctx.wait(&format!("{name} takes a change in v2"), SOON, ask).await
}

async fn parent_version_goes(ctx: Context) -> anyhow::Result<()> {
    ctx.server.stop_collecting()?;
    let scene = Scene::new(ctx).await?;
    let name = crd_name(&scene.things);
    scene.ctx.admin.patch_merge(&crds(), &name, &versions(true)).await?;
    server::served(&scene.ctx.admin, &scene.ctx.admin.get(&crds(), &name).await?).await?;
    let controller = scene.ctx.controller("c", scene.spec("InPlace")).await?;
    thing(&scene.ctx, &scene.things, "p", "a").await?;
    let child = there(&scene.ctx, &scene.maps, "a").await?;
    scene.synced("p").await?;
    let other = other(&scene).await?;
    scene.ctx.admin.patch_merge(&crds(), &name, &versions(false)).await?;
    let message = condition_within(&scene.ctx, "c", "ParentKindNotServed", NOTICED).await?;
    ensure!(message.contains(&scene.things.api_version) && message.contains("things"), "{message}");
    scene.event(&controller, "CreateError", &["spec.parentResource", &scene.things.api_version]).await?;
    other_goes_on(&scene, &other, "meanwhile").await?;
    // Changed where it can still be seen.
    let reply = json!({ "children": [config_map("a", json!({ "x": "2" }))] });
    patch_v2(&scene.ctx, &scene.things, "p", &json!({ "spec": { "reply": reply } })).await?;
    scene.no_call("nothing is synced").await?;
    let same = async || {
        let now = scene.ctx.admin.get(&scene.maps, "a").await?;
        ensure!(now["metadata"]["resourceVersion"] == child["metadata"]["resourceVersion"], "{now}");
        Ok(())
    };
    wait::stays("its child is left alone", NEVER, same).await?;
    scene.ctx.admin.patch_merge(&crds(), &name, &versions(true)).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "2", "{}", map["data"]);
        ensure!(map["metadata"]["uid"] == child["metadata"]["uid"], "it was made anew");
        Ok(())
    };
    scene.map("a", "is updated", check).await?;
    well(&scene.ctx, "c").await?;
    no_deletions(&scene.ctx)
}

async fn parent_status_goes(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let controller = scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let first = thing(&scene.ctx, &scene.things, "p", "a").await?;
    there(&scene.ctx, &scene.maps, "a").await?;
    scene.synced("p").await?;
    let other = other(&scene).await?;
    let subresources = async |value: Value| {
        let name = crd_name(&scene.things);
        let mut version = scene.ctx.admin.get(&crds(), &name).await?["spec"]["versions"][0].clone();
        version["subresources"] = value;
        scene.ctx.admin.patch_merge(&crds(), &name, &json!({ "spec": { "versions": [version] } })).await
    };
    subresources(json!({})).await?;
    // No longer noticed by itself: a status must be wanted.
    scene.wants("p", json!({ "status": { "x": 1 } })).await?;
    let message = condition_within(&scene.ctx, "c", "ParentHasNoStatus", NOTICED).await?;
    ensure!(message.contains("status") && message.contains("CRD"), "{message}");
    scene.event(&controller, "CreateError", &["status subresource"]).await?;
    ensure!(scene.calls("p") < IN_VAIN, "{} calls", scene.calls("p"));
    other_goes_on(&scene, &other, "meanwhile").await?;
    subresources(json!({ "status": {} })).await?;
    let ask = async || {
        let thing = scene.ctx.admin.get(&scene.things, "p").await?;
        ensure!(thing["status"]["x"] == 1 && thing["metadata"]["uid"] == first["metadata"]["uid"], "{thing}");
        Ok(())
    };
    scene.ctx.wait("the status is written", LATER, ask).await?;
    well(&scene.ctx, "c").await?;
    no_deletions(&scene.ctx)
}

async fn parent_scope_changes(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    thing(&scene.ctx, &scene.things, "p", "a").await?;
    there(&scene.ctx, &scene.maps, "a").await?;
    let other = other(&scene).await?;
    remove(&scene.ctx, &crd_name(&scene.things)).await?;
    // Before anybody has noticed, maybe.
    let things = scene.ctx.crd("Thing", "things", Scope::Cluster, None).await?;
    let mut map = config_map("b", json!({}));
    map["metadata"]["namespace"] = scene.ctx.namespace.clone().into();
    let reply = json!({ "children": [map], "status": { "x": 1 } });
    scene.ctx.admin.create(&things, json!({ "metadata": { "name": "p" }, "spec": { "reply": reply } })).await?;
    let ask = async || {
        let thing = scene.ctx.admin.get(&things, "p").await?;
        ensure!(thing["status"]["x"] == 1, "{thing}");
        Ok(())
    };
    scene.ctx.wait("it is synced as what it is now", NOTICED, ask).await?;
    there(&scene.ctx, &scene.maps, "b").await?;
    well(&scene.ctx, "c").await?;
    other_goes_on(&scene, &other, "afterwards").await?;
    no_deletions(&scene.ctx)
}

/// The spec of a controller with Sprockets besides ConfigMaps as children.
fn with_sprockets(scene: &Scene, sprockets: &Resource) -> Value {
    let mut spec = scene.spec("InPlace");
    if let Some(kinds) = spec["childResources"].as_array_mut() {
        let method = json!({ "method": "InPlace" });
        kinds.push(json!({ "apiVersion": sprockets.api_version, "resource": "sprockets", "updateStrategy": method }));
    }
    spec
}

fn sprocket(kind: &Resource, name: &str) -> Value {
    json!({ "apiVersion": kind.api_version, "kind": "Sprocket", "metadata": { "name": name }, "spec": { "size": 1 } })
}

async fn child_kind_comes_later(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let sprockets = scene.ctx.namespaced(&format!("{}/v1", scene.ctx.group()), "Sprocket", "sprockets");
    scene.ctx.grant(&Context::rules_for(&[&sprockets])).await?;
    let other = other(&scene).await?;
    let controller = scene.ctx.controller("c", with_sprockets(&scene, &sprockets)).await?;
    let reply = json!({ "children": [config_map("a", json!({})), sprocket(&sprockets, "s")] });
    scene.thing("p", reply).await?;
    let message = scene.condition("c", ["Ready", "False", "ChildKindNotServed"]).await?;
    ensure!(message.contains("spec.childResources[1]") && message.contains("sprockets"), "{message}");
    scene.event(&controller, "CreateError", &["spec.childResources[1]", "sprockets", "CRD"]).await?;
    ensure!(scene.calls("p") == 0, "a controller that can't see its children called its hook");
    other_goes_on(&scene, &other, "meanwhile").await?;
    scene.ctx.crd("Sprocket", "sprockets", Scope::Namespaced, None).await?;
    there(&scene.ctx, &sprockets, "s").await?;
    there(&scene.ctx, &scene.maps, "a").await?;
    well(&scene.ctx, "c").await?;
    // Looked up now and then, not all the time.
    let lookups = scene.ctx.all_requests()?.into_iter().filter(|r| r.uri.ends_with(&sprockets.api_version)).count();
    ensure!(lookups < 20, "{lookups} look-ups");
    Ok(())
}

async fn child_kind_goes(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let sprockets = scene.ctx.crd("Sprocket", "sprockets", Scope::Namespaced, None).await?;
    scene.ctx.grant(&Context::rules_for(&[&sprockets])).await?;
    let other = other(&scene).await?;
    let controller = scene.ctx.controller("c", with_sprockets(&scene, &sprockets)).await?;
    let reply = json!({ "children": [config_map("a", json!({})), sprocket(&sprockets, "s")] });
    scene.thing("p", reply).await?;
    let old = there(&scene.ctx, &sprockets, "s").await?;
    let map = there(&scene.ctx, &scene.maps, "a").await?;
    scene.synced("p").await?;
    remove(&scene.ctx, &crd_name(&sprockets)).await?;
    let message = condition_within(&scene.ctx, "c", "ChildKindNotServed", NOTICED).await?;
    ensure!(message.contains("spec.childResources[1]") && message.contains("sprockets"), "{message}");
    scene.event(&controller, "CreateError", &["spec.childResources[1]", "sprockets"]).await?;
    ensure!(scene.calls("p") < IN_VAIN, "{} calls", scene.calls("p"));
    other_goes_on(&scene, &other, "meanwhile").await?;
    scene.ctx.crd("Sprocket", "sprockets", Scope::Namespaced, None).await?;
    let new = there(&scene.ctx, &sprockets, "s").await?;
    ensure!(new["metadata"]["uid"] != old["metadata"]["uid"]);
    let now = scene.ctx.admin.get(&scene.maps, "a").await?;
    ensure!(now["metadata"]["resourceVersion"] == map["metadata"]["resourceVersion"], "its sibling was touched: {now}");
    well(&scene.ctx, "c").await?;
    no_deletions(&scene.ctx)
}

async fn controllers_kind_goes(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    thing(&scene.ctx, &scene.things, "p", "a").await?;
    let child = there(&scene.ctx, &scene.maps, "a").await?;
    scene.synced("p").await?;
    let name = "compositecontrollers.ringmaster.dev";
    let mut crd = scene.ctx.admin.get(&crds(), name).await?;
    remove(&scene.ctx, name).await?;
    let line = scene.ringmaster.wait_log(&scene.ctx, "aren't served any more", NOTICED).await?;
    ensure!(line.contains("WARN") && line.contains("ringmaster.dev") && line.contains("CRD"), "{line}");
    // No controller, no sync; and what it made stays.
    scene.quiet().await?;
    scene.wants("p", json!({ "children": [config_map("a", json!({ "x": "2" }))] })).await?;
    scene.no_call("its controller is gone").await?;
    let same = scene.ctx.admin.get(&scene.maps, "a").await?;
    ensure!(same["metadata"]["resourceVersion"] == child["metadata"]["resourceVersion"], "{same}");
    let asked = scene.ctx.all_requests()?.into_iter().filter(|r| r.code == 404 && r.group == "ringmaster.dev").count();
    ensure!(asked < IN_VAIN, "asked {asked} times in vain");
    crd["metadata"] = json!({ "name": name });
    crd["status"] = Value::Null;
    let made = scene.ctx.admin.create(&crds(), crd).await?;
    server::served(&scene.ctx.admin, &made).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "2", "{}", map["data"]);
        ensure!(map["metadata"]["uid"] == child["metadata"]["uid"], "it was made anew");
        Ok(())
    };
    let ask = async || {
        let map = scene.ctx.admin.get(&scene.maps, "a").await?;
        check(&map)
    };
    scene.ctx.wait("the new controller syncs", LATER, ask).await?;
    well(&scene.ctx, "c").await?;
    scene.ringmaster.wait_log(&scene.ctx, "are served again", SOON).await?;
    no_deletions(&scene.ctx)?;
    scene.ringmaster.check()
}

async fn no_namespace(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::with(ctx, Scope::Cluster).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let missing = format!("{}-missing", scene.ctx.namespace);
    let child = |namespace: &str, name: &str| {
        let mut map = config_map(name, json!({}));
        map["metadata"]["namespace"] = namespace.into();
        map
    };
    let reply = json!({ "children": [child(&missing, "a"), child(&scene.ctx.namespace, "b")] });
    let thing = scene.thing("p", reply).await?;
    scene.event(&thing, "SyncError", &["namespaces", &missing, "not found"]).await?;
    there(&scene.ctx, &scene.maps, "b").await?;
    scene.called("p", 4).await?;
    ensure!(scene.calls("p") < 20, "{} calls: it is no hot loop", scene.calls("p"));
    let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
    let body = json!({ "metadata": { "name": missing, "labels": { "suite": scene.ctx.id } } });
    scene.ctx.admin.create(&namespaces, body).await?;
    there(&scene.ctx, &scene.maps.in_namespace(Some(&missing)), "a").await?;
    well(&scene.ctx, "c").await
}

async fn namespace_goes(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    thing(&scene.ctx, &scene.things, "p", "a").await?;
    let first = there(&scene.ctx, &scene.maps, "a").await?;
    let doomed = format!("{}-doomed", scene.ctx.namespace);
    let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
    let body = json!({ "metadata": { "name": doomed, "labels": { "suite": scene.ctx.id } } });
    scene.ctx.admin.create(&namespaces, body).await?;
    let (things, maps) = (scene.things.in_namespace(Some(&doomed)), scene.maps.in_namespace(Some(&doomed)));
    for number in 0..10 {
        thing(&scene.ctx, &things, &format!("p{number}"), &format!("a{number}")).await?;
    }
    for number in 0..10 {
        there(&scene.ctx, &maps, &format!("a{number}")).await?;
    }
    // One parent is held for a while, so that what it does meanwhile can be seen.
    let held = json!({ "metadata": { "finalizers": ["test.ringmaster.dev/hold"] } });
    scene.ctx.admin.patch_merge(&things, "p0", &held).await?;
    // And work goes on: every one changes as its namespace goes.
    for number in 0..10 {
        let reply = json!({ "children": [config_map(&format!("b{number}"), json!({}))] });
        scene.ctx.admin.patch_merge(&things, &format!("p{number}"), &json!({ "spec": { "reply": reply } })).await?;
    }
    scene.ctx.admin.delete(&namespaces, &doomed).await?;
    let ask = async || {
        let left = scene.ctx.admin.list(&things, "").await?;
        ensure!(left.len() == 1, "{} are left", left.len());
        let maps = scene.ctx.admin.list(&maps, "").await?;
        let ours = maps.iter().filter(|map| map["metadata"]["name"] != "kube-root-ca.crt").count();
        ensure!(ours == 0, "{ours} ConfigMaps are left");
        Ok(())
    };
    scene.ctx.wait("all but the held one are gone", GONE, ask).await?;
    // Others are served meanwhile.
    thing(&scene.ctx, &scene.things, "q", "q").await?;
    there(&scene.ctx, &scene.maps, "q").await?;
    ensure!(scene.hook.calls_for(&format!("{doomed}/p0")).len() < IN_VAIN, "a hot loop");
    scene.ctx.admin.patch_merge(&things, "p0", &json!({ "metadata": { "finalizers": null } })).await?;
    let ask = async || {
        ensure!(scene.ctx.admin.find(&namespaces, &doomed).await?.is_none(), "it is there");
        Ok(())
    };
    scene.ctx.wait("the namespace is gone", GONE, ask).await?;
    // No parent of it counts as failing for ever.
    well(&scene.ctx, "c").await?;
    scene.quiet().await?;
    let now = scene.ctx.admin.get(&scene.maps, "a").await?;
    ensure!(now["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"], "{now}");
    // A new namespace of that name is a new beginning.
    let body = json!({ "metadata": { "name": doomed, "labels": { "suite": scene.ctx.id } } });
    scene.ctx.admin.create(&namespaces, body).await?;
    let made = thing(&scene.ctx, &things, "p0", "a0").await;
    ensure!(made.as_ref().err().and_then(code).is_none(), "{made:?}");
    there(&scene.ctx, &maps, "a0").await?;
    well(&scene.ctx, "c").await
}
