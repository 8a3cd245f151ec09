//! The three-way merge of children, against a plain one and its own promises.

use ringmaster_core::plan::merge::{desired_annotation, merge, merge_object, same};
use serde_json::{Value, json};

use super::source::{Source, levels};

#[path = "../../../src/core/plan/merge/plain.rs"]
mod plain;

/// Three objects: as lines of JSON behind a first byte that is even, else made by the grammar.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let (observed, last, desired) = if source.flag() {
        let last = source.flag().then(|| source.value());
        let values = (source.value(), last, source.value());
        // What is merged was read from text, which has at most the levels that serde_json takes.
        if [Some(&values.0), values.1.as_ref(), Some(&values.2)].into_iter().flatten().any(|value| levels(value) > 127)
        {
            return;
        }
        values
    } else {
        let mut lines = source.rest().split(|byte| *byte == b'\n').map(serde_json::from_slice::<Value>);
        let (Some(Ok(observed)), Some(last), Some(Ok(desired))) = (lines.next(), lines.next(), lines.next()) else {
            return;
        };
        (observed, last.ok(), desired)
    };
    check(&observed, last.as_ref(), &desired);
}

fn check(observed: &Value, last: Option<&Value>, desired: &Value) {
    let merged = merge(observed, last, desired);
    if !desired.is_null() {
        assert_eq!(merged, plain::merge(observed, last, desired), "the plain merge");
    }
    assert_eq!(merge(&merged, Some(desired), desired), merged, "merging again");
    assert!(same(&merged, &merged));

    let object = merge_object(observed, last, desired);
    assert_eq!(merge_object(&object, Some(desired), desired), object, "merging an object again");
    assert_eq!(object.get("status"), observed.get("status"), "status");
    for field in plain::KEPT {
        let of = |value: &Value| value.get("metadata").and_then(|metadata| metadata.get(field)).cloned();
        assert_eq!(of(&object), of(observed), "metadata.{field}");
    }
    foreign_fields_stay(observed, last, desired, &object);
    let expected = if observed.is_object() { observed.clone() } else { json!({}) };
    if observed.get("metadata").is_none_or(|metadata| metadata.is_object() && tidy_finalizers(metadata)) {
        assert_eq!(merge_object(observed, None, &json!({})), expected, "saying nothing");
    }

    // What is recorded reads back as what was desired, so that the next sync finds nothing to do.
    let recorded: Value = serde_json::from_str(&desired_annotation(desired, "x")).expect("JSON");
    let mut plain = desired.clone();
    if let Some(all) = plain.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
        all.remove("x");
    }
    assert!(same(&recorded, &plain), "recorded {recorded}");
}

/// A list that isn't empty, or none: an empty one is left out.
fn tidy_finalizers(metadata: &Value) -> bool {
    metadata.get("finalizers").is_none_or(|all| all.as_array().is_some_and(|all| !all.is_empty()))
}

/// What neither the last nor this wish mentions is in the result as observed.
fn foreign_fields_stay(observed: &Value, last: Option<&Value>, desired: &Value, merged: &Value) {
    let (Some(observed), Some(desired)) = (observed.as_object(), desired.as_object()) else { return };
    let mentions = |object: Option<&Value>, key: &str| object.and_then(|o| o.get(key)).is_some_and(|v| !v.is_null());
    for (key, value) in observed {
        let wished = desired.get(key).filter(|value| !value.is_null());
        match wished {
            _ if key == "metadata" => {}
            None if !mentions(last, key) => assert_eq!(merged.get(key), Some(value), "{key} must stay"),
            Some(wished) if key != "status" => {
                foreign_fields_stay(value, last.and_then(|last| last.get(key)), wished, &merged[key]);
            }
            _ => {}
        }
    }
}
