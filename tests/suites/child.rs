//! A child process: started so that it can't outlive this one, its output in a file, stopped in a bounded time.
//!
//! Never reads what the child says beyond its log file, and never signals a process that it didn't start.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError, mpsc};
use std::time::{Duration, Instant};

use anyhow::{Context as _, anyhow, ensure};

/// How many of the last lines of a log are shown when something fails.
const TAIL_LINES: usize = 40;
/// How far back from its end a log is read for them, in bytes.
const TAIL_BYTES: u64 = 64 * 1024;
/// How long a child's threads may take to stop after SIGSTOP.
const FREEZE: Duration = Duration::from_secs(10);
/// How often a child that shall end or stop is looked at.
const EXIT_POLL: Duration = Duration::from_millis(10);

/// One request to the thread that starts every child.
type Start = (Command, mpsc::Sender<std::io::Result<std::process::Child>>);

/// The thread that starts every child. The kernel sends a child its parent-death signal when the *thread* that started
/// it ends (prctl(2), `PR_SET_PDEATHSIG`), so children must not be started by threads of a trial or of a runtime.
static STARTER: LazyLock<Mutex<mpsc::Sender<Start>>> = LazyLock::new(|| {
    let (sender, receiver) = mpsc::channel::<Start>();
    std::thread::spawn(move || {
        for (mut command, answer) in receiver {
            // A receiver that has gone away only means that nobody waits any more.
            let _ = answer.send(command.spawn());
        }
    });
    Mutex::new(sender)
});

/// A running (or ended) child process. Dropping it kills it.
pub(crate) struct Child {
    name: String,
    log: PathBuf,
    process: std::process::Child,
    status: Option<ExitStatus>,
}

impl Child {
    /// Starts `program` with `args`, its output appended to `log`. `change` may set the environment.
    ///
    /// # Errors
    /// The program or its log file can't be opened.
    pub(crate) fn start(
        name: &str,
        program: &Path,
        args: &[String],
        log: &Path,
        change: impl FnOnce(&mut Command),
    ) -> anyhow::Result<Self> {
        let output =
            File::options().create(true).append(true).open(log).with_context(|| format!("log {}", log.display()))?;
        let mut command = if has_setpriv() {
            let mut command = Command::new("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]).arg(program);
            command
        } else {
            Command::new(program)
        };
        // Its own process group: Ctrl-C reaches only us, and we stop children in order.
        command.args(args).stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output).process_group(0);
        change(&mut command);
        let (answer, started) = mpsc::channel();
        STARTER
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .send((command, answer))
            .map_err(|_| anyhow!("the thread that starts processes has ended"))?;
        let process = started
            .recv()
            .map_err(|_| anyhow!("the thread that starts processes has ended"))?
            .with_context(|| format!("start {name} ({})", program.display()))?;
        Ok(Self { name: name.to_owned(), log: log.to_owned(), process, status: None })
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// The file that holds its output.
    pub(crate) fn log_path(&self) -> &Path {
        &self.log
    }

    /// How it ended, or `None` while it runs.
    pub(crate) fn status(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        if self.status.is_none() {
            self.status = self.process.try_wait().with_context(|| format!("wait for {}", self.name))?;
        }
        Ok(self.status)
    }

    /// Fails with the end of its log if it has ended.
    pub(crate) fn check(&mut self) -> anyhow::Result<()> {
        match self.status()? {
            None => Ok(()),
            Some(status) => Err(anyhow!("{} ended early ({status}); its last lines:\n{}", self.name, tail(&self.log))),
        }
    }

    /// Sends SIGTERM. A child that has already ended is left alone.
    pub(crate) fn terminate(&mut self) -> anyhow::Result<()> {
        self.signal("TERM")
    }

    /// Sends the named signal (`TERM`, `STOP`, `CONT`), by the shell's `kill`: std has only SIGKILL.
    pub(crate) fn signal(&mut self, signal: &str) -> anyhow::Result<()> {
        if self.status()?.is_some() {
            return Ok(());
        }
        let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", signal, &self.id().to_string()]).status()?;
        // It may have ended since we looked: then there is nothing to signal.
        if sent.success() || self.status()?.is_some() {
            return Ok(());
        }
        Err(anyhow!("kill -s {signal} {} ({}) failed: {sent}", self.id(), self.name))
    }

    /// Stops it in its tracks (`true`) or lets it go on. Comes back once none of its threads runs, as far as `/proc`
    /// tells: a thread goes on for a moment after the signal was sent.
    pub(crate) fn freeze(&mut self, frozen: bool) -> anyhow::Result<()> {
        if !frozen {
            return self.signal("CONT");
        }
        self.signal("STOP")?;
        let end = Instant::now() + FREEZE;
        while self.runs() {
            ensure!(Instant::now() < end, "{} still runs {FREEZE:?} after SIGSTOP", self.name);
            std::thread::sleep(EXIT_POLL);
        }
        Ok(())
    }

    fn runs(&self) -> bool {
        let Ok(threads) = std::fs::read_dir(format!("/proc/{}/task", self.id())) else { return false };
        threads.flatten().any(|thread| {
            // `pid (name) state ...`; the name may hold anything.
            let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
            stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with(['T', 't', 'Z', 'X']))
        })
    }

    /// Waits at most `grace` for its end. `None`: it still runs.
    pub(crate) fn wait(&mut self, grace: Duration) -> anyhow::Result<Option<ExitStatus>> {
        let end = Instant::now() + grace;
        loop {
            if let Some(status) = self.status()? {
                return Ok(Some(status));
            }
            if Instant::now() >= end {
                return Ok(None);
            }
            std::thread::sleep(EXIT_POLL);
        }
    }

    /// SIGTERM, at most `grace`, then SIGKILL. The flag is true if it ended by itself.
    pub(crate) fn stop(&mut self, grace: Duration) -> anyhow::Result<(ExitStatus, bool)> {
        self.terminate()?;
        if let Some(status) = self.wait(grace)? {
            return Ok((status, true));
        }
        Ok((self.kill()?, false))
    }

    /// SIGKILL, and waits for the end.
    pub(crate) fn kill(&mut self) -> anyhow::Result<ExitStatus> {
        if let Some(status) = self.status()? {
            return Ok(status);
        }
        self.process.kill().with_context(|| format!("kill {}", self.name))?;
        let status = self.process.wait().with_context(|| format!("wait for {}", self.name))?;
        self.status = Some(status);
        Ok(status)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // Nobody is left to tell; the parent-death signal is the second net.
        let _ = self.kill();
    }
}

/// The last lines of a log file, or why it can't be read.
pub(crate) fn tail(log: &Path) -> String {
    let read = || -> std::io::Result<String> {
        let mut file = File::open(log)?;
        let length = file.metadata()?.len();
        file.seek(SeekFrom::Start(length.saturating_sub(TAIL_BYTES)))?;
        let mut bytes = Vec::new();
        file.take(TAIL_BYTES).read_to_end(&mut bytes)?;
        let text = String::from_utf8_lossy(&bytes).into_owned();
        let lines: Vec<&str> = text.lines().collect();
        Ok(lines[lines.len().saturating_sub(TAIL_LINES)..].join("\n"))
    };
    read().unwrap_or_else(|error| format!("({}: {error})", log.display()))
}

/// Whether util-linux's `setpriv` is there; without it a killed test process leaves its children behind.
fn has_setpriv() -> bool {
    static FOUND: LazyLock<bool> = LazyLock::new(|| {
        Command::new("setpriv").arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    });
    *FOUND
}
