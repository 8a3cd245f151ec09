//! Answers that are HTTP and JSON and still no good: "later" in every form, wrong types in every field, times that make
//! a loop, and answers that differ at every call.
//!
//! Never about single children: see `faults_children`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::faults_hook::{conditions_say, well};
use super::scene::{LATER, NEVER, SOON, Scene, config_map, obey};
use crate::cluster::Context;
use crate::hook::{Call, CallInfo, Reply};
use crate::server::audit::Mark;
use crate::trial::Case;
use crate::wait;

/// The largest reply that is taken, in bytes.
const REPLY_MAX: usize = 8 << 20;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("faults_reply", "429_in_every_form", later_in_every_form),
        Case::new("faults_reply", "wrong_types_in_every_field", wrong_types),
        Case::new("faults_reply", "loose_takes_what_strict_refuses", loose_takes_what_strict_refuses),
        Case::new("faults_reply", "largest_and_too_large", reply_too_large),
        Case::new("faults_reply", "status_null_empty_and_missing", status_null_empty_and_missing),
        Case::new("faults_reply", "resync_after_next_to_nothing", resync_after_next_to_nothing),
        Case::new("faults_reply", "child_field_flips", child_field_flips),
        Case::new("faults_reply", "recreated_child_flips", recreated_child_flips),
        Case::new("faults_reply", "child_comes_and_goes", child_comes_and_goes),
        Case::new("faults_reply", "status_flips", status_flips),
    ]
}

/// Fails if a thing or a ConfigMap was written since, or is within a while. Events aren't counted.
pub(super) async fn nothing_written(scene: &Scene, since: Mark) -> anyhow::Result<()> {
    let group = scene.ctx.group();
    wait::stays("nothing is written", NEVER, async || {
        let mut writes = scene.ctx.requests(since)?;
        // The first process at a server makes the namespace of the Leases.
        let is_other = |resource: &str| matches!(resource, "events" | "namespaces");
        writes.retain(|r| r.is_write() && (r.group == group || r.group.is_empty()) && !is_other(&r.resource));
        ensure!(writes.is_empty(), "{writes:?}");
        Ok(())
    })
    .await
}

fn gaps(calls: &[Call]) -> Vec<Duration> {
    calls.windows(2).map(|pair| pair[1].started - pair[0].started).collect()
}

async fn later_in_every_form(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let busy = Arc::new(AtomicBool::new(true));
    scene.hook.set({
        let busy = Arc::clone(&busy);
        move |request, info| match &request["parent"]["spec"]["retryAfter"] {
            Value::Null => obey(request, info),
            _ if !busy.load(Ordering::SeqCst) => obey(request, info),
            Value::String(text) => Reply::status(429).header("retry-after", text),
            _ => Reply::status(429),
        }
    });
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    // No time, or none to wait for: ever longer pauses.
    let soon = [
        ("none", json!(false)),
        ("zero", json!("0")),
        ("negative", json!("-1")),
        ("nonsense", json!("soon")),
        ("empty", json!("")),
        ("past", json!("Sun, 06 Nov 1994 08:49:37 GMT")),
    ];
    // An hour at most, which a change of the parent doesn't wait for.
    let late = [
        ("huge", json!("99999999999999999999999999")),
        ("day", json!("86400")),
        ("date", json!("Fri, 31 Dec 2100 23:59:59 GMT")),
    ];
    let thing = async |name: &str, retry_after: &Value| {
        let reply = json!({ "children": [config_map(name, json!({}))] });
        let spec = json!({ "reply": reply, "retryAfter": retry_after });
        scene.ctx.admin.create(&scene.things, json!({ "metadata": { "name": name }, "spec": spec })).await
    };
    for (name, retry_after) in &late {
        thing(name, retry_after).await?;
    }
    let mut told = Vec::new();
    for (name, retry_after) in &soon {
        told.push(thing(name, retry_after).await?);
    }
    scene.thing("good", json!({ "children": [config_map("good", json!({}))] })).await?;
    scene.map("good", "others go on", |_| Ok(())).await?;
    for (thing, (name, _)) in told.iter().zip(&soon) {
        scene.called(name, 5).await?;
        let mut least = Duration::from_millis(50);
        for gap in gaps(&scene.hook.calls_for(&scene.key(name))[..5]) {
            ensure!(gap >= least, "{name}: a call came after {gap:?}, not {least:?}");
            least *= 2;
        }
        let message = scene.event(thing, "SyncPostponed", &["429", "4 times in a row"]).await?;
        ensure!(message.contains(&scene.hook.url("/sync")) && message.contains("Retry-After"), "{message}");
    }
    for (name, _) in &late {
        ensure!(scene.calls(name) == 1, "{name}: {} calls", scene.calls(name));
    }
    // Also without a look at each object.
    conditions_say(&scene, "c", &["(429)"]).await?;
    busy.store(false, Ordering::SeqCst);
    for (name, _) in &soon {
        scene.map(name, "is made once the hook has time", |_| Ok(())).await?;
    }
    for (name, _) in &late {
        scene.wants(name, json!({ "status": { "x": 1 } })).await?;
        scene.map(name, "is made once its parent changes", |_| Ok(())).await?;
    }
    well(&scene.ctx, "c").await
}

async fn wrong_types(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    // The parent brings the reply's text.
    scene.hook.set(|request, info| match request["parent"]["spec"]["text"].as_str() {
        Some(text) => Reply::status(200).body(text.to_owned()),
        None => obey(request, info),
    });
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let child = |fields: &str| format!(r#"{{"children":[{{"apiVersion":"v1","kind":"ConfigMap",{fields}}}]}}"#);
    let named = |fields: &str| child(&format!(r#""metadata":{{"name":"x",{fields}}}"#));
    let data = |fields: &str| child(&format!(r#""metadata":{{"name":"x"}},"data":{fields}"#));
    let cases: [(&str, String, &[&str]); 26] = [
        ("status-string", r#"{"status":"fine"}"#.to_owned(), &["status: must be an object"]),
        ("status-list", r#"{"status":[]}"#.to_owned(), &["status: must be an object"]),
        ("children-object", r#"{"children":{}}"#.to_owned(), &["children: invalid type: map"]),
        ("children-string", r#"{"children":"none"}"#.to_owned(), &["children: invalid type: string"]),
        ("children-flat", r#"{"children":[[]]}"#.to_owned(), &["children[0]: must be a JSON object"]),
        ("child-null", r#"{"children":[null]}"#.to_owned(), &["children[0]: must be a JSON object"]),
        ("seconds-string", r#"{"resyncAfterSeconds":"5"}"#.to_owned(), &["resyncAfterSeconds: invalid type"]),
        ("seconds-bool", r#"{"resyncAfterSeconds":true}"#.to_owned(), &["resyncAfterSeconds: invalid type"]),
        ("finalized-string", r#"{"finalized":"yes"}"#.to_owned(), &["finalized: invalid type"]),
        ("unknown-field", r#"{"attachments":[]}"#.to_owned(), &["attachments: unknown field", "loose"]),
        ("field-twice", r#"{"status":{},"status":{}}"#.to_owned(), &["status: the field stands twice"]),
        ("status-twice", r#"{"status":{"a":{"b":1,"b":2}}}"#.to_owned(), &["status: b stands twice"]),
        ("data-twice", data(r#"{"k":"1","k":"2"}"#), &["children[0]: k stands twice"]),
        ("kind-twice", child(r#""kind":"Secret","metadata":{"name":"x"}"#), &["children[0]: kind stands twice"]),
        ("surrogate", data(r#"{"k":"\ud800"}"#), &["children[0]: ", "escape"]),
        ("number", data(r#"{"k":1e999}"#), &["children[0]: ", "out of range"]),
        ("metadata-list", child(r#""metadata":[]"#), &["children[0]: metadata: invalid type"]),
        ("metadata-null", child(r#""metadata":null"#), &["children[0]: metadata.name is missing"]),
        ("name-number", child(r#""metadata":{"name":5}"#), &["children[0]: metadata.name: invalid type"]),
        ("namespace-list", named(r#""namespace":[]"#), &["children[0]: metadata.namespace: invalid type"]),
        ("labels-list", named(r#""labels":[]"#), &["metadata.labels: invalid type"]),
        ("label-number", named(r#""labels":{"a":1}"#), &["metadata.labels: invalid type"]),
        ("annotations-list", named(r#""annotations":[]"#), &["metadata.annotations: invalid type"]),
        ("finalizers-string", named(r#""finalizers":"a""#), &["metadata.finalizers: invalid type"]),
        ("owners-object", named(r#""ownerReferences":{}"#), &["metadata.ownerReferences: invalid type"]),
        ("bom", "\u{feff}{}".to_owned(), &["not JSON"]),
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
    // The API server's own judgement of a type, in a field that only it knows.
    let mut bad = config_map("bad", json!({ "k": 5 }));
    bad["metadata"]["annotations"] = json!({ "a": null });
    let thing = scene.thing("data-number", json!({ "children": [bad, config_map("fine", json!({}))] })).await?;
    scene.event(&thing, "SyncError", &["configmaps", "data"]).await?;
    scene.map("fine", "is made all the same", |_| Ok(())).await?;
    let calls = scene.hook.count();
    ensure!(calls < cases.len() * 20, "{calls} calls: it is no hot loop");
    ensure!(!scene.ringmaster.log()?.contains("panicked"), "a sync panicked");
    Ok(())
}

async fn status_null_empty_and_missing(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    for (name, none) in
        [("null", json!({ "status": null })), ("empty", json!({ "status": {} })), ("missing", json!({}))]
    {
        scene.thing(name, json!({ "status": { "x": 1, "deep": { "y": [1, null, {}] } } })).await?;
        let status = scene.synced(name).await?["status"].clone();
        ensure!(status["x"] == 1 && status["observedGeneration"] == 1, "{status}");
        // Replaced, not patched: `reply` is whole.
        let patch = json!([{ "op": "replace", "path": "/spec/reply", "value": none }]);
        let path = scene.things.object(name);
        scene.ctx.admin.send(http::Method::PATCH, &path, "application/json-patch+json", Some(&patch)).await?;
        let status = scene.synced(name).await?["status"].clone();
        ensure!(status == json!({ "observedGeneration": 2 }), "{name}: {status}");
    }
    scene.quiet().await.map(drop)
}

async fn resync_after_next_to_nothing(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    scene.thing("p", json!({ "resyncAfterSeconds": 1e-12 })).await?;
    scene.called("p", 8).await?;
    let gaps = gaps(&scene.hook.calls_for(&scene.key("p")));
    // The first sync writes the status, and nothing follows from that.
    ensure!(gaps.iter().all(|gap| *gap >= Duration::from_millis(95)), "{gaps:?}");
    scene.wants("p", json!({ "resyncAfterSeconds": 0 })).await?;
    scene.quiet().await.map(drop)
}

/// A hook that answers `flip` with the number of the call until it is told to rest, and a good parent beside it: told on
/// the parent and in the log with what changes, called ever more rarely, and at rest when the answers are.
async fn flips(
    scene: &Scene,
    spec: Value,
    words: &[&str],
    flip: impl Fn(usize) -> Value + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let (resting, number) = (Arc::new(AtomicBool::new(false)), AtomicUsize::new(0));
    scene.hook.set({
        let resting = Arc::clone(&resting);
        move |request: &Value, info: &CallInfo| {
            if request["parent"]["metadata"]["name"] != "p" {
                return obey(request, info);
            }
            let rests = resting.load(Ordering::SeqCst);
            Reply::json(&flip(if rests { 0 } else { number.fetch_add(1, Ordering::SeqCst) + 1 }))
        }
    });
    scene.ctx.controller("c", spec).await?;
    let thing = scene.thing("p", json!({})).await?;
    scene.thing("good", json!({ "children": [config_map("good", json!({}))] })).await?;
    scene.map("good", "others go on", |_| Ok(())).await?;
    let message = scene.event(&thing, "AnswersDiffer", words).await?;
    ensure!(message.contains(&scene.hook.url("/sync")) && message.contains("change at every call"), "{message}");
    scene.ringmaster.wait_log(&scene.ctx, "never comes to rest", SOON).await?;
    scene.called("p", 12).await?;
    let calls = scene.hook.calls_for(&scene.key("p"));
    // After five in a row each waits twice as long, 50 ms at least.
    let took = calls[11].started - calls[0].started;
    ensure!(took >= Duration::from_millis(50 * 127), "12 calls within {took:?}: {:?}", gaps(&calls));
    let events = scene.ctx.events_for(&thing).await?;
    let told = events.iter().filter(|event| event["reason"] == "AnswersDiffer").count();
    ensure!((1..=3).contains(&told), "{told} events");
    resting.store(true, Ordering::SeqCst);
    let before = scene.calls("p");
    let rested = async || {
        let calls = scene.hook.calls_for(&scene.key("p"));
        ensure!(calls.len() > before, "{} calls", calls.len());
        Ok(())
    };
    scene.ctx.wait("it is called again", LATER, rested).await?;
    scene.quiet().await?;
    scene.no_call("it rests").await?;
    well(&scene.ctx, "c").await
}

async fn child_field_flips(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let child = |number: usize| {
        let data = json!({ "always": "the same", "time": number.to_string(), "zzz": "the same" });
        json!({ "status": { "calls": number }, "children": [config_map("a", data)] })
    };
    let words = ["ConfigMap", "/a: data.time"];
    flips(&scene, scene.spec("InPlace"), &words, child).await?;
    scene
        .map("a", "has the last answer", |map| {
            ensure!(map["data"]["time"] == "0", "{}", map["data"]);
            Ok(())
        })
        .await
        .map(drop)
}

async fn recreated_child_flips(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let child = |number: usize| json!({ "children": [config_map("a", json!({ "time": number.to_string() }))] });
    flips(&scene, scene.spec("Recreate"), &["ConfigMap", "/a is "], child).await
}

async fn child_comes_and_goes(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let child = |number: usize| match number % 2 {
        1 => json!({ "children": [config_map("a", json!({}))] }),
        _ => json!({ "children": [] }),
    };
    flips(&scene, scene.spec("InPlace"), &["ConfigMap", "/a is "], child).await
}

async fn status_flips(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let mut spec = scene.spec("InPlace");
    spec["parentResource"]["ignoreStatusChanges"] = false.into();
    let status = |number: usize| json!({ "status": { "a": 1, "last": { "call": number } } });
    flips(&scene, spec, &["status: last.call"], status).await.context("ignoreStatusChanges: false")
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

async fn loose_takes_what_strict_refuses(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|request, _| {
        Reply::status(200).body(request["parent"]["spec"]["text"].as_str().unwrap_or_default().to_owned())
    });
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let twice = r#"{"childs":[],"children":[],"children":[{"apiVersion":"v1","kind":"Secret","kind":"ConfigMap",
        "metadata":{"name":"a"},"data":{"x":"1","x":"2"}}]}"#;
    let mark = scene.ctx.mark()?;
    let thing = scene
        .ctx
        .admin
        .create(&scene.things, json!({ "metadata": { "name": "p" }, "spec": { "text": twice } }))
        .await?;
    scene.event(&thing, "SyncError", &["childs: unknown field", "responseUnMarshallMode: loose"]).await?;
    nothing_written(&scene, mark).await?;
    let message = scene.condition("c", ["HookReachable", "False", "BadReply"]).await?;
    ensure!(message.contains(&scene.hook.url("/sync")), "{message}");
    let name = scene.ctx.controller_name("c");
    let patch = json!({ "spec": { "hooks": { "sync": { "webhook": { "responseUnMarshallMode": "loose" } } } } });
    scene.ctx.admin.patch_merge(&Context::controllers(), &name, &patch).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "2", "{}", map["data"]);
        Ok(())
    };
    scene.map("a", "is made as it stands last", check).await?;
    well(&scene.ctx, "c").await
}
