//! Puts labels of shards right that somebody changed, on objects which aren't this member's to sync.
//!
//! A label that says too little is seen by a stream of objects without one, and put right by the parent's own sync. This
//! is for one that says the wrong thing: whoever's stream shows it corrects it. Both are written here.
//!
//! Never writes without the right to work.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use foldhash::fast::FixedState;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use parking_lot::Mutex;
use ringmaster_cluster::{Client, Error, Meter};
use ringmaster_core::key::{ObjectKey, Resource};
use ringmaster_core::lease::WRITE_GRACE;
use ringmaster_core::object::Object;
use ringmaster_core::plan::label_patch;
use ringmaster_core::queue::backoff;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use tracing::{debug, warn};

use crate::clock::random;
use crate::member::guard::{Guard, Permit};

/// Labels that wait to be put right; more are left until their objects change or are listed again.
const MAX_WAITING: usize = 10_000;
/// Labels that are put right at once.
const MAX_AT_ONCE: usize = 8;
/// A label is tried this often; then it is left until its object changes or is listed again.
const MAX_TRIES: u32 = 8;

type Place = (Arc<Resource>, ObjectKey, &'static str);

/// A label to put right.
struct Wrong {
    object: Arc<Object>,
    right: Option<u8>,
    tries: u32,
}

/// The labels that wait. Shared.
pub(crate) struct Labels {
    waiting: Mutex<Waiting>,
    news: Notify,
    meter: Arc<dyn Meter>,
}

#[derive(Default)]
struct Waiting {
    wrong: HashMap<Place, Wrong, FixedState>,
    order: VecDeque<Place>,
}

impl Labels {
    pub(crate) fn new(meter: Arc<dyn Meter>) -> Arc<Self> {
        Arc::new(Self { waiting: Mutex::default(), news: Notify::new(), meter })
    }

    /// The object's label is to be this number, or to go.
    pub(crate) fn put_right(
        &self,
        resource: &Arc<Resource>,
        object: &Arc<Object>,
        label: &'static str,
        right: Option<u8>,
    ) {
        self.add(
            (Arc::clone(resource), object.key().clone(), label),
            Wrong { object: Arc::clone(object), right, tries: 0 },
        );
    }

    fn add(&self, place: Place, wrong: Wrong) {
        let mut waiting = self.waiting.lock();
        if waiting.order.len() >= MAX_WAITING {
            drop(waiting);
            self.meter.limit_hit("labels_to_put_right");
            return;
        }
        if waiting.wrong.insert(place.clone(), wrong).is_none() {
            waiting.order.push_back(place);
        }
        drop(waiting);
        self.news.notify_one();
    }

    fn take(&self) -> Option<(Place, Wrong)> {
        let mut waiting = self.waiting.lock();
        let place = waiting.order.pop_front()?;
        let wrong = waiting.wrong.remove(&place)?;
        Some((place, wrong))
    }

    /// Puts labels right until cancelled.
    pub(crate) async fn run(self: Arc<Self>, client: Client, guard: Arc<Guard>, cancel: CancellationToken) {
        let mut running = FuturesUnordered::new();
        loop {
            while running.len() < MAX_AT_ONCE
                && let Some((place, wrong)) = self.take()
            {
                running.push(self.write(&client, &guard, place, wrong));
            }
            tokio::select! {
                () = cancel.cancelled() => return,
                Some(()) = running.next() => {}
                () = self.news.notified(), if running.len() < MAX_AT_ONCE => {}
            }
        }
    }

    async fn write(&self, client: &Client, guard: &Guard, place: Place, mut wrong: Wrong) {
        if wrong.tries > 0 {
            tokio::time::sleep(backoff(wrong.tries, random())).await;
        }
        let (resource, key, label) = &place;
        let Some(left) = guard.left() else {
            // Whoever may work again sees it again at its next list; until then it is kept.
            tokio::time::sleep(Duration::from_secs(1)).await;
            return self.add(place, wrong);
        };
        match patch(&client.within(left + WRITE_GRACE), resource, &wrong.object, label, wrong.right).await {
            Ok(_) => debug!(kind = %resource, object = %key, label, right = ?wrong.right, "put a label right"),
            // Gone, or another object: its own events tell more.
            Err(error) if error.is_not_found() || error.is_conflict() => {}
            Err(error) => {
                wrong.tries += 1;
                if wrong.tries == 1 {
                    warn!(kind = %resource, object = %key, label, "a label can't be put right: {error}");
                }
                if wrong.tries < MAX_TRIES {
                    self.add(place, wrong);
                }
            }
        }
    }
}

/// Gives an object the label of a shard, within a sync's leave.
///
/// # Errors
/// Those of the call, and [`Error::Fenced`] if it may not be made.
pub(crate) async fn write_label(
    permit: &Permit,
    client: &Client,
    resource: &Resource,
    object: &Object,
    (label, shard): (&str, u8),
) -> Result<Object, Error> {
    let write = async |client: Client| patch(&client, resource, object, label, Some(shard)).await;
    permit.write(client, "a label", write).await
}

async fn patch(
    client: &Client,
    resource: &Resource,
    object: &Object,
    label: &str,
    right: Option<u8>,
) -> Result<Object, Error> {
    let patch = label_patch(object, label, right).to_string().into_bytes();
    client.merge_patch(resource, object.key(), patch).await
}
