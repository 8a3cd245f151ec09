//! One sync of one parent: read the cache, call the hook, plan, execute.
//!
//! Never holds a lock across an await, and never decides what to write: `core::plan` does.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue};
use ringmaster_cluster::{Client, Discovery};
use ringmaster_core::condition::HookHealth;
use ringmaster_core::hash::{shard, xxh};
use ringmaster_core::hook::{Limits, Observed, SyncReply, decorator_request, sync_request};
use ringmaster_core::object::Object;
use ringmaster_core::plan::composite::{Input, Kind};
use ringmaster_core::plan::{Phase, describe, parent_selector, phase};
use ringmaster_core::queue::{FREE_REPEATS, Outcome, Popped, Priority};
use ringmaster_core::rollout::Step;
use ringmaster_core::shards::SHARDS;
use ringmaster_hooks::{Call, Caller, ConnectStep, Reply, Route};

use crate::children::Family;
use crate::clock::wall_time;
use crate::dispatch::Pass;
use crate::execute::{Executor, Failures, Status};
use crate::fault::Fault;
use crate::finalizer::set_finalizer;
use crate::hosted::{Hosted, url};
use crate::member::guard::{Guard, Permit, Refused};
use crate::metrics::SyncResult;
use crate::rollout::{NEXT_STEP, decide};
use crate::tell::{Problem, Tell};
use crate::units::FINALIZE;

/// While the Lease isn't renewed, a parent that was due is looked at again after this long.
const LAPSED_RETRY: Duration = Duration::from_secs(1);

/// What every sync needs.
pub(crate) struct Syncer {
    pub(crate) client: Client,
    pub(crate) discovery: Arc<Discovery>,
    pub(crate) tell: Tell,
    pub(crate) limits: Limits,
    /// Asked before each call and write.
    pub(crate) guard: Arc<Guard>,
    /// What a test wants of this process.
    pub(crate) fault: Fault,
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
    pub(crate) async fn sync(&self, hosted: &Hosted, popped: &Popped, pass: Pass) -> Outcome {
        let start = Instant::now();
        let permit = match self.guard.enter(&hosted.model.uid, hosted.shard(&popped.key.parent)) {
            Ok(permit) => permit,
            Err(Refused::NotOurs) => return Outcome::Dropped,
            Err(Refused::Lapsed) => return Outcome::RetryAfter(LAPSED_RETRY),
        };
        let outcome = tokio::select! {
            outcome = self.sync_uncounted(hosted, popped, pass, &permit) => outcome,
            () = permit.cancelled() => lapsed(&permit),
        };
        // What was noted of it by being cut off is nobody's once it is another member's.
        if !hosted.holds(&popped.key.parent) {
            hosted.forget_notes(&popped.key.parent);
        }
        drop(permit);
        let result = match &outcome {
            Outcome::Success { again: Some(_), .. } => SyncResult::Requeue,
            Outcome::Success { resync_after: Some(_), .. } | Outcome::RetryAfter(_) => SyncResult::RequeueAfter,
            Outcome::Success { .. } | Outcome::Dropped => SyncResult::Success,
            Outcome::Failure | Outcome::FailureFor(_) => SyncResult::Error,
        };
        hosted.metrics.ended(result, start.elapsed());
        outcome
    }

    async fn sync_uncounted(&self, hosted: &Hosted, popped: &Popped, pass: Pass, permit: &Permit) -> Outcome {
        let key = &popped.key;
        if !hosted.holds(&key.parent) {
            return Outcome::Dropped;
        }
        let parent = match self.labelled(hosted, key, permit).await {
            Ok(parent) => parent.filter(|parent| hosted.concerns(parent)),
            Err((_, problem)) if problem.is_fenced() => return lapsed(permit),
            Err((seen, problem)) => {
                if let Some(seen) = seen {
                    self.tell.problem(hosted, &seen, popped.attempt, &problem);
                }
                return problem.retry_after().map_or(Outcome::Failure, Outcome::FailureFor);
            }
        };
        let Some(parent) = parent else {
            hosted.forget_notes(&key.parent);
            return Outcome::Dropped;
        };
        if hosted.is_terminal(&parent) {
            return Outcome::Success { resync_after: None, again: None };
        }
        let outcome = self.told((hosted, popped, pass), parent, permit).await;
        if !hosted.has(&key.parent) {
            // It went while its sync ran: what was noted of it since has nobody who would take it away.
            hosted.forget_notes(&key.parent);
            return Outcome::Dropped;
        }
        outcome
    }

    async fn told(
        &self,
        (hosted, popped, pass): (&Hosted, &Popped, Pass),
        parent: Arc<Object>,
        permit: &Permit,
    ) -> Outcome {
        match self.attempt(hosted, popped, pass, permit).await {
            Ok(done) => {
                self.tell.well(hosted, &parent);
                Outcome::Success { resync_after: done.resync_after, again: done.again.then_some(Priority::Child) }
            }
            Err(Problem::Gone) => Outcome::Dropped,
            Err(problem) if problem.is_fenced() => lapsed(permit),
            Err(Problem::Busy(after)) => Outcome::RetryAfter(after),
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

    async fn attempt(&self, hosted: &Hosted, popped: &Popped, pass: Pass, permit: &Permit) -> Result<Done, Problem> {
        let key = &popped.key;
        let family = Family { hosted, key, permit, shard: hosted.label(&key.parent) };
        self.search(&family).await?;
        self.resolve_unknown(&family).await?;
        let seen = hosted.parents.store().get(&key.parent).cloned().ok_or(Problem::Gone)?;
        self.fault.strike(&seen);
        if phase(&hosted.model, &seen) == Phase::Guard {
            // One that can't be worked with gets no finalizer, which nobody could take off.
            parent_selector(&hosted.model, &seen).map_err(Problem::Parent)?;
        }
        let (parent, finalizing) = self.guarded(&family, seen).await?;
        let selector = parent_selector(&hosted.model, &parent).map_err(Problem::Parent)?;
        // First, as its hook may take its time: what is claimed after it is newer.
        let related = self.related(&family, &parent, popped.attempt).await?;
        let kinds = self.claimed(&family, &parent, &selector).await?;
        let answers = self.answers((&family, pass), (&parent, finalizing), (&kinds, &related), popped.attempt).await?;
        hosted.answered(&key.parent);
        for remark in &answers.latest.remarks {
            self.tell.remark(hosted, &parent, remark);
        }
        let now = wall_time();
        let step = decide(&family, answers, (&parent, finalizing), &selector, &kinds, &now).map_err(|text| {
            // Once the hook is mended, it mustn't say that the same still holds.
            hosted.routes.of(finalizing).forget(&(hook_name(finalizing), parent.uid().clone()));
            // A status that its kind can't have may be one that it can by now.
            if hosted.model.is_decorator() && !hosted.parent.status {
                hosted.doubt.notify_one();
            }
            Problem::Reply(text)
        })?;
        let Step { writes, plan, reply, moved } = step;
        self.tell.said(hosted, &parent, &reply.events);
        let input = Input {
            controller: &hosted.model,
            resource: &hosted.parent,
            parent: &parent,
            selector: &selector,
            kinds: &kinds,
            reply: &reply,
            finalizing,
            shard: family.shard,
            now: &now,
        };
        let resync_after = reply.resync_after;
        if plan.is_empty() && writes.is_empty() {
            hosted.at_rest(&key.parent);
            return Ok(Done { resync_after, again: false });
        }
        let wrote_children = !plan.writes_no_children();
        let (decorates, finalized) = (plan.decoration.is_some(), plan.finalized);
        // The first few in a row are what every new parent needs.
        if popped.repeats >= FREE_REPEATS && !moved {
            self.tell.restless(hosted, &parent, || describe(&plan, &input));
        }
        let executor = Executor { client: &self.client, hosted, key, permit, parent: &parent, selector: &selector };
        executor.keep(writes).await?;
        let (failures, changes, status) = executor.execute(plan).await;
        self.tell.children(hosted, &parent, changes);
        if let Status::Dropped(Some(field)) = &status {
            self.tell.dropped(hosted, &parent, field);
        }
        failures.into_result().map_err(Problem::Write)?;
        if finalized {
            let parent = hosted.parents.store().get(&key.parent).cloned().ok_or(Problem::Gone)?;
            set_finalizer(&family, &self.client, &parent, false).await.map_err(|error| unset(hosted, error))?;
            // Nothing is left to be done for it.
            return Err(Problem::Gone);
        }
        if moved {
            // No repeat of the same: each step of a rollout is another.
            return Ok(Done { resync_after: Some(resync_after.unwrap_or(NEXT_STEP).min(NEXT_STEP)), again: false });
        }
        let own_status = matches!(status, Status::Changed) && !hosted.model.parent.ignore_status_changes;
        Ok(Done { resync_after, again: wrote_children || own_status || decorates })
    }

    /// The parent, with the finalizer or without it as it has to be, and whether it is finalized.
    async fn guarded(&self, family: &Family<'_>, parent: Arc<Object>) -> Result<(Arc<Object>, bool), Problem> {
        let present = match phase(&family.hosted.model, &parent) {
            Phase::Sync => return Ok((parent, false)),
            Phase::Finalize => return Ok((parent, true)),
            Phase::Foreign => return Err(Problem::Gone),
            Phase::Guard => true,
            Phase::Unguard => false,
        };
        let written =
            set_finalizer(family, &self.client, &parent, present).await.map_err(|error| unset(family.hosted, error))?;
        let is_there = |parent: &Arc<Object>| phase(&family.hosted.model, parent) == Phase::Sync;
        // One that was being deleted is gone by that, and one that isn't selected is none of ours.
        let goes = !present && parent.is_deleting();
        Ok((written.filter(is_there).filter(|_| !goes).ok_or(Problem::Gone)?, false))
    }

    pub(crate) async fn call(
        &self,
        (family, pass): (&Family<'_>, Pass),
        (parent, finalizing, is_latest): (&Object, bool, bool),
        (kinds, related): (&[Kind], &[Observed]),
        attempt: u32,
    ) -> Result<SyncReply, Problem> {
        let hosted = family.hosted;
        let (hook, route) = (hosted.model.hook(finalizing), hosted.routes.of(finalizing));
        let observed: Vec<Observed> = kinds
            .iter()
            .map(|kind| Observed { resource: Arc::clone(&kind.resource), objects: kind.owned.clone() })
            .collect();
        let is_decorator = hosted.model.is_decorator();
        let request = if is_decorator { decorator_request } else { sync_request };
        let parse = if is_decorator { SyncReply::parse_decorator } else { SyncReply::parse };
        let body = request(&hosted.model.json, parent, &observed, related, hook.version, finalizing);
        let name = hook_name(finalizing);
        // What was answered for another state of the parent is no answer to this one.
        let reply = self.ask((family, pass), parent, (name, route, is_latest), body, attempt).await?;
        let read = parse(&reply.body, self.limits, hook.webhook.strict, hosted.model.dialect);
        self.understood(hosted, parent, (name, route), &reply.body, read).map_err(Problem::Reply)
    }

    /// Calls a hook for a parent; whether a reply may be remembered is said by the third.
    pub(crate) async fn ask(
        &self,
        (family, pass): (&Family<'_>, Pass),
        parent: &Object,
        (hook, route, may_remember): (&'static str, &Route, bool),
        body: Vec<u8>,
        attempt: u32,
    ) -> Result<Reply, Problem> {
        let hosted = family.hosted;
        // The queue announces one call at the sync hook's endpoint, where it knows the endpoints.
        let is_extra = hook == "customize" || !may_remember || !std::ptr::eq(route, &*hosted.routes.sync);
        let headers = self.headers((family, route), parent, &body, attempt);
        family.permit.check_begin("a hook call").map_err(Problem::Read)?;
        let call = Call {
            controller: hosted.id,
            shard: shard(&hosted.parent, parent.key()),
            headers,
            body: Bytes::from(body),
            asked: may_remember.then(|| (hook, parent.uid().clone())),
            caller: &SyncCall { hosted, permit: family.permit, hook },
        };
        let answer = route.call(call, pass).await;
        family.permit.check("what follows from a hook's reply").map_err(Problem::Read)?;
        match answer {
            Ok(reply) => Ok(reply),
            Err(failure) => {
                match failure.error {
                    ringmaster_hooks::Error::Later { after } => {
                        self.tell.hook(hosted, (hook, parent), HookHealth::Reachable, false);
                        return Err(Problem::Later(after));
                    }
                    // The queue doesn't know when there is room for one that it didn't announce.
                    ringmaster_hooks::Error::Busy { .. } if is_extra => return Err(Problem::Crowded(url(route))),
                    ringmaster_hooks::Error::Busy { after, .. } => return Err(Problem::Busy(after)),
                    ringmaster_hooks::Error::Fenced => return Err(Problem::Read(family.permit.taken("a hook call"))),
                    _ => {}
                }
                let health = HookHealth::Failing(failure.error.reason().into(), failure.to_string());
                self.tell.hook(hosted, (hook, parent), health, failure.error.is_of_one_call());
                if failure.error.is_terminal() && hosted.model.dialect.terminal_422 {
                    return Err(Problem::Terminal(failure));
                }
                Err(Problem::Hook(failure))
            }
        }
    }

    /// What a reply says; one that can't be used is told.
    pub(crate) fn understood<T>(
        &self,
        hosted: &Hosted,
        parent: &Object,
        (hook, route): (&'static str, &Route),
        reply: &[u8],
        read: Result<T, ringmaster_core::hook::Error>,
    ) -> Result<T, String> {
        match read {
            Ok(read) => {
                self.tell.hook(hosted, (hook, parent), HookHealth::Reachable, false);
                Ok(read)
            }
            Err(error) => {
                route.forget(&(hook, parent.uid().clone()));
                let url = url(route);
                let health = HookHealth::Failing("BadReply".into(), format!("POST {url}: {error}"));
                self.tell.hook(hosted, (hook, parent), health, true);
                self.tell.bad_reply(hosted, parent, reply);
                Err(format!("POST {url}: {error}"))
            }
        }
    }

    fn headers(&self, (family, route): (&Family<'_>, &Route), parent: &Object, body: &[u8], attempt: u32) -> HeaderMap {
        let hosted = family.hosted;
        let mut headers = HeaderMap::with_capacity(7);
        let mut set = |name: &'static str, value: String| {
            if let Ok(value) = HeaderValue::from_str(&value) {
                headers.insert(name, value);
            }
        };
        set("ringmaster-shard", format!("{}/{SHARDS}", shard(&hosted.parent, parent.key())));
        set("ringmaster-epoch", family.permit.epoch().to_string());
        set("ringmaster-attempt", attempt.to_string());
        set("ringmaster-deadline-ms", route.timeout().as_millis().to_string());
        set("ringmaster-delivery", format!("{}-{:016x}", parent.uid(), xxh(body)));
        headers.insert("ringmaster-member", self.member.clone());
        headers
    }
}

/// The hook that is asked about a parent, as metrics and remembered replies name it.
fn hook_name(finalizing: bool) -> &'static str {
    if finalizing { FINALIZE } else { "sync" }
}

/// The call of a sync's hook.
struct SyncCall<'a> {
    hosted: &'a Hosted,
    permit: &'a Permit,
    /// As the metrics name it.
    hook: &'static str,
}

impl Caller for SyncCall<'_> {
    fn may_send(&self) -> bool {
        self.permit.check_begin("a hook call").is_ok()
    }

    fn withdrawn(&self) -> Pin<Box<dyn Future<Output = ()> + Send + '_>> {
        Box::pin(self.permit.closing())
    }

    fn tried(&self, code: u16, took: Duration) {
        self.hosted.metrics.hook_call(self.hook, code, took);
    }

    fn running(&self, runs: bool) {
        self.hosted.metrics.hook_running(self.hook, runs);
    }

    fn connected(&self, step: ConnectStep, after: Duration) {
        self.hosted.metrics.hook_connected(self.hook, step, after);
    }
}

/// A finalizer couldn't be written.
fn unset(hosted: &Hosted, error: ringmaster_cluster::Error) -> Problem {
    if error.is_conflict() {
        return Problem::Stale(error.to_string());
    }
    if error.is_forbidden() {
        let what = format!("patch on {}, for the finalizer {},", hosted.parent.plural, hosted.model.finalizer());
        return Problem::Write(Failures::needing(error, what));
    }
    Problem::Write(Failures::one(error))
}

/// How a sync ends whose member may not go on with it.
fn lapsed(permit: &Permit) -> Outcome {
    if permit.is_lapsed() { Outcome::RetryAfter(LAPSED_RETRY) } else { Outcome::Dropped }
}
