//! `ringmaster run` as a child process, as a trial's user, for the trial's controllers alone.
//!
//! Never as the administrator, and never with this process's own `RINGMASTER_*` settings.

use std::collections::BTreeSet;
use std::io::PipeWriter;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Mutex;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};

use crate::child::Child;
use crate::cluster::Context;
use crate::server::{User, lock};
use crate::usage;

/// How long Ringmaster may take to end after SIGTERM.
const STOP: Duration = Duration::from_secs(20);

/// How to start one.
pub(crate) struct Build<'a> {
    context: &'a Context,
    user: &'a User,
    args: Vec<String>,
    env: Vec<(String, String)>,
    stderr: Option<PipeWriter>,
}

impl<'a> Build<'a> {
    /// As another leased user.
    pub(crate) fn user(self, user: &'a User) -> Self {
        Self { user, ..self }
    }

    /// One argument more, after those that every trial has (a flag that is given twice may be an error).
    pub(crate) fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    /// An environment variable.
    pub(crate) fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Standard error, instead of the log file.
    pub(crate) fn stderr(self, stderr: PipeWriter) -> Self {
        Self { stderr: Some(stderr), ..self }
    }

    /// Starts it.
    ///
    /// # Errors
    /// The binary can't be started.
    pub(crate) fn start(mut self) -> anyhow::Result<Ringmaster> {
        let has = |flag: &str| self.args.iter().any(|arg| arg == flag || arg.starts_with(&format!("{flag}=")));
        let defaults = [
            ("--kubeconfig", self.user.kubeconfig.display().to_string()),
            ("--target-label-selector", format!("suite={}", self.context.id)),
            ("--metrics-address", "0".to_owned()),
            ("--health-probe-bind-address", "0".to_owned()),
        ];
        let mut args = vec!["run".to_owned()];
        // What the trial names itself replaces our default.
        args.extend(defaults.iter().filter(|(flag, _)| !has(flag)).map(|(flag, value)| format!("{flag}={value}")));
        args.append(&mut self.args);
        let program = program();
        let log = self.context.log_file("ringmaster");
        let child = Child::start("ringmaster", &program, &args, &log, |command| {
            for (name, _) in std::env::vars_os() {
                if name.to_string_lossy().starts_with("RINGMASTER_") {
                    command.env_remove(name);
                }
            }
            command.env_remove("KUBECONFIG").env_remove("KUBERNETES_SERVICE_HOST").envs(self.env);
            if let Some(stderr) = self.stderr {
                command.stderr(stderr);
            }
        })?;
        Ok(Ringmaster { child: Mutex::new(child) })
    }
}

/// What is run as Ringmaster: of the build with the profile RINGMASTER_SUITES_PROFILE (`release`), where figures of one
/// that was optimised are asked for.
fn program() -> PathBuf {
    let own = Path::new(env!("CARGO_BIN_EXE_ringmaster"));
    let given = std::env::var_os("RINGMASTER_SUITES_PROFILE").filter(|value| !value.is_empty());
    match (given, own.ancestors().nth(2), own.file_name()) {
        (Some(profile), Some(target), Some(name)) => target.join(profile).join(name),
        _ => own.to_owned(),
    }
}

/// A running Ringmaster. Dropping it kills it.
pub(crate) struct Ringmaster {
    child: Mutex<Child>,
}

impl Ringmaster {
    /// With the trial's user and the usual flags.
    ///
    /// # Errors
    /// The binary can't be started.
    pub(crate) fn start(context: &Context) -> anyhow::Result<Self> {
        Self::build(context).start()
    }

    /// The same with changes.
    pub(crate) fn build(context: &Context) -> Build<'_> {
        Build { context, user: &context.user, args: Vec::new(), env: Vec::new(), stderr: None }
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        lock(&self.child).id()
    }

    /// Everything it has written to stdout and stderr so far.
    ///
    /// # Errors
    /// The log file can't be read.
    pub(crate) fn log(&self) -> anyhow::Result<String> {
        let path = lock(&self.child).log_path().to_owned();
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Waits for a line that holds `text` and answers with it. Fails at once when the process ends without one.
    ///
    /// # Errors
    /// The process ends or the deadline passes first.
    pub(crate) async fn wait_log(&self, context: &Context, text: &str, deadline: Duration) -> anyhow::Result<String> {
        let what = format!("ringmaster logs {text:?}");
        let found = context.wait(&what, deadline, async || {
            // Looked at before the log: what it wrote before its end still counts.
            let ended = lock(&self.child).check().err();
            let log = self.log()?;
            match log.lines().find(|line| line.contains(text)) {
                Some(line) => Ok(Ok(line.to_owned())),
                None => match ended {
                    Some(ended) => Ok(Err(ended.context(what.clone()))),
                    None => bail!("its last line: {}", log.lines().last().unwrap_or("(none)")),
                },
            }
        });
        found.await?
    }

    /// Fails if it has ended.
    ///
    /// # Errors
    /// With the end of its log.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        lock(&self.child).check()
    }

    /// Waits for an end that nobody asked for (a refused start, a lost Lease).
    ///
    /// # Errors
    /// It still runs after `deadline`.
    pub(crate) async fn ended(&self, context: &Context, deadline: Duration) -> anyhow::Result<ExitStatus> {
        let ask = async || lock(&self.child).status()?.context("it runs");
        context.wait("ringmaster ends by itself", deadline, ask).await
    }

    /// SIGTERM, and its exit status.
    ///
    /// # Errors
    /// It doesn't end within 20 s; it is killed then.
    pub(crate) async fn stop(self) -> anyhow::Result<ExitStatus> {
        // Blocks for as long as the process takes: away from the trial's own thread, whose webhooks must answer.
        let (status, by_itself) = tokio::task::spawn_blocking(move || lock(&self.child).stop(STOP)).await??;
        ensure!(by_itself, "ringmaster was still running {STOP:?} after SIGTERM");
        Ok(status)
    }

    /// SIGKILL: what a crash looks like.
    ///
    /// # Errors
    /// The signal can't be sent.
    pub(crate) fn kill(&self) -> anyhow::Result<ExitStatus> {
        lock(&self.child).kill()
    }

    /// SIGSTOP, and waits until no thread of it runs; or SIGCONT.
    ///
    /// # Errors
    /// The signal can't be sent.
    pub(crate) fn freeze(&self, frozen: bool) -> anyhow::Result<()> {
        lock(&self.child).freeze(frozen)
    }

    /// Resident memory, in KiB.
    ///
    /// # Errors
    /// The process has ended.
    pub(crate) fn rss_kib(&self) -> anyhow::Result<u64> {
        usage::rss_kib(self.id())
    }

    /// The TCP ports at which it listens.
    ///
    /// # Errors
    /// The process has ended.
    pub(crate) fn ports(&self) -> anyhow::Result<BTreeSet<u16>> {
        usage::ports(self.id())
    }

    /// CPU time used so far, user and system, in steps of 10 ms.
    ///
    /// # Errors
    /// The process has ended.
    pub(crate) fn cpu(&self) -> anyhow::Result<Duration> {
        usage::cpu(self.id())
    }
}
