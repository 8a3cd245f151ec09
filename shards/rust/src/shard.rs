//! A shard: joined by its Lease, until it leaves or is lost.
//!
//! Never runs a controller: that is kube's `Controller`, which is given what this hands out.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use futures::Stream;
use futures::future::BoxFuture;
use kube::{Api, Resource};
use kube_runtime::controller::Action;
use kube_runtime::reflector::store::Writer;
use kube_runtime::watcher;
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::client::guarded;
use crate::guard::{Guard, Refused};
use crate::keeper::{End, Keeper, State};
use crate::lease::Lost;
use crate::options::{Identity, Invalid, OnAcknowledged, Options};
use crate::reconcile::{RunError, Runs, wrap};
use crate::streams::{Passed, changes};

/// Why a shard couldn't be joined, or wasn't left in order.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Its options can't be.
    #[error(transparent)]
    Invalid(#[from] Invalid),
    /// There is no client to be had by the configuration.
    #[error("no client of the API server: {0}")]
    Client(#[source] Box<kube::Error>),
    /// There is no thread to be had.
    #[error("no thread to keep the Lease: {0}")]
    Thread(#[source] std::io::Error),
    /// It may not work any more.
    #[error(transparent)]
    Lost(#[from] Lost),
    /// It left, but its Lease wasn't released: the others wait for its end.
    #[error("left, but {0}")]
    NotReleased(String),
}

/// This process as a shard of its ring. It holds the Lease, and keeps it on a thread of its own.
///
/// If it is dropped instead of [left](Self::leave), nothing more is written, and its Lease is released only if nothing
/// runs.
pub struct Shard {
    identity: Arc<Identity>,
    guard: Arc<Guard>,
    client: kube::Client,
    acknowledged: Option<OnAcknowledged>,
    leaving: CancellationToken,
    state: watch::Receiver<State>,
    thread: Option<JoinHandle<()>>,
}

impl Shard {
    /// Joins: resolves once the Lease is held. One that another holds is waited for until it hasn't changed for its own
    /// duration, which a sharder makes twice this shard's when it takes one: limit the wait by dropping this future.
    ///
    /// The configuration makes two clients, without kube's retries: one for the Lease, one to work with
    /// ([`Self::client`]).
    ///
    /// # Errors
    /// If the options can't be, or there is no client by the configuration. Never for an API server that doesn't answer:
    /// that is told by `tracing`, and tried again each retry period.
    pub async fn join(mut config: kube::Config, options: Options) -> Result<Self, Error> {
        let identity = Arc::new(Identity::of(&options)?);
        config.default_retry = false;
        let client = kube::Client::try_from(config.clone()).map_err(|error| Error::Client(Box::new(error)))?;
        let guard = Guard::new();
        let client = guarded(client, &guard);
        let leaving = CancellationToken::new();
        let (sender, state) = watch::channel(State::Joining);
        let keeper = Keeper {
            config,
            identity: Arc::clone(&identity),
            guard: Arc::clone(&guard),
            leaving: leaving.clone(),
            state: sender,
        };
        let thread = Some(keeper.start().map_err(Error::Thread)?);
        // From here on whoever drops this future ends the keeper.
        let shard = Self { identity, guard, client, acknowledged: options.acknowledged, leaving, state, thread };
        match after(shard.state.clone(), |state| !matches!(state, State::Joining)).await {
            State::Joining | State::Joined => Ok(shard),
            State::Ended(End::Left(problem)) => Err(Error::NotReleased(problem.unwrap_or_default())),
            State::Ended(End::Lost(lost)) => Err(lost.into()),
        }
    }

    /// The shard's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.identity.claim.name
    }

    /// The client to work with: its writes are refused once this shard has no right to them ([`Refused::of`] tells), and
    /// both sides give them up soon after the right ends. Reads and watches pass as they are.
    #[must_use]
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    /// Watches what this shard has, for main and for controlled kinds.
    #[must_use]
    pub fn watcher_config(&self) -> watcher::Config {
        watcher::Config::default().labels(&self.selector())
    }

    /// The main objects that this shard has, for `Controller::for_stream` with the store of this writer. Unlike kube's own
    /// stream it passes a list on when the cache has it: with [`Self::watcher_config`] and `Controller::new` an object is
    /// forgotten that is assigned or drained while the API server doesn't answer, until it changes again.
    pub fn objects<K>(
        &self,
        api: Api<K>,
        writer: Writer<K>,
    ) -> impl Stream<Item = Result<K, watcher::Error>> + Send + use<K>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Default + Eq + Hash + Clone,
    {
        changes(api, self.watcher_config(), writer, Passed::Applied)
    }

    /// The controlled objects that this shard has, for `Controller::owns_stream`: also those that are gone. The writer's
    /// store is a cache of them; a run waits until it is ready before it believes that something is missing.
    pub fn children<K>(
        &self,
        api: Api<K>,
        writer: Writer<K>,
    ) -> impl Stream<Item = Result<K, watcher::Error>> + Send + use<K>
    where
        K: Resource + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
        K::DynamicType: Default + Eq + Hash + Clone,
    {
        changes(api, self.watcher_config(), writer, Passed::Touched)
    }

    /// The label selector of what this shard has.
    #[must_use]
    pub fn selector(&self) -> String {
        format!("{}={}", self.identity.keys.shard, self.identity.claim.name)
    }

    /// The labels that each child needs in its create, so that [`Self::watcher_config`] shows it at once.
    #[must_use]
    pub fn labels(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(self.identity.keys.shard.clone(), self.identity.claim.name.clone())])
    }

    /// What to ask before an effect that isn't a write of [`Self::client`].
    #[must_use]
    pub fn permit(&self) -> Permit {
        Permit(Arc::clone(&self.guard))
    }

    /// Wraps a reconciler for `Controller::run`. The wrapper lets drained objects go instead of running it, leaves alone
    /// what isn't this shard's, begins nothing without the right to work, and cancels what runs when it ends.
    ///
    /// The controller's stream of main objects must not drop changes of labels: a predicate on the generation alone would
    /// hide a drain. An error policy should try again what is [`RunError::Acknowledge`].
    pub fn reconciler<K, Ctx, F, Fut, E>(
        &self,
        reconcile: F,
    ) -> impl Fn(Arc<K>, Arc<Ctx>) -> BoxFuture<'static, Result<Action, RunError<E>>> + use<K, Ctx, F, Fut, E>
    where
        K: Resource + Send + Sync + 'static,
        K::DynamicType: Default,
        Ctx: Send + Sync + 'static,
        F: Fn(Arc<K>, Arc<Ctx>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Action, E>> + Send + 'static,
        E: Send + 'static,
    {
        self.reconciler_with(K::DynamicType::default(), reconcile)
    }

    /// The same for objects of a kind that is only known when it runs.
    pub fn reconciler_with<K, Ctx, F, Fut, E>(
        &self,
        dyntype: K::DynamicType,
        reconcile: F,
    ) -> impl Fn(Arc<K>, Arc<Ctx>) -> BoxFuture<'static, Result<Action, RunError<E>>> + use<K, Ctx, F, Fut, E>
    where
        K: Resource + Send + Sync + 'static,
        Ctx: Send + Sync + 'static,
        F: Fn(Arc<K>, Arc<Ctx>) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<Action, E>> + Send + 'static,
        E: Send + 'static,
    {
        let runs = Runs {
            identity: Arc::clone(&self.identity),
            guard: Arc::clone(&self.guard),
            client: self.client.clone(),
            acknowledged: self.acknowledged.clone(),
        };
        wrap(Arc::new(runs), dyntype, reconcile)
    }

    /// Resolves when this shard has lost its right to work. Nothing more is written then: the process should end, with a
    /// code that isn't 0.
    pub fn lost(&self) -> impl Future<Output = Lost> + Send + 'static + use<> {
        let state = self.state.clone();
        async move {
            match after(state, |state| matches!(state, State::Ended(_))).await {
                State::Ended(End::Lost(lost)) => lost,
                // It left.
                _ => std::future::pending().await,
            }
        }
    }

    /// Leaves: begins nothing more, waits at most `patience` until what runs has ended and each write has an outcome, and
    /// releases the Lease, which takes at most two seconds more. Stop the controller first, or meanwhile: what it begins is
    /// refused.
    ///
    /// # Errors
    /// If the right was lost before, or the Lease isn't released: what still ran has been cancelled, and the others wait for
    /// the Lease's end.
    pub async fn leave(mut self, patience: Duration) -> Result<(), Error> {
        self.guard.close();
        // Without an end to it the keeper finds that something runs, and doesn't release the Lease.
        let _ = tokio::time::timeout(patience, self.guard.quiet()).await;
        self.leaving.cancel();
        let state = after(self.state.clone(), |state| matches!(state, State::Ended(_))).await;
        if let Some(thread) = self.thread.take() {
            // It ends with its state; a panic was told as a loss.
            let _ = thread.join();
        }
        match state {
            State::Ended(End::Lost(lost)) => Err(lost.into()),
            State::Ended(End::Left(Some(problem))) => Err(Error::NotReleased(problem)),
            State::Ended(End::Left(None)) | State::Joining | State::Joined => Ok(()),
        }
    }
}

impl Drop for Shard {
    fn drop(&mut self) {
        self.guard.end();
        self.leaving.cancel();
    }
}

/// Waits for a state of the keeper. One that ends without a word has panicked.
async fn after(mut state: watch::Receiver<State>, is_it: impl FnMut(&State) -> bool) -> State {
    let found = state.wait_for(is_it).await.map(|state| State::clone(&state));
    found.unwrap_or_else(|_| State::Ended(End::Lost(Lost::Failed("its thread ended without a word".to_owned()))))
}

/// Whether the shard may work, to be asked before each effect.
#[derive(Clone, Debug)]
pub struct Permit(Arc<Guard>);

impl Permit {
    /// Whether it may now. The answer holds for as long as [`Self::left`] says, however long the process is stopped.
    ///
    /// # Errors
    /// If the right to work has ended.
    pub fn check(&self) -> Result<(), Refused> {
        self.0.check()
    }

    /// How much is left of the right to work unless it is renewed: at most the renew deadline; `None` if nothing is.
    #[must_use]
    pub fn left(&self) -> Option<Duration> {
        self.0.left()
    }
}
