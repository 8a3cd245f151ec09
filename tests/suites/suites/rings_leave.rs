//! What leaves a ring loses its labels: a namespace that isn't selected any more, a kind that isn't named, all of a deleted
//! ring.
//!
//! Never looks at what the shards did: they let go, and that is all.

use anyhow::ensure;
use serde_json::{Value, json};

use super::scene::LATER;
use crate::cluster::Context;
use crate::rings::language;
use crate::rings::names::THEIRS;
use crate::rings::record::Kind;
use crate::rings::stage::{Plan, SETTLED, Stage, resources};
use crate::trial::Case;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.own_server().needs(language::needed);
    vec![
        case(Case::new("rings_leave", "a_namespace_that_is_deselected_and_comes_back", deselected)),
        case(Case::new("rings_leave", "a_kind_that_is_not_named_any_more", unnamed)),
        case(Case::new("rings_leave", "a_ring_that_is_deleted", |ctx| deleted(ctx, Plan::named("deleted")))),
        case(Case::new("rings_leave", "a_ring_of_the_contract_that_is_deleted", |ctx| {
            deleted(ctx, Plan::named("deleted, by the contract").names(&THEIRS).spec(json!({})))
        })),
    ]
}

/// Waits until no object has a label of the ring.
async fn unlabelled(stage: &Stage) -> anyhow::Result<()> {
    let ask = async || {
        let labelled = stage.recorder.read(|history| {
            let of = |kind| {
                let present = history.present(kind).into_values();
                present.filter(|seen| seen.shard.is_some() || seen.is_draining).count()
            };
            [Kind::Secret, Kind::ConfigMap].map(of)
        });
        ensure!(labelled == [0, 0], "{labelled:?} Secrets and ConfigMaps have labels");
        Ok(())
    };
    stage.ctx.wait("no object has a label of the ring", LATER, ask).await
}

async fn deselected(ctx: Context) -> anyhow::Result<()> {
    let stage = Stage::with(ctx, Plan::named("deselected"), 3).await?;
    let selector =
        |name: &str| json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": name } } });
    stage.change_ring(selector("nowhere")).await?;
    unlabelled(&stage).await?;
    stage.change_ring(selector(&stage.ctx.namespace)).await?;
    stage.settled(SETTLED).await?;
    stage.end("").await
}

async fn unnamed(ctx: Context) -> anyhow::Result<()> {
    let stage = Stage::with(ctx, Plan::named("not named any more"), 3).await?;
    let rules: Value =
        json!([{ "apiGroups": [""], "resources": ["services"], "verbs": ["get", "list", "watch", "patch"] }]);
    stage.ctx.grant(&rules).await?;
    stage.change_ring(json!({ "resources": [{ "group": "", "resource": "services" }] })).await?;
    unlabelled(&stage).await?;
    // And back.
    stage.change_ring(json!({ "resources": resources(true) })).await?;
    stage.settled(SETTLED).await?;
    stage.end("").await
}

async fn deleted(ctx: Context, plan: Plan) -> anyhow::Result<()> {
    let stage = Stage::with(ctx, plan, 3).await?;
    let held = stage.ring().await?["metadata"]["finalizers"].as_array().map_or(0, Vec::len);
    // Only our own group has one: rings of the other are as they are without us.
    ensure!(held == usize::from(stage.names().group != THEIRS.group), "{held} finalizers");
    stage.delete_ring().await?;
    unlabelled(&stage).await?;
    let gone = async || {
        let ring = stage.find_ring().await?;
        ensure!(ring.is_none(), "{ring:?}");
        Ok(())
    };
    stage.ctx.wait("the ring is gone", LATER, gone).await?;
    stage.close("").await
}
