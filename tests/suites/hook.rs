//! Webhooks in this process: one that records and answers, and one that is only a TCP listener and may misbehave. What
//! serves the first serves others too.
//!
//! Never reachable beyond loopback; never judges what it is asked: trials do, from the record.

use std::collections::VecDeque;
use std::io::Read;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::Value;

use crate::server::lock;

/// Largest request that is taken, in bytes.
const MAX_REQUEST_BYTES: usize = 64 << 20;
/// Calls that are remembered; older ones are forgotten, though [`Hook::count`] still counts them.
const MAX_CALLS: usize = 10_000;
/// Largest head of a request that [`read_request`] takes, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// How long an address may stay taken by the hook that had it before.
const REBIND: Duration = Duration::from_secs(2);

/// What is known of a call when it begins.
#[derive(Clone, Debug)]
pub(crate) struct CallInfo {
    /// Running number since the start, from 0.
    pub(crate) number: usize,
    /// Path with its query.
    pub(crate) path: String,
    /// Its headers.
    pub(crate) headers: HeaderMap,
}

/// A recorded call.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// Running number since the start, from 0.
    pub(crate) number: usize,
    /// Path with its query.
    pub(crate) path: String,
    /// Its headers.
    pub(crate) headers: HeaderMap,
    /// The body; `null` if it wasn't JSON.
    pub(crate) request: Arc<Value>,
    /// When the whole request had been read.
    pub(crate) started: Instant,
    /// When the answer was handed over; `None` while the call runs, and for good if the caller went away.
    pub(crate) ended: Option<Instant>,
    /// The code of that answer.
    pub(crate) status: Option<u16>,
}

impl Call {
    /// A header as text, empty if it is missing.
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// `namespace/name` of the parent (or a decorator's object), or its name alone if it is cluster-scoped.
    pub(crate) fn key(&self) -> String {
        let object = if self.request["object"].is_object() { &self.request["object"] } else { &self.request["parent"] };
        let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default();
        match text("namespace") {
            "" => text("name").to_owned(),
            namespace => format!("{namespace}/{}", text("name")),
        }
    }
}

/// What a hook answers.
#[derive(Clone, Debug)]
pub(crate) struct Reply {
    status: u16,
    headers: HeaderMap,
    body: Bytes,
    delay: Duration,
}

impl Reply {
    /// 200 with a JSON body.
    pub(crate) fn json(value: &Value) -> Self {
        Self::status(200).body(value.to_string()).header("content-type", "application/json")
    }

    /// A code without a body.
    pub(crate) fn status(status: u16) -> Self {
        Self { status, headers: HeaderMap::new(), body: Bytes::new(), delay: Duration::ZERO }
    }

    /// Another body.
    pub(crate) fn body(self, body: impl Into<Bytes>) -> Self {
        Self { body: body.into(), ..self }
    }

    /// One header more. One that HTTP doesn't allow is left out.
    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        if let (Ok(name), Ok(value)) = (name.parse::<HeaderName>(), value.parse::<HeaderValue>()) {
            self.headers.append(name, value);
        }
        self
    }

    /// Waits before it answers.
    pub(crate) fn delay(self, delay: Duration) -> Self {
        Self { delay, ..self }
    }
}

type Behaviour = dyn Fn(&Value, &CallInfo) -> Reply + Send + Sync;

struct Record {
    behaviour: Mutex<Arc<Behaviour>>,
    calls: Mutex<VecDeque<Call>>,
    count: AtomicUsize,
}

/// A webhook at work, on a runtime of its own: a busy trial doesn't stretch its calls, and when it is dropped, its port
/// closes and open connections end, as when a webhook's process dies.
pub(crate) struct Serving {
    address: SocketAddr,
    runtime: Option<tokio::runtime::Runtime>,
}

impl Serving {
    /// Listens on a loopback address, and answers every request by `handler`; port 0 is a free one.
    ///
    /// # Errors
    /// The address stays taken, or no thread can be had.
    pub(crate) fn start<S: Clone + Send + Sync + 'static, T: 'static>(
        address: SocketAddr,
        handler: impl axum::handler::Handler<T, S>,
        state: S,
    ) -> anyhow::Result<Self> {
        let listener = bind(address)?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let router = axum::Router::new().fallback(handler).with_state(state);
        let listener = {
            let _entered = runtime.enter();
            tokio::net::TcpListener::from_std(listener)?
        };
        runtime.spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, runtime: Some(runtime) })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:port<path>`; the path brings its slash.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// A webhook that records every call and answers as it is told. Dropping it closes its port and all connections.
pub(crate) struct Hook {
    record: Arc<Record>,
    serving: Serving,
}

impl Hook {
    /// Listens on a free loopback port.
    ///
    /// # Errors
    /// No port or thread can be had.
    pub(crate) fn start(
        behaviour: impl Fn(&Value, &CallInfo) -> Reply + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        Self::start_at((Ipv4Addr::LOCALHOST, 0).into(), behaviour)
    }

    /// Listens on a given loopback address, such as one that a dropped hook had.
    ///
    /// # Errors
    /// The address stays taken, or no thread can be had.
    pub(crate) fn start_at(
        address: SocketAddr,
        behaviour: impl Fn(&Value, &CallInfo) -> Reply + Send + Sync + 'static,
    ) -> anyhow::Result<Self> {
        let record = Arc::new(Record {
            behaviour: Mutex::new(Arc::new(behaviour)),
            calls: Mutex::default(),
            count: AtomicUsize::new(0),
        });
        let serving = Serving::start(address, answer, Arc::clone(&record))?;
        Ok(Self { record, serving })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.serving.address()
    }

    /// `http://127.0.0.1:port<path>`; the path brings its slash.
    pub(crate) fn url(&self, path: &str) -> String {
        self.serving.url(path)
    }

    /// Answers differently from the next call on.
    pub(crate) fn set(&self, behaviour: impl Fn(&Value, &CallInfo) -> Reply + Send + Sync + 'static) {
        *lock(&self.record.behaviour) = Arc::new(behaviour);
    }

    /// The calls since the start or the last [`Self::clear`], in the order in which they began, running ones too.
    pub(crate) fn calls(&self) -> Vec<Call> {
        lock(&self.record.calls).iter().cloned().collect()
    }

    /// The calls for one parent: see [`Call::key`].
    pub(crate) fn calls_for(&self, key: &str) -> Vec<Call> {
        lock(&self.record.calls).iter().filter(|call| call.key() == key).cloned().collect()
    }

    /// How many calls there were since the start; not changed by [`Self::clear`].
    pub(crate) fn count(&self) -> usize {
        self.record.count.load(Ordering::SeqCst)
    }

    /// Forgets the calls so far.
    pub(crate) fn clear(&self) {
        lock(&self.record.calls).clear();
    }
}

async fn answer(State(record): State<Arc<Record>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if head.method == http::Method::HEAD {
        // Somebody looks whether anything answers: no call.
        return response(&Reply::status(200));
    }
    let Ok(body) = to_bytes(body, MAX_REQUEST_BYTES).await else {
        return response(&Reply::status(413));
    };
    let request: Arc<Value> = Arc::new(serde_json::from_slice(&body).unwrap_or(Value::Null));
    drop(body);
    let path = head.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
    let info = {
        let mut calls = lock(&record.calls);
        // Counted under the lock, so that numbers and the order of the record agree.
        let number = record.count.fetch_add(1, Ordering::SeqCst);
        if calls.len() == MAX_CALLS {
            calls.pop_front();
        }
        let (headers, started) = (head.headers, Instant::now());
        let info = CallInfo { number, path: path.clone(), headers: headers.clone() };
        calls.push_back(Call {
            number,
            path,
            headers,
            request: Arc::clone(&request),
            started,
            ended: None,
            status: None,
        });
        info
    };
    let behaviour = Arc::clone(&lock(&record.behaviour));
    let reply = behaviour(&request, &info);
    if !reply.delay.is_zero() {
        tokio::time::sleep(reply.delay).await;
    }
    // From the back: the call is among the newest. It may have been cleared meanwhile.
    if let Some(call) = lock(&record.calls).iter_mut().rev().find(|call| call.number == info.number) {
        (call.ended, call.status) = (Some(Instant::now()), Some(reply.status));
    }
    response(&reply)
}

fn response(reply: &Reply) -> Response {
    let mut response = Response::new(Body::from(reply.body.clone()));
    *response.status_mut() = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    *response.headers_mut() = reply.headers.clone();
    response
}

/// A bare TCP listener; what it does to each connection is a closure on a thread of its own.
pub(crate) struct RawHook {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    stopped: Arc<AtomicBool>,
}

impl RawHook {
    /// Listens on a free loopback port. `serve` gets each connection (blocking) and its number from 0; the connection
    /// closes when it drops the stream. A closure that never ends must end on a failed read or write.
    ///
    /// # Errors
    /// No port can be had.
    pub(crate) fn start(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> anyhow::Result<Self> {
        let listener = bind((Ipv4Addr::LOCALHOST, 0).into())?;
        let address = listener.local_addr()?;
        let (connections, stopped) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (counter, stop, serve) = (Arc::clone(&connections), Arc::clone(&stopped), Arc::new(serve));
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                if stop.load(Ordering::SeqCst) {
                    return;
                }
                let (number, serve) = (counter.fetch_add(1, Ordering::SeqCst), Arc::clone(&serve));
                std::thread::spawn(move || serve(stream, number));
            }
        });
        Ok(Self { address, connections, stopped })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://127.0.0.1:port<path>`; the path brings its slash.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.address)
    }

    /// How many connections there were.
    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

impl Drop for RawHook {
    fn drop(&mut self) {
        self.stopped.store(true, Ordering::SeqCst);
        // Wakes the accept; if nobody listens any more there is nothing to wake.
        let _ = TcpStream::connect(self.address);
    }
}

/// An address at which nobody listens (unless somebody takes the port at that very time).
///
/// # Errors
/// No port can be had.
pub(crate) fn refusing_address() -> anyhow::Result<SocketAddr> {
    Ok(bind((Ipv4Addr::LOCALHOST, 0).into())?.local_addr()?)
}

/// Reads one HTTP/1.1 request with a `Content-Length` from a raw connection: its head as text, and its body.
///
/// # Errors
/// The connection ends before the request does, or the request is larger than the limits.
pub(crate) fn read_request(stream: &mut impl Read) -> std::io::Result<(String, Vec<u8>)> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        stream.read_exact(&mut byte)?;
        head.push(byte[0]);
        if head.len() > MAX_HEAD_BYTES {
            return Err(std::io::Error::other("the request's head is too large"));
        }
    }
    let head = String::from_utf8_lossy(&head).into_owned();
    let length = head.lines().find_map(|line| {
        let (name, value) = line.split_once(':')?;
        if name.eq_ignore_ascii_case("content-length") { value.trim().parse::<usize>().ok() } else { None }
    });
    let length = length.unwrap_or(0);
    if length > MAX_REQUEST_BYTES {
        return Err(std::io::Error::other("the request's body is too large"));
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body)?;
    Ok((head, body))
}

/// Binds a loopback address; std sets `SO_REUSEADDR`, so only a live listener is in the way, and it may be ending.
fn bind(address: SocketAddr) -> anyhow::Result<TcpListener> {
    let end = Instant::now() + REBIND;
    loop {
        match TcpListener::bind(address) {
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse && Instant::now() < end => {
                std::thread::sleep(Duration::from_millis(10));
            }
            other => return other.with_context(|| format!("listen on {address}")),
        }
    }
}
