//! The rings' admission webhook as a trial turns it on and looks for it.
//!
//! Never waits.

use crate::objects::Resource;
use crate::scrape::free_port;

/// The flags of a member that the API server is to ask, at a port of its own.
///
/// # Errors
/// No port is free.
pub(crate) fn flags() -> anyhow::Result<[String; 2]> {
    let port = free_port()?;
    Ok([format!("--ring-admission-address=127.0.0.1:{port}"), format!("--ring-admission-url=https://127.0.0.1:{port}")])
}

/// What tells the API server of webhooks.
pub(crate) fn configurations() -> Resource {
    let version = "admissionregistration.k8s.io/v1";
    Resource::new(version, "MutatingWebhookConfiguration", "mutatingwebhookconfigurations", None)
}

/// The name of that of one of our rings.
pub(crate) fn configuration(ring: &str) -> String {
    format!("ringmaster-ring-{ring}")
}
