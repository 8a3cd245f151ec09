//! The clocks of a shard.
//!
//! Nothing is ever due by the wall clock: it is only written down, for people and to differ from what was before.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// Time since the machine started, suspended or stopped or not: what the right to work is measured by.
pub(crate) fn boot_time() -> Duration {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or_default())
}

/// The wall clock to the microsecond, which is what a Lease keeps of it.
#[expect(clippy::disallowed_methods, reason = "the one look at the wall clock: nothing is ever due by it")]
pub(crate) fn lease_time() -> MicroTime {
    let now = jiff::Timestamp::now();
    MicroTime(jiff::Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now))
}
