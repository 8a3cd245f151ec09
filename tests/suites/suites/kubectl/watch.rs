//! `get -w`: started, changed from another process, and stopped.

use super::step::{Step, fails, ok, shows, start, stop};

pub(super) fn steps() -> Vec<Step> {
    vec![
        ok("create configmap a --from-literal=x=1"),
        start("get configmap -w"),
        shows("a "),
        ok("create configmap b"),
        shows("b "),
        ok("patch configmap a --type=merge -p '{\"data\":{\"y\":\"2\"}}'"),
        shows("a      2"),
        stop(),
        start("get configmap a -w --output-watch-events"),
        shows("ADDED"),
        ok("label configmap a l=1"),
        shows("MODIFIED"),
        ok("delete configmap a"),
        shows("DELETED"),
        stop(),
        start("get configmap -w -l watched=yes -o custom-columns=N:.metadata.name,L:.metadata.labels.watched"),
        ok("label configmap b watched=yes"),
        shows("b "),
        ok("label configmap b watched-"),
        ok("create configmap c"),
        ok("label configmap c watched=yes"),
        shows("c "),
        stop(),
        ok("create deployment web --image=i"),
        start("get deployment web -w"),
        shows("web "),
        ok("scale deployment web --replicas=2"),
        shows("0/2"),
        ok(
            "patch deployment web --subresource=status --type=merge -p '{\"status\":{\"replicas\":2,\"readyReplicas\":2,\"availableReplicas\":2}}'",
        ),
        shows("2/2"),
        ok("delete deployment web"),
        stop(),
        start("wait --for=jsonpath={.data.done}=yes configmap/c --timeout=30s"),
        ok("patch configmap c --type=merge -p '{\"data\":{\"done\":\"yes\"}}'"),
        shows("condition met"),
        stop(),
        start("events -w"),
        ok("create -f -").input(EVENT),
        shows("happened"),
        stop(),
        start("get namespace {ns} -w -o name"),
        shows("namespace/"),
        ok("label namespace {ns} seen=yes"),
        shows("namespace/{ns}\nnamespace/{ns}"),
        stop(),
        start("get configmap b -w -o jsonpath={.data.n}/"),
        shows("/"),
        ok("patch configmap b --type=merge -p '{\"data\":{\"n\":\"1\"}}'"),
        shows("1/"),
        ok("delete configmap b"),
        shows("1/1/"),
        stop(),
        fails("get configmap none -w"),
    ]
}

const EVENT: &str = "
apiVersion: v1
kind: Event
metadata: {name: e}
involvedObject: {apiVersion: v1, kind: ConfigMap, name: b, namespace: '{ns}'}
reason: Happened
message: it happened
type: Normal
lastTimestamp: '2026-01-02T03:04:06Z'
";
