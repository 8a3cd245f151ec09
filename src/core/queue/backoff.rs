//! How long a failed key waits before it is tried again.
//!
//! Never draws a random number: the caller brings one.

use std::time::Duration;

/// The longest delay after the first failure; each further failure doubles it.
pub const BACKOFF_BASE: Duration = Duration::from_millis(100);

/// No delay is longer than this.
pub const BACKOFF_CAP: Duration = Duration::from_secs(60);

/// The delay after `failures` failures in a row, spread by `random` evenly over `[d/2, d]`, where
/// `d` is [`BACKOFF_BASE`] doubled for every failure but the first, at most [`BACKOFF_CAP`].
///
/// The spread keeps keys that failed together from coming back together. No failure counts as one.
#[must_use]
pub fn backoff(failures: u32, random: u64) -> Duration {
    let doublings = failures.saturating_sub(1);
    let factor = 1u32.checked_shl(doublings).unwrap_or(u32::MAX);
    let longest = BACKOFF_BASE.saturating_mul(factor).min(BACKOFF_CAP);
    let half = longest / 2;
    // The high word of `random * (half + 1)` lies in `0..=half`, evenly but for a bias of half / 2^64.
    let spread_ns = (u128::from(random) * (half.as_nanos() + 1)) >> 64;
    // `half` is at most 30 s, so its nanoseconds fit.
    half + Duration::from_nanos(u64::try_from(spread_ns).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubles_up_to_the_cap() {
        let table = [(0, 100), (1, 100), (2, 200), (3, 400), (9, 25_600), (10, 51_200), (11, 60_000), (12, 60_000)];
        for (failures, longest_ms) in table {
            let longest = Duration::from_millis(longest_ms);
            assert_eq!(backoff(failures, u64::MAX), longest, "{failures} failures");
            assert_eq!(backoff(failures, 0), longest / 2, "{failures} failures");
            assert_eq!(backoff(failures, u64::MAX / 2), longest * 3 / 4, "{failures} failures");
        }
        for failures in [31, 32, 33, 64, u32::MAX] {
            assert_eq!(backoff(failures, u64::MAX), BACKOFF_CAP, "{failures} failures");
        }
    }
}
