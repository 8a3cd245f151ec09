//! One hosted controller: its model, its watches, what is known of its hook and of single parents.
//!
//! Never calls a hook and never writes; see `sync`.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use foldhash::fast::FixedState;
use parking_lot::Mutex;
use ringmaster_core::cache::SelectorIndex;
use ringmaster_core::condition::HookHealth;
use ringmaster_core::controller::{Controller, UpdateStrategy};
use ringmaster_core::key::{ControllerId, ObjectKey, Resource, SyncKey, Uid};
use ringmaster_core::object::Object;
use ringmaster_hooks::Target;
use tokio::sync::Notify;

use crate::metrics::ControllerMetrics;
use crate::watches::Shared;

/// A controller that runs.
pub(crate) struct Hosted {
    /// Its number in the queue.
    pub(crate) id: ControllerId,
    /// What was declared.
    pub(crate) model: Controller,
    /// Where its sync hook is.
    pub(crate) target: Target,
    /// The parents' kind.
    pub(crate) parent: Arc<Resource>,
    /// The parents.
    pub(crate) parents: Arc<Shared>,
    /// The declared kinds of children, in their order.
    pub(crate) children: Vec<ChildKind>,
    /// What is counted of it.
    pub(crate) metrics: Arc<ControllerMetrics>,
    /// What its status is made of.
    pub(crate) board: Arc<crate::status::Board>,
    /// Whether all its watches are informed, so that changes lead to syncs.
    pub(crate) active: AtomicBool,
    /// A call was answered as if a kind weren't what it was when it was found.
    pub(crate) doubt: Notify,
    pub(crate) index: Mutex<ParentIndex>,
    pub(crate) notes: Mutex<HashMap<ObjectKey, Note, FixedState>>,
}

/// One declared kind of children.
pub(crate) struct ChildKind {
    /// The kind.
    pub(crate) resource: Arc<Resource>,
    /// What happens to a child that differs.
    pub(crate) strategy: UpdateStrategy,
    /// Its objects.
    pub(crate) shared: Arc<Shared>,
}

/// How an orphan finds the parents that may adopt it.
#[derive(Default)]
pub(crate) struct ParentIndex {
    /// By their selectors.
    pub(crate) selectors: SelectorIndex,
    /// By uid, where children are selected by it.
    pub(crate) by_uid: HashMap<Uid, ObjectKey, FixedState>,
}

/// What must be remembered of a parent between two syncs; most have nothing.
#[derive(Default)]
pub(crate) struct Note {
    /// Objects whose last write had no known outcome: index of the child kind (`None` for the parent itself) and key.
    pub(crate) unknown: BTreeSet<(Option<usize>, ObjectKey)>,
    /// The parent that the hook refused for good; no call until it changes.
    pub(crate) terminal: Option<Arc<Object>>,
    /// How often in a row the hook asked to be called later.
    postponed: u32,
    /// The parent for which the hook's answers change something at every call, and how many of them did so far.
    restless: Option<(Arc<Object>, u32)>,
}

impl Note {
    fn is_empty(&self) -> bool {
        self.unknown.is_empty() && self.terminal.is_none() && self.postponed == 0 && self.restless.is_none()
    }
}

impl Hosted {
    /// The queue's key for a parent.
    pub(crate) fn key(&self, parent: &ObjectKey) -> SyncKey {
        SyncKey { controller: self.id, parent: parent.clone() }
    }

    /// Whether a parent is one of this controller's.
    pub(crate) fn selects(&self, parent: &Object) -> bool {
        let selector = &self.model.parent.selector;
        selector.is_everything() || selector.matches(&parent.labels())
    }

    /// The keys of all its parents.
    pub(crate) fn parent_keys(&self) -> Vec<SyncKey> {
        let store = self.parents.store();
        store.iter().filter(|parent| self.selects(parent)).map(|parent| self.key(parent.key())).collect()
    }

    /// How many parents it has.
    pub(crate) fn parent_count(&self) -> usize {
        let store = self.parents.store();
        if self.model.parent.selector.is_everything() {
            return store.len();
        }
        store.iter().filter(|parent| self.selects(parent)).count()
    }

    /// Whether changes lead to syncs.
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Where orphans of a parent may lie: its namespace, or anywhere for a cluster-scoped parent.
    pub(crate) fn orphan_namespace<'a>(&self, parent: &'a ObjectKey) -> Option<&'a str> {
        self.parent.namespaced.then(|| parent.namespace())
    }

    /// Notes what the hook's last call showed.
    pub(crate) fn hook_health(&self, health: HookHealth) -> bool {
        self.board.set_hook(health)
    }

    /// Notes that an object must be read before the next sync.
    pub(crate) fn note_unknown(&self, parent: &ObjectKey, kind: Option<usize>, object: &ObjectKey) {
        let mut notes = self.notes.lock();
        notes.entry(parent.clone()).or_default().unknown.insert((kind, object.clone()));
    }

    /// What must be read before the next sync.
    pub(crate) fn unknown(&self, parent: &ObjectKey) -> Vec<(Option<usize>, ObjectKey)> {
        self.notes.lock().get(parent).map(|note| note.unknown.iter().cloned().collect()).unwrap_or_default()
    }

    /// It was read.
    pub(crate) fn known(&self, parent: &ObjectKey, kind: Option<usize>, object: &ObjectKey) {
        let mut notes = self.notes.lock();
        if let Some(note) = notes.get_mut(parent) {
            note.unknown.remove(&(kind, object.clone()));
            if note.is_empty() {
                notes.remove(parent);
            }
        }
    }

    /// The hook refused the parent for good.
    pub(crate) fn refused(&self, parent: Arc<Object>) {
        let key = parent.key().clone();
        self.notes.lock().entry(key).or_default().terminal = Some(parent);
    }

    /// The hook asked to be called later; says how often in a row.
    pub(crate) fn postponed(&self, parent: &ObjectKey) -> u32 {
        let mut notes = self.notes.lock();
        let note = notes.entry(parent.clone()).or_default();
        note.postponed = note.postponed.saturating_add(1);
        note.postponed
    }

    /// The hook answered: it neither refuses the parent nor asks for time.
    pub(crate) fn answered(&self, parent: &ObjectKey) {
        let mut notes = self.notes.lock();
        if let Some(note) = notes.get_mut(parent) {
            (note.terminal, note.postponed) = (None, 0);
            if note.is_empty() {
                notes.remove(parent);
            }
        }
    }

    /// One more sync in a row wrote something, although the last ones already did; says how many have since the parent
    /// itself changed last.
    pub(crate) fn restless(&self, parent: &Arc<Object>) -> u32 {
        let mut notes = self.notes.lock();
        let note = notes.entry(parent.key().clone()).or_default();
        let known = note.restless.take().filter(|(known, _)| parent.differs_in_status_only(known));
        let count = known.map_or(0, |(_, count)| count).saturating_add(1);
        note.restless = Some((Arc::clone(parent), count));
        count
    }

    /// A sync found all as it shall be.
    pub(crate) fn at_rest(&self, parent: &ObjectKey) {
        let mut notes = self.notes.lock();
        if let Some(note) = notes.get_mut(parent) {
            note.restless = None;
            if note.is_empty() {
                notes.remove(parent);
            }
        }
    }

    /// Whether the hook refused this state of the parent for good.
    pub(crate) fn is_terminal(&self, parent: &Object) -> bool {
        let notes = self.notes.lock();
        let refused = notes.get(parent.key()).and_then(|note| note.terminal.as_ref());
        refused.is_some_and(|refused| parent.differs_in_status_only(refused))
    }

    /// Parents that the hook refused for good.
    pub(crate) fn terminal_count(&self) -> usize {
        self.notes.lock().values().filter(|note| note.terminal.is_some()).count()
    }

    /// Whether a parent is there, and is one of this controller's.
    pub(crate) fn has(&self, parent: &ObjectKey) -> bool {
        self.parents.store().get(parent).is_some_and(|parent| self.selects(parent))
    }

    /// The parent is gone, or isn't this controller's any more.
    pub(crate) fn forget_notes(&self, parent: &ObjectKey) {
        self.notes.lock().remove(parent);
        self.board.not_failing(parent);
    }
}
