//! How one value differs from another, as sets of fields.
//!
//! The rules are those of structured-merge-diff v6 (typed/compare.go).

use serde_json::{Map as Members, Value};

use super::Error;
use super::schema::{List, ListKind, Map, Schema, TypeId, Types};
use super::set::Set;
use super::step::{Step, equal};
use super::typed::{Faults, Shape, View, check_scalar, items, step_of};

/// The differences of two values; no field is in more than one of the sets.
#[derive(Clone, Debug, Default)]
pub(super) struct Comparison {
    pub removed: Set,
    pub modified: Set,
    pub added: Set,
}

impl Comparison {
    pub(super) fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.modified.is_empty() && self.added.is_empty()
    }

    /// What is left without some fields and all below them.
    pub(super) fn without(self, fields: &Set) -> Self {
        if fields.is_empty() {
            return self;
        }
        Self {
            removed: self.removed.recursive_difference(fields),
            modified: self.modified.recursive_difference(fields),
            added: self.added.recursive_difference(fields),
        }
    }
}

/// What differs at one place.
#[derive(Default)]
struct Place {
    below: Comparison,
    removed: bool,
    modified: bool,
    added: bool,
    faults: Faults,
}

/// Compares two values of one schema.
pub(super) fn compare(schema: &Schema, old: &Value, new: &Value) -> Result<Comparison, Error> {
    let place = at(&schema.types, schema.root, Some(old), Some(new));
    place.faults.check()?;
    Ok(place.below)
}

fn at(types: &Types, id: TypeId, old: Option<&Value>, new: Option<&Value>) -> Place {
    let atom = types.atom(id);
    let (before, after) = (View::of(atom, old), View::of(atom, new));
    let mut place = Place::default();
    let mut leaf = false;
    if new.is_none() {
        leaf = handle(types, &before, old, new, &mut place);
    } else if old.is_none() || before.is(&after) {
        leaf = handle(types, &after, old, new, &mut place);
    } else {
        handle(types, &before, old, new, &mut place);
        leaf |= handle(types, &after, old, new, &mut place);
    }
    if !leaf {
        place.added |= old.is_none();
        place.removed |= old.is_some() && new.is_none();
    }
    place
}

/// Compares by one type; says whether it is a leaf.
fn handle(types: &Types, view: &View<'_>, old: Option<&Value>, new: Option<&Value>, place: &mut Place) -> bool {
    match view.shape() {
        Ok(Shape::Scalar(scalar)) => {
            let (left, right) = (check_scalar(scalar, old, "lhs: "), check_scalar(scalar, new, "rhs: "));
            if !left.is_empty() && !right.is_empty() {
                place.faults.add(left);
                place.faults.add(right);
                return false;
            }
            leaf(old, new, place)
        }
        Ok(Shape::List(list)) => {
            let empty = items(old).is_empty() && items(new).is_empty();
            if matches!(list.kind, ListKind::Atomic) || empty {
                return leaf(old, new, place);
            }
            if old != new {
                compare_items(types, list, items(old), items(new), place);
            }
            false
        }
        Ok(Shape::Map(map)) => {
            let (before, after) = (old.and_then(Value::as_object), new.and_then(Value::as_object));
            let is_empty = |members: Option<&Members<String, Value>>| members.is_none_or(Members::is_empty);
            if map.atomic || (is_empty(before) && is_empty(after)) {
                return leaf(old, new, place);
            }
            compare_members(types, map, before, after, place);
            false
        }
        Err(faults) => {
            place.faults.add(faults);
            false
        }
    }
}

fn leaf(old: Option<&Value>, new: Option<&Value>, place: &mut Place) -> bool {
    match (old, new) {
        (None, _) => place.added = true,
        (_, None) => place.removed = true,
        (Some(old), Some(new)) => place.modified |= !equal(old, new),
    }
    true
}

/// Takes over what differs at a place below.
fn take(place: &mut Place, below: Place, step: impl Fn() -> Step) {
    if !below.faults.is_empty() {
        place.faults.add(below.faults.below(|| step().text()));
    }
    let sets = [
        (&mut place.below.removed, below.removed, below.below.removed),
        (&mut place.below.modified, below.modified, below.below.modified),
        (&mut place.below.added, below.added, below.below.added),
    ];
    for (set, itself, inner) in sets {
        if itself {
            set.insert(step());
        }
        if !(inner.members.is_empty() && inner.children.is_empty()) {
            set.attach(step(), inner);
        }
    }
}

fn compare_members(
    types: &Types,
    map: &Map,
    old: Option<&Members<String, Value>>,
    new: Option<&Members<String, Value>>,
    place: &mut Place,
) {
    let mut each = |name: &String, old: Option<&Value>, new: Option<&Value>| {
        let below = match map.member(name) {
            Some(id) => at(types, id, old, new),
            None => Place { faults: Faults::one("schema error: invalid atom: inlined"), ..Place::default() },
        };
        take(place, below, || Step::field(name));
    };
    for (name, value) in old.into_iter().flatten() {
        each(name, Some(value), new.and_then(|new| new.get(name)));
    }
    for (name, value) in new.into_iter().flatten() {
        if old.is_none_or(|old| !old.contains_key(name)) {
            each(name, None, Some(value));
        }
    }
}

fn compare_items(types: &Types, list: &List, old: &[Value], new: &[Value], place: &mut Place) {
    let (mut before, mut after) = (group(types, list, old, place), group(types, list, new, place));
    let mut steps: Vec<Step> = before.iter().chain(&after).map(|(step, _)| step.clone()).collect();
    steps.sort();
    steps.dedup();
    for step in steps {
        let (before, after) = (pick(&mut before, &step), pick(&mut after, &step));
        match (before.as_slice(), after.as_slice()) {
            ([] | [_], [] | [_]) => {
                let below = at(types, list.items, before.first().copied(), after.first().copied());
                take(place, below, || step.clone());
            }
            // Items that are there twice count as one value.
            ([_, _, ..], [_, _, ..]) => {
                if before.len() != after.len() || !before.iter().zip(&after).all(|(a, b)| equal(a, b)) {
                    place.below.modified.insert(step);
                }
            }
            ([_, _, ..], _) => {
                if let Some(after) = after.first() {
                    let below = at(types, list.items, None, Some(after));
                    take(place, below, || step.clone());
                }
                place.below.removed.insert(step);
            }
            (_, [_, _, ..]) => {
                if let Some(before) = before.first() {
                    let below = at(types, list.items, Some(before), None);
                    take(place, below, || step.clone());
                }
                place.below.added.insert(step);
            }
        }
    }
}

type Groups<'a> = Vec<(Step, Vec<&'a Value>)>;

/// The items by what tells them apart, sorted.
fn group<'a>(types: &Types, list: &List, items: &'a [Value], place: &mut Place) -> Groups<'a> {
    let mut groups: Groups<'a> = Vec::with_capacity(items.len());
    for (index, item) in items.iter().enumerate() {
        match step_of(types, list, item) {
            Ok(step) => match groups.binary_search_by(|(known, _)| known.cmp(&step)) {
                Ok(at) => groups[at].1.push(item),
                Err(at) => groups.insert(at, (step, vec![item])),
            },
            Err(why) => place.faults.add(Faults::one(format!("element {index}: {why}"))),
        }
    }
    groups
}

fn pick<'a>(groups: &mut Groups<'a>, step: &Step) -> Vec<&'a Value> {
    match groups.binary_search_by(|(known, _)| known.cmp(step)) {
        Ok(at) => std::mem::take(&mut groups[at].1),
        Err(_) => Vec::new(),
    }
}
