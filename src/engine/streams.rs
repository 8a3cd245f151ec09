//! A collection as controllers share it: its objects, its streams as tasks, and who is told of changes.
//!
//! The shell around [`Collection`], which decides what counts and when streams begin, merge and end. Never holds a lock
//! while listeners are told.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};

use parking_lot::{MappedRwLockReadGuard, Mutex, MutexGuard, RwLock, RwLockReadGuard};
use ringmaster_cluster::{Error, Roused, Sink, Watch, run_pump};
use ringmaster_core::cache::{Change, Store};
use ringmaster_core::key::{ObjectKey, Resource, SyncKey, Uid, Version};
use ringmaster_core::object::Object;
use ringmaster_core::shards::Shards;
use ringmaster_core::watch::{Collection, Scope, Selection, StreamId};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::outage::Reach;
use crate::verify::Checks;
use crate::watches::{Hold, Listener, Pumps};

/// How a collection is doing.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub(crate) enum State {
    /// A first list isn't complete yet.
    #[default]
    Starting,
    /// Informed.
    Synced,
    /// Requests fail: a word, a sentence, and whether the kind isn't served (any more).
    Troubled(&'static str, String, bool),
}

/// Who listens, by number.
type Listeners = Arc<[(u64, Arc<dyn Listener>)]>;

/// One kind in one scope.
pub(crate) struct Shared {
    resource: Arc<Resource>,
    is_sharded: bool,
    /// Where its objects are, and what they are called, if not all are wanted.
    selection: Selection,
    pub(crate) pumps: Arc<Pumps>,
    /// Locked before the collection.
    running: Mutex<Running>,
    pub(crate) collection: RwLock<Collection>,
    /// Replaced as a whole, so that they are told under no lock.
    listeners: RwLock<Listeners>,
    state: watch::Sender<State>,
    pub(crate) checks: Checks,
    /// What the subscriptions hold: pumps hold the collection itself, and must end without them.
    hold: Weak<Hold>,
    me: Weak<Self>,
}

/// The streams as tasks.
struct Running {
    /// Ends all of them.
    cancel: CancellationToken,
    streams: BTreeMap<StreamId, Stream>,
}

struct Stream {
    cancel: CancellationToken,
    trouble: Option<Trouble>,
}

type Trouble = (&'static str, String, bool);

impl Shared {
    pub(crate) fn new(resource: Arc<Resource>, scope: Scope, pumps: &Arc<Pumps>, hold: &Arc<Hold>) -> Arc<Self> {
        Arc::new_cyclic(|me| Self {
            resource,
            is_sharded: matches!(scope, Scope::Sharded(_)),
            selection: match &scope {
                Scope::Selected(selection) => selection.clone(),
                Scope::Everything | Scope::Children | Scope::Sharded(_) => Selection::default(),
            },
            pumps: Arc::clone(pumps),
            running: Mutex::new(Running { cancel: hold.cancel.clone(), streams: BTreeMap::new() }),
            collection: RwLock::new(Collection::new(scope)),
            listeners: RwLock::new(Arc::default()),
            state: watch::Sender::new(State::Starting),
            checks: Checks::default(),
            hold: Arc::downgrade(hold),
            me: Weak::clone(me),
        })
    }

    pub(crate) fn resource(&self) -> &Arc<Resource> {
        &self.resource
    }

    /// Whether it holds what is wanted of it, not all.
    pub(crate) fn is_sharded(&self) -> bool {
        self.is_sharded
    }

    /// Where its objects are, if in one namespace.
    pub(crate) fn namespace(&self) -> &str {
        &self.selection.namespace
    }

    pub(crate) fn hold(&self) -> Option<Arc<Hold>> {
        self.hold.upgrade()
    }

    pub(crate) fn stream_count(&self) -> usize {
        self.collection.read().streams().len()
    }

    pub(crate) fn listen(&self, id: u64, listener: Arc<dyn Listener>) {
        let mut listeners = self.listeners.write();
        *listeners = listeners.iter().cloned().chain([(id, listener)]).collect();
    }

    pub(crate) fn leave(&self, id: u64) {
        let mut listeners = self.listeners.write();
        *listeners = listeners.iter().filter(|(other, _)| *other != id).cloned().collect();
    }

    /// The objects. Held briefly, never across an await.
    pub(crate) fn store(&self) -> MappedRwLockReadGuard<'_, Store> {
        RwLockReadGuard::map(self.collection.read(), Collection::store)
    }

    /// How it is doing, now and from now on; told whenever [`Self::informed`] or [`Self::troubled`] may have changed.
    pub(crate) fn state(&self) -> watch::Receiver<State> {
        self.state.subscribe()
    }

    /// Whether all that is wanted was listed once.
    pub(crate) fn is_synced(&self) -> bool {
        self.collection.read().is_informed()
    }

    /// The wanted shards whose first list was complete; of what isn't sharded, all or none.
    pub(crate) fn informed(&self) -> Shards {
        let collection = self.collection.read();
        match (self.is_sharded, collection.is_informed()) {
            (true, _) => collection.streams().informed(),
            (false, true) => Shards::ALL,
            (false, false) => Shards::NONE,
        }
    }

    /// Takes the answer to a read or a write of our own: what we wrote is what we read from now on. `settled` is what
    /// the object was written to look like. What isn't wanted isn't kept.
    pub(crate) fn answer(&self, object: Object, settled: Option<u64>, origin: Option<&SyncKey>) {
        let change = self.collection.write().answer(object, settled);
        self.tell(change, origin);
    }

    /// Takes the answer to a read or a delete of our own: the object is gone.
    pub(crate) fn gone(&self, key: &ObjectKey, uid: &Uid, origin: Option<&SyncKey>) {
        let change = self.collection.write().gone(key, uid);
        self.tell(change, origin);
    }

    /// From now on its orphans can be found by label.
    pub(crate) fn index_orphans(&self) {
        self.collection.write().index_orphans();
    }

    /// Other shards are wanted.
    pub(crate) fn want(&self, shards: Shards) {
        let mut running = self.running.lock();
        let wanted = self.collection.write().want(shards);
        running.end(&wanted.cancel);
        for (id, from) in wanted.start {
            self.start(&mut running, id, from);
        }
        self.changed(&running);
    }

    fn start(&self, running: &mut Running, id: StreamId, from: Option<Version>) {
        // Upgraded by whoever calls.
        let Some(shared) = self.me.upgrade() else { return };
        let cancel = running.cancel.child_token();
        let Selection { namespace, name, .. } = self.selection.clone();
        let watch = Watch { namespace, name, from, ..Watch::all(Arc::clone(&self.resource)) };
        let sink = Arc::new(StreamSink { shared, id, reach: Reach::new(&self.pumps.outage) });
        running.streams.insert(id, Stream { cancel: cancel.clone(), trouble: None });
        self.pumps.tasks.spawn(run_pump(self.pumps.client.clone(), watch, sink, clock::random, cancel));
    }

    /// Tells how it is doing.
    fn changed(&self, running: &MutexGuard<'_, Running>) {
        let state = match running.trouble() {
            Some((reason, text, not_served)) => State::Troubled(reason, text, not_served),
            None if self.is_synced() => State::Synced,
            None => State::Starting,
        };
        self.state.send_replace(state);
    }

    pub(crate) fn tell(&self, changes: impl IntoIterator<Item = Change>, origin: Option<&SyncKey>) {
        for change in changes {
            let listeners = Arc::clone(&self.listeners.read());
            for (_, listener) in &*listeners {
                listener.changed(&change, origin);
            }
        }
    }
}

impl Running {
    fn trouble(&self) -> Option<Trouble> {
        self.streams.values().find_map(|stream| stream.trouble.clone())
    }

    fn end(&mut self, streams: &[StreamId]) {
        for stream in streams.iter().filter_map(|id| self.streams.remove(id)) {
            stream.cancel.cancel();
        }
    }
}

/// What one stream's pump feeds. One that has ended may still be on its way here: nothing that it says counts.
struct StreamSink {
    shared: Arc<Shared>,
    id: StreamId,
    reach: Reach,
}

impl StreamSink {
    fn set_trouble(&self, trouble: Option<Trouble>) {
        let mut running = self.shared.running.lock();
        let Some(stream) = running.streams.get_mut(&self.id) else { return };
        stream.trouble = trouble;
        self.shared.changed(&running);
    }
}

impl Sink for StreamSink {
    fn list_begins(&self) -> String {
        let mut collection = self.shared.collection.write();
        let scope = collection.list_begins(self.id).unwrap_or_default();
        collection.selector(&scope)
    }

    fn watch_begins(&self, version: Version, ended: bool) -> (String, Version) {
        let mut running = self.shared.running.lock();
        let mut collection = self.shared.collection.write();
        let Some(resumed) = collection.resume(self.id, ended) else {
            return (collection.selector(&Shards::NONE), version);
        };
        let selector = collection.selector(&resumed.scope);
        drop(collection);
        if !resumed.cancel.is_empty() {
            running.end(&resumed.cancel);
            self.shared.changed(&running);
        }
        (selector, resumed.version)
    }

    fn applied(&self, object: Object) {
        let change = self.shared.collection.write().applied(self.id, object);
        self.shared.tell(change, None);
    }

    fn deleted(&self, object: Object) {
        let change = self.shared.collection.write().deleted(self.id, &object);
        self.shared.tell(change, None);
    }

    fn progressed(&self, version: Version) {
        self.shared.collection.write().progressed(self.id, version);
    }

    fn list_complete(&self, version: Version) {
        let changes = self.shared.collection.write().list_complete(self.id, version);
        self.shared.tell(changes, None);
        self.reach.answered();
        self.set_trouble(None);
    }

    fn list_aborted(&self) {
        self.shared.collection.write().list_aborted(self.id);
    }

    fn lost_track(&self) {
        self.shared.collection.write().lost_track(self.id);
    }

    fn trouble(&self, error: &Error, failures: u32) {
        let reason = self.reach.failed(&self.shared.resource, error, failures);
        self.set_trouble(Some((reason, error.to_string(), error.is_not_found())));
    }

    fn recovered(&self) {
        self.reach.answered();
        self.set_trouble(None);
    }

    fn roused(&self) -> Roused {
        self.reach.roused()
    }
}

#[cfg(test)]
#[path = "streams_tests.rs"]
mod tests;
