//! The controller's finalizer on its parents: put there before the first call of a hook, and taken off at the end, theirs
//! or the controller's.
//!
//! Never decides when: `core::plan` does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, stream};
use parking_lot::Mutex;
use ringmaster_cluster::{Client, Error, Found, Subject};
use ringmaster_core::controller::{COMPOSITES, Controller, DECORATORS};
use ringmaster_core::key::{ApiVersion, ObjectKey, Resource};
use ringmaster_core::object::Object;
use ringmaster_core::plan::{finalizer_patch, has_finalizer};
use tracing::{info, warn};

use crate::children::Family;
use crate::kinds::{self, Declared};
use crate::stage::Stage;

/// Parents that lose the finalizer of a deleted controller.
const MAX_RETIRED: usize = 10_000;
/// So many of them at once.
const RETIRED_AT_ONCE: usize = 8;
/// How long that may take for all of them: the process may be about to end.
const RETIRE_TIMEOUT: Duration = Duration::from_secs(30);
/// How often it is tried for a parent that changes meanwhile, and asked whether the controller is gone.
const TRIES: usize = 5;
/// The pause after an answer that doesn't tell.
const RETIRE_PAUSE: Duration = Duration::from_secs(1);

/// A controller whose deletion nothing holds up may be there again at once, as after `kubectl replace --force`: only after
/// this long is it gone.
const REPLACED_WITHIN: Duration = Duration::from_secs(2);

/// What became of the declaration of a controller that isn't hosted any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    /// It isn't seen any more, or is being deleted.
    Unseen,
    /// It has changed, and doesn't name a kind of parents any more.
    Changed,
}

/// What this member had of a controller: one for each kind of its parents, of whichever generation. They may have its
/// finalizer.
#[derive(Default)]
pub(crate) struct Had(Mutex<HashMap<String, Controller>>);

impl Had {
    /// Work on this begins.
    pub(crate) fn note(&self, model: &Controller) {
        self.0.lock().insert(kinds::of_parents(model), model.clone());
    }

    /// Those of these kinds, which aren't had any more.
    pub(crate) fn take(&self, is_gone: impl Fn(&String) -> bool) -> Vec<Controller> {
        self.0.lock().extract_if(|kind, _| is_gone(kind)).map(|(_, model)| model).collect()
    }
}

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

/// Takes the finalizer of a controller that is gone, or doesn't declare this kind any more, off all parents: nobody would
/// ever do it. One that only left the selection of controllers isn't gone. They are looked for where they are: what was
/// hosted, if it ever was, may not have known all. Ends at once when the same is declared again.
pub(crate) async fn retire(stage: &Stage, model: &Controller, left: Left, about: &Subject) {
    let (finalizer, controller) = (model.finalizer(), &model.name);
    if left == Left::Unseen && model.dialect.controller_finalizer.is_none() {
        tokio::time::sleep(REPLACED_WITHIN).await;
    }
    let (parents, found) = match guarded_by(stage, model, &finalizer).await {
        Ok(Some((_, found))) if found.objects.is_empty() => return,
        Ok(Some(found)) => found,
        Ok(None) => return,
        Err(error) => {
            warn!(%controller, "its parents can't be looked for, which may keep its finalizer {finalizer}: {error}");
            return;
        }
    };
    let Some(why) = ended(stage, model, left, about).await else { return };
    let (resource, count, finalizer) = (&*parents, found.objects.len(), finalizer.as_str());
    let free = stream::iter(found.objects).map(|(parent, _)| async move {
        let freed = take_off(stage, resource, &parent, finalizer).await;
        if let Err(error) = &freed {
            warn!(%parent, "its finalizer {finalizer} can't be taken off: {error}");
        }
        freed.is_ok()
    });
    let all = free.buffer_unordered(RETIRED_AT_ONCE).filter(|freed| std::future::ready(*freed)).count();
    let is_declared_again = async {
        loop {
            tokio::time::sleep(RETIRE_PAUSE).await;
            if ended(stage, model, left, about).await.is_none() {
                return;
            }
        }
    };
    let freed = tokio::select! {
        freed = tokio::time::timeout(RETIRE_TIMEOUT, all) => freed.unwrap_or_default(),
        () = is_declared_again => return,
    };
    if freed == count && !found.is_cut {
        info!(%controller, parents = count, finalizer, "{why}, and its finalizer with it");
    } else {
        warn!(
            %controller,
            parents = count,
            finalizer,
            "{why}, and its finalizer could not be taken off all parents; they stay when they are deleted, until it is: \
             kubectl patch, or the same controller once more"
        );
    }
}

/// The parents' kind, and those of them that have the finalizer, if the kind is served.
async fn guarded_by(
    stage: &Stage,
    model: &Controller,
    finalizer: &str,
) -> Result<Option<(Arc<Resource>, Found)>, Error> {
    let (rule, mut last) = (&model.parent, None);
    let is_left = |parent: &Object| has_finalizer(parent, finalizer);
    for _ in 0..TRIES {
        let found = match stage.discovery.find(&rule.api_version, &rule.resource).await {
            Ok(Some(parents)) => {
                let found = stage.client.find_metadata(&parents, ("", ""), MAX_RETIRED, is_left).await;
                found.map(|found| (parents, found))
            }
            Ok(None) => return Ok(None),
            Err(error) => Err(error),
        };
        match found {
            Ok(found) => return Ok(Some(found)),
            Err(error) => {
                if error.is_not_found() {
                    // It was served a while ago.
                    stage.discovery.forget(&rule.api_version);
                }
                last = Some(error);
            }
        }
        tokio::time::sleep(RETIRE_PAUSE).await;
    }
    last.map_or(Ok(None), Err)
}

/// Why nobody works on the parents of a kind any more: the controller was deleted, is being deleted, or doesn't declare it.
/// One that isn't seen but is there has only lost the labels that it was selected by; one of its name that was made since
/// has the same finalizer, and goes on with it; and nothing is taken away from one that can't be asked for.
async fn ended(stage: &Stage, model: &Controller, left: Left, about: &Subject) -> Option<&'static str> {
    const GONE: Option<&str> = Some("the controller is gone");
    let (controller, controllers) = (&model.name, controllers_of(model, about));
    let mut last = None;
    for _ in 0..TRIES {
        match stage.client.get(&controllers, &ObjectKey::new("", controller)).await {
            Ok(Some(found)) if !found.is_deleting() => {
                if *found.uid() == model.uid && left == Left::Unseen {
                    info!(%controller, "it isn't selected any more, and leaves its finalizer on its parents");
                    return None;
                }
                let is_former =
                    Declared::of(&found).is_some_and(|declared| !declared.names().contains(&kinds::of_parents(model)));
                return is_former.then_some("the kind isn't declared any more");
            }
            Ok(_) => return GONE,
            // Its kind went, and it with it.
            Err(error) if error.is_not_found() => return GONE,
            Err(error) => last = Some(error),
        }
        tokio::time::sleep(RETIRE_PAUSE).await;
    }
    let error = last.map(|error| error.to_string()).unwrap_or_default();
    warn!(%controller, "it can't be seen whether it still is as it was, and its finalizer stays on its parents: {error}");
    None
}

/// The kind of controllers that one is of; `about` is it itself.
pub(crate) fn controllers_of(model: &Controller, about: &Subject) -> Resource {
    Resource {
        api_version: ApiVersion::new(&about.api_version),
        plural: if model.is_decorator() { DECORATORS } else { COMPOSITES }.into(),
        kind: about.kind.as_str().into(),
        namespaced: false,
        status: true,
    }
}

/// Takes a finalizer off an object, whatever others change meanwhile; one that is gone has none.
///
/// # Errors
/// A call failed, others change it all the time, or this member's right to work ended: what it was about may be about
/// something else by now.
pub(crate) async fn take_off(
    stage: &Stage,
    resource: &Resource,
    key: &ObjectKey,
    finalizer: &str,
) -> Result<(), Error> {
    let mut last = None;
    for _ in 0..TRIES {
        let found = match stage.client.get(resource, key).await {
            Ok(found) => found,
            Err(error) if error.is_forbidden() => return Err(error),
            Err(error) => {
                last = Some(error);
                continue;
            }
        };
        let Some(found) = found.filter(|found| has_finalizer(found, finalizer)) else { return Ok(()) };
        let patch = finalizer_patch(&found, finalizer, false).to_string().into_bytes();
        let client = stage.guard.bounded(&stage.client, "a finalizer")?;
        match client.merge_patch(resource, key, patch).await {
            Ok(_) => return Ok(()),
            Err(error) if error.is_object_not_found() => return Ok(()),
            Err(error) if error.is_conflict() || error.outcome_is_unknown() => last = Some(error),
            Err(error) => return Err(error),
        }
    }
    last.map_or(Ok(()), Err)
}
