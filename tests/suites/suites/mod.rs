//! The suites, one file each: `cases()` lists its trials.
//!
//! Never asks which kind of server it runs on.

mod command;
mod main_job;
mod metacontroller;
mod readme;
mod scale;
mod smoke;

use crate::trial::Case;

/// Every trial, in the order in which they start.
pub(crate) fn all() -> Vec<Case> {
    [smoke::cases(), command::cases(), main_job::cases(), metacontroller::cases(), readme::cases(), scale::cases()]
        .into_iter()
        .flatten()
        .collect()
}
