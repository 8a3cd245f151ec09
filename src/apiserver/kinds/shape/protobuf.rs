//! Reads bodies in protobuf, in which client-go's typed clients write, and with them `kubectl create` and its like.
//!
//! Only reads: answers are JSON, which those clients accept. The numbers of fields are those of the Go types
//! (`shapes.json.gz`); the envelope is that of k8s.io/apimachinery/pkg/runtime/serializer/protobuf.

use serde_json::{Map, Value, json};

use super::{Form, Id, SHAPES, Struct};
use crate::kinds::defaults::base64;
use crate::kinds::times::Precision;

/// What every body begins with.
const MAGIC: &[u8] = b"k8s\0";
/// Messages within messages.
const MAX_DEPTH: usize = 64;

/// What the envelope holds.
pub(in crate::kinds) struct Envelope<'a> {
    pub(in crate::kinds) api_version: String,
    pub(in crate::kinds) kind: String,
    raw: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Opens a body.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::kinds) fn open(body: &'a [u8]) -> Result<Self, String> {
        let body = body.strip_prefix(MAGIC).ok_or("provided data does not appear to be a protobuf message")?;
        let mut envelope = Self { api_version: String::new(), kind: String::new(), raw: &[] };
        for field in Fields(body) {
            match field? {
                (1, Wire::Bytes(meta)) => {
                    for field in Fields(meta) {
                        match field? {
                            (1, Wire::Bytes(said)) => envelope.api_version = text(said)?,
                            (2, Wire::Bytes(said)) => envelope.kind = text(said)?,
                            _ => {}
                        }
                    }
                }
                (2, Wire::Bytes(raw)) => envelope.raw = raw,
                _ => {}
            }
        }
        Ok(envelope)
    }

    /// The object within, as one of a Go type; fields that are empty may be there.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(in crate::kinds) fn object(&self, go_type: &str) -> Result<Map<String, Value>, String> {
        let id = SHAPES.id(go_type).ok_or_else(|| format!("unknown type {go_type}"))?;
        let Value::Object(object) = message(self.raw, id, 0)? else { return Err(format!("{go_type} is no message")) };
        Ok(object)
    }
}

#[derive(Clone, Copy)]
enum Wire<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a message, by number.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, String> {
        let mut value = 0u64;
        for shift in (0..64).step_by(7) {
            let (byte, rest) = self.0.split_first().ok_or("unexpected EOF")?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err("proto: integer overflow".to_owned())
    }

    fn take(&mut self, count: u64) -> Result<&'a [u8], String> {
        let count = usize::try_from(count).ok().filter(|count| *count <= self.0.len()).ok_or("unexpected EOF")?;
        let (taken, rest) = self.0.split_at(count);
        self.0 = rest;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], String> {
        self.take(N as u64)?.try_into().map_err(|_| "unexpected EOF".to_owned())
    }

    fn field(&mut self) -> Result<(u64, Wire<'a>), String> {
        let tag = self.varint()?;
        let wire = match tag & 7 {
            0 => Wire::Number(self.varint()?),
            1 => Wire::Number(u64::from_le_bytes(self.fixed()?)),
            2 => {
                let length = self.varint()?;
                Wire::Bytes(self.take(length)?)
            }
            5 => Wire::Number(u32::from_le_bytes(self.fixed()?).into()),
            other => return Err(format!("proto: illegal wireType {other}")),
        };
        Ok((tag >> 3, wire))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Wire<'a>), String>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

fn text(bytes: &[u8]) -> Result<String, String> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "proto: a string is no valid UTF-8".to_owned())
}

/// A message of a type; what the type doesn't know is passed over, as Go does.
fn message(bytes: &[u8], id: Id, depth: usize) -> Result<Value, String> {
    if depth > MAX_DEPTH {
        return Err("proto: exceeded maximum nesting depth".to_owned());
    }
    let first = |wanted: u64| -> Result<Option<Wire<'_>>, String> {
        let mut found = None;
        for field in Fields(bytes) {
            let (number, wire) = field?;
            if number == wanted {
                found = Some(wire);
            }
        }
        Ok(found)
    };
    let bytes_of =
        |wanted: u64| first(wanted).map(|wire| if let Some(Wire::Bytes(bytes)) = wire { Some(bytes) } else { None });
    let number_of =
        |wanted: u64| first(wanted).map(|wire| if let Some(Wire::Number(number)) = wire { number as i64 } else { 0 });
    let schema = |number: u64, schema: Id| -> Result<Option<Value>, String> {
        bytes_of(number)?.map(|bytes| message(bytes, schema, depth + 1)).transpose()
    };
    Ok(match SHAPES.form(id) {
        Form::Struct(known) => {
            let mut object = Map::new();
            fields(bytes, known, &mut Vec::new(), depth, &mut object)?;
            Value::Object(object)
        }
        Form::Quantity => bytes_of(1)?.map(text).transpose()?.unwrap_or_default().into(),
        Form::IntOrString if number_of(1)? == 0 => number_of(2)?.into(),
        Form::IntOrString => bytes_of(3)?.map(text).transpose()?.unwrap_or_default().into(),
        Form::Time(precision) => match (number_of(1)?, number_of(2)?) {
            (0, 0) if bytes.is_empty() => Value::Null,
            (seconds, nanos) => time(seconds, nanos, *precision)?,
        },
        Form::Raw => match bytes_of(1)? {
            None | Some([]) => Value::Null,
            Some(json) => serde_json::from_slice(json).map_err(|error| error.to_string())?,
        },
        Form::SchemaOrBool(inner) => match schema(2, *inner)? {
            Some(schema) => schema,
            None => (number_of(1)? != 0).into(),
        },
        Form::SchemaOrSchemas(inner) => match schema(1, *inner)? {
            Some(schema) => schema,
            None => or_null(repeated(bytes, 2, |item| message(item, *inner, depth + 1))?),
        },
        Form::SchemaOrTexts(inner) => match schema(1, *inner)? {
            Some(schema) => schema,
            None => or_null(repeated(bytes, 2, |item| text(item).map(Value::from))?),
        },
        // A list with a name of its own.
        Form::List(_) => repeated(bytes, 1, |item| text(item).map(Value::from))?,
        _ => return Err("proto: a message where there can be none".to_owned()),
    })
}

/// Go writes null for neither of two.
fn or_null(list: Value) -> Value {
    if list.as_array().is_some_and(Vec::is_empty) { Value::Null } else { list }
}

fn repeated(bytes: &[u8], wanted: u64, item: impl Fn(&[u8]) -> Result<Value, String>) -> Result<Value, String> {
    let mut items = Vec::new();
    for field in Fields(bytes) {
        if let (number, Wire::Bytes(bytes)) = field?
            && number == wanted
        {
            items.push(item(bytes)?);
        }
    }
    Ok(Value::Array(items))
}

/// The fields of a struct, and of those embedded in it that are messages of their own: `place` leads to those.
fn fields(
    bytes: &[u8],
    known: &Struct,
    place: &mut Vec<u64>,
    depth: usize,
    object: &mut Map<String, Value>,
) -> Result<(), String> {
    for field in Fields(bytes) {
        let (number, wire) = field?;
        place.push(number);
        if let Some(field) = known.fields.iter().find(|field| field.number == *place) {
            add(object.entry(field.name.clone()).or_insert(Value::Null), wire, field.form, depth)?;
        } else if let Wire::Bytes(inner) = wire
            && known.fields.iter().any(|field| field.number.starts_with(place))
        {
            fields(inner, known, place, depth, object)?;
        }
        place.pop();
    }
    Ok(())
}

/// One occurrence of a field: lists and maps grow by it.
fn add(value: &mut Value, wire: Wire<'_>, id: Id, depth: usize) -> Result<(), String> {
    match (SHAPES.form(id), wire) {
        (Form::Pointer(inner), wire) => return add(value, wire, *inner, depth),
        (Form::List(_), Wire::Bytes(_)) if SHAPES.types[id].go == "v1.ExtraValue" => {
            *value = one(wire, id, depth)?;
        }
        (Form::List(inner), wire) => {
            if value.is_null() {
                *value = json!([]);
            }
            let Some(items) = value.as_array_mut() else { return Ok(()) };
            match (SHAPES.form(*inner), wire) {
                (Form::Int { .. } | Form::Bool, Wire::Bytes(packed)) => {
                    let mut packed = Fields(packed);
                    while !packed.0.is_empty() {
                        items.push(one(Wire::Number(packed.varint()?), *inner, depth)?);
                    }
                }
                _ => items.push(one(wire, *inner, depth)?),
            }
        }
        (Form::Map(inner), Wire::Bytes(entry)) => {
            if value.is_null() {
                *value = json!({});
            }
            let (mut key, mut held) = (String::new(), SHAPES.zero(*inner));
            for field in Fields(entry) {
                match field? {
                    (1, Wire::Bytes(name)) => key = text(name)?,
                    (2, wire) => {
                        held = Value::Null;
                        add(&mut held, wire, *inner, depth)?;
                    }
                    _ => {}
                }
            }
            value[key] = held;
        }
        _ => *value = one(wire, id, depth)?,
    }
    Ok(())
}

fn one(wire: Wire<'_>, id: Id, depth: usize) -> Result<Value, String> {
    Ok(match (SHAPES.form(id), wire) {
        (Form::Pointer(inner), wire) => one(wire, *inner, depth)?,
        (Form::Text, Wire::Bytes(bytes)) => text(bytes)?.into(),
        (Form::Bytes, Wire::Bytes(bytes)) => base64(bytes).into(),
        (Form::Bool, Wire::Number(number)) => (number != 0).into(),
        (Form::Int { high, .. }, Wire::Number(number)) if *high == i64::from(i32::MAX) => (number as i32).into(),
        (Form::Int { .. }, Wire::Number(number)) => (number as i64).into(),
        (Form::Float, Wire::Number(number)) => f64::from_bits(number).into(),
        (_, Wire::Bytes(bytes)) => message(bytes, id, depth + 1)?,
        (_, Wire::Number(_)) => return Err("proto: wrong wireType".to_owned()),
    })
}

fn time(seconds: i64, nanos: i64, precision: Precision) -> Result<Value, String> {
    let nanos = match precision {
        Precision::Seconds => 0,
        Precision::Micros => i32::try_from(nanos).unwrap_or(0),
    };
    let time = jiff::Timestamp::new(seconds, nanos).map_err(|error| error.to_string())?;
    Ok(match precision {
        Precision::Seconds => time.to_string(),
        // With exactly six digits, as it is read.
        Precision::Micros => format!("{time:.6}"),
    }
    .into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn micros_keep_their_zeros() {
        let of = |nanos, precision| time(1_795_378_197, nanos, precision).unwrap();
        assert_eq!(of(185_930_000, Precision::Micros), "2026-11-22T20:09:57.185930Z");
        assert_eq!(of(0, Precision::Micros), "2026-11-22T20:09:57.000000Z");
        assert_eq!(of(185_930_000, Precision::Seconds), "2026-11-22T20:09:57Z");
    }

    /// A field of bytes: its tag, its length, its content.
    fn field(number: u8, content: &[u8]) -> Vec<u8> {
        let (mut out, mut length) = (vec![number << 3 | 2], content.len());
        while length > 0x7f {
            out.push(length as u8 | 0x80);
            length >>= 7;
        }
        out.push(length as u8);
        [&out, content].concat()
    }

    fn body(api_version: &str, kind: &str, raw: &[u8]) -> Vec<u8> {
        let meta = [field(1, api_version.as_bytes()), field(2, kind.as_bytes())].concat();
        [MAGIC, &field(1, &meta), &field(2, raw)].concat()
    }

    #[test]
    fn objects_are_read_by_the_numbers_of_their_fields() {
        let metadata = [field(1, b"a"), field(11, &[field(1, b"k"), field(2, b"v")].concat())].concat();
        let data = |key: &[u8], value: &[u8]| field(2, &[field(1, key), field(2, value)].concat());
        let raw = [field(1, &metadata), data(b"x", b"1"), data(b"y", b"")].concat();
        let body = body("v1", "ConfigMap", &raw);
        let envelope = Envelope::open(&body).unwrap();
        assert_eq!((&*envelope.api_version, &*envelope.kind), ("v1", "ConfigMap"));
        let object = envelope.object("k8s.io/api/core/v1.ConfigMap").unwrap();
        let expected = json!({ "metadata": { "name": "a", "labels": { "k": "v" } }, "data": { "x": "1", "y": "" } });
        assert_eq!(Value::Object(object), expected);
    }

    #[test]
    fn types_with_a_form_of_their_own_are_read() {
        // A container's resources: limits {cpu: {string: 1}}; an embedded reference, a time, bytes.
        let quantity = field(1, &[field(1, b"cpu"), field(2, &field(1, b"1"))].concat());
        let read = |go_type: &str, raw: &[u8]| {
            let body = body("v1", "X", raw);
            Envelope::open(&body).unwrap().object(go_type).map(Value::Object)
        };
        let limits = read("k8s.io/api/core/v1.ResourceRequirements", &quantity).unwrap();
        assert_eq!(limits, json!({ "limits": { "cpu": "1" } }));
        let key = [field(1, &field(1, b"name")), field(2, b"key"), vec![3 << 3, 1]].concat();
        let key = read("k8s.io/api/core/v1.ConfigMapKeySelector", &key).unwrap();
        assert_eq!(key, json!({ "name": "name", "key": "key", "optional": true }));
        let port = [vec![3 << 3, 80], field(4, &[1 << 3, 1, 3 << 3 | 2, 2, b'o', b'k'])].concat();
        let port = read("k8s.io/api/core/v1.ServicePort", &port).unwrap();
        assert_eq!(port, json!({ "port": 80, "targetPort": "ok" }));
        let lease =
            read("k8s.io/api/coordination/v1.LeaseSpec", &field(4, &[1 << 3, 1, 2 << 3, 0xc0, 0x84, 0x3d])).unwrap();
        assert_eq!(lease, json!({ "renewTime": "1970-01-01T00:00:01.001000Z" }));
        let secret = field(2, &[field(1, b"k"), field(2, &[0, 1, 2, 3])].concat());
        assert_eq!(read("k8s.io/api/core/v1.Secret", &secret).unwrap(), json!({ "data": { "k": "AAECAw==" } }));
        let minus = [&[1 << 3][..], &[0xff; 9], &[1]].concat();
        assert_eq!(read("k8s.io/api/apps/v1.DeploymentSpec", &minus).unwrap(), json!({ "replicas": -1 }));
    }

    fn from_base64(text: &str) -> Vec<u8> {
        let mut bytes = Vec::new();
        for group in text.as_bytes().chunks(4) {
            let digit = |c: &u8| match c {
                b'A'..=b'Z' => c - b'A',
                b'a'..=b'z' => c - b'a' + 26,
                b'0'..=b'9' => c - b'0' + 52,
                b'+' => 62,
                _ => 63,
            };
            let digits: Vec<u8> = group.iter().filter(|c| **c != b'=').map(digit).collect();
            let bits =
                digits.iter().fold(0u32, |bits, digit| bits << 6 | u32::from(*digit)) << (6 * (4 - digits.len()));
            bytes.extend_from_slice(&bits.to_be_bytes()[1..digits.len()]);
        }
        bytes
    }

    /// Objects that Go wrote in both forms, with all of their fields.
    #[test]
    fn both_forms_of_an_object_are_the_same() {
        let golden = crate::kinds::unpack(include_bytes!("../golden/protobuf.json.gz"));
        let golden: Vec<Value> = serde_json::from_slice(&golden).unwrap();
        assert!(golden.len() > 25);
        for entry in golden {
            let go_type = entry["type"].as_str().unwrap();
            let body = body("v1", "X", &from_base64(entry["protobuf"].as_str().unwrap()));
            let read = Envelope::open(&body).unwrap().object(go_type).unwrap();
            let (read, _) = super::super::decode(go_type, read).unwrap();
            let (wanted, unknown) = super::super::decode(go_type, entry["json"].as_object().unwrap().clone()).unwrap();
            assert!(unknown.is_empty(), "{unknown:?}");
            difference(&read, &wanted, go_type);
        }
    }

    /// Names the place where two values differ: they are too large to print.
    fn difference(read: &Value, wanted: &Value, place: &str) {
        match (read, wanted) {
            (Value::Object(a), Value::Object(b)) => {
                assert!(a.keys().eq(b.keys()), "{place}: {:?} for {:?}", a.keys(), b.keys());
                a.iter().for_each(|(name, value)| difference(value, &b[name], &format!("{place}.{name}")));
            }
            (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
                a.iter().zip(b).for_each(|(a, b)| difference(a, b, &format!("{place}[]")));
            }
            _ => assert_eq!(read, wanted, "{place}"),
        }
    }

    #[test]
    fn what_is_no_message_is_refused() {
        assert!(Envelope::open(b"{}").is_err());
        for raw in [&[10, 200][..], &[255; 12], &[3 << 3 | 3], &field(1, &[255])] {
            let body = body("v1", "ConfigMap", raw);
            assert!(Envelope::open(&body).unwrap().object("k8s.io/api/core/v1.ConfigMap").is_err(), "{raw:?}");
        }
    }
}
