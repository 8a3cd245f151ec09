//! How Go writes values and errors, where the real server's answers carry it.
//!
//! Never used for what is stored: only messages, and the text that a JSON patch compares by.

use std::fmt::Write as _;
use std::ops::Range;

use serde_json::{Number, Value};

/// A value as Go's `%v` prints it: `map[a:1 b:[x <nil>]]`.
#[must_use]
pub fn plain(value: &Value) -> String {
    let mut out = String::new();
    write_value(&mut out, value, false);
    out
}

/// A value as Go's `%s` prints it: what isn't text carries its type.
pub(super) fn text_verb(value: &Value) -> String {
    if value.is_null() {
        return "%!s(<nil>)".to_owned();
    }
    let mut out = String::new();
    write_value(&mut out, value, true);
    out
}

/// Lists as Go's `%v` prints a slice of them.
pub(super) fn plain_lists(lists: &[&[Value]]) -> String {
    let texts: Vec<String> = lists.iter().map(|list| plain_list(list)).collect();
    format!("[{}]", texts.join(" "))
}

/// A list as Go's `%v` prints it.
pub(super) fn plain_list(list: &[Value]) -> String {
    let texts: Vec<String> = list.iter().map(plain).collect();
    format!("[{}]", texts.join(" "))
}

fn write_value(out: &mut String, value: &Value, typed: bool) {
    let scalar = |out: &mut String, kind: &str, text: &str| {
        let written = if typed { write!(out, "%!s({kind}={text})") } else { write!(out, "{text}") };
        written.unwrap_or_default();
    };
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(truth) => scalar(out, "bool", &truth.to_string()),
        Value::Number(number) => match number.as_i64() {
            Some(whole) => scalar(out, "int64", &whole.to_string()),
            None => scalar(out, "float64", &float(number.as_f64().unwrap_or_default(), -4..6)),
        },
        Value::String(text) => out.push_str(text),
        Value::Array(list) => {
            out.push('[');
            for (at, item) in list.iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                write_value(out, item, typed);
            }
            out.push(']');
        }
        Value::Object(map) => {
            let mut fields: Vec<_> = map.iter().collect();
            fields.sort_unstable_by_key(|(key, _)| *key);
            out.push_str("map[");
            for (at, (key, item)) in fields.into_iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                write_value(out, item, typed);
            }
            out.push(']');
        }
    }
}

/// The shortest digits; written with an exponent if that isn't in `plain`, which differs between Go's `%v` and its JSON.
fn float(value: f64, plain: Range<i32>) -> String {
    let scientific = format!("{value:e}");
    let Some((digits, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if value == 0.0 || plain.contains(&exponent) {
        return value.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// A value as Go's JSON writes it, escaped for HTML. A JSON patch's `test` compares scalars by this text.
pub(crate) fn json(value: &Value) -> String {
    let mut out = String::new();
    write_json(&mut out, value);
    escape_html(&out)
}

fn write_json(out: &mut String, value: &Value) {
    match value {
        Value::Number(number) => out.push_str(&json_number(number)),
        Value::Array(list) => {
            out.push('[');
            for (at, item) in list.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write_json(out, item);
            }
            out.push(']');
        }
        Value::Object(map) => {
            out.push('{');
            for (at, (key, item)) in map.iter().enumerate() {
                if at > 0 {
                    out.push(',');
                }
                write!(out, "{}:", Value::String(key.clone())).unwrap_or_default();
                write_json(out, item);
            }
            out.push('}');
        }
        Value::Null | Value::Bool(_) | Value::String(_) => write!(out, "{value}").unwrap_or_default(),
    }
}

fn json_number(number: &Number) -> String {
    match number.as_f64() {
        Some(value) if number.is_f64() => {
            let text = float(value, -6..21);
            text.strip_suffix(|digit: char| digit.is_ascii_digit())
                .and_then(|rest| rest.strip_suffix("e-0").map(|digits| format!("{digits}e-{}", &text[rest.len()..])))
                .unwrap_or(text)
        }
        _ => number.to_string(),
    }
}

/// JSON text with what Go escapes for HTML escaped; these characters only occur inside strings.
pub(super) fn escape_html(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for letter in text.chars() {
        if matches!(letter, '<' | '>' | '&' | '\u{2028}' | '\u{2029}') {
            write!(out, "\\u{:04x}", u32::from(letter)).unwrap_or_default();
        } else {
            out.push(letter);
        }
    }
    out
}

/// How Go names the type of a decoded value in `%s`.
pub(crate) fn type_name(value: &Value) -> &'static str {
    match value {
        Value::Null => "%!s(<nil>)",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_i64() => "int64",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// What Go's JSON scanner says of a text that isn't JSON; none if its syntax is right.
#[must_use]
pub fn syntax_error(text: &[u8]) -> Option<String> {
    Scanner { text, at: 0, open: Vec::new() }.run().err().flatten()
}

/// What may come next.
#[derive(Clone, Copy, PartialEq)]
enum Next {
    Value,
    ValueOrEnd,
    Key,
    KeyOrEnd,
    Colon,
    AfterValue,
}

struct Scanner<'a> {
    text: &'a [u8],
    at: usize,
    open: Vec<u8>,
}

/// An error carries the words, or nothing at the proper end of the text.
type Scan<T> = Result<T, Option<String>>;

impl Scanner<'_> {
    fn run(mut self) -> Scan<()> {
        let mut next = Next::Value;
        loop {
            let Some(&byte) = self.text.get(self.at) else {
                let done = next == Next::AfterValue && self.open.is_empty();
                return Err((!done).then(|| "unexpected end of JSON input".to_owned()));
            };
            next = match (next, byte) {
                (_, b' ' | b'\t' | b'\r' | b'\n') => {
                    self.at += 1;
                    continue;
                }
                (Next::Value | Next::ValueOrEnd, b'{') => self.enter(byte, Next::KeyOrEnd),
                (Next::Value | Next::ValueOrEnd, b'[') => self.enter(byte, Next::ValueOrEnd),
                (Next::KeyOrEnd, b'}') | (Next::ValueOrEnd, b']') => self.leave(),
                (Next::Value | Next::ValueOrEnd, _) => self.scalar(byte)?,
                (Next::Key | Next::KeyOrEnd, b'"') => {
                    self.string()?;
                    Next::Colon
                }
                (Next::Key | Next::KeyOrEnd, _) => return Err(bad(byte, "looking for beginning of object key string")),
                (Next::Colon, b':') => self.step(Next::Value),
                (Next::Colon, _) => return Err(bad(byte, "after object key")),
                (Next::AfterValue, _) => match (self.open.last(), byte) {
                    (Some(b'{'), b',') => self.step(Next::Key),
                    (Some(b'['), b',') => self.step(Next::Value),
                    (Some(b'{'), b'}') | (Some(b'['), b']') => self.leave(),
                    (Some(b'{'), _) => return Err(bad(byte, "after object key:value pair")),
                    (Some(_), _) => return Err(bad(byte, "after array element")),
                    (None, _) => return Err(bad(byte, "after top-level value")),
                },
            };
        }
    }

    fn step(&mut self, next: Next) -> Next {
        self.at += 1;
        next
    }

    fn enter(&mut self, bracket: u8, next: Next) -> Next {
        self.open.push(bracket);
        self.step(next)
    }

    fn leave(&mut self) -> Next {
        self.open.pop();
        self.step(Next::AfterValue)
    }

    /// The byte here; at the end a space, as Go's scanner takes it.
    fn here(&self) -> u8 {
        self.text.get(self.at).copied().unwrap_or(b' ')
    }

    fn scalar(&mut self, first: u8) -> Scan<Next> {
        match first {
            b'"' => self.string()?,
            b'-' | b'0'..=b'9' => self.number()?,
            b't' => self.literal("true")?,
            b'f' => self.literal("false")?,
            b'n' => self.literal("null")?,
            _ => return Err(bad(first, "looking for beginning of value")),
        }
        Ok(Next::AfterValue)
    }

    fn literal(&mut self, word: &str) -> Scan<()> {
        for expected in word.bytes() {
            if self.here() != expected {
                let context = format!("in literal {word} (expecting '{}')", char::from(expected));
                return Err(bad(self.here(), &context));
            }
            self.at += 1;
        }
        Ok(())
    }

    fn string(&mut self) -> Scan<()> {
        self.at += 1;
        loop {
            let Some(&byte) = self.text.get(self.at) else {
                return Err(Some("unexpected end of JSON input".to_owned()));
            };
            self.at += 1;
            match byte {
                b'"' => return Ok(()),
                b'\\' => self.escape()?,
                0..0x20 => return Err(bad(byte, "in string literal")),
                _ => {}
            }
        }
    }

    fn escape(&mut self) -> Scan<()> {
        let byte = self.here();
        self.at += 1;
        match byte {
            b'b' | b'f' | b'n' | b'r' | b't' | b'\\' | b'/' | b'"' => Ok(()),
            b'u' => {
                for _ in 0..4 {
                    if !self.here().is_ascii_hexdigit() {
                        return Err(bad(self.here(), "in \\u hexadecimal character escape"));
                    }
                    self.at += 1;
                }
                Ok(())
            }
            _ => Err(bad(byte, "in string escape code")),
        }
    }

    fn number(&mut self) -> Scan<()> {
        if self.here() == b'-' {
            self.at += 1;
        }
        if self.here() == b'0' {
            self.at += 1;
        } else {
            self.digits("in numeric literal")?;
        }
        if self.here() == b'.' {
            self.at += 1;
            self.digits("after decimal point in numeric literal")?;
        }
        if matches!(self.here(), b'e' | b'E') {
            self.at += 1;
            if matches!(self.here(), b'+' | b'-') {
                self.at += 1;
            }
            self.digits("in exponent of numeric literal")?;
        }
        Ok(())
    }

    fn digits(&mut self, context: &str) -> Scan<()> {
        if !self.here().is_ascii_digit() {
            return Err(bad(self.here(), context));
        }
        while self.here().is_ascii_digit() {
            self.at += 1;
        }
        Ok(())
    }
}

fn bad(byte: u8, context: &str) -> Option<String> {
    let shown = match byte {
        b'\'' => "\\'".to_owned(),
        0x07 => "\\a".to_owned(),
        0x08 => "\\b".to_owned(),
        0x0b => "\\v".to_owned(),
        0x0c => "\\f".to_owned(),
        b'\n' => "\\n".to_owned(),
        b'\r' => "\\r".to_owned(),
        b'\t' => "\\t".to_owned(),
        b'\\' => "\\\\".to_owned(),
        0..0x20 | 0x7f => format!("\\x{byte:02x}"),
        0x80..=0xa0 | 0xad => format!("\\u{byte:04x}"),
        _ => char::from(byte).to_string(),
    };
    Some(format!("invalid character '{shown}' {context}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_look_as_go_writes_them() {
        let numbers = json!([1, 1.0, -0.5, 1e-5, 1e-6, 1.5e-7, 1e-10, 1e20, 1e21, 1.25e100, -3]);
        let written = "[1,1,-0.5,0.00001,0.000001,1.5e-7,1e-10,100000000000000000000,1e+21,1.25e+100,-3]";
        assert_eq!(json(&numbers), written);
        let printed = "[1 1 -0.5 1e-05 1e-06 1.5e-07 1e-10 1e+20 1e+21 1.25e+100 -3]";
        assert_eq!(plain(&numbers), printed);
        assert_eq!(json(&json!("a<b>&\u{2028}")), "\"a\\u003cb\\u003e\\u0026\\u2028\"");
    }
}
