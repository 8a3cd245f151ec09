//! The reply of a decorator's hook: what an object's metadata shall carry beside its status and attachments.
//!
//! Never decides whether the object has it already: the plan does.

use std::collections::BTreeMap;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::extras::{Extras, RawExtras};
use super::reply::{
    Error, Limits, MAX_NAME_CHARS, MAX_PROBLEM_CHARS, MAX_REMARKS, SyncReply, desired, excerpt, resync_after, shape,
    strange, text,
};
use super::values::check_values;
use crate::dialect::Dialect;
use crate::selector::{check_key, check_value};
use crate::shards::LABEL_PREFIX;

/// Labels and annotations that an object shall have (`Some`), or shall not have (`None`). What isn't named stays as it
/// is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoration {
    /// Labels by key; none of the shards' own.
    pub labels: BTreeMap<String, Option<String>>,
    /// Annotations by key.
    pub annotations: BTreeMap<String, Option<String>>,
}

impl Decoration {
    /// Whether it asks for nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.labels.is_empty() && self.annotations.is_empty()
    }
}

impl SyncReply {
    /// Reads the reply of a decorator's hook; its attachments become [`SyncReply::children`].
    ///
    /// # Errors
    /// As [`SyncReply::parse`], and if a label or an annotation is none that an object can have.
    pub fn parse_decorator(body: &[u8], limits: Limits, strict: bool, dialect: &Dialect) -> Result<Self, Error> {
        let text = text(body, limits)?;
        let mut wire: Wire<'_> = serde_json::from_str(text).map_err(|error| shape(format_args!("{error}")))?;
        let extras = RawExtras { events: wire.known[EVENTS], conditions: wire.known[CONDITIONS] };
        let extras = extras.known_to(dialect, &mut wire.unknown);
        let known = if dialect.reply_extras {
            "labels, annotations, status, attachments, events, conditions, resyncAfterSeconds and finalized"
        } else {
            "labels, annotations, status, attachments, resyncAfterSeconds and finalized"
        };
        let mut remarks = strange(strict, wire.unknown, wire.duplicate, known)?;
        let attachments: Vec<&RawValue> = read("attachments", wire.known[ATTACHMENTS])?;
        if attachments.len() > limits.children {
            return Err(Error::Attachments { count: attachments.len(), limit: limits.children });
        }
        let mut children = Vec::with_capacity(attachments.len());
        for (index, raw) in attachments.into_iter().enumerate() {
            let attachment = desired(index, raw, strict).map_err(|error| match error {
                Error::Child { index, problem } => Error::Attachment { index, problem },
                other => other,
            });
            children.push(attachment?);
        }
        let status = wire.known[STATUS].filter(|raw| raw.get() != "null");
        if let Some(raw) = status {
            if !raw.get().starts_with('{') {
                return Err(shape(format_args!("status: must be an object or null")));
            }
            check_values(raw, strict).map_err(|error| shape(format_args!("status: {error}")))?;
        }
        let mut decoration = Decoration {
            labels: pairs("labels", wire.known[LABELS], strict)?,
            annotations: pairs("annotations", wire.known[ANNOTATIONS], strict)?,
        };
        for (key, value) in &decoration.labels {
            let checked = check_key(key).and_then(|()| value.as_deref().map_or(Ok(()), check_value));
            checked.map_err(|problem| refused("labels", key, &problem))?;
        }
        for key in decoration.annotations.keys() {
            // Kubernetes: the prefix of an annotation's key may have capital letters.
            check_key(&key.to_ascii_lowercase()).map_err(|problem| refused("annotations", key, &problem))?;
        }
        // They come back from webhooks that start from what they were sent, and are never theirs to set.
        decoration.labels.retain(|key, _| !key.starts_with(LABEL_PREFIX));
        let Extras { events, conditions } = extras.read(status, strict, &mut remarks)?;
        Ok(Self {
            status: status.map(ToOwned::to_owned),
            decoration,
            children,
            events,
            conditions,
            resync_after: resync_after(read("resyncAfterSeconds", wire.known[RESYNC_AFTER])?)?,
            finalized: read::<Option<bool>>("finalized", wire.known[FINALIZED])?.unwrap_or_default(),
            remarks,
        })
    }
}

fn refused(field: &'static str, key: &str, problem: &str) -> Error {
    let problem = format!("[{}] {problem}", excerpt(key, MAX_NAME_CHARS));
    Error::Decoration { field, problem: excerpt(&problem, MAX_PROBLEM_CHARS) }
}

/// One field of the reply; a missing one and null are the type's default.
fn read<'a, T: Deserialize<'a> + Default>(field: &str, raw: Option<&'a RawValue>) -> Result<T, Error> {
    let read = raw.map_or(Ok(None), |raw| serde_json::from_str::<Option<T>>(raw.get()));
    read.map(Option::unwrap_or_default).map_err(|error| shape(format_args!("{field}: {error}")))
}

fn pairs(field: &'static str, raw: Option<&RawValue>, strict: bool) -> Result<BTreeMap<String, Option<String>>, Error> {
    if let Some(raw) = raw {
        check_values(raw, strict).map_err(|error| shape(format_args!("{field}: {error}")))?;
    }
    read(field, raw)
}

/// The fields that the protocol knows, in the order of the constants below.
const KNOWN: [&str; 8] =
    ["labels", "annotations", "status", "attachments", "resyncAfterSeconds", "finalized", "events", "conditions"];
const LABELS: usize = 0;
const ANNOTATIONS: usize = 1;
const STATUS: usize = 2;
const ATTACHMENTS: usize = 3;
const RESYNC_AFTER: usize = 4;
const FINALIZED: usize = 5;
const EVENTS: usize = 6;
const CONDITIONS: usize = 7;

#[derive(Default)]
struct Wire<'a> {
    known: [Option<&'a RawValue>; KNOWN.len()],
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
                while let Some(name) = map.next_key::<String>()? {
                    let place = KNOWN.iter().position(|known| *known == name);
                    let Some(known) = place.and_then(|place| wire.known.get_mut(place)) else {
                        map.next_value::<IgnoredAny>()?;
                        if wire.unknown.len() < MAX_REMARKS {
                            wire.unknown.push(excerpt(&name, MAX_NAME_CHARS));
                        }
                        continue;
                    };
                    let before = known.replace(map.next_value()?);
                    if before.is_some() && wire.duplicate.len() < MAX_REMARKS {
                        wire.duplicate.push(name);
                    }
                }
                Ok(wire)
            }
        }
        deserializer.deserialize_map(Fields)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::METACONTROLLER;

    fn parse(body: &str, strict: bool) -> Result<SyncReply, String> {
        let read = SyncReply::parse_decorator(body.as_bytes(), Limits::default(), strict, &METACONTROLLER);
        read.map_err(|error| error.to_string())
    }

    fn fails(body: &str) -> String {
        parse(body, true).unwrap_err()
    }

    #[test]
    fn every_field_is_read() {
        let body = r#"{"labels":{"a":"1","old":null,"shard.ringmaster.dev/self":"7"},"annotations":{"Example.com/x":"y z"},
            "status":{"ready":true},"attachments":[{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}],
            "resyncAfterSeconds":2.5,"finalized":true}"#;
        let reply = parse(body, true).unwrap();
        let labels = [("a".to_owned(), Some("1".to_owned())), ("old".to_owned(), None)];
        assert_eq!(reply.decoration.labels, labels.into_iter().collect());
        let annotations = [("Example.com/x".to_owned(), Some("y z".to_owned()))];
        assert_eq!(reply.decoration.annotations, annotations.into_iter().collect());
        assert_eq!(reply.status.unwrap().get(), r#"{"ready":true}"#);
        assert_eq!((reply.children.len(), reply.children[0].name.as_str()), (1, "c"));
        assert_eq!((reply.resync_after.unwrap().as_secs_f64(), reply.finalized), (2.5, true));
    }

    #[test]
    fn what_is_missing_or_null_asks_for_nothing() {
        let nulls = r#"{"labels":null,"annotations":null,"status":null,"attachments":null,"resyncAfterSeconds":null,
            "finalized":null}"#;
        for body in ["{}", nulls] {
            let reply = parse(body, true).unwrap();
            assert!(reply.decoration.is_empty() && reply.status.is_none() && reply.children.is_empty(), "{body}");
            assert!(reply.resync_after.is_none() && !reply.finalized, "{body}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_by_its_field() {
        for (body, field) in [
            (r#"{"labels":[]}"#, "labels: "),
            (r#"{"labels":{"a":1}}"#, "labels: "),
            (r#"{"labels":{"a b":"1"}}"#, "labels: [a b] "),
            (r#"{"labels":{"a":"not a value"}}"#, "labels: [a] "),
            (r#"{"labels":{"Ex.com/a":"b"}}"#, "labels: [Ex.com/a] "),
            (r#"{"annotations":{"":"x"}}"#, "annotations: [] "),
            (r#"{"annotations":{"a":true}}"#, "annotations: "),
            (r#"{"status":1}"#, "status: must be"),
            (r#"{"attachments":{}}"#, "attachments: "),
            (r#"{"attachments":[{"kind":"A"}]}"#, "attachments[0]: apiVersion is missing"),
            (r#"{"resyncAfterSeconds":"1"}"#, "resyncAfterSeconds: "),
            (r#"{"finalized":1}"#, "finalized: "),
            (r#"{"children":[]}"#, "children: unknown field in the reply; known are labels"),
            (r#"{"labels":{},"labels":{}}"#, "labels: the field stands twice"),
            (r#"{"labels":{"a":"1","a":"2"}}"#, "a stands twice"),
            ("[]", "not JSON of the expected shape"),
            ("", "the reply is empty"),
        ] {
            let told = fails(body);
            assert!(told.contains(field), "{body}: {told}");
        }
        let limits = Limits { children: 0, ..Limits::default() };
        let one = br#"{"attachments":[{}]}"#;
        let told = SyncReply::parse_decorator(one, limits, true, &METACONTROLLER).unwrap_err();
        assert_eq!(told, Error::Attachments { count: 1, limit: 0 });
    }

    #[test]
    fn read_loosely_the_last_counts_and_the_rest_is_remarked() {
        let reply = parse(r#"{"x":1,"labels":{"a":"1"},"labels":{"b":"1","b":"2"}}"#, false).unwrap();
        let labels = [("b".to_owned(), Some("2".to_owned()))];
        assert_eq!(reply.decoration.labels, labels.into_iter().collect());
        assert_eq!(reply.remarks.len(), 2, "{:?}", reply.remarks);
    }
}
