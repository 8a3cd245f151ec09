//! From a CRD's openAPIV3Schema to a tree that pruning, defaulting and validation walk.
//!
//! Never refuses a schema: what the real server doesn't accept is found by `refuse` and `structural`.

use std::collections::BTreeMap;

use regex::Regex;
use serde_json::Value;

use super::{cel::Rule, format::Format, pattern};

/// A schema or a part of one; also what stands under allOf, anyOf, oneOf and not.
#[derive(Debug, Default)]
pub(super) struct Node {
    /// `type`; empty if none is said.
    pub type_name: String,
    /// `format` as it is written.
    pub format_name: String,
    /// `format` if this server checks it for the node's type.
    pub format: Format,
    /// `nullable`.
    pub nullable: bool,
    /// `default`; a null counts as none.
    pub default: Option<Value>,
    /// `maximum` and the like.
    pub numbers: Numbers,
    /// `maxLength`.
    pub max_length: Option<i64>,
    /// `minLength`.
    pub min_length: Option<i64>,
    /// `pattern`.
    pub pattern: Option<Pattern>,
    /// `maxItems`.
    pub max_items: Option<i64>,
    /// `minItems`.
    pub min_items: Option<i64>,
    /// `uniqueItems`.
    pub unique_items: bool,
    /// `maxProperties`.
    pub max_properties: Option<i64>,
    /// `minProperties`.
    pub min_properties: Option<i64>,
    /// `required`.
    pub required: Vec<String>,
    /// `enum`.
    pub values: Vec<Value>,
    /// `properties`, sorted by name.
    pub properties: BTreeMap<String, Node>,
    /// `additionalProperties`.
    pub additional: Additional,
    /// `items`.
    pub items: Option<Box<Node>>,
    /// `allOf`.
    pub all_of: Vec<Node>,
    /// `anyOf`.
    pub any_of: Vec<Node>,
    /// `oneOf`.
    pub one_of: Vec<Node>,
    /// `not`.
    pub not: Option<Box<Node>>,
    /// `x-kubernetes-int-or-string`.
    pub int_or_string: bool,
    /// `x-kubernetes-preserve-unknown-fields`.
    pub preserve_unknown: bool,
    /// `x-kubernetes-embedded-resource`.
    pub embedded: bool,
    /// `x-kubernetes-list-type`.
    pub list_type: ListType,
    /// `x-kubernetes-map-type` other than granular and atomic makes old values unfindable.
    pub map_uncorrelatable: bool,
    /// `x-kubernetes-validations`.
    pub rules: Vec<Rule>,
    /// Whether this node or one below has rules.
    pub has_rules: bool,
}

/// The limits of a number.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Numbers {
    /// `maximum`, and whether it is exclusive.
    pub maximum: Option<(f64, bool)>,
    /// `minimum`, and whether it is exclusive.
    pub minimum: Option<(f64, bool)>,
    /// `multipleOf`.
    pub multiple_of: Option<f64>,
}

/// `additionalProperties`.
#[derive(Debug, Default)]
pub(super) enum Additional {
    /// Not said.
    #[default]
    Unsaid,
    /// A boolean.
    Flag(bool),
    /// A schema.
    Schema(Box<Node>),
}

impl Additional {
    /// The schema, if it is one.
    pub(super) fn node(&self) -> Option<&Node> {
        match self {
            Self::Schema(node) => Some(node),
            Self::Unsaid | Self::Flag(_) => None,
        }
    }
}

/// `pattern`: the text, and the expression or why it isn't one.
#[derive(Debug)]
pub(super) struct Pattern {
    /// As written.
    pub text: String,
    /// Compiled.
    pub regex: Result<Regex, String>,
}

/// `x-kubernetes-list-type`.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) enum ListType {
    /// Not said, or atomic.
    #[default]
    Atomic,
    /// Each item once.
    Set,
    /// One item for each combination of these keys.
    Map(Vec<String>),
}

/// Makes the tree of a schema; expects what `refuse` accepted, and takes what it can of anything else.
pub(super) fn node(schema: &Value, is_root: bool) -> Node {
    let text = |name: &str| schema.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let flag = |name: &str| schema.get(name).and_then(Value::as_bool).unwrap_or(false);
    let int = |name: &str| schema.get(name).and_then(Value::as_f64).map(|x| x as i64);
    let float = |name: &str| schema.get(name).and_then(Value::as_f64);
    let texts = |name: &str| -> Vec<String> {
        list(schema, name).iter().filter_map(Value::as_str).map(str::to_owned).collect()
    };
    let nodes = |name: &str| -> Vec<Node> { list(schema, name).iter().map(|item| node(item, false)).collect() };
    let boxed = |name: &str| schema.get(name).filter(|s| s.is_object()).map(|s| Box::new(node(s, false)));

    let properties: BTreeMap<String, Node> = schema
        .get("properties")
        .and_then(Value::as_object)
        .map(|fields| fields.iter().map(|(name, schema)| (name.clone(), node(schema, false))).collect())
        .unwrap_or_default();
    let additional = match schema.get("additionalProperties") {
        Some(Value::Bool(flag)) => Additional::Flag(*flag),
        Some(schema @ Value::Object(_)) => Additional::Schema(Box::new(node(schema, false))),
        _ => Additional::Unsaid,
    };
    let type_name = text("type");
    let format_name = text("format");
    let int_or_string = flag("x-kubernetes-int-or-string");
    let items = boxed("items");
    let all_of = nodes("allOf");
    let mut made = Node {
        // The type of an int-or-string is two types, which is none for a format.
        format: Format::of(&format_name, if int_or_string { "" } else { &type_name }),
        nullable: flag("nullable"),
        default: schema.get("default").filter(|value| !value.is_null()).cloned(),
        numbers: Numbers {
            maximum: float("maximum").map(|x| (x, flag("exclusiveMaximum"))),
            minimum: float("minimum").map(|x| (x, flag("exclusiveMinimum"))),
            multiple_of: float("multipleOf"),
        },
        max_length: int("maxLength"),
        min_length: int("minLength"),
        pattern: Some(text("pattern")).filter(|text| !text.is_empty()).map(|text| {
            let regex = pattern::compile(&text);
            Pattern { text, regex }
        }),
        max_items: int("maxItems"),
        min_items: int("minItems"),
        unique_items: flag("uniqueItems"),
        max_properties: int("maxProperties"),
        min_properties: int("minProperties"),
        required: texts("required"),
        values: list(schema, "enum").to_vec(),
        any_of: nodes("anyOf"),
        one_of: nodes("oneOf"),
        not: boxed("not"),
        preserve_unknown: flag("x-kubernetes-preserve-unknown-fields"),
        embedded: flag("x-kubernetes-embedded-resource"),
        list_type: match text("x-kubernetes-list-type").as_str() {
            "set" => ListType::Set,
            "map" => ListType::Map(texts("x-kubernetes-list-map-keys")),
            _ => ListType::Atomic,
        },
        map_uncorrelatable: !matches!(text("x-kubernetes-map-type").as_str(), "" | "granular" | "atomic"),
        rules: Vec::new(),
        has_rules: false,
        type_name,
        format_name,
        properties,
        additional,
        items,
        all_of,
        int_or_string,
    };
    let rules = list(schema, "x-kubernetes-validations");
    made.rules = rules.iter().map(|rule| Rule::compile(rule, &made, is_root || made.embedded)).collect();
    made.has_rules = !made.rules.is_empty()
        || made.properties.values().any(|node| node.has_rules)
        || made.additional.node().is_some_and(|node| node.has_rules)
        || made.items.as_ref().is_some_and(|node| node.has_rules)
        || made.all_of.iter().any(|node| node.has_rules);
    made
}

/// A list of a schema; empty if it isn't there.
pub(super) fn list<'a>(schema: &'a Value, name: &str) -> &'a [Value] {
    schema.get(name).and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default()
}
