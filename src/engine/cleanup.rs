//! The finalizer that a controller of our group with a finalize hook has itself: its deletion waits until the controller's
//! own finalizer is off all parents, whichever members live. Beside it, an annotation remembers the kinds of these parents,
//! so that the finalizer is taken off those of a kind that the controller doesn't declare any more.
//!
//! Never calls a hook: who deletes a controller, or takes a kind out of it, wants the parents let go. Two members that
//! believe to lead do no harm here: each asks for its right to work, and for the parent as it is, before each write.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::{StreamExt, stream};
use ringmaster_cluster::Error;
use ringmaster_core::controller::DECORATORS;
use ringmaster_core::dialect::{Dialect, OwnFinalizer};
use ringmaster_core::key::{ApiVersion, ObjectKey, Resource, Uid, Version};
use ringmaster_core::object::Object;
use ringmaster_core::plan::has_finalizer;
use serde::Deserialize;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::finalizer::{controllers_of, take_off};
use crate::host::{Round, UNREACHABLE};
use crate::kinds::{self, Declared, Names};
use crate::member::placement::Placements;
use crate::stage::Stage;
use crate::status::Boards;
use crate::streams::Shared;
use crate::tell::subject;

/// Controllers are looked at this often.
const TICK: Duration = Duration::from_secs(1);
/// What failed, or waits for syncs, is looked at again after so many ticks at most, doubling up to that.
const MAX_TICKS_TO_RETRY: u64 = 32;
/// A kind that isn't declared any more is looked at for so many ticks at least, since a member that sees the new spec late
/// may put the finalizer on its objects meanwhile. One that sees it later than that leaves its finalizer there.
const TICKS_TO_SETTLE: u64 = 60;
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
    /// Sees to it that a controller with a finalize hook has a finalizer itself, and remembers this kind of parents, before
    /// it puts its own on any of them; tells whether that is so. Why it isn't is told.
    pub(crate) async fn is_kept(&self) -> bool {
        let own = self.model.dialect.controller_finalizer.as_ref().filter(|_| self.model.finalize.is_some());
        let Some(own) = own else { return true };
        let mine = kinds::of_parents(&self.model);
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
            // As is one that has lost this kind.
            let declared = Declared::of(&found).map(|declared| declared.names()).unwrap_or_default();
            if !declared.contains(&mine) {
                return false;
            }
            let mut names = kinds::noted(&found, own);
            if has_finalizer(&found, own.name) && names.contains(&mine) {
                return true;
            }
            // Its other kinds begin at the same time: whoever comes first writes for all.
            names.extend(declared);
            let patch = kinds::own_patch(&found, own, true, &names);
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

/// What there is to do for a controller.
struct Task {
    /// The kinds that it declares.
    declared: Names,
    /// Whether it has a finalize hook.
    hooked: bool,
    /// The kinds that its annotation remembers.
    noted: Names,
    /// Those of them that it doesn't declare any more.
    former: Names,
}

/// What is to be looked after of a controller that has a finalizer itself: one that is being deleted, one that needs it no
/// more because it has no finalize hook, and one that doesn't declare a kind any more.
fn task(controller: &Object, own: &OwnFinalizer) -> Option<Task> {
    if !has_finalizer(controller, own.name) {
        return None;
    }
    let spec = Declared::of(controller)?;
    let (declared, noted, hooked) = (spec.names(), kinds::noted(controller, own), spec.finalizes());
    let former = &noted - &declared;
    let is_due = controller.is_deleting() || !hooked || !former.is_empty();
    is_due.then_some(Task { declared, hooked, noted, former })
}

/// How far a controller's parents are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swept {
    /// None has the finalizer that shall not, and the controller says so.
    Clean,
    /// There is more to do, or to wait for, in a moment.
    More,
    /// Some have it, and their syncs take it off; or they may get it still.
    Waits,
}

/// When a controller is looked at again, in ticks.
struct Pause {
    /// Of what generation it is: another begins anew.
    generation: i64,
    since: u64,
    times: u32,
    until: u64,
}

impl Pause {
    fn begun(generation: i64, tick: u64) -> Self {
        Self { generation, since: tick, times: 0, until: 0 }
    }

    fn is_settled(&self, tick: u64) -> bool {
        tick >= self.since + TICKS_TO_SETTLE
    }

    fn none(&mut self) {
        (self.times, self.until) = (0, 0);
    }

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
        let Some(own) = &self.dialect.controller_finalizer else { return };
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
            for (controller, task) in tasks {
                let generation = controller.generation();
                let pause = pauses
                    .entry(controller.uid().clone())
                    .and_modify(|pause| {
                        if pause.generation != generation {
                            *pause = Pause::begun(generation, tick);
                        }
                    })
                    .or_insert_with(|| Pause::begun(generation, tick));
                if tick < pause.until {
                    continue;
                }
                let swept = tokio::select! {
                    () = stop.cancelled() => return,
                    swept = self.sweep(&controller, &task, own, (pause.is_settled(tick), pause.times)) => swept,
                };
                match swept {
                    Ok(Swept::Clean) => {
                        info!(controller = %controller.key(), "its finalizer is off all that was to lose it");
                    }
                    Ok(Swept::More) => pause.none(),
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
    fn tasks(&self, own: &OwnFinalizer) -> Vec<(Arc<Object>, Task)> {
        if !self.stage.metrics.members.leads() {
            return Vec::new();
        }
        let store = self.controllers.store();
        store.iter().filter_map(|controller| Some((Arc::clone(controller), task(controller, own)?))).collect()
    }

    /// Takes the finalizer off the parents of a controller that goes, and off those of kinds that it doesn't declare any
    /// more; its own off the controller once none has it; and out of its annotation the kinds that are done with. So many
    /// `tries` before were of no use.
    async fn sweep(
        &self,
        controller: &Object,
        task: &Task,
        own: &OwnFinalizer,
        (is_settled, tries): (bool, u32),
    ) -> Result<Swept, String> {
        let goes = controller.is_deleting();
        // Whoever works on it may still put the finalizer on a parent.
        if goes && self.placements.has(controller.uid()) {
            return Ok(Swept::More);
        }
        let finalizer = self.finalizer(controller);
        let is_needless = goes || !task.hooked;
        let declared = task.declared.iter().filter(|_| is_needless).map(|name| (name, goes));
        let kinds: Vec<(&String, bool)> = declared.chain(task.former.iter().map(|name| (name, true))).collect();
        let (mut swept, mut left, mut failed) = (Swept::Clean, Names::new(), None);
        for (name, frees) in kinds {
            match self.sweep_kind((name, frees), &finalizer, tries).await {
                Ok(Swept::Clean) => continue,
                Ok(Swept::More) => swept = Swept::More,
                Ok(Swept::Waits) if swept == Swept::More => {}
                Ok(Swept::Waits) => swept = Swept::Waits,
                // The others don't wait for it.
                Err(text) => failed = failed.or(Some(text)),
            }
            left.insert(name.clone());
        }
        // Nobody works on one that goes any more.
        let is_settled = goes || is_settled;
        let done: Names = task.former.iter().filter(|name| is_settled && !left.contains(*name)).cloned().collect();
        let stays = !is_needless || !left.is_empty() || done.len() < task.former.len();
        if !stays || (!goes && !done.is_empty()) {
            let names = if stays { &task.noted - &done } else { Names::new() };
            // As it was seen: one whose spec has changed since isn't this version any more.
            let patch = kinds::own_patch(controller, own, stays, &names);
            match self.stage.client.merge_patch(self.controllers.resource(), controller.key(), patch).await {
                Ok(_) => {}
                Err(error) if error.is_object_not_found() => {}
                Err(error) if error.is_conflict() || error.outcome_is_unknown() => swept = Swept::More,
                Err(error) => failed = failed.or_else(|| Some(told("controllers", &error))),
            }
        }
        match failed {
            Some(text) => Err(text),
            None if swept == Swept::Clean && done.len() < task.former.len() => Ok(Swept::Waits),
            None => Ok(swept),
        }
    }

    /// Looks at the objects of one kind, and takes the finalizer off them, or leaves that to their syncs.
    async fn sweep_kind(&self, (name, frees): (&str, bool), finalizer: &str, tries: u32) -> Result<Swept, String> {
        let (plural, _) = kinds::parts(name);
        // Without its kind there is no parent.
        let Some(parents) = self.find(name).await.map_err(|error| told(plural, &error))? else {
            return Ok(Swept::Clean);
        };
        let is_left = |parent: &Object| has_finalizer(parent, finalizer);
        let found = match self.stage.client.find_metadata(&parents, ("", ""), MAX_SWEPT, is_left).await {
            Ok(found) => turned(found.objects, tries),
            // It was served a while ago.
            Err(error) if error.is_not_found() => {
                self.stage.discovery.forget(&parents.api_version);
                return Ok(Swept::More);
            }
            Err(error) => return Err(told(plural, &error)),
        };
        if found.is_empty() {
            return Ok(Swept::Clean);
        }
        if !frees {
            return Ok(Swept::Waits);
        }
        self.free(&parents, found, finalizer).await.map(|()| Swept::More)
    }

    async fn free(&self, parents: &Resource, found: Vec<(ObjectKey, Version)>, finalizer: &str) -> Result<(), String> {
        let (stage, count, is_over) = (&*self.stage, found.len(), AtomicBool::new(false));
        let mut left = found.into_iter();
        let next = std::iter::from_fn(|| if is_over.load(Ordering::Relaxed) { None } else { left.next() });
        let each = stream::iter(next).map(|(key, _)| async move { take_off(stage, parents, &key, finalizer).await });
        let mut each = std::pin::pin!(each.buffer_unordered(SWEPT_AT_ONCE));
        let (mut freed, mut refusals, mut first) = (0, 0, None);
        while let Some(done) = each.next().await {
            match done {
                Ok(()) => freed += 1,
                Err(error) => {
                    refusals += usize::from(is_refusal(&error));
                    if error.is_forbidden() || error.is_fenced() || refusals >= MAX_REFUSALS {
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

    /// The kind of this name in any version that is served.
    async fn find(&self, name: &str) -> Result<Option<Arc<Resource>>, Error> {
        let (plural, group) = kinds::parts(name);
        for version in self.versions(group).await? {
            let found = self.stage.discovery.find(&version, plural).await?;
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
        if group.is_empty() {
            return Ok(vec![ApiVersion::new("v1")]);
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
    use serde_json::{Value, json};

    use super::*;
    use crate::kinds::tests::{controller, own};

    const OWN: &str = "ringmaster.dev/controller";

    fn kind(plural: &str) -> Value {
        json!({ "apiVersion": "a.b/v1", "resource": plural })
    }

    #[test]
    fn only_a_controller_that_goes_or_needs_it_no_more_is_looked_after() {
        assert_eq!(own().name, OWN);
        let parent = kind("things");
        let hooked = json!({ "parentResource": parent, "hooks": { "finalize": { "webhook": {} } } });
        let bare = json!({ "parentResource": parent, "hooks": { "sync": {} } });
        let null = json!({ "parentResource": parent, "hooks": { "finalize": null } });
        let is_due = |finalizers: &[&str], deleting: bool, spec: &Value| {
            task(&controller(finalizers, deleting, Some("things.a.b"), spec), own()).is_some()
        };
        assert!(!is_due(&[OWN], false, &hooked) && is_due(&[OWN, "x"], true, &hooked));
        assert!(is_due(&[OWN], false, &bare) && is_due(&[OWN], false, &null) && is_due(&[OWN], true, &bare));
        assert!(!is_due(&["x"], true, &hooked) && !is_due(&[], false, &bare), "it isn't ours to take off");
        assert!(!is_due(&[OWN], true, &json!(7)), "what can't be read says nothing of its parents");
    }

    #[test]
    fn kinds_that_are_not_declared_any_more_are_looked_after() {
        let due = |noted: Option<&str>, resources: &[Value]| {
            let spec = json!({ "resources": resources, "hooks": { "finalize": {} } });
            let task = task(&controller(&[OWN], false, noted, &spec), own())?;
            assert!(task.hooked);
            Some([task.declared, task.former].map(|names| names.into_iter().collect::<Vec<_>>().join(" ")))
        };
        assert!(due(None, &[kind("things")]).is_none(), "nothing was noted before it began");
        assert!(due(Some("things.a.b"), &[kind("things"), kind("others")]).is_none());
        let moved = json!({ "apiVersion": "a.b/v2", "resource": "things" });
        assert!(due(Some("things.a.b"), &[moved]).is_none(), "it is the same kind");
        let [declared, former] = due(Some("others.a.b,pods,things.a.b"), &[kind("things")]).unwrap();
        assert_eq!((declared.as_str(), former.as_str()), ("things.a.b", "others.a.b pods"));
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
        let mut pause = Pause::begun(1, 100);
        let pauses: Vec<u64> = (0..8)
            .map(|_| {
                pause.longer(100);
                pause.until - 100
            })
            .collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 32, 32, 32]);
        assert!(!pause.is_settled(159) && pause.is_settled(160));
        pause.none();
        assert!(pause.until == 0 && pause.is_settled(160));
    }
}
