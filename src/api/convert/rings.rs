//! `ControllerRing`s of both groups become [`ringmaster_core::ring::model::Ring`].
//!
//! In our group nothing is forgiven. A ring of controller-sharding's runs by its contract, but for what can't be told apart:
//! a kind that is divided by itself and follows an owner too. Nothing here knows which kinds are served.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use ringmaster_core::dialect::{CONTROLLER_SHARDING_RING, RINGMASTER_RING, RingDialect};
use ringmaster_core::ring::model::{GroupResource, Hash, MainResource, NAMESPACE_NAME_LABEL, Ring};
use ringmaster_core::ring::pace::Settings;
use ringmaster_core::ring::plan::Rules;
use ringmaster_core::selector::Selector;
use serde_json::json;

use super::{Error, rules, undecodable};
use crate::controller_sharding as theirs;
use crate::ring::{
    CONCURRENT_MAX, ControllerRing, DRAIN_TIMEOUT_SECONDS_MAX, Drain, HashMethod, Moves, NAME_MAX,
    SETTLE_AT_MOST_SECONDS_MAX, SETTLE_SECONDS_MAX,
};
use crate::schema::{CONTROLLED_RESOURCES_MAX, RING_RESOURCES_MAX};

/// For how long a shard may take to acknowledge a drain where the ring doesn't say it.
pub const DRAIN_TIMEOUT_DEFAULT: Duration = Duration::from_secs(60);

/// A checked ring, and what its author should know about it.
#[derive(Clone, Debug, PartialEq)]
pub struct ConvertedRing {
    /// The ring.
    pub ring: Ring,
    /// Fields that have no effect, or another than their author may think of, each as `field: what happens`.
    pub warnings: Vec<String>,
}

/// Converts the JSON of a `ControllerRing` of the dialect's group.
///
/// # Errors
/// The first thing found wrong with the object.
pub fn ring_from_json(dialect: &RingDialect, json: &[u8]) -> Result<ConvertedRing, Error> {
    if dialect.group == CONTROLLER_SHARDING_RING.group {
        let object = serde_json::from_slice(json).map_err(|error| undecodable(&error))?;
        controller_sharding_ring(&object)
    } else {
        let object = serde_json::from_slice(json).map_err(|error| undecodable(&error))?;
        ringmaster_ring(&object)
    }
}

/// Checks a ring of our group.
///
/// # Errors
/// The first field that is wrong.
pub fn ringmaster_ring(object: &ControllerRing) -> Result<ConvertedRing, Error> {
    let spec = &object.spec;
    let most = RING_RESOURCES_MAX as usize;
    if spec.resources.is_empty() || spec.resources.len() > most {
        return Err(Error::new("spec.resources", format!("must have 1 to {most} entries")));
    }
    let mut resources = Vec::with_capacity(spec.resources.len());
    for (index, main) in spec.resources.iter().enumerate() {
        let most = CONTROLLED_RESOURCES_MAX as usize;
        if main.controlled_resources.len() > most {
            let field = format!("spec.resources[{index}].controlledResources");
            return Err(Error::new(field, format!("must have at most {most} entries")));
        }
        let controlled = main.controlled_resources.iter().map(|kind| (kind.group.as_str(), kind.resource.as_str()));
        resources.push(main_resource(index, (&main.group, &main.resource), controlled)?);
    }
    let mut warnings = Vec::new();
    let hash = match spec.hash {
        HashMethod::BoundedLoad => Hash::BoundedLoad,
        HashMethod::Tokens => Hash::Tokens,
    };
    let (rules, pace) = (drain_rules(spec.drain.as_ref())?, pace(spec.moves.as_ref(), &mut warnings)?);
    let declared = Declared { resources, namespaces: spec.namespace_selector.as_ref(), hash, rules, pace };
    let ring = ring(&RINGMASTER_RING, &object.metadata, declared)?;
    Ok(ConvertedRing { ring, warnings })
}

/// Checks a ring of controller-sharding's.
///
/// # Errors
/// The first field that is wrong.
pub fn controller_sharding_ring(object: &theirs::ControllerRing) -> Result<ConvertedRing, Error> {
    let mut resources = Vec::new();
    for (index, main) in object.spec.resources.iter().flatten().enumerate() {
        let controlled = main.controlled_resources.iter().flatten();
        let controlled = controlled.map(|kind| (kind.group.as_str(), kind.resource.as_str()));
        resources.push(main_resource(index, (&main.group, &main.resource), controlled)?);
    }
    let mut warnings = Vec::new();
    if resources.is_empty() {
        warnings.push("spec.resources: is empty; no object is assigned".to_owned());
    }
    let declared = Declared {
        resources,
        namespaces: object.spec.namespace_selector.as_ref(),
        hash: Hash::Tokens,
        rules: Rules { drain_limit: DRAIN_TIMEOUT_DEFAULT, escalates: false },
        pace: Settings::default(),
    };
    Ok(ConvertedRing { ring: ring(&CONTROLLER_SHARDING_RING, &object.metadata, declared)?, warnings })
}

/// What a spec declares, as far as it was checked by itself.
struct Declared<'a> {
    resources: Vec<MainResource>,
    namespaces: Option<&'a LabelSelector>,
    hash: Hash,
    rules: Rules,
    pace: Settings,
}

fn ring(dialect: &'static RingDialect, metadata: &ObjectMeta, declared: Declared<'_>) -> Result<Ring, Error> {
    let (name, uid, generation) = rules::identity(metadata)?;
    if name.len() > NAME_MAX || !rules::is_subdomain(name) {
        let message = format!(
            "must be at most {NAME_MAX} characters, lower-case letters, digits, dashes and dots, as it is part of the keys of \
             labels; choose another name"
        );
        return Err(Error::new("metadata.name", message));
    }
    check_once(&declared.resources)?;
    Ok(Ring {
        dialect,
        name: name.into(),
        uid,
        generation,
        namespaces: namespaces(declared.namespaces, dialect.namespaces_left_out)?,
        resources: declared.resources,
        hash: declared.hash,
        rules: declared.rules,
        pace: declared.pace,
        is_deleting: metadata.deletion_timestamp.is_some(),
    })
}

fn main_resource<'a>(
    index: usize,
    main: (&str, &str),
    controlled: impl Iterator<Item = (&'a str, &'a str)>,
) -> Result<MainResource, Error> {
    let field = format!("spec.resources[{index}]");
    let resource = group_resource(&field, main)?;
    let mut found = Vec::new();
    for (index, kind) in controlled.enumerate() {
        found.push(group_resource(&format!("{field}.controlledResources[{index}]"), kind)?);
    }
    Ok(MainResource { resource, controlled: found })
}

fn group_resource(field: &str, (group, resource): (&str, &str)) -> Result<GroupResource, Error> {
    Ok(GroupResource {
        group: rules::group(&format!("{field}.group"), group)?,
        resource: rules::resource(&format!("{field}.resource"), resource)?,
    })
}

/// Each kind is a main one, or is controlled, and stands once in each list. Two main kinds may control the same.
fn check_once(resources: &[MainResource]) -> Result<(), Error> {
    let mut mains = BTreeMap::new();
    for (index, main) in resources.iter().enumerate() {
        if mains.insert(&main.resource, index).is_some() {
            let message = format!("names {} again; one entry is enough", main.resource);
            return Err(Error::new(format!("spec.resources[{index}]"), message));
        }
    }
    for (index, main) in resources.iter().enumerate() {
        let mut seen = BTreeSet::new();
        for (place, kind) in main.controlled.iter().enumerate() {
            let field = || format!("spec.resources[{index}].controlledResources[{place}]");
            if let Some(of) = mains.get(kind) {
                let message = format!(
                    "{kind} is divided by itself, in spec.resources[{of}], and can't follow an owner too; remove one of the \
                     entries"
                );
                return Err(Error::new(field(), message));
            }
            if !seen.insert(kind) {
                return Err(Error::new(field(), format!("names {kind} again; one entry is enough")));
            }
        }
    }
    Ok(())
}

/// The namespaces that are selected; without a selector all but those of these names.
fn namespaces(selector: Option<&LabelSelector>, left_out: &[&str]) -> Result<Selector, Error> {
    const FIELD: &str = "spec.namespaceSelector";
    if selector.is_some() {
        return rules::selector(FIELD, selector);
    }
    let rest = json!({
        "matchExpressions": [{ "key": NAMESPACE_NAME_LABEL, "operator": "NotIn", "values": left_out }],
    });
    Selector::from_json(&rest).map_err(|error| Error::new(FIELD, error.to_string()))
}

fn drain_rules(drain: Option<&Drain>) -> Result<Rules, Error> {
    let nothing = Drain::default();
    let Drain { timeout_seconds, escalate } = drain.unwrap_or(&nothing);
    let timeout = seconds("spec.drain.timeoutSeconds", *timeout_seconds, 1, DRAIN_TIMEOUT_SECONDS_MAX)?;
    Ok(Rules { drain_limit: timeout.unwrap_or(DRAIN_TIMEOUT_DEFAULT), escalates: *escalate })
}

fn pace(moves: Option<&Moves>, warnings: &mut Vec<String>) -> Result<Settings, Error> {
    let (nothing, default) = (Moves::default(), Settings::default());
    let Moves { concurrent, settle_seconds, settle_at_most_seconds } = moves.unwrap_or(&nothing);
    let limit = match concurrent {
        None => default.limit,
        Some(limit) => {
            let fits = usize::try_from(*limit).ok().filter(|_| (1..=CONCURRENT_MAX).contains(limit));
            fits.ok_or_else(|| {
                let message = format!("must be between 1 and {CONCURRENT_MAX}; leave it out for {}", default.limit);
                Error::new("spec.moves.concurrent", message)
            })?
        }
    };
    let settle = seconds("spec.moves.settleSeconds", *settle_seconds, 0, SETTLE_SECONDS_MAX)?;
    let settle = settle.unwrap_or(default.settle);
    let field = "spec.moves.settleAtMostSeconds";
    let at_most = seconds(field, *settle_at_most_seconds, 0, SETTLE_AT_MOST_SECONDS_MAX)?;
    if at_most.is_some_and(|at_most| at_most < settle) {
        warnings.push(format!("{field}: is less than settleSeconds ({}), which has no effect", settle.as_secs()));
    }
    let settle_at_most = at_most.unwrap_or_else(|| default.settle_at_most.max(settle));
    Ok(Settings { limit, settle, settle_at_most })
}

/// A time in whole seconds within bounds, if there is one.
fn seconds(field: &str, seconds: Option<i32>, least: i32, most: i32) -> Result<Option<Duration>, Error> {
    let Some(seconds) = seconds else { return Ok(None) };
    let fits = u64::try_from(seconds).ok().filter(|_| (least..=most).contains(&seconds));
    let seconds = fits.ok_or_else(|| {
        Error::new(field, format!("must be between {least} and {most} seconds; leave it out for the default"))
    })?;
    Ok(Some(Duration::from_secs(seconds)))
}

#[cfg(test)]
#[path = "rings_tests.rs"]
mod tests;
