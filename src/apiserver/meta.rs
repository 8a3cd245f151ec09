//! What the server does to an object's metadata, whatever its kind: names, uids, times, generations, finalizers.
//!
//! Never reads a clock and never draws a random number: they are arguments.

use serde_json::{Map, Value, json};

use crate::error::{About, Error};
use crate::field_error::{FieldError, FieldErrorKind};

/// What a request brings from outside.
#[derive(Clone, Debug)]
pub struct Now {
    /// RFC 3339 to the second.
    pub time: String,
    /// Random bits, for uids and generated names.
    pub random: u128,
}

/// Letters of generated names (apimachinery's rand.String).
const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// Digits of uids.
const HEX: &[u8; 16] = b"0123456789abcdef";
/// `generateName` is cut so that five letters fit behind it (apiserver's names.SimpleNameGenerator).
const MAX_GENERATED: usize = 58;

/// Makes a v4 UUID of random bits.
#[must_use]
pub fn uid(random: u128) -> String {
    let bits = (random & !(0xf << 76) & !(0x3 << 62)) | (0x4 << 76) | (0x2 << 62);
    let mut text = String::with_capacity(36);
    for (at, byte) in bits.to_be_bytes().into_iter().enumerate() {
        if matches!(at, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        text.extend([byte >> 4, byte & 0xf].map(|digit| char::from(HEX[usize::from(digit)])));
    }
    text
}

/// The name that `generateName` leads to.
#[must_use]
pub fn generated_name(base: &str, mut random: u128) -> String {
    let mut name: String = base.chars().take(MAX_GENERATED).collect();
    for _ in 0..5 {
        let letters = ALPHABET.len() as u128;
        name.push(char::from(ALPHABET[usize::try_from(random % letters).unwrap_or(0)]));
        random /= letters;
    }
    name
}

/// The metadata of an object as a map; an object without one gets one.
///
/// # Errors
/// If the object isn't a map, or its metadata isn't.
pub fn metadata(object: &mut Value) -> Result<&mut Map<String, Value>, Error> {
    let object = object.as_object_mut().ok_or_else(|| Error::bad_request("the body must be a JSON object"))?;
    let metadata = object.entry("metadata").or_insert_with(|| json!({}));
    if metadata.is_null() {
        *metadata = json!({});
    }
    metadata.as_object_mut().ok_or_else(|| Error::bad_request("metadata must be a JSON object"))
}

/// One text of the metadata, empty where it is missing.
#[must_use]
pub fn text<'a>(object: &'a Value, field: &str) -> &'a str {
    object["metadata"][field].as_str().unwrap_or_default()
}

/// Makes the metadata of a new object.
///
/// # Errors
/// If it has no name, or brings what only the server gives.
pub fn create(object: &mut Value, namespace: &str, generation: bool, now: &Now, about: About<'_>) -> Result<(), Error> {
    let metadata = metadata(object)?;
    if metadata.get("resourceVersion").and_then(Value::as_str).is_some_and(|version| !version.is_empty()) {
        return Err(Error::new(500, "", "resourceVersion should not be set on objects to be created"));
    }
    let named = metadata.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    if !named {
        let base = metadata.get("generateName").and_then(Value::as_str).unwrap_or_default();
        if base.is_empty() {
            let error = FieldError {
                field: "metadata.name".to_owned(),
                kind: FieldErrorKind::Required,
                value: String::new(),
                detail: "name or generateName is required".to_owned(),
            };
            return Err(Error::invalid(About { name: "", ..about }, &[error]));
        }
        let name = generated_name(base, now.random);
        metadata.insert("name".to_owned(), name.into());
    }
    if namespace.is_empty() {
        metadata.remove("namespace");
    } else {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    for field in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds"] {
        metadata.remove(field);
    }
    metadata.insert("uid".to_owned(), uid(now.random.rotate_left(29)).into());
    metadata.insert("creationTimestamp".to_owned(), now.time.as_str().into());
    if generation {
        metadata.insert("generation".to_owned(), 1.into());
    }
    drop_empty(metadata);
    Ok(())
}

/// Takes out of a new object's metadata what only the server gives, and puts its namespace there: what webhooks see.
///
/// # Errors
/// If the metadata isn't a map.
pub fn unmake(object: &mut Value, namespace: &str) -> Result<(), Error> {
    let metadata = metadata(object)?;
    for field in ["uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"] {
        metadata.remove(field);
    }
    if namespace.is_empty() {
        metadata.remove("namespace");
    } else {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
    Ok(())
}

/// Makes the metadata of an updated object: what is the server's is taken from `old` where it is missing, and always
/// where nobody may say it. What is there and differs is for the kind's validation to refuse.
///
/// # Errors
/// If the metadata isn't a map.
pub fn update(object: &mut Value, old: &Value) -> Result<(), Error> {
    let deleting = !old["metadata"]["deletionTimestamp"].is_null();
    let new = metadata(object)?;
    for field in ["creationTimestamp", "generation"] {
        match &old["metadata"][field] {
            Value::Null => new.remove(field),
            value => new.insert(field.to_owned(), value.clone()),
        };
    }
    let mut keep = vec!["name", "namespace", "uid", "deletionGracePeriodSeconds"];
    if deleting {
        new.remove("deletionTimestamp");
        keep.push("deletionTimestamp");
    }
    for field in keep {
        let missing = matches!(new.get(field), None | Some(Value::Null)) || new.get(field).is_some_and(|v| v == "");
        if missing {
            match &old["metadata"][field] {
                Value::Null => new.remove(field),
                value => new.insert(field.to_owned(), value.clone()),
            };
        }
    }
    new.remove("selfLink");
    drop_empty(new);
    Ok(())
}

/// Takes `metadata.managedFields` out of an object.
pub fn take_managed(object: &mut Value) -> Option<Value> {
    object.get_mut("metadata")?.as_object_mut()?.remove("managedFields")
}

/// Sets `metadata.managedFields`; null leaves none.
pub fn set_managed(object: &mut Value, managed: Value) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    if managed.is_null() {
        metadata.remove("managedFields");
    } else {
        metadata.insert("managedFields".to_owned(), managed);
    }
}

/// Whether something other than metadata and status differs.
#[must_use]
pub fn spec_differs(new: &Value, old: &Value) -> bool {
    const BUT: &[&str] = &["metadata", "status"];
    !members(new, BUT).eq(members(old, BUT))
}

/// Whether two objects differ in more than their resource version.
#[must_use]
pub fn differs(new: &Value, old: &Value) -> bool {
    const METADATA: &[&str] = &["metadata"];
    const VERSION: &[&str] = &["resourceVersion"];
    !members(new, METADATA).eq(members(old, METADATA))
        || !members(&new["metadata"], VERSION).eq(members(&old["metadata"], VERSION))
}

/// The members of an object but some, in order of name.
fn members<'a>(object: &'a Value, but: &'static [&'static str]) -> impl Iterator<Item = (&'a String, &'a Value)> {
    object.as_object().into_iter().flatten().filter(|(name, _)| !but.contains(&name.as_str()))
}

/// Empty maps and lists aren't kept, as with Go's `omitempty`.
fn drop_empty(metadata: &mut Map<String, Value>) {
    for field in ["labels", "annotations", "finalizers", "ownerReferences", "generateName", "namespace"] {
        let empty = match metadata.get(field) {
            Some(Value::Null) => true,
            Some(Value::Object(map)) => map.is_empty(),
            Some(Value::Array(list)) => list.is_empty(),
            Some(Value::String(text)) => text.is_empty(),
            _ => false,
        };
        if empty {
            metadata.remove(field);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ABOUT: About<'static> = About { group: "", plural: "configmaps", kind: "ConfigMap", name: "a" };

    fn now() -> Now {
        Now { time: "2026-01-01T00:00:00Z".to_owned(), random: 0x0123_4567_89ab_cdef_0123_4567_89ab_cdef }
    }

    #[test]
    fn uids_are_version_4() {
        let text = uid(u128::MAX);
        assert_eq!(text, "ffffffff-ffff-4fff-bfff-ffffffffffff");
        assert_eq!(uid(0), "00000000-0000-4000-8000-000000000000");
    }

    #[test]
    fn new_objects_get_what_the_server_gives() {
        let mut counted = json!({ "metadata": { "name": "x", "generation": 9 } });
        create(&mut counted, "n", false, &now(), ABOUT).unwrap();
        assert_eq!(counted["metadata"]["generation"], 9, "a kind that counts none keeps what is given");
        let mut object = json!({ "metadata": { "generateName": "x-", "labels": {}, "uid": "mine", "generation": 9 } });
        create(&mut object, "n", true, &now(), ABOUT).unwrap();
        assert!(text(&object, "name").starts_with("x-") && text(&object, "name").len() == 7);
        assert_eq!((text(&object, "namespace"), &object["metadata"]["generation"]), ("n", &json!(1)));
        assert!(object["metadata"].get("labels").is_none() && text(&object, "uid") != "mine");
        let error = create(&mut json!({}), "n", true, &now(), ABOUT).unwrap_err();
        assert_eq!(error.code, 422);
    }

    #[test]
    fn updates_keep_what_is_the_server_s() {
        let old = json!({ "metadata": { "name": "a", "uid": "u", "deletionTimestamp": "t", "generation": 2 } });
        let mut new = json!({ "metadata": { "name": "b", "deletionTimestamp": null, "generation": 7 } });
        update(&mut new, &old).unwrap();
        assert_eq!((text(&new, "name"), text(&new, "uid"), text(&new, "deletionTimestamp")), ("b", "u", "t"));
        assert_eq!(new["metadata"]["generation"], 2);
        assert!(spec_differs(&json!({ "spec": 1 }), &json!({ "spec": 2 })));
        assert!(!spec_differs(&json!({ "spec": 1, "status": 1 }), &json!({ "spec": 1, "metadata": {} })));
        let at =
            |version: &str, name: &str| json!({ "spec": 1, "metadata": { "resourceVersion": version, "name": name } });
        assert!(!differs(&at("1", "a"), &at("2", "a")) && differs(&at("1", "a"), &at("1", "b")));
        assert!(differs(&json!({ "status": 1 }), &json!({})));
    }
}
