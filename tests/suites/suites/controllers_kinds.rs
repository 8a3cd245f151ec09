//! Controllers that don't declare a kind of parents any more: their finalizer goes from its objects.
//!
//! Never about controllers that go themselves, or lose their hook: see `controllers_change`.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use super::faults_kinds::SLOW;
use super::metacontroller_scene::{composites, declare, decorators as their_decorators};
use crate::cluster::{Context, Scope};
use crate::hook::Reply;
use crate::objects::Resource;
use crate::process::Ringmaster;
use crate::suites::decorators;
use crate::suites::scene::{LATER, Scene};
use crate::trial::Case;

/// How long it may take until a kind isn't looked at any more: a minute, and the pause before the last look.
const FORGOTTEN: Duration = Duration::from_secs(180);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("controllers_kinds", "a_kind_is_taken_out_of_a_decorator", taken_out).timeout(SLOW),
        Case::new("controllers_kinds", "a_composite_gets_other_parents", other_parents),
        Case::new("controllers_kinds", "deletion_frees_objects_of_a_former_kind", deleted),
        Case::new("controllers_kinds", "kinds_of_metacontroller_s_are_taken_out", theirs),
    ]
}

/// With two kinds of parents, and hooks that want nothing; no finalize hook may be called.
async fn scene(ctx: Context) -> anyhow::Result<(Scene, Resource)> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|_, info| if info.path == "/finalize" { Reply::status(500) } else { Reply::json(&json!({})) });
    let others = scene.ctx.crd("Other", "others", Scope::Namespaced, None).await?;
    scene.ctx.grant(&Context::rules_for(&[&others])).await?;
    Ok((scene, others))
}

/// How a controller names a kind.
fn named(kind: &Resource) -> Value {
    json!({ "apiVersion": kind.api_version, "resource": kind.plural })
}

fn hooked(scene: &Scene, mut spec: Value) -> Value {
    spec["hooks"]["finalize"] = json!({ "webhook": { "url": scene.hook.url("/finalize") } });
    spec
}

/// The spec of a decorator of things and others.
fn decorator(scene: &Scene, others: &Resource) -> Value {
    let mut spec = hooked(scene, decorators::spec(scene, "InPlace"));
    spec["resources"] = json!([named(&scene.things), named(others)]);
    spec
}

async fn change(scene: &Scene, kind: &Resource, name: &str, spec: Value) -> anyhow::Result<()> {
    let name = scene.ctx.controller_name(name);
    scene.ctx.admin.patch_merge(kind, &name, &json!({ "spec": spec })).await.map(drop)
}

/// Makes so many objects.
async fn make(scene: &Scene, kind: &Resource, count: usize) -> anyhow::Result<()> {
    for number in 0..count {
        let body = json!({ "metadata": { "name": format!("o{number}") }, "spec": {} });
        scene.ctx.admin.create(kind, body).await?;
    }
    Ok(())
}

/// Waits until each object of a kind has exactly these finalizers.
async fn have(scene: &Scene, kind: &Resource, wanted: &[&str]) -> anyhow::Result<()> {
    let ask = async || {
        let objects = scene.ctx.admin.list(kind, "").await?;
        ensure!(!objects.is_empty(), "there are none");
        for object in objects {
            let finalizers = object["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            ensure!(finalizers == *wanted, "{}: {finalizers:?}", object["metadata"]["name"]);
        }
        Ok(())
    };
    scene.ctx.wait(&format!("{} have the finalizers {wanted:?}", kind.plural), LATER, ask).await
}

/// Waits until a controller remembers these kinds.
async fn remembers(
    scene: &Scene,
    controllers: &Resource,
    name: &str,
    kinds: &[&Resource],
    within: Duration,
) -> anyhow::Result<()> {
    let names: Vec<String> = kinds.iter().map(|kind| format!("{}.{}", kind.plural, kind.group())).collect();
    let name = scene.ctx.controller_name(name);
    let ask = async || {
        let controller = scene.ctx.admin.get(controllers, &name).await?;
        let noted = &controller["metadata"]["annotations"]["ringmaster.dev/finalizes"];
        ensure!(*noted == names.join(","), "{noted}");
        Ok(())
    };
    scene.ctx.wait(&format!("{name} remembers {names:?}"), within, ask).await
}

fn never_finalized(scene: &Scene) -> anyhow::Result<()> {
    let finals = scene.hook.calls().iter().filter(|call| call.path == "/finalize").count();
    ensure!(finals == 0, "the finalize hook was called {finals} times");
    Ok(())
}

/// The same scene with another Ringmaster, after `meanwhile` was done without any.
async fn restarted(scene: Scene, meanwhile: impl AsyncFnOnce(&Context) -> anyhow::Result<()>) -> anyhow::Result<Scene> {
    let Scene { ringmaster, hook, things, maps, ctx } = scene;
    ensure!(ringmaster.stop().await?.success());
    meanwhile(&ctx).await?;
    Ok(Scene { ringmaster: Ringmaster::start(&ctx)?, hook, things, maps, ctx })
}

async fn taken_out(ctx: Context) -> anyhow::Result<()> {
    let (scene, others) = scene(ctx).await?;
    let kind = decorators::decorators();
    let mut spec = decorator(&scene, &others);
    spec["sharding"] = json!({});
    decorators::declare(&scene, "d", spec).await?;
    let finalizer = format!("ringmaster.dev/decoratorcontroller-{}", scene.ctx.controller_name("d"));
    let (things, finalizer) = (&scene.things, finalizer.as_str());
    for kind in [things, &others] {
        make(&scene, kind, 5).await?;
        have(&scene, kind, &[finalizer]).await?;
    }
    remembers(&scene, &kind, "d", &[&others, things], LATER).await?;

    change(&scene, &kind, "d", json!({ "resources": [named(things)] })).await?;
    have(&scene, &others, &[]).await?;
    have(&scene, things, &[finalizer]).await?;
    scene.ctx.admin.delete(&others, "o0").await?;
    let ask = async || {
        ensure!(scene.ctx.admin.find(&others, "o0").await?.is_none(), "it is there");
        Ok(())
    };
    scene.ctx.wait("it goes", LATER, ask).await?;
    // It comes back, and is looked after as before.
    change(&scene, &kind, "d", json!({ "resources": [named(things), named(&others)] })).await?;
    have(&scene, &others, &[finalizer]).await?;
    remembers(&scene, &kind, "d", &[&others, things], LATER).await?;

    change(&scene, &kind, "d", json!({ "resources": [named(things)] })).await?;
    have(&scene, &others, &[]).await?;
    remembers(&scene, &kind, "d", &[things], FORGOTTEN).await?;
    have(&scene, &others, &[]).await?;
    have(&scene, things, &[finalizer]).await?;
    never_finalized(&scene)?;
    scene.ringmaster.check()
}

async fn other_parents(ctx: Context) -> anyhow::Result<()> {
    let (scene, others) = scene(ctx).await?;
    let kind = Context::controllers();
    scene.ctx.controller("c", hooked(&scene, scene.spec("InPlace"))).await?;
    let finalizer = format!("ringmaster.dev/compositecontroller-{}", scene.ctx.controller_name("c"));
    make(&scene, &scene.things, 3).await?;
    make(&scene, &others, 3).await?;
    have(&scene, &scene.things, &[&finalizer]).await?;
    have(&scene, &others, &[]).await?;

    change(&scene, &kind, "c", json!({ "parentResource": named(&others) })).await?;
    have(&scene, &others, &[&finalizer]).await?;
    have(&scene, &scene.things, &[]).await?;
    // And back, while nobody sees it.
    let things = scene.things.clone();
    let scene = restarted(scene, async |ctx| {
        let patch = json!({ "spec": { "parentResource": named(&things) } });
        ctx.admin.patch_merge(&kind, &ctx.controller_name("c"), &patch).await.map(drop)
    })
    .await?;
    have(&scene, &others, &[]).await?;
    have(&scene, &scene.things, &[&finalizer]).await?;
    never_finalized(&scene)
}

async fn deleted(ctx: Context) -> anyhow::Result<()> {
    let (scene, others) = scene(ctx).await?;
    let kind = decorators::decorators();
    decorators::declare(&scene, "d", decorator(&scene, &others)).await?;
    let finalizer = format!("ringmaster.dev/decoratorcontroller-{}", scene.ctx.controller_name("d"));
    make(&scene, &scene.things, 3).await?;
    make(&scene, &others, 3).await?;
    have(&scene, &scene.things, &[&finalizer]).await?;
    have(&scene, &others, &[&finalizer]).await?;
    let things = scene.things.clone();
    let scene = restarted(scene, async |ctx| {
        let name = ctx.controller_name("d");
        let patch = json!({ "spec": { "resources": [named(&things)] } });
        ctx.admin.patch_merge(&kind, &name, &patch).await?;
        ctx.admin.delete(&kind, &name).await.map(drop)
    })
    .await?;
    let ask = async || {
        let found = scene.ctx.admin.find(&kind, &scene.ctx.controller_name("d")).await?;
        ensure!(found.is_none(), "it is there: {:?}", found.map(|found| found["metadata"].clone()));
        Ok(())
    };
    scene.ctx.wait("the controller is gone", LATER, ask).await?;
    have(&scene, &scene.things, &[]).await?;
    have(&scene, &others, &[]).await?;
    never_finalized(&scene)
}

/// Nothing is written to its controllers: whoever had the objects lets them go.
async fn theirs(ctx: Context) -> anyhow::Result<()> {
    let (scene, others) = scene(ctx).await?;
    declare(&scene, &their_decorators(), "d", decorator(&scene, &others)).await?;
    declare(&scene, &composites(), "c", hooked(&scene, scene.spec("InPlace"))).await?;
    let of_decorator = format!("metacontroller.io/decoratorcontroller-{}", scene.ctx.controller_name("d"));
    let of_composite = format!("metacontroller.io/compositecontroller-{}", scene.ctx.controller_name("c"));
    make(&scene, &scene.things, 3).await?;
    make(&scene, &others, 3).await?;
    have(&scene, &others, &[&of_decorator]).await?;
    let both = async || {
        for thing in scene.ctx.admin.list(&scene.things, "").await? {
            let finalizers = thing["metadata"]["finalizers"].as_array().cloned().unwrap_or_default();
            ensure!(finalizers.len() == 2, "{finalizers:?}");
        }
        Ok(())
    };
    scene.ctx.wait("things have both finalizers", LATER, both).await?;
    let resources = json!({ "resources": [named(&scene.things)] });
    change(&scene, &their_decorators(), "d", resources).await?;
    have(&scene, &others, &[]).await?;
    change(&scene, &composites(), "c", json!({ "parentResource": named(&others) })).await?;
    have(&scene, &scene.things, &[&of_decorator]).await?;
    have(&scene, &others, &[&of_composite]).await?;
    for (kind, name) in [(their_decorators(), "d"), (composites(), "c")] {
        let metadata = scene.ctx.admin.get(&kind, &scene.ctx.controller_name(name)).await?["metadata"].clone();
        ensure!(metadata["annotations"].is_null() && metadata["finalizers"].is_null(), "{metadata}");
    }
    never_finalized(&scene)?;
    scene.ringmaster.check()
}
