//! External rings: objects divided among processes that aren't ours, by Leases, labels and drains.
//!
//! ```text
//!   registry    ControllerRing objects: one ring each while this member leads
//!   served      a ring's kinds as the API server serves them
//!   ring        one ring: looks at what changed, and does what core's plan says
//!   scope       what the parts of a ring share
//!   board       the objects that aren't where they shall be
//!   feed        watches that tell the board
//!   pass        lists of all objects, and searches for children
//!   hashes      key -> shard, as of now                        shards      the shards' Leases
//!   namespaces  which of them a ring selects                   told        status, events, metrics
//!   admission   the webhook that labels objects at once         answers     what it knows of the rings
//! ```
//!
//! Never decides: core's `ring` does. Never calls a webhook of a controller: shards do their work themselves. Writes
//! metadata alone, each write on the version that it was decided on.

#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods))]

pub mod admission;
mod answers;
mod board;
mod feed;
mod hashes;
mod look;
mod namespaces;
mod pass;
mod registry;
mod ring;
mod scope;
mod served;
mod shards;
mod told;

pub use registry::{Clock, Right, RingStats, Rings};
pub use told::Stats;
