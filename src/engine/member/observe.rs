//! What this member sees: the Leases of its installation, and the table. By a watch, which is fast, and by asking every
//! retry period, which also tells whether the API server is reached at all.
//!
//! Never judges and never writes: `rows` and `sharder` do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use ringmaster_api::table::ShardTableStatus;
use ringmaster_cluster::{Client, Error, Lease, Sink, Watch, run_pump};
use ringmaster_core::key::{ApiVersion, MemberName, ObjectKey, Resource, Uid, Version};
use ringmaster_core::object::Object;
use ringmaster_core::table::Table;
use serde::Deserialize;
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, error, info, warn};

use super::latest::Latest;
use super::{Identity, MEMBER_LABEL, TABLE_LABEL};
use crate::clock::{boot_time, random};

/// The CRD of tables.
const TABLE_CRD: &str = "shardtables.ringmaster.dev";

/// What was seen last. Shared.
pub(crate) struct World {
    identity: Arc<Identity>,
    seen: Mutex<Seen>,
    news: watch::Sender<u64>,
    /// Another member lives and doesn't want to go.
    others_stay: AtomicBool,
    /// The table is another installation's.
    foreign: AtomicBool,
    /// What this member does alone, where there is no table.
    solo: Mutex<Option<(Uid, Arc<Table>)>>,
    /// Asks for a look at once.
    ask: Notify,
}

#[derive(Default)]
struct Seen {
    leases: Latest<Arc<Lease>>,
    table: Latest<Arc<TableObject>>,
    kind: TableKind,
    listed: Option<Duration>,
    list_began: Option<Duration>,
    /// When the table's uid, or that there is none, was first seen.
    table_since: Option<(Option<Uid>, Duration)>,
}

/// Whether there can be a table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum TableKind {
    /// Not known yet.
    #[default]
    Unknown,
    /// The API server serves tables.
    Served,
    /// Their CRD isn't there, as a live look at the CRD itself said.
    Absent,
}

/// The table's object.
#[derive(Clone, Debug)]
pub(crate) struct TableObject {
    pub(crate) uid: Uid,
    pub(crate) version: String,
    /// `None` for a status that no sharder wrote; the reason is logged when it is first seen.
    pub(crate) table: Option<Arc<Table>>,
    /// It has no status yet: just made, by a sharder that writes it next.
    pub(crate) is_empty: bool,
}

/// What is there to see.
#[derive(Clone, Default)]
pub(crate) struct View {
    /// The members' Leases.
    pub(crate) members: BTreeMap<MemberName, Arc<Lease>>,
    /// The sharder's.
    pub(crate) sharder: Option<Arc<Lease>>,
    /// When all of them were last asked for and told, on the boot-time clock.
    pub(crate) listed: Option<Duration>,
    /// When that question was asked.
    pub(crate) list_began: Option<Duration>,
    /// Since when the table has been this one, or there has been none, as far as was seen.
    pub(crate) table_since: Option<Duration>,
    /// The table.
    pub(crate) table: Option<Arc<TableObject>>,
    /// Whether there can be one.
    pub(crate) kind: TableKind,
}

/// The kind of tables.
pub(crate) fn table_resource() -> Resource {
    Resource {
        api_version: ApiVersion::new("ringmaster.dev/v1alpha1"),
        plural: "shardtables".into(),
        kind: "ShardTable".into(),
        namespaced: false,
        status: true,
    }
}

impl World {
    pub(crate) fn new(identity: Arc<Identity>) -> Arc<Self> {
        Arc::new(Self {
            identity,
            seen: Mutex::default(),
            news: watch::Sender::new(0),
            others_stay: AtomicBool::new(false),
            foreign: AtomicBool::new(false),
            solo: Mutex::default(),
            ask: Notify::new(),
        })
    }

    /// What there is to see now.
    pub(crate) fn view(&self) -> View {
        let mut seen = self.seen.lock();
        let uid = seen.table.get(&self.identity.table).map(|object| object.uid.clone());
        if seen.kind == TableKind::Unknown {
            seen.table_since = None;
        } else if seen.table_since.as_ref().is_none_or(|(known, _)| *known != uid) {
            seen.table_since = Some((uid, boot_time()));
        }
        let members = seen.leases.iter().filter(|(_, lease)| lease.labels.contains_key(MEMBER_LABEL));
        View {
            members: members.map(|(name, lease)| (MemberName::new(name), Arc::clone(lease))).collect(),
            sharder: seen.leases.get(&self.identity.table).cloned(),
            listed: seen.listed,
            list_began: seen.list_began,
            table_since: seen.table_since.as_ref().map(|(_, since)| *since),
            table: seen.table.get(&self.identity.table).cloned(),
            kind: seen.kind,
        }
    }

    /// Told whenever something changed.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// Has the API server asked again at once.
    pub(crate) fn ask(&self) {
        self.ask.notify_one();
    }

    /// Has everybody look again.
    pub(crate) fn poke(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn set_others_stay(&self, stay: bool) {
        if self.others_stay.swap(stay, Ordering::AcqRel) != stay {
            self.poke();
        }
    }

    /// Whether another member lives and doesn't want to go.
    pub(crate) fn others_stay(&self) -> bool {
        self.others_stay.load(Ordering::Acquire)
    }

    pub(crate) fn set_foreign(&self, foreign: bool) {
        if self.foreign.swap(foreign, Ordering::AcqRel) != foreign {
            self.poke();
        }
    }

    /// Whether the table is another installation's.
    pub(crate) fn is_foreign(&self) -> bool {
        self.foreign.load(Ordering::Acquire)
    }

    pub(crate) fn set_solo(&self, solo: Option<(Uid, Arc<Table>)>) {
        let news = {
            let mut known = self.solo.lock();
            let news = *known != solo;
            *known = solo;
            news
        };
        if news {
            self.poke();
        }
    }

    /// What this member does alone, where there is no table.
    pub(crate) fn solo(&self) -> Option<(Uid, Arc<Table>)> {
        self.solo.lock().clone()
    }

    /// A Lease as an answer or an event showed it.
    pub(crate) fn lease(&self, object: &Object, gone: bool) {
        let Some(lease) = Lease::from_object(object) else { return };
        // A selector's watch tells only of ours.
        if lease.labels.get(TABLE_LABEL) != Some(&self.identity.table) {
            return;
        }
        let name = lease.name.clone();
        let state = (!gone).then(|| Arc::new(lease));
        if self.seen.lock().leases.set(&name, object.version(), state) {
            self.poke();
        }
    }

    /// The table as an answer or an event showed it.
    pub(crate) fn table(&self, object: &Object, gone: bool) {
        if object.key().name() != self.identity.table {
            return;
        }
        let news = {
            let mut seen = self.seen.lock();
            // Of a table that went with its kind: only a list that names it anew counts.
            if seen.kind == TableKind::Absent {
                return;
            }
            let state = (!gone).then(|| Arc::new(TableObject::read(object)));
            seen.table.set(&self.identity.table, object.version(), state)
        };
        if news {
            self.poke();
        }
    }

    fn leases_listed(&self, objects: &[Object], version: Version, began: Duration) {
        let leases = objects.iter().filter_map(|object| {
            let lease = Lease::from_object(object)?;
            Some((lease.name.clone(), (object.version(), Arc::new(lease))))
        });
        let mut seen = self.seen.lock();
        seen.leases.listed(leases.collect(), version);
        (seen.listed, seen.list_began) = (Some(boot_time()), Some(began));
        drop(seen);
        self.poke();
    }

    fn table_listed(&self, objects: &[Object], version: Version) {
        let tables = objects.iter().map(|object| {
            let name = object.key().name().to_owned();
            (name, (object.version(), object))
        });
        let tables: BTreeMap<String, (Version, &Object)> = tables.collect();
        let mut seen = self.seen.lock();
        // Read only what is news: it has a checksum over 16 KiB.
        let is_news = |(name, (version, _)): &(&String, &(Version, &Object))| seen.table.is_older(name, *version);
        let new: Vec<String> = tables.iter().filter(is_news).map(|(name, _)| name.clone()).collect();
        let gone = tables.is_empty() && seen.table.listed(BTreeMap::new(), version);
        let mut news = gone;
        for name in new {
            if let Some((version, object)) = tables.get(&name) {
                news |= seen.table.set(&name, *version, Some(Arc::new(TableObject::read(object))));
            }
        }
        drop(seen);
        if news {
            self.poke();
        }
    }

    fn kind(&self, kind: TableKind) {
        let news = {
            let mut seen = self.seen.lock();
            let before = std::mem::replace(&mut seen.kind, kind);
            if kind == TableKind::Absent && before != kind {
                // Whatever comes back later is another object.
                seen.table = Latest::default();
            }
            before != kind
        };
        if news {
            match kind {
                TableKind::Absent => warn!(
                    "the CRD {TABLE_CRD} isn't installed: one member does all the work; install it (ringmaster crds)"
                ),
                TableKind::Served => info!("the CRD {TABLE_CRD} is served"),
                TableKind::Unknown => {}
            }
            self.poke();
        }
    }
}

impl TableObject {
    fn read(object: &Object) -> Self {
        #[derive(Deserialize)]
        struct Body {
            #[serde(default)]
            status: Option<ShardTableStatus>,
        }
        let (uid, version) = (object.uid().clone(), object.version().to_string());
        let table = match serde_json::from_slice::<Body>(object.json()) {
            Ok(Body { status: None }) => return Self { uid, version, table: None, is_empty: true },
            Ok(Body { status: Some(status) }) => match status.table() {
                Ok(table) => Some(Arc::new(table)),
                Err(error) => {
                    error!("the table is ignored until the sharder has written it anew: {error}");
                    None
                }
            },
            Err(error) => {
                error!("the table is ignored until the sharder has written it anew: {error}");
                None
            }
        };
        Self { uid, version, table, is_empty: false }
    }
}

/// What observes.
pub(crate) struct Observation {
    pub(crate) client: Client,
    pub(crate) world: Arc<World>,
    pub(crate) identity: Arc<Identity>,
    pub(crate) interval: Duration,
}

impl Observation {
    /// Starts the watches and the questions; all end with `cancel`.
    pub(crate) fn start(self, tasks: &TaskTracker, cancel: &CancellationToken) {
        let selector = format!("{TABLE_LABEL}={}", self.identity.table);
        let namespace = self.identity.namespace.clone();
        let leases = Watch { namespace, ..Watch::all(Arc::new(Lease::resource())) };
        let tables = Watch::all(Arc::new(table_resource()));
        for (watch, what) in [(leases, What::Leases), (tables, What::Table)] {
            let sink = Arc::new(Seeing { world: Arc::clone(&self.world), selector: selector.clone(), what });
            tasks.spawn(run_pump(self.client.clone(), watch, sink, random, cancel.clone()));
        }
        let cancel = cancel.clone();
        tasks.spawn(async move {
            tokio::select! {
                () = cancel.cancelled() => {}
                () = self.ask_for_ever() => {}
            }
        });
    }

    async fn ask_for_ever(self) {
        let mut failures = 0u32;
        loop {
            let start = tokio::time::Instant::now();
            let (leases, table) = tokio::join!(self.ask_leases(), self.ask_table());
            let errors: Vec<Error> = [leases.err(), table.err()].into_iter().flatten().collect();
            failures = if errors.is_empty() { 0 } else { failures.saturating_add(1) };
            for error in errors {
                // An outage is told by the watches; what is refused doesn't heal by itself, and nothing is done meanwhile.
                if error.code().is_some() && failures.is_power_of_two() {
                    warn!(failures, "other members and the table can't be seen: {error}");
                } else {
                    debug!("observing members: {error}");
                }
            }
            tokio::select! {
                () = tokio::time::sleep_until(start + self.interval) => {}
                () = self.world.ask.notified() => {}
            }
        }
    }

    /// All Leases, consistently.
    async fn ask_leases(&self) -> Result<(), Error> {
        let limit = self.interval.max(Duration::from_secs(1));
        let resource = Lease::resource();
        let query = query("labelSelector", &format!("{TABLE_LABEL}={}", self.identity.table));
        let list = self.client.list(&resource, &self.identity.namespace, &query);
        let began = boot_time();
        let (objects, version) = within(limit, "LIST leases", list).await?;
        self.world.leases_listed(&objects, version, began);
        Ok(())
    }

    /// The table, from the watch cache if it is there; whether there can be one, from the CRD itself.
    async fn ask_table(&self) -> Result<(), Error> {
        let limit = self.interval.max(Duration::from_secs(1));
        let resource = table_resource();
        // A kind that comes back is believed to whoever doesn't answer from an old cache only.
        let is_absent = self.world.seen.lock().kind == TableKind::Absent;
        if !is_absent {
            let path = format!("/apis/{}/{}/{}", resource.api_version, resource.plural, self.identity.table);
            let answer = within(limit, "GET table", self.client.get_text(&format!("{path}?resourceVersion=0"))).await;
            match answer {
                Ok(text) => {
                    self.world.kind(TableKind::Served);
                    if let Ok(object) = Object::parse(&text, &resource) {
                        self.world.table(&object, false);
                    }
                    return Ok(());
                }
                // As of which version it isn't there is what a list tells.
                Err(error) if error.is_not_found() => {}
                Err(error) => return Err(error),
            }
        }
        let query = query("fieldSelector", &format!("metadata.name={}", self.identity.table));
        let list = self.client.list(&resource, "", &query);
        match within(limit, "LIST shardtables", list).await {
            Ok((objects, version)) => {
                self.world.kind(TableKind::Served);
                self.world.table_listed(&objects, version);
                Ok(())
            }
            Err(error) if error.is_not_found() => self.ask_crd(limit).await,
            Err(error) => Err(error),
        }
    }

    async fn ask_crd(&self, limit: Duration) -> Result<(), Error> {
        let name = utf8_percent_encode(TABLE_CRD, NON_ALPHANUMERIC);
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        match within(limit, "GET CRD", self.client.get_text(&path)).await {
            // It is there, and will be served.
            Ok(_) => Ok(()),
            Err(error) if error.is_object_not_found() => {
                self.world.kind(TableKind::Absent);
                Ok(())
            }
            Err(error) => Err(error),
        }
    }
}

fn query(name: &str, value: &str) -> String {
    format!("{name}={}", utf8_percent_encode(value, NON_ALPHANUMERIC))
}

async fn within<T>(limit: Duration, call: &str, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
    let late = || Error::Timeout { call: call.to_owned(), after: limit };
    tokio::time::timeout(limit, work).await.unwrap_or_else(|_| Err(late()))
}

#[derive(Clone, Copy)]
enum What {
    Leases,
    Table,
}

/// Tells the world what a watch sees. Whether something is missing from a list is for the questions to find out.
struct Seeing {
    world: Arc<World>,
    selector: String,
    what: What,
}

impl Seeing {
    fn see(&self, object: &Object, gone: bool) {
        match self.what {
            What::Leases => self.world.lease(object, gone),
            What::Table => self.world.table(object, gone),
        }
    }
}

impl Sink for Seeing {
    fn list_begins(&self) -> String {
        self.selector.clone()
    }

    fn watch_begins(&self, version: Version, _: bool) -> (String, Version) {
        (self.selector.clone(), version)
    }

    fn progressed(&self, _: Version) {}

    fn lost_track(&self) {}

    fn applied(&self, object: Object) {
        self.see(&object, false);
    }

    fn deleted(&self, object: Object) {
        self.see(&object, true);
    }

    fn list_complete(&self, _: Version) {}

    fn list_aborted(&self) {}

    fn trouble(&self, error: &Error, failures: u32) {
        debug!(failures, "watching members: {error}");
    }

    fn recovered(&self) {}
}

/// The key of the table.
pub(crate) fn table_key(identity: &Identity) -> ObjectKey {
    ObjectKey::new("", &identity.table)
}
