//! A ring that can't run says why: in its status, by an event and in the metrics; and it runs once that is mended.
//!
//! Never with shards that work: one Lease that the trial keeps is enough.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::scene::{LATER, event};
use crate::cluster::{Context, Scope};
use crate::rings::lease::Kept;
use crate::rings::names::{Names, OURS, THEIRS};
use crate::rings::record::History;
use crate::rings::stage::{Plan, Stage, resources};
use crate::trial::Case;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |name, names| {
        Case::new("rings_told", name, move |ctx| what_is_wrong(ctx, Plan::named("told").names(names).spec(json!({}))))
            .own_server()
    };
    vec![case("what_keeps_a_ring_from_running", &OURS), case("what_keeps_a_ring_of_the_contract_from_running", &THEIRS)]
}

/// Waits until the ring is ready or isn't, for this reason and with these words.
async fn ready(stage: &Stage, wanted: bool, reason: &str, words: &str) -> anyhow::Result<()> {
    let ask = async || {
        let ring = stage.ring().await?;
        let conditions = ring["status"]["conditions"].as_array().context("no condition")?;
        let found = conditions.iter().find(|it| it["type"] == "Ready").context("no Ready")?;
        let is_told = found["status"] == if wanted { "True" } else { "False" }
            && found["reason"] == reason
            && found["message"].as_str().is_some_and(|text| text.contains(words));
        ensure!(is_told, "{found}");
        ensure!(ring["status"]["observedGeneration"] == ring["metadata"]["generation"], "{}", ring["status"]);
        let of_ring = [("ring", stage.ring.as_str()), ("group", stage.names().group)];
        let shown = stage.cast.member("m1")?.metrics()?.sum("ringmaster_ring_ready", &of_ring);
        ensure!(shown == f64::from(u8::from(wanted)), "the metric says {shown}");
        Ok(())
    };
    stage.ctx.wait(&format!("the ring says {reason}"), LATER, ask).await
}

/// Makes a Secret, and waits until the shard has so many.
async fn one_more(stage: &Stage, wanted: usize) -> anyhow::Result<()> {
    stage.secrets.create_many(1).await?;
    let assigned = async || {
        let counts = stage.recorder.read(History::counts);
        ensure!(counts.get("kept") == Some(&wanted), "{counts:?}");
        Ok(())
    };
    stage.ctx.wait("a Secret is assigned all the same", LATER, assigned).await
}

/// A ring's resources: one kind.
fn of(group: &str, plural: &str) -> Value {
    json!({ "resources": [{ "group": group, "resource": plural }] })
}

async fn what_is_wrong(ctx: Context, plan: Plan) -> anyhow::Result<()> {
    let names: &'static Names = plan.names;
    // Theirs has one reason for all that is wrong.
    let reason = |ours: &'static str| if names.group == OURS.group { ours } else { "ReconciliationFailed" };
    let well = if names.group == OURS.group { "Reconciled" } else { "ReconciliationSucceeded" };
    let mut stage = Stage::set(ctx, plan).await?;
    stage.lead(&["m1"]).await?;
    ready(&stage, true, well, "").await?;

    stage.change_ring(of("", "nonsenses")).await?;
    ready(&stage, false, reason("NotServed"), "nonsenses").await?;
    event(&stage.ctx, &stage.ring().await?, reason("NotServed"), &["nonsenses"]).await?;

    // All else goes on.
    let kept = Kept::new(stage.admin(), (names, &stage.ring), &stage.ctx.namespace, "kept").await?;
    let mut both = resources(true);
    both.as_array_mut().context("no list")?.push(json!({ "group": stage.ctx.group(), "resource": "things" }));
    stage.change_ring(json!({ "resources": both })).await?;
    ready(&stage, false, reason("NotServed"), "things").await?;
    one_more(&stage, 1).await?;

    // Once it is there, it is seen without an edit of the ring.
    let things = stage.ctx.crd("Thing", "things", Scope::Namespaced, None).await?;
    ready(&stage, false, reason("Forbidden"), "things").await?;
    one_more(&stage, 2).await?;
    ensure!(kept.is_held(), "the Lease was taken");
    stage.ctx.grant(&Context::rules_for(&[&things])).await?;
    ready(&stage, true, well, "").await?;

    // What a schema can't see.
    let selector =
        |value: &str| json!({ "namespaceSelector": { "matchLabels": { "kubernetes.io/metadata.name": value } } });
    stage.change_ring(selector("no label's value")).await?;
    ready(&stage, false, reason("Invalid"), "spec.namespaceSelector").await?;

    let mut good = selector(&stage.ctx.namespace);
    good["resources"] = resources(true);
    stage.change_ring(good).await?;
    ready(&stage, true, well, "").await?;
    stage.close("").await
}
