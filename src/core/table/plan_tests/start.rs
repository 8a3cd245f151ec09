//! Where a table begins: what it grants, and what was seen of it or of another before.

use super::*;
use crate::table::alone;

#[test]
fn a_new_table_grants_nothing_and_starts_above_what_was_seen() {
    let counter = |highest: &[u64]| {
        let mut bench = Bench::new(&["a1", "b1", "c1"]);
        bench.knows_all_from = Some(bench.now);
        for (member, highest) in bench.members.values_mut().zip(highest) {
            member.report.highest = Epoch(*highest);
        }
        bench.member("b1").life = Life::Lost;
        bench.member("c1").life = Life::Dead;
        let table = bench.planner.clone().plan(&bench.view(&name("me"), None)).write.unwrap();
        assert_eq!(table.members, [name("a1"), name("b1")].into());
        assert!(table.shards.iter().all(|row| row.owner.is_none() && row.epoch == table.counter));
        table.counter.0
    };
    assert_eq!(counter(&[7, 8, 9]), (5 << 20) + 1);
    assert_eq!(counter(&[9 << 20, 3, 4]), (10 << 20) + 1);
    assert_eq!(counter(&[3, 4, 9 << 20]), (10 << 20) + 1);
    // What can't be an epoch isn't believed.
    assert_eq!(counter(&[u64::MAX, 1 << 52, 0]), (5 << 20) + 1);
}

#[test]
fn where_a_table_was_the_next_waits_until_nobody_unknown_can_work() {
    let mut bench = Bench::new(&["a1"]);
    let new = |bench: &Bench| bench.planner.clone().plan(&bench.view(&name("me"), None));
    bench.knows_all_from = Some(bench.now + Duration::from_secs(1));
    assert_eq!(new(&bench), Plan { look_again: bench.knows_all_from, ..Plan::default() });
    bench.later(1);
    assert!(new(&bench).write.is_some());
    bench.knows_all_from = None;
    assert_eq!(new(&bench), Plan::default());
    // The first one of all doesn't.
    bench.member("a1").report.highest = Epoch(0);
    assert!(new(&bench).write.is_some());
}

#[test]
fn the_first_rows_wait_until_all_have_come_over() {
    let cases: [(&str, Life, Option<&str>, bool); 8] = [
        ("come over", Life::Live, Some("t"), true),
        ("still elsewhere", Life::Live, Some("old"), false),
        ("saw no kind", Life::Live, Some(NO_TABLE), false),
        ("heard nothing", Life::Live, None, false),
        ("lost, elsewhere", Life::Lost, Some("old"), false),
        ("lost, never anywhere", Life::Lost, None, true),
        ("lost, here", Life::Lost, Some("t"), true),
        ("dead", Life::Dead, Some("old"), true),
    ];
    for (case, life, table, grants) in cases {
        let mut bench = Bench::new(&["a1", "b1"]);
        bench.declare(C, "w", Mode::Whole);
        bench.member("b1").life = life;
        bench.member("b1").report.table = table.map(Uid::new);
        bench.write();
        let owned = bench.table.shards.iter().filter(|row| row.owner.is_some()).count();
        assert_eq!(owned, if grants { 256 } else { 0 }, "{case}");
        assert_eq!(bench.table.controllers.len(), usize::from(grants), "{case}");
    }
    // One that the table counts on and nobody sees may be anywhere.
    let mut bench = Bench::new(&["a1"]);
    bench.table.members.insert(name("gone"));
    bench.write();
    assert_eq!(bench.counts(), []);
    // Once granted, a newcomer that heard nothing yet holds nothing up: rows of the dead go on.
    let mut bench = Bench::granted(&["a1", "b1"]);
    bench.join("c1");
    bench.member("c1").report.table = None;
    bench.member("b1").life = Life::Dead;
    bench.write();
    assert_eq!(bench.counts(), [("a1", 256)]);
}

#[test]
fn the_first_member_gets_all_and_several_get_the_same() {
    assert_eq!(Bench::granted(&["a1"]).counts(), [("a1", 256)]);
    let bench = Bench::granted(&["a1", "b1", "c1"]);
    assert_eq!(bench.counts(), [("a1", 86), ("b1", 85), ("c1", 85)]);
    assert_eq!(bench.table.members.len(), 3);
}

#[test]
fn another_installations_table_is_left_alone() {
    let mut bench = Bench::new(&["a1"]);
    bench.installation = "other".into();
    assert_eq!(bench.plan(), Plan::default());
}

#[test]
fn a_table_older_than_what_members_saw_of_it_is_not_planned_over() {
    let mut bench = Bench::new(&["a1"]);
    bench.member("a1").report.highest = Epoch(101);
    assert_eq!(bench.plan(), Plan { behind: true, ..Plan::default() });
    // Under another table the same only lifts the counter.
    bench.member("a1").report.table = Some(Uid::new("old"));
    bench.write();
    assert_eq!(bench.table.counter, Epoch(101 + (1 << 20)));
    // At the very counter it may only be about to come over, for a while.
    let counter = bench.table.counter;
    bench.member("a1").report.highest = counter;
    let until = Some(bench.now + Duration::from_secs(10));
    assert_eq!((bench.plan().write, bench.plan().look_again), (None, until));
    bench.later(9);
    bench.rests();
    bench.later(1);
    bench.write();
    assert_eq!(bench.table.counter, Epoch(counter.0 + (1 << 20)));
}

#[test]
fn who_works_alone_has_said_so_and_sees_nobody_else_at_work() {
    // What the other says, whether it lives, what this member says, whether it may claim and begin.
    let (none, alone) = (Some(NO_TABLE), Some(alone::ALONE));
    let cases = [
        (none, Life::Live, none, true, false),
        (none, Life::Live, alone, true, true),
        (none, Life::Lost, alone, true, true),
        (alone, Life::Live, alone, false, false),
        (alone, Life::Lost, alone, false, false),
        (alone, Life::Dead, alone, true, true),
        (Some("t"), Life::Live, none, false, false),
        (None, Life::Live, none, false, false),
        (none, Life::Live, Some("t"), false, false),
        (none, Life::Live, None, false, false),
    ];
    for case in cases {
        let mut bench = Bench::new(&["a1", "b1"]);
        bench.knows_all_from = Some(bench.now);
        let (other, life, own, claim, begin) = case;
        bench.member("a1").report.table = own.map(Uid::new);
        bench.member("b1").report.table = other.map(Uid::new);
        bench.member("b1").life = life;
        let me = name("a1");
        let view = bench.view(&me, None);
        assert_eq!((alone::may_claim(&view), alone::may_begin(&view)), (claim, begin), "{case:?}");
        assert!(!alone::may_claim(&View { knows_all_from: None, ..view }));
    }
}
