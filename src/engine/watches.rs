//! Shared watches: one pump and one store per kind and selector, however many controllers need it.
//!
//! Never decides what a change means: listeners do. A watch runs while somebody is subscribed to it.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Weak};
use std::time::Instant;

use parking_lot::{Mutex, RwLock, RwLockReadGuard};
use ringmaster_cluster::{Client, Error, Sink, Watch, run_pump};
use ringmaster_core::cache::{Change, FOR_EVER, Store};
use ringmaster_core::key::{ObjectKey, SyncKey, Uid, Version};
use ringmaster_core::object::Object;
use ringmaster_core::selector::Selector;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::clock;
use crate::host::UNREACHABLE;
use crate::metrics::{Sample, count};
use crate::outage::Outage;

/// Who wants to know of changes. Called in the order of events, from one task or from whoever wrote; must not block.
pub(crate) trait Listener: Send + Sync {
    /// Something changed. `origin` is the sync whose own write did it, if one did. Changes that a watch and an answer
    /// bring may be told out of order: what the store holds is what counts.
    fn changed(&self, change: &Change, origin: Option<&SyncKey>);
}

/// How a watch is doing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) enum State {
    /// The first list isn't complete yet.
    #[default]
    Starting,
    /// Informed.
    Synced,
    /// Its requests fail: a word, a sentence, and whether the kind isn't served (any more).
    Troubled(&'static str, String, bool),
}

/// One kind under one selector.
pub(crate) struct Shared {
    watch: Watch,
    /// What the watch selects by.
    selector: Selector,
    store: RwLock<Store>,
    listeners: RwLock<Vec<(u64, Arc<dyn Listener>)>>,
    state: watch::Sender<State>,
    synced_once: AtomicBool,
    outage: Arc<Outage>,
    unreachable: AtomicBool,
    /// What the subscriptions hold: the pump holds the watch itself, and must end without them.
    hold: Mutex<Weak<Hold>>,
}

/// All watches of a process.
pub(crate) struct Watches {
    client: Client,
    outage: Arc<Outage>,
    known: Mutex<HashMap<Watch, Weak<Shared>>>,
    next_listener: AtomicU64,
    tasks: TaskTracker,
    cancel: CancellationToken,
}

/// A listener's hold on a watch; the watch ends with its last subscription.
pub(crate) struct Subscription {
    shared: Arc<Shared>,
    listener: u64,
    _hold: Arc<Hold>,
}

/// Ends the pump when the last subscription is gone; the pump itself holds the watch too.
struct Hold {
    cancel: CancellationToken,
}

impl Drop for Hold {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

impl Watches {
    pub(crate) fn new(client: Client, tasks: TaskTracker, cancel: CancellationToken) -> Self {
        Self {
            client,
            outage: Arc::default(),
            known: Mutex::default(),
            next_listener: AtomicU64::new(0),
            tasks,
            cancel,
        }
    }

    /// Subscribes to a watch, which is started if nobody has it yet.
    pub(crate) fn subscribe(&self, watch: Watch, listener: Arc<dyn Listener>) -> Subscription {
        let id = self.next_listener.fetch_add(1, Ordering::Relaxed);
        let mut known = self.known.lock();
        known.retain(|_, shared| shared.strong_count() > 0);
        let running = known.get(&watch).and_then(Weak::upgrade).and_then(|shared| {
            let hold = shared.hold.lock().upgrade()?;
            Some((shared, hold))
        });
        let (shared, hold) = running.unwrap_or_else(|| self.start(&mut known, watch));
        shared.listeners.write().push((id, listener));
        Subscription { shared, listener: id, _hold: hold }
    }

    fn start(&self, known: &mut HashMap<Watch, Weak<Shared>>, watch: Watch) -> (Arc<Shared>, Arc<Hold>) {
        let cancel = self.cancel.child_token();
        let hold = Arc::new(Hold { cancel: cancel.clone() });
        let shared = Arc::new(Shared {
            watch: watch.clone(),
            // Made from a selector; one that can't be read would select nothing at the API server either.
            selector: Selector::parse(&watch.selector).unwrap_or_default(),
            store: RwLock::default(),
            listeners: RwLock::default(),
            state: watch::Sender::new(State::Starting),
            synced_once: AtomicBool::new(false),
            outage: Arc::clone(&self.outage),
            unreachable: AtomicBool::new(false),
            hold: Mutex::new(Arc::downgrade(&hold)),
        });
        known.insert(watch.clone(), Arc::downgrade(&shared));
        let sink: Arc<dyn Sink> = Arc::clone(&shared) as Arc<dyn Sink>;
        self.tasks.spawn(run_pump(self.client.clone(), watch, sink, clock::random, cancel));
        (shared, hold)
    }

    /// Objects and bytes of each watch, for metrics.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        // Watches of one kind with different selectors count together.
        let mut kinds: BTreeMap<(String, String), (usize, usize)> = BTreeMap::new();
        for shared in self.known.lock().values().filter_map(Weak::upgrade) {
            let resource = &shared.watch.resource;
            let kind = (resource.api_version.group().to_owned(), resource.kind.to_string());
            let store = shared.store.read();
            let (objects, bytes) = kinds.entry(kind).or_default();
            *objects += store.len();
            *bytes += store.bytes();
        }
        let by_kind = |value: fn(&(usize, usize)) -> usize| {
            let labels = |(group, kind): &(String, String)| vec![("group", group.clone()), ("kind", kind.clone())];
            kinds.iter().map(|(kind, both)| (labels(kind), count(value(both)))).collect()
        };
        vec![
            Sample::gauge("ringmaster_cache_objects", "Objects in the cache", by_kind(|(objects, _)| *objects)),
            Sample::gauge("ringmaster_cache_bytes", "Bytes of the objects in the cache", by_kind(|(_, bytes)| *bytes)),
        ]
    }
}

impl Subscription {
    /// The watch.
    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.shared.listeners.write().retain(|(id, _)| *id != self.listener);
    }
}

impl Shared {
    /// The objects. Held briefly, never across an await.
    pub(crate) fn store(&self) -> RwLockReadGuard<'_, Store> {
        self.store.read()
    }

    /// How the watch is doing, now and from now on.
    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Whether a first list was complete.
    pub(crate) fn is_synced(&self) -> bool {
        self.synced_once.load(Ordering::Acquire)
    }

    /// Takes the answer to a read or a write of our own: what we wrote is what we read from now on. `settled` is what
    /// the object was written to look like.
    pub(crate) fn answer(&self, object: Object, settled: Option<u64>, origin: Option<&SyncKey>) {
        // An answer shows objects that the watch doesn't: those that were relabelled out of its sight meanwhile.
        if !self.selector.is_everything() && !self.selector.matches(&object.labels()) {
            return;
        }
        let (key, version) = (object.key().clone(), object.version());
        if let Some(hash) = settled {
            object.settle(hash);
        }
        let change = self.store.write().apply(object);
        match change {
            Some(change) => self.tell(&change, origin),
            // The watch was faster, or the write changed nothing: the note still belongs on what is there.
            None => {
                if let (Some(hash), Some(known)) = (settled, self.store.read().get(&key))
                    && known.version() == version
                {
                    known.settle(hash);
                }
            }
        }
    }

    /// Takes the answer to a read or a delete of our own: the object is gone.
    pub(crate) fn gone(&self, key: &ObjectKey, uid: &Uid, origin: Option<&SyncKey>) {
        self.delete(key, uid, FOR_EVER, origin);
    }

    /// From now on its orphans can be found by label.
    pub(crate) fn index_orphans(&self) {
        self.store.write().index_orphans();
    }

    fn delete(&self, key: &ObjectKey, uid: &Uid, until: Version, origin: Option<&SyncKey>) {
        let change = self.store.write().delete(key, uid, until);
        if let Some(change) = change {
            self.tell(&change, origin);
        }
    }

    /// The API server answered.
    fn reached(&self) {
        let before = self.unreachable.swap(false, Ordering::Relaxed);
        if let Some(after) = self.outage.reached(before, Instant::now()) {
            info!(after_s = after.as_secs(), "the API server is reached again");
        }
    }

    fn tell(&self, change: &Change, origin: Option<&SyncKey>) {
        for (_, listener) in self.listeners.read().iter() {
            listener.changed(change, origin);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if *self.unreachable.get_mut() {
            self.outage.left();
        }
    }
}

impl Sink for Shared {
    fn list_begins(&self) {
        self.store.write().begin_relist();
    }

    fn applied(&self, object: Object) {
        let change = self.store.write().observe(object);
        if let Some(change) = change {
            self.tell(&change, None);
        }
    }

    fn deleted(&self, object: Object) {
        self.delete(object.key(), object.uid(), object.version(), None);
    }

    fn list_complete(&self, version: Version) {
        let changes = self.store.write().end_relist(version);
        for change in &changes {
            self.tell(change, None);
        }
        self.synced_once.store(true, Ordering::Release);
        self.reached();
        self.state.send_replace(State::Synced);
    }

    fn list_aborted(&self) {
        self.store.write().abort_relist();
    }

    fn trouble(&self, error: &Error, failures: u32) {
        let resource = &self.watch.resource;
        let unreachable = error.code().is_none();
        if !unreachable {
            self.reached();
        } else if !self.unreachable.swap(true, Ordering::Relaxed) && self.outage.lost(Instant::now()) {
            warn!("the API server can't be reached: {error}; trying again");
        }
        // One line when it begins, and a reminder at each doubling; an outage is one line for all kinds.
        if !unreachable && failures.is_power_of_two() && !error.is_not_found() {
            warn!(kind = %resource, failures, "watching fails: {error}");
        }
        let reason = if unreachable { UNREACHABLE } else { error.reason() };
        self.state.send_replace(State::Troubled(reason, error.to_string(), error.is_not_found()));
    }

    fn recovered(&self) {
        self.reached();
        self.state.send_replace(if self.is_synced() { State::Synced } else { State::Starting });
    }
}
