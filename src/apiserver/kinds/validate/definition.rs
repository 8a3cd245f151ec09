//! Checks of CustomResourceDefinitions, but for their schemas.
//!
//! The real server checks an internal form, in which what all versions have in common stands once, outside `versions`.
//! Fields are named as in that form.

use serde_json::Value;

use super::{Check, list, text};
use crate::field_error::{FieldError, go_quote};
use crate::kinds::names;

pub(super) fn definition(check: &mut Check<'_>, object: &Value, old: Option<&Value>) {
    let spec = &object["spec"];
    match old {
        Some(old) => check.metadata_update(object, Some(old)),
        None => {
            check.metadata(object, names::dns_subdomain);
            let name = text(&object["metadata"], "name");
            if name != format!("{}.{}", text(&spec["names"], "plural"), text(spec, "group")) {
                check.invalid_text("metadata.name", name, "must be spec.names.plural+\".\"+spec.group");
            }
        }
    }
    group_and_scope(check, spec);
    versions(check, spec);
    all_names(check, &spec["names"]);
    shared(check, spec);
    stored(check, object);
    if let Some(old) = old {
        let accepted = list(&old["status"], "conditions")
            .iter()
            .any(|condition| condition["type"] == "Established" && condition["status"] == "True");
        if accepted {
            check.immutable(&["spec", "scope"], object, old);
            check.immutable(&["spec", "names", "kind"], object, old);
        }
        check.immutable(&["spec", "group"], object, old);
        check.immutable(&["spec", "names", "plural"], object, old);
    }
}

fn group_and_scope(check: &mut Check<'_>, spec: &Value) {
    let group = text(spec, "group");
    let faults = names::dns_subdomain(group);
    if group.is_empty() {
        check.required("spec.group", "");
    } else if !faults.is_empty() {
        check.invalid_text("spec.group", group, faults.join(","));
    } else if !group.contains('.') {
        check.invalid_text("spec.group", group, "should be a domain with at least one dot");
    }
    match text(spec, "scope") {
        "" => check.required("spec.scope", ""),
        scope => check.one_of("spec.scope", scope, &["Cluster", "Namespaced"]),
    }
    for (i, version) in list(spec, "versions").iter().enumerate() {
        if version["schema"]["openAPIV3Schema"].is_null() {
            check.required(format!("spec.versions[{i}].schema.openAPIV3Schema"), "");
        }
    }
}

/// What all versions have in common, if they do.
fn common<'a>(spec: &'a Value, field: &str) -> Option<&'a Value> {
    let versions = list(spec, "versions");
    let first = &versions.first()?[field];
    (!first.is_null() && versions.iter().all(|version| version[field] == *first)).then_some(first)
}

fn versions(check: &mut Check<'_>, spec: &Value) {
    let versions = list(spec, "versions");
    for (i, version) in versions.iter().enumerate() {
        let at = format!("spec.versions[{i}]");
        let name = text(version, "name");
        let faults = names::dns_1035_label(name);
        if !faults.is_empty() {
            check.invalid_text(format!("{at}.name"), name, faults.join(","));
        }
        if let (Some(warning), false) = (version["deprecationWarning"].as_str(), version["deprecated"] == true) {
            let why = "can only be set for deprecated versions";
            check.invalid_text(format!("{at}.deprecationWarning"), warning, why);
        }
        if common(spec, "subresources").is_none() {
            subresources(check, &format!("{at}.subresources"), &version["subresources"]);
        }
        if common(spec, "additionalPrinterColumns").is_none() {
            columns(check, &format!("{at}.additionalPrinterColumns"), list(version, "additionalPrinterColumns"));
        }
    }
    let printed = internal_versions(spec);
    let is_double = |(i, version): (usize, &Value)| versions[..i].iter().any(|other| other["name"] == version["name"]);
    if versions.iter().enumerate().any(is_double) {
        check.invalid("spec.versions", &printed, "must contain unique version names");
    }
    if versions.iter().filter(|version| version["storage"] == true).count() != 1 {
        check.invalid("spec.versions", printed, "must have exactly one version marked as storage version");
    }
    // The internal form names the first version outside the list, too.
    if let Some(name) = versions.first().map(|version| text(version, "name")).filter(|name| !name.is_empty()) {
        let faults = names::dns_1035_label(name);
        if !faults.is_empty() {
            check.invalid_text("spec.version", name, faults.join(","));
        }
    }
}

/// The versions as Go prints the internal type, without what they hold.
fn internal_versions(spec: &Value) -> String {
    let versions = list(spec, "versions");
    if versions.is_empty() {
        return "null".to_owned();
    }
    let one = |version: &Value| {
        format!(
            "{{\"Name\":{},\"Served\":{},\"Storage\":{},\"Deprecated\":{},\"DeprecationWarning\":{},\"Schema\":null,\"Subresources\":null,\"AdditionalPrinterColumns\":null,\"SelectableFields\":null}}",
            Value::from(text(version, "name")),
            version["served"] == true,
            version["storage"] == true,
            version["deprecated"] == true,
            version["deprecationWarning"],
        )
    };
    format!("[{}]", versions.iter().map(one).collect::<Vec<_>>().join(","))
}

fn all_names(check: &mut Check<'_>, all: &Value) {
    for name in ["plural", "singular", "kind", "listKind"] {
        if text(all, name).is_empty() {
            check.required(format!("spec.names.{name}"), "");
        }
    }
    for name in ["plural", "singular", "kind", "listKind"] {
        let value = text(all, name);
        let mixed = name.ends_with("ind");
        let checked = if mixed { value.to_lowercase() } else { value.to_owned() };
        let faults = names::dns_1035_label(&checked);
        if !value.is_empty() && !faults.is_empty() {
            let before = if mixed { "may have mixed case, but should otherwise match: " } else { "" };
            check.invalid_text(format!("spec.names.{name}"), value, format!("{before}{}", faults.join(",")));
        }
    }
    let lists = |check: &mut Check<'_>, name: &str| {
        for (i, value) in list(all, name).iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            let faults = names::dns_1035_label(value);
            if !faults.is_empty() {
                check.invalid_text(format!("spec.names.{name}[{i}]"), value, faults.join(","));
            }
        }
    };
    lists(check, "shortNames");
    let (kind, list_kind) = (text(all, "kind"), text(all, "listKind"));
    if !kind.is_empty() && kind == list_kind {
        check.invalid_text("spec.names.listKind", list_kind, "kind and listKind may not be the same");
    }
    lists(check, "categories");
}

fn shared(check: &mut Check<'_>, spec: &Value) {
    if let Some(common) = common(spec, "subresources") {
        subresources(check, "spec.subresources", common);
    }
    if let Some(common) = common(spec, "additionalPrinterColumns") {
        columns(check, "spec.additionalPrinterColumns", common.as_array().map_or(&[], Vec::as_slice));
    }
    let strategy = text(&spec["conversion"], "strategy");
    check.one_of("spec.conversion.strategy", strategy, &["None", "Webhook"]);
}

fn simple_path(check: &mut Check<'_>, field: &str, path: &str) -> bool {
    if path.starts_with('.') {
        return true;
    }
    check.invalid_text(field, path, "must be a simple json path starting with .");
    false
}

fn subresources(check: &mut Check<'_>, at: &str, subresources: &Value) {
    let scale = &subresources["scale"];
    if scale.is_null() {
        return;
    }
    for (name, root) in [("specReplicasPath", ".spec"), ("statusReplicasPath", ".status")] {
        let (field, path) = (format!("{at}.scale.{name}"), text(scale, name));
        if path.is_empty() {
            check.required(field, "");
        } else if simple_path(check, &field, path) && !path.starts_with(&format!("{root}.")) {
            check.invalid_text(field, path, format!("should be a json path under {root}"));
        }
    }
    let (field, path) = (format!("{at}.scale.labelSelectorPath"), text(scale, "labelSelectorPath"));
    let known = path.starts_with(".spec.") || path.starts_with(".status.");
    if !path.is_empty() && simple_path(check, &field, path) && !known {
        check.invalid_text(field, path, "should be a json path under either .spec or .status");
    }
}

/// Types and formats of printer columns.
const TYPES: [&str; 5] = ["boolean", "date", "integer", "number", "string"];
const FORMATS: [&str; 8] = ["byte", "date", "date-time", "double", "float", "int32", "int64", "password"];

fn columns(check: &mut Check<'_>, at: &str, columns: &[Value]) {
    for (i, column) in columns.iter().enumerate() {
        let at = format!("{at}[{i}]");
        let [name, kind, format, path] = ["name", "type", "format", "jsonPath"].map(|name| text(column, name));
        if name.is_empty() {
            check.required(format!("{at}.name"), "");
        }
        let words = format!("must be one of {}", TYPES.join(","));
        if kind.is_empty() {
            check.required(format!("{at}.type"), &words);
        } else if !TYPES.contains(&kind) {
            check.invalid_text(format!("{at}.type"), kind, words);
        }
        if !format.is_empty() && !FORMATS.contains(&format) {
            check.invalid_text(format!("{at}.format"), format, format!("must be one of {}", FORMATS.join(",")));
        }
        let field = format!("{at}.JSONPath");
        if path.is_empty() {
            check.required(field, "");
        } else {
            simple_path(check, &field, path);
        }
    }
}

fn stored(check: &mut Check<'_>, object: &Value) {
    let field = "status.storedVersions";
    let stored = list(&object["status"], "storedVersions");
    if stored.is_empty() {
        check.invalid(field, "null", "must have at least one stored version");
        return;
    }
    let versions = list(&object["spec"], "versions");
    for (i, name) in stored.iter().enumerate() {
        if !versions.iter().any(|version| version["name"] == *name) {
            let name = name.as_str().unwrap_or_default();
            let why = format!(
                "missing from spec.versions; {name} was previously a storage version, and must remain in spec.versions until a storage migration ensures no data remains persisted in {name} and removes {name} from status.storedVersions"
            );
            check.errors.push(FieldError::invalid(format!("{field}[{i}]"), go_quote(name), why));
        }
    }
}
