//! Executes a plan: deletes, then creates and updates, then what is the parent's own; concurrently within a bound.
//!
//! Never plans, and never retries but a delete that others' writes overtook. Every answer enters the cache; a write whose
//! outcome isn't known is noted, so that the object is read before the next sync.

mod apply;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use ringmaster_cluster::{Client, Error, Preconditions};
use ringmaster_core::controller::Apply;
use ringmaster_core::dialect::{CREATOR, FIELD_MANAGER};
use ringmaster_core::hook::Decoration;
use ringmaster_core::key::{ObjectKey, SyncKey, Version};
use ringmaster_core::object::Object;
use ringmaster_core::plan::composite::{Create, Delete, NewStatus, Plan, Update};
use ringmaster_core::plan::decorator::decoration_patch;
use ringmaster_core::plan::serverside::How;
use ringmaster_core::plan::{dropped, is_attachment, is_still_owned};
use ringmaster_core::rollout::is_intact;
use ringmaster_core::selector::Selector;

use crate::changes::{Change, Changes};
use crate::hosted::{ChildKind, Hosted};
use crate::member::guard::Permit;

/// Writes of one sync that run at once.
pub(crate) const MAX_WRITES_AT_ONCE: usize = 8;
/// Failures of one sync that are kept and told.
const MAX_FAILURES: usize = 8;
/// One sync deletes a child that nobody wants at most so often, while others write it faster than that.
const MAX_DELETE_TRIES: usize = 5;

/// What executes one plan.
pub(crate) struct Executor<'a> {
    pub(crate) client: &'a Client,
    pub(crate) hosted: &'a Hosted,
    pub(crate) key: &'a SyncKey,
    pub(crate) permit: &'a Permit,
    pub(crate) parent: &'a Object,
    pub(crate) selector: &'a Selector,
}

/// What failed of a plan.
#[derive(Debug, Default)]
pub(crate) struct Failures {
    /// Our picture was old; the next sync sees more.
    stale: usize,
    /// The first such write, in words.
    first_stale: String,
    /// What somebody should know.
    errors: Vec<WriteError>,
    /// How many errors there were, also beyond those kept.
    count: usize,
}

/// Why one write failed.
#[derive(Debug)]
pub(crate) enum WriteError {
    /// The call failed.
    Call(Error),
    /// The call failed for want of a right: what to grant.
    Needs(Error, String),
    /// The parent is there, but the API server knows no status of it.
    NoStatus(Error),
    /// The name is taken by an object that isn't the parent's.
    Taken {
        /// Kind, namespace and name.
        what: String,
        /// Whose it is.
        whose: String,
    },
}

impl fmt::Display for WriteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Call(error) => write!(f, "{error}"),
            Self::Needs(error, what) => write!(f, "{error}; grant {what} to Ringmaster's account"),
            Self::NoStatus(error) => write!(f, "{error}, but the object is there: has its kind a status subresource?"),
            Self::Taken { what, whose } => write!(f, "{what} exists, {whose}, and is left alone"),
        }
    }
}

impl Failures {
    /// A single failed call.
    pub(crate) fn one(error: Error) -> Self {
        Self { errors: vec![WriteError::Call(error)], count: 1, ..Self::default() }
    }

    /// A single call that failed for want of this right.
    pub(crate) fn needing(error: Error, what: String) -> Self {
        Self { errors: vec![WriteError::Needs(error, what)], count: 1, ..Self::default() }
    }

    /// Whether there were any.
    pub(crate) fn into_result(self) -> Result<(), Self> {
        if self.count == 0 && self.stale == 0 { Ok(()) } else { Err(self) }
    }

    /// Whether nothing failed but that our picture was old.
    pub(crate) fn is_only_stale(&self) -> bool {
        self.count == 0
    }

    /// Whether a write wasn't made because this member had no right to it.
    pub(crate) fn is_fenced(&self) -> bool {
        self.errors.iter().any(|error| matches!(error, WriteError::Call(error) if error.is_fenced()))
    }

    /// How long the API server wants to be left alone, as the most patient of its answers says.
    pub(crate) fn retry_after(&self) -> Option<Duration> {
        let each = self.errors.iter().filter_map(|error| match error {
            WriteError::Call(error) => error.retry_after(),
            WriteError::Needs(..) | WriteError::NoStatus(_) | WriteError::Taken { .. } => None,
        });
        each.max()
    }

    /// A word for the class of the first error.
    pub(crate) fn reason(&self) -> &'static str {
        match self.errors.first() {
            Some(WriteError::Call(error) | WriteError::Needs(error, _) | WriteError::NoStatus(error)) => error.reason(),
            Some(WriteError::Taken { .. }) => "NameTaken",
            None => "Stale",
        }
    }

    fn add(&mut self, outcome: Result<(), Failure>) {
        match outcome {
            Ok(()) => {}
            Err(Failure::Stale(what)) => {
                self.stale += 1;
                if self.first_stale.is_empty() {
                    self.first_stale = what;
                }
            }
            Err(Failure::Error(error)) => {
                self.count += 1;
                if self.errors.len() < MAX_FAILURES {
                    self.errors.push(error);
                }
            }
        }
    }
}

impl fmt::Display for Failures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_only_stale() {
            let more = self.stale.saturating_sub(1);
            f.write_str(&self.first_stale)?;
            return if more == 0 { Ok(()) } else { write!(f, "; and {more} more") };
        }
        for (index, error) in self.errors.iter().enumerate() {
            if index > 0 {
                f.write_str("; ")?;
            }
            write!(f, "{error}")?;
        }
        let more = self.count - self.errors.len();
        if more > 0 {
            write!(f, "; and {more} more")?;
        }
        Ok(())
    }
}

/// What became of the parent's status.
#[derive(Debug)]
pub(crate) enum Status {
    /// It was right, or couldn't be written.
    Same,
    /// It is another.
    Changed,
    /// It is as it was, although another was written: the kind doesn't keep this field, if it isn't the generation alone.
    Dropped(Option<String>),
}

enum Write {
    Delete(Delete),
    Create(Create),
    Update(Update),
}

/// What was changed by a write of a child, if anything was: how, of which kind (index into the declared ones), which.
type Written = Result<Option<(Change, usize, ObjectKey)>, Failure>;

enum Failure {
    /// What isn't as we saw it, in words.
    Stale(String),
    Error(WriteError),
}

impl Executor<'_> {
    /// Does everything that the plan says; tells what became of the children, and of the status. What fails doesn't keep
    /// the rest from being done.
    pub(crate) async fn execute(&self, plan: Plan) -> (Failures, Changes, Status) {
        let (mut failures, mut changes) = (Failures::default(), Changes::default());
        let deletes = plan.deletes.into_iter().map(Write::Delete).collect();
        let rest = plan.creates.into_iter().map(Write::Create).chain(plan.updates.into_iter().map(Write::Update));
        for writes in [deletes, rest.collect::<Vec<_>>()] {
            let mut running: FuturesUnordered<_> = FuturesUnordered::new();
            let mut waiting = writes.into_iter();
            loop {
                while running.len() < MAX_WRITES_AT_ONCE
                    && let Some(write) = waiting.next()
                {
                    running.push(self.write(write));
                }
                let Some(outcome) = running.next().await else { break };
                failures.add(outcome.map(|change| changes.extend(change)));
            }
        }
        let (mut written, mut became) = (None, Status::Same);
        if let Some(status) = plan.status {
            failures.add(self.status(status).await.map(|answer| (written, became) = answer));
        }
        if let Some(decoration) = plan.decoration {
            // The version that the status was written to is the one that was seen.
            let seen = written.as_deref().unwrap_or(self.parent);
            failures.add(self.decorate(seen, &decoration).await);
        }
        (failures, changes, became)
    }

    async fn write(&self, write: Write) -> Written {
        match write {
            Write::Delete(delete) => self.delete(delete).await,
            Write::Create(create) => self.create(create).await,
            Write::Update(update) => self.update(update).await,
        }
    }

    /// Makes one write, of a child of a kind (index into the declared ones) or of the parent.
    async fn send<T>(
        &self,
        (kind, object): (Option<usize>, &ObjectKey),
        what: &str,
        call: impl AsyncFnOnce(Client) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let begun = self.hosted.begin_write(&self.key.parent, kind, object);
        let outcome = self.permit.write(self.client, what, call).await;
        begun.ended();
        outcome
    }

    async fn delete(&self, delete: Delete) -> Written {
        let child = self.child(delete.kind)?;
        let object = &delete.object;
        let change = if delete.recreate { Change::Recreated } else { Change::Deleted };
        let mut seen = Preconditions::from(&**object);
        if let Some(trial) = &delete.trial {
            let Some(version) = self.tried(child, trial).await? else { return Ok(None) };
            seen.version = version;
        }
        let mut tries = 1;
        let outcome = loop {
            let write = async |client: Client| client.delete(&child.resource, seen).await;
            let outcome = self.send((Some(delete.kind), object.key()), "deleting a child", write).await;
            if !outcome.as_ref().is_err_and(Error::is_conflict) || !self.goes_as_it_is(&delete) {
                break outcome;
            }
            if tries >= MAX_DELETE_TRIES {
                self.client.limit_hit("delete_tries");
                break outcome;
            }
            let Some(version) = self.still_owned(child, &delete).await? else { break outcome };
            seen.version = version;
            tries += 1;
        };
        match outcome {
            Ok(Some(left)) => child.shared.answer(left, None, Some(self.key)),
            Ok(None) => child.shared.gone(object.key(), object.uid(), Some(self.key)),
            Err(error) if error.is_object_not_found() => {
                child.shared.gone(object.key(), object.uid(), Some(self.key));
                return Ok(None);
            }
            Err(error) => return Err(self.failed(delete.kind, object.key(), error)),
        }
        Ok(Some((change, delete.kind, object.key().clone())))
    }

    /// Whether it is to be deleted whatever others made of it: not what is compared first, nor a revision, which may have
    /// got children.
    fn goes_as_it_is(&self, delete: &Delete) -> bool {
        !delete.recreate && delete.kind < self.hosted.declared().len()
    }

    /// Which version a child that is to be deleted has by now; `None` if it isn't the parent's any more, or is going.
    async fn still_owned(&self, child: &ChildKind, delete: &Delete) -> Result<Option<Version>, Failure> {
        let seen = &delete.object;
        match self.client.get(&child.resource, seen.key()).await {
            Ok(found) => {
                let is_owned =
                    |found: &Object| is_still_owned(&self.hosted.model, self.parent, self.selector, seen, found);
                Ok(found.filter(is_owned).map(|found| found.version()))
            }
            Err(error) => Err(self.failed(delete.kind, seen.key(), error)),
        }
    }

    async fn create(&self, create: Create) -> Written {
        let child = self.child(create.kind)?;
        let (namespace, body) = (create.key.namespace(), create.body);
        let creator = if self.hosted.model.apply == Apply::Merge { FIELD_MANAGER } else { CREATOR };
        let write = async |client: Client| client.create_as(&child.resource, namespace, creator, body).await;
        match self.send((Some(create.kind), &create.key), "creating a child", write).await {
            Ok(answer) => {
                let (uid, version) = (answer.uid().clone(), answer.version());
                // One that isn't handed over yet is not as it shall be.
                child.shared.answer(answer, (!create.hand_over).then_some(create.desired), Some(self.key));
                if create.hand_over {
                    let seen = Preconditions { key: &create.key, uid: &uid, version };
                    match self.hand_over(child, create.kind, seen, Some(create.desired)).await {
                        // Its own controller was faster; the next sync does it.
                        Ok(_) | Err(Failure::Stale(_)) => {}
                        Err(failure) => return Err(failure),
                    }
                }
                Ok(Some((Change::Created, create.kind, create.key)))
            }
            Err(error) if error.is_already_exists() => Err(self.taken(child, create.kind, &create.key).await),
            // What isn't there is the namespace: no later look at the child's own name tells more.
            Err(error) if error.is_object_not_found() => Err(Failure::Error(WriteError::Call(error))),
            Err(error) => Err(self.failed(create.kind, &create.key, error)),
        }
    }

    async fn update(&self, update: Update) -> Written {
        if update.how != How::Replace {
            return self.apply(update).await;
        }
        let child = self.child(update.kind)?;
        let object = &update.object;
        let write = async |client: Client| client.replace(&child.resource, object.key(), update.body).await;
        match self.send((Some(update.kind), object.key()), "updating a child", write).await {
            Ok(answer) => {
                child.shared.answer(answer, Some(update.desired), Some(self.key));
                Ok(Some((Change::Updated, update.kind, object.key().clone())))
            }
            Err(error) => Err(self.failed(update.kind, object.key(), error)),
        }
    }

    /// Labels and annotations of a decorator's parent.
    async fn decorate(&self, seen: &Object, decoration: &Decoration) -> Result<(), Failure> {
        let patch = decoration_patch(seen, decoration).to_string().into_bytes();
        let write = async |client: Client| client.merge_patch(&self.hosted.parent, seen.key(), patch).await;
        match self.send((None, seen.key()), "labels and annotations", write).await {
            Ok(answer) => {
                self.hosted.parents.answer(answer, None, Some(self.key));
                Ok(())
            }
            Err(error) if error.is_object_not_found() => {
                self.hosted.parents.gone(seen.key(), seen.uid(), Some(self.key));
                Err(Failure::Stale(error.to_string()))
            }
            Err(error) => {
                self.doubt(&error);
                if error.is_conflict() || error.outcome_is_unknown() {
                    self.hosted.note_unknown(&self.key.parent, None, seen.key());
                }
                if error.is_conflict() {
                    return Err(Failure::Stale(error.to_string()));
                }
                Err(Failure::Error(WriteError::Call(error)))
            }
        }
    }

    /// Gives back the parent as it is from then on, if it is still there, and what became of its status.
    async fn status(&self, status: NewStatus) -> Result<(Option<Arc<Object>>, Status), Failure> {
        let (resource, key) = (&self.hosted.parent, self.parent.key());
        let patch = status.patch.to_string().into_bytes();
        let write = async |client: Client| {
            if resource.status {
                client.patch_status(resource, key, patch).await
            } else {
                client.json_patch(resource, key, patch).await
            }
        };
        match self.send((None, self.parent.key()), "the status", write).await {
            Ok(answer) => {
                let (version, is_new) = (answer.version(), answer.version() != self.parent.version());
                // What its kind has no field for isn't kept: to write it again would change nothing again.
                self.hosted.parents.answer(answer, None, Some(self.key));
                // Somebody's later change was not seen by the hook.
                let present = self.hosted.parents.store().get(self.parent.key()).cloned();
                if let Some(same) = present.as_ref().filter(|present| !is_new && present.version() == version) {
                    same.settle_status(status.desired);
                }
                let became = if is_new { Status::Changed } else { Status::Dropped(dropped(&status, self.parent)) };
                Ok((present.filter(|present| present.version() == version), became))
            }
            // Made anew: its events lead to what follows.
            Err(error) if error.is_conflict() => Err(Failure::Stale(error.to_string())),
            Err(error) if error.is_object_not_found() => Err(self.no_status(error).await),
            Err(error) if self.hosted.model.is_decorator() && error.is_refused() => Err(self.refused(error).await),
            Err(error) => {
                self.doubt(&error);
                // A parent of another uid fails the patch's test, which reads as invalid: look before judging.
                if error.outcome_is_unknown() || error.is_refused() {
                    self.hosted.note_unknown(&self.key.parent, None, self.parent.key());
                }
                Err(Failure::Error(WriteError::Call(error)))
            }
        }
    }

    /// The parent, or its status subresource, isn't there: the API server says the same of both.
    async fn no_status(&self, error: Error) -> Failure {
        match self.client.get(&self.hosted.parent, self.parent.key()).await {
            Ok(Some(found)) if found.uid() == self.parent.uid() => {
                self.hosted.doubt.notify_one();
                Failure::Error(WriteError::NoStatus(error))
            }
            // Gone, or made anew: its events lead to what follows.
            Ok(_) => Failure::Stale(error.to_string()),
            Err(error) => {
                self.hosted.note_unknown(&self.key.parent, None, self.parent.key());
                Failure::Error(WriteError::Call(error))
            }
        }
    }

    /// The status of a decorator's parent is refused: because it isn't the version that was seen, which reads as invalid,
    /// or for what it is.
    async fn refused(&self, error: Error) -> Failure {
        self.hosted.note_unknown(&self.key.parent, None, self.parent.key());
        match self.client.get(&self.hosted.parent, self.parent.key()).await {
            Ok(Some(found)) if found.version() == self.parent.version() => Failure::Error(WriteError::Call(error)),
            Ok(_) => Failure::Stale(error.to_string()),
            Err(error) => Failure::Error(WriteError::Call(error)),
        }
    }

    /// A path that isn't there is no object that is gone: the kind may not be what it was.
    fn doubt(&self, error: &Error) {
        if error.is_not_found() && !error.is_object_not_found() {
            self.hosted.doubt.notify_one();
        }
    }

    fn child(&self, kind: usize) -> Result<&ChildKind, Failure> {
        // Plans are made over these very kinds; an index beyond them would be a bug, and is only a failed write.
        self.hosted.children.get(kind).ok_or_else(|| Failure::Stale(format!("no kind of children {kind}")))
    }

    fn failed(&self, kind: usize, object: &ObjectKey, error: Error) -> Failure {
        self.doubt(&error);
        let stale = error.is_conflict() || error.is_object_not_found();
        if stale || error.outcome_is_unknown() {
            self.hosted.note_unknown(&self.key.parent, Some(kind), object);
        }
        if stale { Failure::Stale(error.to_string()) } else { Failure::Error(WriteError::Call(error)) }
    }

    /// A create met an object of the same name: ours that we hadn't seen, one to adopt, or a stranger's.
    async fn taken(&self, child: &ChildKind, kind: usize, key: &ObjectKey) -> Failure {
        let what = format!("{} {key}", child.resource.kind);
        let found = match self.client.get(&child.resource, key).await {
            Ok(Some(found)) => found,
            Ok(None) => return Failure::Stale(format!("{what} was there, and is gone")),
            Err(error) => return self.failed(kind, key, error),
        };
        let is_revision = self.hosted.revisions.as_ref().is_some_and(|revisions| revisions.kind == kind);
        let whose = if is_revision { self.whose_revision(child, &found) } else { self.whose(&found) };
        child.shared.answer(found, None, Some(self.key));
        // What has no label isn't kept: it is read again before the next sync, and gets its label then.
        if whose.is_none() && self.hosted.sharded.is_some() {
            self.hosted.note_unknown(&self.key.parent, Some(kind), key);
        }
        match whose {
            None => Failure::Stale(format!("{what} was there before it was seen")),
            Some(whose) => Failure::Error(WriteError::Taken { what, whose }),
        }
    }

    /// Whose an object is that has a child's name, and what to do about it; `None` if it is the parent's, or may be adopted.
    fn whose(&self, found: &Object) -> Option<String> {
        match found.controller() {
            Some(uid) if uid == self.parent.uid() && !self.hosted.model.is_decorator() && is_attachment(found) => {
                Some("was attached to the parent by a DecoratorController (name the child otherwise)".to_owned())
            }
            Some(uid) if uid == self.parent.uid() && self.hosted.attaches(found) => None,
            Some(uid) if uid == self.parent.uid() => Some(format!(
                "belongs to the object, but isn't this controller's (name the attachment otherwise, or annotate it {}: {})",
                self.hosted.model.dialect.decorator_annotation, self.hosted.model.name
            )),
            Some(_) => {
                let owners = found.owner_references();
                let owner = owners.iter().find(|owner| owner.controller);
                Some(owner.map_or_else(
                    || "belongs to another owner".to_owned(),
                    |owner| format!("belongs to {} {} (name the child otherwise)", owner.kind, owner.name),
                ))
            }
            None if found.is_deleting() => Some(match &*found.finalizers() {
                [] => "is being deleted (the child is made once it is gone)".to_owned(),
                [first, ..] => format!("is being deleted, which waits for its finalizer {first}"),
            }),
            None if self.hosted.model.is_decorator() => {
                Some("isn't the object's (delete it, or name the attachment otherwise)".to_owned())
            }
            None if self.selector.matches(&found.labels()) => None,
            None => Some(format!(
                "isn't the parent's (delete it, name the child otherwise, or label it {} to have it adopted)",
                self.selector
            )),
        }
    }

    /// The same of a revision: its name is made of the state that it keeps, and no other will do.
    fn whose_revision(&self, child: &ChildKind, found: &Object) -> Option<String> {
        match found.controller() {
            _ if found.is_deleting() => Some(match &*found.finalizers() {
                [] => "is being deleted (a new one is made once it is gone)".to_owned(),
                [first, ..] => format!("is being deleted, which waits for its finalizer {first}"),
            }),
            Some(uid) if uid == self.parent.uid() => (!is_intact(&self.hosted.model, self.parent, found)).then(|| {
                "was edited, and isn't the state any more that its name was made of (delete it: the children that it names \
                 follow the newest state then)"
                    .to_owned()
            }),
            None if self.selector.matches(&found.labels()) && self.hosted.may_adopt(child, found) => None,
            _ => Some("isn't the parent's (delete it: a new one is made)".to_owned()),
        }
    }
}
