//! A reverse proxy on loopback between a client and the API server, whose watches end in faults by a plan.
//!
//! Never loses or changes a line that it passes on, and never touches a request that isn't a watch. The plan is made
//! from a seed: which fault the next watch gets, and after how many lines. [`Pace`] sees to it that those lines come.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context as _;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use futures::StreamExt as _;
use http::header::{ACCEPT_ENCODING, CONNECTION, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use http::{HeaderMap, Request, Response, StatusCode};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;

use crate::objects::Objects;
use crate::server::lock;

/// Largest request that is passed on, in bytes.
pub(crate) const MAX_REQUEST_BYTES: usize = 4 << 20;
/// Lines of a watch that may wait in the proxy.
const LINES_WAITING: usize = 16;
/// Most lines that a watch gets before its fault.
const MOST_LINES: u64 = 36;
/// Writes that follow the opening of a watch, beyond the lines before its fault: the first of them is where it comes.
const MORE_WRITES: u64 = 4;
/// How late each line of [`Fault::Late`] comes.
const LATE: Duration = Duration::from_millis(5);

/// What happens to one watch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fault {
    /// The connection breaks between two lines.
    Cut,
    /// The connection breaks within a line.
    CutInLine,
    /// Every line comes late; then the connection breaks between two.
    Late,
    /// The request is answered with HTTP 410.
    Gone,
    /// The next line is an event of type ERROR with code 410, and the last.
    GoneInStream,
    /// The request waits until more was written than the embedded server of such a trial remembers; if it is answered
    /// with a stream all the same, the connection breaks between two lines.
    Starved,
}

/// How far writers may go. They wait for the proxy's watches, so that a watch sees as many events as its fault needs.
pub(crate) struct Pace {
    total: u64,
    allowed: watch::Sender<u64>,
    begun: watch::Sender<u64>,
    done: watch::Sender<u64>,
}

impl Pace {
    /// For so many writes.
    pub(crate) fn new(total: u64) -> Arc<Self> {
        let [allowed, begun, done] = [0, 0, 0].map(watch::Sender::new);
        Arc::new(Self { total, allowed, begun, done })
    }

    /// Waits until the next write may be made, and says which it is; `None` after the last.
    pub(crate) async fn turn(&self) -> Option<u64> {
        let mut number = 0;
        self.begun.send_modify(|begun| {
            number = *begun;
            *begun += 1;
        });
        if number >= self.total {
            return None;
        }
        // The sender is in self: it doesn't go away.
        let _ = self.allowed.subscribe().wait_for(|allowed| *allowed > number).await;
        Some(number)
    }

    /// A write was made.
    pub(crate) fn wrote(&self) {
        self.done.send_modify(|done| *done += 1);
    }

    /// At least so many more may follow.
    fn allow(&self, writes: u64) {
        let begun = *self.begun.borrow();
        self.allowed.send_modify(|allowed| *allowed = (*allowed).max(begun + writes));
    }

    /// Lets so many more follow and waits for them, or for the last.
    async fn pass(&self, writes: u64) {
        let target = (*self.done.borrow() + writes).min(self.total);
        self.allow(writes);
        let _ = self.done.subscribe().wait_for(|done| *done >= target).await;
    }
}

/// What the proxy did and saw.
#[derive(Clone, Debug, Default)]
pub(crate) struct Seen {
    /// Faults that were carried out.
    pub(crate) faults: BTreeMap<Fault, usize>,
    /// Watches that the server itself refused or ended with code 410.
    pub(crate) true_gone: usize,
    /// Watches that asked for the initial objects.
    pub(crate) streams: usize,
    /// Lines that went through.
    pub(crate) lines: usize,
}

/// A running proxy; dropping it ends it.
pub(crate) struct Faults {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    upstream: kube::Client,
    pace: Arc<Pace>,
    /// Writes that pass while a watch is starved.
    starve: u64,
    plan: Mutex<Plan>,
    calm: AtomicBool,
    seen: Mutex<Seen>,
}

/// Which fault comes when: each of some faults once a round, in an order that the seed decides.
pub(crate) struct Plan {
    faults: Vec<Fault>,
    random: fastrand::Rng,
    round: Vec<Fault>,
}

/// What the plan has for one watch.
#[derive(Clone, Copy)]
struct Step {
    fault: Fault,
    /// Lines before it.
    after: u64,
    /// Whether those are counted from the first, or from the end of the initial objects.
    among_initial: bool,
}

impl Plan {
    /// With these faults.
    pub(crate) fn of(faults: &[Fault], seed: u64) -> Self {
        Self { faults: faults.to_vec(), random: fastrand::Rng::with_seed(seed), round: Vec::new() }
    }

    fn next(&mut self) -> Step {
        if self.round.is_empty() {
            self.round.clone_from(&self.faults);
            self.random.shuffle(&mut self.round);
        }
        let fault = self.round.pop().unwrap_or(Fault::Cut);
        Step { fault, after: self.random.u64(1..=MOST_LINES), among_initial: self.random.bool() }
    }
}

impl Faults {
    /// Begins to serve, as the user of `objects`, whatever the client says of itself. `remembered` is how many events
    /// the server keeps, if that is known.
    ///
    /// # Errors
    /// There is no port.
    pub(crate) async fn start(
        objects: &Objects,
        pace: &Arc<Pace>,
        remembered: Option<usize>,
        plan: Plan,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("the proxy's port")?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared {
            upstream: objects.client().clone(),
            pace: Arc::clone(pace),
            starve: u64::try_from(remembered.unwrap_or(0))? + 8,
            plan: Mutex::new(plan),
            calm: AtomicBool::new(false),
            seen: Mutex::default(),
        });
        let serving = Arc::clone(&shared);
        let app = Router::new().fallback(move |request: Request<Body>| {
            let shared = Arc::clone(&serving);
            async move { Ok::<_, Infallible>(shared.answer(request).await) }
        });
        let task = tokio::spawn(async move {
            // It ends only when it is dropped.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { address, shared, task })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where clients go: `http://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// No faults from now on.
    pub(crate) fn calm(&self) {
        self.shared.calm.store(true, Ordering::SeqCst);
    }

    /// What it did and saw so far.
    pub(crate) fn seen(&self) -> Seen {
        lock(&self.shared.seen).clone()
    }
}

impl Drop for Faults {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn answer(self: Arc<Self>, request: Request<Body>) -> Response<Body> {
        let query = request.uri().query().unwrap_or_default();
        let asks = |what: &str| query.split('&').any(|pair| pair == what);
        let (watch, streams) = (asks("watch=true") || asks("watch=1"), asks("sendInitialEvents=true"));
        let answer = if watch {
            self.note(|seen| seen.streams += usize::from(streams));
            self.watch(request, streams).await
        } else {
            self.pass_on(request).await
        };
        answer.unwrap_or_else(|error| status(StatusCode::BAD_GATEWAY, &json!({ "message": format!("{error:#}") })))
    }

    async fn pass_on(&self, request: Request<Body>) -> anyhow::Result<Response<Body>> {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, MAX_REQUEST_BYTES).await.context("the client's request")?;
        forward(&self.upstream, head, body).await
    }

    async fn watch(self: Arc<Self>, request: Request<Body>, streams: bool) -> anyhow::Result<Response<Body>> {
        if self.calm.load(Ordering::SeqCst) {
            return self.pass_on(request).await;
        }
        let step = lock(&self.plan).next();
        match step.fault {
            Fault::Gone => {
                self.carried_out(step.fault);
                return Ok(status(StatusCode::GONE, &gone()));
            }
            Fault::Starved => {
                self.pace.pass(self.starve).await;
                self.carried_out(step.fault);
            }
            _ => {}
        }
        let answer = self.pass_on(request).await?;
        if answer.status() == StatusCode::GONE {
            self.note(|seen| seen.true_gone += 1);
        }
        if answer.status() != StatusCode::OK {
            return Ok(answer);
        }
        self.pace.allow(step.after + MORE_WRITES);
        let (head, body) = answer.into_parts();
        let (sender, receiver) = mpsc::channel(LINES_WAITING);
        let counted = step.among_initial || !streams;
        tokio::spawn(async move {
            tokio::select! {
                () = sender.closed() => {}
                () = self.pump(body, &sender, step, counted) => {}
            }
        });
        let lines = futures::stream::unfold(receiver, |mut receiver: mpsc::Receiver<Piece>| async move {
            match receiver.recv().await? {
                Piece::Bytes(bytes) => Some((Ok(bytes), receiver)),
                Piece::Break => {
                    // Pending once: the server writes out what it has before it learns of the error.
                    tokio::task::yield_now().await;
                    Some((Err(std::io::Error::other("cut by plan")), receiver))
                }
            }
        });
        Ok(Response::from_parts(head, Body::from_stream(lines)))
    }

    /// Passes lines on until the fault, or until either side ends.
    async fn pump(&self, body: Body, sender: &mpsc::Sender<Piece>, step: Step, mut counted: bool) {
        let mut body = body.into_data_stream();
        let (mut buffer, mut left) = (Vec::new(), step.after);
        while let Some(Ok(bytes)) = body.next().await {
            buffer.extend_from_slice(&bytes);
            while let Some(end) = buffer.iter().position(|byte| *byte == b'\n') {
                let line: Bytes = buffer.drain(..=end).collect::<Vec<u8>>().into();
                if left == 0 && !self.calm.load(Ordering::SeqCst) {
                    return self.fail(step.fault, &line, sender).await;
                }
                if step.fault == Fault::Late {
                    tokio::time::sleep(LATE).await;
                }
                let event: Value = serde_json::from_slice(&line).unwrap_or_default();
                let gone = event["type"] == "ERROR" && event["object"]["code"] == 410;
                self.note(|seen| {
                    seen.lines += 1;
                    seen.true_gone += usize::from(gone);
                });
                left -= u64::from(counted && left > 0);
                counted |= !event["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"].is_null();
                if sender.send(Piece::Bytes(line)).await.is_err() {
                    return;
                }
            }
        }
    }

    /// The watch's end; `line` would have been next.
    async fn fail(&self, fault: Fault, line: &Bytes, sender: &mpsc::Sender<Piece>) {
        // Whoever has gone away doesn't see it: that is no fault carried out.
        let sent = match fault {
            Fault::CutInLine => {
                let half = sender.send(Piece::Bytes(line.slice(..line.len() / 2))).await;
                half.is_ok() && sender.send(Piece::Break).await.is_ok()
            }
            Fault::GoneInStream => {
                let event = format!("{}\n", json!({ "type": "ERROR", "object": gone() }));
                sender.send(Piece::Bytes(event.into())).await.is_ok()
            }
            Fault::Cut | Fault::Late | Fault::Gone | Fault::Starved => sender.send(Piece::Break).await.is_ok(),
        };
        // What starved was counted when it did.
        if sent && fault != Fault::Starved {
            self.carried_out(fault);
        }
    }

    fn carried_out(&self, fault: Fault) {
        self.note(|seen| *seen.faults.entry(fault).or_default() += 1);
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        change(&mut lock(&self.seen));
    }
}

/// What goes to the client of a watch.
enum Piece {
    Bytes(Bytes),
    Break,
}

/// The real server's words for a version that it no longer has.
fn gone() -> Value {
    json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version: 1 (2)", "reason": "Expired", "code": 410 })
}

pub(crate) fn status(code: StatusCode, body: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(body.to_string()));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    response
}

/// Asks the API server the same, and gives back its answer.
///
/// # Errors
/// There is none.
pub(crate) async fn forward(
    upstream: &kube::Client,
    mut head: http::request::Parts,
    body: Bytes,
) -> anyhow::Result<Response<Body>> {
    hop(&mut head.headers);
    let answer = upstream.send(Request::from_parts(head, kube::client::Body::from(body))).await?;
    let (mut head, body) = answer.into_parts();
    hop(&mut head.headers);
    Ok(Response::from_parts(head, Body::new(body)))
}

/// A kubeconfig without a user; JSON, which is YAML.
pub(crate) fn kubeconfig(url: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
        "clusters": [{ "name": "proxy", "cluster": { "server": url } }],
        "contexts": [{ "name": "proxy", "context": { "cluster": "proxy", "user": "" } }],
    })
}

/// Takes out what belongs to one connection, and compression, which would hide the lines.
fn hop(headers: &mut HeaderMap) {
    for name in [HOST, CONNECTION, TRANSFER_ENCODING, ACCEPT_ENCODING] {
        headers.remove(name);
    }
}
