//! What a webhook's TLS connections are made with: authorities, and our certificate.
//!
//! Never reads a file or a Secret: PEM texts come in, a configuration goes out. Never sends more than the certificate.

use std::sync::Arc;

use hyper_rustls::ConfigBuilderExt;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ClientConfig, RootCertStore};

use crate::Error;

/// Certificates in one PEM text at most: authorities, or a chain.
const MAX_CERTIFICATES: usize = 1024;

/// PEM texts, as they were declared or read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pem {
    /// The authorities to trust instead of the system's.
    pub ca: Option<Vec<u8>>,
    /// Our certificate, with what signed it, and its private key.
    pub client: Option<(Vec<u8>, Vec<u8>)>,
}

/// A configuration of TLS 1.2 and 1.3.
///
/// # Errors
/// If there is no usable certificate in a text, or the key isn't the certificate's.
pub(crate) fn configure(pem: &Pem) -> Result<Arc<ClientConfig>, Error> {
    let problem = |field: &str, text: String| Error::Credentials(format!("{field}: {text}"));
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(Arc::<CryptoProvider>::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::Credentials(error.to_string()))?;
    let builder = match &pem.ca {
        None => builder
            .with_native_roots()
            .map_err(|error| Error::Credentials(format!("no usable certificate store: {error}")))?,
        Some(text) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(text).map_err(|text| problem("caBundle", text))? {
                roots.add(certificate).map_err(|error| problem("caBundle", error.to_string()))?;
            }
            builder.with_root_certificates(roots)
        }
    };
    let config = match &pem.client {
        None => builder.with_no_client_auth(),
        Some((chain, key)) => {
            let chain = certificates(chain).map_err(|text| problem("clientTLS: the certificate", text))?;
            let key = PrivateKeyDer::from_pem_slice(key)
                .map_err(|error| problem("clientTLS", format!("no private key in PEM: {error}")))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| problem("clientTLS", error.to_string()))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(text: &[u8]) -> Result<Vec<CertificateDer<'static>>, String> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(text).take(MAX_CERTIFICATES).collect();
    match found {
        Ok(found) if found.is_empty() => Err("no certificate in PEM".to_owned()),
        Ok(found) => Ok(found),
        Err(error) => Err(format!("not PEM: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};

    use super::*;

    fn pair() -> (Vec<u8>, Vec<u8>) {
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["a".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem().into_bytes(), key.serialize_pem().into_bytes())
    }

    #[test]
    fn texts_become_a_configuration_or_an_error_that_names_the_field() {
        let (own, other) = (pair(), pair());
        assert!(configure(&Pem::default()).is_ok());
        let both = [own.0.clone(), other.0.clone()].concat();
        assert!(configure(&Pem { ca: Some(both), client: Some(own.clone()) }).is_ok());
        let fails = |ca: Option<&[u8]>, client: Option<(&[u8], &[u8])>| {
            let client = client.map(|(chain, key)| (chain.to_vec(), key.to_vec()));
            configure(&Pem { ca: ca.map(<[u8]>::to_vec), client }).unwrap_err().to_string()
        };
        for (error, field) in [
            (fails(Some(b""), None), "caBundle: no certificate"),
            (fails(Some(b"-----BEGIN CERTIFICATE-----\n!"), None), "caBundle: "),
            (fails(Some(&own.1), None), "caBundle: no certificate"),
            (fails(None, Some((b"x", &own.1))), "clientTLS: the certificate: no certificate"),
            (fails(None, Some((&own.0, &own.0))), "clientTLS: no private key"),
            (fails(None, Some((&own.0, &other.1))), "clientTLS: "),
        ] {
            assert!(error.contains(field), "{error}");
        }
    }
}
