//! Parity: what hooks of Metacontroller's composites are sent, and what follows from what they answer.
//!
//! Never about a hook that is away: see `faults_hook` and `faults_retry`.

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::faults_reply::nothing_written;
use super::metacontroller_scene::{LAST_APPLIED, Strategy, composites, declare, each, scene};
use super::scene::{SOON, Scene, config_map, obey};
use crate::cluster::{Context, Scope};
use crate::hook::{Call, CallInfo, Hook, Reply};
use crate::objects::Resource;
use crate::trial::Case;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("parity", "a_request_has_the_fields_of_the_contract", request),
        Case::new("parity", "related_objects_of_v1", |ctx| related(ctx, "v1")),
        Case::new("parity", "related_objects_of_v2", |ctx| related(ctx, "v2")),
        Case::new("parity", "a_url_wins_over_a_service", by_url),
        Case::new("parity", "200_alone_is_success", codes),
        Case::new("parity", "429_is_taken_at_its_word", later),
        Case::new("parity", "a_status_is_replaced_whole", status),
        Case::new("parity", "a_reply_asks_for_another_sync", resync),
        Case::new("parity", "replies_are_read_strictly_or_loosely", modes),
    ];
    let named = ["children_of_cluster_scoped_parents_merged", "children_of_cluster_scoped_parents_applied"];
    cases.extend(each("parity", named, cluster_scoped));
    cases
}

/// The names of an object's fields, sorted.
fn keys(object: &Value) -> Vec<&str> {
    let mut keys: Vec<&str> = object.as_object().into_iter().flatten().map(|(key, _)| key.as_str()).collect();
    keys.sort_unstable();
    keys
}

/// The hook that answers with the text in the parent's `spec.text`.
fn by_text(request: &Value, _: &CallInfo) -> Reply {
    Reply::status(200).body(request["parent"]["spec"]["text"].as_str().unwrap_or("{}").to_owned())
}

async fn says(scene: &Scene, text: &str) -> anyhow::Result<()> {
    scene.ctx.admin.patch_merge(&scene.things, "p", &json!({ "spec": { "text": text } })).await.map(drop)
}

/// An HTTP date more than two seconds from now, and at most three.
fn soon() -> Option<String> {
    let mut date = Command::new("date");
    date.env("LC_ALL", "C").args(["-u", "-d", "+3 seconds", "+%a, %d %b %Y %H:%M:%S GMT"]);
    let text = String::from_utf8(date.output().ok()?.stdout).ok()?;
    Some(text.trim().to_owned())
}

/// Fails if a call came sooner than `least` after the one before it.
fn apart(calls: &[Call], least: Duration) -> anyhow::Result<()> {
    for pair in calls.windows(2) {
        let gap = pair[1].started - pair[0].started;
        ensure!(gap >= least, "calls {} and {} are only {gap:?} apart", pair[0].number, pair[1].number);
    }
    Ok(())
}

async fn request(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let services = scene.ctx.namespaced("v1", "Service", "services");
    scene.ctx.grant(&Context::rules_for(&[&services])).await?;
    let mut spec = scene.spec("InPlace");
    spec["childResources"] = json!([spec["childResources"][0], { "apiVersion": "v1", "resource": "services" }]);
    let made = declare(&scene, &composites(), "c", spec).await?;
    let thing = scene.thing("p", json!({ "children": [config_map("a", json!({ "x": "1" }))] })).await?;
    scene.map("a", "is made", |_| Ok(())).await?;
    scene.called("p", 2).await?;
    scene.quiet().await?;
    let last = scene.hook.calls_for(&scene.key("p")).pop().context("no call")?;
    ensure!(last.header("content-type") == "application/json", "{:?}", last.headers);
    let request = &last.request;
    let fields = keys(request);
    ensure!(fields == ["children", "controller", "finalizing", "parent", "related"], "{fields:?}");
    ensure!(request["finalizing"] == false && request["related"] == json!({}), "{request}");
    ensure!(request["controller"]["metadata"]["uid"] == made["metadata"]["uid"], "{request}");
    ensure!(request["controller"]["spec"] == made["spec"], "{request}");
    ensure!(request["parent"]["metadata"]["uid"] == thing["metadata"]["uid"], "{request}");
    // Each declared kind is there; bare names; what was applied is in the object.
    ensure!(request["children"]["Service.v1"] == json!({}), "{request}");
    ensure!(keys(&request["children"]["ConfigMap.v1"]) == ["a"], "{request}");
    ensure!(request["children"]["ConfigMap.v1"]["a"]["metadata"]["annotations"][LAST_APPLIED].is_string(), "{request}");
    // Unlike Metacontroller, and documented.
    ensure!(!request.to_string().contains("managedFields"), "{request}");
    Ok(())
}

async fn related(ctx: Context, version: &'static str) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
    scene.ctx.grant(&Context::rules_for(&[&namespaces])).await?;
    scene.hook.set(|request, info| {
        if info.path != "/customize" {
            return obey(request, info);
        }
        let (home, labels) = (&request["parent"]["metadata"]["namespace"], &request["parent"]["spec"]["labels"]);
        Reply::json(&json!({ "relatedResources": [
            { "apiVersion": "v1", "resource": "configmaps", "namespace": home, "names": ["theme"] },
            { "apiVersion": "v1", "resource": "namespaces", "labelSelector": { "matchLabels": labels } },
        ] }))
    });
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["sync"]["version"] = version.into();
    spec["hooks"]["customize"] = json!({ "version": version, "webhook": { "url": scene.hook.url("/customize") } });
    declare(&scene, &composites(), "c", spec).await?;
    scene.ctx.admin.create(&scene.maps, config_map("theme", json!({ "v": "1" }))).await?;
    let labels = json!({ "suite": scene.ctx.id });
    scene.ctx.admin.create(&scene.things, json!({ "metadata": { "name": "p" }, "spec": { "labels": labels } })).await?;
    let home = scene.ctx.namespace.clone();
    let theme = format!("{home}/theme");
    // What is cluster-scoped isn't a namespaced parent's in v1; its kind has an entry all the same.
    let (maps, spaces) = match version {
        "v1" => (vec!["theme"], vec![]),
        _ => (vec![theme.as_str()], vec![home.as_str()]),
    };
    let ask = async || {
        let calls = scene.hook.calls();
        let last = calls.iter().rfind(|call| call.path == "/sync").context("no sync")?;
        let related = &last.request["related"];
        ensure!(keys(related) == ["ConfigMap.v1", "Namespace.v1"], "{related}");
        ensure!(keys(&related["ConfigMap.v1"]) == maps && keys(&related["Namespace.v1"]) == spaces, "{related}");
        Ok(())
    };
    scene.ctx.wait("the hook is sent what is related", SOON, ask).await?;
    let asked = || scene.hook.calls().iter().filter(|call| call.path == "/customize").count();
    scene.quiet().await?;
    ensure!(asked() == 1, "{} customize calls", asked());
    let customize = scene.hook.calls().into_iter().find(|call| call.path == "/customize").context("not asked")?;
    let fields = keys(&customize.request);
    ensure!(fields == ["controller", "parent"], "{fields:?}");
    // The answer is kept while nothing changes that it may depend on; labels and annotations may.
    scene.ctx.admin.patch_merge(&scene.maps, "theme", &json!({ "data": { "v": "2" } })).await?;
    let ask = async || {
        let calls = scene.hook.calls();
        let last = calls.iter().rfind(|call| call.path == "/sync").context("no sync")?;
        ensure!(last.request["related"]["ConfigMap.v1"][maps[0]]["data"]["v"] == "2", "{}", last.request);
        Ok(())
    };
    scene.ctx.wait("the change is sent", SOON, ask).await?;
    scene.quiet().await?;
    ensure!(asked() == 1, "{} customize calls", asked());
    for (field, wanted) in [("labels", 2), ("annotations", 3)] {
        let patch = json!({ "metadata": { (field): { "a": "b" } } });
        scene.ctx.admin.patch_merge(&scene.things, "p", &patch).await?;
        let ask = async || {
            ensure!(asked() == wanted, "{} customize calls", asked());
            Ok(())
        };
        scene.ctx.wait(&format!("the hook is asked anew for {field}"), SOON, ask).await?;
    }
    Ok(())
}

async fn cluster_scoped(ctx: Context, strategy: Strategy) -> anyhow::Result<()> {
    let scene = scene(ctx, Scope::Cluster, strategy).await?;
    let marks = scene.ctx.crd("Mark", "marks", Scope::Cluster, None).await?;
    scene.ctx.grant(&Context::rules_for(&[&marks])).await?;
    let mut spec = scene.spec("InPlace");
    let rule = json!({
        "apiVersion": marks.api_version, "resource": "marks", "updateStrategy": { "method": "InPlace" },
    });
    spec["childResources"] = json!([spec["childResources"][0], rule]);
    declare(&scene, &composites(), "c", spec).await?;
    let home = scene.ctx.namespace.clone();
    let children = |x: &str| {
        let mut map = config_map("a", json!({ "x": x }));
        map["metadata"]["namespace"] = home.as_str().into();
        let mark = json!({
            "apiVersion": marks.api_version, "kind": "Mark", "metadata": { "name": "m" }, "spec": { "x": x },
        });
        json!({ "children": [map, mark] })
    };
    scene.thing("p", children("1")).await?;
    let seen = async |version: &str, x: &str| {
        let kind = format!("Mark.{}", marks.api_version);
        let ask = async || {
            let last = scene.hook.calls_for("p").pop().context("no call")?;
            let hooks = &last.request["controller"]["spec"]["hooks"];
            ensure!(version == "v1" || hooks["sync"]["version"] == version, "{hooks}");
            let children = &last.request["children"];
            let key = format!("{home}/a");
            ensure!(keys(&children["ConfigMap.v1"]) == [key.as_str()], "{children}");
            ensure!(keys(&children[&kind]) == ["m"], "{children}");
            ensure!(children["ConfigMap.v1"][&key]["data"]["x"] == x, "{children}");
            ensure!(children[&kind]["m"]["spec"]["x"] == x, "{children}");
            Ok(())
        };
        scene.ctx.wait(&format!("{version}: the hook is sent both children"), SOON, ask).await
    };
    seen("v1", "1").await?;
    scene.wants("p", children("2")).await?;
    seen("v1", "2").await?;
    let v2 = json!({ "spec": { "hooks": { "sync": { "version": "v2" } } } });
    scene.ctx.admin.patch_merge(&composites(), &scene.ctx.controller_name("c"), &v2).await?;
    seen("v2", "2").await
}

/// The Service is there as far as the name goes: what would be called there is another hook.
async fn by_url(ctx: Context) -> anyhow::Result<()> {
    let other = Hook::start(obey)?;
    let args = ["hook.shop", "hook.shop.svc"].map(|host| format!("--hook-resolve={host}:8080={}", other.address()));
    let scene = Scene::with_args(ctx, &args).await?;
    let service = json!({ "name": "hook", "namespace": "shop", "port": 8080 });
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["sync"]["webhook"] = json!({ "url": scene.hook.url("/url"), "service": service, "path": "/path" });
    let made = declare(&scene, &composites(), "c", spec).await?;
    for field in ["service", "path"] {
        let field = format!("spec.hooks.sync.webhook.{field}: has no effect beside webhook.url");
        scene.event(&made, "Ignored", &[&field]).await?;
    }
    scene.thing("p", json!({ "children": [config_map("a", json!({}))] })).await?;
    scene.map("a", "is made", |_| Ok(())).await?;
    for call in scene.hook.calls() {
        ensure!(call.path == "/url", "{}", call.path);
    }
    ensure!(other.count() == 0, "the Service was called {} times", other.count());
    // It is the Service that is called once there is no URL.
    let without = json!({ "spec": { "hooks": { "sync": { "webhook": { "url": null } } } } });
    scene.ctx.admin.patch_merge(&composites(), &scene.ctx.controller_name("c"), &without).await?;
    let ask = async || {
        let call = other.calls().into_iter().next().context("not called")?;
        ensure!(call.path == "/path", "{}", call.path);
        Ok(())
    };
    scene.ctx.wait("the Service is called", SOON, ask).await
}

async fn codes(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|request, _| {
        let code = request["parent"]["spec"]["code"].as_u64().and_then(|code| code.try_into().ok());
        Reply::status(code.unwrap_or(500)).body(json!({ "children": [config_map("a", json!({}))] }).to_string())
    });
    declare(&scene, &composites(), "c", scene.spec("InPlace")).await?;
    let mark = scene.ctx.mark()?;
    for code in [201, 202, 203, 206, 304, 412, 404] {
        let body = json!({ "metadata": { "name": format!("p{code}") }, "spec": { "code": code } });
        let thing = scene.ctx.admin.create(&scene.things, body).await?;
        scene.event(&thing, "SyncError", &[&code.to_string()]).await?;
    }
    nothing_written(&scene, mark).await?;
    // Tried again, until it is 200.
    scene.ctx.admin.patch_merge(&scene.things, "p201", &json!({ "spec": { "code": 200 } })).await?;
    scene.map("a", "is made", |_| Ok(())).await.map(drop)
}

async fn later(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|request, info| match &request["parent"]["spec"]["retryAfter"] {
        Value::Null => obey(request, info),
        Value::String(text) if text == "soon" => match soon() {
            Some(date) => Reply::status(429).header("retry-after", &date),
            None => Reply::status(500),
        },
        Value::String(text) => Reply::status(429).header("retry-after", text),
        _ => Reply::status(429),
    });
    declare(&scene, &composites(), "c", scene.spec("InPlace")).await?;
    let mut made = Vec::new();
    for (name, retry_after) in [
        ("seconds", json!("1")),
        ("date", json!("Fri, 31 Dec 2100 23:59:59 GMT")),
        ("soon", json!("soon")),
        // No time at all: Metacontroller calls again at once, and again.
        ("none", json!(false)),
    ] {
        let spec = json!({ "retryAfter": retry_after, "reply": { "children": [config_map(name, json!({}))] } });
        made.push(scene.ctx.admin.create(&scene.things, json!({ "metadata": { "name": name }, "spec": spec })).await?);
    }
    scene.called("seconds", 5).await?;
    scene.called("soon", 2).await?;
    scene.called("none", 3).await?;
    let seconds = scene.hook.calls_for(&scene.key("seconds"));
    apart(&seconds, Duration::from_secs(1))?;
    // Pauses that double would be at eight seconds.
    let last = seconds[4].started - seconds[3].started;
    ensure!(last < Duration::from_secs(4), "the fourth pause of a second took {last:?}");
    apart(&scene.hook.calls_for(&scene.key("soon")), Duration::from_secs(2))?;
    apart(&scene.hook.calls_for(&scene.key("none")), Duration::from_millis(50))?;
    ensure!(scene.calls("date") == 1, "{} calls before that date", scene.calls("date"));
    for thing in &made {
        let events = scene.ctx.events_for(thing).await?;
        ensure!(events.iter().all(|event| event["reason"] != "SyncError"), "{events:?}");
        // What is put off several times in a row is told as such.
        ensure!(thing["metadata"]["name"] != "date" || events.is_empty(), "{events:?}");
    }
    for name in ["seconds", "date", "soon", "none"] {
        scene.ctx.admin.patch_merge(&scene.things, name, &json!({ "spec": { "retryAfter": null } })).await?;
        scene.map(name, "is made", |_| Ok(())).await?;
    }
    Ok(())
}

async fn status(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(by_text);
    declare(&scene, &composites(), "c", scene.spec("InPlace")).await?;
    let spec = json!({ "text": "{}" });
    scene.ctx.admin.create(&scene.things, json!({ "metadata": { "name": "p" }, "spec": spec })).await?;
    for (generation, (text, mut wanted)) in [
        (r"{}", json!({})),
        (r#"{"status":{"a":1,"b":{"c":[1,2]}}}"#, json!({ "a": 1, "b": { "c": [1, 2] } })),
        (r#"{"status":{"b":{"c":[2]},"observedGeneration":99}}"#, json!({ "b": { "c": [2] } })),
        (r#"{"status":null}"#, json!({})),
    ]
    .into_iter()
    .enumerate()
    {
        if generation > 0 {
            // What somebody else wrote goes as well.
            scene.ctx.admin.patch_status(&scene.things, "p", &json!({ "status": { "theirs": 1 } })).await?;
            says(&scene, text).await?;
        }
        wanted["observedGeneration"] = (generation + 1).into();
        let ask = async || {
            let thing = scene.ctx.admin.get(&scene.things, "p").await?;
            ensure!(thing["status"] == wanted, "{} instead of {wanted}", thing["status"]);
            Ok(())
        };
        scene.ctx.wait(&format!("the status follows {text}"), SOON, ask).await?;
    }
    Ok(())
}

async fn resync(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    declare(&scene, &composites(), "c", scene.spec("InPlace")).await?;
    scene.thing("p", json!({ "status": { "x": 1 }, "resyncAfterSeconds": 0.5 })).await?;
    scene.called("p", 8).await?;
    // The first ones are due to its own status.
    apart(&scene.hook.calls_for(&scene.key("p"))[4..], Duration::from_millis(500))?;
    scene.wants("p", json!({ "resyncAfterSeconds": 0 })).await?;
    scene.synced("p").await?;
    scene.quiet().await?;
    scene.no_call("nothing more is asked for").await
}

async fn modes(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    for (number, (version, mode, is_taken)) in [
        (Value::Null, Value::Null, true),
        (json!("v1"), json!("strict"), false),
        (json!("v2"), Value::Null, false),
        (json!("v2"), json!("loose"), true),
    ]
    .into_iter()
    .enumerate()
    {
        let name = format!("m{number}");
        let mut spec = scene.spec("InPlace");
        spec["parentResource"]["labelSelector"] = json!({ "matchLabels": { "mode": name } });
        if !version.is_null() {
            spec["hooks"]["sync"]["version"] = version;
        }
        if !mode.is_null() {
            spec["hooks"]["sync"]["webhook"]["responseUnMarshallMode"] = mode;
        }
        declare(&scene, &composites(), &name, spec).await?;
        let reply = json!({ "extra": 1, "children": [config_map(&name, json!({}))] });
        let metadata = json!({ "name": name, "labels": { "mode": name } });
        let body = json!({ "metadata": metadata, "spec": { "reply": reply } });
        let thing = scene.ctx.admin.create(&scene.things, body).await?;
        if is_taken {
            scene.map(&name, "is made", |_| Ok(())).await?;
        } else {
            scene.event(&thing, "SyncError", &["extra: unknown field"]).await?;
            ensure!(scene.ctx.admin.find(&scene.maps, &name).await?.is_none(), "{name} is there");
        }
    }
    Ok(())
}
