//! From a value to the set of its fields, and from one set to another by a schema.
//!
//! The rules are those of structured-merge-diff v6 (typed/tofieldset.go, fieldpath/set.go, typed/reconcile_schema.go).

use serde_json::Value;

use super::schema::{ListKind, Schema, TypeId, Types};
use super::set::Set;
use super::step::Step;
use super::typed::{Shape, View, items, step_of};

/// Every leaf and item of a value that fits its schema.
pub(super) fn of_value(schema: &Schema, value: &Value) -> Set {
    fill(&schema.types, schema.root, value).0
}

/// What is below a value, and whether the value itself counts.
fn fill(types: &Types, id: TypeId, value: &Value) -> (Set, bool) {
    let mut set = Set::default();
    match View::of(types.atom(id), Some(value)).shape() {
        Ok(Shape::Scalar(_)) => return (set, true),
        Ok(Shape::Map(map)) => {
            if map.atomic {
                return (set, true);
            }
            for (name, value) in value.as_object().into_iter().flatten() {
                let (below, leaf) = match map.member(name) {
                    Some(id) => fill(types, id, value),
                    None => (Set::default(), false),
                };
                let empty = value.is_null() || value.as_object().is_some_and(serde_json::Map::is_empty);
                let step = Step::field(name);
                if leaf || empty || !map.fields.contains_key(name.as_str()) {
                    set.insert(step.clone());
                }
                set.attach(step, below);
            }
        }
        Ok(Shape::List(list)) => {
            if matches!(list.kind, ListKind::Atomic) {
                return (set, true);
            }
            let (mut seen, mut repeated) = (Set::default(), Set::default());
            for item in items(Some(value)) {
                let Ok(step) = step_of(types, list, item) else { continue };
                if seen.has(&step) {
                    repeated.insert(step.clone());
                    set.insert(step);
                } else {
                    seen.insert(step);
                }
            }
            for item in items(Some(value)) {
                let Ok(step) = step_of(types, list, item) else { continue };
                if !repeated.has(&step) {
                    let (below, _) = fill(types, list.items, item);
                    set.insert(step.clone());
                    set.attach(step, below);
                }
            }
        }
        Err(_) => {}
    }
    (set, false)
}

/// A set with the named fields above its members as members, too.
pub(super) fn with_named_fields(schema: &Schema, set: &Set) -> Set {
    named(&schema.types, Some(schema.root), set)
}

fn named(types: &Types, id: Option<TypeId>, set: &Set) -> Set {
    let atom = id.map(|id| types.atom(id));
    let map = atom.and_then(|atom| atom.map.as_ref());
    let list = atom.and_then(|atom| atom.list.as_ref());
    let mut out = Set { members: set.members.clone(), children: Vec::with_capacity(set.children.len()) };
    for (step, below) in &set.children {
        let id = match step {
            Step::Field(name) => {
                if map.is_some_and(|map| map.fields.contains_key(name)) {
                    out.insert(step.clone());
                }
                map.and_then(|map| map.member(name))
            }
            Step::Key(_) => list.map(|list| list.items),
            Step::Item(_) | Step::Index(_) => None,
        };
        out.children.push((step.clone(), named(types, id, below)));
    }
    out
}

/// A set that was written when some lists or maps weren't one value yet, brought to the schema of now; `None` if it
/// fits as it is.
pub(super) fn reconcile(schema: &Schema, set: &Set) -> Option<Set> {
    let mut atomic = Set::default();
    walk(&schema.types, schema.root, Some(set), false, &mut Vec::new(), &mut atomic);
    if atomic.is_empty() {
        return None;
    }
    Some(set.recursive_difference(&atomic).union(&atomic))
}

/// `alone` says that the place is a member of the set and nothing below it is.
fn walk<'a>(types: &Types, id: TypeId, set: Option<&'a Set>, alone: bool, path: &mut Vec<&'a Step>, found: &mut Set) {
    let Ok(shape) = View::of(types.atom(id), None).shape() else { return };
    let nothing = set.is_none_or(Set::is_empty);
    match &shape {
        Shape::Scalar(_) => return,
        Shape::Map(map) if map.is_deduced() => return,
        Shape::Map(map) if !alone && map.atomic => {
            if !nothing {
                found.insert_path(path);
            }
            return;
        }
        Shape::List(list) if !alone && matches!(list.kind, ListKind::Atomic) => return found.insert_path(path),
        Shape::Map(_) | Shape::List(_) => {}
    }
    let Some(set) = set else { return };
    let children = set.children.iter().map(|(step, below)| (step, Some(below)));
    let members = set.members.iter().filter(|step| set.below(step).is_none()).map(|step| (step, None));
    for (step, below) in children.chain(members) {
        let id = match (&shape, step) {
            (Shape::Map(map), Step::Field(name)) => map.member(name),
            (Shape::Map(map), _) => map.others,
            (Shape::List(list), _) => Some(list.items),
            (Shape::Scalar(_), _) => None,
        };
        if let Some(id) = id {
            path.push(step);
            walk(types, id, below, below.is_none(), path, found);
            path.pop();
        }
    }
}
