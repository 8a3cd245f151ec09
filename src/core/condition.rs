//! What a controller's status says: its conditions, and when one of them has changed.
//!
//! Never formats a time: the moment of a change is an argument.

use serde::{Deserialize, Serialize};

/// One condition, as Kubernetes API conventions define it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about: `Accepted`, `HookReachable`, `Ready`.
    #[serde(rename = "type")]
    pub kind: String,
    /// `True`, `False` or `Unknown`.
    pub status: String,
    /// A word in CamelCase for programs.
    pub reason: String,
    /// A sentence for people.
    pub message: String,
    /// The generation of the controller that this is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// RFC 3339, when `status` last changed.
    pub last_transition_time: String,
}

/// A message is cut at this many characters.
pub const MAX_MESSAGE_CHARS: usize = 1024;

/// What is known of a controller, before it becomes conditions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    /// Why its declaration can't be used, with the field; `None` if it can.
    pub rejected: Option<String>,
    /// Why it doesn't run although it is accepted: reason and message; `None` while it runs.
    pub blocked: Option<(&'static str, String)>,
    /// What the hook's last calls showed.
    pub hook: HookHealth,
    /// Parents whose last sync failed.
    pub failing: Failing,
}

/// The parents whose last sync failed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Failing {
    /// How many.
    pub count: usize,
    /// Of how many parents in all.
    pub parents: usize,
    /// Which fails longest, and since when.
    pub longest: String,
    /// Which failed last, and why.
    pub last: String,
}

/// What the calls of a hook showed.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub enum HookHealth {
    /// No call was answered yet.
    #[default]
    Unknown,
    /// The last call was answered.
    Reachable,
    /// The last call failed: reason and message.
    Failing(&'static str, String),
}

/// The conditions that `health` amounts to. Those whose status is what `present` says keep their transition time;
/// others get `now` (RFC 3339).
#[must_use]
pub fn conditions(health: &Health, generation: i64, present: &[Condition], now: &str) -> Vec<Condition> {
    let accepted = match &health.rejected {
        Some(message) => ("Accepted", "False", "Invalid", message.clone()),
        None => ("Accepted", "True", "Valid", "the declaration can be used".to_owned()),
    };
    let hook = match &health.hook {
        HookHealth::Unknown => ("HookReachable", "Unknown", "NotCalled", "no hook call was answered yet".to_owned()),
        HookHealth::Reachable => ("HookReachable", "True", "Answered", "the last hook call was answered".to_owned()),
        HookHealth::Failing(reason, message) => ("HookReachable", "False", *reason, message.clone()),
    };
    let ready = match (&health.rejected, &health.blocked, &health.hook) {
        (Some(_), _, _) => ("Ready", "False", "Invalid", "the declaration can't be used; see Accepted".to_owned()),
        (None, Some((reason, message)), _) => ("Ready", "False", *reason, message.clone()),
        (None, None, HookHealth::Failing(..)) => {
            ("Ready", "False", "HookFailing", "the hook's last call failed; see HookReachable".to_owned())
        }
        (None, None, _) => match &health.failing {
            Failing { count: 0, .. } => ("Ready", "True", "Running", "parents are being synced".to_owned()),
            Failing { count, parents, longest, last } => {
                let text = format!("the last sync of {count} of {parents} parents failed, of {longest}; {last}");
                if count < parents {
                    ("Ready", "True", "Running", text)
                } else {
                    ("Ready", "False", "SyncsFailing", text)
                }
            }
        },
    };
    [accepted, hook, ready]
        .into_iter()
        .map(|(kind, status, reason, message)| {
            let before = present.iter().find(|condition| condition.kind == kind && condition.status == status);
            Condition {
                kind: kind.to_owned(),
                status: status.to_owned(),
                reason: reason.to_owned(),
                message: message.chars().take(MAX_MESSAGE_CHARS).collect(),
                observed_generation: generation,
                last_transition_time: before.map_or_else(|| now.to_owned(), |c| c.last_transition_time.clone()),
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary(health: &Health) -> Vec<(String, String)> {
        conditions(health, 3, &[], "now").into_iter().map(|c| (c.status, c.reason)).collect()
    }

    fn expect(health: &Health, wanted: [(&str, &str); 3]) {
        assert_eq!(summary(health), wanted.map(|(status, reason)| (status.to_owned(), reason.to_owned())));
    }

    #[test]
    fn say_what_is_wrong_first() {
        let fine = Health { rejected: None, blocked: None, hook: HookHealth::Reachable, failing: Failing::default() };
        expect(&fine, [("True", "Valid"), ("True", "Answered"), ("True", "Running")]);
        let down = Health { hook: HookHealth::Failing("ConnectionRefused", "x".into()), ..fine.clone() };
        expect(&down, [("True", "Valid"), ("False", "ConnectionRefused"), ("False", "HookFailing")]);
        let failing = |count| Health {
            failing: Failing { count, parents: 2, longest: "n/b since t".into(), last: "n/a: x".into() },
            ..fine.clone()
        };
        expect(&failing(2), [("True", "Valid"), ("True", "Answered"), ("False", "SyncsFailing")]);
        expect(&failing(1), [("True", "Valid"), ("True", "Answered"), ("True", "Running")]);
        assert!(
            conditions(&failing(1), 1, &[], "now")[2].message.contains("1 of 2 parents failed, of n/b since t; n/a: x")
        );
        let blocked = Health { blocked: Some(("ParentKindNotServed", "x".into())), ..fine.clone() };
        expect(&blocked, [("True", "Valid"), ("True", "Answered"), ("False", "ParentKindNotServed")]);
        let rejected = Health { rejected: Some("spec.x: y".into()), ..fine };
        expect(&rejected, [("False", "Invalid"), ("True", "Answered"), ("False", "Invalid")]);
    }

    #[test]
    fn transition_times_move_with_status_only() {
        let mut health = Health {
            rejected: None,
            blocked: None,
            hook: HookHealth::Failing("Timeout", "a".into()),
            failing: Failing::default(),
        };
        let first = conditions(&health, 1, &[], "t1");
        health.hook = HookHealth::Failing("ConnectionRefused", "b".into());
        let second = conditions(&health, 2, &first, "t2");
        assert_eq!((second[1].last_transition_time.as_str(), second[1].reason.as_str()), ("t1", "ConnectionRefused"));
        assert_eq!(second[1].observed_generation, 2);
        health.hook = HookHealth::Reachable;
        let third = conditions(&health, 2, &second, "t3");
        assert_eq!(third[1].last_transition_time, "t3");
        assert_eq!(third[0].last_transition_time, "t1");
    }
}
