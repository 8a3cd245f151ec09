//! The API server of one person: on loopback, with a token, a kubeconfig, and objects that may outlive it in a file.
//!
//! Never listens elsewhere than on loopback, and never overwrites a file of objects but by a whole new one.

use std::fs;
use std::io::{self, BufReader, BufWriter, Write as _};
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use ringmaster_apiserver::auth::{User, Users};
use ringmaster_apiserver::clock::wall_clock;
use ringmaster_apiserver::http::{Front, ServeError};
use ringmaster_apiserver::saved;
use ringmaster_apiserver::server::ApiServer;
use ringmaster_apiserver::service::InProcess;
use ringmaster_apiserver::store::Limits;
use ringmaster_apiserver::tls::{self, Certificate, TlsListener};
use ringmaster_engine::Connection;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What the server calls itself in the kubeconfig and its certificate.
const NAME: &str = "ringmaster-dev";

/// Why the server can't start or end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is not loopback.
    #[error("--listen {0}: not a loopback address; give 127.0.0.1:PORT or [::1]:PORT")]
    NotLoopback(SocketAddr),
    /// The address can't be had.
    #[error("--listen {address}: choose another address, or port 0 for a free one")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// There is no certificate.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// Serving ended by itself.
    #[error(transparent)]
    Serve(#[from] ServeError),
    /// The task that serves failed.
    #[error("serving the embedded API server")]
    Task(#[from] tokio::task::JoinError),
    /// A file can't be read or written.
    #[error("{flag} {}", path.display())]
    File {
        /// The flag that names it.
        flag: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file of objects isn't one.
    #[error("--state {}", path.display())]
    State {
        /// The file.
        path: PathBuf,
        /// Why.
        source: saved::Error,
    },
}

/// Where everything is.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// Where to listen; port 0 takes a free one.
    pub(crate) listen: SocketAddr,
    /// Where the kubeconfig is written.
    pub(crate) kubeconfig: PathBuf,
    /// Where objects are kept between runs.
    pub(crate) state: Option<PathBuf>,
}

/// A running server.
pub(crate) struct Local {
    front: Front,
    address: SocketAddr,
    kubeconfig: PathBuf,
    /// What we wrote there.
    text: String,
    state: Option<PathBuf>,
    /// How many objects came from the file.
    loaded: bool,
    cancel: CancellationToken,
    serving: JoinHandle<Result<(), ServeError>>,
    work: JoinHandle<()>,
}

impl Local {
    /// Starts it, with the objects of the file if there is one, and writes the kubeconfig.
    pub(crate) async fn start(place: Place) -> Result<Self, Error> {
        let Place { listen, kubeconfig, state } = place;
        if !listen.ip().is_loopback() {
            return Err(Error::NotLoopback(listen));
        }
        let refused = |source| Error::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        let saved = state.as_deref().map(open).transpose()?.flatten();
        let loaded = saved.is_some();
        let (server, work) = match (saved, &state) {
            (Some(file), Some(path)) => {
                let bad = |source| Error::State { path: path.clone(), source };
                let (server, work) =
                    ApiServer::load(&mut BufReader::new(file), Limits::default(), wall_clock()).map_err(bad)?;
                (server, tokio::spawn(work))
            }
            _ => {
                let (server, work) = ApiServer::new(Limits::default(), wall_clock());
                (server, tokio::spawn(work))
            }
        };
        let token = format!("{:032x}", fastrand::u128(..));
        let mut users = Users::default();
        users.insert(&token, User::new("admin", &["system:masters"]));
        let front = Front::new(server, users, None);
        let kubeconfig = std::path::absolute(&kubeconfig).unwrap_or(kubeconfig);
        let certificate = Certificate::for_loopback(NAME)?;
        let text = config(address, &certificate.authority, &token);
        write_private(&kubeconfig, &text).map_err(|source| Error::File {
            flag: "--write-kubeconfig",
            path: kubeconfig.clone(),
            source,
        })?;
        let cancel = CancellationToken::new();
        let listener = TlsListener::new(listener, &certificate)?;
        let serving = tokio::spawn(front.clone().serve(listener, cancel.clone()));
        Ok(Self { front, address, kubeconfig, text, state, loaded, cancel, serving, work })
    }

    /// Its address.
    pub(crate) fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Where its kubeconfig is.
    pub(crate) fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Whether it has the objects of an earlier run.
    pub(crate) fn is_loaded(&self) -> bool {
        self.loaded
    }

    /// A client in this process, as an administrator.
    pub(crate) fn client(&self) -> kube::Client {
        kube::Client::new(InProcess::new(self.front.clone(), User::admin()), "default")
    }

    /// The same for the engine.
    pub(crate) fn connection(&self) -> Connection {
        Connection { client: self.client(), host: self.address.ip().to_string(), port: self.address.port() }
    }

    /// Ends it: connections are cut, objects saved, the kubeconfig removed if it is still ours.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        self.cancel.cancel();
        let served = self.serving.await;
        if fs::read_to_string(&self.kubeconfig).is_ok_and(|text| text == self.text) {
            // Whoever looks for it finds it only while there is a server behind it.
            let _ = fs::remove_file(&self.kubeconfig);
        }
        if let Some(path) = &self.state {
            save(self.front.server(), path).map_err(|source| Error::File {
                flag: "--state",
                path: path.clone(),
                source,
            })?;
        }
        self.work.abort();
        Ok(served??)
    }
}

fn open(path: &Path) -> Result<Option<fs::File>, Error> {
    match fs::File::open(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(Error::File { flag: "--state", path: path.to_owned(), source }),
    }
}

/// A new file takes the old one's place only when it is whole.
fn save(server: &ApiServer, path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."));
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    let mut out = BufWriter::new(file.as_file_mut());
    server.save(&mut out)?;
    out.flush()?;
    drop(out);
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Only its owner may read it: it holds a token.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    fs::write(path, "")?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    fs::write(path, text)
}

/// A kubeconfig with one context; JSON, which is YAML.
fn config(address: SocketAddr, authority: &str, token: &str) -> String {
    let authority = BASE64.encode(authority);
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": NAME,
        "clusters": [{ "name": NAME, "cluster": {
            "server": format!("https://{address}"), "certificate-authority-data": authority } }],
        "users": [{ "name": NAME, "user": { "token": token } }],
        "contexts": [{ "name": NAME, "context": { "cluster": NAME, "user": NAME } }],
    });
    format!("{config:#}\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::objects::Objects;

    fn place(dir: &Path) -> Place {
        Place {
            listen: ([127, 0, 0, 1], 0).into(),
            kubeconfig: dir.join("kubeconfig"),
            state: Some(dir.join("objects")),
        }
    }

    #[tokio::test]
    async fn objects_outlive_it_in_the_file_and_the_kubeconfig_goes() {
        let dir = tempfile::tempdir().unwrap();
        let local = Local::start(place(dir.path())).await.unwrap();
        assert!(!local.is_loaded());
        let mode = fs::metadata(local.kubeconfig()).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let object =
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": { "k": "v" } });
        let made = Objects::new(local.client()).apply(&object).await.unwrap();
        local.stop().await.unwrap();
        assert!(!dir.path().join("kubeconfig").exists());

        let local = Local::start(place(dir.path())).await.unwrap();
        assert!(local.is_loaded());
        let path = "/api/v1/namespaces/default/configmaps/a";
        assert_eq!(Objects::new(local.client()).get(path).await.unwrap(), Some(made));
        local.stop().await.unwrap();
    }

    #[tokio::test]
    async fn strangers_and_other_files_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let beyond = Place { listen: ([0, 0, 0, 0], 0).into(), ..place(dir.path()) };
        assert!(matches!(Local::start(beyond).await.err(), Some(Error::NotLoopback(_))));
        fs::write(dir.path().join("objects"), "something else\n").unwrap();
        assert!(matches!(Local::start(place(dir.path())).await.err(), Some(Error::State { .. })));
        // What could not be read is not overwritten.
        assert_eq!(fs::read_to_string(dir.path().join("objects")).unwrap(), "something else\n");
    }
}
