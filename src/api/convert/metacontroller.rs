//! Metacontroller's `CompositeController`: what its users have stored runs by the contract, or they hear why not.
//!
//! Nothing is ignored in silence: a field without effect is a warning, one that we can't honour yet is an error.

use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::controller::{self as core, Controller};
use ringmaster_core::dialect::METACONTROLLER;

use super::{Converted, Error, TIMEOUT_DEFAULT, TIMEOUT_MIN, duration, rules};
use crate::metacontroller::{
    CaBundle, ChildUpdateStrategy, CompositeController, CompositeControllerSpec, Hook, KeyReference, Webhook,
};

/// Checks a controller of Metacontroller's group. `json` is the same object, compact, as every hook call sends it.
///
/// # Errors
/// The first field that is wrong, or that needs something not available yet.
pub fn metacontroller(object: &CompositeController, json: Arc<[u8]>) -> Result<Converted, Error> {
    let (name, uid, generation) = rules::identity(&object.metadata)?;
    let spec = &object.spec;
    let mut warnings = Vec::new();
    let rule = &spec.parent_resource;
    let parent = core::ParentRule {
        api_version: rules::api_version("spec.parentResource.apiVersion", &rule.api_version)?,
        resource: rules::resource("spec.parentResource.resource", &rule.resource)?,
        selector: rules::selector("spec.parentResource.labelSelector", rule.label_selector.as_ref())?,
        ignore_status_changes: rule.ignore_status_changes.unwrap_or(METACONTROLLER.ignore_status_changes),
    };
    if rule.revision_history.is_some() {
        warnings.push("spec.parentResource.revisionHistory: has no effect without a Rolling update method".to_owned());
    }
    let children = children(spec, &mut warnings)?;
    if spec.endpoint_configs.as_ref().is_some_and(|configs| !configs.is_empty()) {
        return Err(unavailable("spec.endpointConfigs", "remove it"));
    }
    let (sync, finalize, customize) = hooks(spec, &mut warnings)?;
    let controller = Controller {
        name: name.into(),
        uid,
        generation,
        dialect: &METACONTROLLER,
        json,
        parent,
        children,
        generate_selector: spec.generate_selector.unwrap_or(false),
        resync_period: resync_period(spec.resync_period_seconds, &mut warnings),
        paused: false,
        sharded: false,
        syncs_per_shard: None,
        sync,
        finalize,
        customize,
    };
    Ok(Converted { controller, warnings })
}

fn unavailable(field: impl Into<String>, fix: &str) -> Error {
    Error::new(field, format!("not available yet; {fix}, or keep this controller with Metacontroller"))
}

/// As in the contract, a kind may be named twice: the last entry's strategy holds.
fn children(spec: &CompositeControllerSpec, warnings: &mut Vec<String>) -> Result<Vec<core::ChildRule>, Error> {
    let mut children: Vec<core::ChildRule> = Vec::new();
    for (index, child) in spec.child_resources.iter().flatten().enumerate() {
        let field = format!("spec.childResources[{index}]");
        let api_version = rules::api_version(&format!("{field}.apiVersion"), &child.api_version)?;
        let resource = rules::resource(&format!("{field}.resource"), &child.resource)?;
        let strategy = strategy(&format!("{field}.updateStrategy"), child.update_strategy.as_ref(), warnings)?;
        let known = children.iter_mut().find(|known| known.resource == resource && known.api_version == api_version);
        if let Some(known) = known {
            warnings
                .push(format!("{field}: names {resource} ({api_version}) again; this entry's update strategy holds"));
            known.strategy = strategy;
        } else {
            children.push(core::ChildRule { api_version, resource, strategy });
        }
    }
    Ok(children)
}

fn strategy(
    field: &str,
    strategy: Option<&ChildUpdateStrategy>,
    warnings: &mut Vec<String>,
) -> Result<core::UpdateStrategy, Error> {
    let Some(strategy) = strategy else {
        return Ok(core::UpdateStrategy::OnDelete);
    };
    let method = match strategy.method.as_deref() {
        None | Some("OnDelete" | "") => core::UpdateStrategy::OnDelete,
        Some("Recreate") => core::UpdateStrategy::Recreate,
        Some("InPlace") => core::UpdateStrategy::InPlace,
        Some(rolling @ ("RollingRecreate" | "RollingInPlace")) => {
            let fix = format!("use {} instead of {rolling}", rolling.trim_start_matches("Rolling"));
            return Err(unavailable(format!("{field}.method"), &fix));
        }
        Some(other) => {
            let message = format!("must be OnDelete, Recreate or InPlace, not {other:?}");
            return Err(Error::new(format!("{field}.method"), message));
        }
    };
    if strategy.status_checks.is_some() {
        warnings.push(format!("{field}.statusChecks: has no effect without a Rolling update method"));
    }
    Ok(method)
}

fn resync_period(seconds: Option<i32>, warnings: &mut Vec<String>) -> Option<Duration> {
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
    let Some(sync) = &hooks.sync else {
        return Err(Error::new("spec.hooks.sync", "is missing; declare the webhook that is called for each parent"));
    };
    let sync = hook("spec.hooks.sync", sync, warnings)?;
    let finalize = hooks.finalize.as_ref().map(|finalize| hook("spec.hooks.finalize", finalize, warnings));
    let finalize = finalize.transpose()?;
    let customize = hooks.customize.as_ref().map(|customize| hook("spec.hooks.customize", customize, warnings));
    Ok((sync, finalize, customize.transpose()?))
}

fn hook(field: &str, hook: &Hook, warnings: &mut Vec<String>) -> Result<core::Hook, Error> {
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
    refuse_unavailable(&field, webhook)?;
    let strict = match webhook.response_un_marshall_mode.as_deref() {
        None | Some("") => version == core::HookVersion::V2,
        Some("strict") => true,
        Some("loose") => false,
        Some(other) => {
            let message = format!("must be loose or strict, not {other:?}");
            return Err(Error::new(format!("{field}.responseUnMarshallMode"), message));
        }
    };
    let webhook = core::Webhook {
        address: address(&field, webhook, warnings)?,
        timeout: timeout(&format!("{field}.timeout"), webhook.timeout.as_deref(), warnings)?,
        insecure: false,
        strict,
        idempotent: false,
        tls: tls(&field, webhook, warnings)?,
        auth: None,
        credentials_in: "webhook".into(),
    };
    Ok(core::Hook { version, webhook })
}

fn refuse_unavailable(field: &str, webhook: &Webhook) -> Result<(), Error> {
    let etag = webhook.etag.as_ref().is_some_and(|etag| etag.enabled.unwrap_or(false));
    for (name, used) in [
        ("etag", etag),
        ("authorization", webhook.authorization.is_some()),
        ("basicAuth", webhook.basic_auth.is_some()),
    ] {
        if used {
            return Err(unavailable(format!("{field}.{name}"), "remove it"));
        }
    }
    Ok(())
}

/// Exactly one source of authorities, as in the contract; none of it has an effect without https.
fn tls(field: &str, webhook: &Webhook, warnings: &mut Vec<String>) -> Result<core::Tls, Error> {
    let is_https = match (&webhook.url, &webhook.service) {
        (Some(url), _) => url.starts_with("https://"),
        (None, service) => service.as_ref().is_some_and(|service| service.protocol.as_deref() == Some("https")),
    };
    for (name, given) in [("caBundle", webhook.ca_bundle.is_some()), ("clientTLS", webhook.client_tls.is_some())] {
        if given && !is_https {
            warnings.push(format!("{field}.{name}: has no effect without https"));
        }
    }
    if !is_https {
        return Ok(core::Tls::default());
    }
    let ca = webhook.ca_bundle.as_ref().map(|bundle| ca(&format!("{field}.caBundle"), bundle)).transpose()?;
    let client = webhook.client_tls.as_ref().map(|tls| {
        let field = format!("{field}.clientTLS");
        let secret = tls.secret_ref.as_ref();
        let part = |part: Option<&Option<String>>| part.and_then(Option::as_deref).unwrap_or_default().to_owned();
        let (name, namespace) = (part(secret.map(|s| &s.name)), part(secret.map(|s| &s.namespace)));
        rules::client_certificate(&field, (&name, &namespace), tls.cert_key.as_deref(), tls.private_key_key.as_deref())
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
