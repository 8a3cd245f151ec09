//! Keys by the moment at which they fall due.
//!
//! Never decides what a timer means: the queue keeps its priority and whether the key still wants it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::key::SyncKey;

/// Names one running timer: when it falls due, and a number that tells equal moments apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TimerId {
    /// When it falls due.
    pub(super) due: Duration,
    number: u64,
}

/// All running timers, earliest first; among equals, in the order in which they were set.
#[derive(Debug, Default)]
pub(super) struct Timers {
    by_due: BTreeMap<TimerId, SyncKey>,
    next_number: u64,
}

impl Timers {
    pub(super) fn set(&mut self, due: Duration, key: SyncKey) -> TimerId {
        let id = TimerId { due, number: self.next_number };
        self.next_number += 1;
        self.by_due.insert(id, key);
        id
    }

    pub(super) fn clear(&mut self, id: TimerId) {
        self.by_due.remove(&id);
    }

    /// Takes the earliest timer if it is due.
    pub(super) fn take_due(&mut self, now: Duration) -> Option<(TimerId, SyncKey)> {
        let first = self.by_due.first_entry()?;
        if first.key().due > now { None } else { Some(first.remove_entry()) }
    }

    pub(super) fn next_due(&self) -> Option<Duration> {
        self.by_due.first_key_value().map(|(id, _)| id.due)
    }

    pub(super) fn len(&self) -> usize {
        self.by_due.len()
    }
}
