//! Who owns which shard: what the ShardTable says, and for how long each shard that moved had nobody.
//!
//! Never counts a moment twice: a shard has nobody from when its owner is asked to release it, or has died, until the
//! table names another owner.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt as _;
use kube::core::WatchEvent;
use parking_lot::Mutex;
use ringmaster_api::table::{Row, ShardTable, ShardTableStatus};
use tokio::time::Instant;

use crate::objects::Objects;

/// Shards of an installation.
pub(crate) const SHARDS: usize = 256;
/// Hand-overs that are remembered.
const MAX_MOVES: usize = 10_000;
/// How soon a watch that ended is begun again.
const AGAIN: Duration = Duration::from_millis(100);
/// Path of the tables.
const TABLES: &str = "/apis/ringmaster.dev/v1alpha1/shardtables";

/// A shard that got another owner.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    /// Counted from 1.
    pub(crate) number: u64,
    /// Who had it; by the name that it was started with.
    pub(crate) from: String,
    /// Who has it.
    pub(crate) to: String,
    /// How long it had nobody.
    pub(crate) gap: Duration,
    /// Whether it was taken from one that was lost.
    pub(crate) taken: bool,
}

/// Who has a shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell<'a> {
    /// One that works on it.
    Owned(&'a str),
    /// One that shall hand it over.
    Moving(&'a str),
    /// Nobody, or one that is no more.
    Nobody,
}

/// The table as it was seen last, and what happened to it.
#[derive(Debug, Default)]
pub(crate) struct Ownership {
    members: BTreeSet<String>,
    rows: Vec<Row>,
    /// Since when a shard has nobody.
    idle: BTreeMap<usize, Instant>,
    /// Those that have ended, and whether they were lost.
    ended: BTreeMap<String, bool>,
    moves: std::collections::VecDeque<Move>,
    number: u64,
}

/// A member's name without the random part at its end: what it was started with.
pub(crate) fn base(name: &str) -> &str {
    name.rsplit_once('-').map_or(name, |(base, _)| base)
}

impl Ownership {
    /// A version of the table.
    pub(crate) fn see(&mut self, now: Instant, status: &ShardTableStatus) {
        let rows: Vec<Row> = status.shards.iter().map(|row| row.row.clone()).collect();
        for (shard, row) in rows.iter().enumerate() {
            let before = self.rows.get(shard).and_then(|row| row.owner.as_deref());
            if before == row.owner.as_deref() {
                let has_nobody =
                    row.releasing || row.owner.as_deref().is_some_and(|owner| self.ended.contains_key(base(owner)));
                if has_nobody {
                    self.idle.entry(shard).or_insert(now);
                } else {
                    self.idle.remove(&shard);
                }
                continue;
            }
            let since = self.idle.remove(&shard).unwrap_or(now);
            if row.owner.as_deref().is_some_and(|owner| self.ended.contains_key(base(owner))) {
                // It was given to one that has died meanwhile.
                self.idle.insert(shard, now);
            }
            if let (Some(from), Some(to)) = (before, &row.owner) {
                self.number += 1;
                self.moves.push_back(Move {
                    number: self.number,
                    from: base(from).to_owned(),
                    to: base(to).to_owned(),
                    gap: now.saturating_duration_since(since),
                    taken: self.is_lost(base(from)),
                });
            }
        }
        while self.moves.len() > MAX_MOVES {
            self.moves.pop_front();
        }
        self.members = status.members.iter().map(|name| base(name).to_owned()).collect();
        self.rows = rows;
    }

    /// A member's process has ended, in order or lost: what it still has has nobody.
    pub(crate) fn ended(&mut self, now: Instant, member: &str, is_lost: bool) {
        self.ended.insert(member.to_owned(), is_lost);
        for (shard, row) in self.rows.iter().enumerate() {
            if row.owner.as_deref().is_some_and(|owner| base(owner) == member) {
                self.idle.entry(shard).or_insert(now);
            }
        }
    }

    /// Whether a member has ended without a word.
    pub(crate) fn is_lost(&self, member: &str) -> bool {
        self.ended.get(member) == Some(&true)
    }

    /// Whether the table counts on a member.
    pub(crate) fn counts_on(&self, member: &str) -> bool {
        self.members.contains(member)
    }

    /// Who has each shard; empty without a table.
    pub(crate) fn cells<'a>(&'a self) -> Vec<Cell<'a>> {
        let cell = |row: &'a Row| {
            let Row { owner, next, releasing, .. } = row;
            match owner.as_deref().map(base) {
                Some(owner) if self.ended.contains_key(owner) => Cell::Nobody,
                Some(owner) if next.is_some() || *releasing => Cell::Moving(owner),
                Some(owner) => Cell::Owned(owner),
                None => Cell::Nobody,
            }
        };
        self.rows.iter().map(cell).collect()
    }

    /// How many shards each member has that runs; and how many of them it shall hand over.
    pub(crate) fn counts(&self) -> BTreeMap<&str, (usize, usize)> {
        let mut counts: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
        for cell in self.cells() {
            let (Cell::Owned(owner) | Cell::Moving(owner)) = cell else { continue };
            let count = counts.entry(owner).or_default();
            count.0 += 1;
            count.1 += usize::from(matches!(cell, Cell::Moving(_)));
        }
        counts
    }

    /// How many shards a member has, alive or not.
    pub(crate) fn held_by(&self, member: &str) -> usize {
        self.rows.iter().filter(|row| row.owner.as_deref().is_some_and(|owner| base(owner) == member)).count()
    }

    /// Whether these members have all shards, as evenly as it goes, and none moves.
    pub(crate) fn is_even(&self, members: &BTreeSet<String>) -> bool {
        let counts = self.counts();
        let (least, most) = (SHARDS / members.len().max(1), SHARDS.div_ceil(members.len().max(1)));
        let owners: BTreeSet<&str> = counts.keys().copied().collect();
        owners.len() == members.len()
            && members.iter().all(|member| owners.contains(member.as_str()))
            && counts.values().all(|(owned, moving)| (least..=most).contains(owned) && *moving == 0)
            && counts.values().map(|(owned, _)| owned).sum::<usize>() == SHARDS
    }

    /// How many there were so far.
    pub(crate) fn mark(&self) -> u64 {
        self.number
    }

    /// Those after a mark.
    pub(crate) fn moves_since(&self, mark: u64) -> impl Iterator<Item = &Move> {
        self.moves.iter().filter(move |one| one.number > mark)
    }
}

/// Follows the table; never ends.
pub(crate) async fn follow(objects: Objects, ownership: Arc<Mutex<Ownership>>) {
    loop {
        // The kind itself may be deleted by somebody who plays.
        let _ = watch(&objects, &ownership).await;
        tokio::time::sleep(AGAIN).await;
    }
}

async fn watch(objects: &Objects, ownership: &Mutex<Ownership>) -> Result<(), kube::Error> {
    let mut events = std::pin::pin!(objects.watch::<ShardTable>(TABLES).await?);
    while let Some(event) = events.try_next().await? {
        if let WatchEvent::Added(table) | WatchEvent::Modified(table) = event
            && let Some(status) = &table.status
            // Members ignore a table that somebody else wrote.
            && status.table().is_ok()
        {
            ownership.lock().see(Instant::now(), status);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use ringmaster_api::table::ShardRow;

    use super::*;

    /// A table in which the first shards are one member's, and the rest another's.
    fn table(first: &str, count: usize, second: &str, change: impl Fn(usize, &mut Row)) -> ShardTableStatus {
        let row = |shard: usize| {
            let owner = if shard < count { first } else { second };
            let mut row = Row { owner: Some(owner.to_owned()), epoch: 1, ..Row::default() };
            change(shard, &mut row);
            ShardRow { shard: i32::try_from(shard).unwrap(), row }
        };
        ShardTableStatus {
            members: vec![first.to_owned(), second.to_owned()],
            shards: (0..SHARDS).map(row).collect(),
            ..ShardTableStatus::default()
        }
    }

    fn names(members: &[&str]) -> BTreeSet<String> {
        members.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn a_hand_over_has_nobody_from_the_release_on() {
        let (mut seen, start) = (Ownership::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        seen.see(at(0), &table("m-1-aaaaa", 256, "m-2-bbbbb", |_, _| {}));
        assert!(seen.is_even(&names(&["m-1"])) && !seen.is_even(&names(&["m-1", "m-2"])));
        let next = |shard: usize, row: &mut Row| row.next = (shard >= 128).then(|| "m-2-bbbbb".to_owned());
        seen.see(at(100), &table("m-1-aaaaa", 256, "m-2-bbbbb", next));
        assert_eq!(seen.counts(), BTreeMap::from([("m-1", (256, 128))]));
        let releasing = |shard: usize, row: &mut Row| {
            next(shard, row);
            row.releasing = shard >= 128;
        };
        seen.see(at(200), &table("m-1-aaaaa", 256, "m-2-bbbbb", releasing));
        seen.see(at(230), &table("m-1-aaaaa", 128, "m-2-bbbbb", |_, _| {}));
        assert!(seen.is_even(&names(&["m-1", "m-2"])));
        assert_eq!(seen.moves_since(0).count(), 128);
        assert!(seen.moves_since(0).all(|one| one.gap == Duration::from_millis(30) && !one.taken && one.to == "m-2"));
        assert_eq!((seen.mark(), seen.moves_since(seen.mark()).count()), (128, 0));
    }

    #[test]
    fn shards_of_one_that_died_have_nobody_until_they_are_given_away() {
        let (mut seen, start) = (Ownership::default(), Instant::now());
        let at = |ms| start + Duration::from_millis(ms);
        let both = table("m-1-aaaaa", 100, "m-2-bbbbb", |_, _| {});
        seen.see(at(0), &both);
        seen.ended(at(50), "m-2", true);
        seen.see(at(60), &both);
        assert_eq!(seen.counts(), BTreeMap::from([("m-1", (100, 0))]));
        assert_eq!((seen.held_by("m-2"), seen.cells()[200]), (156, Cell::Nobody));
        seen.see(at(5050), &table("m-1-aaaaa", 256, "m-2-bbbbb", |_, _| {}));
        assert!(seen.is_even(&names(&["m-1"])));
        assert!(seen.moves_since(0).all(|one| one.gap == Duration::from_secs(5) && one.taken));
    }
}
