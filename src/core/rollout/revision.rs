//! One revision: a state of a parent and the children that follow it, and how it is written as a `ControllerRevision`.
//!
//! Reads what Metacontroller wrote, and writes what it would read: the fields are those of its contract, in both groups.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};
use sha1::{Digest as _, Sha1};

use super::fields::{restore, select};
use super::step::Input;
use crate::controller::Controller;
use crate::dialect::Dialect;
use crate::key::{ApiVersion, ObjectKey, Resource};
use crate::object::{self, Object};
use crate::plan::composite::MAX_NAME_BYTES;
use crate::plan::{CONTROLLER_UID_LABEL, controller_reference};
use crate::selector::Labels as _;
use crate::shards::{LABEL_PREFIX, OWNER_LABEL};

/// The plural name of revisions, in each dialect's group.
pub const PLURAL: &str = "controllerrevisions";

/// A label's value is at most this long (Kubernetes: IsValidLabelValue).
const MAX_LABEL_BYTES: usize = 63;

/// A child of a parent, whatever the version of its kind.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChildId {
    /// Its API group, empty for the core group.
    pub group: Arc<str>,
    /// Its kind.
    pub kind: Arc<str>,
    /// Its namespace and name.
    pub key: ObjectKey,
}

impl ChildId {
    /// The child of this kind and key.
    #[must_use]
    pub(super) fn new(resource: &Resource, key: &ObjectKey) -> Self {
        Self { group: resource.api_version.group().into(), kind: Arc::clone(&resource.kind), key: key.clone() }
    }
}

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.kind, self.key)
    }
}

/// One state of a parent, and the children that follow it.
#[derive(Clone, Debug)]
pub struct Revision {
    /// The object that it is kept in; `None` where it is to be made.
    pub object: Option<Arc<Object>>,
    /// The fields of the parent, as they were.
    pub patch: Value,
    /// The children that follow it. Its object may name others, which follow another by now.
    pub children: BTreeSet<ChildId>,
}

impl Revision {
    /// The revision that an object keeps; `None` for its state where none can be read.
    pub(super) fn read(controller: &Controller, home: &str, object: &Arc<Object>) -> (Option<Value>, Self) {
        let patch = object.section::<Value>("parentPatch").filter(Value::is_object);
        // By today's paths, so that another choice of them isn't taken for another state.
        let patch = patch.map(|patch| select(&patch, &controller.parent.revision_fields));
        let revision = Self {
            object: Some(Arc::clone(object)),
            patch: patch.clone().unwrap_or_default(),
            children: children_of(object, home),
        };
        (patch, revision)
    }

    /// Its name, for people.
    #[must_use]
    pub(super) fn name(&self, controller: &Controller, parent: &Object) -> String {
        self.object
            .as_ref()
            .map_or_else(|| name(controller, parent, &self.patch), |object| object.key().name().to_owned())
    }
}

/// Group and version of a dialect's revisions.
#[must_use]
pub fn revision_api_version(dialect: &Dialect) -> ApiVersion {
    ApiVersion::new(&format!("{}/v1alpha1", dialect.group))
}

/// Whether a revision without an owner was one of a parent of this controller, as its labels say: only then it may be
/// adopted, as other kinds of parents may have equal labels.
#[must_use]
pub fn is_of(controller: &Controller, revision: &Object) -> bool {
    let (labels, wanted) = (revision.labels(), kind_labels(controller));
    wanted.into_iter().all(|(name, value)| labels.get(name) == Some(value))
}

/// Whether a revision of a parent still keeps the state that its name was made of, by the fields that are kept today.
#[must_use]
pub fn is_intact(controller: &Controller, parent: &Object, revision: &Object) -> bool {
    let patch = revision.section::<Value>("parentPatch").filter(Value::is_object);
    let patch = patch.map(|patch| select(&patch, &controller.parent.revision_fields));
    patch.is_some_and(|patch| name(controller, parent, &patch) == revision.key().name())
}

/// The parent as it was in a revision.
///
/// # Errors
/// If the parent can't be a tree, such as with more levels than `serde_json` takes.
pub fn parent_of(
    controller: &Controller,
    resource: &Resource,
    parent: &Object,
    revision: &Revision,
) -> Result<Object, object::Error> {
    let mut tree = parent.value();
    restore(&mut tree, &revision.patch, &controller.parent.revision_fields);
    Object::of(&tree, resource)
}

/// The children that an object names. Under a namespaced parent they are named bare, under a cluster-scoped one by
/// namespace and name; both forms are read under both. An entry that isn't one, which only the other group's kind lets pass,
/// says nothing of the rest.
pub(super) fn children_of(object: &Object, home: &str) -> BTreeSet<ChildId> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Kind {
        #[serde(default)]
        api_group: Option<String>,
        kind: String,
        #[serde(default)]
        names: Option<Vec<Value>>,
    }
    let kinds: Option<Vec<Value>> = object.section("children");
    let kinds = kinds.unwrap_or_default().into_iter().filter_map(|kind| serde_json::from_value(kind).ok());
    let mut children = BTreeSet::new();
    for Kind { api_group, kind, names } in kinds {
        let (group, kind): (Arc<str>, Arc<str>) = (api_group.unwrap_or_default().into(), kind.into());
        for name in names.iter().flatten().filter_map(Value::as_str) {
            let (namespace, name) = name.split_once('/').unwrap_or((home, name));
            let key = ObjectKey::new(namespace, name);
            children.insert(ChildId { group: Arc::clone(&group), kind: Arc::clone(&kind), key });
        }
    }
    children
}

/// The children as an object names them, sorted.
fn children_field(home: &str, children: &BTreeSet<ChildId>) -> Value {
    let mut kinds: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for child in children {
        let name = if home.is_empty() { child.key.as_str() } else { child.key.name() };
        kinds.entry((&*child.group, &*child.kind)).or_default().push(name);
    }
    let kind =
        |((group, kind), names): ((&str, &str), Vec<&str>)| json!({"apiGroup": group, "kind": kind, "names": names});
    kinds.into_iter().map(kind).collect()
}

/// The name of a state's revision: equal states of one parent have equal names, so none is ever made twice.
pub(super) fn name(controller: &Controller, parent: &Object, patch: &Value) -> String {
    let rule = &controller.parent;
    let group = match rule.api_version.group() {
        "" => "core",
        group => group,
    };
    let digest = Sha1::new().chain_update(parent.uid().to_string()).chain_update(patch.to_string()).finalize();
    let hash: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
    // The hash must stay whole.
    let room = MAX_NAME_BYTES - 1 - hash.len();
    let start: String = format!("{}.{group}", rule.resource).chars().take(room).collect();
    format!("{}-{hash}", start.trim_end_matches(['.', '-']))
}

/// The labels that name the kind of its parent. A group that can't be a label's value is left out.
fn kind_labels(controller: &Controller) -> Vec<(&'static str, &str)> {
    let [group, resource] = controller.dialect.revision_labels;
    let rule = &controller.parent;
    let labels = [(group, rule.api_version.group()), (resource, &*rule.resource)];
    labels.into_iter().filter(|(_, value)| value.len() <= MAX_LABEL_BYTES).collect()
}

/// The labels of all revisions of a controller's parents, as a selector in its query form.
#[must_use]
pub fn kind_selector(controller: &Controller) -> String {
    let labels: Vec<String> = kind_labels(controller).iter().map(|(name, value)| format!("{name}={value}")).collect();
    labels.join(",")
}

/// A revision that isn't there yet, as JSON. Its labels match the parent's selector where those of the parent's template
/// do.
pub(super) fn create_body(input: &Input<'_>, name: &str, patch: &Value, children: &BTreeSet<ChildId>) -> Vec<u8> {
    let (controller, parent) = (input.controller, input.parent);
    let mut labels = Map::new();
    if controller.generate_selector {
        labels.insert(CONTROLLER_UID_LABEL.to_owned(), parent.uid().to_string().into());
    } else if let Some(spec) = parent.section::<Value>("spec") {
        let template = spec.pointer("/template/metadata/labels").and_then(Value::as_object);
        let own = template.into_iter().flatten().filter(|(name, value)| {
            // What a webhook may not set, its parents may not either.
            value.is_string() && !name.starts_with(LABEL_PREFIX)
        });
        labels.extend(own.map(|(name, value)| (name.clone(), value.clone())));
    }
    for (name, value) in kind_labels(controller) {
        labels.insert(name.to_owned(), value.into());
    }
    if let Some(shard) = input.shard {
        labels.insert(OWNER_LABEL.to_owned(), shard.to_string().into());
    }
    let body = json!({
        "apiVersion": revision_api_version(controller.dialect).as_str(),
        "kind": "ControllerRevision",
        "metadata": {
            "name": name,
            "namespace": input.namespace,
            "labels": labels,
            "ownerReferences": [controller_reference(parent, input.resource)],
        },
        "parentPatch": patch,
        "children": children_field(parent.key().namespace(), children),
    });
    body.to_string().into_bytes()
}

/// A revision with other children, as JSON, with the version that was seen.
pub(super) fn update_body(object: &Object, home: &str, children: &BTreeSet<ChildId>) -> Vec<u8> {
    let mut tree = object.value();
    if let Value::Object(fields) = &mut tree {
        fields.insert("children".to_owned(), children_field(home, children));
    }
    tree.to_string().into_bytes()
}
