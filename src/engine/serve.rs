//! Serves a hosted controller while the table gives it to this member: all of it, or its parents in some shards.
//!
//! Never finds kinds and never subscribes: `host` does, and looks again when a round ends.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use ringmaster_cluster::MAX_LISTED;
use ringmaster_core::hash::shard;
use ringmaster_core::key::{Epoch, ObjectKey, SyncKey};
use ringmaster_core::object::Object;
use ringmaster_core::queue::Priority;
use ringmaster_core::shards::{SELF_LABEL, Shards};
use ringmaster_core::table::RowId;
use ringmaster_core::table::duty::Done;
use tokio::sync::watch;

use crate::host::{Ended, LOOK_INTERVAL, RETRY, Round, UNREACHABLE, any_changed, at};
use crate::hosted::Hosted;
use crate::label_all::label_all;
use crate::member::metrics::Phase;
use crate::member::posts::Stand;
use crate::streams::State;
use crate::verify;
use crate::watches::Subscription;

/// Resyncs come in at most so many parts of the parents, by their shards.
const MOST_PARTS: u8 = 32;
/// And no sooner after each other.
const SHORTEST_PART: Duration = Duration::from_millis(250);

/// What is in the caches can't be compared with what the API server has.
const CHECK_FAILING: &str = "CheckFailing";

impl Round {
    /// Serves all parents, or only fills the caches with them. `begun` is what was to be done before `kinds` were
    /// subscribed to.
    pub(crate) async fn serve_whole(
        &self,
        hosted: &Arc<Hosted>,
        kinds: &mut Kinds,
        mut stand: watch::Receiver<Stand>,
        begun: Stand,
        wait: &mut Duration,
    ) -> Ended {
        let mut care = Care::new(self, hosted);
        let (mut started, mut told_warm) = (None, None);
        let mut unchecked = Unchecked::default();
        let mut labelling: Labelling<'_> = None;
        loop {
            let is_new = started.is_none() && kinds.are_synced() && unchecked.is_over();
            if let Some(ended) = self.judge(&mut kinds.states, is_new) {
                return ended;
            }
            let now = *stand.borrow_and_update();
            match now {
                Stand::Nothing | Stand::Sharded { .. } => return Ended::Turned,
                Stand::Warm(epoch) => {
                    if started.is_some() {
                        return Ended::Turned;
                    }
                    if kinds.are_synced() && told_warm.replace(epoch) != Some(epoch) {
                        let row = RowId::Controller(self.model.uid.clone());
                        self.done(Done::Warm(row, epoch));
                    }
                }
                Stand::Whole { since, label } => {
                    if started.is_some_and(|started| started != since) {
                        return Ended::Turned;
                    }
                    if started.is_none() {
                        self.board.here(true);
                    }
                    if started.is_none() && kinds.are_synced() && unchecked.may_try() {
                        // What others wrote before it was ours must be seen before anything follows from it; caches that
                        // were there already may lag, those that were filled since don't.
                        let is_since = matches!(begun, Stand::Whole { since: begun, .. } if begun == since);
                        let lags = |subscription: &Subscription| !(is_since && subscription.is_first());
                        let verified = tokio::select! {
                            () = self.cancel.cancelled() => return Ended::Cancelled,
                            verified = self.verify(kinds, &Shards::ALL, lags) => verified,
                        };
                        // Given up, and maybe given back, meanwhile: others worked on it since.
                        let is_same = |stand: Stand| matches!(stand, Stand::Whole { since: now, .. } if now == since);
                        if !is_same(*stand.borrow()) {
                            continue;
                        }
                        match verified {
                            Ok(()) => {
                                (*wait, unchecked) = (RETRY.0, Unchecked::default());
                                started = Some(since);
                                self.start(hosted);
                                let row = RowId::Controller(self.model.uid.clone());
                                self.begin(hosted, |_| true, self.stage.guard.is_delayed(&row));
                            }
                            Err(cause) => {
                                unchecked.failed();
                                // Trouble of a watch was told by whoever judges it.
                                if !kinds.are_troubled() {
                                    self.block(cause.reason, format!("can't begin yet: {}", cause.text));
                                }
                            }
                        }
                    }
                    if started.is_some() && label != labelling.as_ref().map(|(epoch, _)| *epoch) {
                        hosted.labels.store(label.is_some(), Ordering::Release);
                        labelling = label.map(|epoch| (epoch, Box::pin(label_all(&self.stage, hosted)) as _));
                    }
                }
            }
            tokio::select! {
                () = self.cancel.cancelled() => return Ended::Cancelled,
                _ = stand.changed() => {}
                () = any_changed(&mut kinds.states) => {
                    if started.is_some() && kinds.are_well() {
                        self.well_again(hosted);
                    }
                }
                () = at(unchecked.retry) => unchecked.retry = None,
                () = labelled(&mut labelling) => {
                    if let Stand::Whole { label: Some(epoch), .. } = now {
                        self.done(Done::Labelled(self.model.uid.clone(), epoch));
                    }
                }
                ended = care.next() => {
                    if let Some(ended) = ended {
                        return ended;
                    }
                }
            }
        }
    }

    /// Serves the parents in the shards that this member holds.
    pub(crate) async fn serve_shards(
        &self,
        hosted: &Arc<Hosted>,
        kinds: &mut Kinds,
        mut stand: watch::Receiver<Stand>,
        wait: &mut Duration,
    ) -> Ended {
        let Stand::Sharded { since: begun } = *stand.borrow() else { return Ended::Turned };
        let mut care = Care::new(self, hosted);
        let mut held = self.stage.posts.held();
        self.post.set_hosted(self.unit, hosted);
        let mut unchecked = Unchecked::default();
        // The same for what has no label, which nobody waits for.
        let (mut searched, mut search, mut unfound) = (Shards::NONE, None, Unchecked::default());
        self.start(hosted);
        loop {
            if let Some(ended) = self.judge(&mut kinds.states, false) {
                return ended;
            }
            if *stand.borrow_and_update() != (Stand::Sharded { since: begun }) {
                return Ended::Turned;
            }
            let running = held.borrow_and_update().running;
            let informed = kinds.informed();
            // One that is in trouble isn't waited for.
            let warm = if kinds.are_troubled() { Shards::ALL } else { informed };
            self.post.set_warm(self.unit, &self.stage.posts, warm);
            let started = hosted.started();
            let (missing, unsearched) = (running.difference(&started), started.difference(&searched));
            // What couldn't be checked was, or is somebody else's.
            let is_checked = missing.is_empty() && !std::mem::take(&mut unchecked).is_over();
            let is_searched = unsearched.is_empty() && !std::mem::take(&mut unfound).is_over();
            if (is_checked || is_searched) && unchecked.is_over() && unfound.is_over() && kinds.are_well() {
                self.well_again(hosted);
            }
            let gained = missing.intersection(&informed);
            if !gained.is_empty() && unchecked.may_try() {
                let since = Instant::now();
                let losses = self.stage.posts.losses();
                let verified = tokio::select! {
                    () = self.cancel.cancelled() => return Ended::Cancelled,
                    verified = self.verify(kinds, &gained, |_| true) => verified,
                };
                if let Err(cause) = verified {
                    unchecked.failed();
                    self.tell_unchecked(kinds, &format!("begin with shards {gained}"), &cause);
                } else {
                    *wait = RETRY.0;
                    // Whoever had them meanwhile noted what we didn't.
                    searched = searched.difference(&gained);
                    if let Some(Search(shards, _)) = &mut search {
                        *shards = shards.difference(&gained);
                    }
                    let started = self.stage.posts.start(hosted, &gained, &losses);
                    let delayed: Shards =
                        started.iter().filter(|shard| self.stage.guard.is_delayed(&RowId::Shard(*shard))).collect();
                    for (shards, delayed) in [(started.difference(&delayed), false), (delayed, true)] {
                        if !shards.is_empty() {
                            let is_new = |parent: &ObjectKey| shards.contains(shard(&hosted.parent, parent));
                            self.begin(hosted, is_new, delayed);
                        }
                    }
                    self.stage.metrics.members.handover(Phase::Start, since.elapsed());
                }
                continue;
            }
            if search.is_none() && !unsearched.is_empty() && unfound.may_try() {
                search = Some(Search(unsearched, Box::pin(self.find_strays(hosted, unsearched))));
            }
            tokio::select! {
                () = self.cancel.cancelled() => return Ended::Cancelled,
                _ = stand.changed() => {}
                _ = held.changed() => {}
                () = any_changed(&mut kinds.states) => {
                    if kinds.are_well() && unchecked.is_over() && unfound.is_over() {
                        self.well_again(hosted);
                    }
                }
                () = at(unchecked.retry) => unchecked.retry = None,
                () = at(unfound.retry) => unfound.retry = None,
                (shards, found) = Search::ended(&mut search) => match found {
                    Ok(()) => searched = searched.union(&shards),
                    Err(cause) => {
                        unfound.failed();
                        let what = format!("look for parents without a label in shards {shards}");
                        self.tell_unchecked(kinds, &what, &cause);
                    }
                },
                ended = care.next() => {
                    if let Some(ended) = ended {
                        return ended;
                    }
                }
            }
        }
    }

    fn tell_unchecked(&self, kinds: &Kinds, what: &str, cause: &Cause) {
        // Trouble of a watch was told by whoever judges it.
        if !kinds.are_troubled() {
            self.tell_blocked(cause.reason, format!("can't {what} yet: {}", cause.text));
        }
    }

    /// Looks at the API server whether what is in the caches that may lag is all there is for these shards, and mends it.
    async fn verify(&self, kinds: &Kinds, shards: &Shards, lags: impl Fn(&Subscription) -> bool) -> Result<(), Cause> {
        let lagging = kinds.subscriptions.iter().filter(|subscription| lags(subscription));
        let each = lagging.map(|subscription| subscription.shared().verify(*shards));
        let failed = futures::future::join_all(each).await.into_iter().find_map(Result::err);
        match failed {
            None => Ok(()),
            Some(error) => Err(match &*error {
                verify::Error::Api(error) => Cause::of(error),
                error @ verify::Error::NotInformed { .. } => Cause { reason: CHECK_FAILING, text: error.to_string() },
            }),
        }
    }

    /// Parents that have no label and belong into these shards, which were started: those who saw them before didn't own
    /// them. From then on streams tell.
    async fn find_strays(&self, hosted: &Hosted, shards: Shards) -> Result<(), Cause> {
        let selector = Shards::none_selector(SELF_LABEL);
        let is_wanted = |object: &Object| shards.contains(shard(&hosted.parent, object.key()));
        let found = self.stage.client.find_metadata(&hosted.parent, ("", &selector), MAX_LISTED, is_wanted).await;
        for (key, version) in found.map_err(|error| Cause::of(&error))?.objects {
            hosted.note_unlabelled(&key, version, None);
        }
        hosted.forget_unlabelled();
        self.stage.dispatch.add_all(hosted.unlabelled_keys().into_iter(), Priority::Background);
        Ok(())
    }
}

/// The search for parents without a label that goes on, and in which shards.
struct Search<'a>(Shards, Pin<Box<dyn Future<Output = Result<(), Cause>> + Send + 'a>>);

impl Search<'_> {
    /// Waits for its end; for ever if none goes on. Safe to drop at any point.
    async fn ended(search: &mut Option<Self>) -> (Shards, Result<(), Cause>) {
        let Some(Self(_, work)) = search else { return std::future::pending().await };
        let found = work.await;
        (search.take().map_or(Shards::NONE, |Self(shards, _)| shards), found)
    }
}

/// Why the caches can't be checked: a word and a sentence for people.
struct Cause {
    reason: &'static str,
    text: String,
}

impl Cause {
    fn of(error: &ringmaster_cluster::Error) -> Self {
        let (reason, fix) = match error {
            ringmaster_cluster::Error::Connection { .. } => (UNREACHABLE, ""),
            _ if error.is_forbidden() => ("Forbidden", "; grant get, list and watch to Ringmaster's account"),
            _ => (CHECK_FAILING, ""),
        };
        Self { reason, text: format!("{error}{fix}") }
    }
}

/// Caches that couldn't be checked: when they are checked again.
#[derive(Default)]
struct Unchecked {
    retry: Option<Instant>,
    /// The last pause.
    pause: Option<Duration>,
}

impl Unchecked {
    fn failed(&mut self) {
        let pause = self.pause.map_or(RETRY.0, |last| (last * 2).min(RETRY.1));
        (self.retry, self.pause) = (Some(Instant::now() + pause), Some(pause));
    }

    fn may_try(&self) -> bool {
        self.retry.is_none()
    }

    /// Whether no check has failed since the last that succeeded.
    fn is_over(&self) -> bool {
        self.pause.is_none()
    }
}

/// The labelling of a whole's objects that goes on, and for which epoch.
type Labelling<'a> = Option<(Epoch, Pin<Box<dyn Future<Output = ()> + Send + 'a>>)>;

/// Waits for the labelling to be done; for ever if none goes on. Once it was, it isn't polled again.
async fn labelled(labelling: &mut Labelling<'_>) {
    match labelling {
        Some((_, work)) => {
            work.await;
            if let Some((_, work)) = labelling {
                *work = Box::pin(std::future::pending());
            }
        }
        None => std::future::pending().await,
    }
}

/// The watches of a controller's kinds: the parents' first.
pub(crate) struct Kinds {
    pub(crate) subscriptions: Vec<Subscription>,
    pub(crate) states: Vec<watch::Receiver<State>>,
}

impl Kinds {
    /// Whether each had a complete list.
    fn are_synced(&self) -> bool {
        self.subscriptions.iter().all(|subscription| subscription.shared().is_synced())
    }

    /// Whether each is informed now.
    fn are_well(&self) -> bool {
        self.states.iter().all(|state| *state.borrow() == State::Synced)
    }

    fn are_troubled(&self) -> bool {
        self.states.iter().any(|state| matches!(*state.borrow(), State::Troubled(..)))
    }

    /// The shards whose objects all are in the caches.
    fn informed(&self) -> Shards {
        let each = self.subscriptions.iter().map(|subscription| subscription.shared().informed());
        each.fold(Shards::ALL, |all, one| all.intersection(&one))
    }
}

/// Into how many parts the parents are divided for resyncs, and the time from one part to the next: a webhook shall not be
/// called for all of them at once. Each parent is synced once in a period.
fn part_of(period: Duration) -> (u8, Duration) {
    let parts = period.as_millis() / SHORTEST_PART.as_millis();
    let parts = u8::try_from(parts).map_or(MOST_PARTS, |parts| parts.clamp(1, MOST_PARTS));
    (parts, period / u32::from(parts))
}

/// What a running controller needs from time to time: resyncs, and a look at kinds that are in doubt.
struct Care<'a> {
    round: &'a Round,
    hosted: &'a Arc<Hosted>,
    period: Option<Duration>,
    /// When the next part of the parents is resynced, and which.
    resync: Option<Instant>,
    part: u8,
    /// When the kinds may be looked up again, and when they shall be.
    may_look: Instant,
    look: Option<Instant>,
}

impl<'a> Care<'a> {
    fn new(round: &'a Round, hosted: &'a Arc<Hosted>) -> Self {
        let period = [round.model.resync_period, round.stage.flush_interval].into_iter().flatten().min();
        let now = Instant::now();
        Self {
            round,
            hosted,
            period,
            resync: period.map(|period| now + part_of(period).1),
            part: 0,
            may_look: now,
            look: None,
        }
    }

    /// Does what is due next. Safe to drop at any point.
    async fn next(&mut self) -> Option<Ended> {
        tokio::select! {
            () = at(self.resync) => {
                let (parts, pause) = self.period.map(part_of)?;
                let moment = self.resync.unwrap_or_else(Instant::now) + pause;
                // What was slept through isn't made up for.
                self.resync = Some(moment.max(Instant::now()));
                let part = self.part;
                self.part = (part + 1) % parts;
                let hosted = self.hosted;
                let is_due = |key: &SyncKey| shard(&hosted.parent, &key.parent) % parts == part;
                self.round.stage.dispatch.add_all(hosted.parent_keys().into_iter().filter(is_due), Priority::Background);
                None
            }
            () = self.hosted.doubt.notified() => {
                self.look = Some(self.may_look);
                None
            }
            () = at(self.look) => {
                let changed = self.round.kinds_changed(self.hosted).await;
                (self.look, self.may_look) = (None, Instant::now() + LOOK_INTERVAL);
                changed.then_some(Ended::Again)
            }
        }
    }
}
