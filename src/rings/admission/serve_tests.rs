//! Questions over real connections on loopback, with TLS.

use std::net::Ipv4Addr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use parking_lot::Mutex;
use ringmaster_core::object::OwnerReference;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::super::review::Subject;
use super::*;

/// Longer than anything here takes: whoever waits for it has failed.
const FAILED: Duration = Duration::from_secs(20);

/// Knows one ring with one main kind, `sites`, and one controlled one, `configmaps`.
struct Known;

impl Assign for Known {
    fn part(&self, ring: RingName<'_>, _group: &str, resource: &str) -> Option<Part> {
        match (ring.name, resource) {
            ("shop", "sites") => Some(Part::Main),
            ("shop", "configmaps") => Some(Part::Controlled),
            _ => None,
        }
    }

    fn main(&self, _ring: RingName<'_>, object: &Subject, _counts: bool) -> Option<String> {
        (object.name != "nobodys").then(|| format!("shard-of-{}", object.name))
    }

    async fn controlled(&self, _ring: RingName<'_>, _object: &Subject, owner: &OwnerReference) -> Option<String> {
        if owner.name == "slow" {
            std::future::pending::<()>().await;
        }
        Some(format!("shard-of-{}", owner.name))
    }
}

#[derive(Default)]
struct Seen(Mutex<Vec<String>>);

impl Seen {
    fn add(&self, what: String) {
        self.0.lock().push(what);
    }
}

impl Meter for Seen {
    fn answered(&self, outcome: Outcome, _took: Duration) {
        self.add(outcome.label().to_owned());
    }

    fn assigned(&self, ring: RingName<'_>, group: &str, resource: &str) {
        self.add(format!("+{}/{group}/{resource}", ring.name));
    }

    fn refused(&self, status: u16) {
        self.add(status.to_string());
    }

    fn handshake_failed(&self) {
        self.add("handshake".to_owned());
    }

    fn limit_hit(&self, limit: &'static str) {
        self.add(limit.to_owned());
    }
}

struct Running {
    address: SocketAddr,
    shown: Arc<Shown>,
    seen: Arc<Seen>,
    stop: CancellationToken,
    task: JoinHandle<()>,
}

async fn start(pair: &Pair) -> Running {
    let (shown, seen, stop) = (Arc::<Shown>::default(), Arc::<Seen>::default(), CancellationToken::new());
    shown.show(pair).unwrap();
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let meter = Arc::<Seen>::clone(&seen);
    let server = Server::bind(address, Arc::clone(&shown), Arc::new(Known), meter).await.unwrap();
    let address = server.local_addr();
    let task = tokio::spawn(server.run(stop.clone()));
    Running { address, shown, seen, stop, task }
}

fn pair() -> Pair {
    Pair::make(now(), &["127.0.0.1".to_owned()]).unwrap()
}

/// The wall clock, which rustls' clients compare certificates with.
#[expect(clippy::disallowed_methods, reason = "the client under test asks it too")]
fn now() -> Duration {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap()
}

type Client = TlsStream<TcpStream>;

/// A connection of a client that trusts this authority alone.
async fn connect(address: SocketAddr, authority: &str) -> io::Result<Client> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let stream = TcpStream::connect(address).await?;
    let name = ServerName::try_from("127.0.0.1").unwrap();
    TlsConnector::from(Arc::new(config)).connect(name, stream).await
}

/// Sends a request and reads its answer: the status, and the body. The connection stays.
async fn exchange(client: &mut Client, head: &str, body: &[u8]) -> (u16, Vec<u8>) {
    let head = format!("{head} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n", body.len());
    client.write_all(&[head.as_bytes(), body].concat()).await.unwrap();
    timeout(FAILED, answer(client)).await.expect("an answer")
}

async fn answer(client: &mut Client) -> (u16, Vec<u8>) {
    let mut read = Vec::new();
    loop {
        assert!(client.read_buf(&mut read).await.unwrap() > 0, "the connection ended");
        let text = String::from_utf8_lossy(&read).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let lower = head.to_lowercase();
        let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")).unwrap();
        if body.len() >= length.parse::<usize>().unwrap() {
            let status = head.split(' ').nth(1).unwrap().parse().unwrap();
            return (status, body.as_bytes().to_vec());
        }
    }
}

fn review(resource: &str, metadata: Value, dry_run: bool) -> Vec<u8> {
    let request = json!({
        "uid": "u1",
        "kind": {"group": "g", "version": "v1", "kind": "K"},
        "resource": {"group": "g", "version": "v1", "resource": resource},
        "namespace": "blue",
        "operation": "CREATE",
        "object": {"metadata": metadata},
        "dryRun": dry_run,
    });
    json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request": request}).to_string().into_bytes()
}

/// Asks, and gives the shard that the object was given. It must be allowed.
async fn ask(client: &mut Client, question: &[u8]) -> Option<String> {
    let (status, body) = exchange(client, "POST /admission/rings/shop?timeout=2s", question).await;
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let answer: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(answer["response"]["allowed"], true);
    let patch = STANDARD.decode(answer["response"]["patch"].as_str()?).unwrap();
    let patch: Value = serde_json::from_slice(&patch).unwrap();
    Some(patch[0]["value"]["ring.ringmaster.dev/shop"].as_str().unwrap().to_owned())
}

fn child(owner: &str) -> Value {
    json!({"name": "c", "ownerReferences": [
        {"apiVersion": "g/v1", "kind": "K", "name": owner, "uid": "u", "controller": true},
    ]})
}

#[tokio::test]
async fn objects_are_given_shards_over_one_connection() {
    let pair = pair();
    let running = start(&pair).await;
    let mut client = connect(running.address, &pair.authority).await.unwrap();
    let named = |name: &str| json!({"name": name});
    assert_eq!(ask(&mut client, &review("sites", named("a"), false)).await.unwrap(), "shard-of-a");
    assert_eq!(ask(&mut client, &review("sites", named("a"), true)).await.unwrap(), "shard-of-a");
    assert_eq!(ask(&mut client, &review("configmaps", child("b"), false)).await.unwrap(), "shard-of-b");
    for (resource, metadata) in [
        ("sites", json!({"generateName": "a-"})),
        ("sites", named("nobodys")),
        ("configmaps", named("orphan")),
        ("others", named("a")),
        ("sites", json!({"name": "a", "labels": {"ring.ringmaster.dev/shop": "b"}})),
    ] {
        assert_eq!(ask(&mut client, &review(resource, metadata, false)).await, None);
    }
    let seen = running.seen.0.lock().join(" ");
    let first = "assigned +shop/g/sites assigned assigned +shop/g/configmaps";
    assert_eq!(seen, format!("{first} unnamed no_shard unowned not_ours labelled"));
}

#[tokio::test]
async fn an_owner_that_isnt_found_in_time_denies_nothing() {
    let pair = pair();
    let running = start(&pair).await;
    let mut client = connect(running.address, &pair.authority).await.unwrap();
    let begun = Instant::now();
    assert_eq!(ask(&mut client, &review("configmaps", child("slow"), false)).await, None);
    assert!(begun.elapsed() >= OWNER_TIMEOUT);
    assert_eq!(*running.seen.0.lock(), ["too_slow"]);
}

#[tokio::test]
async fn another_certificate_is_shown_to_whoever_comes_next() {
    let (old, new) = (pair(), pair());
    let running = start(&old).await;
    let mut client = connect(running.address, &old.authority).await.unwrap();
    assert!(connect(running.address, &new.authority).await.is_err(), "not yet");
    running.shown.show(&new).unwrap();
    let question = review("sites", json!({"name": "a"}), false);
    let mut next = connect(running.address, &new.authority).await.unwrap();
    assert!(ask(&mut next, &question).await.is_some());
    assert!(ask(&mut client, &question).await.is_some(), "who is there stays");
    assert!(connect(running.address, &old.authority).await.is_err());
    assert!(running.shown.show(&Pair { key: String::new(), ..new.clone() }).is_err());
    assert!(connect(running.address, &new.authority).await.is_ok(), "shown on");
}

#[tokio::test]
async fn what_is_no_question_is_refused() {
    let pair = pair();
    let running = start(&pair).await;
    for (head, body, want) in [
        ("POST /", &b"{}"[..], 404),
        ("POST /admission/rings/a/b", &b"{}"[..], 404),
        ("GET /admission/rings/shop", &b""[..], 405),
        ("POST /admission/rings/shop", &b"{}"[..], 400),
        ("POST /webhooks/sharder/controllerring/shop", &b"\xff"[..], 400),
    ] {
        let mut client = connect(running.address, &pair.authority).await.unwrap();
        assert_eq!(exchange(&mut client, head, body).await.0, want, "{head}");
    }
}

#[tokio::test]
async fn a_question_that_is_too_large_is_refused_before_it_comes() {
    let pair = pair();
    let running = start(&pair).await;
    let mut client = connect(running.address, &pair.authority).await.unwrap();
    let length = MAX_BODY_BYTES + 1;
    let head = format!("POST /admission/rings/shop HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n");
    client.write_all(head.as_bytes()).await.unwrap();
    assert_eq!(timeout(FAILED, answer(&mut client)).await.unwrap().0, 413);
    assert_eq!(*running.seen.0.lock(), ["admission_body_bytes", "413"]);
}

#[tokio::test]
async fn a_body_that_stops_is_given_up() {
    let pair = pair();
    let running = start(&pair).await;
    let mut client = connect(running.address, &pair.authority).await.unwrap();
    client.write_all(b"POST /admission/rings/shop HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\n{").await.unwrap();
    assert_eq!(timeout(FAILED, answer(&mut client)).await.unwrap().0, 408);
}

#[tokio::test]
async fn whoever_speaks_no_tls_is_cut() {
    let pair = pair();
    let running = start(&pair).await;
    let mut stream = TcpStream::connect(running.address).await.unwrap();
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut end = Vec::new();
    // An alert, and the end, or a reset.
    let _ = timeout(FAILED, stream.read_to_end(&mut end)).await.expect("the server must close");
    assert!(!end.starts_with(b"HTTP"));
    assert_eq!(*running.seen.0.lock(), ["handshake"]);
}

#[tokio::test]
async fn a_stop_ends_idle_connections_and_all_tasks() {
    let pair = pair();
    let running = start(&pair).await;
    let mut client = connect(running.address, &pair.authority).await.unwrap();
    assert!(ask(&mut client, &review("sites", json!({"name": "a"}), false)).await.is_some());
    running.stop.cancel();
    timeout(FAILED, running.task).await.expect("bounded").unwrap();
    assert_eq!(client.read(&mut [0; 16]).await.unwrap_or(0), 0, "closed");
    assert!(TcpStream::connect(running.address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn an_address_in_use_is_named() {
    let pair = pair();
    let running = start(&pair).await;
    let again = Server::bind(running.address, Arc::default(), Arc::new(Known), Arc::<Seen>::default()).await;
    let error = again.err().unwrap().to_string();
    assert!(error.contains(&running.address.to_string()), "{error}");
}
