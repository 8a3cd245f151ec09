//! The nouns that everything shares: object keys, kinds, uids, resource versions, the key of a sync.
//!
//! Never parses whole objects and never knows what a controller is.

use std::borrow::Borrow;
use std::fmt;
use std::sync::Arc;

use serde::Deserialize;

/// The name of an object within its kind: `namespace/name`, or `name` when the kind is cluster-scoped.
///
/// This text is also the inner key of hook version v2 (Metacontroller's contract), so it is never built twice.
/// Neither part may hold a slash: Kubernetes forbids it in names used as path segments.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(Arc<str>);

impl ObjectKey {
    /// The key of `name` in `namespace`; an empty namespace means cluster-scoped.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        if namespace.is_empty() { Self(name.into()) } else { Self([namespace, "/", name].concat().into()) }
    }

    /// The namespace, empty when cluster-scoped.
    #[must_use]
    pub fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    /// The name without its namespace.
    #[must_use]
    pub fn name(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }

    /// `namespace/name`, or `name`.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Borrow<str> for ObjectKey {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A group and a version, as `apiVersion` spells them: `v1` for the core group, `group/version` otherwise.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ApiVersion(Arc<str>);

impl ApiVersion {
    /// Takes the text of an `apiVersion` field.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The group, empty for the core group.
    #[must_use]
    pub fn group(&self) -> &str {
        self.0.split_once('/').map_or("", |(group, _)| group)
    }

    /// The version without its group.
    #[must_use]
    pub fn version(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, version)| version)
    }

    /// The text of the `apiVersion` field.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ApiVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A kind as discovery tells it: what to call in a URL, what to write into `kind`, and what it can do.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Resource {
    /// Group and version.
    pub api_version: ApiVersion,
    /// The plural name in URLs, such as `deployments`.
    pub plural: Arc<str>,
    /// The name in `kind`, such as `Deployment`.
    pub kind: Arc<str>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// Whether it serves the `status` subresource.
    pub status: bool,
}

impl Resource {
    /// The outer key of Metacontroller's hook maps: `Kind.version` for the core group, `Kind.group/version` otherwise.
    #[must_use]
    pub fn hook_key(&self) -> String {
        format!("{}.{}", self.kind, self.api_version)
    }

    /// Whether both name the same kind, whatever the version.
    #[must_use]
    pub fn same_kind(&self, other: &Self) -> bool {
        self.kind == other.kind && self.api_version.group() == other.api_version.group()
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.kind, self.api_version)
    }
}

/// An object's uid. A canonical UUID is kept in 16 bytes; anything else stays the opaque text that it is.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Uid {
    /// The canonical lower-case hyphenated form.
    Uuid([u8; 16]),
    /// Any other text: the API promises no form.
    Text(Arc<str>),
}

impl Uid {
    /// Takes the text of a `uid` field; the text comes back from [`fmt::Display`] unchanged.
    #[must_use]
    pub fn new(text: &str) -> Self {
        parse_uuid(text).map_or_else(|| Self::Text(text.into()), Self::Uuid)
    }
}

fn parse_uuid(text: &str) -> Option<[u8; 16]> {
    let bytes = text.as_bytes();
    if bytes.len() != 36 {
        return None;
    }
    let mut out = [0u8; 16];
    let (mut at, mut half) = (0usize, 0usize);
    while at < 36 {
        if matches!(at, 8 | 13 | 18 | 23) {
            if bytes[at] != b'-' {
                return None;
            }
            at += 1;
            continue;
        }
        let digit = match bytes[at] {
            digit @ b'0'..=b'9' => digit - b'0',
            digit @ b'a'..=b'f' => digit - b'a' + 10,
            _ => return None,
        };
        out[half / 2] = out[half / 2] << 4 | digit;
        half += 1;
        at += 1;
    }
    Some(out)
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => f.write_str(text),
            Self::Uuid(bytes) => {
                for (index, byte) in bytes.iter().enumerate() {
                    if matches!(index, 4 | 6 | 8 | 10) {
                        f.write_str("-")?;
                    }
                    write!(f, "{byte:02x}")?;
                }
                Ok(())
            }
        }
    }
}

impl fmt::Debug for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl<'de> Deserialize<'de> for Uid {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Self::new(&std::borrow::Cow::<'de, str>::deserialize(deserializer)?))
    }
}

/// A resource version as a number. Kubernetes promises that versions of one kind compare as integers (KEP-5504);
/// a text that isn't one becomes [`Version::UNKNOWN`], which is never taken for older or newer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Version(pub u64);

impl Version {
    /// Not comparable: from a server whose versions aren't numbers.
    pub const UNKNOWN: Self = Self(0);

    /// Takes the text of a `resourceVersion` field.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.parse().unwrap_or(0))
    }

    /// Whether this is known to be older than `other`.
    #[must_use]
    pub fn is_before(self, other: Self) -> bool {
        self != Self::UNKNOWN && other != Self::UNKNOWN && self < other
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A member's name, which is also its Lease's: never used twice.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberName(Arc<str>);

impl MemberName {
    /// Takes the name of a Lease.
    #[must_use]
    pub fn new(text: &str) -> Self {
        Self(text.into())
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for MemberName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A number that only rises: whoever acts under a lower one acts on old news.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Epoch(pub u64);

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// A controller within this process: an index that is never used twice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControllerId(pub u32);

/// What the queue holds: one parent of one controller.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SyncKey {
    /// Whose parent it is.
    pub controller: ControllerId,
    /// The parent.
    pub parent: ObjectKey,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn object_keys_split_where_they_were_joined() {
        let key = ObjectKey::new("shop", "site");
        assert_eq!((key.as_str(), key.namespace(), key.name()), ("shop/site", "shop", "site"));
        let cluster = ObjectKey::new("", "dark");
        assert_eq!((cluster.as_str(), cluster.namespace(), cluster.name()), ("dark", "", "dark"));
    }

    #[test]
    fn uids_keep_their_text() {
        for text in ["0f8fad5b-d9cb-469f-a165-70867728950e", "0F8FAD5B-D9CB-469F-A165-70867728950E", "short", ""] {
            assert_eq!(Uid::new(text).to_string(), text);
        }
        assert!(matches!(Uid::new("0f8fad5b-d9cb-469f-a165-70867728950e"), Uid::Uuid(_)));
        assert!(matches!(Uid::new("0f8fad5b-d9cb-469f-a165-7086772895-e"), Uid::Text(_)));
    }

    #[test]
    fn versions_that_are_not_numbers_are_never_older() {
        assert!(Version::new("7").is_before(Version::new("12")));
        assert!(!Version::new("abc").is_before(Version::new("12")));
        assert!(!Version::new("12").is_before(Version::new("abc")));
    }

    #[test]
    fn hook_keys_follow_the_contract() {
        let resource = |api_version: &str, kind: &str| Resource {
            api_version: ApiVersion::new(api_version),
            plural: "x".into(),
            kind: kind.into(),
            namespaced: true,
            status: false,
        };
        assert_eq!(resource("v1", "Pod").hook_key(), "Pod.v1");
        assert_eq!(resource("apps/v1", "StatefulSet").hook_key(), "StatefulSet.apps/v1");
    }
}
