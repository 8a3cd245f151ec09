//! What the trials of children and of errors start from: a parent kind, a hook that obeys its parents, a Ringmaster.
//!
//! Never judges: it only waits for what a trial names, and says what was seen last.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::cluster::{Context, Scope};
use crate::gate::Gate;
use crate::hook::{CallInfo, Hook, Reply};
use crate::objects::Resource;
use crate::process::{Build, Ringmaster};
use crate::wait;

/// How long what Ringmaster does at once may take on a busy machine.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// How long what comes after a retry of a watch or of a look-up may take.
pub(crate) const LATER: Duration = Duration::from_secs(60);
/// How long something must not happen.
pub(crate) const NEVER: Duration = Duration::from_millis(1000);

/// A trial's cast. Each part ends when it drops: Ringmaster first, the leased user last.
pub(crate) struct Scene {
    /// Runs since the start of the trial.
    pub(crate) ringmaster: Ringmaster,
    /// Answers with the parent's `spec.reply` unless the trial sets something else.
    pub(crate) hook: Hook,
    /// The parents' kind, `Thing`.
    pub(crate) things: Resource,
    /// ConfigMaps, the children.
    pub(crate) maps: Resource,
    /// The trial's corner.
    pub(crate) ctx: Context,
}

impl Scene {
    /// With namespaced parents; no controller yet.
    ///
    /// # Errors
    /// A part can't be had.
    pub(crate) async fn new(ctx: Context) -> anyhow::Result<Self> {
        Self::with(ctx, Scope::Namespaced).await
    }

    /// With parents of either scope.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) async fn with(ctx: Context, scope: Scope) -> anyhow::Result<Self> {
        Self::start(ctx, scope, &[]).await
    }

    /// With namespaced parents and more arguments.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) async fn with_args(ctx: Context, args: &[String]) -> anyhow::Result<Self> {
        Self::start(ctx, Scope::Namespaced, args).await
    }

    /// With a proxy between Ringmaster and the API server, which passes everything on at first, and with more arguments.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) async fn behind_gate(ctx: Context, args: &[&str]) -> anyhow::Result<(Self, Gate)> {
        let gate = Gate::start(&ctx.as_user()?).await?;
        let kubeconfig = format!("--kubeconfig={}", gate.kubeconfig(&ctx)?.display());
        let args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).chain([kubeconfig]).collect();
        Ok((Self::start(ctx, Scope::Namespaced, &args).await?, gate))
    }

    /// With parents of either scope, and more arguments.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub(crate) async fn start(ctx: Context, scope: Scope, args: &[String]) -> anyhow::Result<Self> {
        let (things, maps) = (ctx.crd("Thing", "things", scope, None).await?, ctx.configmaps());
        ctx.grant(&Context::rules_for(&[&things, &maps])).await?;
        let hook = Hook::start(obey)?;
        let ringmaster = args.iter().fold(Ringmaster::build(&ctx), Build::arg).start()?;
        Ok(Self { ringmaster, hook, things, maps, ctx })
    }

    /// The spec of a controller from things to ConfigMaps with this update method.
    pub(crate) fn spec(&self, method: &str) -> Value {
        spec(&self.things, &self.hook.url("/sync"), method)
    }

    /// Makes a thing that wants `reply`.
    ///
    /// # Errors
    /// The API server refuses it.
    pub(crate) async fn thing(&self, name: &str, reply: Value) -> anyhow::Result<Value> {
        let body = json!({ "metadata": { "name": name }, "spec": { "reply": reply } });
        self.ctx.admin.create(&self.things, body).await
    }

    /// Changes what a thing wants; fields of `reply` that aren't named stay.
    ///
    /// # Errors
    /// The API server refuses it.
    pub(crate) async fn wants(&self, name: &str, reply: Value) -> anyhow::Result<Value> {
        self.ctx.admin.patch_merge(&self.things, name, &json!({ "spec": { "reply": reply } })).await
    }

    /// The hook's key of a thing.
    pub(crate) fn key(&self, name: &str) -> String {
        self.things.namespace.as_ref().map_or_else(|| name.to_owned(), |namespace| format!("{namespace}/{name}"))
    }

    /// How often the hook was called for a thing.
    pub(crate) fn calls(&self, name: &str) -> usize {
        self.hook.calls_for(&self.key(name)).len()
    }

    /// Waits until the hook was called at least so often for a thing.
    ///
    /// # Errors
    /// Not in time.
    pub(crate) async fn called(&self, name: &str, times: usize) -> anyhow::Result<()> {
        let ask = async || {
            let calls = self.calls(name);
            ensure!(calls >= times, "{calls} calls");
            Ok(())
        };
        self.ctx.wait(&format!("{times} calls for {name}"), SOON, ask).await
    }

    /// Waits until a thing's status is of its present generation: a sync of it came to its end.
    ///
    /// # Errors
    /// Not in time.
    pub(crate) async fn synced(&self, name: &str) -> anyhow::Result<Value> {
        let ask = async || {
            let thing = self.ctx.admin.get(&self.things, name).await?;
            let generation = &thing["metadata"]["generation"];
            ensure!(thing["status"]["observedGeneration"] == *generation, "{generation}: {}", thing["status"]);
            Ok(thing)
        };
        self.ctx.wait(&format!("{name} is synced"), SOON, ask).await
    }

    /// Waits until a ConfigMap is as `check` wants it; `check` says what it misses.
    ///
    /// # Errors
    /// Not in time.
    pub(crate) async fn map(
        &self,
        name: &str,
        what: &str,
        check: impl Fn(&Value) -> anyhow::Result<()>,
    ) -> anyhow::Result<Value> {
        let ask = async || {
            let map = self.ctx.admin.get(&self.maps, name).await?;
            check(&map)?;
            Ok(map)
        };
        self.ctx.wait(&format!("ConfigMap {name}: {what}"), SOON, ask).await
    }

    /// Waits until a ConfigMap is gone.
    ///
    /// # Errors
    /// Not in time.
    pub(crate) async fn no_map(&self, name: &str, deadline: Duration) -> anyhow::Result<()> {
        let ask = async || {
            ensure!(self.ctx.admin.find(&self.maps, name).await?.is_none(), "it is there");
            Ok(())
        };
        self.ctx.wait(&format!("ConfigMap {name} is gone"), deadline, ask).await
    }

    /// Waits until the hook wasn't called for half a second: everything that was to be done is done.
    ///
    /// # Errors
    /// Not in time.
    pub(crate) async fn quiet(&self) -> anyhow::Result<usize> {
        let ask = async || {
            let before = self.hook.count();
            let same = async || {
                ensure!(self.hook.count() == before, "{} calls", self.hook.count());
                Ok(before)
            };
            wait::stays("no call", Duration::from_millis(500), same).await
        };
        self.ctx.wait("the hook is left in peace", SOON, ask).await
    }

    /// Fails if the hook is called within [`NEVER`].
    ///
    /// # Errors
    /// It is.
    pub(crate) async fn no_call(&self, why: &str) -> anyhow::Result<()> {
        let before = self.hook.count();
        let same = async || {
            ensure!(self.hook.count() == before, "{} calls instead of {before}", self.hook.count());
            Ok(())
        };
        wait::stays(why, NEVER, same).await
    }

    /// Waits for an event on `object` with this reason that holds all `words`; answers with its message.
    ///
    /// # Errors
    /// Not in time.
    pub(crate) async fn event(&self, object: &Value, reason: &str, words: &[&str]) -> anyhow::Result<String> {
        event(&self.ctx, object, reason, words).await
    }

    /// Waits for a condition of a controller; answers with its message.
    ///
    /// # Errors
    /// Not in time.
    pub(crate) async fn condition(&self, controller: &str, wanted: [&str; 3]) -> anyhow::Result<String> {
        condition(&self.ctx, controller, wanted).await
    }
}

/// The spec of a controller from `parents` to ConfigMaps, with a generated selector.
pub(crate) fn spec(parents: &Resource, url: &str, method: &str) -> Value {
    json!({
        "parentResource": { "apiVersion": parents.api_version, "resource": parents.plural },
        "childResources": [{ "apiVersion": "v1", "resource": "configmaps", "updateStrategy": { "method": method } }],
        "generateSelector": true,
        "hooks": { "sync": { "webhook": { "url": url } } },
    })
}

/// A ConfigMap as a hook wants it.
pub(crate) fn config_map(name: &str, data: Value) -> Value {
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data })
}

/// The hook that gives each parent what its `spec.reply` says.
pub(crate) fn obey(request: &Value, _: &CallInfo) -> Reply {
    match &request["parent"]["spec"]["reply"] {
        Value::Null => Reply::json(&json!({})),
        reply => Reply::json(reply),
    }
}

/// Waits for an event on `object` with this reason that holds all `words`; answers with its message.
///
/// # Errors
/// Not in time.
pub(crate) async fn event(ctx: &Context, object: &Value, reason: &str, words: &[&str]) -> anyhow::Result<String> {
    let what = format!("a {reason} event on {} that holds {words:?}", object["metadata"]["name"]);
    let ask = async || {
        let events = ctx.events_for(object).await?;
        let mut messages = events.iter().filter(|event| event["reason"] == reason).map(|event| &event["message"]);
        let found = messages.find_map(|message| {
            let message = message.as_str()?;
            words.iter().all(|word| message.contains(word)).then(|| message.to_owned())
        });
        found.with_context(|| format!("{:?}", events.iter().map(|event| &event["message"]).collect::<Vec<_>>()))
    };
    ctx.wait(&what, SOON, ask).await
}

/// Waits until the condition `[type, status, reason]` of a controller of this trial is there; answers with its message.
///
/// # Errors
/// Not in time.
pub(crate) async fn condition(ctx: &Context, controller: &str, wanted: [&str; 3]) -> anyhow::Result<String> {
    let [kind, status, reason] = wanted;
    let name = ctx.controller_name(controller);
    let ask = async || {
        let object = ctx.admin.get(&Context::controllers(), &name).await?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|c| c["type"] == kind && c["status"] == status && c["reason"] == reason);
        let found = found.with_context(|| format!("{conditions:?}"))?;
        let generation = &object["metadata"]["generation"];
        ensure!(found["observedGeneration"] == *generation, "not of generation {generation}: {found}");
        Ok(found["message"].as_str().unwrap_or_default().to_owned())
    };
    ctx.wait(&format!("{controller} has condition {kind} {status} {reason}"), LATER, ask).await
}
