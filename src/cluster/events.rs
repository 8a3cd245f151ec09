//! Events on objects: one task posts them, one after the other, within a rate per object.
//!
//! Never delays a sync: an event that finds the queue full is dropped and counted. Equal events are counted up by
//! `kube`'s recorder instead of being posted anew.

use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event as KubeEvent, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::Client;
use crate::client::Meter;
use crate::rate::Buckets;

/// Events waiting to be posted.
pub const MAX_QUEUED_EVENTS: usize = 256;
/// Posts after which the recorder's memory of what it may count up is given up: it has no limit of its own, and looks at
/// all of it for each event. An event that comes again then is one object more.
const MAX_REMEMBERED_POSTS: usize = 2048;
/// A note is cut at this many bytes; the API allows 1 KiB.
const MAX_NOTE_BYTES: usize = 1000;
/// Posting one event may take this long.
const POST_TIMEOUT: Duration = Duration::from_secs(10);

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

/// One event.
#[derive(Clone, Debug)]
pub struct Event {
    /// What it is about.
    pub subject: Subject,
    /// Something is wrong.
    pub warning: bool,
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
}

impl Events {
    /// A handle, and the work that must be run as a task until `cancel`. `per_second` and `burst` limit the events of
    /// one object.
    pub fn new(
        client: &Client,
        meter: Arc<dyn Meter>,
        (per_second, burst): (f64, u32),
        cancel: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + use<>) {
        let (queue, waiting) = mpsc::channel(MAX_QUEUED_EVENTS);
        let reporter = Reporter { controller: "ringmaster".to_owned(), instance: None };
        let kube = client.kube().clone();
        let recorder = move || Recorder::new(kube.clone(), reporter.clone());
        let work = post(recorder, waiting, Buckets::new(per_second, burst), Arc::clone(&meter), cancel);
        (Self { queue, meter }, work)
    }

    /// Hands an event in; never waits.
    pub fn send(&self, mut event: Event) {
        event.note = cut(event.note);
        if self.queue.try_send(event).is_err() {
            self.meter.limit_hit("queued_events");
        }
    }
}

async fn post(
    recorder: impl Fn() -> Recorder,
    mut waiting: mpsc::Receiver<Event>,
    mut buckets: Buckets,
    meter: Arc<dyn Meter>,
    cancel: CancellationToken,
) {
    let start = Instant::now();
    let hasher = RandomState::new();
    let (new_recorder, mut recorder, mut posts) = (&recorder, recorder(), 0);
    let mut failures = 0u32;
    loop {
        let event = tokio::select! {
            () = cancel.cancelled() => return,
            event = waiting.recv() => event,
        };
        let Some(event) = event else { return };
        let message = hasher.hash_one(&event.note);
        if !buckets.take(hasher.hash_one(&event.subject.uid), message, start.elapsed()) {
            meter.limit_hit("events_rate");
            continue;
        }
        let subject = event.subject;
        let reference = ObjectReference {
            api_version: Some(subject.api_version),
            kind: Some(subject.kind),
            namespace: Some(subject.namespace).filter(|namespace| !namespace.is_empty()),
            name: Some(subject.name),
            uid: Some(subject.uid),
            ..ObjectReference::default()
        };
        let event = KubeEvent {
            type_: if event.warning { EventType::Warning } else { EventType::Normal },
            // The recorder counts events up by all fields but the note: with it in here, a new message is a new event.
            action: format!("{}-{:08x}", event.reason, message as u32),
            reason: event.reason,
            note: Some(event.note),
            secondary: None,
        };
        if posts == MAX_REMEMBERED_POSTS {
            (recorder, posts) = (new_recorder(), 0);
        }
        posts += 1;
        let problem = match tokio::time::timeout(POST_TIMEOUT, recorder.publish(&event, &reference)).await {
            Ok(Ok(())) => {
                failures = 0;
                continue;
            }
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {POST_TIMEOUT:?}"),
        };
        failures = failures.saturating_add(1);
        // A few get lost in ending namespaces and restarts; a reminder at each doubling.
        if failures > QUIET_FAILURES && failures.is_power_of_two() {
            warn!(failures, "events can't be posted, so look for causes here: {problem}");
        } else {
            debug!(failures, "event was not posted: {problem}");
        }
    }
}

fn cut(mut note: String) -> String {
    let end = (0..=MAX_NOTE_BYTES.min(note.len())).rev().find(|at| note.is_char_boundary(*at)).unwrap_or(0);
    note.truncate(end);
    note
}
