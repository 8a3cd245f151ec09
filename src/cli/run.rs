//! `ringmaster run`: the engine against a cluster, until SIGTERM or SIGINT.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::Context as _;
use ringmaster_engine::Engine;
use ringmaster_engine::config::{Flags, Settings, environment};
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
    let in_cluster = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    let settings = Settings::load(arguments.flags, environment(), in_cluster);
    let settings = match settings {
        Ok(settings) => settings,
        Err(error) => return crate::fail(2, &error.into()),
    };
    if let Err(error) = telemetry::init(settings.log_format, &settings.log_level) {
        return crate::fail(2, &error.into());
    }
    for notice in &settings.notices {
        warn!("{notice}");
    }
    for variable in &settings.unknown_variables {
        debug!("{variable} is not a setting and is ignored");
    }
    match run(settings) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::fail(1, &error),
    }
}

fn run(settings: Settings) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let ended = runtime.block_on(async {
        let shutdown = CancellationToken::new();
        let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
        let engine = async { Engine::start(settings).await?.run(shutdown.clone()).await };
        let mut engine = std::pin::pin!(engine);
        tokio::select! {
            ended = &mut engine => return Ok(ended?),
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        shutdown.cancel();
        // A second signal means now.
        tokio::select! {
            ended = &mut engine => Ok(ended?),
            _ = terminate.recv() => anyhow::bail!("ended by a second signal"),
            _ = interrupt.recv() => anyhow::bail!("ended by a second signal"),
        }
    });
    // A name that is being resolved runs on a thread that can't be stopped; it isn't worth waiting for.
    runtime.shutdown_timeout(LAST_THREADS);
    ended
}
