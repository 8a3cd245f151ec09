//! What is counted of the webhook, for metrics: how questions ended, and what was assigned, which joins the rings' own
//! numbers.
//!
//! Never a label that who asks can choose: a ring that exists and its kinds, and words of ours.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use ringmaster_cluster::Client;

use super::review::{Outcome, RingName};
use super::serve::Meter;
use crate::registry::RingStats;

/// A question that got no answer: it was none, or too much at once.
const REFUSED: &str = "refused";
/// A connection that ended before it was one.
const HANDSHAKE_FAILED: &str = "handshake_failed";

/// How often questions ended how; cheap to clone.
#[derive(Clone, Default)]
pub struct Counts(Arc<Mutex<BTreeMap<&'static str, u64>>>);

impl Counts {
    /// Each result and how often it was, none before the first.
    #[must_use]
    pub fn all(&self) -> Vec<(&'static str, u64)> {
        self.0.lock().iter().map(|(result, count)| (*result, *count)).collect()
    }

    fn add(&self, result: &'static str) {
        *self.0.lock().entry(result).or_default() += 1;
    }
}

/// Who counts.
pub(super) struct Counting {
    pub(super) counts: Counts,
    pub(super) rings: RingStats,
    /// Its meter is told of limits.
    pub(super) client: Client,
}

impl Meter for Counting {
    fn answered(&self, outcome: Outcome, _took: Duration) {
        self.counts.add(outcome.label());
    }

    fn assigned(&self, ring: RingName<'_>, group: &str, resource: &str) {
        self.rings.assigned(ring, group, resource);
    }

    fn refused(&self, _status: u16) {
        self.counts.add(REFUSED);
    }

    fn handshake_failed(&self) {
        self.counts.add(HANDSHAKE_FAILED);
    }

    fn limit_hit(&self, limit: &'static str) {
        self.client.limit_hit(limit);
    }
}
