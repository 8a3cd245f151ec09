//! Which entry of `spec.endpointConfigs` is a webhook's: the first one for its host and port, as in Metacontroller.
//!
//! Never merges: a webhook that names any credentials itself has none of an entry's. Never looks at what an entry holds.

use std::sync::Arc;

use ringmaster_core::controller::{self as core, Address};

use super::{Error, rules};

/// The field that holds the credentials of a webhook with its own.
pub(super) const OWN: &str = "webhook";

/// What a webhook's connections and calls need to be trusted, and to trust.
pub(super) struct Credentials {
    pub(super) tls: core::Tls,
    pub(super) auth: Option<core::Auth>,
    /// The field that declares them, as [`core::Webhook::credentials_in`].
    pub(super) declared_in: Arc<str>,
}

/// An entry, as errors name it.
pub(super) fn field(index: usize) -> String {
    format!("spec.endpointConfigs[{index}]")
}

/// Whether this is a host, with or without a port.
pub(super) fn is_host(host: &str) -> bool {
    origin("https", host).is_some()
}

/// The first entry for the webhook's host and port, by the entries' hosts. `webhook` is its field. A port that is the
/// scheme's own may be left out on either side, and case doesn't matter. A Service goes by `name.namespace` and
/// `name.namespace.svc`.
///
/// # Errors
/// If the webhook's replicas lead to different entries: a credential goes to none that it isn't for.
pub(super) fn find(webhook: &str, hosts: &[&str], address: &Address) -> Result<Option<usize>, Error> {
    let first = |scheme: &str, origins: &[String]| {
        hosts.iter().position(|host| origin(scheme, host).is_some_and(|origin| origins.contains(&origin)))
    };
    let by_url = |url: &str| {
        let scheme = if url.starts_with("https://") { "https" } else { "http" };
        rules::url(webhook, url).ok().and_then(|url| first(scheme, &[url.origin]))
    };
    match address {
        Address::Url(url) => Ok(by_url(url)),
        Address::Urls { urls, .. } => {
            let mut found = urls.iter().map(|url| by_url(url));
            let entry = found.next().flatten();
            if found.any(|other| other != entry) {
                let message = "lead to different entries of spec.endpointConfigs, or only some of them to one; name \
                               caBundle, clientTLS, authorization or basicAuth in the webhook itself";
                return Err(Error::new(format!("{webhook}.urls"), message));
            }
            Ok(entry)
        }
        Address::Service { name, namespace, port, tls, .. } => {
            let scheme = if *tls { "https" } else { "http" };
            let origins = ["", ".svc"].map(|end| format!("{scheme}://{name}.{namespace}{end}:{port}"));
            Ok(first(scheme, &origins))
        }
    }
}

/// A warning for each entry that none of the hooks uses.
pub(super) fn unused<'a>(hosts: &[&str], hooks: impl Iterator<Item = &'a core::Hook>) -> Vec<String> {
    let used: Vec<&str> = hooks.map(|hook| &*hook.webhook.credentials_in).collect();
    let unused = hosts.iter().enumerate().filter(|(index, _)| !used.contains(&field(*index).as_str()));
    let warning = |(index, host): (usize, &&str)| {
        let field = field(index);
        format!(
            "{field}: has no effect: no webhook without credentials of its own has {host:?} as its first entry's host"
        )
    };
    unused.map(warning).collect()
}

/// Scheme, host and port in the form of [`rules::Url::origin`].
fn origin(scheme: &str, host: &str) -> Option<String> {
    let url = rules::url("host", &format!("{scheme}://{host}")).ok()?;
    (!url.has_path).then_some(url.origin)
}
