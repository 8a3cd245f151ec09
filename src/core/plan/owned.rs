//! Whether an object is as if what is wanted had just been applied: what spares an apply that would change nothing.
//!
//! Knows no schemas: which lists are maps or sets, and what is one whole, is read from the fields that we own. Where that
//! doesn't tell, only what is the same to the letter counts: an apply too many does no harm, one too few does. So a value
//! that the API server writes otherwise than we do (`1000m`, a default within a whole such as a `fieldRef`) is a
//! difference; the engine notes the answer to an apply, and asks no second time for the same version.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::merge::same;
use crate::managed::Fields;

/// Whether applying `desired` would change nothing: all of it is there, and nothing that we own (`fields`) is missing in
/// it. `desired` has no nulls, and is compared without regard to what isn't in it and isn't ours.
///
/// Items of a list whose owned fields name keys are matched by those, with others' items between them; their order
/// counts, as an apply restores it. A set's order doesn't. Where `all_applied` is false, fields that are owned and missing
/// don't count: they are defaults that a plain write made ours.
#[must_use]
pub fn is_as_applied(observed: &Value, desired: &Value, fields: &Fields, all_applied: bool) -> bool {
    Walk { all_applied }.holds(observed, desired, Some(fields))
}

#[derive(Clone, Copy)]
struct Walk {
    all_applied: bool,
}

impl Walk {
    fn holds(self, observed: &Value, desired: &Value, fields: Option<&Fields>) -> bool {
        // A leaf is owned as a whole. Of what isn't owned at all nothing is known.
        let Some(fields) = fields.filter(|fields| fields.keys().any(|name| name != ".")) else {
            return same(observed, desired);
        };
        match (observed, desired) {
            (Value::Object(observed), Value::Object(desired)) => {
                desired.iter().all(|(name, value)| {
                    let owned = fields.get(&format!("f:{name}")).and_then(Value::as_object);
                    observed.get(name).is_some_and(|observed| self.holds(observed, value, owned))
                }) && (!self.all_applied
                    || fields.keys().all(|name| match name.strip_prefix("f:") {
                        Some(field) => desired.contains_key(field),
                        None => name == ".",
                    }))
            }
            (Value::Array(observed), Value::Array(desired)) => {
                let named = |mark: &str| fields.keys().any(|name| name.starts_with(mark));
                match (named("k:"), named("v:")) {
                    (true, false) => self.holds_items(observed, desired, fields),
                    (false, true) => self.holds_set(observed, desired, fields),
                    _ => observed.len() == desired.len() && observed.iter().zip(desired).all(|(a, b)| same(a, b)),
                }
            }
            _ => false,
        }
    }

    fn holds_set(self, observed: &[Value], desired: &[Value], fields: &Fields) -> bool {
        let is_in = |value: &Value, list: &[Value]| list.iter().any(|other| same(value, other));
        let mut owned = fields.keys().filter_map(|name| name.strip_prefix("v:"));
        desired.iter().all(|value| is_in(value, observed))
            && (!self.all_applied
                || owned.all(|text| serde_json::from_str(text).is_ok_and(|value: Value| is_in(&value, desired))))
    }

    fn holds_items(self, observed: &[Value], desired: &[Value], fields: &Fields) -> bool {
        let owned = fields.iter().filter_map(|(name, owned)| {
            let key: Value = serde_json::from_str(name.strip_prefix("k:")?).ok()?;
            Some((key, owned.as_object()?))
        });
        let owned: Vec<(Value, &Fields)> = owned.collect();
        let Some(Value::Object(first)) = owned.first().map(|(key, _)| key) else { return false };
        let names: Vec<&str> = first.keys().map(String::as_str).collect();
        // The key's text; `None` for an item that leaves a part of it to a default.
        let text = |item: &Value| -> Option<String> {
            let parts: Option<Vec<String>> =
                names.iter().map(|name| item.get(*name).map(ToString::to_string)).collect();
            Some(parts?.join(","))
        };
        let owned: BTreeMap<String, &(Value, &Fields)> =
            owned.iter().filter_map(|item| Some((text(&item.0)?, item))).collect();
        let present: BTreeMap<String, (usize, &Value)> =
            observed.iter().enumerate().filter_map(|(at, item)| Some((text(item)?, (at, item)))).collect();
        let texts: Vec<Option<String>> = desired.iter().map(text).collect();
        let mut told: BTreeSet<String> = texts.iter().flatten().cloned().collect();
        let mut last = None;
        for (item, text) in desired.iter().zip(texts) {
            let fits =
                |key: &Value| names.iter().all(|name| item.get(*name).is_none_or(|part| same(part, &key[*name])));
            let by_default = || owned.iter().find(|(text, (key, _))| !told.contains(*text) && fits(key));
            let Some(text) = text.or_else(|| by_default().map(|(text, _)| text.clone())) else { return false };
            let (Some((_, fields)), Some((at, observed))) = (owned.get(&text), present.get(&text)) else {
                return false;
            };
            if last.is_some_and(|last| last >= *at) || !self.holds(observed, item, Some(*fields)) {
                return false;
            }
            last = Some(*at);
            told.insert(text);
        }
        !self.all_applied || owned.keys().all(|text| told.contains(text))
    }
}

#[cfg(test)]
#[path = "owned_tests.rs"]
mod tests;
