//! The server as a client sees it, in process: requests in, answers out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ::http::{Method, Request};
use axum::body::{Body, to_bytes};
use futures::StreamExt;
use serde_json::{Value, json};

use crate::auth::Users;
use crate::http::Front;
use crate::meta::Now;
use crate::server::ApiServer;
use crate::store::Limits;

pub(crate) fn front(limits: Limits) -> Front {
    let next = AtomicU64::new(1);
    let clock = Arc::new(move || {
        let number = u128::from(next.fetch_add(1, Ordering::Relaxed));
        Now {
            time: "2026-01-01T00:00:00Z".to_owned(),
            random: number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
        }
    });
    let (server, work) = ApiServer::new(limits, clock);
    tokio::spawn(work);
    Front::new(server, Users::default(), None)
}

pub(crate) async fn send(front: &Front, method: Method, path: &str, kind: &str, body: Value) -> (u16, Value) {
    let body = if body.is_null() { Body::empty() } else { Body::from(body.to_string()) };
    let request = Request::builder().method(method).uri(path).header("content-type", kind).body(body).unwrap();
    let response = front.answer(request).await;
    let code = response.status().as_u16();
    let bytes = to_bytes(response.into_body(), 1 << 24).await.unwrap();
    (code, serde_json::from_slice(&bytes).unwrap_or_default())
}

pub(crate) async fn get(front: &Front, path: &str) -> (u16, Value) {
    send(front, Method::GET, path, "", Value::Null).await
}

pub(crate) async fn post(front: &Front, path: &str, body: Value) -> (u16, Value) {
    send(front, Method::POST, path, "application/json", body).await
}

fn crd() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": { "name": "things.x.y" },
        "spec": { "group": "x.y", "scope": "Namespaced",
            "names": { "plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList" },
            "versions": [{ "name": "v1", "served": true, "storage": true, "subresources": { "status": {} },
                "schema": { "openAPIV3Schema": { "type": "object", "properties": {
                    "spec": { "type": "object", "required": ["size"], "properties": {
                        "size": { "type": "integer", "minimum": 1 }, "color": { "type": "string", "default": "red" } } },
                    "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true } } } } }] },
    })
}

pub(crate) fn thing(name: &str, size: i64) -> Value {
    json!({ "apiVersion": "x.y/v1", "kind": "Thing", "metadata": { "name": name }, "spec": { "size": size, "odd": 1 } })
}

pub(crate) const THINGS: &str = "/apis/x.y/v1/namespaces/default/things";

pub(crate) async fn with_things(limits: Limits) -> Front {
    let front = front(limits);
    let (code, _) = post(&front, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", crd()).await;
    assert_eq!(code, 201);
    front
}

#[tokio::test]
async fn custom_kinds_are_pruned_defaulted_and_validated() {
    let front = with_things(Limits::default()).await;
    let (code, made) = post(&front, THINGS, thing("a", 1)).await;
    assert_eq!((code, &made["spec"]), (201, &json!({ "size": 1, "color": "red" })));
    assert_eq!(made["metadata"]["generation"], 1);
    let (code, refused) = post(&front, THINGS, thing("b", 0)).await;
    assert_eq!((code, refused["reason"].as_str()), (422, Some("Invalid")));
    assert!(refused["message"].as_str().unwrap().contains("spec.size"), "{refused}");
    let (code, twice) = post(&front, THINGS, thing("a", 1)).await;
    assert_eq!((code, twice["reason"].as_str()), (409, Some("AlreadyExists")));
    let (code, _) = post(&front, "/apis/x.y/v1/namespaces/nowhere/things", thing("a", 1)).await;
    assert_eq!(code, 404);
}

#[tokio::test]
async fn a_crd_that_is_not_structural_is_refused() {
    let front = front(Limits::default());
    let mut bad = crd();
    bad["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["type"] = "strange".into();
    let (code, refused) = post(&front, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", bad).await;
    assert_eq!((code, refused["reason"].as_str()), (422, Some("Invalid")), "{refused}");
    let mut webhook = crd();
    webhook["spec"]["conversion"] = json!({ "strategy": "Webhook", "webhook": {
        "conversionReviewVersions": ["v1"], "clientConfig": { "url": "https://x.y/convert" } } });
    let (code, refused) = post(&front, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", webhook).await;
    assert_eq!(code, 501, "{refused}");
}

#[tokio::test]
async fn updates_conflict_count_generations_and_keep_status_apart() {
    let front = with_things(Limits::default()).await;
    let (_, made) = post(&front, THINGS, thing("a", 1)).await;
    let one = format!("{THINGS}/a");
    let merge = "application/merge-patch+json";
    let (code, patched) =
        send(&front, Method::PATCH, &one, merge, json!({ "spec": { "size": 2 }, "status": { "x": 1 } })).await;
    assert_eq!((code, &patched["metadata"]["generation"], &patched["status"]), (200, &json!(2), &Value::Null));
    let status = json!({ "status": { "x": 1 }, "spec": { "size": 9 } });
    let (code, patched) = send(&front, Method::PATCH, &format!("{one}/status"), merge, status).await;
    assert_eq!((code, &patched["spec"]["size"], &patched["status"]["x"]), (200, &json!(2), &json!(1)));
    assert_eq!(patched["metadata"]["generation"], 2);
    let (code, conflict) = send(&front, Method::PUT, &one, "application/json", made).await;
    assert_eq!((code, conflict["reason"].as_str()), (409, Some("Conflict")));
    let before = patched["metadata"]["resourceVersion"].clone();
    let (_, same) = send(&front, Method::PATCH, &one, merge, json!({ "spec": { "size": 2 } })).await;
    assert_eq!(same["metadata"]["resourceVersion"], before, "a write that changes nothing has no version of its own");
}

#[tokio::test]
async fn pages_are_of_one_moment_and_tokens_expire() {
    let front = with_things(Limits { history: 4, ..Limits::default() }).await;
    for name in ["a", "b", "c"] {
        post(&front, THINGS, thing(name, 1)).await;
    }
    let (_, first) = get(&front, &format!("{THINGS}?limit=2")).await;
    assert_eq!((first["items"].as_array().unwrap().len(), &first["metadata"]["remainingItemCount"]), (2, &json!(1)));
    let token = first["metadata"]["continue"].as_str().unwrap().to_owned();
    post(&front, THINGS, thing("d", 1)).await;
    let next = format!("{THINGS}?limit=2&continue={token}");
    let (_, second) = get(&front, &next).await;
    let names: Vec<_> = second["items"].as_array().unwrap().iter().map(|item| &item["metadata"]["name"]).collect();
    assert_eq!(names, ["c"], "what came after the first page isn't in the second");
    assert_eq!(second["metadata"]["resourceVersion"], first["metadata"]["resourceVersion"]);
    for name in ["e", "f", "g", "h", "i"] {
        post(&front, THINGS, thing(name, 1)).await;
    }
    let (code, expired) = get(&front, &next).await;
    assert_eq!((code, expired["reason"].as_str()), (410, Some("Expired")));
}

#[tokio::test]
async fn a_watch_begins_with_all_and_goes_on() {
    let front = with_things(Limits::default()).await;
    post(&front, THINGS, thing("a", 1)).await;
    let path = format!(
        "{THINGS}?watch=true&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true&timeoutSeconds=5"
    );
    let response = front.answer(Request::get(path).body(Body::empty()).unwrap()).await;
    let mut lines = response.into_body().into_data_stream();
    let mut next = async || -> Value {
        let line = tokio::time::timeout(Duration::from_secs(5), lines.next()).await.unwrap().unwrap().unwrap();
        serde_json::from_slice(&line).unwrap()
    };
    assert_eq!(next().await["type"], "ADDED");
    let end = next().await;
    assert_eq!(end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true");
    post(&front, THINGS, thing("b", 1)).await;
    assert_eq!(next().await["object"]["metadata"]["name"], "b");
    send(&front, Method::DELETE, &format!("{THINGS}/a"), "", Value::Null).await;
    assert_eq!(next().await["type"], "DELETED");
}

#[tokio::test]
async fn a_watch_ends_when_its_kind_is_served_otherwise() {
    let front = with_things(Limits::default()).await;
    let response = front.answer(Request::get(format!("{THINGS}?watch=true")).body(Body::empty()).unwrap()).await;
    let mut lines = response.into_body().into_data_stream();
    let (path, kind) =
        ("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.x.y", "application/merge-patch+json");
    let label = json!({ "metadata": { "labels": { "a": "b" } } });
    assert_eq!(send(&front, Method::PATCH, path, kind, label).await.0, 200);
    post(&front, THINGS, thing("a", 1)).await;
    let line = tokio::time::timeout(Duration::from_secs(5), lines.next()).await.unwrap();
    assert!(line.is_some(), "a label changes nothing");
    let mut version = crd()["spec"]["versions"][0].clone();
    version["subresources"] = json!({});
    let patch = json!({ "spec": { "versions": [version] } });
    assert_eq!(send(&front, Method::PATCH, path, kind, patch).await.0, 200);
    let line = tokio::time::timeout(Duration::from_secs(5), lines.next()).await.unwrap();
    assert!(line.is_none(), "{line:?}");
}

#[tokio::test]
async fn a_watch_from_a_forgotten_version_begins_and_says_so() {
    let front = with_things(Limits { history: 2, ..Limits::default() }).await;
    let (_, first) = post(&front, THINGS, thing("a", 1)).await;
    for name in ["b", "c", "d", "e"] {
        post(&front, THINGS, thing(name, 1)).await;
    }
    let version = first["metadata"]["resourceVersion"].as_str().unwrap();
    let (code, event) = get(&front, &format!("{THINGS}?watch=true&resourceVersion={version}")).await;
    assert_eq!((code, &event["type"]), (200, &json!("ERROR")), "{event}");
    assert_eq!((&event["object"]["code"], &event["object"]["reason"]), (&json!(410), &json!("Expired")));
}

#[tokio::test]
async fn children_go_with_their_owner_and_finalizers_hold() {
    let front = with_things(Limits::default()).await;
    let (_, owner) = post(&front, THINGS, thing("a", 1)).await;
    let child = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c", "ownerReferences": [{
        "apiVersion": "x.y/v1", "kind": "Thing", "name": "a", "uid": owner["metadata"]["uid"], "controller": true }] } });
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(post(&front, maps, child).await.0, 201);
    let mut held = thing("held", 1);
    held["metadata"]["finalizers"] = json!(["x.y/hold"]);
    post(&front, THINGS, held).await;
    let (code, _) = send(&front, Method::DELETE, &format!("{THINGS}/a"), "", Value::Null).await;
    assert_eq!(code, 200);
    for _ in 0..1000 {
        if get(&front, &format!("{maps}/c")).await.0 == 404 {
            break;
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(get(&front, &format!("{maps}/c")).await.0, 404);
    let (code, marked) = send(&front, Method::DELETE, &format!("{THINGS}/held"), "", Value::Null).await;
    assert!(code == 200 && marked["metadata"]["deletionTimestamp"].is_string(), "{marked}");
    let free = json!({ "metadata": { "finalizers": null } });
    send(&front, Method::PATCH, &format!("{THINGS}/held"), "application/merge-patch+json", free).await;
    assert_eq!(get(&front, &format!("{THINGS}/held")).await.0, 404);
}

#[tokio::test]
async fn events_of_both_groups_are_the_same_objects() {
    let front = front(Limits::default());
    let event = json!({ "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "e" },
        "eventTime": "2026-01-01T00:00:00.000000Z", "reason": "R", "action": "A", "type": "Normal", "note": "hello",
        "reportingController": "x.y/z", "reportingInstance": "i",
        "regarding": { "apiVersion": "v1", "kind": "ConfigMap", "name": "c", "namespace": "default" } });
    let (code, made) = post(&front, "/apis/events.k8s.io/v1/namespaces/default/events", event).await;
    assert_eq!((code, made["note"].as_str()), (201, Some("hello")), "{made}");
    let (_, core) = get(&front, "/api/v1/namespaces/default/events/e").await;
    assert_eq!((core["message"].as_str(), core["involvedObject"]["name"].as_str()), (Some("hello"), Some("c")));
}

#[tokio::test]
async fn what_is_not_served_is_said_clearly() {
    let front = front(Limits::default());
    assert_eq!(get(&front, "/apis/x.y/v1/namespaces/default/things").await.0, 404);
}

const APPLY: &str = "application/apply-patch+yaml";

fn config_map(data: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" }, "data": data })
}

#[tokio::test]
async fn what_is_applied_is_its_manager_s() {
    let front = front(Limits::default());
    let path = |manager: &str| format!("/api/v1/namespaces/default/configmaps/c?fieldManager={manager}");
    let apply =
        async |manager: &str, data: Value| send(&front, Method::PATCH, &path(manager), APPLY, config_map(data)).await;
    let (code, made) = apply("a", json!({ "k": "1", "l": "2" })).await;
    let fields = json!([{ "manager": "a", "operation": "Apply", "apiVersion": "v1", "time": "2026-01-01T00:00:00Z",
        "fieldsType": "FieldsV1", "fieldsV1": { "f:data": { "f:k": {}, "f:l": {} } } }]);
    assert_eq!((code, &made["metadata"]["managedFields"]), (201, &fields));
    let (code, again) = apply("a", json!({ "k": "1", "l": "2" })).await;
    assert_eq!((code, &again["metadata"]["resourceVersion"]), (200, &made["metadata"]["resourceVersion"]));
    let (code, status) = apply("b", json!({ "k": "3" })).await;
    let message = "Apply failed with 1 conflict: conflict with \"a\": .data.k";
    assert_eq!((code, status["message"].as_str()), (409, Some(message)));
    assert_eq!(status["details"]["causes"][0]["reason"], "FieldManagerConflict");
    let (code, forced) = apply("b&force=true", json!({ "k": "3" })).await;
    assert_eq!((code, &forced["data"]), (200, &json!({ "k": "3", "l": "2" })));
    let (_, less) = apply("a", json!({})).await;
    assert_eq!(less["data"], json!({ "k": "3" }));
    assert_eq!(less["metadata"]["managedFields"].as_array().map(Vec::len), Some(2));
    let (_, listed) = get(&front, "/api/v1/namespaces/default/configmaps").await;
    assert_eq!(listed["items"][0]["metadata"], less["metadata"]);
    assert_eq!(send(&front, Method::PATCH, &path(""), APPLY, config_map(json!({}))).await.0, 422);
}

#[tokio::test]
async fn whoever_writes_is_a_manager() {
    let front = with_things(Limits::default()).await;
    let (_, made) = post(&front, &format!("{THINGS}?fieldManager=a"), thing("a", 1)).await;
    let managers = |object: &Value| -> Vec<String> {
        let entries = object["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
        let of = |entry: &Value| format!("{} {} {}", entry["manager"], entry["subresource"], entry["fieldsV1"]);
        entries.iter().map(of).collect()
    };
    let spec = r#"{"f:spec":{".":{},"f:color":{},"f:size":{}}}"#;
    assert_eq!(managers(&made), [format!("\"a\" null {spec}")]);
    let status = json!({ "status": { "x": 1 }, "spec": { "size": 7 } });
    let path = format!("{THINGS}/a/status?fieldManager=b");
    let (_, changed) = send(&front, Method::PATCH, &path, "application/merge-patch+json", status).await;
    let written = r#""b" "status" {"f:status":{".":{},"f:x":{}}}"#;
    assert_eq!(managers(&changed), [format!("\"a\" null {spec}"), written.to_owned()]);
    let crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.x.y";
    let (_, crd) = get(&front, crd).await;
    assert!(managers(&crd)[0].starts_with(r#""kube-apiserver" "status" {"f:status":{"f:acceptedNames""#), "{crd}");
}

#[tokio::test]
async fn patches_that_lead_nowhere_are_refused() {
    let front = front(Limits::default());
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "c" } });
    let maps = "/api/v1/namespaces/default/configmaps";
    assert_eq!(post(&front, maps, map).await.0, 201);
    let (strategic, merge) = ("application/strategic-merge-patch+json", "application/merge-patch+json");
    for (kind, patch, code, why) in [
        (merge, json!({ "metadata": { "name": "d" } }), 400, "the name of the object (d) does not match the name on"),
        (merge, json!({ "data": 1 }), 422, "json: cannot unmarshal number into Go struct field ConfigMap.data of type"),
        (merge, json!({ "kind": "X" }), 422, "no kind \"X\" is registered for version \"v1\" in scheme"),
        (
            strategic,
            json!({ "immutable": "no" }),
            422,
            " \"\" is invalid: patch: Invalid value: \"map[immutable:no]\": unrecognized type: bool",
        ),
    ] {
        let refused = send(&front, Method::PATCH, &format!("{maps}/c"), kind, patch).await;
        assert!(refused.0 == code && refused.1["message"].as_str().unwrap().contains(why), "{refused:?}");
    }
}

#[tokio::test]
async fn bodies_may_be_protobuf_but_for_custom_resources() {
    let front = with_things(Limits::default()).await;
    // runtime.Unknown { typeMeta { v1, ConfigMap }, raw: ConfigMap { metadata { name: a } } }
    let body = b"k8s\0\x0a\x0f\x0a\x02v1\x12\x09ConfigMap\x12\x05\x0a\x03\x0a\x01a";
    let send = async |path: &str| {
        let request = Request::post(path).header("content-type", "application/vnd.kubernetes.protobuf");
        front.answer(request.body(Body::from(&body[..])).unwrap()).await.status().as_u16()
    };
    assert_eq!(send("/api/v1/namespaces/default/configmaps").await, 201);
    assert_eq!(get(&front, "/api/v1/namespaces/default/configmaps/a").await.1["metadata"]["name"], "a");
    assert_eq!(send(THINGS).await, 415);
    assert_eq!(send("/api/v1/namespaces/default/secrets").await, 400, "a ConfigMap is no Secret");
}
