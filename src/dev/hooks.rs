//! Webhooks as processes: started by a shell, started again when they exit or their source changes, stopped as a group.
//!
//! Never speaks to a webhook; what it says goes on line by line, under its name.

use std::fs;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt as _;
use rustix::process::{Pid, Signal, kill_process_group, test_kill_process_group};
use tokio::io::AsyncRead;
use tokio::process::{Child, Command};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::codec::{FramedRead, LinesCodec};
use tokio_util::task::TaskTracker;

use crate::Stop;
use crate::guardian::Guardian;
use crate::sources::{Snapshot, Sources, changed};

/// Longest line that is passed on, in bytes; a longer one is left out, and said to be.
const MAX_LINE_BYTES: usize = 16 * 1024;
/// How often the sources are looked at.
const LOOK: Duration = Duration::from_millis(500);
/// How long a process may take to end after SIGTERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);
/// How often it is looked whether a group has ended.
const GONE_LOOK: Duration = Duration::from_millis(20);
/// How long what a process wrote last may take to be read once it has ended.
const LAST_LINES: Duration = Duration::from_secs(1);
/// Pause before a process that exited is started again; doubled each time, up to [`MAX_PAUSE`].
const PAUSE: Duration = Duration::from_millis(500);
const MAX_PAUSE: Duration = Duration::from_secs(15);
/// A process that ran this long is well: its next pause is the first one again.
const WELL: Duration = Duration::from_secs(10);

/// A line of a webhook's, or of ours about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The webhook's name.
    pub(crate) hook: String,
    /// The line.
    pub(crate) text: String,
    /// Whether it is ours.
    pub(crate) ours: bool,
}

/// Where lines go.
pub(crate) type Told = Arc<dyn Fn(Line) + Send + Sync>;

/// A webhook process that shall run.
pub(crate) struct Hook {
    name: String,
    command: String,
    sources: Sources,
    told: Told,
    guardian: Arc<Guardian>,
    renewed: Arc<Notify>,
}

/// So many changes in a row, each sooner than [`WELL`] after a start, are somebody who types fast. More of them have pauses
/// between: the webhook may write what looks like its source.
const QUICK_CHANGES: u32 = 5;

/// Why a run of the process ended.
enum End {
    Exited(std::io::Result<ExitStatus>),
    Changed(String),
    Stopped,
}

impl Hook {
    /// A webhook by its command line, which `sh` reads, in the working folder. `renewed` is told of each start but the
    /// first.
    pub(crate) fn new(
        (name, command): (&str, &str),
        folder: &Path,
        told: Told,
        guardian: &Arc<Guardian>,
        renewed: &Arc<Notify>,
    ) -> Self {
        let sources = Sources::of(command, folder);
        let (guardian, renewed) = (Arc::clone(guardian), Arc::clone(renewed));
        Self { name: name.to_owned(), command: command.to_owned(), sources, told, guardian, renewed }
    }

    /// What is watched, for people.
    pub(crate) fn watched(&self) -> String {
        let roots: Vec<String> = self.sources.roots().iter().map(|root| root.display().to_string()).collect();
        roots.join(", ")
    }

    /// Whether only a part of that is.
    pub(crate) fn has_too_many_sources(&self) -> bool {
        self.sources.is_too_large()
    }

    /// Runs it until it shall stop, and its last process to the end.
    pub(crate) async fn run(self, stop: Stop) {
        let (mut pause, mut quick, mut first) = (PAUSE, 0, true);
        while !stop.gently.is_cancelled() {
            let before = self.snapshot().await;
            let started = Instant::now();
            let spawned = self.spawn();
            if !std::mem::take(&mut first) {
                self.renewed.notify_one();
            }
            let end = match spawned {
                Ok(child) => self.attend(child, &before, &stop).await,
                Err(error) => End::Exited(Err(error)),
            };
            let was_well = started.elapsed() >= WELL;
            if was_well {
                (pause, quick) = (PAUSE, 0);
            }
            match end {
                End::Stopped => return,
                End::Changed(what) if quick < QUICK_CHANGES => {
                    quick += 1;
                    self.say(format!("{what} changed: starting again"));
                }
                End::Changed(what) => {
                    self.say(format!("{what} changes again and again: starting in {:.1} s", pause.as_secs_f64()));
                    tokio::select! {
                        () = stop.gently.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                    }
                    pause = (pause * 2).min(MAX_PAUSE);
                }
                End::Exited(how) => {
                    let how = match how {
                        Ok(status) => format!("ended ({status})"),
                        Err(error) => format!("can't be started ({error})"),
                    };
                    let seconds = pause.as_secs_f64();
                    self.say(format!("{how}: starting again in {seconds:.1} s, or when its source changes"));
                    tokio::select! {
                        () = stop.gently.cancelled() => return,
                        () = tokio::time::sleep(pause) => {}
                        what = self.change(&before) => self.say(format!("{what} changed: starting again")),
                    }
                    pause = (pause * 2).min(MAX_PAUSE);
                }
            }
        }
    }

    fn spawn(&self) -> std::io::Result<Child> {
        Command::new("sh")
            .args(["-c", &self.command])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Ctrl-C in the terminal is for us to pass on.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    /// Stays with a process until it ends; ends it if it has to, and all that it started.
    async fn attend(&self, mut child: Child, before: &Snapshot, stop: &Stop) -> End {
        let group = child.id().and_then(|id| Pid::from_raw(i32::try_from(id).ok()?));
        if let Some(group) = group {
            self.guardian.runs(group, true).await;
        }
        let readers = TaskTracker::new();
        if let Some(out) = child.stdout.take() {
            readers.spawn(self.pass_on(out));
        }
        if let Some(err) = child.stderr.take() {
            readers.spawn(self.pass_on(err));
        }
        readers.close();
        let end = tokio::select! {
            status = child.wait() => End::Exited(status),
            what = self.change(before) => End::Changed(what),
            () = stop.gently.cancelled() => End::Stopped,
        };
        if let Some(group) = group {
            self.end(&mut child, group, stop).await;
            self.guardian.runs(group, false).await;
        }
        let _ = child.wait().await;
        let _ = tokio::time::timeout(LAST_LINES, readers.wait()).await;
        end
    }

    /// SIGTERM for the whole group, and SIGKILL for what is left of it after [`GRACE`].
    async fn end(&self, child: &mut Child, group: Pid, stop: &Stop) {
        // A group is gone once all its processes are: then there is nobody to signal.
        let _ = kill_process_group(group, Signal::TERM);
        let gone = async {
            let _ = child.wait().await;
            while is_alive(group) {
                tokio::time::sleep(GONE_LOOK).await;
            }
        };
        tokio::select! {
            ended = tokio::time::timeout(GRACE, gone) => {
                if ended.is_err() {
                    self.say(format!("still runs {} s after SIGTERM: killing it", GRACE.as_secs()));
                }
            }
            () = stop.now.cancelled() => {}
        }
        let _ = kill_process_group(group, Signal::KILL);
    }

    /// Comes back once the sources have changed and are still again; with the first file that did.
    async fn change(&self, before: &Snapshot) -> String {
        if self.sources.roots().is_empty() {
            return std::future::pending().await;
        }
        let mut last = before.clone();
        loop {
            tokio::time::sleep(LOOK).await;
            let now = self.snapshot().await;
            // An editor writes in steps: wait for two looks that agree.
            if now == last
                && let Some(first) = changed(before, &now).first()
            {
                return first.file_name().unwrap_or(first.as_os_str()).to_string_lossy().into_owned();
            }
            last = now;
        }
    }

    async fn snapshot(&self) -> Snapshot {
        let sources = self.sources.clone();
        tokio::task::spawn_blocking(move || sources.snapshot()).await.unwrap_or_default()
    }

    fn pass_on<S: AsyncRead + Unpin + Send + 'static>(&self, stream: S) -> impl Future<Output = ()> + Send + use<S> {
        let (told, name) = (Arc::clone(&self.told), self.name.clone());
        let mut lines = FramedRead::new(stream, LinesCodec::new_with_max_length(MAX_LINE_BYTES));
        async move {
            let say = |text, ours| told(Line { hook: name.clone(), text, ours });
            // After an error the stream gives `None` once, and goes on behind the line.
            let mut failed = false;
            loop {
                match lines.next().await {
                    Some(Ok(text)) => {
                        say(text, false);
                        failed = false;
                    }
                    Some(Err(_)) => {
                        say(format!("(a line longer than {MAX_LINE_BYTES} bytes, or no text)"), true);
                        failed = true;
                    }
                    None if failed => failed = false,
                    None => return,
                }
            }
        }
    }

    fn say(&self, text: String) {
        (self.told)(Line { hook: self.name.clone(), text, ours: true });
    }
}

/// Whether a process of the group still runs. One that has ended, and that nobody waits for, doesn't count.
fn is_alive(group: Pid) -> bool {
    if test_kill_process_group(group).is_err() {
        return false;
    }
    let Ok(processes) = fs::read_dir("/proc") else { return true };
    let number = group.as_raw_nonzero().to_string();
    processes.flatten().any(|process| {
        // `pid (name) state parent group ...`; the name may hold anything.
        let stat = fs::read_to_string(process.path().join("stat")).unwrap_or_default();
        let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).splitn(4, ' ').collect();
        fields.get(2) == Some(&number.as_str()) && !matches!(fields.first(), Some(&("Z" | "X")))
    })
}

/// Short names for command lines: the program's or script's own, and numbers where they clash.
pub(crate) fn names(commands: &[String]) -> Vec<String> {
    let stems: Vec<String> = commands.iter().map(|command| stem(command)).collect();
    let again = |index: usize| stems[..index].iter().filter(|stem| **stem == stems[index]).count();
    stems
        .iter()
        .enumerate()
        .map(|(index, stem)| match again(index) {
            0 => stem.clone(),
            n => format!("{stem}-{}", n + 1),
        })
        .collect()
}

/// The last word that looks like a path, else the first word.
fn stem(command: &str) -> String {
    let words: Vec<&str> = command.split_whitespace().filter(|word| !word.starts_with('-')).collect();
    let is_path = |word: &&&str| word.contains(['/', '.']) && !word.contains([':', '=']);
    let word = words.iter().skip(1).find(is_path).or_else(|| words.first()).copied().unwrap_or("hook");
    let file = Path::new(word).file_stem().and_then(|stem| stem.to_str()).unwrap_or(word);
    file.chars().filter(|c| c.is_alphanumeric() || matches!(c, '-' | '_')).take(20).collect()
}

#[cfg(test)]
mod tests {
    use parking_lot::Mutex;

    use super::*;

    struct Running {
        lines: Arc<Mutex<Vec<Line>>>,
        stop: Stop,
        task: tokio::task::JoinHandle<()>,
    }

    fn run(command: &str, folder: &Path) -> Running {
        let lines = Arc::new(Mutex::new(Vec::new()));
        let told: Told = Arc::new({
            let lines = Arc::clone(&lines);
            move |line| lines.lock().push(line)
        });
        let stop = Stop::default();
        let guardian = Arc::new(Guardian::start().unwrap());
        let command = format!("cd '{}' && {command}", folder.display());
        let hook = Hook::new(("hook", &command), folder, told, &guardian, &Arc::default());
        Running { lines, task: tokio::spawn(hook.run(stop.clone())), stop }
    }

    impl Running {
        async fn until(&self, what: impl Fn(&[Line]) -> bool) {
            let seen = async {
                while !what(&self.lines.lock()) {
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let seen = tokio::time::timeout(Duration::from_secs(20), seen).await;
            assert!(seen.is_ok(), "{:?}", self.lines.lock());
        }
    }

    fn count(lines: &[Line], text: &str) -> usize {
        lines.iter().filter(|line| line.text.contains(text)).count()
    }

    #[tokio::test]
    async fn a_process_that_exits_or_whose_source_changes_is_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("hook.sh");
        fs::write(&script, "echo one; echo two >&2; exit 3\n").unwrap();
        let running = run("sh hook.sh", dir.path());
        running.until(|lines| count(lines, "one") >= 2 && count(lines, "two") >= 2).await;
        running.until(|lines| count(lines, "exit status: 3") >= 1).await;
        fs::write(&script, "echo three; while :; do sleep 0.1; done\n").unwrap();
        running.until(|lines| count(lines, "three") == 1).await;
        fs::write(&script, "echo four-four; while :; do sleep 0.1; done\n").unwrap();
        running.until(|lines| count(lines, "hook.sh changed") == 1 && count(lines, "four-four") == 1).await;
        running.stop.gently.cancel();
        running.task.await.unwrap();
    }

    #[tokio::test]
    async fn a_process_below_the_shell_may_end_in_its_own_time() {
        let dir = tempfile::tempdir().unwrap();
        let script =
            "trap 'echo draining; sleep 0.3; echo drained; exit 0' TERM\necho up\nwhile :; do sleep 0.05; done\n";
        fs::write(dir.path().join("hook.sh"), script).unwrap();
        // The shell ends at once; what it runs doesn't.
        let running = run("(sh hook.sh; true); true", dir.path());
        running.until(|lines| count(lines, "up") == 1).await;
        running.stop.gently.cancel();
        running.task.await.unwrap();
        assert_eq!(count(&running.lines.lock(), "drained"), 1);
    }

    #[tokio::test]
    async fn nothing_of_its_group_outlives_it() {
        let dir = tempfile::tempdir().unwrap();
        let script = "trap '' TERM; (sleep 600) & echo child $!; wait\n";
        fs::write(dir.path().join("hook.sh"), script).unwrap();
        let running = run("sh hook.sh", dir.path());
        running.until(|lines| count(lines, "child ") == 1).await;
        let id = running.lines.lock()[0].text.trim_start_matches("child ").parse::<i32>().unwrap();
        running.stop.gently.cancel();
        running.task.await.unwrap();
        let alive = || {
            let stat = fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            !stat.is_empty() && !stat.contains(") Z ")
        };
        let end = Instant::now() + Duration::from_secs(5);
        while alive() && Instant::now() < end {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        assert!(!alive());
    }

    #[tokio::test]
    async fn a_line_without_bounds_is_left_out() {
        let dir = tempfile::tempdir().unwrap();
        let script = "head -c 40000 /dev/zero | tr '\\0' x; echo; echo after; while :; do sleep 0.1; done\n";
        fs::write(dir.path().join("hook.sh"), script).unwrap();
        let running = run("sh hook.sh", dir.path());
        running.until(|lines| count(lines, "after") == 1).await;
        assert!(running.lines.lock().iter().all(|line| line.text.len() <= MAX_LINE_BYTES));
        assert_eq!(count(&running.lines.lock(), "longer than"), 1);
        running.stop.gently.cancel();
        running.task.await.unwrap();
    }

    #[test]
    fn names_are_short_and_differ() {
        let commands = ["python3 a/hook.py --listen :1", "python3 -u b/hook.py", "go run ./cmd/site", "./serve"];
        let commands: Vec<String> = commands.iter().map(|c| (*c).to_owned()).collect();
        assert_eq!(names(&commands), ["hook", "hook-2", "site", "serve"]);
    }
}
