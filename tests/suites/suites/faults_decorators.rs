//! Decorators beneath which something fails, several failures a trial: writes that are refused or lost, rights that are
//! missing, kinds that come, go and change. Each cause is told, others go on, nothing is asked for in a hot loop, nothing is
//! made twice or deleted, and all is well once it is mended.
//!
//! Never about what a hook answers: see `faults_roles` and `faults_lists`.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use super::decorators::{declare, decorators, obey, ready, spec};
use super::faults_api::{creations, no_deletions, settled, tries};
use super::faults_kinds::{SLOW, crd_name, crds, patch_v2, remove, versions};
use super::scene::{LATER, Scene, config_map};
use crate::cluster::{Context, Scope};
use crate::gate::{Act, Ask, back_off};
use crate::objects::Resource;
use crate::server;
use crate::trial::Case;

/// Writes under a fault whose distances are looked at.
const TRIES: usize = 4;
/// The shortest pause before a repetition.
const LEAST: Duration = Duration::from_millis(50);
/// Calls of the hook for one object under a fault: backoff up to a minute.
const FEW: usize = 30;
/// Requests that may be refused until somebody has read the events, over five controllers.
const IN_VAIN: usize = 300;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("faults_decorators", "writes_are_refused_or_lost", writes),
        Case::new("faults_decorators", "watches_are_refused", watches),
        Case::new("faults_decorators", "rights_are_missing", rights).timeout(SLOW),
        Case::new("faults_decorators", "a_kind_of_attachments_comes_goes_and_comes_back", attachments).timeout(SLOW),
        Case::new("faults_decorators", "a_decorated_kind_loses_its_status_goes_and_comes_back", targets).timeout(SLOW),
        Case::new("faults_decorators", "the_version_of_a_decorated_kind_goes_and_comes_back", version_goes)
            .own_server()
            .timeout(SLOW),
    ]
}

/// What is written of an object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Attachment,
    Metadata,
    Status,
    All,
}

/// Writes that fail.
struct Broken {
    /// Of the object with this name, and with an attachment of this name.
    name: &'static str,
    part: Part,
    act: Act,
    /// What its event says; nothing where it isn't told at once.
    words: &'static [&'static str],
}

const fn broken(name: &'static str, part: Part, act: Act, words: &'static [&'static str]) -> Broken {
    Broken { name, part, act, words }
}

const BROKEN: &[Broken] = &[
    broken(
        "attachment-429",
        Part::Attachment,
        Act::Refuse(429, Some(1)),
        &["configmaps", "refused by the trial", "429"],
    ),
    broken("attachment-500", Part::Attachment, Act::Refuse(500, None), &["configmaps", "refused by the trial", "500"]),
    broken(
        "metadata-403",
        Part::Metadata,
        Act::Refuse(403, None),
        &["things/metadata-403", "refused by the trial", "403"],
    ),
    // A race now and then is nobody's business.
    broken("metadata-409", Part::Metadata, Act::Refuse(409, None), &[]),
    broken(
        "metadata-500",
        Part::Metadata,
        Act::Refuse(500, None),
        &["things/metadata-500", "refused by the trial", "500"],
    ),
    broken(
        "status-403",
        Part::Status,
        Act::Refuse(403, None),
        &["things/status-403/status", "refused by the trial", "403"],
    ),
    broken(
        "status-500",
        Part::Status,
        Act::Refuse(500, None),
        &["things/status-500/status", "refused by the trial", "500"],
    ),
    broken("lost", Part::All, Act::Lose, &["configmaps"]),
];

impl Broken {
    fn is_it(&self, ask: &Ask) -> bool {
        let is_part = match self.part {
            Part::Attachment => ask.path.contains("/configmaps"),
            Part::Metadata => ask.path.ends_with(&format!("/things/{}", self.name)),
            Part::Status => ask.path.ends_with("/status"),
            Part::All => true,
        };
        is_part && ask.writes(self.name)
    }
}

/// What all objects shall have, and an attachment of this name.
fn reply(name: &str) -> Value {
    let attachment = config_map(name, json!({ "x": "1" }));
    json!({ "labels": { "seen": "1" }, "status": { "x": 1 }, "attachments": [attachment] })
}

/// Waits until an object has all of it; answers with the attachment.
async fn decorated(scene: &Scene, kind: &Resource, name: &str) -> anyhow::Result<Value> {
    let ask = async || {
        let object = scene.ctx.admin.get(kind, name).await?;
        ensure!(object["metadata"]["labels"]["seen"] == "1" && object["status"]["x"] == 1, "{object}");
        scene.ctx.admin.get(&scene.maps, name).await
    };
    scene.ctx.wait(&format!("{} {name} is decorated", kind.kind), LATER, ask).await
}

/// Makes an object with this reply.
async fn make(scene: &Scene, kind: &Resource, name: &str, reply: Value) -> anyhow::Result<Value> {
    scene.ctx.admin.create(kind, json!({ "metadata": { "name": name }, "spec": { "reply": reply } })).await
}

/// Waits until a condition of a decorator says all `words`.
async fn says(scene: &Scene, decorator: &str, words: &[&str]) -> anyhow::Result<()> {
    let name = scene.ctx.controller_name(decorator);
    let ask = async || {
        let object = scene.ctx.admin.get(&decorators(), &name).await?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let mut messages = conditions.iter().filter_map(|condition| condition["message"].as_str());
        ensure!(messages.any(|message| words.iter().all(|word| message.contains(word))), "{conditions:?}");
        Ok(())
    };
    scene.ctx.wait(&format!("the conditions of {decorator} say {words:?}"), LATER, ask).await
}

/// Declares a decorator that may not become ready.
async fn declare_only(scene: &Scene, name: &str, spec: Value) -> anyhow::Result<Value> {
    let metadata = json!({ "name": scene.ctx.controller_name(name), "labels": { "suite": scene.ctx.id } });
    scene.ctx.admin.create(&decorators(), json!({ "metadata": metadata, "spec": spec })).await
}

/// The attachment is the very object that it was.
async fn untouched(scene: &Scene, before: &Value) -> anyhow::Result<()> {
    let name = before["metadata"]["name"].as_str().unwrap_or_default();
    let now = scene.ctx.admin.get(&scene.maps, name).await?;
    ensure!(now["metadata"]["resourceVersion"] == before["metadata"]["resourceVersion"], "it was touched: {now}");
    Ok(())
}

async fn writes(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.hook.set(obey);
    declare(&scene, "d", spec(&scene, "InPlace")).await?;
    make(&scene, &scene.things, "first", reply("first")).await?;
    decorated(&scene, &scene.things, "first").await?;
    scene.quiet().await?;
    let first = scene.ctx.admin.get(&scene.maps, "first").await?;
    gate.set(|ask| BROKEN.iter().find(|broken| broken.is_it(ask)).map_or(Act::Pass, |broken| broken.act));
    let mut things = Vec::new();
    for broken in BROKEN {
        things.push(make(&scene, &scene.things, broken.name, reply(broken.name)).await?);
    }
    // Others of the same controller go on meanwhile.
    make(&scene, &scene.things, "good", reply("good")).await?;
    decorated(&scene, &scene.things, "good").await?;
    for (broken, thing) in BROKEN.iter().zip(&things) {
        if !broken.words.is_empty() {
            scene.event(thing, "SyncError", broken.words).await?;
        }
    }
    says(&scene, "d", &["refused by the trial"]).await?;
    for broken in BROKEN.iter().filter(|broken| broken.act != Act::Lose) {
        let asked = tries(&scene, &gate, TRIES, LATER, |ask| broken.is_it(ask)).await?;
        if let Act::Refuse(_, Some(seconds)) = broken.act {
            let least = Duration::from_secs(seconds);
            settled(&asked, least).windows(2).try_for_each(|pair| back_off(pair, least))?;
        } else {
            let asked = settled(&asked, LEAST);
            back_off(&asked[..asked.len().min(TRIES)], LEAST)?;
        }
        let calls = scene.calls(broken.name);
        ensure!(calls < FEW, "{}: {calls} calls", broken.name);
    }
    gate.open();
    for broken in BROKEN {
        decorated(&scene, &scene.things, broken.name).await?;
        let made = creations(&gate, broken.name);
        ensure!(made == 1, "{} was made {made} times", broken.name);
    }
    ready(&scene, "d", ["Ready", "True"]).await?;
    untouched(&scene, &first).await?;
    no_deletions(&scene)?;
    scene.quiet().await?;
    scene.no_call("all is as it shall be").await?;
    scene.ringmaster.check()
}

/// Those of one kind of attachments, and then those of the decorated kind.
async fn watches(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.hook.set(obey);
    let others = scene.ctx.crd("Other", "others", Scope::Namespaced, None).await?;
    scene.ctx.grant(&Context::rules_for(&[&others])).await?;
    declare(&scene, "d", spec(&scene, "InPlace")).await?;
    let mut beside = spec(&scene, "InPlace");
    beside["resources"] = json!([{ "apiVersion": others.api_version, "resource": "others" }]);
    beside["attachments"] = json!([]);
    declare(&scene, "beside", beside).await?;
    make(&scene, &scene.things, "first", reply("first")).await?;
    let before = decorated(&scene, &scene.things, "first").await?;
    for (number, (part, field)) in
        [("configmaps", "spec.attachments[0]"), ("things", "spec.resources[0]")].into_iter().enumerate()
    {
        for (code, fix) in [(403, "grant get, list and watch"), (500, "500")] {
            gate.set(
                move |ask| {
                    if ask.is_watch() && ask.path.ends_with(part) { Act::Refuse(code, None) } else { Act::Pass }
                },
            );
            gate.cut_streams();
            says(&scene, "d", &[field, "can't be watched", "refused by the trial", fix]).await?;
            // Others go on.
            let name = format!("o-{number}-{code}");
            make(&scene, &others, &name, json!({ "labels": { "seen": "1" } })).await?;
            let ask = async || {
                let other = scene.ctx.admin.get(&others, &name).await?;
                ensure!(other["metadata"]["labels"]["seen"] == "1", "{other}");
                Ok(())
            };
            scene.ctx.wait("the other decorator goes on", LATER, ask).await?;
            let refused = gate.asked(|asked| asked.act == Act::Refuse(code, None) && asked.ask.path.ends_with(part));
            ensure!(refused.len() < FEW, "{part}: {} watches were refused with {code}", refused.len());
            // Changes that nobody sees for now.
            if part == "configmaps" {
                scene.ctx.admin.delete(&scene.maps, "first").await?;
            } else {
                let gone = json!({ "metadata": { "labels": { "seen": null } } });
                scene.ctx.admin.patch_merge(&scene.things, "first", &gone).await?;
            }
            gate.open();
            decorated(&scene, &scene.things, "first").await?;
            ready(&scene, "d", ["Ready", "True"]).await?;
        }
    }
    let now = scene.ctx.admin.get(&scene.maps, "first").await?;
    ensure!(now["metadata"]["uid"] != before["metadata"]["uid"], "what was deleted is there: {now}");
    no_deletions(&scene)?;
    scene.ringmaster.check()
}

/// The verbs of all that a decorator may need, but for one.
fn all_but(kind: &Resource, without: &str) -> Value {
    let verbs = ["get", "list", "watch", "create", "update", "patch", "delete"];
    let verbs: Vec<&str> = verbs.into_iter().filter(|verb| *verb != without).collect();
    json!([{ "apiGroups": [kind.group()], "resources": [kind.plural], "verbs": verbs }])
}

/// An object to be attached.
fn part_of(kind: &Resource, name: &str) -> Value {
    json!({ "apiVersion": kind.api_version, "kind": kind.kind, "metadata": { "name": name }, "spec": { "size": 1 } })
}

/// A decorator that lacks a right.
struct Lacking<'a> {
    name: &'static str,
    target: &'a Resource,
    attachments: &'a [&'a Resource],
    /// What the hook answers for the object that is made.
    reply: Value,
    /// What is told.
    words: [&'static str; 3],
}

/// Five decorators, each of a kind of its own and each without another right.
async fn rights(ctx: Context) -> anyhow::Result<()> {
    let scene = Scene::new(ctx).await?;
    scene.hook.set(obey);
    let ctx = &scene.ctx;
    let kind = async |name: &str| {
        let plural = format!("{}s", name.to_lowercase());
        ctx.crd(name, &plural, Scope::Namespaced, None).await
    };
    let (plain, stated, maker, seer) =
        (kind("Plain").await?, kind("Stated").await?, kind("Maker").await?, kind("Seer").await?);
    let (hidden, sprockets, gears) = (kind("Hidden").await?, kind("Sprocket").await?, kind("Gear").await?);
    for rules in [
        all_but(&plain, "patch"),
        all_but(&stated, ""),
        Context::rules_for(&[&maker, &seer]),
        all_but(&sprockets, "create"),
        all_but(&gears, "watch"),
    ] {
        ctx.grant(&rules).await?;
    }
    let of = |target: &Resource, attachments: &[&Resource]| {
        let kind = |kind: &Resource| json!({ "apiVersion": kind.api_version, "resource": kind.plural });
        let mut spec = spec(&scene, "InPlace");
        spec["resources"] = json!([kind(target)]);
        spec["attachments"] = attachments.iter().map(|attachment| kind(attachment)).collect();
        spec
    };
    declare(&scene, "steady", spec(&scene, "InPlace")).await?;
    let labels = json!({ "labels": { "seen": "1" } });
    // Of what is tried and refused, the object is told.
    let written = [
        Lacking {
            name: "plain",
            target: &plain,
            attachments: &[],
            reply: labels.clone(),
            words: ["plains/o-plain", "orbidden", "cannot patch"],
        },
        Lacking {
            name: "stated",
            target: &stated,
            attachments: &[],
            reply: json!({ "status": { "x": 1 } }),
            words: ["stateds/o-stated/status", "orbidden", "cannot patch"],
        },
        Lacking {
            name: "maker",
            target: &maker,
            attachments: &[&sprockets],
            reply: json!({ "labels": { "seen": "1" }, "attachments": [part_of(&sprockets, "s")] }),
            words: ["sprockets", "orbidden", "cannot create"],
        },
    ];
    for Lacking { name, target, attachments, reply, words } in written {
        declare(&scene, name, of(target, attachments)).await?;
        let made = make(&scene, target, &format!("o-{name}"), reply).await?;
        scene.event(&made, "SyncError", &words).await?;
        says(&scene, name, &words).await?;
    }
    // What can't be seen keeps its decorator from running.
    let watched = [
        Lacking {
            name: "seer",
            target: &seer,
            attachments: &[&gears],
            reply: json!({ "attachments": [part_of(&gears, "g")] }),
            words: ["spec.attachments[0]", "gears", "grant get, list and watch"],
        },
        Lacking {
            name: "hidden",
            target: &hidden,
            attachments: &[],
            reply: labels,
            words: ["spec.resources[0]", "hiddens", "grant get, list and watch"],
        },
    ];
    for Lacking { name, target, attachments, reply, words } in watched {
        make(&scene, target, &format!("o-{name}"), reply).await?;
        let declared = declare_only(&scene, name, of(target, attachments)).await?;
        says(&scene, name, &words).await?;
        scene.event(&declared, "CreateError", &words).await?;
        ensure!(scene.calls(&format!("o-{name}")) == 0, "{name} doesn't see all, and called its hook");
    }
    make(&scene, &scene.things, "beside", reply("beside")).await?;
    decorated(&scene, &scene.things, "beside").await?;
    ready(&scene, "steady", ["Ready", "True"]).await?;
    let refused = ctx.all_requests()?.into_iter().filter(|request| request.code == 403).count();
    ensure!(refused < IN_VAIN, "{refused} requests were refused");
    ctx.grant(&Context::rules_for(&[&plain, &stated, &hidden, &sprockets, &gears])).await?;
    for target in [&plain, &maker, &hidden] {
        let ask = async || {
            let object = ctx.admin.get(target, &format!("o-{}", target.kind.to_lowercase())).await?;
            ensure!(object["metadata"]["labels"]["seen"] == "1", "{object}");
            Ok(())
        };
        ctx.wait(&format!("{} is decorated", target.kind), LATER, ask).await?;
    }
    let ask = async || {
        let object = ctx.admin.get(&stated, "o-stated").await?;
        ensure!(object["status"]["x"] == 1, "{object}");
        ctx.admin.get(&sprockets, "s").await?;
        ctx.admin.get(&gears, "g").await.map(drop)
    };
    ctx.wait("status and attachments are written", LATER, ask).await?;
    for name in ["plain", "stated", "maker", "seer", "hidden"] {
        ready(&scene, name, ["Ready", "True"]).await?;
    }
    no_deletions(&scene)
}

async fn attachments(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.hook.set(obey);
    let ctx = &scene.ctx;
    let sprockets = ctx.namespaced(&format!("{}/v1", ctx.group()), "Sprocket", "sprockets");
    let others = ctx.crd("Other", "others", Scope::Namespaced, None).await?;
    ctx.grant(&Context::rules_for(&[&sprockets, &others])).await?;
    let mut beside = spec(&scene, "InPlace");
    beside["resources"] = json!([{ "apiVersion": others.api_version, "resource": "others" }]);
    declare(&scene, "beside", beside).await?;
    let mut declared = spec(&scene, "InPlace");
    let method = json!({ "method": "InPlace" });
    declared["attachments"] = json!([
        { "apiVersion": "v1", "resource": "configmaps", "updateStrategy": method },
        { "apiVersion": sprockets.api_version, "resource": "sprockets", "updateStrategy": method },
    ]);
    let declared = declare_only(&scene, "d", declared).await?;
    let mut both = reply("p");
    if let Some(attachments) = both["attachments"].as_array_mut() {
        attachments.push(part_of(&sprockets, "s"));
    }
    make(&scene, &scene.things, "p", both).await?;
    let words = ["spec.attachments[1]", "sprockets", "install its CRD"];
    says(&scene, "d", &words).await?;
    scene.event(&declared, "CreateError", &words).await?;
    ensure!(scene.calls("p") == 0, "a decorator that can't see its attachments called its hook");
    make(&scene, &others, "o", reply("o")).await?;
    decorated(&scene, &others, "o").await?;
    // It comes.
    ctx.crd("Sprocket", "sprockets", Scope::Namespaced, None).await?;
    let attached = async || {
        let ask = async || ctx.admin.get(&sprockets, "s").await;
        ctx.wait("the sprocket is attached", LATER, ask).await
    };
    let old = attached().await?;
    decorated(&scene, &scene.things, "p").await?;
    ready(&scene, "d", ["Ready", "True"]).await?;
    scene.quiet().await?;
    let map = ctx.admin.get(&scene.maps, "p").await?;
    // It goes.
    let calls = scene.calls("p");
    remove(ctx, &crd_name(&sprockets)).await?;
    gate.cut_streams();
    says(&scene, "d", &["spec.attachments[1]", "sprockets"]).await?;
    make(&scene, &others, "o-2", reply("o-2")).await?;
    decorated(&scene, &others, "o-2").await?;
    ensure!(scene.calls("p") - calls < FEW, "{} calls", scene.calls("p") - calls);
    // It comes back.
    ctx.crd("Sprocket", "sprockets", Scope::Namespaced, None).await?;
    let new = attached().await?;
    ensure!(new["metadata"]["uid"] != old["metadata"]["uid"]);
    ready(&scene, "d", ["Ready", "True"]).await?;
    untouched(&scene, &map).await?;
    no_deletions(&scene)?;
    scene.ringmaster.check()
}

async fn targets(ctx: Context) -> anyhow::Result<()> {
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.hook.set(obey);
    let ctx = &scene.ctx;
    let others = ctx.crd("Other", "others", Scope::Namespaced, None).await?;
    ctx.grant(&Context::rules_for(&[&others])).await?;
    let mut both = spec(&scene, "InPlace");
    both["resources"] = json!([
        { "apiVersion": scene.things.api_version, "resource": "things" },
        { "apiVersion": others.api_version, "resource": "others" },
    ]);
    declare(&scene, "d", both).await?;
    let made = make(&scene, &scene.things, "p", reply("p")).await?;
    decorated(&scene, &scene.things, "p").await?;
    make(&scene, &others, "o", reply("o")).await?;
    decorated(&scene, &others, "o").await?;
    scene.quiet().await?;
    let kept = ctx.admin.get(&scene.maps, "o").await?;

    // It has no status any more, and gets it back.
    let name = crd_name(&scene.things);
    let subresources = async |value: Value, is_there: bool| {
        let mut version = ctx.admin.get(&crds(), &name).await?["spec"]["versions"][0].clone();
        version["subresources"] = value;
        ctx.admin.patch_merge(&crds(), &name, &json!({ "spec": { "versions": [version] } })).await?;
        let served = async || {
            let kinds = ctx.admin.get_path(&format!("/apis/{}", scene.things.api_version)).await?;
            ensure!(kinds.to_string().contains("\"things/status\"") == is_there, "{kinds}");
            Ok(())
        };
        ctx.wait("the API server says so", LATER, served).await
    };
    subresources(json!({}), false).await?;
    let wanted = json!({ "labels": { "seen": "2" }, "status": { "x": 2 } });
    ctx.admin.patch_merge(&scene.things, "p", &json!({ "spec": { "reply": wanted } })).await?;
    scene.event(&made, "SyncError", &["status: Thing", "has no status subresource", "CRD"]).await?;
    make(&scene, &others, "o-2", reply("o-2")).await?;
    decorated(&scene, &others, "o-2").await?;
    ensure!(scene.calls("p") < FEW, "{} calls", scene.calls("p"));
    subresources(json!({ "status": {} }), true).await?;
    let ask = async || {
        let thing = ctx.admin.get(&scene.things, "p").await?;
        ensure!(thing["status"]["x"] == 2 && thing["metadata"]["labels"]["seen"] == "2", "{thing}");
        Ok(())
    };
    ctx.wait("the status is written", LATER, ask).await?;
    ready(&scene, "d", ["Ready", "True"]).await?;

    // It goes, and comes back.
    remove(ctx, &name).await?;
    gate.cut_streams();
    says(&scene, "d", &["spec.resources[0]", "things"]).await?;
    scene.quiet().await?;
    make(&scene, &others, "o-3", reply("o-3")).await?;
    decorated(&scene, &others, "o-3").await?;
    ctx.crd("Thing", "things", Scope::Namespaced, None).await?;
    make(&scene, &scene.things, "q", reply("q")).await?;
    decorated(&scene, &scene.things, "q").await?;
    ready(&scene, "d", ["Ready", "True"]).await?;
    untouched(&scene, &kept).await?;
    no_deletions(&scene)?;
    scene.ringmaster.check()
}

async fn version_goes(ctx: Context) -> anyhow::Result<()> {
    ctx.server.stop_collecting()?;
    let (scene, gate) = Scene::behind_gate(ctx, &[]).await?;
    scene.hook.set(obey);
    let (ctx, name) = (&scene.ctx, crd_name(&scene.things));
    ctx.admin.patch_merge(&crds(), &name, &versions(true)).await?;
    server::served(&ctx.admin, &ctx.admin.get(&crds(), &name).await?).await?;
    declare(&scene, "d", spec(&scene, "InPlace")).await?;
    make(&scene, &scene.things, "p", reply("p")).await?;
    let kept = decorated(&scene, &scene.things, "p").await?;
    scene.quiet().await?;
    ctx.admin.patch_merge(&crds(), &name, &versions(false)).await?;
    gate.cut_streams();
    says(&scene, "d", &["spec.resources[0]", &scene.things.api_version]).await?;
    // Changed where it can still be seen.
    let wanted = json!({ "labels": { "seen": "2" } });
    patch_v2(ctx, &scene.things, "p", &json!({ "spec": { "reply": wanted } })).await?;
    scene.no_call("nothing is synced").await?;
    untouched(&scene, &kept).await?;
    ctx.admin.patch_merge(&crds(), &name, &versions(true)).await?;
    let ask = async || {
        let thing = ctx.admin.get(&scene.things, "p").await?;
        ensure!(thing["metadata"]["labels"]["seen"] == "2", "{thing}");
        Ok(())
    };
    ctx.wait("it is decorated anew", LATER, ask).await?;
    ready(&scene, "d", ["Ready", "True"]).await?;
    no_deletions(&scene)?;
    scene.ringmaster.check()
}
