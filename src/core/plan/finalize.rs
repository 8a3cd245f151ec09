//! Whether a parent is synced or finalized, and the controller's finalizer on it.
//!
//! Never asks who owns the parent: a hand-over between members is no reason to finalize anything.

use serde_json::{Value, json};

use crate::controller::Controller;
use crate::object::Object;

/// Finalizers by which the garbage collector has the children of a parent in its hands (Kubernetes: "Use foreground
/// cascading deletion", "Orphan dependents").
const COLLECTORS: [&str; 2] = ["foregroundDeletion", "orphan"];

/// What a sync does with a parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Nothing: it is none of the controller's.
    Foreign,
    /// It calls the sync hook, after the finalizer was added.
    Guard,
    /// It takes a finalizer off that means nothing any more: there is no finalize hook.
    Unguard,
    /// It calls the sync hook.
    Sync,
    /// It calls the finalize hook: the parent is being deleted, or the controller doesn't select it any more.
    Finalize,
}

/// What a sync does with a parent, as it is now (Metacontroller's contract, 1.7).
#[must_use]
pub fn phase(controller: &Controller, parent: &Object) -> Phase {
    let is_selected = controller.parent.selects(parent);
    let is_guarded = has_finalizer(parent, &controller.finalizer());
    match (controller.finalize.is_some(), is_guarded) {
        (false, true) => Phase::Unguard,
        (true, true) if parent.is_deleting() || !is_selected => Phase::Finalize,
        _ if !is_selected => Phase::Foreign,
        // Nothing can be added to what is being deleted, and the sync hook isn't for it.
        (true, false) => {
            if parent.is_deleting() {
                Phase::Finalize
            } else {
                Phase::Guard
            }
        }
        _ => Phase::Sync,
    }
}

/// Whether a sync may touch the children of its parent: not those of one that is being deleted, unless it waits for the
/// controller's finalize hook, and the garbage collector hasn't begun with them.
#[must_use]
pub fn manages_children(controller: &Controller, parent: &Object) -> bool {
    let is_collected = || COLLECTORS.iter().any(|name| has_finalizer(parent, name));
    let waits = || controller.finalize.is_some() && has_finalizer(parent, &controller.finalizer());
    !parent.is_deleting() || (waits() && !is_collected())
}

/// A merge patch that adds a finalizer or takes it off, if the parent is still the version that we saw.
#[must_use]
pub fn finalizer_patch(parent: &Object, finalizer: &str, present: bool) -> Value {
    let others = parent.finalizers().into_iter().filter(|name| name != finalizer);
    let mut finalizers: Vec<String> = others.map(std::borrow::Cow::into_owned).collect();
    if present {
        finalizers.push(finalizer.to_owned());
    }
    json!({"metadata": {
        "uid": parent.uid().to_string(),
        "resourceVersion": parent.version().to_string(),
        "finalizers": finalizers,
    }})
}

/// Whether an object has this finalizer.
#[must_use]
pub fn has_finalizer(object: &Object, finalizer: &str) -> bool {
    object.finalizers().iter().any(|name| name == finalizer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::RINGMASTER;
    use crate::key::Resource;
    use crate::object::tests::config_maps;
    use crate::plan::composite::tests::controller;
    use crate::selector::Selector;

    fn parent(labels: &Value, deleting: bool, finalizers: &[&str]) -> Object {
        let mut metadata = json!({
            "name": "p", "namespace": "n", "uid": "u", "resourceVersion": "7", "labels": labels,
            "finalizers": finalizers,
        });
        if deleting {
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        let resource: Resource = config_maps();
        Object::of(&json!({ "metadata": metadata }), &resource).unwrap()
    }

    #[test]
    fn each_parent_has_one_phase() {
        let mut with = controller(&RINGMASTER);
        with.parent.selector = Selector::parse("app=a").unwrap();
        let hook = with.sync.clone();
        let mut without = with.clone();
        without.finalize = None;
        with.finalize = Some(hook);
        let ours = with.finalizer();
        let (mine, others) = (json!({"app": "a"}), json!({"app": "b"}));
        let table = [
            // labels, deleting, guarded, with a finalize hook, without
            (&mine, false, false, Phase::Guard, Phase::Sync),
            (&mine, false, true, Phase::Sync, Phase::Unguard),
            (&mine, true, false, Phase::Finalize, Phase::Sync),
            (&mine, true, true, Phase::Finalize, Phase::Unguard),
            (&others, false, false, Phase::Foreign, Phase::Foreign),
            (&others, false, true, Phase::Finalize, Phase::Unguard),
            (&others, true, false, Phase::Foreign, Phase::Foreign),
            (&others, true, true, Phase::Finalize, Phase::Unguard),
        ];
        for (labels, deleting, guarded, hooked, bare) in table {
            let finalizers = ["other", &ours];
            let parent = parent(labels, deleting, if guarded { &finalizers } else { &finalizers[..1] });
            let about = format!("{labels} {deleting} {guarded}");
            assert_eq!((phase(&with, &parent), phase(&without, &parent)), (hooked, bare), "{about}");
        }
    }

    #[test]
    fn children_are_left_to_the_garbage_collector() {
        let mut with = controller(&RINGMASTER);
        with.finalize = Some(with.sync.clone());
        let ours = with.finalizer();
        let managed =
            |deleting, finalizers: &[&str]| manages_children(&with, &parent(&json!({}), deleting, finalizers));
        assert!(managed(false, &[]) && managed(false, &["orphan", &ours]) && managed(true, &["x", &ours]));
        assert!(!managed(true, &["x"]), "it is done, or never began");
        assert!(!managed(true, &[&ours, "foregroundDeletion"]) && !managed(true, &["orphan", &ours]));
        let without = controller(&RINGMASTER);
        assert!(!manages_children(&without, &parent(&json!({}), true, &[&ours])));
    }

    #[test]
    fn a_patch_keeps_others_finalizers() {
        let parent = parent(&json!({}), false, &["a", "ours", "b"]);
        let finalizers = |present| finalizer_patch(&parent, "ours", present)["metadata"]["finalizers"].clone();
        assert_eq!((finalizers(false), finalizers(true)), (json!(["a", "b"]), json!(["a", "b", "ours"])));
        assert_eq!(finalizer_patch(&parent, "ours", true)["metadata"]["resourceVersion"], "7");
    }
}
