//! Points in time as objects write them, and the short ages that tables print. The present is an argument: no clock.

use std::fmt::Write as _;

use crate::kinds::times::{days_from_civil, days_in};

const NANOS_PER_SECOND: i128 = 1_000_000_000;
/// Seconds from Go's zero time, 0001-01-01T00:00:00Z, to the Unix epoch.
const ZERO_UNIX_SECONDS: i64 = -62_135_596_800;

/// A point in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Instant {
    unix_nanos: i128,
}

impl Instant {
    /// Go's zero time, which stands for "not set".
    pub(super) const ZERO: Self = Self { unix_nanos: ZERO_UNIX_SECONDS as i128 * NANOS_PER_SECOND };

    /// The time in RFC 3339 form; `None` if it is not in that form.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let (date, rest) = text.split_at_checked(10)?;
        let mut numbers = date.splitn(3, '-');
        let year = digits(numbers.next()?, 4)?;
        let (month, day) = (digits(numbers.next()?, 2)?, digits(numbers.next()?, 2)?);
        let (clock, rest) = rest.strip_prefix('T')?.split_at_checked(8)?;
        let mut numbers = clock.splitn(3, ':');
        let (hour, minute) = (digits(numbers.next()?, 2)?, digits(numbers.next()?, 2)?);
        let second = digits(numbers.next()?, 2)?;
        if !(1..=12).contains(&month) || day < 1 || day > days_in(year, month) {
            return None;
        }
        if hour > 23 || minute > 59 || second > 59 {
            return None;
        }
        let (nanos, zone) = fraction(rest)?;
        let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second - offset(zone)?;
        Some(Self { unix_nanos: i128::from(seconds) * NANOS_PER_SECOND + i128::from(nanos) })
    }

    /// What an object's time field holds: the zero time if it is absent, null, empty or not a time.
    pub(super) fn of_field(value: &serde_json::Value) -> Self {
        value.as_str().and_then(Self::parse).unwrap_or(Self::ZERO)
    }

    /// Nanoseconds from `earlier` to this, limited to what Go's Duration holds (292 years).
    pub(super) fn nanos_since(self, earlier: Self) -> i64 {
        let nanos = (self.unix_nanos - earlier.unix_nanos).clamp(i128::from(i64::MIN), i128::from(i64::MAX));
        i64::try_from(nanos).unwrap_or(i64::MAX)
    }

    /// The time `seconds` after the Unix epoch.
    pub(super) fn at_unix_seconds(seconds: i64) -> Self {
        Self { unix_nanos: i128::from(seconds) * NANOS_PER_SECOND }
    }
}

/// The age of something of this time at `now`, as every printer of kube-apiserver writes it: `<unknown>` if not set.
pub(super) fn age(since: Instant, now: Instant) -> String {
    if since == Instant::ZERO { "<unknown>".to_owned() } else { human_duration(now.nanos_since(since)) }
}

/// A duration in two or three significant figures, as `HumanDuration` of apimachinery's `util/duration`.
///
/// Negative durations of less than two seconds are `0s`, for clocks that differ; others are `<invalid>`.
pub fn human_duration(nanos: i64) -> String {
    let seconds = nanos / 1_000_000_000;
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    if seconds < 120 {
        return format!("{}s", seconds.max(0));
    }
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86_400);
    let two = |big: i64, big_unit: char, small: i64, small_unit: char| {
        let mut text = format!("{big}{big_unit}");
        if small != 0 {
            // Writing to a String cannot fail.
            let _ = write!(text, "{small}{small_unit}");
        }
        text
    };
    match () {
        () if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => two(days, 'd', hours % 24, 'h'),
        () if days < 365 * 2 => format!("{days}d"),
        () if days < 365 * 8 => two(days / 365, 'y', days % 365, 'd'),
        () => format!("{}y", days / 365),
    }
}

/// A number of exactly `width` decimal digits.
fn digits(text: &str, width: usize) -> Option<i64> {
    (text.len() == width && text.bytes().all(|byte| byte.is_ascii_digit())).then(|| text.parse().ok()).flatten()
}

/// The fraction of a second in nanoseconds, finer digits dropped, and what follows it.
fn fraction(rest: &str) -> Option<(u32, &str)> {
    let Some(rest) = rest.strip_prefix('.') else { return Some((0, rest)) };
    let end = rest.find(|c: char| !c.is_ascii_digit())?;
    if end == 0 {
        return None;
    }
    let (fraction, zone) = rest.split_at(end);
    let nanos: String = fraction.chars().chain("000000000".chars()).take(9).collect();
    Some((nanos.parse().ok()?, zone))
}

/// The offset from UTC in seconds.
fn offset(zone: &str) -> Option<i64> {
    if zone == "Z" {
        return Some(0);
    }
    let (sign, rest) = match zone.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let (hours, minutes) = (digits(hours, 2)?, digits(minutes, 2)?);
    (hours <= 24 && minutes < 60).then_some(sign * (hours * 3600 + minutes * 60))
}
