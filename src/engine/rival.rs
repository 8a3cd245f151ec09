//! Metacontroller, which must not work on the same objects: its leader Lease, as this member sees it.
//!
//! Never takes that Lease and never writes anything: `core::lease` judges, and the registry holds controllers back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringmaster_cluster::{Client, Error, Lease};
use ringmaster_core::key::{ObjectKey, Uid};
use ringmaster_core::lease;
use ringmaster_core::lease::Presence;
use ringmaster_core::table::RowId;
use ringmaster_core::table::duty::Done;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{info, warn};

use crate::clock::boot_time;
use crate::member::posts::Stand;
use crate::member::sharder::seen;
use crate::stage::Stage;

/// The Lease is read this often: client-go's retry period, by which it is renewed.
const PERIOD: Duration = Duration::from_secs(2);
/// A read that takes longer is given up.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// Has a controller that waits for Metacontroller's end hold no hand-over up, until cancelled: nothing is to be made ready.
pub(crate) async fn hold(stage: Arc<Stage>, uid: Uid, cancel: CancellationToken) {
    let post = stage.posts.post(&uid);
    post.divide(1);
    let mut stand = post.stand();
    loop {
        let now = *stand.borrow_and_update();
        if let Stand::Warm(epoch) = now {
            stage.posts.tell(&post, 0, Done::Warm(RowId::Controller(uid.clone()), epoch));
        }
        tokio::select! {
            () = cancel.cancelled() => return,
            // The post is held here.
            _ = stand.changed() => {}
        }
    }
}

/// What is known of Metacontroller. Shared.
pub(crate) struct Rival {
    client: Client,
    lease: ObjectKey,
    presence: watch::Sender<Presence>,
    begun: AtomicBool,
}

impl Rival {
    /// Nothing is known yet, and nothing is read before [`Self::begin`].
    pub(crate) fn new(client: Client, lease: ObjectKey) -> Arc<Self> {
        let presence = watch::Sender::new(Presence::Unknown);
        Arc::new(Self { client, lease, presence, begun: AtomicBool::new(false) })
    }

    /// Whether it is there, now and from now on.
    pub(crate) fn presence(&self) -> watch::Receiver<Presence> {
        self.presence.subscribe()
    }

    /// What people are told of controllers that wait for its end.
    pub(crate) fn advice(&self) -> String {
        format!(
            "Metacontroller runs: its Lease {} is renewed, and both must not work on the same objects. Scale Metacontroller \
             to 0; this controller starts once the Lease is silent for its duration, or deleted",
            self.lease
        )
    }

    /// Somebody needs to know: it is looked at until stopped.
    pub(crate) fn begin(self: &Arc<Self>, tasks: &TaskTracker, stop: &CancellationToken) {
        if self.begun.swap(true, Ordering::AcqRel) {
            return;
        }
        let (rival, stop) = (Arc::clone(self), stop.clone());
        tasks.spawn(async move {
            tokio::select! {
                () = stop.cancelled() => {}
                () = rival.observe() => {}
            }
        });
    }

    async fn observe(&self) {
        let mut observer = lease::Rival::new(PERIOD);
        let mut interval = tokio::time::interval(PERIOD);
        interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let (kind, mut failures, mut told_unreadable) = (Lease::resource(), 0u32, false);
        loop {
            interval.tick().await;
            let read = self.client.get(&kind, &self.lease);
            let read = tokio::time::timeout(READ_TIMEOUT, read).await;
            let read = read.unwrap_or_else(|_| {
                Err(Error::Timeout { call: format!("GET the Lease {}", self.lease), after: READ_TIMEOUT })
            });
            let found = match read {
                Ok(found) => found.as_ref().and_then(Lease::from_object),
                // Nobody who can't be seen is waited for.
                Err(error) if error.is_forbidden() || error.is_not_found() => {
                    if !std::mem::replace(&mut told_unreadable, true) {
                        warn!(
                            lease = %self.lease,
                            "it can't be seen whether Metacontroller runs, so its controllers don't wait for it; grant get \
                             on this Lease to Ringmaster's account: {error}"
                        );
                    }
                    None
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    // One line when it begins, and a reminder at each doubling. What was known stays.
                    if failures.is_power_of_two() {
                        warn!(lease = %self.lease, failures, "Metacontroller's Lease can't be read: {error}");
                    }
                    continue;
                }
            };
            failures = 0;
            let (holder, duration) =
                found.as_ref().map(|lease| (lease.holder.clone(), lease.duration_secs)).unwrap_or_default();
            let is_first = observer.is_new();
            let presence = observer.saw(boot_time(), found.as_ref().map(seen));
            if is_first && presence == Presence::Unknown {
                info!(lease = %self.lease, holder, duration, "waiting to see whether Metacontroller renews its Lease");
            }
            self.now(presence, &holder);
        }
    }

    fn now(&self, presence: Presence, holder: &str) {
        let before = *self.presence.borrow();
        if before == presence {
            return;
        }
        match (before, presence) {
            (_, Presence::Lives) => warn!(
                lease = %self.lease,
                holder,
                "Metacontroller runs: controllers of its group wait here until its Lease is silent; scale it to 0"
            ),
            (Presence::Lives, Presence::Gone) => {
                info!(lease = %self.lease, "Metacontroller runs no more: controllers of its group start here");
            }
            // A Lease that nobody renews any more costs each start its duration.
            (Presence::Unknown, Presence::Gone) if !holder.is_empty() => {
                info!(lease = %self.lease, "Metacontroller doesn't renew its Lease: it may be deleted");
            }
            _ => {}
        }
        self.presence.send_replace(presence);
    }
}
