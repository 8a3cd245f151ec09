//! Children that two controllers of the same parent take from each other: what one adopts, the other releases.
//!
//! Never says whose they are: nobody here can know. It only makes the quarrel slow, and lets it be told.

use std::collections::HashMap;
use std::time::Duration;

use crate::key::ObjectKey;

/// So often in a row a child is adopted or released without a pause: more than once is bad luck.
const FREE: u32 = 3;
/// What follows is after a second, then after twice as long each time, up to this.
const MAX_PAUSE: Duration = Duration::from_secs(60);
/// A child that was left alone for so long begins anew.
const FORGIVEN: Duration = Duration::from_secs(300);
/// Children of one parent of which this is known.
const MAX_KNOWN: usize = 64;

/// What of a parent's children was adopted or released lately, how often, and when last.
#[derive(Debug, Default)]
pub struct Contest(HashMap<ObjectKey, (u32, Duration)>);

impl Contest {
    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How long a child is to be left alone from `now` on, 60 s at most; `None` if it needn't. Times are of one steady clock.
    #[must_use]
    pub fn pause(&self, child: &ObjectKey, now: Duration) -> Option<Duration> {
        let (times, last) = self.0.get(child)?;
        let more = times.checked_sub(FREE)?;
        let pause = Duration::from_secs(1u64 << more.min(6)).min(MAX_PAUSE);
        pause.checked_sub(now.saturating_sub(*last)).filter(|left| !left.is_zero())
    }

    /// A child was adopted or released at `now`.
    pub fn claimed(&mut self, child: &ObjectKey, now: Duration) {
        self.0.retain(|_, (_, last)| now.saturating_sub(*last) < FORGIVEN);
        if self.0.len() < MAX_KNOWN || self.0.contains_key(child) {
            let (times, last) = self.0.entry(child.clone()).or_default();
            (*times, *last) = (times.saturating_add(1), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    #[test]
    fn a_child_that_goes_to_and_fro_is_left_alone_for_longer_and_longer() {
        let (mut contest, child) = (Contest::default(), ObjectKey::new("n", "a"));
        let mut now = at(100);
        for _ in 0..FREE {
            assert_eq!(contest.pause(&child, now), None);
            contest.claimed(&child, now);
        }
        let mut pauses = Vec::new();
        for _ in 0..8 {
            let pause = contest.pause(&child, now).unwrap();
            pauses.push(pause.as_secs());
            assert_eq!(contest.pause(&child, now + pause / 2), Some(pause - pause / 2));
            now += pause;
            assert_eq!(contest.pause(&child, now), None);
            contest.claimed(&child, now);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 32, 60, 60]);
        assert_eq!(contest.pause(&ObjectKey::new("n", "b"), now), None, "others aren't concerned");
        contest.claimed(&ObjectKey::new("n", "b"), now + FORGIVEN);
        assert_eq!(contest.pause(&child, now + FORGIVEN), None, "it is forgiven");
    }

    #[test]
    fn little_is_kept() {
        let mut contest = Contest::default();
        let child = |number: usize| ObjectKey::new("n", &format!("c{number}"));
        for number in 0..2 * MAX_KNOWN {
            contest.claimed(&child(number), at(1));
        }
        assert_eq!(contest.0.len(), MAX_KNOWN);
        for _ in 0..FREE {
            contest.claimed(&child(0), at(1));
        }
        assert!(contest.pause(&child(0), at(1)).is_some(), "one that is known counts on");
    }
}
