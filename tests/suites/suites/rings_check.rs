//! The checker of rings' trials itself: each finding is found in a record that has it, and none in a good one.
//!
//! Never needs a server.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::ensure;

use crate::rings::checker::{Child, End, Finding, Main, check, foreign, forgotten, made_twice};
use crate::rings::record::{History, Kind, Seen};
use crate::rings::shard::Line;
use crate::trial::Case;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::alone("rings_check", "finds_writes_of_others", |_| async { of_others() }),
        Case::alone("rings_check", "finds_children_made_twice", |_| async { twice() }),
        Case::alone("rings_check", "finds_what_is_forgotten", |_| async { left() }),
    ]
}

/// A version of the Secret `x`.
fn seen(version: u64, shard: Option<&str>) -> Seen {
    Seen {
        at: Instant::now(),
        kind: Kind::Secret,
        uid: "u".to_owned(),
        name: "x".to_owned(),
        version,
        shard: shard.map(ToOwned::to_owned),
        is_draining: false,
        is_deleted: false,
    }
}

/// `x` is made at version 10, a's at 20, nobody's at 30, b's at 40.
fn history() -> History {
    let events = vec![seen(10, None), seen(20, Some("a")), seen(30, None), seen(40, Some("b"))];
    History { events, gaps: 0 }
}

/// A line about `n/x` and its child.
fn line(shard: &str, event: &str, verb: &str, rv: &str) -> Line {
    Line {
        shard: shard.to_owned(),
        event: event.to_owned(),
        verb: verb.to_owned(),
        object: "n/x".to_owned(),
        name: "checksums-x".to_owned(),
        rv: rv.to_owned(),
        ..Line::default()
    }
}

fn is_foreign(line: Line) -> bool {
    matches!(*foreign(&[line], &history()), [Finding::Foreign(_)])
}

fn of_others() -> anyhow::Result<()> {
    let good = [line("a", "begin", "", ""), line("a", "wrote", "create", "21"), line("b", "wrote", "update", "41")];
    ensure!(foreign(&good, &history()).is_empty());
    ensure!(is_foreign(line("a", "wrote", "create", "15")), "before it was its own");
    ensure!(is_foreign(line("b", "wrote", "create", "25")), "before it was its own, while it was another's");
    ensure!(is_foreign(line("a", "wrote", "update", "35")), "after it let it go");
    ensure!(is_foreign(line("a", "wrote", "update", "45")), "when it was another's");
    ensure!(foreign(&[line("a", "failed", "update", "45")], &history()).is_empty(), "what failed did nothing");
    let unreadable = |line: Line| matches!(*foreign(&[line], &history()), [Finding::Unreadable(_)]);
    ensure!(unreadable(line("a", "wrote", "update", "")), "without a version");
    ensure!(unreadable(line("a", "wrote", "create", "5")), "before the record");
    let mut gone = history();
    gone.events.push(Seen { is_deleted: true, ..seen(50, Some("b")) });
    ensure!(foreign(&[line("a", "wrote", "update", "55")], &gone).is_empty(), "of one that is gone");
    let mut other = history();
    other.events.push(Seen { kind: Kind::ConfigMap, ..seen(42, Some("a")) });
    ensure!(foreign(&[line("b", "wrote", "update", "43")], &other).is_empty(), "another kind of the same name");
    Ok(())
}

fn twice() -> anyhow::Result<()> {
    let once = [line("a", "wrote", "create", "21"), line("b", "wrote", "update", "41")];
    ensure!(made_twice(&once).is_empty());
    let again = [line("a", "wrote", "create", "21"), line("b", "wrote", "create", "41")];
    ensure!(matches!(*made_twice(&again), [Finding::MadeTwice(_)]));
    let failed = |reason: &str| Line { reason: Some(reason.to_owned()), ..line("b", "failed", "create", "") };
    ensure!(matches!(*made_twice(&[failed("AlreadyExists")]), [Finding::MadeTwice(_)]));
    ensure!(made_twice(&[failed("Forbidden")]).is_empty());
    Ok(())
}

fn left() -> anyhow::Result<()> {
    let sums = || BTreeMap::from([("k".to_owned(), "1".to_owned())]);
    let good = || End {
        mains: vec![Main { name: "x".to_owned(), shard: Some("a".to_owned()), is_draining: false, sums: sums() }],
        children: [("checksums-x".to_owned(), Child { shard: Some("a".to_owned()), data: sums() })].into(),
        living: ["a".to_owned(), "b".to_owned()].into(),
    };
    ensure!(forgotten(&good()).is_empty());
    let found = |change: &dyn Fn(&mut End)| {
        let mut end = good();
        change(&mut end);
        forgotten(&end)
    };
    let child = |end: &mut End, change: &dyn Fn(&mut Child)| end.children.values_mut().for_each(change);
    ensure!(matches!(*found(&|end| end.children.clear()), [Finding::NotShown(_)]));
    ensure!(matches!(*found(&|end| child(end, &|it| it.data.clear())), [Finding::NotShown(_)]));
    ensure!(matches!(*found(&|end| child(end, &|it| it.shard = None)), [Finding::Apart(_)]));
    ensure!(matches!(*found(&|end| child(end, &|it| it.shard = Some("b".to_owned()))), [Finding::Apart(_)]));
    ensure!(matches!(*found(&|end| end.mains[0].is_draining = true), [Finding::Draining(_)]));
    let unassigned = found(&|end| {
        end.mains[0].shard = None;
        child(end, &|it| it.shard = None);
    });
    ensure!(matches!(*unassigned, [Finding::Unassigned(_)]));
    ensure!(matches!(*found(&|end| end.living.clear()), [Finding::Unassigned(_)]), "its shard is gone");
    // All of it at once.
    let lines = [line("b", "wrote", "create", "25"), line("b", "wrote", "create", "45")];
    let end = End { children: BTreeMap::new(), ..good() };
    ensure!(check(&lines, &history(), &end).len() == 3, "{:?}", check(&lines, &history(), &end));
    Ok(())
}
