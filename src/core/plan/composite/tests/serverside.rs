//! What a plan makes of children that are to be applied; see `serverside_tests` for when they are.

use super::*;

fn server_side(dialect: &'static Dialect) -> World {
    let mut world = World::new(dialect).generating_selectors();
    world.controller.apply = Apply::ServerSide { manager: "me".into() };
    world
}

#[test]
fn a_child_is_created_whole_and_marked_or_handed_over() {
    for (dialect, is_marked) in [(&RINGMASTER, true), (&METACONTROLLER, false)] {
        let plan = server_side(dialect).plan(&[config_map("a")]);
        let body = tree(&plan.creates[0].body);
        assert_eq!(plan.creates[0].hand_over, !is_marked);
        assert_eq!(body["metadata"]["annotations"]["ringmaster.dev/created-as"].is_string(), is_marked);
        assert_eq!(body["metadata"]["annotations"].get(dialect.last_applied), None);
        assert_eq!(body["metadata"]["ownerReferences"][0]["uid"], PARENT_UID);
        let merged = World::new(dialect).generating_selectors().plan(&[config_map("a")]);
        assert!(!merged.creates[0].hand_over);
        assert_ne!(merged.creates[0].desired, plan.creates[0].desired, "one strategy's notes aren't the other's");
    }
}

#[test]
fn an_update_says_what_is_wanted_and_no_more() {
    let mut world = server_side(&RINGMASTER).having(&[config_map("a")]);
    world.edit(CONFIG_MAPS, "a", |child| child["metadata"]["labels"]["theirs"] = "y".into());
    let mut wanted = with(config_map("a"), "data.k", "new".into());
    wanted["status"] = json!({"x": 1});
    wanted["metadata"]["managedFields"] = json!([]);
    // As a webhook returns it that starts from what it was sent.
    wanted["metadata"]["annotations"] = json!({"ringmaster.dev/created-as": "x", "mine": "1"});
    let plan = world.plan(std::slice::from_ref(&wanted));
    let update = &plan.updates[0];
    assert_eq!(update.how, How::Apply { hand_over: true });
    let child = world.child(CONFIG_MAPS, "a");
    assert_eq!(
        tree(&update.body),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "data": {"k": "new"},
            "metadata": {
                "name": "a", "namespace": "shop", "uid": child.uid().to_string(),
                "resourceVersion": child.version().to_string(),
                "labels": {"app": "x", (CONTROLLER_UID_LABEL): PARENT_UID},
                "annotations": {"mine": "1"},
                "ownerReferences": [controller_reference(&world.parent, &world.resource)],
            },
        })
    );
    child.settle(update.desired);
    world.check(&[wanted], "");
}

#[test]
fn what_is_to_be_made_anew_is_tried_first() {
    let world = server_side(&RINGMASTER).having(&[config_map("a")]).strategy(UpdateStrategy::Recreate);
    let plan = world.plan(&[with(config_map("a"), "data.k", "new".into())]);
    assert_eq!(shape(&plan), "!shop/a");
    let trial = plan.deletes[0].trial.as_ref().unwrap();
    assert_eq!(tree(&trial.body)["data"]["k"], "new");
    let gone = world.plan(&[]);
    assert_eq!(shape(&gone), "-shop/a");
    assert!(gone.deletes[0].trial.is_none());
}
