//! `suites --replica ADDRESS RECORD [name=value...]`: one replica of a webhook as a process of its own.
//!
//! It wants no children, and a status that is always the same for a parent's generation. Each call is written down before
//! it is answered, in lines of `begin NUMBER MICROSECONDS SHARD GENERATION PARENT PRESENTED`, with what its `Authorization`
//! is known by, and `end NUMBER MICROSECONDS CODE`; and each TLS connection, as `shaken NUMBER MICROSECONDS PROTOCOL OURS
//! THEIRS`, with fingerprints of both certificates.
//! SIGTERM: calls that run are answered, then it ends.

use std::fs::File;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, bail};
use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::response::Response;
use http::{Method, StatusCode, header};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use xxhash_rust::xxh64::xxh64;

use crate::replicas::calls::now;
use crate::server::lock;

/// Largest request, in bytes.
const MAX_REQUEST_BYTES: usize = 8 << 20;
/// Connections whose handshake is done and that nobody took yet.
const MAX_SHAKEN: usize = 64;

/// What a replica is told.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    /// `code=`: what every call is answered with; 200 without it.
    code: Option<StatusCode>,
    /// `work-ms=`: how long a call takes.
    work: Duration,
    /// `threads=`: how many calls it works on at once; any number without it.
    threads: Option<usize>,
    /// `stuck-after=`: as many calls are answered, and no more.
    answers: Option<u64>,
    /// `tls=`: the folder with `tls.pem`, a certificate and its key, and `ca.crt`, whose certificates callers must show.
    /// Read anew for each connection.
    tls: Option<PathBuf>,
    /// `holds=`: calls for parents whose names begin so are never answered.
    holds: Option<String>,
    /// `head=0`: nor is HEAD.
    ignores_head: bool,
    /// `h2=1`: HTTP/2 is offered by ALPN.
    offers_h2: bool,
    /// `close=1`: each connection ends after one call.
    closes: bool,
    /// `auth=`: the file with the values of `Authorization` that are accepted, one in a line; others are answered with 401.
    /// Read anew for each call.
    accepted: Option<PathBuf>,
}

impl Options {
    fn parse(words: impl Iterator<Item = String>) -> anyhow::Result<Self> {
        let mut options = Self::default();
        for word in words {
            match word.split_once('=') {
                Some(("code", code)) => options.code = Some(code.parse()?),
                Some(("work-ms", text)) => options.work = Duration::from_millis(text.parse()?),
                Some(("threads", text)) => options.threads = Some(text.parse()?),
                Some(("stuck-after", text)) => options.answers = Some(text.parse()?),
                Some(("tls", folder)) => options.tls = Some(folder.into()),
                Some(("holds", name)) => options.holds = Some(name.to_owned()),
                Some(("head", "0")) => options.ignores_head = true,
                Some(("h2", "1")) => options.offers_h2 = true,
                Some(("close", "1")) => options.closes = true,
                Some(("auth", file)) => options.accepted = Some(file.into()),
                _ => bail!("{word:?}"),
            }
        }
        Ok(options)
    }
}

struct Replica {
    options: Options,
    record: Mutex<File>,
    calls: AtomicU64,
    threads: Semaphore,
}

impl Replica {
    fn note(&self, line: &str) {
        // Whoever can't write its record must not answer: its calls would be missed in silence.
        let written = lock(&self.record).write_all(line.as_bytes());
        if let Err(error) = written {
            eprintln!("the record: {error}");
            std::process::abort();
        }
    }
}

/// Runs until SIGTERM.
///
/// # Errors
/// The address can't be listened at, or an option isn't one.
pub(crate) fn run(mut words: impl Iterator<Item = String>) -> anyhow::Result<()> {
    let address: SocketAddr = words.next().context("no address")?.parse()?;
    let record = PathBuf::from(words.next().context("no record")?);
    let options = Options::parse(words)?;
    let record = Mutex::new(File::options().create(true).append(true).open(&record)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut terminated = signal(SignalKind::terminate())?;
        let listener = TcpListener::bind(address).await?;
        let tls = options.tls.clone();
        let threads = Semaphore::new(options.threads.unwrap_or(Semaphore::MAX_PERMITS));
        let replica = Arc::new(Replica { options, record, calls: AtomicU64::new(0), threads });
        let router = axum::Router::new().fallback(answer).with_state(Arc::clone(&replica));
        let stop = async move {
            // One is enough, and there is no other end.
            let _ = terminated.recv().await;
        };
        match tls {
            None => axum::serve(listener, router).with_graceful_shutdown(stop).await?,
            Some(folder) => {
                let shaken = Shaken::start(listener, folder, replica)?;
                axum::serve(shaken, router).with_graceful_shutdown(stop).await?;
            }
        }
        Ok(())
    })
}

async fn answer(State(replica): State<Arc<Replica>>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    if head.method == Method::HEAD {
        if replica.options.ignores_head {
            std::future::pending::<()>().await;
        }
        return Response::new(Body::empty());
    }
    let body = to_bytes(body, MAX_REQUEST_BYTES).await.unwrap_or_default();
    let request: Value = serde_json::from_slice(&body).unwrap_or_default();
    let parent = &request["parent"];
    let (name, generation) = (parent["metadata"]["name"].as_str().unwrap_or("?"), &parent["metadata"]["generation"]);
    let shard = head.headers.get("ringmaster-shard").and_then(|value| value.to_str().ok()).unwrap_or_default();
    let shard = shard.split('/').next().unwrap_or_default();
    let number = replica.calls.fetch_add(1, Ordering::Relaxed);
    let authorization = head.headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
    let presented = authorization.map_or_else(|| "-".to_owned(), |value| known_by(value).to_string());
    replica.note(&format!("begin {number} {} {shard} {generation} {name} {presented}\n", now().as_micros()));
    let is_stuck = replica.options.answers.is_some_and(|answers| number >= answers);
    if is_stuck || replica.options.holds.as_ref().is_some_and(|held| name.starts_with(held)) {
        std::future::pending::<()>().await;
    }
    let thread = replica.threads.acquire().await;
    tokio::time::sleep(replica.options.work).await;
    drop(thread);
    let is_known = replica.options.accepted.as_ref().is_none_or(|file| {
        let accepted = std::fs::read_to_string(file).unwrap_or_default();
        authorization.is_some_and(|value| accepted.lines().any(|line| line == value))
    });
    let code = if is_known { replica.options.code.unwrap_or(StatusCode::OK) } else { StatusCode::UNAUTHORIZED };
    replica.note(&format!("end {number} {} {}\n", now().as_micros(), code.as_u16()));
    let mut response =
        Response::new(Body::from(json!({ "status": { "seen": generation }, "children": [] }).to_string()));
    *response.status_mut() = code;
    if replica.options.closes {
        response.headers_mut().insert(header::CONNECTION, header::HeaderValue::from_static("close"));
    }
    response
}

/// Connections whose TLS handshake is done. One that isn't done holds no other up.
struct Shaken {
    address: SocketAddr,
    shaken: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
}

impl Shaken {
    fn start(listener: TcpListener, folder: PathBuf, replica: Arc<Replica>) -> anyhow::Result<Self> {
        let address = listener.local_addr()?;
        let (sender, shaken) = mpsc::channel(MAX_SHAKEN);
        tokio::spawn(async move {
            loop {
                let Ok((stream, from)) = listener.accept().await else { continue };
                let (sender, replica) = (sender.clone(), Arc::clone(&replica));
                let config = config(&folder, replica.options.offers_h2);
                tokio::spawn(async move {
                    match shake(config, stream).await {
                        Ok((stream, line)) => {
                            replica.note(&line);
                            drop(sender.send((stream, from)).await);
                        }
                        Err(error) => eprintln!("{} no handshake: {error:#}", now().as_millis()),
                    }
                });
            }
        });
        Ok(Self { address, shaken })
    }
}

/// A handshake, and what is noted of it.
async fn shake(
    config: anyhow::Result<(Arc<ServerConfig>, u64)>,
    stream: TcpStream,
) -> anyhow::Result<(TlsStream<TcpStream>, String)> {
    let (config, ours) = config?;
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let (_, session) = stream.get_ref();
    let theirs = session.peer_certificates().and_then(<[_]>::first).map(fingerprint).unwrap_or_default();
    let protocol = session.alpn_protocol().map_or_else(|| "-".into(), String::from_utf8_lossy);
    let line = format!("shaken 0 {} {protocol} {ours} {theirs}\n", now().as_micros());
    Ok((stream, line))
}

/// What a credential is known by in a record.
pub(crate) fn known_by(authorization: &str) -> u64 {
    xxh64(authorization.as_bytes(), 0)
}

/// What a certificate is known by in a record.
pub(crate) fn fingerprint(certificate: &CertificateDer<'_>) -> u64 {
    xxh64(certificate, 0)
}

impl axum::serve::Listener for Shaken {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.shaken.recv().await {
            Some(shaken) => shaken,
            // The sender is a task of this process, which doesn't end before it.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> std::io::Result<Self::Addr> {
        Ok(self.address)
    }
}

/// With the fingerprint of the certificate in it.
fn config(folder: &std::path::Path, offers_h2: bool) -> anyhow::Result<(Arc<ServerConfig>, u64)> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(folder.join("ca.crt"))? {
        roots.add(certificate?)?;
    }
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
    let own = std::fs::read(folder.join("tls.pem"))?;
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&own).collect();
    let (builder, chain) = (builder.with_client_cert_verifier(verifier), chain?);
    let ours = chain.first().map(fingerprint).unwrap_or_default();
    let mut config = builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(&own)?)?;
    if offers_h2 {
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    }
    Ok((Arc::new(config), ours))
}
