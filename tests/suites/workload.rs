//! The Website workload as values: a parent with a ConfigMap, a headless Service and a Deployment of no replicas.
//!
//! Never more than a hook needs: the shipped example is tested on its own.

use serde_json::{Value, json};

/// A Website as a user writes it.
pub(crate) fn website(name: &str, title: &str) -> Value {
    json!({ "metadata": { "name": name }, "spec": { "title": title } })
}

/// A CompositeController's spec: parents of an `apiVersion`, a hook at `url`.
pub(crate) fn controller(parents: &str, url: &str) -> Value {
    let child = |version: &str, plural: &str| json!({ "apiVersion": version, "resource": plural, "updateStrategy": { "method": "InPlace" } });
    json!({
        "generateSelector": true,
        "parentResource": { "apiVersion": parents, "resource": "websites" },
        "childResources": [child("v1", "configmaps"), child("v1", "services"), child("apps/v1", "deployments")],
        "hooks": { "sync": { "webhook": { "url": url } } },
    })
}

/// What the hook answers: three children, and Ready once all three are observed.
pub(crate) fn answer(request: &Value) -> Value {
    let parent = &request["parent"];
    let (name, title) = (&parent["metadata"]["name"], &parent["spec"]["title"]);
    let observed = request["children"].as_object().into_iter().flat_map(|kinds| kinds.values());
    let observed: usize = observed.filter_map(Value::as_object).map(serde_json::Map::len).sum();
    let labels = json!({ "app": name });
    json!({
        "status": { "phase": if observed == 3 { "Ready" } else { "Pending" }, "title": title },
        "children": [
            { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": labels },
              "data": { "title": title } },
            { "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "labels": labels },
              "spec": { "clusterIP": "None", "selector": labels, "ports": [{ "name": "http", "port": 80 }] } },
            { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "labels": labels },
              "spec": { "replicas": 0, "selector": { "matchLabels": labels }, "template": {
                  "metadata": { "labels": labels },
                  "spec": { "containers": [{ "name": "web", "image": "nginx", "ports": [{ "containerPort": 80 }] }] } } } },
        ],
    })
}
