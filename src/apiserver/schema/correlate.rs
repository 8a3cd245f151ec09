//! Finds the old value of what is validated on an update, so that a fault that was there already doesn't block it.
//!
//! The source of the rules is Kubernetes' CRD ratcheting (KEP 4008, stable in 1.33).

use serde_json::Value;

use super::{
    compile::{ListType, Node},
    print,
};

/// A value, its old value, and the schema by which its parts are found again.
#[derive(Clone, Copy)]
pub(super) struct Pair<'a> {
    /// The value.
    pub new: &'a Value,
    /// What it was.
    pub old: &'a Value,
    /// Its schema.
    pub node: &'a Node,
}

impl<'a> Pair<'a> {
    /// The field of both.
    pub(super) fn key(self, name: &str) -> Option<Self> {
        let (new, old) = (self.new.as_object()?.get(name)?, self.old.as_object()?.get(name)?);
        let node = self.node.properties.get(name).or_else(|| self.node.additional.node())?;
        Some(Self { new, old, node })
    }

    /// The item of the new list, and the old item with its keys; only lists of type map have keys.
    pub(super) fn index(self, i: usize) -> Option<Self> {
        let new = self.new.as_array()?.get(i)?;
        let old = old_item(self.node, self.old.as_array()?, new)?;
        Some(Self { new, old, node: self.node.items.as_deref()? })
    }

    /// Whether nothing changed that the schema knows.
    pub(super) fn unchanged(self) -> bool {
        match (self.new, self.old) {
            (Value::Null, Value::Null) => true,
            (Value::Array(new), Value::Array(old)) => {
                new.len() == old.len()
                    && match self.node.list_type {
                        ListType::Map(_) if !new.is_empty() => {
                            (0..new.len()).all(|i| self.index(i).is_some_and(Self::unchanged))
                        }
                        _ => new == old,
                    }
            }
            (Value::Object(new), Value::Object(old)) => {
                new.len() == old.len() && new.keys().all(|name| self.key(name).is_some_and(Self::unchanged))
            }
            (new, old) => !new.is_null() && new == old,
        }
    }
}

/// The old item that has the keys of a new one.
pub(super) fn old_item<'a>(list: &Node, old: &'a [Value], new: &Value) -> Option<&'a Value> {
    let ListType::Map(keys) = &list.list_type else { return None };
    let key = key_of(new, keys)?;
    old.iter().find(|item| key_of(item, keys).is_some_and(|other| other == key))
}

fn key_of(item: &Value, keys: &[String]) -> Option<Vec<String>> {
    let fields = item.as_object()?;
    keys.iter()
        .map(|key| fields.get(key).filter(|value| !value.is_array() && !value.is_object() && !value.is_null()))
        .map(|value| value.map(print::json))
        .collect::<Option<Vec<_>>>()
        .filter(|keys| !keys.is_empty())
}
