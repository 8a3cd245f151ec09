//! What counts as applied, by example, and that it never says so where an apply would change something.

use proptest::prelude::*;
use serde_json::{Map, json};

use super::*;

#[track_caller]
fn check(observed: &Value, desired: &Value, fields: &Value, expected: bool) {
    assert_eq!(is_as_applied(observed, desired, fields.as_object().unwrap(), true), expected, "{observed} {desired}");
}

#[test]
fn what_is_wanted_must_be_there_and_what_is_ours_must_be_wanted() {
    let fields = json!({"f:data": {".": {}, "f:a": {}, "f:b": {}}});
    let observed =
        json!({"apiVersion": "v1", "metadata": {"name": "x", "uid": "u"}, "data": {"a": "1", "b": "2", "c": "3"}});
    let desired = |data: Value| json!({"apiVersion": "v1", "metadata": {"name": "x", "uid": "u"}, "data": data});
    check(&observed, &desired(json!({"a": "1", "b": "2"})), &fields, true);
    let fields = json!({"f:metadata": {"f:labels": {"f:x": {}}}, "f:data": {".": {}, "f:a": {}, "f:b": {}}});
    let mut labelled = observed;
    labelled["metadata"]["labels"] = json!({"x": "y", "theirs": "z"});
    let with_label = |data: Value| {
        let mut desired = desired(data);
        desired["metadata"]["labels"] = json!({"x": "y"});
        desired
    };
    check(&labelled, &with_label(json!({"a": "1", "b": "2"})), &fields, true);
    check(&labelled, &with_label(json!({"a": "1", "b": "2", "c": "3"})), &fields, true);
    check(&labelled, &with_label(json!({"a": "1"})), &fields, false);
    check(&labelled, &with_label(json!({"a": "1", "b": "new"})), &fields, false);
    check(&labelled, &with_label(json!({"a": "1", "b": "2", "d": "4"})), &fields, false);
    labelled["metadata"]["labels"]["x"] = "drifted".into();
    check(&labelled, &with_label(json!({"a": "1", "b": "2"})), &fields, false);
}

#[test]
fn defaults_that_a_plain_write_made_ours_dont_count_as_dropped() {
    let fields = json!({"f:spec": {"f:replicas": {}, "f:strategy": {"f:type": {}}}});
    let observed = json!({"spec": {"replicas": 2, "strategy": {"type": "RollingUpdate"}}});
    let desired = json!({"spec": {"replicas": 2}});
    check(&observed, &desired, &fields, false);
    assert!(is_as_applied(&observed, &desired, fields.as_object().unwrap(), false));
    let other = json!({"spec": {"replicas": 3}});
    assert!(!is_as_applied(&observed, &other, fields.as_object().unwrap(), false));
}

#[test]
fn items_are_matched_by_their_keys_in_their_order() {
    let fields = json!({"f:ports": {
        r#"k:{"port":80,"protocol":"TCP"}"#: {".": {}, "f:port": {}, "f:name": {}},
        r#"k:{"port":80,"protocol":"UDP"}"#: {".": {}, "f:port": {}, "f:protocol": {}},
    }});
    let (tcp, udp) = (json!({"port": 80, "name": "web"}), json!({"port": 80, "protocol": "UDP"}));
    let mut seen = tcp.clone();
    seen["protocol"] = "TCP".into();
    seen["target"] = 80.into();
    let theirs = json!({"port": 9, "protocol": "TCP"});
    let observed = json!({"ports": [seen, theirs, udp]});
    check(&observed, &json!({"ports": [tcp, udp]}), &fields, true);
    check(&observed, &json!({"ports": [udp, tcp]}), &fields, false);
    check(&observed, &json!({"ports": [tcp]}), &fields, false);
    check(&observed, &json!({"ports": [tcp, udp, {"port": 9, "protocol": "TCP"}]}), &fields, false);
    check(&observed, &json!({"ports": [{"port": 80, "name": "new"}, udp]}), &fields, false);
    check(&json!({"ports": [udp]}), &json!({"ports": [tcp, udp]}), &fields, false);
    check(&observed, &json!({"ports": []}), &fields, false);
    // A part of the key that is left out now is another one by default.
    let fields = json!({"f:ports": {r#"k:{"port":80,"protocol":"UDP"}"#: {".": {}, "f:port": {}, "f:protocol": {}}}});
    check(&json!({"ports": [udp]}), &json!({"ports": [{"port": 80}]}), &fields, false);
}

#[test]
fn sets_have_no_order_and_wholes_have_nothing_beside() {
    let fields = json!({"f:finalizers": {".": {}, "v:\"a\"": {}, "v:\"b\"": {}}});
    let observed = json!({"finalizers": ["theirs", "b", "a"]});
    check(&observed, &json!({"finalizers": ["a", "b"]}), &fields, true);
    check(&observed, &json!({"finalizers": ["a"]}), &fields, false);
    check(&observed, &json!({"finalizers": ["a", "b", "c"]}), &fields, false);
    let whole = json!({"f:args": {}, "f:selector": {}});
    let observed = json!({"args": ["a", "b"], "selector": {"x": "y", "z": "w"}});
    check(&observed, &observed, &whole, true);
    check(&observed, &json!({"args": ["b", "a"], "selector": {"x": "y", "z": "w"}}), &whole, false);
    check(&observed, &json!({"args": ["a", "b"], "selector": {"x": "y"}}), &whole, false);
    check(&json!({"args": "a"}), &json!({"args": ["a"]}), &json!({"f:args": {"v:\"a\"": {}}}), false);
    check(&json!({"n": 1.0}), &json!({"n": 1}), &json!({"f:n": {}}), true);
}

#[test]
fn fields_that_cant_be_read_lead_to_an_apply() {
    let (observed, desired) = (json!({"l": [{"n": "a"}]}), json!({"l": [{"n": "a"}]}));
    check(&observed, &desired, &json!({"f:l": {"k:{": {}}}), false);
    check(&observed, &desired, &json!({"f:l": {"k:{}": {}, "v:1": {}}}), true);
    check(&observed, &desired, &json!({"f:l": {"i:0": {}}}), true);
    check(&observed, &desired, &json!({"f:l": 7}), true);
    check(&observed, &desired, &json!({"f:l": {"k:{\"n\":\"a\"}": 7}}), false);
}

/// Objects whose fields tell their types by their names: `m` a map, `l` a list with the key `n`, `s` a set, `w` a whole.
fn tree(depth: u32) -> BoxedStrategy<Value> {
    let number = (0..3u8).prop_map(|number| json!(number)).boxed();
    let inner = if depth == 0 { number.clone() } else { tree(depth - 1) };
    let set = prop::collection::btree_set(0..4u8, 1..3).prop_map(|set| json!(set));
    let item = prop::option::of(0..3u8);
    let list = prop::collection::btree_map(0..4u8, item, 1..3).prop_map(|items| {
        let item = |(name, value): (u8, Option<u8>)| match value {
            Some(value) => json!({"n": name, "x": value}),
            None => json!({ "n": name }),
        };
        Value::Array(items.into_iter().map(item).collect())
    });
    let whole = prop::collection::vec(0..2u8, 0..3).prop_map(|list| json!(list));
    let map = if depth == 0 { Just(json!({"x": 1})).boxed() } else { inner };
    let parts = (prop::option::of(map), prop::option::of(list), prop::option::of(set), prop::option::of(whole), number);
    let object = parts.prop_map(|(map, list, set, whole, number)| {
        let members = [("m", map), ("l", list), ("s", set), ("w", whole), ("x", Some(number))];
        let members = members.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        Value::Object(members.collect())
    });
    object.boxed()
}

fn key(item: &Value) -> String {
    format!("k:{}", json!({"n": item["n"]}))
}

/// The fields that applying `tree` makes ours.
fn fields(tree: &Value) -> Fields {
    let members = tree.as_object().unwrap().iter().map(|(name, value)| {
        let owned: Map<String, Value> = match (name.as_str(), value) {
            ("m", _) => fields(value),
            ("l", Value::Array(items)) => {
                let item = |item: &Value| {
                    let mut owned = fields(item);
                    owned.insert(".".to_owned(), json!({}));
                    (key(item), Value::Object(owned))
                };
                items.iter().map(item).collect()
            }
            ("s", Value::Array(values)) => values.iter().map(|value| (format!("v:{value}"), json!({}))).collect(),
            _ => Map::new(),
        };
        (format!("f:{name}"), Value::Object(owned))
    });
    members.collect()
}

/// What is there after `desired` was applied by whom `owned` is, and who alone owns that.
fn apply(observed: &Value, owned: &Fields, desired: &Value) -> Value {
    let (observed, desired) = (observed.as_object().unwrap(), desired.as_object().unwrap());
    let mut result = observed.clone();
    result.retain(|name, _| desired.contains_key(name) || !owned.contains_key(&format!("f:{name}")));
    let none = Fields::new();
    for (name, value) in desired {
        let owned = owned.get(&format!("f:{name}")).and_then(Value::as_object).unwrap_or(&none);
        let merged = match (name.as_str(), observed.get(name), value) {
            ("m", Some(seen), value) => apply(seen, owned, value),
            ("l", Some(Value::Array(seen)), Value::Array(items)) => {
                let find = |list: &[Value], wanted: &Value| list.iter().find(|item| key(item) == key(wanted)).cloned();
                let kept = seen.iter().filter(|item| find(items, item).is_some() || !owned.contains_key(&key(item)));
                let mut merged: Vec<Value> = kept.cloned().collect();
                for item in items {
                    let of_item = owned.get(&key(item)).and_then(Value::as_object).unwrap_or(&none);
                    match merged.iter_mut().find(|other| key(other) == key(item)) {
                        Some(other) => *other = apply(other, of_item, item),
                        None => merged.push(item.clone()),
                    }
                }
                Value::Array(merged)
            }
            ("s", Some(Value::Array(seen)), Value::Array(values)) => {
                let kept = seen.iter().filter(|v| values.contains(v) || !owned.contains_key(&format!("v:{v}")));
                let mut merged: Vec<Value> = kept.cloned().collect();
                let added: Vec<Value> = values.iter().filter(|value| !merged.contains(value)).cloned().collect();
                merged.extend(added);
                Value::Array(merged)
            }
            _ => value.clone(),
        };
        result.insert(name.clone(), merged);
    }
    Value::Object(result)
}

proptest! {
    /// With what others had set before, and what was applied over it.
    #[test]
    fn what_was_just_applied_is_as_applied(theirs in tree(2), ours in tree(2)) {
        let observed = apply(&theirs, &Fields::new(), &ours);
        let owned = fields(&ours);
        // An apply puts new items last here, so that the order may not be ours where others had the same items.
        let again = apply(&json!({}), &Fields::new(), &ours);
        prop_assert!(is_as_applied(&again, &ours, &owned, true));
        let next = apply(&observed, &owned, &ours);
        prop_assert_eq!(&next, &observed);
    }

    #[test]
    fn nothing_that_an_apply_would_change_is_as_applied(
        theirs in tree(2), first in tree(2), second in tree(2), same_again in any::<bool>()
    ) {
        let second = if same_again { first.clone() } else { second };
        let observed = apply(&theirs, &Fields::new(), &first);
        let owned = fields(&first);
        if is_as_applied(&observed, &second, &owned, true) {
            prop_assert_eq!(apply(&observed, &owned, &second), observed);
        }
    }
}
