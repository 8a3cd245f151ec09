//! What the trials of parity start from: Metacontroller's objects, and both ways in which its children are written.
//!
//! Never judges, as `scene` doesn't.

use serde_json::{Value, json};

use crate::cluster::{Context, Scope};
use crate::objects::Resource;
use crate::suites::scene::Scene;
use crate::trial::Case;

/// The annotation of children that are merged.
pub(super) const LAST_APPLIED: &str = "metacontroller.k8s.io/last-applied-configuration";

/// How a process writes children of Metacontroller's controllers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    /// By a merge of three, which is the default.
    Merged,
    /// By server-side apply.
    Applied,
}

impl Strategy {
    /// The argument that asks for it.
    pub(super) fn flag(self) -> String {
        let name = match self {
            Self::Merged => "dynamic-apply",
            Self::Applied => "server-side-apply",
        };
        format!("--apply-strategy={name}")
    }
}

/// A trial for each strategy; the names are in this order.
pub(super) fn each<F, Fut>(suite: &'static str, [merged, applied]: [&'static str; 2], run: F) -> [Case; 2]
where
    F: Fn(Context, Strategy) -> Fut + Copy + Send + Sync + 'static,
    Fut: Future<Output = anyhow::Result<()>> + 'static,
{
    [
        Case::new(suite, merged, move |ctx| run(ctx, Strategy::Merged)),
        Case::new(suite, applied, move |ctx| run(ctx, Strategy::Applied)),
    ]
}

/// Metacontroller's composites.
pub(super) fn composites() -> Resource {
    Resource::new("metacontroller.k8s.io/v1alpha1", "CompositeController", "compositecontrollers", None)
}

/// Metacontroller's decorators.
pub(super) fn decorators() -> Resource {
    Resource::new("metacontroller.k8s.io/v1alpha1", "DecoratorController", "decoratorcontrollers", None)
}

/// A scene whose Ringmaster writes children so.
///
/// # Errors
/// A part can't be had.
pub(super) async fn scene(ctx: Context, scope: Scope, strategy: Strategy) -> anyhow::Result<Scene> {
    Scene::start(ctx, scope, &[strategy.flag()]).await
}

/// Declares a controller of one of these kinds.
///
/// # Errors
/// The API server refuses it.
pub(super) async fn declare(scene: &Scene, kind: &Resource, name: &str, spec: Value) -> anyhow::Result<Value> {
    let metadata = json!({ "name": scene.ctx.controller_name(name), "labels": { "suite": scene.ctx.id } });
    scene.ctx.admin.create(kind, json!({ "metadata": metadata, "spec": spec })).await
}
