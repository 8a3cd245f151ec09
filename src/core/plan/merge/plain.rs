//! The plain merge, for tests to compare with: drop what says nothing, then edit a copy in place, looking items up by
//! walking; and what no merge touches. The fuzz target of the merge has both too (tests/fuzz/targets/merge.rs).
//!
//! Never shares a line with the merge itself.

use serde_json::{Map, Number, Value};

/// The fields that may name an item of a list, the first that fits wins.
const ITEM_KEYS: [&str; 7] = ["containerPort", "port", "mountPath", "name", "uid", "ip", "path"];

/// The fields of `metadata` that the API server or claiming sets and a hook never changes.
pub(super) const KEPT: [&str; 11] = [
    "name",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "ownerReferences",
];

pub(super) fn merge(observed: &Value, last_applied: Option<&Value>, desired: &Value) -> Value {
    let (mut merged, mut last_applied, mut desired) =
        (observed.clone(), last_applied.cloned().unwrap_or(Value::Null), desired.clone());
    strip(&mut last_applied);
    strip(&mut desired);
    edit(&mut merged, &last_applied, &desired);
    merged
}

fn strip(value: &mut Value) {
    if let Some(object) = value.as_object_mut() {
        object.retain(|_, value| !value.is_null());
        object.values_mut().for_each(strip);
    } else if let Some(list) = value.as_array_mut() {
        list.retain(|value| !value.is_null());
        list.iter_mut().for_each(strip);
    }
}

fn edit(target: &mut Value, last_applied: &Value, desired: &Value) {
    if let (Value::Object(target), Value::Object(desired)) = (&mut *target, desired) {
        for key in last_applied.as_object().into_iter().flat_map(Map::keys) {
            if !desired.contains_key(key) {
                target.remove(key);
            }
        }
        for (key, value) in desired {
            edit(target.entry(key).or_insert(Value::Null), &last_applied[key], value);
        }
        return;
    }
    let empty = Vec::new();
    if let (Value::Array(items), Value::Array(wanted)) = (&*target, desired) {
        let before = last_applied.as_array().unwrap_or(&empty);
        let fits = |field: &&&str| [items, before, wanted].iter().all(|list| fits(list, field));
        if let Some(field) = ITEM_KEYS.iter().find(fits) {
            let find =
                |list: &[Value], item: &Value| list.iter().find(|other| key(other, field) == key(item, field)).cloned();
            let mut merged = Vec::new();
            for item in items {
                match (find(before, item), find(wanted, item)) {
                    (before, Some(wanted)) => {
                        let mut item = item.clone();
                        edit(&mut item, &before.unwrap_or_default(), &wanted);
                        merged.push(item);
                    }
                    (None, None) => merged.push(item.clone()),
                    (Some(_), None) => {}
                }
            }
            merged.extend(wanted.iter().filter(|item| find(items, item).is_none()).cloned());
            *target = Value::Array(merged);
            return;
        }
    }
    *target = desired.clone();
}

fn key(item: &Value, field: &str) -> Option<String> {
    match item.get(field)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number_key(number)),
        Value::Bool(flag) => Some(format!("{flag}")),
        _ => None,
    }
}

/// Integers by their digits, also those that are written as floats.
fn number_key(number: &Number) -> String {
    const LIMIT: f64 = 18_446_744_073_709_551_616.0;
    match number.as_f64() {
        Some(float) if number.is_f64() && float.fract() == 0.0 && float.abs() < LIMIT => format!("{}", float as i128),
        _ => number.to_string(),
    }
}

fn fits(list: &[Value], field: &str) -> bool {
    let keys: Vec<_> = list.iter().map(|item| key(item, field)).collect();
    keys.iter().enumerate().all(|(index, key)| key.is_some() && !keys[..index].contains(key))
}
