//! Server-side apply, and who manages which fields (`metadata.managedFields`).
//!
//! ```text
//!   step, set, fields    paths of fields, sets of them, their JSON
//!   schema, typed        which lists and maps merge, and how
//!   compare, paths, merge    two values compared; a value's fields; a configuration merged
//!   managed, write       the entries, and what a write does to them
//!   track, configure     creates, updates and patches; apply
//! ```
//!
//! Pure: no clock, no store. Never judges whether an object is valid, and never sets a default. The rules are those of
//! kube-apiserver v1.36.3 (structured-merge-diff v6, apimachinery's managedfields).

mod compare;
mod configure;
mod fields;
mod managed;
mod merge;
mod paths;
mod schema;
mod set;
mod step;
mod track;
mod typed;
mod write;

#[cfg(test)]
mod tests;

pub use configure::{Applied, apply, named};
pub use managed::same_but_times;
pub use schema::Schema;
pub use track::{Tracked, Update, track};
pub use write::{Reset, Versions, Write};

/// Why fields can't be tracked.
#[derive(Debug, thiserror::Error)]
enum Error {
    /// A value doesn't fit its schema.
    #[error("{0}")]
    Unfit(String),
    /// `metadata.managedFields` can't be read.
    #[error("{0}")]
    Fields(String),
}
