//! Parity: the kinds of Metacontroller's group, and what the fields of its composites mean.
//!
//! Never about a field that is wrong: see `faults_settings`.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::faults_reply::nothing_written;
use super::metacontroller_scene::{Strategy, composites, declare, each, scene};
use super::scene::{SOON, Scene, config_map};
use crate::cluster::{Context, Scope};
use crate::hook::Reply;
use crate::objects::Resource;
use crate::trial::Case;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let mut cases = vec![
        Case::new("parity", "kinds_scopes_and_short_names", kinds),
        Case::new("parity", "parents_are_selected_and_synced_in_time", parents),
        Case::new("parity", "events_are_told_of_whom_they_concern", events),
        Case::new("metacontroller", "a_status_that_the_kind_does_not_keep", unkept),
    ];
    let named = ["selectors_are_strict_merged", "selectors_are_strict_applied"];
    cases.extend(each("parity", named, selectors));
    let named = ["namespaces_are_filled_in_merged", "namespaces_are_filled_in_applied"];
    cases.extend(each("parity", named, namespaces));
    cases
}

async fn kinds(ctx: Context) -> anyhow::Result<()> {
    let served = ctx.admin.get_path("/apis/metacontroller.k8s.io/v1alpha1").await?;
    let resources = served["resources"].as_array().context("no resources")?;
    let crds = Resource::new("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", None);
    for (plural, kind, namespaced, short_names) in [
        ("compositecontrollers", "CompositeController", false, json!(["cc", "cctl"])),
        ("decoratorcontrollers", "DecoratorController", false, json!(["dec", "decorators"])),
        ("controllerrevisions", "ControllerRevision", true, Value::Null),
    ] {
        let found = resources.iter().find(|resource| resource["name"] == plural);
        let found = found.with_context(|| format!("{plural} isn't served: {served}"))?;
        ensure!(found["kind"] == kind && found["namespaced"] == namespaced, "{found}");
        ensure!(found["shortNames"] == short_names, "{found}");
        let status = format!("{plural}/status");
        let has_status = resources.iter().any(|resource| resource["name"] == status.as_str());
        ensure!(has_status != namespaced, "controllers have a status subresource, revisions don't: {served}");
        let crd = ctx.admin.get(&crds, &format!("{plural}.metacontroller.k8s.io")).await?;
        let approved = &crd["metadata"]["annotations"]["api-approved.kubernetes.io"];
        ensure!(approved.as_str().is_some_and(|text| text.starts_with("unapproved")), "{approved}");
        ensure!(crd["spec"]["versions"][0]["additionalPrinterColumns"].is_null(), "{crd}");
    }
    // A status that prunes: there is no room for conditions. Nobody runs it.
    let metadata = json!({ "name": ctx.controller_name("c"), "labels": { "suite": ctx.id } });
    let spec = json!({ "parentResource": { "apiVersion": "v1", "resource": "things" } });
    ctx.admin.create(&composites(), json!({ "metadata": metadata, "spec": spec })).await?;
    let status = json!({ "status": { "conditions": [{ "type": "Ready" }] } });
    let written = ctx.admin.patch_status(&composites(), &ctx.controller_name("c"), &status).await?;
    ensure!(written["status"]["conditions"].is_null(), "{written}");
    Ok(())
}

async fn parents(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let mut spec = scene.spec("InPlace");
    let not_tin = json!({ "matchExpressions": [{ "key": "tier", "operator": "NotIn", "values": ["tin"] }] });
    spec["parentResource"]["labelSelector"] = not_tin;
    spec["parentResource"]["ignoreStatusChanges"] = true.into();
    let made = declare(&scene, &composites(), "c", spec).await?;
    let tin = json!({ "metadata": { "name": "tin", "labels": { "tier": "tin" } }, "spec": {} });
    scene.ctx.admin.create(&scene.things, tin).await?;
    scene.thing("p", json!({})).await?;
    scene.synced("p").await?;
    scene.quiet().await?;
    ensure!(scene.calls("tin") == 0, "it isn't selected");
    scene.ctx.admin.patch_status(&scene.things, "p", &json!({ "status": { "odd": 1 } })).await?;
    scene.no_call("changes of the status are ignored").await?;
    let before = scene.calls("p");
    let note = json!({ "metadata": { "annotations": { "a": "b" } } });
    scene.ctx.admin.patch_merge(&scene.things, "p", &note).await?;
    scene.called("p", before + 1).await?;
    scene.quiet().await?;
    // Time passes all the same; less than a second is one.
    let name = scene.ctx.controller_name("c");
    scene.ctx.admin.patch_merge(&composites(), &name, &json!({ "spec": { "resyncPeriodSeconds": 0 } })).await?;
    scene.event(&made, "Ignored", &["spec.resyncPeriodSeconds", "1 is used"]).await?;
    let before = scene.calls("p");
    scene.called("p", before + 4).await?;
    let calls = scene.hook.calls_for(&scene.key("p"));
    // The first may be the start's. Half of two periods: a busy machine may show us a call late.
    let took = calls[before + 3].started - calls[before + 1].started;
    ensure!(took >= Duration::from_secs(1), "three calls within {took:?}");
    ensure!(scene.calls("tin") == 0, "it isn't selected");
    Ok(())
}

/// A kind whose status has no `observedGeneration`, nor all that the webhook says: that it isn't kept is no change.
async fn unkept(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let phase = json!({ "type": "object", "properties": { "phase": { "type": "string" } } });
    let schema = json!({
        "type": "object",
        "properties": { "spec": { "type": "object", "x-kubernetes-preserve-unknown-fields": true }, "status": phase },
    });
    let bare = scene.ctx.crd("Bare", "bares", Scope::Namespaced, Some(schema)).await?;
    scene.ctx.grant(&Context::rules_for(&[&bare])).await?;
    let scene = Scene { things: bare, ..scene };
    let controller = declare(&scene, &composites(), "c", scene.spec("InPlace")).await?;
    let reply = |phase: &str| json!({ "status": { "phase": phase, "more": { "is": "dropped" } } });
    let written = async |phase: &str| {
        let ask = async || {
            let bare = scene.ctx.admin.get(&scene.things, "p").await?;
            ensure!(bare["status"] == json!({ "phase": phase }), "{bare}");
            Ok(())
        };
        scene.ctx.wait("what it can keep is there", SOON, ask).await?;
        scene.quiet().await
    };
    let made = scene.thing("p", reply("One")).await?;
    let mark = scene.ctx.mark()?;
    written("One").await?;
    let calls = scene.calls("p");
    ensure!(calls <= 3, "{calls} calls");
    scene.event(&controller, "StatusDropped", &["status.more", "Bare", "isn't kept"]).await?;
    // What others write is put right, and then it rests again.
    scene.ctx.admin.patch_status(&scene.things, "p", &json!({ "status": { "phase": "Odd" } })).await?;
    written("One").await?;
    scene.wants("p", reply("Two")).await?;
    written("Two").await?;
    let more = scene.calls("p") - calls;
    ensure!(more <= 6, "{more} calls");
    let is_status = |uri: &str| uri.contains("/bares/p/status");
    let writes =
        scene.ctx.requests(mark)?.into_iter().filter(|entry| entry.verb == "patch" && is_status(&entry.uri)).count();
    // One of them is the trial's; of ours each is followed by one that shows that nothing is missing.
    ensure!((4..=7).contains(&writes), "{writes} writes of the status");
    ensure!(
        scene.ctx.events_for(&made).await?.iter().all(|event| event["reason"] != "AnswersDiffer"),
        "the hook was blamed"
    );
    Ok(())
}

async fn events(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(|_, _| Reply::status(500));
    let good = declare(&scene, &composites(), "good", scene.spec("InPlace")).await?;
    for reason in ["Starting", "Started"] {
        scene.event(&good, reason, &["Thing"]).await?;
    }
    let mut spec = scene.spec("InPlace");
    spec["hooks"] = json!({});
    let bad = declare(&scene, &composites(), "bad", spec).await?;
    scene.event(&bad, "CreateError", &["spec.hooks.sync"]).await?;
    let thing = scene.thing("p", json!({})).await?;
    scene.event(&thing, "SyncError", &["500"]).await?;
    // It begins anew with another spec.
    let name = scene.ctx.controller_name("good");
    scene.ctx.admin.patch_merge(&composites(), &name, &json!({ "spec": { "resyncPeriodSeconds": 60 } })).await?;
    for reason in ["Stopping", "Stopped"] {
        scene.event(&good, reason, &["Thing"]).await?;
    }
    let home = scene.ctx.namespace.clone();
    for (object, reason, kind, namespace) in [
        (&good, "Starting", "Normal", "default"),
        (&good, "Started", "Normal", "default"),
        (&good, "Stopping", "Normal", "default"),
        (&good, "Stopped", "Normal", "default"),
        (&bad, "CreateError", "Warning", "default"),
        (&thing, "SyncError", "Warning", home.as_str()),
    ] {
        let events = scene.ctx.events_for(object).await?;
        let of_reason: Vec<&Value> = events.iter().filter(|event| event["reason"] == reason).collect();
        let is_right = |event: &&Value| event["type"] == kind && event["metadata"]["namespace"] == namespace;
        ensure!(!of_reason.is_empty() && of_reason.iter().all(is_right), "{events:?}");
    }
    Ok(())
}

async fn selectors(ctx: Context, strategy: Strategy) -> anyhow::Result<()> {
    let scene = scene(ctx, Scope::Namespaced, strategy).await?;
    let mut spec = scene.spec("InPlace");
    spec["generateSelector"] = false.into();
    declare(&scene, &composites(), "c", spec).await?;
    let thing = async |name: &str, selector: Value, reply: Value| {
        let body = json!({ "metadata": { "name": name }, "spec": { "selector": selector, "reply": reply } });
        scene.ctx.admin.create(&scene.things, body).await
    };
    for (name, selector) in [("empty", json!({})), ("no-labels", json!({ "matchLabels": {} }))] {
        let made = thing(name, selector, json!({})).await?;
        scene.event(&made, "SyncError", &["spec.selector is empty"]).await?;
    }
    ensure!(scene.hook.count() == 0, "the hook was called for a parent with an empty selector");
    let labelled = |name: &str, app: &str| {
        let mut map = config_map(name, json!({ "x": "1" }));
        map["metadata"]["labels"] = json!({ "app": app });
        map
    };
    let selector = json!({ "matchExpressions": [{ "key": "app", "operator": "In", "values": ["x"] }] });
    let made = thing("p", selector, json!({ "children": [labelled("a", "x")] })).await?;
    scene.map("a", "is made", |_| Ok(())).await?;
    scene.synced("p").await?;
    scene.quiet().await?;
    // One of the two doesn't match: neither is made, and the first child isn't deleted.
    let mark = scene.ctx.mark()?;
    scene.wants("p", json!({ "children": [labelled("b", "x"), labelled("c", "y")] })).await?;
    scene.event(&made, "SyncError", &["children[1]", "metadata.labels"]).await?;
    nothing_written(&scene, mark).await
}

async fn namespaces(ctx: Context, strategy: Strategy) -> anyhow::Result<()> {
    let scene = scene(ctx, Scope::Namespaced, strategy).await?;
    declare(&scene, &composites(), "c", scene.spec("InPlace")).await?;
    // Read loosely, as v1 is: the last one of a name counts.
    let twice = json!([config_map("a", json!({ "x": "1" })), config_map("a", json!({ "x": "2" }))]);
    let made = scene.thing("p", json!({ "children": twice })).await?;
    let is_last = |map: &Value| {
        ensure!(map["data"]["x"] == "2", "{map}");
        Ok(())
    };
    let map = scene.map("a", "is as it stands last", is_last).await?;
    ensure!(map["metadata"]["labels"]["controller-uid"] == made["metadata"]["uid"], "{map}");
    scene.quiet().await?;
    let requests = scene.ctx.all_requests()?;
    let creates = requests.iter().filter(|request| request.verb == "create" && request.resource == "configmaps");
    ensure!(creates.count() == 1, "{requests:?}");
    let mark = scene.ctx.mark()?;
    let mut elsewhere = config_map("b", json!({}));
    elsewhere["metadata"]["namespace"] = "default".into();
    scene.wants("p", json!({ "children": [elsewhere] })).await?;
    scene.event(&made, "SyncError", &["children[0]", "metadata.namespace"]).await?;
    nothing_written(&scene, mark).await
}
