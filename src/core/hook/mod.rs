//! The hook protocol: Metacontroller's JSON, spliced from cached bytes on the way out and read within limits on the
//! way in.
//!
//! Never sends anything, and never parses what it only passes on.

mod reply;
mod request;

pub(crate) use reply::{MAX_NAME_CHARS, excerpt};

pub use reply::{Desired, Error, Limits, MAX_RESYNC_AFTER, SyncReply};
pub use request::{Observed, inner_key, sync_request};
