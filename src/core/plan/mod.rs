//! From what is and what shall be to what to do: `(parent, children, reply) -> actions`.
//!
//! Never does any of it; see the engine for that.

mod change;
mod claim;
pub mod composite;
mod conditions;
pub mod contest;
pub mod decorator;
mod finalize;
pub mod merge;
pub mod owned;
pub mod serverside;

pub use change::{describe, dropped};
pub(crate) use claim::controller_reference;
pub use claim::{
    CONTROLLER_UID_LABEL, Claims, adopt_patch, claim, is_attachment, is_still_owned, label_patch, parent_selector,
    release_patch,
};
pub use finalize::{Phase, finalizer_patch, has_finalizer, manages_children, phase};
