//! Decodes objects by the shape of their type.
//!
//! The rules and the words are those of sigs.k8s.io/json and of the types that decode themselves.

use serde_json::{Map, Value};

use super::{Field, Form, Id, SHAPES, Struct};
use crate::field_error::json_kind;
use crate::kinds::quantity::Quantity;
use crate::kinds::times::{self, Precision};

/// Unknown fields that are named; more are only dropped (sigs.k8s.io/json keeps as many).
const MAX_COMPLAINTS: usize = 100;

/// Decodes an object of a Go type. The result is as Go would write it, with its unknown fields named.
///
/// # Errors
/// The words of Go's decoder.
pub(in crate::kinds) fn decode(go_type: &str, object: Map<String, Value>) -> Result<(Value, Vec<String>), String> {
    let Some(id) = SHAPES.id(go_type) else { return Err(format!("unknown type {go_type}")) };
    let mut decoder = Decoder::default();
    let value = decoder.value(Value::Object(object), id)?;
    match decoder.fault {
        Some(fault) => Err(fault),
        None => Ok((value, decoder.strict)),
    }
}

#[derive(Default)]
struct Decoder {
    /// The innermost struct.
    place: &'static str,
    /// Names of the fields down to here.
    names: Vec<&'static str>,
    /// The same with indexes and keys.
    path: String,
    /// The first value of a wrong type; decoding goes on after it.
    fault: Option<String>,
    strict: Vec<String>,
    /// Within what decodes itself, unknown fields aren't noted.
    lenient: bool,
}

impl Decoder {
    fn mismatch(&self, what: &str, go: &str) -> String {
        if self.names.is_empty() {
            return format!("json: cannot unmarshal {what} into Go value of type {go}");
        }
        let names = self.names.join(".");
        format!("json: cannot unmarshal {what} into Go struct field {}.{names} of type {go}", self.place)
    }

    fn wrong(&mut self, what: &str, id: Id) -> Value {
        let fault = self.mismatch(what, &SHAPES.types[id].go);
        self.fault.get_or_insert(fault);
        SHAPES.zero(id)
    }

    /// Decodes a value. An error ends the decoding; a wrong type is noted, and the zero value taken.
    /// Null stands for a pointer, list or map that is nil, or empty.
    fn value(&mut self, value: Value, id: Id) -> Result<Value, String> {
        let form = SHAPES.form(id);
        Ok(match (form, value) {
            (Form::Pointer(_) | Form::Time(_) | Form::SchemaOrTexts(_) | Form::SchemaOrSchemas(_), Value::Null) => {
                Value::Null
            }
            (Form::Pointer(to), value) => match self.value(value, *to)? {
                // A pointer to what is nil is still one.
                Value::Null => SHAPES.zero(*to),
                value => value,
            },
            (Form::Raw, value)
            | (Form::SchemaOrTexts(_), value @ Value::Array(_))
            | (Form::SchemaOrBool(_), value @ Value::Bool(_)) => value,
            (Form::Quantity, value) => self.quantity(value, id)?,
            (_, Value::Null) => SHAPES.zero(id),
            (Form::Text, Value::String(text)) => text.into(),
            (Form::Bool, Value::Bool(value)) => value.into(),
            (Form::Int { low, high }, Value::Number(number)) => match number.as_i64() {
                Some(value) if (*low..=*high).contains(&value) => value.into(),
                _ => self.wrong(&format!("number {number}"), id),
            },
            (Form::Float, Value::Number(number)) => number.into(),
            (Form::Bytes, Value::String(text)) => match check_base64(&text) {
                Ok(()) => text.into(),
                Err(at) => {
                    self.fault.get_or_insert_with(|| format!("illegal base64 data at input byte {at}"));
                    Value::Null
                }
            },
            (Form::List(of), Value::Array(items)) if !items.is_empty() => self.list(items, *of)?,
            (Form::Map(of), Value::Object(members)) => self.map(members, *of)?,
            (Form::Struct(known), Value::Object(members)) => self.members(members, known, id)?,
            (Form::IntOrString, value) => self.int_or_string(value)?,
            (Form::Time(precision), value) => self.time(&value, *precision)?,
            (
                Form::SchemaOrBool(of) | Form::SchemaOrSchemas(of) | Form::SchemaOrTexts(of),
                value @ Value::Object(_),
            ) => self.by_itself(value, *of)?,
            (Form::SchemaOrBool(_), _) => return Err("boolean or JSON schema expected".to_owned()),
            (Form::SchemaOrSchemas(of), Value::Array(items)) if !items.is_empty() => {
                let items: Result<Vec<Value>, String> =
                    items.into_iter().map(|item| self.by_itself(item, *of)).collect();
                Value::Array(items?)
            }
            // A list without items is as none.
            (Form::List(_), Value::Array(_)) | (Form::SchemaOrSchemas(_) | Form::SchemaOrTexts(_), _) => Value::Null,
            (_, other) => self.wrong(json_kind(&other), id),
        })
    }

    fn list(&mut self, items: Vec<Value>, of: Id) -> Result<Value, String> {
        let end = self.path.len();
        let mut list = Vec::with_capacity(items.len());
        for (i, item) in items.into_iter().enumerate() {
            self.path.push_str(&format!("[{i}]"));
            list.push(self.value(item, of)?);
            self.path.truncate(end);
        }
        Ok(Value::Array(list))
    }

    fn map(&mut self, members: Map<String, Value>, of: Id) -> Result<Value, String> {
        if members.is_empty() {
            return Ok(Value::Null);
        }
        let end = self.path.len();
        let mut map = Map::new();
        for (key, value) in members {
            self.descend(&key);
            let value = self.value(value, of)?;
            self.path.truncate(end);
            // Bytes that are null are written as none.
            let value = if value.is_null() && matches!(SHAPES.form(of), Form::Bytes) { "".into() } else { value };
            map.insert(key, value);
        }
        Ok(Value::Object(map))
    }

    fn descend(&mut self, name: &str) {
        if !self.path.is_empty() {
            self.path.push('.');
        }
        self.path.push_str(name);
    }

    fn members(&mut self, members: Map<String, Value>, known: &'static Struct, id: Id) -> Result<Value, String> {
        let place = self.place;
        let (depth, end) = (self.names.len(), self.path.len());
        let mut out = Map::new();
        for (name, value) in members {
            self.descend(&name);
            let Some(field) = known.by_name.get(&name).map(|i| &known.fields[*i]) else {
                if !self.lenient && self.strict.len() < MAX_COMPLAINTS {
                    self.strict.push(format!("unknown field {}", crate::field_error::go_quote(&self.path)));
                }
                self.path.truncate(end);
                continue;
            };
            self.place = SHAPES.types[id].go.rsplit('.').next().unwrap_or_default();
            self.names.extend(field.through.iter().map(String::as_str));
            self.names.push(&field.name);
            let value = self.value(value, field.form)?;
            self.names.truncate(depth);
            self.path.truncate(end);
            if !self.omitted(&value, field) {
                out.insert(name, value);
            }
        }
        for (name, zero) in &known.always {
            if !out.contains_key(name) {
                out.insert(name.clone(), zero.clone());
            }
        }
        self.place = place;
        Ok(Value::Object(out))
    }

    fn omitted(&self, value: &Value, field: &Field) -> bool {
        let empty = match (SHAPES.form(field.form), value) {
            (Form::Pointer(_), value) => value.is_null(),
            (_, Value::Null | Value::Bool(false)) => true,
            (_, Value::String(text)) => text.is_empty(),
            (_, Value::Number(number)) => number.as_f64() == Some(0.0),
            _ => false,
        };
        let zero = field.omit_zero && (empty || *value == SHAPES.zero(field.form));
        zero || (empty && SHAPES.vanishes(field))
    }

    fn quantity(&mut self, value: Value, id: Id) -> Result<Value, String> {
        let text = match value {
            Value::Null => return Ok(SHAPES.zero(id)),
            Value::String(text) => text,
            other => other.to_string(),
        };
        Ok(Quantity::parse(text.trim())?.to_string().into())
    }

    fn int_or_string(&mut self, value: Value) -> Result<Value, String> {
        match value {
            Value::String(_) => Ok(value),
            Value::Number(number) => match number.as_i64() {
                Some(small) if i32::try_from(small).is_ok() => Ok(small.into()),
                _ => Err(self.mismatch(&format!("number {number}"), "int32")),
            },
            other => Err(self.mismatch(json_kind(&other), "int32")),
        }
    }

    fn time(&mut self, value: &Value, precision: Precision) -> Result<Value, String> {
        match value {
            Value::String(text) => Ok(times::normalise(text, precision)?.map_or(Value::Null, Value::from)),
            other => Err(self.mismatch(json_kind(other), "string")),
        }
    }

    /// Decodes what has a decoder of its own: its first fault ends all, and it knows no unknown fields.
    fn by_itself(&mut self, value: Value, of: Id) -> Result<Value, String> {
        let lenient = std::mem::replace(&mut self.lenient, true);
        let outer = self.fault.take();
        let value = self.value(value, of)?;
        self.lenient = lenient;
        if let Some(fault) = std::mem::replace(&mut self.fault, outer) {
            return Err(fault);
        }
        Ok(value)
    }
}

/// Whether a text is padded standard base64; the error is where it isn't.
fn check_base64(text: &str) -> Result<(), usize> {
    let bytes: Vec<(usize, u8)> = text.bytes().enumerate().filter(|(_, b)| !matches!(b, b'\r' | b'\n')).collect();
    let data = bytes.iter().take_while(|(_, b)| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'/')).count();
    let padding = bytes.len() - data;
    if let Some((at, _)) = bytes[data..].iter().find(|(_, b)| *b != b'=') {
        return Err(*at);
    }
    if !bytes.len().is_multiple_of(4) {
        return Err(if padding == 0 { text.len() - bytes.len() % 4 } else { text.len() });
    }
    if padding > 2 {
        return Err(bytes[data].0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_checked() {
        assert_eq!((check_base64("AA=="), check_base64(""), check_base64("AAEC")), (Ok(()), Ok(()), Ok(())));
        assert_eq!((check_base64("!!"), check_base64("AA")), (Err(0), Err(0)));
    }
}
