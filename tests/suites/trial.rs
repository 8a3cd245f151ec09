//! From a suite's async function to a trial of libtest-mimic: servers on demand, runtime, time limit, cleaning.
//!
//! Never starts a server for a trial that isn't run, and never lets a trial's failure skip the stop of one.

use std::future::Future;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use libtest_mimic::{Completion, Failed, Trial};
use tempfile::TempDir;

use crate::built::Built;
use crate::child::tail;
use crate::cluster::{CLEANUP, Cleanup, Context, Progress};
use crate::server::{Server, ServerKind, Setup, Started, lock};
use crate::wait;

/// How long a trial may take unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(180);
/// Threads of each trial's runtime.
const WORKERS: usize = 2;

type Ended = LocalBoxFuture<'static, anyhow::Result<()>>;
type Run = dyn Fn(Vec<Context>, Scratch) -> Ended + Send + Sync;

/// Finds a program, or says why this machine can't have it.
type Needs = fn() -> anyhow::Result<Built>;

/// What the name of a trial on both servers begins with.
const BOTH: &str = "both";
/// What the name of a trial without a server begins with.
const ALONE: &str = "alone";

/// The servers that a case runs on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Servers {
    /// Once on each.
    Each,
    /// Once with both, to compare them.
    Both,
    /// Once, on the real one: for what the embedded one doesn't have and refuses.
    Real,
    /// Once, without any: for programs that bring their own.
    None,
}

/// What a trial has that isn't a server's: a folder that goes with it, and words to wait.
pub(crate) struct Scratch {
    /// It outlives the trial, for its logs to be read.
    dir: Arc<TempDir>,
    progress: Arc<Progress>,
}

impl Scratch {
    /// The folder.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// A file for a process's output, which is shown if the trial fails.
    pub(crate) fn log_file(&self, name: &str) -> PathBuf {
        let path = self.dir.path().join(format!("{name}.log"));
        self.progress.add_log(path.clone());
        path
    }

    /// As [`Context::wait`].
    ///
    /// # Errors
    /// It isn't so in time.
    pub(crate) async fn wait<T>(
        &self,
        what: &str,
        deadline: Duration,
        ask: impl AsyncFnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.progress.awaits(what, None);
        wait::until(what, deadline, |state| self.progress.awaits(what, Some(state)), ask).await
    }
}

/// A trial before it is bound to a kind of server.
#[derive(Clone)]
pub(crate) struct Case {
    suite: &'static str,
    name: &'static str,
    timeout: Duration,
    own_server: bool,
    /// Of a server of its own.
    setup: Setup,
    servers: Servers,
    /// A program that it needs.
    needs: Option<Needs>,
    run: Arc<Run>,
}

impl Case {
    /// The suite that it belongs to.
    pub(crate) fn suite(&self) -> &'static str {
        self.suite
    }

    /// Its name within its suite.
    pub(crate) fn name(&self) -> &'static str {
        self.name
    }

    /// `<server>::<suite>::<name>`, run by `run`.
    pub(crate) fn new<F, Fut>(suite: &'static str, name: &'static str, run: F) -> Self
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = anyhow::Result<()>> + 'static,
    {
        Self::with(suite, name, Servers::Each, move |contexts, _| {
            let context = contexts.into_iter().next();
            let ended = context.map(&run);
            async { ended.ok_or_else(|| anyhow!("no server"))?.await }.boxed_local()
        })
    }

    /// `real::<suite>::<name>` alone: for what the embedded server doesn't have.
    pub(crate) fn real<F, Fut>(suite: &'static str, name: &'static str, run: F) -> Self
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = anyhow::Result<()>> + 'static,
    {
        Self { servers: Servers::Real, ..Self::new(suite, name, run) }
    }

    /// `both::<suite>::<name>`: `run` gets a corner of the embedded and one of the real server, in this order, and
    /// compares what they do.
    pub(crate) fn both<F, Fut>(suite: &'static str, name: &'static str, run: F) -> Self
    where
        F: Fn(Context, Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = anyhow::Result<()>> + 'static,
    {
        Self::with(suite, name, Servers::Both, move |contexts, _| {
            let ended = <[Context; 2]>::try_from(contexts).ok().map(|[embedded, real]| run(embedded, real));
            async { ended.ok_or_else(|| anyhow!("not two servers"))?.await }.boxed_local()
        })
    }

    /// `alone::<suite>::<name>`: `run` gets no server.
    pub(crate) fn alone<F, Fut>(suite: &'static str, name: &'static str, run: F) -> Self
    where
        F: Fn(Scratch) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = anyhow::Result<()>> + 'static,
    {
        Self::with(suite, name, Servers::None, move |_, scratch| run(scratch).boxed_local())
    }

    fn with<F>(suite: &'static str, name: &'static str, servers: Servers, run: F) -> Self
    where
        F: Fn(Vec<Context>, Scratch) -> Ended + Send + Sync + 'static,
    {
        Self {
            suite,
            name,
            timeout: TIMEOUT,
            own_server: false,
            setup: Setup::default(),
            servers,
            needs: None,
            run: Arc::new(run),
        }
    }

    /// Another time limit.
    pub(crate) fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// A server of its own, started for it and stopped after it: for trials that stop or freeze the API server.
    pub(crate) fn own_server(self) -> Self {
        Self { own_server: true, ..self }
    }

    /// An embedded server of its own that remembers so few events of a kind; the real one is shared, its memory is its own.
    pub(crate) fn embedded_remembers(self, events: usize) -> Self {
        Self { setup: Setup { remembered: Some(events), ..self.setup }, ..self }
    }

    /// A program beside the servers', without which it is skipped as without a server.
    pub(crate) fn needs(self, program: Needs) -> Self {
        Self { needs: Some(program), ..self }
    }

    /// The trials that it makes: one a server, or one alone.
    pub(crate) fn on(&self, servers: &[Arc<Shared>; 2], tally: &Arc<Tally>) -> Vec<Trial> {
        let places = match self.servers {
            Servers::Each => servers.iter().map(|server| (server.kind.name(), vec![Arc::clone(server)])).collect(),
            Servers::Real => {
                let real = servers.iter().filter(|server| server.kind == ServerKind::Real);
                real.map(|server| (server.kind.name(), vec![Arc::clone(server)])).collect()
            }
            Servers::Both => vec![(BOTH, servers.to_vec())],
            Servers::None => vec![(ALONE, Vec::new())],
        };
        places.into_iter().map(|(place, servers)| self.clone().trial(place, servers, Arc::clone(tally))).collect()
    }

    fn trial(self, place: &'static str, servers: Vec<Arc<Shared>>, tally: Arc<Tally>) -> Trial {
        let name = format!("{place}::{}::{}", self.suite, self.name);
        Trial::ignorable_test(name, move || {
            let result = self.execute(&servers);
            tally.count(place, &result);
            result
        })
    }

    fn execute(&self, shared: &[Arc<Shared>]) -> Result<Completion, Failed> {
        match self.needs.map(|program| program()) {
            None | Some(Ok(Built::Found(_))) => {}
            Some(Ok(Built::Unavailable(reason))) => return unavailable(reason).map(Completion::ignored_with),
            Some(Err(error)) => return Err(Failed::from(format!("{error:#}"))),
        }
        let mut servers = Vec::new();
        let mut missing = None;
        let mut own = Vec::new();
        for shared in shared {
            let is_own = self.is_own(shared.kind);
            match if is_own { start(shared.kind, self.setup) } else { shared.get() } {
                Ok(Ok(server)) => {
                    own.extend(is_own.then(|| Arc::clone(&server)));
                    servers.push(server);
                }
                Ok(Err(reason)) => missing = Some(Ok(Completion::ignored_with(reason))),
                Err(failed) => missing = Some(Err(failed)),
            }
        }
        let result = match missing {
            Some(missing) => missing,
            None => self.run_on(&servers).map(|()| Completion::Completed),
        };
        let stopped = own.iter().try_for_each(|server| server.stop());
        let stopped = stopped.map_err(|error| Failed::from(format!("stop: {error:#}")));
        result.and_then(|done| stopped.map(|()| done))
    }

    fn is_own(&self, kind: ServerKind) -> bool {
        self.own_server || (kind == ServerKind::Embedded && self.setup.remembered.is_some())
    }

    fn run_on(&self, servers: &[Arc<Server>]) -> Result<(), Failed> {
        let progress = Arc::new(Progress::default());
        let dir = tempfile::Builder::new().prefix("ringmaster-suites-").tempdir();
        let dir = Arc::new(dir.map_err(|error| Failed::from(format!("a folder: {error}")))?);
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()
            .map_err(|error| Failed::from(format!("runtime: {error}")))?;
        let result = runtime.block_on(self.guarded(servers, &dir, &progress));
        // Tasks that the trial left behind must not hold the next one up.
        runtime.shutdown_background();
        result.map_err(|error| {
            let mut message = format!("{error:#}");
            for ended in servers.iter().filter_map(|server| server.check().err()) {
                message.push_str(&format!("\n{ended:#}"));
            }
            for log in progress.logs() {
                message.push_str(&format!("\n--- end of {}\n{}", log.display(), tail(&log)));
            }
            Failed::from(message)
        })
    }

    async fn guarded(
        &self,
        servers: &[Arc<Server>],
        dir: &Arc<TempDir>,
        progress: &Arc<Progress>,
    ) -> anyhow::Result<()> {
        let mut contexts = Vec::new();
        for server in servers {
            let context = Context::new(Arc::clone(server), Arc::clone(progress));
            let context = tokio::time::timeout(self.timeout, context).await;
            contexts.push(context.with_context(|| format!("no namespace within {:?}", self.timeout))??);
        }
        let cleanups: Vec<Cleanup> = contexts.iter().map(Cleanup::of).collect();
        let scratch = Scratch { dir: Arc::clone(dir), progress: Arc::clone(progress) };
        // The future owns the contexts and all that the trial made: all of it is dropped before the cleaning. A panic
        // is caught so that the cleaning isn't skipped.
        let run = std::panic::AssertUnwindSafe((self.run)(contexts, scratch)).catch_unwind();
        let outcome = tokio::time::timeout(self.timeout, run).await;
        let result = match outcome {
            Ok(Ok(result)) => result,
            Ok(Err(panic)) => Err(anyhow!("panicked: {}", panic_text(panic.as_ref()))),
            Err(_) => Err(anyhow!("not done within {:?}; awaited: {}", self.timeout, or_nothing(progress.awaited()))),
        };
        if self.own_server {
            // It goes with all that is on it, and it may have been stopped for good.
            return result;
        }
        let mut cleaned = Ok(());
        for cleanup in &cleanups {
            let clean = async || cleanup.run().await;
            let done = wait::until("the trial's controllers are deleted", CLEANUP, |_| {}, clean).await;
            cleaned = cleaned.and(done);
        }
        // What the trial itself says matters more.
        result.and(cleaned)
    }
}

/// What became of the trials, by where they ran.
#[derive(Default)]
pub(crate) struct Tally {
    /// Passed, failed, skipped: see [`Self::PLACES`].
    counts: [[AtomicUsize; 3]; 4],
}

impl Tally {
    const PLACES: [&'static str; 4] = [ServerKind::Embedded.name(), ServerKind::Real.name(), BOTH, ALONE];

    fn count(&self, place: &str, result: &Result<Completion, Failed>) {
        let outcome = match result {
            Ok(Completion::Completed) => 0,
            Err(_) => 1,
            Ok(Completion::Ignored { .. }) => 2,
        };
        for (counts, _) in self.counts.iter().zip(Self::PLACES).filter(|(_, name)| *name == place) {
            counts[outcome].fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One line a place where something ran.
    pub(crate) fn lines(&self) -> Vec<String> {
        let line = |(counts, place): (&[AtomicUsize; 3], &str)| {
            let [passed, failed, skipped] = counts.each_ref().map(|count| count.load(Ordering::Relaxed));
            let on = match place {
                BOTH => "both servers compared".to_owned(),
                ALONE => "without a server".to_owned(),
                place => format!("{place} API server"),
            };
            (passed + failed + skipped > 0)
                .then(|| format!("{on}: {passed} passed, {failed} failed, {skipped} skipped"))
        };
        self.counts.iter().zip(Self::PLACES).filter_map(line).collect()
    }
}

/// The one server that the trials of a kind share: started by the first that needs it.
pub(crate) struct Shared {
    kind: ServerKind,
    state: Mutex<Option<Outcome>>,
}

/// A server, or why this machine can't have one.
type Available = Result<Arc<Server>, String>;
/// What the start came to; a failed one isn't tried again for each trial.
type Outcome = Result<Available, String>;

impl Shared {
    /// Nothing is started yet.
    pub(crate) fn new(kind: ServerKind) -> Arc<Self> {
        Arc::new(Self { kind, state: Mutex::new(None) })
    }

    fn get(&self) -> Result<Available, Failed> {
        let mut state = lock(&self.state);
        let outcome = state.get_or_insert_with(|| start(self.kind, Setup::default()).map_err(|failed| text(&failed)));
        outcome.clone().map_err(Failed::from)
    }

    /// Stops the server if it was started.
    pub(crate) fn stop(&self) -> anyhow::Result<()> {
        match lock(&self.state).take() {
            Some(Ok(Ok(server))) => server.stop(),
            _ => Ok(()),
        }
    }
}

fn start(kind: ServerKind, setup: Setup) -> Result<Available, Failed> {
    match Server::start(kind, setup) {
        Ok(Started::Running(server)) => Ok(Ok(Arc::from(server))),
        Ok(Started::Unavailable(reason)) => unavailable(reason).map(Err),
        Err(error) => Err(Failed::from(format!("start the {} server: {error:#}", kind.name()))),
    }
}

/// Why a trial is skipped; in CI nothing may be.
fn unavailable(reason: String) -> Result<String, Failed> {
    if std::env::var("CI").is_ok_and(|value| value == "true") {
        return Err(Failed::from(format!("{reason} (an error because CI=true)")));
    }
    Ok(reason)
}

fn text(failed: &Failed) -> String {
    failed.message().unwrap_or("no message").to_owned()
}

fn or_nothing(awaited: String) -> String {
    if awaited.is_empty() { "nothing that it named".to_owned() } else { awaited }
}

fn panic_text(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_else(|| "no message".into())
}
