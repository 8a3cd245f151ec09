//! Creates, updates and patches: whoever changes a field becomes its manager.
//!
//! The rules are those of apimachinery v0.36.3 (pkg/util/managedfields/internal: fieldmanager.go, skipnonapplied.go,
//! managedfieldsupdater.go). Never changes the object.

use serde_json::Value;

use super::Error;
use super::fields;
use super::managed::{Entry, Id, Managed, is_of, is_reset};
use super::paths::reconcile;
use super::typed::validate;
use super::write::{Changes, Unsettled, Write, stripped};

/// What a write brings beside its manager.
pub struct Update<'a> {
    /// The object before; for a new one, an empty object of its kind.
    pub old: &'a Value,
    /// The object after, with its defaults but without what the kind does to it.
    pub new: &'a Value,
    /// Whether the object was there.
    pub exists: bool,
    /// `metadata.managedFields` before.
    pub managed: &'a Value,
    /// What the client gave as `metadata.managedFields`; `None` if that is what was there before.
    pub given: Option<&'a Value>,
}

/// What became of `metadata.managedFields`.
#[derive(Debug, PartialEq)]
pub enum Tracked {
    /// Nothing.
    Same,
    /// They are these now; null for none.
    Now(Value),
}

/// Tracks a write that isn't an apply.
#[must_use]
pub fn track(write: &Write<'_>, update: &Update<'_>) -> Tracked {
    // As in the real server, a failure to track is no failure of the write.
    run(write, update).unwrap_or(Tracked::Now(Value::Null))
}

fn run(write: &Write<'_>, update: &Update<'_>) -> Result<Tracked, Error> {
    let given = update.given.filter(|given| write.subresource.is_empty() && !given.is_null());
    let changes = write.changes(update.old, update.new)?;
    if given.is_none() && changes.nothing {
        return Ok(Tracked::Same);
    }
    if given.is_none()
        && let Some(tracked) = again(write, update, &changes)?
    {
        return Ok(tracked);
    }
    let before = || Managed::parse(update.managed).unwrap_or_default();
    let mut managed = match given {
        Some(given) if is_reset(given) => Managed::default(),
        Some(given) => Managed::parse(given).ok().filter(|managed| !managed.0.is_empty()).unwrap_or_else(before),
        None => before(),
    };
    if managed.0.is_empty() && update.exists {
        return Ok(Tracked::Now(Value::Null));
    }
    own(write, (update.old, update.new), &changes, &mut managed, write.manager)?;
    managed.cap();
    Ok(Tracked::Now(managed.write()))
}

/// The short way for most writes: the manager changes what is its own already and nobody else's, so that only the time of
/// its entry may be new. `None` if that isn't so.
fn again(write: &Write<'_>, update: &Update<'_>, changes: &Changes) -> Result<Option<Tracked>, Error> {
    let Some(entries) = update.managed.as_array().filter(|_| changes.removed.is_empty()) else { return Ok(None) };
    let id = write.id(write.manager, false);
    let set = stripped(&changes.set);
    let mut own = None;
    for (index, entry) in entries.iter().enumerate() {
        if entry["apiVersion"] != write.version {
            return Ok(None);
        }
        let owned = fields::parse(&entry["fieldsV1"])?;
        let mine = is_of(entry, &id);
        let fits = if mine { own.is_none() && owned.covers(&set) } else { !owned.meets(&changes.set) };
        if !fits || reconcile(&write.schema, &owned).is_some() {
            return Ok(None);
        }
        if mine {
            own = Some(index);
        }
    }
    let Some(own) = own.filter(|_| !set.is_empty()) else { return Ok(None) };
    // What is stored was checked when it came.
    validate(&write.schema, update.new, true)?;
    if entries[own]["time"] == write.now {
        return Ok(Some(Tracked::Same));
    }
    if entries.len() > 1 {
        // Their order may change.
        return Ok(None);
    }
    let mut managed = update.managed.clone();
    managed[own]["time"] = write.now.into();
    Ok(Some(Tracked::Now(managed)))
}

/// Makes `manager` the manager of what differs.
pub(super) fn add(
    write: &Write<'_>,
    old: &Value,
    new: &Value,
    managed: &mut Managed,
    manager: &str,
) -> Result<(), Error> {
    own(write, (old, new), &write.changes(old, new)?, managed, manager)
}

fn own(
    write: &Write<'_>,
    (old, new): (&Value, &Value),
    changes: &Changes,
    managed: &mut Managed,
    manager: &str,
) -> Result<(), Error> {
    if !changes.nothing {
        validate(&write.schema, new, true)?;
        validate(&write.schema, old, true)?;
    }
    write.reconcile(old, managed)?;
    let id = write.id(manager, false);
    // Its own entry is treated as any other's; what it sets comes back to it.
    let own = managed.0.iter().find(|entry| entry.id == id).cloned();
    // With force there are no conflicts.
    if let Err(Unsettled::Failed(error)) = write.settle(old, new, changes, managed, None, true) {
        return Err(error);
    }
    let set = stripped(&changes.set);
    if !set.is_empty() {
        record(managed, id, own, set, write);
    }
    Ok(())
}

fn record(managed: &mut Managed, id: Id, own: Option<Entry>, set: super::set::Set, write: &Write<'_>) {
    let time = Some(write.now.to_owned());
    let version = write.version.to_owned();
    let Some(left) = managed.get_mut(&id) else {
        let mut entry = Entry { id, version, time, set, fields: None };
        // The same fields as before need not be written anew.
        if let Some(own) = own.filter(|own| own.set == entry.set) {
            entry.fields = own.fields;
        }
        managed.0.push(entry);
        return;
    };
    let all = left.set.union(&set);
    let same = own.filter(|own| own.set == all);
    left.put(all);
    left.fields = same.and_then(|own| own.fields);
    left.time = time;
}
