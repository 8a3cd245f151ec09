//! What becomes of tokens and passwords, good and bad ones, and that calls carry them.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ringmaster_core::controller::{Address, Auth as Declared, Tls, Webhook};
use ringmaster_core::key::{ControllerId, ObjectKey};
use tokio::net::TcpListener;
use tokio::task::{JoinHandle, JoinSet};

use super::*;
use crate::{Call, Caller, Doorman, Failure, Hooks, Listener, Meter, News, Overrides, Policy, Reply, Route};

fn token(text: &str) -> Credential {
    Credential::Token { scheme: "Bearer".into(), token: text.as_bytes().to_vec() }
}

fn basic(username: &str, password: &str) -> Credential {
    Credential::Basic { username: username.as_bytes().to_vec(), password: password.as_bytes().to_vec() }
}

#[test]
fn parts_become_a_header_without_the_white_space_around_them() {
    for (credential, wanted) in [
        (token("abc"), "Bearer abc"),
        (token(" \n a b\tc \r\n"), "Bearer a b\tc"),
        (Credential::Token { scheme: "ApiKey".into(), token: b"x=y".to_vec() }, "ApiKey x=y"),
        // The example of RFC 7617, 2.
        (basic("Aladdin", "open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        (basic("Aladdin\n", " open sesame\n"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="),
        (basic("a", "b:c"), "Basic YTpiOmM="),
    ] {
        let value = credential.value().unwrap();
        assert_eq!(value.to_str().unwrap(), wanted);
        assert!(value.is_sensitive() && !format!("{value:?}").contains(wanted));
    }
}

#[test]
fn what_cannot_be_sent_is_told_by_field_and_never_shown() {
    let long = "s3cret".repeat(4096);
    for (credential, field, why) in [
        (token(" \n"), "authorization.secretRef: ", "is empty"),
        (token("s3cret\ns3cret"), "authorization.secretRef: ", "control characters"),
        (token("s3cret\0"), "authorization.secretRef: ", "control characters"),
        (token(&long), "authorization.secretRef: ", "too long"),
        (basic("s3cret:a", "s3cret"), "basicAuth.secretRef: ", "colon"),
        (basic("a", &long), "basicAuth.secretRef: ", "too long"),
    ] {
        let text = credential.value().unwrap_err();
        assert!(text.starts_with(field) && text.contains(why) && !text.contains("s3cret"), "{text}");
    }
}

#[test]
fn the_last_usable_one_goes_on() {
    let none = Auth::new("webhook".into(), false);
    assert_eq!((none.value(), none.problem(), none.is_missing()), (Ok(None), None, false));
    let auth = Auth::new("spec.endpointConfigs[1]".into(), true);
    assert!(auth.is_unread() && auth.is_missing() && auth.value().is_err());
    assert!(auth.problem().unwrap().contains("spec.endpointConfigs[1].basicAuth"));
    assert!(!auth.set(Err("there is no Secret".to_owned())));
    assert!(!auth.is_unread() && auth.is_missing());
    assert_eq!(auth.value(), Err("there is no Secret".to_owned()));
    let sent = || auth.value().unwrap().unwrap().to_str().unwrap().to_owned();
    assert!(auth.set(Ok(token("a"))));
    assert_eq!((sent().as_str(), auth.problem()), ("Bearer a", None));
    assert!(!auth.set(Ok(token("a\n"))), "it is the same");
    assert!(!auth.set(Ok(token("b\nc"))));
    assert_eq!(sent(), "Bearer a");
    let told = auth.problem().unwrap();
    assert!(told.starts_with("spec.endpointConfigs[1].authorization.secretRef: ") && told.contains("go on"), "{told}");
    assert!(!auth.set(Err("it is gone".to_owned())) && !auth.is_missing());
    assert!(auth.set(Ok(token("b"))));
    assert_eq!((sent().as_str(), auth.problem()), ("Bearer b", None));
}

/// Answers each call, and remembers what it carried.
struct Server {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
    carried: Arc<Mutex<Vec<Option<HeaderValue>>>>,
    serving: JoinHandle<()>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

async fn server() -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (connections, carried) = (Arc::<AtomicUsize>::default(), Arc::<Mutex<Vec<Option<HeaderValue>>>>::default());
    let (made, seen) = (Arc::clone(&connections), Arc::clone(&carried));
    let serving = tokio::spawn(async move {
        let mut running = JoinSet::new();
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            made.fetch_add(1, Ordering::Relaxed);
            let seen = Arc::clone(&seen);
            running.spawn(async move {
                let service = service_fn(move |request: Request<Incoming>| {
                    seen.lock().push(request.headers().get(http::header::AUTHORIZATION).cloned());
                    let response = Response::new(Full::new(Bytes::from_static(b"{}")));
                    async move { Ok::<_, std::convert::Infallible>(response) }
                });
                // However it ends: whoever called is asked.
                let _ =
                    hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Server { address, connections, carried, serving }
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Listener for Told {
    fn told(&self, news: News<'_>) {
        self.0.lock().push(format!("{news:?}"));
    }
}

struct Anybody;

impl Meter for Anybody {
    fn limit_hit(&self, _: &'static str) {}
}

impl Doorman for Anybody {
    fn room(&self, _: ControllerId, _: u64) {}
}

impl Caller for Anybody {
    fn may_send(&self) -> bool {
        true
    }

    fn withdrawn(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(std::future::pending())
    }

    fn tried(&self, _: u16, _: Duration) {}
}

fn route(address: SocketAddr, auth: Option<Declared>) -> (Arc<Route>, Arc<Told>) {
    let policy = Policy { allow_loopback: true, api_server: Vec::new() };
    let hooks = Hooks::new(policy, Overrides::default(), 8, Arc::new(Anybody), Arc::new(Anybody), || 0).unwrap();
    let webhook = Webhook {
        address: Address::Url(format!("http://{address}/sync").into()),
        timeout: Duration::from_secs(20),
        insecure: false,
        strict: true,
        idempotent: false,
        tls: Tls::default(),
        auth,
        etag: None,
        credentials_in: "webhook".into(),
    };
    let told = Arc::<Told>::default();
    let route = hooks.route(&webhook, false, 1 << 20, Arc::clone(&told) as Arc<dyn Listener>).unwrap();
    (route, told)
}

async fn call(route: &Route) -> Result<Reply, Failure> {
    let (headers, body) = (HeaderMap::new(), Bytes::from_static(b"{}"));
    route.call(Call { controller: ControllerId(1), shard: 0, headers, body, asked: None, caller: &Anybody }, None).await
}

#[tokio::test]
async fn calls_wait_for_the_credential_and_carry_the_newest_on_the_same_connection() {
    let server = server().await;
    let (username, password) = ("username".into(), "password".into());
    let declared = Declared::Basic { secret: ObjectKey::new("shop", "hook"), username, password };
    let (route, told) = route(server.address, Some(declared));
    assert_eq!(route.standing().condition().1, "NotRead");
    let later = async {
        tokio::task::yield_now().await;
        route.set_auth(Ok(token("first")));
    };
    let (answer, ()) = tokio::join!(call(&route), later);
    answer.unwrap();
    route.set_auth(Ok(token("second")));
    call(&route).await.unwrap();
    assert_eq!(route.standing().condition().1, "Ready");
    route.set_auth(Err("webhook.authorization.secretRef: there is no Secret shop/token".to_owned()));
    call(&route).await.unwrap();
    let (_, reason, text) = route.standing().condition();
    assert!(reason == "BadCredentials" && text.contains("there is no Secret shop/token"), "{text}");
    let carried = server.carried.lock().clone();
    let carried: Vec<&str> = carried.iter().map(|value| value.as_ref().unwrap().to_str().unwrap()).collect();
    assert_eq!(carried, ["Bearer first", "Bearer second", "Bearer second"]);
    assert_eq!(server.connections.load(Ordering::Relaxed), 1);
    assert_eq!(told.0.lock().iter().filter(|news| *news == "Credentials").count(), 2);
}

#[tokio::test]
async fn without_a_usable_credential_nothing_is_sent() {
    let server = server().await;
    let entry = ringmaster_core::controller::Entry { object: ObjectKey::new("shop", "token"), key: "token".into() };
    let (with, _) = route(server.address, Some(Declared::Token { scheme: "Bearer".into(), entry }));
    with.set_auth(Ok(token("s3cret\ns3cret")));
    let failure = call(&with).await.unwrap_err();
    assert_eq!(failure.error.reason(), "BadCredentials");
    let text = failure.to_string();
    assert!(text.contains("webhook.authorization.secretRef") && !text.contains("s3cret"), "{text}");
    assert!(server.carried.lock().is_empty());
    // Where none was declared none is sent.
    let (without, _) = route(server.address, None);
    call(&without).await.unwrap();
    assert_eq!(server.carried.lock().clone(), [None]);
}
