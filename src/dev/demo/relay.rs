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

#[cfg(test)]
mod tests {
    use tokio::sync::Semaphore;

    use super::*;

    /// A webhook that answers with what it got, once it may; and a relay before it.
    async fn relay(may_answer: &Arc<Semaphore>) -> (Relay, Arc<Mutex<Record>>) {
        let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let may_answer = Arc::clone(may_answer);
        let answer = move |request: Request| {
            let may_answer = Arc::clone(&may_answer);
            async move {
                may_answer.acquire().await.unwrap().forget();
                let (head, body) = request.into_parts();
                let mut response = Response::new(body);
                if let Some(member) = head.headers.get("ringmaster-member") {
                    response.headers_mut().insert("was-called-by", member.clone());
                }
                *response.status_mut() =
                    if head.uri.path() == "/sync" { StatusCode::OK } else { StatusCode::NOT_FOUND };
                response
            }
        };
        tokio::spawn(async move { axum::serve(listener, axum::Router::new().fallback(answer)).await });
        let record = Arc::<Mutex<Record>>::default();
        (Relay::start(address, Arc::clone(&record)).await.unwrap(), record)
    }

    /// A call for the parent `n/x`.
    fn call(relay: &Relay, path: &str, member: &str) -> impl Future<Output = (StatusCode, HeaderMap, Bytes)> + use<> {
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let request = http::Request::post(format!("http://{}{path}", relay.address()))
            .header("Ringmaster-Member", member)
            .header("Ringmaster-Epoch", "7")
            .body(Full::from(r#"{"parent":{"metadata":{"namespace":"n","name":"x"}}}"#))
            .unwrap();
        async move {
            let (head, body) = client.request(request).await.unwrap().into_parts();
            (head.status, head.headers, body.collect().await.unwrap().to_bytes())
        }
    }

    async fn until(record: &Mutex<Record>, what: impl Fn(&Record) -> bool) {
        let seen = async {
            while !what(&record.lock()) {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        };
        assert!(tokio::time::timeout(Duration::from_secs(20), seen).await.is_ok(), "{:?}", record.lock());
    }

    #[tokio::test]
    async fn calls_pass_unchanged_and_are_noted() {
        let (relay, record) = relay(&Arc::new(Semaphore::new(2))).await;
        let (code, headers, body) = call(&relay, "/sync", "a").await;
        assert_eq!((code, &headers["was-called-by"]), (StatusCode::OK, &"a".parse().unwrap()));
        assert!(body.ends_with(br#""name":"x"}}}"#), "{body:?}");
        assert_eq!(call(&relay, "/else", "a").await.0, StatusCode::NOT_FOUND);
        let record = record.lock();
        assert_eq!((record.calls().answered, record.calls().failed, record.wrong()), (1, 1, 0));
    }

    #[tokio::test]
    async fn two_at_a_time_are_seen_and_one_that_was_cut_off_has_ended() {
        let may_answer = Arc::new(Semaphore::new(0));
        let (relay, record) = relay(&may_answer).await;
        let cut = tokio::spawn(call(&relay, "/sync", "a"));
        until(&record, |record| record.calls().begun() == 1).await;
        cut.abort();
        until(&record, |record| record.calls().cut == 1).await;
        let first = tokio::spawn(call(&relay, "/sync", "a"));
        until(&record, |record| record.calls().begun() == 2).await;
        assert_eq!(record.lock().wrong(), 0);
        let second = tokio::spawn(call(&relay, "/sync", "b"));
        until(&record, |record| record.calls().begun() == 3).await;
        may_answer.add_permits(3);
        assert_eq!((first.await.unwrap().0, second.await.unwrap().0), (StatusCode::OK, StatusCode::OK));
        // At one time, and under one epoch.
        assert_eq!(record.lock().wrong(), 2, "{record:?}");
    }
}
