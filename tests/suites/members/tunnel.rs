//! A TCP proxy between one member and the API server: it passes bytes on, breaks connections, or goes silent.
//!
//! Never reads what it passes: TLS goes through it from end to end.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Context as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;

/// Read at once at most, in bytes.
const CHUNK_BYTES: usize = 64 << 10;

/// What it does with connections, open and new.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// Passes bytes on, both ways.
    Pass,
    /// Breaks every connection at once.
    Drop,
    /// Accepts, and holds all bytes back, both ways. What is held goes on when it passes again.
    Silent,
}

/// A running one. Dropping it breaks its connections.
pub(crate) struct Tunnel {
    address: SocketAddr,
    way: watch::Sender<Way>,
    task: JoinHandle<()>,
}

impl Tunnel {
    /// Listens on a free loopback port, and leads to `upstream` (`127.0.0.1:port`).
    ///
    /// # Errors
    /// There is no port.
    pub(crate) async fn start(upstream: &str) -> anyhow::Result<Self> {
        let upstream: SocketAddr = upstream.parse().with_context(|| upstream.to_owned())?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let way = watch::Sender::new(Way::Pass);
        let ways = way.subscribe();
        let task = tokio::spawn(async move {
            // Connections end with their set, and it with this task.
            let mut open = tokio::task::JoinSet::new();
            loop {
                tokio::select! {
                    accepted = listener.accept() => {
                        if let Ok((stream, _)) = accepted {
                            open.spawn(connection(stream, upstream, ways.clone()));
                        }
                    }
                    Some(_) = open.join_next() => {}
                }
            }
        });
        Ok(Self { address, way, task })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Does so from now on.
    pub(crate) fn set(&self, way: Way) {
        self.way.send_replace(way);
    }
}

impl Drop for Tunnel {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// One connection until either end closes it, or it is broken.
async fn connection(client: TcpStream, upstream: SocketAddr, mut ways: watch::Receiver<Way>) {
    // Without lingering, so that a break is a reset, as from a firewall that rejects.
    let _ = client.set_zero_linger();
    if passes(&mut ways).await.is_none() {
        return;
    }
    let Ok(server) = TcpStream::connect(upstream).await else { return };
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    let ((from_client, to_client), (from_server, to_server)) = (client.into_split(), server.into_split());
    // Whichever ends first ends both.
    tokio::select! {
        () = pump(from_client, to_server, ways.clone()) => {}
        () = pump(from_server, to_client, ways) => {}
    }
}

/// Waits until bytes may pass; `None` when the connection is to be broken.
async fn passes(ways: &mut watch::Receiver<Way>) -> Option<()> {
    match *ways.wait_for(|way| *way != Way::Silent).await.ok()? {
        Way::Drop => None,
        Way::Pass | Way::Silent => Some(()),
    }
}

async fn pump(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    mut ways: watch::Receiver<Way>,
) {
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let read = tokio::select! {
            read = from.read(&mut chunk) => read,
            _ = ways.wait_for(|way| *way == Way::Drop) => return,
        };
        let Ok(length @ 1..) = read else { return };
        if passes(&mut ways).await.is_none() || to.write_all(&chunk[..length]).await.is_err() {
            return;
        }
    }
}
