//! Health: `/healthz` says that the process answers, `/readyz` whether it wants work.
//!
//! It never judges by itself: whoever owns a process's state sets it.

use std::fmt;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::get;
use parking_lot::RwLock;

/// Longest reason that is kept, in bytes.
pub const MAX_REASON_BYTES: usize = 256;

/// Whether the process is ready. Clones share one state, which starts as not ready: `starting`.
#[derive(Clone)]
pub struct Health {
    /// Why it isn't ready; `None` when it is.
    unready: Arc<RwLock<Option<String>>>,
}

impl Health {
    /// A process that is starting.
    pub fn new() -> Health {
        Health { unready: Arc::new(RwLock::new(Some("starting".to_owned()))) }
    }

    /// Says whether the process is ready. `false` keeps an earlier reason.
    pub fn set_ready(&self, ready: bool) {
        let mut unready = self.unready.write();
        if ready {
            *unready = None;
        } else if unready.is_none() {
            *unready = Some("not ready".to_owned());
        }
    }

    /// Says that the process isn't ready, and why. The reason is cut to [`MAX_REASON_BYTES`].
    pub fn set_not_ready(&self, reason: impl Into<String>) {
        let mut reason = reason.into();
        let mut end = reason.len().min(MAX_REASON_BYTES);
        while !reason.is_char_boundary(end) {
            end -= 1;
        }
        reason.truncate(end);
        *self.unready.write() = Some(reason);
    }

    /// Why the process isn't ready; `None` when it is.
    pub fn not_ready(&self) -> Option<String> {
        self.unready.read().clone()
    }

    /// The routes of this state.
    pub(crate) fn routes(self) -> Router {
        Router::new().route("/healthz", get(async || "ok")).route("/readyz", get(readyz)).with_state(self)
    }
}

impl Default for Health {
    fn default() -> Health {
        Health::new()
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Health").field("not_ready", &self.not_ready()).finish()
    }
}

async fn readyz(State(health): State<Health>) -> (StatusCode, String) {
    match health.not_ready() {
        None => (StatusCode::OK, "ok".to_owned()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, reason),
    }
}
