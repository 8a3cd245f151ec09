//! What a reply of our own group may hold beside Metacontroller's fields: events on the parent, and conditions for its
//! status.
//!
//! Never decides whether an event is news, or since when a condition holds: who sends and who plans does.

use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::reply::{Error, MAX_NAME_CHARS, MAX_PROBLEM_CHARS, MAX_REMARKS, excerpt, shape};
use super::values::{check_values, find};
use crate::dialect::Dialect;
use crate::hash::xxh;
use crate::selector::check_key;

/// Events in one reply.
pub const MAX_EVENTS: usize = 10;
/// Conditions in one reply.
pub const MAX_CONDITIONS: usize = 32;
/// Longest reason of an event or a condition, in bytes; the API allows an event no longer one.
pub const MAX_REASON_BYTES: usize = 128;
/// Longest message of an event or a condition, in bytes; the API allows an event no longer one.
pub const MAX_MESSAGE_BYTES: usize = 1024;

/// An event that a hook wants on the parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookEvent {
    /// It is a `Warning`; otherwise `Normal`.
    pub warning: bool,
    /// A word in CamelCase, at most [`MAX_REASON_BYTES`].
    pub reason: String,
    /// A sentence, at most [`MAX_MESSAGE_BYTES`].
    pub message: String,
}

impl HookEvent {
    /// By which a list of events is known again; `None` of an empty one.
    #[must_use]
    pub fn fingerprint(events: &[Self]) -> Option<u64> {
        let text = |event: &Self| {
            let Self { warning, reason, message } = event;
            format!("{warning} {reason} {} {message}\n", message.len())
        };
        (!events.is_empty()).then(|| xxh(events.iter().map(text).collect::<String>().as_bytes()))
    }
}

/// A condition that a hook wants in the parent's status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HookCondition {
    /// What it is about; each type stands once.
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: &'static str,
    /// A word in CamelCase, at most [`MAX_REASON_BYTES`].
    pub reason: String,
    /// A sentence, or nothing; at most [`MAX_MESSAGE_BYTES`].
    pub message: String,
}

/// The two fields as they stand.
#[derive(Clone, Copy, Default)]
pub(super) struct RawExtras<'a> {
    pub(super) events: Option<&'a RawValue>,
    pub(super) conditions: Option<&'a RawValue>,
}

/// The two fields, read.
#[derive(Default)]
pub(super) struct Extras {
    pub(super) events: Vec<HookEvent>,
    pub(super) conditions: Vec<HookCondition>,
}

impl RawExtras<'_> {
    /// The fields, where the dialect knows them; elsewhere they are unknown fields like any other.
    pub(super) fn known_to(self, dialect: &Dialect, unknown: &mut Vec<String>) -> Self {
        if dialect.reply_extras {
            return self;
        }
        for (name, raw) in [("events", self.events), ("conditions", self.conditions)] {
            if raw.is_some() && unknown.len() < MAX_REMARKS {
                unknown.push(name.to_owned());
            }
        }
        Self::default()
    }

    /// Reads them. `status` is the reply's, into which the conditions are to be put.
    ///
    /// # Errors
    /// If there are too many, or one of them is no event or condition, with its field; and if the status has conditions
    /// that are no list, so that nothing can be put into them.
    pub(super) fn read(
        self,
        status: Option<&RawValue>,
        strict: bool,
        remarks: &mut Vec<String>,
    ) -> Result<Extras, Error> {
        let mut extras = Extras::default();
        for entry in entries("events", self.events, MAX_EVENTS, strict)? {
            entry.knows(&["type", "reason", "message"], strict, remarks)?;
            let warning = match entry.text("type", MAX_REASON_BYTES)?.as_deref() {
                None | Some("Normal") => false,
                Some("Warning") => true,
                Some(other) => return Err(entry.refused(&format!(".type: {other} is neither Normal nor Warning"))),
            };
            let (reason, message) = (entry.reason()?, entry.need("message")?);
            extras.events.push(HookEvent { warning, reason, message });
        }
        for entry in entries("conditions", self.conditions, MAX_CONDITIONS, strict)? {
            entry.knows(&["type", "status", "reason", "message"], strict, remarks)?;
            let kind = entry.need("type")?;
            check_key(&kind).map_err(|problem| entry.refused(&format!(".type: {problem}")))?;
            if extras.conditions.iter().any(|other| other.kind == kind) {
                return Err(entry.refused(&format!(".type: {kind} stands twice; name each type once")));
            }
            let status = match &*entry.need("status")? {
                "True" => "True",
                "False" => "False",
                "Unknown" => "Unknown",
                other => {
                    let problem =
                        format!(".status: {other} is none of \"True\", \"False\" and \"Unknown\", which are text");
                    return Err(entry.refused(&problem));
                }
            };
            let (reason, message) = (entry.reason()?, entry.text("message", MAX_MESSAGE_BYTES)?.unwrap_or_default());
            extras.conditions.push(HookCondition { kind, status, reason, message });
        }
        if let Some(status) = status.filter(|_| !extras.conditions.is_empty()) {
            let [present] = find(status, ["conditions"]).map_err(|error| shape(format_args!("status: {error}")))?;
            if present.is_some_and(|raw| raw.get() != "null" && !raw.get().starts_with('[')) {
                return Err(shape(format_args!("status.conditions: must be a list beside conditions")));
            }
        }
        Ok(extras)
    }
}

/// One entry of a list.
struct Entry<'a> {
    list: &'static str,
    index: usize,
    fields: BTreeMap<String, &'a RawValue>,
}

impl Entry<'_> {
    /// `problem` begins with the field, after a dot.
    fn refused(&self, problem: &str) -> Error {
        let problem = excerpt(problem, MAX_PROBLEM_CHARS);
        Error::Extra { list: self.list, index: self.index, problem }
    }

    /// Whatever else it holds is refused, or remarked on if it is read loosely.
    fn knows(&self, known: &[&str], strict: bool, remarks: &mut Vec<String>) -> Result<(), Error> {
        for name in self.fields.keys().filter(|name| !known.contains(&name.as_str())) {
            let problem = format!(".{}: unknown field; known are {}", excerpt(name, MAX_NAME_CHARS), known.join(", "));
            if strict {
                return Err(self.refused(&problem));
            }
            if remarks.len() < MAX_REMARKS {
                remarks.push(format!("{}[{}]{problem}", self.list, self.index));
            }
        }
        Ok(())
    }

    /// A text; `None` for null, a missing field and an empty one.
    fn text(&self, field: &str, most_bytes: usize) -> Result<Option<String>, Error> {
        let raw = self.fields.get(field).map_or("null", |raw| raw.get());
        let read: Option<String> =
            serde_json::from_str(raw).map_err(|error| self.refused(&format!(".{field}: {error}")))?;
        let text = read.filter(|text| !text.is_empty());
        let bytes = text.as_ref().map_or(0, String::len);
        if bytes > most_bytes {
            let problem = format!(".{field}: {bytes} bytes are more than the limit of {most_bytes}");
            return Err(self.refused(&problem));
        }
        Ok(text)
    }

    fn need(&self, field: &str) -> Result<String, Error> {
        self.text(field, MAX_MESSAGE_BYTES)?.ok_or_else(|| self.refused(&format!(".{field} is missing")))
    }

    fn reason(&self) -> Result<String, Error> {
        let missing = || self.refused(".reason is missing");
        let reason = self.text("reason", MAX_REASON_BYTES)?.ok_or_else(missing)?;
        let is_word = reason.starts_with(|c: char| c.is_ascii_uppercase());
        if is_word && reason.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Ok(reason);
        }
        let problem = format!(".reason: {reason} isn't a word in CamelCase: letters and digits, such as QuotaExceeded");
        Err(self.refused(&problem))
    }
}

/// The entries of a list; null and a missing one have none.
fn entries<'a>(
    list: &'static str,
    raw: Option<&'a RawValue>,
    limit: usize,
    strict: bool,
) -> Result<Vec<Entry<'a>>, Error> {
    let Some(raw) = raw.filter(|raw| raw.get() != "null") else { return Ok(Vec::new()) };
    let wrong = |error: serde_json::Error| shape(format_args!("{list}: {error}"));
    check_values(raw, strict).map_err(wrong)?;
    let raw: Vec<&'a RawValue> = serde_json::from_str(raw.get()).map_err(wrong)?;
    if raw.len() > limit {
        return Err(Error::Extras { list, count: raw.len(), limit });
    }
    let entry = |(index, raw): (usize, &'a RawValue)| -> Result<Entry<'a>, Error> {
        let fields = serde_json::from_str(raw.get()).map_err(|error| {
            let problem = excerpt(&format!(": {error}"), MAX_PROBLEM_CHARS);
            Error::Extra { list, index, problem }
        })?;
        Ok(Entry { list, index, fields })
    };
    raw.into_iter().enumerate().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{Limits, SyncReply};
    use super::*;
    use crate::dialect::{METACONTROLLER, RINGMASTER};

    fn parse(body: &str, strict: bool) -> Result<SyncReply, String> {
        let read = SyncReply::parse(body.as_bytes(), Limits::default(), strict, &RINGMASTER);
        read.map_err(|error| error.to_string())
    }

    #[test]
    fn both_kinds_of_hooks_may_say_it() {
        let body = r#"{"events":[{"type":"Warning","reason":"QuotaExceeded","message":"no room"},
            {"reason":"Made","message":"it"}],
            "conditions":[{"type":"example.com/Ready","status":"False","reason":"NoQuota","message":"no room"},
            {"type":"Known","status":"Unknown","reason":"NotAsked"}]}"#;
        let decorator = SyncReply::parse_decorator(body.as_bytes(), Limits::default(), true, &RINGMASTER).unwrap();
        for reply in [parse(body, true).unwrap(), decorator] {
            let event = |warning, reason: &str, message: &str| HookEvent {
                warning,
                reason: reason.to_owned(),
                message: message.to_owned(),
            };
            assert_eq!(reply.events, [event(true, "QuotaExceeded", "no room"), event(false, "Made", "it")]);
            let condition = |kind: &str, status, reason: &str, message: &str| HookCondition {
                kind: kind.to_owned(),
                status,
                reason: reason.to_owned(),
                message: message.to_owned(),
            };
            assert_eq!(
                reply.conditions,
                [
                    condition("example.com/Ready", "False", "NoQuota", "no room"),
                    condition("Known", "Unknown", "NotAsked", "")
                ]
            );
        }
        for nothing in ["{}", r#"{"events":null,"conditions":null}"#, r#"{"events":[],"conditions":[]}"#] {
            let reply = parse(nothing, true).unwrap();
            assert!(reply.events.is_empty() && reply.conditions.is_empty(), "{nothing}");
        }
    }

    #[test]
    fn bad_entries_are_told_by_their_field() {
        let long = "X".repeat(MAX_REASON_BYTES + 1);
        let much = "x".repeat(MAX_MESSAGE_BYTES + 1);
        let event = |text: &str| format!(r#"{{"events":[{{"reason":"Fine","message":"x"}},{text}]}}"#);
        let condition = |text: &str| format!(r#"{{"conditions":[{text}]}}"#);
        for (body, told) in [
            (event("1"), "events[1]: "),
            (event("null"), "events[1]: "),
            (event(r#"{"message":"x"}"#), "events[1].reason is missing"),
            (event(r#"{"reason":"","message":"x"}"#), "events[1].reason is missing"),
            (event(r#"{"reason":"two words","message":"x"}"#), "events[1].reason: two words isn't"),
            (event(r#"{"reason":"lower","message":"x"}"#), "events[1].reason: lower isn't"),
            (event(r#"{"reason":7,"message":"x"}"#), "events[1].reason: invalid type"),
            (event(&format!(r#"{{"reason":"{long}","message":"x"}}"#)), "events[1].reason: 129 bytes"),
            (event(r#"{"reason":"A"}"#), "events[1].message is missing"),
            (event(&format!(r#"{{"reason":"A","message":"{much}"}}"#)), "events[1].message: 1025 bytes"),
            (event(r#"{"type":"Error","reason":"A","message":"x"}"#), "events[1].type: Error is neither"),
            (event(r#"{"reason":"A","message":"x","note":1}"#), "events[1].note: unknown field; known are type"),
            (event(r#"{"reason":"A","reason":"B","message":"x"}"#), "events: reason stands twice"),
            (r#"{"events":{}}"#.to_owned(), "events: "),
            (condition(r#"{"status":"True","reason":"A"}"#), "conditions[0].type is missing"),
            (condition(r#"{"type":"a b","status":"True","reason":"A"}"#), "conditions[0].type: key"),
            (condition(r#"{"type":"A","status":true,"reason":"A"}"#), "conditions[0].status: invalid type"),
            (condition(r#"{"type":"A","status":"true","reason":"A"}"#), "conditions[0].status: true is none of"),
            (condition(r#"{"type":"A","status":"True"}"#), "conditions[0].reason is missing"),
            (
                condition(r#"{"type":"A","status":"True","reason":"B","lastTransitionTime":"x"}"#),
                "conditions[0].lastTransitionTime: unknown field",
            ),
            (
                condition(r#"{"type":"A","status":"True","reason":"B"},{"type":"A","status":"False","reason":"B"}"#),
                "conditions[1].type: A stands twice",
            ),
            (
                r#"{"status":{"conditions":{}},"conditions":[{"type":"A","status":"True","reason":"B"}]}"#.to_owned(),
                "status.conditions: must be a list",
            ),
        ] {
            let error = parse(&body, true).unwrap_err();
            assert!(error.contains(told), "{body}: {error}");
        }
    }

    #[test]
    fn there_is_a_limit_to_each() {
        let event = r#"{"reason":"A","message":"x"}"#;
        let events = |count: usize| parse(&format!(r#"{{"events":[{}]}}"#, vec![event; count].join(",")), true);
        assert_eq!(events(MAX_EVENTS).unwrap().events.len(), MAX_EVENTS);
        assert_eq!(events(MAX_EVENTS + 1).unwrap_err(), "events: 11 are more than the limit of 10");
        let conditions = |count: usize| {
            let one = |at: usize| format!(r#"{{"type":"T{at}","status":"True","reason":"A"}}"#);
            let all: Vec<String> = (0..count).map(one).collect();
            parse(&format!(r#"{{"conditions":[{}]}}"#, all.join(",")), true)
        };
        assert_eq!(conditions(MAX_CONDITIONS).unwrap().conditions.len(), MAX_CONDITIONS);
        assert_eq!(conditions(MAX_CONDITIONS + 1).unwrap_err(), "conditions: 33 are more than the limit of 32");
    }

    #[test]
    fn read_loosely_more_fields_are_remarked_on() {
        let reply = parse(r#"{"events":[{"reason":"A","message":"x","note":1}]}"#, false).unwrap();
        assert_eq!((reply.events.len(), reply.remarks.len()), (1, 1), "{:?}", reply.remarks);
        assert!(parse(r#"{"events":[{"reason":"a"}]}"#, false).is_err(), "what can't be sent is wrong all the same");
    }

    #[test]
    fn metacontrollers_objects_know_neither() {
        let body = br#"{"events":"x","conditions":[1]}"#;
        for parse in [SyncReply::parse, SyncReply::parse_decorator] {
            let error = parse(body, Limits::default(), true, &METACONTROLLER).unwrap_err().to_string();
            assert!(error.starts_with("events: unknown field in the reply") && !error.contains("events,"), "{error}");
            let reply = parse(body, Limits::default(), false, &METACONTROLLER).unwrap();
            assert!(reply.events.is_empty() && reply.conditions.is_empty());
            assert_eq!(reply.remarks.len(), 2, "{:?}", reply.remarks);
        }
    }

    #[test]
    fn a_list_is_known_again() {
        let event = |reason: &str, message: &str| HookEvent {
            warning: false,
            reason: reason.to_owned(),
            message: message.to_owned(),
        };
        assert_eq!(HookEvent::fingerprint(&[]), None);
        let of = |events: &[HookEvent]| HookEvent::fingerprint(events).unwrap();
        assert_eq!(of(&[event("A", "x")]), of(&[event("A", "x")]));
        assert_ne!(of(&[event("A", "x")]), of(&[event("A", "y")]));
        assert_ne!(of(&[event("A", "x")]), of(&[event("A", "x"), event("A", "x")]));
    }
}
