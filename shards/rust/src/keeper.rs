//! The keeper: makes or takes this shard's Lease, renews it, and releases it at the end.
//!
//! It has a thread, a runtime and a client of its own, so that no load of the controller delays a renewal. Never takes a
//! Lease back that it has lost: that ends the shard.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use kube::Api;
use kube::api::PostParams;
use ringmaster_core::lease::{Renewal, Right};
use tokio::sync::watch;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::client::was_never_sent;
use crate::clock::{boot_time, lease_time};
use crate::guard::Guard;
use crate::lease::{Joining, Lost, Step, holder, released, still_held};
use crate::options::Identity;

/// A single request of the keeper is given up after half the renew deadline, but not sooner than this.
const MIN_REQUEST_TIMEOUT: Duration = Duration::from_millis(250);
/// Releasing takes at most this long; without it the others wait for the Lease's end.
pub(crate) const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// A renewal or release that meets a change of somebody else's, such as the sharder's label, is made again at once, so often
/// in all.
const TRIES: usize = 2;

/// How far a shard is.
#[derive(Clone, Debug)]
pub(crate) enum State {
    /// It doesn't hold its Lease yet.
    Joining,
    /// It holds it.
    Joined,
    /// The keeper has ended.
    Ended(End),
}

/// How the keeper ended.
#[derive(Clone, Debug)]
pub(crate) enum End {
    /// It was told to; with a problem if the Lease couldn't be released, and the others wait for its end.
    Left(Option<String>),
    /// The shard may not work any more.
    Lost(Lost),
}

/// What the keeper needs.
pub(crate) struct Keeper {
    pub(crate) config: kube::Config,
    pub(crate) identity: Arc<Identity>,
    pub(crate) guard: Arc<Guard>,
    /// Cancelled when the shard is to leave.
    pub(crate) leaving: CancellationToken,
    pub(crate) state: watch::Sender<State>,
}

impl Keeper {
    /// Begins, on a thread of its own, which ends after the state has.
    ///
    /// # Errors
    /// If there is no thread to be had.
    pub(crate) fn start(self) -> io::Result<JoinHandle<()>> {
        std::thread::Builder::new().name("shard-keeper".to_owned()).spawn(move || {
            // Also if the thread panics.
            let _ending = Ending(Arc::clone(&self.guard));
            let state = self.state.clone();
            let end = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime.block_on(self.run()),
                Err(error) => End::Lost(Lost::Failed(format!("no runtime: {error}"))),
            };
            state.send_replace(State::Ended(end));
        })
    }

    async fn run(self) -> End {
        let client = match kube::Client::try_from(self.config.clone()) {
            Ok(client) => client,
            Err(error) => return End::Lost(Lost::Failed(format!("no client: {error}"))),
        };
        let guard = Arc::clone(&self.guard);
        let terms = self.identity.terms;
        let mut keeping = Keeping {
            api: Api::namespaced(client, &self.identity.claim.namespace),
            timeout: (terms.renew_deadline / 2).max(MIN_REQUEST_TIMEOUT),
            right: Right::new(terms),
            keeper: self,
            lease: Lease::default(),
            acquired: None,
            is_unknown: false,
            failures: 0,
        };
        tokio::select! {
            // First: a process that was stopped finds the end of its right and a due renewal at once.
            biased;
            () = guard.expired() => {
                guard.end();
                End::Lost(Lost::Expired)
            }
            end = keeping.run() => {
                guard.end();
                end
            }
        }
    }
}

struct Ending(Arc<Guard>);

impl Drop for Ending {
    fn drop(&mut self) {
        self.0.end();
    }
}

struct Keeping {
    keeper: Keeper,
    api: Api<Lease>,
    timeout: Duration,
    /// As the API server has it, as far as is known.
    lease: Lease,
    /// When this process acquired it, or sent that it does.
    acquired: Option<MicroTime>,
    right: Right,
    /// Whether the last write's outcome isn't known: the Lease is read before it is written again.
    is_unknown: bool,
    failures: u32,
}

/// What came of a write of the Lease.
enum Answer {
    Done,
    /// It has changed.
    Conflict,
    /// There is none.
    Missing,
    /// It failed otherwise, which is told.
    Failed,
}

/// It couldn't be read, which was told.
struct Unread;

enum Verb {
    Create,
    Replace,
}

impl Keeping {
    async fn run(&mut self) -> End {
        if !self.join().await {
            return End::Left(None);
        }
        info!(shard = self.name(), ring = self.keeper.identity.claim.ring, "joined");
        self.keeper.state.send_replace(State::Joined);
        loop {
            if self.is_leaving_within(self.keeper.identity.terms.retry_period).await {
                return self.release().await;
            }
            if let Err(lost) = self.renew().await {
                return End::Lost(lost);
            }
        }
    }

    fn name(&self) -> &str {
        &self.keeper.identity.claim.name
    }

    /// Waits; tells whether the shard is to leave.
    async fn is_leaving_within(&self, time: Duration) -> bool {
        let due = Instant::now() + time;
        tokio::time::timeout_at(due, self.keeper.leaving.cancelled()).await.is_ok()
    }

    /// Gets the Lease; tells whether it did, or the shard is to leave.
    async fn join(&mut self) -> bool {
        let mut joining = Joining::default();
        let mut is_told = false;
        loop {
            let mut wait = self.keeper.identity.terms.retry_period;
            if let Ok(found) = self.read().await {
                if self.is_acquired(found.as_ref()) {
                    return true;
                }
                match joining.decide(boot_time(), found.as_ref(), self.name()) {
                    Step::Create => {
                        let now = self.acquiring();
                        let lease = self.keeper.identity.claim.created(&now);
                        if matches!(self.write(Verb::Create, &lease).await, Answer::Done) {
                            return true;
                        }
                    }
                    Step::Take => {
                        let now = self.acquiring();
                        let lease = self.keeper.identity.claim.taken(&found.unwrap_or_default(), &now);
                        if matches!(self.write(Verb::Replace, &lease).await, Answer::Done) {
                            return true;
                        }
                    }
                    Step::Wait(left) => {
                        wait = wait.min(left);
                        if !std::mem::replace(&mut is_told, true) {
                            let by = found.as_ref().map(holder).unwrap_or_default();
                            info!(shard = self.name(), by, ?left, "the Lease is another's: waiting for its end");
                        }
                    }
                }
            }
            if self.is_leaving_within(wait).await {
                return false;
            }
        }
    }

    fn acquiring(&mut self) -> MicroTime {
        let now = lease_time();
        self.acquired = Some(now.clone());
        now
    }

    /// Whether a Lease that was read shows that a write got it whose answer was lost.
    fn is_acquired(&mut self, found: Option<&Lease>) -> bool {
        let (Some(lease), Some(acquired)) = (found, &self.acquired) else { return false };
        let is_ours = still_held(found, self.name(), acquired).is_ok();
        if is_ours {
            self.seen(lease.clone());
        }
        is_ours && self.right.ends().is_some()
    }

    async fn renew(&mut self) -> Result<(), Lost> {
        if self.is_unknown && !self.read_back().await? {
            return Ok(());
        }
        for _ in 0..TRIES {
            let lease = self.keeper.identity.claim.renewed(&self.lease, &lease_time());
            match self.write(Verb::Replace, &lease).await {
                Answer::Done | Answer::Failed => return Ok(()),
                Answer::Missing => return Err(Lost::Gone),
                Answer::Conflict => {
                    if !self.read_back().await? {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Reads the Lease, which must still be ours; tells whether it could be read. A renewal whose answer was lost counts if
    /// it is the last one.
    async fn read_back(&mut self) -> Result<bool, Lost> {
        let Ok(found) = self.read().await else { return Ok(false) };
        let Some(acquired) = &self.acquired else { return Ok(false) };
        still_held(found.as_ref(), self.name(), acquired)?;
        if let Some(lease) = found {
            self.seen(lease);
        }
        Ok(true)
    }

    /// The Lease is ours, and like this.
    fn seen(&mut self, lease: Lease) {
        self.is_unknown = false;
        self.right.read_back(&renewal(&lease));
        self.lease = lease;
        self.granted();
    }

    /// The Lease, where there is one.
    async fn read(&mut self) -> Result<Option<Lease>, Unread> {
        let read = tokio::time::timeout(self.timeout, self.api.get_opt(self.name())).await;
        let problem = match read {
            Ok(Ok(found)) => return Ok(found),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "no answer in time".to_owned(),
        };
        self.failed("reading the Lease", &problem);
        Err(Unread)
    }

    /// Writes the Lease, and counts the right to work from when it was sent.
    async fn write(&mut self, verb: Verb, lease: &Lease) -> Answer {
        let sent = renewal(lease);
        self.right.sent(boot_time(), &sent);
        let parameters = PostParams::default();
        let call = async {
            match verb {
                Verb::Create => self.api.create(&parameters, lease).await,
                Verb::Replace => self.api.replace(self.name(), &parameters, lease).await,
            }
        };
        let answer = tokio::time::timeout(self.timeout, call).await;
        match answer {
            Ok(Ok(written)) => {
                self.right.answered(&sent, Renewal::Done);
                self.is_unknown = false;
                self.lease = written;
                self.granted();
                if self.failures > 0 {
                    info!(failures = self.failures, "the Lease is renewed again");
                }
                self.failures = 0;
                Answer::Done
            }
            Ok(Err(error)) => {
                if is_refusal(&error) {
                    self.right.answered(&sent, Renewal::Refused);
                } else {
                    self.right.answered(&sent, Renewal::Unknown);
                    self.is_unknown = true;
                }
                match &error {
                    kube::Error::Api(status) if status.code == 409 => Answer::Conflict,
                    kube::Error::Api(status) if status.is_not_found() => Answer::Missing,
                    _ => {
                        self.failed("writing the Lease", &error.to_string());
                        Answer::Failed
                    }
                }
            }
            Err(_) => {
                self.right.answered(&sent, Renewal::Unknown);
                self.is_unknown = true;
                self.failed("writing the Lease", "no answer in time");
                Answer::Failed
            }
        }
    }

    fn granted(&self) {
        if let Some(ends) = self.right.ends() {
            self.keeper.guard.renewed(ends);
        }
    }

    fn failed(&mut self, what: &str, error: &str) {
        self.failures = self.failures.saturating_add(1);
        // One line when it begins, and a reminder at each doubling.
        if self.failures.is_power_of_two() {
            warn!(failures = self.failures, "{what} fails: {error}");
        }
    }

    async fn release(&mut self) -> End {
        // From here on nothing is done, whatever becomes of the request.
        self.keeper.guard.end();
        if !self.keeper.guard.is_quiet() {
            let problem = "something still runs, or a write may still happen: the others wait for the Lease's end";
            return End::Left(Some(problem.to_owned()));
        }
        match tokio::time::timeout(RELEASE_TIMEOUT, self.give_up()).await {
            Ok(end) => end,
            Err(_) => End::Left(Some(format!("the Lease couldn't be released within {RELEASE_TIMEOUT:?}"))),
        }
    }

    async fn give_up(&mut self) -> End {
        let problem = |problem: String| End::Left(Some(format!("the Lease couldn't be released: {problem}")));
        let mut must_read = self.is_unknown;
        for _ in 0..TRIES {
            if must_read {
                match self.read_back().await {
                    Ok(true) => {}
                    Ok(false) => return problem("it can't be read".to_owned()),
                    Err(lost) => return End::Lost(lost),
                }
            }
            match self.api.replace(self.name(), &PostParams::default(), &released(&self.lease)).await {
                Ok(_) => {
                    info!(shard = self.name(), "released");
                    return End::Left(None);
                }
                Err(kube::Error::Api(status)) if status.code == 409 => must_read = true,
                Err(error) => return problem(error.to_string()),
            }
        }
        problem("it changes all the time".to_owned())
    }
}

/// What tells a renewal from the others of this process.
fn renewal(lease: &Lease) -> String {
    let renewed = lease.spec.as_ref().and_then(|spec| spec.renew_time.as_ref());
    renewed.map(|time| time.0.to_string()).unwrap_or_default()
}

/// Whether a failed write certainly never happened.
fn is_refusal(error: &kube::Error) -> bool {
    match error {
        kube::Error::Api(status) => (400..500).contains(&status.code),
        error => was_never_sent(error),
    }
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::*;

    #[test]
    fn only_what_was_refused_never_happened() {
        let api = |code: u16| kube::Error::Api(Status::failure("m", "r").with_code(code).boxed());
        assert_eq!([401, 404, 409, 422, 429].map(|code| is_refusal(&api(code))), [true; 5]);
        assert_eq!([0, 500, 503, 504].map(|code| is_refusal(&api(code))), [false; 4]);
        assert!(!is_refusal(&kube::Error::Service("connection reset".into())));
    }

    #[test]
    fn a_renewal_is_told_by_its_time() {
        assert_eq!(renewal(&Lease::default()), "");
        let mut lease = Lease::default();
        lease.spec.get_or_insert_default().renew_time = Some(lease_time());
        let read: Lease = serde_json::from_value(serde_json::to_value(&lease).unwrap()).unwrap();
        assert_eq!((renewal(&read), read.spec), (renewal(&lease), lease.spec));
    }
}
