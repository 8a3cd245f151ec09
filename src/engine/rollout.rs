//! A sync of a controller that rolls: its hook is asked for each state that children still follow, and revisions are
//! written before children.
//!
//! Never decides which child moves: `core::rollout` does. A controller that doesn't roll passes through.

use std::sync::Arc;
use std::time::Duration;

use ringmaster_core::hook::{Observed, SyncReply};
use ringmaster_core::object::Object;
use ringmaster_core::plan::composite::{self, Create, Delete, Kind, Plan, Update};
use ringmaster_core::plan::serverside::How;
use ringmaster_core::plan::{adopt_patch, decorator, parent_selector};
use ringmaster_core::rollout::{self, Live, Step, Write, parent_of};
use ringmaster_core::selector::Selector;

use crate::children::{Family, claims};
use crate::dispatch::Pass;
use crate::execute::Executor;
use crate::hosted::Revisions;
use crate::sync::Syncer;
use crate::tell::Problem;

/// After a child has moved, its parent is looked at again after this long, if nothing happens before: what it waits for may
/// be there already. No child moves twice to one state, so this comes to an end.
pub(crate) const NEXT_STEP: Duration = Duration::from_millis(100);

/// What a hook answered.
pub(crate) struct Answers {
    /// For the parent as it is.
    pub(crate) latest: SyncReply,
    /// Of a controller that rolls: the states of the parent, and what it answered for each older one.
    rollout: Option<(Live, Vec<SyncReply>)>,
}

impl Syncer {
    /// Asks the hook for the parent as it is and, of a controller that rolls, for each older state that children follow.
    pub(crate) async fn answers(
        &self,
        (family, pass): (&Family<'_>, Pass),
        (parent, finalizing): (&Object, bool),
        (kinds, related): (&[Kind], &[Observed]),
        attempt: u32,
    ) -> Result<Answers, Problem> {
        let hosted = family.hosted;
        let Some(revisions) = &hosted.revisions else {
            let latest = self.call((family, pass), (parent, finalizing, true), (kinds, related), attempt).await?;
            return Ok(Answers { latest, rollout: None });
        };
        let objects = self.revisions(family, revisions, parent).await?;
        let mut live = Live::of(&hosted.model, parent, &objects);
        if !live.held.is_empty() {
            self.client.limit_hit("live_revisions");
        }
        let mut parents = Vec::with_capacity(live.older.len());
        for revision in &live.older {
            let old = parent_of(&hosted.model, &hosted.parent, parent, revision);
            parents.push(old.map_err(|error| Problem::Parent(format!("can't be put back to a revision: {error}")))?);
        }
        // One after the other: the queue announced one call, and together they could be more than an endpoint takes, again
        // and again.
        let latest = Box::pin(self.call((family, pass), (parent, finalizing, true), (kinds, related), attempt)).await?;
        let (mut older, mut replies) = (Vec::with_capacity(parents.len()), Vec::with_capacity(parents.len()));
        for (old, revision) in parents.iter().zip(std::mem::take(&mut live.older)) {
            let call = self.call((family, None), (old, finalizing, false), (kinds, related), attempt);
            match Box::pin(call).await {
                Ok(reply) => {
                    older.push(revision);
                    replies.push(reply);
                }
                // It is refused for good: a state without an answer, whose children stay as they are until their turn.
                Err(Problem::Terminal(_)) => live.held.push(revision),
                Err(problem) => return Err(problem.of_revision(revision.object.as_deref())),
            }
        }
        live.older = older;
        Ok(Answers { latest, rollout: Some((live, replies)) })
    }

    /// The revision objects of a parent, after orphans were adopted that belonged to one like it. Unlike children they stay
    /// the parent's whatever their labels say.
    async fn revisions(
        &self,
        family: &Family<'_>,
        revisions: &Revisions,
        parent: &Object,
    ) -> Result<Vec<Arc<Object>>, Problem> {
        let hosted = family.hosted;
        // It is there as long as the controller is; without it there would be nothing to read.
        let Some(kind) = hosted.children.get(revisions.kind) else { return Ok(Vec::new()) };
        let selector = parent_selector(&hosted.model, parent).map_err(Problem::Parent)?;
        let orphans = claims(hosted, kind, parent, &selector).adopt;
        let orphans: Vec<_> = orphans.into_iter().filter(|orphan| hosted.may_adopt(kind, orphan)).collect();
        if !orphans.is_empty() {
            self.check_parent(family, parent).await?;
            for orphan in &orphans {
                let patch = adopt_patch(parent, &hosted.parent, orphan, family.shard);
                self.patch_owner(family, kind, orphan, &patch).await?;
            }
        }
        let namespace = hosted.orphan_namespace(parent.key());
        let near = |object: &&Arc<Object>| namespace.is_none_or(|namespace| object.key().namespace() == namespace);
        let store = kind.shared.store();
        let owned = store.owned_by(parent.uid()).filter(near).cloned().collect();
        drop(store);
        Ok(owned)
    }
}

/// What to do about a hook's answers, at this moment (RFC 3339).
pub(crate) fn decide(
    family: &Family<'_>,
    answers: Answers,
    (parent, finalizing): (&Object, bool),
    selector: &Selector,
    kinds: &[Kind],
    now: &str,
) -> Result<Step, String> {
    let hosted = family.hosted;
    let plan = |reply: &SyncReply| {
        let input = composite::Input {
            controller: &hosted.model,
            resource: &hosted.parent,
            parent,
            selector,
            kinds,
            reply,
            finalizing,
            shard: family.shard,
            now,
        };
        if hosted.model.is_decorator() {
            decorator::plan(&input).map_err(|error| error.to_string())
        } else {
            composite::plan(&input).map_err(|error| error.to_string())
        }
    };
    let refused = |error: String| format!("POST {}: {error}", hosted.hook_url(finalizing));
    let Answers { latest, rollout: states } = answers;
    let (Some(revisions), Some((live, older))) = (&hosted.revisions, states) else {
        let plan = plan(&latest).map_err(refused)?;
        return Ok(Step { writes: Vec::new(), plan, reply: latest, moved: false });
    };
    let namespace = match parent.key().namespace() {
        "" => &*revisions.home,
        namespace => namespace,
    };
    let input = rollout::Input {
        controller: &hosted.model,
        resource: &hosted.parent,
        parent,
        kinds,
        namespace,
        shard: family.shard,
    };
    rollout::step(&input, &live, latest, older, plan).map_err(refused)
}

impl Executor<'_> {
    /// Writes revisions, one after the other: at no moment a child follows none. What fails ends it.
    pub(crate) async fn keep(&self, writes: Vec<Write>) -> Result<(), Problem> {
        let Some(kind) = self.hosted.revisions.as_ref().map(|revisions| revisions.kind) else { return Ok(()) };
        for write in writes {
            let mut plan = Plan::default();
            match write {
                Write::Create { key, body } => {
                    plan.creates.push(Create { kind, key, body, hand_over: false, desired: 0 });
                }
                Write::Update { object, body } => {
                    plan.updates.push(Update { how: How::Replace, kind, object, body, desired: 0 });
                }
                Write::Delete { object } => plan.deletes.push(Delete { kind, object, recreate: false, trial: None }),
            }
            // They are no children: nobody is told of them.
            let (failures, ..) = self.execute(plan).await;
            failures.into_result().map_err(Problem::Write)?;
        }
        Ok(())
    }
}
