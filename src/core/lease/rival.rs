//! Another controller's leader Lease, as this process sees it change: whether its holder lives, and both must not work.
//!
//! Never takes such a Lease, and never compares its times with a clock.

use std::time::Duration;

use super::{BLIND_PERIODS, MAX_DURATION, Seen, Terms};

/// What is known of the holder of a leader Lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Presence {
    /// The Lease is held, and there was no time yet to see whether it is renewed.
    #[default]
    Unknown,
    /// It was seen to change, and not seen to be silent for its whole duration since.
    Lives,
    /// There is no Lease, it is released, or it hasn't changed for its whole duration.
    Gone,
}

/// The Lease as it was read from time to time.
#[derive(Clone, Debug)]
pub struct Rival {
    /// It is read this often.
    period: Duration,
    read: Option<Duration>,
    held: Option<Held>,
}

#[derive(Clone, Debug)]
struct Held {
    lease: Seen,
    /// From when its silence counts.
    since: Duration,
    presence: Presence,
}

impl Rival {
    /// One that was never read, and will be once a `period`.
    #[must_use]
    pub fn new(period: Duration) -> Self {
        Self { period, read: None, held: None }
    }

    /// Whether it was never read.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.read.is_none()
    }

    /// The Lease was read at `now`, on a clock of the caller's; `None`: it isn't there. What follows is so until it is
    /// read again.
    ///
    /// Silence counts from when a state was first seen, and anew after a gap in which renewals can't have been seen. A
    /// Lease that was silent for its duration counts again only once it has changed.
    pub fn saw(&mut self, now: Duration, lease: Option<Seen>) -> Presence {
        let limit = self.period.saturating_mul(BLIND_PERIODS);
        let is_first = self.is_new();
        let was_blind = self.read.is_none_or(|read| now > read.saturating_add(limit));
        self.read = Some(now);
        let Some(lease) = lease.filter(|lease| !lease.holder.is_empty()) else {
            self.held = None;
            return Presence::Gone;
        };
        let Some(held) = &mut self.held else {
            // One that wasn't there before was just taken.
            let presence = if is_first { Presence::Unknown } else { Presence::Lives };
            self.held = Some(Held { lease, since: now, presence });
            return presence;
        };
        if held.lease.holder != lease.holder || held.lease.renewed != lease.renewed {
            *held = Held { lease, since: now, presence: Presence::Lives };
        } else if held.presence != Presence::Gone {
            if was_blind {
                held.since = now;
            } else if now >= held.since.saturating_add(duration(&lease)) {
                held.presence = Presence::Gone;
            }
        }
        held.presence
    }
}

/// For how long its silence means nothing: what it says, at most [`MAX_DURATION`]; client-go's where it says nothing.
fn duration(lease: &Seen) -> Duration {
    if lease.duration.is_zero() { Terms::default().duration } else { lease.duration.min(MAX_DURATION) }
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

    /// What is known after each of these reads, at these seconds.
    fn after(reads: &[(u64, Option<Seen>)]) -> Vec<Presence> {
        let mut rival = Rival::new(PERIOD);
        reads.iter().map(|(at, lease)| rival.saw(Duration::from_secs(*at), lease.clone())).collect()
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
    fn what_is_renewed_lives_until_it_is_silent_for_its_duration() {
        use Presence::{Gone, Lives, Unknown};
        let reads = |second: Option<Seen>| {
            let mut reads = vec![(0, lease("m", "a", 4)), (2, second.clone())];
            reads.extend([4, 6, 8].map(|at| (at, second.clone())));
            after(&reads)
        };
        assert_eq!(reads(lease("m", "a", 4)), [Unknown, Unknown, Gone, Gone, Gone]);
        assert_eq!(reads(lease("m", "b", 4)), [Unknown, Lives, Lives, Gone, Gone]);
        assert_eq!(reads(lease("n", "a", 4)), [Unknown, Lives, Lives, Gone, Gone], "another holder");
        let again = [(0, lease("m", "a", 2)), (2, lease("m", "a", 2)), (4, lease("m", "b", 2))];
        assert_eq!(after(&again), [Unknown, Gone, Lives]);
    }

    #[test]
    fn a_lease_without_a_duration_has_the_usual_one_and_none_is_endless() {
        let silent = |seconds: u64, until: u64| {
            let reads: Vec<_> = (0..=until / 2).map(|turn| (turn * 2, lease("m", "a", seconds))).collect();
            after(&reads).last().copied()
        };
        assert_eq!((silent(0, 14), silent(0, 16)), (Some(Presence::Unknown), Some(Presence::Gone)));
        let longest = MAX_DURATION.as_secs();
        assert_eq!(silent(longest * 10, longest - 2), Some(Presence::Unknown));
        assert_eq!(silent(longest * 10, longest), Some(Presence::Gone));
    }

    #[test]
    fn what_was_not_looked_at_is_not_silence() {
        use Presence::{Gone, Lives, Unknown};
        let held = |at: u64| (at, lease("m", "b", 4));
        let gap = [(0, lease("m", "a", 4)), held(2), held(20), held(22), held(24)];
        assert_eq!(after(&gap), [Unknown, Lives, Lives, Lives, Gone]);
        let known = [held(0), held(2), held(4), held(20)];
        assert_eq!(after(&known), [Unknown, Unknown, Gone, Gone], "a gap brings nobody back");
    }
}
