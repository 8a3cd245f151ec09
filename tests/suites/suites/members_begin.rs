//! How a member begins with what it has become the owner of: what it lists, what it does where a list fails, which older
//! children it finds, what it reads after its work was cut off, and how much of one shard it does at once.
//!
//! Never more than one member: what several do together is in the other suites of members.

use std::time::{Duration, Instant};

use anyhow::ensure;
use http::Method;
use serde_json::{Value, json};

use super::faults_hook::{conditions_say, well};
use super::scene::{LATER, SOON, Scene, config_map, obey};
use crate::cluster::Context;
use crate::gate::{Act, Ask, Asked, Gate, back_off};
use crate::hook::Call;
use crate::members::check::shard_of;
use crate::scrape::{Scrape, free_port};
use crate::trial::Case;

/// Older children of one parent: more than a page of whole objects holds.
const OLDER: usize = 600;
/// The shortest first pause before caches are checked again.
const LEAST: Duration = Duration::from_millis(500);
/// Checks in vain whose distances are looked at.
const TRIES: usize = 4;
/// Parents of one shard, and as many of others.
const EACH: usize = 5;
/// How long the hook takes for each of them.
const SLOW: Duration = Duration::from_millis(300);
/// A Lease that lapses soon.
const TERMS: [&str; 3] = ["--lease-duration=5s", "--renew-deadline=2s", "--retry-period=500ms"];

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("members_begin", "a_whole_lists_each_kind_once", lists_once),
        Case::new("members_begin", "a_whole_that_cannot_be_checked_is_told", unchecked_whole),
        Case::new("members_begin", "shards_that_cannot_be_checked_are_told", unchecked_shards),
        Case::new("members_begin", "parents_that_cannot_be_looked_for_are_told", unsearched_shards),
        Case::new("members_begin", "older_children_beyond_a_page_are_found", older_children),
        Case::new("members_begin", "a_write_that_was_cut_off_is_read_first", cut_off),
        Case::new("members_begin", "a_shard_has_no_more_syncs_at_once_than_its_bound", bounded),
    ]
}

fn is_of(ask: &Ask, plural: &str) -> bool {
    ask.path.ends_with(&format!("/{plural}"))
}

/// A list by pages, not by a watch: its first, as others' objects may fill more.
fn is_paged(ask: &Ask) -> bool {
    let query = &ask.query;
    ask.method == Method::GET && !ask.is_watch() && query.contains("limit=") && !query.contains("continue=")
}

/// The search for objects without a label.
fn is_search(ask: &Ask) -> bool {
    is_paged(ask) && ask.query.contains("notin")
}

/// The lists of a kind so far, by pages or by a watch.
fn lists(gate: &Gate, plural: &str) -> usize {
    let is_list = |ask: &Ask| is_paged(ask) || ask.query.contains("sendInitialEvents=true");
    gate.asked(|asked| is_of(&asked.ask, plural) && is_list(&asked.ask)).len()
}

async fn lists_once(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.thing("a", json!({ "children": [config_map("a", json!({}))] })).await?;
    scene.ctx.controller("first", scene.spec("InPlace")).await?;
    scene.synced("a").await?;
    let now = || ["things", "configmaps"].map(|plural| lists(&gate, plural));
    ensure!(now() == [1, 1], "the first to have a kind needs no other list: {:?}", now());
    // What others share may lag: it is checked once.
    scene.ctx.controller("second", scene.spec("InPlace")).await?;
    well(&scene.ctx, "second").await?;
    ensure!(now() == [2, 2], "what was there before is checked: {:?}", now());
    Ok(())
}

/// Waits until so many requests were refused.
async fn refused(scene: &Scene, gate: &Gate, which: impl Fn(&Ask) -> bool) -> anyhow::Result<Vec<Asked>> {
    let ask = async || {
        let asked = gate.asked(|asked| asked.act != Act::Pass && which(&asked.ask));
        ensure!(asked.len() >= TRIES, "{} requests", asked.len());
        Ok(asked)
    };
    scene.ctx.wait("it is tried again and again", LATER, ask).await
}

async fn unchecked_whole(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.thing("a", json!({})).await?;
    scene.ctx.controller("first", scene.spec("InPlace")).await?;
    scene.synced("a").await?;
    let watches = || gate.asked(|asked| asked.ask.is_watch() && is_of(&asked.ask, "configmaps")).len();
    let before = watches();
    let checks = |ask: &Ask| is_paged(ask) && is_of(ask, "configmaps");
    gate.set(move |ask| if checks(ask) { Act::Refuse(500, None) } else { Act::Pass });
    let second = scene.ctx.controller("second", scene.spec("InPlace")).await?;
    scene.condition("second", ["Ready", "False", "CheckFailing"]).await?;
    conditions_say(&scene, "second", &["configmaps", "refused by the trial"]).await?;
    scene.event(&second, "CreateError", &["configmaps", "refused by the trial"]).await?;
    back_off(&refused(&scene, &gate, checks).await?[..TRIES], LEAST)?;
    ensure!(watches() == before, "{} watches instead of {before}", watches());
    gate.open();
    well(&scene.ctx, "second").await
}

/// Parents that nobody can look for: those that are seen as they change are served all the same.
async fn unsearched_shards(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    let checks = |ask: &Ask| is_search(ask) && is_of(ask, "things");
    gate.set(move |ask| if checks(ask) { Act::Refuse(500, None) } else { Act::Pass });
    let mut spec = scene.spec("InPlace");
    spec["sharding"] = json!({});
    let controller = scene.ctx.controller("c", spec).await?;
    scene.condition("c", ["Ready", "False", "CheckFailing"]).await?;
    conditions_say(&scene, "c", &["without a label", "things", "refused by the trial"]).await?;
    scene.event(&controller, "CreateError", &["without a label", "refused by the trial"]).await?;
    scene.thing("a", json!({ "children": [config_map("a", json!({}))] })).await?;
    scene.map("a", "is made", |_| Ok(())).await?;
    back_off(&refused(&scene, &gate, checks).await?[..TRIES], LEAST)?;
    gate.open();
    scene.condition("c", ["Ready", "True", "Running"]).await.map(drop)
}

async fn unchecked_shards(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.thing("a", json!({ "children": [config_map("a", json!({}))] })).await?;
    let checks = |ask: &Ask| is_paged(ask) && is_of(ask, "things");
    gate.set(move |ask| if checks(ask) { Act::Refuse(500, None) } else { Act::Pass });
    let mut spec = scene.spec("InPlace");
    spec["sharding"] = json!({});
    let controller = scene.ctx.controller("c", spec).await?;
    scene.condition("c", ["Ready", "False", "CheckFailing"]).await?;
    conditions_say(&scene, "c", &["shards", "things", "refused by the trial"]).await?;
    scene.event(&controller, "CreateError", &["things", "refused by the trial"]).await?;
    back_off(&refused(&scene, &gate, checks).await?[..TRIES], LEAST)?;
    ensure!(scene.hook.count() == 0, "a parent was synced before all was known of its shard");
    gate.set(move |ask| if checks(ask) { Act::Refuse(403, None) } else { Act::Pass });
    scene.condition("c", ["Ready", "False", "Forbidden"]).await?;
    conditions_say(&scene, "c", &["things", "grant"]).await?;
    gate.open();
    scene.map("a", "is made", |_| Ok(())).await?;
    scene.condition("c", ["Ready", "True", "Running"]).await.map(drop)
}

async fn older_children(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    // Nothing streams what has no label: only the search is left.
    gate.set(|ask| match () {
        () if is_of(ask, "configmaps") && ask.query.contains("labelSelector=%21") => Act::Refuse(500, None),
        () => Act::Pass,
    });
    for number in 0..OLDER {
        let mut map = config_map(&format!("older{number}"), json!({}));
        map["metadata"]["labels"] = json!({ "app": "x" });
        scene.ctx.admin.create(&scene.maps, map).await?;
    }
    let selector = json!({ "matchLabels": { "app": "x" } });
    let body = json!({ "metadata": { "name": "a" }, "spec": { "selector": selector } });
    scene.ctx.admin.create(&scene.things, body).await?;
    let mut spec = scene.spec("InPlace");
    (spec["generateSelector"], spec["sharding"]) = (false.into(), json!({}));
    scene.ctx.controller("c", spec).await?;
    // The hook wants no children: those that are adopted are deleted.
    let ask = async || {
        let left = scene.ctx.admin.list(&scene.maps, "labelSelector=app%3Dx").await?.len();
        ensure!(left == 0, "{left} of {OLDER} are left");
        Ok(())
    };
    scene.ctx.wait("all older children are found", LATER, ask).await?;
    let first = |request: &Value| {
        let seen = &request["children"]["ConfigMap.v1"];
        seen.as_object().map_or(0, serde_json::Map::len)
    };
    let calls = scene.hook.calls_for(&scene.key("a"));
    ensure!(calls.first().is_some_and(|call| first(&call.request) == OLDER), "the first call shows all of them");
    Ok(())
}

async fn cut_off(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &TERMS).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    scene.condition("c", ["Ready", "True", "Running"]).await?;
    let makes = |ask: &Ask| ask.method == Method::POST && is_of(ask, "configmaps") && ask.writes("a");
    gate.set(move |ask| if makes(ask) { Act::Hang } else { Act::Pass });
    scene.thing("a", json!({ "children": [config_map("a", json!({}))] })).await?;
    let sent = async || {
        ensure!(!gate.asked(|asked| makes(&asked.ask)).is_empty(), "nothing was sent");
        Ok(())
    };
    scene.ctx.wait("the child is sent", SOON, sent).await?;
    // Only now: a kind that is new may be watched late.
    gate.set(move |ask| match () {
        () if makes(ask) => Act::Hang,
        () if ask.path.contains("/leases/") && ask.method == Method::PUT => Act::Refuse(500, None),
        () => Act::Pass,
    });
    scene.ringmaster.wait_log(&scene.ctx, "the Lease wasn't renewed in time", SOON).await?;
    gate.open();
    scene.map("a", "is made", |_| Ok(())).await?;
    let of_it = gate.asked(|asked| makes(&asked.ask) || asked.ask.path.ends_with("/configmaps/a"));
    let in_order: Vec<&Method> = of_it.iter().map(|asked| &asked.ask.method).take(3).collect();
    ensure!(in_order == [Method::POST, Method::GET, Method::POST], "{of_it:?}");
    Ok(())
}

async fn bounded(ctx: Context) -> anyhow::Result<()> {
    let port = free_port()?;
    let scene = Scene::with_args(ctx, &[format!("--metrics-address=127.0.0.1:{port}")]).await?;
    scene.hook.set(|request, call| obey(request, call).delay(SLOW));
    // So many of one shard, and as many of others.
    let shard = |name: &str| shard_of(scene.things.group(), "Thing", &scene.key(name));
    let (mut same, mut others): (Vec<String>, Vec<String>) = (Vec::new(), Vec::new());
    let first = shard("n0");
    for name in (0..).map(|number| format!("n{number}")) {
        let group = if shard(&name) == first { &mut same } else { &mut others };
        if group.len() < EACH {
            group.push(name);
        }
        if same.len() == EACH && others.len() == EACH {
            break;
        }
    }
    for name in same.iter().chain(&others) {
        scene.thing(name, json!({ "children": [config_map(name, json!({}))] })).await?;
    }
    let mut spec = scene.spec("InPlace");
    spec["sharding"] = json!({ "concurrencyPerShard": 1 });
    scene.ctx.controller("c", spec).await?;
    let held = async || {
        let scrape = Scrape::of(&format!("http://127.0.0.1:{port}/metrics"))?;
        let held = scrape.sum("ringmaster_queue_held", &[]);
        ensure!(held >= 1.0, "{held}");
        Ok(())
    };
    scene.ctx.wait("some are held back", SOON, held).await?;
    for name in same.iter().chain(&others) {
        scene.map(name, "is made", |_| Ok(())).await?;
    }
    scene.quiet().await?;
    let calls = scene.hook.calls();
    let at_once = |which: &dyn Fn(&Call) -> bool| {
        let calls: Vec<&Call> = calls.iter().filter(|call| which(call)).collect();
        let during =
            |at: Instant| calls.iter().filter(|c| c.started <= at && c.ended.is_none_or(|end| at < end)).count();
        calls.iter().map(|call| during(call.started)).max().unwrap_or_default()
    };
    let in_shard = |call: &Call| shard_of(scene.things.group(), "Thing", &call.key()) == first;
    ensure!(at_once(&in_shard) == 1, "{} at once", at_once(&in_shard));
    ensure!(at_once(&|_| true) > 1, "others wait behind it");
    Ok(())
}
