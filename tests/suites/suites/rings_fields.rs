//! `ControllerRing`s of both groups at an API server: what their schemas fill in, refuse and keep.
//!
//! Never runs Ringmaster, and its rings are of kinds that nobody serves: those of other trials have nothing to do for
//! them.

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cluster::Context;
use crate::objects::{Resource, code};
use crate::trial::Case;

const GROUPS: [&str; 2] = ["ringmaster.dev", "sharding.timebertt.dev"];
/// What is said of a kind that is a main and a controlled one.
const BOTH: &str = "a kind that is divided by itself can't be a controlled one too";

pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("rings", "fields_are_filled_in", filled_in),
        Case::new("rings", "bad_fields_are_refused", refused),
        Case::new("rings", "statuses_are_kept", statuses),
    ]
}

fn rings(group: &str) -> Resource {
    Resource::new(&format!("{group}/v1alpha1"), "ControllerRing", "controllerrings", None)
}

fn kind(group: &str, resource: &str) -> Value {
    json!({ "group": group, "resource": resource })
}

/// A main kind with a controlled one.
fn main_kind(resource: &str, controlled: &str) -> Value {
    json!({ "group": "", "resource": resource, "controlledResources": [kind("", controlled)] })
}

fn ring(ctx: &Context, name: &str, spec: &Value) -> Value {
    json!({ "metadata": { "name": ctx.controller_name(name), "labels": { "suite": ctx.id } }, "spec": spec })
}

async fn filled_in(ctx: Context) -> anyhow::Result<()> {
    for (group, short_names, categories) in
        [(GROUPS[0], json!(["rcr"]), json!(["ringmaster"])), (GROUPS[1], Value::Null, Value::Null)]
    {
        let served = ctx.admin.get_path(&format!("/apis/{group}/v1alpha1")).await?;
        let found = |name: &str| served["resources"].as_array()?.iter().find(|resource| resource["name"] == name);
        let kind = found("controllerrings").with_context(|| format!("{group}: no rings: {served}"))?;
        ensure!(kind["kind"] == "ControllerRing" && kind["namespaced"] == false, "{kind}");
        ensure!(kind["shortNames"] == short_names && kind["categories"] == categories, "{kind}");
        ensure!(found("controllerrings/status").is_some(), "{group}: no status: {served}");
    }
    let spec = json!({ "resources": [{ "resource": "things", "controlledResources": [{ "resource": "parts" }] }] });
    let created = ctx.admin.create(&rings(GROUPS[0]), ring(&ctx, "least", &spec)).await?;
    let wanted = json!({ "hash": "BoundedLoad", "resources": [main_kind("things", "parts")] });
    ensure!(created["spec"] == wanted, "{created}");
    let spec = json!({
        "resources": [main_kind("things", "parts"), main_kind("others", "parts")],
        "namespaceSelector": { "matchExpressions": [{ "key": "a", "operator": "NotIn", "values": ["b"] }] },
    });
    for group in GROUPS {
        let created = ctx.admin.create(&rings(group), ring(&ctx, "full", &spec)).await?;
        ensure!(created["spec"]["resources"] == spec["resources"], "{created}");
        ensure!(created["spec"]["namespaceSelector"] == spec["namespaceSelector"], "{created}");
    }
    let nothing = ctx.admin.create(&rings(GROUPS[1]), ring(&ctx, "nothing", &json!({}))).await?;
    ensure!(nothing["spec"] == json!({}), "the contract asks for nothing: {nothing}");
    Ok(())
}

async fn refused(ctx: Context) -> anyhow::Result<()> {
    let [ours, theirs] = GROUPS.map(rings);
    let good = json!([main_kind("things", "parts")]);
    let with = |field: &str, value: Value| {
        let mut spec = json!({ "resources": good });
        spec[field] = value;
        spec
    };
    let of = |resources: Value| json!({ "resources": resources });
    let many: Value = (0..65).map(|number| kind("", &format!("kinds{number}"))).collect();
    let bad: [(&Resource, Value, &[&str]); 21] = [
        (&ours, json!({}), &["spec.resources", "Required"]),
        (&ours, of(json!([])), &["spec.resources", "at least 1"]),
        (&ours, of(many.clone()), &["spec.resources", "at most 64"]),
        (
            &ours,
            of(json!([{ "resource": "things", "controlledResources": many }])),
            &["spec.resources[0].controlledResources", "at most 64"],
        ),
        (&ours, of(json!([kind("", "a"), kind("", "a")])), &["spec.resources[1]", "Duplicate"]),
        (&theirs, of(json!([kind("", "a"), kind("", "a")])), &["spec.resources[1]", "Duplicate"]),
        (&theirs, of(json!([{ "resource": "a" }])), &["spec.resources[0].group", "Required"]),
        (&ours, of(json!([{ "group": "" }])), &["spec.resources[0].resource", "Required"]),
        (&ours, of(json!([kind("Apps", "a")])), &["spec.resources[0].group", "must be an API group such as apps"]),
        (&ours, of(json!([kind("apps/v1", "a")])), &["spec.resources[0].group", "must be an API group such as apps"]),
        (&ours, of(json!([kind("", "Secret")])), &["spec.resources[0].resource", "plural name"]),
        (&ours, of(json!([main_kind("things", "pods/status")])), &["controlledResources[0].resource", "plural name"]),
        (&ours, of(json!([main_kind("things", "things")])), &["spec.resources", BOTH]),
        (&ours, of(json!([main_kind("things", "parts"), kind("", "parts")])), &["spec.resources", BOTH]),
        (&ours, with("hash", json!("Rendezvous")), &["spec.hash", "\"BoundedLoad\"", "\"Tokens\""]),
        (&ours, with("drain", json!({ "timeoutSeconds": 0 })), &["spec.drain.timeoutSeconds", "1"]),
        (&ours, with("drain", json!({ "timeoutSeconds": 86_401 })), &["spec.drain.timeoutSeconds", "86400"]),
        (&ours, with("moves", json!({ "concurrent": 1001 })), &["spec.moves.concurrent", "1000"]),
        (&ours, with("moves", json!({ "settleSeconds": 3601 })), &["spec.moves.settleSeconds", "3600"]),
        (&ours, with("moves", json!({ "settleAtMostSeconds": -1 })), &["spec.moves.settleAtMostSeconds", "0"]),
        (
            &ours,
            with("namespaceSelector", json!({ "matchExpressions": [{ "key": "a", "operator": "Is" }] })),
            &["spec.namespaceSelector.matchExpressions[0].operator", "\"NotIn\""],
        ),
    ];
    let mut wrong = Vec::new();
    for (index, (resource, spec, words)) in bad.iter().enumerate() {
        let object = ring(&ctx, &format!("b{index}"), spec);
        wrong.extend(complaint(&ctx, resource, object, words).await);
    }
    for resource in [&ours, &theirs] {
        let mut object = ring(&ctx, "long", &json!({ "resources": good }));
        object["metadata"]["name"] = "x".repeat(64).into();
        wrong.extend(complaint(&ctx, resource, object, &["metadata.name", "at most 63 characters"]).await);
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    // A kind of another group may have the same name.
    let apart = json!({ "resources": [main_kind("things", "parts"), kind("shop.example", "parts")] });
    ctx.admin.create(&ours, ring(&ctx, "apart", &apart)).await?;
    Ok(())
}

/// What is wrong with how an object is refused.
async fn complaint(ctx: &Context, resource: &Resource, object: Value, words: &[&str]) -> Option<String> {
    let title = format!("{} {}", resource.group(), object["spec"].to_string().chars().take(80).collect::<String>());
    match ctx.admin.create(resource, object).await {
        Ok(_) => Some(format!("{title}: stored; wanted {words:?}")),
        Err(error) => {
            let text = format!("{error:#}");
            let fine = code(&error) == Some(422) && words.iter().all(|word| text.contains(word));
            (!fine).then(|| format!("{title}: wanted {words:?}: {text}"))
        }
    }
}

async fn statuses(ctx: Context) -> anyhow::Result<()> {
    let condition = |kind: &str, status: &str, reason: &str| {
        json!({
            "type": kind,
            "status": status,
            "reason": reason,
            "message": "m",
            "observedGeneration": 1,
            "lastTransitionTime": "2026-01-02T03:04:05Z",
        })
    };
    let status = |conditions: Value| {
        let mut status = json!({ "observedGeneration": 1, "shards": 2, "availableShards": 1 });
        status["conditions"] = conditions;
        json!({ "status": status })
    };
    let (ready, overdue) =
        (condition("Ready", "True", "Reconciled"), condition("DrainOverdue", "False", "Acknowledged"));
    let told = [status(json!([ready, overdue])), status(json!([condition("Ready", "False", "ReconciliationFailed")]))];
    let spec = json!({ "resources": [main_kind("things", "parts")] });
    for (group, status) in GROUPS.into_iter().zip(told) {
        let object = ctx.admin.create(&rings(group), ring(&ctx, "told", &spec)).await?;
        let written = ctx.admin.patch_status(&rings(group), &ctx.controller_name("told"), &status).await?;
        ensure!(written["status"] == status["status"], "{written}");
        ensure!(written["metadata"]["generation"] == object["metadata"]["generation"], "{written}");
    }
    // In the contract both numbers are always there.
    let without = json!({ "status": { "shards": null } });
    let written = ctx.admin.patch_status(&rings(GROUPS[1]), &ctx.controller_name("told"), &without).await;
    ensure!(written.as_ref().is_err_and(|error| code(error) == Some(422)), "{written:?}");
    Ok(())
}
