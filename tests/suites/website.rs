//! The Website workload in a trial: its kinds, its controller and its hook.
//!
//! Never what it is made of; see `workload`.

use serde_json::Value;

use crate::cluster::{Context, Scope};
use crate::hook::Reply;
use crate::objects::Resource;
use crate::workload;

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
        workload::controller(&self.websites.api_version, url)
    }

    /// A Website as a user writes it.
    pub(crate) fn website(name: &str, title: &str) -> Value {
        workload::website(name, title)
    }
}

/// What the hook answers: three children, and Ready once all three are observed.
pub(crate) fn reply(request: &Value) -> Reply {
    Reply::json(&workload::answer(request))
}
