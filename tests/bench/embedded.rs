//! The embedded API server as a process of its own, so that its CPU and memory can be told from the load's.
//!
//! Never more than loopback, and never without a token.

use std::io::Write as _;
use std::net::Ipv4Addr;
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use ringmaster_apiserver::auth::{User, Users};
use ringmaster_apiserver::clock::wall_clock;
use ringmaster_apiserver::http::Front;
use ringmaster_apiserver::server::ApiServer;
use ringmaster_apiserver::store::Limits;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::child::Child;
use crate::wait;

/// The word that makes this binary that server.
pub(crate) const COMMAND: &str = "serve-embedded";
/// How long it may take to say where it is.
const READY: Duration = Duration::from_secs(10);

/// Serves on a free port until it is killed; says where on stdout. `token` is an administrator's.
pub(crate) fn serve(token: &str) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut users = Users::default();
        users.insert(token, User::new("admin", &["system:masters"]));
        let (server, work) = ApiServer::new(Limits::default(), wall_clock());
        tokio::spawn(work);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        println!("{}", listener.local_addr()?);
        std::io::stdout().flush()?;
        Front::new(server, users, None).serve(listener, CancellationToken::new()).await?;
        Ok(())
    })
}

/// Starts one; gives back its process and its address.
pub(crate) async fn start(token: &str, log: &Path) -> anyhow::Result<(Child, String)> {
    let program = std::env::current_exe()?;
    let mut child = Child::start("embedded", &program, &[COMMAND.to_owned(), token.to_owned()], log, |_| {})?;
    let ask = async || {
        child.check()?;
        let text = std::fs::read_to_string(log)?;
        text.lines().find(|line| line.starts_with("127.")).map(str::to_owned).context("no address")
    };
    let address = wait::until("the embedded server says where it is", READY, |_| {}, ask).await?;
    Ok((child, address))
}
