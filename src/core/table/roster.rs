//! The members as the sharder may count on them: who may own, who has proven what, who has how much.
//!
//! Never guesses: a member that isn't seen is lost, and silence is no proof.

use std::collections::{BTreeMap, BTreeSet};

use super::plan::MemberView;
use super::{ControllerRow, Mode, Row, RowId, Table};
use crate::key::{Epoch, MemberName, Uid};
use crate::lease::Life;

/// What is divided by count, each for itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Shard,
    Whole,
}

/// How many rows a member has, or will have once all hand-overs are done: shards, wholes.
type Load = [usize; 2];

pub(super) struct Roster<'a> {
    uid: &'a Uid,
    members: &'a BTreeMap<MemberName, MemberView>,
    /// Those of the table.
    counted: &'a BTreeSet<MemberName>,
    /// Who gets nothing while somebody else can.
    damped: BTreeSet<MemberName>,
    /// The rows whose count of forced changes is recent.
    recent: BTreeSet<RowId>,
    /// Whether rows that had no owner under this table may get their first.
    opens: bool,
    loads: BTreeMap<MemberName, Load>,
}

impl<'a> Roster<'a> {
    pub(super) fn new(
        uid: &'a Uid,
        table: &'a Table,
        members: &'a BTreeMap<MemberName, MemberView>,
        damped: BTreeSet<MemberName>,
        recent: BTreeSet<RowId>,
    ) -> Self {
        let mut roster =
            Self { uid, members, counted: &table.members, damped, recent, opens: false, loads: BTreeMap::new() };
        // Once one shard was granted, every member had come over from what was before this table; one that joins later
        // was granted nothing there, or it would have been among them.
        roster.opens = table.shards.iter().any(|row| row.owner.is_some()) || roster.all_came_over();
        for row in &table.shards {
            roster.moved(Kind::Shard, None, row.destination());
        }
        for row in table.controllers.values() {
            roster.moved(Kind::Whole, None, row.destination());
        }
        roster
    }

    fn all_came_over(&self) -> bool {
        let here = |member: &MemberView| member.report.table.as_ref() == Some(self.uid);
        self.obstacles().all(|(_, member)| match member {
            Some(member) => here(member) || (member.life == Life::Lost && member.report.table.is_none()),
            None => false,
        })
    }

    /// Everybody who may still be at work: all but the dead.
    fn obstacles(&self) -> impl Iterator<Item = (&MemberName, Option<&MemberView>)> {
        let seen = self.members.iter().filter(|(_, member)| member.life != Life::Dead);
        let unseen = self.counted.iter().filter(|name| !self.members.contains_key(*name));
        seen.map(|(name, member)| (name, Some(member))).chain(unseen.map(|name| (name, None)))
    }

    pub(super) fn life(&self, name: &MemberName) -> Life {
        self.members.get(name).map_or(Life::Lost, |member| member.life)
    }

    pub(super) fn is_leaving(&self, name: &MemberName) -> bool {
        self.members.get(name).is_some_and(|member| member.leaving)
    }

    /// Whether it may be given rows.
    pub(super) fn may_own(&self, name: &MemberName) -> bool {
        self.members.get(name).is_some_and(|member| {
            member.life == Life::Live && !member.leaving && member.report.table.as_ref() == Some(self.uid)
        })
    }

    /// Whether rows that never had an owner may get one.
    pub(super) fn opens(&self) -> bool {
        self.opens
    }

    /// Whether a row's count of forced changes is recent.
    pub(super) fn is_recent(&self, id: &RowId) -> bool {
        self.recent.contains(id)
    }

    pub(super) fn is_warm(&self, name: &MemberName, id: &RowId, epoch: Epoch) -> bool {
        self.reports(name).is_some_and(|member| member.report.warm.get(id) == Some(&epoch))
    }

    pub(super) fn has_released(&self, name: &MemberName, id: &RowId, epoch: Epoch) -> bool {
        self.reports(name).is_some_and(|member| member.report.released.get(id) == Some(&epoch))
    }

    /// Whether nobody works on a closing controller any more. A member that joined counts from when it lives: it may
    /// own shards before it hears that the controller closes.
    pub(super) fn all_have_released(&self, id: &RowId, epoch: Epoch) -> bool {
        self.obstacles().all(|(name, member)| {
            let stranger = !self.counted.contains(name) && member.is_some_and(|member| member.life == Life::Lost);
            stranger || self.has_released(name, id, epoch)
        })
    }

    fn reports(&self, name: &MemberName) -> Option<&MemberView> {
        self.members.get(name).filter(|member| member.report.table.as_ref() == Some(self.uid))
    }

    pub(super) fn load(&self, kind: Kind, name: &MemberName) -> usize {
        self.loads.get(name).map_or(0, |load| load[kind as usize])
    }

    /// A row's destination changed.
    pub(super) fn moved(&mut self, kind: Kind, from: Option<&MemberName>, to: Option<&MemberName>) {
        if let Some(load) = from.and_then(|from| self.loads.get_mut(from)) {
            load[kind as usize] = load[kind as usize].saturating_sub(1);
        }
        if let Some(to) = to {
            self.loads.entry(to.clone()).or_default()[kind as usize] += 1;
        }
    }

    /// Who may own and isn't damped.
    pub(super) fn receivers(&self) -> impl Iterator<Item = &'a MemberName> {
        self.members.keys().filter(|name| self.may_own(name) && !self.damped.contains(*name))
    }

    /// Who has fewest; of the damped only if there is nobody else.
    pub(super) fn fewest(&self, kind: Kind) -> Option<&'a MemberName> {
        let other = if kind == Kind::Shard { Kind::Whole } else { Kind::Shard };
        let order = |name: &&'a MemberName| (self.load(kind, name), self.load(other, name), *name);
        self.receivers()
            .min_by_key(order)
            .or_else(|| self.members.keys().filter(|name| self.may_own(name)).min_by_key(order))
    }
}

impl Row {
    /// Who has it once its hand-over is done.
    pub(super) fn destination(&self) -> Option<&MemberName> {
        self.next.as_ref().or(self.owner.as_ref())
    }
}

impl ControllerRow {
    /// Who has it once its hand-over is done: nobody in particular, if it is closing or sharded.
    pub(super) fn destination(&self) -> Option<&MemberName> {
        if self.is_closing() || self.mode == Mode::Sharded { None } else { self.row.destination() }
    }

    /// Whether every member stops all work on it.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.becoming.is_some() && self.row.releasing
    }
}
