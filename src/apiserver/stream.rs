//! A watch as a stream of lines: what there is, what happened, what happens, and bookmarks between.
//!
//! Never buffers without bound: a client that is too slow for the store's backlog is closed, and lists anew.

use std::collections::VecDeque;
use std::time::Duration;

use bytes::Bytes;
use futures::Stream;
use serde_json::{Value, json};
use tokio::sync::broadcast::error::RecvError;
use tokio::time::{Instant, Interval, MissedTickBehavior};

use crate::error::Error;
use crate::read::Watched;
use crate::shape::shown;
use crate::store::Event;

/// A watch is ended after this long if the client names no time.
const TIMEOUT: Duration = Duration::from_secs(1800);
/// A watch with bookmarks gets one this often.
const BOOKMARK_INTERVAL: Duration = Duration::from_secs(60);

/// How an object is shown in an event.
pub(crate) type Show = Box<dyn FnMut(Value) -> Value + Send>;

struct Lines {
    waiting: VecDeque<Bytes>,
    watched: Watched,
    show: Show,
    bookmarks: Option<Interval>,
    revision: u64,
    deadline: Instant,
}

/// The lines of a watch. `timeout` and `bookmarks` are what the client asked for.
pub(crate) fn lines(
    mut watched: Watched,
    timeout: Option<Duration>,
    bookmarks: bool,
    mut show: Show,
) -> impl Stream<Item = Result<Bytes, std::convert::Infallible>> + Send {
    let mut waiting = VecDeque::new();
    for object in std::mem::take(&mut watched.initial) {
        waiting.push_back(line("ADDED", &show(shown(&watched.definition, &object))));
    }
    let mut revision = watched.revision;
    if watched.bookmark_initial {
        waiting.push_back(line("BOOKMARK", &show(bookmark(&watched, revision, true))));
    }
    for event in std::mem::take(&mut watched.events) {
        revision = revision.max(event.revision);
        waiting.extend(event_line(&watched, &event, &mut show));
    }
    let bookmarks = bookmarks.then(|| {
        let mut interval = tokio::time::interval_at(Instant::now() + BOOKMARK_INTERVAL, BOOKMARK_INTERVAL);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        interval
    });
    let deadline = Instant::now() + timeout.unwrap_or(TIMEOUT);
    let state = Lines { waiting, watched, show, bookmarks, revision, deadline };
    futures::stream::unfold(state, |mut state| async move { state.next().await.map(|line| (Ok(line), state)) })
}

/// The only line of a watch that can't begin.
pub(crate) fn failed(error: &Error) -> Bytes {
    line("ERROR", &error.status())
}

impl Lines {
    async fn next(&mut self) -> Option<Bytes> {
        loop {
            if let Some(line) = self.waiting.pop_front() {
                return Some(line);
            }
            let tick = async {
                match &mut self.bookmarks {
                    Some(interval) => interval.tick().await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = tokio::time::sleep_until(self.deadline) => return None,
                _ = tick => {
                    return Some(line("BOOKMARK", &(self.show)(bookmark(&self.watched, self.revision, false))));
                }
                event = self.watched.receiver.recv() => match event {
                    // A watch may begin in the future.
                    Ok(event) if event.revision <= self.watched.revision => {}
                    Ok(event) => {
                        self.revision = self.revision.max(event.revision);
                        self.waiting.extend(event_line(&self.watched, &event, &mut self.show));
                    }
                    // Too slow, or the kind is gone.
                    Err(RecvError::Lagged(_) | RecvError::Closed) => return None,
                },
            }
        }
    }
}

/// What a change looks like to who sees only a part of the objects.
fn event_line(watched: &Watched, event: &Event, show: &mut Show) -> Option<Bytes> {
    let (filter, definition) = (&watched.filter, &watched.definition);
    let before = event.old.as_ref().is_some_and(|old| filter.matches(old));
    match &event.new {
        Some(new) if filter.matches(new) => {
            Some(line(if before { "MODIFIED" } else { "ADDED" }, &show(shown(definition, new))))
        }
        Some(_) if before => {
            // Out of sight: as it was last seen, at the version that took it away.
            let mut last = shown(definition, event.old.as_ref()?);
            last["metadata"]["resourceVersion"] = event.revision.to_string().into();
            Some(line("DELETED", &show(last)))
        }
        None if before => Some(line("DELETED", &show(shown(definition, event.last.as_ref()?)))),
        _ => None,
    }
}

fn bookmark(watched: &Watched, revision: u64, initial_end: bool) -> Value {
    let resource = &watched.definition.resource;
    let mut metadata = json!({ "resourceVersion": revision.to_string() });
    if initial_end {
        metadata["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    json!({ "kind": &*resource.kind, "apiVersion": resource.api_version.as_str(), "metadata": metadata })
}

fn line(kind: &str, object: &Value) -> Bytes {
    let mut text = json!({ "type": kind, "object": object }).to_string();
    text.push('\n');
    text.into()
}
