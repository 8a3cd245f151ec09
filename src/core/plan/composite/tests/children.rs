//! What a hook may say of its children: kinds, names, namespaces, owners, labels. One bad child means no plan.

use super::*;

#[test]
fn refuses_kinds_that_are_not_declared() {
    let world = World::new(&RINGMASTER);
    let secret = with(config_map("a"), "kind", "Secret".into());
    assert!(world.refused(&secret).contains("add apiVersion v1 with its plural name to spec.childResources"));
    let older = with(deployment("a"), "apiVersion", "apps/v1beta2".into());
    let problem = world.refused(&older);
    assert!(problem.contains("apiVersion is apps/v1beta2") && problem.contains("as apps/v1;"), "{problem}");
    let other_group = with(deployment("a"), "apiVersion", "extensions/v1beta1".into());
    assert!(world.refused(&other_group).contains("isn't declared"));
    // With both versions declared, each is found.
    let mut both = World::new(&RINGMASTER);
    both.kinds.push(Kind {
        resource: Arc::new(resource("apps/v1beta2", "deployments", "Deployment", true, true)),
        strategy: UpdateStrategy::InPlace,
        owned: Vec::new(),
    });
    let kinds: Vec<usize> = both
        .plan(&[deployment("a"), with(deployment("b"), "apiVersion", "apps/v1beta2".into())])
        .creates
        .iter()
        .map(|create| create.kind)
        .collect();
    assert_eq!(kinds, [DEPLOYMENTS, 3]);
}

#[test]
fn errors_say_which_child() {
    let other = with(config_map("b"), "metadata.namespace", "other".into());
    let error = World::new(&RINGMASTER).sync(&json!({"children": [config_map("a"), other]})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "children[1] (ConfigMap other/b): metadata.namespace must be the parent's (shop) or be left out"
    );
    assert_eq!((error.index, &*error.kind, &*error.name), (1, "ConfigMap", "other/b"));
}

#[test]
fn namespaces_follow_the_parent() {
    let placed = |child: Value, namespace: &str| with(child, "metadata.namespace", namespace.into());
    let (namespaced, cluster) = (World::new(&RINGMASTER), World::cluster_scoped());
    for (world, child, expected) in [
        (&namespaced, config_map("a"), "+shop/a"),
        (&namespaced, placed(config_map("a"), ""), "+shop/a"),
        (&namespaced, placed(config_map("a"), "shop"), "+shop/a"),
        (&cluster, placed(config_map("a"), "far"), "+far/a"),
        (&cluster, namespace_object("a"), "+a"),
        (&cluster, placed(namespace_object("a"), ""), "+a"),
    ] {
        world.check(&[child], expected);
    }
    for (world, child, problem) in [
        (&namespaced, placed(config_map("a"), "other"), "must be the parent's (shop)"),
        (&namespaced, namespace_object("a"), "can't be the child of a namespaced parent"),
        (&namespaced, placed(namespace_object("a"), "shop"), "can't be the child of a namespaced parent"),
        (&cluster, config_map("a"), "metadata.namespace is missing"),
        (&cluster, placed(namespace_object("a"), "far"), "leave metadata.namespace out"),
        (&cluster, placed(config_map("a"), "far/away"), "metadata.namespace isn't a valid name"),
        (&cluster, placed(config_map("a"), ".."), "metadata.namespace isn't a valid name"),
        (&cluster, placed(config_map("a"), "%2e"), "metadata.namespace isn't a valid name"),
    ] {
        let refused = world.refused(&child);
        assert!(refused.contains(problem), "{child}: {refused}");
    }
    let body = tree(&namespaced.plan(&[config_map("a")]).creates[0].body);
    assert_eq!(body["metadata"]["namespace"], "shop");
    let body = tree(&cluster.plan(&[namespace_object("a")]).creates[0].body);
    assert_eq!(body["metadata"].get("namespace"), None);
}

#[test]
fn names_are_path_segments() {
    let world = World::new(&RINGMASTER);
    for name in [".", "..", "a/b", "/", "a%2fb", "a\u{7}b", "a\nb", &"a".repeat(254)] {
        assert!(world.refused(&config_map(name)).contains("metadata.name isn't a valid name"), "{name:?}");
    }
    // Whether the kind allows them is the API server's to say.
    for name in ["a", "a.b", "...", "system:node", "A b", &"a".repeat(253)] {
        world.check(&[config_map(name)], &format!("+shop/{name}"));
    }
}

#[test]
fn two_versions_of_a_kind_are_one_object() {
    let older = |name: &str| with(deployment(name), "apiVersion", "apps/v1beta2".into());
    let mut world = World::new(&RINGMASTER).having(&[deployment("a"), deployment("b")]);
    let shown = world.kinds[DEPLOYMENTS].owned.clone();
    world.kinds.push(Kind {
        resource: Arc::new(resource("apps/v1beta2", "deployments", "Deployment", true, true)),
        strategy: UpdateStrategy::InPlace,
        owned: shown,
    });
    // One delete, though it is shown twice; and none of what is wanted in the other version.
    world.check(&[older("a")], "-shop/b ~shop/a");
    // What is wanted in both would be written to and fro for ever.
    let both = json!({"children": [older("a"), deployment("b"), deployment("a")]});
    let error = world.sync(&both).unwrap_err();
    assert_eq!((error.index, error.problem.contains("stands twice")), (2, true));
    let world = world.loose();
    world.check(&[older("a"), deployment("b"), deployment("a")], "");
    world.check(&[deployment("a"), deployment("b"), older("a")], "~shop/a");
}

#[test]
fn floats_are_passed_on_to_the_last_digit() {
    // These are what serde_json reads one off unless it is told to be exact.
    let floats = json!({"a": 13.118037668959301, "b": [9_061_997_354.740_873, 4.444444444444445e24]});
    let wanted = with(config_map("a"), "data", floats.clone());
    let mut world = World::new(&RINGMASTER).having(std::slice::from_ref(&wanted));
    assert!(String::from_utf8_lossy(world.child(CONFIG_MAPS, "a").json()).contains("13.118037668959301"));
    world.check(std::slice::from_ref(&wanted), "");
    world.edit(CONFIG_MAPS, "a", |object| object["foreign"] = floats);
    let plan = world.plan(&[with(wanted, "data.c", "1".into())]);
    assert!(String::from_utf8_lossy(&plan.updates[0].body).contains(r#""foreign":{"a":13.118037668959301"#));
}

#[test]
fn what_is_there_and_too_deep_is_not_overwritten() {
    let mut world = World::new(&RINGMASTER).having(&[config_map("a")]);
    let text = String::from_utf8_lossy(world.child(CONFIG_MAPS, "a").json()).into_owned();
    let deep = format!(r#"{{"deep":{}{},{}"#, "[".repeat(127), "]".repeat(127), &text[1..]);
    let kind = &mut world.kinds[CONFIG_MAPS];
    kind.owned = vec![Arc::new(Object::parse(&deep, &kind.resource).unwrap())];
    let problem = world.refused(&with(config_map("a"), "data.k", "new".into()));
    assert!(problem.starts_with("what is there can't be compared with what is wanted: recursion limit"), "{problem}");
    world.check(&[], "-shop/a");
    world.strategy(UpdateStrategy::OnDelete).check(&[config_map("a")], "");
}

#[test]
fn a_child_that_stands_twice() {
    let twice = [config_map("a"), config_map("b"), with(config_map("a"), "data.k", "last".into())];
    let error = World::new(&RINGMASTER).sync(&json!({"children": twice})).unwrap_err();
    assert_eq!((error.index, error.problem.contains("stands twice")), (2, true));
    // It is the same one whether its namespace is written out or not.
    let spelled_out = with(config_map("a"), "metadata.namespace", "shop".into());
    let error = World::new(&RINGMASTER).sync(&json!({"children": [config_map("a"), spelled_out]})).unwrap_err();
    assert_eq!(error.index, 1);

    let loose = World::new(&METACONTROLLER).loose();
    loose.check(&twice, "+shop/a +shop/b");
    assert_eq!(tree(&loose.plan(&twice).creates[0].body)["data"]["k"], "last");
    // Strict or not, as Metacontroller has it.
    World::new(&METACONTROLLER).check(&twice, "+shop/a +shop/b");
    let ours = World::new(&RINGMASTER).loose();
    ours.check(&twice, "+shop/a +shop/b");
    // One that doesn't count is checked all the same.
    let bad = with(config_map("a"), "metadata.labels", json!({}));
    assert_eq!(loose.sync(&json!({"children": [bad, config_map("a")]})).unwrap_err().index, 0);

    // The same name is another child in another kind or namespace.
    World::new(&RINGMASTER).check(&[config_map("a"), deployment("a")], "+shop/a +shop/a");
    let placed = |namespace: &str| with(config_map("a"), "metadata.namespace", namespace.into());
    World::cluster_scoped().check(&[placed("m"), placed("n")], "+m/a +n/a");
}

#[test]
fn owners_of_its_own() {
    let world = World::new(&RINGMASTER);
    let owner = |controller: Value| {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "o", "uid": "u", "controller": controller});
        with(config_map("a"), "metadata.ownerReferences", json!([owner]))
    };
    assert!(world.refused(&owner(json!(true))).contains("metadata.ownerReferences names a controller"));
    assert!(world.refused(&owner(json!("yes"))).starts_with("metadata.ownerReferences: "));
    for plain in [json!(false), json!(null)] {
        let child = owner(plain);
        let owners = &tree(&world.plan(std::slice::from_ref(&child)).creates[0].body)["metadata"]["ownerReferences"];
        assert!(merge::same(&owners[0], &child["metadata"]["ownerReferences"][0]));
        assert_eq!((&owners[1]["uid"], &owners[1]["controller"]), (&json!(PARENT_UID), &json!(true)));
        assert_eq!(owners.as_array().unwrap().len(), 2);
    }
    let child = with(config_map("a"), "metadata.ownerReferences", Value::Null);
    let owners = &tree(&world.plan(&[child]).creates[0].body)["metadata"]["ownerReferences"];
    assert_eq!(owners.as_array().unwrap().len(), 1);
}

#[test]
fn labels_match_the_selector() {
    let labelled = |labels: Value| with(config_map("a"), "metadata.labels", labels);
    let (uid, other) = (json!({"controller-uid": PARENT_UID}), json!({"controller-uid": "another"}));
    let world = World::new(&RINGMASTER);
    for labels in [json!(null), json!({}), json!({"app": "y"}), json!({"app": null}), json!({"App": "x"}), uid.clone()]
    {
        let problem = world.refused(&labelled(labels.clone()));
        assert!(problem.contains("don't match the parent's selector (app=x)"), "{labels}: {problem}");
    }
    for labels in [json!({"app": 1}), json!([]), json!("app=x")] {
        assert!(world.refused(&labelled(labels)).starts_with("metadata.labels: "));
    }
    for (field, bad) in [
        ("metadata.annotations", json!([])),
        ("metadata.annotations", json!({"a": 1})),
        ("metadata.finalizers", json!("a")),
        ("metadata.ownerReferences", json!({})),
        ("metadata.ownerReferences", json!([{"controller": "yes"}])),
    ] {
        let problem = world.refused(&with(config_map("a"), field, bad.clone()));
        assert!(problem.starts_with(&format!("{field}: ")), "{bad}: {problem}");
    }
    for labels in [json!({"app": "x"}), json!({"app": "x", "tier": "y", "none": null})] {
        world.check(&[labelled(labels)], "+shop/a");
    }

    // With generateSelector the parent's own selector doesn't count, and the label is added.
    let world = World::new(&RINGMASTER).generating_selectors();
    let problem = world.refused(&labelled(other));
    assert!(problem.contains(&format!("(controller-uid={PARENT_UID})")), "{problem}");
    for labels in [json!(null), json!({}), json!({"app": "y"}), json!({"controller-uid": null}), uid] {
        let plan = world.plan(&[labelled(labels)]);
        assert_eq!(tree(&plan.creates[0].body)["metadata"]["labels"]["controller-uid"], PARENT_UID);
    }
}

#[test]
fn one_bad_child_means_no_plan_at_all() {
    let world = World::new(&RINGMASTER).having(&[config_map("old"), config_map("kept")]);
    let kept = with(config_map("kept"), "data.k", "new".into());
    world.check(&[kept.clone(), config_map("new")], "-shop/old +shop/new ~shop/kept");
    let bad = with(config_map("bad"), "kind", "Secret".into());
    for children in [[kept.clone(), bad.clone()], [bad, kept]] {
        assert!(world.sync(&json!({"status": {"a": 1}, "children": children})).is_err());
    }
}
