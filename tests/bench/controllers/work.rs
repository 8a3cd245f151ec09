//! The writes that a Website needs, as Ringmaster makes them, by hand: the raw limit of an API server.
//!
//! Never waits for a controller; each step needs only what the step before was answered.

use anyhow::Context as _;
use http::Method;
use serde_json::{Value, json};

use crate::load::{Call, Connection};
use crate::workload;

/// The parents' group.
pub(crate) const GROUP: &str = "bench.ringmaster.dev";
/// What the server counts by: the kinds of the workload.
pub(crate) const PLURALS: [&str; 4] = ["websites", "configmaps", "services", "deployments"];
const JSON: &str = "application/json";
const JSON_PATCH: &str = "application/json-patch+json";
const MERGE_PATCH: &str = "application/merge-patch+json";

/// The parents' `apiVersion`.
pub(crate) fn parents() -> String {
    format!("{GROUP}/v1")
}

/// The path of a kind in a namespace.
pub(crate) fn collection(namespace: &str, plural: &str) -> String {
    let root = match plural {
        "websites" => format!("/apis/{}", parents()),
        "deployments" => "/apis/apps/v1".to_owned(),
        _ => "/api/v1".to_owned(),
    };
    format!("{root}/namespaces/{namespace}/{plural}")
}

/// A Website's name.
pub(crate) fn name(number: usize) -> String {
    format!("w{number:06}")
}

fn title(round: usize) -> String {
    format!("Title {round}")
}

/// POSTs a Website, as a user does.
pub(crate) fn create_parent(namespace: &str, number: usize) -> Call {
    let mut body = workload::website(&name(number), &title(0));
    body["apiVersion"] = parents().into();
    body["kind"] = "Website".into();
    call(Method::POST, collection(namespace, "websites"), JSON, &body)
}

/// Gives a Website another title, as a user does.
pub(crate) fn retitle(namespace: &str, number: usize, round: usize) -> Call {
    let path = format!("{}/{}", collection(namespace, "websites"), name(number));
    call(Method::PATCH, path, MERGE_PATCH, &json!({ "spec": { "title": title(round) } }))
}

/// Whether a Website's status is ready in a round.
pub(crate) fn is_ready(status: &Value, round: usize) -> bool {
    status["phase"] == "Ready" && status["title"] == title(round)
}

/// All that a new Website needs: itself, three children, two writes of its status.
pub(crate) async fn create(connection: &mut Connection, namespace: &str, number: usize) -> anyhow::Result<()> {
    let parent: Value = serde_json::from_slice(connection.call(&create_parent(namespace, number)).await?)?;
    for child in children(&parent)? {
        let plural = plural(&child)?;
        connection.call(&call(Method::POST, collection(namespace, plural), JSON, &child)).await?;
    }
    for phase in ["Pending", "Ready"] {
        connection.call(&status(namespace, number, &json!({ "phase": phase, "title": title(0) }))).await?;
    }
    Ok(())
}

/// All that a new title needs: the spec, the ConfigMap, the status.
pub(crate) async fn update(
    connection: &mut Connection,
    namespace: &str,
    number: usize,
    round: usize,
) -> anyhow::Result<()> {
    let parent: Value = serde_json::from_slice(connection.call(&retitle(namespace, number, round)).await?)?;
    let configmap =
        children(&parent)?.into_iter().find(|child| child["kind"] == "ConfigMap").context("no ConfigMap")?;
    let path = format!("{}/{}", collection(namespace, "configmaps"), name(number));
    connection.call(&call(Method::PUT, path, JSON, &configmap)).await?;
    connection.call(&status(namespace, number, &json!({ "phase": "Ready", "title": title(round) }))).await?;
    Ok(())
}

fn status(namespace: &str, number: usize, status: &Value) -> Call {
    let path = format!("{}/{}/status", collection(namespace, "websites"), name(number));
    call(Method::PATCH, path, JSON_PATCH, &json!([{ "op": "add", "path": "/status", "value": status }]))
}

/// The children with what Ringmaster puts into them: owner, selector's label, what was applied last.
fn children(parent: &Value) -> anyhow::Result<Vec<Value>> {
    let answer = workload::answer(&json!({ "parent": parent }));
    let children = answer["children"].as_array().context("no children")?;
    let uid = &parent["metadata"]["uid"];
    Ok(children
        .iter()
        .map(|desired| {
            let mut child = desired.clone();
            let applied = desired.to_string();
            child["metadata"]["labels"]["controller-uid"] = uid.clone();
            child["metadata"]["annotations"] = json!({ "ringmaster.dev/last-applied-configuration": applied });
            child["metadata"]["ownerReferences"] = json!([{
                "apiVersion": parents(), "kind": "Website", "name": parent["metadata"]["name"], "uid": uid,
                "controller": true, "blockOwnerDeletion": true,
            }]);
            child
        })
        .collect())
}

fn plural(child: &Value) -> anyhow::Result<&'static str> {
    match child["kind"].as_str() {
        Some("ConfigMap") => Ok("configmaps"),
        Some("Service") => Ok("services"),
        Some("Deployment") => Ok("deployments"),
        other => anyhow::bail!("a child of kind {other:?}"),
    }
}

fn call(method: Method, path: String, content_type: &'static str, body: &Value) -> Call {
    Call { method, path, content_type, body: body.to_string() }
}
