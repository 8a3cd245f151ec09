//! The subresource as a client sees it, with the answers of kube-apiserver v1.36.3.

use ::http::Method;
use serde_json::{Value, json};

use crate::store::Limits;
use crate::tests::{THINGS, front, get, post, send, with_things};

const DEPLOYMENTS: &str = "/apis/apps/v1/namespaces/default/deployments";
const MERGE: &str = "application/merge-patch+json";
const JSON: &str = "application/json";

fn scale(name: &str, replicas: i64) -> Value {
    json!({ "apiVersion": "autoscaling/v1", "kind": "Scale", "metadata": { "name": name },
            "spec": { "replicas": replicas } })
}

fn message(answer: &(u16, Value)) -> (u16, &str) {
    (answer.0, answer.1["message"].as_str().unwrap_or_default())
}

#[tokio::test]
async fn deployments_are_scaled() {
    let front = front(Limits::default());
    let deployment = json!({ "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": "d" }, "spec": {
        "selector": { "matchLabels": { "b": "1", "a": "2" }, "matchExpressions": [
            { "key": "k", "operator": "In", "values": ["z", "y"] }, { "key": "f", "operator": "DoesNotExist" }] },
        "template": { "metadata": { "labels": { "a": "2", "b": "1", "k": "y" } },
            "spec": { "containers": [{ "name": "c", "image": "i" }] } } } });
    assert_eq!(post(&front, DEPLOYMENTS, deployment).await.0, 201);
    let path = format!("{DEPLOYMENTS}/d/scale");
    let (code, shown) = get(&front, &path).await;
    assert_eq!((code, &shown["kind"], &shown["spec"]), (200, &json!("Scale"), &json!({ "replicas": 1 })));
    assert_eq!(shown["status"], json!({ "replicas": 0, "selector": "a=2,b=1,!f,k in (y,z)" }));

    let (code, scaled) = send(&front, Method::PUT, &path, JSON, scale("d", 3)).await;
    assert_eq!((code, &scaled["spec"]["replicas"]), (200, &json!(3)));
    let (_, deployment) = get(&front, &format!("{DEPLOYMENTS}/d")).await;
    assert_eq!((&deployment["spec"]["replicas"], &deployment["metadata"]["generation"]), (&json!(3), &json!(2)));
    let (code, scaled) = send(&front, Method::PATCH, &path, MERGE, json!({ "spec": { "replicas": null } })).await;
    assert_eq!((code, &scaled["spec"]), (200, &json!({})));

    let put = async |body: Value| send(&front, Method::PUT, &path, JSON, body).await;
    let mut nameless = scale("d", 3);
    nameless["metadata"] = json!({});
    assert_eq!(
        message(&put(nameless).await),
        (400, "the name of the object (d based on URL) was undeterminable: name must be provided")
    );
    assert_eq!(
        message(&put(scale("e", 3)).await),
        (400, "the name of the object (e) does not match the name on the URL (d)")
    );
    assert_eq!(
        message(&put(scale("d", -1)).await),
        (
            422,
            "Scale.autoscaling \"d\" is invalid: spec.replicas: Invalid value: -1: must be greater than or equal to 0"
        )
    );
    let pod = json!({ "apiVersion": "v1", "kind": "Pod", "metadata": { "name": "d" } });
    assert_eq!(
        message(&put(pod).await),
        (
            400,
            "Pod in version \"v1\" cannot be handled as a Scale: converting (v1.Pod) to (autoscaling.Scale): unknown conversion"
        )
    );
    let mut old = scale("d", 4);
    old["metadata"]["resourceVersion"] = "1".into();
    assert_eq!(put(old).await.0, 409);
    let mut other = scale("d", 4);
    other["metadata"]["uid"] = "11111111-1111-4111-8111-111111111111".into();
    let refused = send(&front, Method::PATCH, &path, MERGE, other).await;
    assert_eq!((refused.0, &refused.1["details"]["kind"]), (409, &json!("deployments/scale")));
    for method in [Method::DELETE, Method::POST] {
        assert_eq!(send(&front, method, &path, JSON, scale("d", 1)).await.0, 405);
    }
    assert_eq!(get(&front, &format!("{DEPLOYMENTS}/d")).await.0, 200, "a DELETE of a part must not delete the whole");
    assert_eq!(get(&front, "/apis/apps/v1/namespaces/default/daemonsets/d/scale").await.0, 404);
    assert_eq!(get(&front, "/api/v1/namespaces/default/pods/d/log").await.0, 501);
}

#[tokio::test]
async fn custom_resources_are_scaled_by_their_definition_s_paths() {
    let front = with_things(Limits::default()).await;
    let path = format!("{THINGS}/a/scale");
    let thing = json!({ "apiVersion": "x.y/v1", "kind": "Thing", "metadata": { "name": "a" }, "spec": { "size": 1 } });
    assert_eq!(post(&front, THINGS, thing).await.0, 201);
    assert_eq!(message(&get(&front, &path).await), (404, "things.x.y \"a\" not found"), "it has no scale yet");

    let crd = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.x.y";
    let scaled = json!([
        { "op": "add", "path": "/spec/versions/0/subresources/scale", "value": { "specReplicasPath": ".spec.parts.count",
            "statusReplicasPath": ".status.count", "labelSelectorPath": ".status.selector" } },
        { "op": "add", "path": "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/parts",
          "value": { "type": "object", "properties": { "count": { "type": "integer" } } } },
    ]);
    let (code, _) = send(&front, Method::PATCH, crd, "application/json-patch+json", scaled).await;
    assert_eq!(code, 200);
    assert_eq!(
        message(&get(&front, &path).await),
        (500, "Internal error occurred: the spec replicas field \".spec.parts.count\" does not exist")
    );
    let empty = send(&front, Method::PATCH, &path, MERGE, json!({})).await;
    assert_eq!(message(&empty), (400, "the spec replicas field \".spec.parts.count\" cannot be empty"));
    let (code, scaled) = send(&front, Method::PUT, &path, JSON, scale("a", 3)).await;
    assert_eq!((code, &scaled["spec"], &scaled["status"]), (200, &json!({ "replicas": 3 }), &json!({ "replicas": 0 })));
    let status = json!({ "status": { "count": 2, "selector": "a=b" } });
    assert_eq!(send(&front, Method::PATCH, &format!("{THINGS}/a/status"), MERGE, status).await.0, 200);
    let (_, shown) = get(&front, &path).await;
    assert_eq!(shown["status"], json!({ "replicas": 2, "selector": "a=b" }));

    let less = json!({ "spec": { "replicas": -1 } });
    let why = "Thing.x.y \"a\" is invalid: .spec.parts.count: Invalid value: -1: should be a non-negative integer";
    assert_eq!(message(&send(&front, Method::PATCH, &path, MERGE, less).await), (422, why));
    let status = json!({ "status": { "count": "two" } });
    let refused = send(&front, Method::PATCH, &format!("{THINGS}/a/status"), MERGE, status).await;
    assert_eq!(
        message(&refused),
        (
            422,
            "Thing.x.y \"a\" is invalid: .status.count: Invalid value: 0: .status.count accessor error: two is of the type string, expected int64"
        )
    );
    let strategic = "application/strategic-merge-patch+json";
    assert_eq!(send(&front, Method::PATCH, &path, strategic, json!({})).await.0, 415);
    let deleted = send(&front, Method::DELETE, &path, "", Value::Null).await;
    assert_eq!(message(&deleted), (405, "delete is not supported on resources of kind \"things.x.y\""));
}
