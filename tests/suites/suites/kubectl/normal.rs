//! What two servers can't have in common is replaced by a word: uids, versions, times, addresses.
//!
//! Never more than that: what isn't named here has to agree to the letter, blanks too.

use std::borrow::Cow;
use std::path::Path;
use std::sync::LazyLock;

use regex::{Captures, Regex};
use serde_json::Value;

/// Patterns and what stands for them, in this order.
static RULES: LazyLock<Vec<(Regex, &'static str)>> = LazyLock::new(|| {
    let uid = "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}";
    let rules = [
        (uid.to_owned(), "<uid>"),
        (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z".to_owned(), "<time>"),
        // In the names and headers of `diff`.
        (r"\b(LIVE|MERGED)-\d+".to_owned(), "$1-<number>"),
        (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d+ [+-]\d{4}".to_owned(), "<time>"),
        // As `describe` writes times.
        (r"\b(Mon|Tue|Wed|Thu|Fri|Sat|Sun), \d\d \w{3} \d{4} \d\d:\d\d:\d\d [+-]\d{4}".to_owned(), "<time>"),
        (r#"("?resourceVersion"?: ?)"\d+""#.to_owned(), "$1\"<version>\""),
        (r"(Resource Version: +|resource version to be 1, was )\d+".to_owned(), "$1<version>"),
        // Ages in columns: a second more or less may widen them.
        (r"(?m)(^|  )(?:\d+m)?\d+s(?:   +(\S)| *$)".to_owned(), "$1<age>   $2"),
        (r"\bAGE   +(\S)".to_owned(), "AGE   $1"),
        (r"https?://127\.0\.0\.1:\d+".to_owned(), "<server>"),
        (r"\b127\.0\.0\.1:\d+".to_owned(), "<server>"),
        // Allocated at random, in columns and in fields.
        (r"\b10\.0\.\d{1,3}\.\d{1,3}(?:   +(\S))?".to_owned(), "<ip>   $1"),
        (r"((?::|nodePort: |  ))3[0-2]\d{3}(/|\n)".to_owned(), "$1<port>$2"),
        // What kubectl logs of a watch when its time is over depends on the moment; of other lines it is the prefix.
        (r"(?m)^[EWI]\d{4} [\d:.]+ +\d+ reflector\.go:.*\n".to_owned(), ""),
        (r"(?m)^[EWI]\d{4} [\d:.]+ +\d+ ".to_owned(), "<log> "),
        (r"kubectl-edit-\d+".to_owned(), "kubectl-edit-<number>"),
    ];
    rules.into_iter().filter_map(|(pattern, word)| Some((Regex::new(&pattern).ok()?, word))).collect()
});

/// A refused patch quotes the object; Go keeps the order of its fields.
static QUOTED: LazyLock<Option<Regex>> = LazyLock::new(|| Regex::new(r#"Invalid value: ("\{\\".*\}"): "#).ok());

/// An output with words for what differs between two servers. `dir` is the folder of the one that it is of.
pub(super) fn normal(text: &str, dir: &Path) -> String {
    // Raw answers: Go writes the fields of structs in their order.
    let raw = text.starts_with('{') && text.trim_end().lines().count() == 1;
    let text = if raw { sorted(text) } else { text.to_owned() };
    let mut text = text.replace(&dir.display().to_string(), "<dir>");
    if let Some(quoted) = &*QUOTED {
        let sorted = |found: &Captures<'_>| {
            let text = serde_json::from_str::<String>(&found[1]).unwrap_or_default();
            format!("Invalid value: {}: ", sorted(&text))
        };
        text = quoted.replace_all(&text, sorted).into_owned();
    }
    for (pattern, word) in RULES.iter() {
        if let Cow::Owned(replaced) = pattern.replace_all(&text, *word) {
            text = replaced;
        }
    }
    text
}

/// JSON with its fields in order, and without `managedFields`, as kubectl leaves them out.
fn sorted(json: &str) -> String {
    let Ok(mut value) = serde_json::from_str::<Value>(json) else { return json.to_owned() };
    if let Some(metadata) = value["metadata"].as_object_mut() {
        metadata.remove("managedFields");
    }
    value.to_string()
}

/// The lines that differ, with those around them left out; blank if none does.
pub(super) fn difference(embedded: &str, real: &str) -> String {
    let (a, b): (Vec<&str>, Vec<&str>) = (embedded.lines().collect(), real.lines().collect());
    let same = a.iter().zip(&b).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[same..], &b[same..]);
    let end = a.iter().rev().zip(b.iter().rev()).take_while(|(a, b)| a == b).count();
    let (a, b) = (&a[..a.len() - end], &b[..b.len() - end]);
    let mut out = String::new();
    for (sign, lines) in [("embedded", a), ("real    ", b)] {
        for line in lines {
            out.push_str(&format!("    {sign}| {line}\n"));
        }
    }
    if out.is_empty() && embedded != real {
        out.push_str("    the ends of lines differ\n");
    }
    out
}
