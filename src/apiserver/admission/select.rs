//! Which webhooks want to see a new object: their rules, and selectors of namespaces and objects.
//!
//! Values in, a decision out. Never converts: a rule matches the very version that the request names.

use serde_json::Value;

use super::Webhook;
use crate::kinds::names;

/// What is created, as rules see it.
pub(super) struct Place<'a> {
    pub(super) group: &'a str,
    pub(super) version: &'a str,
    pub(super) plural: &'a str,
    pub(super) namespaced: bool,
    /// Labels of the object's namespace; of an object without one, nothing.
    pub(super) namespace_labels: &'a Value,
}

impl Place<'_> {
    fn is_namespace(&self) -> bool {
        self.group.is_empty() && self.plural == "namespaces"
    }
}

/// Whether a webhook wants to see an object.
pub(super) fn wants(webhook: &Webhook<'_>, place: &Place<'_>, object: &Value) -> bool {
    let labels = &object["metadata"]["labels"];
    let home = match place {
        _ if place.is_namespace() => Some(labels),
        _ if place.namespaced => Some(place.namespace_labels),
        // Nobody is exempted from a webhook by a namespace that it hasn't.
        _ => None,
    };
    let rules = webhook.0["rules"].as_array().map_or(&[][..], Vec::as_slice);
    rules.iter().any(|rule| matches(rule, place))
        && home.is_none_or(|labels| selects(&webhook.0["namespaceSelector"], labels))
        && selects(&webhook.0["objectSelector"], labels)
}

/// Configurations are validated, and have their selectors.
fn selects(selector: &Value, labels: &Value) -> bool {
    names::selects(selector, labels).unwrap_or(false)
}

fn matches(rule: &Value, place: &Place<'_>) -> bool {
    let has = |field: &str, wanted: &str| {
        let mut values = rule[field].as_array().into_iter().flatten();
        values.any(|value| value == "*" || value == wanted)
    };
    let scope = match rule["scope"].as_str() {
        Some("Namespaced") => place.namespaced,
        Some("Cluster") => !place.namespaced,
        _ => true,
    };
    scope
        && has("operations", "CREATE")
        && has("apiGroups", place.group)
        && has("apiVersions", place.version)
        && resource(rule, place.plural)
}

/// `pods`, `*`, and the forms with a subresource that mean the object, too: `pods/*` and `*/*`.
fn resource(rule: &Value, plural: &str) -> bool {
    let named = rule["resources"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut parts = named.map(|named| named.split_once('/').unwrap_or((named, "")));
    parts.any(|(resource, part)| (resource == "*" || resource == plural) && matches!(part, "" | "*"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn webhook(change: impl Fn(&mut Value)) -> Value {
        let mut webhook = json!({
            "name": "a.b.c", "namespaceSelector": {}, "objectSelector": {},
            "rules": [{
                "operations": ["CREATE"], "apiGroups": ["x.y"], "apiVersions": ["v1"], "resources": ["things"],
                "scope": "*",
            }],
        });
        change(&mut webhook);
        webhook
    }

    fn wanted(place: &Place<'_>, object: &Value, change: impl Fn(&mut Value)) -> bool {
        wants(&Webhook(&webhook(change)), place, object)
    }

    #[test]
    fn rules_say_what_is_seen() {
        let labels = json!({});
        let thing =
            Place { group: "x.y", version: "v1", plural: "things", namespaced: true, namespace_labels: &labels };
        let rows = [
            ("operations", json!(["CREATE"]), true),
            ("operations", json!(["UPDATE", "*"]), true),
            ("operations", json!(["UPDATE", "DELETE"]), false),
            ("apiGroups", json!(["*"]), true),
            ("apiGroups", json!([""]), false),
            ("apiVersions", json!(["v2", "*"]), true),
            ("apiVersions", json!(["v2"]), false),
            ("resources", json!(["*"]), true),
            ("resources", json!(["*/*"]), true),
            ("resources", json!(["things/*"]), true),
            ("resources", json!(["things/status", "others"]), false),
            ("resources", json!(["*/status"]), false),
            ("scope", json!("Namespaced"), true),
            ("scope", json!("Cluster"), false),
        ];
        for (field, value, expected) in rows {
            let seen = wanted(&thing, &json!({}), |webhook| webhook["rules"][0][field] = value.clone());
            assert_eq!(seen, expected, "{field}: {value}");
        }
        assert!(!wanted(&thing, &json!({}), |webhook| webhook["rules"] = json!([])));
    }

    #[test]
    fn selectors_are_of_the_namespace_and_of_the_object() {
        let labels = json!({ "team": "a" });
        let of = |plural: &'static str, namespaced: bool| {
            let group = if plural == "namespaces" { "" } else { "x.y" };
            let home = if namespaced { &labels } else { &Value::Null };
            Place { group, version: "v1", plural, namespaced, namespace_labels: home }
        };
        let (thing, cluster, namespace) = (of("things", true), of("things", false), of("namespaces", false));
        let labelled = json!({ "metadata": { "labels": { "team": "b" } } });
        let selecting = |field: &'static str, team: &'static str| {
            move |webhook: &mut Value| {
                webhook[field] = json!({ "matchLabels": { "team": team } });
                webhook["rules"][0]["apiGroups"] = json!(["*"]);
                webhook["rules"][0]["resources"] = json!(["*"]);
            }
        };
        assert!(wanted(&thing, &labelled, selecting("namespaceSelector", "a")));
        assert!(!wanted(&thing, &labelled, selecting("namespaceSelector", "b")));
        assert!(wanted(&cluster, &labelled, selecting("namespaceSelector", "z")), "it has no namespace");
        assert!(wanted(&namespace, &labelled, selecting("namespaceSelector", "b")), "its own labels");
        assert!(!wanted(&namespace, &labelled, selecting("namespaceSelector", "a")));
        assert!(wanted(&thing, &labelled, selecting("objectSelector", "b")));
        assert!(!wanted(&thing, &json!({}), selecting("objectSelector", "b")));
    }
}
