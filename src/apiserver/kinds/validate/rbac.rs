//! Checks of roles and their bindings.

use serde_json::Value;

use super::{Check, list, text};
use crate::field_error::{FieldError, go_quote};
use crate::kinds::names;

const GROUP: &str = "rbac.authorization.k8s.io";

pub(super) fn role(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    check.metadata(object, names::path_segment);
    for (i, rule) in list(object, "rules").iter().enumerate() {
        policy(check, rule, i);
    }
    if !object["aggregationRule"].is_null() {
        aggregate(check, &object["aggregationRule"]);
    }
    check.metadata_update(object, old);
}

fn aggregate(check: &mut Check<'_>, aggregation: &Value) {
    let selectors = list(aggregation, "clusterRoleSelectors");
    if selectors.is_empty() {
        let why = "at least one clusterRoleSelector required if aggregationRule is non-nil";
        check.required("aggregationRule.clusterRoleSelectors", why);
    }
    for (i, selector) in selectors.iter().enumerate() {
        let field = format!("aggregationRule.clusterRoleSelectors[{i}]");
        names::selector(&mut check.errors, &field, selector);
        if names::selects(selector, &Value::Null).is_none() {
            check.invalid(field, "null", "invalid label selector.");
        }
    }
}

fn policy(check: &mut Check<'_>, rule: &Value, i: usize) {
    let at = format!("rules[{i}]");
    let is_empty = |name: &str| list(rule, name).is_empty();
    if is_empty("verbs") {
        check.required(format!("{at}.verbs"), "verbs must contain at least one value");
    }
    if !is_empty("nonResourceURLs") {
        let field = format!("{at}.nonResourceURLs");
        let value = rule["nonResourceURLs"].to_string();
        if check.kind.namespaced {
            check.invalid(&field, &value, "namespaced rules cannot apply to non-resource URLs");
        }
        if !(is_empty("apiGroups") && is_empty("resources") && is_empty("resourceNames")) {
            check.invalid(&field, &value, "rules cannot apply to both regular resources and non-resource URLs");
        }
        return;
    }
    if is_empty("apiGroups") {
        check.required(format!("{at}.apiGroups"), "resource rules must supply at least one api group");
    }
    if is_empty("resources") {
        check.required(format!("{at}.resources"), "resource rules must supply at least one resource");
    }
}

pub(super) fn binding(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    check.metadata(object, names::path_segment);
    let role = &object["roleRef"];
    check.one_of("roleRef.apiGroup", text(role, "apiGroup"), &[GROUP]);
    let kinds: &[&str] = if check.kind.namespaced { &["Role", "ClusterRole"] } else { &["ClusterRole"] };
    check.one_of("roleRef.kind", text(role, "kind"), kinds);
    match text(role, "name") {
        "" => check.required("roleRef.name", ""),
        name => check.named("roleRef.name", name, names::path_segment(name)),
    }
    for (i, subject) in list(object, "subjects").iter().enumerate() {
        subject_of(check, subject, &format!("subjects[{i}]"));
    }
    check.metadata_update(object, old);
    if old.is_some_and(|old| old["roleRef"] != *role) {
        let [group, kind, name] = ["apiGroup", "kind", "name"].map(|name| Value::from(text(role, name)));
        let value = format!("{{\"APIGroup\":{group},\"Kind\":{kind},\"Name\":{name}}}");
        check.invalid("roleRef", value, "cannot change roleRef");
    }
}

fn subject_of(check: &mut Check<'_>, subject: &Value, at: &str) {
    let (name, group) = (text(subject, "name"), text(subject, "apiGroup"));
    if name.is_empty() {
        check.required(format!("{at}.name"), "");
    }
    match text(subject, "kind") {
        "ServiceAccount" => {
            if !name.is_empty() {
                check.named(&format!("{at}.name"), name, names::dns_subdomain(name));
            }
            check.one_of(format!("{at}.apiGroup"), group, &[""]);
            if !check.kind.namespaced && text(subject, "namespace").is_empty() {
                check.required(format!("{at}.namespace"), "");
            }
        }
        "User" | "Group" => check.one_of(format!("{at}.apiGroup"), group, &[GROUP]),
        kind => {
            let kinds = ["ServiceAccount", "User", "Group"];
            check.errors.push(FieldError::not_supported(format!("{at}.kind"), go_quote(kind), &kinds));
        }
    }
}
