//! What a rollout does with its revisions: when they are written, and whose they are.
//!
//! Never about what holds a rollout up: see `rollouts`.

use anyhow::ensure;
use serde_json::{Value, json};

use super::rollouts::{SIZE, Stage};
use super::scene::SOON;
use crate::cluster::{Context, Scope};
use crate::trial::Case;

/// How the hook names the parts: not as their names are sorted, in neither direction.
const ORDER: [usize; SIZE] = [3, 1, 4, 0, 2];

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("rollouts", "in_the_order_of_the_reply", in_order),
        Case::new("rollouts", "a_revision_without_an_owner_is_adopted", adopts),
    ]
}

async fn in_order(ctx: Context) -> anyhow::Result<()> {
    let stage = Stage::new(ctx, Scope::Namespaced, "RollingInPlace").await?;
    stage.settled("ringmaster.dev", 1).await?;
    let mark = stage.ctx.mark()?;
    let change = json!({ "spec": { "order": ORDER, "template": { "version": 2 } } });
    stage.ctx.admin.patch_merge(&stage.sets, "s", &change).await?;
    let mut versions: Vec<u64> = vec![1; SIZE];
    for number in ORDER {
        stage.updated(number, 2).await?;
        versions[number] = 2;
        let now = stage.versions().await?;
        ensure!(now == versions, "{now:?} instead of {versions:?}");
        stage.ready(number, true).await?;
    }
    stage.settled("ringmaster.dev", 2).await?;
    // Before each part, revisions are written that say which state it follows; what nobody follows any more goes with them.
    let requests = stage.ctx.requests(mark)?;
    let written = requests.iter().filter(|request| {
        let is_done = request.code < 300 && request.is_write() && request.subresource.is_empty();
        is_done && ["controllerrevisions", "parts"].contains(&request.resource.as_str())
    });
    let mut written: Vec<&str> = written.map(|request| request.resource.as_str()).collect();
    written.dedup();
    ensure!(written == ["controllerrevisions", "parts"].repeat(SIZE), "{written:?}");
    Ok(())
}

/// As it may be after `kubectl delete --cascade=orphan` and a restore. Its labels say whose it was; once it has an owner,
/// they say nothing more.
async fn adopts(ctx: Context) -> anyhow::Result<()> {
    let stage = Stage::new(ctx, Scope::Namespaced, "RollingInPlace").await?;
    stage.roll(2).await?;
    stage.updated(0, 2).await?;
    let mut revisions = stage.revisions("ringmaster.dev").await?;
    revisions.retain(|revision| revision["parentPatch"]["spec"]["template"]["version"] == 1);
    let [old] = &*revisions else { anyhow::bail!("{} revisions of version 1", revisions.len()) };
    let name = old["metadata"]["name"].as_str().unwrap_or_default();
    let kind = stage.ctx.namespaced("ringmaster.dev/v1alpha1", "ControllerRevision", "controllerrevisions");
    let orphan = json!({ "metadata": { "ownerReferences": null } });
    stage.ctx.admin.patch_merge(&kind, name, &orphan).await?;
    let is_owned = |revision: &Value| {
        let (now, before) = (&revision["metadata"], &old["metadata"]);
        ensure!(now["ownerReferences"] == before["ownerReferences"] && now["uid"] == before["uid"], "{now}");
        Ok(())
    };
    let ask = async || is_owned(&stage.ctx.admin.get(&kind, name).await?);
    stage.ctx.wait("the revision is adopted", SOON, ask).await?;
    // What follows it waits as before.
    stage.stands(&[2, 1, 1, 1, 1]).await?;
    let others = json!({ "metadata": { "labels": { "app": "y" } } });
    stage.ctx.admin.patch_merge(&kind, name, &others).await?;
    stage.stands(&[2, 1, 1, 1, 1]).await?;
    is_owned(&stage.ctx.admin.get(&kind, name).await?)
}
