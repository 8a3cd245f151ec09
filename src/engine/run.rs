//! Starts everything that `ringmaster run` is made of, and ends it in order.
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
use ringmaster_cluster::{Client, Discovery, Events, Meter, connect};
use ringmaster_core::dialect::{METACONTROLLER, RINGMASTER};
use ringmaster_core::hook::Limits;
use ringmaster_core::queue::Outcome;
use ringmaster_hooks::{Hooks, Overrides, Policy};
use ringmaster_server::{Health, Metrics as MetricsText, Server};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::clock::Clock;
use crate::config::Settings;
use crate::dispatch::{Dispatch, Work};
use crate::host::Stage;
use crate::metrics::{Metrics, Samplers};
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

/// Runs until `shutdown`.
///
/// # Errors
/// If it can't start, or if a part that everything depends on ends by itself.
pub async fn run(settings: Settings, shutdown: CancellationToken) -> Result<(), Error> {
    let connection = connect(settings.kubeconfig.as_deref()).await?;
    let samplers = Samplers::default();
    let (metrics, registry) = Metrics::register(&samplers);
    let meter: Arc<dyn Meter> = metrics.clone();
    let client = Client::new(connection.client.clone(), Arc::clone(&meter));
    let mut overrides = Overrides::default();
    for resolve in &settings.hook_resolve {
        overrides.add(&resolve.host, resolve.port, resolve.address);
    }
    let policy = Policy { allow_loopback: settings.hook_allow_loopback, api_server: connection.addresses().await };
    let hooks = Hooks::new(policy, overrides, settings.workers)?;
    let health = Health::new();
    let servers = bind(&settings, &health, MetricsText::new(registry)).await?;

    let (tasks, stop, rest) = (TaskTracker::new(), CancellationToken::new(), CancellationToken::new());
    for server in servers {
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
        limits,
        flush_interval: settings.cache_flush_interval,
        hosted: RwLock::new(HashMap::new()),
        next_id: AtomicU32::new(0),
    });
    samplers.add({
        let (stage, dispatch) = (Arc::clone(&stage), Arc::clone(&dispatch));
        Box::new(move || {
            let mut samples = stage.watches.samples();
            samples.extend(dispatch.samples());
            samples
        })
    });
    let syncer = Arc::new(Syncer { client: client.clone(), hooks, metrics, tell, limits, member: member_name() });
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

async fn bind(settings: &Settings, health: &Health, metrics: MetricsText) -> Result<Vec<Server>, Error> {
    let mut servers = Vec::new();
    if let Some(address) = settings.health_probe_address {
        let server = listen("health-probe-bind-address", address).await?.with_health(health.clone());
        info!(address = %server.local_addr(), "serving /healthz and /readyz");
        servers.push(server);
    }
    if let Some(address) = settings.metrics_address {
        let server = listen("metrics-address", address).await?.with_metrics(metrics);
        info!(address = %server.local_addr(), "serving /metrics");
        servers.push(server);
    }
    Ok(servers)
}

async fn listen(flag: &'static str, address: SocketAddr) -> Result<Server, Error> {
    Server::bind(address).await.map_err(|source| Error::Server { flag, source })
}

/// The pod's name, or the host's, as hooks see it.
fn member_name() -> HeaderValue {
    let name = std::env::var("POD_NAME").or_else(|_| std::env::var("HOSTNAME")).unwrap_or_default();
    HeaderValue::from_str(&name).unwrap_or_else(|_| HeaderValue::from_static(""))
}
