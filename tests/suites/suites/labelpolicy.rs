//! The shipped admission policy for the labels of shards: who is warned of what, and who is refused if it shall refuse.
//!
//! Never on the embedded server: it doesn't serve admission policies, and says so as for any kind that isn't served.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use http::{Method, Request};
use kube::client::Body;
use serde_json::{Value, json};

use super::members_hands::{OWNER, SELF};
use super::scene::config_map;
use crate::cluster::{Context, Scope};
use crate::objects::Resource;
use crate::trial::Case;

/// How long the API server may take to go by a policy.
const IN_FORCE: Duration = Duration::from_secs(30);
/// The account that the shipped policy names.
const OURS: &str = "system:serviceaccount:ringmaster-system:ringmaster";
/// Somebody else.
const OTHER: &str = "kubernetes-admin";

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::real("labelpolicy", "guards_labels_of_shards", guards).own_server()]
}

/// A request as `user`: its code and its warnings.
async fn ask(
    ctx: &Context,
    user: &str,
    method: Method,
    path: &str,
    body: Option<&Value>,
) -> anyhow::Result<(u16, Vec<String>)> {
    let kind = if method == Method::PATCH { "application/merge-patch+json" } else { "application/json" };
    let request = Request::builder().method(method).uri(path).header("content-type", kind);
    let request = request.header("impersonate-user", user).header("impersonate-group", "system:masters");
    let body = body.map(serde_json::to_vec).transpose()?.map_or_else(Body::empty, Body::from);
    let answer = ctx.admin.client().send(request.body(body)?).await?;
    let warnings = answer.headers().get_all("warning").iter();
    let warnings = warnings.map(|warning| warning.to_str().map(str::to_owned)).collect::<Result<_, _>>()?;
    Ok((answer.status().as_u16(), warnings))
}

/// An object with these labels, as if it had just been made; its path.
async fn made(ctx: &Context, kind: &Resource, labels: &Value) -> anyhow::Result<String> {
    let mut body = config_map("a", json!({ "x": "1" }));
    (body["apiVersion"], body["kind"]) = (kind.api_version.clone().into(), kind.kind.clone().into());
    body["metadata"]["labels"] = labels.clone();
    ask(ctx, OTHER, Method::DELETE, &kind.object("a"), None).await?;
    let created = ask(ctx, OTHER, Method::POST, &kind.path(), Some(&body)).await?;
    ensure!(created == (201, Vec::new()), "a creation passes in silence: {created:?}");
    Ok(kind.object("a"))
}

fn patch(labels: Value) -> Value {
    json!({ "metadata": { "labels": labels } })
}

async fn guards(ctx: Context) -> anyhow::Result<()> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/deploy/labelpolicy.yaml");
    let applied = ctx.admin.apply_yaml(&file).await?;
    let maps = ctx.configmaps();
    let things = ctx.crd("Thing", "things", Scope::Namespaced, None).await?;
    let (old, gone) = (json!({ OWNER: "12", "app": "x" }), json!({ OWNER: null }));
    let in_force = async || {
        let path = made(&ctx, &maps, &old).await?;
        let (code, warnings) = ask(&ctx, OTHER, Method::PATCH, &path, Some(&patch(gone.clone()))).await?;
        ensure!(code == 200 && warnings.len() == 1, "{code} {warnings:?}");
        ensure!(warnings[0].contains("Ringmaster's"), "{warnings:?}");
        Ok(())
    };
    ctx.wait("who removes a label is warned", IN_FORCE, in_force).await?;

    let both = json!({ OWNER: "0", SELF: "255" });
    let cases = [
        ("another number", &maps, &old, json!({ OWNER: "13" }), OTHER, 1),
        ("junk", &maps, &old, json!({ OWNER: "x" }), OTHER, 1),
        ("the parent's gone from what has both", &maps, &both, json!({ SELF: null }), OTHER, 1),
        ("the child's gone from what has both", &maps, &both, json!({ OWNER: null }), OTHER, 1),
        ("both gone", &maps, &both, json!({ OWNER: null, SELF: null }), OTHER, 1),
        ("a parent's", &things, &json!({ SELF: "255" }), json!({ SELF: "25" }), OTHER, 1),
        ("another label", &maps, &old, json!({ "app": null, "b": "c" }), OTHER, 0),
        ("the same", &maps, &old, json!({ OWNER: "12" }), OTHER, 0),
        ("junk put right", &maps, &json!({ OWNER: "256" }), json!({ OWNER: "12" }), OTHER, 0),
        ("a new one", &maps, &json!({}), json!({ OWNER: "12" }), OTHER, 0),
        ("none", &maps, &json!({}), json!({ "app": "x" }), OTHER, 0),
        ("Ringmaster changes", &maps, &old, json!({ OWNER: "13" }), OURS, 0),
        ("Ringmaster removes", &maps, &old, gone.clone(), OURS, 0),
    ];
    for (name, kind, before, change, user, wanted) in cases {
        let path = made(&ctx, kind, before).await?;
        let (code, warnings) = ask(&ctx, user, Method::PATCH, &path, Some(&patch(change))).await?;
        ensure!(code == 200 && warnings.len() == wanted, "{name}: {code} {warnings:?}");
    }
    let path = made(&ctx, &maps, &old).await?;
    let whole = config_map("a", json!({ "x": "2" }));
    let (code, warnings) = ask(&ctx, OTHER, Method::PUT, &path, Some(&whole)).await?;
    ensure!(code == 200 && warnings.len() == 1, "replaced: {code} {warnings:?}");
    let path = made(&ctx, &maps, &old).await?;
    let deleted = ask(&ctx, OTHER, Method::DELETE, &path, None).await?;
    ensure!(deleted == (200, Vec::new()), "deleted: {deleted:?}");

    let bindings = applied.iter().filter(|object| object["kind"] == "ValidatingAdmissionPolicyBinding");
    let version = "admissionregistration.k8s.io/v1";
    let resource =
        Resource::new(version, "ValidatingAdmissionPolicyBinding", "validatingadmissionpolicybindings", None);
    for binding in bindings {
        let name = binding["metadata"]["name"].as_str().context("no name")?;
        ctx.admin.patch_merge(&resource, name, &json!({ "spec": { "validationActions": ["Deny"] } })).await?;
    }
    let refused = async || {
        let path = made(&ctx, &maps, &old).await?;
        let (code, _) = ask(&ctx, OTHER, Method::PATCH, &path, Some(&patch(gone.clone()))).await?;
        ensure!(code == 403, "{code}");
        let ours = ask(&ctx, OURS, Method::PATCH, &path, Some(&patch(gone.clone()))).await?;
        ensure!(ours == (200, Vec::new()), "{ours:?}");
        Ok(())
    };
    ctx.wait("who removes a label is refused", IN_FORCE, refused).await
}
