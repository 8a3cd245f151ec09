//! Whose turn it is: levels of priority, turns of the controllers inside a level, and shares of the workers.
//!
//! Never knows timers, failures or dirty keys, and never refuses a key; it only orders those that are ready.
//!
//! # The share of a controller
//!
//! A controller may start one more sync if more than the reserve (a quarter of the workers, at least one) is free, or
//! if it runs fewer than its share: `ceil(workers / claimants)`. Claimants are the controllers that have a key ready
//! or running, and one more that stands for all registered controllers that have none. So:
//!
//! - a controller that is alone may take all workers but a sixteenth, which wait for one that is declared later;
//! - one whose webhook hangs takes at most its share or what lies above the reserve, and the rest stays free for the
//!   others, also for those that have nothing to do yet (with at least two workers);
//! - who has borrowed above its share gives back as its syncs end: it can't start another while the reserve is in use.
//!
//! A controller whose keys are all held back by gates (see `seat.rs`) counts as one that has none.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use foldhash::fast::FixedState;

use super::line::Line;
use super::seat::{Gate, Lanes, Place, Seat};
use crate::key::{ControllerId, ObjectKey};

/// A level that has keys gets at least one turn in so many, as long as one of its controllers may start a sync. So does
/// each level of a shard among the turns of that shard, if its controller bounds them, and each level of all shards behind
/// a [`Gate`] among the turns of these.
///
/// Of two levels that are due at once the lowest is first. Without this a steady stream of changes would starve resyncs
/// for ever.
pub const BACKGROUND_SHARE: u32 = 16;

/// The reserve is the workers divided by this, at least one.
pub const RESERVE_PART: usize = 4;

/// No controller takes the last workers: this part of them, rounded down, so none of less than 16.
pub const SPARE_PART: usize = 16;

pub(super) const LEVELS: usize = 3;

/// How urgent a key is. The order is the order of service: the smallest is served first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// The parent itself changed: a new spec, a deletion.
    Fresh = 0,
    /// A child or related object changed, or a failed sync is retried.
    Child = 1,
    /// Nothing is known to have changed: resyncs and start-up.
    Background = 2,
}

/// A key whose turn has come.
pub(super) struct Turn {
    pub(super) controller: ControllerId,
    pub(super) parent: ObjectKey,
    pub(super) priority: Priority,
    /// Since when it was ready.
    pub(super) since: Duration,
}

/// All ready keys, and how many syncs each controller runs.
#[derive(Debug)]
pub(super) struct Turns {
    workers: usize,
    running: usize,
    /// Seats that run a key or have one that can be taken.
    active: usize,
    next_number: u64,
    seats: HashMap<ControllerId, Seat, FixedState>,
    levels: [Level; LEVELS],
}

#[derive(Debug, Default)]
struct Level {
    /// The controllers that have keys here that can be taken, in the order of their turns.
    turns: BTreeMap<u64, ControllerId>,
    len: usize,
    /// How many turns in a row went to other levels while this one had some.
    passed: u32,
}

impl Level {
    /// Gives a line its turn, the last, if it has none and needs one; takes it away if it can't use it. A level without
    /// turns isn't passed over.
    fn settle(&mut self, line: &mut Line, controller: ControllerId, next_number: &mut u64) {
        match line.turn {
            None if line.is_open() => {
                line.turn = Some(*next_number);
                self.turns.insert(*next_number, controller);
                *next_number += 1;
            }
            Some(turn) if !line.is_open() => {
                self.turns.remove(&turn);
                line.turn = None;
            }
            _ => {}
        }
        if self.turns.is_empty() {
            self.passed = 0;
        }
    }
}

/// Whether a level that was passed over so often is next.
pub(super) fn is_due(passed: u32) -> bool {
    passed + 1 >= BACKGROUND_SHARE
}

/// One more turn, which passed a level over or didn't.
pub(super) fn count(passed: &mut u32, is_passed_over: bool) {
    *passed = if is_passed_over { (*passed + 1).min(BACKGROUND_SHARE) } else { 0 };
}

impl Turns {
    pub(super) fn new(workers: usize) -> Self {
        Self {
            workers: workers.max(1),
            running: 0,
            active: 0,
            next_number: 0,
            seats: HashMap::default(),
            levels: Default::default(),
        }
    }

    /// Makes a controller known. One whose syncs still run, from before it was forgotten, keeps its lanes.
    pub(super) fn register(&mut self, controller: ControllerId, lanes: Lanes) {
        self.seats.entry(controller).or_default().set_lanes(lanes);
    }

    /// Drops all ready keys of `controller` and what is remembered of its gates, and its seat once it runs nothing.
    pub(super) fn forget(&mut self, controller: ControllerId) {
        self.change(controller, Seat::clear);
        if self.seats.get(&controller).is_some_and(|seat| seat.running == 0) {
            self.seats.remove(&controller);
        }
    }

    /// Puts a key at the end of its controller's line; None if the controller isn't registered.
    pub(super) fn push(
        &mut self,
        controller: ControllerId,
        parent: ObjectKey,
        priority: Priority,
        since: Duration,
    ) -> Option<Place> {
        let number = self.next_number;
        self.next_number += 1;
        self.change(controller, |seat| seat.push(parent, priority, number, since))
    }

    /// Takes a ready key out of its line and tells since when it was ready.
    pub(super) fn withdraw(&mut self, controller: ControllerId, place: Place) -> Option<Duration> {
        self.change(controller, |seat| seat.withdraw(place))?
    }

    /// Takes the key whose turn it is, or the first of its lane or gate in a level that is due there, and counts it as
    /// running. A key that `admit` refuses is held with its lane, and the next one has its turn.
    ///
    /// None if nothing is ready, all workers are busy, or every controller with a key that can be taken has its share.
    /// For each key that is refused, and for the one that isn't, it looks at no more controllers than there are workers
    /// in a level, because each one that it skips runs a sync. Each refusal closes a lane, so there are no more of them
    /// than lanes.
    pub(super) fn start<P>(
        &mut self,
        admit: &mut impl FnMut(ControllerId, u8) -> Result<P, Gate>,
    ) -> Option<(Turn, P)> {
        if self.running >= self.workers {
            return None;
        }
        loop {
            let (level, controller) = self.order().into_iter().find_map(|level| {
                let mut turns = self.levels[level as usize].turns.values();
                turns.find(|controller| self.may_start(**controller)).map(|controller| (level, *controller))
            })?;
            let seat = self.seats.get_mut(&controller)?;
            let (lane, priority) = seat.next(level)?;
            match admit(controller, lane) {
                Err(gate) => self.change(controller, |seat| seat.hold(lane, gate))?,
                Ok(pass) => {
                    // The next turn of this line is the last.
                    if let Some(turn) = seat.lines[level as usize].turn.take() {
                        self.levels[level as usize].turns.remove(&turn);
                    }
                    let (parent, since) = self.change(controller, |seat| seat.start(lane, priority))??;
                    self.running += 1;
                    // The turn counts, not the level that was served in it: other controllers wait for a turn of that.
                    self.count_passed(level);
                    return Some((Turn { controller, parent, priority, since }, pass));
                }
            }
        }
    }

    /// A sync of a parent of `controller` ended.
    pub(super) fn finished(&mut self, controller: ControllerId, parent: &ObjectKey) {
        if self.change(controller, |seat| seat.finished(parent)).is_some() {
            self.running = self.running.saturating_sub(1);
        }
    }

    /// Opens the lanes behind a gate.
    pub(super) fn open(&mut self, controller: ControllerId, gate: Gate) {
        self.change(controller, |seat| seat.set_open(gate, true));
    }

    /// Opens all lanes that gates keep back, and forgets which.
    pub(super) fn open_all(&mut self, controller: ControllerId) {
        self.change(controller, Seat::open_all);
    }

    /// Changes a seat, and what follows from it for the levels and the shares.
    fn change<R>(&mut self, controller: ControllerId, change: impl FnOnce(&mut Seat) -> R) -> Option<R> {
        let seat = self.seats.get_mut(&controller)?;
        self.active -= usize::from(seat.is_active());
        for (level, line) in self.levels.iter_mut().zip(&seat.lines) {
            level.len -= line.len();
        }
        let changed = change(seat);
        self.active += usize::from(seat.is_active());
        for (level, line) in self.levels.iter_mut().zip(&mut seat.lines) {
            level.len += line.len();
            level.settle(line, controller, &mut self.next_number);
        }
        Some(changed)
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn ready(&self) -> [usize; LEVELS] {
        [self.levels[0].len, self.levels[1].len, self.levels[2].len]
    }

    /// The ready and the running keys of one controller, and those of the ready ones that are in closed lanes. Takes
    /// O(lanes).
    pub(super) fn depth(&self, controller: ControllerId) -> (usize, usize, usize) {
        let held = |seat: &Seat| seat.lines.iter().map(Line::held).sum();
        self.seats.get(&controller).map_or((0, 0, 0), |seat| (seat.ready(), seat.running, held(seat)))
    }

    /// The earliest moment at which a key that is now first of its line became ready. Takes O(lanes of all controllers).
    pub(super) fn oldest(&self) -> Option<Duration> {
        let lines = self.seats.values().flat_map(|seat| &seat.lines);
        lines.filter_map(Line::oldest).min()
    }

    fn may_start(&self, controller: ControllerId) -> bool {
        let reserve = (self.workers / RESERVE_PART).max(1);
        let claimants = self.active + usize::from(self.seats.len() > self.active);
        let share = self.workers.div_ceil(claimants.max(1)).min(self.workers - self.workers / SPARE_PART);
        self.workers - self.running > reserve || self.seats.get(&controller).is_some_and(|seat| seat.running < share)
    }

    /// Levels that were passed over too often, lowest first; then the others, highest first.
    fn order(&self) -> [Priority; LEVELS] {
        let mut order = [Priority::Fresh, Priority::Child, Priority::Background];
        order.sort_by_key(|priority| {
            let level = *priority as usize;
            if is_due(self.levels[level].passed) { (0, LEVELS - level) } else { (1, level) }
        });
        order
    }

    fn count_passed(&mut self, served: Priority) {
        for (index, level) in self.levels.iter_mut().enumerate() {
            count(&mut level.passed, index != served as usize && !level.turns.is_empty());
        }
    }
}
