//! HTTPS for the rings' admission webhook: the API server asks, [`Assign`] knows, an answer goes out.
//!
//! Anybody in the cluster can reach this port, so everything is bounded, and refused at once where a bound is met: a call
//! that fails is admitted by the API server without us, one that waits slows a user down. Connections are kept for the
//! next question. Never calls anybody itself, never reads a certificate from anywhere: [`Shown`] is told.

use std::convert::Infallible;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::body::{Body as _, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::RwLock;
use rustls::ServerConfig;
use rustls::server::{ClientHello, NoServerSessionStorage, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::certificate::{self, Pair};
use super::review::{Assign, Outcome, Part, Question, RingName};

/// Most connections at once; one more is closed at once.
pub const MAX_CONNECTIONS: usize = 512;
/// Most questions at once; one more is refused.
pub const MAX_REQUESTS: usize = 256;
/// Largest question, in bytes: what the API server takes of a user at most.
pub const MAX_BODY_BYTES: u32 = 3 << 20;
/// Most bytes of questions in memory at once, in KiB; each is there twice while it is put together.
pub const MAX_BODIES_KIB: u32 = 64 << 10;
/// Longest time of a handshake.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest time in which a question comes in, once it has begun.
pub const BODY_TIMEOUT: Duration = Duration::from_millis(800);
/// Longest time in which an owner is looked up. With [`BODY_TIMEOUT`] it is less than any ring's webhook timeout.
pub const OWNER_TIMEOUT: Duration = Duration::from_secs(1);
/// How long a connection waits for its next question: longer than the API server keeps it (90 s), so that it is the one
/// to close it.
pub const IDLE_TIMEOUT: Duration = Duration::from_secs(120);
/// How long a connection is kept, so that members that joined get their part of the questions.
pub const CONNECTION_LIFETIME: Duration = Duration::from_secs(10 * 60);
/// How long what was asked may take once its connection, or the server, is to end.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);
/// Pause after a failed accept: most often there is no file descriptor left for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// What can go wrong with the server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address can't be listened at.
    #[error("cannot listen at {address} for admission; choose another address, or turn admission off")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is no TLS.
    #[error("TLS can't be configured")]
    Tls(#[from] rustls::Error),
}

/// Told of every question, for metrics.
pub trait Meter: Send + Sync + 'static {
    /// A question was answered.
    fn answered(&self, outcome: Outcome, took: Duration);
    /// An object was given a shard. The ring exists, and the kind is in it. Not called for dry runs.
    fn assigned(&self, ring: RingName<'_>, group: &str, resource: &str);
    /// A request was refused with this HTTP status.
    fn refused(&self, status: u16);
    /// A connection ended before it was one: the client doesn't trust us, or isn't one.
    fn handshake_failed(&self);
    /// A named limit was hit.
    fn limit_hit(&self, limit: &'static str);
}

/// The certificate that clients are shown: another from one handshake to the next, if it is told so.
#[derive(Debug, Default)]
pub struct Shown(RwLock<Option<Arc<CertifiedKey>>>);

impl Shown {
    /// Shows this one from now on. Connections that are there stay.
    ///
    /// # Errors
    /// If it can't be used; the one before is shown on.
    pub fn show(&self, pair: &Pair) -> Result<(), certificate::Error> {
        let certified = Arc::new(pair.certified()?);
        *self.0.write() = Some(certified);
        Ok(())
    }

    /// Whether there is one. Without, every handshake fails.
    pub fn is_ready(&self) -> bool {
        self.0.read().is_some()
    }
}

impl ResolvesServerCert for Shown {
    fn resolve(&self, _client_hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        self.0.read().clone()
    }
}

/// A server that listens; it answers once [`Self::run`] runs.
pub struct Server<A> {
    listener: TcpListener,
    address: SocketAddr,
    acceptor: TlsAcceptor,
    service: Arc<Service<A>>,
}

impl<A: Assign> Server<A> {
    /// Listens at an address; port 0 takes a free one.
    ///
    /// # Errors
    /// If the address is in use, not this machine's, or not allowed.
    pub async fn bind(
        address: SocketAddr,
        shown: Arc<Shown>,
        assign: Arc<A>,
        meter: Arc<dyn Meter>,
    ) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(shown);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // Who comes again looks at our certificate again.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;

        let fail = |source| Error::Bind { address, source };
        let listener = TcpListener::bind(address).await.map_err(fail)?;
        let address = listener.local_addr().map_err(fail)?;
        let (requests, bodies_kib) = (Semaphore::new(MAX_REQUESTS), Semaphore::new(MAX_BODIES_KIB as usize));
        let service = Arc::new(Service { assign, meter, requests, bodies_kib });
        Ok(Self { listener, address, acceptor: TlsAcceptor::from(Arc::new(config)), service })
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is cancelled, and then lets what was asked be answered for [`SHUTDOWN_GRACE`]. All of its tasks
    /// have ended when it returns.
    pub async fn run(self, stop: CancellationToken) {
        let Self { listener, acceptor, service, .. } = self;
        let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
        let mut running = JoinSet::new();
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                // Whoever asked knows how it ended.
                Some(_) = running.join_next() => {}
                accepted = listener.accept() => match accepted {
                    Ok((stream, _)) => match Arc::clone(&places).try_acquire_owned() {
                        Ok(place) => {
                            let (acceptor, service, stop) = (acceptor.clone(), Arc::clone(&service), stop.clone());
                            running.spawn(async move {
                                connection(stream, acceptor, service, stop).await;
                                drop(place);
                            });
                        }
                        Err(_) => service.meter.limit_hit("admission_connections"),
                    },
                    Err(error) => {
                        tracing::warn!("accepting a connection for admission: {error}");
                        tokio::time::sleep(ACCEPT_PAUSE).await;
                    }
                }
            }
        }
        drop(listener);
        let ended = async { while running.join_next().await.is_some() {} };
        // What hasn't ended by then is cut.
        let _ = timeout(SHUTDOWN_GRACE * 2, ended).await;
        running.shutdown().await;
    }
}

/// Serves a connection until it ends, its time is over, or `stop`.
async fn connection<A: Assign>(
    stream: TcpStream,
    acceptor: TlsAcceptor,
    service: Arc<Service<A>>,
    stop: CancellationToken,
) {
    // Without it answers are late, not wrong.
    let _ = stream.set_nodelay(true);
    let Ok(Ok(stream)) = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await else {
        service.meter.handshake_failed();
        return;
    };
    let answer = service_fn(move |request: Request<Incoming>| {
        let service = Arc::clone(&service);
        async move { Ok::<_, Infallible>(service.answer(request).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE_TIMEOUT);
    let mut connection = pin!(builder.serve_connection(TokioIo::new(stream), answer));
    tokio::select! {
        _ = connection.as_mut() => return,
        () = stop.cancelled() => {}
        () = tokio::time::sleep(CONNECTION_LIFETIME) => {}
    }
    connection.as_mut().graceful_shutdown();
    let _ = timeout(SHUTDOWN_GRACE, connection).await;
}

/// What all connections share.
struct Service<A> {
    assign: Arc<A>,
    meter: Arc<dyn Meter>,
    requests: Semaphore,
    bodies_kib: Semaphore,
}

impl<A: Assign> Service<A> {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        match self.reviewed(request).await {
            Ok(body) => {
                let mut response = Response::new(Full::new(Bytes::from(body)));
                response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
                response
            }
            Err(Refusal { status, text }) => {
                self.meter.refused(status.as_u16());
                let mut response = Response::new(Full::new(Bytes::from(text)));
                *response.status_mut() = status;
                response
            }
        }
    }

    async fn reviewed(&self, request: Request<Incoming>) -> Result<Vec<u8>, Refusal> {
        let begun = Instant::now();
        let Ok(_place) = self.requests.try_acquire() else { return Err(self.full("admission_requests")) };
        let (head, body) = request.into_parts();
        let Some(ring) = RingName::of_path(head.uri.path()) else {
            return Err(Refusal::new(StatusCode::NOT_FOUND, "no ring's webhook has this path"));
        };
        if head.method != Method::POST {
            return Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, "only POST"));
        }
        let body = self.body(body).await?;
        let question =
            Question::read(&body, ring).map_err(|error| Refusal::new(StatusCode::BAD_REQUEST, error.to_string()))?;
        let decided = self.decide(ring, &question).await;
        let outcome = decided.as_ref().err().copied().unwrap_or(Outcome::Assigned);
        self.meter.answered(outcome, begun.elapsed());
        if let (Ok(subject), Outcome::Assigned, false) = (&question.subject, outcome, question.is_dry_run) {
            self.meter.assigned(ring, &subject.group, &subject.resource);
        }
        Ok(decided.unwrap_or_else(|_| question.admitted()))
    }

    /// Reads a body within its limits.
    async fn body(&self, body: Incoming) -> Result<Bytes, Refusal> {
        let too_large = || Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, format!("more than {MAX_BODY_BYTES} bytes"));
        // What doesn't say how large it is may be as large as it gets.
        let most = body.size_hint().upper().unwrap_or_else(|| MAX_BODY_BYTES.into());
        let Some(most) = u32::try_from(most).ok().filter(|most| *most <= MAX_BODY_BYTES) else {
            self.meter.limit_hit("admission_body_bytes");
            return Err(too_large());
        };
        let Ok(_room) = self.bodies_kib.try_acquire_many(most.div_ceil(1024)) else {
            return Err(self.full("admission_bodies_kib"));
        };
        match timeout(BODY_TIMEOUT, Limited::new(body, most as usize).collect()).await {
            Ok(Ok(body)) => Ok(body.to_bytes()),
            Ok(Err(error)) if error.is::<LengthLimitError>() => {
                self.meter.limit_hit("admission_body_bytes");
                Err(too_large())
            }
            Ok(Err(_)) => Err(Refusal::new(StatusCode::BAD_REQUEST, "the body ended too soon")),
            Err(_) => Err(Refusal::new(StatusCode::REQUEST_TIMEOUT, "the body came too slowly")),
        }
    }

    /// The answer that assigns the object, or why it has none.
    async fn decide(&self, ring: RingName<'_>, question: &Question) -> Result<Vec<u8>, Outcome> {
        let subject = question.subject.as_ref().map_err(|outcome| *outcome)?;
        let part = self.assign.part(ring, &subject.group, &subject.resource).ok_or(Outcome::NotOurs)?;
        let shard = match part {
            Part::Main if subject.name.is_empty() => return Err(Outcome::Unnamed),
            Part::Main => self.assign.main(ring, subject, !question.is_dry_run),
            Part::Controlled => {
                let owner = subject.owner.as_ref().ok_or(Outcome::Unowned)?;
                let shard = timeout(OWNER_TIMEOUT, self.assign.controlled(ring, subject, owner)).await;
                shard.map_err(|_| Outcome::TooSlow)?
            }
        };
        shard.and_then(|shard| question.assigned(ring, &shard)).ok_or(Outcome::NoShard)
    }

    fn full(&self, limit: &'static str) -> Refusal {
        self.meter.limit_hit(limit);
        Refusal::new(StatusCode::SERVICE_UNAVAILABLE, "too many questions at once")
    }
}

/// A request without an answer, which the API server takes for a failed call.
struct Refusal {
    status: StatusCode,
    text: String,
}

impl Refusal {
    fn new(status: StatusCode, text: impl Into<String>) -> Self {
        Self { status, text: text.into() }
    }
}

#[cfg(test)]
#[path = "serve_tests.rs"]
mod tests;
