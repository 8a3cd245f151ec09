//! `ControllerRevision` of `ringmaster.dev/v1alpha1`: what a rolling update keeps of one state of a parent.
//!
//! Written by Ringmaster alone; its fields are those of Metacontroller's kind of the same name. What it means is decided in
//! [`ringmaster_core::rollout`].

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::schema::{CHILD_RESOURCES_MAX, OBJECT_NAME_MAX, RESOURCE_MAX};

/// Most children of one kind: as many as a reply may have.
const NAMES_MAX: u32 = 10_000;
/// Longest name of a child: a namespace, a slash and a name.
const NAME_MAX: u32 = RESOURCE_MAX + 1 + OBJECT_NAME_MAX;

/// One state of a parent, and the children that follow it.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "ringmaster.dev",
    version = "v1alpha1",
    kind = "ControllerRevision",
    plural = "controllerrevisions",
    category = "ringmaster",
    namespaced,
    no_spec,
    derive = "PartialEq",
    doc = "One state of a parent, and the children that follow it. Written by Ringmaster alone."
)]
#[serde(rename_all = "camelCase")]
pub struct ControllerRevisionFields {
    /// The fields of the parent that this revision keeps.
    #[schemars(schema_with = "any_object")]
    pub parent_patch: Map<String, Value>,
    /// The children that follow this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = CHILD_RESOURCES_MAX), extend("x-kubernetes-list-type" = "atomic"))]
    pub children: Option<Vec<RevisionChildren>>,
}

/// Children of one kind.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RevisionChildren {
    /// Their group, empty for the core group.
    #[schemars(length(max = OBJECT_NAME_MAX))]
    pub api_group: String,
    /// Their kind.
    #[schemars(length(max = RESOURCE_MAX))]
    pub kind: String,
    /// Their names; with their namespaces before a slash where the parent is cluster-scoped.
    #[schemars(
        length(max = NAMES_MAX),
        inner(length(max = NAME_MAX)),
        extend("x-kubernetes-list-type" = "atomic")
    )]
    pub names: Vec<String>,
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The fields of the parent that this revision keeps.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
    })
}
