//! Which children are a parent's: ownership, adoption and release by the controller-reference rules of Kubernetes.
//!
//! Never decides on content; a parent that is being deleted neither adopts nor releases.

use std::sync::Arc;

use serde_json::{Value, json};

use super::decorator::attaches;
use crate::controller::Controller;
use crate::dialect::{Dialect, METACONTROLLER, RINGMASTER};
use crate::key::Resource;
use crate::object::{Object, OwnerReference};
use crate::selector::{Labels as _, Selector};
use crate::shards::OWNER_LABEL;

/// The label that `generateSelector` puts on children and selects them by (Metacontroller's contract).
pub const CONTROLLER_UID_LABEL: &str = "controller-uid";

/// The candidates of one kind, sorted out. Each list is sorted by key.
#[derive(Debug, Default)]
pub struct Claims {
    /// The parent's children.
    pub owned: Vec<Arc<Object>>,
    /// Orphans that match its selector: to be owned after a write.
    pub adopt: Vec<Arc<Object>>,
    /// Children that no longer match: to lose their owner reference.
    pub release: Vec<Arc<Object>>,
}

/// The selector of a parent's children. Attachments are told by their annotation, so a decorator selects everything.
///
/// # Errors
/// If the parent has to have one and its `spec.selector` is missing, empty or malformed; the text names the fix.
pub fn parent_selector(controller: &Controller, parent: &Object) -> Result<Selector, String> {
    if controller.is_decorator() {
        return Ok(Selector::everything());
    }
    if controller.generate_selector {
        return Selector::parse(&format!("{CONTROLLER_UID_LABEL}={}", parent.uid()))
            .map_err(|error| format!("metadata.uid can't be a label value: {error}"));
    }
    let spec: Option<Value> = parent.section("spec");
    let selector = spec.as_ref().and_then(|spec| spec.get("selector")).filter(|selector| !selector.is_null());
    let hint = "give the parent a spec.selector with matchLabels, or set spec.generateSelector: true on the controller";
    let Some(selector) = selector else {
        return Err(format!("spec.selector is missing: {hint}"));
    };
    let selector = Selector::from_json(selector).map_err(|error| format!("spec.selector: {error}"))?;
    if selector.is_everything() {
        return Err(format!("spec.selector is empty and would match everything: {hint}"));
    }
    Ok(selector)
}

/// Sorts out candidates: the objects that the parent's uid controls, and the orphans that may match. What lies outside
/// of `namespace` (a namespaced parent's own) is never its child, whatever an owner reference there says.
pub fn claim<'a>(
    parent: &Object,
    selector: &Selector,
    namespace: Option<&str>,
    owned: impl Iterator<Item = &'a Arc<Object>>,
    orphans: impl Iterator<Item = &'a Arc<Object>>,
) -> Claims {
    let mut claims = Claims::default();
    let near = |object: &&Arc<Object>| namespace.is_none_or(|namespace| object.key().namespace() == namespace);
    for object in owned.filter(near) {
        if is_attachment(object) {
            continue;
        }
        if selector.matches(&object.labels()) {
            claims.owned.push(Arc::clone(object));
        } else if !parent.is_deleting() {
            claims.release.push(Arc::clone(object));
        }
    }
    if !parent.is_deleting() {
        let matching =
            orphans.filter(near).filter(|object| !object.is_deleting() && selector.matches(&object.labels()));
        claims.adopt.extend(matching.cloned());
    }
    claims.owned.sort_by(|a, b| a.key().cmp(b.key()));
    claims.adopt.sort_by(|a, b| a.key().cmp(b.key()));
    claims.release.sort_by(|a, b| a.key().cmp(b.key()));
    claims
}

/// Whether a decorator of either group attached it: then no composite takes it for its own.
#[must_use]
pub fn is_attachment(object: &Object) -> bool {
    let annotated = |dialect: &Dialect| object.annotation(dialect.decorator_annotation).is_some();
    annotated(&RINGMASTER) || annotated(&METACONTROLLER)
}

/// Whether what is found in a child's place is that very child, still the parent's, and not being deleted.
#[must_use]
pub fn is_still_owned(
    controller: &Controller,
    parent: &Object,
    selector: &Selector,
    seen: &Object,
    found: &Object,
) -> bool {
    let is_its = if controller.is_decorator() { attaches(controller, found) } else { !is_attachment(found) };
    let is_owned = found.controller() == Some(parent.uid()) && selector.matches(&found.labels());
    found.uid() == seen.uid() && is_its && is_owned && !found.is_deleting()
}

/// The owner reference that makes `parent` an object's controller.
pub(crate) fn controller_reference(parent: &Object, resource: &Resource) -> Value {
    json!({
        "apiVersion": resource.api_version.as_str(),
        "kind": &*resource.kind,
        "name": parent.key().name(),
        "uid": parent.uid().to_string(),
        "controller": true,
        "blockOwnerDeletion": true,
    })
}

/// A merge patch that makes `parent` the controller of an orphan, if the orphan is still the version that we saw; with
/// the label of the parent's shard, if its controller is sharded.
#[must_use]
pub fn adopt_patch(parent: &Object, resource: &Resource, orphan: &Object, shard: Option<u8>) -> Value {
    let mut references = references(orphan, |_| true);
    references.push(controller_reference(parent, resource));
    let mut patch = owners_patch(orphan, references);
    if let Some(shard) = shard {
        patch["metadata"]["labels"] = json!({ OWNER_LABEL: shard.to_string() });
    }
    patch
}

/// A merge patch that takes the parent's reference, and the label of its shard, off a child, if it is still the version
/// that we saw.
#[must_use]
pub fn release_patch(parent: &Object, child: &Object) -> Value {
    let mut patch = owners_patch(child, references(child, |owner| owner.uid != *parent.uid()));
    if child.labels().get(OWNER_LABEL).is_some() {
        patch["metadata"]["labels"] = json!({ OWNER_LABEL: null });
    }
    patch
}

/// A merge patch that gives an object the label of a shard, or takes it away, if it is still the object that we saw.
#[must_use]
pub fn label_patch(object: &Object, label: &str, shard: Option<u8>) -> Value {
    json!({"metadata": {
        "uid": object.uid().to_string(),
        "labels": { label: shard.map(|shard| shard.to_string()) },
    }})
}

fn references(object: &Object, keep: impl Fn(&OwnerReference) -> bool) -> Vec<Value> {
    let mut tree: Value = object.section::<Value>("metadata").unwrap_or_default();
    let Some(Value::Array(raw)) = tree.get_mut("ownerReferences").map(Value::take) else { return Vec::new() };
    // The raw entries, so that fields that we don't read survive.
    object.owner_references().iter().zip(raw).filter(|(owner, _)| keep(owner)).map(|(_, raw)| raw).collect()
}

fn owners_patch(object: &Object, references: Vec<Value>) -> Value {
    json!({"metadata": {
        "uid": object.uid().to_string(),
        "resourceVersion": object.version().to_string(),
        "ownerReferences": references,
    }})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::controller::Role;
    use crate::object::tests::config_maps;
    use crate::plan::composite::tests::controller;

    fn object(name: &str, label: &str, owner: Option<&str>, deleting: bool) -> Arc<Object> {
        let owners = owner.map_or_else(String::new, |uid| {
            format!(
                r#","ownerReferences":[{{"apiVersion":"v1","kind":"X","name":"x","uid":"other","extra":1}},
                {{"apiVersion":"v1","kind":"P","name":"p","uid":"{uid}","controller":true}}]"#
            )
        });
        let deleting = if deleting { r#","deletionTimestamp":"2026-01-01T00:00:00Z""# } else { "" };
        let text = format!(
            r#"{{"metadata":{{"name":"{name}","namespace":"n","uid":"uid-{name}","resourceVersion":"7",
            "labels":{{"app":"{label}"}}{owners}{deleting}}}}}"#
        );
        Arc::new(Object::parse(&text, &config_maps()).unwrap())
    }

    fn names(objects: &[Arc<Object>]) -> Vec<&str> {
        objects.iter().map(|object| object.key().name()).collect()
    }

    #[test]
    fn owns_adopts_and_releases_by_selector() {
        let selector = Selector::parse("app=x").unwrap();
        let owned = [object("keep", "x", Some("p"), false), object("drop", "y", Some("p"), false)];
        let orphans =
            [object("take", "x", None, false), object("leave", "y", None, false), object("dying", "x", None, true)];
        let claims = claim(&object("p", "x", None, false), &selector, Some("n"), owned.iter(), orphans.iter());
        assert_eq!(
            (names(&claims.owned), names(&claims.adopt), names(&claims.release)),
            (vec!["keep"], vec!["take"], vec!["drop"])
        );
        let claims = claim(&object("p", "x", None, true), &selector, Some("n"), owned.iter(), orphans.iter());
        assert_eq!((names(&claims.owned), claims.adopt.len(), claims.release.len()), (vec!["keep"], 0, 0));
    }

    #[test]
    fn what_a_decorator_attached_is_not_released() {
        let selector = Selector::parse("app=x").unwrap();
        for (annotation, released) in [
            ("ringmaster.dev/decorator-controller", 0),
            ("metacontroller.k8s.io/decorator-controller", 0),
            ("other", 1),
        ] {
            let mut attached = object("a", "y", Some("p"), false).value();
            attached["metadata"]["annotations"] = json!({ annotation: "d" });
            let owned = [Arc::new(Object::of(&attached, &config_maps()).unwrap())];
            let claims = claim(&object("p", "x", None, false), &selector, Some("n"), owned.iter(), [].iter());
            assert_eq!((claims.owned.len(), claims.release.len()), (0, released), "{annotation}");
        }
    }

    #[test]
    fn a_child_is_still_owned_whatever_else_was_written_to_it() {
        let (mut controller, selector) = (controller(&RINGMASTER), Selector::parse("app=x").unwrap());
        let (parent, seen) = (object("p", "x", None, false), object("c", "x", Some("uid-p"), false));
        let owned = |controller: &Controller, selector: &Selector, edit: &dyn Fn(&mut Value)| {
            let mut found = seen.value();
            found["metadata"]["resourceVersion"] = "8".into();
            edit(&mut found);
            is_still_owned(controller, &parent, selector, &seen, &Object::of(&found, &config_maps()).unwrap())
        };
        let attached = |name: &'static str| {
            move |found: &mut Value| found["metadata"]["annotations"][RINGMASTER.decorator_annotation] = name.into()
        };
        assert!(owned(&controller, &selector, &|_| ()));
        assert!(owned(&controller, &selector, &|found| found["status"] = json!({"beat": 1})));
        let others: [&dyn Fn(&mut Value); 6] = [
            &|found| found["metadata"]["uid"] = "another".into(),
            &|found| found["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z".into(),
            &|found| found["metadata"]["labels"]["app"] = "y".into(),
            &|found| found["metadata"]["ownerReferences"][1]["uid"] = "another".into(),
            &|found| found["metadata"]["ownerReferences"] = json!([]),
            &attached("sites"),
        ];
        for (index, edit) in others.into_iter().enumerate() {
            assert!(!owned(&controller, &selector, edit), "{index}");
        }
        // A decorator's is known by the annotation, and by it alone.
        controller.role = Role::Decorator { target: 0 };
        let all = Selector::everything();
        assert!(owned(&controller, &all, &attached("sites")));
        assert!(!owned(&controller, &all, &attached("others")) && !owned(&controller, &all, &|_| ()));
    }

    #[test]
    fn an_owner_reference_from_another_namespace_means_nothing() {
        let selector = Selector::parse("app=x").unwrap();
        let (owned, none) = ([object("far", "x", Some("p"), false), object("far2", "y", Some("p"), false)], []);
        let claims = claim(&object("p", "x", None, false), &selector, Some("other"), owned.iter(), none.iter());
        assert!(claims.owned.is_empty() && claims.release.is_empty());
        let claims = claim(&object("p", "x", None, false), &selector, None, owned.iter(), none.iter());
        assert_eq!((claims.owned.len(), claims.release.len()), (1, 1));
    }

    #[test]
    fn patches_keep_other_owners_and_lock_the_version() {
        let parent = object("p", "x", None, false);
        let patch = adopt_patch(&parent, &config_maps(), &object("o", "x", None, false), None);
        assert_eq!(patch["metadata"].get("labels"), None);
        let sharded = adopt_patch(&parent, &config_maps(), &object("o", "x", None, false), Some(7));
        assert_eq!(sharded["metadata"]["labels"], json!({ OWNER_LABEL: "7" }));
        assert_eq!(patch["metadata"]["resourceVersion"], "7");
        assert_eq!(patch["metadata"]["uid"], "uid-o");
        assert_eq!(patch["metadata"]["ownerReferences"][0]["uid"], "uid-p");
        assert_eq!(patch["metadata"]["ownerReferences"][0]["controller"], true);
        let patch = release_patch(&parent, &object("c", "y", Some("uid-p"), false));
        let left = patch["metadata"]["ownerReferences"].as_array().unwrap();
        assert_eq!((left.len(), &left[0]["uid"], &left[0]["extra"]), (1, &json!("other"), &json!(1)));
    }
}
