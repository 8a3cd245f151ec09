//! Finalize hooks beneath which something fails: finalizers that can't be written, kinds and namespaces that go. No parent is
//! lost before its hook is done, none stays for ever, each cause is told, and nothing is asked for in a hot loop.
//!
//! Never about what the hook answers: see `faults_roles` and `faults_lists`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::faults_api::{settled, tries};
use super::faults_hook::{conditions_say, well};
use super::faults_kinds::{NOTICED, SLOW, condition_within, crd_name, crds, remove};
use super::scene::{LATER, NEVER, SOON, Scene, config_map};
use crate::cluster::{Context, Scope};
use crate::gate::{Act, Ask, back_off};
use crate::hook::{CallInfo, Reply};
use crate::objects::Resource;
use crate::trial::Case;
use crate::wait;

/// Writes under a fault whose distances are looked at.
const TRIES: usize = 4;
/// The shortest pause before a repetition.
const LEAST: Duration = Duration::from_millis(50);
/// Calls of the hook for one object under a fault: backoff up to a minute.
const FEW: usize = 30;
/// What both servers may take to empty a kind or a namespace.
const GONE: Duration = Duration::from_secs(60);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("faults_finalizers", "that_cannot_be_written", not_written),
        Case::new("faults_finalizers", "of_a_kind_that_goes", kind_goes).timeout(SLOW),
        Case::new("faults_finalizers", "in_a_namespace_that_goes", namespace_goes).timeout(SLOW),
        Case::new("faults_finalizers", "while_a_kind_of_children_is_gone", child_kind_gone).timeout(SLOW),
    ]
}

/// A finalizer whose write fails.
struct Unwritten {
    /// The parent's name.
    name: &'static str,
    /// Whether it is to be put there, or taken off.
    present: bool,
    act: Act,
}

const UNWRITTEN: &[Unwritten] = &[
    Unwritten { name: "put-403", present: true, act: Act::Refuse(403, None) },
    Unwritten { name: "put-500", present: true, act: Act::Refuse(500, None) },
    Unwritten { name: "put-lost", present: true, act: Act::Lose },
    Unwritten { name: "off-403", present: false, act: Act::Refuse(403, None) },
    Unwritten { name: "off-500", present: false, act: Act::Refuse(500, None) },
    Unwritten { name: "off-lost", present: false, act: Act::Lose },
];

impl Unwritten {
    fn is_it(&self, ask: &Ask) -> bool {
        let finalizers = &ask.json()["metadata"]["finalizers"];
        let is_present = finalizers.to_string().contains("ringmaster.dev/");
        ask.writes(self.name) && finalizers.is_array() && is_present == self.present
    }
}

/// Gives each parent a ConfigMap of its name; at the end none, and it may go once `spec.done` says so.
fn obey(request: &Value, info: &CallInfo) -> Reply {
    let parent = &request["parent"];
    if info.path == "/finalize" {
        return Reply::json(&json!({ "children": [], "finalized": parent["spec"]["done"] != false }));
    }
    let name = parent["metadata"]["name"].as_str().unwrap_or_default();
    Reply::json(&json!({ "children": [config_map(name, json!({ "x": "1" }))] }))
}

fn spec(scene: &Scene) -> Value {
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["finalize"] = json!({ "webhook": { "url": scene.hook.url("/finalize") } });
    spec
}

/// Makes a parent, and waits until its child is there.
async fn parent(scene: &Scene, kind: &Resource, name: &str, spec: Value) -> anyhow::Result<Value> {
    let made = scene.ctx.admin.create(kind, json!({ "metadata": { "name": name }, "spec": spec })).await?;
    let maps = scene.maps.in_namespace(kind.namespace.as_deref());
    let ask = async || scene.ctx.admin.get(&maps, name).await.map(drop);
    scene.ctx.wait(&format!("{name} has its child"), LATER, ask).await?;
    Ok(made)
}

async fn is_gone(scene: &Scene, kind: &Resource, name: &str) -> anyhow::Result<()> {
    let ask = async || {
        let left = scene.ctx.admin.find(kind, name).await?;
        ensure!(left.is_none(), "{}", left.unwrap_or_default()["metadata"]);
        Ok(())
    };
    scene.ctx.wait(&format!("{name} is gone"), LATER, ask).await
}

/// How often the finalize hook was called for an object of this key.
fn finalized(scene: &Scene, key: &str) -> usize {
    scene.hook.calls_for(key).iter().filter(|call| call.path == "/finalize").count()
}

async fn not_written(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.hook.set(obey);
    scene.ctx.controller("c", spec(&scene)).await?;
    parent(&scene, &scene.things, "first", json!({})).await?;
    let mut things = Vec::new();
    for case in UNWRITTEN.iter().filter(|case| !case.present) {
        things.push((case, parent(&scene, &scene.things, case.name, json!({})).await?));
    }
    scene.quiet().await?;
    gate.set(|ask| UNWRITTEN.iter().find(|case| case.is_it(ask)).map_or(Act::Pass, |case| case.act));
    for (case, _) in &things {
        scene.ctx.admin.delete(&scene.things, case.name).await?;
    }
    for case in UNWRITTEN.iter().filter(|case| case.present) {
        let body = json!({ "metadata": { "name": case.name }, "spec": {} });
        things.push((case, scene.ctx.admin.create(&scene.things, body).await?));
    }
    // Others of the same controller begin and end meanwhile.
    parent(&scene, &scene.things, "good", json!({})).await?;
    scene.ctx.admin.delete(&scene.things, "good").await?;
    is_gone(&scene, &scene.things, "good").await?;
    for (case, thing) in &things {
        let Act::Refuse(code, _) = case.act else {
            // It was carried out.
            if case.present {
                scene.map(case.name, "goes on as it was found", |_| Ok(())).await?;
            } else {
                is_gone(&scene, &scene.things, case.name).await?;
                let calls = finalized(&scene, &scene.key(case.name));
                ensure!(calls <= 3, "{}: finalized {calls} times", case.name);
            }
            continue;
        };
        let own = format!("things/{}", case.name);
        let fix = if code == 403 { "grant patch on things, for the finalizer ringmaster.dev/" } else { "" };
        scene.event(thing, "SyncError", &[&own, "refused by the trial", &code.to_string(), fix]).await?;
        let asked = tries(&scene, &gate, TRIES, LATER, |ask| case.is_it(ask)).await?;
        let asked = settled(&asked, LEAST);
        back_off(&asked[..asked.len().min(TRIES)], LEAST)?;
        if case.present {
            // Nothing is made that nobody would take away.
            ensure!(scene.calls(case.name) == 0, "{}: its hook was called", case.name);
            ensure!(scene.ctx.admin.find(&scene.maps, case.name).await?.is_none(), "{}: it has a child", case.name);
        } else {
            let kept = scene.ctx.admin.get(&scene.things, case.name).await?;
            ensure!(kept["metadata"]["uid"] == thing["metadata"]["uid"], "{kept}");
            let calls = finalized(&scene, &scene.key(case.name));
            ensure!((1..FEW).contains(&calls), "{}: finalized {calls} times", case.name);
        }
    }
    conditions_say(&scene, "c", &["refused by the trial"]).await?;
    gate.open();
    for (case, _) in &things {
        if case.present {
            let ask = async || scene.ctx.admin.get(&scene.maps, case.name).await.map(drop);
            scene.ctx.wait(&format!("{} has its child", case.name), LATER, ask).await?;
            let thing = scene.ctx.admin.get(&scene.things, case.name).await?;
            ensure!(thing["metadata"]["finalizers"].as_array().map_or(0, Vec::len) == 1, "{}", thing["metadata"]);
        } else {
            is_gone(&scene, &scene.things, case.name).await?;
        }
    }
    well(&scene.ctx, "c").await?;
    scene.map("first", "is there", |_| Ok(())).await?;
    scene.ringmaster.check()
}

/// Its end waits for its parents, and they for their hook.
async fn kind_goes(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.hook.set(obey);
    scene.ctx.controller("c", spec(&scene)).await?;
    for name in ["p", "q"] {
        parent(&scene, &scene.things, name, json!({})).await?;
    }
    let held = parent(&scene, &scene.things, "held", json!({ "done": false })).await?;
    scene.quiet().await?;
    // It ends in a moment: meanwhile the one that is held holds it.
    let name = crd_name(&scene.things);
    ensure!(scene.ctx.admin.delete(&crds(), &name).await?);
    for name in ["p", "q"] {
        is_gone(&scene, &scene.things, name).await?;
        scene.no_map(name, LATER).await?;
    }
    let kept = scene.ctx.admin.get(&scene.things, "held").await?;
    ensure!(kept["metadata"]["uid"] == held["metadata"]["uid"], "{kept}");
    let calls = finalized(&scene, &scene.key("held"));
    ensure!((1..FEW).contains(&calls), "finalized {calls} times");
    scene.ctx.admin.patch_merge(&scene.things, "held", &json!({ "spec": { "done": true } })).await?;
    let ask = async || {
        ensure!(scene.ctx.admin.find(&crds(), &name).await?.is_none(), "it is there");
        Ok(())
    };
    scene.ctx.wait("the kind is gone", GONE, ask).await?;
    gate.cut_streams();
    let message = condition_within(&scene.ctx, "c", "ParentKindNotServed", NOTICED).await?;
    ensure!(message.contains("spec.parentResource") && message.contains("things"), "{message}");
    scene.ctx.crd("Thing", "things", Scope::Namespaced, None).await?;
    parent(&scene, &scene.things, "p", json!({})).await?;
    well(&scene.ctx, "c").await?;
    scene.ctx.admin.delete(&scene.things, "p").await?;
    is_gone(&scene, &scene.things, "p").await?;
    scene.ringmaster.check()
}

/// Nothing new can be made in it, but what is there is finalized.
async fn namespace_goes(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(obey);
    scene.ctx.controller("c", spec(&scene)).await?;
    let first = parent(&scene, &scene.things, "first", json!({})).await?;
    let doomed = format!("{}-doomed", scene.ctx.namespace);
    let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
    let body = json!({ "metadata": { "name": doomed, "labels": { "suite": scene.ctx.id } } });
    scene.ctx.admin.create(&namespaces, body).await?;
    let things = scene.things.in_namespace(Some(&doomed));
    for number in 0..5 {
        parent(&scene, &things, &format!("p{number}"), json!({ "done": number != 0 })).await?;
    }
    scene.ctx.admin.delete(&namespaces, &doomed).await?;
    let ask = async || {
        let left = scene.ctx.admin.list(&things, "").await?;
        ensure!(left.len() == 1, "{} are left", left.len());
        Ok(())
    };
    scene.ctx.wait("all but the held one are gone", GONE, ask).await?;
    let held = format!("{doomed}/p0");
    ensure!((1..FEW).contains(&finalized(&scene, &held)), "finalized {} times", finalized(&scene, &held));
    parent(&scene, &scene.things, "q", json!({})).await?;
    scene.ctx.admin.patch_merge(&things, "p0", &json!({ "spec": { "done": true } })).await?;
    let ask = async || {
        ensure!(scene.ctx.admin.find(&namespaces, &doomed).await?.is_none(), "it is there");
        Ok(())
    };
    scene.ctx.wait("the namespace is gone", GONE, ask).await?;
    well(&scene.ctx, "c").await?;
    let now = scene.ctx.admin.get(&scene.things, "first").await?;
    ensure!(now["metadata"]["uid"] == first["metadata"]["uid"], "{now}");
    Ok(())
}

/// Who doesn't see all children can't say that they are gone: parents stay until the kind is there again.
async fn child_kind_gone(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.hook.set(obey);
    let sprockets = scene.ctx.crd("Sprocket", "sprockets", Scope::Namespaced, None).await?;
    scene.ctx.grant(&Context::rules_for(&[&sprockets])).await?;
    let mut spec = spec(&scene);
    let kinds = spec["childResources"].as_array_mut().context("no kinds")?;
    kinds.push(json!({ "apiVersion": sprockets.api_version, "resource": "sprockets" }));
    let controller = scene.ctx.controller("c", spec).await?;
    let made = parent(&scene, &scene.things, "p", json!({})).await?;
    scene.quiet().await?;
    remove(&scene.ctx, &crd_name(&sprockets)).await?;
    gate.cut_streams();
    let message = condition_within(&scene.ctx, "c", "ChildKindNotServed", NOTICED).await?;
    ensure!(message.contains("spec.childResources[1]") && message.contains("sprockets"), "{message}");
    scene.event(&controller, "CreateError", &["spec.childResources[1]", "sprockets"]).await?;
    scene.ctx.admin.delete(&scene.things, "p").await?;
    wait::stays("it waits", NEVER, async || {
        let kept = scene.ctx.admin.get(&scene.things, "p").await?;
        ensure!(kept["metadata"]["uid"] == made["metadata"]["uid"], "{kept}");
        scene.ctx.admin.get(&scene.maps, "p").await.map(drop)
    })
    .await?;
    ensure!(finalized(&scene, &scene.key("p")) == 0, "it doesn't see its children, and was finalized");
    scene.ctx.crd("Sprocket", "sprockets", Scope::Namespaced, None).await?;
    is_gone(&scene, &scene.things, "p").await?;
    scene.no_map("p", SOON).await?;
    ensure!(finalized(&scene, &scene.key("p")) > 0, "it went without its hook");
    parent(&scene, &scene.things, "q", json!({})).await?;
    well(&scene.ctx, "c").await
}
