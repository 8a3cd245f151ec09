//! What strangers cost: objects of a kind of children that are nobody's here.
//!
//! Never judges what own objects cost: benchmarks do.

use std::time::Duration;

use anyhow::ensure;
use futures::{StreamExt, TryStreamExt};
use serde_json::{Value, json};

use crate::cluster::Context;
use crate::hook::Reply;
use crate::objects::Resource;
use crate::suites::scene::{LATER, Scene, config_map};
use crate::trial::Case;

/// ConfigMaps of others.
const FOREIGN: usize = 50_000;
/// What the process may grow by for all of them, and have in memory in all, as it is shipped.
const GROWTH_KIB: u64 = 32 << 10;
const MOST_KIB: u64 = 64 << 10;
/// Parents, and how often each is synced.
const PARENTS: usize = 20;
const ROUNDS: usize = 10;
/// Creates at once.
const AT_ONCE: usize = 32;
/// Over this time it is looked whether the process works.
const IDLE: Duration = Duration::from_millis(500);
const TIMEOUT: Duration = Duration::from_secs(420);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    // Whoever else watches ConfigMaps would see them all.
    vec![Case::new("memory", "fifty_thousand_config_maps_of_others", foreign).own_server().timeout(TIMEOUT)]
}

fn name(number: usize) -> String {
    format!("p{number:02}")
}

/// Has every parent synced so often; tells the CPU time that it took.
async fn rounds(scene: &Scene, first: usize) -> anyhow::Result<Duration> {
    let before = scene.ringmaster.cpu()?;
    for round in first..first + ROUNDS {
        for number in 0..PARENTS {
            let patch = json!({ "spec": { "round": round } });
            scene.ctx.admin.patch_merge(&scene.things, &name(number), &patch).await?;
        }
        let done = async || {
            for number in 0..PARENTS {
                let map = scene.ctx.admin.get(&scene.maps, &name(number)).await?;
                ensure!(map["data"]["round"] == *round.to_string(), "{map}");
            }
            Ok(())
        };
        scene.ctx.wait("a round of changes", LATER, done).await?;
    }
    Ok(scene.ringmaster.cpu()?.saturating_sub(before))
}

/// Waits until the process has taken in what there is: it hardly works any more.
async fn idle(scene: &Scene) -> anyhow::Result<()> {
    let ask = async || {
        let before = scene.ringmaster.cpu()?;
        tokio::time::sleep(IDLE).await;
        let worked = scene.ringmaster.cpu()?.saturating_sub(before);
        ensure!(worked < IDLE / 10, "it worked {worked:?} in {IDLE:?}");
        Ok(())
    };
    scene.ctx.wait("what was created is taken in", LATER, ask).await
}

/// A whole of Metacontroller's dialect, which has no labels to select by, and whose parents may adopt.
async fn foreign(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|request: &Value, _| {
        let (name, round) = (&request["parent"]["metadata"]["name"], &request["parent"]["spec"]["round"]);
        let mut map = config_map(name.as_str().unwrap_or_default(), json!({ "round": round.to_string() }));
        map["metadata"]["labels"] = json!({ "app": name });
        Reply::json(&json!({ "children": [map] }))
    });
    let controllers =
        Resource::new("metacontroller.k8s.io/v1alpha1", "CompositeController", "compositecontrollers", None);
    let mut spec = scene.spec("InPlace");
    spec["generateSelector"] = json!(false);
    spec["parentResource"]["ignoreStatusChanges"] = json!(true);
    let metadata = json!({ "name": scene.ctx.controller_name("c"), "labels": { "suite": scene.ctx.id } });
    scene.ctx.admin.create(&controllers, json!({ "metadata": metadata, "spec": spec })).await?;
    for number in 0..PARENTS {
        let spec = json!({ "round": 0, "selector": { "matchLabels": { "app": name(number) } } });
        let body = json!({ "metadata": { "name": name(number) }, "spec": spec });
        scene.ctx.admin.create(&scene.things, body).await?;
    }
    let alone = rounds(&scene, 1).await?;
    let before = scene.ringmaster.rss_kib()?;
    let create = async |number: usize| {
        let metadata = json!({ "name": format!("foreign-{number}"), "labels": { "app": "others" } });
        let body = json!({ "metadata": metadata, "data": { "text": "x".repeat(512) } });
        scene.ctx.admin.create(&scene.maps, body).await.map(drop)
    };
    futures::stream::iter(0..FOREIGN).map(create).buffer_unordered(AT_ONCE).try_collect::<()>().await?;
    idle(&scene).await?;
    let beside = rounds(&scene, 1 + ROUNDS).await?;
    let seen = async || {
        let rss = scene.ringmaster.rss_kib()?;
        ensure!(rss <= before + GROWTH_KIB, "{rss} KiB, {before} KiB without them");
        let is_shipped = std::env::var("RINGMASTER_SUITES_PROFILE").is_ok_and(|profile| profile == "release");
        ensure!(!is_shipped || rss <= MOST_KIB, "{rss} KiB, {before} KiB without them");
        Ok(rss)
    };
    let after = scene.ctx.wait("memory is within its bound", LATER, seen).await?;
    println!(
        "memory: {FOREIGN} foreign ConfigMaps: RSS {before} KiB before and {after} KiB after; {} syncs took {alone:?} of CPU \
         before and {beside:?} beside them",
        PARENTS * ROUNDS
    );
    // A scan of all would take tens of times as long.
    ensure!(beside < alone * 5 + Duration::from_secs(1), "syncs took {beside:?} of CPU instead of {alone:?}");
    Ok(())
}
