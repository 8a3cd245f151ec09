//! What a ring's status says, in the form of each API group.
//!
//! Never formats a time: the moment of a change is an argument. Never judges a ring.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::condition::Condition;
use crate::dialect::RingDialect;
use crate::key::Uid;

/// What is known of a ring, before it becomes a status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RingStatus {
    /// The generation that this is about.
    pub observed_generation: i64,
    /// Shards with a Lease.
    pub shards: usize,
    /// Those of them that objects are assigned to.
    pub available: usize,
    /// Why objects aren't being assigned: a reason in CamelCase, and a message.
    pub ready: Result<(), (Cow<'static, str>, String)>,
    /// Which drains weren't acknowledged in time, in words.
    pub drain_overdue: Option<String>,
}

/// A ring's status as it is stored. Both groups have the same fields.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Status {
    /// The generation that this is about.
    pub observed_generation: i64,
    /// Shards with a Lease.
    pub shards: i32,
    /// Those of them that objects are assigned to.
    pub available_shards: i32,
    /// One for each type.
    pub conditions: Vec<Condition>,
}

impl RingStatus {
    /// The status that this amounts to. Conditions whose status is what `present` says keep their transition time; others get
    /// `now` (RFC 3339). Conditions that aren't the dialect's are left out.
    #[must_use]
    pub fn status(&self, dialect: &RingDialect, present: &Status, now: &str) -> Status {
        let ready = match &self.ready {
            Ok(()) => ("Ready", "True", dialect.ready_reason, "objects are being assigned to the shards"),
            Err((reason, message)) => ("Ready", "False", dialect.unready_reason.unwrap_or(reason), message.as_str()),
        };
        let overdue = match &self.drain_overdue {
            _ if !dialect.tells_drains => None,
            Some(message) => Some(("DrainOverdue", "True", "NotAcknowledged", message.as_str())),
            None => Some(("DrainOverdue", "False", "Acknowledged", "every drain is acknowledged in time")),
        };
        let condition = |said| Condition::after(&present.conditions, said, self.observed_generation, now);
        Status {
            observed_generation: self.observed_generation,
            shards: count(self.shards),
            available_shards: count(self.available),
            conditions: std::iter::once(ready).chain(overdue).map(condition).collect(),
        }
    }
}

impl Status {
    /// The JSON patch of the ring's `status` subresource that makes it `self`, if the ring is still this one; `None` if
    /// `present` is the same.
    #[must_use]
    pub fn patch(&self, uid: &Uid, present: &Self) -> Option<Value> {
        if self == present {
            return None;
        }
        Some(json!([
            {"op": "test", "path": "/metadata/uid", "value": uid.to_string()},
            {"op": "add", "path": "/status", "value": self},
        ]))
    }
}

fn count(number: usize) -> i32 {
    i32::try_from(number).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::condition::MAX_MESSAGE_CHARS;
    use crate::dialect::{CONTROLLER_SHARDING_RING, RINGMASTER_RING};

    fn fine() -> RingStatus {
        RingStatus { observed_generation: 3, shards: 4, available: 3, ready: Ok(()), drain_overdue: None }
    }

    fn failing() -> RingStatus {
        RingStatus { ready: Err(("Forbidden".into(), "may not list secrets".into())), ..fine() }
    }

    fn summary(status: &Status) -> Vec<String> {
        status.conditions.iter().map(|c| format!("{} {} {}", c.kind, c.status, c.reason)).collect()
    }

    #[test]
    fn our_group_has_reasons_and_drains() {
        let told = |ring: &RingStatus| ring.status(&RINGMASTER_RING, &Status::default(), "t");
        let status = told(&fine());
        assert_eq!((status.observed_generation, status.shards, status.available_shards), (3, 4, 3));
        assert_eq!(summary(&status), ["Ready True Reconciled", "DrainOverdue False Acknowledged"]);
        let overdue = RingStatus { drain_overdue: Some("shard a, 2 objects".into()), ..failing() };
        let status = told(&overdue);
        assert_eq!(summary(&status), ["Ready False Forbidden", "DrainOverdue True NotAcknowledged"]);
        assert_eq!(status.conditions[1].message, "shard a, 2 objects");
    }

    #[test]
    fn the_contract_knows_one_type_and_two_reasons() {
        let told = |ring: &RingStatus| ring.status(&CONTROLLER_SHARDING_RING, &Status::default(), "t");
        assert_eq!(summary(&told(&fine())), ["Ready True ReconciliationSucceeded"]);
        let overdue = RingStatus { drain_overdue: Some("shard a".into()), ..failing() };
        let status = told(&overdue);
        assert_eq!(summary(&status), ["Ready False ReconciliationFailed"]);
        assert_eq!(status.conditions[0].message, "may not list secrets");
    }

    #[test]
    fn the_json_is_that_of_the_kind() {
        let status = fine().status(&CONTROLLER_SHARDING_RING, &Status::default(), "2026-01-02T03:04:05Z");
        let wanted = json!({
            "observedGeneration": 3,
            "shards": 4,
            "availableShards": 3,
            "conditions": [{
                "type": "Ready",
                "status": "True",
                "reason": "ReconciliationSucceeded",
                "message": "objects are being assigned to the shards",
                "observedGeneration": 3,
                "lastTransitionTime": "2026-01-02T03:04:05Z",
            }],
        });
        let patch = status.patch(&Uid::new("u"), &Status::default()).unwrap();
        assert_eq!(patch[0], json!({"op": "test", "path": "/metadata/uid", "value": "u"}));
        assert_eq!(patch[1], json!({"op": "add", "path": "/status", "value": wanted}));
        let read: Status = serde_json::from_value(wanted).unwrap();
        assert_eq!(status.patch(&Uid::new("u"), &read), None, "nothing to write");
        assert_eq!(serde_json::from_value::<Status>(json!({})).unwrap(), Status::default(), "none yet");
    }

    #[test]
    fn transition_times_move_with_status_only() {
        let first = fine().status(&RINGMASTER_RING, &Status::default(), "t1");
        let again = RingStatus { observed_generation: 4, shards: 9, ..fine() };
        let second = again.status(&RINGMASTER_RING, &first, "t2");
        assert_eq!((&*second.conditions[0].last_transition_time, second.conditions[0].observed_generation), ("t1", 4));
        let third = failing().status(&RINGMASTER_RING, &second, "t3");
        let times: Vec<&str> = third.conditions.iter().map(|c| &*c.last_transition_time).collect();
        assert_eq!(times, ["t3", "t1"]);
        assert!(third.patch(&Uid::new("u"), &second).is_some());
        assert_eq!(failing().status(&RINGMASTER_RING, &third, "t4"), third);
    }

    #[test]
    fn long_messages_are_cut() {
        let long = RingStatus { ready: Err(("Forbidden".into(), "ä".repeat(5000))), ..fine() };
        let status = long.status(&RINGMASTER_RING, &Status::default(), "t");
        assert_eq!(status.conditions[0].message.chars().count(), MAX_MESSAGE_CHARS);
    }
}
