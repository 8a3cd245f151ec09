//! Compares the answers with those of kube-apiserver v1.36.3 in `golden.json`.

use std::sync::Arc;

use ringmaster_core::key::{ApiVersion, Resource};

use super::*;
use crate::registry::{Source, of_crd};
use crate::scale::ScalePaths;
use crate::store::kind_key;

fn golden() -> Value {
    serde_json::from_str(include_str!("golden.json")).unwrap()
}

fn built_in(api_version: &str, plural: &str, kind: &str, short: &[&str], status: bool) -> Definition {
    let version = ApiVersion::new(api_version);
    let all = short.is_empty() || matches!(plural, "leases" | "namespaces");
    Definition {
        key: kind_key(&version, plural),
        resource: Arc::new(Resource {
            api_version: version,
            plural: plural.into(),
            kind: kind.into(),
            namespaced: plural != "namespaces",
            status,
        }),
        singular: kind.to_lowercase(),
        list_kind: format!("{kind}List"),
        short_names: short.iter().map(|name| (*name).to_owned()).collect(),
        categories: if all { Vec::new() } else { vec!["all".to_owned()] },
        generation: true,
        source: Source::BuiltIn(crate::kinds::find("", "v1", "configmaps").unwrap()),
        scale: matches!(plural, "deployments" | "replicasets" | "statefulsets").then(ScalePaths::built_in),
        selectable: Vec::new(),
    }
}

fn registry(golden: &Value) -> Registry {
    let mut registry = Registry::default();
    for crd in golden["crds"].as_array().unwrap() {
        for definition in of_crd(crd, 0) {
            registry.insert(definition);
        }
    }
    registry.insert(built_in("v1", "namespaces", "Namespace", &["ns"], true));
    registry.insert(built_in("coordination.k8s.io/v1", "leases", "Lease", &[], false));
    registry.insert(built_in("batch/v1", "jobs", "Job", &[], true));
    registry.insert(built_in("apps/v1", "controllerrevisions", "ControllerRevision", &[], false));
    registry.insert(built_in("apps/v1", "daemonsets", "DaemonSet", &["ds"], true));
    registry.insert(built_in("apps/v1", "deployments", "Deployment", &["deploy"], true));
    registry.insert(built_in("apps/v1", "replicasets", "ReplicaSet", &["rs"], true));
    registry.insert(built_in("apps/v1", "statefulsets", "StatefulSet", &["sts"], true));
    registry
}

fn ask(path: &str, accept: &str) -> Option<Result<Answer, Error>> {
    let golden = golden();
    let crds = |group: &str, version: &str, plural: &str| -> Option<Value> {
        let crd = golden["crds"]
            .as_array()?
            .iter()
            .find(|crd| crd["spec"]["group"] == group && crd["spec"]["names"]["plural"] == plural)?;
        crd["spec"]["versions"].as_array()?.iter().find(|entry| entry["name"] == version).cloned()
    };
    answer(path, accept, &registry(&golden), &crds)
}

fn json_at(path: &str, accept: &str) -> Value {
    let answer = ask(path, accept).unwrap().unwrap();
    assert_eq!(answer.code, 200, "{path}");
    serde_json::from_slice(&answer.body).unwrap()
}

/// The order of kinds of one CRD group isn't fixed at the real server; hashes of storage versions aren't served here.
fn plain(mut list: Value) -> Value {
    let resources = list["resources"].as_array_mut().unwrap();
    for entry in resources.iter_mut() {
        entry.as_object_mut().unwrap().remove("storageVersionHash");
    }
    resources.sort_by_key(|entry| entry["name"].as_str().unwrap().split('/').next().unwrap().to_owned());
    list
}

#[test]
fn lists_of_kinds_are_the_real_server_s() {
    let golden = golden();
    assert_eq!(json_at("/apis/shop.example.com", ""), golden["group"]);
    assert_eq!(plain(json_at("/apis/shop.example.com/v1", "")), plain(golden["resources"].clone()));
    assert_eq!(json_at("/apis/apps/v1", JSON), plain(golden["apps"].clone()));
    assert_eq!(json_at("/apis/apps/v1/", "*/*"), plain(golden["apps"].clone()));
    let core = json_at("/api/v1", "");
    assert_eq!(core.get("apiVersion"), None);
    assert_eq!(core["resources"][0]["verbs"], json!(["create", "delete", "get", "list", "patch", "update", "watch"]));
    assert_eq!(core["resources"][1]["name"], "namespaces/finalize");
}

#[test]
fn groups_come_in_the_real_server_s_order() {
    let names: Vec<String> = json_at("/apis", "")["groups"]
        .as_array()
        .unwrap()
        .iter()
        .map(|group| group["name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["apps", "batch", "coordination.k8s.io", "shop.example.com"]);
    let real = golden()["groups"].clone();
    assert_eq!(real.as_array().unwrap()[..GROUP_ORDER.len()], GROUP_ORDER.map(Value::from));
}

#[test]
fn aggregated_discovery_is_the_real_server_s() {
    let kubectl = format!("{AGGREGATED},application/json;g=apidiscovery.k8s.io;v=v2beta1,application/json");
    let golden = golden();
    let items = json_at("/apis", &kubectl)["items"].clone();
    for name in ["apps", "shop.example.com"] {
        let own = items.as_array().unwrap().iter().find(|item| item["metadata"]["name"] == name).unwrap();
        assert_eq!(*own, golden["aggregated"][name], "{name}");
    }
    let core = json_at("/api", &kubectl);
    assert_eq!(core["items"][0]["metadata"], json!({}));
    assert_eq!(core["items"][0]["versions"][0]["resources"][0]["subresources"][0]["subresource"], "finalize");
    assert_eq!(ask("/apis", &kubectl).unwrap().unwrap().content_type, AGGREGATED);
}

/// The document with the operations' parameters as their names.
fn named(mut document: Value) -> Value {
    let names = |list: &Value| -> Value {
        list.as_array().unwrap().iter().map(|parameter| parameter["name"].clone()).collect()
    };
    for item in document["paths"].as_object_mut().unwrap().values_mut() {
        for (action, operation) in item.as_object_mut().unwrap() {
            if action == "parameters" {
                *operation = names(operation);
            } else if let Some(list) = operation.get_mut("parameters") {
                *list = names(list);
            }
        }
    }
    document
}

#[test]
fn openapi_of_crds_is_the_real_server_s() {
    let golden = golden();
    let own = named(json_at("/openapi/v3/apis/shop.example.com/v1", JSON));
    let real = &golden["openapi"];
    assert_eq!((&own["openapi"], &own["info"]), (&real["openapi"], &real["info"]));
    let keys = |value: &Value| -> Vec<String> { value.as_object().unwrap().keys().cloned().collect() };
    assert_eq!(keys(&own["paths"]), keys(&real["paths"]));
    for (path, item) in real["paths"].as_object().unwrap() {
        for (action, operation) in item.as_object().unwrap() {
            assert_eq!(own["paths"][path][action], *operation, "{path} {action}");
        }
    }
    let check = |own: &Value, real: &Value| {
        let schemas = own["components"]["schemas"].as_object().unwrap();
        for (name, schema) in real["schemas"].as_object().unwrap() {
            assert_eq!(schemas[name], *schema, "{name}");
        }
        let shared: Vec<&String> = schemas.keys().filter(|name| name.starts_with("io.k8s.")).collect();
        assert_eq!(json!(shared), real["shared"]);
    };
    check(&own, real);
    let alpha = json_at("/openapi/v3/apis/shop.example.com/v1alpha1", JSON);
    check(&alpha, &golden["alpha"]);
    assert_eq!(json!(keys(&alpha["paths"])), golden["alpha"]["paths"]);
}

#[test]
fn references_resolve_and_the_index_has_the_hash() {
    fn references(value: &Value, found: &mut Vec<String>) {
        match value {
            Value::Object(map) => {
                found.extend(map.get("$ref").and_then(Value::as_str).map(str::to_owned));
                map.values().for_each(|child| references(child, found));
            }
            Value::Array(list) => list.iter().for_each(|child| references(child, found)),
            _ => {}
        }
    }
    let path = "/openapi/v3/apis/shop.example.com/v1alpha1";
    let document = json_at(path, "");
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(!found.is_empty());
    for reference in found {
        assert!(document.pointer(reference.trim_start_matches('#')).is_some(), "{reference}");
    }
    let url = json_at("/openapi/v3", "")["paths"]["apis/shop.example.com/v1alpha1"]["serverRelativeURL"].clone();
    assert_eq!(url, format!("{path}?hash={}", ask(path, "").unwrap().unwrap().hash));
}

#[test]
fn other_answers() {
    let version = json_at("/version", "text/plain");
    assert_eq!(version["gitVersion"], golden()["version"]["gitVersion"]);
    let fields = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(fields(&version), fields(&golden()["version"]));
    assert_eq!(&*ask("/readyz", "text/plain").unwrap().unwrap().body, b"ok");
    for path in ["/apis/nope", "/apis/nope/v1", "/apis/shop.example.com/v9", "/openapi/v3/apis/nope/v1"] {
        assert_eq!(ask(path, "").unwrap().unwrap().code, 404, "{path}");
    }
    for (path, accept, code) in [
        ("/apis/apps/v9", "", 404),
        ("/api/v2", "", 404),
        ("/openapi/v2", "", 501),
        ("/apis", "text/plain", 406),
        ("/apis", "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList", 406),
        ("/openapi/v3/apis/shop.example.com/v1", "application/com.github.proto-openapi.spec.v3.v1.0+protobuf", 406),
    ] {
        assert_eq!(ask(path, accept).unwrap().unwrap_err().code, code, "{path}");
    }
    assert_eq!(ask("/healthz/", ""), None);
    assert_eq!(ask("/api/v1/pods", ""), None);
    assert!(json_at("/", "")["paths"].as_array().unwrap().contains(&json!("/apis/apps/v1")));
}

#[test]
fn versions_are_ordered_as_kubernetes_orders_them() {
    // The example of the Kubernetes documentation of CRD versions.
    let sorted = ["v10", "v2", "v1", "v11beta2", "v10beta3", "v3beta1", "v12alpha1", "v11alpha2", "foo1", "foo10"];
    let mut shuffled = sorted;
    shuffled.reverse();
    shuffled.sort_by(|a, b| compare_versions(a, b));
    assert_eq!(shuffled, sorted);
}
