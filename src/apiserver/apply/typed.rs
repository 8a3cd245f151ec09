//! A value seen through its schema: which of the types it has, what tells a list's items apart, and whether it fits.
//!
//! The rules and the words are those of structured-merge-diff v6 (typed/helpers.go, typed/validate.go).

use serde_json::Value;

use super::Error;
use super::schema::{Atom, List, ListKind, Map, Scalar, Schema, TypeId, Types};
use super::set::Set;
use super::step::Step;
use crate::patch::plain;

/// The types that a value may have, those that it can't have left out.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub scalar: Option<Scalar>,
    pub list: Option<&'a List>,
    pub map: Option<&'a Map>,
}

/// The type that a value is handled by.
pub(super) enum Shape<'a> {
    Map(&'a Map),
    Scalar(Scalar),
    List(&'a List),
}

impl<'a> View<'a> {
    /// A value that is missing, null, or of no type that is allowed leaves all types open.
    pub(super) fn of(atom: &'a Atom, value: Option<&Value>) -> Self {
        let all = Self { scalar: atom.scalar, list: atom.list.as_ref(), map: atom.map.as_ref() };
        match value {
            Some(Value::Number(_) | Value::String(_) | Value::Bool(_)) if all.scalar.is_some() => {
                Self { list: None, map: None, ..all }
            }
            Some(Value::Array(_)) if all.list.is_some() => Self { scalar: None, map: None, ..all },
            Some(Value::Object(_)) if all.map.is_some() => Self { scalar: None, list: None, ..all },
            _ => all,
        }
    }

    /// Whether two views of one atom are the same.
    pub(super) fn is(&self, other: &Self) -> bool {
        self.scalar.is_some() == other.scalar.is_some()
            && self.list.is_some() == other.list.is_some()
            && self.map.is_some() == other.map.is_some()
    }

    pub(super) fn shape(&self) -> Result<Shape<'a>, Faults> {
        match *self {
            Self { map: Some(map), .. } => Ok(Shape::Map(map)),
            Self { scalar: Some(scalar), .. } => Ok(Shape::Scalar(scalar)),
            Self { list: Some(list), .. } => Ok(Shape::List(list)),
            _ => Err(Faults::one("schema error: invalid atom: inlined")),
        }
    }
}

/// What doesn't fit, and where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Faults(Vec<(String, String)>);

impl Faults {
    pub(super) fn one(message: impl Into<String>) -> Self {
        Self(vec![(String::new(), message.into())])
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn add(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Puts a step before all paths.
    pub(super) fn below(mut self, step: impl FnOnce() -> String) -> Self {
        if !self.0.is_empty() {
            let step = step();
            for (path, _) in &mut self.0 {
                path.insert_str(0, &step);
            }
        }
        self
    }

    pub(super) fn check(self) -> Result<(), Self> {
        if self.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl std::fmt::Display for Faults {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let one = |(path, message): &(String, String)| {
            if path.is_empty() { message.clone() } else { format!("{path}: {message}") }
        };
        if let [only] = self.0.as_slice() {
            return f.write_str(&one(only));
        }
        f.write_str("errors:")?;
        self.0.iter().try_for_each(|fault| write!(f, "\n  {}", one(fault)))
    }
}

impl From<Faults> for Error {
    fn from(faults: Faults) -> Self {
        Self::Unfit(faults.to_string())
    }
}

/// What tells an item of a list from the others; a fault's text for one that nothing tells.
pub(super) fn step_of(types: &Types, list: &List, item: &Value) -> Result<Step, String> {
    match &list.kind {
        ListKind::Atomic => Err("invalid indexing of non-associative list".to_owned()),
        ListKind::Set => match item {
            Value::Object(_) => Err("associative list without keys has an element that's a map type".to_owned()),
            Value::Array(_) => Err("not supported: associative list with lists as elements".to_owned()),
            Value::Null => Err("associative list without keys has an element that's an explicit null".to_owned()),
            scalar => Ok(Step::Item(scalar.clone())),
        },
        ListKind::Map(names) => {
            let fields = match item {
                Value::Object(fields) => fields,
                Value::Null => return Err("associative list with keys may not have a null element".to_owned()),
                _ => return Err("associative list with keys may not have non-map elements".to_owned()),
            };
            let mut keys: Vec<(Box<str>, Value)> = Vec::with_capacity(names.len());
            for name in names {
                let value = match fields.get(name) {
                    Some(value) => Some(value),
                    None => match &types.atom(list.items).map {
                        Some(map) => map.fields.get(name.as_str()).and_then(|field| field.default.as_ref()),
                        None => {
                            return Err(format!(
                                "couldn't find default value for {name}: associative list may not have non-map types"
                            ));
                        }
                    },
                };
                if let Some(value) = value {
                    keys.push((name.as_str().into(), value.clone()));
                }
            }
            if !names.is_empty() && keys.is_empty() {
                return Err(format!(
                    "associative list with keys has an element that omits all key fields {} (and doesn't have default values for any key fields)",
                    quoted(names)
                ));
            }
            keys.sort_by(|a, b| a.0.cmp(&b.0));
            Ok(Step::Key(keys))
        }
    }
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| crate::field_error::go_quote(name)).collect();
    format!("[{}]", names.join(" "))
}

/// The items of a list; none for null.
pub(super) fn items(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}

/// Whether a value fits a schema. `repeated` says whether lists may hold an item twice.
pub(super) fn validate(schema: &Schema, value: &Value, repeated: bool) -> Result<(), Error> {
    Ok(fit(&schema.types, schema.root, value, repeated).check()?)
}

fn fit(types: &Types, id: TypeId, value: &Value, repeated: bool) -> Faults {
    let shape = match View::of(types.atom(id), Some(value)).shape() {
        Ok(shape) => shape,
        Err(faults) => return faults,
    };
    match (shape, value) {
        (Shape::Scalar(scalar), value) => check_scalar(scalar, Some(value), ""),
        (Shape::Map(_) | Shape::List(_), Value::Null) => Faults::default(),
        (Shape::Map(map), Value::Object(members)) => {
            let mut faults = Faults::default();
            for (name, value) in members {
                let step = || format!(".{name}");
                let Some(member) = map.member(name) else {
                    faults.add(Faults::one("field not declared in schema").below(step));
                    // The real server stops at the first one, whichever its map gives.
                    break;
                };
                faults.add(fit(types, member, value, repeated).below(step));
            }
            faults
        }
        (Shape::List(list), Value::Array(items)) => fit_items(types, list, items, repeated),
        (Shape::Map(_), other) => Faults::one(format!("expected map, got &{{{}}}", plain(other))),
        (Shape::List(_), other) => Faults::one(format!("expected list, got &{{{}}}", plain(other))),
    }
}

fn fit_items(types: &Types, list: &List, items: &[Value], repeated: bool) -> Faults {
    let mut faults = Faults::default();
    let mut seen = Set::default();
    for (index, item) in items.iter().enumerate() {
        let step = if matches!(list.kind, ListKind::Atomic) {
            Step::Index(i64::try_from(index).unwrap_or(i64::MAX))
        } else {
            let step = match step_of(types, list, item) {
                Ok(step) => step,
                Err(why) => {
                    faults.add(Faults::one(format!("element {index}: {why}")));
                    return faults;
                }
            };
            if !repeated {
                if seen.has(&step) {
                    faults.add(Faults::one(format!("duplicate entries for key {}", step.text())));
                }
                seen.insert(step.clone());
            }
            step
        };
        faults.add(fit(types, list.items, item, repeated).below(|| step.text()));
    }
    faults
}

/// Whether a value is such a scalar; `side` comes before the message.
pub(super) fn check_scalar(scalar: Scalar, value: Option<&Value>, side: &str) -> Faults {
    let Some(value) = value.filter(|value| !value.is_null()) else { return Faults::default() };
    let message = match scalar {
        Scalar::Number if !value.is_number() => {
            format!("{side}expected numeric (int or float), got {}", crate::patch::go_type_name(value))
        }
        Scalar::Text if !value.is_string() => {
            format!("{side}expected string, got &value.valueUnstructured{{Value:{}}}", go_syntax(value))
        }
        Scalar::Bool if !value.is_boolean() => format!("{side}expected boolean, got &{{{}}}", plain(value)),
        Scalar::Any if value.is_array() || value.is_object() => {
            format!("{side}expected any scalar, got &{{{}}}", plain(value))
        }
        _ => return Faults::default(),
    };
    Faults::one(message)
}

/// A value as Go's `%#v` prints it.
fn go_syntax(value: &Value) -> String {
    match value {
        Value::Null => "interface {}(nil)".to_owned(),
        Value::String(text) => crate::field_error::go_quote(text),
        Value::Array(items) => {
            format!("[]interface {{}}{{{}}}", items.iter().map(go_syntax).collect::<Vec<_>>().join(", "))
        }
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(name, value)| format!("{}:{}", crate::field_error::go_quote(name), go_syntax(value)))
                .collect();
            format!("map[string]interface {{}}{{{}}}", members.join(", "))
        }
        Value::Bool(_) | Value::Number(_) => plain(value),
    }
}
