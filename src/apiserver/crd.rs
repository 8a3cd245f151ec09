//! The life of CRDs: accepted names, conditions, served kinds.
//!
//! Never converts between versions: a CRD with several versions must have the conversion strategy None.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringmaster_core::key::ObjectKey;
use ringmaster_core::object::Object;
use serde_json::{Value, json};

use crate::error::Error;
use crate::field_error::{FieldError, go_quote};
use crate::gc::{Deleted, Work, after_delete, consequences, delete_now, finish_if_free};
use crate::meta::Now;
use crate::ownership::{SERVER, Writer, follow};
use crate::registry::{Definition, Registry, of_crd};
use crate::schema::Schema;
use crate::store::{KindKey, NotStored, Store};

/// Finalizer of a CRD that is deleted until its objects are gone.
const CLEANUP: &str = "customresourcecleanup.apiextensions.k8s.io";
/// Objects of a deleted kind that one step deletes at most; the rest is given back as work.
const DELETIONS_PER_STEP: usize = 256;

/// Accepts a CRD's names if nobody else has them, serves its kinds if so, and says which in its status.
pub(crate) fn establish(
    store: &mut Store,
    registry: &mut Registry,
    definition: &Definition,
    crd: &Arc<Object>,
    now: &Now,
) {
    let mut value = crd.value();
    let (group, plural) = (text(&value["spec"]["group"]), text(&value["spec"]["names"]["plural"]));
    if crd.is_deleting() {
        return;
    }
    let taken = taken_names(store, crd);
    let names = accept(&value, &taken);
    set_condition(&mut value["status"], "NamesAccepted", names.is_accepted(), names.reason, &names.message, now);
    value["status"]["acceptedNames"] = names.names;
    let served = names.reason == NO_CONFLICTS || has_condition(&value, "Established", "True");
    if served {
        let message = "the initial names have been accepted";
        set_condition(&mut value["status"], "Established", true, "InitialNamesAccepted", message, now);
    } else {
        let message = "not all names are accepted";
        set_condition(&mut value["status"], "Established", false, "NotAccepted", message, now);
    }
    let kinds = if served { of_crd(&value, store.revision()) } else { Vec::new() };
    let before = registry.versions(&group, &plural);
    registry.remove(&group, &plural);
    // Each change of a spec ends the watches of all its versions, so that nobody follows one that isn't served any more.
    // (The real server does so for every change; here those of schemas and columns don't.)
    let after = kinds.iter().map(|kind| Arc::clone(&kind.resource)).collect();
    if !before.is_empty() && before != after {
        store.end_watches(&KindKey { group: group.as_str().into(), plural: plural.as_str().into() });
    }
    kinds.into_iter().for_each(|kind| registry.insert(kind));
    if value != crd.value() {
        follow(definition, &Writer { manager: SERVER, subresource: "status", now: &now.time }, crd, &mut value);
        // Nobody else writes between: the lock is held.
        let _ = store.put(&definition.key, &definition.resource, Some(crd), value);
    }
}

const NO_CONFLICTS: &str = "NoConflicts";

/// The names that other CRDs of a group have: of resources, and of kinds.
fn taken_names(store: &Store, crd: &Object) -> [BTreeSet<String>; 2] {
    let group = crd.value()["spec"]["group"].clone();
    let Ok(page) = store.list(&crds(), None, (None, None), None, |other| other.key() != crd.key()) else {
        return Default::default();
    };
    let mut taken: [BTreeSet<String>; 2] = Default::default();
    for other in page.objects.iter().map(|other| other.value()).filter(|other| other["spec"]["group"] == group) {
        let names = &other["status"]["acceptedNames"];
        let short = names["shortNames"].as_array().into_iter().flatten();
        taken[0].extend([&names["plural"], &names["singular"]].into_iter().chain(short).map(text));
        taken[1].extend([&names["kind"], &names["listKind"]].map(text));
    }
    taken
}

/// What a CRD may call its kind.
struct Names {
    names: Value,
    reason: &'static str,
    message: String,
}

impl Names {
    fn is_accepted(&self) -> bool {
        self.reason == NO_CONFLICTS
    }
}

/// Each name is taken over if it is free; of the conflicts the last is told (the naming controller).
fn accept(crd: &Value, [resources, kinds]: &[BTreeSet<String>; 2]) -> Names {
    let (wanted, had) = (&crd["spec"]["names"], &crd["status"]["acceptedNames"]);
    let mut accepted = Names { names: had.clone(), reason: NO_CONFLICTS, message: "no conflicts found".to_owned() };
    let is_used = |name: &Value, had: &Value, taken: &BTreeSet<String>| name != had && taken.contains(&text(name));
    let in_use = |name: &Value| format!("{} is already in use", go_quote(&text(name)));
    for (field, taken, reason) in [
        ("plural", resources, "PluralConflict"),
        ("singular", resources, "SingularConflict"),
        ("shortNames", resources, "ShortNamesConflict"),
        ("kind", kinds, "KindConflict"),
        ("listKind", kinds, "ListKindConflict"),
    ] {
        let message = if let Some(short) = wanted[field].as_array() {
            let had = had[field].as_array().map_or(&[][..], Vec::as_slice);
            let new = short.iter().filter(|name| !had.contains(name) && taken.contains(&text(name)));
            let used: Vec<String> = new.map(in_use).collect();
            match used.as_slice() {
                [] => None,
                [one] => Some(one.clone()),
                many => Some(format!("[{}]", many.join(", "))),
            }
        } else {
            is_used(&wanted[field], &had[field], taken).then(|| in_use(&wanted[field]))
        };
        match message {
            Some(message) => (accepted.reason, accepted.message) = (reason, message),
            None => take_over(&mut accepted.names, field, &wanted[field]),
        }
    }
    take_over(&mut accepted.names, "categories", &wanted["categories"]);
    accepted
}

fn take_over(names: &mut Value, field: &str, value: &Value) {
    if value.is_null() {
        names.as_object_mut().map(|names| names.remove(field));
    } else {
        names[field] = value.clone();
    }
}

fn has_condition(crd: &Value, kind: &str, status: &str) -> bool {
    let conditions = crd["status"]["conditions"].as_array();
    conditions.into_iter().flatten().any(|condition| condition["type"] == kind && condition["status"] == status)
}

fn set_condition(status: &mut Value, kind: &str, holds: bool, reason: &str, message: &str, now: &Now) {
    if !status["conditions"].is_array() {
        status["conditions"] = json!([]);
    }
    let Some(conditions) = status["conditions"].as_array_mut() else { return };
    let mut new = json!({
        "type": kind, "status": if holds { "True" } else { "False" }, "lastTransitionTime": now.time,
        "reason": reason, "message": message,
    });
    match conditions.iter_mut().find(|condition| condition["type"] == kind) {
        Some(old) => {
            if old["status"] == new["status"] {
                new["lastTransitionTime"] = old["lastTransitionTime"].clone();
            }
            *old = new;
        }
        None => conditions.push(new),
    }
}

/// Marks a CRD that is to be deleted: its objects go first.
///
/// # Errors
/// If what is stored isn't `crd`.
pub(crate) fn mark(
    store: &mut Store,
    definition: &Definition,
    crd: &Arc<Object>,
    now: &Now,
) -> Result<Arc<Object>, NotStored> {
    let mut value = crd.value();
    value["metadata"]["deletionTimestamp"] = now.time.as_str().into();
    if !value["metadata"]["finalizers"].is_array() {
        value["metadata"]["finalizers"] = json!([]);
    }
    if let Some(finalizers) =
        value["metadata"]["finalizers"].as_array_mut().filter(|all| !all.contains(&CLEANUP.into()))
    {
        finalizers.push(CLEANUP.into());
    }
    let message = "CustomResourceDefinition marked for deletion; CustomResource deletion will begin soon";
    set_condition(&mut value["status"], "Terminating", true, "InstanceDeletionPending", message, now);
    store.put(&definition.key, &definition.resource, Some(crd), value)
}

/// Deletes the objects of a CRD that is deleted, and the CRD itself once there are none.
pub(crate) fn empty(store: &mut Store, registry: &mut Registry, name: &str, now: &Now) -> Vec<Work> {
    // A race can't be: nobody else writes during a step.
    try_empty(store, registry, name, now).unwrap_or_default()
}

fn try_empty(store: &mut Store, registry: &mut Registry, name: &str, now: &Now) -> Result<Vec<Work>, NotStored> {
    let key = ObjectKey::new("", name);
    let (Some(crd), Some(definition)) = (store.get(&crds(), &key), registry.of(&crds())) else {
        return Ok(Vec::new());
    };
    if !crd.is_deleting() || !crd.finalizers().iter().any(|finalizer| finalizer == CLEANUP) {
        return Ok(Vec::new());
    }
    let again = Work::Definition(name.to_owned());
    let mut value = crd.value();
    let kind = KindKey {
        group: text(&value["spec"]["group"]).as_str().into(),
        plural: text(&value["spec"]["names"]["plural"]).as_str().into(),
    };
    let message = "CustomResource deletion is in progress";
    set_condition(&mut value["status"], "Terminating", true, "InstanceDeletionInProgress", message, now);
    let crd = if value == crd.value() {
        crd
    } else {
        follow(&definition, &Writer { manager: SERVER, subresource: "status", now: &now.time }, &crd, &mut value);
        store.put(&definition.key, &definition.resource, Some(&crd), value)?
    };
    let mut works = Vec::new();
    let mut left = false;
    if let Some(content) = registry.of(&kind) {
        let objects =
            store.list(&kind, None, (None, None), None, |_| true).map(|page| page.objects).unwrap_or_default();
        let mut deletions = 0;
        for object in objects {
            if deletions >= DELETIONS_PER_STEP {
                works.push(again);
                return Ok(works);
            }
            let deleted = delete_now(store, &content, &object, now, None, None)?;
            let follow = after_delete(store, registry, &kind, &object, &deleted);
            works.extend(follow.into_iter().filter(|work| *work != again));
            left |= matches!(deleted, Deleted::Marked(_));
            deletions += usize::from(!object.is_deleting());
        }
    }
    if left {
        return Ok(works);
    }
    let mut value = crd.value();
    if let Some(finalizers) = value["metadata"]["finalizers"].as_array_mut() {
        finalizers.retain(|finalizer| finalizer != CLEANUP);
    }
    let message = "removed all instances";
    set_condition(&mut value["status"], "Terminating", false, "InstanceDeletionCompleted", message, now);
    if finish_if_free(store, &definition, &crd, &value)?.is_some() {
        withdraw(store, registry, &definition, &crd, now);
        works.extend(consequences(store, registry, &definition.key, Some(&crd), None));
    } else {
        store.put(&definition.key, &definition.resource, Some(&crd), value)?;
    }
    Ok(works)
}

/// Whether the kinds of a CRD are served, by its status.
pub(crate) fn is_served(crd: &Value) -> bool {
    has_condition(crd, "Established", "True")
}

/// Whether the CRD of a custom kind is being deleted: then nothing new is made of it.
pub(crate) fn is_ending(store: &Store, kind: &KindKey) -> bool {
    let key = ObjectKey::new("", &format!("{}.{}", kind.plural, kind.group));
    store.get(&crds(), &key).is_some_and(|crd| crd.is_deleting())
}

pub(crate) fn crds() -> KindKey {
    KindKey { group: "apiextensions.k8s.io".into(), plural: "customresourcedefinitions".into() }
}

/// What is wrong with the schemas of a CRD.
///
/// # Errors
/// If it asks for conversion by a webhook, which isn't done here.
pub(crate) fn check(crd: &Value) -> Result<Vec<FieldError>, Error> {
    let spec = &crd["spec"];
    if spec["conversion"]["strategy"] == "Webhook" {
        return Err(Error::not_implemented("conversion between versions by a webhook"));
    }
    let versions = spec["versions"].as_array().map(Vec::as_slice).unwrap_or_default();
    let schema = |version: &Value| version["schema"]["openAPIV3Schema"].clone();
    let one = versions.windows(2).all(|pair| schema(&pair[0]) == schema(&pair[1]));
    let mut errors = Vec::new();
    // A schema that is missing is a fault that was found already.
    let given = versions.iter().enumerate().filter(|(_, version)| !schema(version).is_null());
    for (index, version) in given {
        let path = if one {
            "spec.validation.openAPIV3Schema".to_owned()
        } else {
            format!("spec.versions[{index}].schema.openAPIV3Schema")
        };
        let status = !version["subresources"]["status"].is_null();
        if let Err(faults) = Schema::compile(&schema(version), &path, status) {
            errors.extend(faults);
        }
        if one {
            break;
        }
    }
    Ok(errors)
}

/// Serves the kinds of a CRD that is gone no longer, and lets others have its names.
pub(crate) fn withdraw(store: &mut Store, registry: &mut Registry, definition: &Definition, crd: &Object, now: &Now) {
    let value = crd.value();
    let (group, plural) = (text(&value["spec"]["group"]), text(&value["spec"]["names"]["plural"]));
    if has_condition(&value, "Established", "True") {
        registry.remove(&group, &plural);
        store.drop_kind(&KindKey { group: group.as_str().into(), plural: plural.as_str().into() });
    }
    let others = store.list(&crds(), None, (None, None), None, |other| {
        let other = other.value();
        other["spec"]["group"] == *group && has_condition(&other, "NamesAccepted", "False")
    });
    for other in others.map(|page| page.objects).unwrap_or_default() {
        establish(store, registry, definition, &other, now);
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
