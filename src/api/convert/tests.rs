//! What becomes of good and bad objects of both groups.

use ringmaster_core::controller::{
    Address, CaBundle, ChildRule, Entry, HookVersion, ParentRule, StatusCheck, Tls, UpdateStrategy,
};
use ringmaster_core::dialect::RINGMASTER;
use ringmaster_core::key::{ApiVersion, ObjectKey, Uid};
use ringmaster_core::rollout::FieldPath;
use ringmaster_core::selector::Selector;
use serde_json::{Value, json};

use super::*;

#[path = "credentials_tests.rs"]
mod credentials;

const UID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

/// The smallest object that both groups take.
fn object() -> Value {
    json!({
        "metadata": { "name": "sites", "uid": UID, "generation": 3 },
        "spec": {
            "parentResource": { "apiVersion": "shop.example/v1", "resource": "sites" },
            "childResources": [{ "apiVersion": "v1", "resource": "configmaps" }],
            "hooks": { "sync": { "webhook": { "service": { "name": "hook", "namespace": "shop" } } } },
        },
    })
}

fn convert(dialect: &'static Dialect, mut object: Value) -> Result<Converted, Error> {
    object["apiVersion"] = json!(format!("{}/v1alpha1", dialect.group));
    object["kind"] = json!("CompositeController");
    from_json(dialect, serde_json::to_vec(&object).unwrap().into(), &Apply::Merge)
}

/// The object with `value` at the JSON pointer `at`, or without that field when it is null.
fn with(mut object: Value, at: &str, value: Value) -> Value {
    let (parent, name) = at.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap();
    if let Some(list) = parent.as_array_mut() {
        list.push(value);
    } else if value.is_null() {
        parent.as_object_mut().unwrap().remove(name);
    } else {
        parent[name] = value;
    }
    object
}

const WEBHOOK: &str = "/spec/hooks/sync/webhook";

fn webhook(value: Value) -> Value {
    with(object(), WEBHOOK, value)
}

const PEM: &str = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n";

fn ca(bundle: &Value) -> Value {
    webhook(json!({ "url": "https://a", "caBundle": bundle }))
}

fn service(more: &Value) -> Value {
    let mut value = json!({ "name": "hook", "namespace": "shop" });
    value.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    value
}

/// Pods as children, updated in this way, with these checks.
fn rolled(method: &str, checks: &Value) -> Value {
    let strategy = json!({ "method": method, "statusChecks": { "conditions": checks } });
    let child = json!({ "apiVersion": "v1", "resource": "pods", "updateStrategy": strategy });
    with(object(), "/spec/childResources/-", child)
}

/// Rolled children, and what revisions keep.
fn kept(paths: &[&str]) -> Value {
    with(rolled("RollingInPlace", &json!([])), "/spec/parentResource/revisionHistory", json!({ "fieldPaths": paths }))
}

#[test]
fn rolling_updates_of_both_groups_become_the_model() {
    for dialect in [&RINGMASTER, &METACONTROLLER] {
        let checks = json!([{ "type": "Ready", "status": "True" }, { "type": "Fine", "reason": "Well" }]);
        let Converted { mut controllers, warnings } = convert(dialect, rolled("RollingRecreate", &checks)).unwrap();
        let controller = controllers.remove(0);
        assert_eq!(warnings, Vec::<String>::new());
        assert!(controller.rolls());
        assert_eq!(controller.children[1].strategy, UpdateStrategy::RollingRecreate);
        let check = |kind: &str, status: Option<&str>, reason: Option<&str>| StatusCheck {
            kind: kind.into(),
            status: status.map(Into::into),
            reason: reason.map(Into::into),
        };
        let expected = [check("Ready", Some("True"), None), check("Fine", None, Some("Well"))];
        assert_eq!(controller.children[1].status_checks, expected);
        assert_eq!(controller.parent.revision_fields, [FieldPath::spec()]);
        let kept = convert(dialect, kept(&["spec.template", "spec.size"]))
            .unwrap()
            .controllers
            .remove(0)
            .parent
            .revision_fields;
        assert_eq!(kept.iter().map(ToString::to_string).collect::<Vec<_>>(), ["spec.template", "spec.size"]);
        assert!(!convert(dialect, object()).unwrap().controllers[0].rolls());
    }
}

#[test]
fn a_full_object_of_ours_becomes_the_model() {
    let selector = json!({ "matchLabels": { "tier": "front" } });
    let object = json!({
        "apiVersion": "ringmaster.dev/v1alpha1",
        "kind": "CompositeController",
        "metadata": { "name": "sites", "uid": UID, "generation": 3 },
        "spec": {
            "parentResource": {
                "apiVersion": "shop.example/v1",
                "resource": "sites",
                "labelSelector": selector,
                "ignoreStatusChanges": false,
            },
            "childResources": [
                { "apiVersion": "v1", "resource": "configmaps", "updateStrategy": { "method": "InPlace" } },
                { "apiVersion": "apps/v1", "resource": "deployments", "updateStrategy": { "method": "Recreate" } },
                { "apiVersion": "v1", "resource": "services", "updateStrategy": {} },
                { "apiVersion": "batch/v1", "resource": "jobs" },
            ],
            "generateSelector": true,
            "resyncPeriodSeconds": 90,
            "paused": true,
            "sharding": { "concurrencyPerShard": 4096 },
            "applyStrategy": "Merge",
            "hooks": {
                "sync": {
                    "version": "v1",
                    "webhook": {
                        "service": { "name": "hook", "namespace": "shop", "port": 8443, "protocol": "https" },
                        "path": "/sync?a=b",
                        "insecure": true,
                        "timeout": "1m30s",
                        "responseUnMarshallMode": "strict",
                    },
                },
            },
        },
        "status": { "parents": 4 },
    });
    let json: Arc<[u8]> = serde_json::to_vec(&object).unwrap().into();
    let Converted { controllers, warnings } = from_json(&RINGMASTER, Arc::clone(&json), &Apply::Merge).unwrap();
    let [controller] = &controllers[..] else { panic!("a composite is one controller") };
    assert!(warnings.is_empty());
    assert_eq!(&*controller.name, "sites");
    assert_eq!(controller.uid, Uid::new(UID));
    assert_eq!(controller.generation, 3);
    assert_eq!(*controller.dialect, RINGMASTER);
    assert_eq!(controller.json, json);
    assert_eq!(
        controller.parent,
        ParentRule {
            api_version: ApiVersion::new("shop.example/v1"),
            resource: "sites".into(),
            selector: Selector::from_json(&selector).unwrap(),
            annotations: Selector::everything(),
            ignore_status_changes: false,
            revision_fields: vec![FieldPath::spec()],
        }
    );
    let child = |api_version, resource: &str, strategy| ChildRule {
        api_version: ApiVersion::new(api_version),
        resource: resource.into(),
        strategy,
        status_checks: Vec::new(),
    };
    assert_eq!(
        controller.children,
        [
            child("v1", "configmaps", UpdateStrategy::InPlace),
            child("apps/v1", "deployments", UpdateStrategy::Recreate),
            child("v1", "services", UpdateStrategy::OnDelete),
            child("batch/v1", "jobs", UpdateStrategy::OnDelete),
        ]
    );
    assert!(controller.generate_selector);
    assert_eq!(controller.resync_period, Some(Duration::from_secs(90)));
    assert!(controller.paused && controller.sharded);
    assert_eq!(controller.syncs_per_shard.map(usize::from), Some(4096));
    assert_eq!(controller.sync.version, HookVersion::V1);
    let webhook = &controller.sync.webhook;
    assert_eq!(webhook.address.urls(), ["https://hook.shop.svc:8443/sync?a=b"]);
    assert_eq!((webhook.timeout, webhook.insecure, webhook.strict), (Duration::from_secs(90), true, true));
}

#[test]
fn each_group_has_its_own_defaults() {
    let ours = convert(&RINGMASTER, object()).unwrap().controllers.remove(0);
    let theirs = convert(&METACONTROLLER, object()).unwrap().controllers.remove(0);
    assert_eq!((ours.dialect.group, theirs.dialect.group), ("ringmaster.dev", "metacontroller.k8s.io"));
    assert_eq!((ours.sync.version, theirs.sync.version), (HookVersion::V2, HookVersion::V1));
    assert_eq!((ours.sync.webhook.strict, theirs.sync.webhook.strict), (true, false));
    assert_eq!((ours.parent.ignore_status_changes, theirs.parent.ignore_status_changes), (true, false));
    for controller in [ours, theirs] {
        assert_eq!(controller.parent.selector, Selector::everything());
        assert_eq!(controller.sync.webhook.address.urls(), ["http://hook.shop.svc:80/"]);
        assert_eq!(controller.sync.webhook.timeout, TIMEOUT_DEFAULT);
        assert_eq!((controller.resync_period, controller.paused, controller.generate_selector), (None, false, false));
        assert_eq!(controller.syncs_per_shard, None);
    }
}

#[test]
fn our_group_takes_these() {
    for (what, object) in [
        ("https", webhook(json!({ "url": "https://hook.example/sync?x=1" }))),
        ("https to an address", webhook(json!({ "url": "https://[2001:db8::1]:8443" }))),
        ("http to localhost", webhook(json!({ "url": "http://localhost:8080/sync" }))),
        ("http to loopback", webhook(json!({ "url": "http://127.0.0.2" }))),
        ("http to loopback, v6", webhook(json!({ "url": "http://[::1]:1?x" }))),
        ("http that is meant", webhook(json!({ "url": "http://hook.example/", "insecure": true }))),
        ("no children", with(object(), "/spec/childResources", json!(null))),
        ("longest name", with(object(), "/metadata/name", json!("n".repeat(40)))),
        ("shortest timeout", with(object(), &format!("{WEBHOOK}/timeout"), json!("1ms"))),
        ("longest timeout", with(object(), &format!("{WEBHOOK}/timeout"), json!("10m"))),
    ] {
        let converted = convert(&RINGMASTER, object).unwrap_or_else(|error| panic!("{what}: {error}"));
        assert!(converted.warnings.is_empty(), "{what}");
    }
}

/// Bad in both groups: the field, where it is as a JSON pointer, and its value.
fn bad_in_both() -> Vec<(&'static str, Value)> {
    let parent = |name: &str, value| with(object(), &format!("/spec/parentResource/{name}"), value);
    let child = |value| with(object(), "/spec/childResources/-", value);
    let url = |text: &str| ("spec.hooks.sync.webhook.url", webhook(json!({ "url": text })));
    let path =
        |text: &str| ("spec.hooks.sync.webhook.path", webhook(json!({ "service": service(&json!({})), "path": text })));
    let target = |part: &'static str, more: Value| (part, webhook(json!({ "service": service(&more) })));
    let unknown = json!({ "matchExpressions": [{ "key": "a", "operator": "Like", "values": ["b"] }] });
    vec![
        ("metadata.name", with(object(), "/metadata/name", json!(null))),
        ("metadata.uid", with(object(), "/metadata/uid", json!(null))),
        ("spec.parentResource.apiVersion", parent("apiVersion", json!("Shop/v1"))),
        ("spec.parentResource.apiVersion", parent("apiVersion", json!("a/b/v1"))),
        ("spec.parentResource.apiVersion", parent("apiVersion", json!(""))),
        ("spec.parentResource.apiVersion", parent("apiVersion", json!("shop.example/"))),
        ("spec.parentResource.resource", parent("resource", json!("Site"))),
        ("spec.parentResource.resource", parent("resource", json!("sites/status"))),
        ("spec.parentResource.labelSelector", parent("labelSelector", unknown)),
        ("spec.childResources[1].apiVersion", child(json!({ "apiVersion": "/v1", "resource": "pods" }))),
        ("spec.childResources[1].resource", child(json!({ "apiVersion": "v1", "resource": "" }))),
        ("spec.hooks.sync", with(object(), "/spec/hooks/sync", json!(null))),
        ("spec.hooks.sync.webhook", webhook(json!({ "timeout": "1s" }))),
        url(""),
        url("hook.example"),
        url("ftp://hook.example"),
        url("https://"),
        url("https://user:word@hook.example"),
        url("https://hook.example:0"),
        url("https://hook.example:65536"),
        url("https://hook.example:+80"),
        url("https://hook.example:"),
        url("https://[::g]/"),
        url("https://::1/"),
        url("https://hook example/"),
        url("https://hook.example/a b"),
        url("https://hook.example/#a"),
        path("sync"),
        path("/a b"),
        path("/#a"),
        target("spec.hooks.sync.webhook.service.name", json!({ "name": "hook.shop" })),
        target("spec.hooks.sync.webhook.service.namespace", json!({ "namespace": "" })),
        target("spec.hooks.sync.webhook.service.port", json!({ "port": 0 })),
        target("spec.hooks.sync.webhook.service.port", json!({ "port": 70000 })),
        ("spec.hooks.sync.webhook.timeout", with(object(), &format!("{WEBHOOK}/timeout"), json!("10"))),
        ("spec.parentResource.revisionHistory.fieldPaths[1]", kept(&["spec", "spec..a"])),
        ("spec.parentResource.revisionHistory.fieldPaths", kept(&["spec"; 17])),
    ]
}

#[test]
fn both_groups_refuse_these_and_name_the_field() {
    for dialect in [&RINGMASTER, &METACONTROLLER] {
        for (field, object) in bad_in_both() {
            let text = object.to_string();
            let error = convert(dialect, object).map(|_| ()).expect_err(&text);
            assert_eq!(error.field, field, "{}: {text}: {error}", dialect.group);
            assert!(error.to_string().starts_with(&format!("{field}: ")), "{error}");
        }
    }
}

#[test]
fn how_children_are_written_is_the_objects_to_say_or_the_process() {
    let ours = |value: Value| {
        convert(&RINGMASTER, with(object(), "/spec/applyStrategy", value)).unwrap().controllers.remove(0).apply
    };
    let server_side = |manager: &str| Apply::ServerSide { manager: manager.into() };
    assert_eq!(ours(Value::Null), server_side("ringmaster"));
    assert_eq!(ours(json!("ServerSide")), server_side("ringmaster"));
    assert_eq!(ours(json!("Merge")), Apply::Merge);
    assert_eq!(convert(&METACONTROLLER, object()).unwrap().controllers.remove(0).apply, Apply::Merge);
    let json: Arc<[u8]> = serde_json::to_vec(&object()).unwrap().into();
    let theirs = from_json(&METACONTROLLER, json, &server_side("me")).unwrap().controllers.remove(0);
    assert_eq!(theirs.apply, server_side("me"));
}

#[test]
fn our_group_refuses_these_and_names_the_field() {
    let hook = service(&json!({}));
    let timeout = |text: &str| with(object(), &format!("{WEBHOOK}/timeout"), json!(text));
    let child = |value| with(object(), "/spec/childResources/-", value);
    let many: Vec<Value> = (0..65).map(|n| json!({ "apiVersion": "v1", "resource": format!("r{n}") })).collect();
    for (field, object) in [
        ("metadata.name", with(object(), "/metadata/name", json!("n".repeat(41)))),
        ("spec.childResources", with(object(), "/spec/childResources", json!(many))),
        ("spec.childResources[1]", child(json!({ "apiVersion": "v1", "resource": "configmaps" }))),
        ("spec.childResources[1]", child(json!({ "apiVersion": "v2", "resource": "configmaps" }))),
        ("spec.childResources[1]", child(json!({ "apiVersion": "shop.example/v2", "resource": "sites" }))),
        ("spec.resyncPeriodSeconds", with(object(), "/spec/resyncPeriodSeconds", json!(0))),
        ("spec.resyncPeriodSeconds", with(object(), "/spec/resyncPeriodSeconds", json!(604_801))),
        ("spec.parentResource.revisionHistory", with(object(), "/spec/parentResource/revisionHistory", json!({}))),
        ("spec.childResources[1].updateStrategy.statusChecks", rolled("InPlace", &json!([]))),
        (
            "spec.childResources[1].updateStrategy.statusChecks.conditions[1].type",
            rolled("RollingInPlace", &json!([{ "type": "Ready" }, { "type": "Ready" }])),
        ),
        (
            "spec.childResources[1].updateStrategy.statusChecks.conditions[0].type",
            rolled("RollingInPlace", &json!([{ "type": "" }])),
        ),
        ("spec.sharding.concurrencyPerShard", with(object(), "/spec/sharding", json!({ "concurrencyPerShard": 0 }))),
        ("spec.sharding.concurrencyPerShard", with(object(), "/spec/sharding", json!({ "concurrencyPerShard": -1 }))),
        ("spec.sharding.concurrencyPerShard", with(object(), "/spec/sharding", json!({ "concurrencyPerShard": 4097 }))),
        ("spec.hooks.sync.webhook", webhook(json!({ "url": "https://hook.example", "service": hook }))),
        ("spec.hooks.sync.webhook.path", webhook(json!({ "url": "https://hook.example", "path": "/sync" }))),
        ("spec.hooks.sync.webhook.path", webhook(json!({ "service": hook, "path": "" }))),
        ("spec.hooks.sync.webhook", webhook(json!({ "url": "https://hook.example", "urls": ["https://a"] }))),
        ("spec.hooks.sync.webhook", webhook(json!({ "service": hook, "urls": ["https://a"] }))),
        ("spec.hooks.sync.webhook.urls", webhook(json!({ "urls": [] }))),
        ("spec.hooks.sync.webhook.urls[1]", webhook(json!({ "urls": ["https://a", "https://b/sync"] }))),
        ("spec.hooks.sync.webhook.urls[1]", webhook(json!({ "urls": ["https://a", "https://A:443"] }))),
        ("spec.hooks.sync.webhook.urls[0]", webhook(json!({ "urls": ["http://a"] }))),
        ("spec.hooks.sync.webhook.urls[0]", webhook(json!({ "urls": ["a:8080"] }))),
        ("spec.hooks.sync.webhook.path", webhook(json!({ "urls": ["https://a"], "path": "sync" }))),
        ("spec.hooks.sync.webhook.caBundle", ca(&json!({}))),
        (
            "spec.hooks.sync.webhook.caBundle",
            ca(&json!({ "inline": PEM, "secretRef": { "name": "a", "namespace": "n" } })),
        ),
        ("spec.hooks.sync.webhook.caBundle.inline", ca(&json!({ "inline": "bm8=" }))),
        (
            "spec.hooks.sync.webhook.caBundle.secretRef.name",
            ca(&json!({ "secretRef": { "name": "A", "namespace": "n" } })),
        ),
        (
            "spec.hooks.sync.webhook.caBundle.configMapRef.namespace",
            ca(&json!({ "configMapRef": { "name": "a", "namespace": "" } })),
        ),
        (
            "spec.hooks.sync.webhook.caBundle.secretRef.key",
            ca(&json!({ "secretRef": { "name": "a", "namespace": "n", "key": "a/b" } })),
        ),
        ("spec.hooks.sync.webhook.caBundle", webhook(json!({ "service": hook, "caBundle": { "inline": PEM } }))),
        (
            "spec.hooks.sync.webhook.clientTLS",
            webhook(json!({ "urls": ["https://a", "http://localhost"],
                "clientTLS": { "secretRef": { "name": "a", "namespace": "n" } } })),
        ),
        (
            "spec.hooks.sync.webhook.clientTLS.certKey",
            webhook(json!({ "url": "https://a",
                "clientTLS": { "secretRef": { "name": "a", "namespace": "n" }, "certKey": "a b" } })),
        ),
        ("spec.hooks.sync.webhook.url", webhook(json!({ "url": "http://hook.example/" }))),
        ("spec.hooks.sync.webhook.url", webhook(json!({ "url": "http://127.0.0.1.hook.example/" }))),
        ("spec.hooks.sync.webhook.url", webhook(json!({ "url": "http://localhost.hook.example/" }))),
        ("spec.hooks.sync.webhook.timeout", timeout("0s")),
        ("spec.hooks.sync.webhook.timeout", timeout("-1s")),
        ("spec.hooks.sync.webhook.timeout", timeout("999us")),
        ("spec.hooks.sync.webhook.timeout", timeout("10m1s")),
        ("object", with(object(), &format!("{WEBHOOK}/responseUnMarshallMode"), json!("tight"))),
        ("object", with(object(), "/spec/hooks", json!(null))),
    ] {
        let text = object.to_string();
        let error = convert(&RINGMASTER, object).map(|_| ()).expect_err(&text);
        assert_eq!(error.field, field, "{text}: {error}");
    }
}

#[test]
fn what_metacontrollers_group_offers_and_we_dont_is_told() {
    let sync = |name: &str, value| with(object(), &format!("{WEBHOOK}/{name}"), value);
    let method = |text: &str| {
        let child = json!({ "apiVersion": "v1", "resource": "pods", "updateStrategy": { "method": text } });
        with(object(), "/spec/childResources/-", child)
    };
    for (field, object, fix) in [
        ("spec.hooks.customize.webhook", with(object(), "/spec/hooks/customize", json!({})), "url or a service"),
        ("spec.childResources[1].updateStrategy.method", method("Never"), "must be OnDelete, Recreate, InPlace"),
        ("spec.hooks", with(object(), "/spec/hooks", json!(null)), "declare hooks.sync"),
        ("spec.hooks.sync.webhook", webhook(json!(null)), "url or a service"),
        ("spec.hooks.finalize.webhook", with(object(), "/spec/hooks/finalize", json!({})), "url or a service"),
        ("spec.hooks.sync.version", with(object(), "/spec/hooks/sync/version", json!("v3")), "must be v1 or v2"),
        (
            "spec.hooks.sync.webhook.responseUnMarshallMode",
            sync("responseUnMarshallMode", json!("tight")),
            "loose or strict",
        ),
    ] {
        let text = object.to_string();
        let error = convert(&METACONTROLLER, object).map(|_| ()).expect_err(&text);
        assert_eq!(error.field, field, "{text}: {error}");
        assert!(error.message.contains(fix), "{error}");
    }
}

#[test]
fn what_has_no_effect_in_metacontrollers_group_is_a_warning() {
    let mut object = object();
    object["metadata"]["name"] = json!("n".repeat(60));
    let spec = &mut object["spec"];
    spec["parentResource"]["revisionHistory"] = json!({ "fieldPaths": ["spec"] });
    spec["childResources"] = json!([
        { "apiVersion": "v1", "resource": "pods", "updateStrategy": { "statusChecks": {} } },
        { "apiVersion": "v1", "resource": "pods", "updateStrategy": { "method": "InPlace" } },
        { "apiVersion": "shop.example/v1", "resource": "sites" },
    ]);
    spec["resyncPeriodSeconds"] = json!(-5);
    spec["hooks"] = json!({
        "preUpdateChild": {},
        "postUpdateChild": {},
        "sync": {
            "webhook": {
                "url": "http://hook.example:8080/sync",
                "service": { "name": "Nobody's", "namespace": "" },
                "path": "sync",
                "timeout": "-3s",
                "etag": { "enabled": false },
            },
        },
    });
    let Converted { controllers, warnings } = convert(&METACONTROLLER, object).unwrap();
    let controller = &controllers[0];
    let fields: Vec<&str> = warnings.iter().map(|warning| warning.split_once(": ").unwrap().0).collect();
    assert_eq!(
        fields,
        [
            "spec.childResources[0].updateStrategy.statusChecks",
            "spec.childResources[1]",
            "spec.parentResource.revisionHistory",
            "spec.hooks.preUpdateChild",
            "spec.hooks.postUpdateChild",
            "spec.hooks.sync.webhook.service",
            "spec.hooks.sync.webhook.path",
            "spec.hooks.sync.webhook.timeout",
            "spec.resyncPeriodSeconds",
        ]
    );
    assert_eq!(controller.children.len(), 2);
    assert_eq!(controller.children[0].strategy, UpdateStrategy::InPlace);
    assert_eq!(controller.resync_period, Some(Duration::from_secs(1)));
    assert_eq!(controller.sync.webhook.timeout, TIMEOUT_DEFAULT);
    assert_eq!(controller.sync.webhook.address, Address::Url("http://hook.example:8080/sync".into()));
    let short = with(webhook(json!({ "url": "https://h" })), &format!("{WEBHOOK}/timeout"), json!("1us"));
    assert_eq!(convert(&METACONTROLLER, short).unwrap().controllers.remove(0).sync.webhook.timeout, TIMEOUT_MIN);
}

#[test]
fn replicas_and_what_their_tls_needs_become_the_model() {
    let of = |dialect, value| convert(dialect, webhook(value)).unwrap().controllers.remove(0).sync.webhook;
    let urls = of(&RINGMASTER, json!({ "urls": ["https://a:8443", "https://b"], "path": "/s", "idempotent": true }));
    assert_eq!(urls.address.urls(), ["https://a:8443/s", "https://b/s"]);
    assert!(urls.idempotent && urls.tls == Tls::default());
    assert_eq!(of(&RINGMASTER, json!({ "urls": ["https://a"] })).address.urls(), ["https://a/"]);
    let tls = json!({
        "service": service(&json!({ "protocol": "https" })),
        "caBundle": { "configMapRef": { "name": "authorities", "namespace": "shop" } },
        "clientTLS": { "secretRef": { "name": "we.are", "namespace": "shop" }, "privateKeyKey": "key.pem" },
    });
    for dialect in [&RINGMASTER, &METACONTROLLER] {
        let Tls { ca, client } = of(dialect, tls.clone()).tls;
        let authorities = Entry { object: ObjectKey::new("shop", "authorities"), key: "ca.crt".into() };
        assert_eq!(ca, Some(CaBundle::ConfigMap(authorities)));
        let certificate = ("tls.crt".into(), "key.pem".into());
        let client = client.unwrap();
        assert_eq!((client.certificate, client.private_key), certificate);
        assert_eq!(client.secret, ObjectKey::new("shop", "we.are"));
    }
    let inline = of(&METACONTROLLER, json!({ "url": "https://a", "caBundle": { "inline": PEM } }));
    assert_eq!(inline.tls.ca, Some(CaBundle::Inline(PEM.into())));
    let plain = convert(&METACONTROLLER, webhook(json!({ "url": "http://a", "caBundle": { "inline": PEM } }))).unwrap();
    assert_eq!(plain.controllers[0].sync.webhook.tls, Tls::default());
    assert!(plain.warnings[0].contains("caBundle: has no effect without https"), "{:?}", plain.warnings);
    let nobody = webhook(json!({ "url": "https://a", "clientTLS": {} }));
    assert_eq!(convert(&METACONTROLLER, nobody).unwrap_err().field, "spec.hooks.sync.webhook.clientTLS.secretRef.name");
}
