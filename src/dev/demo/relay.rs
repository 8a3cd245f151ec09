//! What stands between the members and the webhook: it passes each call on, and notes who made it and when it ended.
//!
//! Never changes a request or a reply, never repeats one, and never listens beyond loopback.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode, Uri, header};
use axum::response::Response;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tokio_util::bytes::Bytes;

use super::record::{Caller, End, Record};

/// Largest request and largest reply, in bytes.
const MAX_BODY_BYTES: usize = 8 << 20;
/// A connection to the webhook that idled this long isn't used again: sooner than the webhook closes it.
const IDLE: Duration = Duration::from_secs(2);
/// What is between two neighbours, and not for the next.
const HOP: [HeaderName; 4] = [header::HOST, header::CONNECTION, header::TRANSFER_ENCODING, header::CONTENT_LENGTH];

/// Whose call it is; the rest is the webhook's to read.
#[derive(Deserialize)]
struct Asked {
    parent: Parent,
}

#[derive(Deserialize)]
struct Parent {
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Metadata {
    name: String,
    #[serde(default)]
    namespace: String,
}

#[derive(Clone)]
struct Way {
    /// Where the webhook listens.
    webhook: SocketAddr,
    client: Client<HttpConnector, Full<Bytes>>,
    record: Arc<Mutex<Record>>,
}

/// A running relay; dropping it ends it.
pub(crate) struct Relay {
    address: SocketAddr,
    serving: JoinHandle<()>,
}

impl Relay {
    /// Listens on a free port of loopback.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) async fn start(webhook: SocketAddr, record: Arc<Mutex<Record>>) -> std::io::Result<Self> {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build_http();
        let router = axum::Router::new().fallback(pass).with_state(Way { webhook, client, record });
        let serving = tokio::spawn(async move {
            // It ends only when it is dropped.
            let _ = axum::serve(listener, router).await;
        });
        Ok(Self { address, serving })
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// A call that runs. Its caller may go away, and the call is dropped then: that is its end too.
struct Running {
    record: Arc<Mutex<Record>>,
    caller: Caller,
    number: u64,
    end: End,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.record.lock().end(&self.caller, self.number, self.end);
    }
}

async fn pass(State(way): State<Way>, request: Request) -> Response {
    let (head, body) = request.into_parts();
    let Ok(body) = to_bytes(body, MAX_BODY_BYTES).await else {
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, "a request that is too large".to_owned());
    };
    let asked: Asked = match serde_json::from_slice(&body) {
        Ok(asked) => asked,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, error.to_string()),
    };
    let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let Metadata { name, namespace } = asked.parent.metadata;
    let caller = Caller {
        parent: format!("{namespace}/{name}"),
        member: text("ringmaster-member").to_owned(),
        epoch: text("ringmaster-epoch").parse().unwrap_or(0),
    };
    let number = way.record.lock().begin(&caller);
    let mut running = Running { record: Arc::clone(&way.record), caller, number, end: End::Cut };
    let start = Instant::now();
    let answered = forward(&way, &head.uri, &head.headers, body).await;
    // Before the answer goes out: the next call may come at once then.
    running.end = match &answered {
        Ok(response) if response.status() == StatusCode::OK => End::Answered(start.elapsed()),
        _ => End::Failed,
    };
    drop(running);
    answered.unwrap_or_else(|why| refusal(StatusCode::BAD_GATEWAY, why))
}

async fn forward(way: &Way, uri: &Uri, headers: &HeaderMap, body: Bytes) -> Result<Response, String> {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let mut request = http::Request::post(format!("http://{}{path}", way.webhook))
        .body(Full::new(body))
        .map_err(|error| error.to_string())?;
    pass_headers(headers, request.headers_mut());
    let answer = way.client.request(request).await.map_err(|error| format!("the webhook: {error}"))?;
    let (head, body) = answer.into_parts();
    let body = Limited::new(body, MAX_BODY_BYTES).collect().await.map_err(|error| format!("its reply: {error}"))?;
    let mut response = Response::new(Body::from(body.to_bytes()));
    *response.status_mut() = head.status;
    pass_headers(&head.headers, response.headers_mut());
    Ok(response)
}

fn pass_headers(from: &HeaderMap, to: &mut HeaderMap) {
    for (name, value) in from.iter().filter(|(name, _)| !HOP.contains(name)) {
        to.append(name, value.clone());
    }
}

fn refusal(code: StatusCode, why: String) -> Response {
    let mut response = Response::new(Body::from(why));
    *response.status_mut() = code;
    response
}
