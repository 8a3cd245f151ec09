//! Objects of watched kinds that have no label of a shard, as streams of metadata show them; none of them is kept.
//!
//! Never labels anything: it notes what is to be looked at, and queues the parent whose sync does.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use foldhash::fast::FixedState;
use parking_lot::Mutex;
use ringmaster_core::hash::xxh;
use ringmaster_core::key::{ObjectKey, Uid};
use ringmaster_core::object::Object;
use ringmaster_core::queue::Priority;
use ringmaster_core::selector::Selector;

use crate::dispatch::Dispatch;
use crate::hosted::Hosted;
use crate::route::{parents_of, running};
use crate::strays::Stray;

/// So many marks of children without a label are remembered, 8 bytes each; beyond, any parent may have some.
const MAX_MARKS: usize = 1 << 18;

/// Parents of a controller that have no label, or one that is no shard's number.
pub(crate) struct StrayParents {
    pub(crate) hosted: Arc<OnceLock<Weak<Hosted>>>,
    pub(crate) dispatch: Arc<Dispatch>,
}

impl Stray for StrayParents {
    fn seen(&self, object: &Arc<Object>) {
        let Some(hosted) = running(&self.hosted) else { return };
        stray_parent(&hosted, &self.dispatch, object);
    }
}

/// A parent without its label: its sync gives it one, if it is this member's.
pub(crate) fn stray_parent(hosted: &Hosted, dispatch: &Dispatch, object: &Arc<Object>) {
    // What passes before a shard is started is searched for afterwards.
    if !hosted.holds(object.key()) || !hosted.concerns(object) {
        return;
    }
    hosted.note_unlabelled(object.key(), object.version(), Some(object));
    dispatch.add(hosted.key(object.key()), Priority::Fresh);
}

/// Objects of a kind of children that have no owner's label.
pub(crate) struct StrayChildren {
    pub(crate) hosted: Arc<OnceLock<Weak<Hosted>>>,
    pub(crate) dispatch: Arc<Dispatch>,
    /// Index of the declared kind.
    pub(crate) kind: usize,
    marks: Mutex<HashSet<u64, FixedState>>,
    /// Everything that was there has passed.
    listed: AtomicBool,
}

impl StrayChildren {
    pub(crate) fn new(hosted: Arc<OnceLock<Weak<Hosted>>>, dispatch: Arc<Dispatch>, kind: usize) -> Self {
        Self { hosted, dispatch, kind, marks: Mutex::default(), listed: AtomicBool::new(false) }
    }

    /// Whether a child of this parent, or an orphan that it would adopt, may have passed; never `false` if one did.
    pub(crate) fn may_have(&self, parent: &Uid, namespace: Option<&str>, selector: &Selector) -> bool {
        if !self.listed.load(Ordering::Acquire) {
            return true;
        }
        let marks = self.marks.lock();
        if selector.is_everything() {
            // A decorator's, which adopts nothing.
            return marks.len() >= MAX_MARKS || marks.contains(&uid_mark(parent));
        }
        let Some((label, value)) = selector.exact_pairs().next() else { return !marks.is_empty() };
        let pair = |namespace: &str| marks.contains(&pair_mark(namespace, label, value));
        marks.len() >= MAX_MARKS || marks.contains(&uid_mark(parent)) || pair(namespace.unwrap_or(ANYWHERE))
    }

    fn mark(&self, object: &Object) {
        let mut marks = self.marks.lock();
        if marks.len() >= MAX_MARKS {
            return;
        }
        if let Some(owner) = object.controller() {
            marks.insert(uid_mark(owner));
            return;
        }
        // A cluster-scoped parent adopts in any namespace.
        for namespace in [object.key().namespace(), ANYWHERE] {
            marks.extend(object.labels().iter().map(|(label, value)| pair_mark(namespace, label, value)));
        }
    }
}

/// In place of a namespace: no namespace is called so.
const ANYWHERE: &str = "*";

fn uid_mark(uid: &Uid) -> u64 {
    xxh(uid.to_string().as_bytes())
}

fn pair_mark(namespace: &str, label: &str, value: &str) -> u64 {
    xxh([namespace, "/", label, "=", value].concat().as_bytes())
}

impl Stray for StrayChildren {
    fn listed(&self) {
        self.listed.store(true, Ordering::Release);
    }

    fn seen(&self, object: &Arc<Object>) {
        self.mark(object);
        let Some(hosted) = running(&self.hosted) else { return };
        let mut parents: Vec<ObjectKey> = Vec::new();
        parents_of(&hosted, object, &mut parents);
        for parent in parents.into_iter().filter(|parent| hosted.holds(parent)) {
            hosted.note_unknown(&parent, Some(self.kind), object.key());
            self.dispatch.add(hosted.key(&parent), Priority::Child);
        }
    }
}
