//! The webhook as several replicas: processes of the example's hook, each behind a relay of its own, and the EndpointSlice
//! that names them.
//!
//! Never decides how many there are to be, nor when one that died is started again; and never leaves one behind.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::process::Command;
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::language::Language;
use super::process::{End, Process};
use super::record::Record;
use super::relay::Relay;
use super::slices::{self, Named, State};
use super::{Error, scene};
use crate::guardian::Guardian;
use crate::objects::Objects;
use crate::{Stop, quoted};

/// Most replicas that run at once.
pub(crate) const MAX_REPLICAS: usize = 8;
/// How often it is looked whether the EndpointSlice is to be written.
const LOOK: Duration = Duration::from_millis(50);
/// How long a replica may take to leave before it is killed: what the example needs at most, and some.
const GRACE: Duration = Duration::from_secs(15);
/// How a replica says where it listens.
const LISTENS: &str = "listening on ";

/// One of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Replica {
    /// What it is doing.
    pub(crate) state: State,
    /// Its last process.
    pub(crate) process: Option<Process>,
    /// Whether it has listened. Who started one that hasn't tells why.
    has_listened: bool,
    /// What was wrong with the end of one, if it was nobody here who killed it.
    wrong: Option<String>,
}

type Known = Arc<Mutex<BTreeMap<usize, Replica>>>;

/// All of them, by their numbers from 1.
pub(crate) struct Replicas {
    language: Language,
    folder: PathBuf,
    relays: BTreeMap<usize, Arc<Relay>>,
    known: Known,
    record: Arc<Mutex<Record>>,
    /// What the EndpointSlice says.
    published: Arc<Mutex<Option<Vec<Named>>>>,
    guardian: Arc<Guardian>,
    tasks: TaskTracker,
}

impl Replicas {
    /// None runs; each has a port. The folder has the webhook's files.
    ///
    /// # Errors
    /// If there are no ports.
    pub(crate) fn new(
        language: Language,
        folder: &Path,
        record: &Arc<Mutex<Record>>,
        guardian: &Arc<Guardian>,
    ) -> std::io::Result<Self> {
        let relay = |replica| Ok((replica, Arc::new(Relay::new(replica, record)?)));
        let relays: std::io::Result<BTreeMap<_, _>> = (1..=MAX_REPLICAS).map(relay).collect();
        Ok(Self {
            language,
            folder: folder.to_owned(),
            relays: relays?,
            known: Arc::new(Mutex::new((1..=MAX_REPLICAS).map(|replica| (replica, Replica::default())).collect())),
            record: Arc::clone(record),
            published: Arc::default(),
            guardian: Arc::clone(guardian),
            tasks: TaskTracker::new(),
        })
    }

    /// Flags of `ringmaster run` that say where the replicas are.
    pub(crate) fn flags(&self) -> Vec<String> {
        let flag = |(replica, relay): (&usize, &Arc<Relay>)| {
            format!("--hook-resolve={}={}", slices::address(*replica), relay.address())
        };
        self.relays.iter().map(flag).collect()
    }

    /// What has to be done once before one can be started.
    ///
    /// # Errors
    /// If it fails, or takes too long.
    pub(crate) async fn build(&self) -> Result<(), Error> {
        let Some(command) = self.language.build() else { return Ok(()) };
        let mut command = self.shell(command);
        let output = command.kill_on_drop(true).output();
        let within = self.language.start();
        let output = match tokio::time::timeout(within, output).await {
            Ok(output) => output.map_err(Error::Place)?,
            Err(_) => return Err(Error::Build(format!("it takes longer than {} s", within.as_secs()))),
        };
        if output.status.success() {
            return Ok(());
        }
        Err(Error::Build(String::from_utf8_lossy(&output.stderr).trim().to_owned()))
    }

    fn shell(&self, command: &str) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", command]).current_dir(&self.folder);
        shell.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped());
        shell
    }

    /// Starts one, and waits until it listens and can be called; one that runs, or leaves, goes on.
    ///
    /// # Errors
    /// If it doesn't in time, or ends.
    pub(crate) async fn start(&self, replica: usize) -> Result<(), Error> {
        let Some(relay) = self.relays.get(&replica) else { return Ok(()) };
        let themes = scene::themes_file(&self.folder);
        let listen = "--listen 127.0.0.1:0";
        let command = format!("{} {listen} --themes {}", self.language.command(), quoted(&themes));
        let (told, mut address) = watch::channel(None);
        let heard = move |line: &str| {
            if let Some(address) = line.strip_prefix(LISTENS).and_then(|text| text.parse::<SocketAddr>().ok()) {
                told.send_replace(Some(address));
            }
        };
        let mut is_ours = false;
        self.change(replica, |it| {
            is_ours = matches!(it.state, State::Off | State::Dead { .. });
            if is_ours {
                it.state = State::Starts;
                it.has_listened = false;
            }
        });
        if !is_ours {
            return Ok(());
        }
        let command = self.shell(&command);
        let (process, end) =
            Process::start(command, GRACE, &self.guardian, &self.tasks, heard).await.map_err(Error::Place)?;
        self.change(replica, |it| {
            it.process = Some(process.clone());
            if it.state == State::Leaving {
                process.leave();
            }
        });
        let (relay, known, record) = (Arc::clone(relay), Arc::clone(&self.known), Arc::clone(&self.record));
        self.tasks.spawn(attend(replica, end, Arc::clone(&relay), known, record));
        let within = self.language.start();
        // Its end drops the other side.
        let listens = async { address.wait_for(Option::is_some).await.ok().and_then(|address| *address) };
        let address = tokio::time::timeout(within, listens).await;
        let why = match address {
            Ok(Some(address)) => {
                relay.open(address).await.map_err(Error::Place)?;
                let mut has_ended = false;
                self.change(replica, |it| {
                    it.has_listened = true;
                    match it.state {
                        State::Starts => it.state = State::Runs,
                        State::Runs | State::Leaving => {}
                        State::Off | State::Dead { .. } => has_ended = true,
                    }
                });
                if has_ended {
                    relay.close().await;
                }
                return Ok(());
            }
            // It wasn't wanted any more.
            Ok(None) if process.is_told_to_end() => return Ok(()),
            Ok(None) => "it has ended".to_owned(),
            Err(_) => format!("{} s are over", within.as_secs()),
        };
        Err(Error::Hook { why, said: process.said().text() })
    }

    fn change(&self, replica: usize, change: impl FnOnce(&mut Replica)) {
        if let Some(known) = self.known.lock().get_mut(&replica) {
            change(known);
        }
    }

    /// One gets no calls from now on; it runs still.
    pub(crate) fn retire(&self, replica: usize) {
        self.change(replica, |it| match it.state {
            State::Runs | State::Starts => it.state = State::Leaving,
            State::Dead { .. } => it.state = State::Off,
            State::Off | State::Leaving => {}
        });
    }

    /// Asks one to end (SIGTERM).
    pub(crate) fn leave(&self, replica: usize) {
        self.change(replica, |it| it.process.iter().for_each(Process::leave));
    }

    /// Kills one (SIGKILL).
    pub(crate) fn kill(&self, replica: usize) {
        self.change(replica, |it| it.process.iter().for_each(Process::kill));
    }

    /// All, whether they run or not.
    pub(crate) fn all(&self) -> BTreeMap<usize, Replica> {
        self.known.lock().clone()
    }

    /// Whether the EndpointSlice says what it is to say now.
    pub(crate) fn is_published(&self) -> bool {
        *self.published.lock() == Some(self.named())
    }

    /// Whether the EndpointSlice names one.
    pub(crate) fn is_named(&self, replica: usize) -> bool {
        self.published.lock().iter().flatten().any(|(named, _)| *named == replica)
    }

    fn named(&self) -> Vec<Named> {
        let known = self.known.lock();
        slices::named(Instant::now(), known.iter().map(|(replica, it)| (*replica, &it.state)))
    }

    /// Keeps the EndpointSlice as it is to be; never ends.
    pub(crate) async fn publish(&self, objects: &Objects) -> std::convert::Infallible {
        loop {
            let named = self.named();
            let is_news = self.published.lock().as_ref() != Some(&named);
            // What is refused is tried again.
            if is_news && objects.apply(&slices::slice(&named)).await.is_ok() {
                *self.published.lock() = Some(named);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// One that listened and ended though nobody asked it to, or that didn't when it was asked to, with its last words.
    pub(crate) fn deserter(&self) -> Option<String> {
        self.known.lock().iter().filter(|(_, it)| it.has_listened).find_map(|(replica, it)| {
            let how = it.wrong.as_ref()?;
            Some(format!("{} {how}{}", name(*replica), it.process.as_ref()?.said().text()))
        })
    }

    /// The last lines of those that run, each on one of its own.
    pub(crate) fn said(&self) -> String {
        self.known.lock().values().filter_map(|it| Some(it.process.as_ref()?.said().text())).collect()
    }

    /// Asks all to end, and waits until they have; in a hurry, kills them.
    pub(crate) async fn end(&self, stop: &Stop) {
        (1..=MAX_REPLICAS).for_each(|replica| self.leave(replica));
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => return,
            () = stop.now.cancelled() => {}
        }
        (1..=MAX_REPLICAS).for_each(|replica| self.kill(replica));
        self.tasks.wait().await;
    }
}

/// Stays with a replica until its process has ended, which closes its relay.
async fn attend(
    replica: usize,
    end: impl Future<Output = End>,
    relay: Arc<Relay>,
    known: Known,
    record: Arc<Mutex<Record>>,
) {
    let End { at, wrong, .. } = end.await;
    if wrong.is_some() {
        // A change that nobody here made.
        record.lock().affinity_mut().change(at);
    }
    if let Some(it) = known.lock().get_mut(&replica) {
        it.state = match it.state {
            State::Leaving => State::Off,
            _ => State::Dead { at },
        };
        it.wrong = wrong.or_else(|| it.wrong.take());
    }
    relay.close().await;
}

/// What a replica is called.
pub(crate) fn name(replica: usize) -> String {
    format!("hook-{replica}")
}
