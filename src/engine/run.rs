//! Starts everything that one Ringmaster process is made of, and ends it in order.
//!
//! On the way down: no new syncs, running ones end within a bound, then watches, events and servers stop.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use futures::FutureExt;
use http::HeaderValue;
use parking_lot::RwLock;
use ringmaster_cluster::{Client, Connection, Discovery, Events, Meter, connect};
use ringmaster_core::dialect::{METACONTROLLER, RINGMASTER};
use ringmaster_core::hook::Limits;
use ringmaster_core::queue::Outcome;
use ringmaster_hooks::{Hooks, Overrides, Policy};
use ringmaster_server::{Health, Metrics as MetricsText, Server};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::Settings;
use crate::dispatch::{Dispatch, Work};
use crate::host::Stage;
use crate::metrics::{Metrics, Sample, Samplers, count};
use crate::process;
use crate::registry::{Progress, Registry};
use crate::sync::Syncer;
use crate::tell::Tell;
use crate::watches::Watches;

/// Running syncs may take this long to end once the process is asked to stop; a pod has 30 s in all by default.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(25);
/// Everything else ends within this time after that.
const SHUTDOWN_REST: Duration = Duration::from_secs(3);
/// How often readiness is looked at until the process is ready.
const READY_INTERVAL: Duration = Duration::from_millis(100);

/// Why the engine can't start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No way to the API server.
    #[error(transparent)]
    Cluster(#[from] ringmaster_cluster::Error),
    /// No hook client.
    #[error(transparent)]
    Hooks(#[from] ringmaster_hooks::Error),
    /// A part that everything depends on ended by itself, which is a bug; starting anew is better than going on.
    #[error("the dispatcher ended by itself")]
    Crashed,
    /// An address can't be listened on.
    #[error("--{flag}: {source}")]
    Server {
        /// The flag that names the address.
        flag: &'static str,
        /// Why.
        source: ringmaster_server::Error,
    },
}

/// A Ringmaster that is connected and listens, but doesn't run yet.
pub struct Engine {
    settings: Settings,
    connection: Connection,
    metrics: Arc<Metrics>,
    samplers: Samplers,
    health: Health,
    health_server: Option<Server>,
    metrics_server: Option<Server>,
    resync: Resync,
}

/// Asks a running engine for a sync of every parent, such as when its webhook is another one; cheap to clone.
#[derive(Clone, Default)]
pub struct Resync(Arc<Notify>);

impl Resync {
    /// Asks. What is asked again before it was done is done once.
    pub fn all(&self) {
        self.0.notify_one();
    }
}

impl Engine {
    /// Connects to the API server that the settings name, and listens.
    ///
    /// # Errors
    /// If there is no way to the API server, or an address can't be listened at.
    pub async fn start(settings: Settings) -> Result<Self, Error> {
        let connection = connect(settings.kubeconfig.as_deref()).await?;
        Self::with(settings, connection).await
    }

    /// Takes a connection that is there already, and listens; the settings' kubeconfig doesn't count.
    ///
    /// # Errors
    /// If an address can't be listened at.
    pub async fn with(settings: Settings, connection: Connection) -> Result<Self, Error> {
        let samplers = Samplers::default();
        let host = format!("{}:{}", connection.host, connection.port);
        let (metrics, registry) = Metrics::register(&host, &samplers);
        let health = Health::new();
        let health_server = match settings.health_probe_address {
            Some(address) => Some(listen("health-probe-bind-address", address).await?.with_health(health.clone())),
            None => None,
        };
        let metrics_server = match settings.metrics_address {
            Some(address) => Some(listen("metrics-address", address).await?.with_metrics(MetricsText::new(registry))),
            None => None,
        };
        let resync = Resync::default();
        Ok(Self { settings, connection, metrics, samplers, health, health_server, metrics_server, resync })
    }

    /// A way to ask for a sync of every parent while it runs.
    #[must_use]
    pub fn resync(&self) -> Resync {
        self.resync.clone()
    }

    /// Where metrics are served, once it runs.
    #[must_use]
    pub fn metrics_address(&self) -> Option<SocketAddr> {
        self.metrics_server.as_ref().map(Server::local_addr)
    }

    fn health_address(&self) -> Option<SocketAddr> {
        self.health_server.as_ref().map(Server::local_addr)
    }

    /// Runs until `shutdown`.
    ///
    /// # Errors
    /// If it can't start, or if a part that everything depends on ends by itself.
    pub async fn run(self, shutdown: CancellationToken) -> Result<(), Error> {
        if let Some(address) = self.health_address() {
            info!(%address, "serving /healthz and /readyz");
        }
        if let Some(address) = self.metrics_address() {
            info!(%address, "serving /metrics");
        }
        run(self, shutdown).await
    }
}

async fn run(engine: Engine, shutdown: CancellationToken) -> Result<(), Error> {
    let Engine { settings, connection, metrics, samplers, health, health_server, metrics_server, resync } = engine;
    let meter: Arc<dyn Meter> = metrics.clone();
    let client = Client::new(connection.client.clone(), Arc::clone(&meter));
    let mut overrides = Overrides::default();
    for resolve in &settings.hook_resolve {
        overrides.add(&resolve.host, resolve.port, resolve.address);
    }
    let policy = Policy { allow_loopback: settings.hook_allow_loopback, api_server: connection.addresses().await };
    let hooks = Hooks::new(policy, overrides, settings.workers, metrics.clone())?;

    let (tasks, stop, rest) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
    for server in [health_server, metrics_server].into_iter().flatten() {
        tasks.spawn({
            let rest = rest.clone();
            async move {
                if let Err(error) = server.run(rest).await {
                    warn!("a server ended: {error}");
                }
            }
        });
    }
    let events_limit = (settings.events_qps, settings.events_burst);
    let (events, posting) = Events::new(&client, meter, events_limit, rest.clone());
    tasks.spawn(posting);
    let (clock, limits, tell) = (Clock::start(), Limits::default(), Tell::new(events));
    let dispatch = Arc::new(Dispatch::new(settings.workers, clock));
    let stage = Arc::new(Stage {
        discovery: Discovery::new(client.clone(), settings.discovery_interval),
        watches: Watches::new(client.clone(), tasks.clone(), rest.clone()),
        dispatch: Arc::clone(&dispatch),
        tell: tell.clone(),
        metrics: Arc::clone(&metrics),
        limits,
        flush_interval: settings.cache_flush_interval,
        hosted: RwLock::new(HashMap::new()),
        next_id: AtomicU32::new(0),
    });
    tasks.spawn({
        let (stage, rest) = (Arc::clone(&stage), rest.clone());
        async move {
            loop {
                tokio::select! {
                    () = rest.cancelled() => return,
                    () = resync.0.notified() => stage.resync(),
                }
            }
        }
    });
    samplers.add({
        let (stage, dispatch) = (Arc::clone(&stage), Arc::clone(&dispatch));
        Box::new(move || {
            let mut samples = stage.watches.samples();
            samples.extend(dispatch.samples());
            samples.extend(stage.samples());
            samples.extend(process::samples());
            let tasks = tokio::runtime::Handle::try_current().map(|runtime| count(runtime.metrics().num_alive_tasks()));
            let tasks = tasks.map(|tasks| (Vec::new(), tasks)).into_iter().collect();
            samples.push(Sample::gauge("ringmaster_tasks", "Tasks that are alive", tasks));
            samples
        })
    });
    let syncer = Arc::new(Syncer { client: client.clone(), hooks, tell, limits, member: member_name() });
    let abort = CancellationToken::new();
    let mut dispatching =
        tokio::spawn(Arc::clone(&dispatch).run(work(Arc::clone(&stage), syncer), stop.clone(), abort.clone()));
    let registry = Arc::new(Registry {
        stage,
        client,
        clock,
        selector: settings.target_label_selector.map(|selector| selector.to_string()).unwrap_or_default(),
        tasks: tasks.clone(),
        stop: stop.clone(),
    });
    let progress = [(&RINGMASTER, Arc::<Progress>::default()), (&METACONTROLLER, Arc::default())];
    for (dialect, progress) in &progress {
        tasks.spawn(Arc::clone(&registry).run(dialect, Arc::clone(progress)));
    }
    drop(registry);
    info!(api_server = connection.host, port = connection.port, workers = settings.workers, "running");
    wait_ready(&progress.map(|(_, progress)| progress), &health, &shutdown).await;
    let crashed = tokio::select! {
        () = shutdown.cancelled() => false,
        ended = &mut dispatching => ended.is_err(),
    };

    health.set_not_ready("stopping");
    info!("stopping: running syncs end first");
    stop.cancel();
    if !dispatching.is_finished() && tokio::time::timeout(SHUTDOWN_GRACE, &mut dispatching).await.is_err() {
        warn!("syncs still ran after {SHUTDOWN_GRACE:?} and were ended");
        abort.cancel();
        let _ = dispatching.await;
    }
    rest.cancel();
    tasks.close();
    if tokio::time::timeout(SHUTDOWN_REST, tasks.wait()).await.is_err() {
        warn!("{} tasks did not end in time", tasks.len());
    }
    info!("stopped");
    if crashed { Err(Error::Crashed) } else { Ok(()) }
}

fn work(stage: Arc<Stage>, syncer: Arc<Syncer>) -> Work {
    Box::new(move |popped| {
        let hosted = stage.hosted.read().get(&popped.key.controller).cloned();
        let syncer = Arc::clone(&syncer);
        async move {
            match hosted {
                Some(hosted) => syncer.sync(&hosted, &popped).await,
                None => Outcome::Dropped,
            }
        }
        .boxed()
    })
}

async fn wait_ready(progress: &[Arc<Progress>], health: &Health, shutdown: &CancellationToken) {
    while !progress.iter().all(|progress| progress.is_settled()) {
        if tokio::time::timeout(READY_INTERVAL, shutdown.cancelled()).await.is_ok() {
            return;
        }
    }
    health.set_ready(true);
    info!("ready: all caches are synced");
}

async fn listen(flag: &'static str, address: SocketAddr) -> Result<Server, Error> {
    Server::bind(address).await.map_err(|source| Error::Server { flag, source })
}

/// The pod's name, or the host's, as hooks see it.
fn member_name() -> HeaderValue {
    let name = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_default();
    HeaderValue::from_str(&name).unwrap_or_else(|_| HeaderValue::from_static(""))
}
