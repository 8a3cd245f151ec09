//! Calm: what keeps churn from moving rows to and fro.
//!
//! Remembers joins, deaths and forced changes for a while. Nothing here is needed for safety: a new sharder starts with
//! none of it, and is calmer for it at first.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use super::plan::View;
use super::{RowId, Table};
use crate::key::MemberName;
use crate::lease::Life;

/// What is remembered of one base name at most; the oldest is forgotten.
pub const MAX_RESTARTS: usize = 16;

/// The pause after a restart is doubled at most so often.
pub const MAX_DOUBLINGS: u32 = 5;

/// How calm a sharder is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Settings {
    /// For how long membership must have been still before rows move for balance alone.
    pub quiet: Duration,
    /// After so long out of balance they move even though it wasn't still.
    pub quiet_at_most: Duration,
    /// For how long a restart, and a forced change of a row, are recent.
    pub window: Duration,
    /// For how long a member that restarted gets nothing: doubled by each recent restart.
    pub pause: Duration,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            quiet: Duration::from_secs(10),
            quiet_at_most: Duration::from_secs(60),
            window: Duration::from_secs(600),
            pause: Duration::from_secs(10),
        }
    }
}

/// The sharder's memory between plans.
#[derive(Clone, Debug)]
pub(super) struct Calm {
    settings: Settings,
    members: BTreeMap<MemberName, Known>,
    bases: BTreeMap<Arc<str>, Base>,
    /// Who can own, and the last time that changed.
    able: BTreeSet<MemberName>,
    changed: Duration,
    /// The first of those changes since all was balanced.
    first: Option<Duration>,
    /// Rows that were taken by force: how often, and since when that count is known.
    forced: BTreeMap<RowId, (u8, Duration)>,
}

#[derive(Clone, Debug)]
struct Known {
    base: Arc<str>,
    leaving: bool,
    dead: bool,
}

#[derive(Clone, Debug, Default)]
struct Base {
    /// Deaths at work that no restart has followed yet.
    deaths: VecDeque<Duration>,
    /// When a member came after such a death, and its name.
    restarts: VecDeque<(Duration, MemberName)>,
}

impl Calm {
    pub(super) fn new(settings: Settings) -> Self {
        Self {
            settings,
            members: BTreeMap::new(),
            bases: BTreeMap::new(),
            able: BTreeSet::new(),
            changed: Duration::ZERO,
            first: None,
            forced: BTreeMap::new(),
        }
    }

    /// Takes in what is seen. The same view twice changes nothing.
    pub(super) fn observe(&mut self, view: &View<'_>) {
        let (now, window) = (view.now, self.settings.window);
        self.bases.retain(|_, base| {
            base.deaths.retain(|at| now < at.saturating_add(window));
            base.restarts.retain(|(at, _)| now < at.saturating_add(window));
            !base.deaths.is_empty() || !base.restarts.is_empty()
        });
        self.note_deaths(view);
        self.note_joins(view);
        self.members.retain(|name, known| !known.dead || view.members.contains_key(name));
        let able = |name: &MemberName| {
            let member = view.members.get(name)?;
            (member.life == Life::Live && !member.leaving).then(|| name.clone())
        };
        let able: BTreeSet<MemberName> = view.members.keys().filter_map(able).collect();
        if able != self.able {
            self.able = able;
            self.changed = now;
            self.first.get_or_insert(now);
        }
        if let Some((_, table)) = view.table {
            self.note_forced(now, table);
        }
    }

    /// A member that is dead, or that is gone altogether, died once; one that was leaving didn't die at work.
    fn note_deaths(&mut self, view: &View<'_>) {
        for (name, member) in view.members {
            let fresh = Known { base: Arc::clone(&member.base), leaving: false, dead: false };
            // A newcomer's join is noted later, and makes it known.
            if member.life == Life::Dead || self.members.contains_key(name) {
                let known = self.members.entry(name.clone()).or_insert(fresh);
                known.leaving |= member.leaving;
            }
        }
        for (name, known) in &mut self.members {
            let dies = !known.dead && view.members.get(name).is_none_or(|member| member.life == Life::Dead);
            if dies {
                known.dead = true;
                if !known.leaving {
                    let deaths = &mut self.bases.entry(Arc::clone(&known.base)).or_default().deaths;
                    deaths.push_back(view.now);
                    deaths.drain(..deaths.len().saturating_sub(MAX_RESTARTS));
                }
            }
        }
    }

    fn note_joins(&mut self, view: &View<'_>) {
        for (name, member) in view.members {
            if member.life == Life::Dead || self.members.contains_key(name) {
                continue;
            }
            let known = Known { base: Arc::clone(&member.base), leaving: member.leaving, dead: false };
            self.members.insert(name.clone(), known);
            if let Some(base) = self.bases.get_mut(&member.base)
                && base.deaths.pop_front().is_some()
            {
                base.restarts.push_back((view.now, name.clone()));
                let excess = base.restarts.len().saturating_sub(MAX_RESTARTS);
                base.restarts.drain(..excess);
            }
        }
    }

    fn note_forced(&mut self, now: Duration, table: &Table) {
        let shards = (0..=u8::MAX).map(RowId::Shard).zip(&table.shards);
        let wholes = table.controllers.values().map(|row| (RowId::Controller(row.uid.clone()), &row.row));
        let mut forced = BTreeMap::new();
        for (id, row) in shards.chain(wholes).filter(|(_, row)| row.forced > 0) {
            let since = self.forced.get(&id).filter(|(count, _)| *count == row.forced).map_or(now, |(_, since)| *since);
            forced.insert(id, (row.forced, since));
        }
        self.forced = forced;
    }

    /// The rows whose count of forced changes is recent.
    pub(super) fn recent(&self, now: Duration) -> BTreeSet<RowId> {
        let recent = |since: Duration| now < since.saturating_add(self.settings.window);
        self.forced.iter().filter(|(_, (_, since))| recent(*since)).map(|(id, _)| id.clone()).collect()
    }

    /// Until when a member gets nothing while somebody else can.
    pub(super) fn damped_until(&self, now: Duration, name: &MemberName) -> Option<Duration> {
        let base = self.bases.get(&self.members.get(name)?.base)?;
        let (at, _) = base.restarts.iter().find(|(_, member)| member == name)?;
        let count = u32::try_from(base.restarts.len()).unwrap_or(u32::MAX).min(MAX_DOUBLINGS);
        let until = at.saturating_add(self.settings.pause.saturating_mul(1 << count));
        (now < until).then_some(until)
    }

    /// From when on rows may move for balance alone.
    pub(super) fn may_level_at(&self) -> Duration {
        let at = self.changed.saturating_add(self.settings.quiet);
        self.first.map_or(at, |first| at.min(first.saturating_add(self.settings.quiet_at_most)))
    }

    /// Nothing would move for balance.
    pub(super) fn balanced(&mut self) {
        self.first = None;
    }
}
