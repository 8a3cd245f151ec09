//! External rings with real shards: processes in each language, the sharder, and a record of everything that they do.
//!
//! Never judges while a scenario runs: the checker does at its end, from the shards' logs, the recorded labels and the
//! objects.

pub(crate) mod checker;
pub(crate) mod language;
pub(crate) mod lease;
pub(crate) mod names;
pub(crate) mod record;
pub(crate) mod rights;
pub(crate) mod secrets;
pub(crate) mod shard;
pub(crate) mod stage;
pub(crate) mod waits;
pub(crate) mod webhook;
