//! From a webhook's reply to writes: `SyncReply::parse` beside a plain reading, the plan that follows from it, and that
//! carrying plans out on an API server that does as it is told comes to an end.

use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::controller::{Address, Controller, Hook, HookVersion, ParentRule, UpdateStrategy, Webhook};
use ringmaster_core::dialect::{METACONTROLLER, RINGMASTER};
use ringmaster_core::hook::{
    Limits, MAX_CONDITIONS, MAX_EVENTS, MAX_RESYNC_AFTER, MIN_RESYNC_AFTER, Observed, SyncReply, inner_key,
    sync_request,
};
use ringmaster_core::key::{ApiVersion, ObjectKey, Resource, Uid};
use ringmaster_core::object::Object;
use ringmaster_core::plan::composite::{Input, Kind, Plan, plan};
use ringmaster_core::plan::{claim, parent_selector};
use ringmaster_core::selector::Selector;
use serde_json::{Map, Value, json};

use super::source::{Source, levels, says_twice};

const PARENT_UID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
/// Syncs until nothing is left to do: deletes to make anew, creates, and what settles behind them.
const SYNCS_UNTIL_REST: usize = 4;
/// Levels that serde_json takes, and those of a request around a child.
const MAX_LEVELS: usize = 127;
const LEVELS_AROUND: usize = 3;
/// The namespaces that a child may lie in or be wished into.
const NAMESPACES: [&str; 3] = ["shop", "", "else"];

/// A world by the first bytes, then the reply: as it stands, or made by the grammar.
pub fn run(data: &[u8]) {
    let mut source = Source::new(data);
    let grammar = source.flag();
    let mut world = World::new(&mut source);
    let body = if grammar {
        world.populate(&mut source);
        reply(&mut source).to_string().into_bytes()
    } else {
        world.insert(0, "a", json!({"data": {"a": "1", "b": "2"}}), Some(r#"{"data":{"a":"1","c":"3"}}"#));
        world.insert(1, "b", json!({"spec": {"ports": [{"port": 1, "name": "x"}], "a": null}}), None);
        source.rest().to_vec()
    };
    world.check(&body);
}

/// A controller, its parent, and the API server's objects that the parent owns.
struct World {
    controller: Controller,
    resource: Resource,
    parent: Object,
    kinds: Vec<(Arc<Resource>, UpdateStrategy)>,
    /// By kind (the versions of one share an index) and key.
    objects: std::collections::BTreeMap<(usize, ObjectKey), Value>,
    /// Whether the server drops fields that are null, as it does for what it knows the schema of.
    drops_nulls: bool,
    last: u64,
}

impl World {
    fn new(source: &mut Source<'_>) -> Self {
        let flags = source.byte();
        let flag = |bit: u8| flags >> bit & 1 == 1;
        let strategies = source.byte();
        let strategy = |kind: u8| match strategies >> (2 * kind) & 3 {
            0 | 1 => UpdateStrategy::InPlace,
            2 => UpdateStrategy::Recreate,
            _ => UpdateStrategy::OnDelete,
        };
        let resource = resource("example.com/v1", "Site", !flag(0));
        let mut parent = json!({
            "metadata": {"name": "front", "uid": PARENT_UID, "resourceVersion": "5", "generation": 3},
            "spec": {"selector": {"matchLabels": {"app": "x"}}},
        });
        if !flag(0) {
            parent["metadata"]["namespace"] = "shop".into();
        }
        if flag(1) {
            parent["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        if flag(2) {
            parent["status"] = json!({"observedGeneration": 3, "a": 1});
        }
        let dialect = if flag(3) { &METACONTROLLER } else { &RINGMASTER };
        let controller = Controller {
            name: "sites".into(),
            uid: Uid::new("controller"),
            generation: 1,
            dialect,
            role: ringmaster_core::controller::Role::Composite,
            json: Arc::from(&b"{}"[..]),
            parent: ParentRule {
                api_version: resource.api_version.clone(),
                resource: Arc::clone(&resource.plural),
                selector: Selector::everything(),
                annotations: Selector::everything(),
                ignore_status_changes: dialect.ignore_status_changes,
                revision_fields: Vec::new(),
            },
            children: Vec::new(),
            apply: ringmaster_core::controller::Apply::Merge,
            generate_selector: flag(4),
            resync_period: None,
            paused: false,
            sharded: false,
            syncs_per_shard: None,
            finalize: None,
            customize: None,
            sync: Hook {
                version: if flag(5) { HookVersion::V1 } else { HookVersion::V2 },
                webhook: Webhook {
                    address: Address::Url("https://hooks.example.com/sync".into()),
                    timeout: Duration::from_secs(10),
                    insecure: false,
                    strict: flag(6),
                    idempotent: false,
                    tls: ringmaster_core::controller::Tls::default(),
                    auth: None,
                    etag: None,
                    credentials_in: "webhook".into(),
                },
            },
        };
        let kinds = vec![
            (Arc::new(self::resource("v1", "ConfigMap", true)), strategy(0)),
            (Arc::new(self::resource("example.com/v1", "Thing", true)), strategy(1)),
            (Arc::new(self::resource("example.com/v2", "Thing", true)), strategy(2)),
            (Arc::new(self::resource("v1", "Namespace", false)), strategy(3)),
        ];
        let parent = Object::of(&parent, &resource).expect("a parent");
        let objects = std::collections::BTreeMap::new();
        Self { controller, resource, parent, kinds, objects, drops_nulls: flag(7), last: 100 }
    }

    /// Children of all sorts, as somebody may have left them.
    fn populate(&mut self, source: &mut Source<'_>) {
        for _ in 0..source.below(4) {
            let (kind, name) = (source.below(self.kinds.len()), source.pick(&["a", "b", "c"]));
            let mut last = source.flag().then(|| Value::Object(source.fields()));
            let mut fields = last.clone().filter(|_| source.flag()).unwrap_or_else(|| Value::Object(source.fields()));
            if source.flag() {
                last = Some(source.value());
                fields["metadata"] = Value::Object(source.fields());
            }
            self.insert(kind, name, fields, last.map(|last| last.to_string()).as_deref());
        }
    }

    fn insert(&mut self, kind: usize, name: &str, mut object: Value, last_applied: Option<&str>) {
        let resource = Arc::clone(&self.kinds[kind].0);
        let home = self.parent.key().namespace();
        let namespace = match (resource.namespaced, home) {
            (true, "") => "shop",
            (true, home) => home,
            (false, "") => "",
            // What is cluster-scoped can't be owned from within a namespace.
            (false, _) => return,
        };
        object["kind"] = (*resource.kind).into();
        let mut metadata = object["metadata"].as_object().cloned().unwrap_or_default();
        // As the API server has it: of their types, or not at all.
        for field in ["labels", "annotations"] {
            metadata.retain(|name, value| {
                name != field || value.as_object().is_some_and(|all| all.values().all(Value::is_string))
            });
        }
        metadata.retain(|name, value| {
            name != "finalizers"
                || value.as_array().is_some_and(|all| !all.is_empty() && all.iter().all(Value::is_string))
        });
        for field in ["generation", "deletionTimestamp", "namespace", "managedFields"] {
            metadata.remove(field);
        }
        object["metadata"] = Value::Object(metadata);
        object["metadata"]["labels"]["app"] = "x".into();
        if self.controller.generate_selector {
            object["metadata"]["labels"]["controller-uid"] = PARENT_UID.into();
        }
        if let Some(text) = last_applied {
            object["metadata"]["annotations"][self.controller.dialect.last_applied] = text.into();
        }
        object["metadata"]["name"] = name.into();
        if !namespace.is_empty() {
            object["metadata"]["namespace"] = namespace.into();
        }
        object["metadata"]["ownerReferences"] = json!([{"apiVersion": "example.com/v1", "kind": "Site", "name": "front", "uid": PARENT_UID, "controller": true}]);
        self.store(kind, ObjectKey::new(namespace, name), object, true);
    }

    /// Writes as the API server does.
    fn store(&mut self, kind: usize, key: ObjectKey, mut object: Value, new: bool) {
        self.last += 1;
        if self.drops_nulls {
            drop_nulls(&mut object);
        }
        let metadata = object["metadata"].as_object_mut().expect("metadata");
        metadata.insert("resourceVersion".to_owned(), self.last.to_string().into());
        metadata.retain(|name, value| name != "finalizers" || value.as_array().is_none_or(|all| !all.is_empty()));
        if new {
            for field in ["deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
                metadata.remove(field);
            }
            metadata.insert("uid".to_owned(), format!("u{}", self.last).into());
        }
        object.as_object_mut().expect("an object").remove("apiVersion");
        self.objects.insert((self.shared(kind), key), object);
    }

    /// The index that the versions of a kind share.
    fn shared(&self, kind: usize) -> usize {
        self.kinds.iter().position(|(other, _)| other.same_kind(&self.kinds[kind].0)).unwrap_or(kind)
    }

    /// The parent's children as a cache that is up to date has them.
    fn kinds(&self, selector: &Selector) -> Vec<Kind> {
        let home = self.parent.key().namespace();
        let kinds = self.kinds.iter().enumerate().map(|(kind, (resource, strategy))| {
            let of_kind = self.objects.iter().filter(|((of, _), _)| *of == self.shared(kind));
            let objects: Vec<Arc<Object>> = of_kind
                .map(|(_, tree)| Arc::new(Object::parse(&tree.to_string(), resource).expect("an object")))
                .collect();
            let namespace = Some(home).filter(|home| !home.is_empty());
            let claims = claim(&self.parent, selector, namespace, objects.iter(), [].iter());
            assert!(claims.release.is_empty() && claims.owned.len() == objects.len(), "a child that isn't selected");
            Kind { resource: Arc::clone(resource), strategy: *strategy, owned: claims.owned }
        });
        kinds.collect()
    }

    fn check(&mut self, body: &[u8]) {
        let strict = self.controller.sync.webhook.strict;
        let limits = Limits::default();
        let loose = SyncReply::parse(body, limits, false, &METACONTROLLER);
        reads_as_the_plain_reading(body, &loose);
        // What our own group's replies may hold beside is read or refused, too, and bounded.
        if let Ok(reply) = SyncReply::parse(body, limits, strict, &RINGMASTER) {
            assert!(reply.events.len() <= MAX_EVENTS && reply.conditions.len() <= MAX_CONDITIONS);
        }
        let reply = match SyncReply::parse(body, limits, strict, &METACONTROLLER) {
            Ok(reply) => reply,
            Err(error) => return refused_for_a_reason(strict, &loose, &error.to_string()),
        };
        assert!(!strict || loose.is_ok_and(|loose| loose.remarks.is_empty()), "loosely it must read as well");

        let selector = parent_selector(&self.controller, &self.parent).expect("a selector");
        for sync in 0..=SYNCS_UNTIL_REST {
            let kinds = self.kinds(&selector);
            self.request(&kinds);
            let input = Input {
                finalizing: false,
                controller: &self.controller,
                resource: &self.resource,
                parent: &self.parent,
                selector: &selector,
                kinds: &kinds,
                reply: &reply,
                shard: None,
                now: "2026-01-02T03:04:05Z",
            };
            // Refused whole; nothing of it may depend on what is there.
            let Ok(plan) = plan(&input) else { return assert_eq!(sync, 0, "refused only later") };
            if plan.is_empty() {
                return;
            }
            assert!(sync < SYNCS_UNTIL_REST, "no end of writes: {plan:?}");
            if self.carry_out(&kinds, &selector, plan).is_none() {
                return;
            }
        }
    }

    /// The request that shows this state is JSON with each child at its place.
    fn request(&self, kinds: &[Kind]) {
        let version = self.controller.sync.version;
        let observed: Vec<Observed> = kinds
            .iter()
            .map(|kind| Observed { resource: Arc::clone(&kind.resource), objects: kind.owned.clone() })
            .collect();
        let request = sync_request(&self.controller.json, &self.parent, &observed, &observed, version, false);
        let deep = |tree: &Value| levels(tree) > MAX_LEVELS - LEVELS_AROUND;
        if self.objects.values().any(deep) {
            return;
        }
        let request: Value = serde_json::from_slice(&request).expect("a request that is JSON");
        assert_eq!(request["parent"], self.parent.value());
        for kind in kinds {
            let shown = request["children"][kind.resource.hook_key()].as_object().expect("an entry for each kind");
            assert_eq!(shown.len(), kind.owned.len());
            for object in &kind.owned {
                let key = inner_key(version, &self.parent, object).expect("a key");
                assert_eq!(shown[key], object.value());
            }
        }
    }

    /// `None` if the API server refuses something.
    fn carry_out(&mut self, kinds: &[Kind], selector: &Selector, plan: Plan) -> Option<()> {
        assert!(!self.parent.is_deleting() || plan.writes_no_children(), "children of a parent that goes");
        let mut touched = Vec::new();
        let mut touch = |world: &Self, kind: usize, key: &ObjectKey| {
            let touches = (world.shared(kind), key.clone());
            assert!(!touched.contains(&touches), "{key} is touched twice");
            touched.push(touches);
        };
        for delete in plan.deletes {
            touch(self, delete.kind, delete.object.key());
            assert!(!delete.recreate || kinds[delete.kind].strategy == UpdateStrategy::Recreate);
            let gone = self.objects.remove(&(self.shared(delete.kind), delete.object.key().clone()));
            assert!(gone.is_some(), "deletes what isn't there");
        }
        for create in plan.creates {
            touch(self, create.kind, &create.key);
            let tree = self.written(create.kind, &create.key, selector, &create.body)?;
            for field in ["uid", "resourceVersion", "generation", "creationTimestamp", "managedFields"] {
                assert_eq!(tree["metadata"].get(field), None, "metadata.{field} of a new child");
            }
            assert_eq!(tree.get("status"), None, "the status of a new child");
            let there = self.objects.contains_key(&(self.shared(create.kind), create.key.clone()));
            assert!(!there, "creates what is there");
            self.store(create.kind, create.key, tree, true);
        }
        for update in plan.updates {
            let (kind, key) = (update.kind, update.object.key().clone());
            touch(self, kind, &key);
            assert_eq!(kinds[kind].strategy, UpdateStrategy::InPlace);
            let tree = self.written(kind, &key, selector, &update.body)?;
            let seen = update.object.value();
            for field in ["uid", "resourceVersion", "ownerReferences", "managedFields", "creationTimestamp"] {
                assert_eq!(tree["metadata"].get(field), seen["metadata"].get(field), "metadata.{field} of a child");
            }
            assert_eq!(tree.get("status"), seen.get("status"), "the status of a child");
            self.store(kind, key, tree, false);
        }
        let Some(status) = plan.status else { return Some(()) };
        let patch = status.patch;
        assert_eq!((&patch[0]["op"], &patch[0]["value"]), (&json!("test"), &json!(PARENT_UID)));
        assert_eq!((&patch[1]["path"], patch.as_array().map(Vec::len)), (&json!("/status"), Some(2)));
        let mut parent = self.parent.value();
        parent["status"] = patch[1]["value"].clone();
        assert_eq!(parent["status"]["observedGeneration"], 3);
        self.parent = Object::parse(&parent.to_string(), &self.resource).expect("a parent");
        Some(())
    }

    /// What is written is the object that it says it is, and the parent's; `None` if the API server refuses it.
    fn written(&self, kind: usize, key: &ObjectKey, selector: &Selector, body: &[u8]) -> Option<Value> {
        let tree: Value = serde_json::from_slice(body).expect("a body that is JSON");
        // Owners that the webhook adds are the API server's to judge.
        let owners = tree["metadata"]["ownerReferences"].as_array().expect("owners");
        if owners
            .iter()
            .any(|owner| !["uid", "name", "kind", "apiVersion"].iter().all(|field| owner[field].is_string()))
        {
            return None;
        }
        let object = Object::parse(&tree.to_string(), &self.kinds[kind].0).expect("a body that is an object");
        assert_eq!(object.key(), key);
        assert_eq!(tree["kind"].as_str(), Some(&*self.kinds[kind].0.kind));
        assert_eq!(tree["apiVersion"].as_str(), Some(self.kinds[kind].0.api_version.as_str()));
        assert!(selector.matches(&object.labels()), "labels that don't match");
        assert_eq!(object.controller(), Some(self.parent.uid()));
        let owners = object.owner_references();
        assert_eq!(owners.iter().filter(|owner| owner.controller).count(), 1, "one controller");
        let recorded = object.annotation(self.controller.dialect.last_applied).expect("what was applied");
        assert!(serde_json::from_str::<Value>(&recorded).is_ok_and(|last| last.is_object()));
        Some(tree)
    }
}

fn resource(api_version: &str, kind: &str, namespaced: bool) -> Resource {
    let plural = format!("{}s", kind.to_lowercase()).into();
    Resource {
        api_version: ApiVersion::new(api_version),
        plural,
        kind: kind.into(),
        namespaced,
        status: kind == "Site",
    }
}

fn drop_nulls(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        _ => {}
    }
}

/// A reply that mostly can be used.
fn reply(source: &mut Source<'_>) -> Value {
    let mut reply = if source.below(8) == 7 { source.fields() } else { Map::new() };
    match source.below(4) {
        0 => {}
        1 => drop(reply.insert("status".to_owned(), Value::Object(source.fields()))),
        2 => drop(reply.insert("status".to_owned(), source.value())),
        _ => drop(reply.insert("resyncAfterSeconds".to_owned(), source.number())),
    }
    let children: Vec<Value> = (0..source.below(5)).map(|_| child(source)).collect();
    reply.insert("children".to_owned(), children.into());
    Value::Object(reply)
}

fn child(source: &mut Source<'_>) -> Value {
    let mut child = Value::Object(source.fields());
    let (version, kind) = source.pick(&[
        ("v1", "ConfigMap"),
        ("example.com/v1", "Thing"),
        ("example.com/v2", "Thing"),
        ("v1", "Namespace"),
    ]);
    child["apiVersion"] = version.into();
    child["kind"] = kind.into();
    let odd = source.below(16);
    let mut metadata = if odd > 8 { source.fields() } else { Map::new() };
    if odd != 15 {
        metadata.insert("name".to_owned(), source.pick(&["a", "b", "c", "d"]).into());
        let mut labels = json!({"app": "x"});
        if source.flag() {
            labels[source.name()] = source.text().into();
        }
        metadata.insert("labels".to_owned(), labels);
    }
    if source.flag() {
        metadata.insert("annotations".to_owned(), json!({source.name(): source.text()}));
    }
    match source.below(8) {
        0 => {}
        1 => drop(metadata.insert("namespace".to_owned(), source.pick(&NAMESPACES).into())),
        2 => drop(metadata.insert("finalizers".to_owned(), json!([source.text(), source.text()]))),
        3 => drop(metadata.insert(
            "ownerReferences".to_owned(),
            json!([{"uid": source.text(), "name": "n", "kind": "K", "apiVersion": "v1"}]),
        )),
        _ => drop(metadata.insert("namespace".to_owned(), "shop".into())),
    }
    child["metadata"] = Value::Object(metadata);
    child
}

/// What a reply says, read with nothing but serde_json's tree; `None` where it can't be used, or says something twice.
struct Plain {
    status: Option<Value>,
    children: Vec<Value>,
    resync_after_secs: Option<f64>,
}

fn plain(body: &[u8]) -> Option<Plain> {
    let value: Value = serde_json::from_slice(body).ok()?;
    if levels(&value) > Limits::default().depth || says_twice(std::str::from_utf8(body).ok()?) {
        return None;
    }
    value.as_object()?;
    let said = |name: &str| value.get(name).filter(|value| !value.is_null());
    if said("finalized").is_some_and(|value| !value.is_boolean()) {
        return None;
    }
    let status = said("status").cloned();
    let children = said("children").map_or(Some(Vec::new()), |all| all.as_array().cloned())?;
    let seconds = said("resyncAfterSeconds").map_or(Some(None), |number| number.as_f64().map(Some))?;
    let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let good = |child: &Value| {
        let metadata = &child["metadata"];
        let namespace = &metadata["namespace"];
        child.is_object()
            && metadata.is_object()
            && [&child["apiVersion"], &child["kind"], &metadata["name"]].into_iter().all(text)
            && (namespace.is_null() || namespace.is_string())
    };
    let usable = children.iter().all(good) && status.as_ref().is_none_or(Value::is_object);
    usable.then_some(Plain { status, children, resync_after_secs: seconds })
}

/// What the plain reading can use is read, and says the same.
fn reads_as_the_plain_reading(body: &[u8], read: &Result<SyncReply, ringmaster_core::hook::Error>) {
    let Some(plain) = plain(body) else { return };
    let read = read.as_ref().expect("a reply that the plain reading can use");
    let tree = |text: &str| serde_json::from_str::<Value>(text).expect("JSON");
    assert_eq!(read.status.as_ref().map(|raw| tree(raw.get())), plain.status);
    assert_eq!(read.children.len(), plain.children.len());
    for (child, plain) in read.children.iter().zip(&plain.children) {
        assert_eq!(&tree(child.json.get()), plain);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let metadata = &plain["metadata"];
        assert_eq!((&child.api_version, &child.kind), (&text(&plain["apiVersion"]), &text(&plain["kind"])));
        assert_eq!((&child.namespace, &child.name), (&text(&metadata["namespace"]), &text(&metadata["name"])));
    }
    let expected = plain.resync_after_secs.filter(|seconds| *seconds > 0.0);
    assert_eq!(read.resync_after.is_some(), expected.is_some());
    if let (Some(after), Some(seconds)) = (read.resync_after, expected) {
        assert!((MIN_RESYNC_AFTER..=MAX_RESYNC_AFTER).contains(&after));
        let inside = (MIN_RESYNC_AFTER.as_secs_f64()..=MAX_RESYNC_AFTER.as_secs_f64()).contains(&seconds);
        assert!(!inside || (after.as_secs_f64() - seconds).abs() < 1e-6, "{after:?} for {seconds}");
    }
}

/// An error is for people; and a reply that reads loosely is refused only for unknown fields and for what stands twice.
fn refused_for_a_reason(strict: bool, loose: &Result<SyncReply, ringmaster_core::hook::Error>, error: &str) {
    assert!(error.chars().count() < 1000 && !error.chars().any(char::is_control), "{error:?}");
    let reason = error.contains("unknown field in the reply") || error.contains("stands twice");
    assert!(loose.is_err() || strict && reason, "refused without a reason: {error}");
}
