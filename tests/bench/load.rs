//! The load on an API server: connections that send one request after the other, in HTTP/1.1 by hand, so that the load
//! takes little of the CPU that it shares with the server.
//!
//! Never pipelines, pools or retries: a request that isn't answered with 2xx ends the benchmark. Connections share one thread.

use std::cell::Cell;
use std::io::Write as _;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use futures::future::try_join_all;
use http::Method;
use rustls::pki_types::ServerName;
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::usage;

/// Connections that write.
pub(crate) const CONNECTIONS: usize = 32;
/// Largest head of an answer, in bytes.
const MAX_HEAD_BYTES: usize = 64 << 10;
/// Largest body of an answer, in bytes.
const MAX_BODY_BYTES: usize = 1 << 30;
/// Read at once at least, in bytes.
const READ_BYTES: usize = 16 << 10;

/// Where a server is, and who asks.
#[derive(Clone)]
pub(crate) struct Target {
    address: SocketAddr,
    authorization: String,
    tls: Option<TlsConnector>,
}

impl Target {
    /// Plain HTTP, or TLS with a server whose CA is `ca_der`.
    pub(crate) fn new(address: &str, token: &str, ca_der: Option<&[u8]>) -> anyhow::Result<Self> {
        let connector = |der: &[u8]| -> anyhow::Result<TlsConnector> {
            let mut roots = RootCertStore::empty();
            roots.add(der.to_vec().into())?;
            let provider = Arc::new(rustls::crypto::ring::default_provider());
            let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
            Ok(TlsConnector::from(Arc::new(config.with_root_certificates(roots).with_no_client_auth())))
        };
        Ok(Self {
            address: address.parse().with_context(|| address.to_owned())?,
            authorization: format!("Bearer {token}"),
            tls: ca_der.map(connector).transpose()?,
        })
    }

    /// One connection.
    pub(crate) async fn connect(&self) -> anyhow::Result<Connection> {
        let stream = TcpStream::connect(self.address).await?;
        stream.set_nodelay(true)?;
        let stream: Box<dyn Stream> = match &self.tls {
            None => Box::new(stream),
            Some(tls) => Box::new(tls.connect(ServerName::from(self.address.ip()), stream).await?),
        };
        let headers = format!("host: {}\r\nauthorization: {}", self.address, self.authorization);
        Ok(Connection { stream, headers, out: Vec::new(), input: Vec::new(), body: Vec::new() })
    }
}

/// Plain or TLS.
trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Stream for S {}

/// A request to be made.
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) content_type: &'static str,
    pub(crate) body: String,
}

impl Call {
    fn get(path: &str) -> Self {
        Self { method: Method::GET, path: path.to_owned(), content_type: "application/json", body: String::new() }
    }
}

/// A connection that waits for each answer.
pub(crate) struct Connection {
    stream: Box<dyn Stream>,
    headers: String,
    out: Vec<u8>,
    /// What was read; only what belongs to the present answer.
    input: Vec<u8>,
    /// Of the last answer.
    body: Vec<u8>,
}

/// How long an answer's body is.
enum Length {
    Known(usize),
    Chunked,
}

impl Connection {
    /// Sends a request; gives back the answer's body.
    pub(crate) async fn call(&mut self, call: &Call) -> anyhow::Result<&[u8]> {
        let Call { method, path, content_type, body } = call;
        let code =
            self.exchange(call).await.with_context(|| format!("{method} {path} ({content_type}, {body:.40})"))?;
        ensure!((200..300).contains(&code), "{method} {path}: {code}: {}", String::from_utf8_lossy(&self.body));
        Ok(&self.body)
    }

    /// GET: the body, and how long it took until its last byte.
    pub(crate) async fn get(&mut self, path: &str) -> anyhow::Result<(&[u8], Duration)> {
        let start = Instant::now();
        let body = self.call(&Call::get(path)).await?;
        Ok((body, start.elapsed()))
    }

    /// Sends a request and reads the head of its answer; where that ends in the input.
    async fn ask(&mut self, call: &Call) -> anyhow::Result<usize> {
        let Call { method, path, content_type, body } = call;
        self.out.clear();
        write!(self.out, "{method} {path} HTTP/1.1\r\n{}\r\ncontent-type: {content_type}\r\n", self.headers)?;
        write!(self.out, "content-length: {}\r\n\r\n{body}", body.len())?;
        self.stream.write_all(&self.out).await?;
        self.stream.flush().await?;
        self.input.clear();
        self.body.clear();
        self.until(0, b"\r\n\r\n", MAX_HEAD_BYTES).await
    }

    async fn exchange(&mut self, call: &Call) -> anyhow::Result<u16> {
        let head = self.ask(call).await?;
        let text = std::str::from_utf8(&self.input[..head])?;
        let code = code(text)?;
        match length(text)? {
            Length::Known(length) => {
                ensure!(length <= MAX_BODY_BYTES, "a body of {length} bytes");
                while self.input.len() < head + length {
                    self.read(head + length - self.input.len()).await?;
                }
                self.body.extend_from_slice(&self.input[head..]);
            }
            Length::Chunked => self.chunks(head).await?,
        }
        Ok(code)
    }

    /// Reads chunks up to the last, from `at` on; trailers aren't used by either server.
    async fn chunks(&mut self, mut at: usize) -> anyhow::Result<()> {
        while self.chunk(at).await? {
            ensure!(self.body.len() <= MAX_BODY_BYTES, "a body of more than {MAX_BODY_BYTES} bytes");
            at = 0;
        }
        Ok(())
    }

    /// Reads one chunk, which begins at `at`, behind the body; whether it wasn't the last.
    async fn chunk(&mut self, at: usize) -> anyhow::Result<bool> {
        let line = self.until(at, b"\r\n", MAX_HEAD_BYTES).await?;
        let size = std::str::from_utf8(&self.input[at..line - 2])?;
        let size = usize::from_str_radix(size, 16).with_context(|| format!("chunk of {size:?}"))?;
        ensure!(size <= MAX_BODY_BYTES, "a chunk of more than {MAX_BODY_BYTES} bytes");
        while self.input.len() < line + size + 2 {
            self.read(line + size + 2 - self.input.len()).await?;
        }
        self.body.extend_from_slice(&self.input[line..line + size]);
        // What is done with needn't be kept.
        self.input.drain(..line + size + 2);
        Ok(size > 0)
    }

    /// GETs what has no end, such as a watch, and tells `each` of every line.
    ///
    /// # Errors
    /// Always in the end: the server ended it, or `each` did.
    pub(crate) async fn follow(
        mut self,
        path: &str,
        mut each: impl FnMut(&[u8]) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let head = self.ask(&Call::get(path)).await?;
        let text = std::str::from_utf8(&self.input[..head])?;
        ensure!(code(text)? == 200 && matches!(length(text)?, Length::Chunked), "GET {path}: {text}");
        let mut at = head;
        while self.chunk(at).await? {
            at = 0;
            while let Some(end) = self.body.iter().position(|byte| *byte == b'\n') {
                each(&self.body[..end])?;
                self.body.drain(..=end);
            }
        }
        bail!("GET {path}: the server ended it")
    }

    /// Reads until `end` has come, from `at` on; the place behind it.
    async fn until(&mut self, at: usize, end: &[u8], most: usize) -> anyhow::Result<usize> {
        loop {
            let found = self.input[at..].windows(end.len()).position(|window| window == end);
            if let Some(found) = found {
                return Ok(at + found + end.len());
            }
            ensure!(self.input.len() - at <= most, "no end within {most} bytes");
            self.read(READ_BYTES).await?;
        }
    }

    async fn read(&mut self, wanted: usize) -> anyhow::Result<()> {
        self.input.reserve(wanted.max(READ_BYTES));
        ensure!(self.stream.read_buf(&mut self.input).await? > 0, "the server closed the connection");
        Ok(())
    }
}

fn code(head: &str) -> anyhow::Result<u16> {
    Ok(head.split(' ').nth(1).context("no code")?.parse()?)
}

fn length(head: &str) -> anyhow::Result<Length> {
    for line in head.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        if name.eq_ignore_ascii_case("content-length") {
            return Ok(Length::Known(value.trim().parse()?));
        }
        if name.eq_ignore_ascii_case("transfer-encoding") && value.trim() == "chunked" {
            return Ok(Length::Chunked);
        }
    }
    bail!("an answer without a length: {head}")
}

/// What many calls came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Figures {
    /// Calls per second.
    pub(crate) rate: f64,
    /// CPU time of the server's processes per call.
    pub(crate) server_cpu: Duration,
    /// CPU time of this process per call.
    pub(crate) load_cpu: Duration,
    /// Share of one core that this process used; it has one.
    pub(crate) load_share: f64,
}

/// Makes `count` calls over [`CONNECTIONS`]; `processes` are the server's.
pub(crate) async fn run(
    target: &Target,
    processes: &[u32],
    count: usize,
    make: impl Fn(usize) -> Call,
) -> anyhow::Result<Figures> {
    drive(target, processes, count, async |connection, number| connection.call(&make(number)).await.map(|_| ())).await
}

/// Does `count` pieces of work over [`CONNECTIONS`], each on one of them; `processes` are the server's.
pub(crate) async fn drive(
    target: &Target,
    processes: &[u32],
    count: usize,
    work: impl AsyncFn(&mut Connection, usize) -> anyhow::Result<()>,
) -> anyhow::Result<Figures> {
    ensure!(count > 0, "nothing to do");
    let mut connections = Vec::with_capacity(CONNECTIONS);
    for _ in 0..CONNECTIONS {
        connections.push(target.connect().await?);
    }
    let cpu = || -> anyhow::Result<(Duration, Duration)> {
        let mut server = Duration::ZERO;
        for process in processes {
            server += usage::cpu(*process)?;
        }
        Ok((server, usage::cpu(std::process::id())?))
    };
    let (server_before, load_before) = cpu()?;
    let start = Instant::now();
    let (next, work) = (Cell::new(0), &work);
    let workers = connections.into_iter().map(async |mut connection| {
        loop {
            let number = next.replace(next.get() + 1);
            if number >= count {
                return anyhow::Ok(());
            }
            work(&mut connection, number).await?;
        }
    });
    try_join_all(workers).await?;
    let took = start.elapsed();
    let (server_after, load_after) = cpu()?;
    let calls = u32::try_from(count)?;
    let load = load_after - load_before;
    Ok(Figures {
        rate: f64::from(calls) / took.as_secs_f64(),
        server_cpu: (server_after - server_before) / calls,
        load_cpu: load / calls,
        load_share: load.as_secs_f64() / took.as_secs_f64(),
    })
}
