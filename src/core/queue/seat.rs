//! One controller's ready keys, its shards as lanes, and what holds lanes back: a bound, or a gate.
//!
//! Never knows other controllers or workers, and asks nobody whether a key may go: `fairness.rs` does.
//!
//! # Lanes
//!
//! Each shard is a lane of the controller's lines. A lane is closed while it runs as many syncs as the controller's bound
//! allows, or while it is behind a closed gate. Its keys keep their places, and nobody waits behind them.
//!
//! A level's own count of the turns that passed it by says nothing of such a lane: while the lane is closed its line may
//! have no turn, and the level serves others. So each lane of a bounded controller counts for itself. If a level of it is
//! due, the lane's next key is taken from that level, whichever line's turn it is. What is urgent waits for that one sync
//! then, and never until the lower level has its turn, which may come after many keys of other lanes.
//!
//! # Gates
//!
//! Which gate keeps a lane back is known only once a key of it was refused. From then on the lane is remembered behind that
//! gate, also while the gate is open, so one refusal closes all lanes that are known to lead to the same place. All lanes
//! behind a gate share its few places, so a gate counts as a lane does: the level that is due among all its keys is served.
//! A lane that leads there and was never refused doesn't count yet.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::fairness::{LEVELS, Priority, count, is_due};
use super::line::{Line, Stand};
use crate::hash::shard;
use crate::key::{ObjectKey, Resource};
use crate::shards::Shards;

/// What keeps keys back: an endpoint that takes no more calls. Opaque to the queue; each controller has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gate(pub u64);

/// How a controller's keys are divided: its shards are its lanes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lanes {
    /// The parents' kind, which their shards depend on.
    pub parents: Arc<Resource>,
    /// At most so many syncs of one lane run at once; any number if None.
    pub bound: Option<NonZeroUsize>,
}

/// Where a ready key stands: its level, its lane, and its number in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) priority: Priority,
    lane: u8,
    number: u64,
}

/// One controller. Its calls take O(log n) of its keys, and look at each gate that is remembered; [`Seat::open_all`] takes
/// O(lanes). It stays after it was forgotten until its last sync ends.
#[derive(Debug, Default)]
pub(super) struct Seat {
    pub(super) running: usize,
    pub(super) lines: [Line; LEVELS],
    /// None until it is registered.
    lanes: Option<Lanes>,
    /// What bounded lanes count; only those that run syncs or have passed over a level.
    counts: BTreeMap<u8, Counts>,
    /// The gates that lanes are remembered behind, at most one for each lane, in no order.
    gates: Vec<Behind>,
}

/// What a lane of a bounded controller counts.
#[derive(Debug, Default)]
struct Counts {
    running: usize,
    /// How many pops of this lane in a row went to other levels while it had keys in this one.
    passed: [u32; LEVELS],
}

/// What is remembered of a gate.
#[derive(Debug)]
struct Behind {
    gate: Gate,
    is_open: bool,
    /// Never empty.
    lanes: Shards,
    /// How many pops of these lanes in a row went to other levels while they had keys in this one that they could give.
    passed: [u32; LEVELS],
}

/// The lowest level that was passed over too often.
fn due(passed: [u32; LEVELS]) -> Option<Priority> {
    let levels = [Priority::Background, Priority::Child, Priority::Fresh];
    levels.into_iter().find(|level| is_due(passed[*level as usize]))
}

impl Seat {
    /// Says how its keys are divided. One that has keys or runs syncs, from before it was forgotten, stays as it is.
    pub(super) fn set_lanes(&mut self, lanes: Lanes) {
        if self.running == 0 && self.ready() == 0 {
            self.lanes = Some(lanes);
        }
    }

    pub(super) fn ready(&self) -> usize {
        self.lines.iter().map(Line::len).sum()
    }

    /// Whether it makes use of workers. Keys that gates hold back use none.
    pub(super) fn is_active(&self) -> bool {
        self.running > 0 || self.lines.iter().any(Line::is_open)
    }

    /// Puts a key at the end of a line.
    pub(super) fn push(&mut self, parent: ObjectKey, priority: Priority, number: u64, since: Duration) -> Place {
        let lane = self.lane(&parent);
        let stand = self.stand(lane);
        self.lines[priority as usize].push(stand, number, parent, since);
        Place { priority, lane, number }
    }

    /// Takes a ready key out of its line and tells since when it was ready.
    pub(super) fn withdraw(&mut self, place: Place) -> Option<Duration> {
        let stand = self.stand(place.lane);
        let (_, since) = self.lines[place.priority as usize].remove(stand, place.number)?;
        self.tidy(place.lane);
        Some(since)
    }

    /// The lane that comes next when the line of `turn` has its turn, and the level that it is served from.
    pub(super) fn next(&self, turn: Priority) -> Option<(u8, Priority)> {
        let lane = self.lines[turn as usize].next_lane()?;
        let own = self.counts.get(&lane).and_then(|counts| due(counts.passed));
        let shared = || {
            let behind = self.behind(lane)?;
            let level = due(behind.passed)?;
            self.lines[level as usize].next_behind(behind.gate).map(|lane| (lane, level))
        };
        own.map(|level| (lane, level)).or_else(shared).or(Some((lane, turn)))
    }

    /// Takes the first key of a lane from a level, and counts its sync.
    pub(super) fn start(&mut self, lane: u8, served: Priority) -> Option<(ObjectKey, Duration)> {
        let stand = self.stand(lane);
        let taken = self.lines[served as usize].take(stand)?;
        self.running += 1;
        let bound = self.lanes.as_ref().and_then(|lanes| lanes.bound);
        if bound.is_some() {
            let counts = self.counts.entry(lane).or_default();
            counts.running += 1;
            for (index, (line, passed)) in self.lines.iter().zip(&mut counts.passed).enumerate() {
                count(passed, index != served as usize && line.has(lane));
            }
            let to = self.stand(lane);
            self.change_stand(stand, to);
        }
        if let Some(behind) = self.gates.iter_mut().find(|behind| behind.lanes.contains(lane)) {
            for (index, (line, passed)) in self.lines.iter().zip(&mut behind.passed).enumerate() {
                count(passed, index != served as usize && line.has_behind(behind.gate));
            }
        }
        Some(taken)
    }

    /// A sync of a parent ended.
    pub(super) fn finished(&mut self, parent: &ObjectKey) {
        self.running = self.running.saturating_sub(1);
        if self.lanes.as_ref().is_none_or(|lanes| lanes.bound.is_none()) {
            return;
        }
        let lane = self.lane(parent);
        let from = self.stand(lane);
        if let Some(counts) = self.counts.get_mut(&lane) {
            counts.running = counts.running.saturating_sub(1);
        }
        self.tidy(lane);
        let to = self.stand(lane);
        self.change_stand(from, to);
    }

    /// A key of an open lane was refused: the lane is behind this gate, which is closed with all that is behind it.
    pub(super) fn hold(&mut self, lane: u8, gate: Gate) {
        self.set_open(gate, false);
        let from = self.stand(lane);
        if from.gate == Some(gate) {
            return;
        }
        for behind in &mut self.gates {
            behind.lanes.remove(lane);
        }
        if let Some(behind) = self.gates.iter_mut().find(|behind| behind.gate == gate) {
            behind.lanes.insert(lane);
        } else {
            let lanes = Shards::from_iter([lane]);
            self.gates.push(Behind { gate, is_open: false, lanes, passed: [0; LEVELS] });
        }
        self.gates.retain(|behind| !behind.lanes.is_empty());
        let to = self.stand(lane);
        self.change_stand(from, to);
        if let Some(old) = from.gate {
            self.tidy_gate(|behind| behind.gate == old);
        }
    }

    /// The lanes behind a gate are open, or closed.
    pub(super) fn set_open(&mut self, gate: Gate, is_open: bool) {
        let Some(behind) = self.gates.iter_mut().find(|behind| behind.gate == gate) else { return };
        behind.is_open = is_open;
        for line in &mut self.lines {
            line.set_open(gate, is_open);
        }
    }

    /// Opens all gates and forgets which lanes were behind them.
    pub(super) fn open_all(&mut self) {
        while let Some(behind) = self.gates.pop() {
            for lane in behind.lanes.iter() {
                let to = self.stand(lane);
                let from = Stand { gate: Some(behind.gate), is_open: behind.is_open, ..to };
                self.change_stand(from, to);
            }
        }
        self.gates = Vec::new();
    }

    /// Drops all ready keys and what was remembered of gates.
    pub(super) fn clear(&mut self) {
        self.gates = Vec::new();
        self.lines.iter_mut().for_each(Line::clear);
        self.counts.retain(|_, counts| {
            counts.passed = [0; LEVELS];
            counts.running > 0
        });
    }

    /// The lane of a parent: its shard.
    fn lane(&self, parent: &ObjectKey) -> u8 {
        self.lanes.as_ref().map_or(0, |lanes| shard(&lanes.parents, parent))
    }

    fn behind(&self, lane: u8) -> Option<&Behind> {
        self.gates.iter().find(|behind| behind.lanes.contains(lane))
    }

    fn stand(&self, lane: u8) -> Stand {
        let behind = self.behind(lane);
        let running = || self.counts.get(&lane).map_or(0, |counts| counts.running);
        Stand {
            lane,
            gate: behind.map(|behind| behind.gate),
            is_open: behind.is_none_or(|behind| behind.is_open),
            is_full: self.lanes.as_ref().and_then(|lanes| lanes.bound).is_some_and(|bound| running() >= bound.get()),
        }
    }

    fn change_stand(&mut self, from: Stand, to: Stand) {
        if from != to {
            self.lines.iter_mut().for_each(|line| line.change_stand(from, to));
        }
    }

    /// Keeps of a lane and of its gate what still counts. A level without keys isn't passed over.
    fn tidy(&mut self, lane: u8) {
        if let Some(counts) = self.counts.get_mut(&lane) {
            for (line, passed) in self.lines.iter().zip(&mut counts.passed) {
                if !line.has(lane) {
                    *passed = 0;
                }
            }
            if counts.running == 0 && counts.passed == [0; LEVELS] {
                self.counts.remove(&lane);
            }
        }
        self.tidy_gate(|behind| behind.lanes.contains(lane));
    }

    fn tidy_gate(&mut self, which: impl FnMut(&&mut Behind) -> bool) {
        let Some(behind) = self.gates.iter_mut().find(which) else { return };
        for (line, passed) in self.lines.iter().zip(&mut behind.passed) {
            if !line.has_behind(behind.gate) {
                *passed = 0;
            }
        }
    }
}
