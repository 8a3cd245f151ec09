//! Tokens and passwords that hooks are called with: how they arrive, what is told of bad ones, and their rotation under
//! load.
//!
//! Never takes it for granted that a new credential is used: replicas refuse all but the last two, and note which came.

use std::collections::HashSet;
use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use k8s_openapi::ByteString;
use serde_json::{Value, json};

use crate::cluster::Context;
use crate::objects::Resource;
use crate::replicas::calls::{now, within};
use crate::replicas::serve::known_by;
use crate::scrape::Scrape;
use crate::suites::scene::{LATER, SOON, Scene, condition, event};
use crate::suites::webhooks::Stage;
use crate::trial::Case;

/// How long the longer ones of these trials may take.
const TIMEOUT: Duration = Duration::from_secs(300);
/// How often there are new credentials.
const PERIOD: Duration = Duration::from_secs(1);
/// How many times.
const ROTATIONS: u32 = 30;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("credentials", "a_token_and_a_password_arrive", arrive),
        Case::new("credentials", "bad_credentials_are_told_and_can_be_put_right", told).timeout(TIMEOUT),
        Case::new("credentials", "bad_ones_are_told_by_events_without_conditions", told_by_events).timeout(TIMEOUT),
        Case::new("credentials", "credentials_by_host_as_metacontroller_has_them", by_host),
        Case::new("credentials", "tokens_are_rotated_every_second", |ctx| rotated(ctx, Kind::Token)).timeout(TIMEOUT),
        Case::new("credentials", "passwords_are_rotated_every_second", |ctx| rotated(ctx, Kind::Basic))
            .timeout(TIMEOUT),
    ]
}

/// Rights to read these Secrets, and no others.
fn rights(names: &[&str]) -> Value {
    json!([{ "apiGroups": [""], "resources": ["secrets"], "resourceNames": names, "verbs": ["get", "list", "watch"] }])
}

/// Makes a Secret, or changes these entries of it.
async fn put(ctx: &Context, name: &str, entries: Value) -> anyhow::Result<()> {
    let metadata = json!({ "name": name, "namespace": ctx.namespace });
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": entries });
    ctx.admin.apply(&secret).await.map(drop)
}

fn metacontrollers() -> Resource {
    Resource::new("metacontroller.k8s.io/v1alpha1", "CompositeController", "compositecontrollers", None)
}

fn authorization(ctx: &Context, name: &str) -> Value {
    json!({ "secretRef": { "name": name, "namespace": ctx.namespace, "key": "token" } })
}

fn basic(ctx: &Context, name: &str) -> Value {
    json!({ "secretRef": { "name": name, "namespace": ctx.namespace } })
}

/// Waits for the header of the last call at a path.
async fn carried(scene: &Scene, path: &str, wanted: &str) -> anyhow::Result<()> {
    let ask = async || {
        let calls = scene.hook.calls();
        let last = calls.iter().rev().find(|call| call.path == path).context("not called")?;
        ensure!(last.header("authorization") == wanted, "{:?}", last.header("authorization"));
        Ok(())
    };
    scene.ctx.wait(&format!("{path} is called with {wanted:?}"), SOON, ask).await
}

async fn arrive(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let ctx = &scene.ctx;
    ctx.grant(&rights(&["token", "user"])).await?;
    put(ctx, "token", json!({ "token": "s3cret-token\n" })).await?;
    put(ctx, "user", json!({ "username": "ring", "password": "master\n" })).await?;
    // Nobody names it, and nobody may read it.
    put(ctx, "other", json!({ "token": "s3cret-other" })).await?;
    let spec = |path: &str, field: &str, value: Value| {
        let mut spec = scene.spec("InPlace");
        spec["hooks"]["sync"]["webhook"] = json!({ "url": scene.hook.url(path), field: value });
        spec
    };
    ctx.controller("bearer", spec("/bearer", "authorization", authorization(ctx, "token"))).await?;
    ctx.controller("basic", spec("/basic", "basicAuth", basic(ctx, "user"))).await?;
    let mut own = authorization(ctx, "token");
    own["type"] = "ApiKey".into();
    ctx.controller("scheme", spec("/scheme", "authorization", own)).await?;
    let plain = json!({ "url": scene.hook.url("/plain") });
    let mut without = scene.spec("InPlace");
    without["hooks"]["sync"]["webhook"] = plain;
    ctx.controller("plain", without).await?;
    scene.thing("p", json!({})).await?;
    carried(&scene, "/bearer", "Bearer s3cret-token").await?;
    carried(&scene, "/scheme", "ApiKey s3cret-token").await?;
    carried(&scene, "/basic", "Basic cmluZzptYXN0ZXI=").await?;
    carried(&scene, "/plain", "").await?;
    // A change is taken up, and the next call carries it.
    put(ctx, "token", json!({ "token": "s3cret-second" })).await?;
    scene.ringmaster.wait_log(ctx, "carry another Authorization header", SOON).await?;
    let ask = async || {
        scene.wants("p", json!({ "status": { "at": scene.hook.count() } })).await?;
        carried(&scene, "/bearer", "Bearer s3cret-second").await
    };
    ctx.wait("the new token is used", LATER, ask).await?;
    ensure!(scene.hook.calls().iter().all(|call| call.path == "/plain" || !call.header("authorization").is_empty()));

    // Only what is named was asked for, and nothing of it was told.
    let asked = ctx.all_requests()?;
    let asked: Vec<_> = asked.iter().filter(|request| request.resource == "secrets").collect();
    ensure!(!asked.is_empty(), "no Secret was asked for");
    for request in asked {
        let is_named = ["token", "user"].iter().any(|name| {
            request.name == *name
                || request.uri.contains(&format!("metadata.name%3D{name}"))
                || request.uri.contains(&format!("metadata.name={name}"))
        });
        ensure!(is_named && request.namespace == ctx.namespace && request.code == 200, "{request:?}");
    }
    let log = scene.ringmaster.log()?;
    for secret in ["s3cret", "cmluZzptYXN0ZXI"] {
        ensure!(!log.contains(secret), "the log holds {secret}");
    }
    Ok(())
}

async fn told(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let ctx = &scene.ctx;
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["sync"]["webhook"]["authorization"] = authorization(ctx, "token");
    ctx.controller("things", spec).await?;
    let field = "webhook.authorization.secretRef: ";
    let told = async |words: &[&str]| {
        let ask = async || {
            let text = condition(ctx, "things", ["EndpointsReady", "False", "BadCredentials"]).await?;
            ensure!(text.contains(field) && words.iter().all(|word| text.contains(word)), "{text}");
            ensure!(!text.contains("s3cret"), "{text}");
            Ok(())
        };
        ctx.wait(&format!("{words:?} is told"), LATER, ask).await
    };
    told(&["grant get, list and watch on secrets in the namespace"]).await?;
    ctx.grant(&rights(&["token"])).await?;
    told(&["there is no Secret", "/token"]).await?;
    let thing = scene.thing("p", json!({})).await?;
    event(ctx, &thing, "SyncError", &[field, "there is no Secret"]).await?;
    put(ctx, "token", json!({ "other": "s3cret" })).await?;
    told(&["has no token"]).await?;
    put(ctx, "token", json!({ "token": "s3cret\ns3cret" })).await?;
    told(&["control characters"]).await?;
    put(ctx, "token", json!({ "token": " \n" })).await?;
    told(&["is empty"]).await?;
    ensure!(scene.hook.count() == 0, "it was called without a credential");
    // Put right, and what failed is synced without waiting for its turn.
    put(ctx, "token", json!({ "token": "s3cret" })).await?;
    scene.synced("p").await?;
    carried(&scene, "/sync", "Bearer s3cret").await?;
    condition(ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;
    // The last usable one goes on, whatever becomes of the Secret.
    put(ctx, "token", json!({ "token": "s3cret\ns3cret" })).await?;
    told(&["control characters", "calls go on"]).await?;
    scene.wants("p", json!({ "status": { "round": 1 } })).await?;
    scene.synced("p").await?;
    ctx.admin.delete(&ctx.namespaced("v1", "Secret", "secrets"), "token").await?;
    told(&["there is no Secret", "calls go on"]).await?;
    scene.wants("p", json!({ "status": { "round": 2 } })).await?;
    scene.synced("p").await?;
    put(ctx, "token", json!({ "token": "s3cret-again" })).await?;
    condition(ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;
    scene.wants("p", json!({ "status": { "round": 3 } })).await?;
    scene.synced("p").await?;
    carried(&scene, "/sync", "Bearer s3cret-again").await?;

    // A user name that Basic can't send.
    ctx.grant(&rights(&["user"])).await?;
    put(ctx, "user", json!({ "username": "ring:s3cret", "password": "s3cret" })).await?;
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["sync"]["webhook"]["basicAuth"] = basic(ctx, "user");
    ctx.controller("basic", spec).await?;
    let text = condition(ctx, "basic", ["EndpointsReady", "False", "BadCredentials"]).await?;
    ensure!(text.contains("webhook.basicAuth.secretRef: ") && text.contains("colon"), "{text}");
    ensure!(!scene.ringmaster.log()?.contains("s3cret"), "the log holds a credential");
    Ok(())
}

/// A controller of Metacontroller's: each cause is an event on it, once, and calls go on with the last that could be used.
async fn told_by_events(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let ctx = &scene.ctx;
    ctx.grant(&rights(&["token"])).await?;
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["sync"]["webhook"]["authorization"] = authorization(ctx, "token");
    let metadata = json!({ "name": ctx.controller_name("things"), "labels": { "suite": ctx.id } });
    let body = json!({ "metadata": metadata, "spec": spec });
    let controller = ctx.admin.create(&metacontrollers(), body).await?;
    let told = async |words: &[&str]| event(ctx, &controller, "BadCredentials", words).await;
    let text = told(&["webhook.authorization.secretRef: ", "there is no Secret", "/token"]).await?;
    ensure!(!text.contains("calls go on"), "{text}");
    put(ctx, "token", json!({ "token": "s3cret" })).await?;
    event(ctx, &controller, "CredentialsBack", &[]).await?;
    scene.thing("p", json!({})).await?;
    carried(&scene, "/sync", "Bearer s3cret").await?;
    let goes_on = async |round: u32| {
        scene.wants("p", json!({ "status": { "round": round } })).await?;
        scene.synced("p").await?;
        carried(&scene, "/sync", "Bearer s3cret").await
    };
    put(ctx, "token", json!({ "token": "s3cret\ns3cret" })).await?;
    told(&["control characters", "calls go on"]).await?;
    goes_on(1).await?;
    // For the same cause, which is no news.
    put(ctx, "token", json!({ "token": "s3cret\nother" })).await?;
    goes_on(2).await?;
    ctx.admin.delete(&ctx.namespaced("v1", "Secret", "secrets"), "token").await?;
    told(&["there is no Secret", "calls go on"]).await?;
    goes_on(3).await?;
    put(ctx, "token", json!({ "token": "s3cret-again" })).await?;
    let again = async || {
        scene.wants("p", json!({ "status": { "at": scene.hook.count() } })).await?;
        carried(&scene, "/sync", "Bearer s3cret-again").await
    };
    ctx.wait("the new token is used", LATER, again).await?;
    let events = ctx.events_for(&controller).await?;
    let is_cause = |event: &&Value| event["message"].as_str().is_some_and(|text| text.contains("calls go on"));
    let causes: Vec<_> = events.iter().filter(is_cause).collect();
    ensure!(causes.len() == 2 && causes.iter().all(|event| event["series"].is_null()), "{causes:?}");
    ensure!(!scene.ringmaster.log()?.contains("s3cret"), "the log holds a credential");
    Ok(())
}

/// The first entry for the host, whole or not at all, by plain http with a warning only elsewhere than on loopback.
async fn by_host(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let ctx = &scene.ctx;
    ctx.grant(&rights(&["token", "user"])).await?;
    put(ctx, "token", json!({ "token": "by-host" })).await?;
    put(ctx, "user", json!({ "username": "ring", "password": "master" })).await?;
    let create = async |name: &str, webhook: Value| {
        let mut spec = scene.spec("InPlace");
        spec["hooks"]["sync"]["webhook"] = webhook;
        spec["endpointConfigs"] = json!([
            { "host": "elsewhere.example", "basicAuth": basic(ctx, "user") },
            { "host": scene.hook.address().to_string(), "authorization": authorization(ctx, "token") },
            { "host": scene.hook.address().to_string(), "basicAuth": basic(ctx, "user") },
        ]);
        let metadata = json!({ "name": ctx.controller_name(name), "labels": { "suite": ctx.id } });
        ctx.admin.create(&metacontrollers(), json!({ "metadata": metadata, "spec": spec })).await
    };
    let created = create("host", json!({ "url": scene.hook.url("/host") })).await?;
    let own = json!({ "url": scene.hook.url("/own"), "basicAuth": basic(ctx, "user") });
    create("own", own).await?;
    event(ctx, &created, "Ignored", &["spec.endpointConfigs[0]", "has no effect"]).await?;
    scene.thing("p", json!({})).await?;
    carried(&scene, "/host", "Bearer by-host").await?;
    carried(&scene, "/own", "Basic cmluZzptYXN0ZXI=").await
}

/// What is rotated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Token,
    Basic,
}

impl Kind {
    /// The Secret's entries in this round, and the header's value.
    fn of(self, round: u32) -> anyhow::Result<(Value, String)> {
        match self {
            Self::Token => Ok((json!({ "token": format!("token-{round}\n") }), format!("Bearer token-{round}"))),
            Self::Basic => {
                let (username, password) = (format!("user-{round}"), format!("password-{round}"));
                let both = serde_json::to_value(ByteString(format!("{username}:{password}").into_bytes()))?;
                let header = format!("Basic {}", both.as_str().context("no base64")?);
                Ok((json!({ "username": username, "password": password }), header))
            }
        }
    }

    /// Makes a round's credential the one that calls carry.
    async fn show(self, ctx: &Context, round: u32) -> anyhow::Result<()> {
        put(ctx, "credential", self.of(round)?.0).await
    }
}

/// The replicas accept the credentials of these rounds only. Written whole or not at all.
fn accept(folder: &Path, kind: Kind, rounds: &[u32]) -> anyhow::Result<()> {
    let mut lines = String::new();
    for round in rounds {
        lines.push_str(&kind.of(*round)?.1);
        lines.push('\n');
    }
    let beside = folder.join("accepted.new");
    fs::write(&beside, lines)?;
    Ok(fs::rename(beside, folder.join("accepted"))?)
}

async fn rotated(ctx: Context, kind: Kind) -> anyhow::Result<()> {
    const PARENTS: usize = 200;
    let mut stage = Stage::with(ctx, 2, |_, _| vec!["--workers=8".to_owned()]).await?;
    let folder = tempfile::tempdir()?;
    accept(folder.path(), kind, &[0])?;
    let auth = format!("auth={}", folder.path().join("accepted").display());
    stage.start(&[0, 1], &[auth.as_str()]).await?;
    stage.replicas.publish(&[0, 1], &[]).await?;
    stage.ctx.grant(&rights(&["credential"])).await?;
    kind.show(&stage.ctx, 0).await?;
    let webhook = match kind {
        Kind::Token => json!({ "insecure": true, "authorization": authorization(&stage.ctx, "credential") }),
        Kind::Basic => json!({ "insecure": true, "basicAuth": basic(&stage.ctx, "credential") }),
    };
    stage.controller(&json!({ "resyncPeriodSeconds": 1 }), &webhook).await?;
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;
    // Evenly, as their resyncs will be.
    stage.create_at(PARENTS, 200).await?;
    stage.all_called(PARENTS, Duration::ZERO).await?;
    let failed = |scrape: &Scrape| {
        let all = scrape.sum("ringmaster_hook_requests_total", &[]);
        all - scrape.sum("ringmaster_hook_requests_total", &[("code", "200")])
    };
    let (from, mut turn) = (now(), tokio::time::interval(PERIOD));
    // Never two sooner after each other, however busy the machine is.
    turn.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let before = stage.scrape()?;
    for round in 1..=ROTATIONS {
        turn.tick().await;
        // Whoever checks accepts the next one first; what came before the last is refused from now on.
        accept(folder.path(), kind, &[round - 1, round])?;
        kind.show(&stage.ctx, round).await?;
        let current = known_by(&kind.of(round)?.1);
        let used = async || {
            let calls = stage.replicas.calls()?;
            let replicas: HashSet<usize> =
                calls.iter().filter(|call| call.presented == Some(current)).map(|call| call.replica).collect();
            ensure!(replicas.len() == 2, "{replicas:?}");
            Ok(())
        };
        stage.ctx.wait("both replicas are called with the new credential", SOON, used).await?;
    }
    turn.tick().await;
    let (took, failures) = (now() - from, failed(&stage.scrape()?) - failed(&before));
    let calls = within(&stage.replicas.calls()?, from, now());
    let presented: HashSet<_> = calls.iter().filter_map(|call| call.presented).collect();
    println!(
        "webhooks credentials: {ROTATIONS} rotations of {kind:?} in {took:?}: {} calls with {} credentials, {failures} failed",
        calls.len(),
        presented.len(),
    );
    let rotations = usize::try_from(ROTATIONS)?;
    ensure!(presented.len() >= rotations, "{} credentials in {ROTATIONS} rotations", presented.len());
    ensure!(calls.len() >= 50 * rotations, "{} calls", calls.len());
    ensure!(failures == 0.0 && calls.iter().all(|call| call.ended.is_none_or(|(_, code)| code == 200)), "{failures}");
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;

    // The replicas do refuse what they don't know.
    accept(folder.path(), kind, &[])?;
    let ask = async || {
        ensure!(failed(&stage.scrape()?) - failed(&before) > 0.0, "no call was refused");
        Ok(())
    };
    stage.ctx.wait("calls are refused", SOON, ask).await?;
    let text = condition(&stage.ctx, "things", ["HookReachable", "False", "BadCode"]).await?;
    ensure!(text.contains("401") && text.contains("credentials"), "{text}");
    Ok(())
}
