//! Takes out of an answer what two right servers must differ in: names of the trial, uids, times, versions, addresses.
//!
//! Never loses an order: uids become ordinals of their first sight, versions of objects ordinals among all that the
//! script saw, so that "as before", "newer" and "older" are still compared.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::cluster::Context;

/// Times of earlier years are the script's own.
const FIRST_YEAR_OF_NOW: u32 = 2024;
/// What the real server offers beside JSON and YAML, and the embedded one doesn't.
const ALSO_OFFERED: [&str; 2] =
    [", application/vnd.kubernetes.protobuf;stream=watch", ", application/vnd.kubernetes.protobuf"];
/// Letters that `generateName` adds.
const GENERATED_LETTERS: usize = 5;

/// What was seen so far.
#[derive(Default)]
pub(crate) struct Ordinals {
    versions: BTreeSet<u64>,
    /// The newest version of an object in the answers normalised so far.
    newest: u64,
    uids: BTreeMap<String, usize>,
    generated: BTreeMap<String, String>,
}

impl Ordinals {
    /// Takes note of the versions of objects in an answer.
    pub(crate) fn see(&mut self, value: &Value) {
        match value {
            Value::Array(list) => list.iter().for_each(|item| self.see(item)),
            Value::Object(map) => {
                if !is_list(value)
                    && value["type"] != "BOOKMARK"
                    && let Some(version) = version_of(value)
                {
                    self.versions.insert(version);
                }
                if value["type"] != "BOOKMARK" {
                    map.values().for_each(|item| self.see(item));
                }
                let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
                let (name, base) = (text("name"), text("generateName"));
                if !base.is_empty() && name.len() == base.len() + GENERATED_LETTERS && name.starts_with(base) {
                    self.generated.insert(name.to_owned(), format!("{base}<5>"));
                }
            }
            _ => {}
        }
    }

    fn version(&mut self, version: u64, of_object: bool) -> String {
        let ordinal = self.versions.iter().position(|known| *known == version);
        if of_object {
            self.newest = self.newest.max(version);
            return ordinal.map_or_else(|| "v?".to_owned(), |ordinal| format!("v{ordinal}"));
        }
        // Others write too, so a collection may be newer than its newest object.
        match ordinal {
            Some(ordinal) if version < self.newest => format!("v{ordinal}"),
            None if version < self.newest => "old".to_owned(),
            _ => "now".to_owned(),
        }
    }

    fn uid(&mut self, uid: &str) -> String {
        let next = self.uids.len();
        format!("<uid {}>", self.uids.entry(uid.to_owned()).or_insert(next))
    }
}

/// An answer as it is compared.
pub(crate) fn value(value: Value, context: &Context, ordinals: &mut Ordinals) -> Value {
    walk(value, context, ordinals, false)
}

/// Removes what a pointer's parts name; `*` is every member.
pub(crate) fn forget(value: &mut Value, names: &[&str]) {
    let [first, rest @ ..] = names else { return };
    let members: Vec<&mut Value> = match value {
        Value::Object(map) if rest.is_empty() => {
            if *first == "*" {
                map.clear();
            } else {
                drop(map.remove(*first));
            }
            return;
        }
        Value::Object(map) => {
            map.iter_mut().filter(|(name, _)| *first == "*" || name == first).map(|(_, v)| v).collect()
        }
        Value::Array(list) if rest.is_empty() => {
            list.iter_mut()
                .enumerate()
                .filter(|(i, _)| *first == "*" || i.to_string() == *first)
                .for_each(|(_, item)| *item = Value::Null);
            return;
        }
        Value::Array(list) => list
            .iter_mut()
            .enumerate()
            .filter(|(i, _)| *first == "*" || i.to_string() == *first)
            .map(|(_, v)| v)
            .collect(),
        _ => return,
    };
    members.into_iter().for_each(|member| forget(member, rest));
}

fn is_list(value: &Value) -> bool {
    value["kind"].as_str().is_some_and(|kind| kind == "Table" || kind.ends_with("List"))
}

fn version_of(value: &Value) -> Option<u64> {
    value["metadata"]["resourceVersion"].as_str()?.parse().ok()
}

fn walk(mut value: Value, context: &Context, ordinals: &mut Ordinals, bookmark: bool) -> Value {
    let of_object = !bookmark && !is_list(&value);
    if let Some(version) = version_of(&value) {
        value["metadata"]["resourceVersion"] = ordinals.version(version, of_object).into();
    }
    if value["metadata"]["continue"].as_str().is_some_and(|token| !token.is_empty()) {
        value["metadata"]["continue"] = "<token>".into();
    }
    let bookmark = bookmark || value["type"] == "BOOKMARK";
    match value {
        Value::String(text) => Value::String(text_of(&text, context, ordinals)),
        Value::Array(list) => list.into_iter().map(|item| walk(item, context, ordinals, bookmark)).collect(),
        Value::Object(map) => {
            let members = map.into_iter().filter(|(name, _)| name != "managedFields");
            let members = members
                .map(|(name, item)| (text_of(&name, context, ordinals), walk(item, context, ordinals, bookmark)));
            Value::Object(members.collect())
        }
        other => other,
    }
}

fn text_of(text: &str, context: &Context, ordinals: &mut Ordinals) -> String {
    let mut text = ALSO_OFFERED.iter().fold(text.to_owned(), |text, offer| text.replace(offer, ""));
    for (name, shown) in &ordinals.generated {
        text = text.replace(name, shown);
    }
    text = text.replace(&context.id, "<id>").replace(&context.user.name, "<user>");
    let mut out = String::with_capacity(text.len());
    let mut rest = text.as_str();
    while let Some(first) = rest.chars().next() {
        if let Some(uid) = rest.get(..36).filter(|part| is_uid(part)) {
            out.push_str(&ordinals.uid(uid));
            rest = &rest[36..];
        } else if let Some(length) = time_length(rest) {
            out.push_str("<time>");
            rest = &rest[length..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    if is_address(&out) {
        "<address>".to_owned()
    } else if is_age(&out) {
        "<age>".to_owned()
    } else {
        out
    }
}

fn is_uid(text: &str) -> bool {
    text.char_indices().all(|(at, c)| if matches!(at, 8 | 13 | 18 | 23) { c == '-' } else { c.is_ascii_hexdigit() })
}

/// `2026-01-01T00:00:00Z`, also with a fraction.
fn time_length(text: &str) -> Option<usize> {
    let head = text.get(..19)?;
    let shape = head.char_indices().all(|(at, c)| match at {
        4 | 7 => c == '-',
        10 => c == 'T',
        13 | 16 => c == ':',
        _ => c.is_ascii_digit(),
    });
    if !shape || head[..4].parse::<u32>().ok()? < FIRST_YEAR_OF_NOW {
        return None;
    }
    let rest = text[19..].trim_start_matches(|c: char| c == '.' || c.is_ascii_digit());
    rest.starts_with('Z').then(|| text.len() - rest.len() + 1)
}

/// Of the range that services get theirs from.
fn is_address(text: &str) -> bool {
    text.parse::<std::net::Ipv4Addr>().is_ok_and(|address| address.octets()[0] == 10)
}

/// What a Table shows of an object's age, and others of seconds.
fn is_age(text: &str) -> bool {
    let digits = text.strip_suffix('s').filter(|digits| digits.len() <= 2);
    digits.is_some_and(|digits| !digits.is_empty() && digits.chars().all(|c| c.is_ascii_digit()))
}
