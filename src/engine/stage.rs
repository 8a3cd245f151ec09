//! What all hosted controllers share, and what is counted over them.
//!
//! Never runs a controller: `host` does.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;

use parking_lot::RwLock;
use ringmaster_cluster::{Client, Discovery};
use ringmaster_core::hook::Limits;
use ringmaster_core::key::ControllerId;
use ringmaster_core::queue::Priority;
use ringmaster_hooks::Hooks;

use crate::dispatch::Dispatch;
use crate::hosted::Hosted;
use crate::labels::Labels;
use crate::member::declared::DeclaredControllers;
use crate::member::guard::Guard;
use crate::member::posts::Posts;
use crate::metrics::{Metrics, Sample, count};
use crate::tell::Tell;
use crate::watches::Watches;

/// What every hosted controller needs.
pub(crate) struct Stage {
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) watches: Arc<Watches>,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) tell: Tell,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    /// All parents are queued this often, whatever the controller says.
    pub(crate) flush_interval: Option<Duration>,
    pub(crate) hosted: RwLock<HashMap<ControllerId, Arc<Hosted>>>,
    pub(crate) next_id: AtomicU32,
    pub(crate) client: Client,
    /// Where revisions of cluster-scoped parents are kept: the namespace of the Leases.
    pub(crate) namespace: Arc<str>,
    /// What this member may do.
    pub(crate) guard: Arc<Guard>,
    /// Which part of the table is whose to do.
    pub(crate) posts: Arc<Posts>,
    /// Which controllers shall run.
    pub(crate) declared: Arc<DeclaredControllers>,
    /// Labels to put right.
    pub(crate) labels: Arc<Labels>,
    /// The ways to webhooks.
    pub(crate) hooks: Hooks,
}

impl Stage {
    /// Has every parent of every controller synced.
    pub(crate) fn resync(&self) {
        let hosted: Vec<Arc<Hosted>> = self.hosted.read().values().cloned().collect();
        for hosted in hosted {
            self.dispatch.add_all(hosted.parent_keys().into_iter(), Priority::Background);
        }
    }

    /// Parents of each controller, for metrics.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let hosted: Vec<Arc<Hosted>> = self.hosted.read().values().cloned().collect();
        // A decorator runs once for each of its kinds.
        let joined = |value: &dyn Fn(&Hosted) -> f64, join: fn(f64, f64) -> f64| {
            let mut values: BTreeMap<Arc<str>, f64> = BTreeMap::new();
            for hosted in &hosted {
                let value = value(hosted);
                let known = values.entry(hosted.model.label());
                known.and_modify(|known| *known = join(*known, value)).or_insert(value);
            }
            let one = |(label, value): (Arc<str>, f64)| (vec![("controller", label.to_string())], value);
            values.into_iter().map(one).collect()
        };
        let each = |value: &dyn Fn(&Hosted) -> usize| joined(&|hosted| count(value(hosted)), |a, b| a + b);
        let longest = |value: &dyn Fn(&Hosted) -> Duration| joined(&|hosted| value(hosted).as_secs_f64(), f64::max);
        vec![
            Sample::gauge("ringmaster_parents", "Parents of the controller", each(&Hosted::parent_count)),
            Sample::gauge(
                "ringmaster_parents_failing",
                "Parents whose last sync failed",
                each(&|hosted| hosted.board.failing_count()),
            ),
            Sample::gauge(
                "ringmaster_parents_failing_longest_seconds",
                "How long the parent that fails longest has been failing",
                longest(&|hosted| hosted.board.failing_longest()),
            ),
            Sample::gauge(
                "ringmaster_unassigned_objects",
                "Parents in this member's shards that have no label of their shard yet",
                each(&|hosted| hosted.unlabelled_count().0),
            ),
            Sample::gauge(
                "ringmaster_unassigned_oldest_seconds",
                "How long the first of the parents without a label has been seen without it",
                longest(&|hosted| hosted.unlabelled_count().1),
            ),
            Sample::gauge(
                "ringmaster_related_watches",
                "Watches of related objects that the controller's rules need",
                each(&|hosted| hosted.related_totals().0),
            ),
            Sample::gauge(
                "ringmaster_related_objects",
                "Objects in the watches of related objects, which controllers may share",
                each(&|hosted| hosted.related_totals().1),
            ),
            Sample::gauge(
                "ringmaster_related_bytes",
                "Bytes of the objects in the watches of related objects",
                each(&|hosted| hosted.related_totals().2),
            ),
            Sample::gauge(
                "ringmaster_parents_refused",
                "Parents that the hook refused until they change",
                each(&Hosted::terminal_count),
            ),
        ]
    }
}
