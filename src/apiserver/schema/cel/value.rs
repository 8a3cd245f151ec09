//! Values of CEL rules: JSON seen through its schema.
//!
//! A rule sees only what the schema names; what else an object holds counts for equality alone.

use std::{cmp::Ordering, collections::BTreeMap, sync::Arc};

use chrono::{DateTime, FixedOffset};
use kube_cel::cel;
use serde_json::Value;

use crate::schema::{
    compile::{ListType, Node},
    format, print,
};

/// A value.
#[derive(Clone, Debug)]
pub(super) enum Val {
    /// `null`.
    Null,
    /// `bool`.
    Bool(bool),
    /// `int`.
    Int(i64),
    /// `uint`.
    Uint(u64),
    /// `double`.
    Double(f64),
    /// `string`.
    Text(Arc<str>),
    /// `bytes`.
    Bytes(Arc<[u8]>),
    /// `duration`, in nanoseconds.
    Span(i64),
    /// `timestamp`.
    Instant(DateTime<FixedOffset>),
    /// `list`.
    List(Arc<List>),
    /// `map`, and objects.
    Map(Arc<Fields>),
    /// `optional_type`.
    Optional(Option<Arc<Val>>),
    /// A type, by its name.
    Type(&'static str),
    /// A value of a library, like a quantity.
    Foreign(cel::Value),
    /// What the schema doesn't describe; it can only be compared.
    Hidden(Arc<Value>),
}

/// A list.
#[derive(Debug, Default)]
pub(super) struct List {
    /// The items.
    pub items: Vec<Val>,
    /// How they are told apart.
    pub unique: Unique,
}

/// How the items of a list are told apart.
#[derive(Clone, Debug, Default)]
pub(super) enum Unique {
    /// By their place.
    #[default]
    Place,
    /// By their value; the order doesn't count.
    Value,
    /// By these fields, escaped; the order doesn't count.
    Keys(Arc<[String]>),
}

/// A map or an object.
#[derive(Debug, Default)]
pub(super) struct Fields {
    /// What a rule sees; the fields of objects are escaped.
    pub entries: BTreeMap<Key, Val>,
    /// What it doesn't: fields that the schema doesn't name, and nulls.
    pub hidden: BTreeMap<String, Value>,
}

/// A key of a map.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Key {
    /// `bool`.
    Bool(bool),
    /// `int`, and `uint` if it fits.
    Int(i64),
    /// `uint` beyond `int`.
    Uint(u64),
    /// `string`.
    Text(Arc<str>),
}

impl Key {
    /// The key that a value is, if it can be one; whole doubles are ints.
    pub(super) fn of(value: &Val) -> Option<Self> {
        Some(match value {
            Val::Bool(value) => Self::Bool(*value),
            Val::Int(int) => Self::Int(*int),
            Val::Uint(uint) => i64::try_from(*uint).map_or(Self::Uint(*uint), Self::Int),
            Val::Double(x) if x.fract() == 0.0 && x.abs() < 9e15 => Self::Int(*x as i64),
            Val::Text(text) => Self::Text(Arc::clone(text)),
            _ => return None,
        })
    }

    /// The value of a key.
    pub(super) fn value(&self) -> Val {
        match self {
            Self::Bool(value) => Val::Bool(*value),
            Self::Int(int) => Val::Int(*int),
            Self::Uint(uint) => Val::Uint(*uint),
            Self::Text(text) => Val::Text(Arc::clone(text)),
        }
    }
}

/// Names that are words of the language.
const RESERVED: [&str; 21] = [
    "true",
    "false",
    "null",
    "in",
    "as",
    "break",
    "const",
    "continue",
    "else",
    "for",
    "function",
    "if",
    "import",
    "let",
    "loop",
    "package",
    "namespace",
    "return",
    "var",
    "void",
    "while",
];

/// The identifier by which a rule reaches a field; `None` if it can't.
pub(super) fn escape(name: &str) -> Option<String> {
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if RESERVED.contains(&name) {
        return Some(format!("__{name}__"));
    }
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_.-/".contains(&b)) {
        return None;
    }
    let escaped =
        name.replace("__", "\u{1}").replace('.', "__dot__").replace('-', "__dash__").replace('/', "__slash__");
    Some(escaped.replace('\u{1}', "__underscores__"))
}

impl Val {
    /// A text.
    pub(super) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// A plain list.
    pub(super) fn list(items: Vec<Self>) -> Self {
        Self::List(Arc::new(List { items, unique: Unique::Place }))
    }

    /// A plain map.
    pub(super) fn map(entries: BTreeMap<Key, Self>) -> Self {
        Self::Map(Arc::new(Fields { entries, hidden: BTreeMap::new() }))
    }

    /// JSON seen through its schema; `whole` says whether it is an object with apiVersion, kind and metadata.
    pub(super) fn of(value: &Value, node: &Node, whole: bool) -> Self {
        let hidden = || Self::Hidden(Arc::new(value.clone()));
        match (value, node.type_name.as_str()) {
            (Value::Null, _) => Self::Null,
            (Value::String(text), _) if node.int_or_string => Self::text(text),
            (Value::Number(number), _) if node.int_or_string => number.as_i64().map_or_else(hidden, Self::Int),
            (Value::Object(_), "object") => Self::object(value, node, whole),
            (Value::Array(items), "array") => {
                let Some(known) = node.items.as_deref() else { return hidden() };
                let unique = match &node.list_type {
                    ListType::Atomic => Unique::Place,
                    ListType::Set => Unique::Value,
                    ListType::Map(keys) => {
                        Unique::Keys(keys.iter().map(|key| escape(key).unwrap_or_else(|| key.clone())).collect())
                    }
                };
                let items = items.iter().map(|item| Self::of(item, known, known.embedded)).collect();
                Self::List(Arc::new(List { items, unique }))
            }
            (Value::String(text), "string") => Self::formatted(text, &node.format_name),
            (Value::Number(number), "number") => Self::Double(number.as_f64().unwrap_or(f64::NAN)),
            (Value::Number(number), "integer") => {
                // A whole float of an integer field is rare: only until it is stored.
                number.as_i64().or_else(|| number.as_f64().map(|x| x as i64)).map_or_else(hidden, Self::Int)
            }
            (Value::Bool(value), "boolean") => Self::Bool(*value),
            _ => hidden(),
        }
    }

    fn formatted(text: &str, name: &str) -> Self {
        let parsed = match name {
            "duration" => format::span(text).map(Self::Span),
            "date" => format::date(text)
                .and_then(|day| day.and_hms_opt(0, 0, 0))
                .map(|t| Self::Instant(t.and_utc().fixed_offset())),
            "date-time" => format::instant(text).map(Self::Instant),
            "byte" => decode_base64(text).map(|bytes| Self::Bytes(bytes.into())),
            _ => None,
        };
        parsed.unwrap_or_else(|| Self::text(text))
    }

    fn object(value: &Value, node: &Node, whole: bool) -> Self {
        let mut made = Fields::default();
        let is_object = whole || !node.properties.is_empty();
        for (name, value) in value.as_object().into_iter().flatten() {
            if !is_object {
                match node.additional.node() {
                    Some(known) => {
                        made.entries.insert(Key::Text(name.as_str().into()), Self::of(value, known, known.embedded));
                    }
                    None => {
                        made.hidden.insert(name.clone(), value.clone());
                    }
                }
                continue;
            }
            let seen = match name.as_str() {
                _ if value.is_null() => None,
                "apiVersion" | "kind" if whole => value.as_str().map(Self::text),
                "metadata" if whole => Some(Self::metadata(value)),
                _ => node
                    .properties
                    .get(name)
                    .filter(|known| exposed(known))
                    .map(|known| Self::of(value, known, known.embedded)),
            };
            match (escape(name), seen) {
                (Some(name), Some(seen)) => {
                    made.entries.insert(Key::Text(name.into()), seen);
                }
                _ => {
                    made.hidden.insert(name.clone(), value.clone());
                }
            }
        }
        Self::Map(Arc::new(made))
    }

    /// Of metadata a rule sees the names only.
    fn metadata(value: &Value) -> Self {
        let mut made = Fields::default();
        for (name, value) in value.as_object().into_iter().flatten() {
            match value.as_str().filter(|_| matches!(name.as_str(), "name" | "generateName")) {
                Some(text) => {
                    made.entries.insert(Key::Text(name.as_str().into()), Self::text(text));
                }
                None => {
                    made.hidden.insert(name.clone(), value.clone());
                }
            }
        }
        Self::Map(Arc::new(made))
    }

    /// The name of its type.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null_type",
            Self::Bool(_) => "bool",
            Self::Int(_) => "int",
            Self::Uint(_) => "uint",
            Self::Double(_) => "double",
            Self::Text(_) => "string",
            Self::Bytes(_) => "bytes",
            Self::Span(_) => "google.protobuf.Duration",
            Self::Instant(_) => "google.protobuf.Timestamp",
            Self::List(_) => "list",
            Self::Map(_) => "map",
            Self::Optional(_) => "optional_type",
            Self::Type(_) => "type",
            Self::Foreign(_) => "opaque",
            Self::Hidden(_) => "unknown",
        }
    }

    /// Whether two values are equal; numbers are compared by what they are worth.
    pub(super) fn equal(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Null, Self::Null) => true,
            (Self::Bool(a), Self::Bool(b)) => a == b,
            (Self::Int(_) | Self::Uint(_) | Self::Double(_), Self::Int(_) | Self::Uint(_) | Self::Double(_)) => {
                self.compare(other) == Some(Ordering::Equal)
            }
            (Self::Text(a), Self::Text(b)) => a == b,
            (Self::Bytes(a), Self::Bytes(b)) => a == b,
            (Self::Span(a), Self::Span(b)) => a == b,
            (Self::Instant(a), Self::Instant(b)) => a == b,
            (Self::Type(a), Self::Type(b)) => a == b,
            (Self::Foreign(a), Self::Foreign(b)) => a == b,
            (Self::Hidden(a), Self::Hidden(b)) => a == b,
            (Self::Optional(a), Self::Optional(b)) => match (a, b) {
                (Some(a), Some(b)) => a.equal(b),
                (a, b) => a.is_none() && b.is_none(),
            },
            (Self::List(a), Self::List(b)) => a.equal(b),
            (Self::Map(a), Self::Map(b)) => a.equal(b),
            _ => false,
        }
    }

    /// The order of two values; `None` if they have none.
    pub(super) fn compare(&self, other: &Self) -> Option<Ordering> {
        match (self, other) {
            (Self::Bool(a), Self::Bool(b)) => Some(a.cmp(b)),
            (Self::Text(a), Self::Text(b)) => Some(a.cmp(b)),
            (Self::Bytes(a), Self::Bytes(b)) => Some(a.cmp(b)),
            (Self::Span(a), Self::Span(b)) => Some(a.cmp(b)),
            (Self::Instant(a), Self::Instant(b)) => Some(a.cmp(b)),
            (Self::Double(a), Self::Double(b)) => a.partial_cmp(b),
            (Self::Double(a), b) => a.partial_cmp(&b.whole()?.as_double()),
            (a, Self::Double(b)) => a.whole()?.as_double().partial_cmp(b),
            (a, b) => Some(a.whole()?.0.cmp(&b.whole()?.0)),
        }
    }

    fn whole(&self) -> Option<Whole> {
        match self {
            Self::Int(int) => Some(Whole(i128::from(*int))),
            Self::Uint(uint) => Some(Whole(i128::from(*uint))),
            _ => None,
        }
    }
}

struct Whole(i128);

impl Whole {
    fn as_double(&self) -> f64 {
        self.0 as f64
    }
}

impl List {
    fn equal(&self, other: &Self) -> bool {
        if self.items.len() != other.items.len() {
            return false;
        }
        match &self.unique {
            Unique::Place => self.items.iter().zip(&other.items).all(|(a, b)| a.equal(b)),
            Unique::Value => other.items.iter().all(|b| self.items.iter().any(|a| a.equal(b))),
            Unique::Keys(keys) => {
                other.items.iter().all(|b| self.find(keys, b).is_some_and(|i| self.items[i].equal(b)))
            }
        }
    }

    fn find(&self, keys: &[String], item: &Val) -> Option<usize> {
        let wanted = key_fields(keys, item);
        self.items.iter().position(|own| {
            let own = key_fields(keys, own);
            own.iter().zip(&wanted).all(|pair| match pair {
                (Some(a), Some(b)) => a.equal(b),
                (a, b) => a.is_none() && b.is_none(),
            })
        })
    }

    /// Both lists as one: of a set each value once, of a map-like list each key once, its later value winning.
    pub(super) fn joined(&self, other: &Self) -> Self {
        let mut items = self.items.clone();
        for item in &other.items {
            let place = match &self.unique {
                Unique::Place => None,
                Unique::Value => self.items.iter().position(|own| own.equal(item)),
                Unique::Keys(keys) => self.find(keys, item),
            };
            match place {
                Some(i) => items[i] = item.clone(),
                None => items.push(item.clone()),
            }
        }
        Self { items, unique: self.unique.clone() }
    }
}

fn key_fields(keys: &[String], item: &Val) -> Vec<Option<Val>> {
    let Val::Map(fields) = item else { return vec![None; keys.len()] };
    keys.iter().map(|key| fields.entries.get(&Key::Text(key.as_str().into())).cloned()).collect()
}

impl Fields {
    fn equal(&self, other: &Self) -> bool {
        self.entries.len() == other.entries.len()
            && self.hidden == other.hidden
            && self.entries.iter().all(|(key, a)| other.entries.get(key).is_some_and(|b| a.equal(b)))
    }
}

/// Whether rules see values of a schema at all: only those of a known type, all the way down.
pub(super) fn exposed(node: &Node) -> bool {
    if node.int_or_string {
        return true;
    }
    match node.type_name.as_str() {
        "array" => node.items.as_deref().is_some_and(exposed),
        "object" => node.additional.node().is_none_or(exposed),
        "string" | "boolean" | "number" | "integer" => true,
        _ => false,
    }
}

/// Bytes from their standard or URL-safe form, padded.
fn decode_base64(text: &str) -> Option<Vec<u8>> {
    let digit = |b: u8| -> Option<u32> {
        Some(u32::from(match b {
            b'A'..=b'Z' => b - b'A',
            b'a'..=b'z' => b - b'a' + 26,
            b'0'..=b'9' => b - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        }))
    };
    let plain = text.trim_end_matches('=');
    if !text.len().is_multiple_of(4) || text.len() - plain.len() > 2 {
        return None;
    }
    let mut out = Vec::with_capacity(plain.len() * 3 / 4);
    for chunk in plain.as_bytes().chunks(4) {
        let mut bits = 0;
        for b in chunk {
            bits = bits << 6 | digit(*b)?;
        }
        bits <<= 6 * (4 - chunk.len());
        let bytes = bits.to_be_bytes();
        out.extend_from_slice(&bytes[1..chunk.len()]);
    }
    Some(out)
}

/// Gives a value to a library of the language.
pub(super) fn to_library(value: &Val) -> Option<cel::Value> {
    use cel::Value as Lib;
    Some(match value {
        Val::Null => Lib::Null,
        Val::Bool(value) => Lib::Bool(*value),
        Val::Int(int) => Lib::Int(*int),
        Val::Uint(uint) => Lib::UInt(*uint),
        Val::Double(x) => Lib::Float(*x),
        Val::Text(text) => Lib::String(Arc::new(text.to_string())),
        Val::Bytes(bytes) => Lib::Bytes(Arc::new(bytes.to_vec())),
        Val::Span(nanos) => Lib::Duration(chrono::Duration::nanoseconds(*nanos)),
        Val::Instant(time) => Lib::Timestamp(*time),
        Val::List(list) => Lib::List(Arc::new(list.items.iter().map(to_library).collect::<Option<_>>()?)),
        Val::Map(fields) => {
            let mut map = std::collections::HashMap::with_capacity(fields.entries.len());
            for (key, value) in &fields.entries {
                let key = match key {
                    Key::Bool(value) => cel::objects::Key::Bool(*value),
                    Key::Int(int) => cel::objects::Key::Int(*int),
                    Key::Uint(uint) => cel::objects::Key::Uint(*uint),
                    Key::Text(text) => cel::objects::Key::String(Arc::new(text.to_string())),
                };
                map.insert(key, to_library(value)?);
            }
            Lib::Map(cel::objects::Map { map: Arc::new(map) })
        }
        Val::Foreign(value) => value.clone(),
        Val::Optional(_) | Val::Type(_) | Val::Hidden(_) => return None,
    })
}

/// Takes a value from a library of the language.
pub(super) fn from_library(value: &cel::Value) -> Option<Val> {
    use cel::Value as Lib;
    Some(match value {
        Lib::Null => Val::Null,
        Lib::Bool(value) => Val::Bool(*value),
        Lib::Int(int) => Val::Int(*int),
        Lib::UInt(uint) => Val::Uint(*uint),
        Lib::Float(x) => Val::Double(*x),
        Lib::String(text) => Val::text(text),
        Lib::Bytes(bytes) => Val::Bytes(bytes.as_slice().into()),
        Lib::Duration(span) => Val::Span(span.num_nanoseconds()?),
        Lib::Timestamp(time) => Val::Instant(*time),
        Lib::List(items) => Val::list(items.iter().map(from_library).collect::<Option<_>>()?),
        Lib::Map(map) => {
            let mut entries = BTreeMap::new();
            for (key, value) in map.map.iter() {
                let key = match key {
                    cel::objects::Key::Bool(value) => Key::Bool(*value),
                    cel::objects::Key::Int(int) => Key::Int(*int),
                    cel::objects::Key::Uint(uint) => Key::Uint(*uint),
                    cel::objects::Key::String(text) => Key::Text(text.as_str().into()),
                };
                entries.insert(key, from_library(value)?);
            }
            Val::map(entries)
        }
        Lib::Opaque(opaque) if opaque.runtime_type_name() == "optional_type" => {
            let optional: &cel::objects::OptionalValue = value.try_into().ok()?;
            match optional.value() {
                Some(inner) => Val::Optional(Some(Arc::new(from_library(inner)?))),
                None => Val::Optional(None),
            }
        }
        Lib::Opaque(_) => Val::Foreign(value.clone()),
        Lib::Function(..) => return None,
    })
}

/// A number as `string(x)` gives it.
pub(super) fn double_text(x: f64) -> String {
    if x.is_nan() {
        "NaN".to_owned()
    } else if x.is_infinite() {
        if x > 0.0 { "+Inf".to_owned() } else { "-Inf".to_owned() }
    } else {
        print::float_g(x)
    }
}
