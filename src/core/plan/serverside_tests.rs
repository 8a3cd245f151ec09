//! When a child is applied, and when its fields are handed over first.

use serde_json::json;

use super::*;
use crate::dialect::{CREATOR, METACONTROLLER, RINGMASTER};
use crate::object::tests::config_maps;

const APPLIED: How = How::Apply { hand_over: false };
const HANDED_OVER: How = How::Apply { hand_over: true };

fn made() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a", "labels": {"x": "y"}}, "data": {"k": "v"}})
}

/// What there is of `made` when an entry of `manager` has its fields, and `default` too.
fn child(made: &Value, manager: &str, operation: &str, annotations: &Value) -> Object {
    let mut child = made.clone();
    child["data"]["default"] = "d".into();
    child["metadata"]["uid"] = "u".into();
    child["metadata"]["resourceVersion"] = "9".into();
    child["metadata"]["annotations"] = annotations.clone();
    let mut fields = json!({
        "f:metadata": {"f:labels": {".": {}, "f:x": {}}},
        "f:data": {".": {}, "f:k": {}, "f:default": {}},
    });
    if annotations.get("ringmaster.dev/created-as").is_some() {
        fields["f:metadata"]["f:annotations"] = json!({".": {}, "f:ringmaster.dev/created-as": {}});
    }
    child["metadata"]["managedFields"] = json!([{"manager": manager, "operation": operation, "fieldsV1": fields}]);
    let managers: [std::sync::Arc<str>; 2] = ["ringmaster".into(), CREATOR.into()];
    Object::parse_keeping(&child.to_string(), &config_maps(), &managers).unwrap()
}

fn changed(child: &Object, made: &Value) -> Option<How> {
    change(&RINGMASTER, "ringmaster", child, &child.value(), made)
}

#[test]
fn what_was_applied_is_left_alone_until_something_differs() {
    let all = {
        let mut all = made();
        all["data"]["default"] = "d".into();
        all
    };
    let there = child(&made(), "ringmaster", "Apply", &json!({"theirs": "1"}));
    assert_eq!(changed(&there, &all), None);
    assert_eq!(changed(&there, &made()), Some(APPLIED), "a field was dropped");
    let mut labelled = all.clone();
    labelled["metadata"]["labels"]["x"] = "z".into();
    assert_eq!(changed(&there, &labelled), Some(APPLIED));
    let merged = child(&made(), "ringmaster", "Apply", &json!({ (RINGMASTER.last_applied): "{}" }));
    assert_eq!(changed(&merged, &all), Some(HANDED_OVER));
    let others = child(&made(), "somebody", "Apply", &json!({}));
    assert_eq!(changed(&others, &all), Some(HANDED_OVER), "nothing is known to be ours");
}

#[test]
fn what_was_created_is_left_alone_for_as_long_as_the_same_is_wanted() {
    let mark = json!({ "ringmaster.dev/created-as": created_as(&made()) });
    let there = child(&made(), CREATOR, "Update", &mark);
    assert_eq!(changed(&there, &made()), None, "the default isn't a field that was dropped");
    let mut more = made();
    more["data"]["new"] = "1".into();
    assert_eq!(changed(&there, &more), Some(HANDED_OVER));
    let drifted = child(&more, CREATOR, "Update", &mark);
    more["data"]["new"] = "2".into();
    assert_eq!(changed(&drifted, &more), Some(HANDED_OVER));
    // A webhook that answers with what it was sent: all of it is there, the mark is ours.
    let mut echo = there.value();
    let metadata = echo["metadata"].as_object_mut().unwrap();
    metadata.retain(|name, _| ["name", "labels"].contains(&name.as_str()));
    assert_eq!(changed(&there, &echo), None);
    let unmarked = child(&made(), CREATOR, "Update", &json!({}));
    assert_eq!(changed(&unmarked, &made()), Some(HANDED_OVER));
    assert_eq!(
        change(&METACONTROLLER, "ringmaster", &there, &there.value(), &made()),
        Some(HANDED_OVER),
        "the mark is another dialect's"
    );
}

#[test]
fn a_body_is_for_one_version() {
    let there = child(&made(), "ringmaster", "Apply", &json!({}));
    let sent = body(made(), &there);
    let tree = |body: &[u8]| serde_json::from_slice::<Value>(body).unwrap();
    let mut expected = made();
    expected["metadata"]["uid"] = "u".into();
    expected["metadata"]["resourceVersion"] = "9".into();
    assert_eq!(tree(&sent), expected);
    expected["metadata"]["resourceVersion"] = "10".into();
    assert_eq!(tree(&at_version(&sent, Version(10))), expected);
}

#[test]
fn a_trial_that_differs_in_its_version_only_changes_nothing() {
    let there = child(&made(), "ringmaster", "Apply", &json!({}));
    let mut answer = there.value();
    answer["metadata"]["resourceVersion"] = "11".into();
    assert!(changes_nothing(&there.value(), &answer));
    answer["metadata"]["labels"]["x"] = "z".into();
    assert!(!changes_nothing(&there.value(), &answer));
}
