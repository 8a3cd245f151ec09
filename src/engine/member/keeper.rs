//! The keeper: makes this member's Lease, renews it, carries the member's words on it, and releases it at the end.
//!
//! It has a thread, a runtime and a client of its own, so that no load of the engine delays a renewal. Never renews for
//! an engine whose pulse is gone, and never takes a Lease back: a foreign holder, or no Lease, ends the process.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use ringmaster_cluster::{Another, Client, Error, Lease, Meter};
use ringmaster_core::key::{ObjectKey, Resource};
use ringmaster_core::lease::{Renewal, Right, Terms};
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;
use tracing::{error, info, warn};

use super::guard::Guard;
use super::posts::Posts;
use super::pulse::Pulse;
use super::{Identity, LEAVING_ANNOTATION, PARTS_ANNOTATION, REPORT_ANNOTATION};
use crate::clock::{boot_time, lease_time};

/// A single request of the keeper is given up after half the renew deadline, but not sooner than this.
const MIN_REQUEST_TIMEOUT: Duration = Duration::from_millis(250);
/// Silence of the engine's parts counts from here; below, a busy machine could be taken for a wedged engine.
const MIN_SILENCE: Duration = Duration::from_secs(2);
/// Releasing takes at most this long; without it the others wait a Lease's duration.
pub(crate) const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);

/// What the member says on its Lease.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Words {
    /// Its report, as text.
    pub(crate) report: String,
    /// It wants to go.
    pub(crate) leaving: bool,
    /// It runs nothing any more: the Lease is released, and the keeper ends.
    pub(crate) released: bool,
}

/// Why a member isn't one any more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum End {
    /// It released its Lease, or tried to.
    #[error("the Lease was released")]
    Released,
    /// The Lease is another's.
    #[error("this member's Lease was taken by {0:?}: others do its work. Start anew")]
    Taken(String),
    /// The Lease is gone.
    #[error("this member's Lease is gone: others do its work. Start anew")]
    Gone,
    /// It can't begin.
    #[error("this process can't become a member: {0}")]
    Failed(String),
}

/// What the keeper needs.
pub(crate) struct Keeper {
    pub(crate) identity: Arc<Identity>,
    pub(crate) terms: Terms,
    pub(crate) another: Another,
    pub(crate) meter: Arc<dyn Meter>,
    pub(crate) guard: Arc<Guard>,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) words: watch::Receiver<Words>,
    pub(crate) posts: Arc<Posts>,
}

/// The keeper at work.
pub(crate) struct Keeping {
    thread: Option<JoinHandle<()>>,
    ended: oneshot::Receiver<End>,
}

impl Keeping {
    /// Waits for its end.
    pub(crate) async fn ended(&mut self) -> End {
        let end = (&mut self.ended).await.unwrap_or_else(|_| End::Failed("the keeper's thread panicked".to_owned()));
        if let Some(thread) = self.thread.take() {
            // It says why it ends as the last thing that it does.
            let _ = thread.join();
        }
        end
    }
}

impl Keeper {
    /// Begins, on a thread of its own.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn start(self) -> std::io::Result<Keeping> {
        let (end, ended) = oneshot::channel();
        let thread = std::thread::Builder::new().name("keeper".to_owned()).spawn(move || {
            let guard = Arc::clone(&self.guard);
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let why = match runtime {
                Ok(runtime) => runtime.block_on(self.run()),
                Err(error) => End::Failed(format!("no runtime: {error}")),
            };
            guard.end();
            // Nobody waits any more if the engine ended first.
            let _ = end.send(why);
        })?;
        Ok(Keeping { thread: Some(thread), ended })
    }

    async fn run(self) -> End {
        let client = match (self.another)() {
            Ok(client) => Client::new(client, Arc::clone(&self.meter)),
            Err(error) => return End::Failed(error.to_string()),
        };
        let lapse = lapse(Arc::clone(&self.guard));
        let mut renewals = Renewals {
            client,
            resource: Lease::resource(),
            key: ObjectKey::new(&self.identity.namespace, self.identity.name.as_str()),
            timeout: (self.terms.renew_deadline / 2).max(MIN_REQUEST_TIMEOUT),
            right: Right::new(self.terms),
            keeper: self,
            lease: Lease::default(),
            unknown: false,
            failures: 0,
        };
        tokio::select! {
            end = renewals.run() => end,
            () = lapse => End::Gone,
        }
    }
}

/// Cancels what runs whenever the right to work ends.
async fn lapse(guard: Arc<Guard>) {
    loop {
        if guard.lapse() {
            warn!("the Lease wasn't renewed in time: nothing is called or written until it is");
        }
        let left = guard.left();
        match left {
            // Renewals move the end: it is looked at again when it would have been reached.
            Some(left) => tokio::time::sleep(left).await,
            None => guard.turned(Duration::from_secs(1)).await,
        }
    }
}

struct Renewals {
    keeper: Keeper,
    client: Client,
    resource: Resource,
    key: ObjectKey,
    timeout: Duration,
    /// As the API server has it, as far as is known.
    lease: Lease,
    right: Right,
    /// Whether the last request's outcome isn't known: the Lease is read before it is renewed again.
    unknown: bool,
    failures: u32,
}

impl Renewals {
    async fn run(&mut self) -> End {
        if let Err(end) = self.create().await {
            return end;
        }
        let mut words = self.keeper.words.clone();
        loop {
            let due = Instant::now() + self.keeper.terms.retry_period;
            tokio::select! {
                changed = words.changed() => {
                    if changed.is_err() {
                        // The engine is gone without a word.
                        return End::Released;
                    }
                }
                () = tokio::time::sleep_until(due) => {}
            }
            let now = words.borrow_and_update().clone();
            if now.released {
                self.release().await;
                return End::Released;
            }
            if let Some(part) = self.keeper.pulse.silent(self.keeper.terms.renew_deadline.max(MIN_SILENCE)) {
                error!("{part} doesn't answer: the Lease isn't renewed, so that another member takes over");
                continue;
            }
            if let Err(end) = self.renew(&now).await {
                return end;
            }
        }
    }

    async fn create(&mut self) -> Result<(), End> {
        let (identity, terms) = (Arc::clone(&self.keeper.identity), self.keeper.terms);
        loop {
            let renewed = lease_time().0;
            self.right.sent(boot_time(), &renewed);
            let name = identity.name.as_str();
            let lease = Lease {
                annotations: annotations(&self.keeper.words.borrow(), &self.keeper.posts),
                ..Lease::new(name, identity.labels(), name, terms.duration, &renewed)
            };
            let call = self.client.within(self.timeout);
            let created = call.create(&self.resource, &identity.namespace, lease.to_body()).await;
            self.lease = lease;
            match created {
                Ok(object) => {
                    self.renewed(&renewed, Lease::from_object(&object));
                    info!(lease = %self.key, "joined");
                    return Ok(());
                }
                // Ours, if the answer to the try before was lost: the name has a random part.
                Err(error) if error.is_already_exists() => {
                    self.right.answered(&renewed, Renewal::Refused);
                    if self.read_back().await? {
                        return Ok(());
                    }
                }
                Err(error) => {
                    self.unanswered(&renewed, &error);
                    self.failed("making the Lease", &error);
                }
            }
            if self.keeper.words.borrow().released {
                return Err(End::Released);
            }
            tokio::time::sleep(terms.retry_period).await;
        }
    }

    async fn renew(&mut self, words: &Words) -> Result<(), End> {
        if self.unknown && !self.read_back().await? {
            return Ok(());
        }
        // Once more at once if somebody else only touched it.
        for _ in 0..2 {
            let renewed = lease_time().0;
            self.right.sent(boot_time(), &renewed);
            let lease = Lease {
                renewed: renewed.clone(),
                // Whoever edits them hides a member that lives.
                labels: self.keeper.identity.labels(),
                annotations: annotations(words, &self.keeper.posts),
                ..self.lease.clone()
            };
            let call = self.client.within(self.timeout);
            match call.replace(&self.resource, &self.key, lease.to_body()).await {
                Ok(object) => {
                    self.renewed(&renewed, Lease::from_object(&object));
                    return Ok(());
                }
                Err(error) if error.is_object_not_found() => return Err(End::Gone),
                Err(error) if error.is_conflict() => {
                    self.right.answered(&renewed, Renewal::Refused);
                    if !self.read_back().await? {
                        return Ok(());
                    }
                }
                Err(error) => {
                    self.unanswered(&renewed, &error);
                    self.failed("renewing the Lease", &error);
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Reads the Lease; tells whether it could be read. A renewal whose answer was lost counts if it is the last one.
    async fn read_back(&mut self) -> Result<bool, End> {
        let read = tokio::time::timeout(self.timeout, self.client.get(&self.resource, &self.key)).await;
        let found = match read {
            Ok(Ok(found)) => found.as_ref().and_then(Lease::from_object),
            Ok(Err(error)) => {
                self.failed("reading the Lease", &error);
                return Ok(false);
            }
            Err(_) => return Ok(false),
        };
        let Some(found) = found else { return Err(End::Gone) };
        if found.holder != self.lease.name {
            return Err(End::Taken(found.holder));
        }
        self.unknown = false;
        self.right.read_back(&found.renewed);
        self.lease = found;
        self.granted();
        Ok(true)
    }

    /// Whatever the answer was, it isn't that the Lease is renewed.
    fn unanswered(&mut self, renewed: &str, error: &Error) {
        let unknown = error.outcome_is_unknown();
        self.right.answered(renewed, if unknown { Renewal::Unknown } else { Renewal::Refused });
        self.unknown |= unknown;
    }

    fn renewed(&mut self, renewed: &str, lease: Option<Lease>) {
        if let Some(lease) = lease {
            self.lease = lease;
        }
        self.unknown = false;
        self.right.answered(renewed, Renewal::Done);
        self.granted();
        if self.failures > 0 {
            info!(failures = self.failures, "the Lease is renewed again");
        }
        self.failures = 0;
    }

    fn granted(&self) {
        if let Some(ends) = self.right.ends() {
            self.keeper.guard.renewed(ends);
        }
    }

    fn failed(&mut self, what: &str, error: &Error) {
        self.failures = self.failures.saturating_add(1);
        // One line when it begins, and a reminder at each doubling.
        if self.failures.is_power_of_two() {
            warn!(failures = self.failures, "{what} fails: {error}");
        }
    }

    async fn release(&mut self) {
        // From here on nothing is done, whatever becomes of the request.
        self.keeper.guard.end();
        let work = async {
            if self.unknown && !matches!(self.read_back().await, Ok(true)) {
                return;
            }
            for _ in 0..2 {
                let lease =
                    Lease { holder: String::new(), duration_secs: 1, renewed: lease_time().0, ..self.lease.clone() };
                match self.client.replace(&self.resource, &self.key, lease.to_body()).await {
                    Ok(_) => return info!(lease = %self.key, "released"),
                    Err(error) if error.is_conflict() => {
                        if !matches!(self.read_back().await, Ok(true)) {
                            return;
                        }
                    }
                    Err(error) => return warn!("the Lease can't be released, the others wait for its end: {error}"),
                }
            }
        };
        if tokio::time::timeout(RELEASE_TIMEOUT, work).await.is_err() {
            warn!("the Lease can't be released in time, the others wait for its end");
        }
    }
}

fn annotations(words: &Words, posts: &Posts) -> BTreeMap<String, String> {
    let mut annotations = BTreeMap::new();
    if let Some(parts) = posts.parts_text() {
        annotations.insert(PARTS_ANNOTATION.to_owned(), parts);
    }
    annotations.insert(REPORT_ANNOTATION.to_owned(), words.report.clone());
    if words.leaving {
        annotations.insert(LEAVING_ANNOTATION.to_owned(), "true".to_owned());
    }
    annotations
}
