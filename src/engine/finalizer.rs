//! The controller's finalizer on its parents: put there before the first call of a hook, and taken off at the end, theirs
//! or the controller's.
//!
//! Never decides when: `core::plan` does.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use ringmaster_cluster::{Client, Error};
use ringmaster_core::object::Object;
use ringmaster_core::plan::{finalizer_patch, has_finalizer};
use tracing::{info, warn};

use crate::children::Family;
use crate::hosted::Hosted;

/// Parents that lose the finalizer of a deleted controller at once.
const RETIRED_AT_ONCE: usize = 8;
/// How long that may take for all of them: the process may be about to end.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is tried for a parent that changes meanwhile.
const RETIRE_TRIES: usize = 5;

/// Puts the finalizer on a parent, or takes it off; the answer is in the cache. `None` if the parent is gone.
///
/// # Errors
/// The write failed. One whose outcome isn't known, or that met another version, is noted: the parent is read before its
/// next sync.
pub(crate) async fn set_finalizer(
    family: &Family<'_>,
    client: &Client,
    parent: &Object,
    present: bool,
) -> Result<Option<Arc<Object>>, Error> {
    let (hosted, key) = (family.hosted, family.key);
    let patch = finalizer_patch(parent, &hosted.model.finalizer(), present).to_string().into_bytes();
    let write = async |client: Client| client.merge_patch(&hosted.parent, parent.key(), patch).await;
    let begun = hosted.begin_write(&key.parent, None, parent.key());
    let written = family.permit.write(client, "a finalizer", write).await;
    begun.ended();
    match written {
        Ok(answer) => {
            hosted.parents.answer(answer, None, Some(key));
            Ok(hosted.parents.store().get(parent.key()).cloned())
        }
        Err(error) if error.is_object_not_found() => {
            hosted.parents.gone(parent.key(), parent.uid(), Some(key));
            Ok(None)
        }
        Err(error) => {
            hosted.note_unknown(&key.parent, None, parent.key());
            Err(error)
        }
    }
}

/// Takes the finalizer of a controller that is gone off all parents that this member had: nobody would ever do it. There
/// is no right to ask for any more; who declares the controller anew puts its own finalizer on each parent first.
pub(crate) async fn retire(hosted: &Hosted, client: &Client) {
    let finalizer = hosted.model.finalizer();
    let is_left = |parent: &&Arc<Object>| has_finalizer(parent, &finalizer) && hosted.holds(parent.key());
    let parents: Vec<Arc<Object>> = hosted.parents.store().iter().filter(is_left).cloned().collect();
    let count = parents.len();
    if count == 0 {
        return;
    }
    let free = stream::iter(parents).map(|parent| release(hosted, client, parent, &finalizer));
    let all = free.buffer_unordered(RETIRED_AT_ONCE).filter(|freed| std::future::ready(*freed)).count();
    let freed = tokio::time::timeout(RETIRE_TIMEOUT, all).await.unwrap_or_default();
    let controller = &hosted.model.name;
    if freed == count {
        info!(%controller, parents = count, finalizer, "the controller is gone, and its finalizer with it");
    } else {
        warn!(
            %controller,
            parents = count,
            finalizer,
            "the controller is gone, and its finalizer could not be taken off all parents; they stay when they are deleted, \
             until it is: kubectl patch, or the same controller once more"
        );
    }
}

async fn release(hosted: &Hosted, client: &Client, parent: Arc<Object>, finalizer: &str) -> bool {
    let mut parent = parent;
    for _ in 0..RETIRE_TRIES {
        let patch = finalizer_patch(&parent, finalizer, false).to_string().into_bytes();
        match client.merge_patch(&hosted.parent, parent.key(), patch).await {
            Ok(_) => return true,
            Err(error) if error.is_object_not_found() => return true,
            Err(error) if error.is_conflict() || error.outcome_is_unknown() => {}
            Err(error) => {
                warn!(parent = %parent.key(), "its finalizer {finalizer} can't be taken off: {error}");
                return false;
            }
        }
        match client.get(&hosted.parent, parent.key()).await {
            Ok(Some(found)) if found.uid() == parent.uid() && has_finalizer(&found, finalizer) => {
                parent = Arc::new(found);
            }
            Ok(_) => return true,
            Err(_) => {}
        }
    }
    false
}
