//! Which of the webhook's replicas each parent's calls go to: who moved at the last change of the replicas, and whether
//! anybody does while nothing changes.
//!
//! Pure: it is told of calls and changes, and never asks anybody. A parent is counted once, however often it is called.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use tokio::time::Instant;

/// Parents that are remembered; calls for others aren't judged.
const MAX_PARENTS: usize = 10_000;
/// Parents at two replicas that are named; more are counted.
const MAX_STRAYED: usize = 20;

/// A parent, from its last call on.
#[derive(Debug)]
struct Parent {
    replica: usize,
    /// The change after which that was, and the replica of its last call before that change.
    change: u64,
    before: usize,
    /// Of how many [`Affinity::disturb`] it was called after the last.
    told: u64,
    /// The steady span of its last call, if that was in one, and its calls in it.
    span: Option<(u64, u32)>,
}

/// What a steady span has shown so far, or all of them together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Steady {
    /// Calls within.
    pub(crate) calls: u64,
    /// Parents that were called more than once: the others show nothing.
    pub(crate) again: usize,
    /// Parents' calls that went to another replica than the one before them, in the same span.
    pub(crate) strayed: usize,
}

/// All parents' replicas.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    parents: HashMap<String, Parent>,
    changes: u64,
    /// How often members could know of something new.
    told: u64,
    /// When a parent that was called since then was last called elsewhere, or the replicas were last changed.
    restless: Option<Instant>,
    moved: usize,
    /// The steady span that runs.
    span: Option<Steady>,
    /// How many parents were called in it.
    seen: usize,
    spans: u64,
    /// Those that have ended.
    past: Steady,
    strayed: Vec<String>,
}

impl Affinity {
    /// A call of a parent at a replica.
    pub(crate) fn call(&mut self, now: Instant, name: &str, replica: usize) {
        if self.parents.len() >= MAX_PARENTS && !self.parents.contains_key(name) {
            return;
        }
        let (change, told, span) = (self.changes, self.told, self.spans);
        let new = || Parent { replica, change, before: replica, told, span: None };
        let parent = self.parents.entry(name.to_owned()).or_insert_with(new);
        let is_first = std::mem::replace(&mut parent.told, told) != told;
        if parent.change != change {
            (parent.change, parent.before) = (change, parent.replica);
        }
        let last = std::mem::replace(&mut parent.replica, replica);
        if last != replica {
            if !is_first {
                // Whoever called it first didn't know of the change.
                self.restless = Some(now);
            }
            self.moved = self.moved + usize::from(replica != parent.before) - usize::from(last != parent.before);
        }
        let Some(steady) = &mut self.span else { return };
        steady.calls += 1;
        let calls = parent.span.filter(|(of, _)| *of == span).map_or(0, |(_, calls)| calls);
        parent.span = Some((span, calls.saturating_add(1)));
        self.seen += usize::from(calls == 0);
        steady.again += usize::from(calls == 1);
        // Before its first call in the span it may not have been called since the change.
        if calls > 0 && last != replica {
            steady.strayed += 1;
            if self.strayed.len() < MAX_STRAYED {
                self.strayed.push(format!("{name} at replicas {last} and {replica}"));
            }
        }
    }

    /// The replicas are about to change, or have: a steady span ends.
    pub(crate) fn change(&mut self, now: Instant) {
        self.past = self.steady();
        self.span = None;
        self.changes += 1;
        self.moved = 0;
        self.disturb(now);
    }

    /// The number of the last change.
    pub(crate) fn changes(&self) -> u64 {
        self.changes
    }

    /// The change has come about: members may know of it from now on.
    pub(crate) fn disturb(&mut self, now: Instant) {
        self.told += 1;
        self.restless = Some(now);
    }

    /// A steady span begins, if none runs and for this long nothing changed and nobody was called elsewhere than before:
    /// whether one runs now.
    pub(crate) fn settle(&mut self, now: Instant, quiet: Duration) -> bool {
        let is_quiet = self.restless.is_none_or(|last| now.saturating_duration_since(last) >= quiet);
        if self.span.is_none() && is_quiet {
            self.spans += 1;
            (self.span, self.seen) = (Some(Steady::default()), 0);
        }
        self.span.is_some()
    }

    /// How many parents were called since the last change, and how many of them elsewhere than before it.
    pub(crate) fn moved(&self) -> (usize, usize) {
        (self.parents.values().filter(|parent| parent.change == self.changes).count(), self.moved)
    }

    /// Whether all parents that are known were called in the steady span that runs.
    pub(crate) fn has_seen_all(&self) -> bool {
        self.span.is_some() && self.seen == self.parents.len()
    }

    /// All steady spans together.
    pub(crate) fn steady(&self) -> Steady {
        let span = self.span.unwrap_or_default();
        Steady {
            calls: self.past.calls + span.calls,
            again: self.past.again + span.again,
            strayed: self.past.strayed + span.strayed,
        }
    }

    /// The first of those that were at two replicas in a steady span.
    pub(crate) fn strayed(&self) -> &[String] {
        &self.strayed
    }

    /// How many parents were called last at each replica.
    pub(crate) fn parents(&self) -> BTreeMap<usize, usize> {
        let mut counts = BTreeMap::new();
        for parent in self.parents.values() {
            *counts.entry(parent.replica).or_default() += 1;
        }
        counts
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIET: Duration = Duration::from_secs(2);

    #[test]
    fn moved_is_who_is_elsewhere_than_before_the_change() {
        let (mut seen, start) = (Affinity::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        for name in ["a", "b", "c"] {
            seen.call(at(0), name, 1);
        }
        seen.change(at(1));
        assert_eq!(seen.moved(), (0, 0));
        seen.call(at(2), "a", 2);
        seen.call(at(2), "b", 1);
        assert_eq!(seen.moved(), (2, 1));
        seen.call(at(3), "a", 3);
        assert_eq!(seen.moved(), (2, 1));
        // It comes back, and another one goes.
        seen.call(at(4), "a", 1);
        seen.call(at(4), "c", 2);
        assert_eq!(seen.moved(), (3, 1));
        assert_eq!(seen.parents(), BTreeMap::from([(1, 2), (2, 1)]));
        seen.change(at(5));
        seen.call(at(5), "c", 2);
        assert_eq!(seen.moved(), (1, 0));
    }

    #[test]
    fn a_steady_span_begins_when_nobody_moves_any_more_and_ends_with_a_change() {
        let (mut seen, start) = (Affinity::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        seen.change(at(0));
        seen.call(at(1), "a", 1);
        seen.call(at(2), "a", 2);
        // Its first call says nothing of who knows of the change.
        seen.call(at(3), "b", 1);
        assert!(!seen.settle(at(3), QUIET) && seen.settle(at(4), QUIET) && seen.settle(at(4), QUIET));
        seen.call(at(5), "a", 2);
        seen.call(at(5), "a", 2);
        assert!(!seen.has_seen_all());
        assert_eq!(seen.steady(), Steady { calls: 2, again: 1, strayed: 0 });
        seen.call(at(5), "b", 1);
        assert!(seen.has_seen_all());
        seen.change(at(6));
        seen.call(at(6), "a", 1);
        assert_eq!((seen.steady(), seen.has_seen_all()), (Steady { calls: 3, again: 1, strayed: 0 }, false));
        seen.disturb(at(9));
        // What was called before the change came about says nothing either.
        seen.call(at(10), "a", 2);
        assert!(!seen.settle(at(10), QUIET) && seen.settle(at(11), QUIET));
    }

    #[test]
    fn a_parent_at_two_replicas_in_one_span_has_strayed() {
        let (mut seen, start) = (Affinity::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        seen.call(at(0), "a", 1);
        seen.change(at(1));
        assert!(seen.settle(at(3), QUIET));
        // It wasn't called since the change.
        seen.call(at(4), "a", 2);
        assert_eq!((seen.steady().strayed, seen.moved()), (0, (1, 1)));
        seen.call(at(5), "a", 1);
        assert_eq!((seen.steady().strayed, seen.strayed()), (1, &["a at replicas 2 and 1".to_owned()][..]));
        seen.change(at(6));
        assert!(seen.settle(at(9), QUIET));
        seen.call(at(9), "a", 2);
        assert_eq!(seen.steady(), Steady { calls: 3, again: 1, strayed: 1 });
    }
}
