//! External rings: objects sharded among processes that aren't ours, by Leases, labels and drains.
//!
//! ```text
//!   model  what the user declared
//!   key    what is hashed of an object
//!   hash   key -> shard, by tokens as controller-sharding does
//!   slots  key -> shard, by bounded loads
//!   state  shards' Leases: who lives, who is taken, whose objects may be moved by force
//!   plan   what to do with one object now, and the patch that does it
//!   pace   which moves are next, and when membership was still for long enough
//!   status what a ring's status says
//! ```
//!
//! "contract" is controller-sharding's, by section. Names and times of each API group are
//! [`RingDialect`](crate::dialect::RingDialect)s. Never reads or writes an object, never asks a clock.

pub mod hash;
pub mod kept;
pub mod key;
pub mod model;
pub mod pace;
pub mod plan;
pub mod slots;
pub mod state;
pub mod status;
