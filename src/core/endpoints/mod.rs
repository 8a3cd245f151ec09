//! Which of a webhook's replicas is called, how much of it, and when one is left out.
//!
//! ```text
//!   slices   what a Service's EndpointSlices say: which addresses are ready
//!   choice   shard -> endpoint, the same at every member that sees the same endpoints
//!   health   ejection, probes, return
//!   limit    how many calls an endpoint takes at once, learnt from how it answers
//!   gate     whose turn it is when more is wanted: controllers take turns
//!   standing what a controller's status says of all that
//! ```
//!
//! Never connects, never waits: the hooks crate does, and asks here.

mod choice;
mod gate;
mod health;
mod limit;
mod slices;
mod standing;

#[cfg(test)]
mod crowd_tests;

pub use choice::{Choice, MAX_ENDPOINTS};
pub use gate::{Entered, FEWEST_WAITING, Gate};
pub use health::{ERRING_AFTER, Health};
pub use limit::{Begun, Ended, Limit, MOST_EXTRA};
pub use slices::{Port, Ready, is_headless, port_name, ready};
pub use standing::{Damper, MAX_NAMED, Source, Standing};
