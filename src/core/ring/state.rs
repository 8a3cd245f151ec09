//! Shards' Leases: which shards are available, whose Lease is taken or deleted, and whose objects may be moved by force.
//!
//! The states are the contract's (1.5), counted from when *we* saw a Lease change: a moment that a shard wrote down is an
//! opaque text here, good for nothing but to differ from the one before. Every moment is a `Duration` on a clock of the
//! caller's. Never writes a Lease: it says what to write.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::dialect::{LeaseTimes, RingDialect};
use crate::key::{ObjectKey, Uid, Version};
use crate::lease::{BLIND_PERIODS, MAX_DURATION};

/// D of a Lease that doesn't say it (contract, 1.5).
pub const DEFAULT_DURATION: Duration = Duration::from_secs(15);

/// What follows the taker's name in the holder of a Lease that was taken from a shard that lived. It goes on for as long as
/// its own renew deadline, so that its objects wait for D more, whoever is the sharder by then.
pub const TAKEN_ALIVE: &str = "-drain";

/// A shard's state (contract, 1.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum State {
    /// It holds its Lease, which changed within D.
    Ready,
    /// It holds its Lease, which hasn't changed for D.
    Expired,
    /// It hasn't for so long that the Lease is to be taken. Until that succeeded the shard counts as available.
    Uncertain,
    /// It released its Lease, or lost it.
    Dead,
    /// It has been dead for so long that the Lease is to be deleted.
    Orphaned,
}

impl State {
    /// The text of the Lease's state label. The contract's labels know no `orphaned`: such a Lease is deleted.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Ready => "ready",
            Self::Expired => "expired",
            Self::Uncertain => "uncertain",
            Self::Dead | Self::Orphaned => "dead",
        }
    }

    /// Whether keys are hashed to the shard, and its objects are drained rather than moved by force.
    #[must_use]
    pub fn is_available(self) -> bool {
        matches!(self, Self::Ready | Self::Expired | Self::Uncertain)
    }
}

/// A field of a Lease that its shard must set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Field {
    /// When it was acquired.
    Acquired,
    /// When it was renewed.
    Renewed,
    /// Its duration: more than 0.
    Duration,
}

impl fmt::Display for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Acquired => "spec.acquireTime",
            Self::Renewed => "spec.renewTime",
            Self::Duration => "spec.leaseDurationSeconds",
        })
    }
}

/// A shard's Lease as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardLease {
    /// Its namespace and name; the name is the shard's.
    pub key: ObjectKey,
    /// Its uid.
    pub uid: Uid,
    /// Its resource version.
    pub version: Version,
    /// When it was created, as the API server writes it: only compared with that of other Leases.
    pub created: String,
    /// Who holds it: empty once released.
    pub holder: String,
    /// What it says of its own duration.
    pub duration_secs: Option<i64>,
    /// When it was acquired, as its holder wrote it.
    pub acquired: Option<String>,
    /// When it was renewed, as its holder wrote it.
    pub renewed: Option<String>,
    /// How often it changed hands.
    pub transitions: i64,
    /// Its state label.
    pub label: Option<String>,
}

impl ShardLease {
    /// What a living shard must have set and hasn't. Such a Lease expires at once and is taken after D at the earliest, as
    /// if it had never been renewed: its shard isn't available for ever.
    #[must_use]
    pub fn missing(&self) -> Vec<Field> {
        let fields = [
            (Field::Acquired, self.acquired.is_some()),
            (Field::Renewed, self.renewed.is_some()),
            (Field::Duration, self.duration_secs.is_some_and(|secs| secs > 0)),
        ];
        fields.into_iter().filter(|(_, is_set)| !is_set).map(|(field, _)| field).collect()
    }

    /// Whether its shard holds it.
    #[must_use]
    pub fn is_held(&self) -> bool {
        !self.holder.is_empty() && self.holder == self.key.name()
    }

    /// D, at most [`MAX_DURATION`].
    #[must_use]
    pub fn duration(&self) -> Duration {
        self.said_duration().min(MAX_DURATION)
    }

    fn said_duration(&self) -> Duration {
        let said = self.duration_secs.and_then(|secs| u64::try_from(secs).ok()).filter(|secs| *secs > 0);
        said.map_or(DEFAULT_DURATION, Duration::from_secs)
    }

    /// The state after so long without a change, a row of the contract's table (1.5) each.
    #[must_use]
    pub fn state(&self, silent: Duration, times: &LeaseTimes) -> State {
        let expiry = self.expiry();
        if !self.is_held() {
            let is_kept = silent < expiry.saturating_add(times.kept_for);
            return if is_kept { State::Dead } else { State::Orphaned };
        }
        if silent >= self.lost_after(times) {
            State::Uncertain
        } else if silent >= expiry {
            State::Expired
        } else {
            State::Ready
        }
    }

    /// After how long a silence its state changes next; `None` if it doesn't any more.
    #[must_use]
    pub fn next_state_after(&self, silent: Duration, times: &LeaseTimes) -> Option<Duration> {
        match self.state(silent, times) {
            State::Ready => Some(self.expiry()),
            State::Expired => Some(self.lost_after(times)),
            State::Dead => Some(self.expiry().saturating_add(times.kept_for)),
            State::Uncertain | State::Orphaned => None,
        }
    }

    /// A merge patch that takes it, if nothing has changed: in the taker's name for [`LeaseTimes::taken_for`] D, one
    /// transition more (contract, 1.5), the state label with it. `now` is the wall clock's, as Leases have it. A shard
    /// that isn't silent is taken `alive`: its drain was never acknowledged.
    #[must_use]
    pub fn take_over(&self, dialect: &RingDialect, now: &str, alive: bool) -> Value {
        let holder = if alive { [dialect.taker, TAKEN_ALIVE].concat() } else { dialect.taker.to_owned() };
        let duration = self.duration().saturating_mul(dialect.lease_times.taken_for);
        let mut patch = self.label_patch(dialect, State::Dead);
        patch["spec"] = json!({
            "holderIdentity": holder,
            "leaseDurationSeconds": duration.as_secs(),
            "acquireTime": now,
            "renewTime": now,
            "leaseTransitions": self.transitions.max(0).saturating_add(1),
        });
        patch
    }

    /// A merge patch of its state label, if nothing has changed.
    #[must_use]
    pub fn label_patch(&self, dialect: &RingDialect, state: State) -> Value {
        json!({"metadata": {
            "uid": self.uid.to_string(),
            "resourceVersion": self.version.to_string(),
            "labels": { dialect.lease_state: state.label() },
        }})
    }

    fn expiry(&self) -> Duration {
        if self.missing().is_empty() { self.duration() } else { Duration::ZERO }
    }

    /// Without all fields it is at its expiry when it is first seen, so the first D is over; a whole one passes all the same.
    fn lost_after(&self, times: &LeaseTimes) -> Duration {
        let passed = u32::from(!self.missing().is_empty());
        self.duration().saturating_mul(times.lost_after.saturating_sub(passed).max(1))
    }

    /// Whether it is another from what is known of it: not whether its labels or other fields are.
    fn differs(&self, other: &Self) -> bool {
        self.uid != other.uid
            || self.holder != other.holder
            || self.renewed != other.renewed
            || self.acquired != other.acquired
            || self.duration_secs != other.duration_secs
            || self.transitions != other.transitions
    }
}

/// What may be done with the objects of a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder {
    /// It is available: they are drained.
    Available,
    /// Its Lease was taken or released, or there is none: they may be moved by force.
    Gone,
    /// It isn't available, but may be at work still. Look again at this moment; `None`: once the Leases are seen again.
    Unsure(Option<Duration>),
}

/// What to write about a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Todo {
    /// Nothing.
    Nothing,
    /// Its state label ([`ShardLease::label_patch`]).
    Label,
    /// Take it ([`ShardLease::take_over`]). Only when it is seen to be taken may the shard's objects be moved by force.
    TakeOver,
    /// Delete it, with its uid and resource version as preconditions.
    Delete,
}

/// A Lease at some moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing<'a> {
    /// The Lease.
    pub lease: &'a ShardLease,
    /// Its state.
    pub state: State,
    /// The Lease of another namespace that counts for this shard name: this one doesn't. To be told: shards of one name
    /// act on the same objects, whatever we do.
    pub rival: Option<&'a ObjectKey>,
    /// Fields that its shard must set. To be told.
    pub missing: Vec<Field>,
    /// What to write.
    pub todo: Todo,
    /// When to look again, if nothing is seen of it until then.
    pub next: Option<Duration>,
}

/// All Leases of one ring, as this process sees them change.
///
/// Of several Leases of one shard name one that is held counts, of these the oldest by creation, and of those created in
/// the same second that whose namespace comes first: neither changes while they are there, so that it doesn't go to and fro
/// between them.
#[derive(Clone, Debug)]
pub struct Leases {
    dialect: &'static RingDialect,
    /// A complete list is read so often.
    period: Duration,
    listed: Option<Duration>,
    /// The first list since the last gap between lists.
    began: Option<Duration>,
    /// By shard name and namespace.
    shards: BTreeMap<Arc<str>, BTreeMap<Arc<str>, Observed>>,
    /// Shards whose Lease went while they held it: when, and for how long they may be at work.
    gone: BTreeMap<Arc<str>, (Duration, Duration)>,
}

#[derive(Clone, Debug)]
struct Observed {
    lease: ShardLease,
    /// From when its silence counts.
    since: Duration,
    /// It was taken from a shard that may have lived: until when that may be at work.
    working_until: Option<Duration>,
}

impl Leases {
    /// Leases that were never read, and will all be once a `period`.
    #[must_use]
    pub fn new(dialect: &'static RingDialect, period: Duration) -> Self {
        Self { dialect, period, listed: None, began: None, shards: BTreeMap::new(), gone: BTreeMap::new() }
    }

    /// Whether a complete list was ever answered.
    #[must_use]
    pub fn is_listed(&self) -> bool {
        self.listed.is_some()
    }

    /// A complete list of the ring's Leases, as of `version`, was answered at `now`. A Lease that a watch has shown to be
    /// newer than the list is there, though the list lacks it.
    ///
    /// After a gap in which renewals can't have been seen, every silence counts from now.
    pub fn listed(&mut self, now: Duration, leases: Vec<ShardLease>, version: Version) {
        if self.is_blind(now) {
            self.began = Some(now);
            self.shards.values_mut().flat_map(BTreeMap::values_mut).for_each(|observed| observed.since = now);
            self.gone.values_mut().for_each(|(since, _)| *since = now);
        }
        self.listed = Some(now);
        let there: BTreeSet<ObjectKey> = leases.iter().map(|lease| lease.key.clone()).collect();
        for lease in leases {
            self.saw(now, lease);
        }
        let known = self.shards.values().flat_map(BTreeMap::values).map(|observed| &observed.lease);
        let vanished = known.filter(|lease| !there.contains(&lease.key) && !version.is_before(lease.version));
        let vanished: Vec<(ObjectKey, Uid)> = vanished.map(|lease| (lease.key.clone(), lease.uid.clone())).collect();
        for (key, uid) in vanished {
            self.vanished(now, &key, &uid);
        }
        self.gone.retain(|_, (since, wait)| now < since.saturating_add(*wait));
    }

    /// One Lease was seen, by a watch or in the answer to a write of this process. An older state than what is known
    /// changes nothing.
    pub fn saw(&mut self, now: Duration, lease: ShardLease) {
        let (blind, times) = (self.is_blind(now), self.dialect.lease_times);
        let is_taken_alive = lease.holder.strip_suffix(TAKEN_ALIVE) == Some(self.dialect.taker);
        let named = self.shards.entry(lease.key.name().into()).or_default();
        let Some(known) = named.get_mut(lease.key.namespace()) else {
            // Taken while another process was the sharder; it says how long that takes.
            let wait = (lease.said_duration() / times.taken_for.max(1)).min(MAX_DURATION);
            let working_until = is_taken_alive.then(|| now.saturating_add(wait));
            let namespace = lease.key.namespace().into();
            named.insert(namespace, Observed { lease, since: now, working_until });
            return;
        };
        // Versions of one kind rise together, also from a Lease to its successor.
        if lease.version.is_before(known.lease.version) {
            return;
        }
        if known.lease.differs(&lease) {
            let silent = now.saturating_sub(known.since);
            let was_lost = !blind && known.lease.state(silent, &times) == State::Uncertain;
            known.working_until = match (known.lease.is_held(), lease.is_held()) {
                // A release is the shard's own word that it has stopped.
                (true, false) if lease.holder.is_empty() || was_lost => None,
                (true, false) => Some(now.saturating_add(known.lease.duration())),
                (false, false) => known.working_until,
                (_, true) => None,
            };
            known.since = now;
        }
        known.lease = lease;
    }

    /// A Lease was deleted. If its shard held it, that makes a new one at its next renewal, or ends: for as long its
    /// objects wait.
    pub fn vanished(&mut self, now: Duration, key: &ObjectKey, uid: &Uid) {
        let Some(named) = self.shards.get_mut(key.name()) else { return };
        if named.get(key.namespace()).is_some_and(|observed| observed.lease.uid != *uid) {
            return;
        }
        let Some(observed) = named.remove(key.namespace()) else { return };
        if named.is_empty() {
            self.shards.remove(key.name());
        }
        let wait = if observed.lease.is_held() {
            observed.lease.lost_after(&self.dialect.lease_times)
        } else {
            observed.working_until.map_or(Duration::ZERO, |until| until.saturating_sub(now))
        };
        if !wait.is_zero() {
            self.gone.insert(key.name().into(), (now, wait));
        }
    }

    /// What may be done with the objects of the shard of this name at `now`.
    ///
    /// Of a name that has no Lease and never had one here that isn't known before this process has watched for as long as
    /// a silent shard is waited for.
    #[must_use]
    pub fn holder(&self, now: Duration, shard: &str) -> Holder {
        if self.is_blind(now) {
            return Holder::Unsure(None);
        }
        let until = if let Some(observed) = self.counting(shard) {
            if self.state(now, observed).is_available() {
                return Holder::Available;
            }
            observed.working_until.unwrap_or_default()
        } else {
            let wait = DEFAULT_DURATION.saturating_mul(self.dialect.lease_times.lost_after);
            let never_seen = (self.began.unwrap_or(now), wait);
            let (since, wait) = self.gone.get(shard).copied().unwrap_or(never_seen);
            since.saturating_add(wait)
        };
        if now < until { Holder::Unsure(Some(until)) } else { Holder::Gone }
    }

    /// The shards that keys are hashed to at `now`, by name. While the Leases can't be seen they stay as they were.
    pub fn available(&self, now: Duration) -> impl Iterator<Item = &Arc<str>> {
        self.shards
            .keys()
            .filter(move |name| self.counting(name).is_some_and(|observed| self.state(now, observed).is_available()))
    }

    /// Every Lease at `now`, by shard name and namespace.
    pub fn standings(&self, now: Duration) -> impl Iterator<Item = Standing<'_>> {
        let all = self.shards.iter().flat_map(|(name, named)| named.values().map(move |observed| (name, observed)));
        all.map(move |(name, observed)| self.standing(now, name, observed))
    }

    fn standing<'a>(&'a self, now: Duration, name: &str, observed: &'a Observed) -> Standing<'a> {
        let (lease, state, times) = (&observed.lease, self.state(now, observed), self.dialect.lease_times);
        let counting = self.counting(name).map(|counting| &counting.lease.key);
        let silent = now.saturating_sub(observed.since);
        let (todo, next) = if self.is_blind(now) {
            (Todo::Nothing, None)
        } else {
            let todo = match state {
                State::Uncertain => Todo::TakeOver,
                State::Orphaned => Todo::Delete,
                _ if lease.label.as_deref() != Some(state.label()) => Todo::Label,
                _ => Todo::Nothing,
            };
            let next = lease.next_state_after(silent, &times).map(|after| observed.since.saturating_add(after));
            // A take-over that failed is tried again.
            let again = || (state == State::Uncertain).then(|| now.saturating_add(lease.duration()));
            (todo, next.or_else(again))
        };
        let missing = if lease.is_held() { lease.missing() } else { Vec::new() };
        Standing { lease, state, rival: counting.filter(|key| **key != lease.key), missing, todo, next }
    }

    fn counting(&self, name: &str) -> Option<&Observed> {
        let named = self.shards.get(name)?;
        // A Lease that its shard holds stands for a process that works, whatever an older one says.
        named.values().min_by_key(|observed| {
            let lease = &observed.lease;
            (!lease.is_held(), lease.created.as_str(), lease.key.namespace())
        })
    }

    /// Time that nobody looked at isn't silence.
    fn state(&self, now: Duration, observed: &Observed) -> State {
        let seen = if self.is_blind(now) { self.listed.unwrap_or(now) } else { now };
        observed.lease.state(seen.saturating_sub(observed.since), &self.dialect.lease_times)
    }

    /// Whether renewals may have gone unseen.
    #[must_use]
    pub fn is_blind(&self, now: Duration) -> bool {
        let limit = self.period.saturating_mul(BLIND_PERIODS);
        self.listed.is_none_or(|listed| now > listed.saturating_add(limit))
    }
}

#[cfg(test)]
#[path = "state_tests.rs"]
mod tests;
