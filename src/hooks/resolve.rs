//! From a hook's host and port to the one address that is connected to.
//!
//! Never connects to a name: what was checked is what is used, so that a name can't point elsewhere in between.

use std::collections::HashMap;
use std::net::SocketAddr;

use crate::caller::{ConnectStep, Steps};
use crate::policy::ip_of;
use crate::{Error, Policy};

/// `--hook-resolve`: fixed addresses for hosts, for tests and laptops.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides(HashMap<(String, u16), SocketAddr>);

impl Overrides {
    /// Connects to `address` whenever `host` and `port` are meant.
    pub fn add(&mut self, host: &str, port: u16, address: SocketAddr) {
        self.0.insert((host.to_ascii_lowercase(), port), address);
    }

    /// Where it leads instead, if it was said.
    pub(crate) fn find(&self, host: &str, port: u16) -> Option<SocketAddr> {
        self.0.get(&(host.to_ascii_lowercase(), port)).copied()
    }
}

/// Addresses of one name that are tried.
const MAX_ADDRESSES: usize = 8;

/// The addresses to connect to, in turn: an override as it is (whoever runs this process said so), else those of the
/// name that the policy allows. `steps` are those of the try that it is done for.
///
/// # Errors
/// If the name doesn't resolve, or resolves to refused addresses only.
pub(crate) async fn resolve(
    host: &str,
    port: u16,
    overrides: &Overrides,
    policy: &Policy,
    steps: Option<&Steps>,
) -> Result<Vec<SocketAddr>, Error> {
    if let Some(address) = overrides.find(host, port) {
        return Ok(vec![address]);
    }
    if let Some(ip) = ip_of(host) {
        let address = SocketAddr::new(ip, port);
        return policy.check_address(address).map(|()| vec![address]);
    }
    let failed = |problem: String| Error::Resolve { host: host.to_owned(), problem };
    let note = |step| steps.into_iter().for_each(|steps| steps.note(step));
    note(ConnectStep::DnsStart);
    let found = tokio::net::lookup_host((host, port)).await;
    note(ConnectStep::DnsDone);
    let found = found.map_err(|error| failed(error.to_string()))?;
    let (mut allowed, mut refused) = (Vec::new(), None);
    for address in found.take(MAX_ADDRESSES) {
        match policy.check_address(address) {
            Ok(()) => allowed.push(address),
            Err(error) => refused = Some(error),
        }
    }
    if allowed.is_empty() {
        return Err(refused.unwrap_or_else(|| failed("no address".to_owned())));
    }
    Ok(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn literal_addresses_are_checked_and_overrides_are_trusted() {
        let policy = Policy { allow_loopback: false, api_server: Vec::new() };
        let mut overrides = Overrides::default();
        assert!(resolve("127.0.0.1", 80, &overrides, &policy, None).await.is_err());
        assert!(resolve("[fe80::1]", 80, &overrides, &policy, None).await.is_err());
        overrides.add("Hook.shop.svc", 80, "127.0.0.1:8080".parse().unwrap());
        let addresses = resolve("hook.shop.svc", 80, &overrides, &policy, None).await.unwrap();
        assert_eq!(addresses, ["127.0.0.1:8080".parse().unwrap()]);
        assert!(resolve("hook.shop.svc", 81, &overrides, &policy, None).await.is_err());
        let error = resolve("no-such-name.invalid", 80, &overrides, &policy, None).await.unwrap_err();
        assert_eq!(error.reason(), "NameNotResolved");
    }
}
