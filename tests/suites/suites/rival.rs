//! Metacontroller beside Ringmaster: its controllers wait here while its leader Lease is renewed, and start and stop with it.
//!
//! Never runs Metacontroller: a Lease that is renewed is all that is seen of it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use http::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::cluster::{Context, Scope};
use crate::gate::{Act, Ask};
use crate::hook::{CallInfo, Reply};
use crate::objects::Resource;
use crate::suites::scene::{self, SOON, Scene, config_map, spec};
use crate::trial::Case;

/// The namespace of the members' Leases.
const HOME: &str = "ringmaster-system";
/// All Leases.
const ALL: &str = "/apis/coordination.k8s.io/v1/leases";
/// How often a living one renews it.
const RENEWAL: Duration = Duration::from_millis(500);
/// For how long it counts, in seconds.
const DURATION_SECONDS: u32 = 3;
/// Its holder is gone once it is silent for so long.
const PATIENCE: Duration = Duration::from_secs(2 * DURATION_SECONDS as u64);
/// What is logged when it is seen to live.
const WAITS: &str = "Metacontroller runs: controllers of its group wait";

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("rival", "controllers_wait_while_metacontroller_runs", waits),
        Case::new("rival", "a_lease_that_nobody_renews_is_waited_out", silent),
        Case::new("rival", "a_refused_read_is_no_end_until_it_has_lasted", refused),
        Case::new("rival", "a_refused_search_looks_where_our_own_leases_are", narrow),
    ]
}

fn leases(namespace: &str) -> Resource {
    Resource::new("coordination.k8s.io/v1", "Lease", "leases", Some(namespace))
}

/// The trial's own name for the Lease: under Metacontroller's, other trials would wait for it.
fn named(ctx: &Context) -> String {
    format!("--leader-election-id={}", ctx.id)
}

fn controllers() -> Resource {
    Resource::new("metacontroller.k8s.io/v1alpha1", "CompositeController", "compositecontrollers", None)
}

/// A holder that renews its Lease until this is dropped.
struct Renewals(JoinHandle<()>);

impl Renewals {
    fn start(ctx: &Context, namespace: &str, holder: &str) -> Self {
        let (admin, leases, name, holder) = (ctx.admin.clone(), leases(namespace), ctx.id.clone(), holder.to_owned());
        Self(tokio::spawn(async move {
            for turn in 0u32.. {
                let renewed = format!("2026-01-01T00:{:02}:{:02}.000000Z", turn / 60 % 60, turn % 60);
                let renewal = json!({ "spec": { "holderIdentity": holder, "renewTime": renewed } });
                // One that fails is followed by the next.
                let _ = admin.patch_merge(&leases, &name, &renewal).await;
                tokio::time::sleep(RENEWAL).await;
            }
        }))
    }
}

impl Drop for Renewals {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// A Lease that is there before a controller is declared.
async fn held(ctx: &Context, namespace: &str, holder: &str) -> anyhow::Result<()> {
    let spec = json!({
        "holderIdentity": holder, "leaseDurationSeconds": DURATION_SECONDS, "renewTime": "2025-12-31T00:00:00.000000Z",
    });
    ctx.admin.create(&leases(namespace), json!({ "metadata": { "name": ctx.id }, "spec": spec })).await.map(drop)
}

async fn scene(ctx: Context, args: &[String]) -> anyhow::Result<Scene> {
    let scene = Scene::with_args(ctx, args).await?;
    scene.hook.set(obey);
    Ok(scene)
}

fn obey(request: &Value, info: &CallInfo) -> Reply {
    if info.path == "/finalize" { Reply::status(500) } else { scene::obey(request, info) }
}

/// Declares a composite of Metacontroller's with a finalize hook.
async fn declare(scene: &Scene) -> anyhow::Result<Value> {
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["finalize"] = json!({ "webhook": { "url": scene.hook.url("/finalize") } });
    let metadata = json!({ "name": scene.ctx.controller_name("c"), "labels": { "suite": scene.ctx.id } });
    scene.ctx.admin.create(&controllers(), json!({ "metadata": metadata, "spec": spec })).await
}

fn wants(value: &str) -> Value {
    json!({ "children": [config_map("a", json!({ "x": value }))] })
}

async fn has(scene: &Scene, value: &str) -> anyhow::Result<()> {
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == value, "{}", map["data"]);
        Ok(())
    };
    scene.map("a", "is as it was asked for last", check).await.map(drop)
}

/// Whether the parent has its controller's finalizer.
async fn guarded(scene: &Scene) -> anyhow::Result<()> {
    let finalizer = format!("metacontroller.io/compositecontroller-{}", scene.ctx.controller_name("c"));
    let thing = scene.ctx.admin.get(&scene.things, "p").await?;
    ensure!(thing["metadata"]["finalizers"] == json!([finalizer]), "{thing}");
    Ok(())
}

/// Waits until a text was logged so often.
async fn logged(scene: &Scene, text: &str, times: usize) -> anyhow::Result<()> {
    let ask = async || {
        let count = scene.ringmaster.log()?.matches(text).count();
        ensure!(count >= times, "{count} times");
        Ok(())
    };
    scene.ctx.wait(&format!("{text:?} is logged {times} times"), SOON, ask).await
}

async fn waits(ctx: Context) -> anyhow::Result<()> {
    // In a namespace that isn't said.
    held(&ctx, &ctx.namespace, "theirs").await?;
    let renewals = Renewals::start(&ctx, &ctx.namespace, "theirs");
    let args = [named(&ctx)];
    let scene = scene(ctx, &args).await?;
    let controller = declare(&scene).await?;
    scene.thing("p", wants("1")).await?;
    let lease = format!("{}/{}", scene.ctx.namespace, scene.ctx.id);
    scene.event(&controller, "MetacontrollerRuns", &[&lease, "Scale Metacontroller to 0"]).await?;
    let line = scene.ringmaster.wait_log(&scene.ctx, WAITS, SOON).await?;
    ensure!(line.contains("WARN") && line.contains("theirs"), "{line}");

    // Ours have nothing to do with it.
    let others = scene.ctx.crd("Other", "others", Scope::Namespaced, None).await?;
    scene.ctx.grant(&Context::rules_for(&[&others])).await?;
    scene.ctx.controller("other", spec(&others, &scene.hook.url("/sync"), "InPlace")).await?;
    let reply = json!({ "children": [config_map("ours", json!({}))] });
    scene.ctx.admin.create(&others, json!({ "metadata": { "name": "o" }, "spec": { "reply": reply } })).await?;
    scene.map("ours", "is made", |_| Ok(())).await?;
    scene.quiet().await?;
    scene.no_call("nothing is synced for Metacontroller's").await?;
    ensure!(scene.calls("p") == 0, "{} calls", scene.calls("p"));
    ensure!(scene.ctx.admin.find(&scene.maps, "a").await?.is_none(), "it has a child");

    // It falls silent.
    drop(renewals);
    let silent = Instant::now();
    has(&scene, "1").await?;
    ensure!(silent.elapsed() + 4 * RENEWAL >= PATIENCE, "after {:?}", silent.elapsed());
    scene.ctx.wait("its finalizer is on it", SOON, async || guarded(&scene).await).await?;

    // It comes back: what runs is stopped, and leaves all as it is.
    let renewals = Renewals::start(&scene.ctx, &scene.ctx.namespace, "back-again");
    logged(&scene, WAITS, 2).await?;
    logged(&scene, "stopped", 1).await?;
    scene.quiet().await?;
    scene.wants("p", wants("2")).await?;
    scene.no_call("it waits again").await?;
    has(&scene, "1").await?;
    guarded(&scene).await?;

    // It is over at once when the Lease is gone.
    drop(renewals);
    scene.ctx.admin.delete(&leases(&scene.ctx.namespace), &scene.ctx.id).await?;
    has(&scene, "2").await?;
    let line = scene.ringmaster.wait_log(&scene.ctx, "runs no more", SOON).await?;
    ensure!(line.contains("INFO"), "{line}");
    scene.ringmaster.check()
}

/// What a Metacontroller that is gone leaves behind.
async fn silent(ctx: Context) -> anyhow::Result<()> {
    held(&ctx, &ctx.namespace, "long-gone").await?;
    let args = [named(&ctx), format!("--leader-election-namespace={}", ctx.namespace)];
    let scene = scene(ctx, &args).await?;
    let controller = declare(&scene).await?;
    scene.thing("p", wants("1")).await?;
    has(&scene, "1").await?;
    let log = scene.ringmaster.log()?;
    ensure!(log.contains("waiting to see") && log.contains("it may be deleted"), "it isn't told why it starts late");
    ensure!(!log.contains(WAITS), "it never was renewed");
    let events = scene.ctx.events_for(&controller).await?;
    ensure!(events.iter().all(|event| event["reason"] != "MetacontrollerRuns"), "{events:?}");
    Ok(())
}

async fn refused(ctx: Context) -> anyhow::Result<()> {
    held(&ctx, &ctx.namespace, "theirs").await?;
    let _renewals = Renewals::start(&ctx, &ctx.namespace, "theirs");
    let (id, name) = (ctx.id.clone(), named(&ctx));
    let (scene, gate) = Scene::behind_gate(ctx, &[&name]).await?;
    scene.hook.set(obey);
    let controller = declare(&scene).await?;
    scene.thing("p", wants("1")).await?;
    scene.event(&controller, "MetacontrollerRuns", &[&id]).await?;

    // Neither to be found nor to be read, as if Ringmaster's role were another.
    let is_read = move |ask: &Ask| ask.path == ALL || ask.path.ends_with(&format!("/leases/{id}"));
    let refuse = Act::Refuse(403, None);
    gate.set(move |ask| if ask.method == Method::GET && is_read(ask) { refuse } else { Act::Pass });
    scene.ringmaster.wait_log(&scene.ctx, "its controllers wait, until that has lasted", SOON).await?;
    scene.no_call("a refusal says nothing of its holder").await?;
    has(&scene, "1").await?;
    let first = gate.asked(|asked| asked.act == refuse).first().context("nothing was refused")?.at;
    ensure!(first.elapsed() >= PATIENCE, "after {:?}", first.elapsed());
    scene.ringmaster.wait_log(&scene.ctx, "its controllers don't wait for it", SOON).await?;

    gate.open();
    logged(&scene, WAITS, 2).await?;
    logged(&scene, "stopped", 1).await?;
    scene.ringmaster.check()
}

async fn narrow(ctx: Context) -> anyhow::Result<()> {
    let name = named(&ctx);
    let (scene, gate) = Scene::behind_gate(ctx, &[&name]).await?;
    scene.hook.set(obey);
    gate.set(|ask| if ask.path == ALL { Act::Refuse(403, None) } else { Act::Pass });
    // Whichever Ringmaster is the first makes the namespace.
    scene.ctx.wait("our Leases' namespace is there", SOON, async || held(&scene.ctx, HOME, "theirs").await).await?;
    let renewals = Renewals::start(&scene.ctx, HOME, "theirs");
    let controller = declare(&scene).await?;
    scene.thing("p", wants("1")).await?;
    let lease = format!("{HOME}/{}", scene.ctx.id);
    scene.event(&controller, "MetacontrollerRuns", &[&lease]).await?;
    let line = scene.ringmaster.wait_log(&scene.ctx, "in this namespace alone", SOON).await?;
    ensure!(line.contains("WARN") && line.contains(&lease) && line.contains("--leader-election-namespace"), "{line}");
    drop(renewals);
    scene.ctx.admin.delete(&leases(HOME), &scene.ctx.id).await?;
    has(&scene, "1").await?;
    scene.ringmaster.check()
}
