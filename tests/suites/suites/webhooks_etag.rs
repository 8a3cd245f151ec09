//! Replies that are remembered by their entity tags: they are asked for, taken where they still hold, and only there.
//!
//! Never about how many are remembered: see the unit tests of `hooks::etag` and `hooks::route`.

use anyhow::ensure;
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
            holds(ctx, Context::controllers())
        }),
        Case::new("credentials", "a_reply_that_still_holds_for_metacontroller", move |ctx| {
            holds(ctx, metacontroller())
        }),
    ]
}

/// What a parent's spec says, with its generation as the tag; 304 to whoever has that.
fn tagged(request: &Value, info: &CallInfo) -> Reply {
    let tag = format!("\"{}\"", request["parent"]["metadata"]["generation"]);
    if info.headers.get("if-none-match").is_some_and(|known| known.as_bytes() == tag.as_bytes()) {
        return Reply::status(304);
    }
    obey(request, info).header("etag", &tag)
}

async fn holds(ctx: Context, controllers: Resource) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let ctx = &scene.ctx;
    scene.hook.set(tagged);
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["sync"]["webhook"]["etag"] = json!({ "enabled": true, "cacheTimeoutSeconds": 3600 });
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
        ensure!(codes.last() == Some(&304), "{codes:?}");
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

    // Nobody asked whether anything still holds.
    scene.hook.set(|_, _| Reply::status(304));
    let other = scene.thing("q", json!({})).await?;
    event(ctx, &other, "SyncError", &["304"]).await.map(drop)
}
