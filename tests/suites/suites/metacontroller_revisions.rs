//! Parity: Metacontroller's revisions, as rolling updates write them.
//!
//! Never about what holds a rollout up: see `rollouts`.

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::metacontroller_scene::{Strategy, composites, declare, each, scene};
use super::scene::{LATER, Scene, config_map};
use crate::cluster::{Context, Scope};
use crate::objects::Resource;
use crate::trial::Case;

/// Children of the parent.
const CHILDREN: [&str; 3] = ["a", "b", "c"];

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let named = ["revisions_of_a_rolling_update_merged", "revisions_of_a_rolling_update_applied"];
    each("parity", named, revisions).into()
}

fn wants(x: &str) -> Value {
    let children = CHILDREN.map(|name| {
        let mut map = config_map(name, json!({ "x": x }));
        map["metadata"]["labels"] = json!({ "app": "x" });
        map
    });
    json!({ "status": { "x": x }, "children": children })
}

/// Waits until the parent's only revision is of this state, and names all children.
async fn settled(scene: &Scene, kind: &Resource, x: &str) -> anyhow::Result<Value> {
    let ask = async || {
        let thing = scene.ctx.admin.get(&scene.things, "p").await?;
        let revisions = scene.ctx.admin.list(kind, "").await?;
        let [revision] = &*revisions else { bail!("{} revisions", revisions.len()) };
        // The whole spec is kept unless the controller says otherwise.
        ensure!(revision["parentPatch"] == json!({ "spec": thing["spec"] }), "{revision}");
        ensure!(thing["spec"]["reply"]["status"]["x"] == x && thing["status"]["x"] == x, "{thing}");
        let children = json!([{ "apiGroup": "", "kind": "ConfigMap", "names": CHILDREN }]);
        ensure!(revision["children"] == children, "{revision}");
        let conditions = thing["status"]["conditions"].as_array().context("no conditions")?;
        let told = conditions.iter().find(|condition| condition["type"] == "Updated").context("not told")?;
        ensure!(told["status"] == "True" && told["reason"] == "OnLatestRevision", "{told}");
        Ok(revision.clone())
    };
    scene.ctx.wait(&format!("one revision of {x} is left"), LATER, ask).await
}

async fn revisions(ctx: Context, strategy: Strategy) -> anyhow::Result<()> {
    let scene = scene(ctx, Scope::Namespaced, strategy).await?;
    let mut spec = scene.spec("RollingInPlace");
    spec["generateSelector"] = false.into();
    declare(&scene, &composites(), "c", spec).await?;
    let own = json!({
        "selector": { "matchLabels": { "app": "x" } },
        "template": { "metadata": { "labels": { "app": "x", "more": "1" } } },
        "reply": wants("1"),
    });
    let made = scene.ctx.admin.create(&scene.things, json!({ "metadata": { "name": "p" }, "spec": own })).await?;
    let kind = scene.ctx.namespaced("metacontroller.k8s.io/v1alpha1", "ControllerRevision", "controllerrevisions");
    let first = settled(&scene, &kind, "1").await?;
    let metadata = &first["metadata"];
    let name = metadata["name"].as_str().context("no name")?;
    let hash = name.strip_prefix(&format!("things.{}-", scene.ctx.group())).context("another name")?;
    ensure!(hash.len() == 40 && hash.chars().all(|c| c.is_ascii_hexdigit()), "{name}");
    let labels = json!({
        "metacontroller.k8s.io/apiGroup": scene.ctx.group(), "metacontroller.k8s.io/resource": "things",
        "app": "x", "more": "1",
    });
    ensure!(metadata["labels"] == labels, "{metadata}");
    let owner = &metadata["ownerReferences"][0];
    ensure!(owner["uid"] == made["metadata"]["uid"] && owner["controller"] == true, "{owner}");
    // All of them, however they are named: Metacontroller's own rollout stops after the first.
    scene.wants("p", wants("2")).await?;
    for name in CHILDREN {
        let check = |map: &Value| {
            ensure!(map["data"]["x"] == "2", "{map}");
            Ok(())
        };
        scene.map(name, "is updated", check).await?;
    }
    let second = settled(&scene, &kind, "2").await?;
    ensure!(second["metadata"]["name"] != metadata["name"], "{second}");
    // Back to a state that was: its name is the same again, as names are made of states.
    scene.wants("p", wants("1")).await?;
    let third = settled(&scene, &kind, "1").await?;
    ensure!(third["metadata"]["name"] == metadata["name"], "{third}");
    Ok(())
}
