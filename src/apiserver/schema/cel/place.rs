//! Places in the source of a CEL expression, for messages.
//!
//! The parser tells no places, so they are found by looking for words.

use kube_cel::cel::common::ast::operators;

/// A message with the place of its cause, as cel-go prints it. Lines and columns count from one.
pub(super) fn located(source: &str, line: isize, column: isize, message: &str) -> String {
    let text = usize::try_from(line - 1).ok().and_then(|line| source.lines().nth(line)).unwrap_or_default();
    let dots = ".".repeat(usize::try_from(column - 1).unwrap_or(0).min(text.len() + 1));
    format!("ERROR: <input>:{line}:{column}: {message}\n | {text}\n | {dots}^")
}

/// The line and the column of a byte offset, counted from one.
pub(super) fn place(source: &str, at: usize) -> (isize, isize) {
    let before = source.get(..at).unwrap_or(source);
    let line = before.matches('\n').count() as isize + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as isize + 1;
    (line, column)
}

/// Where a word stands outside of texts and other words.
pub(super) fn occurrences(source: &str, word: &str) -> Vec<usize> {
    let bytes = source.as_bytes();
    let part = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let starts_word = word.bytes().next().is_some_and(part);
    let ends_word = word.bytes().last().is_some_and(part);
    let mut found = Vec::new();
    let mut quote: Option<u8> = None;
    let mut i = 0;
    while i < bytes.len() {
        match quote {
            Some(end) => {
                if bytes[i] == b'\\' {
                    i += 1;
                } else if bytes[i] == end {
                    quote = None;
                }
            }
            None if matches!(bytes[i], b'"' | b'\'') => quote = Some(bytes[i]),
            None => {
                let rest = &bytes[i..];
                let before = i.checked_sub(1).map(|i| bytes[i]);
                let after = bytes.get(i + word.len()).copied();
                let free = !(starts_word && before.is_some_and(|b| part(b) || b == b'.' && !word.ends_with('(')));
                if rest.starts_with(word.as_bytes()) && free && !(ends_word && after.is_some_and(part)) {
                    found.push(i);
                }
            }
        }
        i += 1;
    }
    found
}

/// The symbol of an operator in the source; empty for those that are of several parts.
pub(super) fn symbol(name: &str) -> Option<&'static str> {
    Some(match name {
        operators::CONDITIONAL => "?",
        operators::LOGICAL_AND => "&&",
        operators::LOGICAL_OR => "||",
        operators::LOGICAL_NOT => "!",
        operators::SUBSTRACT | operators::NEGATE => "-",
        operators::ADD => "+",
        operators::MULTIPLY => "*",
        operators::DIVIDE => "/",
        operators::MODULO => "%",
        operators::EQUALS => "==",
        operators::NOT_EQUALS => "!=",
        operators::GREATER_EQUALS => ">=",
        operators::LESS_EQUALS => "<=",
        operators::GREATER => ">",
        operators::LESS => "<",
        operators::IN => "in",
        operators::INDEX | operators::OPT_INDEX => "[",
        operators::NOT_STRICTLY_FALSE => "",
        _ => return None,
    })
}
