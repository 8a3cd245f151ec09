//! Drains: their order, what is told of a shard that doesn't let objects go, and what is done about it if the ring says so.
//!
//! Never takes an object from a shard that lives by force.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::scene::{LATER, event};
use crate::cluster::Context;
use crate::members::figures::seconds;
use crate::rings::language;
use crate::rings::lease::{Kept, leases};
use crate::rings::record::{History, Kind};
use crate::rings::secrets::child;
use crate::rings::shard::DURATION;
use crate::rings::stage::{Plan, SETTLED, Stage};
use crate::trial::Case;
use crate::wait;

/// How long a shard may take to let an object go.
const LIMIT_SECONDS: u64 = 2;
/// Secrets of the shard that doesn't.
const SECRETS: usize = 20;
/// A shard that lives and never lets go.
const DEAF: &str = "deaf";

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.own_server().needs(language::needed);
    vec![
        case(Case::new("rings_drain", "acknowledgement_then_children_then_owner", order)),
        case(Case::new("rings_drain", "overdue_is_told_and_escalated_if_the_ring_says_so", overdue)),
    ]
}

async fn order(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("order of drains"), 2).await?;
    let mark = stage.recorder.mark();
    stage.join(1).await?;
    stage.balanced().await?;
    stage.recorded().await?;
    let (moved, wrong) =
        stage.recorder.read(|history| (history.moved(Kind::Secret, mark), history.misordered(mark, child)));
    ensure!(moved > 0 && wrong.is_empty(), "of {moved}:\n{}", wrong.join("\n"));
    stage.end(&format!("{moved} moved in order")).await
}

/// The status of a condition of the ring.
async fn condition(stage: &Stage, kind: &str) -> anyhow::Result<Value> {
    let ring = stage.ring().await?;
    let found = ring["status"]["conditions"].as_array().into_iter().flatten().find(|it| it["type"] == kind).cloned();
    found.with_context(|| format!("no {kind}: {}", ring["status"]))
}

async fn overdue(ctx: Context) -> anyhow::Result<()> {
    let moves = json!({ "settleSeconds": 1 });
    let spec = json!({ "moves": moves, "drain": { "timeoutSeconds": LIMIT_SECONDS } });
    let mut stage = Stage::set(ctx, Plan::named("overdue drains").spec(spec)).await?;
    stage.secrets.create_many(SECRETS).await?;
    stage.lead(&["m1"]).await?;
    let namespace = stage.ctx.namespace.clone();
    let kept = Kept::new(stage.admin(), (stage.names(), &stage.ring), &namespace, DEAF).await?;
    let all = async || {
        let counts = stage.recorder.read(History::counts);
        ensure!(counts.get(DEAF) == Some(&SECRETS), "{counts:?}");
        Ok(())
    };
    stage.ctx.wait("the deaf shard has all", LATER, all).await?;
    stage.join(1).await?;

    // It is told in three ways, and nothing more.
    let mark = stage.recorder.mark();
    stage.draining(0).await?;
    let is_told = async || {
        let told = condition(&stage, "DrainOverdue").await?;
        ensure!(told["status"] == "True" && told["reason"] == "NotAcknowledged", "{told}");
        ensure!(told["message"].as_str().is_some_and(|text| text.contains(DEAF)), "{told}");
        let scrape = stage.cast.member("m1")?.metrics()?;
        let of_ring = [("ring", stage.ring.as_str()), ("group", stage.names().group)];
        ensure!(scrape.sum("ringmaster_ring_drains_overdue", &of_ring) > 0.0, "no metric");
        ensure!(scrape.sum("ringmaster_ring_ready", &of_ring) > 0.0, "it isn't ready");
        ensure!(scrape.sum("ringmaster_ring_drain_oldest_seconds", &of_ring) >= LIMIT_SECONDS as f64, "no age");
        Ok(())
    };
    stage.ctx.wait("overdue drains are told", LATER, is_told).await?;
    event(&stage.ctx, &stage.ring().await?, "DrainOverdue", &[DEAF]).await?;
    let stay = async || {
        let lost = stage.recorder.read(|history| history.moved(Kind::Secret, mark));
        ensure!(lost == 0 && kept.is_held(), "{lost} Secrets were moved from a shard that lives");
        Ok(())
    };
    wait::stays("its objects are its own", Duration::from_secs(3), stay).await?;

    // Its Lease is taken before anything of it is, and not anything of it before it has had the time to see that.
    stage.change_ring(json!({ "drain": { "escalate": true } })).await?;
    let taken = async || {
        let lease = stage.admin().get(&leases(&namespace), DEAF).await?;
        let holder = lease["spec"]["holderIdentity"].as_str().unwrap_or_default();
        ensure!(holder.starts_with(stage.names().taker), "held by {holder:?}");
        Ok(lease)
    };
    let lease = stage.ctx.wait("its Lease is taken", LATER, taken).await?;
    let at = Instant::now();
    let before = stage.recorder.read(|history| history.moved(Kind::Secret, mark));
    ensure!(before == 0, "{before} Secrets were moved before its Lease was seen to be taken: {lease}");
    let others = async || {
        let times = stage.recorder.read(|history| history.taken_over(Kind::Secret, DEAF, mark));
        times.context("it has some yet")
    };
    let times = stage.ctx.wait("its objects are another's", LATER, others).await?;
    let first = times.iter().min().context("it had none")?.saturating_duration_since(at);
    // The look at the Lease took a moment.
    ensure!(first + Duration::from_secs(1) >= DURATION, "moved {} after its Lease was taken", seconds(first));
    event(&stage.ctx, &stage.ring().await?, "DrainEscalated", &[DEAF]).await?;
    stage.settled(SETTLED).await?;
    let is_over = async || {
        let told = condition(&stage, "DrainOverdue").await?;
        ensure!(told["status"] == "False", "{told}");
        Ok(())
    };
    stage.ctx.wait("nothing is overdue", LATER, is_over).await?;
    drop(kept);
    stage.end(&format!("moved {} after its Lease was taken", seconds(first))).await
}
