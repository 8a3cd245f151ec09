//! A reverse proxy on loopback between a Ringmaster and the API server, which does with each request what a trial says:
//! passes it on, refuses it, leaves it without an answer, loses the answer.
//!
//! Never loses or changes what it passes on, and never judges: trials do, from its record of requests.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context as _;
use axum::Router;
use axum::body::{Body, Bytes, to_bytes};
use futures::StreamExt as _;
use http::header::RETRY_AFTER;
use http::{Method, Request, Response, StatusCode};
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::cluster::Context;
use crate::faults::{MAX_REQUEST_BYTES, forward, kubeconfig, status};
use crate::objects::Objects;
use crate::server::lock;

/// What happens to one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    /// It is passed on, and so is its answer.
    Pass,
    /// It is answered with this code, and with a Retry-After of so many seconds.
    Refuse(u16, Option<u64>),
    /// It is never answered.
    Hang,
    /// It is carried out, but the connection breaks before its answer is complete.
    Lose,
}

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    /// Its method.
    pub(crate) method: Method,
    /// Its path.
    pub(crate) path: String,
    /// Its query.
    pub(crate) query: String,
    /// Its body.
    body: Bytes,
}

impl Ask {
    /// Whether it is a watch.
    pub(crate) fn is_watch(&self) -> bool {
        self.query.split('&').any(|pair| pair == "watch=true")
    }

    /// Its body; `null` if that isn't JSON.
    pub(crate) fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// Whether it writes the object with this name, or its status.
    pub(crate) fn writes(&self, name: &str) -> bool {
        let of_path = self.path.split('/').any(|part| part == name);
        let of_body = || self.json()["metadata"]["name"] == name;
        self.method != Method::GET && (of_path || of_body())
    }
}

/// A request with what became of it.
#[derive(Clone, Debug)]
pub(crate) struct Asked {
    /// The request.
    pub(crate) ask: Ask,
    /// When it came.
    pub(crate) at: Instant,
    /// What was done with it.
    pub(crate) act: Act,
    /// The API server's code, where it was asked and has answered.
    pub(crate) code: Option<u16>,
}

type Rule = dyn Fn(&Ask) -> Act + Send + Sync;

/// What open streams do; what it was when a stream began is what that stream compares with.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
struct Streams {
    /// Those that began before say nothing more.
    silenced: u32,
    /// Those that began before end at once.
    cut: u32,
}

struct State {
    upstream: kube::Client,
    rule: Mutex<Arc<Rule>>,
    streams: watch::Sender<Streams>,
    asked: Mutex<Vec<Asked>>,
}

/// A running proxy; dropping it ends it.
pub(crate) struct Gate {
    url: String,
    state: Arc<State>,
    task: JoinHandle<()>,
}

impl Gate {
    /// Begins to serve as the user of `objects`, whatever the client says of itself; passes everything on.
    ///
    /// # Errors
    /// There is no port.
    pub(crate) async fn start(objects: &Objects) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.context("the proxy's port")?;
        let url = format!("http://{}", listener.local_addr()?);
        let state = Arc::new(State {
            upstream: objects.client().clone(),
            rule: Mutex::new(Arc::new(|_: &Ask| Act::Pass)),
            streams: watch::Sender::default(),
            asked: Mutex::default(),
        });
        let serving = Arc::clone(&state);
        let app = Router::new().fallback(move |request: Request<Body>| {
            let state = Arc::clone(&serving);
            async move {
                let answer = state.answer(request).await;
                let failed = |error| status(StatusCode::BAD_GATEWAY, &json!({ "message": format!("{error:#}") }));
                Ok::<_, Infallible>(answer.unwrap_or_else(failed))
            }
        });
        let task = tokio::spawn(async move {
            // It ends only when it is dropped.
            let _ = axum::serve(listener, app).await;
        });
        Ok(Self { url, state, task })
    }

    /// Writes a kubeconfig that leads here.
    ///
    /// # Errors
    /// The file can't be written.
    pub(crate) fn kubeconfig(&self, ctx: &Context) -> anyhow::Result<PathBuf> {
        let path = ctx.server.logs().join(format!("{}-gate.kubeconfig", ctx.id));
        std::fs::write(&path, kubeconfig(&self.url).to_string())?;
        Ok(path)
    }

    /// Does what `rule` says from the next request on.
    pub(crate) fn set(&self, rule: impl Fn(&Ask) -> Act + Send + Sync + 'static) {
        *lock(&self.state.rule) = Arc::new(rule);
    }

    /// Passes everything on again; what hangs goes on hanging.
    pub(crate) fn open(&self) {
        self.set(|_| Act::Pass);
    }

    /// Streams that are open stay so, but bring nothing more.
    pub(crate) fn silence_streams(&self) {
        self.state.streams.send_modify(|streams| streams.silenced += 1);
    }

    /// Streams that are open break off.
    pub(crate) fn cut_streams(&self) {
        self.state.streams.send_modify(|streams| streams.cut += 1);
    }

    /// The requests so far that `which` wants, in the order in which they came.
    pub(crate) fn asked(&self, which: impl Fn(&Asked) -> bool) -> Vec<Asked> {
        lock(&self.state.asked).iter().filter(|asked| which(asked)).cloned().collect()
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Fails unless each request came at least so long after the one before it, the bound doubling each time.
///
/// # Errors
/// One came sooner.
pub(crate) fn back_off(asked: &[Asked], mut least: Duration) -> anyhow::Result<()> {
    for pair in asked.windows(2) {
        let gap = pair[1].at - pair[0].at;
        anyhow::ensure!(gap >= least, "{gap:?} instead of {least:?} before {:?}: {asked:#?}", pair[1]);
        least *= 2;
    }
    Ok(())
}

impl State {
    async fn answer(&self, request: Request<Body>) -> anyhow::Result<Response<Body>> {
        let (head, body) = request.into_parts();
        let body = to_bytes(body, MAX_REQUEST_BYTES).await.context("the client's request")?;
        let ask = Ask {
            method: head.method.clone(),
            path: head.uri.path().to_owned(),
            query: head.uri.query().unwrap_or_default().to_owned(),
            body: body.clone(),
        };
        let rule = Arc::clone(&lock(&self.rule));
        let (act, watch) = (rule(&ask), ask.is_watch());
        let number = {
            let mut asked = lock(&self.asked);
            asked.push(Asked { ask, at: Instant::now(), act, code: None });
            asked.len() - 1
        };
        let pass = async || {
            let answer = forward(&self.upstream, head, body).await?;
            lock(&self.asked)[number].code = Some(answer.status().as_u16());
            anyhow::Ok(answer)
        };
        match act {
            Act::Refuse(code, retry_after) => Ok(refusal(code, retry_after)),
            Act::Hang => std::future::pending().await,
            Act::Lose => {
                let (head, _) = pass().await?.into_parts();
                let broken = futures::stream::iter([Err::<Bytes, _>(std::io::Error::other("lost by the trial"))]);
                Ok(Response::from_parts(head, Body::from_stream(broken)))
            }
            Act::Pass if watch => {
                let streams = self.streams.subscribe();
                let (head, body) = pass().await?.into_parts();
                Ok(Response::from_parts(head, Body::from_stream(stream(body, streams))))
            }
            Act::Pass => pass().await,
        }
    }
}

/// A watch's body until it is silenced or cut.
fn stream(body: Body, mut streams: watch::Receiver<Streams>) -> impl futures::Stream<Item = std::io::Result<Bytes>> {
    let begun = *streams.borrow_and_update();
    let body = body.into_data_stream();
    futures::stream::unfold((body, streams, false), move |(mut body, mut streams, ended)| async move {
        if ended {
            return None;
        }
        let bytes = tokio::select! {
            biased;
            // The sender lives as long as the proxy.
            _ = streams.wait_for(|now| *now != begun) => None,
            bytes = body.next() => Some(bytes?.map_err(std::io::Error::other)),
        };
        if let Some(bytes) = bytes {
            return Some((bytes, (body, streams, false)));
        }
        // Silent until it is cut, if ever.
        let _ = streams.wait_for(|now| now.cut != begun.cut).await;
        Some((Err(std::io::Error::other("cut by the trial")), (body, streams, true)))
    })
}

/// As the API server refuses.
fn refusal(code: u16, retry_after: Option<u64>) -> Response<Body> {
    let reason = match code {
        429 => "TooManyRequests",
        500 => "InternalError",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "",
    };
    let body = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "refused by the trial", "reason": reason, "code": code,
    });
    let mut response = status(StatusCode::from_u16(code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), &body);
    if let Some(seconds) = retry_after {
        response.headers_mut().insert(RETRY_AFTER, seconds.into());
    }
    response
}
