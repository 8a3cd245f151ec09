//! A process of the demo's, from its start to its end: it is asked to leave, or killed, and its last words are kept.
//!
//! Never decides which, and never leaves one behind: what is dropped is killed.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use parking_lot::Mutex;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::AsyncRead;
use tokio::process::{Child, Command};
use tokio::time::Instant;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::guardian::Guardian;

/// Lines that are kept, and the longest of them in bytes.
const LINES: usize = 3;
const MAX_LINE_BYTES: usize = 4096;

/// A process as others see it, cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Process {
    /// Its id.
    pub(crate) pid: u32,
    leave: CancellationToken,
    kill: CancellationToken,
    said: Said,
}

/// The last lines of a process.
#[derive(Clone, Debug, Default)]
pub(crate) struct Said(Arc<Mutex<VecDeque<String>>>);

/// The end of a process.
#[derive(Debug)]
pub(crate) struct End {
    /// When.
    pub(crate) at: Instant,
    /// Somebody here killed it.
    pub(crate) was_killed: bool,
    /// How, if nobody killed it and it didn't leave when it was asked to.
    pub(crate) wrong: Option<String>,
}

impl Said {
    fn add(&self, line: String) {
        let mut lines = self.0.lock();
        lines.push_back(line);
        while lines.len() > LINES {
            lines.pop_front();
        }
    }

    /// Them, each on one of its own behind a line break.
    pub(crate) fn text(&self) -> String {
        self.0.lock().iter().map(|line| format!("\n  {line}")).collect()
    }
}

impl Process {
    /// Starts one in a group of its own; its lines on stderr are told. What is returned beside it is to be awaited: its
    /// end, which comes within `grace` once it is asked to leave.
    ///
    /// # Errors
    /// If there is no process to be had.
    pub(crate) async fn start<T>(
        mut command: Command,
        grace: Duration,
        guardian: &Arc<Guardian>,
        tasks: &TaskTracker,
        told: T,
    ) -> std::io::Result<(Self, impl Future<Output = End> + Send + use<T>)>
    where
        T: Fn(&str) + Send + Sync + 'static,
    {
        // Ctrl-C in the terminal is for us to pass on.
        let mut child = command.process_group(0).kill_on_drop(true).spawn()?;
        let pid = child.id().ok_or_else(|| std::io::Error::other("it ended at once"))?;
        let group = i32::try_from(pid).ok().and_then(Pid::from_raw);
        if let Some(group) = group {
            guardian.runs(group, true).await;
        }
        let (leave, kill) = Default::default();
        let process = Self { pid, leave, kill, said: Said::default() };
        if let Some(from) = child.stderr.take() {
            tasks.spawn(listen(from, process.said.clone(), told));
        }
        let (guardian, own) = (Arc::clone(guardian), process.clone());
        let end = async move {
            let end = own.attend(child, group, grace).await;
            if let Some(group) = group {
                guardian.runs(group, false).await;
            }
            end
        };
        Ok((process, end))
    }

    /// Asks it to leave (SIGTERM).
    pub(crate) fn leave(&self) {
        self.leave.cancel();
    }

    /// Kills it (SIGKILL).
    pub(crate) fn kill(&self) {
        self.kill.cancel();
    }

    /// Whether it was asked to leave, or killed.
    pub(crate) fn is_told_to_end(&self) -> bool {
        self.leave.is_cancelled() || self.kill.is_cancelled()
    }

    /// Its last lines.
    pub(crate) fn said(&self) -> &Said {
        &self.said
    }

    /// Stays with it until it ends.
    async fn attend(&self, mut child: Child, group: Option<Pid>, grace: Duration) -> End {
        let signal = |signal| {
            if let Some(group) = group {
                // One that has just ended needs no signal.
                let _ = kill_process_group(group, signal);
            }
        };
        let mut late = false;
        let mut ended = tokio::select! {
            status = child.wait() => Some(status),
            () = self.leave.cancelled() => {
                signal(Signal::TERM);
                None
            }
            () = self.kill.cancelled() => None,
        };
        if ended.is_none() {
            ended = tokio::select! {
                status = child.wait() => Some(status),
                () = self.kill.cancelled() => None,
                () = tokio::time::sleep(grace) => {
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
        let was_killed = self.kill.is_cancelled();
        let wrong = match was_killed {
            true => None,
            false if late => Some(format!("had to be killed: it hadn't left after {} s", grace.as_secs())),
            false if self.leave.is_cancelled() => None,
            false => Some(format!("{how} unasked")),
        };
        End { at, was_killed, wrong }
    }
}

/// Keeps the last lines of what a process says, and tells each.
async fn listen(from: impl AsyncRead + Unpin, said: Said, told: impl Fn(&str)) {
    let mut lines = FramedRead::new(from, LinesCodec::new_with_max_length(MAX_LINE_BYTES));
    let mut failed = false;
    loop {
        match lines.next().await {
            Some(Ok(line)) => {
                failed = false;
                told(&line);
                said.add(line);
            }
            // A line that is too long: the stream gives `None` once, and goes on behind it.
            Some(Err(_)) => failed = true,
            None if failed => failed = false,
            None => return,
        }
    }
}
