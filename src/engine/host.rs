//! The life of one hosted controller: its kinds are found, its watches begin, its parents are synced, until it changes.
//!
//! Never syncs by itself: it hands keys to the queue, and waits for running syncs when it ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use futures::future::{join_all, select_all};
use parking_lot::Mutex;
use ringmaster_cluster::Subject;
use ringmaster_core::cache::Change;
use ringmaster_core::controller::{Controller, UpdateStrategy, Webhook};
use ringmaster_core::hash::shard;
use ringmaster_core::key::{ApiVersion, ControllerId, ObjectKey, Resource, SyncKey};
use ringmaster_core::queue::{Lanes, Priority};
use ringmaster_core::rollout::{PLURAL as REVISIONS, revision_api_version};
use ringmaster_core::shards::{OWNER_LABEL, SELF_LABEL, SHARDS, Shards};
use ringmaster_core::table::RowId;
use ringmaster_core::table::duty::Done;
use ringmaster_core::watch::Scope;
use ringmaster_hooks::Route;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::backend::{Backend, Watcher};
use crate::finalizer::Had;
use crate::hosted::{ChildKind, Hosted, Revisions, Routes, Sharded};
use crate::member::posts::{Post, Stand};
use crate::related::RelatedObjects;
use crate::route::{ChildRoute, ParentRoute, index_parent};
use crate::serve::Kinds;
use crate::stage::Stage;
use crate::status::{Board, Cause};
use crate::strays::Stray;
use crate::streams::State;
use crate::unlabelled::{StrayChildren, StrayParents};
use crate::watches::Subscription;

/// What isn't served, or can't be watched, is looked at again after this long, doubling up to the second.
pub(crate) const RETRY: (Duration, Duration) = (Duration::from_millis(500), Duration::from_secs(10));

/// Kinds that are in doubt are looked up again at most this often.
pub(crate) const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The parents of a row that killed its owners begin within this time.
const DELAYED_BEGIN: Duration = Duration::from_secs(60);

/// What needs revisions, for people.
const ROLLING: &str = "a Rolling update method";

/// Why a controller's watches fail when the API server itself is away.
pub(crate) const UNREACHABLE: &str = "ApiServerUnreachable";

/// Why a round of hosting ended.
pub(crate) enum Ended {
    Cancelled,
    /// A kind isn't served, or no longer: everything is looked up anew.
    Again,
    /// The table wants something else of this member.
    Turned,
}

/// Hosts all that one declaration became, side by side; see [`host`].
pub(crate) async fn host_all(
    stage: Arc<Stage>,
    models: Vec<Controller>,
    board: Arc<Board>,
    subject: Subject,
    ends: (CancellationToken, Arc<Had>),
) {
    let Some(first) = models.first() else { return };
    let post = stage.posts.post(&first.uid);
    post.divide(models.len());
    let boards = board.divide(&models);
    let units = models.into_iter().zip(boards).enumerate().map(|(unit, (model, board))| {
        host(Arc::clone(&stage), model, board, subject.clone(), (Arc::clone(&post), unit), ends.clone())
    });
    join_all(units).await;
}

/// Hosts a controller until cancelled: as much of it as the table gives this member.
async fn host(
    stage: Arc<Stage>,
    model: Controller,
    board: Arc<Board>,
    subject: Subject,
    (post, unit): (Arc<Post>, usize),
    (cancel, had): (CancellationToken, Arc<Had>),
) {
    let mut stand = post.stand();
    let round = Round { stage, model, board, subject, post, unit, cancel, had };
    let mut wait = RETRY.0;
    loop {
        let turned = stand.changed();
        match round.run(&mut wait).await {
            Ended::Cancelled => return,
            Ended::Turned => drop(turned),
            Ended::Again => {
                tokio::select! {
                    () = round.cancel.cancelled() => return,
                    _ = turned => {}
                    () = tokio::time::sleep(wait) => {}
                }
                wait = (wait * 2).min(RETRY.1);
            }
        }
    }
}

/// One try to do what the table wants, from the look at the kinds to the end.
pub(crate) struct Round {
    pub(crate) stage: Arc<Stage>,
    pub(crate) model: Controller,
    pub(crate) board: Arc<Board>,
    pub(crate) subject: Subject,
    pub(crate) post: Arc<Post>,
    /// Which of the declaration's kinds of parents these are.
    pub(crate) unit: usize,
    pub(crate) cancel: CancellationToken,
    /// What this member had of the controller.
    had: Arc<Had>,
}

impl Round {
    async fn run(&self, wait: &mut Duration) -> Ended {
        let mut stand = self.post.stand();
        let begun = *stand.borrow_and_update();
        if begun == Stand::Nothing {
            // Nothing is said before the table was seen: it may be this member's.
            let settled = async {
                self.stage.posts.settled().await;
                self.board.elsewhere();
                std::future::pending::<()>().await;
            };
            return tokio::select! {
                biased;
                () = self.cancel.cancelled() => Ended::Cancelled,
                _ = stand.changed() => Ended::Turned,
                () = settled => Ended::Turned,
            };
        }
        self.had.note(&self.model);
        match begun {
            Stand::Nothing | Stand::Warm(_) => {}
            Stand::Whole { .. } => self.board.here(true),
            Stand::Sharded { .. } => self.board.here(false),
        }
        let kinds = tokio::select! {
            () = self.cancel.cancelled() => return Ended::Cancelled,
            kinds = self.find_kinds() => kinds,
        };
        let Some((parent, children)) = kinds else { return Ended::Again };
        let kept = tokio::select! {
            () = self.cancel.cancelled() => return Ended::Cancelled,
            kept = self.is_kept() => kept,
        };
        if !kept {
            return Ended::Again;
        }
        let sharded = matches!(begun, Stand::Sharded { .. });
        let slot = Arc::new(OnceLock::new());
        let Some((routes, backends)) = self.routes(&slot) else { return Ended::Cancelled };
        self.step("Starting", format!("about to sync {parent}"));
        let (hosted, subscriptions) = self.subscribe(slot, routes, parent, children, sharded);
        let states: Vec<_> = subscriptions.iter().map(|subscription| subscription.shared().state()).collect();
        let mut kinds = Kinds { subscriptions, states };
        let served = async {
            let ended = if sharded {
                self.serve_shards(&hosted, &mut kinds, stand, wait).await
            } else {
                self.serve_whole(&hosted, &mut kinds, stand, begun, wait).await
            };
            // Its keys go first, then its running syncs end, then its watches.
            hosted.active.store(false, Ordering::Release);
            let is_started = self.stage.hosted.read().contains_key(&hosted.id);
            if is_started {
                self.step("Stopping", format!("running syncs of {} end", hosted.parent));
                self.stage.dispatch.forget(hosted.id).await;
                self.stage.hosted.write().remove(&hosted.id);
                info!(controller = %self.model.name, "stopped");
                self.step("Stopped", format!("no longer syncing {}", hosted.parent));
            }
            ended
        };
        tokio::select! {
            ended = served => ended,
            (never, ..) = select_all(backends.iter().map(|backend| Box::pin(backend.keep()))) => match never {},
        }
    }

    /// The ways to the hooks, and what keeps them informed; `None` if the declaration can't be used.
    fn routes(&self, slot: &Arc<OnceLock<Weak<Hosted>>>) -> Option<(Routes, Vec<Backend>)> {
        let watcher = Arc::new(Watcher {
            hosted: Arc::clone(slot),
            dispatch: Arc::clone(&self.stage.dispatch),
            tell: self.stage.tell.clone(),
        });
        let mut backends = Vec::new();
        let mut route = |name: &str, webhook: &Webhook| {
            let route = self.route(&watcher, name, webhook)?;
            backends.push(Backend::new(&self.stage.watches, webhook, Arc::clone(&route), Arc::clone(&watcher)));
            Some(route)
        };
        let sync = route("sync", &self.model.sync.webhook)?;
        let finalize = match &self.model.finalize {
            Some(hook) if hook.webhook == self.model.sync.webhook => Some(Arc::clone(&sync)),
            Some(hook) => Some(route("finalize", &hook.webhook)?),
            None => None,
        };
        let customize = match &self.model.customize {
            Some(hook) => {
                let others = [(Some(&self.model.sync), Some(&sync)), (self.model.finalize.as_ref(), finalize.as_ref())];
                let same =
                    others.into_iter().find(|(other, _)| other.is_some_and(|other| other.webhook == hook.webhook));
                match same {
                    Some((_, same)) => same.map(Arc::clone),
                    None => Some(route("customize", &hook.webhook)?),
                }
            }
            None => None,
        };
        Some((Routes { sync, finalize, customize }, backends))
    }

    fn route(&self, watcher: &Arc<Watcher>, name: &str, webhook: &Webhook) -> Option<Arc<Route>> {
        let (reply_limit, listener) = (self.stage.limits.body_bytes, Arc::clone(watcher));
        let route = self.stage.hooks.route(webhook, self.model.dialect.plain_http, reply_limit, listener);
        route.map_err(|error| self.reject(&format!("spec.hooks.{name}.{error}"))).ok()
    }

    /// Tells a step of its life, where no conditions do: under Metacontroller's reasons.
    fn step(&self, reason: &str, text: String) {
        if !self.model.dialect.conditions {
            self.stage.tell.event(self.subject.clone(), false, reason, text);
        }
    }

    fn reject(&self, text: &str) {
        warn!(controller = %self.model.name, "not accepted: {text}");
        self.stage.tell.event(self.subject.clone(), true, "CreateError", text.to_owned());
        self.board.reject(text.to_owned());
    }

    /// The parents' and the children's kinds, if all are served.
    async fn find_kinds(&self) -> Option<(Arc<Resource>, Vec<Arc<Resource>>)> {
        let rule = &self.model.parent;
        let field = self.model.parent_field();
        let parent = self.find(&field, "ParentKindNotServed", &rule.api_version, &rule.resource).await?;
        if !parent.status && !self.model.is_decorator() {
            self.stage.discovery.forget(&rule.api_version);
            let text = format!(
                "{field}: {parent} has no status subresource; add `subresources: {{status: {{}}}}` to its CRD, or take a \
                 DecoratorController if the kind is built in"
            );
            self.block("ParentHasNoStatus", text);
            return None;
        }
        let mut children = Vec::with_capacity(self.model.children.len());
        for (index, rule) in self.model.children.iter().enumerate() {
            let field = self.model.child_field(index);
            children.push(self.find(&field, "ChildKindNotServed", &rule.api_version, &rule.resource).await?);
        }
        if self.model.rolls() {
            let api_version = revision_api_version(self.model.dialect);
            children.push(self.find(ROLLING, "ChildKindNotServed", &api_version, REVISIONS).await?);
        }
        Some((parent, children))
    }

    async fn find(
        &self,
        field: &str,
        reason: &'static str,
        api_version: &ApiVersion,
        plural: &str,
    ) -> Option<Arc<Resource>> {
        match self.stage.discovery.find(api_version, plural).await {
            Ok(Some(resource)) => Some(resource),
            Ok(None) => {
                let text = format!(
                    "{field}: the API server doesn't serve {plural} in {api_version}; install its CRD, or correct the name (plural, lower case)"
                );
                self.block(reason, text);
                None
            }
            Err(error) => {
                self.block("DiscoveryFailing", format!("{field}: {error}"));
                None
            }
        }
    }

    /// The controller as a whole doesn't run for now.
    pub(crate) fn block(&self, reason: &'static str, text: String) {
        self.held_back();
        self.tell_blocked(reason, text);
    }

    /// Tells why it doesn't run, or not all of it.
    pub(crate) fn tell_blocked(&self, reason: &'static str, text: String) {
        let news = self.board.block(reason, text.clone());
        // An outage is told once for all, and no event could be posted.
        if news && reason != UNREACHABLE {
            warn!(controller = %self.model.name, reason, "not ready: {text}");
            self.stage.tell.event(self.subject.clone(), true, "CreateError", text);
        }
    }

    /// A controller that can't be warmed holds no hand-over back but its own.
    fn held_back(&self) {
        let stand = *self.post.stand().borrow();
        match stand {
            Stand::Nothing | Stand::Whole { label: None, .. } => {}
            Stand::Warm(epoch) => {
                self.done(Done::Warm(RowId::Controller(self.model.uid.clone()), epoch));
            }
            // What can't be labelled now is labelled once it is seen without.
            Stand::Whole { label: Some(epoch), .. } => {
                self.done(Done::Labelled(self.model.uid.clone(), epoch));
            }
            Stand::Sharded { .. } => self.post.set_warm(self.unit, &self.stage.posts, Shards::ALL),
        }
    }

    /// This part of the controller has done what the table asked for.
    pub(crate) fn done(&self, done: Done) {
        self.stage.posts.tell(&self.post, self.unit, done);
    }

    fn subscribe(
        &self,
        slot: Arc<OnceLock<Weak<Hosted>>>,
        routes: Routes,
        parent: Arc<Resource>,
        children: Vec<Arc<Resource>>,
        sharded: bool,
    ) -> (Arc<Hosted>, Vec<Subscription>) {
        let scope = |label: &'static str, all: Scope| if sharded { Scope::Sharded(label) } else { all };
        let (dispatch, labels, watches) = (&self.stage.dispatch, &self.stage.labels, &self.stage.watches);
        let listener =
            ParentRoute { hosted: Arc::clone(&slot), dispatch: Arc::clone(dispatch), labels: Arc::clone(labels) };
        let mut subscriptions =
            vec![watches.subscribe(Arc::clone(&parent), scope(SELF_LABEL, Scope::Everything), Arc::new(listener))];
        let mut strays = Vec::new();
        if sharded {
            let listener = StrayParents { hosted: Arc::clone(&slot), dispatch: Arc::clone(dispatch) };
            let selector = Shards::none_selector(SELF_LABEL);
            strays.push(watches.strays(Arc::clone(&parent), selector, Arc::new(listener)));
        }
        let mut kinds = Vec::with_capacity(children.len());
        // Revisions, behind the declared kinds, are never a plan's.
        let strategies = self.model.children.iter().map(|rule| rule.strategy).chain([UpdateStrategy::OnDelete]);
        for (kind, (resource, strategy)) in children.into_iter().zip(strategies).enumerate() {
            let listener = ChildRoute {
                hosted: Arc::clone(&slot),
                dispatch: Arc::clone(dispatch),
                labels: Arc::clone(labels),
                kind,
            };
            let subscription =
                watches.subscribe(Arc::clone(&resource), scope(OWNER_LABEL, Scope::Children), Arc::new(listener));
            let shared = Arc::clone(subscription.shared());
            let stray = if sharded {
                let listener = Arc::new(StrayChildren::new(Arc::clone(&slot), Arc::clone(dispatch), kind));
                let seen = Arc::clone(&listener) as Arc<dyn Stray>;
                strays.push(watches.strays(Arc::clone(&resource), format!("!{OWNER_LABEL}"), seen));
                Some(listener)
            } else {
                if !self.model.is_decorator() {
                    shared.index_orphans();
                }
                None
            };
            kinds.push(ChildKind { resource, strategy, shared, strays: stray });
            subscriptions.push(subscription);
        }
        let related = self.model.customize.is_some();
        let related =
            related.then(|| RelatedObjects::new(Arc::clone(&slot), Arc::clone(dispatch), Arc::clone(watches)));
        let hosted = Arc::new(Hosted {
            id: ControllerId(self.stage.next_id.fetch_add(1, Ordering::Relaxed)),
            model: self.model.clone(),
            about: self.subject.clone(),
            routes,
            parent,
            parents: Arc::clone(subscriptions[0].shared()),
            children: kinds,
            related,
            revisions: self
                .model
                .rolls()
                .then(|| Revisions { kind: self.model.children.len(), home: Arc::clone(&self.stage.namespace) }),
            metrics: Arc::new(self.stage.metrics.controller(&self.model)),
            board: Arc::clone(&self.board),
            active: AtomicBool::new(false),
            doubt: Notify::new(),
            labels: AtomicBool::new(false),
            sharded: sharded.then(Sharded::default),
            _strays: strays,
            index: Mutex::default(),
            notes: Mutex::default(),
        });
        // Set once, here; listeners see nothing before.
        let _ = slot.set(Arc::downgrade(&hosted));
        (hosted, subscriptions)
    }

    /// Looks at the watches: one whose kind isn't served any more ends the round; others that fail are told.
    pub(crate) fn judge(&self, states: &mut [watch::Receiver<State>], running: bool) -> Option<Ended> {
        let mut trouble = None;
        for (index, state) in states.iter_mut().enumerate() {
            let State::Troubled(reason, text, not_served) = &*state.borrow_and_update() else { continue };
            let (field, api_version, missing) = self.kind_at(index);
            if *not_served {
                self.stage.discovery.forget(&api_version);
                self.block(missing, format!("{field}: {text}"));
                return Some(Ended::Again);
            }
            trouble = Some((*reason, format!("{field} can't be watched: {text}")));
        }
        match trouble {
            Some(("Forbidden", text)) => {
                self.block("Forbidden", format!("{text}; grant get, list and watch to Ringmaster's account"));
            }
            Some((UNREACHABLE, text)) => {
                self.block(UNREACHABLE, format!("{text}; until it is reached again the cache may be old"));
            }
            Some((_, text)) => self.block("WatchFailing", text),
            None if running => drop(self.board.run(std::sync::Weak::new())),
            None => {}
        }
        None
    }

    /// Where the kind of a watch is declared, its group and version, and the reason if it isn't served.
    fn kind_at(&self, index: usize) -> (String, ApiVersion, &'static str) {
        let Some(child) = index.checked_sub(1) else {
            return (self.model.parent_field(), self.model.parent.api_version.clone(), "ParentKindNotServed");
        };
        let (field, api_version) = match self.model.children.get(child) {
            Some(rule) => (self.model.child_field(child), rule.api_version.clone()),
            None => (ROLLING.to_owned(), revision_api_version(self.model.dialect)),
        };
        (field, api_version, "ChildKindNotServed")
    }

    /// Changes lead to syncs from now on.
    pub(crate) fn start(&self, hosted: &Arc<Hosted>) {
        self.stage.hosted.write().insert(hosted.id, Arc::clone(hosted));
        let lanes = Lanes { parents: Arc::clone(&hosted.parent), bound: self.model.syncs_per_shard };
        self.stage.dispatch.register(hosted.id, lanes, Arc::clone(&hosted.metrics));
        hosted.active.store(true, Ordering::Release);
        self.board.run(Arc::downgrade(hosted));
        self.stage.tell.event(self.subject.clone(), false, "Started", format!("syncing {}", hosted.parent));
        // What was read before was told to nobody.
        self.stage.tell.credentials(hosted);
    }

    /// Every parent that this member has just become the owner of, is indexed and queued.
    pub(crate) fn begin(&self, hosted: &Hosted, is_new: impl Fn(&ObjectKey) -> bool, delayed: bool) {
        let parents: Vec<_> = hosted.parents.store().iter().filter(|parent| is_new(parent.key())).cloned().collect();
        let mut keys = Vec::with_capacity(parents.len());
        for new in parents {
            if hosted.concerns(&new) {
                keys.push(hosted.key(new.key()));
            }
            index_parent(hosted, &Change::Applied { old: None, new });
        }
        if hosted.sharded.is_some() {
            take_turns(&mut keys, |key| shard(&hosted.parent, &key.parent));
        }
        // What went while nobody watched leaves no trace.
        hosted.board.retain(|parent| !is_new(parent) || hosted.has(parent));
        info!(controller = %self.model.name, parents = keys.len(), hook = hosted.hook_url(false), "started");
        if delayed {
            warn!(controller = %self.model.name, "its last members died at this work: it begins with a delay");
            self.stage.dispatch.add_spread(keys, DELAYED_BEGIN);
        } else {
            self.stage.dispatch.add_all(keys.into_iter(), Priority::Background);
        }
    }

    /// Looks the kinds up again; tells whether one isn't there any more, or isn't what it was.
    pub(crate) async fn kinds_changed(&self, hosted: &Hosted) -> bool {
        let children = hosted.children.iter().map(|child| &child.resource);
        let kinds: Vec<&Arc<Resource>> = std::iter::once(&hosted.parent).chain(children).collect();
        kinds.iter().for_each(|kind| self.stage.discovery.forget(&kind.api_version));
        for kind in kinds {
            let found = self.stage.discovery.find(&kind.api_version, &kind.plural).await;
            // Whoever can't be asked proves nothing.
            if found.is_ok_and(|found| found.is_none_or(|found| found != *kind)) {
                return true;
            }
        }
        false
    }

    /// All watches are informed, and were before: what was wrong in between is over.
    pub(crate) fn well_again(&self, hosted: &Arc<Hosted>) {
        let Some(reason) = self.board.run(Arc::downgrade(hosted)) else { return };
        // What the API server has refused meanwhile waits for up to a minute; its cause is most likely the one that has
        // just gone. What fails by its hook waits on.
        let failing = self.board.failing_by(Cause::Api);
        let keys = failing.iter().map(|parent| hosted.key(parent));
        self.stage.dispatch.add_all(keys, Priority::Background);
        if reason != UNREACHABLE {
            info!(controller = %self.model.name, "ready again");
            self.stage.tell.event(
                self.subject.clone(),
                false,
                "Recovered",
                "all its kinds are watched again, and its caches are right".to_owned(),
            );
        }
    }
}

/// One of each shard before the second of any: none of them waits for another to be done.
fn take_turns(keys: &mut [SyncKey], shard: impl Fn(&SyncKey) -> u8) {
    let mut of_shard = [0_u32; SHARDS];
    keys.sort_by_cached_key(|key| {
        let turn = &mut of_shard[usize::from(shard(key))];
        *turn += 1;
        *turn
    });
}

/// Waits for a moment; for ever if there is none.
pub(crate) async fn at(moment: Option<Instant>) {
    match moment {
        Some(moment) => tokio::time::sleep_until(moment.into()).await,
        None => std::future::pending().await,
    }
}

pub(crate) async fn any_changed(states: &mut [watch::Receiver<State>]) {
    // The senders live as long as the subscriptions do, which outlive this wait.
    let _ = select_all(states.iter_mut().map(|state| Box::pin(state.changed()))).await;
}
