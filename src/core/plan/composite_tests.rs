//! Every rule of a plan by example, and that carrying plans out ends: on a naive API server, whatever was there before.

use proptest::prelude::*;

use super::*;
use crate::controller::{Address, Hook, ParentRule, Webhook};
use crate::dialect::{Dialect, METACONTROLLER, RINGMASTER};
use crate::hook::Limits;
use crate::key::{ApiVersion, Uid};
use crate::plan::claim::parent_selector;

const PARENT_UID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
const CONFIG_MAPS: usize = 0;
const DEPLOYMENTS: usize = 1;
const NAMESPACES: usize = 2;

/// A controller, its parent and the parent's children, on an API server that does as it is told.
struct World {
    controller: Controller,
    resource: Resource,
    parent: Object,
    kinds: Vec<Kind>,
    /// The last resource version and uid that were given out.
    last: u64,
    /// Whether the server drops fields that are null, as it does for what it knows the schema of.
    drops_nulls: bool,
}

impl World {
    /// With a parent `shop/front` that selects `app=x`, strict replies, and children that are updated in place.
    fn new(dialect: &'static Dialect) -> Self {
        Self::with_parent(dialect, "shop")
    }

    /// The same with a cluster-scoped parent `front`.
    fn cluster_scoped() -> Self {
        Self::with_parent(&RINGMASTER, "")
    }

    fn with_parent(dialect: &'static Dialect, namespace: &str) -> Self {
        let resource = resource("example.com/v1", "sites", "Site", !namespace.is_empty(), true);
        let mut parent = json!({
            "metadata": {"name": "front", "uid": PARENT_UID, "resourceVersion": "5", "generation": 3},
            "spec": {"selector": {"matchLabels": {"app": "x"}}},
            "status": {"observedGeneration": 3},
        });
        if !namespace.is_empty() {
            parent["metadata"]["namespace"] = namespace.into();
        }
        let webhook = Webhook {
            address: Address::Url("https://hooks.example.com/sync".into()),
            timeout: std::time::Duration::from_secs(10),
            insecure: false,
            strict: true,
        };
        let controller = Controller {
            name: "sites".into(),
            uid: Uid::new("controller"),
            generation: 1,
            dialect,
            json: Arc::from(&b"{}"[..]),
            parent: ParentRule {
                api_version: resource.api_version.clone(),
                resource: Arc::clone(&resource.plural),
                selector: Selector::everything(),
                ignore_status_changes: dialect.ignore_status_changes,
            },
            children: Vec::new(),
            generate_selector: false,
            resync_period: None,
            paused: false,
            sharded: false,
            sync: Hook { version: dialect.hook_version, webhook },
        };
        let kind =
            |resource| Kind { resource: Arc::new(resource), strategy: UpdateStrategy::InPlace, owned: Vec::new() };
        let kinds = vec![
            kind(self::resource("v1", "configmaps", "ConfigMap", true, false)),
            kind(self::resource("apps/v1", "deployments", "Deployment", true, true)),
            kind(self::resource("v1", "namespaces", "Namespace", false, true)),
        ];
        let parent = Object::parse(&parent.to_string(), &resource).unwrap();
        Self { controller, resource, parent, kinds, last: 100, drops_nulls: false }
    }

    fn generating_selectors(mut self) -> Self {
        self.controller.generate_selector = true;
        self
    }

    fn loose(mut self) -> Self {
        self.controller.sync.webhook.strict = false;
        self
    }

    fn strategy(mut self, strategy: UpdateStrategy) -> Self {
        for kind in &mut self.kinds {
            kind.strategy = strategy;
        }
        self
    }

    /// With children that were made by an earlier plan.
    fn having(mut self, children: &[Value]) -> Self {
        let plan = self.plan(children);
        self.carry_out(&plan);
        self
    }

    fn sync(&self, reply: &Value) -> Result<Plan, Error> {
        self.input(reply, plan)
    }

    fn input<T>(&self, reply: &Value, of: impl FnOnce(&Input<'_>) -> T) -> T {
        let strict = self.controller.sync.webhook.strict;
        let reply = SyncReply::parse(reply.to_string().as_bytes(), Limits::default(), strict).unwrap();
        let selector = parent_selector(&self.controller, &self.parent).unwrap();
        of(&Input {
            controller: &self.controller,
            resource: &self.resource,
            parent: &self.parent,
            selector: &selector,
            kinds: &self.kinds,
            reply: &reply,
            shard: None,
        })
    }

    fn plan(&self, children: &[Value]) -> Plan {
        self.sync(&json!({"children": children})).unwrap()
    }

    #[track_caller]
    fn check(&self, children: &[Value], expected: &str) {
        assert_eq!(shape(&self.plan(children)), expected);
    }

    /// What a reply of just this child is refused with.
    #[track_caller]
    fn refused(&self, child: &Value) -> String {
        self.sync(&json!({"children": [child]})).unwrap_err().problem
    }

    /// The status that a reply leads to.
    fn status(&self, status: &Value) -> Option<Value> {
        self.sync(&json!({"status": status})).unwrap().status.map(|patch| {
            let patch = tree(&patch);
            assert_eq!(patch[0], json!({"op": "test", "path": "/metadata/uid", "value": PARENT_UID}));
            assert_eq!((&patch[1]["op"], &patch[1]["path"]), (&json!("add"), &json!("/status")));
            assert_eq!(patch.as_array().unwrap().len(), 2);
            patch[1]["value"].clone()
        })
    }

    fn child(&self, kind: usize, name: &str) -> &Arc<Object> {
        self.kinds[kind].owned.iter().find(|object| object.key().name() == name).unwrap()
    }

    /// Somebody else changes a child.
    fn edit(&mut self, kind: usize, name: &str, edit: impl FnOnce(&mut Value)) {
        let mut value = self.child(kind, name).value();
        edit(&mut value);
        self.store(kind, value);
    }

    fn edit_parent(&mut self, edit: impl FnOnce(&mut Value)) {
        let mut value = self.parent.value();
        edit(&mut value);
        self.parent = Object::parse(&value.to_string(), &self.resource).unwrap();
    }

    /// Does what a plan says, as an API server would: refuses what is there already, and what isn't as it was seen.
    fn carry_out(&mut self, plan: &Plan) {
        for delete in &plan.deletes {
            let owned = &mut self.kinds[delete.kind].owned;
            let at = owned.iter().position(|object| object.key() == delete.object.key()).unwrap();
            assert_eq!(owned.remove(at).version(), delete.object.version());
        }
        for create in &plan.creates {
            let mut value = tree(&create.body);
            assert!(self.kinds[create.kind].owned.iter().all(|object| *object.key() != create.key));
            assert_eq!(value["metadata"]["name"], create.key.name());
            self.last += 1;
            value["metadata"]["uid"] = format!("uid-{}", self.last).into();
            value["metadata"]["creationTimestamp"] = "2026-01-01T00:00:00Z".into();
            value["metadata"]["managedFields"] = json!([{"manager": "ringmaster"}]);
            self.store(create.kind, value);
        }
        for update in &plan.updates {
            let value = tree(&update.body);
            assert_eq!(value["metadata"]["uid"], update.object.uid().to_string());
            assert_eq!(value["metadata"]["resourceVersion"], update.object.version().to_string());
            self.store(update.kind, value);
        }
        if let Some(patch) = &plan.status {
            self.edit_parent(|parent| parent["status"] = tree(patch)[1]["value"].clone());
        }
    }

    fn store(&mut self, kind: usize, mut value: Value) {
        if self.drops_nulls {
            drop_nulls(&mut value);
        }
        add_defaults(&mut value);
        self.last += 1;
        value["metadata"]["resourceVersion"] = self.last.to_string().into();
        let Kind { resource, owned, .. } = &mut self.kinds[kind];
        let object = Arc::new(Object::parse(&value.to_string(), resource).unwrap());
        match owned.binary_search_by(|other| other.key().cmp(object.key())) {
            Ok(at) => owned[at] = object,
            Err(at) => owned.insert(at, object),
        }
    }
}

fn resource(api_version: &str, plural: &str, kind: &str, namespaced: bool, status: bool) -> Resource {
    Resource { api_version: ApiVersion::new(api_version), plural: plural.into(), kind: kind.into(), namespaced, status }
}

fn tree(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap()
}

/// What a server adds to what it is sent: to any object that has a `data`, and to Deployments.
fn add_defaults(object: &mut Value) {
    fn default(object: &mut Value, defaults: Value) {
        let (Some(object), Value::Object(defaults)) = (object.as_object_mut(), defaults) else { return };
        for (key, value) in defaults {
            object.entry(key).or_insert(value);
        }
    }
    default(&mut object["data"], json!({"served-by": "default"}));
    if object["kind"] != "Deployment" {
        return;
    }
    default(object, json!({"status": {"observedGeneration": 1, "replicas": 2}}));
    default(&mut object["spec"], json!({"revisionHistoryLimit": 10, "progressDeadlineSeconds": 600}));
    let containers = object.pointer_mut("/spec/template/spec/containers").and_then(Value::as_array_mut);
    for container in containers.into_iter().flatten() {
        default(container, json!({"imagePullPolicy": "IfNotPresent", "resources": {}}));
        let ports = container.get_mut("ports").and_then(Value::as_array_mut);
        for port in ports.into_iter().flatten() {
            default(port, json!({"protocol": "TCP"}));
        }
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

fn config_map(name: &str) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": name, "labels": {"app": "x"}},
        "data": {"k": "v"},
    })
}

fn deployment(name: &str) -> Value {
    json!({
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "labels": {"app": "x"}},
        "spec": {"replicas": 2, "template": {"spec": {"containers": [
            {"name": "web", "image": "web:1", "env": [{"name": "A", "value": "1"}], "ports": [{"containerPort": 80}]},
        ]}}},
    })
}

fn namespace_object(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"app": "x"}}})
}

/// `child` with another value at a path such as `metadata.labels`; with null for a field that shall be missing.
fn with(mut child: Value, path: &str, value: Value) -> Value {
    let mut at = &mut child;
    for step in path.split('.') {
        at = &mut at[step];
    }
    *at = value;
    child
}

/// A plan in one line: `-` for what nobody wants, `!` for what is to be made anew, `+` for creates, `~` for updates.
fn shape(plan: &Plan) -> String {
    let deletes = plan.deletes.iter().map(|d| format!("{}{}", if d.recreate { '!' } else { '-' }, d.object.key()));
    let creates = plan.creates.iter().map(|create| format!("+{}", create.key));
    let updates = plan.updates.iter().map(|update| format!("~{}", update.object.key()));
    let status = plan.status.iter().map(|_| "status".to_owned());
    let all: Vec<String> = deletes.chain(creates).chain(updates).chain(status).collect();
    assert_eq!(plan.is_empty(), all.is_empty());
    all.join(" ")
}

#[test]
fn refuses_kinds_that_are_not_declared() {
    let world = World::new(&RINGMASTER);
    let secret = with(config_map("a"), "kind", "Secret".into());
    assert!(world.refused(&secret).contains("add apiVersion v1 with its plural name to spec.childResources"));
    let older = with(deployment("a"), "apiVersion", "apps/v1beta2".into());
    let problem = world.refused(&older);
    assert!(problem.contains("apiVersion is apps/v1beta2") && problem.contains("as apps/v1;"), "{problem}");
    let other_group = with(deployment("a"), "apiVersion", "extensions/v1beta1".into());
    assert!(world.refused(&other_group).contains("isn't declared"));
    // With both versions declared, each is found.
    let mut both = World::new(&RINGMASTER);
    both.kinds.push(Kind {
        resource: Arc::new(resource("apps/v1beta2", "deployments", "Deployment", true, true)),
        strategy: UpdateStrategy::InPlace,
        owned: Vec::new(),
    });
    let kinds: Vec<usize> = both
        .plan(&[deployment("a"), with(deployment("b"), "apiVersion", "apps/v1beta2".into())])
        .creates
        .iter()
        .map(|create| create.kind)
        .collect();
    assert_eq!(kinds, [DEPLOYMENTS, 3]);
}

#[test]
fn errors_say_which_child() {
    let other = with(config_map("b"), "metadata.namespace", "other".into());
    let error = World::new(&RINGMASTER).sync(&json!({"children": [config_map("a"), other]})).unwrap_err();
    assert_eq!(
        error.to_string(),
        "children[1] (ConfigMap other/b): metadata.namespace must be the parent's (shop) or be left out"
    );
    assert_eq!((error.index, &*error.kind, &*error.name), (1, "ConfigMap", "other/b"));
}

#[test]
fn namespaces_follow_the_parent() {
    let placed = |child: Value, namespace: &str| with(child, "metadata.namespace", namespace.into());
    let (namespaced, cluster) = (World::new(&RINGMASTER), World::cluster_scoped());
    for (world, child, expected) in [
        (&namespaced, config_map("a"), "+shop/a"),
        (&namespaced, placed(config_map("a"), ""), "+shop/a"),
        (&namespaced, placed(config_map("a"), "shop"), "+shop/a"),
        (&cluster, placed(config_map("a"), "far"), "+far/a"),
        (&cluster, namespace_object("a"), "+a"),
        (&cluster, placed(namespace_object("a"), ""), "+a"),
    ] {
        world.check(&[child], expected);
    }
    for (world, child, problem) in [
        (&namespaced, placed(config_map("a"), "other"), "must be the parent's (shop)"),
        (&namespaced, namespace_object("a"), "can't be the child of a namespaced parent"),
        (&namespaced, placed(namespace_object("a"), "shop"), "can't be the child of a namespaced parent"),
        (&cluster, config_map("a"), "metadata.namespace is missing"),
        (&cluster, placed(namespace_object("a"), "far"), "leave metadata.namespace out"),
        (&cluster, placed(config_map("a"), "far/away"), "metadata.namespace isn't a valid name"),
        (&cluster, placed(config_map("a"), ".."), "metadata.namespace isn't a valid name"),
        (&cluster, placed(config_map("a"), "%2e"), "metadata.namespace isn't a valid name"),
    ] {
        let refused = world.refused(&child);
        assert!(refused.contains(problem), "{child}: {refused}");
    }
    let body = tree(&namespaced.plan(&[config_map("a")]).creates[0].body);
    assert_eq!(body["metadata"]["namespace"], "shop");
    let body = tree(&cluster.plan(&[namespace_object("a")]).creates[0].body);
    assert_eq!(body["metadata"].get("namespace"), None);
}

#[test]
fn names_are_path_segments() {
    let world = World::new(&RINGMASTER);
    for name in [".", "..", "a/b", "/", "a%2fb", "a\u{7}b", "a\nb", &"a".repeat(254)] {
        assert!(world.refused(&config_map(name)).contains("metadata.name isn't a valid name"), "{name:?}");
    }
    // Whether the kind allows them is the API server's to say.
    for name in ["a", "a.b", "...", "system:node", "A b", &"a".repeat(253)] {
        world.check(&[config_map(name)], &format!("+shop/{name}"));
    }
}

#[test]
fn two_versions_of_a_kind_are_one_object() {
    let older = |name: &str| with(deployment(name), "apiVersion", "apps/v1beta2".into());
    let mut world = World::new(&RINGMASTER).having(&[deployment("a"), deployment("b")]);
    let shown = world.kinds[DEPLOYMENTS].owned.clone();
    world.kinds.push(Kind {
        resource: Arc::new(resource("apps/v1beta2", "deployments", "Deployment", true, true)),
        strategy: UpdateStrategy::InPlace,
        owned: shown,
    });
    // One delete, though it is shown twice; and none of what is wanted in the other version.
    world.check(&[older("a")], "-shop/b ~shop/a");
    // What is wanted in both would be written to and fro for ever.
    let both = json!({"children": [older("a"), deployment("b"), deployment("a")]});
    let error = world.sync(&both).unwrap_err();
    assert_eq!((error.index, error.problem.contains("stands twice")), (2, true));
    let world = world.loose();
    world.check(&[older("a"), deployment("b"), deployment("a")], "");
    world.check(&[deployment("a"), deployment("b"), older("a")], "~shop/a");
}

#[test]
fn floats_are_passed_on_to_the_last_digit() {
    // These are what serde_json reads one off unless it is told to be exact.
    let floats = json!({"a": 13.118037668959301, "b": [9_061_997_354.740_873, 4.444444444444445e24]});
    let wanted = with(config_map("a"), "data", floats.clone());
    let mut world = World::new(&RINGMASTER).having(std::slice::from_ref(&wanted));
    assert!(String::from_utf8_lossy(world.child(CONFIG_MAPS, "a").json()).contains("13.118037668959301"));
    world.check(std::slice::from_ref(&wanted), "");
    world.edit(CONFIG_MAPS, "a", |object| object["foreign"] = floats);
    let plan = world.plan(&[with(wanted, "data.c", "1".into())]);
    assert!(String::from_utf8_lossy(&plan.updates[0].body).contains(r#""foreign":{"a":13.118037668959301"#));
}

#[test]
fn what_is_there_and_too_deep_is_not_overwritten() {
    let mut world = World::new(&RINGMASTER).having(&[config_map("a")]);
    let text = String::from_utf8_lossy(world.child(CONFIG_MAPS, "a").json()).into_owned();
    let deep = format!(r#"{{"deep":{}{},{}"#, "[".repeat(127), "]".repeat(127), &text[1..]);
    let kind = &mut world.kinds[CONFIG_MAPS];
    kind.owned = vec![Arc::new(Object::parse(&deep, &kind.resource).unwrap())];
    let problem = world.refused(&with(config_map("a"), "data.k", "new".into()));
    assert!(problem.starts_with("what is there can't be compared with what is wanted: recursion limit"), "{problem}");
    world.check(&[], "-shop/a");
    world.strategy(UpdateStrategy::OnDelete).check(&[config_map("a")], "");
}

#[test]
fn a_child_that_stands_twice() {
    let twice = [config_map("a"), config_map("b"), with(config_map("a"), "data.k", "last".into())];
    let error = World::new(&RINGMASTER).sync(&json!({"children": twice})).unwrap_err();
    assert_eq!((error.index, error.problem.contains("stands twice")), (2, true));
    // It is the same one whether its namespace is written out or not.
    let spelled_out = with(config_map("a"), "metadata.namespace", "shop".into());
    let error = World::new(&RINGMASTER).sync(&json!({"children": [config_map("a"), spelled_out]})).unwrap_err();
    assert_eq!(error.index, 1);

    let loose = World::new(&METACONTROLLER).loose();
    loose.check(&twice, "+shop/a +shop/b");
    assert_eq!(tree(&loose.plan(&twice).creates[0].body)["data"]["k"], "last");
    // One that doesn't count is checked all the same.
    let bad = with(config_map("a"), "metadata.labels", json!({}));
    assert_eq!(loose.sync(&json!({"children": [bad, config_map("a")]})).unwrap_err().index, 0);

    // The same name is another child in another kind or namespace.
    World::new(&RINGMASTER).check(&[config_map("a"), deployment("a")], "+shop/a +shop/a");
    let placed = |namespace: &str| with(config_map("a"), "metadata.namespace", namespace.into());
    World::cluster_scoped().check(&[placed("m"), placed("n")], "+m/a +n/a");
}

#[test]
fn owners_of_its_own() {
    let world = World::new(&RINGMASTER);
    let owner = |controller: Value| {
        let owner = json!({"apiVersion": "v1", "kind": "Node", "name": "o", "uid": "u", "controller": controller});
        with(config_map("a"), "metadata.ownerReferences", json!([owner]))
    };
    assert!(world.refused(&owner(json!(true))).contains("metadata.ownerReferences names a controller"));
    assert!(world.refused(&owner(json!("yes"))).starts_with("metadata.ownerReferences: "));
    for plain in [json!(false), json!(null)] {
        let child = owner(plain);
        let owners = &tree(&world.plan(std::slice::from_ref(&child)).creates[0].body)["metadata"]["ownerReferences"];
        assert!(merge::same(&owners[0], &child["metadata"]["ownerReferences"][0]));
        assert_eq!((&owners[1]["uid"], &owners[1]["controller"]), (&json!(PARENT_UID), &json!(true)));
        assert_eq!(owners.as_array().unwrap().len(), 2);
    }
    let child = with(config_map("a"), "metadata.ownerReferences", Value::Null);
    let owners = &tree(&world.plan(&[child]).creates[0].body)["metadata"]["ownerReferences"];
    assert_eq!(owners.as_array().unwrap().len(), 1);
}

#[test]
fn labels_match_the_selector() {
    let labelled = |labels: Value| with(config_map("a"), "metadata.labels", labels);
    let (uid, other) = (json!({"controller-uid": PARENT_UID}), json!({"controller-uid": "another"}));
    let world = World::new(&RINGMASTER);
    for labels in [json!(null), json!({}), json!({"app": "y"}), json!({"app": null}), json!({"App": "x"}), uid.clone()]
    {
        let problem = world.refused(&labelled(labels.clone()));
        assert!(problem.contains("don't match the parent's selector (app=x)"), "{labels}: {problem}");
    }
    for labels in [json!({"app": 1}), json!([]), json!("app=x")] {
        assert!(world.refused(&labelled(labels)).starts_with("metadata.labels: "));
    }
    for (field, bad) in [
        ("metadata.annotations", json!([])),
        ("metadata.annotations", json!({"a": 1})),
        ("metadata.finalizers", json!("a")),
        ("metadata.ownerReferences", json!({})),
        ("metadata.ownerReferences", json!([{"controller": "yes"}])),
    ] {
        let problem = world.refused(&with(config_map("a"), field, bad.clone()));
        assert!(problem.starts_with(&format!("{field}: ")), "{bad}: {problem}");
    }
    for labels in [json!({"app": "x"}), json!({"app": "x", "tier": "y", "none": null})] {
        world.check(&[labelled(labels)], "+shop/a");
    }

    // With generateSelector the parent's own selector doesn't count, and the label is added.
    let world = World::new(&RINGMASTER).generating_selectors();
    let problem = world.refused(&labelled(other));
    assert!(problem.contains(&format!("(controller-uid={PARENT_UID})")), "{problem}");
    for labels in [json!(null), json!({}), json!({"app": "y"}), json!({"controller-uid": null}), uid] {
        let plan = world.plan(&[labelled(labels)]);
        assert_eq!(tree(&plan.creates[0].body)["metadata"]["labels"]["controller-uid"], PARENT_UID);
    }
}

#[test]
fn one_bad_child_means_no_plan_at_all() {
    let world = World::new(&RINGMASTER).having(&[config_map("old"), config_map("kept")]);
    let kept = with(config_map("kept"), "data.k", "new".into());
    world.check(&[kept.clone(), config_map("new")], "-shop/old +shop/new ~shop/kept");
    let bad = with(config_map("bad"), "kind", "Secret".into());
    for children in [[kept.clone(), bad.clone()], [bad, kept]] {
        assert!(world.sync(&json!({"status": {"a": 1}, "children": children})).is_err());
    }
}

#[test]
fn a_create_is_whole() {
    for (dialect, annotation) in [
        (&RINGMASTER, "ringmaster.dev/last-applied-configuration"),
        (&METACONTROLLER, "metacontroller.k8s.io/last-applied-configuration"),
    ] {
        let mut child = config_map("a");
        child["status"] = json!({"phase": "Invented"});
        child["metadata"]["annotations"] = json!({"note": "a < b"});
        let recorded = with(child.clone(), "metadata.namespace", "shop".into());
        for field in ["uid", "resourceVersion", "creationTimestamp"] {
            child["metadata"][field] = "1".into();
        }
        child["metadata"]["generation"] = 1.into();
        child["metadata"]["managedFields"] = json!([]);
        let plan = World::new(dialect).plan(&[child]);
        let create = &plan.creates[0];
        assert_eq!((create.kind, create.key.as_str()), (CONFIG_MAPS, "shop/a"));

        let mut body = tree(&create.body);
        let text = body["metadata"]["annotations"][annotation].take();
        let last_applied: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
        assert!(merge::same(&last_applied["data"], &recorded["data"]));
        assert_eq!(last_applied["metadata"]["annotations"], json!({"note": "a < b"}));
        assert_eq!(last_applied["metadata"].get("ownerReferences"), None);
        let expected = json!({
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": "a",
                "namespace": "shop",
                "labels": {"app": "x"},
                "annotations": {"note": "a < b", annotation: null},
                "ownerReferences": [{
                    "apiVersion": "example.com/v1",
                    "kind": "Site",
                    "name": "front",
                    "uid": PARENT_UID,
                    "controller": true,
                    "blockOwnerDeletion": true,
                }],
            },
            "data": {"k": "v"},
        });
        assert_eq!(body, expected);
    }
    // The label that we select by counts as applied, so that it isn't lost to a later merge.
    let plan = World::new(&RINGMASTER).generating_selectors().plan(&[config_map("a")]);
    let body = tree(&plan.creates[0].body);
    assert_eq!(body["metadata"]["labels"], json!({"app": "x", "controller-uid": PARENT_UID}));
    let text = body["metadata"]["annotations"][RINGMASTER.last_applied].as_str().unwrap();
    assert_eq!(serde_json::from_str::<Value>(text).unwrap()["metadata"]["labels"], body["metadata"]["labels"]);
}

#[test]
fn actions_come_by_kind_and_key() {
    let world = World::new(&RINGMASTER).having(&[deployment("z"), config_map("z"), config_map("y")]);
    world.check(
        &[deployment("b"), config_map("c"), deployment("a"), config_map("a")],
        "-shop/y -shop/z -shop/z +shop/a +shop/c +shop/a +shop/b",
    );
    let kinds: Vec<usize> = world.plan(&[]).deletes.iter().map(|delete| delete.kind).collect();
    assert_eq!(kinds, [CONFIG_MAPS, CONFIG_MAPS, DEPLOYMENTS]);
    let world = World::cluster_scoped().having(&[namespace_object("a")]);
    assert_eq!(world.plan(&[]).deletes[0].kind, NAMESPACES);
}

#[test]
fn what_nobody_wants_is_deleted_once() {
    for strategy in [UpdateStrategy::OnDelete, UpdateStrategy::Recreate, UpdateStrategy::InPlace] {
        let mut world = World::new(&RINGMASTER).strategy(strategy).having(&[config_map("a"), config_map("b")]);
        world.check(&[config_map("a")], "-shop/b");
        world.check(&[], "-shop/a -shop/b");
        assert!(Arc::ptr_eq(&world.plan(&[]).deletes[1].object, world.child(CONFIG_MAPS, "b")));
        world.edit(CONFIG_MAPS, "b", |child| child["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
        world.check(&[config_map("a")], "");
        world.check(&[], "-shop/a");
        // Wanted again while it is going: not touched, and made anew once it is gone.
        let again = [config_map("a"), with(config_map("b"), "data.k", "new".into())];
        world.check(&again, "");
        world.kinds[CONFIG_MAPS].owned.pop();
        world.check(&again, "+shop/b");
    }
}

#[test]
fn strategies_differ_where_the_child_differs() {
    let changed = with(config_map("a"), "data.k", "new".into());
    for (strategy, expected) in
        [(UpdateStrategy::OnDelete, ""), (UpdateStrategy::Recreate, "!shop/a"), (UpdateStrategy::InPlace, "~shop/a")]
    {
        let world = World::new(&RINGMASTER).strategy(strategy).having(&[config_map("a")]);
        world.check(&[config_map("a")], "");
        world.check(std::slice::from_ref(&changed), expected);
        // Being right for one state doesn't hide that it isn't for another.
        world.check(&[config_map("a")], "");
        world.check(std::slice::from_ref(&changed), expected);
    }
    let mut world = World::new(&RINGMASTER).having(&[config_map("a"), deployment("a")]);
    world.kinds[DEPLOYMENTS].strategy = UpdateStrategy::Recreate;
    let other = with(deployment("a"), "spec.replicas", 3.into());
    world.check(&[changed, other], "!shop/a ~shop/a");
}

#[test]
fn a_deleting_parent_gets_its_status_only() {
    let mut world = World::new(&RINGMASTER).having(&[config_map("old"), config_map("kept")]);
    world.edit_parent(|parent| parent["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into());
    let children = [with(config_map("kept"), "data.k", "new".into()), config_map("new")];
    let plan = world.sync(&json!({"status": {"phase": "Ending"}, "children": children})).unwrap();
    assert!(plan.writes_no_children());
    assert_eq!(tree(&plan.status.unwrap())[1]["value"], json!({"phase": "Ending", "observedGeneration": 3}));
    world.check(&children, "");
}

#[test]
fn what_the_server_added_is_no_difference() {
    for dialect in [&RINGMASTER, &METACONTROLLER] {
        for strategy in [UpdateStrategy::InPlace, UpdateStrategy::Recreate] {
            let children = [config_map("a"), deployment("d")];
            let mut world = World::new(dialect).generating_selectors().strategy(strategy);
            let first = world.plan(&children);
            world.carry_out(&first);
            let object = Arc::clone(world.child(DEPLOYMENTS, "d"));
            let observed = object.value();
            assert_eq!(observed["spec"]["template"]["spec"]["containers"][0]["ports"][0]["protocol"], "TCP");
            let desired = first.creates.iter().find(|create| create.kind == DEPLOYMENTS).unwrap().desired;
            assert!(!object.is_settled(desired));
            world.check(&children, "");
            assert!(object.is_settled(desired));
            // A new version is looked at anew.
            world.edit(DEPLOYMENTS, "d", |child| child["spec"]["replicas"] = 7.into());
            assert!(!world.child(DEPLOYMENTS, "d").is_settled(desired));
            assert!(!world.plan(&children).writes_no_children());
        }
    }
}

#[test]
fn a_settled_child_is_not_compared_again() {
    let mut world = World::new(&RINGMASTER).having(&[config_map("a")]);
    world.edit(CONFIG_MAPS, "a", |child| child["data"]["k"] = "edited".into());
    let plan = world.plan(&[config_map("a")]);
    assert_eq!(shape(&plan), "~shop/a");
    // As after an answer that a mutating admission webhook had its way with.
    world.child(CONFIG_MAPS, "a").settle(plan.updates[0].desired);
    world.check(&[config_map("a")], "");
    world.check(&[with(config_map("a"), "data.k", "new".into())], "~shop/a");
}

#[test]
fn an_update_changes_what_the_hook_changed() {
    let mut world = World::new(&RINGMASTER).having(&[deployment("d")]);
    world.edit(DEPLOYMENTS, "d", |child| {
        child["metadata"]["labels"]["theirs"] = "y".into();
        child["metadata"]["finalizers"] = json!(["theirs"]);
        child["spec"]["paused"] = true.into();
    });
    let before = world.child(DEPLOYMENTS, "d").value();
    // An env variable goes, the image changes, a label comes; a status is not ours to set.
    let mut wanted = deployment("d");
    wanted["metadata"]["labels"]["tier"] = "web".into();
    wanted["metadata"]["uid"] = "invented".into();
    wanted["metadata"]["resourceVersion"] = "1".into();
    wanted["status"] = json!({"replicas": 99});
    let container = &mut wanted["spec"]["template"]["spec"]["containers"][0];
    container["image"] = "web:2".into();
    container["env"] = json!([{"name": "B", "value": "2"}]);
    container.as_object_mut().unwrap().remove("ports");
    let plan = world.plan(std::slice::from_ref(&wanted));
    assert_eq!(shape(&plan), "~shop/d");
    let update = &plan.updates[0];
    assert_eq!(update.kind, DEPLOYMENTS);
    assert!(Arc::ptr_eq(&update.object, world.child(DEPLOYMENTS, "d")));

    let mut expected = before.clone();
    expected["metadata"]["labels"]["tier"] = "web".into();
    let container = &mut expected["spec"]["template"]["spec"]["containers"][0];
    container["image"] = "web:2".into();
    container["env"] = json!([{"name": "B", "value": "2"}]);
    container.as_object_mut().unwrap().remove("ports");
    let mut body = tree(&update.body);
    let text = body["metadata"]["annotations"][RINGMASTER.last_applied].take();
    expected["metadata"]["annotations"][RINGMASTER.last_applied].take();
    assert_eq!(body, expected);
    assert_eq!(body["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(body["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"]);
    let last_applied: Value = serde_json::from_str(text.as_str().unwrap()).unwrap();
    assert_eq!(last_applied["spec"], wanted["spec"]);

    world.carry_out(&plan);
    world.check(&[wanted], "");
}

#[test]
fn what_is_no_longer_wanted_is_removed_and_the_rest_stays() {
    let both = with(config_map("a"), "data.gone", "soon".into());
    let mut world = World::new(&RINGMASTER).having(&[both]);
    world.edit(CONFIG_MAPS, "a", |child| child["data"]["theirs"] = "stays".into());
    let plan = world.plan(&[config_map("a")]);
    let body = tree(&plan.updates[0].body);
    assert_eq!(body["data"], json!({"k": "v", "theirs": "stays", "served-by": "default"}));
    world.carry_out(&plan);
    world.check(&[config_map("a")], "");
    // A null is as good as nothing.
    world.check(&[with(config_map("a"), "data.k", Value::Null)], "~shop/a");
    // What somebody removed comes back.
    world.edit(CONFIG_MAPS, "a", |child| child["data"] = json!({}));
    assert_eq!(tree(&world.plan(&[config_map("a")]).updates[0].body)["data"]["k"], "v");
}

#[test]
fn what_was_applied_is_compared_as_json() {
    let child = with(config_map("a"), "data.k", "a < b & c".into());
    let world = || World::new(&METACONTROLLER).having(std::slice::from_ref(&child));
    let respelled = |text: &str| {
        let mut world = world();
        let annotation = METACONTROLLER.last_applied;
        world.edit(CONFIG_MAPS, "a", |child| child["metadata"]["annotations"][annotation] = text.into());
        shape(&world.plan(std::slice::from_ref(&child)))
    };
    let go = concat!(
        r#"{"metadata":{"namespace":"shop","name":"a","labels":{"app":"x"}},"kind":"ConfigMap","#,
        r#""data":{"k":"a \u003c b \u0026 c"},"apiVersion":"v1"}"#,
        "\n"
    );
    assert_eq!(respelled(go), "");
    // Not what was applied, nothing, or not JSON: recorded anew.
    for other in [&*go.replace("shop", "shoq"), &go.replace("app", "apt"), "", "null", "{", "[]", "{}"] {
        assert_eq!(respelled(other), "~shop/a", "{other}");
    }
    let mut world = world();
    world.edit(CONFIG_MAPS, "a", |child| child["metadata"]["annotations"] = Value::Null);
    let plan = world.plan(std::slice::from_ref(&child));
    assert_eq!(shape(&plan), "~shop/a");
    world.carry_out(&plan);
    world.check(std::slice::from_ref(&child), "");
    // Each dialect has its own record.
    world.controller.dialect = &RINGMASTER;
    world.edit(CONFIG_MAPS, "a", |_| {});
    world.check(&[child], "~shop/a");
}

#[test]
fn a_null_says_nothing_in_a_create_either() {
    let mut child = config_map("a");
    child["metadata"]["labels"]["none"] = Value::Null;
    child["metadata"]["annotations"] = Value::Null;
    child["data"] = json!({"none": null, "list": [null, 1, {"none": null}]});
    let world = World::new(&RINGMASTER).strategy(UpdateStrategy::Recreate);
    let body = tree(&world.plan(std::slice::from_ref(&child)).creates[0].body);
    assert_eq!(body["metadata"]["labels"], json!({"app": "x"}));
    assert_eq!(body["data"], json!({"list": [1, {}]}));
    let world = world.having(std::slice::from_ref(&child));
    world.check(&[child], "");
}

#[test]
fn our_annotation_is_not_the_webhook_s_to_set() {
    for strategy in [UpdateStrategy::InPlace, UpdateStrategy::Recreate] {
        let copied = json!({RINGMASTER.last_applied: "{\"data\":{\"stale\":1}}", "note": "x"});
        let child = with(config_map("a"), "metadata.annotations", copied);
        let world = World::new(&RINGMASTER).strategy(strategy).having(std::slice::from_ref(&child));
        let annotations = &world.child(CONFIG_MAPS, "a").value()["metadata"]["annotations"];
        let text = annotations[RINGMASTER.last_applied].as_str().unwrap();
        assert!(!text.contains("stale") && !text.contains("last-applied"));
        world.check(std::slice::from_ref(&child), "");
    }
}

#[test]
fn owner_references_of_an_update_stay_as_observed() {
    let mut world = World::new(&RINGMASTER).having(&[config_map("a")]);
    let owners = world.child(CONFIG_MAPS, "a").value()["metadata"]["ownerReferences"].clone();
    let plain = json!([{"apiVersion": "v1", "kind": "Node", "name": "o", "uid": "u"}]);
    let child = with(config_map("a"), "metadata.ownerReferences", plain);
    let plan = world.plan(std::slice::from_ref(&child));
    assert_eq!(tree(&plan.updates[0].body)["metadata"]["ownerReferences"], owners);
    world.carry_out(&plan);
    world.check(&[child], "");
}

#[test]
fn the_status_is_replaced_as_a_whole() {
    let mut world = World::new(&RINGMASTER);
    world.edit_parent(|parent| parent["status"] = json!({"observedGeneration": 2, "old": true, "n": 1}));
    let generation = json!({"observedGeneration": 3});
    assert_eq!(world.status(&json!(null)), Some(generation.clone()));
    assert_eq!(world.status(&json!({})), Some(generation.clone()));
    assert_eq!(world.status(&json!({"n": 1})), Some(json!({"n": 1, "observedGeneration": 3})));
    assert_eq!(
        world.status(&json!({"n": 1, "observedGeneration": 99})),
        Some(json!({"n": 1, "observedGeneration": 3}))
    );
    // A reply without the field is one with null.
    assert_eq!(shape(&world.sync(&json!({})).unwrap()), "status");

    world.edit_parent(|parent| parent["status"] = json!({"observedGeneration": 3, "n": 1, "l": [{"a": 2.0}]}));
    for same in [
        json!({"n": 1, "l": [{"a": 2}]}),
        json!({"n": 1.0, "l": [{"a": 2.0}]}),
        json!({"l": [{"a": 2, "b": null}], "n": 1, "none": null}),
        json!({"n": 1, "l": [{"a": 2}], "observedGeneration": 1}),
    ] {
        assert_eq!(world.status(&same), None, "{same}");
    }
    for other in [json!({"n": 2, "l": [{"a": 2}]}), json!({"n": "1", "l": [{"a": 2}]}), json!({"n": 1}), json!(null)] {
        assert!(world.status(&other).is_some(), "{other}");
    }

    for bare in [json!(null), json!({})] {
        world.edit_parent(|parent| parent["status"] = bare);
        assert_eq!(world.status(&json!(null)), Some(generation.clone()));
    }
    world.edit_parent(|parent| drop(parent.as_object_mut().unwrap().remove("status")));
    assert_eq!(world.status(&json!(null)), Some(generation));
}

#[test]
fn a_kind_without_status_gets_none() {
    let mut world = World::new(&RINGMASTER);
    world.resource.status = false;
    assert_eq!(world.status(&json!({"a": 1})), None);
    assert_eq!(world.status(&json!(null)), None);
}

#[test]
fn what_is_settled_depends_on_all_that_goes_in() {
    let desired = |world: &World, child: Value| world.plan(&[child]).creates[0].desired;
    let plain = World::new(&RINGMASTER);
    let mut other_parent = World::new(&RINGMASTER);
    other_parent.edit_parent(|parent| parent["metadata"]["uid"] = "another".into());
    let mut all = vec![
        desired(&plain, config_map("a")),
        desired(&plain, with(config_map("a"), "data.k", "w".into())),
        desired(&World::new(&RINGMASTER).generating_selectors(), config_map("a")),
        desired(&other_parent, config_map("a")),
    ];
    assert_eq!(desired(&plain, config_map("a")), all[0]);
    let update = World::new(&RINGMASTER).having(&[with(config_map("a"), "data.k", "old".into())]);
    assert_eq!(update.plan(&[config_map("a")]).updates[0].desired, all[0]);
    all.sort_unstable();
    all.dedup();
    assert_eq!((all.len(), all.contains(&0)), (4, false));
}

/// Any JSON, with what merging minds: nulls, numbers that are spelled differently, lists that look like maps.
fn any_value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (0..3i64).prop_map(Value::from),
        Just(json!(1.0)),
        "[a-c<]".prop_map(Value::from),
    ];
    scalar.prop_recursive(3, 16, 4, |inner| {
        let item = ("[a-c]", inner.clone()).prop_map(|(name, value)| json!({"name": name, "value": value}));
        prop_oneof![
            3 => prop::collection::btree_map("[a-c]", inner.clone(), 0..4).prop_map(|map| json!(map)),
            2 => prop::collection::vec(item, 0..4).prop_map(Value::from),
            1 => prop::collection::vec(inner, 0..4).prop_map(Value::from),
        ]
    })
}

fn any_child() -> impl Strategy<Value = Value> {
    let fields = prop::collection::btree_map("[a-c]", any_value(), 0..4);
    let extra = prop_oneof![
        4 => Just(json!({})),
        1 => Just(json!({"annotations": null, "finalizers": ["ours"]})),
        1 => Just(json!({"annotations": {"note": "x"}, "finalizers": null})),
        1 => Just(json!({"annotations": {RINGMASTER.last_applied: "{}"}, "uid": "invented"})),
        1 => Just(json!({"ownerReferences": [{"apiVersion": "v1", "kind": "Node", "name": "o", "uid": "u"}]})),
    ];
    (0..2usize, "[a-d]", fields, any_value(), extra).prop_map(|(kind, name, data, spec, extra)| {
        let mut child = if kind == CONFIG_MAPS { config_map(&name) } else { deployment(&name) };
        child["data"] = json!(data);
        child["spec"] = spec;
        for (key, value) in extra.as_object().into_iter().flatten() {
            child["metadata"][key] = value.clone();
        }
        child
    })
}

fn any_children() -> impl Strategy<Value = Vec<Value>> {
    prop::collection::vec(any_child(), 0..7)
}

/// What somebody else did to a child.
#[derive(Clone, Debug)]
enum Meddling {
    None,
    Record(Value),
    Field(&'static str, Value),
    Labels(Value),
}

fn any_meddling() -> impl Strategy<Value = Meddling> {
    prop_oneof![
        4 => Just(Meddling::None),
        1 => prop_oneof![Just(json!(null)), Just(json!("{")), any_value().prop_map(|value| json!(value.to_string()))]
            .prop_map(Meddling::Record),
        2 => (prop_oneof![Just("data"), Just("spec")], any_value()).prop_map(|(field, value)| Meddling::Field(field, value)),
        1 => prop_oneof![Just(json!({"app": "y"})), Just(json!({"theirs": "z"})), Just(json!(null))]
            .prop_map(Meddling::Labels),
    ]
}

/// Whether all that `desired` says stands in `observed`; an item of a list may stand anywhere in it.
fn holds(observed: &Value, desired: &Value) -> bool {
    match (observed, desired) {
        (_, Value::Null) => true,
        (Value::Object(observed), Value::Object(desired)) => desired
            .iter()
            .all(|(key, value)| value.is_null() || observed.get(key).is_some_and(|observed| holds(observed, value))),
        (Value::Array(observed), Value::Array(desired)) => {
            desired.iter().all(|value| value.is_null() || observed.iter().any(|observed| holds(observed, value)))
        }
        (observed, desired) => merge::same(observed, desired),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn carrying_plans_out_comes_to_an_end(
        before in any_children(),
        meddling in prop::collection::vec(any_meddling(), 8),
        wanted in any_children(),
        status in any_value(),
        recreate in any::<bool>(),
        generate_selector in any::<bool>(),
        drops_nulls in any::<bool>(),
    ) {
        let strategy = if recreate { UpdateStrategy::Recreate } else { UpdateStrategy::InPlace };
        let mut world = World::new(&RINGMASTER).loose().strategy(strategy);
        world.controller.generate_selector = generate_selector;
        world.drops_nulls = drops_nulls;
        world = world.having(&before);
        let there: Vec<(usize, String)> = [CONFIG_MAPS, DEPLOYMENTS]
            .into_iter()
            .flat_map(|kind| world.kinds[kind].owned.iter().map(move |object| (kind, object.key().name().to_owned())))
            .collect();
        for ((kind, name), meddling) in there.into_iter().zip(meddling) {
            world.edit(kind, &name, |child| match meddling {
                Meddling::None => {}
                Meddling::Record(text) => child["metadata"]["annotations"][RINGMASTER.last_applied] = text,
                Meddling::Field(field, value) => child[field] = value,
                Meddling::Labels(labels) => child["metadata"]["labels"] = labels,
            });
        }

        let status = if status.is_object() { status } else { Value::Null };
        let reply = json!({"status": status, "children": wanted});
        // Recreating takes a round to delete and a round to create.
        let rounds = if recreate { 2 } else { 1 };
        for _ in 0..rounds {
            let plan = world.sync(&reply).unwrap();
            world.carry_out(&plan);
        }
        let plan = world.sync(&reply).unwrap();
        prop_assert!(plan.is_empty(), "{}", shape(&plan));

        for kind in [CONFIG_MAPS, DEPLOYMENTS] {
            let wanted: BTreeMap<&str, &Value> = wanted
                .iter()
                .filter(|child| child["kind"] == *world.kinds[kind].resource.kind)
                .map(|child| (child["metadata"]["name"].as_str().unwrap(), child))
                .collect();
            let owned = &world.kinds[kind].owned;
            prop_assert_eq!(wanted.len(), owned.len());
            for (object, (name, desired)) in owned.iter().zip(wanted) {
                prop_assert_eq!(object.key().name(), name);
                prop_assert_eq!(object.controller(), Some(world.parent.uid()));
                let observed = object.value();
                for field in ["data", "spec"] {
                    prop_assert!(holds(&observed[field], &desired[field]), "{} of {} for {}", field, observed, desired);
                }
                prop_assert!(holds(&observed["metadata"]["labels"], &desired["metadata"]["labels"]));
            }
        }
        let mut expected = if status.is_object() { status } else { json!({}) };
        expected["observedGeneration"] = 3.into();
        prop_assert!(merge::same(&world.parent.section("status").unwrap_or_default(), &expected));
    }
}

#[test]
fn what_a_plan_changes_is_told_in_a_few_words() {
    let world = World::new(&RINGMASTER).having(&[config_map("a"), config_map("b")]);
    let told = |reply: Value| world.input(&reply, |input| crate::plan::describe(&plan(input).unwrap(), input));
    let status = json!({"observedGeneration": 3});
    let changed = with(config_map("a"), "data.k", json!("other"));
    let secret = json!("not to be told");
    assert_eq!(told(json!({"status": status, "children": [config_map("a"), config_map("b")]})), "");
    assert_eq!(told(json!({"children": [changed, config_map("b")]})), "ConfigMap shop/a: data.k");
    assert_eq!(
        told(json!({"children": [with(config_map("a"), "data.k", secret)]})),
        "ConfigMap shop/a: data.k, and 1 more"
    );
    let three = [config_map("a"), config_map("b"), config_map("c")];
    assert_eq!(told(json!({"children": three})), "ConfigMap shop/c is created");
    assert_eq!(told(json!({"children": [config_map("a")]})), "ConfigMap shop/b is deleted");
    let both = json!({"status": {"x": {"y": 1}}, "children": [config_map("a"), config_map("b")]});
    assert_eq!(told(both), "status: x");
}
