//! What to do with this shard's Lease as it was read, and what to write to it.
//!
//! Every moment is a `Duration` on a clock of the caller's. A moment that somebody wrote on a Lease is good for nothing but
//! to differ from the one before. Never talks to an API server.

use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use ringmaster_core::lease::MAX_DURATION;
use ringmaster_core::ring::state::DEFAULT_DURATION;

/// A Lease that says a longer duration of itself counts as one of this. The longest that a sharder writes: it takes a
/// Lease for twice its duration.
pub(crate) const MAX_WAIT: Duration = Duration::from_secs(2 * MAX_DURATION.as_secs());

/// Why a shard may not work any more. It doesn't come back: the process must end, and start anew.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Lost {
    /// It wasn't renewed within the renew deadline.
    #[error("the Lease wasn't renewed in time: others may have this shard's objects. Start anew")]
    Expired,
    /// Somebody else has it: most likely the sharder, which found it silent.
    #[error("the Lease was taken by {0:?}: others have this shard's objects. Start anew")]
    Taken(String),
    /// Another process of the same name has it.
    #[error("another process took the Lease under this shard's name. Give each shard a name of its own")]
    Namesake,
    /// It was deleted.
    #[error("the Lease is gone: others may have this shard's objects. Start anew")]
    Gone,
    /// The Lease can't be kept, for this reason.
    #[error("the Lease can't be kept: {0}")]
    Failed(String),
}

/// What a shard writes on its Lease.
#[derive(Clone, Debug)]
pub(crate) struct Claim {
    /// The shard's name: the Lease's, its holder's, and the value of objects' shard label.
    pub(crate) name: String,
    pub(crate) namespace: String,
    /// The key of the label that names the ring.
    pub(crate) ring_label: &'static str,
    pub(crate) ring: String,
    pub(crate) duration: Duration,
}

impl Claim {
    /// A Lease where there is none.
    pub(crate) fn created(&self, now: &MicroTime) -> Lease {
        let metadata = ObjectMeta {
            name: Some(self.name.clone()),
            namespace: Some(self.namespace.clone()),
            ..ObjectMeta::default()
        };
        let spec = LeaseSpec { lease_transitions: Some(0), ..LeaseSpec::default() };
        self.acquired(Lease { metadata, spec: Some(spec) }, now)
    }

    /// One that was found, taken.
    pub(crate) fn taken(&self, found: &Lease, now: &MicroTime) -> Lease {
        let mut lease = found.clone();
        let spec = lease.spec.get_or_insert_default();
        if spec.holder_identity.as_ref() != Some(&self.name) {
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default().saturating_add(1));
        }
        self.acquired(lease, now)
    }

    /// The one that is held, renewed.
    pub(crate) fn renewed(&self, held: &Lease, now: &MicroTime) -> Lease {
        let mut lease = held.clone();
        // Other labels are others': the sharder shows the shard's state by one. Whoever edits these hides a shard that lives.
        lease.metadata.labels.get_or_insert_default().insert(self.ring_label.to_owned(), self.ring.clone());
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(self.name.clone());
        spec.lease_duration_seconds = Some(i32::try_from(self.duration.as_secs()).unwrap_or(i32::MAX));
        spec.renew_time = Some(now.clone());
        lease
    }

    fn acquired(&self, mut lease: Lease, now: &MicroTime) -> Lease {
        // What tells this process from another of the same name.
        lease.spec.get_or_insert_default().acquire_time = Some(now.clone());
        self.renewed(&lease, now)
    }
}

/// The one that is held, released: nobody holds it, and all else stays.
pub(crate) fn released(held: &Lease) -> Lease {
    let mut lease = held.clone();
    lease.spec.get_or_insert_default().holder_identity = Some(String::new());
    lease
}

/// Whether a Lease that was read is still this process's, which acquired it at that moment.
///
/// # Errors
/// Why it isn't.
pub(crate) fn still_held(found: Option<&Lease>, name: &str, acquired: &MicroTime) -> Result<(), Lost> {
    let Some(lease) = found else { return Err(Lost::Gone) };
    if holder(lease) != name {
        return Err(Lost::Taken(holder(lease).to_owned()));
    }
    if lease.spec.as_ref().and_then(|spec| spec.acquire_time.as_ref()) != Some(acquired) {
        return Err(Lost::Namesake);
    }
    Ok(())
}

/// What to do with the Lease before it is held.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Make it.
    Create,
    /// Take it, by a write that fails if it has changed.
    Take,
    /// Another has it: look again, and take it after this long if it hasn't changed until then.
    Wait(Duration),
}

/// What was seen of a Lease that another has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Joining {
    /// What it said, and since when it says so, as seen here. Labels don't count: they say nothing of its holder.
    watched: Option<(LeaseSpec, Duration)>,
}

impl Joining {
    /// What the shard `name` does with the Lease that was read at `now`; `None`: there is none.
    pub(crate) fn decide(&mut self, now: Duration, found: Option<&Lease>, name: &str) -> Step {
        let Some(lease) = found else {
            self.watched = None;
            return Step::Create;
        };
        if holder(lease).is_empty() || holder(lease) == name {
            self.watched = None;
            return Step::Take;
        }
        let spec = lease.spec.clone().unwrap_or_default();
        let wait = duration(&spec);
        let known = self.watched.as_ref().filter(|(seen, _)| *seen == spec).map(|(_, since)| *since);
        let since = known.unwrap_or(now);
        if known.is_none() {
            self.watched = Some((spec, now));
        }
        match since.saturating_add(wait).checked_sub(now) {
            Some(left) if !left.is_zero() => Step::Wait(left),
            _ => Step::Take,
        }
    }
}

/// Who holds a Lease; empty: nobody.
pub(crate) fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

/// What a Lease says of its own duration.
fn duration(spec: &LeaseSpec) -> Duration {
    let seconds = spec.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
    match seconds {
        Some(seconds) if seconds > 0 => Duration::from_secs(seconds).min(MAX_WAIT),
        _ => DEFAULT_DURATION,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn at(second: i64) -> MicroTime {
        MicroTime(jiff::Timestamp::from_second(second).unwrap())
    }

    fn claim() -> Claim {
        Claim {
            name: "a".to_owned(),
            namespace: "n".to_owned(),
            ring_label: "ringmaster.dev/ring",
            ring: "r".to_owned(),
            duration: secs(15),
        }
    }

    fn held_by(holder: &str, duration: i32, renewed: i64) -> Lease {
        let spec = LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            lease_duration_seconds: Some(duration),
            renew_time: Some(at(renewed)),
            ..LeaseSpec::default()
        };
        Lease { spec: Some(spec), ..Lease::default() }
    }

    fn labels(lease: &Lease) -> BTreeMap<&str, &str> {
        let labels = lease.metadata.labels.iter().flatten();
        labels.map(|(key, value)| (key.as_str(), value.as_str())).collect()
    }

    #[test]
    fn what_is_free_or_ours_is_had_at_once() {
        let mut joining = Joining::default();
        assert_eq!(joining.decide(secs(0), None, "a"), Step::Create);
        assert_eq!(joining.decide(secs(0), Some(&Lease::default()), "a"), Step::Take);
        assert_eq!(joining.decide(secs(0), Some(&held_by("", 1, 0)), "a"), Step::Take);
        assert_eq!(joining.decide(secs(0), Some(&held_by("a", 15, 0)), "a"), Step::Take);
    }

    #[test]
    fn what_another_has_is_waited_for_as_long_as_it_says_itself() {
        let mut joining = Joining::default();
        let mut decide = |now: u64, lease: &Lease| joining.decide(secs(now), Some(lease), "a");
        let taken = held_by("ringmaster-sharder", 30, 0);
        assert_eq!(decide(100, &taken), Step::Wait(secs(30)));
        assert_eq!(decide(129, &taken), Step::Wait(secs(1)));
        // A label that changes isn't a sign of life.
        let mut relabelled = taken.clone();
        relabelled.metadata.labels =
            Some(BTreeMap::from([("ringmaster.dev/ring-state".to_owned(), "dead".to_owned())]));
        assert_eq!(decide(130, &relabelled), Step::Take);
        // Renewed: its time begins anew, whatever its own clock says.
        assert_eq!(decide(131, &held_by("ringmaster-sharder", 30, -5)), Step::Wait(secs(30)));
        assert_eq!(decide(132, &held_by("other", 5, -5)), Step::Wait(secs(5)));
        assert_eq!(decide(137, &held_by("other", 5, -5)), Step::Take);
    }

    #[test]
    fn a_wait_is_bounded_and_never_nothing() {
        let wait = |seconds: i32| Joining::default().decide(secs(0), Some(&held_by("b", seconds, 0)), "a");
        assert_eq!([wait(0), wait(-3)], [Step::Wait(secs(15)); 2]);
        assert_eq!([wait(1200), wait(1201), wait(i32::MAX)], [Step::Wait(secs(1200)); 3]);
    }

    #[test]
    fn a_lease_is_made_and_taken_with_others_labels_kept() {
        let made = claim().created(&at(3));
        assert_eq!((made.metadata.name.as_deref(), made.metadata.namespace.as_deref()), (Some("a"), Some("n")));
        assert_eq!(labels(&made), BTreeMap::from([("ringmaster.dev/ring", "r")]));
        let spec = made.spec.as_ref().unwrap();
        assert_eq!((spec.acquire_time.as_ref(), spec.renew_time.as_ref()), (Some(&at(3)), Some(&at(3))));
        assert_eq!((holder(&made), spec.lease_duration_seconds, spec.lease_transitions), ("a", Some(15), Some(0)));

        let mut found = held_by("ringmaster-sharder", 30, 1);
        found.metadata.resource_version = Some("7".to_owned());
        found.metadata.labels = Some(BTreeMap::from([
            ("ringmaster.dev/ring".to_owned(), "old".to_owned()),
            ("ringmaster.dev/ring-state".to_owned(), "dead".to_owned()),
        ]));
        let taken = claim().taken(&found, &at(9));
        assert_eq!(
            labels(&taken),
            BTreeMap::from([("ringmaster.dev/ring", "r"), ("ringmaster.dev/ring-state", "dead")])
        );
        assert_eq!(taken.metadata.resource_version.as_deref(), Some("7"), "it is taken as it was seen, or not at all");
        assert_eq!(holder(&taken), "a");
        assert_eq!(taken.spec.unwrap().lease_transitions, Some(1));
        assert_eq!(claim().taken(&held_by("a", 15, 1), &at(9)).spec.unwrap().lease_transitions, None);
    }

    #[test]
    fn renewing_and_releasing_leave_the_rest() {
        let held = claim().created(&at(3));
        let renewed = claim().renewed(&held, &at(5));
        let spec = renewed.spec.clone().unwrap();
        assert_eq!((spec.acquire_time, spec.renew_time), (Some(at(3)), Some(at(5))));
        let released = released(&renewed);
        assert_eq!(holder(&released), "");
        assert_eq!(claim().renewed(&released, &at(5)), renewed, "nothing but the holder differs");
    }

    #[test]
    fn a_lease_is_lost_to_whoever_else_has_it() {
        let held = claim().created(&at(3));
        let renewed = claim().renewed(&held, &at(5));
        assert_eq!(still_held(Some(&renewed), "a", &at(3)), Ok(()));
        assert_eq!(still_held(None, "a", &at(3)), Err(Lost::Gone));
        let by = |holder: &str| still_held(Some(&held_by(holder, 15, 0)), "a", &at(3));
        assert_eq!(by("ringmaster-sharder"), Err(Lost::Taken("ringmaster-sharder".to_owned())));
        assert_eq!(by(""), Err(Lost::Taken(String::new())));
        let namesake = claim().taken(&renewed, &at(6));
        assert_eq!(still_held(Some(&namesake), "a", &at(3)), Err(Lost::Namesake));
    }
}
