//! The options of requests, checked before anything is done (apimachinery v0.36.3, pkg/apis/meta), in its words.
//!
//! Never looks at objects.

use serde_json::{Map, Value, json};

use crate::error::{About, Error};
use crate::field_error::{FieldError, go_quote};
use crate::request::{Query, Verb};

/// Longest `fieldManager`.
const MAX_FIELD_MANAGER_BYTES: usize = 128;
const MATCH: &str = "resourceVersionMatch";
const EXACT: &str = "Exact";
const NOT_OLDER: &str = "NotOlderThan";

/// What Go's `unicode.IsPrint` calls printable, but for letters that no version of Unicode has assigned.
fn is_printable(letter: char) -> bool {
    letter == ' ' || !(letter.is_control() || letter.is_whitespace())
}

/// The manager that a client is if it names none: what precedes the first slash of its User-Agent.
pub(crate) fn manager_of_agent(agent: &str) -> String {
    let name = agent.split('/').next().unwrap_or_default();
    let mut out = String::new();
    for letter in name.chars().filter(|letter| is_printable(*letter)) {
        if out.len() + letter.len_utf8() > MAX_FIELD_MANAGER_BYTES {
            break;
        }
        out.push(letter);
    }
    out
}

/// Checks the options of a write; `applies` says that it is a patch by server-side apply.
///
/// # Errors
/// 422 with the options that aren't right.
pub(crate) fn check_write(verb: Verb, applies: bool, query: &Query) -> Result<(), Error> {
    let mut errors = Vec::new();
    let kind = match verb {
        Verb::Create => "CreateOptions",
        Verb::Update => "UpdateOptions",
        Verb::Patch => "PatchOptions",
        Verb::Get | Verb::List | Verb::Watch | Verb::Delete | Verb::DeleteCollection => return Ok(()),
    };
    let manager = query.get("fieldManager").unwrap_or_default();
    if applies && manager.is_empty() {
        errors.push(FieldError::required("fieldManager", "is required for apply patch"));
    }
    if !applies && verb == Verb::Patch && query.has("force") {
        errors.push(FieldError::forbidden("force", "may not be specified for non-apply patch"));
    }
    if manager.len() > MAX_FIELD_MANAGER_BYTES {
        errors.push(FieldError::too_long("fieldManager", 128));
    }
    for (at, c) in manager.char_indices().filter(|(_, c)| !is_printable(*c)) {
        let why = format!("invalid character U+{:04X} (at position {at})", u32::from(c));
        errors.push(FieldError::invalid("fieldManager", go_quote(manager), why));
    }
    check_dry_run(&mut errors, query.get("dryRun").map(|value| json!([value])).unwrap_or_default());
    let validation = query.get("fieldValidation").unwrap_or_default();
    let known = ["", "Ignore", "Strict", "Warn"];
    if !known.contains(&validation) {
        errors.push(FieldError::not_supported("fieldValidation", go_quote(validation), &known));
    }
    finished(kind, &errors)
}

/// The options of a deletion: those of the body, or of the query if there is none.
///
/// # Errors
/// 400 and 422 for options that aren't right.
pub(crate) fn deletion(query: &Query, body: Option<Value>) -> Result<Value, Error> {
    let options = match body {
        Some(body) => body,
        None => {
            let mut options = Map::new();
            if let Some(seconds) = query.integer("gracePeriodSeconds")? {
                options.insert("gracePeriodSeconds".to_owned(), seconds.into());
            }
            if query.has("orphanDependents") {
                options.insert("orphanDependents".to_owned(), query.is_true("orphanDependents").into());
            }
            if let Some(policy) = query.get("propagationPolicy") {
                options.insert("propagationPolicy".to_owned(), policy.into());
            }
            if let Some(dry) = query.get("dryRun") {
                options.insert("dryRun".to_owned(), json!([dry]));
            }
            Value::Object(options)
        }
    };
    let mut errors = Vec::new();
    if let Some(policy) = options["propagationPolicy"].as_str() {
        if !options["orphanDependents"].is_null() {
            let why = "orphanDependents and deletionPropagation cannot be both set";
            errors.push(FieldError::invalid("propagationPolicy", go_quote(policy), why));
        }
        if !matches!(policy, "Foreground" | "Background" | "Orphan") {
            let known = ["Foreground", "Background", "Orphan", "nil"];
            errors.push(FieldError::not_supported("propagationPolicy", go_quote(policy), &known));
        }
    }
    check_dry_run(&mut errors, options["dryRun"].clone());
    finished("DeleteOptions", &errors)?;
    Ok(options)
}

/// Checks the options of a list or a watch.
///
/// # Errors
/// 422 with the options that don't go together.
pub(crate) fn check_list(query: &Query, watch: bool) -> Result<(), Error> {
    let mut errors = Vec::new();
    let matching = query.get(MATCH).unwrap_or_default();
    let with_token = query.get("continue").is_some();
    let initial = query.has("sendInitialEvents");
    let forbidden = |errors: &mut Vec<FieldError>, why: &str| errors.push(FieldError::forbidden(MATCH, why));
    if watch {
        if initial && matching != NOT_OLDER {
            forbidden(&mut errors, "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan");
        }
        if !matching.is_empty() {
            if !initial {
                let why = "resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided";
                forbidden(&mut errors, why);
            }
            if matching != NOT_OLDER {
                errors.push(FieldError::not_supported(MATCH, go_quote(matching), &[NOT_OLDER]));
            }
            if with_token {
                forbidden(&mut errors, "resourceVersionMatch is forbidden when continue is provided");
            }
        }
        return finished("ListOptions", &errors);
    }
    if !matching.is_empty() {
        let version = query.get("resourceVersion");
        if version.is_none() {
            forbidden(&mut errors, "resourceVersionMatch is forbidden unless resourceVersion is provided");
        }
        if with_token {
            forbidden(&mut errors, "resourceVersionMatch is forbidden when continue is provided");
        }
        if !matches!(matching, EXACT | NOT_OLDER) {
            errors.push(FieldError::not_supported(MATCH, go_quote(matching), &[EXACT, NOT_OLDER, ""]));
        }
        if matching == EXACT && version == Some("0") {
            forbidden(&mut errors, "resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
    }
    if initial {
        errors.push(FieldError::forbidden("sendInitialEvents", "sendInitialEvents is forbidden for list"));
    }
    finished("ListOptions", &errors)
}

fn check_dry_run(errors: &mut Vec<FieldError>, asked: Value) {
    if asked.as_array().into_iter().flatten().any(|value| value != "All") {
        errors.push(FieldError::not_supported("dryRun", asked.to_string(), &["All"]));
    }
}

fn finished(kind: &str, errors: &[FieldError]) -> Result<(), Error> {
    if errors.is_empty() {
        return Ok(());
    }
    Err(Error::invalid(About { group: "meta.k8s.io", plural: "", kind, name: "" }, errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deletion_s_body_replaces_its_query() {
        let query = Query::parse("propagationPolicy=Orphan&gracePeriodSeconds=3");
        assert_eq!(deletion(&query, None).unwrap(), json!({ "propagationPolicy": "Orphan", "gracePeriodSeconds": 3 }));
        assert_eq!(deletion(&query, Some(json!({}))).unwrap(), json!({}));
        let error = deletion(&query, Some(json!({ "propagationPolicy": "Orphan", "orphanDependents": true })));
        assert_eq!(error.unwrap_err().code, 422);
    }

    #[test]
    fn lists_and_watches_match_versions_by_rules_of_their_own() {
        let check = |query: &str, watch| check_list(&Query::parse(query), watch).map_err(|error| error.message);
        assert!(check("resourceVersion=5&resourceVersionMatch=Exact", false).is_ok());
        assert!(check("resourceVersionMatch=NotOlderThan&sendInitialEvents=1", true).is_ok());
        assert!(check("resourceVersionMatch=Exact", false).unwrap_err().contains("unless resourceVersion is provided"));
        assert!(check("sendInitialEvents=false", true).unwrap_err().contains("requires setting"));
    }

    #[test]
    fn writes_name_known_values() {
        let check = |query: &str| check_write(Verb::Create, false, &Query::parse(query)).map_err(|error| error.message);
        assert!(check("dryRun=All&fieldValidation=Strict&fieldManager=a%20b").is_ok());
        assert_eq!(
            check("dryRun=Some").unwrap_err(),
            "CreateOptions.meta.k8s.io \"\" is invalid: dryRun: Unsupported value: [\"Some\"]: supported values: \"All\""
        );
    }

    #[test]
    fn managers_are_named_by_the_agent() {
        assert_eq!(manager_of_agent("kubectl/v1.36.3 (linux/amd64)"), "kubectl");
        assert_eq!(manager_of_agent(""), "");
        assert_eq!(manager_of_agent("a\tb\u{e9} c/1"), "ab\u{e9} c");
        assert_eq!(manager_of_agent(&"\u{e9}".repeat(100)).len(), 128);
    }

    #[test]
    fn options_are_checked() {
        let check = |verb, applies, query: &str| {
            check_write(verb, applies, &Query::parse(query)).map_err(|error| error.message)
        };
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
