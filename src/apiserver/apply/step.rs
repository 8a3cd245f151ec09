//! One step of a field's path: a member's name, or what tells one item of a list from the others.
//!
//! Order, text and FieldsV1 form are those of structured-merge-diff v6 (fieldpath/element.go, serialize-pe.go). Never
//! looks at a schema.

use std::cmp::Ordering;

use serde_json::Value;

use super::Error;
use crate::field_error::go_quote;
use crate::patch::go_json as json;

/// One step of a path.
#[derive(Clone, Debug)]
pub(crate) enum Step {
    /// A member of a map.
    Field(Box<str>),
    /// The item of a list of maps that has these keys, sorted by name.
    Key(Vec<(Box<str>, Value)>),
    /// The item of a list of scalars that is this one.
    Item(Value),
    /// The item at this place.
    Index(i64),
}

impl Step {
    pub(crate) fn field(name: &str) -> Self {
        Self::Field(name.into())
    }

    fn rank(&self) -> u8 {
        match self {
            Self::Field(_) => 0,
            Self::Key(_) => 1,
            Self::Item(_) => 2,
            Self::Index(_) => 3,
        }
    }

    /// As it stands in a path: `.name`, `[name="a"]`, `[="a"]`, `[1]`.
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Field(name) => format!(".{name}"),
            Self::Key(keys) => {
                let keys: Vec<String> = keys.iter().map(|(name, value)| format!("{name}={}", text(value))).collect();
                format!("[{}]", keys.join(","))
            }
            Self::Item(value) => format!("[={}]", text(value)),
            Self::Index(index) => format!("[{index}]"),
        }
    }

    /// Reads a member's name of FieldsV1; `None` for a kind of step that is not known, which is to be left out.
    pub(crate) fn parse(text: &str) -> Result<Option<Self>, Error> {
        let bad = || Error::Fields(format!("{text:?} names no field"));
        let (kind, rest) = text.split_at_checked(2).ok_or_else(bad)?;
        let value = || serde_json::from_str::<Value>(rest).map_err(|_| bad());
        match kind {
            "f:" => Ok(Some(Self::field(rest))),
            "v:" => Ok(Some(Self::Item(value()?))),
            "k:" => {
                // `serde_json` keeps members sorted by name.
                let Value::Object(keys) = value()? else { return Err(bad()) };
                Ok(Some(Self::Key(keys.into_iter().map(|(name, value)| (name.into(), value)).collect())))
            }
            "i:" => Ok(Some(Self::Index(rest.parse().map_err(|_| bad())?))),
            _ if kind.ends_with(':') => Ok(None),
            _ => Err(bad()),
        }
    }

    /// The member's name in FieldsV1.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Field(name) => format!("f:{name}"),
            Self::Key(keys) => {
                let keys: Vec<String> =
                    keys.iter().map(|(name, value)| format!("{}:{}", quoted(name), json(value))).collect();
                format!("k:{{{}}}", keys.join(","))
            }
            Self::Item(value) => format!("v:{}", json(value)),
            Self::Index(index) => format!("i:{index}"),
        }
    }
}

impl Ord for Step {
    fn cmp(&self, other: &Self) -> Ordering {
        match (self, other) {
            (Self::Field(a), Self::Field(b)) => a.cmp(b),
            (Self::Key(a), Self::Key(b)) => {
                for ((name, value), (other_name, other_value)) in a.iter().zip(b) {
                    let order = name.cmp(other_name).then_with(|| compare(value, other_value));
                    if order != Ordering::Equal {
                        return order;
                    }
                }
                a.len().cmp(&b.len())
            }
            (Self::Item(a), Self::Item(b)) => compare(a, b),
            (Self::Index(a), Self::Index(b)) => a.cmp(b),
            _ => self.rank().cmp(&other.rank()),
        }
    }
}

impl PartialOrd for Step {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Step {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Step {}

/// An order of all values: numbers, texts, booleans, lists, maps, null.
pub(crate) fn compare(a: &Value, b: &Value) -> Ordering {
    let rank = |value: &Value| match value {
        Value::Number(_) => 0,
        Value::String(_) => 1,
        Value::Bool(_) => 2,
        Value::Array(_) => 3,
        Value::Object(_) => 4,
        Value::Null => 5,
    };
    match (a, b) {
        (Value::Number(x), Value::Number(y)) => match (x.as_i64(), y.as_i64()) {
            (Some(x), Some(y)) => x.cmp(&y),
            _ => {
                let (x, y) = (x.as_f64().unwrap_or_default(), y.as_f64().unwrap_or_default());
                x.partial_cmp(&y).unwrap_or(Ordering::Equal)
            }
        },
        (Value::String(x), Value::String(y)) => x.cmp(y),
        (Value::Bool(x), Value::Bool(y)) => x.cmp(y),
        (Value::Array(x), Value::Array(y)) => {
            let differing = x.iter().zip(y).map(|(x, y)| compare(x, y)).find(|order| *order != Ordering::Equal);
            differing.unwrap_or_else(|| x.len().cmp(&y.len()))
        }
        (Value::Object(x), Value::Object(y)) => {
            let member =
                |((k, v), (l, w)): ((&String, &Value), (&String, &Value))| k.cmp(l).then_with(|| compare(v, w));
            let differing = x.iter().zip(y).map(member).find(|order| *order != Ordering::Equal);
            differing.unwrap_or_else(|| x.len().cmp(&y.len()))
        }
        _ => rank(a).cmp(&rank(b)),
    }
}

/// Whether two values are the same; a whole float equals its integer.
pub(crate) fn equal(a: &Value, b: &Value) -> bool {
    a == b || compare(a, b) == Ordering::Equal
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        Value::Array(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(",")),
        Value::Object(members) => members.iter().map(|(name, value)| format!("{name}={}", text(value))).collect(),
        Value::Number(_) | Value::Bool(_) | Value::Null => json(value),
    }
}

fn quoted(text: &str) -> String {
    json(&Value::from(text))
}
