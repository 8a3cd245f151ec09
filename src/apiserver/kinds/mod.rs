//! The built-in kinds: what discovery, tables and OpenAPI say of them, and what the real server makes of their objects.
//!
//! A write goes through [`decode`], [`default`], then [`create`] or [`update`], then [`validate`]. The data are generated
//! from kube-apiserver (`tests/golden/kinds/generate`; `kinds.json` notes the version). Nothing here knows a clock, the
//! store or other objects; metadata that the server gives (uid, times, names) is there before [`create`].

pub mod event;
pub mod names;
pub mod quantity;
pub mod service;
pub mod times;

mod defaults;
mod prepare;
mod shape;
mod validate;

use std::io::Read as _;
use std::sync::LazyLock;

use serde::Deserialize;
use serde_json::{Map, Value};

pub use service::Addresses;
pub use validate::validate;

use crate::field_error::FieldError;

/// A built-in kind.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Kind {
    /// API group, empty for the core.
    pub group: String,
    /// Version.
    pub version: String,
    /// Plural name, as in paths.
    pub plural: String,
    /// Singular name.
    pub singular: String,
    /// Kind.
    pub kind: String,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Short names.
    #[serde(deserialize_with = "null_is_empty")]
    pub short_names: Vec<String>,
    /// Categories.
    #[serde(deserialize_with = "null_is_empty")]
    pub categories: Vec<String>,
    /// Verbs, as discovery lists them.
    pub verbs: Vec<String>,
    /// `status` and `scale`, where they are.
    #[serde(deserialize_with = "null_is_empty")]
    pub subresources: Vec<String>,
    /// Whether the server counts `metadata.generation`.
    pub generation: bool,
    /// Fields beside name and namespace that it can be selected by.
    #[serde(deserialize_with = "null_is_empty")]
    pub selectable: Vec<String>,
    /// As discovery gives it.
    pub storage_version_hash: String,
    /// Whether a PUT of a name that isn't there creates it.
    pub created_by_update: bool,
    /// Whether an update must name the resource version.
    pub conditional_update: bool,
    /// Name of its schema among the OpenAPI components.
    pub schema: String,
    /// Go type, as the shapes name it.
    #[serde(rename = "type")]
    go_type: String,
    /// Columns of its tables.
    pub columns: Vec<Column>,
}

/// A column of a table.
#[derive(Clone, Debug, Deserialize, serde::Serialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
pub struct Column {
    /// Heading.
    pub name: String,
    /// OpenAPI type of the cells.
    #[serde(rename = "type")]
    pub kind: String,
    /// OpenAPI format of the cells; `name` marks the object's name.
    pub format: String,
    /// What it means.
    pub description: String,
    /// 0 is always shown.
    pub priority: i32,
}

impl Kind {
    /// `apps/v1`, or `v1` for the core.
    #[must_use]
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.clone() } else { format!("{}/{}", self.group, self.version) }
    }

    /// Whether it has this subresource.
    #[must_use]
    pub fn has(&self, subresource: &str) -> bool {
        self.subresources.iter().any(|has| has == subresource)
    }

    fn is(&self, group: &str, plural: &str) -> bool {
        self.group == group && self.plural == plural
    }
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    generated_from: String,
    kinds: Vec<Kind>,
}

/// An empty list if the data can't be read, which the tests exclude.
static FILE: LazyLock<File> = LazyLock::new(|| {
    serde_json::from_str(include_str!("kinds.json"))
        .unwrap_or_else(|_| File { generated_from: String::new(), kinds: Vec::new() })
});

/// All built-in kinds.
#[must_use]
pub fn all() -> &'static [Kind] {
    &FILE.kinds
}

/// The version of the kube-apiserver that the data are taken from, e.g. `v1.36.3`.
#[must_use]
pub fn generated_from() -> &'static str {
    &FILE.generated_from
}

/// One kind.
#[must_use]
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Kind> {
    // The plural first: it is what tells most kinds apart.
    all().iter().find(|kind| kind.plural == plural && kind.group == group && kind.version == version)
}

/// A group version's document and, once asked for, its parsed form.
struct Document {
    group_version: &'static str,
    text: LazyLock<Vec<u8>>,
    parsed: LazyLock<Value>,
}

macro_rules! documents {
    ($($group_version:literal: $file:literal),* $(,)?) => {
        [$({
            const PACKED: &[u8] = include_bytes!(concat!("openapi/", $file, ".json.gz"));
            Document {
                group_version: $group_version,
                text: LazyLock::new(|| unpack(PACKED)),
                parsed: LazyLock::new(|| serde_json::from_slice(&unpack(PACKED)).unwrap_or_default()),
            }
        }),*]
    };
}

static DOCUMENTS: [Document; 10] = documents! {
    "v1": "v1",
    "apps/v1": "apps_v1",
    "batch/v1": "batch_v1",
    "networking.k8s.io/v1": "networking.k8s.io_v1",
    "discovery.k8s.io/v1": "discovery.k8s.io_v1",
    "coordination.k8s.io/v1": "coordination.k8s.io_v1",
    "events.k8s.io/v1": "events.k8s.io_v1",
    "rbac.authorization.k8s.io/v1": "rbac.authorization.k8s.io_v1",
    "apiextensions.k8s.io/v1": "apiextensions.k8s.io_v1",
    "admissionregistration.k8s.io/v1": "admissionregistration.k8s.io_v1",
};

/// Empty if the data can't be read, which the tests exclude.
fn unpack(packed: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    match flate2::read::GzDecoder::new(packed).read_to_end(&mut text) {
        Ok(_) => text,
        Err(_) => Vec::new(),
    }
}

fn document(group_version: &str) -> Option<&'static Document> {
    DOCUMENTS.iter().find(|document| document.group_version == group_version)
}

/// The OpenAPI v3 document of a group version, as JSON: the real server's, reduced to the built-in kinds.
#[must_use]
pub fn openapi_v3(group_version: &str) -> Option<&'static [u8]> {
    document(group_version).map(|document| document.text.as_slice())
}

/// The parsed OpenAPI v3 document of a group version. It stays in memory once it was asked for.
#[must_use]
pub fn openapi_v3_parsed(group_version: &str) -> Option<&'static Value> {
    document(group_version).map(|document| &*document.parsed)
}

/// The schema of a kind, with its references unresolved: they are `components.schemas` of [`openapi_v3_parsed`].
#[must_use]
pub fn component(kind: &Kind) -> Option<&'static Value> {
    openapi_v3_parsed(&kind.api_version())?.get("components")?.get("schemas")?.get(&kind.schema)
}

/// A decoded object.
#[derive(Clone, Debug, PartialEq)]
pub struct Decoded {
    /// The object as Go would write it again: no unknown fields, no empty optional ones.
    pub object: Value,
    /// What a strict decoder complains about, e.g. `unknown field "spec.x"`.
    pub strict: Vec<String>,
}

/// Why a body is no object of the kind that its path names.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{said} in version {version:?} cannot be handled as a {kind}: {why}")]
pub struct Undecodable {
    /// The kind that the body names, or is taken for.
    pub said: String,
    /// Its version, without the group.
    pub version: String,
    /// The kind of the path.
    pub kind: String,
    /// The decoder's words.
    pub why: String,
}

/// Decodes the body of a write. Its `kind` and `apiVersion` may be missing, and are there in the result.
///
/// # Errors
/// If a field has another type or the body is of another kind: the message of the 400.
pub fn decode(kind: &Kind, body: Value) -> Result<Decoded, Undecodable> {
    let said = |field: &str, or: &str| {
        let said = body[field].as_str().filter(|said| !said.is_empty());
        said.unwrap_or(or).rsplit('/').next().unwrap_or_default().to_owned()
    };
    let (name, version) = (said("kind", &kind.kind), said("apiVersion", &kind.version));
    decode_bare(kind, body).map_err(|why| Undecodable { said: name, version, kind: kind.kind.clone(), why })
}

/// The same with nothing but Go's words in the error.
///
/// # Errors
/// If a field has another type or the body is of another kind.
fn decode_bare(kind: &Kind, body: Value) -> Result<Decoded, String> {
    let Value::Object(mut body) = body else { return Err("the body must be a JSON object".to_owned()) };
    let text = |name: &str| body.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    check_kind(kind, &text("apiVersion"), &text("kind"))?;
    body.insert("apiVersion".to_owned(), kind.api_version().into());
    body.insert("kind".to_owned(), kind.kind.as_str().into());
    let (object, strict) = shape::decode(&kind.go_type, body)?;
    Ok(Decoded { object, strict })
}

/// What is written in protobuf but is no kind that is kept: its kind and its Go type.
const OTHER_TYPES: [(&str, &str); 6] = [
    ("Scale", "k8s.io/api/autoscaling/v1.Scale"),
    ("DeleteOptions", "k8s.io/apimachinery/pkg/apis/meta/v1.DeleteOptions"),
    ("SubjectAccessReview", "k8s.io/api/authorization/v1.SubjectAccessReview"),
    ("SelfSubjectAccessReview", "k8s.io/api/authorization/v1.SelfSubjectAccessReview"),
    ("SelfSubjectRulesReview", "k8s.io/api/authorization/v1.SelfSubjectRulesReview"),
    ("SelfSubjectReview", "k8s.io/api/authentication/v1.SelfSubjectReview"),
];

/// A body in protobuf as JSON. Of a kind that isn't known, only the name is read: it is refused where it is written.
///
/// # Errors
/// What is wrong with the body.
pub(crate) fn from_protobuf(body: &[u8]) -> Result<Value, String> {
    let envelope = shape::Envelope::open(body)?;
    let (api_version, kind) = (&envelope.api_version, &envelope.kind);
    let known = all().iter().find(|known| known.kind == *kind && known.api_version() == *api_version);
    let other = || OTHER_TYPES.iter().find(|(name, _)| name == kind).map(|(_, go_type)| *go_type);
    let mut object = match known.map(|known| known.go_type.as_str()).or_else(other) {
        Some(go_type) => shape::decode(go_type, envelope.object(go_type)?)?.0,
        None => serde_json::json!({}),
    };
    object["apiVersion"] = api_version.as_str().into();
    object["kind"] = kind.as_str().into();
    Ok(object)
}

/// Decodes an `autoscaling/v1` Scale, which is no kind of its own.
///
/// # Errors
/// The words of Go's decoder.
pub(crate) fn decode_scale(body: Map<String, Value>) -> Result<Decoded, String> {
    let (object, strict) = shape::decode("k8s.io/api/autoscaling/v1.Scale", body)?;
    Ok(Decoded { object, strict })
}

/// What Go says of a kind that it doesn't know.
pub(crate) fn no_kind(kind: &str, api_version: &str) -> String {
    format!("no kind \"{kind}\" is registered for version \"{api_version}\" in scheme \"pkg/runtime/scheme.go:111\"")
}

/// What a strict decoder says of such complaints.
pub(crate) fn strict_words(complaints: &[String]) -> String {
    format!("strict decoding error: {}", complaints.join(", "))
}

fn check_kind(kind: &Kind, api_version: &str, said: &str) -> Result<(), String> {
    let wrong_version = !api_version.is_empty() && api_version != kind.api_version();
    if !wrong_version && (said.is_empty() || said == kind.kind) {
        return Ok(());
    }
    let said = if said.is_empty() { &kind.kind } else { said };
    let api_version = if api_version.is_empty() { kind.api_version() } else { api_version.to_owned() };
    let version = api_version.rsplit('/').next().unwrap_or_default();
    let known = all().iter().any(|other| other.kind == said && other.api_version() == api_version);
    if known {
        // Go names the packages of the two types.
        let package = match kind.group.split('.').next().unwrap_or_default() {
            "" | "events" => "core",
            group => group,
        };
        return Err(format!("converting ({version}.{said}) to ({package}.{}): unknown conversion", kind.kind));
    }
    Err(no_kind(said, &api_version))
}

/// Which part of an object an update writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Everything but the status, where that is a subresource.
    Main,
    /// The status.
    Status,
    /// A namespace's own finalizers.
    Finalize,
}

/// Whether the real server has a subresource of a kind that isn't done here.
#[must_use]
pub(crate) fn lacks(group: &str, plural: &str, subresource: &str) -> bool {
    let lacking: &[&str] = match (group, plural) {
        ("", "pods") => {
            &["attach", "binding", "ephemeralcontainers", "eviction", "exec", "log", "portforward", "proxy", "resize"]
        }
        ("", "services") => &["proxy"],
        ("", "serviceaccounts") => &["token"],
        _ => &[],
    };
    lacking.contains(&subresource)
}

/// Sets the defaults of a decoded object.
pub fn default(kind: &Kind, object: &mut Value) {
    defaults::apply(kind, object);
}

/// Makes a new object that has its defaults what the server stores: first status, allocations. Its metadata must be
/// complete but for labels and finalizers that the kind brings. `now` is RFC 3339 to the second.
///
/// # Errors
/// What an allocation can't give.
pub fn create(
    kind: &Kind,
    object: &mut Value,
    addresses: &mut dyn Addresses,
    now: &str,
) -> Result<(), Vec<FieldError>> {
    prepare::create(kind, object, now);
    if kind.is("", "services") { service::create(object, addresses) } else { Ok(()) }
}

/// Makes an updated object that has its defaults what the server stores: what the update can't change, the generation.
/// Both must have complete metadata; of `old` it is what is stored.
///
/// # Errors
/// What an allocation can't give.
pub fn update(
    kind: &Kind,
    object: &mut Value,
    old: &Value,
    part: Part,
    addresses: &mut dyn Addresses,
) -> Result<(), Vec<FieldError>> {
    prepare::update(kind, object, old, part);
    if kind.is("", "services") && part == Part::Main { service::update(object, old, addresses) } else { Ok(()) }
}

/// Why an update that is valid is forbidden all the same (403; the admission plugin PersistentVolumeClaimResize, in a
/// cluster without storage classes).
#[must_use]
pub fn refusal(kind: &Kind, object: &Value, old: &Value) -> Option<&'static str> {
    if !kind.is("", "persistentvolumeclaims") {
        return None;
    }
    let size = |claim: &Value| {
        let size = claim["spec"]["resources"]["requests"]["storage"].as_str();
        size.and_then(|text| quantity::Quantity::parse(text).ok())
    };
    if size(object)?.compare(&size(old)?) != std::cmp::Ordering::Greater {
        return None;
    }
    Some(if old["status"]["phase"] == "Bound" {
        "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must support resize"
    } else {
        "Only bound persistent volume claims can be expanded"
    })
}

#[cfg(test)]
mod tests;
