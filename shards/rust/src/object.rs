//! What to do with an object that the cache shows: nothing, let it go, or work on it.
//!
//! Never reads or writes one: it only decides, and says what the acknowledgement is.

use std::collections::BTreeMap;

use ringmaster_core::dialect::RingDialect;
use ringmaster_core::ring::plan;
use serde_json::{Map, Value, json};

/// The two labels of a ring's objects.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Keys {
    /// The key of the one that names an object's shard.
    pub(crate) shard: String,
    /// The key of the one that asks the shard to let it go.
    pub(crate) drain: String,
}

impl Keys {
    pub(crate) fn of(dialect: &RingDialect, ring: &str) -> Self {
        Self { shard: plan::shard_label(dialect, ring), drain: plan::drain_label(dialect, ring) }
    }
}

/// What is to be done with an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing: it is another shard's, or nobody's. A retry that was due later than the object was moved ends here.
    Ignore,
    /// It is to be let go.
    Acknowledge,
    /// It is this shard's.
    Reconcile,
}

/// What the shard `name` does with an object of these labels.
pub(crate) fn verdict(labels: Option<&BTreeMap<String, String>>, keys: &Keys, name: &str) -> Verdict {
    let Some(labels) = labels else { return Verdict::Ignore };
    if labels.get(&keys.shard).is_none_or(|shard| shard != name) {
        return Verdict::Ignore;
    }
    // Whatever its value is.
    if labels.contains_key(&keys.drain) { Verdict::Acknowledge } else { Verdict::Reconcile }
}

/// The merge patch that lets an object of this version go.
pub(crate) fn acknowledgement(version: &str, keys: &Keys) -> Value {
    let labels: Map<String, Value> =
        [&keys.shard, &keys.drain].into_iter().map(|key| (key.clone(), Value::Null)).collect();
    json!({"metadata": {"resourceVersion": version, "labels": labels}})
}

#[cfg(test)]
mod tests {
    use ringmaster_core::dialect::{CONTROLLER_SHARDING_RING, RINGMASTER_RING};

    use super::*;

    fn verdict_of(labels: &[(&str, &str)]) -> Verdict {
        let labels = labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        verdict(Some(&labels), &Keys::of(&RINGMASTER_RING, "r"), "a")
    }

    #[test]
    fn labels_are_those_of_the_dialect() {
        let keys = |dialect| {
            let keys = Keys::of(dialect, "r");
            (keys.shard, keys.drain)
        };
        let own = |text: &str| text.to_owned();
        assert_eq!(keys(&RINGMASTER_RING), (own("ring.ringmaster.dev/r"), own("drain.ring.ringmaster.dev/r")));
        assert_eq!(
            keys(&CONTROLLER_SHARDING_RING),
            (own("shard.alpha.sharding.timebertt.dev/r"), own("drain.alpha.sharding.timebertt.dev/r"))
        );
    }

    #[test]
    fn what_is_not_ours_is_left_alone_even_if_it_is_drained() {
        assert_eq!(verdict(None, &Keys::of(&RINGMASTER_RING, "r"), "a"), Verdict::Ignore);
        assert_eq!(verdict_of(&[]), Verdict::Ignore);
        assert_eq!(verdict_of(&[("ring.ringmaster.dev/r", "b")]), Verdict::Ignore);
        assert_eq!(verdict_of(&[("ring.ringmaster.dev/other", "a")]), Verdict::Ignore);
        let drained = [("ring.ringmaster.dev/r", "b"), ("drain.ring.ringmaster.dev/r", "true")];
        assert_eq!(verdict_of(&drained), Verdict::Ignore);
    }

    #[test]
    fn what_is_ours_is_worked_on_until_it_is_drained() {
        let ours = ("ring.ringmaster.dev/r", "a");
        assert_eq!(verdict_of(&[ours]), Verdict::Reconcile);
        assert_eq!(verdict_of(&[ours, ("drain.ring.ringmaster.dev/other", "true")]), Verdict::Reconcile);
        for value in ["true", "false", ""] {
            assert_eq!(verdict_of(&[ours, ("drain.ring.ringmaster.dev/r", value)]), Verdict::Acknowledge, "{value}");
        }
    }

    #[test]
    fn an_acknowledgement_takes_both_labels_off_this_version() {
        let patch = acknowledgement("12", &Keys::of(&RINGMASTER_RING, "r"));
        let labels = json!({"ring.ringmaster.dev/r": null, "drain.ring.ringmaster.dev/r": null});
        assert_eq!(patch, json!({"metadata": {"resourceVersion": "12", "labels": labels}}));
    }
}
