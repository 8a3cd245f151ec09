//! A webhook's reply, read within limits.
//!
//! Never trusts: size, depth, number of children and shape are checked before anything is decided on them. Children
//! stay JSON text until a plan needs them.

use std::fmt;
use std::time::Duration;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::decorated::Decoration;
use super::extras::{Extras, HookCondition, HookEvent, RawExtras};
use super::values::{check_values, find};
use crate::dialect::Dialect;
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
        "{name}: unknown field in the reply; known are {known} (webhook.responseUnMarshallMode: loose accepts others)"
    )]
    Unknown {
        /// Its name.
        name: String,
        /// Those that the protocol knows.
        known: &'static str,
    },
    /// A field that stands twice, read strictly.
    #[error("{0}: the field stands twice in the reply (webhook.responseUnMarshallMode: loose takes the last)")]
    Duplicate(String),
    /// A rule of a customize hook that can't be followed.
    #[error("relatedResources[{index}]{problem}")]
    Rule {
        /// Its place in the list.
        index: usize,
        /// The field in it, after a dot, what is wrong, and what to do.
        problem: String,
    },
    /// More rules or names in them than are followed.
    #[error("relatedResources: {count} {what} are more than the limit of {limit}")]
    Rules {
        /// How many there are.
        count: usize,
        /// Of what.
        what: &'static str,
        /// The limit.
        limit: usize,
    },
    /// More attachments than [`Limits::children`].
    #[error("attachments: {count} are more than the limit of {limit}")]
    Attachments {
        /// How many there are.
        count: usize,
        /// The limit.
        limit: usize,
    },
    /// An attachment that can't be applied.
    #[error("attachments[{index}]: {problem}")]
    Attachment {
        /// Its place in the list.
        index: usize,
        /// What is wrong, and what to do.
        problem: String,
    },
    /// A label or an annotation that an object can't have.
    #[error("{field}: {problem}")]
    Decoration {
        /// `labels` or `annotations`.
        field: &'static str,
        /// Which one, what is wrong, and what to do.
        problem: String,
    },
    /// An event or a condition that can't be taken.
    #[error("{list}[{index}]{problem}")]
    Extra {
        /// `events` or `conditions`.
        list: &'static str,
        /// Its place in the list.
        index: usize,
        /// The field in it, after a dot, what is wrong, and what to do.
        problem: String,
    },
    /// More events or conditions than are taken.
    #[error("{list}: {count} are more than the limit of {limit}")]
    Extras {
        /// `events` or `conditions`.
        list: &'static str,
        /// How many there are.
        count: usize,
        /// The limit.
        limit: usize,
    },
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
    /// What a decorator's hook wants of the parent's metadata; nothing in a composite's.
    pub decoration: Decoration,
    /// The children that shall be, or the attachments.
    pub children: Vec<Desired>,
    /// Events that it wants on the parent; at most [`super::MAX_EVENTS`].
    pub events: Vec<HookEvent>,
    /// What the parent's status shall have among its conditions; at most [`super::MAX_CONDITIONS`], each type once.
    pub conditions: Vec<HookCondition>,
    /// Sync again after this long.
    pub resync_after: Option<Duration>,
    /// All is done that had to be before the parent may go; means something in the reply of a finalize hook only.
    pub finalized: bool,
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
    /// Reads a reply to a controller of `dialect`.
    ///
    /// # Errors
    /// If it is beyond `limits`, isn't of the protocol's shape, or (when `strict`) has unknown or duplicate fields.
    pub fn parse(body: &[u8], limits: Limits, strict: bool, dialect: &Dialect) -> Result<Self, Error> {
        let text = text(body, limits)?;
        let mut wire: Wire<'_> = serde_json::from_str(text).map_err(|error| shape(format_args!("{error}")))?;
        let extras = wire.extras.known_to(dialect, &mut wire.unknown);
        let known = if dialect.reply_extras {
            "status, children, events, conditions, resyncAfterSeconds and finalized"
        } else {
            "status, children, resyncAfterSeconds and finalized"
        };
        let mut remarks = strange(strict, wire.unknown, wire.duplicate, known)?;
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
        let Extras { events, conditions } = extras.read(status, strict, &mut remarks)?;
        Ok(Self {
            status: status.map(ToOwned::to_owned),
            decoration: Decoration::default(),
            children,
            events,
            conditions,
            resync_after: resync_after(wire.resync_after_seconds)?,
            finalized: wire.finalized.unwrap_or_default(),
            remarks,
        })
    }
}

/// What to remark of fields that the protocol doesn't know, and of those that stand twice.
///
/// # Errors
/// Read strictly, the first of them.
pub(super) fn strange(
    strict: bool,
    unknown: Vec<String>,
    duplicate: Vec<String>,
    known: &'static str,
) -> Result<Vec<String>, Error> {
    let unknown = unknown.into_iter().map(|name| (name, true));
    let mut fields = unknown.chain(duplicate.into_iter().map(|name| (name, false)));
    if strict {
        return match fields.next() {
            Some((name, true)) => Err(Error::Unknown { name, known }),
            Some((name, false)) => Err(Error::Duplicate(name)),
            None => Ok(Vec::new()),
        };
    }
    let remark = |(name, is_unknown)| {
        let what = if is_unknown { ": unknown field in the reply" } else { ": stands twice, the last counts" };
        name + what
    };
    Ok(fields.map(remark).collect())
}

/// A reply's text, if it is within the limits of size and depth.
pub(super) fn text(body: &[u8], limits: Limits) -> Result<&str, Error> {
    if body.len() > limits.body_bytes {
        return Err(Error::Body { limit: limits.body_bytes });
    }
    if body.trim_ascii().is_empty() {
        return Err(Error::Empty);
    }
    check_depth(body, limits.depth)?;
    std::str::from_utf8(body).map_err(|error| {
        let compressed = if body.starts_with(GZIP) { "compressed, which was not asked for, and " } else { "" };
        shape(format_args!("{compressed}not UTF-8: {error}"))
    })
}

pub(super) fn resync_after(seconds: Option<f64>) -> Result<Option<Duration>, Error> {
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

pub(super) fn desired(index: usize, raw: &RawValue, strict: bool) -> Result<Desired, Error> {
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
    finalized: Option<bool>,
    extras: RawExtras<'a>,
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
                        "finalized" => {
                            wire.finalized = map.next_value().map_err(|error| in_field("finalized", error))?;
                        }
                        "events" => wire.extras.events = Some(map.next_value()?),
                        "conditions" => wire.extras.conditions = Some(map.next_value()?),
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
pub(super) const MAX_REMARKS: usize = 8;
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

pub(super) fn shape(problem: fmt::Arguments<'_>) -> Error {
    Error::Shape(excerpt(&problem.to_string(), MAX_PROBLEM_CHARS))
}

fn in_field<E: serde::de::Error>(field: &str, error: E) -> E {
    E::custom(format!("{field}: {error}"))
}

#[cfg(test)]
#[path = "reply_tests.rs"]
mod tests;
