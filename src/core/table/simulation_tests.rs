//! Random worlds: whatever happens, nothing is worked on twice, and all is worked on once it is over.

use std::time::Duration;

use proptest::prelude::*;

use super::Mode;
use super::world_tests::{World, declared};

/// How many members may be alive at once.
const MOST: usize = 6;

/// How many worlds a plain test run makes.
const CASES: u32 = 48;

/// For how many seconds a world without faults may take to settle: a Lease, calm, pauses after restarts, hand-overs.
const SETTLED_SECS: usize = 150;

/// A world in which so many seconds brought no new table is settled: the longest pause after restarts, and some.
const STILL_SECS: usize = 40;

#[derive(Clone, Debug)]
enum Step {
    Tick(u64),
    Second,
    OddSecond { idle: u8, timid: u8 },
    Round { at: usize, leads: bool, idle: bool, timid: bool },
    Renew { at: usize, lost: bool },
    See { at: usize, lag: usize },
    Work { at: usize, which: usize },
    List(usize),
    Take(usize),
    Plan(usize),
    Campaign(usize),
    GoAlone(usize),
    Join(u8),
    Leave { at: usize, hasty: bool },
    Crash(usize),
    Pause(usize),
    Cut(usize),
    Heal(usize),
    DeleteTable,
    DeleteLease(usize),
    Kind(bool),
    Declare { which: u8, uid: u8, mode: Mode },
    Undeclare(u8),
}

fn step() -> impl Strategy<Value = Step> {
    let at = || 0..64usize;
    let mode = prop_oneof![Just(Mode::Whole), Just(Mode::Sharded)];
    prop_oneof![
        6 => (100..4000u64).prop_map(Step::Tick),
        6 => Just(Step::Second),
        8 => any::<(u8, bool)>().prop_map(|(idle, timid)| Step::OddSecond { idle, timid: if timid { u8::MAX } else { 0 } }),
        12 => (at(), any::<(bool, bool, bool)>())
            .prop_map(|(at, (leads, idle, timid))| Step::Round { at, leads, idle, timid }),
        4 => (at(), any::<bool>()).prop_map(|(at, lost)| Step::Renew { at, lost }),
        6 => (at(), 0..6usize).prop_map(|(at, lag)| Step::See { at, lag }),
        6 => (at(), at()).prop_map(|(at, which)| Step::Work { at, which }),
        3 => at().prop_map(Step::List),
        3 => at().prop_map(Step::Take),
        6 => at().prop_map(Step::Plan),
        2 => at().prop_map(Step::Campaign),
        3 => at().prop_map(Step::GoAlone),
        4 => (0..4u8).prop_map(Step::Join),
        2 => (at(), any::<bool>()).prop_map(|(at, hasty)| Step::Leave { at, hasty }),
        1 => at().prop_map(Step::Crash),
        2 => at().prop_map(Step::Pause),
        2 => at().prop_map(Step::Cut),
        4 => at().prop_map(Step::Heal),
        1 => Just(Step::DeleteTable),
        1 => at().prop_map(Step::DeleteLease),
        2 => any::<bool>().prop_map(Step::Kind),
        4 => (0..3u8, 0..2u8, mode).prop_map(|(which, uid, mode)| Step::Declare { which, uid, mode }),
        2 => (0..3u8).prop_map(Step::Undeclare),
    ]
}

fn take(world: &mut World, step: &Step) {
    // A number names one of those that live, so that few steps are lost on the dead.
    let pick = |world: &World, at: usize| {
        let alive: Vec<usize> = (0..world.members.len()).filter(|at| world.members[*at].alive).collect();
        alive.get(at % alive.len().max(1)).copied()
    };
    let alive = |world: &World| world.members.iter().filter(|member| member.alive).count();
    match *step {
        Step::Tick(millis) => world.tick(Duration::from_millis(millis)),
        Step::Second => world.second(),
        Step::OddSecond { idle, timid } => world.odd_second(idle, timid),
        Step::Join(base) if alive(world) < MOST => {
            world.join(&format!("m{base}"));
        }
        Step::Join(_) => {}
        Step::DeleteTable => world.delete_table(),
        Step::Kind(exists) => {
            if !exists {
                world.delete_table();
            }
            world.kind_exists = exists;
        }
        Step::Declare { which, uid, mode } => {
            world.controllers.extend([declared(&format!("c{which}"), uid, mode)]);
        }
        Step::Undeclare(which) => {
            world.controllers.remove(&declared(&format!("c{which}"), 0, Mode::Whole).0);
        }
        Step::Round { at, .. }
        | Step::Renew { at, .. }
        | Step::See { at, .. }
        | Step::Work { at, .. }
        | Step::Leave { at, .. }
        | Step::List(at)
        | Step::Take(at)
        | Step::Plan(at)
        | Step::Campaign(at)
        | Step::GoAlone(at)
        | Step::Crash(at)
        | Step::Pause(at)
        | Step::Cut(at)
        | Step::Heal(at)
        | Step::DeleteLease(at) => {
            if let Some(at) = pick(world, at) {
                take_at(world, step, at);
            }
        }
    }
}

fn take_at(world: &mut World, step: &Step, at: usize) {
    match *step {
        Step::Round { leads, idle, timid, .. } => world.round(at, leads, idle, timid),
        Step::Renew { lost, .. } => world.renew(at, lost),
        Step::See { lag, .. } => world.see(at, lag),
        Step::Work { which, .. } => world.work(at, Some(which)),
        Step::List(_) => world.list(at),
        Step::Take(_) => world.take(at),
        Step::Plan(_) => drop(world.plan(at)),
        Step::Campaign(_) => world.campaign(at),
        Step::GoAlone(_) => world.go_alone(at),
        Step::Leave { hasty, .. } => world.leave(at, hasty),
        Step::Crash(_) => world.members[at].alive = false,
        Step::Pause(_) => world.members[at].paused = true,
        Step::Cut(_) => world.members[at].cut = true,
        Step::Heal(_) => (world.members[at].paused, world.members[at].cut) = (false, false),
        Step::DeleteLease(_) => world.delete_lease(at),
        _ => unreachable!("not about a member"),
    }
}

fn heal(world: &mut World) {
    world.kind_exists = true;
    for member in &mut world.members {
        (member.paused, member.cut) = (false, false);
    }
    if world.members.iter().all(|member| !member.alive || member.leaving) {
        world.join("last");
    }
}

fn seconds(world: &mut World, seconds: usize) {
    for _ in 0..seconds {
        world.second();
    }
}

#[test]
fn without_the_kind_one_member_works_on_everything_until_it_is_back() {
    let mut world = World::new();
    for base in ["m0", "m1", "m2"] {
        world.join(base);
    }
    world.controllers.extend([declared("c0", 0, Mode::Whole), declared("c1", 0, Mode::Sharded)]);
    let worked_on = |world: &World| -> Vec<usize> {
        let runs = (0..world.members.len()).filter(|at| world.may_work(*at)).map(|at| world.members[at].runs.len());
        runs.filter(|runs| *runs > 0).collect()
    };
    // Before there was any, then after it was there. Shards are among what one works on, though nothing is sharded.
    for _ in 0..2 {
        world.kind_exists = false;
        world.delete_table();
        seconds(&mut world, 30);
        assert_eq!(worked_on(&world), [258]);
        // Who works alone pauses, is taken for dead, and comes back to find that it is.
        let at = world.members.iter().position(|member| !member.runs.is_empty()).unwrap();
        world.members[at].paused = true;
        seconds(&mut world, 40);
        assert_eq!(worked_on(&world), [258]);
        world.members[at].paused = false;
        seconds(&mut world, 5);
        assert!(!world.members[at].alive);
        world.join("m3");
        world.kind_exists = true;
        seconds(&mut world, 60);
        world.check_settled();
    }
}

/// `PROPTEST_CASES` sets how many worlds there are.
fn config() -> ProptestConfig {
    let config = ProptestConfig { failure_persistence: None, max_shrink_iters: 2000, ..ProptestConfig::default() };
    if std::env::var_os("PROPTEST_CASES").is_some() { config } else { ProptestConfig { cases: CASES, ..config } }
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn nothing_is_worked_on_twice_and_nothing_is_forgotten(steps in prop::collection::vec(step(), 1..160)) {
        let mut world = World::new();
        world.join("m0");
        for step in &steps {
            take(&mut world, step);
            world.check();
        }
        heal(&mut world);
        let (mut still, mut writes) = (0, 0);
        for _ in 0..SETTLED_SECS {
            world.second();
            if world.members.iter().all(|member| !member.alive || member.leaving) {
                world.join("last");
            }
            still = if world.writes == writes { still + 1 } else { 0 };
            writes = world.writes;
            if still == STILL_SECS {
                break;
            }
        }
        prop_assert_eq!(still, STILL_SECS, "it doesn't settle");
        world.check_settled();
    }
}
