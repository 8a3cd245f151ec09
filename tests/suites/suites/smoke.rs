//! The harness itself: the server answers, the audit log counts, a webhook records.
//!
//! Never starts Ringmaster: when this fails, look at the harness first.

use std::io::Write as _;
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::cluster::{Context, Scope};
use crate::hook::{CallInfo, Hook, RawHook, Reply, read_request, refusing_address};
use crate::objects::{Resource, code};
use crate::trial::Case;

/// How long the API server may take for what it does at once.
const SOON: Duration = Duration::from_secs(10);
/// Requests that are counted one by one.
const COUNTED: usize = 50;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("server", "answers", answers),
        Case::new("server", "counts_requests", counts_requests),
        Case::new("server", "grants_rights", grants_rights),
        Case::new("server", "collects_garbage", collects_garbage),
        Case::new("server", "survives_a_restart", survives_a_restart).own_server(),
        Case::new("hook", "records_calls", records_calls),
        Case::new("hook", "misbehaves", misbehaves),
    ]
}

async fn answers(ctx: Context) -> anyhow::Result<()> {
    let things = ctx.crd("Thing", "things", Scope::Namespaced, None).await?;
    let body = json!({ "metadata": { "name": "a" }, "spec": { "size": 1 } });
    let created = ctx.admin.create(&things, body).await?;
    ctx.admin.patch_merge(&things, "a", &json!({ "spec": { "size": 2 } })).await?;
    ctx.admin.patch_status(&things, "a", &json!({ "status": { "ready": true } })).await?;
    let thing = ctx.admin.get(&things, "a").await?;
    ensure!(thing["spec"]["size"] == 2 && thing["status"]["ready"] == true, "{thing}");
    ensure!(thing["metadata"]["generation"] == 2, "a status write must not count as a generation: {thing}");
    ensure!(ctx.admin.list(&things, "").await?.len() == 1);
    ensure!(ctx.events_for(&created).await?.is_empty());

    let globals = ctx.crd("Global", "globals", Scope::Cluster, None).await?;
    ctx.admin.create(&globals, json!({ "metadata": { "name": "b" } })).await?;
    ensure!(ctx.admin.delete(&globals, "b").await? && !ctx.admin.delete(&globals, "b").await?);
    ensure!(ctx.admin.find(&globals, "b").await?.is_none());

    let denied = ctx.as_user()?.list(&Resource::new("v1", "Node", "nodes", None), "").await;
    ensure!(denied.as_ref().err().and_then(code) == Some(403), "{denied:?}");
    let requests = ctx.all_requests()?;
    let [request] = requests.as_slice() else { anyhow::bail!("want one request: {requests:?}") };
    ensure!(request.verb == "list" && request.resource == "nodes" && request.code == 403, "{request:?}");
    Ok(())
}

async fn counts_requests(ctx: Context) -> anyhow::Result<()> {
    let user = ctx.as_user()?;
    let configmaps = ctx.configmaps();
    ctx.grant(&Context::rules_for(&[&configmaps])).await?;
    let mark = ctx.mark()?;
    // Right after each answer, its request must have been counted: nothing is awaited here.
    for done in 1..=COUNTED {
        user.create(&configmaps, json!({ "metadata": { "name": format!("c{done}") } })).await?;
        let count = ctx.requests(mark)?.len();
        ensure!(count == done, "{count} requests counted after {done}");
    }
    // A watch counts once, when it has begun.
    let path = format!("{}?watch=true&timeoutSeconds=1", configmaps.path());
    let mark = ctx.mark()?;
    user.get_path(&path).await.context("watch")?;
    ctx.wait("the watch is counted once", SOON, async || {
        let requests = ctx.requests(mark)?;
        ensure!(requests.len() == 1 && requests[0].verb == "watch" && requests[0].code == 200, "{requests:?}");
        Ok(())
    })
    .await
}

async fn grants_rights(ctx: Context) -> anyhow::Result<()> {
    let things = ctx.crd("Thing", "things", Scope::Namespaced, None).await?;
    let user = ctx.as_user()?;
    let denied = user.list(&things, "").await;
    ensure!(denied.as_ref().err().and_then(code) == Some(403), "{denied:?}");
    ctx.grant(&Context::rules_for(&[&things])).await?;
    user.create(&things, json!({ "metadata": { "name": "a" } })).await?;
    user.patch_status(&things, "a", &json!({ "status": { "by": "user" } })).await?;
    Ok(())
}

async fn collects_garbage(ctx: Context) -> anyhow::Result<()> {
    let configmaps = ctx.configmaps();
    let owner = ctx.admin.create(&configmaps, json!({ "metadata": { "name": "owner" } })).await?;
    let reference =
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"] });
    let owned = json!({ "metadata": { "name": "owned", "ownerReferences": [reference] } });
    ctx.admin.create(&configmaps, owned).await?;
    ctx.admin.delete(&configmaps, "owner").await?;
    ctx.wait("the owned ConfigMap is collected", Duration::from_secs(60), async || {
        ensure!(ctx.admin.find(&configmaps, "owned").await?.is_none(), "it is still there");
        Ok(())
    })
    .await
}

async fn survives_a_restart(ctx: Context) -> anyhow::Result<()> {
    let configmaps = ctx.configmaps();
    ctx.admin.create(&configmaps, json!({ "metadata": { "name": "kept" } })).await?;
    for kill in [false, true] {
        ctx.server.stop_api(kill)?;
        ensure!(ctx.admin.get(&configmaps, "kept").await.is_err(), "a stopped server answered");
        ctx.server.start_api()?;
        ctx.server.ready().await?;
        ctx.admin.get(&configmaps, "kept").await?;
    }
    ctx.server.freeze_api(true)?;
    let silent = tokio::time::timeout(Duration::from_millis(300), ctx.admin.get(&configmaps, "kept")).await;
    ctx.server.freeze_api(false)?;
    ensure!(silent.is_err(), "a frozen server answered");
    ctx.admin.get(&configmaps, "kept").await.map(drop)
}

async fn records_calls(ctx: Context) -> anyhow::Result<()> {
    let echo = |request: &Value, _: &CallInfo| {
        Reply::json(&json!({ "status": { "echo": request["parent"]["metadata"]["name"] } }))
    };
    let hook = Hook::start(echo)?;
    let parent = |name: &str| json!({ "parent": { "metadata": { "namespace": "n", "name": name } } });
    let (status, reply) = post(hook.address(), "/sync", &parent("a")).await?;
    ensure!(status == 200 && reply["status"]["echo"] == "a", "{status} {reply}");
    hook.set(|_, _| Reply::status(503).header("retry-after", "7").delay(Duration::from_millis(50)));
    let (status, reply) = post(hook.address(), "/sync", &parent("b")).await?;
    ensure!(status == 503 && reply == Value::Null, "{status} {reply}");
    ensure!(hook.count() == 2 && hook.calls_for("n/b").len() == 1, "{:?}", hook.calls());
    let call = &hook.calls_for("n/b")[0];
    let took = call.ended.context("the call has no end")? - call.started;
    ensure!(took >= Duration::from_millis(50) && call.status == Some(503), "{call:?}");
    ensure!(call.path == "/sync" && !call.header("content-length").is_empty(), "{call:?}");
    hook.clear();
    ensure!(hook.calls().is_empty());

    // A hook that is gone refuses, and another may take its place.
    let address = hook.address();
    drop(hook);
    ctx.wait("a dropped hook refuses", SOON, async || {
        ensure!(post(address, "/sync", &parent("c")).await.is_err(), "it answers");
        Ok(())
    })
    .await?;
    let hook = Hook::start_at(address, echo)?;
    ensure!(post(address, "/sync", &parent("d")).await?.0 == 200 && hook.count() == 1);
    Ok(())
}

async fn misbehaves(_ctx: Context) -> anyhow::Result<()> {
    let raw = RawHook::start(|mut stream, number| {
        // A failed read or write only means that the caller went away.
        let _ = read_request(&mut stream).and_then(|(_, body)| match number {
            0 => Ok(()),
            _ => write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len())
                .and_then(|()| stream.write_all(&body)),
        });
    })?;
    ensure!(post(raw.address(), "/", &json!({})).await.is_err(), "closed without an answer");
    let (code, echo) = post(raw.address(), "/", &json!({ "a": 1 })).await?;
    ensure!(code == 200 && echo == json!({ "a": 1 }) && raw.connections() == 2, "{code} {echo}");
    ensure!(post(refusing_address()?, "/", &json!({})).await.is_err(), "nobody listens there");
    Ok(())
}

/// One POST over a connection of its own: the code and the JSON body (`null` if it is none).
async fn post(address: SocketAddr, path: &str, body: &Value) -> anyhow::Result<(u16, Value)> {
    let body = body.to_string();
    let head =
        format!("POST {path} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\ncontent-length: {}", body.len());
    let mut stream = tokio::net::TcpStream::connect(address).await?;
    stream.write_all(format!("{head}\r\n\r\n{body}").as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let (head, body) = answer.split_once("\r\n\r\n").context("no end of the head")?;
    let code = head.split(' ').nth(1).context("no code")?.parse()?;
    Ok((code, serde_json::from_str(body).unwrap_or(Value::Null)))
}
