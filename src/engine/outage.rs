//! Whether the API server can be reached, as all watches together know it.
//!
//! Never asks it anything. One line is written at the first watch that can't reach it, and one once all can again. A watch
//! that ends meanwhile proves nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use ringmaster_cluster::{Error, Roused};
use ringmaster_core::key::Resource;
use tokio::sync::Notify;
use tracing::{info, warn};

use crate::host::UNREACHABLE;

/// What the watches of a process found.
#[derive(Default)]
pub(crate) struct Outage {
    known: Mutex<Known>,
    roused: Notify,
}

#[derive(Default)]
struct Known {
    /// Watches that can't reach it.
    without: usize,
    /// When the first of them said so, until somebody was told of the end.
    since: Option<Instant>,
    /// Whether the watches that wait were told that one of them was answered.
    told: bool,
}

impl Outage {
    /// A watch can't reach it any more; tells whether nobody knew.
    fn lost(&self, now: Instant) -> bool {
        let mut known = self.known.lock();
        known.without += 1;
        let news = known.since.is_none();
        known.told &= !news;
        known.since.get_or_insert(now);
        news
    }

    /// A watch that couldn't reach it has ended.
    fn left(&self) {
        let mut known = self.known.lock();
        known.without = known.without.saturating_sub(1);
    }

    /// A watch was answered; `before` says whether it couldn't reach it until now. How long it took, once all can.
    fn reached(&self, before: bool, now: Instant) -> Option<Duration> {
        let mut known = self.known.lock();
        known.without = known.without.saturating_sub(usize::from(before));
        if before && !known.told {
            known.told = true;
            self.rouse();
        }
        if known.without > 0 {
            return None;
        }
        known.since.take().map(|since| now.saturating_duration_since(since))
    }
}

impl Outage {
    /// Watches that pause after a failure try again at once: the API server answers.
    pub(crate) fn rouse(&self) {
        self.roused.notify_waiters();
    }
}

/// What one watch knows of it.
pub(crate) struct Reach {
    outage: Arc<Outage>,
    lost: AtomicBool,
}

impl Reach {
    pub(crate) fn new(outage: &Arc<Outage>) -> Self {
        Self { outage: Arc::clone(outage), lost: AtomicBool::new(false) }
    }

    /// The API server answered.
    pub(crate) fn answered(&self) {
        let before = self.lost.swap(false, Ordering::Relaxed);
        if let Some(after) = self.outage.reached(before, Instant::now()) {
            info!(after_s = after.as_secs(), "the API server is reached again");
        }
    }

    /// Resolves once somebody knows that the API server answers.
    pub(crate) fn roused(&self) -> Roused {
        let outage = Arc::clone(&self.outage);
        Box::pin(async move { outage.roused.notified().await })
    }

    /// A watch of a kind has failed so often in a row; gives back a word for why.
    pub(crate) fn failed(&self, kind: &Resource, error: &Error, failures: u32) -> &'static str {
        if error.code().is_none() {
            if !self.lost.swap(true, Ordering::Relaxed) && self.outage.lost(Instant::now()) {
                warn!("the API server can't be reached: {error}; trying again");
            }
            return UNREACHABLE;
        }
        self.answered();
        // One line when it begins, and a reminder at each doubling; an outage is one line for all kinds.
        if failures.is_power_of_two() && !error.is_not_found() {
            warn!(%kind, failures, "watching fails: {error}");
        }
        error.reason()
    }
}

impl Drop for Reach {
    fn drop(&mut self) {
        if *self.lost.get_mut() {
            self.outage.left();
        }
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

    #[tokio::test]
    async fn the_first_that_is_answered_rouses_the_others_once() {
        let (outage, start) = (Arc::new(Outage::default()), Instant::now());
        let reach = Reach::new(&outage);
        let is_roused = async |roused: Roused| tokio::time::timeout(Duration::from_millis(20), roused).await.is_ok();
        let answered = async |roused: Roused| {
            let waits = tokio::spawn(roused);
            tokio::task::yield_now().await;
            outage.reached(true, start);
            is_roused(Box::pin(async { waits.await.unwrap() })).await
        };
        assert!(outage.lost(start) && !outage.lost(start) && !outage.lost(start));
        assert!(!is_roused(reach.roused()).await, "nobody was answered");
        assert!(answered(reach.roused()).await);
        assert!(!answered(reach.roused()).await, "the second says nothing new");
        outage.reached(true, start);
        outage.lost(start);
        assert!(answered(reach.roused()).await, "in the next outage");
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
