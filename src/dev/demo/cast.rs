//! The members as processes: `ringmaster run` of this very program, started, asked to leave, and killed.
//!
//! Never leaves one behind, and never uses a name twice: a member of an old name would get nothing for a while.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use ringmaster_engine::LONGEST_LEAVE;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncRead;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::ownership::Ownership;
use super::scene;
use crate::Stop;
use crate::guardian::Guardian;

/// Most members that run at once: each has a digit of its own on the screen.
pub(crate) const MAX_MEMBERS: usize = 9;
/// Syncs at once of each.
const WORKERS: usize = 8;
/// Short ones, so that a demo of a minute shows a member's loss.
const TERMS: [&str; 3] = ["--lease-duration=5s", "--renew-deadline=2s", "--retry-period=500ms"];
/// How long a member may take to leave before it is killed: what its engine needs at most, and 5 s for the rest of its
/// process on a busy machine.
const GRACE: Duration = LONGEST_LEAVE.saturating_add(Duration::from_secs(5));
/// Lines of a member's log that are kept for a reason, and the longest of them in bytes.
const LINES: usize = 3;
const MAX_LINE_BYTES: usize = 4096;
/// Members that have ended and are remembered.
const MAX_ENDED: usize = 20;

/// What a member is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// It runs.
    Runs,
    /// It was asked to leave.
    Leaving,
    /// Its process has ended.
    Ended {
        /// When.
        at: Instant,
        /// How, if nobody killed it and it didn't leave when it was asked to.
        wrong: Option<String>,
    },
}

/// A member.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    /// The beginning of its full name.
    pub(crate) name: String,
    /// Its process.
    pub(crate) pid: u32,
    /// What it is doing.
    pub(crate) state: State,
    leave: CancellationToken,
    kill: CancellationToken,
    said: Arc<Mutex<VecDeque<String>>>,
}

/// All of them.
pub(crate) struct Cast {
    program: PathBuf,
    kubeconfig: PathBuf,
    relay: SocketAddr,
    guardian: Arc<Guardian>,
    ownership: Arc<Mutex<Ownership>>,
    members: Arc<Mutex<BTreeMap<usize, Member>>>,
    tasks: TaskTracker,
}

impl Cast {
    /// Nobody yet. Their calls go to the relay.
    pub(crate) fn new(
        kubeconfig: &Path,
        relay: SocketAddr,
        guardian: &Arc<Guardian>,
        ownership: &Arc<Mutex<Ownership>>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            kubeconfig: kubeconfig.to_owned(),
            relay,
            guardian: Arc::clone(guardian),
            ownership: Arc::clone(ownership),
            members: Arc::default(),
            tasks: TaskTracker::new(),
        })
    }

    /// Starts one more: its name.
    ///
    /// # Errors
    /// If there is no process to be had.
    pub(crate) async fn start(&self) -> std::io::Result<String> {
        let number = self.members.lock().keys().last().map_or(1, |last| last + 1);
        let name = format!("member-{number}");
        let mut child = self.command(&name).spawn()?;
        let pid = child.id().ok_or_else(|| std::io::Error::other("it ended at once"))?;
        let group = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            self.guardian.runs(group, true).await;
        }
        let member = Member {
            name: name.clone(),
            pid,
            state: State::Runs,
            leave: CancellationToken::new(),
            kill: CancellationToken::new(),
            said: Arc::default(),
        };
        if let Some(said) = child.stderr.take() {
            self.tasks.spawn(listen(said, Arc::clone(&member.said)));
        }
        {
            let mut members = self.members.lock();
            members.insert(number, member.clone());
            let ended: Vec<usize> = members.iter().filter(|(_, m)| m.has_ended()).map(|(number, _)| *number).collect();
            for old in ended.iter().take(ended.len().saturating_sub(MAX_ENDED)) {
                members.remove(old);
            }
        }
        let (guardian, members) = (Arc::clone(&self.guardian), Arc::clone(&self.members));
        let ownership = Arc::clone(&self.ownership);
        self.tasks.spawn(async move {
            let End { at, how, late } = attend(child, group, &member).await;
            let was_killed = member.kill.is_cancelled();
            let wrong = match was_killed {
                true => None,
                false if late => Some(format!("had to be killed: it hadn't left after {} s", GRACE.as_secs())),
                false if member.leave.is_cancelled() => None,
                false => Some(format!("{how} unasked")),
            };
            ownership.lock().ended(at, &member.name, was_killed || wrong.is_some());
            if let Some(member) = members.lock().get_mut(&number) {
                member.state = State::Ended { at, wrong };
            }
            if let Some(group) = group {
                guardian.runs(group, false).await;
            }
        });
        Ok(name)
    }

    fn command(&self, name: &str) -> Command {
        let mut command = Command::new(&self.program);
        command
            .arg("run")
            .args(TERMS)
            .arg(format!("--kubeconfig={}", self.kubeconfig.display()))
            .arg(format!("--member-name={name}"))
            .arg(format!("--hook-resolve={}={}", scene::HOOK_HOST, self.relay))
            .arg(format!("--workers={WORKERS}"))
            .args(["--metrics-address=0", "--health-probe-bind-address=0", "--log-level=warn", "--log-format=pretty"])
            .args(["--lease-namespace=ringmaster-system", "--hook-allow-loopback=true"])
            // Neither a pod that this may run in, nor settings that are meant for another `ringmaster`.
            .env_remove("KUBERNETES_SERVICE_HOST")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            // Ctrl-C in the terminal is for us to pass on.
            .process_group(0)
            .kill_on_drop(true);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RINGMASTER_")) {
            command.env_remove(name);
        }
        command
    }

    /// Asks one to leave (SIGTERM).
    pub(crate) fn leave(&self, name: &str) {
        for member in self.members.lock().values_mut().filter(|m| m.name == name && m.state == State::Runs) {
            member.state = State::Leaving;
            member.leave.cancel();
        }
    }

    /// Kills one (SIGKILL).
    pub(crate) fn kill(&self, name: &str) {
        self.members.lock().values().filter(|member| member.name == name).for_each(|member| member.kill.cancel());
    }

    /// All that run or have ended lately, in the order of their numbers.
    pub(crate) fn members(&self) -> Vec<(usize, Member)> {
        self.members.lock().iter().map(|(number, member)| (*number, member.clone())).collect()
    }

    /// The names of those that run and stay.
    pub(crate) fn staying(&self) -> BTreeSet<String> {
        self.members.lock().values().filter(|m| m.state == State::Runs).map(|m| m.name.clone()).collect()
    }

    /// The state of one.
    pub(crate) fn state(&self, name: &str) -> Option<State> {
        self.members.lock().values().find(|member| member.name == name).map(|member| member.state.clone())
    }

    /// One that ended though nobody asked it to, or that didn't leave when it was asked to, with its last words.
    pub(crate) fn deserter(&self) -> Option<String> {
        let members = self.members.lock();
        members.values().find_map(|member| match &member.state {
            State::Ended { wrong: Some(how), .. } => Some(format!("{} {how}{}", member.name, member.last_words())),
            State::Ended { wrong: None, .. } | State::Runs | State::Leaving => None,
        })
    }

    /// Asks all to leave, and waits until they have; in a hurry, kills them.
    pub(crate) async fn end(&self, stop: &Stop) {
        self.members.lock().values().for_each(|member| member.leave.cancel());
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => return,
            () = stop.now.cancelled() => {}
        }
        self.members.lock().values().for_each(|member| member.kill.cancel());
        self.tasks.wait().await;
    }
}

impl Member {
    /// Whether its process has.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended { .. })
    }

    /// Its last lines, each on one of its own.
    fn last_words(&self) -> String {
        self.said.lock().iter().map(|line| format!("\n  {line}")).collect()
    }

    /// What its process has in memory, in bytes; `None` where that can't be told.
    pub(crate) fn rss_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    }
}

/// The end of a process.
struct End {
    at: Instant,
    how: String,
    /// It was asked to leave, and was killed since it didn't.
    late: bool,
}

/// Stays with a process until it ends.
async fn attend(mut child: Child, group: Option<Pid>, member: &Member) -> End {
    let signal = |signal| {
        if let Some(group) = group {
            // One that has just ended needs no signal.
            let _ = kill_process_group(group, signal);
        }
    };
    let mut late = false;
    let mut ended = tokio::select! {
        status = child.wait() => Some(status),
        () = member.leave.cancelled() => {
            signal(Signal::TERM);
            None
        }
        () = member.kill.cancelled() => None,
    };
    if ended.is_none() {
        ended = tokio::select! {
            status = child.wait() => Some(status),
            () = member.kill.cancelled() => None,
            () = tokio::time::sleep(GRACE) => {
                late = true;
                None
            }
        };
    }
    // When it was told is when it ended.
    let at = Instant::now();
    let status = match ended {
        Some(status) => status,
        None => {
            signal(Signal::KILL);
            child.wait().await
        }
    };
    let how = match status {
        Ok(status) if status.code().is_none() => "is gone".to_owned(),
        Ok(status) => format!("ended ({status})"),
        Err(error) => error.to_string(),
    };
    End { at, how, late }
}

/// Keeps the last lines of what a process says.
async fn listen(from: impl AsyncRead + Unpin, said: Arc<Mutex<VecDeque<String>>>) {
    let mut lines = FramedRead::new(from, LinesCodec::new_with_max_length(MAX_LINE_BYTES));
    let mut failed = false;
    loop {
        match lines.next().await {
            Some(Ok(line)) => {
                failed = false;
                let mut said = said.lock();
                said.push_back(line);
                while said.len() > LINES {
                    said.pop_front();
                }
            }
            // A line that is too long: the stream gives `None` once, and goes on behind it.
            Some(Err(_)) => failed = true,
            None if failed => failed = false,
            None => return,
        }
    }
}
