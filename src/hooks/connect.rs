//! Connections to webhooks: one endpoint's address is resolved, checked and connected to; Host and SNI stay the URL's.
//!
//! Never connects to what the policy forbids, and never speaks HTTP.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Uri;
use http::uri::Scheme;
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder, MaybeHttpsStream};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::ClientConfig;
use tokio::net::TcpStream;

use crate::caller::{ConnectStep, Steps};
use crate::client::MAX_HEADER_BYTES;
use crate::resolve::resolve;
use crate::{Error, Overrides, Policy};

/// An idle connection is closed after this long, before most servers would close it under us.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// By HTTP/2 it is asked this often whether the other side is still there while calls run, and given up without an answer
/// within [`PING_TIMEOUT`].
const PING_INTERVAL: Duration = Duration::from_secs(5);
const PING_TIMEOUT: Duration = Duration::from_secs(5);

/// An HTTP client of one endpoint.
pub(crate) type HttpClient = Client<Limited, Full<Bytes>>;

/// A client that keeps up to `idle` connections that nobody uses. HTTP/2 where the other side offers it by ALPN.
pub(crate) fn client(connector: Connector, tls: &ClientConfig, idle: usize) -> HttpClient {
    let within = connector.within;
    let inner = HttpsConnectorBuilder::new()
        .with_tls_config(tls.clone())
        .https_or_http()
        .enable_http1()
        .enable_http2()
        .wrap_connector(connector);
    Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(idle)
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_timer(TokioTimer::new())
        .timer(TokioTimer::new())
        .http1_max_buf_size(MAX_HEADER_BYTES)
        .http2_max_header_list_size(u32::try_from(MAX_HEADER_BYTES).unwrap_or(u32::MAX))
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        .build(Limited { inner, within })
}

/// Connections, TLS with them, within a limit: one that hangs in its handshake is no connection.
#[derive(Clone)]
pub(crate) struct Limited {
    inner: HttpsConnector<Connector>,
    within: Duration,
}

impl tower_service::Service<Uri> for Limited {
    type Response = MaybeHttpsStream<Stream>;
    type Error = Box<dyn std::error::Error + Send + Sync>;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Self::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let steps = tls_steps(&uri);
        let (connecting, within) = (self.inner.call(uri), self.within);
        Box::pin(async move {
            let made = tokio::time::timeout(within, connecting).await.unwrap_or_else(|_| {
                let problem = format!("no connection within {within:?}, TLS with it");
                Err(ConnectError(Error::Connect { problem, refused: false }).into())
            });
            if let Some(steps) = steps.filter(|_| made.is_ok()) {
                steps.note(ConnectStep::TlsDone);
            }
            made
        })
    }
}

/// The steps of the try that a connection is made for, if it is one by TLS.
fn tls_steps(uri: &Uri) -> Option<Arc<Steps>> {
    Steps::present().filter(|_| uri.scheme() == Some(&Scheme::HTTPS))
}

/// Resolves once, checks, connects to what was checked: always to the same endpoint, whatever the URL names.
#[derive(Clone)]
pub(crate) struct Connector {
    pub(crate) policy: Arc<Policy>,
    pub(crate) overrides: Arc<Overrides>,
    /// Name or address, and port.
    pub(crate) host: Arc<str>,
    pub(crate) port: u16,
    /// A connection is made within this time, TLS with it, or the call's deadline if that is sooner.
    pub(crate) within: Duration,
}

/// What [`Connector`] says, findable among the causes of a client's error.
#[derive(Debug, thiserror::Error)]
#[error(transparent)]
pub(crate) struct ConnectError(pub(crate) Error);

impl tower_service::Service<Uri> for Connector {
    type Response = Stream;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Stream, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let (connector, steps, tls) = (self.clone(), Steps::present(), tls_steps(&uri));
        Box::pin(async move {
            let made = connector.connect(steps.as_deref()).await.map_err(ConnectError);
            // What follows on it.
            if let Some(tls) = tls.filter(|_| made.is_ok()) {
                tls.note(ConnectStep::TlsStart);
            }
            made
        })
    }
}

impl Connector {
    async fn connect(&self, steps: Option<&Steps>) -> Result<Stream, Error> {
        let failed = |problem: String, refused| Error::Connect { problem, refused };
        let work = async {
            let addresses = resolve(&self.host, self.port, &self.overrides, &self.policy, steps).await?;
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
        tokio::time::timeout(self.within, work)
            .await
            .unwrap_or_else(|_| Err(failed(format!("no connection within {:?}", self.within), false)))
    }
}

/// A plain connection; what `hyper-util` wants to know of it is nothing.
pub(crate) struct Stream(TokioIo<TcpStream>);

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
