//! The declared controllers: found by watching their kinds, converted, hosted, and stopped when they go.
//!
//! Never hosts two generations of one controller at once: the old one's last sync ends before the new one begins.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ringmaster_api::convert::{self, Converted};
use ringmaster_cluster::{Client, Subject};
use ringmaster_core::cache::Change;
use ringmaster_core::controller::{Apply, COMPOSITES, Controller, DECORATORS};
use ringmaster_core::dialect::Dialect;
use ringmaster_core::key::{ApiVersion, ObjectKey, Resource, SyncKey, Uid};
use ringmaster_core::lease::Presence;
use ringmaster_core::object::Object;
use ringmaster_core::table::ControllerName;
use ringmaster_core::watch::{Scope, Selection};
use tokio::sync::Notify;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::cleanup::Cleaner;
use crate::clock::Clock;
use crate::finalizer::{Had, Left, retire};
use crate::host::host_all;
use crate::kinds::Declared;
use crate::member::placement::Placements;
use crate::rival::{Rival, hold};
use crate::stage::Stage;
use crate::status::{Board, Boards, Members, write_all};
use crate::streams::State;
use crate::tell::subject;
use crate::watches::Listener;

/// A controller kind whose CRD isn't there is asked for this often.
const ABSENT_INTERVAL: Duration = Duration::from_secs(5);
/// The version of both groups.
const VERSION: &str = "v1alpha1";

/// Reads an object's JSON.
type Convert = fn(&Dialect, Arc<[u8]>, &Apply) -> Result<Converted, convert::Error>;

/// A kind of controllers: where its objects are, and how they are read.
#[derive(Clone, Copy)]
pub(crate) struct DeclaredKind {
    dialect: &'static Dialect,
    plural: &'static str,
    convert: Convert,
}

impl DeclaredKind {
    pub(crate) const fn composites(dialect: &'static Dialect) -> Self {
        Self { dialect, plural: COMPOSITES, convert: convert::from_json }
    }

    pub(crate) const fn decorators(dialect: &'static Dialect) -> Self {
        Self { dialect, plural: DECORATORS, convert: convert::decorator_from_json }
    }

    /// A controller of this name, as the table knows it. A composite's group is its API group; the kind of others is part
    /// of it, because they may have the same names.
    fn name(self, name: &ObjectKey) -> ControllerName {
        let group = self.dialect.group;
        let group = if self.plural == COMPOSITES { group.into() } else { format!("{}.{group}", self.plural).into() };
        ControllerName { group, name: name.name().into() }
    }
}

/// Collects the names of controllers that changed; a name waits once.
#[derive(Default)]
struct Changed {
    names: Mutex<BTreeSet<ObjectKey>>,
    wake: Notify,
}

impl Changed {
    /// All of these are looked at again.
    fn all(&self, names: impl Iterator<Item = ObjectKey>) {
        self.names.lock().extend(names);
        self.wake.notify_one();
    }
}

impl Listener for Changed {
    fn changed(&self, change: &Change, _: Option<&SyncKey>) {
        self.names.lock().insert(change.key().clone());
        self.wake.notify_one();
    }
}

/// What the sources of controllers share.
pub(crate) struct Registry {
    pub(crate) stage: Arc<Stage>,
    pub(crate) client: Client,
    pub(crate) clock: Clock,
    /// Whether Metacontroller runs.
    pub(crate) rival: Arc<Rival>,
    /// Who has what.
    pub(crate) placements: Arc<Placements>,
    /// How children of Metacontroller's controllers are written.
    pub(crate) apply: Apply,
    /// Only controllers with these labels are ours; empty for all.
    pub(crate) selector: String,
    pub(crate) tasks: TaskTracker,
    /// Ends the hosting of controllers.
    pub(crate) stop: CancellationToken,
}

/// A controller that is hosted, or was.
struct Running {
    uid: Uid,
    generation: i64,
    /// What was known of Metacontroller, where that matters.
    rival: Presence,
    cancel: CancellationToken,
    /// As which events tell of it.
    about: Subject,
    /// What this member had of it, of whichever generation.
    had: Arc<Had>,
    /// Once it has ended.
    ended: CancellationToken,
    task: JoinHandle<()>,
}

/// Whether a source has seen what there was when the process began.
#[derive(Default)]
pub(crate) struct Progress {
    settled: AtomicBool,
    boards: Mutex<Option<Arc<Boards>>>,
}

impl Progress {
    /// Whether each controller that was there runs, or is known not to.
    pub(crate) fn is_settled(&self) -> bool {
        self.settled.load(Ordering::Acquire) && self.boards.lock().as_ref().is_none_or(|boards| !boards.any_starting())
    }
}

/// One line when the controllers' own kind goes, and one when it is back.
fn tell_if_gone(kind: DeclaredKind, state: &State, gone: &mut bool) {
    let (group, plural) = (kind.dialect.group, kind.plural);
    match state {
        State::Troubled(_, text, true) if !*gone => {
            *gone = true;
            warn!(group, "{plural} aren't served any more; install their CRD (ringmaster crds): {text}");
        }
        State::Synced if *gone => {
            *gone = false;
            info!(group, "{plural} are served again");
        }
        _ => {}
    }
}

impl Registry {
    /// Hosts the controllers of one kind until stopped.
    pub(crate) async fn run(self: Arc<Self>, kind: DeclaredKind, progress: Arc<Progress>) {
        let version = ApiVersion::new(&format!("{}/{VERSION}", kind.dialect.group));
        let Some(resource) = self.wait_for_kind(&version, kind.plural, &progress).await else { return };
        let changed = Arc::new(Changed::default());
        let scope = match self.selector.as_str() {
            "" => Scope::Everything,
            labels => Scope::Selected(Selection { labels: labels.to_owned(), ..Selection::default() }),
        };
        let listener = Arc::clone(&changed) as Arc<dyn Listener>;
        let subscription = self.stage.watches.subscribe(Arc::clone(&resource), scope, listener);
        let shared = subscription.shared();
        let boards = Arc::new(Boards::new(Arc::clone(shared)));
        *progress.boards.lock() = Some(Arc::clone(&boards));
        if kind.dialect.conditions {
            let members = Members {
                posts: Arc::clone(&self.stage.posts),
                placements: Arc::clone(&self.placements),
                metrics: Arc::clone(&self.stage.metrics),
            };
            let (boards, resource) = (Arc::clone(&boards), Arc::clone(&resource));
            self.tasks.spawn(write_all(self.client.clone(), boards, resource, members, self.stop.clone()));
        }
        if kind.dialect.controller_finalizer.is_some() {
            let cleaner = Cleaner {
                stage: Arc::clone(&self.stage),
                placements: Arc::clone(&self.placements),
                boards: Arc::clone(&boards),
                controllers: Arc::clone(shared),
                dialect: kind.dialect,
            };
            self.tasks.spawn(cleaner.run(self.stop.clone()));
        }
        let mut state = shared.state();
        let mut rival = self.rival.presence();
        let mut gone = false;
        let mut running: HashMap<ObjectKey, Running> = HashMap::new();
        // Of controllers that are gone: their last syncs may still run.
        let mut ending: HashMap<ObjectKey, JoinHandle<()>> = HashMap::new();
        loop {
            // Asked first: what a list that is complete named is among the names.
            let is_synced = shared.is_synced();
            let names = std::mem::take(&mut *changed.names.lock());
            for name in names {
                let object = shared.store().get(&name).cloned();
                let before = ending.remove(&name);
                if let Some(task) =
                    self.update(kind, &resource, &boards, &mut running, before, &name, object.as_deref())
                {
                    ending.insert(name, task);
                }
            }
            ending.retain(|_, task| !task.is_finished());
            if is_synced {
                self.settle(&progress);
            }
            tokio::select! {
                () = self.stop.cancelled() => break,
                () = changed.wake.notified() => {}
                Ok(()) = rival.changed(), if kind.dialect.waits_for_metacontroller => {
                    changed.all(running.keys().cloned());
                }
                _ = state.changed() => tell_if_gone(kind, &state.borrow_and_update(), &mut gone),
            }
        }
        // Each ends with its last sync, which the shutdown bounds.
        for task in running.into_values().map(|running| running.task).chain(ending.into_values()) {
            let _ = task.await;
        }
    }

    /// All controllers of the kind that there are now are known.
    fn settle(&self, progress: &Progress) {
        if !progress.settled.swap(true, Ordering::AcqRel) {
            self.stage.declared.know();
        }
    }

    async fn wait_for_kind(&self, version: &ApiVersion, plural: &str, progress: &Progress) -> Option<Arc<Resource>> {
        let (mut told, mut failures) = (false, 0u32);
        loop {
            match self.stage.discovery.find(version, plural).await {
                Ok(Some(resource)) => return Some(resource),
                Ok(None) => {
                    if !told {
                        info!(group = version.group(), "no {plural} are served; waiting for their CRD");
                        told = true;
                    }
                    self.settle(progress);
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    // One line when it begins, and a reminder at each doubling.
                    if failures.is_power_of_two() {
                        warn!(group = version.group(), failures, "discovery fails: {error}");
                    }
                }
            }
            if tokio::time::timeout(ABSENT_INTERVAL, self.stop.cancelled()).await.is_ok() {
                return None;
            }
        }
    }

    /// Brings one controller in line with its object; gives back the task of one that is gone and still ends.
    #[expect(clippy::too_many_arguments, reason = "the registry's loop, taken apart for reading")]
    fn update(
        &self,
        kind: DeclaredKind,
        resource: &Resource,
        boards: &Boards,
        running: &mut HashMap<ObjectKey, Running>,
        ending: Option<JoinHandle<()>>,
        name: &ObjectKey,
        object: Option<&Object>,
    ) -> Option<JoinHandle<()>> {
        let rival = self.rival_of(kind, object);
        if let (Some(known), Some(object)) = (running.get(name), object)
            && known.rival == rival
            && known.uid == *object.uid()
            && known.generation == object.generation()
        {
            return None;
        }
        let mut had = Arc::<Had>::default();
        let before = running.remove(name).map(|known| {
            // One of the same name that was made since is another, with parents of its own.
            let same = object.filter(|object| !object.is_deleting() && *object.uid() == known.uid);
            let (left, gone) = match same {
                Some(object) => {
                    had = Arc::clone(&known.had);
                    let declared = Declared::of(object).map(|declared| declared.names());
                    (Left::Changed, declared.map_or_else(Vec::new, |names| had.take(|kind| !names.contains(kind))))
                }
                None => (Left::Unseen, known.had.take(|_| true)),
            };
            known.cancel.cancel();
            // Others hold its deletion back until that is done.
            if kind.dialect.controller_finalizer.is_none() {
                self.retire(gone, left, known.about, known.ended);
            }
            known.task
        });
        // At most one of them: a controller that ends isn't among the running.
        let before = before.or(ending);
        let declared = kind.name(name);
        let Some(object) = object else {
            boards.set(name, None);
            self.stage.declared.set(declared, None);
            return before;
        };
        let board = Board::new(self.clock);
        board.declared(object.generation());
        boards.set(name, Some(Arc::clone(&board)));
        let about = subject(resource, object);
        let cancel = self.stop.child_token();
        // What isn't known yet will be soon; until then it starts. The table gives it to a member all the same, as others
        // may know better: each goes by what it sees itself.
        let is_known = rival != Presence::Unknown;
        let mut models = if is_known { self.convert(kind, resource, object, &board) } else { Vec::new() };
        let shall_run = models.first().map(|model| (model.uid.clone(), model.sharded));
        let may_run = (!is_known && !object.is_deleting()).then(|| (object.uid().clone(), false));
        self.stage.declared.set(declared, shall_run.or(may_run));
        let held = (rival == Presence::Lives && !models.is_empty()).then(|| object.uid().clone());
        if held.is_some() {
            models.clear();
            self.hold_back(&board, &about);
        }
        let (stage, ends, ended) =
            (Arc::clone(&self.stage), (cancel.clone(), Arc::clone(&had)), CancellationToken::new());
        let (told, end) = (about.clone(), ended.clone().drop_guard());
        let task = self.tasks.spawn(async move {
            let _end = end;
            if let Some(task) = before {
                let _ = task.await;
            }
            match held {
                Some(uid) => hold(stage, uid, ends.0).await,
                None => host_all(stage, models, board, told, ends).await,
            }
        });
        let (uid, generation) = (object.uid().clone(), object.generation());
        running.insert(name.clone(), Running { uid, generation, rival, cancel, about, had, ended, task });
        None
    }

    /// Takes the finalizers of what this member had of a controller off its parents, once it has ended. Whatever comes after
    /// it doesn't wait for that.
    fn retire(&self, gone: Vec<Controller>, left: Left, about: Subject, ended: CancellationToken) {
        if gone.is_empty() {
            return;
        }
        let stage = Arc::clone(&self.stage);
        self.tasks.spawn(async move {
            ended.cancelled().await;
            for model in &gone {
                retire(&stage, model, left, &about).await;
            }
        });
    }

    /// What is known of Metacontroller, as far as a controller has to wait for it.
    fn rival_of(&self, kind: DeclaredKind, object: Option<&Object>) -> Presence {
        if !kind.dialect.waits_for_metacontroller || object.is_none() {
            return Presence::Gone;
        }
        self.rival.begin(&self.tasks, &self.stop);
        *self.rival.presence().borrow()
    }

    /// A controller of Metacontroller's doesn't run on this member while that works on it.
    fn hold_back(&self, board: &Board, about: &Subject) {
        let text = self.rival.advice();
        self.stage.tell.event(about.clone(), true, "MetacontrollerRuns", text.clone());
        board.block("MetacontrollerRuns", text);
    }

    /// The model of a controller that shall run: one for each kind of its parents, or none if it shall not.
    fn convert(&self, kind: DeclaredKind, resource: &Resource, object: &Object, board: &Board) -> Vec<Controller> {
        let tell = |warning: bool, reason: &str, text: String| {
            self.stage.tell.event(subject(resource, object), warning, reason, text);
        };
        if object.is_deleting() {
            board.block("Deleting", "the controller is being deleted".to_owned());
            return Vec::new();
        }
        let converted = match (kind.convert)(kind.dialect, object.json().into(), &self.apply) {
            Ok(converted) => converted,
            Err(error) => {
                warn!(controller = %object.key(), "not accepted: {error}");
                tell(true, "CreateError", error.to_string());
                board.reject(error.to_string());
                return Vec::new();
            }
        };
        for warning in converted.warnings {
            warn!(controller = %object.key(), "{warning}");
            tell(true, "Ignored", warning);
        }
        if converted.controllers.iter().any(|controller| controller.paused) {
            info!(controller = %object.key(), "paused");
            board.block("Paused", "spec.paused is true: nothing is synced until it is false".to_owned());
            return Vec::new();
        }
        converted.controllers
    }
}
