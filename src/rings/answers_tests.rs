use std::time::Duration;

use ringmaster_cluster::Sink as _;
use ringmaster_core::dialect::{CONTROLLER_SHARDING_RING, RINGMASTER_RING, RingDialect};
use ringmaster_core::key::{ApiVersion, Resource, Uid, Version};
use ringmaster_core::ring::model::{GroupResource, Hash, MainResource};
use ringmaster_core::ring::{pace, plan};
use ringmaster_core::selector::Selector;
use serde_json::json;

use super::*;
use crate::admission::review::Question;
use crate::namespaces::Namespaces;
use crate::registry::Clock;
use crate::scope::Kind;

fn resource(api_version: &str, plural: &str, kind: &str, namespaced: bool) -> Arc<Resource> {
    let (api_version, plural, kind) = (ApiVersion::new(api_version), plural.into(), kind.into());
    Arc::new(Resource { api_version, plural, kind, namespaced, status: false })
}

/// A ring of sites with their configmaps and of cluster-scoped themes with theirs, in the namespaces but `kube-system`;
/// carts were part of it.
fn answer(dialect: &'static RingDialect, is_deleting: bool) -> Answer {
    let main = |resource: &str| MainResource {
        resource: GroupResource::new("shop.example", resource),
        controlled: vec![GroupResource::new("", "configmaps")],
    };
    let model = Ring {
        dialect,
        name: "shop".into(),
        uid: Uid::new("u1"),
        generation: 1,
        resources: vec![main("sites"), main("themes")],
        namespaces: Selector::parse("kubernetes.io/metadata.name!=kube-system").unwrap(),
        hash: Hash::Tokens,
        rules: plan::Rules { drain_limit: Duration::from_secs(60), escalates: false },
        pace: pace::Settings::default(),
        is_deleting,
    };
    let of = |resource, role, is_former| Kind { resource, role, is_former };
    let kinds = vec![
        of(resource("v1", "configmaps", "ConfigMap", true), Role::Controlled, false),
        of(resource("shop.example/v1", "sites", "Site", true), Role::Main(vec![0]), false),
        of(resource("shop.example/v1", "themes", "Theme", false), Role::Main(vec![0]), false),
        of(resource("shop.example/v1", "carts", "Cart", true), Role::Main(Vec::new()), true),
    ];
    let namespaces = Namespaces::new();
    for name in ["front", "kube-system"] {
        namespaces.applied(object("v1", "namespaces", "Namespace", "", name, &json!({})));
    }
    namespaces.list_complete(Version::new("1"));
    let clock = Clock { random: || 0, lease_time: String::new, wall_time: String::new, is_recent: |_, _| false };
    Answer::new(Scope::new(model, kinds, namespaces, clock))
}

fn object(
    api_version: &str,
    plural: &str,
    kind: &str,
    namespace: &str,
    name: &str,
    labels: &serde_json::Value,
) -> Object {
    let metadata = json!({
        "name": name, "namespace": namespace, "uid": "u-owner", "resourceVersion": "7", "labels": labels,
    });
    let tree = json!({ "apiVersion": api_version, "kind": kind, "metadata": metadata });
    Object::of(&tree, &resource(api_version, plural, kind, !namespace.is_empty())).unwrap()
}

/// Tells what a ring would: these shards are there, and the receivers get what nobody has.
fn tell(answer: &Answer, all: &[&str], receivers: &[&str]) {
    let names = |names: &[&str]| names.iter().copied().map(Arc::from).collect::<BTreeSet<Arc<str>>>();
    let mut hashes = Hashes::new(Hash::Tokens);
    hashes.shards(&names(all), &names(receivers));
    *answer.known.write() = Known { made: hashes.made(), free: hashes.free(), shards: hashes.shards_now().clone() };
}

fn subject(group: &str, resource: &str, namespace: &str) -> Subject {
    let review = json!({
        "apiVersion": "admission.k8s.io/v1",
        "kind": "AdmissionReview",
        "request": {
            "uid": "1",
            "kind": { "group": group, "version": "v1", "kind": "X" },
            "resource": { "group": group, "version": "v1", "resource": resource },
            "namespace": namespace,
            "operation": "CREATE",
            "object": { "metadata": { "name": "o" } },
        },
    });
    let ring = RingName { dialect: &RINGMASTER_RING, name: "shop" };
    Question::read(review.to_string().as_bytes(), ring).unwrap().subject.unwrap()
}

fn owner(api_version: &str, kind: &str) -> OwnerReference {
    let (api_version, kind, name) = (api_version.to_owned(), kind.to_owned(), "o".to_owned());
    OwnerReference { api_version, kind, name, uid: Uid::new("u-owner"), controller: true }
}

#[test]
fn a_kind_is_what_the_ring_says_of_it_now() {
    let ring = answer(&RINGMASTER_RING, false);
    assert_eq!(ring.part("shop.example", "sites"), Some(Part::Main));
    assert_eq!(ring.part("", "configmaps"), Some(Part::Controlled));
    assert_eq!(ring.part("", "sites"), None, "of another group");
    assert_eq!(ring.part("shop.example", "carts"), None, "it was once");
    assert_eq!(answer(&RINGMASTER_RING, true).part("shop.example", "sites"), None, "the ring is being deleted");
}

#[test]
fn main_objects_of_selected_namespaces_go_to_the_receivers() {
    let ring = answer(&RINGMASTER_RING, false);
    let shard = |namespace: &str| {
        let (_, key) = ring.subject(&subject("shop.example", "sites", namespace), None)?;
        ring.free(&key.text)
    };
    assert_eq!(shard("front"), None, "nothing is known of shards yet");
    tell(&ring, &["a", "b"], &["b"]);
    assert_eq!(shard("front").as_deref(), Some("b"));
    assert_eq!(shard("kube-system"), None, "not selected");
    assert_eq!(shard("new"), None, "not known yet");
    tell(&ring, &[], &[]);
    assert_eq!(shard("front"), None, "no shard is there");
}

#[test]
fn controlled_objects_are_where_their_owners_are() {
    let ring = answer(&RINGMASTER_RING, false);
    tell(&ring, &["a", "b"], &["b"]);
    let site = owner("shop.example/v2", "Site");
    let Some(Way::Follows { id, kind }) = ring.way(&subject("", "configmaps", "front"), &site) else {
        panic!("by its owner")
    };
    let at = owner_id(&ring.scope, kind, &id, &site);
    assert_eq!((at.kind, at.key.as_str()), (1, "front/o"));
    let labelled = |labels: &serde_json::Value| {
        let found = object("shop.example/v1", "sites", "Site", "front", "o", labels);
        ring.shard_of(&at, &found, &site)
    };
    let label = "ring.ringmaster.dev/shop";
    assert_eq!(labelled(&json!({ label: "a" })).as_deref(), Some("a"));
    assert_eq!(labelled(&json!({ label: "gone" })), None, "it isn't available");
    assert_eq!(labelled(&json!({})), None, "nobody has it");
    assert_eq!(labelled(&json!({ label: "a", "drain.ring.ringmaster.dev/shop": "true" })), None, "it is on its way");
    let other = OwnerReference { uid: Uid::new("u-other"), ..site.clone() };
    let found = object("shop.example/v1", "sites", "Site", "front", "o", &json!({ label: "a" }));
    assert_eq!(ring.shard_of(&at, &found, &other), None, "another object of its name");
}

#[test]
fn cluster_scoped_owners_are_looked_up_in_no_namespace() {
    let theme = owner("shop.example/v1", "Theme");
    let ring = answer(&RINGMASTER_RING, false);
    tell(&ring, &["a"], &["a"]);
    let Some(Way::Follows { id, kind }) = ring.way(&subject("", "configmaps", "front"), &theme) else {
        panic!("by its owner")
    };
    assert_eq!(owner_id(&ring.scope, kind, &id, &theme).key.as_str(), "o");
    let theirs = answer(&CONTROLLER_SHARDING_RING, false);
    tell(&theirs, &["a"], &["a"]);
    let apart = theirs.way(&subject("", "configmaps", "front"), &theme);
    assert!(matches!(apart, Some(Way::To(shard)) if &*shard == "a"), "the contract hashes it apart");
    let strange = ring.way(&subject("", "configmaps", "front"), &owner("apps/v1", "Deployment"));
    assert!(matches!(strange, Some(Way::To(_))), "its owner isn't the ring's");
}

#[test]
fn only_so_many_assignments_wait_to_be_counted() {
    let ring = answer(&RINGMASTER_RING, false);
    let shard: Arc<str> = "a".into();
    assert!((0..MAX_UNCOUNTED).all(|number| ring.count(number.to_string(), &shard)));
    assert!(!ring.count("one more".to_owned(), &shard));
}

#[test]
fn what_is_asked_about_again_is_counted_once_between_two_counts_of_all() {
    let (ring, shard): (Answer, Arc<str>) = (answer(&RINGMASTER_RING, false), "a".into());
    assert!(ring.count("x".to_owned(), &shard) && ring.count("x".to_owned(), &shard));
    assert_eq!(ring.given.lock().take(0).len(), 1);
    assert!(ring.count("x".to_owned(), &shard));
    assert_eq!(ring.given.lock().take(0).len(), 0, "it was counted");
    ring.given.lock().take(1);
    assert!(ring.count("x".to_owned(), &shard));
    assert_eq!(ring.given.lock().take(1).len(), 1, "all were counted since, and this perhaps deleted");
}
