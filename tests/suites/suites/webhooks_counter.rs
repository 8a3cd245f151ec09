//! The Counter example under Ringmaster: replicas that remember, and members that call them, both scaled; how often they
//! remember, and whether they are right.
//!
//! Never trusts the example with what is right: a twin that remembers nothing is asked the same. A memory that doesn't look
//! at the generation gives wrong counts, and one that doesn't look at the epoch remembers over a hand-over; both fail here.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use http::Method;
use serde_json::{Value, json};

use crate::built::Built;
use crate::child::Child;
use crate::cluster::Context;
use crate::members::stage::BALANCE;
use crate::members::table::Watcher;
use crate::objects::{Objects, Resource, read_yaml};
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
/// Of 400 parents, half move with their shards to a second member, give or take 10.
const HANDED_OVER: f64 = 150.0;

/// A Python that runs the example.
pub(super) fn python() -> anyhow::Result<Built> {
    let found = Command::new("python3").arg("--version").output().is_ok_and(|output| output.status.success());
    Ok(if found { Built::Found(PathBuf::from("python3")) } else { Built::Unavailable("no python3".to_owned()) })
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("webhooks-examples/python/counter")
}

/// Lookups in memories.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    hits: f64,
    misses: f64,
}

impl Counts {
    /// What replicas say of their memories.
    async fn of(doors: impl Iterator<Item = &Objects>) -> anyhow::Result<Self> {
        let mut all = Self::default();
        for door in doors {
            let stats = door.get_path("/stats").await?;
            let count = |name: &str| stats[name].as_f64().with_context(|| format!("no {name}: {stats}"));
            all = Self { hits: all.hits + count("hits")?, misses: all.misses + count("misses")? };
        }
        Ok(all)
    }

    fn lookups(&self) -> f64 {
        self.hits + self.misses
    }
}

/// Replicas of the example, and a twin of them without a memory.
struct Cast {
    ctx: Arc<Context>,
    ports: Vec<u16>,
    /// By HTTP, of each port.
    doors: Vec<Objects>,
    running: Vec<Option<Child>>,
    twin: Option<Child>,
    twin_port: u16,
    twin_door: Objects,
    log: PathBuf,
}

impl Cast {
    fn new(ctx: Arc<Context>) -> anyhow::Result<Self> {
        let ports: Vec<u16> = (0..MOST).map(|_| free_port()).collect::<anyhow::Result<_>>()?;
        let (log, twin_port) = (ctx.log_file("counter"), free_port()?);
        let door = |port: &u16| {
            let mut config = kube::Config::new(format!("http://127.0.0.1:{port}").parse()?);
            config.default_retry = false;
            anyhow::Ok(Objects::new(kube::Client::try_from(config)?))
        };
        let doors = ports.iter().map(door).collect::<anyhow::Result<_>>()?;
        let (running, twin_door) = ((0..MOST).map(|_| None).collect(), door(&twin_port)?);
        Ok(Self { ctx, ports, doors, running, twin: None, twin_port, twin_door, log })
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
        let going = self.doors.iter().zip(&mut self.running).skip(count);
        let gone: Vec<(&Objects, Child)> = going.filter_map(|(door, child)| Some((door, child.take()?))).collect();
        if !gone.is_empty() {
            // What preStop is for: nobody calls those that go any more, before they go.
            let lookups = async || anyhow::Ok(Counts::of(gone.iter().map(|(door, _)| *door)).await?.lookups());
            let quiet = async || {
                let before: f64 = lookups().await?;
                let same = async || {
                    ensure!(lookups().await? <= before, "they are");
                    Ok(())
                };
                wait::stays("those that go aren't called", Duration::from_millis(700), same).await
            };
            self.ctx.wait("nobody calls those that go", SOON, quiet).await?;
        }
        for (_, mut child) in gone {
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

    /// Of those that run.
    async fn counts(&self) -> anyhow::Result<Counts> {
        let running = self.doors.iter().zip(&self.running).filter(|(_, child)| child.is_some());
        Counts::of(running.map(|(door, _)| door)).await
    }

    /// What they looked up since then, once that is so much.
    async fn since(&self, before: Counts, lookups: usize) -> anyhow::Result<Counts> {
        #[expect(clippy::cast_precision_loss, reason = "small")]
        let lookups = lookups as f64;
        let more = async || {
            let now = self.counts().await?;
            let more = Counts { hits: now.hits - before.hits, misses: now.misses - before.misses };
            ensure!(more.lookups() >= lookups, "{} more lookups", more.lookups());
            Ok(more)
        };
        self.ctx.wait("lookups", LATER, more).await
    }

    /// The hit rate over so many further lookups.
    async fn rate(&self, lookups: usize) -> anyhow::Result<f64> {
        let more = self.since(self.counts().await?, lookups).await?;
        Ok(more.hits / more.lookups())
    }

    /// Asks the twin what each object's status and its child are, and compares; only what the hook has seen in its present
    /// form. Answers with how many those are.
    async fn compare(&self, (counters, maps): (&Resource, &Resource)) -> anyhow::Result<usize> {
        let objects = self.ctx.admin.list(counters, "").await?;
        // After the objects: a child is written before the status that tells of it.
        let maps = self.ctx.admin.list(maps, "").await?;
        let maps: HashMap<&str, &Value> =
            maps.iter().filter_map(|map| Some((map["metadata"]["name"].as_str()?, &map["data"]))).collect();
        let current = objects.iter().filter(|object| {
            let (status, metadata) = (&object["status"], &object["metadata"]);
            status["phase"] == "Ready" && status["observedGeneration"] == metadata["generation"]
        });
        let current: Vec<&Value> = current.collect();
        for object in &current {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            let child = format!("{name}-counts");
            let key = format!("{}/{child}", self.ctx.namespace);
            let there = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": key } });
            let request = json!({ "parent": object, "children": { "ConfigMap.v1": { key: there } }, "related": {},
                "finalizing": false, "controller": {} });
            let answer = self.twin_door.send(Method::POST, "/sync", "application/json", Some(&request)).await?;
            let mut status = object["status"].clone();
            status.as_object_mut().context("no status")?.remove("observedGeneration");
            ensure!(answer["status"] == status, "{name}: {status} instead of {}", answer["status"]);
            let (data, wanted) = (maps.get(child.as_str()), &answer["children"][0]["data"]);
            ensure!(data.is_some_and(|data| *data == wanted), "{child}: {data:?} instead of {wanted}");
        }
        Ok(current.len())
    }
}

fn text(number: usize, round: usize) -> String {
    let words = (0..40).map(|word| format!("word{}", (word * (number + 3) + round) % 17));
    words.collect::<Vec<_>>().join(" ")
}

/// The members of the trial's installation.
struct Members {
    ctx: Arc<Context>,
    flags: Vec<String>,
    table: Watcher,
}

impl Members {
    async fn new(cast: &Cast) -> anyhow::Result<Self> {
        let ctx = Arc::clone(&cast.ctx);
        let flag =
            |(number, port): (usize, &u16)| format!("--hook-resolve=10.78.0.{}:8080=127.0.0.1:{port}", number + 1);
        let flags = cast.ports.iter().enumerate().map(flag).collect();
        let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
        let own = ctx.admin.get(&namespaces, &ctx.namespace).await?;
        let installation = own["metadata"]["uid"].as_str().context("a namespace without a uid")?;
        let table = Watcher::start(ctx.server.admin()?, installation.to_owned());
        Ok(Self { ctx, flags, table })
    }

    /// One more.
    fn start(&self, name: &str) -> anyhow::Result<Ringmaster> {
        let build = Ringmaster::build(&self.ctx)
            .arg(format!("--member-name={name}"))
            .arg(format!("--lease-namespace={}", self.ctx.namespace));
        self.flags.iter().fold(build, Build::arg).start()
    }

    /// Waits until so many have the same number of shards each.
    async fn share(&self, count: usize) -> anyhow::Result<()> {
        let ask = async || {
            let shares = self.table.table()?.counts();
            let (least, most) = (shares.values().min().copied(), shares.values().max().copied());
            ensure!(shares.len() == count && most <= least.map(|least| least + 1), "{shares:?}");
            Ok(())
        };
        self.ctx.wait(&format!("{count} members share the shards"), BALANCE, ask).await
    }
}

pub(super) async fn remembers(ctx: Context) -> anyhow::Result<()> {
    let group = ctx.group();
    let kinds = counters(&ctx, &group).await?;
    let (counters, maps) = &kinds;
    let mut cast = Cast::new(Arc::new(ctx))?;
    cast.twin = Some(cast.process("twin", cast.twin_port, &["--cache-objects=0"]).await?);
    let service = json!({ "apiVersion": "v1", "kind": "Service",
        "metadata": { "name": "counter", "namespace": cast.ctx.namespace },
        "spec": { "ports": [{ "name": "http", "port": 80 }] } });
    cast.ctx.admin.apply(&service).await?;
    cast.ctx.grant(&Context::rules_for(&[counters, maps])).await?;
    let members = Members::new(&cast).await?;
    let first = members.start("m1")?;
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
        let admin = &cast.ctx.admin;
        async move { admin.create(counters, body).await.map(drop) }
    };
    stream::iter(0..PARENTS).map(create).buffer_unordered(CONNECTIONS).try_collect::<()>().await?;
    all_right(&cast, (counters, maps)).await?;
    let mut steady = vec![cast.rate(2 * PARENTS).await?];

    // Replicas come.
    cast.scale(5).await?;
    let mut moved = vec![changed(&cast, (counters, maps), 1).await?];
    steady.push(cast.rate(2 * PARENTS).await?);
    // A member comes: half of the parents are handed over, which raises their epoch. What replicas remember of them was for
    // another epoch, although each stays at its replica.
    members.share(1).await?;
    let before = cast.counts().await?;
    let second = members.start("m2")?;
    members.share(2).await?;
    let at = cast.counts().await?;
    let handed = cast.since(at, 2 * PARENTS).await?;
    let forgotten = handed.misses + at.misses - before.misses;
    cast.compare((counters, maps)).await?;
    steady.push(cast.rate(2 * PARENTS).await?);
    // Both at once: three replicas go, and so does a member.
    let (ended, scaled) = tokio::join!(first.stop(), cast.scale(2));
    ensure!(ended?.success(), "a member failed");
    scaled?;
    moved.push(changed(&cast, (counters, maps), 2).await?);
    members.share(1).await?;
    steady.push(cast.rate(2 * PARENTS).await?);
    cast.scale(4).await?;
    moved.push(changed(&cast, (counters, maps), 3).await?);
    steady.push(cast.rate(2 * PARENTS).await?);
    all_right(&cast, (counters, maps)).await?;
    second.check()?;
    println!(
        "webhooks counter: hit rates with 3 and 5 replicas and one member, 5 and two members, 2 and 4 and one member: \
         {steady:.3?}; as replicas came, replicas and a member went, replicas came: {moved:.3?}; {forgotten} forgotten as \
         a member came"
    );
    ensure!(steady.iter().all(|rate| *rate > HIT_RATE), "{steady:?}");
    ensure!(forgotten >= HANDED_OVER, "{forgotten} lookups failed as half of the epochs rose: is the epoch looked at?");
    Ok(())
}

/// Waits until all are counted, and rightly.
async fn all_right(cast: &Cast, kinds: (&Resource, &Resource)) -> anyhow::Result<()> {
    let ready = async || {
        // What is wrong now isn't right because it is mended later.
        let seen = match cast.compare(kinds).await {
            Ok(seen) => seen,
            Err(wrong) => return Ok(Err(wrong)),
        };
        ensure!(seen == PARENTS, "{seen} are counted");
        Ok(Ok(()))
    };
    cast.ctx.wait("all are counted", LATER, ready).await?
}

/// Some change, after something moved; all that is seen is right. Answers with the hit rate meanwhile.
async fn changed(cast: &Cast, kinds: (&Resource, &Resource), round: usize) -> anyhow::Result<f64> {
    for number in (0..PARENTS).step_by(10) {
        let patch = json!({ "spec": { "text": text(number, round) } });
        cast.ctx.admin.patch_merge(kinds.0, &format!("c{number}"), &patch).await?;
    }
    let rate = cast.rate(PARENTS).await?;
    cast.compare(kinds).await?;
    Ok(rate)
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
