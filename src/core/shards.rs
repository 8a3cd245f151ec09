//! Sets of shards: what a member owns, a stream covers, a batch moves.
//!
//! Never says who owns a shard: the table does.

use std::fmt;

/// Into how many shards all parents of an installation are divided. Fixed for ever: labels hold the number.
pub const SHARDS: usize = 256;

/// The label of an object that is a parent of a sharded controller: its shard's number.
pub const SELF_LABEL: &str = "shard.ringmaster.dev/self";

/// The label of a child of such a parent: the number of its controlling owner's shard.
pub const OWNER_LABEL: &str = "shard.ringmaster.dev/owner";

/// Label keys that begin so are ours: a hook's reply can't set them.
pub const LABEL_PREFIX: &str = "shard.ringmaster.dev/";

/// A set of shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Shards([u64; 4]);

impl Shards {
    /// None.
    pub const NONE: Self = Self([0; 4]);
    /// All of them.
    pub const ALL: Self = Self([u64::MAX; 4]);

    /// Whether `shard` is in it.
    #[must_use]
    pub fn contains(&self, shard: u8) -> bool {
        self.0[usize::from(shard / 64)] >> (shard % 64) & 1 == 1
    }

    /// Adds a shard; tells whether it wasn't in it.
    pub fn insert(&mut self, shard: u8) -> bool {
        let new = !self.contains(shard);
        self.0[usize::from(shard / 64)] |= 1 << (shard % 64);
        new
    }

    /// Takes a shard out; tells whether it was in it.
    pub fn remove(&mut self, shard: u8) -> bool {
        let known = self.contains(shard);
        self.0[usize::from(shard / 64)] &= !(1 << (shard % 64));
        known
    }

    /// What is in either.
    #[must_use]
    pub fn union(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] | other.0[at]))
    }

    /// What is in both.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & other.0[at]))
    }

    /// What is in this one alone.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        Self(std::array::from_fn(|at| self.0[at] & !other.0[at]))
    }

    /// Whether all of it is in `other`.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        self.difference(other).is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.iter().map(|word| word.count_ones() as usize).sum()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0 == [0; 4]
    }

    /// Each, in order.
    pub fn iter(&self) -> impl Iterator<Item = u8> + use<> {
        let set = *self;
        (0..=u8::MAX).filter(move |shard| set.contains(*shard))
    }

    /// The label selector, in its query form, of objects whose label `key` holds one of these numbers.
    #[must_use]
    pub fn selector(&self, key: &str) -> String {
        format!("{key} in ({})", self.numbers())
    }

    /// The label selector of objects whose label `key` is missing or isn't a shard's number.
    #[must_use]
    pub fn none_selector(key: &str) -> String {
        format!("{key} notin ({})", Self::ALL.numbers())
    }

    fn numbers(&self) -> String {
        let numbers: Vec<String> = self.iter().map(|shard| shard.to_string()).collect();
        numbers.join(",")
    }
}

impl FromIterator<u8> for Shards {
    fn from_iter<T: IntoIterator<Item = u8>>(shards: T) -> Self {
        let mut set = Self::NONE;
        for shard in shards {
            set.insert(shard);
        }
        set
    }
}

impl fmt::Display for Shards {
    /// Ranges: `0-3, 7`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let all: Vec<u8> = self.iter().collect();
        let ranges = all.chunk_by(|a, b| a.checked_add(1) == Some(*b));
        for (index, range) in ranges.enumerate() {
            let (first, last) = (range[0], range[range.len() - 1]);
            f.write_str(if index == 0 { "" } else { ", " })?;
            if first == last { write!(f, "{first}")? } else { write!(f, "{first}-{last}")? }
        }
        Ok(())
    }
}

/// The shard that a label's value names; `None` for anything but a number from 0 to 255 in its shortest form.
#[must_use]
pub fn parse_label(value: &str) -> Option<u8> {
    let shard: u8 = value.parse().ok()?;
    (value.len() <= 3 && shard.to_string() == value).then_some(shard)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_are_sets() {
        let set: Shards = [3u8, 255, 64, 3, 63].into_iter().collect();
        assert_eq!((set.len(), set.iter().collect::<Vec<_>>()), (4, vec![3, 63, 64, 255]));
        assert!(set.is_within(&Shards::ALL) && !Shards::ALL.is_within(&set));
        let mut other = set;
        assert!(other.remove(64) && !other.remove(64) && other.insert(9) && !other.insert(9));
        assert_eq!(set.difference(&other).iter().collect::<Vec<_>>(), [64]);
        assert_eq!(set.union(&other).len(), 5);
        assert_eq!(set.intersection(&other).len(), 3);
        assert_eq!(Shards::ALL.len(), SHARDS);
        assert!(Shards::NONE.is_empty());
    }

    #[test]
    fn texts_are_selectors_and_ranges() {
        let set: Shards = [7u8, 0, 1, 2, 255, 254].into_iter().collect();
        assert_eq!(set.selector("k"), "k in (0,1,2,7,254,255)");
        assert_eq!(set.to_string(), "0-2, 7, 254-255");
        assert_eq!((Shards::ALL.to_string(), Shards::NONE.to_string()), ("0-255".to_owned(), String::new()));
        assert!(Shards::none_selector("k").starts_with("k notin (0,1,2,"));
    }

    #[test]
    fn labels_are_numbers_in_one_form() {
        assert_eq!([parse_label("0"), parse_label("255")], [Some(0), Some(255)]);
        for junk in ["", "256", "-1", "+1", "01", "1 ", "x", "0x1"] {
            assert_eq!(parse_label(junk), None, "{junk}");
        }
    }
}
