//! `DecoratorController` of `ringmaster.dev/v1alpha1`: the types, and the rules that an API server enforces.
//!
//! Never judges an object: every rule here is checked again in [`crate::convert`], where CEL may not have run.

#![allow(unreachable_pub, reason = "KubeSchema copies each struct into a function, public as it is")]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::composite::{
    API_VERSION_MESSAGE, API_VERSION_RULE, ApplyStrategy, RESOURCE_MESSAGE, RESOURCE_RULE, RESYNC_PERIOD_SECONDS_MAX,
    Sharding,
};
use crate::metacontroller::AnnotationSelector;
use crate::schema::{
    self, API_VERSION_MAX, CHILD_RESOURCES_MAX, ENDPOINT_CONFIGS_MAX, RESOURCE_MAX, TARGET_RESOURCES_MAX,
};
use crate::webhook::{EndpointConfig, Hooks};

/// What a controller is declared to do.
#[derive(CustomResource, KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[kube(
    group = "ringmaster.dev",
    version = "v1alpha1",
    kind = "DecoratorController",
    plural = "decoratorcontrollers",
    shortname = "rdc",
    category = "ringmaster",
    status = "DecoratorControllerStatus",
    derive = "PartialEq",
    doc = "A controller that adds labels, annotations, status and attached objects to objects of existing kinds, as a webhook decides.",
    validation = Rule::new("self.metadata.name.size() <= 40")
        .message("metadata.name: must be at most 40 characters; choose a shorter name"),
    printcolumn(
        name = "Target",
        type_ = "string",
        json_path = ".spec.resources[0].resource",
        description = "The first kind whose objects are decorated"
    ),
    printcolumn(
        name = "Parents",
        type_ = "integer",
        json_path = ".status.parents",
        description = "How many objects are decorated"
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
pub struct DecoratorControllerSpec {
    /// The kinds whose objects are decorated. They may be built in.
    #[schemars(
        length(min = 1, max = TARGET_RESOURCES_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["apiVersion", "resource"])
    )]
    pub resources: Vec<TargetResource>,
    /// The kinds of objects that may be attached. Anything else that the hook asks for is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = CHILD_RESOURCES_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["apiVersion", "resource"])
    )]
    pub attachments: Vec<Attachment>,
    /// Sync every object this often, in seconds, changed or not. When left out, only `--cache-flush-interval` of
    /// `ringmaster run` does that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = RESYNC_PERIOD_SECONDS_MAX))]
    pub resync_period_seconds: Option<i32>,
    /// Do nothing while true; what was attached stays as it is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
    /// Divide the objects among all members of the installation by shards. One member has them all when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sharding: Option<Sharding>,
    /// How attachments are written.
    #[serde(default)]
    pub apply_strategy: ApplyStrategy,
    /// TLS and credentials by host: the first entry for a webhook's host holds for it, if it names none of them itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(
        length(max = ENDPOINT_CONFIGS_MAX),
        extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["host"])
    )]
    pub endpoint_configs: Vec<EndpointConfig>,
    /// The webhooks that decide.
    pub hooks: Hooks,
}

/// One kind whose objects are decorated.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TargetResource {
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
    /// Labels that an object must have. Every object when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::label_selector")]
    pub label_selector: Option<LabelSelector>,
    /// Annotations that an object must have beside. Every object when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "schema::annotation_selector")]
    pub annotation_selector: Option<AnnotationSelector>,
    /// Whether a change of an object's status alone leads to no sync. True when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_status_changes: Option<bool>,
}

/// One kind of attached objects.
#[derive(KubeSchema, Clone, Debug, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
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
    /// What happens to an attachment that differs from what the hook wants. OnDelete when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<AttachmentUpdateStrategy>,
}

/// What happens to an attachment that differs from what the hook wants.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct AttachmentUpdateStrategy {
    /// How the attachment gets to what the hook wants.
    #[serde(default)]
    pub method: AttachmentUpdateMethod,
}

/// How an attachment gets to what the hook wants. Attachments don't roll.
#[derive(JsonSchema, Clone, Copy, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub enum AttachmentUpdateMethod {
    /// Not at all, until somebody deletes it.
    #[default]
    OnDelete,
    /// It is deleted and made anew.
    Recreate,
    /// It is updated.
    InPlace,
}

/// What is known about a controller.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct DecoratorControllerStatus {
    /// What is known about this controller, one entry for each type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "schema::conditions")]
    pub conditions: Vec<Condition>,
    /// How many objects are decorated, of all kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub parents: Option<i64>,
    /// The generation that this status was found out for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub observed_generation: Option<i64>,
}
