//! Every fault of a hook at random over many parents: in the end all are as they shall be, memory is where it was, and no
//! task is left over.
//!
//! 100 parents for 20 s; `RINGMASTER_SOAK_SECONDS` sets another time, then with 500 parents. Figures are printed.

use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::StreamExt as _;
use serde_json::{Value, json};

use super::scene::{config_map, spec};
use crate::cluster::{Context, Scope};
use crate::faulty::{FAULTS, Fault, Faulty, WHIMS};
use crate::objects::Resource;
use crate::process::Ringmaster;
use crate::trial::Case;

/// How long faults last unless RINGMASTER_SOAK_SECONDS says otherwise.
const SECONDS: u64 = 20;
/// Parents then.
const PARENTS: usize = 100;
/// Parents of a soak that was asked for.
const MANY_PARENTS: usize = 500;
/// A first part of it, before memory is compared.
const WARM_UP_PART: u32 = 4;
/// Requests of the trial's own at once.
const CONNECTIONS: usize = 16;
/// How often one parent's wish changes meanwhile.
const CHANGE_EVERY: Duration = Duration::from_millis(20);
/// How long all may take to be as they shall be, and the process to come to rest.
const PHASE: Duration = Duration::from_secs(180);
/// What resident memory may grow by from the end of the warm-up to the end.
const GROWTH_KIB: u64 = 10 << 10;
/// Resident memory is at rest when it stays within this for [`REST`].
const STEADY_KIB: u64 = 512;
/// As long as the allocator needs to give pages back.
const REST: Duration = Duration::from_secs(12);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let seconds = asked().ok().flatten().unwrap_or(SECONDS);
    let timeout = Duration::from_secs(seconds) + PHASE * 5;
    vec![Case::new("soak", "all_faults_at_random", all_faults_at_random).timeout(timeout)]
}

fn asked() -> anyhow::Result<Option<u64>> {
    match std::env::var("RINGMASTER_SOAK_SECONDS") {
        Ok(text) => Ok(Some(text.parse().context("RINGMASTER_SOAK_SECONDS must be a number")?)),
        Err(_) => Ok(None),
    }
}

struct Soak {
    ringmaster: Ringmaster,
    hook: Faulty,
    things: Resource,
    metrics: String,
    parents: usize,
    ctx: Context,
}

impl Soak {
    async fn start(ctx: Context, parents: usize) -> anyhow::Result<Self> {
        let things = ctx.crd("Thing", "things", Scope::Namespaced, None).await?;
        ctx.grant(&Context::rules_for(&[&things, &ctx.configmaps()])).await?;
        let hook = Faulty::start(|_| None)?;
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let ringmaster = Ringmaster::build(&ctx).arg(format!("--metrics-address=127.0.0.1:{port}")).start()?;
        let mut spec = spec(&things, &hook.url(), "InPlace");
        // Long enough for answers that are only large, so that not all faults look like a slow hook.
        spec["hooks"]["sync"]["webhook"]["timeout"] = "1s".into();
        ctx.controller("c", spec).await?;
        Ok(Self { ringmaster, hook, things, metrics: format!("http://127.0.0.1:{port}/metrics"), parents, ctx })
    }

    fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let output = Command::new("curl").args(["-fsS", "--max-time", "5", &self.metrics]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8(output.stdout)?;
        let value = text.lines().filter_map(|line| line.rsplit_once(' ')).find_map(|(series, value)| {
            let rest = series.strip_prefix(name)?;
            (rest.is_empty() || rest == "{}").then_some(value)
        });
        value.with_context(|| format!("no {name}: {text}"))?.parse().with_context(|| name.to_owned())
    }

    fn wish(number: usize, x: &str) -> Value {
        let child = config_map(&format!("p{number}"), json!({ "x": x }));
        json!({ "spec": { "reply": { "status": { "x": x }, "children": [child] } } })
    }

    /// Every parent wants `x`, and gets it.
    async fn converge(&self, x: &str, create: bool) -> anyhow::Result<()> {
        let requests = futures::stream::iter(0..self.parents).map(|number| async move {
            let (name, mut body) = (format!("p{number}"), Self::wish(number, x));
            if !create {
                return self.ctx.admin.patch_merge(&self.things, &name, &body).await;
            }
            body["metadata"]["name"] = name.into();
            self.ctx.admin.create(&self.things, body).await
        });
        let mut requests = requests.buffer_unordered(CONNECTIONS);
        while let Some(done) = requests.next().await {
            done?;
        }
        let ask = async || {
            let things = self.ctx.admin.list(&self.things, "resourceVersion=0").await?;
            let maps = self.ctx.admin.list(&self.ctx.configmaps(), "resourceVersion=0").await?;
            let synced = things.iter().filter(|thing| {
                let status = &thing["status"];
                status["observedGeneration"] == thing["metadata"]["generation"] && status["x"] == *x
            });
            let right = maps.iter().filter(|map| map["data"]["x"] == *x).count();
            let (synced, n) = (synced.count(), self.parents);
            ensure!(synced == n && right == n, "{synced} of {n} are synced, {right} children are right");
            Ok(())
        };
        self.ctx.wait(&format!("all have {x}"), PHASE, ask).await
    }

    /// Faults for a while; parents change meanwhile.
    async fn trouble(&self, span: Duration) -> anyhow::Result<()> {
        let faults: Arc<[Fault]> = FAULTS.iter().chain(WHIMS).copied().collect();
        self.hook.set(move |_| if fastrand::bool() { fastrand::choice(faults.iter()).copied() } else { None });
        let start = Instant::now();
        let mut changes = 0;
        while start.elapsed() < span {
            let number = fastrand::usize(..self.parents);
            let wish = Self::wish(number, &format!("change {changes}"));
            self.ctx.admin.patch_merge(&self.things, &format!("p{number}"), &wish).await?;
            changes += 1;
            self.ringmaster.check()?;
            tokio::time::sleep(CHANGE_EVERY).await;
        }
        self.hook.set(|_| None);
        Ok(())
    }

    /// Resident memory, in KiB, once it stays what it is.
    async fn memory_at_rest(&self) -> anyhow::Result<u64> {
        let (mut since, mut first) = (Instant::now(), self.ringmaster.rss_kib()?);
        let ask = async || {
            let now = self.ringmaster.rss_kib()?;
            if now.abs_diff(first) > STEADY_KIB {
                (since, first) = (Instant::now(), now);
            }
            ensure!(since.elapsed() >= REST, "{now} KiB");
            Ok(now)
        };
        self.ctx.wait("memory is at rest", PHASE, ask).await
    }
}

async fn all_faults_at_random(ctx: Context) -> anyhow::Result<()> {
    let asked = asked()?;
    let span = Duration::from_secs(asked.unwrap_or(SECONDS));
    let soak = Soak::start(ctx, if asked.is_some() { MANY_PARENTS } else { PARENTS }).await?;
    soak.converge("first", true).await?;
    soak.trouble(span / WARM_UP_PART).await?;
    soak.converge("warm", false).await?;
    let before = soak.memory_at_rest().await?;
    let tasks = soak.metric("ringmaster_tasks")?;
    let (calls, cpu, start) = (soak.hook.count(), soak.ringmaster.cpu()?, Instant::now());

    soak.trouble(span).await?;
    let peak = soak.ringmaster.rss_kib()?;
    let (calls, cpu, took) = (soak.hook.count() - calls, soak.ringmaster.cpu()? - cpu, start.elapsed());
    let healed = Instant::now();
    soak.converge("last", false).await?;
    let healed = healed.elapsed();
    let after = soak.memory_at_rest().await?;
    let back = async || {
        let now = soak.metric("ringmaster_tasks")?;
        ensure!(now <= tasks, "{now} tasks instead of {tasks}");
        Ok(now)
    };
    let left = soak.ctx.wait("no task is left over", PHASE, back).await?;
    println!(
        "soak: {} parents, {calls} calls in {:.0} s ({:.1} CPU s), converged {:.1} s after it; RSS {before} KiB, {peak} KiB in \
         the end of the trouble, {after} KiB after it; {tasks} tasks before, {left} after",
        soak.parents,
        took.as_secs_f64(),
        cpu.as_secs_f64(),
        healed.as_secs_f64(),
    );
    ensure!(after <= before + GROWTH_KIB, "memory grew from {before} to {after} KiB");
    super::faults_hook::well(&soak.ctx, "c").await?;
    let log = soak.ringmaster.log()?;
    ensure!(!log.contains("panicked"), "a sync panicked");
    soak.ringmaster.check()
}
