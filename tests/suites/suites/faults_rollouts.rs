//! Revisions that can't be kept: their writes or watches are refused, their kind is missing or goes, they aren't what they
//! seem, the hook fails for one. The cause is told, no child changes that follows none, none is made twice or deleted, others
//! go on, and a rollout goes on where it was once it is mended.
//!
//! Never about what holds a rollout up when all is well: see `rollouts`. Bad children are in `faults_lists`.

use anyhow::{Context as _, bail, ensure};
use http::Method;
use serde_json::{Value, json};

use super::faults_hook::{conditions_say, well};
use super::faults_kinds::{NOTICED, SLOW, condition_within, crd_name, crds, patch_v2, remove, versions};
use super::scene::{LATER, NEVER, Scene, config_map, obey, spec};
use crate::cluster::{Context, Scope};
use crate::gate::{Act, Ask, Gate};
use crate::hook::Reply;
use crate::objects::Resource;
use crate::server;
use crate::trial::Case;
use crate::wait;

/// Calls for one parent under a fault, two a sync where there are two states: backoff up to a minute.
const FEW: usize = 60;
/// The CRD of revisions.
const KIND: &str = "controllerrevisions.ringmaster.dev";
/// Holds an object that is deleted.
const HOLD: &str = "test.ringmaster.dev/hold";

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("faults_rollouts", "revisions_cannot_be_written", not_written),
        Case::new("faults_rollouts", "revisions_cannot_be_watched", not_watched),
        Case::new("faults_rollouts", "revisions_that_are_not_what_they_seem", odd),
        Case::new("faults_rollouts", "a_hook_that_fails_for_an_old_state", old_state),
        Case::new("faults_rollouts", "the_version_of_the_parents_goes_and_comes_back", version_goes)
            .own_server()
            .timeout(SLOW),
        Case::new("faults_rollouts", "the_kind_of_revisions_is_missing_and_goes", kind_goes).own_server().timeout(SLOW),
    ]
}

/// Two children of a parent, both in this state.
fn wants(parent: &str, x: &str) -> Value {
    let children = ["a", "b"].map(|part| config_map(&format!("{part}-{parent}"), json!({ "x": x })));
    json!({ "children": children })
}

/// Makes a parent with its two children.
async fn make(scene: &Scene, name: &str) -> anyhow::Result<Value> {
    scene.thing(name, wants(name, "1")).await
}

/// Waits until both children are in this state; answers with them.
async fn rolled(scene: &Scene, parent: &str, x: &str) -> anyhow::Result<[Value; 2]> {
    let ask = async || {
        let a = scene.ctx.admin.get(&scene.maps, &format!("a-{parent}")).await?;
        let b = scene.ctx.admin.get(&scene.maps, &format!("b-{parent}")).await?;
        ensure!(a["data"]["x"] == x && b["data"]["x"] == x, "{} {}", a["data"], b["data"]);
        Ok([a, b])
    };
    scene.ctx.wait(&format!("the children of {parent} are of state {x}"), LATER, ask).await
}

fn is_same(before: &[Value; 2], now: &[Value; 2]) -> anyhow::Result<()> {
    let uid = |map: &Value| map["metadata"]["uid"].clone();
    ensure!(before.each_ref().map(uid) == now.each_ref().map(uid), "they were made anew: {now:?}");
    Ok(())
}

fn revisions(scene: &Scene) -> Resource {
    scene.ctx.namespaced("ringmaster.dev/v1alpha1", "ControllerRevision", "controllerrevisions")
}

/// Waits until a parent's only revision is of its present state and names both children; answers with its name.
async fn settled(scene: &Scene, parent: &str) -> anyhow::Result<String> {
    let ask = async || {
        let thing = scene.ctx.admin.get(&scene.things, parent).await?;
        let mut found = scene.ctx.admin.list(&revisions(scene), "").await?;
        found.retain(|revision| revision["metadata"]["ownerReferences"][0]["uid"] == thing["metadata"]["uid"]);
        let [revision] = &*found else { bail!("{} revisions", found.len()) };
        ensure!(revision["parentPatch"]["spec"] == thing["spec"], "{revision}");
        ensure!(revision["children"][0]["names"].as_array().map_or(0, Vec::len) == 2, "{revision}");
        Ok(revision["metadata"]["name"].as_str().context("no name")?.to_owned())
    };
    scene.ctx.wait(&format!("one revision of {parent} is left"), LATER, ask).await
}

/// Fails if a child of a parent changes meanwhile.
async fn stands(scene: &Scene, parent: &str, states: [&str; 2]) -> anyhow::Result<()> {
    wait::stays("its children stay as they are", NEVER, async || {
        for (part, x) in ["a", "b"].into_iter().zip(states) {
            let map = scene.ctx.admin.get(&scene.maps, &format!("{part}-{parent}")).await?;
            ensure!(map["data"]["x"] == x, "{part}: {}", map["data"]);
        }
        Ok(())
    })
    .await
}

/// No child was deleted by Ringmaster.
fn no_child_deleted(scene: &Scene) -> anyhow::Result<()> {
    let mut deletes = scene.ctx.all_requests()?;
    deletes.retain(|request| request.verb.starts_with("delete") && request.resource == "configmaps");
    ensure!(deletes.is_empty(), "{deletes:?}");
    Ok(())
}

fn few_calls(scene: &Scene, parent: &str, before: usize) -> anyhow::Result<()> {
    let calls = scene.calls(parent) - before;
    ensure!(calls < FEW, "{parent}: {calls} calls: it is no hot loop");
    Ok(())
}

/// A revision of the parent with this name is written by this method.
fn writes_of(ask: &Ask, method: &Method, parent: &str) -> bool {
    let is_its = || ask.json()["metadata"]["ownerReferences"][0]["name"] == parent;
    ask.method == *method && ask.path.contains("/controllerrevisions") && is_its()
}

async fn not_written(ctx: Context) -> anyhow::Result<()> {
    const ACTS: &[(&str, Act)] =
        &[("make-403", Act::Refuse(403, None)), ("make-500", Act::Refuse(500, None)), ("make-lost", Act::Lose)];
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.ctx.controller("c", scene.spec("RollingInPlace")).await?;
    // New ones.
    gate.set(|ask| {
        let found = ACTS.iter().find(|(name, _)| writes_of(ask, &Method::POST, name));
        found.map_or(Act::Pass, |(_, act)| *act)
    });
    let mut things = Vec::new();
    for (name, act) in ACTS {
        things.push((*name, *act, make(&scene, name).await?));
    }
    let good = make(&scene, "good").await?;
    let first = rolled(&scene, "good", "1").await?;
    for (name, act, thing) in &things {
        let Act::Refuse(code, _) = act else {
            rolled(&scene, name, "1").await?;
            continue;
        };
        scene.event(thing, "SyncError", &["controllerrevisions", "refused by the trial", &code.to_string()]).await?;
        let none = scene.ctx.admin.find(&scene.maps, &format!("a-{name}")).await?;
        ensure!(none.is_none(), "a child was made that follows nothing: {none:?}");
        few_calls(&scene, name, 0)?;
    }
    conditions_say(&scene, "c", &["controllerrevisions", "refused by the trial"]).await?;
    gate.open();
    for (name, ..) in &things {
        rolled(&scene, name, "1").await?;
        settled(&scene, name).await?;
        let made = gate.asked(|asked| writes_of(&asked.ask, &Method::POST, name) && asked.code == Some(201)).len();
        ensure!(made == 1, "{name}: {made} revisions");
    }
    // The one that the others leave.
    scene.quiet().await?;
    let before = scene.calls("good");
    gate.set(|ask| if writes_of(ask, &Method::PUT, "good") { Act::Refuse(403, None) } else { Act::Pass });
    scene.wants("good", wants("good", "2")).await?;
    scene.event(&good, "SyncError", &["PUT", "controllerrevisions/", "refused by the trial", "403"]).await?;
    stands(&scene, "good", ["1", "1"]).await?;
    few_calls(&scene, "good", before)?;
    gate.open();
    is_same(&first, &rolled(&scene, "good", "2").await?)?;
    settled(&scene, "good").await?;
    // The one that nobody follows.
    scene.quiet().await?;
    let before = scene.calls("good");
    gate.set(|ask| {
        let is_its = ask.method == Method::DELETE && ask.path.contains("/controllerrevisions/");
        if is_its { Act::Refuse(500, None) } else { Act::Pass }
    });
    scene.wants("good", wants("good", "3")).await?;
    scene.event(&good, "SyncError", &["DELETE", "controllerrevisions/", "refused by the trial", "500"]).await?;
    make(&scene, "beside").await?;
    rolled(&scene, "beside", "1").await?;
    few_calls(&scene, "good", before)?;
    gate.open();
    is_same(&first, &rolled(&scene, "good", "3").await?)?;
    settled(&scene, "good").await?;
    well(&scene.ctx, "c").await?;
    no_child_deleted(&scene)?;
    scene.ringmaster.check()
}

/// A second controller, of another kind, whose parents want nothing but a status.
async fn beside(scene: &Scene) -> anyhow::Result<Resource> {
    let others = scene.ctx.crd("Other", "others", Scope::Namespaced, None).await?;
    scene.ctx.grant(&Context::rules_for(&[&others])).await?;
    scene.ctx.controller("beside", spec(&others, &scene.hook.url("/sync"), "InPlace")).await?;
    Ok(others)
}

async fn goes_on(scene: &Scene, others: &Resource, name: &str) -> anyhow::Result<()> {
    let body = json!({ "metadata": { "name": name }, "spec": { "reply": { "status": { "x": 1 } } } });
    scene.ctx.admin.create(others, body).await?;
    let ask = async || {
        let other = scene.ctx.admin.get(others, name).await?;
        ensure!(other["status"]["x"] == 1, "{other}");
        Ok(())
    };
    scene.ctx.wait("the other controller goes on", LATER, ask).await?;
    well(&scene.ctx, "beside").await
}

fn refuse_watches(gate: &Gate, code: u16) {
    gate.set(move |ask| {
        let is_it = ask.method == Method::GET && ask.path.ends_with("/controllerrevisions");
        if is_it { Act::Refuse(code, None) } else { Act::Pass }
    });
}

async fn not_watched(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    let others = beside(&scene).await?;
    refuse_watches(&gate, 403);
    let controller = scene.ctx.controller("c", scene.spec("RollingInPlace")).await?;
    make(&scene, "p").await?;
    let words = ["Rolling update method", "controllerrevisions", "grant get, list and watch"];
    let message = scene.condition("c", ["Ready", "False", "Forbidden"]).await?;
    ensure!(words.iter().all(|word| message.contains(word)), "{message}");
    scene.event(&controller, "CreateError", &words).await?;
    goes_on(&scene, &others, "o-1").await?;
    ensure!(scene.calls("p") == 0, "a controller that can't see its revisions called its hook");
    let asked = gate.asked(|asked| asked.act != Act::Pass).len();
    ensure!(asked < FEW, "{asked} requests were refused");
    gate.open();
    let first = rolled(&scene, "p", "1").await?;
    settled(&scene, "p").await?;
    well(&scene.ctx, "c").await?;
    // While it runs: what it wrote itself is known.
    refuse_watches(&gate, 500);
    gate.cut_streams();
    conditions_say(&scene, "c", &["Rolling update method", "can't be watched", "refused by the trial", "500"]).await?;
    scene.wants("p", wants("p", "2")).await?;
    is_same(&first, &rolled(&scene, "p", "2").await?)?;
    goes_on(&scene, &others, "o-2").await?;
    gate.open();
    settled(&scene, "p").await?;
    well(&scene.ctx, "c").await?;
    no_child_deleted(&scene)?;
    scene.ringmaster.check()
}

async fn odd(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let (admin, kind) = (&scene.ctx.admin, revisions(&scene));
    scene.ctx.controller("c", scene.spec("RollingInPlace")).await?;
    let parent = make(&scene, "p").await?;
    let first = rolled(&scene, "p", "1").await?;
    let name = settled(&scene, "p").await?;
    scene.quiet().await?;
    // Its owner is taken away: it is adopted again.
    admin.patch_merge(&kind, &name, &json!({ "metadata": { "ownerReferences": null } })).await?;
    settled(&scene, "p").await?;
    // It is edited.
    scene.quiet().await?;
    let before = scene.calls("p");
    admin.patch_merge(&kind, &name, &json!({ "parentPatch": { "spec": { "edited": true } } })).await?;
    scene.event(&parent, "SyncError", &["ControllerRevision", &name, "was edited", "delete it"]).await?;
    conditions_say(&scene, "c", &[&name, "was edited"]).await?;
    stands(&scene, "p", ["1", "1"]).await?;
    make(&scene, "q").await?;
    rolled(&scene, "q", "1").await?;
    few_calls(&scene, "p", before)?;
    ensure!(admin.delete(&kind, &name).await?);
    ensure!(settled(&scene, "p").await? == name, "equal states have equal names");
    well(&scene.ctx, "c").await?;
    // It is being deleted, and doesn't go.
    admin.patch_merge(&kind, &name, &json!({ "metadata": { "finalizers": [HOLD] } })).await?;
    admin.delete(&kind, &name).await?;
    scene.event(&parent, "SyncError", &["ControllerRevision", &name, "being deleted", HOLD]).await?;
    stands(&scene, "p", ["1", "1"]).await?;
    admin.patch_merge(&kind, &name, &json!({ "metadata": { "finalizers": null } })).await?;
    settled(&scene, "p").await?;
    well(&scene.ctx, "c").await?;
    // Its name is taken, once it is needed again, by one that nothing shows to be the parent's but a label.
    scene.wants("p", wants("p", "2")).await?;
    rolled(&scene, "p", "2").await?;
    settled(&scene, "p").await?;
    scene.quiet().await?;
    let labels = json!({ "controller-uid": parent["metadata"]["uid"] });
    let stranger = json!({ "metadata": { "name": name, "labels": labels }, "parentPatch": { "spec": {} } });
    let stranger = admin.create(&kind, stranger).await?;
    let before = scene.calls("p");
    scene.wants("p", wants("p", "1")).await?;
    scene.event(&parent, "SyncError", &["ControllerRevision", &name, "isn't the parent's", "delete it"]).await?;
    stands(&scene, "p", ["2", "2"]).await?;
    few_calls(&scene, "p", before)?;
    let now = admin.get(&kind, &name).await?;
    ensure!(now["metadata"]["resourceVersion"] == stranger["metadata"]["resourceVersion"], "it was touched: {now}");
    ensure!(admin.delete(&kind, &name).await?);
    is_same(&first, &rolled(&scene, "p", "1").await?)?;
    ensure!(settled(&scene, "p").await? == name, "equal states have equal names");
    well(&scene.ctx, "c").await?;
    no_child_deleted(&scene)?;
    scene.ringmaster.check()
}

/// Of two children one has moved and is never ready, so that both states are asked for.
async fn old_state(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let mut spec = scene.spec("RollingInPlace");
    let checks = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
    spec["childResources"][0]["updateStrategy"]["statusChecks"] = checks;
    scene.ctx.controller("c", spec).await?;
    let parent = make(&scene, "p").await?;
    rolled(&scene, "p", "1").await?;
    let name = settled(&scene, "p").await?;
    scene.wants("p", wants("p", "2")).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "2", "{}", map["data"]);
        Ok(())
    };
    scene.map("a-p", "moves", check).await?;
    stands(&scene, "p", ["2", "1"]).await?;
    scene.quiet().await?;
    let before = scene.calls("p");
    scene.hook.set(|request, info| {
        let x = &request["parent"]["spec"]["reply"]["children"][0]["data"]["x"];
        if x == "1" && info.path == "/sync" && request["parent"]["metadata"]["name"] == "p" {
            return Reply::status(500);
        }
        obey(request, info)
    });
    let touched = json!({ "metadata": { "annotations": { "touched": "1" } } });
    scene.ctx.admin.patch_merge(&scene.things, "p", &touched).await?;
    let words = ["500", "asked for the parent as ControllerRevision", name.as_str()];
    scene.event(&parent, "SyncError", &words).await?;
    stands(&scene, "p", ["2", "1"]).await?;
    make(&scene, "q").await?;
    rolled(&scene, "q", "1").await?;
    few_calls(&scene, "p", before)?;
    // The way out that the documents name.
    ensure!(scene.ctx.admin.delete(&revisions(&scene), &name).await?);
    rolled(&scene, "p", "2").await?;
    settled(&scene, "p").await?;
    well(&scene.ctx, "c").await?;
    no_child_deleted(&scene)
}

async fn kind_goes(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    let others = beside(&scene).await?;
    let mut crd = scene.ctx.admin.get(&crds(), KIND).await?;
    crd["metadata"] = json!({ "name": KIND });
    crd["status"] = Value::Null;
    let restore = async || {
        let made = scene.ctx.admin.create(&crds(), crd.clone()).await?;
        server::served(&scene.ctx.admin, &made).await
    };
    remove(&scene.ctx, KIND).await?;
    let controller = scene.ctx.controller("c", scene.spec("RollingInPlace")).await?;
    make(&scene, "p").await?;
    let words = ["Rolling update method", "controllerrevisions in ringmaster.dev/v1alpha1", "install its CRD"];
    let message = scene.condition("c", ["Ready", "False", "ChildKindNotServed"]).await?;
    ensure!(words.iter().all(|word| message.contains(word)), "{message}");
    // Right after it went, an API server may still list it: then the event tells of the watch.
    scene.event(&controller, "CreateError", &["Rolling update method", "controllerrevisions"]).await?;
    goes_on(&scene, &others, "o-1").await?;
    ensure!(scene.calls("p") == 0, "a controller that can't keep states called its hook");
    restore().await?;
    let first = rolled(&scene, "p", "1").await?;
    settled(&scene, "p").await?;
    well(&scene.ctx, "c").await?;
    // It goes beneath it, and all revisions with it.
    scene.quiet().await?;
    let before = scene.calls("p");
    remove(&scene.ctx, KIND).await?;
    gate.cut_streams();
    let message = condition_within(&scene.ctx, "c", "ChildKindNotServed", NOTICED).await?;
    ensure!(message.contains("controllerrevisions"), "{message}");
    scene.quiet().await?;
    scene.wants("p", wants("p", "2")).await?;
    stands(&scene, "p", ["1", "1"]).await?;
    few_calls(&scene, "p", before)?;
    goes_on(&scene, &others, "o-2").await?;
    restore().await?;
    is_same(&first, &rolled(&scene, "p", "2").await?)?;
    settled(&scene, "p").await?;
    well(&scene.ctx, "c").await?;
    no_child_deleted(&scene)?;
    scene.ringmaster.check()
}

async fn version_goes(ctx: Context) -> anyhow::Result<()> {
    ctx.server.stop_collecting()?;
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    let (admin, name) = (&scene.ctx.admin, crd_name(&scene.things));
    admin.patch_merge(&crds(), &name, &versions(true)).await?;
    server::served(admin, &admin.get(&crds(), &name).await?).await?;
    scene.ctx.controller("c", scene.spec("RollingInPlace")).await?;
    make(&scene, "p").await?;
    let first = rolled(&scene, "p", "1").await?;
    settled(&scene, "p").await?;
    scene.quiet().await?;
    admin.patch_merge(&crds(), &name, &versions(false)).await?;
    gate.cut_streams();
    let message = condition_within(&scene.ctx, "c", "ParentKindNotServed", NOTICED).await?;
    ensure!(message.contains(&scene.things.api_version), "{message}");
    patch_v2(&scene.ctx, &scene.things, "p", &json!({ "spec": { "reply": wants("p", "2") } })).await?;
    stands(&scene, "p", ["1", "1"]).await?;
    // What it followed is known by its revision, and so the rollout begins where it was.
    admin.patch_merge(&crds(), &name, &versions(true)).await?;
    is_same(&first, &rolled(&scene, "p", "2").await?)?;
    settled(&scene, "p").await?;
    well(&scene.ctx, "c").await?;
    no_child_deleted(&scene)?;
    scene.ringmaster.check()
}
