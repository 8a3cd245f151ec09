//! Which objects a parent is related to: the reach of a customize hook's rules, and the watches that show them.
//!
//! Never asks an API server: kinds are found, and objects watched, by whoever calls.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::controller::HookVersion;
use crate::hook::RelatedRule;
use crate::key::{ObjectKey, Resource};
use crate::object::Object;
use crate::selector::Selector;
use crate::watch::Selection;

/// A rule as it reaches from one parent, over one kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Related {
    /// The kind.
    pub resource: Arc<Resource>,
    /// The objects' namespace; `None` for all, and for those of a cluster-scoped kind.
    namespace: Option<Arc<str>>,
    names: BTreeSet<Arc<str>>,
    labels: Selector,
    namespaces: Option<Selector>,
}

/// How far a rule reaches from a parent in `home` (empty for a cluster-scoped parent), by the version of the customize hook
/// (contract, 1.6). `Ok(Err(why))` if it is a rule like others but reaches nothing.
///
/// # Errors
/// If the rule may not be: the text goes behind `relatedResources[i]`.
pub fn reach(
    rule: &RelatedRule,
    version: HookVersion,
    home: &str,
    resource: &Arc<Resource>,
) -> Result<Result<Related, String>, String> {
    let at_home = version == HookVersion::V1 && !home.is_empty();
    if at_home && let Some(other) = rule.namespace.as_deref().filter(|namespace| *namespace != home) {
        return Err(format!(
            ".namespace: is {other}, but with hook version v1 a parent in {home} sees objects there only; use v2"
        ));
    }
    if !resource.namespaced {
        if at_home {
            return Ok(Err(format!(
                ": {} are cluster-scoped, and with hook version v1 a namespaced parent sees none; use v2",
                resource.plural
            )));
        }
        if rule.namespace.is_some() || rule.namespaces.is_some() {
            return Ok(Err(format!(
                ": {} are cluster-scoped, and none is in a namespace; leave namespace and namespaceSelector out",
                resource.plural
            )));
        }
    }
    let namespace = if at_home { Some(home.into()) } else { rule.namespace.clone() };
    Ok(Ok(Related {
        resource: Arc::clone(resource),
        namespace,
        names: rule.names.clone(),
        labels: rule.labels.clone().unwrap_or_default(),
        namespaces: rule.namespaces.clone(),
    }))
}

impl Related {
    /// What the watches are to show that this rule needs: each name by itself, or what the labels select.
    #[must_use]
    pub fn selections(&self) -> Vec<Selection> {
        let namespace = self.namespace.as_deref().unwrap_or_default();
        let of =
            |name: &str, labels: String| Selection { namespace: namespace.to_owned(), name: name.to_owned(), labels };
        if self.names.is_empty() {
            return vec![of("", self.labels.to_string())];
        }
        self.names.iter().map(|name| of(name, String::new())).collect()
    }

    /// The keys of its objects, if their names and their namespace tell them.
    #[must_use]
    pub fn keys(&self) -> Option<Vec<ObjectKey>> {
        let is_known = !self.names.is_empty() && (self.namespace.is_some() || !self.resource.namespaced);
        let namespace = self.namespace.as_deref().unwrap_or_default();
        is_known.then(|| self.names.iter().map(|name| ObjectKey::new(namespace, name)).collect())
    }

    /// Whether labels of namespaces decide.
    #[must_use]
    pub fn asks_for_namespaces(&self) -> bool {
        self.namespaces.is_some()
    }

    /// Whether it names an object. `namespace` gives the object's namespace; what isn't known has no labels.
    #[must_use]
    pub fn matches<'a>(&self, object: &Object, namespace: impl FnOnce(&str) -> Option<&'a Arc<Object>>) -> bool {
        let key = object.key();
        self.namespace.as_deref().is_none_or(|wanted| wanted == key.namespace())
            && (self.names.is_empty() || self.names.contains(key.name()))
            && (self.labels.is_everything() || self.labels.matches(&object.labels()))
            && self.namespaces.as_ref().is_none_or(|selector| {
                let namespace = namespace(key.namespace());
                namespace.is_some_and(|namespace| selector.matches(&namespace.labels()))
            })
    }

    /// Whether a change of a namespace's labels from one to the other changes what it names.
    #[must_use]
    pub fn follows_namespace(&self, old: Option<&Object>, new: Option<&Object>) -> bool {
        let is_in = |namespace: Option<&Object>, selector: &Selector| {
            namespace.is_some_and(|namespace| selector.matches(&namespace.labels()))
        };
        self.namespaces.as_ref().is_some_and(|selector| is_in(old, selector) != is_in(new, selector))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::hook::{Limits, related_rules};
    use crate::object::tests::config_maps;

    fn rule(fields: &Value) -> RelatedRule {
        let mut rule = json!({"apiVersion": "v1", "resource": "configmaps"});
        rule.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        let body = json!({ "relatedResources": [rule] }).to_string();
        related_rules(body.as_bytes(), Limits::default(), true).unwrap().0.remove(0)
    }

    fn related(fields: &Value, version: HookVersion, home: &str) -> Related {
        reach(&rule(fields), version, home, &Arc::new(config_maps())).unwrap().unwrap()
    }

    fn object(namespace: &str, name: &str, labels: &Value) -> Arc<Object> {
        let metadata = json!({"name": name, "namespace": namespace, "uid": "u", "labels": labels});
        Arc::new(Object::of(&json!({ "metadata": metadata }), &config_maps()).unwrap())
    }

    fn selection(namespace: &str, name: &str, labels: &str) -> Selection {
        Selection { namespace: namespace.to_owned(), name: name.to_owned(), labels: labels.to_owned() }
    }

    #[test]
    fn v1_keeps_a_namespaced_parent_at_home() {
        let (v1, v2) = (HookVersion::V1, HookVersion::V2);
        let everything = json!({});
        assert_eq!(related(&everything, v1, "n").selections(), [selection("n", "", "")]);
        assert_eq!(related(&everything, v1, "").selections(), [selection("", "", "")]);
        assert_eq!(related(&everything, v2, "n").selections(), [selection("", "", "")]);
        let away = json!({"namespace": "m"});
        let refused = reach(&rule(&away), v1, "n", &Arc::new(config_maps())).unwrap_err();
        assert!(refused.starts_with(".namespace: is m, but"), "{refused}");
        assert_eq!(related(&away, v1, "").selections(), [selection("m", "", "")]);
        assert_eq!(related(&away, v2, "n").selections(), [selection("m", "", "")]);
    }

    #[test]
    fn cluster_scoped_kinds_are_seen_from_where_they_may() {
        let nodes = Arc::new(Resource { namespaced: false, ..config_maps() });
        let reach = |fields: Value, version, home| reach(&rule(&fields), version, home, &nodes).unwrap();
        assert!(reach(json!({}), HookVersion::V1, "n").unwrap_err().contains("use v2"));
        assert!(reach(json!({"namespace": "m"}), HookVersion::V2, "n").unwrap_err().contains("leave namespace"));
        assert!(reach(json!({"namespaceSelector": {}}), HookVersion::V2, "").unwrap_err().contains("leave namespace"));
        for (version, home) in [(HookVersion::V1, ""), (HookVersion::V2, "n"), (HookVersion::V2, "")] {
            let seen = reach(json!({"names": ["a"]}), version, home).unwrap();
            assert_eq!(seen.selections(), [selection("", "a", "")]);
            assert_eq!(seen.keys(), Some(vec![ObjectKey::new("", "a")]));
        }
    }

    #[test]
    fn names_labels_and_namespaces_decide() {
        let none = |_: &str| None;
        let named = related(&json!({"names": ["a", "b"], "namespace": "n"}), HookVersion::V2, "n");
        assert_eq!(named.selections(), [selection("n", "a", ""), selection("n", "b", "")]);
        assert_eq!(named.keys(), Some(vec![ObjectKey::new("n", "a"), ObjectKey::new("n", "b")]));
        assert!(named.matches(&object("n", "a", &json!({})), none));
        assert!(
            !named.matches(&object("m", "a", &json!({})), none) && !named.matches(&object("n", "c", &json!({})), none)
        );
        let anywhere = related(&json!({"names": ["a"]}), HookVersion::V2, "n");
        assert_eq!((anywhere.selections(), anywhere.keys()), (vec![selection("", "a", "")], None));
        let labelled = related(&json!({"labelSelector": {"matchLabels": {"x": "1"}}}), HookVersion::V1, "n");
        assert_eq!(labelled.selections(), [selection("n", "", "x=1")]);
        assert!(labelled.matches(&object("n", "q", &json!({"x": "1"})), none));
        assert!(!labelled.matches(&object("n", "q", &json!({"x": "2"})), none));
        assert!(!labelled.asks_for_namespaces());
    }

    #[test]
    fn a_namespace_s_labels_decide() {
        let rule = related(&json!({"namespaceSelector": {"matchLabels": {"team": "a"}}}), HookVersion::V2, "n");
        let (a, b) = (object("", "m", &json!({"team": "a"})), object("", "m", &json!({"team": "b"})));
        let there = object("m", "q", &json!({}));
        assert!(rule.asks_for_namespaces());
        assert!(rule.matches(&there, |name| (name == "m").then_some(&a)));
        assert!(!rule.matches(&there, |_| Some(&b)) && !rule.matches(&there, |_| None));
        assert!(rule.follows_namespace(Some(&a), Some(&b)) && rule.follows_namespace(None, Some(&a)));
        assert!(rule.follows_namespace(Some(&a), None));
        assert!(!rule.follows_namespace(Some(&b), None) && !rule.follows_namespace(Some(&a), Some(&a)));
    }
}
