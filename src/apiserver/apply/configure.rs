//! Apply: a configuration merged into an object, by a manager who then owns what it says and nothing else.
//!
//! The rules are those of structured-merge-diff v6 (merge/update.go) and of apimachinery v0.36.3
//! (pkg/util/managedfields/internal: lastappliedmanager.go, lastappliedupdater.go, conflict.go).

use serde_json::{Value, json};

use super::managed::{Entry, Id, Managed};
use super::merge::{merge, remove};
use super::set::Set;
use super::step::{Step, equal};
use super::track::add;
use super::typed::validate;
use super::write::{Conflicts, Unsettled, Write, stripped};
use super::{compare::compare, paths};
use crate::error::Error;

/// Who the fields of an object belong to that nobody applied before and that isn't tracked.
const BEFORE_FIRST: &str = "before-first-apply";
/// The manager for which client-side apply's annotation counts.
const KUBECTL: &str = "kubectl";
/// Where client-side apply keeps what it applied.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";
/// Annotations of an object are together at most this large (apimachinery's ValidateAnnotationsSize).
const MAX_ANNOTATIONS_BYTES: usize = 256 << 10;

/// What came of an apply.
#[derive(Debug)]
pub struct Applied {
    /// The object, without defaults for what is new in it and without `metadata.managedFields`.
    pub object: Value,
    /// `metadata.managedFields`; null for none.
    pub managed: Value,
}

/// Applies a configuration to an object, or to an `empty` one of its kind if there is none.
///
/// # Errors
/// 400 for a configuration of another kind, 409 for fields that others manage, 500 for one that doesn't fit the schema.
pub fn apply(
    write: &Write<'_>,
    old: Option<&Value>,
    empty: &Value,
    configuration: &Value,
    force: bool,
) -> Result<Applied, Error> {
    let mut live = old.unwrap_or(empty).clone();
    let before = live.get_mut("metadata").and_then(Value::as_object_mut).and_then(|all| all.remove("managedFields"));
    let managed = Managed::parse(&before.unwrap_or_default())
        .map_err(|error| internal(format!("failed to decode managed fields: {error}")))?;
    let (version, kind) = (write.version, write.kind);
    if configuration["apiVersion"] != version || configuration["kind"] != kind {
        return Err(Error::bad_request(format!("invalid object type: {}", group_version_kind(configuration))));
    }
    let apply = Apply { write, live: &live, empty, exists: old.is_some(), configuration };
    let applied = apply.run(managed.clone(), force).or_else(|failure| apply.upgrade(failure, managed));
    let (object, managed) = applied.map_err(|failure| match failure {
        Failure::Conflicts(conflicts) => conflict(&conflicts),
        Failure::Other(error) => error,
    })?;
    let mut object = object.unwrap_or_else(|| live.clone());
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        metadata.remove("managedFields");
    }
    if write.manager == KUBECTL {
        apply.refresh(&mut object);
    }
    Ok(Applied { object, managed: managed.write() })
}

enum Failure {
    Conflicts(Conflicts),
    Other(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Other(error)
    }
}

fn internal(message: String) -> Error {
    Error::new(500, "", message)
}

fn failed(what: &str) -> impl Fn(super::Error) -> Error {
    let what = what.to_owned();
    move |error| internal(format!("{what}: {error}"))
}

/// Version and kind as Go prints a GroupVersionKind.
fn group_version_kind(object: &Value) -> String {
    let text = |name: &str| object[name].as_str().unwrap_or_default();
    let version = text("apiVersion");
    let slash = if version.contains('/') { "" } else { "/" };
    format!("{slash}{version}, Kind={}", text("kind"))
}

/// An object as messages name it.
#[must_use]
pub fn named(object: &Value) -> String {
    let text = |name: &str| object["metadata"][name].as_str().unwrap_or_default();
    format!("{}/{}; {}", text("namespace"), text("name"), group_version_kind(object))
}

struct Apply<'a> {
    write: &'a Write<'a>,
    /// Without `metadata.managedFields`.
    live: &'a Value,
    empty: &'a Value,
    exists: bool,
    configuration: &'a Value,
}

impl Apply<'_> {
    /// The object, if it changes, and its entries.
    fn run(&self, mut managed: Managed, force: bool) -> Result<(Option<Value>, Managed), Failure> {
        let write = self.write;
        if managed.0.is_empty() && self.exists {
            add(write, self.empty, self.live, &mut managed, BEFORE_FIRST)
                .map_err(failed("failed to create manager for existing fields"))?;
        }
        if !self.configuration["metadata"]["managedFields"].is_null() {
            return Err(Error::bad_request("metadata.managedFields must be nil").into());
        }
        let typed = |object: &Value, what: &str, repeated: bool| {
            let what = format!("failed to create typed {what} object ({})", named(object));
            validate(&write.schema, object, repeated).map_err(failed(&what))
        };
        typed(self.configuration, "patch", false)?;
        typed(self.live, "live", true)?;
        let plain = |error: super::Error| internal(error.to_string());
        write.reconcile(self.live, &mut managed).map_err(plain)?;
        let merged = merge(&write.schema, self.live, self.configuration).map_err(failed("failed to merge config"))?;
        let set = paths::of_value(&write.schema, self.configuration).recursive_difference(write.reset.set());
        let id = write.id(write.manager, true);
        let last = managed.0.iter().position(|entry| entry.id == id).map(|at| managed.0.remove(at));
        let time = last.as_ref().and_then(|last| last.time.clone());
        let version = write.version.to_owned();
        managed.0.push(Entry { id: id.clone(), version, time, set, fields: None });
        let new = match &last {
            Some(last) if !last.set.is_empty() => self.prune(merged, &managed, last),
            _ => merged,
        };
        let changes = write.changes(self.live, &new).map_err(plain)?;
        write.settle(self.live, &new, &changes, &mut managed, Some(&id), force).map_err(|why| match why {
            Unsettled::Conflicts(conflicts) => Failure::Conflicts(conflicts),
            Unsettled::Failed(error) => plain(error).into(),
        })?;
        let changed = !equal(self.live, &new);
        if let Some(entry) = managed.get_mut(&id) {
            let set = stripped(&entry.set);
            entry.put(set);
            if changed {
                entry.time = Some(write.now.to_owned());
            }
        }
        managed.0.retain(|entry| entry.id != id || !entry.set.is_empty());
        Ok((changed.then_some(new), managed))
    }

    /// Takes out what the manager applied last time, not this time, and nobody else has.
    fn prune(&self, merged: Value, managed: &Managed, last: &Entry) -> Value {
        let write = self.write;
        let Some(schema) = write.schema_of(&last.version) else { return merged };
        let mut merged = self.convert(merged, write.version, &last.version);
        let mut pruned = remove(&schema, &merged, &paths::with_named_fields(&schema, &last.set));
        // What anybody has, first in the version that was pruned.
        let mut versions: Vec<&str> = managed.0.iter().map(|entry| entry.version.as_str()).collect();
        versions.sort_by_key(|version| (*version != last.version, version.to_owned()));
        versions.dedup();
        let mut at = last.version.clone();
        for version in versions {
            let Some(schema) = write.schema_of(version) else { continue };
            let owned = managed.0.iter().filter(|entry| entry.version == version);
            let owned = owned.fold(Set::default(), |all, entry| all.union(&entry.set));
            merged = self.convert(merged, &at, version);
            pruned = self.convert(pruned, &at, version);
            version.clone_into(&mut at);
            let with_named = |set: &Set| paths::with_named_fields(&schema, set);
            let all = with_named(&paths::of_value(&schema, &merged));
            let kept = with_named(&paths::of_value(&schema, &pruned)).union(&with_named(&owned));
            pruned = remove(&schema, &merged, &all.difference(&kept));
        }
        // What the manager didn't have stays.
        merged = self.convert(merged, &at, &last.version);
        pruned = self.convert(pruned, &at, &last.version);
        let with_named = |set: &Set| paths::with_named_fields(&schema, set);
        let all = with_named(&paths::of_value(&schema, &merged));
        let gone = all.difference(&with_named(&paths::of_value(&schema, &pruned)));
        let pruned = remove(&schema, &merged, &gone.intersection(&with_named(&last.set)));
        self.convert(pruned, &last.version, write.version)
    }

    fn convert(&self, object: Value, from: &str, to: &str) -> Value {
        if from == to { object } else { self.write.versions.convert(&object, to) }
    }

    /// Applies in spite of conflicts about what kubectl applied before from its own side.
    fn upgrade(&self, failure: Failure, managed: Managed) -> Result<(Option<Value>, Managed), Failure> {
        let Failure::Conflicts(conflicts) = failure else { return Err(failure) };
        let allowed = (self.write.manager == KUBECTL).then(|| self.applied_before()).flatten();
        let Some(allowed) = allowed else { return Err(Failure::Conflicts(conflicts)) };
        let left: Conflicts = conflicts
            .into_iter()
            .map(|(id, paths)| (id, paths.into_iter().filter(|path| !allowed.has_path(path)).collect()))
            .filter(|(_, paths): &(Id, Vec<Vec<Step>>)| !paths.is_empty())
            .collect();
        if left.is_empty() { self.run(managed, true) } else { Err(Failure::Conflicts(left)) }
    }

    /// What client-side apply set and what is still as it set it.
    fn applied_before(&self) -> Option<Set> {
        let text = self.live["metadata"]["annotations"][LAST_APPLIED].as_str().filter(|text| !text.is_empty())?;
        let last: Value = serde_json::from_str(text).ok()?;
        let schema = &self.write.schema;
        if last["apiVersion"] != self.write.version || last["kind"] != self.write.kind {
            return None;
        }
        validate(schema, &last, false).ok()?;
        validate(schema, self.live, false).ok()?;
        let comparison = compare(schema, &last, self.live).ok()?;
        let set = paths::of_value(schema, &last);
        Some(set.difference(&comparison.modified).difference(&comparison.added).difference(&comparison.removed))
    }

    /// Keeps client-side apply's annotation up to date where it is.
    fn refresh(&self, object: &mut Value) {
        let has = |object: &Value| {
            object["metadata"]["annotations"][LAST_APPLIED].as_str().is_some_and(|text| !text.is_empty())
        };
        if !has(object) {
            return;
        }
        let mut last = self.configuration.clone();
        if let Some(annotations) = last.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            annotations.remove(LAST_APPLIED);
        }
        let text = format!("{}\n", crate::patch::go_json(&last));
        let Some(annotations) = object.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) else {
            return;
        };
        annotations.insert(LAST_APPLIED.to_owned(), text.into());
        let size = |(name, value): (&String, &Value)| name.len() + value.as_str().unwrap_or_default().len();
        if annotations.iter().map(size).sum::<usize>() > MAX_ANNOTATIONS_BYTES {
            annotations.remove(LAST_APPLIED);
        }
    }
}

/// 409 with a cause for each field.
fn conflict(conflicts: &Conflicts) -> Error {
    let path = |path: &Vec<Step>| path.iter().map(Step::text).collect::<String>();
    let all: Vec<(String, String)> =
        conflicts.iter().flat_map(|(id, paths)| paths.iter().map(move |of| (manager(id), path(of)))).collect();
    let causes: Vec<Value> = all
        .iter()
        .map(|(manager, field)| {
            json!({ "reason": "FieldManagerConflict", "message": format!("conflict with {manager}"), "field": field })
        })
        .collect();
    let message = if let [(manager, field)] = all.as_slice() {
        format!("Apply failed with 1 conflict: conflict with {manager}: {field}")
    } else {
        let mut lines = Vec::with_capacity(all.len() + conflicts.len());
        for (id, paths) in conflicts {
            lines.push(format!("conflicts with {}:", manager(id)));
            lines.extend(paths.iter().map(|of| format!("- {}", path(of))));
        }
        format!("Apply failed with {} conflicts: {}", all.len(), lines.join("\n"))
    };
    Error { details: json!({ "causes": causes }), ..Error::new(409, "Conflict", message) }
}

/// A manager as conflicts name it.
fn manager(id: &Id) -> String {
    let mut text = crate::field_error::go_quote(&id.manager);
    if !id.subresource.is_empty() {
        text = format!("{text} with subresource {}", crate::field_error::go_quote(&id.subresource));
    }
    if id.applied { text } else { format!("{text} using {}", id.version) }
}
