//! Settings of a member: its name, where its Lease is, and how long a Lease counts.
//!
//! Never makes a name unique: the random part of a member's name is drawn when it starts.

use std::ops::RangeInclusive;
use std::path::Path;
use std::time::Duration;

use ringmaster_core::key::ObjectKey;
use ringmaster_core::lease::{MAX_DURATION, Terms};

use super::source::Given;
use super::{Error, Place, value};

/// Most characters of a member's name: with its random part it is a Lease's name and a label's value.
pub const MAX_MEMBER_NAME_CHARS: usize = 50;
/// Most characters of a namespace's name.
pub(super) const MAX_NAMESPACE_CHARS: usize = 63;
/// Most characters of a Lease's name (a DNS subdomain, RFC 1123).
const MAX_LEASE_NAME_CHARS: usize = 253;
/// Metacontroller's default for the name of its leader Lease.
const METACONTROLLER_LEASE: &str = "metacontroller";
/// The namespace of Leases outside a pod.
const DEFAULT_NAMESPACE: &str = "ringmaster-system";
/// Where a pod finds its namespace.
const POD_NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";
/// Range of `--lease-duration`. A Lease holds whole seconds.
const LEASE_DURATIONS: RangeInclusive<Duration> = Duration::from_secs(1)..=MAX_DURATION;
/// Range of `--renew-deadline` and `--retry-period`.
const PERIODS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

/// What a member is called and how it renews its Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Membership {
    /// The beginning of its name: at most [`MAX_MEMBER_NAME_CHARS`] lower-case letters, digits and dashes.
    pub name: String,
    /// The namespace of the Leases.
    pub namespace: String,
    /// Whether the namespace is made if it is missing: a pod's is there.
    pub make_namespace: bool,
    /// How long a Lease counts, and how it is renewed.
    pub terms: Terms,
}

impl Given {
    /// Checks the settings of a member.
    pub(super) fn membership(&mut self, place: Place) -> Result<Membership, Error> {
        let name = match self.filled("member-name")? {
            Some(given) => dns_label(&given.text, MAX_MEMBER_NAME_CHARS).map_err(|fix| given.error(fix))?,
            None => default_name(),
        };
        let namespace = match self.filled("lease-namespace")? {
            Some(given) => dns_label(&given.text, MAX_NAMESPACE_CHARS).map_err(|fix| given.error(fix))?,
            None => default_namespace(place),
        };
        let default = Terms::default();
        let duration = self.or("lease-duration", default.duration, |text| value::duration(text, &LEASE_DURATIONS))?;
        let renew_deadline =
            self.or("renew-deadline", default.renew_deadline, |text| value::duration(text, &PERIODS))?;
        let retry_period = self.or("retry-period", default.retry_period, |text| value::duration(text, &PERIODS))?;
        let terms = Terms { duration, renew_deadline, retry_period };
        terms.validate()?;
        Ok(Membership { name, namespace, make_namespace: place != Place::Pod, terms })
    }

    /// Metacontroller's leader Lease; without a namespace where none is given.
    pub(super) fn metacontroller_lease(&mut self) -> Result<ObjectKey, Error> {
        let namespace = match self.filled("leader-election-namespace")? {
            Some(given) => dns_label(&given.text, MAX_NAMESPACE_CHARS).map_err(|fix| given.error(fix))?,
            None => String::new(),
        };
        let name = match self.filled("leader-election-id")? {
            Some(given) => lease_name(&given.text).map_err(|fix| given.error(fix))?,
            None => METACONTROLLER_LEASE.to_owned(),
        };
        Ok(ObjectKey::new(&namespace, &name))
    }
}

/// A DNS label (RFC 1123), as Kubernetes wants it in names.
pub(super) fn dns_label(text: &str, max: usize) -> Result<String, String> {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = !text.is_empty() && text.len() <= max && text.chars().all(inner);
    let ends = !text.starts_with('-') && !text.ends_with('-');
    (fits && ends).then(|| text.to_owned()).ok_or_else(|| {
        format!("give 1 to {max} lower-case letters, digits and dashes, with a letter or digit at both ends")
    })
}

/// A DNS subdomain (RFC 1123): DNS labels with dots between them.
fn lease_name(text: &str) -> Result<String, String> {
    let fits = text.len() <= MAX_LEASE_NAME_CHARS
        && text.split('.').all(|label| dns_label(label, MAX_LEASE_NAME_CHARS).is_ok());
    fits.then(|| text.to_owned()).ok_or_else(|| {
        format!("give 1 to {MAX_LEASE_NAME_CHARS} lower-case letters, digits, dashes and dots, as in a Lease's name")
    })
}

/// The pod's name, or the host's, as far as it fits.
fn default_name() -> String {
    let variable = |name: &str| std::env::var(name).ok().filter(|text| !text.is_empty());
    let host = || rustix::system::uname().nodename().to_string_lossy().into_owned();
    let name = variable("POD_NAME").or_else(|| variable("HOSTNAME")).unwrap_or_else(host);
    fitting(&name)
}

/// A name's characters that may be in a DNS label; its end tells pods of one Deployment apart, so the beginning is cut.
fn fitting(name: &str) -> String {
    let lower = name.to_ascii_lowercase();
    let text: String = lower.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
    let text = text.get(text.len().saturating_sub(MAX_MEMBER_NAME_CHARS)..).unwrap_or_default().trim_matches('-');
    if text.is_empty() { "ringmaster".to_owned() } else { text.to_owned() }
}

fn default_namespace(place: Place) -> String {
    if place != Place::Pod {
        return DEFAULT_NAMESPACE.to_owned();
    }
    let variable = std::env::var("POD_NAMESPACE").ok().filter(|text| !text.is_empty());
    let file = || std::fs::read_to_string(Path::new(POD_NAMESPACE_FILE)).ok().map(|text| text.trim().to_owned());
    variable.or_else(file).unwrap_or_else(|| DEFAULT_NAMESPACE.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_dns_labels_or_made_into_one() {
        assert_eq!(dns_label("a-1", 50), Ok("a-1".to_owned()));
        for bad in ["", "-a", "a-", "A", "a.b", "a_b", &"x".repeat(51)] {
            assert!(dns_label(bad, 50).is_err(), "{bad}");
        }
        assert_eq!(lease_name("a.b-1"), Ok("a.b-1".to_owned()));
        for bad in ["", ".", "a..b", "a.", "A", "a_b", &"x".repeat(254)] {
            assert!(lease_name(bad).is_err(), "{bad}");
        }
        assert_eq!(fitting("Host.example_1.com"), "host-example-1-com");
        assert_eq!(fitting("..."), "ringmaster");
        let long = format!("{}-7d9c-x2", "a".repeat(60));
        assert!(fitting(&long).len() == MAX_MEMBER_NAME_CHARS && fitting(&long).ends_with("-7d9c-x2"));
    }
}
