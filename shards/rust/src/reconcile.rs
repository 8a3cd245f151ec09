//! The wrapper around the user's function: acknowledges drains, leaves alone what isn't this shard's, asks the guard.
//!
//! Never runs twice at a time for an object: kube's `Controller` sees to that. Never decides when to run again.

use std::sync::Arc;

use futures::future::BoxFuture;
use kube::Resource;
use kube::api::{Patch, PatchParams};
use kube::core::{ObjectMeta, Request};
use kube_runtime::controller::Action;
use serde_json::Value;

use crate::guard::{Guard, Refused};
use crate::object::{Verdict, acknowledgement, verdict};
use crate::options::{Acknowledged, Identity, OnAcknowledged};

/// Why a run failed. The controller's error policy gets it.
#[derive(Debug, thiserror::Error)]
pub enum RunError<E> {
    /// The user's function failed.
    #[error("{0}")]
    Reconcile(#[source] E),
    /// The object couldn't be let go. It must be tried again: the sharder waits for it.
    #[error("the object couldn't be let go: {0}")]
    Acknowledge(#[source] kube::Error),
    /// The shard may not work. It needn't be tried again: the process ends.
    #[error(transparent)]
    Refused(#[from] Refused),
}

/// What a run needs besides the user's.
pub(crate) struct Runs {
    pub(crate) identity: Arc<Identity>,
    pub(crate) guard: Arc<Guard>,
    /// The guarded one.
    pub(crate) client: kube::Client,
    pub(crate) acknowledged: Option<OnAcknowledged>,
}

/// Wraps the user's function; `dyntype` is its objects' kind.
pub(crate) fn wrap<K, Ctx, F, Fut, E>(
    runs: Arc<Runs>,
    dyntype: K::DynamicType,
    reconcile: F,
) -> impl Fn(Arc<K>, Arc<Ctx>) -> BoxFuture<'static, Result<Action, RunError<E>>>
where
    K: Resource + Send + Sync + 'static,
    Ctx: Send + Sync + 'static,
    F: Fn(Arc<K>, Arc<Ctx>) -> Fut + Send + Sync + 'static,
    Fut: Future<Output = Result<Action, E>> + Send + 'static,
    E: Send + 'static,
{
    let reconcile = Arc::new(reconcile);
    move |object: Arc<K>, context: Arc<Ctx>| {
        let path = K::url_path(&dyntype, object.meta().namespace.as_deref());
        let (runs, reconcile) = (Arc::clone(&runs), Arc::clone(&reconcile));
        Box::pin(async move { run(&runs, &path, object, context, &*reconcile).await })
    }
}

/// One run, for the object that is at `path`.
async fn run<K, Ctx, F, Fut, E>(
    runs: &Runs,
    path: &str,
    object: Arc<K>,
    context: Arc<Ctx>,
    reconcile: &F,
) -> Result<Action, RunError<E>>
where
    K: Resource,
    F: Fn(Arc<K>, Arc<Ctx>) -> Fut,
    Fut: Future<Output = Result<Action, E>>,
{
    // As the cache shows it now: a retry may be due long after the object was moved.
    let verdict = verdict(object.meta().labels.as_ref(), &runs.identity.keys, &runs.identity.claim.name);
    if verdict == Verdict::Ignore {
        return Ok(Action::await_change());
    }
    let _run = runs.guard.begin()?;
    let done = async {
        if verdict == Verdict::Acknowledge {
            return runs.acknowledge(path, object.meta()).await.map_err(RunError::Acknowledge);
        }
        reconcile(Arc::clone(&object), context).await.map_err(RunError::Reconcile)
    };
    tokio::select! {
        biased;
        () = runs.guard.ended() => Err(RunError::Refused(Refused::Lost)),
        done = done => done,
    }
}

impl Runs {
    /// Lets an object go, which is at `path`.
    async fn acknowledge(&self, path: &str, meta: &ObjectMeta) -> Result<Action, kube::Error> {
        let (Some(name), Some(version)) = (&meta.name, &meta.resource_version) else {
            return Ok(Action::await_change());
        };
        // Nothing of ours may happen to it, or to its children, when it is another's.
        self.guard.resolved().await;
        let patch = Patch::Merge(acknowledgement(version, &self.identity.keys));
        let request = Request::new(path)
            .patch_metadata(name, &PatchParams::default(), &patch)
            .map_err(kube::Error::BuildRequest)?;
        match self.client.request::<Value>(request).await {
            Ok(object) => {
                if let Some(tell) = &self.acknowledged {
                    let version = object.pointer("/metadata/resourceVersion").and_then(Value::as_str);
                    tell(&Acknowledged {
                        namespace: meta.namespace.clone().unwrap_or_default(),
                        name: name.clone(),
                        resource_version: version.unwrap_or_default().to_owned(),
                    });
                }
                Ok(Action::await_change())
            }
            // It has changed, or is gone: an event follows.
            Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Action::await_change()),
            Err(error) => Err(error),
        }
    }
}
