//! Schemas that the derive can't give us: upstream types with a bound on every list, map and string.
//!
//! Never used for Metacontroller's group, whose schemas must not refuse what its users already store.

use schemars::{Schema, SchemaGenerator, json_schema};

/// Longest `group/version`: a DNS subdomain, a slash and a DNS label.
pub(crate) const API_VERSION_MAX: u32 = 317;
/// Longest plural name of a kind: a DNS label.
pub(crate) const RESOURCE_MAX: u32 = 63;
/// Longest webhook URL, and longest path of a Service's webhook.
pub(crate) const URL_MAX: u32 = 2048;
/// Longest scheme, host and port of one of several URLs.
pub(crate) const ORIGIN_MAX: u32 = 270;
/// Most URLs of one webhook: more replicas are what a Service is for.
pub(crate) const URLS_MAX: u32 = 32;
/// Longest name of an object: a DNS subdomain.
pub(crate) const OBJECT_NAME_MAX: u32 = 253;
/// Longest key of a Secret's or ConfigMap's data.
pub(crate) const DATA_KEY_MAX: u32 = 253;
/// Longest scheme of an `Authorization` header.
pub(crate) const AUTH_SCHEME_MAX: u32 = 64;
/// Longest host with its port: a DNS subdomain, a colon and five digits.
pub(crate) const HOST_MAX: u32 = 259;
/// Most hosts with credentials of their own.
pub(crate) const ENDPOINT_CONFIGS_MAX: u32 = 32;
/// Longest time for which a reply is remembered by its entity tag, in seconds: a week.
pub(crate) const ETAG_TIMEOUT_SECONDS_MAX: i32 = 7 * 86_400;
/// Longest text of certificates in a controller: a good hundred of them.
pub(crate) const CA_BUNDLE_MAX: u32 = 256 << 10;
/// Most child kinds of one controller.
pub(crate) const CHILD_RESOURCES_MAX: u32 = 64;
/// Most kinds that one controller decorates.
pub(crate) const TARGET_RESOURCES_MAX: u32 = 16;
/// Most paths of fields that a revision keeps.
pub(crate) const FIELD_PATHS_MAX: u32 = 16;
/// Longest path of a field.
pub(crate) const FIELD_PATH_MAX: u32 = 253;
/// Most conditions that a rolled child must show.
pub(crate) const STATUS_CHECKS_MAX: u32 = 16;
/// Longest name of an API group: a DNS subdomain.
pub(crate) const GROUP_MAX: u32 = 253;
/// Most kinds whose objects one ring divides.
pub(crate) const RING_RESOURCES_MAX: u32 = 64;
/// Most kinds of objects that follow those of one of them.
pub(crate) const CONTROLLED_RESOURCES_MAX: u32 = 64;
/// Longest type of a condition (meta/v1).
pub(crate) const CONDITION_TYPE_MAX: u32 = 316;
/// Longest status or reason of a condition (meta/v1).
pub(crate) const CONDITION_REASON_MAX: u32 = 1024;
/// Most conditions in a status.
const CONDITIONS_MAX: u32 = 16;
/// Most labels, expressions, and values of one expression in a selector.
const SELECTOR_MAX: u32 = 64;

/// A `LabelSelector` (meta/v1) with bounds.
pub(crate) fn label_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Labels that a parent must have. Every parent when left out.",
        "type": "object",
        "properties": {
            "matchLabels": {
                "description": "Labels and the values that they must have.",
                "type": "object",
                "maxProperties": SELECTOR_MAX,
                "additionalProperties": { "type": "string", "maxLength": 63 },
            },
            "matchExpressions": {
                "description": "Conditions on labels, all of which must hold.",
                "type": "array",
                "maxItems": SELECTOR_MAX,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": { "description": "The label.", "type": "string", "minLength": 1, "maxLength": 317 },
                        "operator": {
                            "description": "How the label is compared with the values.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "The values, for In and NotIn only.",
                            "type": "array",
                            "maxItems": SELECTOR_MAX,
                            "x-kubernetes-list-type": "atomic",
                            "items": { "type": "string", "maxLength": 63 },
                        },
                    },
                },
            },
        },
        "x-kubernetes-map-type": "atomic",
    })
}

/// A selector over annotations, with the bounds of one over labels: its values must have the form of labels' values too.
pub(crate) fn annotation_selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "Annotations that an object must have beside. Every object when left out.",
        "type": "object",
        "properties": {
            "matchAnnotations": {
                "description": "Annotations and the values that they must have.",
                "type": "object",
                "maxProperties": SELECTOR_MAX,
                "additionalProperties": { "type": "string", "maxLength": 63 },
            },
            "matchExpressions": {
                "description": "Conditions on annotations, all of which must hold.",
                "type": "array",
                "maxItems": SELECTOR_MAX,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": { "description": "The annotation.", "type": "string", "minLength": 1, "maxLength": 317 },
                        "operator": {
                            "description": "How the annotation is compared with the values.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "The values, for In and NotIn only.",
                            "type": "array",
                            "maxItems": SELECTOR_MAX,
                            "x-kubernetes-list-type": "atomic",
                            "items": { "type": "string", "maxLength": 63 },
                        },
                    },
                },
            },
        },
        "x-kubernetes-map-type": "atomic",
    })
}

/// A list of `Condition` (meta/v1), a map by type, with the bounds that Kubernetes documents for its fields.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "description": "What is known about this controller, one entry for each type.",
        "type": "array",
        "maxItems": CONDITIONS_MAX,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "lastTransitionTime": {
                    "description": "When the status last changed.",
                    "type": "string",
                    "format": "date-time",
                },
                "message": { "description": "Details for people.", "type": "string", "maxLength": 32768 },
                "observedGeneration": {
                    "description": "The generation that this was found out for.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
                "reason": {
                    "description": "Why, as one word for programs.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "status": {
                    "description": "Whether it holds.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "type": {
                    "description": "What this is about, such as Ready.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 316,
                },
            },
        },
    })
}
