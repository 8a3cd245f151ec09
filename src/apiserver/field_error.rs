//! One fault of a field, worded as Kubernetes words it.
//!
//! Values and details are text already; nothing here knows what was validated.

use std::fmt;

use serde_json::Value;

/// One fault of a field, as Kubernetes' field.Error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldError {
    /// Path, e.g. `spec.ports[0].port`. `<nil>` if the fault is of the whole object: the real server prints that too.
    pub field: String,
    /// What is wrong.
    pub kind: FieldErrorKind,
    /// The value as Go prints it after the colon, e.g. `"abc"` or `5`; empty if none is printed.
    pub value: String,
    /// What follows the value; empty if nothing does.
    pub detail: String,
}

/// What is wrong with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FieldErrorKind {
    /// It is missing.
    Required,
    /// It doesn't fit.
    Invalid,
    /// It is of another type.
    TypeInvalid,
    /// It is none of the known values.
    NotSupported,
    /// It is too long.
    TooLong,
    /// It has too many items.
    TooMany,
    /// It is there twice.
    Duplicate,
    /// It may not be set like this.
    Forbidden,
    /// What it names isn't there.
    NotFound,
    /// It couldn't be checked.
    Internal,
}

/// The path of a fault of the whole object, as Go prints a path that is nil.
pub const NO_FIELD: &str = "<nil>";

impl FieldErrorKind {
    /// As the causes of a Status spell it.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Required => "FieldValueRequired",
            Self::Invalid => "FieldValueInvalid",
            Self::TypeInvalid => "FieldValueTypeInvalid",
            Self::NotSupported => "FieldValueNotSupported",
            Self::TooLong => "FieldValueTooLong",
            Self::TooMany => "FieldValueTooMany",
            Self::Duplicate => "FieldValueDuplicate",
            Self::Forbidden => "FieldValueForbidden",
            Self::NotFound => "FieldValueNotFound",
            Self::Internal => "InternalError",
        }
    }

    fn words(self) -> &'static str {
        match self {
            Self::Required => "Required value",
            Self::Invalid | Self::TypeInvalid => "Invalid value",
            Self::NotSupported => "Unsupported value",
            Self::TooLong => "Too long",
            Self::TooMany => "Too many",
            Self::Duplicate => "Duplicate value",
            Self::Forbidden => "Forbidden",
            Self::NotFound => "Not found",
            Self::Internal => "Internal error",
        }
    }
}

impl FieldError {
    /// A fault with everything said; an empty path becomes [`NO_FIELD`].
    #[must_use]
    pub fn new(
        kind: FieldErrorKind,
        field: impl Into<String>,
        value: impl Into<String>,
        detail: impl Into<String>,
    ) -> Self {
        let mut field = field.into();
        if field.is_empty() {
            NO_FIELD.clone_into(&mut field);
        }
        Self { field, kind, value: value.into(), detail: detail.into() }
    }

    /// It is missing; the detail may be empty.
    #[must_use]
    pub fn required(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Required, field, "", detail)
    }

    /// It doesn't fit; the value as Go prints it.
    #[must_use]
    pub fn invalid(field: impl Into<String>, value: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Invalid, field, value, detail)
    }

    /// It may not be set like this.
    #[must_use]
    pub fn forbidden(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Forbidden, field, "", detail)
    }

    /// It is none of the known values; the value as Go prints it.
    #[must_use]
    pub fn not_supported(field: impl Into<String>, value: impl Into<String>, supported: &[&str]) -> Self {
        let quoted: Vec<String> = supported.iter().map(|text| go_quote(text)).collect();
        let detail = if quoted.is_empty() { String::new() } else { format!("supported values: {}", quoted.join(", ")) };
        Self::new(FieldErrorKind::NotSupported, field, value, detail)
    }

    /// It is longer than so many bytes.
    #[must_use]
    pub fn too_long(field: impl Into<String>, limit: i64) -> Self {
        let unit = if limit == 1 { "byte" } else { "bytes" };
        Self::new(FieldErrorKind::TooLong, field, "", format!("may not be more than {limit} {unit}"))
    }

    /// It has more than so many items.
    #[must_use]
    pub fn too_many(field: impl Into<String>, actual: usize, limit: i64) -> Self {
        let unit = if limit == 1 { "item" } else { "items" };
        Self::new(FieldErrorKind::TooMany, field, actual.to_string(), format!("must have at most {limit} {unit}"))
    }

    /// It is there twice; the value as Go prints it.
    #[must_use]
    pub fn duplicate(field: impl Into<String>, value: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Duplicate, field, value, "")
    }

    /// It couldn't be checked.
    #[must_use]
    pub fn internal(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self::new(FieldErrorKind::Internal, field, "", detail)
    }
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.field, self.kind.words())?;
        if !self.value.is_empty() {
            write!(f, ": {}", self.value)?;
        }
        if !self.detail.is_empty() {
            write!(f, ": {}", self.detail)?;
        }
        Ok(())
    }
}

/// How Go's JSON decoder names what it found.
pub(crate) fn json_kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "bool",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

/// A value as Go's `%v` prints it.
#[must_use]
pub fn go_text(value: &Value) -> String {
    let all = |items: Vec<String>| items.join(" ");
    match value {
        Value::Null => "<nil>".to_owned(),
        Value::String(text) => text.clone(),
        Value::Array(items) => format!("[{}]", all(items.iter().map(go_text).collect())),
        Value::Object(fields) => {
            format!("map[{}]", all(fields.iter().map(|(name, value)| format!("{name}:{}", go_text(value))).collect()))
        }
        plain => plain.to_string(),
    }
}

/// A text in double quotes as Go's `%q` prints it.
#[must_use]
pub fn go_quote(text: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        // Writing to a String can't fail.
        let _ = match c {
            '"' => out.write_str("\\\""),
            '\\' => out.write_str("\\\\"),
            '\u{7}' => out.write_str("\\a"),
            '\u{8}' => out.write_str("\\b"),
            '\u{c}' => out.write_str("\\f"),
            '\n' => out.write_str("\\n"),
            '\r' => out.write_str("\\r"),
            '\t' => out.write_str("\\t"),
            '\u{b}' => out.write_str("\\v"),
            c if c == ' ' || c.is_ascii_graphic() => out.write_char(c),
            c if c.is_ascii() => write!(out, "\\x{:02x}", u32::from(c)),
            c if printable(c) => out.write_char(c),
            c if u32::from(c) < 0x1_0000 => write!(out, "\\u{:04x}", u32::from(c)),
            c => write!(out, "\\U{:08x}", u32::from(c)),
        };
    }
    out.push('"');
    out
}

/// Whether Go prints a character beyond ASCII as it is: not the controls, separators, formats and private ones.
fn printable(c: char) -> bool {
    !(c.is_control()
        || c.is_whitespace()
        || matches!(u32::from(c), 0xad | 0x200b..=0x200f | 0x202a..=0x202e | 0x2060..=0x206f | 0xfeff | 0xfff9..=0xfffb
            | 0xe000..=0xf8ff | 0xe_0000..=0x10_ffff))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn word_like_go() {
        let text = |error: FieldError| error.to_string();
        assert_eq!(text(FieldError::invalid("spec.x", "\"abc\"", "bad")), "spec.x: Invalid value: \"abc\": bad");
        assert_eq!(text(FieldError::required("spec.x", "")), "spec.x: Required value");
        assert_eq!(
            text(FieldError::not_supported("a", "\"z\"", &["x", "y"])),
            "a: Unsupported value: \"z\": supported values: \"x\", \"y\""
        );
        assert_eq!(text(FieldError::too_long("a", 5)), "a: Too long: may not be more than 5 bytes");
        assert_eq!(text(FieldError::too_many("a", 2, 1)), "a: Too many: 2: must have at most 1 item");
        assert_eq!(text(FieldError::invalid("", "null", "some")), "<nil>: Invalid value: null: some");
        assert_eq!(FieldErrorKind::TypeInvalid.reason(), "FieldValueTypeInvalid");
    }

    #[test]
    fn quote_like_go() {
        assert_eq!(go_quote("é\n\u{1}\"\\\u{7f}\u{200b}日"), "\"é\\n\\x01\\\"\\\\\\x7f\\u200b日\"");
    }
}
