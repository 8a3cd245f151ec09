//! TLS on loopback: a certificate of one's own, and a listener that shakes hands beside accepting.
//!
//! kubectl keeps tokens to itself unless the connection is encrypted, so a server with users needs this. Never writes a
//! key anywhere, and never trusts a certificate of a client's.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::serve::Listener;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;

/// Handshakes at once; more connections wait to be accepted.
const MAX_HANDSHAKES: usize = 128;
/// Longest time that a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);
/// Pause after a failed accept: most often there is no file descriptor left for a moment.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// Who the certificate is for.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

/// Why there is no TLS.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A certificate can't be made.
    #[error("making a certificate")]
    Make(#[from] rcgen::Error),
    /// A certificate or key can't be read.
    #[error("reading a certificate")]
    Read(#[from] rustls::pki_types::pem::Error),
    /// The operating system gives no random bits.
    #[error("the operating system gives no random bits")]
    Random,
    /// They don't fit.
    #[error("using a certificate")]
    Use(#[from] rustls::Error),
}

/// Bits that nobody can guess, from the operating system: for tokens.
///
/// # Errors
/// If there are none.
pub fn random_bits() -> Result<u128, Error> {
    let mut bytes = [0; 16];
    rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes).map_err(|_| Error::Random)?;
    Ok(u128::from_ne_bytes(bytes))
}

/// A certificate, its key, and the authority that clients shall trust. All PEM.
#[derive(Clone)]
pub struct Certificate {
    /// The authority's certificate.
    pub authority: String,
    /// The server's certificate.
    pub certificate: String,
    /// The server's key.
    pub key: String,
}

impl Certificate {
    /// A new one for loopback, by an authority whose key is forgotten at once.
    ///
    /// # Errors
    /// If a key can't be made.
    pub fn for_loopback(name: &str) -> Result<Self, Error> {
        let authority_key = KeyPair::generate()?;
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name.push(DnType::CommonName, format!("{name} CA"));
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let signed = authority.self_signed(&authority_key)?;
        let issuer = Issuer::new(authority, authority_key);

        let key = KeyPair::generate()?;
        let mut server = CertificateParams::new(NAMES.map(str::to_owned))?;
        server.distinguished_name.push(DnType::CommonName, name);
        server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = server.signed_by(&key, &issuer)?;
        Ok(Self { authority: signed.pem(), certificate: certificate.pem(), key: key.serialize_pem() })
    }

    fn config(&self) -> Result<ServerConfig, Error> {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes()).collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())?;
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
        Ok(builder.with_no_client_auth().with_single_cert(chain, key)?)
    }
}

/// Connections after their handshakes. Dropping it stops accepting.
pub struct TlsListener {
    ready: mpsc::Receiver<(TlsStream<TcpStream>, SocketAddr)>,
    address: SocketAddr,
    _accepting: AbortOnDropHandle<()>,
}

impl TlsListener {
    /// Puts TLS on a listener; needs a runtime.
    ///
    /// # Errors
    /// If the certificate can't be used.
    pub fn new(listener: TcpListener, certificate: &Certificate) -> Result<Self, Error> {
        let acceptor = TlsAcceptor::from(Arc::new(certificate.config()?));
        let address = listener.local_addr().unwrap_or_else(|_| SocketAddr::from(([127, 0, 0, 1], 0)));
        let (sender, ready) = mpsc::channel(MAX_HANDSHAKES);
        let accepting = tokio::spawn(accept(listener, acceptor, sender));
        Ok(Self { ready, address, _accepting: AbortOnDropHandle::new(accepting) })
    }
}

async fn accept(listener: TcpListener, acceptor: TlsAcceptor, ready: mpsc::Sender<(TlsStream<TcpStream>, SocketAddr)>) {
    let room = Arc::new(Semaphore::new(MAX_HANDSHAKES));
    while let Ok(permit) = Arc::clone(&room).acquire_owned().await {
        let (stream, address) = match listener.accept().await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::warn!("accepting a connection: {error}");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        let (acceptor, ready) = (acceptor.clone(), ready.clone());
        // Ends by itself in a bounded time; what it leads to is dropped when nobody waits for it.
        tokio::spawn(async move {
            let _ = stream.set_nodelay(true);
            if let Ok(Ok(stream)) = tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
                let _ = ready.send((stream, address)).await;
            }
            drop(permit);
        });
    }
}

impl Listener for TlsListener {
    type Io = TlsStream<TcpStream>;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (Self::Io, Self::Addr) {
        match self.ready.recv().await {
            Some(accepted) => accepted,
            // The accepting task ends with this value only.
            None => std::future::pending().await,
        }
    }

    fn local_addr(&self) -> io::Result<Self::Addr> {
        Ok(self.address)
    }
}
