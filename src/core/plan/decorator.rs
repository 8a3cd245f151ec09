//! The plan of a decorator's sync: labels, annotations and status of an object that is somebody else's, and what is
//! attached to it.
//!
//! Never adopts, and never touches what another controller attached: an attachment is known by its annotation.
//! Everything about the reply is checked before the first action exists.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::claim::Claims;
use super::composite::{self, Input, NewStatus, Plan, settled_status};
use super::{conditions, merge};
use crate::controller::Controller;
use crate::hook::Decoration;
use crate::object::Object;
use crate::selector::Labels;

/// What the webhook wants and can't have. Nothing was planned.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    /// An attachment can't be applied.
    #[error(transparent)]
    Attachment(#[from] composite::Error),
    /// The object's kind has no status that could be written.
    #[error(
        "{field}: {kind} has no status subresource; leave {field} out of the reply, or add `subresources: {{status: {{}}}}` \
         to the kind's CRD"
    )]
    NoStatus {
        /// The reply's field: `status` or `conditions`.
        field: &'static str,
        /// The kind.
        kind: String,
    },
}

/// Makes the plan.
///
/// # Errors
/// If an attachment of the reply can't be applied (see [`composite::plan`]), or if a status is wanted that the object's
/// kind can't have.
pub fn plan(input: &Input<'_>) -> Result<Plan, Error> {
    let mut plan = Plan {
        status: status(input)?,
        decoration: decoration(input),
        finalized: composite::finalized(input),
        ..Plan::default()
    };
    composite::plan_children(input, &mut plan)?;
    Ok(plan)
}

/// Whether an object that a parent controls is this controller's: of a composite all are, of a decorator those whose
/// annotation names it.
#[must_use]
pub fn attaches(controller: &Controller, object: &Object) -> bool {
    let annotation = controller.dialect.decorator_annotation;
    !controller.is_decorator() || object.annotation(annotation).is_some_and(|name| *name == *controller.name)
}

/// Of the objects that the parent's uid controls, those that this decorator attached. What lies outside of `namespace`
/// (a namespaced parent's own) never is.
pub fn attached<'a>(
    controller: &Controller,
    namespace: Option<&str>,
    owned: impl Iterator<Item = &'a Arc<Object>>,
) -> Claims {
    let near = |object: &&Arc<Object>| namespace.is_none_or(|namespace| object.key().namespace() == namespace);
    let mut owned: Vec<Arc<Object>> =
        owned.filter(near).filter(|object| attaches(controller, object)).cloned().collect();
    owned.sort_by(|a, b| a.key().cmp(b.key()));
    Claims { owned, ..Claims::default() }
}

/// A merge patch that decorates an object, if it is still the version that we saw.
#[must_use]
pub fn decoration_patch(object: &Object, decoration: &Decoration) -> Value {
    let mut metadata = json!({
        "uid": object.uid().to_string(),
        "resourceVersion": object.version().to_string(),
    });
    for (field, pairs) in [("labels", &decoration.labels), ("annotations", &decoration.annotations)] {
        if !pairs.is_empty() {
            metadata[field] = json!(pairs);
        }
    }
    json!({ "metadata": metadata })
}

/// What differs between what is wanted of the object's metadata and what it has.
fn decoration(input: &Input<'_>) -> Option<Decoration> {
    let wanted = &input.reply.decoration;
    let decoration = Decoration {
        labels: differing(&wanted.labels, &input.parent.labels()),
        annotations: differing(&wanted.annotations, &input.parent.annotations()),
    };
    (!decoration.is_empty()).then_some(decoration)
}

fn differing(wanted: &BTreeMap<String, Option<String>>, present: &impl Labels) -> BTreeMap<String, Option<String>> {
    let differs = |(key, value): &(&String, &Option<String>)| present.get(key) != value.as_deref();
    wanted.iter().filter(differs).map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// The webhook's status, or the present one if it gave none, with its conditions, as a patch that replaces the whole status
/// of this very version: whoever owns the object may be about to write it too.
fn status(input: &Input<'_>) -> Result<Option<NewStatus>, Error> {
    let (raw, named) = (input.reply.status.as_ref(), &input.reply.conditions);
    if raw.is_none() && named.is_empty() {
        return Ok(None);
    }
    let present: Option<Value> = input.parent.section("status");
    let present = present.unwrap_or_else(|| json!({}));
    let mut wanted: Value = match raw {
        // The text was checked to be a JSON object, down to its numbers and strings, when the reply was read.
        Some(raw) => serde_json::from_str(raw.get()).unwrap_or_default(),
        None => present.clone(),
    };
    conditions::put(&mut wanted, named, &present, input.parent.generation(), input.now);
    if merge::same(&present, &wanted) {
        return Ok(None);
    }
    let desired = settled_status(input, &present);
    if input.parent.is_status_settled(desired) {
        return Ok(None);
    }
    // In Metacontroller's group such a status is written with the object (its own users rely on it).
    if !input.resource.status && input.controller.dialect.conditions {
        let field = if raw.is_some() { "status" } else { "conditions" };
        return Err(Error::NoStatus { field, kind: input.resource.to_string() });
    }
    let patch = json!([
        {"op": "test", "path": "/metadata/uid", "value": input.parent.uid().to_string()},
        {"op": "test", "path": "/metadata/resourceVersion", "value": input.parent.version().to_string()},
        {"op": "add", "path": "/status", "value": wanted},
    ]);
    Ok(Some(NewStatus { patch, desired }))
}

#[cfg(test)]
mod tests;
