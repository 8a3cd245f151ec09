//! Children that can't be, one trial each: named in the parent's event, nothing half done, others served, and all well
//! once the answer is right.
//!
//! Never about the shape of a reply: see `faults_reply`.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::ensure;
use http::Method;
use serde_json::{Value, json};

use super::faults_hook::{conditions_say, well};
use super::faults_reply::nothing_written;
use super::scene::{LATER, NEVER, SOON, Scene, config_map};
use crate::cluster::{Context, Scope};
use crate::gate::Act;
use crate::hook::Reply;
use crate::objects::Resource;
use crate::trial::Case;
use crate::wait;

/// What Ringmaster may grow by because of one child of [`LARGE_BYTES`].
const GROWTH_KIB: u64 = 64 << 10;
/// The most children that are taken.
const CHILDREN_MAX: usize = 10_000;
/// A child that no API server takes, in bytes.
const LARGE_BYTES: usize = 2 << 20;

/// One way in which a child is wrong, so that nothing of its reply is done.
pub(super) struct Bad {
    pub(super) name: &'static str,
    /// In the event.
    pub(super) words: &'static [&'static str],
    /// Made of a child that would be right.
    pub(super) spoil: fn(&mut Value),
}

const fn bad(name: &'static str, words: &'static [&'static str], spoil: fn(&mut Value)) -> Bad {
    Bad { name, words, spoil }
}

pub(super) const REFUSED: &[Bad] = &[
    bad("undeclared_kind", &["Secret", "isn't declared", "spec.childResources"], |child| {
        child["kind"] = "Secret".into();
    }),
    bad("undeclared_group", &["example.com/v1", "spec.childResources"], |child| {
        child["apiVersion"] = "example.com/v1".into();
    }),
    bad("other_version", &["apiVersion is v2", "declares this kind as v1"], |child| child["apiVersion"] = "v2".into()),
    bad("without_a_kind", &["children[1]: kind is missing"], |child| child["kind"] = Value::Null),
    bad("without_an_api_version", &["children[1]: apiVersion is missing"], |child| child["apiVersion"] = "".into()),
    bad("without_a_name", &["children[1]: metadata.name is missing"], |child| child["metadata"]["name"] = Value::Null),
    bad("generated_name", &["children[1]: metadata.name is missing", "generateName"], |child| {
        child["metadata"] = json!({ "generateName": "bad-" });
    }),
    bad("name_with_a_slash", &["metadata.name isn't a valid name", "'/'"], |child| {
        child["metadata"]["name"] = "../secrets/b".into();
    }),
    bad("name_too_long", &["metadata.name isn't a valid name", "253"], |child| {
        child["metadata"]["name"] = "b".repeat(254).into();
    }),
    bad("other_namespace", &["default/bad", "metadata.namespace"], |child| {
        child["metadata"]["namespace"] = "default".into();
    }),
    bad("same_twice", &["children[1]", "good", "stands twice"], |child| child["metadata"]["name"] = "good".into()),
    bad("owner_of_its_own", &["metadata.ownerReferences names a controller"], |child| {
        child["metadata"]["ownerReferences"] = json!([{
            "apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": "x", "controller": true,
        }]);
    }),
    bad("null_for_a_child", &["children[1]: must be a JSON object"], |child| *child = Value::Null),
    bad("namespace_of_a_namespaced_parent", &["Namespace bad", "cluster-scoped"], |child| {
        *child = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": "bad" } });
    }),
    bad("not_matching_the_selector", &["metadata.labels don't match the parent's selector", "app=x"], |child| {
        child["metadata"]["labels"]["app"] = "y".into();
    }),
];

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let each = REFUSED.iter().map(|bad| Case::new("faults_children", bad.name, move |ctx| refused_whole(ctx, bad)));
    let more = [
        Case::new("faults_children", "invalid_by_its_schema", invalid_by_its_schema),
        Case::new("faults_children", "immutable_field", immutable_field),
        // The embedded server has no admission by quota.
        Case::real("faults_children", "refused_by_a_quota", refused_by_a_quota),
        Case::new("faults_children", "refused_as_by_a_quota", beyond_a_quota),
        Case::new("faults_children", "forbidden_to_write", forbidden_to_write),
        Case::new("faults_children", "two_megabytes", two_megabytes),
        Case::new("faults_children", "annotation_of_what_was_applied_is_too_large", annotation_too_large),
        Case::new("faults_children", "status_of_a_child_is_not_written", status_is_not_written),
        Case::new("faults_children", "second_owner_is_kept", second_owner_is_kept),
        Case::new("faults_children", "name_of_a_dying_stranger", name_of_a_dying_stranger),
        Case::new("faults_children", "name_of_a_stranger", name_taken),
        Case::new("faults_children", "name_that_the_api_server_refuses", refused_child),
        Case::new("faults_children", "too_many", too_many_children),
    ];
    each.chain(more).collect()
}

/// A child that would be right where parents select `app=x`.
pub(super) fn child(name: &str) -> Value {
    let mut child = config_map(name, json!({ "x": "1" }));
    child["metadata"]["labels"] = json!({ "app": "x" });
    child
}

/// Parents that select `app=x`, and whose hook obeys; Namespaces are declared as children too.
async fn selecting(ctx: Context) -> anyhow::Result<Scene> {
    let scene = Scene::new(ctx).await?;
    let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
    scene.ctx.grant(&Context::rules_for(&[&namespaces])).await?;
    let mut spec = scene.spec("InPlace");
    spec["generateSelector"] = false.into();
    if let Some(kinds) = spec["childResources"].as_array_mut() {
        kinds.push(json!({ "apiVersion": "v1", "resource": "namespaces" }));
    }
    scene.ctx.controller("c", spec).await?;
    Ok(scene)
}

async fn selecting_thing(scene: &Scene, name: &str, children: Value) -> anyhow::Result<Value> {
    let selector = json!({ "matchLabels": { "app": "x" } });
    let spec = json!({ "selector": selector, "reply": { "status": { "x": 1 }, "children": children } });
    scene.ctx.admin.create(&scene.things, json!({ "metadata": { "name": name }, "spec": spec })).await
}

async fn refused_whole(ctx: Context, bad: &'static Bad) -> anyhow::Result<()> {
    let scene = selecting(ctx).await?;
    let (good, mut spoiled) = (child("good"), child("bad"));
    (bad.spoil)(&mut spoiled);
    let mark = scene.ctx.mark()?;
    let thing = selecting_thing(&scene, "p", json!([good, spoiled])).await?;
    let message = scene.event(&thing, "SyncError", bad.words).await?;
    ensure!(message.contains("children[1]") && message.contains(&scene.hook.url("/sync")), "{message}");
    nothing_written(&scene, mark).await?;
    ensure!(scene.calls("p") < 20, "{} calls: it is no hot loop", scene.calls("p"));
    conditions_say(&scene, "c", bad.words).await?;
    let mut other = child("other");
    other["metadata"]["labels"]["more"] = "1".into();
    selecting_thing(&scene, "q", json!([other])).await?;
    scene.map("other", "another parent is served", |_| Ok(())).await?;
    // Its own namespace may be named.
    let mut right = child("bad");
    right["metadata"]["namespace"] = scene.ctx.namespace.clone().into();
    scene.wants("p", json!({ "children": [good, right] })).await?;
    scene.map("good", "is made once the answer is right", |_| Ok(())).await?;
    scene.map("bad", "is made once the answer is right", |_| Ok(())).await?;
    well(&scene.ctx, "c").await?;
    ensure!(!scene.ringmaster.log()?.contains("panicked"), "a sync panicked");
    Ok(())
}

/// A scene that has Sprockets besides ConfigMaps as children, with a size from 1 to 10 in their spec, and may do `verbs`
/// with them.
async fn with_sprockets(ctx: Context, verbs: Option<&[&str]>) -> anyhow::Result<(Scene, Resource)> {
    let scene = Scene::new(ctx).await?;
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": { "type": "object", "x-kubernetes-preserve-unknown-fields": true, "properties": {
                "size": { "type": "integer", "minimum": 1, "maximum": 10 },
            } },
            "status": { "type": "object", "x-kubernetes-preserve-unknown-fields": true },
        },
    });
    let sprockets = scene.ctx.crd("Sprocket", "sprockets", Scope::Namespaced, Some(schema)).await?;
    let rules = match verbs {
        Some(verbs) => json!([{ "apiGroups": [sprockets.group()], "resources": ["sprockets"], "verbs": verbs }]),
        None => Context::rules_for(&[&sprockets]),
    };
    scene.ctx.grant(&rules).await?;
    let mut spec = scene.spec("InPlace");
    if let Some(kinds) = spec["childResources"].as_array_mut() {
        let (api_version, method) = (&sprockets.api_version, json!({ "method": "InPlace" }));
        kinds.push(json!({ "apiVersion": api_version, "resource": "sprockets", "updateStrategy": method }));
    }
    scene.ctx.controller("c", spec).await?;
    Ok((scene, sprockets))
}

fn sprocket(kind: &Resource, name: &str, size: i64) -> Value {
    json!({
        "apiVersion": kind.api_version, "kind": "Sprocket", "metadata": { "name": name }, "spec": { "size": size },
    })
}

async fn is_there(scene: &Scene, kind: &Resource, name: &str) -> anyhow::Result<Value> {
    let ask = async || scene.ctx.admin.get(kind, name).await;
    scene.ctx.wait(&format!("{} {name} is made", kind.kind), LATER, ask).await
}

async fn invalid_by_its_schema(ctx: Context) -> anyhow::Result<()> {
    let (scene, sprockets) = with_sprockets(ctx, None).await?;
    let children =
        json!([sprocket(&sprockets, "bad", 11), sprocket(&sprockets, "good", 10), config_map("a", json!({}))]);
    let thing = scene.thing("p", json!({ "status": { "x": 1 }, "children": children })).await?;
    let message = scene.event(&thing, "SyncError", &["sprockets", "bad", "spec.size", "10"]).await?;
    ensure!(!message.contains("\"good\""), "{message}");
    is_there(&scene, &sprockets, "good").await?;
    scene.map("a", "is made all the same", |_| Ok(())).await?;
    ensure!(scene.synced("p").await?["status"]["x"] == 1);
    let message = scene.condition("c", ["Ready", "False", "SyncsFailing"]).await?;
    ensure!(message.contains("spec.size"), "{message}");
    ensure!(scene.calls("p") < 20, "{} calls: it is no hot loop", scene.calls("p"));
    scene.wants("p", json!({ "children": [sprocket(&sprockets, "bad", 1)] })).await?;
    is_there(&scene, &sprockets, "bad").await?;
    well(&scene.ctx, "c").await
}

async fn immutable_field(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let fixed = |x: &str| {
        let mut map = config_map("fixed", json!({ "x": x }));
        map["immutable"] = true.into();
        json!({ "children": [map, config_map(&format!("beside-{x}"), json!({}))] })
    };
    let thing = scene.thing("p", fixed("1")).await?;
    let made = scene.map("fixed", "is made", |_| Ok(())).await?;
    scene.wants("p", fixed("2")).await?;
    scene.event(&thing, "SyncError", &["configmaps/fixed", "immutable"]).await?;
    scene.map("beside-2", "is made all the same", |_| Ok(())).await?;
    scene.condition("c", ["Ready", "False", "SyncsFailing"]).await?;
    let same = scene.ctx.admin.get(&scene.maps, "fixed").await?;
    let is_same = same["metadata"]["uid"] == made["metadata"]["uid"] && same["data"] == made["data"];
    ensure!(is_same, "{same}");
    // Recreate is what the docs say of such fields.
    let name = scene.ctx.controller_name("c");
    let method = json!([{ "apiVersion": "v1", "resource": "configmaps", "updateStrategy": { "method": "Recreate" } }]);
    let patch = json!({ "spec": { "childResources": method } });
    scene.ctx.admin.patch_merge(&Context::controllers(), &name, &patch).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "2", "{}", map["data"]);
        Ok(())
    };
    scene.map("fixed", "is made anew", check).await?;
    well(&scene.ctx, "c").await
}

async fn forbidden_to_write(ctx: Context) -> anyhow::Result<()> {
    let (scene, sprockets) = with_sprockets(ctx, Some(&["get", "list", "watch"])).await?;
    let reply = json!({ "children": [sprocket(&sprockets, "s", 1), config_map("a", json!({}))] });
    let thing = scene.thing("p", reply).await?;
    scene.event(&thing, "SyncError", &["sprockets", "orbidden", "create"]).await?;
    scene.map("a", "is made all the same", |_| Ok(())).await?;
    scene.condition("c", ["Ready", "False", "SyncsFailing"]).await?;
    let calls = scene.calls("p");
    ensure!(calls < 20, "{calls} calls: it is no hot loop");
    scene.ctx.grant(&Context::rules_for(&[&sprockets])).await?;
    is_there(&scene, &sprockets, "s").await?;
    well(&scene.ctx, "c").await
}

async fn refused_by_a_quota(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let quotas = scene.ctx.namespaced("v1", "ResourceQuota", "resourcequotas");
    // No quota controller runs: what it would write into the status is written here.
    let quota = async |hard: u64| {
        let hard = json!({ "count/configmaps": hard.to_string() });
        if scene.ctx.admin.find(&quotas, "q").await?.is_none() {
            let body = json!({ "metadata": { "name": "q" }, "spec": { "hard": hard } });
            scene.ctx.admin.create(&quotas, body).await?;
            let status = json!({ "status": { "hard": hard, "used": { "count/configmaps": "0" } } });
            return scene.ctx.admin.patch_status(&quotas, "q", &status).await;
        }
        scene.ctx.admin.patch_merge(&quotas, "q", &json!({ "spec": { "hard": hard } })).await?;
        scene.ctx.admin.patch_status(&quotas, "q", &json!({ "status": { "hard": hard } })).await
    };
    quota(2).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let children: Vec<Value> = (0..4).map(|n| config_map(&format!("a{n}"), json!({}))).collect();
    let thing = scene.thing("p", json!({ "status": { "x": 1 }, "children": children })).await?;
    let message = scene.event(&thing, "SyncError", &["configmaps", "exceeded quota: q"]).await?;
    ensure!(message.contains("403"), "{message}");
    conditions_say(&scene, "c", &["1 of 1", "exceeded quota"]).await?;
    ensure!(scene.synced("p").await?["status"]["x"] == 1);
    scene.called("p", 5).await?;
    ensure!(scene.ctx.admin.list(&scene.maps, "").await?.len() == 2, "as many as the quota allows");
    ensure!(scene.calls("p") < 20, "{} calls: it is no hot loop", scene.calls("p"));
    quota(10).await?;
    for n in 0..4 {
        is_there(&scene, &scene.maps, &format!("a{n}")).await?;
    }
    well(&scene.ctx, "c").await
}

/// What a quota does to creates, on a server without any; a real quota is [`refused_by_a_quota`].
async fn beyond_a_quota(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let left = AtomicUsize::new(2);
    gate.set(move |ask| {
        let counts = ask.method == Method::POST && ask.path.ends_with("/configmaps");
        let take = || left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if counts && take().is_err() { Act::Refuse(403, None) } else { Act::Pass }
    });
    let children = (0..4).map(|n| config_map(&format!("a{n}"), json!({})));
    let parent = scene.thing("p", json!({ "status": { "x": 1 }, "children": children.collect::<Value>() })).await?;
    scene.event(&parent, "SyncError", &["configmaps", "403", "refused by the trial"]).await?;
    conditions_say(&scene, "c", &["1 of 1", "403"]).await?;
    // The status is written all the same.
    ensure!(scene.synced("p").await?["status"]["x"] == 1);
    scene.called("p", 5).await?;
    ensure!(scene.ctx.admin.list(&scene.maps, "").await?.len() == 2, "as many as may be");
    ensure!(scene.calls("p") < 20, "{} calls: it is no hot loop", scene.calls("p"));
    gate.open();
    for n in 0..4 {
        is_there(&scene, &scene.maps, &format!("a{n}")).await?;
    }
    well(&scene.ctx, "c").await
}

async fn two_megabytes(ctx: Context) -> anyhow::Result<()> {
    let (scene, sprockets) = with_sprockets(ctx, None).await?;
    let text = "x".repeat(LARGE_BYTES);
    let mut large = sprocket(&sprockets, "large", 1);
    large["spec"]["text"] = text.clone().into();
    // Too large for the parent to ask for.
    let children = json!([large, config_map("large", json!({ "x": text })), config_map("small", json!({}))]);
    let reply = json!({ "children": children });
    scene.hook.set(move |request, info| match &request["parent"]["spec"]["large"] {
        Value::Bool(true) => Reply::json(&reply),
        _ => super::scene::obey(request, info),
    });
    scene.thing("first", json!({ "children": [config_map("first", json!({}))] })).await?;
    scene.map("first", "all is well", |_| Ok(())).await?;
    let before = scene.ringmaster.rss_kib()?;
    let body = json!({ "metadata": { "name": "p" }, "spec": { "large": true } });
    let thing = scene.ctx.admin.create(&scene.things, body).await?;
    scene.map("small", "is made all the same", |_| Ok(())).await?;
    scene.event(&thing, "SyncError", &["configmaps", "large", "oo l"]).await?;
    let message = scene.event(&thing, "SyncError", &["sprockets", "large"]).await?;
    ensure!(message.len() < 2000 && !message.contains("xxxx"), "{message}");
    scene.called("p", 5).await?;
    let after = scene.ringmaster.rss_kib()?;
    ensure!(after < before + GROWTH_KIB, "it grew from {before} to {after} KiB");
    let log = scene.ringmaster.log()?;
    ensure!(log.len() < 64 << 10, "{} bytes of log", log.len());
    scene.thing("other", json!({ "children": [config_map("other", json!({}))] })).await?;
    scene.map("other", "another parent is served", |_| Ok(())).await?;
    scene.ctx.admin.patch_merge(&scene.things, "p", &json!({ "spec": { "large": false } })).await?;
    scene.synced("p").await?;
    scene.no_map("small", LATER).await?;
    well(&scene.ctx, "c").await
}

async fn annotation_too_large(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let mut spec = scene.spec("InPlace");
    spec["applyStrategy"] = "Merge".into();
    scene.ctx.controller("c", spec).await?;
    // Itself it is small enough, but what was applied is kept in an annotation.
    let large = config_map("large", json!({ "x": "x".repeat(300 << 10) }));
    let thing = scene.thing("p", json!({ "children": [large, config_map("small", json!({}))] })).await?;
    let words = ["configmaps", "large", "metadata.annotations", "262144"];
    scene.event(&thing, "SyncError", &words).await?;
    scene.map("small", "is made all the same", |_| Ok(())).await.map(drop)
}

async fn status_is_not_written(ctx: Context) -> anyhow::Result<()> {
    let (scene, sprockets) = with_sprockets(ctx, None).await?;
    let with_status = |size: i64, phase: &str| {
        let mut child = sprocket(&sprockets, "s", size);
        child["status"] = json!({ "phase": phase });
        json!({ "children": [child] })
    };
    scene.thing("p", with_status(1, "hook's")).await?;
    let made = is_there(&scene, &sprockets, "s").await?;
    ensure!(made["status"].is_null(), "{made}");
    scene.ctx.admin.patch_status(&sprockets, "s", &json!({ "status": { "phase": "theirs" } })).await?;
    scene.quiet().await?;
    scene.wants("p", with_status(2, "hook's again")).await?;
    let ask = async || {
        let now = scene.ctx.admin.get(&sprockets, "s").await?;
        ensure!(now["spec"]["size"] == 2, "{now}");
        Ok(now)
    };
    let now = scene.ctx.wait("the spec is updated", LATER, ask).await?;
    ensure!(now["status"] == json!({ "phase": "theirs" }), "{now}");
    scene.quiet().await?;
    scene.no_call("a status that isn't ours to write makes no work").await
}

async fn second_owner_is_kept(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let owner = scene.ctx.admin.create(&scene.maps, config_map("owner", json!({}))).await?;
    let mut wanted = config_map("a", json!({}));
    let second = json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"] });
    wanted["metadata"]["ownerReferences"] = json!([second]);
    let thing = scene.thing("p", json!({ "children": [wanted] })).await?;
    let map = scene.map("a", "is made", |_| Ok(())).await?;
    let owners = map["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default();
    let uids: Vec<&Value> = owners.iter().map(|owner| &owner["uid"]).collect();
    ensure!(uids.contains(&&owner["metadata"]["uid"]) && uids.contains(&&thing["metadata"]["uid"]), "{owners:?}");
    scene.quiet().await?;
    scene.no_call("it is as it shall be").await
}

async fn name_of_a_dying_stranger(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let mut stranger = config_map("taken", json!({ "x": "theirs" }));
    stranger["metadata"]["finalizers"] = json!(["test.ringmaster.dev/hold"]);
    scene.ctx.admin.create(&scene.maps, stranger).await?;
    scene.ctx.admin.delete(&scene.maps, "taken").await?;
    let reply = json!({ "children": [config_map("taken", json!({ "x": "ours" })), config_map("fine", json!({}))] });
    let thing = scene.thing("p", reply).await?;
    scene.event(&thing, "SyncError", &["taken", "being deleted", "test.ringmaster.dev/hold"]).await?;
    scene.map("fine", "is made all the same", |_| Ok(())).await?;
    wait::stays("the stranger is left alone", NEVER.min(Duration::from_secs(1)), async || {
        let map = scene.ctx.admin.get(&scene.maps, "taken").await?;
        ensure!(map["data"]["x"] == "theirs", "{map}");
        Ok(())
    })
    .await?;
    scene.ctx.admin.patch_merge(&scene.maps, "taken", &json!({ "metadata": { "finalizers": null } })).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "ours", "{}", map["data"]);
        Ok(())
    };
    scene.map("taken", "is made once the name is free", check).await.map(drop)
}

async fn too_many_children(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let children: Vec<Value> = (0..=CHILDREN_MAX).map(|n| config_map(&format!("a{n}"), json!({}))).collect();
    let many = Reply::json(&json!({ "children": children }));
    scene.hook.set(move |_, _| many.clone());
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let mark = scene.ctx.mark()?;
    let thing = scene.thing("p", json!({})).await?;
    scene.event(&thing, "SyncError", &["children", &CHILDREN_MAX.to_string()]).await?;
    nothing_written(&scene, mark).await?;
    ensure!(scene.ctx.admin.list(&scene.maps, "limit=5").await?.is_empty());
    Ok(())
}

async fn name_taken(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let foreign = scene.ctx.admin.create(&scene.maps, config_map("taken", json!({ "x": "theirs" }))).await?;
    let owner = scene.ctx.admin.create(&scene.maps, config_map("owner", json!({}))).await?;
    let mut owned = config_map("owned", json!({ "x": "theirs" }));
    owned["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"], "controller": true,
    }]);
    let owned = scene.ctx.admin.create(&scene.maps, owned).await?;
    let wanted = ["taken", "owned", "fine"].map(|name| config_map(name, json!({ "x": "ours" })));
    let thing = scene.thing("p", json!({ "children": wanted })).await?;
    scene.event(&thing, "SyncError", &["taken", "owned", "ConfigMap owner"]).await?;
    let fine = scene.map("fine", "is made all the same", |_| Ok(())).await?;
    let untouched = async || {
        for before in [&foreign, &owned, &fine] {
            let name = before["metadata"]["name"].as_str().unwrap_or_default();
            let now = scene.ctx.admin.get(&scene.maps, name).await?;
            ensure!(now["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"], "{name}: {now}");
        }
        Ok(())
    };
    wait::stays("they are left alone", NEVER, untouched).await?;
    // Strangers aren't deleted when they are wanted no more.
    scene.wants("p", json!({ "children": [wanted[0]] })).await?;
    scene.no_map("fine", SOON).await?;
    ensure!(scene.ctx.admin.find(&scene.maps, "owned").await?.is_some(), "a stranger was deleted");
    // And the name is used once it is free.
    ensure!(scene.ctx.admin.delete(&scene.maps, "taken").await?);
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "ours", "{}", map["data"]);
        Ok(())
    };
    scene.map("taken", "is made once the name is free", check).await.map(drop)
}

async fn refused_child(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let children = ["a", "Upper", "b"].map(|name| config_map(name, json!({})));
    let thing = scene.thing("p", json!({ "status": { "x": 1 }, "children": children })).await?;
    scene.event(&thing, "SyncError", &["Upper"]).await?;
    for name in ["a", "b"] {
        scene.map(name, "is made all the same", |_| Ok(())).await?;
    }
    // The status is written too: it says what the hook thinks, not whether all is well.
    let status = scene.synced("p").await?["status"].clone();
    ensure!(status["x"] == 1, "{status}");
    let calls = scene.hook.calls_for(&scene.key("p"));
    ensure!(calls.len() < 20, "{} calls: it is no hot loop", calls.len());
    Ok(())
}
