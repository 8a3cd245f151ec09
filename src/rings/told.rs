//! What people are told of a ring: its status, events on it, and what its metrics show.
//!
//! Never decides. A status is written when it differs, an event when something begins.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringmaster_cluster::{Client, Error, Event, Events, Level, Subject};
use ringmaster_core::dialect::RingDialect;
use ringmaster_core::key::{ObjectKey, Resource, Uid};
use ringmaster_core::ring::status::{RingStatus, Status};
use tracing::{debug, info, warn};

use crate::board::{Id, Mark};
use crate::look::What;
use crate::registry::{Clock, Right};
use crate::scope::Scope;
use crate::shards::Summary;

/// A write that was refused is told in the status for so long after it: longer than until it is tried again.
const REFUSED_FOR: Duration = Duration::from_secs(65);
/// So many drains that are overdue are named.
const NAMED: usize = 3;
/// A status that can't be written is tried again after this.
const RETRY: Duration = Duration::from_secs(5);

/// A ring in numbers, for metrics.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// The API group of the ring.
    pub group: &'static str,
    /// Whether its objects are being assigned; `None` where it doesn't run.
    pub ready: Option<bool>,
    /// Its generation, and that which its status is about.
    pub generations: (i64, i64),
    /// Shards with a Lease, and those of them that are available.
    pub shards: (usize, usize),
    /// Each shard's Lease and its state.
    pub states: BTreeMap<ObjectKey, &'static str>,
    /// By group and resource: objects that were assigned, moved at once, and asked to be let go.
    pub writes: BTreeMap<(Arc<str>, Arc<str>), [u64; 3]>,
    /// Writes that met another version than they were decided on.
    pub conflicts: u64,
    /// How often keys were hashed to other shards.
    pub calculations: u64,
    /// Objects that no available shard has, and for how long the first of them has waited.
    pub unassigned: (usize, Duration),
    /// Leases that were taken from shards that didn't let objects go.
    pub escalations: u64,
    /// Objects whose shards are to let them go, and for how long the first of them has waited.
    pub draining: (usize, Duration),
    /// Those of them that have waited for too long.
    pub overdue: usize,
    /// Moves that wait, and that are on their way.
    pub moves: (usize, usize),
}

/// All rings that run, by group and name.
pub(crate) type AllStats = Arc<Mutex<BTreeMap<(&'static str, Arc<str>), Stats>>>;

/// A kind that can't be written.
pub(crate) struct Refusal {
    until: Duration,
    kind: String,
    reason: &'static str,
    /// What was said of the first object.
    text: String,
}

impl Refusal {
    fn told(&self) -> (&'static str, String) {
        (self.reason, self.text.clone())
    }
}

/// A status that is to be written.
pub(crate) struct Draft {
    pub(crate) status: Status,
    pub(crate) patch: Vec<u8>,
}

/// Who tells of one ring.
pub(crate) struct Told {
    pub(crate) name: Arc<str>,
    pub(crate) uid: Uid,
    pub(crate) generation: i64,
    pub(crate) dialect: &'static RingDialect,
    pub(crate) resource: Arc<Resource>,
    pub(crate) events: Events,
    pub(crate) stats: AllStats,
    pub(crate) clock: Clock,
    /// As it was written or read last.
    pub(crate) present: Status,
    /// What was told of the shards already.
    pub(crate) noted: BTreeSet<(&'static str, String)>,
    /// Shards of which it was told that they don't let objects go.
    pub(crate) late: BTreeSet<Arc<str>>,
    pub(crate) refused: Mutex<Option<Refusal>>,
    /// A status is being written.
    pub(crate) is_writing: bool,
    /// The ring is being deleted.
    pub(crate) is_deleting: bool,
    pub(crate) not_before: Duration,
}

impl Told {
    /// An event on the ring.
    pub(crate) fn event(&self, level: Level, reason: &str, note: String) {
        let subject = Subject {
            api_version: self.resource.api_version.to_string(),
            kind: self.resource.kind.to_string(),
            namespace: String::new(),
            name: self.name.to_string(),
            uid: self.uid.to_string(),
        };
        self.events.send(Event { subject, level, reason: reason.to_owned(), note });
    }

    /// A shard doesn't let an object go in time, and its Lease is taken for it.
    pub(crate) fn escalated(&self, shard: &str, id: &Id, age: Duration) {
        let age = age.as_secs();
        let text =
            format!("shard {shard} hasn't let {} go, though it was asked to {age} s ago: its Lease is taken", id.key);
        self.event(Level::Warning, "DrainEscalated", text);
        self.count(|stats| stats.escalations += 1);
    }

    /// An object was written.
    pub(crate) fn wrote(&self, resource: &Resource, what: What) {
        let at = match what {
            What::Assign => 0,
            What::Move => 1,
            What::Drain => 2,
            What::Other => return,
        };
        let kind = (resource.api_version.group().into(), Arc::clone(&resource.plural));
        self.count(|stats| stats.writes.entry(kind).or_default()[at] += 1);
    }

    /// A write met another version.
    pub(crate) fn conflicted(&self) {
        self.count(|stats| stats.conflicts += 1);
    }

    /// A write of an object of a kind was refused.
    pub(crate) fn refused(&self, now: Duration, kind: &Resource, reason: &'static str, text: &str) {
        let (until, kind) = (now.saturating_add(REFUSED_FOR), kind.to_string());
        let mut known = self.refused.lock();
        if let Some(refusal) = known.as_mut().filter(|refusal| refusal.kind == kind && refusal.reason == reason) {
            refusal.until = until;
            return;
        }
        let text = format!("{kind} can't be written: {text}");
        *known = Some(Refusal { until, kind, reason, text: text.clone() });
        drop(known);
        self.event(Level::Warning, reason, text);
    }

    /// Tells how the ring is; what its status shall be, if that is another.
    pub(crate) fn tell(
        &mut self,
        (scope, now): (&Scope, Duration),
        summary: Summary,
        (moves, calculations): ((usize, usize), u64),
    ) -> Option<Draft> {
        for (reason, text) in summary.notes.difference(&self.noted) {
            warn!(ring = %self.name, reason, "{text}");
            self.event(Level::Warning, reason, text.clone());
        }
        self.noted.clone_from(&summary.notes);
        let (mut unassigned, mut draining) = ((0, Duration::ZERO), (0, Duration::ZERO));
        let (mut overdue, mut named) = (0, Vec::new());
        let mut late: BTreeMap<Arc<str>, (ObjectKey, Duration)> = BTreeMap::new();
        for (id, item) in scope.board.lock().iter().filter(|(_, item)| !item.is_stale()) {
            if item.is_shown_by(Mark::Unassigned) && scope.selects(id) == Some(true) {
                unassigned = (unassigned.0 + 1, unassigned.1.max(now.saturating_sub(item.since)));
            }
            if let Some(since) = item.draining_since {
                draining = (draining.0 + 1, draining.1.max(now.saturating_sub(since)));
            }
            if let Some(shard) = item.facts.shard.as_ref().filter(|_| item.is_overdue) {
                overdue += 1;
                if named.len() < NAMED {
                    named.push(format!("{} at {shard}", id.key));
                }
                let age = item.draining_since.map_or(Duration::ZERO, |since| now.saturating_sub(since));
                late.entry(Arc::clone(shard)).or_insert_with(|| (id.key.clone(), age));
            }
        }
        for (shard, (object, age)) in late.iter().filter(|(shard, _)| !self.late.contains(*shard)) {
            let age = age.as_secs();
            let text =
                format!("shard {shard} hasn't let {object} go, nor maybe others, though it was asked to {age} s ago");
            warn!(ring = %self.name, "{text}");
            self.event(Level::Warning, "DrainOverdue", text);
        }
        self.late = late.into_keys().collect();
        let trouble = scope.trouble.lock().values().next().cloned();
        self.count(|stats| {
            stats.generations = (self.generation, self.present.observed_generation);
            stats.shards = (summary.shards, summary.available);
            stats.states.clone_from(&summary.states);
            (stats.unassigned, stats.draining, stats.overdue) = (unassigned, draining, overdue);
            (stats.moves, stats.calculations) = (moves, calculations);
        });
        let limit = scope.model.rules.drain_limit.as_secs();
        let told = (overdue > 0).then(|| {
            let named = named.join(", ");
            format!("{overdue} objects weren't let go within {limit} s, such as {named}; look at their shards")
        });
        let refused = self.refused.lock().as_ref().filter(|refusal| now < refusal.until).map(Refusal::told);
        let wrong = trouble.or(refused).or(summary.trouble);
        let ready = wrong.map_or(Ok(()), |(reason, text)| Err((Cow::Borrowed(reason), text)));
        self.count(|stats| stats.ready = Some(ready.is_ok()));
        if self.is_writing {
            return None;
        }
        let draft = self.draft((summary.shards, summary.available), ready, told, now);
        self.is_writing = draft.is_some();
        draft
    }

    /// The ring can't run.
    pub(crate) async fn failed(
        &mut self,
        (client, right): (&Client, &dyn Right),
        reason: &'static str,
        text: String,
        now: Duration,
    ) {
        self.count(|stats| stats.ready = Some(false));
        let news = self.present.conditions.first().is_none_or(|ready| ready.message != text);
        if news {
            warn!(ring = %self.name, reason, "not ready: {text}");
            self.event(Level::Warning, self.dialect.unready_reason.unwrap_or(reason), text.clone());
        }
        if let Some(draft) = self.draft((0, 0), Err((Cow::Borrowed(reason), text)), None, now) {
            let written = self.writing(client, right, &draft).await;
            self.written(draft, written, now);
        }
    }

    fn draft(
        &self,
        (shards, available): (usize, usize),
        ready: Result<(), (Cow<'static, str>, String)>,
        drain_overdue: Option<String>,
        now: Duration,
    ) -> Option<Draft> {
        let ring = RingStatus { observed_generation: self.generation, shards, available, ready, drain_overdue };
        let status = ring.status(self.dialect, &self.present, &(self.clock.wall_time)());
        let patch = status.patch(&self.uid, &self.present).filter(|_| now >= self.not_before)?;
        Some(Draft { status, patch: patch.to_string().into_bytes() })
    }

    /// Writes a status.
    pub(crate) fn writing(
        &self,
        client: &Client,
        right: &dyn Right,
        draft: &Draft,
    ) -> impl Future<Output = Result<(), Error>> + Send + use<> {
        let (resource, key, patch) = (Arc::clone(&self.resource), ObjectKey::new("", &self.name), draft.patch.clone());
        let client = right.bounded(client, "a ring's status");
        async move { client?.patch_status(&resource, &key, patch).await.map(drop) }
    }

    /// A status was written, or wasn't.
    pub(crate) fn written(&mut self, draft: Draft, written: Result<(), Error>, now: Duration) {
        self.is_writing = false;
        if let Err(error) = written {
            self.not_before = now.saturating_add(RETRY);
            if !error.is_fenced() && !error.is_not_found() {
                debug!(ring = %self.name, "its status can't be written: {error}");
            }
            return;
        }
        let is_ready = |status: &Status| status.conditions.first().is_some_and(|ready| ready.status == "True");
        if is_ready(&draft.status) && !is_ready(&self.present) && !self.is_deleting {
            info!(ring = %self.name, shards = draft.status.available_shards, "ready: objects are being assigned");
            self.event(Level::Notice, self.dialect.ready_reason, "objects are being assigned to the shards".to_owned());
        }
        self.present = draft.status;
    }

    fn count(&self, change: impl FnOnce(&mut Stats)) {
        let mut all = self.stats.lock();
        let stats = all.entry((self.dialect.group, Arc::clone(&self.name))).or_default();
        stats.group = self.dialect.group;
        change(stats);
    }
}
