//! The checker: from what a webhook recorded and what the API server logged and holds, whether any object was served
//! twice at a time, by the wrong member, not at all, or more often made and deleted than it should.
//!
//! Pure: never asks anybody, and never waits. A violation says what it is about, so that a log can be read for it.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt;
use std::time::{Duration, Instant};

use xxhash_rust::xxh64::xxh64;

use crate::server::audit::AuditEntry;

/// How long after it was resumed a process's call, which was let pass before it was paused, may still go out.
pub(crate) const LATE: Duration = Duration::from_secs(1);
/// Shards of an installation.
pub(crate) const SHARDS: usize = 256;

/// Which hook was called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `sync`.
    Sync,
    /// `finalize`.
    Finalize,
}

/// One call of the webhook.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// The controller's name.
    pub(crate) controller: String,
    /// `namespace/name` of the parent; the name alone if it is cluster-scoped.
    pub(crate) parent: String,
    /// The parent's uid.
    pub(crate) uid: String,
    /// The parent's `spec.number`.
    pub(crate) number: u64,
    /// Which hook.
    pub(crate) kind: Kind,
    /// Who called: the header `Ringmaster-Member`, empty without one.
    pub(crate) member: String,
    /// The header `Ringmaster-Epoch`, 0 without one.
    pub(crate) epoch: u64,
    /// The header `Ringmaster-Shard` without its `/256`.
    pub(crate) shard: Option<usize>,
    /// The header `Ringmaster-Delivery`.
    pub(crate) delivery: String,
    /// When the whole request had been read.
    pub(crate) started: Instant,
    /// When the answer was handed over, or the caller had gone; `None` while it runs.
    pub(crate) ended: Option<Instant>,
    /// Whether an answer was handed over.
    pub(crate) answered: bool,
}

/// A time for which a member's process was stopped (SIGSTOP).
#[derive(Clone, Debug)]
pub(crate) struct Pause {
    /// The member's full name.
    pub(crate) member: String,
    /// Just before the signal was sent.
    pub(crate) stopped: Instant,
    /// Just after it was sent to go on; `None` if it never was.
    pub(crate) resumed: Option<Instant>,
}

/// What a parent's user wants, last of all.
#[derive(Clone, Debug)]
pub(crate) struct Wish {
    /// Its key, as in [`Call::parent`].
    pub(crate) parent: String,
    /// Its uid.
    pub(crate) uid: String,
    /// The last `spec.number` that was written.
    pub(crate) number: u64,
}

/// A child as the API server holds it.
#[derive(Clone, Debug)]
pub(crate) struct Child {
    /// Its name.
    pub(crate) name: String,
    /// The uid of its controlling owner, empty without one.
    pub(crate) owner: String,
    /// The number that it shows.
    pub(crate) number: u64,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Violation {
    /// Two calls for one parent ran at one time.
    Overlap(String),
    /// A call carried a lower epoch than one before it for the same parent.
    EpochBack(String),
    /// One epoch of one shard was two members'.
    EpochShared(String),
    /// A call without a member, an epoch or a shard, or with a shard that isn't the parent's.
    Header(String),
    /// The last change of a parent wasn't answered for.
    NotServed(String),
    /// A child is missing, or doesn't show what its parent wants last.
    NotShown(String),
    /// A finalize call for a parent that nobody deleted.
    Finalized(String),
    /// A child was created more than once.
    CreatedTwice(String),
    /// Something was deleted that nobody wanted deleted.
    Deleted(String),
    /// An object was written by scaling.
    Written(String),
}

impl fmt::Display for Violation {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, text) = match self {
            Self::Overlap(text) => ("two calls at one time", text),
            Self::EpochBack(text) => ("an epoch went back", text),
            Self::EpochShared(text) => ("an epoch of two members", text),
            Self::Header(text) => ("a header", text),
            Self::NotServed(text) => ("a change that wasn't served", text),
            Self::NotShown(text) => ("a child that doesn't show it", text),
            Self::Finalized(text) => ("a finalize call", text),
            Self::CreatedTwice(text) => ("a child made twice", text),
            Self::Deleted(text) => ("a deletion", text),
            Self::Written(text) => ("an object written", text),
        };
        write!(out, "{what}: {text}")
    }
}

/// What the order of calls came to.
#[derive(Debug, Default)]
pub(crate) struct Order {
    /// What is wrong.
    pub(crate) violations: Vec<Violation>,
    /// Calls of a paused process that came late, with a lower epoch: bounded, told, and no violation.
    pub(crate) late: usize,
}

/// The shard of a parent: XXH64 over `group/kind/namespace/name` modulo 256; `key` is `namespace/name` or a name.
pub(crate) fn shard_of(group: &str, kind: &str, key: &str) -> usize {
    let (namespace, name) = key.split_once('/').unwrap_or(("", key));
    let hash = xxh64(format!("{group}/{kind}/{namespace}/{name}").as_bytes(), 0);
    usize::try_from(hash % SHARDS as u64).unwrap_or(0)
}

/// No two calls for one parent of one controller at one time, and their epochs never go back. `calls` are in the order
/// in which they began.
pub(crate) fn order(calls: &[Call], pauses: &[Pause]) -> Order {
    let mut order = Order::default();
    let mut open: HashMap<(&str, &str), Vec<&Call>> = HashMap::new();
    let mut highest: HashMap<(&str, &str), &Call> = HashMap::new();
    for call in calls {
        let key = (call.controller.as_str(), call.parent.as_str());
        let running = open.entry(key).or_default();
        running.retain(|before| before.ended.is_none_or(|ended| ended > call.started));
        for before in running.iter() {
            if excused(before, call, pauses) {
                order.late += 1;
            } else {
                order.violations.push(Violation::Overlap(format!("{}, {}", brief(before), brief(call))));
            }
        }
        running.push(call);
        let top = highest.entry(key).or_insert(call);
        if call.epoch >= top.epoch {
            *top = call;
        } else if is_late(call, pauses) {
            order.late += 1;
        } else {
            order.violations.push(Violation::EpochBack(format!("{}, {}", brief(top), brief(call))));
        }
    }
    order
}

/// Whether one of two calls that overlap is a paused process's, with the lower epoch.
fn excused(one: &Call, other: &Call, pauses: &[Pause]) -> bool {
    let (lower, higher) = if one.epoch < other.epoch { (one, other) } else { (other, one) };
    lower.epoch < higher.epoch && lower.member != higher.member && is_late(lower, pauses)
}

/// Whether a call may have been let pass before its process was paused: it ran when that was, or came while it was, or
/// just after.
fn is_late(call: &Call, pauses: &[Pause]) -> bool {
    pauses.iter().filter(|pause| pause.member == call.member).any(|pause| {
        let began = pause.resumed.is_none_or(|resumed| call.started <= resumed + LATE);
        began && call.ended.is_none_or(|ended| ended >= pause.stopped)
    })
}

/// One epoch of a shard (of a controller, where it is a whole) has one member.
pub(crate) fn epochs(calls: &[Call]) -> Vec<Violation> {
    let mut members: HashMap<(&str, Option<usize>, u64), &Call> = HashMap::new();
    let mut violations = Vec::new();
    for call in calls {
        let first = members.entry((&call.controller, call.shard, call.epoch)).or_insert(call);
        if first.member != call.member {
            violations.push(Violation::EpochShared(format!("{}, {}", brief(first), brief(call))));
        }
    }
    violations
}

/// Every call says who calls, under which epoch, and which shard the parent is in.
pub(crate) fn headers(calls: &[Call], group: &str, kind: &str) -> Vec<Violation> {
    let is_right = |call: &&Call| {
        let right = call.shard == Some(shard_of(group, kind, &call.parent));
        right && !call.member.is_empty() && call.epoch > 0 && !call.delivery.is_empty()
    };
    calls.iter().filter(|call| !is_right(call)).map(|call| Violation::Header(brief(call))).collect()
}

/// Each parent's last wish was answered for, and its children show it: as many for each parent and controller.
pub(crate) fn served(calls: &[Call], wishes: &[Wish], children: &[Child], each: usize) -> Vec<Violation> {
    let mut answered: HashMap<&str, BTreeSet<u64>> = HashMap::new();
    for call in calls.iter().filter(|call| call.answered && call.kind == Kind::Sync) {
        answered.entry(&call.uid).or_default().insert(call.number);
    }
    let mut of: HashMap<&str, Vec<&Child>> = HashMap::new();
    for child in children {
        of.entry(&child.owner).or_default().push(child);
    }
    let mut violations = Vec::new();
    for wish in wishes {
        let Wish { parent, uid, number } = wish;
        let numbers = answered.get(uid.as_str());
        if !numbers.is_some_and(|numbers| numbers.contains(number)) {
            let last = numbers.and_then(|numbers| numbers.last());
            violations.push(Violation::NotServed(format!("{parent} wants {number}, was served {last:?}")));
        }
        let own = of.get(uid.as_str()).map_or(&[][..], Vec::as_slice);
        if own.len() != each || own.iter().any(|child| child.number != *number) {
            let shown: Vec<_> = own.iter().map(|child| format!("{}={}", child.name, child.number)).collect();
            violations.push(Violation::NotShown(format!("{parent} wants {number} in {each}: {shown:?}")));
        }
    }
    violations
}

/// No finalize call but for parents that were deleted.
pub(crate) fn finalized(calls: &[Call], deleted: &BTreeSet<String>) -> Vec<Violation> {
    let wrong = calls.iter().filter(|call| call.kind == Kind::Finalize && !deleted.contains(&call.parent));
    wrong.map(|call| Violation::Finalized(brief(call))).collect()
}

/// In the members' requests: no child created more often than once, and none deleted. `allowed` are names that the trial
/// deleted itself, or that the hook no longer wanted.
pub(crate) fn children(requests: &[AuditEntry], plural: &str, allowed: &BTreeSet<String>) -> Vec<Violation> {
    let mut made: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    let mut violations = Vec::new();
    let of_kind = requests.iter().filter(|r| r.resource == plural && (200..300).contains(&r.code));
    for request in of_kind.filter(|r| !allowed.contains(&r.name)) {
        if request.code == 201 {
            *made.entry((&request.namespace, &request.name)).or_default() += 1;
        } else if request.verb.starts_with("delete") {
            violations.push(Violation::Deleted(format!("{plural} {}/{}", request.namespace, request.name)));
        }
    }
    let twice = made.into_iter().filter(|(_, times)| *times > 1);
    violations.extend(twice.map(|((namespace, name), times)| {
        Violation::CreatedTwice(format!("{plural} {namespace}/{name}, {times} times"))
    }));
    violations
}

/// Nothing was written but what members write to keep an installation: Leases, the table, events, and what controllers'
/// statuses say.
pub(crate) fn unwritten(requests: &[AuditEntry]) -> Vec<Violation> {
    let own = |r: &AuditEntry| {
        matches!(r.resource.as_str(), "leases" | "shardtables" | "events")
            || (r.resource.ends_with("controllers") && r.subresource == "status")
    };
    let wrong = requests.iter().filter(|r| r.is_write() && !own(r));
    wrong
        .map(|r| Violation::Written(format!("{} {} {} {}: {}", r.verb, r.resource, r.name, r.subresource, r.code)))
        .collect()
}

fn brief(call: &Call) -> String {
    let Call { controller, parent, number, member, epoch, shard, .. } = call;
    let kind = if call.kind == Kind::Finalize { "finalize of " } else { "" };
    let shard = shard.map_or_else(|| "none".to_owned(), |shard| shard.to_string());
    let took = call.ended.map(|ended| ended.duration_since(call.started));
    format!("{kind}{controller} {parent}={number} by {member:?} epoch {epoch} shard {shard} {took:?}")
}
