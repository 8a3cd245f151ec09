//! 5,000 Websites with 15,000 children: converge, restart, all synced again; figures are printed, never judged by time.
//!
//! RINGMASTER_SCALE sets another number of Websites.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use serde_json::Value;

use crate::cluster::Context;
use crate::hook::Hook;
use crate::process::Ringmaster;
use crate::server::lock;
use crate::trial::Case;
use crate::website::{Kinds, reply};

/// Websites unless RINGMASTER_SCALE says otherwise.
const WEBSITES: usize = 5_000;
/// Creates at once.
const CONNECTIONS: usize = 32;
/// For one phase; a bound for a hang, not a budget.
const PHASE: Duration = Duration::from_secs(600);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::new("scale", "thousands_converge_and_survive_a_restart", thousands).timeout(PHASE * 3).own_server()]
}

async fn thousands(ctx: Context) -> anyhow::Result<()> {
    let count = match std::env::var("RINGMASTER_SCALE") {
        Ok(text) => text.parse().context("RINGMASTER_SCALE must be a number")?,
        Err(_) => WEBSITES,
    };
    let kinds = Kinds::install(&ctx).await?;
    let seen = Arc::new(Mutex::new(HashSet::new()));
    let hook = Hook::start({
        let seen = Arc::clone(&seen);
        move |request, _| {
            lock(&seen).insert(request["parent"]["metadata"]["name"].to_string());
            reply(request)
        }
    })?;
    let ringmaster = Ringmaster::build(&ctx).arg("--log-level=warn").start()?;
    ctx.controller("website", kinds.spec(&hook.url("/sync"))).await?;

    let start = Instant::now();
    let creates = futures::stream::iter(0..count).map(|index| {
        let (ctx, websites) = (&ctx, &kinds.websites);
        async move { ctx.admin.create(websites, Kinds::website(&format!("w{index}"), "T")).await }
    });
    let mut creates = creates.buffer_unordered(CONNECTIONS);
    while let Some(created) = creates.next().await {
        created?;
    }
    all_ready(&ctx, &kinds, count).await?;
    let took = start.elapsed();
    let cpu = ringmaster.cpu()?;
    println!(
        "scale: {count} websites converged in {:.1} s: {:.0}/s, {} hook calls; ringmaster: {:.1} CPU s ({:.2} ms each), {} MiB RSS",
        took.as_secs_f64(),
        count as f64 / took.as_secs_f64(),
        hook.count(),
        cpu.as_secs_f64(),
        cpu.as_secs_f64() * 1000.0 / count as f64,
        ringmaster.rss_kib()? / 1024,
    );
    let log = ringmaster.log()?;
    ensure!(ringmaster.stop().await?.success());
    ensure!(log.trim().is_empty(), "the log has warnings or errors:\n{log}");

    lock(&seen).clear();
    let mark = ctx.mark()?;
    let start = Instant::now();
    let ringmaster = Ringmaster::build(&ctx).arg("--log-level=warn").start()?;
    ctx.wait("all are synced again", PHASE, async || {
        let synced = lock(&seen).len();
        ensure!(synced == count, "{synced} of {count}");
        Ok(())
    })
    .await?;
    let (took, cpu) = (start.elapsed(), ringmaster.cpu()?);
    println!(
        "scale: restarted, all {count} synced in {:.1} s, {:.1} CPU s, {} MiB RSS",
        took.as_secs_f64(),
        cpu.as_secs_f64(),
        ringmaster.rss_kib()? / 1024,
    );
    let writes = ctx.requests(mark)?.into_iter().filter(|request| {
        let own = ["compositecontrollers", "events", "leases", "shardtables"];
        request.is_write() && !own.contains(&request.resource.as_str())
    });
    let writes: Vec<_> = writes.take(5).collect();
    ensure!(writes.is_empty(), "the restart wrote: {writes:?}");
    let log = ringmaster.log()?;
    ensure!(ringmaster.stop().await?.success());
    ensure!(log.trim().is_empty(), "the log has warnings or errors:\n{log}");
    Ok(())
}

async fn all_ready(ctx: &Context, kinds: &Kinds, count: usize) -> anyhow::Result<()> {
    ctx.wait("all are ready", PHASE, async || {
        let websites = ctx.admin.list(&kinds.websites, "resourceVersion=0").await?;
        let ready = websites.iter().filter(|website: &&Value| website["status"]["phase"] == "Ready").count();
        ensure!(ready == count, "{ready} of {count}");
        // Asking is not free on a machine that both sides share.
        Ok(())
    })
    .await
}
