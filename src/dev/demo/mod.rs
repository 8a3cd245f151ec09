//! `ringmaster demo`: the Website example with many objects on the local API server, to look at and to play with.
//!
//! ```text
//!   scene      the objects and the webhook; language: what that is written in
//!   changes    what happens to them
//!   figures    what the engine's metrics say
//!   view       what is shown
//! ```
//!
//! Never measures from within: it sees what anybody sees, objects and `/metrics`.

mod changes;
mod figures;
mod language;
mod scene;
mod view;

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use console::{Term, style, truncate_str};
use http_body_util::{BodyExt as _, Empty};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use ringmaster_engine::Engine;
use ringmaster_engine::config::{Flags, Place as RunPlace, Settings};
use serde_json::Value;
use tokio::time::Instant;
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::guardian::Guardian;
use crate::hooks::{Hook, Line, Told};
use crate::local::{self, Local, Place};
use crate::objects::{self, Objects};
use crate::print::Printer;
use crate::session;
use crate::{Stop, quoted};
use changes::Log;
use figures::Figures;
pub use language::Language;
use view::{NEW, View, short};

/// Fewest and most Websites of a demo.
pub const WEBSITES: std::ops::RangeInclusive<usize> = 1..=5000;
/// Shortest and longest time that a demo may have to get ready.
pub const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(24 * 3600);

/// How often everything is looked at and drawn.
const LOOK: Duration = Duration::from_millis(250);
/// Looks that "lately" is made of.
const LATELY: usize = 20;
/// Time between two lines without a terminal.
const LINE: Duration = Duration::from_secs(5);
/// How often that is tried.
const HOOK_LOOK: Duration = Duration::from_millis(20);
/// Syncs at once: as many as one process answers without a queue of its own.
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
    /// What the webhook is written in.
    pub hook: Language,
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
    /// Nothing runs the webhook.
    #[error("{program} doesn't run ({why}): the demo's webhook needs it; {fix}")]
    Language {
        /// What doesn't run.
        program: &'static str,
        /// Why.
        why: String,
        /// What would help.
        fix: &'static str,
    },
    /// A folder or a port for the webhook.
    #[error("a place for the webhook")]
    Place(#[source] std::io::Error),
    /// The webhook doesn't listen.
    #[error("the webhook doesn't listen after {seconds} s; its last lines:{said}")]
    Hook {
        /// How long it had.
        seconds: u64,
        /// Its last lines, each behind a line break.
        said: String,
    },
    /// Not all became ready in time.
    #[error("{0}")]
    NotReady(String),
}

impl From<objects::Error> for Error {
    fn from(error: objects::Error) -> Self {
        scene::Error::from(error).into()
    }
}

impl Options {
    /// Whether they can be followed, as far as it can be told before anything starts.
    ///
    /// # Errors
    /// Names the flag.
    pub fn check(&self) -> Result<(), String> {
        local::check_listen(self.listen).map_err(|error| error.to_string())?;
        local::check_file("--write-kubeconfig", &self.kubeconfig)?;
        let (shortest, longest) = (TIMEOUTS.start().as_secs(), TIMEOUTS.end().as_secs());
        if !TIMEOUTS.contains(&self.timeout) {
            return Err(format!("--timeout {}: give {shortest} to {longest} seconds", self.timeout.as_secs()));
        }
        if WEBSITES.contains(&self.websites) {
            return Ok(());
        }
        Err(format!("--websites {}: give {} to {}", self.websites, WEBSITES.start(), WEBSITES.end()))
    }
}

/// Runs until it shall stop, or with [`Options::once`] until all Websites are ready.
///
/// # Errors
/// If something can't start; with [`Options::once`], if not all become ready in time.
pub async fn run(options: Options, stop: Stop) -> Result<(), Error> {
    runs(options.hook).await?;
    let folder = tempfile::Builder::new().prefix("ringmaster-demo-").tempdir().map_err(Error::Place)?;
    let place = Place { listen: options.listen, kubeconfig: options.kubeconfig.clone(), state: None };
    let local = Local::start(place).await?;
    let stage = Stage {
        objects: Objects::new(local.client()),
        folder: folder.path().to_owned(),
        hook_lines: Arc::default(),
        log: Log::default(),
        printer: Printer::start(),
        tasks: TaskTracker::new(),
        tasks_stop: Stop { now: stop.now.clone(), ..Stop::default() },
    };
    let ended = stage.run(&options, &local, &stop).await;
    stage.tasks_stop.gently.cancel();
    stage.tasks.close();
    stage.tasks.wait().await;
    let stopped = local.stop().await;
    stage.printer.finish();
    ended?;
    Ok(stopped?)
}

/// Whether the language's program runs.
async fn runs(language: Language) -> Result<(), Error> {
    let (program, argument, fix) = language.needs();
    let ran = tokio::process::Command::new(program).arg(argument).output().await;
    let why = match ran {
        Ok(output) if output.status.success() => return Ok(()),
        Ok(output) => output.status.to_string(),
        Err(error) => error.to_string(),
    };
    Err(Error::Language { program, why, fix })
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
    printer: Printer,
    tasks: TaskTracker,
    tasks_stop: Stop,
}

impl Stage {
    async fn run(&self, options: &Options, local: &Local, stop: &Stop) -> Result<(), Error> {
        let engine = tokio::select! {
            engine = self.prepare(options.hook, local) => engine?,
            () = stop.gently.cancelled() => return Ok(()),
        };
        let metrics = engine.metrics_address();
        let engine_stop = CancellationToken::new();
        let mut running = std::pin::pin!(engine.run(engine_stop.clone()));
        let shown = tokio::select! {
            ended = &mut running => return Ok(ended?),
            shown = self.show(options, local, metrics) => shown.map(Some),
            () = stop.gently.cancelled() => Ok(None),
        };
        engine_stop.cancel();
        tokio::select! {
            ended = running => ended?,
            () = stop.now.cancelled() => {}
        }
        if let Some(summary) = shown? {
            self.printer.line(&summary);
        }
        Ok(())
    }

    /// Everything but the engine's run.
    async fn prepare(&self, language: Language, local: &Local) -> Result<Engine, Error> {
        session::crds(&self.objects).await?;
        scene::set(&self.objects).await?;
        scene::pass_themes(&self.objects, &self.folder).await?;
        let port = free_port().map_err(Error::Place)?;
        let command = scene::write_hook(language, &self.folder, port)?;
        let guardian = Arc::new(Guardian::start().map_err(Error::Place)?);
        let hook = Hook::new(("hook", &command), &self.folder, self.listener(), &guardian, &Arc::default());
        self.tasks.spawn(hook.run(self.tasks_stop.clone()));
        self.tasks.spawn(self.pass_themes());
        self.hook_listens(language, port).await?;

        let resolve = format!("{}=127.0.0.1:{port}", scene::HOOK_HOST);
        let workers = Some(WORKERS.to_string());
        let flags = Flags { hook_resolve: Some(vec![resolve]), workers, ..Flags::default() };
        let settings = Settings::load(flags, std::iter::empty(), RunPlace::Dev)?;
        Ok(Engine::with(settings, local.connection()).await?)
    }

    /// The webhook says so itself: something else may have taken the port.
    async fn hook_listens(&self, language: Language, port: u16) -> Result<(), Error> {
        let said = format!("listening on 127.0.0.1:{port}");
        let listens = async {
            while !self.hook_lines.lock().contains(&said) {
                tokio::time::sleep(HOOK_LOOK).await;
            }
        };
        let late = |_| Error::Hook { seconds: language.start().as_secs(), said: self.said() };
        tokio::time::timeout(language.start(), listens).await.map_err(late)
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
        let (objects, folder, stop) = (self.objects.clone(), self.folder.clone(), self.tasks_stop.gently.clone());
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
            client: Client::builder(TokioExecutor::new()).build_http(),
            start: Instant::now(),
            looks: VecDeque::new(),
            last_error: None,
            wrong: None,
            warned: 0,
        };
        let populated = async { Ok(scene::populate(&self.objects, options.websites).await?) };
        if options.once {
            let ((), summary) = tokio::try_join!(populated, eye.until_ready(options.timeout))?;
            return Ok(summary);
        }
        let introduction = introduction(local, options.websites, options.hook);
        let changed = async {
            populated.await?;
            changes::run(&self.objects, options.websites, &self.log).await;
            Ok(())
        };
        let seen = async { if options.live { eye.draw(&introduction).await } else { eye.print(&introduction).await } };
        let ((), last) = tokio::try_join!(changed, seen)?;
        Ok(last)
    }
}

/// Who looks at it.
struct Eye<'a> {
    stage: &'a Stage,
    wanted: usize,
    metrics: Option<SocketAddr>,
    client: Client<HttpConnector, Empty<Bytes>>,
    start: Instant,
    /// The last [`LATELY`] figures.
    looks: VecDeque<(Instant, Figures)>,
    last_error: Option<(String, String)>,
    /// What was wrong with a Website at the last look.
    wrong: Option<String>,
    /// The newest warning that was seen.
    warned: u64,
}

impl Eye<'_> {
    async fn look(&mut self) -> Result<View, Error> {
        let mut view = View { elapsed: self.start.elapsed(), wanted: self.wanted, ..View::default() };
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        let mut wrong = None;
        for website in self.stage.objects.list(&scene::websites()).await? {
            let phase = website["status"]["phase"].as_str().unwrap_or(NEW);
            *view.phases.entry(phase.to_owned()).or_default() += 1;
            if phase == "Error" {
                let (name, message) = (text(&website["metadata"]["name"]), text(&website["status"]["message"]));
                wrong.get_or_insert_with(|| format!("{name}: {message}"));
            }
        }
        #[expect(clippy::disallowed_methods, reason = "for people")]
        let now = jiff::Zoned::now().strftime("%H:%M:%S").to_string();
        if wrong.is_some() && wrong != self.wrong {
            self.last_error = wrong.clone().map(|wrong| (now.clone(), wrong));
        }
        self.wrong = wrong;
        if let Some(warning) = self.warning().await? {
            self.last_error = Some((now, warning));
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

    /// The newest warning about a Website, if it came since the last look.
    async fn warning(&mut self) -> Result<Option<String>, Error> {
        let path = format!("/api/v1/namespaces/{}/events?fieldSelector=type%3DWarning", scene::NAMESPACE);
        let events = self.stage.objects.list(&path).await?;
        let version = |event: &Value| event["metadata"]["resourceVersion"].as_str().and_then(|v| v.parse::<u64>().ok());
        let newest = events.into_iter().filter_map(|event| Some((version(&event)?, event))).max_by_key(|(v, _)| *v);
        let Some((version, event)) = newest.filter(|(version, _)| *version > self.warned) else { return Ok(None) };
        self.warned = version;
        let text = |field: &Value| field.as_str().unwrap_or_default().to_owned();
        Ok(Some(format!("{}: {}", text(&event["involvedObject"]["name"]), text(&event["message"]))))
    }

    async fn scrape(&self) -> Option<Figures> {
        let uri = format!("http://{}/metrics", self.metrics?).parse().ok()?;
        let text = async { self.client.get(uri).await.ok()?.into_body().collect().await.ok() };
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
                self.stage.printer.line(&view.line());
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

    /// On a screen of its own, which goes away at the end; what was last on it stays.
    async fn draw(&mut self, introduction: &str) -> Result<String, Error> {
        let screen = Screen::open(&self.stage.printer, introduction);
        let term = Term::stdout();
        loop {
            let view = self.look().await?;
            let (rows, columns) = term.size();
            screen.draw(&view, usize::from(rows), usize::from(columns));
            tokio::time::sleep(LOOK).await;
        }
    }

    async fn print(&mut self, introduction: &str) -> Result<String, Error> {
        let printer = self.stage.printer.clone();
        printer.line(introduction);
        let (mut told, mut last, mut phases) = (None::<Instant>, 0, String::new());
        loop {
            let view = self.look().await?;
            let done = view.changes.iter().filter(|change| change.outcome.is_some());
            for change in done.skip_while(|change| change.number <= last).collect::<Vec<_>>() {
                last = change.number;
                printer.line(&change.line());
            }
            let news = phases != view.phases_text();
            if news || told.is_none_or(|told| told.elapsed() >= LINE) {
                phases = view.phases_text();
                printer.line(&view.line());
                told = Some(Instant::now());
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The terminal's other screen, without a cursor, until it is dropped.
struct Screen<'a> {
    printer: &'a Printer,
    introduction: &'a str,
    last: RefCell<Vec<String>>,
}

impl<'a> Screen<'a> {
    fn open(printer: &'a Printer, introduction: &'a str) -> Self {
        printer.text("\x1b[?1049h\x1b[?25l".to_owned());
        Self { printer, introduction, last: RefCell::default() }
    }

    /// Draws as much as there is room for: what changes is more than what doesn't.
    fn draw(&self, view: &View, rows: usize, columns: usize) {
        let lines = view.lines(columns);
        let room = rows.saturating_sub(1);
        let introduction = self.introduction.lines().map(str::to_owned).chain([String::new()]);
        let all: Vec<String> = introduction.chain(lines.iter().cloned()).collect();
        let shown = if all.len() <= room { &all } else { &lines };
        let mut frame = "\x1b[H".to_owned();
        for line in shown.iter().take(room) {
            frame.push_str(&truncate_str(line, columns.saturating_sub(1), "…"));
            frame.push_str("\x1b[K\r\n");
        }
        frame.push_str("\x1b[J");
        self.printer.text(frame);
        *self.last.borrow_mut() = lines;
    }
}

impl Drop for Screen<'_> {
    fn drop(&mut self) {
        self.printer.text("\x1b[?25h\x1b[?1049l".to_owned());
        self.printer.line(&format!("{}\n{}", self.introduction, self.last.borrow().join("\n")));
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

fn introduction(local: &Local, websites: usize, language: Language) -> String {
    let (namespace, site) = (scene::NAMESPACE, scene::name(0));
    let lines = [
        format!("kubectl get rcc,websites -n {namespace}"),
        format!("kubectl get configmap,service,deployment {site} -n {namespace}"),
        format!("kubectl patch website {site} -n {namespace} --type merge -p '{{\"spec\":{{\"title\":\"Mine\"}}}}'"),
        format!("kubectl delete deployment {site} -n {namespace}"),
        format!("kubectl patch theme {} --type merge -p '{{\"spec\":{{\"color\":\"gold\"}}}}'", scene::FICKLE),
    ];
    format!(
        "{}: {websites} Websites, each with a ConfigMap, a Service and a Deployment, by a webhook in {}.\nIn another terminal:\n  export KUBECONFIG={}\n  {}\nCtrl-C ends it.",
        style("Ringmaster demo").bold(),
        language.name(),
        quoted(local.kubeconfig()),
        lines.join("\n  "),
    )
}
