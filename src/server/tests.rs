//! Tests of the server over real connections on loopback.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::registry::Registry;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use super::*;

struct Running {
    address: SocketAddr,
    health: Health,
    stop: CancellationToken,
    task: JoinHandle<Result<(), Error>>,
}

async fn start() -> Running {
    let mut registry = Registry::default();
    let counter: Counter = Counter::default();
    counter.inc();
    registry.register("syncs", "Syncs so far", counter);
    let health = Health::new();
    let server = Server::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        .await
        .unwrap()
        .with_health(health.clone())
        .with_metrics(Metrics::new(Arc::new(registry)));
    let (address, stop) = (server.local_addr(), CancellationToken::new());
    let task = tokio::spawn(server.run(stop.clone()));
    Running { address, health, stop, task }
}

/// Sends the bytes and reads to the end, which must come.
async fn exchange(address: SocketAddr, request: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    let _ = tokio::time::timeout(Duration::from_secs(5), read).await.expect("the server must close");
    String::from_utf8(answer).unwrap()
}

async fn get(address: SocketAddr, path: &str) -> String {
    exchange(address, &format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n")).await
}

#[tokio::test]
async fn probes_follow_the_handle() {
    let running = start().await;
    let at = running.address;
    let live = get(at, "/healthz").await;
    assert!(live.starts_with("HTTP/1.1 200 ") && live.ends_with("\r\n\r\nok"), "{live}");
    let starting = get(at, "/readyz").await;
    assert!(starting.starts_with("HTTP/1.1 503 ") && starting.ends_with("starting"), "{starting}");
    running.health.set_ready(true);
    assert!(get(at, "/readyz").await.starts_with("HTTP/1.1 200 "));
    running.health.set_not_ready("no API server");
    running.health.set_ready(false);
    assert!(get(at, "/readyz").await.ends_with("no API server"));
    running.health.set_not_ready(format!("x{}", "\u{e9}".repeat(MAX_REASON_BYTES)));
    assert_eq!(running.health.not_ready().unwrap().len(), MAX_REASON_BYTES - 1, "cut between characters");
    assert!(get(at, "/healthz").await.starts_with("HTTP/1.1 200 "), "live while not ready");
}

#[tokio::test]
async fn metrics_come_in_the_format_that_is_asked_for() {
    let running = start().await;
    let accept = "Accept: application/openmetrics-text;version=1.0.0;q=0.8,text/plain;version=0.0.4;q=0.5";
    let text = exchange(running.address, &format!("GET /metrics HTTP/1.1\r\nHost: x\r\n{accept}\r\n\r\n")).await;
    assert!(text.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"), "{text}");
    assert!(text.contains("# TYPE syncs counter\nsyncs_total 1\n") && text.ends_with("# EOF\n"), "{text}");
    let text = get(running.address, "/metrics").await;
    assert!(text.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{text}");
    assert!(text.ends_with("# HELP syncs_total Syncs so far.\n# TYPE syncs_total counter\nsyncs_total 1\n"), "{text}");
}

#[tokio::test]
async fn only_get_without_a_body_is_answered() {
    let running = start().await;
    let at = running.address;
    for method in ["POST", "HEAD", "DELETE", "OPTIONS"] {
        let answer = exchange(at, &format!("{method} /healthz HTTP/1.1\r\nHost: x\r\n\r\n")).await;
        assert!(answer.starts_with("HTTP/1.1 405 "), "{method}: {answer}");
    }
    let body = "GET /healthz HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n";
    assert!(exchange(at, body).await.starts_with("HTTP/1.1 413 "));
    assert!(get(at, "/elsewhere").await.starts_with("HTTP/1.1 404 "));
}

#[tokio::test]
async fn places_are_bounded_and_come_back() {
    let inner = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = inner.local_addr().unwrap();
    let listener = connection::Listener::new(inner, Arc::new(Semaphore::new(1)), Duration::from_millis(300));
    let routes = Health::new().routes().layer(middleware::from_fn(limits));
    let task = tokio::spawn(async move { axum::serve(listener, routes).await });
    let mut silent = TcpStream::connect(address).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let begun = tokio::time::Instant::now();
    let answer = get(address, "/healthz").await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(begun.elapsed() > Duration::from_millis(150), "it waited for the silent one's end");
    assert_eq!(silent.read(&mut [0; 16]).await.unwrap_or(0), 0, "the silent one is cut");
    task.abort();
}

#[tokio::test]
async fn a_stop_ends_it_even_with_an_open_connection() {
    let running = start().await;
    let mut open = TcpStream::connect(running.address).await.unwrap();
    open.write_all(b"GET /hea").await.unwrap();
    running.stop.cancel();
    let ended = tokio::time::timeout(SHUTDOWN_GRACE * 2, running.task).await.expect("bounded").unwrap();
    assert!(ended.is_ok());
    assert!(TcpStream::connect(running.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let running = start().await;
    let error = Server::bind(running.address).await.unwrap_err();
    assert!(error.to_string().contains(&running.address.to_string()), "{error}");
}
