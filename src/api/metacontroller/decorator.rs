//! `DecoratorController` of `metacontroller.k8s.io/v1alpha1`, as its contract has it.
//!
//! Never knows defaults: they are in [`crate::convert`].

use std::collections::BTreeMap;

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
    kind = "DecoratorController",
    plural = "decoratorcontrollers",
    shortname = "dec",
    shortname = "decorators",
    status = "DecoratorControllerStatus",
    derive = "PartialEq",
    doc = "A controller that adds to objects of existing kinds, as webhooks decide.",
    annotation("api-approved.kubernetes.io", "unapproved, Metacontroller's contract served by Ringmaster")
)]
#[serde(rename_all = "camelCase")]
pub struct DecoratorControllerSpec {
    /// The kinds whose objects are decorated.
    pub resources: Vec<TargetResource>,
    /// The kinds of objects that may be attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attachments: Option<Vec<Attachment>>,
    /// The webhooks that decide.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hooks: Option<DecoratorHooks>,
    /// TLS and credentials by host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_configs: Option<Vec<EndpointConfig>>,
    /// Sync every object this often, in seconds, changed or not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resync_period_seconds: Option<i32>,
}

/// One kind whose objects are decorated.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct TargetResource {
    /// Group and version, such as apps/v1; only the version for the core group.
    pub api_version: String,
    /// The kind's plural name, such as deployments.
    pub resource: String,
    /// Labels that an object must have. Every object when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<LabelSelector>,
    /// Annotations that an object must have. Every object when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub annotation_selector: Option<AnnotationSelector>,
    /// Whether a change of an object's status alone leads to no sync. False when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ignore_status_changes: Option<bool>,
}

/// Annotations that an object must have.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct AnnotationSelector {
    /// Annotations and the values that they must have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_annotations: Option<BTreeMap<String, String>>,
    /// Conditions on annotations, all of which must hold.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub match_expressions: Option<Vec<AnnotationExpression>>,
}

/// One condition on an annotation, with the operators of a label selector.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct AnnotationExpression {
    /// The annotation.
    pub key: String,
    /// In, NotIn, Exists or DoesNotExist.
    pub operator: String,
    /// The values, for In and NotIn only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub values: Option<Vec<String>>,
}

/// One kind of attached objects.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Attachment {
    /// Group and version, such as apps/v1; only the version for the core group.
    pub api_version: String,
    /// The kind's plural name, such as deployments.
    pub resource: String,
    /// What happens to an attachment that differs from what the hook wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_strategy: Option<AttachmentUpdateStrategy>,
}

/// What happens to an attachment that differs from what the hook wants.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct AttachmentUpdateStrategy {
    /// How the attachment gets to what the hook wants. OnDelete when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("enum" = ["OnDelete", "Recreate", "InPlace", "RollingRecreate", "RollingInPlace"]))]
    pub method: Option<String>,
}

/// The webhooks of a decorator.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct DecoratorHooks {
    /// Says which other objects the hooks need to see.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customize: Option<Hook>,
    /// Says what an object should have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<Hook>,
    /// Called instead of sync for an object that goes away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finalize: Option<Hook>,
}

/// Nothing: the contract has no fields here.
#[derive(JsonSchema, Clone, Debug, Default, Deserialize, Serialize, PartialEq, Eq)]
pub struct DecoratorControllerStatus {}
