//! What to do with one object of an external ring now: nothing, one patch, or wait.
//!
//! A main object goes from one living shard to another by acknowledgement, then its children follow, then it is assigned:
//! the old shard doesn't see a child vanish while it has the owner, and makes it again; the new one doesn't have the owner
//! before its children, and fails to create them. The contract (1.8) moves children at once; a shard that follows it can't
//! tell. Everything is decided anew from what is there, so that a ring that changes in the middle, a conflict or another
//! sharder's write just leads to another answer. Never remembers, never writes.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::state::Holder;
use crate::dialect::RingDialect;
use crate::key::Version;

/// The value of the drain label. Only that it is there counts (contract, 1.3).
pub const DRAIN: &str = "true";

/// What is known of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Subject<'a> {
    /// The shard that its label names. An empty value is none.
    pub shard: Option<&'a str>,
    /// What may be done with that shard's objects; without a label it isn't looked at.
    pub holder: Holder,
    /// Whether it has the drain label.
    pub is_draining: bool,
    /// Since when it has, as far as is known.
    pub draining_since: Option<Duration>,
    /// The shard that its key is hashed to; `None` if there is none, or it has no key.
    pub desired: Option<&'a str>,
    /// Whether it is of the ring's resources and namespaces, and the ring isn't deleted.
    pub is_selected: bool,
    /// What it is in the ring.
    pub part: Part<'a>,
}

/// What an object is in its ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part<'a> {
    /// A main object.
    Main {
        /// Whether all its children in the ring are known to be with the desired shard already, or there are none. Those
        /// that are hashed apart ([`Owner::Apart`]) don't count.
        children_follow: bool,
    },
    /// A controlled object.
    Controlled(Owner<'a>),
}

/// The owner that controls an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner<'a> {
    /// A main object of the ring, with the same key: the child is where its owner is.
    Main {
        /// The shard that its label names.
        shard: Option<&'a str>,
        /// What may be done with that shard's objects.
        holder: Holder,
        /// Whether it is selected.
        is_selected: bool,
    },
    /// Not of the ring, not there, or hashed apart ([`super::key::Partition::is_owners`]): the child's key alone decides.
    Apart,
}

impl Owner<'_> {
    /// The same, with an empty label as none.
    fn named(self) -> Self {
        match self {
            Self::Main { shard, holder, is_selected } => Self::Main { shard: named(shard), holder, is_selected },
            Self::Apart => Self::Apart,
        }
    }
}

/// How a ring treats a shard that doesn't acknowledge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rules {
    /// For how long a shard may take to acknowledge a drain.
    pub drain_limit: Duration,
    /// Whether its Lease is taken then, which ends the shard. Otherwise it is only told.
    pub escalates: bool,
}

/// What to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// It is where it shall be.
    Nothing,
    /// Give it to a shard. Nobody has it.
    Assign(&'a str),
    /// Ask its shard to let it go.
    Drain,
    /// Take that back: it is where it shall be again.
    Keep,
    /// Give it to another shard, at once.
    Move {
        /// Which.
        to: &'a str,
    },
    /// Take its labels off: it isn't the ring's any more.
    Unlabel,
    /// Take the Lease of a shard that doesn't let it go ([`super::state::ShardLease::take_over`], alive). Never its objects
    /// before.
    Escalate {
        /// The shard.
        shard: &'a str,
        /// Since when it has been asked.
        since: Duration,
    },
    /// Nothing yet.
    Wait {
        /// What for.
        why: Why,
        /// When to look again, if nothing is seen of it until then.
        until: Option<Duration>,
    },
}

/// What an object waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// No shard is available, or it has no key.
    NoShard,
    /// Its shard isn't available, but may be at work still.
    Lease,
    /// Its shard is to let it go, and was asked at this moment.
    Acknowledgement(Duration),
    /// The same, for too long. To be told.
    Overdue(Duration),
    /// Its children are to go first.
    Children,
    /// Its owner, which isn't selected any more, is to lose its labels first.
    Owner,
}

impl Step<'_> {
    /// The merge patch that does it, if the object is still of this version, as the contract asks (1.8): metadata alone.
    /// `None` if there is nothing to write to the object.
    #[must_use]
    pub fn patch(&self, dialect: &RingDialect, ring: &str, version: Version) -> Option<Value> {
        // What a label shall be, of those that are written.
        let (shard, drain) = match self {
            Self::Assign(to) | Self::Move { to } => (Some(json!(to)), Some(Value::Null)),
            Self::Drain => (None, Some(json!(DRAIN))),
            Self::Keep => (None, Some(Value::Null)),
            Self::Unlabel => (Some(Value::Null), Some(Value::Null)),
            Self::Nothing | Self::Escalate { .. } | Self::Wait { .. } => return None,
        };
        let labels = [(shard_label(dialect, ring), shard), (drain_label(dialect, ring), drain)];
        let labels: Map<String, Value> =
            labels.into_iter().filter_map(|(key, value)| value.map(|value| (key, value))).collect();
        Some(json!({"metadata": {"resourceVersion": version.to_string(), "labels": labels}}))
    }
}

/// The key of the label that names an object's shard (contract, 1.3).
#[must_use]
pub fn shard_label(dialect: &RingDialect, ring: &str) -> String {
    [dialect.shard_label, ring].concat()
}

/// The key of the label that asks an object's shard to let it go (contract, 1.3).
#[must_use]
pub fn drain_label(dialect: &RingDialect, ring: &str) -> String {
    [dialect.drain_label, ring].concat()
}

/// What follows from the API server's answer to a patch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// It is done.
    Done,
    /// The object has changed: read it and decide anew, at once.
    LookAgain,
    /// There is no such object any more.
    Gone,
    /// We may not, or it is wrong: to be told, and looked at again by and by.
    Refused,
    /// It isn't known whether it was written: read it, after a pause.
    Unknown,
}

/// What follows from an HTTP status; `None`: no answer came.
#[must_use]
pub fn next(status: Option<u16>) -> Next {
    match status {
        Some(200..=299) => Next::Done,
        Some(409) => Next::LookAgain,
        Some(404) => Next::Gone,
        // The server was busy, and says so.
        None | Some(408 | 429 | 500..) => Next::Unknown,
        Some(_) => Next::Refused,
    }
}

/// What to do with an object at `now`.
#[must_use]
pub fn decide<'a>(now: Duration, subject: &Subject<'a>, rules: &Rules) -> Step<'a> {
    let subject = Subject { shard: named(subject.shard), ..*subject };
    match (subject.part, subject.is_selected) {
        (Part::Main { children_follow }, true) => staying_main(now, &subject, children_follow, rules),
        (Part::Main { .. }, false) => leaving_main(now, &subject, rules),
        (Part::Controlled(owner), true) => staying_controlled(&subject, owner.named()),
        (Part::Controlled(owner), false) => leaving_controlled(&subject, owner.named()),
    }
}

fn staying_main<'a>(now: Duration, subject: &Subject<'a>, children_follow: bool, rules: &Rules) -> Step<'a> {
    match (subject.shard, subject.desired) {
        (Some(shard), Some(desired)) if shard == desired => settled(subject),
        (Some(shard), desired) => match (subject.holder, desired) {
            (Holder::Unsure(until), _) => Step::Wait { why: Why::Lease, until },
            // While it isn't known whose anything is, it stays, and goes on being let go if it is.
            (Holder::Available, None) if subject.is_draining => waits_for(Why::NoShard),
            (Holder::Available, None) => Step::Nothing,
            (Holder::Available, Some(_)) => drain(now, subject, shard, rules),
            (Holder::Gone, None) => waits_for(Why::NoShard),
            (Holder::Gone, Some(_)) if !children_follow => waits_for(Why::Children),
            (Holder::Gone, Some(to)) => Step::Move { to },
        },
        (None, None) => waits_for(Why::NoShard),
        (None, Some(_)) if !children_follow => waits_for(Why::Children),
        (None, Some(desired)) => Step::Assign(desired),
    }
}

/// Its shard lets it go before it loses its labels, and then its children lose theirs.
fn leaving_main<'a>(now: Duration, subject: &Subject<'a>, rules: &Rules) -> Step<'a> {
    match (subject.shard, subject.holder) {
        (None, _) if subject.is_draining => Step::Unlabel,
        (None, _) => Step::Nothing,
        (Some(shard), Holder::Available) => drain(now, subject, shard, rules),
        (Some(_), Holder::Gone) => Step::Unlabel,
        (Some(_), Holder::Unsure(until)) => Step::Wait { why: Why::Lease, until },
    }
}

/// A child isn't drained: shards acknowledge for main objects alone (contract, 1.6).
fn staying_controlled<'a>(subject: &Subject<'a>, owner: Owner<'a>) -> Step<'a> {
    let (target, wait) = match owner {
        Owner::Main { shard: Some(shard), holder: Holder::Available, .. } => (Some(shard), None),
        Owner::Main { shard: Some(shard), holder: Holder::Unsure(until), .. } => {
            (Some(shard), Some(Step::Wait { why: Why::Lease, until }))
        }
        // Its owner goes where it is hashed to, after it.
        Owner::Main { .. } | Owner::Apart => (subject.desired, None),
    };
    match (subject.shard, target) {
        (Some(shard), Some(target)) if shard == target => settled(subject),
        (Some(_), None) if subject.holder == Holder::Available => settled(subject),
        (_, None) => waits_for(Why::NoShard),
        (None, Some(target)) => wait.unwrap_or(Step::Assign(target)),
        (Some(_), Some(to)) => wait.unwrap_or(Step::Move { to }),
    }
}

fn leaving_controlled<'a>(subject: &Subject<'a>, owner: Owner<'a>) -> Step<'a> {
    if subject.shard.is_none() && !subject.is_draining {
        return Step::Nothing;
    }
    match owner {
        Owner::Main { shard: Some(_), is_selected: false, .. } => waits_for(Why::Owner),
        _ => Step::Unlabel,
    }
}

fn settled<'a>(subject: &Subject<'a>) -> Step<'a> {
    if subject.is_draining { Step::Keep } else { Step::Nothing }
}

fn drain<'a>(now: Duration, subject: &Subject<'a>, shard: &'a str, rules: &Rules) -> Step<'a> {
    if !subject.is_draining {
        return Step::Drain;
    }
    let since = subject.draining_since.unwrap_or(now);
    let limit = since.saturating_add(rules.drain_limit);
    if now < limit {
        Step::Wait { why: Why::Acknowledgement(since), until: Some(limit) }
    } else if rules.escalates {
        Step::Escalate { shard, since }
    } else {
        waits_for(Why::Overdue(since))
    }
}

fn named(shard: Option<&str>) -> Option<&str> {
    shard.filter(|shard| !shard.is_empty())
}

fn waits_for<'a>(why: Why) -> Step<'a> {
    Step::Wait { why, until: None }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
