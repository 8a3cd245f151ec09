//! Cases for the sharder's plans.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::calm::Settings;
use super::plan::{Declared, MemberView, Notice, Plan, Planner, View};
use super::{Becoming, ControllerName, ControllerRow, Mode, NO_TABLE, Row, RowId, Table};
use crate::key::{Epoch, MemberName, Uid};
use crate::lease::Life;

const C: &str = "c";

/// A sharder, what it sees, and the table that it writes.
struct Bench {
    planner: Planner,
    installation: Arc<str>,
    uid: Uid,
    table: Table,
    members: BTreeMap<MemberName, MemberView>,
    controllers: BTreeMap<ControllerName, Declared>,
    known: bool,
    knows_all_from: Option<Duration>,
    now: Duration,
}

fn name(text: &str) -> MemberName {
    MemberName::new(text)
}

fn controller(text: &str) -> ControllerName {
    ControllerName { group: "g".into(), name: text.into() }
}

fn id(text: &str) -> RowId {
    RowId::Controller(Uid::new(text))
}

impl Bench {
    /// Members that go by the table; their bases are their names without the last character.
    fn new(members: &[&str]) -> Self {
        let mut bench = Self {
            planner: Planner::new(Settings::default()),
            installation: "i".into(),
            uid: Uid::new("t"),
            table: Table::new("i".into(), Epoch(100)),
            members: BTreeMap::new(),
            controllers: BTreeMap::new(),
            known: true,
            knows_all_from: None,
            now: Duration::from_secs(1000),
        };
        members.iter().for_each(|name| bench.join(name));
        bench
    }

    /// With all shards granted.
    fn granted(members: &[&str]) -> Self {
        let mut bench = Self::new(members);
        bench.write();
        bench
    }

    fn copy(&self) -> Self {
        Self {
            planner: self.planner.clone(),
            installation: Arc::clone(&self.installation),
            uid: self.uid.clone(),
            table: self.table.clone(),
            members: self.members.clone(),
            controllers: self.controllers.clone(),
            ..*self
        }
    }

    fn join(&mut self, text: &str) {
        let mut report = super::Report { table: Some(self.uid.clone()), ..super::Report::default() };
        report.highest = Epoch(1);
        let base = text[..text.len() - 1].into();
        self.members.insert(name(text), MemberView { life: Life::Live, report, leaving: false, base });
    }

    fn member(&mut self, text: &str) -> &mut MemberView {
        self.members.get_mut(&name(text)).unwrap()
    }

    fn declare(&mut self, text: &str, uid: &str, mode: Mode) {
        self.controllers.insert(controller(text), Declared { uid: Uid::new(uid), mode });
    }

    fn view<'a>(&'a self, me: &'a MemberName, table: Option<(&'a Uid, &'a Table)>) -> View<'a> {
        View {
            installation: &self.installation,
            table,
            members: &self.members,
            controllers: &self.controllers,
            controllers_known: self.known,
            knows_all_from: self.knows_all_from,
            me,
            now: self.now,
            wall_secs: 5,
        }
    }

    fn plan(&mut self) -> Plan {
        let mut planner = self.planner.clone();
        let plan = planner.plan(&self.view(&name("me"), Some((&self.uid, &self.table))));
        self.planner = planner;
        plan
    }

    /// Plans and writes; what was written is at rest until something new is seen.
    fn write(&mut self) -> Plan {
        let plan = self.plan();
        if let Some(table) = &plan.write {
            for (old, row) in self.table.shards.iter().zip(&table.shards) {
                assert!(old == row || row.epoch > self.table.counter, "{old:?} {row:?}");
            }
            self.table = table.clone();
            assert_eq!(self.plan().write, None);
        }
        plan
    }

    /// Nothing is to be written.
    fn rests(&mut self) {
        assert_eq!(self.plan().write, None);
    }

    fn later(&mut self, secs: u64) {
        self.now += Duration::from_secs(secs);
    }

    /// The member says that it warmed and released all that it should.
    fn obey(&mut self, text: &str) {
        let me = Some(name(text));
        let mut report = super::Report { table: Some(self.uid.clone()), ..super::Report::default() };
        let shards = (0..=u8::MAX).map(RowId::Shard).zip(&self.table.shards);
        let wholes = self.table.controllers.values().filter(|row| row.becoming.is_none());
        let wholes = wholes.map(|row| (RowId::Controller(row.uid.clone()), &row.row));
        for (id, row) in shards.chain(wholes) {
            if row.releasing && row.owner == me {
                report.released.insert(id, row.epoch);
            } else if !row.releasing && row.next == me {
                report.warm.insert(id, row.epoch);
            }
        }
        for row in self.table.controllers.values().filter(|row| row.becoming.is_some()) {
            let rows = if row.row.releasing { &mut report.released } else { &mut report.warm };
            rows.insert(RowId::Controller(row.uid.clone()), row.row.epoch);
        }
        self.member(text).report = report;
    }

    /// All do what the table says until nothing changes; tells how many tables that took.
    fn run(&mut self) -> usize {
        for writes in 0.. {
            let live: Vec<String> =
                self.members.iter().filter(|(_, m)| m.life == Life::Live).map(|(n, _)| n.to_string()).collect();
            live.iter().for_each(|name| self.obey(name));
            if self.write().write.is_none() {
                return writes;
            }
            assert!(writes < 100, "it never ends");
        }
        0
    }

    fn counts(&self) -> Vec<(&str, usize)> {
        let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
        for owner in self.table.shards.iter().flat_map(|row| &row.owner) {
            *counts.entry(owner.as_str()).or_default() += 1;
        }
        counts.into_iter().collect()
    }

    fn going(&self) -> usize {
        self.table.shards.iter().filter(|row| row.next.is_some()).count()
    }

    fn row(&self) -> &ControllerRow {
        &self.table.controllers[&controller(C)]
    }

    fn owner(&self, shard: usize) -> &str {
        self.table.shards[shard].owner.as_ref().unwrap().as_str()
    }
}

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
    let (none, alone) = (Some(NO_TABLE), Some(super::alone::ALONE));
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
        assert_eq!((super::alone::may_claim(&view), super::alone::may_begin(&view)), (claim, begin), "{case:?}");
        assert!(!super::alone::may_claim(&View { knows_all_from: None, ..view }));
    }
}

#[test]
fn a_row_moves_step_by_step_each_on_its_own_evidence() {
    let mut bench = Bench::granted(&["a1"]);
    bench.join("b1");
    bench.member("a1").leaving = true;
    bench.write();
    assert_eq!(bench.going(), 256);
    // Warm counts only for the row's epoch, under this table, from the next owner.
    let row = bench.table.shards[3].clone();
    for (who, table, epoch) in [("a1", "t", row.epoch.0), ("b1", "old", row.epoch.0), ("b1", "t", row.epoch.0 - 1)] {
        let mut other =
            Bench { planner: bench.planner.clone(), installation: "i".into(), uid: Uid::new("t"), ..bench.copy() };
        other.member(who).report.table = Some(Uid::new(table));
        other.member(who).report.warm.insert(RowId::Shard(3), Epoch(epoch));
        let after = other.plan().write.map(|table| table.shards[3].releasing);
        assert!(matches!(after, None | Some(false)), "{who} {table} {epoch}");
    }
    bench.member("b1").report.warm.insert(RowId::Shard(3), row.epoch);
    bench.write();
    let row = bench.table.shards[3].clone();
    assert_eq!((row.owner.as_ref(), row.next.as_ref(), row.releasing), (Some(&name("a1")), Some(&name("b1")), true));
    assert!(!bench.table.shards[4].releasing);
    for (who, table, epoch) in [("b1", "t", row.epoch.0), ("a1", "old", row.epoch.0), ("a1", "t", row.epoch.0 - 1)] {
        let mut other = bench.copy();
        other.member(who).report.table = Some(Uid::new(table));
        other.member(who).report.released.insert(RowId::Shard(3), Epoch(epoch));
        assert!(other.plan().write.is_none_or(|table| table.shards[3].owner == row.owner), "{who} {table} {epoch}");
    }
    bench.member("a1").report.released.insert(RowId::Shard(3), row.epoch);
    bench.write();
    let row = &bench.table.shards[3];
    assert_eq!((row.owner.as_ref(), row.next.as_ref(), row.releasing), (Some(&name("b1")), None, false));
    assert_eq!(row.epoch, bench.table.counter);
}

#[test]
fn rows_of_the_dead_go_at_once_and_rows_of_the_lost_stay() {
    let mut bench = Bench::granted(&["a1", "b1", "c1"]);
    bench.member("a1").life = Life::Lost;
    bench.rests();
    bench.members.remove(&name("a1"));
    bench.rests();
    bench.join("a1");
    bench.member("a1").life = Life::Dead;
    let plan = bench.write();
    assert_eq!(bench.counts(), [("b1", 128), ("c1", 128)]);
    assert_eq!(plan.notices, [Notice::MemberLost(name("a1"))]);
    assert!(!bench.table.names().contains(&name("a1")));
    // A member that said that it leaves, and released its Lease, has left.
    bench.member("b1").leaving = true;
    bench.member("b1").life = Life::Dead;
    assert_eq!(bench.write().notices, [Notice::MemberLeft(name("b1"))]);
    assert_eq!(bench.counts(), [("c1", 256)]);
    assert!(bench.table.shards.iter().filter(|row| row.forced > 0).count() <= 86);
    // Nobody is left to give them to.
    bench.member("c1").life = Life::Dead;
    bench.write();
    assert_eq!(bench.counts(), [("c1", 256)]);
}

#[test]
fn a_dying_next_is_replaced_or_withdrawn_in_every_step() {
    // Of a leaving owner: another is chosen. Of an owner that stays: the move is off.
    for (leaving, life) in [(true, Life::Dead), (true, Life::Lost), (false, Life::Dead), (false, Life::Lost)] {
        let mut bench = Bench::granted(&["a1"]);
        bench.join("b1");
        bench.member("a1").leaving = leaving;
        bench.write();
        bench.later(10);
        bench.write();
        assert_eq!(bench.going(), if leaving { 256 } else { 128 });
        bench.member("b1").life = life;
        bench.join("c1");
        bench.write();
        let next = bench.table.shards.iter().flat_map(|row| &row.next);
        assert_eq!(next.filter(|next| **next == name("c1")).count(), if leaving { 256 } else { 0 });
    }
    // While the owner releases: whoever has fewest once it has acknowledged, the old owner too.
    for (leaving, heir) in [(false, "a1"), (true, "c1")] {
        let mut bench = Bench::granted(&["a1"]);
        bench.join("b1");
        bench.member("a1").leaving = true;
        bench.write();
        bench.obey("b1");
        bench.write();
        assert!(bench.table.shards.iter().all(|row| row.releasing));
        bench.member("b1").life = Life::Lost;
        bench.rests();
        bench.member("b1").life = Life::Dead;
        bench.member("a1").leaving = leaving;
        if leaving {
            bench.join("c1");
        }
        let before = bench.table.counter;
        bench.write();
        assert!(bench.table.shards.iter().all(|row| row.releasing && row.next.is_none() && row.epoch > before));
        bench.obey("a1");
        bench.write();
        assert_eq!(bench.counts(), [(heir, 256)]);
    }
}

#[test]
fn who_dies_as_owner_leaves_the_row_to_the_next() {
    let mut bench = Bench::granted(&["a1", "b1"]);
    bench.join("c1");
    bench.later(10);
    bench.write();
    bench.later(10);
    bench.write();
    let next: Vec<_> = bench.table.shards.iter().map(|row| row.next.clone()).collect();
    assert_eq!(bench.going(), 85);
    bench.member("a1").life = Life::Dead;
    bench.write();
    let going = bench.table.shards.iter().filter(|row| row.destination() == Some(&name("c1"))).count();
    assert_eq!(going, 128);
    for (shard, next) in next.iter().enumerate().filter(|(_, next)| next.is_some()) {
        let row = &bench.table.shards[shard];
        assert!(row.owner == *next || row.next == *next, "{row:?}");
    }
}

#[test]
fn a_leaver_that_is_alone_keeps_its_rows() {
    let mut bench = Bench::granted(&["a1"]);
    bench.member("a1").leaving = true;
    bench.rests();
    bench.join("b1");
    bench.member("b1").report.table = None;
    bench.write();
    assert_eq!((bench.going(), bench.table.members.len()), (0, 2));
}

#[test]
fn moves_for_balance_wait_for_calm_and_are_as_few_as_can_be() {
    let mut bench = Bench::granted(&["a1", "b1"]);
    bench.join("c1");
    let plan = bench.write();
    assert_eq!((bench.going(), plan.settling), (0, true));
    assert_eq!(plan.look_again, Some(bench.now + Duration::from_secs(10)));
    // Each change starts the wait anew.
    bench.later(9);
    bench.join("d1");
    bench.write();
    bench.later(9);
    bench.rests();
    bench.later(1);
    bench.write();
    assert_eq!(bench.going(), 128);
    let writes = bench.run();
    assert_eq!(bench.counts(), [("a1", 64), ("b1", 64), ("c1", 64), ("d1", 64)]);
    assert!(writes <= 3, "{writes}");
    // At most a minute, however restless.
    let mut bench = Bench::granted(&["a1"]);
    for second in 0..=55 {
        if second % 5 == 0 {
            bench.join(&format!("m{}1", char::from(b'a' + second / 5)));
            bench.write();
        }
        assert_eq!(bench.going(), 0, "{second}");
        bench.later(1);
    }
    bench.later(3);
    bench.join("n1");
    bench.write();
    assert_eq!(bench.going(), 0);
    bench.later(1);
    bench.write();
    assert!(bench.going() > 200);
}

#[test]
fn one_member_more_or_less_moves_its_share() {
    for count in 1..8 {
        let names: Vec<String> = (0..count).map(|member| format!("m{member}x")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut bench = Bench::granted(&names);
        bench.join("new1");
        bench.later(1);
        bench.write();
        bench.later(10);
        let mut writes = usize::from(bench.write().write.is_some());
        assert_eq!(bench.going(), 256 / (count + 1));
        writes += bench.run();
        assert!(writes <= 4, "{writes}");
        // And away again.
        bench.member("new1").leaving = true;
        bench.write();
        assert_eq!(bench.going(), 256 / (count + 1));
        bench.run();
        bench.member("new1").life = Life::Dead;
        bench.later(20);
        bench.run();
        assert!(
            bench.counts().iter().all(|(_, shards)| 256 / count <= *shards && *shards <= 256_usize.div_ceil(count))
        );
    }
}

#[test]
fn a_rolling_restart_with_one_surge_moves_each_shard_once() {
    for pace in [2, 8, 15] {
        let mut bench = Bench::granted(&["a1", "b1", "c1"]);
        bench.later(100);
        let mut moved = 0;
        for (old, new) in [("a1", "d1"), ("b1", "e1"), ("c1", "f1")] {
            bench.join(new);
            bench.later(2);
            let before = bench.table.clone();
            bench.run();
            bench.member(old).leaving = true;
            bench.run();
            moved += before.shards.iter().zip(&bench.table.shards).filter(|(old, new)| old.owner != new.owner).count();
            bench.later(1);
            bench.member(old).life = Life::Dead;
            bench.run();
            bench.later(pace);
        }
        let before = bench.table.clone();
        bench.later(100);
        bench.run();
        moved += before.shards.iter().zip(&bench.table.shards).filter(|(old, new)| old.owner != new.owner).count();
        assert!((256..=260).contains(&moved), "{moved} at a pace of {pace}");
    }
}

#[test]
fn who_crashes_again_and_again_gets_nothing_while_others_can() {
    let mut bench = Bench::granted(&["a1", "b1"]);
    bench.later(100);
    bench.member("b1").life = Life::Dead;
    bench.write();
    for (restart, pause) in [(2, 20), (3, 40), (4, 80)] {
        let member = format!("b{restart}");
        bench.join(&member);
        let until = bench.now + Duration::from_secs(pause);
        let plan = bench.write();
        let told = [Notice::MemberJoined(name(&member)), Notice::CrashLoop("b".into(), until)];
        assert_eq!((plan.notices, plan.look_again), (told.to_vec(), Some(until)));
        bench.later(pause - 1);
        bench.run();
        assert_eq!(bench.counts(), [("a1", 256)]);
        bench.later(1);
        bench.run();
        assert_eq!(bench.counts().len(), 2, "{member}");
        bench.later(1);
        bench.member(&member).life = Life::Dead;
        bench.write();
    }
    // Better it than nobody.
    bench.join("b5");
    bench.member("a1").life = Life::Dead;
    bench.write();
    assert_eq!(bench.counts(), [("b5", 256)]);
    // A second process of the same base isn't a restart, and one that left in order didn't crash.
    let mut bench = Bench::granted(&["a1", "b1"]);
    bench.join("b2");
    assert_eq!(bench.write().notices, [Notice::MemberJoined(name("b2"))]);
    bench.member("b2").leaving = true;
    bench.run();
    bench.member("b2").life = Life::Dead;
    bench.write();
    bench.members.remove(&name("b2"));
    bench.join("b3");
    assert_eq!(bench.write().notices, [Notice::MemberJoined(name("b3"))]);
    // What is long ago is forgotten.
    bench.member("b3").life = Life::Dead;
    bench.write();
    bench.later(600);
    bench.join("b4");
    assert_eq!(bench.write().notices, [Notice::MemberJoined(name("b4"))]);
}

#[test]
fn a_row_that_loses_owner_after_owner_is_told_of_once() {
    let mut bench = Bench::granted(&["a1", "b1"]);
    bench.planner = Planner::new(Settings { pause: Duration::ZERO, ..Settings::default() });
    bench.write();
    let mut told = 0;
    for death in 1..=4 {
        let victim = bench.owner(0).to_owned();
        bench.later(60);
        bench.member(&victim).life = Life::Dead;
        let plan = bench.write();
        assert_eq!(bench.table.shards[0].forced, death);
        told += plan.notices.iter().filter(|notice| **notice == Notice::Poisoned(RowId::Shard(0))).count();
        assert_eq!(told, usize::from(death >= 3));
        bench.join(&format!("x{death}"));
        bench.write();
    }
    // After ten minutes without a death it is a row like any other.
    bench.later(600);
    let victim = bench.owner(0).to_owned();
    bench.member(&victim).life = Life::Dead;
    bench.write();
    assert_eq!(bench.table.shards[0].forced, 1);
    bench.join("y1");
    bench.later(600);
    let victim = bench.owner(0).to_owned();
    bench.member(&victim).leaving = true;
    bench.run();
    assert_eq!(bench.table.shards[0].forced, 0);
}

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
