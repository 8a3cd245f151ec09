//! Events on parents for what goes well: changes of children and the end of failures, told once and within bounds.
//!
//! Never about why a sync fails: the suites of faults are.

use std::time::Instant;

use anyhow::ensure;
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::scene::{LATER, NEVER, SOON, Scene, config_map, obey};
use crate::cluster::Context;
use crate::hook::Reply;
use crate::scrape::{Scrape, free_port};
use crate::trial::Case;
use crate::wait;

/// Events about children of a process at once, and then a second: see docs/controllers.md.
const ROUTINE: (usize, usize) = (50, 5);
/// Parents made at once: each is worth one event.
const CROWD: usize = 400;
/// Creates at once.
const CONNECTIONS: usize = 16;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("events", "name_what_became_of_the_children", of_children),
        Case::new("events", "tell_that_a_child_is_made_anew", of_a_recreated_child),
        Case::new("events", "are_counted_up_when_they_are_equal", counted_up),
        Case::new("events", "tell_the_end_of_failures", of_recovery),
        Case::new("events", "of_the_longest_name_arrive", of_the_longest_name),
        Case::new("events", "of_a_thousand_changes_are_bounded", bounded),
    ]
}

/// Reasons and messages of an object's events.
async fn told(scene: &Scene, object: &Value) -> anyhow::Result<Vec<(String, String)>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let events = scene.ctx.events_for(object).await?;
    Ok(events.iter().map(|event| (text(&event["reason"]), text(&event["message"]))).collect())
}

fn wish(maps: &[&str], data: &Value) -> Value {
    let children: Vec<Value> = maps.iter().map(|name| config_map(name, data.clone())).collect();
    json!({ "children": children })
}

async fn of_children(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let thing = scene.thing("p", wish(&["a", "b"], &json!({ "x": "1" }))).await?;
    let message = scene.event(&thing, "ChildCreated", &["created ConfigMap a and ConfigMap b"]).await?;
    ensure!(message.starts_with(&format!("{}: ", scene.ctx.controller_name("c"))), "{message}");
    scene.wants("p", wish(&["a"], &json!({ "x": "2" }))).await?;
    scene.event(&thing, "ChildUpdated", &["updated ConfigMap a"]).await?;
    scene.event(&thing, "ChildDeleted", &["deleted ConfigMap b"]).await?;
    for event in scene.ctx.events_for(&thing).await? {
        ensure!(event["type"] == "Normal", "{event}");
    }
    let names: Vec<String> = (0..25).map(|number| format!("m{number:02}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let many = scene.thing("many", wish(&names, &json!({}))).await?;
    let message = scene.event(&many, "ChildCreated", &["ConfigMap m00, ", "ConfigMap m09 and 15 more"]).await?;
    ensure!(!message.contains("m10"), "{message}");

    // A sync that changes no child says nothing, even if it writes the status.
    scene.quiet().await?;
    let before = told(&scene, &thing).await?;
    let calls = scene.calls("p");
    scene.wants("p", json!({ "status": { "seen": true } })).await?;
    scene.called("p", calls + 1).await?;
    scene.synced("p").await?;
    wait::stays("no further event", NEVER, async || {
        let now = told(&scene, &thing).await?;
        ensure!(now == before, "{now:?}");
        Ok(())
    })
    .await
}

async fn of_a_recreated_child(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("Recreate")).await?;
    let thing = scene.thing("p", wish(&["a"], &json!({ "x": "1" }))).await?;
    scene.event(&thing, "ChildCreated", &["ConfigMap a"]).await?;
    scene.wants("p", wish(&["a"], &json!({ "x": "2" }))).await?;
    scene.event(&thing, "ChildRecreated", &["deleted, to make it anew, ConfigMap a"]).await?;
    scene
        .map("a", "is new", |map| {
            ensure!(map["data"]["x"] == "2", "{map}");
            Ok(())
        })
        .await?;
    let told = told(&scene, &thing).await?;
    ensure!(!told.iter().any(|(reason, _)| reason == "ChildDeleted" || reason == "ChildUpdated"), "{told:?}");
    Ok(())
}

async fn counted_up(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let thing = scene.thing("p", wish(&["a"], &json!({}))).await?;
    let mut known = Value::Null;
    for _ in 0..3 {
        let map = scene.map("a", "is another one", |map| {
            ensure!(map["metadata"]["uid"] != known && map["metadata"]["deletionTimestamp"].is_null(), "{map}");
            Ok(())
        });
        known = map.await?["metadata"]["uid"].clone();
        scene.ctx.admin.delete(&scene.maps, "a").await?;
    }
    let ask = async || {
        let events = scene.ctx.events_for(&thing).await?;
        let created: Vec<&Value> = events.iter().filter(|event| event["reason"] == "ChildCreated").collect();
        ensure!(created.len() == 1, "{} objects", created.len());
        ensure!(created[0]["series"]["count"] == 4, "{}", created[0]);
        Ok(())
    };
    scene.ctx.wait("four creations are one event", SOON, ask).await
}

async fn of_recovery(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    scene.hook.set(|_, _| Reply::status(500));
    let thing = scene.thing("p", json!({})).await?;
    scene.event(&thing, "SyncError", &["500"]).await?;
    scene.hook.set(obey);
    scene.event(&thing, "SyncRecovered", &["synced again, after failures for"]).await?;
    // It is the end of what was told, not of every sync.
    let good = scene.thing("good", json!({})).await?;
    scene.synced("good").await?;
    scene.quiet().await?;
    let told = told(&scene, &good).await?;
    ensure!(told.is_empty(), "{told:?}");
    Ok(())
}

/// An event's own name is made of the parent's.
async fn of_the_longest_name(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let (parent, child) = ("p".repeat(253), "c".repeat(253));
    let thing = scene.thing(&parent, wish(&[&child], &json!({}))).await?;
    scene.event(&thing, "ChildCreated", &["ConfigMap ccc"]).await?;
    let bad = json!({ "children": [{ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": child } }] });
    scene.wants(&parent, bad).await?;
    scene.event(&thing, "SyncError", &["Secret ccc", "isn't declared"]).await?;
    Ok(())
}

async fn bounded(ctx: Context) -> anyhow::Result<()> {
    let address = format!("127.0.0.1:{}", free_port()?);
    let metrics = format!("http://{address}/metrics");
    let scene = Scene::with_args(ctx, &[format!("--metrics-address={address}")]).await?;
    let bad = json!({ "children": [{ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "s" } }] });
    let creates = (0..CROWD).map(|number| {
        let name = format!("p{number}");
        let (scene, wish) = (&scene, wish(&[&name], &json!({})));
        async move { scene.thing(&name, wish).await }
    });
    let mut creates = futures::stream::iter(creates).buffer_unordered(CONNECTIONS);
    while let Some(created) = creates.next().await {
        created?;
    }
    drop(creates);
    let failing = scene.thing("failing", bad).await?;
    // No child is there before it.
    let start = Instant::now();
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let all = async || {
        let maps = scene.ctx.admin.list(&scene.maps, "").await?.len();
        ensure!(maps >= CROWD, "{maps} of {CROWD}");
        Ok(())
    };
    scene.ctx.wait("all children are there", LATER, all).await?;
    // What goes wrong is told, however much goes well.
    scene.event(&failing, "SyncError", &["Secret"]).await?;
    let limit = [("limit", "child_events_rate")];
    let events = scene.ctx.namespaced("v1", "Event", "events");
    let counted = async || {
        let events = scene.ctx.admin.list(&events, "").await?;
        let posted = events.iter().filter(|event| event["reason"] == "ChildCreated").count();
        let dropped = Scrape::of(&metrics)?.sum("ringmaster_limit_hits_total", &limit);
        ensure!(posted as f64 + dropped == CROWD as f64, "{posted} posted, {dropped} dropped");
        ensure!(posted >= ROUTINE.0 && dropped >= 1.0, "{posted} posted, {dropped} dropped");
        Ok((posted, dropped, ROUTINE.0 + ROUTINE.1 * (usize::try_from(start.elapsed().as_secs())? + 1)))
    };
    let (posted, dropped, allowed) =
        scene.ctx.wait("each event is posted, or dropped and counted", SOON, counted).await?;
    ensure!(posted <= allowed, "{posted} events, {allowed} are allowed");
    println!("events: {CROWD} parents, {posted} events posted, {dropped} dropped");
    Ok(())
}
