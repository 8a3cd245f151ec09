//! How one value is read from its text: numbers, durations, addresses, and so on.
//!
//! Nothing here knows where the text came from. A function that fails returns the fix, to stand after
//! `<where> is "<text>": `.

use std::fmt::Display;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use jiff::SignedDuration;

use super::HookResolve;

/// Longest text of a duration, in bytes. Go prints none that is longer.
const MAX_DURATION_BYTES: usize = 32;
/// Longest host name, in bytes: RFC 1035, section 2.3.4.
const MAX_HOST_BYTES: usize = 253;
/// Longest field manager, in characters: the API server's own limit.
const MAX_FIELD_MANAGER_CHARS: usize = 128;
/// Up to this verbosity zap's numbers mean debug, above it trace: 4 is debug and 5 trace in Kubernetes' conventions.
const MAX_DEBUG_VERBOSITY: u8 = 4;
/// Highest verbosity: zap keeps its level in a signed byte.
const MAX_VERBOSITY: u8 = 127;

/// A truth value as Go's `strconv.ParseBool` reads it.
pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("give true or false".to_owned()),
    }
}

/// A number within a range.
pub(super) fn number<T>(text: &str, range: &RangeInclusive<T>) -> Result<T, String>
where
    T: FromStr + PartialOrd + Display,
{
    let parsed = text.parse().ok().filter(|number| range.contains(number));
    parsed.ok_or_else(|| format!("give a whole number from {} to {}", range.start(), range.end()))
}

/// Any finite number, as client-go's rate flags take.
pub(super) fn finite(text: &str) -> Result<f64, String> {
    text.parse().ok().filter(|number: &f64| number.is_finite()).ok_or_else(|| "give a number".to_owned())
}

/// A rate above zero, per second.
pub(super) fn rate(text: &str, max: f64) -> Result<f64, String> {
    let parsed = text.parse().ok().filter(|rate: &f64| *rate > 0.0 && *rate <= max);
    parsed.ok_or_else(|| format!("give a number above 0, at most {max}"))
}

/// A duration within a range, in Go's syntax: `30s`, `1m30s`, `500ms`, `1.5h`.
///
/// Units go from the larger to the smaller, and only the last number may have a fraction; Go itself is laxer.
pub(super) fn duration(text: &str, range: &RangeInclusive<Duration>) -> Result<Duration, String> {
    // The library also reads ISO 8601, blanks and words. Go doesn't, and what Go refuses is a slip of the keyboard.
    let go = text.len() <= MAX_DURATION_BYTES
        && text.chars().all(|c| c.is_ascii_digit() || ".hmnsu\u{b5}\u{3bc}".contains(c));
    let parsed = if text == "0" {
        Some(Duration::ZERO)
    } else if go {
        text.parse::<SignedDuration>().ok().and_then(|signed| Duration::try_from(signed).ok())
    } else {
        None
    };
    parsed.filter(|duration| range.contains(duration)).ok_or_else(|| {
        format!("give a duration from {} to {}, such as 30s or 1m30s", shown(*range.start()), shown(*range.end()))
    })
}

/// A duration of whole seconds, or of milliseconds below one, as a user would write it.
fn shown(duration: Duration) -> String {
    match duration.as_secs() {
        seconds if seconds > 0 && seconds.is_multiple_of(3600) => format!("{}h", seconds / 3600),
        seconds if seconds > 0 && seconds.is_multiple_of(60) => format!("{}m", seconds / 60),
        0 if !duration.is_zero() => format!("{}ms", duration.as_millis()),
        seconds => format!("{seconds}s"),
    }
}

/// An address to listen at: `IP:PORT`, `:PORT` for all interfaces, `localhost:PORT`; `None` for `0`, which is off.
///
/// All interfaces is the IPv6 wildcard, which on Linux takes IPv4 too.
pub(super) fn address(text: &str) -> Result<Option<SocketAddr>, String> {
    if text == "0" {
        return Ok(None);
    }
    let parsed = match text.rsplit_once(':') {
        Some(("", port)) => port.parse().ok().map(|port| SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))),
        Some(("localhost", port)) => port.parse().ok().map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        _ => text.parse().ok(),
    };
    let fix = "give IP:PORT such as 127.0.0.1:9999, :PORT for all interfaces, or 0 to turn it off";
    parsed.map(Some).ok_or_else(|| fix.to_owned())
}

/// Whether two servers can't listen at these at one time.
pub(super) fn clash(a: SocketAddr, b: SocketAddr) -> bool {
    a.port() == b.port() && a.port() != 0 && (a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified())
}

/// One entry of `--hook-resolve`: `HOST:PORT=IP` or `HOST:PORT=IP:PORT`; IPv6 in brackets where a port follows.
pub(super) fn hook_resolve(text: &str) -> Result<HookResolve, String> {
    let fix = || "give HOST:PORT=ADDR, such as hook.default.svc:80=127.0.0.1:8080 or hook:80=[::1]:8080".to_owned();
    let (from, to) = text.split_once('=').ok_or_else(fix)?;
    let (host, port) = from.rsplit_once(':').ok_or_else(fix)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(fix)?;
    let host = host_name(host).ok_or_else(fix)?;
    let address = match to.parse::<SocketAddr>() {
        Ok(address) if address.port() > 0 => address,
        Ok(_) => return Err(fix()),
        Err(_) => SocketAddr::new(ip(to).ok_or_else(fix)?, port),
    };
    Ok(HookResolve { host, port, address })
}

/// A host as it stands in a parsed URL, without brackets: a lower-case DNS name, or an IP address in its usual form.
fn host_name(text: &str) -> Option<String> {
    if let Some(ip) = ip(text) {
        return Some(ip.to_string());
    }
    let dns = text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '.' | '_'));
    (dns && !text.is_empty() && text.len() <= MAX_HOST_BYTES).then(|| text.to_ascii_lowercase())
}

/// An IP address; IPv6 with or without brackets.
fn ip(text: &str) -> Option<IpAddr> {
    match text.strip_prefix('[').and_then(|text| text.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
        None => text.parse().ok(),
    }
}

/// The directive for a value of `--zap-log-level`.
pub(super) fn zap_level(text: &str) -> Result<&'static str, String> {
    match text {
        "debug" => Ok("debug"),
        "info" => Ok("info"),
        "error" => Ok("error"),
        _ => match number(text, &(1..=MAX_VERBOSITY)) {
            Ok(verbosity) if verbosity <= MAX_DEBUG_VERBOSITY => Ok("debug"),
            Ok(_) => Ok("trace"),
            Err(_) => Err(format!("give debug, info, error, or a whole number from 1 to {MAX_VERBOSITY}")),
        },
    }
}

/// The name of a field manager, within the API server's limits.
pub(super) fn field_manager(text: &str) -> Result<String, String> {
    let fits = !text.is_empty()
        && text.chars().count() <= MAX_FIELD_MANAGER_CHARS
        && !text.chars().any(|c| c.is_control() || c.is_whitespace());
    fits.then(|| text.to_owned())
        .ok_or_else(|| format!("give 1 to {MAX_FIELD_MANAGER_CHARS} printable characters without blanks"))
}
