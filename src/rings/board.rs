//! What a ring knows of its objects: of those that aren't where they shall be, or may not be, and of no others.
//!
//! Never decides and never asks anybody: watches and passes tell it what they see, the ring looks at what changed. Objects
//! that have a living shard are in no watch and not here, so that memory doesn't grow with them.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::key::{ObjectKey, Uid, Version};
use ringmaster_core::object::OwnerReference;

/// An object that nothing shows any more is remembered for this long: another watch may show it next, and where it was
/// matters then.
const LINGERS: Duration = Duration::from_secs(10);

/// An object of a ring.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    /// Its kind, as the ring numbers them.
    pub(crate) kind: usize,
    /// Its name.
    pub(crate) key: ObjectKey,
}

/// Who shows an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The watch of those that no available shard has.
    Unassigned,
    /// The watch of those whose shards are to let them go.
    Draining,
    /// A pass over all, or a search for children.
    Found,
}

/// What an object's metadata says, as far as its ring is concerned.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Facts {
    pub(crate) uid: Uid,
    pub(crate) version: Version,
    /// The shard that its label names, if it names one.
    pub(crate) shard: Option<Arc<str>>,
    pub(crate) is_draining: bool,
    /// The owner that controls it.
    pub(crate) owner: Option<Arc<OwnerReference>>,
    /// It was made a moment ago, and so had no shard before.
    pub(crate) is_recent: bool,
}

/// Where an owner is that isn't on the board, as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct OwnerSeen {
    pub(crate) at: Duration,
    pub(crate) place: Place,
}

/// What was read of an owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// It isn't there, or another of its name is.
    Gone,
    /// Its shard.
    At(Option<Arc<str>>),
}

/// One object.
#[derive(Clone, Debug)]
pub(crate) struct Item {
    pub(crate) facts: Facts,
    /// Who had it when it was last seen with a label.
    pub(crate) former: Option<Arc<str>>,
    /// When it was first seen here.
    pub(crate) since: Duration,
    /// How often its shard was another than before.
    pub(crate) moves: u32,
    /// When it was first seen to be drained.
    pub(crate) draining_since: Option<Duration>,
    /// All its children that are elsewhere are on the board.
    pub(crate) is_searched: bool,
    /// Of a child whose owner isn't on the board.
    pub(crate) owner: Option<OwnerSeen>,
    /// A call about it runs.
    pub(crate) is_busy: bool,
    /// Since when it has been known to be another than it was, and as of which version, as it left a watch: nothing is decided
    /// until it is seen again.
    pub(crate) stale_since: Option<(Duration, Version)>,
    /// Its shard was told of by an event, as it doesn't let it go in time.
    pub(crate) is_overdue: bool,
    /// Calls in a row that failed.
    pub(crate) failures: u32,
    /// Nothing is done about it before.
    pub(crate) not_before: Duration,
    /// Which lists and watches show it: their generations, 0 for none.
    shown: [u64; 3],
    /// Since when none does.
    idle_since: Option<Duration>,
}

impl Item {
    fn new(now: Duration, facts: Facts) -> Self {
        Self {
            former: facts.shard.clone(),
            since: now,
            moves: 0,
            draining_since: facts.is_draining.then_some(now),
            is_searched: false,
            owner: None,
            is_busy: false,
            stale_since: None,
            is_overdue: false,
            failures: 0,
            not_before: Duration::ZERO,
            shown: [0; 3],
            idle_since: None,
            facts,
        }
    }

    /// Whether nothing is decided about it until it is seen again.
    pub(crate) fn is_stale(&self) -> bool {
        self.stale_since.is_some()
    }

    fn is_shown(&self) -> bool {
        self.shown.iter().any(|generation| *generation > 0)
    }

    /// Whether this shows it.
    pub(crate) fn is_shown_by(&self, mark: Mark) -> bool {
        self.shown[mark as usize] > 0
    }
}

/// The objects of one ring that are, or may be, to be moved.
#[derive(Debug, Default)]
pub(crate) struct Board {
    items: BTreeMap<Id, Item>,
    by_uid: HashMap<Uid, Id>,
    children: HashMap<Uid, BTreeSet<Id>>,
    dirty: BTreeSet<Id>,
    /// Those that nothing shows any more, and since when, in that order.
    idle: VecDeque<(Duration, Id)>,
    /// Those that a pass or a search found.
    found: usize,
}

impl Board {
    /// A watch, a list or a pass shows an object. An older state than what is known is that of a watch that lags.
    pub(crate) fn saw(&mut self, now: Duration, id: Id, facts: Facts, mark: Mark, generation: u64) {
        self.take_in(now, &id, facts);
        let Some(item) = self.items.get_mut(&id) else { return };
        let shown = &mut item.shown[mark as usize];
        if mark == Mark::Found && *shown == 0 {
            self.found += 1;
        }
        *shown = generation.max(1);
        item.idle_since = None;
    }

    /// A live look or the answer to a write: what there is now.
    pub(crate) fn answered(&mut self, now: Duration, id: &Id, facts: Facts) {
        if self.items.contains_key(id) {
            self.take_in(now, id, facts);
        }
    }

    fn take_in(&mut self, now: Duration, id: &Id, facts: Facts) {
        if let Some(item) = self.items.get_mut(id) {
            if item.facts.uid == facts.uid {
                self.dirty.insert(id.clone());
                let left = item.stale_since.map_or(Version::UNKNOWN, |(_, version)| version);
                if facts.version.is_before(item.facts.version) || facts.version.is_before(left) {
                    return;
                }
                if item.facts.owner.as_ref().map(|owner| &owner.uid) != facts.owner.as_ref().map(|owner| &owner.uid) {
                    let owners = [&item.facts.owner, &facts.owner].map(|owner| owner.as_ref().map(|it| it.uid.clone()));
                    item.owner = None;
                    item.facts.owner.clone_from(&facts.owner);
                    self.adopt(id, owners[0].as_ref(), owners[1].as_ref());
                    return self.take_in(now, id, facts);
                }
                if facts.is_draining && !item.facts.is_draining {
                    item.draining_since = Some(now);
                } else if !facts.is_draining {
                    (item.draining_since, item.is_overdue) = (None, false);
                }
                if facts.shard.is_some() {
                    item.former.clone_from(&facts.shard);
                }
                if facts.shard != item.facts.shard {
                    // What follows it may be with the one that had it until now.
                    (item.is_searched, item.moves) = (false, item.moves.wrapping_add(1));
                }
                item.stale_since = None;
                item.facts = facts;
                self.touch_family(id);
                return;
            }
            if facts.version.is_before(item.facts.version) {
                return;
            }
            // Another object of that name; the marks are those of whoever shows it next.
            let busy = item.is_busy;
            self.forget(id);
            self.put(now, id, facts);
            if let Some(item) = self.items.get_mut(id) {
                item.is_busy = busy;
            }
            return;
        }
        self.put(now, id, facts);
    }

    fn put(&mut self, now: Duration, id: &Id, facts: Facts) {
        self.by_uid.insert(facts.uid.clone(), id.clone());
        let owner = facts.owner.as_ref().map(|owner| owner.uid.clone());
        self.items.insert(id.clone(), Item::new(now, facts));
        self.adopt(id, None, owner.as_ref());
        self.dirty.insert(id.clone());
        self.touch_family(id);
    }

    /// A child's owner is another one.
    fn adopt(&mut self, id: &Id, before: Option<&Uid>, after: Option<&Uid>) {
        if let Some(children) = before.and_then(|owner| self.children.get_mut(owner)) {
            children.remove(id);
            if children.is_empty()
                && let Some(owner) = before
            {
                self.children.remove(owner);
            }
        }
        if let Some(owner) = after {
            self.children.entry(owner.clone()).or_default().insert(id.clone());
        }
    }

    /// Those that go by this object are to be looked at again: its children, and its owner.
    pub(crate) fn touch_family(&mut self, id: &Id) {
        let Some(item) = self.items.get(id) else { return };
        if let Some(children) = self.children.get(&item.facts.uid) {
            self.dirty.extend(children.iter().cloned());
        }
        if let Some(owner) = item.facts.owner.as_ref().and_then(|owner| self.by_uid.get(&owner.uid)) {
            self.dirty.insert(owner.clone());
        }
    }

    /// An object left a watch, as of this version: it is another shard's, lost its drain label, or is gone.
    pub(crate) fn left(&mut self, now: Duration, id: &Id, version: Version, mark: Mark) {
        let Some(item) = self.items.get_mut(id) else { return };
        item.shown[mark as usize] = 0;
        if item.facts.version.is_before(version) {
            let since = item.stale_since.map_or(now, |(since, _)| since);
            item.stale_since = Some((since, version));
        }
        self.dirty.insert(id.clone());
        self.rest(now, id);
    }

    /// A list of this generation is complete: what older ones showed is there no more.
    pub(crate) fn complete(&mut self, now: Duration, kind: usize, mark: Mark, generation: u64) {
        let old = |(id, item): (&Id, &Item)| {
            let shown = item.shown[mark as usize];
            (id.kind == kind && shown > 0 && shown < generation).then(|| id.clone())
        };
        let old: Vec<Id> = self.items.iter().filter_map(old).collect();
        for id in old {
            self.hide(now, &id, mark);
        }
    }

    /// An object is where it shall be: that it was found doesn't matter any more.
    pub(crate) fn settle(&mut self, now: Duration, id: &Id) {
        self.hide(now, id, Mark::Found);
    }

    fn hide(&mut self, now: Duration, id: &Id, mark: Mark) {
        let Some(item) = self.items.get_mut(id) else { return };
        if mark == Mark::Found && item.is_shown_by(mark) {
            self.found = self.found.saturating_sub(1);
        }
        item.shown[mark as usize] = 0;
        self.rest(now, id);
    }

    fn rest(&mut self, now: Duration, id: &Id) {
        if let Some(item) = self.items.get_mut(id)
            && !item.is_shown()
            && item.idle_since.is_none()
        {
            item.idle_since = Some(now);
            self.idle.push_back((now, id.clone()));
        }
    }

    /// Forgets what nothing has shown for a while; says which.
    pub(crate) fn purge(&mut self, now: Duration) -> Vec<Id> {
        let mut forgotten = Vec::new();
        while let Some((since, _)) = self.idle.front()
            && since.saturating_add(LINGERS) <= now
            && let Some((since, id)) = self.idle.pop_front()
        {
            let Some(item) = self.items.get_mut(&id).filter(|item| item.idle_since == Some(since)) else { continue };
            if item.is_busy {
                item.idle_since = Some(now);
                self.idle.push_back((now, id));
            } else {
                // Nobody would see to it before its owner goes on: its family is to be looked for again.
                let owner = item.facts.owner.as_ref().map(|owner| owner.uid.clone());
                if let Some(owner) = owner.and_then(|owner| self.by_uid.get(&owner).cloned())
                    && let Some(owner) = self.items.get_mut(&owner)
                {
                    owner.is_searched = false;
                }
                self.forget(&id);
                forgotten.push(id);
            }
        }
        forgotten
    }

    /// When something is to be purged next.
    pub(crate) fn purge_at(&self) -> Option<Duration> {
        self.idle.front().map(|(since, _)| since.saturating_add(LINGERS))
    }

    /// An object is gone.
    pub(crate) fn forget(&mut self, id: &Id) {
        let Some(item) = self.items.remove(id) else { return };
        self.found = self.found.saturating_sub(usize::from(item.is_shown_by(Mark::Found)));
        let owner = item.facts.owner.as_ref().map(|owner| owner.uid.clone());
        self.adopt(id, owner.as_ref(), None);
        if self.by_uid.get(&item.facts.uid) == Some(id) {
            self.by_uid.remove(&item.facts.uid);
        }
        if let Some(owner) = owner.and_then(|owner| self.by_uid.get(&owner)) {
            self.dirty.insert(owner.clone());
        }
        if let Some(children) = self.children.get(&item.facts.uid) {
            self.dirty.extend(children.iter().cloned());
        }
    }

    /// What has changed since it was last taken, at most so many.
    pub(crate) fn take_dirty(&mut self, most: usize) -> Vec<Id> {
        std::iter::from_fn(|| self.dirty.pop_first()).take(most).collect()
    }

    /// Whether something has changed.
    pub(crate) fn is_dirty(&self) -> bool {
        !self.dirty.is_empty()
    }

    /// Looks at one again.
    pub(crate) fn touch(&mut self, id: &Id) {
        if self.items.contains_key(id) {
            self.dirty.insert(id.clone());
        }
    }

    /// Looks at all again: who the shards are has changed, or what is selected.
    pub(crate) fn touch_all(&mut self) {
        self.dirty.extend(self.items.keys().cloned());
    }

    pub(crate) fn get(&self, id: &Id) -> Option<&Item> {
        self.items.get(id)
    }

    pub(crate) fn get_mut(&mut self, id: &Id) -> Option<&mut Item> {
        self.items.get_mut(id)
    }

    /// The object of this uid.
    pub(crate) fn of_uid(&self, uid: &Uid) -> Option<(&Id, &Item)> {
        let id = self.by_uid.get(uid)?;
        self.items.get(id).map(|item| (id, item))
    }

    /// The known children of an owner.
    pub(crate) fn children(&self, owner: &Uid) -> impl Iterator<Item = (&Id, &Item)> {
        let children = self.children.get(owner).into_iter().flatten();
        children.filter_map(|id| self.items.get(id).map(|item| (id, item)))
    }

    /// All of them.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&Id, &Item)> {
        self.items.iter()
    }

    /// How many were found by passes and searches.
    pub(crate) fn found(&self) -> usize {
        self.found
    }

    /// Whether one of these has, or may have, a label of the ring.
    pub(crate) fn has_labels(&self, of: impl Fn(&Id) -> bool) -> bool {
        let labelled = |item: &Item| item.is_stale() || item.facts.shard.is_some() || item.facts.is_draining;
        self.items.iter().any(|(id, item)| of(id) && labelled(item))
    }
}

#[cfg(test)]
#[path = "board_tests.rs"]
mod tests;
