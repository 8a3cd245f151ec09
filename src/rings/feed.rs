//! A watch that tells a ring's board what it shows, metadata only.
//!
//! Never keeps an object. What it selects is fixed: with other shards another watch takes its place.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use ringmaster_cluster::{Client, Error, Sink, Watch, boot_time, run_pump};
use ringmaster_core::key::Version;
use ringmaster_core::object::Object;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::board::{Id, Mark};
use crate::scope::{Scope, Source};

/// One kind under one selector.
struct Feed {
    scope: Arc<Scope>,
    kind: usize,
    mark: Mark,
    selector: String,
    /// Of the list that runs or ran last.
    generation: AtomicU64,
    cancel: CancellationToken,
}

/// Starts one, until `cancel`.
pub(crate) fn start(
    (client, tasks): (&Client, &TaskTracker),
    scope: &Arc<Scope>,
    (kind, mark): (usize, Mark),
    selector: String,
    cancel: CancellationToken,
) {
    let watch = Watch { metadata_only: true, ..Watch::all(Arc::clone(&scope.kinds[kind].resource)) };
    let generation = AtomicU64::new(scope.next_generation());
    let feed = Feed { scope: Arc::clone(scope), kind, mark, selector, generation, cancel: cancel.clone() };
    tasks.spawn(run_pump(client.clone(), watch, Arc::new(feed), scope.clock.random, cancel));
}

impl Sink for Feed {
    fn list_begins(&self) -> String {
        self.generation.store(self.scope.next_generation(), Ordering::Relaxed);
        self.selector.clone()
    }

    fn watch_begins(&self, version: Version, _: bool) -> (String, Version) {
        (self.selector.clone(), version)
    }

    fn applied(&self, object: Object) {
        if !self.cancel.is_cancelled() {
            self.scope.note(self.kind, &object, self.mark, self.generation.load(Ordering::Relaxed));
        }
    }

    fn deleted(&self, object: Object) {
        if !self.cancel.is_cancelled() {
            let id = Id { kind: self.kind, key: object.key().clone() };
            self.scope.board.lock().left(boot_time(), &id, object.version(), self.mark);
            self.scope.news.notify_one();
        }
    }

    fn progressed(&self, _: Version) {}

    fn list_complete(&self, _: Version) {
        if self.cancel.is_cancelled() {
            return;
        }
        let generation = self.generation.load(Ordering::Relaxed);
        self.scope.board.lock().complete(boot_time(), self.kind, self.mark, generation);
        self.scope.troubled(self.kind, self.source(), None);
        self.scope.news.notify_one();
    }

    fn list_aborted(&self) {}

    fn lost_track(&self) {}

    fn trouble(&self, error: &Error, _: u32) {
        if !self.cancel.is_cancelled() {
            self.scope.troubled(self.kind, self.source(), Some(error));
        }
    }

    fn recovered(&self) {
        self.scope.troubled(self.kind, self.source(), None);
    }
}

impl Feed {
    fn source(&self) -> Source {
        if self.mark == Mark::Draining { Source::Draining } else { Source::Unassigned }
    }
}
