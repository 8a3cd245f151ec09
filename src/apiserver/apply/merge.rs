//! An applied configuration merged into an object, and fields taken out of one.
//!
//! The rules, those for the order of lists too, are those of structured-merge-diff v6 (typed/merge.go, typed/remove.go).

use serde_json::{Map as Members, Value};

use super::Error;
use super::schema::{List, ListKind, Map, Schema, TypeId, Types};
use super::set::Set;
use super::step::Step;
use super::typed::{Faults, Shape, View, check_scalar, items, step_of};

/// What stands in a merged list for an item that is there twice.
const NULL: &Value = &Value::Null;

/// Merges a configuration into an object: what both have is as in the configuration.
pub(super) fn merge(schema: &Schema, object: &Value, configuration: &Value) -> Result<Value, Error> {
    let mut faults = Faults::default();
    let merged = at(&schema.types, schema.root, Some(object), Some(configuration), &mut faults);
    faults.check()?;
    Ok(merged.unwrap_or(Value::Null))
}

fn at(types: &Types, id: TypeId, old: Option<&Value>, new: Option<&Value>, faults: &mut Faults) -> Option<Value> {
    let atom = types.atom(id);
    let (before, after) = (View::of(atom, old), View::of(atom, new));
    if new.is_none() {
        handle(types, &before, old, new, faults)
    } else {
        if old.is_some() && !before.is(&after) {
            // Only for its faults: the value is of the configuration's type.
            handle(types, &before, old, new, faults);
        }
        handle(types, &after, old, new, faults)
    }
}

fn handle(
    types: &Types,
    view: &View<'_>,
    old: Option<&Value>,
    new: Option<&Value>,
    faults: &mut Faults,
) -> Option<Value> {
    let leaf = || new.or(old).cloned();
    match view.shape() {
        Ok(Shape::Scalar(scalar)) => {
            let (left, right) = (check_scalar(scalar, old, "lhs: "), check_scalar(scalar, new, "rhs: "));
            if !left.is_empty() && !right.is_empty() {
                faults.add(left);
                faults.add(right);
                return None;
            }
            leaf()
        }
        Ok(Shape::List(list)) => {
            let (before, after) = (items(old), items(new));
            if matches!(list.kind, ListKind::Atomic) || (before.is_empty() && after.is_empty()) {
                return leaf();
            }
            let merged = merge_items(types, list, before, after, faults);
            (!merged.is_empty()).then_some(Value::Array(merged))
        }
        Ok(Shape::Map(map)) => {
            let (before, after) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            let is_empty = |members: Option<&Members<String, Value>>| members.is_none_or(Members::is_empty);
            if map.atomic || (is_empty(before) && is_empty(after)) {
                return leaf();
            }
            let merged = merge_members(types, map, before, after, faults);
            (!merged.is_empty()).then_some(Value::Object(merged))
        }
        Err(fault) => {
            faults.add(fault);
            None
        }
    }
}

fn merge_members(
    types: &Types,
    map: &Map,
    old: Option<&Members<String, Value>>,
    new: Option<&Members<String, Value>>,
    faults: &mut Faults,
) -> Members<String, Value> {
    let mut out = Members::new();
    let mut each = |name: &String, old: Option<&Value>, new: Option<&Value>| {
        let mut inner = Faults::default();
        let merged = match map.member(name) {
            Some(id) => at(types, id, old, new, &mut inner),
            None => {
                inner = Faults::one("schema error: invalid atom: inlined");
                None
            }
        };
        faults.add(inner.below(|| format!(".{name}")));
        if let Some(merged) = merged {
            out.insert(name.clone(), merged);
        }
    };
    for (name, value) in old.into_iter().flatten() {
        each(name, Some(value), new.and_then(|new| new.get(name)));
    }
    for (name, value) in new.into_iter().flatten() {
        if old.is_none_or(|old| !old.contains_key(name)) {
            each(name, None, Some(value));
        }
    }
    out
}

/// A list's items by what tells them apart, in their order and by lookup.
struct Indexed<'a> {
    steps: Vec<Step>,
    known: Vec<(Step, &'a Value)>,
}

impl<'a> Indexed<'a> {
    fn of(types: &Types, list: &List, items: &'a [Value], repeated: bool, faults: &mut Faults) -> Self {
        let mut indexed = Self { steps: Vec::with_capacity(items.len()), known: Vec::with_capacity(items.len()) };
        for (index, item) in items.iter().enumerate() {
            let step = match step_of(types, list, item) {
                Ok(step) => step,
                Err(why) => {
                    faults.add(Faults::one(format!("element {index}: {why}")));
                    continue;
                }
            };
            match indexed.known.binary_search_by(|(known, _)| known.cmp(&step)) {
                Ok(_) if !repeated => {
                    faults.add(Faults::one(format!("duplicate entries for key {}", step.text())));
                    continue;
                }
                // Items that are there twice aren't merged.
                Ok(at) => indexed.known[at].1 = NULL,
                Err(at) => indexed.known.insert(at, (step.clone(), item)),
            }
            indexed.steps.push(step);
        }
        indexed
    }

    fn get(&self, step: &Step) -> Option<&'a Value> {
        let at = self.known.binary_search_by(|(known, _)| known.cmp(step)).ok()?;
        Some(self.known[at].1)
    }
}

/// Items of both lists: those that both have in the configuration's order, the others where they stand beside them.
fn merge_items(types: &Types, list: &List, old: &[Value], new: &[Value], faults: &mut Faults) -> Vec<Value> {
    let mut wrong = Faults::default();
    let theirs = Indexed::of(types, list, new, false, &mut wrong);
    let mine = Indexed::of(types, list, old, true, &mut wrong);
    if !wrong.is_empty() {
        faults.add(wrong);
        return Vec::new();
    }
    let mut out = Vec::with_capacity(old.len().max(new.len()));
    let mut put = |step: &Step, old: Option<&Value>, new: Option<&Value>| {
        let mut inner = Faults::default();
        out.extend(at(types, list.items, old, new, &mut inner));
        faults.add(inner.below(|| step.text()));
    };
    let mut shared = theirs.steps.iter().filter(|step| mine.get(step).is_some());
    let mut next = shared.next();
    let mut merged = Set::default();
    let (mut l, mut r) = (0, 0);
    while l < mine.steps.len() || r < theirs.steps.len() {
        if let (Some(left), Some(right)) = (mine.steps.get(l), theirs.steps.get(r)) {
            if left == right {
                merged.insert(left.clone());
                put(left, mine.get(left), theirs.get(left));
                l += 1;
                r += 1;
                next = shared.next();
                continue;
            }
            if theirs.get(left).is_some() && next.is_some_and(|next| next != left) {
                // Shared, but another one comes first.
                l += 1;
                continue;
            }
        }
        if let Some(left) = mine.steps.get(l) {
            if theirs.get(left).is_none() {
                put(left, old.get(l), None);
                l += 1;
                continue;
            }
            if merged.has(left) {
                l += 1;
            }
        }
        if let Some(right) = theirs.steps.get(r) {
            merged.insert(right.clone());
            put(right, mine.get(right), theirs.get(right));
            r += 1;
            if next.is_some_and(|next| next == right) {
                next = shared.next();
            }
        }
    }
    out
}

/// Takes fields and items out of a value. What is left empty becomes null.
pub(super) fn remove(schema: &Schema, value: &Value, fields: &Set) -> Value {
    taken(&schema.types, Some(schema.root), value, fields)
}

fn taken(types: &Types, id: Option<TypeId>, value: &Value, fields: &Set) -> Value {
    let Some(Ok(shape)) = id.map(|id| View::of(types.atom(id), Some(value)).shape()) else { return Value::Null };
    match (shape, value) {
        (Shape::Scalar(_), value) => value.clone(),
        (Shape::List(list), Value::Array(items)) if !matches!(list.kind, ListKind::Atomic) => {
            let mut out = Vec::with_capacity(items.len());
            for item in items {
                // Checked before.
                let Ok(step) = step_of(types, list, item) else { continue };
                if fields.has(&step) {
                    continue;
                }
                out.push(match fields.below(&step).filter(|below| !below.is_empty()) {
                    Some(below) => taken(types, Some(list.items), item, below),
                    None => item.clone(),
                });
            }
            if out.is_empty() { Value::Null } else { Value::Array(out) }
        }
        (Shape::Map(map), Value::Object(members)) if !map.atomic => {
            let mut out = Members::new();
            for (name, value) in members {
                let step = Step::field(name);
                if fields.has(&step) {
                    continue;
                }
                let value = match fields.below(&step).filter(|below| !below.is_empty()) {
                    Some(below) => taken(types, map.member(name), value, below),
                    None => value.clone(),
                };
                out.insert(name.clone(), value);
            }
            if out.is_empty() { Value::Null } else { Value::Object(out) }
        }
        _ => Value::Null,
    }
}
