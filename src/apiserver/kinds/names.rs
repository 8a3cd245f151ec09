//! Names, labels, selectors and metadata: what Kubernetes allows, and its words for what it doesn't.
//!
//! The rules are those of apimachinery's validation packages. A check that returns texts returns one for each fault.

use serde_json::Value;

use crate::field_error::{FieldError, go_quote};

const LABEL_REGEX: &str = "[a-z0-9]([-a-z0-9]*[a-z0-9])?";
const KEY_REGEX: &str = "([A-Za-z0-9][-A-Za-z0-9_.]*)?[A-Za-z0-9]";
/// The longest DNS label and the longest label value.
const MAX_LABEL: usize = 63;
/// The longest DNS name.
const MAX_SUBDOMAIN: usize = 253;
/// The longest port name (IANA service names).
const MAX_PORT_NAME: usize = 15;
/// Bytes of all annotations of an object.
const MAX_ANNOTATIONS: usize = 256 << 10;

fn regex_error(words: &str, regex: &str, examples: &[&str]) -> String {
    let examples: Vec<String> = examples.iter().map(|example| format!("'{example}', ")).collect();
    let examples = if examples.is_empty() { String::new() } else { format!("e.g. {}", examples.join(" or ")) };
    format!("{words} ({examples}regex used for validation is '{regex}')")
}

fn longer(text: &str, limit: usize, unit: &str) -> Vec<String> {
    if text.len() > limit { vec![format!("must be no more than {limit} {unit}")] } else { Vec::new() }
}

fn is_lower(b: u8) -> bool {
    b.is_ascii_lowercase() || b.is_ascii_digit()
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(|b| is_lower(*b))
        && bytes.last().is_some_and(|b| is_lower(*b))
        && bytes.iter().all(|b| is_lower(*b) || *b == b'-')
}

fn is_key_name(text: &str) -> bool {
    let bytes = text.as_bytes();
    bytes.first().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
        && bytes.iter().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

/// An RFC 1123 label, e.g. the name of a namespace.
#[must_use]
pub fn dns_label(text: &str) -> Vec<String> {
    let mut faults = longer(text, MAX_LABEL, "characters");
    if !is_label(text) {
        faults.push(if text.split('.').all(is_label) {
            "must not contain dots".to_owned()
        } else {
            let words = "a lowercase RFC 1123 label must consist of lower case alphanumeric characters or '-', and must start and end with an alphanumeric character";
            regex_error(words, LABEL_REGEX, &["my-name", "123-abc"])
        });
    }
    faults
}

fn subdomain_in(text: &str, unit: &str) -> Vec<String> {
    let mut faults = longer(text, MAX_SUBDOMAIN, unit);
    if !text.split('.').all(is_label) {
        let words = "a lowercase RFC 1123 subdomain must consist of lower case alphanumeric characters, '-' or '.', and must start and end with an alphanumeric character";
        faults.push(regex_error(words, &format!("{LABEL_REGEX}(\\.{LABEL_REGEX})*"), &["example.com"]));
    }
    faults
}

/// An RFC 1123 subdomain, e.g. the name of most objects.
#[must_use]
pub fn dns_subdomain(text: &str) -> Vec<String> {
    subdomain_in(text, "characters")
}

/// A subdomain behind `*.`.
#[must_use]
pub fn wildcard_subdomain(text: &str) -> Vec<String> {
    let mut faults = longer(text, MAX_SUBDOMAIN, "characters");
    if !text.strip_prefix("*.").is_some_and(|rest| rest.split('.').all(is_label)) {
        let words = "a wildcard DNS-1123 subdomain must start with '*.', followed by a valid DNS subdomain, which must consist of lower case alphanumeric characters, '-' or '.' and end with an alphanumeric character";
        faults.push(regex_error(words, &format!("\\*\\.{LABEL_REGEX}(\\.{LABEL_REGEX})*"), &["*.example.com"]));
    }
    faults
}

/// A label that starts with a letter, e.g. the plural name of a CRD.
#[must_use]
pub fn dns_1035_label(text: &str) -> Vec<String> {
    let mut faults = longer(text, MAX_LABEL, "characters");
    if !is_label(text) || !text.starts_with(|c: char| c.is_ascii_lowercase()) {
        let words = "a DNS-1035 label must consist of lower case alphanumeric characters or '-', start with an alphabetic character, and end with an alphanumeric character";
        faults.push(regex_error(words, "[a-z]([-a-z0-9]*[a-z0-9])?", &["my-name", "abc-123"]));
    }
    faults
}

/// A name with an optional prefix, e.g. the key of a label.
#[must_use]
pub fn qualified(text: &str) -> Vec<String> {
    let words = "must consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
    let wrong = |before: &str| format!("{before} {}", regex_error(words, KEY_REGEX, &["MyName", "my.name", "123-abc"]));
    let mut faults = Vec::new();
    let name = match text.split_once('/') {
        None => text,
        Some((_, name)) if name.contains('/') => {
            let fault = wrong("a valid label key");
            return vec![format!("{fault} with an optional DNS subdomain prefix and '/' (e.g. 'example.com/MyName')")];
        }
        Some((prefix, name)) => {
            if prefix.is_empty() {
                faults.push("prefix part must be non-empty".to_owned());
            } else {
                faults.extend(subdomain_in(prefix, "bytes").into_iter().map(|fault| format!("prefix part {fault}")));
            }
            name
        }
    };
    if name.is_empty() {
        faults.push("name part must be non-empty".to_owned());
    } else if name.len() > MAX_LABEL {
        faults.push(format!("name part must be no more than {MAX_LABEL} bytes"));
    }
    if !is_key_name(name) {
        faults.push(wrong("name part"));
    }
    faults
}

/// The value of a label.
#[must_use]
pub fn label_value(text: &str) -> Vec<String> {
    let mut faults = longer(text, MAX_LABEL, "bytes");
    if !text.is_empty() && !is_key_name(text) {
        let words = "a valid label must be an empty string or consist of alphanumeric characters, '-', '_' or '.', and must start and end with an alphanumeric character";
        faults.push(regex_error(words, &format!("({KEY_REGEX})?"), &["MyValue", "my_value", "12345"]));
    }
    faults
}

/// A key of a config map or a secret.
#[must_use]
pub fn config_key(text: &str) -> Vec<String> {
    let mut faults = longer(text, MAX_SUBDOMAIN, "characters");
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.')) {
        let words = "a valid config key must consist of alphanumeric characters, '-', '_' or '.'";
        faults.push(regex_error(words, "[-._a-zA-Z0-9]+", &["key.name", "KEY_NAME", "key-name"]));
    }
    match text {
        "." | ".." => faults.push(format!("must not be '{text}'")),
        _ if text.starts_with("..") => faults.push("must not start with '..'".to_owned()),
        _ => {}
    }
    faults
}

/// A name that stands in a path, e.g. that of a role. A prefix of one may be `.`.
#[must_use]
pub fn path_segment(text: &str) -> Vec<String> {
    if matches!(text, "." | "..") {
        return vec![format!("may not be '{text}'")];
    }
    ["/", "%"].iter().filter(|part| text.contains(**part)).map(|part| format!("may not contain '{part}'")).collect()
}

/// The name of a port.
#[must_use]
pub fn port_name(text: &str) -> Vec<String> {
    let mut faults = longer(text, MAX_PORT_NAME, "characters");
    if text.is_empty() || !text.bytes().all(|b| is_lower(b) || b == b'-') {
        faults.push("must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)".to_owned());
    }
    if !text.bytes().any(|b| b.is_ascii_lowercase()) {
        faults.push("must contain at least one letter (a-z)".to_owned());
    }
    if text.contains("--") {
        faults.push("must not contain consecutive hyphens".to_owned());
    }
    if text.starts_with('-') || text.ends_with('-') {
        faults.push("must not begin or end with a hyphen".to_owned());
    }
    faults
}

/// The name of an environment variable.
#[must_use]
pub fn env_name(text: &str) -> Vec<String> {
    if text.bytes().all(|b| (b == b' ' || b.is_ascii_graphic()) && b != b'=') {
        return Vec::new();
    }
    vec!["a valid environment variable name must consist only of printable ASCII characters other than '='".to_owned()]
}

/// A percentage such as `25%`.
#[must_use]
pub fn percent(text: &str) -> Vec<String> {
    let number = text.strip_suffix('%').unwrap_or_default();
    if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
        return Vec::new();
    }
    let words = "a valid percent string must be a numeric string followed by an ending '%'";
    vec![regex_error(words, "[0-9]+%", &["1%", "93%"])]
}

/// The name of an HTTP header.
#[must_use]
pub fn header_name(text: &str) -> Vec<String> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-') {
        return Vec::new();
    }
    vec![regex_error(
        "a valid HTTP header must consist of alphanumeric characters or '-'",
        "[-A-Za-z0-9]+",
        &["X-Header-Name"],
    )]
}

/// Says each fault of a text at a field.
pub fn check(errors: &mut Vec<FieldError>, field: &str, text: &str, faults: impl IntoIterator<Item = String>) {
    errors.extend(faults.into_iter().map(|fault| FieldError::invalid(field, go_quote(text), fault)));
}

/// Checks labels.
pub fn labels(errors: &mut Vec<FieldError>, field: &str, labels: &Value) {
    for (key, value) in labels.as_object().into_iter().flatten() {
        check(errors, field, key, qualified(key));
        let value = value.as_str().unwrap_or_default();
        check(errors, field, value, label_value(value));
    }
}

/// Checks annotations.
pub fn annotations(errors: &mut Vec<FieldError>, field: &str, annotations: &Value) {
    let mut size = 0;
    for (key, value) in annotations.as_object().into_iter().flatten() {
        check(errors, field, key, qualified(&key.to_lowercase()));
        size += key.len() + value.as_str().map_or(0, str::len);
    }
    if size > MAX_ANNOTATIONS {
        errors.push(FieldError::too_long(field, MAX_ANNOTATIONS as i64));
    }
}

/// Checks a label selector. Null is none.
pub fn selector(errors: &mut Vec<FieldError>, field: &str, selector: &Value) {
    labels(errors, &format!("{field}.matchLabels"), &selector["matchLabels"]);
    for (i, term) in selector["matchExpressions"].as_array().into_iter().flatten().enumerate() {
        let at = format!("{field}.matchExpressions[{i}]");
        let operator = term["operator"].as_str().unwrap_or_default();
        let values = term["values"].as_array().map_or(&[][..], Vec::as_slice);
        match operator {
            "In" | "NotIn" if values.is_empty() => {
                let words = "must be specified when `operator` is 'In' or 'NotIn'";
                errors.push(FieldError::required(format!("{at}.values"), words));
            }
            "Exists" | "DoesNotExist" if !values.is_empty() => {
                let words = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'";
                errors.push(FieldError::forbidden(format!("{at}.values"), words));
            }
            "In" | "NotIn" | "Exists" | "DoesNotExist" => {}
            _ => {
                let words = "not a valid selector operator";
                errors.push(FieldError::invalid(format!("{at}.operator"), go_quote(operator), words));
            }
        }
        let key = term["key"].as_str().unwrap_or_default();
        check(errors, &format!("{at}.key"), key, qualified(key));
        for (j, value) in values.iter().enumerate() {
            let value = value.as_str().unwrap_or_default();
            check(errors, &format!("{at}.values[{j}]"), value, label_value(value));
        }
    }
}

/// Whether a label selector selects labels. Null selects nothing, an empty selector all. None if it is no selector.
#[must_use]
pub fn selects(selector: &Value, labels: &Value) -> Option<bool> {
    if selector.is_null() {
        return Some(false);
    }
    let mut selected = true;
    for (key, value) in selector["matchLabels"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default();
        if !(qualified(key).is_empty() && label_value(value).is_empty()) {
            return None;
        }
        selected &= labels.get(key).and_then(Value::as_str) == Some(value);
    }
    for term in selector["matchExpressions"].as_array().into_iter().flatten() {
        let key = term["key"].as_str().unwrap_or_default();
        let values = term["values"].as_array().map_or(&[][..], Vec::as_slice);
        let has = labels.get(key);
        let is_key = qualified(key).is_empty();
        let among = has.is_some_and(|has| values.contains(has));
        selected &= match term["operator"].as_str().unwrap_or_default() {
            _ if !is_key => return None,
            "In" if !values.is_empty() => among,
            "NotIn" if !values.is_empty() => !among,
            "Exists" if values.is_empty() => has.is_some(),
            "DoesNotExist" if values.is_empty() => has.is_none(),
            _ => return None,
        };
    }
    Some(selected)
}

/// A rule for the name of an object.
pub type NameRule = fn(&str) -> Vec<String>;

/// Checks the metadata of an object.
pub fn metadata(errors: &mut Vec<FieldError>, object: &Value, namespaced: bool, rule: NameRule) {
    let metadata = &object["metadata"];
    let text = |name: &str| metadata[name].as_str().unwrap_or_default();
    let prefix = text("generateName");
    if !prefix.is_empty() {
        check(errors, "metadata.generateName", prefix, rule(&masked(prefix)));
    }
    match text("name") {
        "" => errors.push(FieldError::required("metadata.name", "name or generateName is required")),
        name => check(errors, "metadata.name", name, rule(name)),
    }
    match (namespaced, text("namespace")) {
        (true, "") => errors.push(FieldError::required("metadata.namespace", "")),
        (true, namespace) => check(errors, "metadata.namespace", namespace, dns_label(namespace)),
        (false, "") => {}
        (false, _) => errors.push(FieldError::forbidden("metadata.namespace", "not allowed on this type")),
    }
    labels(errors, "metadata.labels", &metadata["labels"]);
    annotations(errors, "metadata.annotations", &metadata["annotations"]);
    owners(errors, &metadata["ownerReferences"]);
    finalizers(errors, &metadata["finalizers"]);
}

/// A prefix of a name may end in a dash: something will follow it.
fn masked(prefix: &str) -> String {
    match prefix.strip_suffix('-') {
        Some(rest) if !rest.is_empty() => {
            let mut rest = rest.to_owned();
            rest.pop();
            rest + "a"
        }
        _ => prefix.to_owned(),
    }
}

fn owners(errors: &mut Vec<FieldError>, owners: &Value) {
    let field = "metadata.ownerReferences";
    let mut controller = String::new();
    for owner in owners.as_array().into_iter().flatten() {
        let text = |name: &str| owner[name].as_str().unwrap_or_default();
        let api_version = text("apiVersion");
        // What isn't a group and a version has none.
        let version =
            if api_version.matches('/').count() > 1 { "" } else { api_version.rsplit('/').next().unwrap_or_default() };
        if version.is_empty() {
            errors.push(FieldError::invalid(
                format!("{field}.apiVersion"),
                go_quote(api_version),
                "version must not be empty",
            ));
        }
        for name in ["kind", "name", "uid"] {
            if text(name).is_empty() {
                errors.push(FieldError::invalid(format!("{field}.{name}"), "\"\"", "must not be empty"));
            }
        }
        if api_version == "v1" && text("kind") == "Event" {
            let value = super::shape::go_json(OWNED, &["metadata", "ownerReferences"], owner);
            errors.push(FieldError::invalid(field, value, "/v1, Kind=Event is disallowed from being an owner"));
        }
        if owner["controller"] == true {
            let this = format!("{}/{}", text("kind"), text("name"));
            if controller.is_empty() {
                controller = this;
            } else {
                let value = super::shape::go_json(OWNED, &["metadata", "ownerReferences"], owners);
                let words = format!(
                    "Only one reference can have Controller set to true. Found \"true\" in references for {controller} and {this}"
                );
                errors.push(FieldError::invalid(field, value, words));
            }
        }
    }
}

/// Any type with metadata.
const OWNED: &str = "k8s.io/api/core/v1.ConfigMap";

/// Whether the server itself knows a finalizer.
#[must_use]
pub fn is_standard_finalizer(name: &str) -> bool {
    matches!(name, "kubernetes" | "orphan" | "foregroundDeletion")
}

/// Checks that finalizers have a prefix, as those of most built-in kinds must.
pub fn full_finalizers(errors: &mut Vec<FieldError>, object: &Value) {
    for (i, name) in object["metadata"]["finalizers"].as_array().into_iter().flatten().enumerate() {
        let name = name.as_str().unwrap_or_default();
        if !name.contains('/') && !is_standard_finalizer(name) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            errors.push(FieldError::invalid(format!("metadata.finalizers[{i}]"), go_quote(name), why));
        }
    }
}

fn finalizers(errors: &mut Vec<FieldError>, finalizers: &Value) {
    let field = "metadata.finalizers";
    let names: Vec<&str> = finalizers.as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    for name in &names {
        check(errors, field, name, qualified(name));
    }
    if names.contains(&"orphan") && names.contains(&"foregroundDeletion") {
        let words = "finalizer orphan and foregroundDeletion cannot be both set";
        errors.push(FieldError::invalid(field, finalizers.to_string(), words));
    }
}

/// Checks the metadata of an update: what it may not change, and labels, annotations and owners once more.
pub fn metadata_update(errors: &mut Vec<FieldError>, object: &Value, old: &Value) {
    let (new, old) = (&object["metadata"], &old["metadata"]);
    if !old["deletionTimestamp"].is_null() {
        let had = old["finalizers"].as_array().map_or(&[][..], Vec::as_slice);
        let mut added: Vec<String> = new["finalizers"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|finalizer| !had.contains(finalizer))
            .filter_map(Value::as_str)
            .map(go_quote)
            .collect();
        added.sort_unstable();
        added.dedup();
        if !added.is_empty() {
            let words = format!(
                "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{}}}",
                added.join(", ")
            );
            errors.push(FieldError::forbidden("metadata.finalizers", words));
        }
    }
    for name in ["name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        if new[name] != old[name] {
            let value = match &new[name] {
                Value::String(text) => go_quote(text),
                other => other.to_string(),
            };
            errors.push(FieldError::invalid(format!("metadata.{name}"), value, "field is immutable"));
        }
    }
    labels(errors, "metadata.labels", &new["labels"]);
    annotations(errors, "metadata.annotations", &new["annotations"]);
    owners(errors, &new["ownerReferences"]);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn names() {
        assert!(
            dns_label("a-1").is_empty() && dns_subdomain("a.b-c").is_empty() && wildcard_subdomain("*.a").is_empty()
        );
        assert_eq!(dns_label("a.b"), ["must not contain dots"]);
        assert_eq!(dns_label(&"a".repeat(64)), ["must be no more than 63 characters"]);
        assert_eq!(qualified(&"a".repeat(64)), ["name part must be no more than 63 bytes"]);
        assert_eq!(config_key("..x"), ["must not start with '..'"]);
        assert!(dns_1035_label("1a").len() == 1 && port_name("a--").len() == 2 && percent("%").len() == 1);
        assert_eq!(masked("ab-"), "aa");
    }

    #[test]
    fn selectors() {
        let labels = json!({ "a": "b" });
        let selects = |selector: Value| selects(&selector, &labels);
        assert_eq!(selects(json!({ "matchLabels": { "a": "b" } })), Some(true));
        assert_eq!(
            selects(json!({ "matchExpressions": [{ "key": "a", "operator": "NotIn", "values": ["b"] }] })),
            Some(false)
        );
        assert_eq!(selects(json!({ "matchExpressions": [{ "key": "c", "operator": "DoesNotExist" }] })), Some(true));
        assert_eq!(selects(json!({ "matchExpressions": [{ "key": "c", "operator": "Odd" }] })), None);
        assert_eq!((selects(json!({})), selects(Value::Null)), (Some(true), Some(false)));
    }

    #[test]
    fn a_dying_object_gets_no_finalizers() {
        let old = json!({ "metadata": { "deletionTimestamp": "t", "finalizers": ["a"] } });
        let new = json!({ "metadata": { "deletionTimestamp": "t", "finalizers": ["a", "b"] } });
        let mut errors = Vec::new();
        metadata_update(&mut errors, &new, &old);
        assert_eq!(
            errors[0].to_string(),
            "metadata.finalizers: Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers []string{\"b\"}"
        );
    }
}
