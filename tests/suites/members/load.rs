//! Parents that are created, changed and deleted all the time, with a book of what each shall be.
//!
//! Never gives up on a write: an API server that is away is asked again until it has answered, so the book is right.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};
use futures::TryStreamExt as _;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::members::check::Wish;
use crate::objects::{Objects, Resource, code};
use crate::server::lock;

/// Requests at once where many parents are made.
const CONNECTIONS: usize = 16;
/// How long one request may take before it is asked again.
const ANSWER: Duration = Duration::from_secs(5);
/// How soon a write that failed is tried again.
const AGAIN: Duration = Duration::from_millis(100);
/// How long a write may fail before the trial does.
const GIVE_UP: Duration = Duration::from_secs(180);
/// Of a hundred turns: how many create a parent, and how many delete one; the others change one.
const CREATES: u32 = 15;
/// See [`CREATES`].
const DELETES: u32 = 15;

/// The label by which controllers divide parents.
pub(crate) const GROUP: &str = "group";

/// One change that was written.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    /// The parent's key: `namespace/name`, or a name.
    pub(crate) parent: String,
    /// The number that it got.
    pub(crate) number: u64,
    /// When the API server had answered.
    pub(crate) at: Instant,
}

#[derive(Default)]
struct Book {
    /// By name.
    live: BTreeMap<String, Wish>,
    /// Keys of those that were deleted.
    deleted: BTreeSet<String>,
    changes: Vec<Change>,
    made: u64,
    number: u64,
}

/// One request of the load's, for the parent with this name.
#[derive(Debug)]
enum Write<'a> {
    Create(&'a str, Value),
    Change(&'a str, Value),
    Delete(&'a str),
}

/// The parents of a trial.
pub(crate) struct Load {
    admin: Objects,
    things: Resource,
    naming: Naming,
    book: Mutex<Book>,
}

/// What parents are like.
#[derive(Clone, Debug)]
pub(crate) struct Naming {
    /// Where cluster-scoped ones want their children.
    pub(crate) child_namespace: Option<String>,
    /// So many groups, by the label [`GROUP`].
    pub(crate) groups: u64,
    /// Whether they are named by `generateName`: for trials in which no answer is lost.
    pub(crate) generated: bool,
}

impl Load {
    /// Nothing is created yet.
    pub(crate) fn new(admin: Objects, things: Resource, naming: Naming) -> Self {
        Self { admin, things, naming, book: Mutex::default() }
    }

    fn key(&self, name: &str) -> String {
        self.things.namespace.as_ref().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
    }

    fn number(&self) -> u64 {
        let mut book = lock(&self.book);
        book.number += 1;
        book.number
    }

    /// Creates so many parents, many at a time.
    ///
    /// # Errors
    /// The API server refuses one.
    pub(crate) async fn create_many(&self, count: usize) -> anyhow::Result<()> {
        let creates = futures::stream::iter((0..count).map(anyhow::Ok));
        creates.try_for_each_concurrent(CONNECTIONS, |_| self.create()).await
    }

    /// One parent more.
    ///
    /// # Errors
    /// The API server refuses it.
    pub(crate) async fn create(&self) -> anyhow::Result<()> {
        let number = self.number();
        let made = {
            let mut book = lock(&self.book);
            book.made += 1;
            book.made
        };
        let name = format!("p{made}");
        let mut spec = json!({ "number": number });
        if let Some(namespace) = &self.naming.child_namespace {
            spec["childNamespace"] = namespace.clone().into();
        }
        let mut metadata = json!({ "labels": { GROUP: (made % self.naming.groups.max(1)).to_string() } });
        if self.naming.generated {
            metadata["generateName"] = "p-".into();
        } else {
            metadata["name"] = name.clone().into();
        }
        let body = json!({ "metadata": metadata, "spec": spec });
        let created = self.patiently(&Write::Create(&name, body)).await?;
        self.note(created["metadata"]["name"].as_str().context("no name")?, number, &created)
    }

    /// Another number for a parent.
    ///
    /// # Errors
    /// The API server refuses it.
    pub(crate) async fn change(&self, name: &str) -> anyhow::Result<u64> {
        let number = self.number();
        let changed = self.patiently(&Write::Change(name, json!({ "spec": { "number": number } }))).await?;
        self.note(name, number, &changed)?;
        Ok(number)
    }

    /// Deletes a parent.
    ///
    /// # Errors
    /// The API server refuses it.
    pub(crate) async fn delete(&self, name: &str) -> anyhow::Result<()> {
        // Written down first: from now on nobody needs to serve it.
        {
            let mut book = lock(&self.book);
            book.live.remove(name);
            book.deleted.insert(self.key(name));
        }
        self.patiently(&Write::Delete(name)).await.map(drop)
    }

    /// Asks until it is answered: a 4xx other than 429 is an answer, all else is asked again.
    async fn patiently(&self, write: &Write<'_>) -> anyhow::Result<Value> {
        let start = Instant::now();
        loop {
            let error = match tokio::time::timeout(ANSWER, self.ask(write)).await {
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => error,
                Err(_) => anyhow!("no answer within {ANSWER:?}"),
            };
            if matches!(code(&error), Some(400..=428 | 430..=499)) {
                return Err(error.context(format!("{write:?}")));
            }
            ensure!(start.elapsed() < GIVE_UP, "{write:?}: {error:#}");
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn ask(&self, write: &Write<'_>) -> anyhow::Result<Value> {
        match write {
            Write::Create(name, body) => match self.admin.create(&self.things, body.clone()).await {
                // An answer before this one was lost.
                Err(error) if code(&error) == Some(409) => self.admin.get(&self.things, name).await,
                made => made,
            },
            Write::Change(name, patch) => self.admin.patch_merge(&self.things, name, patch).await,
            Write::Delete(name) => self.admin.delete(&self.things, name).await.map(Value::from),
        }
    }

    fn note(&self, name: &str, number: u64, object: &Value) -> anyhow::Result<()> {
        let uid = object["metadata"]["uid"].as_str().context("no uid")?.to_owned();
        let parent = self.key(name);
        let mut book = lock(&self.book);
        book.changes.push(Change { parent: parent.clone(), number, at: Instant::now() });
        book.live.insert(name.to_owned(), Wish { parent, uid, number });
        Ok(())
    }

    /// Creates, changes or deletes one, by chance.
    async fn turn(&self) -> anyhow::Result<()> {
        let chance = fastrand::u32(..100);
        if chance < CREATES {
            return self.create().await;
        }
        let Some(name) = self.any() else { return Ok(()) };
        if chance < CREATES + DELETES { self.delete(&name).await } else { self.change(&name).await.map(drop) }
    }

    /// Some parent's name.
    pub(crate) fn any(&self) -> Option<String> {
        let book = lock(&self.book);
        let names: Vec<&String> = book.live.keys().collect();
        fastrand::choice(names).cloned()
    }

    /// What every parent shall be.
    pub(crate) fn wishes(&self) -> Vec<Wish> {
        lock(&self.book).live.values().cloned().collect()
    }

    /// The keys of the parents that were deleted.
    pub(crate) fn deleted(&self) -> BTreeSet<String> {
        lock(&self.book).deleted.clone()
    }

    /// Everything that was written, in order of answers.
    pub(crate) fn changes(&self) -> Vec<Change> {
        lock(&self.book).changes.clone()
    }

    /// Takes turns, so many a second, until it is stopped.
    pub(crate) fn run(self: &Arc<Self>, per_second: u32) -> Running {
        let (load, stop) = (Arc::clone(self), Arc::new(AtomicBool::new(false)));
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(Duration::from_secs(1) / per_second.max(1));
            // What was missed while the API server was away isn't made up for.
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            while !stopped.load(Ordering::SeqCst) {
                ticks.tick().await;
                load.turn().await?;
            }
            Ok(())
        });
        Running { stop, task }
    }
}

/// A load that runs.
pub(crate) struct Running {
    stop: Arc<AtomicBool>,
    task: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Ends it, once its last write is answered.
    ///
    /// # Errors
    /// A write was refused.
    pub(crate) async fn stop(self) -> anyhow::Result<()> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.await?
    }
}
