//! The members as processes: `ringmaster run` of this very program, started, asked to leave, and killed.
//!
//! Never leaves one behind, and never uses a name twice: a member of an old name would get nothing for a while.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringmaster_engine::LONGEST_LEAVE;
use tokio::process::Command;
use tokio::time::Instant;
use tokio_util::task::TaskTracker;

use super::ownership::Ownership;
use super::process::{End, Process};
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
    pub(crate) process: Process,
    /// What it is doing.
    pub(crate) state: State,
}

/// All of them.
pub(crate) struct Cast {
    program: PathBuf,
    kubeconfig: PathBuf,
    flags: Vec<String>,
    guardian: Arc<Guardian>,
    ownership: Arc<Mutex<Ownership>>,
    members: Arc<Mutex<BTreeMap<usize, Member>>>,
    tasks: TaskTracker,
}

impl Cast {
    /// Nobody yet. All get these flags, which say where the webhook is.
    pub(crate) fn new(
        kubeconfig: &Path,
        flags: Vec<String>,
        guardian: &Arc<Guardian>,
        ownership: &Arc<Mutex<Ownership>>,
    ) -> std::io::Result<Self> {
        Ok(Self {
            program: std::env::current_exe()?,
            kubeconfig: kubeconfig.to_owned(),
            flags,
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
        let (process, end) = Process::start(self.command(&name), GRACE, &self.guardian, &self.tasks, |_| {}).await?;
        let member = Member { name: name.clone(), process, state: State::Runs };
        {
            let mut members = self.members.lock();
            members.insert(number, member.clone());
            let ended: Vec<usize> = members.iter().filter(|(_, m)| m.has_ended()).map(|(number, _)| *number).collect();
            for old in ended.iter().take(ended.len().saturating_sub(MAX_ENDED)) {
                members.remove(old);
            }
        }
        let (members, ownership) = (Arc::clone(&self.members), Arc::clone(&self.ownership));
        self.tasks.spawn(async move {
            let End { at, was_killed, wrong } = end.await;
            ownership.lock().ended(at, &member.name, was_killed || wrong.is_some());
            if let Some(member) = members.lock().get_mut(&number) {
                member.state = State::Ended { at, wrong };
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
            .args(&self.flags)
            .arg(format!("--workers={WORKERS}"))
            .args(["--metrics-address=0", "--health-probe-bind-address=0", "--log-level=warn", "--log-format=pretty"])
            .args(["--lease-namespace=ringmaster-system", "--hook-allow-loopback=true"])
            // Neither a pod that this may run in, nor settings that are meant for another `ringmaster`.
            .env_remove("KUBERNETES_SERVICE_HOST")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("RINGMASTER_")) {
            command.env_remove(name);
        }
        command
    }

    /// Asks one to leave (SIGTERM).
    pub(crate) fn leave(&self, name: &str) {
        for member in self.members.lock().values_mut().filter(|m| m.name == name && m.state == State::Runs) {
            member.state = State::Leaving;
            member.process.leave();
        }
    }

    /// Kills one (SIGKILL).
    pub(crate) fn kill(&self, name: &str) {
        self.members.lock().values().filter(|member| member.name == name).for_each(|member| member.process.kill());
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
            State::Ended { wrong: Some(how), .. } => {
                Some(format!("{} {how}{}", member.name, member.process.said().text()))
            }
            State::Ended { wrong: None, .. } | State::Runs | State::Leaving => None,
        })
    }

    /// Asks all to leave, and waits until they have; in a hurry, kills them.
    pub(crate) async fn end(&self, stop: &Stop) {
        self.members.lock().values().for_each(|member| member.process.leave());
        self.tasks.close();
        tokio::select! {
            () = self.tasks.wait() => return,
            () = stop.now.cancelled() => {}
        }
        self.members.lock().values().for_each(|member| member.process.kill());
        self.tasks.wait().await;
    }
}

impl Member {
    /// Whether its process has.
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, State::Ended { .. })
    }

    /// What its process has in memory, in bytes; `None` where that can't be told.
    pub(crate) fn rss_bytes(&self) -> Option<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid)).ok()?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    }
}
