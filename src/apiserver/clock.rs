//! The clock and the dice of a server that isn't under a test's control.
//!
//! Never used by the rest of this crate: whoever makes a server chooses.

use std::sync::Arc;

use jiff::{RoundMode, Timestamp, TimestampRound, Unit};

use crate::meta::Now;
use crate::server::Clock;

/// The machine's clock, to the second as Kubernetes writes times, and bits for uids and names: they differ, but whoever knows
/// some can guess others, so they are no secrets.
#[must_use]
pub fn wall_clock() -> Clock {
    Arc::new(|| {
        #[expect(clippy::disallowed_methods, reason = "the times in objects are wall time")]
        let now = Timestamp::now();
        let seconds = now.round(TimestampRound::new().smallest(Unit::Second).mode(RoundMode::Trunc));
        Now { time: seconds.unwrap_or(now).to_string(), random: fastrand::u128(..) }
    })
}
