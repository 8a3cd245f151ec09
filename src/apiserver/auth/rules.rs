//! What users may learn about themselves: who they are, and all that they may do in a namespace.
//!
//! Never decides on a request; see the module above.

use std::ops::ControlFlow;

use serde_json::{Value, json};

use super::{AUTHENTICATED, BASIC, DISCOVERY, MASTERS, PUBLIC, Rule, UNAUTHENTICATED, User, visit};
use crate::store::Store;

/// The `status` of a SelfSubjectReview.
pub(crate) fn self_review(user: &User) -> Value {
    let mut info = json!({ "username": user.name, "groups": user.groups });
    if !user.uid.is_empty() {
        info["uid"] = user.uid.as_str().into();
    }
    json!({ "userInfo": info })
}

/// The `status` of a SelfSubjectRulesReview.
pub(crate) fn rules_review(store: &Store, user: &User, namespace: &str) -> Value {
    let mut rules = granted_from_the_start(user);
    // What is bound to a role that isn't there grants nothing.
    let _ = visit(store, user, namespace, |grant| {
        rules.extend(grant.rules.unwrap_or_default());
        ControlFlow::<()>::Continue(())
    });
    let (mut resources, mut paths) = (Vec::new(), Vec::new());
    for rule in rules {
        if rule.non_resource_urls.as_ref().is_some_and(|urls| !urls.is_empty()) {
            paths.push(json!({ "verbs": rule.verbs, "nonResourceURLs": rule.non_resource_urls }));
        }
        if rule.resources.as_ref().is_some_and(|resources| !resources.is_empty()) {
            resources.push(json!(Rule { non_resource_urls: None, ..rule }));
        }
    }
    json!({ "resourceRules": resources, "nonResourceRules": paths, "incomplete": false })
}

/// The rules of the roles that the real server binds from its start.
fn granted_from_the_start(user: &User) -> Vec<Rule> {
    let list = |items: &[&str]| Some(items.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>());
    let objects = |verb: &str, group: &str, resource: &str| Rule {
        verbs: list(&[verb]),
        api_groups: list(&[group]),
        resources: list(&[resource]),
        ..Rule::default()
    };
    let get = |paths: Vec<&str>| Rule { verbs: list(&["get"]), non_resource_urls: list(&paths), ..Rule::default() };
    let mut rules = Vec::new();
    if user.is_in(MASTERS) {
        rules.push(objects("*", "*", "*"));
        rules.push(Rule { verbs: list(&["*"]), non_resource_urls: list(&["*"]), ..Rule::default() });
    }
    if user.is_in(AUTHENTICATED) {
        rules.extend(BASIC.iter().map(|(group, resource)| objects("create", group, resource)));
        rules.push(get(DISCOVERY.iter().chain(&PUBLIC).copied().collect()));
    }
    if user.is_in(AUTHENTICATED) || user.is_in(UNAUTHENTICATED) {
        rules.push(get(PUBLIC.to_vec()));
    }
    rules
}
