//! The main job: Websites become ready, stay so, and cost no more requests than they must.
//!
//! Never counts what isn't about parents and children: the controller's own status and events are left out by name.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cluster::Context;
use crate::hook::Hook;
use crate::process::Ringmaster;
use crate::server::audit::AuditEntry;
use crate::trial::Case;
use crate::wait;
use crate::website::{Kinds, reply};

/// How long a sync or two may take on a busy machine.
const SOON: Duration = Duration::from_secs(20);
/// Nothing more happens for this long.
const QUIET: Duration = Duration::from_secs(2);
/// The garbage collector finds new kinds within half a minute, and then has to look.
const COLLECTED: Duration = Duration::from_secs(90);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("main_job", "a_new_parent_converges_in_two_calls_and_five_writes", converges),
        Case::new("main_job", "a_sync_that_changes_nothing_makes_no_request", no_op),
        Case::new("main_job", "a_restart_writes_nothing", restart),
        Case::new("main_job", "changes_are_reconciled", changes),
        Case::new("main_job", "a_controller_that_loses_its_label_stops_and_comes_back", relabelled),
        Case::new("main_job", "hooks_get_what_the_protocol_says", protocol),
    ]
}

async fn ready(ctx: &Context, kinds: &Kinds, name: &str) -> anyhow::Result<Value> {
    ctx.wait(&format!("{name} is ready"), SOON, async || {
        let website = ctx.admin.get(&kinds.websites, name).await?;
        ensure!(website["status"]["phase"] == "Ready", "{}", website["status"]);
        Ok(website)
    })
    .await
}

/// The requests about parents and children that aren't watches.
fn about_objects(requests: Vec<AuditEntry>) -> Vec<AuditEntry> {
    let ours = ["websites", "configmaps", "services", "deployments"];
    requests.into_iter().filter(|r| ours.contains(&r.resource.as_str()) && r.verb != "watch").collect()
}

async fn converges(ctx: Context) -> anyhow::Result<()> {
    let kinds = Kinds::install(&ctx).await?;
    let hook = Hook::start(|request, _| reply(request))?;
    let ringmaster = Ringmaster::start(&ctx)?;
    ctx.controller("website", kinds.spec(&hook.url("/sync"))).await?;
    ringmaster.wait_log(&ctx, "started", SOON).await?;
    let mark = ctx.mark()?;
    ctx.admin.create(&kinds.websites, Kinds::website("a", "A")).await?;
    let website = ready(&ctx, &kinds, "a").await?;
    ensure!(website["status"]["observedGeneration"] == 1, "{}", website["status"]);
    wait::stays("no further call or write", QUIET, async || {
        ensure!(hook.count() == 2, "{} hook calls", hook.count());
        let requests = about_objects(ctx.requests(mark)?);
        let writes = requests.iter().filter(|request| request.is_write()).count();
        ensure!(writes == 5 && requests.len() == 5, "{writes} writes: {requests:?}");
        Ok(())
    })
    .await?;
    for kind in &kinds.children {
        let child = ctx.admin.get(kind, "a").await?;
        let owner = &child["metadata"]["ownerReferences"][0];
        ensure!(owner["uid"] == website["metadata"]["uid"] && owner["controller"] == true, "{owner}");
        ensure!(owner["blockOwnerDeletion"] == true && owner["kind"] == "Website", "{owner}");
        ensure!(child["metadata"]["labels"]["controller-uid"] == website["metadata"]["uid"], "{child}");
    }
    ensure!(ringmaster.stop().await?.success());
    Ok(())
}

async fn no_op(ctx: Context) -> anyhow::Result<()> {
    let kinds = Kinds::install(&ctx).await?;
    let hook = Hook::start(|request, _| reply(request))?;
    let _ringmaster = Ringmaster::start(&ctx)?;
    let mut spec = kinds.spec(&hook.url("/sync"));
    spec["resyncPeriodSeconds"] = json!(1);
    ctx.controller("website", spec).await?;
    for name in ["a", "b", "c"] {
        ctx.admin.create(&kinds.websites, Kinds::website(name, "T")).await?;
    }
    for name in ["a", "b", "c"] {
        ready(&ctx, &kinds, name).await?;
    }
    let mark = ctx.mark()?;
    let before = hook.count();
    ctx.wait("six resyncs", SOON, async || {
        ensure!(hook.count() >= before + 6, "{} calls", hook.count() - before);
        Ok(())
    })
    .await?;
    let requests = about_objects(ctx.requests(mark)?);
    ensure!(requests.is_empty(), "requests by syncs that change nothing: {requests:?}");
    Ok(())
}

async fn restart(ctx: Context) -> anyhow::Result<()> {
    let kinds = Kinds::install(&ctx).await?;
    let hook = Hook::start(|request, _| reply(request))?;
    let ringmaster = Ringmaster::start(&ctx)?;
    ctx.controller("website", kinds.spec(&hook.url("/sync"))).await?;
    for name in ["a", "b", "c"] {
        ctx.admin.create(&kinds.websites, Kinds::website(name, "T")).await?;
    }
    let mut versions = Vec::new();
    for name in ["a", "b", "c"] {
        let website = ready(&ctx, &kinds, name).await?;
        versions.push(website["metadata"]["resourceVersion"].clone());
    }
    ensure!(ringmaster.stop().await?.success());
    hook.clear();
    let before = hook.count();
    let mark = ctx.mark()?;
    let _again = Ringmaster::start(&ctx)?;
    ctx.wait("all are synced again", SOON, async || {
        let synced = ["a", "b", "c"].iter().filter(|n| !hook.calls_for(&format!("{}/{n}", ctx.namespace)).is_empty());
        let synced = synced.count();
        ensure!(synced == 3, "{synced} of 3");
        Ok(())
    })
    .await?;
    wait::stays("one call each, and no request but lists", QUIET, async || {
        ensure!(hook.count() == before + 3, "{} calls", hook.count() - before);
        let requests = about_objects(ctx.requests(mark)?);
        let beyond_lists: Vec<_> = requests.iter().filter(|request| request.verb != "list").collect();
        ensure!(beyond_lists.is_empty(), "{beyond_lists:?}");
        Ok(())
    })
    .await?;
    for (name, version) in ["a", "b", "c"].iter().zip(versions) {
        let now = ctx.admin.get(&kinds.websites, name).await?["metadata"]["resourceVersion"].clone();
        ensure!(now == version, "{name} was written: {version} -> {now}");
    }
    Ok(())
}

async fn changes(ctx: Context) -> anyhow::Result<()> {
    let kinds = Kinds::install(&ctx).await?;
    let hook = Hook::start(|request, _| reply(request))?;
    ctx.admin.create(&kinds.websites, Kinds::website("before", "Old")).await?;
    let _ringmaster = Ringmaster::start(&ctx)?;
    ctx.controller("website", kinds.spec(&hook.url("/sync"))).await?;
    ready(&ctx, &kinds, "before").await?;

    ctx.admin.patch_merge(&kinds.websites, "before", &json!({ "spec": { "title": "New" } })).await?;
    let [configmaps, services, _] = &kinds.children;
    ctx.wait("the new title arrives in the child", SOON, async || {
        let configmap = ctx.admin.get(configmaps, "before").await?;
        ensure!(configmap["data"]["title"] == "New", "{}", configmap["data"]);
        let website = ctx.admin.get(&kinds.websites, "before").await?;
        ensure!(website["status"]["observedGeneration"] == 2, "{}", website["status"]);
        Ok(())
    })
    .await?;

    let old = ctx.admin.get(services, "before").await?["metadata"]["uid"].clone();
    ctx.admin.delete(services, "before").await?;
    ctx.wait("the deleted child is back", SOON, async || {
        let service = ctx.admin.get(services, "before").await?;
        ensure!(service["metadata"]["uid"] != old, "still the old one");
        Ok(())
    })
    .await?;
    ready(&ctx, &kinds, "before").await?;

    ctx.admin.delete(&kinds.websites, "before").await?;
    ctx.wait("the children of a deleted parent are gone", COLLECTED, async || {
        for kind in &kinds.children {
            ensure!(ctx.admin.find(kind, "before").await?.is_none(), "{} is still there", kind.kind);
        }
        Ok(())
    })
    .await
}

/// Out of the sight of `--target-label-selector`, and into it again.
async fn relabelled(ctx: Context) -> anyhow::Result<()> {
    let kinds = Kinds::install(&ctx).await?;
    let hook = Hook::start(|request, _| reply(request))?;
    let ringmaster = Ringmaster::start(&ctx)?;
    ctx.controller("website", kinds.spec(&hook.url("/sync"))).await?;
    ctx.admin.create(&kinds.websites, Kinds::website("a", "A")).await?;
    ready(&ctx, &kinds, "a").await?;
    let (controllers, name) = (Context::controllers(), ctx.controller_name("website"));
    let label = |value: Value| json!({ "metadata": { "labels": { "suite": value } } });
    ctx.admin.patch_merge(&controllers, &name, &label(json!("another"))).await?;
    ringmaster.wait_log(&ctx, "stopped", SOON).await?;
    let before = hook.count();
    ctx.admin.create(&kinds.websites, Kinds::website("b", "B")).await?;
    wait::stays("no call while it is another's", QUIET, async || {
        ensure!(hook.count() == before, "{} calls", hook.count() - before);
        Ok(())
    })
    .await?;
    ctx.admin.patch_merge(&controllers, &name, &label(json!(ctx.id))).await?;
    ready(&ctx, &kinds, "b").await?;
    Ok(())
}

async fn protocol(ctx: Context) -> anyhow::Result<()> {
    let kinds = Kinds::install(&ctx).await?;
    let hook = Hook::start(|request, _| reply(request))?;
    let _ringmaster = Ringmaster::start(&ctx)?;
    ctx.controller("website", kinds.spec(&hook.url("/sync?x=1"))).await?;
    ctx.admin.create(&kinds.websites, Kinds::website("a", "A")).await?;
    ready(&ctx, &kinds, "a").await?;
    let calls = hook.calls();
    let first = calls.first().context("no call")?;
    ensure!(first.path == "/sync?x=1" && first.header("content-type") == "application/json", "{first:?}");
    let shard = first.header("ringmaster-shard");
    ensure!(shard.split_once('/').is_some_and(|(n, of)| n.parse::<u8>().is_ok() && of == "256"), "{shard}");
    ensure!(first.header("ringmaster-attempt") == "0" && first.header("ringmaster-deadline-ms") == "10000");
    let delivery = first.header("ringmaster-delivery");
    let uid = first.request["parent"]["metadata"]["uid"].as_str().unwrap_or_default();
    ensure!(!uid.is_empty() && delivery.starts_with(uid), "{delivery}");
    ensure!(calls.iter().all(|call| call.header("ringmaster-shard") == shard));
    let request = &first.request;
    ensure!(request["controller"]["kind"] == "CompositeController", "{request}");
    ensure!(request["parent"]["metadata"].get("managedFields").is_none(), "{request}");
    ensure!(request["finalizing"] == false && request["related"] == json!({}), "{request}");
    ensure!(request["children"]["Deployment.apps/v1"] == json!({}), "{request}");
    let last = &calls.last().context("no call")?.request;
    let key = format!("{}/a", ctx.namespace);
    for kind in ["ConfigMap.v1", "Service.v1", "Deployment.apps/v1"] {
        ensure!(last["children"][kind][&key]["metadata"]["name"] == "a", "{kind}: {}", last["children"]);
        ensure!(last["children"][kind][&key]["apiVersion"].is_string(), "{kind}: {}", last["children"]);
    }
    Ok(())
}
