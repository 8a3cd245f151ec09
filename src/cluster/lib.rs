//! Kubernetes I/O: one client, reads and writes of raw objects, the watch pump, discovery, events.
//!
//! Never decides: what to watch and write is the engine's business, what follows from an answer is core's. Nothing
//! here retries a write; the queue does that.

mod client;
mod connect;
mod discovery;
mod error;
mod events;
mod lease;
mod pump;
mod rate;
mod record;

pub use client::{
    Client, Found, Listed, MAX_ANSWER_BYTES, MAX_CALLS_IN_FLIGHT, MAX_LISTED, Meter, Page, Preconditions,
    WRITE_TIMEOUT, boot_time,
};
pub use connect::{Another, Connection, connect};
pub use discovery::Discovery;
pub use error::Error;
pub use events::{Event, Events, Level, MAX_QUEUED_EVENTS, Subject};
pub use lease::Lease;
pub use pump::{Roused, Sink, Watch, run as run_pump};
