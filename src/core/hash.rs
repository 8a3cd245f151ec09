//! Hashes that leave the process or decide ownership: XXH64 with seed 0, for ever.
//!
//! Never used for in-memory maps, which have a hasher of their own.

use xxhash_rust::xxh64::xxh64;

use crate::key::{ObjectKey, Resource};

/// Into how many shards all parents of an installation are divided. Fixed for ever: labels hold the number.
pub const SHARDS: u64 = 256;

/// XXH64 with seed 0.
#[must_use]
pub fn xxh(bytes: &[u8]) -> u64 {
    xxh64(bytes, 0)
}

/// The shard of a parent: XXH64 over `group/kind/namespace/name` modulo [`SHARDS`]. The version isn't part of it;
/// the namespace is empty for cluster-scoped kinds.
#[must_use]
pub fn shard(resource: &Resource, key: &ObjectKey) -> u8 {
    let text = format!("{}/{}/{}/{}", resource.api_version.group(), resource.kind, key.namespace(), key.name());
    u8::try_from(xxh(text.as_bytes()) % SHARDS).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::ApiVersion;

    /// XXH64 of these texts as other implementations print them (Python's xxhash, Go's cespare/xxhash).
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
