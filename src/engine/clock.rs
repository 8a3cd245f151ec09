//! The one place where this process reads clocks and draws random numbers.

use std::time::{Duration, Instant};

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
