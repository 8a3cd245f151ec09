//! Settings of the admission webhook of external rings: where it listens, and where the API server finds it.
//!
//! Never looks whether the API server can reach it: nobody depends on that.

use std::net::SocketAddr;

use ringmaster_rings::admission::configuration::Reach;

use super::membership::{MAX_NAMESPACE_CHARS, dns_label};
use super::source::Given;
use super::{Error, value};

/// The Service of `manifests/rings`, in the members' namespace.
const DEFAULT_SERVICE: &str = "ringmaster-admission";
/// A Service's port unless it is said.
const DEFAULT_PORT: u16 = 443;
/// Most characters of a Service's name.
const MAX_SERVICE_CHARS: usize = 63;

/// The admission webhook of external rings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingAdmission {
    /// Where it listens. Port 0 takes a free one.
    pub address: SocketAddr,
    /// Where the API server finds it.
    pub reach: Reach,
}

impl Given {
    /// Checks them. `servers` are the addresses of this process's other servers; `is_part` tells whether only some
    /// controllers are run, and with them no rings.
    pub(super) fn ring_admission(
        &mut self,
        namespace: &str,
        is_part: bool,
        servers: [Option<SocketAddr>; 2],
    ) -> Result<Option<RingAdmission>, Error> {
        let given = self.filled("ring-admission-address")?;
        let (by_service, by_url) = (self.filled("ring-admission-service")?, self.filled("ring-admission-url")?);
        let reach = match (&by_service, &by_url) {
            (Some(service), Some(url)) => {
                return Err(url.error(format!("{} says it too; give one of them", service.origin)));
            }
            (Some(given), None) => service(&given.text).map_err(|fix| given.error(fix))?,
            (None, Some(given)) => Reach::url(&given.text).map_err(|error| given.error(error.problem()))?,
            (None, None) => {
                let (namespace, name) = (namespace.to_owned(), DEFAULT_SERVICE.to_owned());
                Reach::Service { namespace, name, port: DEFAULT_PORT }
            }
        };
        let listens = match &given {
            Some(given) => value::address(&given.text).map_err(|fix| given.error(fix))?,
            None => None,
        };
        let (Some(address), Some(given)) = (listens, given) else {
            for given in [by_service, by_url].into_iter().flatten() {
                self.notices.push(format!("{given}: it has no effect without --ring-admission-address"));
            }
            return Ok(None);
        };
        if servers.into_iter().flatten().any(|server| value::clash(server, address)) {
            let fix = "metrics or health have the same port; give another one, or turn one off with 0";
            return Err(given.error(fix));
        }
        if is_part {
            self.notices.push(format!("{given}: it has no effect with --target-label-selector, which runs no rings"));
            return Ok(None);
        }
        Ok(Some(RingAdmission { address, reach }))
    }
}

/// `NAMESPACE/NAME` or `NAMESPACE/NAME:PORT`.
fn service(text: &str) -> Result<Reach, String> {
    let fix = || "give NAMESPACE/NAME or NAMESPACE/NAME:PORT, such as ringmaster-system/ringmaster-admission:443";
    let (namespace, rest) = text.split_once('/').ok_or_else(fix)?;
    let (name, port) = match rest.split_once(':') {
        None => (rest, DEFAULT_PORT),
        Some((name, port)) => (name, port.parse::<u16>().ok().filter(|port| *port > 0).ok_or_else(fix)?),
    };
    let namespace = dns_label(namespace, MAX_NAMESPACE_CHARS).map_err(|_| fix())?;
    let name = dns_label(name, MAX_SERVICE_CHARS).map_err(|_| fix())?;
    Ok(Reach::Service { namespace, name, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_a_namespace_and_maybe_a_port() {
        let of = |namespace: &str, name: &str, port| {
            Ok(Reach::Service { namespace: namespace.to_owned(), name: name.to_owned(), port })
        };
        assert_eq!(service("a/b"), of("a", "b", 443));
        assert_eq!(service("a/b:9443"), of("a", "b", 9443));
        for bad in ["", "b", "a/", "/b", "a/b/c", "A/b", "a/b:", "a/b:0", "a/b:65536", "a/b:x"] {
            assert!(service(bad).is_err(), "{bad}");
        }
    }
}
