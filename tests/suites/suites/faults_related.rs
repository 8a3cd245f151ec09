//! Related objects that can't be had: their kind comes later, goes, comes back; their watches and look-ups are refused. The
//! cause is told on the parent, its sync hook isn't called with half of what it asked for, others go on, nothing is asked for
//! in a hot loop, and all is well once it is mended.
//!
//! Never about rules that can't be followed, whatever happens: see `customize`.

use anyhow::ensure;
use serde_json::{Value, json};

use super::customize::{declared, rule, thing};
use super::faults_api::no_deletions;
use super::faults_hook::{conditions_say, well};
use super::faults_kinds::{SLOW, crd_name, remove};
use super::scene::{LATER, Scene};
use crate::cluster::{Context, Scope};
use crate::gate::{Act, Ask};
use crate::trial::Case;

/// Calls for one object, or requests, under a fault: backoff up to a minute.
const FEW: usize = 30;
/// How the watch of a related object is refused.
const CODES: [u16; 4] = [403, 429, 500, 503];

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("faults_related", "a_kind_comes_goes_and_comes_back", kind_goes).timeout(SLOW),
        Case::new("faults_related", "watches_and_look_ups_are_refused", refused).timeout(SLOW),
    ]
}

fn calls(scene: &Scene, name: &str, path: &str) -> usize {
    scene.hook.calls_for(&scene.key(name)).iter().filter(|call| call.path == path).count()
}

/// Makes a parent that is related to this.
async fn make(scene: &Scene, name: &str, related: Value) -> anyhow::Result<Value> {
    let body = json!({ "metadata": { "name": name }, "spec": { "related": related } });
    scene.ctx.admin.create(&scene.things, body).await
}

/// Waits until a parent was synced with an object of this kind and name, which has this value; answers with the child that
/// shows it.
async fn seen(scene: &Scene, parent: &str, [kind, name, value]: [&str; 3]) -> anyhow::Result<Value> {
    let key = format!("{kind}.{}_{name}", scene.ctx.namespace);
    let ask = async || {
        let map = scene.ctx.admin.get(&scene.maps, &format!("{parent}-seen")).await?;
        ensure!(map["data"][&key] == value, "{}", map["data"]);
        Ok(map)
    };
    scene.ctx.wait(&format!("{parent} is synced with {name} as {value}"), LATER, ask).await
}

/// Has a parent synced, and its customize hook asked.
async fn touch(scene: &Scene, name: &str, value: &str) -> anyhow::Result<()> {
    let patch = json!({ "metadata": { "annotations": { "touched": value } } });
    scene.ctx.admin.patch_merge(&scene.things, name, &patch).await.map(drop)
}

async fn kind_goes(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    let scene = declared(scene, "v2").await?;
    let ctx = &scene.ctx;
    let sprockets = ctx.namespaced(&format!("{}/v1", ctx.group()), "Sprocket", "sprockets");
    ctx.grant(&Context::rules_for(&[&sprockets])).await?;
    let of = json!({
        "apiVersion": sprockets.api_version, "resource": "sprockets", "namespace": ctx.namespace, "names": ["s"],
    });
    let sprocket = async |value: &str| {
        let body = json!({ "metadata": { "name": "s" }, "data": { "v": value } });
        ctx.admin.create(&sprockets, body).await.map(drop)
    };
    let made = make(&scene, "p", json!([rule(json!({ "namespace": ctx.namespace, "names": ["one"] })), of])).await?;
    let words = ["/customize", "relatedResources[1].resource", "sprockets", "install its CRD"];
    scene.event(&made, "SyncError", &words).await?;
    conditions_say(&scene, "c", &words).await?;
    make(&scene, "other", json!([])).await?;
    scene.map("other-seen", "another parent is synced", |_| Ok(())).await?;
    ensure!(calls(&scene, "p", "/sync") == 0, "it was synced without what it is related to");
    ensure!(calls(&scene, "p", "/customize") < FEW, "{} calls", calls(&scene, "p", "/customize"));
    // It comes.
    ctx.crd("Sprocket", "sprockets", Scope::Namespaced, None).await?;
    sprocket("1").await?;
    let first = seen(&scene, "p", ["Sprocket", "s", "1"]).await?;
    well(ctx, "c").await?;
    // It goes: its objects first.
    let customized = calls(&scene, "p", "/customize");
    remove(ctx, &crd_name(&sprockets)).await?;
    gate.cut_streams();
    let mut touched = 0;
    let told = async || {
        // What is looked at before the watch has ended is well.
        touched += 1;
        touch(&scene, "p", &touched.to_string()).await?;
        conditions_say_now(&scene, &["sprockets"]).await
    };
    ctx.wait("it is told", LATER, told).await?;
    let kept = ctx.admin.get(&scene.maps, "p-seen").await?;
    ensure!(kept["metadata"]["uid"] == first["metadata"]["uid"], "{kept}");
    thing(&scene, "two", json!({}), "2").await?;
    let rules = json!([rule(json!({ "namespace": ctx.namespace, "names": ["two"] }))]);
    make(&scene, "another", rules).await?;
    seen(&scene, "another", ["ConfigMap", "two", "2"]).await?;
    let customized = calls(&scene, "p", "/customize") - customized;
    ensure!(customized < FEW + touched, "{customized} calls");
    // It comes back.
    ctx.crd("Sprocket", "sprockets", Scope::Namespaced, None).await?;
    sprocket("2").await?;
    let again = seen(&scene, "p", ["Sprocket", "s", "2"]).await?;
    ensure!(again["metadata"]["uid"] == first["metadata"]["uid"], "it was made anew: {again}");
    well(ctx, "c").await?;
    no_deletions(&scene)?;
    scene.ringmaster.check()
}

/// Fails unless a condition of the controller says all `words`.
async fn conditions_say_now(scene: &Scene, words: &[&str]) -> anyhow::Result<()> {
    let object = scene.ctx.admin.get(&Context::controllers(), &scene.ctx.controller_name("c")).await?;
    let conditions = object["status"]["conditions"].to_string();
    ensure!(words.iter().all(|word| conditions.contains(word)), "{conditions}");
    Ok(())
}

/// The related object whose watch is refused with this code.
fn one(code: u16) -> String {
    format!("one-{code}")
}

fn is_watch_of(ask: &Ask, code: u16) -> bool {
    ask.query.contains(&format!("metadata.name%3D{}", one(code).replace('-', "%2D")))
}

async fn refused(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    let scene = declared(scene, "v2").await?;
    let ctx = &scene.ctx;
    make(&scene, "first", json!([])).await?;
    scene.map("first-seen", "all is well", |_| Ok(())).await?;
    // A kind that nobody has looked up yet.
    let sprockets = ctx.crd("Sprocket", "sprockets", Scope::Namespaced, None).await?;
    ctx.grant(&Context::rules_for(&[&sprockets])).await?;
    ctx.admin.create(&sprockets, json!({ "metadata": { "name": "s" }, "data": { "v": "1" } })).await?;
    let looked_up = format!("/apis/{}", sprockets.api_version);
    let by_code = |ask: &Ask| CODES.into_iter().find(|code| is_watch_of(ask, *code));
    gate.set({
        let looked_up = looked_up.clone();
        move |ask: &Ask| {
            let code = if ask.path == looked_up { Some(500) } else { by_code(ask) };
            code.map_or(Act::Pass, |code| Act::Refuse(code, None))
        }
    });
    let mut parents = Vec::new();
    for code in CODES {
        thing(&scene, &one(code), json!({}), "1").await?;
        let rules = json!([rule(json!({ "namespace": ctx.namespace, "names": [one(code)] }))]);
        parents.push((code, make(&scene, &format!("p-{code}"), rules).await?));
    }
    let of = json!({
        "apiVersion": sprockets.api_version, "resource": "sprockets", "namespace": ctx.namespace, "names": ["s"],
    });
    let unknown = make(&scene, "p-unknown", json!([of])).await?;
    for (code, parent) in &parents {
        let code = code.to_string();
        let mut words = vec!["related configmaps can't be watched", "refused by the trial", &*code];
        if code == "403" {
            words.push("grant get, list and watch on configmaps");
        }
        scene.event(parent, "SyncError", &words).await?;
        ensure!(calls(&scene, &format!("p-{code}"), "/sync") == 0, "{code}: it was synced without what it asked for");
    }
    scene.event(&unknown, "SyncError", &[&looked_up, "refused by the trial", "500"]).await?;
    ensure!(calls(&scene, "p-unknown", "/sync") == 0, "it was synced without what it asked for");
    conditions_say(&scene, "c", &["refused by the trial"]).await?;
    thing(&scene, "two", json!({}), "2").await?;
    let rules = json!([rule(json!({ "namespace": ctx.namespace, "names": ["two"] }))]);
    make(&scene, "good", rules).await?;
    seen(&scene, "good", ["ConfigMap", "two", "2"]).await?;
    for code in CODES {
        let asked = gate.asked(|asked| asked.act != Act::Pass && is_watch_of(&asked.ask, code)).len();
        ensure!(asked < FEW, "{code}: {asked} watches were refused");
        let calls = calls(&scene, &format!("p-{code}"), "/customize");
        ensure!(calls <= 2, "{code}: what the hook said is known, and it was asked {calls} times");
    }
    gate.open();
    for code in CODES {
        seen(&scene, &format!("p-{code}"), ["ConfigMap", &one(code), "1"]).await?;
    }
    seen(&scene, "p-unknown", ["Sprocket", "s", "1"]).await?;
    well(ctx, "c").await?;

    // Once they were read, syncs go on with what is known; but not with what is somebody else's to see.
    gate.set(move |ask| by_code(ask).map_or(Act::Pass, |code| Act::Refuse(code, None)));
    gate.cut_streams();
    let synced = calls(&scene, "p-500", "/sync");
    touch(&scene, "p-500", "1").await?;
    let ask = async || {
        ensure!(calls(&scene, "p-500", "/sync") > synced, "not synced");
        Ok(())
    };
    ctx.wait("it is synced with what is known", LATER, ask).await?;
    // It may be old, which no parent tells.
    let message = scene.condition("c", ["Ready", "False", "Forbidden"]).await?;
    ensure!(message.contains("related configmaps can't be watched"), "{message}");
    let mut touched = 0;
    let told = async || {
        // What is looked at before the watch is refused is well.
        touched += 1;
        touch(&scene, "p-403", &touched.to_string()).await?;
        conditions_say_now(&scene, &["related configmaps can't be watched", "grant get, list and watch on configmaps"])
            .await
    };
    ctx.wait("it is told", LATER, told).await?;
    // Changes that nobody sees for now.
    for code in CODES {
        ctx.admin.patch_merge(&scene.maps, &one(code), &json!({ "data": { "v": "2" } })).await?;
    }
    gate.open();
    for code in CODES {
        seen(&scene, &format!("p-{code}"), ["ConfigMap", &one(code), "2"]).await?;
    }
    well(ctx, "c").await?;
    no_deletions(&scene)?;
    scene.ringmaster.check()
}
