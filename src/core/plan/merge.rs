//! The three-way merge of what is observed, what was last applied and what is desired: Metacontroller's dynamic apply.
//!
//! Knows no schemas: which lists are maps is guessed from their items. Never writes a `null` because a hook said so, and
//! never gives up: where types differ, what is desired wins and the API server judges it.
//!
//! It recurses as deep as its input; what `serde_json` parsed is at most 128 deep.

use std::borrow::Cow;

use serde_json::{Map, Number, Value};

#[cfg(test)]
mod plain;
#[cfg(test)]
mod tests;

/// The fields that may name an item of a list, the first that fits wins (Metacontroller's order).
const ITEM_KEYS: [&str; 7] = ["containerPort", "port", "mountPath", "name", "uid", "ip", "path"];

/// The fields of an object that stay as observed.
const KEPT: [&str; 1] = ["status"];

/// The fields of `metadata` that stay as observed: the API server's, the object's identity, and the owners, which
/// claiming alone changes.
const KEPT_METADATA: [&str; 11] = [
    "name",
    "namespace",
    "selfLink",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "ownerReferences",
];

const METADATA: &str = "metadata";
const ANNOTATIONS: &str = "annotations";
const FINALIZERS: &str = "finalizers";

type Object = Map<String, Value>;

/// Merges what is desired into what is observed.
///
/// - A field in `last_applied` and not in `desired` is removed; one in neither stays as observed.
/// - A field in `desired` is merged recursively where both are objects.
/// - Lists are merged item by item where they look like maps: all items of all lists at hand are objects that share one
///   of `containerPort`, `port`, `mountPath`, `name`, `uid`, `ip`, `path`, with values that don't repeat within a list.
///   Observed order is kept, new items follow in desired order. A field whose values repeat is passed over for the next
///   (a port served over TCP and UDP must not become one, metacontroller#371). Other lists are replaced whole.
/// - Where types differ, what is desired wins.
/// - A `null` in `desired` or `last_applied` counts as not mentioned, as a field and as an item of a list.
///
/// Merging the same twice changes nothing: with `merged = merge(o, l, d)`, `merge(merged, d, d)` is `merged`.
#[must_use]
pub fn merge(observed: &Value, last_applied: Option<&Value>, desired: &Value) -> Value {
    match (observed, desired) {
        (Value::Object(observed), Value::Null) => {
            Value::Object(merge_fields(observed, last_applied.and_then(Value::as_object), &Map::new(), &[]))
        }
        (observed, Value::Null) => observed.clone(),
        _ => merge_value(observed, last_applied, desired),
    }
}

/// Merges a whole object, as [`merge`] does, but for what a hook has no say in, whatever `desired` and `last_applied`
/// hold:
///
/// - `status`, the fields of `metadata` that the API server sets, `metadata.name`, `metadata.namespace` and
///   `metadata.ownerReferences` stay as observed, also where they are absent.
/// - `metadata.finalizers` is a set: the desired ones are added, those last applied and no longer desired are removed,
///   everybody else's stay. An empty one is left out.
/// - `metadata` itself is never removed or replaced.
#[must_use]
pub fn merge_object(observed: &Value, last_applied: Option<&Value>, desired: &Value) -> Value {
    let none = Map::new();
    let observed = observed.as_object().unwrap_or(&none);
    let last_applied = last_applied.and_then(Value::as_object);
    let desired = desired.as_object().unwrap_or(&none);
    let mut merged = merge_fields(observed, last_applied, desired, &[KEPT[0], METADATA]);
    keep(observed, &KEPT, &mut merged);

    let metadata = merge_metadata(
        object_in(observed, METADATA).unwrap_or(&none),
        last_applied.and_then(|object| object_in(object, METADATA)),
        object_in(desired, METADATA).unwrap_or(&none),
    );
    if !metadata.is_empty() || observed.contains_key(METADATA) {
        merged.insert(METADATA.to_owned(), Value::Object(metadata));
    }
    Value::Object(merged)
}

/// Whether both mean the same to the API server: numbers compare by value (`1` is `1.0`; integers of 64 bits exactly),
/// and a field that is `null` equals one that is absent. The order of a list counts.
#[must_use]
pub fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => same_number(a, b),
        (Value::Array(a), Value::Array(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (Value::Object(a), Value::Object(b)) => {
            let said = |object: &Object| object.values().filter(|value| !value.is_null()).count();
            said(a) == said(b)
                && a.iter()
                    .all(|(key, value)| value.is_null() || mention(b, key).is_some_and(|other| same(value, other)))
        }
        (a, b) => a == b,
    }
}

/// What to record in the annotation `annotation` as last applied: `desired` as compact JSON, its fields sorted, without
/// that annotation itself.
#[must_use]
pub fn desired_annotation(desired: &Value, annotation: &str) -> String {
    if desired.get(METADATA).and_then(|metadata| metadata.get(ANNOTATIONS)?.get(annotation)).is_none() {
        return desired.to_string();
    }
    let mut desired = desired.clone();
    let annotations = desired.get_mut(METADATA).and_then(|metadata| metadata.get_mut(ANNOTATIONS)?.as_object_mut());
    if let Some(annotations) = annotations {
        annotations.remove(annotation);
    }
    desired.to_string()
}

fn merge_value(observed: &Value, last_applied: Option<&Value>, desired: &Value) -> Value {
    match (observed, desired) {
        (Value::Object(observed), Value::Object(desired)) => {
            Value::Object(merge_fields(observed, last_applied.and_then(Value::as_object), desired, &[]))
        }
        (Value::Array(observed), Value::Array(desired)) => {
            let last_applied = last_applied.and_then(Value::as_array).map_or(&[][..], Vec::as_slice);
            let merged = merge_items(observed, last_applied, desired);
            Value::Array(merged.unwrap_or_else(|| said(desired).map(without_nulls).collect()))
        }
        _ => without_nulls(desired),
    }
}

/// Merges two objects, leaving out the fields `except`.
fn merge_fields(observed: &Object, last_applied: Option<&Object>, desired: &Object, except: &[&str]) -> Object {
    let mut merged = Map::new();
    for (key, value) in observed {
        if except.contains(&key.as_str()) {
            continue;
        }
        let last_applied = last_applied.and_then(|object| mention(object, key));
        if let Some(desired) = mention(desired, key) {
            merged.insert(key.clone(), merge_value(value, last_applied, desired));
        } else if last_applied.is_none() {
            merged.insert(key.clone(), value.clone());
        }
    }
    for (key, value) in desired {
        if !value.is_null() && !observed.contains_key(key) && !except.contains(&key.as_str()) {
            merged.insert(key.clone(), without_nulls(value));
        }
    }
    merged
}

fn merge_metadata(observed: &Object, last_applied: Option<&Object>, desired: &Object) -> Object {
    let mut except = [FINALIZERS; KEPT_METADATA.len() + 1];
    except[1..].copy_from_slice(&KEPT_METADATA);
    let mut merged = merge_fields(observed, last_applied, desired, &except);
    keep(observed, &KEPT_METADATA, &mut merged);

    let finalizers = |object: &Object| object.get(FINALIZERS).and_then(Value::as_array).cloned().unwrap_or_default();
    let (desired, dropped) = (finalizers(desired), last_applied.map(finalizers).unwrap_or_default());
    let mut all = finalizers(observed);
    all.retain(|finalizer| !dropped.contains(finalizer) || desired.contains(finalizer));
    for finalizer in desired {
        if !finalizer.is_null() && !all.contains(&finalizer) {
            all.push(finalizer);
        }
    }
    if !all.is_empty() {
        merged.insert(FINALIZERS.to_owned(), Value::Array(all));
    }
    merged
}

/// Merges lists that look like maps; `None` if they don't.
fn merge_items(observed: &[Value], last_applied: &[Value], desired: &[Value]) -> Option<Vec<Value>> {
    // A null that is observed is no object, so it makes the list one to replace.
    let objects = |list: &[Value]| said(list).all(Value::is_object);
    if !observed.iter().all(Value::is_object) || !objects(last_applied) || !objects(desired) {
        return None;
    }
    let (observed_by, last_by, desired_by) = ITEM_KEYS.iter().find_map(|field| {
        Some((Keyed::new(observed, field)?, Keyed::new(last_applied, field)?, Keyed::new(desired, field)?))
    })?;

    let mut merged = Vec::with_capacity(observed.len() + desired.len());
    for (key, item) in &observed_by.items {
        let last_applied = last_by.get(key);
        if let Some(desired) = desired_by.get(key) {
            merged.push(Value::Object(merge_fields(item, last_applied, desired, &[])));
        } else if last_applied.is_none() {
            merged.push(Value::Object((*item).clone()));
        }
    }
    let added = desired_by.items.iter().filter(|(key, _)| observed_by.get(key).is_none());
    merged.extend(added.map(|(_, item)| Value::Object(object_without_nulls(item))));
    Some(merged)
}

/// A list's items by the key that one field gives them.
struct Keyed<'a> {
    /// In the order of the list.
    items: Vec<(Cow<'a, str>, &'a Object)>,
    /// Places in `items`, sorted by key.
    order: Vec<usize>,
}

impl<'a> Keyed<'a> {
    /// `None` if an item lacks a key or two share one.
    fn new(list: &'a [Value], field: &str) -> Option<Self> {
        let keyed = |item: &'a Value| item.as_object().and_then(|object| Some((item_key(object.get(field)?)?, object)));
        let items = said(list).map(keyed).collect::<Option<Vec<_>>>()?;
        let mut order: Vec<usize> = (0..items.len()).collect();
        order.sort_unstable_by(|&a, &b| items[a].0.cmp(&items[b].0));
        let repeats = order.windows(2).any(|pair| items[pair[0]].0 == items[pair[1]].0);
        (!repeats).then_some(Self { items, order })
    }

    fn get(&self, key: &str) -> Option<&'a Object> {
        let at = self.order.binary_search_by(|&at| (*self.items[at].0).cmp(key)).ok()?;
        Some(self.items[self.order[at]].1)
    }
}

/// A key as text, so that `80` and `"80"` name the same item, as in Metacontroller. Only scalars are keys.
fn item_key(value: &Value) -> Option<Cow<'_, str>> {
    match value {
        Value::String(text) => Some(Cow::Borrowed(text)),
        Value::Number(number) => {
            Some(Cow::Owned(integer(number).map_or_else(|| number.to_string(), |n| n.to_string())))
        }
        Value::Bool(flag) => Some(Cow::Borrowed(if *flag { "true" } else { "false" })),
        Value::Null | Value::Array(_) | Value::Object(_) => None,
    }
}

fn same_number(a: &Number, b: &Number) -> bool {
    match (integer(a), integer(b)) {
        (Some(a), Some(b)) => a == b,
        // An integer is never equal to a number that isn't one.
        (Some(_), None) | (None, Some(_)) => false,
        (None, None) => a.as_f64() == b.as_f64(),
    }
}

/// The number as an integer if it is one, however it is written. Floats beyond 64 bits stay floats.
fn integer(number: &Number) -> Option<i128> {
    /// 2^64: from here on no `u64` can be equal.
    const LIMIT: f64 = 18_446_744_073_709_551_616.0;
    if let Some(signed) = number.as_i64() {
        return Some(signed.into());
    }
    if let Some(unsigned) = number.as_u64() {
        return Some(unsigned.into());
    }
    let float = number.as_f64()?;
    // Exact: an integral float of this size fits an i128.
    (float.fract() == 0.0 && float.abs() < LIMIT).then_some(float as i128)
}

/// What an object says about a field: nothing if it is absent or `null`.
fn mention<'a>(object: &'a Object, key: &str) -> Option<&'a Value> {
    object.get(key).filter(|value| !value.is_null())
}

/// The items of a list that say something.
fn said(list: &[Value]) -> impl Iterator<Item = &Value> {
    list.iter().filter(|item| !item.is_null())
}

fn object_in<'a>(object: &'a Object, key: &str) -> Option<&'a Object> {
    object.get(key).and_then(Value::as_object)
}

/// Copies the fields `keys` as observed.
fn keep(observed: &Object, keys: &[&str], merged: &mut Object) {
    for &key in keys {
        if let Some(value) = observed.get(key) {
            merged.insert(key.to_owned(), value.clone());
        }
    }
}

fn without_nulls(value: &Value) -> Value {
    match value {
        Value::Object(object) => Value::Object(object_without_nulls(object)),
        Value::Array(list) => Value::Array(said(list).map(without_nulls).collect()),
        scalar => scalar.clone(),
    }
}

fn object_without_nulls(object: &Object) -> Object {
    let fields = object.iter().filter(|(_, value)| !value.is_null());
    fields.map(|(key, value)| (key.clone(), without_nulls(value))).collect()
}
