//! Metacontroller's `CompositeController`: what its users have stored runs by the contract, or they hear why not.
//!
//! Nothing is ignored in silence: a field without effect is a warning, one that we can't honour yet is an error.

use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::controller::{self as core, Controller, Role};
use ringmaster_core::dialect::METACONTROLLER;
use ringmaster_core::selector::Selector;

use super::endpoint_configs::{self, Credentials, OWN};
use super::{Converted, Error, TIMEOUT_DEFAULT, TIMEOUT_MIN, duration, rules};
use crate::metacontroller::{
    Authorization, BasicAuth, CaBundle, ChildUpdateStrategy, ClientTls, CompositeController, CompositeControllerSpec,
    EndpointConfig, Hook, KeyReference, ObjectReference, StatusCheck, Webhook,
};

/// Checks a controller of Metacontroller's group. `json` is the same object, compact, as every hook call sends it;
/// `apply` is how children are written, which is a process's to say.
///
/// # Errors
/// The first field that is wrong.
pub fn metacontroller(object: &CompositeController, json: Arc<[u8]>, apply: &core::Apply) -> Result<Converted, Error> {
    let (name, uid, generation) = rules::identity(&object.metadata)?;
    let spec = &object.spec;
    let mut warnings = Vec::new();
    let rule = &spec.parent_resource;
    let parent = core::ParentRule {
        api_version: rules::api_version("spec.parentResource.apiVersion", &rule.api_version)?,
        resource: rules::resource("spec.parentResource.resource", &rule.resource)?,
        selector: rules::selector("spec.parentResource.labelSelector", rule.label_selector.as_ref())?,
        annotations: Selector::everything(),
        ignore_status_changes: rule.ignore_status_changes.unwrap_or(METACONTROLLER.ignore_status_changes),
        revision_fields: rules::revision_fields(
            rule.revision_history.as_ref().and_then(|history| history.field_paths.as_deref()).unwrap_or_default(),
        )?,
    };
    let children = children(spec, &mut warnings)?;
    if rule.revision_history.is_some() && !children.iter().any(|child| child.strategy.is_rolling()) {
        warnings.push("spec.parentResource.revisionHistory: has no effect without a Rolling update method".to_owned());
    }
    let (sync, finalize, customize) = hooks(spec, &mut warnings)?;
    rules::finalizer_fits(name, METACONTROLLER.composite_finalizer, finalize.is_some())?;
    let controller = Controller {
        name: name.into(),
        uid,
        generation,
        dialect: &METACONTROLLER,
        role: Role::Composite,
        json,
        parent,
        children,
        apply: apply.clone(),
        generate_selector: spec.generate_selector.unwrap_or(false),
        resync_period: resync_period(spec.resync_period_seconds, &mut warnings),
        paused: false,
        sharded: false,
        syncs_per_shard: None,
        sync,
        finalize,
        customize,
    };
    warnings.extend(unused(spec.endpoint_configs.as_deref(), &controller));
    Ok(Converted { controllers: vec![controller], warnings })
}

/// As in the contract, a kind may be named twice: the last entry's strategy holds.
fn children(spec: &CompositeControllerSpec, warnings: &mut Vec<String>) -> Result<Vec<core::ChildRule>, Error> {
    let mut children: Vec<core::ChildRule> = Vec::new();
    for (index, child) in spec.child_resources.iter().flatten().enumerate() {
        let field = format!("spec.childResources[{index}]");
        let api_version = rules::api_version(&format!("{field}.apiVersion"), &child.api_version)?;
        let resource = rules::resource(&format!("{field}.resource"), &child.resource)?;
        let (strategy, status_checks) =
            strategy(&format!("{field}.updateStrategy"), child.update_strategy.as_ref(), warnings)?;
        let known = children.iter_mut().find(|known| known.resource == resource && known.api_version == api_version);
        if let Some(known) = known {
            warnings
                .push(format!("{field}: names {resource} ({api_version}) again; this entry's update strategy holds"));
            (known.strategy, known.status_checks) = (strategy, status_checks);
        } else {
            children.push(core::ChildRule { api_version, resource, strategy, status_checks });
        }
    }
    Ok(children)
}

fn strategy(
    field: &str,
    strategy: Option<&ChildUpdateStrategy>,
    warnings: &mut Vec<String>,
) -> Result<(core::UpdateStrategy, Vec<core::StatusCheck>), Error> {
    let Some(strategy) = strategy else {
        return Ok((core::UpdateStrategy::OnDelete, Vec::new()));
    };
    let method = match strategy.method.as_deref() {
        None | Some("OnDelete" | "") => core::UpdateStrategy::OnDelete,
        Some("Recreate") => core::UpdateStrategy::Recreate,
        Some("InPlace") => core::UpdateStrategy::InPlace,
        Some("RollingRecreate") => core::UpdateStrategy::RollingRecreate,
        Some("RollingInPlace") => core::UpdateStrategy::RollingInPlace,
        Some(other) => {
            let message =
                format!("must be OnDelete, Recreate, InPlace, RollingRecreate or RollingInPlace, not {other:?}");
            return Err(Error::new(format!("{field}.method"), message));
        }
    };
    if strategy.status_checks.is_some() && !method.is_rolling() {
        warnings.push(format!("{field}.statusChecks: has no effect without a Rolling update method"));
    }
    let checks = strategy.status_checks.as_ref().and_then(|checks| checks.conditions.as_deref()).unwrap_or_default();
    // An empty text is one that is left out, as everywhere in Go.
    let said =
        |text: &Option<String>| -> Option<Arc<str>> { text.as_deref().filter(|text| !text.is_empty()).map(Into::into) };
    let check = |check: &StatusCheck| core::StatusCheck {
        kind: check.kind.as_str().into(),
        status: said(&check.status),
        reason: said(&check.reason),
    };
    Ok((method, checks.iter().map(check).collect()))
}

pub(super) fn resync_period(seconds: Option<i32>, warnings: &mut Vec<String>) -> Option<Duration> {
    let seconds = seconds?;
    if seconds < 1 {
        warnings.push(format!("spec.resyncPeriodSeconds: {seconds} is less than 1; 1 is used"));
    }
    Some(Duration::from_secs(seconds.max(1).unsigned_abs().into()))
}

/// The sync hook, and the finalize and customize hooks if there are any.
fn hooks(
    spec: &CompositeControllerSpec,
    warnings: &mut Vec<String>,
) -> Result<(core::Hook, Option<core::Hook>, Option<core::Hook>), Error> {
    let Some(hooks) = &spec.hooks else {
        return Err(Error::new("spec.hooks", "is missing; declare hooks.sync"));
    };
    for (name, declared) in [("preUpdateChild", &hooks.pre_update_child), ("postUpdateChild", &hooks.post_update_child)]
    {
        if declared.is_some() {
            warnings.push(format!("spec.hooks.{name}: is never called, by Metacontroller neither"));
        }
    }
    let configs = spec.endpoint_configs.as_deref().unwrap_or_default();
    declared([&hooks.sync, &hooks.finalize, &hooks.customize], configs, warnings)
}

/// What is said of entries for hosts that no webhook has.
pub(super) fn unused(configs: Option<&[EndpointConfig]>, controller: &Controller) -> Vec<String> {
    let hosts: Vec<&str> = configs.into_iter().flatten().map(|config| config.host.as_str()).collect();
    endpoint_configs::unused(&hosts, controller.hooks())
}

/// The hooks sync, finalize and customize, of which the first is needed.
pub(super) fn declared(
    [sync, finalize, customize]: [&Option<Hook>; 3],
    configs: &[EndpointConfig],
    warnings: &mut Vec<String>,
) -> Result<(core::Hook, Option<core::Hook>, Option<core::Hook>), Error> {
    let mut read = |name: &str, declared: &Option<Hook>| {
        let declared = declared.as_ref();
        declared.map(|declared| hook(&format!("spec.hooks.{name}"), declared, configs, warnings)).transpose()
    };
    let Some(sync) = read("sync", sync)? else {
        return Err(Error::new("spec.hooks.sync", "is missing; declare the webhook that is called for each parent"));
    };
    Ok((sync, read("finalize", finalize)?, read("customize", customize)?))
}

fn hook(field: &str, hook: &Hook, configs: &[EndpointConfig], warnings: &mut Vec<String>) -> Result<core::Hook, Error> {
    let version = match hook.version.as_deref() {
        None | Some("") => METACONTROLLER.hook_version,
        Some("v1") => core::HookVersion::V1,
        Some("v2") => core::HookVersion::V2,
        Some(other) => return Err(Error::new(format!("{field}.version"), format!("must be v1 or v2, not {other:?}"))),
    };
    let field = format!("{field}.webhook");
    let Some(webhook) = &hook.webhook else {
        return Err(Error::new(field, "is missing; give it a url or a service"));
    };
    let strict = match webhook.response_un_marshall_mode.as_deref() {
        None | Some("") => version == core::HookVersion::V2,
        Some("strict") => true,
        Some("loose") => false,
        Some(other) => {
            let message = format!("must be loose or strict, not {other:?}");
            return Err(Error::new(format!("{field}.responseUnMarshallMode"), message));
        }
    };
    let address = address(&field, webhook, warnings)?;
    let timeout = timeout(&format!("{field}.timeout"), webhook.timeout.as_deref(), warnings)?;
    let Credentials { tls, auth, declared_in } = credentials(&field, webhook, &address, configs, warnings)?;
    let webhook = core::Webhook {
        address,
        timeout,
        insecure: false,
        strict,
        idempotent: false,
        tls,
        auth,
        etag: etag(&field, webhook, warnings),
        credentials_in: declared_in,
    };
    Ok(core::Hook { version, webhook })
}

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

/// What the webhook itself declares; if that is nothing, what the first entry for its host does.
fn credentials(
    field: &str,
    webhook: &Webhook,
    address: &core::Address,
    configs: &[EndpointConfig],
    warnings: &mut Vec<String>,
) -> Result<Credentials, Error> {
    let own = Declared::itself(webhook);
    let hosts: Vec<&str> = configs.iter().map(|config| config.host.as_str()).collect();
    let found = if own.is_any() { None } else { endpoint_configs::find(field, &hosts, address)? };
    let (at, declared_in, declared) = match found.and_then(|index| Some((index, configs.get(index)?))) {
        Some((index, config)) => {
            let at = endpoint_configs::field(index);
            (at.clone(), at, Declared::by_host(config))
        }
        None => (field.to_owned(), OWN.to_owned(), own),
    };
    let (tls, auth) = (tls(&at, webhook, &declared, warnings)?, auth(&at, &declared)?);
    if auth.is_some() && rules::is_exposed(address) {
        let name = if declared.basic.is_some() { "basicAuth" } else { "authorization" };
        let warning = format!("{at}.{name}: is sent by plain http, which others can read on its way; use https");
        // Two hooks may be at one host.
        if !warnings.contains(&warning) {
            warnings.push(warning);
        }
    }
    Ok(Credentials { tls, auth, declared_in: declared_in.into() })
}

fn names(reference: Option<&ObjectReference>) -> (&str, &str) {
    let both = reference.map(|reference| (reference.name.as_deref(), reference.namespace.as_deref()));
    let (name, namespace) = both.unwrap_or_default();
    (name.unwrap_or_default(), namespace.unwrap_or_default())
}

/// At most one of both, as in the contract.
fn auth(field: &str, declared: &Declared<'_>) -> Result<Option<core::Auth>, Error> {
    let auth = match (declared.authorization, declared.basic) {
        (None, None) => return Ok(None),
        (Some(_), Some(_)) => return Err(rules::one_auth(field)),
        (Some(Authorization { kind, secret_ref }), None) => {
            let nothing = KeyReference::default();
            let KeyReference { name, namespace, key } = secret_ref.as_ref().unwrap_or(&nothing);
            let names = (name.as_deref().unwrap_or_default(), namespace.as_deref().unwrap_or_default());
            let scheme = kind.as_deref().map(str::trim).filter(|scheme| !scheme.is_empty());
            rules::token(&format!("{field}.authorization"), scheme, names, key.as_deref())?
        }
        (None, Some(BasicAuth { secret_ref, username_key, password_key })) => {
            let names = names(secret_ref.as_ref());
            rules::basic(&format!("{field}.basicAuth"), names, username_key.as_deref(), password_key.as_deref())?
        }
    };
    Ok(Some(auth))
}

/// Exactly one source of authorities, as in the contract; none of it has an effect without https.
fn tls(
    field: &str,
    webhook: &Webhook,
    declared: &Declared<'_>,
    warnings: &mut Vec<String>,
) -> Result<core::Tls, Error> {
    let is_https = match (&webhook.url, &webhook.service) {
        (Some(url), _) => url.starts_with("https://"),
        (None, service) => service.as_ref().is_some_and(|service| service.protocol.as_deref() == Some("https")),
    };
    for (name, given) in [("caBundle", declared.ca.is_some()), ("clientTLS", declared.client.is_some())] {
        if given && !is_https {
            warnings.push(format!("{field}.{name}: has no effect without https"));
        }
    }
    if !is_https {
        return Ok(core::Tls::default());
    }
    let ca = declared.ca.map(|bundle| ca(&format!("{field}.caBundle"), bundle)).transpose()?;
    let client = declared.client.map(|tls| {
        let names = names(tls.secret_ref.as_ref());
        let keys = (tls.cert_key.as_deref(), tls.private_key_key.as_deref());
        rules::client_certificate(&format!("{field}.clientTLS"), names, keys.0, keys.1)
    });
    Ok(core::Tls { ca, client: client.transpose()? })
}

fn ca(field: &str, bundle: &CaBundle) -> Result<core::CaBundle, Error> {
    let entry = |reference: &KeyReference, part: &str| {
        let names = (reference.name.as_deref().unwrap_or_default(), reference.namespace.as_deref().unwrap_or_default());
        rules::entry(&format!("{field}.{part}"), names, reference.key.as_deref())
    };
    match (&bundle.inline, &bundle.secret_ref, &bundle.config_map_ref) {
        (Some(text), None, None) => rules::inline_ca(&format!("{field}.inline"), text),
        (None, Some(secret), None) => entry(secret, "secretRef").map(core::CaBundle::Secret),
        (None, None, Some(map)) => entry(map, "configMapRef").map(core::CaBundle::ConfigMap),
        _ => Err(Error::new(field, "needs exactly one of inline, secretRef and configMapRef")),
    }
}

/// As in the contract, a URL wins over a Service and a path.
fn address(field: &str, webhook: &Webhook, warnings: &mut Vec<String>) -> Result<core::Address, Error> {
    match (&webhook.url, &webhook.service) {
        (Some(url), service) => {
            for (name, given) in [("service", service.is_some()), ("path", webhook.path.is_some())] {
                if given {
                    warnings.push(format!("{field}.{name}: has no effect beside webhook.url"));
                }
            }
            // Plain http needs no consent in this group, so where it leads doesn't matter here.
            rules::url(&format!("{field}.url"), url)?;
            Ok(core::Address::Url(url.as_str().into()))
        }
        (None, Some(service)) => {
            let names = (service.name.as_str(), service.namespace.as_str());
            rules::service(field, names, service.port, service.protocol.as_deref(), webhook.path.as_deref())
        }
        (None, None) => Err(Error::new(field, "needs url or service; it has neither")),
    }
}

/// As in the contract, a reply is remembered without end unless there is a positive time for that.
fn etag(field: &str, webhook: &Webhook, warnings: &mut Vec<String>) -> Option<core::Etag> {
    let etag = webhook.etag.as_ref().filter(|etag| etag.enabled.unwrap_or(false))?;
    if etag.cache_cleanup_seconds.is_some() {
        warnings
            .push(format!("{field}.etag.cacheCleanupSeconds: has no effect; replies go by age and for want of room"));
    }
    let seconds = etag.cache_timeout_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    Some(core::Etag { timeout: seconds.filter(|seconds| *seconds > 0).map(Duration::from_secs) })
}

fn timeout(field: &str, text: Option<&str>, warnings: &mut Vec<String>) -> Result<Duration, Error> {
    let Some(text) = text else {
        return Ok(TIMEOUT_DEFAULT);
    };
    let Some(timeout) = duration::parse(text) else {
        return Err(Error::new(field, format!("must be a duration such as 10s or 1m30s, not {text:?}")));
    };
    if timeout.is_zero() {
        warnings.push(format!("{field}: {text:?} isn't positive; 10s is used"));
        return Ok(TIMEOUT_DEFAULT);
    }
    if timeout < TIMEOUT_MIN {
        warnings.push(format!("{field}: {text:?} is less than 1ms; 1ms is used"));
    }
    Ok(timeout.max(TIMEOUT_MIN))
}
