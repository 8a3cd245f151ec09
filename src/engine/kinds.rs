//! The kinds whose objects may have a controller's finalizer: those that it declares, and those that it declared before,
//! which an annotation of the controller remembers.
//!
//! Never asks the API server, and never reads an object of these kinds.

use std::collections::BTreeSet;

use ringmaster_core::controller::Controller;
use ringmaster_core::dialect::OwnFinalizer;
use ringmaster_core::key::ApiVersion;
use ringmaster_core::object::Object;
use ringmaster_core::plan::finalizer_patch;
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

/// Kinds in whatever version: each as `resource.group`, or `resource` alone in the core group. A resource has no dots.
pub(crate) type Names = BTreeSet<String>;

/// What of a controller's spec says which objects may have its finalizer. Read by itself, so that a controller that can't
/// be used for another reason can go, too.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Declared {
    /// A composite's.
    #[serde(default)]
    parent_resource: Option<Kind>,
    /// A decorator's.
    #[serde(default)]
    resources: Vec<Kind>,
    #[serde(default)]
    hooks: Hooks,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    api_version: String,
    resource: String,
}

#[derive(Debug, Default, Deserialize)]
struct Hooks {
    #[serde(default)]
    finalize: Option<IgnoredAny>,
}

impl Declared {
    /// What a controller declares; `None` if its spec can't be read.
    pub(crate) fn of(controller: &Object) -> Option<Self> {
        controller.section("spec")
    }

    /// Whether it has a finalize hook.
    pub(crate) fn finalizes(&self) -> bool {
        self.hooks.finalize.is_some()
    }

    /// The kinds of its parents.
    pub(crate) fn names(&self) -> Names {
        let kinds = self.parent_resource.iter().chain(&self.resources);
        kinds.map(|kind| name(&ApiVersion::new(&kind.api_version), &kind.resource)).collect()
    }
}

/// The name of a kind.
fn name(api_version: &ApiVersion, plural: &str) -> String {
    match api_version.group() {
        "" => plural.to_owned(),
        group => format!("{plural}.{group}"),
    }
}

/// The name of the kind that a controller's parents are of.
pub(crate) fn of_parents(model: &Controller) -> String {
    name(&model.parent.api_version, &model.parent.resource)
}

/// The plural name and the group of a kind that is named so.
pub(crate) fn parts(name: &str) -> (&str, &str) {
    name.split_once('.').unwrap_or((name, ""))
}

/// The kinds that a controller's annotation remembers: at most what the API server takes of annotations, 256 KiB.
pub(crate) fn noted(controller: &Object, own: &OwnFinalizer) -> Names {
    let text = controller.annotation(own.kinds).unwrap_or_default();
    text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A merge patch that gives a controller its own finalizer, or takes it off, and has the annotation name these kinds, if
/// the controller is still the version that we saw.
pub(crate) fn own_patch(controller: &Object, own: &OwnFinalizer, present: bool, names: &Names) -> Vec<u8> {
    let mut patch = finalizer_patch(controller, own.name, present);
    let text = names.iter().map(String::as_str).collect::<Vec<_>>().join(",");
    let text = if text.is_empty() { Value::Null } else { text.into() };
    patch["metadata"]["annotations"] = json!({ (own.kinds): text });
    patch.to_string().into_bytes()
}

#[cfg(test)]
pub(crate) mod tests {
    use ringmaster_core::dialect::RINGMASTER;
    use ringmaster_core::key::Resource;

    use super::*;

    /// What controllers of our group have.
    pub(crate) fn own() -> &'static OwnFinalizer {
        RINGMASTER.controller_finalizer.as_ref().unwrap()
    }

    /// A controller with these finalizers, whose annotation names these kinds.
    pub(crate) fn controller(finalizers: &[&str], deleting: bool, noted: Option<&str>, spec: &Value) -> Object {
        let kind = Resource {
            api_version: ApiVersion::new("ringmaster.dev/v1alpha1"),
            plural: "compositecontrollers".into(),
            kind: "CompositeController".into(),
            namespaced: false,
            status: true,
        };
        let mut metadata = json!({ "name": "c", "uid": "u", "resourceVersion": "7", "finalizers": finalizers });
        if deleting {
            metadata["deletionTimestamp"] = "2026-01-01T00:00:00Z".into();
        }
        if let Some(noted) = noted {
            metadata["annotations"] = json!({ "ringmaster.dev/finalizes": noted, "other": "x" });
        }
        Object::parse(&json!({ "metadata": metadata, "spec": spec }).to_string(), &kind).unwrap()
    }

    #[test]
    fn kinds_of_both_kinds_of_controllers_are_named_without_their_version() {
        let names = |spec: Value| {
            let declared = Declared::of(&controller(&[], false, None, &spec)).unwrap();
            declared.names().into_iter().collect::<Vec<_>>()
        };
        let kind =
            |version: &str, plural: &str| json!({ "apiVersion": version, "resource": plural, "labelSelector": {} });
        assert_eq!(names(json!({ "parentResource": kind("a.b/v1", "things"), "hooks": {} })), ["things.a.b"]);
        let resources = [kind("a.b/v1", "things"), kind("v1", "pods"), kind("a.b/v2", "things")];
        assert_eq!(names(json!({ "resources": resources })), ["pods", "things.a.b"]);
        assert_eq!((parts("things.a.b"), parts("pods")), (("things", "a.b"), ("pods", "")));
        assert!(Declared::of(&controller(&[], false, None, &json!(7))).is_none());
    }

    #[test]
    fn what_is_noted_is_read_again() {
        let spec = json!({});
        let before = controller(&["x"], false, Some(" things.a.b,,pods "), &spec);
        let mut names = noted(&before, own());
        assert_eq!(names.iter().map(String::as_str).collect::<Vec<_>>(), ["pods", "things.a.b"]);
        assert!(noted(&controller(&[], false, None, &spec), own()).is_empty());
        names.insert("jobs.batch".to_owned());
        let metadata = |present: bool, names: &Names| {
            let patch: Value = serde_json::from_slice(&own_patch(&before, own(), present, names)).unwrap();
            patch["metadata"].clone()
        };
        let kept = metadata(true, &names);
        assert_eq!(kept["finalizers"], json!(["x", "ringmaster.dev/controller"]));
        assert_eq!(kept["annotations"], json!({ "ringmaster.dev/finalizes": "jobs.batch,pods,things.a.b" }));
        assert_eq!((&kept["uid"], &kept["resourceVersion"]), (&json!("u"), &json!("7")));
        let gone = metadata(false, &Names::new());
        assert_eq!(gone["finalizers"], json!(["x"]));
        assert_eq!(gone["annotations"], json!({ "ringmaster.dev/finalizes": null }));
    }
}
