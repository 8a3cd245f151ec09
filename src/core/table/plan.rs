//! The sharder's plan: from what is seen, the next table.
//!
//! Takes every step that can be taken, in one table. Planning over its own output changes nothing. Never writes: the
//! shell does, by compare-and-swap on the very table that was planned over.
//!
//! What a view must be for its plans to be safe: `members` comes from a consistent list of the installation's Leases that
//! was begun after the table's uid, or that there is no table, was read (a watch may have brought it further since); a
//! member is dead in it only if its Lease was read so; `table` is one version of the object, and the write that follows
//! fails if there is a newer one.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::calm::{Calm, Settings};
use super::controllers::{self, Wish};
use super::roster::{Kind, Roster};
use super::{ControllerName, Mode, POISONED_AT, Report, RowId, Table, balance, handover};
use crate::key::{Epoch, MemberName, Uid};
use crate::lease::Life;

/// A new table's epochs begin so far above what members have published: they may have seen more since. It is what a
/// second of wall time counts, far above the number of rows that can change between two renewals.
pub const EPOCH_STEP: u64 = 1 << 20;

/// No epoch is above this: JSON numbers hold it, and a false report can't use them up.
pub const MAX_EPOCH: u64 = 1 << 52;

/// For how long a member may go by another table, at this one's very counter, before that is taken to hide this one.
pub const HIDDEN_AFTER: Duration = Duration::from_secs(10);

/// A member as the sharder sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberView {
    /// What its Lease shows of its life.
    pub life: Life,
    /// What it says on its Lease.
    pub report: Report,
    /// Its process is ending.
    pub leaving: bool,
    /// Its name without the random part.
    pub base: Arc<str>,
}

/// A controller that shall run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Declared {
    /// Its object's uid.
    pub uid: Uid,
    /// How its parents shall be divided.
    pub mode: Mode,
}

/// What the sharder sees.
#[derive(Clone, Copy, Debug)]
pub struct View<'a> {
    /// The uid of the namespace of the Leases.
    pub installation: &'a Arc<str>,
    /// The table, if its checksum is right; `None` if there is none and one is to be made.
    pub table: Option<(&'a Uid, &'a Table)>,
    /// All members whose Leases are there, or were seen or expected: [`crate::lease::Observer::names`]. One that the
    /// table names and that isn't here counts as lost.
    pub members: &'a BTreeMap<MemberName, MemberView>,
    /// The controllers that shall run.
    pub controllers: &'a BTreeMap<ControllerName, Declared>,
    /// `false` while not all of them are known: then no controller's row is added, ended or turned.
    pub controllers_known: bool,
    /// [`crate::lease::Observer::knows_all_from`].
    pub knows_all_from: Option<Duration>,
    /// This member.
    pub me: &'a MemberName,
    /// Now, on the caller's clock.
    pub now: Duration,
    /// Seconds since 1970, for the epochs of a new table only.
    pub wall_secs: u64,
}

impl View<'_> {
    /// Whether nobody unknown can be at work.
    ///
    /// Where there was a table before, somebody may still work by it whose Lease was deleted too. If all Leases that tell
    /// of it are gone as well, within a renew deadline, this can't be known: a first start isn't slowed down for that.
    pub(super) fn knows_all(&self) -> bool {
        self.members.values().all(|member| member.report.highest == Epoch::default())
            || self.knows_all_from.is_some_and(|from| self.now >= from)
    }
}

/// What people should hear of. Told once the plan's table is written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Notice {
    /// A member is counted on from now on.
    MemberJoined(MemberName),
    /// A member died; its rows are others' now.
    MemberLost(MemberName),
    /// A member ended in order.
    MemberLeft(MemberName),
    /// A row was taken from dying owners too often.
    Poisoned(RowId),
    /// A member restarted after it died, and gets nothing until then while others can: its base name, and the moment.
    CrashLoop(Arc<str>, Duration),
}

/// What the sharder is to do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The table to write; `None`: nothing is to change.
    pub write: Option<Table>,
    /// When to plan again although nothing new was seen: a moment on the caller's clock.
    pub look_again: Option<Duration>,
    /// What to tell.
    pub notices: Vec<Notice>,
    /// Rows that are on their way, and rows whose owner doesn't live, once the plan is written.
    pub pending: usize,
    /// Moves for balance wait for calm.
    pub settling: bool,
    /// Members have seen a newer version of this very table: the view is old, or somebody put an old table back. If a
    /// live read shows the same, the table has to be deleted (with its uid and resource version) and made anew.
    pub behind: bool,
}

/// Plans, and remembers what calm needs.
#[derive(Clone, Debug)]
pub struct Planner {
    calm: Calm,
    /// Since when a member goes by another table at this counter.
    hidden: Option<(Epoch, Duration)>,
}

impl Planner {
    /// One that remembers nothing.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        Self { calm: Calm::new(settings), hidden: None }
    }

    /// Remembers what calm needs without planning: what a member that doesn't lead may do, so that it knows if it will.
    pub fn observe(&mut self, view: &View<'_>) {
        self.calm.observe(view);
    }

    /// What to do about `view`.
    pub fn plan(&mut self, view: &View<'_>) -> Plan {
        self.observe(view);
        let Some((uid, before)) = view.table else {
            if view.knows_all() {
                return Plan { write: Some(first_table(view)), ..Plan::default() };
            }
            return Plan { look_again: view.knows_all_from, ..Plan::default() };
        };
        if before.installation != *view.installation {
            return Plan::default();
        }
        let newest =
            |member: &MemberView| member.report.table.as_ref() == Some(uid) && member.report.highest > before.counter;
        if view.members.values().any(newest) {
            return Plan { behind: true, ..Plan::default() };
        }
        let damped = |name: &&MemberName| self.calm.damped_until(view.now, name).is_some();
        let damped: BTreeSet<MemberName> = view.members.keys().filter(damped).cloned().collect();
        let mut after = before.clone();
        let mut roster = Roster::new(uid, before, view.members, damped, self.calm.recent(view.now));

        after.members.retain(|name| roster.life(name) != Life::Dead);
        after.members.extend(live(view).cloned());
        hand_over(view, &mut roster, &mut after);
        let (look_again, settling) = self.level(view, &mut roster, &mut after);
        let damping = live(view).filter_map(|name| self.calm.damped_until(view.now, name)).min();

        let (base, hidden_until) = self.base(view, uid, before.counter);
        number(before, &mut after, base);
        let pending = pending(&roster, &after);
        let changed = after != *before;
        let notices = if changed { self.notices(view, before, &after) } else { Vec::new() };
        Plan {
            write: changed.then_some(after),
            look_again: [look_again, damping, hidden_until].into_iter().flatten().min(),
            notices,
            pending,
            settling,
            behind: false,
        }
    }

    /// Moves for balance, if it is time; else when it will be, and whether something waits.
    fn level(&mut self, view: &View<'_>, roster: &mut Roster<'_>, after: &mut Table) -> (Option<Duration>, bool) {
        let owners =
            after.shards.iter().chain(after.controllers.values().map(|row| &row.row)).flat_map(|row| &row.owner);
        // What a lost member has will be divided anew once it is dead, or once it turns out to live.
        if owners.into_iter().any(|owner| roster.life(owner) != Life::Live) {
            return (None, true);
        }
        let mut level = after.clone();
        if balance::level(roster, &mut level) == 0 {
            self.calm.balanced();
            return (None, false);
        }
        let at = self.calm.may_level_at();
        if view.now < at {
            return (Some(at), true);
        }
        *after = level;
        (None, false)
    }

    /// Above which epochs go on. A member that saw this counter, or a higher one, under another table takes this table for
    /// an older one; unless, at the same counter, it is only about to come over.
    fn base(&mut self, view: &View<'_>, uid: &Uid, counter: Epoch) -> (Epoch, Option<Duration>) {
        let elsewhere = view
            .members
            .values()
            .filter(|member| member.life != Life::Dead && member.report.table.as_ref() != Some(uid))
            .map(|member| member.report.highest)
            .filter(|highest| highest.0 < MAX_EPOCH)
            .max()
            .unwrap_or_default();
        if elsewhere < counter {
            self.hidden = None;
            return (counter, None);
        }
        let (_, since) =
            *self.hidden.insert(self.hidden.filter(|(at, _)| *at == counter).unwrap_or((counter, view.now)));
        let until = since.saturating_add(HIDDEN_AFTER);
        if elsewhere == counter && view.now < until {
            return (counter, Some(until));
        }
        (Epoch(elsewhere.0.saturating_add(EPOCH_STEP)), None)
    }

    fn notices(&self, view: &View<'_>, before: &Table, after: &Table) -> Vec<Notice> {
        let mut notices = Vec::new();
        for name in after.members.difference(&before.members) {
            notices.push(Notice::MemberJoined(name.clone()));
            if let (Some(member), Some(until)) = (view.members.get(name), self.calm.damped_until(view.now, name)) {
                notices.push(Notice::CrashLoop(Arc::clone(&member.base), until));
            }
        }
        for name in before.members.difference(&after.members) {
            let left = view.members.get(name).is_some_and(|member| member.leaving);
            notices.push(if left { Notice::MemberLeft(name.clone()) } else { Notice::MemberLost(name.clone()) });
        }
        let shards = (0..=u8::MAX).map(RowId::Shard).zip(&after.shards);
        let wholes = after.controllers.values().map(|row| (RowId::Controller(row.uid.clone()), &row.row));
        for (id, row) in shards.chain(wholes) {
            let was = before.row(&id).map_or(0, |row| row.forced);
            if was < POISONED_AT && row.forced >= POISONED_AT {
                notices.push(Notice::Poisoned(id));
            }
        }
        notices
    }
}

fn live<'a>(view: &View<'a>) -> impl Iterator<Item = &'a MemberName> + use<'a> {
    view.members.iter().filter(|(_, member)| member.life == Life::Live).map(|(name, _)| name)
}

/// A table that grants nothing: members first come over to it. All who may still work are in it, so that whoever leads
/// next waits for them too.
fn first_table(view: &View<'_>) -> Table {
    let mut table = Table::new(Arc::clone(view.installation), first_epoch(view));
    let alive = view.members.iter().filter(|(_, member)| member.life != Life::Dead);
    table.members = alive.map(|(name, _)| name.clone()).collect();
    table
}

/// Above all that any member has seen.
pub(super) fn first_epoch(view: &View<'_>) -> Epoch {
    let highest =
        view.members.values().map(|member| member.report.highest.0).filter(|highest| *highest < MAX_EPOCH).max();
    let wall = view.wall_secs.saturating_mul(EPOCH_STEP).min(MAX_EPOCH);
    Epoch(wall.max(highest.map_or(0, |highest| highest + EPOCH_STEP)) + 1)
}

/// All steps but those for balance.
fn hand_over(view: &View<'_>, roster: &mut Roster<'_>, after: &mut Table) {
    // First what needs no choice, so that whoever is chosen then really has fewest.
    for (shard, row) in (0..=u8::MAX).zip(&mut after.shards) {
        let was = row.destination().cloned();
        handover::advance(roster, &RowId::Shard(shard), row);
        roster.moved(Kind::Shard, was.as_ref(), row.destination());
    }
    after.controllers.retain(|name, row| {
        let was = row.destination().cloned();
        let wish = Wish::of(row, view.controllers.get(name), view.controllers_known);
        let kept = controllers::advance(roster, row, wish);
        if kept && row.mode == Mode::Whole && row.becoming.is_none_or(|_| !row.row.releasing) {
            handover::advance(roster, &RowId::Controller(row.uid.clone()), &mut row.row);
        }
        roster.moved(Kind::Whole, was.as_ref(), if kept { row.destination() } else { None });
        kept
    });
    // Until all have come over, members may still work on a controller as what it was under another table.
    if view.controllers_known && roster.opens() {
        controllers::add(after, view.controllers);
    }
    for (shard, row) in (0..=u8::MAX).zip(&mut after.shards) {
        let was = row.destination().cloned();
        handover::place(roster, Kind::Shard, &RowId::Shard(shard), row);
        roster.moved(Kind::Shard, was.as_ref(), row.destination());
    }
    for (name, row) in &mut after.controllers {
        let was = row.destination().cloned();
        if row.mode == Mode::Whole && !row.is_closing() {
            handover::place(roster, Kind::Whole, &RowId::Controller(row.uid.clone()), &mut row.row);
        }
        let wish = Wish::of(row, view.controllers.get(name), view.controllers_known);
        controllers::turn(roster, row, wish);
        roster.moved(Kind::Whole, was.as_ref(), row.destination());
    }
}

/// Gives every changed row the next epoch. A removed one counts too.
fn number(before: &Table, after: &mut Table, base: Epoch) {
    let removed = before.controllers.keys().filter(|name| !after.controllers.contains_key(*name)).count();
    let mut counter = base.0.saturating_add(removed as u64);
    let mut next = || {
        counter = counter.saturating_add(1);
        Epoch(counter)
    };
    for (old, row) in before.shards.iter().zip(&mut after.shards) {
        if old != row {
            row.epoch = next();
        }
    }
    for (name, row) in &mut after.controllers {
        if before.controllers.get(name) != Some(row) {
            row.row.epoch = next();
        }
    }
    after.counter = Epoch(counter);
}

fn pending(roster: &Roster<'_>, table: &Table) -> usize {
    let stuck = |owner: &Option<MemberName>| owner.as_ref().is_none_or(|owner| roster.life(owner) != Life::Live);
    let shards = table.shards.iter().filter(|row| row.next.is_some() || row.releasing || stuck(&row.owner)).count();
    let controllers = table.controllers.values().filter(|row| {
        let alone = row.mode == Mode::Whole && stuck(&row.row.owner);
        row.becoming.is_some() || row.row.next.is_some() || row.row.releasing || alone
    });
    shards + controllers.count()
}
