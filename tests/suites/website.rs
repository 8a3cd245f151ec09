//! The Website workload in process: a parent with a ConfigMap, a headless Service and a Deployment of no replicas.
//!
//! Never more than a hook needs: the shipped example is tested on its own.

use serde_json::{Value, json};

use crate::cluster::{Context, Scope};
use crate::hook::Reply;
use crate::objects::Resource;

/// The kinds of the workload.
pub(crate) struct Kinds {
    /// The parents.
    pub(crate) websites: Resource,
    /// The children.
    pub(crate) children: [Resource; 3],
}

impl Kinds {
    /// Makes the parents' kind, and gives the trial's Ringmaster its rights.
    ///
    /// # Errors
    /// The API server refuses.
    pub(crate) async fn install(ctx: &Context) -> anyhow::Result<Self> {
        let websites = ctx.crd("Website", "websites", Scope::Namespaced, None).await?;
        let children = [
            ctx.configmaps(),
            ctx.namespaced("v1", "Service", "services"),
            ctx.namespaced("apps/v1", "Deployment", "deployments"),
        ];
        let [configmaps, services, deployments] = &children;
        ctx.grant(&Context::rules_for(&[&websites, configmaps, services, deployments])).await?;
        Ok(Self { websites, children })
    }

    /// A CompositeController's spec, with a hook at `url`.
    pub(crate) fn spec(&self, url: &str) -> Value {
        json!({
            "generateSelector": true,
            "parentResource": { "apiVersion": self.websites.api_version, "resource": "websites" },
            "childResources": self.children.iter().map(|kind| json!({
                "apiVersion": kind.api_version, "resource": kind.plural, "updateStrategy": { "method": "InPlace" },
            })).collect::<Value>(),
            "hooks": { "sync": { "webhook": { "url": url } } },
        })
    }

    /// A Website as a user writes it.
    pub(crate) fn website(name: &str, title: &str) -> Value {
        json!({ "metadata": { "name": name }, "spec": { "title": title } })
    }
}

/// What the hook answers: three children, and Ready once all three are observed.
pub(crate) fn reply(request: &Value) -> Reply {
    Reply::json(&answer(request))
}

/// The same as a value.
pub(crate) fn answer(request: &Value) -> Value {
    let parent = &request["parent"];
    let (name, title) = (&parent["metadata"]["name"], &parent["spec"]["title"]);
    let observed = request["children"].as_object().into_iter().flat_map(|kinds| kinds.values());
    let observed: usize = observed.filter_map(Value::as_object).map(serde_json::Map::len).sum();
    let labels = json!({ "app": name });
    json!({
        "status": { "phase": if observed == 3 { "Ready" } else { "Pending" }, "title": title },
        "children": [
            { "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name, "labels": labels },
              "data": { "title": title } },
            { "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "labels": labels },
              "spec": { "clusterIP": "None", "selector": labels, "ports": [{ "name": "http", "port": 80 }] } },
            { "apiVersion": "apps/v1", "kind": "Deployment", "metadata": { "name": name, "labels": labels },
              "spec": { "replicas": 0, "selector": { "matchLabels": labels }, "template": {
                  "metadata": { "labels": labels },
                  "spec": { "containers": [{ "name": "web", "image": "nginx", "ports": [{ "containerPort": 80 }] }] } } } },
        ],
    })
}
