//! The metadata of objects and of embedded objects: what may stand in it, and its form after decoding.
//!
//! The rules of names, labels and the like are checked here for embedded objects only; the object's own are its kind's.

use serde_json::{Map, Value};

use super::{compile::Node, print};
use crate::field_error::{FieldError, json_kind};

/// The type of a field of metadata, with the name that Go's decoder gives it.
enum Shape {
    Text(&'static str),
    Int,
    Bool,
    Time,
    /// Any object.
    Open,
    Texts,
    TextMap,
    /// Objects of this Go type with these fields; `true` for those that are always written.
    Objects(&'static str, &'static str, &'static [(&'static str, Shape, bool)]),
}

const OWNER: &[(&str, Shape, bool)] = &[
    ("apiVersion", Shape::Text("string"), true),
    ("kind", Shape::Text("string"), true),
    ("name", Shape::Text("string"), true),
    ("uid", Shape::Text("types.UID"), true),
    ("controller", Shape::Bool, false),
    ("blockOwnerDeletion", Shape::Bool, false),
];

const MANAGED: &[(&str, Shape, bool)] = &[
    ("manager", Shape::Text("string"), false),
    ("operation", Shape::Text("v1.ManagedFieldsOperationType"), false),
    ("apiVersion", Shape::Text("string"), false),
    ("time", Shape::Time, false),
    ("fieldsType", Shape::Text("string"), false),
    ("fieldsV1", Shape::Open, false),
    ("subresource", Shape::Text("string"), false),
];

const METADATA: &[(&str, Shape, bool)] = &[
    ("name", Shape::Text("string"), false),
    ("generateName", Shape::Text("string"), false),
    ("namespace", Shape::Text("string"), false),
    ("selfLink", Shape::Text("string"), false),
    ("uid", Shape::Text("types.UID"), false),
    ("resourceVersion", Shape::Text("string"), false),
    ("generation", Shape::Int, false),
    ("creationTimestamp", Shape::Time, false),
    ("deletionTimestamp", Shape::Time, false),
    ("deletionGracePeriodSeconds", Shape::Int, false),
    ("labels", Shape::TextMap, false),
    ("annotations", Shape::TextMap, false),
    ("ownerReferences", Shape::Objects("v1.OwnerReference", "OwnerReference", OWNER), false),
    ("finalizers", Shape::Texts, false),
    ("managedFields", Shape::Objects("v1.ManagedFieldsEntry", "ManagedFieldsEntry", MANAGED), false),
];

/// Why metadata can't be decoded, in the words of Go's decoder.
///
/// # Errors
/// The first field of a wrong type.
pub(super) fn decodable(metadata: &Value) -> Result<(), String> {
    match metadata {
        Value::Null => Ok(()),
        Value::Object(fields) => check_fields(fields, METADATA, "ObjectMeta"),
        other => Err(format!("json: cannot unmarshal {} into Go value of type v1.ObjectMeta", json_kind(other))),
    }
}

fn check_fields(
    fields: &Map<String, Value>,
    known: &'static [(&'static str, Shape, bool)],
    place: &str,
) -> Result<(), String> {
    for (name, value) in fields {
        if let Some((_, shape, _)) = known.iter().find(|(known, ..)| known == name) {
            check(value, shape, &format!("{place}.{name}"))?;
        }
    }
    Ok(())
}

fn check(value: &Value, shape: &Shape, place: &str) -> Result<(), String> {
    let wrong = |go: &str| {
        Err(format!("json: cannot unmarshal {} into Go struct field {place} of type {go}", json_kind(value)))
    };
    match (shape, value) {
        (_, Value::Null) | (Shape::Text(_), Value::String(_)) | (Shape::Bool, Value::Bool(_)) | (Shape::Open, _) => {
            Ok(())
        }
        (Shape::Text(go), _) => wrong(go),
        (Shape::Bool, _) => wrong("bool"),
        (Shape::Int, Value::Number(number)) if number.is_i64() => Ok(()),
        (Shape::Int, Value::Number(number)) => Err(format!(
            "json: cannot unmarshal number {} into Go struct field {place} of type int64",
            print::number_plain(number)
        )),
        (Shape::Int, _) => wrong("int64"),
        (Shape::Time, Value::String(text)) => match chrono::DateTime::parse_from_rfc3339(text) {
            Ok(_) => Ok(()),
            Err(_) => Err(format!(
                "parsing time \"{text}\" as \"2006-01-02T15:04:05Z07:00\": cannot parse \"{text}\" as \"2006\""
            )),
        },
        (Shape::Time, _) => wrong("string"),
        (Shape::Texts, Value::Array(items)) => {
            items.iter().try_for_each(|item| check(item, &Shape::Text("string"), place))
        }
        (Shape::Texts, _) => wrong("[]string"),
        (Shape::TextMap, Value::Object(fields)) => {
            fields.values().try_for_each(|item| check(item, &Shape::Text("string"), place))
        }
        (Shape::TextMap, _) => wrong("map[string]string"),
        (Shape::Objects(go, short, known), Value::Array(items)) => items.iter().try_for_each(|item| match item {
            Value::Object(fields) => {
                // The decoder names the inner type and the path below the outer one.
                let below = place.split_once('.').map_or(place, |(_, path)| path);
                check_fields(fields, known, &format!("{short}.{below}"))
            }
            Value::Null => Ok(()),
            other => {
                Err(format!("json: cannot unmarshal {} into Go struct field {place} of type {go}", json_kind(other)))
            }
        }),
        (Shape::Objects(go, ..), _) => wrong(&format!("[]{go}")),
    }
}

/// Brings metadata to the form that decoding and encoding it again gives: unknown fields and empty ones go.
///
/// Adds the paths of unknown fields, sorted, below `path`.
pub(super) fn normalize(metadata: &mut Value, path: &str, unknown: &mut Vec<String>) {
    let mut paths = Vec::new();
    match metadata {
        Value::Object(fields) => normalize_fields(fields, METADATA, path, &mut paths),
        other => *other = Value::Object(Map::new()),
    }
    paths.sort_unstable();
    unknown.append(&mut paths);
}

fn normalize_fields(
    fields: &mut Map<String, Value>,
    known: &'static [(&'static str, Shape, bool)],
    path: &str,
    unknown: &mut Vec<String>,
) {
    fields.retain(|name, value| {
        let Some((_, shape, always)) = known.iter().find(|(known, ..)| known == name) else {
            unknown.push(format!("{path}.{name}"));
            return false;
        };
        match (shape, &mut *value) {
            (_, Value::Null) => return false,
            (Shape::Text(_), Value::String(text)) if text.is_empty() => return *always,
            // A grace period is a pointer in Go, so a zero is kept.
            (Shape::Int, Value::Number(number)) if number.as_i64() == Some(0) => {
                return name == "deletionGracePeriodSeconds";
            }
            (Shape::Time, Value::String(text)) => normalize_time(text),
            (Shape::TextMap, Value::Object(map)) => {
                map.values_mut().filter(|text| text.is_null()).for_each(|text| *text = "".into());
                return !map.is_empty();
            }
            (Shape::Texts, Value::Array(items)) => {
                items.iter_mut().filter(|text| text.is_null()).for_each(|text| *text = "".into());
                return !items.is_empty();
            }
            (Shape::Objects(_, _, known), Value::Array(items)) => {
                for (i, item) in items.iter_mut().enumerate() {
                    if item.is_null() {
                        *item = Value::Object(Map::new());
                    }
                    if let Value::Object(fields) = item {
                        normalize_fields(fields, known, &format!("{path}.{name}[{i}]"), unknown);
                    }
                }
                return !items.is_empty();
            }
            _ => {}
        }
        true
    });
    for (name, _, always) in known {
        if *always && !fields.contains_key(*name) {
            fields.insert((*name).to_owned(), "".into());
        }
    }
}

/// Times are written in UTC and whole seconds.
fn normalize_time(text: &mut String) {
    if let Ok(time) = chrono::DateTime::parse_from_rfc3339(text) {
        *text = time.to_utc().format("%Y-%m-%dT%H:%M:%SZ").to_string();
    }
}

/// Calls `each` with every embedded object of a value and its path.
fn embedded(
    value: &mut Value,
    node: &Node,
    path: &str,
    each: &mut impl FnMut(&mut Map<String, Value>, &str) -> Result<(), FieldError>,
) -> Result<(), FieldError> {
    match value {
        Value::Object(fields) => {
            if node.embedded {
                each(fields, path)?;
            }
            for (name, value) in fields.iter_mut() {
                if let Some(known) = node.properties.get(name) {
                    embedded(value, known, &join(path, name), each)?;
                } else if let Some(known) = node.additional.node() {
                    embedded(value, known, &format!("{path}[{name}]"), each)?;
                }
            }
        }
        Value::Array(items) => {
            if let Some(known) = &node.items {
                for (i, item) in items.iter_mut().enumerate() {
                    embedded(item, known, &format!("{path}[{i}]"), each)?;
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    Ok(())
}

/// Checks that the embedded objects of a value can be decoded.
///
/// # Errors
/// The first one that can't.
pub(super) fn embedded_decodable(value: &Value, node: &Node, path: &str) -> Result<(), FieldError> {
    let mut copy = value.clone();
    embedded(&mut copy, node, path, &mut |fields, path| {
        for (name, value) in fields.iter() {
            let at = join(path, name);
            match name.as_str() {
                "apiVersion" | "kind" if !value.is_string() => {
                    return Err(FieldError::invalid(at, print::value(value), "must be a string"));
                }
                "metadata" => decodable(value).map_err(|why| FieldError::invalid(at, print::value(value), why))?,
                _ => {}
            }
        }
        Ok(())
    })
}

/// Normalizes the metadata of every embedded object; adds the paths of unknown fields, sorted.
pub(super) fn normalize_embedded(value: &mut Value, node: &Node, unknown: &mut Vec<String>) {
    let mut paths = Vec::new();
    // Nothing here fails.
    let _ = embedded(value, node, "", &mut |fields, path| {
        if let Some(metadata) = fields.get_mut("metadata") {
            normalize(metadata, &join(path, "metadata"), &mut paths);
        }
        Ok(())
    });
    paths.sort_unstable();
    unknown.append(&mut paths);
}

/// Validates the embedded objects of a value: the required fields, names, labels and annotations.
pub(super) fn validate_embedded(value: &Value, node: &Node, path: &str, errors: &mut Vec<FieldError>) {
    match value {
        Value::Object(fields) => {
            if node.embedded {
                validate_object(fields, path, errors);
            }
            for (name, value) in fields {
                if let Some(known) = node.properties.get(name) {
                    validate_embedded(value, known, &join(path, name), errors);
                } else if let Some(known) = node.additional.node() {
                    validate_embedded(value, known, &format!("{path}[{name}]"), errors);
                }
            }
        }
        Value::Array(items) => {
            if let Some(known) = &node.items {
                for (i, item) in items.iter().enumerate() {
                    validate_embedded(item, known, &format!("{path}[{i}]"), errors);
                }
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Validates one embedded object.
pub(super) fn validate_object(fields: &Map<String, Value>, path: &str, errors: &mut Vec<FieldError>) {
    for name in ["apiVersion", "kind"] {
        if !fields.contains_key(name) {
            errors.push(FieldError::required(join(path, name), ""));
        }
    }
    for (name, value) in fields {
        let at = join(path, name);
        let mut wrong = |detail: String| errors.push(FieldError::invalid(&at, print::value(value), detail));
        match (name.as_str(), value) {
            ("apiVersion", Value::String(text)) => match text.split('/').count() {
                _ if text.is_empty() => wrong("must not be empty".to_owned()),
                1 | 2 => {}
                _ => wrong(format!("unexpected GroupVersion string: {text}")),
            },
            ("kind", Value::String(text)) if text.is_empty() => wrong("must not be empty".to_owned()),
            ("kind", Value::String(text)) => {
                if let Some(why) = names::dns_1035_label(&text.to_lowercase()) {
                    wrong(format!("may have mixed case, but should otherwise match: {why}"));
                }
            }
            ("apiVersion" | "kind", _) => wrong("must be a string".to_owned()),
            ("metadata", _) => validate_metadata(value, &at, errors),
            _ => {}
        }
    }
}

fn validate_metadata(metadata: &Value, path: &str, errors: &mut Vec<FieldError>) {
    if let Err(why) = decodable(metadata) {
        errors.push(FieldError::invalid(path, print::value(metadata), why));
        return;
    }
    let text = |name: &str| metadata.get(name).and_then(Value::as_str).unwrap_or_default();
    let mut wrong = |at: String, value: &str, why: String| {
        errors.push(FieldError::invalid(at, crate::field_error::go_quote(value), why));
    };
    for name in ["generateName", "name"] {
        for why in names::path_segment(text(name), name == "generateName") {
            wrong(join(path, name), text(name), why);
        }
    }
    if !text("namespace").is_empty()
        && let Some(why) = names::dns_1123_label(text("namespace"))
    {
        wrong(join(path, "namespace"), text("namespace"), why);
    }
    for (map, at) in [("labels", join(path, "labels")), ("annotations", join(path, "annotations"))] {
        for (key, value) in metadata.get(map).and_then(Value::as_object).into_iter().flatten() {
            // The keys of annotations are checked in lower case.
            let checked = if map == "labels" { key.clone() } else { key.to_lowercase() };
            for why in names::qualified(&checked) {
                wrong(at.clone(), key, why);
            }
            let value = value.as_str().unwrap_or_default();
            if map == "labels" {
                for why in names::label_value(value) {
                    wrong(at.clone(), value, why);
                }
            }
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The names that Kubernetes allows, and its words for those that it doesn't.
mod names {
    const LABEL: &str = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?')";
    const LABEL_1035: &str = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character (e.g. 'my-name',  or 'abc-123', regex used for validation is '[a-z]([-a-z0-9]*[a-z0-9])?')";
    const SUBDOMAIN: &str = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character (e.g. 'example.com', regex used for validation is '[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*')";
    const NAME_PART: &str = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyName',  or 'my.name',  or '123-abc', regex used for validation is '([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]')";
    const VALUE: &str = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character (e.g. 'MyValue',  or 'my_value',  or '12345', regex used for validation is '(([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9])?')";

    fn lower(b: u8) -> bool {
        b.is_ascii_lowercase() || b.is_ascii_digit()
    }

    fn label(text: &str) -> bool {
        let bytes = text.as_bytes();
        matches!((bytes.first(), bytes.last()), (Some(a), Some(z)) if lower(*a) && lower(*z))
            && bytes.iter().all(|b| lower(*b) || *b == b'-')
    }

    fn name_part(text: &str) -> bool {
        let bytes = text.as_bytes();
        matches!((bytes.first(), bytes.last()), (Some(a), Some(z)) if a.is_ascii_alphanumeric() && z.is_ascii_alphanumeric())
            && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    }

    fn longer(text: &str, limit: usize) -> Option<String> {
        (text.len() > limit).then(|| format!("must be no more than {limit} bytes"))
    }

    pub(super) fn dns_1123_label(text: &str) -> Option<String> {
        let why = if text.split('.').all(label) { "must not contain dots" } else { LABEL };
        longer(text, 63).or_else(|| (!label(text)).then(|| why.to_owned()))
    }

    pub(super) fn dns_1035_label(text: &str) -> Option<String> {
        let fits = label(text) && text.starts_with(|c: char| c.is_ascii_lowercase());
        longer(text, 63).or_else(|| (!fits).then(|| LABEL_1035.to_owned()))
    }

    pub(super) fn path_segment(text: &str, prefix: bool) -> Vec<String> {
        if !prefix && matches!(text, "." | "..") {
            return vec![format!("may not be '{text}'")];
        }
        ["/", "%"].iter().filter(|c| text.contains(**c)).map(|c| format!("may not contain '{c}'")).collect()
    }

    pub(super) fn label_value(text: &str) -> Vec<String> {
        let mut whys: Vec<String> = longer(text, 63).into_iter().collect();
        if !text.is_empty() && !name_part(text) {
            whys.push(VALUE.to_owned());
        }
        whys
    }

    pub(super) fn qualified(text: &str) -> Vec<String> {
        let mut whys = Vec::new();
        let parts: Vec<&str> = text.split('/').collect();
        let name = match parts.as_slice() {
            [name] => *name,
            [prefix, name] => {
                if prefix.is_empty() {
                    whys.push("prefix part must be non-empty".to_owned());
                } else if let Some(why) = longer(prefix, 253) {
                    whys.push(format!("prefix part {why}"));
                } else if !prefix.split('.').all(label) {
                    whys.push(format!("prefix part {SUBDOMAIN}"));
                }
                *name
            }
            _ => {
                return vec![format!(
                    "a valid label key {NAME_PART} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')"
                )];
            }
        };
        if name.is_empty() {
            whys.push("name part must be non-empty".to_owned());
        } else if let Some(why) = longer(name, 63) {
            whys.push(format!("name part {why}"));
        }
        if !name_part(name) {
            whys.push(format!("name part {NAME_PART}"));
        }
        whys
    }
}
