//! Structural schemas of custom resources: what a CRD may say, and what its objects may be.
//!
//! Invariant: nothing here reads a clock, a store or the network. An object passes, in this order: [`Schema::decodable`],
//! [`Schema::prune`], [`Schema::default`] and, once it is complete, [`Schema::validate`]. The rules, the words and the
//! order of faults are those of kube-apiserver v1.36.3 (its packages apiextensions-apiserver and kube-openapi); where
//! that server goes through maps in random order, this one goes by name.

mod cel;
mod compile;
mod correlate;
mod default;
mod format;
mod internal;
mod lists;
mod meta;
mod pattern;
mod print;
mod prune;
mod refuse;
mod structural;
mod validate;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use serde_json::{Number, Value};

use crate::field_error::{FieldError, FieldErrorKind, NO_FIELD};

/// The schema of one version of a custom resource; cheap to clone.
#[derive(Clone, Debug)]
pub struct Schema {
    root: Arc<compile::Node>,
}

impl Schema {
    /// Compiles an openAPIV3Schema.
    ///
    /// `path` is where it stands in the CRD. The real server says `spec.validation.openAPIV3Schema` if all versions have
    /// the same schema (a single one, too) and `spec.versions[0].schema.openAPIV3Schema` otherwise. `status` says whether
    /// the version has the status subresource, which limits what the root may say.
    ///
    /// # Errors
    /// All reasons for which the real server would refuse it, but the estimated cost of CEL rules.
    pub fn compile(open_api_v3_schema: &Value, path: &str, status: bool) -> Result<Self, Vec<FieldError>> {
        let mut root = compile::node(open_api_v3_schema, true);
        let errors = refuse::check(open_api_v3_schema, &root, path, status);
        if !errors.is_empty() {
            return Err(errors);
        }
        refuse::prune_defaults(&mut root);
        Ok(Self { root: Arc::new(root) })
    }

    /// Says why an object can't be decoded: metadata, of the object or of an embedded one, of a wrong type.
    ///
    /// # Errors
    /// What follows `X in version "v1" cannot be handled as a X: ` in the real server's answer 400.
    pub fn decodable(&self, object: &Value) -> Result<(), String> {
        meta::decodable(object.get("metadata").unwrap_or(&Value::Null))?;
        meta::embedded_decodable(object, &self.root, "").map_err(|error| error.to_string())
    }

    /// Drops unknown fields, and nulls that may not be; brings the metadata of the object and of embedded ones to the form
    /// that the real server stores (no unknown and no empty fields).
    ///
    /// Returns the paths of the unknown fields in the real server's order, for `strict decoding error: unknown field "…"`
    /// and for warnings. The root keeps its apiVersion, kind and metadata.
    pub fn prune(&self, object: &mut Value) -> Vec<String> {
        let mut unknown = Vec::new();
        if let Some(metadata) = object.get_mut("metadata") {
            meta::normalize(metadata, "metadata", &mut unknown);
        }
        prune::unknown_fields(object, &self.root, &mut unknown);
        prune::nulls(object, Some(&self.root));
        meta::normalize_embedded(object, &self.root, &mut unknown);
        unknown
    }

    /// Sets the defaults of fields that are missing, or null without being nullable.
    pub fn default(&self, object: &mut Value) {
        default::apply(object, &self.root);
    }

    /// Validates an object, or the change of `old` to it; everything but the object's own metadata.
    ///
    /// On a change, faults of what didn't change are forgiven as the real server does.
    #[must_use]
    pub fn validate(&self, object: &Value, old: Option<&Value>) -> Vec<FieldError> {
        self.complete(validate::validate(object, old, &self.root, ""), object, old, true)
    }

    /// Validates the change of an object's status: the schema of the status, and the lists and rules of all.
    #[must_use]
    pub fn validate_status(&self, object: &Value, old: &Value) -> Vec<FieldError> {
        let errors = match (object.get("status"), self.root.properties.get("status")) {
            (Some(status), Some(node)) => validate::validate(status, old.get("status"), node, "status"),
            _ => Vec::new(),
        };
        self.complete(errors, object, Some(old), false)
    }

    /// Continues the faults of values with those of embedded objects, lists and rules.
    fn complete(
        &self,
        mut errors: Vec<FieldError>,
        object: &Value,
        old: Option<&Value>,
        embedded: bool,
    ) -> Vec<FieldError> {
        if embedded {
            meta::validate_embedded(object, &self.root, "", &mut errors);
        }
        let mut repeated = Vec::new();
        lists::validate(object, &self.root, "", &mut repeated);
        if !repeated.is_empty()
            && let Some(old) = old
        {
            // What was repeated before may stay.
            let mut before = Vec::new();
            lists::validate(old, &self.root, "", &mut before);
            if !before.is_empty() {
                repeated.clear();
            }
        }
        errors.append(&mut repeated);
        if self.root.has_rules {
            if errors.iter().any(|error| blocks_rules(error.kind)) {
                let detail = "some validation rules were not checked because the object was invalid; correct the existing errors to complete validation";
                errors.push(FieldError::invalid(NO_FIELD, "null", detail));
            } else {
                errors.append(&mut cel::validate(object, old, &self.root, "", true));
            }
        }
        errors
    }
}

/// Faults after which CEL rules would see what their types don't allow.
fn blocks_rules(kind: FieldErrorKind) -> bool {
    matches!(
        kind,
        FieldErrorKind::NotSupported
            | FieldErrorKind::Required
            | FieldErrorKind::TooLong
            | FieldErrorKind::TooMany
            | FieldErrorKind::TypeInvalid
    )
}

/// Writes whole floats as integers (`1.0` as `1`), as Go's encoder does; to be called on what is stored.
pub fn normalize_numbers(value: &mut Value) {
    match value {
        Value::Number(number) if !number.is_i64() => {
            // From 1e21 on Go writes an exponent; beyond 64 bits this can't be told apart from a float, so it stays.
            if let Some(int) = number.as_f64().filter(|x| x.fract() == 0.0 && x.abs() < 9e18) {
                *number = Number::from(int as i64);
            }
        }
        Value::Array(items) => items.iter_mut().for_each(normalize_numbers),
        Value::Object(fields) => fields.values_mut().for_each(normalize_numbers),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
