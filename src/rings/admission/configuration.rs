//! What the API server is told of a ring's webhook: its MutatingWebhookConfiguration, for server-side apply.
//!
//! It names nothing but CREATE: an object that lost its label later is assigned by the watch, without everybody's updates
//! coming by here. Never applies anything and never reads a ring's objects.

use std::net::IpAddr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ringmaster_core::key::{ApiVersion, Resource};
use ringmaster_core::ring::model::Ring;
use ringmaster_core::ring::plan::shard_label;
use serde_json::{Value, json};

use super::certificate::same_pem;
use super::review::RingName;

/// The version of both groups' rings.
const RING_VERSION: &str = "v1alpha1";
/// The label that says whose a configuration is.
const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// Ours.
const MANAGER: &str = "ringmaster";
/// Longest host name, in bytes: RFC 1035, section 2.3.4.
const MAX_HOST_BYTES: usize = 253;

/// Where the API server reaches the members' webhooks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// By a Service.
    Service {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// Its port.
        port: u16,
    },
    /// By a URL: `https://host:port`, maybe with the beginning of a path; without a slash at its end.
    Url(String),
}

/// Why a URL can't be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("admission URL {url:?}: {problem}")]
pub struct Error {
    /// What was given.
    url: String,
    /// What is wrong with it, and what to do.
    problem: &'static str,
}

impl Error {
    /// What is wrong with it, and what to do.
    #[must_use]
    pub fn problem(&self) -> &'static str {
        self.problem
    }
}

impl Reach {
    /// A URL, which rings' paths are put behind.
    ///
    /// # Errors
    /// If it isn't https, has no host that a certificate can be for, a port that is none, or a user, query or fragment:
    /// the API server would refuse it.
    pub fn url(text: &str) -> Result<Self, Error> {
        let fail = |problem| Err(Error { url: text.to_owned(), problem });
        let Some(rest) = text.strip_prefix("https://") else { return fail("must begin with https://") };
        if rest.contains(['@', '?', '#']) {
            return fail("must have no user, query or fragment; remove it");
        }
        if host(rest).is_empty() {
            return fail("must name a host");
        }
        if !is_host(host(rest)) {
            return fail("must have a DNS name or an IP address as its host");
        }
        if !has_port(rest) {
            return fail("must have a port from 1 to 65535, or none for 443");
        }
        Ok(Self::Url(text.trim_end_matches('/').to_owned()))
    }

    /// The names that the API server expects in the certificate.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        match self {
            Self::Service { namespace, name, .. } => {
                // It asks for the first alone; the others are for people who look.
                ["svc", "svc.cluster.local"].map(|end| format!("{name}.{namespace}.{end}")).to_vec()
            }
            Self::Url(url) => vec![host(url.trim_start_matches("https://")).to_owned()],
        }
    }

    fn client_config(&self, path: &str, bundle: &str) -> Value {
        let bundle = STANDARD.encode(bundle);
        match self {
            Self::Service { namespace, name, port } => json!({
                "service": {"namespace": namespace, "name": name, "port": port, "path": path},
                "caBundle": bundle,
            }),
            Self::Url(url) => json!({"url": format!("{url}{path}"), "caBundle": bundle}),
        }
    }
}

/// The host at the beginning of what follows a scheme, without brackets; empty if there is none.
fn host(rest: &str) -> &str {
    let authority = rest.split('/').next().unwrap_or_default();
    match authority.strip_prefix('[') {
        Some(v6) => v6.split_once(']').map_or("", |(host, _)| host),
        None => authority.split(':').next().unwrap_or_default(),
    }
}

/// An address, or what can be a DNS name.
fn is_host(host: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-';
        (1..=63).contains(&label.len()) && label.chars().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    host.parse::<IpAddr>().is_ok() || (host.len() <= MAX_HOST_BYTES && host.split('.').all(is_label))
}

/// Whether nothing follows the host at the beginning of what follows a scheme, or a port that can be one.
fn has_port(rest: &str) -> bool {
    let authority = rest.split('/').next().unwrap_or_default();
    let after =
        authority.rsplit_once(']').map_or_else(|| authority.trim_start_matches(|c: char| c != ':'), |(_, after)| after);
    after.is_empty() || after.strip_prefix(':').and_then(|port| port.parse::<u16>().ok()).is_some_and(|port| port > 0)
}

/// The kind of the configurations.
#[must_use]
pub fn resource() -> Resource {
    Resource {
        api_version: ApiVersion::new("admissionregistration.k8s.io/v1"),
        plural: "mutatingwebhookconfigurations".into(),
        kind: "MutatingWebhookConfiguration".into(),
        namespaced: false,
        status: false,
    }
}

/// The name of a ring's configuration (contract, 1.3).
#[must_use]
pub fn name(ring: &Ring) -> String {
    [ring.dialect.webhook_configuration, &*ring.name].concat()
}

/// A ring's configuration, to be applied: all that is ours of it. `bundle` is [`super::certificate::Kept::bundle`] as it
/// was read from its Secret: what isn't kept there is forgotten by a restart.
///
/// A ring without kinds has a webhook without rules, which is never called.
#[must_use]
pub fn of(ring: &Ring, reach: &Reach, bundle: &str) -> Value {
    let dialect = ring.dialect;
    let rule = |group: &str, resource: &str| {
        json!({
            "apiGroups": [group], "apiVersions": ["*"], "resources": [resource],
            "operations": ["CREATE"], "scope": "*",
        })
    };
    let rules: Vec<Value> = ring.kinds().into_iter().map(|kind| rule(&kind.group, &kind.resource)).collect();
    let unassigned = json!({"key": shard_label(dialect, &ring.name), "operator": "DoesNotExist"});
    let path = RingName { dialect, name: &ring.name }.path();
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "name": name(ring),
            "labels": {MANAGED_BY: MANAGER},
            // With its ring it is gone: the garbage collector sees to that, even when no member lives.
            "ownerReferences": [{
                "apiVersion": format!("{}/{RING_VERSION}", dialect.group),
                "kind": "ControllerRing",
                "name": &*ring.name,
                "uid": ring.uid.to_string(),
                "controller": true,
            }],
        },
        "webhooks": [{
            "name": dialect.webhook_name,
            "admissionReviewVersions": ["v1"],
            "clientConfig": reach.client_config(&path, bundle),
            "rules": rules,
            "objectSelector": {"matchExpressions": [unassigned]},
            "namespaceSelector": ring.namespaces.to_json(),
            "failurePolicy": "Ignore",
            "matchPolicy": "Equivalent",
            "reinvocationPolicy": "Never",
            "sideEffects": "None",
            "timeoutSeconds": dialect.webhook_timeout_seconds,
        }],
    })
}

/// Whether a configuration, as it was read, is the one that we made for this very ring: it says so by its label and its
/// owner. controller-sharding's have the names of ours, but not the label.
#[must_use]
pub fn is_ours(configuration: &Value, ring: &Ring) -> bool {
    let metadata = &configuration["metadata"];
    let owners = metadata["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
    metadata["labels"][MANAGED_BY] == MANAGER && owners.iter().any(|owner| owner["uid"] == *ring.uid.to_string())
}

/// Whether a configuration, as it was read, lets every webhook in it be trusted by this authority (PEM). One without
/// webhooks does.
#[must_use]
pub fn trusts(configuration: &Value, authority: &str) -> bool {
    let webhooks = configuration["webhooks"].as_array().map(Vec::as_slice).unwrap_or_default();
    webhooks.iter().all(|webhook| {
        let bundle = webhook["clientConfig"]["caBundle"].as_str();
        let bundle = bundle.and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        same_pem(&bundle, authority)
    })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use ringmaster_core::dialect::{CONTROLLER_SHARDING_RING, RINGMASTER_RING, RingDialect};
    use ringmaster_core::key::Uid;
    use ringmaster_core::ring::model::{GroupResource, Hash, MainResource};
    use ringmaster_core::ring::{pace, plan};
    use ringmaster_core::selector::Selector;

    use super::super::certificate::Pair;
    use super::*;

    fn ring(dialect: &'static RingDialect) -> Ring {
        let main = |resource: &str| MainResource {
            resource: GroupResource::new("shop.example", resource),
            controlled: vec![GroupResource::new("", "configmaps")],
        };
        Ring {
            dialect,
            name: "shop".into(),
            uid: Uid::new("u1"),
            generation: 1,
            resources: vec![main("sites"), main("carts")],
            namespaces: Selector::parse("kubernetes.io/metadata.name!=kube-system").unwrap(),
            hash: Hash::Tokens,
            rules: plan::Rules { drain_limit: Duration::from_secs(60), escalates: false },
            pace: pace::Settings::default(),
            is_deleting: false,
        }
    }

    fn service() -> Reach {
        Reach::Service { namespace: "system".to_owned(), name: "ringmaster".to_owned(), port: 443 }
    }

    #[test]
    fn only_creations_of_unlabelled_objects_come_by_and_nothing_depends_on_it() {
        let made = of(&ring(&RINGMASTER_RING), &service(), "PEM");
        assert_eq!(made["metadata"]["name"], "ringmaster-ring-shop");
        let owner = &made["metadata"]["ownerReferences"][0];
        assert_eq!((&owner["apiVersion"], &owner["uid"]), (&json!("ringmaster.dev/v1alpha1"), &json!("u1")));
        assert_eq!((&owner["kind"], &owner["controller"]), (&json!("ControllerRing"), &json!(true)));
        let rule = |group: &str, resource: &str| {
            json!({
                "apiGroups": [group], "apiVersions": ["*"], "resources": [resource],
                "operations": ["CREATE"], "scope": "*",
            })
        };
        let want = json!([{
            "name": "ring.ringmaster.dev",
            "admissionReviewVersions": ["v1"],
            "clientConfig": {
                "service": {
                    "namespace": "system", "name": "ringmaster", "port": 443, "path": "/admission/rings/shop",
                },
                "caBundle": "UEVN",
            },
            "rules": [rule("", "configmaps"), rule("shop.example", "carts"), rule("shop.example", "sites")],
            "objectSelector": {
                "matchExpressions": [{"key": "ring.ringmaster.dev/shop", "operator": "DoesNotExist"}],
            },
            "namespaceSelector": {
                "matchExpressions": [
                    {"key": "kubernetes.io/metadata.name", "operator": "NotIn", "values": ["kube-system"]},
                ],
            },
            "failurePolicy": "Ignore",
            "matchPolicy": "Equivalent",
            "reinvocationPolicy": "Never",
            "sideEffects": "None",
            "timeoutSeconds": 2,
        }]);
        assert_eq!(made["webhooks"], want);
    }

    #[test]
    fn the_contracts_names_are_kept() {
        let made = of(&ring(&CONTROLLER_SHARDING_RING), &service(), "PEM");
        assert_eq!(made["metadata"]["name"], "controllerring-shop");
        assert_eq!(made["metadata"]["ownerReferences"][0]["apiVersion"], "sharding.timebertt.dev/v1alpha1");
        let webhook = &made["webhooks"][0];
        assert_eq!(webhook["name"], "sharder.sharding.timebertt.dev");
        assert_eq!(webhook["clientConfig"]["service"]["path"], "/webhooks/sharder/controllerring/shop");
        let selected = &webhook["objectSelector"]["matchExpressions"][0];
        assert_eq!(selected["key"], "shard.alpha.sharding.timebertt.dev/shop");
        assert_eq!((&webhook["timeoutSeconds"], &webhook["failurePolicy"]), (&json!(5), &json!("Ignore")));
        assert_eq!(webhook["rules"][0]["operations"], json!(["CREATE"]));
    }

    #[test]
    fn urls_are_checked_and_paths_put_behind_them() {
        let url = Reach::url("https://127.0.0.1:8443/").unwrap();
        let made = of(&ring(&RINGMASTER_RING), &url, "PEM");
        let client = json!({"url": "https://127.0.0.1:8443/admission/rings/shop", "caBundle": "UEVN"});
        assert_eq!(made["webhooks"][0]["clientConfig"], client);
        let names = |url: &str| Reach::url(url).unwrap().names();
        assert_eq!(names("https://127.0.0.1:8443"), ["127.0.0.1"]);
        assert_eq!(names("https://rings.example/base/"), ["rings.example"]);
        assert_eq!(names("https://[::1]:8443"), ["::1"]);
        assert_eq!(service().names()[0], "ringmaster.system.svc");
        for (url, problem) in [
            ("http://a", "https://"),
            ("https://", "host"),
            ("https://:80", "host"),
            ("https://[::1", "host"),
            ("https://u@a", "user"),
            ("https://a/?b", "query"),
            ("https://a..b", "DNS name"),
            ("https://a_b:1", "DNS name"),
            ("https://a:0", "port"),
            ("https://a:70000/b", "port"),
            ("https://[::1]x", "port"),
        ] {
            let error = Reach::url(url).unwrap_err().to_string();
            assert!(error.contains(url) && error.contains(problem), "{error}");
        }
    }

    #[test]
    fn ours_is_ours_by_its_label_and_its_ring() {
        let ring = ring(&CONTROLLER_SHARDING_RING);
        let made = of(&ring, &service(), "PEM");
        assert!(is_ours(&made, &ring));
        assert!(!is_ours(&made, &Ring { uid: Uid::new("u2"), ..ring.clone() }), "of a ring that was there before");
        let mut theirs = made;
        theirs["metadata"]["labels"] = json!({});
        assert!(!is_ours(&theirs, &ring) && !is_ours(&json!({}), &ring));
    }

    #[test]
    fn a_bundle_is_known_by_its_certificates() {
        let pair = || Pair::make(Duration::from_secs(1_800_000_000), &service().names()).unwrap();
        let (one, other) = (pair(), pair());
        let both = [&*one.authority, &*other.authority].concat();
        let made = of(&ring(&RINGMASTER_RING), &service(), &both);
        assert!(trusts(&made, &one.authority) && trusts(&made, &other.authority));
        let made = of(&ring(&RINGMASTER_RING), &service(), &one.authority);
        assert!(trusts(&made, &one.authority) && !trusts(&made, &other.authority));
        assert!(!trusts(&json!({"webhooks": [{"clientConfig": {}}]}), &one.authority));
        assert!(trusts(&json!({}), &one.authority), "nothing that could fail");
    }
}
