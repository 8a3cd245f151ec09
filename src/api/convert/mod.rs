//! Objects of each API group become the one model that the engine knows, checked and with defaults filled in.
//!
//! Every rule that an API server enforces is checked here again, because the object may come from one that didn't.
//! Nothing here touches the network: whether a kind exists or a webhook answers is found out later.

mod decorators;
mod duration;
mod endpoint_configs;
mod metacontroller;
mod ringmaster;
mod rings;
mod rules;
#[cfg(test)]
mod tests;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::controller::{Apply, Controller};
use ringmaster_core::dialect::{Dialect, METACONTROLLER};

pub use decorators::{metacontroller_decorator, ringmaster_decorator};
pub use metacontroller::metacontroller;
pub use ringmaster::ringmaster;
pub use rings::{ConvertedRing, DRAIN_TIMEOUT_DEFAULT, controller_sharding_ring, ring_from_json, ringmaster_ring};

/// A hook's timeout where none is given.
pub const TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// The shortest timeout of a hook.
pub const TIMEOUT_MIN: Duration = Duration::from_millis(1);
/// The longest timeout of a hook in our own group; Metacontroller's has no limit.
pub const TIMEOUT_MAX: Duration = Duration::from_secs(600);

/// A checked controller, and what its author should know about it.
#[derive(Clone, Debug)]
pub struct Converted {
    /// The controller; of one that decorates several kinds one for each of them, and never none.
    pub controllers: Vec<Controller>,
    /// Fields that have no effect, or another than their author may think of, each as `field: what happens`.
    pub warnings: Vec<String>,
}

/// What is wrong with an object: the field, and how to put it right.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct Error {
    /// The field, as a dotted path from the object's root.
    pub field: String,
    /// What is wrong, and the fix.
    pub message: String,
}

impl Error {
    fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// Converts the JSON of a `CompositeController` of the dialect's group. `apply` is how children of Metacontroller's are
/// written, whose objects don't say it.
///
/// # Errors
/// The first thing found wrong with the object.
pub fn from_json(dialect: &Dialect, json: Arc<[u8]>, apply: &Apply) -> Result<Converted, Error> {
    if dialect.group == METACONTROLLER.group {
        let object = serde_json::from_slice(&json).map_err(|error| undecodable(&error))?;
        metacontroller(&object, json, apply)
    } else {
        let object = serde_json::from_slice(&json).map_err(|error| undecodable(&error))?;
        ringmaster(&object, json)
    }
}

/// Converts the JSON of a `DecoratorController` of the dialect's group.
///
/// # Errors
/// The first thing found wrong with the object.
pub fn decorator_from_json(dialect: &Dialect, json: Arc<[u8]>, apply: &Apply) -> Result<Converted, Error> {
    if dialect.group == METACONTROLLER.group {
        let object = serde_json::from_slice(&json).map_err(|error| undecodable(&error))?;
        metacontroller_decorator(&object, json, apply)
    } else {
        let object = serde_json::from_slice(&json).map_err(|error| undecodable(&error))?;
        ringmaster_decorator(&object, json)
    }
}

fn undecodable(error: &serde_json::Error) -> Error {
    Error::new("object", format!("doesn't fit the kind ({error}); compare it with the CRD of this version"))
}
