//! Calls against services made here: pages, limits of time, answers.

use parking_lot::Mutex;
use ringmaster_core::key::ApiVersion;
use tower::service_fn;

use super::*;

#[derive(Default)]
struct Hits(Mutex<Vec<&'static str>>);

impl Meter for Hits {
    fn api_call(&self, _: &Method, _: Option<u16>, _: Option<Duration>) {}
    fn limit_hit(&self, limit: &'static str) {
        self.0.lock().push(limit);
    }
}

#[tokio::test]
async fn a_retry_after_is_cut_and_that_is_counted() {
    let hits = Arc::new(Hits::default());
    let config = kube::Config::new("http://127.0.0.1:1".parse().unwrap());
    let client = Client::new(kube::Client::try_from(config).unwrap(), hits.clone());
    let asked = |value: &str| {
        let answer = Response::builder().header(RETRY_AFTER, value).body(()).unwrap();
        client.retry_after(&answer).map(|pause| pause.as_secs())
    };
    let longest = MAX_RETRY_AFTER.as_secs();
    assert_eq!([asked("1"), asked(" 120 "), asked("x"), asked("-1")], [Some(1), Some(longest), None, None]);
    assert!(hits.0.lock().is_empty());
    assert_eq!([asked("121"), asked("86400")], [Some(longest); 2]);
    assert_eq!(*hits.0.lock(), ["retry_after"; 2]);
}

/// Pages until an object's number reaches `all`; the second page has expired for whoever asks first.
fn paged(all: usize) -> (Client, Arc<Mutex<Vec<String>>>) {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    let service = service_fn(move |request: Request<Body>| {
        let query = request.uri().query().unwrap_or_default().to_owned();
        let from: usize = query.split("continue=").nth(1).map_or(0, |from| from.parse().unwrap());
        let expired = from == METADATA_PAGE_LIMIT && !log.lock().contains(&query);
        log.lock().push(query);
        let to = (from + METADATA_PAGE_LIMIT).min(all);
        let item = |number| serde_json::json!({"metadata": {"name": format!("o{number}"), "namespace": "n", "uid": format!("u{number}"), "resourceVersion": "7"}});
        let next = if to < all { to.to_string() } else { String::new() };
        let items: Vec<_> = (from..to).map(item).collect();
        let page = serde_json::json!({"metadata": {"resourceVersion": "9", "continue": next}, "items": items});
        let (code, body) = if expired { (410, "{}".to_owned()) } else { (200, page.to_string()) };
        let answer = Response::builder().status(code).body(http_body_util::Full::new(Bytes::from(body)));
        async { Ok::<_, std::convert::Infallible>(answer.unwrap()) }
    });
    (Client::new(kube::Client::new(service, "default"), Arc::new(Hits::default())), asked)
}

#[tokio::test]
async fn a_search_reads_all_pages_up_to_its_limit() {
    let resource = Resource {
        api_version: ApiVersion::new("v1"),
        plural: "configmaps".into(),
        kind: "ConfigMap".into(),
        namespaced: true,
        status: false,
    };
    let odd = |object: &Object| object.key().name().ends_with(['1', '3', '5', '7', '9']);
    let (client, asked) = paged(11_000);
    let found = client.find_metadata(&resource, ("n", "a=b,!c"), 6_000, odd).await.unwrap();
    assert_eq!((found.objects.len(), found.is_cut), (5_500, false), "of all pages, and none twice");
    let asked = asked.lock().clone();
    assert_eq!(asked.len(), 11_000 / METADATA_PAGE_LIMIT + 2, "one page had expired: {asked:?}");
    let (client, asked) = paged(11_000);
    let found = client.find_metadata(&resource, ("n", "a=b,!c"), 3_000, odd).await.unwrap();
    assert_eq!((found.objects.len(), found.is_cut), (3_000, true));
    let asked = asked.lock().clone();
    assert_eq!(asked.len(), 6_000 / METADATA_PAGE_LIMIT + 1 + 2, "the last pages aren't asked for: {asked:?}");
    let (client, _) = paged(11_000);
    assert_eq!(client.list_metadata(&resource, "").await.unwrap().objects.len(), 11_000);
}

#[tokio::test]
async fn a_write_is_limited_by_what_is_left_once_it_has_its_place() {
    let asked: Arc<Mutex<Vec<String>>> = Arc::default();
    let log = Arc::clone(&asked);
    let service = service_fn(move |request: Request<Body>| {
        log.lock().push(request.uri().query().unwrap_or_default().to_owned());
        let body = http_body_util::Full::new(Bytes::from_static(b"{}"));
        async { Ok::<_, std::convert::Infallible>(Response::builder().status(422).body(body).unwrap()) }
    });
    let hits = Arc::new(Hits::default());
    let client = Client::new(kube::Client::new(service, "default"), hits.clone());
    let write = |client: Client| async move { client.write(Method::PUT, "/x", "application/json", Vec::new()).await };
    let all = client.in_flight.acquire_many(u32::try_from(MAX_CALLS_IN_FLIGHT).unwrap()).await.unwrap();
    let waits = tokio::spawn(write(client.within(Duration::from_secs(20))));
    let refused = write(client.within(Duration::from_millis(50))).await.unwrap_err();
    assert!(matches!(refused, Error::NotSent { .. }) && !refused.outcome_is_unknown(), "{refused}");
    let pause = Duration::from_millis(200);
    tokio::time::sleep(pause).await;
    drop(all);
    assert_eq!(waits.await.unwrap().unwrap_err().code(), Some(422));
    assert!(write(client.within(Duration::ZERO)).await.is_err(), "0ms would be no limit at all");
    let asked = asked.lock();
    let left: Vec<u64> = asked.iter().map(|query| query["timeout=".len()..query.len() - 2].parse().unwrap()).collect();
    let [left] = left[..] else { panic!("{asked:?}") };
    assert!(left <= 20_000 - 200 && left > 10_000, "{left}");
    assert_eq!(*hits.0.lock(), ["api_calls_in_flight"; 2]);
}

#[test]
fn paths_are_those_of_the_api() {
    let resource = |api_version: &str, plural: &str| Resource {
        api_version: ApiVersion::new(api_version),
        plural: plural.into(),
        kind: "X".into(),
        namespaced: true,
        status: false,
    };
    let pods = resource("v1", "pods");
    assert_eq!(kind_path(&pods, ""), "/api/v1/pods");
    assert_eq!(object_path(&pods, &ObjectKey::new("n", "a")), "/api/v1/namespaces/n/pods/a");
    let roles = resource("rbac.authorization.k8s.io/v1", "clusterroles");
    let path = object_path(&roles, &ObjectKey::new("", "system:a?b#c d"));
    assert_eq!(path, "/apis/rbac.authorization.k8s.io/v1/clusterroles/system:a%3Fb%23c%20d");
}
