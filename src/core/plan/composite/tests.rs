//! Every rule of a plan by example, on a naive API server.

use super::*;
use crate::controller::{Address, Apply, Hook, ParentRule, Webhook};
use crate::dialect::{Dialect, METACONTROLLER, RINGMASTER};
use crate::hook::Limits;
use crate::key::{ApiVersion, Uid};
use crate::plan::claim::parent_selector;

mod actions;
mod carried_out;
mod children;
mod serverside;
mod updates;

const PARENT_UID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
/// The wall clock of all plans.
pub(crate) const NOW: &str = "2026-01-02T03:04:05Z";
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

/// A controller of one sync hook, with strict replies.
pub(crate) fn controller(dialect: &'static Dialect) -> Controller {
    let webhook = Webhook {
        address: Address::Url("https://hooks.example.com/sync".into()),
        timeout: std::time::Duration::from_secs(10),
        insecure: false,
        strict: true,
        idempotent: false,
        tls: crate::controller::Tls::default(),
        auth: None,
        etag: None,
        credentials_in: "webhook".into(),
    };
    Controller {
        name: "sites".into(),
        uid: Uid::new("controller"),
        generation: 1,
        dialect,
        role: crate::controller::Role::Composite,
        json: Arc::from(&b"{}"[..]),
        parent: ParentRule {
            api_version: ApiVersion::new("example.com/v1"),
            resource: "sites".into(),
            selector: Selector::everything(),
            annotations: Selector::everything(),
            ignore_status_changes: dialect.ignore_status_changes,
            revision_fields: Vec::new(),
        },
        children: Vec::new(),
        apply: Apply::Merge,
        generate_selector: false,
        resync_period: None,
        paused: false,
        sharded: false,
        syncs_per_shard: None,
        sync: Hook { version: dialect.hook_version, webhook },
        finalize: None,
        customize: None,
    }
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
        let mut controller = controller(dialect);
        controller.parent.api_version = resource.api_version.clone();
        controller.parent.resource = Arc::clone(&resource.plural);
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
        let reply =
            SyncReply::parse(reply.to_string().as_bytes(), Limits::default(), strict, self.controller.dialect).unwrap();
        let selector = parent_selector(&self.controller, &self.parent).unwrap();
        of(&Input {
            finalizing: false,
            controller: &self.controller,
            resource: &self.resource,
            parent: &self.parent,
            selector: &selector,
            kinds: &self.kinds,
            reply: &reply,
            shard: None,
            now: NOW,
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
        self.sync(&json!({"status": status})).unwrap().status.map(|status| {
            let patch = status.patch;
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
        if let Some(status) = &plan.status {
            self.edit_parent(|parent| parent["status"] = status.patch[1]["value"].clone());
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
