//! Leases: who lives, as one process sees it, and how long this process may work itself.
//!
//! Every moment is a `Duration` on a clock of the caller's. A moment that another machine wrote down is an opaque text
//! here, good for nothing but to differ from the one before. Never writes a Lease: [`Life::Lost`] only says that one may
//! be taken, by a write that fails if the Lease has changed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::key::{MemberName, Version};

mod rival;

pub use rival::{Presence, Rival, SILENT_DURATIONS};

/// What an API write may outlast the right to work: its own timeout at the server.
pub const WRITE_GRACE: Duration = Duration::from_secs(2);

/// The longest Lease: a longer one would keep a dead member's work from everybody.
pub const MAX_DURATION: Duration = Duration::from_secs(600);

/// After this many retry periods without a complete list of Leases, what wasn't seen says nothing any more.
pub const BLIND_PERIODS: u32 = 3;

/// For how long a dead member that nothing names any more is remembered to be dead.
pub const REMEMBERED: Duration = Duration::from_secs(600);

/// Renewals without a known outcome that are remembered; the oldest are forgotten, which only costs time.
pub const MAX_UNKNOWN_RENEWALS: usize = 8;

/// Lease settings that don't fit together.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A duration is zero.
    #[error("{flag} must be more than 0")]
    Zero {
        /// The flag.
        flag: &'static str,
    },
    /// A Lease's duration is kept in whole seconds.
    #[error("--lease-duration must be whole seconds: use {fix:?}")]
    Fraction {
        /// The next whole number of seconds.
        fix: Duration,
    },
    /// Longer than [`MAX_DURATION`].
    #[error("--lease-duration must be at most {MAX_DURATION:?}: a crashed member's work waits that long")]
    TooLong,
    /// A renewal must be possible more than once before the deadline.
    #[error("--renew-deadline ({deadline:?}) must be more than --retry-period ({retry:?})")]
    RetryTooLong {
        /// The deadline.
        deadline: Duration,
        /// The retry period.
        retry: Duration,
    },
    /// A member must have stopped, its last write's timeout included, well before others take its Lease.
    #[error(
        "--lease-duration ({duration:?}) must be at least 1.25 x (--renew-deadline + 2s): raise it to {fix:?}, or lower \
         --renew-deadline"
    )]
    DurationTooShort {
        /// The duration.
        duration: Duration,
        /// The shortest that fits.
        fix: Duration,
    },
}

/// The three times of a Lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// For how long others wait for a change before they take the Lease.
    pub duration: Duration,
    /// For how long a member works after it sent its last successful renewal.
    pub renew_deadline: Duration,
    /// How often it renews, and looks at the others.
    pub retry_period: Duration,
}

impl Default for Terms {
    /// client-go's.
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_deadline: Duration::from_secs(10),
            retry_period: Duration::from_secs(2),
        }
    }
}

impl Terms {
    /// Whether they fit together.
    ///
    /// # Errors
    ///
    /// Names the flag and what would mend it.
    pub fn validate(&self) -> Result<(), Error> {
        let flags = [
            ("--lease-duration", self.duration),
            ("--renew-deadline", self.renew_deadline),
            ("--retry-period", self.retry_period),
        ];
        for (flag, value) in flags {
            if value.is_zero() {
                return Err(Error::Zero { flag });
            }
        }
        if self.duration > MAX_DURATION {
            return Err(Error::TooLong);
        }
        if self.duration.subsec_nanos() != 0 {
            return Err(Error::Fraction { fix: Duration::from_secs(self.duration.as_secs() + 1) });
        }
        if self.renew_deadline <= self.retry_period {
            return Err(Error::RetryTooLong { deadline: self.renew_deadline, retry: self.retry_period });
        }
        let shortest = self.renew_deadline.saturating_add(WRITE_GRACE).saturating_mul(5) / 4;
        if self.duration < shortest {
            let whole = shortest.as_secs() + u64::from(shortest.subsec_nanos() != 0);
            return Err(Error::DurationTooShort { duration: self.duration, fix: Duration::from_secs(whole) });
        }
        Ok(())
    }
}

/// A Lease as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who holds it: empty once released.
    pub holder: String,
    /// Its resource version.
    pub version: Version,
    /// What it says of its own duration; zero where it doesn't.
    pub duration: Duration,
    /// When it was renewed, as its holder wrote it: never compared with a clock.
    pub renewed: String,
}

/// What is known of a member's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Life {
    /// Its Lease changes, or there was no time yet to see that it doesn't.
    Live,
    /// Its Lease hasn't changed for its whole duration, or is missing for one: it may be taken, or made. Reverts.
    Lost,
    /// Its Lease was taken or released. Never reverts.
    Dead,
}

/// All members' Leases as this process sees them change.
#[derive(Clone, Debug)]
pub struct Observer {
    terms: Terms,
    listed: Option<Duration>,
    /// The first list since the last gap between lists.
    began: Option<Duration>,
    members: BTreeMap<MemberName, Observed>,
}

#[derive(Clone, Debug)]
struct Observed {
    /// `None`: the Lease is missing.
    lease: Option<Seen>,
    /// From when its silence counts.
    since: Duration,
    dead: bool,
    /// Since when no table names it.
    unnamed: Option<Duration>,
}

impl Observer {
    /// One that has seen nothing.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self { terms, listed: None, began: None, members: BTreeMap::new() }
    }

    /// A complete list of the installation's member Leases was answered at `now`. `expected` are the names that the
    /// table and the sharder's Lease hold.
    ///
    /// After a gap in which this process can't have seen renewals, every Lease gets a whole duration from now.
    pub fn listed(&mut self, now: Duration, leases: &BTreeMap<MemberName, Seen>, expected: &BTreeSet<MemberName>) {
        let was_blind = self.is_blind(now);
        self.listed = Some(now);
        if was_blind {
            self.began = Some(now);
            self.members.values_mut().for_each(|member| member.since = now);
        }
        for (name, lease) in leases {
            self.saw(now, name, Some(lease.clone()));
        }
        let gone: Vec<MemberName> = self.members.keys().filter(|name| !leases.contains_key(*name)).cloned().collect();
        for name in gone.iter().chain(expected.iter().filter(|name| !leases.contains_key(*name))) {
            self.saw(now, name, None);
        }
        for (name, member) in &mut self.members {
            if expected.contains(name) {
                member.unnamed = None;
            } else {
                member.unnamed.get_or_insert(now);
            }
        }
        self.members.retain(|_, member| {
            let forgotten = member.unnamed.is_some_and(|since| now >= since.saturating_add(REMEMBERED));
            !(member.dead && member.lease.is_none() && forgotten)
        });
    }

    /// One Lease was seen, by a watch or in the answer to a write of this process; `None`: it is missing.
    pub fn saw(&mut self, now: Duration, name: &MemberName, lease: Option<Seen>) {
        let dead = lease.as_ref().is_some_and(|lease| lease.holder != name.as_str());
        let Some(member) = self.members.get_mut(name) else {
            self.members.insert(name.clone(), Observed { lease, since: now, dead, unnamed: None });
            return;
        };
        let (changed, stale) = match (&member.lease, &lease) {
            (Some(old), Some(new)) => {
                (old.version != new.version || old.renewed != new.renewed, new.version.is_before(old.version))
            }
            (old, new) => (old.is_some() != new.is_some(), false),
        };
        // A foreign holder is the end of a member even in old news: it can't have become its own again.
        member.dead |= dead;
        if changed && !stale {
            member.lease = lease;
            member.since = now;
        }
    }

    /// What is known of a member at `now`. A name that was never seen or expected is [`Life::Live`]: nothing speaks
    /// against it yet.
    #[must_use]
    pub fn life(&self, now: Duration, name: &MemberName) -> Life {
        match self.members.get(name) {
            Some(member) if member.dead => Life::Dead,
            Some(member) if !self.is_blind(now) && now >= self.silent_at(member) => Life::Lost,
            _ => Life::Live,
        }
    }

    /// When the next member will be lost if nothing is seen of it until then: after `now`.
    #[must_use]
    pub fn next_change(&self, now: Duration) -> Option<Duration> {
        if self.is_blind(now) {
            return None;
        }
        self.members
            .values()
            .filter(|member| !member.dead)
            .map(|member| self.silent_at(member))
            .filter(|at| *at > now)
            .min()
    }

    /// From when on no member is unknown here that may still work: one whose Lease vanished before the first list has
    /// lost its right by then. `None`: that isn't known yet, or not any more.
    #[must_use]
    pub fn knows_all_from(&self, now: Duration) -> Option<Duration> {
        if self.is_blind(now) { None } else { Some(self.began?.saturating_add(self.terms.duration)) }
    }

    /// Every member that was seen or expected, and isn't forgotten.
    pub fn names(&self) -> impl Iterator<Item = &MemberName> {
        self.members.keys()
    }

    /// Whether a member has no Lease: once it is lost, one is made in the sharder's name; one that is there is taken.
    #[must_use]
    pub fn is_missing(&self, name: &MemberName) -> bool {
        self.members.get(name).is_none_or(|member| member.lease.is_none())
    }

    /// The lost members whose Leases are missing.
    pub fn missing(&self, now: Duration) -> impl Iterator<Item = &MemberName> {
        self.members
            .iter()
            .filter(move |(name, member)| member.lease.is_none() && self.life(now, name) == Life::Lost)
            .map(|(name, _)| name)
    }

    /// The Leases of dead members that are there although no table has named them for a duration.
    #[must_use]
    pub fn deletable(&self, now: Duration, named_by_table: &BTreeSet<MemberName>) -> Vec<MemberName> {
        let old = |since: Duration| now >= since.saturating_add(self.terms.duration);
        self.members
            .iter()
            .filter(|(name, member)| member.dead && member.lease.is_some() && !named_by_table.contains(*name))
            .filter(|(_, member)| member.unnamed.is_some_and(old))
            .map(|(name, _)| name.clone())
            .collect()
    }

    /// Whether renewals may have gone unseen.
    fn is_blind(&self, now: Duration) -> bool {
        let limit = self.terms.retry_period.saturating_mul(BLIND_PERIODS);
        self.listed.is_none_or(|listed| now > listed.saturating_add(limit))
    }

    fn silent_at(&self, member: &Observed) -> Duration {
        let own = member.lease.as_ref().map_or(Duration::ZERO, |lease| lease.duration);
        let duration = if own.is_zero() { self.terms.duration } else { own.min(MAX_DURATION) };
        member.since.saturating_add(duration)
    }
}

/// The right to work: what a member's own renewals give it.
///
/// Its moments are on a clock that goes on while the machine sleeps. The shell ends the process at the sight of a
/// foreign holder, or of no Lease; this only counts time.
#[derive(Clone, Debug)]
pub struct Right {
    terms: Terms,
    /// When the last renewal was sent that is known to have succeeded.
    granted: Option<Duration>,
    /// Renewals whose outcome isn't known: when each was sent, and its text.
    unknown: Vec<(Duration, String)>,
}

/// How a renewal ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Renewal {
    /// The API server confirmed it.
    Done,
    /// The API server refused it: it never happened.
    Refused,
    /// No answer, or one that leaves it open.
    Unknown,
}

impl Right {
    /// None yet.
    #[must_use]
    pub fn new(terms: Terms) -> Self {
        Self { terms, granted: None, unknown: Vec::new() }
    }

    /// A renewal, or the Lease's creation, is sent at `at`, with a renew time that is never used twice.
    pub fn sent(&mut self, at: Duration, renewed: &str) {
        if self.unknown.len() >= MAX_UNKNOWN_RENEWALS {
            self.unknown.remove(0);
        }
        self.unknown.push((at, renewed.to_owned()));
    }

    /// The renewal with this renew time was answered.
    pub fn answered(&mut self, renewed: &str, how: Renewal) {
        let Some(at) = self.unknown.iter().position(|(_, text)| text == renewed) else {
            return;
        };
        match how {
            Renewal::Done => self.grant(at),
            Renewal::Refused => {
                self.unknown.remove(at);
            }
            Renewal::Unknown => {}
        }
    }

    /// The Lease was read, and its holder is this member. A renewal whose answer was lost counts from its own sending,
    /// if its renew time is what the Lease holds.
    pub fn read_back(&mut self, renewed: &str) {
        if let Some(at) = self.unknown.iter().position(|(_, text)| text == renewed) {
            self.grant(at);
        }
    }

    fn grant(&mut self, at: usize) {
        // What was sent before has either happened before, or is refused by its resource version.
        if let Some((sent, _)) = self.unknown.drain(..=at).next_back() {
            self.granted = self.granted.max(Some(sent));
        }
    }

    /// When the right to work ends; `None` before the first renewal is known.
    #[must_use]
    pub fn ends(&self) -> Option<Duration> {
        self.granted.map(|sent| sent.saturating_add(self.terms.renew_deadline))
    }

    /// Whether the member may work at `now`.
    #[must_use]
    pub fn holds(&self, now: Duration) -> bool {
        self.ends().is_some_and(|ends| now < ends)
    }

    /// How long an API write that is sent at `now` may take at the server; `None`: it may not be sent.
    #[must_use]
    pub fn write_timeout(&self, now: Duration) -> Option<Duration> {
        let left = self.ends()?.checked_sub(now)?;
        (!left.is_zero()).then(|| left + WRITE_GRACE)
    }
}

#[cfg(test)]
mod tests;
