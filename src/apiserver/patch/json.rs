//! JSON patch, RFC 6902, with the leniences of evanphx/json-patch v4.13, which the real server uses.
//!
//! Never a stricter library: clients lean on negative indices, on `replace` that adds a field, and on `test` of a
//! missing field against null. Like the original it works on text that is parsed as far as a path needs, for `test`
//! compares scalars by their text: `"<"` isn't `"\u003c"`, and the object's own text is as Go writes it.

use std::collections::BTreeMap;

use serde_json::Value;
use serde_json::value::RawValue;

use super::gotext;
use super::{cut, malformed, unprocessable};
use crate::error::Error;

/// Operations in a patch (`maxJSONPatchOperations` in apiserver/pkg/endpoints/handlers/patch.go).
pub const OPERATIONS_LIMIT: usize = 10_000;
/// Bytes that all the `copy` operations of a patch may add (`JSONPatchMaxCopyBytes` in apiserver/pkg/server/config.go).
pub const COPIED_BYTES_LIMIT: usize = 3 * 1024 * 1024;

/// Applies a patch.
///
/// # Errors
/// 400 if the patch isn't a list of operations, 413 if it has too many, 422 if one doesn't apply or a test fails; 500
/// where the real server breaks off.
pub fn json_patch(target: Value, patch: &[u8]) -> Result<Value, Error> {
    let operations = operations(patch)?;
    if operations.len() > OPERATIONS_LIMIT {
        let count = operations.len();
        let message = format!(
            "Request entity too large: The allowed maximum operations in a JSON patch is {OPERATIONS_LIMIT}, got {count}"
        );
        return Err(Error::new(413, "RequestEntityTooLarge", message));
    }
    if operations.is_empty() {
        return Ok(target);
    }
    let mut root = Node::of_text(gotext::json(&target))?;
    root.open();
    let mut copied_bytes = 0;
    for operation in &operations {
        apply(&mut root, operation, &mut copied_bytes)?;
    }
    serde_json::from_str(&root.text()).map_err(|_| unprocessable())
}

type Text = Box<RawValue>;
type Operation = BTreeMap<String, Option<Text>>;

fn operations(patch: &[u8]) -> Result<Vec<Operation>, Error> {
    const PREFIX: &str = "error decoding patch: ";
    let text = String::from_utf8_lossy(patch);
    let whole: &RawValue = serde_json::from_str(&text).map_err(|error| malformed(patch, PREFIX, &error))?;
    let wrong = |raw: &RawValue, what: &str| {
        Error::bad_request(format!("{PREFIX}json: cannot unmarshal {} into Go {what}", kind(raw)))
    };
    if whole.get() == "null" {
        return Ok(Vec::new());
    }
    let Ok(list) = serde_json::from_str::<Vec<Option<Text>>>(whole.get()) else {
        return Err(wrong(whole, "value of type []handlers.jsonPatchOp"));
    };
    let mut operations = Vec::with_capacity(list.len());
    for item in list {
        let Some(item) = item else {
            operations.push(Operation::new());
            continue;
        };
        let Ok(operation) = serde_json::from_str::<Operation>(item.get()) else {
            return Err(wrong(&item, "value of type handlers.jsonPatchOp"));
        };
        for field in ["op", "path", "from"] {
            if let Some(Some(raw)) = operation.get(field)
                && !raw.get().starts_with('"')
            {
                return Err(wrong(raw, &format!("struct field jsonPatchOp.{field} of type string")));
            }
        }
        operations.push(operation);
    }
    Ok(operations)
}

fn kind(raw: &RawValue) -> &'static str {
    match raw.get().bytes().next() {
        Some(b'{') => "object",
        Some(b'[') => "array",
        Some(b'"') => "string",
        Some(b't' | b'f') => "bool",
        _ => "number",
    }
}

fn word(operation: &Operation, field: &str) -> Option<String> {
    let raw = operation.get(field)?.as_ref()?;
    serde_json::from_str(raw.get()).ok()
}

/// The value of an operation; none if it isn't given, which isn't the same as null.
fn value(operation: &Operation) -> Slot {
    operation.get("value").map(|raw| Node::Raw(raw.clone()))
}

fn apply(root: &mut Node, operation: &Operation, copied_bytes: &mut usize) -> Result<(), Error> {
    let path = || word(operation, "path").ok_or_else(unprocessable);
    match word(operation, "op").as_deref() {
        Some("add") => {
            let (node, key) = root.find(&path()?)?;
            node.add(&key, value(operation))
        }
        Some("remove") => {
            let (node, key) = root.find(&path()?)?;
            node.remove(&key)
        }
        Some("replace") => {
            let path = path()?;
            if path.is_empty() {
                let mut whole = value(operation).ok_or_else(|| cut("replace without a value"))?;
                if !whole.open() {
                    return Err(unprocessable());
                }
                *root = whole;
                return Ok(());
            }
            let (node, key) = root.find(&path)?;
            node.get(&key)?;
            node.set(&key, value(operation))
        }
        Some("move") => {
            let (node, key) = root.find(&word(operation, "from").ok_or_else(unprocessable)?)?;
            let moved = node.get(&key)?.cloned();
            node.remove(&key)?;
            let (node, key) = root.find(&path()?)?;
            node.add(&key, moved)
        }
        Some("copy") => {
            let (node, key) = root.find(&word(operation, "from").ok_or_else(unprocessable)?)?;
            let copy = node.get(&key)?.map(Node::text);
            let (node, key) = root.find(&path()?)?;
            *copied_bytes += copy.as_ref().map_or(0, String::len);
            if *copied_bytes > COPIED_BYTES_LIMIT {
                return Err(unprocessable());
            }
            node.add(&key, copy.map(Node::of_text).transpose()?)
        }
        Some("test") => test(root, &path()?, value(operation)),
        _ => Err(unprocessable()),
    }
}

fn test(root: &mut Node, path: &str, wanted: Slot) -> Result<(), Error> {
    let equal = if path.is_empty() {
        let mut wanted = wanted.ok_or_else(|| cut("test of the whole object without a value"))?;
        root.equals(&mut wanted)?
    } else {
        let (node, key) = root.find(path)?;
        match (node.slot(&key)?, wanted) {
            (None, None | Some(Node::Raw(None))) => true,
            (Some(found), Some(mut wanted)) => found.equals(&mut wanted)?,
            _ => false,
        }
    };
    if equal { Ok(()) } else { Err(unprocessable()) }
}

/// A value, parsed as far as needed. A null that an operation brought is `Raw(None)`, one of the object an empty slot.
#[derive(Clone)]
enum Node {
    Raw(Option<Text>),
    Object(BTreeMap<String, Slot>),
    List(Vec<Slot>),
}

type Slot = Option<Node>;

impl Node {
    fn of_text(text: String) -> Result<Self, Error> {
        if text == "null" {
            return Ok(Self::Raw(None));
        }
        RawValue::from_string(text).map(|raw| Self::Raw(Some(raw))).map_err(|_| unprocessable())
    }

    /// Parses one level; false if it is neither an object nor a list.
    fn open(&mut self) -> bool {
        let Self::Raw(raw) = self else { return true };
        let Some(raw) = raw else { return false };
        if let Ok(fields) = serde_json::from_str::<BTreeMap<String, Option<Text>>>(raw.get()) {
            let fields = fields.into_iter().map(|(key, raw)| (key, raw.map(|raw| Self::Raw(Some(raw)))));
            *self = Self::Object(fields.collect());
            true
        } else if let Ok(items) = serde_json::from_str::<Vec<Option<Text>>>(raw.get()) {
            *self = Self::List(items.into_iter().map(|raw| raw.map(|raw| Self::Raw(Some(raw)))).collect());
            true
        } else {
            false
        }
    }

    /// The container that a path ends in, and the last step. What stands before the first slash is ignored.
    fn find(&mut self, path: &str) -> Result<(&mut Self, String), Error> {
        let mut steps: Vec<String> =
            path.split('/').skip(1).map(|step| step.replace("~1", "/").replace("~0", "~")).collect();
        let last = steps.pop().ok_or_else(unprocessable)?;
        let mut node = self;
        for step in &steps {
            node = node.slot(step)?.ok_or_else(unprocessable)?;
            if !node.open() {
                return Err(unprocessable());
            }
        }
        Ok((node, last))
    }

    fn get(&mut self, key: &str) -> Result<Option<&Self>, Error> {
        self.slot(key).map(|node| node.map(|node| &*node))
    }

    /// What is under a key. A field that isn't there is as null, an item that isn't there is an error.
    fn slot(&mut self, key: &str) -> Result<Option<&mut Self>, Error> {
        match self {
            Self::Object(fields) => Ok(fields.get_mut(key).and_then(Option::as_mut)),
            Self::List(items) => {
                let at = index(key, items.len())?;
                items.get_mut(at).map(Option::as_mut).ok_or_else(unprocessable)
            }
            Self::Raw(_) => Err(unprocessable()),
        }
    }

    fn set(&mut self, key: &str, value: Slot) -> Result<(), Error> {
        match self {
            Self::Object(fields) => {
                fields.insert(key.to_owned(), value);
            }
            Self::List(items) => {
                let at = index(key, items.len())?;
                *items.get_mut(at).ok_or_else(unprocessable)? = value;
            }
            Self::Raw(_) => return Err(unprocessable()),
        }
        Ok(())
    }

    fn add(&mut self, key: &str, value: Slot) -> Result<(), Error> {
        let Self::List(items) = self else { return self.set(key, value) };
        let at = if key == "-" { items.len() } else { index(key, items.len() + 1)? };
        if at > items.len() {
            return Err(unprocessable());
        }
        items.insert(at, value);
        Ok(())
    }

    fn remove(&mut self, key: &str) -> Result<(), Error> {
        match self {
            Self::Object(fields) => fields.remove(key).map(drop).ok_or_else(unprocessable),
            Self::List(items) => {
                let at = index(key, items.len())?;
                if at >= items.len() {
                    return Err(unprocessable());
                }
                items.remove(at);
                Ok(())
            }
            Self::Raw(_) => Err(unprocessable()),
        }
    }

    fn equals(&mut self, other: &mut Self) -> Result<bool, Error> {
        if !self.open() {
            return Ok(match (&*self, &*other) {
                (Self::Raw(Some(own)), Self::Raw(Some(other))) => own.get() == other.get(),
                (Self::Raw(None), Self::Raw(None)) => true,
                _ => false,
            });
        }
        if !other.open() {
            return Ok(false);
        }
        match (self, other) {
            (Self::Object(own), Self::Object(other)) => {
                if own.len() != other.len() {
                    return Ok(false);
                }
                for (key, own) in own {
                    let equal = match (own, other.get_mut(key)) {
                        (None, Some(None)) => true,
                        (Some(own), Some(Some(other))) => own.equals(other)?,
                        _ => false,
                    };
                    if !equal {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            (Self::List(own), Self::List(other)) => {
                if own.len() != other.len() {
                    return Ok(false);
                }
                for pair in own.iter_mut().zip(other) {
                    let (Some(own), Some(other)) = pair else { return Err(cut("test of a list that has a null")) };
                    if !own.equals(other)? {
                        return Ok(false);
                    }
                }
                Ok(true)
            }
            _ => Ok(false),
        }
    }

    fn text(&self) -> String {
        let mut out = String::new();
        self.write(&mut out);
        out
    }

    fn write(&self, out: &mut String) {
        let write_slot = |out: &mut String, slot: &Slot| match slot {
            Some(node) => node.write(out),
            None => out.push_str("null"),
        };
        match self {
            Self::Raw(None) => out.push_str("null"),
            Self::Raw(Some(raw)) => out.push_str(&gotext::escape_html(&compact(raw.get()))),
            Self::Object(fields) => {
                for (at, (key, slot)) in fields.iter().enumerate() {
                    out.push(if at == 0 { '{' } else { ',' });
                    out.push_str(&gotext::json(&Value::String(key.clone())));
                    out.push(':');
                    write_slot(out, slot);
                }
                out.push_str(if fields.is_empty() { "{}" } else { "}" });
            }
            Self::List(items) => {
                for (at, slot) in items.iter().enumerate() {
                    out.push(if at == 0 { '[' } else { ',' });
                    write_slot(out, slot);
                }
                out.push_str(if items.is_empty() { "[]" } else { "]" });
            }
        }
    }
}

/// A list index; negative ones count from the end. May lie past the end.
fn index(key: &str, len: usize) -> Result<usize, Error> {
    let at: i64 = key.parse().map_err(|_| unprocessable())?;
    let at = if at < 0 { i64::try_from(len).unwrap_or(i64::MAX).saturating_add(at) } else { at };
    usize::try_from(at).map_err(|_| unprocessable())
}

/// JSON text without space between tokens.
fn compact(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let (mut quoted, mut escaped) = (false, false);
    for letter in text.chars() {
        if quoted || !letter.is_ascii_whitespace() {
            out.push(letter);
        }
        if letter == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && letter == '\\' && !escaped;
    }
    out
}
