//! `ringmaster dev`: API server, kinds, webhooks, manifests, engine; and all of it down again, the other way round.
//!
//! Never ends because a webhook does; ends when the engine does, or when it is told to.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use console::style;
use ringmaster_engine::config::{HookResolve, Settings};
use ringmaster_engine::print::Printer;
use ringmaster_engine::{Engine, Resync};
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::task::TaskTracker;

use crate::guardian::Guardian;
use crate::hooks::{Hook, Line, Told, names};
use crate::local::{self, Local, Place};
use crate::manifests;
use crate::objects::{self, Objects};
use crate::{Stop, quoted};

/// Most webhooks that one session runs.
pub const MAX_HOOKS: usize = 32;
/// The controllers whose webhooks are waited for.
const CONTROLLERS: [&str; 4] = [
    "/apis/ringmaster.dev/v1alpha1/compositecontrollers",
    "/apis/ringmaster.dev/v1alpha1/decoratorcontrollers",
    "/apis/metacontroller.k8s.io/v1alpha1/compositecontrollers",
    "/apis/metacontroller.k8s.io/v1alpha1/decoratorcontrollers",
];
/// Their hooks that may have a webhook each.
const HOOKS: [&str; 3] = ["sync", "finalize", "customize"];
/// How long the webhooks may take until they listen where they should; then they are called anyway.
const LISTENING: Duration = Duration::from_secs(30);
/// How often that is tried.
const LOOK: Duration = Duration::from_millis(50);
/// Whoever listens where a webhook shall is found within this time.
const TAKEN: Duration = Duration::from_millis(500);
/// A webhook that takes longer than this is waited for with a word.
const PATIENCE: Duration = Duration::from_secs(2);

/// What `ringmaster dev` was asked for.
#[derive(Debug)]
pub struct Options {
    /// The engine's settings; their kubeconfig doesn't count.
    pub settings: Settings,
    /// Where the API server listens: an address of loopback; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where the kubeconfig is written.
    pub kubeconfig: PathBuf,
    /// Files and folders of objects, applied in this order at the start.
    pub apply: Vec<PathBuf>,
    /// Command lines of webhooks: at most [`MAX_HOOKS`].
    pub hooks: Vec<String>,
    /// Where objects are kept between runs.
    pub state: Option<PathBuf>,
}

/// Why a session failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The API server.
    #[error(transparent)]
    Local(#[from] local::Error),
    /// The engine.
    #[error(transparent)]
    Engine(#[from] ringmaster_engine::Error),
    /// A manifest.
    #[error(transparent)]
    Apply(#[from] manifests::Error),
    /// Our own kinds.
    #[error("applying Ringmaster's own CRDs: {0}")]
    Crds(String),
    /// Somebody else listens where a webhook shall.
    #[error("--hook {command:?}: something else already listens at {address}; end it (`ss -ltnp 'sport = :{port}'` tells what it is), or choose another port, here and in {named}", port = address.port())]
    Taken {
        /// The webhook's command line.
        command: String,
        /// Where it shall listen.
        address: SocketAddr,
        /// What says so.
        named: String,
    },
    /// Webhooks can't be looked after.
    #[error("starting `sh`, which runs the webhooks")]
    Shell(#[source] std::io::Error),
    /// A second signal.
    #[error("ended by a second signal: running syncs were not waited for")]
    Hurried,
    /// Where we are can't be told.
    #[error("the working folder")]
    Folder(#[source] std::io::Error),
}

impl From<objects::Error> for Error {
    fn from(error: objects::Error) -> Self {
        Self::Crds(error.to_string())
    }
}

impl Options {
    /// Whether they can be followed, as far as it can be told before anything starts.
    ///
    /// # Errors
    /// Names the flag.
    pub fn check(&self) -> Result<(), String> {
        local::check_listen(self.listen).map_err(|error| error.to_string())?;
        if self.hooks.len() > MAX_HOOKS {
            return Err(format!("--hook: {} of them; give at most {MAX_HOOKS}", self.hooks.len()));
        }
        if let Some(empty) = self.hooks.iter().position(|command| command.trim().is_empty()) {
            return Err(format!("--hook: command line {} is empty", empty + 1));
        }
        local::check_file("--write-kubeconfig", &self.kubeconfig)?;
        if let Some(state) = &self.state {
            local::check_file("--state", state)?;
            if *state == self.kubeconfig {
                return Err(format!("--state {}: --write-kubeconfig names the same file; give two", state.display()));
            }
        }
        match self.apply.iter().find(|path| !path.exists()) {
            Some(path) => Err(format!("--apply {}: no such file or folder", path.display())),
            None => Ok(()),
        }
    }
}

/// Runs until it shall stop.
///
/// # Errors
/// If something can't start, a manifest is refused, or the objects can't be saved at the end.
pub async fn run(options: Options, stop: Stop) -> Result<(), Error> {
    let folder = std::env::current_dir().map_err(Error::Folder)?;
    let place = Place { listen: options.listen, kubeconfig: options.kubeconfig.clone(), state: options.state.clone() };
    let local = Local::start(place).await?;
    let session = Session {
        objects: Objects::new(local.client()),
        printer: Printer::start(),
        hooks: TaskTracker::new(),
        hooks_stop: Stop { now: stop.now.clone(), ..Stop::default() },
        renewed: Arc::default(),
    };
    let ended = session.serve(&options, &folder, &local, &stop).await;
    session.hooks_stop.gently.cancel();
    session.hooks.close();
    session.hooks.wait().await;
    let stopped = local.stop().await;
    if let (Some(path), Ok(())) = (&options.state, &stopped) {
        session.printer.line(&format!("objects saved to {}", path.display()));
    }
    session.printer.finish();
    ended?;
    Ok(stopped?)
}

/// What the parts of a session share.
struct Session {
    objects: Objects,
    printer: Printer,
    hooks: TaskTracker,
    hooks_stop: Stop,
    /// Told when a webhook was started again.
    renewed: Arc<Notify>,
}

impl Session {
    async fn serve(&self, options: &Options, folder: &Path, local: &Local, stop: &Stop) -> Result<(), Error> {
        let engine = tokio::select! {
            engine = self.prepare(options, folder, local) => engine?,
            () = stop.gently.cancelled() => return Ok(()),
        };
        let resync = engine.resync();
        tokio::select! {
            ended = engine.run(stop.gently.clone()) => Ok(ended?),
            () = self.renew(&options.settings.hook_resolve, &resync) => Ok(()),
            () = stop.now.cancelled() => Err(Error::Hurried),
        }
    }

    /// Has every parent synced once a webhook that was started again listens: it may answer otherwise. Never ends.
    async fn renew(&self, resolves: &[HookResolve], resync: &Resync) {
        loop {
            self.renewed.notified().await;
            // One that doesn't listen by then is called all the same, as at the start.
            let places: Vec<_> = self.places(resolves).await.into_iter().map(|(address, _)| address).collect();
            let _ = tokio::time::timeout(LISTENING, listening(&places)).await;
            resync.all();
        }
    }

    /// Everything but the engine's run.
    async fn prepare(&self, options: &Options, folder: &Path, local: &Local) -> Result<Engine, Error> {
        crds(&self.objects).await?;
        let engine = Engine::with(options.settings.clone(), local.connection()).await?;
        self.row("API server", &format!("{}, in memory", local.url()));
        if let Some(address) = engine.metrics_address() {
            self.row("metrics", &format!("http://{address}/metrics"));
        }
        if let (Some(path), true) = (&options.state, local.is_loaded()) {
            self.row("objects", &format!("as saved in {}", path.display()));
        }
        for path in &options.apply {
            let count = manifests::apply(&self.objects, path).await?;
            self.row("applied", &format!("{} ({count} object{})", path.display(), if count == 1 { "" } else { "s" }));
        }
        let places = self.places(&options.settings.hook_resolve).await;
        is_free(&options.hooks, &places).await?;
        self.start_hooks(options, folder)?;
        // Not before: whoever waits for it finds the kinds and objects.
        local.publish().await?;
        self.row("kubeconfig", &local.kubeconfig().display().to_string());
        if !options.hooks.is_empty() {
            let places: Vec<_> = places.into_iter().map(|(address, _)| address).collect();
            self.hooks_listen(&places).await;
        }
        let end = match &options.state {
            Some(path) => format!("Ctrl-C ends it and saves all objects to {}.", path.display()),
            None => "Ctrl-C ends it, and all objects with it; --state FILE would keep them.".to_owned(),
        };
        let kubeconfig = quoted(local.kubeconfig());
        let hint = format!("\nIn another terminal:\n  export KUBECONFIG={kubeconfig}\n  kubectl get rcc\n\n{end}");
        self.printer.line(&hint);
        Ok(engine)
    }

    fn start_hooks(&self, options: &Options, folder: &Path) -> Result<(), Error> {
        if options.hooks.is_empty() {
            return Ok(());
        }
        let guardian = Arc::new(Guardian::start().map_err(Error::Shell)?);
        for (name, command) in names(&options.hooks).iter().zip(&options.hooks) {
            let hook = Hook::new((name, command), folder, told(&self.printer), &guardian, &self.renewed);
            let watched = match hook.watched() {
                none if none.is_empty() => "no source found in it to watch".to_owned(),
                watched if hook.has_too_many_sources() => {
                    format!("again when {watched} changes, but only a part is watched")
                }
                watched => format!("again when {watched} changes"),
            };
            self.row("webhook", &format!("{command}  ({watched})"));
            self.hooks.spawn(hook.run(self.hooks_stop.clone()));
        }
        Ok(())
    }

    /// Waits until something listens at all of these addresses: a call before would only fail.
    async fn hooks_listen(&self, places: &[SocketAddr]) {
        let mut all = std::pin::pin!(listening(places));
        if tokio::time::timeout(PATIENCE, &mut all).await.is_ok() {
            return;
        }
        self.row("waiting", "until the webhooks listen where --hook-resolve and the controllers say");
        if tokio::time::timeout(LISTENING, all).await.is_err() {
            self.row("waiting", "no longer: they don't listen yet, and are called all the same");
        }
    }

    /// Where webhooks shall listen on this machine: as `--hook-resolve` says, and as the controllers' URLs do; and which
    /// of them says so.
    async fn places(&self, resolves: &[HookResolve]) -> Vec<(SocketAddr, String)> {
        // Who can't be asked names none: it is a courtesy to those who wait.
        let mut controllers = Vec::new();
        for path in CONTROLLERS {
            controllers.extend(self.objects.list(path).await.unwrap_or_default());
        }
        let urls = controllers.iter().flat_map(|controller| {
            let webhooks = HOOKS.iter().map(|hook| &controller["spec"]["hooks"][hook]["webhook"]);
            let urls = webhooks.flat_map(|hook| hook["urls"].as_array().into_iter().flatten().chain([&hook["url"]]));
            let name = &controller["metadata"]["name"];
            let address =
                |url: &Value| Some((on_loopback(url.as_str()?)?, format!("the webhook of controller {name}")));
            urls.filter_map(address).collect::<Vec<_>>()
        });
        let resolves = resolves.iter().map(|resolve| (resolve.address, "--hook-resolve".to_owned()));
        let mut places: Vec<(SocketAddr, String)> = resolves.chain(urls).collect();
        // Several hooks may be one webhook's; whoever named it first stands for all.
        let mut seen = HashSet::new();
        places.retain(|(address, _)| seen.insert(*address));
        places
    }

    fn row(&self, name: &str, text: &str) {
        self.printer.line(&format!("{} {text}", style(format!("{name:<11}")).bold()));
    }
}

/// Waits until something listens at all of these addresses.
async fn listening(places: &[SocketAddr]) {
    for address in places {
        while TcpStream::connect(address).await.is_err() {
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Fails if somebody else listens where a webhook shall whose command line names the port: that one would be called in
/// its place. A webhook that isn't ours to run may well listen already.
async fn is_free(hooks: &[String], places: &[(SocketAddr, String)]) -> Result<(), Error> {
    for (address, named) in places {
        let Some(command) = hooks.iter().find(|command| names_port(command, address.port())) else { continue };
        if let Ok(Ok(_)) = tokio::time::timeout(TAKEN, TcpStream::connect(address)).await {
            return Err(Error::Taken { command: command.clone(), address: *address, named: named.clone() });
        }
    }
    Ok(())
}

/// Whether one of the numbers in a command line is this one.
fn names_port(command: &str, port: u16) -> bool {
    command.split(|c: char| !c.is_ascii_digit()).any(|number| number.parse() == Ok(port))
}

/// The address of a URL whose host is loopback.
fn on_loopback(url: &str) -> Option<SocketAddr> {
    let (scheme, rest) = url.split_once("://")?;
    let authority = rest.split(['/', '?']).next()?;
    let authority = authority.replacen("localhost", "127.0.0.1", 1);
    let port = if scheme == "https" { 443 } else { 80 };
    let address = authority.parse().ok().or_else(|| format!("{authority}:{port}").parse::<SocketAddr>().ok())?;
    address.ip().is_loopback().then_some(address)
}

/// Applies Ringmaster's and Metacontroller's CRDs.
///
/// # Errors
/// If they can't be made or are refused, which is a bug.
pub(crate) async fn crds(objects: &Objects) -> Result<(), Error> {
    let files = ringmaster_api::crds::all().map_err(|error| Error::Crds(error.to_string()))?;
    for (name, text) in files {
        let documents: Vec<Value> =
            serde_saphyr::from_multiple(&text).map_err(|error| Error::Crds(format!("{name}: {error}")))?;
        for object in documents.iter().filter(|object| object["kind"] == "CustomResourceDefinition") {
            objects.apply(object).await?;
        }
    }
    Ok(())
}

/// Prints lines under their webhook's name: its own to standard output, ours to standard error.
fn told(printer: &Printer) -> Told {
    let printer = printer.clone();
    Arc::new(move |Line { hook, text, ours }| {
        let line = format!("{} {text}", style(format!("[{hook}]")).cyan());
        if ours { printer.remark(&line) } else { printer.line(&line) }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_a_webhook_shall_have_is_free() {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let places = [(address, "--hook-resolve".to_owned())];
        let hooks = ["other".to_owned(), format!("hook --listen={address}")];
        let taken = is_free(&hooks, &places).await.unwrap_err().to_string();
        assert!(taken.starts_with(&format!("--hook \"hook --listen={address}\": ")), "{taken}");
        assert!(taken.ends_with("here and in --hook-resolve"), "{taken}");
        // Somebody runs that one by hand.
        is_free(&[format!("hook --listen={address}0")], &places).await.unwrap();
        drop(listener);
        is_free(&hooks, &places).await.unwrap();
    }

    #[test]
    fn urls_on_loopback_have_an_address() {
        let of = |url: &str| on_loopback(url).map(|address| address.to_string());
        assert_eq!(of("http://127.0.0.1:8080/sync").as_deref(), Some("127.0.0.1:8080"));
        assert_eq!(of("http://localhost?a").as_deref(), Some("127.0.0.1:80"));
        assert_eq!(of("https://[::1]").as_deref(), Some("[::1]:443"));
        for other in ["http://hook.example:80/", "http://10.0.0.1:80", "nonsense"] {
            assert_eq!(of(other), None, "{other}");
        }
    }
}
