//! JSON merge patch, RFC 7386, as evanphx/json-patch v4.13 does it in the real server.
//!
//! Never fails: what a patch makes of an object is for the kind to judge.

use serde_json::{Map, Value};

use super::object_or_null;
use crate::error::Error;

/// The patch of a request.
///
/// # Errors
/// 400 if it isn't a JSON object.
pub fn merge_body(body: &[u8]) -> Result<Value, Error> {
    let value = object_or_null(body, "error decoding patch: ")?;
    if value.is_null() { Err(Error::bad_request("Invalid JSON Patch")) } else { Ok(value) }
}

/// Applies a patch.
///
/// Unlike RFC 7386, the real server's library also drops nulls in objects inside a new list, but not where the list
/// takes the place of an object.
#[must_use]
pub fn merge_patch(mut target: Value, patch: &Value) -> Value {
    match (&mut target, patch) {
        (Value::Object(into), Value::Object(fields)) => {
            merge_into(into, fields);
            target
        }
        _ => without_nulls(patch),
    }
}

fn merge_into(into: &mut Map<String, Value>, patch: &Map<String, Value>) {
    for (key, value) in patch {
        match (into.get_mut(key), value) {
            (_, Value::Null) => {
                into.remove(key);
            }
            (Some(Value::Object(current)), Value::Object(fields)) => merge_into(current, fields),
            (Some(current @ Value::Object(_)), _) => *current = value.clone(),
            _ => {
                into.insert(key.clone(), without_nulls(value));
            }
        }
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(_, value)| !value.is_null());
            Value::Object(kept.map(|(key, value)| (key.clone(), without_nulls(value))).collect())
        }
        Value::Array(list) => Value::Array(list.iter().map(without_nulls).collect()),
        other => other.clone(),
    }
}
