//! What follows from a change: objects whose owners are gone are deleted, namespaces are emptied.
//!
//! The rules are those of the garbage collector and the namespace controller of Kubernetes 1.36, as steps over the
//! store. Never waits and never keeps a queue of its own: what a step leaves to do, it gives back.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use ringmaster_core::key::{ObjectKey, Uid};
use ringmaster_core::object::{Object, OwnerReference};
use serde_json::Value;

use crate::crd;
use crate::grace::{self, Grace};
use crate::meta::Now;
use crate::ownership::{CONTROLLERS, Writer, follow};
use crate::registry::{Definition, Registry};
use crate::server::NAMESPACES;
use crate::store::{KindKey, NotStored, Store};
use crate::terminating::set_conditions;

/// Finalizer of an object that waits until the dependents that block it are deleted.
pub const FOREGROUND: &str = "foregroundDeletion";
/// Finalizer of an object that waits until its dependents have forgotten it.
pub const ORPHAN: &str = "orphan";
/// Entry of a namespace's `spec.finalizers` that stands for its content.
const CONTENT: &str = "kubernetes";
/// Writes to content or dependents that one step makes at most; the rest is given back as work.
const WRITES_PER_STEP: usize = 256;

/// What is left to look at. Doing it twice, or late, does no harm.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Work {
    /// The object with this uid is gone.
    OwnerGone(Uid),
    /// An object was made or changed, and it has owners.
    Check(KindKey, ObjectKey),
    /// The object names an owner with this uid, which is gone, whether its kind is still served or not.
    Orphaned(KindKey, ObjectKey, Uid),
    /// An object got a `deletionTimestamp` with [`FOREGROUND`] or [`ORPHAN`], or nothing blocks it any longer.
    Deleting(KindKey, ObjectKey),
    /// A terminating namespace to empty.
    Namespace(String),
    /// A CRD that is deleted, whose objects go first.
    Definition(String),
}

/// What became of an object that was to be deleted.
#[derive(Clone, Debug)]
pub enum Deleted {
    /// It is gone; its last state at the deletion's revision.
    Gone(Arc<Object>),
    /// It waits for its finalizers; its state now. Nothing was written if it already waited for the same ones.
    Marked(Arc<Object>),
}

/// Deletes an object, or marks it if it has finalizers. `extra_finalizer` ([`FOREGROUND`] or [`ORPHAN`]) takes the place
/// of either that is there; `None` leaves them as they are, which is a DELETE without `propagationPolicy`. `grace` is
/// `gracePeriodSeconds`, which only pods have.
///
/// # Errors
/// If what is stored isn't `object`.
pub fn delete_now(
    store: &mut Store,
    definition: &Definition,
    object: &Arc<Object>,
    now: &Now,
    extra_finalizer: Option<&str>,
    grace: Option<i64>,
) -> Result<Deleted, NotStored> {
    let mut finalizers = finalizers(object);
    if let Some(extra) = extra_finalizer {
        finalizers.retain(|finalizer| finalizer == extra || !matches!(finalizer.as_str(), FOREGROUND | ORPHAN));
        if !finalizers.iter().any(|finalizer| finalizer == extra) {
            finalizers.push(extra.to_owned());
        }
    }
    delete(store, definition, object, now, finalizers, grace)
}

/// As [`delete_now`], but without [`FOREGROUND`] and [`ORPHAN`]: `propagationPolicy: Background`.
///
/// # Errors
/// If what is stored isn't `object`.
pub fn delete_in_background(
    store: &mut Store,
    definition: &Definition,
    object: &Arc<Object>,
    now: &Now,
    grace: Option<i64>,
) -> Result<Deleted, NotStored> {
    let mut finalizers = finalizers(object);
    finalizers.retain(|finalizer| !matches!(finalizer.as_str(), FOREGROUND | ORPHAN));
    delete(store, definition, object, now, finalizers, grace)
}

/// For an update of `seen` to `value`: removes the object if it was being deleted and `value` has no finalizer left.
/// Then the update itself must not be written: the watch shows `seen` with the deletion's revision, and the answer to
/// the update is `value` with the version of `seen` (measured). `None` if the update is to be written.
///
/// # Errors
/// If what is stored isn't `seen`.
pub fn finish_if_free(
    store: &mut Store,
    definition: &Definition,
    seen: &Arc<Object>,
    value: &Value,
) -> Result<Option<Arc<Object>>, NotStored> {
    let none = |list: &Value| list.as_array().is_none_or(Vec::is_empty);
    let metadata = &value["metadata"];
    let graceful = metadata["deletionGracePeriodSeconds"].as_i64().is_some_and(|seconds| seconds != 0);
    let held = is_namespaces(&definition.key) && !none(&value["spec"]["finalizers"]);
    if !seen.is_deleting() || graceful || held || !none(&metadata["finalizers"]) {
        return Ok(None);
    }
    store.remove(&definition.key, &definition.resource, seen).map(Some)
}

/// The work that a committed change leads to; `new` is `None` if the object is gone.
#[must_use]
pub fn consequences(
    store: &Store,
    registry: &Registry,
    kind: &KindKey,
    old: Option<&Object>,
    new: Option<&Object>,
) -> Vec<Work> {
    let Some(object) = new.or(old) else { return Vec::new() };
    let mut works = Vec::new();
    let references = |object: Option<&Object>| object.map(raw_references).unwrap_or_default();
    let (before, after) = (references(old), references(new));
    if let Some(new) = new {
        if is_namespaces(kind) && new.is_deleting() {
            works.push(Work::Namespace(new.key().name().to_owned()));
        }
        if *kind == crd::crds() && new.is_deleting() {
            works.push(Work::Definition(new.key().name().to_owned()));
        }
        let waits = |object: &Object, finalizer| object.is_deleting() && has(object, finalizer);
        if [FOREGROUND, ORPHAN].iter().any(|f| waits(new, f) && !old.is_some_and(|old| waits(old, f))) {
            works.push(Work::Deleting(kind.clone(), new.key().clone()));
        }
        if !after.is_empty() && before != after {
            works.push(Work::Check(kind.clone(), new.key().clone()));
        }
    } else {
        if !store.owned_by(object.uid()).is_empty() {
            works.push(Work::OwnerGone(object.uid().clone()));
        }
        if crd::is_ending(store, kind) {
            works.push(Work::Definition(format!("{}.{}", kind.plural, kind.group)));
        }
        let namespace = object.key().namespace();
        if !namespace.is_empty()
            && store.get(&NAMESPACES, &ObjectKey::new("", namespace)).is_some_and(|namespace| namespace.is_deleting())
        {
            works.push(Work::Namespace(namespace.to_owned()));
        }
    }
    // An owner that waited for this one may be free now.
    if before != after {
        for reference in old.map(Object::owner_references).unwrap_or_default() {
            if let Owner::Waiting(key, owner) = find_owner(store, registry, object.key(), &reference)
                && !is_blocked(store, &owner)
            {
                works.push(Work::Deleting(key, owner.key().clone()));
            }
        }
    }
    works
}

/// Does one piece of work: all writes that follow from it at once, or the first 256 of them. Gives back
/// what is then left to do; empty in the end, whatever the references look like.
pub fn step(store: &mut Store, registry: &mut Registry, work: Work, now: &Now) -> Vec<Work> {
    // A race can't be: nobody else writes during a step. What the store refuses for its shape stays as it is.
    let done = match work {
        Work::OwnerGone(uid) => {
            let orphaned = |(kind, key)| Work::Orphaned(kind, key, uid.clone());
            Ok(dependents(store, &uid).into_iter().map(orphaned).collect())
        }
        Work::Check(kind, key) => check(store, registry, &kind, &key, None, now),
        Work::Orphaned(kind, key, gone) => check(store, registry, &kind, &key, Some(&gone), now),
        Work::Deleting(kind, key) => deleting(store, registry, &kind, &key, now),
        Work::Namespace(name) => empty(store, registry, &name, now),
        Work::Definition(name) => Ok(crd::empty(store, registry, &name, now)),
    };
    done.unwrap_or_default()
}

/// An owner as a reference leads to it.
enum Owner {
    /// Nobody can say: its kind isn't served, or it can't be an owner here. Such a dependent is left alone.
    Unknown,
    Absent,
    Solid,
    /// It is being deleted in the foreground.
    Waiting(KindKey, Arc<Object>),
}

fn find_owner(store: &Store, registry: &Registry, dependent: &ObjectKey, reference: &OwnerReference) -> Owner {
    let named = |definition: &&Arc<Definition>| {
        definition.resource.api_version.as_str() == reference.api_version && *definition.resource.kind == reference.kind
    };
    let Some(definition) = registry.iter().find(named) else { return Owner::Unknown };
    let namespaced = definition.resource.namespaced;
    if namespaced && dependent.namespace().is_empty() {
        return Owner::Unknown;
    }
    let key = ObjectKey::new(if namespaced { dependent.namespace() } else { "" }, &reference.name);
    match store.get(&definition.key, &key).filter(|owner| *owner.uid() == reference.uid) {
        None => Owner::Absent,
        Some(owner) if owner.is_deleting() && has(&owner, FOREGROUND) => Owner::Waiting(definition.key.clone(), owner),
        Some(_) => Owner::Solid,
    }
}

/// attemptToDeleteItem of the garbage collector; `gone` is the uid of an owner that was seen to go (absentOwnerCache).
fn check(
    store: &mut Store,
    registry: &Registry,
    kind: &KindKey,
    key: &ObjectKey,
    gone: Option<&Uid>,
    now: &Now,
) -> Result<Vec<Work>, NotStored> {
    let (Some(mut object), Some(definition)) = (store.get(kind, key), registry.of(kind)) else {
        return Ok(Vec::new());
    };
    if object.is_deleting() {
        return if has(&object, FOREGROUND) { deleting(store, registry, kind, key, now) } else { Ok(Vec::new()) };
    }
    let references = object.owner_references();
    let (mut solid, mut waiting, mut superfluous) = (false, false, Vec::new());
    for reference in &references {
        let owner =
            if gone == Some(&reference.uid) { Owner::Absent } else { find_owner(store, registry, key, reference) };
        match owner {
            Owner::Unknown => return Ok(Vec::new()),
            Owner::Solid => solid = true,
            Owner::Absent => superfluous.push(reference.uid.clone()),
            Owner::Waiting(..) => {
                waiting = true;
                superfluous.push(reference.uid.clone());
            }
        }
    }
    if references.is_empty() || (solid && superfluous.is_empty()) {
        return Ok(Vec::new());
    }
    if solid {
        let value = without_owners(&object, &superfluous);
        return update(store, registry, &definition, &object, (value, ""), now);
    }
    let own = dependents(store, object.uid());
    if !waiting || own.is_empty() {
        let deleted = delete_now(store, &definition, &object, now, None, None)?;
        return Ok(after_delete(store, registry, kind, &object, &deleted));
    }
    // Owners that wait for each other would wait forever: the reference stops blocking.
    let in_circle = own.iter().filter_map(|(kind, key)| store.get(kind, key));
    if in_circle.into_iter().any(|dependent| dependent.is_deleting() && has(&dependent, FOREGROUND)) {
        let mut value = object.value();
        for reference in value["metadata"]["ownerReferences"].as_array_mut().into_iter().flatten() {
            if reference["blockOwnerDeletion"] == true {
                reference["blockOwnerDeletion"] = false.into();
            }
        }
        if value != object.value() {
            let old = Arc::clone(&object);
            follow(&definition, &controller("", now), &old, &mut value);
            object = store.put(kind, &definition.resource, Some(&object), value)?;
            let mut works = consequences(store, registry, kind, Some(&old), Some(&object));
            // It is deleted at once, so there is nothing more to check in it.
            works.retain(|work| !matches!(work, Work::Check(..)));
            let deleted = delete_now(store, &definition, &object, now, Some(FOREGROUND), None)?;
            works.extend(after_delete(store, registry, kind, &object, &deleted));
            return Ok(works);
        }
    }
    let deleted = delete_now(store, &definition, &object, now, Some(FOREGROUND), None)?;
    Ok(after_delete(store, registry, kind, &object, &deleted))
}

/// processDeletingDependentsItem and attemptToOrphan of the garbage collector.
fn deleting(
    store: &mut Store,
    registry: &Registry,
    kind: &KindKey,
    key: &ObjectKey,
    now: &Now,
) -> Result<Vec<Work>, NotStored> {
    let (Some(object), Some(definition)) = (store.get(kind, key), registry.of(kind)) else {
        return Ok(Vec::new());
    };
    if !object.is_deleting() {
        return Ok(Vec::new());
    }
    let own = dependents(store, object.uid());
    let mut works = Vec::new();
    if has(&object, ORPHAN) {
        // What can't be written must not be waited for.
        let mut own: Vec<_> = own.into_iter().filter_map(|(kind, key)| Some((registry.of(&kind)?, key))).collect();
        own.retain(|(definition, key)| store.get(&definition.key, key).is_some());
        let more = own.len() > WRITES_PER_STEP;
        for (definition, key) in own.into_iter().take(WRITES_PER_STEP) {
            let Some(dependent) = store.get(&definition.key, &key) else { continue };
            let value = without_owners(&dependent, std::slice::from_ref(object.uid()));
            works.extend(update(store, registry, &definition, &dependent, (value, ""), now)?);
        }
        if more {
            works.push(Work::Deleting(kind.clone(), key.clone()));
            return Ok(works);
        }
        // The object may be its own dependent, and then it was just written.
        let Some(object) = store.get(kind, key) else { return Ok(works) };
        let value = without_finalizer(&object, ORPHAN);
        works.extend(update(store, registry, &definition, &object, (value, ""), now)?);
    } else if has(&object, FOREGROUND) {
        if is_blocked(store, &object) {
            let open = |(kind, key): &(KindKey, ObjectKey)| store.get(kind, key).is_some_and(|o| !o.is_deleting());
            works.extend(own.into_iter().filter(open).map(|(kind, key)| Work::Check(kind, key)));
        } else {
            let value = without_finalizer(&object, FOREGROUND);
            works.extend(update(store, registry, &definition, &object, (value, ""), now)?);
        }
    }
    Ok(works)
}

/// The namespace controller: deletes what is in a namespace, says what remains, lets the namespace go.
fn empty(store: &mut Store, registry: &Registry, name: &str, now: &Now) -> Result<Vec<Work>, NotStored> {
    let key = ObjectKey::new("", name);
    let (Some(namespace), Some(definition)) = (store.get(&NAMESPACES, &key), registry.of(&NAMESPACES)) else {
        return Ok(Vec::new());
    };
    let holds = namespace.value()["spec"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
    if !namespace.is_deleting() || !holds {
        return Ok(Vec::new());
    }
    let mut works = Vec::new();
    let mut kinds: Vec<KindKey> = store.kinds().filter(|(_, count)| *count > 0).map(|(kind, _)| kind.clone()).collect();
    // Pods first (KEP-5080); nothing else goes while one is left.
    kinds.sort_by_key(|kind| (!is_pods(kind), kind.clone()));
    let (mut remaining, mut finalizers_left) = (BTreeMap::<String, usize>::new(), BTreeMap::<String, usize>::new());
    let (mut writes, mut left) = (0, false);
    for kind in kinds {
        let Some(content) = registry.of(&kind).filter(|definition| definition.resource.namespaced) else { continue };
        let Ok(page) = store.list(&kind, Some(name), (None, None), None, |_| true) else { continue };
        let mut count = 0;
        for object in page.objects {
            if writes >= WRITES_PER_STEP {
                works.push(Work::Namespace(name.to_owned()));
                return Ok(works);
            }
            let deleted = delete_in_background(store, &content, &object, now, None)?;
            let follow = after_delete(store, registry, &kind, &object, &deleted);
            works.extend(follow.into_iter().filter(|work| *work != Work::Namespace(name.to_owned())));
            let changed = !matches!(&deleted, Deleted::Marked(marked) if Arc::ptr_eq(marked, &object));
            writes += usize::from(changed);
            if let Deleted::Marked(marked) = deleted {
                count += 1;
                for finalizer in finalizers(&marked) {
                    *finalizers_left.entry(finalizer).or_default() += 1;
                }
            }
        }
        left |= count > 0;
        if count > 0 && is_pods(&kind) {
            // The real one leaves its totals out here.
            finalizers_left.clear();
            break;
        }
        if count > 0 {
            remaining.insert(format!("{}.{}", kind.plural, kind.group), count);
        }
    }
    let mut value = namespace.value();
    value["status"]["phase"] = "Terminating".into();
    set_conditions(&mut value["status"], &remaining, &finalizers_left, now);
    let mut namespace = namespace;
    if value != namespace.value() {
        follow(&definition, &controller("status", now), &namespace, &mut value);
        namespace = store.put(&NAMESPACES, &definition.resource, Some(&namespace), value)?;
    }
    if !left {
        let mut value = namespace.value();
        if let Some(finalizers) = value["spec"]["finalizers"].as_array_mut() {
            finalizers.retain(|finalizer| finalizer != CONTENT);
        }
        if value["spec"]["finalizers"].as_array().is_some_and(Vec::is_empty)
            && let Some(spec) = value["spec"].as_object_mut()
        {
            spec.remove("finalizers");
        }
        let follow = update(store, registry, &definition, &namespace, (value, "finalize"), now)?;
        works.extend(follow.into_iter().filter(|work| *work != Work::Namespace(name.to_owned())));
    }
    Ok(works)
}

/// Deletes with exactly these finalizers (registry.Store.Delete, and the namespace registry's own).
fn delete(
    store: &mut Store,
    definition: &Definition,
    object: &Arc<Object>,
    now: &Now,
    finalizers: Vec<String>,
    grace: Option<i64>,
) -> Result<Deleted, NotStored> {
    let stored = store.get(&definition.key, object.key());
    if !stored.is_some_and(|stored| stored.uid() == object.uid() && stored.version() == object.version()) {
        return Err(NotStored::Raced);
    }
    let mut value = object.value();
    if is_pods(&definition.key) {
        match grace::decide(value.clone(), grace, &now.time) {
            Grace::None => {}
            Grace::Pending => return Ok(Deleted::Marked(Arc::clone(object))),
            Grace::Marked { mut pod, period } => {
                let held = !finalizers.is_empty();
                set_or_remove(&mut pod, "finalizers", finalizers.into_iter().map(Value::from).collect());
                let marked = store.put(&definition.key, &definition.resource, Some(object), pod)?;
                if held || period > 0 {
                    return Ok(Deleted::Marked(marked));
                }
                return store.remove(&definition.key, &definition.resource, &marked).map(Deleted::Gone);
            }
        }
    }
    let namespace = is_namespaces(&definition.key);
    let held = value["spec"]["finalizers"].as_array().is_some_and(|all| !all.is_empty());
    if namespace && object.is_deleting() && held {
        return Ok(Deleted::Marked(Arc::clone(object)));
    }
    // A namespace is only marked at first, even if nothing holds it.
    let first = namespace && !object.is_deleting();
    if finalizers.is_empty() && !first {
        return store.remove(&definition.key, &definition.resource, object).map(Deleted::Gone);
    }
    set_or_remove(&mut value, "finalizers", finalizers.into_iter().map(Value::from).collect());
    if !object.is_deleting() {
        value["metadata"]["deletionTimestamp"] = now.time.as_str().into();
        if object.generation() > 0 {
            value["metadata"]["generation"] = (object.generation() + 1).into();
        }
    }
    if first {
        value["status"]["phase"] = "Terminating".into();
    } else {
        value["metadata"]["deletionGracePeriodSeconds"] = 0.into();
    }
    if value == object.value() {
        return Ok(Deleted::Marked(Arc::clone(object)));
    }
    store.put(&definition.key, &definition.resource, Some(object), value).map(Deleted::Marked)
}

/// What follows from a deletion of `old`.
pub(crate) fn after_delete(
    store: &Store,
    registry: &Registry,
    kind: &KindKey,
    old: &Arc<Object>,
    deleted: &Deleted,
) -> Vec<Work> {
    match deleted {
        Deleted::Gone(_) => consequences(store, registry, kind, Some(old), None),
        Deleted::Marked(new) if Arc::ptr_eq(old, new) => Vec::new(),
        Deleted::Marked(new) => consequences(store, registry, kind, Some(old), Some(new)),
    }
}

/// As whom the garbage collector and the namespace controller write.
fn controller<'a>(subresource: &'a str, now: &'a Now) -> Writer<'a> {
    Writer { manager: CONTROLLERS, subresource, now: &now.time }
}

/// Writes `value`, through a subresource if one is named, in place of `old`; or removes what is free by that.
fn update(
    store: &mut Store,
    registry: &Registry,
    definition: &Definition,
    old: &Arc<Object>,
    (mut value, subresource): (Value, &str),
    now: &Now,
) -> Result<Vec<Work>, NotStored> {
    if value == old.value() {
        return Ok(Vec::new());
    }
    follow(definition, &controller(subresource, now), old, &mut value);
    if finish_if_free(store, definition, old, &value)?.is_some() {
        return Ok(consequences(store, registry, &definition.key, Some(old), None));
    }
    let new = store.put(&definition.key, &definition.resource, Some(old), value)?;
    Ok(consequences(store, registry, &definition.key, Some(old), Some(&new)))
}

/// Each object that names this uid among its owners, once.
fn dependents(store: &Store, uid: &Uid) -> BTreeSet<(KindKey, ObjectKey)> {
    store.owned_by(uid).into_iter().collect()
}

/// Whether a dependent says that this owner must not go before it.
fn is_blocked(store: &Store, owner: &Object) -> bool {
    let blocks = |reference: &Value| {
        reference["blockOwnerDeletion"] == true && reference["uid"].as_str().map(Uid::new).as_ref() == Some(owner.uid())
    };
    let mut own = store.owned_by(owner.uid()).into_iter().filter_map(|(kind, key)| store.get(&kind, &key));
    own.any(|dependent| raw_references(&dependent).iter().any(blocks))
}

fn raw_references(object: &Object) -> Vec<Value> {
    if object.owner_references().is_empty() {
        return Vec::new();
    }
    object.value()["metadata"]["ownerReferences"].as_array().cloned().unwrap_or_default()
}

fn without_owners(object: &Object, owners: &[Uid]) -> Value {
    let mut value = object.value();
    let gone = |reference: &Value| reference["uid"].as_str().is_some_and(|uid| owners.contains(&Uid::new(uid)));
    let kept = raw_references(object).into_iter().filter(|reference| !gone(reference)).collect();
    set_or_remove(&mut value, "ownerReferences", kept);
    value
}

fn without_finalizer(object: &Object, finalizer: &str) -> Value {
    let mut value = object.value();
    let kept = finalizers(object).into_iter().filter(|other| other != finalizer).map(Value::from).collect();
    set_or_remove(&mut value, "finalizers", kept);
    value
}

/// An empty list isn't kept, as with Go's `omitempty`.
fn set_or_remove(value: &mut Value, field: &str, list: Vec<Value>) {
    let Some(metadata) = value["metadata"].as_object_mut() else { return };
    if list.is_empty() {
        metadata.remove(field);
    } else {
        metadata.insert(field.to_owned(), list.into());
    }
}

fn finalizers(object: &Object) -> Vec<String> {
    object.finalizers().into_iter().map(std::borrow::Cow::into_owned).collect()
}

fn has(object: &Object, finalizer: &str) -> bool {
    object.finalizers().iter().any(|other| other == finalizer)
}

fn is_namespaces(kind: &KindKey) -> bool {
    *kind == *NAMESPACES
}

fn is_pods(kind: &KindKey) -> bool {
    kind.group.is_empty() && &*kind.plural == "pods"
}

#[cfg(test)]
#[path = "gc_tests.rs"]
mod tests;
