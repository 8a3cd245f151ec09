//! Shard to endpoint: rendezvous hashing with bounded loads.
//!
//! Never knows why an endpoint isn't among those given, and never remembers an earlier choice: members that see the same
//! endpoints choose the same, whatever each has seen before.

use crate::hash::xxh;
use crate::shards::SHARDS;

/// Endpoints of one hook at most: more could not have a shard each.
pub const MAX_ENDPOINTS: usize = SHARDS;

/// No endpoint has more than this share of the mean, rounded up, as a fraction.
const BOUND: (usize, usize) = (5, 4);

/// Which endpoint has which shard.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice([u8; SHARDS]);

impl Choice {
    /// Chooses among endpoints by their names, which differ; what is beyond [`MAX_ENDPOINTS`] gets nothing. `None` if there
    /// are none.
    ///
    /// Each pair of a shard and an endpoint has a weight, and pairs are taken from the heaviest on, as long as the shard
    /// has none yet and the endpoint has room: at most `ceil(1.25 x mean)` shards. Without the bound that is rendezvous
    /// hashing (Thaler and Ravishankar 1998), where an endpoint more or less moves only the shards that it gains or loses;
    /// the bound is that of consistent hashing with bounded loads (Mirrokni, Thorup, Zadimoghaddam 2018).
    #[must_use]
    pub fn among(names: &[&str]) -> Option<Self> {
        let names = &names[..names.len().min(MAX_ENDPOINTS)];
        if names.is_empty() {
            return None;
        }
        let room = (SHARDS * BOUND.0).div_ceil(BOUND.1 * names.len());
        let mut pairs = Vec::with_capacity(names.len() * SHARDS);
        let mut text = Vec::new();
        for (endpoint, name) in names.iter().enumerate() {
            text.clear();
            text.extend_from_slice(name.as_bytes());
            text.extend_from_slice(b"/0");
            let last = text.len() - 1;
            for shard in 0..=u8::MAX {
                text[last] = shard;
                pairs.push((xxh(&text), shard, endpoint));
            }
        }
        // Equal weights are as good as never; by name then, so that the order of the names doesn't matter.
        pairs.sort_unstable_by(|a, b| b.0.cmp(&a.0).then_with(|| (a.1, names[a.2]).cmp(&(b.1, names[b.2]))));
        let mut choice = [None; SHARDS];
        let mut counts = vec![0; names.len()];
        for (_, shard, endpoint) in pairs {
            let chosen = &mut choice[usize::from(shard)];
            if chosen.is_none() && counts[endpoint] < room {
                // There are no more than 256.
                *chosen = u8::try_from(endpoint).ok();
                counts[endpoint] += 1;
            }
        }
        Some(Self(choice.map(Option::unwrap_or_default)))
    }

    /// The index of a shard's endpoint among the names.
    #[must_use]
    pub fn endpoint(&self, shard: u8) -> usize {
        usize::from(self.0[usize::from(shard)])
    }

    /// How many shards the endpoint of this index has.
    #[must_use]
    pub fn count(&self, endpoint: usize) -> usize {
        self.0.iter().filter(|of| usize::from(**of) == endpoint).count()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::hash::shard_of;

    fn names(count: usize) -> Vec<String> {
        (1..=count).map(|n| format!("10.4.{}.{n}:8080", n * 7 % 5)).collect()
    }

    fn among(names: &[String]) -> Choice {
        Choice::among(&names.iter().map(String::as_str).collect::<Vec<_>>()).unwrap()
    }

    fn moved(from: &[String], to: &[String]) -> usize {
        let (before, after) = (among(from), among(to));
        (0..=u8::MAX).filter(|shard| from[before.endpoint(*shard)] != to[after.endpoint(*shard)]).count()
    }

    #[test]
    fn none_has_more_than_its_bound_of_shards_or_of_parents() {
        for count in [2, 3, 5, 8, 100, 256, 300] {
            let names = names(count);
            let choice = among(&names);
            let most = (0..count).map(|endpoint| choice.count(endpoint)).max().unwrap();
            assert!(most <= (SHARDS * 5).div_ceil(4 * count.min(256)), "{count}: {most}");
        }
        for count in [2, 3, 5, 8] {
            let choice = among(&names(count));
            let mut parents = vec![0; count];
            for number in 0..5000 {
                let shard = shard_of("example.com", "Website", "shop", &format!("site-{number}"));
                parents[choice.endpoint(shard)] += 1;
            }
            let most = *parents.iter().max().unwrap();
            let shards: Vec<usize> = (0..count).map(|endpoint| choice.count(endpoint)).collect();
            println!("{count} endpoints: shards {shards:?}, parents of 5,000 {parents:?}");
            assert!(most * count * 10 <= 5000 * 14, "{count}: {parents:?}");
        }
    }

    #[test]
    fn one_more_or_less_moves_its_share() {
        let all = names(9);
        // What moves for each step, of the share that the bound allows one endpoint and of what the others must give
        // back under a smaller bound.
        for count in 1..=8 {
            let ideal = SHARDS / (count + 1);
            let up = moved(&all[..count], &all[..=count]);
            assert!(up * 10 <= ideal * 14, "{count} to {}: {up} of {ideal}", count + 1);
            assert_eq!(up, moved(&all[..=count], &all[..count]));
        }
        let (up, ideal) = (moved(&all[..2], &all[..8]), SHARDS * 6 / 8);
        assert!(up * 10 <= ideal * 13, "{up} of {ideal}");
    }

    #[test]
    fn there_is_no_choice_among_none() {
        assert_eq!(Choice::among(&[]), None);
        let one = among(&names(1));
        assert_eq!((one.count(0), one.endpoint(255)), (SHARDS, 0));
    }

    #[test]
    fn the_choice_is_a_published_one() {
        // Other versions of Ringmaster in the same installation choose the same.
        let choice = among(&names(3));
        let of: Vec<usize> = (0..12).map(|shard| choice.endpoint(shard)).collect();
        assert_eq!(of, [2, 2, 2, 1, 1, 2, 2, 0, 2, 0, 0, 2]);
    }

    proptest! {
        #[test]
        fn the_order_of_the_names_does_not_matter(mut numbers in proptest::collection::hash_set(0..500_u16, 1..20)) {
            let numbers: Vec<u16> = numbers.drain().collect();
            let there: Vec<String> = numbers.iter().map(|n| format!("10.0.0.{n}:80")).collect();
            let back: Vec<String> = there.iter().rev().cloned().collect();
            let (a, b) = (among(&there), among(&back));
            for shard in 0..=u8::MAX {
                prop_assert_eq!(&there[a.endpoint(shard)], &back[b.endpoint(shard)]);
            }
        }
    }
}
