//! What gates hold back, what passes by, and what comes when they open.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::time::Duration;

use super::tests::{lanes, of_shards};
use super::*;
use crate::key::{ControllerId, ObjectKey, SyncKey};

use Priority::{Background, Child, Fresh};

const T0: Duration = Duration::from_secs(1000);
const SUCCESS: Outcome = Outcome::Success { resync_after: None, again: None };
const MINE: ControllerId = ControllerId(0);
const OTHER: ControllerId = ControllerId(1);

fn of_other(name: &str) -> SyncKey {
    SyncKey { controller: OTHER, parent: ObjectKey::new("ns", name) }
}

fn queue(workers: usize, bound: Option<usize>) -> Queue {
    let mut queue = Queue::new(workers);
    queue.register(MINE, lanes(bound));
    queue.register(OTHER, lanes(None));
    queue
}

/// Controller 0's shards lead to this gate by the function, and each gate has so many places left.
struct Endpoints<const GATES: usize> {
    gate: fn(u8) -> usize,
    left: [usize; GATES],
    asked: usize,
}

impl<const GATES: usize> Endpoints<GATES> {
    fn new(gate: fn(u8) -> usize, left: [usize; GATES]) -> Self {
        Self { gate, left, asked: 0 }
    }

    /// Pops as long as something comes.
    fn pop_all(&mut self, queue: &mut Queue) -> Vec<SyncKey> {
        let mut popped = Vec::new();
        while let Some((key, pass)) = queue.pop(T0, |controller, lane| {
            if controller != MINE {
                return Ok(None);
            }
            self.asked += 1;
            let gate = (self.gate)(lane);
            self.left[gate] = self.left[gate].checked_sub(1).ok_or(Gate(gate as u64))?;
            Ok(Some(lane))
        }) {
            let lane = (key.key.controller == MINE).then(|| crate::hash::shard(&lanes(None).parents, &key.key.parent));
            assert_eq!(pass, lane, "the pass is for this key's lane");
            popped.push(key.key);
        }
        popped
    }
}

/// Keys of controller 0 in all shards, in the order in which they are added.
fn crowd(queue: &mut Queue, count: usize, priority: Priority) -> Vec<SyncKey> {
    let keys = (0..count).map(|n| SyncKey { controller: MINE, parent: ObjectKey::new("crowd", &format!("n{n}")) });
    let keys: Vec<SyncKey> = keys.collect();
    keys.iter().for_each(|key| queue.add(key.clone(), priority, T0));
    keys
}

#[test]
fn keys_keep_their_order_and_their_moment_over_hold_and_open() {
    let mut queue = queue(64, None);
    let keys = crowd(&mut queue, 40, Child);
    let mut endpoints = Endpoints::new(|_| 0, [0]);
    assert_eq!(endpoints.pop_all(&mut queue), []);
    assert_eq!(queue.depth(MINE), Depth { ready: 40, held: 40, waiting: 0, running: 0 });
    assert_eq!(queue.stats().oldest_ready, Some(T0));
    let mut popped = Vec::new();
    for places in [1, 2, 5, 31] {
        endpoints.left = [places];
        queue.open(MINE, Gate(7)); // Nothing is behind it.
        queue.open(OTHER, Gate(0));
        assert_eq!(endpoints.pop_all(&mut queue), []);
        queue.open(MINE, Gate(0));
        popped.extend(endpoints.pop_all(&mut queue));
    }
    assert_eq!(popped, keys[..39]);
    queue.open_all(MINE);
    let (last, ()) = queue.pop(T0 + Duration::from_secs(9), |_, _| Ok(())).unwrap();
    assert_eq!((last.key, last.waited), (keys[39].clone(), Duration::from_secs(9)));
}

#[test]
fn a_full_gate_is_asked_once_for_each_opening_whatever_is_behind_it() {
    let mut queue = queue(400, None);
    let keys = crowd(&mut queue, 300, Background);
    let mut lanes_of_keys: Vec<u8> =
        keys.iter().map(|key| crate::hash::shard(&lanes(None).parents, &key.parent)).collect();
    lanes_of_keys.sort_unstable();
    lanes_of_keys.dedup();
    let mut endpoints = Endpoints::new(|_| 0, [0]);
    endpoints.pop_all(&mut queue);
    assert_eq!(endpoints.asked, lanes_of_keys.len(), "each lane until it is known where it leads");
    for round in 0..50 {
        endpoints.asked = 0;
        endpoints.pop_all(&mut queue);
        assert_eq!(endpoints.asked, 0, "closed");
        endpoints.left = [round % 3];
        queue.open(MINE, Gate(0));
        endpoints.pop_all(&mut queue);
        assert_eq!(endpoints.asked, round % 3 + 1);
        // What comes to a closed gate is held unasked, also by a timer.
        queue.add(keys[0].clone(), Fresh, T0);
        queue.add_after(keys[1].clone(), Child, Duration::ZERO, T0);
    }
}

#[test]
fn what_is_urgent_is_first_at_an_opening() {
    let mut queue = queue(8, None);
    let keys = crowd(&mut queue, 5, Background);
    let mut endpoints = Endpoints::new(|_| 0, [0]);
    endpoints.pop_all(&mut queue);
    queue.add(keys[3].clone(), Fresh, T0); // Raised while it is held.
    queue.add(keys[2].clone(), Child, T0);
    queue.remove(&keys[1]); // Withdrawn while it is held.
    assert_eq!(queue.depth(MINE).held, 4);
    assert_eq!(endpoints.pop_all(&mut queue), []);
    endpoints.left = [9];
    queue.open(MINE, Gate(0));
    assert_eq!(endpoints.pop_all(&mut queue), [3, 2, 0, 4].map(|at: usize| keys[at].clone()));
}

#[test]
fn another_controller_and_other_gates_are_not_delayed() {
    let mut queue = queue(8, None);
    let [full, free] = of_shards(&lanes(None), "ns", 3);
    full.iter().for_each(|key| queue.add(key.clone(), Fresh, T0));
    free.iter().for_each(|key| queue.add(key.clone(), Background, T0));
    queue.add(of_other("a"), Background, T0);
    let mut endpoints = Endpoints::new(usize::from, [0, 9]);
    let popped = endpoints.pop_all(&mut queue);
    assert_eq!(popped, [free[0].clone(), of_other("a"), free[1].clone(), free[2].clone()]);
    assert_eq!(endpoints.asked, 4, "one refusal");
    assert_eq!((queue.stats().ready, queue.stats().running), (3, 4));
}

#[test]
fn controllers_that_are_held_take_no_share_of_the_workers() {
    let mut queue = queue(16, None);
    (2..6).for_each(|id| queue.register(ControllerId(id), lanes(None)));
    let key =
        |id: u32, n: u32| SyncKey { controller: ControllerId(id), parent: ObjectKey::new("ns", &format!("k{n}")) };
    let pop_all = |queue: &mut Queue| {
        let admit = |id: ControllerId, _| if id.0 < 3 { Err(Gate(0)) } else { Ok(()) };
        std::iter::from_fn(|| queue.pop(T0, admit)).count()
    };
    (0..3).for_each(|id| queue.add(key(id, 0), Fresh, T0));
    (0..20).for_each(|n| queue.add(key(3, n), Child, T0));
    assert_eq!(pop_all(&mut queue), 12, "all but the reserve");
    // Claimants are 3, 4, and one for all that are idle or held: a share is more than the reserve.
    (0..20).for_each(|n| queue.add(key(4, n), Child, T0));
    assert_eq!(pop_all(&mut queue), 4);
    // They claim their part again once they are open.
    (0..3).for_each(|id| queue.open(ControllerId(id), Gate(0)));
    queue.done(&key(4, 0), SUCCESS, T0, 0);
    let next = std::iter::from_fn(|| queue.pop(T0, |_, _| Ok(()))).map(|(popped, ())| popped.key);
    assert_eq!(next.collect::<Vec<_>>(), [key(0, 0)]);
}

#[test]
fn nobody_is_asked_about_a_key_that_could_not_go() {
    let mut queue = queue(2, Some(1));
    let [shard] = of_shards(&lanes(None), "ns", 3);
    shard.iter().for_each(|key| queue.add(key.clone(), Fresh, T0));
    let mut endpoints = Endpoints::new(|_| 0, [9]);
    assert_eq!(endpoints.pop_all(&mut queue), shard[..1]);
    assert_eq!(endpoints.asked, 1, "the lane is full");
    queue.add(of_other("a"), Fresh, T0);
    assert_eq!(endpoints.pop_all(&mut queue), [of_other("a")]);
    queue.done(&shard[0], SUCCESS, T0, 0);
    assert_eq!(endpoints.pop_all(&mut queue), shard[1..2]);
    assert_eq!(endpoints.asked, 2);
    assert_eq!(endpoints.pop_all(&mut queue), [], "no worker is free");
    assert_eq!(endpoints.asked, 2);
}

#[test]
fn a_lane_that_is_full_stays_closed_when_its_gate_opens_and_the_other_way_round() {
    let mut queue = queue(16, Some(1));
    let [shard] = of_shards(&lanes(None), "ns", 4);
    shard.iter().for_each(|key| queue.add(key.clone(), Fresh, T0));
    let mut endpoints = Endpoints::new(|_| 0, [0]);
    endpoints.pop_all(&mut queue);
    endpoints.left = [9];
    for open in [Queue::open_all, |queue: &mut Queue, controller| queue.open(controller, Gate(0))] {
        open(&mut queue, MINE);
        let popped = endpoints.pop_all(&mut queue);
        assert_eq!(popped.len(), 1);
        open(&mut queue, MINE);
        assert_eq!(endpoints.pop_all(&mut queue), [], "as full as before");
        endpoints.left = [0];
        queue.done(&popped[0], SUCCESS, T0, 0);
        assert_eq!(endpoints.pop_all(&mut queue), []);
        assert_eq!(queue.depth(MINE).held, queue.depth(MINE).ready, "behind the gate again");
        endpoints.left = [9];
    }
}

#[test]
fn a_lane_moves_to_the_gate_that_refused_it_last() {
    let mut queue = queue(16, None);
    let [a, b] = of_shards(&lanes(None), "ns", 3);
    a.iter().chain(&b).for_each(|key| queue.add(key.clone(), Fresh, T0));
    let mut endpoints = Endpoints::new(|_| 0, [0, 0]);
    endpoints.pop_all(&mut queue);
    endpoints.gate = |lane| usize::from(lane == 0); // The first shard leads to gate 1 now.
    queue.open(MINE, Gate(0));
    endpoints.asked = 0;
    endpoints.pop_all(&mut queue);
    assert_eq!(endpoints.asked, 2);
    endpoints.left = [9, 9];
    queue.open(MINE, Gate(0));
    assert_eq!(endpoints.pop_all(&mut queue), b, "the other stays behind gate 1");
    queue.open(MINE, Gate(1));
    assert_eq!(endpoints.pop_all(&mut queue), a);
}

#[test]
fn what_was_behind_gates_is_forgotten_when_all_open_and_with_the_controller() {
    for forget in [false, true] {
        let mut queue = queue(16, None);
        let [a, b] = of_shards(&lanes(None), "ns", 2);
        let add = |queue: &mut Queue| a.iter().chain(&b).for_each(|key| queue.add(key.clone(), Fresh, T0));
        add(&mut queue);
        let mut endpoints = Endpoints::new(usize::from, [1, 0]);
        // One of it still runs, so that the controller isn't gone at once.
        assert_eq!(endpoints.pop_all(&mut queue), a[..1]);
        if forget {
            queue.forget(MINE);
            assert_eq!(queue.stats(), Stats { running: 1, ..Stats::default() });
            queue.register(MINE, lanes(None));
            add(&mut queue);
        } else {
            queue.open_all(MINE);
        }
        assert_eq!(queue.depth(MINE).held, 0);
        endpoints.asked = 0;
        endpoints.pop_all(&mut queue);
        assert_eq!(endpoints.asked, 2, "each lane anew; forgotten: {forget}");
    }
}

#[test]
fn lower_levels_do_not_starve_behind_a_gate_that_is_always_full() {
    let mut queue = queue(4, None);
    let [busy, low] = of_shards(&lanes(None), "ns", 40);
    low.iter().for_each(|key| queue.add(key.clone(), Background, T0));
    let mut endpoints = Endpoints::new(|_| 0, [0]);
    let mut served = Vec::new();
    for round in 0..200 {
        (0..2).for_each(|n| queue.add(busy[(2 * round + n) % 40].clone(), Fresh, T0)); // One more than there are places.
        // The other controller has keys in both levels, so that its own turns serve them.
        queue.add(of_other("fresh"), Fresh, T0);
        queue.add(of_other("background"), Background, T0);
        endpoints.left = [1];
        queue.open(MINE, Gate(0));
        let mut mine = 0;
        for key in endpoints.pop_all(&mut queue) {
            mine += usize::from(key.controller == MINE);
            if low.contains(&key) {
                served.push(round);
            }
            queue.done(&key, SUCCESS, T0, 0);
        }
        assert_eq!(mine, 1);
    }
    let share = BACKGROUND_SHARE as usize;
    assert!(served.len() >= 200 / share - 1, "{served:?}");
    assert!(served.windows(2).all(|pair| pair[1] - pair[0] <= share), "{served:?}");
}

#[test]
fn a_level_behind_a_gate_has_no_credit_from_before_it_was_empty() {
    for moves in [false, true] {
        let mut queue = queue(1, None);
        let [busy, low] = of_shards(&lanes(None), "ns", 1);
        let (busy, low) = (busy[0].clone(), low[0].clone());
        let mut endpoints = Endpoints::new(|_| 0, [0]);
        queue.add(busy.clone(), Fresh, T0);
        queue.add(low.clone(), Background, T0);
        endpoints.pop_all(&mut queue);
        // Serves one key behind the gate, which closes then.
        let serve = |queue: &mut Queue| {
            queue.add(busy.clone(), Fresh, T0);
            queue.open(MINE, Gate(0));
            let (popped, ()) = queue.pop(T0, |_, _| Ok(())).unwrap();
            queue.done(&popped.key, SUCCESS, T0, 0);
            assert_eq!(queue.pop(T0, |_, _| Err::<(), _>(Gate(0))), None);
            popped.key
        };
        for _ in 0..BACKGROUND_SHARE - 1 {
            assert_eq!(serve(&mut queue), busy);
        }
        if moves {
            // The lane goes to another gate and comes back.
            for (from, to) in [(Gate(0), Gate(1)), (Gate(1), Gate(0))] {
                queue.open(MINE, from);
                assert_eq!(queue.pop(T0, |_, _| Err::<(), _>(to)), None);
            }
        } else {
            queue.remove(&low);
            queue.add(low.clone(), Background, T0);
        }
        for _ in 0..BACKGROUND_SHARE - 1 {
            assert_eq!(serve(&mut queue), busy, "moves: {moves}");
        }
        assert_eq!(serve(&mut queue), low);
    }
}

#[test]
fn ten_thousand_held_keys_cost_nothing_until_their_gate_opens() {
    let mut queue = queue(16, None);
    crowd(&mut queue, 10_000, Background);
    let mut endpoints = Endpoints::new(|lane| usize::from(lane % 8), [0; 8]);
    endpoints.pop_all(&mut queue);
    assert_eq!(endpoints.asked, 256);
    let mut popped = 0;
    for round in 0..1000 {
        endpoints.left[round % 8] = 1;
        queue.open(MINE, Gate((round % 8) as u64));
        for key in endpoints.pop_all(&mut queue) {
            popped += 1;
            queue.done(&key, SUCCESS, T0, 0);
        }
    }
    assert_eq!((popped, endpoints.asked), (1000, 256 + 2000));
    assert_eq!(queue.depth(MINE), Depth { ready: 9000, held: 9000, waiting: 0, running: 0 });
}
