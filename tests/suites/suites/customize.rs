//! The customize hook: which objects parents are synced with, when the hook is asked, and when its parents are synced.
//!
//! Never about how replies are read: pure tests beside the code do that.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cluster::Context;
use crate::hook::{CallInfo, Reply};
use crate::objects::Resource;
use crate::process::{Build, Ringmaster};
use crate::scrape::{Scrape, free_port};
use crate::server::audit::AuditEntry;
use crate::suites::scene::{LATER, SOON, Scene, config_map};
use crate::trial::Case;

/// Leases that lapse soon.
const TERMS: [&str; 3] = ["--lease-duration=5s", "--renew-deadline=2s", "--retry-period=500ms"];

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("customize", "named_objects_and_their_changes", named),
        Case::new("customize", "labels_elsewhere_and_cluster_scoped_kinds", elsewhere),
        Case::new("customize", "v1_stays_in_the_parents_namespace", first_version),
        Case::new("customize", "labels_of_namespaces", namespaces),
        Case::new("customize", "the_hook_is_asked_when_its_answer_may_change", asked),
        Case::new("customize", "rules_that_cannot_be_followed_are_told", refused),
        Case::new("customize", "a_hook_that_fails_holds_the_sync_back", fails),
        Case::new("customize", "a_parent_that_is_finalized_has_them_too", finalized),
        Case::new("customize", "many_names_share_a_watch", many),
        Case::new("customize", "two_members_and_one_that_is_killed", sharded),
    ]
}

/// The customize hook says what the parent's `spec.related` does; the sync hook makes a child whose data are the names and
/// values of what it was sent.
pub(super) fn obey(request: &Value, info: &CallInfo) -> Reply {
    let spec = &request["parent"]["spec"];
    if info.path == "/customize" {
        let is_whole = request["controller"]["kind"] == "CompositeController" && request["children"].is_null();
        return if is_whole {
            Reply::json(&json!({ "relatedResources": spec["related"] }))
        } else {
            Reply::status(500)
        };
    }
    let mut seen = serde_json::Map::new();
    for (kind, objects) in request["related"].as_object().into_iter().flatten() {
        seen.insert(format!("kind.{}", kind.replace('/', "_")), "".into());
        for (name, object) in objects.as_object().into_iter().flatten() {
            let value = object["data"]["v"].as_str().unwrap_or("-");
            seen.insert(format!("{}.{}", object["kind"].as_str().unwrap_or("?"), name.replace('/', "_")), value.into());
        }
    }
    let children = json!([config_map(
        &format!("{}-seen", request["parent"]["metadata"]["name"].as_str().unwrap_or("?")),
        Value::Object(seen)
    )]);
    Reply::json(&json!({ "children": children, "finalized": request["children"]["ConfigMap.v1"] != json!({}) }))
}

async fn scene(ctx: Context, version: &str) -> anyhow::Result<Scene> {
    declared(Scene::new(ctx).await?, version).await
}

pub(super) async fn declared(scene: Scene, version: &str) -> anyhow::Result<Scene> {
    scene.hook.set(obey);
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["customize"] = json!({ "version": version, "webhook": { "url": scene.hook.url("/customize") } });
    scene.ctx.controller("c", spec).await?;
    Ok(scene)
}

fn calls(scene: &Scene, path: &str) -> usize {
    scene.hook.calls_for(&scene.key("p")).iter().filter(|call| call.path == path).count()
}

async fn parent(scene: &Scene, related: Value) -> anyhow::Result<Value> {
    scene.ctx.admin.create(&scene.things, json!({ "metadata": { "name": "p" }, "spec": { "related": related } })).await
}

/// Something to be related to, with labels and a value.
pub(super) async fn thing(scene: &Scene, name: &str, labels: Value, value: &str) -> anyhow::Result<Value> {
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": labels }, "data": { "v": value } });
    scene.ctx.admin.create(&scene.maps, map).await
}

/// Waits until the parent was synced with these names and values, and no others.
async fn seen(scene: &Scene, wanted: Value) -> anyhow::Result<()> {
    let check = |map: &Value| {
        let nothing = wanted == json!({}) && map["data"].is_null();
        ensure!(nothing || map["data"] == wanted, "{} instead of {wanted}", map["data"]);
        Ok(())
    };
    scene.map("p-seen", "shows what was sent", check).await.map(drop)
}

pub(super) fn rule(rest: Value) -> Value {
    let mut rule = json!({ "apiVersion": "v1", "resource": "configmaps" });
    if let (Some(rule), Some(rest)) = (rule.as_object_mut(), rest.as_object()) {
        rule.extend(rest.clone());
    }
    rule
}

async fn named(ctx: Context) -> anyhow::Result<()> {
    let port = free_port()?;
    let scene = Scene::with_args(ctx, &[format!("--metrics-address=127.0.0.1:{port}")]).await?;
    let scene = declared(scene, "v2").await?;
    let home = scene.ctx.namespace.clone();
    let key = |name: &str| format!("ConfigMap.{home}_{name}");
    parent(&scene, json!([rule(json!({ "namespace": home, "names": ["one", "two"] }))])).await?;
    seen(&scene, json!({ "kind.ConfigMap.v1": "" })).await?;
    // What comes, changes and goes.
    thing(&scene, "one", json!({}), "1").await?;
    seen(&scene, json!({ "kind.ConfigMap.v1": "", key("one"): "1" })).await?;
    thing(&scene, "two", json!({}), "2").await?;
    scene.ctx.admin.patch_merge(&scene.maps, "one", &json!({ "data": { "v": "11" } })).await?;
    seen(&scene, json!({ "kind.ConfigMap.v1": "", key("one"): "11", key("two"): "2" })).await?;
    scene.ctx.admin.delete(&scene.maps, "two").await?;
    seen(&scene, json!({ "kind.ConfigMap.v1": "", key("one"): "11" })).await?;
    scene.quiet().await?;
    ensure!(calls(&scene, "/customize") == 1, "{} customize calls", calls(&scene, "/customize"));
    // What isn't named leads to nothing.
    thing(&scene, "three", json!({}), "3").await?;
    scene.no_call("nobody is related to it").await?;
    // A parent that asks for something else lets go of what it had.
    let spec = json!({ "spec": { "related": [rule(json!({ "namespace": home, "names": ["three"] }))] } });
    scene.ctx.admin.patch_merge(&scene.things, "p", &spec).await?;
    seen(&scene, json!({ "kind.ConfigMap.v1": "", key("three"): "3" })).await?;
    scene.quiet().await?;
    scene.ctx.admin.patch_merge(&scene.maps, "one", &json!({ "data": { "v": "111" } })).await?;
    scene.no_call("it isn't related any more").await?;
    scene.ctx.admin.delete(&scene.things, "p").await?;
    let gone = async || {
        let scrape = Scrape::of(&format!("http://127.0.0.1:{port}/metrics"))?;
        let watches = scrape.sum("ringmaster_related_watches", &[]);
        ensure!(watches == 0.0, "{watches} watches");
        Ok(())
    };
    scene.ctx.wait("nothing is watched for nobody", SOON, gone).await
}

async fn elsewhere(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx, "v2").await?;
    let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
    scene.ctx.grant(&Context::rules_for(&[&namespaces])).await?;
    let (mark, other) = (scene.ctx.id.clone(), format!("{}-2", scene.ctx.id));
    let there = scene.ctx.configmaps().in_namespace(Some(&other));
    let namespace =
        json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": other, "labels": { "mark": mark } } });
    scene.ctx.admin.create(&namespaces, namespace).await?;
    let labels = json!({ "matchExpressions": [{ "key": "mark", "operator": "In", "values": [mark] }] });
    let rules = json!([
        rule(json!({ "labelSelector": labels })),
        { "apiVersion": "v1", "resource": "namespaces", "labelSelector": labels },
        { "apiVersion": "v1", "resource": "namespaces", "names": ["kube-system"] },
    ]);
    parent(&scene, rules).await?;
    let with = |maps: Value| {
        let mut all = json!({ "kind.ConfigMap.v1": "", "kind.Namespace.v1": "", "Namespace.kube-system": "-" });
        all[format!("Namespace.{other}")] = "-".into();
        if let (Some(all), Some(maps)) = (all.as_object_mut(), maps.as_object()) {
            all.extend(maps.clone());
        }
        all
    };
    seen(&scene, with(json!({}))).await?;
    let map = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "far", "labels": { "mark": mark } }, "data": { "v": "1" } });
    scene.ctx.admin.create(&there, map).await?;
    seen(&scene, with(json!({ format!("ConfigMap.{other}_far"): "1" }))).await?;
    // Out of the selection, and back.
    let label = |value: Value| json!({ "metadata": { "labels": { "mark": value } } });
    scene.ctx.admin.patch_merge(&there, "far", &label(Value::Null)).await?;
    seen(&scene, with(json!({}))).await?;
    scene.ctx.admin.patch_merge(&there, "far", &label(mark.clone().into())).await?;
    seen(&scene, with(json!({ format!("ConfigMap.{other}_far"): "1" }))).await?;
    scene.ctx.admin.delete(&namespaces, &other).await.map(drop)
}

async fn first_version(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx, "v1").await?;
    let labels = json!({ "matchLabels": { "is": "related" } });
    let rules = json!([
        rule(json!({ "labelSelector": labels })),
        { "apiVersion": "v1", "resource": "namespaces", "labelSelector": {} },
    ]);
    parent(&scene, rules).await?;
    thing(&scene, "near", labels["matchLabels"].clone(), "1").await?;
    // The sync hook is v2 here: each hook has its own version. Of cluster-scoped kinds nothing is seen.
    let key = format!("ConfigMap.{}_near", scene.ctx.namespace);
    seen(&scene, json!({ "kind.ConfigMap.v1": "", "kind.Namespace.v1": "", key: "1" })).await?;
    let away = json!({ "spec": { "related": [rule(json!({ "namespace": "elsewhere" }))] } });
    let parent = scene.ctx.admin.patch_merge(&scene.things, "p", &away).await?;
    let words = ["relatedResources[0].namespace: is elsewhere", "use v2", "/customize"];
    scene.event(&parent, "SyncError", &words).await.map(drop)
}

async fn namespaces(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx, "v2").await?;
    let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
    scene.ctx.grant(&Context::rules_for(&[&namespaces])).await?;
    let mark = scene.ctx.id.clone();
    let rules = json!([rule(json!({
        "namespaceSelector": { "matchLabels": { "mark": mark } },
        "labelSelector": { "matchLabels": { "is": "related" } },
    }))]);
    parent(&scene, rules).await?;
    thing(&scene, "near", json!({ "is": "related" }), "1").await?;
    seen(&scene, json!({ "kind.ConfigMap.v1": "" })).await?;
    scene.quiet().await?;
    let label = |value: Value| json!({ "metadata": { "labels": { "mark": value } } });
    let home = scene.ctx.namespace.clone();
    scene.ctx.admin.patch_merge(&namespaces, &home, &label(mark.clone().into())).await?;
    seen(&scene, json!({ "kind.ConfigMap.v1": "", format!("ConfigMap.{home}_near"): "1" })).await?;
    scene.ctx.admin.patch_merge(&namespaces, &home, &label(Value::Null)).await?;
    seen(&scene, json!({ "kind.ConfigMap.v1": "" })).await?;
    // Another namespace's label leads to nothing.
    scene.quiet().await?;
    scene
        .ctx
        .admin
        .patch_merge(&namespaces, "kube-system", &json!({ "metadata": { "labels": { "x": mark } } }))
        .await?;
    scene.no_call("its labels decide nothing").await
}

async fn asked(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx, "v2").await?;
    let labels = json!({ "is": scene.ctx.id });
    parent(&scene, json!([rule(json!({ "labelSelector": { "matchLabels": labels } }))])).await?;
    seen(&scene, json!({ "kind.ConfigMap.v1": "" })).await?;
    let mut before = 1;
    for patch in [
        json!({ "metadata": { "labels": { "a": "b" } } }),
        json!({ "metadata": { "annotations": { "a": "b" } } }),
        json!({ "spec": { "more": 1 } }),
    ] {
        scene.quiet().await?;
        let (customizes, syncs) = (calls(&scene, "/customize"), calls(&scene, "/sync"));
        ensure!(customizes == before, "{customizes} customize calls instead of {before}");
        scene.ctx.admin.patch_merge(&scene.things, "p", &patch).await?;
        let synced = async || {
            ensure!(calls(&scene, "/sync") > syncs, "no sync");
            Ok(())
        };
        scene.ctx.wait(&format!("{patch} is synced"), SOON, synced).await?;
        before += 1;
    }
    thing(&scene, "one", labels, "1").await?;
    scene.quiet().await?;
    ensure!(calls(&scene, "/customize") == before, "{} customize calls", calls(&scene, "/customize"));
    Ok(())
}

async fn refused(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx, "v2").await?;
    let made = parent(&scene, json!([])).await?;
    seen(&scene, json!({})).await?;
    let bad: [(Value, &[&str]); 6] = [
        (
            json!([{ "apiVersion": "v1", "resource": "secrets" }]),
            &["related secrets can't be watched", "grant get, list and watch on secrets"],
        ),
        (
            json!([rule(json!({ "names": ["a"], "labelSelector": {} }))]),
            &["relatedResources[0].labelSelector", "names"],
        ),
        (
            json!([rule(json!({})), { "apiVersion": "v1", "resource": "nothings" }]),
            &["relatedResources[1].resource", "nothings in v1"],
        ),
        (json!([{ "apiVersion": "v1/../..", "resource": "configmaps" }]), &["relatedResources[0].apiVersion"]),
        (json!({ "a": 1 }), &["relatedResources: must be a list"]),
        (
            json!([{ "apiVersion": "v1", "resource": "configmaps", "selector": {} }]),
            &["relatedResources[0].selector", "unknown"],
        ),
    ];
    for (related, words) in bad {
        scene.quiet().await?;
        let syncs = calls(&scene, "/sync");
        scene.ctx.admin.patch_merge(&scene.things, "p", &json!({ "spec": { "related": related } })).await?;
        scene.event(&made, "SyncError", words).await?;
        ensure!(calls(&scene, "/sync") == syncs, "the sync hook was called");
    }
    scene.ctx.admin.patch_merge(&scene.things, "p", &json!({ "spec": { "related": [] } })).await?;
    scene.event(&made, "SyncRecovered", &[]).await.map(drop)
}

async fn fails(ctx: Context) -> anyhow::Result<()> {
    let scene = scene(ctx, "v2").await?;
    scene.hook.set(|request, info| if info.path == "/customize" { Reply::status(500) } else { obey(request, info) });
    let made = parent(&scene, json!([])).await?;
    scene.event(&made, "SyncError", &["500", "/customize"]).await?;
    ensure!(calls(&scene, "/sync") == 0, "the sync hook was called");
    scene.hook.set(obey);
    seen(&scene, json!({})).await?;
    scene.event(&made, "SyncRecovered", &[]).await.map(drop)
}

async fn finalized(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(obey);
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["customize"] = json!({ "webhook": { "url": scene.hook.url("/customize") } });
    spec["hooks"]["finalize"] = json!({ "webhook": { "url": scene.hook.url("/finalize") } });
    scene.ctx.controller("c", spec).await?;
    thing(&scene, "one", json!({}), "1").await?;
    parent(&scene, json!([rule(json!({ "namespace": scene.ctx.namespace, "names": ["one"] }))])).await?;
    seen(&scene, json!({ "kind.ConfigMap.v1": "", format!("ConfigMap.{}_one", scene.ctx.namespace): "1" })).await?;
    scene.ctx.admin.delete(&scene.things, "p").await?;
    let gone = async || {
        ensure!(scene.ctx.admin.find(&scene.things, "p").await?.is_none(), "it is there");
        Ok(())
    };
    scene.ctx.wait("the parent goes", LATER, gone).await?;
    let calls = scene.hook.calls_for(&scene.key("p"));
    let last = calls.iter().rfind(|call| call.path == "/finalize").context("no finalize call")?;
    ensure!(last.request["related"]["ConfigMap.v1"].as_object().is_some_and(|all| all.len() == 1), "{}", last.request);
    Ok(())
}

/// Names beyond the narrow watches of one kind are seen all the same, by one watch of their namespace.
async fn many(ctx: Context) -> anyhow::Result<()> {
    const NAMES: usize = 100;
    let scene = scene(ctx, "v2").await?;
    let names: Vec<String> = (0..NAMES).map(|at| format!("n{at:03}")).collect();
    let mark = scene.ctx.mark()?;
    parent(&scene, json!([rule(json!({ "namespace": scene.ctx.namespace, "names": names }))])).await?;
    seen(&scene, json!({ "kind.ConfigMap.v1": "" })).await?;
    let key = |name: &str| format!("ConfigMap.{}_{name}", scene.ctx.namespace);
    for name in ["n000", "n099"] {
        thing(&scene, name, json!({}), name).await?;
    }
    seen(&scene, json!({ "kind.ConfigMap.v1": "", key("n000"): "n000", key("n099"): "n099" })).await?;
    let is_narrow = |uri: &str| uri.contains("configmaps") && uri.contains("metadata.name%3D");
    let requests = scene.ctx.requests(mark)?;
    let around = format!("/api/v1/namespaces/{}/configmaps?", scene.ctx.namespace);
    let is_wide =
        |entry: &AuditEntry| entry.verb == "watch" && entry.uri.starts_with(&around) && !is_narrow(&entry.uri);
    ensure!(requests.iter().any(is_wide), "their namespace isn't watched");
    let asked: std::collections::BTreeSet<String> = requests
        .into_iter()
        .map(|entry| entry.uri)
        .filter(|uri| is_narrow(uri))
        .filter_map(|uri| Some(uri.split("metadata.name%3D").nth(1)?.split('&').next()?.to_owned()))
        .collect();
    ensure!(asked.len() == 64, "{} names are watched by themselves", asked.len());
    Ok(())
}

/// Two members, each with half of the parents: all are synced when what they are related to changes, also after one is killed.
async fn sharded(ctx: Context) -> anyhow::Result<()> {
    const PARENTS: usize = 24;
    let mut flags: Vec<String> = TERMS.iter().map(|flag| (*flag).to_owned()).collect();
    flags.push(format!("--lease-namespace={}", ctx.namespace));
    let scene = Scene::with_args(ctx, &flags).await?;
    scene.hook.set(obey);
    let mut spec = scene.spec("InPlace");
    spec["sharding"] = json!({});
    spec["hooks"]["customize"] = json!({ "webhook": { "url": scene.hook.url("/customize") } });
    let related = json!([rule(json!({ "namespace": scene.ctx.namespace, "names": ["one"] }))]);
    for at in 0..PARENTS {
        let metadata = json!({ "name": format!("p{at:02}") });
        scene.ctx.admin.create(&scene.things, json!({ "metadata": metadata, "spec": { "related": related } })).await?;
    }
    thing(&scene, "one", json!({}), "1").await?;
    scene.ctx.controller("c", spec).await?;
    let key = format!("ConfigMap.{}_one", scene.ctx.namespace);
    let all = async |scene: &Scene, value: &str| {
        let ask = async || {
            for at in 0..PARENTS {
                let map = scene.ctx.admin.get(&scene.maps, &format!("p{at:02}-seen")).await?;
                ensure!(map["data"][&key] == value, "p{at:02}: {}", map["data"]);
            }
            Ok(())
        };
        scene.ctx.wait(&format!("all were sent {value}"), LATER, ask).await
    };
    all(&scene, "1").await?;
    let second = flags.into_iter().fold(Ringmaster::build(&scene.ctx), Build::arg).start()?;
    let members = |scene: &Scene| {
        let calls = scene.hook.calls();
        calls
            .iter()
            .map(|call| call.header("ringmaster-member").to_owned())
            .collect::<std::collections::BTreeSet<_>>()
            .len()
    };
    let both = async || {
        ensure!(members(&scene) == 2, "{} members called", members(&scene));
        Ok(())
    };
    scene.ctx.wait("the second has parents", LATER, both).await?;
    scene.ctx.admin.patch_merge(&scene.maps, "one", &json!({ "data": { "v": "2" } })).await?;
    all(&scene, "2").await?;
    second.kill()?;
    scene.ctx.admin.patch_merge(&scene.maps, "one", &json!({ "data": { "v": "3" } })).await?;
    all(&scene, "3").await?;
    let asked = scene.hook.calls().iter().filter(|call| call.path == "/customize").count();
    ensure!(asked <= 3 * PARENTS, "{asked} customize calls for {PARENTS} parents and two hand-overs");
    Ok(())
}
