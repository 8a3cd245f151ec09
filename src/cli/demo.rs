//! `ringmaster demo`: the Website example with many objects and several members, without a cluster, to look at.

use std::io::IsTerminal as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use ringmaster_dev::demo::{self, Language, Options};
use ringmaster_engine::print::Printer;
use ringmaster_engine::telemetry;

use crate::run::until_signal;

/// Arguments of `ringmaster demo`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Play the story once, with members and webhooks that come, go and are killed: exit 0 with a summary, or 1 with what went wrong
    #[arg(long)]
    once: bool,

    /// With --once: how long the Websites may take until all are ready, in seconds: 1 to 86400
    #[arg(long, value_name = "SECONDS", default_value_t = 120, requires = "once")]
    timeout: u64,

    /// How many Websites: 1 to 5000
    #[arg(long, value_name = "N", default_value_t = 200)]
    websites: usize,

    /// How many members to start with, each a process of its own: 1 to 5
    #[arg(long, value_name = "N", default_value_t = 3)]
    members: usize,

    /// How many replicas of the webhook to start with, each a process of its own: 1 to 5
    #[arg(long, value_name = "N", default_value_t = 2)]
    webhooks: usize,

    /// What the webhook is written in
    #[arg(long, value_enum, value_name = "LANGUAGE", default_value = "python")]
    hook: Hook,

    /// Where the API server listens, on loopback; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0")]
    listen: SocketAddr,

    /// Write the kubeconfig here; it is removed at the end
    #[arg(long, value_name = "FILE", default_value = "ringmaster-demo.kubeconfig")]
    write_kubeconfig: PathBuf,
}

/// [`Language`] as clap reads it.
#[derive(Clone, Copy, clap::ValueEnum)]
enum Hook {
    Python,
    Go,
}

impl From<Hook> for Language {
    fn from(hook: Hook) -> Self {
        match hook {
            Hook::Python => Self::Python,
            Hook::Go => Self::Go,
        }
    }
}

pub(crate) fn main(arguments: Arguments, log: &Printer) -> ExitCode {
    let options = match options(arguments, log) {
        Ok(options) => options,
        Err(error) => return crate::fail(log, 2, &error),
    };
    match until_signal(async |stop| Ok(demo::run(options, stop).await?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::fail(log, 1, &error),
    }
}

fn options(arguments: Arguments, log: &Printer) -> anyhow::Result<Options> {
    let Arguments { once, timeout, websites, members, webhooks, hook, listen, write_kubeconfig } = arguments;
    // A terminal that can't move its cursor gets lines.
    let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb");
    let live = !once && std::io::stdout().is_terminal() && !dumb;
    let timeout = Duration::from_secs(timeout);
    let options = Options {
        once,
        timeout,
        websites,
        members,
        webhooks,
        listen,
        kubeconfig: write_kubeconfig,
        hook: hook.into(),
        live,
    };
    options.check().map_err(anyhow::Error::msg)?;
    if !live {
        // A drawing and log lines on one terminal would spoil each other.
        telemetry::init(telemetry::Format::Pretty, "error", log)?;
    }
    Ok(options)
}
