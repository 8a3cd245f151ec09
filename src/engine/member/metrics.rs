//! What is counted and shown of membership.
//!
//! Never decides: who leads is read by scrapes, by those who tell people, and by who lets deleted controllers go, which two
//! may do at once.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

/// Seconds: a hand-over takes some ten milliseconds, a lost member a Lease's duration.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 1.0, 5.0, 15.0, 30.0];

/// A part of a row's way from owner to owner.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// From when it is to be warmed until it is in all caches.
    Warm,
    /// From when it is to be given up until nothing works on it any more.
    Release,
    /// From when it may be worked on until its parents are queued.
    Start,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PhaseLabels {
    phase: &'static str,
}

/// The metrics.
pub(crate) struct MemberMetrics {
    handover: Family<PhaseLabels, Histogram, fn() -> Histogram>,
    takeover: Histogram,
    leads: watch::Sender<bool>,
    pending: AtomicUsize,
}

impl Phase {
    const ALL: [Self; 3] = [Self::Warm, Self::Release, Self::Start];

    fn labels(self) -> PhaseLabels {
        let phase = match self {
            Self::Warm => "warm",
            Self::Release => "release",
            Self::Start => "start",
        };
        PhaseLabels { phase }
    }
}

impl MemberMetrics {
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let handover: Family<PhaseLabels, Histogram, fn() -> Histogram> =
            Family::new_with_constructor(|| Histogram::new(BUCKETS));
        registry.register(
            "ringmaster_handover_seconds",
            "How long each part of a shard's or a whole's hand-over took on this member",
            handover.clone(),
        );
        for phase in Phase::ALL {
            drop(handover.get_or_create(&phase.labels()));
        }
        let takeover = Histogram::new(BUCKETS);
        registry.register(
            "ringmaster_takeover_seconds",
            "From the last sign of life of a member that was lost, as this member saw it, until its rows were others'",
            takeover.clone(),
        );
        Self { handover, takeover, leads: watch::Sender::new(false), pending: AtomicUsize::new(0) }
    }

    /// A part of a hand-over took so long.
    pub(crate) fn handover(&self, phase: Phase, took: Duration) {
        self.handover.get_or_create(&phase.labels()).observe(took.as_secs_f64());
    }

    /// A lost member's rows were given to others, so long after its last sign of life.
    pub(crate) fn takeover(&self, took: Duration) {
        self.takeover.observe(took.as_secs_f64());
    }

    /// This member writes the table from now on, or doesn't any more.
    pub(crate) fn set_leads(&self, leads: bool) {
        self.leads.send_if_modified(|known| std::mem::replace(known, leads) != leads);
    }

    /// Whether this member writes the table.
    pub(crate) fn leads(&self) -> bool {
        *self.leads.borrow()
    }

    /// The same, and each change of it.
    pub(crate) fn leads_news(&self) -> watch::Receiver<bool> {
        self.leads.subscribe()
    }

    /// So many rows are on their way, or their owner doesn't live.
    pub(crate) fn set_pending(&self, rows: usize) {
        self.pending.store(rows, Ordering::Relaxed);
    }

    /// Rows that are on their way or whose owner doesn't live, as this member planned last.
    pub(crate) fn pending(&self) -> usize {
        self.pending.load(Ordering::Relaxed)
    }
}
