//! Tables of objects as they are met, and properties against a plain merge that edits a copy in place.

use proptest::prelude::*;
use serde_json::json;

use super::*;

#[track_caller]
fn check(observed: &Value, last_applied: &Value, desired: &Value, expected: &Value) {
    let last_applied = Some(last_applied).filter(|value| !value.is_null());
    let merged = merge(observed, last_applied, desired);
    assert_eq!(&merged, expected);
    assert_eq!(merge(&merged, Some(desired), desired), merged, "merging again must change nothing");
}

#[test]
fn fields_and_lists() {
    let none = json!(null);
    for (observed, last_applied, desired, expected) in [
        // Fields.
        (json!({"a": 1, "b": 2}), none.clone(), json!({"b": 3, "c": 4}), json!({"a": 1, "b": 3, "c": 4})),
        (json!({"a": 1, "b": 2}), json!({"a": 1, "b": 2}), json!({"b": 2}), json!({"b": 2})),
        (json!({"a": {"x": 1, "y": 2}}), json!({"a": {"x": 1}}), json!({"a": {}}), json!({"a": {"y": 2}})),
        (json!({"a": {"x": 1, "y": 2}}), json!({"a": {"x": 1}}), json!({}), json!({})),
        // Types that differ: what is desired wins.
        (json!({"a": {"x": 1}}), none.clone(), json!({"a": 1}), json!({"a": 1})),
        (json!({"a": 1}), none.clone(), json!({"a": {"x": 1}}), json!({"a": {"x": 1}})),
        (json!({"a": [1]}), json!({"a": {"x": 1}}), json!({"a": {"x": 1}}), json!({"a": {"x": 1}})),
        (json!({"a": {"x": 1}}), json!({"a": [1]}), json!({"a": {"y": 1}}), json!({"a": {"x": 1, "y": 1}})),
        // A null says nothing.
        (json!({"a": 1}), none.clone(), json!({"a": null, "b": null}), json!({"a": 1})),
        (json!({"a": 1}), json!({"a": 1}), json!({"a": null}), json!({})),
        (json!({"a": 1}), json!({"a": null}), json!({}), json!({"a": 1})),
        (json!({}), none.clone(), json!({"a": {"x": null, "y": [null, {"z": null}]}}), json!({"a": {"y": [{}]}})),
        (json!({"a": null, "b": null}), none.clone(), json!({"a": {}}), json!({"a": {}, "b": null})),
        (json!({"a": [1]}), none.clone(), json!({"a": [null, 2]}), json!({"a": [2]})),
        (json!({"a": 1, "b": 1}), json!({"a": 1}), none.clone(), json!({"b": 1})),
        // Lists of scalars are replaced.
        (json!({"a": [1, 2]}), json!({"a": [1]}), json!({"a": [3]}), json!({"a": [3]})),
        (json!({"a": [1, 2]}), json!({"a": [1]}), json!({}), json!({})),
        (json!({"a": [{"name": "x"}, 1]}), none.clone(), json!({"a": [{"name": "y"}]}), json!({"a": [{"name": "y"}]})),
        (
            json!({"a": [{"name": "x"}, null]}),
            none.clone(),
            json!({"a": [{"name": "y"}]}),
            json!({"a": [{"name": "y"}]}),
        ),
        // Lists of objects without a common key are replaced.
        (json!({"a": [{"x": 1}]}), none.clone(), json!({"a": [{"y": 1}]}), json!({"a": [{"y": 1}]})),
        (json!({"a": [{"name": "x"}]}), none.clone(), json!({"a": [{"port": 1}]}), json!({"a": [{"port": 1}]})),
        (
            json!({"a": [{"name": "x"}]}),
            json!({"a": [{"x": 1}]}),
            json!({"a": [{"name": "y"}]}),
            json!({"a": [{"name": "y"}]}),
        ),
        // Lists that look like maps: observed order, then new ones in desired order.
        (
            json!({"a": [{"name": "y", "o": 1}, {"name": "gone", "o": 1}, {"name": "x", "o": 1}]}),
            json!({"a": [{"name": "x", "l": 1}, {"name": "gone"}]}),
            json!({"a": [{"name": "n2"}, {"name": "x", "d": 1}, {"name": "n1", "v": null}]}),
            json!({"a": [{"name": "y", "o": 1}, {"name": "x", "o": 1, "d": 1}, {"name": "n2"}, {"name": "n1"}]}),
        ),
        (json!({"a": [{"name": "x"}]}), json!({"a": [{"name": "x"}]}), json!({"a": []}), json!({"a": []})),
        (json!({"a": [{"name": "x"}]}), none.clone(), json!({"a": []}), json!({"a": [{"name": "x"}]})),
        (json!({"a": []}), none.clone(), json!({"a": [{"name": "x"}]}), json!({"a": [{"name": "x"}]})),
        (
            json!({"a": [{"name": "x", "o": 1}]}),
            json!({"a": [null, {"name": "x"}]}),
            json!({"a": [null, {"name": "x"}]}),
            json!({"a": [{"name": "x", "o": 1}]}),
        ),
        // The first field of the order that all share: port before name.
        (
            json!({"a": [{"name": "x", "port": 1, "o": 1}]}),
            none.clone(),
            json!({"a": [{"name": "y", "port": 1}]}),
            json!({"a": [{"name": "y", "port": 1, "o": 1}]}),
        ),
        // A key is a scalar; a number and its text are the same key.
        (
            json!({"a": [{"path": {"x": 1}}]}),
            none.clone(),
            json!({"a": [{"path": {"x": 1}, "y": 1}]}),
            json!({"a": [{"path": {"x": 1}, "y": 1}]}),
        ),
        (
            json!({"a": [{"port": 80, "o": 1}, {"port": 81}]}),
            none.clone(),
            json!({"a": [{"port": "80"}, {"port": 81.0, "d": 1}]}),
            json!({"a": [{"port": "80", "o": 1}, {"port": 81.0, "d": 1}]}),
        ),
        (
            json!({"a": [{"name": null, "ip": "1"}]}),
            none.clone(),
            json!({"a": [{"name": null, "ip": "2"}]}),
            json!({"a": [{"name": null, "ip": "1"}, {"ip": "2"}]}),
        ),
        // Keys that repeat: the next field, or the list whole.
        (
            json!({"a": [{"port": 53, "protocol": "TCP", "o": 1}, {"port": 53, "protocol": "UDP", "o": 2}]}),
            none.clone(),
            json!({"a": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}),
            json!({"a": [{"port": 53, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"}]}),
        ),
        (
            json!({"a": [{"port": 53, "name": "t", "o": 1}, {"port": 53, "name": "u", "o": 2}]}),
            none.clone(),
            json!({"a": [{"port": 53, "name": "u"}, {"port": 54, "name": "t"}]}),
            json!({"a": [{"port": 54, "name": "t", "o": 1}, {"port": 53, "name": "u", "o": 2}]}),
        ),
        (
            json!({"a": [{"name": "x", "port": 1, "o": 1}, {"name": "a"}]}),
            none.clone(),
            json!({"a": [{"name": "a", "port": 1}]}),
            json!({"a": [{"name": "x", "port": 1, "o": 1}, {"name": "a", "port": 1}]}),
        ),
        (
            json!({"a": [{"name": "E", "value": "1"}, {"name": "other"}]}),
            none,
            json!({"a": [{"name": "E", "value": "1"}, {"name": "E", "value": "2"}]}),
            json!({"a": [{"name": "E", "value": "1"}, {"name": "E", "value": "2"}]}),
        ),
    ] {
        check(&observed, &last_applied, &desired, &expected);
    }
}

#[test]
fn a_deployment_with_server_defaults() {
    let desired = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web"}, "finalizers": ["hook.example.com/x"]},
        "spec": {
            "selector": {"matchLabels": {"app": "web"}},
            "template": {
                "metadata": {"labels": {"app": "web"}},
                "spec": {
                    "containers": [{
                        "name": "nginx", "image": "nginx:2", "args": ["-q"],
                        "ports": [{"containerPort": 8080}],
                        "env": [{"name": "B", "value": "2"}, {"name": "C", "value": "3"}],
                        "volumeMounts": [{"name": "data", "mountPath": "/a"}, {"name": "data", "mountPath": "/b"}],
                    }],
                },
            },
        },
    });
    let last_applied = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": "web", "namespace": "shop", "labels": {"app": "web", "old": "1"},
            "finalizers": ["hook.example.com/old"], "uid": "junk"},
        "spec": {
            "paused": true,
            "template": {"spec": {"containers": [
                {"name": "nginx", "image": "nginx:1", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}]},
                {"name": "gone", "image": "gone"},
            ]}},
        },
        "status": {"replicas": 7},
    });
    let observed = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7", "generation": 2,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web", "old": "1", "other": "1"},
            "annotations": {"deployment.kubernetes.io/revision": "1"},
            "ownerReferences": [{"name": "site", "uid": "p1", "controller": true}],
            "finalizers": ["other.example.com/y", "hook.example.com/old"],
        },
        "spec": {
            "replicas": 5, "paused": true, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
            "template": {
                "metadata": {"labels": {"app": "web"}, "creationTimestamp": null},
                "spec": {
                    "containers": [
                        {"name": "sidecar", "image": "injected"},
                        {
                            "name": "nginx", "image": "nginx:1", "imagePullPolicy": "IfNotPresent",
                            "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                            "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "2"}, {"name": "Z", "value": "9"}],
                            "volumeMounts": [{"name": "data", "mountPath": "/a", "readOnly": true}],
                        },
                        {"name": "gone", "image": "gone"},
                    ],
                    "restartPolicy": "Always",
                },
            },
        },
        "status": {"replicas": 5},
    });
    let expected = json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {
            "name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7", "generation": 2,
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"app": "web", "other": "1"},
            "annotations": {"deployment.kubernetes.io/revision": "1"},
            "ownerReferences": [{"name": "site", "uid": "p1", "controller": true}],
            "finalizers": ["other.example.com/y", "hook.example.com/x"],
        },
        "spec": {
            "replicas": 5, "progressDeadlineSeconds": 600,
            "selector": {"matchLabels": {"app": "web"}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%"}},
            "template": {
                "metadata": {"labels": {"app": "web"}, "creationTimestamp": null},
                "spec": {
                    "containers": [
                        {"name": "sidecar", "image": "injected"},
                        {
                            "name": "nginx", "image": "nginx:2", "imagePullPolicy": "IfNotPresent", "args": ["-q"],
                            "ports": [{"containerPort": 8080, "protocol": "TCP"}],
                            "env": [{"name": "B", "value": "2"}, {"name": "Z", "value": "9"}, {"name": "C", "value": "3"}],
                            "volumeMounts": [
                                {"name": "data", "mountPath": "/a", "readOnly": true},
                                {"name": "data", "mountPath": "/b"},
                            ],
                        },
                    ],
                    "restartPolicy": "Always",
                },
            },
        },
        "status": {"replicas": 5},
    });
    let merged = merge_object(&observed, Some(&last_applied), &desired);
    assert_eq!(merged, expected);
    assert_eq!(merge_object(&merged, Some(&desired), &desired), merged);
}

#[test]
fn a_service_with_server_defaults() {
    let desired = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop"},
        "spec": {
            "selector": {"app": "web"},
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP"},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP"},
                {"name": "http", "port": 80, "targetPort": 8080.0},
            ],
        },
    });
    let observed = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": "web", "namespace": "shop", "uid": "u1", "resourceVersion": "7"},
        "spec": {
            "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"], "type": "ClusterIP",
            "selector": {"app": "web"},
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53, "nodePort": 30053},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53, "nodePort": 30054},
                {"name": "http", "port": 80, "protocol": "TCP", "targetPort": 8080, "nodePort": 30080},
            ],
        },
        "status": {"loadBalancer": {}},
    });
    let merged = merge_object(&observed, Some(&desired), &desired);
    assert!(same(&merged, &observed), "nothing changed: {merged}");
}

#[test]
fn a_hook_has_no_say_in_some_fields() {
    let fields = plain::KEPT;
    let all = |mark: &str| {
        let mut metadata: Object = fields.iter().map(|&key| (key.to_owned(), json!(mark))).collect();
        metadata.insert("labels".to_owned(), json!({ "l": mark }));
        json!({"metadata": metadata, "status": {"phase": mark}, "spec": mark})
    };
    let kept = |merged: &Value, observed: &Value| {
        assert_eq!(merged.get("status"), observed.get("status"));
        for key in fields {
            assert_eq!(merged["metadata"].get(key), observed["metadata"].get(key), "{key}");
        }
    };
    for observed in [all("o"), json!({"metadata": {"name": "o"}}), json!({})] {
        for last_applied in [None, Some(all("d")), Some(all("l"))] {
            for desired in [all("d"), json!({"spec": "d"}), json!({"metadata": null}), json!({"metadata": 1})] {
                kept(&merge_object(&observed, last_applied.as_ref(), &desired), &observed);
            }
        }
    }
    let merged = merge_object(&all("o"), Some(&all("o")), &all("d"));
    assert_eq!((&merged["spec"], &merged["metadata"]["labels"]["l"]), (&json!("d"), &json!("d")));
    assert_eq!(merge_object(&json!({}), None, &json!({"spec": 1})), json!({"spec": 1}));
}

#[test]
fn finalizers_are_a_set() {
    for (observed, last_applied, desired, expected) in [
        (json!(["x", "y"]), json!(null), json!(null), json!(["x", "y"])),
        (json!(["x", "y"]), json!(null), json!(["z", "x", null]), json!(["x", "y", "z"])),
        (json!(["x", "y"]), json!(["y"]), json!(null), json!(["x"])),
        (json!(["x", "y"]), json!(["x"]), json!(["x"]), json!(["x", "y"])),
        (json!(["y"]), json!(["y"]), json!([]), json!(null)),
        (json!(null), json!(null), json!(["z", "z"]), json!(["z"])),
        (json!(null), json!(null), json!([]), json!(null)),
    ] {
        let object = |finalizers: Value| json!({"metadata": {"name": "n", "finalizers": finalizers}});
        let merged = merge_object(&object(observed), Some(&object(last_applied)), &object(desired));
        assert_eq!(merged["metadata"].get("finalizers").unwrap_or(&Value::Null), &expected);
    }
}

#[test]
fn equality_is_by_meaning() {
    let big = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    for (a, b, expected) in [
        (json!(1), json!(1.0), true),
        (big("1e3"), json!(1000), true),
        (json!(-1), big("-1.0"), true),
        (big("-0.0"), json!(0), true),
        (json!(1), json!(1.5), false),
        (json!(0.1), json!(0.1), true),
        (json!(u64::MAX), json!(u64::MAX), true),
        (json!(u64::MAX), json!(u64::MAX - 1), false),
        (json!(u64::MAX), big("18446744073709551616.0"), false),
        (json!(9_007_199_254_740_993_i64), big("9007199254740992.0"), false),
        (json!(9_007_199_254_740_992_i64), big("9007199254740992.0"), true),
        (json!(i64::MIN), big("-9223372036854775808.0"), true),
        (big("1e300"), big("1e300"), true),
        (json!(1), json!("1"), false),
        (json!({"a": null}), json!({}), true),
        (json!({"a": null, "b": 1}), json!({"b": 1, "c": null}), true),
        (json!({"a": null, "b": 1}), json!({"b": 1, "a": 0}), false),
        (json!({"a": 1}), json!({"b": 1}), false),
        (json!({"a": {"b": null}}), json!({"a": {}}), true),
        (json!({"a": {}}), json!({}), false),
        (json!({"a": []}), json!({}), false),
        (json!([1, 2]), json!([1.0, 2]), true),
        (json!([1, 2]), json!([2, 1]), false),
        (json!([null]), json!([]), false),
        (json!(null), json!(false), false),
    ] {
        assert_eq!(same(&a, &b), expected, "{a} {b}");
        assert_eq!(same(&b, &a), expected, "{b} {a}");
    }
}

#[test]
fn what_is_recorded_is_compact_sorted_and_without_itself() {
    let key = "ringmaster.dev/last-applied-configuration";
    let desired = json!({"spec": {"z": 1, "a": [1, {"y": "ü\"", "b": null}]}, "kind": "X", "metadata": {"name": "n"}});
    let text = r#"{"kind":"X","metadata":{"name":"n"},"spec":{"a":[1,{"b":null,"y":"ü\""}],"z":1}}"#;
    assert_eq!(desired_annotation(&desired, key), text);
    for (annotations, left) in [
        (json!({key: "x", "b": "1"}), r#"{"metadata":{"annotations":{"b":"1"}}}"#),
        (json!({key: "x"}), r#"{"metadata":{"annotations":{}}}"#),
        (json!({"b": "1"}), r#"{"metadata":{"annotations":{"b":"1"}}}"#),
        (json!(1), r#"{"metadata":{"annotations":1}}"#),
    ] {
        assert_eq!(desired_annotation(&json!({"metadata": {"annotations": annotations}}), key), left);
    }
}

fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        1 => Just(Value::Null),
        3 => (0..3).prop_map(|number| json!(number)),
        1 => Just(json!(1.0)),
        2 => "[xy]".prop_map(|text| json!(text)),
        1 => any::<bool>().prop_map(|flag| json!(flag)),
    ]
}

/// Values from so small a world that three of them often meet: the same fields, items and keys.
fn value() -> impl Strategy<Value = Value> {
    scalar().prop_recursive(4, 32, 4, |inner| {
        let field = prop_oneof![3 => "[abc]", 2 => Just("name".to_owned()), 1 => Just("port".to_owned())];
        prop_oneof![
            3 => object_of(field, inner.clone()),
            3 => items(inner.clone()),
            1 => prop::collection::vec(inner, 0..3).prop_map(Value::Array),
        ]
    })
}

/// Lists that mostly look like maps.
fn items(inner: impl Strategy<Value = Value>) -> impl Strategy<Value = Value> {
    let name = prop_oneof![30 => "[w-z]".prop_map(|text| json!(text)), 1 => Just(Value::Null)];
    let port = (0..9).prop_map(|number| json!(number));
    let rest = prop::collection::btree_map("[abc]", inner, 0..3);
    let item = (prop::option::weighted(0.97, name), prop::option::weighted(0.4, port), rest);
    let item = item.prop_map(|(name, port, rest)| {
        let keys = [("name", name), ("port", port)].into_iter().filter_map(|(key, value)| Some((key, value?)));
        keys.map(|(key, value)| (key.to_owned(), value)).chain(rest).collect::<Value>()
    });
    prop::collection::vec(item, 0..4).prop_map(Value::Array)
}

fn object_of(
    field: impl Strategy<Value = String>,
    inner: impl Strategy<Value = Value>,
) -> impl Strategy<Value = Value> {
    prop::collection::btree_map(field, inner, 0..5).prop_map(|fields| fields.into_iter().collect())
}

fn object() -> impl Strategy<Value = Value> {
    let list = items(value()).prop_map(|list| json!({ "list": list }));
    prop_oneof![object_of("[abc]".prop_map(|key| key), value()), list]
}

/// Whether everything that `desired` says is in `merged`.
fn contains(merged: &Value, desired: &Value) -> bool {
    match (merged, desired) {
        (Value::Object(merged), Value::Object(desired)) => desired
            .iter()
            .all(|(key, desired)| desired.is_null() || merged.get(key).is_some_and(|merged| contains(merged, desired))),
        (Value::Array(merged), Value::Array(desired)) => {
            let mut said = desired.iter().filter(|item| !item.is_null());
            said.all(|item| merged.iter().any(|merged| contains(merged, item)))
        }
        (merged, desired) => merged == desired,
    }
}

/// Through fields that are objects everywhere: what nobody mentioned is as observed, what was dropped is gone.
fn fields_survive_or_go(observed: &Value, last_applied: &Value, desired: &Value, merged: &Value) {
    let (Some(observed), Some(desired)) = (observed.as_object(), desired.as_object()) else { return };
    let none = Map::new();
    let last_applied = last_applied.as_object().unwrap_or(&none);
    let merged = merged.as_object().expect("an object stays one");
    for (key, value) in observed {
        match (mention(last_applied, key), mention(desired, key)) {
            (None, None) => assert_eq!(merged.get(key), Some(value), "{key} must survive"),
            (Some(_), None) => assert_eq!(merged.get(key), None, "{key} must go"),
            (last_applied, Some(desired)) => {
                let last_applied = last_applied.unwrap_or(&Value::Null);
                fields_survive_or_go(value, last_applied, desired, &merged[key]);
            }
        }
    }
}

fn has_null(value: &Value) -> bool {
    match value {
        Value::Object(object) => object.values().any(has_null),
        Value::Array(list) => list.iter().any(has_null),
        value => value.is_null(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn merges_as_the_plain_merge(o in object(), l in prop::option::of(object()), d in object()) {
        prop_assert_eq!(merge(&o, l.as_ref(), &d), plain::merge(&o, l.as_ref(), &d));
    }

    #[test]
    fn merging_again_changes_nothing(o in object(), l in prop::option::of(object()), d in object()) {
        let merged = merge(&o, l.as_ref(), &d);
        prop_assert_eq!(merge(&merged, Some(&d), &d), merged);
        let merged = merge_object(&o, l.as_ref(), &d);
        prop_assert_eq!(merge_object(&merged, Some(&d), &d), merged);
    }

    #[test]
    fn what_is_desired_is_there(o in object(), l in object(), d in object()) {
        let merged = merge(&o, Some(&l), &d);
        prop_assert!(contains(&merged, &d), "{}", merged);
        prop_assert!(has_null(&o) || !has_null(&merged), "{}", merged);
    }

    #[test]
    fn fields_survive_unless_dropped(o in object(), l in object(), d in object()) {
        fields_survive_or_go(&o, &l, &d, &merge(&o, Some(&l), &d));
    }

    #[test]
    fn saying_nothing_changes_nothing(o in object()) {
        prop_assert_eq!(&merge(&o, None, &json!({})), &o);
        prop_assert_eq!(&merge(&o, None, &Value::Null), &o);
        prop_assert_eq!(&merge_object(&o, None, &json!({})), &o);
        prop_assert_eq!(merge(&o, Some(&o), &json!({})), merge(&o, Some(&o), &Value::Null));
    }

    #[test]
    fn same_is_an_equality(a in value(), b in value()) {
        prop_assert!(same(&a, &a));
        prop_assert_eq!(same(&a, &b), same(&b, &a));
        prop_assert!(a != b || same(&a, &b));
        let mut padded = a.clone();
        if let Some(object) = padded.as_object_mut() {
            object.insert("padding".to_owned(), Value::Null);
        }
        prop_assert!(same(&a, &padded));
    }
}
