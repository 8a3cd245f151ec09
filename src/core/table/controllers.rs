//! Controllers' rows: who comes, who goes, who changes its mode.
//!
//! ```text
//!   whole --declared sharded--> labelling (the owner works on) --labelled--> closing --all released--> sharded
//!   sharded --declared whole--> closing --all released--> whole
//!   any --not declared--> closing --all released--> no row
//! ```
//!
//! Never changes what a controller is while somebody may still work on it as what it was.

use std::collections::BTreeMap;

use super::plan::Declared;
use super::roster::{Kind, Roster};
use super::{Becoming, ControllerName, ControllerRow, Mode, Row, RowId, Table};
use crate::lease::Life;

/// What a row shall be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Mode(Mode),
    Gone,
    /// It isn't known what is declared.
    Unknown,
}

impl Wish {
    pub(super) fn of(row: &ControllerRow, declared: Option<&Declared>, known: bool) -> Self {
        match declared {
            _ if !known => Self::Unknown,
            Some(declared) if declared.uid == row.uid => Self::Mode(declared.mode),
            _ => Self::Gone,
        }
    }
}

/// The steps that follow from what members reported. `false`: the row is to be removed.
pub(super) fn advance(roster: &Roster<'_>, row: &mut ControllerRow, wish: Wish) -> bool {
    let id = RowId::Controller(row.uid.clone());
    match row.becoming {
        Some(becoming) if row.row.releasing => {
            if !roster.all_have_released(&id, row.row.epoch) {
                return true;
            }
            let goal = match (wish, becoming) {
                (Wish::Gone, _) | (Wish::Unknown, Becoming::Gone) => return false,
                (Wish::Mode(mode), _) => mode,
                (Wish::Unknown, Becoming::Sharded) => Mode::Sharded,
                (Wish::Unknown, Becoming::Whole) => Mode::Whole,
            };
            // What wasn't labelled can't be sharded yet: it is a whole again first.
            let labelled = row.mode == Mode::Sharded || becoming == Becoming::Sharded;
            row.mode = if labelled { goal } else { Mode::Whole };
            row.becoming = None;
            row.row = Row { epoch: row.row.epoch, ..Row::default() };
        }
        Some(Becoming::Sharded) => {
            let Some(owner) = row.row.owner.clone() else {
                row.becoming = None;
                return true;
            };
            let hands_over = roster.is_leaving(&owner) && roster.fewest(Kind::Whole).is_some();
            if wish == Wish::Mode(Mode::Whole) || hands_over {
                row.becoming = None;
            } else if wish != Wish::Gone && roster.life(&owner) == Life::Live {
                row.row.releasing = roster.is_warm(&owner, &id, row.row.epoch);
            }
        }
        Some(Becoming::Whole | Becoming::Gone) => row.row.releasing = true,
        None => {}
    }
    true
}

/// The steps that follow from what is declared.
pub(super) fn turn(roster: &Roster<'_>, row: &mut ControllerRow, wish: Wish) {
    if row.is_closing() {
        return;
    }
    match (wish, row.mode) {
        (Wish::Gone, _) => close(row, Becoming::Gone),
        (Wish::Mode(Mode::Whole), Mode::Sharded) => close(row, Becoming::Whole),
        (Wish::Mode(Mode::Sharded), Mode::Whole) if row.becoming.is_none() => {
            let at_rest = row.row.next.is_none() && !row.row.releasing;
            if at_rest && row.row.owner.as_ref().is_some_and(|owner| roster.may_own(owner)) {
                row.becoming = Some(Becoming::Sharded);
            }
        }
        _ => {}
    }
}

fn close(row: &mut ControllerRow, becoming: Becoming) {
    row.becoming = Some(becoming);
    row.row.releasing = true;
    row.row.next = None;
}

/// Rows for declared controllers that have none, and no predecessor of the same name.
pub(super) fn add(table: &mut Table, declared: &BTreeMap<ControllerName, Declared>) {
    for (name, declared) in declared {
        table.controllers.entry(name.clone()).or_insert_with(|| ControllerRow {
            uid: declared.uid.clone(),
            mode: declared.mode,
            becoming: None,
            row: Row::default(),
        });
    }
}
