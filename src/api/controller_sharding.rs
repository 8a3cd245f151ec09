//! `ControllerRing` of `sharding.timebertt.dev/v1alpha1`, written from controller-sharding's contract (1.2), so that
//! existing rings still apply.
//!
//! Its schema refuses nothing that controller-sharding accepts. What can't be done is told when an object is converted.
//! Nothing here knows defaults: they are in [`crate::convert`].

#![allow(unreachable_pub, reason = "the root's KubeSchema copies each struct into a function, public as it is")]
#![allow(clippy::duplicated_attributes, reason = "each printed column has a type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema;

/// What is divided among the shards of a ring.
#[derive(CustomResource, JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "sharding.timebertt.dev",
    version = "v1alpha1",
    kind = "ControllerRing",
    plural = "controllerrings",
    status = "ControllerRingStatus",
    derive = "PartialEq",
    doc = "A controller whose replicas, the shards, divide its objects among them: each object is assigned to one of the shards that have a Lease of this ring.",
    validation = Rule::new("self.metadata.name.size() <= 63")
        .message("metadata.name: must be at most 63 characters, as it is part of the keys of labels; choose a shorter name"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether objects are being assigned"
    ),
    printcolumn(
        name = "Available",
        type_ = "integer",
        json_path = ".status.availableShards",
        description = "How many shards objects are assigned to"
    ),
    printcolumn(
        name = "Shards",
        type_ = "integer",
        json_path = ".status.shards",
        description = "How many shards have a Lease"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
pub struct ControllerRingSpec {
    /// The kinds whose objects are divided among the shards.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["group", "resource"]))]
    pub resources: Option<Vec<RingResource>>,
    /// Labels of the namespaces whose objects are divided. All namespaces but kube-system and sharding-system when left
    /// out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace_selector: Option<LabelSelector>,
}

/// A kind whose objects are divided among the shards.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RingResource {
    /// The kind's API group, empty for the core group.
    pub group: String,
    /// The kind's plural name, such as deployments.
    pub resource: String,
    /// The kinds of objects that those of this kind control, by an owner reference with controller: true.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["group", "resource"]))]
    pub controlled_resources: Option<Vec<ControlledResource>>,
}

/// A kind of objects that are assigned with their owner.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ControlledResource {
    /// The kind's API group, empty for the core group.
    pub group: String,
    /// The kind's plural name, such as configmaps.
    pub resource: String,
}

/// What is known about a ring.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ControllerRingStatus {
    /// The generation that this status was found out for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// How many shards have a Lease.
    pub shards: i32,
    /// How many of them objects are assigned to.
    pub available_shards: i32,
    /// What is known about this ring: the only type is Ready.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
}
