//! The API server of one person: on loopback, with a token, a kubeconfig, and objects that may outlive it in a file.
//!
//! Never listens elsewhere than on loopback, never overwrites a file of objects but by a whole new one, and never a
//! kubeconfig that isn't its own.

use std::fs::{self, File, TryLockError};
use std::io::{self, BufReader, BufWriter, Write as _};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as BASE64;
use ringmaster_apiserver::auth::{User, Users};
use ringmaster_apiserver::clock::wall_clock;
use ringmaster_apiserver::http::{Front, ServeError};
use ringmaster_apiserver::saved;
use ringmaster_apiserver::server::ApiServer;
use ringmaster_apiserver::service::InProcess;
use ringmaster_apiserver::store::Limits;
use ringmaster_apiserver::tls::{self, Certificate, TlsListener, random_bits};
use ringmaster_engine::Connection;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// What the server calls itself in the kubeconfig and its certificate.
const NAME: &str = "ringmaster-dev";
/// Another session answers within this time, or isn't there.
const ANSWER: Duration = Duration::from_millis(500);

/// Why the server can't start or end well.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The address is not one that the certificate is for.
    #[error("--listen {0}: give 127.0.0.1:PORT or [::1]:PORT")]
    NotLoopback(SocketAddr),
    /// The kubeconfig is somebody else's.
    #[error("--write-kubeconfig {}: a file that `ringmaster` didn't write is there; name another one", .0.display())]
    NotOurs(PathBuf),
    /// The kubeconfig is another session's.
    #[error("--write-kubeconfig {}: another session answers at the address in it ({address}); end it, or name another file", path.display())]
    Busy {
        /// The file.
        path: PathBuf,
        /// The other session's.
        address: String,
    },
    /// The objects are another session's.
    #[error("--state {}: another session uses it", .0.display())]
    Locked(PathBuf),
    /// The objects could not be saved where they should be.
    #[error("--state {}: {why}; the objects are in {} instead", path.display(), instead.display())]
    SavedElsewhere {
        /// Where they should be.
        path: PathBuf,
        /// Why they aren't.
        why: io::Error,
        /// Where they are.
        instead: PathBuf,
    },
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
    /// What is written there, once [`Local::publish`] is called.
    text: String,
    state: Option<State>,
    /// Whether objects came from the file.
    loaded: bool,
    cancel: CancellationToken,
    serving: JoinHandle<Result<(), ServeError>>,
    work: JoinHandle<()>,
}

/// Where objects are kept, locked against other sessions.
struct State {
    path: PathBuf,
    /// Holds the lock.
    file: File,
}

impl Local {
    /// Starts it, with the objects of the file if there are any. Nobody finds it before [`Local::publish`].
    pub(crate) async fn start(place: Place) -> Result<Self, Error> {
        let Place { listen, kubeconfig, state } = place;
        check_listen(listen)?;
        let kubeconfig = std::path::absolute(&kubeconfig).unwrap_or(kubeconfig);
        let state = state.map(State::open).transpose()?;
        let refused = |source| Error::Listen { address: listen, source };
        let listener = TcpListener::bind(listen).await.map_err(refused)?;
        let address = listener.local_addr().map_err(refused)?;
        clear(&kubeconfig).await?;
        let loaded = state.as_ref().is_some_and(State::has_objects);
        let (server, work) = match state.as_ref().filter(|_| loaded) {
            Some(state) => {
                let bad = |source| Error::State { path: state.path.clone(), source };
                let (server, work) =
                    ApiServer::load(&mut BufReader::new(&state.file), Limits::default(), wall_clock()).map_err(bad)?;
                (server, tokio::spawn(work))
            }
            None => {
                let (server, work) = ApiServer::new(Limits::default(), wall_clock());
                (server, tokio::spawn(work))
            }
        };
        let token = format!("{:032x}", random_bits()?);
        let mut users = Users::default();
        users.insert(&token, User::new("admin", &["system:masters"]));
        let front = Front::new(server, users, None);
        let certificate = Certificate::for_loopback(NAME)?;
        let text = config(address, &certificate.authority, &token);
        let cancel = CancellationToken::new();
        let listener = TlsListener::new(listener, &certificate)?;
        let serving = tokio::spawn(front.clone().serve(listener, cancel.clone()));
        Ok(Self { front, address, kubeconfig, text, state, loaded, cancel, serving, work })
    }

    /// Writes the kubeconfig: whoever waits for it finds all that there is to be.
    pub(crate) async fn publish(&self) -> Result<(), Error> {
        // Another session may have had the same thought since the start.
        clear(&self.kubeconfig).await?;
        write_private(&self.kubeconfig, &self.text).map_err(|source| no_kubeconfig(&self.kubeconfig, source))
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
        let front = self.front.clone();
        let another = Arc::new(move || Ok(kube::Client::new(InProcess::new(front.clone(), User::admin()), "default")));
        Connection { client: self.client(), another, host: self.address.ip().to_string(), port: self.address.port() }
    }

    /// Ends it: no new connections, objects saved, the kubeconfig removed if it is still ours.
    pub(crate) async fn stop(self) -> Result<(), Error> {
        self.cancel.cancel();
        let served = self.serving.await;
        if fs::read_to_string(&self.kubeconfig).is_ok_and(|text| text == self.text) {
            // Whoever looks for it finds it only while there is a server behind it.
            let _ = fs::remove_file(&self.kubeconfig);
        }
        if let Some(state) = &self.state {
            state.save(self.front.server())?;
        }
        self.work.abort();
        Ok(served??)
    }
}

/// Whether the API server may listen there.
///
/// # Errors
/// The address isn't one of loopback's two that the certificate is for.
pub(crate) fn check_listen(address: SocketAddr) -> Result<(), Error> {
    let (v4, v6) = (std::net::Ipv4Addr::LOCALHOST, std::net::Ipv6Addr::LOCALHOST);
    if address.ip() == v4 || address.ip() == v6 { Ok(()) } else { Err(Error::NotLoopback(address)) }
}

/// Fails if a folder stands where a file is to be written.
pub(crate) fn check_file(flag: &str, path: &Path) -> Result<(), String> {
    if path.is_dir() { Err(format!("{flag} {}: is a folder; name a file in it", path.display())) } else { Ok(()) }
}

fn no_kubeconfig(path: &Path, source: io::Error) -> Error {
    Error::File { flag: "--write-kubeconfig", path: path.to_owned(), source }
}

/// Removes the kubeconfig of a session that was killed. Fails if one is there that isn't ours, or behind which another
/// session answers.
async fn clear(path: &Path) -> Result<(), Error> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(source) => return Err(no_kubeconfig(path, source)),
    };
    let config: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
    let server = config["clusters"][0]["cluster"]["server"].as_str().and_then(|url| url.strip_prefix("https://"));
    let (true, Some(address)) = (config["current-context"] == NAME, server) else {
        return Err(Error::NotOurs(path.to_owned()));
    };
    let answers = tokio::time::timeout(ANSWER, tokio::net::TcpStream::connect(address)).await;
    match answers {
        Ok(Ok(_)) => Err(Error::Busy { path: path.to_owned(), address: address.to_owned() }),
        // Left behind by one that was killed: nobody is to wait at its address.
        Ok(Err(_)) | Err(_) => fs::remove_file(path).map_err(|source| no_kubeconfig(path, source)),
    }
}

impl State {
    /// Opens and locks the file, which is made if it isn't there, and sees whether it can be replaced at the end.
    fn open(path: PathBuf) -> Result<Self, Error> {
        let failed = |source| Error::File { flag: "--state", path: path.clone(), source };
        tempfile::NamedTempFile::new_in(folder_of(&path)).map_err(failed)?;
        let file = File::options().read(true).append(true).create(true).open(&path).map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Self { path, file }),
            Err(TryLockError::WouldBlock) => Err(Error::Locked(path)),
            Err(TryLockError::Error(source)) => Err(failed(source)),
        }
    }

    fn has_objects(&self) -> bool {
        self.file.metadata().is_ok_and(|metadata| metadata.len() > 0)
    }

    /// A new file takes the old one's place only when it is whole.
    fn save(&self, server: &ApiServer) -> Result<(), Error> {
        let Err(why) = save(server, &self.path) else { return Ok(()) };
        let instead = std::env::temp_dir().join(format!("ringmaster-{}.objects", std::process::id()));
        match save(server, &instead) {
            Ok(()) => Err(Error::SavedElsewhere { path: self.path.clone(), why, instead }),
            Err(_) => Err(Error::File { flag: "--state", path: self.path.clone(), source: why }),
        }
    }
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

fn save(server: &ApiServer, path: &Path) -> io::Result<()> {
    let mut file = tempfile::NamedTempFile::new_in(folder_of(path))?;
    let mut out = BufWriter::new(file.as_file_mut());
    server.save(&mut out)?;
    out.flush()?;
    drop(out);
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Only its owner may read it, for it holds a token. It takes the place of what is there; a link isn't followed.
fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let folder = folder_of(path);
    fs::create_dir_all(folder)?;
    // Made for its owner alone.
    let mut file = tempfile::NamedTempFile::new_in(folder)?;
    file.write_all(text.as_bytes())?;
    file.persist(path)?;
    Ok(())
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
    use std::os::unix::fs::PermissionsExt as _;

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
        assert!(!local.is_loaded() && !local.kubeconfig().exists());
        local.publish().await.unwrap();
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
        // What could not be read is not overwritten, and no kubeconfig is left.
        assert!(!dir.path().join("kubeconfig").exists());
        assert_eq!(fs::read_to_string(dir.path().join("objects")).unwrap(), "something else\n");
        let elsewhere = Place { state: Some(dir.path().join("none/objects")), ..place(dir.path()) };
        assert!(matches!(Local::start(elsewhere).await.err(), Some(Error::File { flag: "--state", .. })));
        fs::write(dir.path().join("kubeconfig"), "apiVersion: v1\nkind: Config\n").unwrap();
        let foreign = Place { state: None, ..place(dir.path()) };
        assert!(matches!(Local::start(foreign).await.err(), Some(Error::NotOurs(_))));
    }

    #[tokio::test]
    async fn two_sessions_share_neither_kubeconfig_nor_objects() {
        let dir = tempfile::tempdir().unwrap();
        let first = Local::start(place(dir.path())).await.unwrap();
        let late = Local::start(Place { state: None, ..place(dir.path()) }).await.unwrap();
        first.publish().await.unwrap();
        assert!(matches!(late.publish().await.err(), Some(Error::Busy { .. })));
        late.stop().await.unwrap();
        let text = fs::read_to_string(dir.path().join("kubeconfig")).unwrap();
        assert!(matches!(Local::start(place(dir.path())).await.err(), Some(Error::Locked(_))));
        let other = Place { state: None, ..place(dir.path()) };
        assert!(matches!(Local::start(other.clone()).await.err(), Some(Error::Busy { .. })));
        assert_eq!(fs::read_to_string(dir.path().join("kubeconfig")).unwrap(), text);
        first.stop().await.unwrap();
        // One that was killed leaves its kubeconfig behind.
        fs::write(dir.path().join("kubeconfig"), text).unwrap();
        let local = Local::start(other).await.unwrap();
        assert!(!dir.path().join("kubeconfig").exists());
        local.stop().await.unwrap();
    }
}
