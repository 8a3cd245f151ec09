//! All metrics of the engine, defined once.
//!
//! Never holds a label whose values an object's author chooses, but for a controller's name.

use std::sync::Arc;
use std::time::Duration;

use http::Method;
use parking_lot::RwLock;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use ringmaster_cluster::Meter;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: String,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct HookLabels {
    controller: String,
    hook: &'static str,
    code: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabels {
    controller: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SyncLabels {
    controller: String,
    result: &'static str,
}

/// Seconds, from 1 ms: hooks and API writes on one machine take a few.
const BUCKETS: [f64; 14] = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0];

/// The metrics of a process.
#[derive(Default)]
pub(crate) struct Metrics {
    api_calls: Family<CallLabels, Counter>,
    limit_hits: Family<LimitLabels, Counter>,
    hook_requests: Family<HookLabels, Counter>,
    hook_duration: HookDurations,
    syncs: Family<SyncLabels, Counter>,
}

struct HookDurations(Family<ControllerLabels, Histogram, fn() -> Histogram>);

impl Default for HookDurations {
    fn default() -> Self {
        Self(Family::new_with_constructor(|| Histogram::new(BUCKETS)))
    }
}

/// What is measured when somebody asks, instead of at every change.
pub(crate) struct Sample {
    /// Name of the metric.
    pub(crate) name: &'static str,
    /// What it says.
    pub(crate) help: &'static str,
    /// Values by labels.
    pub(crate) values: Vec<(Vec<(&'static str, String)>, i64)>,
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
        for sample in self.0.read().iter().flat_map(|sampler| sampler()) {
            let gauge = ConstGauge::new(0i64);
            let mut metric = encoder.encode_descriptor(sample.name, sample.help, None, gauge.metric_type())?;
            for (labels, value) in &sample.values {
                let labels: Vec<(&str, &str)> = labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
                ConstGauge::new(*value).encode(metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

impl Metrics {
    /// The metrics, and a registry that shows them and what the samplers give.
    pub(crate) fn register(samplers: &Samplers) -> (Arc<Self>, Arc<Registry>) {
        let metrics = Self::default();
        let mut registry = Registry::default();
        registry.register("rest_client_requests", "Calls to the API server", metrics.api_calls.clone());
        let ours = registry.sub_registry_with_prefix("ringmaster");
        ours.register("limit_hits", "How often a named limit was hit", metrics.limit_hits.clone());
        ours.register("hook_requests", "Hook calls by code; 0 is no answer", metrics.hook_requests.clone());
        ours.register("hook_duration_seconds", "Duration of hook calls", metrics.hook_duration.0.clone());
        ours.register("syncs", "Syncs by result", metrics.syncs.clone());
        ours.register_collector(Box::new(samplers.clone()));
        (Arc::new(metrics), Arc::new(registry))
    }

    /// A hook call ended; 0 for no answer.
    pub(crate) fn hook_call(&self, controller: &str, hook: &'static str, code: u16, took: Duration) {
        let labels = HookLabels { controller: controller.to_owned(), hook, code: code.to_string() };
        self.hook_requests.get_or_create(&labels).inc();
        let labels = ControllerLabels { controller: controller.to_owned() };
        self.hook_duration.0.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// A sync ended.
    pub(crate) fn sync(&self, controller: &str, result: &'static str) {
        self.syncs.get_or_create(&SyncLabels { controller: controller.to_owned(), result }).inc();
    }
}

impl Meter for Metrics {
    fn api_call(&self, method: &Method, code: Option<u16>) {
        let code = code.map_or_else(|| "<error>".to_owned(), |code| code.to_string());
        self.api_calls.get_or_create(&CallLabels { method: method.to_string(), code }).inc();
    }

    fn limit_hit(&self, limit: &'static str) {
        self.limit_hits.get_or_create(&LimitLabels { limit }).inc();
    }
}
