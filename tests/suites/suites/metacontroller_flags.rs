//! Parity: Metacontroller's arguments, in the forms that Go's flag package takes, and what follows from them.
//!
//! Never about bad values: see `command`.

use std::collections::BTreeSet;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::metacontroller_scene::{composites, declare};
use super::scene::{SOON, Scene, config_map};
use crate::cluster::Context;
use crate::trial::Case;

/// All of the contract that a trial doesn't set by itself.
const FLAGS: [&str; 21] = [
    "--discovery-interval=20s",
    "-cache-flush-interval=30m",
    "--client-go-qps=20",
    "-client-go-burst=10",
    "--workers=5",
    "--events-qps=0.0033",
    "-events-burst=25",
    "--zap-devel=false",
    "--zap-encoder=json",
    "-zap-log-level=4",
    "--zap-stacktrace-level=panic",
    "--zap-time-encoding=iso8601",
    "--pprof-address=127.0.0.1:0",
    "-leader-election",
    "--leader-election-resource-lock=leases",
    "--leader-election-id=metacontroller",
    "--metrics-address=0",
    "--health-probe-bind-address=127.0.0.1:0",
    "--apply-strategy=server-side-apply",
    "-apply-strategy-ssa-field-manager=metacontroller",
    // The last of a repeated flag counts.
    "--workers=7",
];

/// Those of them that have no effect.
const IGNORED: [&str; 7] = [
    "--client-go-qps",
    "--client-go-burst",
    "--zap-stacktrace-level",
    "--zap-time-encoding",
    "--pprof-address",
    "--leader-election",
    "--leader-election-resource-lock",
];

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("parity", "every_flag_is_taken", flags),
        Case::new("parity", "intervals_count_beside_periods", intervals),
        Case::new("parity", "events_of_an_object_are_bounded", events),
    ]
}

/// How often Ringmaster asked which kinds there are in the group of the trial's parents.
fn looked_up(scene: &Scene) -> anyhow::Result<usize> {
    let path = format!("/apis/{}", scene.things.api_version);
    Ok(scene.ctx.all_requests()?.iter().filter(|request| request.uri == path).count())
}

/// Declares a controller that has no parents, and waits until it runs.
async fn declare_idle(scene: &Scene) -> anyhow::Result<()> {
    let mut spec = scene.spec("InPlace");
    spec["parentResource"]["labelSelector"] = json!({ "matchLabels": { "nobody": "has" } });
    let idle = declare(scene, &composites(), "idle", spec).await?;
    scene.event(&idle, "Started", &["Thing"]).await.map(drop)
}

async fn flags(ctx: Context) -> anyhow::Result<()> {
    let mut args: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
    args.push(format!("--leader-election-namespace={}", ctx.namespace));
    let scene = Scene::with_args(ctx, &args).await?;
    declare(&scene, &composites(), "c", scene.spec("InPlace")).await?;
    // What is odd in a reply is told at a level that is off by default.
    scene.thing("p", json!({ "odd": 1, "children": [config_map("a", json!({ "x": "1" }))] })).await?;
    scene.map("a", "is made", |_| Ok(())).await?;
    scene.synced("p").await?;
    scene.ringmaster.wait_log(&scene.ctx, "hook reply: ", SOON).await?;
    let known = looked_up(&scene)?;
    declare_idle(&scene).await?;
    ensure!(known > 0 && looked_up(&scene)? == known, "what is known of kinds counts for 20 seconds");

    let log = scene.ringmaster.log()?;
    // The last line may be under way.
    let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let lines = whole.lines().map(serde_json::from_str).collect::<Result<Vec<Value>, _>>().context("no JSON")?;
    let message = |line: &Value| line["message"].as_str().unwrap_or_default().to_owned();
    ensure!(lines.iter().any(|line| line["level"] == "DEBUG" && message(line).starts_with("hook reply: ")));
    for flag in IGNORED {
        let start = format!("{flag} is ");
        let told = lines.iter().map(message).filter(|text| text.starts_with(&start) && text.contains("is ignored"));
        let told: Vec<String> = told.collect();
        ensure!(told.len() == 1, "{flag}: {told:?}");
    }
    let line = |text: &str| lines.iter().find(|line| line["message"] == text).with_context(|| format!("no {text:?}"));
    ensure!(line("running")?["workers"] == 7, "{}", line("running")?);
    // No port is open but the one of the probes.
    let address = line("serving /healthz and /readyz")?["address"].as_str().context("no address")?;
    let (_, port) = address.rsplit_once(':').context("no port")?;
    let (ports, port): (_, u16) = (scene.ringmaster.ports()?, port.parse()?);
    ensure!(ports == BTreeSet::from([port]), "{ports:?} instead of {port}");
    let url = format!("http://{address}/healthz");
    let probe = Command::new("curl").args(["-fsS", "--max-time", "5", &url]).output()?;
    ensure!(probe.status.success(), "{}", String::from_utf8_lossy(&probe.stderr));
    scene.ringmaster.check()
}

/// The shorter of `--cache-flush-interval` and a controller's own period counts; that a shorter period does, parents show
/// that are synced in time. What is known of kinds is asked for again.
async fn intervals(ctx: Context) -> anyhow::Result<()> {
    let args = ["-cache-flush-interval=1s", "--discovery-interval=1s"].map(str::to_owned);
    let scene = Scene::with_args(ctx, &args).await?;
    let mut spec = scene.spec("InPlace");
    spec["resyncPeriodSeconds"] = 3600.into();
    declare(&scene, &composites(), "c", spec).await?;
    scene.thing("p", json!({})).await?;
    scene.synced("p").await?;
    scene.quiet().await?;
    let before = scene.calls("p");
    scene.called("p", before + 4).await?;
    let calls = scene.hook.calls_for(&scene.key("p"));
    // Half of two periods: a busy machine may show us a call late.
    let took = calls[before + 3].started - calls[before + 1].started;
    ensure!(took >= Duration::from_secs(1), "three calls within {took:?}");
    let known = looked_up(&scene)?;
    declare_idle(&scene).await?;
    ensure!(looked_up(&scene)? > known, "what is known of kinds is older than a second");
    Ok(())
}

async fn events(ctx: Context) -> anyhow::Result<()> {
    let args = ["-events-burst=1", "--events-qps=0.001"].map(str::to_owned);
    let scene = Scene::with_args(ctx, &args).await?;
    declare(&scene, &composites(), "c", scene.spec("InPlace")).await?;
    let wants = |name: &str, x: &str| json!({ "children": [config_map(name, json!({ "x": x }))] });
    let first = scene.thing("p", wants("a", "1")).await?;
    scene.event(&first, "ChildCreated", &["ConfigMap a"]).await?;
    for x in ["2", "3"] {
        scene.wants("p", wants("a", x)).await?;
        let is_updated = |map: &Value| {
            ensure!(map["data"]["x"] == x, "{map}");
            Ok(())
        };
        scene.map("a", "is updated", is_updated).await?;
    }
    scene.quiet().await?;
    // Another object has its own.
    let second = scene.thing("q", wants("b", "1")).await?;
    scene.event(&second, "ChildCreated", &["ConfigMap b"]).await?;
    let events = scene.ctx.events_for(&first).await?;
    ensure!(events.len() == 1 && events[0]["reason"] == "ChildCreated", "{events:?}");
    Ok(())
}
