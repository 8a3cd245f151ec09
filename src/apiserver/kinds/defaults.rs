//! The defaults of built-in kinds (pkg/apis/*/v1/defaults.go and the conversions that fill fields in).
//!
//! Objects are decoded ones: what is missing is empty. Idempotent: the real server applies them to what it reads, too.

mod pod;

use serde_json::{Map, Value, json};

use super::Kind;
use super::prepare::TEMPLATE_GENERATION;
use super::quantity::Quantity;

use pod::claim;

/// Sets what is missing.
pub(super) fn apply(kind: &Kind, object: &mut Value) {
    match (kind.group.as_str(), kind.plural.as_str()) {
        ("", "namespaces") => namespace(object),
        ("", "secrets") => secret(object),
        ("", "services") => service(object),
        ("", "pods") => pod::pod(object),
        ("", "persistentvolumeclaims") => {
            claim(object);
            default(at(object, &["status"]), "phase", "Pending");
        }
        ("apps", "deployments") => deployment(object),
        ("apps", "replicasets") => {
            default(at(object, &["spec"]), "replicas", 1);
            pod::template(at(object, &["spec", "template"]));
        }
        ("apps", "statefulsets") => stateful_set(object),
        ("apps", "daemonsets") => daemon_set(object),
        ("batch", "jobs") => job(object),
        ("discovery.k8s.io", "endpointslices") => {
            for port in items(&mut object["ports"]) {
                default(port, "name", "");
                default(port, "protocol", "TCP");
            }
        }
        ("rbac.authorization.k8s.io", "rolebindings" | "clusterrolebindings") => binding(object),
        ("apiextensions.k8s.io", "customresourcedefinitions") => definition(object),
        ("admissionregistration.k8s.io", _) => webhooks(object),
        _ => {}
    }
}

/// The object at a path, made where it is missing.
pub(super) fn at<'a>(object: &'a mut Value, path: &[&str]) -> &'a mut Value {
    let mut place = object;
    for name in path {
        if !place.is_object() {
            *place = json!({});
        }
        place = &mut place[*name];
    }
    if !place.is_object() {
        *place = json!({});
    }
    place
}

/// Sets a field if it is missing or null.
pub(super) fn default(object: &mut Value, name: &str, value: impl Into<Value>) {
    if let Value::Object(members) = object {
        match members.get(name) {
            Some(value) if !value.is_null() => {}
            _ => {
                members.insert(name.to_owned(), value.into());
            }
        }
    }
}

/// The same for a text, for which empty is missing.
pub(super) fn default_text(object: &mut Value, name: &str, value: &str) {
    if object[name].as_str().unwrap_or_default().is_empty()
        && let Value::Object(members) = object
    {
        members.insert(name.to_owned(), value.into());
    }
}

/// Removes a field.
pub(super) fn remove(object: &mut Value, name: &str) {
    if let Value::Object(members) = object {
        members.remove(name);
    }
}

/// The items of a list; none of anything else.
pub(super) fn items(list: &mut Value) -> &mut [Value] {
    list.as_array_mut().map_or(&mut [], Vec::as_mut_slice)
}

/// Rounds up to thousandths (SetDefaults_ResourceList).
pub(super) fn round_resources(resources: &mut Value) {
    for list in ["limits", "requests"] {
        round(&mut resources[list]);
    }
    // Indexing made what was missing.
    if let Value::Object(members) = resources {
        members.retain(|_, value| !value.is_null());
    }
}

/// The same for one list.
pub(super) fn round(list: &mut Value) {
    for value in list.as_object_mut().into_iter().flat_map(Map::values_mut) {
        if let Some(Ok(quantity)) = value.as_str().map(Quantity::parse) {
            *value = quantity.rounded_to_milli().to_string().into();
        }
    }
}

fn namespace(object: &mut Value) {
    let name = object["metadata"]["name"].clone();
    if name.as_str().is_some_and(|name| !name.is_empty()) {
        at(object, &["metadata", "labels"])["kubernetes.io/metadata.name"] = name;
    }
    default_text(at(object, &["status"]), "phase", "Active");
}

fn secret(object: &mut Value) {
    default_text(object, "type", "Opaque");
    let folded = object.as_object_mut().and_then(|members| members.remove("stringData"));
    for (key, text) in folded.as_ref().and_then(Value::as_object).into_iter().flatten() {
        let text = text.as_str().unwrap_or_default();
        at(object, &["data"])[key] = base64(text.as_bytes()).into();
    }
}

/// Standard base64 with padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let byte = |i: usize| u32::from(chunk.get(i).copied().unwrap_or_default());
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for i in 0..4 {
            if i <= chunk.len() {
                out.push(char::from(ALPHABET[(bits >> (18 - 6 * i) & 63) as usize]));
            } else {
                out.push('=');
            }
        }
    }
    out
}

fn service(object: &mut Value) {
    let spec = at(object, &["spec"]);
    default_text(spec, "sessionAffinity", "None");
    match spec["sessionAffinity"].as_str().unwrap_or_default() {
        "None" => remove(spec, "sessionAffinityConfig"),
        "ClientIP" if spec["sessionAffinityConfig"]["clientIP"]["timeoutSeconds"].is_null() => {
            spec["sessionAffinityConfig"] = json!({ "clientIP": { "timeoutSeconds": 10_800 } });
        }
        _ => {}
    }
    default_text(spec, "type", "ClusterIP");
    for port in items(&mut spec["ports"]) {
        default_text(port, "protocol", "TCP");
        if matches!(&port["targetPort"], Value::String(text) if text.is_empty()) || port["targetPort"] == 0 {
            port["targetPort"] = port["port"].clone();
        }
    }
    if spec["ports"].is_null() {
        remove(spec, "ports");
    }
    let kind = spec["type"].as_str().unwrap_or_default().to_owned();
    if super::service::externally_accessible(spec) {
        default_text(spec, "externalTrafficPolicy", "Cluster");
    }
    if matches!(kind.as_str(), "NodePort" | "LoadBalancer" | "ClusterIP") {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    if kind == "LoadBalancer" {
        default(spec, "allocateLoadBalancerNodePorts", true);
        for ingress in items(&mut at(object, &["status", "loadBalancer"])["ingress"]) {
            if ingress["ip"].is_string() {
                default(ingress, "ipMode", "VIP");
            }
        }
        let balancer = at(object, &["status", "loadBalancer"]);
        if balancer["ingress"].is_null() {
            remove(balancer, "ingress");
        }
    }
}

fn deployment(object: &mut Value) {
    let spec = at(object, &["spec"]);
    default(spec, "replicas", 1);
    let strategy = at(spec, &["strategy"]);
    default_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = at(strategy, &["rollingUpdate"]);
        default(rolling, "maxUnavailable", "25%");
        default(rolling, "maxSurge", "25%");
    }
    default(spec, "revisionHistoryLimit", 10);
    default(spec, "progressDeadlineSeconds", 600);
    pod::template(at(spec, &["template"]));
}

fn daemon_set(object: &mut Value) {
    let spec = at(object, &["spec"]);
    let strategy = at(spec, &["updateStrategy"]);
    default_text(strategy, "type", "RollingUpdate");
    if strategy["type"] == "RollingUpdate" {
        let rolling = at(strategy, &["rollingUpdate"]);
        default(rolling, "maxUnavailable", 1);
        default(rolling, "maxSurge", 0);
    }
    default(spec, "revisionHistoryLimit", 10);
    pod::template(at(spec, &["template"]));
    default(at(object, &["metadata", "annotations"]), TEMPLATE_GENERATION, "0");
}

fn stateful_set(object: &mut Value) {
    let spec = at(object, &["spec"]);
    default_text(spec, "podManagementPolicy", "OrderedReady");
    let strategy = at(spec, &["updateStrategy"]);
    if strategy["type"].as_str().unwrap_or_default().is_empty() {
        strategy["type"] = "RollingUpdate".into();
        default(strategy, "rollingUpdate", json!({}));
    }
    if strategy["type"] == "RollingUpdate" && strategy.get("rollingUpdate").is_some() {
        let rolling = at(strategy, &["rollingUpdate"]);
        default(rolling, "partition", 0);
    }
    let retention = at(spec, &["persistentVolumeClaimRetentionPolicy"]);
    default_text(retention, "whenDeleted", "Retain");
    default_text(retention, "whenScaled", "Retain");
    default(spec, "replicas", 1);
    default(spec, "revisionHistoryLimit", 10);
    pod::template(at(spec, &["template"]));
    for template in spec.get_mut("volumeClaimTemplates").map_or(&mut [][..], items) {
        template["apiVersion"] = "v1".into();
        template["kind"] = "PersistentVolumeClaim".into();
        claim(template);
        default(at(template, &["status"]), "phase", "Pending");
    }
}

fn job(object: &mut Value) {
    let spec = at(object, &["spec"]);
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        spec["completions"] = 1.into();
    }
    default(spec, "parallelism", 1);
    let limit = if spec["backoffLimitPerIndex"].is_null() { 6 } else { i32::MAX };
    default(spec, "backoffLimit", limit);
    default(spec, "completionMode", "NonIndexed");
    default(spec, "suspend", false);
    let policy = if spec["podFailurePolicy"].is_null() { "TerminatingOrFailed" } else { "Failed" };
    default(spec, "podReplacementPolicy", policy);
    default(spec, "manualSelector", false);
    for rule in spec.get_mut("podFailurePolicy").map_or(&mut [][..], |policy| items(&mut policy["rules"])) {
        for pattern in rule.get_mut("onPodConditions").map_or(&mut [][..], items) {
            default_text(pattern, "status", "True");
        }
    }
    pod::template(at(spec, &["template"]));
    if let Value::Object(members) = spec {
        members.retain(|_, value| !value.is_null());
    }
    let labels = spec["template"]["metadata"]["labels"].clone();
    if labels.as_object().is_some_and(|labels| !labels.is_empty()) {
        default(at(object, &["metadata"]), "labels", labels);
    }
}

fn binding(object: &mut Value) {
    const GROUP: &str = "rbac.authorization.k8s.io";
    default_text(at(object, &["roleRef"]), "apiGroup", GROUP);
    for subject in object.get_mut("subjects").map_or(&mut [][..], items) {
        if matches!(subject["kind"].as_str(), Some("User" | "Group")) {
            default_text(subject, "apiGroup", GROUP);
        }
    }
}

fn definition(object: &mut Value) {
    let spec = at(object, &["spec"]);
    let names = at(spec, &["names"]);
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    if !kind.is_empty() {
        default_text(names, "singular", &kind.to_lowercase());
        default_text(names, "listKind", &format!("{kind}List"));
    }
    default(spec, "conversion", json!({ "strategy": "None" }));
    if spec["conversion"]["webhook"]["clientConfig"]["service"].is_object() {
        default(at(spec, &["conversion", "webhook", "clientConfig", "service"]), "port", 443);
    }
    let stored = spec["versions"].as_array().into_iter().flatten().find(|version| version["storage"] == true);
    if let Some(name) = stored.map(|version| version["name"].clone()) {
        let status = at(object, &["status"]);
        if status["storedVersions"].as_array().is_none_or(Vec::is_empty) {
            status["storedVersions"] = json!([name]);
        }
    }
}

fn webhooks(object: &mut Value) {
    for webhook in object.get_mut("webhooks").map_or(&mut [][..], items) {
        default(webhook, "failurePolicy", "Fail");
        default(webhook, "matchPolicy", "Equivalent");
        default(webhook, "namespaceSelector", json!({}));
        default(webhook, "objectSelector", json!({}));
        default(webhook, "reinvocationPolicy", "Never");
        default(webhook, "timeoutSeconds", 10);
        for rule in webhook.get_mut("rules").map_or(&mut [][..], items) {
            default(rule, "scope", "*");
        }
        if webhook["clientConfig"]["service"].is_object() {
            default(&mut webhook["clientConfig"]["service"], "port", 443);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_padded() {
        assert_eq!(
            (base64(b"1"), base64(b"12"), base64(b"123"), base64(b"")),
            ("MQ==".into(), "MTI=".into(), "MTIz".into(), String::new())
        );
    }
}
