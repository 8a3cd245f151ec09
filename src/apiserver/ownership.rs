//! Who manages the fields of a stored object: what `apply` needs to know of kinds and requests.
//!
//! Never stores, and never judges an object.

use std::borrow::Cow;
use std::collections::HashMap;
use std::sync::LazyLock;

use ringmaster_core::object::Object;
use serde_json::{Value, json};

use crate::apply::{Applied, Reset, Schema, Tracked, Update, Versions, Write, apply, track};
use crate::error::Error;
use crate::kinds::{self, Kind};
use crate::meta;
use crate::registry::{Definition, Source};
use crate::request::Request;

/// As whom the garbage collector and the namespace controller write.
pub(crate) const CONTROLLERS: &str = "kube-controller-manager";
/// As whom the server itself writes.
pub(crate) const SERVER: &str = "kube-apiserver";

/// Built-in objects without anything, by Go type: what the real server compares a new one with.
static EMPTY: LazyLock<HashMap<(&str, &str), Value>> = LazyLock::new(|| {
    let empty = |kind: &Kind| kinds::decode(kind, json!({})).map_or_else(|_| json!({}), |decoded| decoded.object);
    kinds::all().iter().map(|kind| ((kind.group.as_str(), kind.plural.as_str()), empty(kind))).collect()
});

/// Who writes, and how.
pub(crate) struct Writer<'a> {
    /// Name of the manager.
    pub manager: &'a str,
    /// Subresource; empty for none.
    pub subresource: &'a str,
    /// RFC 3339 to the second.
    pub now: &'a str,
}

impl<'a> Writer<'a> {
    /// The writer that a request is of.
    pub(crate) fn of(request: &'a Request, now: &'a str) -> Self {
        let manager = request.query.get("fieldManager").unwrap_or(&request.agent);
        let subresource = if request.through.is_empty() { &request.subresource } else { request.through };
        Self { manager, subresource, now }
    }
}

impl Versions for Definition {
    fn schema(&self, version: &str) -> Option<Schema> {
        match &self.source {
            Source::Crd { fields, .. } => fields.get(version).cloned(),
            // Another group is no version to convert to: what was managed in one group of events is nobody's in the other.
            Source::BuiltIn(kind) if version == self.resource.api_version.as_str() => Schema::built_in(kind),
            Source::BuiltIn(_) => None,
        }
    }

    fn convert(&self, object: &Value, version: &str) -> Value {
        // The conversion strategy None; built-in kinds have one version.
        let mut object = object.clone();
        object["apiVersion"] = version.into();
        object
    }
}

/// What the strategies of pkg/registry and of apiextensions-apiserver reset (GetResetFields).
fn reset(definition: &Definition, subresource: &str) -> Reset {
    match (&definition.source, subresource, &*definition.resource.plural) {
        (_, "", _) if definition.has_status() => Reset::Status,
        (Source::BuiltIn(_), "finalize", _) => Reset::Status,
        (Source::Crd { .. }, "status", _) => Reset::SpecAndMetadata,
        (Source::BuiltIn(_), "status", "deployments") => Reset::SpecAndLabels,
        (Source::BuiltIn(_), "status", "pods") => Reset::PodSpec,
        (Source::BuiltIn(_), "status", _) => Reset::Spec,
        _ => Reset::Nothing,
    }
}

fn write<'a>(definition: &'a Definition, writer: &Writer<'a>) -> Option<Write<'a>> {
    let version = definition.resource.api_version.as_str();
    Some(Write {
        versions: definition,
        schema: definition.schema(version)?,
        version,
        kind: &definition.resource.kind,
        subresource: writer.subresource,
        manager: writer.manager,
        now: writer.now,
        reset: reset(definition, writer.subresource),
    })
}

/// What a new object of a kind is compared with.
fn empty(definition: &Definition) -> Cow<'static, Value> {
    let resource = &definition.resource;
    let known = match definition.source {
        Source::BuiltIn(kind) => EMPTY.get(&(kind.group.as_str(), kind.plural.as_str())),
        Source::Crd { .. } => None,
    };
    let bare = || Cow::Owned(json!({ "apiVersion": resource.api_version.as_str(), "kind": &*resource.kind }));
    known.map_or_else(bare, Cow::Borrowed)
}

/// Tracks a write that isn't an apply. Neither object carries `metadata.managedFields`: those before are `managed`, those
/// that the client gave are `given`. Gives back what they are now, null for none; `None` if they are as before.
pub(crate) fn tracked(
    definition: &Definition,
    writer: &Writer<'_>,
    (old, managed): (Option<&Value>, &Value),
    new: &Value,
    given: Option<&Value>,
) -> Option<Value> {
    let write = write(definition, writer)?;
    let nothing;
    let before = match old {
        Some(old) => old,
        None => {
            nothing = empty(definition);
            &*nothing
        }
    };
    match track(&write, &Update { old: before, new, exists: old.is_some(), managed, given }) {
        Tracked::Same => None,
        Tracked::Now(managed) => Some(managed),
    }
}

/// Tracks what the server or a controller does to an object, which carries `metadata.managedFields` before and after.
pub(crate) fn follow(definition: &Definition, writer: &Writer<'_>, old: &Object, new: &mut Value) {
    let mut before = old.value();
    let managed = meta::take_managed(&mut before).unwrap_or_default();
    meta::take_managed(new);
    let now = tracked(definition, writer, (Some(&before), &managed), new, None);
    meta::set_managed(new, now.unwrap_or(managed));
}

/// Applies a configuration to an object, or to none.
///
/// # Errors
/// As [`apply`].
pub(crate) fn configured(
    definition: &Definition,
    writer: &Writer<'_>,
    old: Option<&Value>,
    configuration: &Value,
    force: bool,
) -> Result<Value, Error> {
    let write = write(definition, writer).ok_or_else(Error::no_resource)?;
    let Applied { mut object, managed } = apply(&write, old, &empty(definition), configuration, force)?;
    meta::set_managed(&mut object, managed);
    Ok(object)
}
