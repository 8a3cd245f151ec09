//! Who asks, and what they may: bearer tokens, and RBAC on the roles and bindings that the store holds.
//!
//! Never caches a role: a new binding counts from the next request on. Never grants by itself but what the real server
//! grants from its start: everything to `system:masters`, discovery and questions about oneself to the authenticated.

mod impersonate;
mod rules;
#[cfg(test)]
mod tests;

pub(crate) use impersonate::{impersonated, impersonates};
pub(crate) use rules::{rules_review, self_review};

use std::borrow::Cow;
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use http::Method;
use ringmaster_core::key::ObjectKey;
use ringmaster_core::object::Object;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::error::{About, Error};
use crate::field_error::FieldError;
use crate::request::{Request, Verb};
use crate::store::{KindKey, Store};

/// The group of the roles and bindings.
const RBAC: &str = "rbac.authorization.k8s.io";
/// Members may do everything, whatever the roles say.
const MASTERS: &str = "system:masters";
const AUTHENTICATED: &str = "system:authenticated";
const UNAUTHENTICATED: &str = "system:unauthenticated";
/// Paths that everybody may get (`system:public-info-viewer`, v1.36).
const PUBLIC: [&str; 5] = ["/healthz", "/livez", "/readyz", "/version", "/version/"];
/// Paths that the authenticated may get too (`system:discovery`, v1.36).
const DISCOVERY: [&str; 6] = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*"];
/// What the authenticated may create (`system:basic-user`, v1.36).
const BASIC: [(&str, &str); 3] = [
    ("authorization.k8s.io", "selfsubjectaccessreviews"),
    ("authorization.k8s.io", "selfsubjectrulesreviews"),
    ("authentication.k8s.io", "selfsubjectreviews"),
];

/// Somebody who asks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name, such as `admin` or `system:serviceaccount:default:web`.
    pub name: String,
    /// The uid, empty if it has none.
    pub uid: String,
    /// The groups, also those that the server adds.
    pub groups: Vec<String>,
}

impl User {
    /// Somebody with a token: in these groups and in `system:authenticated`.
    #[must_use]
    pub fn new(name: &str, groups: &[&str]) -> Self {
        let mut groups: Vec<String> = groups.iter().map(|group| (*group).to_owned()).collect();
        if !groups.iter().any(|group| group == AUTHENTICATED) {
            groups.push(AUTHENTICATED.to_owned());
        }
        Self { name: name.to_owned(), uid: String::new(), groups }
    }

    /// A service account.
    #[must_use]
    pub fn service_account(namespace: &str, name: &str) -> Self {
        let own = format!("system:serviceaccounts:{namespace}");
        Self::new(&format!("system:serviceaccount:{namespace}:{name}"), &["system:serviceaccounts", &own])
    }

    /// Who everybody is while no tokens are known.
    #[must_use]
    pub fn admin() -> Self {
        Self::new("system:admin", &[MASTERS])
    }

    /// Who asks without a token while tokens are known.
    #[must_use]
    pub fn anonymous() -> Self {
        Self { name: "system:anonymous".to_owned(), uid: String::new(), groups: vec![UNAUTHENTICATED.to_owned()] }
    }

    fn is_in(&self, group: &str) -> bool {
        self.groups.iter().any(|own| own == group)
    }
}

/// The users by their tokens; bounded by what the configuration names.
#[derive(Debug)]
pub struct Users {
    by_token: HashMap<String, Arc<User>>,
    admin: Arc<User>,
    anonymous: Arc<User>,
}

impl Default for Users {
    fn default() -> Self {
        let (admin, anonymous) = (Arc::new(User::admin()), Arc::new(User::anonymous()));
        Self { by_token: HashMap::new(), admin, anonymous }
    }
}

impl Users {
    /// Knows a user by a token; a token that was known changes hands.
    pub fn insert(&mut self, token: &str, user: User) {
        self.by_token.insert(token.to_owned(), Arc::new(user));
    }

    /// Who sends this `Authorization` header. Without tokens everybody is [`User::admin`]; with them, who sends none
    /// (or another scheme) is [`User::anonymous`], as at the real server.
    ///
    /// # Errors
    /// 401 if the token isn't known.
    pub fn user(&self, authorization: Option<&str>) -> Result<Arc<User>, Error> {
        if self.by_token.is_empty() {
            return Ok(Arc::clone(&self.admin));
        }
        let Some(token) = authorization.and_then(bearer) else {
            return Ok(Arc::clone(&self.anonymous));
        };
        self.by_token.get(token).cloned().ok_or_else(|| Error::new(401, "Unauthorized", "Unauthorized"))
    }
}

/// The token of a header: the second word, if the first is `Bearer` in any case.
fn bearer(header: &str) -> Option<&str> {
    let mut words = header.trim().split(' ');
    let is_bearer = words.next()?.eq_ignore_ascii_case("bearer");
    words.next().filter(|token| is_bearer && !token.is_empty())
}

/// What somebody wants to do, as the rules see it.
enum Access<'a> {
    Object { verb: &'a str, group: &'a str, plural: &'a str, subresource: &'a str, namespace: &'a str, name: &'a str },
    Path { verb: &'a str, path: &'a str },
}

impl Access<'_> {
    fn namespace(&self) -> &str {
        if let Self::Object { namespace, .. } = self { namespace } else { "" }
    }

    /// What is granted from the start, and by whom.
    fn builtin(&self, user: &User) -> Option<&'static str> {
        let authenticated = user.is_in(AUTHENTICATED);
        match *self {
            Self::Path { verb: "get", path } => {
                let all = authenticated || user.is_in(UNAUTHENTICATED);
                if authenticated && PUBLIC.iter().chain(&DISCOVERY).any(|rule| path_matches(rule, path)) {
                    Some("system:discovery")
                } else {
                    (all && PUBLIC.contains(&path)).then_some("system:public-info-viewer")
                }
            }
            Self::Object { verb: "create", group, plural, subresource: "", .. } => {
                (authenticated && BASIC.contains(&(group, plural))).then_some("system:basic-user")
            }
            _ => None,
        }
    }
}

/// One rule of a role.
#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase", default)]
struct Rule {
    #[serde(skip_serializing_if = "Option::is_none")]
    verbs: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    api_groups: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resources: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    resource_names: Option<Vec<String>>,
    #[serde(rename = "nonResourceURLs", skip_serializing_if = "Option::is_none")]
    non_resource_urls: Option<Vec<String>>,
}

impl Rule {
    fn allows(&self, access: &Access<'_>) -> bool {
        let any = |list: &Option<Vec<String>>, test: &dyn Fn(&str) -> bool| {
            list.as_deref().unwrap_or_default().iter().any(|entry| test(entry))
        };
        match *access {
            Access::Object { verb, group, plural, subresource, name, .. } => {
                any(&self.verbs, &|entry| entry == "*" || entry == verb)
                    && any(&self.api_groups, &|entry| entry == "*" || entry == group)
                    && any(&self.resources, &|entry| resource_matches(entry, plural, subresource))
                    && (self.resource_names.as_ref().is_none_or(Vec::is_empty)
                        || any(&self.resource_names, &|entry| entry == name))
            }
            Access::Path { verb, path } => {
                any(&self.verbs, &|entry| entry == "*" || entry == verb)
                    && any(&self.non_resource_urls, &|entry| path_matches(entry, path))
            }
        }
    }
}

/// `*`, `pods`, `pods/status` or `*/status`; never `pods/*`, which Kubernetes doesn't know.
fn resource_matches(rule: &str, plural: &str, subresource: &str) -> bool {
    match rule.split_once('/') {
        None => rule == "*" || (subresource.is_empty() && rule == plural),
        Some((first, sub)) => !subresource.is_empty() && sub == subresource && (first == "*" || first == plural),
    }
}

fn path_matches(rule: &str, path: &str) -> bool {
    rule == path || (rule.ends_with('*') && path.starts_with(rule.trim_end_matches('*')))
}

#[derive(Deserialize)]
struct RoleRef {
    kind: String,
    name: String,
}

#[derive(Deserialize)]
struct Subject {
    kind: String,
    name: String,
    #[serde(default)]
    namespace: Option<String>,
}

impl Subject {
    /// The subject's namespace; a binding's own where it names none.
    fn namespace<'a>(&'a self, binding: &'a str) -> &'a str {
        self.namespace.as_deref().filter(|namespace| !namespace.is_empty()).unwrap_or(binding)
    }

    fn is(&self, user: &User, binding: &str) -> bool {
        match self.kind.as_str() {
            "User" => self.name == user.name,
            "Group" => user.is_in(&self.name),
            "ServiceAccount" => {
                let namespace = self.namespace(binding);
                let rest = user.name.strip_prefix("system:serviceaccount:").and_then(|rest| rest.split_once(':'));
                !namespace.is_empty() && rest == Some((namespace, self.name.as_str()))
            }
            _ => false,
        }
    }

    fn describe(&self, binding: &str) -> String {
        match self.kind.as_str() {
            "ServiceAccount" => format!("ServiceAccount \"{}/{}\"", self.name, self.namespace(binding)),
            kind => format!("{kind} {:?}", self.name),
        }
    }
}

/// What came out; the reason is the real server's, and may be empty.
struct Decision {
    allowed: bool,
    reason: String,
}

fn kind(plural: &str) -> KindKey {
    KindKey { group: RBAC.into(), plural: plural.into() }
}

fn decide(store: &Store, user: &User, access: &Access<'_>) -> Decision {
    if user.is_in(MASTERS) {
        return Decision { allowed: true, reason: String::new() };
    }
    if let Some(role) = access.builtin(user) {
        let group = if user.is_in(AUTHENTICATED) { AUTHENTICATED } else { UNAUTHENTICATED };
        let reason =
            format!("RBAC: allowed by ClusterRoleBinding \"{role}\" of ClusterRole \"{role}\" to Group \"{group}\"");
        return Decision { allowed: true, reason };
    }
    let mut missing: Vec<String> = Vec::new();
    let granted = visit(store, user, access.namespace(), |grant| {
        let Grant { binding_kind, binding, scope, subject, role, rules } = grant;
        let Some(rules) = rules else {
            let text = format!("{}.{RBAC} {:?} not found", role.kind.to_lowercase(), role.name);
            if !missing.contains(&text) {
                missing.push(text);
            }
            return ControlFlow::Continue(());
        };
        if !rules.iter().any(|rule| rule.allows(access)) {
            return ControlFlow::Continue(());
        }
        let place = if scope.is_empty() { binding.to_owned() } else { format!("{binding}/{scope}") };
        let to = subject.describe(scope);
        ControlFlow::Break(format!(
            "RBAC: allowed by {binding_kind} {place:?} of {} {:?} to {to}",
            role.kind, role.name
        ))
    });
    if let ControlFlow::Break(reason) = granted {
        return Decision { allowed: true, reason };
    }
    let reason = match missing.as_slice() {
        [] => String::new(),
        [one] => format!("RBAC: {one}"),
        many => format!("RBAC: [{}]", many.join(", ")),
    };
    Decision { allowed: false, reason }
}

/// What a binding gives to a user.
struct Grant<'a> {
    binding_kind: &'static str,
    binding: &'a str,
    /// The binding's namespace; empty for all.
    scope: &'a str,
    subject: Subject,
    role: RoleRef,
    /// `None` if the role isn't there.
    rules: Option<Vec<Rule>>,
}

/// Looks at all that is bound to a user in a namespace, and in all of them, until `look` breaks.
fn visit<B>(
    store: &Store,
    user: &User,
    namespace: &str,
    mut look: impl FnMut(Grant<'_>) -> ControlFlow<B>,
) -> ControlFlow<B> {
    let scopes = [("ClusterRoleBinding", "clusterrolebindings", ""), ("RoleBinding", "rolebindings", namespace)];
    // Without a namespace no RoleBinding counts.
    for (binding_kind, plural, scope) in scopes.into_iter().take(if namespace.is_empty() { 1 } else { 2 }) {
        // A list of now can't be too old.
        let Ok(page) = store.list(&kind(plural), Some(scope), (None, None), None, |_| true) else { continue };
        for binding in &page.objects {
            let Some(subject) = subject_of(binding, user, scope) else { continue };
            let Some(role) = binding.section::<RoleRef>("roleRef") else { continue };
            let found = match role.kind.as_str() {
                "ClusterRole" => store.get(&kind("clusterroles"), &ObjectKey::new("", &role.name)),
                "Role" if !scope.is_empty() => store.get(&kind("roles"), &ObjectKey::new(scope, &role.name)),
                _ => continue,
            };
            let rules = found.map(|found| found.section::<Vec<Rule>>("rules").unwrap_or_default());
            let binding = binding.key().name();
            look(Grant { binding_kind, binding, scope, subject, role, rules })?;
        }
    }
    ControlFlow::Continue(())
}

/// The first of a binding's subjects that the user is.
fn subject_of(binding: &Object, user: &User, namespace: &str) -> Option<Subject> {
    let subjects: Vec<Subject> = binding.section("subjects")?;
    subjects.into_iter().find(|subject| subject.is(user, namespace))
}

/// The name that a request is about: that of its path, or for reads of many the one that its field selector demands.
#[must_use]
pub fn name_of(request: &Request) -> Cow<'_, str> {
    let many = matches!(request.verb, Verb::List | Verb::Watch);
    let selector = request.query.get("fieldSelector").filter(|_| many && request.name.is_empty());
    let Some(selector) = selector else { return Cow::Borrowed(&request.name) };
    let value = selector.split(',').find_map(|term| {
        let value = term.strip_prefix("metadata.name=")?;
        Some(value.strip_prefix('=').unwrap_or(value))
    });
    let usable = |value: &&str| !matches!(*value, "." | "..") && !value.contains(['/', '%', '\\']);
    Cow::Borrowed(value.filter(usable).unwrap_or_default())
}

/// The namespace that a request is about: a Namespace counts as within itself.
#[must_use]
pub fn namespace_of(request: &Request) -> &str {
    if request.plural == "namespaces" && request.namespace.is_empty() { &request.name } else { &request.namespace }
}

fn decide_request(store: &Store, user: &User, verb: &str, request: &Request, name: &str) -> Decision {
    let access = Access::Object {
        verb,
        group: &request.group,
        plural: &request.plural,
        subresource: &request.subresource,
        namespace: namespace_of(request),
        name,
    };
    decide(store, user, &access)
}

/// Whether a user may do this with objects.
#[must_use]
pub fn allowed(store: &Store, user: &User, request: &Request) -> bool {
    decide_request(store, user, request.verb.name(), request, &name_of(request)).allowed
}

/// The same as [`allowed`], with the real server's refusal.
///
/// # Errors
/// 403 if the user may not.
pub fn authorize(store: &Store, user: &User, request: &Request) -> Result<(), Error> {
    authorize_to(store, user, request.verb.name(), request)
}

/// The same for a verb that no method stands for.
///
/// # Errors
/// 403 if the user may not.
pub(crate) fn authorize_to(store: &Store, user: &User, verb: &str, request: &Request) -> Result<(), Error> {
    let name = name_of(request);
    let decision = decide_request(store, user, verb, request, &name);
    if decision.allowed {
        return Ok(());
    }
    let dotted = |sep: char, a: &str, b: &str| if b.is_empty() { a.to_owned() } else { format!("{a}{sep}{b}") };
    let mut details = json!({ "kind": request.plural });
    let mut about = dotted('.', &request.plural, &request.group);
    if !name.is_empty() {
        details["name"] = json!(name);
        about = format!("{about} {name:?}");
    }
    if !request.group.is_empty() {
        details["group"] = json!(request.group);
    }
    let place = match namespace_of(request) {
        "" => "at the cluster scope".to_owned(),
        namespace => format!("in the namespace {namespace:?}"),
    };
    let resource = dotted('/', &request.plural, &request.subresource);
    let (who, group) = (&user.name, &request.group);
    let message = format!(
        "{about} is forbidden: User {who:?} cannot {verb} resource {resource:?} in API group {group:?} {place}"
    );
    Err(forbidden(message, &decision.reason, details))
}

/// Whether a user may ask for a path that isn't about objects.
///
/// # Errors
/// 403 if not.
pub fn authorize_path(store: &Store, user: &User, method: &Method, path: &str) -> Result<(), Error> {
    authorize_path_to(store, user, &method.as_str().to_lowercase(), path)
}

fn authorize_path_to(store: &Store, user: &User, verb: &str, path: &str) -> Result<(), Error> {
    let decision = decide(store, user, &Access::Path { verb, path });
    if decision.allowed {
        return Ok(());
    }
    let message = format!("forbidden: User {:?} cannot {verb} path {path:?}", user.name);
    Err(forbidden(message, &decision.reason, json!({})))
}

fn forbidden(mut message: String, reason: &str, details: Value) -> Error {
    if !reason.is_empty() {
        message = format!("{message}: {reason}");
    }
    Error { details, ..Error::new(403, "Forbidden", message) }
}

/// Checks the body of a review.
///
/// # Errors
/// 422 if it asks about nothing or about two things at once, or carries metadata.
pub fn check_review(review: &Value, kind: &str) -> Result<(), Error> {
    if !kind.ends_with("SubjectAccessReview") {
        return Ok(());
    }
    let spec = &review["spec"];
    let (object, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let mut errors = Vec::new();
    if object.is_object() && path.is_object() {
        let text = |name: &str| &path[name];
        let mut shown = serde_json::Map::new();
        shown.insert("Path".to_owned(), text("path").as_str().unwrap_or_default().into());
        shown.insert("Verb".to_owned(), text("verb").as_str().unwrap_or_default().into());
        let why = "cannot be specified in combination with resourceAttributes";
        errors.push(FieldError::invalid("spec.nonResourceAttributes", Value::Object(shown).to_string(), why));
    }
    if !object.is_object() && !path.is_object() {
        let why = "exactly one of nonResourceAttributes or resourceAttributes must be specified";
        errors.push(FieldError::invalid("spec.resourceAttributes", "null", why));
    }
    let asks_for_somebody = spec["user"].as_str().is_some_and(|user| !user.is_empty())
        || spec["groups"].as_array().is_some_and(|groups| !groups.is_empty());
    if kind == "SubjectAccessReview" && !asks_for_somebody {
        errors.push(FieldError::invalid("spec.user", "\"\"", "at least one of user or group must be specified"));
    }
    if review["metadata"].as_object().is_some_and(|metadata| !metadata.is_empty()) {
        errors.push(FieldError::invalid("metadata", review["metadata"].to_string(), "must be empty"));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(About { group: "authorization.k8s.io", plural: "", kind: "", name: "" }, &errors))
}

/// The `status` of a SubjectAccessReview with this `spec`; of a SelfSubjectAccessReview if `asker` is given, for whom
/// then is asked. A spec that names nothing is answered with a refusal; the API's validation comes before.
#[must_use]
pub fn review(store: &Store, spec: &Value, asker: Option<&User>) -> Value {
    let text = |value: &'_ Value| value.as_str().unwrap_or_default().to_owned();
    let groups = spec["groups"].as_array().into_iter().flatten().map(text).collect();
    let user = asker.cloned().unwrap_or_else(|| User { name: text(&spec["user"]), uid: text(&spec["uid"]), groups });
    let (object, path) = (&spec["resourceAttributes"], &spec["nonResourceAttributes"]);
    let field = |name: &str| object[name].as_str().unwrap_or_default();
    let access = if path.is_object() {
        Access::Path {
            verb: path["verb"].as_str().unwrap_or_default(),
            path: path["path"].as_str().unwrap_or_default(),
        }
    } else {
        Access::Object {
            verb: field("verb"),
            group: field("group"),
            plural: field("resource"),
            subresource: field("subresource"),
            namespace: field("namespace"),
            name: field("name"),
        }
    };
    let decision = decide(store, &user, &access);
    let mut status = json!({ "allowed": decision.allowed });
    if !decision.reason.is_empty() {
        status["reason"] = decision.reason.into();
    }
    status
}
