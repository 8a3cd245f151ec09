//! All metrics of the engine, defined once; docs/metrics.md tells what they mean.
//!
//! Names and labels are controller-runtime's and client-go's where they have the same thing, so that their dashboards and
//! rules work. Never holds a label whose values an object's author chooses, but for a controller's name, and its hook's host
//! and endpoints, which are shown as long as it runs.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use ringmaster_cluster::Meter;
use ringmaster_core::controller::Controller;
use ringmaster_hooks::{ConnectStep, Sampled};

use crate::member::metrics::MemberMetrics;
use crate::parity_metrics::{ParityHooks, ParityMetrics};

/// How a sync ended: controller-runtime's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SyncResult {
    /// It did all that it wanted.
    Success,
    /// It did, and is wanted again at once.
    Requeue,
    /// It did, or was told to come later, and has a time.
    RequeueAfter,
    /// It failed.
    Error,
}

impl SyncResult {
    const ALL: [Self; 4] = [Self::Success, Self::Requeue, Self::RequeueAfter, Self::Error];

    fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Requeue => "requeue",
            Self::RequeueAfter => "requeue_after",
            Self::Error => "error",
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    code: String,
    method: String,
    host: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LatencyLabels {
    verb: String,
    host: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HookCodeLabels {
    controller: Arc<str>,
    hook: &'static str,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HookLabels {
    controller: Arc<str>,
    hook: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabels {
    controller: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    name: Arc<str>,
    controller: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ResultLabels {
    controller: Arc<str>,
    result: &'static str,
}

/// Seconds, from 1 ms: hooks and API writes on one machine take a few.
const BUCKETS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// Histograms over [`BUCKETS`].
type Durations<L> = Family<L, Histogram, fn() -> Histogram>;

fn durations<L: Clone + std::hash::Hash + Eq>() -> Durations<L> {
    Family::new_with_constructor(|| Histogram::new(BUCKETS))
}

/// The metrics of a process.
pub(crate) struct Metrics {
    /// The API server's, as client-go names it.
    host: Arc<str>,
    api_calls: Family<CallLabels, Counter>,
    api_latency: Durations<LatencyLabels>,
    limit_hits: Family<LimitLabels, Counter>,
    hook_requests: Family<HookCodeLabels, Counter>,
    hook_duration: Durations<HookLabels>,
    reconciles: Family<ResultLabels, Counter>,
    reconcile_errors: Family<ControllerLabels, Counter>,
    terminal_errors: Family<ControllerLabels, Counter>,
    reconcile_panics: Family<ControllerLabels, Counter>,
    reconcile_time: Durations<ControllerLabels>,
    adds: Family<QueueLabels, Counter>,
    retries: Family<QueueLabels, Counter>,
    queue_duration: Durations<QueueLabels>,
    work_duration: Durations<QueueLabels>,
    /// What is counted of membership.
    pub(crate) members: MemberMetrics,
    parity: ParityMetrics,
}

/// One controller's part, looked up once.
pub(crate) struct ControllerMetrics {
    metrics: Arc<Metrics>,
    name: Arc<str>,
    /// Of a controller of Metacontroller's group.
    parity: Option<ParityHooks>,
    reconciles: [Counter; 4],
    reconcile_errors: Counter,
    terminal_errors: Counter,
    reconcile_panics: Counter,
    reconcile_time: Histogram,
    adds: Counter,
    retries: Counter,
    queue_duration: Histogram,
    work_duration: Histogram,
}

/// A gauge's or a counter's values when somebody asks, instead of at every change.
pub(crate) struct Sample {
    /// Its whole name; without `_total` for a counter.
    pub(crate) name: &'static str,
    /// What it says.
    pub(crate) help: &'static str,
    /// Whether it only grows.
    pub(crate) counter: bool,
    /// Values by labels.
    pub(crate) values: Vec<(Vec<(&'static str, String)>, f64)>,
}

impl Sample {
    /// A gauge.
    pub(crate) fn gauge(
        name: &'static str,
        help: &'static str,
        values: Vec<(Vec<(&'static str, String)>, f64)>,
    ) -> Self {
        Self { name, help, counter: false, values }
    }
}

/// Counts are far below 2^53, where a float holds them exactly.
#[allow(clippy::cast_precision_loss)]
pub(crate) fn count(value: usize) -> f64 {
    value as f64
}

/// Gives samples.
pub(crate) type Sampler = Box<dyn Fn() -> Vec<Sample> + Send + Sync>;

/// Samplers, added while the engine is put together.
#[derive(Clone, Default)]
pub(crate) struct Samplers(Arc<RwLock<Vec<Sampler>>>);

impl Samplers {
    pub(crate) fn add(&self, sampler: Sampler) {
        self.0.write().push(sampler);
    }
}

impl std::fmt::Debug for Samplers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Samplers")
    }
}

impl Collector for Samplers {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        for sample in self.0.read().iter().flat_map(|sampler| sampler()).filter(|sample| !sample.values.is_empty()) {
            let kind =
                if sample.counter { ConstCounter::new(0.0).metric_type() } else { ConstGauge::new(0.0).metric_type() };
            let mut metric = encoder.encode_descriptor(sample.name, sample.help, None, kind)?;
            for (labels, value) in &sample.values {
                let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
                let encoder = metric.encode_family(&labels)?;
                if sample.counter {
                    ConstCounter::new(*value).encode(encoder)?;
                } else {
                    ConstGauge::new(*value).encode(encoder)?;
                }
            }
        }
        Ok(())
    }
}

impl Metrics {
    /// The metrics, and a registry that shows them and what the samplers give. `host` is the API server's.
    pub(crate) fn register(host: &str, samplers: &Samplers) -> (Arc<Self>, Arc<Registry>) {
        let mut r = Registry::default();
        let members = MemberMetrics::register(&mut r);
        let parity = ParityMetrics::register(&mut r);
        let m = Self {
            members,
            parity,
            host: host.into(),
            api_calls: Family::default(),
            api_latency: durations(),
            limit_hits: Family::default(),
            hook_requests: Family::default(),
            hook_duration: durations(),
            reconciles: Family::default(),
            reconcile_errors: Family::default(),
            terminal_errors: Family::default(),
            reconcile_panics: Family::default(),
            reconcile_time: durations(),
            adds: Family::default(),
            retries: Family::default(),
            queue_duration: durations(),
            work_duration: durations(),
        };
        r.register("rest_client_requests", "Calls to the API server by code", m.api_calls.clone());
        r.register(
            "rest_client_request_duration_seconds",
            "Duration of calls to the API server, watches not among them",
            m.api_latency.clone(),
        );
        r.register("controller_runtime_reconcile", "Syncs by result", m.reconciles.clone());
        r.register("controller_runtime_reconcile_errors", "Syncs that failed", m.reconcile_errors.clone());
        r.register(
            "controller_runtime_terminal_reconcile_errors",
            "Syncs that failed for good: the hook refused the parent until it changes",
            m.terminal_errors.clone(),
        );
        r.register("controller_runtime_reconcile_panics", "Syncs that panicked, a bug", m.reconcile_panics.clone());
        r.register("controller_runtime_reconcile_time_seconds", "Duration of syncs", m.reconcile_time.clone());
        r.register("workqueue_adds", "Parents queued", m.adds.clone());
        r.register("workqueue_retries", "Parents queued again after a failure", m.retries.clone());
        r.register(
            "workqueue_queue_duration_seconds",
            "How long parents waited for a worker",
            m.queue_duration.clone(),
        );
        r.register("workqueue_work_duration_seconds", "How long parents were worked on", m.work_duration.clone());
        r.register("ringmaster_hook_requests", "Hook calls by code; 0 is no answer", m.hook_requests.clone());
        r.register("ringmaster_hook_duration_seconds", "Duration of hook calls", m.hook_duration.clone());
        r.register("ringmaster_limit_hits", "How often a named limit was hit", m.limit_hits.clone());
        r.register_collector(Box::new(samplers.clone()));
        (Arc::new(m), Arc::new(r))
    }

    /// The part of a controller; from then on it is shown, with zeros at first.
    pub(crate) fn controller(self: &Arc<Self>, model: &Controller) -> ControllerMetrics {
        let name = model.label();
        let plain = ControllerLabels { controller: Arc::clone(&name) };
        let queue = QueueLabels { name: Arc::clone(&name), controller: Arc::clone(&name) };
        let result = |result: SyncResult| {
            let labels = ResultLabels { controller: Arc::clone(&name), result: result.label() };
            self.reconciles.get_or_create_owned(&labels)
        };
        ControllerMetrics {
            reconciles: SyncResult::ALL.map(result),
            reconcile_errors: self.reconcile_errors.get_or_create_owned(&plain),
            terminal_errors: self.terminal_errors.get_or_create_owned(&plain),
            reconcile_panics: self.reconcile_panics.get_or_create_owned(&plain),
            reconcile_time: self.reconcile_time.get_or_create_owned(&plain),
            adds: self.adds.get_or_create_owned(&queue),
            retries: self.retries.get_or_create_owned(&queue),
            queue_duration: self.queue_duration.get_or_create_owned(&queue),
            work_duration: self.work_duration.get_or_create_owned(&queue),
            metrics: Arc::clone(self),
            parity: self.parity.controller(model),
            name,
        }
    }
}

impl ControllerMetrics {
    /// The controller's name.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// A hook call ended; 0 for no answer.
    pub(crate) fn hook_call(&self, hook: &'static str, code: u16, took: Duration) {
        let labels = HookCodeLabels { controller: Arc::clone(&self.name), hook, code: code.to_string() };
        self.metrics.hook_requests.get_or_create(&labels).inc();
        let labels = HookLabels { controller: Arc::clone(&self.name), hook };
        self.metrics.hook_duration.get_or_create(&labels).observe(took.as_secs_f64());
        if let Some(parity) = &self.parity {
            parity.called(hook, code, took);
        }
    }

    /// A hook call runs from now on, or doesn't any more.
    pub(crate) fn hook_running(&self, hook: &str, runs: bool) {
        if let Some(parity) = &self.parity {
            parity.running(hook, runs);
        }
    }

    /// A connection that a hook call made came to this step, so long after the call's begin.
    pub(crate) fn hook_connected(&self, hook: &str, step: ConnectStep, after: Duration) {
        if let Some(parity) = &self.parity {
            parity.connected(hook, step, after);
        }
    }

    /// A parent was queued.
    pub(crate) fn added(&self) {
        self.adds.inc();
    }

    /// A parent was taken from the queue; it failed so often in a row before.
    pub(crate) fn started(&self, waited: Duration, failures: u32) {
        self.queue_duration.observe(waited.as_secs_f64());
        if failures > 0 {
            self.retries.inc();
        }
    }

    /// A sync ended.
    pub(crate) fn ended(&self, result: SyncResult, took: Duration) {
        self.reconciles[result as usize].inc();
        if result == SyncResult::Error {
            self.reconcile_errors.inc();
        }
        self.reconcile_time.observe(took.as_secs_f64());
        self.work_duration.observe(took.as_secs_f64());
    }

    /// A parent was refused for good.
    pub(crate) fn refused(&self) {
        self.terminal_errors.inc();
    }

    /// A sync panicked.
    pub(crate) fn panicked(&self) {
        self.reconcile_panics.inc();
        self.reconciles[SyncResult::Error as usize].inc();
        self.reconcile_errors.inc();
    }
}

/// What is known of the endpoints of hooks.
pub(crate) fn endpoint_samples(sampled: &[Sampled]) -> Vec<Sample> {
    let labels = |one: &Sampled| vec![("host", one.host.clone()), ("endpoint", one.endpoint.clone())];
    let each = |value: &dyn Fn(&Sampled) -> usize| sampled.iter().map(|one| (labels(one), count(value(one)))).collect();
    let total = |value: u64| count(usize::try_from(value).unwrap_or(usize::MAX));
    let results = sampled.iter().flat_map(|one| {
        let result = |(result, value): (&str, u64)| {
            let mut labels = labels(one);
            labels.push(("result", result.to_owned()));
            (labels, total(value))
        };
        ["good", "bad", "lost"].into_iter().zip(one.counts).map(result).collect::<Vec<_>>()
    });
    vec![
        Sample::gauge("ringmaster_hook_endpoint_running", "Hook calls that run, by endpoint", each(&|one| one.running)),
        Sample::gauge(
            "ringmaster_hook_endpoint_waiting",
            "Hook calls that wait for their turn at their endpoint",
            each(&|one| one.waiting),
        ),
        Sample::gauge(
            "ringmaster_hook_endpoint_limit",
            "Hook calls that may run at once at an endpoint, as learnt from how it answers",
            each(&|one| one.places),
        ),
        Sample::gauge(
            "ringmaster_hook_endpoint_left_out",
            "Whether an endpoint is left out, because it could not be reached or answered nothing",
            each(&|one| usize::from(one.ejected)),
        ),
        Sample {
            name: "ringmaster_hook_endpoint_requests",
            help: "Hook calls by endpoint: good is 200, bad any other answer, lost none",
            counter: true,
            values: results.collect(),
        },
        Sample {
            name: "ringmaster_hook_endpoint_ejections",
            help: "How often an endpoint was left out",
            counter: true,
            values: sampled.iter().map(|one| (labels(one), total(one.counts[3]))).collect(),
        },
    ]
}

impl Meter for Metrics {
    fn api_call(&self, method: &Method, code: Option<u16>, took: Option<Duration>) {
        let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
        let labels = CallLabels { code, method: method.to_string(), host: Arc::clone(&self.host) };
        self.api_calls.get_or_create(&labels).inc();
        if let Some(took) = took {
            let labels = LatencyLabels { verb: method.to_string(), host: Arc::clone(&self.host) };
            self.api_latency.get_or_create(&labels).observe(took.as_secs_f64());
        }
    }

    fn limit_hit(&self, limit: &'static str) {
        self.limit_hits.get_or_create(&LimitLabels { limit }).inc();
    }
}

impl ringmaster_hooks::Meter for Metrics {
    fn limit_hit(&self, limit: &'static str) {
        Meter::limit_hit(self, limit);
    }
}
