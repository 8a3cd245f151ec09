//! The table of an installation as a trial sees it: read from the API, with every version in the order in which it came.
//!
//! Never writes it; trials that do so by hand do it themselves.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use futures::{AsyncBufReadExt as _, TryStreamExt as _};
use http::Request;
use serde_json::Value;
use tokio::task::JoinHandle;

use crate::members::check::SHARDS;
use crate::objects::{Objects, Resource};
use crate::server::lock;

/// How soon a watch that ended is begun again.
const AGAIN: Duration = Duration::from_millis(100);

/// A row, of a shard or of a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Row {
    /// Who works on it.
    pub(crate) owner: Option<String>,
    /// Who shall.
    pub(crate) next: Option<String>,
    /// The owner shall stop.
    pub(crate) releasing: bool,
    /// The counter at its last change.
    pub(crate) epoch: u64,
}

/// The row of a controller.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ControllerRow {
    /// The controller's name.
    pub(crate) name: String,
    /// `Whole` or `Sharded`.
    pub(crate) mode: String,
    /// What it is on its way to be, or empty.
    pub(crate) becoming: String,
    /// Who has it, if it is a whole.
    pub(crate) row: Row,
}

/// One version of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Table {
    /// Its name.
    pub(crate) name: String,
    /// Its uid.
    pub(crate) uid: String,
    /// Its resourceVersion.
    pub(crate) version: String,
    /// The uid of the Leases' namespace.
    pub(crate) installation: String,
    /// The highest epoch that was given out.
    pub(crate) counter: u64,
    /// Members by full name.
    pub(crate) members: BTreeSet<String>,
    /// By shard.
    pub(crate) shards: Vec<Row>,
    /// In the table's order.
    pub(crate) controllers: Vec<ControllerRow>,
}

impl Table {
    /// From the object.
    ///
    /// # Errors
    /// It hasn't a row for each shard.
    pub(crate) fn read(object: &Value) -> anyhow::Result<Self> {
        let (metadata, status) = (&object["metadata"], &object["status"]);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut shards = vec![None; SHARDS];
        for row in status["shards"].as_array().context("no shards")? {
            let number = row["shard"].as_u64().and_then(|number| usize::try_from(number).ok());
            let place = number.and_then(|number| shards.get_mut(number));
            *place.with_context(|| format!("no shard: {row}"))? = Some(Row::read(row));
        }
        let shards: Option<Vec<Row>> = shards.into_iter().collect();
        let controller = |value: &Value| ControllerRow {
            name: text(&value["name"]),
            mode: text(&value["mode"]),
            becoming: text(&value["becoming"]),
            row: Row::read(value),
        };
        let member = |value: &Value| value.as_str().or_else(|| value["name"].as_str()).map(ToOwned::to_owned);
        Ok(Self {
            name: text(&metadata["name"]),
            uid: text(&metadata["uid"]),
            version: text(&metadata["resourceVersion"]),
            installation: text(&status["installation"]),
            counter: status["counter"].as_u64().unwrap_or(0),
            members: status["members"].as_array().into_iter().flatten().filter_map(member).collect(),
            shards: shards.with_context(|| format!("not {SHARDS} shards"))?,
            controllers: status["controllers"].as_array().into_iter().flatten().map(controller).collect(),
        })
    }

    /// Who owns shards.
    pub(crate) fn owners(&self) -> Vec<String> {
        self.counts().into_keys().collect()
    }

    /// How many shards each owner has.
    pub(crate) fn counts(&self) -> BTreeMap<String, usize> {
        counts(self.shards.iter())
    }

    /// How many wholes each owner has.
    pub(crate) fn wholes(&self) -> BTreeMap<String, usize> {
        counts(self.controllers.iter().filter(|row| row.mode == "Whole").map(|row| &row.row))
    }

    /// The shards that a member has.
    pub(crate) fn of(&self, member: &str) -> BTreeSet<usize> {
        let own = self.shards.iter().enumerate().filter(|(_, row)| row.owner.as_deref() == Some(member));
        own.map(|(shard, _)| shard).collect()
    }

    /// Fails unless nothing moves and these members, and no others, have as many shards and wholes as they should,
    /// within one.
    ///
    /// # Errors
    /// What isn't so.
    pub(crate) fn balanced(&self, members: &[String]) -> anyhow::Result<()> {
        let rows = self.shards.iter().chain(self.controllers.iter().map(|row| &row.row));
        let moving = rows.clone().filter(|row| row.next.is_some() || row.releasing).count();
        let free = self.shards.iter().filter(|row| row.owner.is_none()).count();
        let becoming = self.controllers.iter().filter(|row| !row.becoming.is_empty()).count();
        let (shards, wholes) = (self.counts(), self.wholes());
        ensure!(
            moving + free + becoming == 0,
            "{moving} rows move, {free} have no owner, {becoming} change: {shards:?}"
        );
        let wanted: BTreeSet<&String> = members.iter().collect();
        ensure!(shards.keys().collect::<BTreeSet<_>>() == wanted, "shards of {shards:?} instead of {members:?}");
        ensure!(within_one(&shards, members.len()), "shards: {shards:?}");
        ensure!(wholes.keys().all(|member| wanted.contains(member)), "wholes of {wholes:?} instead of {members:?}");
        ensure!(within_one(&wholes, members.len()), "wholes: {wholes:?}");
        Ok(())
    }
}

impl Row {
    fn read(value: &Value) -> Self {
        let name = |value: &Value| value.as_str().filter(|name| !name.is_empty()).map(ToOwned::to_owned);
        Self {
            owner: name(&value["owner"]),
            next: name(&value["next"]),
            releasing: value["releasing"] == true,
            epoch: value["epoch"].as_u64().unwrap_or(0),
        }
    }
}

fn counts<'a>(rows: impl Iterator<Item = &'a Row>) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for owner in rows.filter_map(|row| row.owner.clone()) {
        *counts.entry(owner).or_default() += 1;
    }
    counts
}

/// Counts of so many members, of whom some may have none.
fn within_one(counts: &BTreeMap<String, usize>, members: usize) -> bool {
    let least = if counts.len() < members { 0 } else { counts.values().copied().min().unwrap_or(0) };
    counts.values().all(|count| *count <= least + 1)
}

/// A row's hand-over.
#[derive(Clone, Debug)]
pub(crate) struct Gap {
    /// Which shard.
    pub(crate) shard: usize,
    /// When the version came that told the owner to stop.
    pub(crate) told: Instant,
    /// From then to the version that named the next.
    pub(crate) wait: Duration,
    /// The row's epoch since then.
    pub(crate) epoch: u64,
}

/// Every version that came, with the time at which it did.
#[derive(Debug, Default)]
pub(crate) struct History {
    versions: Vec<(Instant, Arc<Table>)>,
}

impl History {
    /// One more version; one that is there already is left out.
    pub(crate) fn push(&mut self, at: Instant, table: Table) {
        if self.versions.last().is_none_or(|(_, last)| *last.version != table.version) {
            self.versions.push((at, Arc::new(table)));
        }
    }

    /// How many versions came so far: a mark for what follows.
    pub(crate) fn mark(&self) -> usize {
        self.versions.len()
    }

    /// The last one.
    pub(crate) fn last(&self) -> Option<Arc<Table>> {
        self.versions.last().map(|(_, table)| Arc::clone(table))
    }

    /// The versions since a mark, with the one before it.
    fn since(&self, mark: usize) -> &[(Instant, Arc<Table>)] {
        self.versions.get(mark.saturating_sub(1)..).unwrap_or_default()
    }

    /// How often shards changed their owner since a mark.
    pub(crate) fn moved(&self, mark: usize) -> usize {
        let pairs = self.since(mark).windows(2);
        pairs.map(|pair| changes(&pair[0].1, &pair[1].1, |row| row.owner.clone()).len()).sum()
    }

    /// The hand-overs that ended since a mark: those of which the owner was told.
    pub(crate) fn gaps(&self, mark: usize) -> Vec<Gap> {
        let mut told: BTreeMap<usize, Instant> = BTreeMap::new();
        let mut gaps = Vec::new();
        for pair in self.since(mark).windows(2) {
            let (at, now) = (pair[1].0, &pair[1].1);
            for (shard, (before, row)) in pair[0].1.shards.iter().zip(&now.shards).enumerate() {
                if row.owner != before.owner {
                    let gap = told.remove(&shard);
                    gaps.extend(gap.map(|told| Gap { shard, told, wait: at - told, epoch: row.epoch }));
                } else if row.releasing {
                    told.entry(shard).or_insert(at);
                } else {
                    told.remove(&shard);
                }
            }
        }
        gaps
    }

    /// What no table may do: a counter or an epoch that goes back, a row that changes under the same epoch.
    pub(crate) fn wrong(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        for pair in self.versions.windows(2) {
            let (before, now) = (&pair[0].1, &pair[1].1);
            if now.counter < before.counter {
                wrong.push(format!("the counter went from {} to {}", before.counter, now.counter));
            }
            for (shard, (old, new)) in before.shards.iter().zip(&now.shards).enumerate() {
                if new.epoch < old.epoch || (new != old && new.epoch == old.epoch) || new.epoch > now.counter {
                    wrong.push(format!("shard {shard} went from {old:?} to {new:?}, counter {}", now.counter));
                }
            }
        }
        wrong
    }
}

/// The shards of which something differs.
fn changes<T: PartialEq>(before: &Table, now: &Table, of: impl Fn(&Row) -> T) -> Vec<usize> {
    let rows = before.shards.iter().zip(&now.shards).enumerate();
    rows.filter(|(_, (before, now))| of(before) != of(now)).map(|(shard, _)| shard).collect()
}

/// All tables.
pub(crate) fn tables() -> Resource {
    Resource::new("ringmaster.dev/v1alpha1", "ShardTable", "shardtables", None)
}

/// Sees every version of one installation's table; dropping it ends that.
pub(crate) struct Watcher {
    history: Arc<Mutex<History>>,
    task: JoinHandle<()>,
}

impl Watcher {
    /// Of the installation whose Leases are in the namespace with this uid. The table need not be there yet.
    pub(crate) fn start(admin: Objects, installation: String) -> Self {
        let history = Arc::new(Mutex::new(History::default()));
        let seen = Arc::clone(&history);
        let task = tokio::spawn(async move {
            loop {
                // The API server may be away, and the kind too: that is what some trials are about.
                let _ = watch(&admin, &installation, &seen).await;
                tokio::time::sleep(AGAIN).await;
            }
        });
        Self { history, task }
    }

    /// What was seen so far.
    pub(crate) fn history<T>(&self, of: impl FnOnce(&History) -> T) -> T {
        of(&lock(&self.history))
    }

    /// The last version.
    ///
    /// # Errors
    /// There was none yet.
    pub(crate) fn table(&self) -> anyhow::Result<Arc<Table>> {
        self.history(History::last).context("no table yet")
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One list, and a watch until it ends.
async fn watch(admin: &Objects, installation: &str, history: &Mutex<History>) -> anyhow::Result<()> {
    let note = |object: &Value| {
        if object["status"]["installation"] == *installation
            && let Ok(table) = Table::read(object)
        {
            lock(history).push(Instant::now(), table);
        }
    };
    let list = admin.get_path(&tables().path()).await?;
    list["items"].as_array().into_iter().flatten().for_each(note);
    let version = list["metadata"]["resourceVersion"].as_str().unwrap_or_default();
    let uri = format!("{}?watch=true&resourceVersion={version}", tables().path());
    let stream = admin.client().request_stream(Request::get(uri).body(Vec::new())?).await?;
    let mut lines = std::pin::pin!(stream.lines());
    while let Some(line) = lines.try_next().await? {
        // Most are of other trials' tables.
        if line.contains(installation) {
            let event: Value = serde_json::from_str(&line)?;
            note(&event["object"]);
        }
    }
    Ok(())
}
