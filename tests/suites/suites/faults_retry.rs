//! A hook that is down, slow, failing, or asks to be called later: told, retried in ever longer steps, and forgiven.
//!
//! Never about what else an answer can be: see `faults_hook` and `faults_reply`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;

use super::scene::{Scene, config_map, obey, spec};
use crate::cluster::{Context, Scope};
use crate::hook::{Call, Hook, Reply, refusing_address};
use crate::trial::Case;

/// How long a hook that is called too slow takes: no trial lasts as long.
const FOREVER: Duration = Duration::from_secs(600);
/// How soon one controller's parents are synced while another's hook hangs.
const UNDISTURBED: Duration = Duration::from_secs(5);
/// Parents of the controller whose hook hangs: more than Ringmaster has workers.
const HANGING: usize = 100;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("faults_retry", "hook_down_then_up", hook_down_then_up),
        Case::new("faults_retry", "hook_too_slow", hook_too_slow),
        Case::new("faults_retry", "slow_hook_holds_nobody_else_up", slow_hook_holds_nobody_else_up),
        Case::new("faults_retry", "hook_answers_500", hook_answers_500),
        Case::new("faults_retry", "redirects_are_refused", redirects_are_refused),
        Case::new("faults_retry", "422_is_terminal", terminal),
        Case::new("faults_retry", "429_with_retry_after", retry_after),
    ]
}

async fn hook_down_then_up(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let address = refusing_address()?;
    scene.ctx.controller("c", spec(&scene.things, &format!("http://{address}/sync"), "InPlace")).await?;
    let thing = scene.thing("p", json!({ "children": [config_map("a", json!({}))] })).await?;
    scene.thing("q", json!({})).await?;
    let message = scene.condition("c", ["HookReachable", "False", "ConnectionRefused"]).await?;
    ensure!(message.contains(&address.to_string()), "{message}");
    scene.condition("c", ["Ready", "False", "HookFailing"]).await?;
    scene.event(&thing, "SyncError", &[&address.to_string()]).await?;
    let hook = Hook::start_at(address, obey)?;
    scene.map("a", "is made once the hook is there", |_| Ok(())).await?;
    scene.synced("p").await?;
    scene.synced("q").await?;
    scene.condition("c", ["HookReachable", "True", "Answered"]).await?;
    scene.condition("c", ["Ready", "True", "Running"]).await?;
    ensure!(hook.count() > 0 && scene.hook.count() == 0);
    Ok(())
}

async fn hook_too_slow(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|_, _| Reply::json(&json!({})).delay(FOREVER));
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["sync"]["webhook"]["timeout"] = "300ms".into();
    scene.ctx.controller("c", spec).await?;
    let thing = scene.thing("p", json!({ "children": [config_map("a", json!({}))] })).await?;
    scene.event(&thing, "SyncError", &["300ms"]).await?;
    scene.condition("c", ["HookReachable", "False", "Timeout"]).await?;
    scene.called("p", 3).await?;
    // A new try begins after the old one was given up, and knows how long it has.
    let calls = scene.hook.calls_for(&scene.key("p"));
    for pair in calls.windows(2) {
        let gap = pair[1].started - pair[0].started;
        // Half of it: a busy machine may show us a call late.
        ensure!(gap >= Duration::from_millis(150), "the next call came after {gap:?}");
    }
    ensure!(calls[0].header("ringmaster-deadline-ms") == "300", "{:?}", calls[0].headers);
    scene.hook.set(obey);
    scene.map("a", "is made once the hook is fast", |_| Ok(())).await?;
    scene.condition("c", ["HookReachable", "True", "Answered"]).await.map(drop)
}

async fn slow_hook_holds_nobody_else_up(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let others = scene.ctx.crd("Other", "others", Scope::Namespaced, None).await?;
    scene.ctx.grant(&Context::rules_for(&[&others])).await?;
    let hook = Hook::start(obey)?;
    scene.hook.set(|_, _| Reply::json(&json!({})).delay(FOREVER));
    let mut slow = scene.spec("InPlace");
    slow["hooks"]["sync"]["webhook"]["timeout"] = "5m".into();
    scene.ctx.controller("slow", slow).await?;
    // Before there are parents: the first of them is then the first to be called for.
    scene.condition("slow", ["Ready", "True", "Running"]).await?;
    for number in 0..HANGING {
        scene.thing(&format!("p{number}"), json!({})).await?;
    }
    scene.called("p0", 1).await?;
    // The slow one has all the workers that it can get.
    scene.quiet().await?;
    // The other one is even declared later.
    scene.ctx.controller("fast", spec(&others, &hook.url("/sync"), "InPlace")).await?;
    scene.condition("fast", ["Ready", "True", "Running"]).await?;
    for number in 0..10 {
        let name = format!("a{number}");
        let reply = json!({ "children": [config_map(&name, json!({}))] });
        scene.ctx.admin.create(&others, json!({ "metadata": { "name": name }, "spec": { "reply": reply } })).await?;
        let made = async || scene.ctx.admin.get(&scene.maps, &name).await.map(drop);
        scene.ctx.wait(&format!("{name} is made although another's hook hangs"), UNDISTURBED, made).await?;
    }
    Ok(())
}

/// Fails unless each retry waited at least as long as the backoff's lower bound: 50 ms, doubled each time.
fn backs_off(calls: &[Call]) -> anyhow::Result<()> {
    let mut least = Duration::from_millis(50);
    for pair in calls.windows(2) {
        let gap = pair[1].started - pair[0].ended.context("an unanswered call was followed by another")?;
        ensure!(gap >= least, "call {} came {gap:?} after the one before it, not {least:?}", pair[1].number);
        least *= 2;
    }
    Ok(())
}

async fn hook_answers_500(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|_, _| Reply::status(500).body("the secret is 42"));
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let thing = scene.thing("p", json!({ "children": [config_map("a", json!({}))] })).await?;
    let message = scene.event(&thing, "SyncError", &["500"]).await?;
    ensure!(!message.contains("secret"), "a reply's text is for the log only: {message}");
    scene.condition("c", ["HookReachable", "False", "BadCode"]).await?;
    scene.called("p", 6).await?;
    let calls = scene.hook.calls_for(&scene.key("p"));
    backs_off(&calls[..6])?;
    for (number, call) in calls.iter().enumerate() {
        ensure!(call.header("ringmaster-attempt") == number.to_string(), "call {number}: {:?}", call.headers);
        let delivery = call.header("ringmaster-delivery");
        ensure!(!delivery.is_empty() && delivery == calls[0].header("ringmaster-delivery"), "{:?}", call.headers);
    }
    scene.hook.set(obey);
    scene.map("a", "is made once the hook answers", |_| Ok(())).await?;
    scene.synced("p").await?;
    scene.quiet().await?;
    let before = scene.calls("p");
    scene.wants("p", json!({ "status": { "x": 1 } })).await?;
    scene.called("p", before + 1).await?;
    let call = &scene.hook.calls_for(&scene.key("p"))[before];
    ensure!(call.header("ringmaster-attempt") == "0", "failures aren't forgiven: {:?}", call.headers);
    Ok(())
}

async fn redirects_are_refused(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let target = Hook::start(obey)?;
    let url = target.url("/sync");
    scene.hook.set(move |request, _| {
        let code = request["parent"]["spec"]["code"].as_u64().and_then(|code| code.try_into().ok());
        Reply::status(code.unwrap_or(500)).header("location", &url)
    });
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    for code in [301, 302, 303, 307, 308] {
        let body = json!({ "metadata": { "name": format!("p{code}") }, "spec": { "code": code } });
        let thing = scene.ctx.admin.create(&scene.things, body).await?;
        scene.event(&thing, "SyncError", &["redirect", &code.to_string()]).await?;
    }
    ensure!(target.count() == 0, "a redirect was followed: {:?}", target.calls());
    Ok(())
}

async fn terminal(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|_, _| Reply::status(422));
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let thing = scene.thing("p", json!({ "children": [config_map("a", json!({}))] })).await?;
    scene.event(&thing, "SyncError", &["422"]).await?;
    scene.no_call("a refused parent isn't tried again").await?;
    scene.ctx.admin.patch_status(&scene.things, "p", &json!({ "status": { "x": 1 } })).await?;
    scene.no_call("a changed status doesn't help it").await?;
    ensure!(scene.calls("p") == 1, "{} calls", scene.calls("p"));
    // A change may not help either.
    scene.wants("p", json!({ "status": { "x": 1 } })).await?;
    scene.called("p", 2).await?;
    scene.no_call("refused again").await?;
    scene.hook.set(obey);
    scene.no_call("nobody can know that the hook thinks otherwise now").await?;
    scene.wants("p", json!({ "status": { "x": 2 } })).await?;
    scene.map("a", "is made once the parent is right", |_| Ok(())).await?;
    scene.synced("p").await.map(drop)
}

async fn retry_after(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|_, _| Reply::status(429).header("retry-after", "1"));
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    scene.thing("p", json!({ "children": [config_map("a", json!({}))] })).await?;
    scene.called("p", 4).await?;
    scene.hook.set(obey);
    scene.map("a", "is made once the hook answers", |_| Ok(())).await?;
    let calls = scene.hook.calls_for(&scene.key("p"));
    for pair in calls[..5].windows(2) {
        let gap = pair[1].started - pair[0].started;
        ensure!(gap >= Duration::from_secs(1), "call {} came after {gap:?}", pair[1].number);
    }
    // A busy hook is there.
    scene.condition("c", ["HookReachable", "True", "Answered"]).await.map(drop)
}
