//! The `ControllerRing` objects of both groups: while this member leads, each runs, and stops when it goes.
//!
//! Never runs two generations of one ring at once. Nothing here reads a clock or draws a random number but by [`Clock`].

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringmaster_api::convert::{ConvertedRing, DRAIN_TIMEOUT_DEFAULT, ring_from_json};
use ringmaster_cluster::{Client, Discovery, Error, Events, Sink, Watch, boot_time, run_pump};
use ringmaster_core::dialect::{CONTROLLER_SHARDING_RING, RINGMASTER_RING, RingDialect};
use ringmaster_core::key::{ApiVersion, ObjectKey, Resource, Uid, Version};
use ringmaster_core::object::Object;
use ringmaster_core::plan::{finalizer_patch, has_finalizer};
use ringmaster_core::ring::kept;
use ringmaster_core::ring::model::{Hash, MainResource, RINGS, Ring};
use ringmaster_core::ring::pace::Settings;
use ringmaster_core::ring::plan::Rules;
use ringmaster_core::ring::status::Status;
use ringmaster_core::selector::Selector;
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, info, warn};

use crate::admission::host::Webhook;
use crate::admission::review::RingName;
use crate::namespaces::Namespaces;
use crate::ring::{End, Running};
use crate::scope::Scope;
use crate::served::{self, Served};
use crate::shards::Shards;
use crate::told::{AllStats, Stats, Told};

/// Both groups of rings.
const DIALECTS: [&RingDialect; 2] = [&RINGMASTER_RING, &CONTROLLER_SHARDING_RING];
/// The version of both groups.
const VERSION: &str = "v1alpha1";
/// A ring whose kinds aren't served is looked at again after this.
pub(crate) const RETRY: Duration = Duration::from_secs(10);
/// Rings are looked at so often though nothing is heard of them.
const LOOK_PERIOD: Duration = Duration::from_secs(30);
/// What holds a ring of our group until no object has a label of it any more.
const FINALIZER: &str = "ringmaster.dev/ring";

/// What makes a write that is no sync's, bounded by the member's right to work.
pub trait Right: Send + Sync {
    /// The client to write with.
    ///
    /// # Errors
    /// If nothing may be written now.
    fn bounded(&self, client: &Client, what: &str) -> Result<Client, Error>;
}

/// Clocks and random numbers, which the engine owns.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// 64 fresh random bits.
    pub random: fn() -> u64,
    /// The wall clock as Leases have it.
    pub lease_time: fn() -> String,
    /// The wall clock in RFC 3339.
    pub wall_time: fn() -> String,
    /// Whether a moment in RFC 3339 is less than so long ago by the wall clock.
    pub is_recent: fn(&str, Duration) -> bool,
}

/// Runs the rings of both groups.
pub struct Rings {
    /// For all calls but those about Leases.
    pub client: Client,
    /// For Leases, which must not wait behind anything.
    pub lease_client: Client,
    /// Finds the rings' kinds.
    pub discovery: Arc<Discovery>,
    /// Takes events.
    pub events: Events,
    /// The right to write.
    pub right: Arc<dyn Right>,
    /// Whether this member leads.
    pub leads: watch::Receiver<bool>,
    /// Clocks.
    pub clock: Clock,
    /// The numbers of all rings.
    pub stats: RingStats,
    /// Their admission webhook.
    pub webhook: Webhook,
}

/// The numbers of all rings that run or ran here; cheap to clone.
#[derive(Clone, Default)]
pub struct RingStats(AllStats);

impl RingStats {
    /// The admission webhook gave a shard to an object of this kind. What the ring's numbers aren't kept of isn't counted.
    pub(crate) fn assigned(&self, ring: RingName<'_>, group: &str, resource: &str) {
        let name: Arc<str> = ring.name.into();
        if let Some(stats) = self.0.lock().get_mut(&(ring.dialect.group, name)) {
            stats.writes.entry((group.into(), resource.into())).or_default()[0] += 1;
        }
    }

    /// A ring runs no more on this member: what it counted stays.
    pub(crate) fn ended(&self, group: &'static str, name: &Arc<str>) {
        if let Some(stats) = self.0.lock().get_mut(&(group, Arc::clone(name))) {
            *stats = Stats {
                group: stats.group,
                writes: std::mem::take(&mut stats.writes),
                conflicts: stats.conflicts,
                escalations: stats.escalations,
                ..Stats::default()
            };
        }
    }

    /// Each ring's name and numbers.
    #[must_use]
    pub fn all(&self) -> Vec<(Arc<str>, Stats)> {
        self.0.lock().iter().map(|((_, name), stats)| (Arc::clone(name), stats.clone())).collect()
    }
}

/// Rings by the number of their group and their name, with the list that showed them last.
type Declared = BTreeMap<(usize, ObjectKey), (Arc<Object>, u64)>;

/// Rings as a watch shows them.
#[derive(Default)]
struct Seen {
    rings: Mutex<Declared>,
    news: Notify,
}

/// A ring that runs.
struct Hosted {
    uid: Uid,
    generation: i64,
    is_deleting: bool,
    model: Option<Ring>,
    cancel: CancellationToken,
    task: JoinHandle<()>,
}

impl Rings {
    /// Runs until cancelled.
    pub async fn run(self, cancel: CancellationToken) {
        let (this, tasks) = (Arc::new(self), TaskTracker::new());
        let (seen, namespaces) = (Arc::new(Seen::default()), Namespaces::new());
        for (number, dialect) in DIALECTS.into_iter().enumerate() {
            let watch = Watch::all(Arc::new(resource(dialect)));
            let sink = Arc::new(RingSink { number, dialect, seen: Arc::clone(&seen), generation: Mutex::new(0) });
            tasks.spawn(run_pump(this.client.clone(), watch, sink, this.clock.random, cancel.child_token()));
        }
        tasks.spawn({
            let (this, leads, cancel) = (Arc::clone(&this), this.leads.clone(), cancel.clone());
            async move { this.webhook.run(leads, cancel).await }
        });
        let (mut hosted, mut leads) = (HashMap::<(usize, ObjectKey), Hosted>::new(), this.leads.clone());
        let mut watching: Option<CancellationToken> = None;
        loop {
            let is_leader = *leads.borrow_and_update();
            let wanted = if is_leader { seen.rings.lock().clone() } else { Declared::new() };
            if wanted.is_empty() && hosted.is_empty() {
                if let Some(watching) = watching.take() {
                    watching.cancel();
                }
            } else if watching.is_none() {
                let stop = cancel.child_token();
                tasks.spawn(Arc::clone(&namespaces).run(this.client.clone(), this.clock.random, stop.clone()));
                watching = Some(stop);
            }
            Arc::clone(&this).arrange(&mut hosted, &wanted, is_leader, &namespaces).await;
            tokio::select! {
                () = cancel.cancelled() => break,
                _ = leads.changed() => {}
                () = seen.news.notified() => {}
                // One that ended unasked is begun again.
                () = tokio::time::sleep(LOOK_PERIOD) => {}
            }
        }
        for hosted in hosted.into_values() {
            stop(hosted).await;
        }
        tasks.close();
        tasks.wait().await;
    }

    /// Has just these rings run.
    async fn arrange(
        self: Arc<Self>,
        hosted: &mut HashMap<(usize, ObjectKey), Hosted>,
        wanted: &Declared,
        is_leader: bool,
        namespaces: &Arc<Namespaces>,
    ) {
        // A ring that is gone may still have its labels taken off here.
        let cleans = |ring: &Hosted| is_leader && ring.is_deleting && !ring.task.is_finished();
        let gone = hosted.iter().filter(|(key, ring)| !wanted.contains_key(*key) && !cleans(ring));
        let gone: Vec<(usize, ObjectKey)> = gone.map(|(key, _)| key.clone()).collect();
        for key in gone {
            let Some(ring) = hosted.remove(&key) else { continue };
            let (is_over, model) = (ring.is_deleting && ring.task.is_finished(), ring.model.clone());
            stop(ring).await;
            // A ring that nothing holds leaves its labels: they are taken off as long as this member leads.
            if let Some(model) = model.filter(|model| is_leader && !is_over && !model.is_deleting) {
                let model = Ring { is_deleting: true, ..model };
                info!(ring = %model.name, "deleted: its labels are taken off");
                let ring = Arc::clone(&self).host((key.0, None), model, Vec::new(), namespaces);
                hosted.insert(key, ring);
            }
        }
        for (key, (object, _)) in wanted {
            let same = |ring: &Hosted| {
                ring.uid == *object.uid()
                    && ring.generation == object.generation()
                    && ring.is_deleting == object.is_deleting()
                    && (ring.model.is_none() || ring.is_deleting || !ring.task.is_finished())
            };
            if hosted.get(key).is_some_and(same) {
                continue;
            }
            let mut former = Vec::new();
            if let Some(ring) = hosted.remove(key) {
                let was_it = ring.uid == *object.uid();
                former.extend(ring.model.iter().filter(|_| was_it).flat_map(|model| model.resources.clone()));
                stop(ring).await;
            }
            let dialect = DIALECTS[key.0];
            let converted = match ring_from_json(dialect, object.json()) {
                // What holds it goes all the same.
                Err(_) if object.is_deleting() => {
                    Ok(ConvertedRing { ring: without_spec(dialect, object), warnings: Vec::new() })
                }
                converted => converted,
            };
            match converted {
                Ok(converted) => {
                    let ring = Ring { is_deleting: object.is_deleting(), ..converted.ring };
                    for warning in &converted.warnings {
                        warn!(ring = %ring.name, "{warning}");
                    }
                    let ring = Arc::clone(&self).host((key.0, Some(Arc::clone(object))), ring, former, namespaces);
                    hosted.insert(key.clone(), ring);
                }
                Err(error) => {
                    let ring = Arc::clone(&self).tell(dialect, object, error.to_string());
                    hosted.insert(key.clone(), ring);
                }
            }
        }
    }

    /// Stands in for a ring that can't run: says why in its status, again until that is written.
    fn tell(self: Arc<Self>, dialect: &'static RingDialect, object: &Arc<Object>, text: String) -> Hosted {
        let cancel = CancellationToken::new();
        let (uid, generation, is_deleting) = (object.uid().clone(), object.generation(), object.is_deleting());
        let mut told = self.told(dialect, object.key().name(), &uid, generation, Some(object));
        let task = tokio::spawn({
            let cancel = cancel.clone();
            async move {
                let telling = async {
                    loop {
                        told.failed((&self.client, &*self.right), "Invalid", text.clone(), boot_time()).await;
                        tokio::time::sleep(RETRY).await;
                    }
                };
                let _ = cancel.run_until_cancelled(telling).await;
                self.stats.ended(dialect.group, &told.name);
            }
        });
        Hosted { uid, generation, is_deleting, model: None, cancel, task }
    }

    fn host(
        self: Arc<Self>,
        (number, object): (usize, Option<Arc<Object>>),
        model: Ring,
        former: Vec<MainResource>,
        namespaces: &Arc<Namespaces>,
    ) -> Hosted {
        let cancel = CancellationToken::new();
        let (uid, generation, is_deleting) = (model.uid.clone(), model.generation, model.is_deleting);
        let mut told = self.told(DIALECTS[number], &model.name, &uid, generation, object.as_ref());
        told.is_deleting = is_deleting;
        let namespaces = Arc::clone(namespaces);
        let task = tokio::spawn({
            let (model, cancel) = (model.clone(), cancel.clone());
            async move {
                let (group, name) = (model.dialect.group, Arc::clone(&model.name));
                let stats = self.stats.clone();
                self.run_one((object, model), former, told, namespaces, &cancel).await;
                stats.ended(group, &name);
            }
        });
        Hosted { uid, generation, is_deleting, model: Some(model), cancel, task }
    }

    async fn run_one(
        self: Arc<Self>,
        (object, model): (Option<Arc<Object>>, Ring),
        mut former: Vec<MainResource>,
        mut told: Told,
        namespaces: Arc<Namespaces>,
        cancel: &CancellationToken,
    ) {
        let holds = model.dialect.group == RINGMASTER_RING.group;
        let (is_deleting, resource, name) = (model.is_deleting, resource(model.dialect), Arc::clone(&model.name));
        let object = object.filter(|_| holds);
        loop {
            let begin = self.begin(object.as_deref(), &model, &mut former, &mut told);
            let served = tokio::select! {
                () = cancel.cancelled() => return,
                served = begin => served,
            };
            let scope = Scope::new(model.clone(), served.kinds, Arc::clone(&namespaces), self.clock);
            let shards = Shards::new(&name, scope.model.dialect);
            let (tasks, stop) = (TaskTracker::new(), cancel.child_token());
            let reading =
                Arc::clone(&shards).run(self.lease_client.clone(), Arc::clone(&self.right), self.clock, stop.clone());
            tasks.spawn(reading);
            if !served.missing.is_empty() {
                let (discovery, scope) = (Arc::clone(&self.discovery), Arc::clone(&scope));
                let looking = served::wait(discovery, served.missing, scope);
                tasks.spawn(stop.clone().run_until_cancelled_owned(looking));
            }
            let (client, right) = (self.client.clone(), Arc::clone(&self.right));
            let answering = self.webhook.answers.begin(&scope);
            let mut running = Running { scope, client, right, shards, tasks: tasks.clone(), told, answering };
            let end = running.run(stop.clone()).await;
            told = running.told;
            // What it was about to write ended with it.
            told.is_writing = false;
            drop(running.answering);
            stop.cancel();
            tasks.close();
            tasks.wait().await;
            if cancel.is_cancelled() {
                return;
            }
            if end == End::Lost {
                let kinds = running.scope.kinds.iter().map(|kind| &kind.resource.api_version);
                kinds.for_each(|version| self.discovery.forget(version));
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = tokio::time::sleep(RETRY) => continue,
                }
            }
            if let Some(object) = &object {
                // Until it is done: nothing else would take the finalizer off.
                let going = async {
                    while let Err(error) = self.let_go(&resource, object, &model).await {
                        warn!(ring = %name, "its metadata can't be written: {error}");
                        tokio::time::sleep(RETRY).await;
                    }
                };
                tokio::select! {
                    () = cancel.cancelled() => return,
                    () = going => {}
                }
            }
            if is_deleting {
                return;
            }
        }
    }

    /// What comes first: the finalizer, and the kinds as they are served.
    async fn begin(
        &self,
        object: Option<&Object>,
        model: &Ring,
        former: &mut Vec<MainResource>,
        told: &mut Told,
    ) -> Served {
        let io = (&self.client, &*self.right);
        if let Some(object) = object {
            former.extend(self.hold(object, model, told).await);
        }
        let left = kept::former(std::mem::take(former), model);
        loop {
            match served::kinds(&self.discovery, model, &left).await {
                Ok(served) => return served,
                Err((reason, text)) => told.failed(io, reason, text, boot_time()).await,
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// Has a ring held by our finalizer, and its kinds noted with those that it named before, which are given back: labels are
    /// found again by them.
    async fn hold(&self, ring: &Object, model: &Ring, told: &mut Told) -> Vec<MainResource> {
        let resource = resource(model.dialect);
        loop {
            match self.try_hold(&resource, ring, model).await {
                Ok(before) => return before,
                Err(error) if error.is_conflict() => {}
                Err(error) => {
                    let text = format!("the finalizer {FINALIZER} can't be put on: {error}");
                    told.failed((&self.client, &*self.right), error.reason(), text, boot_time()).await;
                    tokio::time::sleep(RETRY).await;
                }
            }
        }
    }

    async fn try_hold(&self, resource: &Resource, ring: &Object, model: &Ring) -> Result<Vec<MainResource>, Error> {
        let Some(now) = self.client.get(resource, ring.key()).await?.filter(|now| now.uid() == ring.uid()) else {
            return Ok(Vec::new());
        };
        let before = now.annotation(kept::KEPT).map(|text| kept::read(&text)).unwrap_or_default();
        if now.is_deleting() {
            return Ok(before);
        }
        let mut all = model.resources.clone();
        all.extend(before.iter().filter(|main| !model.resources.contains(main)).cloned());
        let text = kept::text(&all);
        if !has_finalizer(&now, FINALIZER) || now.annotation(kept::KEPT).as_deref() != Some(&text) {
            self.note(resource, &now, true, &text).await?;
        }
        Ok(before)
    }

    /// No object has a label that it shall not have: what was noted of former kinds is forgotten, and a ring that is being
    /// deleted goes.
    async fn let_go(&self, resource: &Resource, ring: &Object, model: &Ring) -> Result<(), Error> {
        loop {
            let Some(now) = self.client.get(resource, ring.key()).await?.filter(|now| now.uid() == ring.uid()) else {
                return Ok(());
            };
            if now.is_deleting() && !has_finalizer(&now, FINALIZER) {
                return Ok(());
            }
            match self.note(resource, &now, !model.is_deleting, &kept::text(&model.resources)).await {
                Err(error) if error.is_conflict() => {}
                written => return written,
            }
        }
    }

    async fn note(&self, resource: &Resource, ring: &Object, held: bool, text: &str) -> Result<(), Error> {
        let mut patch = finalizer_patch(ring, FINALIZER, held);
        patch["metadata"]["annotations"] = json!({ kept::KEPT: text });
        let client = self.right.bounded(&self.client, "a ring's finalizer")?;
        client.merge_patch(resource, ring.key(), patch.to_string().into_bytes()).await.map(drop)
    }

    fn told(
        &self,
        dialect: &'static RingDialect,
        name: &str,
        uid: &Uid,
        generation: i64,
        object: Option<&Arc<Object>>,
    ) -> Told {
        Told {
            name: name.into(),
            uid: uid.clone(),
            generation,
            dialect,
            resource: Arc::new(resource(dialect)),
            events: self.events.clone(),
            stats: Arc::clone(&self.stats.0),
            clock: self.clock,
            present: object.and_then(|object| object.section::<Status>("status")).unwrap_or_default(),
            noted: BTreeSet::new(),
            late: BTreeSet::new(),
            is_writing: false,
            is_deleting: false,
            refused: Mutex::new(None),
            not_before: Duration::ZERO,
        }
    }
}

async fn stop(hosted: Hosted) {
    hosted.cancel.cancel();
    // It ends at once; a panic was told of.
    let _ = hosted.task.await;
}

/// A ring that is being deleted and whose spec can't be read: it has the kinds that its annotation names.
fn without_spec(dialect: &'static RingDialect, object: &Object) -> Ring {
    Ring {
        dialect,
        name: object.key().name().into(),
        uid: object.uid().clone(),
        generation: object.generation(),
        resources: Vec::new(),
        namespaces: Selector::everything(),
        hash: Hash::Tokens,
        rules: Rules { drain_limit: DRAIN_TIMEOUT_DEFAULT, escalates: false },
        pace: Settings::default(),
        is_deleting: true,
    }
}

/// The kind of a group's rings.
fn resource(dialect: &RingDialect) -> Resource {
    Resource {
        api_version: ApiVersion::new(&[dialect.group, "/", VERSION].concat()),
        plural: RINGS.into(),
        kind: "ControllerRing".into(),
        namespaced: false,
        status: true,
    }
}

struct RingSink {
    /// The group's.
    number: usize,
    dialect: &'static RingDialect,
    seen: Arc<Seen>,
    generation: Mutex<u64>,
}

impl Sink for RingSink {
    fn list_begins(&self) -> String {
        *self.generation.lock() += 1;
        String::new()
    }

    fn watch_begins(&self, version: Version, _: bool) -> (String, Version) {
        (String::new(), version)
    }

    fn applied(&self, object: Object) {
        let key = (self.number, object.key().clone());
        self.seen.rings.lock().insert(key, (Arc::new(object), *self.generation.lock()));
        self.seen.news.notify_one();
    }

    fn deleted(&self, object: Object) {
        self.seen.rings.lock().remove(&(self.number, object.key().clone()));
        self.seen.news.notify_one();
    }

    fn progressed(&self, _: Version) {}

    fn list_complete(&self, _: Version) {
        let generation = *self.generation.lock();
        self.seen.rings.lock().retain(|(number, _), (_, seen)| *number != self.number || *seen == generation);
        self.seen.news.notify_one();
    }

    fn list_aborted(&self) {}

    fn lost_track(&self) {}

    fn trouble(&self, error: &Error, failures: u32) {
        let group = self.dialect.group;
        if error.is_not_found() {
            debug!(group, "there are no rings: their CRD isn't there");
        } else if error.is_forbidden() && failures == 1 {
            info!(group, "rings are left alone: {error}");
        } else if !error.is_forbidden() && failures.is_power_of_two() {
            warn!(group, failures, "rings can't be watched: {error}");
        }
    }

    fn recovered(&self) {}
}
