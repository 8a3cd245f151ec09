//! A fuzzer's bytes as choices, and JSON from a small grammar made of them, so that what lies behind a parser is
//! reached too.
//!
//! Never fails: where the bytes end, all choices are the first. Never deeper than [`MAX_DEPTH`].

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value, json};

/// Nested objects and lists of what the grammar makes: a bit more than the tree of serde_json takes (128).
pub(crate) const MAX_DEPTH: usize = 140;

/// Names that mean something to some of what is under test, and some that mean nothing.
const NAMES: [&str; 40] = [
    "a",
    "b",
    "c",
    "name",
    "port",
    "containerPort",
    "mountPath",
    "uid",
    "ip",
    "path",
    "protocol",
    "key",
    "value",
    "type",
    "metadata",
    "namespace",
    "labels",
    "annotations",
    "finalizers",
    "ownerReferences",
    "managedFields",
    "generateName",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "spec",
    "status",
    "data",
    "template",
    "containers",
    "ports",
    "env",
    "conditions",
    "controller",
    "app",
    "$patch",
    "$retainKeys",
    "$setElementOrder/ports",
    "$deleteFromPrimitiveList/finalizers",
];

/// Texts that mean something as values.
const TEXTS: [&str; 20] = [
    "",
    "a",
    "b",
    "c",
    "x",
    "y",
    "1",
    "80",
    "true",
    "null",
    "TCP",
    "delete",
    "replace",
    "merge",
    "{}",
    "a/b",
    "..",
    "ü\"\\\n",
    "2026-01-01T00:00:00Z",
    "{\"spec\":{\"a\":1}}",
];

/// Numbers at the edges of their kinds, as JSON text.
const NUMBERS: [&str; 16] = [
    "0",
    "1",
    "2",
    "80",
    "-1",
    "1.0",
    "1.5",
    "-0.0",
    "1e3",
    "9007199254740993",
    "9007199254740992.0",
    "18446744073709551615",
    "18446744073709551616",
    "-9223372036854775808",
    "1e308",
    "80.0",
];

/// Bytes to choose by.
pub(crate) struct Source<'a>(&'a [u8]);

impl<'a> Source<'a> {
    /// Chooses by these bytes, from the first on.
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// The next byte, 0 behind the end.
    pub(crate) fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// One of `count` choices.
    pub(crate) fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    /// Yes or no; no behind the end.
    pub(crate) fn flag(&mut self) -> bool {
        self.byte() & 1 == 1
    }

    /// One of these.
    pub(crate) fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }

    /// A field's name.
    pub(crate) fn name(&mut self) -> &'static str {
        self.pick(&NAMES)
    }

    /// A number.
    pub(crate) fn number(&mut self) -> Value {
        serde_json::from_str(self.pick(&NUMBERS)).unwrap_or_default()
    }

    /// A text.
    pub(crate) fn text(&mut self) -> &'static str {
        self.pick(&TEXTS)
    }

    /// Any value.
    pub(crate) fn value(&mut self) -> Value {
        self.value_at(0)
    }

    fn value_at(&mut self, depth: usize) -> Value {
        if depth >= MAX_DEPTH {
            return Value::Null;
        }
        match self.below(16) {
            0 => Value::Null,
            1..=3 => self.text().into(),
            4..=5 => self.number(),
            6 => self.flag().into(),
            7..=9 => self.items(depth + 1),
            10 => (0..self.below(4)).map(|_| self.value_at(depth + 1)).collect(),
            11 => self.nested(depth),
            _ => Value::Object(self.fields_at(depth + 1)),
        }
    }

    /// A value in many lists, for what counts levels.
    fn nested(&mut self, depth: usize) -> Value {
        let levels = usize::from(self.byte()).min(MAX_DEPTH.saturating_sub(depth));
        let inner = self.value_at(depth + levels);
        (0..levels).fold(inner, |inner, _| json!([inner]))
    }

    /// The fields of an object.
    pub(crate) fn fields(&mut self) -> Map<String, Value> {
        self.fields_at(1)
    }

    fn fields_at(&mut self, depth: usize) -> Map<String, Value> {
        (0..self.below(5)).map(|_| (self.name().to_owned(), self.value_at(depth))).collect()
    }

    /// A list that mostly looks like a map.
    fn items(&mut self, depth: usize) -> Value {
        let key = self.pick(&["name", "port", "name", "containerPort", "key", "type", "uid"]);
        let items = (0..self.below(5)).map(|_| {
            let mut item = if self.flag() { self.fields_at(depth + 1) } else { Map::new() };
            let value = if self.flag() { self.number() } else { self.text().into() };
            item.insert(key.to_owned(), value);
            Value::Object(item)
        });
        items.collect()
    }
}

/// How deep objects and lists are nested; 0 for a scalar.
pub(crate) fn levels(value: &Value) -> usize {
    match value {
        Value::Object(fields) => 1 + fields.values().map(levels).max().unwrap_or(0),
        Value::Array(items) => 1 + items.iter().map(levels).max().unwrap_or(0),
        _ => 0,
    }
}

/// Whether some object in a JSON text has a name twice; no for what isn't JSON. It shares nothing with the readers that
/// are judged by it.
pub(crate) fn says_twice(text: &str) -> bool {
    let mut twice = false;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    Twice(&mut twice).deserialize(&mut deserializer).is_ok() && twice
}

struct Twice<'a>(&'a mut bool);

impl<'de> DeserializeSeed<'de> for Twice<'_> {
    type Value = ();
    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Twice<'_> {
    type Value = ();
    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }
    fn visit_unit<E>(self) -> Result<(), E> {
        Ok(())
    }
    fn visit_bool<E>(self, _: bool) -> Result<(), E> {
        Ok(())
    }
    fn visit_i64<E>(self, _: i64) -> Result<(), E> {
        Ok(())
    }
    fn visit_u64<E>(self, _: u64) -> Result<(), E> {
        Ok(())
    }
    fn visit_f64<E>(self, _: f64) -> Result<(), E> {
        Ok(())
    }
    fn visit_str<E>(self, _: &str) -> Result<(), E> {
        Ok(())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
        while items.next_element_seed(Twice(&mut *self.0))?.is_some() {}
        Ok(())
    }
    fn visit_map<A: MapAccess<'de>>(self, mut fields: A) -> Result<(), A::Error> {
        let mut names = BTreeSet::new();
        while let Some(name) = fields.next_key::<String>()? {
            *self.0 |= !names.insert(name);
            fields.next_value_seed(Twice(&mut *self.0))?;
        }
        Ok(())
    }
}
