//! The work queue: which parent is synced next, by which of the free workers, and when a failed one comes back.
//!
//! It is a pure state machine. It never reads a clock (`now` is an argument: the time since any fixed start of a
//! monotonic clock), never draws a random number (`random` is an argument), never waits and never runs a sync. One
//! task of the engine owns it, pops keys for its workers and sleeps until [`Queue::next_due`].
//!
//! ```text
//!          add                  pop                 done
//!   idle -------> ready line ---------> running ------------> idle, or ready again (dirty, `again`),
//!     |              ^                                        or a timer (resync, backoff, retry-after)
//!     +-- add_after: timer --due
//! ```
//!
//! # Rules
//!
//! - A key waits at most once and runs at most once. What is added while it runs makes it *dirty*: it is queued again
//!   when it is done, whatever the outcome. Fresh news beats a backoff. A key whose syncs change something every time is
//!   slowed down, and then only [`Priority::Fresh`] beats the pause: its own changes come back to it as events.
//! - Higher priorities first, but a lower level that has keys gets one pop in [`BACKGROUND_SHARE`]. Inside a level the
//!   controllers take turns; inside a controller's line keys leave in the order in which they came.
//! - No controller takes all workers while another one is registered. See `fairness.rs`.
//! - A controller may bound its syncs of one shard ([`Lanes`]); what is beyond waits, and others pass by. A lower level that
//!   has keys of that shard gets one of [`BACKGROUND_SHARE`] pops of the shard.
//! - A key may be refused at its turn, by a [`Gate`] that keeps back it and all of its shard, and the other shards that are
//!   known to lead there. They keep their places until the gate opens, and others pass by.
//! - An idle key costs nothing: an entry without readiness, timer or running sync is removed.
//!
//! The queue has no size limit of its own: it holds at most one entry for each parent that its owner caches, and a key
//! that was refused would be a sync that is lost.

mod backoff;
mod fairness;
mod line;
mod seat;
mod timers;
mod work;

#[cfg(test)]
mod gates_tests;
#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

pub use self::backoff::{BACKOFF_BASE, BACKOFF_CAP, backoff};
pub use self::fairness::{BACKGROUND_SHARE, Priority, RESERVE_PART, SPARE_PART};
pub use self::seat::{Gate, Lanes};
pub use self::work::{Depth, FREE_REPEATS, Outcome, Popped, Queue, RETRY_AFTER_MIN, Stats, TIMERS_AT_ONCE};
