//! The query parameter `timeout`, which every request but a watch may have (apiserver v0.36.3, `request_deadline.go`).
//!
//! Never ends a request: answers take no time here, so that only one that had none to begin with can be too late.

use ringmaster_core::duration;

use crate::error::Error;
use crate::request::Query;

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
    duration::parse(text).map(drop).map_err(|error| match error {
        duration::Error::Invalid => format!("invalid duration {}", quoted(text)),
        duration::Error::MissingUnit => format!("missing unit in duration {}", quoted(text)),
        duration::Error::UnknownUnit(unit) => format!("unknown unit {} in duration {}", quoted(unit), quoted(text)),
    })
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
