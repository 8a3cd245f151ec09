//! The queue itself: what each key is doing, its timer and its failures.
//!
//! Never orders ready keys: `fairness.rs` does. Nothing here fails: a call about a key or controller that the queue
//! doesn't know is an ordinary race with `remove` or `forget`, and changes nothing.

use std::collections::HashMap;
use std::time::Duration;

use foldhash::fast::FixedState;

use super::backoff::{BACKOFF_BASE, backoff};
use super::fairness::{Priority, Turns};
use super::seat::{Gate, Lanes, Place};
use super::timers::{TimerId, Timers};
use crate::key::{ControllerId, ObjectKey, SyncKey};

/// One [`Queue::tick`] moves at most so many due timers, so that a crowd of them never holds up its caller for long.
pub const TIMERS_AT_ONCE: usize = 4096;

/// The shortest delay of [`Outcome::RetryAfter`]: a webhook that answers "retry after 0" doesn't make a hot loop.
pub const RETRY_AFTER_MIN: Duration = BACKOFF_BASE;

/// A key may ask for another sync at once so often in a row. Two are normal: children were made, then a status.
pub const FREE_REPEATS: u32 = 4;

/// A table of keys gives memory back only if it has room for more than this; below, that isn't worth the copying.
const SHRINK_FLOOR: usize = 1024;

/// A key to sync now. Each must come back through [`Queue::done`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Popped {
    /// What to sync.
    pub key: SyncKey,
    /// The level at which it was served.
    pub priority: Priority,
    /// How many of its syncs failed in a row until now.
    pub attempt: u32,
    /// How many of its syncs in a row asked for another at once until now: see [`Outcome::Success`].
    pub repeats: u32,
    /// How long it was ready. A key that was raised to a higher priority counts from when it first became ready.
    pub waited: Duration,
}

/// How a sync ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It did all that it wanted. Its failures are forgiven.
    Success {
        /// Sync again after this long, at [`Priority::Background`].
        resync_after: Option<Duration>,
        /// Sync again at once; after [`FREE_REPEATS`] in a row with a growing pause, because what changes something at
        /// every sync would do so for ever. What was asked for while it ran waits for that pause too, unless it is
        /// [`Priority::Fresh`].
        again: Option<Priority>,
    },
    /// It failed: sync again after [`backoff`], at [`Priority::Child`].
    Failure,
    /// It failed, and whoever refused it wants to be left alone for this long: as [`Outcome::Failure`], but no sooner.
    FailureFor(Duration),
    /// It was told to come back after this long (at least [`RETRY_AFTER_MIN`]), at [`Priority::Child`]. Its count of
    /// failures stays as it is.
    RetryAfter(Duration),
    /// The parent is gone: its failures and timer are dropped.
    Dropped,
}

/// How full the queue is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Keys that wait for a worker.
    pub ready: usize,
    /// The same by level: index it by `Priority as usize`.
    pub ready_by_priority: [usize; 3],
    /// Timers, also those of keys that are ready or running.
    pub waiting: usize,
    /// Keys that were popped and are not done.
    pub running: usize,
    /// The moment (on the caller's clock) at which the oldest of all keys that are first of their line became ready.
    /// A key that was raised counts once it is first of its new line.
    pub oldest_ready: Option<Duration>,
}

/// One controller's part of the queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Depth {
    /// Keys that wait for a worker.
    pub ready: usize,
    /// Those of them that are held: their shard runs as many syncs as its bound allows, or is behind a closed [`Gate`].
    pub held: usize,
    /// Timers, also those of keys that are ready or running.
    pub waiting: usize,
    /// Keys that were popped and are not done.
    pub running: usize,
}

/// The work queue of one process. See the module's documentation for the rules.
///
/// Each operation takes O(log n) of the keys and looks at the gates that are remembered of one controller, and
/// [`Queue::pop`] also looks at no more controllers than there are workers for each key that is refused or popped. Others
/// say what they cost.
#[derive(Debug)]
pub struct Queue {
    controllers: HashMap<ControllerId, Controller, FixedState>,
    turns: Turns,
    timers: Timers,
}

/// One controller's keys that are not idle.
#[derive(Debug, Default)]
struct Controller {
    /// False once it was forgotten; then only running keys are left.
    registered: bool,
    /// Timers among the keys.
    waiting: usize,
    keys: HashMap<ObjectKey, Entry, FixedState>,
}

/// A key that is not idle.
#[derive(Debug, Default)]
struct Entry {
    state: State,
    timer: Option<Timer>,
    failures: u32,
    /// Syncs in a row that asked for another.
    repeats: u32,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    #[default]
    Idle,
    Ready(Place),
    Running {
        /// The highest priority that was asked for since it started.
        dirty: Option<Priority>,
    },
}

impl Entry {
    /// Counts a failure and says how long to wait.
    fn fail(&mut self, random: u64) -> Duration {
        self.failures = self.failures.saturating_add(1);
        backoff(self.failures, random)
    }
}

#[derive(Clone, Copy, Debug)]
struct Timer {
    id: TimerId,
    priority: Priority,
}

impl Queue {
    /// An empty queue for so many workers, at least one.
    #[must_use]
    pub fn new(workers: usize) -> Self {
        Self { controllers: HashMap::default(), turns: Turns::new(workers), timers: Timers::default() }
    }

    /// Makes a controller known. Only keys of known controllers are taken. One that has keys keeps its lanes.
    pub fn register(&mut self, controller: ControllerId, lanes: Lanes) {
        self.controllers.entry(controller).or_default().registered = true;
        self.turns.register(controller, lanes);
    }

    /// Drops a controller with all its ready keys and timers. Its running keys hold their workers until they are done,
    /// and nothing follows from how they end. Takes O(log n) for each of its keys.
    pub fn forget(&mut self, controller: ControllerId) {
        let Some(known) = self.controllers.get_mut(&controller) else { return };
        known.registered = false;
        known.waiting = 0;
        let timers = &mut self.timers;
        known.keys.retain(|_, entry| {
            if let Some(timer) = entry.timer.take() {
                timers.clear(timer.id);
            }
            (entry.failures, entry.repeats) = (0, 0);
            let State::Running { dirty } = &mut entry.state else { return false };
            *dirty = None;
            true
        });
        if known.keys.is_empty() {
            self.controllers.remove(&controller);
        }
        self.turns.forget(controller);
    }

    /// Asks for a sync at once.
    ///
    /// A key that is ready keeps its place, or joins the end of the higher level if `priority` is higher. A key that
    /// runs becomes dirty. The count of failures and a timer stay as they are.
    pub fn add(&mut self, key: SyncKey, priority: Priority, now: Duration) {
        let Some(controller) = self.controllers.get_mut(&key.controller).filter(|known| known.registered) else {
            return;
        };
        let entry = controller.keys.entry(key.parent.clone()).or_default();
        entry.state = make_ready(&mut self.turns, key, entry.state, priority, now);
    }

    /// Asks for a sync after `delay`. A key has one timer: the earliest wins with its priority (of two for the same
    /// moment, the higher priority), the other is dropped. The next pop of the key clears the timer.
    pub fn add_after(&mut self, key: SyncKey, priority: Priority, delay: Duration, now: Duration) {
        let Some(controller) = self.controllers.get_mut(&key.controller).filter(|known| known.registered) else {
            return;
        };
        let entry = controller.keys.entry(key.parent.clone()).or_default();
        let due = now.saturating_add(delay);
        if let Some(timer) = &entry.timer {
            if (timer.id.due, timer.priority) <= (due, priority) {
                return;
            }
            self.timers.clear(timer.id);
        } else {
            controller.waiting += 1;
        }
        entry.timer = Some(Timer { id: self.timers.set(due, key), priority });
    }

    /// Takes the next key to sync, if there is one, a worker is free, and its controller may start another sync.
    ///
    /// `admit` is asked only about a key that would be popped now, by its controller and shard. Its pass comes with the
    /// key. If it refuses, the shard is held behind the gate that it names (and behind no other any more), and so are all
    /// shards that it was refused for by that gate before, until [`Queue::open`] or [`Queue::open_all`]. Held keys keep
    /// their places, take no worker and no turn, and the next key is looked for: at most one refusal for each shard.
    ///
    /// Due timers are moved first. After a None nothing can be popped before the next `add`, `done`, `forget`, `open`,
    /// `open_all` or due timer.
    pub fn pop<P>(
        &mut self,
        now: Duration,
        mut admit: impl FnMut(ControllerId, u8) -> Result<P, Gate>,
    ) -> Option<(Popped, P)> {
        loop {
            let moved = self.tick(now);
            if let Some((turn, pass)) = self.turns.start(&mut admit) {
                let key = SyncKey { controller: turn.controller, parent: turn.parent };
                let (attempt, repeats) = self.started(&key);
                let waited = now.saturating_sub(turn.since);
                return Some((Popped { key, priority: turn.priority, attempt, repeats, waited }, pass));
            }
            if moved < TIMERS_AT_ONCE {
                return None;
            }
        }
    }

    /// The gate takes calls again: the shards behind it are open, and remembered for its next refusal. Without effect if
    /// it is open or nothing is behind it.
    pub fn open(&mut self, controller: ControllerId, gate: Gate) {
        self.turns.open(controller, gate);
    }

    /// Opens all gates of a controller and forgets what was behind them: its shards lead elsewhere now. Takes O(shards).
    pub fn open_all(&mut self, controller: ControllerId) {
        self.turns.open_all(controller);
    }

    /// Tells how the sync of a popped key ended, and frees its worker. `random` spreads the backoff.
    ///
    /// A key that became dirty meanwhile is queued again at once, after any outcome but one that has a pause before it
    /// (see [`Outcome::Success`]). A timer that was set while it ran
    /// stays (the earliest wins) unless the key was dropped. Without effect for a key that isn't running.
    pub fn done(&mut self, key: &SyncKey, outcome: Outcome, now: Duration, random: u64) {
        let Some(controller) = self.controllers.get_mut(&key.controller) else { return };
        let Some(entry) = controller.keys.get_mut(&key.parent) else { return };
        let State::Running { dirty } = entry.state else { return };
        entry.state = State::Idle;
        self.turns.finished(key.controller, &key.parent);
        if !controller.registered {
            self.drop_if_idle(key);
            if self.controllers.get(&key.controller).is_some_and(|known| known.keys.is_empty()) {
                self.controllers.remove(&key.controller);
                self.turns.forget(key.controller);
            }
            return;
        }
        let mut soon = dirty;
        let mut later = None;
        let mut repeat = None;
        match outcome {
            Outcome::Success { resync_after, again } => {
                entry.failures = 0;
                entry.repeats = if again.is_some() { entry.repeats.saturating_add(1) } else { 0 };
                later = resync_after.map(|delay| (Priority::Background, delay));
                match again.filter(|_| entry.repeats > FREE_REPEATS) {
                    None => soon = dirty.into_iter().chain(again).min(),
                    Some(priority) => {
                        // Its own writes may have shown as changes of its children before they were answered.
                        let (fresh, own) = (Priority::Fresh, dirty.unwrap_or(priority).min(priority));
                        soon = dirty.filter(|dirty| *dirty == fresh);
                        let priority = if soon.is_some() { priority } else { own };
                        repeat = Some((priority, backoff(entry.repeats - FREE_REPEATS, random)));
                    }
                }
            }
            Outcome::Failure => later = Some((Priority::Child, entry.fail(random))),
            Outcome::FailureFor(pause) => later = Some((Priority::Child, entry.fail(random).max(pause))),
            Outcome::RetryAfter(delay) => later = Some((Priority::Child, delay.max(RETRY_AFTER_MIN))),
            Outcome::Dropped => {
                entry.failures = 0;
                entry.repeats = 0;
                self.clear_timer(key);
            }
        }
        if let Some(priority) = soon {
            self.add(key.clone(), priority, now);
        }
        for (priority, delay) in later.into_iter().chain(repeat) {
            self.add_after(key.clone(), priority, delay, now);
        }
        self.drop_if_idle(key);
    }

    /// Drops a key's place, timer and failures: its parent is gone. A running sync goes on, but nothing that was asked
    /// for while it ran follows.
    pub fn remove(&mut self, key: &SyncKey) {
        self.clear_timer(key);
        let Some(entry) = self.entry(key) else { return };
        (entry.failures, entry.repeats) = (0, 0);
        match &mut entry.state {
            State::Idle => {}
            State::Running { dirty } => *dirty = None,
            State::Ready(place) => {
                let place = *place;
                entry.state = State::Idle;
                self.turns.withdraw(key.controller, place);
            }
        }
        self.drop_if_idle(key);
    }

    /// Makes the keys of due timers ready and says how many timers that were, at most [`TIMERS_AT_ONCE`]. A key counts
    /// as ready since its timer fell due, not since the tick.
    pub fn tick(&mut self, now: Duration) -> usize {
        let mut moved = 0;
        while moved < TIMERS_AT_ONCE {
            let Some((id, key)) = self.timers.take_due(now) else { break };
            moved += 1;
            let Some(controller) = self.controllers.get_mut(&key.controller) else { continue };
            let Some(entry) = controller.keys.get_mut(&key.parent) else { continue };
            let Some(timer) = entry.timer.take_if(|timer| timer.id == id) else { continue };
            controller.waiting -= 1;
            entry.state = make_ready(&mut self.turns, key, entry.state, timer.priority, id.due);
        }
        moved
    }

    /// When the earliest timer falls due, which may be in the past; None without timers.
    #[must_use]
    pub fn next_due(&self) -> Option<Duration> {
        self.timers.next_due()
    }

    /// How full the queue is. Takes O(shards of all controllers).
    #[must_use]
    pub fn stats(&self) -> Stats {
        let ready_by_priority = self.turns.ready();
        Stats {
            ready: ready_by_priority.iter().sum(),
            ready_by_priority,
            waiting: self.timers.len(),
            running: self.turns.running(),
            oldest_ready: self.turns.oldest(),
        }
    }

    /// One controller's part of the queue; all zero if it isn't known. Takes O(shards).
    #[must_use]
    pub fn depth(&self, controller: ControllerId) -> Depth {
        let (ready, running, held) = self.turns.depth(controller);
        Depth { ready, held, waiting: self.controllers.get(&controller).map_or(0, |known| known.waiting), running }
    }

    /// Marks a key as running, clears its timer and returns its failures and repeats.
    fn started(&mut self, key: &SyncKey) -> (u32, u32) {
        self.clear_timer(key);
        let Some(entry) = self.entry(key) else { return (0, 0) };
        entry.state = State::Running { dirty: None };
        (entry.failures, entry.repeats)
    }

    fn entry(&mut self, key: &SyncKey) -> Option<&mut Entry> {
        self.controllers.get_mut(&key.controller)?.keys.get_mut(&key.parent)
    }

    fn clear_timer(&mut self, key: &SyncKey) {
        let Some(controller) = self.controllers.get_mut(&key.controller) else { return };
        if let Some(timer) = controller.keys.get_mut(&key.parent).and_then(|entry| entry.timer.take()) {
            controller.waiting -= 1;
            self.timers.clear(timer.id);
        }
    }

    /// Removes an entry that holds nothing. An idle key without a timer has no failures that matter: whoever counts a
    /// failure sets a timer.
    fn drop_if_idle(&mut self, key: &SyncKey) {
        let Some(controller) = self.controllers.get_mut(&key.controller) else { return };
        let keys = &mut controller.keys;
        if keys.get(&key.parent).is_some_and(|entry| matches!(entry.state, State::Idle) && entry.timer.is_none()) {
            keys.remove(&key.parent);
            // Shrinking to twice the need at an eighth of the room costs O(1) a removal on average.
            if keys.capacity() > SHRINK_FLOOR && keys.len() < keys.capacity() / 8 {
                keys.shrink_to(keys.len() * 2);
            }
        }
    }

    /// Keys that are not idle, and the room for them: for tests of what the queue keeps.
    #[cfg(test)]
    pub(super) fn footprint(&self) -> (usize, usize) {
        let keys = || self.controllers.values().map(|known| &known.keys);
        (keys().map(HashMap::len).sum(), keys().map(HashMap::capacity).sum())
    }
}

/// The state of a key in `state` once a sync at `priority` is asked for.
fn make_ready(turns: &mut Turns, key: SyncKey, state: State, priority: Priority, since: Duration) -> State {
    match state {
        State::Idle => turns.push(key.controller, key.parent, priority, since).map_or(State::Idle, State::Ready),
        State::Ready(place) if place.priority <= priority => state,
        State::Ready(place) => {
            let since = turns.withdraw(key.controller, place).unwrap_or(since);
            turns.push(key.controller, key.parent, priority, since).map_or(State::Idle, State::Ready)
        }
        State::Running { dirty } => State::Running { dirty: dirty.into_iter().chain(Some(priority)).min() },
    }
}
