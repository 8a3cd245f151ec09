//! One hosted controller: its model, its watches, what is known of its hook and of single parents.
//!
//! Never calls a hook and never writes; see `sync`.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use foldhash::fast::FixedState;
use parking_lot::{Mutex, RwLock};
use ringmaster_cluster::Subject;
use ringmaster_core::cache::SelectorIndex;
use ringmaster_core::controller::{Controller, UpdateStrategy};
use ringmaster_core::endpoints::{Source, Standing};
use ringmaster_core::hash::shard;
use ringmaster_core::key::{ControllerId, ObjectKey, Resource, SyncKey, Uid, Version};
use ringmaster_core::object::Object;
use ringmaster_core::plan::contest::Contest;
use ringmaster_core::plan::decorator::attaches;
use ringmaster_core::plan::{Phase, phase};
use ringmaster_core::rollout::is_of;
use ringmaster_core::shards::Shards;
use ringmaster_hooks::Route;
use tokio::sync::Notify;

use crate::clock::boot_time;
use crate::metrics::ControllerMetrics;
use crate::related::RelatedObjects;
use crate::strays::StraySubscription;
use crate::streams::Shared;
use crate::unlabelled::StrayChildren;

/// A controller that runs.
pub(crate) struct Hosted {
    /// Its number in the queue.
    pub(crate) id: ControllerId,
    /// What was declared.
    pub(crate) model: Controller,
    /// As which events tell of it.
    pub(crate) about: Subject,
    /// The ways to its hooks.
    pub(crate) routes: Routes,
    /// The parents' kind.
    pub(crate) parent: Arc<Resource>,
    /// The parents.
    pub(crate) parents: Arc<Shared>,
    /// The declared kinds of children, in their order; then that of revisions, if the controller rolls.
    pub(crate) children: Vec<ChildKind>,
    /// If it has a customize hook: what its parents are related to.
    pub(crate) related: Option<RelatedObjects>,
    /// Of a controller that rolls.
    pub(crate) revisions: Option<Revisions>,
    /// What is counted of it.
    pub(crate) metrics: Arc<ControllerMetrics>,
    /// What its status is made of.
    pub(crate) board: Arc<crate::status::Board>,
    /// Whether all its watches are informed, so that changes lead to syncs.
    pub(crate) active: AtomicBool,
    /// A call was answered as if a kind weren't what it was when it was found.
    pub(crate) doubt: Notify,
    /// It is a whole that becomes sharded: what it writes has labels already.
    pub(crate) labels: AtomicBool,
    /// What a sharded controller knows beside; `None` for a whole.
    pub(crate) sharded: Option<Sharded>,
    /// Streams of objects without labels, for as long as it runs.
    pub(crate) _strays: Vec<StraySubscription>,
    pub(crate) index: Mutex<ParentIndex>,
    pub(crate) notes: Mutex<HashMap<ObjectKey, Note, FixedState>>,
}

/// Where a controller that rolls keeps the states of its parents.
pub(crate) struct Revisions {
    /// Index into [`Hosted::children`], past the declared kinds: hooks never see it.
    pub(crate) kind: usize,
    /// The namespace for those of cluster-scoped parents.
    pub(crate) home: Arc<str>,
}

/// The ways to a controller's hooks.
pub(crate) struct Routes {
    pub(crate) sync: Arc<Route>,
    /// The same one, where both hooks are one webhook.
    pub(crate) finalize: Option<Arc<Route>>,
    /// That of another hook, where both are one webhook.
    pub(crate) customize: Option<Arc<Route>>,
}

impl Routes {
    /// The way to the hook for a parent that is finalized, or not; see [`Controller::hook`].
    pub(crate) fn of(&self, finalizing: bool) -> &Arc<Route> {
        self.finalize.as_ref().filter(|_| finalizing).unwrap_or(&self.sync)
    }

    /// Whether one of them leads a shard to the endpoint of this name.
    pub(crate) fn lead_to(&self, shard: u8, endpoint: &str) -> bool {
        self.all().any(|route| route.leads_to(shard, endpoint))
    }

    /// What is known of the endpoints: of the first hook that isn't well, or of the sync hook.
    pub(crate) fn standing(&self) -> Standing {
        let ill = self.all().map(|route| route.standing()).find(|standing| standing.condition().0 != "True");
        ill.unwrap_or_else(|| self.sync.standing())
    }

    /// What is wrong with what TLS needs and with what calls carry, each cause once; `None` while that wasn't read yet.
    pub(crate) fn bad_credentials(&self) -> Option<BTreeSet<String>> {
        let standings: Vec<Standing> = self.all().map(|route| route.standing()).collect();
        let is_unread = |standing: &Standing| standing.source == Source::Unknown && standing.credentials.is_none();
        if standings.iter().any(is_unread) {
            return None;
        }
        Some(standings.into_iter().filter_map(|standing| standing.credentials).collect())
    }

    fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        std::iter::once(&self.sync).chain(&self.finalize).chain(&self.customize)
    }
}

/// One declared kind of children.
pub(crate) struct ChildKind {
    /// The kind.
    pub(crate) resource: Arc<Resource>,
    /// What happens to a child that differs.
    pub(crate) strategy: UpdateStrategy,
    /// Its objects.
    pub(crate) shared: Arc<Shared>,
    /// Of a sharded controller: what is known of objects without an owner's label.
    pub(crate) strays: Option<Arc<StrayChildren>>,
}

/// What is known of a sharded controller's part on this member.
#[derive(Default)]
pub(crate) struct Sharded {
    /// The shards whose parents are synced here.
    started: RwLock<Shards>,
    /// Parents of those shards that lack their label: as they were seen (metadata only), and since when.
    unlabelled: Mutex<HashMap<ObjectKey, Unlabelled, FixedState>>,
    /// Parents whose older children without a label were looked for.
    searched: Mutex<HashSet<ObjectKey, FixedState>>,
}

/// A parent without its label.
#[derive(Clone)]
pub(crate) struct Unlabelled {
    /// As it was seen, if it is known to be one of the controller's (metadata only); else it is read first.
    pub(crate) seen: Option<Arc<Object>>,
    /// The version without the label.
    pub(crate) version: Version,
    since: Instant,
}

/// How an orphan finds the parents that may adopt it.
#[derive(Default)]
pub(crate) struct ParentIndex {
    /// By their selectors.
    pub(crate) selectors: SelectorIndex,
    /// By uid, where children are selected by it.
    pub(crate) by_uid: HashMap<Uid, ObjectKey, FixedState>,
}

/// A write from its begin to its answer. A sync that is cut off drops it in between.
pub(crate) struct BegunWrite<'a> {
    hosted: &'a Hosted,
    parent: &'a ObjectKey,
    kind: Option<usize>,
    object: &'a ObjectKey,
    has_ended: bool,
}

impl BegunWrite<'_> {
    /// There is an answer, or an error that tells what is known.
    pub(crate) fn ended(mut self) {
        self.has_ended = true;
    }
}

impl Drop for BegunWrite<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.hosted.note_unknown(self.parent, self.kind, self.object);
        }
    }
}

/// What must be remembered of a parent between two syncs; most have nothing.
#[derive(Default)]
pub(crate) struct Note {
    /// Objects whose last write had no known outcome: index of the child kind (`None` for the parent itself) and key.
    pub(crate) unknown: BTreeSet<(Option<usize>, ObjectKey)>,
    /// The parent that the hook refused for good; no call until it changes.
    pub(crate) terminal: Option<Arc<Object>>,
    /// How often in a row the hook asked to be called later.
    postponed: u32,
    /// The parent for which the hook's answers change something at every call, and how many of them did so far.
    restless: Option<(Arc<Object>, u32)>,
    /// By which the events are known again that the hook wanted last, if it wanted any.
    said: Option<u64>,
    /// The children that it adopted or released lately.
    contest: Contest,
}

impl Note {
    fn is_empty(&self) -> bool {
        let is_well = self.unknown.is_empty() && self.terminal.is_none() && self.postponed == 0;
        is_well && self.restless.is_none() && self.said.is_none() && self.contest.is_empty()
    }
}

impl Hosted {
    /// The queue's key for a parent.
    pub(crate) fn key(&self, parent: &ObjectKey) -> SyncKey {
        SyncKey { controller: self.id, parent: parent.clone() }
    }

    /// The kinds of children that were declared.
    pub(crate) fn declared(&self) -> &[ChildKind] {
        let end = self.revisions.as_ref().map_or(self.children.len(), |revisions| revisions.kind);
        self.children.get(..end).unwrap_or_default()
    }

    /// Whether an orphan of this kind may be a parent's, whatever its labels: a revision only where it was one of this
    /// controller.
    pub(crate) fn may_adopt(&self, child: &ChildKind, orphan: &Object) -> bool {
        let revisions = self.revisions.as_ref().and_then(|revisions| self.children.get(revisions.kind));
        !revisions.is_some_and(|kind| std::ptr::eq(kind, child)) || is_of(&self.model, orphan)
    }

    /// The shard of a parent, if the controller is sharded.
    pub(crate) fn shard(&self, parent: &ObjectKey) -> Option<u8> {
        self.sharded.as_ref().map(|_| shard(&self.parent, parent))
    }

    /// The number that children are labelled with, if they are.
    pub(crate) fn label(&self, parent: &ObjectKey) -> Option<u8> {
        let labels = self.sharded.is_some() || self.labels.load(Ordering::Acquire);
        labels.then(|| shard(&self.parent, parent))
    }

    /// Whether a parent's syncs are this member's: always true of a whole that runs here.
    pub(crate) fn holds(&self, parent: &ObjectKey) -> bool {
        let Some(sharded) = &self.sharded else { return true };
        sharded.started.read().contains(shard(&self.parent, parent))
    }

    /// The shards whose parents are synced here.
    pub(crate) fn started(&self) -> Shards {
        self.sharded.as_ref().map_or(Shards::ALL, |sharded| *sharded.started.read())
    }

    /// From now on the parents of these shards are synced here.
    pub(crate) fn start_shards(&self, shards: &Shards) {
        if let Some(sharded) = &self.sharded {
            let mut started = sharded.started.write();
            *started = started.union(shards);
        }
    }

    /// From now on they aren't; what was noted of their parents is forgotten.
    pub(crate) fn stop_shards(&self, shards: &Shards) {
        let Some(sharded) = &self.sharded else { return };
        {
            let mut started = sharded.started.write();
            *started = started.difference(shards);
        }
        let stays = |parent: &ObjectKey| !shards.contains(shard(&self.parent, parent));
        {
            let mut index = self.index.lock();
            for parent in self.parents.store().iter().filter(|parent| !stays(parent.key())) {
                index.by_uid.remove(parent.uid());
                index.selectors.set(parent.key(), None);
            }
        }
        sharded.unlabelled.lock().retain(|parent, _| stays(parent));
        sharded.searched.lock().retain(|parent| stays(parent));
        self.notes.lock().retain(|parent, _| stays(parent));
        if let Some(related) = &self.related {
            related.retain(stays);
        }
        self.board.retain(stays);
    }

    /// A parent of a shard that is synced here lacks its label. `seen` is the parent if it is known to
    /// be one of the controller's (metadata only); else it is read first.
    pub(crate) fn note_unlabelled(&self, parent: &ObjectKey, version: Version, seen: Option<&Arc<Object>>) {
        let Some(sharded) = &self.sharded else { return };
        let mut unlabelled = sharded.unlabelled.lock();
        let new = || Unlabelled { seen: None, version, since: Instant::now() };
        let known = unlabelled.entry(parent.clone()).or_insert_with(new);
        if version.is_before(known.version) {
            return;
        }
        known.version = version;
        if let Some(seen) = seen {
            known.seen = Some(Arc::clone(seen));
        }
    }

    /// The parent without its label; `None` if it doesn't lack it, as far as is known.
    pub(crate) fn unlabelled(&self, parent: &ObjectKey) -> Option<Unlabelled> {
        self.sharded.as_ref()?.unlabelled.lock().get(parent).cloned()
    }

    /// The keys of all parents that lack their label.
    pub(crate) fn unlabelled_keys(&self) -> Vec<SyncKey> {
        let Some(sharded) = &self.sharded else { return Vec::new() };
        sharded.unlabelled.lock().keys().map(|parent| self.key(parent)).collect()
    }

    /// It has its label in this version, or was gone by then. A newer one that was seen without it stays noted: streams
    /// are no answer to each other, and it may have lost its label again.
    pub(crate) fn labelled(&self, parent: &ObjectKey, version: Version) {
        let Some(sharded) = &self.sharded else { return };
        let mut unlabelled = sharded.unlabelled.lock();
        if unlabelled.get(parent).is_some_and(|known| !version.is_before(known.version)) {
            unlabelled.remove(parent);
        }
    }

    /// Forgets notes of parents in shards that aren't started.
    pub(crate) fn forget_unlabelled(&self) {
        let Some(sharded) = &self.sharded else { return };
        let started = *sharded.started.read();
        sharded.unlabelled.lock().retain(|parent, _| started.contains(shard(&self.parent, parent)));
    }

    /// Parents that lack their label, and for how long the first of them has.
    pub(crate) fn unlabelled_count(&self) -> (usize, Duration) {
        let Some(sharded) = &self.sharded else { return (0, Duration::ZERO) };
        let unlabelled = sharded.unlabelled.lock();
        let oldest = unlabelled.values().map(|parent| parent.since.elapsed()).max();
        (unlabelled.len(), oldest.unwrap_or_default())
    }

    /// Whether the older children of a parent are still to be looked for.
    pub(crate) fn must_search(&self, parent: &ObjectKey) -> bool {
        self.sharded.as_ref().is_some_and(|sharded| !sharded.searched.lock().contains(parent))
    }

    /// They were, while the parent was this member's.
    pub(crate) fn searched(&self, parent: &ObjectKey) {
        if let Some(sharded) = &self.sharded {
            let started = sharded.started.read();
            if started.contains(shard(&self.parent, parent)) {
                sharded.searched.lock().insert(parent.clone());
            }
        }
    }

    /// They are to be looked for again.
    pub(crate) fn search_again(&self, parent: &ObjectKey) {
        if let Some(sharded) = &self.sharded {
            sharded.searched.lock().remove(parent);
        }
    }

    /// Whether a parent is one of this controller's: it is selected, or waits for the controller's finalizer.
    pub(crate) fn concerns(&self, parent: &Object) -> bool {
        phase(&self.model, parent) != Phase::Foreign
    }

    /// Whether a parent is finalized instead of synced.
    pub(crate) fn finalizes(&self, parent: &Object) -> bool {
        phase(&self.model, parent) == Phase::Finalize
    }

    /// Whether a parent has the labels and annotations that are asked for.
    pub(crate) fn selects(&self, parent: &Object) -> bool {
        self.model.parent.selects(parent)
    }

    /// Whether an object that a parent controls is this controller's to manage.
    pub(crate) fn attaches(&self, child: &Object) -> bool {
        attaches(&self.model, child)
    }

    /// The keys of all its parents.
    pub(crate) fn parent_keys(&self) -> Vec<SyncKey> {
        let store = self.parents.store();
        let mine = |parent: &&Arc<Object>| self.concerns(parent) && self.holds(parent.key());
        store.iter().filter(mine).map(|parent| self.key(parent.key())).collect()
    }

    /// How many parents it has.
    pub(crate) fn parent_count(&self) -> usize {
        let store = self.parents.store();
        if self.model.parent.selects_everything() && self.sharded.is_none() {
            return store.len();
        }
        store.iter().filter(|parent| self.concerns(parent) && self.holds(parent.key())).count()
    }

    /// A hook's URL, or the first of several, for people.
    pub(crate) fn hook_url(&self, finalizing: bool) -> String {
        url(self.routes.of(finalizing))
    }

    /// Watches of related objects, and the objects and bytes in them.
    pub(crate) fn related_totals(&self) -> (usize, usize, usize) {
        self.related.as_ref().map(RelatedObjects::totals).unwrap_or_default()
    }

    /// Whether changes lead to syncs.
    pub(crate) fn is_active(&self) -> bool {
        self.active.load(Ordering::Acquire)
    }

    /// Where orphans of a parent may lie: its namespace, or anywhere for a cluster-scoped parent.
    pub(crate) fn orphan_namespace<'a>(&self, parent: &'a ObjectKey) -> Option<&'a str> {
        self.parent.namespaced.then(|| parent.namespace())
    }

    /// How long a child is to be left alone that goes to and fro between controllers of this parent; `None` if it needn't.
    pub(crate) fn contested(&self, parent: &ObjectKey, child: &ObjectKey) -> Option<Duration> {
        self.notes.lock().get(parent)?.contest.pause(child, boot_time())
    }

    /// Notes that a child was adopted or released.
    pub(crate) fn note_claim(&self, parent: &ObjectKey, child: &ObjectKey) {
        self.notes.lock().entry(parent.clone()).or_default().contest.claimed(child, boot_time());
    }

    /// Notes that an object must be read before the next sync.
    pub(crate) fn note_unknown(&self, parent: &ObjectKey, kind: Option<usize>, object: &ObjectKey) {
        let mut notes = self.notes.lock();
        notes.entry(parent.clone()).or_default().unknown.insert((kind, object.clone()));
    }

    /// A write of an object begins: unless it is known to have ended, the object is read before the next sync.
    pub(crate) fn begin_write<'a>(
        &'a self,
        parent: &'a ObjectKey,
        kind: Option<usize>,
        object: &'a ObjectKey,
    ) -> BegunWrite<'a> {
        BegunWrite { hosted: self, parent, kind, object, has_ended: false }
    }

    /// What must be read before the next sync.
    pub(crate) fn unknown(&self, parent: &ObjectKey) -> Vec<(Option<usize>, ObjectKey)> {
        self.notes.lock().get(parent).map(|note| note.unknown.iter().cloned().collect()).unwrap_or_default()
    }

    /// It was read.
    pub(crate) fn known(&self, parent: &ObjectKey, kind: Option<usize>, object: &ObjectKey) {
        let mut notes = self.notes.lock();
        if let Some(note) = notes.get_mut(parent) {
            note.unknown.remove(&(kind, object.clone()));
            if note.is_empty() {
                notes.remove(parent);
            }
        }
    }

    /// The hook refused the parent for good.
    pub(crate) fn refused(&self, parent: Arc<Object>) {
        let key = parent.key().clone();
        self.notes.lock().entry(key).or_default().terminal = Some(parent);
    }

    /// The hook asked to be called later; says how often in a row.
    pub(crate) fn postponed(&self, parent: &ObjectKey) -> u32 {
        let mut notes = self.notes.lock();
        let note = notes.entry(parent.clone()).or_default();
        note.postponed = note.postponed.saturating_add(1);
        note.postponed
    }

    /// The hook answered: it neither refuses the parent nor asks for time.
    pub(crate) fn answered(&self, parent: &ObjectKey) {
        let mut notes = self.notes.lock();
        if let Some(note) = notes.get_mut(parent) {
            (note.terminal, note.postponed) = (None, 0);
            if note.is_empty() {
                notes.remove(parent);
            }
        }
    }

    /// One more sync in a row wrote something, although the last ones already did; says how many have since the parent
    /// itself changed last.
    pub(crate) fn restless(&self, parent: &Arc<Object>) -> u32 {
        let mut notes = self.notes.lock();
        let note = notes.entry(parent.key().clone()).or_default();
        let known = note.restless.take().filter(|(known, _)| parent.differs_in_status_only(known));
        let count = known.map_or(0, |(_, count)| count).saturating_add(1);
        note.restless = Some((Arc::clone(parent), count));
        count
    }

    /// A sync found all as it shall be.
    pub(crate) fn at_rest(&self, parent: &ObjectKey) {
        let mut notes = self.notes.lock();
        if let Some(note) = notes.get_mut(parent) {
            note.restless = None;
            if note.is_empty() {
                notes.remove(parent);
            }
        }
    }

    /// The hook wants these events on the parent, or none; says whether they are others than it wanted last.
    pub(crate) fn says_anew(&self, parent: &ObjectKey, events: Option<u64>) -> bool {
        let mut notes = self.notes.lock();
        if events.is_some() {
            return std::mem::replace(&mut notes.entry(parent.clone()).or_default().said, events) != events;
        }
        if let Some(note) = notes.get_mut(parent) {
            note.said = None;
            if note.is_empty() {
                notes.remove(parent);
            }
        }
        false
    }

    /// Whether the hook refused this state of the parent for good.
    pub(crate) fn is_terminal(&self, parent: &Object) -> bool {
        let notes = self.notes.lock();
        let refused = notes.get(parent.key()).and_then(|note| note.terminal.as_ref());
        refused.is_some_and(|refused| parent.differs_in_status_only(refused))
    }

    /// Parents that the hook refused for good.
    pub(crate) fn terminal_count(&self) -> usize {
        self.notes.lock().values().filter(|note| note.terminal.is_some()).count()
    }

    /// Whether a parent is there, and is one of this controller's.
    pub(crate) fn has(&self, parent: &ObjectKey) -> bool {
        self.parents.store().get(parent).is_some_and(|parent| self.concerns(parent))
    }

    /// The parent is gone, or isn't this controller's any more.
    pub(crate) fn forget_notes(&self, parent: &ObjectKey) {
        self.notes.lock().remove(parent);
        self.board.not_failing(parent);
        self.search_again(parent);
        if let Some(related) = &self.related {
            related.forget(parent);
        }
    }
}

/// A route's URL, or the first of several, for people.
pub(crate) fn url(route: &Route) -> String {
    match route.uris() {
        [] => String::new(),
        [one] => one.to_string(),
        [first, others @ ..] => format!("{first} and {} more", others.len()),
    }
}
