//! A shard: an example's process, its signals, and what it says in its log.
//!
//! Never says anything for it: what it did is what it wrote down.

use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde::Deserialize;

use crate::child::Child;
use crate::cluster::Context;
use crate::rings::language::{Language, Program};
use crate::rings::names::Names;
use crate::server::{User, lock};

/// How long a shard may take to end after SIGTERM: what runs, the release, and on a busy machine the end itself.
const STOP: Duration = Duration::from_secs(20);
/// How long it may take to hold its Lease. Python takes seconds to start where all cores are busy.
const STARTED: Duration = Duration::from_secs(30);
/// `--lease-duration` of shards.
pub(crate) const DURATION: Duration = Duration::from_secs(8);
/// The times of its Lease. Rust's library wants the first to be 1.25 times the second and 2 s.
const TERMS: [&str; 6] = ["--lease-duration", "8s", "--renew-deadline", "4s", "--retry-period", "1s"];

/// A line of a shard's log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub(crate) struct Line {
    /// In microseconds since the epoch.
    pub(crate) ts: u64,
    /// Whose log it is.
    pub(crate) shard: String,
    /// `started`, `stopped`, `lost`, `begin`, `end`, `wrote`, `failed`, `acknowledged`.
    pub(crate) event: String,
    /// `namespace/name` of the main object.
    pub(crate) object: String,
    /// `create` or `update`.
    pub(crate) verb: String,
    /// Of the child.
    pub(crate) name: String,
    /// What a write made it.
    pub(crate) rv: String,
    /// Of an answer that refused.
    pub(crate) code: Option<i64>,
    /// The same as a word.
    pub(crate) reason: Option<String>,
}

/// Where a shard joins.
pub(crate) struct Place<'a> {
    /// The trial's corner.
    pub(crate) ctx: &'a Context,
    /// As whom.
    pub(crate) user: &'a User,
    /// The ring.
    pub(crate) ring: &'a str,
    /// The ring's names.
    pub(crate) names: &'static Names,
    /// Of the Lease.
    pub(crate) namespace: &'a str,
}

/// A shard's process. Dropping it kills it.
pub(crate) struct Shard {
    /// Its name, and its Lease's.
    pub(crate) name: String,
    /// What it is written in.
    pub(crate) language: Language,
    log: PathBuf,
    child: Mutex<Child>,
}

impl Shard {
    /// Starts one.
    ///
    /// # Errors
    /// The program can't be started.
    pub(crate) fn start(place: &Place<'_>, program: &Program, name: &str) -> anyhow::Result<Self> {
        let mut args = program.args.clone();
        let kubeconfig = place.user.kubeconfig.display().to_string();
        let flags = [("--ring", place.ring), ("--name", name), ("--namespace", place.namespace)];
        let flags =
            flags.into_iter().chain([("--dialect", place.names.dialect), ("--kubeconfig", kubeconfig.as_str())]);
        args.extend(flags.flat_map(|(flag, value)| [flag.to_owned(), value.to_owned()]));
        args.extend(TERMS.map(ToOwned::to_owned));
        let log = place.ctx.log_file(&format!("shard-{name}"));
        let errors = place.ctx.log_file(&format!("shard-{name}-stderr"));
        let errors = std::fs::File::create(&errors).with_context(|| errors.display().to_string())?;
        let child = Child::start(name, &program.path, &args, &log, |command| {
            command.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST");
            // Nothing is written beside the sources.
            command.env("PYTHONDONTWRITEBYTECODE", "1").stderr(errors);
        })?;
        Ok(Self { name: name.to_owned(), language: program.language, log, child: Mutex::new(child) })
    }

    /// What it has written down so far.
    ///
    /// # Errors
    /// A line isn't as agreed.
    pub(crate) fn lines(&self) -> anyhow::Result<Vec<Line>> {
        let text = std::fs::read_to_string(&self.log).with_context(|| self.log.display().to_string())?;
        // A line that is being written has no end yet.
        let complete = text.rfind('\n').map_or("", |end| &text[..end]);
        let parse = |line: &str| serde_json::from_str(line).with_context(|| format!("{}: {line}", self.log.display()));
        complete.lines().map(parse).collect()
    }

    /// Whether it wrote down such an event.
    ///
    /// # Errors
    /// As [`Self::lines`].
    pub(crate) fn told(&self, event: &str) -> anyhow::Result<bool> {
        Ok(self.lines()?.iter().any(|line| line.event == event))
    }

    /// Waits until it holds its Lease.
    ///
    /// # Errors
    /// It ends, or doesn't in time.
    pub(crate) async fn started(&self, ctx: &Context) -> anyhow::Result<()> {
        let ask = async || {
            if let Err(ended) = self.check() {
                return Ok(Err(ended));
            }
            ensure!(self.told("started")?, "it holds no Lease");
            Ok(Ok(()))
        };
        ctx.wait(&format!("shard {} has started", self.name), STARTED, ask).await?
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    /// With the end of its log.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        lock(&self.child).check()
    }

    /// SIGTERM; it must end by itself, in order.
    ///
    /// # Errors
    /// It doesn't, or its Lease isn't told to be released.
    pub(crate) async fn stop(self) -> anyhow::Result<Vec<Line>> {
        let ended = tokio::task::spawn_blocking(move || {
            let stopped = lock(&self.child).stop(STOP);
            (self, stopped)
        });
        let (shard, stopped) = ended.await?;
        let (status, by_itself) = stopped?;
        ensure!(by_itself, "shard {} was still running {STOP:?} after SIGTERM", shard.name);
        ensure!(status.success(), "shard {} ended with {status} after SIGTERM", shard.name);
        let lines = shard.lines()?;
        if lines.last().is_none_or(|line| line.event != "stopped") {
            bail!("the last line of shard {} isn't that it stopped: {:?}", shard.name, lines.last());
        }
        Ok(lines)
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// The signal can't be sent.
    pub(crate) fn kill(self) -> anyhow::Result<Vec<Line>> {
        lock(&self.child).kill()?;
        self.lines()
    }

    /// SIGSTOP, and waits until no thread of it runs; or SIGCONT.
    ///
    /// # Errors
    /// The signal can't be sent.
    pub(crate) fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        lock(&self.child).freeze(frozen)
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// It can't be looked at.
    pub(crate) fn status(&self) -> anyhow::Result<Option<ExitStatus>> {
        lock(&self.child).status()
    }
}
