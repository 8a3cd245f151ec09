//! Controllers that leave the selection, are deleted, or lose their hook or a kind: what becomes of the finalizers on their
//! parents, and of their own.
//!
//! Never about the finalize hook's calls: see `finalize`. Kinds that go and come back are in `faults_kinds`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::Method;
use serde_json::{Value, json};

use super::decorators::{declare, decorators, ready, thing};
use super::faults_hook::well;
use super::faults_kinds::{NOTICED, SLOW, condition_within, crd_name, crds, remove, versions};
use crate::cluster::{Context, Scope};
use crate::gate::Act;
use crate::hook::{CallInfo, Reply};
use crate::objects::{Resource, code};
use crate::process::Ringmaster;
use crate::server;
use crate::suites::scene::{self, LATER, SOON, Scene, config_map};
use crate::trial::Case;

/// The finalizer of controllers of our group.
const OWN: &str = "ringmaster.dev/controller";
/// Parents of the controller whose sweep is refused.
const PARENTS: usize = 48;
/// So many of them, the first, can't be freed.
const STUCK: usize = 32;
/// What a sweep asks for at most once all is refused: `MAX_REFUSALS` in `src/engine/cleanup.rs`, and what else is under way.
const MAX_ASKED: usize = 16 + 15;
/// The next sweep begins later than this.
const ONE_SWEEP: Duration = Duration::from_secs(1);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("controllers_change", "one_that_leaves_the_selection_keeps_its_parents", relabelled),
        Case::new("controllers_change", "one_of_metacontroller_that_leaves_the_selection", relabelled_theirs),
        Case::new("controllers_change", "deletion_waits_for_a_member_and_the_parents", deleted_meanwhile),
        Case::new("controllers_change", "a_decorator_goes_once_its_objects_are_free", decorator_deleted),
        Case::new("controllers_change", "one_without_its_finalize_hook_is_free", hook_removed),
        Case::new("controllers_change", "deletion_without_the_parents_kind", kind_gone).timeout(SLOW),
        Case::new("controllers_change", "deletion_that_lacks_a_right_is_told", forbidden).timeout(SLOW),
        Case::new("controllers_change", "a_sweep_that_is_refused_ends_early", refused).timeout(SLOW),
        Case::new("controllers_change", "the_parents_move_to_another_version", version_moves).timeout(SLOW),
        Case::new("controllers_change", "a_decorator_goes_on_without_one_of_its_kinds", one_kind_goes).timeout(SLOW),
    ]
}

fn theirs() -> Resource {
    Resource::new("metacontroller.k8s.io/v1alpha1", "CompositeController", "compositecontrollers", None)
}

/// Parents that are finalized at the first call.
fn obey(request: &Value, info: &CallInfo) -> Reply {
    if info.path == "/finalize" {
        Reply::json(&json!({ "children": [], "finalized": true }))
    } else {
        scene::obey(request, info)
    }
}

fn spec(scene: &Scene) -> Value {
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["finalize"] = json!({ "webhook": { "url": scene.hook.url("/finalize") } });
    spec
}

/// A controller `c` with a finalize hook, and a parent of it that is synced.
async fn scene(ctx: Context) -> anyhow::Result<Scene> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(obey);
    scene.ctx.controller("c", spec(&scene)).await?;
    wants(&scene, "p", "1").await?;
    guarded(&scene, "p", &finalizer(&scene, "ringmaster.dev")).await?;
    has(&scene, "1").await?;
    Ok(scene)
}

fn finalizer(scene: &Scene, domain: &str) -> String {
    format!("{domain}/compositecontroller-{}", scene.ctx.controller_name("c"))
}

/// Makes a thing with one child, or changes it.
async fn wants(scene: &Scene, name: &str, value: &str) -> anyhow::Result<()> {
    let reply = json!({ "children": [config_map("a", json!({ "x": value }))] });
    match scene.thing(name, reply.clone()).await {
        Err(error) if code(&error) == Some(409) => scene.wants(name, reply).await.map(drop),
        made => made.map(drop),
    }
}

async fn has(scene: &Scene, value: &str) -> anyhow::Result<()> {
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == value, "{}", map["data"]);
        Ok(())
    };
    scene.map("a", "is as it was asked for last", check).await.map(drop)
}

/// Waits until a thing has this finalizer.
async fn guarded(scene: &Scene, name: &str, finalizer: &str) -> anyhow::Result<()> {
    let check = |thing: &Value| {
        ensure!(thing["metadata"]["finalizers"] == json!([finalizer]), "{}", thing["metadata"]);
        Ok(())
    };
    thing(scene, name, "has the finalizer", check).await.map(drop)
}

/// Waits until no thing has a finalizer.
async fn all_free(scene: &Scene) -> anyhow::Result<()> {
    let ask = async || {
        for thing in scene.ctx.admin.list(&scene.things, "").await? {
            let finalizers = &thing["metadata"]["finalizers"];
            ensure!(finalizers.as_array().is_none_or(Vec::is_empty), "{}: {finalizers}", thing["metadata"]["name"]);
        }
        Ok(())
    };
    scene.ctx.wait("no parent keeps the finalizer", LATER, ask).await
}

/// Waits until a controller is gone.
async fn gone(scene: &Scene, kind: &Resource, name: &str) -> anyhow::Result<()> {
    let name = scene.ctx.controller_name(name);
    let ask = async || {
        let found = scene.ctx.admin.find(kind, &name).await?;
        let found = found.map(|controller| controller["metadata"]["finalizers"].to_string());
        ensure!(found.is_none(), "it is there, with {found:?}");
        Ok(())
    };
    scene.ctx.wait(&format!("the controller {name} is gone"), LATER, ask).await
}

/// Waits until a controller has exactly these finalizers.
async fn keeps(scene: &Scene, kind: &Resource, name: &str, wanted: &[&str]) -> anyhow::Result<()> {
    let name = scene.ctx.controller_name(name);
    let ask = async || {
        let controller = scene.ctx.admin.get(kind, &name).await?;
        let finalizers = controller["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
        ensure!(finalizers == *wanted, "{finalizers:?}");
        Ok(())
    };
    scene.ctx.wait(&format!("the controller {name} has the finalizers {wanted:?}"), SOON, ask).await
}

fn finals(scene: &Scene) -> usize {
    scene.hook.calls().iter().filter(|call| call.path == "/finalize").count()
}

/// A controller `c` of this kind leaves the selection and comes back; `left` is logged in between.
async fn leaves(scene: &Scene, kind: &Resource, finalizer: &str, left: &str) -> anyhow::Result<()> {
    let name = scene.ctx.controller_name("c");
    let suite = async |value: &str| {
        let labels = json!({ "metadata": { "labels": { "suite": value } } });
        scene.ctx.admin.patch_merge(kind, &name, &labels).await
    };
    suite("none").await?;
    scene.ringmaster.wait_log(&scene.ctx, left, SOON).await?;
    scene.quiet().await?;
    wants(scene, "p", "2").await?;
    scene.no_call("it isn't selected").await?;
    guarded(scene, "p", finalizer).await?;
    ensure!(finals(scene) == 0, "the finalize hook was called");
    suite(&scene.ctx.id).await?;
    has(scene, "2").await?;
    guarded(scene, "p", finalizer).await?;
    // And it does what it is for.
    scene.ctx.admin.delete(&scene.things, "p").await?;
    let ask = async || {
        ensure!(scene.ctx.admin.find(&scene.things, "p").await?.is_none(), "it is there");
        Ok(())
    };
    scene.ctx.wait("the parent is finalized", SOON, ask).await?;
    ensure!(finals(scene) > 0, "the finalize hook wasn't called");
    Ok(())
}

async fn relabelled(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx).await?;
    keeps(&scene, &Context::controllers(), "c", &[OWN]).await?;
    leaves(&scene, &Context::controllers(), &finalizer(&scene, "ringmaster.dev"), "stopped").await?;
    keeps(&scene, &Context::controllers(), "c", &[OWN]).await
}

async fn relabelled_theirs(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(obey);
    let metadata = json!({ "name": scene.ctx.controller_name("c"), "labels": { "suite": scene.ctx.id } });
    scene.ctx.admin.create(&theirs(), json!({ "metadata": metadata, "spec": spec(&scene) })).await?;
    wants(&scene, "p", "1").await?;
    let finalizer = finalizer(&scene, "metacontroller.io");
    guarded(&scene, "p", &finalizer).await?;
    has(&scene, "1").await?;
    leaves(&scene, &theirs(), &finalizer, "isn't selected any more").await?;
    // It has none itself, so that the way back leaves nothing, and goes at once.
    keeps(&scene, &theirs(), "c", &[]).await?;
    wants(&scene, "q", "1").await?;
    guarded(&scene, "q", &finalizer).await?;
    scene.ctx.admin.delete(&theirs(), &scene.ctx.controller_name("c")).await?;
    ensure!(scene.ctx.admin.find(&theirs(), &scene.ctx.controller_name("c")).await?.is_none(), "it is there");
    all_free(&scene).await
}

async fn deleted_meanwhile(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx).await?;
    let finalizer = finalizer(&scene, "ringmaster.dev");
    for number in 0..5 {
        scene.thing(&format!("q{number}"), json!({})).await?;
    }
    for number in 0..5 {
        guarded(&scene, &format!("q{number}"), &finalizer).await?;
    }
    keeps(&scene, &Context::controllers(), "c", &[OWN]).await?;
    // Its own comes before those of its parents.
    let writes: Vec<_> = scene.ctx.all_requests()?.into_iter().filter(|request| request.verb == "patch").collect();
    let first = |plural: &str| {
        let found = writes.iter().position(|request| request.resource == plural && request.subresource.is_empty());
        found.with_context(|| format!("no patch of {plural}"))
    };
    ensure!(first("compositecontrollers")? < first("things")?, "the parents had it first");

    let Scene { ringmaster, hook, things, maps, ctx } = scene;
    ensure!(ringmaster.stop().await?.success());
    ctx.admin.delete(&Context::controllers(), &ctx.controller_name("c")).await?;
    ctx.admin.delete(&things, "q0").await?;
    let waiting = ctx.admin.get(&Context::controllers(), &ctx.controller_name("c")).await?;
    ensure!(waiting["metadata"]["deletionTimestamp"].is_string(), "{waiting}");
    let scene = Scene { ringmaster: Ringmaster::start(&ctx)?, hook, things, maps, ctx };
    gone(&scene, &Context::controllers(), "c").await?;
    all_free(&scene).await?;
    // Whoever deletes the controller lets its parents go without the hook.
    ensure!(scene.ctx.admin.find(&scene.things, "q0").await?.is_none(), "the deleted parent is there");
    ensure!(finals(&scene) == 0, "the finalize hook was called");
    has(&scene, "1").await
}

async fn decorator_deleted(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let mut spec = super::decorators::spec(&scene, "InPlace");
    spec["hooks"]["finalize"] = json!({ "webhook": { "url": scene.hook.url("/finalize") } });
    declare(&scene, "d", spec).await?;
    scene.ctx.admin.create(&scene.things, json!({ "metadata": { "name": "p" }, "spec": {} })).await?;
    guarded(&scene, "p", &format!("ringmaster.dev/decoratorcontroller-{}", scene.ctx.controller_name("d"))).await?;
    keeps(&scene, &decorators(), "d", &[OWN]).await?;
    scene.ctx.admin.delete(&decorators(), &scene.ctx.controller_name("d")).await?;
    gone(&scene, &decorators(), "d").await?;
    all_free(&scene).await?;
    scene.ringmaster.check()
}

async fn hook_removed(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx).await?;
    keeps(&scene, &Context::controllers(), "c", &[OWN]).await?;
    let patch = json!({ "spec": { "hooks": { "finalize": null } } });
    scene.ctx.admin.patch_merge(&Context::controllers(), &scene.ctx.controller_name("c"), &patch).await?;
    all_free(&scene).await?;
    keeps(&scene, &Context::controllers(), "c", &[]).await?;
    wants(&scene, "p", "2").await?;
    has(&scene, "2").await?;
    well(&scene.ctx, "c").await
}

async fn kind_gone(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx).await?;
    keeps(&scene, &Context::controllers(), "c", &[OWN]).await?;
    scene.ctx.admin.delete(&scene.things, "p").await?;
    let ask = async || {
        ensure!(scene.ctx.admin.find(&scene.things, "p").await?.is_none(), "it is there");
        Ok(())
    };
    scene.ctx.wait("the parent is finalized", SOON, ask).await?;
    remove(&scene.ctx, &crd_name(&scene.things)).await?;
    scene.ctx.admin.delete(&Context::controllers(), &scene.ctx.controller_name("c")).await?;
    gone(&scene, &Context::controllers(), "c").await?;
    scene.ringmaster.check()
}

async fn forbidden(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx).await?;
    keeps(&scene, &Context::controllers(), "c", &[OWN]).await?;
    // The scene's own grant.
    let roles = Resource::new("rbac.authorization.k8s.io/v1", "ClusterRole", "clusterroles", None);
    ensure!(scene.ctx.admin.delete(&roles, &format!("suite-{}-0", scene.ctx.id)).await?, "no such grant");
    let user = scene.ctx.as_user()?;
    let ask = async || {
        let listed = user.list(&scene.things, "").await;
        ensure!(listed.as_ref().err().and_then(code) == Some(403), "{listed:?}");
        Ok(())
    };
    scene.ctx.wait("the right is gone", SOON, ask).await?;
    let name = scene.ctx.controller_name("c");
    let controller = scene.ctx.admin.get(&Context::controllers(), &name).await?;
    scene.ctx.admin.delete(&Context::controllers(), &name).await?;
    let message = scene.condition("c", ["Ready", "False", "CleanupFailing"]).await?;
    ensure!(message.contains("things") && message.contains("grant get, list and patch"), "{message}");
    scene.event(&controller, "CleanupFailing", &["things", "grant get, list and patch"]).await?;
    let parent = scene.ctx.admin.get(&scene.things, "p").await?;
    ensure!(parent["metadata"]["finalizers"] == json!([finalizer(&scene, "ringmaster.dev")]), "{parent}");
    scene.ctx.grant(&Context::rules_for(&[&scene.things])).await?;
    gone(&scene, &Context::controllers(), "c").await?;
    all_free(&scene).await
}

/// Whether a path is that of a parent that can't be freed.
fn is_stuck(path: &str) -> bool {
    let number = path.rsplit_once("/p").and_then(|(_, number)| number.parse::<usize>().ok());
    number.is_some_and(|number| number < STUCK)
}

/// How many things have the finalizer.
async fn kept(scene: &Scene) -> anyhow::Result<usize> {
    let own = json!([finalizer(scene, "ringmaster.dev")]);
    let things = scene.ctx.admin.list(&scene.things, "").await?;
    Ok(things.iter().filter(|thing| thing["metadata"]["finalizers"] == own).count())
}

async fn refused(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.hook.set(obey);
    scene.ctx.controller("c", spec(&scene)).await?;
    for number in 0..PARENTS {
        scene.thing(&format!("p{number:02}"), json!({ "children": [] })).await?;
    }
    let ask = async || {
        let kept = kept(&scene).await?;
        ensure!(kept == PARENTS, "{kept} have the finalizer");
        Ok(())
    };
    scene.ctx.wait("each parent has the finalizer", SOON, ask).await?;
    scene.quiet().await?;
    gate.set(|ask| if ask.method == Method::PATCH && is_stuck(&ask.path) { Act::Refuse(422, None) } else { Act::Pass });
    scene.ctx.admin.delete(&Context::controllers(), &scene.ctx.controller_name("c")).await?;
    let message = scene.condition("c", ["Ready", "False", "CleanupFailing"]).await?;
    ensure!(message.contains("keep the finalizer") && message.contains("refused by the trial"), "{message}");
    let asked = gate.asked(|asked| asked.act == Act::Refuse(422, None));
    let first = asked.first().context("nothing was refused")?.at;
    let burst = asked.iter().filter(|asked| asked.at - first < ONE_SWEEP).count();
    ensure!(burst <= MAX_ASKED, "{burst} refusals in one sweep");
    // Those behind them have their turn all the same.
    let ask = async || {
        let kept = kept(&scene).await?;
        ensure!(kept == STUCK, "{kept} have the finalizer");
        Ok(())
    };
    scene.ctx.wait("the others are free", LATER, ask).await?;
    gate.open();
    gone(&scene, &Context::controllers(), "c").await?;
    all_free(&scene).await
}

/// The kind is served as `v1`, then as `v2` too, then as `v2` alone: nothing goes while the controller names what isn't
/// served, and all goes on once it names the other.
async fn version_moves(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx).await?;
    let child = scene.ctx.admin.get(&scene.maps, "a").await?;
    let name = crd_name(&scene.things);
    scene.ctx.admin.patch_merge(&crds(), &name, &versions(true)).await?;
    server::served(&scene.ctx.admin, &scene.ctx.admin.get(&crds(), &name).await?).await?;
    wants(&scene, "p", "2").await?;
    has(&scene, "2").await?;
    scene.ctx.admin.patch_merge(&crds(), &name, &versions(false)).await?;
    condition_within(&scene.ctx, "c", "ParentKindNotServed", NOTICED).await?;
    let v2 = scene.things.api_version.replace("/v1", "/v2");
    let things = Resource { api_version: v2.clone(), ..scene.things.clone() };
    let controller = scene.ctx.controller_name("c");
    let parent = |version: &str| json!({ "spec": { "parentResource": { "apiVersion": version } } });
    scene.ctx.admin.patch_merge(&Context::controllers(), &controller, &parent(&v2)).await?;
    let reply = json!({ "children": [config_map("a", json!({ "x": "3" }))] });
    scene.ctx.admin.patch_merge(&things, "p", &json!({ "spec": { "reply": reply } })).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "3", "{}", map["data"]);
        ensure!(map["metadata"]["uid"] == child["metadata"]["uid"], "it was made anew");
        Ok(())
    };
    scene.map("a", "is updated", check).await?;
    well(&scene.ctx, "c").await?;
    ensure!(finals(&scene) == 0, "a version that went looked like a deletion");
    // Deleted while it names the version that is gone: the parents are found in the other.
    scene.ctx.admin.patch_merge(&Context::controllers(), &controller, &parent(&scene.things.api_version)).await?;
    condition_within(&scene.ctx, "c", "ParentKindNotServed", NOTICED).await?;
    scene.ctx.admin.delete(&Context::controllers(), &controller).await?;
    gone(&scene, &Context::controllers(), "c").await?;
    let left = scene.ctx.admin.get(&things, "p").await?;
    ensure!(left["metadata"]["finalizers"].as_array().is_none_or(Vec::is_empty), "{left}");
    ensure!(finals(&scene) == 0, "the finalize hook was called");
    Ok(())
}

async fn one_kind_goes(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(super::decorators::obey);
    let others = scene.ctx.crd("Other", "others", Scope::Namespaced, None).await?;
    scene.ctx.grant(&Context::rules_for(&[&others])).await?;
    let mut spec = super::decorators::spec(&scene, "InPlace");
    spec["resources"] = json!([
        { "apiVersion": scene.things.api_version, "resource": "things" },
        { "apiVersion": others.api_version, "resource": "others" },
    ]);
    declare(&scene, "d", spec).await?;
    let make = async |kind: &Resource, name: &str| {
        let body = json!({ "metadata": { "name": name }, "spec": { "reply": { "labels": { "seen": "1" } } } });
        scene.ctx.admin.create(kind, body).await?;
        let ask = async || {
            let object = scene.ctx.admin.get(kind, name).await?;
            ensure!(object["metadata"]["labels"]["seen"] == "1", "{object}");
            Ok(())
        };
        scene.ctx.wait(&format!("{name} is decorated"), LATER, ask).await
    };
    make(&scene.things, "t1").await?;
    make(&others, "o1").await?;
    remove(&scene.ctx, &crd_name(&others)).await?;
    let told = async || {
        let message = ready(&scene, "d", ["Ready", "False"]).await?;
        ensure!(message.contains("spec.resources[1]") && message.contains("others"), "{message}");
        Ok(())
    };
    scene.ctx.wait("the kind that is gone is told", NOTICED, told).await?;
    make(&scene.things, "t2").await?;
    scene.ctx.crd("Other", "others", Scope::Namespaced, None).await?;
    make(&others, "o2").await?;
    ready(&scene, "d", ["Ready", "True"]).await?;
    let first = scene.ctx.admin.get(&scene.things, "t1").await?;
    ensure!(first["metadata"]["labels"]["seen"] == "1", "{first}");
    scene.ringmaster.check()
}
