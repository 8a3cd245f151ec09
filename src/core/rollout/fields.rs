//! The fields of a parent that a revision keeps: dotted paths.
//!
//! Never reads into lists: a path names fields of objects only.

use std::fmt;

use serde_json::{Map, Value};

/// So many paths of one controller.
pub const MAX_FIELD_PATHS: usize = 16;
/// A path is at most this long.
pub const MAX_PATH_BYTES: usize = 253;

/// The path of a field, such as `spec.template`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FieldPath(Vec<String>);

impl FieldPath {
    /// Takes a dotted path.
    ///
    /// # Errors
    /// If it is too long, or a name in it is empty; the text says what it must be.
    pub fn parse(text: &str) -> Result<Self, String> {
        let names: Vec<String> = text.split('.').map(str::to_owned).collect();
        if text.len() > MAX_PATH_BYTES || names.iter().any(String::is_empty) {
            return Err(format!(
                "must be the path of a field such as spec.template, at most {MAX_PATH_BYTES} characters, not {text:?}"
            ));
        }
        Ok(Self(names))
    }

    /// What a revision keeps where nothing else is said: the whole `spec`.
    #[must_use]
    pub fn spec() -> Self {
        Self(vec!["spec".to_owned()])
    }

    /// The field, if it is there and isn't null.
    fn get<'a>(&self, object: &'a Value) -> Option<&'a Value> {
        self.0.iter().try_fold(object, |at, name| at.get(name.as_str())).filter(|value| !value.is_null())
    }

    /// Sets the field; what is on the way and is no object becomes one.
    fn put(&self, object: &mut Map<String, Value>, value: Value) {
        let Some((last, way)) = self.0.split_last() else { return };
        let mut at = object;
        for name in way {
            let next = at.entry(name.clone()).or_insert(Value::Null);
            if !next.is_object() {
                *next = Value::Object(Map::new());
            }
            let Value::Object(inner) = next else { return };
            at = inner;
        }
        at.insert(last.clone(), value);
    }

    /// Takes the field away.
    fn remove(&self, object: &mut Map<String, Value>) {
        let Some((last, way)) = self.0.split_last() else { return };
        let mut at = object;
        for name in way {
            let Some(Value::Object(inner)) = at.get_mut(name) else { return };
            at = inner;
        }
        at.remove(last);
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("."))
    }
}

/// These fields of an object, as an object of their own.
#[must_use]
pub(super) fn select(object: &Value, paths: &[FieldPath]) -> Value {
    let mut selected = Map::new();
    for path in paths {
        if let Some(value) = path.get(object) {
            path.put(&mut selected, value.clone());
        }
    }
    Value::Object(selected)
}

/// Gives these fields of `object` the values that they have in `selected`; what isn't there goes.
pub(super) fn restore(object: &mut Value, selected: &Value, paths: &[FieldPath]) {
    let Value::Object(object) = object else { return };
    for path in paths {
        match path.get(selected) {
            Some(value) => path.put(object, value.clone()),
            None => path.remove(object),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn paths(texts: &[&str]) -> Vec<FieldPath> {
        texts.iter().map(|text| FieldPath::parse(text).unwrap()).collect()
    }

    #[test]
    fn paths_are_names_with_dots() {
        assert_eq!(FieldPath::parse("spec").unwrap(), FieldPath::spec());
        assert_eq!(FieldPath::parse("spec.template").unwrap().to_string(), "spec.template");
        let long = "a".repeat(MAX_PATH_BYTES + 1);
        for bad in ["", ".", ".spec", "spec.", "spec..a", &long] {
            assert!(FieldPath::parse(bad).unwrap_err().contains("such as spec.template"), "{bad}");
        }
    }

    #[test]
    fn fields_come_back_as_they_were() {
        let old = json!({"kind": "P", "spec": {"a": 1, "b": {"c": 2, "d": 3}}, "data": null});
        let paths = paths(&["spec.b.c", "spec.none", "data", "spec.a.b"]);
        let selected = select(&old, &paths);
        assert_eq!(selected, json!({"spec": {"b": {"c": 2}}}));
        let mut new = json!({"kind": "P", "spec": {"a": 9, "b": {"c": 8, "d": 7}, "none": 6}, "data": {}});
        restore(&mut new, &selected, &paths);
        assert_eq!(new, json!({"kind": "P", "spec": {"a": 9, "b": {"c": 2, "d": 7}}}));
        assert_eq!(select(&new, &paths), selected);
    }

    #[test]
    fn what_is_in_the_way_becomes_an_object() {
        let paths = paths(&["spec.a.b"]);
        let mut object = json!({"spec": {"a": 1}});
        restore(&mut object, &json!({"spec": {"a": {"b": 2}}}), &paths);
        assert_eq!(object, json!({"spec": {"a": {"b": 2}}}));
    }

    #[test]
    fn a_path_in_another_is_kept_once() {
        let object = json!({"spec": {"a": 1, "b": 2}});
        assert_eq!(select(&object, &paths(&["spec", "spec.a"])), object);
        assert_eq!(select(&object, &paths(&["spec.a", "spec"])), object);
    }
}
