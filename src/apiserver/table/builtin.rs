//! The cells of the built-in kinds, as kube-apiserver's `pkg/printers/internalversion` makes them.
//!
//! Always the wide form, whose extra columns have priority 1: clients choose. What an object lacks counts as Go's zero
//! value; nothing is defaulted here. Pods are in `pod.rs`.

use std::collections::BTreeSet;

use serde_json::Value;

use super::age::{Instant, age, human_duration};
use super::columns::{self, DEFAULT};
use super::{Column, pod};

/// How one kind is printed.
#[derive(Debug)]
pub(super) struct Printer {
    pub(super) columns: &'static [Column],
    pub(super) cells: fn(&Value, Instant) -> Vec<Value>,
}

/// A list of hosts or addresses longer than this is cut.
const LISTED: usize = 3;

/// The printer of a built-in kind; one without its own gets its name and its time of creation.
pub(super) fn printer(group: &str, plural: &str) -> Printer {
    let (columns, cells): (_, fn(&Value, Instant) -> Vec<Value>) = match (group, plural) {
        ("", "namespaces") => (columns::NAMESPACES, namespace),
        ("", "configmaps") => (columns::CONFIGMAPS, config_map),
        ("", "secrets") => (columns::SECRETS, secret),
        ("", "services") => (columns::SERVICES, service),
        ("", "serviceaccounts") => (columns::SERVICEACCOUNTS, service_account),
        ("", "pods") => (columns::PODS, pod::cells),
        ("", "persistentvolumeclaims") => (columns::PERSISTENTVOLUMECLAIMS, persistent_volume_claim),
        ("" | "events.k8s.io", "events") => (columns::EVENTS, event),
        ("discovery.k8s.io", "endpointslices") => (columns::ENDPOINTSLICES, endpoint_slice),
        ("coordination.k8s.io", "leases") => (columns::LEASES, lease),
        ("admissionregistration.k8s.io", "mutatingwebhookconfigurations") => {
            (columns::MUTATINGWEBHOOKCONFIGURATIONS, webhooks)
        }
        ("apps", "deployments") => (columns::DEPLOYMENTS, deployment),
        ("apps", "replicasets") => (columns::REPLICASETS, replica_set),
        ("apps", "statefulsets") => (columns::STATEFULSETS, stateful_set),
        ("apps", "daemonsets") => (columns::DAEMONSETS, daemon_set),
        ("batch", "jobs") => (columns::JOBS, job),
        ("networking.k8s.io", "ingresses") => (columns::INGRESSES, ingress),
        ("rbac.authorization.k8s.io", "rolebindings") => (columns::ROLEBINDINGS, role_binding),
        ("rbac.authorization.k8s.io", "clusterrolebindings") => (columns::CLUSTERROLEBINDINGS, role_binding),
        _ => (DEFAULT, default),
    };
    Printer { columns, cells }
}

/// The printer of a Scale.
pub(super) fn scale() -> Printer {
    fn cells(scale: &Value, now: Instant) -> Vec<Value> {
        let replicas = |part: &str| int(&scale[part]["replicas"]).into();
        vec![name(scale), replicas("spec"), replicas("status"), age_cell(scale, now)]
    }
    Printer { columns: columns::SCALE, cells }
}

// === reading ===

pub(super) fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

pub(super) fn int(value: &Value) -> i64 {
    value.as_i64().unwrap_or_default()
}

pub(super) fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

pub(super) fn or<'a>(text: &'a str, instead: &'a str) -> &'a str {
    if text.is_empty() { instead } else { text }
}

fn entries(value: &Value) -> usize {
    value.as_object().map_or(0, serde_json::Map::len)
}

fn name(object: &Value) -> Value {
    text(&object["metadata"]["name"]).into()
}

pub(super) fn age_cell(object: &Value, now: Instant) -> Value {
    age(Instant::of_field(&object["metadata"]["creationTimestamp"]), now).into()
}

fn is_leaving(object: &Value) -> bool {
    !object["metadata"]["deletionTimestamp"].is_null()
}

/// Labels as `a=b,c=d`, sorted.
fn labels(map: &Value) -> String {
    let mut pairs: Vec<String> =
        map.as_object().into_iter().flatten().map(|(key, value)| format!("{key}={}", text(value))).collect();
    pairs.sort_unstable();
    or(&pairs.join(","), "<none>").to_owned()
}

/// A label selector in the form of a query, its keys sorted; `None` if an operator is none.
pub(crate) fn selector(selector: &Value) -> Option<String> {
    let exact = selector["matchLabels"].as_object().into_iter().flatten();
    let mut terms: Vec<(&str, String)> =
        exact.map(|(key, value)| (key.as_str(), format!("{key}={}", text(value)))).collect();
    for expression in list(&selector["matchExpressions"]) {
        let key = text(&expression["key"]);
        let mut values: Vec<&str> = list(&expression["values"]).iter().map(text).collect();
        values.sort_unstable();
        let values = values.join(",");
        terms.push((
            key,
            match text(&expression["operator"]) {
                "In" => format!("{key} in ({values})"),
                "NotIn" => format!("{key} notin ({values})"),
                "Exists" => key.to_owned(),
                "DoesNotExist" => format!("!{key}"),
                _ => return None,
            },
        ));
    }
    terms.sort_by_key(|(key, _)| *key);
    Some(terms.into_iter().map(|(_, term)| term).collect::<Vec<_>>().join(","))
}

fn selector_cell(object: &Value) -> Value {
    match selector(&object["spec"]["selector"]) {
        Some(text) => or(&text, "<none>").into(),
        None => "<error>".into(),
    }
}

/// The names and the images of a workload's containers.
fn containers(object: &Value) -> [Value; 2] {
    let containers = list(&object["spec"]["template"]["spec"]["containers"]);
    ["name", "image"]
        .map(|field| containers.iter().map(|container| text(&container[field])).collect::<Vec<_>>().join(",").into())
}

/// The first few of a list, and how many more there are.
fn listed<S: AsRef<str>>(all: &[S]) -> String {
    let shown: Vec<&str> = all.iter().take(LISTED).map(AsRef::as_ref).collect();
    let shown = shown.join(",");
    match all.len().checked_sub(LISTED) {
        Some(more) if more > 0 => format!("{shown} + {more} more..."),
        _ => or(&shown, "<unset>").to_owned(),
    }
}

/// The addresses of a load balancer, sorted, each once.
fn balancer(object: &Value) -> String {
    let ingress = list(&object["status"]["loadBalancer"]["ingress"]);
    let addresses: BTreeSet<&str> = ingress
        .iter()
        .map(|point| or(text(&point["ip"]), text(&point["hostname"])))
        .filter(|a| !a.is_empty())
        .collect();
    addresses.into_iter().collect::<Vec<_>>().join(",")
}

// === kinds ===

fn default(object: &Value, _: Instant) -> Vec<Value> {
    let created = object["metadata"]["creationTimestamp"].as_str().unwrap_or("0001-01-01T00:00:00Z");
    vec![name(object), created.into()]
}

fn namespace(object: &Value, now: Instant) -> Vec<Value> {
    vec![name(object), text(&object["status"]["phase"]).into(), age_cell(object, now)]
}

fn config_map(object: &Value, now: Instant) -> Vec<Value> {
    vec![name(object), (entries(&object["data"]) + entries(&object["binaryData"])).into(), age_cell(object, now)]
}

fn secret(object: &Value, now: Instant) -> Vec<Value> {
    vec![name(object), text(&object["type"]).into(), entries(&object["data"]).into(), age_cell(object, now)]
}

fn service_account(object: &Value, now: Instant) -> Vec<Value> {
    vec![name(object), age_cell(object, now)]
}

fn service(object: &Value, now: Instant) -> Vec<Value> {
    let spec = &object["spec"];
    let ports: Vec<String> = list(&spec["ports"])
        .iter()
        .map(|port| match (int(&port["port"]), int(&port["nodePort"]), text(&port["protocol"])) {
            (number, node, protocol) if node > 0 => format!("{number}:{node}/{protocol}"),
            (number, _, protocol) => format!("{number}/{protocol}"),
        })
        .collect();
    let internal = list(&spec["clusterIPs"]).first().map_or("<none>", text);
    vec![
        name(object),
        text(&spec["type"]).into(),
        internal.into(),
        external_addresses(object).into(),
        or(&ports.join(","), "<none>").into(),
        age_cell(object, now),
        labels(&spec["selector"]).into(),
    ]
}

fn external_addresses(service: &Value) -> String {
    let spec = &service["spec"];
    let own = list(&spec["externalIPs"]).iter().map(text).collect::<Vec<_>>().join(",");
    match text(&spec["type"]) {
        "ClusterIP" | "NodePort" => or(&own, "<none>").to_owned(),
        "LoadBalancer" => {
            let balancer = balancer(service);
            let separator = if balancer.is_empty() || own.is_empty() { "" } else { "," };
            or(&format!("{balancer}{separator}{own}"), "<pending>").to_owned()
        }
        "ExternalName" => text(&spec["externalName"]).to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn persistent_volume_claim(object: &Value, now: Instant) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let phase = if is_leaving(object) { "Terminating" } else { text(&status["phase"]) };
    let volume = text(&spec["volumeName"]);
    let (capacity, modes) = if volume.is_empty() {
        ("", String::new())
    } else {
        let granted: Vec<&str> = list(&status["accessModes"]).iter().map(text).collect();
        let short =
            [("ReadWriteOnce", "RWO"), ("ReadOnlyMany", "ROX"), ("ReadWriteMany", "RWX"), ("ReadWriteOncePod", "RWOP")];
        let modes: Vec<&str> =
            short.into_iter().filter(|(mode, _)| granted.contains(mode)).map(|(_, short)| short).collect();
        (status["capacity"]["storage"].as_str().unwrap_or("0"), modes.join(","))
    };
    let class = object["metadata"]["annotations"]["volume.beta.kubernetes.io/storage-class"]
        .as_str()
        .unwrap_or_else(|| text(&spec["storageClassName"]));
    vec![
        name(object),
        phase.into(),
        volume.into(),
        capacity.into(),
        modes.into(),
        class.into(),
        spec["volumeAttributesClassName"].as_str().unwrap_or("<unset>").into(),
        age_cell(object, now),
        spec["volumeMode"].as_str().unwrap_or("<unset>").into(),
    ]
}

fn event(object: &Value, now: Instant) -> Vec<Value> {
    // The two groups name the same fields differently.
    let field = |core: &str, group: &str| match &object[core] {
        Value::Null => &object[group],
        value => value,
    };
    let time = |value: &Value| Instant::of_field(value);
    let (mut first, mut last) = (
        time(field("firstTimestamp", "deprecatedFirstTimestamp")),
        time(field("lastTimestamp", "deprecatedLastTimestamp")),
    );
    if first == Instant::ZERO {
        first = time(&object["eventTime"]);
    }
    if last == Instant::ZERO {
        last = first;
    }
    let mut count = int(field("count", "deprecatedCount"));
    let series = &object["series"];
    if !series.is_null() {
        last = time(&series["lastObservedTime"]);
        count = int(&series["count"]);
    } else if count == 0 {
        count = 1;
    }
    let about = field("involvedObject", "regarding");
    let (kind, target) = (text(&about["kind"]).to_lowercase(), text(&about["name"]));
    let target = if target.is_empty() { kind } else { format!("{kind}/{target}") };
    let source = field("source", "deprecatedSource");
    let component = or(text(&source["component"]), text(field("reportingComponent", "reportingController")));
    let instance = or(text(&source["host"]), text(&object["reportingInstance"]));
    let source = if instance.is_empty() { component.to_owned() } else { format!("{component}, {instance}") };
    vec![
        age(last, now).into(),
        text(&object["type"]).into(),
        text(&object["reason"]).into(),
        target.into(),
        text(&about["fieldPath"]).into(),
        source.into(),
        text(field("message", "note")).trim().into(),
        age(first, now).into(),
        count.into(),
        name(object),
    ]
}

fn endpoint_slice(object: &Value, now: Instant) -> Vec<Value> {
    let ports: Vec<String> = list(&object["ports"])
        .iter()
        .map(|port| match (port["port"].as_i64(), port["name"].as_str()) {
            (Some(number), _) => number.to_string(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => "*".to_owned(),
        })
        .collect();
    let addresses: Vec<&str> =
        list(&object["endpoints"]).iter().flat_map(|endpoint| list(&endpoint["addresses"])).map(text).collect();
    vec![
        name(object),
        text(&object["addressType"]).into(),
        listed(&ports).into(),
        listed(&addresses).into(),
        age_cell(object, now),
    ]
}

fn lease(object: &Value, now: Instant) -> Vec<Value> {
    vec![name(object), text(&object["spec"]["holderIdentity"]).into(), age_cell(object, now)]
}

fn webhooks(object: &Value, now: Instant) -> Vec<Value> {
    vec![name(object), object["webhooks"].as_array().map_or(0, Vec::len).into(), age_cell(object, now)]
}

fn deployment(object: &Value, now: Instant) -> Vec<Value> {
    let status = &object["status"];
    let [names, images] = containers(object);
    vec![
        name(object),
        format!("{}/{}", int(&status["readyReplicas"]), int(&object["spec"]["replicas"])).into(),
        int(&status["updatedReplicas"]).into(),
        int(&status["availableReplicas"]).into(),
        age_cell(object, now),
        names,
        images,
        selector(&object["spec"]["selector"]).unwrap_or_else(|| "<invalid>".to_owned()).into(),
    ]
}

fn replica_set(object: &Value, now: Instant) -> Vec<Value> {
    let status = &object["status"];
    let [names, images] = containers(object);
    vec![
        name(object),
        int(&object["spec"]["replicas"]).into(),
        int(&status["replicas"]).into(),
        int(&status["readyReplicas"]).into(),
        age_cell(object, now),
        names,
        images,
        selector_cell(object),
    ]
}

fn stateful_set(object: &Value, now: Instant) -> Vec<Value> {
    let [names, images] = containers(object);
    let ready = format!("{}/{}", int(&object["status"]["readyReplicas"]), int(&object["spec"]["replicas"]));
    vec![name(object), ready.into(), age_cell(object, now), names, images]
}

fn daemon_set(object: &Value, now: Instant) -> Vec<Value> {
    let status = |field: &str| Value::from(int(&object["status"][field]));
    let [names, images] = containers(object);
    vec![
        name(object),
        status("desiredNumberScheduled"),
        status("currentNumberScheduled"),
        status("numberReady"),
        status("updatedNumberScheduled"),
        status("numberAvailable"),
        labels(&object["spec"]["template"]["spec"]["nodeSelector"]).into(),
        age_cell(object, now),
        names,
        images,
        selector_cell(object),
    ]
}

fn job(object: &Value, now: Instant) -> Vec<Value> {
    let (spec, status) = (&object["spec"], &object["status"]);
    let succeeded = int(&status["succeeded"]);
    let completions = match (spec["completions"].as_i64(), int(&spec["parallelism"])) {
        (Some(wanted), _) => format!("{succeeded}/{wanted}"),
        (None, parallel) if parallel > 1 => format!("{succeeded}/1 of {parallel}"),
        (None, _) => format!("{succeeded}/1"),
    };
    let duration = match (&status["startTime"], &status["completionTime"]) {
        (Value::Null, _) => String::new(),
        (start, Value::Null) => human_duration(now.nanos_since(Instant::of_field(start))),
        (start, end) => human_duration(Instant::of_field(end).nanos_since(Instant::of_field(start))),
    };
    let has = |kind: &str| {
        let condition = list(&status["conditions"]).iter().find(|condition| text(&condition["type"]) == kind);
        condition.is_some_and(|condition| text(&condition["status"]) == "True")
    };
    let state = match () {
        () if has("Complete") => "Complete",
        () if has("Failed") => "Failed",
        () if is_leaving(object) => "Terminating",
        () => {
            ["Suspended", "FailureTarget", "SuccessCriteriaMet"].into_iter().find(|kind| has(kind)).unwrap_or("Running")
        }
    };
    let [names, images] = containers(object);
    vec![
        name(object),
        state.into(),
        completions.into(),
        duration.into(),
        age_cell(object, now),
        names,
        images,
        selector_cell(object),
    ]
}

fn ingress(object: &Value, now: Instant) -> Vec<Value> {
    let spec = &object["spec"];
    let rules = list(&spec["rules"]);
    let mut hosts: Vec<&str> = Vec::new();
    let mut more = false;
    for rule in rules {
        more |= hosts.len() == LISTED;
        let host = text(&rule["host"]);
        if !more && !host.is_empty() {
            hosts.push(host);
        }
    }
    let shown = hosts.join(",");
    let shown = match () {
        () if hosts.is_empty() => "*".to_owned(),
        // The real server counts rules here, with those that name no host.
        () if more => format!("{shown} + {} more...", rules.len() - LISTED),
        () => shown,
    };
    let ports = if list(&spec["tls"]).is_empty() { "80" } else { "80, 443" };
    vec![
        name(object),
        spec["ingressClassName"].as_str().unwrap_or("<none>").into(),
        shown.into(),
        balancer(object).into(),
        ports.into(),
        age_cell(object, now),
    ]
}

fn role_binding(object: &Value, now: Instant) -> Vec<Value> {
    let role = &object["roleRef"];
    let subjects = |kind: &str| {
        let named = list(&object["subjects"]).iter().filter(|subject| text(&subject["kind"]) == kind);
        named
            .map(|subject| match (kind, text(&subject["name"])) {
                ("ServiceAccount", name) => format!("{}/{name}", text(&subject["namespace"])),
                (_, name) => name.to_owned(),
            })
            .collect::<Vec<_>>()
            .join(", ")
    };
    vec![
        name(object),
        format!("{}/{}", text(&role["kind"]), text(&role["name"])).into(),
        age_cell(object, now),
        subjects("User").into(),
        subjects("Group").into(),
        subjects("ServiceAccount").into(),
    ]
}
