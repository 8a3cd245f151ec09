use proptest::prelude::*;

use super::*;

/// Objects with their labels, in a ring that follows its own assignments.
#[derive(Clone)]
struct World {
    keys: Vec<String>,
    labels: Vec<Option<String>>,
    ring: SlotRing,
}

impl World {
    fn new(objects: usize) -> Self {
        let keys = (0..objects).map(|number| format!("example.com/Website/shop/site-{number}")).collect();
        Self { keys, labels: vec![None; objects], ring: SlotRing::default() }
    }

    fn tally(&self) -> Tally {
        let mut tally = Tally::default();
        self.keys.iter().zip(&self.labels).for_each(|(key, label)| tally.add(key, label.as_deref()));
        tally
    }

    fn load(&self, shard: &str) -> u64 {
        self.labels.iter().filter(|label| label.as_deref() == Some(shard)).count() as u64
    }

    /// Makes the ring of these shards and labels all objects by it; tells how many had another label.
    fn settle(&mut self, names: &[String]) -> u64 {
        self.ring = SlotRing::of(names.iter().map(String::as_str), &BTreeSet::new(), &self.tally(), &self.ring);
        let mut moved = 0;
        for (key, label) in self.keys.iter().zip(&mut self.labels) {
            let shard = self.ring.shard(key).map(|shard| (**shard).to_owned());
            moved += u64::from(label.is_some() && *label != shard);
            *label = shard;
        }
        moved
    }

    /// The most that a shard may have.
    fn room(&self, shards: usize) -> u64 {
        let (total, shards) = (self.keys.len() as u64, shards as u64);
        (total * 11 / (10 * shards)).max(total.div_ceil(shards))
    }

    /// What has to move at least: objects of shards that go, and what others have too many.
    fn must_move(&self, names: &[String]) -> u64 {
        let room = self.room(names.len());
        let held: BTreeSet<&str> = self.labels.iter().flatten().map(String::as_str).collect();
        let of = |shard: &&str| {
            let load = self.load(shard);
            if names.iter().any(|name| name == shard) { load.saturating_sub(room) } else { load }
        };
        held.iter().map(of).sum()
    }

    fn largest_slot(&self) -> u64 {
        let tally = self.tally();
        (0..SLOTS).map(|slot| tally.objects(slot)).max().unwrap_or(0)
    }
}

fn names(numbers: impl IntoIterator<Item = usize>) -> Vec<String> {
    numbers.into_iter().map(|number| format!("op-{number}")).collect()
}

#[test]
fn three_to_four_to_two_shards_stay_balanced_and_move_what_they_must() {
    let mut world = World::new(1000);
    for shards in [names(0..3), names(0..4), names([0, 3])] {
        let (must, largest) = (world.must_move(&shards), world.largest_slot());
        let moved = world.settle(&shards);
        let most = shards.iter().map(|shard| world.load(shard)).max().unwrap();
        println!("{} shards: {moved} of 1,000 moved, {must} at least; most {most}", shards.len());
        assert!(most <= world.room(shards.len()), "{most}");
        assert!((must..=must + largest * shards.len() as u64).contains(&moved), "{moved} of {must}");
        assert_eq!(world.settle(&shards), 0, "nothing moves where nothing changed");
    }
}

#[test]
fn a_new_object_goes_where_its_slot_is_and_moves_no_other() {
    let mut world = World::new(400);
    world.settle(&names(0..4));
    for number in 400..600 {
        world.keys.push(format!("example.com/Website/shop/site-{number}"));
        world.labels.push(None);
        let must = world.must_move(&names(0..4));
        let moved = world.settle(&names(0..4));
        assert!(moved <= must + world.largest_slot(), "{number}: {moved} of {must}");
    }
    let most = names(0..4).iter().map(|shard| world.load(shard)).max().unwrap();
    assert!(most <= world.room(4), "{most}");
}

#[test]
fn half_done_moves_count_where_most_objects_are() {
    let mut tally = Tally::default();
    for label in [Some("op-1"), Some("op-0"), Some("op-1"), None, Some("gone"), Some("gone"), Some("gone")] {
        tally.add("a", label);
    }
    let ring = SlotRing::of(["op-0", "op-1"], &BTreeSet::new(), &tally, &SlotRing::default());
    assert_eq!(ring.shard("a").map(|shard| &**shard), Some("op-1"));
    let both = BTreeSet::from(["op-0", "op-1"]);
    tally.remove("a", Some("op-1"));
    assert_eq!(tally.holder(slot("a"), &both), Some("op-0"), "of two with as many the smallest name");
    for label in [Some("op-1"), Some("op-0"), None, Some("gone"), Some("gone"), Some("gone"), Some("never")] {
        tally.remove("a", label);
    }
    assert!(tally.0.is_empty(), "{tally:?}");
}

#[test]
fn few_objects_are_spread_as_evenly_as_can_be() {
    let mut world = World::new(5);
    world.settle(&names(0..4));
    let most = names(0..4).iter().map(|shard| world.load(shard)).max().unwrap();
    assert!(most <= 2, "{most}");
    assert_eq!(SlotRing::of([], &BTreeSet::new(), &world.tally(), &world.ring).shard("a"), None);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_comes_and_goes_the_bound_holds_by_the_moves_it_takes(
        steps in proptest::collection::vec(proptest::collection::btree_set(0..8_usize, 1..8), 1..6),
    ) {
        let mut world = World::new(2000);
        for step in steps {
            let shards = names(step);
            let (must, slack) = (world.must_move(&shards), world.largest_slot() * shards.len() as u64);
            let back: Vec<String> = shards.iter().rev().cloned().collect();
            let mut other = world.clone();
            let moved = world.settle(&shards);
            other.settle(&back);
            prop_assert_eq!(&world.labels, &other.labels, "the order of the names doesn't matter");
            prop_assert!(moved <= must + slack, "{moved} of {must}");
            let most = shards.iter().map(|shard| world.load(shard)).max().unwrap_or(0);
            prop_assert!(most <= world.room(shards.len()), "{most}");
        }
    }
}

#[test]
fn what_was_decided_stays_while_labels_lag() {
    let keys: Vec<String> = (0..600).map(|key| format!("/Secret/n/s{key}")).collect();
    let counted = |shard: Option<&str>| {
        let mut tally = Tally::default();
        keys.iter().for_each(|key| tally.add(key, shard));
        tally
    };
    let names = ["a", "b", "c"];
    let first = SlotRing::of(names, &BTreeSet::new(), &counted(None), &SlotRing::default());
    for labels in [None, Some("a"), Some("b"), Some("gone")] {
        assert!(SlotRing::of(names, &BTreeSet::new(), &counted(labels), &first) == first, "{labels:?}");
    }
}

#[test]
fn who_came_in_place_of_another_gets_what_that_had() {
    let mut world = World::new(300);
    let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
    world.settle(&names(&["a", "b", "c"]));
    // Three are replaced, one after the other; nothing but what the leavers had moves, but for the bound.
    let mut moved = 0;
    for (there, came) in [(["b", "c", "d"], "d"), (["c", "d", "e"], "e"), (["d", "e", "f"], "f")] {
        let preferred = [Arc::from(came)].into();
        let there = names(&there);
        world.ring = SlotRing::of(there.iter().map(String::as_str), &preferred, &world.tally(), &world.ring);
        for (key, label) in world.keys.iter().zip(&mut world.labels) {
            let shard = world.ring.shard(key).map(|shard| (**shard).to_owned());
            moved += u64::from(*label != shard);
            *label = shard;
        }
    }
    assert!((300..=330).contains(&moved), "each once, as far as the bound allows: {moved}");
    assert!(["d", "e", "f"].iter().all(|shard| world.load(shard) <= 110));
}

#[test]
fn an_object_is_counted_once_when_it_is_given() {
    let mut tally = Tally::default();
    tally.add("k", None);
    tally.give("k", "a");
    assert_eq!((tally.objects(slot("k")), tally.held(slot("k"), "a")), (1, 1));
    // Another key of that slot, which came since.
    tally.give("k", "a");
    assert_eq!((tally.objects(slot("k")), tally.held(slot("k"), "a")), (2, 2));
}
