//! Where the kind of tables doesn't exist: the sharder alone works on everything, as wholes, by a table of its own that
//! only it ever sees.
//!
//! Nothing can be compared and swapped then, so two that believe to lead are kept apart by their Leases:
//!
//! 1. every member stops everything and says [`NO_TABLE`] on its Lease;
//! 2. the sharder, once it [may claim](may_claim), lets its duty see an empty [`table`] under the uid [`ALONE`], and says
//!    so on its Lease;
//! 3. in a list that it began after that was written it looks whether it [may begin](may_begin): then the planner plans
//!    over its table with itself as the only member, and all that is declared as wholes.
//!
//! Whoever claims sees who claimed before. One that claimed and doesn't hold the sharder's Lease (any more) lets its duty
//! see that there is no kind, and is back at 1. A real table ends it all like any newer table.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::plan::{EPOCH_STEP, MemberView, View, first_epoch};
use super::{NO_TABLE, Table};
use crate::key::{Epoch, MemberName, Uid};
use crate::lease::Life;

/// The uid of the table that only its maker sees.
pub const ALONE: &str = "alone";

/// A table of one's own that grants nothing yet. Its epochs begin where any new table's would, but not at the very number
/// where a real one may begin within the same second: that one is to be the newer, once it has heard of this.
#[must_use]
pub fn table(view: &View<'_>) -> Table {
    Table::new(Arc::clone(view.installation), Epoch(first_epoch(view).0 + EPOCH_STEP / 2))
}

/// Whether the sharder may say that it works alone: everybody else has stopped, and nobody unknown can be at work.
#[must_use]
pub fn may_claim(view: &View<'_>) -> bool {
    let own = view.members.get(view.me);
    own.is_some_and(|own| own.life == Life::Live && (says(own, NO_TABLE) || says(own, ALONE)))
        && others_stopped(view.members, view.me)
        && view.knows_all()
}

/// Whether the sharder may work alone: it has said so, and nobody else does. `view.members` is as it was listed after
/// the saying was written.
#[must_use]
pub fn may_begin(view: &View<'_>) -> bool {
    view.members.get(view.me).is_some_and(|own| says(own, ALONE)) && may_claim(view)
}

fn others_stopped(members: &BTreeMap<MemberName, MemberView>, me: &MemberName) -> bool {
    members
        .iter()
        .filter(|(name, member)| *name != me && member.life != Life::Dead)
        .all(|(_, member)| says(member, NO_TABLE))
}

fn says(member: &MemberView, table: &str) -> bool {
    member.report.table == Some(Uid::new(table))
}
