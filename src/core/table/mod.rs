//! The table: which member owns each shard and each whole, and how a row changes hands.
//!
//! ```text
//!   row steady: owner
//!       --sharder sets next-->      the next owner warms its cache and reports (row, epoch)
//!       --sharder sets releasing--> the owner stops, waits its work out, and acknowledges (row, epoch)
//!       --sharder sets owner-->     the next owner starts
//! ```
//!
//! Every arrow is one change of the row and gives it a new epoch. Never reads a clock and never writes anything: the
//! sharder's shell does, by compare-and-swap.

pub mod alone;
mod balance;
pub mod calm;
mod controllers;
pub mod duty;
mod handover;
pub mod plan;
mod roster;
mod text;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::key::{Epoch, MemberName, Uid};
use crate::shards::SHARDS;

/// The rows of an installation and who is in it. Its uid is the Kubernetes object's and isn't part of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Table {
    /// The uid of the namespace of the Leases: another installation leaves this table alone.
    pub installation: Arc<str>,
    /// The highest epoch that was given to a row.
    pub counter: Epoch,
    /// The members that the sharder counts on.
    pub members: BTreeSet<MemberName>,
    /// One row per shard, [`SHARDS`] of them.
    pub shards: Vec<Row>,
    /// One row per controller, by its group and name.
    pub controllers: BTreeMap<ControllerName, ControllerRow>,
}

/// Who works on a part of the work.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row {
    /// Who works on it, or did last.
    pub owner: Option<MemberName>,
    /// Who shall.
    pub next: Option<MemberName>,
    /// The owner shall stop and acknowledge.
    pub releasing: bool,
    /// How often lately it was taken from an owner that died at work; from [`POISONED_AT`] on, what is in it is
    /// suspected of killing its owners. [`calm`] says what is lately.
    pub forced: u8,
    /// The table's counter at this row's last change.
    pub epoch: Epoch,
}

/// A row that lost so many owners starts with delayed keys.
pub const POISONED_AT: u8 = 3;

/// A controller's name within an installation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControllerName {
    /// Its API group; for a decorator `decoratorcontrollers.` and its API group.
    pub group: Arc<str>,
    /// Its object's name.
    pub name: Arc<str>,
}

/// A controller in the table. Nobody works on one that isn't there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ControllerRow {
    /// The object's uid: a controller made anew is another one.
    pub uid: Uid,
    /// How its parents are divided now.
    pub mode: Mode,
    /// What it is on its way to be. While `row.releasing` is unset, a whole that becomes sharded goes on working and
    /// labels its objects; while it is set, every live member stops all work on the controller and acknowledges.
    pub becoming: Option<Becoming>,
    /// Who works on it, if it is a whole. A sharded one has no owner, and no next.
    pub row: Row,
}

/// How a controller's parents are divided among the members.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// One member has them all.
    Whole,
    /// By shards.
    Sharded,
}

/// What a controller is on its way to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Becoming {
    /// A whole.
    Whole,
    /// Sharded.
    Sharded,
    /// Nothing: it was deleted, or isn't to run.
    Gone,
}

/// What a report is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RowId {
    /// A shard's row.
    Shard(u8),
    /// A controller's row, by the controller's uid.
    Controller(Uid),
}

/// What a member says of itself on its Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The uid of the table that it goes by: it runs nothing under any other. `None` where it goes by none yet;
    /// [`NO_TABLE`] says that it saw that the kind of tables doesn't exist, and runs nothing.
    pub table: Option<Uid>,
    /// The highest epoch that it saw.
    pub highest: Epoch,
    /// Rows whose objects it has in its cache (or, of a controller that becomes sharded, has labelled), and the rows'
    /// epochs.
    pub warm: BTreeMap<RowId, Epoch>,
    /// Rows that it has stopped working on, and the rows' epochs.
    pub released: BTreeMap<RowId, Epoch>,
}

/// What a member goes by where the kind of tables doesn't exist.
pub const NO_TABLE: &str = "none";

impl Table {
    /// A table that grants nothing yet.
    #[must_use]
    pub fn new(installation: Arc<str>, counter: Epoch) -> Self {
        let row = Row { epoch: counter, ..Row::default() };
        Self {
            installation,
            counter,
            members: BTreeSet::new(),
            shards: vec![row; SHARDS],
            controllers: BTreeMap::new(),
        }
    }

    /// The row of a shard.
    #[must_use]
    pub fn shard(&self, shard: u8) -> Option<&Row> {
        self.shards.get(usize::from(shard))
    }

    /// The row of a shard or of a controller.
    #[must_use]
    pub fn row(&self, id: &RowId) -> Option<&Row> {
        match id {
            RowId::Shard(shard) => self.shard(*shard),
            RowId::Controller(uid) => self.controllers.values().find(|row| row.uid == *uid).map(|row| &row.row),
        }
    }

    /// Every member that it names: their Leases are expected, and kept.
    #[must_use]
    pub fn names(&self) -> BTreeSet<MemberName> {
        let rows = self.shards.iter().chain(self.controllers.values().map(|row| &row.row));
        let named = rows.flat_map(|row| [&row.owner, &row.next]).flatten();
        named.chain(&self.members).cloned().collect()
    }
}

#[cfg(test)]
mod duty_tests;
#[cfg(test)]
mod plan_tests;
#[cfg(test)]
mod simulation_tests;
#[cfg(test)]
mod world_tests;
