//! `CompositeController` of `metacontroller.k8s.io/v1alpha1`: every field of the contract, with nothing checked.
//!
//! Its status is an empty struct that prunes, as Metacontroller's is: nothing can be told there.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::hook::{EndpointConfig, Hook};

/// What a controller is declared to do.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "metacontroller.k8s.io",
    version = "v1alpha1",
    kind = "CompositeController",
    plural = "compositecontrollers",
    shortname = "cc",
    shortname = "cctl",
    status = "CompositeControllerStatus",
    derive = "PartialEq",
    doc = "A controller that makes child objects for each parent object, as webhooks decide.",
    annotation("api-approved.kubernetes.io", "unapproved, Metacontroller's contract served by Ringmaster")
)]
#[serde(rename_all = "camelCase")]
pub struct CompositeControllerSpec {
    /// The kind whose objects are reconciled.
    pub parent_resource: ParentResource,
    /// The kinds of objects that may be made for a parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child_resources: Option<Vec<ChildResource>>,
    /// The webhooks that decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<CompositeHooks>,
    /// TLS and credentials by host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_configs: Option<Vec<EndpointConfig>>,
    /// Sync every parent this often, in seconds, changed or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resync_period_seconds: Option<i32>,
    /// Select children by a controller-uid label that is added to them, instead of the parent's spec.selector.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generate_selector: Option<bool>,
}

/// The kind whose objects are reconciled.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ParentResource {
    /// Group and version, such as apps/v1; only the version for the core group.
    pub api_version: String,
    /// The kind's plural name, such as deployments.
    pub resource: String,
    /// Labels that a parent must have. Every parent when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// Whether a change of a parent's status alone leads to no sync. False when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_status_changes: Option<bool>,
    /// What a revision of a parent keeps, for rolling updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision_history: Option<RevisionHistory>,
}

/// What a revision of a parent keeps.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RevisionHistory {
    /// Dotted paths. spec when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_paths: Option<Vec<String>>,
}

/// One kind of children.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ChildResource {
    /// Group and version, such as apps/v1; only the version for the core group.
    pub api_version: String,
    /// The kind's plural name, such as deployments.
    pub resource: String,
    /// What happens to a child that differs from what the hook wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<ChildUpdateStrategy>,
}

/// What happens to a child that differs from what the hook wants.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ChildUpdateStrategy {
    /// How the child gets to what the hook wants. OnDelete when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["OnDelete", "Recreate", "InPlace", "RollingRecreate", "RollingInPlace"]))]
    pub method: Option<String>,
    /// What an updated child must show before the next one is updated, for rolling updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_checks: Option<StatusChecks>,
}

/// What an updated child must show.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct StatusChecks {
    /// Conditions in its status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub conditions: Option<Vec<StatusCheck>>,
}

/// One condition that an updated child must show.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct StatusCheck {
    /// The condition's type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The status that it must have. Any when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<String>,
    /// The reason that it must have. Any when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// The webhooks of a controller.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct CompositeHooks {
    /// Says which other objects a parent's hooks need to see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customize: Option<Hook>,
    /// Says which children a parent should have, and its status.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<Hook>,
    /// Called instead of sync for a parent that goes away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finalize: Option<Hook>,
    /// In the contract, but never called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pre_update_child: Option<Hook>,
    /// In the contract, but never called.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub post_update_child: Option<Hook>,
}

/// Nothing: the contract has no fields here.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct CompositeControllerStatus {}
