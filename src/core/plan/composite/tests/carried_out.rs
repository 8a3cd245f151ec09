//! Carrying plans out ends: on a naive API server, whatever was there before.

use proptest::prelude::*;

use super::*;

/// Any JSON, with what merging minds: nulls, numbers that are spelled differently, lists that look like maps.
fn any_value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3i64).prop_map(Value::from),
        Just(json!(1.0)),
        "[a-c<]".prop_map(Value::from),
    ];
    scalar.prop_recursive(3, 16, 4, |inner| {
        let item = ("[a-c]", inner.clone()).prop_map(|(name, value)| json!({"name": name, "value": value}));
        prop_oneof![
            3 => prop::collection::btree_map("[a-c]", inner.clone(), 0..4).prop_map(|map| json!(map)),
            2 => prop::collection::vec(item, 0..4).prop_map(Value::from),
            1 => prop::collection::vec(inner, 0..4).prop_map(Value::from),
        ]
    })
}

fn any_child() -> impl Strategy<Value = Value> {
    let fields = prop::collection::btree_map("[a-c]", any_value(), 0..4);
    let extra = prop_oneof![
        4 => Just(json!({})),
        1 => Just(json!({"annotations": null, "finalizers": ["ours"]})),
        1 => Just(json!({"annotations": {"note": "x"}, "finalizers": null})),
        1 => Just(json!({"annotations": {RINGMASTER.last_applied: "{}"}, "uid": "invented"})),
        1 => Just(json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "o", "uid": "u"}]})),
    ];
    (0..2usize, "[a-d]", fields, any_value(), extra).prop_map(|(kind, name, data, spec, extra)| {
        let mut child = if kind == CONFIG_MAPS { config_map(&name) } else { deployment(&name) };
        child["data"] = json!(data);
        child["spec"] = spec;
        for (key, value) in extra.as_object().into_iter().flatten() {
            child["metadata"][key] = value.clone();
        }
        child
    })
}

fn any_children() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(any_child(), 0..7)
}

/// What somebody else did to a child.
#[derive(Clone, Debug)]
enum Meddling {
    None,
    Record(Value),
    Field(&'static str, Value),
    Labels(Value),
}

fn any_meddling() -> impl Strategy<Value = Meddling> {
    prop_oneof![
        4 => Just(Meddling::None),
        1 => prop_oneof![Just(json!(null)), Just(json!("{")), any_value().prop_map(|value| json!(value.to_string()))]
            .prop_map(Meddling::Record),
        2 => (prop_oneof![Just("data"), Just("spec")], any_value()).prop_map(|(field, value)| Meddling::Field(field, value)),
        1 => prop_oneof![Just(json!({"app": "y"})), Just(json!({"theirs": "z"})), Just(json!(null))]
            .prop_map(Meddling::Labels),
    ]
}

/// Whether all that `desired` says stands in `observed`; an item of a list may stand anywhere in it.
fn holds(observed: &Value, desired: &Value) -> bool {
    match (observed, desired) {
        (_, Value::Null) => true,
        (Value::Object(observed), Value::Object(desired)) => desired
            .iter()
            .all(|(key, value)| value.is_null() || observed.get(key).is_some_and(|observed| holds(observed, value))),
        (Value::Array(observed), Value::Array(desired)) => {
            desired.iter().all(|value| value.is_null() || observed.iter().any(|observed| holds(observed, value)))
        }
        (observed, desired) => merge::same(observed, desired),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn carrying_plans_out_comes_to_an_end(
        before in any_children(),
        meddling in prop::collection::vec(any_meddling(), 8),
        wanted in any_children(),
        status in any_value(),
        recreate in any::<bool>(),
        generate_selector in any::<bool>(),
        drops_nulls in any::<bool>(),
    ) {
        let strategy = if recreate { UpdateStrategy::Recreate } else { UpdateStrategy::InPlace };
        let mut world = World::new(&RINGMASTER).loose().strategy(strategy);
        world.controller.generate_selector = generate_selector;
        world.drops_nulls = drops_nulls;
        world = world.having(&before);
        let there: Vec<(usize, String)> = [CONFIG_MAPS, DEPLOYMENTS]
            .into_iter()
            .flat_map(|kind| world.kinds[kind].owned.iter().map(move |object| (kind, object.key().name().to_owned())))
            .collect();
        for ((kind, name), meddling) in there.into_iter().zip(meddling) {
            world.edit(kind, &name, |child| match meddling {
                Meddling::None => {}
                Meddling::Record(text) => child["metadata"]["annotations"][RINGMASTER.last_applied] = text,
                Meddling::Field(field, value) => child[field] = value,
                Meddling::Labels(labels) => child["metadata"]["labels"] = labels,
            });
        }

        let status = if status.is_object() { status } else { Value::Null };
        let reply = json!({"status": status, "children": wanted});
        // Recreating takes a round to delete and a round to create.
        let rounds = if recreate { 2 } else { 1 };
        for _ in 0..rounds {
            let plan = world.sync(&reply).unwrap();
            world.carry_out(&plan);
        }
        let plan = world.sync(&reply).unwrap();
        prop_assert!(plan.is_empty(), "{}", shape(&plan));

        for kind in [CONFIG_MAPS, DEPLOYMENTS] {
            let wanted: BTreeMap<&str, &Value> = wanted
                .iter()
                .filter(|child| child["kind"] == *world.kinds[kind].resource.kind)
                .map(|child| (child["metadata"]["name"].as_str().unwrap(), child))
                .collect();
            let owned = &world.kinds[kind].owned;
            prop_assert_eq!(wanted.len(), owned.len());
            for (object, (name, desired)) in owned.iter().zip(wanted) {
                prop_assert_eq!(object.key().name(), name);
                prop_assert_eq!(object.controller(), Some(world.parent.uid()));
                let observed = object.value();
                for field in ["data", "spec"] {
                    prop_assert!(holds(&observed[field], &desired[field]), "{} of {} for {}", field, observed, desired);
                }
                prop_assert!(holds(&observed["metadata"]["labels"], &desired["metadata"]["labels"]));
            }
        }
        let mut expected = if status.is_object() { status } else { json!({}) };
        expected["observedGeneration"] = 3.into();
        prop_assert!(merge::same(&world.parent.section("status").unwrap_or_default(), &expected));
    }
}
