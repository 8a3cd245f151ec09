//! What hooks of our own group may answer beside status and children: events on the parent, and conditions for its status.
//!
//! Never about Ringmaster's own events and conditions: see `events`, and the suites of faults.

use anyhow::ensure;
use serde_json::{Value, json};

use super::decorators::{self, thing, writes};
use super::scene::{LATER, SOON, Scene, config_map};
use crate::cluster::Context;
use crate::objects::Resource;
use crate::process::Ringmaster;
use crate::trial::Case;

/// A time that can't be mistaken for that of the trial.
const EARLIER: &str = "2001-02-03T04:05:06Z";

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("reply_extras", "events_arrive_once_for_equal_answers", once),
        Case::new("reply_extras", "the_next_member_repeats_events_once", repeated),
        Case::new("reply_extras", "conditions_keep_their_times", times),
        Case::new("reply_extras", "bad_entries_are_told", bad),
        Case::new("reply_extras", "decorators_add_to_the_status_that_is_there", decorated),
        Case::new("reply_extras", "metacontrollers_objects_know_neither", foreign),
    ]
}

/// Has the hook called once more for a thing whose generation stays, and waits until nothing is left to do.
async fn again(scene: &Scene, name: &str) -> anyhow::Result<()> {
    let before = scene.calls(name);
    let patch = json!({ "metadata": { "labels": { "touched": before.to_string() } } });
    scene.ctx.admin.patch_merge(&scene.things, name, &patch).await?;
    scene.called(name, before + 1).await?;
    scene.quiet().await.map(drop)
}

fn condition(kind: &str, status: &str, message: &str) -> Value {
    json!({ "type": kind, "status": status, "reason": "Looked", "message": message })
}

async fn once(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let events = json!([
        { "type": "Warning", "reason": "QuotaExceeded", "message": "no room for it" },
        { "reason": "Counted", "message": "one" },
    ]);
    let reply = json!({ "children": [config_map("a", json!({}))], "events": events });
    let made = scene.thing("p", reply).await?;
    for (reason, message) in [("QuotaExceeded", "no room for it"), ("Counted", "one")] {
        let told = scene.event(&made, reason, &[message]).await?;
        ensure!(told == message, "it is as the hook says it: {told}");
    }
    for _ in 0..3 {
        again(&scene, "p").await?;
    }
    // Events are posted one after the other: with this one, all that were sent before are there.
    let last = json!({ "events": [{ "reason": "Last", "message": "of all" }] });
    scene.wants("p", last.clone()).await?;
    scene.event(&made, "Last", &["of all"]).await?;
    let told = scene.ctx.events_for(&made).await?;
    for (reason, kind) in [("QuotaExceeded", "Warning"), ("Counted", "Normal")] {
        let of: Vec<&Value> = told.iter().filter(|event| event["reason"] == reason).collect();
        ensure!(of.len() == 1 && of[0]["type"] == kind && of[0]["series"].is_null(), "{of:?}");
    }
    // Nothing, and then the same: that is news.
    scene.wants("p", json!({ "events": null })).await?;
    scene.synced("p").await?;
    scene.wants("p", last).await?;
    let ask = async || {
        let told = scene.ctx.events_for(&made).await?;
        let of: Vec<&Value> = told.iter().filter(|event| event["reason"] == "Last").collect();
        ensure!(of.len() == 1 && of[0]["series"]["count"] == 2, "{of:?}");
        Ok(())
    };
    scene.ctx.wait("it is counted up", SOON, ask).await
}

/// Each of two processes has said it once.
async fn said_twice(scene: &Scene, made: &Value) -> anyhow::Result<()> {
    let told = scene.ctx.events_for(made).await?;
    let of: Vec<&Value> = told.iter().filter(|event| event["reason"] == "Said").collect();
    ensure!(of.len() == 2 && of.iter().all(|event| event["series"].is_null()), "{of:?}");
    Ok(())
}

async fn repeated(ctx: Context) -> anyhow::Result<()> {
    let mut scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let made = scene.thing("p", json!({ "events": [{ "reason": "Said", "message": "it" }] })).await?;
    scene.event(&made, "Said", &["it"]).await?;
    let next = Ringmaster::start(&scene.ctx)?;
    let first = std::mem::replace(&mut scene.ringmaster, next);
    ensure!(first.stop().await?.success());
    scene.ctx.wait("it is said once more", LATER, async || said_twice(&scene, &made).await).await?;
    again(&scene, "p").await?;
    scene.wants("p", json!({ "events": [{ "reason": "Last", "message": "of all" }] })).await?;
    scene.event(&made, "Last", &["of all"]).await?;
    said_twice(&scene, &made).await
}

async fn times(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let mine = json!({ "type": "Mine", "status": "True" });
    let status = json!({ "seen": 1, "conditions": [mine, { "type": "Ready", "status": "Unknown" }] });
    let conditions = json!([condition("Ready", "False", "not yet")]);
    scene.thing("p", json!({ "status": status, "conditions": conditions })).await?;
    let told = scene.synced("p").await?["status"].clone();
    let ready = &told["conditions"][1];
    let time = ready["lastTransitionTime"].as_str().unwrap_or_default().to_owned();
    let mut wanted = condition("Ready", "False", "not yet");
    wanted["observedGeneration"] = 1.into();
    wanted["lastTransitionTime"] = time.as_str().into();
    ensure!(time.ends_with('Z') && time.len() == EARLIER.len(), "{told}");
    ensure!(told["seen"] == 1 && told["conditions"] == json!([mine, wanted]), "the entry wins: {told}");

    scene.quiet().await?;
    let mut status = told;
    status["conditions"][1]["lastTransitionTime"] = EARLIER.into();
    scene.ctx.admin.patch_status(&scene.things, "p", &json!({ "status": status })).await?;
    let mark = scene.ctx.mark()?;
    again(&scene, "p").await?;
    ensure!(writes(&scene, mark)?.is_empty(), "nothing has changed: {:?}", writes(&scene, mark)?);

    scene.wants("p", json!({ "conditions": [condition("Ready", "False", "still not")] })).await?;
    let told = scene.synced("p").await?;
    let ready = &told["status"]["conditions"][1];
    ensure!(ready["message"] == "still not" && ready["observedGeneration"] == 2, "{ready}");
    ensure!(ready["lastTransitionTime"] == EARLIER, "its status is what it was: {ready}");

    scene.wants("p", json!({ "conditions": [condition("Ready", "True", "now")] })).await?;
    let told = scene.synced("p").await?;
    let ready = &told["status"]["conditions"][1];
    ensure!(ready["status"] == "True" && ready["lastTransitionTime"].is_string(), "{ready}");
    ensure!(ready["lastTransitionTime"] != EARLIER, "its status is another: {ready}");

    let other = json!({ "status": { "conditions": null }, "conditions": [condition("Other", "Unknown", "")] });
    scene.wants("p", other).await?;
    let told = scene.synced("p").await?;
    let types: Vec<&Value> =
        told["status"]["conditions"].as_array().into_iter().flatten().map(|c| &c["type"]).collect();
    ensure!(types == ["Other"], "what isn't named goes: {types:?}");
    Ok(())
}

async fn bad(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let many = vec![json!({ "reason": "Much", "message": "x" }); 11];
    for (name, mut reply, words) in [
        ("reason", json!({ "events": [{ "reason": "not camel", "message": "x" }] }), "events[0].reason"),
        ("status", json!({ "conditions": [{ "type": "A", "status": true, "reason": "B" }] }), "conditions[0].status"),
        ("many", json!({ "events": many }), "events: 11 are more than the limit of 10"),
    ] {
        reply["children"] = json!([config_map(name, json!({}))]);
        let made = scene.thing(name, reply).await?;
        scene.event(&made, "SyncError", &[words]).await?;
        ensure!(scene.ctx.admin.find(&scene.maps, name).await?.is_none(), "nothing of {name} is done");
        scene.wants(name, json!({ "events": null, "conditions": null })).await?;
        scene.map(name, "is made once the answer is right", |_| Ok(())).await?;
    }
    Ok(())
}

async fn decorated(ctx: Context) -> anyhow::Result<()> {
    let scene = decorators::scene(ctx, "InPlace").await?;
    let events = json!([{ "type": "Normal", "reason": "Looked", "message": "at it" }]);
    let reply = json!({ "conditions": [condition("Seen", "True", "with both eyes")], "events": events });
    let body = json!({ "metadata": { "name": "p" }, "spec": { "reply": reply } });
    let made = scene.ctx.admin.create(&scene.things, body).await?;
    scene.event(&made, "Looked", &["at it"]).await?;
    let is_seen = |thing: &Value| {
        let status = &thing["status"];
        ensure!(
            status["conditions"][0]["type"] == "Seen" && status["conditions"][0]["observedGeneration"] == 1,
            "{status}"
        );
        ensure!(status.get("observedGeneration").is_none(), "that is the owner's: {status}");
        Ok(())
    };
    thing(&scene, "p", "has the condition", is_seen).await?;
    scene.quiet().await?;
    // Its owner's part of the status, and another's condition, stay; and nothing is left to be written.
    let seen = scene.ctx.admin.get(&scene.things, "p").await?["status"]["conditions"][0].clone();
    let status = json!({ "phase": "Fine", "conditions": [seen, { "type": "Theirs", "status": "True" }] });
    scene.ctx.admin.patch_status(&scene.things, "p", &json!({ "status": status })).await?;
    let mark = scene.ctx.mark()?;
    again(&scene, "p").await?;
    ensure!(writes(&scene, mark)?.is_empty(), "{:?}", writes(&scene, mark)?);
    let now = scene.ctx.admin.get(&scene.things, "p").await?;
    ensure!(now["status"] == status, "{now}");
    Ok(())
}

async fn foreign(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let kind = Resource::new("metacontroller.k8s.io/v1alpha1", "CompositeController", "compositecontrollers", None);
    let name = scene.ctx.controller_name("c");
    let metadata = json!({ "name": name, "labels": { "suite": scene.ctx.id } });
    scene.ctx.admin.create(&kind, json!({ "metadata": metadata, "spec": scene.spec("InPlace") })).await?;
    let reply = |map: &str| {
        json!({
            "children": [config_map(map, json!({}))],
            "events": [{ "reason": "Said", "message": "it" }],
            "conditions": [condition("Seen", "True", "")],
        })
    };
    // v1 is read loosely.
    let loose = scene.thing("loose", reply("loose")).await?;
    scene.map("loose", "is made", |_| Ok(())).await?;
    let told = scene.synced("loose").await?;
    ensure!(told["status"].get("conditions").is_none(), "{told}");
    let patch = json!({ "spec": { "hooks": { "sync": { "version": "v2" } } } });
    scene.ctx.admin.patch_merge(&kind, &name, &patch).await?;
    let strict = scene.thing("strict", reply("strict")).await?;
    scene.event(&strict, "SyncError", &["events: unknown field in the reply"]).await?;
    for thing in [&loose, &strict] {
        let told = scene.ctx.events_for(thing).await?;
        ensure!(told.iter().all(|event| event["reason"] != "Said"), "{told:?}");
    }
    Ok(())
}
