//! What a ring calls the API server for: reads of single objects, searches, passes, and writes.
//!
//! Never decides and never waits: each call comes back to the ring as a result.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use ringmaster_cluster::{Client, Error};
use ringmaster_core::key::{Resource, Version};
use ringmaster_core::queue::backoff;
use tracing::warn;

use super::{Done, Outcome, Running, SYNC_PERIOD, State};
use crate::board::{Id, Item};
use crate::look::owner_id;
use crate::pass::{self, MAX_SEARCHED, Owner};
use crate::registry::Right;
use crate::scope::Source;

/// Objects that are read at once, one by one.
const MAX_READS: usize = 32;
/// Where loads are bounded, what was assigned since the last pass is weighed so often.
pub(super) const WEIGH_PERIOD: Duration = Duration::from_secs(30);
/// The longest pause after calls about one object that failed.
const MAX_PAUSE: Duration = Duration::from_secs(30);

impl Running {
    /// Begins with lists and reads that are due.
    pub(super) fn read(&self, state: &mut State, now: Duration) {
        while state.reading < MAX_READS
            && let Some(id) = state.unseen.pop_first()
        {
            if let Some(item) = self.scope.board.lock().get_mut(&id).filter(|item| item.is_stale() && !item.is_busy) {
                item.is_busy = true;
            } else {
                continue;
            }
            let (client, resource) = (self.client.clone(), self.resource(&id));
            state.reading += 1;
            state.actions.push(
                async move {
                    let read = client.get_metadata(&resource, &id.key).await;
                    Done::Read { id, read }
                }
                .boxed(),
            );
        }
        while state.reading < MAX_READS
            && let Some(id) = state.reads.pop_first()
        {
            let board = self.scope.board.lock();
            let owner = board.get(&id).and_then(|item| item.facts.owner.clone());
            let Some((owner, kind)) = owner.and_then(|owner| self.scope.kind_of(&owner).map(|kind| (owner, kind)))
            else {
                continue;
            };
            let (at, resource) =
                (owner_id(&self.scope, kind, &id, &owner), Arc::clone(&self.scope.kinds[kind].resource));
            let (client, uid) = (self.client.clone(), owner.uid.clone());
            state.reading += 1;
            state.actions.push(
                async move {
                    let read = client.get_metadata(&resource, &at.key).await;
                    Done::ReadOwner { child: id, read, uid, kind }
                }
                .boxed(),
            );
        }
        if !state.is_searching && !state.searches.is_empty() && now >= state.search_at {
            let board = self.scope.board.lock();
            let wanted = std::iter::from_fn(|| state.searches.pop_first()).take(MAX_SEARCHED);
            let owners: Vec<Owner> = wanted
                .filter_map(|id| board.get(&id).map(|item| (id.clone(), item)))
                .filter(|(_, item)| !item.is_searched)
                .map(|(id, item)| Owner {
                    id,
                    uid: item.facts.uid.clone(),
                    moves: item.moves,
                    former: item.former.clone(),
                })
                .collect();
            drop(board);
            state.is_searching = true;
            let search = pass::search(self.client.clone(), Arc::clone(&self.scope), owners.clone());
            state.actions.push(search.map(|searched| Done::Searched(owners, searched)).boxed());
        }
        if now >= state.weigh_at {
            state.weigh_at = now.saturating_add(WEIGH_PERIOD);
            if state.hashes.weigh() {
                state.pass_at = now;
                self.scope.board.lock().touch_all();
            }
        }
        let has_room = state.has_room(&self.scope.board.lock());
        if !state.is_passing && has_room && (now >= state.pass_at || state.is_cut) {
            (state.is_passing, state.is_cut, state.pass_at) = (true, false, now.saturating_add(SYNC_PERIOD));
            let counts = state.hashes.counts().then(|| state.hashes.moves());
            let hashed = (state.hashes.all(), state.calm.shards().clone());
            let pass = pass::pass(self.client.clone(), Arc::clone(&self.scope), hashed, counts);
            state.actions.push(pass.map(Done::Passed).boxed());
        }
    }

    /// A kind can't be listed.
    pub(super) fn list_failed(&self, kind: usize, error: &Error) {
        if !error.is_expired() {
            warn!(ring = %self.scope.model.name, kind = %self.scope.kinds[kind].resource, "it can't be listed: {error}");
            self.scope.troubled(kind, Source::List, Some(error));
        }
    }
}

/// The next try about an object waits longer each time.
pub(super) fn pause(item: &mut Item, now: Duration) {
    item.failures = item.failures.saturating_add(1);
    item.not_before = now.saturating_add(backoff(item.failures, u64::MAX).min(MAX_PAUSE));
}

/// Patches an object's labels if it is still as it was seen; otherwise reads what it is.
pub(super) async fn write(
    client: Client,
    right: Arc<dyn Right>,
    resource: Arc<Resource>,
    id: Id,
    patch: serde_json::Value,
) -> Outcome {
    let bounded = match right.bounded(&client, "an object's shard") {
        Ok(bounded) => bounded,
        Err(error) => return Outcome::Failed(error),
    };
    let error = match bounded.patch_metadata(&resource, &id.key, patch.to_string().into_bytes()).await {
        Ok(object) => return Outcome::Made(object),
        Err(error) if error.is_object_not_found() => return Outcome::Gone,
        Err(error) => error,
    };
    if !error.is_conflict() && !error.outcome_is_unknown() {
        return Outcome::Failed(error);
    }
    let seen = Version::new(patch["metadata"]["resourceVersion"].as_str().unwrap_or_default());
    match Outcome::of_read(client.get_metadata(&resource, &id.key).await) {
        // It is as it was: the same write at once would end alike, and so it would for ever.
        Outcome::Instead(object) if object.version() == seen => Outcome::Failed(error),
        outcome => outcome,
    }
}
