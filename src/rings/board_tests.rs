use super::*;

const S: Duration = Duration::from_secs(1);

fn id(kind: usize, name: &str) -> Id {
    Id { kind, key: ObjectKey::new("n", name) }
}

fn facts(uid: &str, version: u64, shard: Option<&str>) -> Facts {
    Facts {
        uid: Uid::new(uid),
        version: Version(version),
        shard: shard.map(Arc::from),
        is_draining: false,
        owner: None,
        is_recent: false,
    }
}

fn owned(uid: &str, owner: &str) -> Facts {
    let owner = OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Secret".to_owned(),
        name: owner.to_owned(),
        uid: Uid::new(owner),
        controller: true,
    };
    Facts { owner: Some(Arc::new(owner)), ..facts(uid, 1, None) }
}

fn dirty(board: &mut Board) -> Vec<Id> {
    board.take_dirty(usize::MAX)
}

#[test]
fn a_watch_that_lags_changes_nothing() {
    let mut board = Board::default();
    board.saw(S, id(0, "a"), facts("a", 5, None), Mark::Unassigned, 1);
    board.answered(S, &id(0, "a"), facts("a", 7, Some("x")));
    board.saw(S, id(0, "a"), facts("a", 6, None), Mark::Unassigned, 1);
    assert_eq!(board.get(&id(0, "a")).unwrap().facts.shard.as_deref(), Some("x"));
    board.left(S, &id(0, "a"), Version(7), Mark::Unassigned);
    assert!(!board.get(&id(0, "a")).unwrap().is_stale(), "it left by what we wrote");
    board.left(S, &id(0, "a"), Version(8), Mark::Unassigned);
    assert!(board.get(&id(0, "a")).unwrap().is_stale(), "somebody else did something to it");
}

#[test]
fn what_nothing_shows_is_forgotten_after_a_while() {
    let mut board = Board::default();
    board.saw(S, id(0, "a"), facts("a", 1, Some("x")), Mark::Draining, 1);
    board.left(S, &id(0, "a"), Version(2), Mark::Draining);
    assert_eq!(board.purge(S), []);
    // Its shard let it go: it is nobody's now, and who had it is known.
    board.saw(2 * S, id(0, "a"), facts("a", 2, None), Mark::Unassigned, 1);
    assert_eq!(board.purge(60 * S), []);
    assert_eq!(board.get(&id(0, "a")).unwrap().former.as_deref(), Some("x"));
    board.left(60 * S, &id(0, "a"), Version(3), Mark::Unassigned);
    assert_eq!(board.purge_at(), Some(60 * S + LINGERS));
    assert_eq!(board.purge(60 * S + LINGERS), [id(0, "a")]);
    assert_eq!((board.iter().count(), board.purge_at()), (0, None));
}

#[test]
fn one_that_is_written_is_never_forgotten() {
    let mut board = Board::default();
    board.saw(S, id(0, "a"), facts("a", 1, None), Mark::Unassigned, 1);
    board.get_mut(&id(0, "a")).unwrap().is_busy = true;
    board.left(S, &id(0, "a"), Version(2), Mark::Unassigned);
    assert_eq!(board.purge(60 * S), []);
    board.get_mut(&id(0, "a")).unwrap().is_busy = false;
    assert_eq!(board.purge(120 * S), [id(0, "a")]);
}

#[test]
fn a_list_that_is_complete_hides_what_it_doesnt_show() {
    let mut board = Board::default();
    for name in ["a", "b"] {
        board.saw(S, id(0, name), facts(name, 1, None), Mark::Unassigned, 1);
    }
    board.saw(S, id(1, "b"), facts("c", 1, None), Mark::Unassigned, 1);
    board.saw(S, id(0, "a"), facts("a", 1, None), Mark::Unassigned, 2);
    board.complete(S, 0, Mark::Unassigned, 2);
    let shown = |board: &Board, id: &Id| board.get(id).unwrap().is_shown_by(Mark::Unassigned);
    assert!(shown(&board, &id(0, "a")) && !shown(&board, &id(0, "b")));
    assert!(shown(&board, &id(1, "b")), "another kind's");
}

#[test]
fn found_objects_are_counted_once() {
    let mut board = Board::default();
    for generation in [1, 2] {
        board.saw(S, id(0, "a"), facts("a", 1, Some("x")), Mark::Found, generation);
    }
    board.saw(S, id(0, "b"), facts("b", 1, Some("x")), Mark::Found, 2);
    assert_eq!(board.found(), 2);
    board.settle(S, &id(0, "a"));
    board.settle(S, &id(0, "a"));
    assert_eq!(board.found(), 1);
    board.forget(&id(0, "b"));
    assert_eq!(board.found(), 0);
}

#[test]
fn families_are_looked_at_together() {
    let mut board = Board::default();
    board.saw(S, id(1, "c"), owned("c", "o"), Mark::Found, 1);
    assert_eq!(dirty(&mut board), [id(1, "c")]);
    board.saw(S, id(0, "o"), facts("o", 1, None), Mark::Unassigned, 1);
    assert_eq!(dirty(&mut board), [id(0, "o"), id(1, "c")], "its children go by it");
    assert_eq!(board.children(&Uid::new("o")).count(), 1);
    board.answered(S, &id(1, "c"), Facts { version: Version(2), shard: Some("x".into()), ..owned("c", "o") });
    assert_eq!(dirty(&mut board), [id(0, "o"), id(1, "c")], "and it waits for them");
    board.forget(&id(1, "c"));
    assert_eq!(dirty(&mut board), [id(0, "o")]);
    assert_eq!(board.children(&Uid::new("o")).count(), 0);
}

#[test]
fn an_owner_may_change() {
    let mut board = Board::default();
    board.saw(S, id(1, "c"), owned("c", "o"), Mark::Found, 1);
    board.saw(S, id(1, "c"), Facts { version: Version(2), ..owned("c", "p") }, Mark::Found, 1);
    assert_eq!(["o", "p"].map(|owner| board.children(&Uid::new(owner)).count()), [0, 1]);
}

#[test]
fn another_object_of_a_name_is_another() {
    let mut board = Board::default();
    board.saw(S, id(0, "a"), facts("a", 9, Some("x")), Mark::Found, 1);
    board.saw(S, id(0, "a"), facts("b", 12, None), Mark::Unassigned, 1);
    // What lags behind shows the former one.
    board.saw(S, id(0, "a"), facts("a", 10, Some("x")), Mark::Draining, 1);
    let item = board.get(&id(0, "a")).unwrap();
    assert_eq!((item.former.as_deref(), item.facts.version, board.found()), (None, Version(12), 0));
    assert!(board.of_uid(&Uid::new("a")).is_none() && board.of_uid(&Uid::new("b")).is_some());
}

#[test]
fn the_answer_to_a_write_may_be_older_than_what_was_seen_since() {
    let mut board = Board::default();
    board.saw(S, id(0, "a"), facts("a", 1, Some("x")), Mark::Found, 1);
    let draining = Facts { is_draining: true, ..facts("a", 2, Some("x")) };
    board.saw(S, id(0, "a"), draining.clone(), Mark::Draining, 1);
    board.left(S, &id(0, "a"), Version(3), Mark::Draining);
    board.answered(S, &id(0, "a"), draining);
    assert!(board.get(&id(0, "a")).unwrap().is_stale(), "its shard let it go before we heard of our own write");
    board.answered(S, &id(0, "a"), facts("a", 3, None));
    assert!(!board.get(&id(0, "a")).unwrap().is_stale());
}
