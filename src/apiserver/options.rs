//! The options of a write: who manages the fields that it sets.
//!
//! The rules and words are those of apimachinery v0.36.3 (apis/meta/v1/validation) and of the real server's handlers
//! (managerOrUserAgent). Never looks at an object.

use crate::error::{About, Error};
use crate::field_error::FieldError;
use crate::request::{Query, Verb};

/// A manager's name is at most this long (FieldManagerMaxLength).
const MAX_MANAGER_BYTES: usize = 128;

/// What Go's `unicode.IsPrint` calls printable, but for letters that no version of Unicode has assigned.
fn is_printable(letter: char) -> bool {
    letter == ' ' || !(letter.is_control() || letter.is_whitespace())
}

/// The manager that a client is if it names none: what precedes the first slash of its User-Agent.
#[must_use]
pub fn manager_of_agent(agent: &str) -> String {
    let name = agent.split('/').next().unwrap_or_default();
    let mut out = String::new();
    for letter in name.chars().filter(|letter| is_printable(*letter)) {
        if out.len() + letter.len_utf8() > MAX_MANAGER_BYTES {
            break;
        }
        out.push(letter);
    }
    out
}

/// Checks `fieldManager` and `force` of a write.
///
/// # Errors
/// 422, with what is wrong.
pub fn check(verb: Verb, applies: bool, query: &Query) -> Result<(), Error> {
    let kind = match verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        Verb::Patch => "PatchOptions",
        Verb::Get | Verb::List | Verb::Watch | Verb::Delete | Verb::DeleteCollection => return Ok(()),
    };
    let mut errors = Vec::new();
    let manager = query.get("fieldManager").unwrap_or_default();
    if applies && manager.is_empty() {
        errors.push(FieldError::required("fieldManager", "is required for apply patch"));
    }
    if !applies && verb == Verb::Patch && query.get("force").is_some() {
        errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
    }
    if manager.len() > MAX_MANAGER_BYTES {
        errors.push(FieldError::too_long("fieldManager", 128));
    }
    for (at, letter) in manager.char_indices().filter(|(_, letter)| !is_printable(*letter)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(letter));
        errors.push(FieldError::invalid("fieldManager", crate::field_error::go_quote(manager), why));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(About { group: "meta.k8s.io", plural: "", kind, name: "" }, &errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn managers_are_named_by_the_agent() {
        assert_eq!(manager_of_agent("kubectl/v1.36.3 (linux/amd64)"), "kubectl");
        assert_eq!(manager_of_agent(""), "");
        assert_eq!(manager_of_agent("a\tb\u{e9} c/1"), "ab\u{e9} c");
        assert_eq!(manager_of_agent(&"\u{e9}".repeat(100)).len(), 128);
    }

    #[test]
    fn options_are_checked() {
        let check =
            |verb, applies, query: &str| check(verb, applies, &Query::parse(query)).map_err(|error| error.message);
        let invalid = |kind: &str, rest: &str| Err(format!("{kind}.meta.k8s.io \"\" is invalid: {rest}"));
        let needed = invalid("PatchOptions", "fieldManager: Required value: is required for apply patch");
        assert_eq!(check(Verb::Patch, true, ""), needed);
        assert_eq!(check(Verb::Patch, true, "fieldManager=a&force=true"), Ok(()));
        let force = "force: Forbidden: may not be specified for non-apply patch";
        assert_eq!(check(Verb::Patch, false, "force=false"), invalid("PatchOptions", force));
        let letter = r#"fieldManager: Invalid value: "a\n": invalid character U+000A (at position 1)"#;
        assert_eq!(check(Verb::Create, false, "fieldManager=a%0A"), invalid("CreateOptions", letter));
        assert!(check(Verb::Update, false, &format!("fieldManager={}", "x".repeat(129))).is_err());
        assert_eq!(check(Verb::Get, false, "fieldManager=%0A"), Ok(()));
    }
}
