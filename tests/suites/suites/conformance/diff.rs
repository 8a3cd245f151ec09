//! Where two JSON values differ, one line a place.
//!
//! Never judges; order of members doesn't count, order of items does.

use serde_json::Value;

/// Longest value shown.
const MAX_VALUE_CHARS: usize = 700;

/// `pointer: ours != theirs` for each place.
pub(crate) fn lines(ours: &Value, theirs: &Value) -> Vec<String> {
    let mut lines = Vec::new();
    walk("", Some(ours), Some(theirs), &mut lines);
    lines
}

fn walk(pointer: &str, ours: Option<&Value>, theirs: Option<&Value>, lines: &mut Vec<String>) {
    match (ours, theirs) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let names = a.keys().chain(b.keys().filter(|name| !a.contains_key(*name)));
            for name in names {
                walk(&format!("{pointer}/{name}"), a.get(name), b.get(name), lines);
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => {
            for index in 0..a.len().max(b.len()) {
                walk(&format!("{pointer}/{index}"), a.get(index), b.get(index), lines);
            }
        }
        (ours, theirs) if ours == theirs => {}
        (ours, theirs) => lines.push(format!("{pointer}: {} != {}", shown(ours), shown(theirs))),
    }
}

fn shown(value: Option<&Value>) -> String {
    let text = value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    match text.char_indices().nth(MAX_VALUE_CHARS) {
        Some((at, _)) => format!("{}…", &text[..at]),
        None => text,
    }
}
