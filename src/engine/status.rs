//! What is known of each controller's health, and the task that writes it into their status.
//!
//! Level-triggered: the wanted status is compared with the one in the cache at each tick, so nothing is written twice
//! and nothing is missed. Never writes the status of a dialect that has none.

use std::collections::HashMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use parking_lot::Mutex;
use ringmaster_cluster::Client;
use ringmaster_core::condition::{Condition, Failing, Health, HookHealth, conditions};
use ringmaster_core::key::ObjectKey;
use ringmaster_core::object::Object;
use serde::Deserialize;
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::clock::{Clock, wall_time};
use crate::hosted::Hosted;
use crate::watches::Shared;

/// A controller's status is looked at this often, and so written at most this often.
const TICK: Duration = Duration::from_secs(1);
/// The number of parents is written at most every so many ticks when nothing else changed.
const TICKS_PER_COUNT: u64 = 5;
/// A call that was answered, but badly, or too late, counts as the hook's failure once no call succeeded for this long:
/// one bad parent among good ones is that parent's problem.
const FAILING_AFTER: Duration = Duration::from_secs(10);
/// Changes of a hook's health are logged at most this often.
const LINE_INTERVAL: Duration = Duration::from_secs(10);
/// A parent that still fails is told again after this long: an API server forgets events after an hour.
const REMIND_AFTER: Duration = Duration::from_secs(30 * 60);

/// Where the parts of the engine note what they know of one controller.
pub(crate) struct Board {
    clock: Clock,
    noted: Mutex<Noted>,
}

#[derive(Default)]
struct Noted {
    generation: i64,
    rejected: Option<String>,
    blocked: Option<(&'static str, String)>,
    hook: HookHealth,
    last_success: Option<Duration>,
    /// The parents whose last sync failed, and what the last of them said.
    failing: HashMap<ObjectKey, Trouble>,
    last_failure: String,
    last_line: Option<Duration>,
    /// Neither running nor known to be blocked yet.
    starting: bool,
    hosted: Weak<Hosted>,
}

/// A parent fails.
struct Trouble {
    since: Duration,
    /// The same for people.
    since_wall: String,
    told: Option<Duration>,
}

impl Board {
    pub(crate) fn new(clock: Clock) -> Arc<Self> {
        Arc::new(Self { clock, noted: Mutex::new(Noted { starting: true, ..Noted::default() }) })
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

    /// The controller runs; gives back why it didn't before, or not well.
    pub(crate) fn run(&self, hosted: Weak<Hosted>) -> Option<&'static str> {
        let mut noted = self.noted.lock();
        noted.starting = false;
        noted.hosted = hosted;
        noted.blocked.take().map(|(reason, _)| reason)
    }

    /// What a hook call showed. Tells whether that is a change that deserves a line.
    pub(crate) fn set_hook(&self, health: HookHealth) -> bool {
        let now = self.clock.now();
        let mut noted = self.noted.lock();
        let health = match health {
            HookHealth::Reachable => {
                noted.last_success = Some(now);
                HookHealth::Reachable
            }
            HookHealth::Failing(reason, message) => {
                let recent = noted.last_success.is_some_and(|at| now.saturating_sub(at) < FAILING_AFTER);
                if recent
                    && matches!(reason, "BadCode" | "BadReply" | "Timeout" | "ConnectionBroken" | "NotHttp" | "NoRoom")
                {
                    return false;
                }
                HookHealth::Failing(reason, message)
            }
            HookHealth::Unknown => return false,
        };
        let changed = std::mem::discriminant(&noted.hook) != std::mem::discriminant(&health);
        noted.hook = health;
        let due = noted.last_line.is_none_or(|at| now.saturating_sub(at) >= LINE_INTERVAL);
        if changed && due {
            noted.last_line = Some(now);
        }
        changed && due
    }

    /// A sync of this parent did all that it wanted, or the parent is gone. Says how long it had failed, if that was
    /// told.
    pub(crate) fn not_failing(&self, parent: &ObjectKey) -> Option<Duration> {
        let trouble = self.noted.lock().failing.remove(parent)?;
        trouble.told.map(|_| self.clock.now().saturating_sub(trouble.since))
    }

    /// A sync of this parent failed. `due` says that this failure is one to be told; the answer says it too of one that
    /// comes so long after the last that was told that people can't find that one any more.
    pub(crate) fn failing(&self, parent: &ObjectKey, text: &str, due: bool) -> bool {
        let now = self.clock.now();
        let mut noted = self.noted.lock();
        noted.last_failure = format!("{parent}: {text}");
        let trouble = noted.failing.entry(parent.clone()).or_insert_with(|| Trouble {
            since: now,
            since_wall: wall_time(),
            told: None,
        });
        let tells = due || needs_reminder(trouble.told, now);
        if tells {
            trouble.told = Some(now);
        }
        tells
    }

    /// How long the parent that fails longest has been failing; zero if none does.
    pub(crate) fn failing_longest(&self) -> Duration {
        let noted = self.noted.lock();
        let since = noted.failing.values().map(|trouble| trouble.since).min();
        since.map_or(Duration::ZERO, |since| self.clock.now().saturating_sub(since))
    }

    /// The parents whose last sync failed.
    pub(crate) fn failing_parents(&self) -> Vec<ObjectKey> {
        self.noted.lock().failing.keys().cloned().collect()
    }

    /// Parents whose last sync failed.
    pub(crate) fn failing_count(&self) -> usize {
        self.noted.lock().failing.len()
    }

    pub(crate) fn is_starting(&self) -> bool {
        self.noted.lock().starting
    }

    fn health(&self) -> (i64, Health, Option<Arc<Hosted>>) {
        let noted = self.noted.lock();
        let hosted = noted.hosted.upgrade();
        let failing = Failing {
            count: noted.failing.len(),
            parents: hosted.as_ref().map_or(0, |hosted| hosted.parent_count()),
            longest: longest(&noted.failing),
            last: noted.last_failure.clone(),
        };
        let health = Health {
            rejected: noted.rejected.clone(),
            blocked: noted.blocked.clone(),
            hook: noted.hook.clone(),
            failing,
        };
        (noted.generation, health, hosted)
    }
}

fn needs_reminder(told: Option<Duration>, now: Duration) -> bool {
    told.is_some_and(|told| now.saturating_sub(told) >= REMIND_AFTER)
}

/// Which parent fails longest, and since when.
fn longest(failing: &HashMap<ObjectKey, Trouble>) -> String {
    // By key too, so that the message doesn't change by itself.
    let first = failing.iter().min_by_key(|(key, trouble)| (trouble.since, *key));
    first.map(|(key, trouble)| format!("{key} since {}", trouble.since_wall)).unwrap_or_default()
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

/// Writes statuses until cancelled.
pub(crate) async fn write_all(
    client: Client,
    boards: Arc<Boards>,
    resource: Arc<ringmaster_core::key::Resource>,
    cancel: CancellationToken,
) {
    let mut interval = tokio::time::interval(TICK);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let (mut tick, mut failures, mut paused_until) = (0u64, 0u32, 0u64);
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
        for (key, board) in all {
            let object = boards.shared.store().get(&key).cloned();
            let Some(object) = object else { continue };
            let Some(patch) = patch(&object, &board, tick.is_multiple_of(TICKS_PER_COUNT)) else { continue };
            let write = client.patch_status(&resource, &key, patch);
            let written = tokio::select! {
                () = cancel.cancelled() => return,
                written = write => written,
            };
            let asked_for = match written {
                Ok(answer) => {
                    failures = 0;
                    boards.shared.answer(answer, None, None);
                    continue;
                }
                Err(error) => {
                    match &error {
                        // It is gone, and its board soon is.
                        error if error.is_not_found() => {}
                        // A reminder at each doubling.
                        error if error.is_forbidden() && (failures + 1).is_power_of_two() => {
                            warn!(controller = %key, "status can't be written: {error}");
                        }
                        error => debug!(controller = %key, "status was not written: {error}"),
                    }
                    error.retry_after().unwrap_or_default()
                }
            };
            // Whatever it is, it hardly heals within a tick.
            failures += 1;
            let backoff = (1u64 << failures.min(6)).min(MAX_TICKS_TO_RETRY);
            paused_until = tick + backoff.max(asked_for.as_secs().div_ceil(TICK.as_secs()));
        }
    }
}

/// The patch that makes the status right; `None` if it is, or if only the count differs and isn't due.
fn patch(object: &Object, board: &Board, count_is_due: bool) -> Option<Vec<u8>> {
    let (generation, health, hosted) = board.health();
    if generation != object.generation() || board.is_starting() {
        return None;
    }
    let present: Present = object.section("status").unwrap_or_default();
    let wanted = conditions(&health, generation, &present.conditions, &wall_time());
    let fine = wanted == present.conditions && present.observed_generation == Some(generation);
    if fine && !count_is_due {
        return None;
    }
    let parents = hosted.map(|hosted| i64::try_from(hosted.parent_count()).unwrap_or(i64::MAX));
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
        HookHealth::Failing(reason, "x".to_owned())
    }

    #[test]
    fn one_bad_reply_among_good_ones_is_not_the_hook_s_failure() {
        let board = Board::new(Clock::start());
        board.set_hook(HookHealth::Reachable);
        board.set_hook(failing("BadCode"));
        assert_eq!(board.health().1.hook, HookHealth::Reachable);
        board.set_hook(failing("ConnectionRefused"));
        assert_eq!(board.health().1.hook, failing("ConnectionRefused"));
        let never_answered = Board::new(Clock::start());
        never_answered.set_hook(failing("BadCode"));
        assert_eq!(never_answered.health().1.hook, failing("BadCode"));
    }

    #[test]
    fn a_parent_fails_since_its_first_failure_and_is_told_when_due() {
        let (board, key) = (Board::new(Clock::start()), ObjectKey::new("n", "a"));
        assert_eq!((board.not_failing(&key), board.failing_longest()), (None, Duration::ZERO));
        assert!(!board.failing(&key, "x", false));
        assert_eq!(board.not_failing(&key), None, "what nobody heard of has no end to tell");
        assert!(board.failing(&key, "x", true) && !board.failing(&key, "y", false));
        let (_, health, _) = board.health();
        assert!(health.failing.count == 1 && health.failing.last == "n/a: y", "{health:?}");
        assert!(health.failing.longest.starts_with("n/a since 2"), "{health:?}");
        assert!(board.not_failing(&key).is_some() && board.failing_count() == 0);
        let told = Duration::from_secs(7);
        assert!(needs_reminder(Some(told), told + REMIND_AFTER));
        assert!(!needs_reminder(Some(told), REMIND_AFTER) && !needs_reminder(None, told + REMIND_AFTER));
    }

    #[test]
    fn a_flapping_hook_is_not_a_line_each_time() {
        let board = Board::new(Clock::start());
        let lines = (0..100).filter(|round| {
            board.set_hook(if round % 2 == 0 { failing("ConnectionRefused") } else { HookHealth::Reachable })
        });
        assert_eq!(lines.count(), 1);
    }
}
