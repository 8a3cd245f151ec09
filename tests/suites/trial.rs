//! From a suite's async function to a trial of libtest-mimic: server on demand, runtime, time limit, cleaning.
//!
//! Never starts a server for a trial that isn't run, and never lets a trial's failure skip the stop of one.

use std::future::Future;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use futures::FutureExt as _;
use futures::future::LocalBoxFuture;
use libtest_mimic::{Completion, Failed, Trial};

use crate::child::tail;
use crate::cluster::{CLEANUP, Cleanup, Context, Progress};
use crate::server::{Server, ServerKind, Started, lock};
use crate::wait;

/// How long a trial may take unless it says otherwise.
const TIMEOUT: Duration = Duration::from_secs(180);
/// Threads of each trial's runtime.
const WORKERS: usize = 2;

type Run = dyn Fn(Context) -> LocalBoxFuture<'static, anyhow::Result<()>> + Send + Sync;

/// A trial before it is bound to a kind of server.
#[derive(Clone)]
pub(crate) struct Case {
    suite: &'static str,
    name: &'static str,
    timeout: Duration,
    own_server: bool,
    /// What the embedded server lacks for it.
    lacking: Option<&'static str>,
    run: Arc<Run>,
}

impl Case {
    /// `<server>::<suite>::<name>`, run by `run`.
    pub(crate) fn new<F, Fut>(suite: &'static str, name: &'static str, run: F) -> Self
    where
        F: Fn(Context) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = anyhow::Result<()>> + 'static,
    {
        let run = Arc::new(move |context| run(context).boxed_local());
        Self { suite, name, timeout: TIMEOUT, own_server: false, lacking: None, run }
    }

    /// Another time limit.
    pub(crate) fn timeout(self, timeout: Duration) -> Self {
        Self { timeout, ..self }
    }

    /// A server of its own, started for it and stopped after it: for trials that stop or freeze the API server.
    pub(crate) fn own_server(self) -> Self {
        Self { own_server: true, ..self }
    }

    /// Ignored on the embedded server, which can't do this yet.
    pub(crate) fn lacks_embedded(self, what: &'static str) -> Self {
        Self { lacking: Some(what), ..self }
    }

    /// The trial on one kind of server.
    pub(crate) fn on(self, shared: &Arc<Shared>) -> Trial {
        let name = format!("{}::{}::{}", shared.kind.name(), self.suite, self.name);
        let shared = Arc::clone(shared);
        Trial::ignorable_test(name, move || self.execute(&shared))
    }

    fn execute(&self, shared: &Shared) -> Result<Completion, Failed> {
        if let (ServerKind::Embedded, Some(what)) = (shared.kind, self.lacking) {
            return Ok(Completion::ignored_with(format!("the embedded server has no {what} yet")));
        }
        if !self.own_server {
            return match shared.get()? {
                Ok(server) => self.run_on(server).map(|()| Completion::Completed),
                Err(reason) => Ok(Completion::ignored_with(reason)),
            };
        }
        match start(shared.kind)? {
            Ok(server) => {
                let result = self.run_on(Arc::clone(&server));
                let stopped = server.stop().map_err(|error| Failed::from(format!("stop: {error:#}")));
                result.and(stopped).map(|()| Completion::Completed)
            }
            Err(reason) => Ok(Completion::ignored_with(reason)),
        }
    }

    fn run_on(&self, server: Arc<Server>) -> Result<(), Failed> {
        let progress = Arc::new(Progress::default());
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(WORKERS)
            .enable_all()
            .build()
            .map_err(|error| Failed::from(format!("runtime: {error}")))?;
        let result = runtime.block_on(self.guarded(Arc::clone(&server), &progress));
        // Tasks that the trial left behind must not hold the next one up.
        runtime.shutdown_background();
        result.map_err(|error| {
            let mut message = format!("{error:#}");
            if let Err(ended) = server.check() {
                message.push_str(&format!("\n{ended:#}"));
            }
            for log in progress.logs() {
                message.push_str(&format!("\n--- end of {}\n{}", log.display(), tail(&log)));
            }
            Failed::from(message)
        })
    }

    async fn guarded(&self, server: Arc<Server>, progress: &Arc<Progress>) -> anyhow::Result<()> {
        let context = tokio::time::timeout(self.timeout, Context::new(server, Arc::clone(progress)))
            .await
            .with_context(|| format!("no namespace within {:?}", self.timeout))??;
        let cleanup = Cleanup::of(&context);
        // The future owns the context and all that the trial made: all of it is dropped before the cleaning. A panic
        // is caught so that the cleaning isn't skipped.
        let run = std::panic::AssertUnwindSafe((self.run)(context)).catch_unwind();
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
        let cleaned = wait::until("the trial's controllers are deleted", CLEANUP, |_| {}, async || cleanup.run().await);
        match (result, cleaned.await) {
            // What the trial itself says matters more.
            (Err(error), _) => Err(error),
            (Ok(()), cleaned) => cleaned,
        }
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
        let outcome = state.get_or_insert_with(|| start(self.kind).map_err(|failed| text(&failed)));
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

fn start(kind: ServerKind) -> Result<Available, Failed> {
    match Server::start(kind) {
        Ok(Started::Running(server)) => Ok(Ok(Arc::from(server))),
        Ok(Started::Unavailable(reason)) if std::env::var("CI").is_ok_and(|value| value == "true") => {
            Err(Failed::from(format!("{reason} (an error because CI=true)")))
        }
        Ok(Started::Unavailable(reason)) => Ok(Err(reason)),
        Err(error) => Err(Failed::from(format!("start the {} server: {error:#}", kind.name()))),
    }
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
