//! HTTP out: hook calls.
//!
//! Never decides what to send or what a reply means: bytes go out, bytes within a limit come back. Nothing here
//! retries: a call may have had effects, and the queue knows when to try again.

mod client;
mod error;
mod policy;
mod resolve;

pub use client::{Hooks, Meter, Reply, Target};
pub use error::Error;
pub use policy::{Policy, check_url};
pub use resolve::Overrides;
