//! Whether the API server can be reached, as all watches together know it.
//!
//! Never asks it anything and never writes a line: it says when one is due, at the first watch that can't reach it and
//! once one can again. A watch that ends meanwhile proves nothing.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// What the watches of a process found.
#[derive(Default)]
pub(crate) struct Outage(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// Watches that can't reach it.
    without: usize,
    /// When the first of them said so, until somebody was told of the end.
    since: Option<Instant>,
}

impl Outage {
    /// A watch can't reach it any more; tells whether nobody knew.
    pub(crate) fn lost(&self, now: Instant) -> bool {
        let mut known = self.0.lock();
        known.without += 1;
        let news = known.since.is_none();
        known.since.get_or_insert(now);
        news
    }

    /// A watch that couldn't reach it has ended.
    pub(crate) fn left(&self) {
        let mut known = self.0.lock();
        known.without = known.without.saturating_sub(1);
    }

    /// A watch was answered; `before` says whether it couldn't reach it until now. How long it took, once all can.
    pub(crate) fn reached(&self, before: bool, now: Instant) -> Option<Duration> {
        let mut known = self.0.lock();
        known.without = known.without.saturating_sub(usize::from(before));
        if known.without > 0 {
            return None;
        }
        known.since.take().map(|since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn begins_with_the_first_and_ends_with_the_last() {
        let (outage, start) = (Outage::default(), Instant::now());
        assert!(outage.lost(start) && !outage.lost(start + SECOND));
        assert_eq!(outage.reached(true, start + SECOND * 2), None);
        assert_eq!(outage.reached(true, start + SECOND * 3), Some(SECOND * 3));
        assert_eq!(outage.reached(false, start + SECOND * 4), None, "said once");
        assert!(outage.lost(start + SECOND * 5), "another one");
    }

    #[test]
    fn a_watch_that_ends_meanwhile_is_no_longer_counted_and_proves_nothing() {
        let (outage, start) = (Outage::default(), Instant::now());
        assert!(outage.lost(start) && !outage.lost(start));
        outage.left();
        assert_eq!(outage.reached(true, start + SECOND), Some(SECOND));
        assert!(outage.lost(start));
        outage.left();
        assert!(!outage.lost(start + SECOND), "the same outage");
        outage.left();
        assert_eq!(outage.reached(false, start + SECOND * 2), Some(SECOND * 2), "whoever is answered tells of the end");
    }
}
