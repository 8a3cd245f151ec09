//! What a verb answers: one object or a Status, as a tree or as it is stored.
//!
//! Never parses what nobody asks for: most objects go out as the bytes that are stored.

use std::borrow::Cow;
use std::sync::Arc;

use bytes::Bytes;
use ringmaster_core::object::Object;
use serde_json::Value;

use crate::registry::Definition;
use crate::shape;

/// An answer with one object or a Status.
pub struct Answer {
    /// HTTP code.
    pub code: u16,
    /// The body.
    pub body: Shown,
    /// `Warning` headers: what was ignored.
    pub warnings: Vec<String>,
}

/// An object or a Status.
pub enum Shown {
    /// Made for the answer.
    Tree(Value),
    /// Stored, in the version that is asked for.
    Stored(Arc<Definition>, Arc<Object>),
}

impl Shown {
    /// As a tree.
    #[must_use]
    pub fn tree(&self) -> Cow<'_, Value> {
        match self {
            Self::Tree(tree) => Cow::Borrowed(tree),
            Self::Stored(definition, object) => Cow::Owned(shape::shown(definition, object)),
        }
    }

    /// As JSON text, if that is there already; not a copy of it.
    #[must_use]
    pub fn json(&self) -> Option<Bytes> {
        match self {
            Self::Tree(_) => None,
            Self::Stored(definition, object) => {
                shape::is_shown_as_stored(definition, object).then(|| Bytes::from_owner(Json(Arc::clone(object))))
            }
        }
    }
}

/// A stored object's text, kept while it is sent.
struct Json(Arc<Object>);

impl AsRef<[u8]> for Json {
    fn as_ref(&self) -> &[u8] {
        self.0.json()
    }
}

impl From<Value> for Shown {
    fn from(tree: Value) -> Self {
        Self::Tree(tree)
    }
}
