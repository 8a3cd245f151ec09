//! Another controller's leader Leases, as this process sees them change: whether a holder lives, and both must not work.
//!
//! Never takes such a Lease, and never compares its times with a clock.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{BLIND_PERIODS, MAX_DURATION, Seen, Terms};
use crate::key::ObjectKey;

/// A Lease is silent for so many of its durations before nobody holds it any more: whoever stands by takes it some seconds
/// after the first.
pub const SILENT_DURATIONS: u32 = 2;

/// What is known of the holders of leader Leases.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// A Lease is held, and there was no time yet to see whether it is renewed.
    #[default]
    Unknown,
    /// One was seen to change, and not seen to be silent for [`SILENT_DURATIONS`] since.
    Lives,
    /// There is no Lease, or each is released, or hasn't changed for so long.
    Gone,
}

/// The Leases as they were read from time to time.
#[derive(Clone, Debug)]
pub struct Rival {
    /// They are read this often.
    period: Duration,
    read: Option<Duration>,
    /// Since when they are refused to us, if they are.
    refused: Option<Duration>,
    held: BTreeMap<ObjectKey, Held>,
}

#[derive(Clone, Debug)]
struct Held {
    lease: Seen,
    /// From when its silence counts.
    since: Duration,
    presence: Presence,
}

impl Rival {
    /// Leases that were never read, and will be once a `period`.
    #[must_use]
    pub fn new(period: Duration) -> Self {
        Self { period, read: None, refused: None, held: BTreeMap::new() }
    }

    /// Whether they were never read.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.read.is_none()
    }

    /// All Leases that there are were read at `now`, on a clock of the caller's. What follows is so until they are read
    /// again.
    ///
    /// Silence counts from when a state was first seen, and anew after a gap in which renewals can't have been seen. A
    /// Lease that was silent for too long counts again only once it has changed.
    pub fn saw(&mut self, now: Duration, leases: impl IntoIterator<Item = (ObjectKey, Seen)>) -> Presence {
        let limit = self.period.saturating_mul(BLIND_PERIODS);
        let is_first = self.is_new();
        let was_blind = self.read.is_none_or(|read| now > read.saturating_add(limit));
        (self.read, self.refused) = (Some(now), None);
        let mut before = std::mem::take(&mut self.held);
        for (key, lease) in leases.into_iter().filter(|(_, lease)| !lease.holder.is_empty()) {
            let held = match before.remove(&key) {
                // One that wasn't there before was just taken.
                None => {
                    Held { lease, since: now, presence: if is_first { Presence::Unknown } else { Presence::Lives } }
                }
                Some(known) => known.again(now, lease, was_blind),
            };
            self.held.insert(key, held);
        }
        self.presence()
    }

    /// The Leases are refused to us at `now`, which says nothing of their holders: those that were known count until it
    /// has lasted as long as a Lease may be silent.
    pub fn refused(&mut self, now: Duration) -> Presence {
        let since = *self.refused.get_or_insert(now);
        for held in self.held.values_mut() {
            if now >= since.saturating_add(patience(&held.lease)) {
                held.presence = Presence::Gone;
            }
        }
        self.presence()
    }

    /// The Leases that were held when they were read last.
    pub fn held(&self) -> impl Iterator<Item = &ObjectKey> {
        self.held.keys()
    }

    /// Whether it was held when it was read last.
    #[must_use]
    pub fn is_held(&self, lease: &ObjectKey) -> bool {
        self.held.contains_key(lease)
    }

    /// The Lease by which the presence is what it is, the first of several; `None` if none is held.
    #[must_use]
    pub fn cause(&self) -> Option<(&ObjectKey, &Seen)> {
        let presence = self.presence();
        let cause = self.held.iter().find(|(_, held)| held.presence == presence);
        cause.map(|(key, held)| (key, &held.lease))
    }

    /// The one that matters most.
    fn presence(&self) -> Presence {
        let any = |presence: Presence| self.held.values().any(|held| held.presence == presence);
        let most = [Presence::Lives, Presence::Unknown].into_iter().find(|presence| any(*presence));
        most.unwrap_or(Presence::Gone)
    }
}

impl Held {
    /// The same Lease as it was read at `now`.
    fn again(self, now: Duration, lease: Seen, was_blind: bool) -> Self {
        if self.lease.holder != lease.holder || self.lease.renewed != lease.renewed {
            return Self { lease, since: now, presence: Presence::Lives };
        }
        let since = if was_blind { now } else { self.since };
        let is_silent = now >= since.saturating_add(patience(&lease));
        Self { lease, since, presence: if is_silent { Presence::Gone } else { self.presence } }
    }
}

/// For how long its silence means nothing: [`SILENT_DURATIONS`] of what it says, at most [`MAX_DURATION`] each; of
/// client-go's where it says nothing.
fn patience(lease: &Seen) -> Duration {
    let duration = if lease.duration.is_zero() { Terms::default().duration } else { lease.duration.min(MAX_DURATION) };
    duration.saturating_mul(SILENT_DURATIONS)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::Version;

    const PERIOD: Duration = Duration::from_secs(2);

    fn lease(holder: &str, renewed: &str, seconds: u64) -> Option<Seen> {
        Some(Seen {
            holder: holder.to_owned(),
            version: Version::new("1"),
            duration: Duration::from_secs(seconds),
            renewed: renewed.to_owned(),
        })
    }

    fn key(namespace: &str) -> ObjectKey {
        ObjectKey::new(namespace, "leader")
    }

    fn read(rival: &mut Rival, at: u64, lease: Option<Seen>) -> Presence {
        rival.saw(Duration::from_secs(at), lease.map(|lease| (key("n"), lease)))
    }

    /// What is known after each of these reads, at these seconds.
    fn after(reads: &[(u64, Option<Seen>)]) -> Vec<Presence> {
        let mut rival = Rival::new(PERIOD);
        reads.iter().map(|(at, lease)| read(&mut rival, *at, lease.clone())).collect()
    }

    #[test]
    fn what_is_not_held_is_free_at_once() {
        use Presence::{Gone, Lives, Unknown};
        assert_eq!(after(&[(0, None), (2, lease("", "a", 15))]), [Gone, Gone]);
        assert_eq!(after(&[(0, lease("m", "a", 15)), (2, lease("", "a", 15))]), [Unknown, Gone]);
        assert_eq!(after(&[(0, lease("m", "a", 15)), (2, lease("m", "b", 15)), (4, None)]), [Unknown, Lives, Gone]);
        assert_eq!(after(&[(0, None), (2, lease("m", "a", 15))]), [Gone, Lives], "it was just taken");
    }

    #[test]
    fn what_is_renewed_lives_until_it_is_silent_for_twice_its_duration() {
        use Presence::{Gone, Lives, Unknown};
        let reads = |second: Option<Seen>| {
            let mut reads = vec![(0, lease("m", "a", 2)), (2, second.clone())];
            reads.extend([4, 6, 8].map(|at| (at, second.clone())));
            after(&reads)
        };
        assert_eq!(reads(lease("m", "a", 2)), [Unknown, Unknown, Gone, Gone, Gone]);
        assert_eq!(reads(lease("m", "b", 2)), [Unknown, Lives, Lives, Gone, Gone]);
        assert_eq!(reads(lease("n", "a", 2)), [Unknown, Lives, Lives, Gone, Gone], "another holder");
        let again = [(0, lease("m", "a", 1)), (2, lease("m", "a", 1)), (4, lease("m", "b", 1))];
        assert_eq!(after(&again), [Unknown, Gone, Lives]);
    }

    #[test]
    fn a_lease_without_a_duration_has_the_usual_one_and_none_is_endless() {
        let silent = |seconds: u64, until: u64| {
            let reads: Vec<_> = (0..=until / 2).map(|turn| (turn * 2, lease("m", "a", seconds))).collect();
            after(&reads).last().copied()
        };
        assert_eq!((silent(0, 28), silent(0, 30)), (Some(Presence::Unknown), Some(Presence::Gone)));
        let longest = MAX_DURATION.as_secs();
        assert_eq!(silent(longest * 10, longest * 2 - 2), Some(Presence::Unknown));
        assert_eq!(silent(longest * 10, longest * 2), Some(Presence::Gone));
    }

    #[test]
    fn what_was_not_looked_at_is_not_silence() {
        use Presence::{Gone, Lives, Unknown};
        let held = |at: u64| (at, lease("m", "b", 2));
        let gap = [(0, lease("m", "a", 2)), held(2), held(20), held(22), held(24)];
        assert_eq!(after(&gap), [Unknown, Lives, Lives, Lives, Gone]);
        let known = [held(0), held(2), held(4), held(20)];
        assert_eq!(after(&known), [Unknown, Unknown, Gone, Gone], "a gap brings nobody back");
    }

    #[test]
    fn a_refusal_is_no_end_until_it_has_lasted() {
        use Presence::{Gone, Lives, Unknown};
        let refused = |rival: &mut Rival, at: u64| rival.refused(Duration::from_secs(at));
        let mut rival = Rival::new(PERIOD);
        assert_eq!((refused(&mut rival, 0), rival.is_new()), (Gone, true), "who can't be seen isn't waited for");
        assert_eq!(read(&mut rival, 2, lease("m", "a", 4)), Unknown);
        assert_eq!(refused(&mut rival, 4), Unknown);
        assert_eq!(read(&mut rival, 6, lease("m", "b", 4)), Lives);
        assert_eq!([8, 10, 12, 14].map(|at| refused(&mut rival, at)), [Lives; 4]);
        assert_eq!(rival.held().collect::<Vec<_>>(), [&key("n")], "it is asked for again");
        // Readable again: what was refused wasn't silence, and counts anew the next time.
        assert_eq!(read(&mut rival, 15, lease("m", "b", 4)), Lives);
        assert_eq!([16, 23].map(|at| refused(&mut rival, at)), [Lives; 2]);
        assert_eq!([24, 26].map(|at| refused(&mut rival, at)), [Gone; 2]);
        assert_eq!(read(&mut rival, 28, lease("m", "b", 4)), Gone, "it hasn't changed since");
        assert_eq!(read(&mut rival, 30, lease("m", "c", 4)), Lives);
        assert_eq!(refused(&mut rival, 32), Lives);
        assert_eq!(read(&mut rival, 34, lease("", "c", 4)), Gone, "released");
    }

    #[test]
    fn of_several_one_that_lives_is_enough() {
        use Presence::{Gone, Lives, Unknown};
        let mut rival = Rival::new(PERIOD);
        let mut read = |at: u64, leases: [(&str, Option<Seen>); 2]| {
            let leases = leases.into_iter().filter_map(|(namespace, lease)| Some((key(namespace), lease?)));
            let presence = rival.saw(Duration::from_secs(at), leases);
            (presence, rival.cause().map(|(key, _)| key.namespace().to_owned()).unwrap_or_default())
        };
        let of = |presence, namespace: &str| (presence, namespace.to_owned());
        let (a, b) = (|renewed| ("a", lease("m", renewed, 1)), |renewed| ("b", lease("n", renewed, 2)));
        assert_eq!(read(0, [a("1"), b("1")]), of(Unknown, "a"));
        assert_eq!(read(2, [a("1"), b("1")]), of(Unknown, "b"), "a is silent");
        assert_eq!(read(4, [a("1"), b("2")]), of(Lives, "b"));
        assert_eq!(read(6, [a("2"), b("2")]), of(Lives, "a"));
        assert_eq!(read(8, [a("2"), b("2")]), of(Gone, "a"));
        assert_eq!(read(10, [a("2"), ("c", lease("o", "1", 2))]), of(Lives, "c"), "it was just taken");
        assert_eq!(read(12, [a("2"), ("c", None)]), of(Gone, "a"));
    }
}
