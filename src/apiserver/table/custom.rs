//! The printer columns of custom kinds: what a definition declares, and the cells that it makes of an object.
//!
//! A faulty column is not refused here (the definition was accepted): it and those after it are left out, as
//! kube-apiserver's `customresource/tableconvertor` does.

use serde_json::{Value, json};

use super::age::{Instant, age};
use super::columns;
use super::go;
use super::jsonpath::Path;

/// One column that a definition declares.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct CustomColumn {
    /// The column as a table's `columnDefinitions` has it.
    definition: Value,
    kind: Kind,
    path: Path,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Integer,
    Number,
    Boolean,
    String,
    Date,
    Other,
}

/// Reads `additionalPrinterColumns` of one version of a definition.
///
/// Absent or empty, it is the age alone.
pub(super) fn read(declared: &Value) -> Vec<CustomColumn> {
    let declared = declared.as_array().map_or(&[][..], Vec::as_slice);
    if declared.is_empty() {
        return Path::parse(".metadata.creationTimestamp")
            .map(|path| CustomColumn { definition: columns::AGE_DATE.to_json(), kind: Kind::Date, path })
            .into_iter()
            .collect();
    }
    declared.iter().map_while(CustomColumn::read).collect()
}

impl CustomColumn {
    fn read(declared: &Value) -> Option<Self> {
        let text = |name: &str| declared[name].as_str().unwrap_or_default();
        let json_path = text("jsonPath");
        let path = Path::parse(json_path).ok()?;
        let description = match text("description") {
            "" => format!("Custom resource definition column (in JSONPath format): {json_path}"),
            own => own.to_owned(),
        };
        let kind = match text("type") {
            "integer" => Kind::Integer,
            "number" => Kind::Number,
            "boolean" => Kind::Boolean,
            "string" => Kind::String,
            "date" => Kind::Date,
            _ => Kind::Other,
        };
        let definition = json!({
            "name": text("name"),
            "type": text("type"),
            "format": text("format"),
            "description": description,
            "priority": declared["priority"].as_i64().unwrap_or(0),
        });
        Some(Self { definition, kind, path })
    }

    pub(super) fn definition(&self) -> &Value {
        &self.definition
    }

    /// The column's cell for an object: null if the path finds nothing or nothing of the column's type.
    pub(super) fn cell(&self, object: &Value, now: Instant) -> Value {
        let Some(value) = self.path.first(object) else { return Value::Null };
        match (self.kind, value) {
            (Kind::String, value) => Value::String(go::print(value)),
            (Kind::Integer, Value::Number(number)) => Value::from(go::to_int64(number)),
            (Kind::Number, Value::Number(number)) => go::float_cell(number),
            (Kind::Boolean, Value::Bool(_)) => value.clone(),
            // The two ways in which a query parameter says "no time".
            (Kind::Date, Value::String(text)) if text.is_empty() || text == "null" => age(Instant::ZERO, now).into(),
            (Kind::Date, Value::String(text)) => match Instant::parse(text) {
                Some(time) => age(time, now).into(),
                None => "<invalid>".into(),
            },
            _ => Value::Null,
        }
    }
}
