//! One sync of one parent: read the cache, call the hook, plan, execute.
//!
//! Never holds a lock across an await, and never decides what to write: `core::plan` does.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use http::{HeaderMap, HeaderValue};
use ringmaster_cluster::Client;
use ringmaster_core::condition::HookHealth;
use ringmaster_core::hash::{SHARDS, shard, xxh};
use ringmaster_core::hook::{Limits, Observed, SyncReply, sync_request};
use ringmaster_core::key::{ObjectKey, SyncKey};
use ringmaster_core::object::Object;
use ringmaster_core::plan::composite::{Input, Kind, plan};
use ringmaster_core::plan::{Claims, adopt_patch, claim, describe, parent_selector, release_patch};
use ringmaster_core::queue::{FREE_REPEATS, Outcome, Popped, Priority};
use ringmaster_core::selector::Selector;
use ringmaster_hooks::Hooks;

use crate::execute::{Executor, Failures};
use crate::hosted::Hosted;
use crate::metrics::SyncResult;
use crate::tell::{Problem, Tell};

/// Objects of one sync that are read at once.
const MAX_READS_AT_ONCE: usize = 8;

/// What every sync needs.
pub(crate) struct Syncer {
    pub(crate) client: Client,
    pub(crate) hooks: Hooks,
    pub(crate) tell: Tell,
    pub(crate) limits: Limits,
    /// This process's name, as hooks see it.
    pub(crate) member: HeaderValue,
}

/// How a sync that did its work ended.
struct Done {
    resync_after: Option<Duration>,
    again: bool,
}

impl Syncer {
    /// Syncs one parent, tells of what went wrong, counts it, and says what the queue should do.
    pub(crate) async fn sync(&self, hosted: &Hosted, popped: &Popped) -> Outcome {
        let start = Instant::now();
        let outcome = self.sync_uncounted(hosted, popped).await;
        let result = match &outcome {
            Outcome::Success { again: Some(_), .. } => SyncResult::Requeue,
            Outcome::Success { resync_after: Some(_), .. } | Outcome::RetryAfter(_) => SyncResult::RequeueAfter,
            Outcome::Success { .. } | Outcome::Dropped => SyncResult::Success,
            Outcome::Failure | Outcome::FailureFor(_) => SyncResult::Error,
        };
        hosted.metrics.ended(result, start.elapsed());
        outcome
    }

    async fn sync_uncounted(&self, hosted: &Hosted, popped: &Popped) -> Outcome {
        let key = &popped.key;
        let parent = hosted.parents.store().get(&key.parent).cloned();
        let Some(parent) = parent.filter(|parent| hosted.selects(parent)) else {
            hosted.forget_notes(&key.parent);
            return Outcome::Dropped;
        };
        if hosted.is_terminal(&parent) {
            return Outcome::Success { resync_after: None, again: None };
        }
        let outcome = self.told(hosted, popped, parent).await;
        if !hosted.has(&key.parent) {
            // It went while its sync ran: what was noted of it since has nobody who would take it away.
            hosted.forget_notes(&key.parent);
            return Outcome::Dropped;
        }
        outcome
    }

    async fn told(&self, hosted: &Hosted, popped: &Popped, parent: Arc<Object>) -> Outcome {
        match self.attempt(hosted, popped).await {
            Ok(done) => {
                self.tell.well(hosted, &parent);
                Outcome::Success { resync_after: done.resync_after, again: done.again.then_some(Priority::Child) }
            }
            Err(Problem::Gone) => Outcome::Dropped,
            Err(Problem::Later(after)) => {
                self.tell.postponed(hosted, &parent, after);
                // Without a time it is a failure like any other: short at first, then longer.
                after.map_or(Outcome::Failure, Outcome::RetryAfter)
            }
            Err(problem) => {
                self.tell.problem(hosted, &parent, popped.attempt, &problem);
                if let Problem::Terminal(_) = problem {
                    hosted.metrics.refused();
                    hosted.refused(parent);
                    return Outcome::Success { resync_after: None, again: None };
                }
                problem.retry_after().map_or(Outcome::Failure, Outcome::FailureFor)
            }
        }
    }

    async fn attempt(&self, hosted: &Hosted, popped: &Popped) -> Result<Done, Problem> {
        let key = &popped.key;
        self.resolve_unknown(hosted, key).await?;
        let parent = hosted.parents.store().get(&key.parent).cloned().ok_or(Problem::Gone)?;
        let selector = parent_selector(&hosted.model, &parent).map_err(Problem::Parent)?;
        let kinds = self.claimed(hosted, key, &parent, &selector).await?;
        let reply = self.call(hosted, &parent, &kinds, popped.attempt).await?;
        hosted.answered(&key.parent);
        for remark in &reply.remarks {
            self.tell.remark(hosted, &parent, remark);
        }
        let input = Input {
            controller: &hosted.model,
            resource: &hosted.parent,
            parent: &parent,
            selector: &selector,
            kinds: &kinds,
            reply: &reply,
        };
        let plan = plan(&input).map_err(|error| Problem::Reply(error.to_string()))?;
        let resync_after = reply.resync_after;
        if plan.is_empty() {
            hosted.at_rest(&key.parent);
            return Ok(Done { resync_after, again: false });
        }
        let wrote_children = !plan.writes_no_children();
        let status_changes = plan.status.is_some();
        // The first few in a row are what every new parent needs.
        if popped.repeats >= FREE_REPEATS {
            self.tell.restless(hosted, &parent, || describe(&plan, &input));
        }
        let executor = Executor { client: &self.client, hosted, key, parent: &parent, selector: &selector };
        let (failures, changes) = executor.execute(plan).await;
        self.tell.children(hosted, &parent, changes);
        failures.into_result().map_err(Problem::Write)?;
        let own_status = status_changes && !hosted.model.parent.ignore_status_changes;
        Ok(Done { resync_after, again: wrote_children || own_status })
    }

    /// Reads what a write of unknown outcome may have changed.
    async fn resolve_unknown(&self, hosted: &Hosted, key: &SyncKey) -> Result<(), Problem> {
        let mut waiting = hosted.unknown(&key.parent).into_iter();
        let mut running: FuturesUnordered<_> = FuturesUnordered::new();
        loop {
            while running.len() < MAX_READS_AT_ONCE
                && let Some((kind, object)) = waiting.next()
            {
                running.push(self.read(hosted, key, kind, object));
            }
            let Some(outcome) = running.next().await else { return Ok(()) };
            outcome.map_err(Problem::Read)?;
        }
    }

    async fn read(
        &self,
        hosted: &Hosted,
        key: &SyncKey,
        kind: Option<usize>,
        object: ObjectKey,
    ) -> Result<(), ringmaster_cluster::Error> {
        let (resource, shared) = match kind.and_then(|kind| hosted.children.get(kind)) {
            Some(child) => (&child.resource, &child.shared),
            None => (&hosted.parent, &hosted.parents),
        };
        // Taken before the read: what is made anew meanwhile is another object.
        let known = shared.store().get(&object).cloned();
        match self.client.get(resource, &object).await? {
            Some(found) => shared.answer(found, None, Some(key)),
            None => {
                if let Some(known) = known {
                    shared.gone(&object, known.uid(), Some(key));
                }
            }
        }
        hosted.known(&key.parent, kind, &object);
        Ok(())
    }

    /// The parent's children of each declared kind, after adopting and releasing.
    async fn claimed(
        &self,
        hosted: &Hosted,
        key: &SyncKey,
        parent: &Object,
        selector: &Selector,
    ) -> Result<Vec<Kind>, Problem> {
        let mut kinds = Vec::with_capacity(hosted.children.len());
        let mut checked = false;
        for child in &hosted.children {
            let mut claims = claims(hosted, child, parent, selector);
            if !claims.adopt.is_empty() || !claims.release.is_empty() {
                if !checked {
                    self.check_parent(hosted, key, parent).await?;
                    checked = true;
                }
                for object in &claims.adopt {
                    let patch = adopt_patch(parent, &hosted.parent, object);
                    self.patch_owner(hosted, key, child, object, &patch).await?;
                }
                for object in &claims.release {
                    let patch = release_patch(parent, object);
                    self.patch_owner(hosted, key, child, object, &patch).await?;
                }
                claims = self::claims(hosted, child, parent, selector);
            }
            kinds.push(Kind { resource: Arc::clone(&child.resource), strategy: child.strategy, owned: claims.owned });
        }
        Ok(kinds)
    }

    /// Before anything is adopted: the parent is the one that we think it is, and it stays (contract 1.7).
    async fn check_parent(&self, hosted: &Hosted, key: &SyncKey, parent: &Object) -> Result<(), Problem> {
        let live = self.client.get(&hosted.parent, &key.parent).await.map_err(Problem::Read)?;
        match live {
            Some(live) if live.uid() == parent.uid() && !live.is_deleting() => Ok(()),
            Some(live) => {
                hosted.parents.answer(live, None, Some(key));
                Err(Problem::Stale("the parent changed before children were adopted".to_owned()))
            }
            None => Err(Problem::Gone),
        }
    }

    async fn patch_owner(
        &self,
        hosted: &Hosted,
        key: &SyncKey,
        child: &crate::hosted::ChildKind,
        object: &Object,
        patch: &serde_json::Value,
    ) -> Result<(), Problem> {
        let kind = hosted.children.iter().position(|other| std::ptr::eq(other, child));
        match self.client.merge_patch(&child.resource, object.key(), patch.to_string().into_bytes()).await {
            Ok(answer) => {
                child.shared.answer(answer, None, Some(key));
                Ok(())
            }
            Err(error) => {
                if error.is_object_not_found() {
                    child.shared.gone(object.key(), object.uid(), Some(key));
                    return Ok(());
                }
                // What we saw isn't what is, or may not be: look before the next try.
                hosted.note_unknown(&key.parent, kind, object.key());
                if error.is_conflict() {
                    return Err(Problem::Stale(error.to_string()));
                }
                Err(Problem::Write(Failures::one(error)))
            }
        }
    }

    async fn call(&self, hosted: &Hosted, parent: &Object, kinds: &[Kind], attempt: u32) -> Result<SyncReply, Problem> {
        let hook = &hosted.model.sync;
        let observed: Vec<Observed> = kinds
            .iter()
            .map(|kind| Observed { resource: Arc::clone(&kind.resource), objects: kind.owned.clone() })
            .collect();
        let body = sync_request(&hosted.model.json, parent, &observed, hook.version);
        let headers = self.headers(hosted, parent, &body, attempt);
        let start = Instant::now();
        let answer = self.hooks.call(&hosted.target, headers, Bytes::from(body)).await;
        let code = match &answer {
            Ok(_) => 200,
            Err(ringmaster_hooks::Error::Code { code, .. } | ringmaster_hooks::Error::Redirect { code }) => *code,
            Err(ringmaster_hooks::Error::Later { .. }) => 429,
            Err(_) => 0,
        };
        hosted.metrics.hook_call("sync", code, start.elapsed());
        let reply = match answer {
            Ok(reply) => reply,
            Err(ringmaster_hooks::Error::Later { after }) => {
                self.tell.hook(hosted, HookHealth::Reachable);
                return Err(Problem::Later(after));
            }
            Err(error) => {
                let url = &hosted.target.uri;
                self.tell.hook(hosted, HookHealth::Failing(error.reason(), format!("POST {url}: {error}")));
                if error.is_terminal() && hosted.model.dialect.terminal_422 {
                    return Err(Problem::Terminal(error));
                }
                return Err(Problem::Hook(error));
            }
        };
        match SyncReply::parse(&reply.body, self.limits, hook.webhook.strict) {
            Ok(reply) => {
                self.tell.hook(hosted, HookHealth::Reachable);
                Ok(reply)
            }
            Err(error) => {
                let url = &hosted.target.uri;
                self.tell.hook(hosted, HookHealth::Failing("BadReply", format!("POST {url}: {error}")));
                self.tell.bad_reply(hosted, parent, &reply.body);
                Err(Problem::Reply(error.to_string()))
            }
        }
    }

    fn headers(&self, hosted: &Hosted, parent: &Object, body: &[u8], attempt: u32) -> HeaderMap {
        let mut headers = HeaderMap::with_capacity(6);
        let mut set = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        };
        set("ringmaster-shard", format!("{}/{SHARDS}", shard(&hosted.parent, parent.key())));
        set("ringmaster-attempt", attempt.to_string());
        set("ringmaster-deadline-ms", hosted.target.timeout.as_millis().to_string());
        set("ringmaster-delivery", format!("{}-{:016x}", parent.uid(), xxh(body)));
        headers.insert("ringmaster-member", self.member.clone());
        headers
    }
}

fn claims(hosted: &Hosted, child: &crate::hosted::ChildKind, parent: &Object, selector: &Selector) -> Claims {
    let store = child.shared.store();
    let namespace = hosted.orphan_namespace(parent.key());
    let orphans = store.orphans(namespace, selector.exact_pairs().next());
    claim(parent, selector, namespace, store.owned_by(parent.uid()), orphans)
}
