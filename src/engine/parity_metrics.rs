//! The metrics of hooks under Metacontroller's names, for controllers of its group: its dashboards and rules go on working.
//!
//! Names, labels, buckets and what is measured are Metacontroller's (contract 1.11). Never shown once the controller, or the
//! hook's URL, is gone.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use ringmaster_core::controller::Controller;
use ringmaster_hooks::ConnectStep;

/// The hooks that it knows, in its order.
const HOOKS: [&str; 3] = ["sync", "finalize", "customize"];
/// What every call is made with, as its metrics write it.
const METHOD: &str = "post";

/// Seconds of a request.
const REQUEST_BUCKETS: [f64; 11] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Seconds from the begin of a request until its host's name begins to be looked up, and until it was.
const DNS_BUCKETS: [f64; 4] = [0.005, 0.01, 0.025, 0.05];
/// Seconds from the begin of a request until its handshake begins, and until it is done.
const TLS_BUCKETS: [f64; 4] = [0.05, 0.1, 0.25, 0.5];

type Labels = Vec<(&'static str, Arc<str>)>;
type Durations = Family<Labels, Histogram, fn() -> Histogram>;

/// The metrics of one hook, of all controllers.
#[derive(Clone)]
struct OfHook {
    requests: Family<Labels, Counter>,
    durations: Durations,
    in_flight: Family<Labels, Gauge>,
    dns: Durations,
    tls: Durations,
}

/// By the hook's place in [`HOOKS`] and the labels that all its series have.
type Known = Arc<Mutex<HashMap<(usize, Labels), Weak<Series>>>>;

/// The metrics of a process.
pub(crate) struct ParityMetrics {
    hooks: [OfHook; HOOKS.len()],
    known: Known,
}

/// The series of one controller's hook; one that is declared for several kinds has them together.
struct Series {
    of: OfHook,
    hook: usize,
    labels: Labels,
    durations: Histogram,
    in_flight: Gauge,
    /// By code.
    requests: Mutex<BTreeMap<u16, Counter>>,
    known: Known,
}

/// What one controller's hooks are counted by.
pub(crate) struct ParityHooks(Vec<Arc<Series>>);

impl ParityMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let hooks = HOOKS.map(|hook| {
            let of = OfHook {
                requests: Family::default(),
                durations: Family::new_with_constructor(|| Histogram::new(REQUEST_BUCKETS)),
                in_flight: Family::default(),
                dns: Family::new_with_constructor(|| Histogram::new(DNS_BUCKETS)),
                tls: Family::new_with_constructor(|| Histogram::new(TLS_BUCKETS)),
            };
            let name = |rest: &str| format!("metacontroller_{hook}_{rest}");
            registry.register(name("requests"), "Hook calls that were answered, by code", of.requests.clone());
            registry.register(
                name("request_duration_histogram_seconds"),
                "Duration of hook calls that were answered",
                of.durations.clone(),
            );
            registry.register(name("in_flight_requests"), "Hook calls that run", of.in_flight.clone());
            registry.register(
                name("dns_duration_histogram_seconds"),
                "From the begin of a hook call to an event of its name's look-up",
                of.dns.clone(),
            );
            registry.register(
                name("tls_duration_histogram_seconds"),
                "From the begin of a hook call to an event of its TLS handshake",
                of.tls.clone(),
            );
            of
        });
        Self { hooks, known: Known::default() }
    }

    /// What the hooks of a controller are counted by, if its group has these metrics; from then on they are shown.
    pub(crate) fn controller(&self, model: &Controller) -> Option<ParityHooks> {
        if !model.dialect.parity_metrics {
            return None;
        }
        let kind = if model.is_decorator() { "DecoratorController" } else { "CompositeController" };
        let declared = [Some(&model.sync), model.finalize.as_ref(), model.customize.as_ref()];
        let series = declared.into_iter().zip(&self.hooks).enumerate().filter_map(|(hook, (declared, of))| {
            let url = declared?.webhook.address.urls().into_iter().next()?;
            let labels: Labels = vec![
                ("url", Arc::from(url)),
                ("controller_name", Arc::clone(&model.name)),
                ("controller_type", Arc::from(kind)),
            ];
            let mut known = self.known.lock();
            let key = (hook, labels);
            let present = known.get(&key).and_then(Weak::upgrade);
            Some(present.unwrap_or_else(|| {
                let series = Arc::new(Series::new(of.clone(), key.clone(), Arc::clone(&self.known)));
                known.insert(key, Arc::downgrade(&series));
                series
            }))
        });
        Some(ParityHooks(series.collect()))
    }
}

impl Series {
    fn new(of: OfHook, (hook, labels): (usize, Labels), known: Known) -> Self {
        let durations = of.durations.get_or_create_owned(&with(&labels, [("method", METHOD)]));
        let in_flight = of.in_flight.get_or_create_owned(&labels);
        let series = Self { of, hook, labels, durations, in_flight, requests: Mutex::default(), known };
        series.steps().for_each(|(family, labels)| drop(family.get_or_create_owned(&labels)));
        series
    }

    /// The histograms of the steps that its connections have.
    fn steps(&self) -> impl Iterator<Item = (&Durations, Labels)> {
        let is_tls = self.labels.iter().any(|(name, value)| *name == "url" && value.starts_with("https:"));
        let steps =
            [ConnectStep::DnsStart, ConnectStep::DnsDone, ConnectStep::TlsStart, ConnectStep::TlsDone].into_iter();
        steps.take(if is_tls { 4 } else { 2 }).map(move |step| self.step(step))
    }

    fn step(&self, step: ConnectStep) -> (&Durations, Labels) {
        let (family, event) = match step {
            ConnectStep::DnsStart => (&self.of.dns, "dns_start"),
            ConnectStep::DnsDone => (&self.of.dns, "dns_done"),
            ConnectStep::TlsStart => (&self.of.tls, "tls_handshake_start"),
            ConnectStep::TlsDone => (&self.of.tls, "tls_handshake_done"),
        };
        (family, with(&self.labels, [("event", event)]))
    }

    fn request_labels(&self, code: u16) -> Labels {
        with(&self.labels, [("code", code.to_string().as_str()), ("method", METHOD)])
    }
}

impl Drop for Series {
    fn drop(&mut self) {
        let mut known = self.known.lock();
        let key = (self.hook, self.labels.clone());
        // The controller may have been declared anew meanwhile: then they are its.
        if known.get(&key).is_some_and(|present| present.strong_count() > 0) {
            return;
        }
        known.remove(&key);
        for code in self.requests.lock().keys() {
            self.of.requests.remove(&self.request_labels(*code));
        }
        self.of.durations.remove(&with(&self.labels, [("method", METHOD)]));
        self.of.in_flight.remove(&self.labels);
        for (family, labels) in self.steps() {
            family.remove(&labels);
        }
    }
}

impl ParityHooks {
    fn of(&self, hook: &str) -> Option<&Series> {
        let of = |series: &&Arc<Series>| HOOKS.get(series.hook).is_some_and(|known| *known == hook);
        self.0.iter().find(of).map(|series| &**series)
    }

    /// A call ended; one without an answer (0) isn't counted there.
    pub(crate) fn called(&self, hook: &str, code: u16, took: Duration) {
        let Some(series) = self.of(hook).filter(|_| code != 0) else { return };
        let mut requests = series.requests.lock();
        requests
            .entry(code)
            .or_insert_with(|| series.of.requests.get_or_create_owned(&series.request_labels(code)))
            .inc();
        series.durations.observe(took.as_secs_f64());
    }

    /// A call runs from now on, or doesn't any more.
    pub(crate) fn running(&self, hook: &str, runs: bool) {
        let Some(series) = self.of(hook) else { return };
        if runs {
            series.in_flight.inc();
        } else {
            series.in_flight.dec();
        }
    }

    /// A connection that a call made came to this step, so long after the call's begin.
    pub(crate) fn connected(&self, hook: &str, step: ConnectStep, after: Duration) {
        let Some(series) = self.of(hook) else { return };
        let (family, labels) = series.step(step);
        family.get_or_create(&labels).observe(after.as_secs_f64());
    }
}

/// Labels, and more of them.
fn with<const N: usize>(labels: &[(&'static str, Arc<str>)], more: [(&'static str, &str); N]) -> Labels {
    labels.iter().cloned().chain(more.map(|(name, value)| (name, Arc::<str>::from(value)))).collect()
}
