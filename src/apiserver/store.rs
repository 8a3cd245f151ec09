//! All objects in memory, with one revision counter, a window of history, and watches.
//!
//! A pure state machine but for the channel that wakes watchers: no clock, no I/O. It never judges an object; what is
//! committed was checked before. Everything is ordered by revision, as etcd orders it.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use foldhash::fast::FixedState;
use ringmaster_core::key::{ApiVersion, ObjectKey, Resource, Uid, Version};
use ringmaster_core::object::Object;
use serde_json::Value;
use tokio::sync::broadcast;

/// A group and a plural name: versions of a kind share their objects.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KindKey {
    /// The group, empty for the core group.
    pub group: Arc<str>,
    /// The plural name.
    pub plural: Arc<str>,
}

/// How much the store remembers and lets wait.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Events per kind that a watch can start behind.
    pub history: usize,
    /// Events that a watcher may be behind before it is closed.
    pub watcher_backlog: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { history: 4096, watcher_backlog: 4096 }
    }
}

/// One change of one object.
#[derive(Debug)]
pub struct Event {
    /// The revision that it made.
    pub revision: u64,
    /// What was before.
    pub old: Option<Arc<Object>>,
    /// What is now; `None` if it was deleted, and then [`Event::last`] is its last state.
    pub new: Option<Arc<Object>>,
    /// For a deletion: the last state, at the deletion's revision.
    pub last: Option<Arc<Object>>,
}

impl Event {
    fn key(&self) -> Option<&ObjectKey> {
        self.old.as_ref().or(self.new.as_ref()).map(|object| object.key())
    }
}

/// The events of a kind as they happen.
pub type Live = broadcast::Receiver<Arc<Event>>;

/// Largest object, in bytes of JSON: etcd's default for a request (`--max-request-bytes`).
pub const MAX_OBJECT_BYTES: usize = 3 << 19;

/// Why a commit was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NotStored {
    /// Somebody else was faster.
    Raced,
    /// The object has more than [`MAX_OBJECT_BYTES`].
    TooLarge,
}

/// A revision that the history no longer reaches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expired {
    /// The oldest revision that can be asked for.
    pub oldest: u64,
}

struct Kind {
    objects: BTreeMap<ObjectKey, Arc<Object>>,
    history: VecDeque<Arc<Event>>,
    /// The revision of the newest event that was forgotten.
    forgotten: u64,
    sender: broadcast::Sender<Arc<Event>>,
}

/// The objects of a server.
pub struct Store {
    limits: Limits,
    revision: u64,
    /// What happened up to this revision is known of no kind.
    forgotten: u64,
    kinds: HashMap<KindKey, Kind, FixedState>,
    /// Objects by the uid of each of their owners, for the garbage collector.
    owned: HashMap<Uid, Vec<(KindKey, ObjectKey)>, FixedState>,
}

/// Objects of one kind as of one revision.
#[derive(Debug)]
pub struct Page {
    /// The objects, by key.
    pub objects: Vec<Arc<Object>>,
    /// Whether there are more behind the last.
    pub more: bool,
    /// How many there are behind the last, wanted or not.
    pub remaining: usize,
    /// The revision.
    pub revision: u64,
}

impl Store {
    /// An empty store.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self { limits, revision: 1, forgotten: 0, kinds: HashMap::default(), owned: HashMap::default() }
    }

    /// The revision of the last change.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// One object.
    #[must_use]
    pub fn get(&self, kind: &KindKey, key: &ObjectKey) -> Option<Arc<Object>> {
        self.kinds.get(kind)?.objects.get(key).cloned()
    }

    /// Whether a kind has no object.
    #[must_use]
    pub fn is_empty(&self, kind: &KindKey) -> bool {
        self.kinds.get(kind).is_none_or(|known| known.objects.is_empty())
    }

    /// Puts an object in place of `seen` (`None` for a new one), with the next revision as its resource version.
    ///
    /// # Errors
    /// If what is there isn't `seen`, or the object is too large.
    pub fn put(
        &mut self,
        kind: &KindKey,
        resource: &Resource,
        seen: Option<&Arc<Object>>,
        mut value: Value,
    ) -> Result<Arc<Object>, NotStored> {
        let draft = draft(self.revision + 1, &mut value, resource)?;
        self.commit(kind, resource, seen, draft)
    }

    /// As [`Self::put`], of an object that was made before: see [`draft`].
    ///
    /// # Errors
    /// If what is there isn't `seen`.
    pub fn commit(
        &mut self,
        kind: &KindKey,
        resource: &Resource,
        seen: Option<&Arc<Object>>,
        mut new: Object,
    ) -> Result<Arc<Object>, NotStored> {
        let revision = self.revision + 1;
        if !new.renumber(Version(revision)) {
            new = draft(revision, &mut new.value(), resource)?;
        }
        let new = Arc::new(new);
        let old = match self.kind(kind).objects.entry(new.key().clone()) {
            Entry::Vacant(_) if seen.is_some() => return Err(NotStored::Raced),
            Entry::Vacant(place) => {
                place.insert(Arc::clone(&new));
                None
            }
            Entry::Occupied(mut place) => {
                if !seen.is_some_and(|seen| same(place.get(), seen)) {
                    return Err(NotStored::Raced);
                }
                Some(place.insert(Arc::clone(&new)))
            }
        };
        self.index(kind, old.as_deref(), Some(&new));
        self.record(kind, Event { revision, old, new: Some(Arc::clone(&new)), last: None });
        Ok(new)
    }

    /// Removes an object; gives back its last state at the deletion's revision.
    ///
    /// # Errors
    /// If what is there isn't `seen`.
    pub fn remove(
        &mut self,
        kind: &KindKey,
        resource: &Resource,
        seen: &Arc<Object>,
    ) -> Result<Arc<Object>, NotStored> {
        let revision = self.revision + 1;
        let known = self.kind(kind);
        match known.objects.entry(seen.key().clone()) {
            Entry::Occupied(place) if same(place.get(), seen) => place.remove(),
            _ => return Err(NotStored::Raced),
        };
        let mut value = seen.value();
        value["metadata"]["resourceVersion"] = revision.to_string().into();
        let last = Object::of(&value, resource).map_or_else(|_| Arc::clone(seen), Arc::new);
        self.index(kind, Some(seen), None);
        let event = Event { revision, old: Some(Arc::clone(seen)), new: None, last: Some(Arc::clone(&last)) };
        self.record(kind, event);
        Ok(last)
    }

    /// Objects of a kind in a namespace (all for `None`) behind a key, at most `limit` that `keep` wants; as of a
    /// revision, or now.
    ///
    /// # Errors
    /// If the history doesn't reach back to that revision.
    pub fn list(
        &self,
        kind: &KindKey,
        namespace: Option<&str>,
        (after, at): (Option<&ObjectKey>, Option<u64>),
        limit: Option<usize>,
        keep: impl Fn(&Object) -> bool,
    ) -> Result<Page, Expired> {
        let revision = at.unwrap_or(self.revision);
        let empty = BTreeMap::new();
        let known = self.kinds.get(kind);
        let forgotten = known.map_or(self.forgotten, |known| known.forgotten);
        if revision < forgotten {
            return Err(Expired { oldest: forgotten });
        }
        let objects = known.map_or(&empty, |known| &known.objects);
        // What changed since the revision is taken back, newest first.
        let mut then: BTreeMap<&ObjectKey, Option<&Arc<Object>>> = BTreeMap::new();
        let newer = known.into_iter().flat_map(|known| known.history.iter().rev());
        for event in newer.take_while(|event| event.revision > revision) {
            if let Some(key) = event.key() {
                then.insert(key, event.old.as_ref());
            }
        }
        // The keys of a namespace stand together, from its name and a slash to its name and what follows a slash.
        let bounded = namespace.filter(|name| !name.is_empty());
        let (first, end) = bounded.map(|name| (format!("{name}/"), format!("{name}0"))).unzip();
        let from = after.map(ObjectKey::as_str).map_or(Bound::Unbounded, Bound::Excluded);
        let from = match (&first, from) {
            (Some(first), Bound::Unbounded) => Bound::Included(first.as_str()),
            (Some(first), Bound::Excluded(after)) if after < first.as_str() => Bound::Included(first.as_str()),
            (_, from) => from,
        };
        let present = objects
            .range::<str, _>((from, Bound::Unbounded))
            .take_while(|(key, _)| end.as_deref().is_none_or(|end| key.as_str() < end))
            .map(|(key, object)| (key, Some(object)));
        let mut all: Vec<(&ObjectKey, &Arc<Object>)> = present
            .filter(|(key, _)| !then.contains_key(key))
            .chain(then.iter().filter(|(key, _)| after.is_none_or(|after| **key > after)).map(|(key, o)| (*key, *o)))
            .filter_map(|(key, object)| Some((key, object?)))
            .filter(|(key, _)| namespace.is_none_or(|n| key.namespace() == n))
            .collect();
        if !then.is_empty() {
            all.sort_by(|a, b| a.0.cmp(b.0));
        }
        let limit = limit.unwrap_or(usize::MAX);
        let (mut objects, mut remaining) = (Vec::new(), 0);
        for (_, object) in all {
            if objects.len() == limit {
                // What isn't wanted counts too: a page ends before it is known, as with etcd.
                remaining += 1;
            } else if keep(object) {
                objects.push(Arc::clone(object));
            }
        }
        Ok(Page { objects, more: remaining > 0, remaining, revision })
    }

    /// The events of a kind after a revision, and a receiver of all that follow.
    ///
    /// # Errors
    /// If the history doesn't reach back to that revision.
    pub fn watch(&mut self, kind: &KindKey, after: u64) -> Result<(Vec<Arc<Event>>, Live), Expired> {
        let known = self.kind(kind);
        if after < known.forgotten {
            return Err(Expired { oldest: known.forgotten });
        }
        let events = known.history.iter().filter(|event| event.revision > after).cloned().collect();
        Ok((events, known.sender.subscribe()))
    }

    /// The objects that name this uid among their owners.
    #[must_use]
    pub fn owned_by(&self, uid: &Uid) -> Vec<(KindKey, ObjectKey)> {
        self.owned.get(uid).cloned().unwrap_or_default()
    }

    /// Whether an object with this uid is there.
    #[must_use]
    pub fn holds(&self, kind: &KindKey, key: &ObjectKey, uid: &Uid) -> bool {
        self.get(kind, key).is_some_and(|object| object.uid() == uid)
    }

    /// The kinds that have objects, with how many.
    pub fn kinds(&self) -> impl Iterator<Item = (&KindKey, usize)> {
        self.kinds.iter().map(|(kind, known)| (kind, known.objects.len()))
    }

    /// Puts an object back as it was saved, in place of what has its key. Nobody is told: for a store that isn't used yet.
    pub fn restore(&mut self, kind: &KindKey, object: Arc<Object>) {
        self.index(kind, None, Some(&object));
        self.kind(kind).objects.insert(object.key().clone(), object);
    }

    /// Counts on from a revision, of which nothing is known but the objects.
    pub fn resume(&mut self, revision: u64) {
        self.revision = revision;
        self.forgotten = revision;
        self.compact();
    }

    /// Forgets a kind whose definition is gone, and ends its watches.
    pub fn drop_kind(&mut self, kind: &KindKey) {
        if self.kinds.remove(kind).is_some() {
            self.owned.retain(|_, objects| {
                objects.retain(|(owned, _)| owned != kind);
                !objects.is_empty()
            });
        }
    }

    /// Ends a kind's watches; its objects and its history stay.
    pub fn end_watches(&mut self, kind: &KindKey) {
        let backlog = self.limits.watcher_backlog;
        if let Some(known) = self.kinds.get_mut(kind) {
            known.sender = broadcast::Sender::new(backlog);
        }
    }

    /// Forgets all history: every watch and continue token from before is too old from now on.
    pub fn compact(&mut self) {
        for known in self.kinds.values_mut() {
            known.history.clear();
            known.forgotten = self.revision;
        }
    }

    fn kind(&mut self, kind: &KindKey) -> &mut Kind {
        let (backlog, forgotten) = (self.limits.watcher_backlog, self.forgotten);
        self.kinds.entry(kind.clone()).or_insert_with(|| Kind {
            objects: BTreeMap::new(),
            history: VecDeque::new(),
            // A kind that had no objects has no history either, so nothing of it was forgotten since.
            forgotten,
            sender: broadcast::Sender::new(backlog),
        })
    }

    fn record(&mut self, kind: &KindKey, event: Event) {
        self.revision = event.revision;
        let limit = self.limits.history;
        let known = self.kind(kind);
        let event = Arc::new(event);
        known.history.push_back(Arc::clone(&event));
        if known.history.len() > limit
            && let Some(oldest) = known.history.pop_front()
        {
            known.forgotten = oldest.revision;
        }
        // Nobody listening is fine.
        let _ = known.sender.send(event);
    }

    fn index(&mut self, kind: &KindKey, old: Option<&Object>, new: Option<&Object>) {
        for owner in old.map(Object::owner_references).unwrap_or_default() {
            if let (Some(objects), Some(old)) = (self.owned.get_mut(&owner.uid), old) {
                objects.retain(|(k, key)| !(k == kind && key == old.key()));
                if objects.is_empty() {
                    self.owned.remove(&owner.uid);
                }
            }
        }
        for owner in new.map(Object::owner_references).unwrap_or_default() {
            if let Some(new) = new {
                self.owned.entry(owner.uid).or_default().push((kind.clone(), new.key().clone()));
            }
        }
    }
}

fn same(a: &Arc<Object>, b: &Arc<Object>) -> bool {
    Arc::ptr_eq(a, b) || (a.uid() == b.uid() && a.version() == b.version())
}

/// An object as it is to be stored, with a version that is likely: made where nobody waits for it.
///
/// # Errors
/// If it is too large.
pub fn draft(revision: u64, value: &mut Value, resource: &Resource) -> Result<Object, NotStored> {
    value["metadata"]["resourceVersion"] = revision.to_string().into();
    // What the server makes is an object; a value that isn't one was refused before.
    let object = Object::of(value, resource).map_err(|_| NotStored::Raced)?;
    if object.json().len() > MAX_OBJECT_BYTES { Err(NotStored::TooLarge) } else { Ok(object) }
}

/// The key of a kind.
#[must_use]
pub fn kind_key(api_version: &ApiVersion, plural: &str) -> KindKey {
    KindKey { group: api_version.group().into(), plural: plural.into() }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_namespace_is_listed_alone_and_from_any_place() {
        let resource = Resource {
            api_version: ApiVersion::new("v1"),
            plural: "configmaps".into(),
            kind: "ConfigMap".into(),
            namespaced: true,
            status: false,
        };
        let kind = kind_key(&resource.api_version, &resource.plural);
        let mut store = Store::new(Limits::default());
        // Names that begin alike, with letters before and behind the slash.
        let namespaces = ["a", "a-b", "a.b", "a0", "ab", "b", ""];
        for namespace in namespaces {
            for name in ["x", "y"] {
                store
                    .put(&kind, &resource, None, json!({ "metadata": { "name": name, "namespace": namespace } }))
                    .unwrap();
            }
        }
        let list = |namespace: Option<&str>, after: Option<&ObjectKey>, limit| {
            let page = store.list(&kind, namespace, (after, None), limit, |_| true).unwrap();
            (page.objects.iter().map(|object| object.key().to_string()).collect::<Vec<_>>(), page.remaining)
        };
        for namespace in namespaces {
            let wanted: Vec<_> = ["x", "y"].map(|name| ObjectKey::new(namespace, name).to_string()).into();
            assert_eq!(list(Some(namespace), None, None), (wanted.clone(), 0), "{namespace:?}");
            assert_eq!(list(Some(namespace), None, Some(1)), (wanted[..1].to_vec(), 1), "{namespace:?}");
            let behind = ObjectKey::new(namespace, "x");
            assert_eq!(list(Some(namespace), Some(&behind), None).0, wanted[1..], "{namespace:?}");
            // A token of before the namespace, and one of behind it.
            let (before, behind) = (ObjectKey::new("", "!"), ObjectKey::new("zz", "z"));
            assert_eq!(list(Some(namespace), Some(&before), None).0, wanted, "{namespace:?}");
            assert_eq!(list(Some(namespace), Some(&behind), None).0, Vec::<String>::new(), "{namespace:?}");
        }
        assert_eq!(list(None, None, None).0.len(), 14);
    }
}
