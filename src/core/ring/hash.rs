//! Key to shard by tokens on a ring, exactly as controller-sharding does it (contract, 1.4), so that migrating moves nothing.
//!
//! Never knows which shards are available: it is made of those that are. Its balance is that of chance: [`super::slots`]
//! bounds it.

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::hash::xxh;

/// Tokens of one shard.
pub const TOKENS: u32 = 100;

/// The hash ring of some shards.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TokenRing {
    /// By token; whose it is, as an index of `shards`.
    tokens: Vec<(u64, u32)>,
    /// Sorted.
    shards: Vec<Arc<str>>,
    shared: usize,
}

impl TokenRing {
    /// The ring of these shards, in whatever order they come; a name that comes twice counts once.
    ///
    /// A token is the XXH64 of the shard's name followed at once by a number, so that `op-1` with 12 and `op-11` with 2
    /// have the same. The contract leaves such a token to whoever came last, in an order that isn't stable; here the
    /// smallest name has it, byte by byte: what hangs on it never goes to and fro.
    #[must_use]
    pub fn of<'a>(names: impl IntoIterator<Item = &'a str>) -> Self {
        let names: BTreeSet<&str> = names.into_iter().collect();
        let mut tokens = Vec::with_capacity(names.len() * TOKENS as usize);
        for (name, shard) in names.iter().zip(0_u32..) {
            tokens.extend((0..TOKENS).map(|number| (xxh(format!("{name}{number}").as_bytes()), shard)));
        }
        // Names are sorted, so the first of equal tokens is that of the smallest name.
        tokens.sort_unstable();
        let all = tokens.len();
        tokens.dedup_by_key(|(token, _)| *token);
        let shared = all - tokens.len();
        Self { tokens, shards: names.into_iter().map(Arc::from).collect(), shared }
    }

    /// The shard of a key: whose is the first token that isn't less than its hash, or else the first of all. `None` without
    /// shards.
    #[must_use]
    pub fn shard(&self, key: &str) -> Option<&Arc<str>> {
        let hash = xxh(key.as_bytes());
        let at = self.tokens.partition_point(|(token, _)| *token < hash);
        let (_, shard) = self.tokens.get(at).or_else(|| self.tokens.first())?;
        self.shards.get(*shard as usize)
    }

    /// Its shards, sorted by name.
    #[must_use]
    pub fn shards(&self) -> &[Arc<str>] {
        &self.shards
    }

    /// How many tokens were another shard's already.
    #[must_use]
    pub fn shared_tokens(&self) -> usize {
        self.shared
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    fn ring(names: &[String]) -> TokenRing {
        TokenRing::of(names.iter().map(String::as_str))
    }

    fn shard<'a>(ring: &'a TokenRing, key: &str) -> &'a str {
        ring.shard(key).unwrap()
    }

    fn ordinals(count: usize) -> Vec<String> {
        (0..count).map(|number| format!("op-{number}")).collect()
    }

    fn keys(count: usize) -> impl Iterator<Item = String> {
        (0..count).map(|number| format!("example.com/Website/shop/site-{number}"))
    }

    /// Written by tests/golden/ring: Go, cespare/xxhash, a ring of its own.
    #[test]
    fn assignments_are_those_of_another_implementation() {
        let (mut rings, mut checked) = (Vec::new(), 0);
        for line in include_str!("golden.txt").lines() {
            let mut words = line.split(' ');
            match words.next() {
                Some("ring") => {
                    let mut number = || words.next().unwrap().parse::<usize>().unwrap();
                    let (tokens, shared) = (number(), number());
                    let names: Vec<&str> = words.collect();
                    let ring = TokenRing::of(names.iter().copied());
                    assert_eq!((ring.tokens.len(), ring.shared_tokens()), (tokens, shared), "{names:?}");
                    rings.push((ring, names));
                }
                Some("key") => {
                    let key = words.next().unwrap();
                    for (ring, names) in &rings {
                        let index: usize = words.next().unwrap().parse().unwrap();
                        assert_eq!(shard(ring, key), names[index], "{key} in {names:?}");
                        checked += 1;
                    }
                    assert_eq!(words.next(), None, "{key}");
                }
                other => assert_eq!(other, Some("#")),
            }
        }
        assert!(checked >= 10_000, "{checked}");
    }

    #[test]
    fn tokens_that_collide_have_one_owner_in_any_order() {
        let names = ordinals(12);
        let back: Vec<String> = names.iter().rev().chain(&names).cloned().collect();
        assert_eq!(ring(&names), ring(&back));
        assert_eq!(ring(&names).shared_tokens(), 10, "op-1 with 1x and op-11 with x");
        // The key's hash is the token of op-1 with 12, and of op-11 with 2.
        assert_eq!(shard(&TokenRing::of(["op-11", "op-1"]), "op-112"), "op-1");
        assert_eq!(shard(&TokenRing::of(["op-11"]), "op-112"), "op-11");
    }

    #[test]
    fn without_shards_there_is_none() {
        assert_eq!(TokenRing::of([]).shard("a"), None);
        assert_eq!(TokenRing::default().shard(""), None);
    }

    #[test]
    fn loads_are_those_of_chance() {
        for (count, most_percent) in [(3, 134), (5, 134), (10, 134), (20, 145)] {
            let ring = ring(&ordinals(count));
            let mut loads: BTreeMap<&str, usize> = BTreeMap::new();
            let keys: Vec<String> = keys(3000).collect();
            keys.iter().for_each(|key| *loads.entry(shard(&ring, key)).or_default() += 1);
            let most = loads.values().max().copied().unwrap_or(0);
            println!("{count} shards: max/mean {}%", most * count * 100 / 3000);
            assert!(most * count * 100 <= 3000 * most_percent, "{count}: {loads:?}");
        }
    }

    proptest! {
        #[test]
        fn one_shard_more_takes_keys_and_moves_no_other(count in 1..12_usize) {
            let (few, many) = (ring(&ordinals(count)), ring(&ordinals(count + 1)));
            let new = format!("op-{count}");
            let mut moved = 0;
            for key in keys(500) {
                let (before, after) = (shard(&few, &key), shard(&many, &key));
                if before != after {
                    moved += 1;
                    // A token of op-1 that op-11 has too stays op-1's; nothing goes to a third.
                    prop_assert_eq!(after, new.as_str());
                }
            }
            prop_assert!(moved * (count + 1) <= 500 * 2, "{moved} of 500");
        }
    }
}
