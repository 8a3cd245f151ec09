//! The controllers that shall run, as the registry of each dialect knows them.
//!
//! Never says who runs them: the table does.

use std::collections::BTreeMap;

use parking_lot::Mutex;
use ringmaster_core::key::Uid;
use ringmaster_core::table::plan::Declared;
use ringmaster_core::table::{ControllerName, Mode};
use tokio::sync::watch;

/// What is declared. Shared.
pub(crate) struct DeclaredControllers {
    controllers: Mutex<BTreeMap<ControllerName, Declared>>,
    /// Kinds whose controllers aren't all known yet.
    unknown: Mutex<usize>,
    news: watch::Sender<u64>,
}

impl DeclaredControllers {
    /// Nothing is known of the controllers of so many kinds.
    pub(crate) fn new(kinds: usize) -> Self {
        Self { controllers: Mutex::default(), unknown: Mutex::new(kinds), news: watch::Sender::new(0) }
    }

    /// Told whenever something changed.
    pub(crate) fn news(&self) -> watch::Receiver<u64> {
        self.news.subscribe()
    }

    /// A controller shall run, or not.
    pub(crate) fn set(&self, name: ControllerName, controller: Option<(Uid, bool)>) {
        let mut controllers = self.controllers.lock();
        let declared =
            controller.map(|(uid, sharded)| Declared { uid, mode: if sharded { Mode::Sharded } else { Mode::Whole } });
        let before = match declared.clone() {
            Some(declared) => controllers.insert(name, declared),
            None => controllers.remove(&name),
        };
        drop(controllers);
        if before != declared {
            self.poke();
        }
    }

    /// One more kind's controllers are all known.
    pub(crate) fn know(&self) {
        let mut unknown = self.unknown.lock();
        *unknown = unknown.saturating_sub(1);
        drop(unknown);
        self.poke();
    }

    /// Whether all are known.
    pub(crate) fn is_known(&self) -> bool {
        *self.unknown.lock() == 0
    }

    /// All that shall run, and whether those are all.
    pub(crate) fn controllers(&self) -> (BTreeMap<ControllerName, Declared>, bool) {
        // Asked first: what becomes known meanwhile is among them.
        let known = self.is_known();
        (self.controllers.lock().clone(), known)
    }

    fn poke(&self) {
        self.news.send_modify(|count| *count = count.wrapping_add(1));
    }
}
