//! What a decorator's reply leads to, by example.

use super::*;
use crate::controller::{Role, UpdateStrategy};
use crate::dialect::{Dialect, METACONTROLLER, RINGMASTER};
use crate::hook::{Limits, SyncReply};
use crate::key::{ApiVersion, Resource};
use crate::plan::composite::Kind;
use crate::plan::composite::tests::{NOW, controller};
use crate::plan::describe;
use crate::plan::{Phase, finalizer_patch, parent_selector, phase};
use crate::selector::Selector;

const UID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";

struct World {
    controller: Controller,
    resource: Resource,
    object: Object,
    kinds: Vec<Kind>,
}

fn resource(api_version: &str, plural: &str, kind: &str, status: bool) -> Resource {
    let api_version = ApiVersion::new(api_version);
    Resource { api_version, plural: plural.into(), kind: kind.into(), namespaced: true, status }
}

fn target() -> Value {
    json!({"metadata": {
        "name": "front", "namespace": "shop", "uid": UID, "resourceVersion": "5", "generation": 3,
        "labels": {"app": "x", "old": "1"}, "annotations": {"note": "a b"},
    }, "status": {"replicas": 1}})
}

fn attachment(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"k": "v"}})
}

impl World {
    fn new(dialect: &'static Dialect) -> Self {
        let mut controller = controller(dialect);
        controller.role = Role::Decorator { target: 0 };
        let resource = resource("apps/v1", "deployments", "Deployment", true);
        let object = Object::parse(&target().to_string(), &resource).unwrap();
        let config_maps = Arc::new(self::resource("v1", "configmaps", "ConfigMap", false));
        let kinds = vec![Kind { resource: config_maps, strategy: UpdateStrategy::InPlace, owned: Vec::new() }];
        Self { controller, resource, object, kinds }
    }

    fn sync(&self, reply: &Value) -> Result<Plan, String> {
        self.with(reply, plan).map_err(|error| error.to_string())
    }

    fn with<T>(&self, reply: &Value, of: impl FnOnce(&Input<'_>) -> T) -> T {
        let reply =
            SyncReply::parse_decorator(reply.to_string().as_bytes(), Limits::default(), true, self.controller.dialect)
                .unwrap();
        let selector = parent_selector(&self.controller, &self.object).unwrap();
        of(&Input {
            controller: &self.controller,
            resource: &self.resource,
            parent: &self.object,
            selector: &selector,
            kinds: &self.kinds,
            reply: &reply,
            finalizing: false,
            shard: Some(7),
            now: NOW,
        })
    }
}

fn tree(json: &[u8]) -> Value {
    serde_json::from_slice(json).unwrap()
}

#[test]
fn only_what_differs_is_written() {
    let world = World::new(&RINGMASTER);
    for nothing in [
        json!({}),
        json!({"labels": {"app": "x", "gone": null}, "annotations": {"note": "a b"}, "status": {"replicas": 1}}),
        json!({"labels": null, "annotations": {}, "status": null, "attachments": []}),
        json!({"labels": {"shard.ringmaster.dev/self": "9"}}),
    ] {
        assert!(world.sync(&nothing).unwrap().is_empty(), "{nothing}");
    }
    let reply = json!({"labels": {"app": "x", "new": "1", "old": null}, "annotations": {"note": "c"}});
    let plan = world.sync(&reply).unwrap();
    assert!(plan.status.is_none() && plan.writes_no_children() && !plan.is_empty());
    let patch = decoration_patch(&world.object, &plan.decoration.unwrap());
    let wanted = json!({"metadata": {
        "uid": UID, "resourceVersion": "5", "labels": {"new": "1", "old": null}, "annotations": {"note": "c"},
    }});
    assert_eq!(patch, wanted);
    let plan = world.sync(&json!({"annotations": {"x": "1"}})).unwrap();
    let patch = decoration_patch(&world.object, plan.decoration.as_ref().unwrap());
    assert_eq!(patch["metadata"].get("labels"), None);
    let told = world.with(&json!({"annotations": {"x": "1"}}), |input| describe(&plan, input));
    assert_eq!(told, "annotations: x");
}

#[test]
fn a_status_is_replaced_whole_if_the_kind_has_one() {
    let mut world = World::new(&RINGMASTER);
    let plan = world.sync(&json!({"status": {"ready": true}})).unwrap();
    let wanted = json!([
        {"op": "test", "path": "/metadata/uid", "value": UID},
        {"op": "test", "path": "/metadata/resourceVersion", "value": "5"},
        {"op": "add", "path": "/status", "value": {"ready": true}},
    ]);
    assert_eq!(plan.status.as_ref().unwrap().patch, wanted, "without observedGeneration: it is the owner's");
    let told = world.with(&json!({}), |input| describe(&plan, input));
    assert_eq!(told, "status: replicas");
    world.resource.status = false;
    let refused = world.sync(&json!({"status": {"ready": true}, "labels": {"a": "1"}})).unwrap_err();
    assert!(
        refused.starts_with("status: Deployment (apps/v1) has no status subresource; leave status out"),
        "{refused}"
    );
    assert!(world.sync(&json!({"status": {"replicas": 1}})).unwrap().is_empty(), "what is there already is fine");
    assert!(world.sync(&json!({"status": null})).unwrap().is_empty());
}

#[test]
fn conditions_join_the_status_that_is_there() {
    let mut world = World::new(&RINGMASTER);
    let named = json!([{"type": "Seen", "status": "True", "reason": "Looked"}]);
    let seen = json!({"type": "Seen", "status": "True", "reason": "Looked", "message": "",
        "lastTransitionTime": NOW, "observedGeneration": 3});
    let plan = world.sync(&json!({ "conditions": named })).unwrap();
    let wanted = json!({"replicas": 1, "conditions": [seen]});
    assert_eq!(plan.status.as_ref().unwrap().patch[2]["value"], wanted);
    let plan = world.sync(&json!({"status": {}, "conditions": named})).unwrap();
    assert_eq!(plan.status.as_ref().unwrap().patch[2]["value"], json!({"conditions": [seen]}));
    let mut object = world.object.value();
    object["status"] = wanted;
    world.object = Object::parse(&object.to_string(), &world.resource).unwrap();
    assert!(world.sync(&json!({ "conditions": named })).unwrap().is_empty());
    world.resource.status = false;
    assert!(world.sync(&json!({ "conditions": named })).unwrap().is_empty(), "what is there already is fine");
    let other = json!({"conditions": [{"type": "Seen", "status": "False", "reason": "Looked"}]});
    let refused = world.sync(&other).unwrap_err();
    assert!(
        refused.starts_with("conditions: Deployment (apps/v1) has no status subresource; leave conditions"),
        "{refused}"
    );
}

#[test]
fn an_attachment_names_its_controller() {
    for (dialect, annotation) in [
        (&RINGMASTER, "ringmaster.dev/decorator-controller"),
        (&METACONTROLLER, "metacontroller.k8s.io/decorator-controller"),
    ] {
        let mut world = World::new(dialect);
        let plan = world.sync(&json!({"attachments": [attachment("a")]})).unwrap();
        let mut body = tree(&plan.creates[0].body);
        assert_eq!(body["metadata"]["annotations"][annotation], "sites");
        assert_eq!(body["metadata"]["namespace"], "shop");
        assert_eq!(body["metadata"]["labels"], json!({"shard.ringmaster.dev/owner": "7"}));
        let owner = &body["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["uid"], &owner["controller"]), (&json!(UID), &json!(true)));
        assert_eq!(owner["blockOwnerDeletion"], true);
        body["metadata"]["uid"] = "c".into();
        body["metadata"]["resourceVersion"] = "9".into();
        let made = Arc::new(Object::parse(&body.to_string(), &world.kinds[0].resource).unwrap());
        let claims = attached(&world.controller, Some("shop"), std::iter::once(&made));
        assert_eq!(claims.owned.len(), 1);
        assert!(attached(&world.controller, Some("other"), std::iter::once(&made)).owned.is_empty());
        world.kinds[0].owned = claims.owned;
        assert!(world.sync(&json!({"attachments": [attachment("a")]})).unwrap().is_empty());
        let mut changed = attachment("a");
        changed["data"]["k"] = "w".into();
        let plan = world.sync(&json!({"attachments": [changed]})).unwrap();
        assert_eq!(tree(&plan.updates[0].body)["metadata"]["annotations"][annotation], "sites");
        assert_eq!(world.sync(&json!({})).unwrap().deletes.len(), 1);
        world.controller.name = "others".into();
        assert!(attached(&world.controller, Some("shop"), std::iter::once(&made)).owned.is_empty(), "another's");
    }
}

#[test]
fn a_bad_attachment_means_no_action_at_all() {
    let world = World::new(&RINGMASTER);
    let sync =
        |bad: Value| world.sync(&json!({"labels": {"a": "1"}, "attachments": [attachment("a"), bad]})).unwrap_err();
    let mut elsewhere = attachment("b");
    elsewhere["metadata"]["namespace"] = "other".into();
    let told = sync(elsewhere);
    assert!(told.starts_with("attachments[1] (ConfigMap other/b): metadata.namespace must be"), "{told}");
    let told = sync(json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}}));
    assert!(told.contains("attachments[1] (Secret s)") && told.contains("to spec.attachments"), "{told}");
    assert!(sync(attachment("a")).contains("stands twice"));
}

#[test]
fn a_target_is_selected_by_labels_and_annotations() {
    let mut world = World::new(&RINGMASTER);
    let selected = |world: &World| phase(&world.controller, &world.object);
    assert_eq!(selected(&world), Phase::Sync);
    world.controller.parent.annotations = Selector::parse("note").unwrap();
    assert_eq!(selected(&world), Phase::Sync);
    world.controller.parent.selector = Selector::parse("app=y").unwrap();
    assert_eq!(selected(&world), Phase::Foreign, "both must match");
    world.controller.parent.selector = Selector::parse("app=x").unwrap();
    world.controller.parent.annotations = Selector::parse("note=other").unwrap();
    assert_eq!(selected(&world), Phase::Foreign);
    world.controller.finalize = Some(world.controller.sync.clone());
    let finalizer = world.controller.finalizer();
    assert_eq!(finalizer, "ringmaster.dev/decoratorcontroller-sites");
    let mut guarded = world.object.value();
    guarded["metadata"]["finalizers"] =
        finalizer_patch(&world.object, &finalizer, true)["metadata"]["finalizers"].clone();
    world.object = Object::parse(&guarded.to_string(), &world.resource).unwrap();
    assert_eq!(selected(&world), Phase::Finalize, "it left the selection");
}
