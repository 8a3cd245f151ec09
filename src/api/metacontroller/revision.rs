//! `ControllerRevision` of `metacontroller.k8s.io/v1alpha1`: what a rolling update keeps of one state of a parent.
//!
//! Its fields are at the top level, without a spec. What it means is decided in [`ringmaster_core::rollout`].

use kube::CustomResource;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One state of a parent, and the children that follow it.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "metacontroller.k8s.io",
    version = "v1alpha1",
    kind = "ControllerRevision",
    plural = "controllerrevisions",
    namespaced,
    no_spec,
    derive = "PartialEq",
    doc = "One state of a parent, and the children that follow it.",
    annotation("api-approved.kubernetes.io", "unapproved, Metacontroller's contract served by Ringmaster")
)]
#[serde(rename_all = "camelCase")]
pub struct ControllerRevisionFields {
    /// The fields of the parent that this revision keeps.
    #[schemars(schema_with = "any_object")]
    pub parent_patch: Map<String, Value>,
    /// The children that follow this revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub children: Option<Vec<RevisionChildren>>,
}

/// Children of one kind.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RevisionChildren {
    /// Their group, empty for the core group.
    pub api_group: String,
    /// Their kind.
    pub kind: String,
    /// Their names.
    pub names: Vec<String>,
}

fn any_object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "The fields of the parent that this revision keeps.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": true,
    })
}
