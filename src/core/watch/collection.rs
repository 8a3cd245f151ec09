//! The objects of one kind that somebody wants, and the streams that keep them known.
//!
//! All that arrives enters here: lists and events by the stream that brings them, answers to our own reads and writes by
//! what the streams know already. Never asks for anything.

use crate::cache::{Change, FOR_EVER, Relist, Store};
use crate::key::{ObjectKey, Uid, Version};
use crate::object::Object;
use crate::selector::{Labels as _, Selector};
use crate::shards::{Shards, parse_label};
use crate::watch::streams::{Resumed, StreamId, Streams, Wanted};

/// Which objects of a kind.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// All of them.
    Everything,
    /// All of them; of those without a controlling owner, which may be many and strangers', only what adoption asks for
    /// ([`Object::skim`]).
    Children,
    /// Those that a selection selects.
    Selected(Selection),
    /// Those whose label of this key names a shard that is wanted.
    Sharded(&'static str),
}

/// Some objects of a kind, by where they are and what they are called or labelled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Selection {
    /// In this namespace; in all if empty.
    pub namespace: String,
    /// Of this name; of any if empty.
    pub name: String,
    /// With labels that this selector, in its query form, selects; with any if empty.
    pub labels: String,
}

/// What isn't sharded is one shard of its own.
fn whole() -> Shards {
    Shards::from_iter([0])
}

/// One kind in one scope.
#[derive(Debug)]
pub struct Collection {
    scope: Scope,
    selector: Selector,
    store: Store,
    streams: Streams,
}

/// A list of the metadata of some shards, being compared with what is known.
#[derive(Debug)]
pub struct Check {
    shards: Shards,
    moment: u64,
    relist: Relist,
    /// What differs, and must be read.
    pub differing: Vec<(ObjectKey, Uid)>,
}

impl Collection {
    /// A collection that nothing is wanted of yet.
    #[must_use]
    pub fn new(scope: Scope) -> Self {
        let (store, selector) = match &scope {
            Scope::Everything | Scope::Children => (Store::new(), Selector::default()),
            // Made from a selector; one that can't be read would select nothing at the API server either.
            Scope::Selected(selection) => (Store::partial(), Selector::parse(&selection.labels).unwrap_or_default()),
            Scope::Sharded(_) => (Store::partial(), Selector::default()),
        };
        Self { scope, selector, store, streams: Streams::new() }
    }

    /// The objects.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// From now on orphans are found by label.
    pub fn index_orphans(&mut self) {
        self.store.index_orphans();
    }

    /// The scope.
    #[must_use]
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// The streams.
    #[must_use]
    pub fn streams(&self) -> &Streams {
        &self.streams
    }

    /// Other shards are wanted; of what isn't sharded, all or nothing. Objects of lost ones go at once, and untold.
    pub fn want(&mut self, shards: Shards) -> Wanted {
        let Scope::Sharded(label) = self.scope else {
            return self.streams.want(if shards.is_empty() { Shards::NONE } else { whole() });
        };
        let wanted = self.streams.want(shards);
        if !wanted.lost.is_empty() {
            let lost = |object: &Object| shard_of(label, object).is_some_and(|shard| wanted.lost.contains(shard));
            let dropped = self.store.evict(lost);
            self.streams.dropped(&dropped);
        }
        wanted
    }

    /// Whether all that is wanted was listed once.
    #[must_use]
    pub fn is_informed(&self) -> bool {
        self.streams.wanted().is_within(&self.streams.informed())
    }

    /// The label selector, in its query form, of a request that covers some shards.
    #[must_use]
    pub fn selector(&self, shards: &Shards) -> String {
        match &self.scope {
            Scope::Everything | Scope::Children => String::new(),
            Scope::Selected(selection) => selection.labels.clone(),
            Scope::Sharded(label) => shards.selector(label),
        }
    }

    /// See [`Streams::list_begins`].
    pub fn list_begins(&mut self, id: StreamId) -> Option<Shards> {
        self.streams.list_begins(id)
    }

    /// See [`Streams::list_aborted`].
    pub fn list_aborted(&mut self, id: StreamId) {
        self.streams.list_aborted(id);
    }

    /// See [`Streams::lost_track`].
    pub fn lost_track(&mut self, id: StreamId) {
        self.streams.lost_track(id);
    }

    /// See [`Streams::resume`].
    pub fn resume(&mut self, id: StreamId, ended: bool) -> Option<Resumed> {
        self.streams.resume(id, ended)
    }

    /// See [`Streams::progressed`].
    pub fn progressed(&mut self, id: StreamId, version: Version) {
        self.streams.progressed(id, version);
    }

    /// A stream brings an object as it is, in a list or because it changed.
    pub fn applied(&mut self, id: StreamId, object: Object) -> Option<Change> {
        let shard = self.shard(&object);
        self.streams.saw(id, shard, object.key(), object.uid());
        let object = self.kept(object);
        if self.streams.takes(id, shard, object.version()) { self.store.apply(object) } else { self.moved(id, &object) }
    }

    /// A stream shows an object in a shard that isn't its own, or that is known further already. Where it is known in
    /// another one, older, it has left that. (Only a request that covers both shards shows it so.)
    fn moved(&mut self, id: StreamId, object: &Object) -> Option<Change> {
        let scope = self.streams.scope(id)?;
        let known = self.store.get(object.key())?;
        let shard = self.shard(known).filter(|shard| scope.contains(*shard))?;
        if self.shard(object) == Some(shard) {
            return None;
        }
        self.store.pass_over(object)
    }

    /// A stream brings word that an object is out of its sight. Its labels are those that it was seen with last.
    pub fn deleted(&mut self, id: StreamId, object: &Object) -> Option<Change> {
        if !self.streams.takes(id, self.shard(object), object.version()) {
            return None;
        }
        self.store.delete(object.key(), object.uid(), object.version())
    }

    /// A stream's list is complete as of a version: what it should have named and didn't is gone.
    pub fn list_complete(&mut self, id: StreamId, version: Version) -> Vec<Change> {
        let Some((relist, scope)) = self.streams.list_complete(id, version) else { return Vec::new() };
        self.end_relist(&relist, version, &scope)
    }

    fn end_relist(&mut self, relist: &Relist, version: Version, scope: &Shards) -> Vec<Change> {
        let label = self.label();
        let in_scope = |object: &Object| match label {
            Some(label) => shard_of(label, object).is_some_and(|shard| scope.contains(shard)),
            None => true,
        };
        self.store.end_relist(relist, version, in_scope)
    }

    /// Takes the answer to a read or a write of our own. What isn't wanted isn't kept, nor what the streams know to be
    /// over. `settled` is what the object was written to look like.
    pub fn answer(&mut self, object: Object, settled: Option<u64>) -> Option<Change> {
        let shard = self.kept_in(&object)?;
        let (key, version) = (object.key().clone(), object.version());
        let object = self.kept(object);
        if let Some(hash) = settled {
            object.settle(hash);
        }
        let over = version != Version::UNKNOWN && version <= self.streams.known_to(shard);
        let change = if over { None } else { self.store.apply(object) };
        if change.is_none()
            && let (Some(hash), Some(known)) = (settled, self.store.get(&key))
            && known.version() == version
        {
            // The watch was faster, or the write changed nothing: the note still belongs on what is there.
            known.settle(hash);
        }
        change
    }

    /// Takes an answer that says that an object doesn't exist any more.
    pub fn gone(&mut self, key: &ObjectKey, uid: &Uid) -> Option<Change> {
        self.store.delete(key, uid, FOR_EVER)
    }

    /// Compares a list of metadata with what is known; `None` if a first list of these shards isn't complete. What isn't
    /// wanted is left out. Of what isn't sharded, all is compared.
    pub fn check<'a>(
        &self,
        shards: &Shards,
        moment: u64,
        listed: impl Iterator<Item = (&'a ObjectKey, &'a Uid, Version)>,
    ) -> Check {
        let mut check = Check { shards: *shards, moment, relist: Relist::default(), differing: Vec::new() };
        for (key, uid, version) in listed {
            check.relist.saw(key, uid);
            let is_known = self.store.get(key).is_some_and(|known| {
                version.is_before(known.version()) || known.uid() == uid && known.version() == version
            });
            if !is_known && self.store.may_show(uid, version) {
                check.differing.push((key.clone(), uid.clone()));
            }
        }
        check
    }

    /// What of some shards can be checked now.
    #[must_use]
    pub fn checkable(&self, shards: &Shards) -> Shards {
        let shards = if self.label().is_some() { *shards } else { whole() };
        shards.intersection(&self.streams.wanted())
    }

    /// Takes what a check has read live, even if the streams should have brought it long ago.
    pub fn repair(&mut self, object: Object) -> Option<Change> {
        if self.kept_in(&object).is_some() {
            let object = self.kept(object);
            return self.store.apply(object);
        }
        self.store.pass_over(&object)
    }

    /// Takes word that what a list named as of `version` isn't there any more.
    pub fn missing(&mut self, key: &ObjectKey, uid: &Uid, version: Version) -> Vec<Change> {
        let before = self.store.get(key).filter(|known| known.uid() != uid && !version.is_before(known.version()));
        let before = before.map(|known| known.uid().clone());
        before.iter().chain([uid]).filter_map(|uid| self.store.delete(key, uid, FOR_EVER)).collect()
    }

    /// All that differed was read: what is known, but wasn't listed as of this version, is gone. `None` if some of the
    /// shards were lost in between: nothing follows then, and the others must be checked again.
    pub fn checked(&mut self, check: &Check, version: Version) -> Option<Vec<Change>> {
        if self.streams.kept_since(&check.shards, check.moment) != check.shards {
            return None;
        }
        self.streams.raise(&check.shards, version);
        Some(self.end_relist(&check.relist, version, &check.shards))
    }

    /// As much of an object as is kept.
    fn kept(&self, object: Object) -> Object {
        let is_stranger = self.scope == Scope::Children && object.controller().is_none();
        if is_stranger { object.skim().unwrap_or(object) } else { object }
    }

    fn label(&self) -> Option<&'static str> {
        match self.scope {
            Scope::Sharded(label) => Some(label),
            Scope::Everything | Scope::Children | Scope::Selected(_) => None,
        }
    }

    /// The shard that an object belongs to.
    fn shard(&self, object: &Object) -> Option<u8> {
        self.label().map_or(Some(0), |label| shard_of(label, object))
    }

    /// The shard in which an answer is kept.
    fn kept_in(&self, object: &Object) -> Option<u8> {
        // An answer shows objects that the watch doesn't: those that were relabelled out of its sight meanwhile.
        if !self.selector.is_everything() && !self.selector.matches(&object.labels()) {
            return None;
        }
        self.shard(object).filter(|shard| self.streams.wanted().contains(*shard))
    }
}

fn shard_of(label: &str, object: &Object) -> Option<u8> {
    object.labels().get(label).and_then(parse_label)
}
