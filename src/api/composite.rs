//! `CompositeController` of `ringmaster.dev/v1alpha1`: the types, and the rules that an API server enforces.
//!
//! Never judges an object: every rule here is checked again in [`crate::convert`], where CEL may not have run.

#![allow(unreachable_pub, reason = "KubeSchema copies each struct into a function, public as it is")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::schema::{
    self, API_VERSION_MAX, CHILD_RESOURCES_MAX, CONDITION_REASON_MAX, CONDITION_TYPE_MAX, ENDPOINT_CONFIGS_MAX,
    FIELD_PATH_MAX, FIELD_PATHS_MAX, RESOURCE_MAX, STATUS_CHECKS_MAX,
};
use crate::webhook::{EndpointConfig, Hooks};

/// Most characters of a controller's name: it becomes part of a finalizer and of label values.
pub const NAME_MAX: usize = 40;
/// Longest time between two resyncs of a parent, in seconds: a week.
pub const RESYNC_PERIOD_SECONDS_MAX: i32 = 7 * 86_400;
/// Most syncs at once that a bound per shard may allow: as many as one process may have workers.
pub const CONCURRENCY_PER_SHARD_MAX: i32 = 4096;

pub(crate) const API_VERSION_RULE: &str =
    r"self.matches('^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[a-z]([-a-z0-9]*[a-z0-9])?$')";
pub(crate) const RESOURCE_RULE: &str = r"self.matches('^[a-z]([-a-z0-9]*[a-z0-9])?$')";
pub(crate) const API_VERSION_MESSAGE: &str =
    "apiVersion: must be group/version such as apps/v1, or v1 for the core group";
pub(crate) const RESOURCE_MESSAGE: &str =
    "resource: must be the plural name of a kind in lower case, such as deployments";
const OWN_CHILD_RULE: &str = "!has(self.childResources) || !self.childResources.exists(c, \
     c.resource == self.parentResource.resource && \
     (c.apiVersion.contains('/') ? c.apiVersion.split('/')[0] : '') == \
     (self.parentResource.apiVersion.contains('/') ? self.parentResource.apiVersion.split('/')[0] : ''))";

/// What a controller is declared to do.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "ringmaster.dev",
    version = "v1alpha1",
    kind = "CompositeController",
    plural = "compositecontrollers",
    shortname = "rcc",
    category = "ringmaster",
    status = "CompositeControllerStatus",
    derive = "PartialEq",
    doc = "A controller that makes child objects for each parent object, as a webhook decides.",
    validation = Rule::new("self.metadata.name.size() <= 40")
        .message("metadata.name: must be at most 40 characters; choose a shorter name"),
    printcolumn(
        name = "Parent",
        type_ = "string",
        json_path = ".spec.parentResource.resource",
        description = "The kind whose objects are reconciled"
    ),
    printcolumn(
        name = "Parents",
        type_ = "integer",
        json_path = ".status.parents",
        description = "How many parents there are"
    ),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].status",
        description = "Whether the controller runs"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].reason",
        description = "Why it runs or not"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new(OWN_CHILD_RULE)
        .message("spec.childResources: the parent's own kind can't be a child kind; remove it from the list")
)]
pub struct CompositeControllerSpec {
    /// The kind whose objects are reconciled.
    pub parent_resource: ParentResource,
    /// The kinds of objects that may be made for a parent. Anything else that the hook asks for is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = CHILD_RESOURCES_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["apiVersion", "resource"])
    )]
    pub child_resources: Vec<ChildResource>,
    /// Select children by a controller-uid label that is added to them, instead of the parent's spec.selector.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub generate_selector: bool,
    /// Sync every parent this often, in seconds, changed or not. When left out, only `--cache-flush-interval` of
    /// `ringmaster run` does that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = RESYNC_PERIOD_SECONDS_MAX))]
    pub resync_period_seconds: Option<i32>,
    /// Do nothing while this is true.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Divide the parents among all members of the installation by shards. One member has them all when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharding: Option<Sharding>,
    /// How children are written.
    #[serde(default)]
    pub apply_strategy: ApplyStrategy,
    /// The webhooks that decide.
    pub hooks: Hooks,
    /// TLS and credentials by host: the first entry for a webhook's host holds for it, if it names none of them itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = ENDPOINT_CONFIGS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["host"])
    )]
    pub endpoint_configs: Vec<EndpointConfig>,
}

/// How parents are divided among the members.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Sharding {
    /// At most so many parents of one shard are synced at once; there are 256 shards. Only the members' workers bound
    /// it when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = CONCURRENCY_PER_SHARD_MAX))]
    pub concurrency_per_shard: Option<i32>,
}

/// The kind whose objects are reconciled.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ParentResource {
    /// Group and version, such as apps/v1; only the version for the core group.
    #[schemars(length(max = API_VERSION_MAX))]
    #[x_kube(
        validation = Rule::new(API_VERSION_RULE)
            .message(API_VERSION_MESSAGE)
    )]
    pub api_version: String,
    /// The kind's plural name, such as deployments.
    #[schemars(length(max = RESOURCE_MAX))]
    #[x_kube(
        validation = Rule::new(RESOURCE_RULE)
            .message(RESOURCE_MESSAGE)
    )]
    pub resource: String,
    /// Labels that a parent must have. Every parent when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub label_selector: Option<LabelSelector>,
    /// Whether a change of a parent's status alone leads to no sync. True when left out.
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
    /// The fields whose changes reach rolled children one by one, such as spec.template; those of other fields reach all
    /// at once. spec when left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = FIELD_PATHS_MAX),
        inner(length(max = FIELD_PATH_MAX)),
        extend("x-kubernetes-list-type" = "set")
    )]
    pub field_paths: Vec<String>,
}

/// One kind of children.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ChildResource {
    /// Group and version, such as apps/v1; only the version for the core group.
    #[schemars(length(max = API_VERSION_MAX))]
    #[x_kube(
        validation = Rule::new(API_VERSION_RULE)
            .message(API_VERSION_MESSAGE)
    )]
    pub api_version: String,
    /// The kind's plural name, such as deployments.
    #[schemars(length(max = RESOURCE_MAX))]
    #[x_kube(
        validation = Rule::new(RESOURCE_RULE)
            .message(RESOURCE_MESSAGE)
    )]
    pub resource: String,
    /// What happens to a child that differs from what the hook wants. OnDelete when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<UpdateStrategy>,
}

/// What happens to a child that differs from what the hook wants.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct UpdateStrategy {
    /// How the child gets to what the hook wants.
    #[serde(default)]
    pub method: UpdateMethod,
    /// What an updated child must show before the next one is updated, for rolling updates.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status_checks: Option<StatusChecks>,
}

/// What an updated child must show.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct StatusChecks {
    /// Conditions in its status. One that isn't there is not met.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = STATUS_CHECKS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"])
    )]
    pub conditions: Vec<StatusCheck>,
}

/// One condition that an updated child must show.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct StatusCheck {
    /// The condition's type.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = CONDITION_TYPE_MAX))]
    pub kind: String,
    /// The status that it must have. Any when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = CONDITION_REASON_MAX))]
    pub status: Option<String>,
    /// The reason that it must have. Any when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = CONDITION_REASON_MAX))]
    pub reason: Option<String>,
}

/// How a child gets to what the hook wants.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum UpdateMethod {
    /// Not at all, until somebody deletes it.
    #[default]
    OnDelete,
    /// It is deleted and made anew.
    Recreate,
    /// It is updated.
    InPlace,
    /// As Recreate, one child after the other.
    RollingRecreate,
    /// As InPlace, one child after the other.
    RollingInPlace,
}

/// How children are written.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum ApplyStrategy {
    /// A three-way merge on our side.
    Merge,
    /// Server-side apply, as the field manager `ringmaster`.
    #[default]
    ServerSide,
}

/// What is known about a controller.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct CompositeControllerStatus {
    /// What is known about this controller, one entry for each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// How many parents there are.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub parents: Option<i64>,
    /// The generation that this status was found out for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
}
