//! Metacontroller's place is taken in the middle of its work, and given back.
//!
//! Never about a rolling update that stopped half-way: see `rollouts`. What is found are the files of
//! tests/metacontroller/takeover: a controller, a parent, and its children, in this order.

use std::fs;
use std::path::Path;

use anyhow::{Context as _, anyhow, ensure};
use http::Method;
use serde_json::{Map, Value, json};

use super::metacontroller_scene::{LAST_APPLIED, Strategy, each};
use super::scene::{NEVER, SOON, Scene};
use crate::cluster::{Context, Scope};
use crate::hook::{CallInfo, Hook, Reply};
use crate::objects::Resource;
use crate::process::Ringmaster;
use crate::trial::Case;
use crate::wait;

/// Who writes for Metacontroller, by either strategy.
const MANAGER: &str = "fieldManager=metacontroller";

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![Case::new("takeover", "merged_children_are_handed_over_to_apply", |ctx| {
        there_and_back(ctx, &NAMESPACED, Strategy::Merged, Strategy::Applied)
    })];
    let named = ["a_namespaced_parent_merged", "a_namespaced_parent_applied"];
    cases.extend(each("takeover", named, |ctx, by| there_and_back(ctx, &NAMESPACED, by, by)));
    let named = ["a_cluster_scoped_parent_merged", "a_cluster_scoped_parent_applied"];
    cases.extend(each("takeover", named, |ctx, by| there_and_back(ctx, &CLUSTER_SCOPED, by, by)));
    let named = ["a_decorated_object_merged", "a_decorated_object_applied"];
    cases.extend(each("takeover", named, |ctx, by| there_and_back(ctx, &DECORATOR, by, by)));
    cases
}

/// What is found.
struct Fixture {
    file: &'static str,
    /// The parent's.
    scope: Scope,
    /// The controllers' plural.
    controllers: &'static str,
    /// The list of a reply that holds the children.
    list: &'static str,
}

static NAMESPACED: Fixture = Fixture {
    file: "namespaced.yaml",
    scope: Scope::Namespaced,
    controllers: "compositecontrollers",
    list: "children",
};

static CLUSTER_SCOPED: Fixture = Fixture {
    file: "cluster-scoped.yaml",
    scope: Scope::Cluster,
    controllers: "compositecontrollers",
    list: "children",
};

static DECORATOR: Fixture = Fixture {
    file: "decorator.yaml",
    scope: Scope::Namespaced,
    controllers: "decoratorcontrollers",
    list: "attachments",
};

impl Fixture {
    /// The objects of the file, with these words filled in.
    fn read(&self, words: &[(&str, &str)]) -> anyhow::Result<Vec<Value>> {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/metacontroller/takeover").join(self.file);
        let mut text = fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        for (word, value) in words {
            text = text.replace(word, value);
        }
        serde_saphyr::from_multiple(&text).map_err(|error| anyhow!("{}: {error}", path.display()))
    }
}

/// How many children a request shows.
fn shown(request: &Value) -> usize {
    let children = if request["object"].is_object() { &request["attachments"] } else { &request["children"] };
    children.as_object().into_iter().flatten().filter_map(|(_, objects)| objects.as_object()).map(Map::len).sum()
}

/// What the parent's spec says; at the end nothing, and done once that is so.
fn answer(request: &Value, info: &CallInfo) -> Reply {
    let is_decorator = request["object"].is_object();
    if info.path == "/finalize" {
        let list = if is_decorator { "attachments" } else { "children" };
        return Reply::json(&json!({ (list): [], "finalized": shown(request) == 0 }));
    }
    let parent = if is_decorator { &request["object"] } else { &request["parent"] };
    Reply::json(&parent["spec"]["reply"])
}

/// What is there before Ringmaster comes.
struct Found {
    hook: Hook,
    things: Resource,
    maps: Resource,
    services: Resource,
    ctx: Context,
    controller: Value,
    parent: Value,
    /// How many children the parent has.
    children: usize,
}

impl Found {
    /// Makes it, with children as this strategy of Metacontroller's leaves them.
    async fn new(ctx: Context, fixture: &Fixture, by: Strategy) -> anyhow::Result<Self> {
        let things = ctx.crd("Thing", "things", fixture.scope, None).await?;
        let (maps, services) = (ctx.configmaps(), ctx.namespaced("v1", "Service", "services"));
        ctx.grant(&Context::rules_for(&[&things, &maps, &services])).await?;
        let hook = Hook::start(answer)?;
        let (group, url, name) = (ctx.group(), hook.url(""), ctx.controller_name("c"));
        let read = |uid: &str| {
            fixture.read(&[
                ("$GROUP", group.as_str()),
                ("$HOOK", url.as_str()),
                ("$CONTROLLER", name.as_str()),
                ("$NAMESPACE", ctx.namespace.as_str()),
                ("$SUITE", ctx.id.as_str()),
                ("$UID", uid),
            ])
        };
        let parent = read("")?.into_iter().nth(1).context("no parent")?;
        let made = ctx.admin.apply(&parent).await?;
        let status = json!({ "status": parent["status"] });
        let parent = ctx.admin.patch_status(&things, "p", &status).await?;
        let uid = made["metadata"]["uid"].as_str().context("no uid")?;
        let mut documents = read(uid)?.into_iter();
        let controller = documents.next().context("no controller")?;
        let mut children = 0;
        for mut child in documents.skip(1) {
            let resource = if child["kind"] == "Service" { &services } else { &maps };
            match by {
                Strategy::Merged => {
                    let path = format!("{}?{MANAGER}", resource.path());
                    ctx.admin.send(Method::POST, &path, "application/json", Some(&child)).await?;
                }
                Strategy::Applied => {
                    without_record(&mut child);
                    let child_name = child["metadata"]["name"].as_str().context("no name")?;
                    let path = format!("{}?{MANAGER}&force=true", resource.object(child_name));
                    ctx.admin.send(Method::PATCH, &path, "application/apply-patch+yaml", Some(&child)).await?;
                }
            }
            children += 1;
        }
        let controller = ctx.admin.apply(&controller).await?;
        Ok(Self { hook, things, maps, services, ctx, controller, parent, children })
    }
}

/// Takes out what a merge recorded; nothing is left of that, as what is empty is a field too.
fn without_record(child: &mut Value) {
    let Some(metadata) = child["metadata"].as_object_mut() else { return };
    let Some(annotations) = metadata.get_mut("annotations").and_then(Value::as_object_mut) else { return };
    annotations.remove(LAST_APPLIED);
    if annotations.is_empty() {
        metadata.remove("annotations");
    }
}

/// Whether an object has nothing of ours that Metacontroller doesn't know.
fn plain(object: &Value) -> anyhow::Result<()> {
    let metadata = &object["metadata"];
    for field in ["labels", "annotations"] {
        let ours = metadata[field].as_object().into_iter().flatten().find(|(key, _)| key.contains("ringmaster.dev/"));
        ensure!(ours.is_none(), "{field}: {ours:?}");
    }
    let finalizers = metadata["finalizers"].as_array().into_iter().flatten().filter_map(Value::as_str);
    for finalizer in finalizers {
        ensure!(!finalizer.contains("ringmaster"), "{finalizer}");
    }
    Ok(())
}

/// What a hook wants of a child, without what a controller adds to it.
fn bare(mut child: Value) -> Value {
    if let Some(metadata) = child["metadata"].as_object_mut() {
        metadata.remove("namespace");
        metadata.remove("annotations");
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove("controller-uid");
            if labels.is_empty() {
                metadata.remove("labels");
            }
        }
    }
    child
}

/// Whether a child is as Metacontroller would have left it that wanted this.
fn as_left(child: &Value, wanted: &Value, by: Strategy) -> anyhow::Result<()> {
    plain(child)?;
    let metadata = &child["metadata"];
    let last = &metadata["annotations"][LAST_APPLIED];
    match by {
        Strategy::Merged => {
            let last: Value = serde_json::from_str(last.as_str().context("nothing was recorded")?)?;
            let (last, wanted) = (bare(last), bare(wanted.clone()));
            ensure!(last == wanted, "{last} instead of {wanted}");
        }
        Strategy::Applied => {
            ensure!(last.is_null(), "{metadata}");
            let entries = metadata["managedFields"].as_array().context("no managedFields")?;
            let is_theirs = |entry: &Value| entry["manager"] == "metacontroller" && entry["operation"] == "Apply";
            ensure!(!entries.is_empty() && entries.iter().all(is_theirs), "{metadata}");
            let field = if child["kind"] == "Service" { "f:spec" } else { "f:data" };
            ensure!(entries.iter().any(|entry| entry["fieldsV1"][field].is_object()), "{metadata}");
        }
    }
    Ok(())
}

/// The reply's children changed: one updated, one dropped, one more.
fn changed(list: &Value) -> anyhow::Result<Vec<Value>> {
    let mut children = list.as_array().context("no list of children")?.clone();
    children.retain(|child| child["metadata"]["name"] != "b");
    let first = children.first_mut().context("no child")?;
    first["data"] = json!({ "x": "2" });
    let mut more = first.clone();
    more["metadata"]["name"] = "c".into();
    children.push(more);
    Ok(children)
}

/// Ringmaster finds what Metacontroller left in this way, and works in that way.
async fn there_and_back(ctx: Context, fixture: &Fixture, left: Strategy, runs: Strategy) -> anyhow::Result<()> {
    let found = Found::new(ctx, fixture, left).await?;
    let is_merged = left == Strategy::Merged && runs == Strategy::Merged;
    if is_merged {
        // What others added is in nobody's record.
        found.ctx.admin.patch_merge(&found.maps, "a", &json!({ "data": { "theirs": "1" } })).await?;
    }
    let ringmaster = Ringmaster::build(&found.ctx).arg(runs.flag()).start()?;
    let Found { hook, things, maps, services, ctx, controller, parent, children } = found;
    let scene = Scene { ringmaster, hook, things, maps, ctx };
    scene.called("p", 1).await?;
    scene.quiet().await?;
    let calls = scene.hook.calls_for(&scene.key("p"));
    let first = calls.first().context("no call")?;
    ensure!(shown(&first.request) == children, "{children} children were there: {}", first.request);
    ensure!(calls.iter().all(|call| call.path == "/sync"), "the finalize hook was called");
    if left == runs {
        let kinds = [scene.things.plural.as_str(), "configmaps", "services", fixture.controllers];
        wait::stays("nothing is written", NEVER, async || {
            let requests = scene.ctx.all_requests()?;
            let is_one = |resource: &str| kinds.contains(&resource);
            let written: Vec<_> =
                requests.iter().filter(|request| request.is_write() && is_one(&request.resource)).collect();
            ensure!(written.is_empty(), "{written:?}");
            Ok(())
        })
        .await?;
    }

    let wanted = changed(&parent["spec"]["reply"][fixture.list])?;
    scene.wants("p", json!({ (fixture.list): wanted })).await?;
    let is_updated = |map: &Value| {
        let data = if is_merged { json!({ "x": "2", "theirs": "1" }) } else { json!({ "x": "2" }) };
        ensure!(map["data"] == data, "{}", map["data"]);
        Ok(())
    };
    scene.map("a", "is updated", is_updated).await?;
    scene.map("c", "is made", |_| Ok(())).await?;
    scene.no_map("b", SOON).await?;
    scene.quiet().await?;

    // And back: what Metacontroller finds again is its own.
    let Scene { ringmaster, hook: _hook, things, maps, ctx } = scene;
    ensure!(ringmaster.stop().await?.success());
    for wanted in &wanted {
        let name = wanted["metadata"]["name"].as_str().context("no name")?;
        let resource = if wanted["kind"] == "Service" { &services } else { &maps };
        let child = ctx.admin.get(resource, name).await?;
        as_left(&child, wanted, runs).with_context(|| format!("{} {name}", resource.kind))?;
        let owners = json!([{
            "apiVersion": things.api_version, "kind": "Thing", "name": "p", "uid": parent["metadata"]["uid"],
            "controller": true, "blockOwnerDeletion": true,
        }]);
        ensure!(child["metadata"]["ownerReferences"] == owners, "{child}");
    }
    let now = ctx.admin.get(&things, "p").await?;
    plain(&now)?;
    for field in ["labels", "annotations", "finalizers"] {
        ensure!(now["metadata"][field] == parent["metadata"][field], "{now}");
    }
    let controllers = Resource::new("metacontroller.k8s.io/v1alpha1", "", fixture.controllers, None);
    let same = ctx.admin.get(&controllers, &ctx.controller_name("c")).await?;
    ensure!(same["metadata"]["resourceVersion"] == controller["metadata"]["resourceVersion"], "{same}");
    Ok(())
}
