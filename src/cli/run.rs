//! `ringmaster run`: the engine against a cluster, until SIGTERM or SIGINT.

use std::process::ExitCode;

use anyhow::Context as _;
use ringmaster_dev::Stop;
use ringmaster_engine::config::{Flags, Place, Settings, environment};
use ringmaster_engine::print::Printer;
use ringmaster_engine::{Engine, LAST_THREADS, telemetry};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

/// Arguments of `ringmaster run`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    flags: Flags,
}

pub(crate) fn main(arguments: Arguments, log: &Printer) -> ExitCode {
    let settings = match configure(arguments.flags, Place::of_process(), log) {
        Ok(settings) => settings,
        Err(error) => return crate::fail(log, 2, &error),
    };
    let engine = async |stop: Stop| {
        let engine = Engine::start(settings).await?;
        tokio::select! {
            ended = engine.run(stop.gently) => Ok(ended?),
            () = stop.now.cancelled() => anyhow::bail!("ended by a second signal: running syncs were not waited for"),
        }
    };
    match until_signal(engine) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::fail(log, 1, &error),
    }
}

/// The settings, and logging as they want it.
///
/// # Errors
/// If a setting can't be used.
pub(crate) fn configure(flags: Flags, place: Place, log: &Printer) -> anyhow::Result<Settings> {
    let settings = Settings::load(flags, environment(), place)?;
    telemetry::init(settings.log_format, &settings.log_level, log)?;
    for notice in &settings.notices {
        warn!("{notice}");
    }
    for variable in &settings.unknown_variables {
        debug!("{variable} is not a setting and is ignored");
    }
    Ok(settings)
}

/// Runs `work`; SIGTERM, SIGINT (Ctrl-C), SIGHUP (a terminal that goes) or SIGQUIT asks it to end, a second one to hurry,
/// a third one ends it.
///
/// # Errors
/// Those of `work`, and if it was ended by a third signal.
pub(crate) fn until_signal<T>(work: impl AsyncFnOnce(Stop) -> anyhow::Result<T>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("starting the runtime")?;
    let ended = runtime.block_on(async {
        let stop = Stop::default();
        let mut signals = Signals::new()?;
        let mut work = std::pin::pin!(work(stop.clone()));
        for asked in [&stop.gently, &stop.now, &CancellationToken::new()] {
            tokio::select! {
                ended = &mut work => return ended,
                () = signals.next() => asked.cancel(),
            }
        }
        anyhow::bail!("ended by a third signal")
    });
    // A name that is being resolved runs on a thread that can't be stopped; it isn't worth waiting for.
    runtime.shutdown_timeout(LAST_THREADS);
    ended
}

/// The signals that ask a process to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
    hangup: Signal,
    quit: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            hangup: signal(SignalKind::hangup())?,
            quit: signal(SignalKind::quit())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
            _ = self.hangup.recv() => {}
            _ = self.quit.recv() => {}
        }
    }
}
