//! What the real server does to objects between defaults and checks: first status, what an update can't change, the
//! generation, and the admission plugins that are on by default (pkg/registry/*/strategy.go, plugin/pkg/admission).
//!
//! Both objects have their defaults.

use std::cmp::Ordering;

use serde_json::{Value, json};

use super::defaults::{self, at, default, remove};
use super::quantity::Quantity;
use super::{Kind, Part, shape};

/// Holds the generation of a daemon set's template (apps.DeprecatedTemplateGeneration).
pub(super) const TEMPLATE_GENERATION: &str = "deprecated.daemonset.template.generation";

/// A new object.
pub(super) fn create(kind: &Kind, object: &mut Value, now: &str) {
    if kind.has("status") {
        object["status"] = shape::zero_field(&kind.go_type, "status");
        if object["status"].is_null() {
            remove(object, "status");
        }
    }
    if kind.generation {
        at(object, &["metadata"])["generation"] = 1.into();
    }
    drop_disabled(kind, object);
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "namespaces") => namespace(object),
        ("", "pods") => pod(object, now),
        ("", "persistentvolumeclaims") => {
            // The admission plugin StorageObjectInUseProtection.
            add_once(at(object, &["metadata"]), "finalizers", "kubernetes.io/pvc-protection");
        }
        ("apps", "daemonsets") => {
            let generation = template_generation(object).max(1);
            set_template_generation(object, generation);
        }
        ("batch", "jobs") => job_selector(object),
        ("discovery.k8s.io", "endpointslices") => {
            for endpoint in defaults::items(&mut object["endpoints"]) {
                remove(endpoint, "deprecatedTopology");
            }
        }
        _ => {}
    }
    // As when it is read from the store.
    defaults::apply(kind, object);
}

/// An update.
pub(super) fn update(kind: &Kind, object: &mut Value, old: &Value, part: Part) {
    if part == Part::Status {
        keep(object, old, "spec");
        update_status(kind, object, old);
    } else {
        drop_disabled(kind, object);
        if kind.has("status") && kind.plural != "services" {
            keep(object, old, "status");
        }
        match (kind.group.as_str(), kind.plural.as_str()) {
            ("", "namespaces") if part == Part::Main => {
                let finalizers = old["spec"]["finalizers"].clone();
                set(at(object, &["spec"]), "finalizers", finalizers);
            }
            ("", "pods") => {
                // The admission plugins Priority and DefaultTolerationSeconds.
                for name in ["priority", "preemptionPolicy"] {
                    let value = old["spec"][name].clone();
                    default(at(object, &["spec"]), name, value);
                }
                drop_nulls(at(object, &["spec"]));
                tolerations(at(object, &["spec"]));
            }
            ("apps", "daemonsets") => {
                let generation = template_generation(old);
                let changed = object["spec"]["template"] != old["spec"]["template"];
                set_template_generation(object, generation + i64::from(changed));
            }
            ("apiextensions.k8s.io", "customresourcedefinitions") => stored_versions(object),
            _ => {}
        }
    }
    // As when it is read from the store; but the status of a service is checked before.
    if part == Part::Main || kind.plural != "services" {
        defaults::apply(kind, object);
    }
    if kind.generation {
        let generation = old["metadata"]["generation"].as_i64().unwrap_or_default();
        let changed = part == Part::Main && wanted_changed(kind, object, old);
        at(object, &["metadata"])["generation"] = (generation + i64::from(changed)).into();
    }
}

/// Drops fields the feature gates of which are off (MaxUnavailableStatefulSet, CoordinatedLeaderElection).
fn drop_disabled(kind: &Kind, object: &mut Value) {
    let (path, fields): (&[&str], &[&str]) = match (kind.group.as_str(), kind.plural.as_str()) {
        ("apps", "statefulsets") => (&["updateStrategy", "rollingUpdate"], &["maxUnavailable"]),
        ("coordination.k8s.io", "leases") => (&[], &["strategy", "preferredHolder"]),
        _ => return,
    };
    let mut place = object.get_mut("spec");
    for name in path {
        place = place.and_then(|place| place.get_mut(*name));
    }
    if let Some(place) = place {
        for field in fields {
            remove(place, field);
        }
    }
}

/// Whether an update changes what the generation counts.
fn wanted_changed(kind: &Kind, object: &Value, old: &Value) -> bool {
    match kind.plural.as_str() {
        "deployments" => {
            object["spec"] != old["spec"] || object["metadata"]["annotations"] != old["metadata"]["annotations"]
        }
        "endpointslices" => {
            let members = object.as_object().into_iter().flatten().filter(|(name, _)| *name != "metadata");
            let differs = members.into_iter().any(|(name, value)| *value != old[name]);
            differs || object["metadata"]["labels"] != old["metadata"]["labels"]
        }
        "mutatingwebhookconfigurations" => object["webhooks"] != old["webhooks"],
        _ => object["spec"] != old["spec"],
    }
}

fn update_status(kind: &Kind, object: &mut Value, old: &Value) {
    let keep_metadata = |object: &mut Value, names: &[&str]| {
        for name in names {
            keep(at(object, &["metadata"]), &old["metadata"], name);
        }
    };
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("apps", "deployments") => keep_metadata(object, &["labels"]),
        ("", "pods") => {
            keep_metadata(object, &["ownerReferences"]);
            let class = old["status"]["qosClass"].clone();
            default(at(object, &["status"]), "qosClass", class);
        }
        ("apps", "daemonsets") => set_template_generation(object, template_generation(old)),
        ("apiextensions.k8s.io", "customresourcedefinitions") => {
            keep_metadata(object, &["labels", "annotations", "finalizers", "ownerReferences"]);
        }
        _ => {}
    }
}

/// Takes a field over from the old object.
fn keep(object: &mut Value, old: &Value, name: &str) {
    set(object, name, old[name].clone());
}

fn set(object: &mut Value, name: &str, value: Value) {
    if value.is_null() { remove(object, name) } else { object[name] = value }
}

fn drop_nulls(object: &mut Value) {
    if let Value::Object(members) = object {
        members.retain(|_, value| !value.is_null());
    }
}

fn add_once(object: &mut Value, list: &str, text: &str) {
    match &mut object[list] {
        Value::Array(items) => {
            if !items.iter().any(|item| item == text) {
                items.push(text.into());
            }
        }
        other => *other = json!([text]),
    }
}

fn namespace(object: &mut Value) {
    add_once(at(object, &["spec"]), "finalizers", "kubernetes");
}

fn stored_versions(object: &mut Value) {
    let storage =
        object["spec"]["versions"].as_array().into_iter().flatten().find(|version| version["storage"] == true);
    if let Some(name) = storage.and_then(|version| version["name"].as_str()).map(str::to_owned) {
        add_once(at(object, &["status"]), "storedVersions", &name);
    }
}

fn template_generation(object: &Value) -> i64 {
    let text = object["metadata"]["annotations"][TEMPLATE_GENERATION].as_str();
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn set_template_generation(object: &mut Value, generation: i64) {
    at(object, &["metadata", "annotations"])[TEMPLATE_GENERATION] = generation.to_string().into();
}

fn job_selector(object: &mut Value) {
    let spec = &object["spec"];
    if spec["manualSelector"] == true {
        return;
    }
    let uid = object["metadata"]["uid"].clone();
    let name = object["metadata"]["name"].clone();
    let labels = at(object, &["spec", "template", "metadata", "labels"]);
    for (prefix, legacy) in
        [("batch.kubernetes.io/job-name", "job-name"), ("batch.kubernetes.io/controller-uid", "controller-uid")]
    {
        let value = if legacy == "job-name" { &name } else { &uid };
        default(labels, prefix, value.clone());
        default(labels, legacy, value.clone());
    }
    default(at(object, &["spec", "selector", "matchLabels"]), "batch.kubernetes.io/controller-uid", uid);
}

fn pod(object: &mut Value, now: &str) {
    let spec = at(object, &["spec"]);
    default(spec, "priority", 0);
    default(spec, "preemptionPolicy", "PreemptLowerPriority");
    tolerations(spec);
    match_label_keys(object);
    let mut status = json!({ "phase": "Pending", "qosClass": quality(&object["spec"]) });
    if object["spec"]["schedulingGates"].as_array().is_some_and(|gates| !gates.is_empty()) {
        status["conditions"] = json!([{
            "type": "PodScheduled", "status": "False", "reason": "SchedulingGated",
            "message": "Scheduling is blocked due to non-empty scheduling gates",
            "lastProbeTime": null, "lastTransitionTime": now,
        }]);
    }
    object["status"] = status;
}

/// The admission plugin DefaultTolerationSeconds.
fn tolerations(spec: &mut Value) {
    for key in ["node.kubernetes.io/not-ready", "node.kubernetes.io/unreachable"] {
        let tolerated = spec["tolerations"].as_array().into_iter().flatten().any(|toleration| {
            let is = |name: &str, other: &str| matches!(toleration[name].as_str().unwrap_or_default(), text if text == other || text.is_empty());
            is("key", key) && is("effect", "NoExecute")
        });
        if !tolerated {
            let toleration =
                json!({ "key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300 });
            match &mut spec["tolerations"] {
                Value::Array(list) => list.push(toleration),
                other => *other = json!([toleration]),
            }
        }
    }
}

/// Pod affinity by the values of the pod's own labels (mutatePodAffinity, mutateTopologySpreadConstraints).
fn match_label_keys(object: &mut Value) {
    let labels = object["metadata"]["labels"].clone();
    let select = |term: &mut Value, keys: &str, operator: &str| {
        let keys: Vec<Value> = term[keys].as_array().cloned().unwrap_or_default();
        for key in keys.iter().filter_map(Value::as_str) {
            // Without a selector there is nothing to narrow.
            if let (Some(value), true) = (labels.get(key), term["labelSelector"].is_object()) {
                let requirement = json!({ "key": key, "operator": operator, "values": [value] });
                match &mut term["labelSelector"]["matchExpressions"] {
                    Value::Array(list) => list.push(requirement),
                    other => *other = json!([requirement]),
                }
            }
        }
    };
    let Some(spec) = object.get_mut("spec") else { return };
    for affinity in ["podAffinity", "podAntiAffinity"] {
        for list in
            ["requiredDuringSchedulingIgnoredDuringExecution", "preferredDuringSchedulingIgnoredDuringExecution"]
        {
            let terms = spec.get_mut("affinity").and_then(|all| all.get_mut(affinity)?.get_mut(list));
            for term in terms.map(defaults::items).into_iter().flatten() {
                let term = if term.get("podAffinityTerm").is_some() { &mut term["podAffinityTerm"] } else { term };
                select(term, "matchLabelKeys", "In");
                select(term, "mismatchLabelKeys", "NotIn");
            }
        }
    }
    for constraint in spec.get_mut("topologySpreadConstraints").map(defaults::items).into_iter().flatten() {
        select(constraint, "matchLabelKeys", "In");
    }
}

/// The quality-of-service class (ComputePodQOS).
fn quality(spec: &Value) -> &'static str {
    let computed = ["cpu", "memory"];
    let of_pod = spec.get("resources").filter(|resources| resources.is_object());
    let holders: Vec<&Value> = match of_pod {
        Some(resources) => vec![resources],
        None => ["containers", "initContainers"]
            .iter()
            .flat_map(|list| spec[*list].as_array().into_iter().flatten())
            .map(|container| &container["resources"])
            .collect(),
    };
    let mut sums: [[Option<Quantity>; 2]; 2] = Default::default();
    let mut guaranteed = true;
    for holder in &holders {
        for (i, list) in ["requests", "limits"].iter().enumerate() {
            for (j, name) in computed.iter().enumerate() {
                let quantity = holder[*list][*name].as_str().and_then(|text| Quantity::parse(text).ok());
                match quantity.filter(|quantity| quantity.sign() > 0) {
                    Some(quantity) => {
                        let sum = sums[i][j].take();
                        sums[i][j] = match &sum {
                            Some(sum) => sum.sum(&quantity),
                            None => Some(quantity),
                        };
                    }
                    None if *list == "limits" => guaranteed = false,
                    None => {}
                }
            }
        }
    }
    let [requests, limits] = &sums;
    if requests.iter().chain(limits).all(Option::is_none) {
        return "BestEffort";
    }
    let equal = requests.iter().zip(limits).all(|(request, limit)| match (request, limit) {
        (Some(request), Some(limit)) => request.compare(limit) == Ordering::Equal,
        (None, None) => true,
        _ => false,
    });
    if guaranteed && equal { "Guaranteed" } else { "Burstable" }
}
