//! Every version of the trial's Secrets and ConfigMaps that a watch shows: who had them when, by their labels.
//!
//! Never forgets, and tells if it may have missed something.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use http::Request;
use http::header::ACCEPT;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::objects::{Objects, Resource};
use crate::server::lock;

/// How soon a watch that ended is begun again.
const AGAIN: Duration = Duration::from_millis(50);
/// What is asked for of each object.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1";

/// Which kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Kind {
    /// The main one.
    Secret,
    /// The controlled one.
    ConfigMap,
}

/// One version of an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Seen {
    /// When the watch showed it.
    pub(crate) at: Instant,
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its uid.
    pub(crate) uid: String,
    /// Its name.
    pub(crate) name: String,
    /// Its resourceVersion; that of the deletion if it was.
    pub(crate) version: u64,
    /// The shard that its label names.
    pub(crate) shard: Option<String>,
    /// Whether it is to be let go.
    pub(crate) is_draining: bool,
    /// Whether it was deleted.
    pub(crate) is_deleted: bool,
}

/// All of them, in the order in which each kind's came.
#[derive(Clone, Debug, Default)]
pub(crate) struct History {
    /// The versions.
    pub(crate) events: Vec<Seen>,
    /// How often versions may have been missed.
    pub(crate) gaps: usize,
}

impl History {
    /// Each object's last version, by name.
    pub(crate) fn present(&self, kind: Kind) -> BTreeMap<&str, &Seen> {
        let mut present: BTreeMap<&str, &Seen> = BTreeMap::new();
        for seen in self.events.iter().filter(|seen| seen.kind == kind) {
            if seen.is_deleted {
                present.remove(seen.name.as_str());
            } else {
                present.insert(seen.name.as_str(), seen);
            }
        }
        present
    }

    /// Who has how many Secrets.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        let mut counts: BTreeMap<String, usize> = BTreeMap::new();
        for shard in self.present(Kind::Secret).into_values().filter_map(|seen| seen.shard.as_ref()) {
            *counts.entry(shard.clone()).or_default() += 1;
        }
        counts
    }

    /// How many objects of a kind have another shard than at an earlier place of the record.
    pub(crate) fn moved(&self, kind: Kind, mark: usize) -> usize {
        let before = Self { events: self.events[..mark.min(self.events.len())].to_vec(), gaps: 0 };
        let (before, now) = (before.present(kind), self.present(kind));
        now.iter().filter(|(name, seen)| before.get(*name).is_some_and(|was| was.shard != seen.shard)).count()
    }

    /// From the moment at which each Secret with such a name was first seen to that at which it was seen with a shard.
    pub(crate) fn assigned(&self, names: &BTreeSet<String>) -> Vec<Duration> {
        let mut first: BTreeMap<&str, Instant> = BTreeMap::new();
        let mut assigned: BTreeMap<&str, Duration> = BTreeMap::new();
        for seen in self.events.iter().filter(|seen| seen.kind == Kind::Secret && names.contains(&seen.name)) {
            let since = *first.entry(&seen.name).or_insert(seen.at);
            if seen.shard.is_some() {
                assigned.entry(&seen.name).or_insert_with(|| seen.at.duration_since(since));
            }
        }
        assigned.into_values().collect()
    }

    /// When each object of a kind that was a shard's at a place of the record was first seen to be another's; `None` if one
    /// wasn't.
    pub(crate) fn taken_over(&self, kind: Kind, shard: &str, mark: usize) -> Option<Vec<Instant>> {
        let mark = mark.min(self.events.len());
        let before = Self { events: self.events[..mark].to_vec(), gaps: 0 };
        let present = before.present(kind);
        let of_shard = present.into_iter().filter(|(_, seen)| seen.shard.as_deref() == Some(shard));
        let is_others = |seen: &&Seen, name: &str| {
            seen.kind == kind && seen.name == name && seen.shard.as_deref().is_some_and(|now| now != shard)
        };
        of_shard
            .map(|(name, _)| self.events[mark..].iter().find(|seen| is_others(seen, name)).map(|seen| seen.at))
            .collect()
    }

    /// For each Secret that went from one shard to another since a place of the record, what is wrong with the order: it is
    /// let go, then its child goes, then it gets its new shard. `child` gives a Secret's child's name.
    pub(crate) fn misordered(&self, mark: usize, child: impl Fn(&str) -> String) -> Vec<String> {
        let since = &self.events[mark.min(self.events.len())..];
        let mut wrong = Vec::new();
        let of = |kind: Kind, name: &str| -> Vec<&Seen> {
            since.iter().filter(|seen| seen.kind == kind && seen.name == name).collect()
        };
        let names: BTreeSet<&str> =
            since.iter().filter(|seen| seen.kind == Kind::Secret).map(|seen| seen.name.as_str()).collect();
        for name in names {
            let (main, child) = (of(Kind::Secret, name), of(Kind::ConfigMap, &child(name)));
            let Some(let_go) = main.iter().position(|seen| seen.shard.is_none()) else { continue };
            let Some(assigned) = main[let_go..].iter().find(|seen| seen.shard.is_some()) else { continue };
            // One that came back needn't have its child moved.
            if main[..let_go].last().is_some_and(|before| before.shard == assigned.shard) {
                continue;
            }
            let moved = child.iter().find(|seen| seen.shard == assigned.shard).map(|seen| seen.version);
            let (let_go, assigned) = (main[let_go].version, assigned.version);
            if moved.is_none_or(|moved| moved < let_go || moved > assigned) {
                wrong.push(format!(
                    "{name} was let go at {let_go}, its child moved at {moved:?}, assigned at {assigned}"
                ));
            }
        }
        wrong
    }

    /// How often each Secret got a shard since a place of the record, most often first.
    pub(crate) fn changes(&self, mark: usize) -> Vec<usize> {
        let mut last: BTreeMap<&str, &str> = BTreeMap::new();
        let mut changes: BTreeMap<&str, usize> = BTreeMap::new();
        for (at, seen) in self.events.iter().enumerate().filter(|(_, seen)| seen.kind == Kind::Secret) {
            let Some(shard) = &seen.shard else { continue };
            if last.insert(&seen.name, shard).is_some_and(|before| before != shard) && at >= mark {
                *changes.entry(&seen.name).or_default() += 1;
            }
        }
        let mut changes: Vec<usize> = changes.into_values().collect();
        changes.sort_by(|a, b| b.cmp(a));
        changes
    }

    /// Fails if versions may have been missed.
    ///
    /// # Errors
    /// They may.
    pub(crate) fn is_whole(&self) -> anyhow::Result<()> {
        ensure!(self.gaps == 0, "{} gaps in the record: the API server didn't remember enough", self.gaps);
        Ok(())
    }
}

/// The labels that say who has an object.
#[derive(Clone, Debug)]
pub(crate) struct Keys {
    /// That which names its shard.
    pub(crate) shard: String,
    /// That which asks for an acknowledgement.
    pub(crate) drain: String,
}

struct Watch {
    admin: Objects,
    resource: Resource,
    kind: Kind,
    keys: Keys,
    history: Arc<Mutex<History>>,
}

/// Sees every version; dropping it ends that.
pub(crate) struct Recorder {
    history: Arc<Mutex<History>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Recorder {
    /// Of a namespace; what is there when this returns is in the record.
    ///
    /// # Errors
    /// The API server refuses a list.
    pub(crate) async fn start(admin: &Objects, namespace: &str, keys: &Keys) -> anyhow::Result<Self> {
        let history = Arc::new(Mutex::new(History::default()));
        let mut tasks = Vec::new();
        for (kind, name, plural) in [(Kind::Secret, "Secret", "secrets"), (Kind::ConfigMap, "ConfigMap", "configmaps")]
        {
            let resource = Resource::new("v1", name, plural, Some(namespace));
            let (admin, history) = (admin.clone(), Arc::clone(&history));
            let watch = Watch { admin, resource, kind, keys: keys.clone(), history };
            let version = watch.list().await?;
            tasks.push(tokio::spawn(watch.follow(version)));
        }
        Ok(Self { history, tasks })
    }

    /// What was seen so far.
    pub(crate) fn read<T>(&self, of: impl FnOnce(&History) -> T) -> T {
        of(&lock(&self.history))
    }

    /// A place in the record.
    pub(crate) fn mark(&self) -> usize {
        self.read(|history| history.events.len())
    }

    /// When a label changed last; the record's begin if none did.
    pub(crate) fn changed(&self) -> Option<Instant> {
        self.read(|history| {
            let mut last: BTreeMap<(Kind, &str), (Option<&str>, bool)> = BTreeMap::new();
            let mut at = None;
            for seen in &history.events {
                let now = (seen.shard.as_deref(), seen.is_draining);
                if last.insert((seen.kind, seen.name.as_str()), now) != Some(now) {
                    at = Some(seen.at);
                }
            }
            at
        })
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Watch {
    fn note(&self, object: &Value, is_deleted: bool) {
        let metadata = &object["metadata"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let labels = &metadata["labels"];
        let shard = labels[&self.keys.shard].as_str().filter(|shard| !shard.is_empty());
        let seen = Seen {
            at: Instant::now(),
            kind: self.kind,
            uid: text(&metadata["uid"]),
            name: text(&metadata["name"]),
            version: text(&metadata["resourceVersion"]).parse().unwrap_or_default(),
            shard: shard.map(ToOwned::to_owned),
            is_draining: labels[&self.keys.drain].is_string(),
            is_deleted,
        };
        lock(&self.history).events.push(seen);
    }

    async fn list(&self) -> anyhow::Result<String> {
        let list = self.admin.get_path(&self.resource.path()).await?;
        for object in list["items"].as_array().context("a list without items")? {
            self.note(object, false);
        }
        Ok(list["metadata"]["resourceVersion"].as_str().context("a list without a version")?.to_owned())
    }

    async fn follow(self, mut version: String) {
        loop {
            // The API server may be away: that is what some trials are about. It goes on where it was.
            let ended = self.watch(&mut version).await;
            if ended.is_err_and(|error| is_expired(&error)) {
                lock(&self.history).gaps += 1;
                if let Ok(listed) = self.list().await {
                    version = listed;
                }
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn watch(&self, version: &mut String) -> anyhow::Result<()> {
        let uri = format!("{}?watch=true&resourceVersion={version}", self.resource.path());
        let request = Request::get(uri).header(ACCEPT, METADATA).body(Vec::new())?;
        let stream = self.admin.client().request_stream(request).await?;
        let mut lines = std::pin::pin!(stream.lines());
        while let Some(line) = lines.try_next().await? {
            let event: Value = serde_json::from_str(&line)?;
            let object = &event["object"];
            match event["type"].as_str() {
                Some("ADDED" | "MODIFIED") => self.note(object, false),
                Some("DELETED") => self.note(object, true),
                Some("ERROR") if object["code"] == 410 => return Err(Expired.into()),
                _ => bail!("{event}"),
            }
            if let Some(now) = object["metadata"]["resourceVersion"].as_str() {
                now.clone_into(version);
            }
        }
        Ok(())
    }
}

/// The API server doesn't remember so far back.
#[derive(Debug)]
struct Expired;

impl std::fmt::Display for Expired {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("the watch's version is too old")
    }
}

impl std::error::Error for Expired {}

fn is_expired(error: &anyhow::Error) -> bool {
    let answer = error.downcast_ref::<kube::Error>();
    error.is::<Expired>() || matches!(answer, Some(kube::Error::Api(status)) if status.code == 410)
}
