//! Moves for balance alone: counts within one of each other, by as few moves as that allows.
//!
//! Only rows that are at rest move, and only off a member that has more than its share: what is on its way counts where
//! it goes. Never takes a row away: it only says who shall be next.

use std::collections::BTreeMap;

use super::roster::{Kind, Roster};
use super::{Row, Table};
use crate::key::MemberName;

/// Levels shards and wholes; tells how many rows it sent on their way.
pub(super) fn level(roster: &mut Roster<'_>, table: &mut Table) -> usize {
    let wholes = table.controllers.values_mut().filter(|row| row.becoming.is_none()).map(|row| &mut row.row);
    level_kind(roster, Kind::Shard, table.shards.iter_mut()) + level_kind(roster, Kind::Whole, wholes)
}

fn level_kind<'t>(roster: &mut Roster<'_>, kind: Kind, rows: impl Iterator<Item = &'t mut Row>) -> usize {
    let (mut at_rest, mut total): (BTreeMap<MemberName, Vec<&mut Row>>, usize) = (BTreeMap::new(), 0);
    for row in rows {
        let Some(owner) = &row.owner else { continue };
        total += 1;
        if row.next.is_none() && !row.releasing && roster.may_own(owner) {
            at_rest.entry(owner.clone()).or_default().push(row);
        }
    }
    let mut moves = 0;
    loop {
        let members = roster.receivers().count();
        let Some(least) = roster.receivers().min_by_key(|name| (roster.load(kind, name), *name)).cloned() else {
            break;
        };
        let most = at_rest
            .iter()
            .filter(|(_, rows)| !rows.is_empty())
            .map(|(name, _)| (roster.load(kind, name), name.clone()))
            .max();
        let Some((load, most)) = most else { break };
        if load < roster.load(kind, &least) + 2 || load * members <= total {
            break;
        }
        let Some(row) = at_rest.get_mut(&most).and_then(Vec::pop) else { break };
        row.next = Some(least.clone());
        roster.moved(kind, Some(&most), Some(&least));
        moves += 1;
    }
    moves
}
