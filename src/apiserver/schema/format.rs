//! The formats of texts and numbers that the real server checks; all others are ignored, as there.
//!
//! Formats only say yes or no; their values are read for CEL rules by `instant` and `span`.

use std::{net::IpAddr, str::FromStr, sync::LazyLock};

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime};
use regex::Regex;
use ringmaster_core::duration;

/// A format that is checked.
#[derive(Clone, Copy, Debug, Default)]
pub(super) enum Format {
    /// None, or one that isn't known.
    #[default]
    Ignored,
    /// A format of integers: 32 bits.
    Int32,
    /// A format of integers: 64 bits.
    Int64,
    /// A format of numbers: 32 bits.
    Float,
    /// A format of numbers: 64 bits.
    Double,
    /// A format of texts; checked by its function.
    Text(Check),
}

/// Whether a text has a format.
type Check = fn(&str) -> bool;

/// The formats of texts, by their names without dashes.
const TEXTS: &[(&str, Check)] = &[
    ("bsonobjectid", |text| text.len() == 24 && text.bytes().all(|b| b.is_ascii_hexdigit())),
    ("uri", is_request_uri),
    ("email", is_email),
    ("hostname", is_hostname),
    ("ipv4", |text| text.contains('.') && ip(text).is_some()),
    ("ipv6", |text| text.contains(':') && strict_ip(text)),
    ("cidr", is_cidr),
    ("mac", is_mac),
    ("uuid", |text| UUID.is_match(text)),
    ("uuid3", |text| UUID3.is_match(text)),
    ("uuid4", |text| UUID4.is_match(text)),
    ("uuid5", |text| UUID5.is_match(text)),
    ("isbn", |text| is_isbn10(text) || is_isbn13(text)),
    ("isbn10", is_isbn10),
    ("isbn13", is_isbn13),
    ("creditcard", is_credit_card),
    ("ssn", |text| text.len() == 11 && SSN.is_match(text)),
    ("hexcolor", |text| HEX_COLOR.is_match(text)),
    ("rgbcolor", |text| RGB_COLOR.is_match(text)),
    ("byte", |text| BASE64.is_match(text)),
    ("password", |_| true),
    ("date", is_date),
    ("duration", |text| span(text).is_some()),
    ("datetime", is_date_time),
    ("k8sshortname", |text| text.len() <= 63 && is_label(text)),
    ("k8slongname", |text| text.len() <= 253 && text.split('.').all(is_label)),
];

impl Format {
    /// Whether there is one.
    pub(super) fn is_checked(self) -> bool {
        !matches!(self, Self::Ignored)
    }

    /// The format of a type; ignored unless the type has it.
    pub(super) fn of(name: &str, type_name: &str) -> Self {
        match (type_name, name) {
            ("integer", "int32") => Self::Int32,
            ("integer", "int64") => Self::Int64,
            ("number", "float") => Self::Float,
            ("number", "double") => Self::Double,
            ("" | "string", name) if !name.is_empty() => {
                let plain = name.replace('-', "");
                TEXTS.iter().find(|(known, _)| *known == plain).map_or(Self::Ignored, |(_, check)| Self::Text(*check))
            }
            _ => Self::Ignored,
        }
    }
}

macro_rules! patterns {
    ($($name:ident = $text:expr;)*) => {$(
        // The texts are constants that the tests compile; should one not compile, nothing has the format.
        static $name: LazyLock<Lazy> = LazyLock::new(|| Lazy(Regex::new($text).ok()));
    )*};
}

struct Lazy(Option<Regex>);

impl Lazy {
    fn is_match(&self, text: &str) -> bool {
        self.0.as_ref().is_some_and(|regex| regex.is_match(text))
    }
}

patterns! {
    UUID = r"(?i-u)^[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
    UUID3 = r"(?i-u)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$";
    UUID4 = r"(?i-u)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$";
    UUID5 = r"(?i-u)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$";
    SSN = r"^[0-9]{3}[- ]?[0-9]{2}[- ]?[0-9]{4}$";
    HEX_COLOR = r"^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$";
    RGB_COLOR = concat!(
        r"^rgb\([ \t\n\f\r]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[ \t\n\f\r]*,",
        r"[ \t\n\f\r]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[ \t\n\f\r]*,",
        r"[ \t\n\f\r]*(0|[1-9][0-9]?|1[0-9][0-9]?|2[0-4][0-9]|25[0-5])[ \t\n\f\r]*\)$"
    );
    BASE64 = r"^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=|[A-Za-z0-9+/]{4})$";
    CREDIT_CARD = concat!(
        r"^(?:4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}",
        r"|3(?:0[0-5]|[68][0-9])[0-9]{11}|(?:2131|1800|35[0-9]{3})[0-9]{11})$"
    );
    TIME = r"^(?:[0-9]{2}):(?:[0-9]{2}):(?:[0-9]{2})(.[0-9]+)?(z|([+-][0-9]{2}:[0-9]{2}))$";
    HOSTNAME = concat!(
        r"^([a-zA-Z0-9\p{S}\p{L}]((-?[a-zA-Z0-9\p{S}\p{L}]{0,62})?)",
        r"|([a-zA-Z0-9\p{S}\p{L}](([a-zA-Z0-9\-\p{S}\p{L}]{0,61}[a-zA-Z0-9\p{S}\p{L}])?)(\.)){1,}",
        r"([a-zA-Z\p{L}]){2,63})$"
    );
}

fn is_label(text: &str) -> bool {
    let bytes = text.as_bytes();
    let end = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    bytes.first().is_some_and(end) && bytes.last().is_some_and(end) && bytes.iter().all(|b| end(b) || *b == b'-')
}

fn is_hostname(text: &str) -> bool {
    HOSTNAME.is_match(text) && text.len() <= 255 && text.split('.').all(|part| part.len() <= 63)
}

/// An address as Go's lenient parser takes it: leading zeros are allowed in IPv4.
fn ip(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return IpAddr::from_str(text).ok();
    }
    IpAddr::from_str(&strip_zeros(text)).ok()
}

fn strict_ip(text: &str) -> bool {
    IpAddr::from_str(text).is_ok()
}

fn strip_zeros(text: &str) -> String {
    let part = |part: &str| match part.trim_start_matches('0') {
        "" if !part.is_empty() => "0".to_owned(),
        rest => rest.to_owned(),
    };
    text.split('.').map(part).collect::<Vec<_>>().join(".")
}

fn is_cidr(text: &str) -> bool {
    let Some((address, bits)) = text.split_once('/') else { return false };
    let Some(address) = ip(address) else { return false };
    let limit = if address.is_ipv4() { 32 } else { 128 };
    !bits.is_empty() && bits.bytes().all(|b| b.is_ascii_digit()) && bits.parse::<u32>().is_ok_and(|n| n <= limit)
}

fn is_mac(text: &str) -> bool {
    let fits = |separator: char, width: usize, counts: &[usize]| {
        let parts: Vec<&str> = text.split(separator).collect();
        counts.contains(&parts.len())
            && parts.iter().all(|part| part.len() == width && part.bytes().all(|b| b.is_ascii_hexdigit()))
    };
    fits(':', 2, &[6, 8, 20]) || fits('-', 2, &[6, 8, 20]) || fits('.', 4, &[3, 4, 10])
}

fn digits_only(text: &str, extra: fn(char) -> bool) -> String {
    text.chars().filter(|c| !extra(*c)).collect()
}

fn is_isbn10(text: &str) -> bool {
    let plain = digits_only(text, |c| c.is_whitespace() || c == '-');
    let bytes = plain.as_bytes();
    if bytes.len() != 10 || !bytes[..9].iter().all(u8::is_ascii_digit) {
        return false;
    }
    let last = match bytes[9] {
        b'X' => 10,
        b if b.is_ascii_digit() => u32::from(b - b'0'),
        _ => return false,
    };
    let sum: u32 = bytes[..9].iter().zip(1..).map(|(b, i)| i * u32::from(b - b'0')).sum();
    (sum + 10 * last).is_multiple_of(11)
}

fn is_isbn13(text: &str) -> bool {
    let plain = digits_only(text, |c| c.is_whitespace() || c == '-');
    let bytes = plain.as_bytes();
    if bytes.len() != 13 || !bytes.iter().all(u8::is_ascii_digit) {
        return false;
    }
    let sum: u32 = bytes[..12].iter().zip([1, 3].into_iter().cycle()).map(|(b, f)| f * u32::from(b - b'0')).sum();
    u32::from(bytes[12] - b'0') == (10 - sum % 10) % 10
}

fn is_credit_card(text: &str) -> bool {
    let plain: String = text.chars().filter(char::is_ascii_digit).collect();
    let doubled = |(i, b): (usize, u8)| match u32::from(b - b'0') {
        digit if i % 2 == 0 => digit,
        digit if digit * 2 >= 10 => digit * 2 % 10 + 1,
        digit => digit * 2,
    };
    CREDIT_CARD.is_match(&plain) && plain.bytes().rev().enumerate().map(doubled).sum::<u32>().is_multiple_of(10)
}

fn is_date(text: &str) -> bool {
    date(text).is_some()
}

/// A date as `2006-01-02`, with all its digits.
pub(super) fn date(text: &str) -> Option<NaiveDate> {
    (text.len() == 10).then(|| NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()).flatten()
}

fn is_date_time(text: &str) -> bool {
    let lower = text.to_lowercase();
    let Some((day, time)) = lower.split_once('t') else { return false };
    let time = time.split('t').next().unwrap_or_default();
    // Each part is compared as text, as the real server does: an offset is not looked at.
    is_date(day) && TIME.is_match(time) && &time[..2] <= "23" && &time[3..5] <= "59" && &time[6..8] <= "59"
}

/// A point in time as a CEL rule sees it: RFC 3339, or without an offset.
pub(super) fn instant(text: &str) -> Option<DateTime<FixedOffset>> {
    if text.is_empty() {
        return Some(DateTime::UNIX_EPOCH.fixed_offset());
    }
    DateTime::parse_from_rfc3339(text)
        .ok()
        .or_else(|| NaiveDateTime::parse_from_str(text, "%Y-%m-%dT%H:%M:%S").ok().map(|t| t.and_utc().fixed_offset()))
}

/// A span of time in nanoseconds: Go's form (`1h30m`), or numbers with words (`3 days`).
pub(super) fn span(text: &str) -> Option<i64> {
    duration::parse(text).ok().or_else(|| word_span(text))
}

/// The words of a unit: the last one may be the start of a longer word.
const UNITS: &[(&[&str], i64)] = &[
    (&["ns", "nano"], 1),
    (&["us", "µs", "micro"], 1_000),
    (&["ms", "milli"], 1_000_000),
    (&["s", "sec"], 1_000_000_000),
    (&["m", "min"], 60_000_000_000),
    (&["h", "hr", "hour"], 3_600_000_000_000),
    (&["d", "day"], 86_400_000_000_000),
    (&["w", "wk", "week"], 604_800_000_000_000),
];

fn word_span(text: &str) -> Option<i64> {
    let mut total: i64 = 0;
    let mut found = false;
    let mut rest = text;
    while let Some(start) = rest.find(|c: char| c.is_ascii_digit()) {
        let after = &rest[start..];
        let end = after.find(|c: char| !c.is_ascii_digit()).unwrap_or(after.len());
        let (number, after) = after.split_at(end);
        let after = after.trim_start();
        let end = after.find(|c: char| !c.is_ascii_alphabetic() && c != 'µ').unwrap_or(after.len());
        let (word, after) = after.split_at(end);
        rest = after;
        if word.is_empty() {
            continue;
        }
        let number: i64 = number.parse().ok()?;
        let word = word.to_lowercase();
        for (words, nanos) in UNITS {
            for (i, known) in words.iter().enumerate() {
                if word == *known || i + 1 == words.len() && word.starts_with(known) {
                    found = true;
                    total = total.wrapping_add(number.wrapping_mul(*nanos));
                }
            }
        }
    }
    found.then_some(total)
}

/// What Go's ParseRequestURI takes: an absolute path or an absolute URI.
fn is_request_uri(text: &str) -> bool {
    if text.is_empty() || text.bytes().any(|b| b < 0x20 || b == 0x7f) {
        return false;
    }
    if text == "*" || text.starts_with('/') && !text.starts_with("//") {
        return escapes(text.split('?').next().unwrap_or_default());
    }
    let scheme_end = text.find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.')));
    let rest = match scheme_end {
        Some(end) if end > 0 && text[end..].starts_with(':') && text.as_bytes()[0].is_ascii_alphabetic() => {
            &text[end + 1..]
        }
        _ if text.starts_with("//") => text,
        _ => return false,
    };
    let rest = rest.split('?').next().unwrap_or_default();
    let Some(authority) = rest.strip_prefix("//") else { return !rest.starts_with('/') || escapes(rest) };
    let (authority, path) = authority.split_at(authority.find('/').unwrap_or(authority.len()));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let (name, port) = match host.strip_prefix('[') {
        Some(inner) => match inner.split_once(']') {
            Some((address, port)) if strict_ip(address.split("%25").next().unwrap_or_default()) => ("", port),
            _ => return false,
        },
        None => host.split_at(host.rfind(':').unwrap_or(host.len())),
    };
    let port_fits = port.is_empty() || port.starts_with(':') && port[1..].bytes().all(|b| b.is_ascii_digit());
    let host_fits =
        name.bytes().all(|b| b >= 0x80 || b.is_ascii_alphanumeric() || b"-_.~!$&'()*+,;=:[]<>\"%".contains(&b));
    port_fits && host_fits && escapes(path)
}

/// Whether every percent sign is followed by two hexadecimal digits.
fn escapes(text: &str) -> bool {
    text.split('%').skip(1).all(|part| part.len() >= 2 && part.bytes().take(2).all(|b| b.is_ascii_hexdigit()))
}

/// An address of mail, with or without a name before it.
fn is_email(text: &str) -> bool {
    let text = text.trim();
    let address = match text.split_once('<') {
        Some((name, rest)) => {
            let words = name.trim();
            let plain = words.starts_with('"') && words.ends_with('"') && words.len() >= 2
                || words.split(' ').all(|word| word.is_empty() || is_atom(word, true));
            match rest.strip_suffix('>') {
                Some(address) if plain => address,
                _ => return false,
            }
        }
        None => text,
    };
    let Some((local, domain)) = address.rsplit_once('@') else { return false };
    let quoted = local.len() > 2 && local.starts_with('"') && local.ends_with('"');
    let literal = domain.strip_prefix('[').and_then(|d| d.strip_suffix(']')).is_some_and(strict_ip);
    (quoted || is_atom(local, false)) && (literal || is_atom(domain, false))
}

fn is_atom(text: &str, dots_anywhere: bool) -> bool {
    let dots_fit = dots_anywhere || !(text.starts_with('.') || text.ends_with('.') || text.contains(".."));
    !text.is_empty()
        && dots_fit
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c as u32 >= 0x80 || "!#$%&'*+-/=?^_`{|}~.".contains(c))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_compile() {
        for pattern in
            [&UUID, &UUID3, &UUID4, &UUID5, &SSN, &HEX_COLOR, &RGB_COLOR, &BASE64, &CREDIT_CARD, &TIME, &HOSTNAME]
        {
            assert!(pattern.0.is_some());
        }
    }

    #[test]
    fn spans() {
        assert_eq!(span("1h30m"), Some(5_400_000_000_000));
        assert_eq!(span("-1.5s"), Some(-1_500_000_000));
        assert_eq!(span("3 days"), Some(259_200_000_000_000));
        assert_eq!((span("1"), span("")), (None, None));
    }
}
