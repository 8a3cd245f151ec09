//! Lists of type set and map: each item, or each combination of keys, only once.
//!
//! Nothing else about lists is checked here.

use std::collections::HashMap;

use serde_json::{Map, Value};

use super::{
    compile::{ListType, Node},
    print,
};
use crate::field_error::FieldError;

/// Checks all lists of a value.
pub(super) fn validate(value: &Value, node: &Node, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Array(items) => {
            match &node.list_type {
                ListType::Set => {
                    let texts: Vec<String> = items.iter().map(print::json).collect();
                    for i in repeated(&texts) {
                        errors.push(FieldError::duplicate(format!("{path}[{i}]"), print::value(&items[i])));
                    }
                }
                ListType::Map(keys) => validate_map(items, keys, path, errors),
                ListType::Atomic => {}
            }
            if let Some(known) = &node.items {
                for (i, item) in items.iter().enumerate() {
                    validate(item, known, &format!("{path}[{i}]"), errors);
                }
            }
        }
        Value::Object(fields) => {
            for (name, value) in fields {
                if let Some(known) = node.additional.node() {
                    validate(value, known, &format!("{path}[{name}]"), errors);
                }
                if let Some(known) = node.properties.get(name) {
                    let below = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                    validate(value, known, &below, errors);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn validate_map(items: &[Value], keys: &[String], path: &str, errors: &mut Vec<FieldError>) {
    let mut found = Vec::with_capacity(items.len());
    for (i, item) in items.iter().enumerate() {
        let fields = match item {
            Value::Object(fields) => Some(fields),
            Value::Null => None,
            other => {
                let detail = "must be an object for an array of list-type map";
                errors.push(FieldError::invalid(format!("{path}[{i}]"), print::value(other), detail));
                return;
            }
        };
        let mut key = Map::new();
        for name in keys {
            if let Some(value) = fields.and_then(|fields| fields.get(name)) {
                key.insert(name.clone(), value.clone());
            }
        }
        found.push(print::json(&Value::Object(key)));
    }
    for i in repeated(&found) {
        errors.push(FieldError::duplicate(format!("{path}[{i}]"), found[i].clone()));
    }
}

/// The second occurrence of each text that occurs more than once.
fn repeated(texts: &[String]) -> Vec<usize> {
    let mut seen: HashMap<&str, u32> = HashMap::with_capacity(texts.len());
    let mut second = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        let times = seen.entry(text).or_default();
        *times += 1;
        if *times == 2 {
            second.push(i);
        }
    }
    second
}
