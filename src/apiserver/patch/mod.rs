//! The three kinds of patch: JSON patch, JSON merge patch, Kubernetes' strategic merge patch.
//!
//! Never validates or defaults what comes out, and never drops what a kind doesn't know: a strategic merge patch leaves
//! nulls and unknown fields in parts that were new, which the decoding of the kind removes, as in the real server.

mod gotext;
mod info;
mod json;
mod merge;
mod strategic;
#[cfg(test)]
mod tests;

use serde_json::{Value, json};

use crate::error::Error;

pub(crate) use gotext::{json as go_json, type_name as go_type_name};
pub use gotext::{plain, syntax_error};
pub use info::{FieldMerge, MergeInfo, MergeTree, MissingSchema, Strategy};
pub use json::{COPIED_BYTES_LIMIT, OPERATIONS_LIMIT, json_patch};
pub use merge::{merge_body, merge_patch};
pub use strategic::{strategic, strategic_body};

/// 422 for a patch that doesn't fit the object. The real server hides why.
fn unprocessable() -> Error {
    let message = "the server rejected our request due to an error in our request";
    Error { details: json!({}), ..Error::new(422, "Invalid", message) }
}

/// 500 for a patch that doesn't fit the kind. The real server names no reason.
fn unknown(message: impl Into<String>) -> Error {
    Error::new(500, "", message)
}

/// 500 where the real server's handler panics and cuts the connection.
fn cut(what: &str) -> Error {
    unknown(format!("the patch can't be applied: {what}"))
}

/// 400 for what isn't JSON, with Go's words, behind `prefix`.
fn malformed(text: &[u8], prefix: &str, error: &serde_json::Error) -> Error {
    let words = syntax_error(text).unwrap_or_else(|| error.to_string());
    Error::bad_request(format!("{prefix}{words}"))
}

/// A body that has to be an object or null.
fn object_or_null(body: &[u8], prefix: &str) -> Result<Value, Error> {
    let value: Value =
        serde_json::from_str(&String::from_utf8_lossy(body)).map_err(|error| malformed(body, prefix, &error))?;
    if value.is_object() || value.is_null() {
        return Ok(value);
    }
    let kind = crate::field_error::json_kind(&value);
    Err(Error::bad_request(format!(
        "{prefix}json: cannot unmarshal {kind} into Go value of type map[string]interface {{}}"
    )))
}
