//! What a write makes of an object before it is stored: decoded, pruned, defaulted, checked, by its kind's rules.
//!
//! Never stores: built-in kinds go through `kinds`, custom ones through their CRD's schema.

use std::sync::Arc;

use ringmaster_core::key::{ApiVersion, Resource};
use ringmaster_core::object::Object;
use serde_json::Value;

use crate::error::Error;
use crate::kinds::{self, Addresses, Kind};
use crate::meta;
use crate::ownership::{Writer, tracked};
use crate::patch::MergeTree;
use crate::registry::{Definition, Source};
use crate::request::Request;
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
                source: Source::BuiltIn,
                selectable: kind.selectable.clone(),
            }
        })
        .collect()
}

pub(crate) fn built_in(definition: &Definition) -> Option<&'static Kind> {
    let version = &definition.resource.api_version;
    kinds::find(version.group(), version.version(), &definition.resource.plural)
}

/// Where strategic merge patches of a kind, or of its subresource, find merge keys; `None` for custom kinds.
pub(crate) fn merge_tree(definition: &Definition, subresource: &str) -> Option<Arc<MergeTree>> {
    let kind = built_in(definition).filter(|_| matches!(definition.source, Source::BuiltIn))?;
    let schemas = kinds::openapi_v3_parsed(&kind.api_version())?.get("components")?.get("schemas")?;
    let schema = if subresource == "scale" { scale::SCHEMA } else { &kind.schema };
    MergeTree::compile(schemas, schema).ok().map(Arc::new)
}

/// Whether an update by PUT must name the version that it replaces.
pub(crate) fn needs_version(definition: &Definition) -> bool {
    match definition.source {
        Source::Crd { .. } => true,
        Source::BuiltIn => built_in(definition).is_some_and(|kind| kind.conditional_update),
    }
}

/// An object as its kind in this version shows it.
pub(crate) fn shown(definition: &Definition, object: &Object) -> Value {
    let mut value = object.value();
    let api_version = definition.resource.api_version.as_str();
    if value["apiVersion"] == api_version {
        return value;
    }
    match definition.source {
        Source::BuiltIn if api_version == "v1" => kinds::event::as_core(&value),
        Source::BuiltIn => kinds::event::as_events(&value),
        // The conversion strategy None: only the name of the version differs.
        Source::Crd { .. } => {
            value["apiVersion"] = api_version.into();
            value
        }
    }
}

/// An object in the form that is stored, whatever version it came in.
pub(crate) fn stored(definition: &Definition, value: Value) -> Value {
    let events = definition.key.plural.as_ref() == "events" && matches!(definition.source, Source::BuiltIn);
    if events { kinds::event::as_core(&value) } else { value }
}

/// Whether the JSON that is stored is what this version shows.
pub(crate) fn is_shown_as_stored(definition: &Definition, object: &Object) -> bool {
    let head = format!("\"apiVersion\":\"{}\"", definition.resource.api_version);
    // `serde_json` writes members sorted, so this one comes first.
    object.json().get(1..).is_some_and(|json| json.starts_with(head.as_bytes()))
}

/// Whether a body is of the kind that the path names.
///
/// # Errors
/// If it is of another.
pub(crate) fn check_kind(definition: &Definition, body: &Value) -> Result<(), Error> {
    if matches!(definition.source, Source::BuiltIn) {
        // Its decoder says so, in the real server's words.
        return Ok(());
    }
    let resource = &definition.resource;
    let said = |field: &str| body[field].as_str().unwrap_or_default();
    let (api_version, kind) = (said("apiVersion"), said("kind"));
    if api_version == resource.api_version.as_str() && kind == &*resource.kind {
        return Ok(());
    }
    Err(Error::bad_request(format!(
        "{kind} in version {:?} cannot be handled as a {}: expected apiVersion {:?} and kind {:?}",
        ApiVersion::new(api_version).version(),
        resource.kind,
        resource.api_version.as_str(),
        &*resource.kind,
    )))
}

/// Whether what a patch made of an object can be decoded. `shown` is what the refusal says of the patch; the words of
/// a strategic one come from another decoder (apimachinery's `DefaultUnstructuredConverter`).
///
/// # Errors
/// 422 if it can't, or if it has unknown fields and none are allowed.
pub(crate) fn check_patched(
    definition: &Definition,
    request: &Request,
    patched: &Value,
    strategic: bool,
    shown: impl Fn() -> String,
) -> Result<(), Error> {
    let strict = request.query.get("fieldValidation") == Some("Strict");
    let refused = |why: &str| Error::invalid_patch(&shown(), why);
    match built_in(definition) {
        _ if request.subresource == "scale" => Ok(()),
        Some(kind) if definition.is_built_in() => {
            let decoded = kinds::decode_bare(kind, patched.clone());
            let decoded = decoded.map_err(|why| refused(&if strategic { unconverted(&why) } else { why }))?;
            if strict && !decoded.strict.is_empty() {
                return Err(refused(&kinds::strict_words(&decoded.strict)));
            }
            Ok(())
        }
        _ => Ok(()),
    }
}

/// What the converter says where Go's JSON decoder says this.
fn unconverted(why: &str) -> String {
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
    /// As the body says, which came of applying a configuration that messages name so.
    Applied(&'a str),
}

/// A body in the form that is stored, but for `metadata.managedFields`.
pub(crate) struct Prepared {
    /// What deserves a warning.
    pub warnings: Vec<String>,
    /// What `metadata.managedFields` is now, null for none; `None` if it is as before.
    pub managed: Option<Value>,
}

/// Brings a body to the form that is stored, and takes its `metadata.managedFields` out. `old` has none.
///
/// # Errors
/// If it can't be decoded, or isn't valid.
pub(crate) fn prepare(
    definition: &Definition,
    body: &mut Value,
    old: Option<&Value>,
    request: &Request,
    (addresses, now): (&mut dyn Addresses, &str),
    managers: Managers<'_>,
) -> Result<Prepared, Error> {
    let emptied = body["metadata"]["managedFields"].as_array().is_some_and(Vec::is_empty);
    let mut managed = None;
    let mut track = |body: &mut Value| match managers {
        Managers::Applied(_) => managed = Some(meta::take_managed(body).unwrap_or_default()),
        Managers::Track(before) => {
            let given = meta::take_managed(body).filter(|given| given != before);
            // An empty list means something, and isn't written again.
            let given = if emptied { Some(Value::Array(Vec::new())) } else { given };
            managed = tracked(definition, &Writer::of(request, now), (old, before), body, given.as_ref());
        }
    };
    // What the client took over as it was need not be decoded.
    let unchanged = matches!(managers, Managers::Track(before) if body["metadata"]["managedFields"] == *before);
    if unchanged {
        meta::take_managed(body);
    }
    let (unknown, errors) = match &definition.source {
        Source::BuiltIn => {
            let kind = built_in(definition).ok_or_else(Error::no_resource)?;
            let decoded = kinds::decode(kind, body.take()).map_err(|why| match managers {
                Managers::Applied(named) => unconvertible(kind, named, &why),
                Managers::Track(_) => Error::bad_request(why),
            })?;
            *body = decoded.object;
            strict(request, &decoded.strict, || kinds::strict_error(kind, &decoded.strict))?;
            kinds::default(kind, body);
            track(body);
            let part = if request.subresource == "status" { kinds::Part::Status } else { kinds::Part::Main };
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
            (decoded.strict, errors)
        }
        Source::Crd { schema, .. } => {
            let kind = &definition.resource.kind;
            let version = definition.resource.api_version.version();
            let undecodable =
                |why: &str| format!("{kind} in version \"{version}\" cannot be handled as a {kind}: {why}");
            schema.decodable(body).map_err(|why| Error::bad_request(undecodable(&why)))?;
            let unknown = schema.prune(body);
            strict(request, &unknown, || {
                let list: Vec<String> = unknown.iter().map(|path| format!("unknown field {path:?}")).collect();
                undecodable(&format!("strict decoding error: {}", list.join(", ")))
            })?;
            schema.default(body);
            track(body);
            if old.is_none()
                && definition.has_status()
                && let Some(members) = body.as_object_mut()
            {
                // It can't be set by a create.
                members.remove("status");
            }
            let status = request.subresource == "status";
            let mut errors = match old {
                Some(old) if status => schema.validate_status(body, old),
                old => schema.validate(body, old),
            };
            if let Some(scale) = &definition.scale {
                errors.extend(scale.validate(body, status));
            }
            crate::schema::normalize_numbers(body);
            (unknown.iter().map(|path| format!("unknown field {path:?}")).collect(), errors)
        }
    };
    if !errors.is_empty() {
        let name = body["metadata"]["name"].as_str().unwrap_or_default();
        return Err(Error::invalid(about(definition, name), &errors));
    }
    let warn = matches!(request.query.get("fieldValidation"), None | Some("Warn"));
    Ok(Prepared { warnings: if warn { unknown } else { Vec::new() }, managed })
}

/// 500 for an object that came of an apply and can't be decoded.
fn unconvertible(kind: &Kind, named: &str, why: &str) -> Error {
    // What the decoder says begins with the kind, in words for other requests.
    let why = why.split_once(&format!("cannot be handled as a {}: ", kind.kind)).map_or(why, |(_, why)| why);
    let to = named.split_once("; ").map_or(named, |(_, kind)| kind);
    let what = format!("unable to convert unstructured object to {to}: {why}");
    Error::new(500, "", format!("failed to convert new object ({named}) to proper version: {what}"))
}

fn strict(request: &Request, unknown: &[String], message: impl Fn() -> String) -> Result<(), Error> {
    if unknown.is_empty() || request.query.get("fieldValidation") != Some("Strict") {
        return Ok(());
    }
    Err(Error::bad_request(message()))
}
