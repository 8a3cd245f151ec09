//! The Counter example under Ringmaster: replicas that remember, scaled; how often they remember, and whether they are right.
//!
//! Never trusts the example with what is right: a twin that remembers nothing is asked the same.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use crate::built::Built;
use crate::child::Child;
use crate::cluster::Context;
use crate::objects::{Resource, read_yaml};
use crate::process::{Build, Ringmaster};
use crate::replicas::slice;
use crate::scrape::free_port;
use crate::server;
use crate::suites::scene::{LATER, SOON};
use crate::wait;

const PARENTS: usize = 400;
const CONNECTIONS: usize = 16;
/// What is good enough for a webhook that remembers.
const HIT_RATE: f64 = 0.9;
const MOST: usize = 5;

/// A Python that runs the example.
pub(super) fn python() -> anyhow::Result<Built> {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    Ok(if found { Built::Found(PathBuf::from("python3")) } else { Built::Unavailable("no python3".to_owned()) })
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("webhooks-examples/python/counter")
}

/// Replicas of the example, and a twin of them without a memory.
struct Cast {
    ctx: Context,
    ports: Vec<u16>,
    running: Vec<Option<Child>>,
    twin: Option<Child>,
    twin_port: u16,
    log: PathBuf,
}

impl Cast {
    fn new(ctx: Context) -> anyhow::Result<Self> {
        let ports: anyhow::Result<Vec<u16>> = (0..MOST).map(|_| free_port()).collect();
        let (log, twin_port) = (ctx.log_file("counter"), free_port()?);
        Ok(Self { ctx, ports: ports?, running: (0..MOST).map(|_| None).collect(), twin: None, twin_port, log })
    }

    async fn process(&self, name: &str, port: u16, more: &[&str]) -> anyhow::Result<Child> {
        let mut args = vec![example().join("hook.py").display().to_string(), format!("--listen=127.0.0.1:{port}")];
        args.extend(more.iter().map(|word| (*word).to_owned()));
        let mut child = Child::start(name, Path::new("python3"), &args, &self.log, |_| {})?;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        self.ctx
            .wait(&format!("{name} listens"), SOON, async || {
                child.check()?;
                tokio::net::TcpStream::connect(address).await.context("it doesn't")?;
                Ok(())
            })
            .await?;
        Ok(child)
    }

    /// So many replicas run from now on, and are published.
    async fn scale(&mut self, count: usize) -> anyhow::Result<()> {
        for number in 0..count {
            if self.running[number].is_none() {
                self.running[number] = Some(self.process("counter", self.ports[number], &[]).await?);
            }
        }
        self.publish(count).await?;
        let gone: Vec<Child> = self.running[count..].iter_mut().filter_map(Option::take).collect();
        if !gone.is_empty() {
            // What preStop is for: nobody calls those that go any more, before they go.
            let quiet = async || {
                let before = self.lookups(count..MOST);
                let same = async || {
                    ensure!(self.lookups(count..MOST) == before, "they are");
                    Ok(())
                };
                wait::stays("those that go aren't called", Duration::from_millis(700), same).await
            };
            self.ctx.wait("nobody calls those that go", SOON, quiet).await?;
        }
        for mut child in gone {
            let ended = tokio::task::spawn_blocking(move || child.stop(Duration::from_secs(10))).await??;
            ensure!(ended.1, "a replica didn't end by itself");
        }
        Ok(())
    }

    async fn publish(&self, count: usize) -> anyhow::Result<()> {
        let ready = (0..count).map(|number| format!("10.78.0.{}", number + 1)).collect();
        let slice = slice((&self.ctx.namespace, "counter"), ready, Vec::new());
        self.ctx.admin.apply(&slice).await.map(drop)
    }

    /// What a replica says of its memory.
    fn stats(&self, port: u16) -> Option<Value> {
        let url = format!("http://127.0.0.1:{port}/stats");
        let output = Command::new("curl").args(["-fsS", "--max-time", "5", &url]).output().ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// Lookups of those that run, and how many of them were found.
    fn counts(&self) -> (f64, f64) {
        let stats = self.ports.iter().zip(&self.running).filter(|(_, child)| child.is_some());
        let stats: Vec<Value> = stats.filter_map(|(port, _)| self.stats(*port)).collect();
        let sum = |name: &str| stats.iter().filter_map(|stats| stats[name].as_f64()).sum::<f64>();
        (sum("hits") + sum("misses"), sum("hits"))
    }

    fn lookups(&self, numbers: std::ops::Range<usize>) -> u64 {
        let stats = self.ports[numbers].iter().filter_map(|port| self.stats(*port));
        stats.map(|stats| stats["hits"].as_u64().unwrap_or(0) + stats["misses"].as_u64().unwrap_or(0)).sum()
    }

    /// The hit rate over so many further lookups.
    async fn rate(&self, lookups: usize) -> anyhow::Result<f64> {
        let (before, found) = self.counts();
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let lookups = lookups as f64;
        let more = async || {
            let (all, hits) = self.counts();
            ensure!(all - before >= lookups, "{} more lookups", all - before);
            Ok((hits - found) / (all - before))
        };
        self.ctx.wait("lookups", LATER, more).await
    }

    /// Asks the twin what each object's status is, and compares; only what the hook has seen in its present form.
    async fn compare(&self, counters: &Resource) -> anyhow::Result<usize> {
        let objects = self.ctx.admin.list(counters, "").await?;
        let current = objects.iter().filter(|object| {
            let (status, metadata) = (&object["status"], &object["metadata"]);
            status["phase"] == "Ready" && status["observedGeneration"] == metadata["generation"]
        });
        let current: Vec<&Value> = current.collect();
        for object in &current {
            let key =
                format!("{}/{}-counts", self.ctx.namespace, object["metadata"]["name"].as_str().unwrap_or_default());
            let child = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": key } });
            let request = json!({ "parent": object, "children": { "ConfigMap.v1": { key: child } }, "related": {},
                "finalizing": false, "controller": {} });
            let answer = self.ask_twin(&request)?;
            let mut status = object["status"].clone();
            status.as_object_mut().context("no status")?.remove("observedGeneration");
            ensure!(
                answer["status"] == status,
                "{}: {status} instead of {}",
                object["metadata"]["name"],
                answer["status"]
            );
        }
        Ok(current.len())
    }

    fn ask_twin(&self, request: &Value) -> anyhow::Result<Value> {
        use std::io::Write as _;
        let url = format!("http://127.0.0.1:{}/sync", self.twin_port);
        let mut curl = Command::new("curl");
        curl.args(["-fsS", "--max-time", "5", "-H", "Content-Type: application/json", "--data-binary", "@-", &url]);
        let mut curl = curl.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped()).spawn()?;
        curl.stdin.take().context("no stdin")?.write_all(request.to_string().as_bytes())?;
        let output = curl.wait_with_output()?;
        ensure!(output.status.success(), "the twin: {}", output.status);
        Ok(serde_json::from_slice(&output.stdout)?)
    }
}

fn text(number: usize, round: usize) -> String {
    let words = (0..40).map(|word| format!("word{}", (word * (number + 3) + round) % 17));
    words.collect::<Vec<_>>().join(" ")
}

pub(super) async fn remembers(ctx: Context) -> anyhow::Result<()> {
    let group = ctx.group();
    let (counters, maps) = counters(&ctx, &group).await?;
    let mut cast = Cast::new(ctx)?;
    cast.twin = Some(cast.process("twin", cast.twin_port, &["--cache-objects=0"]).await?);
    let service = json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "counter", "namespace": cast.ctx.namespace },
        "spec": { "ports": [{ "name": "http", "port": 80 }] } });
    cast.ctx.admin.apply(&service).await?;
    cast.ctx.grant(&Context::rules_for(&[&counters, &maps])).await?;
    let flag = |(number, port): (usize, &u16)| format!("--hook-resolve=10.78.0.{}:8080=127.0.0.1:{port}", number + 1);
    let flags: Vec<String> = cast.ports.iter().enumerate().map(flag).collect();
    let _ringmaster = flags.into_iter().fold(Ringmaster::build(&cast.ctx), Build::arg).start()?;
    cast.scale(3).await?;
    // As the example ships it, but for the group of its kind and the namespace of its Service.
    let shipped = read_yaml(&example().join("manifests/controller.yaml"))?;
    let mut spec = shipped[0]["spec"].clone();
    spec["parentResource"]["apiVersion"] = json!(counters.api_version);
    spec["hooks"]["sync"]["webhook"]["service"]["namespace"] = json!(cast.ctx.namespace);
    spec["resyncPeriodSeconds"] = json!(2);
    cast.ctx.controller("counter", spec).await?;
    let create = |number: usize| {
        let body = json!({ "metadata": { "name": format!("c{number}") }, "spec": { "text": text(number, 0) } });
        let (admin, counters) = (&cast.ctx.admin, &counters);
        async move { admin.create(counters, body).await.map(drop) }
    };
    stream::iter(0..PARENTS).map(create).buffer_unordered(CONNECTIONS).try_collect::<()>().await?;
    let ready = async || {
        let seen = cast.compare(&counters).await?;
        ensure!(seen == PARENTS, "{seen} are counted");
        Ok(())
    };
    cast.ctx.wait("all are counted, and rightly", LATER, ready).await?;
    let mut rates = vec![cast.rate(3 * PARENTS).await?];
    for (round, count) in [5, 2, 4].into_iter().enumerate() {
        cast.scale(count).await?;
        // Some change meanwhile.
        for number in (0..PARENTS).step_by(10) {
            let patch = json!({ "spec": { "text": text(number, round + 1) } });
            cast.ctx.admin.patch_merge(&counters, &format!("c{number}"), &patch).await?;
        }
        let moved = cast.rate(PARENTS).await?;
        cast.compare(&counters).await?;
        let steady = cast.rate(3 * PARENTS).await?;
        rates.extend([moved, steady]);
    }
    let right = async || {
        let seen = cast.compare(&counters).await?;
        ensure!(seen == PARENTS, "{seen} are counted");
        Ok(())
    };
    cast.ctx.wait("all are right in the end", LATER, right).await?;
    println!("webhooks counter: hit rates at 3, then after and with 5, 2 and 4 replicas: {rates:.3?}");
    for steady in rates.iter().step_by(2) {
        ensure!(*steady > HIT_RATE, "{rates:?}");
    }
    Ok(())
}

/// The example's CRD under the trial's group.
async fn counters(ctx: &Context, group: &str) -> anyhow::Result<(Resource, Resource)> {
    let mut crd = read_yaml(&example().join("manifests/crds.yaml"))?.remove(0);
    crd["metadata"]["name"] = json!(format!("counters.{group}"));
    crd["metadata"]["labels"] = json!({ "suite": ctx.id });
    crd["spec"]["group"] = json!(group);
    let applied = ctx.admin.apply(&crd).await?;
    server::served(&ctx.admin, &applied).await?;
    let counters = ctx.namespaced(&format!("{group}/v1"), "Counter", "counters");
    Ok((counters, ctx.configmaps()))
}
