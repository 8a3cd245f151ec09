//! Replies that can't be used, and children that can't be: told by name, and nothing or nothing more is written.
//!
//! Never about whether the hook answers at all: see `errors`.

use anyhow::ensure;
use serde_json::{Value, json};

use super::scene::{NEVER, SOON, Scene, config_map};
use crate::cluster::Context;
use crate::hook::Reply;
use crate::server::audit::Mark;
use crate::trial::Case;
use crate::wait;

/// The largest reply that is taken, in bytes.
const REPLY_MAX: usize = 8 << 20;
/// The most children that are taken.
const CHILDREN_MAX: usize = 10_000;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("errors", "replies_of_another_shape", replies_of_another_shape),
        Case::new("errors", "reply_too_large", reply_too_large),
        Case::new("errors", "too_many_children", too_many_children),
        Case::new("errors", "undeclared_kind", undeclared_kind),
        Case::new("errors", "child_in_another_namespace", child_in_another_namespace),
        Case::new("errors", "name_taken", name_taken),
        Case::new("errors", "child_that_the_api_server_refuses", refused_child),
    ]
}

/// Fails if a thing or a ConfigMap was written since, or is within a while. Events aren't counted.
pub(super) async fn nothing_written(scene: &Scene, since: Mark) -> anyhow::Result<()> {
    let group = scene.ctx.group();
    wait::stays("nothing is written", NEVER, async || {
        let mut writes = scene.ctx.requests(since)?;
        writes.retain(|r| r.is_write() && (r.group == group || r.group.is_empty()) && r.resource != "events");
        ensure!(writes.is_empty(), "{writes:?}");
        Ok(())
    })
    .await
}

async fn replies_of_another_shape(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    // The parent brings the reply's text.
    scene.hook.set(|request, _| {
        Reply::status(200).body(request["parent"]["spec"]["text"].as_str().unwrap_or_default().to_owned())
    });
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let good = config_map("a", json!({}));
    let nameless = json!({ "apiVersion": "v1", "kind": "ConfigMap" });
    let cases: [(&str, String, &[&str]); 10] = [
        ("empty", String::new(), &["JSON"]),
        ("html", "<html>busy</html>".to_owned(), &["JSON"]),
        ("list", json!([good]).to_string(), &["object"]),
        ("children-type", json!({ "children": { "a": good } }).to_string(), &["children"]),
        ("status-type", json!({ "status": 5, "children": [good] }).to_string(), &["status"]),
        (
            "seconds-type",
            json!({ "resyncAfterSeconds": "soon", "children": [good] }).to_string(),
            &["resyncAfterSeconds"],
        ),
        ("unknown", json!({ "childs": [], "children": [good] }).to_string(), &["childs", "unknown"]),
        ("twice", format!(r#"{{"children":[{good}],"children":[{good}]}}"#), &["children", "twice"]),
        ("child-type", json!({ "children": [good, 5] }).to_string(), &["children[1]"]),
        ("nameless", json!({ "children": [good, nameless] }).to_string(), &["children[1]", "metadata.name"]),
    ];
    let mark = scene.ctx.mark()?;
    let mut things = Vec::new();
    for (name, text, _) in &cases {
        let body = json!({ "metadata": { "name": name }, "spec": { "text": text } });
        things.push(scene.ctx.admin.create(&scene.things, body).await?);
    }
    for (thing, (_, _, words)) in things.iter().zip(&cases) {
        scene.event(thing, "SyncError", words).await?;
    }
    nothing_written(&scene, mark).await?;
    let message = scene.condition("c", ["HookReachable", "False", "BadReply"]).await?;
    ensure!(message.contains(&scene.hook.url("/sync")), "{message}");
    // Said to be loose, it takes what it doesn't know, and the last of two.
    let name = scene.ctx.controller_name("c");
    let patch = json!({ "spec": { "hooks": { "sync": { "webhook": { "responseUnMarshallMode": "loose" } } } } });
    scene.ctx.admin.patch_merge(&Context::controllers(), &name, &patch).await?;
    scene.synced("unknown").await?;
    scene.map("a", "is made", |_| Ok(())).await.map(drop)
}

async fn reply_too_large(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    // JSON of a given size: blanks count.
    scene.hook.set(|request, _| {
        let size = request["parent"]["spec"]["size"].as_u64().and_then(|size| usize::try_from(size).ok());
        let mut body = br#"{"status":{"x":1}}"#.to_vec();
        body.resize(size.unwrap_or_default().max(body.len()), b' ');
        Reply::status(200).body(body)
    });
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let mark = scene.ctx.mark()?;
    let body = |name: &str, size: usize| json!({ "metadata": { "name": name }, "spec": { "size": size } });
    let thing = scene.ctx.admin.create(&scene.things, body("more", REPLY_MAX + 1)).await?;
    scene.event(&thing, "SyncError", &["larger than", &REPLY_MAX.to_string()]).await?;
    nothing_written(&scene, mark).await?;
    scene.ctx.admin.create(&scene.things, body("just", REPLY_MAX)).await?;
    scene.synced("just").await.map(drop)
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

async fn undeclared_kind(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let secret = json!({ "apiVersion": "v1", "kind": "Secret", "metadata": { "name": "b" } });
    let mark = scene.ctx.mark()?;
    let reply = json!({ "status": { "x": 1 }, "children": [config_map("a", json!({})), secret] });
    let thing = scene.thing("p", reply).await?;
    scene.event(&thing, "SyncError", &["Secret", "spec.childResources"]).await?;
    nothing_written(&scene, mark).await?;
    ensure!(scene.ctx.admin.find(&scene.maps, "a").await?.is_none(), "the good child was made");
    scene.wants("p", json!({ "children": [config_map("a", json!({}))] })).await?;
    scene.map("a", "is made once the reply is right", |_| Ok(())).await.map(drop)
}

async fn child_in_another_namespace(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let mut stray = config_map("b", json!({}));
    stray["metadata"]["namespace"] = "default".into();
    let mark = scene.ctx.mark()?;
    let thing = scene.thing("p", json!({ "children": [config_map("a", json!({})), stray] })).await?;
    scene.event(&thing, "SyncError", &["metadata.namespace", "default/b"]).await?;
    nothing_written(&scene, mark).await?;
    ensure!(scene.ctx.admin.find(&scene.maps, "a").await?.is_none(), "the good child was made");
    // Its own namespace may be named.
    let mut named = config_map("b", json!({}));
    named["metadata"]["namespace"] = scene.ctx.namespace.clone().into();
    scene.wants("p", json!({ "children": [named] })).await?;
    scene.map("b", "is made once the namespace is right", |_| Ok(())).await.map(drop)
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
