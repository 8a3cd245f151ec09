//! `ringmaster dev`: Ringmaster with an API server of its own, and webhooks that are restarted when their source changes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::bail;
use ringmaster_dev::session::{self, Options};
use ringmaster_engine::config::{Flags, Place};
use ringmaster_engine::print::Printer;

use crate::run::{configure, until_signal};

/// Arguments of `ringmaster dev`.
#[derive(clap::Args)]
#[command(mut_arg("kubeconfig", |arg| arg.hide(true)))]
#[command(mut_arg("metrics_address", |arg| arg.help("Where /metrics is served; 0 turns it off [default: a free port of loopback]")))]
#[command(mut_arg("health_probe_bind_address", |arg| arg.help("Where /healthz and /readyz are served [default: nowhere]")))]
#[command(after_help = EXAMPLE)]
pub(crate) struct Arguments {
    /// Apply the objects of a file or folder (YAML or JSON) at the start. Repeatable, and takes several
    #[arg(long, value_name = "FILE", num_args = 1.., help_heading = DEV)]
    apply: Vec<PathBuf>,

    /// Run a webhook by this command line; again when it exits or a source file that it names changes. Repeatable
    #[arg(long, value_name = "CMD", help_heading = DEV)]
    hook: Vec<String>,

    /// Load all objects from this file if it is there, and save them to it at the end
    #[arg(long, value_name = "FILE", help_heading = DEV)]
    state: Option<PathBuf>,

    /// Where the API server listens, on loopback; port 0 takes a free one
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:0", help_heading = DEV)]
    listen: SocketAddr,

    /// Write the kubeconfig here; it is removed at the end
    #[arg(long, value_name = "FILE", default_value = "ringmaster-dev.kubeconfig", help_heading = DEV)]
    write_kubeconfig: PathBuf,

    #[command(flatten)]
    flags: Flags,
}

/// Heading of what only `dev` has.
const DEV: &str = "Development";

const EXAMPLE: &str = "\
Example:
  ringmaster dev --hook 'python3 hook.py --listen 127.0.0.1:8080' \\
    --hook-resolve my-hook.my-namespace.svc:80=127.0.0.1:8080 \\
    --apply crds.yaml controller.yaml --state dev.objects";

pub(crate) fn main(arguments: Arguments, log: &Printer) -> ExitCode {
    let options = match options(arguments, log) {
        Ok(options) => options,
        Err(error) => return crate::fail(log, 2, &error),
    };
    match until_signal(async |stop| Ok(session::run(options, stop).await?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::fail(log, 1, &error),
    }
}

fn options(arguments: Arguments, log: &Printer) -> anyhow::Result<Options> {
    let Arguments { apply, hook, state, listen, write_kubeconfig, flags } = arguments;
    if flags.kubeconfig.is_some() {
        bail!("--kubeconfig: dev has an API server of its own; use `ringmaster run` for another one");
    }
    let settings = configure(flags, Place::Dev, log)?;
    if settings.kubeconfig.is_some() {
        bail!("a kubeconfig is set by a variable or the file: dev has an API server of its own; unset it");
    }
    let options = Options { settings, listen, kubeconfig: write_kubeconfig, apply, hooks: hook, state };
    options.check().map_err(anyhow::Error::msg)?;
    Ok(options)
}
