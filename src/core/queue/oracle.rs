//! A second, naive queue made of plain lists; random sequences of calls must look the same on both.
//!
//! Written from the rules, not from the code: it keeps no counters and no order but that of its lists.

use std::sync::LazyLock;
use std::time::Duration;

use super::tests::{lanes, of_shards};
use super::*;
use crate::key::{ControllerId, ObjectKey, SyncKey};

use Priority::{Background, Child, Fresh};

#[derive(Default)]
struct Model {
    workers: usize,
    registered: Vec<ControllerId>,
    /// In the order in which they took their places.
    ready: Vec<(SyncKey, Priority, Duration)>,
    /// With the priority of a dirty key.
    running: Vec<(SyncKey, Option<Priority>)>,
    /// In the order in which they were set.
    timers: Vec<(SyncKey, Priority, Duration)>,
    failures: Vec<(SyncKey, u32)>,
    /// Syncs in a row that asked for another.
    repeats: Vec<(SyncKey, u32)>,
    /// For each level, the controllers that have keys in it; the next one first.
    rotation: [Vec<ControllerId>; 3],
    /// For each level, the pops since it was last served or empty.
    passed: [u32; 3],
    /// Keys of controllers with a bound that were popped, each with a level that has keys of its shard and hasn't been
    /// served for this shard since.
    passed_over: Vec<(SyncKey, Priority)>,
    /// The shards that were refused, and by which gate last.
    behind: Vec<(ControllerId, u8, Gate)>,
    /// The gates that are closed.
    closed: Vec<(ControllerId, Gate)>,
    /// A pop of a shard behind a gate, with a level that has keys there (of shards with room) and hasn't been served since.
    passed_at: Vec<((ControllerId, Gate), Priority)>,
}

impl Model {
    fn add(&mut self, key: &SyncKey, priority: Priority, since: Duration) {
        if !self.registered.contains(&key.controller) {
            return;
        }
        if let Some((_, dirty)) = self.running.iter_mut().find(|(running, _)| running == key) {
            if dirty.is_none_or(|dirty| priority < dirty) {
                *dirty = Some(priority);
            }
        } else if let Some(at) = self.ready.iter().position(|(ready, _, _)| ready == key) {
            if priority < self.ready[at].1 {
                let (key, _, since) = self.ready.remove(at);
                self.ready.push((key, priority, since));
            }
        } else {
            self.ready.push((key.clone(), priority, since));
        }
        self.rotate();
    }

    fn add_after(&mut self, key: &SyncKey, priority: Priority, delay: Duration, now: Duration) {
        if !self.registered.contains(&key.controller) {
            return;
        }
        let due = now + delay;
        if let Some(at) = self.timers.iter().position(|(timer, _, _)| timer == key) {
            let (_, old_priority, old_due) = self.timers[at];
            if due > old_due || (due == old_due && priority >= old_priority) {
                return;
            }
            self.timers.remove(at);
        }
        self.timers.push((key.clone(), priority, due));
    }

    fn tick(&mut self, now: Duration) -> usize {
        let mut due: Vec<_> = self.timers.iter().filter(|timer| timer.2 <= now).cloned().collect();
        self.timers.retain(|timer| timer.2 > now);
        due.sort_by_key(|timer| timer.2);
        for (key, priority, due) in &due {
            self.add(key, *priority, *due);
        }
        due.len()
    }

    fn running_of(&self, controller: ControllerId) -> usize {
        self.running.iter().filter(|(key, _)| key.controller == controller).count()
    }

    /// Whether both are of one shard of one controller that has a bound.
    fn share_a_shard(&self, key: &SyncKey, other: &SyncKey) -> bool {
        let controller = key.controller;
        controller == other.controller && bound_of(controller).is_some() && shard_of(key) == shard_of(other)
    }

    /// Whether its shard may run one more.
    fn has_room(&self, key: &SyncKey) -> bool {
        let Some(bound) = bound_of(key.controller) else { return true };
        self.running.iter().filter(|(other, _)| self.share_a_shard(key, other)).count() < bound
    }

    /// The gate that its shard is behind, open or not.
    fn gate_of(&self, key: &SyncKey) -> Option<(ControllerId, Gate)> {
        let behind = self.behind.iter().find(|(id, shard, _)| (*id, *shard) == (key.controller, shard_of(key)));
        behind.map(|(id, _, gate)| (*id, *gate))
    }

    /// Whether nothing but the workers keeps it.
    fn can_go(&self, key: &SyncKey) -> bool {
        self.has_room(key) && self.gate_of(key).is_none_or(|gate| !self.closed.contains(&gate))
    }

    /// The lowest level of the key's gate that has been passed over so often that it is next.
    fn due_at(&self, key: &SyncKey) -> Option<Priority> {
        let gate = self.gate_of(key)?;
        let passed = |level| self.passed_at.iter().filter(|passed| **passed == (gate, level)).count();
        [Background, Child, Fresh].into_iter().find(|level| passed(*level) >= 15)
    }

    fn hold(&mut self, key: &SyncKey, gate: Gate) {
        let id = key.controller;
        self.behind.retain(|(of, shard, _)| (*of, *shard) != (id, shard_of(key)));
        self.behind.push((id, shard_of(key), gate));
        self.closed.push((id, gate));
        self.rotate();
    }

    fn open(&mut self, id: ControllerId, gate: Gate) {
        self.closed.retain(|closed| *closed != (id, gate));
        self.rotate();
    }

    fn open_all(&mut self, id: ControllerId) {
        self.behind.retain(|(of, _, _)| *of != id);
        self.closed.retain(|(of, _)| *of != id);
        self.rotate();
    }

    fn forget(&mut self, id: ControllerId) {
        self.registered.retain(|known| *known != id);
        self.open_all(id);
        self.drop_where(|key| key.controller == id);
    }

    /// The lowest level of the key's shard that has been passed over so often that it is next.
    fn due(&self, key: &SyncKey) -> Option<Priority> {
        let passed = |level| {
            let pops = self.passed_over.iter();
            pops.filter(|(popped, at)| *at == level && self.share_a_shard(popped, key)).count()
        };
        [Background, Child, Fresh].into_iter().find(|level| passed(*level) >= 15)
    }

    fn may_start(&self, controller: ControllerId) -> bool {
        let ready = self.ready.iter().map(|(key, _, _)| key).filter(|key| self.can_go(key));
        let keys = ready.chain(self.running.iter().map(|(key, _)| key));
        let mut active: Vec<_> = keys.map(|key| key.controller).collect();
        active.sort_unstable();
        active.dedup();
        let an_idle_one = self.registered.iter().any(|id| !active.contains(id));
        let claimants = active.len() + usize::from(an_idle_one);
        let reserve = if self.workers < 4 { 1 } else { self.workers / 4 };
        // running < ceil(workers / claimants), without a division.
        let fair = self.running_of(controller) * claimants < self.workers;
        let spares_some = self.running_of(controller) + self.workers / 16 < self.workers;
        (fair && spares_some) || self.workers - self.running.len() > reserve
    }

    /// The key whose turn it is, by its place among the ready ones, and the level and the controller that have the turn.
    fn next(&self) -> Option<(usize, Priority, ControllerId)> {
        let mut order: Vec<Priority> =
            [Background, Child, Fresh].into_iter().filter(|level| self.passed[*level as usize] >= 15).collect();
        order.extend([Fresh, Child, Background]);
        let (level, controller) = order.into_iter().find_map(|level| {
            let next = self.rotation[level as usize].iter().find(|id| self.may_start(**id))?;
            Some((level, *next))
        })?;
        let first = |level: Priority, of: &dyn Fn(&SyncKey) -> bool| {
            self.ready.iter().position(|(key, at, _)| *at == level && of(key) && self.can_go(key))
        };
        let at = first(level, &|key| key.controller == controller)?;
        let turn = &self.ready[at].0;
        let at = match (self.due(turn), self.due_at(turn)) {
            (Some(due), _) => first(due, &|key| self.share_a_shard(key, turn))?,
            (None, Some(due)) => first(due, &|key| self.gate_of(key) == self.gate_of(turn))?,
            (None, None) => at,
        };
        Some((at, level, controller))
    }

    fn pop(&mut self, now: Duration, mut admit: impl FnMut(ControllerId, u8) -> Result<(), Gate>) -> Option<Popped> {
        self.tick(now);
        if self.running.len() == self.workers {
            return None;
        }
        let (at, level, controller) = loop {
            let next = self.next()?;
            let key = self.ready[next.0].0.clone();
            match admit(key.controller, shard_of(&key)) {
                Ok(()) => break next,
                Err(gate) => self.hold(&key, gate),
            }
        };
        for other in [Fresh, Child, Background] {
            let passed = &mut self.passed[other as usize];
            *passed = if other == level { 0 } else { *passed + 1 };
        }
        let (key, priority, since) = self.ready.remove(at);
        self.timers.retain(|(timer, _, _)| *timer != key);
        if bound_of(key.controller).is_some() {
            self.passed_over.extend([Fresh, Child, Background].map(|level| (key.clone(), level)));
        }
        if let Some(gate) = self.gate_of(&key) {
            self.passed_at.extend([Fresh, Child, Background].map(|level| (gate, level)));
            self.passed_at.retain(|passed| *passed != (gate, priority));
        }
        self.keep_passed_over(|model, popped, level| level != priority || !model.share_a_shard(popped, &key));
        self.running.push((key.clone(), None));
        self.rotation[level as usize].retain(|id| *id != controller);
        self.rotate();
        let attempt = self.failures.iter().find(|(failed, _)| *failed == key).map_or(0, |(_, count)| *count);
        let repeats = self.repeats.iter().find(|(again, _)| *again == key).map_or(0, |(_, count)| *count);
        Some(Popped { key, priority, attempt, repeats, waited: now - since })
    }

    fn done(&mut self, key: &SyncKey, outcome: Outcome, now: Duration, random: u64) {
        let Some(at) = self.running.iter().position(|(running, _)| running == key) else { return };
        let (_, dirty) = self.running.remove(at);
        self.rotate();
        let failures = self.failures.iter().position(|(failed, _)| failed == key);
        let failures = failures.map_or(0, |at| self.failures.remove(at).1);
        let repeats = self.repeats.iter().position(|(again, _)| again == key);
        let mut repeats = repeats.map_or(0, |at| self.repeats.remove(at).1);
        if !self.registered.contains(&key.controller) {
            return;
        }
        if outcome == Outcome::Dropped {
            self.timers.retain(|(timer, _, _)| timer != key);
        }
        let slowed = matches!(outcome, Outcome::Success { again: Some(_), .. }) && repeats >= 4;
        if let Some(priority) = dirty.filter(|dirty| !slowed || *dirty == Fresh) {
            self.add(key, priority, now);
        }
        match outcome {
            Outcome::Success { resync_after, again } => {
                if let Some(delay) = resync_after {
                    self.add_after(key, Background, delay, now);
                }
                repeats = if again.is_some() { repeats + 1 } else { 0 };
                match again {
                    Some(priority) if repeats <= 4 => self.add(key, priority, now),
                    Some(priority) => {
                        let dirty = dirty.filter(|dirty| *dirty != Fresh);
                        let priority = dirty.map_or(priority, |dirty| dirty.min(priority));
                        self.add_after(key, priority, backoff(repeats - 4, random), now);
                    }
                    None => {}
                }
            }
            Outcome::Failure => {
                self.failures.push((key.clone(), failures + 1));
                self.add_after(key, Child, backoff(failures + 1, random), now);
            }
            Outcome::FailureFor(pause) => {
                self.failures.push((key.clone(), failures + 1));
                self.add_after(key, Child, backoff(failures + 1, random).max(pause), now);
            }
            Outcome::RetryAfter(delay) => {
                self.failures.push((key.clone(), failures));
                self.add_after(key, Child, delay.max(RETRY_AFTER_MIN), now);
            }
            Outcome::Dropped => return,
        }
        self.repeats.push((key.clone(), repeats));
    }

    fn drop_where(&mut self, gone: impl Fn(&SyncKey) -> bool) {
        self.ready.retain(|(key, _, _)| !gone(key));
        self.timers.retain(|(key, _, _)| !gone(key));
        self.failures.retain(|(key, _)| !gone(key));
        self.repeats.retain(|(key, _)| !gone(key));
        self.running.iter_mut().filter(|(key, _)| gone(key)).for_each(|(_, dirty)| *dirty = None);
        self.rotate();
    }

    /// Controllers without keys that may run leave the rotations; those that got keys join at the end.
    fn rotate(&mut self) {
        for level in [Fresh, Child, Background] {
            let here: Vec<_> = self
                .ready
                .iter()
                .filter(|(key, at, _)| *at == level && self.can_go(key))
                .map(|(key, _, _)| key.controller)
                .collect();
            let rotation = &mut self.rotation[level as usize];
            rotation.retain(|id| here.contains(id));
            for id in here {
                if !rotation.contains(&id) {
                    rotation.push(id);
                }
            }
        }
        self.keep_passed_over(|model, popped, level| {
            model.ready.iter().any(|(key, at, _)| *at == level && model.share_a_shard(popped, key))
        });
        let mut passed_at = std::mem::take(&mut self.passed_at);
        passed_at.retain(|(gate, level)| {
            let mut at_level = self.ready.iter().filter(|(_, at, _)| at == level).map(|(key, _, _)| key);
            at_level.any(|key| self.gate_of(key) == Some(*gate) && self.has_room(key))
        });
        self.passed_at = passed_at;
        self.passed_while_empty();
    }

    fn keep_passed_over(&mut self, keep: impl Fn(&Self, &SyncKey, Priority) -> bool) {
        let mut passed_over = std::mem::take(&mut self.passed_over);
        passed_over.retain(|(popped, level)| keep(self, popped, *level));
        self.passed_over = passed_over;
    }

    fn passed_while_empty(&mut self) {
        for (rotation, passed) in self.rotation.iter().zip(&mut self.passed) {
            if rotation.is_empty() {
                *passed = 0;
            }
        }
    }

    fn stats(&self) -> Stats {
        let level = |level| self.ready.iter().filter(|(_, at, _)| *at == level).count();
        let mut first_of_line: Vec<(ControllerId, Priority)> = Vec::new();
        let mut oldest_ready = None;
        for (key, priority, since) in &self.ready {
            if !first_of_line.contains(&(key.controller, *priority)) {
                first_of_line.push((key.controller, *priority));
                oldest_ready = Some(oldest_ready.map_or(*since, |oldest: Duration| oldest.min(*since)));
            }
        }
        Stats {
            ready: self.ready.len(),
            ready_by_priority: [level(Fresh), level(Child), level(Background)],
            waiting: self.timers.len(),
            running: self.running.len(),
            oldest_ready,
        }
    }

    /// Keys that are not idle.
    fn entries(&self) -> usize {
        let mut keys: Vec<_> = self.ready.iter().map(|(key, _, _)| key).collect();
        keys.extend(self.running.iter().map(|(key, _)| key));
        keys.extend(self.timers.iter().map(|(key, _, _)| key));
        keys.sort_unstable();
        keys.dedup();
        keys.len()
    }
}

/// Four in each of [`SHARDS`] shards.
static PARENTS: LazyLock<Vec<ObjectKey>> = LazyLock::new(|| {
    let keys: [_; SHARDS] = of_shards(&lanes(None), "", 4);
    keys.into_iter().flatten().map(|key| key.parent).collect()
});

const SHARDS: usize = 3;

fn shard_of(key: &SyncKey) -> u8 {
    let at = PARENTS.iter().position(|parent| *parent == key.parent).unwrap();
    u8::try_from(at / 4).unwrap()
}

/// Every other controller may run two syncs of one shard.
fn bound_of(controller: ControllerId) -> Option<usize> {
    (controller.0 % 2 == 1).then_some(2)
}

#[path = "oracle_tests.rs"]
mod sequences;
