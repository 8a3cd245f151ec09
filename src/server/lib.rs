//! HTTP in: health probes and metrics, over plain HTTP/1.1.
//!
//! Strangers can reach these ports, so everything is bounded: connections, their lifetime, and what a request may be.
//! Only GET without a body is answered. Nothing here changes the process's state, and nothing is ever called out to.
#![cfg_attr(test, allow(clippy::unwrap_used, clippy::panic, clippy::disallowed_methods))]

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::HttpBody as _;
use axum::extract::Request;
use axum::http::{HeaderValue, Method, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

mod connection;
mod health;
mod metrics;

#[cfg(test)]
mod tests;

pub use health::{Health, MAX_REASON_BYTES};
pub use metrics::{Error as MetricsError, MAX_METRICS_BYTES, Metrics};

/// Most connections at once, and so most requests: each connection serves one. More of them wait to be accepted.
pub const MAX_CONNECTIONS: usize = 64;
/// Longest time from accepting a connection to the end of its answer; then it is cut.
pub const CONNECTION_LIFETIME: Duration = Duration::from_secs(15);
/// Longest time that an answer may take to make.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// How long connections may finish once the server is to stop.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(2);

/// What can go wrong with the server.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address can't be listened at.
    #[error("cannot listen at {address}; choose another address, or 0 to turn it off")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Serving ended by itself.
    #[error("the server at {address} ended")]
    Serve {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
}

impl Error {
    /// Somebody else listens there.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Self::Bind { source, .. } if source.kind() == io::ErrorKind::AddrInUse)
    }
}

/// A server that listens; it answers once [`Server::run`] runs. Without health and metrics it knows no path.
#[derive(Debug)]
pub struct Server {
    listener: TcpListener,
    address: SocketAddr,
    routes: Router,
}

impl Server {
    /// Listens at an address; port 0 takes a free one. The IPv6 wildcard takes IPv4 too, and becomes the IPv4 wildcard
    /// on a machine without IPv6.
    ///
    /// # Errors
    /// When the address is in use, not this machine's, or not allowed.
    pub async fn bind(address: SocketAddr) -> Result<Server, Error> {
        let fail = |source| Error::Bind { address, source };
        let listener = match TcpListener::bind(address).await {
            Ok(listener) => listener,
            Err(source) if may_lack_ipv6(address, &source) => {
                let v4 = SocketAddr::from((Ipv4Addr::UNSPECIFIED, address.port()));
                // The first error is about the address that was asked for.
                TcpListener::bind(v4).await.map_err(|_| fail(source))?
            }
            Err(source) => return Err(fail(source)),
        };
        let address = listener.local_addr().map_err(fail)?;
        Ok(Server { listener, address, routes: Router::new() })
    }

    /// Serves `/healthz` and `/readyz`. Call it at most once.
    #[must_use]
    pub fn with_health(mut self, health: Health) -> Server {
        self.routes = self.routes.merge(health.routes());
        self
    }

    /// Serves `/metrics`. Call it at most once.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Metrics) -> Server {
        self.routes = self.routes.merge(metrics.routes());
        self
    }

    /// Where it listens, with the real port.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// Answers until `stop` is cancelled, and then lets connections finish for [`SHUTDOWN_GRACE`].
    ///
    /// # Errors
    /// When serving ends by itself.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Error> {
        let Server { listener, address, routes } = self;
        let listener =
            connection::Listener::new(listener, Arc::new(Semaphore::new(MAX_CONNECTIONS)), CONNECTION_LIFETIME);
        let routes = routes.layer(middleware::from_fn(limits));
        let serve = axum::serve(listener, routes).with_graceful_shutdown(stop.clone().cancelled_owned());
        let overdue = async {
            stop.cancelled().await;
            tokio::time::sleep(SHUTDOWN_GRACE).await;
        };
        tokio::select! {
            ended = serve => ended.map_err(|source| Error::Serve { address, source }),
            () = overdue => Ok(()),
        }
    }
}

/// Whether binding failed in a way that a machine without IPv6 shows. `socket` and `bind` fail differently there, by
/// how IPv6 was turned off, so only the errors that surely mean something else are told apart.
fn may_lack_ipv6(address: SocketAddr, error: &io::Error) -> bool {
    let other = matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied);
    address.is_ipv6() && address.ip().is_unspecified() && !other
}

/// What every request is held to.
async fn limits(request: Request, next: Next) -> Response {
    let mut response = if request.method() != Method::GET {
        (StatusCode::METHOD_NOT_ALLOWED, [(header::ALLOW, "GET")], "only GET").into_response()
    } else if !request.body().is_end_stream() {
        (StatusCode::PAYLOAD_TOO_LARGE, "a request must have no body").into_response()
    } else {
        match tokio::time::timeout(REQUEST_TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => (StatusCode::SERVICE_UNAVAILABLE, "too slow").into_response(),
        }
    };
    // One request for each connection, so that an idle one never holds a place.
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}
