//! A controller's ready keys of one level, in the order in which they came, but for those in lanes that are closed.
//!
//! Never decides which lanes are full or which gates are closed, and never counts syncs: `seat.rs` does.

use std::collections::BTreeMap;
use std::time::Duration;

use super::seat::Gate;
use crate::key::ObjectKey;

/// Where a lane stands: who holds it back, if anybody does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stand {
    pub(super) lane: u8,
    /// The gate that it is remembered behind.
    pub(super) gate: Option<Gate>,
    /// Whether that gate is open, or there is none.
    pub(super) is_open: bool,
    /// Whether it runs as many syncs as its bound allows.
    pub(super) is_full: bool,
}

/// The keys by lane. Each call takes O(log n), but for those that say otherwise. An empty line has no memory of its own.
#[derive(Debug, Default)]
pub(super) struct Line {
    /// By number, with the moment at which each became ready. No lane is empty.
    lanes: BTreeMap<u8, BTreeMap<u64, (ObjectKey, Duration)>>,
    /// The first number of each lane that isn't full, by gate. None is empty.
    heads: BTreeMap<Option<Gate>, BTreeMap<u64, u8>>,
    /// The first of these numbers at each gate that is open. So a gate with many lanes opens and closes as one.
    open: BTreeMap<u64, Option<Gate>>,
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

    /// Whether lanes that are not full have keys behind a gate.
    pub(super) fn has_behind(&self, gate: Gate) -> bool {
        self.heads.contains_key(&Some(gate))
    }

    /// Whether a key can be taken.
    pub(super) fn is_open(&self) -> bool {
        !self.open.is_empty()
    }

    /// Puts a key at the end: its number is larger than all before.
    pub(super) fn push(&mut self, stand: Stand, number: u64, parent: ObjectKey, since: Duration) {
        let keys = self.lanes.entry(stand.lane).or_default();
        let is_first = keys.is_empty();
        keys.insert(number, (parent, since));
        self.len += 1;
        if is_first {
            self.change_heads(stand, None, Some(number));
        }
    }

    /// Takes a key out, wherever it is.
    pub(super) fn remove(&mut self, stand: Stand, number: u64) -> Option<(ObjectKey, Duration)> {
        let keys = self.lanes.get_mut(&stand.lane)?;
        let was_first = keys.first_key_value().is_some_and(|(first, _)| *first == number);
        let key = keys.remove(&number)?;
        self.len -= 1;
        let next = keys.first_key_value().map(|(next, _)| *next);
        if next.is_none() {
            self.lanes.remove(&stand.lane);
        }
        if was_first {
            self.change_heads(stand, Some(number), next);
        }
        if self.len == 0 {
            self.clear(); // An empty map may keep a node.
        }
        Some(key)
    }

    /// The lane of the first key that can be taken.
    pub(super) fn next_lane(&self) -> Option<u8> {
        let (number, gate) = self.open.first_key_value()?;
        self.heads.get(gate)?.get(number).copied()
    }

    /// The lane of the first key behind a gate, but for full lanes.
    pub(super) fn next_behind(&self, gate: Gate) -> Option<u8> {
        self.heads.get(&Some(gate))?.first_key_value().map(|(_, lane)| *lane)
    }

    /// Takes the first key of a lane.
    pub(super) fn take(&mut self, stand: Stand) -> Option<(ObjectKey, Duration)> {
        self.remove(stand, self.first(stand.lane)?)
    }

    /// A gate opens or closes.
    pub(super) fn set_open(&mut self, gate: Gate, is_open: bool) {
        let first = self.heads.get(&Some(gate)).and_then(BTreeMap::first_key_value);
        let Some((first, _)) = first else { return };
        if is_open {
            self.open.insert(*first, Some(gate));
        } else {
            self.open.remove(first);
        }
    }

    /// A lane stands elsewhere from now on: behind another gate, or full, or not.
    pub(super) fn change_stand(&mut self, from: Stand, to: Stand) {
        let Some(first) = self.first(from.lane) else { return };
        self.change_heads(from, Some(first), None);
        self.change_heads(to, None, Some(first));
    }

    /// Drops all keys.
    pub(super) fn clear(&mut self) {
        *self = Self { turn: self.turn, ..Self::default() };
    }

    /// Keys that can't be taken. Takes O(lanes).
    pub(super) fn held(&self) -> usize {
        let open = self.open.values().filter_map(|gate| self.heads.get(gate)).flat_map(BTreeMap::values);
        self.len - open.filter_map(|lane| self.lanes.get(lane)).map(BTreeMap::len).sum::<usize>()
    }

    /// Since when its first key is ready, of whichever lane. Takes O(lanes).
    pub(super) fn oldest(&self) -> Option<Duration> {
        let first = self.lanes.values().filter_map(BTreeMap::first_key_value).min_by_key(|(number, _)| **number);
        first.map(|(_, (_, since))| *since)
    }

    fn first(&self, lane: u8) -> Option<u64> {
        self.lanes.get(&lane)?.first_key_value().map(|(first, _)| *first)
    }

    /// The first number of a lane changes. A full lane has none that counts.
    fn change_heads(&mut self, stand: Stand, old: Option<u64>, new: Option<u64>) {
        if stand.is_full {
            return;
        }
        let heads = self.heads.entry(stand.gate).or_default();
        let first = |heads: &BTreeMap<u64, u8>| heads.first_key_value().map(|(first, _)| *first);
        let before = first(heads);
        if let Some(old) = old {
            heads.remove(&old);
        }
        if let Some(new) = new {
            heads.insert(new, stand.lane);
        }
        let after = first(heads);
        if heads.is_empty() {
            self.heads.remove(&stand.gate);
        }
        if stand.is_open && before != after {
            if let Some(before) = before {
                self.open.remove(&before);
            }
            if let Some(after) = after {
                self.open.insert(after, stand.gate);
            }
        }
    }
}
