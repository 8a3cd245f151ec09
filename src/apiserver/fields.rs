//! Field selectors: `metadata.name=a,status.phase!=Running`.
//!
//! Only exact matches exist, as in Kubernetes; which fields a kind offers is the kind's to say.

use serde_json::Value;

use crate::error::Error;

/// A parsed field selector.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldSelector(Vec<(String, String, bool)>);

impl FieldSelector {
    /// Takes the selector's text; `offered` says which fields the kind can be selected by beside name and namespace,
    /// `unknown` what is said of others.
    ///
    /// # Errors
    /// If it isn't one, or names another field.
    pub fn parse(text: &str, offered: &[String], unknown: impl Fn(&str) -> String) -> Result<Self, Error> {
        let mut terms = Vec::new();
        for term in text.split(',').filter(|term| !term.is_empty()) {
            let (field, value, equal) = match term.split_once("!=") {
                Some((field, value)) => (field, value, false),
                None => {
                    let (field, value) = term.split_once('=').ok_or_else(|| {
                        Error::bad_request(format!("invalid selector: '{text}'; can't understand '{term}'"))
                    })?;
                    (field, value.strip_prefix('=').unwrap_or(value), true)
                }
            };
            let known = matches!(field, "metadata.name" | "metadata.namespace") || offered.iter().any(|o| o == field);
            if !known {
                return Err(Error::bad_request(unknown(field)));
            }
            terms.push((field.to_owned(), value.to_owned(), equal));
        }
        Ok(Self(terms))
    }

    /// Whether it selects everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether an object is selected.
    #[must_use]
    pub fn matches(&self, object: &Value) -> bool {
        self.0.iter().all(|(field, value, equal)| (lookup(object, field) == *value) == *equal)
    }
}

fn lookup(object: &Value, field: &str) -> String {
    let found = field.split('.').try_fold(object, |value, part| value.get(part));
    match found {
        Some(Value::String(text)) => text.clone(),
        Some(Value::Null) | None => String::new(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn select_by_equality_only() {
        let pod = json!({ "metadata": { "name": "a", "namespace": "n" }, "status": { "phase": "Running" } });
        let offered = ["status.phase".to_owned()];
        let matches = |text: &str| FieldSelector::parse(text, &offered, str::to_owned).unwrap().matches(&pod);
        assert!(matches("metadata.name=a") && matches("metadata.name==a,status.phase!=Failed") && matches(""));
        assert!(!matches("metadata.name=b") && !matches("status.phase!=Running"));
        let error = FieldSelector::parse("spec.x=1", &offered, |field| format!("no {field}")).unwrap_err();
        assert_eq!((error.code, error.message.as_str()), (400, "no spec.x"));
        assert!(FieldSelector::parse("a", &offered, str::to_owned).is_err());
    }
}
