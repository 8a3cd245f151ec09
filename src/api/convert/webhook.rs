//! Our own group's webhooks become the model: where each is, how it is called, and what its TLS needs.
//!
//! Never reads a Secret: what is named there is looked at when the controller runs.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::controller as core;
use ringmaster_core::dialect::RINGMASTER;

use super::{Error, TIMEOUT_DEFAULT, TIMEOUT_MAX, TIMEOUT_MIN, duration, rules};
use crate::schema::URLS_MAX;
use crate::webhook::{CaBundle, ClientTls, Hook, HookVersion, Protocol, ReplyMode, Webhook};

pub(super) fn hook(field: &str, hook: &Hook) -> Result<core::Hook, Error> {
    let version = match hook.version {
        None => RINGMASTER.hook_version,
        Some(HookVersion::V1) => core::HookVersion::V1,
        Some(HookVersion::V2) => core::HookVersion::V2,
    };
    let field = format!("{field}.webhook");
    let webhook = &hook.webhook;
    let strict =
        webhook.response_un_marshall_mode.map_or(version == core::HookVersion::V2, |mode| mode == ReplyMode::Strict);
    let webhook = core::Webhook {
        address: address(&field, webhook)?,
        timeout: timeout(&format!("{field}.timeout"), webhook.timeout.as_deref())?,
        insecure: webhook.insecure,
        strict,
        idempotent: webhook.idempotent,
        tls: tls(&field, webhook)?,
        auth: None,
        credentials_in: "webhook".into(),
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

fn tls(field: &str, webhook: &Webhook) -> Result<core::Tls, Error> {
    for (name, given) in [("caBundle", webhook.ca_bundle.is_some()), ("clientTLS", webhook.client_tls.is_some())] {
        if given && !is_https(webhook) {
            let message = "needs https; set webhook.service.protocol: https, or use https URLs";
            return Err(Error::new(format!("{field}.{name}"), message));
        }
    }
    let ca = webhook.ca_bundle.as_ref().map(|bundle| ca(&format!("{field}.caBundle"), bundle)).transpose()?;
    let client = webhook.client_tls.as_ref().map(|tls| client(&format!("{field}.clientTLS"), tls)).transpose()?;
    Ok(core::Tls { ca, client })
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

fn timeout(field: &str, text: Option<&str>) -> Result<Duration, Error> {
    let Some(text) = text else {
        return Ok(TIMEOUT_DEFAULT);
    };
    duration::parse(text).filter(|timeout| (TIMEOUT_MIN..=TIMEOUT_MAX).contains(timeout)).ok_or_else(|| {
        Error::new(field, format!("must be a duration between 1ms and 10m, such as 10s or 1m30s, not {text:?}"))
    })
}
