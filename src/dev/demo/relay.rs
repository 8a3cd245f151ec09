//! What stands between the members and a replica of the webhook: it passes each call on, and notes who made it, where it
//! went and when it ended.
//!
//! Never changes a request or a reply, never repeats one, and never listens beyond loopback. Without its replica it is
//! what a dead process is: connections are refused, and those that were there end.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, Method, StatusCode, Uri, header};
use axum::response::Response;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::server::conn::http1;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::service::TowerToHyperService;
use parking_lot::Mutex;
use serde::Deserialize;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::Mutex as AsyncMutex;
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use super::record::{Caller, End, Record};

/// Largest request and largest reply, in bytes.
const MAX_BODY_BYTES: usize = 8 << 20;
/// A connection to the webhook that idled this long isn't used again: sooner than the webhook closes it.
const IDLE: Duration = Duration::from_secs(2);
/// A replica that broke a call off has ended, which closes the relay; if it hasn't after this time, that was an error.
const GONE: Duration = Duration::from_secs(1);
/// Connections that wait to be accepted, and pause after one that can't be.
const BACKLOG: u32 = 512;
const ACCEPT_PAUSE: Duration = Duration::from_millis(20);
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
    /// Where the replica listens.
    webhook: SocketAddr,
    replica: usize,
    client: Client<HttpConnector, Full<Bytes>>,
    record: Arc<Mutex<Record>>,
}

/// A replica's relay; dropping it ends it. It has one port for all its life.
pub(crate) struct Relay {
    address: SocketAddr,
    replica: usize,
    record: Arc<Mutex<Record>>,
    port: AsyncMutex<Port>,
}

enum Port {
    /// Kept from whoever asks for any port; who connects is refused.
    Closed(Option<TcpSocket>),
    Open(CancellationToken, AbortOnDropHandle<()>),
}

impl Relay {
    /// Takes a free port of loopback for a replica that doesn't run yet.
    ///
    /// # Errors
    /// If there is none.
    pub(crate) fn new(replica: usize, record: &Arc<Mutex<Record>>) -> std::io::Result<Self> {
        let socket = bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        let (address, port) = (socket.local_addr()?, AsyncMutex::new(Port::Closed(Some(socket))));
        Ok(Self { address, replica, record: Arc::clone(record), port })
    }

    /// Its replica listens there now. One that is open goes on.
    ///
    /// # Errors
    /// If somebody else took the port.
    pub(crate) async fn open(&self, webhook: SocketAddr) -> std::io::Result<()> {
        let mut port = self.port.lock().await;
        let Port::Closed(socket) = &mut *port else { return Ok(()) };
        let socket = socket.take().map_or_else(|| bind(self.address), Ok)?;
        let listener = socket.listen(BACKLOG)?;
        // One of its own: what an older one has open leads to a replica that is no more.
        let client = Client::builder(TokioExecutor::new()).pool_idle_timeout(IDLE).build_http();
        let way = Way { webhook, replica: self.replica, client, record: Arc::clone(&self.record) };
        let closed = CancellationToken::new();
        let serving = tokio::spawn(serve(listener, way, closed.clone()));
        *port = Port::Open(closed, AbortOnDropHandle::new(serving));
        Ok(())
    }

    /// Its replica is no more. Calls that run are broken off.
    pub(crate) async fn close(&self) {
        let mut port = self.port.lock().await;
        let Port::Open(closed, serving) = &mut *port else { return };
        closed.cancel();
        // It doesn't panic.
        let _ = serving.await;
        // If somebody was faster, it shows when it is opened.
        *port = Port::Closed(bind(self.address).ok());
    }

    /// Where it listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }
}

/// A socket that has a port and doesn't listen.
fn bind(address: SocketAddr) -> std::io::Result<TcpSocket> {
    let socket = TcpSocket::new_v4()?;
    // Ended connections of the port don't count.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    Ok(socket)
}

/// Serves connections until it is closed; those that are left end with it.
async fn serve(listener: TcpListener, way: Way, closed: CancellationToken) {
    let service = TowerToHyperService::new(axum::Router::new().fallback(pass).with_state(way));
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = closed.cancelled() => break,
            Some(_) = connections.join_next() => continue,
            accepted = listener.accept() => accepted,
        };
        let Ok((stream, _)) = accepted else {
            tokio::time::sleep(ACCEPT_PAUSE).await;
            continue;
        };
        // If it can't be set, answers are slower.
        let _ = stream.set_nodelay(true);
        let service = service.clone();
        connections.spawn(async move {
            // How a connection ends is its caller's matter.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
    drop(listener);
    connections.shutdown().await;
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
    if request.method() == Method::HEAD {
        // A member looks whether the replica is there: no call.
        return Response::new(Body::empty());
    }
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
        replica: way.replica,
    };
    let start = Instant::now();
    let number = way.record.lock().begin(start, &caller);
    let mut running = Running { record: Arc::clone(&way.record), caller, number, end: End::Cut };
    let answered = forward(&way, &head.uri, &head.headers, body).await;
    if answered.is_err() {
        tokio::time::sleep(GONE).await;
    }
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
    use tokio::io::AsyncReadExt as _;
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
        let relay = Relay::new(1, &record).unwrap();
        relay.open(address).await.unwrap();
        (relay, record)
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
        assert_eq!(record.calls().at[&1], 2);
    }

    #[tokio::test]
    async fn without_its_replica_it_is_a_dead_process_and_then_it_is_back() {
        let may_answer = Arc::new(Semaphore::new(0));
        let (relay, record) = relay(&may_answer).await;
        let mut idle = tokio::net::TcpStream::connect(relay.address()).await.unwrap();
        let client = Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
        let call = http::Request::post(format!("http://{}/sync", relay.address()))
            .body(Full::from(r#"{"parent":{"metadata":{"name":"x"}}}"#))
            .unwrap();
        let broken = tokio::spawn(client.request(call));
        until(&record, |record| record.calls().begun() == 1).await;
        relay.close().await;
        // It ends without an answer, as do all connections.
        assert!(broken.await.unwrap().is_err());
        assert_eq!(record.lock().calls().cut, 1);
        assert!(matches!(idle.read(&mut [0]).await, Ok(0) | Err(_)));
        let refused = tokio::net::TcpStream::connect(relay.address()).await.map_err(|error| error.kind());
        assert_eq!(refused.unwrap_err(), std::io::ErrorKind::ConnectionRefused);
        // Nobody who asks for any port gets it meanwhile.
        let taken = TcpSocket::new_v4().unwrap().bind(relay.address()).map_err(|error| error.kind());
        assert_eq!(taken.unwrap_err(), std::io::ErrorKind::AddrInUse);
        let (other, _) = self::relay(&Arc::new(Semaphore::new(1))).await;
        let address = relay.address();
        relay.open(other.address()).await.unwrap();
        assert_eq!((self::call(&relay, "/sync", "a").await.0, relay.address()), (StatusCode::OK, address));
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
