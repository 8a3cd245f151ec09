//! The query parameter `timeout`, which every request but a watch may have (apiserver v0.36.3, `request_deadline.go`).
//!
//! Never ends a request: answers take no time here, so that only one that had none to begin with can be too late.

use crate::error::Error;
use crate::request::Query;

/// The units of a Go duration, in nanoseconds.
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
/// Go's `1 << 63`.
const TOO_LONG: u64 = 1 << 63;

/// Checks the parameter.
///
/// # Errors
/// 400 if it isn't a Go duration.
pub(crate) fn check(query: &Query) -> Result<(), Error> {
    match query.get("timeout") {
        None | Some("") => Ok(()),
        Some(text) => check_duration(text)
            .map_err(|why| Error::bad_request(format!("invalid timeout specified in the request URL - time: {why}"))),
    }
}

/// What Go's `time.ParseDuration` says of a text.
fn check_duration(text: &str) -> Result<(), String> {
    let invalid = || format!("invalid duration {}", quoted(text));
    let (negative, mut rest) = (text.starts_with('-'), text.strip_prefix(['-', '+']).unwrap_or(text));
    if rest == "0" {
        return Ok(());
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut sum = 0u64;
    while !rest.is_empty() {
        let whole = digits(&mut rest);
        let fraction = rest.strip_prefix('.').map(|after| {
            rest = after;
            digits(&mut rest)
        });
        if whole.is_empty() && fraction.is_none_or(str::is_empty) {
            return Err(invalid());
        }
        let count = if whole.is_empty() { Some(0) } else { whole.parse::<u64>().ok() };
        let count = count.filter(|count| *count <= TOO_LONG).ok_or_else(invalid)?;
        let length = rest.find(|c: char| c == '.' || c.is_ascii_digit()).unwrap_or(rest.len());
        let (unit, after) = rest.split_at(length);
        rest = after;
        if unit.is_empty() {
            return Err(format!("missing unit in duration {}", quoted(text)));
        }
        let Some((_, scale)) = UNITS.iter().find(|(name, _)| *name == unit) else {
            return Err(format!("unknown unit {} in duration {}", quoted(unit), quoted(text)));
        };
        let part = fraction.unwrap_or_default().bytes().fold((0, *scale), |(sum, place), digit| {
            let place = place / 10;
            (sum + u64::from(digit - b'0') * place, place)
        });
        let both = count.checked_mul(*scale).and_then(|nanos| nanos.checked_add(part.0));
        sum = both.and_then(|nanos| sum.checked_add(nanos)).filter(|sum| *sum <= TOO_LONG).ok_or_else(invalid)?;
    }
    if sum == TOO_LONG && !negative { Err(invalid()) } else { Ok(()) }
}

/// Takes the leading digits off.
fn digits<'a>(rest: &mut &'a str) -> &'a str {
    let (digits, after) = rest.split_at(rest.bytes().take_while(u8::is_ascii_digit).count());
    *rest = after;
    digits
}

/// As Go's package `time` quotes a text: what isn't printable ASCII byte by byte.
fn quoted(text: &str) -> String {
    let mut out = String::from('"');
    for byte in text.bytes() {
        match byte {
            b'"' | b'\\' => out.extend(['\\', char::from(byte)]),
            b' '..=0x7f => out.push(char::from(byte)),
            _ => out.push_str(&format!("\\x{byte:02x}")),
        }
    }
    out.push('"');
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_judged_as_in_go() {
        for good in ["0", "-0", "5s", "-5s", "1.5h", ".5s", "5.s", "1h2m3s4ms5us6ns7\u{b5}s", "2562047h47m16s"] {
            assert_eq!(check_duration(good), Ok(()), "{good}");
        }
        for (bad, why) in [
            ("x", "invalid duration \"x\""),
            ("-", "invalid duration \"-\""),
            (".s", "invalid duration \".s\""),
            ("5", "missing unit in duration \"5\""),
            ("5y", "unknown unit \"y\" in duration \"5y\""),
            ("5s3", "missing unit in duration \"5s3\""),
            ("5 s", "unknown unit \" s\" in duration \"5 s\""),
            ("5\u{e4}\"", "unknown unit \"\\xc3\\xa4\\\"\" in duration \"5\\xc3\\xa4\\\"\""),
            ("2562048h", "invalid duration \"2562048h\""),
            ("99999999999999999999", "invalid duration \"99999999999999999999\""),
        ] {
            assert_eq!(check_duration(bad), Err(why.to_owned()), "{bad}");
        }
    }
}
