//! `delete` with each cascade, and `wait` for what follows.

use super::step::{Step, fails, ok};

pub(super) fn steps() -> Vec<Step> {
    let mut steps = vec![
        ok("create configmap a"),
        ok("delete configmap a"),
        fails("delete configmap a"),
        ok("delete configmap a --ignore-not-found"),
        ok("create configmap a"),
        ok("create configmap b"),
        ok("delete configmap a b --wait=false -o name"),
        ok("create configmap a"),
        ok("delete cm/a --now"),
        ok("create configmap a"),
        ok("delete configmap a --dry-run=server"),
        ok("delete configmap a --dry-run=client"),
        ok("get configmap a -o name"),
        ok("label configmap a drop=yes"),
        ok("delete configmap -l drop=yes"),
        ok("delete configmap -l drop=yes"),
        ok("create secret generic s1"),
        ok("create secret generic s2"),
        ok("delete secret --all"),
        ok("get secret"),
        ok("delete secret --all"),
    ];
    steps.extend(owned());
    steps.extend([
        ok("delete deployment own"),
        ok("wait --for=delete replicaset/own-1 --timeout=30s").exit(),
        fails("get replicaset own-1"),
    ]);
    steps.extend(owned());
    steps.extend([
        ok("delete deployment own --cascade=background"),
        ok("wait --for=delete replicaset/own-1 --timeout=30s").exit(),
        fails("get replicaset own-1"),
    ]);
    steps.extend(owned());
    steps.extend([ok("delete deployment own --cascade=foreground"), fails("get replicaset own-1")]);
    steps.extend(owned());
    steps.extend([
        ok("delete deployment own --cascade=orphan"),
        ok("wait --for=delete deployment/own --timeout=30s").exit(),
        ok("get replicaset own-1 -o yaml"),
        ok("delete replicaset own-1 --cascade=orphan --wait=false"),
        ok("wait --for=delete replicaset/own-1 --timeout=30s").exit(),
        ok("create -f -").input(HELD),
        ok("delete configmap held --wait=false"),
        ok("get configmap held -o yaml"),
        fails("wait --for=delete configmap/held --timeout=1s"),
        fails("delete configmap held --timeout=1s"),
        ok("patch configmap held --type=json -p '[{\"op\":\"remove\",\"path\":\"/metadata/finalizers\"}]'"),
        fails("get configmap held"),
        ok("run short --image=i --restart=Never"),
        ok("delete pod short --grace-period=0 --force"),
        ok("run short --image=i --restart=Never"),
        ok("delete pod short --now"),
        ok("create -f -").input(WAITED),
        ok("wait --for=jsonpath='{.data.phase}'=ready configmap/waited --timeout=5s"),
        ok("wait --for=jsonpath='{.data.phase}' configmap/waited --timeout=5s"),
        fails("wait --for=jsonpath='{.data.phase}'=never configmap/waited --timeout=1s"),
        fails("wait --for=condition=Available deployment/waits --timeout=1s"),
        ok("patch deployment waits --subresource=status --type=merge -p '{\"status\":{\"conditions\":[{\"type\":\"Available\",\"status\":\"True\"}]}}'"),
        ok("wait --for=condition=Available deployment/waits --timeout=5s"),
        ok("wait --for=condition=Available=True deployment --all --timeout=5s"),
        fails("wait --for=condition=Available=False deployment/waits --timeout=1s"),
        ok("wait --for=create configmap/waited --timeout=5s"),
        fails("wait --for=condition=Ready pod/none --timeout=1s"),
        fails("wait --for=condition=Ready pod --all --timeout=1s"),
        ok("create namespace {ns}-gone"),
        ok("create configmap inside -n {ns}-gone"),
        ok("delete namespace {ns}-gone"),
        fails("get configmap inside -n {ns}-gone"),
        fails("get namespace {ns}-gone"),
        fails("delete nonsense x"),
        fails("delete deployment waits --cascade=nonsense"),
        ok("delete -f - ").input(WAITED),
        fails("delete -f -").input(WAITED),
        ok("delete all --all"),
        ok("get all"),
    ]);
    steps
}

/// A deployment, and a replica set that it owns.
fn owned() -> [Step; 3] {
    [
        ok("create -f -").input(OWNER),
        ok("get deployment own -o jsonpath={.metadata.uid}").save("owner"),
        ok("create -f -").input(OWNED),
    ]
}

const OWNER: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: own}
spec:
  selector: {matchLabels: {app: own}}
  template: {metadata: {labels: {app: own}}, spec: {containers: [{name: c, image: i}]}}
";

const OWNED: &str = "
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: own-1
  ownerReferences:
  - {apiVersion: apps/v1, kind: Deployment, name: own, uid: '{file:owner}', controller: true, blockOwnerDeletion: true}
spec:
  selector: {matchLabels: {app: own}}
  template: {metadata: {labels: {app: own}}, spec: {containers: [{name: c, image: i}]}}
";

const HELD: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: held, finalizers: [example.com/hold]}
";

const WAITED: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: waited}
data: {phase: ready}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: waits}
spec:
  selector: {matchLabels: {app: waits}}
  template: {metadata: {labels: {app: waits}}, spec: {containers: [{name: c, image: i}]}}
";
