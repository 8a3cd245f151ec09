//! Why a CRD's schema isn't accepted, beside its structure: unsupported fields, lists, defaults and CEL rules.
//!
//! The estimate of what CEL rules cost is not made: a rule that the real server refuses as too costly is accepted here.

use serde_json::Value;

use super::{
    cel,
    compile::{self, Node, list},
    internal, meta, print, prune,
    structural::{self, below, fields, flag, shown, text},
    validate,
};
use crate::field_error::{FieldError, go_quote};

const TYPES: [&str; 6] = ["array", "boolean", "integer", "number", "object", "string"];
const META_FIELDS: [&str; 3] = ["metadata", "kind", "apiVersion"];
const REASONS: [&str; 4] = ["FieldValueDuplicate", "FieldValueForbidden", "FieldValueInvalid", "FieldValueRequired"];

/// Fields that the root may have when the status is a subresource, as the real server lists them.
const ROOT_WITH_STATUS: [&str; 22] = [
    "Description",
    "Type",
    "Format",
    "Title",
    "Maximum",
    "ExclusiveMaximum",
    "Minimum",
    "ExclusiveMinimum",
    "MaxLength",
    "MinLength",
    "Pattern",
    "MaxItems",
    "MinItems",
    "UniqueItems",
    "MultipleOf",
    "Required",
    "Items",
    "Properties",
    "ExternalDocs",
    "Example",
    "XPreserveUnknownFields",
    "XValidations",
];

/// Finds why a schema would be refused; `path` is where it stands in the CRD.
pub(super) fn check(schema: &Value, root: &Node, path: &str, status: bool) -> Vec<FieldError> {
    let mut errors = Vec::new();
    if status {
        root_with_status(schema, path, &mut errors);
    }
    if flag(schema, "nullable") {
        errors.push(FieldError::forbidden(format!("{path}.nullable"), "nullable cannot be true at the root"));
    }
    let mut rules_checkable = false;
    // What can't be made structural is only reported if nothing below finds the same fault.
    if unsupported(schema).is_none() {
        let mut structure = structural::check(schema, path);
        if structure.is_empty() {
            defaults(schema, root, path, true, &mut structure);
            rules_checkable = structure.is_empty();
        }
        errors.append(&mut structure);
    }
    let mut walk = Walk { rules_checkable, errors: Vec::new(), rule_errors: Vec::new() };
    let place = Place { path: path.to_owned(), is_root: true, inside_meta: false, no_defaults: None, no_old: None };
    walk.schema(schema, rules_checkable.then_some(root), &place);
    errors.append(&mut walk.errors);
    errors.append(&mut walk.rule_errors);
    if errors.is_empty()
        && let Some(name) = unsupported(schema)
    {
        errors.push(FieldError::invalid(path, "\"\"", format!("OpenAPIV3Schema '{name}' is not supported")));
    }
    errors
}

/// A field somewhere in the schema that structural schemas have no place for.
fn unsupported(schema: &Value) -> Option<&'static str> {
    let set = |name: &str| schema.get(name).is_some_and(|value| !value.is_null() && *value != "");
    let filled = |name: &str| fields(schema, name).next().is_some();
    let here = ["id", "$schema", "$ref"].into_iter().find(|name| set(name));
    let here = here.or_else(|| ["patternProperties", "dependencies"].into_iter().find(|name| filled(name)));
    let here = here.or_else(|| set("additionalItems").then_some("additionalItems"));
    let here = here.or_else(|| filled("definitions").then_some("definitions"));
    let here = here.or_else(|| (!list(schema, "items").is_empty()).then_some("items"));
    let odd = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false));
    let here = here.or_else(|| odd.then_some("x-kubernetes-preserve-unknown-fields"));
    here.or_else(|| children(schema).find_map(unsupported))
}

fn children(schema: &Value) -> impl Iterator<Item = &Value> {
    let singles = ["items", "additionalProperties", "not"].into_iter().filter_map(|name| below(schema, name));
    let lists = ["allOf", "anyOf", "oneOf"].into_iter().flat_map(|name| list(schema, name));
    fields(schema, "properties").map(|(_, schema)| schema).chain(singles).chain(lists)
}

fn root_with_status(schema: &Value, path: &str, errors: &mut Vec<FieldError>) {
    for (name, value) in schema.as_object().into_iter().flatten() {
        let go = internal::go_name(name);
        if matches!(value, Value::Null | Value::Bool(false)) || *value == "" {
            continue;
        }
        if name == "type" {
            if value != "object" {
                let detail = "only \"object\" is allowed as the type at the root of the schema if the status subresource is enabled";
                errors.push(FieldError::invalid(format!("{path}.type"), shown(Some(value)), detail));
                break;
            }
        } else if !ROOT_WITH_STATUS.contains(&go.as_str()) {
            let allowed = ROOT_WITH_STATUS.join(" ");
            let detail = format!(
                "only [{allowed}] fields are allowed at the root of the schema if the status subresource is enabled"
            );
            errors.push(FieldError::invalid(path, internal::schema(schema), detail));
            break;
        }
    }
}

/// Checks that defaults fit their schemas; those inside additionalProperties are not looked at.
fn defaults(schema: &Value, node: &Node, path: &str, is_root: bool, errors: &mut Vec<FieldError>) {
    if let Some(value) = &node.default {
        let at = format!("{path}.default");
        let whole = is_root || node.embedded;
        let mut pruned = value.clone();
        if whole {
            prune::unknown_fields(&mut pruned, node, &mut Vec::new());
        } else {
            prune::part(&mut pruned, node);
        }
        if pruned != *value {
            errors.push(FieldError::invalid(&at, print::value(value), "must not have unknown fields"));
        }
        let before = errors.len();
        match meta::embedded_decodable(value, node, &at) {
            Err(error) => errors.push(error),
            Ok(()) => {
                match value.as_object().filter(|_| is_root && !node.embedded) {
                    Some(fields) => meta::validate_object(fields, &at, errors),
                    None => meta::validate_embedded(value, node, &at, errors),
                }
                if errors.len() == before {
                    errors.append(&mut validate::validate(value, None, node, &at));
                }
                if errors.len() == before {
                    errors.append(&mut cel::validate(value, Some(value), node, &at, false));
                }
                if errors.len() == before {
                    errors.append(&mut cel::validate(value, None, node, &at, false));
                }
            }
        }
    }
    if let (Some(schema), Some(node)) = (below(schema, "items"), node.items.as_deref()) {
        defaults(schema, node, &format!("{path}.items"), false, errors);
    }
    for (name, schema) in fields(schema, "properties") {
        // Defaults of the root's metadata are forbidden anyway, and embedded ones are checked with their object.
        if let Some(node) = node.properties.get(name).filter(|_| !(is_root && META_FIELDS.contains(&name.as_str()))) {
            defaults(schema, node, &format!("{path}.properties[{name}]"), false, errors);
        }
    }
}

/// Where a schema stands and what is forbidden there.
#[derive(Clone)]
struct Place {
    path: String,
    is_root: bool,
    inside_meta: bool,
    /// Why defaults are forbidden, if they are.
    no_defaults: Option<String>,
    /// Where old values can't be found, if they can't.
    no_old: Option<String>,
}

impl Place {
    fn below(&self, part: &str) -> Self {
        Self { path: format!("{}.{part}", self.path), is_root: false, ..self.clone() }
    }

    fn at(&self, part: &str) -> String {
        format!("{}.{part}", self.path)
    }
}

struct Walk {
    rules_checkable: bool,
    errors: Vec<FieldError>,
    rule_errors: Vec<FieldError>,
}

impl Walk {
    /// Checks a schema and those below it; returns whether it has faults other than of its rules.
    fn schema(&mut self, schema: &Value, node: Option<&Node>, place: &Place) {
        let before = self.errors.len();
        self.supported(schema, place);
        self.additional(schema, node, place);
        for (name, part) in fields(schema, "properties") {
            let mut inner = place.below(&format!("properties[{name}]"));
            if !matches!(text(schema, "x-kubernetes-map-type"), "" | "granular" | "atomic") {
                inner.no_old.get_or_insert_with(|| place.path.clone());
            }
            if (place.is_root || flag(schema, "x-kubernetes-embedded-resource")) && META_FIELDS.contains(&name.as_str())
            {
                inner.inside_meta = true;
                if place.is_root {
                    inner.no_defaults = Some(format!("in top-level {name}"));
                }
            }
            self.schema(part, node.and_then(|node| node.properties.get(name)), &inner);
        }
        if let Some(part) = below(schema, "not") {
            self.schema(part, None, &place.below("not"));
        }
        for junctor in ["allOf", "oneOf", "anyOf"] {
            for (i, part) in list(schema, junctor).iter().enumerate() {
                self.schema(part, None, &place.below(&format!("{junctor}[{i}]")));
            }
        }
        for (name, part) in fields(schema, "definitions") {
            self.schema(part, None, &place.below(&format!("definitions[{name}]")));
        }
        let mut inner = place.below("items");
        if text(schema, "x-kubernetes-list-type") != "map" {
            inner.no_old.get_or_insert_with(|| place.path.clone());
        }
        if let Some(part) = below(schema, "items") {
            self.schema(part, node.and_then(|node| node.items.as_deref()), &inner);
        }
        for (i, part) in list(schema, "items").iter().enumerate() {
            self.schema(part, None, &Place { path: place.at(&format!("items[{i}]")), ..inner.clone() });
        }
        self.extensions(schema, place);
        self.list_type(schema, place);
        self.list_map(schema, place);
        self.rule_texts(schema, place);
        if let Some(node) = node
            && self.rules_checkable
            && self.errors.len() == before
            && !node.rules.is_empty()
        {
            self.rules(schema, node, place);
        }
    }

    fn forbid(&mut self, at: String, detail: impl Into<String>) {
        self.errors.push(FieldError::forbidden(at, detail));
    }

    fn invalid(&mut self, at: String, value: String, detail: &str) {
        self.errors.push(FieldError::invalid(at, value, detail));
    }

    fn require(&mut self, at: String, detail: &str) {
        self.errors.push(FieldError::required(at, detail));
    }

    fn supported(&mut self, schema: &Value, place: &Place) {
        let type_name = text(schema, "type");
        if !type_name.is_empty() && !TYPES.contains(&type_name) {
            self.errors.push(FieldError::not_supported(place.at("type"), go_quote(type_name), &TYPES));
        }
        if schema.get("default").is_some_and(|value| !value.is_null())
            && let Some(why) = &place.no_defaults
        {
            self.forbid(place.at("default"), format!("must not be set {why}"));
        }
        let set = |name: &str| schema.get(name).is_some_and(|value| !value.is_null() && *value != "");
        let filled = |name: &str| fields(schema, name).next().is_some();
        let found = [
            ("id", set("id")),
            ("additionalItems", set("additionalItems")),
            ("patternProperties", filled("patternProperties")),
            ("definitions", filled("definitions")),
            ("dependencies", set("dependencies")),
            ("$ref", set("$ref")),
        ];
        for (name, _) in found.into_iter().filter(|(_, found)| *found) {
            self.forbid(place.at(name), format!("{name} is not supported"));
        }
        if type_name == "null" {
            self.forbid(place.at("type"), "type cannot be set to null, use nullable as an alternative");
        }
        if !list(schema, "items").is_empty() {
            self.forbid(place.at("items"), "items must be a schema object and not an array");
        }
        if place.inside_meta && flag(schema, "x-kubernetes-embedded-resource") {
            self.forbid(place.at("x-kubernetes-embedded-resource"), "must not be used inside of resource meta");
        }
        if flag(schema, "uniqueItems") {
            let detail = "uniqueItems cannot be set to true since the runtime complexity becomes quadratic";
            self.forbid(place.at("uniqueItems"), detail);
        }
    }

    fn additional(&mut self, schema: &Value, node: Option<&Node>, place: &Place) {
        let Some(additional) = schema.get("additionalProperties").filter(|value| !value.is_null()) else { return };
        if fields(schema, "properties").next().is_some() && *additional != Value::Bool(true) {
            let detail = "additionalProperties and properties are mutual exclusive";
            self.forbid(place.at("additionalProperties"), detail);
        }
        let mut inner = place.below("additionalProperties");
        if place.inside_meta {
            inner.no_defaults = Some("inside additionalProperties applying to object metadata".to_owned());
        }
        if additional.is_object() {
            self.schema(additional, node.and_then(|node| node.additional.node()), &inner);
        }
    }

    fn extensions(&mut self, schema: &Value, place: &Place) {
        if schema.get("x-kubernetes-preserve-unknown-fields") == Some(&Value::Bool(false)) {
            let at = place.at("x-kubernetes-preserve-unknown-fields");
            self.invalid(at, "false".to_owned(), "must be true or undefined");
        }
        for (name, wanted, known) in [
            ("x-kubernetes-map-type", "object", &["atomic", "granular"][..]),
            ("x-kubernetes-list-type", "array", &["atomic", "set", "map"][..]),
        ] {
            let Some(value) = schema.get(name).and_then(Value::as_str) else { continue };
            let type_name = text(schema, "type");
            let detail = format!("must be {wanted} if {name} is specified");
            if type_name.is_empty() {
                self.require(place.at("type"), &detail);
            } else if type_name != wanted {
                self.invalid(place.at("type"), go_quote(type_name), &detail);
            } else if name == "x-kubernetes-list-type" && value == "set" {
                self.set_items(schema, place);
            }
            if !known.contains(&value) {
                self.errors.push(FieldError::not_supported(place.at(name), go_quote(value), known));
            }
        }
    }

    fn set_items(&mut self, schema: &Value, place: &Place) {
        let Some(items) = below(schema, "items") else { return };
        let detail = "must be atomic as item of a list with x-kubernetes-list-type=set";
        let list_type = items.get("x-kubernetes-list-type");
        match text(items, "type") {
            "array" if list_type.is_some_and(|value| value != "atomic") => {
                self.invalid(place.at("items.x-kubernetes-list-type"), shown(list_type), detail);
            }
            // The real server shows the list's type here, not the map's.
            "object" if text(items, "x-kubernetes-map-type") != "atomic" => {
                self.invalid(place.at("items.x-kubernetes-map-type"), shown(list_type), detail);
            }
            _ => {}
        }
    }

    fn list_type(&mut self, schema: &Value, place: &Place) {
        let list_type = text(schema, "x-kubernetes-list-type");
        let at = place.at("x-kubernetes-list-type");
        if !list(schema, "x-kubernetes-list-map-keys").is_empty() && list_type != "map" {
            let detail = "must be map if x-kubernetes-list-map-keys is non-empty";
            if list_type.is_empty() {
                self.require(at, detail);
            } else {
                self.invalid(at, go_quote(list_type), detail);
            }
        }
    }

    fn list_map(&mut self, schema: &Value, place: &Place) {
        let list_type = text(schema, "x-kubernetes-list-type");
        let keys = list(schema, "x-kubernetes-list-map-keys");
        let items = below(schema, "items");
        let keys_at = place.at("x-kubernetes-list-map-keys");
        let is_map = list_type == "map";
        if is_map {
            if keys.is_empty() {
                self.require(keys_at.clone(), "must not be empty if x-kubernetes-list-type is map");
            }
            match items {
                None => self.require(place.at("items"), "must have a schema if x-kubernetes-list-type is map"),
                Some(items) if text(items, "type") != "object" => {
                    let detail = "must be object if parent array's x-kubernetes-list-type is map";
                    self.invalid(place.at("items.type"), go_quote(text(items, "type")), detail);
                }
                Some(items) => self.list_map_keys(keys, items, place, &keys_at),
            }
        }
        let Some(items) = items.filter(|_| is_map || list_type == "set") else { return };
        if flag(items, "nullable") {
            let detail = format!("cannot be nullable when x-kubernetes-list-type is {list_type}");
            self.forbid(place.at("items.nullable"), detail);
        }
        let required = list(items, "required");
        for key in keys.iter().filter_map(Value::as_str).filter(|_| is_map) {
            let Some(known) = items.get("properties").and_then(|known| known.get(key)) else { continue };
            let at = format!("{}.items.properties[{key}]", place.path);
            if !required.iter().any(|name| name == key) && known.get("default").is_none_or(Value::is_null) {
                let detail = "this property is in x-kubernetes-list-map-keys, so it must have a default or be a required property";
                self.require(format!("{at}.default"), detail);
            }
            if flag(known, "nullable") {
                let detail = "this property is in x-kubernetes-list-map-keys, so it cannot be nullable";
                self.forbid(format!("{at}.nullable"), detail);
            }
        }
    }

    fn list_map_keys(&mut self, keys: &[Value], items: &Value, place: &Place, keys_at: &str) {
        let all = || print::json(&Value::Array(keys.to_vec()));
        for (i, key) in keys.iter().enumerate() {
            let name = key.as_str().unwrap_or_default();
            match items.get("properties").and_then(|known| known.get(name)) {
                Some(known) if matches!(text(known, "type"), "array" | "object") => {
                    let at = format!("{}.items.properties[{name}].type", place.path);
                    let detail = "must be a scalar type if parent array's x-kubernetes-list-type is map";
                    self.invalid(at, go_quote(text(items, "type")), detail);
                }
                Some(_) => {}
                None => self.invalid(keys_at.to_owned(), all(), "entries must all be names of item properties"),
            }
            if keys[..i].contains(key) {
                self.invalid(keys_at.to_owned(), all(), "must not contain duplicate entries");
            }
        }
    }

    fn rule_texts(&mut self, schema: &Value, place: &Place) {
        for (i, rule) in list(schema, "x-kubernetes-validations").iter().enumerate() {
            let at = |name: &str| format!("{}.x-kubernetes-validations[{i}].{name}", place.path);
            let newline = |text: &str| text.contains(['\n', '\r']);
            let (body, message) = (text(rule, "rule").trim(), text(rule, "message"));
            if body.is_empty() {
                self.require(at("rule"), "rule is not specified");
            } else if !message.is_empty() && message.trim().is_empty() {
                self.invalid(at("message"), go_quote(message), "must be non-empty if specified");
            } else if newline(message.trim()) {
                self.invalid(at("message"), go_quote(message), "must not contain line breaks");
            } else if newline(body) && message.is_empty() {
                self.require(at("message"), "message must be specified if rule contains line breaks");
            }
            let expression = text(rule, "messageExpression");
            if !expression.is_empty() && expression.trim().is_empty() {
                self.require(at("messageExpression"), "messageExpression must be non-empty if specified");
            }
            if let Some(reason) = rule.get("reason").and_then(Value::as_str)
                && !REASONS.contains(&reason)
            {
                self.errors.push(FieldError::not_supported(at("reason"), go_quote(reason), &REASONS));
            }
            let field = text(rule, "fieldPath");
            if !field.is_empty() {
                if field.trim().is_empty() {
                    self.invalid(at("fieldPath"), go_quote(field), "must be non-empty if specified");
                }
                if newline(field) {
                    self.invalid(at("fieldPath"), go_quote(field), "must not contain line breaks");
                }
                if cel::field_path(field, &compile::node(schema, false)).is_none() {
                    self.invalid(at("fieldPath"), go_quote(field), "must be a valid path");
                }
            }
        }
    }

    fn rules(&mut self, schema: &Value, node: &Node, place: &Place) {
        let at = |i: usize, name: &str| format!("{}.x-kubernetes-validations[{i}].{name}", place.path);
        if !cel::has_type(node, place.is_root) {
            let detail = "internal error: failed to construct type information for x-kubernetes-validations rules: unable to convert structural schema to CEL declarations";
            self.rule_errors.push(FieldError::internal(place.at("x-kubernetes-validations"), detail));
            return;
        }
        for (i, (written, rule)) in list(schema, "x-kubernetes-validations").iter().zip(&node.rules).enumerate() {
            if let Some(why) = rule.refused() {
                self.rule_errors.push(FieldError::invalid(at(i, "rule"), internal::rule(written), why));
            }
            if let Some(why) = rule.message_refused() {
                self.rule_errors.push(FieldError::invalid(at(i, "messageExpression"), internal::rule(written), why));
            }
            if rule.uses_old() {
                if let Some(outer) = &place.no_old {
                    let detail =
                        format!("oldSelf cannot be used on the uncorrelatable portion of the schema within {outer}");
                    self.rule_errors.push(FieldError::invalid(at(i, "rule"), go_quote(text(written, "rule")), detail));
                }
            } else if let Some(optional) = written.get("optionalOldSelf").filter(|value| !value.is_null()) {
                let detail = "may not be set if oldSelf is not used in rule";
                self.rule_errors.push(FieldError::invalid(at(i, "optionalOldSelf"), shown(Some(optional)), detail));
            }
        }
    }
}

/// Prunes the defaults of an accepted schema, as the real server does when it serves it.
pub(super) fn prune_defaults(node: &mut Node) {
    if let Some(mut value) = node.default.take() {
        prune::part(&mut value, node);
        node.default = Some(value);
    }
    node.properties.values_mut().for_each(prune_defaults);
    if let Some(items) = &mut node.items {
        prune_defaults(items);
    }
    if let compile::Additional::Schema(known) = &mut node.additional {
        prune_defaults(known);
    }
}
