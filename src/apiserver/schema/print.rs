//! Values as the real server prints them into messages: Go's number formats and JSON.
//!
//! Never used for what is stored or answered.

use serde_json::{Number, Value};

use crate::field_error::go_quote;

/// A value as a field error prints it: texts quoted, numbers and booleans plain, anything else as JSON.
pub(super) fn value(value: &Value) -> String {
    match value {
        Value::String(text) => go_quote(text),
        Value::Number(number) => number_plain(number),
        other => json(other),
    }
}

/// A value as Go's encoding/json prints it, with its HTML escapes.
pub(super) fn json(value: &Value) -> String {
    let mut out = String::new();
    write_json(value, &mut out);
    out
}

fn write_json(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(value) => out.push_str(if *value { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number_json(number)),
        Value::String(text) => json_text(text, out),
        Value::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                write_json(item, out);
            }
            out.push(']');
        }
        Value::Object(fields) => {
            // Go sorts the keys of a map.
            let mut keys: Vec<&String> = fields.keys().collect();
            keys.sort_unstable();
            out.push('{');
            for (i, key) in keys.into_iter().enumerate() {
                if i > 0 {
                    out.push(',');
                }
                json_text(key, out);
                out.push(':');
                write_json(&fields[key], out);
            }
            out.push('}');
        }
    }
}

fn json_text(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            '\u{8}' => out.push_str("\\b"),
            '\u{c}' => out.push_str("\\f"),
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c if u32::from(c) < 0x20 => out.push_str(&format!("\\u{:04x}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
}

/// A number as `%v` prints it: an int64, or a float in the shortest form.
pub(super) fn number_plain(number: &Number) -> String {
    match number.as_i64() {
        Some(int) => int.to_string(),
        None => float_g(number.as_f64().unwrap_or(0.0)),
    }
}

fn number_json(number: &Number) -> String {
    match number.as_i64() {
        Some(int) => int.to_string(),
        None => float_json(number.as_f64().unwrap_or(0.0)),
    }
}

/// `strconv.FormatFloat(x, 'g', -1, 64)` with `%v`'s limits: an exponent below -4 or from 21 on.
pub(super) fn float_g(x: f64) -> String {
    let (digits, exponent) = scientific(x);
    if (-4..21).contains(&exponent) { float_f(x) } else { format!("{digits}e{exponent:+03}") }
}

/// `strconv.FormatFloat(x, 'f', -1, 64)`.
pub(super) fn float_f(x: f64) -> String {
    format!("{x}")
}

/// As encoding/json prints a float: an exponent below 1e-6 or from 1e21 on, without a zero before it.
fn float_json(x: f64) -> String {
    let size = x.abs();
    if size != 0.0 && !(1e-6..1e21).contains(&size) {
        let (digits, exponent) = scientific(x);
        // Go cleans e-09 up to e-9, and leaves e+09, which can't occur.
        return if exponent < 0 { format!("{digits}e{exponent}") } else { format!("{digits}e{exponent:+03}") };
    }
    float_f(x)
}

fn scientific(x: f64) -> (String, i32) {
    let text = format!("{x:e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    (digits.to_owned(), exponent.parse().unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn print_like_go() {
        assert_eq!(value(&json!(1.5)), "1.5");
        assert_eq!(value(&json!(1e21)), "1e+21");
        assert_eq!(value(&json!(1e20)), "100000000000000000000");
        assert_eq!(value(&json!(1e-7)), "1e-07");
        assert_eq!(value(&json!("a\"b")), "\"a\\\"b\"");
        assert_eq!(json(&json!({ "b": 1e-7, "a": ["<", null, true] })), r#"{"a":["\u003c",null,true],"b":1e-7}"#);
    }
}
