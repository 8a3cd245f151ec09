//! Checks of deployments, replica sets, stateful sets and daemon sets.

use serde_json::Value;

use super::{Check, claim, list, pod, text};
use crate::field_error::{FieldError, go_quote};
use crate::kinds::names;

pub(super) fn deployment(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    metadata(check, object, old, names::dns_subdomain);
    let spec = &object["spec"];
    check.nonnegative("spec.replicas", &spec["replicas"]);
    selector_and_template(check, object, "deployment");
    strategy(check, &spec["strategy"]);
    check.nonnegative("spec.minReadySeconds", &spec["minReadySeconds"]);
    check.nonnegative("spec.revisionHistoryLimit", &spec["revisionHistoryLimit"]);
    check.nonnegative("spec.progressDeadlineSeconds", &spec["progressDeadlineSeconds"]);
    let number = |name: &str| spec[name].as_i64().unwrap_or_default();
    if number("progressDeadlineSeconds") <= number("minReadySeconds") {
        let value = number("progressDeadlineSeconds").to_string();
        check.invalid("spec.progressDeadlineSeconds", value, "must be greater than minReadySeconds");
    }
    if let Some(old) = old {
        check.immutable(&["spec", "selector"], object, old);
    }
}

pub(super) fn replica_set(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    metadata(check, object, old, names::dns_subdomain);
    check.all_nonnegative("spec", &object["spec"], &["replicas", "minReadySeconds"]);
    selector_and_template(check, object, "deployment");
    if let Some(old) = old {
        check.immutable(&["spec", "selector"], object, old);
    }
}

fn metadata(check: &mut Check<'_>, object: &Value, old: Option<&Value>, rule: names::NameRule) {
    match old {
        Some(_) => check.metadata_update(object, old),
        None => check.metadata(object, rule),
    }
}

/// The selector, for which the words name a kind, and the template of pods that run forever.
fn selector_and_template(check: &mut Check<'_>, object: &Value, kind: &str) {
    let spec = &object["spec"];
    selector(check, spec, kind);
    if names::selects(&spec["selector"], &Value::Null).is_none() {
        let value = check.print(&["spec", "selector"], &spec["selector"]);
        check.invalid("spec.selector", value, "invalid label selector");
        return;
    }
    // A selector that selects everything isn't one that the template could miss.
    if !(spec["selector"].is_object() && is_empty(&spec["selector"])) {
        check.selects_template(spec);
    }
    pod::template(check, "spec.template", &spec["template"]);
    runs_forever(check, &spec["template"], "ReplicaSet");
}

fn is_empty(selector: &Value) -> bool {
    list(selector, "matchExpressions").is_empty()
        && selector["matchLabels"].as_object().is_none_or(serde_json::Map::is_empty)
}

fn selector(check: &mut Check<'_>, spec: &Value, kind: &str) {
    let selector = &spec["selector"];
    if selector.is_null() {
        check.required("spec.selector", "");
        return;
    }
    names::selector(&mut check.errors, "spec.selector", selector);
    if is_empty(selector) {
        check.invalid("spec.selector", "{}", format!("empty selector is invalid for {kind}"));
    }
}

fn runs_forever(check: &mut Check<'_>, template: &Value, kind: &str) {
    check.one_of("spec.template.spec.restartPolicy", text(&template["spec"], "restartPolicy"), &["Always"]);
    if !template["spec"]["activeDeadlineSeconds"].is_null() {
        let why = format!("activeDeadlineSeconds in {kind} is not Supported");
        check.forbidden("spec.template.spec.activeDeadlineSeconds", why);
    }
}

/// A strategy as Go prints the internal type, when it has a type that is none.
fn internal_strategy(strategy: &Value) -> String {
    format!("{{\"Type\":{},\"RollingUpdate\":null}}", Value::from(text(strategy, "type")))
}

fn strategy(check: &mut Check<'_>, strategy: &Value) {
    match text(strategy, "type") {
        "Recreate" => {
            if !strategy["rollingUpdate"].is_null() {
                let why = "may not be specified when strategy `type` is 'Recreate'";
                check.forbidden("spec.strategy.rollingUpdate", why);
            }
        }
        "RollingUpdate" => {
            let at = "spec.strategy.rollingUpdate";
            let (unavailable, surge) =
                (&strategy["rollingUpdate"]["maxUnavailable"], &strategy["rollingUpdate"]["maxSurge"]);
            int_or_percent(check, &format!("{at}.maxUnavailable"), unavailable);
            int_or_percent(check, &format!("{at}.maxSurge"), surge);
            if amount(unavailable) == 0 && amount(surge) == 0 {
                let value = print(unavailable);
                check.invalid(format!("{at}.maxUnavailable"), value, "may not be 0 when `maxSurge` is 0");
            }
            at_most_all(check, &format!("{at}.maxUnavailable"), unavailable);
        }
        _ => {
            let value = internal_strategy(strategy);
            check.errors.push(FieldError::not_supported("spec.strategy", value, &["Recreate", "RollingUpdate"]));
        }
    }
}

fn print(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), go_quote)
}

fn int_or_percent(check: &mut Check<'_>, field: &str, value: &Value) {
    match value {
        Value::String(text) => check.named(field, text, names::percent(text)),
        other => check.nonnegative(field, other),
    }
}

/// The number before a percent sign.
fn percentage(value: &Value) -> Option<i64> {
    value.as_str().filter(|text| names::percent(text).is_empty())?.trim_end_matches('%').parse().ok()
}

fn amount(value: &Value) -> i64 {
    percentage(value).or_else(|| value.as_i64()).unwrap_or_else(|| text_number(value))
}

/// What intstr's IntValue makes of a text.
fn text_number(value: &Value) -> i64 {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn at_most_all(check: &mut Check<'_>, field: &str, value: &Value) {
    if percentage(value).is_some_and(|percentage| percentage > 100) {
        check.invalid(field, print(value), "must not be greater than 100%");
    }
}

pub(super) fn daemon_set(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    metadata(check, object, old, names::dns_subdomain);
    if let Some(old) = old {
        check.immutable(&["spec", "selector"], object, old);
    }
    let spec = &object["spec"];
    names::selector(&mut check.errors, "spec.selector", &spec["selector"]);
    check.selects_template(spec);
    if spec["selector"].is_object() && is_empty(&spec["selector"]) {
        check.invalid("spec.selector", "{}", "empty selector is invalid for daemonset");
    }
    pod::template(check, "spec.template", &spec["template"]);
    runs_forever(check, &spec["template"], "DaemonSet");
    check.nonnegative("spec.minReadySeconds", &spec["minReadySeconds"]);
    let strategy = &spec["updateStrategy"];
    match text(strategy, "type") {
        "OnDelete" => {}
        "RollingUpdate" => daemon_rolling(check, &strategy["rollingUpdate"]),
        _ => {
            let value = internal_strategy(strategy);
            check.errors.push(FieldError::not_supported("spec.updateStrategy", value, &["RollingUpdate", "OnDelete"]));
        }
    }
    check.nonnegative("spec.revisionHistoryLimit", &spec["revisionHistoryLimit"]);
}

fn daemon_rolling(check: &mut Check<'_>, rolling: &Value) {
    let at = "spec.updateStrategy.rollingUpdate";
    let fields = ["maxUnavailable", "maxSurge"];
    for field in fields {
        int_or_percent(check, &format!("{at}.{field}"), &rolling[field]);
    }
    for field in fields {
        at_most_all(check, &format!("{at}.{field}"), &rolling[field]);
    }
    match fields.map(|field| amount(&rolling[field]) != 0) {
        [true, true] => {
            let value = print(&rolling["maxSurge"]);
            check.invalid(format!("{at}.maxSurge"), value, "may not be set when maxUnavailable is non-zero");
        }
        [false, false] => check.required(format!("{at}.maxUnavailable"), "cannot be 0 when maxSurge is 0"),
        _ => {}
    }
}

/// What of a stateful set an update may change.
const STATEFUL_MUTABLE: [&str; 7] = [
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
];

pub(super) fn stateful_set(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    metadata(check, object, old, names::dns_label);
    let spec = &object["spec"];
    let policy = text(spec, "podManagementPolicy");
    if !matches!(policy, "OrderedReady" | "Parallel") {
        check.invalid_text("spec.podManagementPolicy", policy, "must be 'OrderedReady' or 'Parallel'");
    }
    stateful_strategy(check, &spec["updateStrategy"]);
    for name in ["whenDeleted", "whenScaled"] {
        let at = format!("spec.persistentVolumeClaimRetentionPolicy.{name}");
        check.one_of(at, text(&spec["persistentVolumeClaimRetentionPolicy"], name), &["Retain", "Delete"]);
    }
    if old.is_none() {
        for (i, template) in list(spec, "volumeClaimTemplates").iter().enumerate() {
            claim::spec(check, &format!("spec.volumeClaimTemplates[{i}].spec"), &template["spec"]);
        }
    }
    check.all_nonnegative("spec", spec, &["replicas", "minReadySeconds"]);
    check.nonnegative("spec.ordinals.start", &spec["ordinals"]["start"]);
    let service = text(spec, "serviceName");
    if old.is_none() && !service.is_empty() {
        check.named("spec.serviceName", service, names::dns_label(service));
    }
    selector(check, spec, "statefulset");
    if names::selects(&spec["selector"], &Value::Null).is_none() {
        let value = check.print(&["spec", "selector"], &spec["selector"]);
        check.invalid("spec.selector", value, "");
    } else {
        if !(spec["selector"].is_object() && is_empty(&spec["selector"])) {
            check.selects_template(spec);
        }
        pod::template(check, "spec.template", &completed(spec));
        let metadata = &spec["template"]["metadata"];
        names::labels(&mut check.errors, "spec.template.labels", &metadata["labels"]);
        names::annotations(&mut check.errors, "spec.template.annotations", &metadata["annotations"]);
    }
    runs_forever(check, &spec["template"], "StatefulSet");
    if let Some(old) = old {
        let fixed = |object: &Value| -> Vec<(String, Value)> {
            let members = object["spec"].as_object().into_iter().flatten();
            members
                .filter(|(name, _)| !STATEFUL_MUTABLE.contains(&name.as_str()))
                .map(|(n, v)| (n.clone(), v.clone()))
                .collect()
        };
        if fixed(object) != fixed(old) {
            let names: Vec<String> = STATEFUL_MUTABLE.iter().map(|name| format!("'{name}'")).collect();
            let (last, first) = names
                .split_last()
                .map_or((String::new(), String::new()), |(last, first)| (last.clone(), first.join(", ")));
            let why = format!("updates to statefulset spec for fields other than {first} and {last} are forbidden");
            check.forbidden("spec", why);
        }
    }
}

/// The template with what the controller adds: the volumes of its claims.
fn completed(spec: &Value) -> Value {
    let mut template = spec["template"].clone();
    let claims: Vec<&str> =
        list(spec, "volumeClaimTemplates").iter().map(|claim| text(&claim["metadata"], "name")).collect();
    if !claims.is_empty() {
        let volumes = claims
            .iter()
            .map(|name| serde_json::json!({ "name": name, "persistentVolumeClaim": { "claimName": name } }));
        let own =
            list(&template["spec"], "volumes").iter().filter(|volume| !claims.contains(&text(volume, "name"))).cloned();
        let volumes: Vec<Value> = volumes.chain(own).collect();
        template["spec"]["volumes"] = volumes.into();
    }
    for name in ["subdomain", "hostname"] {
        if let Some(spec) = template["spec"].as_object_mut() {
            spec.remove(name);
        }
    }
    template
}

fn stateful_strategy(check: &mut Check<'_>, strategy: &Value) {
    let at = "spec.updateStrategy.rollingUpdate";
    let rolling = &strategy["rollingUpdate"];
    match text(strategy, "type") {
        "OnDelete" => {
            if !rolling.is_null() {
                let value = internal_rolling(rolling);
                check.invalid(at, value, "only allowed for updateStrategy 'RollingUpdate'");
            }
        }
        "RollingUpdate" => {
            check.nonnegative(format!("{at}.partition"), &rolling["partition"]);
        }
        _ => {
            let value = internal_strategy(strategy);
            check.invalid("spec.updateStrategy", value, "must be 'RollingUpdate' or 'OnDelete'");
        }
    }
}

/// As Go prints the internal type.
fn internal_rolling(rolling: &Value) -> String {
    let partition = rolling["partition"].as_i64().unwrap_or_default();
    format!("{{\"Partition\":{partition},\"MaxUnavailable\":null}}")
}

pub(super) fn status(check: &mut Check<'_>, object: &Value, old: &Value) {
    let status = &object["status"];
    let number = |name: &str| status[name].as_i64().unwrap_or_default();
    let (counts, parts, ready): (&[&str], &[&str], &str) = match check.kind.plural.as_str() {
        "deployments" => (
            &[
                "observedGeneration",
                "replicas",
                "updatedReplicas",
                "readyReplicas",
                "availableReplicas",
                "unavailableReplicas",
                "terminatingReplicas",
                "collisionCount",
            ],
            &["updatedReplicas", "readyReplicas", "availableReplicas"],
            "readyReplicas",
        ),
        "replicasets" => (
            &[
                "replicas",
                "fullyLabeledReplicas",
                "readyReplicas",
                "availableReplicas",
                "observedGeneration",
                "terminatingReplicas",
            ],
            &["fullyLabeledReplicas", "readyReplicas", "availableReplicas"],
            "readyReplicas",
        ),
        "statefulsets" => (
            &[
                "replicas",
                "readyReplicas",
                "currentReplicas",
                "updatedReplicas",
                "availableReplicas",
                "observedGeneration",
                "collisionCount",
            ],
            &["readyReplicas", "currentReplicas", "updatedReplicas", "availableReplicas"],
            "status.readyReplicas",
        ),
        _ => (
            &[
                "currentNumberScheduled",
                "numberMisscheduled",
                "desiredNumberScheduled",
                "numberReady",
                "observedGeneration",
                "updatedNumberScheduled",
                "numberAvailable",
                "numberUnavailable",
                "collisionCount",
            ],
            &[],
            "",
        ),
    };
    if check.kind.plural != "statefulsets" {
        check.metadata_update(object, Some(old));
    }
    check.all_nonnegative("status", status, counts);
    for part in parts {
        if number(part) > number("replicas") {
            check.invalid(format!("status.{part}"), number(part).to_string(), "cannot be greater than status.replicas");
        }
    }
    if !ready.is_empty() && number("availableReplicas") > number("readyReplicas") {
        let value = number("availableReplicas").to_string();
        check.invalid("status.availableReplicas", value, format!("cannot be greater than {ready}"));
    }
    if check.kind.plural == "statefulsets" {
        check.metadata_update(object, Some(old));
    }
    let collisions = |object: &Value| object["status"]["collisionCount"].as_i64();
    if check.kind.plural != "replicasets"
        && collisions(old).is_some_and(|had| collisions(object).is_none_or(|has| has < had))
    {
        let value = collisions(object).unwrap_or_default().to_string();
        check.invalid("status.collisionCount", value, "cannot be decremented");
    }
}
