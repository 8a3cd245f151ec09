//! How evenly a whole's parents spread over 2, 3, 5 and 8 replicas, by shards and by parents, as the replicas were called.
//!
//! Never by chance: what a shard is made of, group, kind, namespace and names, is the same in every run, and so are the
//! replicas' addresses. What is seen here once is seen always.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::cluster::Context;
use crate::members::check::{SHARDS, shard_of};
use crate::objects::{self, Resource};
use crate::replicas::calls::{counts, places};
use crate::server;
use crate::suites::webhooks::Stage;

/// The parents' group and namespace, which no other trial has.
const GROUP: &str = "spread.test.ringmaster.dev";
const NAMESPACE: &str = "suite-spread";
/// Of 2,000 parents at 8 replicas, one with its full 40 of 256 shards gets 312 on average, give or take 16; the bound below
/// is 350. So a hash that is as good as chance passes with most sets of names, and these are one that does. That 5,000
/// parents are within the bound too is `endpoints::choice`'s own test.
const PARENTS: usize = 2000;
/// New parents a second; their resyncs come as they were made.
const PER_SECOND: u32 = 400;
/// No replica has more of the parents than this share of the mean, in tenths.
const MOST_PARENTS: usize = 14;

/// A kind and a namespace whose names are always the same.
async fn always_the_same(ctx: &Context) -> anyhow::Result<Resource> {
    let namespace = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": NAMESPACE } });
    ctx.admin.apply(&namespace).await?;
    let mut crd = objects::crd(GROUP, "Thing", "things", "Namespaced", None);
    crd["metadata"]["labels"] = json!({ "suite": ctx.id });
    let applied = ctx.admin.apply(&crd).await?;
    server::served(&ctx.admin, &applied).await?;
    let things = Resource::new(&format!("{GROUP}/v1"), "Thing", "things", Some(NAMESPACE));
    ctx.grant(&Context::rules_for(&[&things])).await?;
    Ok(things)
}

pub(super) async fn spread(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::new(ctx, 8).await?;
    stage.things = always_the_same(&stage.ctx).await?;
    stage.start(&[0, 1, 2, 3, 4, 5, 6, 7], &[]).await?;
    let all = [0, 1, 2, 3, 4, 5, 6, 7];
    stage.replicas.publish(&all[..2], &[]).await?;
    stage.controller(&json!({ "resyncPeriodSeconds": 5 }), &json!({})).await?;
    stage.create_at(PARENTS, PER_SECOND).await?;
    stage.all_called(PARENTS, Duration::ZERO).await?;
    let mut told = Vec::new();
    for count in [2, 3, 5, 8] {
        stage.replicas.publish(&all[..count], &[]).await?;
        let calls = stage.steady(PARENTS, 1).await?;
        for call in &calls {
            let of = shard_of(GROUP, "Thing", &format!("{NAMESPACE}/{}", call.parent));
            ensure!(
                usize::from(call.shard) == of,
                "{} is of shard {of}, and was sent as of {}",
                call.parent,
                call.shard
            );
        }
        ensure!(places(&calls).values().all(|replicas| replicas.len() == 1), "{count}: a parent was at two replicas");
        let counts = counts(&calls);
        ensure!(counts.len() == count, "{count}: {counts:?}");
        let most = |of: fn(&(usize, usize)) -> usize| counts.values().map(of).max().unwrap_or_default();
        let (shards, parents) = (most(|(shards, _)| *shards), most(|(_, parents)| *parents));
        // Of all shards: with so many parents each has some.
        ensure!(counts.values().map(|(shards, _)| shards).sum::<usize>() == SHARDS, "{count}: {counts:?}");
        told.push(format!("{count}: {shards} of {SHARDS} and {parents} of {PARENTS}"));
        ensure!(shards <= (SHARDS * 5).div_ceil(4 * count), "{count}: {counts:?}");
        ensure!(parents * count * 10 <= PARENTS * MOST_PARENTS, "{count}: {counts:?}");
    }
    println!("webhooks spread of a whole: most shards and parents of one replica at {}", told.join(", at "));
    let things = stage.ctx.admin.list(&stage.things, "limit=1").await?;
    let labels = &things.first().context("no parent")?["metadata"]["labels"];
    ensure!(labels.is_null(), "a whole's parents have no shard: {labels}");
    stage.none_failed()
}
