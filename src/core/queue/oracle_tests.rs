//! Random sequences of calls that must look the same on the queue and on its naive twin.

use std::time::Duration;

use proptest::prelude::*;

use Priority::{Background, Child, Fresh};

use super::*;

#[derive(Clone, Debug)]
enum Call {
    Register(ControllerId),
    Forget(ControllerId),
    Add(SyncKey, Priority),
    AddAfter(SyncKey, Priority, Duration),
    Pop,
    /// Ends the running sync with this index, modulo their number.
    Done(usize, Outcome, u64),
    /// A call about a key that may not be running.
    DoneWrong(SyncKey, Outcome),
    Remove(SyncKey),
    /// From now on a gate lets so many keys in.
    Places(usize, usize),
    /// From now on shards lead to other gates.
    Turn(usize),
    Open(ControllerId, usize),
    OpenAll(ControllerId),
    /// A gate lets one more in and tells a controller.
    OpenForOne(ControllerId, usize),
    Tick,
    Advance(Duration),
}

fn any_controller() -> impl Strategy<Value = ControllerId> {
    (0u32..4).prop_map(ControllerId)
}

fn any_key() -> impl Strategy<Value = SyncKey> {
    (any_controller(), 0usize..4 * SHARDS)
        .prop_map(|(controller, n)| SyncKey { controller, parent: PARENTS[n].clone() })
}

/// Two gates are fewer than there are shards.
const GATES: usize = 2;

fn any_priority() -> impl Strategy<Value = Priority> {
    prop_oneof![3 => Just(Fresh), 2 => Just(Child), 2 => Just(Background)]
}

fn any_delay() -> impl Strategy<Value = Duration> {
    (0u64..12).prop_map(|n| Duration::from_millis(n * 50))
}

fn any_outcome() -> impl Strategy<Value = Outcome> {
    prop_oneof![
        4 => (proptest::option::of(any_delay()), proptest::option::weighted(0.2, any_priority()))
            .prop_map(|(resync_after, again)| Outcome::Success { resync_after, again }),
        2 => Just(Outcome::Failure),
        1 => any_delay().prop_map(Outcome::FailureFor),
        1 => any_delay().prop_map(Outcome::RetryAfter),
        1 => Just(Outcome::Dropped),
    ]
}

/// Calls that keep few urgent keys busy, so that others are passed over.
fn busy_call() -> impl Strategy<Value = Call> {
    // The controllers 1 and 3 have bounds; all of these keys are of one shard.
    let key = |of: std::ops::Range<usize>| {
        (0u32..2, of).prop_map(|(n, at)| SyncKey { controller: ControllerId(2 * n + 1), parent: PARENTS[at].clone() })
    };
    let success = Outcome::Success { resync_after: None, again: None };
    prop_oneof![
        300 => key(0..2).prop_map(|key| Call::Add(key, Fresh)),
        300 => Just(Call::Pop),
        300 => (0usize..20).prop_map(move |at| Call::Done(at, success, 0)),
        60 => (key(2..4), prop_oneof![Just(Child), Just(Background)]).prop_map(|(key, level)| Call::Add(key, level)),
        30 => (any_key(), any_priority()).prop_map(|(key, level)| Call::Add(key, level)),
        4 => key(2..4).prop_map(Call::Remove),
        2 => any_controller().prop_map(Call::Forget),
        20 => any_controller().prop_map(Call::Register),
    ]
}

/// Calls that keep urgent keys waiting at gates that are full, so that others there are passed over.
fn full_call() -> impl Strategy<Value = Call> {
    let success = Outcome::Success { resync_after: None, again: None };
    prop_oneof![
        300 => (any_controller(), 0usize..4).prop_map(|(controller, n)| {
            Call::Add(SyncKey { controller, parent: PARENTS[n * 3].clone() }, Fresh)
        }),
        300 => Just(Call::Pop),
        200 => (any_controller(), 0..GATES).prop_map(|(id, gate)| Call::OpenForOne(id, gate)),
        300 => (0usize..20).prop_map(move |at| Call::Done(at, success, 0)),
        60 => (any_key(), any_priority()).prop_map(|(key, level)| Call::Add(key, level)),
        4 => any_key().prop_map(Call::Remove),
        1 => any_controller().prop_map(Call::OpenAll),
        1 => (0..GATES).prop_map(Call::Turn),
    ]
}

fn any_call() -> impl Strategy<Value = Call> {
    prop_oneof![
        2 => any_controller().prop_map(Call::Register),
        1 => any_controller().prop_map(Call::Forget),
        24 => (any_key(), any_priority()).prop_map(|(key, priority)| Call::Add(key, priority)),
        8 => (any_key(), any_priority(), any_delay()).prop_map(|(key, priority, delay)| Call::AddAfter(key, priority, delay)),
        24 => Just(Call::Pop),
        16 => (any::<usize>(), any_outcome(), any::<u64>()).prop_map(|(at, outcome, random)| Call::Done(at, outcome, random)),
        1 => (any_key(), any_outcome()).prop_map(|(key, outcome)| Call::DoneWrong(key, outcome)),
        2 => any_key().prop_map(Call::Remove),
        4 => (0..GATES, prop_oneof![Just(0), Just(2), Just(usize::MAX)]).prop_map(|(gate, n)| Call::Places(gate, n)),
        1 => (0..GATES).prop_map(Call::Turn),
        6 => (any_controller(), 0..GATES).prop_map(|(id, gate)| Call::Open(id, gate)),
        1 => any_controller().prop_map(Call::OpenAll),
        2 => Just(Call::Tick),
        6 => any_delay().prop_map(Call::Advance),
    ]
}

/// Where keys go: shards lead to gates, and these let so many more in.
#[derive(Clone, Debug, PartialEq)]
struct Places {
    turn: usize,
    left: [usize; GATES],
    /// All that were asked about.
    asked: Vec<(ControllerId, u8)>,
}

impl Places {
    fn admit(&mut self, controller: ControllerId, shard: u8) -> Result<(), Gate> {
        self.asked.push((controller, shard));
        let gate = (usize::from(shard) + self.turn) % GATES;
        self.left[gate] = self.left[gate].checked_sub(1).ok_or(Gate(gate as u64))?;
        Ok(())
    }
}

/// Both queues, the caller's clock, and what the gates do.
struct Pair {
    queue: Queue,
    model: Model,
    now: Duration,
    places: Places,
}

impl Pair {
    fn new(workers: usize, controllers: u32) -> Self {
        let model = Model { workers, ..Model::default() };
        let places = Places { turn: 0, left: [usize::MAX; GATES], asked: Vec::new() };
        let mut pair = Self { queue: Queue::new(workers), model, now: Duration::from_secs(5), places };
        (0..controllers).for_each(|id| pair.register(ControllerId(id)));
        pair
    }

    fn register(&mut self, id: ControllerId) {
        self.queue.register(id, lanes(bound_of(id)));
        if !self.model.registered.contains(&id) {
            self.model.registered.push(id);
        }
    }

    fn done(&mut self, key: &SyncKey, outcome: Outcome, random: u64) {
        self.queue.done(key, outcome, self.now, random);
        self.model.done(key, outcome, self.now, random);
    }

    fn open(&mut self, id: ControllerId, gate: usize) {
        self.queue.open(id, Gate(gate as u64));
        self.model.open(id, Gate(gate as u64));
    }

    fn pop(&mut self) -> Result<Option<Popped>, TestCaseError> {
        let (mut places, mut expected) = (self.places.clone(), self.places.clone());
        let popped = self.queue.pop(self.now, |id, shard| places.admit(id, shard)).map(|(popped, ())| popped);
        prop_assert_eq!(&popped, &self.model.pop(self.now, |id, shard| expected.admit(id, shard)));
        prop_assert_eq!(&places, &expected);
        self.places = Places { asked: Vec::new(), ..places };
        Ok(popped)
    }

    fn call(&mut self, call: Call) -> Result<(), TestCaseError> {
        let now = self.now;
        match call {
            Call::Register(id) => self.register(id),
            Call::Forget(id) => {
                self.queue.forget(id);
                self.model.forget(id);
            }
            Call::Add(key, priority) => {
                self.model.add(&key, priority, now);
                self.queue.add(key, priority, now);
            }
            Call::AddAfter(key, priority, delay) => {
                self.model.add_after(&key, priority, delay, now);
                self.queue.add_after(key, priority, delay, now);
            }
            Call::Pop => {
                self.pop()?;
            }
            Call::Done(at, outcome, random) => {
                if let Some(at) = at.checked_rem(self.model.running.len()) {
                    let key = self.model.running[at].0.clone();
                    self.done(&key, outcome, random);
                }
            }
            Call::DoneWrong(key, outcome) => self.done(&key, outcome, 0),
            Call::Remove(key) => {
                self.queue.remove(&key);
                self.model.drop_where(|gone| *gone == key);
            }
            Call::Places(gate, left) => self.places.left[gate] = left,
            Call::Turn(turn) => self.places.turn = turn,
            Call::Open(id, gate) => self.open(id, gate),
            Call::OpenAll(id) => {
                self.queue.open_all(id);
                self.model.open_all(id);
            }
            Call::OpenForOne(id, gate) => {
                self.places.left[gate] = 1;
                self.open(id, gate);
            }
            Call::Tick => prop_assert_eq!(self.queue.tick(now), self.model.tick(now)),
            Call::Advance(delay) => self.now += delay,
        }
        self.compare()
    }

    fn compare(&self) -> Result<(), TestCaseError> {
        prop_assert_eq!(self.queue.stats(), self.model.stats());
        prop_assert_eq!(self.queue.next_due(), self.model.timers.iter().map(|timer| timer.2).min());
        prop_assert_eq!(self.queue.footprint().0, self.model.entries());
        for id in (0..4).map(ControllerId) {
            let depth = Depth {
                ready: self.model.ready.iter().filter(|(key, _, _)| key.controller == id).count(),
                held: {
                    let of_it = self.model.ready.iter().map(|(key, _, _)| key).filter(|key| key.controller == id);
                    of_it.filter(|key| !self.model.can_go(key)).count()
                },
                waiting: self.model.timers.iter().filter(|(key, _, _)| key.controller == id).count(),
                running: self.model.running_of(id),
            };
            prop_assert_eq!(self.queue.depth(id), depth);
        }
        Ok(())
    }

    /// Ends all that runs and pops all that waits, with success, until nothing is left.
    fn drain(&mut self) -> Result<(), TestCaseError> {
        self.places.left = [usize::MAX; GATES];
        for id in (0..4).map(ControllerId) {
            (0..GATES).for_each(|gate| self.open(id, gate));
        }
        loop {
            while let Some((key, _)) = self.model.running.first().cloned() {
                self.done(&key, Outcome::Success { resync_after: None, again: None }, 0);
            }
            self.compare()?;
            if self.pop()?.is_none() {
                let Some(due) = self.queue.next_due() else { break };
                self.now = due;
            }
        }
        prop_assert_eq!(self.queue.stats(), Stats::default());
        prop_assert_eq!(self.queue.footprint().0, 0);
        Ok(())
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn looks_the_same_as_the_naive_queue(
        workers in 1usize..10,
        controllers in 1u32..5,
        calls in proptest::collection::vec(any_call(), 1..250),
    ) {
        let mut pair = Pair::new(workers, controllers);
        for call in calls {
            pair.call(call)?;
        }
        pair.drain()?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn looks_the_same_while_a_shard_is_always_busy(
        workers in 1usize..10,
        calls in proptest::collection::vec(busy_call(), 300..600),
    ) {
        let mut pair = Pair::new(workers, 4);
        for call in calls {
            pair.call(call)?;
        }
        pair.drain()?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn looks_the_same_while_gates_are_nearly_always_full(
        workers in 1usize..10,
        calls in proptest::collection::vec(full_call(), 300..600),
    ) {
        let mut pair = Pair::new(workers, 4);
        pair.places.left = [0; GATES];
        for call in calls {
            pair.call(call)?;
        }
        pair.drain()?;
    }
}
