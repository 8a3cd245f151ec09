//! Tokens, passwords, `spec.endpointConfigs` and entity tags of both groups.

use ringmaster_core::controller::{Auth, Etag, Webhook};

use super::super::endpoint_configs::find;
use super::*;

fn reference() -> Value {
    json!({ "name": "hook.credentials", "namespace": "shop" })
}

fn token() -> Value {
    json!({ "secretRef": { "name": "hook.credentials", "namespace": "shop", "key": "token" } })
}

fn configs(object: Value, configs: Value) -> Value {
    with(object, "/spec/endpointConfigs", configs)
}

fn sync(dialect: &'static Dialect, object: Value) -> Webhook {
    convert(dialect, object).unwrap().controllers.remove(0).sync.webhook
}

fn bearer(scheme: &str) -> Auth {
    let entry = Entry { object: ObjectKey::new("shop", "hook.credentials"), key: "token".into() };
    Auth::Token { scheme: scheme.into(), entry }
}

fn basic(username: &str, password: &str) -> Auth {
    let (username, password) = (username.into(), password.into());
    Auth::Basic { secret: ObjectKey::new("shop", "hook.credentials"), username, password }
}

#[test]
fn credentials_become_the_model() {
    let kind = |kind: &str| with(token(), "/type", json!(kind));
    for dialect in [&RINGMASTER, &METACONTROLLER] {
        let with = |field: &str, value: Value| sync(dialect, webhook(json!({ "url": "https://a", field: value })));
        assert_eq!(with("insecure", json!(false)).auth, None);
        assert_eq!(with("authorization", token()).auth, Some(bearer("Bearer")));
        assert_eq!(with("authorization", kind("ApiKey")).auth, Some(bearer("ApiKey")));
        assert_eq!(with("basicAuth", json!({ "secretRef": reference() })).auth, Some(basic("username", "password")));
        let keys = json!({ "secretRef": reference(), "usernameKey": "user.name", "passwordKey": "word" });
        assert_eq!(with("basicAuth", keys).auth, Some(basic("user.name", "word")));
        assert_eq!(&*with("authorization", token()).credentials_in, "webhook");
    }
    let spaced = webhook(json!({ "url": "https://a", "authorization": kind(" ") }));
    assert_eq!(sync(&METACONTROLLER, spaced).auth, Some(bearer("Bearer")));
}

#[test]
fn bad_credentials_are_refused_by_field_in_both_groups() {
    let hook = "spec.hooks.sync.webhook";
    let key = |part: &str, value: Value| {
        let mut token = token();
        token["secretRef"][part] = value;
        json!({ "url": "https://a", "authorization": token })
    };
    let kind = |kind: &str| json!({ "url": "https://a", "authorization": with(token(), "/type", json!(kind)) });
    let basic = |field: &str, value: &str| json!({ "url": "https://a", "basicAuth": { "secretRef": reference(), field: value } });
    let both = json!({ "url": "https://a", "authorization": token(), "basicAuth": { "secretRef": reference() } });
    for dialect in [&RINGMASTER, &METACONTROLLER] {
        for (field, value, fix) in [
            ("authorization", both.clone(), "remove one"),
            ("authorization.type", kind("basic"), "basicAuth"),
            ("authorization.type", kind("BASIC"), "basicAuth"),
            ("authorization.type", kind("a b"), "such as Bearer"),
            ("authorization.type", kind("a\n"), "such as Bearer"),
            ("authorization.type", kind(&"a".repeat(65)), "such as Bearer"),
            ("authorization.secretRef.key", key("key", json!("")), "entry"),
            ("authorization.secretRef.key", key("key", json!("a/b")), "a key"),
            ("authorization.secretRef.name", key("name", json!("A")), "lower-case"),
            ("authorization.secretRef.namespace", key("namespace", json!("")), "lower-case"),
            ("basicAuth.usernameKey", basic("usernameKey", "a b"), "a key"),
            ("basicAuth.passwordKey", basic("passwordKey", "a b"), "a key"),
        ] {
            // In Metacontroller's group white space around the scheme doesn't count.
            if dialect.group == METACONTROLLER.group && value["authorization"]["type"] == "a\n" {
                continue;
            }
            let error = convert(dialect, webhook(value.clone())).map(|_| ()).expect_err(&value.to_string());
            assert_eq!(error.field, format!("{hook}.{field}"), "{}: {value}: {error}", dialect.group);
            assert!(error.message.contains(fix), "{error}");
        }
    }
    for (field, value) in [
        ("authorization.secretRef.name", json!({ "url": "https://a", "authorization": {} })),
        ("basicAuth.secretRef.name", json!({ "url": "https://a", "basicAuth": {} })),
    ] {
        let error = convert(&METACONTROLLER, webhook(value)).map(|_| ()).unwrap_err();
        assert_eq!(error.field, format!("{hook}.{field}"), "{error}");
    }
}

#[test]
fn plain_http_is_refused_in_our_group_and_a_warning_in_metacontrollers() {
    let by = |url: &str| json!({ "url": url, "authorization": token() });
    let by_service = json!({ "service": service(&json!({})), "basicAuth": { "secretRef": reference() } });
    for (field, value) in [("url", by("http://a")), ("basicAuth", by_service.clone())] {
        let error = convert(&RINGMASTER, webhook(value)).map(|_| ()).unwrap_err();
        assert_eq!(error.field, format!("spec.hooks.sync.webhook.{field}"), "{error}");
        assert!(error.message.contains("insecure: true"), "{error}");
    }
    for value in [by("http://a"), by_service] {
        let meant = with(value.clone(), "/insecure", json!(true));
        assert!(sync(&RINGMASTER, webhook(meant)).auth.is_some());
        let Converted { mut controllers, warnings } = convert(&METACONTROLLER, webhook(value)).unwrap();
        let controller = controllers.remove(0);
        assert!(controller.sync.webhook.auth.is_some());
        assert!(warnings.len() == 1 && warnings[0].contains("plain http"), "{warnings:?}");
    }
    for url in ["http://localhost:1", "http://127.0.0.1", "https://a"] {
        for dialect in [&RINGMASTER, &METACONTROLLER] {
            assert!(convert(dialect, webhook(by(url))).unwrap().warnings.is_empty(), "{url}");
        }
    }
}

#[test]
fn the_first_entry_for_a_host_and_port_is_found() {
    let hosts = ["A.example", "b.example:443", "b.example", "c.example:8443", "hook.shop", "[::1]:80", "no host"];
    let by = |url: &str| find("webhook", &hosts, &Address::Url(url.into())).unwrap();
    for (url, entry) in [
        ("https://a.example/x", Some(0)),
        ("https://a.EXAMPLE:443", Some(0)),
        ("http://a.example:80?x", Some(0)),
        ("https://a.example:8443", None),
        ("https://b.example", Some(1)),
        ("http://b.example", Some(2)),
        ("http://b.example:443", Some(1)),
        ("https://c.example", None),
        ("https://c.example:8443", Some(3)),
        ("http://[::1]/", Some(5)),
        ("https://[::1]/", None),
        ("https://sub.a.example", None),
        ("https://a.example.evil", None),
    ] {
        assert_eq!(by(url), entry, "{url}");
    }
    let service = |name: &str, port, tls| {
        let (name, namespace, path) = (name.into(), "shop".into(), "/".into());
        find("webhook", &hosts, &Address::Service { name, namespace, port, tls, path }).unwrap()
    };
    assert_eq!([service("hook", 80, false), service("hook", 443, true)], [Some(4), Some(4)]);
    assert_eq!([service("hook", 8080, false), service("hook", 443, false), service("other", 80, false)], [None; 3]);
    let whole = find(
        "webhook",
        &["HOOK.shop.svc:8080"],
        &Address::Service { name: "hook".into(), namespace: "shop".into(), port: 8080, tls: true, path: "/".into() },
    );
    assert_eq!(whole, Ok(Some(0)));
    let urls = |urls: &[&str]| {
        let urls = urls.iter().map(|url| (*url).into()).collect();
        find("webhook", &hosts, &Address::Urls { urls, path: "/".into() })
    };
    assert_eq!(urls(&["https://a.example", "https://A.example:443"]), Ok(Some(0)));
    assert_eq!(urls(&["https://x", "https://y"]), Ok(None));
    for differ in [["https://a.example", "https://b.example"], ["https://x", "https://a.example"]] {
        assert_eq!(urls(&differ).unwrap_err().field, "webhook.urls");
    }
}

#[test]
fn an_entry_holds_for_hooks_without_credentials_of_their_own() {
    let entries = json!([
        { "host": "other.example", "authorization": token() },
        { "host": "hook.example", "basicAuth": { "secretRef": reference() }, "caBundle": { "inline": PEM } },
    ]);
    let both = |own: Value| {
        let mut own = own;
        own["url"] = json!("https://hook.example/sync");
        let finalize = json!({ "webhook": { "url": "https://HOOK.example:443/finalize" } });
        configs(with(webhook(own), "/spec/hooks/finalize", finalize), entries.clone())
    };
    for dialect in [&RINGMASTER, &METACONTROLLER] {
        let Converted { mut controllers, warnings } = convert(dialect, both(json!({}))).unwrap();
        let controller = controllers.remove(0);
        for webhook in [&controller.sync.webhook, &controller.finalize.unwrap().webhook] {
            assert_eq!(webhook.auth, Some(basic("username", "password")));
            assert_eq!(webhook.tls, Tls { ca: Some(CaBundle::Inline(PEM.into())), client: None });
            assert_eq!(&*webhook.credentials_in, "spec.endpointConfigs[1]");
        }
        assert!(warnings.len() == 1 && warnings[0].starts_with("spec.endpointConfigs[0]: "), "{warnings:?}");
        // Whole or not at all.
        let own =
            convert(dialect, both(json!({ "authorization": token() }))).unwrap().controllers.remove(0).sync.webhook;
        assert_eq!((own.auth, own.tls, &*own.credentials_in), (Some(bearer("Bearer")), Tls::default(), "webhook"));
        let own = convert(dialect, both(json!({ "caBundle": { "inline": PEM } }))).unwrap().controllers.remove(0);
        assert_eq!(own.sync.webhook.auth, None);
        assert!(own.finalize.unwrap().webhook.auth.is_some());
    }
}

#[test]
fn entries_are_checked() {
    let at = |entry: Value| configs(webhook(json!({ "url": "https://a" })), json!([entry]));
    let many: Vec<Value> = (0..33).map(|n| json!({ "host": format!("h{n}"), "authorization": token() })).collect();
    let twice = json!([{ "host": "a", "authorization": token() }, { "host": "A", "authorization": token() }]);
    let secret = json!({ "secretRef": reference() });
    for (field, object) in [
        ("spec.endpointConfigs", configs(object(), json!(many))),
        ("spec.endpointConfigs[1].host", configs(object(), twice)),
        ("spec.endpointConfigs[0].host", at(json!({ "host": "https://a", "authorization": token() }))),
        ("spec.endpointConfigs[0].host", at(json!({ "host": "a/b", "authorization": token() }))),
        ("spec.endpointConfigs[0].host", at(json!({ "host": "", "authorization": token() }))),
        ("spec.endpointConfigs[0]", at(json!({ "host": "z" }))),
        (
            "spec.endpointConfigs[0].authorization",
            at(json!({ "host": "z", "authorization": token(), "basicAuth": secret })),
        ),
        ("spec.endpointConfigs[0].caBundle", at(json!({ "host": "z", "caBundle": {} }))),
    ] {
        let text = object.to_string();
        let error = convert(&RINGMASTER, object).map(|_| ()).expect_err(&text);
        assert_eq!(error.field, field, "{text}: {error}");
    }
    // In Metacontroller's group only what is used counts.
    let used = json!({ "host": "a", "authorization": token(), "basicAuth": secret });
    let error = convert(&METACONTROLLER, at(used)).map(|_| ()).unwrap_err();
    assert_eq!(error.field, "spec.endpointConfigs[0].authorization");
    let unused = convert(&METACONTROLLER, at(json!({ "host": "a/b", "caBundle": {} }))).unwrap();
    assert!(unused.warnings[0].starts_with("spec.endpointConfigs[0]: has no effect"), "{:?}", unused.warnings);
    // A Service by plain http, which the entry doesn't know of.
    let by_service = configs(object(), json!([{ "host": "hook.shop", "authorization": token() }]));
    let error = convert(&RINGMASTER, by_service.clone()).map(|_| ()).unwrap_err();
    assert!(error.field == "spec.hooks.sync.webhook" && error.message.contains("endpointConfigs[0]"), "{error}");
    let told = convert(&METACONTROLLER, by_service).unwrap();
    assert!(told.warnings[0].starts_with("spec.endpointConfigs[0].authorization: "), "{:?}", told.warnings);
}

#[test]
fn replies_are_remembered_where_that_is_declared() {
    let of = |dialect, etag: &Value| sync(dialect, webhook(json!({ "url": "https://a", "etag": etag }))).etag;
    let ten = Some(Etag { timeout: Some(Duration::from_secs(10)) });
    for dialect in [&RINGMASTER, &METACONTROLLER] {
        assert_eq!(of(dialect, &json!({})), None);
        assert_eq!(of(dialect, &json!({ "enabled": false, "cacheTimeoutSeconds": 10 })), None);
        assert_eq!(of(dialect, &json!({ "enabled": true })), Some(Etag { timeout: None }));
        assert_eq!(of(dialect, &json!({ "enabled": true, "cacheTimeoutSeconds": 10 })), ten);
    }
    for seconds in [0, -1, 604_801] {
        let etag = json!({ "enabled": true, "cacheTimeoutSeconds": seconds, "cacheCleanupSeconds": 1 });
        let object = webhook(json!({ "url": "https://a", "etag": etag }));
        let error = convert(&RINGMASTER, object.clone()).map(|_| ()).unwrap_err();
        assert_eq!(error.field, "spec.hooks.sync.webhook.etag.cacheTimeoutSeconds");
        let Converted { mut controllers, warnings } = convert(&METACONTROLLER, object).unwrap();
        let controller = controllers.remove(0);
        let timeout = u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs);
        assert_eq!(controller.sync.webhook.etag, Some(Etag { timeout }));
        assert!(warnings[0].contains("etag.cacheCleanupSeconds"), "{warnings:?}");
    }
}
