//! The body of a sync request, written from cached bytes.
//!
//! Never parses an object: what the cache holds is valid JSON and is copied as it stands.

use std::sync::Arc;

use crate::controller::HookVersion;
use crate::key::Resource;
use crate::object::Object;

/// The children of one declared kind, sorted by key so that equal states make equal bodies.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The kind.
    pub resource: Arc<Resource>,
    /// The objects that belong to the parent.
    pub objects: Vec<Arc<Object>>,
}

/// The inner key of an object in `children`, or `None` where the version leaves it out.
///
/// v1: the bare name under a namespaced parent (what lies elsewhere is left out), `namespace/name` or the bare name
/// of a cluster-scoped object under a cluster-scoped parent. v2: `namespace/name`, or the name of a cluster-scoped one.
#[must_use]
pub fn inner_key<'a>(version: HookVersion, parent: &Object, object: &'a Object) -> Option<&'a str> {
    let (parent, key) = (parent.key(), object.key());
    match version {
        HookVersion::V1 if !parent.namespace().is_empty() => {
            (key.namespace() == parent.namespace()).then(|| key.name())
        }
        HookVersion::V1 | HookVersion::V2 => Some(key.as_str()),
    }
}

/// The body of a request to the sync or the finalize hook: `controller`, `parent`, `children`, `related`, `finalizing`.
/// Each declared kind has an entry in `children`, and each kind that the customize hook named one in `related`, also when
/// it is empty.
#[must_use]
pub fn sync_request(
    controller: &[u8],
    parent: &Object,
    children: &[Observed],
    related: &[Observed],
    version: HookVersion,
    finalizing: bool,
) -> Vec<u8> {
    request(controller, ("parent", parent), ("children", children), related, version, finalizing)
}

/// The same for a decorator's hooks: `controller`, `object`, `attachments`, `related`, `finalizing`.
#[must_use]
pub fn decorator_request(
    controller: &[u8],
    object: &Object,
    attachments: &[Observed],
    related: &[Observed],
    version: HookVersion,
    finalizing: bool,
) -> Vec<u8> {
    request(controller, ("object", object), ("attachments", attachments), related, version, finalizing)
}

/// A body whose parent and children go by the names that stand beside them, which need no escapes.
fn request(
    controller: &[u8],
    (parent_name, parent): (&str, &Object),
    (children_name, children): (&str, &[Observed]),
    related: &[Observed],
    version: HookVersion,
    finalizing: bool,
) -> Vec<u8> {
    let kinds = || children.iter().chain(related);
    let objects = kinds().flat_map(|kind| &kind.objects);
    let payload: usize = objects.map(|object| object.json().len() + object.key().as_str().len() + 4).sum();
    let mut out = Vec::with_capacity(controller.len() + parent.json().len() + payload + 128 + kinds().count() * 64);
    out.extend_from_slice(br#"{"controller":"#);
    out.extend_from_slice(controller);
    out.extend_from_slice(b",\"");
    out.extend_from_slice(parent_name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(parent.json());
    out.extend_from_slice(b",\"");
    out.extend_from_slice(children_name.as_bytes());
    out.extend_from_slice(b"\":");
    write_kinds(&mut out, parent, children, version);
    out.extend_from_slice(br#","related":"#);
    write_kinds(&mut out, parent, related, version);
    out.extend_from_slice(br#","finalizing":"#);
    out.extend_from_slice(if finalizing { b"true}" } else { b"false}" });
    out
}

/// Objects by kind and inner key.
fn write_kinds(out: &mut Vec<u8>, parent: &Object, kinds: &[Observed], version: HookVersion) {
    out.push(b'{');
    for (index, kind) in kinds.iter().enumerate() {
        if index > 0 {
            out.push(b',');
        }
        write_string(out, &kind.resource.hook_key());
        out.extend_from_slice(b":{");
        let mut first = true;
        for object in &kind.objects {
            let Some(key) = inner_key(version, parent, object) else { continue };
            if !first {
                out.push(b',');
            }
            first = false;
            write_string(out, key);
            out.push(b':');
            out.extend_from_slice(object.json());
        }
        out.push(b'}');
    }
    out.push(b'}');
}

fn write_string(out: &mut Vec<u8>, text: &str) {
    // Writing a string as JSON into memory can't fail.
    let _ = serde_json::to_writer(out, text);
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::object::tests::config_maps;

    fn object(namespace: &str, name: &str) -> Arc<Object> {
        let namespace = if namespace.is_empty() { String::new() } else { format!(r#","namespace":"{namespace}""#) };
        let text = format!(r#"{{"metadata":{{"name":"{name}"{namespace}}}}}"#);
        Arc::new(Object::parse(&text, &config_maps()).unwrap())
    }

    fn request(parent: &Object, objects: Vec<Arc<Object>>, version: HookVersion) -> Value {
        let children = [Observed { resource: Arc::new(config_maps()), objects }];
        let controller = br#"{"kind":"CompositeController"}"#;
        serde_json::from_slice(&sync_request(controller, parent, &children, &[], version, false)).unwrap()
    }

    #[test]
    fn has_the_contract_s_shape() {
        let parent = object("n", "p");
        let body = request(&parent, vec![object("n", "a")], HookVersion::V2);
        let expected = json!({
            "controller": {"kind": "CompositeController"},
            "parent": {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "p", "namespace": "n"}},
            "children": {"ConfigMap.v1": {"n/a": {
                "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "namespace": "n"}}}},
            "related": {},
            "finalizing": false,
        });
        assert_eq!(body, expected);
        assert_eq!(request(&parent, vec![], HookVersion::V2)["children"], json!({"ConfigMap.v1": {}}));
        let children = [Observed { resource: Arc::new(config_maps()), objects: vec![object("n", "a")] }];
        let finalizing: Value =
            serde_json::from_slice(&sync_request(b"{}", &parent, &[], &children, HookVersion::V2, true)).unwrap();
        assert_eq!(finalizing["finalizing"], true);
        assert_eq!((&finalizing["children"], &finalizing["related"]), (&json!({}), &body["children"]));
    }

    #[test]
    fn a_decorator_s_request_has_the_contract_s_names() {
        let target = object("n", "p");
        let attachments = [Observed { resource: Arc::new(config_maps()), objects: vec![object("n", "a")] }];
        let body: Value =
            serde_json::from_slice(&decorator_request(b"{}", &target, &attachments, &[], HookVersion::V1, true))
                .unwrap();
        let as_sent =
            |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "namespace": "n"}});
        let expected = json!({
            "controller": {},
            "object": as_sent("p"),
            "attachments": {"ConfigMap.v1": {"a": as_sent("a")}},
            "related": {},
            "finalizing": true,
        });
        assert_eq!(body, expected);
    }

    #[test]
    fn inner_keys_follow_version_and_scope() {
        let keys = |parent: &Object, version| {
            let objects = vec![object("", "c"), object("m", "b"), object("n", "a")];
            let body = request(parent, objects, version);
            body["children"]["ConfigMap.v1"].as_object().unwrap().keys().cloned().collect::<Vec<_>>()
        };
        assert_eq!(keys(&object("n", "p"), HookVersion::V1), ["a"]);
        assert_eq!(keys(&object("n", "p"), HookVersion::V2), ["c", "m/b", "n/a"]);
        assert_eq!(keys(&object("", "p"), HookVersion::V1), ["c", "m/b", "n/a"]);
        assert_eq!(keys(&object("", "p"), HookVersion::V2), ["c", "m/b", "n/a"]);
    }
}
