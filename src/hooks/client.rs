//! One exchange with a webhook: a request goes out, a reply within its limits comes back.
//!
//! Never follows a redirect, never repeats a request, never decompresses, never keeps a reply. The whole exchange, from resolving to the last
//! byte of the reply, has one deadline.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, ETAG, HeaderMap, RETRY_AFTER, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode, Uri};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::connect::{ConnectError, HttpClient};
use crate::{Error, Meter};

/// How much of an error reply is read and kept for the log, in bytes.
const EXCERPT_BYTES: usize = 512;
/// How long that may take: the code has come, and the rest only helps.
const EXCERPT_WAIT: Duration = Duration::from_secs(1);
/// How much of a Content-Encoding is repeated, in characters.
const ENCODING_CHARS: usize = 64;
/// A reply is read up to this size whatever else is being read.
pub(crate) const SMALL_REPLY_BYTES: usize = 128 << 10;
/// Replies that are larger than that and are read, or held, at once; others wait, within their deadlines. It is what
/// bounds the memory of a hook that sends without end to every worker.
pub(crate) const LARGE_REPLIES_AT_ONCE: usize = 4;
/// A 429 can put a call off for at most this long.
pub(crate) const MAX_RETRY_AFTER: Duration = Duration::from_secs(3600);
/// A reply's headers are at most this large.
pub(crate) const MAX_HEADER_BYTES: usize = 64 << 10;
/// A reply has at most so many headers: hyper's own limit.
const MAX_HEADERS: usize = 100;

/// A reply with code 200, or one that was known and still holds.
#[derive(Debug)]
pub struct Reply {
    /// The body.
    pub body: Bytes,
    /// Its entity tag.
    pub(crate) tag: Option<HeaderValue>,
    /// The hook only said that it still holds.
    pub(crate) is_known: bool,
    /// Its place among the large ones; others wait for it until this is dropped.
    _large: Option<OwnedSemaphorePermit>,
}

/// The room for large replies, of all hooks.
pub(crate) struct Room {
    large: Arc<Semaphore>,
    meter: Arc<dyn Meter>,
}

/// What is sent, and what the reply may be.
pub(crate) struct Post<'a> {
    pub(crate) uri: &'a Uri,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    /// The body of a reply whose tag is among the headers: the hook may say that it still holds.
    pub(crate) known: Option<Bytes>,
    /// Limit for the whole exchange.
    pub(crate) timeout: Duration,
    /// Limit for the reply's body, in bytes.
    pub(crate) reply_limit: usize,
}

impl Room {
    pub(crate) fn new(meter: Arc<dyn Meter>) -> Self {
        Self { large: Arc::new(Semaphore::new(LARGE_REPLIES_AT_ONCE)), meter }
    }

    /// Posts, and reads the reply.
    ///
    /// # Errors
    /// If there is no whole reply with code 200 within the limits.
    pub(crate) async fn exchange(&self, http: &HttpClient, post: Post<'_>) -> Result<Reply, Error> {
        let (after, waits) = (post.timeout, AtomicBool::new(false));
        tokio::time::timeout(after, self.converse(http, post, &waits)).await.unwrap_or_else(|_| {
            let is_ours = waits.load(Ordering::Relaxed);
            Err(if is_ours { Error::NoRoom { after, bytes: SMALL_REPLY_BYTES } } else { Error::Timeout { after } })
        })
    }

    /// The exchange without its deadline; `waits` while it does so for others, and not for the hook.
    async fn converse(&self, http: &HttpClient, post: Post<'_>, waits: &AtomicBool) -> Result<Reply, Error> {
        let mut request = Request::new(Full::new(post.body));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = post.uri.clone();
        *request.headers_mut() = post.headers;
        request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        let response = http.request(request).await.map_err(classify)?;
        let (head, body) = response.into_parts();
        // Only whoever was asked may say so (RFC 9110, 15.4.5); some say it by 412.
        if matches!(head.status, StatusCode::NOT_MODIFIED | StatusCode::PRECONDITION_FAILED)
            && let Some(body) = post.known
        {
            return Ok(Reply { body, tag: None, is_known: true, _large: None });
        }
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
        let limit = post.reply_limit;
        let announced = hyper::body::Body::size_hint(&body).lower();
        if announced > limit as u64 {
            return Err(Error::TooLarge { limit });
        }
        let tag = head.headers.get(ETAG).cloned();
        self.read(body, limit, waits).await.map(|reply| Reply { tag, ..reply })
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
        Ok(Reply { body: buffer.freeze(), tag: None, is_known: false, _large: large })
    }
}

/// Whether there is any HTTP answer at all within a time: HEAD has no effects (RFC 9110, 9.2.1), and any answer will do.
pub(crate) async fn answers(http: &HttpClient, uri: &Uri, within: Duration) -> bool {
    let mut request = Request::new(Full::default());
    *request.method_mut() = Method::HEAD;
    *request.uri_mut() = uri.clone();
    request.headers_mut().insert(USER_AGENT, HeaderValue::from_static("ringmaster-probe"));
    matches!(tokio::time::timeout(within, http.request(request)).await, Ok(Ok(_)))
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
    match std::error::Error::source(&error).and_then(|cause| cause.downcast_ref::<hyper::Error>()) {
        // What the other side says by HTTP/2 that it did nothing with (RFC 9113, 8.7): a stream that it refused, and those
        // that it didn't begin with when it ended the connection (6.8). Others end in another way.
        Some(cause) if says(cause, |cause| cause.reason() == Some(h2::Reason::REFUSED_STREAM)) => Error::Refused,
        Some(cause) if says(cause, h2::Error::is_go_away) => Error::Leaving,
        // The connection ended before the request was handed to it.
        Some(cause) if cause.is_canceled() => Error::NotSent(chain(&error)),
        Some(cause) => broken(cause),
        None => Error::Broken(chain(&error)),
    }
}

/// Whether the other side says this by HTTP/2.
fn says(error: &hyper::Error, what: impl Fn(&h2::Error) -> bool) -> bool {
    let cause = std::error::Error::source(error).and_then(|cause| cause.downcast_ref::<h2::Error>());
    cause.is_some_and(|cause| cause.is_remote() && what(cause))
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

#[cfg(test)]
#[path = "client_tests.rs"]
mod tests;
