//! A process that outlives this one by a moment, if this one is killed: it ends the webhooks then.
//!
//! Never does anything while this process lives: it waits for the end of a pipe that only this process holds open.

use std::io;
use std::process::Stdio;

use parking_lot::Mutex;
use rustix::process::Pid;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{ChildStdin, Command};
use tokio::sync::Mutex as AsyncMutex;

/// Keeps the process groups that are named (`+ 12`) and not taken back (`- 12`); at the end of its input it kills them.
const SCRIPT: &str = r#"
trap '' HUP INT QUIT TERM
groups=
while read -r sign id; do
  rest=
  for group in $groups; do [ "$group" = "$id" ] || rest="$rest $group"; done
  groups=$rest
  [ "$sign" = - ] || groups="$groups $id"
done
for group in $groups; do kill -s KILL -- "-$group" 2>/dev/null; done
"#;

/// The guardian of this process's webhooks.
pub(crate) struct Guardian {
    input: AsyncMutex<Option<ChildStdin>>,
    /// It is waited for when it has ended.
    _process: Mutex<tokio::process::Child>,
}

impl Guardian {
    /// Starts it; needs a runtime.
    ///
    /// # Errors
    /// If there is no `sh`.
    pub(crate) fn start() -> io::Result<Self> {
        let mut process = Command::new("sh")
            .args(["-c", SCRIPT])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            // Ctrl-C in the terminal is not for it.
            .process_group(0)
            .spawn()?;
        let input = AsyncMutex::new(process.stdin.take());
        Ok(Self { input, _process: Mutex::new(process) })
    }

    /// A process group runs from now on, or (`false`) no longer.
    pub(crate) async fn runs(&self, group: Pid, runs: bool) {
        let sign = if runs { '+' } else { '-' };
        if let Some(input) = &mut *self.input.lock().await {
            // Without a guardian we go on: it is a second net.
            let _ = input.write_all(format!("{sign} {}\n", group.as_raw_nonzero()).as_bytes()).await;
        }
    }
}
