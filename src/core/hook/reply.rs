//! A webhook's reply, read within limits.
//!
//! Never trusts: size, depth, number of children and shape are checked before anything is decided on them. Children
//! stay JSON text until a plan needs them.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::values::{check_values, find};
use crate::hash::xxh;

/// How much a reply may hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Children in the list.
    pub children: usize,
    /// Nested objects and lists.
    pub depth: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { body_bytes: 8 << 20, children: 10_000, depth: 64 }
    }
}

/// `resyncAfterSeconds` is at most this: a year.
pub const MAX_RESYNC_AFTER: Duration = Duration::from_secs(365 * 24 * 3600);

/// A positive `resyncAfterSeconds` is at least this: a tiny one is no wish for a hot loop.
pub const MIN_RESYNC_AFTER: Duration = Duration::from_millis(100);

/// Why a reply can't be used. Each names the field.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// Larger than [`Limits::body_bytes`].
    #[error("the reply is larger than {limit} bytes")]
    Body {
        /// The limit.
        limit: usize,
    },
    /// Nothing at all.
    #[error("the reply is empty, but a JSON object is expected")]
    Empty,
    /// Nested deeper than [`Limits::depth`].
    #[error("the reply is nested deeper than {limit} levels")]
    Depth {
        /// The limit.
        limit: usize,
    },
    /// More than [`Limits::children`].
    #[error("children: {count} are more than the limit of {limit}")]
    Children {
        /// How many there are.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// Not JSON, or of another shape.
    #[error("the reply is not JSON of the expected shape: {0}")]
    Shape(String),
    /// A field that the protocol doesn't know, read strictly.
    #[error(
        "{0}: unknown field in the reply; known are status, children, resyncAfterSeconds and finalized \
         (webhook.responseUnMarshallMode: loose accepts others)"
    )]
    Unknown(String),
    /// A field that stands twice, read strictly.
    #[error("{0}: the field stands twice in the reply (webhook.responseUnMarshallMode: loose takes the last)")]
    Duplicate(String),
    /// A child that can't be applied.
    #[error("children[{index}]: {problem}")]
    Child {
        /// Its place in the list.
        index: usize,
        /// What is wrong, and what to do.
        problem: String,
    },
}

/// What a sync hook answered.
#[derive(Debug, Default)]
pub struct SyncReply {
    /// The parent's status as JSON text; `None` for null or a missing field.
    pub status: Option<Box<RawValue>>,
    /// The children that shall be.
    pub children: Vec<Desired>,
    /// Sync again after this long.
    pub resync_after: Option<Duration>,
    /// What was read loosely and deserves a log line.
    pub remarks: Vec<String>,
}

/// One child that shall be: its identity, and its JSON text.
#[derive(Debug)]
pub struct Desired {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// `metadata.namespace`, empty where it is missing.
    pub namespace: String,
    /// `metadata.name`.
    pub name: String,
    /// The whole object as the webhook wrote it.
    pub json: Box<RawValue>,
    /// A hash of [`Self::json`], never 0.
    pub hash: u64,
}

impl SyncReply {
    /// Reads a reply.
    ///
    /// # Errors
    /// If it is beyond `limits`, isn't of the protocol's shape, or (when `strict`) has unknown or duplicate fields.
    pub fn parse(body: &[u8], limits: Limits, strict: bool) -> Result<Self, Error> {
        if body.len() > limits.body_bytes {
            return Err(Error::Body { limit: limits.body_bytes });
        }
        if body.trim_ascii().is_empty() {
            return Err(Error::Empty);
        }
        check_depth(body, limits.depth)?;
        let text = std::str::from_utf8(body).map_err(|error| {
            let compressed = if body.starts_with(GZIP) { "compressed, which was not asked for, and " } else { "" };
            shape(format_args!("{compressed}not UTF-8: {error}"))
        })?;
        let wire: Wire<'_> = serde_json::from_str(text).map_err(|error| shape(format_args!("{error}")))?;
        let mut remarks = Vec::new();
        if strict {
            if let Some(name) = wire.unknown.into_iter().next() {
                return Err(Error::Unknown(name));
            }
            if let Some(name) = wire.duplicate.into_iter().next() {
                return Err(Error::Duplicate(name));
            }
        } else {
            remarks.extend(wire.unknown.into_iter().map(|name| format!("{name}: unknown field in the reply")));
            remarks.extend(wire.duplicate.into_iter().map(|name| format!("{name}: stands twice, the last counts")));
        }
        let raw_children = wire.children.unwrap_or_default();
        if raw_children.len() > limits.children {
            return Err(Error::Children { count: raw_children.len(), limit: limits.children });
        }
        let mut children = Vec::with_capacity(raw_children.len());
        for (index, raw) in raw_children.into_iter().enumerate() {
            children.push(desired(index, raw, strict)?);
        }
        let status = wire.status.filter(|raw| raw.get() != "null");
        status
            .map_or(Ok(()), |raw| check_values(raw, strict))
            .map_err(|error| shape(format_args!("status: {error}")))?;
        Ok(Self {
            status: status.map(ToOwned::to_owned),
            children,
            resync_after: resync_after(wire.resync_after_seconds)?,
            remarks,
        })
    }
}

fn resync_after(seconds: Option<f64>) -> Result<Option<Duration>, Error> {
    match seconds {
        Some(seconds) if seconds > 0.0 => {
            let seconds = seconds.clamp(MIN_RESYNC_AFTER.as_secs_f64(), MAX_RESYNC_AFTER.as_secs_f64());
            Duration::try_from_secs_f64(seconds)
                .map(Some)
                .map_err(|error| shape(format_args!("resyncAfterSeconds: {error}")))
        }
        _ => Ok(None),
    }
}

fn desired(index: usize, raw: &RawValue, strict: bool) -> Result<Desired, Error> {
    let problem = |problem: String| Error::Child { index, problem };
    if !raw.get().starts_with('{') {
        return Err(problem("must be a JSON object".to_owned()));
    }
    // First, because it names the field that stands twice or can't be held.
    check_values(raw, strict).map_err(|error| problem(excerpt(&error.to_string(), MAX_PROBLEM_CHARS)))?;
    let wrong =
        |field: &str, error: serde_json::Error| problem(excerpt(&format!("{field}: {error}"), MAX_PROBLEM_CHARS));
    let [api_version, kind, metadata] =
        find(raw, ["apiVersion", "kind", "metadata"]).map_err(|error| wrong("the object", error))?;
    let [name, namespace, generate_name] = match metadata.filter(|raw| raw.get() != "null") {
        Some(raw) => find(raw, ["name", "namespace", "generateName"]).map_err(|error| wrong("metadata", error))?,
        None => [None; 3],
    };
    let text = |field: &str, raw: Option<&RawValue>| {
        let text = raw.map_or(Ok(None), |raw| serde_json::from_str::<Option<String>>(raw.get()));
        text.map(|text| text.filter(|text| !text.is_empty())).map_err(|error| wrong(field, error))
    };
    let need = |field: &str, raw: Option<&RawValue>| {
        let why = if field == "metadata.name" && generate_name.is_some() {
            "; generateName would make another child at every call"
        } else {
            ""
        };
        text(field, raw)?.ok_or_else(|| problem(format!("{field} is missing{why}")))
    };
    Ok(Desired {
        api_version: need("apiVersion", api_version)?,
        kind: need("kind", kind)?,
        name: need("metadata.name", name)?,
        namespace: text("metadata.namespace", namespace)?.unwrap_or_default(),
        hash: xxh(raw.get().as_bytes()).max(1),
        json: raw.to_owned(),
    })
}

/// Counts nesting before any parser recurses. Only strings need care: brackets inside them don't count.
fn check_depth(body: &[u8], limit: usize) -> Result<(), Error> {
    let (mut depth, mut in_string, mut escaped) = (0usize, false, false);
    for byte in body {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'{' | b'[' if !in_string => {
                depth += 1;
                if depth > limit {
                    return Err(Error::Depth { limit });
                }
            }
            b'}' | b']' if !in_string => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    Ok(())
}

#[derive(Default)]
struct Wire<'a> {
    status: Option<&'a RawValue>,
    children: Option<Vec<&'a RawValue>>,
    resync_after_seconds: Option<f64>,
    unknown: Vec<String>,
    duplicate: Vec<String>,
}

impl<'de> Deserialize<'de> for Wire<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Fields;
        impl<'de> Visitor<'de> for Fields {
            type Value = Wire<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Wire<'de>, A::Error> {
                let mut wire = Wire::default();
                let mut seen: Vec<String> = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    match name.as_str() {
                        "status" => {
                            let raw: &RawValue = map.next_value()?;
                            if raw.get() != "null" && !raw.get().starts_with('{') {
                                return Err(serde::de::Error::custom("status: must be an object or null"));
                            }
                            wire.status = Some(raw);
                        }
                        "children" => wire.children = map.next_value().map_err(|e| in_field("children", e))?,
                        "resyncAfterSeconds" => {
                            wire.resync_after_seconds =
                                map.next_value().map_err(|error| in_field("resyncAfterSeconds", error))?;
                        }
                        // Of the finalize hook; means nothing in a sync reply, as in Metacontroller.
                        "finalized" => {
                            map.next_value::<Option<bool>>().map_err(|error| in_field("finalized", error))?;
                        }
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            if wire.unknown.len() < MAX_REMARKS {
                                wire.unknown.push(excerpt(&name, MAX_NAME_CHARS));
                            }
                            continue;
                        }
                    }
                    if !seen.contains(&name) {
                        seen.push(name);
                    } else if wire.duplicate.len() < MAX_REMARKS {
                        wire.duplicate.push(name);
                    }
                }
                Ok(wire)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

/// How gzip begins.
const GZIP: &[u8] = &[0x1f, 0x8b];
/// How many unknown fields of a reply are named, and how many duplicate ones.
const MAX_REMARKS: usize = 8;
/// How much of a name in a reply is repeated, in characters.
pub(crate) const MAX_NAME_CHARS: usize = 64;

/// How much of a parser's complaint is repeated, in characters: it may quote the reply.
pub(crate) const MAX_PROBLEM_CHARS: usize = 200;

/// The beginning of a text of somebody else's, without control characters.
pub(crate) fn excerpt(text: &str, chars: usize) -> String {
    let mut cut: String = text.chars().take(chars).filter(|c| !c.is_control()).collect();
    if text.chars().nth(chars).is_some() {
        cut.push('…');
    }
    cut
}

fn shape(problem: fmt::Arguments<'_>) -> Error {
    Error::Shape(excerpt(&problem.to_string(), MAX_PROBLEM_CHARS))
}

fn in_field<E: serde::de::Error>(field: &str, error: E) -> E {
    E::custom(format!("{field}: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(body: &str, strict: bool) -> Result<SyncReply, Error> {
        SyncReply::parse(body.as_bytes(), Limits::default(), strict)
    }

    fn fails(body: &str) -> String {
        parse(body, true).unwrap_err().to_string()
    }

    #[test]
    fn reads_what_the_contract_allows() {
        let body = r#"{"status":{"a":1},"children":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","namespace":"n"}}],
            "resyncAfterSeconds":2.5,"finalized":false}"#;
        let reply = parse(body, true).unwrap();
        assert_eq!(reply.status.unwrap().get(), r#"{"a":1}"#);
        assert_eq!(reply.resync_after, Some(Duration::from_millis(2500)));
        let child = &reply.children[0];
        assert_eq!((&*child.api_version, &*child.kind, &*child.namespace, &*child.name), ("v1", "Pod", "n", "x"));
        for empty in ["{}", r#"{"status":null,"children":null,"resyncAfterSeconds":0}"#] {
            let reply = parse(empty, true).unwrap();
            assert!(reply.status.is_none() && reply.children.is_empty() && reply.resync_after.is_none());
        }
        assert_eq!(parse(r#"{"resyncAfterSeconds":1e300}"#, true).unwrap().resync_after, Some(MAX_RESYNC_AFTER));
        assert_eq!(parse(r#"{"resyncAfterSeconds":1e-9}"#, true).unwrap().resync_after, Some(MIN_RESYNC_AFTER));
        assert_eq!(parse(r#"{"resyncAfterSeconds":-3}"#, true).unwrap().resync_after, None);
    }

    #[test]
    fn errors_name_the_field() {
        assert!(fails("").contains("empty") && fails(" \n").contains("empty"));
        assert!(fails("<html>").contains("not JSON"));
        assert!(fails("[]").contains("expected a JSON object"));
        assert!(fails(r#"{"status":[]}"#).contains("status: must be an object"));
        assert!(fails(r#"{"children":{}}"#).contains("children:"));
        assert!(fails(r#"{"children":[null]}"#).contains("children[0]: must be a JSON object"));
        assert!(fails(r#"{"children":[{"kind":"Pod","metadata":{"name":"x"}}]}"#).contains("children[0]: apiVersion"));
        assert!(fails(r#"{"children":[{"apiVersion":"v1","kind":"Pod"}]}"#).contains("children[0]: metadata.name"));
        assert!(fails(r#"{"resyncAfterSeconds":"soon"}"#).contains("resyncAfterSeconds"));
        assert!(fails("{\"status\":{\"a\":\"\u{1}\"}}").contains("not JSON"));
        // JavaScript and Python write a cut surrogate pair like this. A tree can't hold it: the child would be empty.
        for bad in [r#""\ud800""#, "1e999"] {
            let child = format!(r#"{{"apiVersion":"v1","kind":"P","metadata":{{"name":"x"}},"data":{{"a":[{bad}]}}}}"#);
            assert!(fails(&format!(r#"{{"children":[{child}]}}"#)).contains("children[0]: "), "{bad}");
            assert!(fails(&format!(r#"{{"status":{{"a":{bad}}}}}"#)).contains("status: "), "{bad}");
        }
        assert!(
            SyncReply::parse(b"{\"a\":\"\xff\"}", Limits::default(), true).unwrap_err().to_string().contains("UTF-8")
        );
    }

    #[test]
    fn errors_repeat_little_of_a_reply() {
        let long = "x".repeat(100_000);
        for body in [
            format!(r#"{{"resyncAfterSeconds":"{long}"}}"#),
            format!(r#"{{"status":"{long}"}}"#),
            format!(r#"{{"{long}":1}}"#),
            format!(r#"{{"children":[{{"apiVersion":"v1","kind":"P","metadata":"{long}"}}]}}"#),
        ] {
            let text = fails(&body);
            assert!(text.len() < 400, "{} bytes", text.len());
        }
    }

    #[test]
    fn strict_refuses_what_loose_remarks_on() {
        assert_eq!(fails(r#"{"stauts":{}}"#), Error::Unknown("stauts".into()).to_string());
        assert_eq!(fails(r#"{"children":[],"children":[]}"#), Error::Duplicate("children".into()).to_string());
        let reply = parse(r#"{"stauts":{},"status":{"a":1},"status":{"a":2}}"#, false).unwrap();
        assert_eq!(reply.status.unwrap().get(), r#"{"a":2}"#);
        assert_eq!(reply.remarks.len(), 2);
    }

    #[test]
    fn fields_of_a_child_are_named_when_they_are_wrong() {
        let child = |child: &str| fails(&format!(r#"{{"children":[{child}]}}"#));
        for (bad, field) in [
            (r#"{"apiVersion":1,"kind":"P","metadata":{"name":"x"}}"#, "apiVersion: invalid type"),
            (r#"{"apiVersion":"v1","kind":[],"metadata":{"name":"x"}}"#, "kind: invalid type"),
            (r#"{"apiVersion":"v1","kind":"P","metadata":[]}"#, "metadata: invalid type"),
            (r#"{"apiVersion":"v1","kind":"P","metadata":{"name":7}}"#, "metadata.name: invalid type"),
            (
                r#"{"apiVersion":"v1","kind":"P","metadata":{"name":"x","namespace":{}}}"#,
                "metadata.namespace: invalid type",
            ),
            (r#"{"apiVersion":"v1","kind":"P","metadata":{"name":""}}"#, "metadata.name is missing"),
            (r#"{"apiVersion":"v1","kind":"P","metadata":{"generateName":"x"}}"#, "generateName"),
            (r#"{"apiVersion":"v1","kind":"P","metadata":null}"#, "metadata.name is missing"),
        ] {
            assert!(
                child(bad).starts_with(&format!(
                    "children[0]: {}",
                    if field == "generateName" { "metadata.name" } else { field }
                )),
                "{}",
                child(bad)
            );
            assert!(child(bad).contains(field), "{}", child(bad));
        }
    }

    #[test]
    fn fields_that_stand_twice_anywhere_are_refused_if_strict() {
        let body = r#"{"children":[{"apiVersion":"v1","kind":"P","metadata":{"name":"x"},"data":{"k":"1","k":"2"}}]}"#;
        assert!(fails(body).contains("children[0]: k stands twice"), "{}", fails(body));
        let twice = r#"{"children":[{"apiVersion":"v1","kind":"P","kind":"Q","metadata":{"name":"x"}}]}"#;
        assert!(fails(twice).contains("children[0]: kind stands twice"), "{}", fails(twice));
        assert_eq!(parse(twice, false).unwrap().children[0].kind, "Q");
        assert!(fails(r#"{"status":{"a":[{"b":1,"b":1}]}}"#).contains("status: b stands twice"));
        assert!(parse(body, false).is_ok());
    }

    #[test]
    fn limits_hold_at_their_edge() {
        let limits = Limits { body_bytes: 1000, children: 2, depth: 4 };
        let child = r#"{"apiVersion":"v1","kind":"P","metadata":{"name":"x"}}"#;
        let two = format!(r#"{{"children":[{child},{child}]}}"#);
        assert_eq!(SyncReply::parse(two.as_bytes(), limits, true).unwrap().children.len(), 2);
        let three = format!(r#"{{"children":[{child},{child},{child}]}}"#);
        assert_eq!(
            SyncReply::parse(three.as_bytes(), limits, true).unwrap_err(),
            Error::Children { count: 3, limit: 2 }
        );
        let deep = r#"{"status":{"a":{"b":{"c":{}}}}}"#;
        assert_eq!(SyncReply::parse(deep.as_bytes(), limits, true).unwrap_err(), Error::Depth { limit: 4 });
        let brackets_in_text = r#"{"status":{"a":"{{{{[[[[\"{{{{"}}"#;
        assert!(SyncReply::parse(brackets_in_text.as_bytes(), limits, true).is_ok());
        let large = format!(r#"{{"status":{{"a":"{}"}}}}"#, "x".repeat(1000));
        assert_eq!(SyncReply::parse(large.as_bytes(), limits, true).unwrap_err(), Error::Body { limit: 1000 });
        let very_deep = "[".repeat(1_000_000);
        assert_eq!(
            SyncReply::parse(very_deep.as_bytes(), Limits::default(), true).unwrap_err(),
            Error::Depth { limit: 64 }
        );
    }
}
