//! Replicas on loopback that answer, fail, hang and come back; what a route makes of that.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use http::header::ETAG;
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use ringmaster_core::controller::{Etag, Tls as TlsRule};
use ringmaster_core::key::Uid;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::{JoinHandle, JoinSet};
use tokio_util::sync::CancellationToken;

use super::*;
use crate::{Doorman, Hooks, Meter, Overrides, Policy};

/// What a replica does with a call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Does {
    Answer(u16),
    /// Neither calls nor HEAD are answered.
    Hang,
    /// Calls aren't answered, HEAD is.
    HangCalls,
    /// The connection ends instead of an answer.
    Break,
    /// Calls are answered once [`Replica::open`] is told.
    Wait,
    /// Calls are answered with an entity tag and so many bytes; 304 to whoever has one.
    Tag(usize),
}

struct Shared {
    does: Mutex<Does>,
    calls: AtomicUsize,
    running: AtomicUsize,
    most: AtomicUsize,
    open: Notify,
}

struct Replica {
    address: SocketAddr,
    shared: Arc<Shared>,
    serving: JoinHandle<()>,
}

impl Replica {
    async fn start(does: Does) -> Self {
        Self::at("127.0.0.1:0".parse().unwrap(), does).await
    }

    async fn at(address: SocketAddr, does: Does) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            does: Mutex::new(does),
            calls: AtomicUsize::new(0),
            running: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            open: Notify::new(),
        });
        let state = Arc::clone(&shared);
        let serving = tokio::spawn(async move {
            // Dropped with this task: connections end as when a process dies.
            let mut connections = JoinSet::new();
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let state = Arc::clone(&state);
                let service = service_fn(move |request| answer(Arc::clone(&state), request));
                connections.spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    let _ = http.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, shared, serving }
    }

    fn does(&self, does: Does) {
        *self.shared.does.lock() = does;
    }

    fn calls(&self) -> usize {
        self.shared.calls.load(Ordering::Relaxed)
    }

    fn running(&self) -> usize {
        self.shared.running.load(Ordering::Relaxed)
    }

    fn name(&self) -> String {
        self.address.to_string()
    }

    async fn stop(self) -> SocketAddr {
        self.serving.abort();
        let _ = self.serving.await;
        self.address
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.open.notify_waiters();
    }
}

async fn answer(state: Arc<Shared>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, std::io::Error> {
    let does = *state.does.lock();
    let is_call = request.method() == Method::POST;
    let has_tag = request.headers().contains_key(IF_NONE_MATCH);
    let _ = request.into_body().collect().await;
    if is_call {
        state.calls.fetch_add(1, Ordering::Relaxed);
    }
    let code = match does {
        Does::Hang => std::future::pending().await,
        Does::HangCalls if is_call => std::future::pending().await,
        Does::Break if is_call => return Err(std::io::Error::other("as asked")),
        Does::Wait if is_call => {
            let running = state.running.fetch_add(1, Ordering::Relaxed) + 1;
            state.most.fetch_max(running, Ordering::Relaxed);
            state.open.notified().await;
            state.running.fetch_sub(1, Ordering::Relaxed);
            200
        }
        Does::Answer(code) => code,
        Does::Tag(_) if has_tag => 304,
        Does::HangCalls | Does::Break | Does::Wait | Does::Tag(_) => 200,
    };
    let body = match does {
        Does::Tag(_) if has_tag => Bytes::new(),
        Does::Tag(size) => Bytes::from(vec![b'x'; size]),
        _ => Bytes::from_static(b"{}"),
    };
    let mut response = Response::new(Full::new(body));
    *response.status_mut() = StatusCode::from_u16(code).unwrap();
    if let Does::Tag(_) = does {
        response.headers_mut().insert(ETAG, "\"tag\"".parse().unwrap());
    }
    Ok(response)
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Listener for Told {
    fn told(&self, news: News<'_>) {
        self.0.lock().extend(match news {
            News::Ejected { endpoint, .. } => Some(format!("ejected {endpoint}")),
            News::Returned { endpoint } => Some(format!("returned {endpoint}")),
            News::Reachable => Some("reachable".to_owned()),
            News::Credentials => Some("credentials".to_owned()),
            News::Changed => None,
        });
    }
}

struct Ignored;

impl Doorman for Ignored {
    fn room(&self, _: ControllerId, _: u64) {}
}

impl Meter for Ignored {
    fn limit_hit(&self, _: &'static str) {}
}

/// What a test calls through.
struct World {
    hooks: Hooks,
    route: Arc<Route>,
    told: Arc<Told>,
    cancel: CancellationToken,
}

impl Drop for World {
    fn drop(&mut self) {
        self.cancel.cancel();
    }
}

fn webhook(address: Address, timeout_ms: u64) -> Webhook {
    let timeout = Duration::from_millis(timeout_ms);
    Webhook {
        address,
        timeout,
        insecure: false,
        strict: true,
        idempotent: false,
        tls: TlsRule::default(),
        auth: None,
        etag: None,
        credentials_in: "webhook".into(),
    }
}

fn urls(replicas: &[&Replica]) -> Address {
    let urls = replicas.iter().map(|replica| format!("http://{}", replica.address).into()).collect();
    Address::Urls { urls, path: "/sync".into() }
}

fn world(webhook: &Webhook) -> World {
    let policy = Policy { allow_loopback: true, api_server: Vec::new() };
    let hooks =
        Hooks::new(policy, Overrides::default(), 64, Arc::new(Ignored), Arc::new(Ignored), || u64::MAX / 2).unwrap();
    let (told, cancel) = (Arc::<Told>::default(), CancellationToken::new());
    let route = hooks.route(webhook, false, 1 << 20, Arc::clone(&told) as Arc<dyn Listener>).unwrap();
    tokio::spawn(hooks.clone().run(cancel.clone()));
    World { hooks, route, told, cancel }
}

/// May send if that is set, and goes once it is told.
struct Anybody(AtomicBool, Notify);

impl Caller for Anybody {
    fn may_send(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn withdrawn(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.1.notified())
    }

    fn tried(&self, _: u16, _: Duration) {}
}

async fn call(route: &Route, controller: u32, shard: u8) -> Result<Reply, Failure> {
    let (headers, body, caller) =
        (HeaderMap::new(), Bytes::from_static(b"{}"), Anybody(AtomicBool::new(true), Notify::new()));
    route
        .call(Call { controller: ControllerId(controller), shard, headers, body, asked: None, caller: &caller }, None)
        .await
}

/// The same by somebody who comes again while too many wait.
async fn call_until_there_is_room(route: &Route, controller: u32, shard: u8) -> Result<Reply, Failure> {
    loop {
        match call(route, controller, shard).await {
            Err(Failure { error: Error::Busy { after, .. }, .. }) => tokio::time::sleep(after).await,
            answer => return answer,
        }
    }
}

/// Waits until something holds, for as long as a slow machine may need.
pub(super) async fn until(what: impl Fn() -> bool) {
    let seen = async {
        while !what() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(20), seen).await.is_ok(), "in vain");
}

/// Which replica has each shard, as calls show it.
async fn placed(route: &Route, replicas: &[&Replica]) -> HashMap<u8, usize> {
    let mut placed = HashMap::new();
    for shard in 0..=u8::MAX {
        let before: Vec<usize> = replicas.iter().map(|replica| replica.calls()).collect();
        call(route, 1, shard).await.unwrap();
        let at = (0..replicas.len()).find(|at| replicas[*at].calls() > before[*at]).unwrap();
        placed.insert(shard, at);
    }
    placed
}

#[tokio::test]
async fn a_shard_stays_where_it_is_and_each_replica_has_its_share() {
    let (a, b, c) = tokio::join!(
        Replica::start(Does::Answer(200)),
        Replica::start(Does::Answer(200)),
        Replica::start(Does::Answer(200))
    );
    let world = world(&webhook(urls(&[&a, &b, &c]), 5000));
    let first = placed(&world.route, &[&a, &b, &c]).await;
    assert_eq!(first, placed(&world.route, &[&a, &b, &c]).await);
    for at in 0..3 {
        let count = first.values().filter(|of| **of == at).count();
        assert!((60..=107).contains(&count), "{count}");
    }
    let standing = world.route.standing();
    assert_eq!((standing.ready, standing.condition().1), (3, "Ready"));
    let sampled = world.hooks.samples();
    assert_eq!(sampled.iter().map(|one| one.counts[0]).sum::<u64>(), 512);
    assert!(sampled.iter().all(|one| one.running == 0 && one.waiting == 0 && !one.ejected), "{sampled:?}");
}

#[tokio::test]
async fn what_was_forgotten_for_want_of_room_is_sent_whole_again() {
    let replica = Replica::start(Does::Tag(1 << 20)).await;
    let etag = Some(Etag { timeout: None });
    let world = world(&Webhook { etag, ..webhook(urls(&[&replica]), 5000) });
    // Answers whether what was known still held.
    let ask = async |parent: u32| {
        let (headers, body, caller) =
            (HeaderMap::new(), Bytes::from_static(b"{}"), Anybody(AtomicBool::new(true), Notify::new()));
        let asked = Some(("sync", Uid::new(&parent.to_string())));
        let call = Call { controller: ControllerId(1), shard: 0, headers, body, asked, caller: &caller };
        world.route.call(call, None).await.unwrap().is_known
    };
    assert!(!ask(0).await && ask(0).await);
    // Until one goes for each that comes.
    for parent in 1.. {
        let held = world.hooks.remembered_bytes();
        assert!(!ask(parent).await);
        if world.hooks.remembered_bytes() == held {
            break;
        }
    }
    assert!(!ask(0).await, "it went first");
    assert!(ask(0).await);
}

#[tokio::test]
async fn who_refuses_is_left_out_and_nobody_else_moves_and_it_comes_back() {
    let (a, b, c) = tokio::join!(
        Replica::start(Does::Answer(200)),
        Replica::start(Does::Answer(200)),
        Replica::start(Does::Answer(200))
    );
    let world = world(&webhook(urls(&[&a, &b, &c]), 5000));
    let before = placed(&world.route, &[&a, &b, &c]).await;
    let name = c.name();
    let address = c.stop().await;
    // No call fails, and what was elsewhere stays there.
    let after = placed(&world.route, &[&a, &b]).await;
    let moved = before.iter().filter(|(shard, at)| **at != 2 && after[shard] != **at).count();
    assert!(moved <= 256 / 8, "{moved} moved without need");
    assert_eq!(world.told.0.lock().clone(), [format!("ejected {name}")]);
    assert_eq!(world.route.standing().ejected.as_slice(), std::slice::from_ref(&name));
    let c = Replica::at(address, Does::Answer(200)).await;
    until(|| world.route.standing().ejected.is_empty()).await;
    assert_eq!(world.told.0.lock().last(), Some(&format!("returned {name}")));
    assert_eq!(placed(&world.route, &[&a, &b, &c]).await, before);
}

#[tokio::test]
async fn what_was_sent_is_sent_again_only_if_that_does_no_harm() {
    let (a, b) = tokio::join!(Replica::start(Does::Break), Replica::start(Does::Break));
    let once = world(&webhook(urls(&[&a, &b]), 5000));
    let failure = call(&once.route, 1, 7).await.unwrap_err();
    assert_eq!((failure.error.reason(), a.calls() + b.calls()), ("ConnectionBroken", 1), "{failure}");
    assert!(failure.to_string().contains("POST http://127.0.0.1:"), "{failure}");
    let twice = world(&Webhook { idempotent: true, ..webhook(urls(&[&a, &b]), 5000) });
    let failure = call(&twice.route, 1, 7).await.unwrap_err();
    assert_eq!((failure.error.reason(), a.calls() + b.calls()), ("ConnectionBroken", 3), "{failure}");
    a.does(Does::Answer(200));
    b.does(Does::Answer(200));
    assert!(twice.route.standing().ejected.is_empty(), "a connection that breaks is none that fails");
}

#[tokio::test]
async fn who_hangs_is_left_out_by_the_first_timeout_with_all_its_calls() {
    let (a, b) = tokio::join!(Replica::start(Does::Answer(200)), Replica::start(Does::Answer(200)));
    let world = world(&webhook(urls(&[&a, &b]), 4000));
    let placed = placed(&world.route, &[&a, &b]).await;
    let of_b: Vec<u8> = placed.iter().filter(|(_, at)| **at == 1).map(|(shard, _)| *shard).collect();
    b.does(Does::Hang);
    let start = Instant::now();
    let first = call(&world.route, 1, of_b[0]);
    let later = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let failure = call(&world.route, 1, of_b[1]).await.unwrap_err();
        (failure, start.elapsed())
    };
    let (first, (later, took)) = tokio::join!(first, later);
    let reasons = [first.unwrap_err().error.reason(), later.error.reason()];
    assert!(reasons.iter().all(|reason| ["Silent", "Timeout"].contains(reason)), "{reasons:?}");
    assert!(took < Duration::from_millis(5500), "the second was cut with the first, and not by its own end: {took:?}");
    assert_eq!(world.route.standing().ejected, [b.name()]);
    for shard in of_b {
        call(&world.route, 1, shard).await.unwrap();
    }
    assert_eq!(world.route.standing().condition().1, "LeftOut");
    b.does(Does::Answer(200));
    until(|| world.route.standing().ejected.is_empty()).await;
}

#[tokio::test]
async fn who_waits_for_one_that_hangs_is_served_elsewhere_once_it_is_left_out() {
    let (a, b) = tokio::join!(Replica::start(Does::Answer(200)), Replica::start(Does::Answer(200)));
    let world = world(&webhook(urls(&[&a, &b]), 4000));
    let placed = placed(&world.route, &[&a, &b]).await;
    let of_b = placed.iter().find(|(_, at)| **at == 1).map(|(shard, _)| *shard).unwrap();
    b.does(Does::Hang);
    let start = Instant::now();
    let mut calls = JoinSet::new();
    for _ in 0..200 {
        let route = Arc::clone(&world.route);
        calls.spawn(async move { call_until_there_is_room(&route, 1, of_b).await.is_ok() });
    }
    let mut served = 0;
    while let Some(ended) = calls.join_next().await {
        served += usize::from(ended.unwrap());
    }
    // Those that ran there are lost; none that waited was sent there after.
    assert!(start.elapsed() < Duration::from_secs(7), "{:?}", start.elapsed());
    assert!((200 - 64..200).contains(&served), "{served}");
}

#[tokio::test]
async fn one_parent_that_takes_too_long_leaves_nobody_out() {
    let (a, b) = tokio::join!(Replica::start(Does::HangCalls), Replica::start(Does::HangCalls));
    let world = world(&webhook(urls(&[&a, &b]), 400));
    for shard in 0..8 {
        let failure = call(&world.route, 1, shard).await.unwrap_err();
        assert_eq!(failure.error.reason(), "Timeout");
    }
    assert!(world.route.standing().ejected.is_empty() && world.told.0.lock().is_empty());
}

#[tokio::test]
async fn errors_are_told_and_not_hidden() {
    let (a, b) = tokio::join!(Replica::start(Does::Answer(200)), Replica::start(Does::Answer(500)));
    let world = world(&webhook(urls(&[&a, &b]), 5000));
    let mut failed = 0;
    for shard in 0..=u8::MAX {
        failed += usize::from(call(&world.route, 1, shard).await.is_err());
    }
    assert!((96..=160).contains(&failed) && b.calls() == failed, "{failed}");
    let standing = world.route.standing();
    assert_eq!((standing.condition().1, &standing.erring), ("AnswersErrors", &vec![(b.name(), 500)]));
    b.does(Does::Answer(200));
    placed(&world.route, &[&a, &b]).await;
    assert_eq!(world.route.standing().condition().1, "Ready");
}

#[tokio::test]
async fn never_are_all_left_out() {
    let (a, b) = tokio::join!(Replica::start(Does::Answer(200)), Replica::start(Does::Answer(200)));
    let world = world(&webhook(urls(&[&a, &b]), 5000));
    let (a, b) = (a.stop().await, b.stop().await);
    for shard in 0..20 {
        let failure = call(&world.route, 1, shard).await.unwrap_err();
        assert_eq!(failure.error.reason(), "ConnectionRefused");
    }
    assert_eq!(world.route.standing().condition().1, "NoneAnswers");
    // Whoever is back first is called, whether or not a probe has found it.
    let a = Replica::at(a, Does::Answer(200)).await;
    let answered = async { while call(&world.route, 1, 3).await.is_err() {} };
    assert!(tokio::time::timeout(Duration::from_secs(20), answered).await.is_ok());
    until(|| world.route.standing().ejected == [b.to_string()]).await;
    call(&world.route, 1, 3).await.unwrap();
    assert!(a.calls() >= 2);
}

#[tokio::test]
async fn a_single_endpoint_that_is_back_is_told_as_such() {
    let a = Replica::start(Does::Answer(200)).await;
    let world = world(&webhook(Address::Url(format!("http://{}/sync", a.address).into()), 5000));
    call(&world.route, 1, 3).await.unwrap();
    let address = a.stop().await;
    assert!(call(&world.route, 1, 3).await.is_err());
    assert!(world.told.0.lock().is_empty(), "that it can't be reached is said by the call's failure");
    let _a = Replica::at(address, Does::Answer(200)).await;
    until(|| world.told.0.lock().clone() == ["reachable"]).await;
    call(&world.route, 1, 3).await.unwrap();
}

#[tokio::test]
async fn calls_wait_for_their_turn_and_controllers_take_turns() {
    let a = Replica::start(Does::Wait).await;
    let address = Address::Url(format!("http://{}/sync", a.address).into());
    let world = world(&webhook(address, 20_000));
    let order = Arc::<Mutex<Vec<u32>>>::default();
    let mut calls = JoinSet::new();
    let begin = |calls: &mut JoinSet<()>, controller, count: usize| {
        for _ in 0..count {
            let (route, order) = (Arc::clone(&world.route), Arc::clone(&order));
            calls.spawn(async move {
                call(&route, controller, 0).await.unwrap();
                order.lock().push(controller);
            });
        }
    };
    begin(&mut calls, 1, 8);
    let waiting = || world.hooks.samples()[0].waiting;
    until(|| waiting() == 4 && a.running() == 4).await;
    let failure = call(&world.route, 1, 0).await.unwrap_err();
    assert!(matches!(failure.error, Error::Busy { waiting: 4, .. }), "{failure}");
    let admit = |who| world.route.admit(ControllerId(who), 0);
    assert!(admit(1).is_err());
    let coming: Vec<_> = std::iter::from_fn(|| admit(2).ok()).take(100).collect();
    assert_eq!(coming.len(), 4, "as many as may wait");
    drop(coming);
    begin(&mut calls, 2, 2);
    // One call of each has a place.
    until(|| waiting() == 5 && a.running() == 5).await;
    // What the second controller wants comes next, though the first has waited longer.
    for ended in 1..=6 {
        a.shared.open.notify_one();
        until(|| order.lock().len() == ended).await;
        until(|| a.running() >= 4).await;
    }
    assert_eq!(order.lock().iter().filter(|who| **who == 2).count(), 2, "{:?}", order.lock());
    a.does(Does::Answer(200));
    while !calls.is_empty() {
        a.shared.open.notify_waiters();
        let _ = tokio::time::timeout(Duration::from_millis(5), calls.join_next()).await;
    }
    assert!(a.shared.most.load(Ordering::Relaxed) <= 8);
    let sampled = &world.hooks.samples()[0];
    assert_eq!((sampled.running, sampled.waiting), (0, 0));
}

#[tokio::test]
async fn who_stops_waiting_gives_its_place_to_another() {
    let a = Replica::start(Does::Wait).await;
    let world = world(&webhook(Address::Url(format!("http://{}/sync", a.address).into()), 20_000));
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let route = Arc::clone(&world.route);
        calls.spawn(async move { call(&route, 1, 0).await.is_ok() });
    }
    until(|| world.hooks.samples()[0].waiting == 4).await;
    // All of them, those that run and those that wait.
    calls.shutdown().await;
    let sampled = || world.hooks.samples()[0].clone();
    until(|| sampled().running == 0).await;
    a.does(Does::Answer(200));
    call(&world.route, 1, 0).await.unwrap();
    assert_eq!((sampled().running, sampled().waiting), (0, 0));
}

#[tokio::test]
async fn what_a_service_says_is_followed() {
    let (a, b) = tokio::join!(Replica::start(Does::Wait), Replica::start(Does::Answer(200)));
    let service =
        Address::Service { name: "s".into(), namespace: "n".into(), port: 80, tls: false, path: "/sync".into() };
    let failure = call(&world(&webhook(service.clone(), 100)).route, 1, 0).await.unwrap_err();
    assert_eq!(failure.error.reason(), "NoEndpoints", "{failure}");
    let world = world(&webhook(service, 20_000));
    let slices = |replicas: &[&Replica]| {
        let mut addresses: Vec<SocketAddr> = replicas.iter().map(|replica| replica.address).collect();
        addresses.sort();
        Found::Slices(Ready { addresses, unready: 1, only_terminating: false })
    };
    world.route.found(&slices(&[]));
    let failure = call(&world.route, 1, 0).await.unwrap_err();
    assert!(failure.to_string().contains("0 of 1 endpoints are ready"), "{failure}");
    world.route.found(&slices(&[&a]));
    assert_eq!(world.told.0.lock().clone(), ["reachable"]);
    // More than there is room for: some wait.
    let mut calls = JoinSet::new();
    for _ in 0..8 {
        let route = Arc::clone(&world.route);
        calls.spawn(async move { call(&route, 1, 0).await.map_err(|failure| failure.to_string()) });
    }
    until(|| a.running() == 4 && world.hooks.samples()[0].waiting == 4).await;
    // Who waits goes to the one that is there; who runs is let be.
    world.route.found(&slices(&[&b]));
    until(|| b.calls() == 4).await;
    a.shared.open.notify_waiters();
    while let Some(ended) = calls.join_next().await {
        ended.unwrap().unwrap();
    }
    assert_eq!((a.calls(), world.route.standing().ready), (4, 1));
    world.route.found(&Found::Nothing("the Service n/s has no port 80 for TCP".to_owned()));
    let failure = call(&world.route, 1, 0).await.unwrap_err();
    assert!(failure.to_string().contains("no port 80"), "{failure}");
}

#[tokio::test]
async fn who_runs_it_has_the_last_word_on_where_a_service_is() {
    let a = Replica::start(Does::Answer(200)).await;
    let policy = Policy { allow_loopback: true, api_server: Vec::new() };
    let mut overrides = Overrides::default();
    overrides.add("s.n.svc", 80, a.address);
    let hooks = Hooks::new(policy, overrides, 4, Arc::new(Ignored), Arc::new(Ignored), || 0).unwrap();
    let address =
        Address::Service { name: "s".into(), namespace: "n".into(), port: 80, tls: false, path: "/sync".into() };
    let route = hooks.route(&webhook(address, 1000), false, 1 << 20, Arc::new(Told::default())).unwrap();
    let addresses = vec!["10.99.0.1:8080".parse().unwrap()];
    route.found(&Found::Slices(Ready { addresses, unready: 0, only_terminating: false }));
    call(&route, 1, 0).await.unwrap();
    let (_, reason, text) = route.standing().condition();
    assert!(reason == "ByName" && text.contains("--hook-resolve"), "{text}");
}

#[tokio::test]
async fn who_waits_goes_when_it_is_told() {
    let a = Replica::start(Does::Wait).await;
    let world = world(&webhook(urls(&[&a]), 20_000));
    let mut calls = JoinSet::new();
    for _ in 0..4 {
        let route = Arc::clone(&world.route);
        calls.spawn(async move { call(&route, 1, 0).await.is_ok() });
    }
    until(|| a.running() == 4).await;
    let caller = Anybody(AtomicBool::new(true), Notify::new());
    let (headers, body) = (HeaderMap::new(), Bytes::new());
    let waiting = world
        .route
        .call(Call { controller: ControllerId(1), shard: 0, headers, body, asked: None, caller: &caller }, None);
    let told = async {
        until(|| world.hooks.samples()[0].waiting == 1).await;
        caller.1.notify_one();
    };
    let (failure, ()) = tokio::join!(waiting, told);
    assert_eq!((failure.unwrap_err().error.reason(), a.calls()), ("Fenced", 4));
}

#[tokio::test]
async fn who_waits_while_all_are_left_out_goes_to_the_first_that_is_back() {
    let (a, b) = tokio::join!(Replica::start(Does::Answer(200)), Replica::start(Does::Answer(200)));
    let world = world(&webhook(urls(&[&a, &b]), 20_000));
    let placed = placed(&world.route, &[&a, &b]).await;
    let of_a = placed.iter().find(|(_, at)| **at == 0).map(|(shard, _)| *shard).unwrap();
    let (at_a, at_b) = (a.stop().await, b.stop().await);
    for shard in [0, 255, of_a] {
        assert!(call(&world.route, 1, shard).await.is_err());
    }
    until(|| world.route.standing().ejected.len() == 2).await;
    // It takes connections again, and answers nothing.
    let a = Replica::at(at_a, Does::Hang).await;
    let mut calls = JoinSet::new();
    for _ in 0..6 {
        let route = Arc::clone(&world.route);
        calls.spawn(async move { call(&route, 1, of_a).await.is_ok() });
    }
    until(|| world.hooks.samples().iter().any(|one| one.waiting >= 2)).await;
    let b = Replica::at(at_b, Does::Answer(200)).await;
    until(|| b.calls() >= 2).await;
    calls.shutdown().await;
    drop(a);
}

#[tokio::test]
async fn nothing_is_sent_by_who_may_not() {
    let a = Replica::start(Does::Answer(200)).await;
    let world = world(&webhook(urls(&[&a]), 1000));
    let caller = Anybody(AtomicBool::new(false), Notify::new());
    let (headers, body) = (HeaderMap::new(), Bytes::new());
    let call = Call { controller: ControllerId(1), shard: 0, headers, body, asked: None, caller: &caller };
    assert_eq!(world.route.call(call, None).await.unwrap_err().error.reason(), "Fenced");
    assert_eq!(a.calls(), 0);
}

#[path = "silence_tests.rs"]
mod silence;
