//! Cases for the sharder's plans.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::calm::Settings;
use super::plan::{Declared, MemberView, Notice, Plan, Planner, View};
use super::{Becoming, ControllerName, ControllerRow, Mode, NO_TABLE, Row, RowId, Table};
use crate::key::{Epoch, MemberName, Uid};
use crate::lease::Life;

mod controllers;
mod moves;
mod rows;
mod start;

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
