//! Schemas and rules as the real server prints its internal types into messages: those have no JSON names.
//!
//! Only for messages.

use serde_json::Value;

use super::{print, structural::text};

/// The name of a schema's field in the server's internal type.
pub(super) fn go_name(name: &str) -> String {
    match name {
        "$ref" => "Ref".to_owned(),
        "$schema" => "Schema".to_owned(),
        "id" => "ID".to_owned(),
        _ => match name.strip_prefix("x-kubernetes-") {
            Some(rest) => rest.split('-').fold("X".to_owned(), |all, word| all + &capital(word)),
            None => capital(name),
        },
    }
}

fn capital(word: &str) -> String {
    let mut chars = word.chars();
    chars.next().map(|first| first.to_ascii_uppercase().to_string() + chars.as_str()).unwrap_or_default()
}

/// The fields of the server's internal type in order, with the JSON of what is unset.
const INTERNAL: &[(&str, &str)] = &[
    ("id", "\"\""),
    ("$schema", "\"\""),
    ("$ref", "null"),
    ("description", "\"\""),
    ("type", "\"\""),
    ("nullable", "false"),
    ("format", "\"\""),
    ("title", "\"\""),
    ("default", "null"),
    ("maximum", "null"),
    ("exclusiveMaximum", "false"),
    ("minimum", "null"),
    ("exclusiveMinimum", "false"),
    ("maxLength", "null"),
    ("minLength", "null"),
    ("pattern", "\"\""),
    ("maxItems", "null"),
    ("minItems", "null"),
    ("uniqueItems", "false"),
    ("multipleOf", "null"),
    ("enum", "null"),
    ("maxProperties", "null"),
    ("minProperties", "null"),
    ("required", "null"),
    ("items", "null"),
    ("allOf", "null"),
    ("oneOf", "null"),
    ("anyOf", "null"),
    ("not", "null"),
    ("properties", "null"),
    ("additionalProperties", "null"),
    ("patternProperties", "null"),
    ("dependencies", "null"),
    ("additionalItems", "null"),
    ("definitions", "null"),
    ("externalDocs", "null"),
    ("example", "null"),
    ("x-kubernetes-preserve-unknown-fields", "null"),
    ("x-kubernetes-embedded-resource", "false"),
    ("x-kubernetes-int-or-string", "false"),
    ("x-kubernetes-list-map-keys", "null"),
    ("x-kubernetes-list-type", "null"),
    ("x-kubernetes-map-type", "null"),
    ("x-kubernetes-validations", "null"),
];

/// A schema as the real server's internal type is printed: it has no JSON names.
pub(super) fn schema(whole: &Value) -> String {
    let each = |values: Vec<String>| format!("[{}]", values.join(","));
    let form = |name: &str, unset: &str| match (name, whole.get(name)) {
        (_, None | Some(Value::Null)) => unset.to_owned(),
        ("allOf" | "anyOf" | "oneOf", Some(Value::Array(parts))) => each(parts.iter().map(schema).collect()),
        ("x-kubernetes-validations", Some(Value::Array(rules))) => each(rules.iter().map(rule).collect()),
        ("not", Some(part)) => schema(part),
        ("items", Some(part)) => format!("{{\"Schema\":{},\"JSONSchemas\":null}}", schema(part)),
        ("additionalProperties" | "additionalItems", Some(Value::Bool(flag))) => {
            format!("{{\"Allows\":{flag},\"Schema\":null}}")
        }
        ("additionalProperties" | "additionalItems", Some(part)) => {
            format!("{{\"Allows\":true,\"Schema\":{}}}", schema(part))
        }
        ("properties", Some(Value::Object(parts))) => {
            let mut texts: Vec<String> = parts
                .iter()
                .map(|(name, part)| format!("{}:{}", print::json(&name.as_str().into()), schema(part)))
                .collect();
            texts.sort_unstable();
            format!("{{{}}}", texts.join(","))
        }
        (_, Some(value)) => print::json(value),
    };
    let all: Vec<String> =
        INTERNAL.iter().map(|(name, unset)| format!("\"{}\":{}", go_name(name), form(name, unset))).collect();
    format!("{{{}}}", all.join(","))
}

/// A rule as the real server's internal type is printed: it has no JSON names.
pub(super) fn rule(rule: &Value) -> String {
    let string = |name: &str| print::json(&text(rule, name).into());
    let any = |name: &str| rule.get(name).map_or_else(|| "null".to_owned(), print::json);
    format!(
        "{{\"Rule\":{},\"Message\":{},\"MessageExpression\":{},\"Reason\":{},\"FieldPath\":{},\"OptionalOldSelf\":{}}}",
        string("rule"),
        string("message"),
        string("messageExpression"),
        any("reason"),
        string("fieldPath"),
        any("optionalOldSelf")
    )
}
