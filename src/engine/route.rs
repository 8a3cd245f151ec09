//! From a change of an object to the parents that must be synced.
//!
//! Never waits and never calls: it runs inside event handling.

use std::sync::{Arc, Weak};

use ringmaster_core::cache::Change;
use ringmaster_core::hash::shard;
use ringmaster_core::key::{ApiVersion, ObjectKey, SyncKey, Uid};
use ringmaster_core::object::Object;
use ringmaster_core::plan::{CONTROLLER_UID_LABEL, parent_selector};
use ringmaster_core::queue::Priority;
use ringmaster_core::selector::Labels as _;
use ringmaster_core::shards::{OWNER_LABEL, SELF_LABEL};

use crate::children::has_label;
use crate::dispatch::Dispatch;
use crate::hosted::Hosted;
use crate::labels::Labels;
use crate::watches::Listener;

/// Listens to the parents of a controller. The controller is set once it exists: its watches come first.
pub(crate) struct ParentRoute {
    pub(crate) hosted: Arc<std::sync::OnceLock<Weak<Hosted>>>,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) labels: Arc<Labels>,
}

/// Listens to one kind of its children.
pub(crate) struct ChildRoute {
    pub(crate) hosted: Arc<std::sync::OnceLock<Weak<Hosted>>>,
    pub(crate) dispatch: Arc<Dispatch>,
    pub(crate) labels: Arc<Labels>,
    /// Index of the declared kind.
    pub(crate) kind: usize,
}

pub(crate) fn running(hosted: &std::sync::OnceLock<Weak<Hosted>>) -> Option<Arc<Hosted>> {
    hosted.get()?.upgrade().filter(|hosted| hosted.is_active())
}

impl Listener for ParentRoute {
    fn changed(&self, change: &Change, origin: Option<&SyncKey>) {
        let Some(hosted) = running(&self.hosted) else { return };
        if !hosted.holds(change.key()) {
            // Its label says that it is this member's, and it isn't.
            if let (Change::Applied { new, .. }, Some(right)) = (change, hosted.shard(change.key()))
                && !has_label(new, SELF_LABEL, right)
            {
                self.labels.put_right(&hosted.parent, new, SELF_LABEL, Some(right));
            }
            return;
        }
        let key = hosted.key(change.key());
        let Some(new) = index_parent(&hosted, change) else {
            if hosted.unlabelled(change.key()).is_some() {
                // It only lost its label, as far as is known: its sync finds out.
                self.dispatch.add(key, Priority::Fresh);
            } else {
                self.dispatch.remove(&key);
            }
            return;
        };
        if !hosted.concerns(&new) {
            hosted.forget_notes(change.key());
            self.dispatch.remove(&key);
            return;
        }
        let old = match change {
            Change::Applied { old, .. } => old.as_ref(),
            Change::Deleted { .. } => None,
        };
        // The sync that wrote a status queues its parent by its own rules; what came with the answer beside is news.
        // One that its sync gave a label is new here, and is synced just now.
        // Whatever a decorator's sync writes is written to the very version that its hook saw.
        let is_own = |old: &Arc<Object>| hosted.model.is_decorator() || new.is_same_but_status(old);
        if origin == Some(&key) && old.is_none_or(is_own) {
            return;
        }
        if !old.is_some_and(|old| new.differs_in_status_only(old)) {
            self.dispatch.add(key, Priority::Fresh);
        } else if !hosted.model.parent.ignore_status_changes {
            self.dispatch.add(key, Priority::Child);
        }
    }
}

/// Brings what is kept of a parent in line with the cache; gives back the parent as it is there, `None` if it is gone.
pub(crate) fn index_parent(hosted: &Hosted, change: &Change) -> Option<Arc<Object>> {
    let known = match change {
        Change::Applied { old, .. } => old.as_ref(),
        Change::Deleted { old, .. } => Some(old),
    };
    // Under this lock the last to come here sees the newest, whatever it was told.
    let mut index = hosted.index.lock();
    let new = hosted.parents.store().get(change.key()).cloned();
    let selected = new.as_ref().filter(|new| hosted.selects(new) && !new.is_deleting());
    if hosted.model.is_decorator() {
        // It adopts nothing.
    } else if hosted.model.generate_selector {
        if let Some(known) = known {
            index.by_uid.remove(known.uid());
        }
        if let Some(parent) = selected {
            index.by_uid.insert(parent.uid().clone(), parent.key().clone());
        }
    } else {
        let selector = selected.and_then(|parent| parent_selector(&hosted.model, parent).ok());
        let is_unreadable = selected.is_some() && selector.is_none();
        if index.selectors.set(change.key(), selector) || is_unreadable {
            // What it may adopt now, or once its selector can be read, is nothing that comes by of itself.
            hosted.search_again(change.key());
        }
    }
    drop(index);
    if new.is_none() {
        hosted.forget_notes(change.key());
    }
    new
}

impl Listener for ChildRoute {
    fn changed(&self, change: &Change, origin: Option<&SyncKey>) {
        let Some(hosted) = running(&self.hosted) else { return };
        let mut parents = Vec::new();
        match change {
            Change::Deleted { old, certain } => {
                parents_of(&hosted, old, &mut parents);
                if !certain {
                    // It may only have lost its label: it is read before the parent is synced again.
                    for parent in parents.iter().filter(|parent| hosted.holds(parent)) {
                        hosted.note_unknown(parent, Some(self.kind), old.key());
                    }
                }
            }
            Change::Applied { old, new } => {
                let owner = owner(&hosted, new);
                self.check_label(&hosted, new, &owner);
                parents_by(&hosted, new, owner, &mut parents);
                let lost = |old: &&Arc<Object>| {
                    old.controller() != new.controller() || (hosted.attaches(old) && !hosted.attaches(new))
                };
                if let Some(old) = old.as_ref().filter(lost) {
                    parents_of(&hosted, old, &mut parents);
                }
            }
        }
        for parent in parents.into_iter().filter(|parent| hosted.holds(parent)) {
            let key = hosted.key(&parent);
            if origin != Some(&key) {
                self.dispatch.add(key, Priority::Child);
            }
        }
    }
}

impl ChildRoute {
    /// A child of a sharded controller's parent whose label isn't the parent's number is put right by whoever sees it; a
    /// label on a child of nobody's goes.
    fn check_label(&self, hosted: &Hosted, child: &Arc<Object>, owner: &Owner) {
        if hosted.sharded.is_none() {
            return;
        }
        let Some(resource) = hosted.children.get(self.kind).map(|kind| &kind.resource) else { return };
        let right = match owner {
            Owner::Nobody => return self.labels.put_right(resource, child, OWNER_LABEL, None),
            // Whoever runs their controller judges.
            Owner::Another => return,
            Owner::Parent(parent) => shard(&hosted.parent, parent),
        };
        if !has_label(child, OWNER_LABEL, right) {
            self.labels.put_right(resource, child, OWNER_LABEL, Some(right));
        }
    }
}

/// Who controls a child, as its references say.
enum Owner {
    Nobody,
    /// An object of another kind than the controller's parents.
    Another,
    /// A parent of this name, whether or not it is the one with the reference's uid.
    Parent(ObjectKey),
}

fn owner(hosted: &Hosted, child: &Object) -> Owner {
    if child.controller().is_none() {
        return Owner::Nobody;
    }
    let owners = child.owner_references();
    let Some(owner) = owners.iter().find(|owner| owner.controller) else { return Owner::Another };
    let group = ApiVersion::new(&owner.api_version);
    if *owner.kind != *hosted.parent.kind || group.group() != hosted.parent.api_version.group() {
        return Owner::Another;
    }
    let namespace = if hosted.parent.namespaced { child.key().namespace() } else { "" };
    Owner::Parent(ObjectKey::new(namespace, &owner.name))
}

/// The parent that controls a child, or those that may adopt an orphan.
pub(crate) fn parents_of(hosted: &Hosted, child: &Object, found: &mut Vec<ObjectKey>) {
    parents_by(hosted, child, owner(hosted, child), found);
}

fn parents_by(hosted: &Hosted, child: &Object, owner: Owner, found: &mut Vec<ObjectKey>) {
    match owner {
        Owner::Nobody => {
            let namespace = hosted.orphan_namespace(child.key());
            let labels = child.labels();
            let index = hosted.index.lock();
            if !hosted.model.generate_selector {
                found.extend(index.selectors.matching(namespace, &labels));
            } else if let Some(uid) = labels.get(CONTROLLER_UID_LABEL) {
                let parent = index.by_uid.get(&Uid::new(uid));
                found.extend(parent.filter(|parent| namespace.is_none_or(|n| parent.namespace() == n)).cloned());
            }
        }
        Owner::Another => {}
        Owner::Parent(key) => {
            let is_it = |parent: &Arc<Object>| Some(parent.uid()) == child.controller() && hosted.concerns(parent);
            if !hosted.attaches(child) {
                return;
            }
            if hosted.parents.store().get(&key).is_some_and(is_it) {
                found.push(key);
            }
        }
    }
}
