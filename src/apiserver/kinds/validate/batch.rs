//! Checks of jobs.

use serde_json::Value;

use super::{Check, list, pod, text};
use crate::field_error::FieldError;
use crate::kinds::names;

/// The most pods at once of a job with indexes.
const MAX_INDEXED_PARALLELISM: i64 = 100_000;
/// Bytes of `managedBy`.
const MAX_MANAGED_BY: usize = 63;

pub(super) fn job(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    new(check, object);
    if let Some(old) = old {
        check.metadata_update(object, Some(old));
        spec(check, object);
        update(check, object, old);
    }
}

fn new(check: &mut Check<'_>, object: &Value) {
    check.metadata(object, names::dns_subdomain);
    generated_selector(check, object);
    spec(check, object);
    let wanted = &object["spec"];
    let completions = wanted["completions"].as_i64().unwrap_or_default();
    if wanted["completionMode"] == "Indexed" && completions > 0 {
        let name = text(&object["metadata"], "name");
        let host = format!("{name}-{}", completions - 1);
        if !names::dns_label(&host).is_empty() {
            let why = format!("will not able to create pod with invalid DNS label: {host}");
            check.invalid_text("metadata.name", name, why);
        }
    }
}

/// What the server adds unless told not to must be there.
fn generated_selector(check: &mut Check<'_>, object: &Value) {
    let spec = &object["spec"];
    if spec["manualSelector"] == true || spec["selector"].is_null() {
        return;
    }
    let (uid, name) = (text(&object["metadata"], "uid"), text(&object["metadata"], "name"));
    let expected = [
        ("controller-uid", uid),
        ("job-name", name),
        ("batch.kubernetes.io/controller-uid", uid),
        ("batch.kubernetes.io/job-name", name),
    ];
    let labels = &spec["template"]["metadata"]["labels"];
    for (key, value) in expected {
        let field = format!("spec.template.metadata.labels[{key}]");
        match labels.get(key).and_then(Value::as_str) {
            None => {
                let why = format!("must be '{value}'");
                check.required(field, &why);
            }
            Some(had) if had != value => {
                let printed = check.print(&["spec", "template", "metadata", "labels"], labels);
                check.invalid(field, printed, format!("must be '{value}'"));
            }
            Some(_) => {}
        }
    }
    let expected: Value = expected.iter().map(|(key, value)| ((*key).to_owned(), Value::from(*value))).collect();
    if names::selects(&spec["selector"], &expected) == Some(false) {
        let value = check.print(&["spec", "selector"], &spec["selector"]);
        check.invalid("spec.selector", value, "`selector` not auto-generated");
    }
}

fn spec(check: &mut Check<'_>, object: &Value) {
    let spec = &object["spec"];
    let counts = [
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ];
    check.all_nonnegative("spec", spec, &counts);
    if !spec["maxFailedIndexes"].is_null() && spec["backoffLimitPerIndex"].is_null() {
        check.required("spec.backoffLimitPerIndex", "when maxFailedIndexes is specified");
    }
    if let Some(manager) = spec["managedBy"].as_str() {
        managed_by(check, manager);
    }
    completion(check, spec);
    let failure = !spec["podFailurePolicy"].is_null();
    if let Some(policy) = spec["podReplacementPolicy"].as_str() {
        let known: &[&str] = if failure { &["Failed"] } else { &["Failed", "TerminatingOrFailed"] };
        check.one_of("spec.podReplacementPolicy", policy, known);
    }
    pod::template(check, "spec.template", &spec["template"]);
    let field = "spec.template.spec.restartPolicy";
    match text(&spec["template"]["spec"], "restartPolicy") {
        "Always" | "" => check.required(field, "valid values: \"OnFailure\", \"Never\""),
        "OnFailure" if failure => {
            check.invalid_text(field, "OnFailure", "only \"Never\" is supported when podFailurePolicy is specified");
        }
        policy => check.one_of(field, policy, &["OnFailure", "Never"]),
    }
    if spec["selector"].is_null() {
        check.required("spec.selector", "");
    } else {
        names::selector(&mut check.errors, "spec.selector", &spec["selector"]);
    }
    check.selects_template(spec);
}

fn managed_by(check: &mut Check<'_>, manager: &str) {
    let field = "spec.managedBy";
    match manager.split_once('/') {
        _ if manager.is_empty() => check.required(field, ""),
        Some((host, path)) if !host.is_empty() && !path.is_empty() => {
            check.named(field, host, names::dns_subdomain(host));
            let allowed = |b: u8| b.is_ascii_alphanumeric() || b"/-._~%!$&'()*+,;=:".contains(&b);
            if !path.bytes().all(allowed) {
                let why = "Invalid path (regex used for validation is '[A-Za-z0-9/\\-._~%!$&'()*+,;=:]+')";
                check.invalid_text(field, path, why);
            }
        }
        _ => check.invalid_text(field, manager, "must be a domain-prefixed path (such as \"acme.io/foo\")"),
    }
    if manager.len() > MAX_MANAGED_BY {
        check.errors.push(FieldError::too_long(field, MAX_MANAGED_BY as i64));
    }
}

fn completion(check: &mut Check<'_>, spec: &Value) {
    let number = |name: &str| spec[name].as_i64();
    let mode = text(spec, "completionMode");
    check.one_of("spec.completionMode", mode, &["NonIndexed", "Indexed"]);
    if mode == "Indexed" {
        if spec["completions"].is_null() {
            check.required("spec.completions", "when completion mode is Indexed");
        }
        if let Some(parallelism) = number("parallelism").filter(|parallelism| *parallelism > MAX_INDEXED_PARALLELISM) {
            let why =
                format!("must be less than or equal to {MAX_INDEXED_PARALLELISM} when completion mode is Indexed");
            check.invalid("spec.parallelism", parallelism.to_string(), why);
        }
        if let (Some(failed), Some(completions)) = (number("maxFailedIndexes"), number("completions"))
            && failed > completions
        {
            check.invalid("spec.maxFailedIndexes", failed.to_string(), "must be less than or equal to completions");
        }
    }
    if mode == "NonIndexed" {
        for name in ["backoffLimitPerIndex", "maxFailedIndexes"] {
            if let Some(value) = number(name) {
                check.invalid(format!("spec.{name}"), value.to_string(), "requires indexed completion mode");
            }
        }
    }
}

fn update(check: &mut Check<'_>, object: &Value, old: &Value) {
    let (new, before) = (&object["spec"], &old["spec"]);
    // Jobs with indexes may grow and shrink.
    let elastic =
        new["completionMode"] == "Indexed" && new["completions"] == new["parallelism"] && !new["completions"].is_null();
    if !elastic {
        check.immutable(&["spec", "completions"], object, old);
    }
    check.immutable(&["spec", "selector"], object, old);
    let template = immutable_template(&new["template"]);
    let suspended = before["suspend"] == true && old["status"]["startTime"].is_null();
    let mut had = before["template"].clone();
    if suspended {
        // Where its pods may run can still be changed; and what they may use.
        for name in ["nodeSelector", "tolerations", "schedulingGates", "affinity"] {
            take(&mut had["spec"], &new["template"]["spec"], name);
        }
        for list_name in ["containers", "initContainers"] {
            for (i, container) in list(&new["template"]["spec"], list_name).iter().enumerate() {
                if had["spec"][list_name][i]["name"] == container["name"] {
                    take(&mut had["spec"][list_name][i], container, "resources");
                }
            }
        }
        take(&mut had, &new["template"], "metadata");
    }
    if template != immutable_template(&had) {
        let value = check.print(&["spec", "template"], &new["template"]);
        check.invalid("spec.template", value, "field is immutable");
    }
    for name in ["completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"] {
        check.immutable(&["spec", name], object, old);
    }
}

/// A template without empty metadata.
fn immutable_template(template: &Value) -> Value {
    let mut template = template.clone();
    if let Value::Object(members) = &mut template
        && members.get("metadata").and_then(Value::as_object).is_some_and(serde_json::Map::is_empty)
    {
        members.remove("metadata");
    }
    template
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
    let status = &object["status"];
    check.all_nonnegative("status", status, &["active", "succeeded", "failed", "ready", "terminating"]);
    let number = |name: &str| status[name].as_i64().unwrap_or_default();
    let is = |object: &Value, kind: &str| {
        list(&object["status"], "conditions")
            .iter()
            .any(|condition| condition["type"] == kind && condition["status"] == "True")
    };
    let (complete, failed) = (is(object, "Complete"), is(object, "Failed"));
    let conditions = "status.conditions";
    if complete && failed {
        check.invalid(conditions, "", "cannot set Complete=True and Failed=true conditions");
    }
    if complete && is(object, "FailureTarget") {
        check.invalid(conditions, "", "cannot set Complete=True and FailureTarget=true conditions");
    }
    if !status["completionTime"].is_null() && !complete {
        let value = check.print(&["status", "completionTime"], &status["completionTime"]);
        check.invalid(
            "status.completionTime",
            value,
            "cannot set completionTime when there is no Complete=True condition",
        );
    }
    if status["completionTime"].is_null() && complete {
        check.required("status.completionTime", "completionTime is required for Complete jobs");
    }
    if failed && !is(object, "FailureTarget") {
        check.invalid(conditions, "", "cannot set Failed=True condition without the FailureTarget=true condition");
    }
    if complete && !is(object, "SuccessCriteriaMet") {
        check.invalid(
            conditions,
            "",
            "cannot set Complete=True condition without the SuccessCriteriaMet=true condition",
        );
    }
    if number("active") > 0 && (complete || failed) {
        check.invalid("status.active", number("active").to_string(), "active>0 is invalid for finished job");
    }
    if status["startTime"].is_null() && (complete || failed) {
        check.required("status.startTime", "startTime is required for finished job");
    }
    if number("ready") > number("active") {
        check.invalid("status.ready", number("ready").to_string(), "cannot set more ready pods than active");
    }
    for kind in ["Failed", "Complete", "FailureTarget"] {
        if is(old, kind) && !is(object, kind) {
            check.invalid(conditions, "", format!("cannot disable the terminal {kind}=True condition"));
        }
    }
    for name in ["failed", "succeeded"] {
        if number(name) < old["status"][name].as_i64().unwrap_or_default() {
            check.invalid(
                format!("status.{name}"),
                number(name).to_string(),
                format!("cannot decrease the {name} counter"),
            );
        }
    }
}
