//! Controller objects with a bad field, of both groups: the API server refuses them, or a condition or an event says so;
//! either way the words name the field and the fix. Good controllers go on beside them.
//!
//! Never about the command line: see `command`. A kind that isn't served or a webhook that doesn't answer is no bad field.

use std::collections::BTreeSet;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::scene::{SOON, Scene, config_map, event};
use crate::cluster::Context;
use crate::objects::{Refused, Resource};
use crate::trial::Case;

/// How a controller object is spoilt, and what whoever refuses it must say.
struct Bad {
    /// In the spec that is right otherwise: a JSON pointer; what is put there, or `null` to take it away.
    field: &'static str,
    value: fn() -> Value,
    words: &'static [&'static str],
}

const fn bad(field: &'static str, value: fn() -> Value, words: &'static [&'static str]) -> Bad {
    Bad { field, value, words }
}

/// What no rule of an API server may let through in our own group.
const RINGMASTER: &[Bad] = &[
    bad("/metadata/name", || "x".repeat(41).into(), &["metadata.name", "at most 40 characters"]),
    bad("/metadata/name", || "Upper".into(), &["metadata.name", "lower case"]),
    bad("/spec", || Value::Null, &["spec", "Required"]),
    bad("/spec/parentResource", || Value::Null, &["spec.parentResource", "Required"]),
    bad("/spec/parentResource/apiVersion", || Value::Null, &["spec.parentResource.apiVersion", "Required"]),
    bad("/spec/parentResource/apiVersion", || "".into(), &["spec.parentResource.apiVersion", "group/version"]),
    bad("/spec/parentResource/apiVersion", || "a/b/c".into(), &["spec.parentResource.apiVersion", "group/version"]),
    bad("/spec/parentResource/apiVersion", || "Apps/v1".into(), &["spec.parentResource.apiVersion", "apps/v1"]),
    bad("/spec/parentResource/apiVersion", || "a/".repeat(200).into(), &["spec.parentResource.apiVersion", "317"]),
    bad("/spec/parentResource/resource", || Value::Null, &["spec.parentResource.resource", "Required"]),
    bad("/spec/parentResource/resource", || "things/status".into(), &["spec.parentResource.resource", "plural name"]),
    bad("/spec/parentResource/resource", || "Thing".into(), &["spec.parentResource.resource", "lower case"]),
    bad("/spec/parentResource/resource", || "a".repeat(64).into(), &["spec.parentResource.resource", "63"]),
    bad(
        "/spec/parentResource/labelSelector",
        || json!({ "matchExpressions": [{ "key": "a", "operator": "Contains", "values": ["b"] }] }),
        &["spec.parentResource.labelSelector.matchExpressions[0].operator", "\"In\"", "\"DoesNotExist\""],
    ),
    bad(
        "/spec/parentResource/labelSelector",
        || json!({ "matchExpressions": [{ "key": "a", "operator": "In", "values": [] }] }),
        &["spec.parentResource.labelSelector", "values"],
    ),
    bad(
        "/spec/parentResource/labelSelector",
        || json!({ "matchExpressions": [{ "key": "a", "operator": "Exists", "values": ["b"] }] }),
        &["spec.parentResource.labelSelector", "values"],
    ),
    bad(
        "/spec/parentResource/labelSelector",
        || json!({ "matchLabels": { "a b": "c" } }),
        &["spec.parentResource.labelSelector", "a b"],
    ),
    bad(
        "/spec/parentResource/labelSelector",
        || json!({ "matchLabels": { "a": "c d" } }),
        &["spec.parentResource.labelSelector", "c d"],
    ),
    bad("/spec/parentResource/ignoreStatusChanges", || "yes".into(), &["ignoreStatusChanges", "boolean"]),
    bad("/spec/childResources", || json!({}), &["spec.childResources", "array"]),
    bad("/spec/childResources", many_kinds, &["spec.childResources", "64"]),
    bad(
        "/spec/childResources/1",
        || json!({ "apiVersion": "v1", "resource": "configmaps" }),
        &["spec.childResources[1]", "Duplicate", "configmaps"],
    ),
    bad("/spec/childResources/0/apiVersion", || "v1/".into(), &["spec.childResources[0].apiVersion", "group/version"]),
    bad("/spec/childResources/0/resource", || "pods/log".into(), &["spec.childResources[0].resource", "plural name"]),
    bad(
        "/spec/childResources/0/updateStrategy/method",
        || "Replace".into(),
        &["spec.childResources[0].updateStrategy.method", "\"OnDelete\", \"Recreate\", \"InPlace\""],
    ),
    bad("/spec/generateSelector", || "yes".into(), &["spec.generateSelector", "boolean"]),
    bad("/spec/resyncPeriodSeconds", || 0.into(), &["spec.resyncPeriodSeconds", "greater than or equal to 1"]),
    bad("/spec/resyncPeriodSeconds", || (-5).into(), &["spec.resyncPeriodSeconds", "greater than or equal to 1"]),
    bad("/spec/resyncPeriodSeconds", || 604_801.into(), &["spec.resyncPeriodSeconds", "less than or equal to 604800"]),
    bad("/spec/resyncPeriodSeconds", || 1.5.into(), &["spec.resyncPeriodSeconds", "integer"]),
    bad("/spec/resyncPeriodSeconds", || "30s".into(), &["spec.resyncPeriodSeconds", "integer"]),
    bad("/spec/sharding", || json!({ "concurrencyPerShard": 0 }), &["spec.sharding.concurrencyPerShard", "equal to 1"]),
    bad("/spec/sharding", || json!({ "concurrencyPerShard": 4097 }), &["spec.sharding.concurrencyPerShard", "to 4096"]),
    bad("/spec/sharding", || json!({ "concurrencyPerShard": "2" }), &["spec.sharding.concurrencyPerShard", "integer"]),
    bad("/spec/paused", || "no".into(), &["spec.paused", "boolean"]),
    bad("/spec/applyStrategy", || "Replace".into(), &["spec.applyStrategy", "\"Merge\", \"ServerSide\""]),
    bad("/spec/hooks", || Value::Null, &["spec.hooks", "Required"]),
    bad("/spec/hooks", || json!({}), &["spec.hooks.sync", "Required"]),
    bad("/spec/hooks/sync/version", || "v3".into(), &["spec.hooks.sync.version", "\"v1\", \"v2\""]),
    bad("/spec/hooks/sync/webhook", || Value::Null, &["spec.hooks.sync.webhook", "Required"]),
    bad("/spec/hooks/sync/webhook", || json!({}), &["spec.hooks.sync.webhook", "exactly one of url, urls and service"]),
    bad(
        "/spec/hooks/sync/webhook/service",
        service,
        &["spec.hooks.sync.webhook", "exactly one of url, urls and service"],
    ),
    bad("/spec/hooks/sync/webhook/path", || "/sync".into(), &["webhook.path", "make it part of webhook.url"]),
    bad("/spec/hooks/sync/webhook/url", || "".into(), &["spec.hooks.sync.webhook.url", "https://host"]),
    bad("/spec/hooks/sync/webhook/url", || "ftp://h/x".into(), &["spec.hooks.sync.webhook.url", "https://host"]),
    bad("/spec/hooks/sync/webhook/url", || "localhost:80".into(), &["spec.hooks.sync.webhook.url", "https://host"]),
    bad("/spec/hooks/sync/webhook/url", || "https:///x".into(), &["spec.hooks.sync.webhook.url", "https://host"]),
    bad("/spec/hooks/sync/webhook/url", || "https://a:b@h/x".into(), &["webhook.url", "without user information"]),
    bad("/spec/hooks/sync/webhook/url", || "https://h/x#y".into(), &["webhook.url", "or fragment"]),
    bad("/spec/hooks/sync/webhook/url", || "https://h h/x".into(), &["spec.hooks.sync.webhook.url", "https://host"]),
    bad("/spec/hooks/sync/webhook/url", || "https://h:0/x".into(), &["webhook.url", "between 1 and 65535"]),
    bad("/spec/hooks/sync/webhook/url", || "https://h:65536/x".into(), &["webhook.url", "between 1 and 65535"]),
    bad("/spec/hooks/sync/webhook/url", || format!("https://h/{}", "x".repeat(2048)).into(), &["webhook.url", "2048"]),
    bad("/spec/hooks/sync/webhook/url", || "http://example.com/x".into(), &["webhook.url", "webhook.insecure: true"]),
    bad("/spec/hooks/sync/webhook/urls", || json!(["https://a"]), &["webhook", "exactly one of url, urls and service"]),
    bad("/spec/hooks/sync/webhook", || json!({ "urls": [] }), &["webhook.urls", "at least 1"]),
    bad(
        "/spec/hooks/sync/webhook",
        || json!({ "urls": ["https://a", "https://a"] }),
        &["webhook.urls[1]", "Duplicate"],
    ),
    bad("/spec/hooks/sync/webhook", many_urls, &["webhook.urls", "32"]),
    bad("/spec/hooks/sync/webhook", || json!({ "urls": ["https://a/sync"] }), &["webhook.urls", "webhook.path"]),
    bad("/spec/hooks/sync/webhook", || json!({ "urls": ["ftp://a"] }), &["webhook.urls", "https://host[:port]"]),
    bad("/spec/hooks/sync/webhook", || json!({ "urls": ["https://u:p@a"] }), &["webhook.urls", "https://host[:port]"]),
    bad("/spec/hooks/sync/webhook", || json!({ "urls": ["https://a:0"] }), &["webhook.urls", "between 1 and 65535"]),
    bad(
        "/spec/hooks/sync/webhook",
        || json!({ "urls": ["https://a", "http://b.example"] }),
        &["webhook.urls", "webhook.insecure: true"],
    ),
    bad("/spec/hooks/sync/webhook/idempotent", || "yes".into(), &["webhook.idempotent", "boolean"]),
    bad(
        "/spec/hooks/sync/webhook",
        || json!({ "service": service(), "caBundle": { "inline": "x" } }),
        &["webhook.caBundle", "need https", "webhook.service.protocol: https"],
    ),
    bad("/spec/hooks/sync/webhook/caBundle", || json!({ "inline": "eA==" }), &["caBundle.inline", "not in base64"]),
    bad("/spec/hooks/sync/webhook", || tls("caBundle", json!({})), &["webhook.caBundle", "exactly one of inline"]),
    bad(
        "/spec/hooks/sync/webhook",
        || tls("caBundle", json!({ "inline": "x", "secretRef": { "name": "a", "namespace": "b" } })),
        &["webhook.caBundle", "exactly one of inline"],
    ),
    bad(
        "/spec/hooks/sync/webhook",
        || tls("caBundle", json!({ "inline": "x".repeat(262_145) })),
        &["webhook.caBundle.inline", "262144"],
    ),
    bad(
        "/spec/hooks/sync/webhook",
        || tls("caBundle", json!({ "secretRef": { "name": "a b", "namespace": "b" } })),
        &["webhook.caBundle.secretRef.name", "name of an object"],
    ),
    bad(
        "/spec/hooks/sync/webhook",
        || tls("caBundle", json!({ "configMapRef": { "name": "a", "namespace": "b.c" } })),
        &["webhook.caBundle.configMapRef.namespace", "name of a namespace"],
    ),
    bad(
        "/spec/hooks/sync/webhook",
        || tls("caBundle", json!({ "configMapRef": { "name": "a", "namespace": "b", "key": "c/d" } })),
        &["webhook.caBundle.configMapRef.key", "a key of the object's data"],
    ),
    bad("/spec/hooks/sync/webhook", || tls("clientTLS", json!({})), &["webhook.clientTLS.secretRef", "Required"]),
    bad(
        "/spec/hooks/sync/webhook",
        || tls("clientTLS", json!({ "secretRef": { "name": "a", "namespace": "b" }, "certKey": "x y" })),
        &["webhook.clientTLS.certKey", "a key of the object's data"],
    ),
    bad(
        "/spec/hooks/sync/webhook",
        || tls("authorization", json!({})),
        &["webhook.authorization.secretRef", "Required"],
    ),
    bad("/spec/hooks/sync/webhook", || tls("basicAuth", json!({})), &["webhook.basicAuth.secretRef", "Required"]),
    bad(
        "/spec/hooks/sync/webhook",
        || tls("authorization", json!({ "type": "BASIC", "secretRef": secret() })),
        &["webhook.authorization", "type: Basic is what basicAuth is for"],
    ),
    bad(
        "/spec/hooks/sync/webhook",
        || tls("authorization", json!({ "type": "a b", "secretRef": secret() })),
        &["webhook.authorization", "such as Bearer"],
    ),
    bad(
        "/spec/hooks/sync/webhook",
        || tls("authorization", json!({ "secretRef": { "name": "a", "namespace": "b" } })),
        &["webhook.authorization.secretRef.key", "Required"],
    ),
    bad(
        "/spec/hooks/sync/webhook",
        || tls("basicAuth", json!({ "secretRef": { "name": "a", "namespace": "b" }, "passwordKey": "x y" })),
        &["webhook.basicAuth.passwordKey", "a key of the object's data"],
    ),
    bad("/spec/hooks/sync/webhook", two_credentials, &["webhook.authorization", "exclude each other"]),
    bad(
        "/spec/hooks/sync/webhook",
        || json!({ "service": service(), "authorization": { "secretRef": secret() } }),
        &["webhook.authorization", "webhook.insecure: true", "webhook.service.protocol: https"],
    ),
    bad(
        "/spec/endpointConfigs",
        || json!([{ "host": "https://a", "authorization": { "secretRef": secret() } }]),
        &["spec.endpointConfigs[0].host", "host or host:port"],
    ),
    bad(
        "/spec/hooks/sync/webhook/etag",
        || json!({ "enabled": true, "cacheTimeoutSeconds": 0 }),
        &["webhook.etag.cacheTimeoutSeconds", "greater than or equal to 1"],
    ),
    bad("/spec/endpointConfigs", || json!([{ "host": "a" }]), &["spec.endpointConfigs[0]", "at least one of caBundle"]),
    bad("/spec/hooks/sync/webhook/insecure", || "yes".into(), &["spec.hooks.sync.webhook.insecure", "boolean"]),
    bad("/spec/hooks/sync/webhook", || at("name", "A_b".into()), &["webhook.service.name", "lower-case letters"]),
    bad("/spec/hooks/sync/webhook", || at("name", "a.b".into()), &["webhook.service.name", "lower-case letters"]),
    bad("/spec/hooks/sync/webhook", || at("name", "a".repeat(64).into()), &["webhook.service.name", "63"]),
    bad("/spec/hooks/sync/webhook", || at("name", Value::Null), &["webhook.service.name", "Required"]),
    bad("/spec/hooks/sync/webhook", || at("namespace", Value::Null), &["webhook.service.namespace", "Required"]),
    bad(
        "/spec/hooks/sync/webhook",
        || at("namespace", "-".into()),
        &["webhook.service.namespace", "lower-case letters"],
    ),
    bad("/spec/hooks/sync/webhook", || at("port", 0.into()), &["webhook.service.port", "greater than or equal to 1"]),
    bad("/spec/hooks/sync/webhook", || at("port", 65_536.into()), &["webhook.service.port", "65535"]),
    bad("/spec/hooks/sync/webhook", || at("port", "http".into()), &["webhook.service.port", "integer"]),
    bad(
        "/spec/hooks/sync/webhook",
        || at("protocol", "ftp".into()),
        &["webhook.service.protocol", "\"http\", \"https\""],
    ),
    bad("/spec/hooks/sync/webhook", || beside("path", "sync"), &["webhook.path", "start with /"]),
    bad("/spec/hooks/sync/webhook", || beside("path", "/a b"), &["webhook.path", "no spaces"]),
    bad("/spec/hooks/sync/webhook/timeout", || "0s".into(), &["webhook.timeout", "between 1ms and 10m"]),
    bad("/spec/hooks/sync/webhook/timeout", || "-1s".into(), &["webhook.timeout", "such as 10s"]),
    bad("/spec/hooks/sync/webhook/timeout", || "10".into(), &["webhook.timeout", "such as 10s"]),
    bad("/spec/hooks/sync/webhook/timeout", || "soon".into(), &["webhook.timeout", "such as 10s"]),
    bad("/spec/hooks/sync/webhook/timeout", || "0.5ms".into(), &["webhook.timeout", "between 1ms and 10m"]),
    bad("/spec/hooks/sync/webhook/timeout", || "10m1s".into(), &["webhook.timeout", "between 1ms and 10m"]),
    bad("/spec/hooks/sync/webhook/timeout", || 10.into(), &["webhook.timeout", "string"]),
    bad(
        "/spec/hooks/sync/webhook/responseUnMarshallMode",
        || "lax".into(),
        &["webhook.responseUnMarshallMode", "\"loose\", \"strict\""],
    ),
];

/// The same for Metacontroller's group, whose CRD forgives more: an event says the rest.
const METACONTROLLER: &[Bad] = &[
    bad("/metadata/name", || "Upper".into(), &["metadata.name", "lower case"]),
    bad("/spec", || Value::Null, &["spec", "Required"]),
    bad("/spec/parentResource", || Value::Null, &["spec.parentResource", "Required"]),
    bad("/spec/parentResource/apiVersion", || "a/b/c".into(), &["spec.parentResource.apiVersion", "group/version"]),
    bad("/spec/parentResource/resource", || "things/status".into(), &["spec.parentResource.resource", "plural name"]),
    bad(
        "/spec/parentResource/labelSelector",
        || json!({ "matchExpressions": [{ "key": "a", "operator": "Contains" }] }),
        &["spec.parentResource.labelSelector", "Contains"],
    ),
    bad(
        "/spec/parentResource/labelSelector",
        || json!({ "matchLabels": { "a b": "c" } }),
        &["spec.parentResource.labelSelector", "a b"],
    ),
    bad("/spec/parentResource/ignoreStatusChanges", || "yes".into(), &["ignoreStatusChanges", "boolean"]),
    bad(
        "/spec/parentResource/revisionHistory",
        || json!({ "fieldPaths": ["spec"] }),
        &["revisionHistory", "no effect"],
    ),
    bad("/spec/childResources", || json!({}), &["spec.childResources", "array"]),
    bad(
        "/spec/childResources/1",
        || json!({ "apiVersion": "v1", "resource": "configmaps" }),
        &["spec.childResources[1]", "again", "update strategy holds"],
    ),
    bad("/spec/childResources/0/apiVersion", || "v1/".into(), &["spec.childResources[0].apiVersion", "group/version"]),
    bad("/spec/childResources/0/resource", || "pods/log".into(), &["spec.childResources[0].resource", "plural name"]),
    bad(
        "/spec/childResources/0/updateStrategy/method",
        || "Replace".into(),
        &["spec.childResources[0].updateStrategy.method", "\"Recreate\""],
    ),
    bad(
        "/spec/childResources/0/updateStrategy/statusChecks",
        || json!({ "conditions": [] }),
        &["spec.childResources[0].updateStrategy.statusChecks", "no effect"],
    ),
    bad("/spec/generateSelector", || "yes".into(), &["spec.generateSelector", "boolean"]),
    bad("/spec/resyncPeriodSeconds", || (-5).into(), &["spec.resyncPeriodSeconds", "1 is used"]),
    bad("/spec/resyncPeriodSeconds", || "30s".into(), &["spec.resyncPeriodSeconds", "integer"]),
    bad("/spec/hooks", || Value::Null, &["spec.hooks", "declare hooks.sync"]),
    bad("/spec/hooks", || json!({}), &["spec.hooks.sync", "declare the webhook"]),
    bad("/spec/hooks/finalize", || json!({}), &["spec.hooks.finalize.webhook", "give it a url or a service"]),
    bad("/spec/hooks/customize", || json!({}), &["spec.hooks.customize.webhook", "give it a url or a service"]),
    bad("/spec/hooks/preUpdateChild", hook, &["spec.hooks.preUpdateChild", "never called"]),
    bad("/spec/hooks/postUpdateChild", hook, &["spec.hooks.postUpdateChild", "never called"]),
    bad("/spec/hooks/sync/version", || "v3".into(), &["spec.hooks.sync.version", "v1 or v2"]),
    bad("/spec/hooks/sync/webhook", || Value::Null, &["spec.hooks.sync.webhook", "give it a url or a service"]),
    bad("/spec/hooks/sync/webhook", || json!({}), &["spec.hooks.sync.webhook", "needs url or service"]),
    bad(
        "/spec/hooks/sync/webhook/service",
        service,
        &["spec.hooks.sync.webhook.service", "no effect beside webhook.url"],
    ),
    bad(
        "/spec/hooks/sync/webhook/path",
        || "/x".into(),
        &["spec.hooks.sync.webhook.path", "no effect beside webhook.url"],
    ),
    bad("/spec/hooks/sync/webhook/url", || "ftp://h/x".into(), &["spec.hooks.sync.webhook.url", "https://host"]),
    bad("/spec/hooks/sync/webhook/url", || "https://a:b@h/x".into(), &["spec.hooks.sync.webhook.url", "remove what"]),
    bad("/spec/hooks/sync/webhook/url", || "https://h:0/x".into(), &["spec.hooks.sync.webhook.url", "1 and 65535"]),
    bad("/spec/hooks/sync/webhook/url", || "https://h h/x".into(), &["spec.hooks.sync.webhook.url", "isn't a host"]),
    bad("/spec/hooks/sync/webhook", || at("name", "A_b".into()), &["webhook.service.name", "lower-case letters"]),
    bad(
        "/spec/hooks/sync/webhook",
        || at("namespace", "-".into()),
        &["webhook.service.namespace", "lower-case letters"],
    ),
    bad("/spec/hooks/sync/webhook", || at("port", 0.into()), &["webhook.service.port", "between 1 and 65535"]),
    bad("/spec/hooks/sync/webhook", || at("protocol", "ftp".into()), &["webhook.service.protocol", "http or https"]),
    bad("/spec/hooks/sync/webhook", || beside("path", "sync"), &["webhook.path", "start with /"]),
    bad("/spec/hooks/sync/webhook/timeout", || "0s".into(), &["webhook.timeout", "10s is used"]),
    bad("/spec/hooks/sync/webhook/timeout", || "1us".into(), &["webhook.timeout", "1ms is used"]),
    bad("/spec/hooks/sync/webhook/timeout", || "soon".into(), &["webhook.timeout", "such as 10s"]),
    bad("/spec/hooks/sync/webhook/responseUnMarshallMode", || "lax".into(), &["responseUnMarshallMode", "loose"]),
    bad(
        "/spec/hooks/sync/webhook/etag",
        || json!({ "enabled": true, "cacheCleanupSeconds": 5 }),
        &["webhook.etag.cacheCleanupSeconds", "no effect"],
    ),
    bad(
        "/spec/hooks/sync/webhook",
        || json!({ "url": "http://h/x", "caBundle": { "inline": "x" } }),
        &["webhook.caBundle", "no effect without"],
    ),
    bad("/spec/hooks/sync/webhook", || tls("caBundle", json!({})), &["webhook.caBundle", "exactly one of inline"]),
    bad(
        "/spec/hooks/sync/webhook",
        || tls("clientTLS", json!({})),
        &["webhook.clientTLS.secretRef.name", "must be given"],
    ),
    bad(
        "/spec/hooks/sync/webhook/authorization",
        || json!({ "type": "Bearer" }),
        &["webhook.authorization.secretRef.name", "must be given"],
    ),
    bad(
        "/spec/hooks/sync/webhook/authorization",
        || json!({ "type": "basic", "secretRef": secret() }),
        &["webhook.authorization.type", "use that instead"],
    ),
    bad(
        "/spec/hooks/sync/webhook/authorization",
        || json!({ "secretRef": { "name": "a", "namespace": "b" } }),
        &["webhook.authorization.secretRef.key", "name the Secret's entry"],
    ),
    bad("/spec/hooks/sync/webhook/basicAuth", || json!({}), &["webhook.basicAuth.secretRef.name", "must be given"]),
    bad(
        "/spec/endpointConfigs",
        || json!([{ "host": "127.0.0.1:1", "authorization": { "secretRef": secret() }, "basicAuth": {} }]),
        &["spec.endpointConfigs[0].authorization", "remove one"],
    ),
    bad(
        "/spec/endpointConfigs",
        || json!([{ "host": "elsewhere", "authorization": {} }]),
        &["spec.endpointConfigs[0]", "no effect"],
    ),
];

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let metacontroller = || Resource::new("metacontroller.k8s.io/v1alpha1", "CompositeController", PLURAL, None);
    vec![
        Case::new("faults_settings", "of_every_field", |ctx| every_field(ctx, Context::controllers(), RINGMASTER)),
        Case::new("faults_settings", "of_every_field_of_metacontroller", move |ctx| {
            every_field(ctx, metacontroller(), METACONTROLLER)
        }),
    ]
}

const PLURAL: &str = "compositecontrollers";

/// More URLs than there may be.
fn many_urls() -> Value {
    json!({ "urls": (0..33).map(|number| format!("https://h{number}")).collect::<Vec<_>>() })
}

/// A webhook by https with something more.
fn tls(field: &str, value: Value) -> Value {
    json!({ "url": "https://h/x", field: value })
}

fn secret() -> Value {
    json!({ "name": "a", "namespace": "b", "key": "c" })
}

fn two_credentials() -> Value {
    let basic = json!({ "secretRef": { "name": "a", "namespace": "b" } });
    json!({ "url": "https://h/x", "authorization": { "secretRef": secret() }, "basicAuth": basic })
}

fn many_kinds() -> Value {
    (0..65).map(|number| json!({ "apiVersion": "v1", "resource": format!("kinds{number}") })).collect()
}

fn service() -> Value {
    json!({ "name": "hook", "namespace": "default" })
}

fn hook() -> Value {
    json!({ "webhook": { "url": "https://example.com/x" } })
}

/// A webhook at a Service of which one field is another.
fn at(field: &str, value: Value) -> Value {
    let mut service = service();
    service[field] = value;
    json!({ "service": service })
}

/// A webhook at a Service with one field beside it.
fn beside(field: &str, value: &str) -> Value {
    let mut webhook = json!({ "service": service() });
    webhook[field] = value.into();
    webhook
}

/// Puts a value where a JSON pointer leads, making objects on the way and taking `null`s away.
fn put(object: &mut Value, pointer: &str, value: Value) -> anyhow::Result<()> {
    let (parent, last) = pointer.rsplit_once('/').context("no pointer")?;
    if object.pointer(parent).is_none() {
        put(object, parent, json!({}))?;
    }
    match object.pointer_mut(parent).context("no parent")? {
        Value::Object(members) if value.is_null() => drop(members.remove(last)),
        Value::Object(members) => drop(members.insert(last.to_owned(), value)),
        Value::Array(items) if last.parse() == Ok(items.len()) => items.push(value),
        other => anyhow::bail!("{pointer} leads into {other}"),
    }
    Ok(())
}

async fn every_field(ctx: Context, controllers: Resource, table: &'static [Bad]) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let ctx = &scene.ctx;
    let good = |name: &str| {
        let metadata = json!({ "name": ctx.controller_name(name), "labels": { "suite": ctx.id } });
        json!({ "metadata": metadata, "spec": scene.spec("InPlace") })
    };
    let mut wrong = Vec::new();
    let mut told = Vec::new();
    for (index, bad) in table.iter().enumerate() {
        let (mut object, value) = (good(&format!("b{index}")), (bad.value)());
        // Nobody's hook is called by what is only half wrong.
        object["spec"]["hooks"]["sync"]["webhook"]["url"] = "https://127.0.0.1:1/sync".into();
        let title = format!("{} {}", bad.field, value.to_string().chars().take(60).collect::<String>());
        put(&mut object, bad.field, value).with_context(|| title.clone())?;
        match ctx.admin.create(&controllers, object).await {
            Ok(created) => told.push((title, bad, created)),
            Err(error) => {
                let refused = error.downcast_ref::<Refused>();
                let code = refused.map_or(0, |refused| refused.code);
                let text = format!("{error:#}");
                if ![400, 422].contains(&code) || !bad.words.iter().all(|word| text.contains(word)) {
                    wrong.push(format!("{title}: {code}, wanted {:?}: {text}", bad.words));
                }
            }
        }
    }
    let (refused, stored) = (table.len() - told.len(), told.len());
    for (title, bad, created) in told {
        // Whatever was stored all the same says so itself, in words or in conditions.
        let events = async || {
            let events = ctx.events_for(&created).await?;
            let warnings = events.iter().filter(|event| event["type"] == "Warning");
            let mut messages: BTreeSet<String> =
                warnings.filter_map(|event| event["message"].as_str().map(ToOwned::to_owned)).collect();
            let name = created["metadata"]["name"].as_str().unwrap_or_default();
            let object = ctx.admin.get(&controllers, name).await?;
            let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
            let bad_ones = conditions.filter(|condition| condition["status"] == "False");
            messages.extend(bad_ones.filter_map(|condition| condition["message"].as_str().map(ToOwned::to_owned)));
            let found = messages.iter().any(|text| bad.words.iter().all(|word| text.contains(word)));
            ensure!(found, "{messages:?}");
            Ok(())
        };
        if let Err(error) = ctx.wait(&format!("{title} is told"), SOON, events).await {
            wrong.push(format!("{title}: stored; wanted {:?}: {error:#}", bad.words));
        }
    }
    ensure!(wrong.is_empty(), "{} of {} are told badly:\n{}", wrong.len(), table.len(), wrong.join("\n"));
    println!("settings: {refused} refused by the API server, {stored} told by Ringmaster");

    // Among all of these, a good one runs.
    ctx.admin.create(&controllers, good("good")).await?;
    let thing = scene.thing("p", json!({ "children": [config_map("a", json!({}))] })).await?;
    scene.map("a", "is made", |_| Ok(())).await?;
    event(ctx, &thing, "ChildCreated", &["ConfigMap a"]).await?;
    scene.ringmaster.check()
}
