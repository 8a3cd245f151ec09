//! `ShardTable` of `ringmaster.dev/v1alpha1`: who owns which shard and which whole, written by the sharder alone.
//!
//! Never judges a table's rows: a status whose checksum is right was written by a sharder, any other is nobody's.
//!
//! Its lists are atomic, as it has one writer and is read whole: the API server tracks who owns each field of a list with
//! keys, which doubles a table's size and the time of its writes. That no row is there twice is seen to here.

#![allow(clippy::duplicated_attributes, reason = "each printed column has a type")]

use std::collections::{BTreeMap, BTreeSet};

use kube::CustomResource;
use ringmaster_core::hash::xxh;
use ringmaster_core::key::{Epoch, MemberName, Uid};
use ringmaster_core::shards::SHARDS;
use ringmaster_core::table as core;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest name of a member: that of its Lease.
const MEMBER_MAX: u32 = 253;
/// Most members.
const MEMBERS_MAX: u32 = 256;
/// Most controllers.
const CONTROLLERS_MAX: u32 = 1024;
/// Longest uid, and longest name of an API group.
const TEXT_MAX: u32 = 253;

/// There is nothing to declare: the status is the table.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[kube(
    group = "ringmaster.dev",
    version = "v1alpha1",
    kind = "ShardTable",
    plural = "shardtables",
    shortname = "rst",
    category = "ringmaster",
    status = "ShardTableStatus",
    derive = "PartialEq",
    doc = "Which member of a Ringmaster installation owns each shard and each controller that isn't sharded. Written by Ringmaster alone.",
    printcolumn(
        name = "Members",
        type_ = "integer",
        json_path = ".status.counts.members",
        description = "How many members there are"
    ),
    printcolumn(
        name = "Owned",
        type_ = "integer",
        json_path = ".status.counts.owned",
        description = "How many of the 256 shards have an owner"
    ),
    printcolumn(
        name = "Moving",
        type_ = "integer",
        json_path = ".status.counts.moving",
        description = "How many shards are changing hands"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
pub struct ShardTableSpec {}

/// The table.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ShardTableStatus {
    /// The uid of the namespace of the members' Leases.
    #[schemars(length(max = TEXT_MAX))]
    pub installation: String,
    /// The highest epoch that was given to a row.
    #[schemars(range(min = 0))]
    pub counter: i64,
    /// What the rows add up to, for people.
    pub counts: Counts,
    /// The members that the sharder counts on, by their Leases' names.
    #[serde(default)]
    #[schemars(
        length(max = MEMBERS_MAX),
        inner(length(max = MEMBER_MAX)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub members: Vec<String>,
    /// A row per controller.
    #[serde(default)]
    #[schemars(
        length(max = CONTROLLERS_MAX),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub controllers: Vec<ControllerRow>,
    /// A row per shard.
    #[serde(default)]
    #[schemars(
        length(max = 256),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub shards: Vec<ShardRow>,
    /// XXH64 of all the rest. Members ignore a table whose checksum is wrong.
    #[serde(default)]
    #[schemars(length(max = 16))]
    pub checksum: String,
}

/// What the rows add up to.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Counts {
    /// Members.
    #[schemars(range(min = 0))]
    pub members: i32,
    /// Shards with an owner.
    #[schemars(range(min = 0))]
    pub owned: i32,
    /// Shards that are changing hands.
    #[schemars(range(min = 0))]
    pub moving: i32,
}

/// Who works on a shard.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ShardRow {
    /// The shard's number.
    #[schemars(range(min = 0, max = 255))]
    pub shard: i32,
    /// Who works on it, or did last.
    #[serde(flatten)]
    pub row: Row,
}

/// Who works on a controller that isn't sharded, and what it is on its way to be.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ControllerRow {
    /// The controller's API group.
    #[schemars(length(max = TEXT_MAX))]
    pub group: String,
    /// The controller's name.
    #[schemars(length(max = TEXT_MAX))]
    pub name: String,
    /// The controller's uid.
    #[schemars(length(max = TEXT_MAX))]
    pub uid: String,
    /// How its parents are divided among the members.
    pub mode: Mode,
    /// What it is on its way to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub becoming: Option<Becoming>,
    /// Who works on it.
    #[serde(flatten)]
    pub row: Row,
}

/// One row's way from owner to owner.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Row {
    /// Who works on it, or did last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MEMBER_MAX))]
    pub owner: Option<String>,
    /// Who shall.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = MEMBER_MAX))]
    pub next: Option<String>,
    /// The owner shall stop and acknowledge.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub releasing: bool,
    /// How often lately it was taken from an owner that died at work.
    #[serde(default, skip_serializing_if = "is_zero")]
    #[schemars(range(min = 0, max = 255))]
    pub forced: i32,
    /// The table's counter at the row's last change.
    #[schemars(range(min = 0))]
    pub epoch: i64,
}

/// How a controller's parents are divided.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum Mode {
    /// One member has them all.
    Whole,
    /// By shards.
    Sharded,
}

/// What a controller is on its way to be.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub enum Becoming {
    /// Owned by one member.
    Whole,
    /// Divided by shards.
    Sharded,
    /// Not run.
    Gone,
}

/// Why a status is no table.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// It isn't what its writer wrote.
    #[error("the checksum is {found:?} and should be {right:?}: somebody else wrote it")]
    Checksum {
        /// What it holds.
        found: String,
        /// What it should hold.
        right: String,
    },
    /// It hasn't one row for each shard.
    #[error("it has {rows} rows for {shards} shards instead of one for each of 256")]
    Shards {
        /// Its rows.
        rows: usize,
        /// The shards that have one.
        shards: usize,
    },
    /// A controller has more rows than one.
    #[error("it has {rows} rows for {controllers} controllers instead of one for each")]
    Controllers {
        /// Its rows.
        rows: usize,
        /// The controllers that have one.
        controllers: usize,
    },
}

impl ShardTableStatus {
    /// The status of a table.
    #[must_use]
    pub fn new(table: &core::Table) -> Self {
        let shards: Vec<ShardRow> =
            table.shards.iter().zip(0..).map(|(row, shard)| ShardRow { shard, row: Row::new(row) }).collect();
        let count = |number: usize| i32::try_from(number).unwrap_or(i32::MAX);
        let counts = Counts {
            members: count(table.members.len()),
            owned: count(table.shards.iter().filter(|row| row.owner.is_some()).count()),
            moving: count(table.shards.iter().filter(|row| row.next.is_some() || row.releasing).count()),
        };
        let mut status = Self {
            installation: table.installation.to_string(),
            counter: number(table.counter),
            counts,
            members: table.members.iter().map(ToString::to_string).collect(),
            controllers: table.controllers.iter().map(|(name, row)| ControllerRow::new(name, row)).collect(),
            shards,
            checksum: String::new(),
        };
        status.checksum = status.right_checksum();
        status
    }

    /// The table.
    ///
    /// # Errors
    /// If the checksum is wrong, or a row is missing or there twice.
    pub fn table(&self) -> Result<core::Table, Error> {
        let right = self.right_checksum();
        if right != self.checksum {
            return Err(Error::Checksum { found: self.checksum.clone(), right });
        }
        let mut shards = vec![None; SHARDS];
        for row in &self.shards {
            if let Some(place) = usize::try_from(row.shard).ok().and_then(|shard| shards.get_mut(shard)) {
                *place = Some(row.row.core());
            }
        }
        let shards: Vec<core::Row> = shards.into_iter().flatten().collect();
        if shards.len() != SHARDS || self.shards.len() != SHARDS {
            return Err(Error::Shards { rows: self.shards.len(), shards: shards.len() });
        }
        let controllers: BTreeMap<_, _> = self.controllers.iter().map(ControllerRow::core).collect();
        if controllers.len() != self.controllers.len() {
            return Err(Error::Controllers { rows: self.controllers.len(), controllers: controllers.len() });
        }
        Ok(core::Table {
            installation: self.installation.as_str().into(),
            counter: epoch(self.counter),
            members: self.members.iter().map(|name| MemberName::new(name)).collect::<BTreeSet<_>>(),
            shards,
            controllers,
        })
    }

    fn right_checksum(&self) -> String {
        let bare = Self { checksum: String::new(), ..self.clone() };
        // Numbers, texts and lists of them always have a JSON form.
        let text = serde_json::to_string(&bare).unwrap_or_default();
        format!("{:016x}", xxh(text.as_bytes()))
    }
}

impl ControllerRow {
    fn new(name: &core::ControllerName, row: &core::ControllerRow) -> Self {
        Self {
            group: name.group.to_string(),
            name: name.name.to_string(),
            uid: row.uid.to_string(),
            mode: match row.mode {
                core::Mode::Whole => Mode::Whole,
                core::Mode::Sharded => Mode::Sharded,
            },
            becoming: row.becoming.map(|becoming| match becoming {
                core::Becoming::Whole => Becoming::Whole,
                core::Becoming::Sharded => Becoming::Sharded,
                core::Becoming::Gone => Becoming::Gone,
            }),
            row: Row::new(&row.row),
        }
    }

    fn core(&self) -> (core::ControllerName, core::ControllerRow) {
        let name = core::ControllerName { group: self.group.as_str().into(), name: self.name.as_str().into() };
        let row = core::ControllerRow {
            uid: Uid::new(&self.uid),
            mode: match self.mode {
                Mode::Whole => core::Mode::Whole,
                Mode::Sharded => core::Mode::Sharded,
            },
            becoming: self.becoming.map(|becoming| match becoming {
                Becoming::Whole => core::Becoming::Whole,
                Becoming::Sharded => core::Becoming::Sharded,
                Becoming::Gone => core::Becoming::Gone,
            }),
            row: self.row.core(),
        };
        (name, row)
    }
}

impl Row {
    fn new(row: &core::Row) -> Self {
        let text = |name: &Option<MemberName>| name.as_ref().map(ToString::to_string);
        Self {
            owner: text(&row.owner),
            next: text(&row.next),
            releasing: row.releasing,
            forced: i32::from(row.forced),
            epoch: number(row.epoch),
        }
    }

    fn core(&self) -> core::Row {
        let name = |text: &Option<String>| text.as_deref().map(MemberName::new);
        core::Row {
            owner: name(&self.owner),
            next: name(&self.next),
            releasing: self.releasing,
            forced: u8::try_from(self.forced).unwrap_or(u8::MAX),
            epoch: epoch(self.epoch),
        }
    }
}

fn is_zero(number: &i32) -> bool {
    *number == 0
}

/// An epoch as JSON numbers hold it: the counter starts at seconds << 20, which stays below 2^53 until the year 2242.
fn number(epoch: Epoch) -> i64 {
    i64::try_from(epoch.0).unwrap_or(i64::MAX)
}

fn epoch(number: i64) -> Epoch {
    Epoch(u64::try_from(number).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> core::Table {
        let mut table = core::Table::new("i".into(), Epoch(1 << 51));
        table.members = [MemberName::new("a-x"), MemberName::new("b-y")].into();
        table.shards[3] = core::Row {
            owner: Some(MemberName::new("a-x")),
            next: Some(MemberName::new("b-y")),
            releasing: true,
            forced: 2,
            epoch: Epoch((1 << 51) + 7),
        };
        for (name, mode, becoming) in [
            ("w", core::Mode::Whole, None),
            ("s", core::Mode::Sharded, Some(core::Becoming::Gone)),
            ("t", core::Mode::Whole, Some(core::Becoming::Sharded)),
            ("u", core::Mode::Sharded, Some(core::Becoming::Whole)),
        ] {
            let key = core::ControllerName { group: "ringmaster.dev".into(), name: name.into() };
            let row = core::ControllerRow { uid: Uid::new(name), mode, becoming, row: core::Row::default() };
            table.controllers.insert(key, row);
        }
        table
    }

    #[test]
    fn a_table_comes_back_from_its_status() {
        let (table, status) = (table(), ShardTableStatus::new(&table()));
        assert_eq!(status.table().unwrap(), table);
        let text = serde_json::to_string(&status).unwrap();
        let read: ShardTableStatus = serde_json::from_str(&text).unwrap();
        assert_eq!(read.table().unwrap(), table);
        assert_eq!(status.counts, Counts { members: 2, owned: 1, moving: 1 });
        assert!(text.len() < 16 * 1024, "{}", text.len());
    }

    #[test]
    fn a_table_that_somebody_edited_is_none() {
        let edits: [fn(&mut ShardTableStatus); 7] = [
            |status| status.shards[9].row.owner = Some("me".to_owned()),
            |status| status.shards[9].row.epoch += 1,
            |status| drop(status.shards.pop()),
            |status| drop(status.members.pop()),
            |status| status.counter -= 1,
            |status| status.controllers[0].uid.push('x'),
            |status| status.checksum.clear(),
        ];
        for edit in edits {
            let mut status = ShardTableStatus::new(&table());
            edit(&mut status);
            assert!(matches!(status.table(), Err(Error::Checksum { .. })));
        }
        let summed = |edit: fn(&mut ShardTableStatus)| {
            let mut status = ShardTableStatus::new(&table());
            edit(&mut status);
            status.checksum = status.right_checksum();
            status.table()
        };
        assert_eq!(summed(|status| drop(status.shards.pop())), Err(Error::Shards { rows: 255, shards: 255 }));
        let twice = summed(|status| status.shards[9].shard = 8);
        assert_eq!(twice, Err(Error::Shards { rows: 256, shards: 255 }));
        let more = summed(|status| status.shards.push(status.shards[9].clone()));
        assert_eq!(more, Err(Error::Shards { rows: 257, shards: 256 }));
        let twice = summed(|status| status.controllers.push(status.controllers[0].clone()));
        assert_eq!(twice, Err(Error::Controllers { rows: 5, controllers: 4 }));
    }
}
