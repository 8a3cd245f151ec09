//! The shell of the queue: one task pops keys, runs their syncs within the worker limit, and sleeps until the next timer.
//!
//! Never decides which key is next, and never knows what a sync does.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::Mutex;
use ringmaster_core::key::{ControllerId, SyncKey};
use ringmaster_core::queue::{Outcome, Popped, Priority, Queue};
use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::clock::{Clock, random};
use crate::metrics::Sample;

/// Nothing is waited for longer than this, timer or not; a bound for a lost wake-up that nobody knows of.
const MAX_SLEEP: Duration = Duration::from_secs(10);

/// Runs one sync of one key.
pub(crate) type Work = Box<dyn Fn(Popped) -> BoxFuture<'static, Outcome> + Send + Sync>;

/// Where keys are handed in; shared by all that see changes.
pub(crate) struct Dispatch {
    queue: Mutex<Queue>,
    wake: Notify,
    clock: Clock,
    /// Told when a sync ended: whoever waits for a controller's last one looks again.
    ended: Notify,
}

impl Dispatch {
    pub(crate) fn new(workers: usize, clock: Clock) -> Self {
        Self { queue: Mutex::new(Queue::new(workers)), wake: Notify::new(), clock, ended: Notify::new() }
    }

    pub(crate) fn register(&self, controller: ControllerId) {
        self.queue.lock().register(controller);
    }

    /// Drops a controller's keys, and waits until its running syncs have ended.
    pub(crate) async fn forget(&self, controller: ControllerId) {
        self.queue.lock().forget(controller);
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.queue.lock().depth(controller).running == 0 {
                return;
            }
            ended.await;
        }
    }

    pub(crate) fn add(&self, key: SyncKey, priority: Priority) {
        self.queue.lock().add(key, priority, self.clock.now());
        self.wake.notify_one();
    }

    pub(crate) fn add_all(&self, keys: impl Iterator<Item = SyncKey>, priority: Priority) {
        let now = self.clock.now();
        let mut queue = self.queue.lock();
        for key in keys {
            queue.add(key, priority, now);
        }
        drop(queue);
        self.wake.notify_one();
    }

    pub(crate) fn remove(&self, key: &SyncKey) {
        self.queue.lock().remove(key);
    }

    /// Runs syncs until `stop`; then starts no more and waits for those that run, until `abort` ends them.
    pub(crate) async fn run(self: Arc<Self>, work: Work, stop: CancellationToken, abort: CancellationToken) {
        let mut running: JoinSet<Outcome> = JoinSet::new();
        let mut keys: HashMap<Id, SyncKey> = HashMap::new();
        loop {
            if !stop.is_cancelled() {
                self.start_all(&work, &mut running, &mut keys);
            } else if running.is_empty() {
                return;
            }
            let sleep = self.time_to_next_timer();
            tokio::select! {
                () = abort.cancelled() => {
                    running.shutdown().await;
                    // Whoever waits for these to end need not wait any longer.
                    for key in keys.values() {
                        self.queue.lock().done(key, Outcome::Dropped, self.clock.now(), random());
                    }
                    self.ended.notify_waiters();
                    return;
                }
                () = stop.cancelled(), if !stop.is_cancelled() => {}
                () = self.wake.notified() => {}
                () = tokio::time::sleep(sleep) => {}
                Some(ended) = running.join_next_with_id() => self.end(ended, &mut keys),
            }
            // Take all that have ended before looking for more to start.
            while let Some(ended) = running.try_join_next_with_id() {
                self.end(ended, &mut keys);
            }
        }
    }

    fn start_all(&self, work: &Work, running: &mut JoinSet<Outcome>, keys: &mut HashMap<Id, SyncKey>) {
        loop {
            let popped = self.queue.lock().pop(self.clock.now());
            let Some(popped) = popped else { return };
            let key = popped.key.clone();
            let task = running.spawn(work(popped));
            keys.insert(task.id(), key);
        }
    }

    fn end(&self, ended: Result<(Id, Outcome), tokio::task::JoinError>, keys: &mut HashMap<Id, SyncKey>) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            Err(panic) => {
                let key = keys.get(&panic.id());
                error!(parent = ?key.map(|key| &key.parent), "a sync panicked, which is a bug; it is tried again: {panic}");
                (panic.id(), Outcome::Failure)
            }
        };
        if let Some(key) = keys.remove(&id) {
            self.queue.lock().done(&key, outcome, self.clock.now(), random());
            self.ended.notify_waiters();
        }
    }

    fn time_to_next_timer(&self) -> Duration {
        let due = self.queue.lock().next_due();
        due.map_or(MAX_SLEEP, |due| due.saturating_sub(self.clock.now())).min(MAX_SLEEP)
    }

    /// Depth of the queue, for metrics.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let stats = self.queue.lock().stats();
        let one = |value: usize| vec![(Vec::new(), i64::try_from(value).unwrap_or(i64::MAX))];
        vec![
            Sample { name: "queue_ready", help: "Parents that wait for a worker", values: one(stats.ready) },
            Sample { name: "queue_timers", help: "Parents that wait for a moment", values: one(stats.waiting) },
            Sample { name: "queue_running", help: "Syncs that run", values: one(stats.running) },
        ]
    }
}
