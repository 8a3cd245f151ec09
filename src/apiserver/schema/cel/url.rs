//! URLs as rules see them: `url()`, `isURL()` and what a URL is asked for.
//!
//! The real server reads them with Go's net/url, which keeps what RFC 3986 allows and a browser would rewrite: a default
//! port, a port beyond 65535, an opaque rest. Never normalises: what isn't escaped stays so.

use std::collections::HashMap;
use std::net::Ipv6Addr;
use std::sync::Arc;

use kube_cel::cel::objects::{Key, Map, Opaque, Value};

use crate::field_error::go_quote;

/// A URL, taken apart.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Url {
    scheme: String,
    /// What follows a scheme without a slash, as in `mailto:a@b`.
    opaque: String,
    user: Option<String>,
    /// With its port, and with brackets around an IPv6 address.
    host: String,
    /// Escaped.
    path: String,
    query: Option<String>,
    fragment: String,
}

impl Opaque for Url {
    fn runtime_type_name(&self) -> &str {
        "kubernetes.URL"
    }
}

/// Where a text stands: it decides which bytes may do so as they are.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Path,
    Host,
    Zone,
    User,
    Query,
    Fragment,
}

impl Part {
    /// Whether a byte may stand there unescaped.
    fn allows(self, byte: u8) -> bool {
        let more: &[u8] = match self {
            Self::Host | Self::Zone => b"!\"$&'()*+,:;<=>[]",
            Self::Path => b"$&+,/:;=@",
            Self::User => b"$&+,;=",
            Self::Query => b"",
            Self::Fragment => b"!$&()*+,/:;=?@",
        };
        byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) || more.contains(&byte)
    }

    /// The text without its escapes.
    fn unescape(self, text: &str) -> Result<Vec<u8>, String> {
        let bytes = text.as_bytes();
        let (mut plain, mut at) = (Vec::with_capacity(bytes.len()), 0);
        while let Some(&byte) = bytes.get(at) {
            if byte == b'%' {
                let start = &bytes[at..bytes.len().min(at + 3)];
                let bad = || Err(format!("invalid URL escape {}", go_quote(&String::from_utf8_lossy(start))));
                let digits = start.get(1..3).filter(|digits| digits.iter().all(u8::is_ascii_hexdigit));
                let digits = digits.and_then(|digits| std::str::from_utf8(digits).ok());
                let Some(value) = digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) else { return bad() };
                // A host may escape what isn't ASCII, and a zone what it may hold anyway.
                let fits = match self {
                    Self::Host => value >= 0x80 || value == b'%',
                    Self::Zone => value == b'%' || value == b' ' || Self::Host.allows(value),
                    _ => true,
                };
                if !fits {
                    return bad();
                }
                plain.push(value);
                at += 3;
                continue;
            }
            if matches!(self, Self::Host | Self::Zone) && byte.is_ascii() && !self.allows(byte) {
                return Err(format!("invalid character {} in host name", go_quote(&char::from(byte).to_string())));
            }
            plain.push(if byte == b'+' && self == Self::Query { b' ' } else { byte });
            at += 1;
        }
        Ok(plain)
    }

    fn escape(self, plain: &[u8]) -> String {
        let mut text = String::with_capacity(plain.len());
        for &byte in plain {
            if self.allows(byte) {
                text.push(char::from(byte));
            } else {
                text.push_str(&format!("%{byte:02X}"));
            }
        }
        text
    }
}

impl Url {
    /// Whether the text is an absolute URI or an absolute path.
    pub(super) fn is(text: &str) -> bool {
        Self::part(text, true).is_ok()
    }

    /// Reads such a text.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let fail =
            |why: String| format!("URL parse error during conversion from string: parse {}: {why}", go_quote(text));
        Self::part(text, true).map_err(fail)?;
        let (rest, fragment) = text.split_once('#').unwrap_or((text, ""));
        let fragment = Part::Fragment.unescape(fragment).map_err(fail)?;
        let url = Self::part(rest, false).map_err(fail)?;
        Ok(Self { fragment: Part::Fragment.escape(&fragment), ..url })
    }

    /// `absolute`: there is a scheme, or a path from the root, which isn't taken for a host.
    fn part(text: &str, absolute: bool) -> Result<Self, String> {
        if text.bytes().any(|byte| byte.is_ascii_control()) {
            return Err("net/url: invalid control character in URL".to_owned());
        }
        if text.is_empty() && absolute {
            return Err("empty url".to_owned());
        }
        if text == "*" {
            return Ok(Self { path: text.to_owned(), ..Self::default() });
        }
        let (scheme, rest) = scheme(text)?;
        let (rest, query) = match rest.split_once('?') {
            Some((rest, query)) => (rest, Some(query.to_owned())),
            None => (rest, None),
        };
        let mut url = Self { scheme: scheme.to_ascii_lowercase(), query, ..Self::default() };
        if !rest.starts_with('/') {
            if !scheme.is_empty() {
                return Ok(Self { opaque: rest.to_owned(), ..url });
            }
            if absolute {
                return Err("invalid URI for request".to_owned());
            }
            if rest.split('/').next().is_some_and(|segment| segment.contains(':')) {
                return Err("first path segment in URL cannot contain colon".to_owned());
            }
        }
        let mut path = rest;
        let may_have_host = !scheme.is_empty() || (!absolute && !rest.starts_with("///"));
        if may_have_host && let Some(rest) = rest.strip_prefix("//") {
            let (authority, after) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            path = after;
            let (user, host) = authority.rsplit_once('@').map_or((None, authority), |(user, host)| (Some(user), host));
            url.host = host_of(&url.scheme, host)?;
            if let Some(user) = user {
                let fits = |c: char| c.is_ascii_alphanumeric() || "-._:~!$&'()*+,;=%@".contains(c);
                if !user.chars().all(fits) {
                    return Err("net/url: invalid userinfo".to_owned());
                }
                Part::User.unescape(user)?;
                url.user = Some(user.to_owned());
            }
        }
        let plain = Part::Path.unescape(path)?;
        let stays = |byte: u8| Part::Path.allows(byte) || b"!'()*[]%".contains(&byte);
        url.path = if path.bytes().all(stays) { path.to_owned() } else { Part::Path.escape(&plain) };
        Ok(url)
    }

    /// What a getter of this name gives; `None` for another name.
    pub(super) fn get(&self, name: &str) -> Option<Value> {
        let (host, port) = self.host_and_port();
        let text = match name {
            "getScheme" => &*self.scheme,
            "getHost" => &*self.host,
            "getHostname" => host,
            "getPort" => port,
            "getEscapedPath" => &*self.path,
            "getQuery" => return Some(self.parameters()),
            _ => return None,
        };
        Some(Value::String(Arc::new(text.to_owned())))
    }

    fn host_and_port(&self) -> (&str, &str) {
        let found = self.host.rsplit_once(':').filter(|(_, port)| port.bytes().all(|byte| byte.is_ascii_digit()));
        let (host, port) = found.unwrap_or((&self.host, ""));
        (host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port)
    }

    /// The query's parameters; those that can't be read are left out.
    fn parameters(&self) -> Value {
        let mut parameters: HashMap<Key, Vec<Value>> = HashMap::new();
        for pair in self.query.iter().flat_map(|query| query.split('&')) {
            if pair.is_empty() || pair.contains(';') {
                continue;
            }
            let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (Ok(key), Ok(value)) = (Part::Query.unescape(key), Part::Query.unescape(value)) else { continue };
            let text = |bytes: Vec<u8>| Arc::new(String::from_utf8_lossy(&bytes).into_owned());
            parameters.entry(Key::String(text(key))).or_default().push(Value::String(text(value)));
        }
        let parameters = parameters.into_iter().map(|(key, values)| (key, Value::List(Arc::new(values)))).collect();
        Value::Map(Map { map: Arc::new(parameters) })
    }
}

/// The scheme, empty if there is none, and what follows it.
fn scheme(text: &str) -> Result<(&str, &str), String> {
    let end = text.find(|c: char| !c.is_ascii_alphanumeric() && !"+-.".contains(c));
    match end.and_then(|end| text.split_at_checked(end)) {
        Some(("", rest)) if rest.starts_with(':') => Err("missing protocol scheme".to_owned()),
        Some((scheme, rest)) if rest.starts_with(':') && scheme.starts_with(|c: char| c.is_ascii_alphabetic()) => {
            Ok((scheme, &rest[1..]))
        }
        _ => Ok(("", text)),
    }
}

/// A host with its port, without escapes.
fn host_of(scheme: &str, text: &str) -> Result<String, String> {
    let check_port = |port: &str| {
        let digits = port.strip_prefix(':').unwrap_or(port);
        let fits = digits.bytes().all(|byte| byte.is_ascii_digit()) && (port.is_empty() || port.starts_with(':'));
        if fits { Ok(()) } else { Err(format!("invalid port {} after host", go_quote(port))) }
    };
    let plain = |part: Part, text: &str| part.unescape(text).map(|plain| String::from_utf8_lossy(&plain).into_owned());
    match text.rfind('[') {
        Some(0) => {
            let Some((literal, port)) = text[1..].rsplit_once(']') else {
                return Err("missing ']' in host".to_owned());
            };
            check_port(port)?;
            let literal = match literal.find("%25") {
                Some(zone) => plain(Part::Host, &literal[..zone])? + &plain(Part::Zone, &literal[zone..])?,
                None => plain(Part::Host, literal)?,
            };
            let (address, zone) = literal.split_once('%').map_or((&*literal, None), |(a, zone)| (a, Some(zone)));
            if zone.is_none() && address.parse::<std::net::Ipv4Addr>().is_ok() {
                return Err("invalid IP-literal".to_owned());
            }
            if zone == Some("") || address.parse::<Ipv6Addr>().is_err() {
                return Err(format!("invalid host: ParseAddr({}): unable to parse IP", go_quote(&literal)));
            }
            return Ok(format!("[{literal}]{port}"));
        }
        Some(_) => return Err("invalid IP-literal".to_owned()),
        None => {}
    }
    // Only the web's own schemes have one colon at most: others have lists of hosts.
    let colon = if matches!(scheme, "http" | "https") { text.find(':') } else { text.rfind(':') };
    if let Some(colon) = colon {
        check_port(&text[colon..])?;
    }
    plain(Part::Host, text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Scheme, host, hostname, port and path.
    fn parts(text: &str) -> Result<String, String> {
        let url = Url::parse(text)?;
        let get = |name| match url.get(name) {
            Some(Value::String(text)) => text.to_string(),
            other => format!("{other:?}"),
        };
        Ok(["getScheme", "getHost", "getHostname", "getPort", "getEscapedPath"].map(get).join(" "))
    }

    #[test]
    fn nothing_is_rewritten() {
        for (text, wanted) in [
            ("http://localhost/x", "http localhost localhost  /x"),
            ("HTTP://Example.COM:80/a%2fb?q#f", "http Example.COM:80 Example.COM 80 /a%2fb"),
            ("https://h:65536", "https h:65536 h 65536 "),
            ("https://h:/", "https h: h  /"),
            ("https://u:p@[fe80::1%25en0]:8443/", "https [fe80::1%en0]:8443 fe80::1%en0 8443 /"),
            ("mailto:a@b", "mailto    "),
            ("localhost:80", "localhost    "),
            ("/a b/\u{e4}", "    /a%20b/%C3%A4"),
            ("//host/x", " host host  /x"),
            ("https:///x", "https    /x"),
        ] {
            assert_eq!(parts(text).as_deref(), Ok(wanted), "{text}");
        }
    }

    #[test]
    fn what_is_no_url_says_why() {
        for (text, why) in [
            ("", "empty url"),
            ("a/b", "invalid URI for request"),
            ("://x", "missing protocol scheme"),
            ("https://h h/", "invalid character \" \" in host name"),
            ("https://h:x/", "invalid port \":x\" after host"),
            ("https://a:1:2/", "invalid port \":1:2\" after host"),
            ("https://[::1/", "missing ']' in host"),
            ("https://[1.2.3.4]/", "invalid IP-literal"),
            ("https://h/%zz", "invalid URL escape \"%zz\""),
            ("https://a b@h/", "net/url: invalid userinfo"),
            ("https://h/\n", "net/url: invalid control character in URL"),
        ] {
            let said = parts(text).unwrap_err();
            assert!(!Url::is(text) && said.ends_with(&format!(": {why}")), "{text}: {said}");
        }
        assert!(Url::is("https://h/?#%zz") && Url::parse("https://h/?#%zz").is_err() && Url::is("postgres://a:1,b:2/"));
    }
}
