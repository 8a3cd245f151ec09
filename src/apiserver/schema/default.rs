//! Fills in the defaults of a schema.
//!
//! A default is set where a field is missing, or null without being nullable; never under allOf and the like.

use serde_json::Value;

use super::compile::Node;

/// Sets the defaults of one value and of everything below it.
pub(super) fn apply(value: &mut Value, node: &Node) {
    match value {
        Value::Object(fields) => {
            for (name, known) in &node.properties {
                let Some(default) = &known.default else { continue };
                if fields.get(name).is_none_or(|value| unwanted_null(value, known)) {
                    fields.insert(name.clone(), default.clone());
                }
            }
            for (name, value) in fields.iter_mut() {
                if let Some(known) = node.properties.get(name) {
                    apply(value, known);
                } else if let Some(known) = node.additional.node() {
                    replace_null(value, known);
                    apply(value, known);
                }
            }
        }
        Value::Array(items) => {
            let Some(known) = &node.items else { return };
            for item in items {
                replace_null(item, known);
                apply(item, known);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn unwanted_null(value: &Value, node: &Node) -> bool {
    value.is_null() && !node.nullable
}

fn replace_null(value: &mut Value, node: &Node) {
    if unwanted_null(value, node) {
        *value = node.default.clone().unwrap_or(Value::Null);
    }
}
