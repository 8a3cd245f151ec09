//! Small stores and what the collector makes of them; golden texts are from kube-apiserver 1.36.3.

use ringmaster_core::key::{ApiVersion, Resource};
use serde_json::json;

use super::*;
use crate::registry::Source;
use crate::store::{Limits, kind_key};

struct Server {
    store: Store,
    registry: Registry,
}

fn definition(api_version: &str, plural: &str, kind: &str, namespaced: bool) -> Definition {
    let api_version = ApiVersion::new(api_version);
    Definition {
        key: kind_key(&api_version, plural),
        resource: Arc::new(Resource {
            api_version,
            plural: plural.into(),
            kind: kind.into(),
            namespaced,
            status: false,
        }),
        singular: kind.to_lowercase(),
        list_kind: format!("{kind}List"),
        short_names: Vec::new(),
        categories: Vec::new(),
        generation: false,
        source: Source::BuiltIn(crate::kinds::find("", "v1", "configmaps").unwrap()),
        scale: None,
        selectable: Vec::new(),
    }
}

fn now() -> Now {
    Now { time: "2026-01-01T00:00:00Z".to_owned(), random: 7 }
}

/// A reference to the ConfigMap of this name, whose uid is `u-` and its name.
fn owner(name: &str, blocks: bool) -> Value {
    let uid = format!("u-{name}");
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": name, "uid": uid, "blockOwnerDeletion": blocks })
}

impl Server {
    fn new() -> Self {
        let mut registry = Registry::default();
        registry.insert(definition("v1", "namespaces", "Namespace", false));
        registry.insert(definition("v1", "configmaps", "ConfigMap", true));
        registry.insert(definition("v1", "pods", "Pod", true));
        registry.insert(definition("v1", "nodes", "Node", false));
        Self { store: Store::new(Limits::default()), registry }
    }

    fn kind(plural: &str) -> KindKey {
        kind_key(&ApiVersion::new("v1"), plural)
    }

    fn add(&mut self, plural: &str, name: &str, owners: &[Value], finalizers: &[&str]) -> Arc<Object> {
        let definition = self.registry.of(&Self::kind(plural)).unwrap();
        let mut value = json!({ "metadata": {
            "name": name, "uid": format!("u-{name}"), "ownerReferences": owners, "finalizers": finalizers,
        } });
        if definition.resource.namespaced {
            value["metadata"]["namespace"] = "n".into();
        }
        if plural == "namespaces" {
            value["spec"]["finalizers"] = json!(["kubernetes"]);
        }
        self.store.put(&definition.key, &definition.resource, None, value).unwrap()
    }

    fn get(&self, plural: &str, name: &str) -> Option<Arc<Object>> {
        let namespaced = self.registry.of(&Self::kind(plural)).unwrap().resource.namespaced;
        self.store.get(&Self::kind(plural), &ObjectKey::new(if namespaced { "n" } else { "" }, name))
    }

    fn has(&self, name: &str) -> bool {
        self.get("configmaps", name).is_some()
    }

    fn run(&mut self, works: Vec<Work>) {
        let mut queue = std::collections::VecDeque::from(works);
        for _ in 0..10_000 {
            let Some(work) = queue.pop_front() else { return };
            queue.extend(step(&mut self.store, &mut self.registry, work, &now()));
        }
        panic!("never ends: {queue:?}");
    }

    fn delete(&mut self, plural: &str, name: &str, finalizer: Option<&str>) -> Deleted {
        let object = self.get(plural, name).unwrap();
        let definition = self.registry.of(&Self::kind(plural)).unwrap();
        let deleted = delete_now(&mut self.store, &definition, &object, &now(), finalizer, None).unwrap();
        let works = after_delete(&self.store, &self.registry, &definition.key, &object, &deleted);
        self.run(works);
        deleted
    }

    /// What a client's update that removes all finalizers does.
    fn free(&mut self, plural: &str, name: &str) {
        let object = self.get(plural, name).unwrap();
        let definition = self.registry.of(&Self::kind(plural)).unwrap();
        let mut value = object.value();
        set_or_remove(&mut value, "finalizers", Vec::new());
        let written = (value, "");
        let works = update(&mut self.store, &self.registry, &definition, &object, written, &now()).unwrap();
        self.run(works);
    }

    fn check(&mut self, name: &str) {
        self.run(vec![Work::Check(Self::kind("configmaps"), ObjectKey::new("n", name))]);
    }
}

#[test]
fn dependents_follow_an_owner_whose_kind_is_gone_with_it() {
    let mut server = Server::new();
    server.registry.insert(definition("example.com/v1", "things", "Thing", true));
    let key = kind_key(&ApiVersion::new("example.com/v1"), "things");
    let things = server.registry.of(&key).unwrap();
    let value = json!({ "metadata": { "name": "t", "namespace": "n", "uid": "u-t" } });
    let thing = server.store.put(&key, &things.resource, None, value).unwrap();
    let reference = json!({ "apiVersion": "example.com/v1", "kind": "Thing", "name": "t", "uid": "u-t" });
    let stranger = json!({ "apiVersion": "example.com/v1", "kind": "Thing", "name": "x", "uid": "u-x" });
    server.add("configmaps", "child", &[reference], &[]);
    server.add("configmaps", "other", &[stranger], &[]);
    let deleted = delete_now(&mut server.store, &things, &thing, &now(), None, None).unwrap();
    let works = after_delete(&server.store, &server.registry, &key, &thing, &deleted);
    // Its CRD was faster than the collector.
    server.registry.remove("example.com", "things");
    server.run(works);
    server.check("other");
    assert!(!server.has("child"), "its owner was seen to go");
    assert!(server.has("other"), "nobody can say what became of its owner");
}

#[test]
fn dependents_follow_their_last_owner_in_the_background() {
    let mut server = Server::new();
    for name in ["a", "b"] {
        server.add("configmaps", name, &[], &[]);
    }
    server.add("configmaps", "one", &[owner("a", true)], &[]);
    server.add("configmaps", "grandchild", &[owner("one", true)], &[]);
    server.add("configmaps", "both", &[owner("a", true), owner("b", true)], &[]);
    assert!(matches!(server.delete("configmaps", "a", None), Deleted::Gone(_)));
    assert!(!server.has("a") && !server.has("one") && !server.has("grandchild") && server.has("b"));
    let both = server.get("configmaps", "both").unwrap();
    assert_eq!(both.value()["metadata"]["ownerReferences"], json!([owner("b", true)]));
}

#[test]
fn owners_are_found_by_uid_kind_name_and_scope() {
    let mut server = Server::new();
    server.add("configmaps", "a", &[], &[]);
    server.add("nodes", "node", &[], &[]);
    let with = |change: &[(&str, &str)]| {
        let mut reference = owner("a", false);
        for (field, value) in change {
            reference[*field] = (*value).into();
        }
        reference
    };
    let cases = [
        ("right", with(&[]), true),
        ("other-uid", with(&[("uid", "u-other")]), false),
        ("other-name", with(&[("name", "b")]), false),
        ("other-kind", with(&[("kind", "Pod")]), false),
        ("unknown-kind", with(&[("kind", "Website")]), true),
        ("unknown-version", with(&[("apiVersion", "v2")]), true),
        ("cluster", with(&[("kind", "Node"), ("name", "node"), ("uid", "u-node")]), true),
    ];
    for (name, reference, stays) in cases {
        server.add("configmaps", name, &[reference], &[]);
        server.check(name);
        assert_eq!(server.has(name), stays, "{name}");
    }
    // A cluster-scoped object can't have an owner in a namespace; nobody judges it.
    server.add("nodes", "odd", &[owner("gone", false)], &[]);
    server.run(vec![Work::Check(Server::kind("nodes"), ObjectKey::new("", "odd"))]);
    assert!(server.get("nodes", "odd").is_some());
}

#[test]
fn foreground_waits_for_dependents_that_block() {
    let mut server = Server::new();
    server.add("configmaps", "a", &[], &[]);
    server.add("configmaps", "blocks", &[owner("a", true)], &["x/y"]);
    server.add("configmaps", "leaf", &[owner("blocks", true)], &["x/y"]);
    server.add("configmaps", "other", &[owner("a", false)], &["x/y"]);
    server.add("configmaps", "quick", &[owner("a", true)], &[]);
    server.add("configmaps", "b", &[], &[]);
    server.add("configmaps", "shared", &[owner("a", true), owner("b", true)], &[]);
    assert!(matches!(server.delete("configmaps", "a", Some(FOREGROUND)), Deleted::Marked(_)));
    assert!(!server.has("quick"));
    assert_eq!(server.get("configmaps", "shared").unwrap().owner_references().len(), 1);
    // What has dependents goes in the foreground too.
    assert_eq!(server.get("configmaps", "blocks").unwrap().finalizers(), ["x/y", FOREGROUND]);
    assert!(server.get("configmaps", "leaf").unwrap().is_deleting());
    assert!(server.get("configmaps", "other").unwrap().is_deleting());
    server.free("configmaps", "leaf");
    assert_eq!(server.get("configmaps", "blocks").unwrap().finalizers(), ["x/y"]);
    assert!(server.has("a"));
    server.free("configmaps", "blocks");
    assert!(!server.has("blocks") && !server.has("a") && server.has("other"));
}

#[test]
fn circles_end() {
    let mut server = Server::new();
    server.add("configmaps", "a", &[owner("c", true)], &[]);
    server.add("configmaps", "b", &[owner("a", true)], &[]);
    server.add("configmaps", "c", &[owner("b", true)], &[]);
    server.add("configmaps", "self", &[owner("self", true)], &[]);
    server.delete("configmaps", "a", Some(FOREGROUND));
    assert!(!server.has("a") && !server.has("b") && !server.has("c"));
    server.delete("configmaps", "self", Some(ORPHAN));
    assert!(!server.has("self"));
}

#[test]
fn orphans_forget_their_owner() {
    let mut server = Server::new();
    server.add("configmaps", "a", &[], &[]);
    let many = WRITES_PER_STEP + 3;
    for index in 0..many {
        server.add("configmaps", &format!("d{index}"), &[owner("a", true)], &[]);
    }
    server.delete("configmaps", "a", Some(ORPHAN));
    assert!(!server.has("a"));
    for index in 0..many {
        let dependent = server.get("configmaps", &format!("d{index}")).unwrap();
        assert!(dependent.value()["metadata"].get("ownerReferences").is_none());
    }
}

#[test]
fn marks_as_the_real_server_does() {
    let mut server = Server::new();
    let definition = server.registry.of(&Server::kind("configmaps")).unwrap();
    let value =
        json!({ "metadata": { "name": "a", "namespace": "n", "uid": "u", "generation": 1, "finalizers": ["f"] } });
    server.store.put(&definition.key, &definition.resource, None, value).unwrap();
    let Deleted::Marked(marked) = server.delete("configmaps", "a", None) else { panic!("gone") };
    let metadata = &marked.value()["metadata"];
    assert_eq!(metadata["deletionTimestamp"], "2026-01-01T00:00:00Z");
    assert_eq!((&metadata["deletionGracePeriodSeconds"], &metadata["generation"]), (&json!(0), &json!(2)));
    // Again: nothing changes, nothing is written.
    let before = server.store.revision();
    server.delete("configmaps", "a", None);
    assert_eq!(server.store.revision(), before);
    // Another policy changes the finalizers and nothing else.
    let Deleted::Marked(orphan) = server.delete("configmaps", "a", Some(ORPHAN)) else { panic!("gone") };
    assert_eq!((orphan.finalizers().len(), orphan.generation()), (2, 2));
    let Deleted::Marked(same) = server.delete("configmaps", "a", None) else { panic!("gone") };
    assert_eq!(same.finalizers(), ["f"], "no dependents, so the finalizer went");
    let stale = delete_now(&mut server.store, &definition, &marked, &now(), None, None);
    assert!(matches!(stale, Err(NotStored::Raced)));
    // The last state of a freed object is the one before the update, at the deletion's revision.
    let seen = server.get("configmaps", "a").unwrap();
    let mut free = seen.value();
    set_or_remove(&mut free, "finalizers", Vec::new());
    let last = finish_if_free(&mut server.store, &definition, &seen, &free).unwrap().unwrap();
    assert_eq!((last.finalizers().len(), last.version().0), (1, server.store.revision()));
    assert!(!server.has("a"));
}

#[test]
fn namespaces_are_emptied_pods_first() {
    let mut server = Server::new();
    server.add("namespaces", "n", &[], &[]);
    server.add("pods", "p", &[], &["x/y"]);
    server.add("configmaps", "plain", &[], &[]);
    server.add("configmaps", "held", &[], &["x/y"]);
    let Deleted::Marked(marked) = server.delete("namespaces", "n", None) else { panic!("gone") };
    assert!(marked.value()["metadata"].get("deletionGracePeriodSeconds").is_none());
    assert_eq!(marked.value()["status"]["phase"], "Terminating");
    assert!(server.has("plain"), "a pod is left");
    server.free("pods", "p");
    assert!(!server.has("plain") && server.get("configmaps", "held").unwrap().is_deleting());
    let conditions = server.get("namespaces", "n").unwrap().value()["status"]["conditions"].clone();
    assert_eq!(conditions[3]["message"], "Some resources are remaining: configmaps. has 1 resource instances");
    let text = "Some content in the namespace has finalizers remaining: x/y in 1 resource instances";
    assert_eq!((&conditions[4]["message"], &conditions[4]["status"]), (&json!(text), &json!("True")));
    assert_eq!((&conditions[0]["status"], &conditions[0]["reason"]), (&json!("False"), &json!("ResourcesDiscovered")));
    let (events, _) = server.store.watch(&NAMESPACES, 0).unwrap();
    server.free("configmaps", "held");
    assert!(server.get("namespaces", "n").is_none());
    // As measured: one more status, then the end, which shows the finalizer still.
    let (all, _) = server.store.watch(&NAMESPACES, 0).unwrap();
    assert_eq!(all.len(), events.len() + 2);
    assert_eq!(all.last().unwrap().last.as_ref().unwrap().value()["spec"]["finalizers"], json!(["kubernetes"]));
}

#[test]
fn large_namespaces_take_several_steps() {
    let mut server = Server::new();
    server.add("namespaces", "n", &[], &["x/y"]);
    for index in 0..=WRITES_PER_STEP {
        server.add("configmaps", &format!("c{index}"), &[], if index % 2 == 0 { &[] } else { &[FOREGROUND] });
    }
    server.delete("namespaces", "n", None);
    assert!(!server.has("c0") && !server.has("c1"));
    let left = server.get("namespaces", "n").unwrap();
    assert!(left.value()["spec"].get("finalizers").is_none());
    server.free("namespaces", "n");
    assert!(server.get("namespaces", "n").is_none());
}
