//! The bad children of `faults_children`, all at once, in answers that aren't those of a composite's sync hook: of a finalize
//! hook, of a decorator's hooks, and of the hook of a controller that rolls. Each is told by its place in the reply, nothing
//! of the reply is done, what was there stays, others go on, and all is well once the answer is right.
//!
//! Never about answers that can't be read: see `faults_roles`.

use anyhow::ensure;
use serde_json::{Value, json};

use super::decorators::{decorators, ready, spec};
use super::faults_children::{Bad, REFUSED, child};
use super::faults_hook::well;
use super::faults_reply::nothing_written;
use super::scene::{LATER, Scene};
use crate::cluster::Context;
use crate::hook::{CallInfo, Reply};
use crate::objects::Resource;
use crate::trial::Case;

/// Calls of the hook for one object under a fault: backoff up to a minute, and two calls a sync where there are two states.
const FEW: usize = 40;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |name, role| Case::new("faults_lists", name, move |ctx| refused(ctx, role));
    vec![
        case("finalize", Role::Finalize),
        case("decorator", Role::Decorator),
        case("decorator_finalize", Role::DecoratorFinalize),
        case("rolling", Role::Rolling),
    ]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Finalize,
    Decorator,
    DecoratorFinalize,
    Rolling,
}

impl Role {
    fn is_decorator(self) -> bool {
        matches!(self, Self::Decorator | Self::DecoratorFinalize)
    }

    fn finalizes(self) -> bool {
        matches!(self, Self::Finalize | Self::DecoratorFinalize)
    }

    /// The reply's list.
    fn list(self) -> &'static str {
        if self.is_decorator() { "attachments" } else { "children" }
    }

    fn path(self) -> &'static str {
        if self.finalizes() { "/finalize" } else { "/sync" }
    }

    /// What is wrong where this is the role: a decorator has no selector.
    fn bads(self) -> impl Iterator<Item = &'static Bad> {
        REFUSED.iter().filter(move |bad| !self.is_decorator() || bad.name != "not_matching_the_selector")
    }

    /// What the event says.
    fn words(self, bad: &Bad) -> Vec<String> {
        let own = |word: &&str| {
            if self.is_decorator() {
                word.replace("children[", "attachments[").replace("spec.childResources", "spec.attachments")
            } else {
                (*word).to_owned()
            }
        };
        bad.words.iter().map(own).chain([format!("{}[1]", self.list())]).collect()
    }
}

/// Answers what the object's `spec.replies` holds by the name in `spec.now`, or in `spec.final` while it is finalized. They
/// are never patched: a merge patch would take nulls out.
fn obey(request: &Value, _: &CallInfo) -> Reply {
    let object = if request["object"].is_object() { &request["object"] } else { &request["parent"] };
    let spec = &object["spec"];
    let which = if request["finalizing"] == true { &spec["final"] } else { &spec["now"] };
    Reply::json(&spec["replies"][which.as_str().unwrap_or_default()])
}

/// The object whose answer is this wrong.
fn name(bad: &Bad) -> String {
    bad.name.replace('_', "-")
}

async fn declare(scene: &Scene, role: Role) -> anyhow::Result<()> {
    let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
    scene.ctx.grant(&Context::rules_for(&[&namespaces])).await?;
    let method = if role == Role::Rolling { "RollingInPlace" } else { "InPlace" };
    let mut declared = if role.is_decorator() { spec(scene, method) } else { scene.spec(method) };
    if role.finalizes() {
        declared["hooks"]["finalize"] = json!({ "webhook": { "url": scene.hook.url("/finalize") } });
    }
    let kinds = if role.is_decorator() { "attachments" } else { "childResources" };
    if let Some(kinds) = declared[kinds].as_array_mut() {
        kinds.push(json!({ "apiVersion": "v1", "resource": "namespaces" }));
    }
    if !role.is_decorator() {
        declared["generateSelector"] = false.into();
        return scene.ctx.controller("c", declared).await.map(drop);
    }
    let metadata = json!({ "name": scene.ctx.controller_name("c"), "labels": { "suite": scene.ctx.id } });
    scene.ctx.admin.create(&decorators(), json!({ "metadata": metadata, "spec": declared })).await.map(drop)
}

/// Makes an object that has a child of its own, and could have a bad one.
async fn make(scene: &Scene, role: Role, name: &str, bad: &Value) -> anyhow::Result<Value> {
    let reply = |children: Value| {
        let mut reply = json!({ "finalized": true });
        reply[role.list()] = children;
        reply
    };
    let last = if role.finalizes() { json!([]) } else { json!([child(&format!("last-{name}"))]) };
    let spec = json!({
        "selector": { "matchLabels": { "app": "x" } }, "now": "first", "final": "bad",
        "replies": {
            "first": reply(json!([child(&format!("first-{name}"))])),
            "bad": reply(json!([child("good"), bad])),
            "last": reply(last),
        },
    });
    scene.ctx.admin.create(&scene.things, json!({ "metadata": { "name": name }, "spec": spec })).await
}

async fn refused(ctx: Context, role: Role) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(obey);
    declare(&scene, role).await?;
    let mut things = Vec::new();
    for bad in role.bads() {
        let mut spoiled = child("bad");
        (bad.spoil)(&mut spoiled);
        things.push(make(&scene, role, &name(bad), &spoiled).await?);
    }
    for bad in role.bads() {
        scene.map(&format!("first-{}", name(bad)), "is made", |_| Ok(())).await?;
    }
    scene.quiet().await?;
    let (mark, before) = (scene.ctx.mark()?, scene.ctx.admin.list(&scene.maps, "").await?);
    for bad in role.bads() {
        if role.finalizes() {
            scene.ctx.admin.delete(&scene.things, &name(bad)).await?;
        } else {
            scene.ctx.admin.patch_merge(&scene.things, &name(bad), &json!({ "spec": { "now": "bad" } })).await?;
        }
    }
    let url = scene.hook.url(role.path());
    for (bad, thing) in role.bads().zip(&things) {
        let words = role.words(bad);
        let words: Vec<&str> = words.iter().map(String::as_str).chain([url.as_str()]).collect();
        scene.event(thing, "SyncError", &words).await?;
        let calls = scene.calls(&name(bad));
        ensure!(calls < FEW, "{}: {calls} calls: it is no hot loop", bad.name);
    }
    nothing_written(&scene, mark).await?;
    let revisions =
        scene.ctx.requests(mark)?.into_iter().filter(|r| r.resource == "controllerrevisions" && r.is_write());
    ensure!(revisions.count() == 0, "a state was kept that can't be carried out");
    for map in before {
        let name = map["metadata"]["name"].as_str().unwrap_or_default();
        let now = scene.ctx.admin.get(&scene.maps, name).await?;
        ensure!(now["metadata"]["resourceVersion"] == map["metadata"]["resourceVersion"], "{now}");
    }
    // Others go on.
    make(&scene, role, "other", &child("bad")).await?;
    scene.map("first-other", "another object is served", |_| Ok(())).await?;
    // Its answer is right now.
    let right = if role.finalizes() { json!({ "final": "last" }) } else { json!({ "now": "last" }) };
    for bad in role.bads() {
        scene.ctx.admin.patch_merge(&scene.things, &name(bad), &json!({ "spec": right })).await?;
    }
    for bad in role.bads() {
        let name = name(bad);
        let ask = async || {
            if role.finalizes() {
                ensure!(scene.ctx.admin.find(&scene.things, &name).await?.is_none(), "it is there");
                return Ok(());
            }
            scene.ctx.admin.get(&scene.maps, &format!("last-{name}")).await.map(drop)
        };
        scene.ctx.wait(&format!("{name}: the answer is carried out"), LATER, ask).await?;
        scene.no_map(&format!("first-{name}"), LATER).await?;
    }
    if role.is_decorator() {
        ready(&scene, "c", ["Ready", "True"]).await?;
    } else {
        well(&scene.ctx, "c").await?;
    }
    ensure!(!scene.ringmaster.log()?.contains("panicked"), "a sync panicked");
    scene.ringmaster.check()
}
