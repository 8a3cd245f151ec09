//! Writes of all kinds to the embedded API server, through its service: JSON patch, merge patch, strategic merge patch,
//! server-side apply, and replacing.
//!
//! Never knows better what a write should lead to than the golden tests do: it checks what must hold for any write.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use http::{Method, Request};
use http_body_util::{BodyExt as _, Full};
use ringmaster_apiserver::auth::{User, Users};
use ringmaster_apiserver::http::Front;
use ringmaster_apiserver::meta::Now;
use ringmaster_apiserver::patch::merge_patch;
use ringmaster_apiserver::server::ApiServer;
use ringmaster_apiserver::service::InProcess;
use ringmaster_apiserver::store::Limits;
use ringmaster_core::plan::merge::same;
use serde_json::{Map, Value, json};
use tower::ServiceExt as _;

use super::source::{Source, says_twice};

/// Writes of one session.
const MAX_WRITES: usize = 6;

/// A kind of object and what one looks like.
struct Sort {
    path: &'static str,
    name: &'static str,
    api_version: &'static str,
    kind: &'static str,
    make: fn() -> Value,
}

const SORTS: [Sort; 5] = [
    Sort {
        path: "/api/v1/namespaces/default/configmaps",
        name: "a",
        api_version: "v1",
        kind: "ConfigMap",
        make: config_map,
    },
    Sort {
        path: "/apis/apps/v1/namespaces/default/deployments",
        name: "a",
        api_version: "apps/v1",
        kind: "Deployment",
        make: deployment,
    },
    Sort { path: "/api/v1/namespaces/default/services", name: "a", api_version: "v1", kind: "Service", make: service },
    Sort {
        path: "/apis/x.y/v1/namespaces/default/things",
        name: "a",
        api_version: "x.y/v1",
        kind: "Thing",
        make: thing,
    },
    Sort {
        path: "/api/v1/namespaces/default/serviceaccounts",
        name: "a",
        api_version: "v1",
        kind: "ServiceAccount",
        make: service_account,
    },
];

fn config_map() -> Value {
    json!({"metadata": {"labels": {"a": "1"}, "annotations": {"a": "1", "b": "2"}}, "data": {"a": "1", "b": "2"}})
}

fn deployment() -> Value {
    json!({"spec": {"replicas": 2, "selector": {"matchLabels": {"app": "x"}}, "template": {
        "metadata": {"labels": {"app": "x"}},
        "spec": {"containers": [
            {"name": "a", "image": "i:1", "ports": [{"containerPort": 80}], "env": [{"name": "b", "value": "c"}]},
            {"name": "b", "image": "i:2"}]}}}})
}

fn service() -> Value {
    json!({"metadata": {"finalizers": ["x.y/a"]}, "spec": {"selector": {"app": "x"}, "ports": [
        {"name": "a", "port": 80}, {"name": "b", "port": 53, "protocol": "UDP"}, {"name": "c", "port": 53}]}})
}

fn thing() -> Value {
    json!({"spec": {"a": {"b": 1}, "list": [1], "ports": [{"name": "a", "port": 1}, {"name": "b"}], "set": ["a"]}})
}

fn service_account() -> Value {
    json!({"secrets": [{"name": "a"}], "imagePullSecrets": [{"name": "b"}]})
}

fn definition() -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "things.x.y"},
        "spec": {"group": "x.y", "scope": "Namespaced",
            "names": {"plural": "things", "singular": "thing", "kind": "Thing", "listKind": "ThingList"},
            "versions": [{"name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {
                    "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                        "ports": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"],
                            "items": {"type": "object", "required": ["name"], "properties": {
                                "name": {"type": "string"}, "port": {"type": "integer", "default": 80}}}},
                        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
                        "whole": {"type": "object", "x-kubernetes-map-type": "atomic",
                            "additionalProperties": {"type": "string"}},
                        "either": {"x-kubernetes-int-or-string": true}}},
                    "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}}}]},
    })
}

/// A sort by the first byte, then writes: as they stand, parted by bytes of 255, or made by the grammar.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let grammar = source.flag();
    let sort = &SORTS[source.below(SORTS.len())];
    let writes: Vec<Write> = if grammar {
        (0..=source.below(MAX_WRITES)).map(|_| Write::made(&mut source, sort)).collect()
    } else {
        let parts = source.rest().split(|byte| *byte == u8::MAX).take(MAX_WRITES);
        parts
            .filter_map(|part| part.split_first())
            .map(|(how, body)| Write { how: *how, body: body.to_vec() })
            .collect()
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(play(sort, &writes));
}

struct Write {
    how: u8,
    body: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verb {
    Json,
    Merge,
    Strategic,
    Apply,
    Replace,
}

impl Write {
    fn verb(&self) -> Verb {
        match self.how % 8 {
            0 | 5 => Verb::Json,
            1 => Verb::Merge,
            2 | 6 => Verb::Strategic,
            3 | 7 => Verb::Apply,
            _ => Verb::Replace,
        }
    }

    fn status(&self) -> bool {
        self.how >> 3 & 3 == 3
    }

    fn query(&self) -> &'static str {
        match (self.verb(), self.how >> 5 & 3) {
            (Verb::Apply, 0 | 1) => "?fieldManager=b&force=true",
            (Verb::Apply, 2) => "?fieldManager=b",
            (Verb::Apply, _) => "?fieldManager=kubectl&force=true",
            (_, 3) => "?fieldManager=b&fieldValidation=Strict",
            _ => "",
        }
    }

    fn media(&self) -> &'static str {
        match self.verb() {
            Verb::Json => "application/json-patch+json",
            Verb::Merge => "application/merge-patch+json",
            Verb::Strategic => "application/strategic-merge-patch+json",
            Verb::Apply => "application/apply-patch+yaml",
            Verb::Replace => "application/json",
        }
    }

    /// A write that mostly gets past the first checks.
    fn made(source: &mut Source<'_>, sort: &Sort) -> Self {
        let how = source.byte();
        let mut write = Self { how, body: Vec::new() };
        let body = match write.verb() {
            Verb::Json => (0..source.below(5)).map(|_| operation(source)).collect(),
            verb => {
                let mut object = if source.flag() { (sort.make)() } else { json!({}) };
                for _ in 0..source.below(4) {
                    edit(&mut object, source);
                }
                if object.is_object() && matches!(verb, Verb::Apply | Verb::Replace) {
                    object["apiVersion"] = sort.api_version.into();
                    object["kind"] = sort.kind.into();
                    if source.below(8) < 7 {
                        if !object["metadata"].is_object() {
                            object["metadata"] = json!({});
                        }
                        object["metadata"]["name"] = sort.name.into();
                    }
                }
                object
            }
        };
        write.body = body.to_string().into_bytes();
        write
    }
}

/// Places in the objects above, and next to them.
const POINTERS: [&str; 26] = [
    "",
    "/metadata",
    "/metadata/labels",
    "/metadata/labels/a",
    "/metadata/annotations",
    "/metadata/finalizers",
    "/metadata/finalizers/0",
    "/metadata/ownerReferences",
    "/metadata/managedFields",
    "/metadata/managedFields/0",
    "/data",
    "/data/a",
    "/data/-",
    "/spec",
    "/spec/ports",
    "/spec/ports/0",
    "/spec/ports/-",
    "/spec/ports/-1",
    "/spec/set",
    "/spec/replicas",
    "/spec/template/spec/containers",
    "/spec/template/spec/containers/0",
    "/spec/selector",
    "/spec/template/spec/containers/0/env/0/value",
    "/status",
    "/secrets",
];

fn operation(source: &mut Source<'_>) -> Value {
    let mut operation = json!({"op": source.pick(&["add", "remove", "replace", "move", "copy", "test", "x"])});
    operation["path"] = source.pick(&POINTERS).into();
    if source.flag() {
        operation["from"] = source.pick(&POINTERS).into();
    }
    if source.flag() {
        operation["value"] = source.value();
    }
    operation
}

/// Puts a value somewhere.
fn edit(object: &mut Value, source: &mut Source<'_>) {
    let pointer = source.pick(&POINTERS);
    let value = source.value();
    let mut at = &mut *object;
    for step in pointer.split('/').skip(1) {
        if at.get(0).is_some() {
            at = &mut at[0];
        } else {
            if !at.is_object() {
                *at = Value::Object(Map::new());
            }
            at = &mut at[step];
        }
    }
    *at = value;
}

/// The server, and the object of the session.
struct Scene {
    service: InProcess,
    sort: &'static Sort,
}

impl Scene {
    async fn ask(&self, method: Method, path: &str, media: &str, body: Vec<u8>) -> (u16, Value) {
        let request = Request::builder().method(method).uri(path).header("content-type", media);
        let request = request.body(Full::from(body)).expect("a request");
        let Ok(response) = self.service.clone().oneshot(request).await;
        let code = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a whole answer").to_bytes();
        (code, serde_json::from_slice(&body).expect("an answer that is JSON"))
    }

    async fn object(&self) -> Value {
        let (code, object) =
            self.ask(Method::GET, &format!("{}/{}", self.sort.path, self.sort.name), "", Vec::new()).await;
        if code == 404 { Value::Null } else { object }
    }

    async fn write(&self, write: &Write) -> (u16, Value) {
        let sub = if write.status() { "/status" } else { "" };
        let method = if write.verb() == Verb::Replace { Method::PUT } else { Method::PATCH };
        let path = format!("{}/{}{sub}{}", self.sort.path, self.sort.name, write.query());
        self.ask(method, &path, write.media(), write.body.clone()).await
    }
}

async fn play(sort: &'static Sort, writes: &[Write]) {
    let next = AtomicU64::new(1);
    let clock = Arc::new(move || Now {
        time: "2026-01-01T00:00:00Z".to_owned(),
        random: u128::from(next.fetch_add(1, Ordering::Relaxed))
            .wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
    });
    let (server, work) = ApiServer::new(Limits::default(), clock);
    let work = tokio::spawn(work);
    let scene = Scene { service: InProcess::new(Front::new(server, Users::default(), None), User::admin()), sort };
    if sort.kind == "Thing" {
        let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
        let (code, _) = scene.ask(Method::POST, path, "application/json", definition().to_string().into_bytes()).await;
        assert_eq!(code, 201);
    }
    let mut object = (sort.make)();
    object["metadata"]["name"] = sort.name.into();
    (object["apiVersion"], object["kind"]) = (sort.api_version.into(), sort.kind.into());
    let (code, made) = scene.ask(Method::POST, sort.path, "application/json", object.to_string().into_bytes()).await;
    assert_eq!(code, 201, "{made}");
    for write in writes {
        check(&scene, write).await;
    }
    work.abort();
}

async fn check(scene: &Scene, write: &Write) {
    let before = scene.object().await;
    let (code, answer) = scene.write(write).await;
    let after = scene.object().await;
    if code >= 300 {
        assert!((400..=500).contains(&code), "{code} {answer}");
        assert_eq!((&answer["kind"], &answer["status"]), (&json!("Status"), &json!("Failure")));
        assert_eq!(answer["code"], code);
        assert!(answer["message"].as_str().is_some_and(|text| !text.is_empty()), "an error that says nothing");
        assert_eq!(before, after, "refused, and done");
        return;
    }
    assert_eq!(code, if before.is_null() { 201 } else { 200 });
    if after.is_null() {
        // The last finalizer went from what was being deleted.
        assert!(!before["metadata"]["deletionTimestamp"].is_null() || before.is_null(), "an object is lost");
        return;
    }
    assert_eq!(answer, after, "answered otherwise than stored");
    identity(scene.sort, &before, &after);
    let version = |object: &Value| object["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok());
    let (old, new) = (version(&before), version(&after));
    assert!(new.is_some() && new >= old, "versions go on");
    assert_eq!(new == old, before == after, "a version for each state: {before} {after}");
    managed(&after);

    // What is said again changes nothing, if it says nothing of the version that it is about.
    let again = matches!(write.verb(), Verb::Merge | Verb::Apply);
    if again && !contains(&write.body, b"resourceVersion") && !contains(&write.body, b"managedFields") {
        let (code, mut answer) = scene.write(write).await;
        let mut known = after.clone();
        // The real server leaves a null where an apply takes away all that a map held, and the next apply puts the empty
        // map in its place (tried on 1.36.3). Then it rests.
        if write.verb() == Verb::Apply && code == 200 && answer != known {
            known = answer;
            (_, answer) = scene.write(write).await;
        }
        assert_eq!((code, &answer), (200, &known), "said again: {before}");
    }
    if write.verb() == Verb::Merge && scene.sort.kind == "Thing" && !write.status() {
        merged_as_told(&before, &write.body, &after);
    }
}

fn contains(text: &[u8], word: &[u8]) -> bool {
    text.windows(word.len()).any(|window| window == word)
}

/// What a write has no say in.
fn identity(sort: &Sort, before: &Value, after: &Value) {
    assert_eq!((&after["apiVersion"], &after["kind"]), (&json!(sort.api_version), &json!(sort.kind)));
    assert_eq!(after["metadata"]["name"], sort.name);
    if before.is_null() {
        return;
    }
    for field in ["uid", "namespace", "creationTimestamp", "deletionTimestamp"] {
        assert_eq!(after["metadata"][field], before["metadata"][field], "metadata.{field}");
    }
}

/// Each entry says who, how and what; no two are the same manager's.
fn managed(object: &Value) {
    let none = Vec::new();
    let entries = object["metadata"]["managedFields"].as_array().unwrap_or(&none);
    let mut known = Vec::new();
    for entry in entries {
        let id = ["manager", "operation", "apiVersion", "subresource"].map(|field| &entry[field]);
        assert!(!known.contains(&id), "two entries of {id:?}");
        known.push(id);
        assert!(matches!(entry["operation"].as_str(), Some("Apply" | "Update")) && entry["fieldsV1"].is_object());
    }
}

/// A kind that keeps unknown fields keeps what the patch makes of them.
fn merged_as_told(before: &Value, patch: &[u8], after: &Value) {
    let Ok(text) = std::str::from_utf8(patch) else { return };
    let Ok(patch) = serde_json::from_str::<Value>(text) else { return };
    if says_twice(text) {
        return;
    }
    let expected = merge_patch(before.clone(), &patch);
    for (name, value) in expected["spec"].as_object().into_iter().flatten() {
        if !["ports", "set", "whole", "either"].contains(&name.as_str()) {
            // Go writes 1.0 as 1.
            assert!(same(&after["spec"][name], value), "spec.{name} is {} and not {value}", after["spec"][name]);
        }
    }
}
