//! A controller's ready keys of one level, in the order in which they came, but for those in lanes that are closed.
//!
//! Never decides which lanes are open, and never counts syncs: `fairness.rs` does.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use foldhash::fast::FixedState;

use crate::key::ObjectKey;

/// The keys by lane. Each call takes O(log n), but for those that say otherwise.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// By number, with the moment at which each became ready. No lane is empty.
    lanes: HashMap<u8, BTreeMap<u64, (ObjectKey, Duration)>, FixedState>,
    /// The first number of each lane that is open.
    open: BTreeMap<u64, u8>,
    len: usize,
    /// Its number in its level's turns; none while nothing can be taken.
    pub(super) turn: Option<u64>,
}

impl Line {
    /// All keys, also those that can't be taken.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Whether a lane has keys.
    pub(super) fn has(&self, lane: u8) -> bool {
        self.lanes.contains_key(&lane)
    }

    /// Whether a key can be taken.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Puts a key at the end: its number is larger than all before.
    pub(super) fn push(&mut self, lane: (u8, bool), number: u64, parent: ObjectKey, since: Duration) {
        let (lane, is_open) = lane;
        let keys = self.lanes.entry(lane).or_default();
        if keys.is_empty() && is_open {
            self.open.insert(number, lane);
        }
        keys.insert(number, (parent, since));
        self.len += 1;
    }

    /// Takes a key out, wherever it is.
    pub(super) fn remove(&mut self, lane: u8, number: u64) -> Option<(ObjectKey, Duration)> {
        let keys = self.lanes.get_mut(&lane)?;
        let key = keys.remove(&number)?;
        self.len -= 1;
        let next = keys.first_key_value().map(|(next, _)| *next);
        if next.is_none() {
            self.lanes.remove(&lane);
        }
        // It is there only if it was the first of an open lane.
        if self.open.remove(&number).is_some()
            && let Some(next) = next
        {
            self.open.insert(next, lane);
        }
        Some(key)
    }

    /// The lane of the first key that can be taken.
    pub(super) fn next_lane(&self) -> Option<u8> {
        self.open.first_key_value().map(|(_, lane)| *lane)
    }

    /// Takes the first key of a lane.
    pub(super) fn take(&mut self, lane: u8) -> Option<(ObjectKey, Duration)> {
        let (number, _) = self.lanes.get(&lane)?.first_key_value()?;
        self.remove(lane, *number)
    }

    /// From now on keys of a lane can be taken, or can't.
    pub(super) fn set_open(&mut self, lane: u8, is_open: bool) {
        let Some((first, _)) = self.lanes.get(&lane).and_then(BTreeMap::first_key_value) else { return };
        if is_open {
            self.open.insert(*first, lane);
        } else {
            self.open.remove(first);
        }
    }

    /// Drops all keys.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    /// Keys that can't be taken. Takes O(lanes).
    pub(super) fn held(&self) -> usize {
        let open = self.open.values().filter_map(|lane| self.lanes.get(lane)).map(BTreeMap::len);
        self.len - open.sum::<usize>()
    }

    /// Since when its first key is ready, of whichever lane. Takes O(lanes).
    pub(super) fn oldest(&self) -> Option<Duration> {
        let first = self.lanes.values().filter_map(BTreeMap::first_key_value).min_by_key(|(number, _)| **number);
        first.map(|(_, (_, since))| *since)
    }
}
