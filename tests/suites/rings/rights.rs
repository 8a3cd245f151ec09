//! What Ringmaster and the shards of a ring may do: the shipped role for rings, and what `ringmaster rbac` prints.
//!
//! Never more than that: a right that one of them lacks is an error of what is printed.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, anyhow, ensure};
use serde_json::{Value, json};

use crate::cluster::Context;
use crate::objects::{Resource, read_yaml};
use crate::server::{Subject, User};

/// Gives Ringmaster its rights for a ring, and to `user` those of its shards, whose Leases are in the trial's namespace.
///
/// # Errors
/// Nothing is printed, or the API server refuses it.
pub(crate) async fn give(ctx: &Context, ring: &Value, user: &User) -> anyhow::Result<()> {
    let shipped = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests/rings/clusterrole.yaml");
    let roles = read_yaml(&shipped)?.into_iter().chain(printed(ctx, ring, &[])?);
    for role in roles.filter(|object| object["kind"] == "ClusterRole") {
        ctx.grant(&role["rules"]).await?;
    }
    let account = format!("--account={}:shards", ctx.namespace);
    for mut object in printed(ctx, ring, &["--shard", &account])? {
        match object["kind"].as_str() {
            Some("ClusterRole") => ctx.grant_to(user, &object["rules"]).await?,
            Some("Role") => drop(ctx.admin.apply(&object).await?),
            Some("RoleBinding") => {
                object["subjects"] = json!([Subject::User(&user.name).json()]);
                ctx.admin.apply(&object).await?;
            }
            _ => {}
        }
    }
    Ok(())
}

/// Makes the namespace of the members' Leases and of their webhook's certificate, with the shipped rights on these.
///
/// # Errors
/// The API server refuses it.
pub(crate) async fn give_home(ctx: &Context, namespace: &str) -> anyhow::Result<()> {
    let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
    ctx.admin.create(&namespaces, json!({ "metadata": { "name": namespace, "labels": { "suite": ctx.id } } })).await?;
    for shipped in ["manifests/deploy/role.yaml", "manifests/rings/role.yaml"] {
        for mut object in read_yaml(&Path::new(env!("CARGO_MANIFEST_DIR")).join(shipped))? {
            object["metadata"]["namespace"] = namespace.into();
            if object["kind"] == "RoleBinding" {
                object["subjects"] = json!([Subject::User(&ctx.user.name).json()]);
            }
            ctx.admin.apply(&object).await?;
        }
    }
    Ok(())
}

/// The objects that `ringmaster rbac` prints for a ring.
fn printed(ctx: &Context, ring: &Value, args: &[&str]) -> anyhow::Result<Vec<Value>> {
    let file = ctx.server.logs().join(format!("{}-ring.yaml", ctx.id));
    // JSON is YAML.
    std::fs::write(&file, ring.to_string()).with_context(|| file.display().to_string())?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringmaster"));
    let output = command.arg("rbac").args(args).arg(&file).stdin(Stdio::null()).output().context("ringmaster rbac")?;
    ensure!(output.status.success(), "ringmaster rbac: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).context("ringmaster rbac")?;
    let objects: Vec<Value> =
        serde_saphyr::from_multiple(&text).map_err(|error| anyhow!("ringmaster rbac: {error}: {text}"))?;
    ensure!(!objects.is_empty(), "ringmaster rbac printed nothing");
    Ok(objects)
}
