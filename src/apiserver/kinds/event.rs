//! Events have two kinds, `v1` and `events.k8s.io/v1`, for the same objects: one becomes the other here.
//!
//! The names that differ are those of pkg/apis/events/v1/conversion.go.

use serde_json::{Map, Value};

use super::shape;

/// Field names of `v1` and of `events.k8s.io/v1`.
const NAMES: [(&str, &str); 7] = [
    ("involvedObject", "regarding"),
    ("message", "note"),
    ("source", "deprecatedSource"),
    ("firstTimestamp", "deprecatedFirstTimestamp"),
    ("lastTimestamp", "deprecatedLastTimestamp"),
    ("count", "deprecatedCount"),
    ("reportingComponent", "reportingController"),
];

/// An event as one of `v1`, from either kind.
#[must_use]
pub fn as_core(event: &Value) -> Value {
    let name_of = |name: &str| NAMES.iter().find(|(_, new)| *new == name).map(|(core, _)| *core);
    renamed(event, "v1", "k8s.io/api/core/v1.Event", name_of)
}

/// An event as one of `events.k8s.io/v1`, from either kind.
#[must_use]
pub fn as_events(event: &Value) -> Value {
    let name_of = |name: &str| NAMES.iter().find(|(core, _)| *core == name).map(|(_, new)| *new);
    renamed(event, "events.k8s.io/v1", "k8s.io/api/events/v1.Event", name_of)
}

fn renamed(event: &Value, api_version: &str, go_type: &str, name_of: impl Fn(&str) -> Option<&'static str>) -> Value {
    let members = event.as_object().into_iter().flatten();
    let mut event: Map<String, Value> =
        members.map(|(name, value)| (name_of(name).unwrap_or(name).to_owned(), value.clone())).collect();
    event.insert("apiVersion".to_owned(), api_version.into());
    // Which empty fields are written is the type's to say. What was decoded once is decodable.
    shape::decode(go_type, event.clone()).map_or(Value::Object(event), |(event, _)| event)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn one_kind_becomes_the_other() {
        let core = json!({
            "apiVersion": "v1", "kind": "Event", "metadata": { "name": "e" }, "involvedObject": { "kind": "Pod" },
            "message": "m", "source": {}, "firstTimestamp": null, "lastTimestamp": null, "eventTime": null,
            "count": 2, "reportingComponent": "", "reportingInstance": "",
        });
        let events = json!({
            "apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": { "name": "e" }, "regarding": { "kind": "Pod" },
            "note": "m", "deprecatedSource": {}, "deprecatedFirstTimestamp": null, "deprecatedLastTimestamp": null,
            "eventTime": null, "deprecatedCount": 2,
        });
        assert_eq!((as_events(&core), as_core(&events)), (events.clone(), core.clone()));
        assert_eq!((as_events(&events), as_core(&core)), (events, core));
    }
}
