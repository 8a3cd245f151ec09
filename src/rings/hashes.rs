//! Who shall have an object, by its key: one ring of those shards that objects are hashed to, and one of those that get what
//! nobody has.
//!
//! Never asks anybody and never remembers a key.

use std::collections::BTreeSet;
use std::sync::Arc;

use ringmaster_core::ring::hash::TokenRing;
use ringmaster_core::ring::model::Hash;
use ringmaster_core::ring::slots::{SlotRing, Tally};

/// A way from keys to shards.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Hashed {
    /// Nothing was counted yet, and whoever guesses moves objects for nothing.
    Unknown,
    /// By tokens.
    Tokens(TokenRing),
    /// By bounded loads.
    Slots(SlotRing),
}

impl Hashed {
    /// Whose a key is; `None` if nobody is available, or it isn't known yet.
    pub(crate) fn shard(&self, key: &str) -> Option<&Arc<str>> {
        match self {
            Self::Unknown => None,
            Self::Tokens(ring) => ring.shard(key),
            Self::Slots(ring) => ring.shard(key),
        }
    }
}

/// What a ring hashes to.
#[derive(Debug)]
pub(crate) struct Hashes {
    hash: Hash,
    /// What was counted, once all was; by bounded loads only.
    tally: Option<Tally>,
    /// All available shards.
    all: (BTreeSet<Arc<str>>, Hashed),
    /// Those that get what nobody has.
    receivers: (BTreeSet<Arc<str>>, Hashed),
    /// How often a ring was made.
    made: u64,
    /// How many counted objects have gone from one shard to another.
    moves: u64,
    /// How often all were counted.
    tallies: u64,
}

impl Hashes {
    pub(crate) fn new(hash: Hash) -> Self {
        let none = || (BTreeSet::new(), Hashed::Unknown);
        Self { hash, tally: None, all: none(), receivers: none(), made: 0, moves: 0, tallies: 0 }
    }

    /// Hashes to these from now on; tells whether that is anything new.
    pub(crate) fn shards(&mut self, all: &BTreeSet<Arc<str>>, receivers: &BTreeSet<Arc<str>>) -> bool {
        if self.made > 0 && self.all.0 == *all && self.receivers.0 == *receivers {
            return false;
        }
        self.make(all.clone(), receivers.clone());
        true
    }

    /// All objects were counted anew, since there had been so many moves; tells whether some slot shall have another shard
    /// for it. What was moved while it was counted may have been counted where it was, so that the count before, with each
    /// move since, is the better one.
    pub(crate) fn counted(&mut self, tally: Tally, moves: u64) -> bool {
        self.tallies += 1;
        if self.tally.is_none() || moves == self.moves {
            self.tally = Some(tally);
        }
        self.weigh()
    }

    /// Looks whether what was counted and moved since asks for other shards; tells whether it does.
    pub(crate) fn weigh(&mut self) -> bool {
        if self.tally.is_none() {
            return false;
        }
        let before = self.all.1.clone();
        self.make(self.all.0.clone(), self.receivers.0.clone());
        before != self.all.1
    }

    /// An object went from a shard to another.
    pub(crate) fn moved(&mut self, key: &str, from: Option<&str>, to: Option<&str>) {
        let Some(tally) = &mut self.tally else { return };
        match (from, to) {
            (None, Some(to)) => tally.give(key, to),
            (None, None) => {}
            (Some(_), to) => {
                tally.remove(key, from);
                tally.add(key, to);
                self.moves += 1;
            }
        }
    }

    /// Whether objects are to be counted by their slots.
    pub(crate) fn counts(&self) -> bool {
        self.hash == Hash::BoundedLoad
    }

    /// Who shall have an object: one that somebody has, or one that nobody does.
    pub(crate) fn shard(&self, key: &str, is_free: bool) -> Option<&Arc<str>> {
        if is_free { self.receivers.1.shard(key) } else { self.all.1.shard(key) }
    }

    /// The ring of all shards, as it is now.
    pub(crate) fn all(&self) -> Hashed {
        self.all.1.clone()
    }

    /// The ring of those that get what nobody has, as it is now.
    pub(crate) fn free(&self) -> Hashed {
        self.receivers.1.clone()
    }

    /// All available shards, as they are now.
    pub(crate) fn shards_now(&self) -> &BTreeSet<Arc<str>> {
        &self.all.0
    }

    /// How many counted objects have gone from one shard to another.
    pub(crate) fn moves(&self) -> u64 {
        self.moves
    }

    /// How often all objects were counted.
    pub(crate) fn tallies(&self) -> u64 {
        self.tallies
    }

    /// How often one was made.
    pub(crate) fn made(&self) -> u64 {
        self.made
    }

    fn make(&mut self, all: BTreeSet<Arc<str>>, receivers: BTreeSet<Arc<str>>) {
        self.made += 1;
        let tokens = |shards: &BTreeSet<Arc<str>>| Hashed::Tokens(TokenRing::of(shards.iter().map(|shard| &**shard)));
        let (ring, free) = match (self.hash, &self.tally) {
            (Hash::Tokens, _) => (tokens(&all), tokens(&receivers)),
            (Hash::BoundedLoad, None) => (Hashed::Unknown, Hashed::Unknown),
            (Hash::BoundedLoad, Some(tally)) => {
                let none = SlotRing::default();
                let before = if let Hashed::Slots(before) = &self.all.1 { before } else { &none };
                // Where receivers get what they shall keep, nothing is moved twice.
                let ring = SlotRing::of(all.iter().map(|shard| &**shard), &receivers, tally, before);
                (Hashed::Slots(ring.clone()), Hashed::Slots(ring))
            }
        };
        (self.all, self.receivers) = ((all, ring), (receivers, free));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<Arc<str>> {
        names.iter().copied().map(Arc::from).collect()
    }

    #[test]
    fn bounded_loads_wait_until_objects_were_counted() {
        let mut hashes = Hashes::new(Hash::BoundedLoad);
        assert!(hashes.shards(&names(&["a", "b"]), &names(&["a", "b"])));
        assert_eq!(hashes.shard("k", true), None);
        assert!(hashes.counted(Tally::default(), 0));
        assert!(hashes.shard("k", true).is_some());
        assert!(!hashes.counted(Tally::default(), 0), "nothing is new");
        assert!(!hashes.shards(&names(&["a", "b"]), &names(&["a", "b"])));
    }

    #[test]
    fn what_nobody_has_goes_to_the_receivers() {
        let keys: Vec<String> = (0..100).map(|key| format!("k{key}")).collect();
        let of = |hashes: &Hashes, shard: &str, is_free: bool| {
            let is_its = |key: &&String| hashes.shard(key, is_free).is_some_and(|its| **its == *shard);
            keys.iter().filter(is_its).count()
        };
        let mut hashes = Hashes::new(Hash::Tokens);
        hashes.shards(&names(&["a", "b"]), &names(&["b"]));
        assert_eq!((of(&hashes, "b", true), of(&hashes, "a", true)), (100, 0));
        assert!(of(&hashes, "a", false) > 20);
        // By bounded loads they keep it, as far as they have room.
        let mut hashes = Hashes::new(Hash::BoundedLoad);
        let mut tally = Tally::default();
        keys.iter().for_each(|key| tally.add(key, Some("gone")));
        hashes.shards(&names(&["a", "b"]), &names(&["b"]));
        hashes.counted(tally, 0);
        assert!((50..=55).contains(&of(&hashes, "b", true)), "{}", of(&hashes, "b", true));
        assert_eq!(of(&hashes, "b", true), of(&hashes, "b", false));
    }
}
