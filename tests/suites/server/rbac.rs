//! Rights for the users of the suites, granted by the administrator.
//!
//! Never grants by default: a user has the shipped role, and what its trial asks for.

use std::time::Duration;

use anyhow::{anyhow, ensure};
use http::Method;
use serde_json::{Value, json};

use crate::objects::Objects;
use crate::wait;

/// How long the authorizer may take to see a new binding.
const EFFECTIVE: Duration = Duration::from_secs(10);

/// To whom a role is bound.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Subject<'a> {
    /// A user by name.
    User(&'a str),
    /// All users of a group.
    Group(&'a str),
}

impl Subject<'_> {
    fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::User(name) => ("User", name),
            Self::Group(name) => ("Group", name),
        }
    }

    /// As it stands in a binding.
    pub(crate) fn json(&self) -> Value {
        let (kind, name) = self.parts();
        json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": name })
    }
}

/// Creates a ClusterRole with `rules` (a list in RBAC's JSON), binds it, and waits until it has effect. Role and
/// binding are both called `name` and carry the label `suite` if one is given.
///
/// # Errors
/// The API server refuses, or the rules have no effect in time.
pub(crate) async fn grant(
    admin: &Objects,
    name: &str,
    suite: Option<&str>,
    subject: Subject<'_>,
    rules: &Value,
) -> anyhow::Result<()> {
    let role = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
        "metadata": { "name": name, "labels": labels(suite) }, "rules": rules,
    });
    admin.apply(&role).await?;
    bind(admin, name, suite, name, subject).await?;
    effective(admin, subject, None, rules).await
}

/// Binds a ClusterRole.
///
/// # Errors
/// The API server refuses.
pub(crate) async fn bind(
    admin: &Objects,
    name: &str,
    suite: Option<&str>,
    role: &str,
    subject: Subject<'_>,
) -> anyhow::Result<()> {
    let api_group = "rbac.authorization.k8s.io";
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
        "metadata": { "name": name, "labels": labels(suite) },
        "roleRef": { "apiGroup": api_group, "kind": "ClusterRole", "name": role },
        "subjects": [subject.json()],
    });
    admin.apply(&binding).await.map(drop)
}

/// Waits until the authorizer allows the first thing that each rule names, in a namespace or everywhere.
///
/// # Errors
/// It doesn't in time; or a rule isn't one.
pub(crate) async fn effective(
    admin: &Objects,
    subject: Subject<'_>,
    namespace: Option<&str>,
    rules: &Value,
) -> anyhow::Result<()> {
    let rules = rules.as_array().ok_or_else(|| anyhow!("rules are no list: {rules}"))?;
    for rule in rules {
        let first = |field: &str| rule[field][0].as_str().unwrap_or_default();
        let mut spec = match subject.parts() {
            // A review needs a user or groups.
            ("Group", name) => json!({ "groups": [name] }),
            (_, name) => json!({ "user": name }),
        };
        let verb = first("verbs");
        ensure!(!verb.is_empty(), "rule without verbs: {rule}");
        if rule["nonResourceURLs"].is_array() {
            spec["nonResourceAttributes"] = json!({ "path": first("nonResourceURLs"), "verb": verb });
        } else {
            let resource = first("resources");
            let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
            spec["resourceAttributes"] = json!({
                "group": first("apiGroups"), "resource": resource, "subresource": subresource, "verb": verb,
                "name": first("resourceNames"), "namespace": namespace.unwrap_or_default(),
            });
        }
        let kind = json!({ "apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec });
        let ask = async || {
            let path = "/apis/authorization.k8s.io/v1/subjectaccessreviews";
            let review = admin.send(Method::POST, path, "application/json", Some(&kind)).await?;
            ensure!(review["status"]["allowed"] == true, "{}", review["status"]);
            Ok(())
        };
        wait::until(&format!("{subject:?} has rule {rule}"), EFFECTIVE, |_| {}, ask).await?;
    }
    Ok(())
}

fn labels(suite: Option<&str>) -> Value {
    suite.map_or_else(|| json!({}), |suite| json!({ "suite": suite }))
}
