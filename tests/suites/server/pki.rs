//! Keys and certificates of one server run: a CA, its serving certificate for loopback, the service-account key.
//!
//! Never used twice: each run makes its own, in a folder that only the owner can read.

use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};

/// Where the files of one run lie.
pub(crate) struct Pki {
    /// The CA's certificate, PEM.
    pub(crate) ca_file: PathBuf,
    /// The same, DER, for clients in this process.
    pub(crate) ca_der: Vec<u8>,
    /// The serving certificate for `127.0.0.1` and `localhost`, PEM.
    pub(crate) cert_file: PathBuf,
    /// Its key, PEM.
    pub(crate) key_file: PathBuf,
    /// The key that signs service-account tokens (ECDSA P-256; kube-apiserver takes it as it takes RSA), PEM.
    pub(crate) service_account_key: PathBuf,
    /// Its public half, PEM.
    pub(crate) service_account_public: PathBuf,
}

impl Pki {
    /// Makes all of it in `dir`.
    ///
    /// # Errors
    /// A file can't be written, or (never seen) a key can't be made.
    pub(crate) fn create(dir: &Path) -> anyhow::Result<Self> {
        let ca_key = KeyPair::generate()?;
        let mut ca_params = CertificateParams::new(Vec::new())?;
        ca_params.distinguished_name.push(DnType::CommonName, "ringmaster suites CA");
        ca_params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        ca_params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let ca = ca_params.self_signed(&ca_key)?;
        let issuer = Issuer::new(ca_params, ca_key);

        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
        params.distinguished_name.push(DnType::CommonName, "kube-apiserver");
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let certificate = params.signed_by(&key, &issuer)?;

        let account = KeyPair::generate()?;
        Ok(Self {
            ca_file: write(dir, "ca.pem", &ca.pem())?,
            ca_der: ca.der().to_vec(),
            cert_file: write(dir, "server.pem", &certificate.pem())?,
            key_file: write(dir, "server-key.pem", &key.serialize_pem())?,
            service_account_key: write(dir, "service-account-key.pem", &account.serialize_pem())?,
            service_account_public: write(dir, "service-account.pem", &account.public_key_pem())?,
        })
    }
}

/// Writes a file that only the owner can read.
///
/// # Errors
/// The file can't be written; it is named.
pub(crate) fn write(dir: &Path, name: &str, text: &str) -> anyhow::Result<PathBuf> {
    let path = dir.join(name);
    let open = std::fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&path);
    let written = open.and_then(|mut file| std::io::Write::write_all(&mut file, text.as_bytes()));
    written.with_context(|| format!("write {}", path.display()))?;
    Ok(path)
}
