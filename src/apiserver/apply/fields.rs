//! Sets as FieldsV1, the JSON in which `metadata.managedFields` holds them.
//!
//! Members are written in the order of their names; readers of JSON don't mind. Rules of structured-merge-diff v6
//! (fieldpath/serialize.go).

use serde_json::{Map, Value};

use super::{Error, set::Set, step::Step};

/// Marks a node that is in the set and has others below it.
const ITSELF: &str = ".";

/// Reads FieldsV1. Kinds of steps that aren't known are left out.
pub(crate) fn parse(fields: &Value) -> Result<Set, Error> {
    match fields {
        Value::Null => Ok(Set::default()),
        Value::Object(members) => Ok(node(members)?.0),
        _ => Err(Error::Fields("fieldsV1 is not an object".to_owned())),
    }
}

/// What is below a node, and whether it is in the set itself.
fn node(members: &Map<String, Value>) -> Result<(Set, bool), Error> {
    let (mut set, mut itself) = (Set::default(), false);
    for (name, value) in members {
        if name == ITSELF {
            itself = true;
            continue;
        }
        let Some(step) = Step::parse(name)? else { continue };
        let (below, member) = match value {
            Value::Object(members) => node(members)?,
            Value::Null => (Set::default(), true),
            _ => return Err(Error::Fields(format!("{name:?} is not an object"))),
        };
        if member {
            set.insert(step.clone());
        }
        set.attach(step, below);
    }
    let nothing = set.members.is_empty() && set.children.is_empty();
    Ok((set, itself || nothing))
}

/// Writes FieldsV1.
pub(crate) fn write(set: &Set) -> Value {
    let mut out = Map::new();
    for member in &set.members {
        out.insert(member.name(), Value::Object(Map::new()));
    }
    for (step, below) in &set.children {
        let Value::Object(mut inner) = write(below) else { continue };
        if !inner.is_empty() && set.has(step) {
            inner.insert(ITSELF.to_owned(), Value::Object(Map::new()));
        }
        out.insert(step.name(), Value::Object(inner));
    }
    Value::Object(out)
}
