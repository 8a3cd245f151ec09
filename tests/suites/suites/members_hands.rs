//! What people do by hand to an installation under load: Leases and the table deleted or edited, labels edited and
//! removed, rights taken away, the table's kind deleted, a second installation, sharding turned on and off.
//!
//! Never more than one at a time: each heals by itself, and nothing is lost, doubled or deleted by it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use super::members_scale::TIMEOUT;
use crate::cluster::{Context, Scope};
use crate::members::check::{self, Child, shard_of};
use crate::members::figures::seconds;
use crate::members::stage::{BALANCE, Plan, SERVED, Stage, spec, told};
use crate::members::table::{Table, tables};
use crate::members::webhook::{Wanted, Webhook};
use crate::objects::{Resource, read_yaml};
use crate::server;
use crate::trial::Case;
use crate::wait;

/// The label of a parent: its own shard.
pub(super) const SELF: &str = "shard.ringmaster.dev/self";
/// The label of a child: its controlling owner's shard.
pub(super) const OWNER: &str = "shard.ringmaster.dev/owner";
/// How long what somebody did by hand may take to be put right.
const RIGHT: Duration = Duration::from_secs(30);
/// Objects whose labels are edited.
const EDITED: usize = 12;
/// How long labels are stripped while shards move.
const STRIPPING: Duration = Duration::from_secs(20);
/// A pause between two of those edits.
const BETWEEN: Duration = Duration::from_millis(20);
/// The table's kind.
const TABLES_CRD: &str = "shardtables.ringmaster.dev";

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |case: Case| case.timeout(TIMEOUT);
    vec![
        case(Case::real("members_hands", "a_lease_is_deleted", lease_deleted)),
        case(Case::real("members_hands", "the_sharders_lease_is_deleted", sharders_lease_deleted)),
        case(Case::real("members_hands", "the_table_is_deleted", table_deleted)),
        case(Case::real("members_hands", "the_table_is_edited", table_edited)),
        case(Case::new("members_hands", "labels_of_parents_are_edited", |ctx| labels(ctx, SELF))),
        case(Case::new("members_hands", "labels_of_children_are_edited", |ctx| labels(ctx, OWNER))),
        case(Case::real("members_hands", "labels_are_stripped_while_shards_move", stripped)),
        case(Case::real("members_hands", "a_kind_is_forbidden_while_shards_move", forbidden)),
        case(Case::real("members_hands", "the_tables_kind_is_deleted_and_restored", kind_deleted)).own_server(),
        case(Case::real("members_hands", "a_second_installation_starts", second)),
        case(Case::real("members_hands", "sharding_is_turned_on_and_off", on_and_off)),
    ]
}

async fn lease_deleted(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("Lease deleted"), &["m1", "m2", "m3"]).await?;
    let victim = stage.followers().await?.pop().context("nobody follows")?;
    let member = stage.cast.take(&victim)?;
    let (shards, since) = (stage.watcher.table()?.of(&member.name), Instant::now());
    stage.ctx.admin.delete(&stage.cast.lease_resource(), &member.name).await?;
    member.process.ended(&stage.ctx, BALANCE).await?;
    let ended = since.elapsed();
    let times = stage.taken_over(since, &shards, std::slice::from_ref(&member.name)).await?;
    stage.balanced().await?;
    stage.end(&format!("its member ended after {}, called again within {times}", seconds(ended))).await
}

async fn sharders_lease_deleted(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("sharder's Lease deleted"), &["m1", "m2", "m3"]).await?;
    let (mark, table) = (stage.mark(), stage.watcher.table()?);
    stage.ctx.admin.delete(&stage.cast.lease_resource(), &table.name).await?;
    let since = Instant::now();
    stage.leader().await?;
    let took = since.elapsed();
    // Whoever leads now does its work.
    stage.cast.start(&["m4"]).await?;
    stage.balanced().await?;
    let moved = stage.moved(mark);
    ensure!(moved <= 64, "{moved} moved");
    ensure!(stage.cast.bury().is_empty(), "a member ended");
    stage.end(&format!("led again after {}", seconds(took))).await
}

async fn table_deleted(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("table deleted"), &["m1", "m2", "m3"]).await?;
    for _ in 0..2 {
        let table = stage.watcher.table()?;
        stage.ctx.admin.delete(&tables(), &table.name).await?;
        anew(&stage, &table.uid).await?;
        stage.balanced().await?;
        stage.play(Duration::from_secs(1)).await;
    }
    ensure!(stage.cast.bury().is_empty(), "a member ended");
    stage.end("").await
}

/// Waits for a table that isn't the one with this uid.
async fn anew(stage: &Stage, uid: &str) -> anyhow::Result<()> {
    let is = |table: &Table| {
        ensure!(table.uid != uid, "the same");
        Ok(())
    };
    stage.table("a table anew", BALANCE, is).await
}

async fn table_edited(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("table edited"), &["m1", "m2", "m3"]).await?;
    stage.edits_table = true;
    let name = stage.watcher.table()?.name.clone();
    let edits: [fn(&mut Value); 5] = [
        // All to one who is there, to nobody, to somebody unknown; an epoch of its own; half of it gone.
        |status| {
            let owner = status["shards"][0]["owner"].clone();
            status["shards"].as_array_mut().into_iter().flatten().for_each(|row| row["owner"] = owner.clone());
        },
        |status| status["shards"].as_array_mut().into_iter().flatten().for_each(|row| row["owner"] = "".into()),
        |status| status["shards"].as_array_mut().into_iter().flatten().for_each(|row| row["owner"] = "x-00000".into()),
        |status| status["shards"][7]["epoch"] = 1.into(),
        |status| status["shards"] = json!([]),
    ];
    let mut took = Vec::new();
    for edit in edits {
        let mut object = stage.ctx.admin.get(&tables(), &name).await?;
        edit(&mut object["status"]);
        object["metadata"]["resourceVersion"].take();
        let edited = stage.ctx.admin.patch_status(&tables(), &name, &json!({ "status": object["status"] })).await?;
        let since = Instant::now();
        // Written anew, by somebody else.
        let ask = async || {
            let now = stage.ctx.admin.get(&tables(), &name).await?;
            ensure!(now["metadata"]["resourceVersion"] != edited["metadata"]["resourceVersion"], "as it was edited");
            ensure!(now["status"]["shards"].as_array().map(Vec::len) == Some(check::SHARDS));
            Ok(())
        };
        stage.ctx.wait("the table is put right", RIGHT, ask).await?;
        took.push(seconds(since.elapsed()));
        stage.balanced().await?;
        stage.shown(SERVED).await?;
    }
    ensure!(stage.cast.bury().is_empty(), "a member ended");
    stage.end(&format!("put right after {took:?}")).await
}

/// Whether each object has the label that it should have.
async fn labelled(stage: &Stage, label: &str) -> anyhow::Result<()> {
    let resource = if label == SELF { stage.things.clone() } else { stage.ctx.configmaps() };
    let objects = stage.ctx.admin.list(&resource, "").await?;
    let (group, kind) = (stage.things.group().to_owned(), stage.things.kind.clone());
    let namespace = stage.things.namespace.clone().unwrap_or_default();
    // The garbage collector takes its time with children of parents that were deleted.
    let live: BTreeSet<String> = stage.load.wishes().into_iter().map(|wish| wish.uid).collect();
    let mut wrong = Vec::new();
    for object in objects {
        let uid =
            if label == SELF { &object["metadata"]["uid"] } else { &object["metadata"]["ownerReferences"][0]["uid"] };
        if uid.as_str().is_none_or(|uid| !live.contains(uid)) {
            continue;
        }
        let metadata = &object["metadata"];
        let parent = if label == SELF { &metadata["name"] } else { &metadata["ownerReferences"][0]["name"] };
        let Some(parent) = parent.as_str() else { continue };
        let key = format!("{namespace}/{parent}");
        let right = shard_of(&group, &kind, key.trim_start_matches('/')).to_string();
        if metadata["labels"][label] != *right {
            wrong.push(format!("{} has {} instead of {right}", metadata["name"], metadata["labels"][label]));
        }
    }
    ensure!(wrong.is_empty(), "{} labels are wrong: {:?}", wrong.len(), wrong.iter().take(5).collect::<Vec<_>>());
    Ok(())
}

async fn labels(ctx: Context, label: &'static str) -> anyhow::Result<()> {
    let is_parents = label == SELF;
    let name = if is_parents { "parents' labels" } else { "children's labels" };
    let mut stage = Stage::with(ctx, Plan::named(name), &["m1", "m2", "m3"]).await?;
    let mut took = Vec::new();
    // Another shard's, junk, an empty one, none.
    for value in [json!("0"), json!("255"), json!("x"), json!(""), Value::Null] {
        let resource = if is_parents { stage.things.clone() } else { stage.ctx.configmaps() };
        let mut wishes = stage.load.wishes();
        wishes.truncate(EDITED);
        for wish in wishes {
            let parent = wish.parent.rsplit('/').next().unwrap_or_default().to_owned();
            let names = if is_parents { vec![parent] } else { stage.hook.children_of(&parent) };
            for name in names {
                let patch = json!({ "metadata": { "labels": { label: value } } });
                // It may have been deleted by the load.
                let _ = stage.ctx.admin.patch_merge(&resource, &name, &patch).await;
            }
        }
        let since = Instant::now();
        let ask = async || labelled(&stage, label).await;
        stage.ctx.wait(&format!("labels are right again after {value}"), RIGHT, ask).await?;
        took.push(seconds(since.elapsed()));
    }
    stage.end(&format!("put right after {took:?}")).await
}

async fn stripped(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("labels stripped"), &["m1", "m2"]).await?;
    stage.cast.start(&["m3", "m4"]).await?;
    let (start, mut edits) = (Instant::now(), 0);
    while start.elapsed() < STRIPPING {
        let Some(parent) = stage.load.any() else { continue };
        let child = stage.hook.children_of(&parent).pop().unwrap_or_default();
        for (resource, name, label) in [(stage.ctx.configmaps(), &child, OWNER), (stage.things.clone(), &parent, SELF)]
        {
            let patch = json!({ "metadata": { "labels": { label: null } } });
            edits += usize::from(stage.ctx.admin.patch_merge(&resource, name, &patch).await.is_ok());
        }
        tokio::time::sleep(BETWEEN).await;
    }
    stage.balanced().await?;
    stage.stop_load().await?;
    for label in [SELF, OWNER] {
        let ask = async || labelled(&stage, label).await;
        stage.ctx.wait("labels are right again", RIGHT, ask).await?;
    }
    stage.end(&format!("{edits} labels stripped")).await
}

/// Two controllers of the same parents; the kind of the children of one can't be read while shards move.
async fn forbidden(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::set(ctx, Plan::named("a kind is forbidden")).await?;
    let ctx = std::sync::Arc::clone(&stage.ctx);
    let widgets = ctx.crd("Widget", "widgets", Scope::Namespaced, None).await?;
    let rights = format!("suite-{}-widgets", ctx.id);
    let rules = Context::rules_for(&[&widgets]);
    let grant = async || {
        let subject = server::Subject::User(&ctx.user.name);
        server::grant(&ctx.admin, &rights, Some(&ctx.id), subject, &rules).await
    };
    grant().await?;
    let wanted =
        Wanted { api_version: widgets.api_version.clone(), kind: "Widget".to_owned(), suffixes: vec!["-w".to_owned()] };
    let second = Webhook::start(wanted)?;
    ctx.controller("w", spec(&stage.things, &widgets, &second.url("/sync"), true)).await?;
    stage.cast.start(&["m1", "m2"]).await?;
    stage.begin().await?;
    let bindings = Resource::new("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", None);
    ctx.admin.delete(&bindings, &rights).await?;
    stage.cast.start(&["m3"]).await?;
    stage.balanced().await?;
    // The other controller's parents are served by the newcomer too.
    let newcomer = stage.cast.member("m3")?.name.clone();
    let (before, since) = (stage.hook.count(), Instant::now());
    let ask = async || {
        let by = stage.hook.read(|calls| calls.iter().skip(before).filter(|call| call.member == newcomer).count())?;
        ensure!(by > 0, "none of {} calls by {newcomer}", stage.hook.count() - before);
        Ok(())
    };
    ctx.wait("the newcomer serves the controller that it may", RIGHT, ask).await?;
    stage.stop_load().await?;
    stage.shown(SERVED).await?;
    let by_newcomer = second.read(|calls| calls.iter().filter(|call| call.member == newcomer).count())?;
    ensure!(by_newcomer == 0, "{by_newcomer} calls although it can't see the children");
    let held = since.elapsed();
    grant().await?;
    let ask = async || {
        let all = ctx.admin.list(&widgets, "").await?;
        let children: Vec<Child> = all.iter().map(widget).collect();
        let wrong = second.read(|calls| check::served(calls, &stage.load.wishes(), &children, 1))?;
        ensure!(wrong.is_empty(), "{}", told(&wrong));
        Ok(())
    };
    let back = Instant::now();
    ctx.wait("the other controller's parents are served", BALANCE * 2, ask).await?;
    let healed = back.elapsed();
    let calls = second.calls()?;
    let mut wrong = check::order(&calls, &[]).violations;
    wrong.extend(check::epochs(&calls));
    ensure!(wrong.is_empty(), "{}", told(&wrong));
    stage.end(&format!("held back for {}, served {} after it", seconds(held), seconds(healed))).await
}

fn widget(object: &Value) -> Child {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let metadata = &object["metadata"];
    let number = text(&object["data"]["number"]).parse().unwrap_or(0);
    Child { name: text(&metadata["name"]), owner: text(&metadata["ownerReferences"][0]["uid"]), number }
}

/// The sharder owns all as wholes meanwhile, and says of sharded controllers which kind is missing.
async fn kind_deleted(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("the table's kind is deleted"), &["m1", "m2", "m3"]).await?;
    let crds = Resource::new("apiextensions.k8s.io/v1", "CustomResourceDefinition", "customresourcedefinitions", None);
    let (gone, before) = (Instant::now(), stage.watcher.table()?);
    stage.ctx.admin.delete(&crds, TABLES_CRD).await?;
    let ask = async || {
        let object = stage.ctx.admin.get(&Context::controllers(), &stage.controller).await?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let told = conditions.iter().find(|c| c["type"] == "Sharded" && c["status"] == "False");
        let message = told.with_context(|| format!("{conditions:?}"))?["message"].as_str().unwrap_or_default();
        ensure!(message.contains(TABLES_CRD), "{message}");
        Ok(())
    };
    stage.ctx.wait("a condition names the missing kind", BALANCE, ask).await?;
    let told = gone.elapsed();
    let names: BTreeSet<String> = stage.cast.names().into_iter().collect();
    stage
        .ctx
        .wait("one member has it all", BALANCE, async || {
            let before = stage.hook.count();
            tokio::time::sleep(Duration::from_secs(1)).await;
            let by =
                stage.hook.read(|calls| calls[before..].iter().map(|c| c.member.clone()).collect::<BTreeSet<_>>())?;
            ensure!(by.len() == 1 && by.is_subset(&names), "{by:?}");
            Ok(())
        })
        .await?;
    stage.stop_load().await?;
    let took = stage.shown(SERVED).await?;
    stage.start_load();
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/crds");
    for crd in read_yaml(&path.join("ringmaster.dev_shardtables.yaml"))? {
        server::served(&stage.ctx.admin, &stage.ctx.admin.apply(&crd).await?).await?;
    }
    let since = Instant::now();
    anew(&stage, &before.uid).await?;
    stage.balanced_within(BALANCE * 2).await?;
    let back = since.elapsed();
    ensure!(stage.cast.bury().is_empty(), "a member ended");
    let [told, took, back] = [told, took, back].map(seconds);
    stage.end(&format!("told after {told}, all served {took} after the load, shared {back} after it came back")).await
}

/// With another namespace for its Leases, and the same controllers: it leaves them alone and says so.
async fn second(ctx: Context) -> anyhow::Result<()> {
    let mut stage = Stage::with(ctx, Plan::named("second installation"), &["m1", "m2"]).await?;
    let other = format!("{}-other", stage.ctx.namespace);
    let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
    stage.ctx.admin.create(&namespaces, json!({ "metadata": { "name": other } })).await?;
    stage.ctx.server.members_in(&stage.ctx.admin, &other).await?;
    let mark = stage.mark();
    let mine = stage.ctx.namespace.clone();
    let stranger = crate::process::Ringmaster::build(&stage.ctx)
        .arg("--member-name=x1")
        .arg(format!("--lease-namespace={other}"))
        .start()?;
    stranger.wait_log(&stage.ctx, "installation", RIGHT).await?;
    stage.play(stage.cast.timing().duration * 2).await;
    let by_stranger = stage.hook.read(|calls| calls.iter().filter(|call| call.member.starts_with("x1")).count())?;
    ensure!(by_stranger == 0, "{by_stranger} calls by the second installation");
    ensure!(stage.moved(mark) == 0, "{} moved", stage.moved(mark));
    let held = stage.ctx.admin.list(&stage.cast.lease_resource(), "").await?;
    let strangers = held.iter().filter(|lease| lease["metadata"]["name"].as_str().is_some_and(|n| n.starts_with("x1")));
    ensure!(strangers.count() == 0, "a Lease in {mine}");
    drop(stranger);
    stage.end("").await
}

async fn on_and_off(ctx: Context) -> anyhow::Result<()> {
    let plan = Plan { is_sharded: false, ..Plan::named("sharding on and off") };
    let mut stage = Stage::with(ctx, plan, &["m1", "m2", "m3"]).await?;
    let mut took = Vec::new();
    for (sharding, mode) in [(json!({}), "Sharded"), (Value::Null, "Whole"), (json!({}), "Sharded")] {
        let since = Instant::now();
        let patch = json!({ "spec": { "sharding": sharding } });
        stage.ctx.admin.patch_merge(&Context::controllers(), &stage.controller, &patch).await?;
        let controller = stage.controller.clone();
        stage
            .table(&format!("it is {mode}"), BALANCE, |table| {
                let row = table.controllers.iter().find(|row| row.name == controller).context("no row")?;
                ensure!(row.mode == mode && row.becoming.is_empty(), "{row:?}");
                Ok(())
            })
            .await?;
        took.push(format!("{mode} in {}", seconds(since.elapsed())));
        stage.balanced().await?;
        let since = (stage.hook.count(), if mode == "Whole" { 1 } else { 3 });
        let ask = async || {
            let mut by: BTreeMap<String, usize> = BTreeMap::new();
            stage
                .hook
                .read(|calls| calls[since.0..].iter().for_each(|c| *by.entry(c.member.clone()).or_default() += 1))?;
            ensure!(by.len() == since.1, "{by:?}");
            Ok(())
        };
        stage.ctx.wait("those call who shall", RIGHT, ask).await?;
        wait::stays("nobody else calls", Duration::from_secs(1), ask).await?;
    }
    stage.end(&took.join(", ")).await
}
