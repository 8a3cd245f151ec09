//! `suites --serve [DIR]`: the suites' server for use by hand.
//!
//! Never detaches: the server lives as long as this process, and goes with it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context as _, bail};
use tokio::signal::unix::{SignalKind, signal};

use crate::server::{Server, ServerKind, Setup, Started};

/// How often the server's processes are looked at.
const CHECK: Duration = Duration::from_secs(1);

/// Starts the server, writes the administrator's `kubeconfig` and `ca.pem` into `dir` (a new folder if none is given),
/// prints the path of the first, waits for SIGINT or SIGTERM, stops all.
///
/// # Errors
/// The server can't be had, fails, or a file can't be written.
pub(crate) fn run(dir: Option<PathBuf>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // From here on a signal is kept until we ask, so that one during the start stops what was started.
    let (mut interrupt, mut terminate) =
        runtime.block_on(async { anyhow::Ok((signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?)) })?;
    // Both die with this function.
    let (dir, _temporary) = match dir {
        Some(dir) => (std::path::absolute(dir)?, None),
        None => {
            let temporary = tempfile::Builder::new().prefix("ringmaster-serve-").tempdir()?;
            (temporary.path().to_owned(), Some(temporary))
        }
    };
    std::fs::create_dir_all(&dir).with_context(|| format!("create {}", dir.display()))?;
    let server = match Server::start(ServerKind::Real, Setup::default())? {
        Started::Running(server) => server,
        Started::Unavailable(reason) => bail!("{reason}"),
    };
    let ca_file = dir.join("ca.pem");
    std::fs::copy(server.ca_file(), &ca_file).with_context(|| format!("write {}", ca_file.display()))?;
    let kubeconfig = crate::server::write_private(&dir, "kubeconfig", &server.kubeconfig("admin", &ca_file)?)?;
    println!("{}", kubeconfig.display());
    let ended = runtime.block_on(async {
        loop {
            tokio::select! {
                _ = interrupt.recv() => return Ok(()),
                _ = terminate.recv() => return Ok(()),
                () = tokio::time::sleep(CHECK) => server.check()?,
            }
        }
    });
    // Whoever looks for it finds it only while there is a server behind it.
    let _ = std::fs::remove_file(&kubeconfig);
    let stopped = server.stop();
    ended.and(stopped)
}
