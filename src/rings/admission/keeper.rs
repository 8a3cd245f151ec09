//! Keeps the certificate: reads the Secret, decides, writes, and shows what is kept. A thin shell around [`decide`].
//!
//! It has no task and no timer: whoever owns it calls [`Keeper::round`] when that says so, or when the Secret is seen to
//! change. Any member makes the first certificate; all else is the leader's. Never writes a configuration: the leader
//! applies those with [`Keeper::bundle`], and brings along what it reads of them.

use std::sync::Arc;
use std::time::Duration;

use ringmaster_cluster::Client;
use ringmaster_core::key::ObjectKey;
use ringmaster_core::object::Object;
use serde_json::Value;

use super::certificate::{self, Kept, Step, decide, follow};
use super::configuration::trusts;
use super::secret;
use super::serve::Shown;

/// How long until the Secret is read again though nothing is due.
pub const LOOK_INTERVAL: Duration = Duration::from_secs(30);
/// The same while something is on its way.
pub const SOON: Duration = Duration::from_secs(5);

/// Why a round came to nothing. What was shown before is shown on.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The API server can't be asked, or refuses.
    #[error("the certificate for admission: {0}")]
    Api(#[from] ringmaster_cluster::Error),
    /// The Secret can't be used.
    #[error(transparent)]
    Secret(#[from] secret::Error),
    /// A certificate can't be made or used.
    #[error(transparent)]
    Certificate(#[from] certificate::Error),
}

/// Where the one Secret is.
pub trait Store: Send + Sync {
    /// Its namespace.
    fn namespace(&self) -> &str;

    /// Reads it; `None` if it isn't there.
    ///
    /// # Errors
    /// If that can't be told.
    fn read(&self) -> impl Future<Output = Result<Option<Object>, ringmaster_cluster::Error>> + Send;

    /// Creates it.
    ///
    /// # Errors
    /// If it is there already, or the call fails.
    fn create(&self, body: Vec<u8>) -> impl Future<Output = Result<Object, ringmaster_cluster::Error>> + Send;

    /// Replaces it; the body's uid and resourceVersion are the preconditions.
    ///
    /// # Errors
    /// If it is another by now, or the call fails.
    fn replace(&self, body: Vec<u8>) -> impl Future<Output = Result<Object, ringmaster_cluster::Error>> + Send;
}

/// The Secret at the API server.
pub struct Cluster {
    client: Client,
    key: ObjectKey,
}

impl Cluster {
    /// In the namespace of the members' Leases.
    #[must_use]
    pub fn new(client: Client, namespace: &str) -> Self {
        Self { client, key: ObjectKey::new(namespace, secret::NAME) }
    }
}

impl Store for Cluster {
    fn namespace(&self) -> &str {
        self.key.namespace()
    }

    async fn read(&self) -> Result<Option<Object>, ringmaster_cluster::Error> {
        self.client.get(&secret::resource(), &self.key).await
    }

    async fn create(&self, body: Vec<u8>) -> Result<Object, ringmaster_cluster::Error> {
        self.client.create(&secret::resource(), self.key.namespace(), body).await
    }

    async fn replace(&self, body: Vec<u8>) -> Result<Object, ringmaster_cluster::Error> {
        self.client.replace(&secret::resource(), &self.key, body).await
    }
}

/// When a round is.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// By the wall clock, since 1970: for certificates alone.
    pub wall: Duration,
    /// By a clock that never jumps.
    pub boot: Duration,
}

/// What a round came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round {
    /// What is kept has changed since the last round: the leader applies the configurations.
    pub has_changed: bool,
    /// When to come again, at the latest.
    pub again: Duration,
}

/// Keeps one member's certificate.
pub struct Keeper<S> {
    store: S,
    names: Vec<String>,
    shown: Arc<Shown>,
    /// What was last read, or written.
    known: Option<Kept>,
    /// The next certificate's authority, and since when all configurations have been seen to carry it.
    trusted: Option<(String, Duration)>,
}

impl<S: Store> Keeper<S> {
    /// Keeps a certificate for these names ([`super::configuration::Reach::names`]). Nothing is shown before the first
    /// round.
    pub fn new(store: S, names: Vec<String>, shown: Arc<Shown>) -> Self {
        Self { store, names, shown, known: None, trusted: None }
    }

    /// What the configurations are to carry; `None` before anything was read.
    pub fn bundle(&self) -> Option<String> {
        self.known.as_ref().map(Kept::bundle)
    }

    /// Reads the Secret, shows what it keeps, and takes the next step if there is one. `led` is for the leader alone: the
    /// configurations of all rings, read after the last round. Safe to drop at any point.
    ///
    /// # Errors
    /// If the Secret can't be read, written or used; come again after [`SOON`].
    pub async fn round(&mut self, now: Moment, led: Option<&[Value]>) -> Result<Round, Error> {
        let seen = self.store.read().await?;
        let mut has_changed = false;
        let kept = match seen.as_ref().map(secret::read) {
            None => None,
            Some(Ok(kept)) => {
                has_changed = self.take(kept)?;
                self.known.clone()
            }
            // The leader mends it: as it is, it serves nobody.
            Some(Err(error @ secret::Error::Broken { .. })) if led.is_some() => {
                tracing::warn!("{error}; it is mended");
                None
            }
            Some(Err(error)) => return Err(error.into()),
        };
        let trusted_for = self.trusted_for(now, led);
        let next = match (kept, led) {
            (None, _) => self.first(now.wall)?,
            (Some(_), None) => None,
            (Some(kept), Some(_)) => {
                let step = decide(now.wall, Some(&kept), &self.names, trusted_for);
                if step == Step::Await {
                    return Ok(Round { has_changed, again: SOON });
                }
                follow(step, now.wall, Some(kept), &self.names)?
            }
        };
        let Some(next) = next else { return Ok(Round { has_changed, again: LOOK_INTERVAL }) };
        let body = secret::write(&next, self.store.namespace(), seen.as_ref()).to_string().into_bytes();
        let written = match seen {
            None => self.store.create(body).await,
            Some(_) => self.store.replace(body).await,
        };
        match written {
            Ok(written) => {
                let has_changed = self.take(secret::read(&written)?)? || has_changed;
                Ok(Round { has_changed, again: SOON })
            }
            // Somebody else was first: it is read the next time.
            Err(error) if error.is_already_exists() || error.is_conflict() => Ok(Round { has_changed, again: SOON }),
            Err(error) => Err(error.into()),
        }
    }

    /// What to keep where nothing is: what members show still, if it can be used, so that a deleted or damaged Secret
    /// breaks nothing.
    fn first(&self, now: Duration) -> Result<Option<Kept>, Error> {
        match decide(now, self.known.as_ref(), &self.names, None) {
            Step::Make => Ok(follow(Step::Make, now, None, &self.names)?),
            _ => Ok(self.known.clone()),
        }
    }

    /// For how long all configurations have been seen to carry the next certificate's authority.
    fn trusted_for(&mut self, now: Moment, led: Option<&[Value]>) -> Option<Duration> {
        let next = self.known.as_ref().and_then(|known| known.next.as_ref());
        let awaited = next.filter(|next| led.is_some_and(|all| all.iter().all(|one| trusts(one, &next.authority))));
        self.trusted = match (awaited, self.trusted.take()) {
            (None, _) => None,
            (Some(next), Some((authority, since))) if authority == next.authority => Some((authority, since)),
            (Some(next), _) => Some((next.authority.clone(), now.boot)),
        };
        self.trusted.as_ref().map(|(_, since)| now.boot.saturating_sub(*since))
    }

    /// Shows what is kept. Tells whether it is something else than before.
    fn take(&mut self, kept: Kept) -> Result<bool, Error> {
        if self.known.as_ref() == Some(&kept) {
            return Ok(false);
        }
        self.shown.show(&kept.current)?;
        self.known = Some(kept);
        Ok(true)
    }
}

#[cfg(test)]
#[path = "keeper_tests.rs"]
mod tests;
