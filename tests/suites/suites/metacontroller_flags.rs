//! Parity: Metacontroller's arguments, in the forms that Go's flag package takes.
//!
//! Never about bad values: see `command`.

use serde_json::json;

use super::metacontroller_scene::{composites, declare};
use super::scene::{Scene, config_map};
use crate::cluster::Context;
use crate::trial::Case;

/// All of the contract that a trial doesn't set by itself.
const FLAGS: [&str; 21] = [
    "--discovery-interval=20s",
    "-cache-flush-interval=30m",
    "--client-go-qps=-1",
    "-client-go-burst=10",
    "--workers=5",
    "--events-qps=0.0033",
    "-events-burst=25",
    "--zap-devel=false",
    "--zap-encoder=console",
    "-zap-log-level=4",
    "--zap-stacktrace-level=panic",
    "--zap-time-encoding=iso8601",
    "--pprof-address=0",
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

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("parity", "every_flag_is_taken", flags)]
}

async fn flags(ctx: Context) -> anyhow::Result<()> {
    let mut args: Vec<String> = FLAGS.iter().map(|flag| (*flag).to_owned()).collect();
    args.push(format!("--leader-election-namespace={}", ctx.namespace));
    let scene = Scene::with_args(ctx, &args).await?;
    declare(&scene, &composites(), "c", scene.spec("InPlace")).await?;
    scene.thing("p", json!({ "children": [config_map("a", json!({ "x": "1" }))] })).await?;
    scene.map("a", "is made", |_| Ok(())).await?;
    scene.synced("p").await?;
    scene.ringmaster.check()
}
