//! Defaults of pods, pod templates and volume claims.

use serde_json::{Value, json};

use super::{at, default, default_text, items, remove, round, round_resources};

/// 0644
const MODE: i32 = 420;

/// A pod.
pub(super) fn pod(object: &mut Value) {
    let spec = at(object, &["spec"]);
    for list in ["containers", "initContainers"] {
        for container in of(spec, list) {
            requests_from_limits(container);
        }
    }
    default(spec, "enableServiceLinks", true);
    pod_spec(spec);
    if spec["hostNetwork"] == true {
        for list in ["containers", "initContainers"] {
            for port in of(spec, list).iter_mut().flat_map(|container| of(container, "ports")) {
                let number = port["containerPort"].clone();
                default(port, "hostPort", number);
            }
        }
    }
    with_addresses(at(object, &["status"]));
}

/// A template of pods.
pub(super) fn template(template: &mut Value) {
    pod_spec(at(template, &["spec"]));
}

/// A volume claim, or a template of one.
pub(super) fn claim(object: &mut Value) {
    let spec = at(object, &["spec"]);
    default(spec, "volumeMode", "Filesystem");
    round_resources(at(spec, &["resources"]));
    for list in ["capacity", "allocatedResources"] {
        if let Some(list) = object.get_mut("status").and_then(|status| status.get_mut(list)) {
            round(list);
        }
    }
}

/// A field that has two names holds the same under both (DeprecatedServiceAccount).
fn with_alias(spec: &mut Value) {
    let name = |name: &str| spec[name].as_str().unwrap_or_default().to_owned();
    let account = [name("serviceAccountName"), name("serviceAccount")].into_iter().find(|name| !name.is_empty());
    if let Some(account) = account {
        spec["serviceAccountName"] = account.as_str().into();
        spec["serviceAccount"] = account.into();
    }
}

/// `podIP` is the first of `podIPs`; where they differ, the former counts.
fn with_addresses(status: &mut Value) {
    let ip = status["podIP"].as_str().unwrap_or_default().to_owned();
    let first = status["podIPs"][0]["ip"].as_str().unwrap_or_default().to_owned();
    if !ip.is_empty() && ip != first {
        status["podIPs"] = json!([{ "ip": ip }]);
    } else if ip.is_empty() && !first.is_empty() {
        status["podIP"] = first.into();
    }
}

/// The items of a list that may be missing.
fn of<'a>(object: &'a mut Value, list: &str) -> &'a mut [Value] {
    object.get_mut(list).map_or(&mut [], items)
}

fn requests_from_limits(container: &mut Value) {
    let Some(limits) = container["resources"]["limits"].as_object().cloned() else { return };
    for (name, quantity) in limits {
        default(at(container, &["resources", "requests"]), &name, quantity);
    }
}

fn pod_spec(spec: &mut Value) {
    default_text(spec, "dnsPolicy", "ClusterFirst");
    default_text(spec, "restartPolicy", "Always");
    default(spec, "securityContext", json!({}));
    default(spec, "terminationGracePeriodSeconds", 30);
    if spec["terminationGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds < 0) {
        spec["terminationGracePeriodSeconds"] = 1.into();
    }
    default_text(spec, "schedulerName", "default-scheduler");
    with_alias(spec);
    for volume_ in of(spec, "volumes") {
        volume(volume_);
    }
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container_ in of(spec, list) {
            container(container_);
        }
    }
    if let Some(overhead) = spec.get_mut("overhead") {
        round(overhead);
    }
    if let Some(resources) = spec.get_mut("resources") {
        round_resources(resources);
    }
}

/// Whether an image is named without tag and digest, or by the tag `latest`.
fn is_latest(image: &str) -> bool {
    if image.contains('@') {
        // By digest; a tag beside it counts.
        return image.split('@').next().is_some_and(|name| name.ends_with(":latest"));
    }
    let name = image.rsplit('/').next().unwrap_or_default();
    match name.rsplit_once(':') {
        Some((_, tag)) => tag == "latest",
        // What is no name at all has no tag (the reference parser fails).
        None => !name.is_empty() && !image.contains(|c: char| c.is_ascii_uppercase() || c.is_whitespace()),
    }
}

fn pull_policy(image: &str) -> &'static str {
    if is_latest(image) { "Always" } else { "IfNotPresent" }
}

fn volume(volume: &mut Value) {
    if volume.as_object().is_some_and(|members| members.keys().all(|name| name == "name")) {
        volume["emptyDir"] = json!({});
    }
    let mut with = |name: &str, set: &dyn Fn(&mut Value)| {
        if let Some(source) = volume.get_mut(name).filter(|source| source.is_object()) {
            set(source);
        }
    };
    let mode = |source: &mut Value| default(source, "defaultMode", MODE);
    with("secret", &mode);
    with("configMap", &mode);
    with("hostPath", &|source| default(source, "type", ""));
    with("iscsi", &|source| default_text(source, "iscsiInterface", "default"));
    with("downwardAPI", &|source| {
        mode(source);
        field_refs(source);
    });
    with("projected", &|source| {
        mode(source);
        for part in of(source, "sources") {
            if let Some(part) = part.get_mut("downwardAPI") {
                field_refs(part);
            }
            if let Some(part) = part.get_mut("serviceAccountToken") {
                default(part, "expirationSeconds", 3600);
            }
        }
    });
    with("ephemeral", &|source| {
        if let Some(template) = source.get_mut("volumeClaimTemplate") {
            claim(template);
        }
    });
    with("image", &|source| {
        let policy = pull_policy(source["reference"].as_str().unwrap_or_default());
        default_text(source, "pullPolicy", policy);
    });
    with("rbd", &|source| {
        for (name, value) in [("pool", "rbd"), ("user", "admin"), ("keyring", "/etc/ceph/keyring")] {
            default_text(source, name, value);
        }
    });
    with("azureDisk", &|source| {
        for (name, value) in [("cachingMode", "ReadWrite"), ("fsType", "ext4"), ("kind", "Shared")] {
            default(source, name, value);
        }
        default(source, "readOnly", false);
    });
    with("scaleIO", &|source| {
        default_text(source, "storageMode", "ThinProvisioned");
        default_text(source, "fsType", "xfs");
    });
}

fn field_refs(source: &mut Value) {
    for item in of(source, "items") {
        if let Some(reference) = item.get_mut("fieldRef") {
            default_text(reference, "apiVersion", "v1");
        }
    }
}

fn container(container: &mut Value) {
    let policy = pull_policy(container["image"].as_str().unwrap_or_default());
    default_text(container, "imagePullPolicy", policy);
    default_text(container, "terminationMessagePath", "/dev/termination-log");
    default_text(container, "terminationMessagePolicy", "File");
    for port in of(container, "ports") {
        default_text(port, "protocol", "TCP");
    }
    for variable in of(container, "env") {
        let Some(from) = variable.get_mut("valueFrom") else { continue };
        if let Some(reference) = from.get_mut("fieldRef") {
            default_text(reference, "apiVersion", "v1");
        }
        if let Some(reference) = from.get_mut("fileKeyRef") {
            default(reference, "optional", false);
        }
    }
    round_resources(at(container, &["resources"]));
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if let Some(probe_) = container.get_mut(name).filter(|probe| probe.is_object()) {
            probe(probe_);
        }
    }
    for hook in ["postStart", "preStop"] {
        if let Some(action) = container.get_mut("lifecycle").and_then(|all| all.get_mut(hook)?.get_mut("httpGet")) {
            http_get(action);
        }
    }
}

fn probe(probe: &mut Value) {
    for (name, value) in
        [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
    {
        if probe[name] == 0 {
            remove(probe, name);
        }
        default(probe, name, value);
    }
    if let Some(action) = probe.get_mut("httpGet") {
        http_get(action);
    }
    if let Some(action) = probe.get_mut("grpc") {
        default(action, "service", "");
    }
}

fn http_get(action: &mut Value) {
    default_text(action, "path", "/");
    default_text(action, "scheme", "HTTP");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_without_a_tag_are_pulled_always() {
        for (image, latest) in [
            ("nginx", true),
            ("nginx:latest", true),
            ("nginx:1.2", false),
            ("r.example.com:5000/nginx", true),
            ("nginx@sha256:aa", false),
            ("", false),
        ] {
            assert_eq!(is_latest(image), latest, "{image}");
        }
    }
}
