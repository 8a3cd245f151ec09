//! Replies that are remembered by their entity tags: they are asked for, taken where they still hold, and only there.
//!
//! Never about how many are remembered: see the unit tests of `hooks::etag` and `hooks::route`.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cluster::Context;
use crate::hook::{CallInfo, Reply};
use crate::objects::Resource;
use crate::suites::scene::{Scene, config_map, event, obey};
use crate::trial::Case;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let metacontroller =
        || Resource::new("metacontroller.k8s.io/v1alpha1", "CompositeController", "compositecontrollers", None);
    vec![
        Case::new("credentials", "a_reply_that_still_holds_is_not_sent_again", |ctx| {
            holds(ctx, Context::controllers(), 304)
        }),
        Case::new("credentials", "a_reply_that_still_holds_by_412", |ctx| holds(ctx, Context::controllers(), 412)),
        Case::new("credentials", "a_reply_that_still_holds_for_metacontroller", move |ctx| {
            holds(ctx, metacontroller(), 304)
        }),
        Case::new("credentials", "a_reply_that_is_not_remembered_any_more", forgets),
    ]
}

/// What a parent's spec says, with its generation as the tag; this code to whoever has that.
fn tagged(request: &Value, info: &CallInfo, code: u16) -> Reply {
    let tag = format!("\"{}\"", request["parent"]["metadata"]["generation"]);
    if info.headers.get("if-none-match").is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return Reply::status(code);
    }
    obey(request, info).header("etag", &tag)
}

/// A controller that remembers replies.
fn spec(scene: &Scene) -> Value {
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["sync"]["webhook"]["etag"] = json!({ "enabled": true, "cacheTimeoutSeconds": 3600 });
    spec
}

async fn holds(ctx: Context, controllers: Resource, code: u16) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let ctx = &scene.ctx;
    scene.hook.set(move |request, info| tagged(request, info, code));
    let spec = spec(&scene);
    let metadata = json!({ "name": ctx.controller_name("things"), "labels": { "suite": ctx.id } });
    ctx.admin.create(&controllers, json!({ "metadata": metadata, "spec": spec })).await?;
    let want = |value: &str| json!({ "children": [config_map("a", json!({ "x": value }))] });
    for value in ["1", "2"] {
        if value == "1" {
            scene.thing("p", want(value)).await?;
        } else {
            scene.wants("p", want(value)).await?;
        }
        let check = |map: &Value| {
            ensure!(map["data"]["x"] == value, "{map}");
            Ok(())
        };
        scene.map("a", value, check).await?;
        scene.quiet().await?;
        let calls = scene.hook.calls_for(&scene.key("p"));
        let codes: Vec<_> = calls.iter().map(|call| call.status.unwrap_or_default()).collect();
        // The child that was made is news, and the reply to it the same.
        ensure!(codes.last() == Some(&code), "{codes:?}");
    }
    let calls = scene.hook.calls_for(&scene.key("p"));
    ensure!(calls.iter().filter(|call| call.status == Some(200)).count() == 2, "one for each generation");
    ensure!(calls[0].header("if-none-match").is_empty(), "nothing was known");

    // What somebody changed is put right by what is remembered.
    ctx.admin.patch_merge(&scene.maps, "a", &json!({ "data": { "x": "odd" } })).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "2", "{map}");
        Ok(())
    };
    scene.map("a", "is put right", check).await?;
    let calls = scene.hook.calls_for(&scene.key("p"));
    ensure!(calls.iter().filter(|call| call.status == Some(200)).count() == 2, "it was sent again");
    // And so is what somebody deleted.
    let gone = ctx.admin.get(&scene.maps, "a").await?;
    ctx.admin.delete(&scene.maps, "a").await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "2" && map["metadata"]["uid"] != gone["metadata"]["uid"], "{map}");
        Ok(())
    };
    scene.map("a", "is made anew", check).await?;
    let calls = scene.hook.calls_for(&scene.key("p"));
    ensure!(calls.iter().filter(|call| call.status == Some(200)).count() == 2, "it was sent again");

    // Nobody asked whether anything still holds.
    scene.hook.set(move |_, _| Reply::status(code));
    let other = scene.thing("q", json!({})).await?;
    event(ctx, &other, "SyncError", &[&code.to_string()]).await.map(drop)
}

/// A reply without a tag takes the place of one that had one, and a change of the controller forgets all.
async fn forgets(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|request, info| tagged(request, info, 304));
    scene.ctx.controller("c", spec(&scene)).await?;
    let want = |value: &str| json!({ "children": [config_map("a", json!({ "x": value }))] });
    let shows = async |value: &str| {
        let check = |map: &Value| {
            ensure!(map["data"]["x"] == value, "{map}");
            Ok(())
        };
        scene.map("a", value, check).await?;
        scene.quiet().await?;
        let calls = scene.hook.calls_for(&scene.key("p"));
        let last = calls.last().context("no call")?;
        anyhow::Ok((last.header("if-none-match").to_owned(), last.status))
    };
    scene.thing("p", want("1")).await?;
    let last = shows("1").await?;
    ensure!(last == ("\"1\"".to_owned(), Some(304)), "{last:?}");
    scene.hook.set(obey);
    scene.wants("p", want("2")).await?;
    let last = shows("2").await?;
    ensure!(last == (String::new(), Some(200)), "it came without a tag: {last:?}");
    scene.hook.set(|request, info| tagged(request, info, 304));
    scene.wants("p", want("3")).await?;
    let last = shows("3").await?;
    ensure!(last == ("\"3\"".to_owned(), Some(304)), "{last:?}");

    let calls = scene.calls("p");
    let patch = json!({ "spec": { "hooks": { "sync": { "webhook": { "timeout": "9s" } } } } });
    scene.ctx.admin.patch_merge(&Context::controllers(), &scene.ctx.controller_name("c"), &patch).await?;
    scene.called("p", calls + 1).await?;
    let first = &scene.hook.calls_for(&scene.key("p"))[calls];
    ensure!(first.header("if-none-match").is_empty(), "{:?}", first.headers);
    ensure!(first.header("ringmaster-deadline-ms") == "9000", "{:?}", first.headers);
    Ok(())
}
