//! The grace of pods: a node's pod is marked at first, and goes when its node says so or nothing is left to wait for.
//!
//! The rules are those of rest.BeforeDelete and of the strategy of pods, v1.36. Never stores; `gc` does.

use serde_json::Value;

/// What a DELETE means for a pod.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Grace {
    /// The pod ends already, and not sooner by this: nothing changes.
    Pending,
    /// The pod has no grace: deletion as of any object.
    None,
    /// The pod gets these metadata; with a period of 0 it is removed, unless finalizers hold it.
    Marked {
        /// The pod with its new metadata.
        pod: Value,
        /// Seconds that it still has.
        period: i64,
    },
}

/// Decides on a pod that is stored; `asked` is `gracePeriodSeconds`, `now` RFC 3339 to the second.
pub(crate) fn decide(mut pod: Value, asked: Option<i64>, now: &str) -> Grace {
    // Below zero is as soon as may be.
    let asked = asked.map(|seconds| if seconds < 0 { 1 } else { seconds });
    let current = pod["metadata"]["deletionGracePeriodSeconds"].as_i64();
    let (from, period) = match pod["metadata"]["deletionTimestamp"].as_str() {
        Some(end) => {
            let Some(current) = current else { return Grace::None };
            match asked {
                Some(period) if period < current => (moved(end, -current), period),
                _ => return Grace::Pending,
            }
        }
        None => {
            let own = pod["spec"]["terminationGracePeriodSeconds"].as_i64().unwrap_or(0);
            let on_a_node = pod["spec"]["nodeName"].as_str().is_some_and(|name| !name.is_empty());
            let over = matches!(pod["status"]["phase"].as_str(), Some("Failed" | "Succeeded"));
            let period = asked.unwrap_or(own);
            let period = if !on_a_node || over { 0 } else { period };
            if let Some(generation) = pod["metadata"]["generation"].as_i64().filter(|generation| *generation > 0) {
                pod["metadata"]["generation"] = (generation + 1).into();
            }
            (now.to_owned(), if period < 0 { 1 } else { period })
        }
    };
    pod["metadata"]["deletionTimestamp"] = moved(&from, period).into();
    pod["metadata"]["deletionGracePeriodSeconds"] = period.into();
    Grace::Marked { pod, period }
}

/// A time so many seconds later; one that can't be read or reached stays.
fn moved(time: &str, seconds: i64) -> String {
    let later = time.parse::<jiff::Timestamp>().ok().and_then(|time| {
        let seconds = time.as_second().checked_add(seconds)?;
        jiff::Timestamp::from_second(seconds).ok()
    });
    later.map_or_else(|| time.to_owned(), |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: &str = "2026-01-01T00:00:00Z";

    fn marked(pod: &Value, asked: Option<i64>) -> (Value, i64) {
        match decide(pod.clone(), asked, NOW) {
            Grace::Marked { pod, period } => (pod, period),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_pod_on_a_node_waits() {
        let pod = json!({ "metadata": { "generation": 1 },
            "spec": { "nodeName": "a", "terminationGracePeriodSeconds": 60 } });
        let (once, period) = marked(&pod, None);
        assert_eq!((period, &once["metadata"]["deletionTimestamp"]), (60, &json!("2026-01-01T00:01:00Z")));
        assert_eq!(once["metadata"]["generation"], 2);
        assert_eq!(decide(once.clone(), Some(90), NOW), Grace::Pending);
        let (sooner, period) = marked(&once, Some(5));
        assert_eq!((period, &sooner["metadata"]["deletionTimestamp"]), (5, &json!("2026-01-01T00:00:05Z")));
        assert_eq!(marked(&sooner, Some(-3)).1, 1);
    }

    #[test]
    fn others_end_at_once() {
        assert_eq!(marked(&json!({ "spec": { "terminationGracePeriodSeconds": 60 } }), Some(9)).1, 0);
        let over = json!({ "spec": { "nodeName": "a", "terminationGracePeriodSeconds": 60 }, "status": { "phase": "Failed" } });
        assert_eq!(marked(&over, None).1, 0);
        let held = json!({ "metadata": { "deletionTimestamp": NOW } });
        assert_eq!(decide(held, None, NOW), Grace::None);
    }
}
