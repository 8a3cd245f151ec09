//! Timeouts as users write them: Go's durations.
//!
//! Never reads a long text, and never gives a negative time.

use std::time::Duration;

use ringmaster_core::duration;

/// The longest text; Go has no limit.
const TEXT_MAX: usize = 64;

/// The duration, zero if it is negative; nothing if the text isn't one, or is longer than Go can hold (292 years).
pub(super) fn parse(text: &str) -> Option<Duration> {
    if text.len() > TEXT_MAX {
        return None;
    }
    duration::parse(text).ok().map(|nanos| Duration::from_nanos(u64::try_from(nanos).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_mean_what_they_mean_in_go() {
        for (text, nanos) in [("0", 0), ("-5s", 0), ("2h45m30.5s", 9_930_500_000_000)] {
            assert_eq!(parse(text), Some(Duration::from_nanos(nanos)), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        let long = "1".repeat(TEXT_MAX) + "s";
        for text in ["", "-", "10", "s", ".s", "1 s", "1d", "10S", "1s1", "--1s", "9999999999h", "\u{b5}", &long] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
