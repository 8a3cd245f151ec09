//! A webhook's replicas under load: scaled, killed, hung, broken; where parents go, and what it costs them.
//!
//! Never with fewer processes than there would be: each replica is one, and Ringmaster is.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use anyhow::{Context as _, ensure};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde_json::{Value, json};

use crate::cluster::{Context, Scope};
use crate::objects::Resource;
use crate::process::{Build, Ringmaster};
use crate::replicas::Replicas;
use crate::replicas::calls::{Call, counts, longest_gap, moved, now, places, shards, within};
use crate::replicas::changes::{Change, Changes, served, story, summary};
use crate::scrape::{Scrape, free_port};
use crate::server::audit::Mark;
use crate::suites::scene::{LATER, SOON, condition, event};
use crate::trial::Case;

/// How long one of these trials may take.
const TIMEOUT: Duration = Duration::from_secs(300);
/// Requests at once where many parents are made.
const CONNECTIONS: usize = 16;
/// How long what was published takes to be followed, at most.
const FOLLOWED: Duration = Duration::from_millis(1000);
/// What moves of 256 shards from 2 to 8 replicas, or back, if nothing moves in vain.
const IDEAL: usize = 192;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.timeout(TIMEOUT);
    vec![
        case(Case::new("webhooks", "two_to_eight_to_two_replicas", scaled)),
        case(Case::new("webhooks", "parents_of_a_whole_spread", super::webhooks_spread::spread)),
        case(Case::new("webhooks", "one_is_killed", killed)),
        case(Case::new("webhooks", "one_is_killed_with_calls", super::webhooks_cut::fails)),
        case(Case::new("webhooks", "one_is_killed_with_calls_that_may_be_repeated", super::webhooks_cut::repeated)),
        case(Case::new("webhooks", "one_hangs", hangs)),
        case(Case::new("webhooks", "one_answers_nothing_but_head", super::webhooks_load::dumb)),
        case(Case::new("webhooks", "one_with_many_places_answers_nothing_but_head", super::webhooks_load::stuck)),
        case(Case::new("webhooks", "one_is_slow_and_has_much_to_do", super::webhooks_load::slow)),
        case(Case::new("webhooks", "one_answers_errors_only", errs)),
        case(Case::new("webhooks", "none_is_ready_and_then_one_is", none_ready)),
        case(Case::new("webhooks", "by_urls", by_urls)),
        case(Case::new("webhooks", "by_name_where_slices_cannot_be_read", by_name)),
        case(Case::new("webhooks", "slices_that_can_be_read_no_longer_are_told", super::webhooks_told::stale)),
        case(Case::new("webhooks", "what_another_member_leaves_out_is_told", super::webhooks_told::elsewhere)),
        case(Case::new("webhooks", "by_name_where_slices_may_not_be_read", super::webhooks_service::forbidden))
            .own_server(),
        case(Case::new("webhooks", "its_service_goes_and_its_ports_change", super::webhooks_service::changes)),
        case(Case::new("webhooks", "a_short_timeout_leaves_none_out_that_answers_others", super::webhooks_two::shares)),
        case(Case::new("webhooks", "certificates_are_rotated_every_second", super::webhooks_tls::anew)),
        case(Case::new("webhooks", "certificates_are_rotated_with_kept_connections", super::webhooks_tls::kept)),
        case(Case::new("webhooks", "certificates_are_rotated_with_http2", super::webhooks_tls::shared)),
        case(Case::new("webhooks", "the_counter_is_right_whatever_it_keeps", super::webhooks_counter::remembers))
            .needs(super::webhooks_counter::python),
    ]
}

/// A controller of things, whose hook is replicas behind a Service.
pub(super) struct Stage {
    pub(super) ringmaster: Ringmaster,
    pub(super) replicas: Replicas,
    pub(super) things: Resource,
    metrics: u16,
    pub(super) ctx: Context,
}

impl Stage {
    /// Room for replicas, and a Ringmaster; no controller yet.
    pub(super) async fn new(ctx: Context, replicas: usize) -> anyhow::Result<Self> {
        Self::with(ctx, replicas, |_, _| Vec::new()).await
    }

    /// The same with more flags of Ringmaster.
    pub(super) async fn with(
        ctx: Context,
        replicas: usize,
        more: impl FnOnce(&Context, &Replicas) -> Vec<String>,
    ) -> anyhow::Result<Self> {
        let things = ctx.crd("Thing", "things", Scope::Namespaced, None).await?;
        ctx.grant(&Context::rules_for(&[&things])).await?;
        let (replicas, metrics) = (Replicas::new(&ctx, replicas).await?, free_port()?);
        let more = more(&ctx, &replicas);
        let ringmaster = run(&ctx, &replicas, metrics, more)?;
        Ok(Self { ringmaster, replicas, things, metrics, ctx })
    }

    /// Stops Ringmaster, and starts it again without the flags of the trial.
    pub(super) async fn restart(self) -> anyhow::Result<Self> {
        let Self { ringmaster, replicas, things, metrics, ctx } = self;
        ensure!(ringmaster.stop().await?.success(), "it failed");
        let ringmaster = run(&ctx, &replicas, metrics, Vec::new())?;
        Ok(Self { ringmaster, replicas, things, metrics, ctx })
    }

    pub(super) async fn start(&mut self, numbers: &[usize], options: &[&str]) -> anyhow::Result<()> {
        let options: Vec<String> = options.iter().map(|option| (*option).to_owned()).collect();
        for number in numbers {
            self.replicas.start(&self.ctx, *number, &options).await?;
        }
        Ok(())
    }

    /// The controller, with more in its spec and in its webhook.
    pub(super) async fn controller(&self, spec: &Value, webhook: &Value) -> anyhow::Result<Value> {
        let mut hook = self.replicas.webhook();
        extend(&mut hook, webhook);
        let mut all = json!({
            "parentResource": { "apiVersion": self.things.api_version, "resource": self.things.plural },
            "generateSelector": true,
            "hooks": { "sync": { "webhook": hook } },
        });
        extend(&mut all, spec);
        self.ctx.controller("things", all).await
    }

    pub(super) async fn create(&self, count: usize) -> anyhow::Result<()> {
        self.create_at(count, u32::MAX).await
    }

    /// So many parents, and so many a second: their resyncs come as they were made.
    pub(super) async fn create_at(&self, count: usize, per_second: u32) -> anyhow::Result<()> {
        let start = tokio::time::Instant::now();
        let names = (0..count).map(|number| {
            let turn = u32::try_from(number).unwrap_or(u32::MAX);
            (start + Duration::from_secs(1) / per_second * turn, format!("thing-{number}"))
        });
        let create = |(turn, name): (tokio::time::Instant, String)| async move {
            tokio::time::sleep_until(turn).await;
            let body = json!({ "metadata": { "name": name }, "spec": { "value": 0 } });
            self.ctx.admin.create(&self.things, body).await.map(drop)
        };
        stream::iter(names).map(create).buffer_unordered(CONNECTIONS).try_collect().await
    }

    /// Waits until so many parents have been called since `since`; answers with all calls.
    pub(super) async fn all_called(&self, parents: usize, since: Duration) -> anyhow::Result<Vec<Call>> {
        self.ctx
            .wait(&format!("{parents} parents are called"), LATER, async || {
                let calls = self.replicas.calls()?;
                let seen = places(&within(&calls, since, now())).len();
                ensure!(seen >= parents, "{seen} are");
                Ok(calls)
            })
            .await
    }

    /// Waits until each parent was called so many times since a moment a little after now, and answers with those calls:
    /// none of them was under way before.
    pub(super) async fn steady(&self, parents: usize, times: usize) -> anyhow::Result<Vec<Call>> {
        let from = now() + FOLLOWED;
        let often = async || {
            let calls = within(&self.replicas.calls()?, from, now());
            let mut called: HashMap<&str, usize> = HashMap::new();
            for call in calls.iter().filter(|call| call.ended.is_some()) {
                *called.entry(&call.parent).or_default() += 1;
            }
            let done = called.values().filter(|called| **called >= times).count();
            ensure!(done >= parents, "{done} of {parents}");
            drop(called);
            Ok(calls)
        };
        self.ctx.wait(&format!("each parent is called {times} times"), LATER, often).await
    }

    pub(super) fn scrape(&self) -> anyhow::Result<Scrape> {
        Scrape::of(&format!("http://127.0.0.1:{}/metrics", self.metrics))
    }

    /// Fails if a sync or a hook call failed.
    pub(super) fn none_failed(&self) -> anyhow::Result<()> {
        let scrape = self.scrape()?;
        let errors = scrape.sum("controller_runtime_reconcile_errors_total", &[]);
        let calls = scrape.sum("ringmaster_hook_requests_total", &[]);
        let good = scrape.sum("ringmaster_hook_requests_total", &[("code", "200")]);
        ensure!(errors == 0.0, "{errors} syncs failed");
        ensure!(calls == good, "{} of {calls} calls failed", calls - good);
        Ok(())
    }

    /// Writes to parents since a mark, and to controllers' status.
    fn writes(&self, since: Mark) -> anyhow::Result<(usize, usize)> {
        let writes: Vec<_> =
            self.ctx.requests(since)?.into_iter().filter(crate::server::audit::AuditEntry::is_write).collect();
        let of = |resource: &str| writes.iter().filter(|request| request.resource == resource).count();
        Ok((of(&self.things.plural), of("compositecontrollers")))
    }
}

fn run(ctx: &Context, replicas: &Replicas, metrics: u16, more: Vec<String>) -> anyhow::Result<Ringmaster> {
    let flags = replicas.flags().into_iter().chain([format!("--metrics-address=127.0.0.1:{metrics}")]).chain(more);
    flags.fold(Ringmaster::build(ctx), Build::arg).start()
}

fn extend(object: &mut Value, with: &Value) {
    if let (Some(object), Some(with)) = (object.as_object_mut(), with.as_object()) {
        object.extend(with.clone());
    }
}

/// Parents whose calls went to more than one replica.
fn wanderers(calls: &[Call]) -> usize {
    places(calls).values().filter(|replicas| replicas.len() > 1).count()
}

/// Calls a second.
fn rate(calls: &[Call]) -> usize {
    let (Some(first), Some(last)) = (calls.first(), calls.last()) else { return 0 };
    let millis = usize::try_from((last.began - first.began).as_millis()).unwrap_or(usize::MAX).max(1);
    calls.len() * 1000 / millis
}

async fn scaled(ctx: Context) -> anyhow::Result<()> {
    const PARENTS: usize = 1000;
    let mut stage = Stage::new(ctx, 8).await?;
    stage.start(&[0, 1], &[]).await?;
    stage.replicas.publish(&[0, 1], &[]).await?;
    stage.controller(&json!({ "resyncPeriodSeconds": 5 }), &json!({})).await?;
    stage.create_at(PARENTS, 200).await?;
    stage.all_called(PARENTS, Duration::ZERO).await?;
    let two = stage.steady(PARENTS, 2).await?;
    let mark = stage.ctx.mark()?;

    stage.start(&[2, 3, 4, 5, 6, 7], &[]).await?;
    stage.replicas.publish(&[0, 1, 2, 3, 4, 5, 6, 7], &[]).await?;
    let eight = stage.steady(PARENTS, 2).await?;

    // As a cluster does it: first they are no longer ready, then they are told to end.
    let going = [2, 3, 4, 5, 6, 7];
    stage.replicas.publish(&[0, 1], &going).await?;
    let left = now();
    let last = async || {
        let calls = stage.replicas.calls()?;
        let late = calls.iter().rev().find(|call| call.replica > 1);
        let quiet = late.is_none_or(|call| now() - call.began > Duration::from_millis(500));
        ensure!(quiet, "they are still called");
        Ok(late.map_or(Duration::ZERO, |call| call.began.saturating_sub(left)))
    };
    let followed = stage.ctx.wait("nobody calls those that go", SOON, last).await?;
    for number in going {
        stage.replicas.stop(number).await?;
    }
    stage.replicas.publish(&[0, 1], &[]).await?;
    let back = stage.steady(PARENTS, 2).await?;

    stage.none_failed()?;
    let (writes, told) = stage.writes(mark)?;
    let ways = [shards(&two), shards(&eight), shards(&back)];
    let (up, down) = (moved(&ways[0], &ways[1]), moved(&ways[1], &ways[2]));
    let rates = [&two, &eight, &back].map(|calls| rate(calls));
    println!(
        "webhooks 2 to 8 to 2: {PARENTS} parents, {rates:?} calls/s; moved {up} shards of 256 and {down} back (ideal \
         {IDEAL}); shards and parents of each: {:?}, {:?}; {writes} writes to parents, {told} to the controller's status; \
         the last call to one that went began {followed:?} after it was published",
        counts(&two).values().collect::<Vec<_>>(),
        counts(&eight).values().collect::<Vec<_>>(),
    );
    for (calls, name) in [(&two, "two"), (&eight, "eight"), (&back, "two again")] {
        ensure!(wanderers(calls) == 0, "{name}: {} parents were at more than one replica", wanderers(calls));
    }
    ensure!(ways[0] == ways[2], "back at two, shards aren't where they were");
    ensure!(up * 10 <= IDEAL * 13 && down * 10 <= IDEAL * 13, "{up} and {down} shards moved");
    ensure!(counts(&eight).len() == 8, "{:?}", counts(&eight));
    let most = counts(&eight).values().map(|(shards, _)| *shards).max().unwrap_or(0);
    ensure!(most <= 40, "one has {most} shards");
    ensure!(writes == 0, "{writes} writes to parents");
    ensure!(rates.iter().all(|rate| *rate >= 150), "{rates:?} calls/s");
    Ok(())
}

async fn killed(ctx: Context) -> anyhow::Result<()> {
    const PARENTS: usize = 200;
    const WORK: Duration = Duration::from_millis(20);
    let mut stage = Stage::new(ctx, 4).await?;
    stage.start(&[0, 1, 2, 3], &["work-ms=20"]).await?;
    stage.replicas.publish(&[0, 1, 2, 3], &[]).await?;
    let spec = json!({ "resyncPeriodSeconds": 2, "sharding": {} });
    stage.controller(&spec, &json!({})).await?;
    stage.create(PARENTS).await?;
    stage.all_called(PARENTS, Duration::ZERO).await?;
    let before = stage.steady(PARENTS, 2).await?;
    let changes = Changes::start(&stage.ctx, &stage.things, PARENTS, 50);
    stage.all_called(PARENTS, now()).await?;
    // Nobody says that it is gone: it is found out.
    stage.replicas.kill(1)?;
    let at = now();
    stage.all_called(PARENTS, now()).await?;
    let after = stage.steady(PARENTS, 2).await?;
    let changes = changes.stop().await?;
    stage.all_called(PARENTS, now()).await?;
    let calls = stage.replicas.calls()?;
    let (most, p99, lost) = summary(&served(&changes, &calls));
    // From a parent's last call to its next one: the period, and what the kill added.
    let gap = longest_gap(&calls, at - Duration::from_secs(1)).saturating_sub(Duration::from_secs(2));
    let cut = calls.iter().filter(|call| call.ended.is_none() && call.replica == 1).count();
    println!(
        "webhooks one of 4 killed: {PARENTS} parents, {} changes, served after p99 {p99:?}, at most {most:?}; resyncs late \
         by at most {gap:?}; {cut} calls were cut off",
        changes.len()
    );
    ensure!(lost == 0, "{lost} changes were never served");
    ensure!(most <= Duration::from_secs(1) + WORK, "a change was served after {most:?}");
    ensure!(gap <= Duration::from_secs(1) + WORK, "a parent was called {gap:?} later than it should");
    ensure!(after.iter().all(|call| call.replica != 1) && wanderers(&after) == 0, "{:?}", counts(&after));
    // Only what was at the killed one is elsewhere.
    let (ways, now_at) = (shards(&before), shards(&after));
    let lost = ways.values().filter(|replica| **replica == 1).count();
    let moved = moved(&ways, &now_at);
    ensure!(moved <= lost + 16, "{moved} shards moved, the killed one had {lost}");
    let controller = stage.ctx.admin.get(&Context::controllers(), &stage.ctx.controller_name("things")).await?;
    let name = stage.replicas.name(1);
    event(&stage.ctx, &controller, "EndpointLeftOut", &[&name]).await?;
    let text = condition(&stage.ctx, "things", ["EndpointsReady", "False", "LeftOut"]).await?;
    ensure!(text.contains(&name) && text.contains("4 of 4"), "{text}");
    let scrape = stage.scrape()?;
    ensure!(scrape.sum("ringmaster_hook_endpoint_left_out", &[("endpoint", &name)]) == 1.0, "{}", scrape.text);

    // It comes back where it was, and gets its shards again.
    stage.start(&[1], &["work-ms=20"]).await?;
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;
    let again = shards(&stage.steady(PARENTS, 2).await?);
    let elsewhere = again.iter().filter(|(shard, replica)| ways.get(shard) != Some(replica)).count();
    ensure!(elsewhere == 0, "{elsewhere} shards aren't where they were");
    Ok(())
}

async fn hangs(ctx: Context) -> anyhow::Result<()> {
    const PARENTS: usize = 100;
    const CALL: Duration = Duration::from_secs(2);
    let mut stage = Stage::new(ctx, 3).await?;
    stage.start(&[0, 1, 2], &[]).await?;
    stage.replicas.publish(&[0, 1, 2], &[]).await?;
    stage.controller(&json!({}), &json!({ "timeout": "2s" })).await?;
    stage.create(PARENTS).await?;
    stage.all_called(PARENTS, Duration::ZERO).await?;
    let changes = Changes::start(&stage.ctx, &stage.things, PARENTS, 50);
    let before = shards(&stage.all_called(PARENTS, now()).await?);
    stage.replicas.freeze(2, true)?;
    let at = now();
    let name = stage.replicas.name(2);
    stage.ringmaster.wait_log(&stage.ctx, "is left out", SOON).await?;
    let ejected = now() - at;
    stage.all_called(PARENTS, now()).await?;
    let changes = changes.stop().await?;
    // What was changed last is on its way.
    let all = async || {
        let mut calls = stage.replicas.calls()?;
        // What it took in before it was stopped, and answers once it goes on, is no service.
        calls.retain(|call| call.replica != 2 || call.began < at);
        let lost = served(&changes, &calls).iter().filter(|served| served.is_none()).count();
        ensure!(lost == 0, "{lost} aren't");
        Ok(calls)
    };
    let calls = stage.ctx.wait("all changes are served", SOON, all).await?;
    let (hung, others): (Vec<Change>, Vec<Change>) = changes.into_iter().partition(|change| {
        let shard = calls.iter().find(|call| call.parent == change.parent).map(|call| call.shard);
        shard.is_some_and(|shard| before.get(&shard) == Some(&2))
    });
    let times = served(&hung, &calls);
    let (most, _, lost) = summary(&times);
    let worst = hung.iter().zip(&times).max_by_key(|(_, took)| **took).map(|(change, _)| story(change, &calls, at));
    let (most_of_others, ..) = summary(&served(&others, &calls));
    println!(
        "webhooks one of 3 hangs: left out {ejected:?} after; {} changes of its parents served elsewhere after at most \
         {most:?}, {} of others after at most {most_of_others:?}",
        hung.len(),
        others.len()
    );
    ensure!(lost == 0, "{lost} changes were never served");
    ensure!(most <= CALL + Duration::from_secs(1), "a change was served after {most:?}: {worst:?}");
    ensure!(hung.len() >= 20 && others.len() >= 20, "{} and {} changes", hung.len(), others.len());
    ensure!(most_of_others <= Duration::from_secs(1), "others waited {most_of_others:?}");
    ensure!(ejected <= CALL + Duration::from_secs(1), "it was left out after {ejected:?}");
    let text = condition(&stage.ctx, "things", ["EndpointsReady", "False", "LeftOut"]).await?;
    ensure!(text.contains(&name), "{text}");
    stage.replicas.freeze(2, false)?;
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;
    Ok(())
}

async fn errs(ctx: Context) -> anyhow::Result<()> {
    const PARENTS: usize = 60;
    let mut stage = Stage::new(ctx, 3).await?;
    stage.start(&[0, 1], &[]).await?;
    stage.start(&[2], &["code=500"]).await?;
    stage.replicas.publish(&[0, 1, 2], &[]).await?;
    stage.controller(&json!({}), &json!({})).await?;
    stage.create(PARENTS).await?;
    let name = stage.replicas.name(2);
    let text = condition(&stage.ctx, "things", ["EndpointsReady", "False", "AnswersErrors"]).await?;
    ensure!(text.contains(&format!("{name} (500)")), "{text}");
    let calls = stage.all_called(PARENTS, Duration::ZERO).await?;
    let of: BTreeMap<&str, usize> = calls.iter().map(|call| (call.parent.as_str(), call.replica)).collect();
    ensure!(wanderers(&calls) == 0, "errors were hidden by asking another one");
    let (failing, _) = of.iter().find(|(_, replica)| **replica == 2).context("it has no parent")?;
    let failing = stage.ctx.admin.get(&stage.things, failing).await?;
    event(&stage.ctx, &failing, "SyncError", &["the hook answered 500", &name]).await?;
    let well = of.iter().filter(|(_, replica)| **replica != 2).count();
    let told = async || {
        let things = stage.ctx.admin.list(&stage.things, "").await?;
        let synced = things.iter().filter(|thing| thing["status"]["observedGeneration"] == 1).count();
        ensure!(synced == well, "{synced} of {well} are synced");
        Ok(())
    };
    stage.ctx.wait("the others are synced", SOON, told).await?;
    // The hook as such is well, and the controller runs.
    condition(&stage.ctx, "things", ["HookReachable", "True", "Answered"]).await?;
    Ok(())
}

async fn none_ready(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::new(ctx, 1).await?;
    stage.replicas.publish(&[], &[]).await?;
    stage.controller(&json!({}), &json!({})).await?;
    stage.create(3).await?;
    condition(&stage.ctx, "things", ["EndpointsReady", "False", "NoEndpoints"]).await?;
    let text = condition(&stage.ctx, "things", ["HookReachable", "False", "NoEndpoints"]).await?;
    ensure!(text.contains("0 of 0 endpoints are ready"), "{text}");
    stage.start(&[0], &[]).await?;
    // As long as it is only being shut down, it is better than none.
    let published = now();
    stage.replicas.publish(&[], &[0]).await?;
    let calls = stage.all_called(3, published).await?;
    let last = calls.iter().map(|call| call.began).max().unwrap_or_default() - published;
    println!("webhooks none is ready: all called {last:?} after one could be");
    ensure!(last <= Duration::from_secs(2), "parents wait for their own retries: {last:?}");
    condition(&stage.ctx, "things", ["EndpointsReady", "False", "OnlyTerminating"]).await?;
    stage.replicas.publish(&[0], &[]).await?;
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;
    Ok(())
}

async fn by_urls(ctx: Context) -> anyhow::Result<()> {
    const PARENTS: usize = 60;
    let mut stage = Stage::new(ctx, 3).await?;
    stage.start(&[0, 1, 2], &[]).await?;
    let urls: Vec<String> = (0..3).map(|number| stage.replicas.url(number)).collect();
    let spec = json!({
        "hooks": { "sync": { "webhook": { "urls": urls, "path": "/sync", "idempotent": true } } },
        "resyncPeriodSeconds": 1,
    });
    stage.controller(&spec, &json!({})).await?;
    stage.create(PARENTS).await?;
    let calls = stage.steady(PARENTS, 2).await?;
    ensure!(wanderers(&calls) == 0 && counts(&calls).len() == 3, "{:?}", counts(&calls));
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;
    stage.replicas.kill(0)?;
    let calls = stage.steady(PARENTS, 2).await?;
    ensure!(counts(&calls).len() == 2 && wanderers(&calls) == 0, "{:?}", counts(&calls));
    condition(&stage.ctx, "things", ["EndpointsReady", "False", "LeftOut"]).await?;
    // What was under way was asked again at another one, at once.
    let errors = stage.scrape()?.sum("controller_runtime_reconcile_errors_total", &[]);
    ensure!(errors == 0.0, "{errors} syncs failed");
    Ok(())
}

async fn by_name(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::new(ctx, 1).await?;
    // No EndpointSlice: the Service's name is resolved, as `--hook-resolve` could say; here nobody does.
    stage.controller(&json!({}), &json!({})).await?;
    stage.create(1).await?;
    let text = condition(&stage.ctx, "things", ["EndpointsReady", "False", "NoneAnswers"]).await?;
    ensure!(text.contains("hook"), "{text}");
    condition(&stage.ctx, "things", ["HookReachable", "False", "NameNotResolved"]).await?;
    stage.start(&[0], &[]).await?;
    stage.replicas.publish(&[0], &[]).await?;
    stage.all_called(1, Duration::ZERO).await?;
    condition(&stage.ctx, "things", ["EndpointsReady", "True", "Ready"]).await?;
    Ok(())
}
