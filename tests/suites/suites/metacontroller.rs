//! Metacontroller's objects, with nothing but Metacontroller's own CRDs in the cluster.
//!
//! The whole contract is for a suite of its own; here is the main job under that API group.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::cluster::Context;
use crate::hook::{Hook, Reply};
use crate::objects::Resource;
use crate::process::Ringmaster;
use crate::trial::Case;
use crate::wait;
use crate::website::{Kinds, reply};

const SOON: Duration = Duration::from_secs(20);
const QUIET: Duration = Duration::from_secs(2);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("metacontroller", "a_composite_runs_with_its_own_crds_alone", runs).own_server(),
        Case::new("metacontroller", "a_parent_is_finalized_under_its_own_finalizer", finalizes),
        Case::new("metacontroller", "a_parent_is_synced_with_what_it_is_related_to", customizes),
        Case::new("metacontroller", "what_is_not_there_yet_is_told", told),
    ]
}

fn controllers() -> Resource {
    Resource::new("metacontroller.k8s.io/v1alpha1", "CompositeController", "compositecontrollers", None)
}

async fn runs(ctx: Context) -> anyhow::Result<()> {
    let crds = Resource::new("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", None);
    ctx.admin.delete(&crds, "compositecontrollers.ringmaster.dev").await?;
    ctx.wait("our own CRD is gone", SOON, async || {
        ensure!(ctx.admin.find(&crds, "compositecontrollers.ringmaster.dev").await?.is_none());
        Ok(())
    })
    .await?;

    let kinds = Kinds::install(&ctx).await?;
    let hook = Hook::start(|request, _| reply(request))?;
    // Metacontroller's own arguments, in the forms that Go's flag package takes.
    let ringmaster = Ringmaster::build(&ctx)
        .arg("--zap-log-level=4")
        .arg("-discovery-interval=20s")
        .arg("--cache-flush-interval=30m")
        .arg("--client-go-qps=-1")
        .arg("--leader-election")
        .arg("--leader-election-id=metacontroller")
        .arg(format!("--hook-resolve=hook.shop:8080={}", hook.address()))
        .arg(format!("--hook-resolve=hook.shop.svc:8080={}", hook.address()))
        .start()?;
    let mut spec = kinds.spec("");
    spec["hooks"]["sync"] = json!({ "webhook": {
        "service": { "name": "hook", "namespace": "shop", "port": 8080 }, "path": "/sync", "timeout": "5s" } });
    let metadata = json!({ "name": ctx.controller_name("website"), "labels": { "suite": ctx.id } });
    let created = ctx.admin.create(&controllers(), json!({ "metadata": metadata, "spec": spec })).await?;
    ctx.admin.create(&kinds.websites, Kinds::website("a", "A")).await?;
    let website = ctx
        .wait("the website is ready", SOON, async || {
            let website = ctx.admin.get(&kinds.websites, "a").await?;
            ensure!(website["status"]["phase"] == "Ready", "{}", website["status"]);
            Ok(website)
        })
        .await?;
    ensure!(website["status"]["observedGeneration"] == 1, "{}", website["status"]);
    // Create and Pending; all observed and Ready; and once more because its own status write is a change.
    wait::stays("three calls", QUIET, async || {
        ensure!((2..=3).contains(&hook.count()), "{} calls", hook.count());
        Ok(())
    })
    .await?;
    ensure!(hook.count() == 3, "{} calls: its own status write must lead to one more", hook.count());

    let request = hook.calls().last().context("no call")?.request.clone();
    ensure!(request["controller"]["apiVersion"] == "metacontroller.k8s.io/v1alpha1", "{request}");
    ensure!(request["children"]["ConfigMap.v1"]["a"]["kind"] == "ConfigMap", "v1 keys are bare names: {request}");
    let configmap = ctx.admin.get(&kinds.children[0], "a").await?;
    let annotations = &configmap["metadata"]["annotations"];
    ensure!(annotations["metacontroller.k8s.io/last-applied-configuration"].is_string(), "{annotations}");
    ensure!(annotations.get("ringmaster.dev/last-applied-configuration").is_none(), "{annotations}");
    let controller = ctx.admin.get(&controllers(), &ctx.controller_name("website")).await?;
    ensure!(controller["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"], "{controller}");

    // A write of somebody else's to the status is a change too, in this group.
    let before = hook.count();
    ctx.admin.patch_status(&kinds.websites, "a", &json!({ "status": { "phase": "Odd" } })).await?;
    ctx.wait("the status is put right", SOON, async || {
        ensure!(ctx.admin.get(&kinds.websites, "a").await?["status"]["phase"] == "Ready");
        ensure!(hook.count() > before);
        Ok(())
    })
    .await?;
    ensure!(ringmaster.stop().await?.success());
    Ok(())
}

/// A parent that has the finalizer already, as Metacontroller leaves it, and one that gets it.
async fn finalizes(ctx: Context) -> anyhow::Result<()> {
    let kinds = Kinds::install(&ctx).await?;
    let finalizer = format!("metacontroller.io/compositecontroller-{}", ctx.controller_name("website"));
    let mut known = Kinds::website("a", "A");
    known["metadata"]["finalizers"] = json!([finalizer]);
    ctx.admin.create(&kinds.websites, known).await?;
    ctx.admin.create(&kinds.websites, Kinds::website("b", "B")).await?;
    let hook = Hook::start(|request, info| {
        if info.path == "/finalize" {
            // What there is goes first.
            let left =
                request["children"].as_object().is_some_and(|kinds| kinds.values().any(|kind| kind != &json!({})));
            Reply::json(&json!({ "children": [], "status": { "phase": "Going" }, "finalized": !left }))
        } else {
            reply(request)
        }
    })?;
    let ringmaster = Ringmaster::start(&ctx)?;
    let mut spec = kinds.spec(&hook.url("/sync"));
    spec["hooks"]["finalize"] = json!({ "webhook": { "url": hook.url("/finalize") } });
    let metadata = json!({ "name": ctx.controller_name("website"), "labels": { "suite": ctx.id } });
    ctx.admin.create(&controllers(), json!({ "metadata": metadata, "spec": spec })).await?;
    for name in ["a", "b"] {
        ctx.wait("the website is ready", SOON, async || {
            let website = ctx.admin.get(&kinds.websites, name).await?;
            ensure!(website["status"]["phase"] == "Ready", "{}", website["status"]);
            ensure!(website["metadata"]["finalizers"] == json!([finalizer]), "{website}");
            Ok(())
        })
        .await?;
    }
    ensure!(hook.calls().iter().all(|call| call.path == "/sync" && call.request["finalizing"] == false));
    for name in ["a", "b"] {
        ctx.admin.delete(&kinds.websites, name).await?;
        ctx.wait("the website is gone", SOON, async || {
            ensure!(ctx.admin.find(&kinds.websites, name).await?.is_none(), "{name} is there");
            Ok(())
        })
        .await?;
        for child in &kinds.children {
            ensure!(ctx.admin.find(child, name).await?.is_none(), "{} {name} is there", child.kind);
        }
    }
    let last = hook.calls().last().context("no call")?.clone();
    ensure!(last.path == "/finalize" && last.request["finalizing"] == true, "{}: {}", last.path, last.request);
    ensure!(ringmaster.stop().await?.success());
    Ok(())
}

/// Related objects under hook version v1: bare names, of the parent's namespace alone.
async fn customizes(ctx: Context) -> anyhow::Result<()> {
    let kinds = Kinds::install(&ctx).await?;
    let map = |value: &str| json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "theme" }, "data": { "v": value } });
    ctx.admin.create(&ctx.configmaps(), map("1")).await?;
    ctx.admin.create(&kinds.websites, Kinds::website("a", "A")).await?;
    let hook = Hook::start(|request, info| {
        if info.path == "/customize" {
            let rules = json!([{ "apiVersion": "v1", "resource": "configmaps", "names": ["theme"] }]);
            return Reply::json(&json!({ "relatedResources": rules, "more": 1 }));
        }
        reply(request)
    })?;
    let ringmaster = Ringmaster::start(&ctx)?;
    let mut spec = kinds.spec(&hook.url("/sync"));
    spec["hooks"]["customize"] = json!({ "webhook": { "url": hook.url("/customize") } });
    let metadata = json!({ "name": ctx.controller_name("website"), "labels": { "suite": ctx.id } });
    ctx.admin.create(&controllers(), json!({ "metadata": metadata, "spec": spec })).await?;
    for value in ["1", "2"] {
        ctx.admin.patch_merge(&ctx.configmaps(), "theme", &json!({ "data": { "v": value } })).await?;
        ctx.wait("the hook is sent what the parent is related to", SOON, async || {
            let calls = hook.calls();
            let last = calls.iter().rfind(|call| call.path == "/sync").context("no sync")?;
            let related = &last.request["related"];
            ensure!(related["ConfigMap.v1"]["theme"]["data"]["v"] == value, "{related}");
            ensure!(related.as_object().is_some_and(|kinds| kinds.len() == 1), "{related}");
            Ok(())
        })
        .await?;
    }
    let customize = hook.calls().into_iter().find(|call| call.path == "/customize").context("no customize call")?;
    let fields: Vec<&String> = customize.request.as_object().into_iter().flat_map(serde_json::Map::keys).collect();
    ensure!(fields == ["controller", "parent"], "{fields:?}");
    ensure!(ringmaster.stop().await?.success());
    Ok(())
}

async fn told(ctx: Context) -> anyhow::Result<()> {
    let kinds = Kinds::install(&ctx).await?;
    let _ringmaster = Ringmaster::start(&ctx)?;
    let mut spec = kinds.spec("http://127.0.0.1:1/sync");
    spec["hooks"]["customize"] = json!({ "version": "v3", "webhook": { "url": "http://127.0.0.1:1/customize" } });
    let metadata = json!({ "name": ctx.controller_name("website"), "labels": { "suite": ctx.id } });
    let created = ctx.admin.create(&controllers(), json!({ "metadata": metadata, "spec": spec })).await?;
    ctx.wait("an event names the field", SOON, async || {
        let events = ctx.events_for(&created).await?;
        let told = events.iter().find(|event| event["reason"] == "CreateError").context("no CreateError yet")?;
        let message = told["message"].as_str().unwrap_or_default();
        ensure!(message.contains("spec.hooks.customize.version"), "{message}");
        Ok(())
    })
    .await
}
