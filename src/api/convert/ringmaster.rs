//! Our own group's `CompositeController`: nothing is forgiven, because nobody has stored such objects yet.

use std::collections::BTreeSet;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::controller::{self as core, Controller, Role};
use ringmaster_core::dialect::{FIELD_MANAGER, RINGMASTER};
use ringmaster_core::selector::Selector;

use super::webhook::{check_endpoint_configs, hook};
use super::{Converted, Error, endpoint_configs, rules};
use crate::composite::{
    ApplyStrategy, CONCURRENCY_PER_SHARD_MAX, CompositeController, CompositeControllerSpec, NAME_MAX,
    RESYNC_PERIOD_SECONDS_MAX, StatusChecks, UpdateMethod,
};
use crate::schema::{CHILD_RESOURCES_MAX, STATUS_CHECKS_MAX};
use crate::webhook::{EndpointConfig, Hook, Hooks};

/// Checks a controller of our group. `json` is the same object, compact, as every hook call sends it.
///
/// # Errors
/// The first field that is wrong.
pub fn ringmaster(object: &CompositeController, json: Arc<[u8]>) -> Result<Converted, Error> {
    let (name, uid, generation) = rules::identity(&object.metadata)?;
    if name.len() > NAME_MAX {
        let message = format!("must be at most {NAME_MAX} characters; choose a shorter name");
        return Err(Error::new("metadata.name", message));
    }
    let spec = &object.spec;
    let parent = &spec.parent_resource;
    let parent = core::ParentRule {
        api_version: rules::api_version("spec.parentResource.apiVersion", &parent.api_version)?,
        resource: rules::resource("spec.parentResource.resource", &parent.resource)?,
        selector: rules::selector("spec.parentResource.labelSelector", parent.label_selector.as_ref())?,
        annotations: Selector::everything(),
        ignore_status_changes: parent.ignore_status_changes.unwrap_or(RINGMASTER.ignore_status_changes),
        revision_fields: rules::revision_fields(
            parent.revision_history.as_ref().map_or(&[][..], |history| history.field_paths.as_slice()),
        )?,
    };
    let children = children(spec, &parent)?;
    if spec.parent_resource.revision_history.is_some() && !children.iter().any(|child| child.strategy.is_rolling()) {
        let message =
            "is for rolling updates only; remove it, or use RollingInPlace or RollingRecreate for a child kind";
        return Err(Error::new("spec.parentResource.revisionHistory", message));
    }
    let apply = self::apply(spec.apply_strategy);
    let (sync, finalize, customize) = hooks(&spec.hooks, &spec.endpoint_configs)?;
    let controller = Controller {
        name: name.into(),
        uid,
        generation,
        dialect: &RINGMASTER,
        role: Role::Composite,
        json,
        parent,
        children,
        apply,
        generate_selector: spec.generate_selector,
        resync_period: resync_period(spec.resync_period_seconds)?,
        paused: spec.paused,
        sharded: spec.sharding.is_some(),
        syncs_per_shard: spec
            .sharding
            .as_ref()
            .and_then(|sharding| sharding.concurrency_per_shard)
            .map(bound)
            .transpose()?,
        sync,
        finalize,
        customize,
    };
    let warnings = unused(&spec.endpoint_configs, &controller);
    Ok(Converted { controllers: vec![controller], warnings })
}

/// How children are written.
pub(super) fn apply(strategy: ApplyStrategy) -> core::Apply {
    match strategy {
        ApplyStrategy::Merge => core::Apply::Merge,
        ApplyStrategy::ServerSide => core::Apply::ServerSide { manager: FIELD_MANAGER.into() },
    }
}

/// The hooks sync, finalize and customize, of which the first is needed.
pub(super) fn hooks(
    declared: &Hooks,
    configs: &[EndpointConfig],
) -> Result<(core::Hook, Option<core::Hook>, Option<core::Hook>), Error> {
    check_endpoint_configs(configs)?;
    let read = |name: &str, declared: &Option<Hook>| {
        declared.as_ref().map(|declared| hook(&format!("spec.hooks.{name}"), declared, configs)).transpose()
    };
    let Some(sync) = read("sync", &declared.sync)? else {
        return Err(Error::new("spec.hooks.sync", "is missing; declare the webhook that is called for each parent"));
    };
    Ok((sync, read("finalize", &declared.finalize)?, read("customize", &declared.customize)?))
}

/// What is said of entries for hosts that no webhook has.
pub(super) fn unused(configs: &[EndpointConfig], controller: &Controller) -> Vec<String> {
    let hosts: Vec<&str> = configs.iter().map(|config| config.host.as_str()).collect();
    endpoint_configs::unused(&hosts, controller.hooks())
}

fn children(spec: &CompositeControllerSpec, parent: &core::ParentRule) -> Result<Vec<core::ChildRule>, Error> {
    if spec.child_resources.len() > CHILD_RESOURCES_MAX as usize {
        return Err(Error::new("spec.childResources", format!("must have at most {CHILD_RESOURCES_MAX} entries")));
    }
    let mut seen = BTreeSet::new();
    let mut children = Vec::with_capacity(spec.child_resources.len());
    for (index, child) in spec.child_resources.iter().enumerate() {
        let field = format!("spec.childResources[{index}]");
        let api_version = rules::api_version(&format!("{field}.apiVersion"), &child.api_version)?;
        let resource = rules::resource(&format!("{field}.resource"), &child.resource)?;
        if resource == parent.resource && api_version.group() == parent.api_version.group() {
            return Err(Error::new(field, "the parent's own kind can't be a child kind; remove the entry"));
        }
        // In whatever version: both entries would hold the same objects.
        if !seen.insert((api_version.group().to_owned(), resource.clone())) {
            let message = format!("names {resource} ({api_version}) again; one entry, in one version, is enough");
            return Err(Error::new(field, message));
        }
        let strategy = match child.update_strategy.as_ref().map(|strategy| strategy.method).unwrap_or_default() {
            UpdateMethod::OnDelete => core::UpdateStrategy::OnDelete,
            UpdateMethod::Recreate => core::UpdateStrategy::Recreate,
            UpdateMethod::InPlace => core::UpdateStrategy::InPlace,
            UpdateMethod::RollingRecreate => core::UpdateStrategy::RollingRecreate,
            UpdateMethod::RollingInPlace => core::UpdateStrategy::RollingInPlace,
        };
        let checks = child.update_strategy.as_ref().and_then(|strategy| strategy.status_checks.as_ref());
        if checks.is_some() && !strategy.is_rolling() {
            let message = "is for rolling updates only; remove it, or use RollingInPlace or RollingRecreate";
            return Err(Error::new(format!("{field}.updateStrategy.statusChecks"), message));
        }
        let status_checks = status_checks(&field, checks)?;
        children.push(core::ChildRule { api_version, resource, strategy, status_checks });
    }
    Ok(children)
}

fn status_checks(field: &str, checks: Option<&StatusChecks>) -> Result<Vec<core::StatusCheck>, Error> {
    let field = format!("{field}.updateStrategy.statusChecks.conditions");
    let checks = checks.map_or(&[][..], |checks| checks.conditions.as_slice());
    if checks.len() > STATUS_CHECKS_MAX as usize {
        return Err(Error::new(field, format!("must have at most {STATUS_CHECKS_MAX} entries")));
    }
    let (mut seen, mut conditions) = (BTreeSet::new(), Vec::with_capacity(checks.len()));
    for (index, check) in checks.iter().enumerate() {
        if check.kind.is_empty() || !seen.insert(check.kind.as_str()) {
            let message = "must be the type of a condition that no other entry names";
            return Err(Error::new(format!("{field}[{index}].type"), message));
        }
        conditions.push(core::StatusCheck {
            kind: check.kind.as_str().into(),
            status: check.status.as_deref().map(Into::into),
            reason: check.reason.as_deref().map(Into::into),
        });
    }
    Ok(conditions)
}

pub(super) fn resync_period(seconds: Option<i32>) -> Result<Option<Duration>, Error> {
    match seconds {
        None => Ok(None),
        Some(seconds @ 1..=RESYNC_PERIOD_SECONDS_MAX) => Ok(Some(Duration::from_secs(seconds.unsigned_abs().into()))),
        Some(_) => {
            let message = format!("must be between 1 and {RESYNC_PERIOD_SECONDS_MAX}; leave it out for no resync");
            Err(Error::new("spec.resyncPeriodSeconds", message))
        }
    }
}

pub(super) fn bound(syncs: i32) -> Result<NonZeroUsize, Error> {
    let bound = usize::try_from(syncs).ok().and_then(NonZeroUsize::new);
    bound.filter(|_| syncs <= CONCURRENCY_PER_SHARD_MAX).ok_or_else(|| {
        let message = format!("must be between 1 and {CONCURRENCY_PER_SHARD_MAX}; leave it out for no bound");
        Error::new("spec.sharding.concurrencyPerShard", message)
    })
}
