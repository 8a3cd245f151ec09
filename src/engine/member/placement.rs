//! What people are told of who has a controller's parents, and of the other members' parts of it.
//!
//! Never tells of what passes by itself within seconds: scaling members writes nothing to controllers.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringmaster_core::condition::{Division, Part, Placement};
use ringmaster_core::key::{MemberName, Uid};
use ringmaster_core::shards::Shards;
use ringmaster_core::table::{ControllerRow, Mode, Row, Table};

use super::observe::{TableKind, View, World};
use super::{Identity, PARTS_ANNOTATION};
use crate::clock::boot_time;

/// What takes longer than this is told.
pub(crate) const LONG: Duration = Duration::from_secs(10);

/// Looks at the table for people.
pub(crate) struct Placements {
    world: Arc<World>,
    identity: Arc<Identity>,
    /// Since when something has been changing hands, and since when something has had no member; by the controller's
    /// uid for wholes, by `None` for the shards.
    since: Mutex<BTreeMap<(Option<Uid>, What), Duration>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Moving,
    Unowned,
}

impl Placements {
    pub(crate) fn new(world: Arc<World>, identity: Arc<Identity>) -> Arc<Self> {
        Arc::new(Self { world, identity, since: Mutex::default() })
    }

    /// Where a controller's parents are; `None` before the table was seen. `unlabelled` parents have had no label for
    /// long.
    pub(crate) fn of(&self, uid: &Uid, sharded: bool, unlabelled: usize) -> Option<Placement> {
        let view = self.world.view();
        if view.kind == TableKind::Absent {
            let division = if sharded { Division::NoTable } else { Division::Whole };
            return Some(Placement { division, moving: None, unassigned: None });
        }
        let table = view.table.as_ref()?.table.clone()?;
        let row = table.controllers.values().find(|row| row.uid == *uid)?;
        let division = match (row.becoming, row.mode) {
            (Some(_), _) => Division::Turning,
            (None, Mode::Sharded) => Division::Sharded,
            (None, Mode::Whole) => Division::Whole,
        };
        let (moving, unowned) = if row.mode == Mode::Sharded { shards(&table) } else { whole(&table, row) };
        let about = (row.mode == Mode::Whole).then(|| uid.clone());
        let moving = self.for_long(about.clone(), What::Moving, moving);
        let unowned = self.for_long(about, What::Unowned, unowned);
        let unlabelled = (unlabelled > 0).then(|| format!("{unlabelled} parents have no label of their shard yet"));
        let unassigned: Vec<String> = unowned.into_iter().chain(unlabelled).collect();
        Some(Placement { division, moving, unassigned: (!unassigned.is_empty()).then(|| unassigned.join("; ")) })
    }

    /// Whether somebody may still work on a controller: the table names it, or isn't known.
    pub(crate) fn has(&self, uid: &Uid) -> bool {
        let view = self.world.view();
        let table = match view.kind {
            TableKind::Absent => self.world.solo().map(|(_, table)| table),
            TableKind::Unknown | TableKind::Served => view.table.as_ref().and_then(|object| object.table.clone()),
        };
        table.is_none_or(|table| table.controllers.values().any(|row| row.uid == *uid))
    }

    /// The text, once there has been one for long.
    fn for_long(&self, about: Option<Uid>, what: What, text: Option<String>) -> Option<String> {
        let mut since = self.since.lock();
        let now = boot_time();
        if text.is_none() {
            since.remove(&(about, what));
            return None;
        }
        let since = *since.entry((about, what)).or_insert(now);
        text.filter(|_| now.saturating_sub(since) >= LONG)
    }

    /// What the other members know of their parts of a sharded controller.
    pub(crate) fn parts(&self, uid: &Uid) -> Vec<(String, Part)> {
        let View { members, .. } = self.world.view();
        let text = uid.to_string();
        let others = members.iter().filter(|(name, lease)| **name != self.identity.name && lease.holder == lease.name);
        let part = |(name, lease): (&MemberName, &Arc<ringmaster_cluster::Lease>)| {
            let mut parts: BTreeMap<String, Part> =
                serde_json::from_str(lease.annotations.get(PARTS_ANNOTATION)?).ok()?;
            Some((name.to_string(), parts.remove(&text)?))
        };
        others.filter_map(part).collect()
    }
}

fn shards(table: &Table) -> (Option<String>, Option<String>) {
    let which = |is: &dyn Fn(&Row) -> bool| -> Shards {
        (0..=u8::MAX).zip(&table.shards).filter(|(_, row)| is(row)).map(|(shard, _)| shard).collect()
    };
    let moving = which(&|row| row.next.is_some() || row.releasing);
    let unowned = which(&|row| !has_member(table, row));
    let told =
        |shards: Shards, what: &str| (!shards.is_empty()).then(|| format!("{} shards {what}: {shards}", shards.len()));
    (told(moving, "are changing hands"), told(unowned, "have no member"))
}

fn whole(table: &Table, controller: &ControllerRow) -> (Option<String>, Option<String>) {
    let row = &controller.row;
    let moving = row.next.is_some() || row.releasing;
    (
        moving.then(|| "the controller is changing hands".to_owned()),
        (!has_member(table, row)).then(|| "no member has the controller".to_owned()),
    )
}

fn has_member(table: &Table, row: &Row) -> bool {
    row.owner.as_ref().is_some_and(|owner| table.members.contains(owner))
}
