//! The objects of one kind under one selector, by key, by controlling owner, and orphans by label.
//!
//! Everything enters by resource version: an older event never replaces a newer answer. What was deleted stays
//! deleted, whatever arrives late. Never holds an object twice, and never knows which watches there are: each brings
//! its own [`Relist`].

use std::collections::hash_map::Entry;
use std::collections::{BTreeSet, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use foldhash::fast::FixedState;

use crate::hash::xxh;
use crate::key::{ObjectKey, Uid, Version};
use crate::object::Object;

type Map<K, V> = HashMap<K, V, FixedState>;

/// How many uids of deleted objects are remembered so that a late answer or event doesn't bring one back.
/// Answers are at most a request timeout late; this is minutes of deletions at full speed.
pub const MAX_TOMBSTONES: usize = 32_768;

/// A deletion that no version can undo: the object itself is gone, not only out of a selector's sight.
pub const FOR_EVER: Version = Version(u64::MAX);

/// What one event or answer changed.
#[derive(Clone, Debug)]
pub enum Change {
    /// The object is new or has a new version.
    Applied {
        /// What was known before.
        old: Option<Arc<Object>>,
        /// What is known now.
        new: Arc<Object>,
    },
    /// The object is gone.
    Deleted {
        /// What was known last.
        old: Arc<Object>,
        /// Whether it doesn't exist any more. What is only seen under a selector may have left its sight.
        certain: bool,
    },
}

impl Change {
    /// The object's key.
    #[must_use]
    pub fn key(&self) -> &ObjectKey {
        match self {
            Self::Applied { new, .. } => new.key(),
            Self::Deleted { old, .. } => old.key(),
        }
    }
}

/// The objects of one kind.
#[derive(Debug, Default)]
pub struct Store {
    objects: Map<ObjectKey, Arc<Object>>,
    /// Sorted, so that the typical three children cost three words each and ten thousand are still found fast.
    owned: Map<Uid, Vec<ObjectKey>>,
    /// Kept only for kinds whose orphans somebody may adopt.
    orphans: Option<Orphans>,
    /// From which version on each may be seen again.
    gone: Map<Uid, Version>,
    gone_order: VecDeque<Uid>,
    /// Whether it is fed under a selector, so that what is missing may exist all the same.
    partial: bool,
    bytes: usize,
}

/// What one list has named so far.
#[derive(Debug, Default)]
pub struct Relist {
    seen: Map<ObjectKey, Uid>,
}

impl Relist {
    /// The list names an object.
    pub fn saw(&mut self, key: &ObjectKey, uid: &Uid) {
        self.seen.insert(key.clone(), uid.clone());
    }

    /// What was named so far of an object counts no more.
    pub(crate) fn forget(&mut self, key: &ObjectKey) {
        self.seen.remove(key);
    }
}

/// The objects without a controlling owner.
#[derive(Debug, Default)]
struct Orphans {
    all: BTreeSet<ObjectKey>,
    /// By a hash of label and value: a collision only means one more object to look at.
    by_label: Map<u64, Bucket>,
}

/// The orphans with one label; most labels are on one object only.
#[derive(Debug)]
enum Bucket {
    One(ObjectKey),
    Many(BTreeSet<ObjectKey>),
}

impl Store {
    /// An empty store, of all objects of the kind.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// An empty store, of what selectors show of the kind.
    #[must_use]
    pub fn partial() -> Self {
        Self { partial: true, ..Self::default() }
    }

    /// Takes an object from a list, an event, or an answer. `None` if it changes nothing: the same or a newer version is
    /// known, or the object is known to be deleted. What is known under its name may be gone with it.
    pub fn apply(&mut self, object: Object) -> Option<Change> {
        if self.gone.contains_key(object.uid()) {
            if !self.may_show(object.uid(), object.version()) {
                return self.outlived_by(&object);
            }
            // It only was out of sight. Its place in the order is left, and means nothing.
            self.gone.remove(object.uid());
        }
        let new = Arc::new(object);
        let old = match self.objects.entry(new.key().clone()) {
            Entry::Occupied(mut entry) => {
                let known = entry.get();
                let same = known.version() == new.version() && known.version() != Version::UNKNOWN;
                if same || new.version().is_before(known.version()) {
                    return None;
                }
                Some(entry.insert(Arc::clone(&new)))
            }
            Entry::Vacant(entry) => {
                entry.insert(Arc::clone(&new));
                None
            }
        };
        if let Some(old) = &old {
            self.unindex(old);
            self.bytes -= old.cost_bytes();
            if old.uid() != new.uid() {
                self.bury(old.uid().clone(), FOR_EVER);
            } else if new.is_same_but_status(old) {
                new.settle_as(old);
            }
        }
        self.index(&new);
        self.bytes += new.cost_bytes();
        Some(Change::Applied { old, new })
    }

    /// An object that is gone had the name after another: that one is gone, too.
    fn outlived_by(&mut self, later: &Object) -> Option<Change> {
        let known = self.objects.get(later.key())?;
        if known.uid() == later.uid() || !known.version().is_before(later.version()) {
            return None;
        }
        let uid = known.uid().clone();
        self.bury(uid, FOR_EVER);
        self.remove(later.key(), true)
    }

    /// Takes word that an object is gone: from a watch event as of its version, or from the answer to a delete of our
    /// own [`FOR_EVER`]. Older states of it are stale from now on; the state of that very version isn't, because another
    /// selector may show it. Where a newer state is known, nothing else changes.
    pub fn delete(&mut self, key: &ObjectKey, uid: &Uid, until: Version) -> Option<Change> {
        self.bury(uid.clone(), until);
        let known = self.objects.get(key).filter(|known| known.uid() == uid)?;
        // The answer to a write that ended an object carries the version of its end.
        let ended = || known.is_deleting() && known.finalizers().is_empty();
        let moved = self.partial && until == known.version() && until != Version::UNKNOWN && !ended();
        if moved || until.is_before(known.version()) {
            return None;
        }
        self.remove(key, !self.partial || until == FOR_EVER)
    }

    /// An object exists as given, but isn't to be held: older states of it, and whatever had its name before, are over.
    pub fn pass_over(&mut self, object: &Object) -> Option<Change> {
        let change = self.delete(object.key(), object.uid(), object.version());
        change.or_else(|| self.outlived_by(object))
    }

    /// A list is complete as of `version`. Objects `in_scope` of it that it didn't name are gone, unless something that
    /// is newer than the list brought them.
    pub fn end_relist(&mut self, relist: &Relist, version: Version, in_scope: impl Fn(&Object) -> bool) -> Vec<Change> {
        let is_missing = |object: &Object| {
            relist.seen.get(object.key()) != Some(object.uid())
                && !version.is_before(object.version())
                && in_scope(object)
        };
        let missing: Vec<_> = self
            .objects
            .values()
            .filter(|object| is_missing(object))
            .map(|object| (object.key().clone(), object.uid().clone(), object.version()))
            .collect();
        missing
            .into_iter()
            .filter_map(|(key, uid, known)| {
                let next = Version(known.0.saturating_add(1));
                // When it left a selector's sight isn't known: a later state may be in another's.
                let again = if known == Version::UNKNOWN || version == Version::UNKNOWN {
                    Version::UNKNOWN
                } else if self.partial {
                    next
                } else {
                    next.max(version)
                };
                self.bury(uid, again);
                self.remove(&key, !self.partial)
            })
            .collect()
    }

    /// Drops objects of which nothing is known any more: it isn't told, and they may come back as they were. Gives back
    /// their keys.
    pub fn evict(&mut self, is_dropped: impl Fn(&Object) -> bool) -> Vec<ObjectKey> {
        let dropped: Vec<_> = self.objects.values().filter(|o| is_dropped(o)).map(|o| o.key().clone()).collect();
        for key in &dropped {
            self.remove(key, false);
        }
        dropped
    }

    /// Whether it would take the object of this uid in this version, had it none.
    #[must_use]
    pub fn may_show(&self, uid: &Uid, version: Version) -> bool {
        self.gone.get(uid).is_none_or(|again| *again != Version::UNKNOWN && *again <= version)
    }

    /// One object.
    #[must_use]
    pub fn get(&self, key: &ObjectKey) -> Option<&Arc<Object>> {
        self.objects.get(key)
    }

    /// All objects, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Object>> {
        self.objects.values()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.objects.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.objects.is_empty()
    }

    /// What they cost in memory.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The objects whose controlling owner has this uid, by key.
    pub fn owned_by<'a>(&'a self, owner: &Uid) -> impl Iterator<Item = &'a Arc<Object>> + use<'a> {
        self.owned.get(owner).into_iter().flatten().filter_map(|key| self.objects.get(key))
    }

    /// The objects without a controlling owner that carry the label, or all of them for `None`; of one namespace, or
    /// of all for `None`.
    pub fn orphans<'a>(
        &'a self,
        namespace: Option<&str>,
        label: Option<(&str, &str)>,
    ) -> Box<dyn Iterator<Item = &'a Arc<Object>> + 'a> {
        let Some(orphans) = &self.orphans else { return Box::new(std::iter::empty()) };
        let bucket = match label {
            None => &orphans.all,
            Some((key, value)) => match orphans.by_label.get(&label_hash(key, value)) {
                Some(Bucket::Many(keys)) => keys,
                Some(Bucket::One(key)) => {
                    let here = namespace.is_none_or(|namespace| key.namespace() == namespace);
                    return Box::new(self.objects.get(key).filter(|_| here).into_iter());
                }
                None => return Box::new(std::iter::empty()),
            },
        };
        match namespace {
            None => Box::new(bucket.iter().filter_map(|key| self.objects.get(key))),
            // Keys are `namespace/name`, and '0' is the character after '/'.
            Some(namespace) => {
                let (from, to) = (format!("{namespace}/"), format!("{namespace}0"));
                let range = bucket.range::<str, _>((Bound::Included(from.as_str()), Bound::Excluded(to.as_str())));
                Box::new(range.filter_map(|key| self.objects.get(key)))
            }
        }
    }

    fn remove(&mut self, key: &ObjectKey, certain: bool) -> Option<Change> {
        let old = self.objects.remove(key)?;
        self.unindex(&old);
        self.bytes -= old.cost_bytes();
        Some(Change::Deleted { old, certain })
    }

    fn index(&mut self, object: &Arc<Object>) {
        let key = object.key();
        if let Some(owner) = object.controller() {
            let keys = self.owned.entry(owner.clone()).or_default();
            if let Err(at) = keys.binary_search(key) {
                keys.insert(at, key.clone());
            }
        } else if let Some(orphans) = &mut self.orphans {
            orphans.insert(object);
        }
    }

    fn unindex(&mut self, object: &Arc<Object>) {
        let key = object.key();
        if let Some(owner) = object.controller() {
            if let Some(keys) = self.owned.get_mut(owner) {
                if let Ok(at) = keys.binary_search(key) {
                    keys.remove(at);
                }
                if keys.is_empty() {
                    self.owned.remove(owner);
                }
            }
        } else if let Some(orphans) = &mut self.orphans {
            orphans.remove(object);
        }
    }

    /// From now on orphans are found by label, also those that are there already.
    pub fn index_orphans(&mut self) {
        if self.orphans.is_none() {
            let mut orphans = Orphans::default();
            self.objects.values().filter(|object| object.controller().is_none()).for_each(|o| orphans.insert(o));
            self.orphans = Some(orphans);
        }
    }

    fn bury(&mut self, uid: Uid, again: Version) {
        let known = self.gone.entry(uid.clone()).or_insert_with(|| {
            self.gone_order.push_back(uid);
            again
        });
        *known = (*known).max(again);
        if self.gone_order.len() > MAX_TOMBSTONES
            && let Some(oldest) = self.gone_order.pop_front()
        {
            self.gone.remove(&oldest);
        }
    }
}

impl Orphans {
    fn insert(&mut self, object: &Object) {
        let key = object.key();
        self.all.insert(key.clone());
        for (name, value) in object.labels().iter() {
            match self.by_label.entry(label_hash(name, value)) {
                Entry::Vacant(entry) => {
                    entry.insert(Bucket::One(key.clone()));
                }
                Entry::Occupied(mut entry) => match entry.get_mut() {
                    Bucket::Many(keys) => {
                        keys.insert(key.clone());
                    }
                    Bucket::One(first) => {
                        let keys = BTreeSet::from([first.clone(), key.clone()]);
                        entry.insert(Bucket::Many(keys));
                    }
                },
            }
        }
    }

    fn remove(&mut self, object: &Object) {
        let key = object.key();
        self.all.remove(key);
        for (name, value) in object.labels().iter() {
            let Entry::Occupied(mut entry) = self.by_label.entry(label_hash(name, value)) else { continue };
            let empty = match entry.get_mut() {
                Bucket::One(only) => only == key,
                Bucket::Many(keys) => {
                    keys.remove(key);
                    keys.is_empty()
                }
            };
            if empty {
                entry.remove();
            }
        }
    }
}

pub(super) fn label_hash(key: &str, value: &str) -> u64 {
    let mut text = Vec::with_capacity(key.len() + value.len() + 1);
    text.extend_from_slice(key.as_bytes());
    text.push(b'=');
    text.extend_from_slice(value.as_bytes());
    xxh(&text)
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;
