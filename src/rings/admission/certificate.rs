//! Who we are to the API server: certificates, each by an authority of its own whose key is forgotten at once.
//!
//! All members show the same certificate, which a Secret keeps ([`super::secret`]). One is good for [`VALIDITY`], and from
//! [`RENEWED_AFTER`] on the leader replaces it in an order that never breaks a call:
//!
//! 1. [`Step::Announce`]: the next one is made and kept beside the present. Its authority joins the bundle; everybody goes
//!    on showing the present one.
//! 2. The bundle goes into all rings' configurations, read back from the Secret. Once all have been seen to carry it for
//!    [`SETTLED`], each API server has seen it too.
//! 3. [`Step::Switch`]: the next becomes the present. Members show it when they read the Secret, some sooner than others:
//!    either is trusted.
//! 4. The replaced one's authority stays in the bundle until that certificate's end; a member that still shows it then
//!    would fail anyway. [`Step::Forget`] takes it out.
//!
//! Every step is one write of the Secret by its version, decided by what it holds, so that a leader that dies in the
//! middle leaves a state to go on from, and two at once do no harm. Where nothing usable is kept ([`Step::Make`]) nothing
//! can break: calls fail open until all have followed.
//!
//! Certificates are about the wall clock, so here alone it decides something; a clock that is wrong costs a rotation.
//! Never reads a clock itself, never writes; keys are drawn at random.

use std::fmt;
use std::time::Duration;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// How long a certificate is good for.
pub const VALIDITY: Duration = DAY.saturating_mul(90);
/// How long after it was made it is replaced: at two thirds.
pub const RENEWED_AFTER: Duration = DAY.saturating_mul(60);
/// A certificate is good from so long before it was made: clocks differ.
const BACKDATED: Duration = Duration::from_secs(60 * 60);
/// For how long all configurations carry a new authority before a certificate of it is shown: the API servers learn of
/// them by a watch, each for itself.
pub const SETTLED: Duration = Duration::from_secs(60);
/// Most authorities in a bundle beside the present's and the next one's. Those whose certificates end first give way.
pub const MAX_RETIRED: usize = 4;
/// The last moment that certificates are made at, since 1970: in the year 8307. Beyond it, dates can't be written.
const LAST: Duration = Duration::from_secs(200_000_000_000);
/// Most certificates in one PEM text.
const MAX_CERTIFICATES: usize = 64;

/// What is wrong with a certificate.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// It can't be made.
    #[error("can't make a certificate for {names}: {source}")]
    Make {
        /// Whom it was to be for.
        names: String,
        /// Why.
        source: rcgen::Error,
    },
    /// The clock is beyond what a certificate can say.
    #[error("can't make a certificate {0:?} after 1970; set the machine's clock")]
    Clock(Duration),
    /// It can't be read.
    #[error("no certificate and key in PEM: {0}")]
    Pem(#[from] rustls::pki_types::pem::Error),
    /// It can't be used.
    #[error("the certificate can't be used: {0}")]
    Use(#[from] rustls::Error),
}

/// A serving certificate, its key, and the authority that clients are to trust. Moments are since 1970.
#[derive(Clone, PartialEq, Eq)]
pub struct Pair {
    /// The authority's certificate, PEM.
    pub authority: String,
    /// The certificate, PEM.
    pub certificate: String,
    /// Its private key, PEM.
    pub key: String,
    /// When it was made, in whole seconds.
    pub made: Duration,
    /// When it ends, in whole seconds.
    pub ends: Duration,
    /// Whom it is for: DNS names and addresses.
    pub names: Vec<String>,
}

impl Pair {
    /// A new one, made at `now` (since 1970).
    ///
    /// # Errors
    /// If a name is neither an address nor can be a DNS name, there are no random bits, or the clock is absurd.
    pub fn make(now: Duration, names: &[String]) -> Result<Self, Error> {
        if now > LAST {
            return Err(Error::Clock(now));
        }
        let made = Duration::from_secs(now.as_secs());
        let ends = made + VALIDITY;
        let fail = |source| Error::Make { names: names.join(", "), source };
        let [authority, certificate, key] = signed(made, ends, names).map_err(fail)?;
        Ok(Self { authority, certificate, key, made, ends, names: names.to_vec() })
    }

    /// The same for a TLS server.
    ///
    /// # Errors
    /// If it can't be read, or the key isn't the certificate's.
    pub fn certified(&self) -> Result<CertifiedKey, Error> {
        let chain = CertificateDer::pem_slice_iter(self.certificate.as_bytes()).take(MAX_CERTIFICATES);
        let chain = chain.collect::<Result<Vec<_>, _>>()?;
        let key = PrivateKeyDer::from_pem_slice(self.key.as_bytes())?;
        Ok(CertifiedKey::from_der(chain, key, &rustls::crypto::ring::default_provider())?)
    }

    /// Whether the API server would take it at `now`. One that is from the future was made by a wrong clock.
    fn is_usable(&self, now: Duration) -> bool {
        self.made <= now.saturating_add(BACKDATED) && now < self.ends
    }

    fn is_for(&self, names: &[String]) -> bool {
        names.iter().all(|name| self.names.contains(name))
    }
}

/// Without its key.
impl fmt::Debug for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { made, ends, names, .. } = self;
        f.debug_struct("Pair").field("made", made).field("ends", ends).field("names", names).finish_non_exhaustive()
    }
}

fn signed(made: Duration, ends: Duration, names: &[String]) -> Result<[String; 3], rcgen::Error> {
    let epoch = date_time_ymd(1970, 1, 1);
    let (not_before, not_after) = (epoch + made.saturating_sub(BACKDATED), epoch + ends);

    let authority_key = KeyPair::generate()?;
    let mut authority = CertificateParams::new(Vec::new())?;
    // Two are in one bundle: their names tell them apart.
    authority.distinguished_name.push(DnType::CommonName, format!("ringmaster admission CA {}", made.as_secs()));
    authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    authority.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    (authority.not_before, authority.not_after) = (not_before, not_after);
    let root = authority.self_signed(&authority_key)?;
    let issuer = Issuer::new(authority, authority_key);

    let key = KeyPair::generate()?;
    let mut server = CertificateParams::new(names)?;
    server.distinguished_name.push(DnType::CommonName, "ringmaster admission");
    server.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    server.use_authority_key_identifier_extension = true;
    (server.not_before, server.not_after) = (not_before, not_after);
    let certificate = server.signed_by(&key, &issuer)?;
    Ok([root.pem(), certificate.pem(), key.serialize_pem()])
}

/// Whether an authority (PEM) is among the certificates of a bundle.
pub(crate) fn same_pem(bundle: &[u8], authority: &str) -> bool {
    let Ok(authority) = CertificateDer::from_pem_slice(authority.as_bytes()) else { return false };
    CertificateDer::pem_slice_iter(bundle).take(MAX_CERTIFICATES).flatten().any(|one| one == authority)
}

/// An authority that is to be trusted until its certificate's end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retired {
    /// It, PEM.
    pub authority: String,
    /// When its certificate ends, since 1970, in whole seconds.
    pub ends: Duration,
}

/// What the Secret keeps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// What members show.
    pub current: Pair,
    /// What they will show, once it is trusted.
    pub next: Option<Pair>,
    /// What they showed before: at most [`MAX_RETIRED`].
    pub retired: Vec<Retired>,
}

impl Kept {
    /// Every authority to be trusted, PEM: what the configurations carry.
    #[must_use]
    pub fn bundle(&self) -> String {
        let pairs = std::iter::once(&self.current).chain(&self.next).map(|pair| &*pair.authority);
        pairs.chain(self.retired.iter().map(|retired| &*retired.authority)).collect()
    }

    /// With another pair as the present one; what it had is trusted until it ends.
    fn showing(self, pair: Pair, now: Duration) -> Self {
        let mut retired = self.retired;
        retired.push(Retired { authority: self.current.authority, ends: self.current.ends });
        retired.retain(|retired| now < retired.ends);
        retired.sort_by_key(|retired| std::cmp::Reverse(retired.ends));
        retired.truncate(MAX_RETIRED);
        Self { current: pair, next: None, retired }
    }
}

/// What is to be done with what is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing until this moment (since 1970), as far as the clock goes.
    Nothing {
        /// When to look again.
        until: Duration,
    },
    /// Nothing that is kept can be used: make one, to be shown at once.
    Make,
    /// Make the next one. It isn't shown yet.
    Announce,
    /// The next one isn't trusted everywhere yet, or not for long enough: look again soon.
    Await,
    /// Show the next one.
    Switch,
    /// Trust those no more whose certificates have ended.
    Forget,
}

/// What to do at `now` (since 1970), if certificates are to be for `names`. `trusted_for` is for how long all rings'
/// configurations have been seen to carry the next one's authority, by the caller itself; `None` if they don't all.
#[must_use]
pub fn decide(now: Duration, kept: Option<&Kept>, names: &[String], trusted_for: Option<Duration>) -> Step {
    let Some(Kept { current, next, retired }) = kept else { return Step::Make };
    let next = next.as_ref().filter(|next| next.is_usable(now) && next.is_for(names));
    let is_due = now >= current.made.saturating_add(RENEWED_AFTER) || !current.is_for(names);
    match next {
        // There is nothing to break.
        Some(_) if !current.is_usable(now) => Step::Switch,
        None if !current.is_usable(now) => Step::Make,
        Some(_) if trusted_for.is_some_and(|time| time >= SETTLED) => Step::Switch,
        Some(_) => Step::Await,
        None if is_due => Step::Announce,
        None if retired.iter().any(|retired| retired.ends <= now) => Step::Forget,
        None => {
            let renewal = current.made.saturating_add(RENEWED_AFTER);
            Step::Nothing { until: retired.iter().map(|retired| retired.ends).fold(renewal, Duration::min) }
        }
    }
}

/// What is to be kept after a step; `None` if that is what is kept already.
///
/// # Errors
/// If a certificate can't be made.
pub fn follow(step: Step, now: Duration, kept: Option<Kept>, names: &[String]) -> Result<Option<Kept>, Error> {
    match (step, kept) {
        (Step::Nothing { .. } | Step::Await, _) => Ok(None),
        (Step::Make, Some(kept)) => Ok(Some(kept.showing(Pair::make(now, names)?, now))),
        // Without anything kept there is no other step.
        (_, None) => Ok(Some(Kept { current: Pair::make(now, names)?, next: None, retired: Vec::new() })),
        (Step::Announce, Some(kept)) => Ok(Some(Kept { next: Some(Pair::make(now, names)?), ..kept })),
        (Step::Switch, Some(mut kept)) => Ok(kept.next.take().map(|next| kept.showing(next, now))),
        (Step::Forget, Some(mut kept)) => {
            kept.retired.retain(|retired| now < retired.ends);
            Ok(Some(kept))
        }
    }
}

#[cfg(test)]
#[path = "certificate_tests.rs"]
mod tests;
