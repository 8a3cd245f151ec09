//! What server-side apply makes of a child: what is applied, when, and what a write without effect told.
//!
//! A child is created as a whole, so that a name that is taken is told and never taken over; the API server then counts
//! all fields of it as the creator's, defaults too. They are handed over to the manager who applies before the first
//! apply ([`crate::managed::hand_over`]). Until then an annotation tells from what the child was created.

use serde_json::Value;

use super::merge::same;
use super::owned::is_as_applied;
use crate::dialect::{Dialect, METACONTROLLER, RINGMASTER};
use crate::hash::xxh;
use crate::key::Version;
use crate::managed::{owned, unite, without};
use crate::object::Object;
use crate::shards::OWNER_LABEL;

/// How an update of a child is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// The whole object replaces what is there.
    Replace,
    /// What is wanted is applied.
    Apply {
        /// Some of our fields may have to be handed over first.
        hand_over: bool,
    },
}

/// What tells, in an annotation, that a child was created from `made`, whatever its shard's label.
pub(super) fn created_as(made: &Value) -> String {
    let mut made = made.clone();
    if let Some(Value::Object(metadata)) = made.get_mut("metadata") {
        let labels = metadata.get_mut("labels").and_then(Value::as_object_mut);
        let is_empty = labels.is_none_or(|labels| {
            labels.remove(OWNER_LABEL);
            labels.is_empty()
        });
        if is_empty {
            metadata.remove("labels");
        }
    }
    format!("{:016x}", xxh(made.to_string().as_bytes()))
}

/// How `made` is to be applied to a child, or `None` if the child is as if it had just been.
pub(super) fn change(dialect: &Dialect, manager: &str, child: &Object, observed: &Value, made: &Value) -> Option<How> {
    let ours = owned(child.managed(), manager);
    let was_merged =
        [&RINGMASTER, &METACONTROLLER].iter().any(|dialect| child.annotation(dialect.last_applied).is_some());
    let mark = dialect.created_as.and_then(|name| child.annotation(name));
    let hand_over = ours.applied.is_none() || ours.created.is_some() || was_merged || mark.is_some();
    // Where nothing marks it, it was to be handed over at once, and that failed.
    let was_left = was_merged || ours.created.is_some() && dialect.created_as.is_none();
    // Nothing was dropped since it was created, whatever the API server took for ours then.
    let is_as_created = ours.applied.is_none() && mark.is_some_and(|mark| mark == created_as(made));
    let fields = match (ours.applied, ours.created) {
        (Some(mut fields), Some(others)) => {
            unite(&mut fields, others);
            Some(fields)
        }
        (applied, created) => applied.or(created),
    };
    let is_applied = fields.is_some_and(|mut fields| {
        // Ours alone: a webhook that answers with what it was sent drops nothing.
        let is_mark = |name: &str| dialect.created_as.is_some() && name.strip_prefix("f:") == dialect.created_as;
        without(&mut fields, "f:annotations", is_mark);
        is_as_applied(observed, made, &fields, !is_as_created)
    });
    if is_applied && !was_left { None } else { Some(How::Apply { hand_over }) }
}

/// What is sent to apply `made` to a child, if it is still the version that was seen.
pub(super) fn body(mut made: Value, child: &Object) -> Vec<u8> {
    made["metadata"]["uid"] = child.uid().to_string().into();
    made["metadata"]["resourceVersion"] = child.version().to_string().into();
    made.to_string().into_bytes()
}

/// The same body for another version of the child.
#[must_use]
pub fn at_version(body: &[u8], version: Version) -> Vec<u8> {
    let mut body: Value = serde_json::from_slice(body).unwrap_or_default();
    body["metadata"]["resourceVersion"] = version.to_string().into();
    body.to_string().into_bytes()
}

/// Whether a write without effect was answered with the child as it was: but for its version, and for whose its fields
/// are.
#[must_use]
pub fn changes_nothing(child: &Value, answer: &Value) -> bool {
    let content = |object: &Value| {
        let mut value = object.clone();
        if let Some(metadata) = value.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.remove("resourceVersion");
        }
        value
    };
    same(&content(child), &content(answer))
}

#[cfg(test)]
#[path = "serverside_tests.rs"]
mod tests;
