//! Where a hook call may go: schemes, loopback, and addresses that nobody's webhook has.
//!
//! Decisions only: nothing here resolves or connects.

use std::net::{IpAddr, SocketAddr};

use http::Uri;
use ringmaster_core::controller::{Address, Webhook};

use crate::Error;

/// Where a machine's metadata is by IPv6 at AWS, which isn't link-local.
const METADATA_V6: IpAddr = IpAddr::V6(std::net::Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254));

/// What this installation allows.
#[derive(Clone, Debug)]
pub struct Policy {
    /// Webhooks on loopback, also by plain http.
    pub allow_loopback: bool,
    /// The API server's own addresses, never a webhook's.
    pub api_server: Vec<SocketAddr>,
}

impl Policy {
    /// Whether a call may connect to `address`, found by resolving.
    ///
    /// # Errors
    /// With the rule that forbids it.
    pub fn check_address(&self, address: SocketAddr) -> Result<(), Error> {
        let ip = address.ip().to_canonical();
        let refuse = |why: &str| Err(Error::Address(format!("{address} is refused: {why}")));
        if ip.is_loopback() && !self.allow_loopback {
            return refuse("loopback is not allowed here; set --hook-allow-loopback to allow it");
        }
        let link_local = match ip {
            IpAddr::V4(ip) => ip.is_link_local(),
            IpAddr::V6(ip) => ip.is_unicast_link_local(),
        };
        if link_local {
            return refuse("link-local addresses serve a machine's metadata, not webhooks");
        }
        if ip == METADATA_V6 {
            return refuse("it serves a machine's metadata, not webhooks");
        }
        if ip.is_unspecified() || ip.is_multicast() {
            return refuse("it is not the address of a host");
        }
        if self.api_server.iter().any(|server| server.ip().to_canonical() == ip && server.port() == address.port()) {
            return refuse("it is the API server's own address");
        }
        Ok(())
    }
}

/// Checks a webhook's URLs. Plain http is for Services, for loopback, for a dialect that allows it (`plain_http`), or
/// where `insecure: true` is said.
///
/// # Errors
/// With the field and the fix.
pub(crate) fn check_urls(webhook: &Webhook, plain_http: bool) -> Result<Vec<Uri>, Error> {
    let field = if matches!(webhook.address, Address::Urls { .. }) { "webhook.urls" } else { "webhook.url" };
    webhook.address.urls().iter().map(|url| check_url(webhook, plain_http, field, url)).collect()
}

fn check_url(webhook: &Webhook, plain_http: bool, field: &str, url: &str) -> Result<Uri, Error> {
    let uri: Uri = url.parse().map_err(|error| Error::Address(format!("{field} {url}: {error}")))?;
    let problem = |problem: &str| Err(Error::Address(format!("{field} {url}: {problem}")));
    let Some(host) = uri.host() else { return problem("it has no host") };
    if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return problem("it must not hold user information");
    }
    match uri.scheme_str() {
        Some("https") => Ok(uri),
        Some("http") => {
            let service = matches!(webhook.address, Address::Service { .. });
            let loopback = host == "localhost" || ip_of(host).is_some_and(|ip| ip.to_canonical().is_loopback());
            if service || loopback || plain_http || webhook.insecure {
                return Ok(uri);
            }
            problem("plain http needs webhook.insecure: true")
        }
        _ => problem("the scheme must be http or https"),
    }
}

pub(crate) fn ip_of(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringmaster_core::controller::Tls;

    use super::*;

    fn check_url(webhook: &Webhook, plain_http: bool) -> Result<Uri, Error> {
        check_urls(webhook, plain_http).map(|mut urls| urls.remove(0))
    }

    fn webhook(url: &str, insecure: bool) -> Webhook {
        let address = Address::Url(url.into());
        let (idempotent, tls, timeout) = (false, Tls::default(), Duration::from_secs(1));
        let credentials_in = "webhook".into();
        Webhook { address, timeout, insecure, strict: true, idempotent, tls, auth: None, etag: None, credentials_in }
    }

    #[test]
    fn plain_http_must_be_meant() {
        let service =
            Address::Service { name: "a".into(), namespace: "n".into(), port: 80, tls: false, path: "/s".into() };
        let by_service = Webhook { address: service, ..webhook("", false) };
        assert_eq!(check_url(&by_service, false).unwrap().to_string(), "http://a.n.svc:80/s");
        for good in ["https://x.example/s", "http://127.0.0.1:1/s", "http://localhost/s", "http://[::1]:8/s"] {
            assert!(check_url(&webhook(good, false), false).is_ok(), "{good}");
        }
        assert!(
            check_url(&webhook("http://x.example/s", false), false).unwrap_err().to_string().contains("insecure: true")
        );
        assert!(check_url(&webhook("http://x.example/s", true), false).is_ok());
        assert!(check_url(&webhook("http://x.example/s", false), true).is_ok());
        for bad in ["ftp://x/s", "/s", "http://", "http://user@127.0.0.1/s", "nonsense url"] {
            assert!(check_url(&webhook(bad, true), true).is_err(), "{bad}");
        }
    }

    #[test]
    fn addresses_that_are_nobody_s_webhook_are_refused() {
        let policy = |allow_loopback| Policy { allow_loopback, api_server: vec!["10.0.0.1:443".parse().unwrap()] };
        let allowed = |address: &str, loopback| policy(loopback).check_address(address.parse().unwrap()).is_ok();
        assert!(allowed("10.0.0.2:443", false) && allowed("10.0.0.1:80", false) && allowed("[fd00::1]:80", false));
        assert!(allowed("127.0.0.1:80", true) && allowed("[::ffff:127.0.0.1]:80", true));
        for bad in [
            "127.0.0.1:80",
            "[::1]:80",
            "[::ffff:127.0.0.1]:80",
            "169.254.169.254:80",
            "[fe80::1]:80",
            "[fd00:ec2::254]:80",
            "[::ffff:169.254.169.254]:80",
            "0.0.0.0:80",
            "10.0.0.1:443",
            "[::ffff:10.0.0.1]:443",
            "224.0.0.1:80",
        ] {
            assert!(!allowed(bad, false), "{bad}");
        }
    }
}
