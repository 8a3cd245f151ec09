//! The suites, one file each: `cases()` lists its trials.
//!
//! Never asks which kind of server it runs on.

mod smoke;

use crate::trial::Case;

/// Every trial, in the order in which they start.
pub(crate) fn all() -> Vec<Case> {
    [smoke::cases()].into_iter().flatten().collect()
}
