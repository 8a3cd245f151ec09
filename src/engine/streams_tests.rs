//! Collections, their streams and strays against the embedded API server in process, in virtual time.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::time::Duration;

use futures::StreamExt as _;
use http::{Method, Request};
use http_body_util::StreamBody;
use kube::client::Body;
use parking_lot::Mutex;
use ringmaster_apiserver::auth::{User, Users};
use ringmaster_apiserver::http::Front;
use ringmaster_apiserver::meta::Now;
use ringmaster_apiserver::server::ApiServer;
use ringmaster_apiserver::service::InProcess;
use ringmaster_apiserver::store::Limits;
use ringmaster_cluster::{Client, Meter, Preconditions};
use ringmaster_core::key::ApiVersion;
use ringmaster_core::selector::Labels as _;
use ringmaster_core::shards::OWNER_LABEL;
use serde_json::{Value, json};
use tokio_util::task::TaskTracker;
use tower::{Service as _, service_fn};

use super::*;
use crate::strays::Stray;
use crate::watches::{Subscription, Watches};

/// A bound for a hang, in virtual time: longer than two watches last.
const SOON: Duration = Duration::from_secs(180);

struct Silent;

impl Meter for Silent {
    fn api_call(&self, _: &Method, _: Option<u16>, _: Option<Duration>) {}
    fn limit_hit(&self, _: &'static str) {}
}

/// A server, what was asked of it, and a gate that holds back what its watches say.
struct World {
    client: Client,
    watches: Watches,
    asked: Arc<Mutex<Vec<String>>>,
    open: watch::Sender<bool>,
    cancel: CancellationToken,
    tasks: TaskTracker,
}

impl World {
    fn new() -> Self {
        let next = std::sync::atomic::AtomicU64::new(1);
        let clock = Arc::new(move || {
            let number = u128::from(next.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
            Now {
                time: "2026-01-01T00:00:00Z".to_owned(),
                random: number.wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835),
            }
        });
        let (server, work) = ApiServer::new(Limits::default(), clock);
        tokio::spawn(work);
        let server = InProcess::new(Front::new(server, Users::default(), None), User::admin());
        let asked: Arc<Mutex<Vec<String>>> = Arc::default();
        let (open, gate) = watch::channel(true);
        let log = Arc::clone(&asked);
        let service = service_fn(move |request: Request<Body>| {
            let (mut server, log, gate) = (server.clone(), Arc::clone(&log), gate.clone());
            async move {
                let query = request.uri().query().unwrap_or_default().to_owned();
                let accept = request.headers()[http::header::ACCEPT].to_str().unwrap().to_owned();
                log.lock().push(format!("{} {query} {accept}", request.method()));
                let response = server.call(request).await?;
                let gated = query.contains("watch=true");
                Ok::<_, Infallible>(response.map(|body| {
                    let frames = http_body_util::BodyStream::new(body).then(move |frame| {
                        let mut gate = gate.clone();
                        async move {
                            if gated {
                                gate.wait_for(|open| *open).await.unwrap();
                            }
                            frame
                        }
                    });
                    StreamBody::new(frames)
                }))
            }
        });
        let client = Client::new(kube::Client::new(service, "default"), Arc::new(Silent));
        let (cancel, tasks) = (CancellationToken::new(), TaskTracker::new());
        let watches = Watches::new(client.clone(), tasks.clone(), cancel.clone());
        Self { client, watches, asked, open, cancel, tasks }
    }

    async fn put(&self, name: &str, label: Option<&str>) -> Object {
        let labels = label.map_or_else(|| json!({}), |label| json!({ OWNER_LABEL: label }));
        let body = json!({ "metadata": { "name": name, "labels": labels }, "data": { "k": "v" } });
        self.client.create(&config_maps(), "default", body.to_string().into()).await.unwrap()
    }

    async fn patch(&self, name: &str, patch: Value) -> Object {
        let key = ObjectKey::new("default", name);
        self.client.merge_patch(&config_maps(), &key, patch.to_string().into()).await.unwrap()
    }

    async fn relabel(&self, name: &str, label: &str) -> Object {
        self.patch(name, json!({ "metadata": { "labels": { OWNER_LABEL: label } } })).await
    }

    async fn delete(&self, name: &str) {
        let key = ObjectKey::new("default", name);
        let object = self.client.get(&config_maps(), &key).await.unwrap().unwrap();
        self.client.delete(&config_maps(), Preconditions::from(&object)).await.unwrap();
    }

    fn sharded(&self) -> (Subscription, Arc<Told>) {
        let told = Arc::new(Told::default());
        let listener = Arc::clone(&told) as Arc<dyn Listener>;
        (self.watches.subscribe(Arc::new(config_maps()), Scope::Sharded(OWNER_LABEL), listener), told)
    }

    /// The numbers that each list asked for, streamed or not, since the last look; watches that went on aren't lists.
    fn lists(&self) -> Vec<String> {
        let asked = std::mem::take(&mut *self.asked.lock());
        let lists = asked.iter().filter(|query| query.contains("sendInitialEvents") || query.contains("limit="));
        lists.map(|query| numbers(query)).collect()
    }

    async fn end(self) {
        self.cancel.cancel();
        self.tasks.close();
        tokio::time::timeout(SOON, self.tasks.wait()).await.unwrap();
    }
}

/// `1,2` of a query with `… in (1,2)`.
fn numbers(query: &str) -> String {
    let after = query.split("%28").nth(1).unwrap_or_default();
    after.split("%29").next().unwrap_or_default().replace("%2C", ",")
}

fn config_maps() -> Resource {
    Resource {
        api_version: ApiVersion::new("v1"),
        plural: "configmaps".into(),
        kind: "ConfigMap".into(),
        namespaced: true,
        status: false,
    }
}

#[derive(Default)]
struct Told(Mutex<Vec<String>>);

impl Told {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }
}

impl Listener for Told {
    fn changed(&self, change: &Change, _: Option<&SyncKey>) {
        let what = match change {
            Change::Applied { old: None, .. } => "new",
            Change::Applied { .. } => "changed",
            Change::Deleted { certain: true, .. } => "gone",
            Change::Deleted { certain: false, .. } => "out of sight",
        };
        self.0.lock().push(format!("{what} {}", change.key().name()));
    }
}

#[derive(Default)]
struct Seen(Mutex<BTreeSet<String>>);

impl Stray for Seen {
    fn seen(&self, object: &Arc<Object>) {
        assert_eq!(object.value()["data"], Value::Null, "metadata only");
        self.0.lock().insert(object.key().name().to_owned());
    }
}

fn shards(shards: &[u8]) -> Shards {
    shards.iter().copied().collect()
}

fn names(shared: &Shared) -> Vec<String> {
    let mut names: Vec<_> = shared.store().iter().map(|object| object.key().name().to_owned()).collect();
    names.sort();
    names
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(SOON, wait).await.unwrap_or_else(|_| panic!("never: {what}"));
}

#[tokio::test(start_paused = true)]
async fn shards_come_and_go_and_those_that_stay_are_never_listed_again() {
    let world = World::new();
    for shard in 0..4 {
        world.put(&format!("o{shard}"), Some(&shard.to_string())).await;
    }
    world.put("none", None).await;
    world.put("junk", Some("01")).await;
    world.watches.want(shards(&[0, 1]));
    let (subscription, told) = world.sharded();
    let shared = Arc::clone(subscription.shared());
    until("informed", || shared.is_synced() && *shared.state().borrow() == State::Synced).await;
    assert_eq!((names(&shared), shared.informed()), (vec!["o0".to_owned(), "o1".to_owned()], shards(&[0, 1])));
    assert_eq!((told.take().len(), world.lists()), (2, vec!["0,1".to_owned()]));
    // One more, one less.
    let mut state = shared.state();
    world.watches.want(shards(&[1, 2]));
    assert!(state.has_changed().unwrap() && *state.borrow_and_update() == State::Starting);
    assert_eq!((names(&shared), shared.informed()), (vec!["o1".to_owned()], shards(&[1])));
    until("informed", || shared.is_synced()).await;
    assert_eq!((names(&shared), world.lists()), (vec!["o1".to_owned(), "o2".to_owned()], vec!["2".to_owned()]));
    assert_eq!((told.take(), shared.stream_count()), (vec!["new o2".to_owned()], 2), "what was lost goes untold");
    // Streams tell of what is theirs, and of what leaves them.
    world.patch("o0", json!({ "data": { "k": "w" } })).await;
    world.patch("o2", json!({ "data": { "k": "w" } })).await;
    world.relabel("o1", "9").await;
    until("told", || told.0.lock().len() == 2).await;
    assert_eq!(told.take(), ["changed o2", "out of sight o1"]);
    // They merge when one ends, and only the merged one asks on.
    until("merged", || shared.stream_count() == 1).await;
    let asked = std::mem::take(&mut *world.asked.lock());
    let watches: Vec<_> =
        asked.iter().filter(|query| query.contains("&resourceVersion=")).map(|q| numbers(q)).collect();
    assert_eq!(watches.last().unwrap(), "1,2", "{watches:?}");
    assert!(!asked.iter().any(|query| query.contains("sendInitialEvents")), "{asked:?}");
    world.relabel("o1", "1").await;
    world.relabel("o2", "1").await;
    world.delete("o2").await;
    until("told", || told.0.lock().len() == 3).await;
    assert_eq!(told.take(), ["new o1", "changed o2", "out of sight o2"]);
    // Lost and gained again: not before it was listed.
    world.lists();
    world.watches.want(shards(&[2]));
    world.watches.want(shards(&[1, 2]));
    assert_eq!((names(&shared), shared.informed()), (vec![], shards(&[2])));
    until("informed", || shared.is_synced()).await;
    assert_eq!((names(&shared), world.lists()), (vec!["o1".to_owned()], vec!["1".to_owned()]));
    world.watches.want(Shards::NONE);
    assert_eq!((shared.store().len(), shared.stream_count()), (0, 0));
    drop(subscription);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn own_answers_count_where_they_are_wanted() {
    let world = World::new();
    let (subscription, told) = world.sharded();
    let shared = Arc::clone(subscription.shared());
    world.watches.want(shards(&[1]));
    until("informed", || shared.is_synced()).await;
    world.open.send_replace(false);
    shared.answer(world.put("mine", Some("1")).await, Some(7), None);
    shared.answer(world.put("other", Some("2")).await, None, None);
    shared.answer(world.put("none", None).await, None, None);
    assert_eq!((names(&shared), told.take()), (vec!["mine".to_owned()], vec!["new mine".to_owned()]));
    let uid = shared.store().get(&ObjectKey::new("default", "mine")).unwrap().uid().clone();
    shared.gone(&ObjectKey::new("default", "mine"), &uid, None);
    world.open.send_replace(true);
    world.put("last", Some("1")).await;
    until("told", || told.0.lock().contains(&"new last".to_owned())).await;
    assert_eq!(told.take(), ["gone mine", "new last"], "its late event brings nothing back");
    drop(subscription);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_check_brings_shards_to_where_the_server_is() {
    let world = World::new();
    for name in ["same", "changed", "deleted", "renewed", "moved"] {
        world.put(name, Some("1")).await;
    }
    world.watches.want(shards(&[1, 2]));
    let (subscription, told) = world.sharded();
    let shared = Arc::clone(subscription.shared());
    let early = shared.verify(shards(&[1])).await.unwrap_err();
    assert!(matches!(*early, crate::verify::Error::NotInformed { .. }));
    until("informed", || shared.is_synced()).await;
    told.take();
    // Its streams are held up from here on.
    world.open.send_replace(false);
    let changed = world.patch("changed", json!({ "data": { "k": "w" } })).await;
    world.delete("deleted").await;
    world.delete("renewed").await;
    let renewed = world.put("renewed", Some("1")).await;
    world.relabel("moved", "7").await;
    world.put("new", Some("1")).await;
    world.put("other", Some("7")).await;
    world.asked.lock().clear();
    shared.verify(shards(&[1, 7])).await.unwrap();
    let asked = std::mem::take(&mut *world.asked.lock());
    assert_eq!((asked.len(), numbers(&asked[0])), (4, "1".to_owned()), "a list, and a read of each that differs");
    assert!(asked[0].contains("as=PartialObjectMetadataList"), "{asked:?}");
    let mut news = told.take();
    news.sort();
    assert_eq!(news, ["changed changed", "changed renewed", "new new", "out of sight deleted", "out of sight moved"]);
    assert_eq!(names(&shared), ["changed", "new", "renewed", "same"]);
    let version = |name: &str| shared.store().get(&ObjectKey::new("default", name)).unwrap().version();
    assert_eq!((version("changed"), version("renewed")), (changed.version(), renewed.version()));
    // Nothing that is over comes back when they go on.
    world.open.send_replace(true);
    world.put("last", Some("1")).await;
    until("told", || told.0.lock().contains(&"new last".to_owned())).await;
    assert_eq!(told.take(), ["new last"]);
    shared.verify(Shards::ALL).await.unwrap();
    assert_eq!((told.take(), world.asked.lock().len()), (Vec::<String>::new(), 2), "a create, and one list");
    drop(subscription);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn who_asks_while_a_check_goes_on_shares_the_next() {
    let world = World::new();
    world.put("mine", Some("1")).await;
    world.watches.want(shards(&[1, 2, 3]));
    let (subscription, _told) = world.sharded();
    let shared = Arc::clone(subscription.shared());
    until("informed", || shared.is_synced()).await;
    world.open.send_replace(false);
    world.put("late", Some("2")).await;
    world.asked.lock().clear();
    let lists = |world: &World| -> Vec<String> {
        let asked = std::mem::take(&mut *world.asked.lock());
        asked.iter().filter(|asked| asked.contains("PartialObjectMetadataList")).map(|asked| numbers(asked)).collect()
    };
    let others = futures::future::join_all((0..9).map(|n| shared.verify(shards(&[2 + n % 2]))));
    let (first, others) = tokio::join!(shared.verify(shards(&[1])), others);
    assert!(first.is_ok() && others.iter().all(Result::is_ok));
    assert_eq!(lists(&world), ["1", "2,3"]);
    assert_eq!(names(&shared), ["late", "mine"]);
    // One that is given up leaves nobody waiting.
    let given_up = shared.verify(shards(&[1]));
    assert!(futures::FutureExt::now_or_never(given_up).is_none());
    shared.verify(shards(&[2])).await.unwrap();
    assert!(lists(&world).last().unwrap().contains('2'));
    drop(subscription);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn what_isn_t_sharded_is_checked_as_a_whole() {
    let world = World::new();
    let told = Arc::new(Told::default());
    let listener = Arc::clone(&told) as Arc<dyn Listener>;
    let subscription = world.watches.subscribe(Arc::new(config_maps()), Scope::Everything, listener);
    let shared = Arc::clone(subscription.shared());
    world.put("a", None).await;
    until("informed", || shared.is_synced() && shared.store().len() == 1).await;
    world.open.send_replace(false);
    world.put("b", Some("3")).await;
    world.delete("a").await;
    shared.verify(Shards::NONE).await.unwrap();
    assert_eq!(
        (names(&shared), told.take()),
        (vec!["b".to_owned()], vec!["new a".to_owned(), "new b".to_owned(), "gone a".to_owned()])
    );
    drop(subscription);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn children_are_shown_by_the_watch_of_everything_that_is_there() {
    let world = World::new();
    let resource = Arc::new(config_maps());
    let subscribe = |scope: Scope| {
        let told = Arc::new(Told::default());
        let listener = Arc::clone(&told) as Arc<dyn Listener>;
        (world.watches.subscribe(Arc::clone(&resource), scope, listener), told)
    };
    let streams = || world.watches.samples()[2].values.iter().map(|(_, count)| *count).sum::<f64>();
    world.put("a", None).await;
    let (whole, _) = subscribe(Scope::Everything);
    until("informed", || whole.shared().is_synced()).await;
    let (children, told) = subscribe(Scope::Children);
    assert!(Arc::ptr_eq(children.shared(), whole.shared()) && !children.is_first());
    assert_eq!(streams(), 1.0);
    // It goes on for whoever is left.
    drop(whole);
    world.put("b", None).await;
    until("told", || told.0.lock().contains(&"new b".to_owned())).await;
    assert_eq!(names(children.shared()), ["a", "b"]);
    drop(children);
    until("ended", || streams() == 0.0).await;
    // The other way round there are two, each with what it is for, until the first is given up.
    let content = |subscription: &Subscription| {
        let found = subscription.shared().store().get(&ObjectKey::new("default", "a")).cloned();
        found.unwrap().value()["data"]["k"].clone()
    };
    let (children, _) = subscribe(Scope::Children);
    until("informed", || children.shared().is_synced()).await;
    let (whole, _) = subscribe(Scope::Everything);
    until("informed", || whole.shared().is_synced()).await;
    assert_eq!((content(&children), content(&whole), streams()), (Value::Null, json!("v"), 2.0));
    let (later, _) = subscribe(Scope::Children);
    assert!(Arc::ptr_eq(later.shared(), whole.shared()));
    drop(children);
    until("ended", || streams() == 1.0).await;
    drop((later, whole));
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn a_kind_that_isn_t_served_is_told_by_each_collection_of_it() {
    let world = World::new();
    let mut nothings = config_maps();
    nothings.plural = "nothings".into();
    world.watches.want(shards(&[1]));
    let listener = || Arc::new(Told::default()) as Arc<dyn Listener>;
    let subscription = world.watches.subscribe(Arc::new(nothings), Scope::Sharded(OWNER_LABEL), listener());
    let shared = Arc::clone(subscription.shared());
    let mut state = shared.state();
    tokio::time::timeout(SOON, state.wait_for(|state| matches!(state, State::Troubled(.., true))))
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(*shared.state().borrow(), State::Troubled(_, _, true)) && !shared.is_synced());
    world.watches.want(Shards::NONE);
    assert_eq!(state.borrow_and_update().clone(), State::Synced, "nothing is wanted of it");
    drop(subscription);
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn strays_are_shown_as_they_pass_and_all_of_them_to_who_comes_later() {
    let world = World::new();
    let resource = Arc::new(config_maps());
    world.put("stray", None).await;
    world.put("junk", Some("256")).await;
    world.put("mine", Some("3")).await;
    let look = |seen: &Arc<Seen>| {
        let selector = Shards::none_selector(OWNER_LABEL);
        world.watches.strays(Arc::clone(&resource), selector, Arc::clone(seen) as Arc<dyn Stray>)
    };
    let (first, second) = (Arc::new(Seen::default()), Arc::new(Seen::default()));
    let held = look(&first);
    let seen = |seen: &Seen| seen.0.lock().iter().cloned().collect::<Vec<_>>();
    until("seen", || first.0.lock().len() == 2).await;
    assert_eq!(seen(&first), ["junk", "stray"]);
    world.relabel("mine", "x").await;
    world.put("late", None).await;
    until("seen", || first.0.lock().len() == 4).await;
    let held_too = look(&second);
    until("seen", || second.0.lock().len() == 4).await;
    drop(held);
    first.0.lock().clear();
    world.put("last", None).await;
    until("seen", || second.0.lock().len() == 5).await;
    assert!(seen(&first).is_empty());
    assert_eq!(
        world.watches.samples()[2].values,
        [(vec![("group", String::new()), ("kind", "ConfigMap".to_owned())], 1.0)]
    );
    drop(held_too);
    until("ended", || world.watches.samples()[2].values.is_empty()).await;
    world.end().await;
}

#[tokio::test(start_paused = true)]
async fn labels_of_what_is_known_are_those_that_are_wanted() {
    let world = World::new();
    world.watches.want(shards(&[0, 1, 2]));
    let (subscription, _told) = world.sharded();
    let shared = Arc::clone(subscription.shared());
    let mut truth = BTreeMap::new();
    let mut random = 7u64;
    for _ in 0..200 {
        random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let (name, label) = (format!("o{}", random >> 40 & 15), (random >> 50 & 7).to_string());
        match truth.insert(name.clone(), label.clone()) {
            None => drop(world.put(&name, Some(&label)).await),
            Some(_) => drop(world.relabel(&name, &label).await),
        }
        if random >> 33 & 15 == 0 {
            world.watches.want((0..8).filter(|shard| random >> (20 + shard) & 1 == 1).collect());
        }
        tokio::time::sleep(Duration::from_millis(random >> 45 & 4095)).await;
    }
    let wanted = shared.collection.read().streams().wanted();
    let known = || -> BTreeMap<String, String> {
        let label = |object: &Arc<Object>| object.labels().get(OWNER_LABEL).unwrap_or_default().to_owned();
        shared.store().iter().map(|object| (object.key().name().to_owned(), label(object))).collect()
    };
    truth.retain(|_, label| wanted.contains(label.parse().unwrap()));
    until("the truth", || shared.is_synced() && known() == truth).await;
    drop(subscription);
    world.end().await;
}
