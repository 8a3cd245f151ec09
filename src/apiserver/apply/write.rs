//! A write as the tracking of fields sees it, and what every write does to the entries of other managers.
//!
//! The rules are those of structured-merge-diff v6 (merge/update.go).

use std::sync::LazyLock;

use serde_json::Value;

use super::compare::{Comparison, compare};
use super::managed::{Entry, Id, Managed};
use super::schema::Schema;
use super::set::Set;
use super::step::Step;
use super::typed::validate;
use super::{Error, paths};

/// The versions of a kind.
pub trait Versions {
    /// The schema of a version, by its `apiVersion`; `None` if it isn't served.
    fn schema(&self, version: &str) -> Option<Schema>;

    /// An object in a version that is served.
    fn convert(&self, object: &Value, version: &str) -> Value;
}

/// One write.
pub struct Write<'a> {
    /// The kind's versions.
    pub versions: &'a dyn Versions,
    /// The schema of the version that is written in.
    pub schema: Schema,
    /// The `apiVersion` that is written in.
    pub version: &'a str,
    /// The kind.
    pub kind: &'a str,
    /// The subresource that is written through; empty for none.
    pub subresource: &'a str,
    /// Who writes.
    pub manager: &'a str,
    /// RFC 3339 to the second, in UTC.
    pub now: &'a str,
    /// What the kind never takes from such a write.
    pub reset: Reset,
}

/// Fields that a kind doesn't take from a write, so that they are nobody's (rest.ResetFieldsStrategy).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reset {
    /// All are taken.
    Nothing,
    /// Not the status.
    Status,
    /// Not the spec.
    Spec,
    /// Not spec and labels.
    SpecAndLabels,
    /// Not what a status of a pod leaves as it is.
    PodSpec,
    /// Not spec and metadata.
    SpecAndMetadata,
}

static RESETS: LazyLock<[(Reset, Set); 6]> = LazyLock::new(|| {
    let spec: &[&str] = &["spec"];
    [
        (Reset::Nothing, Set::default()),
        (Reset::Status, Set::of(&[&["status"]])),
        (Reset::Spec, Set::of(&[spec])),
        (Reset::SpecAndLabels, Set::of(&[spec, &["metadata", "labels"]])),
        (Reset::PodSpec, Set::of(&[spec, &["metadata", "deletionTimestamp"], &["metadata", "ownerReferences"]])),
        (Reset::SpecAndMetadata, Set::of(&[spec, &["metadata"]])),
    ]
});

impl Reset {
    pub(super) fn set(self) -> &'static Set {
        let found = RESETS.iter().find(|(reset, _)| *reset == self);
        &found.unwrap_or(&RESETS[0]).1
    }
}

/// What is never tracked (apimachinery's stripMetaManager).
static STRIPPED: LazyLock<Set> = LazyLock::new(|| {
    let names = [
        "name",
        "namespace",
        "creationTimestamp",
        "selfLink",
        "uid",
        "clusterName",
        "generation",
        "managedFields",
        "resourceVersion",
    ];
    let mut set = Set::of(&[&["apiVersion"], &["kind"], &["metadata"]]);
    for name in names {
        set.insert_path(&[&Step::field("metadata"), &Step::field(name)]);
    }
    set
});

/// A set without what is never tracked.
pub(super) fn stripped(set: &Set) -> Set {
    set.difference(&STRIPPED)
}

/// Fields that others manage: by whom, and which.
pub(super) type Conflicts = Vec<(Id, Vec<Vec<Step>>)>;

/// Why a write can't be settled.
pub(super) enum Unsettled {
    Conflicts(Conflicts),
    Failed(Error),
}

impl From<Error> for Unsettled {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl Write<'_> {
    pub(super) fn id(&self, manager: &str, applied: bool) -> Id {
        Id {
            manager: if manager.is_empty() { "unknown".to_owned() } else { manager.to_owned() },
            applied,
            version: if applied { String::new() } else { self.version.to_owned() },
            subresource: self.subresource.to_owned(),
        }
    }

    /// The schema of a version that is served.
    pub(super) fn schema_of(&self, version: &str) -> Option<Schema> {
        if version == self.version { Some(self.schema.clone()) } else { self.versions.schema(version) }
    }

    /// An object of the request's version in another one; `None` if that isn't served.
    fn converted(&self, object: &Value, version: &str) -> Result<Option<(Schema, Value)>, Error> {
        let Some(schema) = self.versions.schema(version) else { return Ok(None) };
        let object = self.versions.convert(object, version);
        validate(&schema, &object, false)?;
        Ok(Some((schema, object)))
    }

    /// Brings entries to the schemas of now; those of versions that are gone are dropped.
    pub(super) fn reconcile(&self, live: &Value, managed: &mut Managed) -> Result<(), Error> {
        let mut kept = Vec::with_capacity(managed.0.len());
        for mut entry in std::mem::take(&mut managed.0) {
            let schema = if entry.version == self.version {
                Some(self.schema.clone())
            } else {
                self.converted(live, &entry.version)?.map(|(schema, _)| schema)
            };
            let Some(schema) = schema else { continue };
            if let Some(set) = paths::reconcile(&schema, &entry.set) {
                entry.put(set);
            }
            kept.push(entry);
        }
        managed.0 = kept;
        Ok(())
    }

    fn compare(&self, old: &Value, new: &Value, version: &str) -> Result<Option<Changes>, Error> {
        let failed = |what: &str| {
            let what = what.to_owned();
            move |error: Error| Error::Unfit(format!("failed to {what}: {error}"))
        };
        let comparison = if version == self.version {
            compare(&self.schema, old, new)
        } else {
            let old = self.converted(old, version).map_err(failed("convert old object"))?;
            let new = self.converted(new, version).map_err(failed("convert new object"))?;
            let (Some((schema, old)), Some((_, new))) = (old, new) else { return Ok(None) };
            compare(&schema, &old, &new)
        };
        let comparison = comparison.map_err(failed("compare objects"))?;
        let nothing = comparison.is_empty();
        let Comparison { removed, modified, added } = comparison.without(self.reset.set());
        Ok(Some(Changes { nothing, removed, set: modified.or(added) }))
    }

    /// What a write changes, in the request's version.
    pub(super) fn changes(&self, old: &Value, new: &Value) -> Result<Changes, Error> {
        Ok(self.compare(old, new, self.version)?.unwrap_or_default())
    }

    /// Takes from all but `own` what the write sets or removes; without `force` it is a conflict if it sets something of
    /// theirs.
    pub(super) fn settle(
        &self,
        old: &Value,
        new: &Value,
        changes: &Changes,
        managed: &mut Managed,
        own: Option<&Id>,
        force: bool,
    ) -> Result<(), Unsettled> {
        let mut others: Vec<(String, Option<Changes>)> = Vec::new();
        let foreign = managed.0.iter().filter(|entry| Some(&entry.id) != own && entry.version != self.version);
        for version in foreign.map(|entry| entry.version.clone()) {
            if !others.iter().any(|(known, _)| *known == version) {
                let changes = self.compare(old, new, &version)?;
                others.push((version, changes));
            }
        }
        let of = |entry: &Entry| {
            if entry.version == self.version {
                return Some(changes);
            }
            others.iter().find(|(version, _)| *version == entry.version).and_then(|(_, changes)| changes.as_ref())
        };
        if !force {
            let mut conflicts: Conflicts = Vec::new();
            for entry in managed.0.iter().filter(|entry| Some(&entry.id) != own) {
                let taken = of(entry).map(|changes| entry.set.intersection(&changes.set)).unwrap_or_default();
                if !taken.is_empty() {
                    conflicts.push((entry.id.clone(), taken.paths()));
                }
            }
            if !conflicts.is_empty() {
                conflicts.sort_by_cached_key(|(id, _)| id.text());
                return Err(Unsettled::Conflicts(conflicts));
            }
        }
        managed.0.retain_mut(|entry| {
            if Some(&entry.id) != own {
                let Some(changes) = of(entry) else { return false };
                if entry.set.meets(&changes.set) {
                    let left = entry.set.difference(&changes.set);
                    entry.put(left);
                }
                if entry.set.meets(&changes.removed) {
                    let left = entry.set.difference(&changes.removed);
                    entry.put(left);
                }
            }
            !entry.set.is_empty()
        });
        Ok(())
    }
}

/// What a write changes.
#[derive(Default)]
pub(super) struct Changes {
    /// Whether the objects are the same, what the kind doesn't take included.
    pub nothing: bool,
    /// Fields that it removes.
    pub removed: Set,
    /// Fields that it sets.
    pub set: Set,
}
