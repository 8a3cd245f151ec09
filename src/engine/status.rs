//! What is known of each controller's health, and the task that writes it into their status.
//!
//! Level-triggered: the wanted status is compared with the one in the cache at each tick, so nothing is written twice
//! and nothing is missed. Never writes the status of a dialect that has none.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use ringmaster_cluster::Client;
use ringmaster_core::condition::{Condition, Failing, Health, HookHealth, Part, conditions};
use ringmaster_core::controller::Controller;
use ringmaster_core::endpoints::Damper;
use ringmaster_core::key::{ObjectKey, Uid};
use ringmaster_core::object::Object;
use serde::Deserialize;
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::clock::{Clock, wall_time};
use crate::hook_health::HookNotes;
use crate::hosted::Hosted;
use crate::member::placement::{LONG, Placements};
use crate::member::posts::Posts;
use crate::metrics::Metrics;
use crate::streams::Shared;
use crate::units::{Unit, overall, sum};

/// Fields that a kind doesn't keep are told up to so many.
const MAX_DROPPED: usize = 16;
/// A controller's status is looked at this often, and so written at most this often.
const TICK: Duration = Duration::from_secs(1);
/// The number of parents is written at most every so many ticks when nothing else changed.
const TICKS_PER_COUNT: u64 = 5;
/// Changes of a hook's health are logged at most this often.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// A parent that still fails is told again after this long: an API server forgets events after an hour.
const REMIND_AFTER: Duration = Duration::from_secs(30 * 60);
/// From then on an event says since when its object fails: one that comes again later than this is an event of its own,
/// and the first is forgotten before the last.
const SINCE_AFTER: Duration = Duration::from_secs(6 * 60);
/// So much is kept of what is said of a failure, for the controller's condition.
const MAX_TEXT_CHARS: usize = 500;

/// Where the parts of the engine note what they know of one controller.
pub(crate) struct Board {
    clock: Clock,
    noted: Mutex<Noted>,
    /// What its parents' names are told with, where it is one of several boards of one controller.
    kind: String,
    /// The boards of a controller that has parents of several kinds: what it is follows from theirs.
    units: Mutex<Vec<Arc<Board>>>,
}

#[derive(Default)]
struct Noted {
    generation: i64,
    rejected: Option<String>,
    blocked: Option<(&'static str, String)>,
    hooks: HookNotes,
    /// The parents whose last sync failed.
    failing: HashMap<ObjectKey, Trouble>,
    last_line: Option<Duration>,
    endpoints: Damper,
    /// What was told of the hooks' credentials, nothing if they are well.
    credentials: String,
    /// The fields of parents' statuses of which it was told that their kind doesn't keep them.
    dropped: BTreeSet<String>,
    /// Neither running nor known to be blocked yet.
    starting: bool,
    teller: Teller,
    hosted: Weak<Hosted>,
}

/// Who writes a controller's status.
#[derive(Clone, Copy, Default)]
enum Teller {
    /// Whoever writes the table: of controllers that all members work on, and of those that nobody does.
    #[default]
    Sharder,
    /// This member, which works on it.
    Owner,
    /// The one that works on it.
    Other,
}

/// A parent fails.
struct Trouble {
    since: Duration,
    /// The same for people.
    since_wall: String,
    told: Option<Duration>,
    /// Its last failure: when, what was said of it, and the cause.
    last: Duration,
    text: String,
    cause: Cause,
}

/// What a parent fails by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cause {
    /// A call to the API server.
    Api,
    /// The hook, which wasn't reached or didn't answer.
    Hook,
    /// The parent itself, or what the hook answers to it.
    Parent,
}

/// One failure of a parent, as it is to be told.
pub(crate) struct Failure<'a> {
    /// What is said of it.
    pub(crate) text: &'a str,
    /// Whether it is one to be told by an event.
    pub(crate) due: bool,
    /// What it fails by.
    pub(crate) cause: Cause,
}

/// What the answer to a failure is.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Telling {
    /// Whether an event is to be posted.
    pub(crate) event: bool,
    /// Since when the parent fails, for people; only if that is too long ago for its first event to be at hand.
    pub(crate) since: Option<String>,
}

impl Board {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Self::of(clock, 0, String::new())
    }

    fn of(clock: Clock, generation: i64, kind: String) -> Arc<Self> {
        let noted = Noted { generation, starting: true, ..Noted::default() };
        Arc::new(Self { clock, noted: Mutex::new(noted), kind, units: Mutex::default() })
    }

    /// The board of each of the controllers that one declaration became: this one, if it is a single one.
    pub(crate) fn divide(self: &Arc<Self>, models: &[Controller]) -> Vec<Arc<Self>> {
        if models.len() == 1 {
            return vec![Arc::clone(self)];
        }
        let generation = self.noted.lock().generation;
        let unit = |model: &Controller| Self::of(self.clock, generation, format!("{} ", model.parent.resource));
        let units: Vec<_> = models.iter().map(unit).collect();
        self.units.lock().clone_from(&units);
        units
    }

    fn units(&self) -> Vec<Arc<Self>> {
        self.units.lock().clone()
    }

    /// A new declaration is being looked at.
    pub(crate) fn declared(&self, generation: i64) {
        let mut noted = self.noted.lock();
        *noted = Noted { generation, starting: true, last_line: noted.last_line, ..Noted::default() };
    }

    /// The declaration can't be used.
    pub(crate) fn reject(&self, message: String) {
        let mut noted = self.noted.lock();
        noted.rejected = Some(message);
        noted.starting = false;
    }

    /// The controller doesn't run for now; tells whether that is news.
    pub(crate) fn block(&self, reason: &'static str, message: String) -> bool {
        let mut noted = self.noted.lock();
        noted.starting = false;
        let news = noted.blocked.as_ref().is_none_or(|(known, _)| *known != reason);
        noted.blocked = Some((reason, message));
        news
    }

    /// Another member works on the controller, or none yet.
    pub(crate) fn elsewhere(&self) {
        let mut noted = self.noted.lock();
        let (generation, last_line) = (noted.generation, noted.last_line);
        *noted = Noted { generation, last_line, teller: Teller::Other, ..Noted::default() };
    }

    /// This member works on the controller, or makes ready to: alone, or with all others.
    pub(crate) fn here(&self, alone: bool) {
        let mut noted = self.noted.lock();
        noted.teller = if alone { Teller::Owner } else { Teller::Sharder };
        noted.starting = noted.blocked.is_none() && noted.hosted.strong_count() == 0;
    }

    /// Whether this member writes the controller's status; `leads` says whether it writes the table.
    fn is_told_here(&self, leads: bool) -> bool {
        let units = self.units();
        if !units.is_empty() {
            return units.iter().all(|unit| unit.is_told_here(leads));
        }
        match self.noted.lock().teller {
            Teller::Sharder => leads,
            Teller::Owner => true,
            Teller::Other => false,
        }
    }

    /// The controller runs; gives back why it didn't before, or not well.
    pub(crate) fn run(&self, hosted: Weak<Hosted>) -> Option<&'static str> {
        let mut noted = self.noted.lock();
        noted.starting = false;
        noted.hosted = hosted;
        noted.blocked.take().map(|(reason, _)| reason)
    }

    /// What a hook call for a parent showed, which may say of that one call only. Tells whether that is a change that
    /// deserves a line.
    pub(crate) fn set_hook(&self, call: (&'static str, &ObjectKey), health: HookHealth, is_of_one_call: bool) -> bool {
        let now = self.clock.now();
        let mut noted = self.noted.lock();
        let changed = noted.hooks.note(call, health, is_of_one_call, now);
        let due = noted.last_line.is_none_or(|at| now.saturating_sub(at) >= LINE_INTERVAL);
        if changed && due {
            noted.last_line = Some(now);
        }
        changed && due
    }

    /// Whether it wasn't told yet that parents' statuses don't keep a field.
    pub(crate) fn is_first_dropped(&self, field: &str) -> bool {
        let told = &mut self.noted.lock().dropped;
        told.len() < MAX_DROPPED && told.insert(field.to_owned())
    }

    /// What is wrong with the hooks' credentials, nothing if they are well; tells whether that is news.
    pub(crate) fn set_credentials(&self, problem: &str) -> bool {
        let known = &mut self.noted.lock().credentials;
        let is_news = *known != problem;
        problem.clone_into(known);
        is_news
    }

    /// A sync of this parent did all that it wanted, or the parent is gone. Says how long it had failed, if that was
    /// told.
    pub(crate) fn not_failing(&self, parent: &ObjectKey) -> Option<Duration> {
        let mut noted = self.noted.lock();
        noted.hooks.forget(parent);
        let trouble = noted.failing.remove(parent)?;
        trouble.told.map(|_| self.clock.now().saturating_sub(trouble.since))
    }

    /// A sync of this parent failed. It is to be told if it is due, is another failure than the last (but for numbers in
    /// it), or comes so long after the last that was told that people can't find that one any more.
    pub(crate) fn failing(&self, parent: &ObjectKey, failure: &Failure<'_>) -> Telling {
        let now = self.clock.now();
        let mut noted = self.noted.lock();
        let trouble = noted.failing.entry(parent.clone()).or_insert_with(|| Trouble {
            since: now,
            since_wall: wall_time(),
            told: None,
            last: now,
            text: String::new(),
            cause: failure.cause,
        });
        let text: String = failure.text.chars().take(MAX_TEXT_CHARS).collect();
        let is_news = trouble.told.is_some() && !same_but_numbers(&trouble.text, &text);
        (trouble.last, trouble.cause, trouble.text) = (now, failure.cause, text);
        let event = failure.due || is_news || needs_reminder(trouble.told, now);
        if event {
            trouble.told = Some(now);
        }
        let since = (now.saturating_sub(trouble.since) >= SINCE_AFTER).then(|| trouble.since_wall.clone());
        Telling { event, since: since.filter(|_| event) }
    }

    /// Forgets the failures of parents that aren't there any more.
    pub(crate) fn retain(&self, is_there: impl Fn(&ObjectKey) -> bool) {
        let mut noted = self.noted.lock();
        noted.failing.retain(|parent, _| is_there(parent));
        noted.hooks.retain(is_there);
    }

    /// How long the parent that fails longest has been failing; zero if none does.
    pub(crate) fn failing_longest(&self) -> Duration {
        let noted = self.noted.lock();
        let since = noted.failing.values().map(|trouble| trouble.since).min();
        since.map_or(Duration::ZERO, |since| self.clock.now().saturating_sub(since))
    }

    /// When a parent that still fails failed last; zero if none does.
    fn failing_newest(&self) -> Duration {
        self.noted.lock().failing.values().map(|trouble| trouble.last).max().unwrap_or_default()
    }

    /// The parents whose last sync failed by this.
    pub(crate) fn failing_by(&self, cause: Cause) -> Vec<ObjectKey> {
        let noted = self.noted.lock();
        noted.failing.iter().filter(|(_, trouble)| trouble.cause == cause).map(|(parent, _)| parent.clone()).collect()
    }

    /// Parents whose last sync failed.
    pub(crate) fn failing_count(&self) -> usize {
        self.noted.lock().failing.len()
    }

    pub(crate) fn is_starting(&self) -> bool {
        let units = self.units();
        if units.is_empty() { self.noted.lock().starting } else { units.iter().any(|unit| unit.is_starting()) }
    }

    /// The generation that it is known of, what is known, and what runs.
    fn health(&self) -> (i64, Health, Vec<Arc<Hosted>>) {
        let units = self.units();
        if units.is_empty() {
            let (generation, health, hosted) = self.own_health();
            return (generation, health, hosted.into_iter().collect());
        }
        let (mut parts, mut running) = (Vec::with_capacity(units.len()), Vec::with_capacity(units.len()));
        let mut shown = Vec::with_capacity(units.len());
        for unit in units {
            let (_, health, hosted) = unit.own_health();
            shown.push(unit.noted.lock().hooks.shown());
            parts.push(Unit { health, longest: unit.failing_longest(), newest: unit.failing_newest() });
            running.extend(hosted);
        }
        (self.noted.lock().generation, sum(parts, overall(shown)), running)
    }

    fn own_health(&self) -> (i64, Health, Option<Arc<Hosted>>) {
        let mut noted = self.noted.lock();
        let hosted = noted.hosted.upgrade();
        let endpoints = hosted.as_ref().map(|hosted| {
            let standing = hosted.routes.standing();
            noted.endpoints.damp(standing, self.clock.now())
        });
        let failing = Failing {
            count: noted.failing.len(),
            parents: hosted.as_ref().map_or(0, |hosted| hosted.parent_count()),
            longest: longest(&self.kind, &noted.failing),
            last: newest(&self.kind, &noted.failing),
        };
        // Nobody waits for these watches: their parents go on with what was read.
        let related = hosted.as_ref().and_then(|hosted| hosted.related.as_ref()?.trouble());
        let health = Health {
            rejected: noted.rejected.clone(),
            blocked: noted.blocked.clone().or(related).map(|(reason, text)| (reason.into(), text)),
            hook: overall([noted.hooks.shown()]),
            failing,
            endpoints,
            placement: None,
        };
        (noted.generation, health, hosted)
    }

    /// Whether all members work on it.
    fn is_shared(&self) -> bool {
        let units = self.units();
        if !units.is_empty() {
            return units.iter().any(|unit| unit.is_shared());
        }
        let noted = self.noted.lock();
        matches!(noted.teller, Teller::Sharder) && noted.hosted.upgrade().is_some_and(|hosted| hosted.sharded.is_some())
    }
}

/// Whether two texts differ in digits alone, such as those of a port or a time.
fn same_but_numbers(a: &str, b: &str) -> bool {
    a.chars().filter(|letter| !letter.is_ascii_digit()).eq(b.chars().filter(|letter| !letter.is_ascii_digit()))
}

fn needs_reminder(told: Option<Duration>, now: Duration) -> bool {
    told.is_some_and(|told| now.saturating_sub(told) >= REMIND_AFTER)
}

/// Which parent fails longest, and since when.
fn longest(kind: &str, failing: &HashMap<ObjectKey, Trouble>) -> String {
    // By key too, so that the message doesn't change by itself.
    let first = failing.iter().min_by_key(|(key, trouble)| (trouble.since, *key));
    first.map(|(key, trouble)| format!("{kind}{key} since {}", trouble.since_wall)).unwrap_or_default()
}

/// The newest failure of those that still fail.
fn newest(kind: &str, failing: &HashMap<ObjectKey, Trouble>) -> String {
    let last = failing.iter().max_by_key(|(key, trouble)| (trouble.last, *key));
    last.map(|(key, trouble)| format!("{kind}{key}: {}", trouble.text)).unwrap_or_default()
}

/// What a status needs to know of the other members.
pub(crate) struct Members {
    pub(crate) posts: Arc<Posts>,
    pub(crate) placements: Arc<Placements>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Members {
    /// Whether this member writes the table.
    fn leads(&self) -> bool {
        self.metrics.members.leads()
    }

    /// Tells the others of this member's part of a sharded controller.
    fn tell(&self, uid: &Uid, board: &Board) {
        let part = board.is_shared().then(|| {
            let (_, health, hosted) = board.health();
            Part::new(&health, unlabelled(&hosted))
        });
        self.posts.set_part(uid, part);
    }

    /// Adds what the others know, and who has what.
    fn complete(&self, uid: &Uid, board: &Board, health: &mut Health) {
        if health.rejected.is_some() {
            return;
        }
        let (_, _, hosted) = board.health();
        let mut without = unlabelled(&hosted);
        let shared = board.is_shared();
        if shared {
            let parts = self.placements.parts(uid);
            without += parts.iter().map(|(_, part)| part.unlabelled).sum::<usize>();
            health.add(&parts);
        }
        let declared = hosted.iter().any(|hosted| hosted.model.sharded);
        health.placement = self.placements.of(uid, declared, without);
    }
}

/// Parents that have had no label for long.
fn unlabelled(hosted: &[Arc<Hosted>]) -> usize {
    let counts = hosted.iter().map(|hosted| hosted.unlabelled_count());
    counts.filter(|(_, oldest)| *oldest >= LONG).map(|(count, _)| count).sum()
}

/// A status that can't be written is tried again after so many ticks, doubling each time.
const MAX_TICKS_TO_RETRY: u64 = 32;

/// The controllers of one dialect, with where their objects are.
pub(crate) struct Boards {
    shared: Arc<Shared>,
    boards: Mutex<HashMap<ObjectKey, Arc<Board>>>,
}

impl Boards {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, boards: Mutex::default() }
    }

    pub(crate) fn set(&self, key: &ObjectKey, board: Option<Arc<Board>>) {
        let mut boards = self.boards.lock();
        match board {
            Some(board) => boards.insert(key.clone(), board),
            None => boards.remove(key),
        };
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<Arc<Board>> {
        self.boards.lock().get(key).cloned()
    }

    pub(crate) fn any_starting(&self) -> bool {
        self.boards.lock().values().any(|board| board.is_starting())
    }
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Present {
    #[serde(default)]
    conditions: Vec<Condition>,
    #[serde(default)]
    parents: Option<i64>,
    #[serde(default)]
    observed_generation: Option<i64>,
}

/// A controller whose status can't be written: how often in a row, and the tick at which it is tried again.
#[derive(Default)]
struct Refused {
    times: u32,
    until: u64,
}

/// Writes statuses until cancelled.
pub(crate) async fn write_all(
    client: Client,
    boards: Arc<Boards>,
    resource: Arc<ringmaster_core::key::Resource>,
    members: Members,
    cancel: CancellationToken,
) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut tick, mut paused_until) = (0u64, 0u64);
    let mut refused: HashMap<ObjectKey, Refused> = HashMap::new();
    loop {
        tokio::select! {
            () = cancel.cancelled() => return,
            _ = interval.tick() => {}
        }
        tick += 1;
        if tick < paused_until {
            continue;
        }
        let all: Vec<_> = boards.boards.lock().iter().map(|(key, board)| (key.clone(), Arc::clone(board))).collect();
        refused.retain(|key, _| boards.boards.lock().contains_key(key));
        for (key, board) in all {
            let object = boards.shared.store().get(&key).cloned();
            let Some(object) = object else { continue };
            members.tell(object.uid(), &board);
            let waits = refused.get(&key).is_some_and(|refused| tick < refused.until);
            if waits || !board.is_told_here(members.leads()) {
                continue;
            }
            let due = tick.is_multiple_of(TICKS_PER_COUNT);
            let Some(patch) = patch(&object, &board, &members, due) else { continue };
            let write = client.patch_status(&resource, &key, patch);
            let written = tokio::select! {
                () = cancel.cancelled() => return,
                written = write => written,
            };
            let error = match written {
                Ok(answer) => {
                    refused.remove(&key);
                    boards.shared.answer(answer, None, None);
                    continue;
                }
                Err(error) => error,
            };
            let known = refused.entry(key.clone()).or_default();
            known.times += 1;
            match &error {
                // It is gone, and its board soon is.
                error if error.is_not_found() => {}
                // A reminder at each doubling.
                error if error.is_forbidden() && known.times.is_power_of_two() => {
                    warn!(controller = %key, "status can't be written: {error}");
                }
                error => debug!(controller = %key, "status was not written: {error}"),
            }
            // Whatever it is, it hardly heals within a tick.
            let backoff = (1u64 << known.times.min(6)).min(MAX_TICKS_TO_RETRY);
            known.until = tick + backoff;
            if let Some(pause) = error.retry_after() {
                paused_until = tick + pause.as_secs().div_ceil(TICK.as_secs());
            }
            // Who asks for a pause, or isn't there, is that for the others too.
            if error.retry_after().is_some() || error.code().is_none() {
                break;
            }
        }
    }
}

/// The patch that makes the status right; `None` if it is, or if only the count differs and isn't due.
fn patch(object: &Object, board: &Board, members: &Members, count_is_due: bool) -> Option<Vec<u8>> {
    let (generation, mut health, hosted) = board.health();
    members.complete(object.uid(), board, &mut health);
    if generation != object.generation() || board.is_starting() {
        return None;
    }
    let present: Present = object.section("status").unwrap_or_default();
    let wanted = conditions(&health, generation, &present.conditions, &wall_time());
    let fine = wanted == present.conditions && present.observed_generation == Some(generation);
    if fine && !count_is_due {
        return None;
    }
    let parents = (!hosted.is_empty()).then(|| i64::try_from(health.failing.parents).unwrap_or(i64::MAX));
    if fine && (parents == present.parents || parents.is_none()) {
        return None;
    }
    let parents = parents.or(present.parents);
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": object.uid().to_string()},
        {"op": "add", "path": "/status", "value": {
            "conditions": wanted, "parents": parents, "observedGeneration": generation}},
    ]);
    Some(patch.to_string().into_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failing(reason: &'static str) -> HookHealth {
        HookHealth::Failing(reason.into(), "x".to_owned())
    }

    #[test]
    fn one_bad_reply_among_good_ones_is_not_the_hook_s_failure() {
        let (board, key) = (Board::new(Clock::start()), ObjectKey::new("n", "a"));
        board.set_hook(("sync", &key), HookHealth::Reachable, false);
        board.set_hook(("sync", &key), failing("BadCode"), true);
        assert_eq!(board.health().1.hook, HookHealth::Reachable);
        board.set_hook(("sync", &key), failing("ConnectionRefused"), false);
        assert_eq!(board.health().1.hook, failing("ConnectionRefused"));
        // Another hook that answers doesn't hide it.
        board.set_hook(("customize", &key), HookHealth::Reachable, false);
        assert_eq!(board.health().1.hook, failing("ConnectionRefused"));
        let never_answered = Board::new(Clock::start());
        never_answered.set_hook(("sync", &key), failing("BadCode"), true);
        assert_eq!(never_answered.health().1.hook, failing("BadCode"));
        // It goes with its parent.
        never_answered.not_failing(&key);
        assert_eq!(never_answered.health().1.hook, HookHealth::Unknown);
        board.retain(|parent| *parent != key);
        assert_eq!(board.health().1.hook, HookHealth::Reachable);
    }

    #[test]
    fn a_parent_fails_since_its_first_failure_and_is_told_when_due() {
        let (board, key) = (Board::new(Clock::start()), ObjectKey::new("n", "a"));
        assert_eq!((board.not_failing(&key), board.failing_longest()), (None, Duration::ZERO));
        let fail = |key: &ObjectKey, text: &str, due: bool| {
            let cause = if text == "api" { Cause::Api } else { Cause::Parent };
            board.failing(key, &Failure { text, due, cause }).event
        };
        assert!(!fail(&key, "x", false));
        assert_eq!(board.not_failing(&key), None, "what nobody heard of has no end to tell");
        assert!(fail(&key, "line 1", true) && !fail(&key, "line 12", false), "numbers are no news");
        assert!(fail(&key, "y", false), "another failure is");
        assert!(!fail(&key, "y", false));
        let (_, health, _) = board.health();
        assert!(health.failing.count == 1 && health.failing.last == "n/a: y", "{health:?}");
        assert!(health.failing.longest.starts_with("n/a since 2"), "{health:?}");
        let other = ObjectKey::new("n", "b");
        fail(&other, "api", false);
        assert_eq!(board.health().1.failing.last, "n/b: api", "the newest");
        assert_eq!(board.failing_by(Cause::Api), std::slice::from_ref(&other));
        assert_eq!(board.not_failing(&other), None);
        assert_eq!(board.health().1.failing.last, "n/a: y", "of those that still fail");
        fail(&other, "api", false);
        board.retain(|parent| *parent == key);
        assert_eq!((board.failing_count(), board.health().1.failing.last.as_str()), (1, "n/a: y"));
        assert!(board.not_failing(&key).is_some() && board.failing_count() == 0);
        let told = Duration::from_secs(7);
        assert!(needs_reminder(Some(told), told + REMIND_AFTER));
        assert!(!needs_reminder(Some(told), REMIND_AFTER) && !needs_reminder(None, told + REMIND_AFTER));
    }

    #[test]
    fn credentials_are_told_once_for_each_cause_and_when_they_are_well_again() {
        let board = Board::new(Clock::start());
        assert!(!board.set_credentials(""), "nothing was ever wrong");
        let news = ["gone", "gone", "empty", "", "", "gone"].map(|problem| board.set_credentials(problem));
        assert_eq!(news, [true, false, true, true, false, true]);
        board.elsewhere();
        assert!(!board.set_credentials(""), "another member told it");
    }

    #[test]
    fn a_flapping_hook_is_not_a_line_each_time() {
        let (board, key) = (Board::new(Clock::start()), ObjectKey::new("n", "a"));
        let lines = (0..100).filter(|round| {
            board.set_hook(
                ("sync", &key),
                if round % 2 == 0 { failing("ConnectionRefused") } else { HookHealth::Reachable },
                false,
            )
        });
        assert_eq!(lines.count(), 1);
    }
}
