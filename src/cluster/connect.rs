//! From a kubeconfig or a pod's service account to a connected client.
//!
//! Never retries: `kube`'s own retry layer is off, because a write is repeated by the queue or not at all.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use kube::config::{KubeConfigOptions, Kubeconfig};

use crate::Error;

/// A TCP connection to the API server is made within this time.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Makes a client.
pub type Another = Arc<dyn Fn() -> Result<kube::Client, Error> + Send + Sync>;

/// How to reach the API server.
pub struct Connection {
    /// The client.
    pub client: kube::Client,
    /// Makes another client with connections of its own, on the runtime that it is called on.
    pub another: Another,
    /// Host of the API server's URL.
    pub host: String,
    /// Port of the API server's URL.
    pub port: u16,
}

impl Connection {
    /// The API server's addresses, as far as its name resolves now.
    pub async fn addresses(&self) -> Vec<SocketAddr> {
        let host = self.host.trim_matches(['[', ']']);
        match tokio::time::timeout(CONNECT_TIMEOUT, tokio::net::lookup_host((host, self.port))).await {
            Ok(Ok(found)) => found.collect(),
            Ok(Err(_)) | Err(_) => Vec::new(),
        }
    }
}

/// Whether this process runs in a pod.
#[must_use]
fn in_cluster() -> bool {
    std::env::var_os("KUBERNETES_SERVICE_HOST").is_some()
}

/// Connects: by `kubeconfig` if it is given, else by the pod's service account, else by `$KUBECONFIG` or
/// `~/.kube/config`.
///
/// # Errors
/// If no configuration is found or it can't be used.
pub async fn connect(kubeconfig: Option<&Path>) -> Result<Connection, Error> {
    let problem = |what: String| Error::Configuration(what);
    let options = KubeConfigOptions::default();
    let mut config = match kubeconfig {
        Some(path) => {
            let name = path.display();
            let file = Kubeconfig::read_from(path).map_err(|error| problem(format!("kubeconfig {name}: {error}")))?;
            kube::Config::from_custom_kubeconfig(file, &options)
                .await
                .map_err(|error| problem(format!("kubeconfig {name}: {error}")))?
        }
        None if in_cluster() => {
            kube::Config::incluster().map_err(|error| problem(format!("service account: {error}")))?
        }
        None => kube::Config::from_kubeconfig(&options).await.map_err(|error| {
            problem(format!("no cluster: not in a pod, and no usable kubeconfig ({error}); set --kubeconfig"))
        })?,
    };
    config.default_retry = false;
    config.connect_timeout = Some(CONNECT_TIMEOUT);
    let agent = concat!("ringmaster/", env!("CARGO_PKG_VERSION"));
    config.headers.push((http::header::USER_AGENT, http::HeaderValue::from_static(agent)));
    let host = config.cluster_url.host().unwrap_or_default().to_owned();
    let port = config.cluster_url.port_u16().unwrap_or(443);
    let another: Another = Arc::new(move || {
        kube::Client::try_from(config.clone()).map_err(|error| Error::Configuration(error.to_string()))
    });
    Ok(Connection { client: another()?, another, host, port })
}
