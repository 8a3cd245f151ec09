//! Key to shard by slots, with bounded loads: no shard has more than 1.1 times the mean of the objects, and no more objects
//! move than that takes.
//!
//! A hash alone leaves the balance to chance. Here keys fall into [`SLOTS`] fixed slots, whose objects are counted, and
//! whole slots have shards: memory doesn't grow with the objects. Who has a slot now is read off the objects' labels, so
//! nothing else is kept anywhere. Not the contract's: a ring chooses it.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::hash::xxh;

/// Slots of a ring. Fixed for ever.
pub const SLOTS: u16 = 1024;

/// A shard has at most this share of the mean, as a fraction; at least the mean, rounded up.
const BOUND: (u64, u64) = (11, 10);

/// The slot of a key.
#[must_use]
pub fn slot(key: &str) -> u16 {
    u16::try_from(xxh(key.as_bytes()) % u64::from(SLOTS)).unwrap_or(0)
}

/// The objects of a ring, counted by slot and by the shard that their labels name. Main objects alone: children go where
/// their owners go.
#[derive(Clone, Debug, Default)]
pub struct Tally(BTreeMap<u16, Counted>);

#[derive(Clone, Debug, Default)]
struct Counted {
    objects: u64,
    by_shard: BTreeMap<Arc<str>, u64>,
}

impl Tally {
    /// Counts an object with this key and shard label.
    pub fn add(&mut self, key: &str, shard: Option<&str>) {
        let counted = self.0.entry(slot(key)).or_default();
        counted.objects += 1;
        let Some(shard) = shard else { return };
        if let Some(count) = counted.by_shard.get_mut(shard) {
            *count += 1;
        } else {
            counted.by_shard.insert(shard.into(), 1);
        }
    }

    /// An object of nobody's was given to a shard: one that was counted without a label, if there is any in its slot, or else
    /// one that is new.
    pub fn give(&mut self, key: &str, shard: &str) {
        if let Some(counted) = self.0.get_mut(&slot(key))
            && counted.objects > counted.by_shard.values().sum()
        {
            counted.objects -= 1;
        }
        self.add(key, Some(shard));
    }

    /// An object that was counted so has gone, or is to be counted anew.
    pub fn remove(&mut self, key: &str, shard: Option<&str>) {
        let slot = slot(key);
        let Some(counted) = self.0.get_mut(&slot) else { return };
        counted.objects = counted.objects.saturating_sub(1);
        if let Some((shard, count)) = shard.and_then(|shard| counted.by_shard.get_key_value(shard)) {
            let (shard, left) = (Arc::clone(shard), count.saturating_sub(1));
            if left == 0 {
                counted.by_shard.remove(&shard);
            } else {
                counted.by_shard.insert(shard, left);
            }
        }
        if counted.objects == 0 {
            self.0.remove(&slot);
        }
    }

    /// How many objects a slot has.
    fn objects(&self, slot: u16) -> u64 {
        self.0.get(&slot).map_or(0, |counted| counted.objects)
    }

    /// How many of them a shard has.
    fn held(&self, slot: u16, shard: &str) -> u64 {
        self.0.get(&slot).and_then(|counted| counted.by_shard.get(shard)).copied().unwrap_or(0)
    }

    /// Who has most objects of a slot, of these shards; of several the smallest name.
    fn holder(&self, slot: u16, among: &BTreeSet<&str>) -> Option<&str> {
        let by_shard = self.0.get(&slot)?.by_shard.iter();
        let held = by_shard.filter(|(shard, _)| among.contains(&***shard));
        held.max_by_key(|(shard, count)| (**count, Reverse(*shard))).map(|(shard, _)| &**shard)
    }
}

/// Which shard each slot shall have.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotRing {
    /// By slot; empty without shards.
    owners: Vec<Arc<str>>,
}

impl SlotRing {
    /// Gives the slots to these shards, in whatever order they come.
    ///
    /// A slot with objects stays where `before` has it, or else where most of them are, as long as that shard is there and has
    /// room: 1.1 times the mean, or the mean rounded up if that is more. The others, and slots without objects, go to the
    /// shard with the highest weight of those with room, the slot with the most objects first (rendezvous hashing with
    /// bounded loads). So only the objects of shards that are gone move, and what others have too many: one slot's more at
    /// most from each. The bound holds unless a single slot has more than a tenth of the mean.
    ///
    /// Where objects are given away and some of the `preferred` have room, one of them gets them: those that came in place of
    /// shards that left.
    ///
    /// The same arguments give the same ring, whoever asks.
    #[must_use]
    pub fn of<'a>(
        names: impl IntoIterator<Item = &'a str>,
        preferred: &BTreeSet<Arc<str>>,
        tally: &Tally,
        before: &Self,
    ) -> Self {
        let names: BTreeSet<&str> = names.into_iter().collect();
        if names.is_empty() {
            return Self::default();
        }
        let shards: Vec<Arc<str>> = names.iter().copied().map(Arc::from).collect();
        let total: u64 = tally.0.values().map(|counted| counted.objects).sum();
        let mut spread = Spread {
            room: (total * BOUND.0 / (BOUND.1 * shards.len() as u64)).max(total.div_ceil(shards.len() as u64)),
            loads: vec![0; shards.len()],
            owners: vec![None; usize::from(SLOTS)],
        };
        let mut homeless = Vec::new();
        for slot in 0..SLOTS {
            // What is on its way when it is counted shows where it was, or nowhere.
            let there = |owner: &&Arc<str>| tally.objects(slot) > 0 && names.contains(&***owner);
            let now = before.owner(slot).filter(there).map(|owner| &**owner).or_else(|| tally.holder(slot, &names));
            match now.and_then(|now| shards.binary_search_by(|shard| (**shard).cmp(now)).ok()) {
                Some(shard) => spread.give(slot, shard, tally.objects(slot)),
                None => homeless.push(slot),
            }
        }
        for (shard, name) in shards.iter().enumerate() {
            homeless.extend(spread.shed(shard, name, tally));
        }
        homeless.sort_unstable_by_key(|slot| (Reverse(tally.objects(*slot)), *slot));
        for slot in homeless {
            let objects = tally.objects(slot);
            let with_room = || (0..shards.len()).filter(|shard| spread.loads[*shard] + objects <= spread.room);
            let by_weight = |shard: &usize| weight(&shards[*shard], slot);
            let best =
                with_room().filter(|shard| objects > 0 && preferred.contains(&shards[*shard])).max_by_key(by_weight);
            let best = best.or_else(|| with_room().max_by_key(by_weight));
            let least = || (0..shards.len()).min_by_key(|shard| spread.loads[*shard]);
            if let Some(shard) = best.or_else(least) {
                spread.give(slot, shard, objects);
            }
        }
        let owner = |shard: Option<usize>| Arc::clone(&shards[shard.unwrap_or(0)]);
        Self { owners: spread.owners.into_iter().map(owner).collect() }
    }

    /// The shard of a key; `None` without shards.
    #[must_use]
    pub fn shard(&self, key: &str) -> Option<&Arc<str>> {
        self.owner(slot(key))
    }

    /// The shard of a slot.
    fn owner(&self, slot: u16) -> Option<&Arc<str>> {
        self.owners.get(usize::from(slot))
    }
}

/// Slots as they are given away.
struct Spread {
    /// Objects that a shard may have.
    room: u64,
    loads: Vec<u64>,
    owners: Vec<Option<usize>>,
}

impl Spread {
    fn give(&mut self, slot: u16, shard: usize, objects: u64) {
        self.owners[usize::from(slot)] = Some(shard);
        self.loads[shard] += objects;
    }

    /// Takes slots off a shard that has too many objects: first those of which it has none yet, then those that it has the
    /// least weight for.
    fn shed(&mut self, shard: usize, name: &str, tally: &Tally) -> Vec<u16> {
        let mut shed = Vec::new();
        if self.loads[shard] <= self.room {
            return shed;
        }
        // One with more than there is room for is better nowhere else.
        let can_go = |slot: u16| (1..=self.room).contains(&tally.objects(slot));
        let holds = |slot: &u16| self.owners[usize::from(*slot)] == Some(shard) && can_go(*slot);
        let mut slots: Vec<u16> = (0..SLOTS).filter(holds).collect();
        slots.sort_by_cached_key(|slot| (tally.held(*slot, name) > 0, weight(name, *slot), *slot));
        for slot in slots {
            if self.loads[shard] <= self.room {
                break;
            }
            self.loads[shard] -= tally.objects(slot);
            self.owners[usize::from(slot)] = None;
            shed.push(slot);
        }
        shed
    }
}

/// How much a shard is the one for a slot. Equal ones are as good as never, and then the order of names decides.
fn weight(shard: &str, slot: u16) -> u64 {
    xxh(format!("{shard}/{slot}").as_bytes())
}

#[cfg(test)]
#[path = "slots_tests.rs"]
mod tests;
