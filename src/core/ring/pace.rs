//! Which objects are moved next, and who gets those of a shard that left.
//!
//! Objects that nobody has go at once; drains, for balance alone, wait until the shards were still for a while. A rolling
//! update makes a new shard and ends an old one, over and over: while it lasts, the newcomers alone get what the leavers
//! had, as far as there are as many of them, so that an object seldom goes to a shard that leaves next. Nothing here is
//! needed for safety: a new sharder starts with none of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// How fast a ring moves its objects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Objects of each [`Lane`] on their way at a time: at least 1 (contract, 1.8: `concurrentMoves`).
    pub limit: usize,
    /// For how long the shards must have been still before objects are drained.
    pub settle: Duration,
    /// After so long they are, even though the shards weren't still.
    pub settle_at_most: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self { limit: 100, settle: Duration::from_secs(10), settle_at_most: Duration::from_secs(60) }
    }
}

/// Why an object is to be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Lane {
    /// Nobody has it, or it follows its owner, or it left the ring: at once.
    Waiting,
    /// It has a living shard, and shall have another: once the shards were still. It is on its way until it was assigned.
    Balance,
}

/// The objects of one ring that are to be moved, by a key of the caller's.
///
/// At most one place is kept per object: the caller adds what [`super::plan::decide`] wants, and its own limit is that of
/// the objects that it knows.
#[derive(Clone, Debug)]
pub struct Pace<K> {
    limit: usize,
    /// By lane, in the order in which they are served.
    pending: BTreeMap<Lane, BTreeSet<(Duration, u64, K)>>,
    /// Where each of them stands.
    places: BTreeMap<K, (Lane, Duration, u64)>,
    moving: BTreeMap<K, Lane>,
    /// Numbers those that came in the same moment.
    count: u64,
}

impl<K: Clone + Ord> Pace<K> {
    /// Nothing to move.
    #[must_use]
    pub fn new(settings: &Settings) -> Self {
        let limit = settings.limit.max(1);
        Self { limit, pending: BTreeMap::new(), places: BTreeMap::new(), moving: BTreeMap::new(), count: 0 }
    }

    /// An object is to be moved. One that waits already keeps its age, also in another lane; one that is on its way
    /// stays so.
    pub fn add(&mut self, now: Duration, key: K, lane: Lane) {
        if self.moving.contains_key(&key) {
            return;
        }
        let (since, number) = match self.places.remove(&key) {
            Some((was, since, number)) => {
                self.leave(was, &(since, number, key.clone()));
                (since, number)
            }
            None => {
                self.count += 1;
                (now, self.count)
            }
        };
        self.places.insert(key.clone(), (lane, since, number));
        self.pending.entry(lane).or_default().insert((since, number, key));
    }

    /// An object was moved, needn't be any more, or is gone. Also one whose shard doesn't acknowledge in time: it would keep
    /// the others from moving. Until then the caller goes on with it whenever it sees it change.
    pub fn done(&mut self, key: &K) {
        self.moving.remove(key);
        if let Some((lane, since, number)) = self.places.remove(key) {
            self.leave(lane, &(since, number, key.clone()));
        }
    }

    /// The next object to move at `now`: the oldest, of those that nobody has first. It is on its way until
    /// [`Self::done`]. `None`: there is none, or the limit is reached, or the shards aren't still; see
    /// [`Self::next_at`].
    pub fn next(&mut self, now: Duration, calm: &Calm) -> Option<K> {
        let lane = [Lane::Waiting, Lane::Balance].into_iter().find(|lane| self.may_go(now, *lane, calm))?;
        let (_, _, key) = self.pending.get_mut(&lane)?.pop_first()?;
        self.places.remove(&key);
        self.moving.insert(key.clone(), lane);
        Some(key)
    }

    /// When drains may go on that wait for nothing but time.
    #[must_use]
    pub fn next_at(&self, now: Duration, calm: &Calm) -> Option<Duration> {
        let at = calm.still_at();
        (at > now && self.waits(Lane::Balance)).then_some(at)
    }

    /// In which lane an object is on its way, if it is.
    #[must_use]
    pub fn moving(&self, key: &K) -> Option<Lane> {
        self.moving.get(key).copied()
    }

    /// How many objects wait and how many are on their way.
    #[must_use]
    pub fn counts(&self) -> (usize, usize) {
        (self.places.len(), self.moving.len())
    }

    /// Since when the oldest that waits has waited.
    #[must_use]
    pub fn oldest(&self) -> Option<Duration> {
        self.places.values().map(|(_, since, _)| *since).min()
    }

    fn may_go(&self, now: Duration, lane: Lane, calm: &Calm) -> bool {
        let moving = self.moving.values().filter(|of| **of == lane).count();
        let is_time = lane == Lane::Waiting || now >= calm.still_at();
        is_time && self.waits(lane) && moving < self.limit
    }

    fn waits(&self, lane: Lane) -> bool {
        self.pending.get(&lane).is_some_and(|pending| !pending.is_empty())
    }

    fn leave(&mut self, lane: Lane, place: &(Duration, u64, K)) {
        if let Some(pending) = self.pending.get_mut(&lane) {
            pending.remove(place);
        }
    }
}

/// When the available shards changed, and how, since they were still last.
#[derive(Clone, Debug)]
pub struct Calm {
    settings: Settings,
    /// Who is available.
    shards: BTreeSet<Arc<str>>,
    /// The first and the last of the changes.
    changes: Option<(Duration, Duration)>,
    /// Shards that came since, or came back, and are there.
    came: BTreeSet<Arc<str>>,
    /// Shards that left since, and aren't back.
    left: BTreeSet<Arc<str>>,
    is_known: bool,
}

impl Calm {
    /// Nothing was seen yet.
    #[must_use]
    pub fn new(settings: Settings) -> Self {
        let (shards, came, left) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        Self { settings, shards, changes: None, came, left, is_known: false }
    }

    /// Who is available at `now`. The same shards again change nothing; the first ones that are ever seen are no change.
    pub fn observe(&mut self, now: Duration, available: &BTreeSet<Arc<str>>) {
        if *available == self.shards && self.is_known {
            return;
        }
        if self.is_known {
            let unrest = self.changes.filter(|(_, last)| now < last.saturating_add(self.settings.settle));
            if unrest.is_none() {
                self.came.clear();
                self.left.clear();
            }
            self.changes = Some((unrest.map_or(now, |(first, _)| first), now));
            self.came.extend(available.difference(&self.shards).cloned());
            self.left.extend(self.shards.difference(available).cloned());
            self.came.retain(|shard| available.contains(shard));
            self.left.retain(|shard| !available.contains(shard));
        }
        self.shards.clone_from(available);
        self.is_known = true;
    }

    /// From when on objects are drained: the shards will have been still for [`Settings::settle`] by then, or not for
    /// [`Settings::settle_at_most`].
    #[must_use]
    pub fn still_at(&self) -> Duration {
        self.changes.map_or(Duration::ZERO, |(first, last)| {
            let (settle, at_most) = (self.settings.settle, self.settings.settle_at_most);
            last.saturating_add(settle).min(first.saturating_add(at_most))
        })
    }

    /// The shards that keys are hashed to where nobody has the object: those that came, if something left and no more did
    /// than came, until drains begin; otherwise all. With a shard that came for each that left, that is what they are for.
    #[must_use]
    pub fn receivers(&self, now: Duration) -> &BTreeSet<Arc<str>> {
        let replaced = !self.left.is_empty() && self.left.len() <= self.came.len();
        if replaced && now < self.still_at() { &self.came } else { &self.shards }
    }

    /// All available shards: those that keys are hashed to otherwise.
    #[must_use]
    pub fn shards(&self) -> &BTreeSet<Arc<str>> {
        &self.shards
    }
}

/// After the last shard that came to a ring which had none, others are waited for so long.
pub const OPENS_AFTER: Duration = Duration::from_secs(2);
/// And at most so long after the first.
pub const OPENS_AT_MOST: Duration = Duration::from_secs(10);

/// A ring that had no shard and gets some: they mostly start together, and the first must not get everything, only to let
/// it go again. What was there when the ring began is no beginning.
#[derive(Clone, Debug, Default)]
pub struct Opening {
    /// Who was available; `None` before anything was seen.
    shards: Option<BTreeSet<Arc<str>>>,
    /// When the first and the last of them came.
    came: Option<(Duration, Duration)>,
}

impl Opening {
    /// Who is available at `now`; until when nothing shall be assigned because of that.
    pub fn observe(&mut self, now: Duration, available: &BTreeSet<Arc<str>>) -> Option<Duration> {
        if self.shards.as_ref() != Some(available) {
            let had_none = self.shards.as_ref().is_some_and(BTreeSet::is_empty);
            self.came = match self.came {
                _ if available.is_empty() => None,
                Some((first, _)) => Some((first, now)),
                None => had_none.then_some((now, now)),
            };
            self.shards = Some(available.clone());
        }
        let until = |(first, last): (Duration, Duration)| {
            last.saturating_add(OPENS_AFTER).min(first.saturating_add(OPENS_AT_MOST))
        };
        let until = self.came.map(until).filter(|until| now < *until);
        if until.is_none() {
            self.came = None;
        }
        until
    }
}

#[cfg(test)]
#[path = "pace_tests.rs"]
mod tests;
