//! `ringmaster run`: the engine against a cluster, until SIGTERM or SIGINT.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use ringmaster_engine::Engine;
use ringmaster_engine::config::{Flags, Place, Settings, environment};
use ringmaster_engine::telemetry;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Threads that still run when everything else has ended get this long.
const LAST_THREADS: Duration = Duration::from_secs(1);

/// Arguments of `ringmaster run`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    flags: Flags,
}

pub(crate) fn main(arguments: Arguments) -> ExitCode {
    let settings = match configure(arguments.flags, Place::of_process()) {
        Ok(settings) => settings,
        Err(error) => return crate::fail(2, &error),
    };
    let engine = async |shutdown| Ok(Engine::start(settings).await?.run(shutdown).await?);
    match until_signal(engine) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::fail(1, &error),
    }
}

/// The settings, and logging as they want it.
///
/// # Errors
/// If a setting can't be used.
pub(crate) fn configure(flags: Flags, place: Place) -> anyhow::Result<Settings> {
    let settings = Settings::load(flags, environment(), place)?;
    telemetry::init(settings.log_format, &settings.log_level)?;
    for notice in &settings.notices {
        warn!("{notice}");
    }
    for variable in &settings.unknown_variables {
        debug!("{variable} is not a setting and is ignored");
    }
    Ok(settings)
}

/// Runs `work`; SIGTERM or SIGINT cancels its token, a second one ends it.
///
/// # Errors
/// Those of `work`, and if it was ended by a second signal.
pub(crate) fn until_signal<T>(work: impl AsyncFnOnce(CancellationToken) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let mut work = std::pin::pin!(work(shutdown.clone()));
        tokio::select! {
            ended = &mut work => return ended,
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
        // A second signal means now.
        tokio::select! {
            ended = &mut work => ended,
            _ = terminate.recv() => anyhow::bail!("ended by a second signal"),
            _ = interrupt.recv() => anyhow::bail!("ended by a second signal"),
        }
    });
    // A name that is being resolved runs on a thread that can't be stopped; it isn't worth waiting for.
    runtime.shutdown_timeout(LAST_THREADS);
    ended
}
