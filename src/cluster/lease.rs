//! Leases as the API server keeps them (coordination.k8s.io/v1).
//!
//! Never judges one: whether a Lease still counts is decided in core, by whoever observes it.

use std::collections::BTreeMap;
use std::time::Duration;

use ringmaster_core::key::{ApiVersion, Resource, Uid};
use ringmaster_core::object::Object;
use serde::{Deserialize, Serialize};

/// A Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lease {
    /// Its name.
    pub name: String,
    /// Its uid; `None` for one that is to be created.
    pub uid: Option<Uid>,
    /// Its version; `None` for one that is to be created.
    pub version: Option<String>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// Its annotations.
    pub annotations: BTreeMap<String, String>,
    /// Who holds it; empty once it was released.
    pub holder: String,
    /// For how long it counts after a renewal, in seconds.
    pub duration_secs: i32,
    /// When it was taken, as its holder wrote it.
    pub acquired: String,
    /// When it was renewed last, as its holder wrote it. Never compared with a clock.
    pub renewed: String,
    /// How often it changed hands.
    pub transitions: i32,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    #[serde(default, skip_serializing_if = "str::is_empty")]
    api_version: String,
    #[serde(default, skip_serializing_if = "str::is_empty")]
    kind: String,
    metadata: WireMeta,
    #[serde(default)]
    spec: WireSpec,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct WireMeta {
    name: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    uid: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    resource_version: Option<String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    labels: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(rename_all = "camelCase")]
struct WireSpec {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    holder_identity: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease_duration_seconds: Option<i32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    acquire_time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    renew_time: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    lease_transitions: Option<i32>,
}

impl Lease {
    /// The kind.
    #[must_use]
    pub fn resource() -> Resource {
        Resource {
            api_version: ApiVersion::new("coordination.k8s.io/v1"),
            plural: "leases".into(),
            kind: "Lease".into(),
            namespaced: true,
            status: false,
        }
    }

    /// One that is to be created: held by `holder` from `now` on. `duration` counts in whole seconds; `now` is a time as
    /// Leases write it.
    #[must_use]
    pub fn new(name: &str, labels: BTreeMap<String, String>, holder: &str, duration: Duration, now: &str) -> Self {
        Self {
            name: name.to_owned(),
            labels,
            holder: holder.to_owned(),
            duration_secs: i32::try_from(duration.as_secs()).unwrap_or(i32::MAX),
            acquired: now.to_owned(),
            renewed: now.to_owned(),
            ..Self::default()
        }
    }

    /// The same Lease in the hands of `holder` from `now` on, a time as Leases write it.
    #[must_use]
    pub fn taken(&self, holder: &str, now: &str) -> Self {
        Self {
            holder: holder.to_owned(),
            acquired: now.to_owned(),
            renewed: now.to_owned(),
            transitions: self.transitions.saturating_add(1),
            ..self.clone()
        }
    }

    /// Reads one; `None` if it isn't one.
    #[must_use]
    pub fn from_object(object: &Object) -> Option<Self> {
        let wire: Wire = serde_json::from_slice(object.json()).ok()?;
        let (meta, spec) = (wire.metadata, wire.spec);
        Some(Self {
            name: meta.name,
            uid: meta.uid.as_deref().map(Uid::new),
            version: meta.resource_version,
            labels: meta.labels,
            annotations: meta.annotations,
            holder: spec.holder_identity.unwrap_or_default(),
            duration_secs: spec.lease_duration_seconds.unwrap_or_default(),
            acquired: spec.acquire_time.unwrap_or_default(),
            renewed: spec.renew_time.unwrap_or_default(),
            transitions: spec.lease_transitions.unwrap_or_default(),
        })
    }

    /// The body of a create or a replace; uid and version, where there are any, are its preconditions.
    #[must_use]
    pub fn to_body(&self) -> Vec<u8> {
        let text = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        let wire = Wire {
            api_version: "coordination.k8s.io/v1".to_owned(),
            kind: "Lease".to_owned(),
            metadata: WireMeta {
                name: self.name.clone(),
                uid: self.uid.as_ref().map(ToString::to_string),
                resource_version: self.version.clone(),
                labels: self.labels.clone(),
                annotations: self.annotations.clone(),
            },
            spec: WireSpec {
                // An empty one is a release, which is said.
                holder_identity: Some(self.holder.clone()),
                lease_duration_seconds: Some(self.duration_secs.max(1)),
                acquire_time: text(&self.acquired),
                renew_time: text(&self.renewed),
                lease_transitions: Some(self.transitions),
            },
        };
        // Texts and numbers always have a JSON form.
        serde_json::to_vec(&wire).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_comes_back_from_its_body() {
        let lease = Lease {
            name: "m-x".to_owned(),
            uid: Some(Uid::new("u")),
            version: Some("7".to_owned()),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            annotations: [("c".to_owned(), "{}".to_owned())].into(),
            holder: "m-x".to_owned(),
            duration_secs: 15,
            acquired: "2026-01-01T00:00:00.000000Z".to_owned(),
            renewed: "2026-01-01T00:00:01.000000Z".to_owned(),
            transitions: 1,
        };
        let read = |lease: &Lease| {
            let text = String::from_utf8(lease.to_body()).unwrap();
            Lease::from_object(&Object::parse(&text, &Lease::resource()).unwrap()).unwrap()
        };
        assert_eq!(read(&lease), lease);
        let made = Lease::new("a", BTreeMap::new(), "b", Duration::MAX, "now");
        assert_eq!((made.uid.as_ref(), made.version.as_ref(), made.transitions), (None, None, 0));
        assert_eq!((&*made.acquired, &*made.renewed, made.duration_secs), ("now", "now", i32::MAX));
        let taken = lease.taken("thief", "then");
        assert_eq!(
            (&*taken.holder, &*taken.acquired, &*taken.renewed, taken.transitions),
            ("thief", "then", "then", 2)
        );
        // Whoever holds it now is told apart by the version that it was decided on.
        assert_eq!((&taken.uid, &taken.version, taken.duration_secs), (&lease.uid, &lease.version, 15));
        let released = Lease { holder: String::new(), duration_secs: 1, ..lease };
        assert!(String::from_utf8(released.to_body()).unwrap().contains(r#""holderIdentity":"""#));
        assert_eq!(read(&released), released);
    }
}
