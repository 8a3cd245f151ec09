//! The same failures of answers as in `faults_hook`, all at once, of the hooks that aren't a composite's sync hook:
//! customize, finalize, and a decorator's.
//!
//! Never about replies that can be read.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cluster::Context;
use crate::faulty::{FAULTS, Fault, Faulty, SECRET};
use crate::suites::decorators;
use crate::suites::scene::{Scene, config_map};
use crate::trial::Case;

/// Until all are told, or well again: they share one hook, which looks ill.
const PATIENCE: Duration = Duration::from_secs(120);
const TIMEOUT: Duration = Duration::from_secs(400);
/// What Ringmaster may grow by meanwhile, whatever is sent.
const GROWTH_KIB: u64 = 96 << 10;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |name, role| Case::new("faults_roles", name, move |ctx| survives(ctx, role)).timeout(TIMEOUT);
    vec![case("customize", Role::Customize), case("finalize", Role::Finalize), case("decorator", Role::Decorator)]
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    Customize,
    Finalize,
    Decorator,
}

/// Those that show at once: the others would only be told as slow, and all together make the rest slow too.
fn faults() -> impl Iterator<Item = &'static Fault> {
    FAULTS.iter().filter(|fault| !fault.is_slow)
}

/// The parent whose hook fails so.
fn name(fault: &Fault) -> String {
    fault.name.replace('_', "-")
}

/// Waits until each parent is as `check` wants it.
async fn each(
    scene: &Scene,
    what: &str,
    check: impl AsyncFn(&'static Fault) -> anyhow::Result<()>,
) -> anyhow::Result<()> {
    for fault in faults() {
        let ask = async || check(fault).await;
        scene.ctx.wait(&format!("{}: {what}", fault.name), PATIENCE, ask).await?;
    }
    Ok(())
}

/// What the role's hook answers once it is well, and what then becomes of the parent.
async fn is_well(scene: &Scene, role: Role, fault: &Fault) -> anyhow::Result<()> {
    let name = name(fault);
    match role {
        Role::Customize => scene.ctx.admin.get(&scene.maps, &name).await.map(drop),
        Role::Finalize => {
            ensure!(scene.ctx.admin.find(&scene.things, &name).await?.is_none(), "it is there");
            Ok(())
        }
        Role::Decorator => {
            let thing = scene.ctx.admin.get(&scene.things, &name).await?;
            ensure!(thing["metadata"]["labels"]["done"] == "yes", "{}", thing["metadata"]);
            Ok(())
        }
    }
}

async fn survives(ctx: Context, role: Role) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let on = Arc::new(AtomicBool::new(role != Role::Finalize));
    let hook = Faulty::start({
        let on = Arc::clone(&on);
        move |key| {
            let (_, parent) = key.split_once('/')?;
            faults().find(|fault| name(fault) == parent).filter(|_| on.load(Ordering::SeqCst)).copied()
        }
    })?;
    let webhook = json!({ "url": hook.url(), "timeout": "5s", "responseUnMarshallMode": "loose" });
    let reply = |name: &str| match role {
        Role::Decorator => json!({ "labels": { "done": "yes" } }),
        Role::Finalize => json!({ "finalized": true }),
        Role::Customize => json!({ "children": [config_map(name, json!({}))] }),
    };
    let mut things = Vec::new();
    for fault in faults() {
        let name = name(fault);
        let body = json!({ "metadata": { "name": name }, "spec": { "reply": reply(&name) } });
        things.push(scene.ctx.admin.create(&scene.things, body).await?);
    }
    match role {
        Role::Decorator => {
            let mut spec = decorators::spec(&scene, "InPlace");
            spec["hooks"]["sync"]["webhook"] = webhook;
            let metadata = json!({ "name": scene.ctx.controller_name("c"), "labels": { "suite": scene.ctx.id } });
            let decorator = json!({ "metadata": metadata, "spec": spec });
            scene.ctx.admin.create(&decorators::decorators(), decorator).await?;
        }
        Role::Finalize | Role::Customize => {
            let mut spec = scene.spec("InPlace");
            let hook = if role == Role::Finalize { "finalize" } else { "customize" };
            spec["hooks"][hook] = json!({ "webhook": webhook });
            scene.ctx.controller("c", spec).await?;
        }
    }
    if role == Role::Finalize {
        each(&scene, "has the finalizer", async |fault| {
            let thing = scene.ctx.admin.get(&scene.things, &name(fault)).await?;
            ensure!(thing["metadata"]["finalizers"].is_array(), "{}", thing["metadata"]);
            Ok(())
        })
        .await?;
        scene.quiet().await?;
        on.store(true, Ordering::SeqCst);
        for fault in faults() {
            scene.ctx.admin.delete(&scene.things, &name(fault)).await?;
        }
    }
    let before = scene.ringmaster.rss_kib()?;
    each(&scene, "is told", async |fault| {
        let thing = things.iter().find(|thing| thing["metadata"]["name"] == *name(fault)).context("no thing")?;
        let events = scene.ctx.events_for(thing).await?;
        let messages: Vec<&str> =
            events.iter().filter(|e| e["reason"] == "SyncError").filter_map(|e| e["message"].as_str()).collect();
        ensure!(messages.iter().all(|message| !message.contains(SECRET)), "{messages:?}");
        let told = |message: &&&str| fault.words.iter().all(|word| message.contains(word));
        let told = messages.iter().find(told).with_context(|| format!("{messages:?}"))?;
        ensure!(told.contains(&hook.url()), "which hook? {told}");
        Ok(())
    })
    .await?;
    let after = scene.ringmaster.rss_kib()?;
    ensure!(after < before + GROWTH_KIB, "it grew from {before} to {after} KiB");
    if role != Role::Decorator {
        let bad: Vec<Value> = scene.hook.calls().iter().filter(|c| c.path != "/sync").map(|c| json!(c.path)).collect();
        ensure!(bad.is_empty(), "{bad:?}");
    }
    if role == Role::Customize {
        ensure!(scene.hook.count() == 0, "the sync hook was called {} times", scene.hook.count());
    }
    on.store(false, Ordering::SeqCst);
    each(&scene, "is well again", async |fault| is_well(&scene, role, fault).await).await?;
    ensure!(!scene.ringmaster.log()?.contains("panicked"), "a sync panicked");
    scene.ringmaster.check()
}
