//! Kubernetes' strategic merge patch, with the results, order and errors of apimachinery's `strategicpatch` v0.36.3.
//!
//! Never makes a patch: kubectl and client-go do that. Where Go's answer depends on the order of a map, fields are taken
//! in the order of the JSON map here.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

use super::gotext::{plain, plain_list, plain_lists, text_verb, type_name};
use super::{FieldMerge, MergeInfo, Strategy, cut, object_or_null, unknown, unprocessable};
use crate::error::Error;

const DIRECTIVE: &str = "$patch";
const RETAIN_KEYS: &str = "$retainKeys";
const DELETE_ITEMS: &str = "$deleteFromPrimitiveList";
const ORDER: &str = "$setElementOrder";

type Fields = Map<String, Value>;

/// The patch of a request; null is a patch that changes nothing.
///
/// # Errors
/// 400 if it isn't a JSON object.
pub fn strategic_body(body: &[u8]) -> Result<Value, Error> {
    let value = object_or_null(body, "")?;
    Ok(if value.is_null() { Value::Object(Fields::new()) } else { value })
}

/// Applies a patch to an object of the kind that `info` tells of.
///
/// Parts that are new are taken over as the patch has them: nulls and directives of items that a list gains, or of a
/// list that is replaced, stay in the result, and it is for the kind's decoding to drop them.
///
/// # Errors
/// 400 if a directive is malformed, 422 for lists of lists, 500 with no reason if the patch doesn't fit the kind.
pub fn strategic(target: Value, patch: &Value, info: &dyn MergeInfo) -> Result<Value, Error> {
    match (target, patch) {
        (Value::Object(original), Value::Object(patch)) => merge_map(original, patch.clone(), info).map(Value::Object),
        (target @ Value::Object(_), Value::Null) => Ok(target),
        (Value::Object(_), other) => Err(bad_type("map[string]interface {}", other)),
        (other, _) => Err(bad_type("map[string]interface {}", &other)),
    }
}

fn merge_map(mut original: Fields, mut patch: Fields, info: &dyn MergeInfo) -> Result<Fields, Error> {
    match patch.get(DIRECTIVE) {
        None => {}
        Some(Value::String(word)) if word == "replace" => {
            patch.remove(DIRECTIVE);
            return Ok(patch);
        }
        Some(Value::String(word)) if word == "delete" => return Ok(Fields::new()),
        Some(other) => return Err(bad_directive(other, &Value::Object(patch.clone()))),
    }
    retain_keys(&mut original, &mut patch)?;
    merge_ordered(&mut original, &mut patch, info)?;
    for (key, value) in patch {
        merge_field(&mut original, &key, value, info)?;
    }
    Ok(original)
}

fn merge_field(original: &mut Fields, key: &str, mut value: Value, info: &dyn MergeInfo) -> Result<(), Error> {
    let deletes = key.starts_with(DELETE_ITEMS);
    let mut name = key;
    if deletes {
        let listed = behind(key, DELETE_ITEMS).ok_or_else(|| bad_format("primitive list"))?;
        name = if listed.is_empty() { key } else { listed };
    }
    if value.is_null() {
        original.remove(name);
        return Ok(());
    }
    let current = match original.get_mut(name) {
        Some(current) if Kind::of(current) == Kind::of(&value) => current,
        _ if deletes => return Ok(()),
        _ => {
            drop_nulls(&mut value);
            match without_directives(value) {
                Some(value) => original.insert(name.to_owned(), value),
                None => original.remove(name),
            };
            return Ok(());
        }
    };
    *current = match (current.take(), value) {
        (Value::Object(current), Value::Object(patch)) => {
            let field = info.field(name).map_err(unknown)?;
            if field.strategy == Strategy::Replace {
                Value::Object(patch)
            } else {
                Value::Object(merge_map(current, patch, &*field.of)?)
            }
        }
        (Value::Array(current), Value::Array(patch)) => {
            let field = list_field(info, name)?;
            Value::Array(if field.strategy == Strategy::Merge || deletes {
                merge_list(current, patch, &field, deletes)?
            } else {
                patch
            })
        }
        (_, value) => value,
    };
    Ok(())
}

fn list_field<'a>(info: &'a dyn MergeInfo, name: &str) -> Result<FieldMerge<'a>, Error> {
    let field = info.field(name).map_err(unknown)?;
    if field.list { Ok(field) } else { Err(unknown("expected slice or array type, but got: struct")) }
}

/// `$retainKeys`: only the fields that it names stay.
fn retain_keys(original: &mut Fields, patch: &mut Fields) -> Result<(), Error> {
    let Some(names) = patch.remove(RETAIN_KEYS) else { return Ok(()) };
    let Value::Array(names) = names else { return Err(bad_format("retainKeys")) };
    if names.iter().any(|name| name.is_array() || name.is_object()) {
        return Err(cut("$retainKeys must be a list of field names"));
    }
    let names: HashSet<&str> = names.iter().filter_map(Value::as_str).collect();
    let beside = |key: &str| key.starts_with(DELETE_ITEMS) || key.starts_with(ORDER);
    if patch.iter().any(|(key, value)| !value.is_null() && !beside(key) && !names.contains(key.as_str())) {
        return Err(bad_format("retainKeys"));
    }
    original.retain(|key, _| names.contains(key.as_str()));
    Ok(())
}

/// `$setElementOrder/<field>`: merges that list and puts it into the order given.
fn merge_ordered(original: &mut Fields, patch: &mut Fields, info: &dyn MergeInfo) -> Result<(), Error> {
    let directives: Vec<String> = patch.keys().filter(|key| key.starts_with(ORDER)).cloned().collect();
    for directive in directives {
        let order = match patch.remove(&directive) {
            Some(Value::Array(order)) => order,
            other => return Err(bad_type("[]interface {}", &other.unwrap_or_default())),
        };
        let name = behind(&directive, ORDER).ok_or_else(|| bad_format("setElementOrder list"))?;
        let current = list_of(original, name)?;
        let change = list_of(patch, name)?;
        let field = list_field(info, name)?;
        let none = Vec::new();
        check_order(change.as_ref().unwrap_or(&none), &order, field.merge_key)?;
        let merged = match (&current, &change) {
            (Some(current), None) => current.clone(),
            (None, Some(change)) => change.iter().cloned().filter_map(without_directives).collect(),
            (Some(current), Some(change)) if field.strategy == Strategy::Merge => {
                merge_list(current.clone(), change.clone(), &field, false)?
            }
            (Some(_), Some(change)) => change.clone(),
            (None, None) => continue,
        };
        let (mut current, change) = (current.unwrap_or_default(), change.unwrap_or_default());
        let (named, rest) = partition(merged, &order, field.merge_key)?;
        let kind = kind_of_items(&current, &change)?;
        if kind == Kind::Object && field.strategy == Strategy::Merge {
            current = left_behind(current, &change, field.merge_key);
        }
        let sorted = arrange(named, rest, &order, &current, field.merge_key, kind)?;
        original.insert(name.to_owned(), Value::Array(sorted));
        patch.remove(name);
    }
    Ok(())
}

fn list_of(fields: &Fields, name: &str) -> Result<Option<Vec<Value>>, Error> {
    match fields.get(name) {
        None => Ok(None),
        Some(Value::Array(list)) => Ok(Some(list.clone())),
        Some(other) => Err(bad_type("[]interface {}", other)),
    }
}

/// What a patch brings has to be in the order's list, in that order.
fn check_order(patch: &[Value], order: &[Value], merge_key: &str) -> Result<(), Error> {
    if patch.is_empty() || order.is_empty() {
        return Ok(());
    }
    let mut brought: Vec<&Value> = patch.iter().collect();
    if !merge_key.is_empty() {
        if let Some(other) = patch.iter().find(|item| !item.is_object()) {
            return Err(bad_type("map[string]interface {}", other));
        }
        brought.retain(|item| item[DIRECTIVE] != "delete");
    }
    let (mut at, mut place) = (0, 0);
    while let (Some(item), Some(named)) = (brought.get(at), order.get(place)) {
        if item.get(DIRECTIVE).is_some() {
            at += 1;
            continue;
        }
        if same_item(item, named, merge_key)? {
            at += 1;
        }
        place += 1;
    }
    if at < brought.len() {
        let (patch, order) = (plain_list(patch), plain_list(order));
        return Err(unknown(format!("The order in patch list:\n{patch}\n doesn't match {ORDER} list:\n{order}\n")));
    }
    Ok(())
}

fn same_item(left: &Value, right: &Value, merge_key: &str) -> Result<bool, Error> {
    if !merge_key.is_empty() {
        return Ok(key_of(left, merge_key)? == key_of(right, merge_key)?);
    }
    match (left, right) {
        (Value::Object(_), Value::Object(_)) | (Value::Array(_), Value::Array(_)) => {
            Err(cut("$setElementOrder for a list without a merge key"))
        }
        _ => Ok(left == right),
    }
}

fn merge_list(
    mut original: Vec<Value>,
    mut patch: Vec<Value>,
    field: &FieldMerge<'_>,
    deletes: bool,
) -> Result<Vec<Value>, Error> {
    if original.is_empty() && patch.is_empty() {
        return Ok(original);
    }
    let kind = kind_of_items(&original, &patch)?;
    let merged = if kind == Kind::Object {
        if field.merge_key.is_empty() {
            return Err(unknown("cannot merge lists without merge key for struct"));
        }
        (original, patch) = take_directives(original, patch, field.merge_key)?;
        merge_items(&original, &patch, field)?
    } else if deletes {
        let gone: HashSet<String> = patch.iter().map(Value::to_string).collect();
        original.retain(|item| !gone.contains(&item.to_string()));
        return Ok(original);
    } else {
        let mut seen = HashSet::new();
        original.iter().chain(&patch).filter(|item| seen.insert(item.to_string())).cloned().collect()
    };
    let (named, rest) = partition(merged, &patch, field.merge_key)?;
    arrange(named, rest, &patch, &original, field.merge_key, kind)
}

/// Carries `$patch` of a list's items out; returns the original and the patch without them.
fn take_directives(
    mut original: Vec<Value>,
    patch: Vec<Value>,
    merge_key: &str,
) -> Result<(Vec<Value>, Vec<Value>), Error> {
    let mut kept = Vec::with_capacity(patch.len());
    let mut replace = false;
    for item in patch {
        let Some(directive) = item.get(DIRECTIVE) else {
            kept.push(item);
            continue;
        };
        match directive.as_str() {
            Some("delete") => {
                let key = key_of(&item, merge_key)?;
                original.retain(|item| item.get(merge_key) != Some(key));
            }
            Some("replace") => replace = true,
            Some("merge") => return Err(unknown("merging lists cannot yet be specified in the patch")),
            _ => return Err(bad_directive(directive, &item)),
        }
    }
    Ok(if replace { (kept, Vec::new()) } else { (original, kept) })
}

/// Merges items of the same key; new ones go behind.
fn merge_items(original: &[Value], patch: &[Value], field: &FieldMerge<'_>) -> Result<Vec<Value>, Error> {
    let mut merged = original.to_vec();
    for item in patch {
        let key = key_of(item, field.merge_key)?;
        let found = merged.iter_mut().find(|current| current.get(field.merge_key) == Some(key));
        match (found, item) {
            (Some(Value::Object(current)), Value::Object(change)) => {
                *current = merge_map(std::mem::take(current), change.clone(), &*field.of)?;
            }
            _ => merged.push(item.clone()),
        }
    }
    Ok(merged)
}

/// What the server's list looks like once Go has merged into it: deletions shift its array in place, and additions fill
/// the room that they left. `$setElementOrder` takes the server's order from there, so a new item that took the place
/// of a deleted one goes to the end.
fn left_behind(mut array: Vec<Value>, patch: &[Value], merge_key: &str) -> Vec<Value> {
    let mut len = array.len();
    let place = |array: &[Value], item: &Value| array.iter().position(|own| own.get(merge_key) == item.get(merge_key));
    let mut replace = false;
    for item in patch {
        replace |= item[DIRECTIVE] == "replace";
        if item[DIRECTIVE] != "delete" {
            continue;
        }
        while let Some(at) = array.get(..len).and_then(|items| place(items, item)) {
            len -= 1;
            if at < len {
                array.remove(at);
                array.insert(len, array[len - 1].clone());
            }
        }
    }
    for item in patch.iter().filter(|item| !replace && item.get(DIRECTIVE).is_none()) {
        let Some(items) = array.get_mut(..=len) else { break };
        if place(&items[..len], item).is_none() {
            items[len] = item.clone();
            len += 1;
        }
    }
    array
}

/// Parts items into those that `by` has and the others.
fn partition(items: Vec<Value>, by: &[Value], merge_key: &str) -> Result<(Vec<Value>, Vec<Value>), Error> {
    if merge_key.is_empty() {
        if by.iter().any(|item| item.is_object() || item.is_array()) {
            return Err(cut("$setElementOrder for a list without a merge key"));
        }
        let names: HashSet<String> = by.iter().map(Value::to_string).collect();
        return Ok(items.into_iter().partition(|item| names.contains(&item.to_string())));
    }
    let first_odd = by.iter().position(|item| !item.is_object());
    let mut names: HashMap<String, usize> = HashMap::with_capacity(by.len());
    for (at, item) in by.iter().enumerate() {
        if let Some(key) = item.get(merge_key) {
            names.entry(key.to_string()).or_insert(at);
        }
    }
    let (mut named, mut rest) = (Vec::new(), Vec::new());
    for item in items {
        let found = names.get(&key_of(&item, merge_key)?.to_string()).copied();
        match (found, first_odd) {
            (None, Some(odd)) => return Err(unknown(format!("value for key {odd} is not a map"))),
            (Some(at), Some(odd)) if odd < at => return Err(unknown(format!("value for key {odd} is not a map"))),
            (Some(_), _) => named.push(item),
            (None, None) => rest.push(item),
        }
    }
    Ok((named, rest))
}

/// Sorts the items that the patch or its order names, and those that only the server has, and merges the two: each
/// keeps its order, and a server's item goes before the first named one that the server had behind it.
fn arrange(
    named: Vec<Value>,
    rest: Vec<Value>,
    order: &[Value],
    server: &[Value],
    merge_key: &str,
    kind: Kind,
) -> Result<Vec<Value>, Error> {
    let named = sort(named, order, merge_key, kind)?;
    let rest = sort(rest, server, merge_key, kind)?;
    let places = places(server, merge_key, kind);
    let mut out = Vec::with_capacity(named.len() + rest.len());
    let (mut named, mut rest) = (named.into_iter().peekable(), rest.into_iter().peekable());
    while let (Some(right), Some(left)) = (named.peek(), rest.peek()) {
        let place = |item| places.get(&identity(item, merge_key, kind)).copied();
        let before = matches!((place(left), place(right)), (Some(left), Some(right)) if left < right);
        out.extend(if before { rest.next() } else { named.next() });
    }
    out.extend(named.chain(rest));
    Ok(out)
}

fn sort(items: Vec<Value>, order: &[Value], merge_key: &str, kind: Kind) -> Result<Vec<Value>, Error> {
    let (mut kept, mut deleted) = (items, Vec::new());
    if kind == Kind::Object {
        for item in kept.iter().chain(order) {
            key_of(item, merge_key)?;
        }
        (deleted, kept) = kept.into_iter().partition(|item| item[DIRECTIVE] == "delete");
    }
    let places = places(order, merge_key, kind);
    let mut placed: Vec<(Option<usize>, Value)> =
        kept.into_iter().map(|item| (places.get(&identity(&item, merge_key, kind)).copied(), item)).collect();
    if placed.iter().all(|(place, _)| place.is_some()) {
        placed.sort_by_key(|(place, _)| *place);
    } else {
        // An item without a place is less than any other, itself too; what comes of it depends on how the sort
        // goes. This is Go's for short lists.
        let less = |left: Option<usize>, right: Option<usize>| left.zip(right).is_none_or(|(left, right)| left < right);
        for end in 1..placed.len() {
            let mut at = end;
            while at > 0 && less(placed[at].0, placed[at - 1].0) {
                placed.swap(at, at - 1);
                at -= 1;
            }
        }
    }
    let mut sorted: Vec<Value> = placed.into_iter().map(|(_, item)| item).collect();
    sorted.append(&mut deleted);
    Ok(sorted)
}

/// Where each item stands first.
fn places(items: &[Value], merge_key: &str, kind: Kind) -> HashMap<String, usize> {
    let mut places = HashMap::with_capacity(items.len());
    for (at, item) in items.iter().enumerate() {
        places.entry(identity(item, merge_key, kind)).or_insert(at);
    }
    places
}

fn identity(item: &Value, merge_key: &str, kind: Kind) -> String {
    if kind == Kind::Object { item.get(merge_key).unwrap_or(&Value::Null).to_string() } else { item.to_string() }
}

fn key_of<'a>(item: &'a Value, merge_key: &str) -> Result<&'a Value, Error> {
    let Value::Object(_) = item else { return Err(bad_type("map[string]interface {}", item)) };
    item.get(merge_key)
        .ok_or_else(|| unknown(format!("map: {} does not contain declared merge key: {merge_key}", plain(item))))
}

/// The dynamic type that Go sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Null,
    Bool,
    Int,
    Float,
    String,
    Array,
    Object,
}

impl Kind {
    fn of(value: &Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(_) => Self::Bool,
            Value::Number(number) if number.is_i64() => Self::Int,
            Value::Number(_) => Self::Float,
            Value::String(_) => Self::String,
            Value::Array(_) => Self::Array,
            Value::Object(_) => Self::Object,
        }
    }
}

/// The one type of all the items of two lists.
fn kind_of_items(original: &[Value], patch: &[Value]) -> Result<Kind, Error> {
    let mut items = original.iter().chain(patch).map(Kind::of);
    match items.next() {
        None => Err(unknown("no elements in any of the given slices")),
        Some(Kind::Null) => Err(cut("null in a list that merges")),
        Some(Kind::Array) => Err(unprocessable()),
        Some(kind) if items.all(|other| other == kind) => Ok(kind),
        Some(_) => {
            let lists = plain_lists(&[original, patch]);
            Err(unknown(format!("list element types are not identical: {lists}")))
        }
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// The value without the objects in it that carry `$patch`; none if it is one itself.
fn without_directives(value: Value) -> Option<Value> {
    match value {
        Value::Object(fields) if fields.contains_key(DIRECTIVE) => None,
        Value::Object(fields) => {
            let kept = fields.into_iter().filter_map(|(key, value)| Some((key, without_directives(value)?)));
            Some(Value::Object(kept.collect()))
        }
        Value::Array(items) => Some(Value::Array(items.into_iter().filter_map(without_directives).collect())),
        other => Some(other),
    }
}

/// What stands behind `prefix/`.
fn behind<'a>(key: &'a str, prefix: &str) -> Option<&'a str> {
    key.strip_prefix(prefix)?.strip_prefix('/')
}

fn bad_type(wanted: &str, value: &Value) -> Error {
    unknown(format!("expected a {wanted}, but received a {}", type_name(value)))
}

fn bad_format(of: &str) -> Error {
    Error::bad_request(format!("invalid patch format of {of}"))
}

fn bad_directive(directive: &Value, patch: &Value) -> Error {
    unknown(format!("unknown patch type: {} in map: {}", text_verb(directive), plain(patch)))
}
