//! What is known of one object, as core's plan wants it, and what the plan says.
//!
//! Never writes and never remembers: the ring does what follows.

use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::key::ObjectKey;
use ringmaster_core::object::OwnerReference;
use ringmaster_core::ring::key::Partition;
use ringmaster_core::ring::plan::{self, Owner, Part, Step, Subject};
use ringmaster_core::ring::state::Holder;

use crate::board::{Board, Id, Item, Place};
use crate::hashes::Hashes;
use crate::scope::Scope;
use crate::shards::Shards;

/// An object that left one watch is mostly shown by another within this time.
const SEEN_WITHIN: Duration = Duration::from_millis(500);
/// An owner doesn't wait any longer for a child that couldn't be written so often in a row.
const GIVEN_UP: u32 = 5;
/// What was read of an owner counts for so long.
const OWNER_COUNTS: Duration = Duration::from_secs(1);

/// What everything is decided by.
pub(crate) struct Eyes<'a> {
    pub(crate) now: Duration,
    pub(crate) scope: &'a Scope,
    pub(crate) shards: &'a Shards,
    pub(crate) hashes: &'a Hashes,
    pub(crate) board: &'a Board,
}

/// What follows for an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing can be said now; whoever changes what is missing has it looked at again.
    Later,
    /// It is to be read, if nothing has shown it by this moment.
    Unseen(Duration),
    /// Nobody owns it, so that it isn't the ring's.
    Nobodys,
    /// Its owner is to be read.
    ReadOwner,
    /// Its children are to be searched for.
    Search,
    /// The plan's word.
    Plan(Planned),
}

/// The plan's word, on its own.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Planned {
    /// It is where it shall be.
    Nothing,
    /// To be written, with what it is; `to` is its shard afterwards.
    Write { patch: serde_json::Value, what: What, to: Option<Arc<str>> },
    /// The shard's Lease is to be taken.
    Escalate { shard: Arc<str>, since: Duration },
    /// It waits.
    Wait { why: plan::Why, until: Option<Duration> },
}

/// What is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum What {
    /// It gets a shard.
    Assign,
    /// Its shard is to let it go.
    Drain,
    /// It goes to another shard at once.
    Move,
    /// It stays after all, or loses its labels.
    Other,
}

impl Eyes<'_> {
    /// What is to be done about an object now.
    pub(crate) fn verdict(&self, id: &Id, item: &Item) -> Verdict {
        if let Some((since, _)) = item.stale_since {
            return Verdict::Unseen(since.saturating_add(SEEN_WITHIN));
        }
        let Some(is_selected) = self.scope.selects(id) else { return Verdict::Later };
        let owner = item.facts.owner.as_deref();
        let is_main = self.scope.is_main(id.kind);
        let is_labelled = item.facts.shard.is_some() || item.facts.is_draining;
        if !is_main && owner.is_none() && !is_selected && is_labelled {
            return Verdict::Plan(self.planned(&Step::Unlabel, item));
        }
        let Some(key) = self.scope.key(id, owner) else { return Verdict::Nobodys };
        let shard = item.facts.shard.as_deref();
        let holder = self.holder(shard);
        let is_free = shard.is_none() || holder == Holder::Gone;
        let (part, desired) = if is_main {
            let desired = self.hashes.shard(&key.text, is_free).map(|shard| &**shard);
            let wants_search = !self.knows_children(id, item);
            let children_follow = !wants_search && desired.is_some_and(|desired| self.children_are_at(item, desired));
            if wants_search && is_selected && is_free && desired.is_some() {
                return Verdict::Search;
            }
            (Part::Main { children_follow }, desired)
        } else {
            let owner = match self.owner(id, item, &key) {
                Whereabouts::Unread => return Verdict::ReadOwner,
                Whereabouts::Unsure => return Verdict::Later,
                Whereabouts::Is(owner) => owner,
            };
            let is_free = match &owner {
                Owner::Main { shard, holder, .. } => shard.is_none() || *holder == Holder::Gone,
                Owner::Apart => is_free,
            };
            (Part::Controlled(owner), self.hashes.shard(&key.text, is_free).map(|shard| &**shard))
        };
        let (draining_since, is_draining) = (item.draining_since, item.facts.is_draining);
        let subject = Subject { shard, holder, is_draining, draining_since, desired, is_selected, part };
        let step = plan::decide(self.now, &subject, &self.scope.model.rules);
        Verdict::Plan(self.planned(&step, item))
    }

    fn planned(&self, step: &Step<'_>, item: &Item) -> Planned {
        let (dialect, ring) = (self.scope.model.dialect, &self.scope.model.name);
        let (what, to) = match step {
            Step::Nothing => return Planned::Nothing,
            Step::Wait { why, until } => return Planned::Wait { why: *why, until: *until },
            Step::Escalate { shard, since } => return Planned::Escalate { shard: (*shard).into(), since: *since },
            Step::Assign(to) => (What::Assign, Some((*to).into())),
            Step::Move { to } => (What::Move, Some((*to).into())),
            Step::Drain => (What::Drain, item.facts.shard.clone()),
            Step::Keep => (What::Other, item.facts.shard.clone()),
            Step::Unlabel => (What::Other, None),
        };
        match step.patch(dialect, ring, item.facts.version) {
            Some(patch) => Planned::Write { patch, what, to },
            None => Planned::Nothing,
        }
    }

    fn holder(&self, shard: Option<&str>) -> Holder {
        shard.map_or(Holder::Gone, |shard| self.shards.holder(self.now, shard))
    }

    /// Whether all children of a main object that may be elsewhere are on the board.
    fn knows_children(&self, id: &Id, item: &Item) -> bool {
        let never_had_any = item.facts.is_recent && item.former.is_none();
        item.is_searched || never_had_any || self.scope.controlled(id.kind).is_empty()
    }

    fn children_are_at(&self, owner: &Item, shard: &str) -> bool {
        let mut children = self.board.children(&owner.facts.uid);
        children.all(|(id, child)| {
            let is_apart = || {
                let key = self.scope.key(id, child.facts.owner.as_deref());
                key.is_none_or(|key| !key.is_owners) || self.scope.selects(id) == Some(false)
            };
            // One that was seen to leave a watch went where we sent it, or is gone.
            let is_given_up = child.failures >= GIVEN_UP;
            child.is_stale() || child.facts.shard.as_deref() == Some(shard) || is_given_up || is_apart()
        })
    }

    fn owner<'b>(&'b self, id: &Id, item: &'b Item, key: &Partition) -> Whereabouts<'b> {
        let apart = Whereabouts::Is(Owner::Apart);
        let Some(owner) = item.facts.owner.as_deref() else { return apart };
        let Some(kind) = self.scope.kind_of(owner).filter(|_| key.is_owners) else { return apart };
        let (shard, is_selected) = if let Some((at, known)) = self.board.of_uid(&owner.uid) {
            if known.is_stale() || known.is_busy {
                return Whereabouts::Unsure;
            }
            (known.facts.shard.as_deref(), self.scope.selects(at))
        } else {
            let seen = item.owner.as_ref().filter(|seen| self.now < seen.at.saturating_add(OWNER_COUNTS));
            match seen.map(|seen| &seen.place) {
                None => return Whereabouts::Unread,
                Some(Place::Gone) => return apart,
                Some(Place::At(shard)) => {
                    (shard.as_deref(), self.scope.selects(&owner_id(self.scope, kind, id, owner)))
                }
            }
        };
        let Some(is_selected) = is_selected else { return Whereabouts::Unsure };
        Whereabouts::Is(Owner::Main { shard, holder: self.holder(shard), is_selected })
    }
}

/// Where a child's owner is.
enum Whereabouts<'a> {
    /// It has to be read.
    Unread,
    /// Nothing can be said now.
    Unsure,
    /// There.
    Is(Owner<'a>),
}

/// A child's owner. One of a namespaced kind lives where its children do.
pub(crate) fn owner_id(scope: &Scope, kind: usize, child: &Id, owner: &OwnerReference) -> Id {
    let namespace = if scope.kinds[kind].resource.namespaced { child.key.namespace() } else { "" };
    Id { kind, key: ObjectKey::new(namespace, &owner.name) }
}
