//! The parts that trials of members are made of: the tunnel, the load and its book, the table's history.
//!
//! Never starts Ringmaster: when this fails, look here first.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use super::members_check::table;
use crate::cluster::{Context, Scope};
use crate::members::load::{Load, Naming};
use crate::members::table::{Watcher, tables};
use crate::members::tunnel::{Tunnel, Way};
use crate::objects::Resource;
use crate::trial::{Case, Scratch};

/// How long what happens at once may take.
const SOON: Duration = Duration::from_secs(20);
/// How long nothing must come.
const NOTHING: Duration = Duration::from_millis(200);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::alone("members_parts", "a_tunnel_passes_holds_and_breaks", tunnel),
        Case::new("members_parts", "a_load_outlives_the_api_server", load).own_server(),
        Case::new("members_parts", "a_table_is_watched", watched),
    ]
}

async fn tunnel(_: Scratch) -> anyhow::Result<()> {
    let echo = TcpListener::bind(("127.0.0.1", 0)).await?;
    let tunnel = Tunnel::start(&echo.local_addr()?.to_string()).await?;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = echo.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                // Until the client goes.
                let _ = tokio::io::copy(&mut from, &mut to).await;
            });
        }
    });
    let said = async |client: &mut TcpStream, word: &[u8; 4]| {
        client.write_all(word).await?;
        let mut answer = [0; 4];
        tokio::time::timeout(NOTHING, client.read_exact(&mut answer)).await.context("silence")??;
        ensure!(answer == *word);
        Ok(())
    };
    let mut client = TcpStream::connect(tunnel.address()).await?;
    said(&mut client, b"ping").await?;
    tunnel.set(Way::Silent);
    ensure!(said(&mut client, b"held").await.is_err(), "it isn't silent");
    let mut new = TcpStream::connect(tunnel.address()).await?;
    ensure!(said(&mut new, b"held").await.is_err(), "it isn't silent for a new one");
    tunnel.set(Way::Pass);
    for held in [&mut client, &mut new] {
        let mut answer = [0; 4];
        tokio::time::timeout(SOON, held.read_exact(&mut answer)).await.context("what was held is lost")??;
        ensure!(&answer == b"held");
    }
    tunnel.set(Way::Drop);
    let mut answer = [0; 1];
    let broken = tokio::time::timeout(SOON, client.read(&mut answer)).await.context("it isn't broken")?;
    ensure!(!matches!(broken, Ok(1..)), "{broken:?}");
    let refused = async { said(&mut TcpStream::connect(tunnel.address()).await?, b"none").await };
    ensure!(refused.await.is_err(), "a new one isn't broken");
    tunnel.set(Way::Pass);
    said(&mut TcpStream::connect(tunnel.address()).await?, b"pong").await
}

async fn load(ctx: Context) -> anyhow::Result<()> {
    let things = ctx.crd("Thing", "things", Scope::Namespaced, None).await?;
    let naming = Naming { child_namespace: None, groups: 2, generated: false };
    let load = Arc::new(Load::new(ctx.admin.clone(), things.clone(), naming));
    load.create_many(20).await?;
    let running = load.run(200);
    for kill in [false, true] {
        let before = load.changes().len();
        let ask = async || {
            ensure!(load.changes().len() > before + 20);
            Ok(())
        };
        ctx.wait("the load writes", SOON, ask).await?;
        ctx.server.stop_api(kill)?;
        tokio::time::sleep(NOTHING).await;
        ctx.server.start_api()?;
        ctx.server.ready().await?;
    }
    running.stop().await?;
    let wishes = load.wishes();
    let objects = ctx.admin.list(&things, "").await?;
    ensure!(objects.len() == wishes.len(), "{} instead of {}", objects.len(), wishes.len());
    for wish in wishes {
        let name = wish.parent.rsplit('/').next().unwrap_or_default();
        let object = objects.iter().find(|object| object["metadata"]["name"] == name).context(wish.parent.clone())?;
        ensure!(
            object["spec"]["number"] == wish.number && object["metadata"]["uid"] == *wish.uid,
            "{wish:?}: {object}"
        );
    }
    Ok(())
}

async fn watched(ctx: Context) -> anyhow::Result<()> {
    let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
    let own = ctx.admin.get(&namespaces, &ctx.namespace).await?;
    let installation = own["metadata"]["uid"].as_str().context("no uid")?.to_owned();
    let watcher = Watcher::start(ctx.server.admin()?, installation.clone());
    // Another trial's.
    for (name, uid) in [(format!("other-{}", ctx.id), "other"), (format!("ringmaster-{}", ctx.id), &installation)] {
        ctx.admin.create(&tables(), json!({ "metadata": { "name": name }, "spec": {} })).await?;
        for (epoch, owned_by_second, releasing) in [(7, 0, 0), (8, 0, 2), (9, 2, 0)] {
            let mut object = table(epoch, owned_by_second, releasing);
            let status: &mut Value = &mut object["status"];
            status["installation"] = uid.into();
            (status["counts"], status["checksum"]) = (json!({ "members": 2, "owned": 256, "moving": 0 }), "0".into());
            ctx.admin.patch_status(&tables(), &name, &json!({ "status": object["status"] })).await?;
        }
    }
    let ask = async || {
        ensure!(watcher.table()?.counter == 9, "{}", watcher.table()?.counter);
        Ok(())
    };
    ctx.wait("the last version is seen", SOON, ask).await?;
    watcher.history(|history| {
        ensure!(history.mark() == 3 && history.moved(0) == 2 && history.gaps(0).len() == 2, "{history:?}");
        Ok(())
    })
}
