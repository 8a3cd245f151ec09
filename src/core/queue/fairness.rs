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
//! # Bounds
//!
//! A controller may bound its syncs at once per shard. Each shard is a lane of its lines then; one that runs as many as the
//! bound allows is closed until one of them ends. Its keys keep their places, and nobody waits behind them.
//!
//! A level's own count of the turns that passed it by says nothing of such a lane: while the lane is closed its line may
//! have no turn, and the level serves others. So each lane counts for itself. If a level of it is due, the lane's next key
//! is taken from that level, whichever line's turn it is. What is urgent waits for that one sync then, and never until
//! the lower level has its turn, which may come after many keys of other lanes.

use std::collections::{BTreeMap, HashMap};
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;

use super::line::Line;
use crate::hash::shard;
use crate::key::{ControllerId, ObjectKey, Resource};

/// A level that has keys gets at least one turn in so many, as long as one of its controllers may start a sync. So does
/// each level of a shard among the turns of that shard, if its controller has a [`Bound`].
///
/// Of two levels that are due at once the lowest is first. Without this a steady stream of changes would starve resyncs
/// for ever.
pub const BACKGROUND_SHARE: u32 = 16;

/// The reserve is the workers divided by this, at least one.
pub const RESERVE_PART: usize = 4;

/// No controller takes the last workers: this part of them, rounded down, so none of less than 16.
pub const SPARE_PART: usize = 16;

const LEVELS: usize = 3;

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

/// How many syncs a controller runs at once for the parents of one shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// The parents' kind.
    pub parents: Arc<Resource>,
    /// At most so many.
    pub syncs: NonZeroUsize,
}

/// Where a ready key stands: its level, its lane, and its number in the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) priority: Priority,
    lane: u8,
    number: u64,
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
    /// Seats that have a key ready or running.
    active: usize,
    next_number: u64,
    seats: HashMap<ControllerId, Seat, FixedState>,
    levels: [Level; LEVELS],
}

/// One controller. It stays after it was forgotten until its last sync ends.
#[derive(Debug, Default)]
struct Seat {
    running: usize,
    lines: [Line; LEVELS],
    bound: Option<Bound>,
    /// The lanes that run syncs or have passed over a level; empty without a bound.
    lanes: HashMap<u8, Lane, FixedState>,
}

/// One shard of a controller that has a bound.
#[derive(Debug, Default)]
struct Lane {
    running: usize,
    /// How many pops of this lane in a row went to other levels while it had keys in this one.
    passed: [u32; LEVELS],
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
fn is_due(passed: u32) -> bool {
    passed + 1 >= BACKGROUND_SHARE
}

fn count(passed: &mut u32, is_passed_over: bool) {
    *passed = if is_passed_over { (*passed + 1).min(BACKGROUND_SHARE) } else { 0 };
}

impl Seat {
    fn ready(&self) -> usize {
        self.lines.iter().map(Line::len).sum()
    }

    fn is_active(&self) -> bool {
        self.running > 0 || self.ready() > 0
    }

    /// The lane of a parent: its shard, or the only one.
    fn lane(&self, parent: &ObjectKey) -> u8 {
        self.bound.as_ref().map_or(0, |bound| shard(&bound.parents, parent))
    }

    fn is_full(&self, lane: u8) -> bool {
        let running = || self.lanes.get(&lane).map_or(0, |lane| lane.running);
        self.bound.as_ref().is_some_and(|bound| running() >= bound.syncs.get())
    }

    /// The lowest level that a lane has passed over too often.
    fn due(&self, lane: u8) -> Option<Priority> {
        let passed = self.lanes.get(&lane)?.passed;
        let levels = [Priority::Background, Priority::Child, Priority::Fresh];
        levels.into_iter().find(|level| is_due(passed[*level as usize]))
    }

    /// Counts the sync of a key that was taken at `served`.
    fn count_start(&mut self, lane: u8, served: Priority) {
        if self.bound.is_none() {
            return;
        }
        let counts = self.lanes.entry(lane).or_default();
        counts.running += 1;
        for (index, (line, passed)) in self.lines.iter().zip(&mut counts.passed).enumerate() {
            count(passed, index != served as usize && line.has(lane));
        }
    }

    /// Keeps of a lane what still counts. A level without keys isn't passed over.
    fn tidy(&mut self, lane: u8) {
        let Some(counts) = self.lanes.get_mut(&lane) else { return };
        for (line, passed) in self.lines.iter().zip(&mut counts.passed) {
            if !line.has(lane) {
                *passed = 0;
            }
        }
        if counts.running == 0 && counts.passed == [0; LEVELS] {
            self.lanes.remove(&lane);
        }
    }
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

    /// Makes a controller known. One whose syncs still run, from before it was forgotten, keeps its bound.
    pub(super) fn register(&mut self, controller: ControllerId, bound: Option<Bound>) {
        let seat = self.seats.entry(controller).or_default();
        if !seat.is_active() {
            seat.bound = bound;
        }
    }

    /// Drops all ready keys of `controller`, and its seat once it runs nothing.
    pub(super) fn forget(&mut self, controller: ControllerId) {
        let Some(seat) = self.seats.get_mut(&controller) else { return };
        let was_active = seat.is_active();
        for (level, line) in self.levels.iter_mut().zip(&mut seat.lines) {
            let turn = line.turn;
            level.len -= line.len();
            line.clear();
            line.turn = turn;
            level.settle(line, controller, &mut self.next_number);
        }
        seat.lanes.retain(|_, lane| {
            lane.passed = [0; LEVELS];
            lane.running > 0
        });
        if seat.running == 0 {
            self.seats.remove(&controller);
            self.active -= usize::from(was_active);
        }
    }

    /// Puts a key at the end of its controller's line. The controller must be registered.
    pub(super) fn push(
        &mut self,
        controller: ControllerId,
        parent: ObjectKey,
        priority: Priority,
        since: Duration,
    ) -> Place {
        let number = self.next_number;
        self.next_number += 1;
        let seat = self.seats.entry(controller).or_default();
        self.active += usize::from(!seat.is_active());
        let lane = seat.lane(&parent);
        let is_open = !seat.is_full(lane);
        let (level, line) = (&mut self.levels[priority as usize], &mut seat.lines[priority as usize]);
        line.push((lane, is_open), number, parent, since);
        level.len += 1;
        level.settle(line, controller, &mut self.next_number);
        Place { priority, lane, number }
    }

    /// Takes a ready key out of its line and tells since when it was ready.
    pub(super) fn withdraw(&mut self, controller: ControllerId, place: Place) -> Option<Duration> {
        let seat = self.seats.get_mut(&controller)?;
        let (level, line) = (&mut self.levels[place.priority as usize], &mut seat.lines[place.priority as usize]);
        let (_, since) = line.remove(place.lane, place.number)?;
        level.len -= 1;
        level.settle(line, controller, &mut self.next_number);
        seat.tidy(place.lane);
        self.active -= usize::from(!seat.is_active());
        Some(since)
    }

    /// Takes the key whose turn it is, or the first of its lane in a level that is due there, and counts it as running.
    ///
    /// None if nothing is ready, all workers are busy, or every controller with a key that can be taken has its share. Looks at no
    /// more controllers than there are workers in a level, because each one that it skips runs a sync.
    pub(super) fn start(&mut self) -> Option<Turn> {
        if self.running >= self.workers {
            return None;
        }
        let (priority, controller) = self.order().into_iter().find_map(|priority| {
            let mut turns = self.levels[priority as usize].turns.values();
            turns.find(|controller| self.may_start(**controller)).map(|controller| (priority, *controller))
        })?;
        let seat = self.seats.get_mut(&controller)?;
        let lane = seat.lines[priority as usize].next_lane()?;
        let served = seat.due(lane).unwrap_or(priority);
        let (parent, since) = seat.lines[served as usize].take(lane)?;
        seat.running += 1;
        self.running += 1;
        self.levels[served as usize].len -= 1;
        // The next turn of this line is the last.
        if let Some(turn) = seat.lines[priority as usize].turn.take() {
            self.levels[priority as usize].turns.remove(&turn);
        }
        for index in [priority as usize, served as usize] {
            self.levels[index].settle(&mut seat.lines[index], controller, &mut self.next_number);
        }
        seat.count_start(lane, served);
        if seat.is_full(lane) {
            self.set_open(controller, lane, false);
        }
        // The turn counts, not the level that was served in it: other controllers wait for a turn of that one.
        self.count_passed(priority);
        Some(Turn { controller, parent, priority: served, since })
    }

    /// A sync of a parent of `controller` ended.
    pub(super) fn finished(&mut self, controller: ControllerId, parent: &ObjectKey) {
        let Some(seat) = self.seats.get_mut(&controller) else { return };
        seat.running = seat.running.saturating_sub(1);
        self.running = self.running.saturating_sub(1);
        self.active -= usize::from(!seat.is_active());
        let lane = seat.lane(parent);
        let was_full = seat.is_full(lane);
        if let Some(counts) = seat.lanes.get_mut(&lane) {
            counts.running = counts.running.saturating_sub(1);
        }
        seat.tidy(lane);
        if was_full {
            self.set_open(controller, lane, true);
        }
    }

    /// Opens or closes a lane in all lines of a controller.
    fn set_open(&mut self, controller: ControllerId, lane: u8, is_open: bool) {
        let Some(seat) = self.seats.get_mut(&controller) else { return };
        for (level, line) in self.levels.iter_mut().zip(&mut seat.lines) {
            line.set_open(lane, is_open);
            level.settle(line, controller, &mut self.next_number);
        }
    }

    pub(super) fn running(&self) -> usize {
        self.running
    }

    pub(super) fn ready(&self) -> [usize; LEVELS] {
        [self.levels[0].len, self.levels[1].len, self.levels[2].len]
    }

    /// The ready and the running keys of one controller, and those of the ready ones that wait for their shard. Takes
    /// O(shards).
    pub(super) fn depth(&self, controller: ControllerId) -> (usize, usize, usize) {
        let held = |seat: &Seat| seat.lines.iter().map(Line::held).sum();
        self.seats.get(&controller).map_or((0, 0, 0), |seat| (seat.ready(), seat.running, held(seat)))
    }

    /// The earliest moment at which a key that is now first of its line became ready.
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
