//! `ControllerRing` of `ringmaster.dev/v1alpha1`: the types, and the rules that an API server enforces.
//!
//! Never judges an object: every rule here is checked again in [`crate::convert`], where CEL may not have run.

#![allow(unreachable_pub, reason = "KubeSchema copies each struct into a function, public as it is")]
#![allow(clippy::duplicated_attributes, reason = "each printed column has a type")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::composite::{RESOURCE_MESSAGE, RESOURCE_RULE};
use crate::schema::{self, CONTROLLED_RESOURCES_MAX, GROUP_MAX, RESOURCE_MAX, RING_RESOURCES_MAX};

/// Most characters of a ring's name: it is the name part of the keys of labels.
pub const NAME_MAX: usize = 63;
/// Longest time that a shard may have to acknowledge a drain, in seconds: a day.
pub const DRAIN_TIMEOUT_SECONDS_MAX: i32 = 86_400;
/// Most objects on their way at a time.
pub const CONCURRENT_MAX: i32 = 1000;
/// Longest time for which the shards must have been still before objects are drained, in seconds: an hour.
pub const SETTLE_SECONDS_MAX: i32 = 3600;
/// Longest time for which drains wait for shards that are never still, in seconds: a day.
pub const SETTLE_AT_MOST_SECONDS_MAX: i32 = 86_400;

const GROUP_RULE: &str = r"self.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?)?$')";
const GROUP_MESSAGE: &str = "group: must be an API group such as apps, or empty for the core group";
/// The list around the names is how CEL keeps them for all that is compared with them: to make them anew each time would be
/// beyond an API server's limit of what a rule may cost.
const ONE_PART_RULE: &str = "[self.resources.map(m, m.resource + '.' + m.group)].all(mains, \
     self.resources.all(m, !has(m.controlledResources) || \
     m.controlledResources.all(c, !((c.resource + '.' + c.group) in mains))))";

/// What is divided among the shards of a ring, and how.
#[derive(CustomResource, KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "ringmaster.dev",
    version = "v1alpha1",
    kind = "ControllerRing",
    plural = "controllerrings",
    shortname = "rcr",
    category = "ringmaster",
    status = "ControllerRingStatus",
    derive = "PartialEq",
    doc = "A controller of your own whose replicas, the shards, divide its objects among them: each object is assigned to one of the shards that have a Lease of this ring.",
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
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why objects are being assigned or not",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(ONE_PART_RULE)
        .message("spec.resources: a kind that is divided by itself can't be a controlled one too; remove one of the entries")
)]
pub struct ControllerRingSpec {
    /// The kinds whose objects are divided among the shards.
    #[schemars(
        length(min = 1, max = RING_RESOURCES_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["group", "resource"])
    )]
    pub resources: Vec<RingResource>,
    /// Labels of the namespaces whose objects are divided. All namespaces but kube-system when left out. Objects that live
    /// in no namespace always are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub namespace_selector: Option<LabelSelector>,
    /// How an object's shard is found.
    #[serde(default)]
    pub hash: HashMethod,
    /// How a shard is treated that is to let an object go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<Drain>,
    /// How fast objects are moved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moves: Option<Moves>,
}

/// A kind whose objects are divided among the shards.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct RingResource {
    /// The kind's API group. Empty, as when left out, for the core group.
    #[serde(default)]
    #[schemars(length(max = GROUP_MAX))]
    #[x_kube(
        validation = Rule::new(GROUP_RULE)
            .message(GROUP_MESSAGE)
    )]
    pub group: String,
    /// The kind's plural name, such as deployments.
    #[schemars(length(max = RESOURCE_MAX))]
    #[x_kube(
        validation = Rule::new(RESOURCE_RULE)
            .message(RESOURCE_MESSAGE)
    )]
    pub resource: String,
    /// The kinds of objects that those of this kind control, by an owner reference with controller: true. They are assigned
    /// to their owner's shard.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = CONTROLLED_RESOURCES_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["group", "resource"])
    )]
    pub controlled_resources: Vec<ControlledResource>,
}

/// A kind of objects that are assigned with their owner.
#[derive(KubeSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct ControlledResource {
    /// The kind's API group. Empty, as when left out, for the core group.
    #[serde(default)]
    #[schemars(length(max = GROUP_MAX))]
    #[x_kube(
        validation = Rule::new(GROUP_RULE)
            .message(GROUP_MESSAGE)
    )]
    pub group: String,
    /// The kind's plural name, such as configmaps.
    #[schemars(length(max = RESOURCE_MAX))]
    #[x_kube(
        validation = Rule::new(RESOURCE_RULE)
            .message(RESOURCE_MESSAGE)
    )]
    pub resource: String,
}

/// How an object's shard is found.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum HashMethod {
    /// No shard has more than 1.1 times the mean of the objects.
    #[default]
    BoundedLoad,
    /// Exactly as controller-sharding does it, so that nothing moves when a ring of its is replaced by this one.
    Tokens,
}

/// How a shard is treated that is to let an object go.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// For so many seconds a shard may take to acknowledge. Then it is told in the condition DrainOverdue. 60 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = DRAIN_TIMEOUT_SECONDS_MAX))]
    pub timeout_seconds: Option<i32>,
    /// Then take the shard's Lease too, which ends the shard, and give its objects to others.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub escalate: bool,
}

/// How fast objects are moved.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Moves {
    /// At most so many objects are on their way from shard to shard at once. 100 when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = CONCURRENT_MAX))]
    pub concurrent: Option<i32>,
    /// Objects are moved for balance once no shard has come or gone for so many seconds. 10 when left out. Those of a shard
    /// that is gone don't wait.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = SETTLE_SECONDS_MAX))]
    pub settle_seconds: Option<i32>,
    /// After so many seconds they are moved even though shards still come and go. When left out 60, or settleSeconds if that
    /// is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = SETTLE_AT_MOST_SECONDS_MAX))]
    pub settle_at_most_seconds: Option<i32>,
}

/// What is known about a ring.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ControllerRingStatus {
    /// What is known about this ring, one entry for each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// How many shards have a Lease.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub shards: Option<i32>,
    /// How many of them objects are assigned to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub available_shards: Option<i32>,
    /// The generation that this status was found out for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
}
