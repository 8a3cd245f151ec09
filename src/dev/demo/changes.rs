//! What happens every few seconds: a title changes, a child is deleted, a theme vanishes and returns.
//!
//! Never goes on before it saw what the change led to, or gave up waiting for it.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::load::Wishes;
use super::scene::{self, FICKLE};
use super::view::{Change, Moment, short};
use crate::objects::{Error, Objects};

/// Pause between two changes.
const PAUSE: Duration = Duration::from_secs(3);
/// How long a consequence is awaited.
const PATIENCE: Duration = Duration::from_secs(30);
/// How often it is looked for.
const LOOK: Duration = Duration::from_millis(3);
/// Changes that are kept.
const KEPT: usize = 100;
/// The children that are deleted in turn.
const CHILDREN: [(&str, &str); 3] =
    [("configmaps", "ConfigMap"), ("services", "Service"), ("deployments", "Deployment")];

/// What happened, the newest last; cheap to clone, and shared with who shows it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Log {
    kept: Arc<Mutex<VecDeque<Change>>>,
    /// The last moment's number.
    last: Arc<AtomicU64>,
}

impl Log {
    /// An empty one whose moments are in one order with those of this one.
    pub(crate) fn beside(&self) -> Self {
        Self { last: Arc::clone(&self.last), ..Self::default() }
    }

    fn now(&self) -> Moment {
        #[expect(clippy::disallowed_methods, reason = "for people")]
        let time = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
        Moment { number: self.last.fetch_add(1, Ordering::Relaxed) + 1, time }
    }

    /// Something is done: its number.
    pub(crate) fn begin(&self, what: String) -> u64 {
        let mut changes = self.kept.lock();
        let begun = self.now();
        let number = begun.number;
        changes.push_back(Change { begun, what, outcome: None });
        while changes.len() > KEPT {
            changes.pop_front();
        }
        number
    }

    /// What came of it.
    pub(crate) fn end(&self, number: u64, outcome: String) {
        let mut changes = self.kept.lock();
        if let Some(change) = changes.iter_mut().find(|change| change.begun.number == number) {
            change.outcome = Some((self.now(), outcome));
        }
    }

    /// All that is kept.
    pub(crate) fn all(&self) -> VecDeque<Change> {
        self.kept.lock().clone()
    }
}

/// Changes one thing after another until it is dropped.
pub(crate) async fn run(objects: &Objects, websites: usize, wishes: &Mutex<Wishes>, log: &Log) {
    for round in 0.. {
        for step in 0..4 {
            tokio::time::sleep(PAUSE).await;
            let ready = ready(objects).await;
            // Somebody else may have broken them all.
            let Some(name) = fastrand::choice(&ready).filter(|_| step < 2 || websites > 2) else { continue };
            match step {
                0 => {
                    wishes.lock().spare(Some(name));
                    title(objects, name, round, log).await;
                    wishes.lock().spare(None);
                }
                1 => child(objects, name, CHILDREN[round % CHILDREN.len()], log).await,
                2 => theme(objects, false, log).await,
                _ => theme(objects, true, log).await,
            }
        }
    }
}

/// The names of the Websites that are ready; a change of another one would show nothing.
async fn ready(objects: &Objects) -> Vec<String> {
    let all = objects.list(&scene::websites()).await.unwrap_or_default();
    let ready = all.iter().filter(|website| website["status"]["phase"] == "Ready");
    ready.filter_map(|website| website["metadata"]["name"].as_str().map(str::to_owned)).collect()
}

async fn title(objects: &Objects, name: &str, round: usize, log: &Log) {
    let title = format!("Edition {}", round + 1);
    let path = scene::child("configmaps", name);
    let change = async {
        let patch = json!({ "spec": { "title": title } });
        objects.merge(&scene::website(name), &patch).await.map(drop)
    };
    let what = format!("{name} gets the title \"{title}\"");
    let updated = async || {
        let page = objects.get(&path).await?.unwrap_or_default();
        Ok(page["data"]["index.html"].as_str().is_some_and(|html| html.contains(&title)))
    };
    observe(log, what, change, updated, "page updated").await;
}

async fn child(objects: &Objects, name: &str, (plural, kind): (&str, &str), log: &Log) {
    let path = scene::child(plural, name);
    let uid = |object: Option<Value>| object.map(|object| object["metadata"]["uid"].clone());
    let before = objects.get(&path).await.ok().and_then(uid);
    let back = async || Ok(uid(objects.get(&path).await?).is_some_and(|now| Some(now) != before));
    observe(log, format!("{kind} {name} is deleted"), objects.delete(&path), back, "made again").await;
}

async fn theme(objects: &Objects, returns: bool, log: &Log) {
    let path = format!("{}/{FICKLE}", scene::themes());
    let change = async {
        match scene::fickle_theme() {
            Ok(theme) if returns => objects.apply(&theme).await.map(drop),
            _ => objects.delete(&path).await,
        }
    };
    let (what, then, phase) = match returns {
        false => (format!("theme {FICKLE} vanishes"), "its Websites say so", "Error"),
        true => (format!("theme {FICKLE} returns"), "its Websites are ready", "Ready"),
    };
    let noticed = async || {
        let all = objects.list(&scene::websites()).await?;
        let mut with_it = all.iter().filter(|website| website["spec"]["theme"] == FICKLE);
        Ok(with_it.all(|website| website["status"]["phase"] == phase))
    };
    observe(log, what, change, noticed, then).await;
}

/// Makes a change, waits for what follows, and writes both down.
async fn observe(
    log: &Log,
    what: String,
    change: impl Future<Output = Result<(), Error>>,
    followed: impl AsyncFn() -> Result<bool, Error>,
    then: &str,
) {
    let number = log.begin(what);
    let start = Instant::now();
    let wait = async {
        change.await?;
        while !followed().await? {
            tokio::time::sleep(LOOK).await;
        }
        Ok::<_, Error>(())
    };
    let outcome = match tokio::time::timeout(PATIENCE, wait).await {
        Ok(Ok(())) => format!("{then} after {}", short(start.elapsed())),
        Ok(Err(error)) => format!("failed: {error}"),
        Err(_) => format!("not yet after {} s: {then}", PATIENCE.as_secs()),
    };
    log.end(number, outcome);
}
