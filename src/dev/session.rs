//! `ringmaster dev`: API server, kinds, webhooks, manifests, engine; and all of it down again, the other way round.
//!
//! Never ends because a webhook does; ends when the engine does, or when it is told to.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use console::{Style, style};
use ringmaster_engine::Engine;
use ringmaster_engine::config::Settings;
use serde_json::Value;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::hooks::{Hook, Line, Told, names};
use crate::local::{self, Local, Place};
use crate::manifests;
use crate::objects::{self, Objects};

/// Most webhooks that one session runs.
pub const MAX_HOOKS: usize = 32;

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
    /// Too many webhooks.
    #[error("--hook: at most {MAX_HOOKS} of them")]
    TooManyHooks,
    /// Where we are can't be told.
    #[error("the working folder")]
    Folder(#[source] std::io::Error),
}

impl From<objects::Error> for Error {
    fn from(error: objects::Error) -> Self {
        Self::Crds(error.to_string())
    }
}

/// Runs until `shutdown`.
///
/// # Errors
/// If something can't start, a manifest is refused, or the objects can't be saved at the end.
pub async fn run(options: Options, shutdown: CancellationToken) -> Result<(), Error> {
    if options.hooks.len() > MAX_HOOKS {
        return Err(Error::TooManyHooks);
    }
    let folder = std::env::current_dir().map_err(Error::Folder)?;
    let place = Place { listen: options.listen, kubeconfig: options.kubeconfig.clone(), state: options.state.clone() };
    let local = Local::start(place).await?;
    let (hooks, stop) = (TaskTracker::new(), CancellationToken::new());
    let ended = serve(&options, &folder, &local, (&hooks, &stop), shutdown).await;
    stop.cancel();
    hooks.close();
    hooks.wait().await;
    let stopped = local.stop().await;
    if let (Some(path), Ok(())) = (&options.state, &stopped) {
        println!("objects saved to {}", path.display());
    }
    ended?;
    Ok(stopped?)
}

async fn serve(
    options: &Options,
    folder: &Path,
    local: &Local,
    (hooks, stop): (&TaskTracker, &CancellationToken),
    shutdown: CancellationToken,
) -> Result<(), Error> {
    let objects = Objects::new(local.client());
    crds(&objects).await?;
    let engine = Engine::with(options.settings.clone(), local.connection()).await?;
    row("API server", &format!("{}, in memory", local.url()));
    row("kubeconfig", &local.kubeconfig().display().to_string());
    if let Some(address) = engine.metrics_address() {
        row("metrics", &format!("http://{address}/metrics"));
    }
    if let (Some(path), true) = (&options.state, local.is_loaded()) {
        row("objects", &format!("as saved in {}", path.display()));
    }
    for (name, command) in names(&options.hooks).iter().zip(&options.hooks) {
        let hook = Hook::new(name, command, folder, printer());
        let watched = match hook.watched() {
            none if none.is_empty() => "no source found in it to watch".to_owned(),
            watched => format!("again when {watched} changes"),
        };
        row("webhook", &format!("{command}  ({watched})"));
        hooks.spawn(hook.run(stop.clone()));
    }
    for path in &options.apply {
        let count = manifests::apply(&objects, path).await?;
        row("applied", &format!("{} ({count} objects)", path.display()));
    }
    println!("\nIn another terminal:\n  export KUBECONFIG={}", local.kubeconfig().display());
    println!("  kubectl get rcc\n");
    match &options.state {
        Some(path) => println!("Ctrl-C ends it and saves all objects to {}.", path.display()),
        None => println!("Ctrl-C ends it, and all objects with it; --state FILE would keep them."),
    }
    Ok(engine.run(shutdown).await?)
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

fn row(name: &str, text: &str) {
    println!("{} {text}", style(format!("{name:<11}")).bold());
}

/// Prints lines under their webhook's name: its own to standard output, ours to standard error.
fn printer() -> Told {
    let colours = std::io::stdout().is_terminal();
    Arc::new(move |Line { hook, text, ours }| {
        let name = if colours { Style::new().cyan() } else { Style::new() };
        let line = format!("{} {}", name.apply_to(format!("[{hook}]")), text);
        if ours { eprintln!("{line}") } else { println!("{line}") }
    })
}
