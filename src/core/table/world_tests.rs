//! A world of members around one table and their Leases, for tests: every step that a shell would take is a function.
//!
//! Its clock is perfect and its API server is consistent; what members know of it may be as old as a test likes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::calm::Settings;
use super::duty::{Do, Done, Duty};
use super::plan::{Declared, MemberView, Notice, Planner, View};
use super::{ControllerName, Mode, NO_TABLE, Report, RowId, Table, alone};
use crate::key::{Epoch, MemberName, Uid, Version};
use crate::lease::{Life, Observer, Renewal, Right, Seen, Terms};

mod checks;
mod sharder;

pub(super) const TERMS: Terms = Terms {
    duration: Duration::from_secs(15),
    renew_deadline: Duration::from_secs(10),
    retry_period: Duration::from_secs(2),
};

/// The real ones, but for a shorter memory, so that tests needn't wait ten minutes.
pub(super) const SETTINGS: Settings = Settings {
    quiet: Duration::from_secs(10),
    quiet_at_most: Duration::from_secs(60),
    window: Duration::from_secs(60),
    pause: Duration::from_secs(1),
};

#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) holder: String,
    version: u64,
    renewed: String,
    report: Report,
    leaving: bool,
    base: Arc<str>,
}

#[derive(Debug)]
pub(super) struct Member {
    pub(super) name: MemberName,
    pub(super) duty: Duty,
    planner: Planner,
    observer: Observer,
    right: Right,
    /// The process is there.
    pub(super) alive: bool,
    /// It does nothing at all.
    pub(super) paused: bool,
    /// It doesn't reach the API server.
    pub(super) cut: bool,
    pub(super) leaving: bool,
    stops: bool,
    /// The version of the table that it plans over.
    table: Option<usize>,
    leases: BTreeMap<MemberName, Lease>,
    /// What it knew of the table when it began its last list: its uid, or that there is none.
    listed_under: Under,
    todo: Vec<Do>,
    /// It believes to lead, as far as that matters: where there are no tables.
    leads: bool,
    /// Its own table, and the planner over it.
    own: Option<(Table, Planner)>,
    pub(super) runs: BTreeMap<RowId, (Epoch, Mode)>,
}

#[derive(Debug)]
pub(super) struct World {
    pub(super) now: Duration,
    installation: Arc<str>,
    /// Every state that the table's object was in; the last is the present one.
    tables: Vec<Option<(Uid, Table)>>,
    made: u64,
    pub(super) kind_exists: bool,
    /// Whom the sharder's Lease names.
    sharder: Option<MemberName>,
    pub(super) leases: BTreeMap<MemberName, Lease>,
    version: u64,
    pub(super) members: Vec<Member>,
    pub(super) controllers: BTreeMap<ControllerName, Declared>,
    /// The highest epoch under which each shard and each whole was ever worked on.
    epochs: BTreeMap<RowId, Epoch>,
    pub(super) writes: usize,
    /// Shards that somebody began to work on.
    pub(super) starts: usize,
    pub(super) notices: Vec<Notice>,
    wall_secs: u64,
}

impl World {
    pub(super) fn new() -> Self {
        Self {
            now: Duration::from_secs(1000),
            installation: "i".into(),
            tables: vec![None],
            made: 0,
            kind_exists: true,
            sharder: None,
            leases: BTreeMap::new(),
            version: 1,
            members: Vec::new(),
            controllers: BTreeMap::new(),
            epochs: BTreeMap::new(),
            writes: 0,
            starts: 0,
            notices: Vec::new(),
            wall_secs: 1_700_000_000,
        }
    }

    pub(super) fn table(&self) -> Option<&(Uid, Table)> {
        self.tables.last().and_then(Option::as_ref)
    }

    pub(super) fn tick(&mut self, time: Duration) {
        self.now += time;
    }

    pub(super) fn join(&mut self, base: &str) -> usize {
        let name = MemberName::new(&format!("{base}-{}", self.members.len()));
        self.members.push(Member {
            name: name.clone(),
            duty: Duty::new(name.clone()),
            planner: Planner::new(SETTINGS),
            observer: Observer::new(TERMS),
            right: Right::new(TERMS),
            alive: true,
            paused: false,
            cut: false,
            leaving: false,
            stops: false,
            table: None,
            leases: BTreeMap::new(),
            listed_under: Under::NeverRead,
            todo: Vec::new(),
            leads: false,
            own: None,
            runs: BTreeMap::new(),
        });
        let at = self.members.len() - 1;
        self.version += 1;
        let lease = Lease {
            holder: name.to_string(),
            version: self.version,
            renewed: String::new(),
            report: Report::default(),
            leaving: false,
            base: base.into(),
        };
        self.leases.insert(name, lease);
        self.renew(at, false);
        at
    }

    fn acts(&self, at: usize) -> bool {
        self.members.get(at).is_some_and(|member| member.alive && !member.paused)
    }

    fn reaches(&self, at: usize) -> bool {
        self.acts(at) && !self.members[at].cut
    }

    /// Whether the guard lets its work pass, now or once it goes on.
    pub(super) fn may_work(&self, at: usize) -> bool {
        self.members[at].alive && self.members[at].right.holds(self.now)
    }

    /// A renewal, with the report; `lost`: without its answer.
    pub(super) fn renew(&mut self, at: usize, lost: bool) {
        if !self.reaches(at) {
            return;
        }
        let (now, member) = (self.now, &mut self.members[at]);
        let Some(lease) = self.leases.get_mut(&member.name).filter(|lease| lease.holder == member.name.as_str()) else {
            member.alive = false;
            return;
        };
        member.right.read_back(&lease.renewed);
        self.version += 1;
        let renewed = format!("r{}", self.version);
        member.right.sent(now, &renewed);
        lease.version = self.version;
        lease.renewed.clone_from(&renewed);
        lease.report = member.duty.report();
        lease.leaving = member.leaving;
        member.right.answered(&renewed, if lost { Renewal::Unknown } else { Renewal::Done });
    }

    /// The table as it was `lag` versions ago arrives.
    pub(super) fn see(&mut self, at: usize, lag: usize) {
        if !self.reaches(at) {
            return;
        }
        let version = self.tables.len() - 1 - lag.min(self.tables.len() - 1);
        let member = &mut self.members[at];
        member.table = Some(version);
        if let Some((uid, table)) = &self.tables[version] {
            member.own = None;
            let orders = member.duty.see(uid, table);
            self.obey(at, orders);
        }
    }

    /// A live read of the kind of tables.
    pub(super) fn see_kind(&mut self, at: usize) {
        if self.reaches(at) && !self.kind_exists && self.members[at].own.is_none() {
            let orders = self.members[at].duty.see_none();
            self.obey(at, orders);
        }
    }

    fn obey(&mut self, at: usize, orders: Vec<Do>) {
        let works = self.may_work(at);
        for order in orders {
            match order {
                Do::Start(id, epoch) => {
                    self.starts += usize::from(matches!(id, RowId::Shard(_)));
                    let known = self.members[at].runs.insert(id.clone(), (epoch, Mode::Whole));
                    assert_eq!(known, None, "{id:?} is started twice");
                    self.note_epoch(works, &id, epoch);
                }
                Do::Share(uid, epoch) => {
                    let known = self.members[at].runs.insert(RowId::Controller(uid), (epoch, Mode::Sharded));
                    assert_eq!(known, None, "shared twice");
                }
                Do::Epoch(id, epoch) => {
                    let run = self.members[at].runs.get_mut(&id).expect("only what runs gets a new epoch");
                    assert!(run.0 < epoch, "{id:?} goes from {run:?} to {epoch}");
                    run.0 = epoch;
                    if run.1 == Mode::Whole {
                        self.note_epoch(works, &id, epoch);
                    }
                }
                Do::Cool(id) => {
                    self.members[at].todo.retain(|order| !matches!(order, Do::Warm(warm, _) if *warm == id));
                }
                Do::Warm(..) | Do::Release(..) | Do::Label(..) => self.members[at].todo.push(order),
            }
        }
    }

    fn note_epoch(&mut self, works: bool, id: &RowId, epoch: Epoch) {
        let last = self.epochs.entry(id.clone()).or_default();
        assert!(!works || *last <= epoch, "{id:?} is worked on under {epoch} after {last}");
        *last = (*last).max(epoch);
    }

    /// The member finishes one thing, or all.
    pub(super) fn work(&mut self, at: usize, which: Option<usize>) {
        while self.acts(at) && !self.members[at].todo.is_empty() {
            let member = &mut self.members[at];
            let order = member.todo.remove(which.unwrap_or(0) % member.todo.len());
            let done = match order {
                Do::Warm(id, epoch) => Done::Warm(id, epoch),
                Do::Label(uid, epoch) => Done::Labelled(uid, epoch),
                Do::Release(id, epoch) => {
                    assert!(member.runs.remove(&id).is_some(), "{id:?} is released but wasn't run");
                    Done::Released(id, epoch)
                }
                other => panic!("{other:?} takes no time"),
            };
            let orders = member.duty.done(done);
            self.obey(at, orders);
            if which.is_some() {
                return;
            }
        }
    }

    /// The process is told to end; it goes once nothing works any more, or at once if `hasty`.
    pub(super) fn leave(&mut self, at: usize, hasty: bool) {
        if !self.acts(at) {
            return;
        }
        self.members[at].leaving = true;
        if hasty || self.table().is_none_or(|(_, table)| !owns(table, &self.members[at].name)) {
            self.members[at].stops = true;
        }
        if self.members[at].stops {
            let orders = self.members[at].duty.stop();
            self.obey(at, orders);
            self.exit(at);
        }
    }

    fn exit(&mut self, at: usize) {
        let member = &mut self.members[at];
        if member.stops && member.duty.is_idle() && self.reaches(at) {
            let member = &mut self.members[at];
            member.alive = false;
            assert!(member.runs.is_empty(), "{member:?} is idle and runs");
            if let Some(lease) = self.leases.get_mut(&member.name).filter(|lease| lease.holder == member.name.as_str())
            {
                self.version += 1;
                lease.version = self.version;
                lease.holder = String::new();
                lease.leaving = true;
            }
        }
    }

    pub(super) fn delete_table(&mut self) {
        if self.table().is_some() {
            self.tables.push(None);
        }
    }

    /// A Lease is deleted by hand; but not the last one that tells that there is, or was, a table.
    pub(super) fn delete_lease(&mut self, at: usize) {
        let name = &self.members[at].name;
        if self.leases.iter().any(|(other, lease)| other != name && lease.report.highest > Epoch::default()) {
            self.leases.remove(name);
        }
    }

    /// All that a member does in a retry period; an idle one finishes nothing, a timid one takes no Lease.
    pub(super) fn round(&mut self, at: usize, leads: bool, idle: bool, timid: bool) {
        self.see_kind(at);
        self.see(at, 0);
        self.renew(at, false);
        self.list(at);
        if self.acts(at) && self.members[at].leaving {
            self.leave(at, false);
        }
        if !timid {
            self.take(at);
        }
        if leads {
            self.campaign(at);
            self.plan(at);
            self.go_alone(at);
        }
        // Last, so that all that takes time still goes on when the Lease is written.
        if !idle {
            self.work(at, None);
        }
    }

    /// A second in which all is well.
    pub(super) fn second(&mut self) {
        self.odd_second(0, 0);
    }

    /// A second in which some members are idle and some timid: a bit for each.
    pub(super) fn odd_second(&mut self, idle: u8, timid: u8) {
        self.tick(Duration::from_millis(500));
        for at in 0..self.members.len() {
            let among = |bits: u8| bits >> (at % 8) & 1 == 1;
            self.round(at, true, among(idle), among(timid));
            self.check();
        }
        self.tick(Duration::from_millis(500));
    }
}

/// Declares `name` in `mode`, as its `generation`th object.
pub(super) fn declared(name: &str, generation: u8, mode: Mode) -> (ControllerName, Declared) {
    let key = ControllerName { group: "g".into(), name: name.into() };
    (key, Declared { uid: Uid::new(&format!("{name}-{generation}")), mode })
}

fn owns(table: &Table, name: &MemberName) -> bool {
    let rows = table.shards.iter().chain(table.controllers.values().map(|row| &row.row));
    rows.into_iter().any(|row| row.owner.as_ref() == Some(name))
}

#[derive(Debug, PartialEq, Eq)]
enum Under {
    NeverRead,
    NoTable,
    Table(Uid),
}

impl Under {
    fn of(table: Option<&(Uid, Table)>) -> Self {
        table.map_or(Self::NoTable, |(uid, _)| Self::Table(uid.clone()))
    }
}

impl Lease {
    fn seen(&self) -> Seen {
        Seen {
            holder: self.holder.clone(),
            version: Version(self.version),
            duration: TERMS.duration,
            renewed: self.renewed.clone(),
        }
    }

    /// What is made for a member whose Lease is gone.
    fn missing() -> Self {
        Self {
            holder: String::new(),
            version: 0,
            renewed: String::new(),
            report: Report::default(),
            leaving: false,
            base: "gone".into(),
        }
    }
}
