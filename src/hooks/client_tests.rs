//! Calls against bare TCP servers on loopback: limits, deadlines, and every kind of failure by its class.

use std::net::SocketAddr;
use std::sync::atomic::AtomicUsize;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::Policy;
use crate::connect::{Connector, client};
use crate::tls::{Pem, configure};

/// Answers each connection's first request with `answer`, then keeps the connection open until the test ends.
async fn server(answer: &'static str) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                let _ = stream.read(&mut buffer).await;
                let _ = stream.write_all(answer.as_bytes()).await;
                let _ = stream.read(&mut buffer).await;
            });
        }
    });
    (address, task)
}

#[derive(Default)]
struct Hits(AtomicUsize);

impl Meter for Hits {
    fn limit_hit(&self, limit: &'static str) {
        assert_eq!(limit, "large_replies");
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

async fn call(answer: &'static str, timeout_ms: u64, limit: usize) -> Result<Reply, Error> {
    let (address, task) = server(answer).await;
    let reply = call_at(address, timeout_ms, limit).await;
    task.abort();
    reply
}

async fn call_at(address: SocketAddr, timeout_ms: u64, limit: usize) -> Result<Reply, Error> {
    let room = Room::new(Arc::<Hits>::default());
    room.exchange(&http(address), post(&uri(address), timeout_ms, limit)).await
}

fn uri(address: SocketAddr) -> Uri {
    format!("http://{address}/sync").parse().unwrap()
}

fn http(address: SocketAddr) -> HttpClient {
    let connector = Connector {
        policy: Arc::new(Policy { allow_loopback: true, api_server: Vec::new() }),
        overrides: Arc::default(),
        host: address.ip().to_string().into(),
        port: address.port(),
        within: Duration::from_secs(5),
    };
    client(connector, &configure(&Pem::default()).unwrap(), 4)
}

fn post(uri: &Uri, timeout_ms: u64, reply_limit: usize) -> Post<'_> {
    let (headers, body) = (HeaderMap::new(), Bytes::from_static(b"{}"));
    Post { uri, headers, body, known: None, timeout: Duration::from_millis(timeout_ms), reply_limit }
}

#[tokio::test]
async fn a_reply_within_the_limit_comes_back() {
    let reply = call("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", 5000, 2).await.unwrap();
    assert_eq!(&*reply.body, b"{}");
}

#[tokio::test]
async fn too_large_a_reply_is_refused_by_header_and_by_count() {
    let announced = "HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n";
    assert!(matches!(call(announced, 5000, 10).await, Err(Error::TooLarge { limit: 10 })));
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\n01234567890\r\n";
    assert!(matches!(call(chunked, 5000, 10).await, Err(Error::TooLarge { limit: 10 })));
}

#[tokio::test]
async fn the_deadline_covers_head_and_body() {
    assert!(matches!(call("", 100, 10).await, Err(Error::Timeout { .. })));
    let half = "HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\n{\"";
    assert!(matches!(call(half, 100, 10).await, Err(Error::Timeout { .. })));
}

#[tokio::test]
async fn what_is_known_may_still_hold_and_nothing_else_may() {
    let room = Room::new(Arc::<Hits>::default());
    for answer in ["HTTP/1.1 304 Same\r\n\r\n", "HTTP/1.1 412 Same\r\nContent-Length: 2\r\n\r\nno"] {
        let (address, task) = server(answer).await;
        let uri = uri(address);
        let known = Some(Bytes::from_static(b"{\"a\":1}"));
        let reply = room.exchange(&http(address), Post { known, ..post(&uri, 5000, 10) }).await.unwrap();
        assert!(reply.is_known && *reply.body == *b"{\"a\":1}", "{reply:?}");
        let error = room.exchange(&http(address), post(&uri, 5000, 10)).await.unwrap_err();
        assert!([304, 412].contains(&error.code()), "{error}");
        task.abort();
    }
    let tagged = call("HTTP/1.1 200 OK\r\nETag: W/\"a\"\r\nContent-Length: 2\r\n\r\n{}", 5000, 2).await.unwrap();
    assert_eq!((tagged.tag, tagged.is_known), (Some(HeaderValue::from_static("W/\"a\"")), false));
}

#[tokio::test]
async fn failures_have_classes() {
    let redirect = call("HTTP/1.1 302 Found\r\nLocation: http://x/\r\nContent-Length: 0\r\n\r\n", 5000, 10).await;
    assert!(matches!(redirect, Err(Error::Redirect { code: 302 })));
    let error = call("HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\noops", 5000, 10).await.unwrap_err();
    assert!(matches!(&error, Error::Code { code: 500, excerpt } if excerpt == "oops") && !error.is_terminal());
    assert!(call("HTTP/1.1 422 No\r\nContent-Length: 0\r\n\r\n", 5000, 10).await.unwrap_err().is_terminal());
    let later = call("HTTP/1.1 429 No\r\nRetry-After: 7\r\nContent-Length: 0\r\n\r\n", 5000, 10).await;
    assert!(matches!(later, Err(Error::Later { after: Some(after) }) if after.as_secs() == 7));
    let later = call("HTTP/1.1 429 No\r\nContent-Length: 0\r\n\r\n", 5000, 10).await;
    assert!(matches!(later, Err(Error::Later { after: None })));
    let encoded = call("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 0\r\n\r\n", 5000, 10).await;
    assert!(matches!(encoded, Err(Error::Encoding(_))));
    let garbage = call("SSH-2.0-x\r\n", 5000, 10).await;
    assert!(matches!(garbage, Err(Error::NotHttp(_))), "{garbage:?}");
    let bad_chunk = call("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n", 5000, 10).await;
    assert!(matches!(bad_chunk, Err(Error::NotHttp(_))), "{bad_chunk:?}");
}

#[tokio::test]
async fn nobody_there_is_told_as_refused() {
    let (address, task) = server("").await;
    task.abort();
    let _ = task.await;
    let error = call_at(address, 5000, 10).await.unwrap_err();
    assert_eq!(error.reason(), "ConnectionRefused");
}

#[test]
fn retry_after_is_seconds_or_a_date() {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let header = |text: &str| {
        let mut headers = HeaderMap::new();
        headers.insert(RETRY_AFTER, HeaderValue::from_str(text).unwrap());
        retry_after(&headers, now)
    };
    assert_eq!(header("12"), Some(Duration::from_secs(12)));
    assert_eq!(header("Sun, 09 Sep 2001 01:46:50 GMT"), Some(Duration::from_secs(10)));
    for none in ["Sun, 09 Sep 2001 01:46:30 GMT", "Sun, 09 Sep 2001 01:46:40 GMT", "soon", "-1", "0", "1.5", "", "+3"] {
        assert_eq!(header(none), None, "{none}");
    }
    assert_eq!(header("99999999999999999999999999"), Some(MAX_RETRY_AFTER));
    assert_eq!(header("99999999999"), Some(MAX_RETRY_AFTER));
    assert_eq!(header("Sun, 09 Sep 2091 01:46:50 GMT"), Some(MAX_RETRY_AFTER));
}

#[tokio::test]
async fn a_code_is_told_though_its_body_never_ends() {
    let error = call("HTTP/1.1 500 No\r\nContent-Length: 400\r\n\r\noops", 5000, 10).await.unwrap_err();
    assert!(matches!(&error, Error::Code { code: 500, excerpt } if excerpt == "oops"), "{error:?}");
}

#[tokio::test]
async fn a_head_has_limits() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let _ = stream.read(&mut [0; 4096]).await;
            let _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nA: {}", "x".repeat(1 << 20)).as_bytes()).await;
        }
    });
    let error = call_at(address, 5000, 10).await.unwrap_err();
    assert!(matches!(error, Error::HeadTooLarge { .. }), "{error:?}");
    task.abort();
}

#[tokio::test]
async fn large_replies_wait_for_each_other() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let size = SMALL_REPLY_BYTES + 1;
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let _ = stream.read(&mut [0; 4096]).await;
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {size}\r\nConnection: close\r\n\r\n");
                let _ = stream.write_all(head.as_bytes()).await;
                let _ = stream.write_all(&vec![b' '; size]).await;
            });
        }
    });
    let hits = Arc::<Hits>::default();
    let (room, http, uri) = (Room::new(hits.clone()), http(address), uri(address));
    let call = |timeout_ms| room.exchange(&http, post(&uri, timeout_ms, 1 << 20));
    let mut held = Vec::new();
    for _ in 0..LARGE_REPLIES_AT_ONCE {
        held.push(call(10_000).await.unwrap());
    }
    assert_eq!(hits.0.load(Ordering::Relaxed), 0);
    assert!(matches!(call(200).await, Err(Error::NoRoom { .. })));
    held.pop();
    assert_eq!(call(10_000).await.unwrap().body.len(), size);
    assert_eq!(hits.0.load(Ordering::Relaxed), 1);
    task.abort();
}
