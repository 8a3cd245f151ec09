//! Starts everything that one Ringmaster process is made of, and ends it in order.
//!
//! On the way down: no new syncs, running ones end within a bound, then watches, events and servers stop.

use std::collections::HashMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use futures::FutureExt;
use http::HeaderValue;
use parking_lot::RwLock;
use ringmaster_cluster::{Client, Connection, Discovery, Events, Meter, connect};
use ringmaster_core::dialect::{FIELD_MANAGER, METACONTROLLER, RINGMASTER};
use ringmaster_core::hook::Limits;
use ringmaster_core::queue::{Gate, Outcome};
use ringmaster_hooks::{Hooks, Overrides, Policy};
use ringmaster_rings::admission::counts::Counts;
use ringmaster_rings::admission::host::{Place, Webhook};
use ringmaster_rings::{Right, RingStats, Rings};
use ringmaster_server::{Health, Metrics as MetricsText, Server};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::clock::{self, Clock, random};
use crate::config::{RingAdmission, Settings};
use crate::dispatch::{Dispatch, Work};
use crate::fault::Fault;
use crate::labels::Labels;
use crate::member::declared::DeclaredControllers;
use crate::member::guard::Guard;
use crate::member::keeper::End;
use crate::member::observe::World;
use crate::member::placement::Placements;
use crate::member::posts::Posts;
use crate::member::pulse::Pulse;
use crate::member::{Identity, Member};
use crate::metrics::{Metrics, Sample, Samplers, count, endpoint_samples};
use crate::registry::{DeclaredKind, Progress, Registry};
use crate::rival::Rival;
use crate::stage::Stage;
use crate::sync::Syncer;
use crate::tell::Tell;
use crate::watches::Watches;
use crate::{print, process, ring_metrics};

/// Which controllers are run.
const KINDS: [DeclaredKind; 4] = [
    DeclaredKind::composites(&RINGMASTER),
    DeclaredKind::decorators(&RINGMASTER),
    DeclaredKind::composites(&METACONTROLLER),
    DeclaredKind::decorators(&METACONTROLLER),
];

/// From the wish to go to the end of all work: what a member's own steps take at most with the default terms, which are
/// `LEAVE_PATIENCE`, `RELEASE_PATIENCE`, the time until its last write must have ended, and `RELEASE_TIMEOUT`. With longer
/// terms the Lease may go unreleased; the others then wait for its end.
pub(crate) const SHUTDOWN_GRACE: Duration = Duration::from_secs(30);
/// Watches, events and servers end within this time after that. Both together are less than the pod's grace period.
pub(crate) const SHUTDOWN_REST: Duration = Duration::from_secs(3);
/// What a member takes at most from the wish to go until its engine has ended: who kills it before that may cut a write
/// short, or leave a Lease unreleased.
pub const LONGEST_LEAVE: Duration =
    SHUTDOWN_GRACE.saturating_add(SHUTDOWN_REST).saturating_add(LAST_THREADS).saturating_add(print::LAST);
/// Threads that still run when everything else of a process has ended get this long.
pub const LAST_THREADS: Duration = Duration::from_secs(1);
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
    /// It isn't a member any more, or couldn't become one; another member does its work.
    #[error("{0}")]
    Member(End),
    /// The admission webhook of external rings can't be served.
    #[error("--ring-admission-address can't be used")]
    Admission(#[from] ringmaster_rings::admission::serve::Error),
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
            Some(address) => {
                let server = listen("health-probe-bind-address", address, settings.health_falls_back).await?;
                Some(server.with_health(health.clone()))
            }
            None => None,
        };
        let metrics_server = match settings.metrics_address {
            Some(address) => {
                let server = listen("metrics-address", address, settings.metrics_falls_back).await?;
                Some(server.with_metrics(MetricsText::new(registry)))
            }
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
    // Before the first watch: what is read without them looks as if nothing had been applied.
    let managers: Vec<Arc<str>> = [FIELD_MANAGER.into()].into_iter().chain(settings.apply.manager().cloned()).collect();
    let client = Client::new(connection.client.clone(), Arc::clone(&meter)).keeping_managed(&managers);
    let (guard, ring_stats, admissions) = (Guard::new(), RingStats::default(), Counts::default());
    let webhook = webhook(&settings, &client, &guard, (&admissions, &ring_stats)).await?;
    let mut overrides = Overrides::default();
    for resolve in &settings.hook_resolve {
        overrides.add(&resolve.host, resolve.port, resolve.address);
    }
    let policy = Policy { allow_loopback: settings.hook_allow_loopback, api_server: connection.addresses().await };
    let clock = Clock::start();
    let dispatch = Arc::new(Dispatch::new(settings.workers, clock));
    let hooks = Hooks::new(policy, overrides, settings.workers, metrics.clone(), dispatch.clone(), random)?;

    let tasks = TaskTracker::new();
    let (leave, stop, rest) = (CancellationToken::new(), CancellationToken::new(), CancellationToken::new());
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
    let (limits, tell) = (Limits::default(), Tell::new(events.clone()));
    let selector = settings.target_label_selector.as_ref().map(ToString::to_string).unwrap_or_default();
    let identity = Arc::new(Identity::new(&settings.membership, &selector));
    let (pulse, posts) = (Pulse::new(), Posts::new());
    let declared = Arc::new(DeclaredControllers::new(KINDS.len()));
    let world = World::new(Arc::clone(&identity));
    let placements = Placements::new(Arc::clone(&world), Arc::clone(&identity));
    let labels = Labels::new(metrics.clone());
    tasks.spawn(Arc::clone(&labels).run(client.clone(), Arc::clone(&guard), rest.clone()));
    let watches = Arc::new(Watches::new(client.clone(), tasks.clone(), rest.clone()));
    let stage = Arc::new(Stage {
        discovery: Arc::new(Discovery::new(client.clone(), settings.discovery_interval)),
        watches: Arc::clone(&watches),
        dispatch: Arc::clone(&dispatch),
        tell: tell.clone(),
        metrics: Arc::clone(&metrics),
        limits,
        flush_interval: settings.cache_flush_interval,
        hosted: RwLock::new(HashMap::new()),
        next_id: AtomicU32::new(0),
        client: client.clone(),
        namespace: settings.membership.namespace.as_str().into(),
        guard: Arc::clone(&guard),
        posts: Arc::clone(&posts),
        declared: Arc::clone(&declared),
        labels,
        hooks: hooks.clone(),
    });
    tasks.spawn(hooks.clone().run(rest.clone()));
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
            samples.extend(endpoint_samples(&hooks.samples()));
            samples.push(Sample::gauge(
                "ringmaster_remembered_reply_bytes",
                "Bytes of the hooks' replies that are remembered by their entity tags",
                vec![(Vec::new(), count(hooks.remembered_bytes()))],
            ));
            samples.extend(process::samples());
            samples.push(Sample {
                name: "ringmaster_log_lines_left_out",
                help: "Lines that were not logged or printed, because too many waited for a reader",
                counter: true,
                values: vec![(Vec::new(), count(usize::try_from(print::left_out()).unwrap_or(usize::MAX)))],
            });
            let tasks = tokio::runtime::Handle::try_current().map(|runtime| count(runtime.metrics().num_alive_tasks()));
            let tasks = tasks.map(|tasks| (Vec::new(), tasks)).into_iter().collect();
            samples.push(Sample::gauge("ringmaster_tasks", "Tasks that are alive", tasks));
            samples
        })
    });
    let member = HeaderValue::from_str(identity.name.as_str()).unwrap_or_else(|_| HeaderValue::from_static(""));
    let syncer = Arc::new(Syncer {
        client: client.clone(),
        discovery: Arc::clone(&stage.discovery),
        tell: tell.clone(),
        limits,
        guard: Arc::clone(&guard),
        fault: Fault::of_environment(),
        member,
    });
    let rings = Rings {
        // Neither waits behind the calls of syncs.
        client: Client::new(connection.client.clone(), metrics.clone()),
        lease_client: Client::new(connection.client.clone(), metrics.clone()),
        discovery: Arc::clone(&stage.discovery),
        events,
        right: Arc::clone(&guard) as Arc<dyn Right>,
        leads: metrics.members.leads_news(),
        clock: clock::rings(),
        stats: ring_stats.clone(),
        webhook,
    };
    samplers.add(Box::new(move || ring_metrics::samples(&ring_stats)));
    samplers.add(Box::new(move || ring_metrics::admissions(&admissions)));
    let abort = CancellationToken::new();
    let mut dispatching = tokio::spawn(Arc::clone(&dispatch).run(
        work(Arc::clone(&stage), syncer),
        Arc::clone(&pulse),
        stop.clone(),
        abort.clone(),
    ));
    let mut membership = tokio::spawn(
        Member {
            settings: settings.membership.clone(),
            // Its calls don't wait behind those of syncs.
            client: Client::new(connection.client.clone(), metrics.clone()),
            another: Arc::clone(&connection.another),
            identity,
            guard,
            pulse,
            world,
            posts: Arc::clone(&posts),
            declared,
            watches,
            tell,
            metrics: Arc::clone(&metrics),
            samplers: samplers.clone(),
        }
        .run(leave.clone(), rest.clone()),
    );
    let registry = Arc::new(Registry {
        stage,
        rival: Rival::new(client.clone(), settings.metacontroller_lease.clone(), &settings.membership.namespace),
        client,
        clock,
        placements,
        apply: settings.apply.clone(),
        selector: selector.clone(),
        tasks: tasks.clone(),
        stop: stop.clone(),
    });
    if selector.is_empty() {
        tasks.spawn(rings.run(stop.clone()));
    }
    let progress = KINDS.map(|kind| (kind, Arc::<Progress>::default()));
    for (kind, progress) in &progress {
        tasks.spawn(Arc::clone(&registry).run(*kind, Arc::clone(progress)));
    }
    drop(registry);
    info!(api_server = connection.host, port = connection.port, workers = settings.workers, "running");
    let progress = progress.map(|(_, progress)| progress);
    let running = async {
        wait_ready(&progress, &posts, &health).await;
        std::future::pending::<()>().await;
    };
    let mut failure = None;
    let ended = tokio::select! {
        () = shutdown.cancelled() => None,
        () = running => None,
        ended = &mut dispatching => {
            failure = Some(Error::Crashed);
            drop(ended);
            None
        }
        ended = &mut membership => Some(ended),
    };

    health.set_not_ready("stopping");
    let deadline = tokio::time::Instant::now() + SHUTDOWN_GRACE;
    match ended {
        Some(ended) => failure = Some(ended.map_or(Error::Crashed, Error::Member)),
        None => {
            info!("stopping: other members take over, and running syncs end first");
            leave.cancel();
            let late = tokio::time::timeout_at(deadline, &mut membership).await;
            match late {
                Ok(Ok(End::Released)) => {}
                Ok(Ok(end)) => failure = Some(Error::Member(end)),
                Ok(Err(_)) => failure = Some(Error::Crashed),
                Err(_) => warn!("the others didn't take over within {SHUTDOWN_GRACE:?}"),
            }
        }
    }
    stop.cancel();
    if !dispatching.is_finished() && tokio::time::timeout_at(deadline, &mut dispatching).await.is_err() {
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
    failure.map_or(Ok(()), Err)
}

fn work(stage: Arc<Stage>, syncer: Arc<Syncer>) -> Work {
    let hosts = Arc::clone(&stage);
    Work {
        admit: Box::new(move |controller, shard| {
            let hosted = hosts.hosted.read().get(&controller).cloned();
            hosted.map_or(Ok(None), |hosted| hosted.routes.sync.admit(controller, shard).map_err(Gate))
        }),
        sync: Box::new(move |popped, pass| {
            let hosted = stage.hosted.read().get(&popped.key.controller).cloned();
            let syncer = Arc::clone(&syncer);
            async move {
                match hosted {
                    Some(hosted) => syncer.sync(&hosted, &popped, pass).await,
                    None => Outcome::Dropped,
                }
            }
            .boxed()
        }),
    }
}

/// The rings' admission webhook, which listens if the settings say so.
async fn webhook(
    settings: &Settings,
    client: &Client,
    guard: &Arc<Guard>,
    (counts, rings): (&Counts, &RingStats),
) -> Result<Webhook, Error> {
    let (client, right) = (client.clone(), Arc::clone(guard) as Arc<dyn Right>);
    let Some(RingAdmission { address, reach }) = settings.ring_admission.clone() else {
        return Ok(Webhook::off(client, right));
    };
    let place = Place { address, reach, namespace: settings.membership.namespace.clone(), wall: clock::since_1970 };
    Ok(Webhook::bind(client, right, place, (counts.clone(), rings.clone())).await?)
}

/// Ready once the table gives everything to somebody, and what it gives to this member runs or is known not to.
async fn wait_ready(progress: &[Arc<Progress>], posts: &Posts, health: &Health) {
    while !(posts.is_settled() && progress.iter().all(|progress| progress.is_settled())) {
        tokio::time::sleep(READY_INTERVAL).await;
    }
    health.set_ready(true);
    info!("ready: all caches are synced");
}

/// Listens there; if the port is busy and `falls_back`, at a free one of loopback.
async fn listen(flag: &'static str, address: SocketAddr, falls_back: bool) -> Result<Server, Error> {
    let source = match Server::bind(address).await {
        Ok(server) => return Ok(server),
        Err(source) => source,
    };
    if falls_back && source.is_busy() {
        let free = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        if let Ok(server) = Server::bind(free).await {
            info!("--{flag}: port {} is busy; listening at {} instead", address.port(), server.local_addr());
            return Ok(server);
        }
    }
    Err(Error::Server { flag, source })
}

#[cfg(test)]
mod tests {
    use ringmaster_core::lease::{Terms, WRITE_GRACE};

    use super::*;
    use crate::member::guard::OUTCOME_MARGIN;
    use crate::member::keeper::RELEASE_TIMEOUT;
    use crate::member::rows::{LEAVE_PATIENCE, RELEASE_PATIENCE};

    #[test]
    fn a_member_leaves_within_its_pods_grace_period() {
        let writes = Terms::default().renew_deadline + WRITE_GRACE + OUTCOME_MARGIN;
        let steps = LEAVE_PATIENCE + RELEASE_PATIENCE + writes + RELEASE_TIMEOUT;
        assert!(steps < SHUTDOWN_GRACE, "{steps:?}");
        let deployment = include_str!("../../manifests/deploy/deployment.yaml");
        let grace = deployment.lines().find_map(|line| line.trim().strip_prefix("terminationGracePeriodSeconds: "));
        let grace = Duration::from_secs(grace.unwrap().parse().unwrap());
        let all = LONGEST_LEAVE;
        assert!(all + Duration::from_secs(5) <= grace, "{all:?} and some room for a slow machine in {grace:?}");
        let docs = include_str!("../../docs/members.md");
        assert!(docs.contains(&format!("`terminationGracePeriodSeconds` should be {} or more", grace.as_secs())));
        assert!(docs.contains(&format!("That takes {} s at most", all.as_secs())));
    }
}
