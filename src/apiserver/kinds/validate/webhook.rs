//! Checks of webhook configurations.
//!
//! CEL of match conditions isn't compiled here, and a bundle isn't read: what can't be used fails when it is to be.

use std::collections::HashSet;

use serde_json::Value;

use super::{Check, list, text};
use crate::kinds::names;

/// Labels of a fully qualified name.
const MIN_SEGMENTS: usize = 3;
/// Seconds that a webhook may be given.
const MAX_TIMEOUT: i64 = 30;
/// Match conditions of a webhook.
const MAX_CONDITIONS: usize = 64;
/// Versions of the review that the real server knows; the old one was v1's forerunner.
const REVIEW_VERSIONS: [&str; 2] = ["v1", "v1beta1"];
const URL_FORM: &str = "; desired format: https://host[/path]";

pub(super) fn configuration(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    check.metadata_update(object, old);
    check.metadata(object, names::dns_subdomain);
    let mut seen = HashSet::new();
    for (i, webhook) in list(object, "webhooks").iter().enumerate() {
        let at = format!("webhooks[{i}]");
        one(check, &at, webhook);
        review_versions(check, &format!("{at}.admissionReviewVersions"), &webhook["admissionReviewVersions"]);
        let name = text(webhook, "name");
        if !name.is_empty() && !seen.insert(name) {
            check.duplicate(format!("{at}.name"), crate::field_error::go_quote(name));
        }
    }
}

fn one(check: &mut Check<'_>, at: &str, webhook: &Value) {
    let field = |name: &str| format!("{at}.{name}");
    let name = text(webhook, "name");
    let faults = names::dns_subdomain(name);
    if name.is_empty() {
        check.required(field("name"), "");
    } else if !faults.is_empty() {
        check.invalid_text(field("name"), name, faults.join(","));
    } else if name.split('.').count() < MIN_SEGMENTS {
        let why = "should be a domain with at least three segments separated by dots";
        check.invalid_text(field("name"), name, why);
    }
    for (i, one) in list(webhook, "rules").iter().enumerate() {
        rule(check, &format!("{at}.rules[{i}]"), one);
    }
    check.one_of(field("failurePolicy"), text(webhook, "failurePolicy"), &["Fail", "Ignore"]);
    check.one_of(field("matchPolicy"), text(webhook, "matchPolicy"), &["Equivalent", "Exact"]);
    match webhook["sideEffects"].as_str() {
        None => check.required(field("sideEffects"), "must specify one of None, NoneOnDryRun"),
        Some(effects) => check.one_of(field("sideEffects"), effects, &["None", "NoneOnDryRun"]),
    }
    let seconds = webhook["timeoutSeconds"].as_i64().unwrap_or_default();
    if !(1..=MAX_TIMEOUT).contains(&seconds) {
        let why = "the timeout value must be between 1 and 30 seconds";
        check.invalid(field("timeoutSeconds"), seconds.to_string(), why);
    }
    for selector in ["namespaceSelector", "objectSelector"] {
        names::selector(&mut check.errors, &field(selector), &webhook[selector]);
    }
    check.one_of(field("reinvocationPolicy"), text(webhook, "reinvocationPolicy"), &["IfNeeded", "Never"]);
    client(check, &field("clientConfig"), &webhook["clientConfig"]);
    conditions(check, &field("matchConditions"), list(webhook, "matchConditions"));
}

/// A list that has to have something, in which `*` stands alone.
fn some_or_all(check: &mut Check<'_>, at: &str, values: &Value, others: &str) {
    let values = values.as_array().map_or(&[][..], Vec::as_slice);
    if values.is_empty() {
        check.required(at, "");
    }
    if values.len() > 1 && values.iter().any(|value| value == "*") {
        let all = Value::from(values).to_string();
        check.invalid(at, all, format!("if '*' is present, must not specify other {others}"));
    }
}

fn rule(check: &mut Check<'_>, at: &str, rule: &Value) {
    const OPERATIONS: [&str; 5] = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"];
    some_or_all(check, &format!("{at}.operations"), &rule["operations"], "operations");
    for (i, operation) in list(rule, "operations").iter().enumerate() {
        check.one_of(format!("{at}.operations[{i}]"), operation.as_str().unwrap_or_default(), &OPERATIONS);
    }
    some_or_all(check, &format!("{at}.apiGroups"), &rule["apiGroups"], "API groups");
    some_or_all(check, &format!("{at}.apiVersions"), &rule["apiVersions"], "API versions");
    for (i, _) in list(rule, "apiVersions").iter().enumerate().filter(|(_, version)| *version == "") {
        check.required(format!("{at}.apiVersions[{i}]"), "");
    }
    resources(check, &format!("{at}.resources"), list(rule, "resources"));
    check.one_of(format!("{at}.scope"), text(rule, "scope"), &["*", "Cluster", "Namespaced"]);
}

fn resources(check: &mut Check<'_>, at: &str, resources: &[Value]) {
    if resources.is_empty() {
        check.required(at, "");
    }
    let (mut whole, mut parts) = (HashSet::new(), HashSet::new());
    // As in the real server it is the last one without a slash that counts.
    let mut is_plain = false;
    for (i, named) in resources.iter().map(|named| named.as_str().unwrap_or_default()).enumerate() {
        let at = format!("{at}[{i}]");
        if named.is_empty() {
            check.required(at, "");
            continue;
        }
        let Some((resource, part)) = named.split_once('/') else {
            is_plain = named != "*";
            continue;
        };
        if whole.contains(resource) {
            check.invalid_text(&at, named, format!("if '{resource}/*' is present, must not specify {named}"));
        }
        if parts.contains(part) {
            check.invalid_text(&at, named, format!("if '*/{part}' is present, must not specify {named}"));
        }
        if part == "*" {
            whole.insert(resource);
        }
        if resource == "*" {
            parts.insert(part);
        }
    }
    let (has, all) = (|wanted: &str| resources.iter().any(|named| named == wanted), Value::from(resources).to_string());
    if resources.len() > 1 && has("*/*") {
        check.invalid(at, all.as_str(), "if '*/*' is present, must not specify other resources");
    }
    if is_plain && has("*") {
        check.invalid(at, all, "if '*' is present, must not specify other resources without subresources");
    }
}

fn client(check: &mut Check<'_>, at: &str, client: &Value) {
    match (client["url"].as_str(), &client["service"]) {
        (Some(to), Value::Null) => url(check, &format!("{at}.url"), to),
        (None, service @ Value::Object(_)) => {
            // The real server takes these two for each other.
            for (field, named) in [("name", "namespace"), ("namespace", "name")] {
                if text(service, named).is_empty() {
                    check.required(format!("{at}.service.{field}"), "");
                }
            }
            let port = service["port"].as_i64().unwrap_or_default();
            if !(1..=65_535).contains(&port) {
                let why = "port is not valid: must be between 1 and 65535, inclusive";
                check.invalid(format!("{at}.service.port"), port.to_string(), why);
            }
            path(check, &format!("{at}.service.path"), text(service, "path"));
        }
        _ => check.required(at, "exactly one of url or service is required"),
    }
}

fn url(check: &mut Check<'_>, at: &str, url: &str) {
    let (scheme, rest) = url.split_once(':').unwrap_or(("", url));
    if scheme != "https" {
        check.invalid_text(at, scheme, format!("'https' is the only allowed URL scheme{URL_FORM}"));
    }
    let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let authority = rest.strip_prefix("//").map_or("", |rest| rest.split('/').next().unwrap_or_default());
    let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
    if host.is_empty() {
        check.invalid_text(at, host, format!("host must be specified{URL_FORM}"));
    }
    if let Some(user) = user {
        check.invalid_text(at, user, "user information is not permitted in the URL");
    }
    if !fragment.is_empty() {
        check.invalid_text(at, fragment, "fragments are not permitted in the URL");
    }
    if !query.is_empty() {
        check.invalid_text(at, query, "query parameters are not permitted in the URL");
    }
}

fn path(check: &mut Check<'_>, at: &str, path: &str) {
    if matches!(path, "" | "/") {
        return;
    }
    if path == "//" {
        return check.invalid_text(at, path, "segment[0] may not be empty");
    }
    let inner = path.strip_prefix('/');
    if inner.is_none() {
        check.invalid_text(at, path, "must start with a '/'");
    }
    let inner = inner.unwrap_or_else(|| path.split_at(path.chars().next().map_or(0, char::len_utf8)).1);
    for (i, step) in inner.strip_suffix('/').unwrap_or(inner).split('/').enumerate() {
        if step.is_empty() {
            check.invalid_text(at, path, format!("segment[{i}] may not be empty"));
            continue;
        }
        for fault in names::dns_subdomain(step) {
            check.invalid_text(at, path, format!("segment[{i}]: {fault}"));
        }
    }
}

fn conditions(check: &mut Check<'_>, at: &str, conditions: &[Value]) {
    if conditions.len() > MAX_CONDITIONS {
        let limit = i64::try_from(MAX_CONDITIONS).unwrap_or(i64::MAX);
        check.errors.push(crate::field_error::FieldError::too_many(at, conditions.len(), limit));
    }
    let mut seen = HashSet::new();
    for (i, condition) in conditions.iter().enumerate() {
        let field = |name: &str| format!("{at}[{i}].{name}");
        if text(condition, "expression").trim().is_empty() {
            check.required(field("expression"), "");
        }
        let name = text(condition, "name");
        if name.is_empty() {
            check.required(field("name"), "");
            continue;
        }
        check.named(&field("name"), name, names::qualified(name));
        if !seen.insert(name) {
            check.duplicate(field("name"), crate::field_error::go_quote(name));
        }
    }
}

fn review_versions(check: &mut Check<'_>, at: &str, versions: &Value) {
    let all = versions.as_array().map_or(&[][..], Vec::as_slice);
    if all.is_empty() {
        return check.required(at, "must specify one of v1, v1beta1");
    }
    let mut seen = HashSet::new();
    for (i, version) in all.iter().map(|version| version.as_str().unwrap_or_default()).enumerate() {
        let at = format!("{at}[{i}]");
        if seen.insert(version) {
            check.named(&at, version, names::dns_1035_label(version));
        } else {
            check.invalid_text(&at, version, "duplicate version");
        }
    }
    if !REVIEW_VERSIONS.iter().any(|known| seen.contains(known)) {
        check.invalid(at, versions.to_string(), "must include at least one of v1, v1beta1");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::kinds::{self, Part};

    fn configuration_with(change: impl Fn(&mut Value)) -> Value {
        let mut object = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "MutatingWebhookConfiguration",
            "metadata": { "name": "a" },
            "webhooks": [{
                "name": "a.b.c", "admissionReviewVersions": ["v1"], "sideEffects": "None",
                "clientConfig": { "url": "https://127.0.0.1:1/a" },
                "rules": [{ "operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"] }],
            }],
        });
        change(&mut object);
        let kind = kinds::find("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations").unwrap();
        let mut object = kinds::decode(kind, object).unwrap().object;
        kinds::default(kind, &mut object);
        object
    }

    fn faults(change: impl Fn(&mut Value)) -> Vec<String> {
        let object = configuration_with(change);
        let kind = kinds::find("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations").unwrap();
        kinds::validate(kind, &object, None, Part::Main).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn what_is_missing_is_as_at_the_real_server() {
        let service = json!({ "service": { "namespace": "n", "name": "s" } });
        let made = configuration_with(|object| object["webhooks"][0]["clientConfig"] = service.clone());
        let webhook = &made["webhooks"][0];
        assert_eq!(
            [&webhook["failurePolicy"], &webhook["matchPolicy"], &webhook["reinvocationPolicy"]],
            ["Fail", "Equivalent", "Never"]
        );
        assert_eq!((&webhook["namespaceSelector"], &webhook["objectSelector"]), (&json!({}), &json!({})));
        assert_eq!((&webhook["timeoutSeconds"], &webhook["rules"][0]["scope"]), (&json!(10), &json!("*")));
        assert_eq!(webhook["clientConfig"]["service"]["port"], 443);
    }

    #[test]
    fn each_fault_is_named() {
        assert_eq!(faults(|_| {}), Vec::<String>::new());
        let first = |change: &dyn Fn(&mut Value)| faults(|object| change(&mut object["webhooks"][0]));
        type Row<'a> = (&'a dyn Fn(&mut Value), &'a str);
        let rows: [Row<'_>; 12] = [
            (&|hook| hook["name"] = "a.b".into(), "webhooks[0].name: Invalid value: \"a.b\": should be a domain with"),
            (&|hook| hook["name"] = "".into(), "webhooks[0].name: Required value"),
            (&|hook| hook["sideEffects"] = Value::Null, "sideEffects: Required value: must specify one of None, None"),
            (&|hook| hook["sideEffects"] = "Some".into(), "sideEffects: Unsupported value: \"Some\": supported values"),
            (&|hook| hook["timeoutSeconds"] = 31.into(), "timeoutSeconds: Invalid value: 31: the timeout value must"),
            (
                &|hook| hook["admissionReviewVersions"] = json!([]),
                "admissionReviewVersions: Required value: must specify",
            ),
            (
                &|hook| hook["admissionReviewVersions"] = json!(["v2"]),
                "admissionReviewVersions: Invalid value: [\"v2\"]: must include at least one of v1, v1beta1",
            ),
            (&|hook| hook["clientConfig"] = json!({}), "clientConfig: Required value: exactly one of url or service"),
            (
                &|hook| hook["clientConfig"]["url"] = "http://a".into(),
                "url: Invalid value: \"http\": 'https' is the only",
            ),
            (&|hook| hook["clientConfig"]["url"] = "https://a?b".into(), "url: Invalid value: \"b\": query parameters"),
            (&|hook| hook["rules"][0]["operations"] = json!(["MAKE"]), "rules[0].operations[0]: Unsupported value"),
            (
                &|hook| hook["rules"][0]["resources"] = json!(["*", "pods"]),
                "resources: Invalid value: [\"*\",\"pods\"]: if '*' is present, must not specify other resources without",
            ),
        ];
        for (change, wanted) in rows {
            let faults = first(change);
            assert!(matches!(&*faults, [fault] if fault.contains(wanted)), "{wanted}: {faults:?}");
        }
        let twice = faults(|object| {
            let webhook = object["webhooks"][0].clone();
            object["webhooks"].as_array_mut().unwrap().push(webhook);
        });
        assert_eq!(twice, ["webhooks[1].name: Duplicate value: \"a.b.c\""]);
    }
}
