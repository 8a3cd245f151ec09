//! One ring's shards: their Leases, as a watch and a list every two seconds show them, and what is written about them.
//!
//! Never judges one: core's `Leases` does. No Lease of anything else is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringmaster_cluster::{Client, Error, Lease, Preconditions, Sink, Watch, boot_time, run_pump};
use ringmaster_core::dialect::RingDialect;
use ringmaster_core::key::{ObjectKey, Version};
use ringmaster_core::object::Object;
use ringmaster_core::ring::state::{Holder, Leases, ShardLease, State, Todo};
use ringmaster_core::selector::is_name;
use ringmaster_core::watch::PAGE_LIMIT;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::registry::{Clock, Right};

/// All Leases are read so often.
const PERIOD: Duration = Duration::from_secs(2);
/// A list of them is given up after this.
const READ_WITHIN: Duration = Duration::from_secs(4);
/// A write about a Lease that failed is tried again after this.
const RETRY: Duration = Duration::from_secs(2);
/// Leases of one ring: one page of a list. With more nothing is known of any, which is told.
pub(crate) const MAX_SHARDS: usize = PAGE_LIMIT as usize - 1;

/// What a ring's Leases add up to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Summary {
    /// Shards with a Lease.
    pub(crate) shards: usize,
    /// Those of them that objects are hashed to.
    pub(crate) available: usize,
    /// Each shard's state.
    pub(crate) states: BTreeMap<ObjectKey, &'static str>,
    /// What is wrong with some: a word and a sentence.
    pub(crate) notes: BTreeSet<(&'static str, String)>,
    /// Why they can't be read.
    pub(crate) trouble: Option<(&'static str, String)>,
}

/// The Leases of a ring's shards.
pub(crate) struct Shards {
    ring: Arc<str>,
    dialect: &'static RingDialect,
    known: Mutex<Known>,
    news: watch::Sender<u64>,
    /// Something is to be written.
    work: Notify,
}

struct Known {
    leases: Leases,
    /// Shards whose Leases are to be taken though they live, as they don't let objects go.
    escalated: BTreeSet<Arc<str>>,
    /// Lists in a row that failed, and why.
    failures: u32,
    trouble: Option<String>,
    /// Leases whose names can't be shards', since no label can name them.
    misnamed: BTreeSet<ObjectKey>,
    /// Writes in a row that failed for another reason than a conflict, and why.
    unwritten: (u32, Option<String>),
    /// Writes that failed aren't tried again before.
    not_before: BTreeMap<ObjectKey, Duration>,
}

impl Shards {
    pub(crate) fn new(ring: &Arc<str>, dialect: &'static RingDialect) -> Arc<Self> {
        let known = Known {
            leases: Leases::new(dialect, PERIOD),
            escalated: BTreeSet::new(),
            failures: 0,
            trouble: None,
            misnamed: BTreeSet::new(),
            unwritten: (0, None),
            not_before: BTreeMap::new(),
        };
        let (ring, known) = (Arc::clone(ring), Mutex::new(known));
        Arc::new(Self { ring, dialect, known, news: watch::Sender::new(0), work: Notify::new() })
    }

    /// Told of each change.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// What may be done with the objects of a shard.
    pub(crate) fn holder(&self, now: Duration, shard: &str) -> Holder {
        self.known.lock().leases.holder(now, shard)
    }

    /// The shards that keys are hashed to.
    pub(crate) fn available(&self, now: Duration) -> BTreeSet<Arc<str>> {
        self.known.lock().leases.available(now).cloned().collect()
    }

    /// Whether all that happened to them was seen.
    pub(crate) fn sees(&self, now: Duration) -> bool {
        !self.known.lock().leases.is_blind(now)
    }

    /// Whether a list of them was answered.
    pub(crate) fn is_known(&self) -> bool {
        self.known.lock().leases.is_listed()
    }

    /// When the state of some shard changes by time alone.
    pub(crate) fn next_at(&self, now: Duration) -> Option<Duration> {
        self.known.lock().leases.standings(now).filter_map(|standing| standing.next).min()
    }

    /// Has the Lease of a shard taken that lives and doesn't let its objects go; tells whether that is new.
    pub(crate) fn escalate(&self, shard: &str) -> bool {
        let is_new = self.known.lock().escalated.insert(shard.into());
        if is_new {
            self.work.notify_one();
        }
        is_new
    }

    pub(crate) fn summary(&self, now: Duration) -> Summary {
        let known = self.known.lock();
        let trouble = known.trouble.clone().map(|text| ("LeasesUnreadable", text));
        let trouble = trouble.or_else(|| known.unwritten.1.clone().map(|text| ("LeasesUnwritable", text)));
        let mut summary = Summary { trouble, ..Summary::default() };
        summary.notes.extend(known.misnamed.iter().map(|key| {
            let text = format!(
                "the Lease {key} names no shard: no label can have its name, which may have 63 characters, letters, digits, \
                 dashes, dots and underscores; give the shard another name"
            );
            ("ShardNameInvalid", text)
        }));
        for standing in known.leases.standings(now) {
            let key = &standing.lease.key;
            summary.states.insert(key.clone(), standing.state.label());
            if let Some(rival) = standing.rival {
                let text = format!(
                    "the Lease {key} names the same shard as {rival}, which counts: both processes act on the same \
                     objects; give one of them another name"
                );
                summary.notes.insert(("ShardNameTaken", text));
                continue;
            }
            summary.shards += 1;
            summary.available += usize::from(standing.state.is_available());
            if !standing.missing.is_empty() {
                let missing: Vec<String> = standing.missing.iter().map(ToString::to_string).collect();
                let text = format!(
                    "the Lease {key} lacks {}: it counts as never renewed, and is taken; its shard must set them",
                    missing.join(", ")
                );
                summary.notes.insert(("LeaseIncomplete", text));
            }
        }
        summary
    }

    /// Watches, reads and writes them until cancelled.
    pub(crate) async fn run(
        self: Arc<Self>,
        client: Client,
        right: Arc<dyn Right>,
        clock: Clock,
        cancel: CancellationToken,
    ) {
        let selector = format!("{}={}", self.dialect.lease_ring, self.ring);
        let watch = Watch::all(Arc::new(Lease::resource()));
        let sink = Arc::new(LeaseSink { shards: Arc::clone(&self), selector: selector.clone() });
        let watching = run_pump(client.clone(), watch, sink, clock.random, cancel.child_token());
        let reading = async {
            loop {
                self.read(&client, &selector).await;
                tokio::time::sleep(PERIOD).await;
            }
        };
        let writing = async {
            let mut news = self.news();
            loop {
                news.mark_unchanged();
                self.write(&client, &*right, clock).await;
                let now = boot_time();
                let wait = self.next_at(now).map_or(PERIOD, |at| at.saturating_sub(now)).min(PERIOD);
                tokio::select! {
                    _ = news.changed() => {}
                    () = self.work.notified() => {}
                    () = tokio::time::sleep(wait) => {}
                }
            }
        };
        tokio::select! {
            () = cancel.cancelled() => {}
            () = watching => {}
            () = reading => {}
            () = writing => {}
        }
    }

    async fn read(&self, client: &Client, selector: &str) {
        let query = format!("labelSelector={}", selector.replace('/', "%2F").replace('=', "%3D"));
        let resource = Lease::resource();
        let read = tokio::time::timeout(READ_WITHIN, client.list(&resource, "", &query)).await;
        let read = read.unwrap_or_else(|_| Err(Error::Timeout { call: "GET leases".to_owned(), after: READ_WITHIN }));
        let now = boot_time();
        let mut known = self.known.lock();
        let trouble = match read {
            Ok((leases, version)) if leases.len() <= MAX_SHARDS => {
                let (named, misnamed): (Vec<&Object>, Vec<&Object>) = leases.iter().partition(|lease| is_named(lease));
                let named = named.into_iter().map(|lease| shard_lease(lease, self.dialect)).collect();
                known.leases.listed(now, named, version);
                known.misnamed = misnamed.into_iter().map(|lease| lease.key().clone()).collect();
                None
            }
            Ok(_) => {
                client.limit_hit("ring_shards");
                Some(format!("more than {MAX_SHARDS} Leases name the ring"))
            }
            Err(error) => Some(error.to_string()),
        };
        known.failures = if trouble.is_some() { known.failures.saturating_add(1) } else { 0 };
        let failures = known.failures;
        known.trouble.clone_from(&trouble);
        drop(known);
        if let Some(trouble) = trouble.filter(|_| failures.is_power_of_two()) {
            warn!(ring = %self.ring, failures, "the shards' Leases can't be read: {trouble}");
        }
        self.changed();
    }

    /// Writes what is due, the Leases of silent shards first.
    async fn write(&self, client: &Client, right: &dyn Right, clock: Clock) {
        let now = boot_time();
        let mut due: Vec<(Todo, bool, ShardLease, State)> = Vec::new();
        {
            let mut known = self.known.lock();
            let Known { leases, escalated, not_before, .. } = &mut *known;
            not_before.retain(|_, until| *until > now);
            for standing in leases.standings(now).filter(|it| !not_before.contains_key(&it.lease.key)) {
                let is_escalated = standing.state.is_available()
                    && standing.rival.is_none()
                    && escalated.contains(standing.lease.key.name());
                let todo = if is_escalated { Todo::TakeOver } else { standing.todo };
                let alive = is_escalated && standing.todo != Todo::TakeOver;
                if todo != Todo::Nothing {
                    due.push((todo, alive, standing.lease.clone(), standing.state));
                }
            }
            // Those that aren't available any more are moved from.
            if !escalated.is_empty() {
                let available: BTreeSet<&Arc<str>> = leases.available(now).collect();
                escalated.retain(|shard| available.contains(shard));
            }
        }
        due.sort_by_key(|(todo, ..)| *todo != Todo::TakeOver);
        for (todo, alive, lease, state) in due {
            let written = match right.bounded(client, "a shard's Lease") {
                Ok(client) => self.write_one(&client, todo, alive, &lease, state, clock).await,
                Err(error) => Err(error),
            };
            if let Err(error) = written {
                let is_old = error.is_conflict() || error.is_not_found();
                if is_old || error.is_fenced() {
                    debug!(ring = %self.ring, lease = %lease.key, "its Lease: {error}");
                } else {
                    let mut known = self.known.lock();
                    known.unwritten = (known.unwritten.0.saturating_add(1), Some(error.to_string()));
                    let failures = known.unwritten.0;
                    drop(known);
                    if failures.is_power_of_two() {
                        let ring = &self.ring;
                        warn!(%ring, lease = %lease.key, failures, "a shard's Lease can't be written: {error}");
                    }
                }
                // A conflict is answered by what is seen next, mostly a renewal.
                let pause = if is_old { RETRY / 8 } else { RETRY };
                self.known.lock().not_before.insert(lease.key, boot_time().saturating_add(pause));
            } else {
                self.known.lock().unwritten = (0, None);
            }
        }
    }

    async fn write_one(
        &self,
        client: &Client,
        todo: Todo,
        alive: bool,
        lease: &ShardLease,
        state: State,
        clock: Clock,
    ) -> Result<(), Error> {
        let (resource, ring) = (Lease::resource(), &self.ring);
        let patch = match todo {
            Todo::Nothing => return Ok(()),
            Todo::Delete => {
                let seen = Preconditions { key: &lease.key, uid: &lease.uid, version: lease.version };
                client.delete(&resource, seen).await?;
                info!(%ring, lease = %lease.key, "the Lease of a shard that is gone was deleted");
                self.known.lock().leases.vanished(boot_time(), &lease.key, &lease.uid);
                self.changed();
                return Ok(());
            }
            Todo::Label => lease.label_patch(self.dialect, state),
            Todo::TakeOver => lease.take_over(self.dialect, &(clock.lease_time)(), alive),
        };
        let answer = client.merge_patch(&resource, &lease.key, patch.to_string().into_bytes()).await?;
        if todo == Todo::TakeOver {
            let why = if alive { "it doesn't let its objects go" } else { "it wasn't renewed" };
            warn!(%ring, lease = %lease.key, "a shard's Lease is taken: {why}");
        }
        self.known.lock().leases.saw(boot_time(), shard_lease(&answer, self.dialect));
        self.changed();
        Ok(())
    }

    fn changed(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }
}

struct LeaseSink {
    shards: Arc<Shards>,
    selector: String,
}

impl Sink for LeaseSink {
    fn list_begins(&self) -> String {
        self.selector.clone()
    }

    fn watch_begins(&self, version: Version, _: bool) -> (String, Version) {
        (self.selector.clone(), version)
    }

    fn applied(&self, object: Object) {
        if is_named(&object) {
            self.shards.known.lock().leases.saw(boot_time(), shard_lease(&object, self.shards.dialect));
            self.shards.changed();
        }
    }

    fn deleted(&self, object: Object) {
        self.shards.known.lock().leases.vanished(boot_time(), object.key(), object.uid());
        self.shards.changed();
    }

    fn progressed(&self, _: Version) {}

    fn list_complete(&self, _: Version) {}

    fn list_aborted(&self) {}

    fn lost_track(&self) {}

    // The lists tell.
    fn trouble(&self, error: &Error, failures: u32) {
        debug!(ring = %self.shards.ring, failures, "watching Leases: {error}");
    }

    fn recovered(&self) {}
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Spec {
    holder_identity: Option<String>,
    lease_duration_seconds: Option<i64>,
    acquire_time: Option<String>,
    renew_time: Option<String>,
    lease_transitions: Option<i64>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Meta {
    creation_timestamp: String,
}

/// Whether a label can name the shard of a Lease.
fn is_named(lease: &Object) -> bool {
    is_name(lease.key().name())
}

/// A Lease as core looks at it.
fn shard_lease(object: &Object, dialect: &RingDialect) -> ShardLease {
    let spec: Spec = object.section("spec").unwrap_or_default();
    let meta: Meta = object.section("metadata").unwrap_or_default();
    let label = object.labels().iter().find_map(|(key, value)| (key == dialect.lease_state).then(|| value.to_owned()));
    ShardLease {
        key: object.key().clone(),
        uid: object.uid().clone(),
        version: object.version(),
        created: meta.creation_timestamp,
        holder: spec.holder_identity.unwrap_or_default(),
        duration_secs: spec.lease_duration_seconds,
        acquired: spec.acquire_time,
        renewed: spec.renew_time,
        transitions: spec.lease_transitions.unwrap_or_default(),
        label,
    }
}
