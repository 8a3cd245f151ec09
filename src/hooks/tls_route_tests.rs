//! Replicas that speak TLS on loopback: authorities, our own certificate, their rotation, and HTTP/2.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use http::{Response, Version};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair};
use ringmaster_core::controller::{CaBundle, Tls as TlsRule};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Barrier;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;

use super::tests::until;
use super::*;
use crate::{Doorman, Hooks, Meter, Overrides, Policy};

type Authority = CertifiedIssuer<'static, KeyPair>;

fn authority() -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// A certificate and its key, in PEM.
fn signed(by: &Authority, name: &str, usage: ExtendedKeyUsagePurpose) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.extended_key_usages = vec![usage];
    (params.signed_by(&key, by).unwrap().pem(), key.serialize_pem())
}

/// What a server shows, and whom it trusts; nobody needs to show anything if that is empty.
fn server_config(own: &(String, String), trusted: &[&Authority], protocols: &[&str]) -> Arc<ServerConfig> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = if trusted.is_empty() {
        builder.with_no_client_auth()
    } else {
        let mut roots = RootCertStore::empty();
        for authority in trusted {
            roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
        }
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    };
    let chain = vec![CertificateDer::from_pem_slice(own.0.as_bytes()).unwrap()];
    let mut config = builder.with_single_cert(chain, PrivateKeyDer::from_pem_slice(own.1.as_bytes()).unwrap()).unwrap();
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.as_bytes().to_vec()).collect();
    Arc::new(config)
}

struct Server {
    address: SocketAddr,
    config: Arc<Mutex<Arc<ServerConfig>>>,
    connections: Arc<AtomicUsize>,
    /// Those that have ended.
    ended: Arc<AtomicUsize>,
    by_http2: Arc<AtomicUsize>,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

/// Answers each call once so many are there, and ends each HTTP/1.1 connection after one if `closes` says so.
async fn server(config: Arc<ServerConfig>, at_once: usize, closes: bool) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let config = Arc::new(Mutex::new(config));
    let (connections, by_http2) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let ended = Arc::<AtomicUsize>::default();
    let gone = Arc::clone(&ended);
    let barrier = Arc::new(Barrier::new(at_once));
    let (present, seen, second) = (Arc::clone(&config), Arc::clone(&connections), Arc::clone(&by_http2));
    let serving = tokio::spawn(async move {
        let mut running = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let (acceptor, seen) = (TlsAcceptor::from(Arc::clone(&present.lock())), Arc::clone(&seen));
            let (second, barrier, gone) = (Arc::clone(&second), Arc::clone(&barrier), Arc::clone(&gone));
            running.spawn(async move {
                let Ok(stream) = acceptor.accept(stream).await else { return };
                seen.fetch_add(1, Ordering::Relaxed);
                let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                let service = service_fn(move |request: http::Request<hyper::body::Incoming>| {
                    let (second, barrier) = (Arc::clone(&second), Arc::clone(&barrier));
                    async move {
                        second.fetch_add(usize::from(request.version() == Version::HTTP_2), Ordering::Relaxed);
                        barrier.wait().await;
                        let mut response = Response::new(Full::new(Bytes::from_static(b"{}")));
                        if closes {
                            response.headers_mut().insert(http::header::CONNECTION, "close".parse().unwrap());
                        }
                        Ok::<_, std::convert::Infallible>(response)
                    }
                });
                let io = TokioIo::new(stream);
                // However it ends: whoever called is asked.
                let _ = if is_http2 {
                    hyper::server::conn::http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
                } else {
                    hyper::server::conn::http1::Builder::new().serve_connection(io, service).await
                };
                gone.fetch_add(1, Ordering::Relaxed);
            });
        }
    });
    Server { address, config, connections, ended, by_http2, serving }
}

struct Ignored;

impl Meter for Ignored {
    fn limit_hit(&self, _: &'static str) {}
}

impl Doorman for Ignored {
    fn room(&self, _: ControllerId, _: u64) {}
}

impl Listener for Ignored {
    fn told(&self, _: News<'_>) {}
}

impl Caller for Ignored {
    fn may_send(&self) -> bool {
        true
    }

    fn withdrawn(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    fn tried(&self, _: u16, _: Duration) {}
}

fn declared(address: Address, timeout: Duration, tls: TlsRule) -> Webhook {
    let (auth, credentials_in) = (None, "webhook".into());
    Webhook {
        address,
        timeout,
        insecure: false,
        strict: true,
        idempotent: false,
        tls,
        auth,
        etag: None,
        credentials_in,
    }
}

/// The way to `https://hook.shop.svc/sync`, which is the server. Whom to trust is told later.
fn route(address: SocketAddr) -> Arc<Route> {
    let mut overrides = Overrides::default();
    overrides.add("hook.shop.svc", 443, address);
    let policy = Policy { allow_loopback: true, api_server: Vec::new() };
    let hooks = Hooks::new(policy, overrides, 64, Arc::new(Ignored), Arc::new(Ignored), || 0).unwrap();
    let ca = Some(CaBundle::Inline("".into()));
    let address = Address::Url("https://hook.shop.svc/sync".into());
    let (timeout, tls) = (Duration::from_secs(20), TlsRule { ca, client: None });
    let webhook = declared(address, timeout, tls);
    hooks.route(&webhook, false, 1 << 20, Arc::new(Ignored)).unwrap()
}

async fn call(route: &Route) -> Result<Reply, Failure> {
    loop {
        let (headers, body) = (HeaderMap::new(), Bytes::from_static(b"{}"));
        let call = Call { controller: ControllerId(1), shard: 0, headers, body, asked: None, caller: &Ignored };
        match route.call(call, None).await {
            Err(Failure { error: Error::Busy { after, .. }, .. }) => tokio::time::sleep(after).await,
            answer => return answer,
        }
    }
}

fn trusting(authorities: &[&Authority], client: Option<(String, String)>) -> Pem {
    let ca: String = authorities.iter().map(|authority| authority.pem()).collect();
    Pem { ca: Some(ca.into_bytes()), client: client.map(|(chain, key)| (chain.into_bytes(), key.into_bytes())) }
}

const NAME: &str = "hook.shop.svc";

#[tokio::test]
async fn only_whom_the_bundle_names_is_trusted() {
    let (ours, other) = (authority(), authority());
    let own = signed(&ours, NAME, ExtendedKeyUsagePurpose::ServerAuth);
    let server = server(server_config(&own, &[], &["http/1.1"]), 1, false).await;
    let route = route(server.address);
    assert_eq!(route.standing().condition().1, "NotRead");
    // What is on its way is waited for.
    let told = async {
        tokio::task::yield_now().await;
        route.set_tls(Err("webhook.caBundle.secretRef: there is no Secret shop/ca".to_owned()));
    };
    let (failure, ()) = tokio::join!(call(&route), told);
    assert_eq!(failure.unwrap_err().error.reason(), "BadCredentials");
    route.set_tls(Err("webhook.caBundle.secretRef: there is no Secret shop/ca".to_owned()));
    let failure = call(&route).await.unwrap_err();
    assert!(failure.to_string().contains("there is no Secret shop/ca"), "{failure}");
    route.set_tls(Ok(trusting(&[&other], None)));
    assert_eq!(call(&route).await.unwrap_err().error.reason(), "TlsFailed");
    route.set_tls(Ok(trusting(&[&other, &ours], None)));
    call(&route).await.unwrap();
    // What can't be used is told, and changes nothing.
    route.set_tls(Ok(Pem { ca: Some(b"nonsense".to_vec()), client: None }));
    call(&route).await.unwrap();
    let (_, reason, text) = route.standing().condition();
    assert!(reason == "BadCredentials" && text.contains("goes on") | text.contains("go on"), "{text}");
    route.set_tls(Ok(trusting(&[&ours], None)));
    assert_eq!(route.standing().condition().1, "Ready");
    assert_eq!(server.by_http2.load(Ordering::Relaxed), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn certificates_are_rotated_under_calls_without_one_that_fails() {
    let (mut ours, mut theirs) = (authority(), authority());
    let usage = || (ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth);
    let own = signed(&theirs, NAME, usage().0);
    let server = server(server_config(&own, &[&ours], &["http/1.1"]), 1, true).await;
    let route = route(server.address);
    route.set_tls(Ok(trusting(&[&theirs], Some(signed(&ours, "ringmaster", usage().1)))));
    let (calls, stop, failed) = (Arc::<AtomicUsize>::default(), CancellationToken::new(), CancellationToken::new());
    let mut callers = JoinSet::new();
    for _ in 0..4 {
        let (route, calls, stop, failed) = (Arc::clone(&route), Arc::clone(&calls), stop.clone(), failed.clone());
        callers.spawn(async move {
            while !stop.is_cancelled() {
                call(&route).await.map_err(|failure| {
                    failed.cancel();
                    failure.to_string()
                })?;
                calls.fetch_add(1, Ordering::Relaxed);
            }
            Ok::<(), String>(())
        });
    }
    for round in 1..=20 {
        let (our_next, their_next) = (authority(), authority());
        // As it is done: first both sides trust the next authority too, then its certificates are shown.
        let own = signed(&theirs, NAME, usage().0);
        *server.config.lock() = server_config(&own, &[&ours, &our_next], &["http/1.1"]);
        route.set_tls(Ok(trusting(&[&theirs, &their_next], Some(signed(&our_next, "ringmaster", usage().1)))));
        let own = signed(&their_next, NAME, usage().0);
        // A handshake that began before is done with what was trusted then.
        let more = async || {
            let before = calls.load(Ordering::Relaxed);
            until(|| calls.load(Ordering::Relaxed) >= before + 8 || failed.is_cancelled()).await;
        };
        more().await;
        *server.config.lock() = server_config(&own, &[&ours, &our_next], &["http/1.1"]);
        more().await;
        if failed.is_cancelled() {
            println!("a call failed in round {round}");
            break;
        }
        (ours, theirs) = (our_next, their_next);
    }
    stop.cancel();
    while let Some(ended) = callers.join_next().await {
        ended.unwrap().unwrap();
    }
    assert!(server.connections.load(Ordering::Relaxed) >= calls.load(Ordering::Relaxed));
    drop((ours, theirs));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn http2_is_used_where_it_is_offered_by_a_few_connections() {
    const AT_ONCE: usize = 64;
    let ours = authority();
    let own = signed(&ours, NAME, ExtendedKeyUsagePurpose::ServerAuth);
    let server = server(server_config(&own, &[], &["h2", "http/1.1"]), 1, false).await;
    let route = route(server.address);
    route.set_tls(Ok(trusting(&[&ours], None)));
    // Until as many may run at once as there are.
    for _ in 0..6 {
        let mut calls = JoinSet::new();
        for _ in 0..AT_ONCE {
            let route = Arc::clone(&route);
            calls.spawn(async move { call(&route).await.map(drop).map_err(|failure| failure.to_string()) });
        }
        while let Some(ended) = calls.join_next().await {
            ended.unwrap().unwrap();
        }
    }
    assert_eq!(server.by_http2.load(Ordering::Relaxed), 6 * AT_ONCE);
    // Calls that begin at once while there is none yet may each begin a connection; one of each line stays.
    let open = || server.connections.load(Ordering::Relaxed) - server.ended.load(Ordering::Relaxed);
    until(|| open() <= 4).await;
    assert!(open() > 1, "{}", open());
}

#[tokio::test]
async fn who_hangs_in_its_handshake_is_left_out_and_no_call_fails_for_it() {
    let ours = authority();
    let own = signed(&ours, NAME, ExtendedKeyUsagePurpose::ServerAuth);
    let server = server(server_config(&own, &[], &["http/1.1"]), 1, false).await;
    // The kernel takes connections for it, and nobody says a word.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let mut overrides = Overrides::default();
    overrides.add(NAME, 443, server.address);
    overrides.add(NAME, 8443, silent.local_addr().unwrap());
    let policy = Policy { allow_loopback: true, api_server: Vec::new() };
    let hooks = Hooks::new(policy, overrides, 64, Arc::new(Ignored), Arc::new(Ignored), || 0).unwrap();
    let urls = vec![format!("https://{NAME}").into(), format!("https://{NAME}:8443").into()];
    let address = Address::Urls { urls, path: "/sync".into() };
    let tls = TlsRule { ca: Some(CaBundle::Inline("".into())), client: None };
    let timeout = Duration::from_secs(60);
    let webhook = declared(address, timeout, tls);
    let route = hooks.route(&webhook, false, 1 << 20, Arc::new(Ignored)).unwrap();
    route.set_tls(Ok(trusting(&[&ours], None)));
    for shard in 0..8 {
        let (headers, body) = (HeaderMap::new(), Bytes::from_static(b"{}"));
        route
            .call(Call { controller: ControllerId(1), shard, headers, body, asked: None, caller: &Ignored }, None)
            .await
            .unwrap();
    }
    assert_eq!(route.standing().ejected, [format!("{NAME}:8443")]);
}

/// A frame of HTTP/2 on the connection's own stream (RFC 9113, 4.1).
fn frame(kind: u8, payload: &[u8]) -> Vec<u8> {
    let size = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&size[1..], &[kind, 0, 0, 0, 0, 0], payload].concat()
}

/// Says at each connection's first request that it goes away, and how far it came: before that request, or after it.
async fn leaving(
    config: Arc<ServerConfig>,
    with_the_request: bool,
    connections: Arc<AtomicUsize>,
) -> (SocketAddr, JoinHandle<()>) {
    const SETTINGS: u8 = 4;
    const GOAWAY: u8 = 7;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let serving = tokio::spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let mut stream = TlsAcceptor::from(Arc::clone(&config)).accept(stream).await.unwrap();
            connections.fetch_add(1, Ordering::Relaxed);
            stream.write_all(&frame(SETTINGS, &[])).await.unwrap();
            let (mut seen, mut buffer) = (Vec::new(), [0; 4096]);
            while !seen.ends_with(b"{}") {
                let count = stream.read(&mut buffer).await.unwrap();
                assert_ne!(count, 0, "the caller went");
                seen.extend_from_slice(&buffer[..count]);
            }
            let last: [u8; 8] = [0, 0, 0, u8::from(with_the_request), 0, 0, 0, 0];
            stream.write_all(&frame(GOAWAY, &last)).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    });
    (address, serving)
}

#[tokio::test]
async fn a_call_that_an_ending_connection_did_not_begin_with_was_not_sent() {
    let ours = authority();
    let own = signed(&ours, NAME, ExtendedKeyUsagePurpose::ServerAuth);
    for with_the_request in [false, true] {
        let connections = Arc::<AtomicUsize>::default();
        let config = server_config(&own, &[], &["h2"]);
        let (address, serving) = leaving(config, with_the_request, Arc::clone(&connections)).await;
        let route = route(address);
        route.set_tls(Ok(trusting(&[&ours], None)));
        let error = call(&route).await.unwrap_err().error;
        assert_eq!((error.was_not_sent(), error.was_lost()), (!with_the_request, with_the_request), "{error}");
        let tries = connections.load(Ordering::Relaxed);
        assert_eq!(tries, if with_the_request { 1 } else { 2 }, "a new connection, once");
        serving.abort();
    }
}
