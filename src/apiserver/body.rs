//! The body of a request as JSON: media types, YAML, repeated fields, and what the real server says of what isn't right.
//!
//! Never knows a kind's fields; what is repeated is noted, for the kind's strictness to judge.

use std::fmt;

use serde::de::{DeserializeSeed, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use crate::error::Error;
use crate::field_error::go_quote;
use crate::kinds;
use crate::patch::syntax_error;

/// Repeated fields that are named; more are only merged (sigs.k8s.io/json keeps as many).
const MAX_REPEATED: usize = 100;
/// So much of a body is shown when it can't be read.
const SHOWN_BYTES: usize = 30;
/// What client-go's typed clients write in.
const PROTOBUF: &str = "application/vnd.kubernetes.protobuf";

/// A body that could be read.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Written {
    /// What it says; the last of repeated fields counts.
    pub value: Value,
    /// What is said of fields that are there more than once, in the order in which they came.
    pub repeated: Vec<String>,
}

impl From<Value> for Written {
    fn from(value: Value) -> Self {
        Self::of(value)
    }
}

/// How repeated fields come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Repeated {
    /// Objects are merged, as Go does when it decodes into a struct.
    Merged,
    /// The last takes the place of those before, as in Go's untyped decoding.
    Replaced,
}

impl Written {
    /// A body without repeated fields, in process.
    #[must_use]
    pub fn of(value: Value) -> Self {
        Self { value, repeated: Vec::new() }
    }

    /// Reads the body of a write of this kind.
    ///
    /// # Errors
    /// 415 for a media type that isn't read here, 400 for what isn't an object.
    pub fn read(media_type: &str, bytes: &[u8], kind: &str, repeated: Repeated) -> Result<Self, Error> {
        if media_type == PROTOBUF && repeated == Repeated::Merged {
            return match kinds::from_protobuf(bytes) {
                Ok(value) => Ok(Self::of(value)),
                Err(why) => Err(unrecognized(kind, &why, bytes)),
            };
        }
        let body = match read(media_type, bytes, repeated)? {
            Ok(body) => body,
            Err(why) => return Err(unrecognized(kind, &why, bytes)),
        };
        let untyped = repeated == Repeated::Replaced && matches!(body.value, Value::Object(_) | Value::Null);
        if untyped && body.value["kind"].as_str().is_none_or(str::is_empty) {
            let shown = match media_type {
                "application/yaml" => body.value.to_string(),
                _ => String::from_utf8_lossy(bytes).into_owned(),
            };
            return Err(unrecognized(kind, &format!("Object 'Kind' is missing in '{shown}'"), bytes));
        }
        match &body.value {
            Value::Object(_) => Ok(body),
            // Go leaves the object as it is: empty.
            Value::Null if repeated == Repeated::Merged => Ok(Self::of(Value::Object(Map::new()))),
            other => Err(unrecognized(
                kind,
                &format!("couldn't get version/kind; json parse error: {}", no_type(other)),
                bytes,
            )),
        }
    }

    /// Reads DeleteOptions; no body is none.
    ///
    /// # Errors
    /// 415 for a media type that isn't read here, 400 for what isn't DeleteOptions.
    pub fn delete_options(media_type: &str, bytes: &[u8]) -> Result<Option<Value>, Error> {
        if bytes.is_empty() {
            return Ok(None);
        }
        let body = if media_type == PROTOBUF {
            kinds::from_protobuf(bytes).map(Self::of)
        } else {
            read(media_type, bytes, Repeated::Merged)?
        };
        let body = body.map_err(Error::bad_request)?;
        let text = |name: &str| body.value[name].as_str().unwrap_or_default();
        let (api_version, kind) = (text("apiVersion"), text("kind"));
        if !matches!(body.value, Value::Object(_) | Value::Null) {
            let why = no_type(&body.value);
            return Err(Error::bad_request(format!("couldn't get version/kind; json parse error: {why}")));
        }
        if !matches!(kind, "" | "DeleteOptions") {
            let api_version = if api_version.is_empty() { "v1" } else { api_version };
            return Err(Error::bad_request(format!(
                "no kind \"{kind}\" is registered for version \"{api_version}\" in scheme \"pkg/runtime/scheme.go:111\""
            )));
        }
        check_types(&body.value)?;
        Ok(Some(body.value))
    }
}

fn check_types(options: &Value) -> Result<(), Error> {
    for (field, go, fits) in [
        ("gracePeriodSeconds", "int64", Value::is_i64 as fn(&Value) -> bool),
        ("orphanDependents", "bool", Value::is_boolean),
        ("propagationPolicy", "v1.DeletionPropagation", Value::is_string),
        ("preconditions", "v1.Preconditions", Value::is_object),
        ("dryRun", "[]string", Value::is_array),
    ] {
        let value = &options[field];
        if !value.is_null() && !fits(value) {
            let what = crate::field_error::json_kind(value);
            let why = format!("json: cannot unmarshal {what} into Go struct field DeleteOptions.{field} of type {go}");
            return Err(Error::bad_request(why));
        }
    }
    Ok(())
}

/// The outer error is the media type's, the inner one Go's words on the text.
fn read(media_type: &str, bytes: &[u8], repeated: Repeated) -> Result<Result<Written, String>, Error> {
    let media_type = media_type.split(';').next().unwrap_or_default().trim();
    match media_type {
        "" | "*/*" | "application/json" => Ok(json(bytes, repeated)),
        "application/yaml" => Ok(yaml(bytes)),
        // Protobuf isn't for custom resources, whose types nobody knows.
        _ if repeated == Repeated::Replaced => Err(unsupported("application/json, application/yaml")),
        _ => Err(unsupported("application/json, application/yaml, application/vnd.kubernetes.protobuf")),
    }
}

/// 415.
pub(crate) fn unsupported(accepted: &str) -> Error {
    let message =
        format!("the body of the request was in an unknown format - accepted media types include: {accepted}");
    Error::new(415, "UnsupportedMediaType", message)
}

fn json(bytes: &[u8], repeated: Repeated) -> Result<Written, String> {
    let mut seen = Seen { mode: repeated, path: String::new(), repeated: Vec::new() };
    let text = String::from_utf8_lossy(bytes);
    let mut reader = serde_json::Deserializer::from_str(&text);
    let value = seen.deserialize(&mut reader).and_then(|value| reader.end().map(|()| value));
    match value {
        Ok(value) => {
            let repeated = seen.repeated.iter().map(|path| format!("duplicate field {}", go_quote(path))).collect();
            Ok(Written { value, repeated })
        }
        Err(error) => {
            let words = syntax_error(bytes).unwrap_or_else(|| error.to_string());
            Err(format!("couldn't get version/kind; json parse error: {words}"))
        }
    }
}

/// The real server reads YAML by turning it into JSON, with the last of repeated fields. Of those, one is named here.
fn yaml(bytes: &[u8]) -> Result<Written, String> {
    let text = std::str::from_utf8(bytes).map_err(|error| error.to_string())?;
    let options = serde_saphyr::options! { duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins };
    let value = serde_saphyr::from_str_with_options(text, options).map_err(|error| format!("yaml: {error}"))?;
    let repeated = match serde_saphyr::from_str::<serde::de::IgnoredAny>(text) {
        Ok(_) => None,
        Err(error) => match error.without_snippet() {
            serde_saphyr::Error::DuplicateMappingKey { key: Some(key), location } => {
                Some(format!("line {}: key {} already set in map", location.line(), go_quote(key)))
            }
            _ => None,
        },
    };
    Ok(Written { value, repeated: repeated.into_iter().collect() })
}

/// What Go says when it looks for the type of what isn't an object.
fn no_type(value: &Value) -> String {
    let kind = crate::field_error::json_kind(value);
    format!(
        "json: cannot unmarshal {kind} into Go value of type struct {{ APIVersion string \"json:\\\"apiVersion,omitempty\\\"\"; Kind string \"json:\\\"kind,omitempty\\\"\" }}"
    )
}

fn unrecognized(kind: &str, why: &str, bytes: &[u8]) -> Error {
    let head = &bytes[..bytes.len().min(SHOWN_BYTES)];
    let more = if bytes.len() > SHOWN_BYTES { " ..." } else { "" };
    let shown = match bytes.first() {
        None => "<empty>".to_owned(),
        Some(b'{') => String::from_utf8_lossy(head).into_owned() + more,
        Some(_) => head.iter().map(|byte| format!("{byte:02x}")).collect::<String>() + more,
    };
    Error::bad_request(format!("the object provided is unrecognized (must be of type {kind}): {why} ({shown})"))
}

/// Reads JSON and notes which fields are repeated.
struct Seen {
    mode: Repeated,
    path: String,
    repeated: Vec<String>,
}

impl<'de> DeserializeSeed<'de> for &mut Seen {
    type Value = Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for &mut Seen {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let end = self.path.len();
        let mut list = Vec::new();
        loop {
            self.path.push_str(&format!("[{}]", list.len()));
            let item = items.next_element_seed(&mut *self)?;
            self.path.truncate(end);
            let Some(item) = item else { return Ok(Value::Array(list)) };
            list.push(item);
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let end = self.path.len();
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if !self.path.is_empty() {
                self.path.push('.');
            }
            self.path.push_str(&name);
            if map.contains_key(&name) && self.repeated.len() < MAX_REPEATED && !self.repeated.contains(&self.path) {
                self.repeated.push(self.path.clone());
            }
            let value = members.next_value_seed(&mut *self)?;
            self.path.truncate(end);
            match map.get_mut(&name) {
                Some(known) if self.mode == Repeated::Merged => merge(known, value),
                _ => drop(map.insert(name, value)),
            }
        }
        Ok(Value::Object(map))
    }
}

fn merge(into: &mut Value, value: Value) {
    match (into, value) {
        (Value::Object(into), Value::Object(members)) => {
            for (name, value) in members {
                match into.get_mut(&name) {
                    Some(known) => merge(known, value),
                    None => drop(into.insert(name, value)),
                }
            }
        }
        (into, value) => *into = value,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(text: &str, repeated: Repeated) -> Result<Written, Error> {
        Written::read("application/json", text.as_bytes(), "ConfigMap", repeated)
    }

    #[test]
    fn repeated_fields_are_noted_and_come_together() {
        let text = r#"{"a":{"b":1,"b":2},"a":{"c":[{"d":1,"d":2}]}}"#;
        let merged = read(text, Repeated::Merged).unwrap();
        let paths = ["a.b", "a", "a.c[0].d"];
        assert_eq!(merged.repeated, paths.map(|path| format!("duplicate field \"{path}\"")));
        assert_eq!(merged.value, json!({ "a": { "b": 2, "c": [{ "d": 2 }] } }));
        let text = r#"{"kind":"A","a":{"b":1},"a":{"c":2}}"#;
        assert_eq!(read(text, Repeated::Replaced).unwrap().value, json!({ "kind": "A", "a": { "c": 2 } }));
        assert!(read("{}", Repeated::Replaced).unwrap_err().message.contains("Object 'Kind' is missing in '{}'"));
    }

    #[test]
    fn what_is_no_object_is_shown() {
        let why = |text: &str| read(text, Repeated::Merged).unwrap_err().message;
        assert!(why("{").ends_with("unexpected end of JSON input ({)"));
        assert!(why("").ends_with("unexpected end of JSON input (<empty>)"));
        assert!(why("[]").ends_with("} (5b5d)"));
        assert_eq!(read("null", Repeated::Merged).unwrap().value, json!({}));
        assert_eq!(Written::read("text/plain", b"{}", "ConfigMap", Repeated::Merged).unwrap_err().code, 415);
    }

    #[test]
    fn yaml_takes_the_last() {
        let body = Written::read("application/yaml", b"a: x\na: w\n", "ConfigMap", Repeated::Merged).unwrap();
        assert_eq!(body.value, json!({ "a": "w" }));
        assert_eq!(body.repeated, ["line 2: key \"a\" already set in map"]);
    }

    #[test]
    fn delete_options_are_typed() {
        let read = |text: &str| Written::delete_options("application/json", text.as_bytes());
        assert_eq!(read("").unwrap(), None);
        assert_eq!(read(r#"{"gracePeriodSeconds":1}"#).unwrap(), Some(json!({ "gracePeriodSeconds": 1 })));
        assert_eq!(read(r#"{"gracePeriodSeconds":"x"}"#).unwrap_err().code, 400);
        assert_eq!(read(r#"{"kind":"ConfigMap"}"#).unwrap_err().code, 400);
    }
}
