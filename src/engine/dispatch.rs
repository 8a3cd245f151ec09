//! The shell of the queue: one task pops keys, runs their syncs within the worker limit, and sleeps until the next timer.
//!
//! Never decides which key is next, and never knows what a sync does.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use parking_lot::{Mutex, RwLock};
use ringmaster_core::key::{ControllerId, SyncKey};
use ringmaster_core::queue::{Depth, Gate, Lanes, Outcome, Popped, Priority, Queue};
use ringmaster_hooks::{Coming, Doorman};
use tokio::sync::Notify;
use tokio::task::{Id, JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::error;

use crate::clock::{Clock, random};
use crate::member::pulse::{BEAT, Part, Pulse};
use crate::metrics::{ControllerMetrics, Sample, count};

/// Nothing is waited for longer than this, timer or not: whoever waits for work says that it is alive.
const MAX_SLEEP: Duration = BEAT;

/// What is kept at its endpoint for the hook call of one sync; nothing while that isn't known.
pub(crate) type Pass = Option<Coming>;

/// What syncs are.
pub(crate) struct Work {
    /// Whether a parent of a controller, in a shard, may be synced now; asked while the queue waits.
    pub(crate) admit: Box<dyn Fn(ControllerId, u8) -> Result<Pass, Gate> + Send + Sync>,
    /// Runs one sync of one key.
    pub(crate) sync: Box<dyn Fn(Popped, Pass) -> BoxFuture<'static, Outcome> + Send + Sync>,
}

/// Where keys are handed in; shared by all that see changes.
pub(crate) struct Dispatch {
    queue: Mutex<Queue>,
    wake: Notify,
    clock: Clock,
    workers: usize,
    /// What is counted of each controller.
    metrics: RwLock<HashMap<ControllerId, Arc<ControllerMetrics>>>,
    /// When each sync that runs began.
    began: Mutex<HashMap<SyncKey, Duration>>,
    /// Told when a sync ended: whoever waits for a controller's last one looks again.
    ended: Notify,
}

impl Doorman for Dispatch {
    fn room(&self, controller: ControllerId, endpoint: u64) {
        self.queue.lock().open(controller, Gate(endpoint));
        self.wake.notify_one();
    }
}

impl Dispatch {
    pub(crate) fn new(workers: usize, clock: Clock) -> Self {
        Self {
            queue: Mutex::new(Queue::new(workers)),
            wake: Notify::new(),
            clock,
            workers,
            metrics: RwLock::default(),
            began: Mutex::default(),
            ended: Notify::new(),
        }
    }

    pub(crate) fn register(&self, controller: ControllerId, lanes: Lanes, metrics: Arc<ControllerMetrics>) {
        self.metrics.write().insert(controller, metrics);
        self.queue.lock().register(controller, lanes);
    }

    /// Drops a controller's keys, and waits until its running syncs have ended.
    pub(crate) async fn forget(&self, controller: ControllerId) {
        self.queue.lock().forget(controller);
        loop {
            let ended = self.ended.notified();
            tokio::pin!(ended);
            ended.as_mut().enable();
            if self.queue.lock().depth(controller).running == 0 {
                self.metrics.write().remove(&controller);
                return;
            }
            ended.await;
        }
    }

    pub(crate) fn add(&self, key: SyncKey, priority: Priority) {
        self.counted(key.controller, ControllerMetrics::added);
        self.queue.lock().add(key, priority, self.clock.now());
        self.wake.notify_one();
    }

    pub(crate) fn add_all(&self, keys: impl Iterator<Item = SyncKey>, priority: Priority) {
        let now = self.clock.now();
        let mut queue = self.queue.lock();
        for key in keys {
            self.counted(key.controller, ControllerMetrics::added);
            queue.add(key, priority, now);
        }
        drop(queue);
        self.wake.notify_one();
    }

    /// Queues keys spread over the first `within`.
    pub(crate) fn add_spread(&self, keys: Vec<SyncKey>, within: Duration) {
        let now = self.clock.now();
        let step = within / u32::try_from(keys.len().max(1)).unwrap_or(u32::MAX);
        let mut queue = self.queue.lock();
        for (key, place) in keys.into_iter().zip(1..) {
            self.counted(key.controller, ControllerMetrics::added);
            queue.add_after(key, Priority::Background, step * place, now);
        }
        drop(queue);
        self.wake.notify_one();
    }

    pub(crate) fn remove(&self, key: &SyncKey) {
        self.queue.lock().remove(key);
    }

    /// Parents whose shards have other endpoints now, or may have, wait for those.
    pub(crate) fn open_all(&self, controller: ControllerId) {
        self.queue.lock().open_all(controller);
        self.wake.notify_one();
    }

    /// Runs syncs until `stop`; then starts no more and waits for those that run, until `abort` ends them.
    pub(crate) async fn run(
        self: Arc<Self>,
        work: Work,
        pulse: Arc<Pulse>,
        stop: CancellationToken,
        abort: CancellationToken,
    ) {
        let mut running: JoinSet<Outcome> = JoinSet::new();
        let mut keys: HashMap<Id, SyncKey> = HashMap::new();
        loop {
            if !stop.is_cancelled() {
                self.start_all(&work, &mut running, &mut keys);
            } else if running.is_empty() {
                return;
            }
            pulse.beat(Part::Dispatch);
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
            let popped = self.queue.lock().pop(self.clock.now(), &work.admit);
            let Some((popped, pass)) = popped else { return };
            let key = popped.key.clone();
            self.counted(key.controller, |metrics| metrics.started(popped.waited, popped.attempt));
            self.began.lock().insert(key.clone(), self.clock.now());
            let task = running.spawn((work.sync)(popped, pass));
            keys.insert(task.id(), key);
        }
    }

    fn end(&self, ended: Result<(Id, Outcome), tokio::task::JoinError>, keys: &mut HashMap<Id, SyncKey>) {
        let (id, outcome) = match ended {
            Ok((id, outcome)) => (id, outcome),
            Err(panic) => {
                let key = keys.get(&panic.id());
                if let Some(key) = key {
                    self.counted(key.controller, ControllerMetrics::panicked);
                }
                error!(parent = ?key.map(|key| &key.parent), "a sync panicked, which is a bug; it is tried again: {panic}");
                (panic.id(), Outcome::Failure)
            }
        };
        if let Some(key) = keys.remove(&id) {
            self.began.lock().remove(&key);
            self.queue.lock().done(&key, outcome, self.clock.now(), random());
            self.ended.notify_waiters();
        }
    }

    fn time_to_next_timer(&self) -> Duration {
        let due = self.queue.lock().next_due();
        due.map_or(MAX_SLEEP, |due| due.saturating_sub(self.clock.now())).min(MAX_SLEEP)
    }

    fn counted(&self, controller: ControllerId, what: impl FnOnce(&ControllerMetrics)) {
        if let Some(metrics) = self.metrics.read().get(&controller) {
            what(metrics);
        }
    }

    /// Depths of the queue and the syncs that run, for metrics.
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let now = self.clock.now();
        let controllers: Vec<(ControllerId, Arc<ControllerMetrics>)> =
            self.metrics.read().iter().map(|(id, metrics)| (*id, Arc::clone(metrics))).collect();
        let depths: HashMap<ControllerId, Depth> = {
            let queue = self.queue.lock();
            controllers.iter().map(|(id, _)| (*id, queue.depth(*id))).collect()
        };
        let mut ages: HashMap<ControllerId, (Duration, Duration)> = HashMap::new();
        for (key, since) in &*self.began.lock() {
            let (sum, longest) = ages.entry(key.controller).or_default();
            let age = now.saturating_sub(*since);
            (*sum, *longest) = (*sum + age, age.max(*longest));
        }
        // A decorator runs once for each of its kinds, under one name.
        let joined = |queue: bool, join: fn(f64, f64) -> f64, value: &dyn Fn(ControllerId) -> f64| {
            let labels = |name: &str| {
                let queue = queue.then(|| ("name", name.to_owned()));
                queue.into_iter().chain([("controller", name.to_owned())]).collect()
            };
            let mut values: BTreeMap<&str, f64> = BTreeMap::new();
            for (id, metrics) in &controllers {
                let value = value(*id);
                values.entry(metrics.name()).and_modify(|known| *known = join(*known, value)).or_insert(value);
            }
            values.into_iter().map(|(name, value)| (labels(name), value)).collect()
        };
        let each = |queue: bool, value: &dyn Fn(ControllerId) -> f64| joined(queue, |a, b| a + b, value);
        let depth = |id: ControllerId| depths.get(&id).copied().unwrap_or_default();
        let age = |id: ControllerId| ages.get(&id).copied().unwrap_or_default();
        vec![
            Sample::gauge(
                "workqueue_depth",
                "Parents that wait for a worker",
                each(true, &|id| count(depth(id).ready)),
            ),
            Sample::gauge(
                "workqueue_unfinished_work_seconds",
                "Seconds that all running syncs together have taken so far",
                each(true, &|id| age(id).0.as_secs_f64()),
            ),
            Sample::gauge(
                "workqueue_longest_running_processor_seconds",
                "Seconds that the oldest running sync has taken so far",
                joined(true, f64::max, &|id| age(id).1.as_secs_f64()),
            ),
            Sample::gauge(
                "ringmaster_queue_held",
                "Parents that wait because concurrencyPerShard allows no more syncs of their shard, or their endpoint no more calls",
                each(false, &|id| count(depth(id).held)),
            ),
            Sample::gauge(
                "ringmaster_queue_timers",
                "Parents that wait for a moment: a retry or a resync",
                each(false, &|id| count(depth(id).waiting)),
            ),
            Sample::gauge(
                "controller_runtime_active_workers",
                "Syncs that run",
                each(false, &|id| count(depth(id).running)),
            ),
            Sample::gauge(
                "controller_runtime_max_concurrent_reconciles",
                "Syncs that may run at once, of all controllers together",
                joined(false, f64::max, &|_| count(self.workers)),
            ),
        ]
    }
}
