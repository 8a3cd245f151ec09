//! `ringmaster demo`: the Website example with many objects on the local API server, to look at and to play with.
//!
//! ```text
//!   scene      the objects and the webhook
//!   changes    what happens to them
//!   figures    what the engine's metrics say
//!   view       what is shown
//! ```
//!
//! Never measures from within: it sees what anybody sees, objects and `/metrics`.

mod changes;
mod figures;
mod scene;
mod view;

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use console::{Term, style};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use ringmaster_engine::Engine;
use ringmaster_engine::config::{Flags, Place as RunPlace, Settings};
use tokio::time::Instant;
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::hooks::{Hook, Line, Told};
use crate::local::{self, Local, Place};
use crate::objects::{self, Objects};
use crate::session;
use changes::Log;
use figures::Figures;
use view::{NEW, View, short};

/// Fewest and most Websites of a demo.
pub const WEBSITES: std::ops::RangeInclusive<usize> = 1..=5000;

/// How often everything is looked at and drawn.
const LOOK: Duration = Duration::from_millis(250);
/// Looks that "lately" is made of.
const LATELY: usize = 20;
/// Time between two lines without a terminal.
const LINE: Duration = Duration::from_secs(5);
/// How long the webhook may take until it listens.
const HOOK_START: Duration = Duration::from_secs(20);
/// How often that is tried.
const HOOK_LOOK: Duration = Duration::from_millis(20);
/// Syncs at once: as many as one Python process answers without a queue of its own.
const WORKERS: usize = 8;
/// An answer of `/metrics` within this time, or none.
const SCRAPE: Duration = Duration::from_secs(2);
/// Lines of the webhook's that are kept for a reason.
const HOOK_LINES: usize = 5;

/// What `ringmaster demo` was asked for.
#[derive(Debug)]
pub struct Options {
    /// Ends once all Websites are ready.
    pub once: bool,
    /// How long that may take.
    pub timeout: Duration,
    /// How many: see [`WEBSITES`].
    pub websites: usize,
    /// Where the API server listens.
    pub listen: SocketAddr,
    /// Where the kubeconfig is written.
    pub kubeconfig: PathBuf,
    /// Draw on the terminal, or print lines.
    pub live: bool,
}

/// Why a demo failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Local(#[from] local::Error),
    /// The CRDs.
    #[error(transparent)]
    Session(#[from] session::Error),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] ringmaster_engine::Error),
    /// Its settings.
    #[error(transparent)]
    Settings(#[from] ringmaster_engine::config::Error),
    /// The example.
    #[error(transparent)]
    Scene(#[from] scene::Error),
    /// Nothing runs Python.
    #[error("python3 doesn't run ({0}): the demo's webhook is written in it; install Python 3.9 or newer")]
    Python(String),
    /// A folder or a port for the webhook.
    #[error("a place for the webhook")]
    Place(#[source] std::io::Error),
    /// The webhook doesn't listen.
    #[error("the webhook doesn't listen after {seconds} s; its last lines:{0}", seconds = HOOK_START.as_secs())]
    Hook(String),
    /// Not all became ready in time.
    #[error("{0}")]
    NotReady(String),
    /// The terminal can't be written to.
    #[error("the terminal")]
    Terminal(#[source] std::io::Error),
}

impl From<objects::Error> for Error {
    fn from(error: objects::Error) -> Self {
        scene::Error::from(error).into()
    }
}

/// Runs until `shutdown`, or with [`Options::once`] until all Websites are ready.
///
/// # Errors
/// If something can't start; with [`Options::once`], if not all become ready in time.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    python().await?;
    let folder = tempfile::Builder::new().prefix("ringmaster-demo-").tempdir().map_err(Error::Place)?;
    let place = Place { listen: options.listen, kubeconfig: options.kubeconfig.clone(), state: None };
    let local = Local::start(place).await?;
    let stage = Stage {
        objects: Objects::new(local.client()),
        folder: folder.path().to_owned(),
        hook_lines: Arc::default(),
        log: Log::default(),
        tasks: TaskTracker::new(),
        stop: CancellationToken::new(),
    };
    let ended = stage.run(&options, &local, shutdown).await;
    stage.stop.cancel();
    stage.tasks.close();
    stage.tasks.wait().await;
    let stopped = local.stop().await;
    ended?;
    Ok(stopped?)
}

async fn python() -> Result<(), Error> {
    let ran = tokio::process::Command::new("python3").arg("--version").output().await;
    match ran {
        Ok(output) if output.status.success() => Ok(()),
        Ok(output) => Err(Error::Python(output.status.to_string())),
        Err(error) => Err(Error::Python(error.to_string())),
    }
}

/// A port that was free a moment ago.
fn free_port() -> std::io::Result<u16> {
    std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr().map(|address| address.port())
}

/// What the parts of a running demo share.
struct Stage {
    objects: Objects,
    folder: PathBuf,
    hook_lines: Arc<Mutex<VecDeque<String>>>,
    log: Log,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Stage {
    async fn run(&self, options: &Options, local: &Local, shutdown: CancellationToken) -> Result<(), Error> {
        session::crds(&self.objects).await?;
        scene::set(&self.objects).await?;
        scene::pass_themes(&self.objects, &self.folder).await?;
        let port = free_port().map_err(Error::Place)?;
        let command = scene::write_hook(&self.folder, port)?;
        let hook = Hook::new("hook", &command, &self.folder, self.listener());
        self.tasks.spawn(hook.run(self.stop.clone()));
        self.tasks.spawn(self.pass_themes());

        self.hook_listens(port).await?;

        let resolve = format!("{}=127.0.0.1:{port}", scene::HOOK_HOST);
        let workers = Some(WORKERS.to_string());
        let flags = Flags { hook_resolve: Some(vec![resolve]), workers, ..Flags::default() };
        let settings = Settings::load(flags, std::iter::empty(), RunPlace::Dev)?;
        let engine = Engine::with(settings, local.connection()).await?;
        let metrics = engine.metrics_address();
        let engine_stop = CancellationToken::new();
        let mut running = std::pin::pin!(engine.run(engine_stop.clone()));
        let shown = tokio::select! {
            ended = &mut running => return Ok(ended?),
            shown = self.show(options, local, metrics) => shown.map(Some),
            () = shutdown.cancelled() => Ok(None),
        };
        engine_stop.cancel();
        running.await?;
        if let Some(summary) = shown? {
            println!("{summary}");
        }
        Ok(())
    }

    async fn hook_listens(&self, port: u16) -> Result<(), Error> {
        let listens = async {
            while tokio::net::TcpStream::connect(("127.0.0.1", port)).await.is_err() {
                tokio::time::sleep(HOOK_LOOK).await;
            }
        };
        tokio::time::timeout(HOOK_START, listens).await.map_err(|_| Error::Hook(self.said()))
    }

    /// The webhook's last lines, each on one of its own.
    fn said(&self) -> String {
        self.hook_lines.lock().iter().map(|line| format!("\n  {line}")).collect()
    }

    /// Keeps the last lines of the webhook, for a reason.
    fn listener(&self) -> Told {
        let lines = Arc::clone(&self.hook_lines);
        Arc::new(move |Line { text, .. }| {
            let mut lines = lines.lock();
            lines.push_back(text);
            while lines.len() > HOOK_LINES {
                lines.pop_front();
            }
        })
    }

    /// Tells the webhook of themes that come and go, until the end.
    fn pass_themes(&self) -> impl Future<Output = ()> + Send + use<> {
        let (objects, folder, stop) = (self.objects.clone(), self.folder.clone(), self.stop.clone());
        async move {
            while tokio::time::timeout(LOOK, stop.cancelled()).await.is_err() {
                // It is tried again at once, and what is wrong shows as Websites that don't notice.
                let _ = scene::pass_themes(&objects, &folder).await;
            }
        }
    }

    /// Makes the Websites and shows them: until all are ready, with a summary then; or for ever, and changes them.
    async fn show(&self, options: &Options, local: &Local, metrics: Option<SocketAddr>) -> Result<String, Error> {
        let mut eye = Eye {
            stage: self,
            wanted: options.websites,
            metrics,
            start: Instant::now(),
            looks: VecDeque::new(),
            last_error: None,
        };
        let populated = async { Ok(scene::populate(&self.objects, options.websites).await?) };
        if options.once {
            let ((), summary) = tokio::try_join!(populated, eye.until_ready(options.timeout))?;
            return Ok(summary);
        }
        println!("{}", introduction(local, options.websites));
        let changed = async {
            populated.await?;
            changes::run(&self.objects, options.websites, &self.log).await;
            Ok(())
        };
        let seen = async { if options.live { eye.draw().await } else { eye.print().await } };
        let ((), last) = tokio::try_join!(changed, seen)?;
        Ok(last)
    }
}

/// Who looks at it.
struct Eye<'a> {
    stage: &'a Stage,
    wanted: usize,
    metrics: Option<SocketAddr>,
    start: Instant,
    /// The last [`LATELY`] figures.
    looks: VecDeque<(Instant, Figures)>,
    last_error: Option<(String, String)>,
}

impl Eye<'_> {
    async fn look(&mut self) -> Result<View, Error> {
        let mut view = View { elapsed: self.start.elapsed(), wanted: self.wanted, ..View::default() };
        let mut wrong = None;
        for website in self.stage.objects.list(&scene::websites()).await? {
            let phase = website["status"]["phase"].as_str().unwrap_or(NEW);
            *view.phases.entry(phase.to_owned()).or_default() += 1;
            if phase == "Error" {
                let text = |field: &serde_json::Value| field.as_str().unwrap_or_default().to_owned();
                let (name, message) = (text(&website["metadata"]["name"]), text(&website["status"]["message"]));
                wrong.get_or_insert_with(|| format!("{name}: {message}"));
            }
        }
        let wrong = match wrong {
            Some(wrong) => Some(wrong),
            None => self.warning().await?,
        };
        if let Some(wrong) = wrong.filter(|wrong| self.last_error.as_ref().is_none_or(|(_, known)| known != wrong)) {
            self.last_error = Some((jiff::Zoned::now().strftime("%H:%M:%S").to_string(), wrong));
        }
        view.last_error.clone_from(&self.last_error);
        let now = Instant::now();
        view.total = self.scrape().await.unwrap_or_default();
        let (then, before) = self.looks.front().cloned().unwrap_or_else(|| (self.start, Figures::default()));
        view.recent = (view.total.since(&before), now - then);
        self.looks.push_back((now, view.total.clone()));
        if self.looks.len() > LATELY {
            self.looks.pop_front();
        }
        view.changes.clone_from(&self.stage.log.lock());
        Ok(view)
    }

    /// The newest warning about a Website.
    async fn warning(&self) -> Result<Option<String>, Error> {
        let path = format!("/api/v1/namespaces/{}/events?fieldSelector=type%3DWarning", scene::NAMESPACE);
        let events = self.stage.objects.list(&path).await?;
        let newest = events
            .into_iter()
            .max_by_key(|event| event["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok()));
        let text = |field: &serde_json::Value| field.as_str().unwrap_or_default().to_owned();
        Ok(newest.map(|event| format!("{}: {}", text(&event["involvedObject"]["name"]), text(&event["message"]))))
    }

    async fn scrape(&self) -> Option<Figures> {
        let uri = format!("http://{}/metrics", self.metrics?).parse().ok()?;
        let client: Client<_, Empty<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
        let text = async { client.get(uri).await.ok()?.into_body().collect().await.ok() };
        let text = tokio::time::timeout(SCRAPE, text).await.ok()??.to_bytes();
        Some(Figures::parse(std::str::from_utf8(&text).ok()?))
    }

    async fn until_ready(&mut self, timeout: Duration) -> Result<String, Error> {
        let mut told = Instant::now();
        loop {
            let view = self.look().await?;
            if view.is_ready() {
                return Ok(summary(&view));
            }
            if view.elapsed >= timeout {
                return Err(Error::NotReady(self.reason(&view)));
            }
            if told.elapsed() >= LINE {
                println!("{}", view.line());
                told = Instant::now();
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    fn reason(&self, view: &View) -> String {
        let mut reason = format!(
            "{} of {} Websites ready after {:.0} s ({})",
            view.count("Ready"),
            view.wanted,
            view.elapsed.as_secs_f64(),
            view.phases_text()
        );
        if let Some((_, error)) = &view.last_error {
            reason.push_str(&format!("; last error: {error}"));
        }
        let said = self.stage.said();
        if !said.is_empty() {
            reason.push_str(&format!("; the webhook's last lines:{said}"));
        }
        reason
    }

    async fn draw(&mut self) -> Result<String, Error> {
        let term = Term::stdout();
        let _cursor = Hidden::new(&term).map_err(Error::Terminal)?;
        let mut drawn = 0;
        loop {
            let lines = self.look().await?.lines(usize::from(term.size().1));
            term.clear_last_lines(drawn).map_err(Error::Terminal)?;
            term.write_line(&lines.join("\n")).map_err(Error::Terminal)?;
            drawn = lines.len();
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn print(&mut self) -> Result<String, Error> {
        let (mut told, mut changes) = (None::<Instant>, 0);
        loop {
            let view = self.look().await?;
            let done = view.changes.iter().filter(|change| change.outcome.is_some());
            for change in done.skip(changes) {
                changes += 1;
                println!("{}  {}: {}", change.time, change.what, change.outcome.as_deref().unwrap_or_default());
            }
            if told.is_none_or(|told| told.elapsed() >= LINE) {
                println!("{}", view.line());
                told = Some(Instant::now());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// A cursor that comes back.
struct Hidden<'a>(&'a Term);

impl<'a> Hidden<'a> {
    fn new(term: &'a Term) -> std::io::Result<Self> {
        term.hide_cursor()?;
        Ok(Self(term))
    }
}

impl Drop for Hidden<'_> {
    fn drop(&mut self) {
        // A terminal that is gone needs no cursor.
        let _ = self.0.show_cursor();
    }
}

fn summary(view: &View) -> String {
    let hook = match (view.total.hook_quantile(0.5), view.total.hook_quantile(0.99)) {
        (Some(p50), Some(p99)) => format!("p50 {}, p99 {}", short(p50), short(p99)),
        _ => "no latency known".to_owned(),
    };
    format!(
        "{} of {} Websites ready after {:.1} s\n  hook   {} calls over HTTP, {hook}, {} failed\n  API    {} writes",
        view.count("Ready"),
        view.wanted,
        view.elapsed.as_secs_f64(),
        view.total.answered,
        view.total.failed,
        view.total.writes,
    )
}

fn introduction(local: &Local, websites: usize) -> String {
    let lines = [
        format!("kubectl get rcc,websites -n {}", scene::NAMESPACE),
        format!("kubectl get configmap,service,deployment {} -n {}", scene::name(0), scene::NAMESPACE),
        format!(
            "kubectl patch website {} -n {} --type merge -p '{{\"spec\":{{\"title\":\"Mine\"}}}}'",
            scene::name(0),
            scene::NAMESPACE
        ),
        format!("kubectl delete deployment {} -n {}", scene::name(0), scene::NAMESPACE),
        "kubectl delete theme dark".to_owned(),
    ];
    format!(
        "{}\n\n{websites} Websites, each with a ConfigMap, a Service and a Deployment; the controller's logic is a Python webhook.\nIn another terminal:\n  export KUBECONFIG={}\n  {}\n\nCtrl-C ends it.\n",
        style("Ringmaster demo").bold(),
        local.kubeconfig().display(),
        lines.join("\n  "),
    )
}
