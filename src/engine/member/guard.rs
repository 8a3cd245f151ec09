//! The guard: whether this member may work now, and on which rows. Asked before each hook call and API write, and again
//! after a hook's reply.
//!
//! Never decides who owns a row: the table does. Never trusts a timer: each question reads the clock that counts suspend.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use parking_lot::{Mutex, RwLock};
use ringmaster_cluster::{Client, Error};
use ringmaster_core::key::{Epoch, Uid};
use ringmaster_core::lease::WRITE_GRACE;
use ringmaster_core::table::RowId;
use ringmaster_rings::Right;
use tokio::sync::Notify;
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use crate::clock::boot_time;

/// An API server stops a request a little after its time is up.
pub(crate) const OUTCOME_MARGIN: Duration = Duration::from_millis(100);

/// What this member may do. Shared by all that work, and by the keeper, which renews the right.
pub(crate) struct Guard {
    /// When the right to work ends, in nanoseconds of the boot-time clock; 0 before the first renewal.
    ends_nanos: AtomicU64,
    /// Cancelled when the right ends; another begins with the next renewal.
    right: Mutex<CancellationToken>,
    /// Told when the right was lost or came back.
    turned: Notify,
    rows: RwLock<HashMap<RowId, Arc<Tenure>>>,
    refusals: AtomicU64,
    /// The right was given up for good.
    ended: AtomicBool,
}

/// Why a sync may not begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// Another member's, or nobody's, or on its way to another.
    NotOurs,
    /// The Lease wasn't renewed in time: nothing may be done for now.
    Lapsed,
}

/// One row that this member works on, from its start to its release.
pub(crate) struct Tenure {
    epoch: AtomicU64,
    cancel: CancellationToken,
    /// It is being given away: no sync begins, and none that runs begins a hook call.
    closing: CancellationToken,
    work: Mutex<Work>,
    ended: Notify,
    /// Whether its keys begin with a delay: it was taken by force too often.
    delayed: bool,
}

#[derive(Default)]
struct Work {
    running: usize,
    /// Writes whose outcome is unknown may happen until then, on the boot-time clock.
    unresolved: Duration,
    /// So may those that were cut off when the right ended: nothing begins before.
    cut_off: Duration,
}

/// One sync's leave to work. While it lives, its rows aren't given up.
pub(crate) struct Permit {
    guard: Arc<Guard>,
    right: CancellationToken,
    /// The controller's row, and the shard's if the controller is sharded.
    rows: (Arc<Tenure>, Option<Arc<Tenure>>),
}

impl Right for Guard {
    fn bounded(&self, client: &Client, what: &str) -> Result<Client, Error> {
        Self::bounded(self, client, what)
    }
}

impl Guard {
    pub(crate) fn new() -> Arc<Self> {
        let right = CancellationToken::new();
        right.cancel();
        Arc::new(Self {
            ends_nanos: AtomicU64::new(0),
            right: Mutex::new(right),
            turned: Notify::new(),
            rows: RwLock::default(),
            refusals: AtomicU64::new(0),
            ended: AtomicBool::new(false),
        })
    }

    /// A renewal succeeded: the right to work ends then, on the boot-time clock.
    pub(crate) fn renewed(&self, ends: Duration) {
        if self.ended.load(Ordering::Acquire) {
            return;
        }
        let nanos = u64::try_from(ends.as_nanos()).unwrap_or(u64::MAX);
        self.ends_nanos.fetch_max(nanos, Ordering::AcqRel);
        let mut right = self.right.lock();
        if right.is_cancelled() && self.left().is_some() {
            *right = CancellationToken::new();
            drop(right);
            self.turned.notify_waiters();
        }
    }

    /// How much is left of the right to work; `None` if nothing is.
    pub(crate) fn left(&self) -> Option<Duration> {
        let ends = Duration::from_nanos(self.ends_nanos.load(Ordering::Acquire));
        ends.checked_sub(boot_time()).filter(|left| !left.is_zero())
    }

    /// When the right to work ends, or ended, on the boot-time clock; `None` before the first renewal.
    pub(crate) fn ends(&self) -> Option<Duration> {
        let nanos = self.ends_nanos.load(Ordering::Acquire);
        (nanos > 0).then(|| Duration::from_nanos(nanos))
    }

    /// Cancels what runs if the right has ended; tells whether it just did.
    pub(crate) fn lapse(&self) -> bool {
        let right = self.right.lock();
        let ended = !right.is_cancelled() && self.left().is_none();
        if ended {
            right.cancel();
            drop(right);
            self.turned.notify_waiters();
        }
        ended
    }

    /// Gives up the right for good: the process ends.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Release);
        self.ends_nanos.store(0, Ordering::Release);
        self.right.lock().cancel();
        self.turned.notify_waiters();
    }

    /// Waits until the right is lost or comes back, or `limit` has passed.
    pub(crate) async fn turned(&self, limit: Duration) {
        let _ = tokio::time::timeout(limit, self.turned.notified()).await;
    }

    /// Work on a row may begin.
    pub(crate) fn open(&self, row: RowId, epoch: Epoch, delayed: bool) {
        let tenure = Tenure {
            epoch: AtomicU64::new(epoch.0),
            cancel: CancellationToken::new(),
            closing: CancellationToken::new(),
            work: Mutex::default(),
            ended: Notify::new(),
            delayed,
        };
        self.rows.write().insert(row, Arc::new(tenure));
    }

    /// Work on a row goes on under a newer epoch.
    pub(crate) fn renumber(&self, row: &RowId, epoch: Epoch) {
        if let Some(tenure) = self.rows.read().get(row) {
            tenure.epoch.fetch_max(epoch.0, Ordering::AcqRel);
        }
    }

    /// No more syncs of the row begin; what is still to be waited for is in the tenure. `None` if it wasn't open.
    pub(crate) fn close(&self, row: &RowId) -> Option<Arc<Tenure>> {
        let tenure = self.rows.write().remove(row)?;
        // Under the lock that entering takes: whoever is in is counted, whoever comes later isn't let in.
        let work = tenure.work.lock();
        tenure.closing.cancel();
        drop(work);
        Some(tenure)
    }

    /// Whether the keys of a row begin with a delay.
    pub(crate) fn is_delayed(&self, row: &RowId) -> bool {
        self.rows.read().get(row).is_some_and(|tenure| tenure.delayed)
    }

    /// Leave to sync a parent of a controller: a whole's, or one of a sharded controller's in this shard.
    ///
    /// # Errors
    /// If this member doesn't own the row, or has no right to work now.
    pub(crate) fn enter(self: &Arc<Self>, controller: &Uid, shard: Option<u8>) -> Result<Permit, Refused> {
        let right = self.right.lock().clone();
        if right.is_cancelled() || self.left().is_none() {
            self.refusals.fetch_add(1, Ordering::Relaxed);
            return Err(Refused::Lapsed);
        }
        let rows = self.rows.read();
        let enter = |row: &RowId| {
            let tenure = rows.get(row).ok_or(Refused::NotOurs)?;
            tenure.enter().map(|()| Arc::clone(tenure))
        };
        let first = enter(&RowId::Controller(controller.clone()))?;
        let second = match shard.map(|shard| enter(&RowId::Shard(shard))).transpose() {
            Ok(second) => second,
            Err(refused) => {
                first.leave();
                return Err(refused);
            }
        };
        drop(rows);
        Ok(Permit { guard: Arc::clone(self), right, rows: (first, second) })
    }

    /// What makes a write that is no sync's, bounded by the right to work.
    ///
    /// # Errors
    /// [`Error::Fenced`] if it may not be made.
    pub(crate) fn bounded(&self, client: &Client, what: &str) -> Result<Client, Error> {
        let left = self.left().ok_or_else(|| self.refused(what, "the member's Lease wasn't renewed in time"))?;
        Ok(client.within(left + WRITE_GRACE))
    }

    /// How often something was refused or cancelled because this member had no right to it.
    pub(crate) fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }

    fn refused(&self, what: &str, why: &'static str) -> Error {
        self.refusals.fetch_add(1, Ordering::Relaxed);
        Error::Fenced { call: what.to_owned(), why }
    }
}

impl Tenure {
    fn enter(&self) -> Result<(), Refused> {
        let mut work = self.work.lock();
        if self.closing.is_cancelled() {
            return Err(Refused::NotOurs);
        }
        if work.cut_off > boot_time() {
            return Err(Refused::Lapsed);
        }
        work.running += 1;
        Ok(())
    }

    fn leave(&self) {
        let mut work = self.work.lock();
        work.running = work.running.saturating_sub(1);
        if work.running == 0 {
            drop(work);
            self.ended.notify_waiters();
        }
    }

    fn unresolved(&self, until: Duration, cut_off: bool) {
        let mut work = self.work.lock();
        work.unresolved = work.unresolved.max(until);
        if cut_off {
            work.cut_off = work.cut_off.max(until);
        }
    }

    /// Waits until nothing runs any more, which is cancelled after `patience`, and until no write can still happen.
    pub(crate) async fn drained(&self, patience: Duration) {
        if tokio::time::timeout(patience, self.idle()).await.is_err() {
            self.cancel.cancel();
            self.idle().await;
        }
        let until = self.work.lock().unresolved;
        while let Some(wait) = until.checked_sub(boot_time()).filter(|wait| !wait.is_zero()) {
            tokio::time::sleep(wait).await;
        }
    }

    async fn idle(&self) {
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.work.lock().running == 0 {
                return;
            }
            ended.await;
        }
    }
}

/// Until it is known what became of a write.
struct Pending<'a> {
    permit: &'a Permit,
    until: Duration,
    known: bool,
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        if !self.known {
            let cut_off = self.permit.is_lapsed();
            self.permit.each(|tenure| tenure.unresolved(self.until, cut_off));
        }
    }
}

impl Permit {
    fn each(&self, what: impl Fn(&Tenure)) {
        what(&self.rows.0);
        if let Some(shard) = &self.rows.1 {
            what(shard);
        }
    }

    /// Under which epoch the parent is worked on: the newer of its controller's and its shard's.
    pub(crate) fn epoch(&self) -> Epoch {
        let epoch = |tenure: &Tenure| tenure.epoch.load(Ordering::Acquire);
        Epoch(epoch(&self.rows.0).max(self.rows.1.as_ref().map_or(0, |shard| epoch(shard))))
    }

    /// Whether what it was given for may still be done, in words if not.
    ///
    /// # Errors
    /// If the right to work has ended, or the row was taken away.
    pub(crate) fn check(&self, what: &str) -> Result<(), Error> {
        self.left(what).map(drop)
    }

    /// Whether a hook call may begin: also that the row isn't being given away, which waits for what runs.
    ///
    /// # Errors
    /// As [`Self::check`].
    pub(crate) fn check_begin(&self, what: &str) -> Result<(), Error> {
        let is_closing =
            self.rows.0.closing.is_cancelled() || self.rows.1.as_ref().is_some_and(|row| row.closing.is_cancelled());
        if is_closing {
            return Err(self.taken(what));
        }
        self.check(what)
    }

    /// The error of what wasn't begun, because the row is another member's soon.
    pub(crate) fn taken(&self, what: &str) -> Error {
        self.guard.refused(what, "another member takes over")
    }

    /// Resolves once a row is being given away.
    pub(crate) async fn closing(&self) {
        match &self.rows.1 {
            Some(shard) => tokio::select! {
                () = self.rows.0.closing.cancelled() => {}
                () = shard.closing.cancelled() => {}
            },
            None => self.rows.0.closing.cancelled().await,
        }
    }

    fn left(&self, what: &str) -> Result<Duration, Error> {
        let taken =
            self.rows.0.cancel.is_cancelled() || self.rows.1.as_ref().is_some_and(|row| row.cancel.is_cancelled());
        if taken {
            return Err(self.guard.refused(what, "another member takes over"));
        }
        let left = if self.right.is_cancelled() { None } else { self.guard.left() };
        left.ok_or_else(|| self.guard.refused(what, "the member's Lease wasn't renewed in time"))
    }

    /// Makes a write, bounded by the right to work.
    ///
    /// # Errors
    /// Those of the call, and [`Error::Fenced`] if it may not be made.
    pub(crate) async fn write<T>(
        &self,
        client: &Client,
        what: &str,
        call: impl AsyncFnOnce(Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let limit = self.left(what)? + WRITE_GRACE;
        let mut pending = Pending { permit: self, until: boot_time() + limit + OUTCOME_MARGIN, known: false };
        let outcome = call(client.within(limit)).await;
        pending.known = !outcome.as_ref().is_err_and(Error::outcome_is_unknown);
        outcome
    }

    /// Resolves once nothing more may be done under it.
    pub(crate) fn cancelled(&self) -> impl Future<Output = ()> + use<> {
        let ended = |token: &CancellationToken| -> WaitForCancellationFutureOwned { token.clone().cancelled_owned() };
        let (right, first) = (ended(&self.right), ended(&self.rows.0.cancel));
        let second = self.rows.1.as_ref().map(|row| ended(&row.cancel));
        async move {
            let second = async move {
                match second {
                    Some(ended) => ended.await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = right => {}
                () = first => {}
                () = second => {}
            }
        }
    }

    /// Whether the right to work has ended, and not only this row was taken away.
    pub(crate) fn is_lapsed(&self) -> bool {
        self.right.is_cancelled() || self.guard.left().is_none()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.each(Tenure::leave);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn guard() -> Arc<Guard> {
        let guard = Guard::new();
        guard.open(RowId::Controller(Uid::new("c")), Epoch(5), false);
        guard.open(RowId::Shard(7), Epoch(9), false);
        guard
    }

    #[test]
    fn nothing_without_a_right_and_nothing_of_others() {
        let guard = guard();
        assert_eq!(guard.enter(&Uid::new("c"), None).err(), Some(Refused::Lapsed));
        guard.renewed(boot_time() + HOUR);
        assert!(guard.enter(&Uid::new("c"), None).is_ok());
        assert_eq!(guard.enter(&Uid::new("d"), None).err(), Some(Refused::NotOurs));
        assert_eq!(guard.enter(&Uid::new("c"), Some(8)).err(), Some(Refused::NotOurs));
        let permit = guard.enter(&Uid::new("c"), Some(7)).unwrap();
        assert_eq!(permit.epoch(), Epoch(9));
        guard.renumber(&RowId::Controller(Uid::new("c")), Epoch(12));
        guard.renumber(&RowId::Shard(7), Epoch(3));
        assert_eq!(permit.epoch(), Epoch(12), "the newest, and never an older one");
        assert!(permit.check("x").is_ok());
    }

    #[tokio::test]
    async fn a_right_that_ends_cancels_and_one_that_comes_back_begins_anew() {
        let guard = guard();
        guard.renewed(boot_time() + Duration::from_millis(30));
        let permit = guard.enter(&Uid::new("c"), None).unwrap();
        assert!(!guard.lapse(), "not yet");
        tokio::time::sleep(Duration::from_millis(40)).await;
        assert!(permit.check("x").unwrap_err().is_fenced(), "the clock decides, not whoever cancels");
        assert!(guard.lapse() && !guard.lapse());
        permit.cancelled().await;
        guard.renewed(boot_time() + HOUR);
        assert!(permit.check("x").is_err() && permit.is_lapsed(), "an old permit stays void");
        assert!(guard.enter(&Uid::new("c"), None).is_ok());
        assert!(guard.refusals() >= 2);
    }

    #[tokio::test]
    async fn a_row_is_drained_when_its_syncs_have_ended_and_no_write_can_still_happen() {
        let guard = guard();
        guard.renewed(boot_time() + HOUR);
        let permit = guard.enter(&Uid::new("c"), Some(7)).unwrap();
        let tenure = guard.close(&RowId::Shard(7)).unwrap();
        assert!(guard.close(&RowId::Shard(7)).is_none());
        assert_eq!(guard.enter(&Uid::new("c"), Some(7)).err(), Some(Refused::NotOurs));
        assert!(permit.check("x").is_ok(), "what runs may end");
        let drained = tokio::time::timeout(Duration::from_millis(20), tenure.drained(HOUR)).await;
        assert!(drained.is_err(), "a sync still runs");
        let start = boot_time();
        drop(Pending { permit: &permit, until: start + Duration::from_millis(60), known: false });
        drop(Pending { permit: &permit, until: start + HOUR, known: true });
        let ended = permit.cancelled();
        let sync = tokio::spawn(async move {
            ended.await;
            drop(permit);
        });
        tenure.drained(Duration::from_millis(5)).await;
        assert!(sync.is_finished(), "it was cancelled");
        assert!(boot_time() >= start + Duration::from_millis(60));
        let other = guard.close(&RowId::Controller(Uid::new("c"))).unwrap();
        assert!(!other.cancel.is_cancelled(), "the other row goes on");
    }
}
