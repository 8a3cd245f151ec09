use super::*;

const OURS: RingName<'static> = RingName { dialect: &RINGMASTER_RING, name: "shop" };
const CONTRACTS: RingName<'static> = RingName { dialect: &CONTROLLER_SHARDING_RING, name: "shop" };

fn review(request: Value) -> Vec<u8> {
    json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "request": request}).to_string().into_bytes()
}

fn create(metadata: Value) -> Value {
    json!({
        "uid": "u1",
        "kind": {"group": "shop.example", "version": "v1", "kind": "Site"},
        "resource": {"group": "shop.example", "version": "v1", "resource": "sites"},
        "namespace": "blue",
        "operation": "CREATE",
        "object": {"apiVersion": "shop.example/v1", "kind": "Site", "metadata": metadata, "spec": {"a": [1, {"b": null}]}},
        "oldObject": null,
        "dryRun": false,
    })
}

fn read(request: Value) -> Question {
    Question::read(&review(request), OURS).unwrap()
}

/// The response, and the patch in it.
fn parsed(answer: &[u8]) -> (Value, Option<Value>) {
    let answer: Value = serde_json::from_slice(answer).unwrap();
    assert_eq!((&answer["apiVersion"], &answer["kind"]), (&json!(API_VERSION), &json!("AdmissionReview")));
    let response = answer["response"].clone();
    assert_eq!((&response["uid"], &response["allowed"]), (&json!("u1"), &json!(true)));
    let patch = response.get("patch").map(|patch| {
        assert_eq!(response["patchType"], "JSONPatch");
        serde_json::from_slice(&STANDARD.decode(patch.as_str().unwrap()).unwrap()).unwrap()
    });
    (response, patch)
}

#[test]
fn rings_have_paths_of_their_own() {
    assert_eq!(RingName::of_path("/admission/rings/shop"), Some(OURS));
    assert_eq!(RingName::of_path("/webhooks/sharder/controllerring/shop"), Some(CONTRACTS));
    for ring in [OURS, CONTRACTS] {
        assert_eq!(RingName::of_path(&ring.path()), Some(ring));
    }
    let long = format!("/admission/rings/{}", "a".repeat(64));
    for path in [
        "/",
        "",
        "/admission/rings/",
        "/admission/rings/a/b",
        "/admission/rings/a%2Fb",
        "/admission/rings/-",
        long.as_str(),
    ] {
        assert_eq!(RingName::of_path(path), None, "{path}");
    }
}

#[test]
fn what_an_object_is_called_is_read_of_it() {
    let owner =
        |controller| json!({"apiVersion": "v1", "kind": "A", "name": "a", "uid": "1", "controller": controller});
    let question = read(create(json!({"name": "front", "ownerReferences": [owner(false), owner(true)]})));
    let subject = question.subject.unwrap();
    let said = (&*subject.group, &*subject.resource, &*subject.kind, &*subject.namespace, &*subject.name);
    assert_eq!(said, ("shop.example", "sites", "Site", "blue", "front"));
    assert!(subject.owner.unwrap().controller);
    let unnamed = read(create(json!({"generateName": "front-", "ownerReferences": [owner(false)]}))).subject.unwrap();
    assert_eq!((&*unnamed.name, unnamed.owner), ("", None));

    let mut namespace = create(json!({"name": "blue"}));
    namespace["resource"] = json!({"group": "", "version": "v1", "resource": "namespaces"});
    assert_eq!(read(namespace).subject.unwrap().namespace, "", "it lives in none");
}

#[test]
fn patches_add_the_label_and_nothing_else() {
    let patch = |metadata: Value, ring: RingName<'_>| {
        let question = Question::read(&review(create(metadata)), ring).unwrap();
        parsed(&question.assigned(ring, "shard-0").unwrap()).1.unwrap()
    };
    let at = "/metadata/labels/ring.ringmaster.dev~1shop";
    let whole = json!([{"op": "add", "path": "/metadata/labels", "value": {"ring.ringmaster.dev/shop": "shard-0"}}]);
    assert_eq!(patch(json!({"name": "a"}), OURS), whole);
    assert_eq!(patch(json!({"name": "a", "labels": null}), OURS), whole);
    let one = json!([{"op": "add", "path": at, "value": "shard-0"}]);
    assert_eq!(patch(json!({"name": "a", "labels": {}}), OURS), one);
    assert_eq!(patch(json!({"name": "a", "labels": {"a/b~c": "d"}}), OURS), one);
    let drained = json!({"name": "a", "labels": {"drain.ring.ringmaster.dev/shop": "true"}});
    let both = json!([
        {"op": "add", "path": at, "value": "shard-0"},
        {"op": "remove", "path": "/metadata/labels/drain.ring.ringmaster.dev~1shop"},
    ]);
    assert_eq!(patch(drained.clone(), OURS), both);
    let contracts = patch(drained, CONTRACTS);
    assert_eq!(contracts[0]["path"], "/metadata/labels/shard.alpha.sharding.timebertt.dev~1shop");
    assert_eq!(contracts.as_array().unwrap().len(), 1, "another ring's drain");
    assert_eq!(escaped("a/b~c~1"), "a~1b~0c~01");
}

#[test]
fn no_shard_that_the_api_server_would_refuse_is_written() {
    let question = read(create(json!({"name": "a"})));
    for shard in ["", "-", "a b", "a/b", &"a".repeat(64)[..]] {
        assert_eq!(question.assigned(OURS, shard), None, "{shard}");
    }
    assert!(question.assigned(OURS, &"a".repeat(63)).is_some());
}

#[test]
fn whatever_can_be_answered_is_allowed() {
    let with = |name: &str, value: Value| {
        let mut request = create(json!({"name": "a"}));
        request[name] = value;
        request
    };
    let labelled = |value: &str| create(json!({"name": "a", "labels": {"ring.ringmaster.dev/shop": value}}));
    for (request, outcome) in [
        (labelled("shard-0"), Outcome::Labelled),
        (labelled(""), Outcome::Labelled),
        (with("operation", json!("UPDATE")), Outcome::NotCreated),
        (with("operation", json!("DELETE")), Outcome::NotCreated),
        (with("subResource", json!("status")), Outcome::NotCreated),
        (with("object", Value::Null), Outcome::Unreadable),
        (with("object", json!("text")), Outcome::Unreadable),
        (with("object", json!({})), Outcome::Unreadable),
        (create(json!({"labels": {"a": 1}})), Outcome::Unreadable),
        (create(json!({"ownerReferences": [{"kind": "A"}]})), Outcome::Unreadable),
        (with("resource", json!(7)), Outcome::Unreadable),
        (json!({"uid": "u1"}), Outcome::Unreadable),
    ] {
        let question = read(request.clone());
        assert_eq!(question.subject, Err(outcome), "{request}");
        let (response, patch) = parsed(&question.admitted());
        assert_eq!((patch, response.get("patchType")), (None, None));
        assert_eq!(question.assigned(OURS, "shard-0"), None);
    }
}

#[test]
fn a_dry_run_is_known() {
    let mut request = create(json!({"name": "a"}));
    request["dryRun"] = json!(true);
    let question = read(request);
    assert!(question.is_dry_run && question.assigned(OURS, "shard-0").is_some());
    assert!(!read(create(json!({"name": "a"}))).is_dry_run);
}

#[test]
fn what_is_no_question_is_an_error_that_says_so() {
    let older = json!({"apiVersion": "admission.k8s.io/v1beta1", "request": create(json!({}))}).to_string();
    let error = Question::read(older.as_bytes(), OURS).unwrap_err().to_string();
    assert!(error.contains("apiVersion") && error.contains("v1beta1"), "{error}");
    for body in [
        &b""[..],
        b"{}",
        b"[]",
        b"\xff",
        b"null",
        &review(json!({}))[..],
        &review(Value::Null)[..],
        &review(json!({"uid": 1}))[..],
    ] {
        assert!(matches!(Question::read(body, OURS), Err(Error::Shape(_))), "{}", String::from_utf8_lossy(body));
    }
}

#[test]
fn outcomes_are_told_apart() {
    let labels: std::collections::BTreeSet<&str> = Outcome::ALL.into_iter().map(Outcome::label).collect();
    assert_eq!(labels.len(), Outcome::ALL.len());
}
