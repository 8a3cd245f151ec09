//! Whether an endpoint is left out: from when on, until when, and how it comes back.
//!
//! Never connects. Moments are time since any fixed start of a monotonic clock.

use std::time::Duration;

use crate::queue::backoff;

/// No pause between two probes of an endpoint that was left out is longer.
const MAX_PAUSE: Duration = Duration::from_secs(30);
/// From so many bad answers in a row on, without a good one between, an endpoint is said to answer errors only.
pub const ERRING_AFTER: u32 = 5;

/// What is known of an endpoint's health.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Since when it is left out, and when it is probed, if it is.
    ejected: Option<(Duration, Duration)>,
    /// Ejections and failed probes in a row, without an answered call between.
    strikes: u32,
    /// When it answered last, whatever it said.
    answered: Option<Duration>,
    /// Bad answers in a row, and the last code.
    bad: (u32, u16),
    /// The shard of the first of them, and whether others were among them: one parent's errors may be its own.
    bad_shard: Option<u8>,
    bad_of_several: bool,
}

impl Health {
    /// Whether it is left out.
    #[must_use]
    pub fn is_ejected(&self) -> bool {
        self.ejected.is_some()
    }

    /// When it is to be probed, if it is left out.
    #[must_use]
    pub fn probe_at(&self) -> Option<Duration> {
        self.ejected.map(|(_, probe_at)| probe_at)
    }

    /// A connection failed, or a call and a probe stayed without an answer: it is left out. Tells whether that is news.
    /// `random` is 64 random bits.
    pub fn failed(&mut self, now: Duration, random: u64) -> bool {
        let is_news = self.ejected.is_none();
        if is_news {
            self.strike(now, now, random);
        }
        is_news
    }

    /// A probe ended. Tells whether the endpoint is back: it answers, but what it does with calls is to be seen.
    pub fn probed(&mut self, answered: bool, now: Duration, random: u64) -> bool {
        let Some((since, _)) = self.ejected else { return false };
        if answered {
            self.ejected = None;
        } else {
            self.strike(since, now, random);
        }
        answered
    }

    /// A call for a parent of this shard that began at `begun` was answered with this code. Tells whether the endpoint is
    /// back by that: it was left out before. Answers to earlier calls say nothing of how it is now: it may be shutting down.
    pub fn answered(&mut self, shard: u8, code: u16, begun: Duration, now: Duration) -> bool {
        self.answered = Some(now);
        self.bad = match code {
            // A request to come later, and a refusal of the parent, are answers of a hook that is well.
            200 | 422 | 429 => (0, 0),
            code => (self.bad.0.saturating_add(1), code),
        };
        if self.bad.0 == 0 {
            (self.bad_shard, self.bad_of_several) = (None, false);
        } else {
            self.bad_of_several |= *self.bad_shard.get_or_insert(shard) != shard;
        }
        if self.ejected.is_some_and(|(since, _)| begun < since) {
            return false;
        }
        self.strikes = 0;
        self.ejected.take().is_some()
    }

    /// When it answered last, whatever it said.
    #[must_use]
    pub fn heard(&self) -> Option<Duration> {
        self.answered
    }

    /// The code that it answers everything with, if that isn't a good one.
    #[must_use]
    pub fn erring(&self) -> Option<u16> {
        (self.bad_of_several && self.bad.0 >= ERRING_AFTER).then_some(self.bad.1)
    }

    fn strike(&mut self, since: Duration, now: Duration, random: u64) {
        self.strikes = self.strikes.saturating_add(1);
        self.ejected = Some((since, now + backoff(self.strikes, random).min(MAX_PAUSE)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn pauses_grow_until_a_call_is_answered() {
        let mut health = Health::default();
        assert!(!health.is_ejected() && health.failed(secs(10), u64::MAX) && health.is_ejected());
        let first = health.probe_at().unwrap();
        assert!(!health.failed(secs(11), 0), "known");
        assert_eq!(health.probe_at(), Some(first));
        assert!(!health.probed(false, secs(20), u64::MAX));
        assert!(health.probe_at().unwrap() - secs(20) == 2 * (first - secs(10)));
        // Back by a probe, and out again by the next call: it goes on where it was.
        assert!(health.probed(true, secs(30), 0) && !health.is_ejected());
        assert!(health.failed(secs(40), u64::MAX));
        assert!(health.probe_at().unwrap() - secs(40) == 4 * (first - secs(10)));
        assert!(!health.answered(0, 200, secs(39), secs(41)) && health.is_ejected(), "an answer from before");
        assert!(health.answered(0, 200, secs(40), secs(41)), "a call found it well");
        assert!(
            !health.is_ejected() && !health.answered(0, 200, secs(41), secs(41)) && !health.probed(true, secs(42), 0)
        );
        assert!(health.failed(secs(50), u64::MAX));
        assert_eq!(health.probe_at().unwrap() - secs(50), first - secs(10));
        for _ in 0..40 {
            health.probed(false, secs(60), u64::MAX);
        }
        assert_eq!(health.probe_at().unwrap() - secs(60), MAX_PAUSE);
    }

    #[test]
    fn any_answer_is_heard() {
        let mut health = Health::default();
        assert_eq!(health.heard(), None);
        health.answered(0, 500, secs(1), secs(2));
        assert_eq!(health.heard(), Some(secs(2)));
    }

    #[test]
    fn errors_only_is_told_and_does_not_eject() {
        let mut health = Health::default();
        for _ in 0..ERRING_AFTER {
            health.answered(7, 500, secs(1), secs(1));
        }
        assert_eq!(health.erring(), None, "of one parent, as far as is known");
        health.answered(8, 503, secs(1), secs(1));
        assert_eq!((health.erring(), health.is_ejected()), (Some(503), false));
        health.answered(7, 422, secs(1), secs(1));
        assert_eq!(health.erring(), None);
    }
}
