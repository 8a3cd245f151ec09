//! Hashes that leave the process or decide ownership: XXH64 with seed 0, for ever.
//!
//! Never used for in-memory maps, which have a hasher of their own.

use xxhash_rust::xxh64::xxh64;

use crate::key::{ObjectKey, Resource};
use crate::shards::SHARDS;

/// XXH64 with seed 0.
#[must_use]
pub fn xxh(bytes: &[u8]) -> u64 {
    xxh64(bytes, 0)
}

/// The shard of a parent: XXH64 over `group/kind/namespace/name` modulo [`SHARDS`]. The version isn't part of it;
/// the namespace is empty for cluster-scoped kinds.
#[must_use]
pub fn shard(resource: &Resource, key: &ObjectKey) -> u8 {
    shard_of(resource.api_version.group(), &resource.kind, key.namespace(), key.name())
}

/// The same by the parts.
#[must_use]
pub fn shard_of(group: &str, kind: &str, namespace: &str, name: &str) -> u8 {
    let text = [group, "/", kind, "/", namespace, "/", name].concat();
    u8::try_from(xxh(text.as_bytes()) % SHARDS as u64).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::ApiVersion;

    /// XXH64 of these texts as other implementations print them (Python's xxhash, Go's cespare/xxhash).
    /// The file that others test their own implementation with.
    #[test]
    fn shards_are_those_of_the_published_file() {
        let text = include_str!("../../docs/shard-vectors.json");
        let vectors: serde_json::Value = serde_json::from_str(text).unwrap();
        let vectors = vectors.as_array().or_else(|| vectors["vectors"].as_array()).unwrap();
        assert!(vectors.len() >= 32);
        for vector in vectors {
            let part = |name: &str| vector[name].as_str().unwrap();
            let shard = shard_of(part("group"), part("kind"), part("namespace"), part("name"));
            assert_eq!(u64::from(shard), vector["shard"].as_u64().unwrap(), "{vector}");
        }
    }

    #[test]
    fn shards_follow_the_published_vectors() {
        assert_eq!(xxh(b""), 0xef46_db37_51d8_e999);
        assert_eq!(xxh(b"a"), 0xd24e_c4f1_a98c_6e5b);
        let website = Resource {
            api_version: ApiVersion::new("example.com/v1"),
            plural: "websites".into(),
            kind: "Website".into(),
            namespaced: true,
            status: true,
        };
        let key = ObjectKey::new("shop", "front");
        assert_eq!(u64::from(shard(&website, &key)), xxh(b"example.com/Website/shop/front") % 256);
        let other_version = Resource { api_version: ApiVersion::new("example.com/v2"), ..website.clone() };
        assert_eq!(shard(&website, &key), shard(&other_version, &key));
    }
}
