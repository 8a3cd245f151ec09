//! Other people's watchers stay correct through faults: kube-rs's `watcher` and client-go's `Reflector`, each listing
//! and streaming its initial objects, behind a proxy that cuts connections and forgets versions.
//!
//! The embedded server remembers little here, so that some of its watches are too old in truth; the real one is told to
//! forget by the proxy alone, as its watch cache can't be emptied from outside.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{Stream, StreamExt as _};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use kube_runtime::watcher::{self, Event};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::built::{self, Built};
use crate::child::Child;
use crate::cluster::Context;
use crate::faults::{self, Fault, Faults, Pace, Plan, Seen};
use crate::objects::{Objects, Resource};
use crate::trial::Case;

/// Writes, each of which is an event.
const EVENTS: u64 = 5_000;
/// Objects that are written.
const OBJECTS: usize = 300;
/// Who writes at once, each its own part of the objects.
const WRITERS: usize = 4;
/// Events that the embedded server remembers.
const REMEMBERED: usize = 48;
/// One round of faults. The last is the rarest, for what passes meanwhile is only seen in lists.
const ROUND: [Fault; 11] = {
    use Fault::{Cut, CutInLine, Gone, GoneInStream, Late, Starved};
    [Cut, CutInLine, Late, Gone, GoneInStream, Cut, CutInLine, Late, Gone, GoneInStream, Starved]
};
/// How often each fault must have happened.
const FAULTS: usize = 20;
/// How often the rare one must have.
const RARE: usize = 8;
/// How often the embedded server must have been asked for what it no longer had.
const TRUE_GONE: usize = 5;
/// Of the plan and the writers.
const SEED: u64 = 20;
/// Objects in a page of kube-rs's list.
const PAGE: u32 = 100;
/// Between an error of kube-rs's watcher and its next attempt.
const PAUSE: Duration = Duration::from_millis(20);
/// How long the mirror may take to see the marker: a bound for a hang.
const SOON: Duration = Duration::from_secs(60);
/// For one trial.
const TIMEOUT: Duration = Duration::from_secs(300);
/// The object after which nothing follows.
const MARKER: &str = "marker";

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.embedded_remembers(REMEMBERED).timeout(TIMEOUT);
    vec![
        Case::new("watchers", "meet_the_faults_that_are_planned", planned),
        case(Case::new("watchers", "kube_rs", |ctx| kube_rs(ctx, false))),
        case(Case::new("watchers", "kube_rs_streaming", |ctx| kube_rs(ctx, true))),
        case(Case::new("watchers", "client_go", |ctx| client_go(ctx, false)).needs(reflector)),
        case(Case::new("watchers", "client_go_streaming", |ctx| client_go(ctx, true)).needs(reflector)),
    ]
}

/// What the proxy does, byte by byte; no client library is between.
async fn planned(ctx: Context) -> anyhow::Result<()> {
    let configmaps = ctx.configmaps();
    let path = format!("{}?watch=true", configmaps.path());
    for fault in [Fault::Cut, Fault::CutInLine, Fault::Gone, Fault::GoneInStream] {
        let pace = Pace::new(EVENTS);
        let faults = Faults::start(&ctx.admin, &pace, None, Plan::of(&[fault], SEED)).await?;
        let writer = tokio::spawn(write(ctx.admin.clone(), configmaps.clone(), Arc::clone(&pace), 0));
        let mut stream = TcpStream::connect(faults.address()).await?;
        stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: proxy\r\nconnection: close\r\n\r\n").as_bytes()).await?;
        let mut answer = String::new();
        tokio::time::timeout(SOON, stream.read_to_string(&mut answer))
            .await
            .with_context(|| format!("{fault:?}"))??;
        writer.abort();
        let (head, body) = answer.split_once("\r\n\r\n").context("no end of the head")?;
        let ended = body.ends_with("\r\n0\r\n\r\n");
        // Every line is a chunk of its own: its size, then itself.
        let lines: Vec<&str> = body.lines().filter(|line| line.starts_with('{')).collect();
        let last: Result<Value, _> = serde_json::from_str(lines.last().context("no line")?);
        let gone = last.as_ref().is_ok_and(|last| last["code"] == 410 && last["reason"] == "Expired");
        let told = last.as_ref().is_ok_and(|last| last["type"] == "ERROR" && last["object"]["code"] == 410);
        let whole = head.starts_with("HTTP/1.1 200") && lines.len() > 1;
        let right = match fault {
            Fault::CutInLine => whole && !ended && last.is_err(),
            Fault::Gone => head.starts_with("HTTP/1.1 410") && gone,
            Fault::GoneInStream => whole && ended && told,
            _ => whole && !ended && last.is_ok(),
        };
        ensure!(right, "{fault:?}: {answer}");
        ensure!(faults.seen().faults == BTreeMap::from([(fault, 1)]), "{:?}", faults.seen());
        ctx.admin.delete_all(&configmaps, "").await?;
    }
    Ok(())
}

/// An object by its name: its version and its data.
type State = BTreeMap<String, (String, Value)>;

async fn kube_rs(ctx: Context, streaming: bool) -> anyhow::Result<()> {
    let mut load = Load::start(&ctx).await?;
    let client = kube::Client::try_from(kube::Config::new(load.faults.url().parse()?))?;
    let config = watcher::Config::default().page_size(PAGE);
    let config = if streaming { config.streaming_lists() } else { config };
    let events = watcher::watcher(Api::<ConfigMap>::namespaced(client, &ctx.namespace), config);
    let mirror = tokio::spawn(mirror(events));
    let seen = load.finish(&ctx).await?;
    let mirror = tokio::time::timeout(SOON, mirror).await.context("the watcher doesn't see the marker")???;
    right(&ctx, &mirror.objects, &mirror.backward).await?;
    faulty(&ctx, &seen, streaming)?;
    let Mirror { gone, gone_in_stream, .. } = mirror;
    ensure!(gone >= FAULTS && gone_in_stream >= FAULTS, "the watcher saw {gone} and {gone_in_stream}: {seen:?}");
    Ok(())
}

/// What kube-rs's watcher told.
#[derive(Default)]
struct Mirror {
    objects: State,
    /// A list that isn't complete yet.
    listed: State,
    newest: HashMap<String, u64>,
    /// Events and list items that were older than what had been seen of their object.
    backward: Vec<String>,
    /// Watches refused with 410, and ended by an event that says so.
    gone: usize,
    gone_in_stream: usize,
}

/// Follows a watcher until the marker is there.
async fn mirror(events: impl Stream<Item = watcher::Result<Event<ConfigMap>>>) -> anyhow::Result<Mirror> {
    let mut events = std::pin::pin!(events);
    let mut mirror = Mirror::default();
    while let Some(event) = events.next().await {
        match event {
            Ok(event) => mirror.take(event)?,
            Err(error) => {
                mirror.gone += usize::from(
                    matches!(&error, watcher::Error::WatchStartFailed(kube::Error::Api(status)) if status.code == 410),
                );
                mirror.gone_in_stream +=
                    usize::from(matches!(&error, watcher::Error::WatchError(status) if status.code == 410));
                tokio::time::sleep(PAUSE).await;
            }
        }
        if mirror.objects.contains_key(MARKER) {
            return Ok(mirror);
        }
    }
    anyhow::bail!("the watcher ended")
}

impl Mirror {
    fn take(&mut self, event: Event<ConfigMap>) -> anyhow::Result<()> {
        match event {
            Event::Apply(object) => {
                let (name, state) = self.see(object, false)?;
                self.objects.insert(name, state);
            }
            Event::Delete(object) => {
                let (name, _) = self.see(object, false)?;
                self.objects.remove(&name);
            }
            Event::Init => self.listed.clear(),
            Event::InitApply(object) => {
                let (name, state) = self.see(object, true)?;
                self.listed.insert(name, state);
            }
            Event::InitDone => self.objects = std::mem::take(&mut self.listed),
        }
        Ok(())
    }

    /// A list may show again what was seen, an event may not.
    fn see(&mut self, object: ConfigMap, listed: bool) -> anyhow::Result<(String, (String, Value))> {
        let name = object.metadata.name.context("no name")?;
        let version = object.metadata.resource_version.context("no resourceVersion")?;
        let (number, newest) = (version.parse::<u64>()?, self.newest.entry(name.clone()).or_default());
        if number < *newest || (number == *newest && !listed) {
            self.backward.push(format!("{name}: {version} after {newest}"));
        }
        *newest = number.max(*newest);
        Ok((name, (version, json!(object.data))))
    }
}

async fn client_go(ctx: Context, streaming: bool) -> anyhow::Result<()> {
    let Built::Found(program) = reflector()? else { anyhow::bail!("the reflector was there a moment ago") };
    let mut load = Load::start(&ctx).await?;
    let log = ctx.log_file("reflector");
    let kubeconfig = log.with_extension("kubeconfig");
    std::fs::write(&kubeconfig, faults::kubeconfig(&load.faults.url()).to_string())?;
    let args = [kubeconfig.display().to_string(), ctx.namespace.clone()];
    let mut child = Child::start("reflector", &program, &args, &log, |command| {
        command.env("KUBE_FEATURE_WatchListClient", streaming.to_string());
    })?;
    let seen = load.finish(&ctx).await?;
    let line = ctx.wait("the reflector sees the marker", SOON, async || {
        if let Err(ended) = child.check() {
            return Ok(Err(ended));
        }
        let text = std::fs::read_to_string(&log)?;
        let line = text.lines().find(|line| line.starts_with(r#"{"objects""#) && line.ends_with('}'));
        Ok(Ok(line.context("no report")?.to_owned()))
    });
    let report: Value = serde_json::from_str(&line.await??)?;
    child.kill()?;
    let objects = report["objects"].as_object().context("no objects")?.iter();
    let objects = objects.map(|(name, object)| {
        let version = object["resourceVersion"].as_str().unwrap_or_default().to_owned();
        (name.clone(), (version, object["data"].clone()))
    });
    let backward: Vec<String> = serde_json::from_value(report["backward"].clone())?;
    right(&ctx, &objects.collect(), &backward).await?;
    faulty(&ctx, &seen, streaming)?;
    let [gone, gone_in_stream, streams, lists] =
        ["gone", "goneInStream", "streams", "lists"].map(|count| report[count].as_u64().unwrap_or_default() as usize);
    ensure!(gone >= FAULTS && gone_in_stream >= FAULTS, "the reflector saw {gone} and {gone_in_stream}: {seen:?}");
    ensure!(if streaming { streams >= FAULTS } else { lists >= FAULTS }, "{streams} streams, {lists} lists");
    Ok(())
}

/// The program in tests/reflector.
fn reflector() -> anyhow::Result<Built> {
    built::by("tests/reflector/build", "no client-go reflector: install Go (see tests/reflector/build)", None)
}

/// Writers at the server, and the proxy that sets their pace.
struct Load {
    faults: Faults,
    writers: Vec<tokio::task::JoinHandle<anyhow::Result<()>>>,
}

impl Load {
    async fn start(ctx: &Context) -> anyhow::Result<Self> {
        let pace = Pace::new(EVENTS);
        let faults = Faults::start(&ctx.admin, &pace, ctx.server.remembered(), Plan::of(&ROUND, SEED)).await?;
        let writer = |number| tokio::spawn(write(ctx.admin.clone(), ctx.configmaps(), Arc::clone(&pace), number));
        let writers = (0..WRITERS).map(writer).collect();
        Ok(Self { faults, writers })
    }

    /// Waits for the writers, ends the faults, makes the marker; says what the proxy did until then.
    async fn finish(&mut self, ctx: &Context) -> anyhow::Result<Seen> {
        for writer in std::mem::take(&mut self.writers) {
            writer.await??;
        }
        self.faults.calm();
        let seen = self.faults.seen();
        ctx.admin.create(&ctx.configmaps(), json!({ "metadata": { "name": MARKER } })).await?;
        Ok(seen)
    }
}

/// Creates, changes and deletes objects of its own until the pace ends.
async fn write(objects: Objects, resource: Resource, pace: Arc<Pace>, writer: usize) -> anyhow::Result<()> {
    let mut random = fastrand::Rng::with_seed(SEED + writer as u64);
    let mut there = [false; OBJECTS / WRITERS];
    while let Some(number) = pace.turn().await {
        let index = random.usize(..there.len());
        let name = format!("w{writer}-{index:02}");
        let body = json!({ "metadata": { "name": name }, "data": { "number": number.to_string() } });
        // Of what is there, a fifth of the writes are deletions.
        let change = if there[index] { random.u8(1..=10) } else { 0 };
        match change {
            0 => drop(objects.create(&resource, body).await?),
            1..=2 => ensure!(objects.delete(&resource, &name).await?, "{name} was gone"),
            3..=6 => drop(objects.replace(&resource, &name, &body).await?),
            _ => drop(objects.patch_merge(&resource, &name, &body).await?),
        }
        there[index] = !(1..=2).contains(&change);
        pace.wrote();
    }
    Ok(())
}

/// The mirror is what the server has, and never went back.
async fn right(ctx: &Context, objects: &State, backward: &[String]) -> anyhow::Result<()> {
    ensure!(backward.is_empty(), "went back: {backward:?}");
    let listed = ctx.admin.list(&ctx.configmaps(), "").await?;
    let listed: State = listed
        .into_iter()
        .map(|mut object| {
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            (text("name"), (text("resourceVersion"), object["data"].take()))
        })
        .collect();
    for (name, state) in &listed {
        ensure!(objects.get(name) == Some(state), "{name}: {:?} in the mirror, {state:?} in truth", objects.get(name));
    }
    let extra: Vec<&String> = objects.keys().filter(|name| !listed.contains_key(*name)).collect();
    ensure!(extra.is_empty(), "deleted, but in the mirror: {extra:?}");
    ensure!(listed.len() > OBJECTS / 2, "only {} objects are left", listed.len());
    Ok(())
}

/// The faults did happen.
fn faulty(ctx: &Context, seen: &Seen, streaming: bool) -> anyhow::Result<()> {
    for fault in ROUND {
        let count = seen.faults.get(&fault).copied().unwrap_or_default();
        ensure!(count >= if fault == Fault::Starved { RARE } else { FAULTS }, "{fault:?} came {count} times: {seen:?}");
    }
    ensure!(seen.lines as u64 > EVENTS / 2, "most events were only seen in lists: {seen:?}");
    ensure!(ctx.server.remembered().is_none() || seen.true_gone >= TRUE_GONE, "{} true 410s", seen.true_gone);
    ensure!(streaming == (seen.streams > 0), "{} streamed lists", seen.streams);
    Ok(())
}
