//! `events`, and `get` and `describe` of them. No services here: the real server's allocators tell events of those.

use super::step::{Step, ok};

pub(super) fn steps() -> Vec<Step> {
    vec![
        ok("create configmap c1"),
        ok("create -f -").input(EVENTS),
        ok("events"),
        ok("get events"),
        ok("get events -o wide"),
        ok("get events --field-selector involvedObject.name=c1,reason=Seen -o yaml"),
        ok("events --for configmap/c1"),
        ok("events --types=Warning"),
        ok("describe event e2"),
        ok("describe configmap c1"),
    ]
}

const EVENTS: &str = "
apiVersion: v1
kind: Event
metadata: {name: e1}
involvedObject: {apiVersion: v1, kind: ConfigMap, name: c1, namespace: '{ns}'}
reason: Seen
message: it was seen
type: Normal
count: 2
firstTimestamp: '2026-01-02T03:04:05Z'
lastTimestamp: '2026-01-02T03:04:06Z'
source: {component: suites}
---
apiVersion: v1
kind: Event
metadata: {name: e2}
involvedObject: {apiVersion: v1, kind: ConfigMap, name: c2, namespace: '{ns}'}
reason: Lost
message: it was lost
type: Warning
lastTimestamp: '2026-01-02T03:04:07Z'
";
