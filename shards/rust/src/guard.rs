//! The guard: whether this shard may work now. Asked before each run of the user's function and each write.
//!
//! Never trusts a timer: each question reads the clock that goes on while the process or the machine is stopped. A right
//! that is lost doesn't come back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::clock::boot_time;

/// Why something wasn't begun or written. It never happened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// The shard leaves its ring: what runs may end, nothing new begins.
    #[error("this shard leaves its ring: nothing new is begun")]
    Leaving,
    /// The shard's right to work has ended.
    #[error("this shard has no right to work any more: its Lease was taken, released, or not renewed in time")]
    Lost,
}

impl Refused {
    /// Why a call of the guarded client was refused; `None` if its error is another.
    #[must_use]
    pub fn of(error: &kube::Error) -> Option<Self> {
        match error {
            kube::Error::Service(cause) => cause.downcast_ref::<Self>().copied(),
            _ => None,
        }
    }
}

/// Shared by all that work, and by the keeper, which renews the right.
#[derive(Debug)]
pub(crate) struct Guard {
    /// When the right to work ends, in nanoseconds of the boot-time clock; 0 before the first renewal.
    ends_nanos: AtomicU64,
    /// The right has ended for good.
    has_ended: AtomicBool,
    /// Cancelled then.
    end: CancellationToken,
    work: Mutex<Work>,
    /// Told when work ends.
    quieter: Notify,
    /// Told of each renewal.
    granted: Notify,
}

#[derive(Debug, Default)]
struct Work {
    is_closing: bool,
    running: usize,
    writing: usize,
    /// Until when a write may still happen whose outcome isn't known, on the boot-time clock.
    unresolved: Duration,
}

impl Guard {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            ends_nanos: AtomicU64::new(0),
            has_ended: AtomicBool::new(false),
            end: CancellationToken::new(),
            work: Mutex::default(),
            quieter: Notify::new(),
            granted: Notify::new(),
        })
    }

    /// The right to work lasts until `ends` of the boot-time clock.
    pub(crate) fn renewed(&self, ends: Duration) {
        let nanos = u64::try_from(ends.as_nanos()).unwrap_or(u64::MAX);
        self.ends_nanos.fetch_max(nanos, Ordering::AcqRel);
        self.granted.notify_one();
    }

    /// How much is left of the right to work; `None` if nothing is.
    pub(crate) fn left(&self) -> Option<Duration> {
        if self.has_ended.load(Ordering::Acquire) {
            return None;
        }
        let ends = Duration::from_nanos(self.ends_nanos.load(Ordering::Acquire));
        ends.checked_sub(boot_time()).filter(|left| !left.is_zero())
    }

    /// Whether the shard may work.
    pub(crate) fn check(&self) -> Result<(), Refused> {
        self.left().map(drop).ok_or(Refused::Lost)
    }

    /// Resolves when the right to work has ended by the clock. Never before the first renewal, nor after [`Self::end`].
    pub(crate) async fn expired(&self) {
        loop {
            let ends = Duration::from_nanos(self.ends_nanos.load(Ordering::Acquire));
            if ends.is_zero() || self.has_ended.load(Ordering::Acquire) {
                self.granted.notified().await;
                continue;
            }
            match ends.checked_sub(boot_time()) {
                // Renewals move the end: it is looked at again when it would have been reached.
                Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
                _ => return,
            }
        }
    }

    /// Gives up the right for good. What runs is cancelled.
    pub(crate) fn end(&self) {
        self.has_ended.store(true, Ordering::Release);
        self.end.cancel();
    }

    /// Resolves after [`Self::end`].
    pub(crate) async fn ended(&self) {
        self.end.cancelled().await;
    }

    /// Nothing new begins from now on; what runs may end.
    pub(crate) fn close(&self) {
        // Under the lock that beginning takes: whoever is in is counted, whoever comes later isn't let in.
        self.work.lock().is_closing = true;
    }

    /// Leave to run the user's function once.
    ///
    /// # Errors
    /// If the shard leaves, or has no right to work.
    pub(crate) fn begin(self: &Arc<Self>) -> Result<Run, Refused> {
        let mut work = self.work.lock();
        if work.is_closing {
            return Err(Refused::Leaving);
        }
        self.check()?;
        work.running += 1;
        drop(work);
        Ok(Run(Arc::clone(self)))
    }

    /// Counts a write that has no outcome yet; without one, it may happen until `until` of the boot-time clock.
    pub(crate) fn writing(self: &Arc<Self>, until: Duration) -> Writing {
        self.work.lock().writing += 1;
        Writing { guard: Arc::clone(self), until, is_known: false }
    }

    /// Whether nothing runs, and no write can still happen.
    pub(crate) fn is_quiet(&self) -> bool {
        let work = self.work.lock();
        work.running == 0 && work.writing == 0 && work.unresolved <= boot_time()
    }

    /// Waits until nothing runs, and no write can still happen.
    pub(crate) async fn quiet(&self) {
        loop {
            let quieter = self.quieter.notified();
            tokio::pin!(quieter);
            quieter.as_mut().enable();
            let is_idle = {
                let work = self.work.lock();
                work.running == 0 && work.writing == 0
            };
            if !is_idle {
                quieter.await;
                continue;
            }
            self.resolved().await;
            if self.is_quiet() {
                return;
            }
        }
    }

    /// Waits until no write can still happen whose outcome isn't known: no longer than a renew deadline and some seconds,
    /// unless there are more of them.
    pub(crate) async fn resolved(&self) {
        loop {
            let until = self.work.lock().unresolved;
            match until.checked_sub(boot_time()) {
                Some(left) if !left.is_zero() => tokio::time::sleep(left).await,
                _ => return,
            }
        }
    }
}

/// A run of the user's function.
#[derive(Debug)]
pub(crate) struct Run(Arc<Guard>);

impl Drop for Run {
    fn drop(&mut self) {
        let mut work = self.0.work.lock();
        work.running = work.running.saturating_sub(1);
        drop(work);
        self.0.quieter.notify_waiters();
    }
}

/// A write that has no outcome yet.
#[derive(Debug)]
pub(crate) struct Writing {
    guard: Arc<Guard>,
    until: Duration,
    is_known: bool,
}

impl Writing {
    /// It is known what became of it.
    pub(crate) fn known(&mut self) {
        self.is_known = true;
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut work = self.guard.work.lock();
        work.writing = work.writing.saturating_sub(1);
        if !self.is_known {
            work.unresolved = work.unresolved.max(self.until);
        }
        drop(work);
        self.guard.quieter.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn nothing_without_a_right_and_none_comes_back() {
        let guard = Guard::new();
        assert_eq!(guard.begin().err(), Some(Refused::Lost));
        guard.renewed(boot_time() + HOUR);
        assert!(guard.check().is_ok() && guard.begin().is_ok());
        guard.end();
        guard.renewed(boot_time() + HOUR);
        assert_eq!((guard.check(), guard.begin().err()), (Err(Refused::Lost), Some(Refused::Lost)));
    }

    #[tokio::test]
    async fn the_clock_ends_the_right() {
        let guard = Guard::new();
        let expired = tokio::time::timeout(Duration::from_millis(20), guard.expired()).await;
        assert!(expired.is_err(), "there is no right that could expire");
        let ends = boot_time() + Duration::from_millis(30);
        guard.renewed(ends);
        guard.expired().await;
        assert!(boot_time() >= ends);
        assert_eq!(guard.check(), Err(Refused::Lost));
    }

    #[tokio::test]
    async fn a_shard_is_quiet_when_its_runs_have_ended_and_no_write_can_still_happen() {
        let guard = Guard::new();
        guard.renewed(boot_time() + HOUR);
        let (run, mut write) = (guard.begin().unwrap(), guard.writing(boot_time() + HOUR));
        guard.close();
        assert_eq!(guard.begin().err(), Some(Refused::Leaving));
        assert!(guard.check().is_ok(), "what runs may write");
        assert!(!guard.is_quiet());
        drop(run);
        assert!(!guard.is_quiet());
        write.known();
        drop(write);
        assert!(guard.is_quiet());
        let until = boot_time() + Duration::from_millis(50);
        drop(guard.writing(until));
        assert!(!guard.is_quiet());
        guard.quiet().await;
        assert!(boot_time() >= until);
    }

    #[tokio::test]
    async fn whoever_waits_is_told_of_the_last_run_and_of_the_end() {
        let guard = Guard::new();
        guard.renewed(boot_time() + HOUR);
        let run = guard.begin().unwrap();
        let (ended, quiet) = (Arc::clone(&guard), Arc::clone(&guard));
        let working = tokio::spawn(async move {
            ended.ended().await;
            drop(run);
        });
        let waiting = tokio::spawn(async move { quiet.quiet().await });
        guard.end();
        working.await.unwrap();
        waiting.await.unwrap();
    }

    #[test]
    fn a_refusal_is_found_in_a_clients_error() {
        let error = kube::Error::Service(Box::new(Refused::Leaving));
        assert_eq!(Refused::of(&error), Some(Refused::Leaving));
        assert_eq!(Refused::of(&kube::Error::Service("other".into())), None);
    }
}
