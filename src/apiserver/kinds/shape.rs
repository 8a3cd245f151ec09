//! What Go's JSON decoder and encoder make of a built-in kind: which fields it knows, which types it refuses and in which
//! words, and which empty fields it writes again.
//!
//! The Go types are data (`shapes.json.gz`); no kind is named here. The rules are those of sigs.k8s.io/json and
//! encoding/json. Fields are read in the order in which the object holds them.

use std::collections::HashMap;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::Value;

use super::times::Precision;

mod decode;
mod protobuf;

pub(super) use decode::decode;
pub(super) use protobuf::Envelope;

static SHAPES: LazyLock<Shapes> = LazyLock::new(|| {
    let text = super::unpack(include_bytes!("shapes.json.gz"));
    // Nothing is known if the data can't be read, which the tests exclude.
    Shapes::compile(&serde_json::from_slice(&text).unwrap_or_default())
});

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawShape {
    kind: String,
    #[serde(default)]
    fields: Vec<RawField>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RawField {
    name: String,
    #[serde(rename = "type")]
    go_type: String,
    #[serde(default)]
    omit: Vec<String>,
    #[serde(default)]
    through: Vec<String>,
    #[serde(default)]
    number: Vec<u64>,
}

type Id = usize;

struct Type {
    /// As Go's reflection prints it.
    go: String,
    form: Form,
}

enum Form {
    Text,
    Bool,
    Int {
        low: i64,
        high: i64,
    },
    Float,
    /// Base64 in JSON.
    Bytes,
    Pointer(Id),
    List(Id),
    Map(Id),
    Struct(Struct),
    Quantity,
    IntOrString,
    Time(Precision),
    /// Any JSON.
    Raw,
    /// A schema or a boolean.
    SchemaOrBool(Id),
    /// A schema or a list of them.
    SchemaOrSchemas(Id),
    /// A schema or a list of texts.
    SchemaOrTexts(Id),
}

#[derive(Default)]
struct Struct {
    fields: Vec<Field>,
    by_name: HashMap<String, usize>,
    /// Fields that are written even if empty, as they are then.
    always: Vec<(String, Value)>,
}

struct Field {
    name: String,
    form: Id,
    omit_empty: bool,
    omit_zero: bool,
    through: Vec<String>,
    /// Its number in protobuf, behind those of the messages that it is in though JSON has it here; empty if it has none.
    number: Vec<u64>,
}

#[derive(Default)]
struct Shapes {
    types: Vec<Type>,
    by_expression: HashMap<String, Id>,
}

impl Shapes {
    fn compile(raw: &HashMap<String, RawShape>) -> Self {
        let mut shapes = Self::default();
        for name in raw.keys() {
            shapes.add(name, raw);
        }
        for id in 0..shapes.types.len() {
            let Form::Struct(known) = &shapes.types[id].form else { continue };
            let always: Vec<(String, Value)> = known
                .fields
                .iter()
                .filter(|field| !shapes.vanishes(field))
                .map(|field| (field.name.clone(), shapes.zero(field.form)))
                .collect();
            if let Form::Struct(known) = &mut shapes.types[id].form {
                known.always = always;
            }
        }
        shapes
    }

    /// The type of an expression such as `*[]k8s.io/api/core/v1.Container`.
    fn add(&mut self, expression: &str, raw: &HashMap<String, RawShape>) -> Id {
        if let Some(id) = self.by_expression.get(expression) {
            return *id;
        }
        let id = self.types.len();
        self.types.push(Type { go: display(expression), form: Form::Raw });
        self.by_expression.insert(expression.to_owned(), id);
        let form = match raw.get(expression) {
            Some(shape) if shape.kind == "struct" => Form::Struct(self.add_fields(&shape.fields, raw)),
            Some(shape) if shape.kind == "custom" => self.custom(expression, raw),
            Some(shape) => self.plain(&shape.kind, raw),
            None => self.plain(expression, raw),
        };
        self.types[id].form = form;
        id
    }

    fn plain(&mut self, expression: &str, raw: &HashMap<String, RawShape>) -> Form {
        if let Some(inner) = expression.strip_prefix('*') {
            return Form::Pointer(self.add(inner, raw));
        }
        if expression == "[]uint8" {
            return Form::Bytes;
        }
        if let Some(inner) = expression.strip_prefix("[]") {
            return Form::List(self.add(inner, raw));
        }
        if let Some((_, inner)) = expression.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
            // All keys are texts.
            return Form::Map(self.add(inner, raw));
        }
        match expression {
            "bool" => Form::Bool,
            "int32" => Form::Int { low: i32::MIN.into(), high: i32::MAX.into() },
            "int64" => Form::Int { low: i64::MIN, high: i64::MAX },
            "float64" => Form::Float,
            _ => Form::Text,
        }
    }

    fn custom(&mut self, expression: &str, raw: &HashMap<String, RawShape>) -> Form {
        let schema = |shapes: &mut Self| {
            shapes.add(&expression.replace(display(expression).as_str(), "v1.JSONSchemaProps"), raw)
        };
        match display(expression).as_str() {
            "resource.Quantity" => Form::Quantity,
            "intstr.IntOrString" => Form::IntOrString,
            "v1.Time" => Form::Time(Precision::Seconds),
            "v1.MicroTime" => Form::Time(Precision::Micros),
            "v1.JSONSchemaPropsOrBool" => Form::SchemaOrBool(schema(self)),
            "v1.JSONSchemaPropsOrArray" => Form::SchemaOrSchemas(schema(self)),
            "v1.JSONSchemaPropsOrStringArray" => Form::SchemaOrTexts(schema(self)),
            _ => Form::Raw,
        }
    }

    fn add_fields(&mut self, fields: &[RawField], raw: &HashMap<String, RawShape>) -> Struct {
        let fields: Vec<Field> = fields
            .iter()
            .map(|field| Field {
                name: field.name.clone(),
                form: self.add(&field.go_type, raw),
                omit_empty: field.omit.iter().any(|omit| omit == "empty"),
                omit_zero: field.omit.iter().any(|omit| omit == "zero"),
                through: field.through.clone(),
                number: field.number.clone(),
            })
            .collect();
        let by_name = fields.iter().enumerate().map(|(i, field)| (field.name.clone(), i)).collect();
        Struct { fields, by_name, always: Vec::new() }
    }

    fn form(&self, id: Id) -> &Form {
        &self.types[id].form
    }

    /// Whether an empty field isn't written: a struct is never empty for `omitempty`.
    fn vanishes(&self, field: &Field) -> bool {
        let is_struct = matches!(
            self.form(field.form),
            Form::Struct(_) | Form::Quantity | Form::IntOrString | Form::Time(_) | Form::Raw
        );
        field.omit_zero || (field.omit_empty && !is_struct)
    }

    /// Go's zero value, as it is written.
    fn zero(&self, id: Id) -> Value {
        match self.form(id) {
            Form::Text => "".into(),
            Form::Bool => false.into(),
            Form::Int { .. } | Form::Float | Form::IntOrString => 0.into(),
            Form::Quantity => "0".into(),
            Form::Struct(known) => {
                let always = known.fields.iter().filter(|field| !self.vanishes(field));
                Value::Object(always.map(|field| (field.name.clone(), self.zero(field.form))).collect())
            }
            _ => Value::Null,
        }
    }

    fn id(&self, go_type: &str) -> Option<Id> {
        self.by_expression.get(go_type).copied()
    }
}

/// `[]k8s.io/api/core/v1.Container` as `[]v1.Container`.
fn display(expression: &str) -> String {
    if let Some(inner) = expression.strip_prefix('*') {
        return format!("*{}", display(inner));
    }
    if let Some(inner) = expression.strip_prefix("[]") {
        return format!("[]{}", display(inner));
    }
    if let Some((key, inner)) = expression.strip_prefix("map[").and_then(|rest| rest.split_once(']')) {
        return format!("map[{}]{}", display(key), display(inner));
    }
    expression.rsplit('/').next().unwrap_or_default().to_owned()
}

/// The zero value of a field of a Go type, as it is written; null if it has no such field or it isn't written.
pub(super) fn zero_field(go_type: &str, field: &str) -> Value {
    let Some(Form::Struct(known)) = SHAPES.id(go_type).map(|id| SHAPES.form(id)) else { return Value::Null };
    known.always.iter().find(|(name, _)| name == field).map_or(Value::Null, |(_, zero)| zero.clone())
}

/// The Go type of the field that a path of names leads to, through lists and maps.
fn type_at(go_type: &str, path: &[&str]) -> Option<Id> {
    let mut id = SHAPES.id(go_type)?;
    for name in path {
        id = inner(id);
        let Form::Struct(known) = SHAPES.form(id) else { return None };
        id = known.fields[*known.by_name.get(*name)?].form;
    }
    Some(id)
}

fn inner(mut id: Id) -> Id {
    while let Form::Pointer(next) | Form::List(next) | Form::Map(next) = SHAPES.form(id) {
        id = *next;
    }
    id
}

/// A field's value as Go's encoding/json prints it: in the order of the struct, HTML escaped.
pub(super) fn go_json(go_type: &str, path: &[&str], value: &Value) -> String {
    let mut out = String::new();
    write_json(value, type_at(go_type, path), &mut out);
    out
}

fn write_json(value: &Value, id: Option<Id>, out: &mut String) {
    let comma = |first: &mut bool, out: &mut String| {
        if !std::mem::take(first) {
            out.push(',');
        }
    };
    let mut first = true;
    match value {
        Value::Array(items) => {
            let below = id.and_then(|id| match SHAPES.form(id) {
                Form::List(below) => Some(*below),
                _ => None,
            });
            out.push('[');
            for item in items {
                comma(&mut first, out);
                write_json(item, below, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            out.push('{');
            let mut id = id;
            while let Some(Form::Pointer(below) | Form::List(below)) = id.map(|id| SHAPES.form(id)) {
                id = Some(*below);
            }
            let mut member = |name: &str, value: &Value, below: Option<Id>, out: &mut String| {
                comma(&mut first, out);
                write_text(name, out);
                out.push(':');
                write_json(value, below, out);
            };
            match id.map(|id| SHAPES.form(id)) {
                Some(Form::Struct(known)) => {
                    for field in &known.fields {
                        if let Some(value) = members.get(&field.name) {
                            member(&field.name, value, Some(field.form), out);
                        }
                    }
                }
                form => {
                    let below = if let Some(Form::Map(below)) = form { Some(*below) } else { None };
                    let mut names: Vec<&String> = members.keys().collect();
                    names.sort_unstable();
                    for name in names {
                        member(name, &members[name], below, out);
                    }
                }
            }
            out.push('}');
        }
        Value::String(text) => write_text(text, out),
        other => out.push_str(&other.to_string()),
    }
}

fn write_text(text: &str, out: &mut String) {
    for c in Value::from(text).to_string().chars() {
        match c {
            '<' => out.push_str("\\u003c"),
            '>' => out.push_str("\\u003e"),
            '&' => out.push_str("\\u0026"),
            '\u{2028}' => out.push_str("\\u2028"),
            '\u{2029}' => out.push_str("\\u2029"),
            c => out.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn all_types_are_known() {
        assert!(SHAPES.types.len() > 300);
        for kind in super::super::all() {
            assert!(SHAPES.id(&kind.go_type).is_some(), "{}", kind.kind);
        }
        assert_eq!(zero_field("k8s.io/api/apps/v1.ReplicaSet", "status"), json!({ "replicas": 0 }));
    }

    #[test]
    fn values_are_printed_in_go_s_order() {
        let selector =
            json!({ "matchExpressions": [{ "operator": "In", "key": "<a>" }], "matchLabels": { "b": "1", "a": "" } });
        let expected =
            r#"{"matchLabels":{"a":"","b":"1"},"matchExpressions":[{"key":"\u003ca\u003e","operator":"In"}]}"#;
        assert_eq!(go_json("k8s.io/api/apps/v1.Deployment", &["spec", "selector"], &selector), expected);
    }
}
