//! Whether a child has come to rest after an update, so that the next one may be updated.
//!
//! Never knows a kind: what counts is that the child is there, that its controller has seen it, and its conditions.

use serde_json::Value;

use crate::controller::{StatusCheck, UpdateStrategy};
use crate::object::Object;

/// What a child misses, after its name in a sentence; `None` if it is ready.
pub(super) fn unready(child: Option<&Object>, strategy: UpdateStrategy, checks: &[StatusCheck]) -> Option<String> {
    let Some(child) = child else { return Some("isn't there".to_owned()) };
    if child.is_deleting() {
        return Some("is being deleted".to_owned());
    }
    let status: Value = child.section("status").unwrap_or_default();
    if strategy == UpdateStrategy::RollingInPlace
        && status["observedGeneration"].as_i64().is_some_and(|observed| observed < child.generation())
    {
        return Some(format!("has no status of its generation {} yet", child.generation()));
    }
    checks.iter().find_map(|check| failed(&status, check))
}

fn failed(status: &Value, check: &StatusCheck) -> Option<String> {
    let conditions = status["conditions"].as_array();
    let found = conditions.into_iter().flatten().find(|condition| condition["type"] == *check.kind);
    let Some(found) = found else { return Some(format!("has no condition {}", check.kind)) };
    for (field, wanted) in [("status", &check.status), ("reason", &check.reason)] {
        let Some(wanted) = wanted else { continue };
        if found[field] != **wanted {
            return Some(format!("has a condition {} whose {field} isn't {wanted}", check.kind));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::object::tests::config_maps;

    fn child(generation: i64, status: &Value) -> Object {
        let object = json!({"metadata": {"name": "a", "generation": generation}, "status": status});
        Object::of(&object, &config_maps()).unwrap()
    }

    fn check(status: Option<&str>, reason: Option<&str>) -> StatusCheck {
        StatusCheck { kind: "Ready".into(), status: status.map(Into::into), reason: reason.map(Into::into) }
    }

    #[test]
    fn conditions_must_be_there_and_as_asked_for() {
        let ready = json!({"conditions": [{"type": "Other"}, {"type": "Ready", "status": "True", "reason": "Fine"}]});
        let odd = json!({"conditions": {"type": "Ready"}});
        let of = |status: &Value, check: StatusCheck| {
            unready(Some(&child(1, status)), UpdateStrategy::RollingRecreate, &[check])
        };
        assert_eq!(of(&ready, check(None, None)), None);
        assert_eq!(of(&ready, check(Some("True"), Some("Fine"))), None);
        assert!(of(&ready, check(Some("False"), None)).unwrap().contains("status isn't False"));
        assert!(of(&ready, check(Some("True"), Some("Bad"))).unwrap().contains("reason isn't Bad"));
        for none in [json!({}), json!({"conditions": []}), odd, json!(7)] {
            assert_eq!(of(&none, check(None, None)).unwrap(), "has no condition Ready");
        }
    }

    #[test]
    fn its_controller_must_have_seen_an_update_in_place() {
        let old = child(2, &json!({"observedGeneration": 1}));
        assert!(unready(Some(&old), UpdateStrategy::RollingInPlace, &[]).unwrap().contains("generation 2"));
        assert_eq!(unready(Some(&old), UpdateStrategy::RollingRecreate, &[]), None);
        for seen in [json!({"observedGeneration": 2}), json!({"observedGeneration": 3}), json!({}), json!(null)] {
            assert_eq!(unready(Some(&child(2, &seen)), UpdateStrategy::RollingInPlace, &[]), None, "{seen}");
        }
        assert_eq!(unready(None, UpdateStrategy::RollingInPlace, &[]).unwrap(), "isn't there");
    }
}
