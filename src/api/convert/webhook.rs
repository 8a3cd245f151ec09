//! Our own group's webhooks become the model: where each is, how it is called, what its TLS needs and its calls carry.
//!
//! Never reads a Secret: what is named there is looked at when the controller runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::controller as core;
use ringmaster_core::dialect::RINGMASTER;

use super::endpoint_configs::{self, Credentials, OWN};
use super::{Error, TIMEOUT_DEFAULT, TIMEOUT_MAX, TIMEOUT_MIN, duration, rules};
use crate::schema::{ENDPOINT_CONFIGS_MAX, ETAG_TIMEOUT_SECONDS_MAX, URLS_MAX};
use crate::webhook::{
    Authorization, BasicAuth, CaBundle, ClientTls, EndpointConfig, Hook, HookVersion, Protocol, ReplyMode, Webhook,
};

/// What a webhook, or an entry for its host, declares.
struct Declared<'a> {
    ca: Option<&'a CaBundle>,
    client: Option<&'a ClientTls>,
    authorization: Option<&'a Authorization>,
    basic: Option<&'a BasicAuth>,
}

impl<'a> Declared<'a> {
    fn itself(webhook: &'a Webhook) -> Self {
        Self {
            ca: webhook.ca_bundle.as_ref(),
            client: webhook.client_tls.as_ref(),
            authorization: webhook.authorization.as_ref(),
            basic: webhook.basic_auth.as_ref(),
        }
    }

    fn by_host(config: &'a EndpointConfig) -> Self {
        Self {
            ca: config.ca_bundle.as_ref(),
            client: config.client_tls.as_ref(),
            authorization: config.authorization.as_ref(),
            basic: config.basic_auth.as_ref(),
        }
    }

    fn is_any(&self) -> bool {
        self.ca.is_some() || self.client.is_some() || self.authorization.is_some() || self.basic.is_some()
    }
}

pub(super) fn hook(field: &str, hook: &Hook, configs: &[EndpointConfig]) -> Result<core::Hook, Error> {
    let version = match hook.version {
        None => RINGMASTER.hook_version,
        Some(HookVersion::V1) => core::HookVersion::V1,
        Some(HookVersion::V2) => core::HookVersion::V2,
    };
    let field = format!("{field}.webhook");
    let webhook = &hook.webhook;
    let strict =
        webhook.response_un_marshall_mode.map_or(version == core::HookVersion::V2, |mode| mode == ReplyMode::Strict);
    let address = address(&field, webhook)?;
    let Credentials { tls, auth, declared_in } = credentials(&field, webhook, &address, configs)?;
    let webhook = core::Webhook {
        address,
        timeout: timeout(&format!("{field}.timeout"), webhook.timeout.as_deref())?,
        insecure: webhook.insecure,
        strict,
        idempotent: webhook.idempotent,
        tls,
        auth,
        etag: etag(&format!("{field}.etag"), webhook)?,
        credentials_in: declared_in,
    };
    Ok(core::Hook { version, webhook })
}

fn address(field: &str, webhook: &Webhook) -> Result<core::Address, Error> {
    let given = [webhook.url.is_some(), webhook.urls.is_some(), webhook.service.is_some()];
    match given.iter().filter(|given| **given).count() {
        0 => return Err(Error::new(field, "needs exactly one of url, urls and service; it has none")),
        1 => {}
        _ => return Err(Error::new(field, "needs exactly one of url, urls and service; remove the others")),
    }
    if webhook.path.as_deref() == Some("") {
        return Err(Error::new(format!("{field}.path"), "must start with /; leave it out for /"));
    }
    let exposed = |field: &str| {
        let message = "plain http needs webhook.insecure: true, unless the host is loopback; \
                       better use https or webhook.service";
        Error::new(field, message)
    };
    let may_be_exposed = webhook.insecure || RINGMASTER.plain_http;
    if let Some(text) = &webhook.url {
        if webhook.path.is_some() {
            let message = "goes with webhook.service and webhook.urls only; make it part of webhook.url";
            return Err(Error::new(format!("{field}.path"), message));
        }
        let field = format!("{field}.url");
        let url = rules::url(&field, text)?;
        if url.exposed && !may_be_exposed {
            return Err(exposed(&field));
        }
        return Ok(core::Address::Url(text.as_str().into()));
    }
    if let Some(urls) = &webhook.urls {
        if urls.is_empty() || urls.len() > URLS_MAX as usize {
            return Err(Error::new(format!("{field}.urls"), format!("must have between 1 and {URLS_MAX} entries")));
        }
        let mut known = BTreeSet::new();
        for (index, text) in urls.iter().enumerate() {
            let field = format!("{field}.urls[{index}]");
            let url = rules::url(&field, text)?;
            if url.has_path {
                return Err(Error::new(field, "must be scheme, host and port only; put the path into webhook.path"));
            }
            if url.exposed && !may_be_exposed {
                return Err(exposed(&field));
            }
            if !known.insert(url.origin) {
                return Err(Error::new(field, "names a replica again; each is named once"));
            }
        }
        let urls = urls.iter().map(|url| Arc::from(url.as_str())).collect();
        return Ok(core::Address::Urls { urls, path: rules::path(field, webhook.path.as_deref())? });
    }
    let Some(service) = &webhook.service else { return Err(Error::new(field, "needs a service")) };
    let protocol = match service.protocol {
        None => None,
        Some(Protocol::Http) => Some("http"),
        Some(Protocol::Https) => Some("https"),
    };
    let names = (service.name.as_str(), service.namespace.as_str());
    rules::service(field, names, service.port, protocol, webhook.path.as_deref())
}

/// Each entry by itself, whether or not a webhook is at its host.
pub(super) fn check_endpoint_configs(configs: &[EndpointConfig]) -> Result<(), Error> {
    if configs.len() > ENDPOINT_CONFIGS_MAX as usize {
        return Err(Error::new("spec.endpointConfigs", format!("must have at most {ENDPOINT_CONFIGS_MAX} entries")));
    }
    let mut known = BTreeSet::new();
    for (index, config) in configs.iter().enumerate() {
        let field = endpoint_configs::field(index);
        if !endpoint_configs::is_host(&config.host) {
            let message = format!("must be host or host:port, without scheme and path, not {:?}", config.host);
            return Err(Error::new(format!("{field}.host"), message));
        }
        if !known.insert(config.host.to_ascii_lowercase()) {
            return Err(Error::new(format!("{field}.host"), "has an entry already; remove one of them"));
        }
        let declared = Declared::by_host(config);
        if !declared.is_any() {
            let message = "needs at least one of caBundle, clientTLS, authorization and basicAuth";
            return Err(Error::new(field, message));
        }
        tls(&field, &declared)?;
        auth(&field, &declared)?;
    }
    Ok(())
}

/// What the webhook itself declares; if that is nothing, what the first entry for its host does.
fn credentials(
    field: &str,
    webhook: &Webhook,
    address: &core::Address,
    configs: &[EndpointConfig],
) -> Result<Credentials, Error> {
    let own = Declared::itself(webhook);
    let hosts: Vec<&str> = configs.iter().map(|config| config.host.as_str()).collect();
    let found = if own.is_any() { None } else { endpoint_configs::find(field, &hosts, address)? };
    let Some((index, config)) = found.and_then(|index| Some((index, configs.get(index)?))) else {
        for (name, given) in [("caBundle", own.ca.is_some()), ("clientTLS", own.client.is_some())] {
            if given && !is_https(webhook) {
                let message = "needs https; set webhook.service.protocol: https, or use https URLs";
                return Err(Error::new(format!("{field}.{name}"), message));
            }
        }
        let (tls, auth) = (tls(field, &own)?, auth(field, &own)?);
        if auth.is_some() && !may_be_sent(webhook, address) {
            let name = if own.basic.is_some() { "basicAuth" } else { "authorization" };
            let message = "plain http needs webhook.insecure: true; better set webhook.service.protocol: https";
            return Err(Error::new(format!("{field}.{name}"), message));
        }
        return Ok(Credentials { tls, auth, declared_in: OWN.into() });
    };
    let (at, declared) = (endpoint_configs::field(index), Declared::by_host(config));
    let auth = auth(&at, &declared)?;
    if auth.is_some() && !may_be_sent(webhook, address) {
        let message = format!(
            "what {at} holds would be sent by plain http, which needs webhook.insecure: true; better set \
             webhook.service.protocol: https"
        );
        return Err(Error::new(field, message));
    }
    // The same host may have another webhook by https.
    let tls = if is_https(webhook) { tls(&at, &declared)? } else { core::Tls::default() };
    Ok(Credentials { tls, auth, declared_in: at.into() })
}

/// Whether a credential may go there as it is.
fn may_be_sent(webhook: &Webhook, address: &core::Address) -> bool {
    webhook.insecure || RINGMASTER.plain_http || !rules::is_exposed(address)
}

fn tls(field: &str, declared: &Declared<'_>) -> Result<core::Tls, Error> {
    let ca = declared.ca.map(|bundle| ca(&format!("{field}.caBundle"), bundle)).transpose()?;
    let client = declared.client.map(|tls| client(&format!("{field}.clientTLS"), tls)).transpose()?;
    Ok(core::Tls { ca, client })
}

fn auth(field: &str, declared: &Declared<'_>) -> Result<Option<core::Auth>, Error> {
    let auth = match (declared.authorization, declared.basic) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(rules::one_auth(field)),
        (Some(Authorization { scheme, secret_ref }), None) => {
            let names = (secret_ref.name.as_str(), secret_ref.namespace.as_str());
            rules::token(&format!("{field}.authorization"), scheme.as_deref(), names, Some(secret_ref.key.as_str()))?
        }
        (None, Some(BasicAuth { secret_ref, username_key, password_key })) => {
            let names = (secret_ref.name.as_str(), secret_ref.namespace.as_str());
            rules::basic(&format!("{field}.basicAuth"), names, username_key.as_deref(), password_key.as_deref())?
        }
    };
    Ok(Some(auth))
}

fn is_https(webhook: &Webhook) -> bool {
    let mut urls = webhook.url.iter().chain(webhook.urls.iter().flatten());
    let by_service = webhook.service.as_ref().is_none_or(|service| service.protocol == Some(Protocol::Https));
    urls.all(|url| url.starts_with("https://")) && by_service
}

fn ca(field: &str, bundle: &CaBundle) -> Result<core::CaBundle, Error> {
    let entry = |reference: &crate::webhook::KeyReference, name: &str| {
        let field = format!("{field}.{name}");
        rules::entry(&field, (&reference.name, &reference.namespace), reference.key.as_deref())
    };
    match (&bundle.inline, &bundle.secret_ref, &bundle.config_map_ref) {
        (Some(text), None, None) => rules::inline_ca(&format!("{field}.inline"), text),
        (None, Some(secret), None) => entry(secret, "secretRef").map(core::CaBundle::Secret),
        (None, None, Some(map)) => entry(map, "configMapRef").map(core::CaBundle::ConfigMap),
        _ => Err(Error::new(field, "needs exactly one of inline, secretRef and configMapRef")),
    }
}

fn client(field: &str, tls: &ClientTls) -> Result<core::ClientCertificate, Error> {
    let secret = (tls.secret_ref.name.as_str(), tls.secret_ref.namespace.as_str());
    rules::client_certificate(field, secret, tls.cert_key.as_deref(), tls.private_key_key.as_deref())
}

fn etag(field: &str, webhook: &Webhook) -> Result<Option<core::Etag>, Error> {
    let Some(etag) = &webhook.etag else { return Ok(None) };
    let timeout = match etag.cache_timeout_seconds {
        None => None,
        Some(seconds @ 1..=ETAG_TIMEOUT_SECONDS_MAX) => Some(Duration::from_secs(seconds.unsigned_abs().into())),
        Some(_) => {
            let message = format!("must be between 1 and {ETAG_TIMEOUT_SECONDS_MAX}; leave it out for no limit");
            return Err(Error::new(format!("{field}.cacheTimeoutSeconds"), message));
        }
    };
    Ok(etag.enabled.then_some(core::Etag { timeout }))
}

fn timeout(field: &str, text: Option<&str>) -> Result<Duration, Error> {
    let Some(text) = text else {
        return Ok(TIMEOUT_DEFAULT);
    };
    duration::parse(text).filter(|timeout| (TIMEOUT_MIN..=TIMEOUT_MAX).contains(timeout)).ok_or_else(|| {
        Error::new(field, format!("must be a duration between 1ms and 10m, such as 10s or 1m30s, not {text:?}"))
    })
}
