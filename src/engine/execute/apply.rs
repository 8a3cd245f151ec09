//! Server-side apply of children: handing our fields over, and applying. And trying, without effect, what is applied or
//! merged.
//!
//! Only what is known to be the parent's own is written, by its uid: an apply takes fields from others by force.

use ringmaster_cluster::{Client, Error, Preconditions};
use ringmaster_core::key::Version;
use ringmaster_core::managed;
use ringmaster_core::object::Object;
use ringmaster_core::plan::composite::Update;
use ringmaster_core::plan::serverside::{How, at_version, changes_nothing};
use serde_json::Value;

use super::{Executor, Failure, WriteError, Written};
use crate::changes::Change;
use crate::hosted::ChildKind;

/// What a trial is answered with where the API server can't judge the object, or we may not apply it.
const UNTRIED: [u16; 2] = [400, 403];
/// What it is answered with where the object, or the change of it, is invalid: what can't be changed is made anew.
const INVALID: u16 = 422;

impl Executor<'_> {
    /// Applies a child.
    pub(super) async fn apply(&self, update: Update) -> Written {
        let child = self.child(update.kind)?;
        let key = update.object.key();
        let handed_over = self.before(child, &update).await?;
        let version = handed_over.as_ref().map_or_else(|| update.object.version(), |(version, _)| *version);
        let (manager, body) = self.applied(&update, version);
        let write = async |client: Client| client.apply(&child.resource, key, manager, body, false).await;
        match self.send((Some(update.kind), key), "applying a child", write).await {
            Ok(answer) => {
                let is_changed = answer.version() != version;
                child.shared.answer(answer, Some(update.desired), Some(self.key));
                Ok(is_changed.then(|| (Change::Updated, update.kind, key.clone())))
            }
            Err(error) => Err(self.failed(update.kind, key, error)),
        }
    }

    /// Writes a child that is to be made anew without effect: as of which version it is to be deleted; `None` if it
    /// wouldn't change.
    pub(super) async fn tried(&self, child: &ChildKind, trial: &Update) -> Result<Option<Version>, Failure> {
        let handed_over = self.before(child, trial).await?;
        let (version, present) = handed_over.unwrap_or_else(|| (trial.object.version(), trial.object.value()));
        match self.dry_run(child, trial, version).await {
            Ok(answer) if changes_nothing(&present, &answer.value()) => {
                // Of another version it is asked once more.
                trial.object.settle(trial.desired);
                Ok(None)
            }
            Ok(_) => Ok(Some(version)),
            Err(error) if error.code() == Some(INVALID) => Ok(Some(version)),
            // The child stays as it is.
            Err(error) if error.code().is_some_and(|code| UNTRIED.contains(&code)) => {
                Err(Failure::Error(WriteError::Call(error)))
            }
            Err(error) => Err(self.failed(trial.kind, trial.object.key(), error)),
        }
    }

    /// Hands over what is to be before an apply; the version then, and the object, if there was anything.
    async fn before(&self, child: &ChildKind, update: &Update) -> Result<Option<(Version, Value)>, Failure> {
        if update.how != (How::Apply { hand_over: true }) {
            return Ok(None);
        }
        self.hand_over(child, update.kind, Preconditions::from(&*update.object), None).await
    }

    /// What would become of a child.
    async fn dry_run(&self, child: &ChildKind, trial: &Update, version: Version) -> Result<Object, Error> {
        // Nothing that others would have to wait for.
        self.permit.check_begin("trying a child")?;
        let key = trial.object.key();
        if trial.how == How::Replace {
            return self.client.try_replace(&child.resource, key, trial.body.clone()).await;
        }
        let (manager, body) = self.applied(trial, version);
        self.client.apply(&child.resource, key, manager, body, true).await
    }

    /// In whose name an update is applied to a version of its child, and what is sent.
    fn applied(&self, update: &Update, version: Version) -> (&str, Vec<u8>) {
        let manager = self.hosted.model.apply.manager().map_or("", |manager| &**manager);
        let body =
            if version == update.object.version() { update.body.clone() } else { at_version(&update.body, version) };
        (manager, body)
    }

    /// Hands our fields of a child over to server-side apply, if it is the one that was seen: its version then, and
    /// itself. `None` if there was nothing to do. One that was just created (from what hashes to `created`) may have
    /// changed since.
    pub(super) async fn hand_over(
        &self,
        child: &ChildKind,
        kind: usize,
        seen: Preconditions<'_>,
        created: Option<u64>,
    ) -> Result<Option<(Version, Value)>, Failure> {
        let Some(manager) = self.hosted.model.apply.manager() else { return Ok(None) };
        let key = seen.key;
        let live = match self.client.get_tree(&child.resource, key).await {
            Ok(live) => live.unwrap_or_default(),
            Err(error) => return Err(self.failed(kind, key, error)),
        };
        let metadata = &live["metadata"];
        let is_same = metadata["resourceVersion"] == *seen.version.to_string();
        if metadata["uid"] != *seen.uid.to_string() || created.is_none() && !is_same {
            self.hosted.note_unknown(&self.key.parent, Some(kind), key);
            return Err(Failure::Stale(format!("{} {key} changed before it was seen", child.resource.kind)));
        }
        let Some(patch) = managed::hand_over(&live, manager, self.hosted.model.dialect) else { return Ok(None) };
        let patch = patch.to_string().into_bytes();
        let write = async |client: Client| client.json_patch(&child.resource, key, patch).await;
        match self.send((Some(kind), key), "handing a child's fields over", write).await {
            Ok(answer) => {
                let handed_over = (answer.version(), answer.value());
                child.shared.answer(answer, created.filter(|_| is_same), Some(self.key));
                Ok(Some(handed_over))
            }
            Err(error) => Err(self.failed(kind, key, error)),
        }
    }
}
