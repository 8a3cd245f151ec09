//! Regular expressions in Go's dialect (RE2), for an engine of a slightly different one.
//!
//! Classes like `\d` are ASCII in Go, `[` needs no escape within a class, and a `{` that starts no repetition is itself.

use regex::{Regex, RegexBuilder};

/// Compiled size limit of one expression, in bytes.
const MAX_COMPILED_BYTES: usize = 10 << 20;
/// Go's limit of a repetition.
const MAX_REPEAT: u32 = 1000;

/// Compiles an expression.
///
/// # Errors
/// If Go would refuse it, with Go's words as far as they are known.
pub(super) fn compile(text: &str) -> Result<Regex, String> {
    let translated = translate(text)?;
    RegexBuilder::new(&translated).size_limit(MAX_COMPILED_BYTES).build().map_err(|error| why(text, &error))
}

fn translate(text: &str) -> Result<String, String> {
    let mut out = String::with_capacity(text.len() + 8);
    let mut rest = text;
    let mut class_depth_at: Option<usize> = None;
    while let Some(c) = rest.chars().next() {
        let after = &rest[c.len_utf8()..];
        let in_class = class_depth_at.is_some();
        match c {
            '\\' => {
                let Some(escaped) = after.chars().next() else {
                    return Err("error parsing regexp: trailing backslash at end of expression: ``".to_owned());
                };
                let mut used = escaped.len_utf8();
                match escaped {
                    'd' => out.push_str(if in_class { "0-9" } else { "[0-9]" }),
                    'w' => out.push_str(if in_class { "0-9A-Za-z_" } else { "[0-9A-Za-z_]" }),
                    's' => out.push_str(if in_class { r"\t\n\x0c\r\x20" } else { r"[\t\n\x0c\r\x20]" }),
                    'D' => out.push_str("[^0-9]"),
                    'W' => out.push_str("[^0-9A-Za-z_]"),
                    'S' => out.push_str(r"[^\t\n\x0c\r\x20]"),
                    'b' if !in_class => out.push_str(r"(?-u:\b)"),
                    'Q' if !in_class => {
                        let body = &after[1..];
                        let end = body.find("\\E").unwrap_or(body.len());
                        out.push_str(&regex::escape(&body[..end]));
                        used = 1 + (end + 2).min(body.len());
                    }
                    'h' | 'H' | 'R' | 'X' | 'K' | 'G' | 'Z' | '<' | '>' | 'u' | 'U' | 'c' | 'e' | 'E' | '1'..='9'
                        if escaped != '<' && escaped != '>' =>
                    {
                        return Err(format!("error parsing regexp: invalid escape sequence: `\\{escaped}`"));
                    }
                    // Punctuation may always be escaped in Go; here these two would mean the ends of a word.
                    '<' | '>' => out.push(escaped),
                    _ => {
                        out.push('\\');
                        out.push(escaped);
                    }
                }
                rest = &after[used..];
                continue;
            }
            '[' if !in_class => {
                class_depth_at = Some(out.len());
                out.push('[');
                rest = after;
                if let Some(after) = rest.strip_prefix('^') {
                    out.push('^');
                    rest = after;
                }
                if let Some(after) = rest.strip_prefix(']') {
                    out.push_str("\\]");
                    rest = after;
                }
                continue;
            }
            '[' => {
                // A named class like [:alpha:] stays; any other bracket is itself.
                match after.strip_prefix(':').and_then(|name| name.find(":]").map(|end| &name[..end])) {
                    Some(name) if name.trim_start_matches('^').chars().all(|c| c.is_ascii_lowercase()) => {
                        out.push_str(&format!("[:{name}:]"));
                        rest = &after[name.len() + 3..];
                        continue;
                    }
                    _ => out.push_str("\\["),
                }
            }
            ']' if in_class => {
                class_depth_at = None;
                out.push(']');
            }
            '&' | '~' if in_class => {
                out.push('\\');
                out.push(c);
            }
            '{' if !in_class => match repetition(after) {
                Some(numbers) if numbers.iter().flatten().any(|n| *n > MAX_REPEAT) => {
                    let end = after.find('}').map_or(after.len(), |at| at + 1);
                    return Err(format!("error parsing regexp: invalid repeat count: `{{{}`", &after[..end]));
                }
                Some(_) => out.push('{'),
                None => out.push_str("\\{"),
            },
            '}' if !in_class && !open_repetition(&out) => out.push_str("\\}"),
            c => out.push(c),
        }
        rest = after;
    }
    Ok(out)
}

/// What stands after a `{`, if it is a repetition: `n}`, `n,}` or `n,m}`.
fn repetition(after: &str) -> Option<[Option<u32>; 2]> {
    let body = &after[..after.find('}')?];
    let (low, high) = body.split_once(',').map_or((body, None), |(low, high)| (low, Some(high)));
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().unwrap_or(u32::MAX));
    if low.is_empty() {
        return None;
    }
    let high = match high {
        None | Some("") => None,
        Some(high) => Some(number(high)?),
    };
    Some([Some(number(low)?), high])
}

fn open_repetition(out: &str) -> bool {
    let Some(at) = out.rfind('{') else { return false };
    !out[..at].ends_with('\\') && out[at + 1..].bytes().all(|b| b.is_ascii_digit() || b == b',')
}

fn why(text: &str, error: &regex::Error) -> String {
    let said = error.to_string();
    for lookaround in ["(?=", "(?!", "(?<=", "(?<!"] {
        if text.contains(lookaround) {
            let shown = &lookaround[..3];
            return format!("error parsing regexp: invalid or unsupported Perl syntax: `{shown}`");
        }
    }
    let words = if said.contains("unclosed group") {
        "missing closing )"
    } else if said.contains("unopened group") {
        "unexpected )"
    } else if said.contains("unclosed character class") {
        let at = text.find('[').unwrap_or(0);
        return format!("error parsing regexp: missing closing ]: `{}`", &text[at..]);
    } else if said.contains("repetition operator missing expression") {
        let operator = text.chars().find(|c| matches!(c, '*' | '+' | '?')).unwrap_or('*');
        return format!("error parsing regexp: missing argument to repetition operator: `{operator}`");
    } else {
        return format!("error parsing regexp: {}", said.lines().last().unwrap_or_default().trim());
    };
    format!("error parsing regexp: {words}: `{text}`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn match_like_go() {
        let matches = |pattern: &str, text: &str| compile(pattern).unwrap().is_match(text);
        assert!(matches(r"^\d+$", "12") && !matches(r"^\d+$", "١"));
        assert!(matches(r"^[\w.-]+$", "a_b.c-d") && !matches(r"^\w+$", "é"));
        assert!(matches("^[[]$", "[") && matches("^a{b}$", "a{b}") && matches("^a{2}$", "aa"));
        assert!(matches("^[]a]$", "]") && matches("^[a&&b]$", "&") && matches(r"^\Qa.b\E$", "a.b"));
        assert!(matches("^[[:alpha:]]+$", "abc") && matches(r"\bfoo\b", "a foo b"));
        assert_eq!(compile("(").unwrap_err(), "error parsing regexp: missing closing ): `(`");
        assert_eq!(compile("(?=a)").unwrap_err(), "error parsing regexp: invalid or unsupported Perl syntax: `(?=`");
        assert!(compile("a{1001}").is_err() && compile(r"(a)\1").is_err());
    }
}
