//! Rows of controllers: how they come and go, and how their modes change.

use super::*;

#[test]
fn controllers_come_and_go_once_they_are_known() {
    let mut bench = Bench::granted(&["a1", "b1"]);
    bench.known = false;
    for at in 0..7 {
        bench.declare(&format!("w{at}"), &format!("u{at}"), Mode::Whole);
    }
    bench.declare(C, "s", Mode::Sharded);
    bench.rests();
    bench.known = true;
    bench.write();
    assert_eq!((bench.row().mode, bench.row().row.owner.as_ref()), (Mode::Sharded, None));
    let owned = |bench: &Bench, who: &str| {
        bench.table.controllers.values().filter(|row| row.row.owner.as_ref() == Some(&name(who))).count()
    };
    assert_eq!((owned(&bench, "a1"), owned(&bench, "b1")), (4, 3));
    // Wholes are balanced like shards.
    bench.join("c1");
    bench.write();
    bench.later(10);
    bench.run();
    assert_eq!(["a1", "b1", "c1"].map(|who| owned(&bench, who)), [3, 2, 2]);
    // One that is made anew waits for the old one's end; nobody's word is missing.
    bench.declare(C, "s2", Mode::Whole);
    bench.known = false;
    bench.rests();
    bench.known = true;
    bench.write();
    assert_eq!((bench.row().becoming, bench.row().row.releasing), (Some(Becoming::Gone), true));
    bench.obey("a1");
    bench.obey("b1");
    bench.rests();
    bench.join("d1");
    bench.write();
    bench.obey("c1");
    bench.rests();
    bench.member("d1").life = Life::Lost;
    bench.rests();
    bench.member("d1").life = Life::Dead;
    bench.write();
    assert_eq!((&bench.row().uid, bench.row().mode, bench.row().becoming), (&Uid::new("s2"), Mode::Whole, None));
    assert!(bench.row().row.owner.is_some());
    let counter = bench.table.counter;
    bench.controllers.remove(&controller(C));
    bench.run();
    assert!(!bench.table.controllers.contains_key(&controller(C)));
    assert!(bench.table.counter.0 >= counter.0 + 2, "a row that ends is a change too");
}

#[test]
fn a_mode_changes_when_nobody_works_on_it_any_more() {
    let mut bench = Bench::granted(&["a1", "b1"]);
    bench.declare(C, "c", Mode::Whole);
    bench.write();
    let owner = bench.row().row.owner.clone().unwrap();
    bench.declare(C, "c", Mode::Sharded);
    bench.write();
    assert_eq!((bench.row().becoming, bench.row().row.releasing), (Some(Becoming::Sharded), false));
    // Only the owner's labels count.
    let other = if owner == name("a1") { "b1" } else { "a1" };
    let epoch = bench.row().row.epoch;
    bench.member(other).report.warm.insert(id("c"), epoch);
    bench.rests();
    // The wish changes, and back.
    bench.declare(C, "c", Mode::Whole);
    bench.write();
    assert_eq!((bench.row().becoming, bench.row().row.owner.as_ref()), (None, Some(&owner)));
    bench.declare(C, "c", Mode::Sharded);
    bench.write();
    let epoch = bench.row().row.epoch;
    bench.member(owner.as_str()).report.warm.insert(id("c"), epoch);
    bench.write();
    assert!(bench.row().is_closing());
    bench.obey(owner.as_str());
    bench.rests();
    bench.obey(other);
    bench.write();
    assert_eq!(bench.row().row, Row { epoch: bench.table.counter, ..Row::default() });
    assert_eq!((bench.row().mode, bench.row().becoming), (Mode::Sharded, None));
    // And to a whole again, at once on the way there.
    bench.declare(C, "c", Mode::Whole);
    bench.write();
    assert!(bench.row().is_closing() && bench.row().mode == Mode::Sharded);
    bench.run();
    assert!(bench.row().mode == Mode::Whole && bench.row().row.owner.is_some());
}

#[test]
fn a_wish_that_changes_while_a_controller_closes_ends_where_it_can() {
    // What it is, what it was becoming, what is wished at the end, what comes of it.
    let cases = [
        (Mode::Whole, Becoming::Sharded, Some(Mode::Whole), Some((Mode::Whole, None))),
        (Mode::Whole, Becoming::Sharded, None, None),
        (Mode::Whole, Becoming::Gone, Some(Mode::Whole), Some((Mode::Whole, None))),
        (Mode::Whole, Becoming::Gone, Some(Mode::Sharded), Some((Mode::Whole, Some(Becoming::Sharded)))),
        (Mode::Sharded, Becoming::Gone, Some(Mode::Sharded), Some((Mode::Sharded, None))),
        (Mode::Sharded, Becoming::Whole, Some(Mode::Sharded), Some((Mode::Sharded, None))),
        (Mode::Sharded, Becoming::Whole, None, None),
    ];
    for (mode, becoming, wish, end) in cases {
        let mut bench = Bench::granted(&["a1", "b1"]);
        bench.declare(C, "c", mode);
        bench.write();
        let row = bench.table.controllers.get_mut(&controller(C)).unwrap();
        (row.becoming, row.row.releasing) = (Some(becoming), true);
        match wish {
            Some(mode) => bench.declare(C, "c", mode),
            None => drop(bench.controllers.remove(&controller(C))),
        }
        bench.obey("a1");
        bench.rests();
        bench.obey("b1");
        bench.write();
        let row = bench.table.controllers.get(&controller(C));
        assert_eq!(row.map(|row| (row.mode, row.becoming)), end, "{mode:?} {becoming:?} {wish:?}");
        assert!(row.is_none_or(|row| !row.row.releasing && row.row.owner.is_some() == (row.mode == Mode::Whole)));
    }
    // Where nothing is known of wishes, what was begun is ended.
    for (becoming, mode) in
        [(Becoming::Whole, Some(Mode::Whole)), (Becoming::Sharded, Some(Mode::Sharded)), (Becoming::Gone, None)]
    {
        let mut bench = Bench::granted(&["a1"]);
        bench.declare(C, "c", Mode::Whole);
        bench.write();
        let row = bench.table.controllers.get_mut(&controller(C)).unwrap();
        (row.becoming, row.row.releasing) = (Some(becoming), true);
        bench.known = false;
        bench.run();
        assert_eq!(bench.table.controllers.get(&controller(C)).map(|row| row.mode), mode);
    }
}

#[test]
fn labelling_survives_its_owner_and_steps_back_for_one_that_leaves() {
    let mut bench = Bench::granted(&["a1", "b1"]);
    bench.declare(C, "c", Mode::Whole);
    bench.write();
    bench.declare(C, "c", Mode::Sharded);
    bench.write();
    let owner = bench.row().row.owner.clone().unwrap();
    let mut left = bench.copy();
    bench.member(owner.as_str()).life = Life::Dead;
    bench.write();
    assert_ne!(bench.row().row.owner.as_ref(), Some(&owner));
    assert_eq!((bench.row().becoming, bench.row().row.releasing), (Some(Becoming::Sharded), false));
    left.member(owner.as_str()).leaving = true;
    left.write();
    assert!(left.row().becoming.is_none() && left.row().row.next.is_some());
    left.run();
    assert_ne!(left.row().row.owner.as_ref(), Some(&owner));
    assert_eq!(left.row().mode, Mode::Sharded);
}
