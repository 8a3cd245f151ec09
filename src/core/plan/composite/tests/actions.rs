//! What a plan does: creates, deletes, the strategies of updates, their order, the status, and how it is told.

use super::*;

#[test]
fn a_create_is_whole() {
    for (dialect, annotation) in [
        (&RINGMASTER, "ringmaster.dev/last-applied-configuration"),
        (&METACONTROLLER, "metacontroller.k8s.io/last-applied-configuration"),
    ] {
        let mut child = config_map("a");
        child["status"] = json!({"phase": "Invented"});
        child["metadata"]["annotations"] = json!({"note": "a < b"});
        let recorded = with(child.clone(), "metadata.namespace", "shop".into());
        for field in ["uid", "resourceVersion", "creationTimestamp"] {
            child["metadata"][field] = "1".into();
        }
        child["metadata"]["generation"] = 1.into();
        child["metadata"]["managedFields"] = json!([]);
        let plan = World::new(dialect).plan(&[child]);
        let create = &plan.creates[0];
        assert_eq!((create.kind, create.key.as_str()), (CONFIG_MAPS, "shop/a"));

        let mut body = tree(&create.body);
        let text = body["metadata"]["annotations"][annotation].take();
        let last_applied: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        assert!(merge::same(&last_applied["data"], &recorded["data"]));
        assert_eq!(last_applied["metadata"]["annotations"], json!({"note": "a < b"}));
        assert_eq!(last_applied["metadata"].get("ownerReferences"), None);
        let expected = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": "a",
                "namespace": "shop",
                "labels": {"app": "x"},
                "annotations": {"note": "a < b", annotation: null},
                "ownerReferences": [{
                    "apiVersion": "example.com/v1",
                    "kind": "Site",
                    "name": "front",
                    "uid": PARENT_UID,
                    "controller": true,
                    "blockOwnerDeletion": true,
                }],
            },
            "data": {"k": "v"},
        });
        assert_eq!(body, expected);
    }
    // The label that we select by counts as applied, so that it isn't lost to a later merge.
    let plan = World::new(&RINGMASTER).generating_selectors().plan(&[config_map("a")]);
    let body = tree(&plan.creates[0].body);
    assert_eq!(body["metadata"]["labels"], json!({"app": "x", "controller-uid": PARENT_UID}));
    let text = body["metadata"]["annotations"][RINGMASTER.last_applied].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap()["metadata"]["labels"], body["metadata"]["labels"]);
}

#[test]
fn actions_come_by_kind_and_key() {
    let world = World::new(&RINGMASTER).having(&[deployment("z"), config_map("z"), config_map("y")]);
    world.check(
        &[deployment("b"), config_map("c"), deployment("a"), config_map("a")],
        "-shop/y -shop/z -shop/z +shop/a +shop/c +shop/a +shop/b",
    );
    let kinds: Vec<usize> = world.plan(&[]).deletes.iter().map(|delete| delete.kind).collect();
    assert_eq!(kinds, [CONFIG_MAPS, CONFIG_MAPS, DEPLOYMENTS]);
    let world = World::cluster_scoped().having(&[namespace_object("a")]);
    assert_eq!(world.plan(&[]).deletes[0].kind, NAMESPACES);
}

#[test]
fn what_nobody_wants_is_deleted_once() {
    for strategy in [UpdateStrategy::OnDelete, UpdateStrategy::Recreate, UpdateStrategy::InPlace] {
        let mut world = World::new(&RINGMASTER).strategy(strategy).having(&[config_map("a"), config_map("b")]);
        world.check(&[config_map("a")], "-shop/b");
        world.check(&[], "-shop/a -shop/b");
        assert!(Arc::ptr_eq(&world.plan(&[]).deletes[1].object, world.child(CONFIG_MAPS, "b")));
        world.edit(CONFIG_MAPS, "b", |child| child["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
        world.check(&[config_map("a")], "");
        world.check(&[], "-shop/a");
        // Wanted again while it is going: not touched, and made anew once it is gone.
        let again = [config_map("a"), with(config_map("b"), "data.k", "new".into())];
        world.check(&again, "");
        world.kinds[CONFIG_MAPS].owned.pop();
        world.check(&again, "+shop/b");
    }
}

#[test]
fn strategies_differ_where_the_child_differs() {
    let changed = with(config_map("a"), "data.k", "new".into());
    for (strategy, expected) in
        [(UpdateStrategy::OnDelete, ""), (UpdateStrategy::Recreate, "!shop/a"), (UpdateStrategy::InPlace, "~shop/a")]
    {
        let world = World::new(&RINGMASTER).strategy(strategy).having(&[config_map("a")]);
        world.check(&[config_map("a")], "");
        world.check(std::slice::from_ref(&changed), expected);
        // Being right for one state doesn't hide that it isn't for another.
        world.check(&[config_map("a")], "");
        world.check(std::slice::from_ref(&changed), expected);
    }
    let mut world = World::new(&RINGMASTER).having(&[config_map("a"), deployment("a")]);
    world.kinds[DEPLOYMENTS].strategy = UpdateStrategy::Recreate;
    let other = with(deployment("a"), "spec.replicas", 3.into());
    world.check(&[changed, other], "!shop/a ~shop/a");
}

#[test]
fn a_deleting_parent_gets_its_status_only() {
    let mut world = World::new(&RINGMASTER).having(&[config_map("old"), config_map("kept")]);
    world.edit_parent(|parent| parent["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    let children = [with(config_map("kept"), "data.k", "new".into()), config_map("new")];
    let plan = world.sync(&json!({"status": {"phase": "Ending"}, "children": children})).unwrap();
    assert!(plan.writes_no_children());
    assert_eq!(plan.status.unwrap().patch[1]["value"], json!({"phase": "Ending", "observedGeneration": 3}));
    world.check(&children, "");
}

#[test]
fn the_status_is_replaced_as_a_whole() {
    let mut world = World::new(&RINGMASTER);
    world.edit_parent(|parent| parent["status"] = json!({"observedGeneration": 2, "old": true, "n": 1}));
    let generation = json!({"observedGeneration": 3});
    assert_eq!(world.status(&json!(null)), Some(generation.clone()));
    assert_eq!(world.status(&json!({})), Some(generation.clone()));
    assert_eq!(world.status(&json!({"n": 1})), Some(json!({"n": 1, "observedGeneration": 3})));
    assert_eq!(
        world.status(&json!({"n": 1, "observedGeneration": 99})),
        Some(json!({"n": 1, "observedGeneration": 3}))
    );
    // A reply without the field is one with null.
    assert_eq!(shape(&world.sync(&json!({})).unwrap()), "status");

    world.edit_parent(|parent| parent["status"] = json!({"observedGeneration": 3, "n": 1, "l": [{"a": 2.0}]}));
    for same in [
        json!({"n": 1, "l": [{"a": 2}]}),
        json!({"n": 1.0, "l": [{"a": 2.0}]}),
        json!({"l": [{"a": 2, "b": null}], "n": 1, "none": null}),
        json!({"n": 1, "l": [{"a": 2}], "observedGeneration": 1}),
    ] {
        assert_eq!(world.status(&same), None, "{same}");
    }
    for other in [json!({"n": 2, "l": [{"a": 2}]}), json!({"n": "1", "l": [{"a": 2}]}), json!({"n": 1}), json!(null)] {
        assert!(world.status(&other).is_some(), "{other}");
    }

    for bare in [json!(null), json!({})] {
        world.edit_parent(|parent| parent["status"] = bare);
        assert_eq!(world.status(&json!(null)), Some(generation.clone()));
    }
    world.edit_parent(|parent| drop(parent.as_object_mut().unwrap().remove("status")));
    assert_eq!(world.status(&json!(null)), Some(generation));
}

#[test]
fn conditions_join_the_status_and_come_to_rest() {
    let mut world = World::new(&RINGMASTER);
    let reply = json!({
        "status": {"n": 1, "conditions": [{"type": "Mine", "status": "True"}]},
        "conditions": [{"type": "Ready", "status": "False", "reason": "Waits", "message": "for you"}],
    });
    let status = |world: &World| world.sync(&reply).unwrap().status.map(|status| status.patch[1]["value"].clone());
    let ready = json!({"type": "Ready", "status": "False", "reason": "Waits", "message": "for you",
        "lastTransitionTime": NOW, "observedGeneration": 3});
    let mine = json!({"type": "Mine", "status": "True"});
    let wanted = json!({"n": 1, "observedGeneration": 3, "conditions": [mine, ready]});
    assert_eq!(status(&world), Some(wanted.clone()));
    let mut earlier = wanted.clone();
    earlier["conditions"][1]["lastTransitionTime"] = "2025-01-01T00:00:00Z".into();
    world.edit_parent(|parent| parent["status"] = earlier.clone());
    assert_eq!(status(&world), None, "the time is that of the change");
    earlier["conditions"][1]["status"] = "True".into();
    world.edit_parent(|parent| parent["status"] = earlier);
    assert_eq!(status(&world), Some(wanted));
}

#[test]
fn what_the_kind_does_not_keep_of_a_status_is_written_once() {
    let mut world = World::new(&RINGMASTER);
    let reply = |n: u32| {
        json!({
            "status": {"n": n, "dropped": true},
            "conditions": [{"type": "Ready", "status": "True", "reason": "Is"}],
        })
    };
    world.edit_parent(|parent| parent["status"] = json!({"n": 1}));
    let plan = world.sync(&reply(1)).unwrap();
    let desired = plan.status.unwrap().desired;
    world.parent.settle_status(desired);
    assert!(world.sync(&reply(1)).unwrap().status.is_none(), "the write changed nothing");
    world.parent.settle(7);
    assert!(world.sync(&reply(1)).unwrap().status.is_none(), "that is about it as a child");
    assert!(world.sync(&reply(2)).unwrap().status.is_some(), "the webhook wants another");
    world.edit_parent(|parent| parent["status"] = json!({"n": 3}));
    world.parent.settle_status(desired);
    assert!(world.sync(&reply(1)).unwrap().status.is_some(), "somebody wrote another");
}

#[test]
fn a_kind_without_status_gets_none() {
    let mut world = World::new(&RINGMASTER);
    world.resource.status = false;
    assert_eq!(world.status(&json!({"a": 1})), None);
    assert_eq!(world.status(&json!(null)), None);
}

#[test]
fn what_a_plan_changes_is_told_in_a_few_words() {
    let world = World::new(&RINGMASTER).having(&[config_map("a"), config_map("b")]);
    let told = |reply: Value| world.input(&reply, |input| crate::plan::describe(&plan(input).unwrap(), input));
    let status = json!({"observedGeneration": 3});
    let changed = with(config_map("a"), "data.k", json!("other"));
    let secret = json!("not to be told");
    assert_eq!(told(json!({"status": status, "children": [config_map("a"), config_map("b")]})), "");
    assert_eq!(told(json!({"children": [changed, config_map("b")]})), "ConfigMap shop/a: data.k");
    assert_eq!(
        told(json!({"children": [with(config_map("a"), "data.k", secret)]})),
        "ConfigMap shop/a: data.k, and 1 more"
    );
    let three = [config_map("a"), config_map("b"), config_map("c")];
    assert_eq!(told(json!({"children": three})), "ConfigMap shop/c is created");
    assert_eq!(told(json!({"children": [config_map("a")]})), "ConfigMap shop/b is deleted");
    let both = json!({"status": {"x": {"y": 1}}, "children": [config_map("a"), config_map("b")]});
    assert_eq!(told(both), "status: x");
}
