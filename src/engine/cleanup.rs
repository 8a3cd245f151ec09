//! The finalizer that a controller of our group with a finalize hook has itself: its deletion waits until the controller's
//! own finalizer is off all parents, whichever members live.
//!
//! Never calls a hook: who deletes a controller wants its parents let go. Two members that believe to lead do no harm
//! here: whatever is taken off twice is gone after the first.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use ringmaster_cluster::Error;
use ringmaster_core::controller::DECORATORS;
use ringmaster_core::dialect::Dialect;
use ringmaster_core::key::{ApiVersion, ObjectKey, Resource, Uid, Version};
use ringmaster_core::object::Object;
use ringmaster_core::plan::{finalizer_patch, has_finalizer};
use serde::Deserialize;
use serde::de::IgnoredAny;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::finalizer::{controllers_of, take_off};
use crate::host::{Round, UNREACHABLE};
use crate::member::placement::Placements;
use crate::stage::Stage;
use crate::status::Boards;
use crate::streams::Shared;
use crate::tell::subject;

/// Controllers are looked at this often.
const TICK: Duration = Duration::from_secs(1);
/// What failed, or waits for syncs, is looked at again after so many ticks at most, doubling up to that.
const MAX_TICKS_TO_RETRY: u64 = 32;
/// Parents of one kind that lose the finalizer in one sweep; the next one takes more.
const MAX_SWEPT: usize = 10_000;
/// So many of them at once.
const SWEPT_AT_ONCE: usize = 16;
/// So many that can't be freed end a sweep; what is under way then still ends.
const MAX_REFUSALS: usize = 16;
/// How often a controller's finalizer is set in the face of others' changes before its host begins anew.
const SET_TRIES: usize = 5;

/// What stands in conditions and events when the finalizer can't be taken off.
const FAILING: &str = "CleanupFailing";

impl Round {
    /// Sees to it that a controller with a finalize hook has a finalizer itself before it puts its own on any parent;
    /// tells whether that is so. Why it isn't is told.
    pub(crate) async fn is_kept(&self) -> bool {
        let finalizer = self.model.dialect.controller_finalizer.filter(|_| self.model.finalize.is_some());
        let Some(finalizer) = finalizer else { return true };
        let (client, kind) = (&self.stage.client, controllers_of(&self.model, &self.subject));
        let key = ObjectKey::new("", &self.model.name);
        for _ in 0..SET_TRIES {
            let found = match client.get(&kind, &key).await {
                Ok(found) => found,
                Err(error) => {
                    self.tell_unkept(&error);
                    return false;
                }
            };
            // One that goes, or has gone, is stopped as soon as that is seen.
            let Some(found) = found.filter(|found| *found.uid() == self.model.uid && !found.is_deleting()) else {
                return false;
            };
            if has_finalizer(&found, finalizer) {
                return true;
            }
            let patch = finalizer_patch(&found, finalizer, true).to_string().into_bytes();
            match client.merge_patch(&kind, &key, patch).await {
                Ok(_) => return true,
                Err(error) if error.is_conflict() || error.outcome_is_unknown() => {}
                Err(error) => {
                    self.tell_unkept(&error);
                    return false;
                }
            }
        }
        false
    }

    fn tell_unkept(&self, error: &Error) {
        let (reason, fix) = match error {
            Error::Connection { .. } => (UNREACHABLE, ""),
            _ if error.is_forbidden() => {
                ("Forbidden", "; grant get and patch on controllers to Ringmaster's account (manifests/deploy)")
            }
            _ => ("FinalizerFailing", ""),
        };
        self.block(reason, format!("its own finalizer, by which its deletion waits for its parents: {error}{fix}"));
    }
}

/// What of a controller's spec says which parents may have its finalizer. Read by itself, so that a controller that can't
/// be used for another reason can go, too.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Declared {
    /// A composite's.
    #[serde(default)]
    parent_resource: Option<Kind>,
    /// A decorator's.
    #[serde(default)]
    resources: Vec<Kind>,
    #[serde(default)]
    hooks: Hooks,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    api_version: String,
    resource: String,
}

#[derive(Debug, Default, Deserialize)]
struct Hooks {
    #[serde(default)]
    finalize: Option<IgnoredAny>,
}

/// What is to be looked after of a controller that has the finalizer `own`: one that is being deleted, and one that needs
/// it no more because it has no finalize hook.
fn task(controller: &Object, own: &str) -> Option<Declared> {
    if !has_finalizer(controller, own) {
        return None;
    }
    let declared: Declared = controller.section("spec")?;
    (controller.is_deleting() || declared.hooks.finalize.is_none()).then_some(declared)
}

/// How far a controller's parents are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swept {
    /// None has the finalizer, and the controller neither.
    Clean,
    /// There is more to do, or to wait for, in a moment.
    More,
    /// Some have it, and their syncs take it off.
    Waits,
}

/// When a controller is looked at again.
#[derive(Default)]
struct Pause {
    times: u32,
    until: u64,
}

impl Pause {
    fn longer(&mut self, tick: u64) {
        self.times = self.times.saturating_add(1);
        self.until = tick + (1u64 << self.times.min(6)).min(MAX_TICKS_TO_RETRY);
    }
}

/// Lets controllers of one kind go, where this member leads.
pub(crate) struct Cleaner {
    pub(crate) stage: Arc<Stage>,
    /// Who works on what.
    pub(crate) placements: Arc<Placements>,
    pub(crate) boards: Arc<Boards>,
    /// All controllers of the kind.
    pub(crate) controllers: Arc<Shared>,
    pub(crate) dialect: &'static Dialect,
}

impl Cleaner {
    /// Does so until stopped.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let Some(own) = self.dialect.controller_finalizer else { return };
        let mut interval = tokio::time::interval(TICK);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (mut tick, mut pauses) = (0u64, HashMap::<Uid, Pause>::new());
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                _ = interval.tick() => {}
            }
            tick += 1;
            let tasks = self.tasks(own);
            pauses.retain(|uid, _| tasks.iter().any(|(controller, _)| controller.uid() == uid));
            for (controller, declared) in tasks {
                let pause = pauses.entry(controller.uid().clone()).or_default();
                if tick < pause.until {
                    continue;
                }
                let swept = tokio::select! {
                    () = stop.cancelled() => return,
                    swept = self.sweep(&controller, &declared, own, pause.times) => swept,
                };
                match swept {
                    Ok(Swept::Clean) => info!(controller = %controller.key(), "its finalizer is on no parent any more"),
                    Ok(Swept::More) => *pause = Pause::default(),
                    Ok(Swept::Waits) => pause.longer(tick),
                    Err(text) => {
                        pause.longer(tick);
                        self.tell(&controller, pause.times, text);
                    }
                }
            }
        }
    }

    /// What there is to do for this member: nothing unless it leads.
    fn tasks(&self, own: &str) -> Vec<(Arc<Object>, Declared)> {
        if !self.stage.metrics.members.leads() {
            return Vec::new();
        }
        let store = self.controllers.store();
        store.iter().filter_map(|controller| Some((Arc::clone(controller), task(controller, own)?))).collect()
    }

    /// Takes the finalizer off the parents of a controller that goes, and its own off the controller once none has it;
    /// so many `tries` before were of no use.
    async fn sweep(&self, controller: &Object, declared: &Declared, own: &str, tries: u32) -> Result<Swept, String> {
        let goes = controller.is_deleting();
        // Whoever works on it may still put the finalizer on a parent.
        if goes && self.placements.has(controller.uid()) {
            return Ok(Swept::More);
        }
        let client = &self.stage.client;
        let finalizer = self.finalizer(controller);
        let mut left = 0;
        for kind in declared.parent_resource.iter().chain(&declared.resources) {
            // Without its kind there is no parent.
            let Some(parents) = self.find(kind).await.map_err(|error| told(&kind.resource, &error))? else { continue };
            let is_left = |parent: &Object| has_finalizer(parent, &finalizer);
            let found = match client.find_metadata(&parents, ("", ""), MAX_SWEPT, is_left).await {
                Ok(found) => turned(found.objects, tries),
                // It was served a while ago.
                Err(error) if error.is_not_found() => {
                    self.stage.discovery.forget(&parents.api_version);
                    return Ok(Swept::More);
                }
                Err(error) => return Err(told(&kind.resource, &error)),
            };
            left += found.len();
            if goes {
                self.free(&parents, found, &finalizer).await?;
            }
        }
        if left > 0 {
            return Ok(if goes { Swept::More } else { Swept::Waits });
        }
        // As it was seen: one that has got a finalize hook since isn't this version any more.
        let patch = finalizer_patch(controller, own, false).to_string().into_bytes();
        match client.merge_patch(self.controllers.resource(), controller.key(), patch).await {
            Ok(_) => Ok(Swept::Clean),
            Err(error) if error.is_object_not_found() => Ok(Swept::Clean),
            Err(error) if error.is_conflict() || error.outcome_is_unknown() => Ok(Swept::More),
            Err(error) => Err(told("controllers", &error)),
        }
    }

    async fn free(&self, parents: &Resource, found: Vec<(ObjectKey, Version)>, finalizer: &str) -> Result<(), String> {
        let (client, count, is_over) = (&self.stage.client, found.len(), AtomicBool::new(false));
        let mut left = found.into_iter();
        let next = std::iter::from_fn(|| if is_over.load(Ordering::Relaxed) { None } else { left.next() });
        let each = stream::iter(next).map(|(key, _)| async move { take_off(client, parents, &key, finalizer).await });
        let mut each = std::pin::pin!(each.buffer_unordered(SWEPT_AT_ONCE));
        let (mut freed, mut refusals, mut first) = (0, 0, None);
        while let Some(done) = each.next().await {
            match done {
                Ok(()) => freed += 1,
                Err(error) => {
                    refusals += usize::from(is_refusal(&error));
                    if error.is_forbidden() || refusals >= MAX_REFUSALS {
                        is_over.store(true, Ordering::Relaxed);
                    }
                    first.get_or_insert(error);
                }
            }
        }
        let Some(first) = first else { return Ok(()) };
        Err(format!(
            "{} of {count} {parents} keep the finalizer {finalizer}: {}",
            count - freed,
            told(&parents.plural, &first)
        ))
    }

    /// The kind in the version that the controller names, or in any that is served.
    async fn find(&self, kind: &Kind) -> Result<Option<Arc<Resource>>, Error> {
        let (discovery, named) = (&self.stage.discovery, ApiVersion::new(&kind.api_version));
        let found = discovery.find(&named, &kind.resource).await?;
        if found.is_some() || named.group().is_empty() {
            return Ok(found);
        }
        for version in self.versions(named.group()).await?.into_iter().filter(|version| *version != named) {
            let found = discovery.find(&version, &kind.resource).await?;
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }

    /// The versions in which a group is served.
    async fn versions(&self, group: &str) -> Result<Vec<ApiVersion>, Error> {
        #[derive(Deserialize)]
        struct Group {
            #[serde(default)]
            versions: Vec<Served>,
        }
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Served {
            group_version: String,
        }
        let path = format!("/apis/{group}");
        let text = match self.stage.client.get_text(&path).await {
            Ok(text) => text,
            Err(error) if error.is_not_found() => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let group: Group = serde_json::from_str(&text)
            .map_err(|error| Error::Answer { call: format!("GET {path}"), problem: error.to_string() })?;
        Ok(group.versions.iter().map(|served| ApiVersion::new(&served.group_version)).collect())
    }

    /// What the controller puts on its parents.
    fn finalizer(&self, controller: &Object) -> String {
        let is_decorator = &*self.controllers.resource().plural == DECORATORS;
        let prefix = if is_decorator { self.dialect.decorator_finalizer } else { self.dialect.composite_finalizer };
        format!("{prefix}{}", controller.key().name())
    }

    fn tell(&self, controller: &Object, times: u32, text: String) {
        // One that runs on has other things to say of itself.
        if let Some(board) = self.boards.get(controller.key()).filter(|_| controller.is_deleting()) {
            board.block(FAILING, text.clone());
        }
        // One line when it begins, and a reminder at each doubling.
        if times.is_power_of_two() {
            warn!(controller = %controller.key(), failures = times, "its finalizer can't be taken off: {text}");
            self.stage.tell.event(subject(self.controllers.resource(), controller), true, FAILING, text);
        }
    }
}

/// The parents in another order at each try: those that can't be freed keep none of the others from it for ever.
fn turned<T>(mut parents: Vec<T>, tries: u32) -> Vec<T> {
    let turn = usize::try_from(tries).unwrap_or_default().saturating_mul(MAX_REFUSALS);
    let at = turn.checked_rem(parents.len()).unwrap_or_default();
    parents.rotate_left(at);
    parents
}

/// Whether an error says something of more than the one parent: not that it is gone, or that others change it.
fn is_refusal(error: &Error) -> bool {
    !error.is_not_found() && !error.is_conflict()
}

/// What is said of an error about objects of a kind.
fn told(plural: &str, error: &Error) -> String {
    if error.is_forbidden() {
        format!("{error}; grant get, list and patch on {plural} to Ringmaster's account")
    } else {
        error.to_string()
    }
}

#[cfg(test)]
mod tests {
    use ringmaster_core::dialect::RINGMASTER;
    use serde_json::{Value, json};

    use super::*;

    const OWN: &str = "ringmaster.dev/controller";

    fn controller(finalizers: &[&str], deleting: bool, spec: &Value) -> Object {
        let kind = Resource {
            api_version: ApiVersion::new("ringmaster.dev/v1alpha1"),
            plural: "compositecontrollers".into(),
            kind: "CompositeController".into(),
            namespaced: false,
            status: true,
        };
        let mut metadata = json!({ "name": "c", "uid": "u", "resourceVersion": "7", "finalizers": finalizers });
        if deleting {
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        let object = json!({ "metadata": metadata, "spec": spec });
        Object::parse(&object.to_string(), &kind).unwrap()
    }

    #[test]
    fn only_a_controller_that_goes_or_needs_it_no_more_is_looked_after() {
        assert_eq!(RINGMASTER.controller_finalizer, Some(OWN));
        let parent = json!({ "apiVersion": "a/v1", "resource": "things" });
        let hooked = json!({ "parentResource": parent, "hooks": { "finalize": { "webhook": {} } } });
        let bare = json!({ "parentResource": parent, "hooks": { "sync": {} } });
        let null = json!({ "parentResource": parent, "hooks": { "finalize": null } });
        let is_due = |finalizers: &[&str], deleting: bool, spec: &Value| {
            task(&controller(finalizers, deleting, spec), OWN).is_some()
        };
        assert!(!is_due(&[OWN], false, &hooked) && is_due(&[OWN, "x"], true, &hooked));
        assert!(is_due(&[OWN], false, &bare) && is_due(&[OWN], false, &null) && is_due(&[OWN], true, &bare));
        assert!(!is_due(&["x"], true, &hooked) && !is_due(&[], false, &bare), "it isn't ours to take off");
        assert!(!is_due(&[OWN], true, &json!(7)), "what can't be read says nothing of its parents");
    }

    #[test]
    fn parents_of_both_kinds_of_controllers_are_found() {
        let kinds = |spec: Value| {
            let declared = task(&controller(&[OWN], true, &spec), OWN).unwrap();
            let kinds = declared.parent_resource.iter().chain(&declared.resources);
            kinds.map(|kind| format!("{} {}", kind.api_version, kind.resource)).collect::<Vec<_>>()
        };
        let kind = |plural: &str| json!({ "apiVersion": "a/v1", "resource": plural, "labelSelector": {} });
        assert_eq!(kinds(json!({ "parentResource": kind("things"), "hooks": {} })), ["a/v1 things"]);
        assert_eq!(kinds(json!({ "resources": [kind("things"), kind("others")] })), ["a/v1 things", "a/v1 others"]);
    }

    #[test]
    fn each_try_begins_behind_those_that_the_last_ended_with() {
        let first = |tries: u32| turned((0..40).collect::<Vec<usize>>(), tries).first().copied();
        assert_eq!([first(0), first(1), first(2), first(3)], [Some(0), Some(16), Some(32), Some(8)]);
        assert_eq!(first(u32::MAX).map(|at| at < 40), Some(true));
        assert!(turned(Vec::<usize>::new(), 7).is_empty());
        let mut all = turned((0..40).collect::<Vec<usize>>(), 5);
        all.sort_unstable();
        assert_eq!(all, (0..40).collect::<Vec<usize>>(), "none is left out");
    }

    #[test]
    fn only_what_is_not_of_one_parent_ends_a_sweep() {
        let status = |code: u16| Error::Status {
            call: "PATCH /x".to_owned(),
            code,
            reason: String::new(),
            message: "m".to_owned(),
            retry_after: None,
            object: true,
        };
        assert!([404, 409].into_iter().all(|code| !is_refusal(&status(code))));
        assert!([400, 403, 422, 429, 500].into_iter().all(|code| is_refusal(&status(code))));
        assert!(is_refusal(&Error::Timeout { call: "PATCH /x".to_owned(), after: TICK }));
    }

    #[test]
    fn a_pause_grows_up_to_a_bound() {
        let mut pause = Pause::default();
        let pauses: Vec<u64> = (0..8)
            .map(|_| {
                pause.longer(100);
                pause.until - 100
            })
            .collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 32, 32, 32]);
    }
}
