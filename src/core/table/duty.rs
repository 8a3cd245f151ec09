//! Duty: what one member does about each row, by the newest table that it saw.
//!
//! The shell obeys each [`Do`] and tells what is [`Done`]; this decides what follows, and what the member's Lease says.
//! Never judges whether the member may work at all: that right ends with its Lease, whatever its duty is.
//!
//! ```text
//!   idle --Warm--> warming --Done::Warm--> warm      next is this member
//!   idle | warm --Start--> running                    the owner is this member
//!   running --Release--> releasing --Done::Released--> idle
//! ```

use std::collections::BTreeMap;

use super::{Becoming, ControllerRow, Mode, NO_TABLE, POISONED_AT, Report, Row, RowId, Table};
use crate::key::{Epoch, MemberName, Uid};
use crate::shards::Shards;

/// What the shell is to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Do {
    /// Fill the cache with the row's objects. Said again, with a newer epoch, for a row that may be warm already.
    Warm(RowId, Epoch),
    /// Forget what was warmed: this member isn't to be the row's owner.
    Cool(RowId),
    /// Work on a shard, or on a whole.
    Start(RowId, Epoch),
    /// Work on a controller that is sharded, as far as the shards that are started go.
    Share(Uid, Epoch),
    /// Go on with a started row under a newer epoch. Labelling ends unless it is said anew.
    Epoch(RowId, Epoch),
    /// Stop working on a row that was started or shared, wait until all of its work is over, and tell.
    Release(RowId, Epoch),
    /// Give all objects of this whole, which goes on, their labels.
    Label(Uid, Epoch),
}

/// What the shell did. One that answers an older [`Do`] changes nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Done {
    /// The row's objects are in the cache.
    Warm(RowId, Epoch),
    /// Nothing works on the row any more, and nothing that did can still have an effect.
    Released(RowId, Epoch),
    /// All objects of the controller have their labels.
    Labelled(Uid, Epoch),
}

/// What this member does about each row.
#[derive(Clone, Debug)]
pub struct Duty {
    me: MemberName,
    /// The newest that was seen.
    news: News,
    /// What [`Report::table`] says: everything here is done under it.
    goes_by: Option<Uid>,
    /// The highest epoch that was seen.
    highest: Epoch,
    /// What is done about rows; nothing about those that aren't here.
    work: BTreeMap<RowId, Work>,
    /// The last epoch under which each row was given up here; only a newer one starts it again.
    given_up: BTreeMap<RowId, Epoch>,
    stopping: bool,
}

#[derive(Clone, Debug)]
enum News {
    /// Nothing yet.
    Silence,
    /// There is no kind of tables.
    NoKind,
    Table(Uid, Table),
}

/// What is done about a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Work {
    Warming(Epoch),
    Warm(Epoch),
    Running { epoch: Epoch, mode: Mode, labels: Labels },
    Releasing(Epoch),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Labels {
    NotAsked,
    Asked(Epoch),
    Given(Epoch),
}

/// What the table wants of this member for a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Want {
    Nothing,
    /// `settled`: the owner is already giving the row up, so what is warm stays warm whatever the row's epoch.
    Warm {
        epoch: Epoch,
        settled: bool,
    },
    Run {
        epoch: Epoch,
        mode: Mode,
        label: bool,
    },
}

impl Duty {
    /// A member's that saw no table yet.
    #[must_use]
    pub fn new(me: MemberName) -> Self {
        Self {
            me,
            news: News::Silence,
            goes_by: None,
            highest: Epoch::default(),
            work: BTreeMap::new(),
            given_up: BTreeMap::new(),
            stopping: false,
        }
    }

    /// A table with a right checksum was seen. One that isn't newer than all that was seen changes nothing.
    ///
    /// Tables of different uids are told apart by their counters too: a new one starts above what members have seen.
    pub fn see(&mut self, uid: &Uid, table: &Table) -> Vec<Do> {
        if table.counter <= self.highest {
            return Vec::new();
        }
        self.highest = table.counter;
        self.news = News::Table(uid.clone(), table.clone());
        self.given_up.retain(|row, _| table.row(row).is_some());
        self.follow()
    }

    /// The kind of tables doesn't exist, as the API server itself says: everything stops, and then the report says so.
    pub fn see_none(&mut self) -> Vec<Do> {
        self.news = News::NoKind;
        self.follow()
    }

    /// The shell did something.
    pub fn done(&mut self, done: Done) -> Vec<Do> {
        match done {
            Done::Warm(row, epoch) => {
                if self.work.get(&row) == Some(&Work::Warming(epoch)) {
                    self.work.insert(row, Work::Warm(epoch));
                }
            }
            Done::Released(row, epoch) => {
                if self.work.get(&row) == Some(&Work::Releasing(epoch)) {
                    self.work.remove(&row);
                    return self.follow();
                }
            }
            Done::Labelled(uid, epoch) => {
                if let Some(Work::Running { labels, .. }) = self.work.get_mut(&RowId::Controller(uid))
                    && *labels == Labels::Asked(epoch)
                {
                    *labels = Labels::Given(epoch);
                }
            }
        }
        Vec::new()
    }

    /// The process ends: everything stops, and nothing starts any more.
    pub fn stop(&mut self) -> Vec<Do> {
        self.stopping = true;
        self.follow()
    }

    /// Whether nothing is done about any row.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.work.is_empty()
    }

    /// What belongs on the Lease now.
    #[must_use]
    pub fn report(&self) -> Report {
        let mut report = Report {
            table: self.goes_by.clone(),
            highest: self.highest,
            warm: BTreeMap::new(),
            released: BTreeMap::new(),
        };
        let News::Table(uid, table) = &self.news else {
            return report;
        };
        if self.goes_by.as_ref() != Some(uid) {
            return report;
        }
        for (shard, row) in (0..=u8::MAX).zip(&table.shards) {
            self.report_row(&mut report, RowId::Shard(shard), row);
        }
        for controller in table.controllers.values() {
            let id = RowId::Controller(controller.uid.clone());
            if controller.becoming.is_none() {
                self.report_row(&mut report, id, &controller.row);
            } else if controller.row.releasing {
                if !self.is_at_work(&id) {
                    report.released.insert(id, controller.row.epoch);
                }
            } else if let Some(Work::Running { labels, .. }) = self.work.get(&id)
                && *labels == Labels::Given(controller.row.epoch)
            {
                report.warm.insert(id, controller.row.epoch);
            }
        }
        report
    }

    fn report_row(&self, report: &mut Report, id: RowId, row: &Row) {
        let mine = |name: &Option<MemberName>| name.as_ref() == Some(&self.me);
        if row.releasing && mine(&row.owner) && !self.is_at_work(&id) {
            report.released.insert(id, row.epoch);
        } else if !row.releasing && mine(&row.next) && self.work.get(&id) == Some(&Work::Warm(row.epoch)) {
            report.warm.insert(id, row.epoch);
        }
    }

    /// Whether this member works on any whole.
    #[must_use]
    pub fn runs_wholes(&self) -> bool {
        let is_whole = |(id, work): (&RowId, &Work)| {
            matches!((id, work), (RowId::Controller(_), Work::Running { mode: Mode::Whole, .. }))
        };
        self.work.iter().any(is_whole)
    }

    /// The shards that are started here, and those that are warm or being warmed.
    #[must_use]
    pub fn shards(&self) -> (Shards, Shards) {
        let (mut running, mut warm) = (Shards::NONE, Shards::NONE);
        for (id, work) in &self.work {
            let RowId::Shard(shard) = id else { continue };
            match work {
                Work::Running { .. } => running.insert(*shard),
                Work::Warming(_) | Work::Warm(_) => warm.insert(*shard),
                Work::Releasing(_) => false,
            };
        }
        (running, warm)
    }

    /// How and under which epoch a row is worked on here. A shard is worked on as a whole.
    #[cfg(test)]
    pub(super) fn running(&self, row: &RowId) -> Option<(Mode, Epoch)> {
        match self.work.get(row)? {
            Work::Running { mode, epoch, .. } => Some((*mode, *epoch)),
            _ => None,
        }
    }

    /// Whether a row lost so many owners that its keys are to start with delays.
    #[must_use]
    pub fn is_poisoned(&self, row: &RowId) -> bool {
        let News::Table(_, table) = &self.news else { return false };
        table.row(row).is_some_and(|row| row.forced >= POISONED_AT)
    }

    fn is_at_work(&self, id: &RowId) -> bool {
        matches!(self.work.get(id), Some(Work::Running { .. } | Work::Releasing(_)))
    }

    /// Does what the newest table wants, as far as what still goes on here allows.
    fn follow(&mut self) -> Vec<Do> {
        let mut out = Vec::new();
        let target = match &self.news {
            News::Silence => None,
            News::NoKind => Some(Uid::new(NO_TABLE)),
            News::Table(uid, _) => Some(uid.clone()),
        };
        if self.goes_by != target {
            // Everything under the old one has to be over before this member says that it goes by the new one.
            let ids: Vec<RowId> = self.work.keys().cloned().collect();
            for id in ids {
                self.step(id, Want::Nothing, &mut out);
            }
            if !self.work.is_empty() {
                return out;
            }
            self.goes_by = target;
        }
        for (id, want) in self.wants() {
            self.step(id, want, &mut out);
        }
        out
    }

    /// What is wanted for each row that the table has, or that something is done about.
    fn wants(&self) -> BTreeMap<RowId, Want> {
        let mut wants: BTreeMap<RowId, Want> = self.work.keys().map(|id| (id.clone(), Want::Nothing)).collect();
        if let (News::Table(_, table), false) = (&self.news, self.stopping) {
            wants.extend((0..=u8::MAX).zip(&table.shards).map(|(shard, row)| (RowId::Shard(shard), self.want(row))));
            // A member that isn't counted on isn't asked when a controller closes, so it shares none.
            let counted = table.members.contains(&self.me);
            wants.extend(
                table
                    .controllers
                    .values()
                    .map(|row| (RowId::Controller(row.uid.clone()), self.want_controller(row, counted))),
            );
        }
        wants
    }

    fn want(&self, row: &Row) -> Want {
        let mine = |name: &Option<MemberName>| name.as_ref() == Some(&self.me);
        if mine(&row.owner) {
            if row.releasing { Want::Nothing } else { Want::Run { epoch: row.epoch, mode: Mode::Whole, label: false } }
        } else if mine(&row.next) {
            Want::Warm { epoch: row.epoch, settled: row.releasing }
        } else {
            Want::Nothing
        }
    }

    fn want_controller(&self, controller: &ControllerRow, counted: bool) -> Want {
        let (row, mode) = (&controller.row, controller.mode);
        match (controller.becoming, mode) {
            (Some(_), _) if row.releasing => Want::Nothing,
            (_, Mode::Sharded) if !counted => Want::Nothing,
            (_, Mode::Sharded) => Want::Run { epoch: row.epoch, mode, label: false },
            (becoming, Mode::Whole) => match self.want(row) {
                Want::Run { epoch, mode, .. } => Want::Run { epoch, mode, label: becoming == Some(Becoming::Sharded) },
                other => other,
            },
        }
    }

    /// One row's way towards what is wanted.
    fn step(&mut self, id: RowId, want: Want, out: &mut Vec<Do>) {
        let work = self.work.get(&id).copied();
        let next = match (work, want) {
            (Some(Work::Releasing(_)), _) | (None, Want::Nothing) => return,
            (Some(Work::Running { epoch: old, mode: runs, labels }), Want::Run { epoch, mode, label })
                if runs == mode =>
            {
                if old != epoch {
                    out.push(Do::Epoch(id.clone(), epoch));
                }
                Some(Work::Running { epoch, mode, labels: ask(&id, epoch, label, labels, out) })
            }
            (Some(Work::Running { epoch, .. }), _) => {
                let asked = self.table_epoch(&id).unwrap_or(epoch);
                self.given_up.insert(id.clone(), asked);
                out.push(Do::Release(id.clone(), asked));
                Some(Work::Releasing(asked))
            }
            (waiting, Want::Run { epoch, .. }) if self.given_up.get(&id).is_some_and(|old| epoch <= *old) => waiting,
            (_, Want::Run { epoch, mode, label }) => {
                out.push(match (&id, mode) {
                    (RowId::Controller(uid), Mode::Sharded) => Do::Share(uid.clone(), epoch),
                    _ => Do::Start(id.clone(), epoch),
                });
                Some(Work::Running { epoch, mode, labels: ask(&id, epoch, label, Labels::NotAsked, out) })
            }
            (Some(Work::Warming(_) | Work::Warm(_)), Want::Nothing) => {
                out.push(Do::Cool(id.clone()));
                None
            }
            (Some(warm), Want::Warm { settled: true, .. }) => Some(warm),
            (Some(Work::Warming(old) | Work::Warm(old)), Want::Warm { epoch, .. }) if old == epoch => return,
            (_, Want::Warm { epoch, .. }) => {
                out.push(Do::Warm(id.clone(), epoch));
                Some(Work::Warming(epoch))
            }
        };
        match next {
            Some(work) => self.work.insert(id, work),
            None => self.work.remove(&id),
        };
    }

    fn table_epoch(&self, id: &RowId) -> Option<Epoch> {
        let News::Table(uid, table) = &self.news else { return None };
        (self.goes_by.as_ref() == Some(uid)).then(|| table.row(id).map(|row| row.epoch)).flatten()
    }
}

/// Asks for labels, once an epoch.
fn ask(id: &RowId, epoch: Epoch, label: bool, labels: Labels, out: &mut Vec<Do>) -> Labels {
    let RowId::Controller(uid) = id else { return Labels::NotAsked };
    match labels {
        _ if !label => Labels::NotAsked,
        Labels::Asked(asked) | Labels::Given(asked) if asked == epoch => labels,
        _ => {
            out.push(Do::Label(uid.clone(), epoch));
            Labels::Asked(epoch)
        }
    }
}
