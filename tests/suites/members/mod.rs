//! An installation of several members under load: who takes part, what is recorded, what is checked afterwards.
//!
//! Never judges while a scenario runs: the checker does at its end, from the record, the audit log and the objects.

pub(crate) mod cast;
pub(crate) mod check;
pub(crate) mod figures;
pub(crate) mod load;
pub(crate) mod stage;
pub(crate) mod table;
pub(crate) mod tunnel;
pub(crate) mod webhook;
