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

    pub(super) fn list(&mut self, at: usize) {
        if !self.reaches(at) {
            return;
        }
        let (now, member) = (self.now, &mut self.members[at]);
        let table = member.table.and_then(|version| self.tables[version].as_ref());
        let expected = table.map(|(_, table)| table.names()).unwrap_or_default();
        let seen = self.leases.iter().map(|(name, lease)| (name.clone(), lease.seen())).collect();
        member.observer.listed(now, &seen, &expected);
        member.leases = self.leases.clone();
        let read = member.table.is_some();
        member.listed_under = if read { Under::of(table) } else { Under::NeverRead };
    }

    /// Takes what it believes to be lost, and removes what nobody needs.
    pub(super) fn take(&mut self, at: usize) {
        if !self.reaches(at) {
            return;
        }
        let (now, member) = (self.now, &mut self.members[at]);
        let table = member.table.and_then(|version| self.tables[version].as_ref());
        let named = table.map(|(_, table)| table.names()).unwrap_or_default();
        let known: BTreeSet<MemberName> = named.iter().chain(member.leases.keys()).cloned().collect();
        let lost: Vec<_> = known.iter().filter(|name| member.observer.life(now, name) == Life::Lost).collect();
        for name in lost {
            let mut lease = match (self.leases.get(name), member.leases.get(name)) {
                (None, _) if member.observer.is_missing(name) => Lease::missing(),
                (Some(lease), Some(seen)) if lease.version == seen.version => lease.clone(),
                _ => continue,
            };
            self.version += 1;
            lease.version = self.version;
            lease.holder = member.name.to_string();
            member.observer.saw(now, name, Some(lease.seen()));
            member.leases.insert(name.clone(), lease.clone());
            self.leases.insert(name.clone(), lease);
        }
        for name in member.observer.deletable(now, &named) {
            self.leases.remove(&name);
            member.observer.saw(now, &name, None);
        }
    }

    /// Plans as if it led, and writes. Tells whether a table was written.
    pub(super) fn plan(&mut self, at: usize) -> bool {
        if !self.reaches(at) {
            return false;
        }
        let now = self.now;
        let Some(version) = self.members[at].table else { return false };
        let members = self.members_seen(at);
        let member = &mut self.members[at];
        let known = self.tables[version].clone();
        if member.listed_under != Under::of(known.as_ref()) {
            return false;
        }
        let view = View {
            installation: &self.installation,
            table: known.as_ref().map(|(uid, table)| (uid, table)),
            members: &members,
            controllers: &self.controllers,
            controllers_known: true,
            knows_all_from: member.observer.knows_all_from(now),
            me: &member.name,
            now,
            wall_secs: self.wall_secs + now.as_secs(),
        };
        let plan = member.planner.plan(&view);
        let Some(table) = plan.write else { return false };
        let uid = known.as_ref().map(|(uid, _)| uid.clone());
        if let Some((uid, _)) = &known {
            let again = View { table: Some((uid, &table)), ..view };
            let more = member.planner.clone().plan(&again);
            assert_eq!(more.write, None, "planning over its own output changes it");
        }
        // A table is made where there is none, however long ago that was seen to be so.
        let unchanged = if known.is_some() { version + 1 == self.tables.len() } else { self.table().is_none() };
        if !unchanged || !self.kind_exists {
            return false;
        }
        self.made += u64::from(uid.is_none());
        let uid = uid.unwrap_or_else(|| Uid::new(&format!("t{}", self.made)));
        check_step(known.as_ref().map(|(_, table)| table), &table);
        self.tables.push(Some((uid, table)));
        self.writes += 1;
        self.notices.extend(plan.notices);
        true
    }

    /// Reads, and perhaps takes, the sharder's Lease.
    pub(super) fn campaign(&mut self, at: usize) {
        if !self.reaches(at) {
            return;
        }
        let (now, member) = (self.now, &mut self.members[at]);
        if self.sharder.as_ref().is_none_or(|name| member.observer.life(now, name) != Life::Live) {
            self.sharder = Some(member.name.clone());
        }
        member.leads = self.sharder.as_ref() == Some(&member.name);
    }

    /// Works alone where there are no tables, as far as it may by what it believes.
    pub(super) fn go_alone(&mut self, at: usize) {
        if !self.acts(at) {
            return;
        }
        let (now, members) = (self.now, self.members_seen(at));
        let member = &mut self.members[at];
        let wholes: BTreeMap<_, _> = self
            .controllers
            .iter()
            .map(|(name, declared)| (name.clone(), Declared { mode: Mode::Whole, ..declared.clone() }))
            .collect();
        let me = member.name.clone();
        let view = View {
            installation: &self.installation,
            table: None,
            members: &members,
            controllers: &wholes,
            controllers_known: true,
            knows_all_from: member.observer.knows_all_from(now),
            me: &me,
            now,
            wall_secs: self.wall_secs + now.as_secs(),
        };
        let report = member.duty.report();
        let uid = Uid::new(alone::ALONE);
        let orders = match &mut member.own {
            None if member.leads && report.table == Some(Uid::new(NO_TABLE)) && alone::may_claim(&view) => {
                let table = alone::table(&view);
                let orders = member.duty.see(&uid, &table);
                member.own = Some((table, Planner::new(SETTINGS)));
                orders
            }
            Some(_) if !member.leads => {
                member.own = None;
                member.duty.see_none()
            }
            Some((table, planner)) if alone::may_begin(&view) => {
                let mut only = members[&me].clone();
                only.report = report;
                let only = BTreeMap::from([(me.clone(), only)]);
                let plan = planner.plan(&View { table: Some((&uid, table)), members: &only, ..view });
                *table = plan.write.unwrap_or_else(|| table.clone());
                member.duty.see(&uid, table)
            }
            _ => return,
        };
        self.obey(at, orders);
    }

    fn members_seen(&self, at: usize) -> BTreeMap<MemberName, MemberView> {
        let member = &self.members[at];
        let view = |name: &MemberName| {
            let missing = Lease::missing();
            let lease = member.leases.get(name).unwrap_or(&missing);
            let view = MemberView {
                life: member.observer.life(self.now, name),
                report: lease.report.clone(),
                leaving: lease.leaving,
                base: Arc::clone(&lease.base),
            };
            (name.clone(), view)
        };
        member.observer.names().map(view).collect()
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

    /// Nobody works on what another works on.
    pub(super) fn check(&self) {
        let mut running: BTreeMap<RowId, (&MemberName, Mode)> = BTreeMap::new();
        let mut sharers: BTreeMap<String, BTreeSet<(&Uid, Mode)>> = BTreeMap::new();
        for at in (0..self.members.len()).filter(|at| self.may_work(*at)) {
            let member = &self.members[at];
            for (id, (_, mode)) in &member.runs {
                if let RowId::Controller(uid) = id {
                    sharers.entry(controller_of(uid)).or_default().insert((uid, *mode));
                }
                if *mode == Mode::Sharded {
                    continue;
                }
                if let Some((other, _)) = running.insert(id.clone(), (&member.name, *mode)) {
                    panic!("{other} and {} both work on {id:?}", member.name);
                }
            }
        }
        for (name, how) in sharers {
            assert!(how.len() == 1, "{name} runs as {how:?}");
        }
    }

    /// What must be true once faults are over for long enough.
    pub(super) fn check_settled(&self) {
        let (_, table) = self.table().expect("there is a table");
        let able: BTreeSet<&MemberName> =
            (0..self.members.len()).filter(|at| self.may_work(*at)).map(|at| &self.members[at].name).collect();
        assert_eq!(table.members.iter().collect::<BTreeSet<_>>(), able, "members");
        let wholes = table.controllers.values().filter(|row| row.mode == Mode::Whole);
        let shards = (0..=u8::MAX).map(RowId::Shard).zip(&table.shards);
        let wholes = wholes.map(|row| (RowId::Controller(row.uid.clone()), &row.row));
        for rows in [shards.collect::<Vec<_>>(), wholes.collect()] {
            let mut counts: BTreeMap<&MemberName, usize> = able.iter().map(|name| (*name, 0)).collect();
            for (id, row) in rows {
                let owner = row.owner.as_ref().expect("every row has an owner");
                *counts.get_mut(owner).unwrap_or_else(|| panic!("{owner} has {id:?}")) += 1;
                assert!(row.next.is_none() && !row.releasing, "{id:?} is at rest: {row:?}");
                let member = self.members.iter().find(|member| member.name == *owner).expect("known");
                assert_eq!(member.runs.get(&id), Some(&(row.epoch, Mode::Whole)), "{owner} works on {id:?}");
            }
            let (least, most) = (counts.values().min().copied(), counts.values().max().copied());
            assert!(most.unwrap_or(0) <= least.unwrap_or(0) + 1, "balance: {counts:?}");
        }
        assert_eq!(table.controllers.keys().collect::<Vec<_>>(), self.controllers.keys().collect::<Vec<_>>());
        for (name, row) in &table.controllers {
            assert_eq!((&row.uid, row.mode, row.becoming), {
                let declared = &self.controllers[name];
                (&declared.uid, declared.mode, None)
            });
            for member in self.members.iter().filter(|member| able.contains(&member.name)) {
                let mine = row.mode == Mode::Sharded || row.row.owner.as_ref() == Some(&member.name);
                assert_eq!(
                    member.duty.running(&RowId::Controller(row.uid.clone())).map(|(mode, _)| mode),
                    mine.then_some(row.mode),
                    "{name:?} at {}",
                    member.name
                );
            }
        }
    }
}

/// What must be true of every write of the table.
fn check_step(before: Option<&Table>, after: &Table) {
    let Some(before) = before else { return };
    assert!(before.counter <= after.counter);
    for (id, row) in (0..=u8::MAX).map(RowId::Shard).zip(&after.shards) {
        let old = before.row(&id).expect("all shards have rows");
        assert!(old == row || (row.epoch > before.counter && row.epoch <= after.counter), "{id:?}: {old:?} to {row:?}");
    }
    assert!(after.shards.iter().all(|row| row.owner.is_some() || row.next.is_none()));
}

/// Declares `name` in `mode`, as its `generation`th object.
pub(super) fn declared(name: &str, generation: u8, mode: Mode) -> (ControllerName, Declared) {
    let key = ControllerName { group: "g".into(), name: name.into() };
    (key, Declared { uid: Uid::new(&format!("{name}-{generation}")), mode })
}

/// Of which controller [`declared`] made this uid.
fn controller_of(uid: &Uid) -> String {
    uid.to_string().split('-').next().unwrap_or_default().to_owned()
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
