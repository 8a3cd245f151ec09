//! What makes a schema structural, and the words for a schema that isn't.
//!
//! Faults are sorted by their text, as the real server does.

use serde_json::{Map, Value, json};

use super::{compile::list, pattern, print};
use crate::field_error::{FieldError, go_quote};

/// Where a schema stands.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Root,
    Item,
    Field,
}

impl Level {
    fn type_missing(self) -> &'static str {
        match self {
            Self::Root => "must not be empty at the root",
            Self::Item => "must not be empty for specified array items",
            Self::Field => "must not be empty for specified object fields",
        }
    }
}

/// Finds what isn't structural.
pub(super) fn check(schema: &Value, path: &str) -> Vec<FieldError> {
    let mut errors = Vec::new();
    invariants(schema, Level::Root, path, &mut errors);
    complete(schema, Some(schema), path, path, &mut errors);
    errors.sort_by_cached_key(ToString::to_string);
    errors
}

/// A text of a schema; empty if it isn't there.
pub(super) fn text<'a>(schema: &'a Value, name: &str) -> &'a str {
    schema.get(name).and_then(Value::as_str).unwrap_or_default()
}

/// A boolean of a schema.
pub(super) fn flag(schema: &Value, name: &str) -> bool {
    schema.get(name).and_then(Value::as_bool).unwrap_or(false)
}

/// The fields of a map of schemas.
pub(super) fn fields<'a>(schema: &'a Value, name: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    schema.get(name).and_then(Value::as_object).into_iter().flat_map(Map::iter)
}

/// A schema below this one.
pub(super) fn below<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema.get(name).filter(|value| value.is_object())
}

fn invariants(schema: &Value, level: Level, path: &str, errors: &mut Vec<FieldError>) {
    let type_name = text(schema, "type");
    let embedded = flag(schema, "x-kubernetes-embedded-resource");
    let preserve = flag(schema, "x-kubernetes-preserve-unknown-fields");
    let int_or_string = flag(schema, "x-kubernetes-int-or-string");
    let at = |name: &str| format!("{path}.{name}");
    let has_additional = schema.get("additionalProperties").is_some_and(|value| !value.is_null());

    if type_name == "array" && below(schema, "items").is_none() {
        errors.push(FieldError::required(at("items"), "must be specified"));
    }
    if let Some(items) = below(schema, "items") {
        invariants(items, Level::Item, &at("items"), errors);
    }
    for (name, known) in fields(schema, "properties") {
        invariants(known, Level::Field, &format!("{path}.properties[{name}]"), errors);
    }
    if has_additional {
        if level == Level::Root {
            errors.push(FieldError::forbidden(at("additionalProperties"), "must not be used at the root"));
        }
        if let Some(known) = below(schema, "additionalProperties") {
            invariants(known, Level::Field, &at("additionalProperties"), errors);
        }
    }
    for (name, set) in [("preserve-unknown-fields", preserve), ("embedded-resource", embedded)] {
        if int_or_string && set {
            let detail = "must be false if x-kubernetes-int-or-string is true";
            errors.push(FieldError::invalid(at(&format!("x-kubernetes-{name}")), "true", detail));
        }
    }
    validations(schema, level, path, errors);

    let quoted = || go_quote(type_name);
    if embedded && type_name != "object" {
        let detail = "must be object if x-kubernetes-embedded-resource is true";
        errors.push(if type_name.is_empty() {
            FieldError::required(at("type"), detail)
        } else {
            FieldError::invalid(at("type"), quoted(), detail)
        });
    } else if type_name.is_empty() && !int_or_string && !preserve {
        errors.push(FieldError::required(at("type"), level.type_missing()));
    }
    if embedded && has_additional {
        let detail = "must not be used if x-kubernetes-embedded-resource is set";
        errors.push(FieldError::forbidden(at("additionalProperties"), detail));
    }
    if level == Level::Root && !type_name.is_empty() && type_name != "object" {
        errors.push(FieldError::invalid(at("type"), quoted(), "must be object at the root"));
    }
    if level == Level::Root || embedded {
        meta_types(schema, path, errors);
    }
    if let Some(metadata) = schema.get("properties").and_then(|known| known.get("metadata")) {
        metadata_only_names(metadata, level, embedded, &format!("{path}.properties[metadata]"), errors);
    }
    if embedded && !preserve && fields(schema, "properties").next().is_none() {
        let detail =
            "must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields";
        errors.push(FieldError::required(at("properties"), detail));
    }
}

fn meta_types(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for name in ["kind", "apiVersion"] {
        if let Some(known) = schema.get("properties").and_then(|known| known.get(name))
            && text(known, "type") != "string"
        {
            let at = format!("{path}.properties[{name}].type");
            errors.push(FieldError::invalid(at, go_quote(text(known, "type")), "must be string"));
        }
    }
}

fn metadata_only_names(schema: &Value, level: Level, embedded: bool, path: &str, errors: &mut Vec<FieldError>) {
    let type_name = text(schema, "type");
    if (level == Level::Root || embedded) && type_name != "object" {
        errors.push(FieldError::invalid(format!("{path}.type"), go_quote(type_name), "must be object"));
    }
    if level != Level::Root {
        return;
    }
    let only_names = fields(schema, "properties").all(|(name, _)| matches!(name.as_str(), "name" | "generateName"));
    let nothing_else = schema.as_object().is_none_or(|all| {
        all.iter().all(|(name, value)| matches!(name.as_str(), "type" | "default" | "properties") || is_unset(value))
    });
    if !(only_names && nothing_else) {
        let detail = "must not specify anything other than name and generateName, but metadata is implicitly specified";
        errors.push(FieldError::forbidden(path, detail));
    }
}

fn is_unset(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(true) | Value::Number(_) => false,
    }
}

/// The one pattern under which types may stand in anyOf.
fn is_int_or_string(any_of: &[Value]) -> bool {
    any_of == [json!({ "type": "integer" }), json!({ "type": "string" })]
}

fn validations(schema: &Value, level: Level, path: &str, errors: &mut Vec<FieldError>) {
    let skip_any = is_int_or_string(list(schema, "anyOf"));
    let skip_first_all = list(schema, "allOf").first().is_some_and(|first| is_int_or_string(list(first, "anyOf")));
    value_validation(schema, skip_any, skip_first_all, level, path, errors);
}

fn value_validation(
    schema: &Value,
    skip_any: bool,
    skip_first_all: bool,
    level: Level,
    path: &str,
    errors: &mut Vec<FieldError>,
) {
    if !skip_any {
        for (i, part) in list(schema, "anyOf").iter().enumerate() {
            nested(part, false, level, &format!("{path}.anyOf[{i}]"), errors);
        }
    }
    for (i, part) in list(schema, "allOf").iter().enumerate() {
        nested(part, skip_first_all && i == 0, level, &format!("{path}.allOf[{i}]"), errors);
    }
    for (i, part) in list(schema, "oneOf").iter().enumerate() {
        nested(part, false, level, &format!("{path}.oneOf[{i}]"), errors);
    }
    if let Some(part) = below(schema, "not") {
        nested(part, false, level, &format!("{path}.not"), errors);
    }
    let written = text(schema, "pattern");
    if !written.is_empty()
        && let Err(why) = pattern::compile(written)
    {
        let detail = format!("must be a valid regular expression, but isn't: {why}");
        errors.push(FieldError::invalid(format!("{path}.pattern"), go_quote(written), detail));
    }
}

/// What may not stand under allOf, anyOf, oneOf and not, and why.
const FORBIDDEN_BELOW: &[(&str, &str)] = &[
    ("type", "must be empty to be structural"),
    ("default", "must be undefined to be structural"),
    ("title", "must be empty to be structural"),
    ("description", "must be empty to be structural"),
    ("nullable", "must be false to be structural"),
    ("x-kubernetes-preserve-unknown-fields", "must be false to be structural"),
    ("x-kubernetes-embedded-resource", "must be false to be structural"),
    ("x-kubernetes-int-or-string", "must be false to be structural"),
    ("x-kubernetes-list-map-keys", "must be empty to be structural"),
    ("x-kubernetes-list-type", "must be undefined to be structural"),
    ("x-kubernetes-map-type", "must be undefined to be structural"),
    ("x-kubernetes-validations", "must be empty to be structural"),
];

fn nested(schema: &Value, skip_any: bool, level: Level, path: &str, errors: &mut Vec<FieldError>) {
    value_validation(schema, skip_any, false, level, path, errors);
    if let Some(items) = below(schema, "items") {
        nested(items, false, level, &format!("{path}.items"), errors);
    }
    for (name, known) in fields(schema, "properties") {
        nested(known, false, Level::Field, &format!("{path}.properties[{name}]"), errors);
    }
    if matches!(schema.get("additionalProperties"), Some(Value::Object(_) | Value::Bool(true))) {
        let at = format!("{path}.additionalProperties");
        errors.push(FieldError::forbidden(at, "must be undefined to be structural"));
    }
    for (name, detail) in FORBIDDEN_BELOW {
        let set = match *name {
            "default" => schema.get("default").is_some_and(|value| !value.is_null()),
            _ => schema.get(*name).is_some_and(|value| !is_unset(value)),
        };
        if set {
            errors.push(FieldError::forbidden(format!("{path}.{name}"), *detail));
        }
    }
    if schema.get("properties").and_then(|known| known.get("metadata")).is_some() {
        let at = format!("{path}.properties[metadata]");
        errors.push(FieldError::forbidden(at, "must not be specified in a nested context"));
    }
}

/// Everything that allOf and the like of the root speak of must be specified beside them.
fn complete(part: &Value, known: Option<&Value>, known_path: &str, part_path: &str, errors: &mut Vec<FieldError>) {
    let mut each = |part: &Value, path: String| complete_nested(part, known, known_path, &path, errors);
    if let Some(part) = below(part, "not") {
        each(part, format!("{part_path}.not"));
    }
    for junctor in ["allOf", "anyOf", "oneOf"] {
        for (i, part) in list(part, junctor).iter().enumerate() {
            each(part, format!("{part_path}.{junctor}[{i}]"));
        }
    }
}

fn complete_nested(
    part: &Value,
    known: Option<&Value>,
    known_path: &str,
    part_path: &str,
    errors: &mut Vec<FieldError>,
) {
    let Some(schema) = known else {
        errors.push(FieldError::required(known_path, format!("because it is defined in {part_path}")));
        return;
    };
    complete(part, known, known_path, part_path, errors);
    if let Some(part) = below(part, "items") {
        let below_path = format!("{part_path}.items");
        complete_nested(part, below(schema, "items"), &format!("{known_path}.items"), &below_path, errors);
    }
    for (name, part) in fields(part, "properties") {
        let known = schema.get("properties").and_then(|known| known.get(name));
        let below_path = format!("{part_path}.properties[{name}]");
        complete_nested(part, known, &format!("{known_path}.properties[{name}]"), &below_path, errors);
    }
}

/// The JSON of a value, for a field error.
pub(super) fn shown(value: Option<&Value>) -> String {
    print::value(value.unwrap_or(&Value::Null))
}
