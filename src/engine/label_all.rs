//! Gives all objects of a whole their labels, while it goes on: it becomes sharded, and its owner has all of them in its
//! caches.
//!
//! Never ends before a look finds nothing left to label. Objects that are made meanwhile get theirs in their create.

use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use ringmaster_core::hash::shard;
use ringmaster_core::key::Resource;
use ringmaster_core::object::Object;
use ringmaster_core::shards::{OWNER_LABEL, SELF_LABEL};
use tracing::{info, warn};

use crate::children::has_label;
use crate::hosted::Hosted;
use crate::labels::write_label;
use crate::stage::Stage;
use crate::streams::Shared;

/// Labels that are written at once.
const MAX_AT_ONCE: usize = 16;
/// After a pass with failures, the next begins so much later.
const RETRY: Duration = Duration::from_secs(1);

struct Missing<'a> {
    resource: &'a Arc<Resource>,
    shared: &'a Shared,
    object: Arc<Object>,
    label: &'static str,
    shard: u8,
}

/// Labels everything. Safe to drop at any point.
pub(crate) async fn label_all(stage: &Stage, hosted: &Hosted) {
    loop {
        let missing = missing(hosted);
        if missing.is_empty() {
            return;
        }
        info!(controller = %hosted.model.name, objects = missing.len(), "labelling: it becomes sharded");
        let (mut waiting, mut running, mut failed) = (missing.into_iter(), FuturesUnordered::new(), 0usize);
        loop {
            while running.len() < MAX_AT_ONCE
                && let Some(one) = waiting.next()
            {
                running.push(write(stage, hosted, one));
            }
            let Some(done) = running.next().await else { break };
            failed += usize::from(!done);
        }
        if failed > 0 {
            warn!(controller = %hosted.model.name, failed, "some objects couldn't be labelled; trying again");
            tokio::time::sleep(RETRY).await;
        }
    }
}

fn missing(hosted: &Hosted) -> Vec<Missing<'_>> {
    let mut missing = Vec::new();
    let parents: Vec<Arc<Object>> =
        hosted.parents.store().iter().filter(|parent| hosted.concerns(parent)).cloned().collect();
    for parent in parents {
        let shard = shard(&hosted.parent, parent.key());
        for kind in &hosted.children {
            let store = kind.shared.store();
            let unlabelled = store
                .owned_by(parent.uid())
                .filter(|child| hosted.attaches(child) && !has_label(child, OWNER_LABEL, shard));
            missing.extend(unlabelled.map(|child| Missing {
                resource: &kind.resource,
                shared: &kind.shared,
                object: Arc::clone(child),
                label: OWNER_LABEL,
                shard,
            }));
        }
        if !has_label(&parent, SELF_LABEL, shard) {
            let (resource, shared) = (&hosted.parent, &*hosted.parents);
            missing.push(Missing { resource, shared, object: parent, label: SELF_LABEL, shard });
        }
    }
    missing
}

/// Labels one object; tells whether nothing is left to do about it.
async fn write(stage: &Stage, hosted: &Hosted, one: Missing<'_>) -> bool {
    let Ok(permit) = stage.guard.enter(&hosted.model.uid, None) else { return false };
    match write_label(&permit, &stage.client, one.resource, &one.object, (one.label, one.shard)).await {
        Ok(answer) => {
            one.shared.answer(answer, None, None);
            true
        }
        Err(error) if error.is_object_not_found() => {
            one.shared.gone(one.object.key(), one.object.uid(), None);
            true
        }
        Err(_) => false,
    }
}
