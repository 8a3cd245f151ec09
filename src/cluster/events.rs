//! Events on objects: one task posts them, one after the other, within rates per object and of the process.
//!
//! Never delays a sync: an event that finds the queue full, or no room in its rates, is dropped and counted. Never
//! hurries an API server that doesn't take them. How an event becomes an object is `record`'s.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringmaster_core::queue::backoff;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::client::Meter;
use crate::rate::Rates;
use crate::record::Recorder;
use crate::{Client, Error};

/// Events waiting to be posted.
pub const MAX_QUEUED_EVENTS: usize = 256;
/// A note is cut at this many bytes: what the API allows.
const MAX_NOTE_BYTES: usize = 1024;

/// After a failed post, the next one waits for as long as the API server asked for, or else for a backoff of at most this.
const MAX_PAUSE: Duration = Duration::from_secs(10);
/// The same where this one event was refused, as in a namespace that ends: others must not wait long for it.
const MAX_PAUSE_REFUSED: Duration = Duration::from_millis(200);

/// So many events in a row may fail to be posted before anybody is told.
const QUIET_FAILURES: u32 = 3;

/// What an event is about.
#[derive(Clone, Debug)]
pub struct Subject {
    /// Group and version.
    pub api_version: String,
    /// Kind.
    pub kind: String,
    /// Namespace, empty when cluster-scoped.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Uid.
    pub uid: String,
}

/// How much an event matters. Each level has rates of its own, so that none takes the place of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Level {
    /// Something is wrong.
    Warning,
    /// Something began, or is well again.
    Notice,
    /// What is done all the time, such as changes of children.
    Routine,
    /// What a hook says is wrong.
    HookWarning,
    /// What a hook says else.
    HookNotice,
}

impl Level {
    /// Whether it is about something that is wrong.
    pub(crate) const fn warns(self) -> bool {
        matches!(self, Self::Warning | Self::HookWarning)
    }
}

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// What it is about.
    pub subject: Subject,
    /// How much it matters.
    pub level: Level,
    /// A word in CamelCase.
    pub reason: String,
    /// A sentence.
    pub note: String,
}

/// Where events are handed in; cheap to clone.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Event>,
    meter: Arc<dyn Meter>,
    rates: Arc<Mutex<Rates>>,
    hasher: RandomState,
    start: Instant,
}

impl Events {
    /// A handle, and the work that must be run as a task until `cancel`. `per_second` and `burst` limit the events of
    /// one object at each level.
    pub fn new(
        client: &Client,
        meter: Arc<dyn Meter>,
        (per_second, burst): (f64, u32),
        cancel: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (queue, waiting) = mpsc::channel(MAX_QUEUED_EVENTS);
        let recorder = Recorder::new(client.clone());
        let work = post(recorder, waiting, Arc::clone(&meter), cancel);
        let rates = Arc::new(Mutex::new(Rates::new(per_second, burst)));
        (Self { queue, meter, rates, hasher: RandomState::new(), start: Instant::now() }, work)
    }

    /// Hands an event in; never waits.
    pub fn send(&self, mut event: Event) {
        // Its place first: what finds none uses up no rate. What has no rate takes no place.
        let Ok(place) = self.queue.try_reserve() else { return self.meter.limit_hit("queued_events") };
        let object = self.hasher.hash_one(&event.subject.uid);
        let message = self.hasher.hash_one(&event.note);
        let taken = self.rates.lock().take(event.level, object, message, self.start.elapsed());
        if let Err(limit) = taken {
            return self.meter.limit_hit(limit);
        }
        event.note.truncate(cut(&event.note, MAX_NOTE_BYTES).len());
        place.send(event);
    }
}

async fn post(
    mut recorder: Recorder,
    mut waiting: mpsc::Receiver<Event>,
    meter: Arc<dyn Meter>,
    cancel: CancellationToken,
) {
    let start = Instant::now();
    let hasher = RandomState::new();
    let mut failures = 0u32;
    loop {
        let event = tokio::select! {
            () = cancel.cancelled() => return,
            event = waiting.recv() => event,
        };
        let Some(event) = event else { return };
        let posted = tokio::select! {
            () = cancel.cancelled() => return,
            posted = recorder.post(event, start.elapsed()) => posted,
        };
        let error = match posted {
            Ok(forgotten) => {
                if forgotten {
                    meter.limit_hit("remembered_events");
                }
                failures = 0;
                continue;
            }
            Err(error) => error,
        };
        failures = failures.saturating_add(1);
        // A few get lost in ending namespaces and restarts; a reminder at each doubling.
        if failures > QUIET_FAILURES && failures.is_power_of_two() {
            warn!(failures, "events can't be posted, so look for causes here: {error}");
        } else {
            debug!(failures, "event was not posted: {error}");
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            () = tokio::time::sleep(pause(&error, failures, hasher.hash_one(failures))) => {}
        }
    }
}

/// How long nothing is posted after `failures` in a row, the last of which is `error`.
fn pause(error: &Error, failures: u32, random: u64) -> Duration {
    let refused = error.is_refused() || error.is_not_found() || error.code() == Some(409);
    let most = if refused { MAX_PAUSE_REFUSED } else { MAX_PAUSE };
    error.retry_after().unwrap_or_else(|| backoff(failures, random).min(most))
}

/// As many whole characters as fit into so many bytes.
pub(crate) fn cut(text: &str, bytes: usize) -> &str {
    let end = (0..=bytes.min(text.len())).rev().find(|at| text.is_char_boundary(*at));
    end.and_then(|end| text.get(..end)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fails_again_waits_longer_and_as_long_as_asked() {
        let answer = |code, retry_after| Error::from_answer("POST /x".into(), code, retry_after, b"{}");
        let waits = |error: &Error, failures| pause(error, failures, u64::MAX).as_millis();
        let away = Error::Timeout { call: "POST /x".into(), after: MAX_PAUSE };
        for error in [&away, &answer(500, None), &answer(429, None), &answer(401, None)] {
            assert_eq!(
                [1, 2, 3, 8, 99].map(|failures| waits(error, failures)),
                [100, 200, 400, 10_000, 10_000],
                "{error}"
            );
        }
        for code in [403, 404, 409, 422] {
            assert_eq!([1, 2, 8, 99].map(|failures| waits(&answer(code, None), failures)), [100, 200, 200, 200]);
        }
        assert_eq!(waits(&answer(429, Some(Duration::from_secs(30))), 1), 30_000);
        assert_eq!(waits(&answer(503, Some(Duration::from_secs(1))), 50), 1000);
    }
}
