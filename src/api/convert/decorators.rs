//! `DecoratorController`s of both groups: one declaration becomes a controller for each kind that it decorates.
//!
//! Never merges what two targets say: each has its own selectors. Metacontroller's objects run by its contract, in ours
//! nothing is forgiven.

use std::collections::BTreeSet;
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use ringmaster_core::controller::{self as core, Controller, Role};
use ringmaster_core::dialect::{METACONTROLLER, RINGMASTER};
use ringmaster_core::selector::Selector;
use serde_json::json;

use super::{Converted, Error, metacontroller, ringmaster, rules};
use crate::composite::NAME_MAX;
use crate::decorator::{self as ours, DecoratorController};
use crate::metacontroller as theirs;
use crate::metacontroller::AnnotationSelector;
use crate::schema::{CHILD_RESOURCES_MAX, TARGET_RESOURCES_MAX};

/// Checks a decorator of our group. `json` is the same object, compact, as every hook call sends it.
///
/// # Errors
/// The first field that is wrong.
pub fn ringmaster_decorator(object: &DecoratorController, json: Arc<[u8]>) -> Result<Converted, Error> {
    let (name, uid, generation) = rules::identity(&object.metadata)?;
    if name.len() > NAME_MAX {
        let message = format!("must be at most {NAME_MAX} characters; choose a shorter name");
        return Err(Error::new("metadata.name", message));
    }
    let spec = &object.spec;
    let targets = our_targets(&spec.resources)?;
    let attachments = our_attachments(&spec.attachments, &targets)?;
    let apply = ringmaster::apply(spec.apply_strategy);
    let (sync, finalize, customize) = ringmaster::hooks(&spec.hooks, &spec.endpoint_configs)?;
    let bound = spec.sharding.as_ref().and_then(|sharding| sharding.concurrency_per_shard);
    let syncs_per_shard = bound.map(ringmaster::bound).transpose()?;
    let resync_period = ringmaster::resync_period(spec.resync_period_seconds)?;
    let (name, mut controllers): (Arc<str>, _) = (name.into(), Vec::with_capacity(targets.len()));
    for (target, parent) in targets.into_iter().enumerate() {
        controllers.push(Controller {
            name: Arc::clone(&name),
            uid: uid.clone(),
            generation,
            dialect: &RINGMASTER,
            role: Role::Decorator { target },
            json: Arc::clone(&json),
            parent,
            children: attachments.clone(),
            apply: apply.clone(),
            generate_selector: false,
            resync_period,
            paused: spec.paused,
            sharded: spec.sharding.is_some(),
            syncs_per_shard,
            sync: sync.clone(),
            finalize: finalize.clone(),
            customize: customize.clone(),
        });
    }
    let warnings = controllers.first().map(|first| ringmaster::unused(&spec.endpoint_configs, first));
    Ok(Converted { controllers, warnings: warnings.unwrap_or_default() })
}

fn our_targets(resources: &[ours::TargetResource]) -> Result<Vec<core::ParentRule>, Error> {
    if resources.is_empty() || resources.len() > TARGET_RESOURCES_MAX as usize {
        return Err(Error::new("spec.resources", format!("must have 1 to {TARGET_RESOURCES_MAX} entries")));
    }
    let mut targets: Vec<core::ParentRule> = Vec::with_capacity(resources.len());
    for (index, rule) in resources.iter().enumerate() {
        let field = format!("spec.resources[{index}]");
        let target = target(
            &field,
            (&rule.api_version, &rule.resource),
            (rule.label_selector.as_ref(), rule.annotation_selector.as_ref()),
            rule.ignore_status_changes.unwrap_or(RINGMASTER.ignore_status_changes),
        )?;
        // In whatever version: both would decorate the same objects.
        if targets.iter().any(|known| is_same_kind(known, &target)) {
            let message = format!("names {} ({}) again; one entry is enough", target.resource, target.api_version);
            return Err(Error::new(field, message));
        }
        targets.push(target);
    }
    Ok(targets)
}

fn our_attachments(
    attachments: &[ours::Attachment],
    targets: &[core::ParentRule],
) -> Result<Vec<core::ChildRule>, Error> {
    if attachments.len() > CHILD_RESOURCES_MAX as usize {
        return Err(Error::new("spec.attachments", format!("must have at most {CHILD_RESOURCES_MAX} entries")));
    }
    let mut seen = BTreeSet::new();
    let mut rules = Vec::with_capacity(attachments.len());
    for (index, attachment) in attachments.iter().enumerate() {
        let field = format!("spec.attachments[{index}]");
        let api_version = rules::api_version(&format!("{field}.apiVersion"), &attachment.api_version)?;
        let resource = rules::resource(&format!("{field}.resource"), &attachment.resource)?;
        let is_it = |target: &&core::ParentRule| {
            target.resource == resource && target.api_version.group() == api_version.group()
        };
        if targets.iter().find(is_it).is_some_and(core::ParentRule::selects_everything) {
            let message = "every object of this kind is decorated, so each attachment would get attachments of its own, \
                           without end; give its entry in spec.resources a selector, or remove this entry";
            return Err(Error::new(field, message));
        }
        if !seen.insert((api_version.group().to_owned(), Arc::clone(&resource))) {
            let message = format!("names {resource} ({api_version}) again; one entry, in one version, is enough");
            return Err(Error::new(field, message));
        }
        let strategy = match attachment.update_strategy.as_ref().map(|strategy| strategy.method).unwrap_or_default() {
            ours::AttachmentUpdateMethod::OnDelete => core::UpdateStrategy::OnDelete,
            ours::AttachmentUpdateMethod::Recreate => core::UpdateStrategy::Recreate,
            ours::AttachmentUpdateMethod::InPlace => core::UpdateStrategy::InPlace,
        };
        rules.push(core::ChildRule { api_version, resource, strategy, status_checks: Vec::new() });
    }
    Ok(rules)
}

/// Checks a decorator of Metacontroller's group. `json` is the same object, compact, as every hook call sends it.
///
/// # Errors
/// The first field that is wrong.
pub fn metacontroller_decorator(
    object: &theirs::DecoratorController,
    json: Arc<[u8]>,
    apply: &core::Apply,
) -> Result<Converted, Error> {
    let (name, uid, generation) = rules::identity(&object.metadata)?;
    let spec = &object.spec;
    let mut warnings = Vec::new();
    let targets = their_targets(&spec.resources, &mut warnings)?;
    let attachments = their_attachments(spec, &mut warnings)?;
    let Some(hooks) = &spec.hooks else {
        return Err(Error::new("spec.hooks", "is missing; declare hooks.sync"));
    };
    let configs = spec.endpoint_configs.as_deref();
    let declared = [&hooks.sync, &hooks.finalize, &hooks.customize];
    let (sync, finalize, customize) = metacontroller::declared(declared, configs.unwrap_or_default(), &mut warnings)?;
    let resync_period = metacontroller::resync_period(spec.resync_period_seconds, &mut warnings);
    let name: Arc<str> = name.into();
    let controllers = targets.into_iter().map(|(target, parent)| Controller {
        name: Arc::clone(&name),
        uid: uid.clone(),
        generation,
        dialect: &METACONTROLLER,
        role: Role::Decorator { target },
        json: Arc::clone(&json),
        parent,
        children: attachments.clone(),
        apply: apply.clone(),
        generate_selector: false,
        resync_period,
        paused: false,
        sharded: false,
        syncs_per_shard: None,
        sync: sync.clone(),
        finalize: finalize.clone(),
        customize: customize.clone(),
    });
    let controllers: Vec<Controller> = controllers.collect();
    warnings.extend(controllers.first().into_iter().flat_map(|first| metacontroller::unused(configs, first)));
    Ok(Converted { controllers, warnings })
}

/// Each with its place in the declaration. As in the contract, of two entries for one kind the last holds.
fn their_targets(
    resources: &[theirs::TargetResource],
    warnings: &mut Vec<String>,
) -> Result<Vec<(usize, core::ParentRule)>, Error> {
    if resources.is_empty() {
        return Err(Error::new("spec.resources", "is empty; name the kinds whose objects are decorated"));
    }
    let mut targets: Vec<(usize, core::ParentRule)> = Vec::with_capacity(resources.len());
    for (index, rule) in resources.iter().enumerate() {
        let field = format!("spec.resources[{index}]");
        let target = target(
            &field,
            (&rule.api_version, &rule.resource),
            (rule.label_selector.as_ref(), rule.annotation_selector.as_ref()),
            rule.ignore_status_changes.unwrap_or(METACONTROLLER.ignore_status_changes),
        )?;
        if let Some(known) = targets.iter_mut().find(|(_, known)| is_same_kind(known, &target)) {
            warnings.push(format!("{field}: names {} again; only this entry holds", target.resource));
            *known = (index, target);
        } else {
            targets.push((index, target));
        }
    }
    Ok(targets)
}

fn their_attachments(
    spec: &theirs::DecoratorControllerSpec,
    warnings: &mut Vec<String>,
) -> Result<Vec<core::ChildRule>, Error> {
    let mut rules: Vec<core::ChildRule> = Vec::new();
    for (index, attachment) in spec.attachments.iter().flatten().enumerate() {
        let field = format!("spec.attachments[{index}]");
        let api_version = rules::api_version(&format!("{field}.apiVersion"), &attachment.api_version)?;
        let resource = rules::resource(&format!("{field}.resource"), &attachment.resource)?;
        let method = attachment.update_strategy.as_ref().and_then(|strategy| strategy.method.as_deref());
        let strategy = their_strategy(&format!("{field}.updateStrategy.method"), method, warnings)?;
        let known = rules.iter_mut().find(|known| known.resource == resource && known.api_version == api_version);
        if let Some(known) = known {
            warnings
                .push(format!("{field}: names {resource} ({api_version}) again; this entry's update strategy holds"));
            known.strategy = strategy;
        } else {
            rules.push(core::ChildRule { api_version, resource, strategy, status_checks: Vec::new() });
        }
    }
    Ok(rules)
}

/// As in the contract, the Rolling methods are those that they are named after: attachments don't roll.
fn their_strategy(
    field: &str,
    method: Option<&str>,
    warnings: &mut Vec<String>,
) -> Result<core::UpdateStrategy, Error> {
    let (strategy, plain) = match method {
        None | Some("OnDelete" | "") => return Ok(core::UpdateStrategy::OnDelete),
        Some("Recreate") => return Ok(core::UpdateStrategy::Recreate),
        Some("InPlace") => return Ok(core::UpdateStrategy::InPlace),
        Some("RollingRecreate") => (core::UpdateStrategy::Recreate, "Recreate"),
        Some("RollingInPlace") => (core::UpdateStrategy::InPlace, "InPlace"),
        Some(other) => {
            return Err(Error::new(field, format!("must be OnDelete, Recreate or InPlace, not {other:?}")));
        }
    };
    warnings.push(format!("{field}: attachments never roll, with Metacontroller neither; this is {plain}"));
    Ok(strategy)
}

fn target(
    field: &str,
    (api_version, resource): (&str, &str),
    (labels, annotations): (Option<&LabelSelector>, Option<&AnnotationSelector>),
    ignore_status_changes: bool,
) -> Result<core::ParentRule, Error> {
    Ok(core::ParentRule {
        api_version: rules::api_version(&format!("{field}.apiVersion"), api_version)?,
        resource: rules::resource(&format!("{field}.resource"), resource)?,
        selector: rules::selector(&format!("{field}.labelSelector"), labels)?,
        annotations: annotation_selector(&format!("{field}.annotationSelector"), annotations)?,
        ignore_status_changes,
        revision_fields: Vec::new(),
    })
}

fn is_same_kind(a: &core::ParentRule, b: &core::ParentRule) -> bool {
    a.resource == b.resource && a.api_version.group() == b.api_version.group()
}

/// The operators of a label selector, and its limits for keys and values, hold for annotations too (contract 1.3).
fn annotation_selector(field: &str, selector: Option<&AnnotationSelector>) -> Result<Selector, Error> {
    let Some(selector) = selector else {
        return Ok(Selector::everything());
    };
    let expressions = selector.match_expressions.iter().flatten();
    let expressions: Vec<_> =
        expressions.map(|one| json!({"key": one.key, "operator": one.operator, "values": one.values})).collect();
    let labels = json!({"matchLabels": selector.match_annotations, "matchExpressions": expressions});
    // Told by the name that it has here.
    let error = |error: ringmaster_core::selector::Error| error.to_string().replace("matchLabels", "matchAnnotations");
    Selector::from_json(&labels).map_err(|found| Error::new(field, error(found)))
}

#[cfg(test)]
mod tests;
