//! Figures of a trial of members, as they are printed.
//!
//! Never judged here: trials compare them with budgets where there are any.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fmt;
use std::time::{Duration, Instant};

use crate::members::check::{Call, Kind};
use crate::members::load::Change;
use crate::members::table::Gap;

/// A distribution of times.
#[derive(Clone, Debug, Default)]
pub(crate) struct Times(Vec<Duration>);

impl Times {
    /// Of these.
    pub(crate) fn of(times: impl IntoIterator<Item = Duration>) -> Self {
        let mut times: Vec<Duration> = times.into_iter().collect();
        times.sort();
        Self(times)
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The one below which this part of them is, in thousandths; zero if there are none.
    pub(crate) fn at(&self, thousandths: usize) -> Duration {
        let place = (self.0.len() * thousandths).div_ceil(1000).saturating_sub(1);
        self.0.get(place).copied().unwrap_or_default()
    }

    /// The longest; zero if there are none.
    pub(crate) fn most(&self) -> Duration {
        self.at(1000)
    }
}

impl fmt::Display for Times {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return write!(out, "no time (there were none)");
        }
        let [half, p99, most] = [500, 990, 1000].map(|part| seconds(self.at(part)));
        write!(out, "p50 {half}, p99 {p99}, most {most} of {}", self.len())
    }
}

/// Seconds with three digits.
pub(crate) fn seconds(time: Duration) -> String {
    format!("{:.3} s", time.as_secs_f64())
}

/// From each change's answer to the first call that carries it or a later one of that parent. What nobody served has
/// none: parents that were deleted soon, or what the checker finds.
pub(crate) fn served_after(calls: &[Call], changes: &[Change]) -> Times {
    let mut by_parent: HashMap<&str, Vec<(u64, Instant)>> = HashMap::new();
    for call in calls.iter().filter(|call| call.kind == Kind::Sync) {
        by_parent.entry(&call.parent).or_default().push((call.number, call.started));
    }
    let waits = changes.iter().filter_map(|change| {
        let calls = by_parent.get(change.parent.as_str())?;
        let (_, started) = calls.iter().find(|(number, _)| *number >= change.number)?;
        Some(started.saturating_duration_since(change.at))
    });
    Times::of(waits)
}

/// From the moment at which a shard's owner was told to stop, to the first call for it by the next: of shards that have
/// parents which were called for before and after. `calls` are in the order in which they began.
pub(crate) fn silent(calls: &[Call], gaps: &[Gap]) -> Times {
    let mut by_shard: HashMap<usize, Vec<&Call>> = HashMap::new();
    for call in calls {
        if let Some(shard) = call.shard {
            by_shard.entry(shard).or_default().push(call);
        }
    }
    let waits = gaps.iter().filter_map(|gap| {
        let calls = by_shard.get(&gap.shard)?;
        let known: HashSet<&str> =
            calls.iter().filter(|call| call.started < gap.told).map(|call| call.uid.as_str()).collect();
        // One that came later says nothing of how long there was silence.
        let is_first = |call: &&&Call| call.epoch >= gap.epoch && known.contains(call.uid.as_str());
        let first = calls.iter().find(is_first)?;
        Some(first.started.saturating_duration_since(gap.told))
    });
    Times::of(waits)
}

/// From `since` to the first call of each of these parents by somebody other than these members.
pub(crate) fn taken_over(calls: &[Call], since: Instant, parents: &BTreeSet<String>, from: &[String]) -> Times {
    let mut first: BTreeMap<&str, Duration> = BTreeMap::new();
    let others = calls.iter().filter(|call| call.started >= since && !from.contains(&call.member));
    for call in others.filter(|call| parents.contains(&call.parent)) {
        first.entry(&call.parent).or_insert_with(|| call.started.duration_since(since));
    }
    Times::of(first.into_values())
}
