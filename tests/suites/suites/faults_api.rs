//! An API server that answers badly, late or not at all, one trial each: the cause is told, others go on, retries back
//! off, nothing is made twice or deleted, and all is well once the fault has gone.
//!
//! Never about what the API server refuses for a reason: see `faults_kinds`, `faults_rights` and `faults_children`.

use std::time::Duration;

use anyhow::ensure;
use http::Method;
use serde_json::{Value, json};

use super::faults_hook::{conditions_say, well};
use super::scene::{LATER, Scene, config_map};
use crate::cluster::{Context, Scope};
use crate::gate::{Act, Ask, Asked, Gate, back_off};
use crate::objects::Resource;
use crate::process::Ringmaster;
use crate::trial::Case;
use crate::wait;

/// For trials that wait for time limits of a minute.
const SLOW: Duration = Duration::from_secs(420);
/// The longest that a watch may say nothing before it is given up, and then some: see `core::watch` and `cluster::pump`.
const SILENCE: Duration = Duration::from_secs(75);
/// A write or the head of a watch is given up after half a minute, and told at the latest when it fails again.
const GIVEN_UP: Duration = Duration::from_secs(100);
/// How long the API server is away in the trial that says so.
const AWAY: Duration = Duration::from_secs(60);
/// What may be asked for in vain while it is away: eight watches and thirty parents, each a handful of times.
const ASKED_IN_VAIN: usize = 400;
/// What Retry-After says here, in seconds.
const RETRY_AFTER: u64 = 3;
/// Children of one parent: more than fit into a page.
const MANY: usize = 600;
/// Requests under a fault whose distances are looked at.
const TRIES: usize = 4;

/// The shortest pause before a repetition.
const LEAST: Duration = Duration::from_millis(50);

/// What happens to requests, and what is said of it.
struct Fault {
    name: &'static str,
    act: Act,
    words: &'static [&'static str],
    /// How far a repeated request is from the one before at least, and whether that doubles.
    least: Duration,
    is_slow: bool,
}

const fn fault(name: &'static str, act: Act, words: &'static [&'static str]) -> Fault {
    Fault { name, act, words, least: LEAST, is_slow: false }
}

const WRITES: &[Fault] = &[
    Fault {
        least: Duration::from_secs(RETRY_AFTER),
        ..fault("writes_answered_429", Act::Refuse(429, Some(RETRY_AFTER)), &["refused by the trial", "429"])
    },
    fault("writes_answered_500", Act::Refuse(500, None), &["refused by the trial", "500"]),
    fault("writes_answered_503", Act::Refuse(503, None), &["refused by the trial", "503"]),
    Fault { is_slow: true, ..fault("writes_never_answered", Act::Hang, &["no answer within"]) },
];

const WATCHES: &[Fault] = &[
    Fault {
        least: Duration::from_secs(RETRY_AFTER),
        ..fault("watches_answered_429", Act::Refuse(429, Some(RETRY_AFTER)), &["refused by the trial", "429"])
    },
    fault("watches_answered_500", Act::Refuse(500, None), &["refused by the trial", "500"]),
    fault("watches_answered_503", Act::Refuse(503, None), &["refused by the trial", "503"]),
    Fault { is_slow: true, ..fault("watches_never_answered", Act::Hang, &["no answer within"]) },
];

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let limit = |case: Case, fault: &Fault| if fault.is_slow { case.timeout(SLOW) } else { case };
    let writes = WRITES.iter().map(|f| limit(Case::new("faults_api", f.name, move |ctx| writes(ctx, f)), f));
    let watches = WATCHES.iter().map(|f| limit(Case::new("faults_api", f.name, move |ctx| watches(ctx, f)), f));
    let more = [
        Case::new("faults_api", "answers_to_writes_are_lost", answers_are_lost),
        Case::new("faults_api", "reads_answered_500", reads_answered_500),
        Case::new("faults_api", "updates_conflict_all_the_time", updates_conflict),
        Case::new("faults_api", "list_fails_halfway", list_fails_halfway),
        Case::new("faults_api", "events_answered_403", events_answered_403),
        Case::new("faults_api", "controllers_answered_403", controllers_answered_403),
        Case::new("faults_api", "statuses_answered_500", statuses_answered_500),
        Case::new("faults_api", "everything_answered_500", everything_answered_500),
        Case::new("faults_api", "watches_break_all_the_time", watches_break),
        Case::new("faults_api", "watch_says_nothing", watch_says_nothing).timeout(SLOW),
        Case::new("faults_api", "away_for_a_minute", away_for_a_minute).own_server().timeout(SLOW),
        Case::new("faults_api", "away_at_the_start", away_at_the_start).own_server().timeout(SLOW),
    ];
    writes.chain(watches).chain(more).collect()
}

/// A thing that wants a ConfigMap of its own name.
async fn thing(scene: &Scene, name: &str) -> anyhow::Result<Value> {
    scene.thing(name, json!({ "children": [config_map(name, json!({ "x": "1" }))] })).await
}

async fn made(scene: &Scene, name: &str, deadline: Duration) -> anyhow::Result<Value> {
    let ask = async || scene.ctx.admin.get(&scene.maps, name).await;
    scene.ctx.wait(&format!("ConfigMap {name} is made"), deadline, ask).await
}

/// The creations that were carried out of what has this name.
pub(super) fn creations(gate: &Gate, name: &str) -> usize {
    gate.asked(|asked| asked.ask.method == Method::POST && asked.ask.writes(name) && asked.code == Some(201)).len()
}

pub(super) fn no_deletions(scene: &Scene) -> anyhow::Result<()> {
    let deletes: Vec<_> = scene.ctx.all_requests()?.into_iter().filter(|r| r.verb.starts_with("delete")).collect();
    ensure!(deletes.is_empty(), "{deletes:?}");
    Ok(())
}

/// So many requests under the fault, in time.
pub(super) async fn tries(
    scene: &Scene,
    gate: &Gate,
    times: usize,
    deadline: Duration,
    which: impl Fn(&Ask) -> bool,
) -> anyhow::Result<Vec<Asked>> {
    let ask = async || {
        let asked = gate.asked(|asked| asked.act != Act::Pass && which(&asked.ask));
        ensure!(asked.len() >= times, "{} requests", asked.len());
        Ok(asked)
    };
    scene.ctx.wait(&format!("it is tried {times} times"), deadline, ask).await
}

/// Without the first of two tries that are closer than `least`: a child that it made may show behind it, which is a change
/// like any other, at which all is tried at once.
pub(super) fn settled(asked: &[Asked], least: Duration) -> &[Asked] {
    match asked {
        [first, second, ..] if second.at - first.at < least => &asked[1..],
        all => all,
    }
}

fn far_enough(fault: &Fault, asked: &[Asked]) -> anyhow::Result<()> {
    let asked = settled(asked, fault.least);
    match fault.act {
        Act::Refuse(_, Some(_)) => asked.windows(2).try_for_each(|pair| back_off(pair, fault.least)),
        _ => back_off(&asked[..asked.len().min(TRIES)], fault.least),
    }
}

async fn writes(ctx: Context, fault: &'static Fault) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    thing(&scene, "first").await?;
    made(&scene, "first", LATER).await?;
    let act = fault.act;
    // The child alone: it has its parent's name.
    gate.set(move |ask| if ask.writes("bad") && ask.path.contains("configmaps") { act } else { Act::Pass });
    let bad = thing(&scene, "bad").await?;
    let times = if fault.is_slow { 1 } else { TRIES };
    tries(&scene, &gate, times, LATER, |_| true).await?;
    // Others of the same controller go on meanwhile.
    thing(&scene, "good").await?;
    made(&scene, "good", LATER).await?;
    let words: Vec<&str> = ["configmaps"].iter().chain(fault.words).copied().collect();
    if fault.is_slow {
        conditions_say(&scene, "c", &words).await?;
    }
    scene.event(&bad, "SyncError", &words).await?;
    conditions_say(&scene, "c", &[&["1 of 3"], &*words].concat()).await?;
    far_enough(fault, &tries(&scene, &gate, times, LATER, |_| true).await?)?;
    gate.open();
    // One that hangs must be given up first.
    made(&scene, "bad", if fault.is_slow { GIVEN_UP } else { LATER }).await?;
    well(&scene.ctx, "c").await?;
    ensure!(creations(&gate, "bad") == 1, "{:#?}", gate.asked(|asked| asked.ask.writes("bad")));
    no_deletions(&scene)?;
    scene.quiet().await?;
    scene.no_call("all is as it shall be").await
}

/// Two controllers: `c` from things to ConfigMaps, and `other` from another kind to nothing. The kind, and what is to be
/// asked of it: is it served?
async fn other(scene: &Scene) -> anyhow::Result<Resource> {
    let others = scene.ctx.crd("Other", "others", Scope::Namespaced, None).await?;
    scene.ctx.grant(&Context::rules_for(&[&others])).await?;
    let mut spec = scene.spec("InPlace");
    spec["parentResource"] = json!({ "apiVersion": others.api_version, "resource": "others" });
    spec["childResources"] = json!([]);
    scene.ctx.controller("other", spec).await?;
    scene.condition("other", ["Ready", "True", "Running"]).await?;
    Ok(others)
}

async fn served(scene: &Scene, others: &Resource, name: &str) -> anyhow::Result<()> {
    let body = json!({ "metadata": { "name": name }, "spec": { "reply": { "status": { "x": 1 } } } });
    scene.ctx.admin.create(others, body).await?;
    let ask = async || {
        let other = scene.ctx.admin.get(others, name).await?;
        ensure!(other["status"]["x"] == 1, "{other}");
        Ok(())
    };
    scene.ctx.wait(&format!("the other controller serves {name}"), LATER, ask).await
}

async fn watches(ctx: Context, fault: &'static Fault) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    thing(&scene, "first").await?;
    made(&scene, "first", LATER).await?;
    let others = other(&scene).await?;
    let act = fault.act;
    gate.set(move |ask| if ask.is_watch() && ask.path.contains("configmaps") { act } else { Act::Pass });
    gate.cut_streams();
    let times = if fault.is_slow { 2 } else { TRIES };
    let deadline = if fault.is_slow { GIVEN_UP * 2 } else { LATER };
    tries(&scene, &gate, times, deadline, |_| true).await?;
    // Not seen for now.
    let before = scene.ctx.admin.get(&scene.maps, "first").await?;
    scene.ctx.admin.delete(&scene.maps, "first").await?;
    // Others go on, and so do parents of the same controller.
    served(&scene, &others, "o").await?;
    thing(&scene, "second").await?;
    made(&scene, "second", LATER).await?;
    let says = async || {
        let name = scene.ctx.controller_name("c");
        let controller = scene.ctx.admin.get(&Context::controllers(), &name).await?;
        let text = controller["status"]["conditions"].to_string();
        ensure!(fault.words.iter().all(|word| text.contains(word)), "{text}");
        ensure!(text.contains("spec.childResources[0] can't be watched"), "{text}");
        Ok(())
    };
    scene.ctx.wait("the condition tells of the watch", if fault.is_slow { GIVEN_UP } else { LATER }, says).await?;
    far_enough(fault, &tries(&scene, &gate, times, LATER, |_| true).await?)?;
    scene.condition("other", ["Ready", "True", "Running"]).await?;
    gate.open();
    // One that hangs must be given up first.
    let again = made(&scene, "first", if fault.is_slow { GIVEN_UP } else { LATER }).await?;
    ensure!(again["metadata"]["uid"] != before["metadata"]["uid"]);
    well(&scene.ctx, "c").await?;
    no_deletions(&scene)?;
    scene.quiet().await.map(drop)
}

async fn answers_are_lost(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    let mut spec = scene.spec("InPlace");
    spec["applyStrategy"] = "Merge".into();
    scene.ctx.controller("c", spec).await?;
    thing(&scene, "first").await?;
    made(&scene, "first", LATER).await?;
    gate.set(|ask| if ask.writes("bad") { Act::Lose } else { Act::Pass });
    let bad = thing(&scene, "bad").await?;
    made(&scene, "bad", LATER).await?;
    // What was carried out is found, not done again.
    scene.synced("bad").await?;
    scene.wants("bad", json!({ "children": [config_map("bad", json!({ "x": "2" }))] })).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "2", "{}", map["data"]);
        Ok(())
    };
    scene.map("bad", "is updated", check).await?;
    scene.synced("bad").await?;
    scene.event(&bad, "SyncError", &["configmaps"]).await?;
    well(&scene.ctx, "c").await?;
    scene.quiet().await?;
    let lost = gate.asked(|asked| asked.act == Act::Lose);
    let count = |method: Method, part: &str| {
        lost.iter().filter(|asked| asked.ask.method == method && asked.ask.path.contains(part)).count()
    };
    let counts =
        (count(Method::POST, "/configmaps"), count(Method::PUT, "/configmaps"), count(Method::PATCH, "/status"));
    ensure!(counts == (1, 1, 2), "creates, updates, statuses: {counts:?}: {lost:#?}");
    no_deletions(&scene)
}

/// What was carried out and lost can't be looked at either.
async fn reads_answered_500(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    thing(&scene, "first").await?;
    made(&scene, "first", LATER).await?;
    gate.set(|ask| match () {
        () if !ask.path.contains("configmaps") || ask.is_watch() => Act::Pass,
        () if ask.method == Method::GET => Act::Refuse(500, None),
        () => Act::Lose,
    });
    let bad = thing(&scene, "bad").await?;
    scene.event(&bad, "SyncError", &["GET", "configmaps/bad", "500"]).await?;
    conditions_say(&scene, "c", &["1 of 2", "configmaps/bad"]).await?;
    let reads = tries(&scene, &gate, TRIES, LATER, |ask| ask.method == Method::GET).await?;
    back_off(&reads[..TRIES], LEAST)?;
    gate.open();
    scene.synced("bad").await?;
    well(&scene.ctx, "c").await?;
    ensure!(creations(&gate, "bad") == 1, "{:#?}", gate.asked(|asked| asked.ask.writes("bad")));
    no_deletions(&scene)
}

async fn updates_conflict(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    let mut spec = scene.spec("InPlace");
    spec["applyStrategy"] = "Merge".into();
    scene.ctx.controller("c", spec).await?;
    thing(&scene, "good").await?;
    let bad = thing(&scene, "bad").await?;
    made(&scene, "bad", LATER).await?;
    scene.synced("bad").await?;
    let updates = |ask: &Ask| ask.method == Method::PUT && ask.writes("bad");
    gate.set(move |ask| if updates(ask) { Act::Refuse(409, None) } else { Act::Pass });
    let two = |name: &str| json!({ "children": [config_map(name, json!({ "x": "2" }))] });
    scene.wants("bad", two("bad")).await?;
    let asked = tries(&scene, &gate, TRIES, LATER, updates).await?;
    back_off(&asked[..TRIES], LEAST)?;
    scene.wants("good", two("good")).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "2", "{}", map["data"]);
        Ok(())
    };
    scene.map("good", "is updated", check).await?;
    // A race now and then is nobody's business; one that is lost every time is, with the object.
    scene.event(&bad, "SyncError", &["configmaps/bad", "409"]).await?;
    gate.open();
    scene.map("bad", "is updated", check).await?;
    well(&scene.ctx, "c").await?;
    no_deletions(&scene)
}

async fn list_fails_halfway(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    // More than a page of children, which nobody has seen when the controller begins.
    let children: Vec<Value> = (0..MANY).map(|n| config_map(&format!("a{n}"), json!({ "x": "1" }))).collect();
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    scene.thing("p", json!({ "children": children })).await?;
    let all = async || {
        let maps = scene.ctx.admin.list(&scene.maps, "resourceVersion=0").await?;
        ensure!(maps.len() == MANY, "{} of {MANY}", maps.len());
        Ok(())
    };
    scene.ctx.wait("all are made", LATER, all).await?;
    scene.synced("p").await?;
    scene.quiet().await?;
    scene.ctx.admin.delete(&Context::controllers(), &scene.ctx.controller_name("c")).await?;
    let stopped = |text: &'static str| scene.ringmaster.wait_log(&scene.ctx, text, LATER);
    stopped("stopped").await?;
    // No streamed list, and of the pages no second one.
    gate.set(|ask| match () {
        () if ask.query.contains("sendInitialEvents") && ask.path.contains("configmaps") => Act::Refuse(422, None),
        () if ask.query.contains("continue=") => Act::Refuse(500, None),
        () => Act::Pass,
    });
    let calls = scene.hook.count();
    let mark = scene.ctx.mark()?;
    scene.ctx.controller("again", scene.spec("InPlace")).await?;
    let pages = tries(&scene, &gate, TRIES, LATER, |ask| ask.query.contains("continue=")).await?;
    back_off(&pages[..TRIES], LEAST)?;
    conditions_say(&scene, "again", &["spec.childResources[0]", "500"]).await?;
    ensure!(scene.hook.count() == calls, "a controller that has seen half of its children called its hook");
    gate.open();
    well(&scene.ctx, "again").await?;
    let ask = async || {
        ensure!(scene.hook.count() > calls, "no call");
        Ok(())
    };
    scene.ctx.wait("the hook is called", LATER, ask).await?;
    scene.quiet().await?;
    let mut writes = scene.ctx.requests(mark)?;
    writes.retain(|request| request.resource == "configmaps" && request.is_write());
    ensure!(writes.is_empty(), "{writes:?}");
    no_deletions(&scene)
}

async fn events_answered_403(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    gate.set(|ask| if ask.path.ends_with("/events") { Act::Refuse(403, None) } else { Act::Pass });
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let mut bad = Vec::new();
    for number in 0..6 {
        bad.push(scene.thing(&format!("p{number}"), json!({ "children": [{ "kind": "Odd" }] })).await?);
    }
    thing(&scene, "good").await?;
    made(&scene, "good", LATER).await?;
    let line = scene.ringmaster.wait_log(&scene.ctx, "events can't be posted", LATER).await?;
    ensure!(line.contains("refused by the trial"), "{line}");
    gate.open();
    scene.event(&bad[0], "SyncError", &["children[0]"]).await.map(drop)
}

async fn controllers_answered_403(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    gate.set(|ask| {
        let controllers = ask.path.ends_with("/compositecontrollers") && ask.path.contains("ringmaster.dev");
        if controllers { Act::Refuse(403, None) } else { Act::Pass }
    });
    gate.cut_streams();
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    thing(&scene, "first").await?;
    let line = scene.ringmaster.wait_log(&scene.ctx, "watching fails", LATER).await?;
    ensure!(line.contains("compositecontrollers") && line.contains("403"), "{line}");
    let asked = tries(&scene, &gate, TRIES, LATER, |_| true).await?;
    back_off(&asked[..TRIES], LEAST)?;
    gate.open();
    made(&scene, "first", LATER).await?;
    well(&scene.ctx, "c").await
}

async fn statuses_answered_500(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    // Of parents and of controllers alike.
    let of_others = |ask: &Ask| ask.path.ends_with("/status") && !ask.path.contains("/shardtables/");
    gate.set(move |ask| if of_others(ask) { Act::Refuse(500, None) } else { Act::Pass });
    let first = thing(&scene, "first").await?;
    // Children don't wait for it.
    made(&scene, "first", LATER).await?;
    scene.event(&first, "SyncError", &["things/first/status", "500"]).await?;
    let asked = tries(&scene, &gate, TRIES + 1, LATER, |ask| ask.writes("first")).await?;
    back_off(&settled(&asked, LEAST)[..TRIES], LEAST)?;
    let name = scene.ctx.controller_name("c");
    let asked = tries(&scene, &gate, TRIES, LATER, |ask| ask.writes(&name)).await?;
    back_off(&asked[..TRIES], Duration::from_secs(1))?;
    gate.open();
    scene.synced("first").await?;
    well(&scene.ctx, "c").await?;
    no_deletions(&scene)
}

async fn everything_answered_500(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    thing(&scene, "first").await?;
    let first = made(&scene, "first", LATER).await?;
    scene.synced("first").await?;
    gate.set(|_| Act::Refuse(500, None));
    gate.cut_streams();
    let cpu = scene.ringmaster.cpu()?;
    thing(&scene, "second").await?;
    scene.ctx.admin.patch_merge(&scene.maps, "first", &json!({ "data": { "x": "theirs" } })).await?;
    scene.ringmaster.wait_log(&scene.ctx, "watching fails", LATER).await?;
    tries(&scene, &gate, 8 * TRIES, LATER, |_| true).await?;
    let watches =
        gate.asked(|asked| asked.act != Act::Pass && asked.ask.is_watch() && asked.ask.path.contains("things"));
    back_off(&watches[..watches.len().min(TRIES)], LEAST)?;
    let used = scene.ringmaster.cpu()?.saturating_sub(cpu);
    ensure!(used < Duration::from_secs(2), "{used:?} of CPU time");
    gate.open();
    made(&scene, "second", LATER).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "1", "{}", map["data"]);
        ensure!(map["metadata"]["uid"] == first["metadata"]["uid"], "it was made anew");
        Ok(())
    };
    scene.map("first", "is put right", check).await?;
    well(&scene.ctx, "c").await?;
    no_deletions(&scene)
}

async fn watches_break(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    scene.condition("c", ["Ready", "True", "Running"]).await?;
    for number in 0..20 {
        gate.cut_streams();
        let name = format!("p{number}");
        thing(&scene, &name).await?;
        made(&scene, &name, LATER).await?;
    }
    scene.quiet().await?;
    // A stream that breaks goes on from where it was.
    let lists = gate.asked(|asked| asked.ask.query.contains("sendInitialEvents") && asked.ask.path.contains("things"));
    ensure!(lists.len() == 1, "{lists:#?}");
    for number in 0..20 {
        ensure!(creations(&gate, &format!("p{number}")) == 1);
    }
    well(&scene.ctx, "c").await?;
    no_deletions(&scene)
}

async fn watch_says_nothing(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    thing(&scene, "first").await?;
    let first = made(&scene, "first", LATER).await?;
    scene.synced("first").await?;
    gate.silence_streams();
    scene.ctx.admin.patch_merge(&scene.maps, "first", &json!({ "data": { "x": "theirs" } })).await?;
    thing(&scene, "second").await?;
    made(&scene, "second", SILENCE).await?;
    let ask = async || {
        let map = scene.ctx.admin.get(&scene.maps, "first").await?;
        ensure!(map["data"]["x"] == "1", "{}", map["data"]);
        ensure!(map["metadata"]["uid"] == first["metadata"]["uid"], "it was made anew");
        Ok(())
    };
    scene.ctx.wait("the change is seen", SILENCE, ask).await?;
    well(&scene.ctx, "c").await?;
    no_deletions(&scene)?;
    scene.ringmaster.check()
}

async fn away_for_a_minute(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    let mut spec = scene.spec("InPlace");
    // Syncs go on with what is known, and fail.
    spec["resyncPeriodSeconds"] = 5.into();
    scene.ctx.controller("c", spec).await?;
    let names: Vec<String> = (0..30).map(|number| format!("p{number}")).collect();
    for name in &names {
        thing(&scene, name).await?;
    }
    let mut before = Vec::new();
    for name in &names {
        before.push(made(&scene, name, LATER).await?["metadata"]["uid"].clone());
        scene.synced(name).await?;
    }
    // What the hook wants from now on can't be had.
    let (cpu, rss) = (scene.ringmaster.cpu()?, scene.ringmaster.rss_kib()?);
    scene.ctx.server.stop_api(true)?;
    scene.hook.set(|request, info| {
        let mut request = request.clone();
        request["parent"]["spec"]["reply"]["children"][0]["data"]["x"] = "2".into();
        super::scene::obey(&request, info)
    });
    let calls = scene.hook.count();
    let line = scene.ringmaster.wait_log(&scene.ctx, "the API server can't be reached", LATER).await?;
    ensure!(line.contains("trying again"), "{line}");
    wait::stays("Ringmaster runs while the API server is away", AWAY, async || scene.ringmaster.check()).await?;
    let used = scene.ringmaster.cpu()?.saturating_sub(cpu);
    ensure!(used < Duration::from_secs(6), "{used:?} of CPU time");
    let calls = scene.hook.count() - calls;
    ensure!(calls < ASKED_IN_VAIN, "{calls} calls of the hook while nothing could be written");
    let grown = scene.ringmaster.rss_kib()?.saturating_sub(rss);
    ensure!(grown < 16 << 10, "it grew by {grown} KiB");
    scene.ctx.server.start_api()?;
    scene.ctx.server.ready().await?;
    scene.ringmaster.wait_log(&scene.ctx, "the API server is reached again", LATER * 2).await?;
    for (name, uid) in names.iter().zip(&before) {
        let ask = async || {
            let map = scene.ctx.admin.get(&scene.maps, name).await?;
            ensure!(map["data"]["x"] == "2", "{}", map["data"]);
            ensure!(map["metadata"]["uid"] == *uid, "it was made anew");
            Ok(())
        };
        scene.ctx.wait(&format!("{name} is updated"), LATER * 2, ask).await?;
    }
    well(&scene.ctx, "c").await?;
    no_deletions(&scene)?;
    let log = scene.ringmaster.log()?;
    for text in ["the API server can't be reached", "the API server is reached again"] {
        ensure!(log.matches(text).count() == 1, "{text}: {} times", log.matches(text).count());
    }
    // One line a parent and doubling at most.
    ensure!(log.lines().count() < 400, "{} lines", log.lines().count());
    Ok(())
}

async fn away_at_the_start(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    thing(&scene, "first").await?;
    let first = made(&scene, "first", LATER).await?;
    scene.synced("first").await?;
    let Scene { ringmaster, hook, things, maps, ctx } = scene;
    ringmaster.stop().await?;
    ctx.server.stop_api(true)?;
    let ringmaster = Ringmaster::start(&ctx)?;
    ringmaster.wait_log(&ctx, "discovery fails", LATER).await?;
    wait::stays("it waits", Duration::from_secs(12), async || ringmaster.check()).await?;
    let log = ringmaster.log()?;
    ensure!(!log.contains("ready: all caches are synced"), "{log}");
    ctx.server.start_api()?;
    ctx.server.ready().await?;
    let scene = Scene { ringmaster, hook, things, maps, ctx };
    scene.ringmaster.wait_log(&scene.ctx, "ready: all caches are synced", LATER).await?;
    thing(&scene, "second").await?;
    made(&scene, "second", LATER).await?;
    let now = scene.ctx.admin.get(&scene.maps, "first").await?;
    ensure!(now["metadata"]["uid"] == first["metadata"]["uid"], "it was made anew");
    no_deletions(&scene)
}
