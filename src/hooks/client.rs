//! Hook calls over HTTP/1.1 with keep-alive: one pool per process, connections kept per endpoint.
//!
//! Never follows a redirect, never repeats a request, never decompresses. The whole call, from resolving to the last
//! byte of the reply, has one deadline.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, RETRY_AFTER};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::net::TcpStream;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::resolve::resolve;
use crate::{Error, Overrides, Policy};

/// A connection is made within this time, or the call's deadline if that is sooner.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// An idle connection is closed after this long, before most servers would close it under us.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of an error reply is read and kept for the log, in bytes.
const EXCERPT_BYTES: usize = 512;
/// How long that may take: the code has come, and the rest only helps.
const EXCERPT_WAIT: Duration = Duration::from_secs(1);
/// How much of a Content-Encoding is repeated, in characters.
const ENCODING_CHARS: usize = 64;
/// A reply is read up to this size whatever else is being read.
const SMALL_REPLY_BYTES: usize = 128 << 10;
/// Replies that are larger than that and are read, or held, at once; others wait, within their deadlines. It is what
/// bounds the memory of a hook that sends without end to every worker.
const LARGE_REPLIES_AT_ONCE: usize = 4;
/// A 429 can put a call off for at most this long.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// A reply's headers are at most this large.
const MAX_HEADER_BYTES: usize = 64 << 10;
/// A reply has at most so many headers: hyper's own limit.
const MAX_HEADERS: usize = 100;

/// Where a call goes.
#[derive(Clone, Debug)]
pub struct Target {
    /// The checked URL; see [`crate::check_url`].
    pub uri: Uri,
    /// Limit for the whole call.
    pub timeout: Duration,
    /// Limit for the reply's body.
    pub reply_limit_bytes: usize,
}

/// A reply with code 200.
#[derive(Debug)]
pub struct Reply {
    /// The body.
    pub body: Bytes,
    /// Its place among the large ones; others wait for it until this is dropped.
    _large: Option<OwnedSemaphorePermit>,
}

/// Counts what a client's bounds hold back.
pub trait Meter: Send + Sync {
    /// A named bound was hit.
    fn limit_hit(&self, limit: &'static str);
}

/// The hook client of a process; cheap to clone.
#[derive(Clone)]
pub struct Hooks {
    client: Client<HttpsConnector<Connector>, Full<Bytes>>,
    large: Arc<Semaphore>,
    meter: Arc<dyn Meter>,
}

impl Hooks {
    /// A client that keeps up to `concurrency` idle connections per endpoint.
    ///
    /// # Errors
    /// If the system's certificate store can't be read.
    pub fn new(policy: Policy, overrides: Overrides, concurrency: usize, meter: Arc<dyn Meter>) -> Result<Self, Error> {
        let connector = Connector { policy: Arc::new(policy), overrides: Arc::new(overrides) };
        let https = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())
            .map_err(|error| Error::Address(format!("no usable certificate store: {error}")))?
            .https_or_http()
            .enable_http1()
            .wrap_connector(connector);
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(concurrency)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(MAX_HEADER_BYTES)
            .build(https);
        Ok(Self { client, large: Arc::new(Semaphore::new(LARGE_REPLIES_AT_ONCE)), meter })
    }

    /// Posts `body` and reads the reply.
    ///
    /// # Errors
    /// If there is no whole reply with code 200 within the target's limits.
    pub async fn call(&self, target: &Target, headers: HeaderMap, body: Bytes) -> Result<Reply, Error> {
        let (after, waits) = (target.timeout, AtomicBool::new(false));
        let exchange = self.exchange(target, headers, body, &waits);
        tokio::time::timeout(after, exchange).await.unwrap_or_else(|_| {
            let is_ours = waits.load(Ordering::Relaxed);
            Err(if is_ours { Error::NoRoom { after, bytes: SMALL_REPLY_BYTES } } else { Error::Timeout { after } })
        })
    }

    /// The call without its deadline; `waits` while it does so for others, and not for the hook.
    async fn exchange(
        &self,
        target: &Target,
        headers: HeaderMap,
        body: Bytes,
        waits: &AtomicBool,
    ) -> Result<Reply, Error> {
        let mut request = Request::new(Full::new(body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = target.uri.clone();
        *request.headers_mut() = headers;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = self.client.request(request).await.map_err(classify)?;
        let (head, body) = response.into_parts();
        match head.status {
            StatusCode::OK => {}
            StatusCode::TOO_MANY_REQUESTS => {
                #[expect(clippy::disallowed_methods, reason = "an HTTP date is wall time")]
                let now = SystemTime::now();
                return Err(Error::Later { after: retry_after(&head.headers, now) });
            }
            code if code.is_redirection() => return Err(Error::Redirect { code: code.as_u16() }),
            code => {
                return Err(Error::Code { code: code.as_u16(), excerpt: excerpt(body).await });
            }
        }
        if let Some(encoding) = head.headers.get(CONTENT_ENCODING)
            && encoding != "identity"
        {
            let encoding = String::from_utf8_lossy(encoding.as_bytes());
            return Err(Error::Encoding(encoding.chars().take(ENCODING_CHARS).collect()));
        }
        let limit = target.reply_limit_bytes;
        let announced = hyper::body::Body::size_hint(&body).lower();
        if announced > limit as u64 {
            return Err(Error::TooLarge { limit });
        }
        self.read(body, limit, waits).await
    }

    /// Reads a body up to a limit.
    async fn read(&self, mut body: Incoming, limit: usize, waits: &AtomicBool) -> Result<Reply, Error> {
        let (mut buffer, mut large) = (BytesMut::new(), None);
        while let Some(frame) = body.frame().await {
            let data = frame.map_err(|error| broken(&error))?.into_data().unwrap_or_default();
            let size = buffer.len() + data.len();
            if size > limit {
                return Err(Error::TooLarge { limit });
            }
            if size > SMALL_REPLY_BYTES && large.is_none() {
                large = Arc::clone(&self.large).try_acquire_owned().ok();
                if large.is_none() {
                    self.meter.limit_hit("large_replies");
                    waits.store(true, Ordering::Relaxed);
                    // Never closed; and without a place it would only be read as if there were no bound.
                    large = Arc::clone(&self.large).acquire_owned().await.ok();
                    waits.store(false, Ordering::Relaxed);
                }
                // Room for all of it, so that growing never holds two copies. What isn't used isn't resident.
                buffer.reserve(limit - buffer.len());
            }
            buffer.extend_from_slice(&data);
        }
        Ok(Reply { body: buffer.freeze(), _large: large })
    }
}

/// The beginning of an error's body, or what of it comes soon, on one line.
async fn excerpt(mut body: Incoming) -> String {
    let mut text = Vec::with_capacity(EXCERPT_BYTES);
    let reading = async {
        while text.len() < EXCERPT_BYTES
            && let Some(Ok(frame)) = body.frame().await
        {
            let data = frame.into_data().unwrap_or_default();
            text.extend_from_slice(&data[..data.len().min(EXCERPT_BYTES - text.len())]);
        }
    };
    // Either way, what has come is what there is.
    let _ = tokio::time::timeout(EXCERPT_WAIT, reading).await;
    String::from_utf8_lossy(&text).chars().filter(|c| !c.is_control()).collect()
}

/// Retry-After in seconds or as an HTTP date, at most [`MAX_RETRY_AFTER`]. 0 and what is past is no time to wait for: a
/// hook that is busy for as long as it says so gets ever longer pauses.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    let after = if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        text.parse().map_or(MAX_RETRY_AFTER, Duration::from_secs)
    } else {
        httpdate::parse_http_date(text).ok()?.duration_since(now).ok()?
    };
    (!after.is_zero()).then_some(after.min(MAX_RETRY_AFTER))
}

fn classify(error: hyper_util::client::legacy::Error) -> Error {
    if error.is_connect() {
        let mut source: Option<&(dyn std::error::Error + 'static)> = Some(&error);
        while let Some(cause) = source {
            if let Some(ConnectError(ours)) = cause.downcast_ref::<ConnectError>() {
                return match ours {
                    Error::Address(text) => Error::Address(text.clone()),
                    Error::Resolve { host, problem } => Error::Resolve { host: host.clone(), problem: problem.clone() },
                    Error::Connect { problem, refused } => {
                        Error::Connect { problem: problem.clone(), refused: *refused }
                    }
                    other => Error::Connect { problem: other.to_string(), refused: false },
                };
            }
            source = cause.source();
        }
        // The connection was ours to make and is there; TLS is what is left.
        return Error::Tls(chain(&error));
    }
    std::error::Error::source(&error)
        .and_then(|cause| cause.downcast_ref::<hyper::Error>())
        .map_or_else(|| Error::Broken(chain(&error)), broken)
}

/// What went wrong with a connection that had been made.
fn broken(error: &hyper::Error) -> Error {
    if error.is_parse_too_large() {
        return Error::HeadTooLarge { bytes: MAX_HEADER_BYTES, headers: MAX_HEADERS };
    }
    let io = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<std::io::Error>());
    let is_nonsense =
        io.is_some_and(|io| matches!(io.kind(), std::io::ErrorKind::InvalidInput | std::io::ErrorKind::InvalidData));
    if error.is_parse() || is_nonsense { Error::NotHttp(chain(error)) } else { Error::Broken(chain(error)) }
}

fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    text
}

/// Resolves once, checks, connects to what was checked.
#[derive(Clone)]
struct Connector {
    policy: Arc<Policy>,
    overrides: Arc<Overrides>,
}

#[derive(Debug, thiserror::Error)]
#[error(transparent)]
struct ConnectError(Error);

impl tower_service::Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (policy, overrides) = (Arc::clone(&self.policy), Arc::clone(&self.overrides));
        Box::pin(async move { connect(&uri, &overrides, &policy).await.map_err(ConnectError) })
    }
}

async fn connect(uri: &Uri, overrides: &Overrides, policy: &Policy) -> Result<Stream, Error> {
    let host = uri.host().unwrap_or_default();
    let default_port = if uri.scheme_str() == Some("https") { 443 } else { 80 };
    let port = uri.port_u16().unwrap_or(default_port);
    let failed = |problem: String, refused| Error::Connect { problem, refused };
    let work = async {
        let addresses = resolve(host, port, overrides, policy).await?;
        let mut last = failed("no address".to_owned(), false);
        let mut connected = None;
        for address in addresses {
            match TcpStream::connect(address).await {
                Ok(stream) => {
                    connected = Some(stream);
                    break;
                }
                Err(error) => {
                    let refused = error.kind() == std::io::ErrorKind::ConnectionRefused;
                    last = failed(format!("{address}: {error}"), refused);
                }
            }
        }
        let stream = connected.ok_or(last)?;
        // Requests are written whole; waiting for more to send with them only costs time.
        stream.set_nodelay(true).map_err(|error| failed(error.to_string(), false))?;
        Ok(Stream(TokioIo::new(stream)))
    };
    tokio::time::timeout(CONNECT_TIMEOUT, work)
        .await
        .unwrap_or_else(|_| Err(failed(format!("no connection within {CONNECT_TIMEOUT:?}"), false)))
}

/// A plain connection; what `hyper-util` wants to know of it is nothing.
struct Stream(TokioIo<TcpStream>);

impl Connection for Stream {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl hyper::rt::Read for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: hyper::rt::ReadBufCursor<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, data: &[u8]) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, data)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffers: &[std::io::IoSlice<'_>],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, buffers)
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
