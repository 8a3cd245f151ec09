//! Rolling updates: a change of a parent reaches its children one by one, and waits for each.
//!
//! A revision is one state of a parent (of those of its fields that revisions keep), and the children that follow it, kept
//! as a `ControllerRevision` object. While a change rolls, the hook is asked once for each state that children still
//! follow, and each child gets what the hook answered for its own:
//!
//! ```text
//!   Live::of(parent, revision objects)   the states that are followed
//!   parent_of(revision)                  the parent as the hook is asked for it
//!   step(live, replies)                  what to write of revisions, and the plan that follows
//! ```
//!
//! Everything is decided on objects alone, so a rollout goes on where it was, whoever goes on with it. Never moves more
//! than one child at a time, and never while a child of the newest state isn't as it shall be.

mod checks;
mod fields;
mod live;
mod revision;
mod step;
#[cfg(test)]
mod tests;

pub use fields::{FieldPath, MAX_FIELD_PATHS, MAX_PATH_BYTES};
pub use live::{Live, MAX_LIVE_REVISIONS};
pub use revision::{ChildId, PLURAL, Revision, is_intact, is_of, kind_selector, parent_of, revision_api_version};
pub use step::{Input, Step, Write, step};
