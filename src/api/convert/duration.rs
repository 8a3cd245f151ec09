//! Durations as Go writes them (`time.ParseDuration`): `1.5h`, `2m30s`, `-10ms`, `0`.
//!
//! Never rounds up: parts of a nanosecond are cut off.

use std::time::Duration;

/// The longest text; Go has no limit.
const TEXT_MAX: usize = 64;
const UNITS: [(&str, u128); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];

/// The duration, zero if it is negative; nothing if the text isn't one, or is longer than Go can hold (292 years).
pub(super) fn parse(text: &str) -> Option<Duration> {
    if text.len() > TEXT_MAX {
        return None;
    }
    let negative = text.starts_with('-');
    let mut rest = text.strip_prefix(['-', '+']).unwrap_or(text);
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut nanos = 0u128;
    while !rest.is_empty() {
        let whole = digits(&mut rest);
        let fraction = rest.strip_prefix('.').map(|after| {
            rest = after;
            digits(&mut rest)
        });
        if whole.is_empty() && fraction.is_none_or(str::is_empty) {
            return None;
        }
        let length = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, after) = rest.split_at(length);
        rest = after;
        let (_, scale) = UNITS.iter().find(|(name, _)| *name == unit)?;
        let whole: u128 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
        nanos = nanos.checked_add(whole.checked_mul(*scale)?)?;
        let mut place = *scale;
        for digit in fraction.unwrap_or_default().bytes() {
            place /= 10;
            nanos = nanos.checked_add(u128::from(digit - b'0') * place)?;
        }
    }
    let nanos = i64::try_from(nanos).ok()?;
    Some(if negative { Duration::ZERO } else { Duration::from_nanos(nanos.unsigned_abs()) })
}

/// Takes the leading digits off.
fn digits<'a>(rest: &mut &'a str) -> &'a str {
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, after) = rest.split_at(length);
    *rest = after;
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_mean_what_they_mean_in_go() {
        for (text, nanos) in [
            ("0", 0),
            ("10s", 10_000_000_000),
            ("+5s", 5_000_000_000),
            ("-5s", 0),
            ("-0", 0),
            ("1.5h", 5_400_000_000_000),
            (".5s", 500_000_000),
            ("5.s", 5_000_000_000),
            ("2h45m30.5s", 9_930_500_000_000),
            ("300ms", 300_000_000),
            ("1us", 1_000),
            ("1\u{b5}s", 1_000),
            ("1\u{3bc}s", 1_000),
            ("0.9ns", 0),
            ("0s", 0),
        ] {
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
