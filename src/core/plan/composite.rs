//! The plan of a composite's sync: what to delete, create and update, and which status to write.
//!
//! Everything about the reply is checked before the first action exists: a bad child means no action at all.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::claim::{CONTROLLER_UID_LABEL, controller_reference};
use super::finalize::{has_finalizer, manages_children};
use super::serverside::How;
use super::{conditions, merge, serverside};
use crate::controller::{Apply, Controller, UpdateStrategy};
use crate::dialect::{METACONTROLLER, RINGMASTER};
use crate::hash::xxh;
use crate::hook::{Decoration, Desired, MAX_NAME_CHARS, MAX_PROBLEM_CHARS, SyncReply, excerpt, find};
use crate::key::{ObjectKey, Resource};
use crate::object::Object;
use crate::selector::Selector;
use crate::shards::{LABEL_PREFIX, OWNER_LABEL};

/// The fields of `metadata` that the API server sets: never created or applied.
const API_SERVERS_METADATA: [&str; 8] = [
    "resourceVersion",
    "uid",
    "managedFields",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "selfLink",
];

/// Names are at most this long (Kubernetes: DNS subdomain).
pub const MAX_NAME_BYTES: usize = 253;

/// A child that the webhook wants and that can't be applied. Nothing was planned.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{list}[{index}] ({kind} {name}): {problem}")]
pub struct Error {
    /// The reply's list that it stands in.
    pub list: &'static str,
    /// Its place in the reply.
    pub index: usize,
    /// Its kind as the webhook wrote it.
    pub kind: String,
    /// Its namespace and name as the webhook wrote them.
    pub name: String,
    /// What is wrong, and the fix.
    pub problem: String,
}

/// One declared kind of children with what the parent has of it.
#[derive(Clone, Debug)]
pub struct Kind {
    /// The kind.
    pub resource: Arc<Resource>,
    /// What happens to a child that differs.
    pub strategy: UpdateStrategy,
    /// The parent's children of this kind, sorted by key.
    pub owned: Vec<Arc<Object>>,
}

/// Everything that a plan is made from.
#[derive(Debug)]
pub struct Input<'a> {
    /// The controller.
    pub controller: &'a Controller,
    /// The parent's kind.
    pub resource: &'a Resource,
    /// The parent as the webhook saw it.
    pub parent: &'a Object,
    /// The selector of its children.
    pub selector: &'a Selector,
    /// The declared kinds.
    pub kinds: &'a [Kind],
    /// What the webhook answered.
    pub reply: &'a SyncReply,
    /// Whether it was asked as the finalize hook.
    pub finalizing: bool,
    /// The parent's shard, if its controller is sharded: children carry its number as a label.
    pub shard: Option<u8>,
    /// The wall clock in RFC 3339: when a condition changes that changes now.
    pub now: &'a str,
}

/// What to do, in this order: deletes, then creates and updates, then the status, then the decoration, then the
/// finalizer.
#[derive(Debug, Default)]
pub struct Plan {
    /// Children to delete, in the background, if they are still the version that was seen.
    pub deletes: Vec<Delete>,
    /// Children to create.
    pub creates: Vec<Create>,
    /// Children to replace or apply, if they are still the version that was seen.
    pub updates: Vec<Update>,
    /// What the parent's status shall be; `None` if it is right as it is.
    pub status: Option<NewStatus>,
    /// What the parent's metadata lacks of what a decorator's hook wants, and what it has too much; never empty.
    pub decoration: Option<Decoration>,
    /// Once all of this is done, the controller's finalizer is to be taken off the parent.
    pub finalized: bool,
}

impl Plan {
    /// Whether there is nothing to do.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.writes_no_children() && self.status.is_none() && self.decoration.is_none() && !self.finalized
    }

    /// Whether no child is touched.
    #[must_use]
    pub fn writes_no_children(&self) -> bool {
        self.deletes.is_empty() && self.creates.is_empty() && self.updates.is_empty()
    }
}

/// A status to write.
#[derive(Debug)]
pub struct NewStatus {
    /// A JSON patch: tests, and then what replaces the status.
    pub patch: Value,
    /// What to [`Object::settle_status`] the parent with if this changed nothing: its kind doesn't keep what more is wanted.
    pub desired: u64,
}

impl NewStatus {
    /// The whole status that the patch writes.
    pub(super) fn wanted(&self) -> &Value {
        self.patch.as_array().and_then(|steps| steps.last()).map_or(&Value::Null, |step| &step["value"])
    }
}

/// A child to delete.
#[derive(Debug)]
pub struct Delete {
    /// Index into [`Input::kinds`].
    pub kind: usize,
    /// The child as it was seen.
    pub object: Arc<Object>,
    /// It differs, and is to be made anew once it is gone; otherwise nobody wants it.
    pub recreate: bool,
    /// It stays if writing this, without effect, is refused or would change nothing.
    pub trial: Option<Update>,
}

/// A child to create.
#[derive(Debug)]
pub struct Create {
    /// Index into [`Input::kinds`].
    pub kind: usize,
    /// Its namespace and name.
    pub key: ObjectKey,
    /// The whole object as JSON.
    pub body: Vec<u8>,
    /// Its fields are to be handed over to who applies as soon as it is there.
    pub hand_over: bool,
    /// What to [`Object::settle`] the answer with.
    pub desired: u64,
}

/// A child to replace or apply.
#[derive(Debug)]
pub struct Update {
    /// How it is written.
    pub how: How,
    /// Index into [`Input::kinds`].
    pub kind: usize,
    /// The child as it was seen.
    pub object: Arc<Object>,
    /// The whole object, or what is applied of it, as JSON, with uid and resourceVersion of what was seen.
    pub body: Vec<u8>,
    /// What to [`Object::settle`] the answer with.
    pub desired: u64,
}

/// Makes the plan.
///
/// # Errors
/// If a child of the reply can't be applied: undeclared kind, wrong scope or namespace, bad name, labels that the
/// parent's selector doesn't match, an owner of its own, (read strictly) twice, or if what is there can't be compared.
pub fn plan(input: &Input<'_>) -> Result<Plan, Error> {
    let mut plan = Plan { status: status(input), finalized: finalized(input), ..Plan::default() };
    plan_children(input, &mut plan)?;
    Ok(plan)
}

/// Whether the finalizer may be taken off.
pub(super) fn finalized(input: &Input<'_>) -> bool {
    let waits = || has_finalizer(input.parent, &input.controller.finalizer());
    input.finalizing && input.reply.finalized && waits()
}

/// Adds to a plan what happens to the children, or to the attachments of a decorator.
pub(super) fn plan_children(input: &Input<'_>, plan: &mut Plan) -> Result<(), Error> {
    let wanted = wanted(input)?;
    if !manages_children(input.controller, input.parent) {
        return Ok(());
    }
    for (index, kind) in input.kinds.iter().enumerate() {
        for object in &kind.owned {
            // A kind that is declared in two versions shows the same objects twice: one wish is enough to keep one, one
            // delete to be rid of it.
            let mut versions = same_kinds(input.kinds, index);
            let is_wanted = versions.clone().any(|version| wanted.contains_key(&(version, object.key().clone())));
            let is_told =
                versions.any(|version| version < index && owned(&input.kinds[version], object.key()).is_some());
            if !object.is_deleting() && !is_wanted && !is_told {
                plan.deletes.push(Delete { kind: index, object: Arc::clone(object), recreate: false, trial: None });
            }
        }
    }
    for ((index, key), child) in wanted {
        let kind = &input.kinds[index];
        let hash = settled_hash(input, child);
        let Some(object) = owned(kind, &key) else {
            let body = create_body(input, kind, &key, child);
            let hand_over = input.controller.apply != Apply::Merge && input.controller.dialect.created_as.is_none();
            plan.creates.push(Create { kind: index, body, key, hand_over, desired: hash });
            continue;
        };
        // One that is going is made anew once it is gone.
        if object.is_deleting() || kind.strategy == UpdateStrategy::OnDelete || object.is_settled(hash) {
            continue;
        }
        let body = update_body(input, kind, &key, child, object).map_err(|problem| {
            let at = input.reply.children.iter().position(|other| std::ptr::eq(other, child));
            refused(input, at.unwrap_or_default(), child, problem)
        })?;
        let Some((how, body)) = body else {
            object.settle(hash);
            continue;
        };
        let update = Update { how, kind: index, object: Arc::clone(object), body, desired: hash };
        if kind.strategy.recreates() {
            plan.deletes.push(Delete { kind: index, object: Arc::clone(object), recreate: true, trial: Some(update) });
        } else {
            plan.updates.push(update);
        }
    }
    Ok(())
}

/// Checks every child of the reply, and finds its declared kind.
fn wanted<'a>(input: &Input<'a>) -> Result<BTreeMap<(usize, ObjectKey), &'a Desired>, Error> {
    let mut wanted = BTreeMap::new();
    for (index, child) in input.reply.children.iter().enumerate() {
        let fail = |problem: String| refused(input, index, child, problem);
        let kind = find_kind(input, child).map_err(fail)?;
        let resource = &input.kinds[kind].resource;
        let namespace = namespace(input.parent, resource, child).map_err(fail)?;
        check_name("metadata.name", &child.name).map_err(fail)?;
        check_metadata(input, child).map_err(fail)?;
        let key = ObjectKey::new(namespace, &child.name);
        // In another version it is the same object.
        let twice = same_kinds(input.kinds, kind).filter(|version| wanted.remove(&(*version, key.clone())).is_some());
        let twice = twice.count() > 0;
        wanted.insert((kind, key), child);
        // Read loosely, and always in Metacontroller's dialect, the last one counts (contract 1.5).
        let is_strict = || input.controller.hook(input.finalizing).webhook.strict;
        if twice && !input.controller.dialect.repeated_children && is_strict() {
            return Err(fail("stands twice in the reply; name each child once".to_owned()));
        }
    }
    Ok(wanted)
}

fn refused(input: &Input<'_>, index: usize, child: &Desired, problem: String) -> Error {
    let name = ObjectKey::new(&short(&child.namespace), &short(&child.name)).to_string();
    let list = if input.controller.is_decorator() { "attachments" } else { "children" };
    Error { list, index, kind: short(&child.kind), name, problem }
}

/// The indexes of a kind in all the versions that are declared of it.
fn same_kinds(kinds: &[Kind], index: usize) -> impl Iterator<Item = usize> + Clone {
    let same = move |other: &usize| kinds[*other].resource.same_kind(&kinds[index].resource);
    (0..kinds.len()).filter(same)
}

/// The parent's child of this kind and key.
fn owned<'a>(kind: &'a Kind, key: &ObjectKey) -> Option<&'a Arc<Object>> {
    kind.owned.binary_search_by(|object| object.key().cmp(key)).ok().map(|at| &kind.owned[at])
}

/// As much of a reply's names as an error repeats.
fn short(text: &str) -> String {
    excerpt(text, MAX_NAME_CHARS)
}

fn find_kind(input: &Input<'_>, child: &Desired) -> Result<usize, String> {
    let (kinds, field) = (input.kinds, input.controller.children_field());
    let exact =
        |kind: &Kind| *kind.resource.kind == *child.kind && kind.resource.api_version.as_str() == child.api_version;
    if let Some(index) = kinds.iter().position(exact) {
        return Ok(index);
    }
    let group = crate::key::ApiVersion::new(&child.api_version);
    let other_version =
        kinds.iter().find(|k| *k.resource.kind == *child.kind && k.resource.api_version.group() == group.group());
    Err(match other_version {
        Some(kind) => format!(
            "apiVersion is {}, but {field} declares this kind as {}; use one of them in both",
            short(&child.api_version),
            kind.resource.api_version
        ),
        None => format!(
            "the kind isn't declared; add apiVersion {} with its plural name to {field}",
            short(&child.api_version)
        ),
    })
}

fn namespace<'a>(parent: &'a Object, resource: &Resource, child: &'a Desired) -> Result<&'a str, String> {
    let home = parent.key().namespace();
    match (resource.namespaced, home.is_empty()) {
        (false, false) => Err("a cluster-scoped object can't be the child of a namespaced parent".to_owned()),
        (false, true) if child.namespace.is_empty() => Ok(""),
        (false, true) => Err("the kind is cluster-scoped; leave metadata.namespace out".to_owned()),
        (true, true) if child.namespace.is_empty() => {
            Err("metadata.namespace is missing; a cluster-scoped parent must name it".to_owned())
        }
        (true, false) if child.namespace.is_empty() || child.namespace == home => Ok(home),
        (true, false) => Err(format!("metadata.namespace must be the parent's ({home}) or be left out")),
        (true, true) => check_name("metadata.namespace", &child.namespace).map(|()| &*child.namespace),
    }
}

/// What may stand in a URL's path as a name (Kubernetes: IsValidPathSegmentName); the kind's own rules are the API
/// server's to check.
fn check_name(field: &str, name: &str) -> Result<(), String> {
    let bad = name == "." || name == ".." || name.contains(['/', '%']) || name.chars().any(char::is_control);
    if bad || name.len() > MAX_NAME_BYTES {
        return Err(format!("{field} isn't a valid name (at most {MAX_NAME_BYTES} bytes, no '/' or '%')"));
    }
    Ok(())
}

fn check_metadata(input: &Input<'_>, child: &Desired) -> Result<(), String> {
    #[derive(serde::Deserialize)]
    struct Owner {
        #[serde(default)]
        controller: Option<bool>,
    }
    type Texts = BTreeMap<String, Option<String>>;
    /// A field of the metadata, or what is wrong with it; `null` counts as missing.
    fn field<'a, T: serde::Deserialize<'a>>(name: &str, raw: Option<&'a RawValue>) -> Result<Option<T>, String> {
        let read = raw.map_or(Ok(None), |raw| serde_json::from_str(raw.get()));
        read.map_err(|error| excerpt(&format!("metadata.{name}: {error}"), MAX_PROBLEM_CHARS))
    }
    let bad = |error: serde_json::Error| excerpt(&format!("metadata: {error}"), MAX_PROBLEM_CHARS);
    let [metadata] = find(&child.json, ["metadata"]).map_err(bad)?;
    let [labels, annotations, finalizers, owners] = match metadata {
        Some(raw) => find(raw, ["labels", "annotations", "finalizers", "ownerReferences"]).map_err(bad)?,
        None => [None; 4],
    };
    // What is of another type would be lost on the way without a word.
    field::<Texts>("annotations", annotations)?;
    field::<Vec<Option<String>>>("finalizers", finalizers)?;
    let owners: Option<Vec<Owner>> = field("ownerReferences", owners)?;
    if owners.unwrap_or_default().iter().any(|owner| owner.controller == Some(true)) {
        return Err(
            "metadata.ownerReferences names a controller; leave it out, the parent is set as the owner".to_owned()
        );
    }
    let labels: Option<Texts> = field("labels", labels)?;
    let mut labels: BTreeMap<String, String> =
        labels.unwrap_or_default().into_iter().filter_map(|(k, v)| Some((k, v?))).collect();
    if input.controller.generate_selector {
        labels.entry(CONTROLLER_UID_LABEL.to_owned()).or_insert_with(|| input.parent.uid().to_string());
    }
    if input.selector.matches(&labels) {
        return Ok(());
    }
    Err(format!("metadata.labels don't match the parent's selector ({}); add the labels it asks for", input.selector))
}

/// The webhook's text, and what else the object is made of.
fn settled_hash(input: &Input<'_>, child: &Desired) -> u64 {
    let (generated, shard) = (input.controller.generate_selector, input.shard);
    // What is annotated is by dialect.
    let (manager, group) = (input.controller.apply.manager(), input.controller.dialect.group);
    xxh(format!("{:x} {} {generated} {shard:?} {manager:?} {group}", child.hash, input.parent.uid()).as_bytes()).max(1)
}

/// The child as it shall be: the webhook's object with namespace and, if we select by it, our label. Without our
/// annotation and the labels of shards, which webhooks return that start from what they were sent: they are never the
/// webhook's to set.
fn complete(input: &Input<'_>, kind: &Kind, key: &ObjectKey, child: &Desired) -> Value {
    // The text was checked to be a JSON object, down to its numbers and strings, when the reply was read.
    let mut desired: Value = serde_json::from_str(child.json.get()).unwrap_or_default();
    if !desired["metadata"].is_object() {
        desired["metadata"] = json!({});
    }
    if kind.resource.namespaced {
        desired["metadata"]["namespace"] = key.namespace().into();
    }
    if let Some(annotations) = desired["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        annotations.remove(input.controller.dialect.last_applied);
        if let Some(created_as) = input.controller.dialect.created_as {
            annotations.remove(created_as);
        }
    }
    if let Some(annotations) = desired["metadata"].get_mut("annotations").and_then(Value::as_object_mut) {
        // Says whose an attachment is: of a composite nothing is one.
        for dialect in [&RINGMASTER, &METACONTROLLER] {
            annotations.remove(dialect.decorator_annotation);
        }
    }
    if input.controller.is_decorator() {
        annotate(&mut desired, input.controller.dialect.decorator_annotation, input.controller.name.to_string());
    }
    if let Some(labels) = desired["metadata"].get_mut("labels").and_then(Value::as_object_mut) {
        labels.retain(|key, _| !key.starts_with(LABEL_PREFIX));
    }
    if input.controller.generate_selector {
        if !desired["metadata"]["labels"].is_object() {
            desired["metadata"]["labels"] = json!({});
        }
        let label = &mut desired["metadata"]["labels"][CONTROLLER_UID_LABEL];
        if label.is_null() {
            *label = input.parent.uid().to_string().into();
        }
    }
    desired
}

fn create_body(input: &Input<'_>, kind: &Kind, key: &ObjectKey, child: &Desired) -> Vec<u8> {
    let desired = complete(input, kind, key, child);
    let mut object = made(input, &desired);
    let dialect = input.controller.dialect;
    if input.controller.apply == Apply::Merge {
        let text = merge::desired_annotation(&desired, dialect.last_applied);
        annotate(&mut object, dialect.last_applied, text);
    } else if let Some(annotation) = dialect.created_as {
        let text = serverside::created_as(&object);
        annotate(&mut object, annotation, text);
    }
    object.to_string().into_bytes()
}

/// The child as it is created or applied, but for annotations of ours.
fn made(input: &Input<'_>, desired: &Value) -> Value {
    // Merged with nothing, so that a null says as little here as it does in an update: otherwise the new child would
    // differ from what is wanted as soon as it is there.
    let mut object = merge::merge(&json!({}), None, desired);
    label(&mut object, input.shard);
    if let Some(object) = object.as_object_mut() {
        object.remove("status");
    }
    for field in API_SERVERS_METADATA {
        if let Some(metadata) = object["metadata"].as_object_mut() {
            metadata.remove(field);
        }
    }
    if let Some(metadata) = object["metadata"].as_object_mut() {
        // The API server drops them: they would be missing in what is there.
        metadata.retain(|name, value| {
            let is_empty = value.as_object().is_some_and(serde_json::Map::is_empty);
            !(is_empty && matches!(name.as_str(), "labels" | "annotations"))
        });
    }
    let owners = &mut object["metadata"]["ownerReferences"];
    if !owners.is_array() {
        *owners = json!([]);
    }
    if let Some(owners) = owners.as_array_mut() {
        // An owner stands once.
        owners.retain(|owner| owner["uid"] != *input.parent.uid().to_string());
        owners.push(controller_reference(input.parent, input.resource));
    }
    object
}

/// How an update is written, and the object merged or applied; `None` if the child is as it shall be.
///
/// # Errors
/// If what is there can't be a tree, such as one of more levels than `serde_json` takes: merged with nothing, an update
/// would take away what others set.
fn update_body(
    input: &Input<'_>,
    kind: &Kind,
    key: &ObjectKey,
    child: &Desired,
    object: &Object,
) -> Result<Option<(How, Vec<u8>)>, String> {
    let desired = complete(input, kind, key, child);
    let observed: Value = serde_json::from_slice(object.json())
        .map_err(|error| format!("what is there can't be compared with what is wanted: {error}"))?;
    let dialect = input.controller.dialect;
    if let Apply::ServerSide { manager } = &input.controller.apply {
        let made = made(input, &desired);
        let how = serverside::change(dialect, manager, object, &observed, &made);
        return Ok(how.map(|how| (how, serverside::body(made, object))));
    }
    let annotation = dialect.last_applied;
    let last: Option<Value> = object.annotation(annotation).and_then(|text| serde_json::from_str(&text).ok());
    let mut merged = merge::merge_object(&observed, last.as_ref(), &desired);
    label(&mut merged, input.shard);
    let text = merge::desired_annotation(&desired, annotation);
    // Compared as JSON: whoever wrote it may have spelled it otherwise, or may not have filled in the namespace.
    let recorded = last.is_some_and(|mut last| {
        let metadata = last.get_mut("metadata").and_then(Value::as_object_mut).filter(|_| kind.resource.namespaced);
        if let Some(metadata) = metadata {
            metadata.entry("namespace").or_insert_with(|| key.namespace().into());
        }
        serde_json::from_str::<Value>(&text).is_ok_and(|desired| merge::same(&last, &desired))
    });
    if recorded && merge::same(&observed, &merged) {
        return Ok(None);
    }
    if !recorded {
        annotate(&mut merged, annotation, text);
    }
    Ok(Some((How::Replace, merged.to_string().into_bytes())))
}

/// The shard's label. It is no part of what was last applied: a controller that isn't sharded any more leaves it alone.
fn label(object: &mut Value, shard: Option<u8>) {
    let Some(shard) = shard else { return };
    let labels = &mut object["metadata"]["labels"];
    if !labels.is_object() {
        *labels = json!({});
    }
    labels[OWNER_LABEL] = shard.to_string().into();
}

fn annotate(object: &mut Value, name: &str, text: String) {
    let annotations = &mut object["metadata"]["annotations"];
    if !annotations.is_object() {
        *annotations = json!({});
    }
    annotations[name] = text.into();
}

/// The webhook's status with its conditions and `observedGeneration`, as a patch that replaces the whole status of this very parent.
fn status(input: &Input<'_>) -> Option<NewStatus> {
    if !input.resource.status {
        return None;
    }
    let raw = input.reply.status.as_ref();
    let mut wanted: Value = raw.and_then(|raw| serde_json::from_str(raw.get()).ok()).unwrap_or_else(|| json!({}));
    wanted["observedGeneration"] = input.parent.generation().into();
    let present: Value = input.parent.section("status").unwrap_or_default();
    conditions::put(&mut wanted, &input.reply.conditions, &present, input.parent.generation(), input.now);
    if merge::same(&present, &wanted) {
        return None;
    }
    let desired = settled_status(input, &present);
    if input.parent.is_status_settled(desired) {
        return None;
    }
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": input.parent.uid().to_string()},
        {"op": "add", "path": "/status", "value": wanted},
    ]);
    Some(NewStatus { patch, desired })
}

/// Of a time as RFC 3339 has it, what tells the hour.
const HOUR_CHARS: usize = "2025-01-01T00".len();

/// What the webhook says of the status, of which generation, and what there is of it. Of the time, which may be part of what
/// is written, the hour: a kind may have got the fields since that it didn't keep.
pub(super) fn settled_status(input: &Input<'_>, present: &Value) -> u64 {
    let raw = input.reply.status.as_ref().map_or("", |raw| raw.get());
    let (conditions, generation) = (&input.reply.conditions, input.parent.generation());
    let hour = input.now.get(..HOUR_CHARS).unwrap_or_default();
    xxh(format!("{raw} {conditions:?} {generation} {present} {hour}").as_bytes()).max(1)
}

#[cfg(test)]
pub(crate) mod tests;
