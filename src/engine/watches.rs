//! The watches of a process: one collection per kind and scope, however many controllers need it, and of a kind that is
//! watched as a whole none for its children alone.
//!
//! Never decides what a change means: listeners do. A collection is kept while somebody is subscribed to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use ringmaster_cluster::Client;
use ringmaster_core::cache::Change;
use ringmaster_core::key::{Resource, SyncKey};
use ringmaster_core::shards::Shards;
use ringmaster_core::watch::Scope;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::metrics::{Sample, count};
use crate::outage::Outage;
use crate::strays::{Stray, StraySubscription, Strays};
use crate::streams::Shared;

/// Who wants to know of changes. Called in the order of events, from one task or from whoever wrote; must not block.
pub(crate) trait Listener: Send + Sync {
    /// Something changed. `origin` is the sync whose own write did it, if one did. Changes that a watch and an answer
    /// bring may be told out of order: what the store holds is what counts. Objects of shards that aren't wanted any more
    /// go without a word.
    fn changed(&self, change: &Change, origin: Option<&SyncKey>);
}

/// What every pump needs.
pub(crate) struct Pumps {
    pub(crate) client: Client,
    pub(crate) outage: Arc<Outage>,
    pub(crate) tasks: TaskTracker,
    pub(crate) cancel: CancellationToken,
}

/// All watches of a process.
pub(crate) struct Watches {
    pumps: Arc<Pumps>,
    known: Mutex<Known>,
    next_listener: AtomicU64,
}

#[derive(Default)]
struct Known {
    /// What sharded collections hold.
    wanted: Shards,
    shared: HashMap<(Arc<Resource>, Scope), Weak<Shared>>,
    strays: HashMap<(Arc<Resource>, String), Weak<Strays>>,
}

impl Known {
    /// A collection that somebody has, and what keeps it.
    fn running(&self, key: &(Arc<Resource>, Scope)) -> Option<(Arc<Shared>, Arc<Hold>)> {
        let shared = self.shared.get(key)?.upgrade()?;
        let hold = shared.hold()?;
        Some((shared, hold))
    }
}

/// A listener's hold on a collection, whose streams end with the last one.
pub(crate) struct Subscription {
    shared: Arc<Shared>,
    listener: u64,
    /// Nobody had the collection before: its first list begins after this.
    is_first: bool,
    _hold: Arc<Hold>,
}

/// Ends the pumps when the last subscription is gone; they themselves hold the collection, too.
pub(crate) struct Hold {
    pub(crate) cancel: CancellationToken,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

/// Of one kind, for metrics.
#[derive(Default)]
struct Totals {
    objects: usize,
    bytes: usize,
    streams: usize,
}

impl Watches {
    pub(crate) fn new(client: Client, tasks: TaskTracker, cancel: CancellationToken) -> Self {
        let pumps = Arc::new(Pumps { client, outage: Arc::default(), tasks, cancel });
        Self { pumps, known: Mutex::default(), next_listener: AtomicU64::new(0) }
    }

    /// The API server answers again: watches that pause after a failure try again at once.
    pub(crate) fn rouse(&self) {
        self.pumps.outage.rouse();
    }

    /// Subscribes to a collection, which is started if nobody has it yet. Children are shown by that of everything, if
    /// somebody has it. One of children stays as it is when somebody wants everything later: what it keeps without content
    /// would have to be read again, under those who use it.
    pub(crate) fn subscribe(&self, resource: Arc<Resource>, scope: Scope, listener: Arc<dyn Listener>) -> Subscription {
        let id = self.next_listener.fetch_add(1, Ordering::Relaxed);
        let mut known = self.known.lock();
        known.shared.retain(|_, shared| shared.strong_count() > 0);
        let key = (resource, scope);
        let whole = (key.1 == Scope::Children).then(|| (Arc::clone(&key.0), Scope::Everything));
        let running = whole.and_then(|whole| known.running(&whole)).or_else(|| known.running(&key));
        let is_first = running.is_none();
        let (shared, hold) = running.unwrap_or_else(|| {
            let hold = Arc::new(Hold { cancel: self.pumps.cancel.child_token() });
            let shared = Shared::new(Arc::clone(&key.0), key.1.clone(), &self.pumps, &hold);
            shared.want(if matches!(key.1, Scope::Sharded(_)) { known.wanted } else { Shards::ALL });
            known.shared.insert(key, Arc::downgrade(&shared));
            (shared, hold)
        });
        shared.listen(id, listener);
        Subscription { shared, listener: id, is_first, _hold: hold }
    }

    /// Has all sharded collections, also later ones, hold these shards: what this member owns, or warms. What is lost goes
    /// at once.
    pub(crate) fn want(&self, shards: Shards) {
        let mut known = self.known.lock();
        known.wanted = shards;
        // Under this lock, so that the last to come here has the last word.
        for shared in known.shared.values().filter_map(Weak::upgrade).filter(|shared| shared.is_sharded()) {
            shared.want(shards);
        }
    }

    /// Has `stray` see the metadata of all that a label selector selects, and of what it selects later: what there is, and
    /// each change. All of it comes again when somebody else asks for the same.
    pub(crate) fn strays(&self, resource: Arc<Resource>, selector: String, stray: Arc<dyn Stray>) -> StraySubscription {
        let id = self.next_listener.fetch_add(1, Ordering::Relaxed);
        let mut known = self.known.lock();
        known.strays.retain(|_, strays| strays.strong_count() > 0);
        let key = (resource, selector);
        let strays = known.strays.get(&key).and_then(Weak::upgrade).unwrap_or_else(|| {
            let strays = Strays::new(Arc::clone(&key.0), key.1.clone(), &self.pumps);
            known.strays.insert(key, Arc::downgrade(&strays));
            strays
        });
        drop(known);
        strays.subscribe(id, stray)
    }

    /// Objects, bytes and streams of each kind, for metrics.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        // Collections of one kind count together.
        let mut kinds: BTreeMap<(String, String), Totals> = BTreeMap::new();
        let kind = |resource: &Resource| (resource.api_version.group().to_owned(), resource.kind.to_string());
        let known = self.known.lock();
        let shared: Vec<_> = known.shared.values().filter_map(Weak::upgrade).collect();
        let strays: Vec<_> = known.strays.values().filter_map(Weak::upgrade).collect();
        drop(known);
        for shared in shared {
            let totals = kinds.entry(kind(shared.resource())).or_default();
            totals.streams += shared.stream_count();
            let store = shared.store();
            totals.objects += store.len();
            totals.bytes += store.bytes();
        }
        for strays in strays {
            kinds.entry(kind(strays.resource())).or_default().streams += 1;
        }
        let by_kind = |value: fn(&Totals) -> usize| {
            let labels = |(group, kind): &(String, String)| vec![("group", group.clone()), ("kind", kind.clone())];
            kinds.iter().map(|(kind, totals)| (labels(kind), count(value(totals)))).collect()
        };
        vec![
            Sample::gauge("ringmaster_cache_objects", "Objects in the cache", by_kind(|totals| totals.objects)),
            Sample::gauge(
                "ringmaster_cache_bytes",
                "Bytes of the objects in the cache",
                by_kind(|totals| totals.bytes),
            ),
            Sample::gauge(
                "ringmaster_watch_streams",
                "Watches that run or are tried",
                by_kind(|totals| totals.streams),
            ),
        ]
    }
}

impl Subscription {
    /// The collection.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Whether all that the collection holds was listed since the subscription began.
    pub(crate) fn is_first(&self) -> bool {
        self.is_first
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.leave(self.listener);
    }
}
