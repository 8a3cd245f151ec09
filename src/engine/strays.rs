//! Watches of what carries no label of ours: metadata only, shown as it passes.
//!
//! Never keeps an object. Objects may be shown twice, and in any version: whoever sees one must ask before it acts.

use std::sync::Arc;

use parking_lot::Mutex;
use ringmaster_cluster::{Error, Roused, Sink, Watch, run_pump};
use ringmaster_core::key::{Resource, Version};
use ringmaster_core::object::Object;
use tokio_util::sync::CancellationToken;

use crate::clock;
use crate::outage::Reach;
use crate::watches::Pumps;

/// Who looks at what passes. Called in the order of events, mostly from one task; must not block.
pub(crate) trait Stray: Send + Sync {
    /// An object is there, or has changed. Only its metadata is; its kind is `PartialObjectMetadata`.
    fn seen(&self, object: &Arc<Object>);

    /// All that was there when the watch began was shown.
    fn listed(&self) {}
}

/// One kind under one selector.
pub(crate) struct Strays {
    resource: Arc<Resource>,
    selector: String,
    pumps: Arc<Pumps>,
    watched: Mutex<Watched>,
}

#[derive(Default)]
struct Watched {
    lookers: Vec<(u64, Arc<dyn Stray>)>,
    /// Of the pump that runs.
    cancel: CancellationToken,
}

/// A hold on such a watch, which ends with the last one.
pub(crate) struct StraySubscription {
    strays: Arc<Strays>,
    looker: u64,
}

impl Drop for StraySubscription {
    fn drop(&mut self) {
        let mut watched = self.strays.watched.lock();
        watched.lookers.retain(|(id, _)| *id != self.looker);
        if watched.lookers.is_empty() {
            watched.cancel.cancel();
        }
    }
}

impl Strays {
    pub(crate) fn new(resource: Arc<Resource>, selector: String, pumps: &Arc<Pumps>) -> Arc<Self> {
        Arc::new(Self { resource, selector, pumps: Arc::clone(pumps), watched: Mutex::default() })
    }

    pub(crate) fn resource(&self) -> &Resource {
        &self.resource
    }

    /// One more looks. What there is must be shown to it, so the watch begins anew.
    pub(crate) fn subscribe(self: &Arc<Self>, id: u64, stray: Arc<dyn Stray>) -> StraySubscription {
        let mut watched = self.watched.lock();
        watched.lookers.push((id, stray));
        watched.cancel.cancel();
        watched.cancel = self.pumps.cancel.child_token();
        let watch = Watch { metadata_only: true, ..Watch::all(Arc::clone(&self.resource)) };
        let cancel = watched.cancel.clone();
        let sink = Arc::new(StraySink {
            strays: Arc::clone(self),
            cancel: cancel.clone(),
            reach: Reach::new(&self.pumps.outage),
        });
        self.pumps.tasks.spawn(run_pump(self.pumps.client.clone(), watch, sink, clock::random, cancel));
        StraySubscription { strays: Arc::clone(self), looker: id }
    }
}

struct StraySink {
    strays: Arc<Strays>,
    cancel: CancellationToken,
    reach: Reach,
}

impl Sink for StraySink {
    fn list_begins(&self) -> String {
        self.strays.selector.clone()
    }

    fn watch_begins(&self, version: Version, _: bool) -> (String, Version) {
        (self.strays.selector.clone(), version)
    }

    fn applied(&self, object: Object) {
        if self.cancel.is_cancelled() {
            return;
        }
        let lookers: Vec<_> = self.strays.watched.lock().lookers.iter().map(|(_, stray)| Arc::clone(stray)).collect();
        let object = Arc::new(object);
        lookers.iter().for_each(|stray| stray.seen(&object));
    }

    fn deleted(&self, _: Object) {}

    fn progressed(&self, _: Version) {}

    fn list_complete(&self, _: Version) {
        if !self.cancel.is_cancelled() {
            let lookers: Vec<_> =
                self.strays.watched.lock().lookers.iter().map(|(_, stray)| Arc::clone(stray)).collect();
            lookers.iter().for_each(|stray| stray.listed());
        }
        self.reach.answered();
    }

    fn list_aborted(&self) {}

    fn lost_track(&self) {}

    fn trouble(&self, error: &Error, failures: u32) {
        self.reach.failed(&self.strays.resource, error, failures);
    }

    fn recovered(&self) {
        self.reach.answered();
    }

    fn roused(&self) -> Roused {
        self.reach.roused()
    }
}
