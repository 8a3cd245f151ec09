//! The hook calls as they pass between members and webhook: who served which parent, at which replica, how long it took,
//! and whether a parent was ever served by two at a time, or under an epoch that went back.
//!
//! Pure: it is told when a call begins and ends, and never asks anybody. Never keeps calls, only what they add up to.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

use super::affinity::Affinity;

/// Violations that are kept; more are counted.
const MAX_VIOLATIONS: usize = 20;
/// Parents that are remembered; calls for others are counted, and not judged.
const MAX_PARENTS: usize = 10_000;
/// Buckets of durations: the first ends at [`FIRST_BOUND`], each further one is 1.25 times as long. The last is open.
const BUCKETS: usize = 64;
const FIRST_BOUND: Duration = Duration::from_micros(100);

/// Who calls, for whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Caller {
    /// `namespace/name` of the parent.
    pub(crate) parent: String,
    /// The header `Ringmaster-Member`.
    pub(crate) member: String,
    /// The header `Ringmaster-Epoch`, 0 without one.
    pub(crate) epoch: u64,
    /// The number of the webhook's replica that it calls.
    pub(crate) replica: usize,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// With 200, after this time.
    Answered(Duration),
    /// With something else, or the webhook can't be reached.
    Failed,
    /// The caller went away.
    Cut,
}

/// How many calls, whose, and how long they took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Calls {
    /// Answered with 200.
    pub(crate) answered: u64,
    /// Not answered so.
    pub(crate) failed: u64,
    /// The caller went away.
    pub(crate) cut: u64,
    /// Begun, by the member's full name.
    pub(crate) of: BTreeMap<String, u64>,
    /// Begun, by the replica.
    pub(crate) at: BTreeMap<usize, u64>,
    times: [u64; BUCKETS],
}

impl Default for Calls {
    fn default() -> Self {
        Self { answered: 0, failed: 0, cut: 0, of: BTreeMap::new(), at: BTreeMap::new(), times: [0; BUCKETS] }
    }
}

impl Calls {
    /// What came since an earlier look.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let mut times = self.times;
        for (now, then) in times.iter_mut().zip(earlier.times) {
            *now = now.saturating_sub(then);
        }
        Self {
            answered: self.answered.saturating_sub(earlier.answered),
            failed: self.failed.saturating_sub(earlier.failed),
            cut: self.cut.saturating_sub(earlier.cut),
            of: gained(&self.of, &earlier.of),
            at: gained(&self.at, &earlier.at),
            times,
        }
    }

    /// All that were begun.
    pub(crate) fn begun(&self) -> u64 {
        self.of.values().sum()
    }

    /// The duration that this share, in percent, of the answered calls stayed below, as far as buckets tell; `None`
    /// without calls.
    pub(crate) fn percentile(&self, percent: u64) -> Option<Duration> {
        let total: u64 = self.times.iter().sum();
        let rank = (total * percent).div_ceil(100).max(1);
        let mut below = 0;
        let bounds = bounds();
        let found = self.times.iter().zip(bounds).find(|(count, _)| {
            below += **count;
            below >= rank
        });
        found.filter(|_| total > 0).map(|(_, bound)| bound)
    }
}

/// What each count has gained since an earlier look.
fn gained<K: Ord + Clone>(now: &BTreeMap<K, u64>, earlier: &BTreeMap<K, u64>) -> BTreeMap<K, u64> {
    let past = |key: &K| earlier.get(key).copied().unwrap_or(0);
    now.iter().map(|(key, count)| (key.clone(), count.saturating_sub(past(key)))).collect()
}

/// Where the buckets end; the last stands for all above it.
fn bounds() -> impl Iterator<Item = Duration> {
    std::iter::successors(Some(FIRST_BOUND), |bound| Some(bound.mul_f64(1.25)))
}

/// What is known of a parent.
#[derive(Debug, Default)]
struct Parent {
    /// Calls that run: their numbers, and who made them.
    open: Vec<(u64, Caller)>,
    /// The call with the highest epoch.
    highest: Option<Caller>,
}

/// What is known of a replica.
#[derive(Debug, Default)]
struct Replica {
    /// Calls that run.
    open: usize,
    /// When the last one began.
    last: Option<Instant>,
}

/// Everything since the start.
#[derive(Debug, Default)]
pub(crate) struct Record {
    parents: HashMap<String, Parent>,
    calls: Calls,
    affinity: Affinity,
    replicas: BTreeMap<usize, Replica>,
    number: u64,
    violations: Vec<String>,
    more: usize,
}

impl Record {
    /// A call begins: its number.
    pub(crate) fn begin(&mut self, now: Instant, caller: &Caller) -> u64 {
        self.number += 1;
        *self.calls.of.entry(caller.member.clone()).or_default() += 1;
        *self.calls.at.entry(caller.replica).or_default() += 1;
        let replica = self.replicas.entry(caller.replica).or_default();
        (replica.open, replica.last) = (replica.open + 1, Some(now));
        self.affinity.call(now, &caller.parent, caller.replica);
        if self.parents.len() >= MAX_PARENTS && !self.parents.contains_key(&caller.parent) {
            return self.number;
        }
        let parent = self.parents.entry(caller.parent.clone()).or_default();
        let mut wrong = Vec::new();
        if caller.member.is_empty() || caller.epoch == 0 {
            wrong.push(format!("a call without a member or an epoch: {}", brief(caller)));
        }
        for (_, other) in &parent.open {
            wrong.push(format!("two calls at one time: {} and {}", brief(other), brief(caller)));
        }
        parent.open.push((self.number, caller.clone()));
        match &parent.highest {
            Some(top) if caller.epoch < top.epoch => {
                wrong.push(format!("an epoch went back: from {} to {}", brief(top), brief(caller)));
            }
            Some(top) if caller.epoch == top.epoch && caller.member != top.member => {
                wrong.push(format!("an epoch of two members: {} and {}", brief(top), brief(caller)));
            }
            _ => parent.highest = Some(caller.clone()),
        }
        for text in wrong {
            if self.violations.len() < MAX_VIOLATIONS {
                self.violations.push(text);
            } else {
                self.more += 1;
            }
        }
        self.number
    }

    /// It ends.
    pub(crate) fn end(&mut self, caller: &Caller, number: u64, end: End) {
        if let Some(replica) = self.replicas.get_mut(&caller.replica) {
            replica.open = replica.open.saturating_sub(1);
        }
        if let Some(parent) = self.parents.get_mut(&caller.parent) {
            parent.open.retain(|(open, _)| *open != number);
        }
        match end {
            End::Answered(took) => {
                self.calls.answered += 1;
                let bucket = bounds().take(BUCKETS - 1).position(|bound| took <= bound).unwrap_or(BUCKETS - 1);
                self.calls.times[bucket] += 1;
            }
            End::Failed => self.calls.failed += 1,
            End::Cut => self.calls.cut += 1,
        }
    }

    /// What they add up to.
    pub(crate) fn calls(&self) -> &Calls {
        &self.calls
    }

    /// Which replicas the parents are called at.
    pub(crate) fn affinity(&self) -> &Affinity {
        &self.affinity
    }

    /// To be told of changes.
    pub(crate) fn affinity_mut(&mut self) -> &mut Affinity {
        &mut self.affinity
    }

    /// Whether no call runs at a replica, and none began for this long.
    pub(crate) fn is_calm(&self, now: Instant, replica: usize, calm: Duration) -> bool {
        self.replicas.get(&replica).is_none_or(|replica| {
            replica.open == 0 && replica.last.is_none_or(|last| now.saturating_duration_since(last) >= calm)
        })
    }

    /// How often something happened that must not.
    pub(crate) fn wrong(&self) -> usize {
        self.violations.len() + self.more
    }

    /// The first of that.
    pub(crate) fn violations(&self) -> &[String] {
        &self.violations
    }
}

fn brief(caller: &Caller) -> String {
    format!("{} by {:?} under epoch {}", caller.parent, caller.member, caller.epoch)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(parent: &str, member: &str, epoch: u64) -> Caller {
        Caller { parent: parent.to_owned(), member: member.to_owned(), epoch, replica: 1 }
    }

    #[test]
    fn calls_one_after_another_are_right_whoever_makes_them() {
        let (mut record, now) = (Record::default(), Instant::now());
        for (member, epoch) in [("a", 1), ("a", 1), ("b", 2), ("a", 3)] {
            let caller = caller("x", member, epoch);
            let number = record.begin(now, &caller);
            // Another parent's calls are another matter.
            record.begin(now, &self::caller(&format!("y{epoch}{number}"), "c", 1));
            record.end(&caller, number, End::Cut);
        }
        assert_eq!((record.wrong(), record.calls().cut, record.calls().begun()), (0, 4, 8));
        assert_eq!(record.calls().of["a"], 3);
    }

    #[test]
    fn what_must_not_be_is_seen() {
        let now = Instant::now();
        for (second, ended, text) in [
            (caller("x", "b", 6), false, "two calls at one time: x by \"a\" under epoch 5 and x by \"b\""),
            (caller("x", "a", 5), false, "two calls at one time"),
            (caller("x", "b", 4), true, "an epoch went back: from x by \"a\" under epoch 5"),
            (caller("x", "b", 5), true, "an epoch of two members"),
            (caller("x", "", 5), true, "without a member"),
            (caller("y", "b", 0), true, "without a member or an epoch"),
        ] {
            let (mut record, first) = (Record::default(), caller("x", "a", 5));
            let number = record.begin(now, &first);
            if ended {
                record.end(&first, number, End::Failed);
            }
            record.begin(now, &second);
            assert!(record.violations().iter().any(|found| found.contains(text)), "{second:?}: {record:?}");
        }
        let mut record = Record::default();
        for _ in 0..100 {
            record.begin(now, &caller("x", "a", 1));
        }
        assert_eq!((record.wrong(), record.violations().len()), (99 * 100 / 2, MAX_VIOLATIONS));
    }

    #[test]
    fn percentiles_are_those_of_the_calls_since() {
        let (mut record, caller, now) = (Record::default(), caller("x", "a", 1), Instant::now());
        let mut answer = |ms| {
            let number = record.begin(now, &caller);
            record.end(&caller, number, End::Answered(Duration::from_millis(ms)));
            record.calls().clone()
        };
        assert_eq!(Calls::default().percentile(50), None);
        let before = answer(900);
        (0..99).for_each(|_| drop(answer(2)));
        let since = answer(10_000_000).since(&before);
        assert_eq!((since.answered, since.begun()), (100, 100));
        let p50 = since.percentile(50).unwrap();
        assert!(p50 >= Duration::from_millis(2) && p50 < Duration::from_micros(2500), "{p50:?}");
        assert!(since.percentile(100).unwrap() > Duration::from_secs(60));
    }
    #[test]
    fn a_replica_is_calm_once_its_calls_have_ended_for_a_while() {
        let (mut record, caller, now) = (Record::default(), caller("x", "a", 1), Instant::now());
        let calm = Duration::from_secs(1);
        assert!(record.is_calm(now, 1, calm));
        let number = record.begin(now, &caller);
        assert!(!record.is_calm(now + calm * 2, 1, calm) && record.is_calm(now, 2, calm));
        record.end(&caller, number, End::Cut);
        assert!(!record.is_calm(now + calm / 2, 1, calm) && record.is_calm(now + calm, 1, calm));
        assert_eq!((record.calls().at[&1], record.affinity().parents()), (1, BTreeMap::from([(1, 1)])));
    }
}
