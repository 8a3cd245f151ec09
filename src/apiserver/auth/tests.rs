//! Tokens, roles and refusals against what kube-apiserver v1.36.3 answered to the same questions.
//!
//! Never starts a server.

use ringmaster_core::key::{ApiVersion, Resource};

use super::*;
use crate::store::Limits;

/// The objects that the real server was asked with, and more rules.
fn store() -> Store {
    let mut store = Store::new(Limits::default());
    let mut add = |plural: &str, namespace: &str, name: &str, mut rest: Value| {
        let api_version = ApiVersion::new("rbac.authorization.k8s.io/v1");
        let (kind_name, namespaced) = ("X".into(), !namespace.is_empty());
        let resource = Resource { api_version, plural: plural.into(), kind: kind_name, namespaced, status: false };
        rest["metadata"] = json!({ "name": name, "uid": name });
        if namespaced {
            rest["metadata"]["namespace"] = namespace.into();
        }
        store.put(&kind(plural), &resource, None, rest).unwrap();
    };
    let bind = |kind: &str, role: &str, subjects: Value| json!({ "roleRef": { "kind": kind, "name": role }, "subjects": subjects });
    let user = |name: &str| json!([{ "kind": "User", "name": name }]);
    add("clusterrolebindings", "", "m1", bind("ClusterRole", "nope", user("x")));
    add("rolebindings", "n", "rb2", bind("Role", "nah", user("x")));
    let three = json!([{ "kind": "ServiceAccount", "name": "s" }, { "kind": "User", "name": "y" }, { "kind": "Group", "name": "gg" }]);
    add("rolebindings", "n", "rb", bind("ClusterRole", "cr", three));
    add(
        "clusterroles",
        "",
        "cr",
        json!({ "rules": [{ "verbs": ["get"], "apiGroups": [""], "resources": ["pods", "namespaces"] }] }),
    );
    add("clusterrolebindings", "", "v", bind("ClusterRole", "v", user("v")));
    let rules = json!([
        { "verbs": ["*"], "apiGroups": ["apps"], "resources": ["*/status", "deployments/scale"], "resourceNames": null },
        { "verbs": ["list", "get"], "apiGroups": ["*"], "resources": ["secrets"], "resourceNames": ["a"] },
        { "verbs": ["get"], "nonResourceURLs": ["/metrics", "/logs/*"] },
    ]);
    add("clusterroles", "", "v", json!({ "rules": rules }));
    add("clusterrolebindings", "", "e", json!({ "roleRef": { "kind": "ClusterRole", "name": "v" }, "subjects": null }));
    store
}

fn ask(user: &str, method: &Method, url: &str) -> Result<(), Error> {
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let user = match user.strip_prefix("sa:") {
        Some(name) => User::service_account("n", name),
        None => User::new(user, &["g"]),
    };
    match Request::parse(method, path, query).unwrap() {
        Some(request) => authorize(&store(), &user, &request),
        None => authorize_path(&store(), &user, method, path),
    }
}

#[test]
fn tokens_say_who_asks() {
    let mut users = Users::default();
    assert_eq!(*users.user(Some("Bearer nope")).unwrap(), User::admin());
    users.insert("t", User::new("admin", &["system:masters"]));
    for header in ["Bearer t", "bearer t", "BEARER t x", "  Bearer t "] {
        let user = users.user(Some(header)).unwrap();
        assert_eq!((&*user.name, user.groups.join(" ")), ("admin", "system:masters system:authenticated".to_owned()));
    }
    for header in [None, Some("Bearer"), Some("Bearer "), Some("Basic abc"), Some("Bearer  t")] {
        assert_eq!(users.user(header).unwrap().name, "system:anonymous", "{header:?}");
    }
    let status = users.user(Some("Bearer nope")).unwrap_err().status();
    let real = json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "Unauthorized", "reason": "Unauthorized", "code": 401 });
    assert_eq!(status, real);
}

#[test]
fn refusals_are_worded_as_the_real_server_s() {
    let (get, patch) = (Method::GET, Method::PATCH);
    for (method, url, message, details) in [
        (
            &get,
            "/api/v1/namespaces/n/pods",
            r#"pods is forbidden: User "w" cannot list resource "pods" in API group "" in the namespace "n""#,
            json!({ "kind": "pods" }),
        ),
        (
            &get,
            "/api/v1/pods",
            r#"pods is forbidden: User "w" cannot list resource "pods" in API group "" at the cluster scope"#,
            json!({ "kind": "pods" }),
        ),
        (
            &get,
            "/api/v1/namespaces/n",
            r#"namespaces "n" is forbidden: User "w" cannot get resource "namespaces" in API group "" in the namespace "n""#,
            json!({ "name": "n", "kind": "namespaces" }),
        ),
        (
            &get,
            "/api/v1/nodes/b",
            r#"nodes "b" is forbidden: User "w" cannot get resource "nodes" in API group "" at the cluster scope"#,
            json!({ "name": "b", "kind": "nodes" }),
        ),
        (
            &patch,
            "/apis/apps/v1/namespaces/n/deployments/a/status",
            r#"deployments.apps "a" is forbidden: User "w" cannot patch resource "deployments/status" in API group "apps" in the namespace "n""#,
            json!({ "name": "a", "group": "apps", "kind": "deployments" }),
        ),
        (
            &get,
            "/api/v1/pods?fieldSelector=metadata.name%3Da&watch=1",
            r#"pods "a" is forbidden: User "w" cannot watch resource "pods" in API group "" at the cluster scope"#,
            json!({ "name": "a", "kind": "pods" }),
        ),
        (&get, "/foo", r#"forbidden: User "w" cannot get path "/foo""#, json!({})),
        (&Method::POST, "/api", r#"forbidden: User "w" cannot post path "/api""#, json!({})),
    ] {
        let error = ask("w", method, url).unwrap_err();
        assert_eq!(
            (error.code, &*error.reason, error.message.as_str(), error.details),
            (403, "Forbidden", message, details)
        );
    }
    let message = ask("x", &get, "/api/v1/namespaces/n/pods/a").unwrap_err().message;
    let both = r#"in the namespace "n": RBAC: [clusterrole.rbac.authorization.k8s.io "nope" not found, role.rbac.authorization.k8s.io "nah" not found]"#;
    assert!(message.ends_with(both), "{message}");
    let message = ask("x", &get, "/foo").unwrap_err().message;
    assert!(message.ends_with(r#""/foo": RBAC: clusterrole.rbac.authorization.k8s.io "nope" not found"#), "{message}");
}

#[test]
fn rules_allow_what_they_name() {
    let (get, patch) = (Method::GET, Method::PATCH);
    for (user, method, url, may) in [
        ("y", &get, "/api/v1/namespaces/n/pods/a", true),
        ("y", &get, "/api/v1/namespaces/n", true),
        ("y", &get, "/api/v1/namespaces/m/pods/a", false),
        ("y", &get, "/api/v1/namespaces/n/pods", false),
        ("y", &get, "/api/v1/namespaces/n/pods/a/status", false),
        ("y", &get, "/apis/apps/v1/namespaces/n/pods/a", false),
        ("gg", &get, "/api/v1/namespaces/n/pods/a", false),
        ("sa:s", &get, "/api/v1/namespaces/n/pods/a", true),
        ("sa:t", &get, "/api/v1/namespaces/n/pods/a", false),
        ("v", &patch, "/apis/apps/v1/namespaces/n/deployments/a/status", true),
        ("v", &patch, "/apis/apps/v1/namespaces/n/deployments/a/scale", true),
        ("v", &patch, "/apis/apps/v1/namespaces/n/statefulsets/a/scale", false),
        ("v", &patch, "/apis/apps/v1/namespaces/n/deployments/a", false),
        ("v", &get, "/api/v1/namespaces/n/secrets/a", true),
        ("v", &get, "/api/v1/namespaces/n/secrets/b", false),
        ("v", &get, "/api/v1/namespaces/n/secrets", false),
        ("v", &get, "/api/v1/secrets?fieldSelector=metadata.name%3Da", true),
        ("v", &get, "/metrics", true),
        ("v", &get, "/logs/a/b", true),
        ("w", &get, "/metrics", false),
        ("w", &get, "/apis/apps/v1", true),
        ("w", &get, "/openapi/v3/api/v1", true),
        ("w", &get, "/readyz", true),
        ("w", &get, "/readyz/ping", false),
        ("w", &get, "/", false),
        ("w", &Method::POST, "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", true),
    ] {
        assert_eq!(ask(user, method, url).is_ok(), may, "{user} {method} {url}");
    }
    let (store, anonymous) = (store(), User::anonymous());
    assert!(authorize_path(&store, &anonymous, &get, "/version").is_ok());
    assert!(authorize_path(&store, &anonymous, &get, "/api").is_err());
    let all = Request::parse(&Method::DELETE, "/api/v1/secrets", "").unwrap().unwrap();
    assert!(allowed(&store, &User::admin(), &all) && !allowed(&store, &anonymous, &all));
}

#[test]
fn reviews_answer_as_the_real_server() {
    let pods = json!({ "verb": "get", "resource": "pods", "namespace": "n" });
    let ask = |spec: Value| review(&store(), &spec, None);
    for (who, reason) in [
        (json!({ "user": "system:serviceaccount:n:s" }), r#"ServiceAccount "s/n""#),
        (json!({ "user": "y" }), r#"User "y""#),
        (json!({ "groups": ["gg"] }), r#"Group "gg""#),
    ] {
        let mut spec = who;
        spec["resourceAttributes"] = pods.clone();
        let reason = format!(r#"RBAC: allowed by RoleBinding "rb/n" of ClusterRole "cr" to {reason}"#);
        assert_eq!(ask(spec), json!({ "allowed": true, "reason": reason }));
    }
    assert_eq!(ask(json!({ "user": "w", "resourceAttributes": pods })), json!({ "allowed": false }));
    let path = json!({ "path": "/api/v1", "verb": "get" });
    let status = ask(json!({ "user": "w", "groups": ["system:authenticated"], "nonResourceAttributes": path }));
    let real = r#"RBAC: allowed by ClusterRoleBinding "system:discovery" of ClusterRole "system:discovery" to Group "system:authenticated""#;
    assert_eq!(status, json!({ "allowed": true, "reason": real }));
}

#[test]
fn who_may_acts_as_somebody_else() {
    let store = store();
    let headers = |pairs: &[(&'static str, &'static str)]| -> http::HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())).collect()
    };
    let request = Request::parse(&Method::GET, "/api/v1/pods", "").unwrap().unwrap();
    let ask = |asker: User, pairs: &[(&'static str, &'static str)]| {
        impersonated(&store, Arc::new(asker), &headers(pairs), Ok(&request))
    };
    assert_eq!(ask(User::admin(), &[]).unwrap().name, "system:admin");
    let jane = ask(User::admin(), &[("impersonate-user", "jane"), ("impersonate-group", "g")]).unwrap();
    assert_eq!((jane.name.as_str(), jane.groups.join(",")), ("jane", "g,system:authenticated".to_owned()));
    let robot = ask(User::admin(), &[("impersonate-user", "system:serviceaccount:a:b")]).unwrap();
    assert_eq!(*robot, User::service_account("a", "b"));
    let nobody = ask(User::admin(), &[("impersonate-group", "x")]).unwrap_err();
    let why = "requested &user.DefaultInfo{Name:\"\", UID:\"\", Groups:[]string{\"x\"}, Extra:map[string][]string(nil)} without impersonating a user name";
    assert_eq!((nobody.code, nobody.message.as_str()), (400, why));
    let denied = ask(User::new("z", &[]), &[("impersonate-user", "jane")]).unwrap_err();
    let why = "pods is forbidden: User \"z\" cannot impersonate-on:user-info:list resource \"pods\" in API group \"\" at the cluster scope";
    assert_eq!((denied.code, denied.message.as_str()), (403, why));
}

#[test]
fn rules_are_those_of_all_bindings() {
    let status = rules_review(&store(), &User::new("v", &["g"]), "n");
    let resources = status["resourceRules"].as_array().unwrap();
    assert!(resources.contains(&json!({ "verbs": ["list", "get"], "apiGroups": ["*"], "resources": ["secrets"],
        "resourceNames": ["a"] })));
    assert!(resources.iter().any(|rule| rule["resources"] == json!(["selfsubjectaccessreviews"])));
    let paths = status["nonResourceRules"].as_array().unwrap();
    assert!(paths.contains(&json!({ "verbs": ["get"], "nonResourceURLs": ["/metrics", "/logs/*"] })));
    let nobody = rules_review(&store(), &User::anonymous(), "n");
    assert_eq!((nobody["resourceRules"].as_array().unwrap().len(), &nobody["incomplete"]), (0, &json!(false)));
}
