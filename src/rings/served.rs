//! A ring's kinds as the API server serves them: which there are, and which lack.
//!
//! Never gives a ring up for a kind that lacks, as long as there is a main one: its shards' Leases and all other objects are
//! seen to meanwhile.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringmaster_cluster::Discovery;
use ringmaster_core::ring::model::{GroupResource, MainResource, Ring};

use crate::registry::RETRY;
use crate::scope::{Kind, Role, Scope, Source};

/// What is served.
pub(crate) struct Served {
    pub(crate) kinds: Vec<Kind>,
    /// Kinds that the ring names and nobody serves.
    pub(crate) missing: Vec<GroupResource>,
}

/// The ring's kinds as they are served, with those that former generations of it named.
///
/// # Errors
/// A reason and a sentence: no main kind is served, or that can't be told of one.
pub(crate) async fn kinds(
    discovery: &Discovery,
    ring: &Ring,
    former: &[MainResource],
) -> Result<Served, (&'static str, String)> {
    let (mut kinds, mut missing): (Vec<Kind>, Vec<GroupResource>) = (Vec::new(), Vec::new());
    let mut numbers: BTreeMap<GroupResource, usize> = BTreeMap::new();
    let current: BTreeSet<&GroupResource> = ring.kinds();
    for main in ring.resources.iter().chain(former) {
        for named in std::iter::once(&main.resource).chain(&main.controlled) {
            if numbers.contains_key(named) || missing.contains(named) {
                continue;
            }
            let is_former = !current.contains(named);
            let found = match discovery.find_in_group(&named.group, &named.resource).await {
                Ok(Some(found)) => found,
                Ok(None) if is_former || ring.is_deleting => continue,
                Ok(None) => {
                    missing.push(named.clone());
                    continue;
                }
                Err(error) => return Err((error.reason(), error.to_string())),
            };
            numbers.insert(named.clone(), kinds.len());
            let is_main = if is_former { *named == main.resource } else { ring.main(named).is_some() };
            let role = if is_main { Role::Main(Vec::new()) } else { Role::Controlled };
            kinds.push(Kind { resource: found, role, is_former });
        }
    }
    let has_main = kinds.iter().any(|kind| !kind.is_former && matches!(kind.role, Role::Main(_)));
    if let Some(lacks) = missing.first().filter(|_| !has_main) {
        return Err(told(lacks));
    }
    for main in ring.resources.iter().chain(former) {
        let controlled: Vec<usize> = main.controlled.iter().filter_map(|kind| numbers.get(kind).copied()).collect();
        if let Some(Kind { role: Role::Main(known), .. }) =
            numbers.get(&main.resource).and_then(|number| kinds.get_mut(*number))
        {
            known.extend(controlled.into_iter().filter(|kind| !known.contains(kind)).collect::<Vec<_>>());
        }
    }
    Ok(Served { kinds, missing })
}

/// Tells of kinds that lack, and looks for them again; ends the ring's run once one is there, as it is to begin with it.
pub(crate) async fn wait(discovery: Arc<Discovery>, missing: Vec<GroupResource>, scope: Arc<Scope>) {
    for (number, named) in missing.iter().enumerate() {
        scope.trouble.lock().insert((scope.kinds.len() + number, Source::Discovery), told(named));
    }
    loop {
        tokio::time::sleep(RETRY).await;
        for named in &missing {
            // What can't be told now is asked again.
            if let Ok(Some(_)) = discovery.find_in_group(&named.group, &named.resource).await {
                scope.is_lost.store(true, Ordering::Relaxed);
                scope.news.notify_one();
                return;
            }
        }
    }
}

fn told(named: &GroupResource) -> (&'static str, String) {
    let text = format!("spec.resources: {named} isn't served; is the name the plural one, and is its CRD there?");
    ("NotServed", text)
}
