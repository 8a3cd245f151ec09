//! The cluster's namespaces and their labels, for all rings: which of them a ring selects.
//!
//! Never keeps anything else of a namespace.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use parking_lot::RwLock;
use ringmaster_cluster::{Client, Error, Sink, Watch, run_pump};
use ringmaster_core::key::{ApiVersion, Resource, Version};
use ringmaster_core::object::Object;
use ringmaster_core::ring::model::Ring;
use ringmaster_core::selector::Labels;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

/// Labels of one namespace.
struct Own(Vec<(Box<str>, Box<str>)>);

impl Labels for Own {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find_map(|(name, value)| (**name == *key).then_some(&**value))
    }
}

/// All namespaces, as a watch shows them.
pub(crate) struct Namespaces {
    known: RwLock<Known>,
    news: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    labels: HashMap<Arc<str>, (Own, u64)>,
    generation: u64,
    is_listed: bool,
}

impl Namespaces {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { known: RwLock::default(), news: watch::Sender::new(0) })
    }

    /// Whether a ring selects what lives in a namespace (empty: in none); `None` while that namespace isn't known.
    pub(crate) fn selects(&self, ring: &Ring, namespace: &str) -> Option<bool> {
        if ring.is_deleting || namespace.is_empty() {
            return Some(!ring.is_deleting);
        }
        let known = self.known.read();
        known.labels.get(namespace).map(|(labels, _)| ring.selects(namespace, labels))
    }

    /// Each namespace, and whether a ring selects it; `None` until all are known.
    pub(crate) fn selected(&self, ring: &Ring) -> Option<BTreeMap<Arc<str>, bool>> {
        let known = self.known.read();
        let each = known.labels.iter().map(|(name, (labels, _))| (Arc::clone(name), ring.selects(name, labels)));
        known.is_listed.then(|| each.collect())
    }

    /// Told of each change.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Watches them until cancelled.
    pub(crate) async fn run(self: Arc<Self>, client: Client, random: fn() -> u64, cancel: CancellationToken) {
        let resource = Resource {
            api_version: ApiVersion::new("v1"),
            plural: "namespaces".into(),
            kind: "Namespace".into(),
            namespaced: false,
            status: true,
        };
        let watch = Watch { metadata_only: true, ..Watch::all(Arc::new(resource)) };
        run_pump(client, watch, Arc::clone(&self) as Arc<dyn Sink>, random, cancel).await;
        // What isn't watched is not known.
        let mut known = self.known.write();
        *known = Known { generation: known.generation, ..Known::default() };
    }

    fn changed(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }
}

impl Sink for Namespaces {
    fn list_begins(&self) -> String {
        self.known.write().generation += 1;
        String::new()
    }

    fn watch_begins(&self, version: Version, _: bool) -> (String, Version) {
        (String::new(), version)
    }

    fn applied(&self, object: Object) {
        let labels = Own(object.labels().iter().map(|(name, value)| (name.into(), value.into())).collect());
        let mut known = self.known.write();
        let generation = known.generation;
        let before = known.labels.insert(object.key().name().into(), (labels, generation));
        let is_news = known.is_listed
            && before.is_none_or(|(before, _)| {
                known.labels.get(object.key().name()).is_none_or(|(after, _)| after.0 != before.0)
            });
        drop(known);
        if is_news {
            self.changed();
        }
    }

    fn deleted(&self, object: Object) {
        self.known.write().labels.remove(object.key().name());
        self.changed();
    }

    fn progressed(&self, _: Version) {}

    fn list_complete(&self, _: Version) {
        let mut known = self.known.write();
        let generation = known.generation;
        known.labels.retain(|_, (_, seen)| *seen == generation);
        known.is_listed = true;
        drop(known);
        self.changed();
    }

    fn list_aborted(&self) {}

    fn lost_track(&self) {}

    fn trouble(&self, error: &Error, failures: u32) {
        if failures.is_power_of_two() {
            warn!(failures, "namespaces can't be watched, which rings need: {error}");
        }
    }

    fn recovered(&self) {
        info!("namespaces are watched again");
    }
}
