//! The checks that both groups share, one function for each kind of field.
//!
//! Never knows defaults that differ between groups.

use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use ringmaster_core::controller::{Address, Auth, CaBundle, ClientCertificate, Entry};
use ringmaster_core::key::{ApiVersion, ObjectKey, Uid};
use ringmaster_core::rollout::{FieldPath, MAX_FIELD_PATHS};
use ringmaster_core::selector::Selector;

use super::Error;
use crate::schema::{AUTH_SCHEME_MAX, CA_BUNDLE_MAX};

/// Longest DNS label, DNS subdomain, and port text.
const LABEL_MAX: usize = 63;
const SUBDOMAIN_MAX: usize = 253;
const PORT_DIGITS_MAX: usize = 5;
/// Longest URL and path; Metacontroller's group has no limit of its own.
const URL_MAX: usize = crate::schema::URL_MAX as usize;
/// The scheme of a token where none is given.
const SCHEME_DEFAULT: &str = "Bearer";
/// A Service's port where none is given.
const SERVICE_PORT_DEFAULT: u16 = 80;

const URL_FORM: &str = "http://host[:port][/path] or https://host[:port][/path]";

/// Name, uid and generation of an object that came from an API server.
pub(super) fn identity(metadata: &ObjectMeta) -> Result<(&str, Uid, i64), Error> {
    let missing = "is missing; only an object that an API server has stored can run";
    let name = metadata.name.as_deref().filter(|name| !name.is_empty());
    let name = name.ok_or_else(|| Error::new("metadata.name", missing))?;
    let uid = metadata.uid.as_deref().filter(|uid| !uid.is_empty());
    let uid = uid.ok_or_else(|| Error::new("metadata.uid", missing))?;
    Ok((name, Uid::new(uid), metadata.generation.unwrap_or(0)))
}

/// Whether a controller's name fits into the finalizer that it would put on its parents (Kubernetes: what follows the slash
/// of a qualified name has at most 63 characters).
pub(super) fn finalizer_fits(name: &str, prefix: &str, is_needed: bool) -> Result<(), Error> {
    let (_, last) = prefix.split_once('/').unwrap_or_default();
    let most = LABEL_MAX.saturating_sub(last.len());
    if is_needed && name.len() > most {
        let message = format!(
            "must be at most {most} characters with spec.hooks.finalize, as it becomes part of a finalizer; choose a shorter \
             name, or remove the hook"
        );
        return Err(Error::new("metadata.name", message));
    }
    Ok(())
}

/// `v1`, or `group/version`.
pub(super) fn api_version(field: &str, text: &str) -> Result<ApiVersion, Error> {
    let (group, version) = match text.split_once('/') {
        Some((group, version)) => (Some(group), version),
        None => (None, text),
    };
    let group_fits = group.is_none_or(is_subdomain);
    if group_fits && is_resource(version) {
        return Ok(ApiVersion::new(text));
    }
    Err(Error::new(field, format!("must be group/version such as apps/v1, or v1 for the core group, not {text:?}")))
}

/// A plural name.
pub(super) fn resource(field: &str, text: &str) -> Result<Arc<str>, Error> {
    if is_resource(text) {
        return Ok(text.into());
    }
    Err(Error::new(
        field,
        format!("must be the plural name of a kind in lower case, such as deployments, not {text:?}"),
    ))
}

/// An API group, empty for the core group.
pub(super) fn group(field: &str, text: &str) -> Result<Arc<str>, Error> {
    if text.is_empty() || is_subdomain(text) {
        return Ok(text.into());
    }
    Err(Error::new(field, format!("must be an API group such as apps, or empty for the core group, not {text:?}")))
}

/// Whether the text may be the name of a group, and of most objects.
pub(super) fn is_subdomain(text: &str) -> bool {
    text.len() <= SUBDOMAIN_MAX && is_dns(text, b".-")
}

/// A label selector; nothing selects everything.
pub(super) fn selector(field: &str, selector: Option<&LabelSelector>) -> Result<Selector, Error> {
    let Some(selector) = selector else {
        return Ok(Selector::everything());
    };
    let value = serde_json::to_value(selector).map_err(|error| Error::new(field, error.to_string()))?;
    Selector::from_json(&value).map_err(|error| Error::new(field, error.to_string()))
}

/// The fields that revisions keep; `spec` where none are named.
pub(super) fn revision_fields(paths: &[String]) -> Result<Vec<FieldPath>, Error> {
    let field = "spec.parentResource.revisionHistory.fieldPaths";
    if paths.len() > MAX_FIELD_PATHS {
        return Err(Error::new(field, format!("must have at most {MAX_FIELD_PATHS} entries")));
    }
    if paths.is_empty() {
        return Ok(vec![FieldPath::spec()]);
    }
    let parse = |(index, path): (usize, &String)| {
        FieldPath::parse(path).map_err(|message| Error::new(format!("{field}[{index}]"), message))
    };
    paths.iter().enumerate().map(parse).collect()
}

/// Where a whole URL leads.
pub(super) struct Url {
    /// It is plain http to a host that isn't loopback.
    pub(super) exposed: bool,
    /// There is something behind host and port.
    pub(super) has_path: bool,
    /// Scheme, host and port in one form, whatever the form of the text.
    pub(super) origin: String,
}

/// A whole URL without user information or fragment.
pub(super) fn url(field: &str, text: &str) -> Result<Url, Error> {
    if text.len() > URL_MAX {
        return Err(Error::new(field, format!("must be at most {URL_MAX} characters")));
    }
    let (tls, rest) = match (text.strip_prefix("https://"), text.strip_prefix("http://")) {
        (Some(rest), _) => (true, rest),
        (None, Some(rest)) => (false, rest),
        (None, None) => return Err(Error::new(field, format!("must be {URL_FORM}"))),
    };
    let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
    if authority.contains('@') {
        return Err(Error::new(field, "must not hold user information; remove what stands before the @"));
    }
    if !is_visible(path) {
        return Err(Error::new(field, "must not hold spaces, a fragment or other than ASCII; percent-encode them"));
    }
    let (host, port) = split_port(authority);
    if let Some(port) = port
        && (port.len() > PORT_DIGITS_MAX
            || !port.bytes().all(|b| b.is_ascii_digit())
            || !matches!(port.parse(), Ok(1..=u16::MAX)))
    {
        return Err(Error::new(field, "the port must be between 1 and 65535"));
    }
    let loopback = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(inner) => inner.parse::<Ipv6Addr>().map(|ip| ip.is_loopback()).ok(),
        None if is_host(host) => Some(host == "localhost" || host.parse::<Ipv4Addr>().is_ok_and(|ip| ip.is_loopback())),
        None => None,
    };
    let Some(loopback) = loopback else {
        return Err(Error::new(field, format!("must be {URL_FORM}; {host:?} isn't a host")));
    };
    let (scheme, default) = if tls { ("https", "443") } else { ("http", "80") };
    let origin = format!("{scheme}://{}:{}", host.to_ascii_lowercase(), port.unwrap_or(default));
    Ok(Url { exposed: !tls && !loopback, has_path: !path.is_empty(), origin })
}

/// A Service by name. `field` is the webhook; `protocol` is http where it isn't given, an empty `path` is `/`.
pub(super) fn service(
    field: &str,
    (name, namespace): (&str, &str),
    port: Option<i32>,
    protocol: Option<&str>,
    path: Option<&str>,
) -> Result<Address, Error> {
    for (part, text, what) in [("name", name, "a Service"), ("namespace", namespace, "a namespace")] {
        if text.len() > LABEL_MAX || !is_dns(text, b"-") {
            let message = format!("must be the name of {what}, lower-case letters, digits and dashes, not {text:?}");
            return Err(Error::new(format!("{field}.service.{part}"), message));
        }
    }
    let port = match port.map(u16::try_from) {
        None => SERVICE_PORT_DEFAULT,
        Some(Ok(port @ 1..)) => port,
        Some(_) => return Err(Error::new(format!("{field}.service.port"), "must be between 1 and 65535")),
    };
    let tls = match protocol {
        None | Some("http" | "") => false,
        Some("https") => true,
        Some(other) => {
            return Err(Error::new(
                format!("{field}.service.protocol"),
                format!("must be http or https, not {other:?}"),
            ));
        }
    };
    let path = self::path(field, path)?;
    Ok(Address::Service { name: name.into(), namespace: namespace.into(), port, tls, path })
}

/// Path and query behind host and port. `field` is the webhook; an empty `path` is `/`.
pub(super) fn path(field: &str, path: Option<&str>) -> Result<Arc<str>, Error> {
    let path = path.filter(|path| !path.is_empty()).unwrap_or("/");
    if !path.starts_with('/') || !is_visible(path) || path.len() > URL_MAX {
        let message = format!("must start with / and hold no spaces or fragment, such as /sync, not {path:?}");
        return Err(Error::new(format!("{field}.path"), message));
    }
    Ok(path.into())
}

/// Certificates of authorities as they stand in the controller.
pub(super) fn inline_ca(field: &str, text: &str) -> Result<CaBundle, Error> {
    if text.len() > CA_BUNDLE_MAX as usize {
        return Err(Error::new(field, format!("must be at most {CA_BUNDLE_MAX} characters")));
    }
    if !text.contains("-----BEGIN CERTIFICATE-----") {
        return Err(Error::new(field, "must be certificates in PEM, as they are, not in base64"));
    }
    Ok(CaBundle::Inline(text.into()))
}

/// An entry of a Secret or ConfigMap, by the object's name and namespace; its key is `ca.crt` where none is given.
pub(super) fn entry(field: &str, (name, namespace): (&str, &str), key: Option<&str>) -> Result<Entry, Error> {
    let key = data_key(&format!("{field}.key"), key, "ca.crt")?;
    Ok(Entry { object: reference(field, name, namespace)?, key })
}

/// A certificate in a Secret, by its name and namespace; the keys are those of type `kubernetes.io/tls` where none are given.
pub(super) fn client_certificate(
    field: &str,
    (name, namespace): (&str, &str),
    certificate: Option<&str>,
    private_key: Option<&str>,
) -> Result<ClientCertificate, Error> {
    Ok(ClientCertificate {
        secret: reference(&format!("{field}.secretRef"), name, namespace)?,
        certificate: data_key(&format!("{field}.certKey"), certificate, "tls.crt")?,
        private_key: data_key(&format!("{field}.privateKeyKey"), private_key, "tls.key")?,
    })
}

/// A token in a Secret, by its name and namespace; the scheme is Bearer where none is given.
pub(super) fn token(
    field: &str,
    scheme: Option<&str>,
    (name, namespace): (&str, &str),
    key: Option<&str>,
) -> Result<Auth, Error> {
    let scheme = scheme.unwrap_or(SCHEME_DEFAULT);
    if scheme.eq_ignore_ascii_case("Basic") {
        let message = "Basic is what basicAuth is for, with user name and password; use that instead of authorization";
        return Err(Error::new(format!("{field}.type"), message));
    }
    if scheme.len() > AUTH_SCHEME_MAX as usize || !is_token(scheme) {
        let message = format!("must be the name of a scheme, such as Bearer, without spaces, not {scheme:?}");
        return Err(Error::new(format!("{field}.type"), message));
    }
    let field = format!("{field}.secretRef");
    let object = reference(&field, name, namespace)?;
    let field = format!("{field}.key");
    if key.is_none_or(str::is_empty) {
        return Err(Error::new(field, "is missing; name the Secret's entry that holds the token"));
    }
    Ok(Auth::Token { scheme: scheme.into(), entry: Entry { object, key: data_key(&field, key, "")? } })
}

/// User name and password in a Secret, by its name and namespace; the keys are those of type `kubernetes.io/basic-auth`
/// where none are given.
pub(super) fn basic(
    field: &str,
    (name, namespace): (&str, &str),
    username: Option<&str>,
    password: Option<&str>,
) -> Result<Auth, Error> {
    Ok(Auth::Basic {
        secret: reference(&format!("{field}.secretRef"), name, namespace)?,
        username: data_key(&format!("{field}.usernameKey"), username, "username")?,
        password: data_key(&format!("{field}.passwordKey"), password, "password")?,
    })
}

/// Both at once.
pub(super) fn one_auth(field: &str) -> Error {
    Error::new(format!("{field}.authorization"), "excludes basicAuth; remove one of them")
}

/// Whether calls there go to another machine by plain http.
pub(super) fn is_exposed(address: &Address) -> bool {
    let by_url = |text: &str| url("url", text).is_ok_and(|url| url.exposed);
    match address {
        Address::Url(url) => by_url(url),
        Address::Urls { urls, .. } => urls.iter().any(|url| by_url(url)),
        Address::Service { tls, .. } => !tls,
    }
}

fn reference(field: &str, name: &str, namespace: &str) -> Result<ObjectKey, Error> {
    for (part, text, longest, inside) in
        [("name", name, SUBDOMAIN_MAX, b".-".as_slice()), ("namespace", namespace, LABEL_MAX, b"-")]
    {
        if text.len() > longest || !is_dns(text, inside) {
            let message = format!("must be given, in lower-case letters, digits and dashes, not {text:?}");
            return Err(Error::new(format!("{field}.{part}"), message));
        }
    }
    Ok(ObjectKey::new(namespace, name))
}

fn data_key(field: &str, key: Option<&str>, default: &str) -> Result<Arc<str>, Error> {
    let key = key.filter(|key| !key.is_empty()).unwrap_or(default);
    if key.len() > SUBDOMAIN_MAX || !key.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._".contains(&b)) {
        return Err(Error::new(field, format!("must be a key of the object's data, not {key:?}")));
    }
    Ok(key.into())
}

fn split_port(authority: &str) -> (&str, Option<&str>) {
    match authority.rsplit_once(':') {
        Some((host, port)) if !port.contains(']') => (host, Some(port)),
        _ => (authority, None),
    }
}

fn is_host(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
}

/// Whether the text is printable ASCII without spaces and fragment.
fn is_visible(text: &str) -> bool {
    text.bytes().all(|b| b.is_ascii_graphic() && b != b'#')
}

/// Whether the text is a token of HTTP (RFC 9110, 5.6.2).
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
}

/// Whether the text is a DNS label that starts with a letter, as versions and plural names are.
fn is_resource(text: &str) -> bool {
    text.len() <= LABEL_MAX && text.starts_with(|c: char| c.is_ascii_lowercase()) && is_dns(text, b"-")
}

/// Whether the text is lower-case letters, digits and, but not at its ends, what `inside` allows.
fn is_dns(text: &str, inside: &[u8]) -> bool {
    let outer = |b: Option<&u8>| b.is_some_and(|b| !inside.contains(b));
    let bytes = text.as_bytes();
    outer(bytes.first())
        && outer(bytes.last())
        && bytes.iter().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || inside.contains(b))
}
