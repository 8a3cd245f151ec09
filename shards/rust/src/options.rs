//! What a shard is told of itself, checked.
//!
//! Never talks to an API server: a ring that doesn't exist is found by nobody.

use std::path::Path;
use std::sync::Arc;

use ringmaster_core::dialect::{RINGMASTER_RING, RingDialect};
use ringmaster_core::lease::Terms;

use crate::lease::Claim;
use crate::object::Keys;

/// The longest name of a shard or a ring, in bytes: that of a label's value, and of the name part of its key.
pub const MAX_NAME_BYTES: usize = 63;

/// Where a pod finds the namespace that it is in.
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// An object was let go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Acknowledged {
    /// Its namespace; empty where it is cluster-scoped.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its version from then on.
    pub resource_version: String,
}

/// Told of each object that was let go, at once. It must not block.
pub type OnAcknowledged = Arc<dyn Fn(&Acknowledged) + Send + Sync>;

/// How to be a shard.
#[derive(Clone)]
pub struct Options {
    /// The ring's name: that of its `ControllerRing` object. At most [`MAX_NAME_BYTES`].
    pub ring: String,
    /// The shard's name: that of its Lease, and the value of its objects' label. At most [`MAX_NAME_BYTES`]; no other shard
    /// of the ring may have it. By default the host's name, which is the pod's in a cluster.
    pub name: Option<String>,
    /// The Lease's namespace. By default the pod's.
    pub namespace: Option<String>,
    /// Names of labels: Ringmaster's ([`RINGMASTER_RING`], the default) or controller-sharding's
    /// ([`CONTROLLER_SHARDING_RING`](crate::CONTROLLER_SHARDING_RING)), whichever group the ring's object is of.
    pub dialect: &'static RingDialect,
    /// The Lease's times: by default 15 s, 10 s and 2 s.
    pub terms: Terms,
    /// Told of each acknowledgement, for logs and metrics.
    pub acknowledged: Option<OnAcknowledged>,
}

impl Options {
    /// The usual ones, for a shard of this ring.
    pub fn new(ring: impl Into<String>) -> Self {
        Self {
            ring: ring.into(),
            name: None,
            namespace: None,
            dialect: &RINGMASTER_RING,
            terms: Terms::default(),
            acknowledged: None,
        }
    }
}

/// Options that can't be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A name isn't one.
    #[error(
        "{field} {value:?} must be 1 to {MAX_NAME_BYTES} lower-case letters, digits, dashes and dots, with a letter or \
         digit at both ends of each part between dots: give another one"
    )]
    Name {
        /// Which.
        field: &'static str,
        /// What it is.
        value: String,
    },
    /// The namespace isn't given, and this process isn't in a pod.
    #[error("namespace must be given: there is none to be read from {NAMESPACE_FILE} ({0})")]
    Namespace(String),
    /// The Lease's times don't fit together.
    #[error(transparent)]
    Terms(#[from] ringmaster_core::lease::Error),
}

/// Who a shard is.
#[derive(Clone, Debug)]
pub(crate) struct Identity {
    pub(crate) claim: Claim,
    pub(crate) keys: Keys,
    pub(crate) terms: Terms,
}

impl Identity {
    /// By options, and by where this process runs as far as they leave it open.
    pub(crate) fn of(options: &Options) -> Result<Self, Invalid> {
        let namespace = || {
            let read = std::fs::read_to_string(Path::new(NAMESPACE_FILE));
            read.map(|text| text.trim().to_owned()).map_err(|error| Invalid::Namespace(error.to_string()))
        };
        let name = options.name.clone().unwrap_or_else(host_name);
        let namespace = options.namespace.clone().map_or_else(namespace, Ok)?;
        let named = |field: &'static str, value: &str| {
            if is_name(value) { Ok(()) } else { Err(Invalid::Name { field, value: value.to_owned() }) }
        };
        named("ring", &options.ring)?;
        named("name", &name)?;
        named("namespace", &namespace)?;
        options.terms.validate()?;
        let claim = Claim {
            name,
            namespace,
            ring_label: options.dialect.lease_ring,
            ring: options.ring.clone(),
            duration: options.terms.duration,
        };
        Ok(Self { claim, keys: Keys::of(options.dialect, &options.ring), terms: options.terms })
    }
}

fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}

/// Whether a text can be a label's value, the name part of a label's key, and an object's name.
fn is_name(text: &str) -> bool {
    let is_part = |part: &str| {
        let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !part.is_empty() && part.bytes().all(is_inner) && !part.starts_with('-') && !part.ends_with('-')
    };
    text.len() <= MAX_NAME_BYTES && text.split('.').all(is_part)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn options(ring: &str, name: &str, namespace: &str) -> Options {
        Options { name: Some(name.to_owned()), namespace: Some(namespace.to_owned()), ..Options::new(ring) }
    }

    #[test]
    fn a_shard_is_who_its_options_say() {
        let identity = Identity::of(&options("r", "op-1.x", "n")).unwrap();
        assert_eq!((identity.claim.name.as_str(), identity.claim.namespace.as_str()), ("op-1.x", "n"));
        assert_eq!((identity.claim.ring_label, identity.claim.ring.as_str()), ("ringmaster.dev/ring", "r"));
        assert_eq!(identity.keys.shard, "ring.ringmaster.dev/r");
        assert_eq!(identity.claim.duration, Duration::from_secs(15));
        let host = Options { name: None, ..options("r", "", "n") };
        // A host's name may be none of ours, but it is what is looked at.
        match Identity::of(&host) {
            Ok(identity) => assert_eq!(identity.claim.name, host_name()),
            Err(invalid) => assert_eq!(invalid, Invalid::Name { field: "name", value: host_name() }),
        }
    }

    #[test]
    fn names_must_fit_labels_and_leases() {
        let long = "a".repeat(MAX_NAME_BYTES + 1);
        for bad in ["", "A", "a_b", "-a", "a-", "a..b", ".a", "a.", "a/b", long.as_str()] {
            let value = bad.to_owned();
            let of = |ring: &str, name: &str, namespace: &str| Identity::of(&options(ring, name, namespace)).err();
            assert_eq!(of("r", bad, "n"), Some(Invalid::Name { field: "name", value: value.clone() }));
            assert_eq!(of(bad, "a", "n"), Some(Invalid::Name { field: "ring", value: value.clone() }));
            assert_eq!(of("r", "a", bad), Some(Invalid::Name { field: "namespace", value }));
        }
        assert!(is_name(&"a".repeat(MAX_NAME_BYTES)) && is_name("0") && is_name("a--b.c-1"));
    }

    #[test]
    fn times_must_fit_together() {
        let terms = Terms { duration: Duration::from_secs(10), ..Terms::default() };
        let invalid = Identity::of(&Options { terms, ..options("r", "a", "n") }).err();
        assert!(invalid.unwrap().to_string().contains("--lease-duration"));
    }
}
