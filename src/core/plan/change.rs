//! What a plan changes, in a few words: for people whose webhook never comes to rest.
//!
//! Never repeats a value: names of fields are what helps, and values may be secret.

use serde_json::Value;

use super::composite::{Input, NewStatus, Plan};
use super::merge;
use super::serverside::How;
use crate::hook::excerpt;
use crate::object::Object;

/// How much of a field's path is told, in characters.
const MAX_PATH_CHARS: usize = 120;

/// The first thing that a plan changes, and how many more there are; empty for a plan that changes nothing.
///
/// `ConfigMap shop/a: data.time`, `ConfigMap shop/a is created, and 2 more`.
#[must_use]
pub fn describe(plan: &Plan, input: &Input<'_>) -> String {
    let kind = |index: usize| input.kinds.get(index).map_or("", |kind| &*kind.resource.kind);
    let first = if let Some(update) = plan.updates.first() {
        let path = serde_json::from_slice(&update.body).ok().and_then(|wanted: Value| {
            let (mut wanted, mut observed) = (wanted, update.object.value());
            // It follows from the rest, and would come first.
            for object in [&mut wanted, &mut observed] {
                if let Some(annotations) = object["metadata"]["annotations"].as_object_mut() {
                    annotations.remove(input.controller.dialect.last_applied);
                }
            }
            match update.how {
                How::Replace => difference(&observed, &wanted),
                How::Apply { .. } => difference(&said(&observed, &wanted), &wanted),
            }
        });
        let path = path.unwrap_or_else(|| "fields that are no longer wanted".to_owned());
        format!("{} {}: {path}", kind(update.kind), update.object.key())
    } else if let Some(create) = plan.creates.first() {
        format!("{} {} is created", kind(create.kind), create.key)
    } else if let Some(delete) = plan.deletes.first() {
        let why = if delete.recreate { "is deleted to be made anew" } else { "is deleted" };
        format!("{} {} {why}", kind(delete.kind), delete.object.key())
    } else if let Some(decoration) = &plan.decoration {
        let labels = decoration.labels.keys().map(|key| ("labels", key));
        let annotations = decoration.annotations.keys().map(|key| ("annotations", key));
        let first = labels.chain(annotations).next();
        first.map(|(field, key)| excerpt(&format!("{field}: {key}"), MAX_PATH_CHARS)).unwrap_or_default()
    } else if let Some(status) = &plan.status {
        let present: Value = input.parent.section("status").unwrap_or_default();
        format!("status: {}", difference(&present, status.wanted()).unwrap_or_default())
    } else {
        return String::new();
    };
    let own = usize::from(plan.status.is_some()) + usize::from(plan.decoration.is_some());
    match plan.updates.len() + plan.creates.len() + plan.deletes.len() + own {
        0 | 1 => first,
        count => format!("{first}, and {} more", count - 1),
    }
}

/// What of `observed` an apply of `wanted` may speak of; lists stay whole.
fn said(observed: &Value, wanted: &Value) -> Value {
    let (Value::Object(observed), Value::Object(wanted)) = (observed, wanted) else { return observed.clone() };
    let both = wanted.iter().filter_map(|(name, wanted)| Some((name.clone(), said(observed.get(name)?, wanted))));
    Value::Object(both.collect())
}

/// The path of the first field of the status that a kind doesn't keep, if writing this changed nothing of the parent; `None`
/// if that is only the generation, which few miss.
#[must_use]
pub fn dropped(status: &NewStatus, parent: &Object) -> Option<String> {
    let present: Value = parent.section("status").unwrap_or_default();
    let mut wanted = status.wanted().clone();
    if let Some(fields) = wanted.as_object_mut() {
        match present.get("observedGeneration") {
            Some(generation) => fields.insert("observedGeneration".to_owned(), generation.clone()),
            None => fields.remove("observedGeneration"),
        };
    }
    difference(&present, &wanted)
}

/// The path of the first field that differs, with dots, items of lists by number; `None` if none does.
fn difference(old: &Value, new: &Value) -> Option<String> {
    let mut path = String::new();
    let (mut old, mut new) = (old, new);
    if merge::same(old, new) {
        return None;
    }
    loop {
        let next = match (old, new) {
            (Value::Object(a), Value::Object(b)) => {
                let mut names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
                let name = names.find(|name| match (a.get(*name), b.get(*name)) {
                    (Some(a), Some(b)) => !merge::same(a, b),
                    _ => true,
                });
                name.map(|name| (name.clone(), a.get(name), b.get(name)))
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                let at = a.iter().zip(b).position(|(a, b)| !merge::same(a, b));
                at.map(|at| (at.to_string(), a.get(at), b.get(at)))
            }
            _ => None,
        };
        let Some((name, a, b)) = next else { break };
        if !path.is_empty() {
            path.push('.');
        }
        path.push_str(&name);
        let (Some(a), Some(b)) = (a, b) else { break };
        (old, new) = (a, b);
    }
    Some(excerpt(&path, MAX_PATH_CHARS))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_an_apply_says_nothing_of_is_no_difference() {
        let (observed, wanted) = (json!({"a": 1, "b": {"c": 2, "d": [3]}}), json!({"b": {"d": [3], "e": 5}}));
        assert_eq!(said(&observed, &wanted), json!({"b": {"d": [3]}}));
        assert_eq!(difference(&said(&observed, &wanted), &wanted).unwrap(), "b.e");
    }

    #[test]
    fn the_first_difference_is_named_by_its_path() {
        let base = json!({"a": 1, "data": {"k": "1", "list": [{"x": 1}, {"x": 2}]}});
        let differs = |new: Value| difference(&base, &new);
        assert_eq!(differs(base.clone()), None);
        let with = |pointer: &str, value: Value| {
            let mut new = base.clone();
            *new.pointer_mut(pointer).unwrap() = value;
            differs(new).unwrap()
        };
        assert_eq!(with("/data/k", json!("2")), "data.k");
        assert_eq!(with("/data/list/1/x", json!(3)), "data.list.1.x");
        assert_eq!(with("/data/list", json!([])), "data.list");
        assert_eq!(with("/data", json!(null)), "data");
        assert_eq!(differs(json!({"a": 1})).unwrap(), "data");
        assert_eq!(difference(&json!({}), &json!({"b": {"c": 1}})).unwrap(), "b");
        let long = json!({ ("x".repeat(1000)): 1 });
        assert!(difference(&json!({}), &long).unwrap().chars().count() <= MAX_PATH_CHARS + 1);
    }
}
