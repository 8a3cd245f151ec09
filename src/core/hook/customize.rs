//! The customize hook: its request, and the rules of its reply that say which objects a parent is related to.
//!
//! Never decides which objects those are: see [`crate::related`].

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Map, Value};

use super::reply::{Error, Limits, MAX_NAME_CHARS, MAX_PROBLEM_CHARS, excerpt, shape, strange, text};
use super::values::check_values;
use crate::key::ApiVersion;
use crate::object::Object;
use crate::selector::Selector;

/// Rules of one reply.
pub const MAX_RULES: usize = 64;
/// Names in all rules of one reply.
pub const MAX_NAMES: usize = 1000;
/// The longest name of a group, version, resource, namespace or object, in bytes (Kubernetes: DNS subdomain).
const MAX_NAME_BYTES: usize = 253;

/// The fields of a reply, and of a rule.
const REPLY: [&str; 1] = ["relatedResources"];
const RULE: [&str; 6] = ["apiVersion", "resource", "labelSelector", "namespaceSelector", "namespace", "names"];

/// One rule as the hook wrote it, checked by itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RelatedRule {
    /// Group and version.
    pub api_version: ApiVersion,
    /// Plural name.
    pub resource: Arc<str>,
    /// Labels that an object must have, if any are asked for; never beside [`Self::names`].
    pub labels: Option<Selector>,
    /// Labels that an object's namespace must have; never beside [`Self::namespace`] or [`Self::names`].
    pub namespaces: Option<Selector>,
    /// The objects' namespace, if one is named.
    pub namespace: Option<Arc<str>>,
    /// The objects' names; any if there are none.
    pub names: BTreeSet<Arc<str>>,
}

/// The body of a request to the customize hook: `controller` and `parent`, for decorators too (contract, 1.5).
#[must_use]
pub fn customize_request(controller: &[u8], parent: &Object) -> Vec<u8> {
    let parts = [br#"{"controller":"#, controller, br#","parent":"#, parent.json(), b"}"];
    parts.concat()
}

/// Reads the customize hook's reply: its rules, and what was read loosely and deserves a log line.
///
/// # Errors
/// If it is beyond the limits, isn't of the protocol's shape, or (when `strict`) has unknown or duplicate fields; the text
/// names the rule and the field.
pub fn related_rules(body: &[u8], limits: Limits, strict: bool) -> Result<(Vec<RelatedRule>, Vec<String>), Error> {
    let text = text(body, limits)?;
    let raw: &RawValue = serde_json::from_str(text).map_err(|error| shape(format_args!("{error}")))?;
    check_values(raw, strict).map_err(|error| shape(format_args!("{error}")))?;
    let mut reply: Map<String, Value> =
        serde_json::from_str(text).map_err(|_| shape(format_args!("must be a JSON object")))?;
    let mut remarks = Vec::new();
    unknown(&reply, &REPLY, "", strict, &mut remarks)?;
    let rules = match reply.remove(REPLY[0]) {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(rules)) => rules,
        Some(_) => return Err(shape(format_args!("relatedResources: must be a list"))),
    };
    if rules.len() > MAX_RULES {
        return Err(Error::Rules { count: rules.len(), what: "rules", limit: MAX_RULES });
    }
    let mut read = Vec::with_capacity(rules.len());
    for (index, rule) in rules.into_iter().enumerate() {
        let fail = |problem: String| Error::Rule { index, problem: excerpt(&problem, MAX_PROBLEM_CHARS) };
        let Value::Object(rule) = rule else { return Err(fail(": must be a JSON object".to_owned())) };
        unknown(&rule, &RULE, &format!("relatedResources[{index}]."), strict, &mut remarks)?;
        read.push(self::rule(&rule).map_err(fail)?);
    }
    let names = read.iter().map(|rule| rule.names.len()).sum();
    if names > MAX_NAMES {
        return Err(Error::Rules { count: names, what: "names", limit: MAX_NAMES });
    }
    Ok((read, remarks))
}

fn unknown(
    object: &Map<String, Value>,
    known: &[&str],
    place: &str,
    strict: bool,
    remarks: &mut Vec<String>,
) -> Result<(), Error> {
    let name = object.keys().find(|name| !known.contains(&name.as_str()));
    let name = name.map(|name| format!("{place}{}", excerpt(name, MAX_NAME_CHARS)));
    let known = if place.is_empty() { "relatedResources" } else { "apiVersion, resource and what selects objects" };
    remarks.extend(strange(strict, name.into_iter().collect(), Vec::new(), known)?);
    Ok(())
}

fn rule(rule: &Map<String, Value>) -> Result<RelatedRule, String> {
    let text = |field: &str| match rule.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if text.is_empty() => Ok(None),
        Some(Value::String(text)) => name(text).map(Some).map_err(|problem| format!(".{field}: {problem}")),
        Some(_) => Err(format!(".{field}: must be a text")),
    };
    let selector = |field: &str| match rule.get(field) {
        None | Some(Value::Null) => Ok(None),
        Some(value) => Selector::from_json(value).map(Some).map_err(|error| format!(".{field}: {error}")),
    };
    let Some(resource) = text("resource")? else {
        return Err(".resource: is missing; give the plural name of a kind, such as configmaps".to_owned());
    };
    let read = RelatedRule {
        api_version: api_version(rule)?,
        resource,
        labels: selector("labelSelector")?,
        namespaces: selector("namespaceSelector")?,
        namespace: text("namespace")?,
        names: names(rule)?,
    };
    let excluded = [
        (!read.names.is_empty() && read.labels.is_some(), "labelSelector", "names"),
        (!read.names.is_empty() && read.namespaces.is_some(), "namespaceSelector", "names"),
        (read.namespace.is_some() && read.namespaces.is_some(), "namespaceSelector", "namespace"),
    ];
    match excluded.into_iter().find(|(given, ..)| *given) {
        Some((_, field, other)) => Err(format!(".{field}: can't stand beside {other}; use two rules")),
        None => Ok(read),
    }
}

fn api_version(rule: &Map<String, Value>) -> Result<ApiVersion, String> {
    let text = rule.get("apiVersion").and_then(Value::as_str).unwrap_or_default();
    let mut parts = text.split('/');
    let is_one = parts.clone().count() <= 2 && parts.all(|part| name(part).is_ok());
    if is_one {
        return Ok(ApiVersion::new(text));
    }
    Err(".apiVersion: must be group/version such as apps/v1, or v1 for the core group".to_owned())
}

fn names(rule: &Map<String, Value>) -> Result<BTreeSet<Arc<str>>, String> {
    let Some(names) = rule.get("names").filter(|names| !names.is_null()) else { return Ok(BTreeSet::new()) };
    let Value::Array(names) = names else { return Err(".names: must be a list of texts".to_owned()) };
    let each = names.iter().enumerate().map(|(at, value)| match value {
        Value::String(text) => name(text).map_err(|problem| format!(".names[{at}]: {problem}")),
        _ => Err(format!(".names[{at}]: must be a text")),
    });
    each.collect()
}

/// What may stand in a URL's path or query as a name (Kubernetes: IsValidPathSegmentName, and no spaces).
fn name(text: &str) -> Result<Arc<str>, String> {
    let is_bad = |c: char| c.is_control() || c.is_whitespace() || "/%?#,=".contains(c);
    if text.is_empty() || text == "." || text == ".." || text.len() > MAX_NAME_BYTES || text.chars().any(is_bad) {
        return Err(format!("isn't a valid name (1 to {MAX_NAME_BYTES} bytes, without spaces and '/')"));
    }
    Ok(text.into())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::tests::config_maps;

    fn read(rules: &Value, strict: bool) -> Result<(Vec<RelatedRule>, Vec<String>), String> {
        let body = json!({ "relatedResources": rules }).to_string();
        related_rules(body.as_bytes(), Limits::default(), strict).map_err(|error| error.to_string())
    }

    #[test]
    fn the_request_names_the_parent() {
        let parent = Object::of(&json!({"metadata": {"name": "p", "uid": "u"}}), &config_maps()).unwrap();
        let body: Value = serde_json::from_slice(&customize_request(br#"{"kind":"C"}"#, &parent)).unwrap();
        assert_eq!(body["controller"], json!({"kind": "C"}));
        assert_eq!(body["parent"]["metadata"]["name"], "p");
        assert_eq!(body.as_object().unwrap().len(), 2);
    }

    #[test]
    fn rules_are_read_whole() {
        let rules = json!([
            {"apiVersion": "v1", "resource": "configmaps", "namespace": "n", "names": ["b", "a", "b"]},
            {"apiVersion": "apps/v1", "resource": "deployments", "labelSelector": {"matchLabels": {"x": "y"}},
             "namespaceSelector": {}, "names": null, "namespace": ""},
            {"apiVersion": "v1", "resource": "namespaces", "labelSelector": {}},
        ]);
        let (rules, remarks) = read(&rules, true).unwrap();
        assert!(remarks.is_empty());
        assert_eq!(rules[0].names.iter().map(|name| &**name).collect::<Vec<_>>(), ["a", "b"]);
        assert_eq!((rules[0].namespace.as_deref(), &rules[0].labels), (Some("n"), &None));
        assert_eq!(rules[1].api_version.group(), "apps");
        assert_eq!(rules[1].labels, Some(Selector::parse("x=y").unwrap()));
        assert_eq!((&rules[1].namespaces, &rules[1].namespace), (&Some(Selector::everything()), &None));
        assert_eq!(rules[2].labels, Some(Selector::everything()));
        for nothing in ["{}", r#"{"relatedResources":null}"#] {
            assert_eq!(related_rules(nothing.as_bytes(), Limits::default(), true), Ok((Vec::new(), Vec::new())));
        }
    }

    #[test]
    fn what_is_wrong_is_named() {
        let rule = |name: &str, value: Value| {
            let mut rule = json!({"apiVersion": "v1", "resource": "configmaps"});
            rule[name] = value;
            read(&json!([{"apiVersion": "v1", "resource": "secrets"}, rule]), true).unwrap_err()
        };
        let wrong = [
            ("apiVersion", json!("../v1"), "relatedResources[1].apiVersion: must be group/version"),
            ("apiVersion", json!(null), "relatedResources[1].apiVersion: must be group/version"),
            ("apiVersion", json!("a/b/c"), "relatedResources[1].apiVersion: must be group/version"),
            ("resource", json!("config maps"), "relatedResources[1].resource: isn't a valid name"),
            ("resource", json!(null), "relatedResources[1].resource: is missing"),
            ("namespace", json!("a/b"), "relatedResources[1].namespace: isn't a valid name"),
            ("namespace", json!(1), "relatedResources[1].namespace: must be a text"),
            ("names", json!("a"), "relatedResources[1].names: must be a list"),
            ("names", json!(["a", ""]), "relatedResources[1].names[1]: isn't a valid name"),
            ("names", json!(["a", 1]), "relatedResources[1].names[1]: must be a text"),
            ("labelSelector", json!({"x": "y"}), "relatedResources[1].labelSelector: "),
            ("namespaceSelector", json!([]), "relatedResources[1].namespaceSelector: "),
            ("selector", json!({}), "relatedResources[1].selector: unknown field"),
        ];
        for (name, value, text) in wrong {
            let error = rule(name, value);
            assert!(error.starts_with(text), "{error}");
        }
        let both = |fields: Value| {
            let mut rule = json!({"apiVersion": "v1", "resource": "configmaps"});
            rule.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
            read(&json!([rule]), true).unwrap_err()
        };
        assert!(
            both(json!({"names": ["a"], "labelSelector": {}})).contains("[0].labelSelector: can't stand beside names")
        );
        assert!(both(json!({"names": ["a"], "namespaceSelector": {}})).contains("beside names"));
        assert!(both(json!({"namespace": "n", "namespaceSelector": {}})).contains("beside namespace;"));
        assert!(read(&json!({}), true).unwrap_err().contains("must be a list"));
        assert!(read(&json!([1]), true).unwrap_err().contains("[0]: must be a JSON object"));
        for bad in ["", "[]", "1", "{", r#"{"relatedResources":[],"relatedResources":[]}"#] {
            assert!(related_rules(bad.as_bytes(), Limits::default(), true).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_loose_reply_may_hold_more() {
        let rules = json!([{"apiVersion": "v1", "resource": "configmaps", "selector": {}}]);
        let (rules, remarks) = read(&rules, false).unwrap();
        assert_eq!((rules.len(), remarks.len()), (1, 1));
        let (rules, remarks) = related_rules(br#"{"status":{}}"#, Limits::default(), false).unwrap();
        assert_eq!((rules.len(), &*remarks[0]), (0, "status: unknown field in the reply"));
    }

    #[test]
    fn rules_and_names_are_bounded() {
        let rule = json!({"apiVersion": "v1", "resource": "configmaps"});
        assert!(read(&vec![rule.clone(); MAX_RULES].into(), true).is_ok());
        assert!(read(&vec![rule; MAX_RULES + 1].into(), true).unwrap_err().contains("65 rules are more"));
        let names: Vec<String> = (0..=MAX_NAMES).map(|at| format!("n{at}")).collect();
        let rule = json!([{"apiVersion": "v1", "resource": "configmaps", "names": names}]);
        assert!(read(&rule, true).unwrap_err().contains("1001 names are more"));
    }
}
