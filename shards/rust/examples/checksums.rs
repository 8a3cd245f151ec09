//! A shard of Secrets: for each one that is its own, a ConfigMap `checksums-<name>` with the SHA-256 of its values.
//!
//! It shows what a sharded controller needs, and logs what it does as lines of JSON on stdout, which the suites check. Never
//! writes what is already so.

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Parser, ValueEnum};
use futures::future::{BoxFuture, Shared};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::api::PostParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Resource};
use kube_runtime::Config;
use kube_runtime::controller::{Action, Controller};
use kube_runtime::reflector::{self, ObjectRef, Store};
use ringmaster_shard::{
    Acknowledged, CONTROLLER_SHARDING_RING, Lost, Options, RINGMASTER_RING, RunError, Shard, Terms,
};
use serde_json::{Map, Value, json};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Secrets that are worked on at once.
const CONCURRENCY: u16 = 16;
/// What failed is tried again after this long.
const RETRY_AFTER: Duration = Duration::from_millis(500);
/// How long what runs may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Checksums of Secrets, as a shard of a ring.
#[derive(Parser)]
struct Arguments {
    /// The ring.
    #[arg(long)]
    ring: String,
    /// The shard's name; by default the host's.
    #[arg(long)]
    name: Option<String>,
    /// The Lease's namespace; by default the pod's.
    #[arg(long)]
    namespace: Option<String>,
    /// Whose names of labels.
    #[arg(long, value_enum, default_value = "ringmaster")]
    dialect: Dialect,
    /// For how long others wait before they take the Lease.
    #[arg(long, value_parser = duration, default_value = "15s")]
    lease_duration: Duration,
    /// For how long the shard works after its last renewal.
    #[arg(long, value_parser = duration, default_value = "10s")]
    renew_deadline: Duration,
    /// How often it renews.
    #[arg(long, value_parser = duration, default_value = "2s")]
    retry_period: Duration,
    /// How to reach the cluster; by default $KUBECONFIG, or the pod's service account.
    #[arg(long)]
    kubeconfig: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Dialect {
    Ringmaster,
    ControllerSharding,
}

/// Whole seconds or milliseconds, with `s` or `ms`.
fn duration(text: &str) -> Result<Duration, String> {
    let parse = |number: &str, of: fn(u64) -> Duration| number.parse().ok().map(of);
    let parsed = match text.strip_suffix("ms") {
        Some(number) => parse(number, Duration::from_millis),
        None => text.strip_suffix('s').and_then(|number| parse(number, Duration::from_secs)),
    };
    parsed.ok_or_else(|| "give a whole number with s or ms, such as 15s".to_owned())
}

/// What happened, on stdout.
struct Log {
    shard: String,
}

impl Log {
    #[expect(clippy::disallowed_methods, reason = "for whoever reads the log; nothing is due by it")]
    fn line(&self, event: &str, fields: Value) {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let mut line = Map::new();
        line.insert("ts".to_owned(), json!(u64::try_from(since.as_micros()).unwrap_or(u64::MAX)));
        line.insert("shard".to_owned(), json!(self.shard));
        line.insert("event".to_owned(), json!(event));
        if let Value::Object(fields) = fields {
            line.extend(fields);
        }
        let mut text = Value::Object(line).to_string();
        text.push('\n');
        let mut stdout = std::io::stdout().lock();
        // Nobody reads any more: that is no reason to stop.
        let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
    }
}

/// What each run needs.
struct Context {
    /// The guarded one.
    client: kube::Client,
    /// What the shard has of ConfigMaps.
    config_maps: Store<ConfigMap>,
    /// Once all of them were listed. Shared, since of those who wait for the cache itself only the last is woken.
    listed: Shared<BoxFuture<'static, Result<(), String>>>,
    /// Of each child.
    labels: BTreeMap<String, String>,
    log: Arc<Log>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("the cache of ConfigMaps is gone: {0}")]
    Cache(String),
    #[error("get {name}: {error}")]
    Read {
        name: String,
        #[source]
        error: Box<kube::Error>,
    },
    #[error("{verb} {name}: {error}")]
    Write {
        verb: &'static str,
        name: String,
        #[source]
        error: Box<kube::Error>,
    },
}

/// What to do with the ConfigMap of a Secret.
#[derive(Debug)]
enum Change {
    Nothing,
    Create(Box<ConfigMap>),
    Update(Box<ConfigMap>),
}

/// The ConfigMap of a Secret, beside what the cache has of it.
fn plan(secret: &Secret, cached: Option<&ConfigMap>, labels: &BTreeMap<String, String>) -> Change {
    let (Some(name), Some(owner)) = (&secret.metadata.name, secret.controller_owner_ref(&())) else {
        return Change::Nothing;
    };
    if secret.metadata.deletion_timestamp.is_some() {
        return Change::Nothing;
    }
    let owner = OwnerReference { block_owner_deletion: Some(false), ..owner };
    let sums = secret.data.iter().flatten().map(|(key, value)| (key.clone(), sha256(&value.0)));
    let data = Some(sums.collect::<BTreeMap<String, String>>()).filter(|data| !data.is_empty());
    let Some(cached) = cached else {
        let metadata = ObjectMeta {
            name: Some(child_name(name)),
            namespace: secret.metadata.namespace.clone(),
            labels: Some(labels.clone()),
            owner_references: Some(vec![owner]),
            ..ObjectMeta::default()
        };
        return Change::Create(Box::new(ConfigMap { metadata, data, ..ConfigMap::default() }));
    };
    let mut wanted = cached.clone();
    wanted.data = data;
    wanted.metadata.labels.get_or_insert_default().extend(labels.clone());
    let owners = wanted.metadata.owner_references.get_or_insert_default();
    if !owners.contains(&owner) {
        owners.retain(|other| other.controller != Some(true) && other.uid != owner.uid);
        owners.push(owner);
    }
    if wanted == *cached { Change::Nothing } else { Change::Update(Box::new(wanted)) }
}

fn child_name(secret: &str) -> String {
    format!("checksums-{secret}")
}

fn sha256(value: &[u8]) -> String {
    let digest = ring::digest::digest(&ring::digest::SHA256, value);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn reconcile(secret: Arc<Secret>, context: Arc<Context>) -> Result<Action, Error> {
    let metadata = &secret.metadata;
    let (namespace, name) = (metadata.namespace.as_deref().unwrap_or_default(), metadata.name.as_deref());
    let name = name.unwrap_or_default();
    // Whoever isn't in it yet isn't absent.
    context.listed.clone().await.map_err(Error::Cache)?;
    let object = format!("{namespace}/{name}");
    context.log.line("begin", json!({"object": object}));
    let done = write(&secret, (namespace, name), &object, &context).await;
    context.log.line("end", json!({"object": object}));
    done.map(|()| Action::await_change())
}

async fn write(secret: &Secret, (namespace, name): (&str, &str), object: &str, context: &Context) -> Result<(), Error> {
    let child = child_name(name);
    let api = Api::<ConfigMap>::namespaced(context.client.clone(), namespace);
    let mut cached = context.config_maps.get(&ObjectRef::new(&child).within(namespace));
    if cached.is_none() {
        // Secrets and ConfigMaps come by two watches: one that was another shard's may be here before its ConfigMap.
        let live = api.get_opt(&child).await;
        let failed = |error| Error::Read { name: child.clone(), error: Box::new(error) };
        cached = live.map_err(failed)?.map(Arc::new);
    }
    let parameters = PostParams::default();
    let (verb, written) = match plan(secret, cached.as_deref(), &context.labels) {
        Change::Nothing => return Ok(()),
        Change::Create(wanted) => ("create", api.create(&parameters, &wanted).await),
        // Of the version that the cache has.
        Change::Update(wanted) => ("update", api.replace(&child, &parameters, &wanted).await),
    };
    match written {
        Ok(written) => {
            let version = written.metadata.resource_version.unwrap_or_default();
            context.log.line("wrote", json!({"object": object, "verb": verb, "name": child, "rv": version}));
            Ok(())
        }
        Err(error) => {
            let (code, reason) = match &error {
                kube::Error::Api(status) => (status.code, status.reason.clone()),
                other => (0, other.to_string()),
            };
            context.log.line("failed", json!({"object": object, "verb": verb, "code": code, "reason": reason}));
            Err(Error::Write { verb, name: child, error: Box::new(error) })
        }
    }
}

fn error_policy(_secret: Arc<Secret>, error: &RunError<Error>, _context: Arc<Context>) -> Action {
    match error {
        // The process ends.
        RunError::Refused(_) => Action::await_change(),
        RunError::Reconcile(_) | RunError::Acknowledge(_) => Action::requeue(RETRY_AFTER),
    }
}

/// What ends the process in order.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn configuration(kubeconfig: Option<&Path>) -> anyhow::Result<kube::Config> {
    let options = KubeConfigOptions::default();
    if let Some(path) = kubeconfig {
        let file = Kubeconfig::read_from(path).with_context(|| format!("--kubeconfig {}", path.display()))?;
        return kube::Config::from_custom_kubeconfig(file, &options).await.context("--kubeconfig");
    }
    if std::env::var_os("KUBECONFIG").is_some() {
        return kube::Config::from_kubeconfig(&options).await.context("$KUBECONFIG");
    }
    kube::Config::incluster().context("no cluster: give --kubeconfig, or run in a pod")
}

fn options(arguments: &Arguments) -> Options {
    Options {
        name: arguments.name.clone(),
        namespace: arguments.namespace.clone(),
        dialect: match arguments.dialect {
            Dialect::Ringmaster => &RINGMASTER_RING,
            Dialect::ControllerSharding => &CONTROLLER_SHARDING_RING,
        },
        terms: Terms {
            duration: arguments.lease_duration,
            renew_deadline: arguments.renew_deadline,
            retry_period: arguments.retry_period,
        },
        ..Options::new(&arguments.ring)
    }
}

/// The shard's name, for the log that its options write to.
fn shard_name(arguments: &Arguments) -> String {
    arguments.name.clone().unwrap_or_else(|| rustix::system::uname().nodename().to_string_lossy().into_owned())
}

async fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    let mut signals = Signals::new().context("signals")?;
    let log = Arc::new(Log { shard: shard_name(&arguments) });
    let mut options = options(&arguments);
    let acknowledgements = Arc::clone(&log);
    options.acknowledged = Some(Arc::new(move |object: &Acknowledged| {
        let name = format!("{}/{}", object.namespace, object.name);
        acknowledgements.line("acknowledged", json!({"object": name, "rv": object.resource_version}));
    }));
    let config = configuration(arguments.kubeconfig.as_deref()).await?;
    let shard = tokio::select! {
        () = signals.next() => return Ok(ExitCode::SUCCESS),
        shard = Shard::join(config, options) => shard?,
    };
    log.line("started", json!({}));
    work(shard, &log, &mut signals).await
}

/// Runs the controller until a signal, or the end of the right to work.
async fn work(shard: Shard, log: &Arc<Log>, signals: &mut Signals) -> anyhow::Result<ExitCode> {
    let (secrets, secrets_writer) = reflector::store();
    // One watch fills the cache, and then triggers what it is about.
    let (config_maps, config_maps_writer) = reflector::store();
    let children = shard.children(Api::<ConfigMap>::all(shard.client()), config_maps_writer);
    let cache = config_maps.clone();
    let listed = async move { cache.wait_until_ready().await.map_err(|error| error.to_string()) };
    let listed = listed.boxed().shared();
    let context = Context { client: shard.client(), config_maps, listed, labels: shard.labels(), log: Arc::clone(log) };
    let (stop, stopped) = oneshot::channel::<()>();
    let controller = Controller::for_stream(shard.objects(Api::<Secret>::all(shard.client()), secrets_writer), secrets)
        .with_config(Config::default().concurrency(CONCURRENCY))
        .owns_stream(children)
        .graceful_shutdown_on(async move {
            let _ = stopped.await;
        })
        .run(shard.reconciler(reconcile), error_policy, Arc::new(context))
        .for_each(|done| {
            if let Err(error) = done {
                tracing::warn!("{error}");
            }
            std::future::ready(())
        });
    let mut controller = pin!(controller);
    tokio::select! {
        () = signals.next() => {}
        () = &mut controller => anyhow::bail!("the controller ended by itself"),
        lost = shard.lost() => return Ok(told(log, &lost)),
    }
    let _ = stop.send(());
    tokio::select! {
        _ = tokio::time::timeout(PATIENCE, &mut controller) => {}
        lost = shard.lost() => return Ok(told(log, &lost)),
    }
    match shard.leave(PATIENCE).await {
        Ok(()) => {
            log.line("stopped", json!({}));
            Ok(ExitCode::SUCCESS)
        }
        Err(ringmaster_shard::Error::Lost(lost)) => Ok(told(log, &lost)),
        Err(error) => Err(error.into()),
    }
}

fn told(log: &Log, lost: &Lost) -> ExitCode {
    tracing::error!("{lost}");
    log.line("lost", json!({}));
    ExitCode::FAILURE
}

#[tokio::main]
async fn main() -> ExitCode {
    tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(false).init();
    match run(Arguments::parse()).await {
        Ok(code) => code,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}
