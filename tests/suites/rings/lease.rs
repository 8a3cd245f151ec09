//! Shards' Leases that a trial keeps itself: shards that live, and do nothing else.
//!
//! Never written by the clock: their moments are a count, as nobody may compare them with a clock of his own.

use std::time::Duration;

use anyhow::Context as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::objects::{Objects, Resource, code};
use crate::rings::names::Names;
use crate::rings::shard::DURATION;

/// How often they are renewed.
const RETRY: Duration = Duration::from_millis(500);

/// A moment as Leases have it: so many seconds after some day's begin.
pub(crate) fn moment(count: u64) -> String {
    let (minutes, seconds) = (count / 60, count % 60);
    format!("2026-01-01T{:02}:{:02}:{seconds:02}.000000Z", minutes / 60 % 24, minutes % 60)
}

/// The Leases of a namespace.
pub(crate) fn leases(namespace: &str) -> Resource {
    Resource::new("coordination.k8s.io/v1", "Lease", "leases", Some(namespace))
}

/// The Lease of a shard that holds it.
pub(crate) fn held(names: &Names, ring: &str, shard: &str) -> Value {
    json!({
        "metadata": { "name": shard, "labels": { names.lease_ring: ring } },
        "spec": {
            "holderIdentity": shard,
            "leaseDurationSeconds": DURATION.as_secs(),
            "acquireTime": moment(0),
            "renewTime": moment(0),
            "leaseTransitions": 0,
        },
    })
}

/// A Lease that is renewed until this is dropped, or somebody else holds it.
pub(crate) struct Kept {
    task: JoinHandle<()>,
}

impl Kept {
    /// Makes the Lease and renews it.
    ///
    /// # Errors
    /// The API server refuses it.
    pub(crate) async fn new(
        admin: &Objects,
        (names, ring): (&Names, &str),
        namespace: &str,
        shard: &str,
    ) -> anyhow::Result<Self> {
        let resource = leases(namespace);
        admin.create(&resource, held(names, ring, shard)).await.context("a shard's Lease")?;
        let (admin, shard) = (admin.clone(), shard.to_owned());
        let task = tokio::spawn(async move {
            for count in 1.. {
                tokio::time::sleep(RETRY).await;
                // After an error, as the API server is away or wrote the Lease's label meanwhile, it is tried again.
                if renew(&admin, &resource, &shard, count).await.is_ok_and(|is_own| !is_own) {
                    break;
                }
            }
        });
        Ok(Self { task })
    }

    /// Whether it is still renewed: nobody has taken it.
    pub(crate) fn is_held(&self) -> bool {
        !self.task.is_finished()
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Renews a Lease if it is the shard's; whether it is.
async fn renew(admin: &Objects, leases: &Resource, shard: &str, count: u64) -> anyhow::Result<bool> {
    let Some(lease) = admin.find(leases, shard).await? else { return Ok(false) };
    if lease["spec"]["holderIdentity"] != shard {
        return Ok(false);
    }
    let version = &lease["metadata"]["resourceVersion"];
    let patch = json!({ "metadata": { "resourceVersion": version }, "spec": { "renewTime": moment(count) } });
    admin.patch_merge(leases, shard, &patch).await?;
    Ok(true)
}

/// Gives a Lease back, as its shard does at its end. One that is gone already needn't be.
///
/// # Errors
/// The API server refuses it.
pub(crate) async fn release(admin: &Objects, namespace: &str, shard: &str) -> anyhow::Result<()> {
    let patch = json!({ "spec": { "holderIdentity": "" } });
    let released = admin.patch_merge(&leases(namespace), shard, &patch).await;
    match released {
        Err(error) if code(&error) != Some(404) => Err(error),
        _ => Ok(()),
    }
}
