//! Whether the engine is alive and of use: each part that work depends on says so again and again.
//!
//! Never stops anything: the keeper renews no Lease for a member whose pulse is gone, and the rest follows.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::boot_time;

/// Every part says that it is alive at least this often.
pub(crate) const BEAT: Duration = Duration::from_millis(250);

/// What work depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    /// The queue's shell.
    Dispatch,
    /// What follows the table.
    Rows,
    /// What observes Leases and the table, and writes it.
    Sharder,
}

impl Part {
    const ALL: [Self; 3] = [Self::Dispatch, Self::Rows, Self::Sharder];

    fn words(self) -> &'static str {
        match self {
            Self::Dispatch => "the queue",
            Self::Rows => "the hand-over of shards",
            Self::Sharder => "the observation of other members",
        }
    }
}

/// When each part last said that it is alive, in milliseconds of the boot-time clock; 0 before the first time.
#[derive(Default)]
pub(crate) struct Pulse([AtomicU64; 3]);

impl Pulse {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    /// The part is alive.
    pub(crate) fn beat(&self, part: Part) {
        self.beat_at(part, boot_time());
    }

    fn beat_at(&self, part: Part, now: Duration) {
        self.0[part as usize].store(millis(now), Ordering::Relaxed);
    }

    /// The part that has been silent for longer than `limit`, in words. What never spoke isn't expected to yet.
    pub(crate) fn silent(&self, limit: Duration) -> Option<&'static str> {
        self.silent_at(boot_time(), limit)
    }

    fn silent_at(&self, now: Duration, limit: Duration) -> Option<&'static str> {
        let now = millis(now);
        let silent = |part: &Part| {
            let last = self.0[*part as usize].load(Ordering::Relaxed);
            last != 0 && now.saturating_sub(last) > millis(limit)
        };
        Part::ALL.into_iter().find(silent).map(Part::words)
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_that_spoke_once_must_go_on() {
        let (pulse, start, second) = (Pulse::new(), Duration::from_secs(5), Duration::from_secs(1));
        assert_eq!(pulse.silent_at(start, Duration::ZERO), None);
        pulse.beat_at(Part::Dispatch, start);
        pulse.beat_at(Part::Rows, start);
        pulse.beat_at(Part::Dispatch, start + second * 3);
        assert_eq!(pulse.silent_at(start + second * 3, second * 2), Some("the hand-over of shards"));
        assert_eq!(pulse.silent_at(start + second * 3, second * 3), None);
        pulse.beat(Part::Rows);
        assert_ne!(pulse.silent(second * 60), Some("the hand-over of shards"));
    }
}
