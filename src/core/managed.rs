//! What `metadata.managedFields` says of those who write for us: kept from an object, read, and put right.
//!
//! The format is the API server's: an entry for each manager, operation, version and subresource, whose `fieldsV1` is a
//! tree of `f:<field>`, `k:<keys of an item>`, `v:<value in a set>`, and `.` for the thing itself. Never decides what to
//! write; see [`crate::plan::owned`] for what follows from an entry.

use std::borrow::Cow;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Map, Value, json};

use crate::dialect::{CREATOR, Dialect, METACONTROLLER, RINGMASTER};
use crate::shards::{OWNER_LABEL, SELF_LABEL};

/// A `fieldsV1`.
pub type Fields = Map<String, Value>;

const APPLY: &str = "Apply";
const UPDATE: &str = "Update";

/// What the names of the finalizers begin with that controllers put on their parents.
const FINALIZERS: [&str; 2] = ["ringmaster.dev/", "metacontroller.io/"];

/// What is ours of an object's fields.
#[derive(Debug, Default, PartialEq)]
pub struct Owned {
    /// What was applied; `None` if nothing ever was.
    pub applied: Option<Fields>,
    /// What it was created with; `None` once that was handed over.
    pub created: Option<Fields>,
}

#[derive(Deserialize)]
struct Entry<'a> {
    #[serde(borrow, default)]
    manager: Cow<'a, str>,
    #[serde(borrow, default)]
    operation: Cow<'a, str>,
    #[serde(borrow, default)]
    subresource: Cow<'a, str>,
    #[serde(borrow, default, rename = "fieldsV1")]
    fields: Option<&'a RawValue>,
}

/// The entries of what some managers applied, and of what the creator of children made, but for subresources: as a JSON list
/// without what nobody asks for; empty if there are none, or if it can't be read.
pub(crate) fn keep(text: &str, managers: &[Arc<str>]) -> Box<str> {
    let mut kept = String::new();
    if managers.is_empty() {
        return kept.into_boxed_str();
    }
    let entries: Vec<Entry<'_>> = serde_json::from_str(text).unwrap_or_default();
    for entry in entries {
        let is_theirs = || managers.iter().any(|manager| **manager == *entry.manager);
        let is_ours = match &*entry.operation {
            APPLY => is_theirs(),
            UPDATE => entry.manager == CREATOR,
            _ => false,
        };
        let is_wanted = is_ours && entry.subresource.is_empty();
        let Some(fields) = entry.fields.filter(|_| is_wanted) else { continue };
        let (manager, operation) = (json!(entry.manager), json!(entry.operation));
        let start = if kept.is_empty() { '[' } else { ',' };
        let fields = fields.get();
        kept += &format!(r#"{start}{{"manager":{manager},"operation":{operation},"fieldsV1":{fields}}}"#);
    }
    if !kept.is_empty() {
        kept.push(']');
    }
    kept.into_boxed_str()
}

/// Reads what was kept of an object: what `manager` applied, and what a child that is to be applied was created with.
/// Without the label of the owner's shard: a controller that isn't sharded any more needn't write to be rid of it.
#[must_use]
pub fn owned(kept: &str, manager: &str) -> Owned {
    let mut owned = Owned::default();
    if kept.is_empty() {
        return owned;
    }
    let entries: Vec<Entry<'_>> = serde_json::from_str(kept).unwrap_or_default();
    for entry in entries {
        let Some(is_applied) = is_ours(&entry.manager, &entry.operation, manager, &[]) else { continue };
        let mut fields: Fields =
            entry.fields.and_then(|fields| serde_json::from_str(fields.get()).ok()).unwrap_or_default();
        without_label(&mut fields, OWNER_LABEL);
        let of = if is_applied { &mut owned.applied } else { &mut owned.created };
        unite(of.get_or_insert_default(), fields);
    }
    owned
}

/// Whether an entry is ours, and if so whether it is of what was applied.
fn is_ours(name: &str, operation: &str, manager: &str, mergers: &[&str]) -> Option<bool> {
    match operation {
        APPLY if name == manager => Some(true),
        UPDATE if name == CREATOR || mergers.contains(&name) => Some(false),
        _ => None,
    }
}

/// Adds the fields of another set.
pub(crate) fn unite(fields: &mut Fields, others: Fields) {
    for (name, other) in others {
        match (fields.get_mut(&name), other) {
            (Some(Value::Object(fields)), Value::Object(other)) => unite(fields, other),
            (Some(_), _) => {}
            (None, other) => {
                fields.insert(name, other);
            }
        }
    }
}

/// Takes out what isn't a child's but a parent's.
fn shed(fields: &mut Fields) {
    without_label(fields, SELF_LABEL);
    without(fields, "f:finalizers", |name| {
        let name = name.strip_prefix("v:\"").unwrap_or_default();
        FINALIZERS.iter().any(|prefix| name.starts_with(prefix))
    });
}

fn without_label(fields: &mut Fields, label: &str) {
    without(fields, "f:labels", |name| name.strip_prefix("f:") == Some(label));
}

/// Takes some fields out of a map or a set in the metadata; what is left empty by that goes too, as a leaf would mean all
/// of it.
pub(crate) fn without(fields: &mut Fields, of: &str, is_out: impl Fn(&str) -> bool) {
    let Some(Value::Object(metadata)) = fields.get_mut("f:metadata") else { return };
    let Some(Value::Object(inner)) = metadata.get_mut(of) else { return };
    let before = inner.len();
    inner.retain(|name, _| !is_out(name));
    if inner.len() == before || inner.keys().any(|name| name != ".") {
        return;
    }
    metadata.remove(of);
    if metadata.is_empty() {
        fields.remove("f:metadata");
    }
}

/// A JSON patch that hands our fields over to server-side apply: the entries of what the child was created with, or was
/// merged with, are united with the one of what `manager` applied (Kubernetes: "Upgrading from client-side apply to
/// server-side apply"), and the annotations of the time before go. `None` if there is nothing to do. `live` is the object
/// as it is, with its `managedFields`; the patch is a conflict for any other version of it.
#[must_use]
pub fn hand_over(live: &Value, manager: &str, dialect: &Dialect) -> Option<Value> {
    let metadata = live.get("metadata")?;
    let annotation = |name: &str| metadata.get("annotations").and_then(|annotations| annotations.get(name));
    let present = |name: &&str| annotation(name).is_some();
    // What the same writer writes to others' parents isn't ours, unless it merged the child, in whichever group.
    let merged = [&RINGMASTER, &METACONTROLLER].into_iter().find(|dialect| present(&dialect.last_applied));
    let mergers = merged.map_or(&[][..], |dialect| dialect.mergers);
    let last: Value = merged
        .and_then(|dialect| serde_json::from_str(annotation(dialect.last_applied)?.as_str()?).ok())
        .unwrap_or_default();
    // Said again, so that another version is a conflict; a test that fails would be an invalid patch.
    let mut patch = vec![json!({
        "op": "replace", "path": "/metadata/resourceVersion", "value": metadata.get("resourceVersion")?,
    })];
    let text = |entry: &Value, field: &str| entry.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let (mut entries, mut fields, mut base, mut is_split) = (Vec::new(), Fields::new(), None, false);
    for entry in metadata.get("managedFields").and_then(Value::as_array).into_iter().flatten() {
        let ours = is_ours(&text(entry, "manager"), &text(entry, "operation"), manager, mergers)
            .filter(|_| text(entry, "subresource").is_empty());
        let Some(is_applied) = ours else {
            entries.push(entry.clone());
            continue;
        };
        let mut more = entry.get("fieldsV1").and_then(Value::as_object).cloned().unwrap_or_default();
        if !is_applied {
            shed(&mut more);
            if text(entry, "manager") != CREATOR {
                // The rest is decoration by others' wish, and stays as it is.
                for of in ["labels", "annotations"] {
                    let is_merged = |name: &str| last["metadata"][of].get(name).is_some();
                    without(&mut more, &format!("f:{of}"), |name| {
                        name.strip_prefix("f:").is_some_and(|name| !is_merged(name))
                    });
                }
            }
            if more.is_empty() {
                entries.push(entry.clone());
                continue;
            }
        }
        unite(&mut fields, more);
        is_split |= !is_applied;
        if is_applied || base.is_none() {
            base = Some(entry.clone());
        }
    }
    if let Some(mut entry) = base.filter(|_| is_split) {
        entry["manager"] = manager.into();
        entry["operation"] = APPLY.into();
        entry["fieldsV1"] = Value::Object(fields);
        entries.push(entry);
        patch.push(json!({"op": "replace", "path": "/metadata/managedFields", "value": entries}));
    }
    let old = [RINGMASTER.last_applied, METACONTROLLER.last_applied].map(Some);
    for name in old.into_iter().chain([dialect.created_as]).flatten().filter(present) {
        let path = format!("/metadata/annotations/{}", name.replace('~', "~0").replace('/', "~1"));
        patch.push(json!({"op": "remove", "path": path}));
    }
    (patch.len() > 1).then_some(Value::Array(patch))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, operation: &str, fields: &Value) -> Value {
        json!({
            "manager": manager, "operation": operation, "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
            "fieldsType": "FieldsV1", "fieldsV1": fields,
        })
    }

    fn of_subresource(mut entry: Value) -> Value {
        entry["subresource"] = "status".into();
        entry
    }

    fn entries() -> Value {
        json!([
            entry(
                "ringmaster",
                "Update",
                &json!({
                    "f:data": {".": {}, "f:a": {}},
                    "f:metadata": {
                        "f:labels": {".": {}, "f:shard.ringmaster.dev/self": {}},
                        "f:finalizers": {".": {}, "v:\"ringmaster.dev/compositecontroller-x\"": {}, "v:\"mine\"": {}},
                    },
                })
            ),
            entry("kubectl", "Apply", &json!({"f:data": {"f:k": {}}})),
            entry("ringmaster", "Apply", &json!({"f:data": {"f:b": {}}, "f:x": {}})),
            of_subresource(entry("ringmaster", "Update", &json!({"f:status": {}}))),
            entry("ringmaster-create", "Update", &json!({"f:data": {"f:c": {}}})),
        ])
    }

    fn live(entries: &Value, annotation: &str) -> Value {
        let mut live = json!({"metadata": {"resourceVersion": "7", "managedFields": entries}});
        live["metadata"]["annotations"] = json!({"other": "y", (annotation): "x"});
        live
    }

    #[test]
    fn what_is_asked_for_is_kept_and_read() {
        let text = entries().to_string();
        assert_eq!(&*keep(&text, &[]), "");
        assert!(!keep(&text, &["nobody".into()]).contains("\"ringmaster\""));
        for bad in ["", "null", "{}", "[1]", r#"[{"manager":1}]"#] {
            assert_eq!(&*keep(bad, &["ringmaster".into()]), "", "{bad}");
        }
        let kept = keep(&text, &["ringmaster".into(), CREATOR.into()]);
        assert!(!kept.contains("time") && !kept.contains("status") && !kept.contains("f:k"), "{kept}");
        let fields = |value: Value| value.as_object().cloned();
        let ours = owned(&kept, "ringmaster");
        assert_eq!(ours.applied, fields(json!({"f:data": {"f:b": {}}, "f:x": {}})));
        assert_eq!(ours.created, fields(json!({"f:data": {"f:c": {}}})));
        assert_eq!(owned(&keep(&text, &["ringmaster".into()]), "nobody").applied, None);
        assert_eq!(owned("", "ringmaster"), Owned::default());
    }

    #[test]
    fn what_others_had_decorated_is_not_handed_over() {
        let merged = json!({
            "f:data": {"f:a": {}},
            "f:metadata": {"f:labels": {".": {}, "f:app": {}, "f:tier": {}}, "f:annotations": {"f:note": {}}},
        });
        let entries = json!([entry("ringmaster", "Update", &merged)]);
        for (dialect, before) in [(&RINGMASTER, &RINGMASTER), (&RINGMASTER, &METACONTROLLER)] {
            let mut live = live(&entries, before.last_applied);
            live["metadata"]["annotations"][before.last_applied] = r#"{"metadata":{"labels":{"app":"x"}}}"#.into();
            let patch = hand_over(&live, "ringmaster", dialect).unwrap();
            let fields = &patch[1]["value"][0]["fieldsV1"];
            assert_eq!(fields["f:data"], json!({"f:a": {}}));
            assert_eq!(fields["f:metadata"], json!({"f:labels": {".": {}, "f:app": {}}}), "{fields}");
            let removed = patch[2]["path"].as_str().unwrap();
            assert_eq!(removed, format!("/metadata/annotations/{}", before.last_applied.replace('/', "~1")));
        }
    }

    #[test]
    fn the_shards_label_is_never_ours_to_drop() {
        let labels = json!({"f:metadata": {"f:labels": {"f:shard.ringmaster.dev/owner": {}, "f:a": {}}}});
        let alone = json!({"f:metadata": {"f:labels": {".": {}, "f:shard.ringmaster.dev/owner": {}}}, "f:x": {}});
        let entries = json!([entry("ringmaster", "Apply", &labels), entry(CREATOR, "Update", &alone)]);
        let ours = owned(&keep(&entries.to_string(), &["ringmaster".into(), CREATOR.into()]), "ringmaster");
        assert_eq!(ours.applied.map(Value::Object), Some(json!({"f:metadata": {"f:labels": {"f:a": {}}}})));
        assert_eq!(ours.created.map(Value::Object), Some(json!({"f:x": {}})));
    }

    #[test]
    fn what_a_child_was_merged_or_created_with_becomes_what_was_applied() {
        let patch = hand_over(&live(&entries(), RINGMASTER.last_applied), "ringmaster", &RINGMASTER).unwrap();
        let before = entries();
        let united = json!({
            "f:data": {".": {}, "f:a": {}, "f:b": {}, "f:c": {}},
            "f:metadata": {"f:finalizers": {".": {}, "v:\"mine\"": {}}},
            "f:x": {},
        });
        assert_eq!(
            patch,
            json!([
                {"op": "replace", "path": "/metadata/resourceVersion", "value": "7"},
                {"op": "replace", "path": "/metadata/managedFields",
                    "value": [before[1], before[3], entry("ringmaster", "Apply", &united)]},
                {"op": "remove", "path": "/metadata/annotations/ringmaster.dev~1last-applied-configuration"},
            ])
        );
        // What wasn't merged isn't ours but for its creation.
        let patch = hand_over(&live(&entries(), "ringmaster.dev/created-as"), "ringmaster", &RINGMASTER).unwrap();
        let united = json!({"f:data": {"f:b": {}, "f:c": {}}, "f:x": {}});
        let entries = json!([before[0], before[1], before[3], entry("ringmaster", "Apply", &united)]);
        assert_eq!(patch[1]["value"], entries);
        assert_eq!(patch[2]["path"], "/metadata/annotations/ringmaster.dev~1created-as");
    }

    #[test]
    fn what_was_handed_over_stays_as_it_is() {
        let done = json!([
            entry("ringmaster", "Apply", &json!({"f:data": {}})),
            entry("ringmaster", "Update", &json!({"f:metadata": {"f:finalizers": {"v:\"a\"": {}}}})),
        ]);
        assert_eq!(hand_over(&live(&done, "none"), "ringmaster", &RINGMASTER), None);
        let first = json!([entry("metacontroller", "Update", &json!({"f:data": {}}))]);
        let live = live(&first, METACONTROLLER.last_applied);
        let patch = hand_over(&live, "me", &METACONTROLLER).unwrap();
        assert_eq!(patch[1]["value"], json!([entry("me", "Apply", &json!({"f:data": {}}))]));
        assert_eq!(hand_over(&json!({"metadata": {}}), "me", &RINGMASTER), None);
    }

    #[test]
    fn what_is_only_a_parents_is_nobodys_to_hand_over() {
        let parent = json!({"f:metadata": {"f:labels": {".": {}, "f:shard.ringmaster.dev/self": {}}}});
        let entries = json!([entry("ringmaster", "Update", &parent)]);
        let patch = hand_over(&live(&entries, RINGMASTER.last_applied), "ringmaster", &RINGMASTER).unwrap();
        assert_eq!(patch.as_array().map(Vec::len), Some(2), "only the annotation goes: {patch}");
    }
}
