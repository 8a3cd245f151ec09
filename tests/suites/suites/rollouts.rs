//! Rolling updates: one child at a time, each awaited; what stops them, what turns them round, and what goes on with them.
//!
//! Never about who calls the hook: see the trials of members. The trial itself is the children's controller: a part is
//! ready when the trial says so.

use std::sync::Arc;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cluster::{Context, Scope};
use crate::hook::{Call, CallInfo, Hook, Reply};
use crate::objects::Resource;
use crate::process::Ringmaster;
use crate::suites::scene::{LATER, NEVER, SOON, event};
use crate::trial::Case;
use crate::wait;

/// Parts of each set.
pub(super) const SIZE: usize = 5;
/// What a hook may be asked within [`NEVER`] while a rollout waits.
const WAITING_CALLS: usize = 12;
/// The same while children are written in vain.
const VAIN_CALLS: usize = 30;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("rollouts", "parts_of_a_namespaced_parent", |ctx| whole(ctx, Scope::Namespaced)),
        Case::new("rollouts", "parts_of_a_cluster_scoped_parent", |ctx| whole(ctx, Scope::Cluster)),
        Case::new("rollouts", "a_change_in_the_middle_turns_it_round", turns_round),
        Case::new("rollouts", "parts_that_are_made_anew", recreates),
        Case::new("rollouts", "other_fields_reach_all_parts_at_once", at_once),
        Case::new("rollouts", "a_restart_goes_on", restarts),
        Case::new("rollouts", "what_metacontroller_left_half_way", half_way),
        Case::new("rollouts", "a_hook_that_refuses_the_old_state", refused_by_the_hook),
        Case::new("rollouts", "parts_of_the_old_state_that_are_invalid", refused_by_the_api_server),
        Case::new("rollouts", "a_revision_that_is_deleted", revision_deleted),
    ]
}

/// Sets, their parts, and a hook. Each part ends when it drops: Ringmaster first.
pub(super) struct Stage {
    ringmaster: Option<Ringmaster>,
    pub(super) hook: Hook,
    pub(super) sets: Resource,
    pub(super) parts: Resource,
    pub(super) ctx: Arc<Context>,
}

/// As many parts as the set's spec says, in its order if it says one, each of the template's version and the set's colour.
fn reply(request: &Value, _: &CallInfo) -> Reply {
    let (parent, spec) = (&request["parent"], &request["parent"]["spec"]);
    let part = |number: u64| {
        json!({
            "apiVersion": spec["parts"], "kind": "Part",
            "metadata": {
                "name": format!("{}-{number}", parent["metadata"]["name"].as_str().unwrap_or_default()),
                "namespace": spec["namespace"],
                "labels": spec["selector"]["matchLabels"],
            },
            "spec": { "version": spec["template"]["version"], "colour": spec["colour"] },
        })
    };
    let order: Vec<u64> = match spec["order"].as_array() {
        Some(order) => order.iter().filter_map(Value::as_u64).collect(),
        None => (0..spec["size"].as_u64().unwrap_or_default()).collect(),
    };
    let parts: Vec<Value> = order.into_iter().map(part).collect();
    Reply::json(&json!({ "status": { "version": spec["template"]["version"] }, "children": parts }))
}

impl Stage {
    /// Without a Ringmaster and a controller.
    pub(super) async fn set(ctx: Context, scope: Scope) -> anyhow::Result<Self> {
        Self::set_with(ctx, scope, None).await
    }

    /// The same with a schema of parts.
    async fn set_with(ctx: Context, scope: Scope, schema: Option<Value>) -> anyhow::Result<Self> {
        let sets = ctx.crd("Set", "sets", scope, None).await?;
        let parts = ctx.crd("Part", "parts", Scope::Namespaced, schema).await?;
        ctx.grant(&Context::rules_for(&[&sets, &parts])).await?;
        let hook = Hook::start(reply)?;
        Ok(Self { ringmaster: None, hook, sets, parts, ctx: Arc::new(ctx) })
    }

    /// With both, and a set `s` of version 1 whose parts are ready.
    pub(super) async fn new(ctx: Context, scope: Scope, method: &str) -> anyhow::Result<Self> {
        Self::set(ctx, scope).await?.start(method).await
    }

    async fn start(mut self, method: &str) -> anyhow::Result<Self> {
        self.ringmaster = Some(Ringmaster::start(&self.ctx)?);
        self.ctx.controller("c", self.spec(method)).await?;
        self.begin().await?;
        Ok(self)
    }

    /// Makes the set `s` of version 1, and waits until its parts are ready, and were seen to be.
    pub(super) async fn begin(&self) -> anyhow::Result<()> {
        let spec = self.set_spec(1);
        self.ctx.admin.create(&self.sets, json!({ "metadata": { "name": "s" }, "spec": spec })).await?;
        for number in 0..SIZE {
            self.part(number, "is there", |_| Ok(())).await?;
            self.ready(number, true).await?;
        }
        self.told("OnLatestRevision", "").await?;
        let told = self.ctx.admin.get(&self.sets, "s").await?["status"]["conditions"][0].clone();
        ensure!(told["lastTransitionTime"].is_string() && told["observedGeneration"] == 1, "{told}");
        self.seen_ready().await
    }

    /// Waits until the hook was shown that all parts are ready: Ringmaster may hear of a part after it hears of the set.
    async fn seen_ready(&self) -> anyhow::Result<()> {
        let ask = async || {
            let calls = self.hook.calls();
            let last = calls.last().context("no call")?;
            let parts = last.request["children"].as_object().into_iter().flat_map(serde_json::Map::values);
            let parts = parts.flat_map(|parts| parts.as_object().into_iter().flat_map(serde_json::Map::values));
            let ready = parts.filter(|part| part["status"]["conditions"][0]["status"] == "True").count();
            ensure!(ready == SIZE, "{ready} parts");
            Ok(())
        };
        self.ctx.wait("all parts are seen to be ready", SOON, ask).await
    }

    pub(super) fn spec(&self, method: &str) -> Value {
        let checks = json!({ "conditions": [{ "type": "Ready", "status": "True" }] });
        json!({
            "parentResource": {
                "apiVersion": self.sets.api_version, "resource": "sets",
                "revisionHistory": { "fieldPaths": ["spec.template"] },
            },
            "childResources": [{
                "apiVersion": self.parts.api_version, "resource": "parts",
                "updateStrategy": { "method": method, "statusChecks": checks },
            }],
            "hooks": { "sync": { "webhook": { "url": self.hook.url("/sync") } } },
        })
    }

    fn set_spec(&self, version: u64) -> Value {
        json!({
            "selector": { "matchLabels": { "app": "x" } },
            "parts": self.parts.api_version, "namespace": self.ctx.namespace, "size": SIZE, "colour": "red",
            "template": { "version": version, "metadata": { "labels": { "app": "x" } } },
        })
    }

    pub(super) async fn roll(&self, version: u64) -> anyhow::Result<()> {
        let patch = json!({ "spec": { "template": { "version": version } } });
        self.ctx.admin.patch_merge(&self.sets, "s", &patch).await.map(drop)
    }

    /// The part's controller looks at it, and finds it ready or not.
    pub(super) async fn ready(&self, number: usize, ready: bool) -> anyhow::Result<()> {
        let name = format!("s-{number}");
        let part = self.ctx.admin.get(&self.parts, &name).await?;
        let condition = json!({ "type": "Ready", "status": if ready { "True" } else { "False" } });
        let status = json!({ "observedGeneration": part["metadata"]["generation"], "conditions": [condition] });
        self.ctx.admin.patch_status(&self.parts, &name, &json!({ "status": status })).await.map(drop)
    }

    /// Waits until a part is as `check` wants it.
    async fn part(
        &self,
        number: usize,
        what: &str,
        check: impl Fn(&Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<Value> {
        let ask = async || {
            let part = self.ctx.admin.get(&self.parts, &format!("s-{number}")).await?;
            check(&part)?;
            Ok(part)
        };
        self.ctx.wait(&format!("part {number} {what}"), SOON, ask).await
    }

    /// Waits until a part has this version.
    pub(super) async fn updated(&self, number: usize, version: u64) -> anyhow::Result<Value> {
        let check = |part: &Value| {
            ensure!(part["spec"]["version"] == version, "{part}");
            Ok(())
        };
        self.part(number, &format!("has version {version}"), check).await
    }

    /// The versions of all parts; 0 for one that isn't there.
    pub(super) async fn versions(&self) -> anyhow::Result<Vec<u64>> {
        let mut versions = vec![0; SIZE];
        for part in self.ctx.admin.list(&self.parts, "").await? {
            let number = part["metadata"]["name"].as_str().and_then(|name| name.strip_prefix("s-"));
            let number: usize = number.context("no part of the set")?.parse()?;
            versions[number] = part["spec"]["version"].as_u64().context("no version")?;
        }
        Ok(versions)
    }

    /// Waits until the set's condition has this reason, and a message that holds this.
    async fn told(&self, reason: &str, message: &str) -> anyhow::Result<()> {
        let ask = async || {
            let set = self.ctx.admin.get(&self.sets, "s").await?;
            let conditions = set["status"]["conditions"].as_array().context("no conditions")?;
            let told = conditions.iter().find(|condition| condition["type"] == "Updated").context("not told")?;
            ensure!(told["reason"] == reason, "{told}");
            ensure!(told["message"].as_str().is_some_and(|text| text.contains(message)), "{told}");
            let status = if reason == "OnLatestRevision" { "True" } else { "False" };
            ensure!(told["status"] == status, "{told}");
            Ok(())
        };
        self.ctx.wait(&format!("the set tells {reason} {message}"), SOON, ask).await
    }

    /// The revisions of the set, wherever they live.
    pub(super) async fn revisions(&self, group: &str) -> anyhow::Result<Vec<Value>> {
        let kind = Resource::new(&format!("{group}/v1alpha1"), "ControllerRevision", "controllerrevisions", None);
        let set = self.ctx.admin.get(&self.sets, "s").await?;
        let mut revisions = self.ctx.admin.list(&kind, "").await?;
        revisions.retain(|revision| revision["metadata"]["ownerReferences"][0]["uid"] == set["metadata"]["uid"]);
        Ok(revisions)
    }

    /// Waits until the only revision is of this version, and all parts follow it; answers with it.
    pub(super) async fn settled(&self, group: &str, version: u64) -> anyhow::Result<Value> {
        self.told("OnLatestRevision", "").await?;
        let ask = async || {
            let revisions = self.revisions(group).await?;
            let [revision] = &*revisions else { anyhow::bail!("{} revisions", revisions.len()) };
            ensure!(revision["parentPatch"]["spec"]["template"]["version"] == version, "{revision}");
            let names = revision["children"][0]["names"].as_array().map_or(0, Vec::len);
            ensure!(names == SIZE && revision["children"][0]["kind"] == "Part", "{revision}");
            Ok(revision.clone())
        };
        let revision = self.ctx.wait("one revision is left", SOON, ask).await?;
        ensure!(self.versions().await? == [version; SIZE], "{:?}", self.versions().await?);
        Ok(revision)
    }

    /// Fails if a part's version changes meanwhile.
    pub(super) async fn stands(&self, versions: &[u64]) -> anyhow::Result<()> {
        let same = async || {
            let now = self.versions().await?;
            ensure!(now == versions, "{now:?} instead of {versions:?}");
            Ok(())
        };
        wait::stays("the rollout waits", NEVER, same).await
    }

    /// Makes the parts ready one after the other, from this one on, as they get this version; none gets it early.
    async fn finish(&self, from: usize, old: u64, version: u64) -> anyhow::Result<()> {
        self.finish_told(from, old, version, Some("has no status of its generation")).await
    }

    /// The same, where this is told of each part that the others wait for; `None` if nobody looks at that.
    pub(super) async fn finish_told(
        &self,
        from: usize,
        old: u64,
        version: u64,
        missing: Option<&str>,
    ) -> anyhow::Result<()> {
        for number in from..SIZE {
            self.updated(number, version).await?;
            let versions: Vec<u64> = (0..SIZE).map(|other| if other <= number { version } else { old }).collect();
            ensure!(self.versions().await? == versions, "{:?} instead of {versions:?}", self.versions().await?);
            if let Some(missing) = missing.filter(|_| number + 1 < SIZE) {
                self.told("RolloutWaiting", &format!("s-{number} {missing}")).await?;
            }
            self.ready(number, true).await?;
        }
        Ok(())
    }
}

async fn whole(ctx: Context, scope: Scope) -> anyhow::Result<()> {
    let stage = Stage::new(ctx, scope, "RollingInPlace").await?;
    stage.settled("ringmaster.dev", 1).await?;
    stage.roll(2).await?;
    // The first is looked at, and isn't ready: the others wait.
    stage.updated(0, 2).await?;
    stage.ready(0, false).await?;
    stage.told("RolloutWaiting", "s-0 has a condition Ready whose status isn't True").await?;
    stage.stands(&[2, 1, 1, 1, 1]).await?;
    ensure!(stage.revisions("ringmaster.dev").await?.len() == 2);
    stage.ready(0, true).await?;
    stage.finish(1, 1, 2).await?;
    let revision = stage.settled("ringmaster.dev", 2).await?;
    let name = if scope == Scope::Cluster { format!("{}/s-0", stage.ctx.namespace) } else { "s-0".to_owned() };
    ensure!(revision["children"][0]["names"][0] == *name, "{revision}");
    ensure!(revision["metadata"]["labels"]["ringmaster.dev/resource"] == "sets", "{revision}");
    // The hook never sees revisions.
    let calls = stage.hook.calls();
    for call in &calls {
        let kinds = call.request["children"].as_object().context("no children")?;
        ensure!(kinds.len() == 1, "{kinds:?}");
    }
    // Since the change it is asked for both states: what a revision keeps is as it was, all else as it is now.
    let set = stage.ctx.admin.get(&stage.sets, "s").await?;
    for version in [1, 2] {
        let mut wanted = set["spec"].clone();
        wanted["template"]["version"] = version.into();
        let is_of = |call: &Call| {
            let parent = &call.request["parent"];
            parent["metadata"]["generation"] == set["metadata"]["generation"] && parent["spec"] == wanted
        };
        ensure!(calls.iter().any(is_of), "no call for version {version} of {}", set["metadata"]);
    }
    Ok(())
}

async fn turns_round(ctx: Context) -> anyhow::Result<()> {
    let stage = Stage::new(ctx, Scope::Namespaced, "RollingInPlace").await?;
    let last = stage.part(4, "is there", |_| Ok(())).await?;
    stage.roll(2).await?;
    stage.updated(0, 2).await?;
    stage.ready(0, true).await?;
    stage.updated(1, 2).await?;
    stage.ready(1, false).await?;
    stage.told("RolloutWaiting", "s-1").await?;
    // Back again: the one that isn't ready first, then the other; those that never moved stay as they are.
    stage.roll(1).await?;
    stage.updated(1, 1).await?;
    stage.stands(&[2, 1, 1, 1, 1]).await?;
    stage.ready(1, true).await?;
    stage.updated(0, 1).await?;
    stage.ready(0, true).await?;
    stage.settled("ringmaster.dev", 1).await?;
    let still = stage.part(4, "is there", |_| Ok(())).await?;
    ensure!(still["metadata"]["generation"] == last["metadata"]["generation"], "{still}");
    Ok(())
}

async fn recreates(ctx: Context) -> anyhow::Result<()> {
    let stage = Stage::new(ctx, Scope::Namespaced, "RollingRecreate").await?;
    let first = stage.part(0, "is there", |_| Ok(())).await?;
    stage.roll(2).await?;
    stage.finish_told(0, 1, 2, Some("has no condition Ready")).await?;
    stage.settled("ringmaster.dev", 2).await?;
    let anew = stage.part(0, "is there", |_| Ok(())).await?;
    ensure!(anew["metadata"]["uid"] != first["metadata"]["uid"], "{anew}");
    Ok(())
}

async fn at_once(ctx: Context) -> anyhow::Result<()> {
    let stage = Stage::new(ctx, Scope::Namespaced, "RollingInPlace").await?;
    stage.roll(2).await?;
    stage.updated(0, 2).await?;
    stage.ctx.admin.patch_merge(&stage.sets, "s", &json!({ "spec": { "colour": "blue" } })).await?;
    for number in 0..SIZE {
        let check = |part: &Value| {
            ensure!(part["spec"]["colour"] == "blue", "{part}");
            Ok(())
        };
        stage.part(number, "is blue", check).await?;
    }
    stage.stands(&[2, 1, 1, 1, 1]).await
}

async fn restarts(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::new(ctx, Scope::Namespaced, "RollingInPlace").await?;
    stage.roll(2).await?;
    stage.updated(0, 2).await?;
    stage.ready(0, true).await?;
    stage.updated(1, 2).await?;
    stage.ringmaster.take().context("not started")?.kill()?;
    let before = stage.versions().await?;
    stage.ringmaster = Some(Ringmaster::start(&stage.ctx)?);
    // It takes the place of one that died without a word, and finds what that one waited for.
    let calls = stage.hook.count();
    let ask = async || {
        ensure!(stage.hook.count() > calls, "not called");
        Ok(())
    };
    stage.ctx.wait("it syncs", LATER, ask).await?;
    stage.stands(&before).await?;
    stage.ready(1, true).await?;
    stage.finish(2, 1, 2).await?;
    stage.settled("ringmaster.dev", 2).await.map(drop)
}

/// The first of the parts was moved and is ready; names, labels, owners and annotations are Metacontroller's.
async fn half_way(ctx: Context) -> anyhow::Result<()> {
    const GROUP: &str = "metacontroller.k8s.io";
    let mut stage = Stage::set(ctx, Scope::Namespaced).await?;
    let spec = stage.set_spec(2);
    let set = stage.ctx.admin.create(&stage.sets, json!({ "metadata": { "name": "s" }, "spec": spec })).await?;
    let owner = json!([{
        "apiVersion": stage.sets.api_version, "kind": "Set", "name": "s", "uid": set["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true,
    }]);
    for number in 0..SIZE {
        let part = json!({
            "apiVersion": stage.parts.api_version, "kind": "Part",
            "metadata": {
                "name": format!("s-{number}"), "namespace": stage.ctx.namespace, "labels": { "app": "x" },
            },
            "spec": { "version": if number == 0 { 2 } else { 1 }, "colour": "red" },
        });
        let mut stored = part.clone();
        stored["metadata"]["ownerReferences"] = owner.clone();
        let annotation = format!("{GROUP}/last-applied-configuration");
        stored["metadata"]["annotations"] = json!({ annotation: part.to_string() });
        stage.ctx.admin.create(&stage.parts, stored).await?;
        stage.ready(number, true).await?;
    }
    let kind = stage.ctx.namespaced(&format!("{GROUP}/v1alpha1"), "ControllerRevision", "controllerrevisions");
    for (version, numbers) in [(1, 1..SIZE), (2, 0..1)] {
        let (group_label, kind_label) = (format!("{GROUP}/apiGroup"), format!("{GROUP}/resource"));
        let names: Vec<String> = numbers.map(|number| format!("s-{number}")).collect();
        let template = json!({ "version": version, "metadata": { "labels": { "app": "x" } } });
        let revision = json!({
            "metadata": {
                "name": format!("sets.{}-{version:040}", stage.ctx.group()),
                "labels": { group_label: stage.ctx.group(), kind_label: "sets", "app": "x" },
                "ownerReferences": owner.clone(),
            },
            "parentPatch": { "spec": { "template": template } },
            "children": [{ "apiGroup": stage.ctx.group(), "kind": "Part", "names": names }],
        });
        stage.ctx.admin.create(&kind, revision).await?;
    }
    let known = stage.part(4, "is there", |_| Ok(())).await?;

    stage.ringmaster = Some(Ringmaster::start(&stage.ctx)?);
    let controllers = Resource::new(&format!("{GROUP}/v1alpha1"), "CompositeController", "compositecontrollers", None);
    let metadata = json!({ "name": stage.ctx.controller_name("c"), "labels": { "suite": stage.ctx.id } });
    let spec = stage.spec("RollingInPlace");
    stage.ctx.admin.create(&controllers, json!({ "metadata": metadata, "spec": spec })).await?;
    stage.updated(1, 2).await?;
    stage.stands(&[2, 2, 1, 1, 1]).await?;
    let untouched = stage.part(4, "is there", |_| Ok(())).await?;
    ensure!(untouched["metadata"]["resourceVersion"] == known["metadata"]["resourceVersion"], "{untouched}");
    stage.ready(1, true).await?;
    stage.finish(2, 1, 2).await?;
    let revision = stage.settled(GROUP, 2).await?;
    let name = format!("sets.{}-{:040}", stage.ctx.group(), 2);
    ensure!(revision["metadata"]["name"] == *name, "the one that was there is kept: {revision}");
    ensure!(stage.revisions("ringmaster.dev").await?.is_empty());
    Ok(())
}

/// What the hook has no answer for any more stays as it is, and goes on in its turn.
async fn refused_by_the_hook(ctx: Context) -> anyhow::Result<()> {
    let stage = Stage::new(ctx, Scope::Namespaced, "RollingInPlace").await?;
    stage.hook.set(|request, info| {
        if request["parent"]["spec"]["template"]["version"] == 1 { Reply::status(422) } else { reply(request, info) }
    });
    stage.roll(2).await?;
    stage.updated(0, 2).await?;
    stage.told("RolloutWaiting", "s-0 has no status of its generation").await?;
    stage.ctx.admin.patch_merge(&stage.sets, "s", &json!({ "spec": { "colour": "blue" } })).await?;
    stage.part(0, "is blue", |part| coloured(part, "blue")).await?;
    let calls = stage.hook.count();
    stage.stands(&[2, 1, 1, 1, 1]).await?;
    let more = stage.hook.count() - calls;
    ensure!(more <= WAITING_CALLS, "{more} calls: it is no hot loop");
    for number in 1..SIZE {
        stage.part(number, "is left alone", |part| coloured(part, "red")).await?;
    }
    stage.finish(0, 1, 2).await?;
    stage.settled("ringmaster.dev", 2).await?;
    for number in 0..SIZE {
        stage.part(number, "is blue", |part| coloured(part, "blue")).await?;
    }
    // The parent as it is was never refused.
    let set = stage.ctx.admin.get(&stage.sets, "s").await?;
    let events = stage.ctx.events_for(&set).await?;
    ensure!(events.iter().all(|event| event["reason"] != "SyncError"), "{events:?}");
    Ok(())
}

fn coloured(part: &Value, colour: &str) -> anyhow::Result<()> {
    ensure!(part["spec"]["colour"] == colour, "{part}");
    Ok(())
}

/// What an old state wants by now is refused for ever: that is told, and the newest goes on.
async fn refused_by_the_api_server(ctx: Context) -> anyhow::Result<()> {
    let rule = json!({ "rule": "self.version != 1 || self.colour == 'red'", "message": "an old part stays red" });
    let open = "x-kubernetes-preserve-unknown-fields";
    let schema = json!({ "type": "object", "properties": {
        "spec": {
            "type": "object", (open): true, "x-kubernetes-validations": [rule],
            "properties": { "version": { "type": "integer" }, "colour": { "type": "string" } },
        },
        "status": { "type": "object", (open): true },
    } });
    let stage = Stage::set_with(ctx, Scope::Namespaced, Some(schema)).await?.start("RollingInPlace").await?;
    stage.roll(2).await?;
    stage.updated(0, 2).await?;
    stage.ctx.admin.patch_merge(&stage.sets, "s", &json!({ "spec": { "colour": "blue" } })).await?;
    stage.part(0, "is blue", |part| coloured(part, "blue")).await?;
    let set = stage.ctx.admin.get(&stage.sets, "s").await?;
    event(&stage.ctx, &set, "SyncError", &["stays red"]).await?;
    // The status is the newest state's all the same.
    stage.told("RolloutWaiting", "s-0 has no status of its generation").await?;
    let calls = stage.hook.count();
    stage.stands(&[2, 1, 1, 1, 1]).await?;
    let more = stage.hook.count() - calls;
    ensure!(more <= VAIN_CALLS, "{more} calls: it is no hot loop");
    // What is told may be as old as the last try, which comes ever later; a part that is ready doesn't wait for that.
    stage.finish_told(0, 1, 2, None).await?;
    stage.settled("ringmaster.dev", 2).await?;
    for number in 0..SIZE {
        stage.part(number, "is blue", |part| coloured(part, "blue")).await?;
    }
    let well = async || {
        let events = stage.ctx.events_for(&set).await?;
        ensure!(events.iter().any(|event| event["reason"] == "SyncRecovered"), "{events:?}");
        Ok(())
    };
    stage.ctx.wait("all is well again", SOON, well).await
}

/// The newest is made anew and changes nothing; without an older one, what followed it follows the newest at once.
async fn revision_deleted(ctx: Context) -> anyhow::Result<()> {
    let stage = Stage::new(ctx, Scope::Namespaced, "RollingInPlace").await?;
    stage.roll(2).await?;
    stage.updated(0, 2).await?;
    let kind = stage.ctx.namespaced("ringmaster.dev/v1alpha1", "ControllerRevision", "controllerrevisions");
    let of = async |version: u64| {
        let mut revisions = stage.revisions("ringmaster.dev").await?;
        revisions.retain(|revision| revision["parentPatch"]["spec"]["template"]["version"] == version);
        revisions.pop().with_context(|| format!("no revision of version {version}"))
    };
    let name = |revision: &Value| revision["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    let newest = of(2).await?;
    stage.ctx.admin.delete(&kind, &name(&newest)).await?;
    let anew = async || {
        let revision = of(2).await?;
        ensure!(revision["metadata"]["uid"] != newest["metadata"]["uid"], "it is there");
        ensure!(revision["children"][0]["names"] == json!(["s-0"]), "{revision}");
        Ok(revision)
    };
    let anew = stage.ctx.wait("it is made anew", SOON, anew).await?;
    ensure!(name(&anew) == name(&newest), "{anew}");
    stage.stands(&[2, 1, 1, 1, 1]).await?;
    stage.ready(0, true).await?;
    stage.updated(1, 2).await?;
    stage.stands(&[2, 2, 1, 1, 1]).await?;

    let old = of(1).await?;
    stage.ctx.admin.delete(&kind, &name(&old)).await?;
    for number in 2..SIZE {
        stage.updated(number, 2).await?;
    }
    let last = stage.settled("ringmaster.dev", 2).await?;
    ensure!(last["metadata"]["uid"] == anew["metadata"]["uid"], "{last}");
    let calls = stage.hook.count();
    stage.stands(&[2; SIZE]).await?;
    let more = stage.hook.count() - calls;
    ensure!(more <= WAITING_CALLS, "{more} calls: it is no hot loop");
    Ok(())
}
