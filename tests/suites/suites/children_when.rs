//! When a parent is synced: its labels, time, a pause, a change of its controller, changes of its status.
//!
//! Never about what a sync does to children.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::scene::{LATER, NEVER, SOON, Scene, config_map, obey};
use crate::cluster::Context;
use crate::hook::{Call, Hook};
use crate::trial::Case;
use crate::wait;

/// A call that still runs while its controller is changed.
const LONG_CALL: Duration = Duration::from_secs(2);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("children", "label_selector_of_parents", label_selector),
        Case::new("children", "resync_after_seconds", resync_after),
        Case::new("children", "resync_period_seconds", resync_period),
        Case::new("children", "paused", paused),
        Case::new("children", "changed_controller", changed_controller),
        Case::new("children", "changed_controller_while_calls_run", changed_while_calls_run),
        Case::new("children", "deleted_controller", deleted_controller),
        Case::new("children", "ignore_status_changes", ignore_status_changes),
    ]
}

async fn label_selector(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let mut spec = scene.spec("InPlace");
    spec["parentResource"]["labelSelector"] = json!({ "matchLabels": { "tier": "gold" } });
    scene.ctx.controller("c", spec).await?;
    scene.thing("p", json!({ "children": [config_map("a", json!({ "x": "1" }))] })).await?;
    let gold =
        json!({ "metadata": { "name": "gold", "labels": { "tier": "gold" } }, "spec": { "reply": { "status": {} } } });
    scene.ctx.admin.create(&scene.things, gold).await?;
    scene.synced("gold").await?;
    scene.no_call("a parent without the label isn't synced").await?;
    ensure!(scene.calls("p") == 0);
    let tier = |value: Value| json!({ "metadata": { "labels": { "tier": value } } });
    scene.ctx.admin.patch_merge(&scene.things, "p", &tier("gold".into())).await?;
    let made = scene.map("a", "is made once the parent has the label", |_| Ok(())).await?;
    scene.quiet().await?;
    scene.ctx.admin.patch_merge(&scene.things, "p", &tier(Value::Null)).await?;
    scene.wants("p", json!({ "children": [config_map("a", json!({ "x": "2" }))] })).await?;
    scene.no_call("a parent that lost the label isn't synced").await?;
    scene.ctx.admin.patch_merge(&scene.maps, "a", &json!({ "data": { "x": "3" } })).await?;
    scene.no_call("nor by a change of its child").await?;
    let kept = scene.ctx.admin.get(&scene.maps, "a").await?;
    ensure!(kept["metadata"]["uid"] == made["metadata"]["uid"], "{kept}");
    scene.ctx.admin.patch_merge(&scene.things, "p", &tier("gold".into())).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "2", "{}", map["data"]);
        Ok(())
    };
    scene.map("a", "follows once the label is back", check).await.map(drop)
}

/// Fails if a call came sooner than `least` after the one before it.
fn apart(calls: &[Call], least: Duration) -> anyhow::Result<()> {
    for pair in calls.windows(2) {
        let gap = pair[1].started - pair[0].started;
        ensure!(gap >= least, "calls {} and {} are only {gap:?} apart", pair[0].number, pair[1].number);
    }
    Ok(())
}

async fn resync_after(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let reply = json!({ "status": { "x": 1 }, "resyncAfterSeconds": 0.5 });
    scene.thing("p", reply).await?;
    scene.synced("p").await?;
    scene.called("p", 2).await?;
    let (mark, before) = (scene.ctx.mark()?, scene.calls("p"));
    scene.called("p", before + 3).await?;
    apart(&scene.hook.calls_for(&scene.key("p")), Duration::from_millis(500))?;
    no_requests(&scene, mark)?;
    // It is the last reply that counts.
    scene.wants("p", json!({ "resyncAfterSeconds": 0 })).await?;
    scene.synced("p").await?;
    scene.no_call("no resync once the reply asks for none").await
}

/// A sync that changes nothing makes no API call at all.
fn no_requests(scene: &Scene, since: crate::server::audit::Mark) -> anyhow::Result<()> {
    let group = scene.ctx.group();
    let mut requests = scene.ctx.requests(since)?;
    requests.retain(|r| r.verb != "watch" && (r.group == group || r.resource == "configmaps"));
    ensure!(requests.is_empty(), "a sync that changed nothing made requests: {requests:?}");
    Ok(())
}

async fn resync_period(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let mut spec = scene.spec("InPlace");
    spec["resyncPeriodSeconds"] = 1.into();
    scene.ctx.controller("c", spec).await?;
    let reply = json!({ "status": { "x": 1 }, "children": [config_map("a", json!({ "x": "1" }))] });
    scene.thing("p", reply).await?;
    scene.thing("q", json!({})).await?;
    scene.map("a", "is there", |_| Ok(())).await?;
    scene.called("p", 4).await?;
    let mark = scene.ctx.mark()?;
    let (p, q) = (scene.calls("p"), scene.calls("q"));
    scene.called("p", p + 2).await?;
    scene.called("q", q + 2).await?;
    let calls = scene.hook.calls_for(&scene.key("p"));
    // Two periods; half of them, because a busy machine may show us a call late.
    let took = calls[p + 1].started - calls[p - 1].started;
    ensure!(took >= Duration::from_secs(1), "three calls within {took:?}");
    no_requests(&scene, mark)
}

async fn paused(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let mut spec = scene.spec("InPlace");
    spec["paused"] = true.into();
    scene.ctx.controller("c", spec).await?;
    scene.thing("p", json!({ "children": [config_map("a", json!({ "x": "1" }))] })).await?;
    let message = scene.condition("c", ["Ready", "False", "Paused"]).await?;
    ensure!(message.contains("spec.paused"), "{message}");
    scene.no_call("a paused controller calls nobody").await?;
    let pause = async |paused: bool| {
        let name = scene.ctx.controller_name("c");
        let patch = json!({ "spec": { "paused": paused } });
        scene.ctx.admin.patch_merge(&Context::controllers(), &name, &patch).await
    };
    pause(false).await?;
    scene.map("a", "is made when the controller goes on", |_| Ok(())).await?;
    scene.condition("c", ["Ready", "True", "Running"]).await?;
    pause(true).await?;
    scene.condition("c", ["Ready", "False", "Paused"]).await?;
    scene.quiet().await?;
    scene.wants("p", json!({ "children": [config_map("a", json!({ "x": "2" }))] })).await?;
    ensure!(scene.ctx.admin.delete(&scene.maps, "a").await?);
    scene.no_call("paused again").await?;
    ensure!(scene.ctx.admin.find(&scene.maps, "a").await?.is_none(), "a paused controller made a child");
    pause(false).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "2", "{}", map["data"]);
        Ok(())
    };
    scene.map("a", "is as it was wanted meanwhile", check).await.map(drop)
}

async fn changed_controller(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    scene.thing("p", json!({ "children": [config_map("a", json!({ "x": "1" }))] })).await?;
    let made = scene.map("a", "is there", |_| Ok(())).await?;
    scene.quiet().await?;
    let second = Hook::start(obey)?;
    let name = scene.ctx.controller_name("c");
    let patch = json!({ "spec": { "hooks": { "sync": { "webhook": { "url": second.url("/new") } } } } });
    let changed = scene.ctx.admin.patch_merge(&Context::controllers(), &name, &patch).await?;
    let ask = async || {
        ensure!(second.count() > 0, "not called");
        Ok(())
    };
    scene.ctx.wait("the new hook is called", SOON, ask).await?;
    let call = &second.calls()[0];
    ensure!(call.path == "/new", "{}", call.path);
    ensure!(
        call.request["controller"]["metadata"]["generation"] == changed["metadata"]["generation"],
        "{}",
        call.request
    );
    let old = scene.hook.count();
    scene.wants("p", json!({ "children": [config_map("a", json!({ "x": "2" }))] })).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "2", "{}", map["data"]);
        Ok(())
    };
    let map = scene.map("a", "is changed by the new hook", check).await?;
    ensure!(map["metadata"]["uid"] == made["metadata"]["uid"], "{map}");
    ensure!(scene.hook.count() == old, "the old hook is still called");
    scene.condition("c", ["Ready", "True", "Running"]).await.map(drop)
}

/// What runs ends first, with what it writes; then the new hook is called. No parent is ever served by both.
async fn changed_while_calls_run(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|request, info| obey(request, info).delay(LONG_CALL));
    let parents = ["p", "q", "r"];
    for name in parents {
        scene.thing(name, json!({ "children": [config_map(name, json!({ "x": "1" }))] })).await?;
    }
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let ask = async || {
        let running = scene.hook.calls().iter().filter(|call| call.ended.is_none()).count();
        ensure!(running == parents.len(), "{running} calls run");
        Ok(())
    };
    scene.ctx.wait("a call runs for each parent", SOON, ask).await?;
    let second = Hook::start(obey)?;
    let patch = json!({ "spec": { "hooks": { "sync": { "webhook": { "url": second.url("/new") } } } } });
    scene.ctx.admin.patch_merge(&Context::controllers(), &scene.ctx.controller_name("c"), &patch).await?;
    let changed = Instant::now();
    for name in parents {
        let key = scene.key(name);
        let ask = async || second.calls_for(&key).into_iter().next().context("not called");
        let new = scene.ctx.wait(&format!("the new hook is called for {name}"), SOON, ask).await?;
        let map = &new.request["children"]["ConfigMap.v1"][&key];
        ensure!(map["data"]["x"] == "1", "what the old call asked for wasn't done before: {}", new.request);
    }
    let first = second.calls().into_iter().next().context("no call")?.started;
    let old = scene.hook.calls();
    for call in &old {
        let ended = call.ended.with_context(|| format!("call {} for {} was cut off", call.number, call.key()))?;
        ensure!(ended <= first, "call {} for {} ran beside one of the new hook", call.number, call.key());
    }
    ensure!(old.iter().any(|call| call.ended > Some(changed)), "no call ran while the controller was changed");
    scene.no_call("the old hook is called no more").await
}

async fn deleted_controller(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let reply = json!({ "children": [config_map("a", json!({ "x": "1" }))], "resyncAfterSeconds": 0.2 });
    scene.thing("p", reply).await?;
    let made = scene.map("a", "is there", |_| Ok(())).await?;
    ensure!(scene.ctx.admin.delete(&Context::controllers(), &scene.ctx.controller_name("c")).await?);
    scene.quiet().await?;
    scene.wants("p", json!({ "children": [config_map("a", json!({ "x": "2" }))] })).await?;
    scene.thing("q", json!({})).await?;
    scene.no_call("a deleted controller calls nobody").await?;
    let kept = scene.ctx.admin.get(&scene.maps, "a").await?;
    ensure!(kept["metadata"]["resourceVersion"] == made["metadata"]["resourceVersion"], "{kept}");
    // Made again, it goes on with the children that it finds.
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "2", "{}", map["data"]);
        Ok(())
    };
    let map = scene.map("a", "is updated again", check).await?;
    ensure!(map["metadata"]["uid"] == made["metadata"]["uid"], "{map}");
    scene.synced("q").await.map(drop)
}

async fn ignore_status_changes(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    scene.thing("p", json!({ "status": { "colour": "red" } })).await?;
    scene.synced("p").await?;
    scene.quiet().await?;
    let foreign = json!({ "status": { "colour": "blue" } });
    scene.ctx.admin.patch_status(&scene.things, "p", &foreign).await?;
    // True is our default.
    scene.no_call("a changed status leads to no sync").await?;

    let name = scene.ctx.controller_name("c");
    let patch = json!({ "spec": { "parentResource": { "ignoreStatusChanges": false } } });
    scene.ctx.admin.patch_merge(&Context::controllers(), &name, &patch).await?;
    let red = async || {
        let thing = scene.ctx.admin.get(&scene.things, "p").await?;
        ensure!(thing["status"]["colour"] == "red", "{}", thing["status"]);
        Ok(())
    };
    scene.ctx.wait("the start repairs the status", LATER, red).await?;
    let calls = scene.quiet().await?;
    scene.ctx.admin.patch_status(&scene.things, "p", &foreign).await?;
    scene.ctx.wait("a changed status is repaired", SOON, red).await?;
    ensure!(scene.hook.count() > calls);
    // Its own write leads to one more sync, which finds everything as it shall be.
    scene.quiet().await?;
    wait::stays("and then it rests", NEVER, red).await
}
