//! The one place where the engine reads clocks and draws random numbers.

use std::time::{Duration, Instant};

pub(crate) use ringmaster_cluster::boot_time;

/// A monotonic clock that starts at zero.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    start: Instant,
}

impl Clock {
    pub(crate) fn start() -> Self {
        Self { start: Instant::now() }
    }

    /// Time since the start.
    pub(crate) fn now(self) -> Duration {
        self.start.elapsed()
    }
}

/// The wall clock in RFC 3339 to the second, for people.
#[expect(clippy::disallowed_methods, reason = "the one look at the wall clock: nothing is ever due by it")]
pub(crate) fn wall_time() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// 64 fresh random bits.
pub(crate) fn random() -> u64 {
    fastrand::u64(..)
}

/// The wall clock in RFC 3339 to the microsecond, as a Lease holds it, and in seconds since 1970. Written for people,
/// and to make numbers that rise; nothing is ever due by it.
#[expect(clippy::disallowed_methods, reason = "see above")]
pub(crate) fn lease_time() -> (String, u64) {
    let now = jiff::Timestamp::now();
    (format!("{now:.6}"), u64::try_from(now.as_second()).unwrap_or_default())
}

/// The wall clock, since 1970: for certificates, which say until when they count by it.
#[expect(clippy::disallowed_methods, reason = "see above")]
pub(crate) fn since_1970() -> Duration {
    Duration::try_from(jiff::Timestamp::now().as_duration()).unwrap_or_default()
}

/// What rings know of time and chance.
pub(crate) fn rings() -> ringmaster_rings::Clock {
    ringmaster_rings::Clock { random, lease_time: || lease_time().0, wall_time, is_recent }
}

/// Whether a moment in RFC 3339 is less than so long ago; one that can't be read isn't. Only to ask for less.
#[expect(clippy::disallowed_methods, reason = "see above")]
fn is_recent(moment: &str, within: Duration) -> bool {
    let Ok(moment) = moment.parse::<jiff::Timestamp>() else { return false };
    let ago = jiff::Timestamp::now().duration_since(moment);
    Duration::try_from(ago).map_or(true, |ago| ago < within)
}
