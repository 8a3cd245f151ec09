//! One question of the API server's to a ring's admission webhook, and its answer: bytes to values, values to bytes.
//!
//! Never denies: every answer that can be made says `allowed: true`, with a patch or without one. What can't be answered
//! at all (no AdmissionReview, or one without a uid) is an error, which becomes HTTP 400: the API server takes that for
//! a failed call, and `failurePolicy: Ignore` admits the object as it is. So a patch must be right: one that the API
//! server can't apply, or a label that it finds invalid, would deny the user's request whatever the policy.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringmaster_core::dialect::{CONTROLLER_SHARDING_RING, RINGMASTER_RING, RingDialect};
use ringmaster_core::object::OwnerReference;
use ringmaster_core::ring::key::controller_of;
use ringmaster_core::ring::plan::{drain_label, shard_label};
use ringmaster_core::selector::is_name;
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// The one version of AdmissionReview that is understood.
pub const API_VERSION: &str = "admission.k8s.io/v1";

/// The dialects whose rings have a webhook.
static DIALECTS: [&RingDialect; 2] = [&RINGMASTER_RING, &CONTROLLER_SHARDING_RING];

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It is no JSON, or of another shape.
    #[error("the body is no AdmissionReview with a request: {0}")]
    Shape(#[from] serde_json::Error),
    /// It is of another version.
    #[error("apiVersion: must be {API_VERSION}, not {0:?}; list v1 first in admissionReviewVersions")]
    Version(String),
}

/// A ring, as a path names it: it needn't exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RingName<'a> {
    /// Its API group's names.
    pub dialect: &'static RingDialect,
    /// Its name.
    pub name: &'a str,
}

impl<'a> RingName<'a> {
    /// The ring whose webhook is called at a path.
    #[must_use]
    pub fn of_path(path: &'a str) -> Option<Self> {
        let named =
            |dialect: &'static RingDialect| Some(Self { dialect, name: path.strip_prefix(dialect.webhook_path)? });
        DIALECTS.into_iter().find_map(named).filter(|ring| is_name(ring.name))
    }

    /// The path at which its webhook is called.
    #[must_use]
    pub fn path(&self) -> String {
        [self.dialect.webhook_path, self.name].concat()
    }
}

/// What a kind is in a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// A main one.
    Main,
    /// One that main objects control.
    Controlled,
}

/// Who knows where objects go. Anybody who reaches the port can ask, so an answer costs little, or its cost is limited.
pub trait Assign: Send + Sync + 'static {
    /// What a kind is in the ring; `None` if there is no such ring, it is being deleted, or the kind isn't in it.
    fn part(&self, ring: RingName<'_>, group: &str, resource: &str) -> Option<Part>;

    /// The shard for a main object, whose name is known; `None` if it can't be told now: it is assigned once it is there.
    fn main(&self, ring: RingName<'_>, object: &Subject, counts: bool) -> Option<String>;

    /// The shard for an object that `owner` controls: where its owner is. Looking the owner up may take time; it is
    /// dropped when that is over. `None` if it can't be told.
    fn controlled(
        &self,
        ring: RingName<'_>,
        object: &Subject,
        owner: &OwnerReference,
    ) -> impl Future<Output = Option<String>> + Send;
}

/// What became of a question, for metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Outcome {
    /// It was given a shard.
    Assigned,
    /// It has the label already.
    Labelled,
    /// It isn't created, or is a part of something.
    NotCreated,
    /// There is no such ring here, as on every member that doesn't lead, or its kind isn't in it.
    NotOurs,
    /// The API server is yet to name it.
    Unnamed,
    /// Nobody controls it.
    Unowned,
    /// There is no shard for it now.
    NoShard,
    /// Its owner wasn't found in time.
    TooSlow,
    /// It can't be read.
    Unreadable,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Assigned,
        Self::Labelled,
        Self::NotCreated,
        Self::NotOurs,
        Self::Unnamed,
        Self::Unowned,
        Self::NoShard,
        Self::TooSlow,
        Self::Unreadable,
    ];

    /// As metrics show it.
    #[must_use]
    pub fn label(self) -> &'static str {
        match self {
            Self::Assigned => "assigned",
            Self::Labelled => "labelled",
            Self::NotCreated => "not_created",
            Self::NotOurs => "not_ours",
            Self::Unnamed => "unnamed",
            Self::Unowned => "unowned",
            Self::NoShard => "no_shard",
            Self::TooSlow => "too_slow",
            Self::Unreadable => "unreadable",
        }
    }
}

/// The object that a question is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// The group of its kind, empty for the core's.
    pub group: String,
    /// The plural name of its kind.
    pub resource: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace, empty if it lives in none.
    pub namespace: String,
    /// Its name, empty while it has none (`generateName`).
    pub name: String,
    /// The owner that controls it.
    pub owner: Option<OwnerReference>,
    /// Its labels: whether it has the key `labels` at all, and whether the drain label is among them.
    labels: Labels,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Labels {
    Missing,
    Some { is_draining: bool },
}

/// A question that can be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Question {
    uid: String,
    /// Nothing will be written: it is answered likewise, and not counted.
    pub is_dry_run: bool,
    /// What it is about, or why there is nothing to do.
    pub subject: Result<Subject, Outcome>,
}

impl Question {
    /// Reads a question about an object of a ring.
    ///
    /// # Errors
    /// If the body is no AdmissionReview of version v1 with a uid.
    pub fn read(body: &[u8], ring: RingName<'_>) -> Result<Self, Error> {
        let review: Review<'_> = serde_json::from_slice(body)?;
        if review.api_version != API_VERSION {
            return Err(Error::Version(review.api_version));
        }
        let Asked { uid } = serde_json::from_str(review.request.get())?;
        // From here on there is an answer.
        let request: Option<Request<'_>> = serde_json::from_str(review.request.get()).ok();
        let is_dry_run = request.as_ref().is_some_and(|request| request.dry_run.unwrap_or_default());
        let subject = request.ok_or(Outcome::Unreadable).and_then(|request| request.subject(ring));
        Ok(Self { uid, is_dry_run, subject })
    }

    /// The answer that leaves the object as it is.
    #[must_use]
    pub fn admitted(&self) -> Vec<u8> {
        self.answer(None)
    }

    /// The answer that gives the object to a shard; `None` if there is no object, or the shard's name can't be a label.
    #[must_use]
    pub fn assigned(&self, ring: RingName<'_>, shard: &str) -> Option<Vec<u8>> {
        let subject = self.subject.as_ref().ok().filter(|_| is_name(shard))?;
        let (shard_key, drain_key) = (shard_label(ring.dialect, ring.name), drain_label(ring.dialect, ring.name));
        let at = |key: &str| ["/metadata/labels/", &*escaped(key)].concat();
        let mut patch = match subject.labels {
            Labels::Missing => vec![json!({"op": "add", "path": "/metadata/labels", "value": {shard_key: shard}})],
            Labels::Some { .. } => vec![json!({"op": "add", "path": at(&shard_key), "value": shard})],
        };
        // Copied from an object that was asked for: nobody is to let this one go.
        if subject.labels == (Labels::Some { is_draining: true }) {
            patch.push(json!({"op": "remove", "path": at(&drain_key)}));
        }
        Some(self.answer(Some(&Value::Array(patch))))
    }

    fn answer(&self, patch: Option<&Value>) -> Vec<u8> {
        let response = match patch {
            None => json!({"uid": self.uid, "allowed": true}),
            Some(patch) => {
                let patch = STANDARD.encode(patch.to_string());
                json!({"uid": self.uid, "allowed": true, "patchType": "JSONPatch", "patch": patch})
            }
        };
        json!({"apiVersion": API_VERSION, "kind": "AdmissionReview", "response": response}).to_string().into_bytes()
    }
}

/// A key as a part of a JSON pointer (RFC 6901, section 3).
fn escaped(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: String,
    #[serde(borrow)]
    request: &'a RawValue,
}

#[derive(Deserialize)]
struct Asked {
    uid: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    kind: GroupKind,
    resource: GroupResource,
    #[serde(default)]
    sub_resource: Option<String>,
    #[serde(default)]
    namespace: Option<String>,
    operation: String,
    #[serde(default)]
    dry_run: Option<bool>,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct GroupKind {
    kind: String,
}

#[derive(Deserialize)]
struct GroupResource {
    #[serde(default)]
    group: String,
    resource: String,
}

#[derive(Deserialize)]
struct Thing {
    metadata: Metadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Metadata {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    labels: Option<BTreeMap<String, String>>,
    #[serde(default)]
    owner_references: Option<Vec<OwnerReference>>,
}

impl Request<'_> {
    fn subject(self, ring: RingName<'_>) -> Result<Subject, Outcome> {
        if self.operation != "CREATE" || self.sub_resource.is_some_and(|name| !name.is_empty()) {
            return Err(Outcome::NotCreated);
        }
        let object = self.object.ok_or(Outcome::Unreadable)?;
        let Thing { metadata } = serde_json::from_str(object.get()).map_err(|_| Outcome::Unreadable)?;
        let labels = match &metadata.labels {
            // Whatever its value is: it is the user's, and looked at once the object is there.
            Some(labels) if labels.contains_key(&shard_label(ring.dialect, ring.name)) => {
                return Err(Outcome::Labelled);
            }
            Some(labels) => Labels::Some { is_draining: labels.contains_key(&drain_label(ring.dialect, ring.name)) },
            None => Labels::Missing,
        };
        // A namespace lives in none, though the request says that it lives in itself.
        let is_namespace = self.resource.group.is_empty() && self.resource.resource == "namespaces";
        let namespace = if is_namespace { None } else { self.namespace };
        Ok(Subject {
            group: self.resource.group,
            resource: self.resource.resource,
            kind: self.kind.kind,
            namespace: namespace.unwrap_or_default(),
            name: metadata.name.unwrap_or_default(),
            owner: controller_of(&metadata.owner_references.unwrap_or_default()).cloned(),
            labels,
        })
    }
}

#[cfg(test)]
#[path = "review_tests.rs"]
mod tests;
