//! Drops what a schema doesn't know, and the nulls that it doesn't allow.
//!
//! The metadata of objects is `meta`'s; values are never changed here, only removed.

use serde_json::Value;

use super::compile::{Additional, Node};

/// The fields that every object has.
const META_FIELDS: [&str; 3] = ["apiVersion", "kind", "metadata"];

/// Drops unknown fields of a whole object; adds the sorted paths of what was dropped.
pub(super) fn unknown_fields(object: &mut Value, root: &Node, dropped: &mut Vec<String>) {
    let mut paths = Vec::new();
    prune(object, Some(root), true, "", &mut paths);
    paths.sort_unstable();
    dropped.append(&mut paths);
}

/// Drops unknown fields of a part of an object, as of a default.
pub(super) fn part(value: &mut Value, node: &Node) {
    prune(value, Some(node), node.embedded, "", &mut Vec::new());
}

fn prune(value: &mut Value, node: Option<&Node>, embedded: bool, path: &str, dropped: &mut Vec<String>) {
    if let Some(node) = node
        && node.preserve_unknown
    {
        keep(value, node, embedded, path, dropped);
        return;
    }
    match value {
        Value::Object(fields) => {
            let mut gone = Vec::new();
            for (name, value) in fields.iter_mut() {
                if embedded && META_FIELDS.contains(&name.as_str()) {
                    continue;
                }
                let below = child(path, name);
                match node.map_or(Field::Unknown, |node| Field::of(node, name)) {
                    Field::Known(known) => prune(value, Some(known), known.embedded, &below, dropped),
                    Field::Bare => prune(value, None, false, &below, dropped),
                    Field::Unknown => {
                        if node.is_none() || !META_FIELDS.contains(&name.as_str()) || !path.is_empty() {
                            dropped.push(below);
                        }
                        gone.push(name.clone());
                    }
                }
            }
            for name in gone {
                fields.remove(&name);
            }
        }
        Value::Array(items) => {
            let known = node.and_then(|node| node.items.as_deref());
            for (i, item) in items.iter_mut().enumerate() {
                prune(item, known, known.is_some_and(|node| node.embedded), &format!("{path}[{i}]"), dropped);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// What a schema says of a field.
enum Field<'a> {
    /// Nothing.
    Unknown,
    /// That it may be there, and nothing of what is below it.
    Bare,
    /// What it is.
    Known(&'a Node),
}

impl<'a> Field<'a> {
    fn of(node: &'a Node, name: &str) -> Self {
        match (node.properties.get(name), &node.additional) {
            (Some(known), _) => Self::Known(known),
            (None, Additional::Schema(known)) => Self::Known(known),
            (None, Additional::Flag(_)) => Self::Bare,
            (None, Additional::Unsaid) => Self::Unknown,
        }
    }
}

/// Keeps unknown fields, but not those below the fields that are known.
fn keep(value: &mut Value, node: &Node, embedded: bool, path: &str, dropped: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                if embedded && META_FIELDS.contains(&name.as_str()) {
                    continue;
                }
                match Field::of(node, name) {
                    Field::Known(known) => prune(value, Some(known), known.embedded, &child(path, name), dropped),
                    Field::Bare => prune(value, None, false, &child(path, name), dropped),
                    Field::Unknown => {}
                }
            }
        }
        Value::Array(items) => {
            if let Some(known) = &node.items {
                for (i, item) in items.iter_mut().enumerate() {
                    keep(item, known, known.embedded, &format!("{path}[{i}]"), dropped);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

fn child(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// Drops the nulls of fields that may not be null and have no default; items of lists stay.
pub(super) fn nulls(value: &mut Value, node: Option<&Node>) {
    match value {
        Value::Object(fields) => fields.retain(|name, value| {
            let known = node.and_then(|node| node.properties.get(name).or_else(|| node.additional.node()));
            let unwanted = value.is_null() && known.is_some_and(|node| !node.nullable && node.default.is_none());
            if !unwanted {
                nulls(value, known);
            }
            !unwanted
        }),
        Value::Array(items) => {
            let known = node.and_then(|node| node.items.as_deref());
            items.iter_mut().for_each(|item| nulls(item, known));
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
