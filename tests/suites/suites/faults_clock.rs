//! A wall clock that jumps, by a year forth and back, beneath a running Ringmaster: nothing is due early, nothing late,
//! nothing is done twice; only what people read shows the new time.
//!
//! Never touches this machine's clock: a shim (`tests/clockshift`) shifts it for the one process.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::scene::{LATER, SOON, config_map, obey, spec};
use crate::cluster::{Context, Scope};
use crate::hook::{Hook, Reply};
use crate::process::Ringmaster;
use crate::trial::Case;

/// How far the clock jumps, in seconds.
const YEAR: i64 = 365 * 24 * 3600;
/// Where it stands, one after the other.
const JUMPS: [i64; 4] = [YEAR, -YEAR, 3600, 0];
/// What the hook asks for, in seconds: a sync again, and to be called later.
const AGAIN: u64 = 2;
/// What a busy machine may be late by.
const LATE: Duration = Duration::from_secs(3);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("faults_clock", "jumps_back_and_forth", jumps)]
}

/// Builds the shim; whoever built these trials has a C compiler, as Rust links with it.
pub(super) fn shim(dir: &Path) -> anyhow::Result<PathBuf> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clockshift/clockshift.c");
    let path = dir.join("clockshift.so");
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"]).arg(&path).arg(source);
    let output = compiler.output().context("cc")?;
    ensure!(output.status.success(), "cc: {}", String::from_utf8_lossy(&output.stderr));
    Ok(path)
}

async fn jumps(ctx: Context) -> anyhow::Result<()> {
    let things = ctx.crd("Thing", "things", Scope::Namespaced, None).await?;
    ctx.grant(&Context::rules_for(&[&things, &ctx.configmaps()])).await?;
    let hook = Hook::start(|request, info| match request["parent"]["metadata"]["name"].as_str() {
        Some("later") => Reply::status(429).header("retry-after", &AGAIN.to_string()),
        Some("failing") => Reply::status(500),
        _ => obey(request, info),
    })?;
    let dir = tempfile::tempdir()?;
    let (shim, offset) = (shim(dir.path())?, dir.path().join("offset"));
    std::fs::write(&offset, "0")?;
    let ringmaster = Ringmaster::build(&ctx)
        .env("LD_PRELOAD", &shim.display().to_string())
        .env("CLOCKSHIFT_FILE", &offset.display().to_string())
        .start()?;
    ctx.controller("c", spec(&things, &hook.url("/sync"), "InPlace")).await?;
    let make = async |name: &str, x: &str| {
        let reply = json!({ "children": [config_map(name, json!({ "x": x }))], "resyncAfterSeconds": AGAIN });
        let body = json!({ "metadata": { "name": name }, "spec": { "reply": reply } });
        ctx.admin.create(&things, body).await
    };
    let (begun, mark) = (Instant::now(), ctx.mark()?);
    for name in ["steady", "later", "failing"] {
        make(name, "0").await?;
    }
    let key = |name: &str| format!("{}/{name}", ctx.namespace);
    let starts = |name: &str, since: Instant| -> Vec<Instant> {
        hook.calls_for(&key(name)).iter().map(|call| call.started).filter(|at| *at >= since).collect()
    };
    // Beyond the syncs that follow one another because each made something.
    let ask = async || {
        ensure!(starts("steady", begun).len() >= 4, "{} calls", starts("steady", begun).len());
        Ok(())
    };
    ctx.wait("the beginning is over", SOON, ask).await?;
    for (round, jump) in JUMPS.into_iter().enumerate() {
        let since = Instant::now();
        std::fs::write(&offset, jump.to_string())?;
        // What was waiting when the clock jumped, and what begins to wait after it.
        for name in ["steady", "later"] {
            let ask = async || {
                let calls = starts(name, since);
                ensure!(calls.len() >= 3, "{} calls", calls.len());
                Ok(calls)
            };
            let calls = ctx.wait(&format!("{name} is called under {jump}"), SOON, ask).await?;
            let again = Duration::from_secs(AGAIN);
            ensure!(calls[0] - since <= again + LATE, "{name}: the first call came after {:?}", calls[0] - since);
            for pair in calls.windows(2) {
                let gap = pair[1] - pair[0];
                ensure!(
                    gap >= again - Duration::from_millis(100) && gap <= again + LATE,
                    "{name}: {gap:?} under {jump}"
                );
            }
        }
        // News is followed.
        let name = format!("new{round}");
        make(&name, "1").await?;
        let ask = async || ctx.admin.get(&ctx.configmaps(), &name).await;
        ctx.wait(&format!("{name} is made under {jump}"), SOON, ask).await?;
        ringmaster.check()?;
    }
    // A backoff is no shorter and no longer.
    let calls = hook.calls_for(&key("failing"));
    let mut least = Duration::from_millis(50);
    for pair in calls.windows(2) {
        let gap = pair[1].started - pair[0].started;
        ensure!(gap >= least && gap <= least * 2 + LATE, "{gap:?} between failed calls, not {least:?} to its double");
        least = (least * 2).min(Duration::from_secs(30));
    }
    let mut writes = ctx.requests(mark)?;
    writes.retain(|request| request.resource == "configmaps" && request.is_write());
    ensure!(writes.len() <= JUMPS.len() + 1 && writes.iter().all(|write| write.verb == "create"), "{writes:?}");
    // It did jump: what people read shows it.
    std::fs::write(&offset, (3 * YEAR).to_string())?;
    ctx.controller("late", {
        let mut spec = spec(&things, &hook.url("/sync"), "InPlace");
        spec["paused"] = true.into();
        spec
    })
    .await?;
    let year = |time: &Value| time.as_str().and_then(|time| time.get(..4)?.parse::<u32>().ok());
    let ask = async || {
        let object = ctx.admin.get(&Context::controllers(), &ctx.controller_name("late")).await?;
        let created = year(&object["metadata"]["creationTimestamp"]).context("no creationTimestamp")?;
        let condition = year(&object["status"]["conditions"][0]["lastTransitionTime"]).context("no condition")?;
        ensure!((2..=3).contains(&(condition - created)), "{condition} and {created}");
        Ok(())
    };
    ctx.wait("a condition of another year", LATER, ask).await?;
    ringmaster.check()
}
