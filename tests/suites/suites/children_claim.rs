//! Whose a child is: adoption and release by a parent's `spec.selector`.
//!
//! Never about content: the hook here wants just what it observes.

use anyhow::ensure;
use http::Method;
use serde_json::{Value, json};

use super::scene::{NEVER, SOON, Scene, config_map};
use crate::cluster::Context;
use crate::gate::{Act, Ask};
use crate::hook::{CallInfo, Reply};
use crate::trial::Case;
use crate::wait;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("children", "adopts_a_matching_orphan", adopts),
        Case::new("children", "adopts_an_orphan_that_comes_later", adopts_later),
        Case::new("children", "adopts_an_orphan_that_is_relabelled", adopts_relabelled),
        Case::new("children", "leaves_an_orphan_that_changed_unseen", changed_unseen),
        Case::new("children", "adopts_for_no_parent_that_changed_unseen", parents_changed_unseen),
        Case::new("children", "releases_what_no_longer_matches", releases),
        Case::new("children", "of_two_controllers_with_different_selectors", contested),
        Case::new("children", "missing_or_empty_selector_is_told", bad_selectors),
    ]
}

/// A scene whose parents bring their own selectors, and whose hook wants what it observes.
async fn scene(ctx: Context) -> anyhow::Result<Scene> {
    let scene = Scene::new(ctx).await?;
    selecting(&scene).await?;
    Ok(scene)
}

/// Declares its controller.
async fn selecting(scene: &Scene) -> anyhow::Result<()> {
    scene.hook.set(keep);
    let mut spec = scene.spec("InPlace");
    spec["generateSelector"] = false.into();
    scene.ctx.controller("c", spec).await.map(drop)
}

pub(super) fn keep(request: &Value, _: &CallInfo) -> Reply {
    let observed = request["children"]["ConfigMap.v1"].as_object().into_iter().flat_map(|maps| maps.values());
    let children: Vec<Value> = observed
        .map(|map| {
            let mut wanted = config_map(map["metadata"]["name"].as_str().unwrap_or_default(), map["data"].clone());
            wanted["metadata"]["labels"] = map["metadata"]["labels"].clone();
            wanted
        })
        .collect();
    Reply::json(&json!({ "status": { "children": children.len() }, "children": children }))
}

impl Scene {
    async fn selecting_thing(&self, name: &str, app: &str) -> anyhow::Result<Value> {
        let selector = json!({ "matchLabels": { "app": app } });
        let body = json!({ "metadata": { "name": name }, "spec": { "selector": selector } });
        self.ctx.admin.create(&self.things, body).await
    }

    async fn orphan(&self, name: &str, app: &str) -> anyhow::Result<Value> {
        let mut map = config_map(name, json!({ "x": "1" }));
        map["metadata"]["labels"] = json!({ "app": app });
        self.ctx.admin.create(&self.maps, map).await
    }

    async fn owned_by(&self, name: &str, thing: &Value) -> anyhow::Result<Value> {
        let wanted = json!([{
            "apiVersion": self.things.api_version, "kind": "Thing", "name": thing["metadata"]["name"],
            "uid": thing["metadata"]["uid"], "controller": true, "blockOwnerDeletion": true,
        }]);
        let check = |map: &Value| {
            ensure!(map["metadata"]["ownerReferences"] == wanted, "{}", map["metadata"]);
            Ok(())
        };
        self.map(name, "is adopted", check).await
    }

    async fn children_in_status(&self, name: &str, count: usize) -> anyhow::Result<()> {
        let ask = async || {
            let thing = self.ctx.admin.get(&self.things, name).await?;
            ensure!(thing["status"]["children"] == count, "{}", thing["status"]);
            Ok(())
        };
        self.ctx.wait(&format!("{name} has {count} children"), SOON, ask).await
    }
}

async fn adopts(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx).await?;
    let (a, b) = (scene.orphan("a", "x").await?, scene.orphan("b", "y").await?);
    let mark = scene.ctx.mark()?;
    let thing = scene.selecting_thing("p", "x").await?;
    let adopted = scene.owned_by("a", &thing).await?;
    ensure!(adopted["metadata"]["uid"] == a["metadata"]["uid"], "{adopted}");
    ensure!(adopted["data"] == a["data"], "{adopted}");
    scene.children_in_status("p", 1).await?;
    scene.quiet().await?;
    let stranger = scene.ctx.admin.get(&scene.maps, "b").await?;
    ensure!(stranger["metadata"]["resourceVersion"] == b["metadata"]["resourceVersion"], "{stranger}");
    let requests = scene.ctx.requests(mark)?;
    let created: Vec<_> = requests.iter().filter(|r| r.verb == "create" && r.resource == "configmaps").collect();
    ensure!(created.is_empty(), "it was there already: {created:?}");
    Ok(())
}

async fn adopts_later(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx).await?;
    let thing = scene.selecting_thing("p", "x").await?;
    let bystander = scene.selecting_thing("q", "y").await?;
    scene.children_in_status("p", 0).await?;
    scene.children_in_status("q", 0).await?;
    scene.quiet().await?;
    scene.orphan("a", "x").await?;
    scene.owned_by("a", &thing).await?;
    scene.children_in_status("p", 1).await?;
    ensure!(scene.calls("q") == 1, "q was called {} times: {bystander}", scene.calls("q"));
    Ok(())
}

async fn adopts_relabelled(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx).await?;
    let thing = scene.selecting_thing("p", "x").await?;
    let orphan = scene.orphan("a", "y").await?;
    scene.children_in_status("p", 0).await?;
    scene.quiet().await?;
    let map = scene.ctx.admin.get(&scene.maps, "a").await?;
    ensure!(map["metadata"]["resourceVersion"] == orphan["metadata"]["resourceVersion"], "{map}");
    scene.ctx.admin.patch_merge(&scene.maps, "a", &json!({ "metadata": { "labels": { "app": "x" } } })).await?;
    scene.owned_by("a", &thing).await?;
    scene.children_in_status("p", 1).await
}

/// Orphans that match as far as Ringmaster knows: one has other labels by now, one is being deleted, one is as it was.
async fn changed_unseen(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    for name in ["a", "b", "c"] {
        scene.orphan(name, "x").await?;
    }
    let held = json!({ "metadata": { "finalizers": ["example.com/held"] } });
    scene.ctx.admin.patch_merge(&scene.maps, "b", &held).await?;
    selecting(&scene).await?;
    scene.condition("c", ["Ready", "True", "Running"]).await?;
    // Before it adopts, it looks whether the parent is still there: held up, until the orphans have changed.
    let looks = |ask: &Ask| ask.method == Method::GET && ask.path.ends_with("/things/p");
    gate.set(move |ask| if looks(ask) { Act::Refuse(500, None) } else { Act::Pass });
    let thing = scene.selecting_thing("p", "x").await?;
    let ask = async || {
        ensure!(!gate.asked(|asked| looks(&asked.ask)).is_empty(), "it doesn't look");
        Ok(())
    };
    scene.ctx.wait("it is about to adopt", SOON, ask).await?;
    gate.silence_streams();
    let relabel = json!({ "metadata": { "labels": { "app": "y" } } });
    let a = scene.ctx.admin.patch_merge(&scene.maps, "a", &relabel).await?;
    ensure!(scene.ctx.admin.delete(&scene.maps, "b").await?, "no b");
    let b = scene.ctx.admin.get(&scene.maps, "b").await?;
    gate.open();
    scene.owned_by("c", &thing).await?;
    scene.children_in_status("p", 1).await?;
    wait::stays("the others are left alone", NEVER, async || {
        for orphan in [&a, &b] {
            let name = orphan["metadata"]["name"].as_str().unwrap_or_default();
            let map = scene.ctx.admin.get(&scene.maps, name).await?;
            ensure!(map["metadata"]["resourceVersion"] == orphan["metadata"]["resourceVersion"], "{map}");
        }
        Ok(())
    })
    .await?;
    for name in ["a", "b"] {
        let written = gate.asked(|asked| asked.ask.writes(name) && asked.code.is_none_or(|code| code != 409));
        ensure!(written.is_empty(), "{written:?}");
    }
    scene.ctx.admin.patch_merge(&scene.maps, "b", &json!({ "metadata": { "finalizers": null } })).await.map(drop)
}

/// Parents that are as they were as far as Ringmaster knows: one is being deleted by now, one is another of its name.
async fn parents_changed_unseen(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    let a = scene.orphan("a", "x").await?;
    scene.orphan("b", "y").await?;
    selecting(&scene).await?;
    scene.condition("c", ["Ready", "True", "Running"]).await?;
    let looks = |ask: &Ask, name: &str| ask.method == Method::GET && ask.path.ends_with(&format!("/things/{name}"));
    let names = ["p", "q"];
    gate.set(move |ask| if names.iter().any(|name| looks(ask, name)) { Act::Refuse(500, None) } else { Act::Pass });
    let held = json!({ "name": "p", "finalizers": ["example.com/held"] });
    let spec = json!({ "selector": { "matchLabels": { "app": "x" } } });
    scene.ctx.admin.create(&scene.things, json!({ "metadata": held, "spec": spec })).await?;
    let first = scene.selecting_thing("q", "y").await?;
    let ask = async || {
        for name in names {
            ensure!(!gate.asked(|asked| looks(&asked.ask, name)).is_empty(), "it doesn't look at {name}");
        }
        Ok(())
    };
    scene.ctx.wait("it is about to adopt", SOON, ask).await?;
    gate.silence_streams();
    for name in names {
        ensure!(scene.ctx.admin.delete(&scene.things, name).await?, "no {name}");
    }
    let second = scene.selecting_thing("q", "y").await?;
    gate.open();
    scene.owned_by("b", &second).await?;
    let ask = async || {
        let seen = gate.asked(|asked| looks(&asked.ask, "p") && asked.code == Some(200));
        ensure!(!seen.is_empty(), "it doesn't look at p");
        Ok(())
    };
    scene.ctx.wait("it has seen that p goes", SOON, ask).await?;
    wait::stays("what p would have adopted is left alone", NEVER, async || {
        let map = scene.ctx.admin.get(&scene.maps, "a").await?;
        ensure!(map["metadata"]["resourceVersion"] == a["metadata"]["resourceVersion"], "{map}");
        Ok(())
    })
    .await?;
    let uid = first["metadata"]["uid"].as_str().unwrap_or_default();
    let of_first = gate.asked(|asked| asked.ask.writes("b") && asked.ask.json().to_string().contains(uid));
    let of_p = gate.asked(|asked| asked.ask.writes("a"));
    ensure!(of_first.is_empty() && of_p.is_empty(), "{of_first:?} {of_p:?}");
    scene.ctx.admin.patch_merge(&scene.things, "p", &json!({ "metadata": { "finalizers": null } })).await.map(drop)
}

async fn releases(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx).await?;
    let thing = scene.selecting_thing("p", "x").await?;
    let orphan = scene.orphan("a", "x").await?;
    scene.owned_by("a", &thing).await?;
    scene.children_in_status("p", 1).await?;
    scene.quiet().await?;
    scene.ctx.admin.patch_merge(&scene.maps, "a", &json!({ "metadata": { "labels": { "app": "y" } } })).await?;
    let check = |map: &Value| {
        ensure!(map["metadata"]["ownerReferences"].is_null(), "{}", map["metadata"]);
        Ok(())
    };
    let released = scene.map("a", "is released", check).await?;
    ensure!(released["metadata"]["uid"] == orphan["metadata"]["uid"] && released["data"] == orphan["data"]);
    scene.children_in_status("p", 0).await?;
    scene.quiet().await?;
    // Kept as it is, by everybody.
    wait::stays("the released ConfigMap is left alone", NEVER, async || {
        let map = scene.ctx.admin.get(&scene.maps, "a").await?;
        ensure!(map["metadata"]["resourceVersion"] == released["metadata"]["resourceVersion"], "{map}");
        Ok(())
    })
    .await?;
    // Another parent whose selector it matches may have it.
    let heir = scene.selecting_thing("q", "y").await?;
    scene.owned_by("a", &heir).await.map(drop)
}

async fn bad_selectors(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx).await?;
    let body = |name: &str, spec: Value| json!({ "metadata": { "name": name }, "spec": spec });
    let specs = [
        ("missing", json!({ "x": 1 })),
        ("empty", json!({ "selector": {} })),
        ("malformed", json!({ "selector": { "matchExpressions": [{ "key": "a", "operator": "Near" }] } })),
    ];
    for (name, spec) in specs {
        let thing = scene.ctx.admin.create(&scene.things, body(name, spec)).await?;
        scene.event(&thing, "SyncError", &["spec.selector"]).await?;
    }
    ensure!(scene.hook.count() == 0, "the hook was called for a parent without a selector");
    // The fix is taken at once.
    let fixed = json!({ "spec": { "selector": { "matchLabels": { "app": "x" } } } });
    scene.ctx.admin.patch_merge(&scene.things, "missing", &fixed).await?;
    scene.synced("missing").await.map(drop)
}

/// Two controllers of one parent: what matches the one's selector and not the other's goes to and fro, and ever more slowly.
async fn contested(ctx: Context) -> anyhow::Result<()> {
    const MANY: usize = 24;
    let scene = scene(ctx).await?;
    let mut other = scene.spec("InPlace");
    other["generateSelector"] = true.into();
    scene.ctx.controller("other", other).await?;
    let thing = scene.selecting_thing("p", "x").await?;
    let mark = scene.ctx.mark()?;
    scene.orphan("a", "x").await?;
    scene.event(&thing, "SyncError", &["/a is adopted and released again and again", "selectors agree"]).await?;
    let calm = async || {
        let requests = scene.ctx.requests(mark)?;
        let patches = requests.iter().filter(|entry| entry.verb == "patch" && entry.name == "a").count();
        ensure!(patches <= MANY, "{patches} patches");
        ensure!(scene.hook.count() <= 2 * MANY, "{} calls", scene.hook.count());
        Ok(())
    };
    wait::stays("it is left alone most of the time", NEVER, calm).await?;
    // Once they agree, all is well.
    scene.ctx.admin.delete(&Context::controllers(), &scene.ctx.controller_name("other")).await?;
    scene.owned_by("a", &thing).await?;
    scene.event(&thing, "SyncRecovered", &[]).await?;
    scene.ringmaster.check()
}
