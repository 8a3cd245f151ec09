//! The webhook on one member: serves it, keeps the certificate, and while this member leads has the API server know the
//! rings' webhooks.
//!
//! Every member serves and shows the same certificate; the leader alone knows where objects go, so what another is asked
//! about is admitted as it is, and assigned by the leader's watch. Turned off, nothing is served, and the leader deletes
//! what was configured before. Never decides where an object goes.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringmaster_cluster::{Client, boot_time};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::apply::Configurations;
use super::configuration::Reach;
use super::counts::{Counting, Counts};
use super::keeper::{Cluster, Keeper, LOOK_INTERVAL, Moment, SOON};
use super::serve::{Error, Server, Shown};
use crate::answers::Answers;
use crate::registry::{Right, RingStats};

/// Where the webhook is, and how it is found.
#[derive(Clone, Debug)]
pub struct Place {
    /// Where it listens; port 0 takes a free one.
    pub address: SocketAddr,
    /// Where the API server finds it.
    pub reach: Reach,
    /// The namespace of the certificate's Secret.
    pub namespace: String,
    /// The wall clock, since 1970: for certificates alone.
    pub wall: fn() -> Duration,
}

/// The rings' webhook, on or off.
pub struct Webhook {
    pub(crate) answers: Arc<Answers>,
    client: Client,
    right: Arc<dyn Right>,
    /// `None` if it is off, or runs.
    serving: Mutex<Option<Serving>>,
}

/// What a webhook that is on takes.
struct Serving {
    server: Server<Answers>,
    keeper: Keeper<Cluster>,
    reach: Reach,
    wall: fn() -> Duration,
}

impl Webhook {
    /// Without any.
    #[must_use]
    pub fn off(client: Client, right: Arc<dyn Right>) -> Self {
        let answers = Answers::new(client.clone(), Arc::clone(&right));
        Self { answers, client, right, serving: Mutex::new(None) }
    }

    /// Listens; it answers once the rings run.
    ///
    /// # Errors
    /// If the address can't be listened at.
    pub async fn bind(
        client: Client,
        right: Arc<dyn Right>,
        place: Place,
        (counts, rings): (Counts, RingStats),
    ) -> Result<Self, Error> {
        let Place { address, reach, namespace, wall } = place;
        let webhook = Self::off(client.clone(), right);
        let (shown, meter) = (Arc::<Shown>::default(), Arc::new(Counting { counts, rings, client: client.clone() }));
        let server = Server::bind(address, Arc::clone(&shown), Arc::clone(&webhook.answers), meter).await?;
        let keeper = Keeper::new(Cluster::new(client, &namespace), reach.names(), shown);
        info!(address = %server.local_addr(), "serving the admission webhook of external rings");
        *webhook.serving.lock() = Some(Serving { server, keeper, reach, wall });
        Ok(webhook)
    }

    /// Runs until cancelled, and then until what was asked is answered, within the server's bound.
    pub(crate) async fn run(&self, leads: watch::Receiver<bool>, cancel: CancellationToken) {
        let configurations = Configurations::new(self.client.clone(), Arc::clone(&self.right));
        let serving = self.serving.lock().take();
        let Some(Serving { server, keeper, reach, wall }) = serving else {
            self.clear(configurations, leads, &cancel).await;
            return;
        };
        let keeping = self.keep((keeper, configurations), (&reach, wall), leads, &cancel);
        tokio::join!(server.run(cancel.clone()), keeping);
    }

    /// Keeps the certificate, and while this member leads the configurations.
    async fn keep(
        &self,
        (mut keeper, mut configurations): (Keeper<Cluster>, Configurations),
        (reach, wall): (&Reach, fn() -> Duration),
        mut leads: watch::Receiver<bool>,
        cancel: &CancellationToken,
    ) {
        let (mut news, mut failures) = (self.answers.news(), 0_u32);
        loop {
            news.mark_unchanged();
            let is_leader = *leads.borrow_and_update();
            let round = async {
                let led = if is_leader {
                    let (rings, bundle) = (self.answers.rings(), keeper.bundle());
                    Some(configurations.keep(&rings, reach, bundle.as_deref()).await)
                } else {
                    None
                };
                let now = Moment { wall: wall(), boot: boot_time() };
                keeper.round(now, led.as_deref()).await
            };
            let round = tokio::select! {
                () = cancel.cancelled() => return,
                round = round => round,
            };
            let again = match round {
                Ok(round) => {
                    failures = 0;
                    // The configurations carry what is kept, at once.
                    if round.has_changed && is_leader { Duration::ZERO } else { round.again }
                }
                Err(error) => {
                    failures = failures.saturating_add(1);
                    if failures.is_power_of_two() {
                        warn!(failures, "{error}; objects are assigned without the webhook meanwhile");
                    }
                    SOON
                }
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = leads.changed() => {}
                _ = news.changed() => {}
                () = tokio::time::sleep(again) => {}
            }
        }
    }

    /// Deletes what was configured before, while this member leads.
    async fn clear(
        &self,
        mut configurations: Configurations,
        mut leads: watch::Receiver<bool>,
        cancel: &CancellationToken,
    ) {
        let mut news = self.answers.news();
        loop {
            news.mark_unchanged();
            let rings = if *leads.borrow_and_update() { self.answers.rings() } else { Vec::new() };
            let is_clean = tokio::select! {
                () = cancel.cancelled() => return,
                is_clean = configurations.remove(rings.iter().collect()) => is_clean,
            };
            tokio::select! {
                () = cancel.cancelled() => return,
                _ = leads.changed() => {}
                _ = news.changed() => {}
                () = tokio::time::sleep(LOOK_INTERVAL), if !is_clean => {}
            }
        }
    }
}
