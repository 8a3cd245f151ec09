//! One ring: looks at what has changed on its board, does what the plan says, and lists its objects when the shards have
//! changed.
//!
//! Never decides what becomes of an object: `look` asks core. One task has all of it; whatever it calls for runs beside it
//! and comes back as a result.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use ringmaster_cluster::{Client, Error, boot_time};
use ringmaster_core::key::{Resource, Uid};
use ringmaster_core::object::Object;
use ringmaster_core::ring::pace::{Calm, Lane, Opening, Pace};
use ringmaster_core::ring::plan::Why;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use self::calls::{WEIGH_PERIOD, pause, write};
use crate::answers::Answering;
use crate::board::{Board, Id, Item, Mark, OwnerSeen, Place};
use crate::feed;
use crate::hashes::Hashes;
use crate::look::{Eyes, Planned, Verdict, What};
use crate::pass::{MAX_FOUND, Owner, Passed};
use crate::registry::Right;
use crate::scope::{Kind, Scope, Source};
use crate::shards::Shards;
use crate::told::{Draft, Told};

mod calls;

/// All objects are looked at so often (contract, 1.12: `syncPeriod`).
const SYNC_PERIOD: Duration = Duration::from_secs(300);
/// A pass or a search that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(5);
/// After a pass in which some kind couldn't be listed, all are looked at again after this.
const FAILED_PERIOD: Duration = Duration::from_secs(30);
/// While objects leave a ring, all are looked at so often.
const LEAVING_PERIOD: Duration = Duration::from_secs(2);
/// Objects that are looked at before anything else is.
const MAX_LOOKED: usize = 2_000;
/// How often it is told how the ring is, at most.
const TELL_PERIOD: Duration = Duration::from_secs(1);
/// After this it is told of a ring though its shards or namespaces aren't known.
const KNOWN_WITHIN: Duration = Duration::from_secs(5);

/// What has come of a call.
enum Done {
    Wrote { id: Id, what: What, from: Option<Arc<str>>, to: Option<Arc<str>>, outcome: Outcome },
    Read { id: Id, read: Result<Option<Object>, Error> },
    ReadOwner { child: Id, read: Result<Option<Object>, Error>, uid: Uid, kind: usize },
    Passed(Passed),
    Searched(Vec<Owner>, Vec<(usize, Error)>),
    Told(Draft, Result<(), Error>),
}

/// What has come of a write.
enum Outcome {
    /// It was made: the object afterwards.
    Made(Object),
    /// It wasn't, since the object is another by now: what it is.
    Instead(Object),
    /// The object is gone.
    Gone,
    Failed(Error),
}

impl Outcome {
    /// Nothing was written: what a read found.
    fn of_read(read: Result<Option<Object>, Error>) -> Self {
        match read {
            Ok(Some(object)) => Self::Instead(object),
            Ok(None) => Self::Gone,
            Err(error) => Self::Failed(error),
        }
    }
}

/// Why a ring stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// It was told to.
    Cancelled,
    /// No object has a label that it shall not have.
    Done,
    /// A kind isn't served as it was.
    Lost,
}

/// A running ring.
pub(crate) struct Running {
    pub(crate) scope: Arc<Scope>,
    pub(crate) client: Client,
    pub(crate) right: Arc<dyn Right>,
    pub(crate) shards: Arc<Shards>,
    pub(crate) tasks: TaskTracker,
    pub(crate) told: Told,
    /// The admission webhook is told by it.
    pub(crate) answering: Answering,
}

struct State {
    hashes: Hashes,
    pace: Pace<Id>,
    calm: Calm,
    opening: Opening,
    opens_at: Option<Duration>,
    actions: FuturesUnordered<BoxFuture<'static, Done>>,
    /// When some objects are to be looked at again.
    timers: BTreeSet<(Duration, Id)>,
    /// Main objects whose children are to be searched for, and not before when.
    searches: BTreeSet<Id>,
    is_searching: bool,
    search_at: Duration,
    /// Objects that are to be read.
    unseen: BTreeSet<Id>,
    /// Children whose owners are to be read.
    reads: BTreeSet<Id>,
    reading: usize,
    /// When all objects are looked at next.
    pass_at: Duration,
    weigh_at: Duration,
    is_passing: bool,
    is_cut: bool,
    /// Objects that a pass found to leave the ring; `None` before the first.
    leaving: Option<usize>,
    /// The shards whose objects aren't watched, and what ends the watches.
    watched: Option<(BTreeSet<Arc<str>>, CancellationToken)>,
    /// Each namespace, and whether it is selected, and as of which news.
    selected: Option<BTreeMap<Arc<str>, bool>>,
    selected_at: u64,
    /// All that happens to the Leases is seen.
    sees: bool,
    told_at: Duration,
}

impl State {
    /// Whether another pass may find something that is new.
    fn has_room(&self, board: &Board) -> bool {
        self.selected.is_some() && (!self.is_cut || board.found() < MAX_FOUND / 2)
    }
}

impl Running {
    /// Runs until cancelled; ends by itself once a ring that is being deleted has no label left anywhere, or no object of a
    /// kind that it doesn't name any more has one.
    pub(crate) async fn run(&mut self, cancel: CancellationToken) -> End {
        let model = &self.scope.model;
        let is_left = |kind: &Kind| self.scope.model.is_deleting || kind.is_former;
        let left: BTreeSet<usize> =
            self.scope.kinds.iter().enumerate().filter(|(_, kind)| is_left(kind)).map(|(kind, _)| kind).collect();
        let ends = model.is_deleting || !left.is_empty();
        let mut state = State {
            hashes: Hashes::new(model.hash),
            pace: Pace::new(&model.pace),
            calm: Calm::new(model.pace),
            opening: Opening::default(),
            opens_at: None,
            actions: FuturesUnordered::new(),
            timers: BTreeSet::new(),
            searches: BTreeSet::new(),
            is_searching: false,
            search_at: Duration::ZERO,
            unseen: BTreeSet::new(),
            reads: BTreeSet::new(),
            reading: 0,
            pass_at: Duration::ZERO,
            weigh_at: boot_time().saturating_add(WEIGH_PERIOD),
            is_passing: false,
            is_cut: false,
            leaving: None,
            watched: None,
            selected: None,
            selected_at: 0,
            sees: true,
            told_at: Duration::ZERO,
        };
        let (watches, begun) = (cancel.child_token(), boot_time());
        for (kind, _) in self.scope.kinds.iter().enumerate().filter(|(kind, _)| self.scope.is_main(*kind)) {
            let what = (kind, Mark::Draining);
            feed::start(
                (&self.client, &self.tasks),
                &self.scope,
                what,
                self.scope.drain_label.clone(),
                watches.clone(),
            );
        }
        let (mut leases, mut namespaces) = (self.shards.news(), self.scope.namespaces.news());
        let end = loop {
            leases.mark_unchanged();
            namespaces.mark_unchanged();
            let now = boot_time();
            // Without either, nothing can be said of any object.
            if self.shards.is_known() && self.observe(&mut state, now, &watches) {
                self.answering.tell(&mut state.hashes);
                self.look_at_news(&mut state, now);
                self.launch(&mut state, now);
                self.read(&mut state, now);
            }
            if now >= state.told_at.saturating_add(TELL_PERIOD) {
                state.told_at = now;
                let (summary, moves) = (self.shards.summary(now), (state.pace.counts(), state.hashes.made()));
                // Shards that weren't looked for yet aren't none.
                let is_known = self.shards.is_known() && state.selected.is_some();
                if (is_known || now >= begun.saturating_add(KNOWN_WITHIN))
                    && let Some(draft) = self.told.tell((&self.scope, now), summary, moves)
                {
                    let writing = self.told.writing(&self.client, &*self.right, &draft);
                    state.actions.push(writing.map(|written| Done::Told(draft, written)).boxed());
                }
            }
            if ends && state.leaving == Some(0) && !self.scope.board.lock().has_labels(|id| left.contains(&id.kind)) {
                info!(ring = %self.scope.model.name, "no object that left the ring has a label of it any more");
                break End::Done;
            }
            if self.scope.is_lost.load(Ordering::Relaxed) {
                break End::Lost;
            }
            let wake = self.wake_at(&state, now);
            tokio::select! {
                () = cancel.cancelled() => break End::Cancelled,
                Some(done) = state.actions.next(), if !state.actions.is_empty() => self.done(&mut state, done),
                () = self.scope.news.notified() => {}
                _ = leases.changed() => {}
                _ = namespaces.changed() => {}
                () = tokio::time::sleep_until(Instant::now() + wake.saturating_sub(now)) => {}
            }
        };
        watches.cancel();
        end
    }

    /// Sees who the shards are and what is selected; tells whether both are known.
    fn observe(&self, state: &mut State, now: Duration, watches: &CancellationToken) -> bool {
        let news = *self.scope.namespaces.news().borrow();
        if state.selected.is_none() || news != state.selected_at {
            let Some(selected) = self.scope.namespaces.selected(&self.scope.model) else { return false };
            state.selected_at = news;
            self.select(state, now, selected);
        }
        let sees = self.shards.sees(now);
        if sees && !state.sees {
            // What waited for that has no other moment.
            self.scope.board.lock().touch_all();
        }
        state.sees = sees;
        let mut available = self.shards.available(now);
        state.opens_at = state.opening.observe(now, &available);
        if state.opens_at.is_some() {
            available.clear();
        }
        let was_known = state.watched.is_some() || state.hashes.made() > 0;
        let is_other = *state.calm.shards() != available;
        state.calm.observe(now, &available);
        if state.hashes.shards(&available, state.calm.receivers(now)) {
            self.scope.board.lock().touch_all();
        }
        if is_other && was_known {
            info!(ring = %self.scope.model.name, shards = available.len(), "the available shards are others");
            state.pass_at = state.pass_at.min(state.calm.still_at().max(now));
        }
        if state.watched.as_ref().map(|(known, _)| known) != Some(&available) && !self.scope.model.is_deleting {
            if let Some((_, cancel)) = state.watched.take() {
                cancel.cancel();
            }
            let cancel = watches.child_token();
            self.watch(&available, &cancel);
            state.watched = Some((available, cancel));
        }
        true
    }

    /// These are the namespaces now. What lives in one that was known and changes sides was passed over, or is to leave; a
    /// new one's objects are on the board already.
    fn select(&self, state: &mut State, now: Duration, selected: BTreeMap<Arc<str>, bool>) {
        let before = state.selected.replace(selected);
        let has_changed = |(name, is_selected): (&Arc<str>, &bool)| {
            before.as_ref().is_some_and(|before| before.get(name).is_some_and(|was| was != is_selected))
        };
        if state.selected.iter().flatten().any(has_changed) {
            if let Some((_, cancel)) = state.watched.take() {
                cancel.cancel();
            }
            state.pass_at = state.pass_at.min(now);
        }
        self.scope.board.lock().touch_all();
    }

    /// Watches the objects that none of these has. Without any shard nothing could be done about them.
    fn watch(&self, shards: &BTreeSet<Arc<str>>, cancel: &CancellationToken) {
        if shards.is_empty() {
            return;
        }
        let names: Vec<&str> = shards.iter().map(|shard| &**shard).collect();
        let label = &self.scope.shard_label;
        for (kind, _) in self.scope.kinds.iter().enumerate().filter(|(_, kind)| !kind.is_former) {
            let selector = if self.scope.is_main(kind) {
                format!("{label} notin ({})", names.join(","))
            } else {
                format!("!{label}")
            };
            feed::start((&self.client, &self.tasks), &self.scope, (kind, Mark::Unassigned), selector, cancel.clone());
        }
    }

    fn look_at_news(&self, state: &mut State, now: Duration) {
        while let Some((at, _)) = state.timers.first()
            && *at <= now
            && let Some((_, id)) = state.timers.pop_first()
        {
            self.scope.board.lock().touch(&id);
        }
        let forgotten = self.scope.board.lock().purge(now);
        for id in forgotten {
            state.pace.done(&id);
        }
        let dirty = self.scope.board.lock().take_dirty(MAX_LOOKED);
        for id in dirty {
            self.look(state, now, &id);
        }
    }

    /// Looks at one object, and does what follows, or puts it where it will be done.
    fn look(&self, state: &mut State, now: Duration, id: &Id) {
        let mut board = self.scope.board.lock();
        let Some(item) = board.get(id) else {
            drop(board);
            state.pace.done(id);
            return;
        };
        if item.is_busy {
            return;
        }
        if now < item.not_before {
            state.timers.insert((item.not_before, id.clone()));
            return;
        }
        let (scope, shards) = (&self.scope, &self.shards);
        let verdict = Eyes { now, scope, shards, hashes: &state.hashes, board: &board }.verdict(id, item);
        match verdict {
            Verdict::Later => {}
            Verdict::Unseen(at) if at > now => {
                state.timers.insert((at, id.clone()));
            }
            Verdict::Unseen(_) => {
                state.unseen.insert(id.clone());
            }
            Verdict::Nobodys => state.pace.done(id),
            Verdict::ReadOwner => {
                state.reads.insert(id.clone());
            }
            Verdict::Search => {
                // It holds up nobody meanwhile: its children need the places.
                if state.pace.moving(id) != Some(Lane::Balance) {
                    state.pace.done(id);
                }
                state.searches.insert(id.clone());
            }
            Verdict::Plan(Planned::Nothing) => {
                state.pace.done(id);
                board.settle(now, id);
            }
            Verdict::Plan(Planned::Write { patch, what, to }) => {
                let lane = if what == What::Drain { Lane::Balance } else { Lane::Waiting };
                if lane == Lane::Balance && state.pace.moving(id) == Some(Lane::Waiting) {
                    // It was given to somebody a moment ago; balance is another matter.
                    state.pace.done(id);
                }
                if state.pace.moving(id).is_none() {
                    state.pace.add(now, id.clone(), lane);
                    return;
                }
                let from = item.facts.shard.clone().or_else(|| item.former.clone());
                if let Some(item) = board.get_mut(id) {
                    item.is_busy = true;
                }
                let write = write(self.client.clone(), Arc::clone(&self.right), self.resource(id), id.clone(), patch);
                let done = write.map({
                    let id = id.clone();
                    move |outcome| Done::Wrote { id, what, from, to, outcome }
                });
                state.actions.push(done.boxed());
            }
            Verdict::Plan(Planned::Escalate { shard, since }) => {
                // Its objects wait for the Lease now.
                state.pace.done(id);
                if self.shards.escalate(&shard) {
                    self.told.escalated(&shard, id, now.saturating_sub(since));
                }
                // A whole second, so that looks in between don't each begin timers of their own.
                let again = Duration::from_secs(now.saturating_add(RETRY).as_secs());
                state.timers.insert((again, id.clone()));
            }
            Verdict::Plan(Planned::Wait { why, until }) => {
                match why {
                    Why::Acknowledgement(_) => {}
                    Why::Children if state.pace.moving(id) == Some(Lane::Balance) => {}
                    Why::Overdue(_) => {
                        state.pace.done(id);
                        if let Some(item) = board.get_mut(id) {
                            item.is_overdue = true;
                        }
                        // The watch of drains shows it.
                        board.settle(now, id);
                    }
                    Why::NoShard | Why::Lease | Why::Children | Why::Owner => state.pace.done(id),
                }
                if let Some(until) = until {
                    state.timers.insert((until.max(now), id.clone()));
                }
            }
        }
    }

    /// Begins with what the pace allows.
    fn launch(&self, state: &mut State, now: Duration) {
        while let Some(id) = state.pace.next(now, &state.calm) {
            self.look(state, now, &id);
        }
    }

    fn done(&mut self, state: &mut State, done: Done) {
        let now = boot_time();
        match done {
            Done::Wrote { id, what, from, to, outcome } => self.wrote(state, now, &id, (what, from, to), outcome),
            Done::Read { id, read } => {
                state.reading -= 1;
                self.wrote(state, now, &id, (What::Other, None, None), Outcome::of_read(read));
            }
            Done::ReadOwner { child, read, uid, kind } => {
                state.reading -= 1;
                let mut board = self.scope.board.lock();
                let seen = match read {
                    Ok(found) => {
                        let found = found.filter(|found| *found.uid() == uid);
                        let shard = found.map(|found| self.scope.facts(kind, &found).shard);
                        OwnerSeen { at: now, place: shard.map_or(Place::Gone, Place::At) }
                    }
                    Err(error) => {
                        debug!(ring = %self.scope.model.name, child = %child.key, "its owner can't be read: {error}");
                        if let Some(item) = board.get_mut(&child) {
                            pause(item, now);
                        }
                        state.pace.done(&child);
                        board.touch(&child);
                        return;
                    }
                };
                if let Some(item) = board.get_mut(&child) {
                    item.owner = Some(seen);
                }
                board.touch(&child);
            }
            Done::Passed(passed) => {
                state.is_passing = false;
                self.passed(state, now, passed);
            }
            Done::Searched(owners, failed) => {
                state.is_searching = false;
                // What can't be seen at all holds nobody up; it is told.
                let is_hidden = |(_, error): &(usize, Error)| error.is_forbidden() || error.is_not_found();
                let again = failed.iter().any(|failed| !is_hidden(failed));
                failed.iter().for_each(|(kind, error)| self.list_failed(*kind, error));
                if again {
                    state.searches.extend(owners.into_iter().map(|owner| owner.id));
                    state.search_at = now.saturating_add(RETRY);
                    return;
                }
                let mut board = self.scope.board.lock();
                for owner in owners {
                    // One that was moved meanwhile has left others behind.
                    let is_it = |item: &&mut Item| item.facts.uid == owner.uid && item.moves == owner.moves;
                    if let Some(item) = board.get_mut(&owner.id).filter(is_it) {
                        item.is_searched = true;
                    }
                    board.touch(&owner.id);
                }
            }
            Done::Told(draft, written) => self.told.written(draft, written, now),
        }
    }

    fn passed(&self, state: &mut State, now: Duration, passed: Passed) {
        let (found, (waiting, moving)) = (self.scope.board.lock().found(), state.pace.counts());
        let (ring, leaving, is_whole) = (&self.scope.model.name, passed.leaving, passed.failed.is_empty());
        debug!(%ring, found, leaving, waiting, moving, cut = passed.is_cut, is_whole, "looked at all objects");
        state.is_cut = passed.is_cut;
        if is_whole {
            state.leaving = Some(leaving);
        } else {
            state.pass_at = state.pass_at.min(now.saturating_add(FAILED_PERIOD));
        }
        for kind in 0..self.scope.kinds.len() {
            match passed.failed.iter().find(|(failed, _)| *failed == kind) {
                Some((_, error)) => self.list_failed(kind, error),
                None => self.scope.troubled(kind, Source::List, None),
            }
        }
        if passed.tally.is_some_and(|(tally, moves)| state.hashes.counted(tally, moves)) {
            self.scope.board.lock().touch_all();
            state.pass_at = now;
        }
        if self.scope.model.is_deleting || leaving > 0 {
            state.pass_at = state.pass_at.min(now.saturating_add(LEAVING_PERIOD));
        }
    }

    fn wrote(
        &self,
        state: &mut State,
        now: Duration,
        id: &Id,
        (what, from, to): (What, Option<Arc<str>>, Option<Arc<str>>),
        outcome: Outcome,
    ) {
        let mut board = self.scope.board.lock();
        if let Some(item) = board.get_mut(id) {
            item.is_busy = false;
        }
        match outcome {
            Outcome::Made(object) => {
                let ring = &self.scope.model.name;
                debug!(%ring, kind = %self.resource(id).kind, object = %id.key, ?what, ?from, ?to, "labels written");
                self.told.wrote(&self.resource(id), what);
                if let Some(item) = board.get_mut(id) {
                    item.failures = 0;
                    let key = self.scope.key(id, item.facts.owner.as_deref());
                    if let Some(key) = key.filter(|_| self.scope.is_main(id.kind) && from != to) {
                        state.hashes.moved(&key.text, from.as_deref(), to.as_deref());
                    }
                }
                let facts = self.scope.facts(id.kind, &object);
                board.answered(now, id, facts);
            }
            Outcome::Instead(object) => {
                if what != What::Other {
                    self.told.conflicted();
                }
                let facts = self.scope.facts(id.kind, &object);
                board.answered(now, id, facts);
                if let Some(item) = board.get_mut(id) {
                    item.stale_since = None;
                }
            }
            Outcome::Gone => {
                board.forget(id);
                state.pace.done(id);
            }
            Outcome::Failed(error) => {
                state.pace.done(id);
                if let Some(item) = board.get_mut(id) {
                    pause(item, now);
                    if !error.is_fenced() && item.failures.is_power_of_two() {
                        let (ring, failures) = (&self.scope.model.name, item.failures);
                        warn!(%ring, object = %id.key, failures, "its labels can't be read or written: {error}");
                    }
                }
                if error.is_refused() {
                    self.told.refused(now, &self.resource(id), error.reason(), &error.to_string());
                }
            }
        }
        board.touch(id);
        board.touch_family(id);
    }

    fn resource(&self, id: &Id) -> Arc<Resource> {
        Arc::clone(&self.scope.kinds[id.kind].resource)
    }

    fn wake_at(&self, state: &State, now: Duration) -> Duration {
        let board = self.scope.board.lock();
        if board.is_dirty() && self.shards.is_known() && state.selected.is_some() {
            return now;
        }
        let lists = [
            Some(state.pass_at).filter(|_| !state.is_passing && state.has_room(&board)),
            Some(state.search_at).filter(|_| !state.is_searching && !state.searches.is_empty()),
            state.timers.first().map(|(at, _)| *at),
            state.pace.next_at(now, &state.calm),
            state.opens_at,
            self.shards.next_at(now),
            board.purge_at().filter(|_| self.shards.is_known() && state.selected.is_some()),
            Some(state.told_at.saturating_add(TELL_PERIOD)),
        ];
        lists.into_iter().flatten().min().unwrap_or(now).max(now)
    }
}
