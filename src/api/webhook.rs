//! Webhooks of our own group: where they are and how they are called, as all its controller kinds share them.
//!
//! Never judges an object: every rule here is checked again in [`crate::convert`], where CEL may not have run.

#![allow(unreachable_pub, reason = "KubeSchema copies each struct into a function, public as it is")]

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{
    AUTH_SCHEME_MAX, CA_BUNDLE_MAX, DATA_KEY_MAX, ETAG_TIMEOUT_SECONDS_MAX, HOST_MAX, OBJECT_NAME_MAX, ORIGIN_MAX,
    URL_MAX, URLS_MAX,
};

const DNS_LABEL_RULE: &str = r"self.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')";
const URL_RULE: &str = concat!(
    "isURL(self) && self.matches('^https?://",
    r"([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?",
    r#"([/?][!-\"$-~]*)?$')"#
);
const URL_PORT_RULE: &str =
    "!isURL(self) || url(self).getPort() == '' || (int(url(self).getPort()) >= 1 && int(url(self).getPort()) <= 65535)";
const PATH_RULE: &str = r#"self.matches('^/[!-\"$-~]*$')"#;
const TIMEOUT_RULE: &str = "self.matches('^([0-9]{1,6}([.][0-9]{1,9})?(ns|us|ms|s|m|h))+$') && \
     duration(self) >= duration('1ms') && duration(self) <= duration('10m')";
const INSECURE_RULE: &str = concat!(
    "!has(self.url) || !self.url.startsWith('http://') || (has(self.insecure) && self.insecure) || ",
    r"self.url.matches('^http://(localhost|127([.][0-9]{1,3}){3}|\\[::1\\])([:/?]|$)')"
);
const ORIGINS_RULE: &str =
    r"self.all(u, isURL(u) && u.matches('^https?://([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?$'))";
const ORIGIN_PORTS_RULE: &str = "self.all(u, !isURL(u) || url(u).getPort() == '' || \
     (int(url(u).getPort()) >= 1 && int(url(u).getPort()) <= 65535))";
const INSECURE_ORIGINS_RULE: &str = concat!(
    "!has(self.urls) || (has(self.insecure) && self.insecure) || self.urls.all(u, !u.startsWith('http://') || ",
    r"u.matches('^http://(localhost|127([.][0-9]{1,3}){3}|\\[::1\\])(:|$)'))"
);
const ONE_ADDRESS_RULE: &str = "(has(self.url) ? 1 : 0) + (has(self.urls) ? 1 : 0) + (has(self.service) ? 1 : 0) == 1";
const TLS_RULE: &str = "!(has(self.caBundle) || has(self.clientTLS)) || \
     (has(self.url) && self.url.startsWith('https://')) || \
     (has(self.urls) && self.urls.all(u, u.startsWith('https://'))) || \
     (has(self.service) && has(self.service.protocol) && self.service.protocol == 'https')";
const ONE_CA_RULE: &str =
    "(has(self.inline) ? 1 : 0) + (has(self.secretRef) ? 1 : 0) + (has(self.configMapRef) ? 1 : 0) == 1";
const ONE_AUTH_RULE: &str = "!(has(self.authorization) && has(self.basicAuth))";
const EXPOSED_AUTH_RULE: &str = "!(has(self.authorization) || has(self.basicAuth)) || !has(self.service) || \
     (has(self.insecure) && self.insecure) || (has(self.service.protocol) && self.service.protocol == 'https')";
const SCHEME_RULE: &str = r##"self.matches("^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")"##;
const NOT_BASIC_RULE: &str = "!self.matches('^[Bb][Aa][Ss][Ii][Cc]$')";
const HOST_RULE: &str = r"self.matches('^([A-Za-z0-9._-]+|\\[[0-9A-Fa-f:.]+\\])(:[0-9]{1,5})?$')";
const ANY_CREDENTIALS_RULE: &str =
    "has(self.caBundle) || has(self.clientTLS) || has(self.authorization) || has(self.basicAuth)";
const OBJECT_NAME_RULE: &str = "self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$')";
const DATA_KEY_RULE: &str = "self.matches('^[-._a-zA-Z0-9]+$')";
const OBJECT_NAME_MESSAGE: &str = "name: must be the name of an object, lower-case letters, digits, dashes and dots";
const NAMESPACE_MESSAGE: &str = "namespace: must be the name of a namespace, lower-case letters, digits and dashes";
const DATA_KEY_MESSAGE: &str = "must be a key of the object's data: letters, digits, dashes, dots and underscores";

/// The webhooks of a controller.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct Hooks {
    /// Says which children a parent should have, and its status. It must be given.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(required)]
    pub sync: Option<Hook>,
    /// Says what to do before a parent may go, and when that is done: one that is being deleted, or that the controller
    /// doesn't select any more. While it is declared, parents have a finalizer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finalize: Option<Hook>,
    /// Says, for each parent, which objects that it doesn't own it is to be synced with: they are watched and sent with
    /// every sync and finalize call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customize: Option<Hook>,
}

/// One hook.
#[derive(JsonSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct Hook {
    /// The version of the hook's JSON. v2 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<HookVersion>,
    /// Where the hook is and how it is called.
    pub webhook: Webhook,
}

/// The version of a hook's JSON, which is Metacontroller's. v2 when left out.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum HookVersion {
    /// Children under a namespaced parent go by their bare names.
    V1,
    /// Namespaced children always go by namespace/name.
    V2,
}

/// Where a hook is and how it is called.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(ONE_ADDRESS_RULE)
        .message("webhook: needs exactly one of url, urls and service")
)]
#[x_kube(
    validation = Rule::new("!has(self.path) || !has(self.url)")
        .message("webhook.path: goes with webhook.service and webhook.urls only; make it part of webhook.url")
)]
#[x_kube(
    validation = Rule::new(INSECURE_RULE)
        .message("webhook.url: plain http needs webhook.insecure: true, unless the host is loopback; better use https or webhook.service")
)]
#[x_kube(
    validation = Rule::new(INSECURE_ORIGINS_RULE)
        .message("webhook.urls: plain http needs webhook.insecure: true, unless the host is loopback; better use https or webhook.service")
)]
#[x_kube(
    validation = Rule::new(TLS_RULE)
        .message("webhook.caBundle and webhook.clientTLS: need https; set webhook.service.protocol: https, or use https URLs")
)]
#[x_kube(
    validation = Rule::new(ONE_AUTH_RULE)
        .message("webhook.authorization and webhook.basicAuth: exclude each other; remove one of them")
)]
#[x_kube(
    validation = Rule::new(EXPOSED_AUTH_RULE)
        .message("webhook.authorization and webhook.basicAuth: plain http to a Service needs webhook.insecure: true; better set webhook.service.protocol: https")
)]
pub struct Webhook {
    /// The whole URL, http or https.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = URL_MAX))]
    #[x_kube(
        validation = Rule::new(URL_RULE)
            .message("webhook.url: must be http://host[:port][/path] or https://host[:port][/path], without user information or fragment")
    )]
    #[x_kube(validation = Rule::new(URL_PORT_RULE).message("webhook.url: the port must be between 1 and 65535"))]
    pub url: Option<String>,
    /// Scheme, host and port of each of several replicas of the webhook: http or https, without a path. Each parent is
    /// sent to one of them, the same one as long as they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = URLS_MAX),
        inner(length(max = ORIGIN_MAX)),
        extend("x-kubernetes-list-type" = "set")
    )]
    #[x_kube(
        validation = Rule::new(ORIGINS_RULE)
            .message("webhook.urls: each must be http://host[:port] or https://host[:port]; the path goes into webhook.path")
    )]
    #[x_kube(validation = Rule::new(ORIGIN_PORTS_RULE).message("webhook.urls: each port must be between 1 and 65535"))]
    pub urls: Option<Vec<String>>,
    /// A Service in the same cluster. Each parent is sent to one of its ready endpoints, the same one as long as they stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<ServiceReference>,
    /// Path and query at the Service, or at each of the URLs, starting with a slash. / when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = URL_MAX))]
    #[x_kube(
        validation = Rule::new(PATH_RULE)
            .message("webhook.path: must start with / and hold no spaces or fragment, such as /sync")
    )]
    pub path: Option<String>,
    /// Plain http to a host that isn't loopback is meant.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub insecure: bool,
    /// The limit for one whole call, such as 10s or 1m30s, between 1ms and 10m. 10s when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    #[x_kube(
        validation = Rule::new(TIMEOUT_RULE)
            .message("webhook.timeout: must be a duration between 1ms and 10m, such as 10s or 1m30s")
    )]
    pub timeout: Option<String>,
    /// How a reply with unknown or duplicate fields is taken. strict for version v2 and loose for v1 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub response_un_marshall_mode: Option<ReplyMode>,
    /// A call that had no answer may be repeated at once at another replica: doing it twice does no harm.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub idempotent: bool,
    /// The authorities that may have signed the webhook's certificate, instead of those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// The certificate that is shown to the webhook.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "clientTLS")]
    pub client_tls: Option<ClientTls>,
    /// A token that is sent with every call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
    /// A user name and a password that are sent with every call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
    /// Whether replies are remembered by their entity tags: the hook says 304 where one still holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub etag: Option<Etag>,
}

/// How replies are remembered by their entity tags, for each parent and hook.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Etag {
    /// Whether they are.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub enabled: bool,
    /// How long a reply is remembered, in seconds. As long as there is room when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = ETAG_TIMEOUT_SECONDS_MAX))]
    pub cache_timeout_seconds: Option<i32>,
}

/// TLS and credentials for every webhook at one host that names none of its own.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(ONE_AUTH_RULE)
        .message("endpointConfigs: authorization and basicAuth exclude each other; remove one of them")
)]
#[x_kube(
    validation = Rule::new(ANY_CREDENTIALS_RULE)
        .message("endpointConfigs: an entry needs at least one of caBundle, clientTLS, authorization and basicAuth")
)]
pub struct EndpointConfig {
    /// The host as the webhook's URL has it, with its port unless that is the scheme's own: name.namespace for a Service.
    #[schemars(length(max = HOST_MAX))]
    #[x_kube(
        validation = Rule::new(HOST_RULE)
            .message("endpointConfigs.host: must be host or host:port, without scheme and path")
    )]
    pub host: String,
    /// The authorities that may have signed the host's certificate, instead of those that the system trusts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_bundle: Option<CaBundle>,
    /// The certificate that is shown to the host.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "clientTLS")]
    pub client_tls: Option<ClientTls>,
    /// A token that is sent with every call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub authorization: Option<Authorization>,
    /// A user name and a password that are sent with every call.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub basic_auth: Option<BasicAuth>,
}

/// A token that is sent with every call, in the header Authorization. A change of the Secret is taken up at once.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Authorization {
    /// The scheme. Bearer when left out.
    #[serde(default, skip_serializing_if = "Option::is_none", rename = "type")]
    #[schemars(length(max = AUTH_SCHEME_MAX))]
    #[x_kube(
        validation = Rule::new(SCHEME_RULE)
            .message("authorization.type: must be the name of a scheme, such as Bearer, without spaces")
    )]
    #[x_kube(
        validation = Rule::new(NOT_BASIC_RULE)
            .message("authorization.type: Basic is what basicAuth is for, with user name and password; use that")
    )]
    pub scheme: Option<String>,
    /// The Secret's entry that holds the token.
    pub secret_ref: TokenReference,
}

/// An entry of a Secret.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct TokenReference {
    /// The Secret's name.
    #[schemars(length(max = OBJECT_NAME_MAX))]
    #[x_kube(validation = Rule::new(OBJECT_NAME_RULE).message(OBJECT_NAME_MESSAGE))]
    pub name: String,
    /// The Secret's namespace.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new(DNS_LABEL_RULE).message(NAMESPACE_MESSAGE))]
    pub namespace: String,
    /// The entry's key.
    #[schemars(length(max = DATA_KEY_MAX))]
    #[x_kube(validation = Rule::new(DATA_KEY_RULE).message(DATA_KEY_MESSAGE))]
    pub key: String,
}

/// A user name and a password that are sent with every call, by the scheme Basic. A change of the Secret is taken up at
/// once.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct BasicAuth {
    /// The Secret that holds both, such as one of type kubernetes.io/basic-auth.
    pub secret_ref: SecretReference,
    /// The key of the user name. username when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = DATA_KEY_MAX))]
    #[x_kube(validation = Rule::new(DATA_KEY_RULE).message(DATA_KEY_MESSAGE))]
    pub username_key: Option<String>,
    /// The key of the password. password when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = DATA_KEY_MAX))]
    #[x_kube(validation = Rule::new(DATA_KEY_RULE).message(DATA_KEY_MESSAGE))]
    pub password_key: Option<String>,
}

/// Certificates of authorities in PEM, from exactly one source. A change is taken up at once.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(ONE_CA_RULE)
        .message("webhook.caBundle: needs exactly one of inline, secretRef and configMapRef")
)]
pub struct CaBundle {
    /// The text itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = CA_BUNDLE_MAX))]
    pub inline: Option<String>,
    /// An entry of a Secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<KeyReference>,
    /// An entry of a ConfigMap.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<KeyReference>,
}

/// An entry of an object's data.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct KeyReference {
    /// The object's name.
    #[schemars(length(max = OBJECT_NAME_MAX))]
    #[x_kube(validation = Rule::new(OBJECT_NAME_RULE).message(OBJECT_NAME_MESSAGE))]
    pub name: String,
    /// The object's namespace.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new(DNS_LABEL_RULE).message(NAMESPACE_MESSAGE))]
    pub namespace: String,
    /// The entry's key. ca.crt when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = DATA_KEY_MAX))]
    #[x_kube(validation = Rule::new(DATA_KEY_RULE).message(DATA_KEY_MESSAGE))]
    pub key: Option<String>,
}

/// The certificate that is shown to a webhook. A change of the Secret is taken up at once.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ClientTls {
    /// The Secret that holds it, such as one of type kubernetes.io/tls.
    pub secret_ref: SecretReference,
    /// The key of the certificate. tls.crt when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = DATA_KEY_MAX))]
    #[x_kube(validation = Rule::new(DATA_KEY_RULE).message(DATA_KEY_MESSAGE))]
    pub cert_key: Option<String>,
    /// The key of the private key. tls.key when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = DATA_KEY_MAX))]
    #[x_kube(validation = Rule::new(DATA_KEY_RULE).message(DATA_KEY_MESSAGE))]
    pub private_key_key: Option<String>,
}

/// A Secret.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct SecretReference {
    /// Its name.
    #[schemars(length(max = OBJECT_NAME_MAX))]
    #[x_kube(validation = Rule::new(OBJECT_NAME_RULE).message(OBJECT_NAME_MESSAGE))]
    pub name: String,
    /// Its namespace.
    #[schemars(length(max = 63))]
    #[x_kube(validation = Rule::new(DNS_LABEL_RULE).message(NAMESPACE_MESSAGE))]
    pub namespace: String,
}

/// A Service of the cluster.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq, Eq)]
pub struct ServiceReference {
    /// The Service's name.
    #[schemars(length(max = 63))]
    #[x_kube(
        validation = Rule::new(DNS_LABEL_RULE)
            .message("webhook.service.name: must be the name of a Service, lower-case letters, digits and dashes")
    )]
    pub name: String,
    /// The Service's namespace.
    #[schemars(length(max = 63))]
    #[x_kube(
        validation = Rule::new(DNS_LABEL_RULE)
            .message("webhook.service.namespace: must be the name of a namespace, lower-case letters, digits and dashes")
    )]
    pub namespace: String,
    /// The Service's port. 80 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65535))]
    pub port: Option<i32>,
    /// How to speak to it. http when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub protocol: Option<Protocol>,
}

/// How to speak to a Service. http when left out.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Protocol {
    /// Plain http.
    Http,
    /// TLS.
    Https,
}

/// How a reply with unknown or duplicate fields is taken. strict for version v2 and loose for v1 when left out.
#[derive(JsonSchema, Clone, Copy, Debug, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum ReplyMode {
    /// It is taken, and the fields are logged.
    Loose,
    /// It fails the sync.
    Strict,
}
