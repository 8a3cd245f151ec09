//! Durations as Go writes them (`time.ParseDuration`): `1.5h`, `2m30s`, `-10ms`, `0`.
//!
//! Never rounds up: parts of a nanosecond are cut off. The text's length is the caller's to bound: Go has no limit.

const UNITS: [(&str, u64); 8] = [
    ("ns", 1),
    ("us", 1_000),
    ("\u{b5}s", 1_000),
    ("\u{3bc}s", 1_000),
    ("ms", 1_000_000),
    ("s", 1_000_000_000),
    ("m", 60_000_000_000),
    ("h", 3_600_000_000_000),
];
/// Go's `1 << 63`: one nanosecond more than the longest duration (292 years), and the longest negative one.
const TOO_LONG: u64 = 1 << 63;

/// Why a text isn't a duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error<'a> {
    /// It doesn't have the form of one, or it is longer than Go can hold.
    #[error("invalid duration")]
    Invalid,
    /// A number has no unit.
    #[error("missing unit in duration")]
    MissingUnit,
    /// A number's unit isn't one.
    #[error("unknown unit {0:?} in duration")]
    UnknownUnit(&'a str),
}

/// The duration in nanoseconds.
///
/// # Errors
/// If the text isn't one, or is longer than Go can hold (292 years).
pub fn parse(text: &str) -> Result<i64, Error<'_>> {
    let (negative, mut rest) = (text.starts_with('-'), text.strip_prefix(['-', '+']).unwrap_or(text));
    if rest == "0" {
        return Ok(0);
    }
    if rest.is_empty() {
        return Err(Error::Invalid);
    }
    let mut sum = 0u64;
    while !rest.is_empty() {
        let whole = digits(&mut rest);
        let fraction = rest.strip_prefix('.').map(|after| {
            rest = after;
            digits(&mut rest)
        });
        if whole.is_empty() && fraction.is_none_or(str::is_empty) {
            return Err(Error::Invalid);
        }
        let count = if whole.is_empty() { Some(0) } else { whole.parse::<u64>().ok() };
        let count = count.filter(|count| *count <= TOO_LONG).ok_or(Error::Invalid)?;
        let length = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, after) = rest.split_at(length);
        rest = after;
        if unit.is_empty() {
            return Err(Error::MissingUnit);
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(Error::UnknownUnit(unit));
        };
        let part = fraction.unwrap_or_default().bytes().fold((0, *scale), |(sum, place), digit| {
            let place = place / 10;
            (sum + u64::from(digit - b'0') * place, place)
        });
        let both = count.checked_mul(*scale).and_then(|nanos| nanos.checked_add(part.0));
        sum = both.and_then(|nanos| sum.checked_add(nanos)).filter(|sum| *sum <= TOO_LONG).ok_or(Error::Invalid)?;
    }
    if negative {
        // Of `1 << 63` itself this is the least number that there is.
        return Ok(0i64.wrapping_sub_unsigned(sum));
    }
    i64::try_from(sum).map_err(|_| Error::Invalid)
}

/// Takes the leading digits off.
fn digits<'a>(rest: &mut &'a str) -> &'a str {
    let (digits, after) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
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
            ("-5s", -5_000_000_000),
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
            ("9223372036854775807ns", i64::MAX),
            ("-9223372036854775808ns", i64::MIN),
        ] {
            assert_eq!(parse(text), Ok(nanos), "{text}");
        }
    }

    #[test]
    fn other_texts_are_refused() {
        for text in ["", "-", ".s", "--1s", "x", "9999999999h", "9223372036854775808ns", "99999999999999999999"] {
            assert_eq!(parse(text), Err(Error::Invalid), "{text}");
        }
        for text in ["10", "5s3"] {
            assert_eq!(parse(text), Err(Error::MissingUnit), "{text}");
        }
        for (text, unit) in [("1 s", " s"), ("1d", "d"), ("10S", "S"), ("5\u{e4}", "\u{e4}")] {
            assert_eq!(parse(text), Err(Error::UnknownUnit(unit)), "{text}");
        }
    }
}
