//! `PartialObjectMetadata` and its list: objects without what their kind adds.

use serde_json::{Value, json};

use super::accept::{Form, NotAcceptable};
use super::{ListMeta, Version};

/// An object's metadata alone.
#[must_use]
pub fn metadata(object: &Value, version: Version) -> Value {
    let metadata = object.get("metadata").cloned().unwrap_or_else(|| json!({}));
    json!({ "kind": "PartialObjectMetadata", "apiVersion": version.api_version(), "metadata": metadata })
}

/// The metadata of each object of a list; as in the real server, an empty list has null items.
pub fn metadata_list<'a>(meta: ListMeta<'_>, objects: impl IntoIterator<Item = &'a Value>, version: Version) -> Value {
    let items: Vec<Value> = objects.into_iter().map(|object| metadata(object, version)).collect();
    json!({
        "kind": "PartialObjectMetadataList",
        "apiVersion": version.api_version(),
        "metadata": meta.to_json(),
        "items": if items.is_empty() { Value::Null } else { items.into() },
    })
}

/// Why an answer cannot take a form: metadata of one object was asked of a list, or a list's of one object.
///
/// `kind` is the object's kind or the list's (`ConfigMapList`), `group` its group, or `None` for a custom kind: the
/// message names the real server's internal types. `None` if the form fits. (The real server answers 500 with `content
/// is not a list` when a list is asked of one custom object: `http` does. A watch in the list's form is accepted and
/// ends, empty, with its first event.)
#[must_use]
pub fn refusal(form: Form, group: Option<&str>, kind: &str, is_list: bool) -> Option<NotAcceptable> {
    let asked = match (form, is_list) {
        (Form::Metadata(_), true) => "PartialObjectMetadata, but the requested object is a list",
        (Form::MetadataList(_), false) => "PartialObjectMetadataList, but the requested object is not a list",
        _ => return None,
    };
    let go_type = match group {
        Some("" | "events.k8s.io") => format!("core.{kind}"),
        Some("rbac.authorization.k8s.io") => format!("rbac.{kind}"),
        Some(group) => format!("{}.{kind}", group.split('.').next().unwrap_or_default()),
        None if is_list => "unstructured.UnstructuredList".to_owned(),
        None => "unstructured.Unstructured".to_owned(),
    };
    Some(NotAcceptable::conversion(format!("you requested {asked} (*{go_type})")))
}
