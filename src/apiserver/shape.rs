//! What a write makes of an object before it is stored: decoded, pruned, defaulted, checked, by its kind's rules.
//!
//! Never stores: built-in kinds go through `kinds`, custom ones through their CRD's schema.

use std::sync::Arc;

use ringmaster_core::key::{ApiVersion, Resource};
use ringmaster_core::object::Object;
use serde_json::Value;

use crate::body::{Repeated, Written};
use crate::error::{About, Error};
use crate::field_error::{FieldError, go_quote};
use crate::kinds::{self, Addresses, Kind, Undecodable, names};
use crate::meta;
use crate::ownership::{Writer, tracked};
use crate::patch::MergeTree;
use crate::registry::{Definition, Source};
use crate::request::{Request, Verb};
use crate::scale::{self, ScalePaths};
use crate::server::about;
use crate::store::kind_key;

/// The definitions of the built-in kinds.
pub(crate) fn built_ins() -> Vec<Definition> {
    kinds::all()
        .iter()
        .map(|kind| {
            let api_version = ApiVersion::new(&kind.api_version());
            Definition {
                // Events of both groups are the same objects, kept as those of the core group.
                key: if kind.plural == "events" {
                    kind_key(&ApiVersion::new("v1"), "events")
                } else {
                    kind_key(&api_version, &kind.plural)
                },
                resource: Arc::new(Resource {
                    api_version,
                    plural: kind.plural.as_str().into(),
                    kind: kind.kind.as_str().into(),
                    namespaced: kind.namespaced,
                    status: kind.has("status"),
                }),
                singular: kind.singular.clone(),
                list_kind: format!("{}List", kind.kind),
                short_names: kind.short_names.clone(),
                categories: kind.categories.clone(),
                generation: kind.generation,
                scale: kind.has("scale").then(ScalePaths::built_in),
                source: Source::BuiltIn(kind),
                selectable: kind.selectable.clone(),
            }
        })
        .collect()
}

fn built_in(definition: &Definition) -> Option<&'static Kind> {
    match definition.source {
        Source::BuiltIn(kind) => Some(kind),
        Source::Crd { .. } => None,
    }
}

/// Where strategic merge patches of a kind, or of its subresource, find merge keys; `None` for custom kinds.
pub(crate) fn merge_tree(definition: &Definition, subresource: &str) -> Option<Arc<MergeTree>> {
    let kind = built_in(definition)?;
    let schemas = kinds::openapi_v3_parsed(&kind.api_version())?.get("components")?.get("schemas")?;
    let schema = if subresource == "scale" { scale::SCHEMA } else { &kind.schema };
    MergeTree::compile(schemas, schema).ok().map(Arc::new)
}

/// Whether an update by PUT must name the version that it replaces.
pub(crate) fn needs_version(definition: &Definition) -> bool {
    built_in(definition).is_none_or(|kind| kind.conditional_update)
}

/// Whether a PUT of what isn't there creates it.
pub(crate) fn is_created_by_update(definition: &Definition, request: &Request) -> bool {
    let kind = built_in(definition);
    request.subresource.is_empty() && kind.is_some_and(|kind| kind.created_by_update)
}

/// Whether a kind has this verb; all custom kinds have all.
pub(crate) fn has_verb(definition: &Definition, verb: Verb) -> bool {
    let kind = built_in(definition);
    kind.is_none_or(|kind| kind.verbs.iter().any(|known| known == verb.name()))
}

/// Whether dependents are orphaned by a DELETE that says nothing (GarbageCollectionDeleteStrategy).
pub(crate) fn orphans_by_default(definition: &Definition) -> bool {
    definition.is_built_in() && &*definition.resource.kind == "Job"
}

/// Whether the answer to a DELETE is the object, not a Status (ReturnDeletedObject).
pub(crate) fn is_shown_when_deleted(definition: &Definition) -> bool {
    let shown = ["Namespace", "PersistentVolumeClaim", "Pod", "Service", "ServiceAccount"];
    definition.is_built_in() && shown.contains(&&*definition.resource.kind)
}

/// An object as its kind in this version shows it.
pub(crate) fn shown(definition: &Definition, object: &Object) -> Value {
    let mut value = object.value();
    let api_version = definition.resource.api_version.as_str();
    if let Source::Crd { schema, storage, since, .. } = &definition.source
        && is_older(object, *since)
    {
        let schema = storage.as_ref().unwrap_or(schema);
        schema.prune(&mut value);
        schema.default(&mut value);
    }
    if value["apiVersion"] == api_version {
        return value;
    }
    match definition.source {
        Source::BuiltIn(_) if api_version == "v1" => kinds::event::as_core(&value),
        Source::BuiltIn(_) => kinds::event::as_events(&value),
        // The conversion strategy None: only the name of the version differs.
        Source::Crd { .. } => {
            value["apiVersion"] = api_version.into();
            value
        }
    }
}

/// An object in the form that is stored, whatever version it came in.
pub(crate) fn stored(definition: &Definition, mut value: Value) -> Value {
    if let Source::Crd { storage: Some(schema), .. } = &definition.source {
        schema.prune(&mut value);
        schema.default(&mut value);
    }
    let events = definition.key.plural.as_ref() == "events" && definition.is_built_in();
    if events { kinds::event::as_core(&value) } else { value }
}

/// Whether an object was stored before a revision.
fn is_older(object: &Object, since: u64) -> bool {
    object.version().0 <= since
}

/// Whether an object's JSON is what this version shows.
pub(crate) fn is_shown_as_stored(definition: &Definition, object: &Object) -> bool {
    let older = matches!(definition.source, Source::Crd { since, .. } if is_older(object, since));
    // `serde_json` writes members sorted, so this one comes first.
    let rest = object.json().strip_prefix(br#"{"apiVersion":""#);
    let rest = rest.and_then(|rest| rest.strip_prefix(definition.resource.api_version.as_str().as_bytes()));
    !older && rest.is_some_and(|rest| rest.starts_with(br#"","#))
}

/// Whether objects of a kind take addresses that no other has.
pub(crate) fn takes_addresses(definition: &Definition) -> bool {
    definition.is_built_in() && &*definition.resource.plural == "services"
}

/// Writes an object as an item of a list. Those of built-in kinds don't say what they are: Go's typed lists do.
pub(crate) fn write_item(definition: &Definition, object: &Object, out: &mut Vec<u8>) {
    let typed = definition.is_built_in();
    let head = r#"{"apiVersion":"","#.len() + definition.resource.api_version.as_str().len();
    let as_stored = is_shown_as_stored(definition, object).then(|| &object.json()[head..]);
    match as_stored.filter(|_| typed).and_then(|rest| Some((rest, kind_member(rest)?))) {
        Some((rest, kind)) => {
            out.push(b'{');
            out.extend_from_slice(&rest[..kind.start]);
            out.extend_from_slice(&rest[kind.end..]);
        }
        None if as_stored.is_some() && !typed => out.extend_from_slice(object.json()),
        None => {
            let mut shown = shown(definition, object);
            if let Some(members) = shown.as_object_mut().filter(|_| typed) {
                members.remove("apiVersion");
                members.remove("kind");
            }
            out.extend_from_slice(shown.to_string().as_bytes());
        }
    }
}

/// Where `"kind":"…",` stands among the members of the object whose first member was taken off.
fn kind_member(members: &[u8]) -> Option<std::ops::Range<usize>> {
    const NAME: &[u8] = b"\"kind\":\"";
    let (mut depth, mut quoted, mut at) = (0_usize, false, 0);
    while let Some(byte) = members.get(at) {
        match byte {
            b'\\' if quoted => at += 1,
            b'"' if !quoted && depth == 0 && members[at..].starts_with(NAME) => {
                let value = at + NAME.len();
                let end = value + members[value..].iter().position(|byte| *byte == b'"')? + 1;
                return members.get(end).filter(|byte| **byte == b',').map(|_| at..end + 1);
            }
            b'"' => quoted = !quoted,
            b'{' | b'[' if !quoted => depth += 1,
            b'}' | b']' if !quoted => depth = depth.checked_sub(1)?,
            _ => {}
        }
        at += 1;
    }
    None
}

/// Where a kind's repeated fields come together.
pub(crate) fn repeated(definition: &Definition) -> Repeated {
    match definition.source {
        Source::BuiltIn(_) => Repeated::Merged,
        Source::Crd { .. } => Repeated::Replaced,
    }
}

/// Reads a body as its kind does: known fields of their types only; gives back what deserves a warning.
///
/// # Errors
/// The outer one if it is of another version; the inner one if a field is of another type, or it holds what
/// `fieldValidation=Strict` doesn't allow. `kept` is `metadata.managedFields` as the client was shown it.
pub(crate) fn decode(
    definition: &Definition,
    mut body: Written,
    kept: Option<&Value>,
    request: &Request,
) -> Result<Result<(Value, Vec<String>), Undecodable>, Error> {
    if matches!(definition.source, Source::Crd { .. }) {
        let (said, wanted) = (body.value["apiVersion"].as_str().unwrap_or_default(), &definition.resource.api_version);
        if said != wanted.as_str() {
            return Err(Error::bad_request(format!(
                "the API version in the data ({said}) does not match the expected API version ({wanted})"
            )));
        }
    }
    let given = &body.value["metadata"]["managedFields"];
    // An empty list means something, and what was taken over as it was needn't be decoded.
    let aside = given.as_array().is_some_and(Vec::is_empty) || kept.is_some_and(|kept| kept == given);
    let aside = if aside { meta::take_managed(&mut body.value) } else { None };
    Ok(decode_fields(definition, body, request).map(|(mut value, warnings)| {
        if let Some(managed) = aside {
            meta::set_managed(&mut value, managed);
        }
        (value, warnings)
    }))
}

fn decode_fields(
    definition: &Definition,
    body: Written,
    request: &Request,
) -> Result<(Value, Vec<String>), Undecodable> {
    let validation = request.query.get("fieldValidation").unwrap_or("Warn");
    let mut complaints = body.repeated;
    let value = match &definition.source {
        Source::BuiltIn(kind) => {
            let decoded = kinds::decode(kind, body.value)?;
            complaints.extend(decoded.strict);
            decoded.object
        }
        Source::Crd { schema, .. } => {
            let mut value = body.value;
            schema.decodable(&value).map_err(|why| undecodable(definition, why))?;
            complaints.extend(schema.prune(&mut value).iter().map(|path| format!("unknown field {}", go_quote(path))));
            schema.default(&mut value);
            value
        }
    };
    match validation {
        "Strict" if !complaints.is_empty() => Err(undecodable(definition, kinds::strict_words(&complaints))),
        "Ignore" => Ok((value, Vec::new())),
        _ => Ok((value, complaints)),
    }
}

fn undecodable(definition: &Definition, why: String) -> Undecodable {
    let resource = &definition.resource;
    Undecodable {
        said: resource.kind.to_string(),
        version: resource.api_version.version().to_owned(),
        kind: resource.kind.to_string(),
        why,
    }
}

/// What the converter says where Go's JSON decoder says this.
pub(crate) fn unconverted(why: &str) -> String {
    let parts = why.strip_prefix("json: cannot unmarshal ").and_then(|rest| {
        let (found, rest) = rest.split_once(' ')?;
        Some((found, rest.rsplit_once(" of type ")?.1.trim_start_matches('*')))
    });
    let Some((found, wanted)) = parts else { return why.to_owned() };
    let found = match found {
        "array" => "slice",
        "object" => "map",
        "number" => "int64",
        plain => plain,
    };
    if wanted.starts_with("map[") {
        format!("cannot restore map from {found}")
    } else if wanted.starts_with("[]") {
        format!("cannot restore slice from {found}")
    } else if wanted.contains('.') {
        format!("cannot restore struct from: {found}")
    } else {
        format!("unrecognized type: {wanted}")
    }
}

/// Who manages the fields of a body.
#[derive(Clone, Copy)]
pub(crate) enum Managers<'a> {
    /// To be tracked; `metadata.managedFields` was this before, and what the body has is the client's.
    Track(&'a Value),
    /// As the body says, which came of applying a configuration.
    Applied,
}

/// Takes `metadata.managedFields` out of a body that has its defaults: what they are now, as [`prepare`] gives them back.
fn track(
    definition: &Definition,
    body: &mut Value,
    old: Option<&Value>,
    writer: &Writer<'_>,
    managers: Managers<'_>,
) -> Option<Value> {
    let emptied = body["metadata"]["managedFields"].as_array().is_some_and(Vec::is_empty);
    match managers {
        Managers::Applied => Some(meta::take_managed(body).unwrap_or_default()),
        Managers::Track(before) => {
            let given = meta::take_managed(body).filter(|given| given != before);
            // An empty list means something, and isn't written again.
            let given = if emptied { Some(Value::Array(Vec::new())) } else { given };
            tracked(definition, writer, (old, before), body, given.as_ref())
        }
    }
}

/// Sets the defaults of a decoded object of a built-in kind; others have them by being decoded.
pub(crate) fn default(definition: &Definition, body: &mut Value) {
    if let Source::BuiltIn(kind) = &definition.source {
        kinds::default(kind, body);
    }
}

/// Sets a new object's defaults and its managers: what webhooks see of it, and what [`Managers::Applied`] goes on with.
pub(crate) fn managed(definition: &Definition, body: &mut Value, request: &Request, now: &str, managers: Managers<'_>) {
    default(definition, body);
    let managed = track(definition, body, None, &Writer::of(request, now), managers);
    meta::set_managed(body, managed.unwrap_or_default());
}

/// Brings a decoded body to the form that is stored, and takes its `metadata.managedFields` out: gives back what they
/// are now, null for none; `None` if they are as before. `old` has none.
///
/// # Errors
/// If it isn't valid.
pub(crate) fn prepare(
    definition: &Definition,
    body: &mut Value,
    old: Option<&Value>,
    request: &Request,
    (addresses, now): (&mut dyn Addresses, &str),
    managers: Managers<'_>,
) -> Result<Option<Value>, Error> {
    let mut managed = None;
    let mut track = |body: &mut Value| managed = track(definition, body, old, &Writer::of(request, now), managers);
    let errors = match &definition.source {
        Source::BuiltIn(kind) => {
            kinds::default(kind, body);
            track(body);
            let part = match request.subresource.as_str() {
                "status" => kinds::Part::Status,
                "finalize" => kinds::Part::Finalize,
                _ => kinds::Part::Main,
            };
            let prepared = match old {
                None => kinds::create(kind, body, addresses, now),
                Some(old) => kinds::update(kind, body, old, part, addresses),
            };
            let mut errors = match prepared {
                Ok(()) => kinds::validate(kind, body, old, part),
                Err(errors) => errors,
            };
            if kind.kind == "CustomResourceDefinition" {
                errors.extend(crate::crd::check(body)?);
            }
            if let Some(why) = old.filter(|_| errors.is_empty()).and_then(|old| kinds::refusal(kind, body, old)) {
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                return Err(Error::forbidden(about(definition, name), why));
            }
            errors
        }
        Source::Crd { schema, .. } => {
            track(body);
            if let Some(members) = body.as_object_mut().filter(|_| old.is_none() && definition.has_status()) {
                // It can't be set by a create.
                members.remove("status");
            }
            // Written objects say what they are; it is the validation that compares it.
            let said = body["kind"].as_str().unwrap_or_default().to_owned();
            if said != *definition.resource.kind {
                let why = format!("must be {}", definition.resource.kind);
                let name = body["metadata"]["name"].as_str().unwrap_or_default();
                let about = About { kind: &said, ..about(definition, name) };
                return Err(Error::invalid(about, &[FieldError::invalid("kind", go_quote(&said), why)]));
            }
            let mut errors = Vec::new();
            let namespaced = definition.resource.namespaced;
            match old {
                None => names::metadata(&mut errors, body, namespaced, names::dns_subdomain),
                Some(old) => {
                    names::metadata(&mut errors, body, namespaced, names::path_segment);
                    names::metadata_update(&mut errors, body, old);
                    // As there: once for any object, once for a custom one.
                    names::metadata_update(&mut errors, body, old);
                }
            }
            let status = request.subresource == "status";
            if errors.is_empty() {
                errors = match old {
                    Some(old) if status => schema.validate_status(body, old),
                    old => schema.validate(body, old),
                };
                if let Some(scale) = &definition.scale {
                    errors.extend(scale.validate(body, status));
                }
            }
            crate::schema::normalize_numbers(body);
            errors
        }
    };
    if !errors.is_empty() {
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Error::invalid(about(definition, name), &errors));
    }
    Ok(managed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_is_found_among_the_members() {
        let cut = |text: &str| kind_member(text.as_bytes()).map(|range| text[range].to_owned());
        let text = r#""data":{"kind":"x","q":"\"kind\":\"y\","},"kind":"ConfigMap","metadata":{}}"#;
        assert_eq!(cut(text).as_deref(), Some(r#""kind":"ConfigMap","#));
        assert_eq!(cut(r#""metadata":{"kind":"x"}}"#), None);
    }
}
