//! Each rule of the queue, one by one; those of gates are in `gates_tests.rs`. Random sequences against a naive model
//! are in `oracle.rs`.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::key::{ApiVersion, ControllerId, ObjectKey, Resource, SyncKey};

use Priority::{Background, Child, Fresh};

const T0: Duration = Duration::from_secs(1000);
const SUCCESS: Outcome = Outcome::Success { resync_after: None, again: None };

fn key(controller: u32, name: &str) -> SyncKey {
    SyncKey { controller: ControllerId(controller), parent: ObjectKey::new("ns", name) }
}

/// The lanes of parents that are things, with a bound or without.
pub(super) fn lanes(bound: Option<usize>) -> Lanes {
    let parents = Resource {
        api_version: ApiVersion::new("example.com/v1"),
        plural: "things".into(),
        kind: "Thing".into(),
        namespaced: true,
        status: true,
    };
    Lanes { parents: Arc::new(parents), bound: bound.map(|syncs| NonZeroUsize::new(syncs).unwrap()) }
}

/// So many keys of controller 0 in each of the first shards.
pub(super) fn of_shards<const SHARDS: usize>(lanes: &Lanes, namespace: &str, each: usize) -> [Vec<SyncKey>; SHARDS] {
    let keys = (0..).map(|n| ObjectKey::new(namespace, &format!("k{n}")));
    let mut found = [const { Vec::new() }; SHARDS];
    for parent in keys {
        let shard = usize::from(crate::hash::shard(&lanes.parents, &parent));
        if let Some(of_it) = found.get_mut(shard).filter(|of_it| of_it.len() < each) {
            of_it.push(SyncKey { controller: ControllerId(0), parent });
        }
        if found.iter().all(|of_it| of_it.len() == each) {
            break;
        }
    }
    found
}

impl Queue {
    /// Pops by no gate.
    pub(super) fn take(&mut self, now: Duration) -> Option<Popped> {
        self.pop(now, |_, _| Ok(())).map(|(popped, ())| popped)
    }
}

/// A queue with controllers `0..controllers`.
fn queue(workers: usize, controllers: u32) -> Queue {
    let mut queue = Queue::new(workers);
    (0..controllers).for_each(|id| queue.register(ControllerId(id), lanes(None)));
    queue
}

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// Pops until nothing comes; each key is done at once. Gives `controller/name`.
fn drain(queue: &mut Queue, now: Duration) -> Vec<String> {
    let mut names = Vec::new();
    while let Some(popped) = queue.take(now) {
        names.push(format!("{}/{}", popped.key.controller.0, popped.key.parent.name()));
        queue.done(&popped.key, SUCCESS, now, 0);
    }
    names
}

#[track_caller]
fn assert_forgot_all(queue: &Queue) {
    assert_eq!(queue.stats(), Stats::default());
    assert_eq!(queue.footprint().0, 0, "entries of idle keys");
    assert_eq!(queue.next_due(), None);
}

#[test]
fn a_key_waits_once_and_in_order() {
    let mut queue = queue(1, 1);
    for name in ["a", "b", "a", "c", "b"] {
        queue.add(key(0, name), Child, T0);
    }
    assert_eq!(queue.stats().ready, 3);
    assert_eq!(drain(&mut queue, T0), ["0/a", "0/b", "0/c"]);
    assert_forgot_all(&queue);
}

#[test]
fn a_higher_priority_raises_and_a_lower_one_changes_nothing() {
    let mut queue = queue(1, 1);
    queue.add(key(0, "a"), Background, T0);
    queue.add(key(0, "b"), Background, T0);
    queue.add(key(0, "c"), Fresh, T0);
    queue.add(key(0, "b"), Fresh, T0 + ms(5)); // Joins the end of the higher level.
    queue.add(key(0, "c"), Background, T0);
    assert_eq!(queue.stats().ready_by_priority, [2, 0, 1]);
    let order: Vec<_> = std::iter::from_fn(|| {
        let popped = queue.take(T0 + ms(10))?;
        queue.done(&popped.key, SUCCESS, T0, 0);
        Some((popped.key.parent.name().to_owned(), popped.priority, popped.waited))
    })
    .collect();
    let expected = [("c", Fresh, ms(10)), ("b", Fresh, ms(10)), ("a", Background, ms(10))];
    assert_eq!(order, expected.map(|(name, priority, waited)| (name.to_owned(), priority, waited)));
}

#[test]
fn a_running_key_is_not_popped_but_queued_again_when_done() {
    for outcome in [SUCCESS, Outcome::Failure, Outcome::RetryAfter(ms(9)), Outcome::Dropped] {
        let mut queue = queue(4, 1);
        queue.add(key(0, "a"), Fresh, T0);
        let popped = queue.take(T0).unwrap();
        queue.add(key(0, "a"), Background, T0);
        queue.add(key(0, "a"), Child, T0);
        queue.add(key(0, "a"), Background, T0);
        assert_eq!(queue.take(T0), None, "one worker a key");
        queue.done(&popped.key, outcome, T0 + ms(1), 0);
        let again = queue.take(T0 + ms(3)).unwrap();
        assert_eq!((again.priority, again.waited), (Child, ms(2)), "after {outcome:?}");
        assert_eq!(again.attempt, u32::from(outcome == Outcome::Failure));
        queue.done(&again.key, SUCCESS, T0, 0);
        assert_forgot_all(&queue);
    }
}

#[test]
fn lower_levels_wait_but_do_not_starve() {
    let mut queue = queue(1, 1);
    let mut served = [0; 3];
    for level in [Fresh, Child, Background] {
        (0..200).for_each(|n| queue.add(key(0, &format!("{level:?}{n}")), level, T0));
    }
    let mut first_low = None;
    for pop in 0..BACKGROUND_SHARE * 10 {
        let popped = queue.take(T0).unwrap();
        queue.done(&popped.key, SUCCESS, T0, 0);
        served[popped.priority as usize] += 1;
        if popped.priority != Fresh {
            first_low.get_or_insert((pop, popped.priority));
        }
    }
    assert_eq!(first_low, Some((BACKGROUND_SHARE - 1, Background)));
    assert_eq!(served, [141, 9, 10]);
}

#[test]
fn what_comes_to_a_lower_level_has_no_credit_from_when_it_was_empty() {
    let mut queue = queue(1, 1);
    (0..100).for_each(|n| queue.add(key(0, &format!("f{n}")), Fresh, T0));
    for _ in 0..40 {
        let popped = queue.take(T0).unwrap();
        queue.done(&popped.key, SUCCESS, T0, 0);
    }
    queue.add(key(0, "b"), Background, T0);
    let names = drain(&mut queue, T0);
    assert_eq!(names.iter().position(|name| name == "0/b"), Some(BACKGROUND_SHARE as usize - 1));
}

#[test]
fn controllers_take_turns_whatever_the_length_of_their_lines() {
    let mut queue = queue(1, 3);
    (0..6).for_each(|n| queue.add(key(0, &format!("a{n}")), Child, T0));
    queue.add(key(1, "b0"), Child, T0);
    queue.add(key(1, "b1"), Child, T0);
    queue.add(key(2, "c0"), Child, T0);
    let expected = ["0/a0", "1/b0", "2/c0", "0/a1", "1/b1", "0/a2", "0/a3", "0/a4", "0/a5"];
    assert_eq!(drain(&mut queue, T0), expected);
}

/// How many workers a hanging controller gets when only it has keys.
fn taken_by_one(workers: usize, controllers: u32) -> usize {
    let mut queue = queue(workers, controllers);
    (0..workers * 2).for_each(|n| queue.add(key(0, &format!("a{n}")), Fresh, T0));
    std::iter::from_fn(|| queue.take(T0)).count()
}

#[test]
fn a_hanging_controller_never_takes_all_workers() {
    // (workers, registered controllers, workers that the only busy one gets)
    let table = [(1, 1, 1), (8, 1, 8), (1, 2, 1), (2, 2, 1), (3, 2, 2), (4, 2, 3), (8, 2, 6), (8, 30, 6), (50, 3, 38)];
    for (workers, controllers, taken) in table {
        assert_eq!(taken_by_one(workers, controllers), taken, "{workers} workers, {controllers} controllers");
    }
}

#[test]
fn workers_left_by_a_hanging_controller_serve_the_others_at_once() {
    let mut queue = queue(8, 3);
    (0..99).for_each(|n| queue.add(key(0, &format!("a{n}")), Fresh, T0));
    while queue.take(T0).is_some() {}
    for name in ["b0", "b1", "b2"] {
        queue.add(key(1, name), Background, T0);
        let popped = queue.take(T0).unwrap();
        assert_eq!(popped.key, key(1, name));
        queue.done(&popped.key, SUCCESS, T0, 0);
    }
    assert_eq!(queue.depth(ControllerId(0)), Depth { ready: 93, held: 0, waiting: 0, running: 6 });
    assert_eq!(queue.depth(ControllerId(1)), Depth::default());
}

#[test]
fn two_hanging_controllers_leave_workers_for_an_idle_third() {
    let mut queue = queue(8, 3);
    for n in 0..9 {
        queue.add(key(0, &format!("a{n}")), Fresh, T0);
        queue.add(key(1, &format!("b{n}")), Fresh, T0);
    }
    assert_eq!(std::iter::from_fn(|| queue.take(T0)).count(), 6);
    queue.add(key(2, "c"), Background, T0);
    assert_eq!(queue.take(T0).map(|popped| popped.key), Some(key(2, "c")));
}

#[test]
fn a_borrower_gives_back_until_the_shares_are_even() {
    let mut queue = queue(8, 2);
    (0..99).for_each(|n| queue.add(key(0, &format!("a{n}")), Fresh, T0));
    let mut borrowed: Vec<_> = std::iter::from_fn(|| queue.take(T0)).collect();
    (0..99).for_each(|n| queue.add(key(1, &format!("b{n}")), Background, T0));
    while queue.take(T0).is_some() {}
    assert_eq!((queue.depth(ControllerId(0)).running, queue.depth(ControllerId(1)).running), (6, 2));
    for even in [(5, 3), (4, 4), (4, 4)] {
        queue.done(&borrowed.pop().unwrap().key, SUCCESS, T0, 0);
        assert!(queue.take(T0).is_some());
        assert_eq!((queue.depth(ControllerId(0)).running, queue.depth(ControllerId(1)).running), even);
    }
}

#[test]
fn a_timer_is_never_early_and_the_earliest_wins() {
    // (first timer, second timer, what is popped and when)
    let table = [
        ((Background, 50), (Child, 80), (Background, 50)),
        ((Child, 80), (Background, 50), (Background, 50)),
        ((Background, 50), (Child, 50), (Child, 50)),
        ((Child, 50), (Background, 50), (Child, 50)),
    ];
    for (first, second, (priority, due)) in table {
        let mut queue = queue(1, 1);
        queue.add_after(key(0, "a"), first.0, ms(first.1), T0);
        queue.add_after(key(0, "a"), second.0, ms(second.1), T0);
        assert_eq!((queue.stats().waiting, queue.depth(ControllerId(0)).waiting), (1, 1));
        assert_eq!(queue.next_due(), Some(T0 + ms(due)));
        assert_eq!(queue.take(T0 + ms(due) - Duration::from_nanos(1)), None);
        let popped = queue.take(T0 + ms(due + 7)).unwrap();
        assert_eq!((popped.priority, popped.waited), (priority, ms(7)));
        queue.done(&popped.key, SUCCESS, T0, 0);
        assert_forgot_all(&queue);
    }
}

#[test]
fn a_pop_clears_the_timer_and_a_due_timer_of_a_running_key_makes_it_dirty() {
    let mut queue = queue(2, 1);
    queue.add_after(key(0, "a"), Child, ms(50), T0);
    queue.add(key(0, "a"), Fresh, T0);
    let popped = queue.take(T0).unwrap();
    assert_eq!(queue.next_due(), None);

    queue.add_after(key(0, "a"), Child, ms(10), T0);
    assert_eq!(queue.tick(T0 + ms(10)), 1);
    assert_eq!(queue.take(T0 + ms(10)), None);
    queue.add_after(key(0, "a"), Background, ms(20), T0); // Set while it runs, and not due: it stays.
    queue.done(&popped.key, SUCCESS, T0 + ms(11), 0);
    assert_eq!(queue.next_due(), Some(T0 + ms(20)));
    assert_eq!(queue.take(T0 + ms(11)).unwrap().priority, Child);
}

#[test]
fn a_due_timer_raises_a_ready_key() {
    let mut queue = queue(1, 1);
    queue.add(key(0, "a"), Background, T0);
    queue.add_after(key(0, "a"), Child, ms(5), T0);
    let popped = queue.take(T0 + ms(6)).unwrap();
    assert_eq!((popped.priority, popped.waited), (Child, ms(6)));
}

#[test]
fn one_tick_moves_a_bounded_number_of_timers_and_a_pop_is_not_fooled_by_it() {
    let mut queue = queue(2, 2);
    let crowd = TIMERS_AT_ONCE + 10;
    (0..crowd).for_each(|n| queue.add_after(key(0, &format!("a{n}")), Child, ms(1), T0));
    queue.add_after(key(1, "b"), Child, ms(2), T0);
    queue.add(key(0, "running"), Fresh, T0);
    queue.take(T0).unwrap(); // Controller 0 has its share now.
    assert_eq!(queue.take(T0 + ms(2)).map(|popped| popped.key), Some(key(1, "b")));
    assert_eq!(queue.tick(T0 + ms(2)), 0);
    assert_eq!(queue.stats().ready, crowd);
}

#[test]
fn failures_back_off_and_success_forgives() {
    let mut queue = queue(1, 1);
    queue.add(key(0, "a"), Fresh, T0);
    let mut now = T0;
    for failed in 0..12 {
        let popped = queue.take(now).unwrap();
        assert_eq!(popped.attempt, failed);
        assert_eq!(popped.priority, if failed == 0 { Fresh } else { Child });
        queue.done(&popped.key, Outcome::Failure, now, 77 << 57);
        assert_eq!(queue.next_due(), Some(now + backoff(failed + 1, 77 << 57)));
        now = queue.next_due().unwrap();
    }
    let popped = queue.take(now).unwrap();
    queue.done(&popped.key, Outcome::RetryAfter(Duration::from_secs(3)), now, 0);
    assert_eq!(queue.next_due(), Some(now + Duration::from_secs(3)));
    now += Duration::from_secs(3);
    let popped = queue.take(now).unwrap();
    assert_eq!((popped.attempt, popped.priority), (12, Child), "retry-after neither grows nor resets");
    queue.done(&popped.key, Outcome::RetryAfter(Duration::ZERO), now, 0);
    assert_eq!(queue.next_due(), Some(now + RETRY_AFTER_MIN));

    queue.add(key(0, "a"), Fresh, now); // Comes before the timer, and keeps the count.
    let popped = queue.take(now).unwrap();
    assert_eq!((popped.attempt, popped.priority), (12, Fresh));
    queue.done(&popped.key, Outcome::Success { resync_after: Some(ms(30)), again: Some(Child) }, now, 0);
    assert_eq!(queue.next_due(), Some(now + ms(30)));
    let popped = queue.take(now).unwrap();
    assert_eq!((popped.attempt, popped.priority), (0, Child));
    assert_eq!(queue.next_due(), None, "a pop clears the timer of the sync before");
    queue.done(&popped.key, Outcome::Success { resync_after: Some(ms(30)), again: None }, now, 0);
    assert_eq!(queue.take(now + ms(30)).unwrap().priority, Background);
}

#[test]
fn dropped_and_removed_keys_leave_nothing() {
    let mut queue = queue(3, 1);
    queue.add(key(0, "ready"), Fresh, T0);
    queue.add_after(key(0, "ready"), Fresh, ms(1), T0);
    queue.add_after(key(0, "waiting"), Fresh, ms(1), T0);
    queue.remove(&key(0, "ready"));
    queue.remove(&key(0, "waiting"));
    queue.remove(&key(0, "unknown"));
    queue.remove(&key(9, "unknown"));
    assert_forgot_all(&queue);

    queue.add(key(0, "a"), Fresh, T0);
    let popped = queue.take(T0).unwrap();
    queue.done(&popped.key, Outcome::Failure, T0, 0);
    let popped = queue.take(T0 + ms(100)).unwrap();
    queue.add_after(key(0, "a"), Fresh, ms(500), T0);
    queue.done(&popped.key, Outcome::Dropped, T0, 0);
    assert_forgot_all(&queue);

    queue.add(key(0, "a"), Fresh, T0);
    let popped = queue.take(T0).unwrap();
    assert_eq!(popped.attempt, 0);
    queue.add(key(0, "a"), Fresh, T0);
    queue.add_after(key(0, "a"), Fresh, ms(500), T0);
    queue.remove(&key(0, "a"));
    assert_eq!((queue.stats().running, queue.stats().waiting), (1, 0));
    queue.done(&popped.key, SUCCESS, T0, 0);
    assert_forgot_all(&queue);
}

#[test]
fn forget_drops_all_that_waits_and_lets_running_ones_end() {
    let mut queue = queue(2, 2);
    for name in ["a", "b", "c"] {
        queue.add(key(0, name), Fresh, T0);
        queue.add_after(key(0, name), Fresh, ms(9), T0);
    }
    queue.add(key(1, "other"), Fresh, T0);
    queue.add_after(key(1, "other"), Fresh, ms(12), T0);
    let popped = queue.take(T0).unwrap();
    assert_eq!(popped.key, key(0, "a"));
    queue.add(key(0, "a"), Fresh, T0);
    queue.add_after(key(0, "a"), Fresh, ms(1), T0);
    queue.forget(ControllerId(0));
    queue.forget(ControllerId(7));
    queue.add(key(0, "late"), Fresh, T0);
    queue.add_after(key(0, "late"), Fresh, ms(1), T0);
    assert_eq!(queue.next_due(), Some(T0 + ms(12)));
    assert_eq!(queue.depth(ControllerId(0)), Depth { ready: 0, held: 0, waiting: 0, running: 1 });
    assert_eq!(queue.take(T0).map(|popped| popped.key), Some(key(1, "other")));
    assert_eq!(queue.take(T0), None);
    queue.done(&key(0, "a"), Outcome::Failure, T0, 0);
    queue.done(&key(0, "a"), Outcome::Failure, T0, 0);
    queue.done(&key(1, "other"), SUCCESS, T0, 0);
    queue.done(&key(1, "other"), Outcome::Failure, T0, 0); // Not running: without effect.
    assert_forgot_all(&queue);

    // The one that is left is alone now, and may take all workers.
    (0..3).for_each(|n| queue.add(key(1, &format!("n{n}")), Fresh, T0));
    assert_eq!(std::iter::from_fn(|| queue.take(T0)).count(), 2);
}

#[test]
fn a_lone_controller_leaves_workers_for_one_that_comes_later() {
    let mut queue = queue(64, 1);
    (0..100).for_each(|n| queue.add(key(0, &format!("n{n}")), Fresh, T0));
    assert_eq!(std::iter::from_fn(|| queue.take(T0)).count(), 60);
    queue.register(ControllerId(1), lanes(None));
    (0..9).for_each(|n| queue.add(key(1, &format!("n{n}")), Background, T0));
    let popped: Vec<_> = std::iter::from_fn(|| queue.take(T0)).map(|popped| popped.key.controller).collect();
    assert_eq!(popped, [ControllerId(1); 4]);
}

#[test]
fn a_key_that_never_settles_is_slowed_down() {
    let mut queue = queue(1, 1);
    let again = Outcome::Success { resync_after: None, again: Some(Child) };
    queue.add(key(0, "a"), Fresh, T0);
    let mut now = T0;
    let mut pauses = Vec::new();
    for _ in 0..12 {
        let start = now;
        let popped = loop {
            match queue.take(now) {
                Some(popped) => break popped,
                None => now = queue.next_due().unwrap(),
            }
        };
        pauses.push(now - start);
        queue.done(&popped.key, again, now, u64::MAX);
    }
    let free = FREE_REPEATS as usize + 1;
    assert!(pauses[..free].iter().all(std::time::Duration::is_zero), "{pauses:?}");
    assert!(pauses[free..].windows(2).all(|pair| pair[1] > pair[0] && !pair[0].is_zero()), "{pauses:?}");
    let popped = {
        now = queue.next_due().unwrap();
        queue.take(now).unwrap()
    };
    queue.done(&popped.key, SUCCESS, now, 0);
    assert_eq!(queue.next_due(), None);
}

#[test]
fn a_key_that_is_slowed_down_is_woken_by_fresh_news_only() {
    for (news, comes_at_once) in [(Fresh, true), (Child, false), (Background, false)] {
        let mut queue = queue(1, 1);
        queue.add(key(0, "a"), Fresh, T0);
        let mut now = T0;
        for round in 0..=FREE_REPEATS {
            let popped = queue.take(now).unwrap();
            assert_eq!(popped.repeats, round);
            if round == FREE_REPEATS {
                queue.add(key(0, "a"), news, now);
            }
            queue.done(&popped.key, Outcome::Success { resync_after: None, again: Some(Child) }, now, 0);
        }
        assert_eq!(queue.take(now).is_some(), comes_at_once, "{news:?}");
        if !comes_at_once {
            now = queue.next_due().unwrap();
            assert_eq!(queue.take(now).unwrap().priority, Child, "{news:?}");
        }
    }
}

#[test]
fn a_failure_with_a_pause_comes_no_sooner_and_still_backs_off() {
    let mut queue = queue(1, 1);
    queue.add(key(0, "a"), Fresh, T0);
    let mut now = T0;
    let mut waits = Vec::new();
    for attempt in 0..6 {
        let popped = queue.take(now).unwrap();
        assert_eq!(popped.attempt, attempt);
        queue.done(&popped.key, Outcome::FailureFor(ms(700)), now, u64::MAX);
        let due = queue.next_due().unwrap();
        waits.push(due - now);
        now = due;
    }
    assert_eq!(waits, [700, 700, 700, 800, 1600, 3200].map(ms));
    let popped = queue.take(now).unwrap();
    queue.add(key(0, "a"), Fresh, now);
    queue.done(&popped.key, Outcome::FailureFor(ms(700)), now, 0);
    assert!(queue.take(now).is_some(), "news is tried at once");
}

#[test]
fn a_controller_that_comes_back_keeps_one_worker_a_key() {
    let mut queue = queue(4, 1);
    queue.add(key(0, "a"), Fresh, T0);
    let popped = queue.take(T0).unwrap();
    queue.forget(ControllerId(0));
    queue.register(ControllerId(0), lanes(None));
    queue.add(key(0, "a"), Child, T0);
    assert_eq!(queue.take(T0), None);
    queue.done(&popped.key, SUCCESS, T0, 0);
    assert_eq!(queue.take(T0).unwrap().priority, Child);
}

#[test]
fn stats_tell_the_oldest_ready_key() {
    let mut queue = queue(1, 2);
    assert_eq!(queue.stats().oldest_ready, None);
    queue.add(key(0, "a"), Fresh, T0 + ms(3));
    queue.add(key(1, "b"), Background, T0 + ms(2));
    queue.add(key(1, "c"), Background, T0 + ms(9));
    assert_eq!(queue.stats().oldest_ready, Some(T0 + ms(2)));
    queue.remove(&key(1, "b"));
    assert_eq!(queue.stats().oldest_ready, Some(T0 + ms(3)));
}

#[test]
fn room_is_given_back_after_a_flood() {
    let mut queue = queue(1, 1);
    (0..50_000).for_each(|n| queue.add(key(0, &format!("a{n}")), Background, T0));
    assert_eq!(queue.footprint().0, 50_000);
    assert_eq!(drain(&mut queue, T0).len(), 50_000);
    assert_forgot_all(&queue);
    assert!(queue.footprint().1 < 2_000, "room for {} keys is left", queue.footprint().1);
}

#[test]
fn no_moment_overflows() {
    let mut queue = queue(0, 1); // No worker counts as one.
    queue.add_after(key(0, "a"), Fresh, Duration::MAX, T0);
    assert_eq!(queue.next_due(), Some(Duration::MAX));
    queue.add(key(0, "a"), Fresh, T0);
    let popped = queue.take(Duration::ZERO).unwrap();
    assert_eq!(popped.waited, Duration::ZERO);
    queue.done(&popped.key, Outcome::RetryAfter(Duration::MAX), T0, 0);
    assert_eq!(queue.next_due(), Some(Duration::MAX));
}

#[test]
fn a_shard_at_its_bound_waits_and_nobody_waits_behind_it() {
    let mut queue = Queue::new(16);
    let bound = lanes(Some(2));
    queue.register(ControllerId(0), bound.clone());
    queue.register(ControllerId(1), lanes(None));
    let [a, b] = of_shards(&bound, "ns", 4);
    for key in a.iter().chain(&b) {
        queue.add(key.clone(), Child, T0);
    }
    queue.add(a[3].clone(), Fresh, T0);
    queue.add(key(1, "x"), Background, T0);
    let popped: Vec<SyncKey> = std::iter::from_fn(|| queue.take(T0)).map(|popped| popped.key).collect();
    assert_eq!(popped, [a[3].clone(), a[0].clone(), b[0].clone(), b[1].clone(), key(1, "x")], "the urgent one first");
    let depth = queue.depth(ControllerId(0));
    assert_eq!((depth.ready, depth.held, depth.running), (4, 4, 4));
    // What is urgent waits too, but is next.
    queue.add(a[2].clone(), Fresh, T0);
    assert_eq!(queue.take(T0), None);
    queue.done(&b[0], SUCCESS, T0, 0);
    assert_eq!(queue.take(T0).unwrap().key, b[2]);
    queue.done(&a[0], Outcome::Failure, T0, 0);
    assert_eq!(queue.take(T0).unwrap().key, a[2]);
    // Whoever goes makes room for nobody unless it ran.
    queue.remove(&a[1]);
    assert_eq!(queue.take(T0), None);
    assert_eq!(queue.depth(ControllerId(0)).held, 1, "b[3]");
    for key in [&a[2], &a[3], &b[1], &b[2], &key(1, "x")] {
        queue.done(key, SUCCESS, T0, 0);
    }
    assert_eq!(queue.take(T0).unwrap().key, b[3]);
}

#[test]
fn a_shard_that_is_always_busy_serves_its_lower_levels_too() {
    let mut queue = Queue::new(4);
    let bound = lanes(Some(1));
    queue.register(ControllerId(0), bound.clone());
    queue.register(ControllerId(1), lanes(None));
    let [shard, _] = of_shards(&bound, "ns", 3);
    let [busy, child, background] = [&shard[0], &shard[1], &shard[2]];
    queue.add(busy.clone(), Fresh, T0);
    let mut popped_at = Vec::new();
    for pop in 0..BACKGROUND_SHARE * 3 {
        queue.add(child.clone(), Child, T0);
        queue.add(background.clone(), Background, T0);
        let popped = queue.take(T0).unwrap();
        queue.add(busy.clone(), Fresh, T0);
        // While the shard is full, the others' keys of the lower levels are served, and so are the levels.
        for other in [key(1, "c"), key(1, "b")] {
            queue.add(other.clone(), if other == key(1, "c") { Child } else { Background }, T0);
            assert_eq!(queue.take(T0).unwrap().key, other);
            queue.done(&other, SUCCESS, T0, 0);
        }
        assert_eq!(queue.take(T0), None, "the shard is full");
        queue.done(&popped.key, SUCCESS, T0, 0);
        if popped.priority != Fresh {
            popped_at.push((pop, popped.key));
        }
    }
    let share = BACKGROUND_SHARE;
    let twice = |round: u32| {
        let at = round * share - 1;
        [(at, background.clone()), (at + 1, child.clone())]
    };
    assert_eq!(popped_at[..4], [twice(1), twice(2)].concat());
}

#[test]
fn a_lower_level_of_a_shard_takes_a_turn_and_never_holds_back_what_is_urgent() {
    let mut queue = Queue::new(2);
    let bound = lanes(Some(1));
    queue.register(ControllerId(0), bound.clone());
    queue.register(ControllerId(1), lanes(None));
    let [busy, flood] = of_shards(&bound, "ns", 200);
    flood.iter().for_each(|key| queue.add(key.clone(), Background, T0));
    queue.add(busy[1].clone(), Background, T0); // Behind all of them.
    queue.add(busy[0].clone(), Fresh, T0);
    let mut last = 0;
    let mut worst = 0;
    for pop in 0..400 {
        (0..4).for_each(|n| queue.add(key(1, &format!("n{n}")), Fresh, T0));
        let popped = queue.take(T0).unwrap();
        if popped.key == busy[0] {
            worst = worst.max(pop - last);
            last = pop;
        }
        queue.done(&popped.key, SUCCESS, T0, 0);
        queue.add(busy[0].clone(), Fresh, T0);
    }
    assert!(400 - last < 6 && worst < 6, "its changes waited for {} pops", worst.max(400 - last));
}

#[test]
fn a_level_of_a_shard_has_no_credit_from_before_it_was_empty() {
    for is_forgotten in [false, true] {
        let mut queue = Queue::new(1);
        let bound = lanes(Some(1));
        queue.register(ControllerId(0), bound.clone());
        let [keys, _] = of_shards(&bound, "ns", 2);
        let mut pops = 0;
        // Both are of the same shard; the second waits until it has been passed over once too few.
        let mut pop = |queue: &mut Queue| {
            queue.add(keys[0].clone(), Fresh, T0);
            queue.add(keys[1].clone(), Background, T0);
            pops += 1;
            (pops, queue.take(T0).unwrap().key)
        };
        for _ in 0..BACKGROUND_SHARE - 2 {
            assert_eq!(pop(&mut queue).1, keys[0]);
            queue.done(&keys[0], SUCCESS, T0, 0);
        }
        assert_eq!(pop(&mut queue).1, keys[0]);
        if is_forgotten {
            queue.forget(ControllerId(0));
            queue.register(ControllerId(0), bound.clone());
        } else {
            queue.remove(&keys[1]);
        }
        queue.add(keys[1].clone(), Background, T0);
        queue.done(&keys[0], SUCCESS, T0, 0);
        for _ in 0..BACKGROUND_SHARE - 1 {
            assert_eq!(pop(&mut queue).1, keys[0], "forgotten: {is_forgotten}");
            queue.done(&keys[0], SUCCESS, T0, 0);
        }
        assert_eq!(pop(&mut queue), (2 * BACKGROUND_SHARE - 1, keys[1].clone()));
    }
}
