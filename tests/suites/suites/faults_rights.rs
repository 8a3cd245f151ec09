//! Rights that are missing, one verb each, taken away beneath a running controller and granted later: the cause is told
//! with the verb and the kind, others go on, nothing is asked for in a hot loop, and all is well once it is granted.
//!
//! Never about kinds that aren't served: see `faults_kinds`.

use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use super::faults_hook::{conditions_say, well};
use super::scene::{LATER, Scene, config_map, spec};
use crate::cluster::{Context, Scope};
use crate::objects::Resource;
use crate::trial::Case;

/// All that a controller may need.
const VERBS: [&str; 7] = ["get", "list", "watch", "create", "update", "patch", "delete"];
/// Requests that may be refused until somebody has read the event: backoff up to a minute.
const IN_VAIN: usize = 60;
/// A watch is refused at its next request, at most a minute later, and told then.
const NOTICED: Duration = Duration::from_secs(100);
/// For trials that wait for that.
const SLOW: Duration = Duration::from_secs(420);

/// A right that is missing.
struct Missing {
    name: &'static str,
    verb: &'static str,
    /// Of the parents' status; otherwise of the children.
    of_status: bool,
    /// What the event says.
    words: &'static [&'static str],
}

const MISSING: &[Missing] = &[
    Missing {
        name: "may_not_create",
        verb: "create",
        of_status: false,
        words: &["sprockets", "orbidden", "cannot create"],
    },
    Missing {
        name: "may_not_update",
        verb: "update",
        of_status: false,
        words: &["sprockets/s", "orbidden", "cannot update"],
    },
    Missing {
        name: "may_not_delete",
        verb: "delete",
        of_status: false,
        words: &["sprockets/s", "orbidden", "cannot delete"],
    },
    Missing {
        name: "may_not_patch_status",
        verb: "patch",
        of_status: true,
        words: &["others/o/status", "orbidden", "cannot patch"],
    },
];

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let without = MISSING.iter().map(|m| Case::new("faults_rights", m.name, move |ctx| may_not(ctx, m)));
    let more = [
        Case::new("faults_rights", "may_not_list", may_not_list),
        Case::new("faults_rights", "may_not_watch", may_not_watch),
        Case::new("faults_rights", "may_not_get", may_not_get),
        Case::new("faults_rights", "may_not_watch_parents", may_not_watch_parents),
        Case::new("faults_rights", "may_not_adopt", may_not_adopt),
        Case::new("faults_rights", "all_are_taken_away_and_given_back", taken_away).timeout(SLOW),
    ];
    without.chain(more).collect()
}

/// Rules for a kind with all verbs but one.
fn all_but(kind: &Resource, verb: &str) -> Value {
    let verbs: Vec<&str> = VERBS.into_iter().filter(|other| *other != verb).collect();
    json!([{ "apiGroups": [kind.group()], "resources": [kind.plural], "verbs": verbs }])
}

fn status_of(kind: &Resource, verbs: &[&str]) -> Value {
    json!([{ "apiGroups": [kind.group()], "resources": [format!("{}/status", kind.plural)], "verbs": verbs }])
}

fn one_verb(kind: &Resource, verb: &str) -> Value {
    json!([{ "apiGroups": [kind.group()], "resources": [kind.plural], "verbs": [verb] }])
}

/// Besides the scene's things and ConfigMaps, two kinds whose rights a trial grants: others, with Sprockets as children.
struct Kinds {
    scene: Scene,
    others: Resource,
    sprockets: Resource,
}

impl Kinds {
    async fn new(ctx: Context) -> anyhow::Result<Self> {
        let scene = Scene::new(ctx).await?;
        let others = scene.ctx.crd("Other", "others", Scope::Namespaced, None).await?;
        let sprockets = scene.ctx.crd("Sprocket", "sprockets", Scope::Namespaced, None).await?;
        scene.ctx.controller("steady", scene.spec("InPlace")).await?;
        Ok(Self { scene, others, sprockets })
    }

    /// Begins with the controller that lacks something.
    async fn declare(&self) -> anyhow::Result<Value> {
        let mut spec = spec(&self.others, &self.scene.hook.url("/sync"), "InPlace");
        // Of its verbs, each is needed for one thing.
        spec["applyStrategy"] = "Merge".into();
        let method = json!({ "method": "InPlace" });
        spec["childResources"] =
            json!([{ "apiVersion": self.sprockets.api_version, "resource": "sprockets", "updateStrategy": method }]);
        self.scene.ctx.controller("c", spec).await
    }

    fn sprocket(&self, name: &str, size: i64) -> Value {
        json!({
            "apiVersion": self.sprockets.api_version, "kind": "Sprocket", "metadata": { "name": name },
            "spec": { "size": size },
        })
    }

    /// Makes or changes the other `o`, so that it wants this.
    async fn wants(&self, reply: Value) -> anyhow::Result<Value> {
        let admin = &self.scene.ctx.admin;
        let patch = json!({ "spec": { "reply": reply } });
        if admin.find(&self.others, "o").await?.is_some() {
            return admin.patch_merge(&self.others, "o", &patch).await;
        }
        let mut body = patch;
        body["metadata"] = json!({ "name": "o" });
        admin.create(&self.others, body).await
    }

    async fn size(&self, name: &str, size: i64) -> anyhow::Result<Value> {
        let ask = async || {
            let found = self.scene.ctx.admin.get(&self.sprockets, name).await?;
            ensure!(found["spec"]["size"] == size, "{found}");
            Ok(found)
        };
        self.scene.ctx.wait(&format!("sprocket {name} has size {size}"), LATER, ask).await
    }

    /// The controller of things serves a new one.
    async fn steady(&self, name: &str) -> anyhow::Result<()> {
        self.scene.thing(name, json!({ "children": [config_map(name, json!({}))] })).await?;
        self.scene.map(name, "is made by the other controller", |_| Ok(())).await?;
        self.scene.condition("steady", ["Ready", "True", "Running"]).await.map(drop)
    }

    /// What was refused for lack of rights so far isn't much.
    fn few_refusals(&self) -> anyhow::Result<()> {
        let refused = self.scene.ctx.all_requests()?.into_iter().filter(|request| request.code == 403).count();
        ensure!(refused < IN_VAIN, "{refused} requests were refused");
        Ok(())
    }
}

async fn may_not(ctx: Context, missing: &'static Missing) -> anyhow::Result<()> {
    let kinds = Kinds::new(ctx).await?;
    let ctx = &kinds.scene.ctx;
    if missing.of_status {
        ctx.grant(&Context::rules_for(&[&kinds.sprockets])).await?;
        ctx.grant(&one_verb(&kinds.others, "get")).await?;
        ctx.grant(&one_verb(&kinds.others, "list")).await?;
        ctx.grant(&one_verb(&kinds.others, "watch")).await?;
    } else {
        ctx.grant(&Context::rules_for(&[&kinds.others])).await?;
        ctx.grant(&all_but(&kinds.sprockets, missing.verb)).await?;
    }
    kinds.declare().await?;
    kinds.scene.condition("c", ["Ready", "True", "Running"]).await?;
    let s = kinds.sprocket("s", 1);
    let first = kinds.wants(json!({ "children": [s] })).await?;
    if matches!(missing.verb, "update" | "delete") {
        kinds.size("s", 1).await?;
        let children = if missing.verb == "update" { json!([kinds.sprocket("s", 2)]) } else { json!([]) };
        kinds.wants(json!({ "children": children })).await?;
    }
    kinds.scene.event(&first, "SyncError", missing.words).await?;
    let words: Vec<&str> = ["1 of 1"].iter().chain(missing.words).copied().collect();
    conditions_say(&kinds.scene, "c", &words).await?;
    kinds.steady("beside").await?;
    kinds.few_refusals()?;
    if missing.of_status {
        ctx.grant(&status_of(&kinds.others, &["get", "patch", "update"])).await?;
    } else {
        ctx.grant(&one_verb(&kinds.sprockets, missing.verb)).await?;
    }
    well(ctx, "c").await?;
    match missing.verb {
        "update" => drop(kinds.size("s", 2).await?),
        "delete" => {
            let ask = async || {
                ensure!(ctx.admin.find(&kinds.sprockets, "s").await?.is_none(), "it is there");
                Ok(())
            };
            ctx.wait("the child is deleted", LATER, ask).await?;
        }
        _ => drop(kinds.size("s", 1).await?),
    }
    Ok(())
}

/// A streamed list is a watch to the API server: without `list`, all goes well as long as it streams.
async fn may_not_list(ctx: Context) -> anyhow::Result<()> {
    let kinds = Kinds::new(ctx).await?;
    let ctx = &kinds.scene.ctx;
    ctx.grant(&Context::rules_for(&[&kinds.others])).await?;
    ctx.grant(&all_but(&kinds.sprockets, "list")).await?;
    kinds.declare().await?;
    kinds.wants(json!({ "children": [kinds.sprocket("s", 1)] })).await?;
    kinds.size("s", 1).await?;
    well(ctx, "c").await?;
    kinds.steady("beside").await
}

async fn may_not_watch(ctx: Context) -> anyhow::Result<()> {
    let kinds = Kinds::new(ctx).await?;
    let ctx = &kinds.scene.ctx;
    ctx.grant(&Context::rules_for(&[&kinds.others])).await?;
    ctx.grant(&all_but(&kinds.sprockets, "watch")).await?;
    let controller = kinds.declare().await?;
    kinds.wants(json!({ "children": [kinds.sprocket("s", 1)] })).await?;
    let message = kinds.scene.condition("c", ["Ready", "False", "Forbidden"]).await?;
    let words = ["spec.childResources[0]", "sprockets", "watch", "grant"];
    ensure!(words.iter().all(|word| message.contains(word)), "{message}");
    kinds.scene.event(&controller, "CreateError", &words).await?;
    ensure!(kinds.scene.hook.calls_for(&kinds.scene.key("o")).is_empty(), "it doesn't see its children");
    kinds.steady("beside").await?;
    kinds.few_refusals()?;
    ctx.grant(&one_verb(&kinds.sprockets, "watch")).await?;
    kinds.size("s", 1).await?;
    well(ctx, "c").await
}

async fn may_not_watch_parents(ctx: Context) -> anyhow::Result<()> {
    let kinds = Kinds::new(ctx).await?;
    let ctx = &kinds.scene.ctx;
    ctx.grant(&Context::rules_for(&[&kinds.sprockets])).await?;
    let controller = kinds.declare().await?;
    kinds.wants(json!({ "children": [kinds.sprocket("s", 1)] })).await?;
    let message = kinds.scene.condition("c", ["Ready", "False", "Forbidden"]).await?;
    let words = ["spec.parentResource", "others", "grant"];
    ensure!(words.iter().all(|word| message.contains(word)), "{message}");
    kinds.scene.event(&controller, "CreateError", &words).await?;
    kinds.steady("beside").await?;
    kinds.few_refusals()?;
    ctx.grant(&Context::rules_for(&[&kinds.others])).await?;
    kinds.size("s", 1).await?;
    well(ctx, "c").await
}

/// Only read live in doubt: here a name is taken by an object that has the right labels but nobody has seen.
async fn may_not_get(ctx: Context) -> anyhow::Result<()> {
    let kinds = Kinds::new(ctx).await?;
    let ctx = &kinds.scene.ctx;
    ctx.grant(&Context::rules_for(&[&kinds.others])).await?;
    ctx.grant(&all_but(&kinds.sprockets, "get")).await?;
    kinds.declare().await?;
    ctx.admin.create(&kinds.sprockets, kinds.sprocket("taken", 7)).await?;
    let first = kinds.wants(json!({ "children": [kinds.sprocket("taken", 1), kinds.sprocket("s", 1)] })).await?;
    kinds.size("s", 1).await?;
    kinds.scene.event(&first, "SyncError", &["sprockets/taken", "orbidden", "cannot get"]).await?;
    kinds.steady("beside").await?;
    kinds.few_refusals()?;
    ctx.grant(&one_verb(&kinds.sprockets, "get")).await?;
    kinds.scene.event(&first, "SyncError", &["Sprocket", "taken", "isn't the parent's"]).await?;
    kinds.size("taken", 7).await?;
    ensure!(ctx.admin.delete(&kinds.sprockets, "taken").await?);
    kinds.size("taken", 1).await?;
    well(ctx, "c").await
}

async fn may_not_adopt(ctx: Context) -> anyhow::Result<()> {
    let kinds = Kinds::new(ctx).await?;
    let ctx = &kinds.scene.ctx;
    ctx.grant(&Context::rules_for(&[&kinds.others])).await?;
    ctx.grant(&all_but(&kinds.sprockets, "patch")).await?;
    kinds.declare().await?;
    let first = kinds.wants(json!({ "children": [kinds.sprocket("s", 1)] })).await?;
    let made = kinds.size("s", 1).await?;
    // Disowned by somebody: it is to be adopted again.
    let patch = json!({ "metadata": { "ownerReferences": null } });
    ctx.admin.patch_merge(&kinds.sprockets, "s", &patch).await?;
    kinds.scene.event(&first, "SyncError", &["sprockets/s", "orbidden", "cannot patch"]).await?;
    kinds.steady("beside").await?;
    kinds.few_refusals()?;
    ctx.grant(&one_verb(&kinds.sprockets, "patch")).await?;
    let ask = async || {
        let found = ctx.admin.get(&kinds.sprockets, "s").await?;
        let uid = &found["metadata"]["ownerReferences"][0]["uid"];
        ensure!(*uid == first["metadata"]["uid"] && found["metadata"]["uid"] == made["metadata"]["uid"], "{found}");
        Ok(())
    };
    ctx.wait("it is adopted", LATER, ask).await?;
    well(ctx, "c").await
}

async fn taken_away(ctx: Context) -> anyhow::Result<()> {
    let kinds = Kinds::new(ctx).await?;
    let ctx = &kinds.scene.ctx;
    kinds.steady("first").await?;
    let first = ctx.admin.get(&kinds.scene.maps, "first").await?;
    let bindings = Resource::new("rbac.authorization.k8s.io/v1", "ClusterRoleBinding", "clusterrolebindings", None);
    ctx.admin.delete_all(&bindings, &format!("suite={}", ctx.id)).await?;
    let ask = async || {
        let list = ctx.as_user()?.list(&kinds.scene.things, "limit=1").await;
        ensure!(list.is_err(), "still allowed");
        Ok(())
    };
    ctx.wait("the rights are gone", LATER, ask).await?;
    // A write fails at once, a watch when it is asked for anew.
    kinds.scene.wants("first", json!({ "children": [config_map("first", json!({ "x": "2" }))] })).await?;
    let name = ctx.controller_name("steady");
    let ask = async || {
        let controller = ctx.admin.get(&Context::controllers(), &name).await?;
        let text = controller["status"]["conditions"].to_string();
        ensure!(text.contains("\"Forbidden\"") && text.contains("grant get, list and watch"), "{text}");
        Ok(controller)
    };
    let controller = ctx.wait("the condition tells of the watches", NOTICED, ask).await?;
    kinds.scene.event(&controller, "CreateError", &["can't be watched", "orbidden"]).await?;
    // Unseen for now.
    ctx.admin.delete(&kinds.scene.maps, "first").await?;
    kinds.few_refusals()?;
    ctx.grant(&Context::rules_for(&[&kinds.scene.things, &kinds.scene.maps])).await?;
    let check = |map: &Value| {
        ensure!(map["data"]["x"] == "2", "{}", map["data"]);
        ensure!(map["metadata"]["uid"] != first["metadata"]["uid"], "the one from before");
        Ok(())
    };
    let ask = async || check(&ctx.admin.get(&kinds.scene.maps, "first").await?);
    ctx.wait("what was deleted is made again", LATER, ask).await?;
    well(ctx, "steady").await?;
    kinds.scene.event(&controller, "Recovered", &["watched again"]).await?;
    kinds.steady("second").await
}
