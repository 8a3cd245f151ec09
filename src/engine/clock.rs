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
