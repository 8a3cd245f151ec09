//! Has the API server know the rings' webhooks: applies a configuration for each ring that runs, and deletes those of rings
//! that go, or of all while the webhook is turned off.
//!
//! Each round applies anew what is to be there, which changes nothing where it is: so what somebody edited or deleted is
//! back within a round, without a watch and the right to one. Never deletes what isn't ours: our label and the very ring
//! as its owner. For the leader alone; two at once do no harm, as they apply the same.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringmaster_cluster::{Client, Error, Preconditions};
use ringmaster_core::dialect::FIELD_MANAGER;
use ringmaster_core::key::{ObjectKey, Uid};
use ringmaster_core::ring::model::Ring;
use serde_json::{Value, json};
use tracing::{debug, info, warn};

use super::configuration::{self, Reach, is_ours};
use crate::registry::Right;

/// The configurations of all rings.
pub(super) struct Configurations {
    client: Client,
    right: Arc<dyn Right>,
    /// What was told of one last, by its name: each trouble is told once.
    told: BTreeMap<String, String>,
    /// Rings whose configurations are known not to be there.
    gone: BTreeSet<(String, Uid)>,
}

impl Configurations {
    pub(super) fn new(client: Client, right: Arc<dyn Right>) -> Self {
        Self { client, right, told: BTreeMap::new(), gone: BTreeSet::new() }
    }

    /// Applies those of these rings, and deletes those of rings among them that are being deleted. What the first are now,
    /// each: one that couldn't be applied, or without a bundle to apply, is taken to trust nobody.
    pub(super) async fn keep(&mut self, rings: &[Ring], reach: &Reach, bundle: Option<&str>) -> Vec<Value> {
        let (leaving, staying): (Vec<&Ring>, Vec<&Ring>) = rings.iter().partition(|ring| ring.is_deleting);
        self.remove(leaving).await;
        let mut present = Vec::new();
        for ring in staying {
            let applied = match bundle {
                Some(bundle) => self.apply(ring, reach, bundle).await,
                None => None,
            };
            present.push(applied.unwrap_or_else(untrusting));
        }
        present
    }

    /// Deletes those of these rings that are ours. Tells whether none is left, as far as our rights go.
    pub(super) async fn remove(&mut self, rings: Vec<&Ring>) -> bool {
        let known: BTreeSet<(String, Uid)> = rings.iter().map(|ring| id(ring)).collect();
        self.gone.retain(|one| known.contains(one));
        let mut is_clean = true;
        for ring in rings {
            let id = id(ring);
            if self.gone.contains(&id) {
                continue;
            }
            match self.remove_one(ring).await {
                Ok(()) => {
                    self.gone.insert(id);
                }
                // Then it isn't for us to do.
                Err(error) if error.is_forbidden() || error.is_not_found() => {
                    debug!(ring = %ring.name, "its admission webhook: {error}");
                    self.gone.insert(id);
                }
                Err(error) => {
                    is_clean = false;
                    self.trouble(ring, "can't be deleted", &error);
                }
            }
        }
        is_clean
    }

    async fn apply(&mut self, ring: &Ring, reach: &Reach, bundle: &str) -> Option<Value> {
        self.gone.remove(&id(ring));
        let body = configuration::of(ring, reach, bundle).to_string().into_bytes();
        let (resource, key) = (configuration::resource(), key(ring));
        let applied = match self.right.bounded(&self.client, "a ring's admission webhook") {
            Ok(client) => client.apply(&resource, &key, FIELD_MANAGER, body, false).await,
            Err(error) => Err(error),
        };
        match applied {
            Ok(object) => {
                if self.told.remove(key.name()).is_some() {
                    info!(ring = %ring.name, "its admission webhook is configured again");
                }
                Some(object.value())
            }
            Err(error) => {
                self.trouble(ring, "can't be configured; its objects are assigned without", &error);
                None
            }
        }
    }

    async fn remove_one(&self, ring: &Ring) -> Result<(), Error> {
        let (resource, key) = (configuration::resource(), key(ring));
        let Some(found) = self.client.get(&resource, &key).await?.filter(|found| is_ours(&found.value(), ring)) else {
            return Ok(());
        };
        let client = self.right.bounded(&self.client, "a ring's admission webhook")?;
        match client.delete(&resource, Preconditions::from(&found)).await {
            Ok(_) => {
                info!(ring = %ring.name, "its admission webhook is deleted");
                Ok(())
            }
            Err(error) if error.is_not_found() => Ok(()),
            Err(error) => Err(error),
        }
    }

    fn trouble(&mut self, ring: &Ring, what: &str, error: &Error) {
        if error.is_fenced() {
            return;
        }
        let text = format!("its admission webhook {what}: {error}");
        let before = self.told.insert(configuration::name(ring), text.clone());
        if before.as_ref() != Some(&text) {
            warn!(ring = %ring.name, "{text}");
        }
    }
}

fn key(ring: &Ring) -> ObjectKey {
    ObjectKey::new("", &configuration::name(ring))
}

fn id(ring: &Ring) -> (String, Uid) {
    (configuration::name(ring), ring.uid.clone())
}

/// A configuration that trusts no authority: whatever is there, it can't be counted on.
fn untrusting() -> Value {
    json!({ "webhooks": [{}] })
}

#[cfg(test)]
mod tests {
    use super::super::certificate::Pair;
    use super::super::configuration::trusts;
    use super::*;

    #[test]
    fn what_could_not_be_applied_holds_a_rotation_up() {
        let pair = Pair::make(std::time::Duration::from_secs(1_800_000_000), &["a".to_owned()]).unwrap();
        assert!(!trusts(&untrusting(), &pair.authority));
    }
}
