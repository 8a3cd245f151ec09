//! One row's way from owner to owner.
//!
//! Takes a step only on evidence that can't become untrue while the table stays as it is: a death, a report about the
//! row's very epoch. Never sets an epoch: the plan numbers what changed.

use super::roster::{Kind, Roster};
use super::{Row, RowId};
use crate::key::MemberName;
use crate::lease::Life;

/// The steps that need no choice.
pub(super) fn advance(roster: &Roster<'_>, id: &RowId, row: &mut Row) {
    let Some(owner) = &row.owner else { return };
    let heir = row.next.clone().filter(|next| roster.may_own(next));
    if roster.life(owner) == Life::Dead {
        match heir {
            Some(heir) => give(roster, id, row, heir),
            None => row.next = None,
        }
    } else if row.releasing {
        match heir {
            Some(heir) if roster.has_released(owner, id, row.epoch) => give(roster, id, row, heir),
            _ if row.next.as_ref().is_some_and(|next| roster.life(next) == Life::Dead) => row.next = None,
            _ => {}
        }
    } else if let Some(heir) = heir {
        row.releasing = roster.life(owner) == Life::Live && roster.is_warm(&heir, id, row.epoch);
    } else {
        row.next = None;
    }
}

/// The steps that need somebody to be chosen: whoever has fewest.
pub(super) fn place(roster: &Roster<'_>, kind: Kind, id: &RowId, row: &mut Row) {
    let Some(choice) = roster.fewest(kind).cloned() else { return };
    let Some(owner) = &row.owner else {
        if roster.opens() {
            give(roster, id, row, choice);
        }
        return;
    };
    match roster.life(owner) {
        Life::Dead => give(roster, id, row, choice),
        // The next owner of before is gone or leaving, or `advance` had given it the row.
        _ if row.releasing => {
            if roster.has_released(owner, id, row.epoch) {
                give(roster, id, row, choice);
            }
        }
        Life::Live if roster.is_leaving(owner) && row.next.is_none() => row.next = Some(choice),
        Life::Live | Life::Lost => {}
    }
}

/// Gives a row that nobody works on to `heir`.
fn give(roster: &Roster<'_>, id: &RowId, row: &mut Row, heir: MemberName) {
    let lately = if roster.is_recent(id) { row.forced } else { 0 };
    let forced = row.owner.as_ref().is_some_and(|owner| roster.life(owner) == Life::Dead && !roster.is_leaving(owner));
    *row =
        Row { owner: Some(heir), forced: lately.saturating_add(u8::from(forced)), epoch: row.epoch, ..Row::default() };
}
