//! The embedded API server as a backend of the suites: in this process, on a runtime of its own, at a fixed port.
//!
//! Never a mock: requests go over a socket, with tokens, RBAC and an audit log, as at the real server.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use axum::Router;
use axum::body::Body;
use http::Request;
use ringmaster_apiserver::audit::Audit;
use ringmaster_apiserver::auth::{User, Users};
use ringmaster_apiserver::clock::wall_clock;
use ringmaster_apiserver::http::Front;
use ringmaster_apiserver::server::ApiServer;
use ringmaster_apiserver::store::Limits;
use ringmaster_apiserver::tls::{Certificate, TlsListener};
use tokio::net::TcpListener;
use tokio::runtime::Runtime;
use tokio::sync::watch;

use crate::server::Pki;

/// Threads of each of its runtimes.
const WORKERS: usize = 2;
/// How long its address may stay taken by the listener before.
const REBIND: Duration = Duration::from_secs(5);
/// How often that is looked at.
const POLL: Duration = Duration::from_millis(5);

/// A running embedded server.
pub(crate) struct Embedded {
    /// Of the server itself; garbage is collected on it.
    runtime: Runtime,
    front: Front,
    certificate: Certificate,
    address: SocketAddr,
    /// Of the connections: they end with it.
    serving: Option<Runtime>,
    /// Requests wait while this is set.
    frozen: watch::Sender<bool>,
}

impl Embedded {
    /// Starts it with these users (name, token, group), its audit log in a file, and a certificate.
    ///
    /// # Errors
    /// No port or no file is to be had.
    pub(crate) fn start(
        users: &[(String, String, String)],
        audit: &Path,
        pki: &Pki,
        limits: Limits,
    ) -> anyhow::Result<Self> {
        let runtime = new_runtime()?;
        let mut known = Users::default();
        for (name, token, group) in users {
            known.insert(token, User { uid: name.clone(), ..User::new(name, &[group]) });
        }
        let (server, work) = ApiServer::new(limits, wall_clock());
        runtime.spawn(work);
        let front = Front::new(server, known, Some(Audit::to_file(audit)?));
        let address = ([127, 0, 0, 1], 0).into();
        let certificate = Certificate {
            authority: std::fs::read_to_string(&pki.ca_file)?,
            certificate: std::fs::read_to_string(&pki.cert_file)?,
            key: std::fs::read_to_string(&pki.key_file)?,
        };
        let mut embedded =
            Self { runtime, certificate, front, address, serving: None, frozen: watch::Sender::new(false) };
        embedded.start_api()?;
        Ok(embedded)
    }

    /// Its address, `https://127.0.0.1:port`.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Serves, at the address that it had before if it had one.
    pub(crate) fn start_api(&mut self) -> anyhow::Result<()> {
        ensure!(self.serving.is_none(), "the API server runs");
        let listener = self.listen()?;
        self.address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let (front, frozen) = (self.front.clone(), self.frozen.clone());
        let app = Router::new().fallback(move |request: Request<Body>| {
            let (front, mut thawed) = (front.clone(), frozen.subscribe());
            async move {
                // The sender lives as long as the server does.
                let _ = thawed.wait_for(|frozen| !frozen).await;
                front.answer(request).await
            }
        });
        let serving = new_runtime()?;
        let listener = {
            let _inside = serving.enter();
            TlsListener::new(TcpListener::from_std(listener)?, &self.certificate)?
        };
        serving.spawn(async move { axum::serve(listener, app).await });
        self.serving = Some(serving);
        Ok(())
    }

    /// Serves no longer, and cuts all connections; its objects stay.
    pub(crate) fn stop_api(&mut self) {
        self.frozen.send_replace(false);
        if let Some(serving) = self.serving.take() {
            serving.shutdown_background();
        }
    }

    /// Answers nothing while frozen; connections stay.
    pub(crate) fn freeze(&self, frozen: bool) {
        self.frozen.send_replace(frozen);
    }

    /// The old listener goes with its runtime, which ends in the background.
    fn listen(&self) -> anyhow::Result<std::net::TcpListener> {
        let start = Instant::now();
        loop {
            match std::net::TcpListener::bind(self.address) {
                Ok(listener) => return Ok(listener),
                Err(error) if start.elapsed() > REBIND => return Err(error).context("listen"),
                Err(_) => std::thread::sleep(POLL),
            }
        }
    }
}

impl Drop for Embedded {
    fn drop(&mut self) {
        self.stop_api();
        // A runtime can't be dropped where another one runs, unless it needn't wait.
        if let Ok(empty) = tokio::runtime::Builder::new_current_thread().build() {
            std::mem::replace(&mut self.runtime, empty).shutdown_background();
        }
    }
}

fn new_runtime() -> std::io::Result<Runtime> {
    tokio::runtime::Builder::new_multi_thread().worker_threads(WORKERS).enable_all().build()
}
