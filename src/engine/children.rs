//! A parent and its children before its hook is called: labels put right, what is unknown read, orphans adopted, those
//! that don't match any more released.
//!
//! Never decides whose a child is: `core::plan` does. Never calls a hook.

use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use ringmaster_core::key::{ObjectKey, SyncKey};
use ringmaster_core::object::Object;
use ringmaster_core::plan::composite::Kind;
use ringmaster_core::plan::decorator::attached;
use ringmaster_core::plan::{Claims, adopt_patch, claim, parent_selector, release_patch};
use ringmaster_core::rollout::kind_selector;
use ringmaster_core::selector::{Labels as _, Selector};
use ringmaster_core::shards::{OWNER_LABEL, SELF_LABEL};
use tracing::debug;

use crate::execute::Failures;
use crate::hosted::{ChildKind, Hosted, Unlabelled};
use crate::labels::write_label;
use crate::member::guard::Permit;
use crate::sync::Syncer;
use crate::tell::Problem;

/// Objects of one sync that are read at once.
const MAX_READS_AT_ONCE: usize = 8;
/// Older children of one kind that one sync labels: a reply can't name more either.
const MAX_OLDER_CHILDREN: usize = 10_000;

/// One parent, on its way through a sync.
pub(crate) struct Family<'a> {
    pub(crate) hosted: &'a Hosted,
    pub(crate) key: &'a SyncKey,
    pub(crate) permit: &'a Permit,
    /// The parent's shard, if the controller is sharded.
    pub(crate) shard: Option<u8>,
}

impl Syncer {
    /// The parent, with its label if the controller is sharded; `None` if it isn't there any more. On an error, the
    /// parent as it was seen, if it was.
    pub(crate) async fn labelled(
        &self,
        hosted: &Hosted,
        key: &SyncKey,
        permit: &Permit,
    ) -> Result<Option<Arc<Object>>, (Option<Arc<Object>>, Problem)> {
        let known = hosted.parents.store().get(&key.parent).cloned();
        let Some(shard) = hosted.shard(&key.parent) else { return Ok(known) };
        // What the cache holds may be older than what was seen without a label: that is another stream.
        let noted = hosted.unlabelled(&key.parent);
        let is_old = |known: &Object| noted.as_ref().is_some_and(|noted| known.version().is_before(noted.version));
        let seen = match known.filter(|known| !is_old(known)) {
            Some(known) if has_label(&known, SELF_LABEL, shard) => {
                hosted.labelled(&key.parent, known.version());
                return Ok(Some(known));
            }
            Some(known) => known,
            None => match noted {
                Some(Unlabelled { seen: Some(seen), .. }) => seen,
                Some(Unlabelled { seen: None, version, .. }) => {
                    match self.client.get(&hosted.parent, &key.parent).await {
                        Ok(Some(found)) if hosted.concerns(&found) => Arc::new(found),
                        // None of the controller's; it stays as it is.
                        Ok(_) => {
                            hosted.labelled(&key.parent, version);
                            return Ok(None);
                        }
                        Err(error) => {
                            debug!(parent = %key.parent, "a parent without a label can't be read: {error}");
                            return Err((None, Problem::Read(error)));
                        }
                    }
                }
                None => return Ok(None),
            },
        };
        match write_label(permit, &self.client, &hosted.parent, &seen, (SELF_LABEL, shard)).await {
            Ok(answer) => {
                let version = answer.version();
                hosted.parents.answer(answer, None, Some(key));
                hosted.labelled(&key.parent, version);
                Ok(hosted.parents.store().get(&key.parent).cloned())
            }
            // Gone, or made anew: its own events lead to what follows.
            Err(error) if error.is_object_not_found() || error.is_conflict() => {
                hosted.labelled(&key.parent, seen.version());
                Ok(None)
            }
            Err(error) => Err((Some(seen), Problem::Write(Failures::one(error)))),
        }
    }

    /// Looks once for children of a parent that have no label of a shard yet: older than the controller, or stripped
    /// of it while nobody looked. They are read before the sync goes on.
    pub(crate) async fn search(&self, family: &Family<'_>) -> Result<(), Problem> {
        let (hosted, parent_key) = (family.hosted, &family.key.parent);
        if !hosted.must_search(parent_key) {
            return Ok(());
        }
        let parent = hosted.parents.store().get(parent_key).cloned().ok_or(Problem::Gone)?;
        let selector = parent_selector(&hosted.model, &parent).map_err(Problem::Parent)?;
        let namespace = hosted.orphan_namespace(parent_key);
        for (index, child) in hosted.children.iter().enumerate() {
            if !child.strays.as_ref().is_some_and(|strays| strays.may_have(parent.uid(), namespace, &selector)) {
                continue;
            }
            // What the next steps would leave as it is doesn't count: it would be found again.
            let is_wanted = |object: &Object| match object.controller() {
                Some(uid) => uid == parent.uid() && hosted.attaches(object),
                None => !object.is_deleting() && !parent.is_deleting() && !hosted.model.is_decorator(),
            };
            // Revisions are the parent's whatever else their labels say.
            let is_revision = hosted.revisions.as_ref().is_some_and(|revisions| revisions.kind == index);
            let labels = if is_revision { kind_selector(&hosted.model) } else { selector.to_string() };
            let comma = if labels.is_empty() { "" } else { "," };
            let place = (namespace.unwrap_or_default(), &*format!("{labels}{comma}!{OWNER_LABEL}"));
            let found = self.client.find_metadata(&child.resource, place, MAX_OLDER_CHILDREN, is_wanted);
            let found = found.await.map_err(Problem::Read)?;
            for (key, _) in &found.objects {
                hosted.note_unknown(parent_key, Some(index), key);
            }
            if found.is_cut {
                self.client.limit_hit("older_children");
                // These get their labels, so that the next search finds others.
                self.resolve_unknown(family).await?;
                let text = format!(
                    "has more than {MAX_OLDER_CHILDREN} older {} without a label; so many have theirs now, the others follow",
                    child.resource.plural
                );
                return Err(Problem::Parent(text));
            }
        }
        hosted.searched(parent_key);
        // One that selects otherwise since had nothing to take back before.
        let parent = hosted.parents.store().get(parent_key).cloned();
        let now = parent.and_then(|parent| parent_selector(&hosted.model, &parent).ok());
        if now.as_ref() != Some(&selector) {
            hosted.search_again(parent_key);
        }
        Ok(())
    }

    /// Reads what a write of unknown outcome may have changed, what left a watch's sight, and what has no label.
    pub(crate) async fn resolve_unknown(&self, family: &Family<'_>) -> Result<(), Problem> {
        let mut waiting = family.hosted.unknown(&family.key.parent).into_iter();
        let (mut running, mut all) = (FuturesUnordered::new(), Ok(()));
        loop {
            while all.is_ok()
                && running.len() < MAX_READS_AT_ONCE
                && let Some((kind, object)) = waiting.next()
            {
                running.push(self.read(family, kind, object));
            }
            // What is under way ends, also after a failure: a write that is dropped has no outcome, and holds a hand-over up.
            let Some(one) = running.next().await else { return all };
            all = all.and(one);
        }
    }

    async fn read(&self, family: &Family<'_>, kind: Option<usize>, object: ObjectKey) -> Result<(), Problem> {
        let (hosted, key) = (family.hosted, family.key);
        let child = kind.and_then(|kind| hosted.children.get(kind));
        let (resource, shared) = match child {
            Some(child) => (&child.resource, &child.shared),
            None => (&hosted.parent, &hosted.parents),
        };
        // Taken before the read: what is made anew meanwhile is another object.
        let known = shared.store().get(&object).cloned();
        match self.client.get(resource, &object).await.map_err(Problem::Read)? {
            Some(found) => {
                let found = match child {
                    Some(child) => self.put_right(family, child, found).await?,
                    None => found,
                };
                shared.answer(found, None, Some(key));
            }
            None => {
                if let Some(known) = known {
                    shared.gone(&object, known.uid(), Some(key));
                }
            }
        }
        hosted.known(&key.parent, kind, &object);
        Ok(())
    }

    /// A child of a sharded controller's parent gets its label, and an orphan that matches is adopted: without the label
    /// no watch of ours would show it.
    async fn put_right(&self, family: &Family<'_>, child: &ChildKind, found: Object) -> Result<Object, Problem> {
        let (hosted, key) = (family.hosted, family.key);
        let Some(shard) = family.shard else { return Ok(found) };
        if has_label(&found, OWNER_LABEL, shard) {
            return Ok(found);
        }
        let Some(parent) = hosted.parents.store().get(&key.parent).cloned() else { return Ok(found) };
        let written = match found.controller() {
            Some(uid) if uid == parent.uid() => {
                write_label(family.permit, &self.client, &child.resource, &found, (OWNER_LABEL, shard)).await
            }
            Some(_) => return Ok(found),
            None if hosted.model.is_decorator() => return Ok(found),
            None => {
                let selector = parent_selector(&hosted.model, &parent).map_err(Problem::Parent)?;
                let near = hosted.orphan_namespace(parent.key()).is_none_or(|home| found.key().namespace() == home);
                if !near
                    || !hosted.may_adopt(child, &found)
                    || found.is_deleting()
                    || parent.is_deleting()
                    || !selector.matches(&found.labels())
                {
                    return Ok(found);
                }
                if let Some(problem) = contested(hosted, child, &parent, &found) {
                    return Err(problem);
                }
                self.check_parent(family, &parent).await?;
                let patch = adopt_patch(&parent, &hosted.parent, &found, Some(shard)).to_string().into_bytes();
                let write = async |client: ringmaster_cluster::Client| {
                    client.merge_patch(&child.resource, found.key(), patch).await
                };
                let adopted = family.permit.write(&self.client, "adopting a child", write).await;
                if adopted.is_ok() {
                    hosted.note_claim(parent.key(), found.key());
                }
                adopted
            }
        };
        match written {
            Ok(answer) => Ok(answer),
            Err(error) if error.is_object_not_found() => Ok(found),
            Err(error) if error.is_conflict() => Err(Problem::Stale(error.to_string())),
            Err(error) => Err(Problem::Write(Failures::one(error))),
        }
    }

    /// The parent's children of each declared kind, after adopting and releasing.
    pub(crate) async fn claimed(
        &self,
        family: &Family<'_>,
        parent: &Object,
        selector: &Selector,
    ) -> Result<Vec<Kind>, Problem> {
        let hosted = family.hosted;
        let declared = hosted.declared();
        let mut kinds = Vec::with_capacity(declared.len());
        let mut checked = false;
        for child in declared {
            let mut claims = claims(hosted, child, parent, selector);
            if !claims.adopt.is_empty() || !claims.release.is_empty() {
                for object in claims.adopt.iter().chain(&claims.release) {
                    if let Some(problem) = contested(hosted, child, parent, object) {
                        return Err(problem);
                    }
                }
                if !checked {
                    self.check_parent(family, parent).await?;
                    checked = true;
                }
                for object in &claims.adopt {
                    let patch = adopt_patch(parent, &hosted.parent, object, family.shard);
                    self.patch_owner(family, child, object, &patch).await?;
                }
                for object in &claims.release {
                    let patch = release_patch(parent, object);
                    self.patch_owner(family, child, object, &patch).await?;
                }
                claims = self::claims(hosted, child, parent, selector);
            }
            kinds.push(Kind { resource: Arc::clone(&child.resource), strategy: child.strategy, owned: claims.owned });
        }
        Ok(kinds)
    }

    /// Before anything is adopted: the parent is the one that we think it is, and it stays (contract 1.7).
    pub(crate) async fn check_parent(&self, family: &Family<'_>, parent: &Object) -> Result<(), Problem> {
        let (hosted, key) = (family.hosted, family.key);
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

    pub(crate) async fn patch_owner(
        &self,
        family: &Family<'_>,
        child: &ChildKind,
        object: &Object,
        patch: &serde_json::Value,
    ) -> Result<(), Problem> {
        let (hosted, key) = (family.hosted, family.key);
        let kind = hosted.children.iter().position(|other| std::ptr::eq(other, child));
        let body = patch.to_string().into_bytes();
        let write =
            async |client: ringmaster_cluster::Client| client.merge_patch(&child.resource, object.key(), body).await;
        let begun = hosted.begin_write(&key.parent, kind, object.key());
        let written = family.permit.write(&self.client, "an owner reference", write).await;
        begun.ended();
        match written {
            Ok(answer) => {
                child.shared.answer(answer, None, Some(key));
                hosted.note_claim(&key.parent, object.key());
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
}

/// Why a child is to be left alone for a while: it goes to and fro between controllers of its parent.
fn contested(hosted: &Hosted, child: &ChildKind, parent: &Object, object: &Object) -> Option<Problem> {
    let pause = hosted.contested(parent.key(), object.key())?;
    let text = format!(
        "{} {} is adopted and released again and again: another controller with the same parents selects its children \
         otherwise. Let their selectors agree, or only one of them have these parents; until then it is looked at more and \
         more seldom",
        child.resource.kind,
        object.key()
    );
    Some(Problem::Contested(text, pause))
}

/// Whether an object has the label of this shard.
pub(crate) fn has_label(object: &Object, label: &str, shard: u8) -> bool {
    object.labels().get(label).and_then(ringmaster_core::shards::parse_label) == Some(shard)
}

/// What of a kind is a parent's, what it adopts, and what it releases, as the cache knows it.
pub(crate) fn claims(hosted: &Hosted, child: &ChildKind, parent: &Object, selector: &Selector) -> Claims {
    let store = child.shared.store();
    let namespace = hosted.orphan_namespace(parent.key());
    if hosted.model.is_decorator() {
        return attached(&hosted.model, namespace, store.owned_by(parent.uid()));
    }
    let orphans = store.orphans(namespace, selector.exact_pairs().next());
    claim(parent, selector, namespace, store.owned_by(parent.uid()), orphans)
}
