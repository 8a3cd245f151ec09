//! Every way in which a hook's answer can fail, one trial each: the parent's event names the cause, others go on,
//! retries back off, memory stays, and all is well once the fault has gone.
//!
//! Never about answers that can be read: see `faults_reply` and `faults_children`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::scene::{LATER, SOON, Scene, config_map};
use crate::cluster::Context;
use crate::faulty::{FAULTS, Fault, Faulty, SECRET};
use crate::hook::{RawHook, read_request};
use crate::trial::Case;

/// The most that an answer may grow beyond the limit of 8 MiB before its caller goes: what sockets hold.
const SENT_MAX: u64 = 32 << 20;
/// What Ringmaster may grow by while one hook misbehaves, whatever it sends.
const GROWTH_KIB: u64 = 64 << 10;
/// Calls for a parent under a fault whose distances are looked at.
const TRIES: usize = 4;
/// Parents whose hook sends without end, all at once: more than Ringmaster has workers.
const GREEDY: usize = 60;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let each = FAULTS.iter().map(|fault| Case::new("faults_hook", fault.name, move |ctx| survives(ctx, fault)));
    let more = [
        Case::new("faults_hook", "http_1_0_will_do", http_1_0_will_do),
        Case::new("faults_hook", "name_that_does_not_resolve", name_that_does_not_resolve),
        Case::new("faults_hook", "certificate_of_a_stranger", certificate_of_a_stranger),
        Case::new("faults_hook", "https_to_a_plain_port", https_to_a_plain_port),
        Case::new("faults_hook", "bodies_without_end_from_all_sides", bodies_without_end),
    ];
    each.chain(more).collect()
}

/// A scene with two controllers: parents labelled `hook: faulty` go to `faulty`, those labelled `hook: steady` to the
/// scene's own hook.
pub(super) async fn two_hooks(scene: &Scene, faulty: &str, timeout: &str) -> anyhow::Result<()> {
    for (name, url) in [("faulty", faulty), ("steady", &scene.hook.url("/sync"))] {
        let mut spec = scene.spec("InPlace");
        spec["parentResource"]["labelSelector"] = json!({ "matchLabels": { "hook": name } });
        spec["hooks"]["sync"]["webhook"]["url"] = url.into();
        spec["hooks"]["sync"]["webhook"]["timeout"] = timeout.into();
        scene.ctx.controller(name, spec).await?;
    }
    Ok(())
}

/// A thing of one of the two controllers that wants a ConfigMap of its name.
pub(super) async fn thing_of(scene: &Scene, hook: &str, name: &str) -> anyhow::Result<Value> {
    let reply = json!({ "children": [config_map(name, json!({ "x": "1" }))] });
    let body = json!({ "metadata": { "name": name, "labels": { "hook": hook } }, "spec": { "reply": reply } });
    scene.ctx.admin.create(&scene.things, body).await
}

/// Waits until a condition of a controller says all `words`.
pub(super) async fn conditions_say(scene: &Scene, controller: &str, words: &[&str]) -> anyhow::Result<()> {
    let says = |condition: &Value| {
        let message = condition["message"].as_str().unwrap_or_default();
        words.iter().all(|word| message.contains(word))
    };
    let check = |conditions: &[Value]| conditions.iter().any(says);
    conditions(&scene.ctx, controller, &format!("the conditions say {words:?}"), check).await
}

/// Waits until all conditions of a controller say that nothing is wrong.
pub(super) async fn well(ctx: &Context, controller: &str) -> anyhow::Result<()> {
    let is_well = |c: &Value| c["status"] == "True" && !c["message"].to_string().contains("failed");
    // What follows them tells where its parents are.
    let check = |conditions: &[Value]| conditions.len() == 7 && conditions[..4].iter().all(is_well);
    conditions(ctx, controller, "the conditions say that all is well", check).await
}

async fn conditions(
    ctx: &Context,
    controller: &str,
    what: &str,
    check: impl Fn(&[Value]) -> bool,
) -> anyhow::Result<()> {
    let name = ctx.controller_name(controller);
    let ask = async || {
        let object = ctx.admin.get(&Context::controllers(), &name).await?;
        ensure!(!object.to_string().contains(SECRET), "a reply's text is for the log only: {}", object["status"]);
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        ensure!(check(&conditions), "{conditions:?}");
        Ok(())
    };
    ctx.wait(what, LATER, ask).await
}

/// Fails unless retries waited at least as long as the backoff's lower bound: 50 ms, doubled each time.
pub(super) async fn backs_off(scene: &Scene, hook: &Faulty, key: &str) -> anyhow::Result<()> {
    let tried = async || {
        let calls = hook.calls(key);
        ensure!(calls.len() >= TRIES, "{} calls", calls.len());
        Ok(calls)
    };
    let calls = scene.ctx.wait("it is tried again", LATER, tried).await?;
    let mut least = Duration::from_millis(50);
    for pair in calls[..TRIES].windows(2) {
        let gap = pair[1] - pair[0];
        ensure!(gap >= least, "a call came {gap:?} after the one before it, not {least:?}");
        least *= 2;
    }
    Ok(())
}

async fn survives(ctx: Context, fault: &'static Fault) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let (bad, on) = (scene.key("bad"), Arc::new(AtomicBool::new(true)));
    let hook = Faulty::start({
        let (bad, on) = (bad.clone(), Arc::clone(&on));
        move |key| (*key == *bad && on.load(Ordering::SeqCst)).then_some(*fault)
    })?;
    two_hooks(&scene, &hook.url(), if fault.is_slow { "1s" } else { "5s" }).await?;
    let thing = thing_of(&scene, "faulty", "bad").await?;
    thing_of(&scene, "faulty", "good").await?;
    let message = scene.event(&thing, "SyncError", fault.words).await?;
    ensure!(message.contains(&hook.url()), "which hook? {message}");
    ensure!(!message.contains(SECRET), "a reply's text is for the log only: {message}");
    scene.map("good", "another object of the same controller is served", |_| Ok(())).await?;
    let before = scene.ringmaster.rss_kib()?;
    thing_of(&scene, "steady", "other").await?;
    scene.map("other", "another controller goes on", |_| Ok(())).await?;
    conditions_say(&scene, "faulty", fault.words).await?;
    backs_off(&scene, &hook, &bad).await?;
    let after = scene.ringmaster.rss_kib()?;
    ensure!(after < before + GROWTH_KIB, "it grew from {before} to {after} KiB");
    ensure!(hook.most_sent() < SENT_MAX, "{} bytes of an answer were taken", hook.most_sent());
    on.store(false, Ordering::SeqCst);
    scene.map("bad", "is made once the fault has gone", |_| Ok(())).await?;
    scene.synced("bad").await?;
    well(&scene.ctx, "faulty").await?;
    ensure!(!scene.ringmaster.log()?.contains("panicked"), "a sync panicked");
    scene.ringmaster.check()
}

async fn http_1_0_will_do(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let hook = RawHook::start(|mut stream, _| {
        if read_request(&mut stream).is_ok() {
            let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.0 200 OK\r\n\r\n{\"status\":{\"old\":true}}");
        }
    })?;
    two_hooks(&scene, &hook.url("/sync"), "5s").await?;
    thing_of(&scene, "faulty", "p").await?;
    let synced = scene.synced("p").await?;
    ensure!(synced["status"]["old"] == true, "{}", synced["status"]);
    Ok(())
}

/// The controller's hook is at `url`, which can't be; it is told with `words` and the condition's `reason`, others go on,
/// and once the URL is right all is well.
async fn nowhere(ctx: Context, url: &str, reason: &str, words: &[&str]) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    two_hooks(&scene, url, "5s").await?;
    let thing = thing_of(&scene, "faulty", "bad").await?;
    thing_of(&scene, "steady", "other").await?;
    scene.event(&thing, "SyncError", words).await?;
    let message = scene.condition("faulty", ["HookReachable", "False", reason]).await?;
    ensure!(words.iter().all(|word| message.contains(word)) && message.contains(url), "{message}");
    scene.condition("faulty", ["Ready", "False", "HookFailing"]).await?;
    scene.map("other", "another controller goes on", |_| Ok(())).await?;
    let hook = Faulty::start(|_| None)?;
    let patch = json!({ "spec": { "hooks": { "sync": { "webhook": { "url": hook.url() } } } } });
    let name = scene.ctx.controller_name("faulty");
    scene.ctx.admin.patch_merge(&Context::controllers(), &name, &patch).await?;
    scene.map("bad", "is made once the URL is right", |_| Ok(())).await?;
    well(&scene.ctx, "faulty").await
}

async fn name_that_does_not_resolve(ctx: Context) -> anyhow::Result<()> {
    let words = ["no-such-name.invalid does not resolve"];
    nowhere(ctx, "https://no-such-name.invalid/sync", "NameNotResolved", &words).await
}

async fn certificate_of_a_stranger(ctx: Context) -> anyhow::Result<()> {
    let certified = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()])?;
    let key = rustls::pki_types::PrivateKeyDer::try_from(certified.signing_key.serialize_der());
    let key = key.map_err(|problem| anyhow::anyhow!("{problem}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key)?;
    let config = Arc::new(config);
    let server = RawHook::start(move |mut stream, _| {
        let Ok(mut connection) = rustls::ServerConnection::new(Arc::clone(&config)) else { return };
        while connection.is_handshaking() && connection.complete_io(&mut stream).is_ok() {}
    })?;
    let url = server.url("/sync").replace("http:", "https:");
    nowhere(ctx, &url, "TlsFailed", &["certificate", "UnknownIssuer"]).await?;
    ensure!(server.connections() > 0);
    Ok(())
}

async fn https_to_a_plain_port(ctx: Context) -> anyhow::Result<()> {
    let server = RawHook::start(|mut stream, _| {
        let _ = std::io::Write::write_all(&mut stream, b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
    })?;
    let url = server.url("/sync").replace("http:", "https:");
    nowhere(ctx, &url, "TlsFailed", &["TLS"]).await
}

async fn bodies_without_end(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let fault = *FAULTS.iter().find(|fault| fault.name == "body_without_end").context("no such fault")?;
    let on = Arc::new(AtomicBool::new(true));
    let hook = Faulty::start({
        let on = Arc::clone(&on);
        move |_| on.load(Ordering::SeqCst).then_some(fault)
    })?;
    two_hooks(&scene, &hook.url(), "5s").await?;
    thing_of(&scene, "steady", "first").await?;
    scene.map("first", "all is well", |_| Ok(())).await?;
    let before = scene.ringmaster.rss_kib()?;
    for number in 0..GREEDY {
        thing_of(&scene, "faulty", &format!("p{number}")).await?;
    }
    let mut most = before;
    let tried = async || {
        most = most.max(scene.ringmaster.rss_kib()?);
        let calls = hook.count();
        ensure!(calls >= GREEDY * 3, "{calls} calls");
        Ok(())
    };
    scene.ctx.wait("all were tried three times", LATER, tried).await?;
    println!("bodies without end, {GREEDY} at once: {before} KiB grew to {most} KiB");
    ensure!(most < before + GROWTH_KIB, "it grew from {before} to {most} KiB");
    thing_of(&scene, "steady", "other").await?;
    scene.map("other", "another controller goes on", |_| Ok(())).await?;
    on.store(false, Ordering::SeqCst);
    for number in 0..GREEDY {
        let ask = async || scene.ctx.admin.get(&scene.maps, &format!("p{number}")).await.map(drop);
        scene.ctx.wait(&format!("p{number} is made"), SOON, ask).await?;
    }
    well(&scene.ctx, "faulty").await
}
