//! Checks of pods and pod templates.

use std::cmp::Ordering;
use std::collections::HashSet;

use serde_json::Value;

use super::{Check, entries, list, text, volume};
use crate::field_error::{FieldError, go_quote};
use crate::kinds::names;
use crate::kinds::quantity::Quantity;

const PROTOCOLS: [&str; 3] = ["SCTP", "TCP", "UDP"];

pub(super) fn pod(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    check.metadata_update(object, old);
    check.metadata(object, names::dns_subdomain);
    pod_spec(check, "spec", &object["spec"]);
    for name in ["containers", "initContainers"] {
        for (i, container) in list(&object["spec"], name).iter().enumerate() {
            let image = text(container, "image");
            if image.trim() != image {
                check.invalid_text(
                    format!("spec.{name}[{i}].image"),
                    image,
                    "must not have leading or trailing whitespace",
                );
            }
        }
    }
    let spec = &object["spec"];
    match old {
        Some(old) => update(check, spec, &old["spec"]),
        None => {
            if !list(spec, "ephemeralContainers").is_empty() {
                check.forbidden("spec.ephemeralContainers", "cannot be set on create");
            }
            if !text(spec, "nodeName").is_empty() && !list(spec, "schedulingGates").is_empty() {
                check.forbidden("spec.nodeName", "cannot be set until all schedulingGates have been cleared");
            }
        }
    }
}

/// What of a pod may change.
const MUTABLE: [&str; 5] = [
    "`spec.containers[*].image`",
    "`spec.initContainers[*].image`",
    "`spec.activeDeadlineSeconds`",
    "`spec.tolerations` (only additions to existing tolerations)",
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)",
];

fn update(check: &mut Check<'_>, spec: &Value, before: &Value) {
    for name in ["containers", "initContainers"] {
        if list(spec, name).len() != list(before, name).len() {
            check.forbidden(format!("spec.{name}"), "pod updates may not add or remove containers");
            return;
        }
    }
    let field = "spec.activeDeadlineSeconds";
    match (spec["activeDeadlineSeconds"].as_i64(), before["activeDeadlineSeconds"].as_i64()) {
        (Some(new), Some(had)) if had < new => {
            check.invalid(field, new.to_string(), "must be less than or equal to previous value");
            return;
        }
        (None, Some(_)) => check.invalid(field, "null", "must not update from a positive integer to nil value"),
        _ => {}
    }
    let kept = |had: &Value| {
        list(spec, "tolerations")
            .iter()
            .any(|new| ["key", "operator", "value", "effect"].iter().all(|name| new[*name] == had[*name]))
    };
    if !list(before, "tolerations").iter().all(kept) {
        check.forbidden("spec.tolerations", "existing toleration can not be modified except its tolerationSeconds");
    }
    for (i, gate) in list(spec, "schedulingGates").iter().enumerate() {
        if !list(before, "schedulingGates").contains(gate) {
            let why = format!("only deletion is allowed, but found new scheduling gate '{}'", text(gate, "name"));
            check.forbidden(format!("spec.schedulingGates[{i}].name"), why);
        }
    }
    let mut same = spec.clone();
    for name in ["activeDeadlineSeconds", "tolerations", "schedulingGates"] {
        take(&mut same, before, name);
    }
    if !list(before, "schedulingGates").is_empty() {
        // Only a gated pod can still be told where to run.
        for name in ["nodeSelector", "affinity"] {
            take(&mut same, before, name);
        }
    }
    for name in ["containers", "initContainers"] {
        let images: Vec<Value> = list(before, name).iter().map(|container| container["image"].clone()).collect();
        for (container, image) in same[name].as_array_mut().into_iter().flatten().zip(images) {
            container["image"] = image;
        }
    }
    if let Value::Object(members) = &mut same {
        members.retain(|_, value| !value.is_null());
    }
    if same != *before {
        check.forbidden("spec", format!("pod updates may not change fields other than {}", MUTABLE.join(",")));
    }
}

fn take(object: &mut Value, from: &Value, name: &str) {
    let Value::Object(members) = object else { return };
    match from.get(name) {
        Some(value) => members.insert(name.to_owned(), value.clone()),
        None => members.remove(name),
    };
}

pub(super) fn status(check: &mut Check<'_>, object: &Value, old: &Value) {
    check.metadata_update(object, Some(old));
    if object["spec"]["nodeName"] != old["spec"]["nodeName"] {
        check.forbidden("status.nodeName", "may not be changed directly");
    }
    check.immutable(&["status", "qosClass"], object, old);
}

/// A template of pods.
pub(super) fn template(check: &mut Check<'_>, at: &str, template: &Value) {
    let metadata = &template["metadata"];
    names::labels(&mut check.errors, &format!("{at}.labels"), &metadata["labels"]);
    names::annotations(&mut check.errors, &format!("{at}.annotations"), &metadata["annotations"]);
    pod_spec(check, &format!("{at}.spec"), &template["spec"]);
    if !list(&template["spec"], "ephemeralContainers").is_empty() {
        check.forbidden(format!("{at}.spec.ephemeralContainers"), "ephemeral containers not allowed in pod template");
    }
}

fn pod_spec(check: &mut Check<'_>, at: &str, spec: &Value) {
    let volumes = volume::volumes(check, &format!("{at}.volumes"), list(spec, "volumes"));
    containers(check, at, spec, &volumes);
    let policy = text(spec, "restartPolicy");
    check.one_of(format!("{at}.restartPolicy"), policy, &["Always", "OnFailure", "Never"]);
    let known = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"];
    check.one_of(format!("{at}.dnsPolicy"), text(spec, "dnsPolicy"), &known);
    names::labels(&mut check.errors, &format!("{at}.nodeSelector"), &spec["nodeSelector"]);
    for (i, gate) in list(spec, "schedulingGates").iter().enumerate() {
        let name = text(gate, "name");
        check.named(&format!("{at}.schedulingGates[{i}]"), name, names::qualified(name));
    }
    for name in ["serviceAccountName", "nodeName"] {
        let value = text(spec, name);
        if !value.is_empty() {
            check.named(&format!("{at}.{name}"), value, names::dns_subdomain(value));
        }
    }
    if let Some(seconds) =
        spec["activeDeadlineSeconds"].as_i64().filter(|seconds| !(1..=i64::from(i32::MAX)).contains(seconds))
    {
        let why = format!("must be between 1 and {}, inclusive", i32::MAX);
        check.invalid(format!("{at}.activeDeadlineSeconds"), seconds.to_string(), why);
    }
    for name in ["hostname", "subdomain"] {
        let value = text(spec, name);
        if !value.is_empty() {
            check.named(&format!("{at}.{name}"), value, names::dns_label(value));
        }
    }
    for (i, toleration_) in list(spec, "tolerations").iter().enumerate() {
        toleration(check, &format!("{at}.tolerations[{i}]"), toleration_);
    }
    let class = text(spec, "priorityClassName");
    if !class.is_empty() {
        check.named(&format!("{at}.priorityClassName"), class, names::dns_subdomain(class));
    }
}

fn toleration(check: &mut Check<'_>, at: &str, toleration: &Value) {
    let [key, operator, value, effect] = ["key", "operator", "value", "effect"].map(|name| text(toleration, name));
    if !key.is_empty() {
        check.named(&format!("{at}.key"), key, names::qualified(key));
    }
    let field = format!("{at}.operator");
    if key.is_empty() && operator != "Exists" {
        let why = "operator must be Exists when `key` is empty, which means \"match all values and all keys\"";
        check.invalid_text(&field, operator, why);
    }
    if !toleration["tolerationSeconds"].is_null() && effect != "NoExecute" {
        let why = "effect must be 'NoExecute' when `tolerationSeconds` is set";
        check.invalid_text(format!("{at}.effect"), effect, why);
    }
    match operator {
        "Equal" | "" => {
            let faults = names::label_value(value);
            if !faults.is_empty() {
                check.invalid_text(field, value, faults.join(";"));
            }
        }
        "Exists" if !value.is_empty() => {
            check.invalid_text(field, value, "value must be empty when `operator` is 'Exists'");
        }
        "Exists" => {}
        _ => check.errors.push(FieldError::not_supported(field, go_quote(operator), &["Equal", "Exists"])),
    }
    if !effect.is_empty() {
        check.one_of(format!("{at}.effect"), effect, &["NoSchedule", "PreferNoSchedule", "NoExecute"]);
    }
}

fn containers(check: &mut Check<'_>, at: &str, spec: &Value, volumes: &HashSet<&str>) {
    let main = list(spec, "containers");
    if main.is_empty() {
        check.required(format!("{at}.containers"), "");
    }
    let mut seen: Vec<&str> = Vec::new();
    for (i, one) in main.iter().enumerate() {
        let at = format!("{at}.containers[{i}]");
        container(check, &at, one, volumes);
        once(check, &at, text(one, "name"), &mut seen, true);
        running(check, &at, one);
    }
    host_ports(check, &format!("{at}.containers"), main);
    for (i, one) in list(spec, "initContainers").iter().enumerate() {
        let list_at = format!("{at}.initContainers");
        let at = format!("{list_at}[{i}]");
        container(check, &at, one, volumes);
        once(check, &at, text(one, "name"), &mut seen, false);
        // Each by itself, as if it were the first.
        host_ports(check, &list_at, std::slice::from_ref(one));
        if one["restartPolicy"] == "Always" {
            running(check, &at, one);
        } else {
            for name in ["lifecycle", "livenessProbe", "readinessProbe", "startupProbe"] {
                if !one[name].is_null() {
                    check.forbidden(
                        format!("{at}.{name}"),
                        "may not be set for init containers without restartPolicy=Always",
                    );
                }
            }
        }
    }
}

fn once<'a>(check: &mut Check<'_>, at: &str, name: &'a str, seen: &mut Vec<&'a str>, even_empty: bool) {
    if seen.contains(&name) {
        check.duplicate(format!("{at}.name"), go_quote(name));
    } else if even_empty || !name.is_empty() {
        seen.push(name);
    }
}

fn host_ports(check: &mut Check<'_>, at: &str, containers: &[Value]) {
    let mut seen = HashSet::new();
    for (i, container) in containers.iter().enumerate() {
        for (j, port) in list(container, "ports").iter().enumerate() {
            let Some(number) = port["hostPort"].as_i64() else { continue };
            let key = format!("{}/{}/{number}", text(port, "protocol"), text(port, "hostIP"));
            if !seen.insert(key.clone()) {
                check.duplicate(format!("{at}[{i}].ports[{j}].hostPort"), go_quote(&key));
            }
        }
    }
}

fn container(check: &mut Check<'_>, at: &str, container: &Value, volumes: &HashSet<&str>) {
    let name = text(container, "name");
    if name.is_empty() {
        check.required(format!("{at}.name"), "");
    } else {
        check.named(&format!("{at}.name"), name, names::dns_label(name));
    }
    if text(container, "image").is_empty() {
        check.required(format!("{at}.image"), "");
    }
    let policy = text(container, "terminationMessagePolicy");
    check.one_of(format!("{at}.terminationMessagePolicy"), policy, &["File", "FallbackToLogsOnError"]);
    ports(check, at, container);
    for (i, variable) in list(container, "env").iter().enumerate() {
        environment(check, &format!("{at}.env[{i}]"), variable);
    }
    for (i, from) in list(container, "envFrom").iter().enumerate() {
        environment_from(check, &format!("{at}.envFrom"), i, from);
    }
    volume::mounts(check, at, container, volumes);
    let policy = text(container, "imagePullPolicy");
    check.one_of(format!("{at}.imagePullPolicy"), policy, &["Always", "IfNotPresent", "Never"]);
    resources(check, &format!("{at}.resources"), &container["resources"]);
}

fn ports(check: &mut Check<'_>, at: &str, container: &Value) {
    let mut seen: Vec<&str> = Vec::new();
    for (i, port) in list(container, "ports").iter().enumerate() {
        let at = format!("{at}.ports[{i}]");
        let name = text(port, "name");
        if !name.is_empty() {
            let faults = names::port_name(name);
            if !faults.is_empty() {
                check.named(&format!("{at}.name"), name, faults);
            } else if seen.contains(&name) {
                check.duplicate(format!("{at}.name"), go_quote(name));
            } else {
                seen.push(name);
            }
        }
        match port["containerPort"].as_i64().unwrap_or_default() {
            0 => check.required(format!("{at}.containerPort"), ""),
            number => check.port(&format!("{at}.containerPort"), number),
        }
        if let Some(number) = port["hostPort"].as_i64() {
            check.port(&format!("{at}.hostPort"), number);
        }
        check.one_of(format!("{at}.protocol"), text(port, "protocol"), &PROTOCOLS);
    }
}

/// Fields of a pod that its environment can hold.
const FIELDS: [&str; 9] = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
];

fn environment(check: &mut Check<'_>, at: &str, variable: &Value) {
    let name = text(variable, "name");
    if name.is_empty() {
        check.required(format!("{at}.name"), "");
    } else {
        check.named(&format!("{at}.name"), name, names::env_name(name));
    }
    let from = &variable["valueFrom"];
    if from.is_null() {
        return;
    }
    let at = format!("{at}.valueFrom");
    let mut sources = 0;
    for kind in ["fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef"] {
        let source = &from[kind];
        if source.is_null() {
            continue;
        }
        sources += 1;
        let at = format!("{at}.{kind}");
        match kind {
            "fieldRef" => field_reference(check, &at, source),
            "configMapKeyRef" | "secretKeyRef" => {
                let (name, key) = (text(source, "name"), text(source, "key"));
                check.named(&format!("{at}.name"), name, names::dns_subdomain(name));
                if key.is_empty() {
                    check.required(format!("{at}.key"), "");
                } else {
                    check.named(&format!("{at}.key"), key, names::config_key(key));
                }
            }
            "resourceFieldRef" if text(source, "resource").is_empty() => check.required(format!("{at}.resource"), ""),
            _ => {}
        }
    }
    let wrong = match sources {
        0 => "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`",
        _ if !text(variable, "value").is_empty() => "may not be specified when `value` is not empty",
        1 => return,
        _ => "may not have more than one field specified at a time",
    };
    check.invalid(at, "\"\"", wrong);
}

/// More fields of a pod, which a reference can name but an environment not hold.
const OTHER_FIELDS: [&str; 5] =
    ["metadata.annotations", "metadata.labels", "spec.restartPolicy", "spec.schedulerName", "status.phase"];

fn field_reference(check: &mut Check<'_>, at: &str, reference: &Value) {
    let path = text(reference, "fieldPath");
    let field = format!("{at}.fieldPath");
    if path.is_empty() {
        check.required(field, "");
        return;
    }
    let key = path.strip_suffix("']").and_then(|rest| rest.split_once("['"));
    let unknown = match key {
        Some(("metadata.annotations", key)) => {
            check.named(at, &key.to_lowercase(), names::qualified(&key.to_lowercase()));
            return;
        }
        Some(("metadata.labels", key)) => {
            check.named(at, key, names::qualified(key));
            return;
        }
        Some(_) => "field label does not support subscript",
        None if path == "spec.host" => return,
        None if FIELDS.contains(&path) || OTHER_FIELDS.contains(&path) => {
            check.one_of(field, path, &FIELDS);
            return;
        }
        None => "field label not supported",
    };
    check.invalid_text(field, path, format!("error converting fieldPath: {unknown}: {path}"));
}

fn environment_from(check: &mut Check<'_>, list_at: &str, i: usize, from: &Value) {
    let at = format!("{list_at}[{i}]");
    let prefix = text(from, "prefix");
    if !prefix.is_empty() {
        check.named(&format!("{at}.prefix"), prefix, names::env_name(prefix));
    }
    let mut sources = 0;
    for kind in ["configMapRef", "secretRef"] {
        let source = &from[kind];
        if source.is_null() {
            continue;
        }
        sources += 1;
        match text(source, "name") {
            "" => check.required(format!("{at}.{kind}.name"), ""),
            name => check.named(&format!("{at}.{kind}.name"), name, names::dns_subdomain(name)),
        }
    }
    match sources {
        0 => check.invalid(list_at, "\"\"", "must specify one of: `configMapRef` or `secretRef`"),
        1 => {}
        _ => check.invalid(list_at, "\"\"", "may not have more than one field specified at a time"),
    }
}

/// Names of resources that mean the cluster's own things.
const STANDARD: [&str; 20] = [
    "cpu",
    "memory",
    "ephemeral-storage",
    "requests.cpu",
    "requests.memory",
    "requests.ephemeral-storage",
    "limits.cpu",
    "limits.memory",
    "limits.ephemeral-storage",
    "pods",
    "resourcequotas",
    "services",
    "replicationcontrollers",
    "secrets",
    "configmaps",
    "persistentvolumeclaims",
    "storage",
    "requests.storage",
    "services.nodeports",
    "services.loadbalancers",
];

fn resource_name(check: &mut Check<'_>, field: &str, name: &str) {
    let faults = names::qualified(name);
    let hugepages = name.starts_with("hugepages-");
    if !faults.is_empty() {
        check.named(field, name, faults);
    } else if !name.contains('/') && !STANDARD.contains(&name) && !hugepages {
        check.invalid_text(field, name, "must be a standard resource type or fully qualified");
    }
    if !name.contains('/') {
        if !STANDARD[..3].contains(&name) && !hugepages {
            check.invalid_text(field, name, "must be a standard resource for containers");
        }
    } else if !is_native(name)
        && (name.starts_with("requests.") || !names::qualified(&format!("requests.{name}")).is_empty())
    {
        check.invalid_text(field, name, "doesn't follow extended resource name standard");
    }
}

fn is_native(name: &str) -> bool {
    !name.contains('/') || name.contains("kubernetes.io/")
}

fn resources(check: &mut Check<'_>, at: &str, resources: &Value) {
    let quantity = |value: &Value| value.as_str().and_then(|text| Quantity::parse(text).ok());
    for kind in ["limits", "requests"] {
        for (name, value) in entries(resources, kind) {
            let field = format!("{at}.{kind}[{name}]");
            resource_name(check, &field, name);
            let Some(amount) = quantity(value) else { continue };
            if amount.sign() < 0 {
                check.invalid_text(&field, &amount.to_string(), "must be greater than or equal to 0");
            }
            if !is_native(name) && !amount.is_whole() {
                check.invalid_text(&field, &amount.to_string(), "must be an integer");
            }
            if kind == "limits" {
                continue;
            }
            let flexible = is_native(name) && !name.starts_with("hugepages-");
            let field = format!("{at}.requests");
            match quantity(&resources["limits"][name]) {
                Some(limit) if !flexible && amount.compare(&limit) != Ordering::Equal => {
                    check.invalid_text(field, &amount.to_string(), format!("must be equal to {name} limit of {limit}"));
                }
                Some(limit) if amount.compare(&limit) == Ordering::Greater => {
                    let why = format!("must be less than or equal to {name} limit of {limit}");
                    check.invalid_text(field, &amount.to_string(), why);
                }
                None if !flexible => {
                    check.required(format!("{at}.limits"), "Limit must be set for non overcommitable resources");
                }
                _ => {}
            }
        }
    }
}

/// What is done to a container that runs: hooks and probes.
fn running(check: &mut Check<'_>, at: &str, container: &Value) {
    for hook in ["postStart", "preStop"] {
        let action = &container["lifecycle"][hook];
        if !action.is_null() {
            handler(check, &format!("{at}.lifecycle.{hook}"), action, &["exec", "httpGet", "tcpSocket", "sleep"]);
        }
    }
    for name in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let probe = &container[name];
        if probe.is_null() {
            continue;
        }
        let at = format!("{at}.{name}");
        handler(check, &at, probe, &["exec", "httpGet", "tcpSocket", "grpc"]);
        let counts = ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"];
        check.all_nonnegative(&at, probe, &counts);
        if let Some(seconds) = probe["terminationGracePeriodSeconds"].as_i64() {
            let field = format!("{at}.terminationGracePeriodSeconds");
            if seconds <= 0 {
                check.invalid(&field, seconds.to_string(), "must be greater than 0");
            }
            if name == "readinessProbe" {
                check.invalid(&field, seconds.to_string(), "must not be set for readinessProbes");
            }
        }
        let successes = probe["successThreshold"].as_i64().unwrap_or_default();
        if name != "readinessProbe" && successes != 1 {
            check.invalid(format!("{at}.successThreshold"), successes.to_string(), "must be 1");
        }
    }
}

fn handler(check: &mut Check<'_>, at: &str, handler: &Value, kinds: &[&str]) {
    let mut found = false;
    for kind in kinds {
        let action = &handler[*kind];
        if action.is_null() {
            continue;
        }
        let at = format!("{at}.{kind}");
        if std::mem::replace(&mut found, true) {
            check.forbidden(at, "may not specify more than 1 handler type");
            continue;
        }
        match *kind {
            "exec" if list(action, "command").is_empty() => check.required(format!("{at}.command"), ""),
            "httpGet" => {
                check.port_or_name(&format!("{at}.port"), &action["port"]);
                check.one_of(format!("{at}.scheme"), text(action, "scheme"), &["HTTP", "HTTPS"]);
                for header in list(action, "httpHeaders") {
                    let name = text(header, "name");
                    check.named(&format!("{at}.httpHeaders"), name, names::header_name(name));
                }
            }
            "tcpSocket" | "grpc" => check.port_or_name(&format!("{at}.port"), &action["port"]),
            _ => {}
        }
    }
    if !found {
        check.required(at, "must specify a handler type");
    }
}
