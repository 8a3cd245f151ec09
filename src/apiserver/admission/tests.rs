//! A server and a webhook over TLS on loopback: what is asked, and what comes of the answers.

use std::sync::Arc;

use ::http::{Method, Request};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::response::IntoResponse;
use axum::routing::post as on_post;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::http::Front;
use crate::store::Limits;
use crate::tests::{THINGS, get, post, send, thing, with_things};
use crate::tls::{Certificate, TlsListener};

const CONFIGURATIONS: &str = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";

/// A webhook, and what it was asked.
struct Webhook {
    url: String,
    bundle: String,
    seen: Arc<Mutex<Vec<Value>>>,
    _serving: AbortOnDropHandle<()>,
}

#[derive(Clone)]
struct Answers {
    seen: Arc<Mutex<Vec<Value>>>,
    response: Value,
}

async fn answer(State(answers): State<Answers>, body: Bytes) -> impl IntoResponse {
    let asked: Value = serde_json::from_slice(&body).unwrap();
    let mut response = answers.response.clone();
    if response["uid"].is_null() {
        response["uid"] = asked["request"]["uid"].clone();
    }
    answers.seen.lock().push(asked);
    json!({ "apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response }).to_string()
}

impl Webhook {
    async fn start(response: Value) -> Self {
        let certificate = Certificate::for_loopback("webhook").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("https://{}/see", listener.local_addr().unwrap());
        let listener = TlsListener::new(listener, &certificate).unwrap();
        let seen = Arc::default();
        let answers = Answers { seen: Arc::clone(&seen), response };
        let app = Router::new().route("/see", on_post(answer)).with_state(answers);
        let serving = tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        let bundle = STANDARD.encode(certificate.authority);
        Self { url, bundle, seen, _serving: AbortOnDropHandle::new(serving) }
    }

    async fn patching(patch: Value) -> Self {
        let patch = STANDARD.encode(patch.to_string());
        let response = json!({ "allowed": true, "patchType": "JSONPatch", "patch": patch, "warnings": ["seen"] });
        Self::start(response).await
    }

    fn asked(&self) -> Vec<Value> {
        self.seen.lock().iter().map(|review| review["request"].clone()).collect()
    }

    fn entry(&self) -> Value {
        json!({
            "name": "a.b.c", "sideEffects": "None", "admissionReviewVersions": ["v1"], "timeoutSeconds": 5,
            "clientConfig": { "url": self.url, "caBundle": self.bundle },
            "rules": [{ "operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*"] }],
        })
    }
}

async fn configure(front: &Front, name: &str, webhook: Value) {
    let body = json!({ "metadata": { "name": name }, "webhooks": [webhook] });
    let (code, made) = post(front, CONFIGURATIONS, body).await;
    assert_eq!(code, 201, "{made}");
}

#[tokio::test]
async fn a_webhook_sees_an_object_before_it_is_made_and_changes_it() {
    let front = with_things(Limits::default()).await;
    let patch = json!([{ "op": "add", "path": "/metadata/labels", "value": { "seen": "yes" } },
        { "op": "add", "path": "/spec/unknown", "value": 1 }]);
    let webhook = Webhook::patching(patch).await;
    configure(&front, "b", webhook.entry()).await;
    let second = Webhook::start(json!({ "allowed": true })).await;
    configure(&front, "a", second.entry()).await;
    assert!(webhook.asked().is_empty(), "configurations aren't shown");

    let request = Request::builder().method(Method::POST).uri(format!("{THINGS}?fieldManager=me"));
    let request = request.header("content-type", "application/json").body(Body::from(thing("one", 1).to_string()));
    let response = front.answer(request.unwrap()).await;
    assert_eq!(response.status(), 201);
    let warnings: Vec<_> = response.headers().get_all("warning").iter().map(|text| text.to_str().unwrap()).collect();
    assert_eq!(warnings, ["299 - \"unknown field \\\"spec.odd\\\"\"", "299 - \"seen\""]);
    let (_, made) = get(&front, &format!("{THINGS}/one")).await;
    assert_eq!(
        (&made["metadata"]["labels"], &made["spec"]),
        (&json!({ "seen": "yes" }), &json!({ "color": "red", "size": 1 }))
    );
    let managed = &made["metadata"]["managedFields"];
    assert_eq!((managed[0]["manager"].as_str(), managed.as_array().map(Vec::len)), (Some("me"), Some(1)));
    assert!(managed[0]["fieldsV1"]["f:metadata"].is_null(), "what a webhook sets is nobody's: {managed}");

    let asked = webhook.asked().remove(0);
    assert_eq!(
        (&asked["name"], &asked["namespace"], &asked["operation"]),
        (&json!("one"), &json!("default"), &json!("CREATE"))
    );
    assert_eq!(asked["kind"], json!({ "group": "x.y", "version": "v1", "kind": "Thing" }));
    assert_eq!(asked["resource"], json!({ "group": "x.y", "version": "v1", "resource": "things" }));
    assert_eq!((&asked["dryRun"], &asked["options"]["fieldManager"]), (&json!(false), &json!("me")));
    let object = &asked["object"];
    assert_eq!(object["spec"], json!({ "color": "red", "size": 1 }));
    assert!(object["metadata"]["uid"].is_null() && object["metadata"]["creationTimestamp"].is_null(), "{object}");
    assert_eq!(object["metadata"]["managedFields"], *managed);
    let before = second.asked().remove(0);
    assert_eq!(before["object"]["metadata"]["labels"], Value::Null, "by the names of configurations: {before}");

    let (code, unnamed) = post(&front, THINGS, {
        let mut body = thing("", 1);
        body["metadata"] = json!({ "generateName": "g-" });
        body
    })
    .await;
    assert_eq!((code, &unnamed["metadata"]["labels"]["seen"]), (201, &json!("yes")));
    let asked = webhook.asked().remove(1);
    assert_eq!((&asked["name"], &asked["object"]["metadata"]["name"]), (&Value::Null, &Value::Null));

    let path = format!("{THINGS}/applied?fieldManager=me");
    let (code, applied) = send(
        &front,
        Method::PATCH,
        &path,
        "application/apply-patch+yaml",
        json!({
        "apiVersion": "x.y/v1", "kind": "Thing", "metadata": { "name": "applied" }, "spec": { "size": 2 } }),
    )
    .await;
    assert_eq!((code, &applied["metadata"]["labels"]["seen"]), (201, &json!("yes")), "{applied}");
    assert_eq!(applied["metadata"]["managedFields"][0]["operation"], "Apply");
    let merge = json!({ "spec": { "size": 3 } });
    let (code, _) = send(&front, Method::PATCH, &path, "application/merge-patch+json", merge).await;
    assert_eq!((code, webhook.asked().len()), (200, 3), "updates aren't shown");

    let (_, made) = post(&front, "/api/v1/namespaces", json!({ "metadata": { "name": "n" } })).await;
    assert_eq!(made["metadata"]["labels"], json!({ "seen": "yes" , "kubernetes.io/metadata.name": "n" }));
    for name in ["a", "b"] {
        send(&front, Method::DELETE, &format!("{CONFIGURATIONS}/{name}"), "", Value::Null).await;
    }
    let (_, alone) = post(&front, THINGS, thing("alone", 1)).await;
    assert_eq!((&alone["metadata"]["labels"], webhook.asked().len()), (&Value::Null, 4));
}

#[tokio::test]
async fn denials_are_told_in_the_webhooks_words_and_nothing_is_made() {
    let front = with_things(Limits::default()).await;
    let denying = json!({ "allowed": false, "status": { "code": 403, "reason": "Forbidden", "message": "not today" } });
    let webhook = Webhook::start(denying).await;
    configure(&front, "a", webhook.entry()).await;
    let (code, refused) = post(&front, THINGS, thing("one", 1)).await;
    assert_eq!((code, &refused["reason"]), (403, &json!("Forbidden")));
    assert_eq!(refused["message"], "admission webhook \"a.b.c\" denied the request: not today");
    assert_eq!(get(&front, &format!("{THINGS}/one")).await.0, 404);
    let (code, _) = post(&front, "/apis/x.y/v1/namespaces/nowhere/things", thing("one", 1)).await;
    assert_eq!((code, webhook.asked().len()), (404, 1), "there must be room first");
}

#[tokio::test]
async fn the_failure_policy_says_what_becomes_of_an_object_without_a_verdict() {
    let wrong = Webhook::start(json!({ "uid": "other", "allowed": true })).await;
    let undecodable = Webhook::patching(json!({ "not": "a list" })).await;
    let unreachable = {
        let mut entry = wrong.entry();
        entry["clientConfig"]["url"] = "https://127.0.0.1:1/".into();
        entry
    };
    let stranger = {
        let mut entry = wrong.entry();
        entry["clientConfig"]["caBundle"] = STANDARD.encode(Certificate::for_loopback("x").unwrap().authority).into();
        entry
    };
    let service = {
        let mut entry = wrong.entry();
        entry["clientConfig"] = json!({ "service": { "namespace": "n", "name": "s" } });
        entry
    };
    let conditional = {
        let mut entry = wrong.entry();
        entry["matchConditions"] = json!([{ "name": "c", "expression": "true" }]);
        entry
    };
    let rows = [
        (wrong.entry(), "received invalid webhook response: expected response.uid="),
        (undecodable.entry(), "received undecodable patch in webhook response: "),
        (unreachable, "failed to call webhook: Post \"https://127.0.0.1:1/?timeout=5s\": "),
        (stranger, "failed to call webhook: Post "),
        (service, "the embedded API server reaches no Services"),
        (conditional, "the embedded API server doesn't evaluate matchConditions"),
    ];
    for (mut entry, why) in rows {
        let front = with_things(Limits::default()).await;
        configure(&front, "fail", entry.clone()).await;
        let (code, refused) = post(&front, THINGS, thing("one", 1)).await;
        assert_eq!((code, &refused["reason"]), (500, &json!("InternalError")), "{refused}");
        let message = refused["message"].as_str().unwrap();
        let wanted = format!("Internal error occurred: failed calling webhook \"a.b.c\": {why}");
        assert!(message.starts_with(&wanted), "{message}");
        send(&front, Method::DELETE, &format!("{CONFIGURATIONS}/fail"), "", Value::Null).await;
        entry["failurePolicy"] = "Ignore".into();
        configure(&front, "ignore", entry).await;
        let (code, made) = post(&front, THINGS, thing("one", 1)).await;
        assert_eq!(code, 201, "{made}");
    }
}

#[tokio::test]
async fn a_configuration_is_served_as_other_kinds_are() {
    let front = with_things(Limits::default()).await;
    let webhook = Webhook::start(json!({ "allowed": true })).await;
    let path = format!("{CONFIGURATIONS}/a?fieldManager=me");
    let body = json!({ "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
        "metadata": { "name": "a" }, "webhooks": [webhook.entry()] });
    let apply = "application/apply-patch+yaml";
    let (code, made) = send(&front, Method::PATCH, &path, apply, body.clone()).await;
    assert_eq!((code, &made["metadata"]["generation"]), (201, &json!(1)), "{made}");
    let (code, same) = send(&front, Method::PATCH, &path, apply, body).await;
    assert_eq!((code, &same["metadata"]["resourceVersion"]), (200, &made["metadata"]["resourceVersion"]));
    let strategic = json!({ "webhooks": [{ "name": "a.b.c", "timeoutSeconds": 7 }] });
    let (code, changed) = send(&front, Method::PATCH, &path, "application/strategic-merge-patch+json", strategic).await;
    assert_eq!((code, &changed["metadata"]["generation"]), (200, &json!(2)), "{changed}");
    assert_eq!(
        (&changed["webhooks"][0]["timeoutSeconds"], &changed["webhooks"][0]["sideEffects"]),
        (&json!(7), &json!("None"))
    );
    let mut wrong = changed.clone();
    wrong["webhooks"][0]["timeoutSeconds"] = 31.into();
    let (code, refused) = send(&front, Method::PUT, &path, "application/json", wrong).await;
    assert_eq!((code, &refused["reason"]), (422, &json!("Invalid")), "{refused}");
    let (_, listed) = get(&front, CONFIGURATIONS).await;
    assert_eq!(
        (&listed["kind"], listed["items"].as_array().map(Vec::len)),
        (&json!("MutatingWebhookConfigurationList"), Some(1))
    );
    let (_, discovered) = get(&front, "/apis/admissionregistration.k8s.io/v1").await;
    assert_eq!(discovered["resources"][0]["categories"], json!(["api-extensions"]), "{discovered}");
    assert_eq!(get(&front, "/openapi/v3/apis/admissionregistration.k8s.io/v1").await.0, 200);
}
