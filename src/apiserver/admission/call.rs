//! One question on its way to a webhook, over TLS that trusts its `caBundle` and nobody else.
//!
//! Never asks twice, never follows a redirect, and keeps no connection: each call makes its own, which ends with it.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, USER_AGENT};
use http::{Method, Uri};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper_rustls::HttpsConnectorBuilder;
use hyper_util::client::legacy::Client;
use hyper_util::rt::TokioExecutor;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use serde_json::Value;

use super::{Failure, Webhook};
use crate::discovery::GIT_VERSION;

/// Largest answer that is read.
const MAX_ANSWER_BYTES: usize = 3 << 20;
/// Longest time that a webhook may be given.
const MAX_TIMEOUT_SECONDS: u64 = 30;
/// Certificates in one bundle.
const MAX_AUTHORITIES: usize = 256;
/// Of an answer that is an error, as much is shown.
const SHOWN_CHARS: usize = 200;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    /// Nobody could be trusted.
    #[error("the caBundle can't be used: {0}")]
    Bundle(String),
    /// Nobody answered.
    #[error("Post {url:?}: {why}")]
    Post { url: String, why: String },
    /// It answered that it can't.
    #[error("an error on the server ({text:?}) has prevented the request from succeeding (status {code})")]
    Status { code: u16, text: String },
}

/// Asks a webhook.
///
/// # Errors
/// If it can't be called from here, or doesn't answer in time with a success.
pub(super) async fn call(webhook: &Webhook<'_>, question: &Value) -> Result<Bytes, Failure> {
    let client = &webhook.0["clientConfig"];
    let Some(url) = client["url"].as_str() else {
        return Err(Failure::Unsupported(
            "the embedded API server reaches no Services; clientConfig.url can be called",
        ));
    };
    let seconds = webhook.0["timeoutSeconds"].as_u64().unwrap_or(MAX_TIMEOUT_SECONDS).clamp(1, MAX_TIMEOUT_SECONDS);
    let url = format!("{url}?timeout={seconds}s");
    let failed = |why: String| Error::Post { url: url.clone(), why };
    let uri = url.parse::<Uri>().map_err(|error| failed(error.to_string()))?;
    let trusting = trusting(client["caBundle"].as_str().unwrap_or_default()).map_err(Error::Bundle)?;
    let posted = tokio::time::timeout(Duration::from_secs(seconds), post(uri, trusting, question));
    match posted.await {
        Ok(Ok((code, body))) if (200..300).contains(&code) => Ok(body),
        Ok(Ok((code, body))) => {
            let text = String::from_utf8_lossy(&body).trim().chars().take(SHOWN_CHARS).collect();
            Err(Error::Status { code, text }.into())
        }
        Ok(Err(why)) => Err(failed(why).into()),
        Err(_) => Err(failed("context deadline exceeded".to_owned()).into()),
    }
}

/// TLS by an authority of the bundle.
fn trusting(bundle: &str) -> Result<ClientConfig, String> {
    let pem = STANDARD.decode(bundle).map_err(|error| error.to_string())?;
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&pem).take(MAX_AUTHORITIES) {
        let certificate = certificate.map_err(|error| error.to_string())?;
        roots.add(certificate).map_err(|error| error.to_string())?;
    }
    if roots.is_empty() {
        return Err("it has no certificate".to_owned());
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = builder.map_err(|error| error.to_string())?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

async fn post(uri: Uri, trusting: ClientConfig, question: &Value) -> Result<(u16, Bytes), String> {
    let connector = HttpsConnectorBuilder::new().with_tls_config(trusting).https_only().enable_http1().build();
    let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(0).build(connector);
    let request = http::Request::builder()
        .method(Method::POST)
        .uri(uri)
        .header(CONTENT_TYPE, "application/json")
        .header(ACCEPT, "application/json")
        .header(USER_AGENT, format!("kube-apiserver-admission/{GIT_VERSION}"))
        .body(Full::new(Bytes::from(question.to_string())))
        .map_err(|error| error.to_string())?;
    let answered = client.request(request).await.map_err(|error| causes(&error))?;
    let (head, body) = answered.into_parts();
    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await.map_err(|error| error.to_string())?;
    Ok((head.status.as_u16(), body.to_bytes()))
}

/// An error with what led to it: the outermost only says that there was one.
fn causes(error: &hyper_util::client::legacy::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        let words = next.to_string();
        if !text.ends_with(&words) {
            text = format!("{text}: {words}");
        }
        cause = next.source();
    }
    text
}
