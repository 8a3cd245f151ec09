//! What a trial gets: a server, an id, a namespace and a user of its own, and the words to ask for more.
//!
//! Never shares an object between trials: names, groups and labels carry the trial's id.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use anyhow::{Context as _, anyhow};
use serde_json::{Value, json};

use crate::objects::{self, FIELD_MANAGER, Objects, Resource};
use crate::server::audit::{AuditEntry, Mark};
use crate::server::{self, Server, Subject, User, lock};
use crate::wait;

/// How long the cleaning after a trial may take.
pub(crate) const CLEANUP: Duration = Duration::from_secs(10);

/// Whether a kind made by [`Context::crd`] lives in namespaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// `Namespaced`.
    Namespaced,
    /// `Cluster`.
    Cluster,
}

/// What a trial is doing, for the message when it fails or takes too long.
#[derive(Default)]
pub(crate) struct Progress {
    /// What it waits for, with the last state.
    awaited: Mutex<String>,
    /// The logs of the processes that it started.
    logs: Mutex<Vec<PathBuf>>,
}

impl Progress {
    /// What is being awaited, or was last.
    pub(crate) fn awaited(&self) -> String {
        lock(&self.awaited).clone()
    }

    /// What is being awaited from now on; `state` is what was seen last.
    pub(crate) fn awaits(&self, what: &str, state: Option<&str>) {
        let last = state.map(|state| format!(" (last state: {state})")).unwrap_or_default();
        *lock(&self.awaited) = format!("{what}{last}");
    }

    /// One more log to show when the trial fails.
    pub(crate) fn add_log(&self, log: PathBuf) {
        lock(&self.logs).push(log);
    }

    /// The logs to show when the trial fails.
    pub(crate) fn logs(&self) -> Vec<PathBuf> {
        lock(&self.logs).clone()
    }
}

/// A trial's own corner of a server.
pub(crate) struct Context {
    /// The server; suites never know which kind it is.
    pub(crate) server: Arc<Server>,
    /// The administrator's view.
    pub(crate) admin: Objects,
    /// Short, unique at this server, a DNS label: the value of the label `suite` and part of every name.
    pub(crate) id: String,
    /// A namespace that exists and belongs to this trial.
    pub(crate) namespace: String,
    /// The user as whom Ringmaster runs, with the shipped role.
    pub(crate) user: User,
    progress: Arc<Progress>,
    started: Mark,
    grants: AtomicUsize,
}

impl Context {
    /// Makes id and namespace, leases a user.
    ///
    /// # Errors
    /// The API server refuses, or no user is free.
    pub(crate) async fn new(server: Arc<Server>, progress: Arc<Progress>) -> anyhow::Result<Self> {
        let id = unique_id();
        let namespace = format!("suite-{id}");
        let admin = server.admin()?;
        let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
        let body = json!({ "metadata": { "name": namespace, "labels": { "suite": id } } });
        admin.create(&namespaces, body).await?;
        server.members_in(&admin, &namespace).await?;
        let (user, started) = (server.lease_user()?, server.mark()?);
        let grants = AtomicUsize::new(0);
        Ok(Self { server, admin, id, namespace, user, progress, started, grants })
    }

    /// The API group of this trial's kinds.
    pub(crate) fn group(&self) -> String {
        format!("{}.test.ringmaster.dev", self.id)
    }

    /// The view of the trial's Ringmaster user.
    ///
    /// # Errors
    /// The client can't be made.
    pub(crate) fn as_user(&self) -> anyhow::Result<Objects> {
        self.server.objects(&self.user.name)
    }

    /// A resource in the trial's namespace.
    pub(crate) fn namespaced(&self, api_version: &str, kind: &str, plural: &str) -> Resource {
        Resource::new(api_version, kind, plural, Some(&self.namespace))
    }

    /// The trial's ConfigMaps.
    pub(crate) fn configmaps(&self) -> Resource {
        self.namespaced("v1", "ConfigMap", "configmaps")
    }

    /// `ringmaster.dev/v1alpha1` CompositeControllers.
    pub(crate) fn controllers() -> Resource {
        Resource::new("ringmaster.dev/v1alpha1", "CompositeController", "compositecontrollers", None)
    }

    /// Creates a CRD in [`Self::group`], version `v1`, with a status subresource, and waits until it is served.
    /// Without a schema the whole object keeps unknown fields. A namespaced kind comes back in the trial's namespace.
    ///
    /// # Errors
    /// The API server refuses it or doesn't serve it in time.
    pub(crate) async fn crd(
        &self,
        kind: &str,
        plural: &str,
        scope: Scope,
        schema: Option<Value>,
    ) -> anyhow::Result<Resource> {
        let group = self.group();
        let place = match scope {
            Scope::Namespaced => "Namespaced",
            Scope::Cluster => "Cluster",
        };
        let mut crd = objects::crd(&group, kind, plural, place, schema);
        crd["metadata"]["labels"] = json!({ "suite": self.id });
        let applied = self.admin.apply(&crd).await?;
        server::served(&self.admin, &applied).await?;
        let namespace = (scope == Scope::Namespaced).then_some(self.namespace.as_str());
        Ok(Resource::new(&format!("{group}/v1"), kind, plural, namespace))
    }

    /// Creates a `ringmaster.dev/v1alpha1` CompositeController with the trial's label. Its name is cluster-wide:
    /// `<name>-<id>`; the answer is the created object.
    ///
    /// # Errors
    /// The API server refuses it.
    pub(crate) async fn controller(&self, name: &str, spec: Value) -> anyhow::Result<Value> {
        let metadata = json!({ "name": self.controller_name(name), "labels": { "suite": self.id } });
        self.admin.create(&Self::controllers(), json!({ "metadata": metadata, "spec": spec })).await
    }

    /// The name under which [`Self::controller`] creates `name`.
    pub(crate) fn controller_name(&self, name: &str) -> String {
        format!("{name}-{}", self.id)
    }

    /// Lets the trial's user do more: `rules` is a list of RBAC rules as JSON. In effect when this returns.
    ///
    /// # Errors
    /// The API server refuses them, or they have no effect in time.
    pub(crate) async fn grant(&self, rules: &Value) -> anyhow::Result<()> {
        self.grant_to(&self.user, rules).await
    }

    /// The same for another leased user.
    ///
    /// # Errors
    /// As [`Self::grant`].
    pub(crate) async fn grant_to(&self, user: &User, rules: &Value) -> anyhow::Result<()> {
        let name = format!("suite-{}-{}", self.id, self.grants.fetch_add(1, Ordering::Relaxed));
        server::grant(&self.admin, &name, Some(&self.id), Subject::User(&user.name), rules).await
    }

    /// Everything that a controller may do to a kind made by [`Self::crd`], for [`Self::grant`].
    pub(crate) fn rules_for(resources: &[&Resource]) -> Value {
        resources
            .iter()
            .map(|resource| {
                json!({
                    "apiGroups": [resource.group()],
                    "resources": [&resource.plural, format!("{}/status", resource.plural),
                        format!("{}/finalizers", resource.plural)],
                    "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"],
                })
            })
            .collect()
    }

    /// Waits for a condition: see [`wait::until`]. What is awaited is told if the trial takes too long.
    ///
    /// # Errors
    /// The deadline passed: names `what` and the last state.
    pub(crate) async fn wait<T>(
        &self,
        what: &str,
        deadline: Duration,
        ask: impl AsyncFnMut() -> anyhow::Result<T>,
    ) -> anyhow::Result<T> {
        self.progress.awaits(what, None);
        wait::until(what, deadline, |state| self.progress.awaits(what, Some(state)), ask).await
    }

    /// The core/v1 events that regard an object, by its uid, in order of creation as the server lists them.
    ///
    /// # Errors
    /// The object has no uid, or the list fails.
    pub(crate) async fn events_for(&self, object: &Value) -> anyhow::Result<Vec<Value>> {
        let uid = object["metadata"]["uid"].as_str().ok_or_else(|| anyhow!("events_for: object without a uid"))?;
        let events = Resource::new("v1", "Event", "events", None);
        self.admin.list(&events, &format!("fieldSelector=involvedObject.uid%3D{uid}")).await
    }

    /// The present end of the audit log.
    ///
    /// # Errors
    /// It can't be read.
    pub(crate) fn mark(&self) -> anyhow::Result<Mark> {
        self.server.mark()
    }

    /// The requests of the trial's user since a mark.
    ///
    /// # Errors
    /// The audit log can't be read.
    pub(crate) fn requests(&self, since: Mark) -> anyhow::Result<Vec<AuditEntry>> {
        self.server.requests(&self.user.name, since)
    }

    /// The requests of the trial's user since the trial began.
    ///
    /// # Errors
    /// The audit log can't be read.
    pub(crate) fn all_requests(&self) -> anyhow::Result<Vec<AuditEntry>> {
        self.requests(self.started)
    }

    /// A log file for a process of this trial; its end is shown if the trial fails.
    pub(crate) fn log_file(&self, name: &str) -> PathBuf {
        let number = lock(&self.progress.logs).len();
        let path = self.server.logs().join(format!("{}-{name}-{number}.log", self.id));
        self.progress.add_log(path.clone());
        path
    }
}

/// What is removed after a trial, whether it passed or not.
pub(crate) struct Cleanup {
    server: Arc<Server>,
    id: String,
}

impl Cleanup {
    /// For a trial's context, which the trial itself will consume.
    pub(crate) fn of(context: &Context) -> Self {
        Self { server: Arc::clone(&context.server), id: context.id.clone() }
    }

    /// Deletes the trial's controllers, rings and grants. Its namespace and CRDs stay: the server goes soon enough, and
    /// finalizers of a stopped controller would hold them anyway, as they hold controllers with a finalize hook.
    ///
    /// # Errors
    /// The API server refuses a deletion.
    pub(crate) async fn run(&self) -> anyhow::Result<()> {
        let admin = self.server.admin()?;
        let selector = format!("suite={}", self.id);
        for (api_version, plural) in [
            ("ringmaster.dev/v1alpha1", "compositecontrollers"),
            ("ringmaster.dev/v1alpha1", "decoratorcontrollers"),
            ("metacontroller.k8s.io/v1alpha1", "compositecontrollers"),
            ("metacontroller.k8s.io/v1alpha1", "decoratorcontrollers"),
            ("ringmaster.dev/v1alpha1", "controllerrings"),
            ("sharding.timebertt.dev/v1alpha1", "controllerrings"),
            ("rbac.authorization.k8s.io/v1", "clusterrolebindings"),
            ("rbac.authorization.k8s.io/v1", "clusterroles"),
        ] {
            let resource = Resource::new(api_version, "", plural, None);
            admin.delete_all(&resource, &selector).await.with_context(|| format!("{FIELD_MANAGER} cleaning"))?;
        }
        Ok(())
    }
}

/// A DNS label that no other trial at this machine has at this time: a letter, this process, a running number.
fn unique_id() -> String {
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(AtomicU32::default);
    format!("t{:x}-{:x}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}
