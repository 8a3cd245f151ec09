//! What counts as a difference, and what an update leaves alone.

use super::*;
use crate::plan::serverside::changes_nothing;

#[test]
fn what_the_server_added_is_no_difference() {
    for dialect in [&RINGMASTER, &METACONTROLLER] {
        for strategy in [UpdateStrategy::InPlace, UpdateStrategy::Recreate] {
            let children = [config_map("a"), deployment("d")];
            let mut world = World::new(dialect).generating_selectors().strategy(strategy);
            let first = world.plan(&children);
            world.carry_out(&first);
            let object = Arc::clone(world.child(DEPLOYMENTS, "d"));
            let observed = object.value();
            assert_eq!(observed["spec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
            let desired = first.creates.iter().find(|create| create.kind == DEPLOYMENTS).unwrap().desired;
            assert!(!object.is_settled(desired));
            world.check(&children, "");
            assert!(object.is_settled(desired));
            // A new version is looked at anew.
            world.edit(DEPLOYMENTS, "d", |child| child["spec"]["replicas"] = 7.into());
            assert!(!world.child(DEPLOYMENTS, "d").is_settled(desired));
            assert!(!world.plan(&children).writes_no_children());
        }
    }
}

#[test]
fn a_settled_child_is_not_compared_again() {
    let mut world = World::new(&RINGMASTER).having(&[config_map("a")]);
    world.edit(CONFIG_MAPS, "a", |child| child["data"]["k"] = "edited".into());
    let plan = world.plan(&[config_map("a")]);
    assert_eq!(shape(&plan), "~shop/a");
    // As after an answer that a mutating admission webhook had its way with.
    world.child(CONFIG_MAPS, "a").settle(plan.updates[0].desired);
    world.check(&[config_map("a")], "");
    world.check(&[with(config_map("a"), "data.k", "new".into())], "~shop/a");
}

#[test]
fn an_update_changes_what_the_hook_changed() {
    let mut world = World::new(&RINGMASTER).having(&[deployment("d")]);
    world.edit(DEPLOYMENTS, "d", |child| {
        child["metadata"]["labels"]["theirs"] = "y".into();
        child["metadata"]["finalizers"] = json!(["theirs"]);
        child["spec"]["paused"] = true.into();
    });
    let before = world.child(DEPLOYMENTS, "d").value();
    // An env variable goes, the image changes, a label comes; a status is not ours to set.
    let mut wanted = deployment("d");
    wanted["metadata"]["labels"]["tier"] = "web".into();
    wanted["metadata"]["uid"] = "invented".into();
    wanted["metadata"]["resourceVersion"] = "1".into();
    wanted["status"] = json!({"replicas": 99});
    let container = &mut wanted["spec"]["template"]["spec"]["containers"][0];
    container["image"] = "web:2".into();
    container["env"] = json!([{"name": "B", "value": "2"}]);
    container.as_object_mut().unwrap().remove("ports");
    let plan = world.plan(std::slice::from_ref(&wanted));
    assert_eq!(shape(&plan), "~shop/d");
    let update = &plan.updates[0];
    assert_eq!(update.kind, DEPLOYMENTS);
    assert!(Arc::ptr_eq(&update.object, world.child(DEPLOYMENTS, "d")));

    let mut expected = before.clone();
    expected["metadata"]["labels"]["tier"] = "web".into();
    let container = &mut expected["spec"]["template"]["spec"]["containers"][0];
    container["image"] = "web:2".into();
    container["env"] = json!([{"name": "B", "value": "2"}]);
    container.as_object_mut().unwrap().remove("ports");
    let mut body = tree(&update.body);
    let text = body["metadata"]["annotations"][RINGMASTER.last_applied].take();
    expected["metadata"]["annotations"][RINGMASTER.last_applied].take();
    assert_eq!(body, expected);
    assert_eq!(body["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(body["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    let last_applied: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
    assert_eq!(last_applied["spec"], wanted["spec"]);

    world.carry_out(&plan);
    world.check(&[wanted], "");
}

#[test]
fn what_is_no_longer_wanted_is_removed_and_the_rest_stays() {
    let both = with(config_map("a"), "data.gone", "soon".into());
    let mut world = World::new(&RINGMASTER).having(&[both]);
    world.edit(CONFIG_MAPS, "a", |child| child["data"]["theirs"] = "stays".into());
    let plan = world.plan(&[config_map("a")]);
    let body = tree(&plan.updates[0].body);
    assert_eq!(body["data"], json!({"k": "v", "theirs": "stays", "served-by": "default"}));
    world.carry_out(&plan);
    world.check(&[config_map("a")], "");
    // A null is as good as nothing.
    world.check(&[with(config_map("a"), "data.k", Value::Null)], "~shop/a");
    // What somebody removed comes back.
    world.edit(CONFIG_MAPS, "a", |child| child["data"] = json!({}));
    assert_eq!(tree(&world.plan(&[config_map("a")]).updates[0].body)["data"]["k"], "v");
}

#[test]
fn what_was_applied_is_compared_as_json() {
    let child = with(config_map("a"), "data.k", "a < b & c".into());
    let world = || World::new(&METACONTROLLER).having(std::slice::from_ref(&child));
    let respelled = |text: &str| {
        let mut world = world();
        let annotation = METACONTROLLER.last_applied;
        world.edit(CONFIG_MAPS, "a", |child| child["metadata"]["annotations"][annotation] = text.into());
        shape(&world.plan(std::slice::from_ref(&child)))
    };
    let go = concat!(
        r#"{"metadata":{"namespace":"shop","name":"a","labels":{"app":"x"}},"kind":"ConfigMap","#,
        r#""data":{"k":"a \u003c b \u0026 c"},"apiVersion":"v1"}"#,
        "\n"
    );
    assert_eq!(respelled(go), "");
    assert_eq!(respelled(&go.replace(r#""namespace":"shop","#, "")), "", "it is the parent's");
    // Not what was applied, nothing, or not JSON: recorded anew.
    for other in [&*go.replace("shop", "shoq"), &go.replace("app", "apt"), "", "null", "{", "[]", "{}"] {
        assert_eq!(respelled(other), "~shop/a", "{other}");
    }
    let mut world = world();
    world.edit(CONFIG_MAPS, "a", |child| child["metadata"]["annotations"] = Value::Null);
    let plan = world.plan(std::slice::from_ref(&child));
    assert_eq!(shape(&plan), "~shop/a");
    world.carry_out(&plan);
    world.check(std::slice::from_ref(&child), "");
    // Each dialect has its own record.
    world.controller.dialect = &RINGMASTER;
    world.edit(CONFIG_MAPS, "a", |_| {});
    world.check(&[child], "~shop/a");
}

#[test]
fn what_differs_is_tried_before_it_is_made_anew() {
    let wanted = with(config_map("a"), "stringData", json!({"p": "1"}));
    let world = World::new(&METACONTROLLER).strategy(UpdateStrategy::Recreate);
    let mut world = world.having(std::slice::from_ref(&wanted));
    // As a server stores a Secret, and as Metacontroller may have spelled what it applied.
    let annotation = METACONTROLLER.last_applied;
    world.edit(CONFIG_MAPS, "a", |stored| {
        let text = stored["metadata"]["annotations"][annotation].as_str().unwrap();
        stored["metadata"]["annotations"][annotation] = format!("{text}\n").into();
        stored.as_object_mut().unwrap().remove("stringData");
    });
    let plan = world.plan(std::slice::from_ref(&wanted));
    assert_eq!(shape(&plan), "!shop/a");
    let (trial, child) = (plan.deletes[0].trial.as_ref().unwrap(), world.child(CONFIG_MAPS, "a"));
    let mut answer = tree(&trial.body);
    assert_eq!((trial.how, &answer["stringData"]), (How::Replace, &wanted["stringData"]));
    assert_eq!(answer["metadata"]["uid"], child.uid().to_string());
    assert_eq!(answer["metadata"]["resourceVersion"], child.version().to_string());
    answer.as_object_mut().unwrap().remove("stringData");
    assert!(changes_nothing(&child.value(), &answer), "{answer}");
    child.settle(trial.desired);
    world.check(std::slice::from_ref(&wanted), "");
    // What is recorded changes with what is wanted.
    let plan = world.plan(&[with(wanted, "stringData.p", "2".into())]);
    let body = tree(&plan.deletes[0].trial.as_ref().unwrap().body);
    let text = body["metadata"]["annotations"][annotation].as_str().unwrap();
    assert!(text.contains(r#""p":"2""#), "{text}");
    assert!(world.plan(&[]).deletes[0].trial.is_none());
}

#[test]
fn a_null_says_nothing_in_a_create_either() {
    let mut child = config_map("a");
    child["metadata"]["labels"]["none"] = Value::Null;
    child["metadata"]["annotations"] = Value::Null;
    child["data"] = json!({"none": null, "list": [null, 1, {"none": null}]});
    let world = World::new(&RINGMASTER).strategy(UpdateStrategy::Recreate);
    let body = tree(&world.plan(std::slice::from_ref(&child)).creates[0].body);
    assert_eq!(body["metadata"]["labels"], json!({"app": "x"}));
    assert_eq!(body["data"], json!({"list": [1, {}]}));
    let world = world.having(std::slice::from_ref(&child));
    world.check(&[child], "");
}

#[test]
fn our_annotation_is_not_the_webhook_s_to_set() {
    for strategy in [UpdateStrategy::InPlace, UpdateStrategy::Recreate] {
        let copied = json!({RINGMASTER.last_applied: "{\"data\":{\"stale\":1}}", "note": "x"});
        let child = with(config_map("a"), "metadata.annotations", copied);
        let world = World::new(&RINGMASTER).strategy(strategy).having(std::slice::from_ref(&child));
        let annotations = &world.child(CONFIG_MAPS, "a").value()["metadata"]["annotations"];
        let text = annotations[RINGMASTER.last_applied].as_str().unwrap();
        assert!(!text.contains("stale") && !text.contains("last-applied"));
        world.check(std::slice::from_ref(&child), "");
    }
}

#[test]
fn owner_references_of_an_update_stay_as_observed() {
    let mut world = World::new(&RINGMASTER).having(&[config_map("a")]);
    let owners = world.child(CONFIG_MAPS, "a").value()["metadata"]["ownerReferences"].clone();
    let plain = json!([{"apiVersion": "v1", "kind": "Node", "name": "o", "uid": "u"}]);
    let child = with(config_map("a"), "metadata.ownerReferences", plain);
    let plan = world.plan(std::slice::from_ref(&child));
    assert_eq!(tree(&plan.updates[0].body)["metadata"]["ownerReferences"], owners);
    world.carry_out(&plan);
    world.check(&[child], "");
}

#[test]
fn what_is_settled_depends_on_all_that_goes_in() {
    let desired = |world: &World, child: Value| world.plan(&[child]).creates[0].desired;
    let plain = World::new(&RINGMASTER);
    let mut other_parent = World::new(&RINGMASTER);
    other_parent.edit_parent(|parent| parent["metadata"]["uid"] = "another".into());
    let mut all = vec![
        desired(&plain, config_map("a")),
        desired(&plain, with(config_map("a"), "data.k", "w".into())),
        desired(&World::new(&RINGMASTER).generating_selectors(), config_map("a")),
        desired(&other_parent, config_map("a")),
    ];
    assert_eq!(desired(&plain, config_map("a")), all[0]);
    let update = World::new(&RINGMASTER).having(&[with(config_map("a"), "data.k", "old".into())]);
    assert_eq!(update.plan(&[config_map("a")]).updates[0].desired, all[0]);
    all.sort_unstable();
    all.dedup();
    assert_eq!((all.len(), all.contains(&0)), (4, false));
}
