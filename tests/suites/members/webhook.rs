//! The webhook of an installation's trials: it answers each parent with children that show its number, and keeps a short
//! record of every call, with its end.
//!
//! Never judges: the checker does, from the record. Never reachable beyond loopback.

use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::ensure;
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, StatusCode};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::hook::Serving;
use crate::members::check::{Call, Kind};
use crate::server::lock;

/// Largest request that is taken, in bytes.
const MAX_REQUEST_BYTES: usize = 8 << 20;
/// Most calls that are recorded: a trial that makes more must fail, since its record isn't whole.
const MAX_CALLS: usize = 2_000_000;
/// How long a call takes unless a trial says otherwise.
const WORK: Duration = Duration::from_millis(5);

/// What is read of a request; the rest is passed over.
#[derive(Deserialize)]
struct Asked {
    controller: Object,
    parent: Object,
    #[serde(default)]
    finalizing: bool,
}

#[derive(Deserialize)]
struct Object {
    metadata: Metadata,
    #[serde(default)]
    spec: Spec,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    uid: String,
}

#[derive(Deserialize, Default)]
struct Spec {
    #[serde(default)]
    number: u64,
    /// Where a cluster-scoped parent wants its children.
    #[serde(default, rename = "childNamespace")]
    child_namespace: Option<String>,
}

/// The children that are wanted for each parent.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    /// Their `apiVersion`.
    pub(crate) api_version: String,
    /// Their kind.
    pub(crate) kind: String,
    /// What is appended to the parent's name: as many children.
    pub(crate) suffixes: Vec<String>,
}

impl Wanted {
    /// So many ConfigMaps, `<parent>-0` and on.
    pub(crate) fn config_maps(each: usize) -> Self {
        let suffixes = (0..each).map(|number| format!("-{number}")).collect();
        Self { api_version: "v1".to_owned(), kind: "ConfigMap".to_owned(), suffixes }
    }
}

struct Record {
    wanted: Wanted,
    /// What each call takes, in milliseconds.
    work_ms: AtomicU64,
    calls: Mutex<Vec<Call>>,
    count: AtomicUsize,
}

/// A running webhook. Dropping it closes its port and all connections.
pub(crate) struct Webhook {
    record: Arc<Record>,
    serving: Serving,
}

impl Webhook {
    /// Listens on a free loopback port.
    ///
    /// # Errors
    /// No port or thread can be had.
    pub(crate) fn start(wanted: Wanted) -> anyhow::Result<Self> {
        let record = Arc::new(Record {
            wanted,
            work_ms: AtomicU64::new(u64::try_from(WORK.as_millis()).unwrap_or(0)),
            calls: Mutex::default(),
            count: AtomicUsize::new(0),
        });
        let serving = Serving::start((Ipv4Addr::LOCALHOST, 0).into(), answer, Arc::clone(&record))?;
        Ok(Self { record, serving })
    }

    /// `http://127.0.0.1:port<path>`; the path brings its slash.
    pub(crate) fn url(&self, path: &str) -> String {
        self.serving.url(path)
    }

    /// The names of the children that a parent gets.
    pub(crate) fn children_of(&self, parent: &str) -> Vec<String> {
        self.record.wanted.suffixes.iter().map(|suffix| format!("{parent}{suffix}")).collect()
    }

    /// What each call takes from the next one on.
    pub(crate) fn work(&self, work: Duration) {
        self.record.work_ms.store(u64::try_from(work.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// How many calls there were.
    pub(crate) fn count(&self) -> usize {
        self.record.count.load(Ordering::SeqCst)
    }

    /// All calls in the order in which they began.
    ///
    /// # Errors
    /// There were more than are recorded.
    pub(crate) fn calls(&self) -> anyhow::Result<Vec<Call>> {
        self.read(<[Call]>::to_vec)
    }

    /// What `of` makes of all calls; no call begins or ends meanwhile.
    ///
    /// # Errors
    /// As [`Self::calls`].
    pub(crate) fn read<T>(&self, of: impl FnOnce(&[Call]) -> T) -> anyhow::Result<T> {
        let calls = lock(&self.record.calls);
        ensure!(self.count() <= MAX_CALLS, "more than {MAX_CALLS} calls");
        Ok(of(&calls))
    }
}

/// Notes a call's end, also when its caller goes away and the answer is dropped with it.
struct Running {
    record: Arc<Record>,
    number: usize,
    answered: bool,
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(call) = lock(&self.record.calls).get_mut(self.number) {
            (call.ended, call.answered) = (Some(Instant::now()), self.answered);
        }
    }
}

async fn answer(State(record): State<Arc<Record>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_REQUEST_BYTES).await else {
        return response(StatusCode::PAYLOAD_TOO_LARGE, Body::empty());
    };
    let asked: Asked = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return response(StatusCode::BAD_REQUEST, Body::from(error.to_string())),
    };
    drop(body);
    let Some(mut running) = note(&record, &head.headers, &asked, head.uri.path()) else {
        return response(StatusCode::INSUFFICIENT_STORAGE, Body::empty());
    };
    let work = Duration::from_millis(record.work_ms.load(Ordering::SeqCst));
    if !work.is_zero() {
        tokio::time::sleep(work).await;
    }
    let answer = reply(&record.wanted, &asked);
    running.answered = true;
    drop(running);
    let mut response = response(StatusCode::OK, Body::from(answer.to_string()));
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// Records the call's begin; `None` when the record is full.
fn note(record: &Arc<Record>, headers: &HeaderMap, asked: &Asked, path: &str) -> Option<Running> {
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let Metadata { name, namespace, uid } = &asked.parent.metadata;
    let parent = if namespace.is_empty() { name.clone() } else { format!("{namespace}/{name}") };
    let is_finalize = asked.finalizing || path.starts_with("/finalize");
    let mut call = Call {
        controller: asked.controller.metadata.name.clone(),
        parent,
        uid: uid.clone(),
        number: asked.parent.spec.number,
        kind: if is_finalize { Kind::Finalize } else { Kind::Sync },
        member: header("ringmaster-member"),
        epoch: header("ringmaster-epoch").parse().unwrap_or(0),
        shard: header("ringmaster-shard").strip_suffix("/256").and_then(|shard| shard.parse().ok()),
        delivery: header("ringmaster-delivery"),
        started: Instant::now(),
        ended: None,
        answered: false,
    };
    let mut calls = lock(&record.calls);
    let number = record.count.fetch_add(1, Ordering::SeqCst);
    if number >= MAX_CALLS {
        return None;
    }
    // Under the lock, so that the record is in order of begins.
    call.started = Instant::now();
    calls.push(call);
    Some(Running { record: Arc::clone(record), number, answered: false })
}

fn reply(wanted: &Wanted, asked: &Asked) -> Value {
    let Object { metadata: Metadata { name, .. }, spec } = &asked.parent;
    let number = spec.number.to_string();
    if asked.finalizing {
        return json!({ "children": [], "finalized": true });
    }
    let child = |suffix: &String| {
        let mut metadata = json!({ "name": format!("{name}{suffix}") });
        if let Some(namespace) = &spec.child_namespace {
            metadata["namespace"] = namespace.clone().into();
        }
        json!({ "apiVersion": wanted.api_version, "kind": wanted.kind, "metadata": metadata, "data": { "number": number } })
    };
    let children: Vec<Value> = wanted.suffixes.iter().map(child).collect();
    json!({ "status": { "number": spec.number }, "children": children })
}

fn response(code: StatusCode, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = code;
    response
}
