//! The states of a parent that children still follow.
//!
//! Never asks where an object came from: one that Metacontroller left half-way is read as our own.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::fields::select;
use super::revision::Revision;
use crate::controller::Controller;
use crate::object::Object;
use crate::plan::merge;

/// The hook is asked for so many states of one parent at once, the newest among them. Children of further ones stay as
/// they are until it is their turn.
pub const MAX_LIVE_REVISIONS: usize = 10;

/// The revisions of a parent.
#[derive(Debug)]
pub struct Live {
    /// The parent as it is now.
    pub latest: Revision,
    /// Other states that the hook is asked for.
    pub older: Vec<Revision>,
    /// States that it isn't asked for: beyond [`MAX_LIVE_REVISIONS`], or unreadable.
    pub held: Vec<Revision>,
    /// Objects that no child follows; they go.
    pub empty: Vec<Arc<Object>>,
}

impl Live {
    /// Sorts out the revision objects of a parent. Those that are being deleted count as gone.
    #[must_use]
    pub fn of(controller: &Controller, parent: &Object, objects: &[Arc<Object>]) -> Self {
        let mut objects: Vec<&Arc<Object>> = objects.iter().filter(|object| !object.is_deleting()).collect();
        // A child that two name, as a write between two others failed, follows the one that was written last.
        objects.sort_by(|a, b| b.version().cmp(&a.version()).then_with(|| a.key().cmp(b.key())));
        let mut named = BTreeSet::new();
        let patch = select(&parent.value(), &controller.parent.revision_fields);
        let mut live = Self {
            latest: Revision { object: None, patch, children: BTreeSet::new() },
            older: Vec::new(),
            held: Vec::new(),
            empty: Vec::new(),
        };
        for object in objects {
            let (patch, mut revision) = Revision::read(controller, parent.key().namespace(), object);
            revision.children.retain(|child| named.insert(child.clone()));
            if patch.as_ref().is_some_and(|patch| merge::same(patch, &live.latest.patch)) {
                live.latest.children.extend(revision.children);
                if live.latest.object.is_none() {
                    live.latest.object = Some(Arc::clone(object));
                } else {
                    live.empty.push(Arc::clone(object));
                }
            } else if revision.children.is_empty() {
                live.empty.push(Arc::clone(object));
            } else if patch.is_some() {
                live.older.push(revision);
            } else {
                live.held.push(revision);
            }
        }
        // Where there are too many, those with most children are asked for. The sort is stable.
        live.older.sort_by_key(|revision| std::cmp::Reverse(revision.children.len()));
        let further = live.older.split_off(live.older.len().min(MAX_LIVE_REVISIONS - 1));
        live.held.extend(further);
        live
    }

    /// Whether children follow the newest state alone.
    #[must_use]
    pub fn is_only_latest(&self) -> bool {
        self.older.is_empty() && self.held.is_empty()
    }
}
