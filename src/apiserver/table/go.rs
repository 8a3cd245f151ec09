//! Values as Go prints and converts them, where the cells of a table show it. Not a JSON encoder for answers.

use std::fmt::Write as _;
use std::ops::Range;

use serde_json::{Number, Value};

/// What `fmt.Fprint` writes of a value, and JSON of a list or an object.
pub(super) fn print(value: &Value) -> String {
    match value {
        Value::Null => "<no value>".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::String(text) => text.clone(),
        Value::Number(number) => match whole_or_float(number) {
            Ok(whole) => whole.to_string(),
            Err(float) => float_text(float, -4..6, 2),
        },
        Value::Array(_) | Value::Object(_) => {
            let mut text = String::new();
            write_json(value, &mut text);
            text
        }
    }
}

/// A number as Go's `int64` conversion on amd64 makes it: fractions cut, the smallest number if it does not fit.
pub(super) fn to_int64(number: &Number) -> i64 {
    match whole_or_float(number) {
        Ok(whole) => whole,
        // Both bounds are powers of two, so exact.
        Err(float) if (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&float) => float as i64,
        Err(_) => i64::MIN,
    }
}

/// A number as a 64 bit float, written without a fraction if it has none.
pub(super) fn float_cell(number: &Number) -> Value {
    let Ok(whole) = whole_or_float(number) else { return Value::Number(number.clone()) };
    let float = whole as f64;
    // The largest i64 rounds up to a float that is no i64.
    if float < 9_223_372_036_854_775_808.0 { Value::from(float as i64) } else { Value::from(float) }
}

fn whole_or_float(number: &Number) -> Result<i64, f64> {
    number.as_i64().ok_or_else(|| number.as_f64().unwrap_or_default())
}

/// The shortest text of a float; with an exponent if that is not one of `plain`.
fn float_text(float: f64, plain: Range<i32>, exponent_digits: usize) -> String {
    let scientific = format!("{float:e}");
    let Some((mantissa, exponent)) = scientific.split_once('e') else { return scientific };
    let exponent: i32 = exponent.parse().unwrap_or(0);
    if float == 0.0 || plain.contains(&exponent) {
        return float.to_string();
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{mantissa}e{sign}{:0exponent_digits$}", exponent.unsigned_abs())
}

/// Compact JSON with sorted keys, and `<`, `>` and `&` escaped, as `json.Marshal` writes it.
fn write_json(value: &Value, text: &mut String) {
    match value {
        Value::Number(number) => match whole_or_float(number) {
            // Writing to a String cannot fail.
            Ok(whole) => drop(write!(text, "{whole}")),
            Err(float) => text.push_str(&float_text(float, -6..21, 1)),
        },
        Value::String(string) => write_json_string(string, text),
        Value::Array(items) => {
            text.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_json(item, text);
            }
            text.push(']');
        }
        Value::Object(fields) => {
            let mut fields: Vec<_> = fields.iter().collect();
            fields.sort_unstable_by_key(|(name, _)| *name);
            text.push('{');
            for (index, (name, field)) in fields.into_iter().enumerate() {
                if index > 0 {
                    text.push(',');
                }
                write_json_string(name, text);
                text.push(':');
                write_json(field, text);
            }
            text.push('}');
        }
        Value::Null | Value::Bool(_) => drop(write!(text, "{value}")),
    }
}

fn write_json_string(string: &str, text: &mut String) {
    for c in Value::from(string).to_string().chars() {
        match c {
            '<' | '>' | '&' | '\u{2028}' | '\u{2029}' => drop(write!(text, "\\u{:04x}", u32::from(c))),
            c => text.push(c),
        }
    }
}
