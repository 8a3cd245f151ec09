//! Rollouts by example, and whatever they meet: changes in the middle, broken states, crashes between any two writes.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::controller::{ChildRule, Controller, StatusCheck, UpdateStrategy};
use crate::dialect::{Dialect, METACONTROLLER, RINGMASTER};
use crate::hook::{Limits, SyncReply};
use crate::key::{ApiVersion, Resource};
use crate::object::Object;
use crate::plan::composite::tests::{NOW, controller};
use crate::plan::composite::{self, Error, Kind, Plan};
use crate::plan::parent_selector;

const PARENT_UID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
/// A state whose children never become ready.
const BROKEN: u64 = 13;
/// No crash.
const ALL: usize = usize::MAX;

/// A parent, its children and revisions, on an API server that does as it is told, and a hook that makes as many children
/// as the parent's spec says, in its order, each of its version.
struct World {
    controller: Controller,
    resource: Resource,
    parent: Value,
    /// By namespace and name.
    children: BTreeMap<String, Value>,
    /// By name.
    revisions: BTreeMap<String, Value>,
    last: u64,
}

/// What one sync did.
#[derive(Debug, PartialEq, Eq)]
struct Did {
    moved: bool,
    /// Children that were created, updated or deleted.
    wrote: usize,
    /// Reason and message of the condition.
    told: (String, String),
}

fn resource(api_version: &str, plural: &str, kind: &str, namespaced: bool) -> Resource {
    Resource {
        api_version: ApiVersion::new(api_version),
        plural: plural.into(),
        kind: kind.into(),
        namespaced,
        status: true,
    }
}

fn things() -> Resource {
    resource("example.com/v1", "things", "Thing", true)
}

fn revisions() -> Resource {
    resource("ringmaster.dev/v1alpha1", PLURAL, "ControllerRevision", true)
}

impl World {
    fn new(strategy: UpdateStrategy, size: usize) -> Self {
        Self::with(&RINGMASTER, strategy, size, "shop")
    }

    /// With a parent of version 1, in `namespace` or cluster-scoped.
    fn with(dialect: &'static Dialect, strategy: UpdateStrategy, size: usize, namespace: &str) -> Self {
        let resource = resource("example.com/v1", "sets", "Set", !namespace.is_empty());
        let ready = StatusCheck { kind: "Ready".into(), status: Some("True".into()), reason: None };
        let mut controller = controller(dialect);
        controller.parent.api_version = resource.api_version.clone();
        controller.parent.resource = Arc::clone(&resource.plural);
        controller.parent.revision_fields = vec![FieldPath::parse("spec.template").unwrap()];
        controller.children = vec![ChildRule {
            api_version: ApiVersion::new("example.com/v1"),
            resource: "things".into(),
            strategy,
            status_checks: vec![ready],
        }];
        let parent = json!({
            "metadata": {"name": "front", "namespace": namespace, "uid": PARENT_UID, "resourceVersion": "5",
                "generation": 3},
            "spec": {
                "selector": {"matchLabels": {"app": "x"}},
                "size": size,
                "first": 0,
                "template": {"version": 1, "metadata": {"labels": {"app": "x"}}},
            },
        });
        Self { controller, resource, parent, children: BTreeMap::new(), revisions: BTreeMap::new(), last: 100 }
    }

    fn names(&self) -> Vec<String> {
        let size = self.parent["spec"]["size"].as_u64().unwrap();
        let home = self.parent["metadata"]["namespace"].as_str().unwrap();
        let home = if home.is_empty() { "far" } else { home };
        (0..size).map(|number| format!("{home}/c-{number}")).collect()
    }

    /// What the hook answers: the order begins at `spec.first`.
    fn hook(&self, parent: &Object) -> SyncReply {
        let spec: Value = parent.section("spec").unwrap();
        let mut names = self.names();
        let first = usize::try_from(spec["first"].as_u64().unwrap()).unwrap();
        let first = first % names.len().max(1);
        names.rotate_left(first);
        let child = |name: &String| {
            let (namespace, name) = name.split_once('/').unwrap();
            json!({
                "apiVersion": "example.com/v1",
                "kind": "Thing",
                "metadata": {"name": name, "namespace": namespace, "labels": {"app": "x"}},
                "spec": {"version": spec["template"]["version"], "size": spec["size"]},
            })
        };
        let children: Vec<Value> = names.iter().map(child).collect();
        let reply = json!({"status": {"version": spec["template"]["version"]}, "children": children});
        SyncReply::parse(reply.to_string().as_bytes(), Limits::default(), true, self.controller.dialect).unwrap()
    }

    fn parent(&self) -> Object {
        Object::of(&self.parent, &self.resource).unwrap()
    }

    /// One sync, which is cut off after so many writes.
    fn sync(&mut self, mut writes: usize) -> Did {
        let parent = self.parent();
        let objects: Vec<Arc<Object>> = self
            .revisions
            .values()
            .map(|revision| Arc::new(Object::parse(&revision.to_string(), &revisions()).unwrap()))
            .collect();
        let mut owned: Vec<Arc<Object>> = self
            .children
            .values()
            .map(|child| Arc::new(Object::parse(&child.to_string(), &things()).unwrap()))
            .collect();
        owned.sort_by(|a, b| a.key().cmp(b.key()));
        let strategy = self.controller.children[0].strategy;
        let kinds = [Kind { resource: Arc::new(things()), strategy, owned }];
        let live = Live::of(&self.controller, &parent, &objects);
        let older = live
            .older
            .iter()
            .map(|revision| self.hook(&parent_of(&self.controller, &self.resource, &parent, revision).unwrap()));
        let older: Vec<SyncReply> = older.collect();
        let namespace = if parent.key().namespace().is_empty() { "system" } else { parent.key().namespace() };
        let input = Input {
            controller: &self.controller,
            resource: &self.resource,
            parent: &parent,
            kinds: &kinds,
            namespace,
            shard: None,
        };
        let selector = parent_selector(&self.controller, &parent).unwrap();
        let plan = |reply: &SyncReply| {
            composite::plan(&composite::Input {
                controller: &self.controller,
                resource: &self.resource,
                parent: &parent,
                selector: &selector,
                kinds: &kinds,
                reply,
                finalizing: false,
                shard: None,
                now: NOW,
            })
        };
        let step = step(&input, &live, self.hook(&parent), older, plan).unwrap();
        let status: Value = serde_json::from_str(step.reply.status.as_ref().unwrap().get()).unwrap();
        assert_eq!(status["version"], self.parent["spec"]["template"]["version"], "the status is the newest one's");
        let told = match step.reply.conditions.as_slice() {
            [told] => json!({"type": told.kind, "reason": told.reason, "message": told.message}),
            _ => status["conditions"][0].clone(),
        };
        assert_eq!(told["type"], "Updated");
        let told = (text(&told["reason"]), text(&told["message"]));
        let mut did = Did { moved: step.moved, wrote: 0, told };
        for write in step.writes {
            if writes == 0 {
                return did;
            }
            writes -= 1;
            self.write_revision(write);
        }
        self.carry_out(step.plan, writes, &mut did);
        did
    }

    fn write_revision(&mut self, write: Write) {
        let mut value: Value = match &write {
            Write::Delete { object } => {
                self.revisions.remove(object.key().name()).unwrap();
                return;
            }
            Write::Create { body, .. } | Write::Update { body, .. } => serde_json::from_slice(body).unwrap(),
        };
        let name = text(&value["metadata"]["name"]);
        match write {
            Write::Create { key, .. } => {
                assert!(!self.revisions.contains_key(&name), "{name} is made twice");
                assert_eq!((key.name(), key.namespace()), (&*name, value["metadata"]["namespace"].as_str().unwrap()));
                value["metadata"]["uid"] = format!("uid-{name}").into();
            }
            Write::Update { object, .. } => {
                assert_eq!(self.revisions[&name]["metadata"]["resourceVersion"], object.version().to_string());
                assert_eq!(value["metadata"]["uid"], object.uid().to_string());
            }
            Write::Delete { .. } => {}
        }
        self.last += 1;
        value["metadata"]["resourceVersion"] = self.last.to_string().into();
        self.revisions.insert(name, value);
    }

    fn carry_out(&mut self, plan: Plan, mut writes: usize, did: &mut Did) {
        for delete in plan.deletes {
            if writes == 0 {
                return;
            }
            writes -= 1;
            did.wrote += 1;
            self.children.remove(delete.object.key().as_str()).unwrap();
        }
        let bodies = plan.creates.into_iter().map(|create| create.body);
        for body in bodies.chain(plan.updates.into_iter().map(|update| update.body)) {
            if writes == 0 {
                return;
            }
            writes -= 1;
            did.wrote += 1;
            let mut child: Value = serde_json::from_slice(&body).unwrap();
            let metadata = &child["metadata"];
            let key = format!("{}/{}", text(&metadata["namespace"]), text(&metadata["name"]));
            self.last += 1;
            let old = self.children.get(&key);
            let generation = old.map_or(0, |old| old["metadata"]["generation"].as_u64().unwrap());
            if old.is_none_or(|old| old["spec"] != child["spec"]) {
                child["metadata"]["generation"] = (generation + 1).into();
            }
            if old.is_none() {
                child["metadata"]["uid"] = format!("uid-{}", self.last).into();
            }
            child["metadata"]["resourceVersion"] = self.last.to_string().into();
            self.children.insert(key, child);
        }
        if let Some(status) = plan.status {
            self.parent["status"] = status.patch[1]["value"].clone();
        }
    }

    /// A child's own controller looks at it.
    fn run(&mut self, name: &str) {
        let Some(child) = self.children.get_mut(name) else { return };
        let ready = if child["spec"]["version"] == BROKEN { "False" } else { "True" };
        let condition = json!({"type": "Ready", "status": ready});
        child["status"] = json!({"observedGeneration": child["metadata"]["generation"], "conditions": [condition]});
        self.last += 1;
        child["metadata"]["resourceVersion"] = self.last.to_string().into();
    }

    fn change(&mut self, path: &str, value: u64) {
        *self.parent.pointer_mut(path).unwrap() = value.into();
        let generation = &mut self.parent["metadata"]["generation"];
        *generation = (generation.as_u64().unwrap() + 1).into();
    }

    fn roll(&mut self, version: u64) {
        self.change("/spec/template/version", version);
    }

    /// Children that aren't there, aren't ready, or that nobody has looked at since they changed.
    fn unready(&self) -> Vec<String> {
        let is_ready = |name: &String| {
            self.children.get(name).is_some_and(|child| {
                child["status"]["conditions"][0]["status"] == "True"
                    && child["status"]["observedGeneration"] == child["metadata"]["generation"]
            })
        };
        self.names().into_iter().filter(|name| !is_ready(name)).collect()
    }

    fn versions(&self) -> Vec<u64> {
        self.names().iter().map(|name| self.children[name]["spec"]["version"].as_u64().unwrap()).collect()
    }

    /// Syncs, and lets children run, until nothing changes any more; counts the syncs.
    fn settle(&mut self) -> usize {
        for round in 0..1000 {
            self.names().iter().for_each(|name| self.run(name));
            let before = (self.children.clone(), self.revisions.clone());
            self.sync(ALL);
            if before == (self.children.clone(), self.revisions.clone()) {
                return round;
            }
        }
        panic!("never comes to rest: {:?}", self.revisions)
    }

    /// The names that each revision claims, by its version.
    fn claims(&self) -> BTreeMap<u64, Vec<String>> {
        let claims = |revision: &Value| {
            let version = revision["parentPatch"]["spec"]["template"]["version"].as_u64().unwrap();
            let names = revision["children"].as_array().unwrap().iter().flat_map(|kind| {
                assert_eq!((&kind["apiGroup"], &kind["kind"]), (&json!("example.com"), &json!("Thing")));
                kind["names"].as_array().unwrap().iter().map(text)
            });
            (version, names.collect())
        };
        self.revisions.values().map(claims).collect()
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

#[test]
fn children_are_updated_one_by_one() {
    let mut world = World::new(UpdateStrategy::RollingInPlace, 5);
    let first = world.sync(ALL);
    assert_eq!((first.wrote, first.moved, &*first.told.0), (5, false, "OnLatestRevision"));
    world.settle();
    assert_eq!(world.claims()[&1].len(), 5);
    world.roll(2);
    for number in 0..5 {
        let did = world.sync(ALL);
        assert!(did.moved && did.wrote == 1, "{did:?}");
        assert_eq!(did.told, ("RolloutProgressing".to_owned(), format!("updating Thing shop/c-{number}")));
        let versions: Vec<u64> = (0..5).map(|other| if other <= number { 2 } else { 1 }).collect();
        assert_eq!(world.versions(), versions);
        if number < 4 {
            let waits = world.sync(ALL);
            assert_eq!((waits.moved, waits.wrote, &*waits.told.0), (false, 0, "RolloutWaiting"));
            assert_eq!(waits.told.1, format!("Thing shop/c-{number} has no status of its generation 2 yet"));
        }
        world.run(&format!("shop/c-{number}"));
    }
    let done = world.sync(ALL);
    assert_eq!((done.moved, done.wrote, &*done.told.0), (false, 0, "OnLatestRevision"));
    assert_eq!(world.claims().into_keys().collect::<Vec<_>>(), [2], "what nobody follows is gone");
    assert!(done.told.1.contains(world.revisions.keys().next().unwrap()), "{done:?}");
    assert_eq!(world.sync(ALL).wrote, 0);
}

#[test]
fn a_revision_that_was_edited_is_known_by_its_name() {
    let mut world = World::new(UpdateStrategy::RollingInPlace, 2);
    world.settle();
    let parent = world.parent();
    let is_intact = |revision: &Value| {
        is_intact(&world.controller, &parent, &Object::parse(&revision.to_string(), &revisions()).unwrap())
    };
    let mut revision = world.revisions.values().next().unwrap().clone();
    assert!(is_intact(&revision));
    revision["children"] = json!([]);
    assert!(is_intact(&revision));
    revision["parentPatch"]["spec"]["template"]["version"] = 9.into();
    assert!(!is_intact(&revision));
    revision["parentPatch"] = Value::Null;
    assert!(!is_intact(&revision));
}

#[test]
fn what_revisions_do_not_keep_reaches_all_at_once() {
    let mut world = World::new(UpdateStrategy::RollingInPlace, 4);
    world.settle();
    world.change("/spec/size", 3);
    assert_eq!(world.sync(ALL).wrote, 4, "three updates and a delete");
    assert_eq!(world.settle(), 0);
    assert_eq!(world.claims()[&1].len(), 3);
}

#[test]
fn a_child_that_is_not_ready_stops_the_rollout_and_a_change_turns_it_round() {
    let mut world = World::new(UpdateStrategy::RollingInPlace, 3);
    world.settle();
    world.roll(BROKEN);
    world.settle();
    assert_eq!(world.versions(), [BROKEN, 1, 1]);
    assert_eq!(world.sync(ALL).told.1, "Thing shop/c-0 has a condition Ready whose status isn't True");
    world.roll(1);
    assert_eq!(world.sync(ALL).told.1, "updating Thing shop/c-0");
    world.settle();
    assert_eq!((world.versions(), world.revisions.len()), (vec![1, 1, 1], 1));
}

#[test]
fn the_broken_one_moves_first_whatever_the_order() {
    let mut world = World::new(UpdateStrategy::RollingInPlace, 3);
    world.settle();
    world.roll(BROKEN);
    world.settle();
    // Now the order is c-1, c-2, c-0.
    world.change("/spec/first", 1);
    world.roll(3);
    assert_eq!(world.sync(ALL).told.1, "updating Thing shop/c-0");
}

#[test]
fn recreated_children_are_awaited_too() {
    let mut world = World::new(UpdateStrategy::RollingRecreate, 3);
    world.settle();
    world.roll(2);
    let did = world.sync(ALL);
    assert!(did.moved && did.wrote == 1 && world.children.len() == 2, "{did:?}");
    let did = world.sync(ALL);
    assert_eq!((did.moved, did.wrote, world.children.len()), (false, 1, 3));
    assert_eq!(did.told.1, "Thing shop/c-0 isn't there");
    assert_eq!(world.sync(ALL).told.1, "Thing shop/c-0 has no condition Ready");
    world.settle();
    assert_eq!(world.versions(), [2, 2, 2]);
}

#[test]
fn children_of_a_cluster_scoped_parent_are_named_with_their_namespaces() {
    let mut world = World::with(&RINGMASTER, UpdateStrategy::RollingInPlace, 3, "");
    world.settle();
    assert_eq!(world.claims()[&1], ["far/c-0", "far/c-1", "far/c-2"]);
    world.roll(2);
    world.settle();
    assert_eq!((world.versions(), world.revisions.len()), (vec![2, 2, 2], 1));
    let revision = world.revisions.values().next().unwrap();
    assert_eq!(revision["metadata"]["namespace"], "system");
}

#[test]
fn revisions_are_as_the_contract_says() {
    let mut world = World::with(&METACONTROLLER, UpdateStrategy::RollingInPlace, 2, "shop");
    world.sync(ALL);
    let (name, revision) = world.revisions.iter().next().unwrap();
    let patch = json!({"spec": {"template": {"metadata": {"labels": {"app": "x"}}, "version": 1}}});
    // As sha1sum says of the uid and the patch.
    assert_eq!(name, "sets.example.com-bd1da26ae755f551adc8ad40284719f17ed84695");
    assert_eq!((&revision["apiVersion"], &revision["parentPatch"]), (&json!("metacontroller.k8s.io/v1alpha1"), &patch));
    let children = json!([{"apiGroup": "example.com", "kind": "Thing", "names": ["c-0", "c-1"]}]);
    assert_eq!(revision["children"], children);
    let metadata = &revision["metadata"];
    let labels = json!({"metacontroller.k8s.io/apiGroup": "example.com", "metacontroller.k8s.io/resource": "sets",
        "app": "x"});
    assert_eq!((&metadata["labels"], &metadata["namespace"]), (&labels, &json!("shop")));
    let owner = &metadata["ownerReferences"][0];
    assert_eq!((&owner["uid"], &owner["controller"]), (&json!(PARENT_UID), &json!(true)));
    assert!(is_of(&world.controller, &Object::parse(&revision.to_string(), &revisions()).unwrap()));
}

#[test]
fn names_in_either_form_are_read() {
    let mut world = World::new(UpdateStrategy::RollingInPlace, 3);
    world.settle();
    world.roll(2);
    world.sync(ALL);
    for revision in world.revisions.values_mut() {
        for name in revision["children"][0]["names"].as_array_mut().unwrap() {
            *name = format!("shop/{}", text(name)).into();
        }
    }
    world.settle();
    assert_eq!((world.versions(), world.revisions.len()), (vec![2, 2, 2], 1));
}

#[test]
fn entries_that_are_none_hide_no_other() {
    let mut world = World::new(UpdateStrategy::RollingInPlace, 3);
    world.settle();
    world.roll(2);
    world.sync(1);
    for revision in world.revisions.values_mut() {
        revision["children"][0]["names"].as_array_mut().unwrap().push(7.into());
        let entries = revision["children"].as_array_mut().unwrap();
        entries.extend([json!("odd"), json!({"names": ["x"]}), json!({"kind": "Odd", "names": "x"})]);
    }
    world.sync(ALL);
    assert_eq!(world.versions().iter().filter(|version| **version == 2).count(), 1, "the others wait for their turn");
    world.settle();
    assert_eq!(world.versions(), vec![2, 2, 2]);
}

#[test]
fn a_child_that_two_revisions_name_follows_the_one_written_last() {
    let mut world = World::new(UpdateStrategy::RollingInPlace, 3);
    world.settle();
    world.roll(2);
    // The new revision is there, and the old one still names what moves.
    world.sync(1);
    assert_eq!((world.claims()[&1].len(), world.claims()[&2].len(), world.versions()), (3, 1, vec![1, 1, 1]));
    // Under yet another, it would be made like the one that it was to follow: it goes first instead, whatever the order.
    world.change("/spec/first", 1);
    world.roll(3);
    let did = world.sync(ALL);
    assert_eq!((did.wrote, &*did.told.1), (1, "updating Thing shop/c-0"));
    assert_eq!(world.versions(), [3, 1, 1]);
    world.settle();
    assert_eq!((world.versions(), world.revisions.len()), (vec![3, 3, 3], 1));
}

#[test]
fn beyond_the_limit_children_stay_until_it_is_their_turn() {
    let size = MAX_LIVE_REVISIONS + 5;
    let mut world = World::new(UpdateStrategy::RollingInPlace, size);
    world.settle();
    // Each change reaches one child, which is ready at once.
    for version in 2..2 + size as u64 {
        world.roll(version);
        world.sync(ALL);
        world.names().iter().for_each(|name| world.run(name));
        // The next change begins with the next child.
        world.change("/spec/first", version - 1);
    }
    let before = world.versions();
    assert!(world.revisions.len() > MAX_LIVE_REVISIONS, "{before:?}");
    world.roll(100);
    let did = world.sync(ALL);
    assert!(did.moved && did.wrote == 1, "{did:?}");
    let changed = before.iter().zip(world.versions()).filter(|(before, after)| *before != after).count();
    assert_eq!(changed, 1);
    world.settle();
    assert_eq!((world.versions(), world.revisions.len()), (vec![100; size], 1));
}

#[test]
fn an_unreadable_revision_holds_its_children_until_it_is_their_turn() {
    let mut world = World::new(UpdateStrategy::RollingInPlace, 3);
    world.settle();
    world.revisions.values_mut().for_each(|revision| revision["parentPatch"] = json!("odd"));
    world.roll(2);
    let did = world.sync(ALL);
    assert!(did.moved && did.wrote == 1, "{did:?}");
    assert_eq!(world.versions(), [2, 1, 1]);
    world.settle();
    assert_eq!((world.versions(), world.revisions.len()), (vec![2, 2, 2], 1));
}

#[test]
fn a_conditions_field_of_another_shape_is_left_alone() {
    let world = World::with(&METACONTROLLER, UpdateStrategy::RollingInPlace, 1, "shop");
    let parent = world.parent();
    let live = Live::of(&world.controller, &parent, &[]);
    let input = Input {
        controller: &world.controller,
        resource: &world.resource,
        parent: &parent,
        kinds: &[],
        namespace: "shop",
        shard: Some(7),
    };
    let status = |reply: &Value| {
        let reply =
            SyncReply::parse(reply.to_string().as_bytes(), Limits::default(), true, world.controller.dialect).unwrap();
        let step = step(&input, &live, reply, Vec::new(), |_| Ok::<_, Error>(Plan::default())).unwrap();
        let Some(Write::Create { body, .. }) = step.writes.first() else { panic!("{:?}", step.writes) };
        let revision: Value = serde_json::from_slice(body).unwrap();
        assert_eq!(revision["metadata"]["labels"][crate::shards::OWNER_LABEL], "7");
        serde_json::from_str::<Value>(step.reply.status.unwrap().get()).unwrap()
    };
    let odd = json!({"conditions": {"a": 1}});
    assert_eq!(status(&json!({ "status": odd })), odd);
    let status = status(&json!({"status": {"a": 1, "conditions": [{"type": "Mine"}, {"type": "Updated", "x": 1}]}}));
    assert_eq!((&status["a"], &status["conditions"][0]), (&json!(1), &json!({"type": "Mine"})));
    assert_eq!(
        (&status["conditions"][1]["reason"], status["conditions"][1].get("x")),
        (&json!("OnLatestRevision"), None)
    );
}

#[test]
fn times_and_ends_of_all_replies_count() {
    let mut world = World::new(UpdateStrategy::RollingInPlace, 2);
    world.settle();
    world.roll(2);
    let parent = world.parent();
    let objects: Vec<Arc<Object>> = world
        .revisions
        .values()
        .map(|revision| Arc::new(Object::parse(&revision.to_string(), &revisions()).unwrap()))
        .collect();
    let live = Live::of(&world.controller, &parent, &objects);
    assert_eq!((live.older.len(), live.is_only_latest()), (1, false));
    let input = Input {
        controller: &world.controller,
        resource: &world.resource,
        parent: &parent,
        kinds: &[],
        namespace: "shop",
        shard: None,
    };
    let reply = |seconds: f64, finalized: bool| SyncReply {
        resync_after: (seconds > 0.0).then(|| std::time::Duration::from_secs_f64(seconds)),
        finalized,
        ..SyncReply::default()
    };
    let of = |latest, older| {
        let step = step(&input, &live, latest, vec![older], |_| Ok::<_, Error>(Plan::default())).unwrap();
        (step.reply.resync_after.map(|after| after.as_secs()), step.reply.finalized)
    };
    assert_eq!(of(reply(5.0, true), reply(0.0, true)), (Some(5), true));
    assert_eq!(of(reply(5.0, true), reply(2.0, false)), (Some(2), false));
    assert_eq!(of(reply(0.0, false), reply(0.0, true)), (None, false));
}

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// A sync that ends after so many writes.
    Sync(usize),
    /// A child's controller runs.
    Run(usize),
    /// The parent changes to this version, with this order.
    Change(u64, u64),
}

fn any_events() -> impl Strategy<Value = Vec<Event>> {
    let event = prop_oneof![
        4 => Just(Event::Sync(ALL)),
        2 => (0_usize..4).prop_map(Event::Sync),
        4 => (0_usize..7).prop_map(Event::Run),
        1 => (1_u64..6, 0_u64..7).prop_map(|(version, first)| Event::Change(version, first)),
        1 => (0_u64..7).prop_map(|first| Event::Change(BROKEN, first)),
    ];
    prop::collection::vec(event, 0..80)
}

proptest! {
    #[test]
    fn never_more_than_one_is_under_way_and_all_arrive(
        size in 1_usize..7,
        in_place in any::<bool>(),
        namespaced in any::<bool>(),
        events in any_events(),
    ) {
        let strategy = if in_place { UpdateStrategy::RollingInPlace } else { UpdateStrategy::RollingRecreate };
        let home = if namespaced { "shop" } else { "" };
        let mut world = World::with(&RINGMASTER, strategy, size, home);
        world.settle();
        prop_assert_eq!(world.unready(), Vec::<String>::new());
        for event in events {
            match event {
                Event::Sync(writes) => {
                    let before = world.children.clone();
                    world.sync(writes);
                    let changed = before.iter().filter(|(name, child)| {
                        world.children.get(*name).is_none_or(|new| new["spec"] != child["spec"])
                    });
                    prop_assert!(changed.count() <= 1);
                }
                Event::Run(number) => {
                    let names = world.names();
                    world.run(&names[number % names.len()]);
                }
                Event::Change(version, first) => {
                    world.change("/spec/first", first);
                    world.roll(version);
                }
            }
            prop_assert!(world.unready().len() <= 1, "{:?} after {:?}: {:?}", world.unready(), event, world.claims());
        }
        world.roll(99);
        world.settle();
        prop_assert_eq!(world.versions(), vec![99; size]);
        prop_assert_eq!(world.revisions.len(), 1);
    }
}
