//! What the server says about itself: version, health, the groups and kinds it serves, and their OpenAPI.
//!
//! Never reads objects, and answers in JSON only. Measured at kube-apiserver v1.36.3.

mod openapi;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::{Value, json};
use xxhash_rust::xxh64::xxh64;

use crate::error::Error;
use crate::registry::{Definition, Registry};

/// The version of Kubernetes that the server answers as.
pub const GIT_VERSION: &str = "v1.36.3";

/// The content type of aggregated discovery.
pub const AGGREGATED: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

const JSON: &str = "application/json";

/// OpenAPI v2 as kubectl asks for it, when OpenAPI v3 doesn't name a kind.
const ASKS_OPENAPI_V2: &str = "application/com.github.proto-openapi.spec.v2";
const OPENAPI_V2: &str = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf";
/// A document (gnostic's `openapi.v2.Document`) with a title and a version, and no kind: all kinds are in OpenAPI v3, so
/// kubectl learns that there is no such one, as from the real server's document.
const EMPTY_V2: &[u8] = b"\x0a\x032.0\x12\x15\x0a\x0aKubernetes\x12\x07v1.36.3\x42\x00";
const TEXT: &str = "text/plain; charset=utf-8";

/// Built-in groups in the order in which kube-apiserver lists them; groups of CRDs follow.
const GROUP_ORDER: [&str; 20] = [
    "apiregistration.k8s.io",
    "apps",
    "events.k8s.io",
    "authentication.k8s.io",
    "authorization.k8s.io",
    "autoscaling",
    "batch",
    "certificates.k8s.io",
    "networking.k8s.io",
    "policy",
    "rbac.authorization.k8s.io",
    "storage.k8s.io",
    "admissionregistration.k8s.io",
    "apiextensions.k8s.io",
    "scheduling.k8s.io",
    "coordination.k8s.io",
    "node.k8s.io",
    "discovery.k8s.io",
    "resource.k8s.io",
    "flowcontrol.apiserver.k8s.io",
];

/// Verbs of built-in kinds, in the order in which kube-apiserver lists them.
const BUILT_IN_VERBS: [&str; 8] = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"];
/// Verbs of custom resources, in their order.
const CRD_VERBS: [&str; 8] = ["delete", "deletecollection", "get", "list", "patch", "create", "update", "watch"];
/// Verbs of `/status` and `/scale`.
const PART_VERBS: [&str; 3] = ["get", "patch", "update"];

/// Gives the entry of `spec.versions` of the CRD that defines group, version and plural name; `None` if there is none.
pub type CrdVersions<'a> = dyn Fn(&str, &str, &str) -> Option<Value> + 'a;

/// An answer. Real servers add `Vary: Accept` to aggregated and OpenAPI answers, and an ETag of the hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// HTTP code: 200, or 404 for paths that nothing serves.
    pub code: u16,
    /// Content type.
    pub content_type: &'static str,
    /// Body.
    pub body: Cow<'static, [u8]>,
    /// Hash of the body for an ETag, in upper-case hexadecimal; empty for answers without one.
    pub hash: String,
}

/// Answers a GET; `None` if the path is about something else. `path` comes without its query, `accept` is the header's
/// text, empty if there was none.
///
/// # Errors
/// 406 if JSON isn't accepted, 404 for unknown versions, 501 for OpenAPI v2 in JSON.
pub fn answer(path: &str, accept: &str, registry: &Registry, crds: &CrdVersions<'_>) -> Option<Result<Answer, Error>> {
    if matches!(path, "/healthz" | "/livez" | "/readyz" | "/healthz/ping" | "/livez/ping" | "/readyz/ping") {
        return Some(Ok(text(200, "ok")));
    }
    let directory = path.starts_with("/api") || path.starts_with("/version");
    let trimmed = if directory { path.strip_suffix('/').unwrap_or(path) } else { path };
    let parts: Vec<&str> = trimmed.split('/').skip(1).collect();
    let view = View { registry, crds };
    let value = match parts.as_slice() {
        [""] => view.root(),
        ["version"] => version(),
        ["api" | "apis"] if accepts_aggregated(accept) => {
            return Some(Ok(hashed(AGGREGATED, view.aggregated(parts == ["api"]).to_string().into_bytes())));
        }
        ["api"] => json!({ "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [] }),
        ["api", "v1"] => view.resources("", "v1"),
        ["api", _] => return Some(Err(Error::no_resource())),
        ["apis"] => {
            let groups: Vec<Value> = view.groups(false).iter().map(Group::summary).collect();
            json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups })
        }
        ["apis", name] => {
            let groups = view.groups(false);
            let Some(group) = groups.iter().find(|group| group.name == *name) else {
                return Some(Ok(not_found()));
            };
            let mut summary = group.summary();
            summary["kind"] = "APIGroup".into();
            summary["apiVersion"] = "v1".into();
            summary
        }
        ["apis", name, version] => {
            let groups = view.groups(false);
            let Some(group) = groups.iter().find(|group| group.name == *name) else {
                return Some(Ok(not_found()));
            };
            if !group.versions.iter().any(|(known, _)| known == version) {
                return Some(if group.custom() { Ok(not_found()) } else { Err(Error::no_resource()) });
            }
            view.resources(name, version)
        }
        ["openapi", "v2"] if accept.contains(ASKS_OPENAPI_V2) => {
            return Some(Ok(Answer { content_type: OPENAPI_V2, body: EMPTY_V2.into(), ..text(200, "") }));
        }
        ["openapi", "v2"] => return Some(Err(Error::not_implemented("OpenAPI v2 in JSON"))),
        ["openapi", "v3"] => {
            // The real server calls its index text as well.
            return Some(Ok(Answer { body: view.openapi_index().to_string().into_bytes().into(), ..text(200, "") }));
        }
        ["openapi", "v3", rest @ ..] => {
            if !accepts_json(accept) {
                return Some(Err(not_acceptable()));
            }
            let group_version = match rest {
                ["api", version] => ((*version).to_owned(), "", *version),
                ["apis", group, version] => (format!("{group}/{version}"), *group, *version),
                _ => return Some(Ok(Answer { body: Cow::Borrowed(b""), ..not_found() })),
            };
            let body = view.openapi(&group_version.0, group_version.1, group_version.2);
            return Some(Ok(match body {
                Some(Cow::Borrowed(body)) => hashed_static(body),
                Some(Cow::Owned(body)) => hashed(JSON, body),
                None => Answer { body: Cow::Borrowed(b""), ..not_found() },
            }));
        }
        _ => return None,
    };
    let free = matches!(parts.as_slice(), [""] | ["version"]);
    if !free && !accepts_json(accept) {
        return Some(Err(not_acceptable()));
    }
    let body = value.to_string().into_bytes().into();
    Some(Ok(Answer { code: 200, content_type: JSON, body, hash: String::new() }))
}

/// The answer to a path that nothing serves: the real server's is text, not a Status.
#[must_use]
pub fn not_found() -> Answer {
    text(404, "404 page not found\n")
}

/// Orders versions as Kubernetes does, best first: `v2` before `v1` before `v1beta2` before `v1alpha1` before others
/// by name (k8s.io/apimachinery/pkg/version, `CompareKubeAwareVersionStrings`).
#[must_use]
pub fn compare_versions(a: &str, b: &str) -> Ordering {
    match (version_rank(a), version_rank(b)) {
        (Some(a), Some(b)) => b.cmp(&a),
        (Some(_), None) => Ordering::Less,
        (None, Some(_)) => Ordering::Greater,
        (None, None) => a.cmp(b),
    }
}

/// Stability, major, minor; the greatest is the best.
fn version_rank(version: &str) -> Option<(u8, u64, u64)> {
    let number = |digits: &str| -> Option<u64> {
        let plain = !digits.is_empty() && !digits.starts_with('0') && digits.bytes().all(|byte| byte.is_ascii_digit());
        if plain { digits.parse().ok() } else { None }
    };
    let rest = version.strip_prefix('v')?;
    for (word, rank) in [("alpha", 0), ("beta", 1)] {
        if let Some((major, minor)) = rest.split_once(word) {
            return Some((rank, number(major)?, if minor.is_empty() { 0 } else { number(minor)? }));
        }
    }
    Some((2, number(rest)?, 0))
}

/// What `/version` answers.
fn version() -> Value {
    json!({
        "major": "1", "minor": "36", "emulationMajor": "1", "emulationMinor": "36",
        "minCompatibilityMajor": "1", "minCompatibilityMinor": "35", "gitVersion": GIT_VERSION,
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z", "goVersion": "",
        "compiler": "rustc", "platform": "linux/amd64",
    })
}

/// A group with its versions, best first, and their kinds by name.
struct Group<'a> {
    name: String,
    versions: Vec<(String, Vec<&'a Definition>)>,
}

impl Group<'_> {
    fn custom(&self) -> bool {
        self.versions.iter().flat_map(|(_, kinds)| kinds).all(|kind| is_custom(kind))
    }

    fn preferred(&self) -> &str {
        self.versions.first().map_or("", |(version, _)| version)
    }

    fn summary(&self) -> Value {
        let entry = |version: &str| json!({ "groupVersion": format!("{}/{version}", self.name), "version": version });
        let versions: Vec<Value> = self.versions.iter().map(|(version, _)| entry(version)).collect();
        json!({ "name": self.name, "versions": versions, "preferredVersion": entry(self.preferred()) })
    }
}

struct View<'a> {
    registry: &'a Registry,
    crds: &'a CrdVersions<'a>,
}

impl<'a> View<'a> {
    /// All groups but the core one, in their order: groups of CRDs are ordered by their APIService's name
    /// (`version.group`) in the plain list, by group in the aggregated one.
    fn groups(&self, aggregated: bool) -> Vec<Group<'a>> {
        let mut found: BTreeMap<&str, BTreeMap<&str, Vec<&'a Definition>>> = BTreeMap::new();
        for definition in self.registry.iter() {
            let version = &definition.resource.api_version;
            if !version.group().is_empty() {
                found.entry(version.group()).or_default().entry(version.version()).or_default().push(definition);
            }
        }
        let mut groups: Vec<Group<'a>> = found
            .into_iter()
            .map(|(name, versions)| {
                let mut versions: Vec<_> =
                    versions.into_iter().map(|(version, kinds)| (version.to_owned(), kinds)).collect();
                versions.sort_by(|(a, _), (b, _)| compare_versions(a, b));
                Group { name: name.to_owned(), versions }
            })
            .collect();
        groups.sort_by_cached_key(|group| {
            let place = GROUP_ORDER.iter().position(|name| *name == group.name).unwrap_or(GROUP_ORDER.len());
            let tie = if aggregated { group.name.clone() } else { format!("{}.{}", group.preferred(), group.name) };
            (place, tie)
        });
        groups
    }

    fn kinds(&self, group: &str, version: &str) -> Vec<&'a Definition> {
        let same = |definition: &&std::sync::Arc<Definition>| {
            let own = &definition.resource.api_version;
            own.group() == group && own.version() == version
        };
        self.registry.iter().filter(same).map(|definition| &**definition).collect()
    }

    /// Subresources with their verbs, in the order in which kube-apiserver lists them.
    fn parts(definition: &Definition) -> Vec<(&'static str, &'static [&'static str])> {
        let resource = &definition.resource;
        let status = definition.has_status().then_some(("status", PART_VERBS.as_slice()));
        let scale = definition.scale.is_some().then_some(("scale", PART_VERBS.as_slice()));
        if is_custom(definition) {
            return status.into_iter().chain(scale).collect();
        }
        let core = resource.api_version.group().is_empty();
        let finalize = (core && &*resource.plural == "namespaces").then_some(("finalize", &["update"][..]));
        finalize.into_iter().chain(scale).chain(status).collect()
    }

    fn resources(&self, group: &str, version: &str) -> Value {
        let mut resources = Vec::new();
        for definition in self.kinds(group, version) {
            let (plural, kind) = (&*definition.resource.plural, &*definition.resource.kind);
            let namespaced = definition.resource.namespaced;
            let mut entry = json!({
                "name": plural, "singularName": definition.singular, "namespaced": namespaced, "kind": kind,
                "verbs": verbs(definition),
            });
            add_names(&mut entry, definition);
            resources.push(entry);
            for (part, verbs) in Self::parts(definition) {
                let name = format!("{plural}/{part}");
                let mut entry =
                    json!({ "name": name, "singularName": "", "namespaced": namespaced, "kind": kind, "verbs": verbs });
                if part == "scale" {
                    entry["group"] = "autoscaling".into();
                    entry["version"] = "v1".into();
                    entry["kind"] = "Scale".into();
                }
                resources.push(entry);
            }
        }
        if group.is_empty() {
            return json!({ "kind": "APIResourceList", "groupVersion": version, "resources": resources });
        }
        let group_version = format!("{group}/{version}");
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": resources })
    }

    fn aggregated(&self, core: bool) -> Value {
        let groups = if core {
            vec![Group { name: String::new(), versions: vec![("v1".to_owned(), self.kinds("", "v1"))] }]
        } else {
            self.groups(true)
        };
        let items: Vec<Value> = groups
            .iter()
            .map(|group| {
                let versions: Vec<Value> = group
                    .versions
                    .iter()
                    .map(|(version, kinds)| {
                        let kinds: Vec<Value> = kinds.iter().map(|kind| Self::aggregated_kind(kind)).collect();
                        json!({ "version": version, "resources": kinds, "freshness": "Current" })
                    })
                    .collect();
                let metadata = if core { json!({}) } else { json!({ "name": group.name }) };
                json!({ "metadata": metadata, "versions": versions })
            })
            .collect();
        json!({
            "kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}, "items": items,
        })
    }

    fn aggregated_kind(definition: &Definition) -> Value {
        let resource = &definition.resource;
        // The real server leaves group and version of built-in kinds empty: they are those of the list.
        let kind = if is_custom(definition) {
            let version = &resource.api_version;
            json!({ "group": version.group(), "version": version.version(), "kind": &*resource.kind })
        } else {
            json!({ "group": "", "version": "", "kind": &*resource.kind })
        };
        let parts: Vec<Value> = Self::parts(definition)
            .into_iter()
            .map(|(part, verbs)| {
                let scale = json!({ "group": "autoscaling", "version": "v1", "kind": "Scale" });
                let kind = if part == "scale" { &scale } else { &kind };
                json!({ "subresource": part, "responseKind": kind, "verbs": verbs })
            })
            .collect();
        let mut entry = json!({
            "resource": &*resource.plural, "responseKind": kind,
            "scope": if resource.namespaced { "Namespaced" } else { "Cluster" },
            "singularResource": definition.singular, "verbs": verbs(definition),
        });
        add_names(&mut entry, definition);
        if !parts.is_empty() {
            entry["subresources"] = parts.into();
        }
        entry
    }

    fn openapi(&self, group_version: &str, group: &str, version: &str) -> Option<Cow<'static, [u8]>> {
        let kinds = self.kinds(group, version);
        if kinds.is_empty() {
            return None;
        }
        if !kinds.iter().all(|kind| is_custom(kind)) {
            return crate::kinds::openapi_v3(group_version).map(Cow::Borrowed);
        }
        let entry = |kind: &'a Definition| Some((kind, (self.crds)(group, version, &kind.resource.plural)?));
        let kinds: Vec<(&Definition, Value)> = kinds.into_iter().filter_map(entry).collect();
        Some(openapi::document(&kinds).to_string().into_bytes().into())
    }

    fn openapi_index(&self) -> Value {
        let mut paths = json!({});
        let groups = self.groups(false);
        let others = groups.iter().flat_map(|group| {
            group.versions.iter().map(|(version, _)| (format!("{}/{version}", group.name), &*group.name, &**version))
        });
        for (group_version, group, version) in std::iter::once(("v1".to_owned(), "", "v1")).chain(others) {
            if let Some(body) = self.openapi(&group_version, group, version) {
                let path = if group.is_empty() { "api/v1".to_owned() } else { format!("apis/{group_version}") };
                let url = format!("/openapi/v3/{path}?hash={}", hash(&body));
                paths[path] = json!({ "serverRelativeURL": url });
            }
        }
        json!({ "paths": paths })
    }

    fn root(&self) -> Value {
        let mut paths: Vec<String> = ["/api", "/api/v1", "/apis", "/apis/", "/healthz", "/healthz/ping", "/livez"]
            .into_iter()
            .chain(["/livez/ping", "/openapi/v3", "/openapi/v3/", "/readyz", "/readyz/ping", "/version"])
            .map(str::to_owned)
            .collect();
        for group in self.groups(false) {
            paths.push(format!("/apis/{}", group.name));
            paths.extend(group.versions.iter().map(|(version, _)| format!("/apis/{}/{version}", group.name)));
        }
        paths.sort_unstable();
        json!({ "paths": paths })
    }
}

fn is_custom(definition: &Definition) -> bool {
    !definition.is_built_in()
}

fn verbs(definition: &Definition) -> Vec<&'static str> {
    if is_custom(definition) {
        return CRD_VERBS.to_vec();
    }
    let resource = &definition.resource;
    // Namespaces can't be deleted as a collection.
    let namespaces = resource.api_version.group().is_empty() && &*resource.plural == "namespaces";
    BUILT_IN_VERBS.into_iter().filter(|verb| !(namespaces && *verb == "deletecollection")).collect()
}

fn add_names(entry: &mut Value, definition: &Definition) {
    if !definition.short_names.is_empty() {
        entry["shortNames"] = json!(definition.short_names);
    }
    if !definition.categories.is_empty() {
        entry["categories"] = json!(definition.categories);
    }
}

/// The media types of an Accept header with their parameters, without blanks.
fn media_types(accept: &str) -> impl Iterator<Item = Vec<&str>> {
    accept.split(',').map(|kind| kind.split(';').map(str::trim).collect())
}

fn accepts_aggregated(accept: &str) -> bool {
    media_types(accept).any(|kind| {
        let has = |parameter: &str| kind.contains(&parameter);
        has(JSON) && has("g=apidiscovery.k8s.io") && has("v=v2") && has("as=APIGroupDiscoveryList")
    })
}

/// Whether plain JSON will do. JSON of another kind (`as=`) is not plain.
fn accepts_json(accept: &str) -> bool {
    accept.trim().is_empty()
        || media_types(accept).any(|kind| {
            matches!(kind.first(), Some(&(JSON | "application/*" | "*/*")))
                && !kind.iter().any(|parameter| parameter.starts_with("as="))
        })
}

fn not_acceptable() -> Error {
    Error::new(406, "NotAcceptable", "only the following media types are accepted: application/json")
}

fn text(code: u16, body: &'static str) -> Answer {
    Answer { code, content_type: TEXT, body: Cow::Borrowed(body.as_bytes()), hash: String::new() }
}

fn hashed(content_type: &'static str, body: Vec<u8>) -> Answer {
    Answer { code: 200, content_type, hash: hash(&body), body: body.into() }
}

fn hashed_static(body: &'static [u8]) -> Answer {
    Answer { code: 200, content_type: JSON, hash: hash(body), body: Cow::Borrowed(body) }
}

/// Tells versions of a document apart; clients cache by it and never compute it.
fn hash(body: &[u8]) -> String {
    format!("{:016X}{:016X}", xxh64(body, 0), xxh64(body, 1))
}
