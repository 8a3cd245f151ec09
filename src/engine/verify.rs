//! The start of shards: a consistent list of metadata, compared with what the streams brought, and what differs read live.
//!
//! Never starts anything by itself, and never makes two checks of one collection at a time: whoever asks while one goes on
//! shares the next with all others who do. What streams bring late afterwards is known to be over.

use std::sync::Arc;

use futures::StreamExt as _;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use ringmaster_core::shards::Shards;

use crate::streams::Shared;

/// Objects read at once for one check.
const READS_AT_ONCE: usize = 16;

/// Why shards couldn't be checked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Everything would differ.
    #[error("the first list of {kind} isn't complete for shards {shards}")]
    NotInformed {
        /// The kind.
        kind: String,
        /// What was to be checked.
        shards: Shards,
    },
    /// A request failed.
    #[error(transparent)]
    Api(#[from] ringmaster_cluster::Error),
}

/// The checks of one collection.
#[derive(Default)]
pub(crate) struct Checks {
    /// Whose turn it is to make one.
    turn: tokio::sync::Mutex<()>,
    asked: Mutex<Asked>,
}

#[derive(Default)]
struct Asked {
    /// The number of the check that begins next.
    next: u64,
    /// What it is to be about, for all who have asked for it.
    shards: Shards,
    /// The last that ended: its number, what it was about, and why it failed.
    last: Option<(u64, Shards, Option<Arc<Error>>)>,
}

impl Asked {
    /// What came of a check that began after it was asked for, if there was one.
    fn outcome(&self, number: u64, shards: &Shards) -> Option<Result<(), Arc<Error>>> {
        let (last, checked, failed) = self.last.as_ref()?;
        let serves = *last >= number && shards.is_within(checked);
        serves.then(|| failed.clone().map_or(Ok(()), Err))
    }
}

impl Shared {
    /// As of a moment after the call, these shards are known as the API server has them.
    ///
    /// # Errors
    /// As of the check, which may then be tried again.
    pub(crate) async fn verify(&self, shards: Shards) -> Result<(), Arc<Error>> {
        let number = {
            let mut asked = self.checks.asked.lock();
            asked.shards = asked.shards.union(&shards);
            asked.next
        };
        let _turn = self.checks.turn.lock().await;
        let (this, about) = {
            let mut asked = self.checks.asked.lock();
            if let Some(outcome) = asked.outcome(number, &shards) {
                return outcome;
            }
            asked.next += 1;
            // Whoever took it over from here may have been cancelled.
            (asked.next - 1, std::mem::take(&mut asked.shards).union(&shards))
        };
        let outcome = self.check(about).await.map_err(Arc::new);
        self.checks.asked.lock().last = Some((this, about, outcome.clone().err()));
        outcome
    }

    /// Brings what is known of these shards to where the API server is now: what is missing or of another version is read
    /// live, what isn't there goes. Shards that aren't wanted, or not any more, are left out; of what isn't sharded, all
    /// is checked.
    ///
    /// # Errors
    /// If a first list isn't complete or a request fails; it may then be tried again.
    async fn check(&self, shards: Shards) -> Result<(), Error> {
        loop {
            let (shards, moment, selector) = {
                let collection = self.collection.read();
                let (shards, streams) = (collection.checkable(&shards), collection.streams());
                if !shards.is_within(&streams.informed()) {
                    return Err(Error::NotInformed { kind: self.resource().to_string(), shards });
                }
                (shards, streams.moment(), collection.selector(&shards))
            };
            if shards.is_empty() {
                return Ok(());
            }
            let client = &self.pumps.client;
            let listed = client.list_metadata(self.resource(), &selector).await?;
            let objects = listed.objects.iter().map(|(key, uid, version)| (key, uid, *version));
            let check = self.collection.read().check(&shards, moment, objects);
            let (mut waiting, mut reads) = (check.differing.iter(), FuturesUnordered::new());
            loop {
                while reads.len() < READS_AT_ONCE
                    && let Some((key, uid)) = waiting.next()
                {
                    reads.push(async move { (key, uid, client.get(self.resource(), key).await) });
                }
                let Some((key, uid, found)) = reads.next().await else { break };
                let found = found?;
                let mut collection = self.collection.write();
                let changes = match found {
                    Some(object) => collection.repair(object).into_iter().collect(),
                    None => collection.missing(key, uid, listed.version),
                };
                drop(collection);
                self.tell(changes, None);
            }
            drop(reads);
            let changes = self.collection.write().checked(&check, listed.version);
            // Some were lost meanwhile: the others once more.
            let Some(changes) = changes else { continue };
            self.tell(changes, None);
            return Ok(());
        }
    }
}
