//! The subresource `scale`: an object's replicas, as an `autoscaling/v1` Scale.
//!
//! Never stores: a Scale becomes a change of the object that it is of, which is written as any other. Measured at
//! kube-apiserver v1.36.3 (`pkg/registry/apps`, apiextensions' `customresource`).

use std::sync::Arc;

use serde_json::{Map, Value, json};

use crate::answer::Answer;
use crate::body::Written;
use crate::error::{About, Error};
use crate::field_error::{FieldError, go_text};
use crate::kinds;
use crate::meta;
use crate::registry::{Definition, Source};
use crate::request::Request;
use crate::server::{ApiServer, about, check_place, other_uid};
use crate::shape;
use crate::table::selector;

/// What a patch sees as the replicas of a custom resource that has none, and what they can't be set to.
const NO_REPLICAS: i64 = i32::MIN as i64;
/// The kind of the subresource.
const KIND: &str = "Scale";
const GROUP: &str = "autoscaling";
const API_VERSION: &str = "autoscaling/v1";
/// Versions in which there was a Scale once.
const OLDER: [&str; 3] = ["apps/v1beta1", "apps/v1beta2", "extensions/v1beta1"];
/// Its name among the OpenAPI components.
pub(crate) const SCHEMA: &str = "io.k8s.api.autoscaling.v1.Scale";

/// Where a kind keeps what its Scale shows: the names of the fields on the way, from the root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScalePaths {
    /// Wanted replicas.
    pub spec: String,
    /// Observed replicas.
    pub status: String,
    /// The selector of the replicas as text; none if the kind doesn't say. Built-in kinds have a selector instead.
    pub selector: Option<String>,
}

impl ScalePaths {
    /// Those of the built-in kinds.
    #[must_use]
    pub fn built_in() -> Self {
        Self { spec: ".spec.replicas".to_owned(), status: ".status.replicas".to_owned(), selector: None }
    }

    /// Those of a CRD's version; `None` if it has no such subresource.
    #[must_use]
    pub fn of_crd(version: &Value) -> Option<Self> {
        let scale = version["subresources"]["scale"].as_object()?;
        let text = |name: &str| scale.get(name).and_then(Value::as_str).map(str::to_owned);
        Some(Self {
            spec: text("specReplicasPath")?,
            status: text("statusReplicasPath")?,
            selector: text("labelSelectorPath").filter(|path| !path.is_empty()),
        })
    }

    /// What is wrong with the fields of a custom resource; of the status alone if only that is written.
    #[must_use]
    pub fn validate(&self, object: &Value, status_only: bool) -> Vec<FieldError> {
        let mut errors = Vec::new();
        let replicas = [(&self.spec, status_only), (&self.status, false)];
        for (path, _) in replicas.into_iter().filter(|(_, skipped)| !skipped) {
            let (value, fault) = match int(object, path) {
                Ok(value) if value.unwrap_or(0) < 0 => (value, "should be a non-negative integer".to_owned()),
                Ok(value) if value.unwrap_or(0) > i64::from(i32::MAX) => {
                    (value, format!("should be less than or equal to {}", i32::MAX))
                }
                Ok(_) => continue,
                Err(fault) => (None, fault),
            };
            errors.push(FieldError::invalid(path.as_str(), value.unwrap_or(0).to_string(), fault));
        }
        if let Some(path) = &self.selector
            && let Err(fault) = text(object, path)
        {
            errors.push(FieldError::invalid(path.as_str(), "\"\"", fault));
        }
        errors
    }
}

fn steps(path: &str) -> impl Iterator<Item = &str> {
    path.strip_prefix('.').unwrap_or(path).split('.')
}

/// The value at a path, or what Go's accessors say of one that isn't there because something on the way is no map.
fn nested<'a>(object: &'a Value, path: &str) -> Result<Option<&'a Value>, String> {
    let mut value = object;
    let mut way = String::new();
    for step in steps(path) {
        let Some(fields) = value.as_object() else {
            return Err(fault(&way, value, "map[string]interface{}"));
        };
        way = format!("{way}.{step}");
        match fields.get(step) {
            Some(next) => value = next,
            None => return Ok(None),
        }
    }
    Ok(Some(value))
}

fn fault(way: &str, value: &Value, wanted: &str) -> String {
    let is = match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    };
    format!("{way} accessor error: {} is of the type {is}, expected {wanted}", go_text(value))
}

fn int(object: &Value, path: &str) -> Result<Option<i64>, String> {
    let Some(value) = nested(object, path)? else { return Ok(None) };
    let way: String = steps(path).map(|step| format!(".{step}")).collect();
    value.as_i64().map(Some).ok_or_else(|| fault(&way, value, "int64"))
}

fn text(object: &Value, path: &str) -> Result<Option<String>, String> {
    let Some(value) = nested(object, path)? else { return Ok(None) };
    let way: String = steps(path).map(|step| format!(".{step}")).collect();
    value.as_str().map(|text| Some(text.to_owned())).ok_or_else(|| fault(&way, value, "string"))
}

/// The Scale of an object, and whether the object says how many replicas it wants.
fn scale(definition: &Definition, object: &Value) -> Result<(Value, bool), Error> {
    let Some(paths) = &definition.scale else { return Err(Error::no_resource()) };
    let failed = |why: String| Error::new(500, "", why);
    let wanted = int(object, &paths.spec).map_err(failed)?;
    let observed = int(object, &paths.status).map_err(failed)?.unwrap_or(0);
    let mut metadata = Map::new();
    for field in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp"] {
        if let Some(value) = object["metadata"].get(field) {
            metadata.insert(field.to_owned(), value.clone());
        }
    }
    let mut scale = json!({
        "kind": KIND, "apiVersion": API_VERSION, "metadata": metadata, "spec": {},
        "status": { "replicas": observed },
    });
    if wanted.unwrap_or(0) != 0 {
        scale["spec"]["replicas"] = wanted.into();
    }
    let selector = match &paths.selector {
        Some(path) => text(object, path).map_err(failed)?.unwrap_or_default(),
        None => selector(&object["spec"]["selector"]).unwrap_or_default(),
    };
    if !selector.is_empty() {
        scale["status"]["selector"] = selector.into();
    }
    Ok((scale, wanted.is_some()))
}

/// A Scale as it is shown.
///
/// # Errors
/// 500 if the object doesn't say how many replicas it wants, as the real server does.
pub(crate) fn shown(definition: &Definition, object: &Value) -> Result<Value, Error> {
    let (scale, found) = scale(definition, object)?;
    if found || definition.is_built_in() {
        return Ok(scale);
    }
    let path = definition.scale.as_ref().map_or("", |paths| &paths.spec);
    let why = format!("the spec replicas field {path:?} does not exist");
    let details = json!({ "causes": [{ "message": why }] });
    Err(Error { details, ..Error::new(500, "InternalError", format!("Internal error occurred: {why}")) })
}

/// Why a body is no Scale.
struct Undecodable {
    /// The kind and the version that it says it is of, if the answer to a PUT names them.
    said: Option<(String, String)>,
    why: String,
}

/// A body as a Scale, with what deserves a warning.
fn decode(body: &Value, request: &Request) -> Result<(Value, Vec<String>), Undecodable> {
    let kind = Some(said(body, "kind")).filter(|said| !said.is_empty()).unwrap_or(KIND);
    let api_version = Some(said(body, "apiVersion")).filter(|said| !said.is_empty()).unwrap_or(API_VERSION);
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let undecodable = |why: String| Undecodable { said: Some((kind.to_owned(), version.to_owned())), why };
    if kind == KIND && OLDER.contains(&api_version) {
        let why = format!(
            "the API version in the data ({api_version}) does not match the expected API version ({API_VERSION})"
        );
        return Err(Undecodable { said: None, why });
    }
    if (kind, api_version) != (KIND, API_VERSION) {
        let known = kinds::all().iter().any(|other| other.kind == kind && other.api_version() == api_version);
        return Err(undecodable(if known {
            format!("converting ({version}.{kind}) to (autoscaling.Scale): unknown conversion")
        } else {
            kinds::no_kind(kind, api_version)
        }));
    }
    let mut body = body.as_object().cloned().unwrap_or_default();
    body.insert("apiVersion".to_owned(), API_VERSION.into());
    body.insert("kind".to_owned(), KIND.into());
    let decoded = kinds::decode_scale(body).map_err(undecodable)?;
    match request.query.get("fieldValidation") {
        Some("Strict") if !decoded.strict.is_empty() => Err(undecodable(kinds::strict_words(&decoded.strict))),
        Some("Ignore" | "Strict") => Ok((decoded.object, Vec::new())),
        _ => Ok((decoded.object, decoded.strict)),
    }
}

fn said<'a>(body: &'a Value, field: &str) -> &'a str {
    body[field].as_str().unwrap_or_default()
}

/// The object with what a Scale says of it. The versions that the Scale names are checked by who writes it.
fn onto(definition: &Definition, request: &Request, old: &Value, scale: &Value) -> Result<Value, Error> {
    check_place(definition, request, scale)?;
    let Some(paths) = &definition.scale else { return Err(Error::no_resource()) };
    let replicas = scale["spec"]["replicas"].as_i64().unwrap_or(0);
    if definition.is_built_in() {
        if replicas < 0 {
            let fault =
                FieldError::invalid("spec.replicas", replicas.to_string(), "must be greater than or equal to 0");
            let about = About { group: GROUP, plural: "scales", kind: KIND, name: &request.name };
            return Err(Error::invalid(about, &[fault]));
        }
        let (uid, is) = (meta::text(scale, "uid"), meta::text(old, "uid"));
        if !uid.is_empty() && uid != is {
            let plural = format!("{}/scale", definition.resource.plural);
            let about = About { plural: &plural, ..about(definition, &request.name) };
            let why = format!("Precondition failed: UID in precondition: {uid}, UID in object meta: {is}");
            return Err(Error::conflict(about, &why));
        }
    } else if replicas == NO_REPLICAS {
        return Err(Error::bad_request(format!("the spec replicas field {:?} cannot be empty", paths.spec)));
    }
    let mut object = old.clone();
    let mut place = &mut object;
    for step in steps(&paths.spec) {
        if place.is_null() {
            *place = json!({});
        }
        let Some(fields) = place.as_object_mut() else {
            let why = format!("value cannot be set because {} is not a map[string]interface{{}}", paths.spec);
            return Err(Error::new(500, "", why));
        };
        place = fields.entry(step.to_owned()).or_insert(Value::Null);
    }
    *place = replicas.into();
    // A Scale that names no version is of the one that was read.
    let version = meta::text(scale, "resourceVersion");
    if !version.is_empty() {
        object["metadata"]["resourceVersion"] = version.into();
    }
    Ok(object)
}

impl ApiServer {
    /// Replaces an object's Scale.
    ///
    /// # Errors
    /// If it is no Scale or an invalid one, the object isn't there, or isn't the one that the Scale names.
    pub(crate) fn update_scale(
        &self,
        definition: &Arc<Definition>,
        request: &Request,
        body: &Value,
    ) -> Result<Answer, Error> {
        let (scale, warnings) = decode(body, request).map_err(|Undecodable { said, why }| {
            Error::bad_request(match (&definition.source, said) {
                (Source::BuiltIn(_), Some((kind, version))) => {
                    format!("{kind} in version \"{version}\" cannot be handled as a Scale: {why}")
                }
                (Source::BuiltIn(_), None) => why,
                // Whatever is wrong with the body, its kind isn't among those that the error can be told in.
                (Source::Crd { .. }, _) => {
                    "no kind is registered for the type v1.Scale in scheme \"pkg/runtime/scheme.go:111\"".to_owned()
                }
            })
        })?;
        let answer = self.rewrite(definition, &whole(request), |seen| {
            let uid = meta::text(&scale, "uid");
            if !uid.is_empty() && uid != seen.uid().to_string() {
                return Err(other_uid(definition, seen.key(), uid, &seen.uid().to_string()));
            }
            let object = onto(definition, request, &shape::shown(definition, seen), &scale)?;
            Ok(shape::decode(definition, Written::of(object), None, &whole(request))??)
        })?;
        finished(definition, answer, warnings)
    }

    /// Changes an object's Scale by what `change` makes of it.
    ///
    /// # Errors
    /// As an update; or if the change fails.
    pub(crate) fn patch_scale(
        &self,
        definition: &Arc<Definition>,
        request: &Request,
        change: impl Fn(&Definition, Value) -> Result<Value, Error>,
    ) -> Result<Answer, Error> {
        let warnings = std::cell::RefCell::new(Vec::new());
        let answer = self.rewrite(definition, &whole(request), |seen| {
            let old = shape::shown(definition, seen);
            let (mut scale, found) = scale(definition, &old)?;
            if !found && !definition.is_built_in() {
                scale["spec"]["replicas"] = NO_REPLICAS.into();
            }
            let patched = change(definition, scale)?;
            let undecodable = |undecodable: Undecodable| Error::invalid_patch(&patched.to_string(), &undecodable.why);
            let (scale, unknown) = decode(&patched, request).map_err(undecodable)?;
            warnings.replace(unknown);
            let object = onto(definition, request, &old, &scale)?;
            Ok(shape::decode(definition, Written::of(object), None, &whole(request))??)
        })?;
        finished(definition, answer, warnings.into_inner())
    }
}

/// The request for the object itself. What the Scale's writer wants to know of unknown fields was answered.
fn whole(request: &Request) -> Request {
    Request {
        subresource: String::new(),
        through: "scale",
        query: request.query.clone().with("fieldValidation", "Ignore"),
        ..request.clone()
    }
}

/// An answer with an object as one with its Scale.
fn finished(definition: &Definition, answer: Answer, warnings: Vec<String>) -> Result<Answer, Error> {
    let (body, _) = scale(definition, &answer.body.tree())?;
    Ok(Answer { code: answer.code, body: body.into(), warnings })
}

#[cfg(test)]
mod tests;
