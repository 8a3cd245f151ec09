//! What a controller's status says: its conditions, and when one of them has changed.
//!
//! Never formats a time: the moment of a change is an argument.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::endpoints::{MAX_NAMED, Standing};

/// One condition, as Kubernetes API conventions define it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// What it is about: `Accepted`, `HookReachable`, `EndpointsReady`, `Ready`.
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
    pub blocked: Option<(Cow<'static, str>, String)>,
    /// What the hook's last calls showed.
    pub hook: HookHealth,
    /// Parents whose last sync failed.
    pub failing: Failing,
    /// What is known of the hook's endpoints; `None` where the controller doesn't run.
    pub endpoints: Option<Standing>,
    /// How the work is divided among the members; `None` where that isn't known.
    pub placement: Option<Placement>,
}

/// How a controller's parents are divided among the members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Placement {
    /// How it is now.
    pub division: Division,
    /// What has been on its way from member to member for long, in words.
    pub moving: Option<String>,
    /// What has had no member for long, in words.
    pub unassigned: Option<String>,
}

/// Who has which parents.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Division {
    /// All members, by shards.
    Sharded,
    /// One member.
    Whole,
    /// On its way from the one to the other.
    Turning,
    /// One member, although it is declared as sharded: tables can't be kept.
    NoTable,
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

/// What one member knows of its part of a sharded controller, as it tells the others.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Part {
    /// Parents in its shards.
    pub parents: usize,
    /// Those whose last sync failed.
    #[serde(skip_serializing_if = "is_zero")]
    pub failing: usize,
    /// Which fails longest, and since when.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub longest: String,
    /// Which failed last, and why.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub last: String,
    /// Whether a hook call was answered; `None` before the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub hook: Option<bool>,
    /// If it wasn't: whether that was the finalize hook's alone.
    #[serde(skip_serializing_if = "is_false")]
    pub finalize_only: bool,
    /// Why the last hook call failed, or why the controller doesn't run: reason and message.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trouble: Option<(String, String)>,
    /// Parents that have had no label for long.
    #[serde(skip_serializing_if = "is_zero")]
    pub unlabelled: usize,
    /// Endpoints of the hook that are left out; at most [`MAX_NAMED`].
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub left_out: Vec<String>,
    /// Those that answer errors only, and the last code of each; at most as many.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub erring: Vec<(String, u16)>,
}

/// Characters of a message in a [`Part`].
pub const MAX_PART_CHARS: usize = 200;

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_zero(number: &usize) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde wants it so")]
fn is_false(flag: &bool) -> bool {
    !*flag
}

impl Part {
    /// What a member's health is, for others.
    #[must_use]
    pub fn new(health: &Health, unlabelled: usize) -> Self {
        let cut = |text: &str| text.chars().take(MAX_PART_CHARS).collect::<String>();
        let trouble = match (&health.blocked, &health.hook) {
            (Some((reason, text)), _)
            | (None, HookHealth::Failing(reason, text) | HookHealth::FinalizeFailing(reason, text)) => {
                Some((cut(reason), cut(text)))
            }
            (None, HookHealth::Unknown | HookHealth::Reachable) => None,
        };
        let hook = match &health.hook {
            HookHealth::Unknown => None,
            HookHealth::Reachable => Some(true),
            HookHealth::Failing(..) | HookHealth::FinalizeFailing(..) => Some(false),
        };
        let Failing { count, parents, longest, last } = &health.failing;
        let endpoints = health.endpoints.iter();
        let left_out = endpoints.clone().flat_map(|known| &known.ejected).take(MAX_NAMED).map(|name| cut(name));
        let erring = endpoints.flat_map(|known| &known.erring).take(MAX_NAMED).map(|(name, code)| (cut(name), *code));
        Self {
            parents: *parents,
            failing: *count,
            longest: cut(longest),
            last: cut(last),
            hook,
            finalize_only: matches!(health.hook, HookHealth::FinalizeFailing(..)),
            trouble,
            unlabelled,
            left_out: left_out.collect(),
            erring: erring.collect(),
        }
    }
}

impl Health {
    /// Adds what other members, by name, know of their parts of the controller.
    pub fn add(&mut self, parts: &[(String, Part)]) {
        for (member, part) in parts {
            self.failing.parents += part.parents;
            self.failing.count += part.failing;
            if self.failing.longest.is_empty() {
                self.failing.longest.clone_from(&part.longest);
            }
            if self.failing.last.is_empty() {
                self.failing.last.clone_from(&part.last);
            }
            if let Some(endpoints) = &mut self.endpoints {
                for name in part.left_out.iter().filter(|name| !endpoints.ejected.contains(*name)) {
                    endpoints.elsewhere.entry(name.clone()).or_default().push(member.clone());
                }
                for erring in &part.erring {
                    if !endpoints.erring.iter().any(|(name, _)| *name == erring.0) {
                        endpoints.erring.push(erring.clone());
                    }
                }
            }
            let of_part = match (part.hook, &part.trouble) {
                (Some(false), Some((reason, text))) => {
                    let (reason, text) = (reason.clone().into(), format!("at {member}: {text}"));
                    if part.finalize_only {
                        HookHealth::FinalizeFailing(reason, text)
                    } else {
                        HookHealth::Failing(reason, text)
                    }
                }
                (Some(true), _) => HookHealth::Reachable,
                _ => HookHealth::Unknown,
            };
            self.hook = std::mem::take(&mut self.hook).or_worse(of_part);
            if let (Some(true) | None, Some((reason, text)), None) = (part.hook, &part.trouble, &self.blocked) {
                self.blocked = Some((reason.clone().into(), format!("at {member}: {text}")));
            }
        }
    }
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
    Failing(Cow<'static, str>, String),
    /// Only that of the finalize hook did: parents that stay are synced all the same.
    FinalizeFailing(Cow<'static, str>, String),
}

impl HookHealth {
    /// The worse of two: of what parents need all the time, then of what they need in the end.
    #[must_use]
    pub fn or_worse(self, other: Self) -> Self {
        let rank = |health: &Self| match health {
            Self::Unknown => 0,
            Self::Reachable => 1,
            Self::FinalizeFailing(..) => 2,
            Self::Failing(..) => 3,
        };
        if rank(&other) > rank(&self) { other } else { self }
    }
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
        HookHealth::Failing(reason, message) | HookHealth::FinalizeFailing(reason, message) => {
            ("HookReachable", "False", &**reason, message.clone())
        }
    };
    let ready = match (&health.rejected, &health.blocked, &health.hook) {
        (Some(_), _, _) => ("Ready", "False", "Invalid", "the declaration can't be used; see Accepted".to_owned()),
        (None, Some((reason, message)), _) => ("Ready", "False", &**reason, message.clone()),
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
    let endpoints = health.endpoints.as_ref().map(|standing| {
        let (status, reason, message) = standing.condition();
        ("EndpointsReady", status, reason, message)
    });
    let placement = health.placement.as_ref().map(placed);
    [accepted, hook, ready]
        .into_iter()
        .chain(endpoints)
        .chain(placement.into_iter().flatten())
        .map(|(kind, status, reason, message)| {
            Condition::after(present, (kind, status, reason, &message), generation, now)
        })
        .collect()
}

impl Condition {
    /// The condition of this kind, status, reason and message that follows the `present` ones, as of a generation: its
    /// transition time is theirs while its status is the same, else `now`.
    pub(crate) fn after(
        present: &[Self],
        (kind, status, reason, message): (&str, &str, &str, &str),
        generation: i64,
        now: &str,
    ) -> Self {
        let before = present.iter().find(|condition| condition.kind == kind);
        let before = before.map(|before| (&*before.status, &*before.last_transition_time));
        Self {
            kind: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.chars().take(MAX_MESSAGE_CHARS).collect(),
            observed_generation: generation,
            last_transition_time: since(before, status, now).to_owned(),
        }
    }
}

/// Since when a condition has this status: since when `before` (its status and time, if it was there) said, as long as
/// that is the same; else since `now`.
pub(crate) fn since<'a>(before: Option<(&str, &'a str)>, status: &str, now: &'a str) -> &'a str {
    match before {
        Some((known, since)) if known == status && !since.is_empty() => since,
        _ => now,
    }
}

/// The conditions of a placement.
fn placed(placement: &Placement) -> [(&'static str, &'static str, &'static str, String); 3] {
    let (status, reason, text) = match placement.division {
        Division::Sharded => ("True", "Sharded", "the parents are divided among all members by shards"),
        Division::Whole => ("False", "Whole", "one member has all parents"),
        Division::Turning => ("Unknown", "Turning", "the members are changing how the parents are divided"),
        Division::NoTable => (
            "False",
            "NoTable",
            "one member has all parents: install the CRD shardtables.ringmaster.dev (ringmaster crds)",
        ),
    };
    let told = |kind, reason, text: &Option<String>, otherwise: (&'static str, &str)| match text {
        Some(text) => (kind, "True", reason, text.clone()),
        None => (kind, "False", otherwise.0, otherwise.1.to_owned()),
    };
    [
        ("Sharded", status, reason, text.to_owned()),
        told("Rebalancing", "Moving", &placement.moving, ("Steady", "nothing has been changing hands for long")),
        told("Unassigned", "NoMember", &placement.unassigned, ("Assigned", "everything has a member")),
    ]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn summary(health: &Health) -> Vec<(String, String)> {
        conditions(health, 3, &[], "now").into_iter().map(|c| (c.status, c.reason)).collect()
    }

    fn expect(health: &Health, wanted: [(&str, &str); 3]) {
        assert_eq!(summary(health), wanted.map(|(status, reason)| (status.to_owned(), reason.to_owned())));
    }

    #[test]
    fn say_what_is_wrong_first() {
        let fine = Health {
            rejected: None,
            blocked: None,
            hook: HookHealth::Reachable,
            failing: Failing::default(),
            endpoints: None,
            placement: None,
        };
        expect(&fine, [("True", "Valid"), ("True", "Answered"), ("True", "Running")]);
        let down = Health { hook: HookHealth::Failing("ConnectionRefused".into(), "x".into()), ..fine.clone() };
        expect(&down, [("True", "Valid"), ("False", "ConnectionRefused"), ("False", "HookFailing")]);
        let ending = Health { hook: HookHealth::FinalizeFailing("BadCode".into(), "x".into()), ..fine.clone() };
        expect(&ending, [("True", "Valid"), ("False", "BadCode"), ("True", "Running")]);
        let failing = |count| Health {
            failing: Failing { count, parents: 2, longest: "n/b since t".into(), last: "n/a: x".into() },
            ..fine.clone()
        };
        expect(&failing(2), [("True", "Valid"), ("True", "Answered"), ("False", "SyncsFailing")]);
        expect(&failing(1), [("True", "Valid"), ("True", "Answered"), ("True", "Running")]);
        assert!(
            conditions(&failing(1), 1, &[], "now")[2].message.contains("1 of 2 parents failed, of n/b since t; n/a: x")
        );
        let blocked = Health { blocked: Some(("ParentKindNotServed".into(), "x".into())), ..fine.clone() };
        expect(&blocked, [("True", "Valid"), ("True", "Answered"), ("False", "ParentKindNotServed")]);
        let rejected = Health { rejected: Some("spec.x: y".into()), ..fine };
        expect(&rejected, [("False", "Invalid"), ("True", "Answered"), ("False", "Invalid")]);
    }

    #[test]
    fn placement_is_three_conditions_more() {
        let placement =
            |division, moving: Option<&str>| Placement { division, moving: moving.map(Into::into), unassigned: None };
        let told = |placement| {
            let health = Health {
                rejected: None,
                blocked: None,
                hook: HookHealth::Reachable,
                failing: Failing::default(),
                endpoints: None,
                placement: Some(placement),
            };
            let told = conditions(&health, 1, &[], "now").split_off(3);
            told.into_iter().map(|c| format!("{} {} {}", c.kind, c.status, c.reason)).collect::<Vec<_>>()
        };
        let steady = "Rebalancing False Steady";
        let assigned = "Unassigned False Assigned";
        assert_eq!(told(placement(Division::Sharded, None)), ["Sharded True Sharded", steady, assigned]);
        assert_eq!(told(placement(Division::NoTable, None)), ["Sharded False NoTable", steady, assigned]);
        let moving = told(placement(Division::Whole, Some("3 shards")));
        assert_eq!(moving, ["Sharded False Whole", "Rebalancing True Moving", assigned]);
    }

    #[test]
    fn members_parts_add_up() {
        let own = Health {
            rejected: None,
            blocked: None,
            hook: HookHealth::Unknown,
            failing: Failing { count: 0, parents: 3, ..Failing::default() },
            endpoints: None,
            placement: None,
        };
        let part = |failing, hook, trouble: Option<(&str, &str)>| Part {
            parents: 4,
            failing,
            longest: "n/a since t".into(),
            last: "n/a: x".into(),
            hook,
            trouble: trouble.map(|(reason, text)| (reason.into(), text.into())),
            ..Part::default()
        };
        let mut all = own;
        all.add(&[("m1".into(), part(1, Some(true), None)), ("m2".into(), part(2, None, None))]);
        assert_eq!((all.failing.parents, all.failing.count, all.hook.clone()), (11, 3, HookHealth::Reachable));
        assert_eq!(all.failing.longest, "n/a since t");
        all.add(&[("m3".into(), part(0, Some(false), Some(("Timeout", "slow"))))]);
        assert_eq!(all.hook, HookHealth::Failing("Timeout".into(), "at m3: slow".into()));
        let ending = Part { finalize_only: true, ..part(0, Some(false), Some(("BadCode", "no"))) };
        all.add(&[("m7".into(), ending.clone())]);
        assert_eq!(all.hook, HookHealth::Failing("Timeout".into(), "at m3: slow".into()), "the worse");
        all.hook = HookHealth::Reachable;
        all.add(&[("m7".into(), ending)]);
        assert_eq!(all.hook, HookHealth::FinalizeFailing("BadCode".into(), "at m7: no".into()));
        assert!(Part::new(&all, 0).finalize_only);
        all.add(&[("m4".into(), part(0, None, Some(("Forbidden", "no"))))]);
        assert_eq!(all.blocked, Some(("Forbidden".into(), "at m4: no".into())));
        all.endpoints = Some(Standing { ejected: vec!["a:1".into()], ..Standing::unknown() });
        let of_one =
            Part { left_out: vec!["a:1".into(), "b:1".into()], erring: vec![("c:1".into(), 500)], ..Part::default() };
        all.add(&[("m5".into(), of_one.clone()), ("m6".into(), of_one)]);
        let endpoints = all.endpoints.as_ref().unwrap();
        assert_eq!(endpoints.elsewhere, BTreeMap::from([("b:1".into(), vec!["m5".into(), "m6".into()])]));
        assert_eq!((&endpoints.ejected, &endpoints.erring), (&vec!["a:1".into()], &vec![("c:1".into(), 500)]));
        let text = serde_json::to_string(&Part::new(&all, 2)).unwrap();
        assert_eq!(serde_json::from_str::<Part>(&text).unwrap(), Part::new(&all, 2));
        assert_eq!(serde_json::to_string(&Part::default()).unwrap(), r#"{"parents":0}"#);
    }

    #[test]
    fn transition_times_move_with_status_only() {
        let mut health = Health {
            rejected: None,
            blocked: None,
            hook: HookHealth::Failing("Timeout".into(), "a".into()),
            failing: Failing::default(),
            endpoints: None,
            placement: None,
        };
        let first = conditions(&health, 1, &[], "t1");
        health.hook = HookHealth::Failing("ConnectionRefused".into(), "b".into());
        let second = conditions(&health, 2, &first, "t2");
        assert_eq!((second[1].last_transition_time.as_str(), second[1].reason.as_str()), ("t1", "ConnectionRefused"));
        assert_eq!(second[1].observed_generation, 2);
        health.hook = HookHealth::Reachable;
        let third = conditions(&health, 2, &second, "t3");
        assert_eq!(third[1].last_transition_time, "t3");
        assert_eq!(third[0].last_transition_time, "t1");
    }
}
