//! Metacontroller, which must not work on the same objects: its leader Lease, as this member sees it, in the namespace
//! that is said or in any.
//!
//! Never takes that Lease and never writes anything: `core::lease` judges, and the registry holds controllers back.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use ringmaster_cluster::{Client, Error, Lease};
use ringmaster_core::key::{ObjectKey, Resource, Uid};
use ringmaster_core::lease;
use ringmaster_core::lease::{Presence, SILENT_DURATIONS, Seen};
use ringmaster_core::object::Object;
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
/// So many Leases of the name are looked at, in as many namespaces: one after the other, within the same time.
const MAX_LEASES: usize = 16;

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
    /// Without a namespace it is looked for in all of them.
    lease: ObjectKey,
    /// Where it is looked for by whoever may not look everywhere.
    home: ObjectKey,
    /// Whether that has been told.
    is_narrow: AtomicBool,
    /// The one that was seen renewed last.
    renewed: Mutex<Option<ObjectKey>>,
    presence: watch::Sender<Presence>,
    begun: AtomicBool,
}

impl Rival {
    /// Nothing is known yet, and nothing is read before [`Self::begin`]. `home` is the namespace of our own Leases.
    pub(crate) fn new(client: Client, lease: ObjectKey, home: &str) -> Arc<Self> {
        let home = ObjectKey::new(home, lease.name());
        let presence = watch::Sender::new(Presence::Unknown);
        let (is_narrow, renewed, begun) = (AtomicBool::new(false), Mutex::default(), AtomicBool::new(false));
        Arc::new(Self { client, lease, home, is_narrow, renewed, presence, begun })
    }

    /// Whether it is there, now and from now on.
    pub(crate) fn presence(&self) -> watch::Receiver<Presence> {
        self.presence.subscribe()
    }

    /// What people are told of controllers that wait for its end.
    pub(crate) fn advice(&self) -> String {
        let lease = self.renewed.lock().clone().unwrap_or_else(|| self.lease.clone());
        format!(
            "Metacontroller runs: its Lease {lease} is renewed, and both must not work on the same objects. Scale \
             Metacontroller to 0; this controller starts once the Lease is silent for {SILENT_DURATIONS} times its \
             duration, released, or deleted"
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
        let (mut failures, mut told) = (0u32, None);
        loop {
            interval.tick().await;
            let read = tokio::time::timeout(READ_TIMEOUT, self.read(&observer)).await;
            let read = read.unwrap_or_else(|_| {
                Err(Error::Timeout { call: format!("GET the Lease {}", self.lease), after: READ_TIMEOUT })
            });
            let is_first = observer.is_new();
            let presence = match read {
                Ok(leases) => {
                    told = None;
                    observer.saw(boot_time(), leases)
                }
                // Who never could be seen isn't waited for, and who was is for a while.
                Err(error) if error.is_forbidden() || error.is_not_found() => {
                    let presence = observer.refused(boot_time());
                    if told.replace(presence) != Some(presence) {
                        self.tell_refused(presence, &error);
                    }
                    presence
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
            let cause = observer.cause();
            if let Some((lease, seen)) = cause.filter(|_| is_first && presence == Presence::Unknown) {
                let (holder, duration) = (&seen.holder, seen.duration.as_secs());
                info!(%lease, holder, duration, "waiting to see whether Metacontroller renews its Lease");
            }
            self.now(presence, cause);
        }
    }

    /// The Leases of the name that are there.
    async fn read(&self, observer: &lease::Rival) -> Result<Vec<(ObjectKey, Seen)>, Error> {
        let (kind, mut leases) = (Lease::resource(), Vec::new());
        for key in self.places(&kind, observer).await? {
            let found = self.client.get(&kind, &key).await?;
            if let Some(lease) = found.as_ref().and_then(Lease::from_object) {
                leases.push((key, seen(&lease)));
            }
        }
        Ok(leases)
    }

    /// Where there may be one: where it is said to be, or else where one is found, or was.
    async fn places(&self, kind: &Resource, observer: &lease::Rival) -> Result<Vec<ObjectKey>, Error> {
        if !self.lease.namespace().is_empty() {
            return Ok(vec![self.lease.clone()]);
        }
        // Those that are known to be held come first: no number of others hides them.
        let mut places: Vec<ObjectKey> = observer.held().cloned().collect();
        // From the watch cache, however many Leases a cluster has: each that is found is read itself. The name needs no
        // escapes.
        let query = format!("fieldSelector=metadata.name%3D{}&resourceVersion=0", self.lease.name());
        match self.client.list(kind, "", &query).await {
            Ok((found, _)) => {
                self.is_narrow.store(false, Ordering::Relaxed);
                let others = found.iter().map(Object::key).filter(|key| !observer.is_held(key));
                places.extend(others.cloned());
            }
            Err(error) if error.is_forbidden() => {
                if !self.is_narrow.swap(true, Ordering::Relaxed) {
                    warn!(
                        lease = %self.home,
                        "Metacontroller's Lease is looked for in this namespace alone; say where it is with \
                         --leader-election-namespace, or grant list on leases to Ringmaster's account: {error}"
                    );
                }
                if !observer.is_held(&self.home) {
                    places.push(self.home.clone());
                }
            }
            Err(error) => return Err(error),
        }
        if places.len() > MAX_LEASES {
            self.client.limit_hit("metacontroller_leases");
        }
        places.truncate(MAX_LEASES);
        Ok(places)
    }

    fn tell_refused(&self, presence: Presence, error: &Error) {
        let lease = &self.lease;
        let follows = match presence {
            Presence::Gone => "its controllers don't wait for it",
            Presence::Unknown | Presence::Lives => "its controllers wait, until that has lasted as long as silence may",
        };
        warn!(
            %lease,
            "it can't be seen whether Metacontroller runs, so {follows}; grant get on this Lease to Ringmaster's account: \
             {error}"
        );
    }

    fn now(&self, presence: Presence, cause: Option<(&ObjectKey, &Seen)>) {
        let before = *self.presence.borrow();
        if presence == Presence::Lives {
            *self.renewed.lock() = cause.map(|(lease, _)| lease.clone());
        }
        if before == presence {
            return;
        }
        let (lease, holder) = cause.map_or((&self.lease, ""), |(lease, seen)| (lease, seen.holder.as_str()));
        match (before, presence) {
            (_, Presence::Lives) => warn!(
                %lease,
                holder,
                "Metacontroller runs: controllers of its group wait here until its Lease is silent; scale it to 0"
            ),
            (Presence::Lives, Presence::Gone) => {
                info!(%lease, "Metacontroller runs no more: controllers of its group start here");
            }
            // A Lease that nobody renews any more costs each start its patience.
            (Presence::Unknown, Presence::Gone) if !holder.is_empty() => {
                info!(%lease, "Metacontroller doesn't renew its Lease: it may be deleted");
            }
            _ => {}
        }
        self.presence.send_replace(presence);
    }
}
