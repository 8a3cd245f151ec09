//! When each Website became ready, as a watch of them tells it from outside.
//!
//! Never asks the controller.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;
use serde_json::Value;
use tokio::sync::Notify;
use tokio_util::task::AbortOnDropHandle;

use crate::load::Target;
use crate::server::lock;

use super::work;

#[derive(Deserialize)]
struct Event {
    #[serde(rename = "type")]
    kind: String,
    object: Object,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    status: Value,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
}

#[derive(Default)]
struct State {
    round: usize,
    ready: HashMap<String, Instant>,
    ended: Option<String>,
}

/// What a watch has told so far.
#[derive(Clone, Default)]
pub(crate) struct Board {
    state: Arc<Mutex<State>>,
    news: Arc<Notify>,
    /// Ends with the last that looks at it.
    watch: Option<Arc<AbortOnDropHandle<()>>>,
}

impl Board {
    /// Watches the Websites of a namespace, as a task of this runtime.
    pub(crate) async fn watch(target: &Target, namespace: &str) -> anyhow::Result<Self> {
        let mut board = Self::default();
        let connection = target.connect().await?;
        let path = format!("{}?watch=true", work::collection(namespace, "websites"));
        let mine = board.clone();
        let watch = tokio::spawn(async move {
            let ended = connection.follow(&path, |line| mine.note(line)).await;
            lock(&mine.state).ended = ended.err().map(|error| format!("{error:#}"));
            mine.news.notify_one();
        });
        board.watch = Some(Arc::new(AbortOnDropHandle::new(watch)));
        Ok(board)
    }

    fn note(&self, line: &[u8]) -> anyhow::Result<()> {
        let event: Event = serde_json::from_slice(line)?;
        ensure!(event.kind != "ERROR", "{}", String::from_utf8_lossy(line));
        let mut state = lock(&self.state);
        if work::is_ready(&event.object.status, state.round) {
            state.ready.entry(event.object.metadata.name).or_insert_with(Instant::now);
            self.news.notify_one();
        }
        Ok(())
    }

    /// Forgets who was ready: from now on it takes the title of `round`.
    pub(crate) fn begin(&self, round: usize) {
        let mut state = lock(&self.state);
        (state.round, state.ready) = (round, HashMap::new());
    }

    /// Waits until `count` are ready; gives back when each became it.
    ///
    /// # Errors
    /// The watch ended, or it took longer than `most`.
    pub(crate) async fn ready(&self, count: usize, most: Duration) -> anyhow::Result<HashMap<String, Instant>> {
        let wait = async {
            loop {
                {
                    let state = lock(&self.state);
                    if let Some(why) = &state.ended {
                        bail!("{why}");
                    }
                    if state.ready.len() >= count {
                        return Ok(state.ready.clone());
                    }
                }
                self.news.notified().await;
            }
        };
        let waited = tokio::time::timeout(most, wait).await;
        waited.with_context(|| format!("{} of {count} ready after {most:?}", lock(&self.state).ready.len()))?
    }
}
