//! The conditions that a hook names, on their way into its parent's status.
//!
//! Never keeps a condition that the status doesn't have: who writes the status replaces it whole.

use serde_json::{Value, json};

use crate::condition::since;
use crate::hook::HookCondition;

/// Puts conditions into a status: each in the place of one of its type, or else behind the others. `present` is the status
/// of the parent, whose `generation` this is: a condition whose status is the same has it for as long as before, another
/// one since `now` (RFC 3339). A status whose `conditions` is no list is left as it is.
pub(super) fn put(status: &mut Value, conditions: &[HookCondition], present: &Value, generation: i64, now: &str) {
    let Some(status) = status.as_object_mut().filter(|_| !conditions.is_empty()) else { return };
    let list = status.entry("conditions").or_insert_with(|| json!([]));
    if list.is_null() {
        *list = json!([]);
    }
    let Some(list) = list.as_array_mut() else { return };
    for condition in conditions {
        let is_it = |other: &&Value| other["type"] == *condition.kind;
        let known = present["conditions"].as_array().and_then(|known| known.iter().find(is_it));
        let made = complete(condition, known, generation, now);
        match list.iter().position(|other| is_it(&other)) {
            Some(at) => {
                // What else is of its type is as much in its place.
                let mut at_first = true;
                list.retain(|other| !is_it(&other) || std::mem::take(&mut at_first));
                if let Some(place) = list.get_mut(at) {
                    *place = made;
                }
            }
            None => list.push(made),
        }
    }
}

/// A condition as it shall stand in the status, where `known` is the present one of its type.
fn complete(condition: &HookCondition, known: Option<&Value>, generation: i64, now: &str) -> Value {
    let HookCondition { kind, status, reason, message } = condition;
    let text = |field: &str| known.and_then(|known| known[field].as_str());
    // Kinds whose fields are omitted when they are empty show no text where one of no length was written.
    let says = |field: &str, wanted: &str| text(field).unwrap_or_default() == wanted;
    let says_the_same = text("status") == Some(*status) && says("reason", reason) && says("message", message);
    // A kind whose schema doesn't have a field drops it: what the present one lacks is nothing that would have to be
    // written anew at every sync.
    let has = |field: &str| !says_the_same || known.is_some_and(|known| known.get(field).is_some());
    let mut made = json!({"type": kind, "status": status});
    for (field, wanted) in [("reason", reason), ("message", message)] {
        if has(field) {
            made[field] = wanted.as_str().into();
        }
    }
    if has("lastTransitionTime") {
        let before = text("status").zip(text("lastTransitionTime"));
        made["lastTransitionTime"] = since(before, status, now).into();
    }
    if has("observedGeneration") {
        made["observedGeneration"] = generation.into();
    }
    made
}

#[cfg(test)]
mod tests {
    use super::*;

    fn condition(kind: &str, status: &'static str, message: &str) -> HookCondition {
        HookCondition { kind: kind.to_owned(), status, reason: "Because".to_owned(), message: message.to_owned() }
    }

    fn stands(kind: &str, status: &str, message: &str, time: &str, generation: i64) -> Value {
        json!({"type": kind, "status": status, "reason": "Because", "message": message,
            "lastTransitionTime": time, "observedGeneration": generation})
    }

    fn of(mut status: Value, conditions: &[HookCondition], present: &Value) -> Value {
        put(&mut status, conditions, present, 3, "t2");
        status
    }

    #[test]
    fn a_time_stays_as_long_as_the_status_does() {
        let present = json!({"conditions": [stands("Ready", "True", "old", "t1", 2)]});
        let same = of(json!({}), &[condition("Ready", "True", "old")], &present);
        assert_eq!(same, json!({"conditions": [stands("Ready", "True", "old", "t1", 3)]}));
        let other_text = of(json!({}), &[condition("Ready", "True", "new")], &present);
        assert_eq!(other_text, json!({"conditions": [stands("Ready", "True", "new", "t1", 3)]}));
        let turned = of(json!({"conditions": null}), &[condition("Ready", "False", "old")], &present);
        assert_eq!(turned, json!({"conditions": [stands("Ready", "False", "old", "t2", 3)]}));
        let new = of(json!({}), &[condition("Other", "True", "old")], &present);
        assert_eq!(new, json!({"conditions": [stands("Other", "True", "old", "t2", 3)]}), "what isn't named goes");
        // Again with what was written: nothing changes.
        assert_eq!(of(json!({}), &[condition("Other", "True", "old")], &new), new);
    }

    #[test]
    fn an_entry_wins_over_the_status_and_leaves_others_alone() {
        let mine = json!({"type": "Mine", "x": 1});
        let status = json!({"a": 1, "conditions": [{"type": "Ready", "status": "False"}, mine, {"type": "Ready"}]});
        let made = of(status, &[condition("Ready", "True", ""), condition("New", "True", "")], &json!({}));
        let ready = stands("Ready", "True", "", "t2", 3);
        assert_eq!(made, json!({"a": 1, "conditions": [ready, mine, stands("New", "True", "", "t2", 3)]}));
        for odd in [json!({"conditions": {"a": 1}}), json!({"conditions": "x"}), json!(7)] {
            assert_eq!(of(odd.clone(), &[condition("Ready", "True", "")], &json!({})), odd);
        }
        assert_eq!(of(json!({"conditions": null}), &[], &json!({})), json!({"conditions": null}));
    }

    #[test]
    fn what_a_schema_drops_is_no_difference() {
        let pruned = json!({"type": "Ready", "status": "True", "reason": "Because", "message": "x"});
        let present = json!({"conditions": [pruned]});
        assert_eq!(of(json!({}), &[condition("Ready", "True", "x")], &present), present);
        let changed = of(json!({}), &[condition("Ready", "True", "y")], &present);
        assert_eq!(changed, json!({"conditions": [stands("Ready", "True", "y", "t2", 3)]}));
    }

    #[test]
    fn an_empty_text_and_none_are_the_same() {
        let bare = json!({"type": "Ready", "status": "True", "lastTransitionTime": "t1", "observedGeneration": 3});
        let with = |field: &str, text: Value| {
            let mut condition = bare.clone();
            condition[field] = text;
            json!({"conditions": [condition]})
        };
        let silent = HookCondition { message: String::new(), ..condition("Ready", "True", "") };
        let speechless = HookCondition { reason: String::new(), ..silent.clone() };
        let omitted = with("reason", "Because".into());
        let none = json!({"conditions": [bare]});
        let empty = with("message", "".into());
        assert_eq!(of(json!({}), std::slice::from_ref(&silent), &omitted), omitted, "no message");
        assert_eq!(of(json!({}), std::slice::from_ref(&speechless), &empty), empty, "no reason");
        assert_eq!(of(json!({}), std::slice::from_ref(&speechless), &none), none, "neither");
        // A text that there was goes all the same, and one that there is comes.
        let told = json!({"conditions": [stands("Ready", "True", "x", "t1", 3)]});
        let gone = of(json!({}), &[silent], &told);
        assert_eq!(gone, json!({"conditions": [stands("Ready", "True", "", "t1", 3)]}));
        assert_eq!(of(json!({}), &[condition("Ready", "True", "x")], &omitted), told);
    }
}
