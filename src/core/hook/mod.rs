//! The hook protocol: Metacontroller's JSON, spliced from cached bytes on the way out and read within limits on the
//! way in.
//!
//! Never sends anything, and never parses what it only passes on.

mod customize;
mod decorated;
mod extras;
mod reply;
mod request;
mod values;

pub(crate) use reply::{MAX_NAME_CHARS, MAX_PROBLEM_CHARS, excerpt};
pub(crate) use values::find;

pub use customize::{MAX_NAMES, MAX_RULES, RelatedRule, customize_request, related_rules};
pub use decorated::Decoration;
pub use extras::{HookCondition, HookEvent, MAX_CONDITIONS, MAX_EVENTS, MAX_MESSAGE_BYTES, MAX_REASON_BYTES};
pub use reply::{Desired, Error, Limits, MAX_RESYNC_AFTER, MIN_RESYNC_AFTER, SyncReply};
pub use request::{Observed, decorator_request, inner_key, sync_request};
