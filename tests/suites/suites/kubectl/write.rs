//! `apply`, `replace`, `diff`, `label`, `annotate`, `set`: writing what is there already.

use super::step::{Step, fails, ok};

pub(super) fn steps() -> Vec<Step> {
    vec![
        fails("diff -f -").input(CONFIG),
        ok("apply -f -").input(CONFIG),
        ok("apply -f -").input(CONFIG),
        ok("diff -f -").input(CONFIG),
        fails("diff -f -").input(CHANGED),
        ok("apply -f - --dry-run=server").input(CHANGED),
        ok("apply -f - --dry-run=client").input(CHANGED),
        ok("apply -f - -o yaml").input(CHANGED),
        ok("apply view-last-applied configmap c"),
        ok("get configmap c -o yaml"),
        ok("apply -f -").input(WORK),
        ok("get deployment,service web -o yaml"),
        ok("apply -f -").input(WORK_CHANGED),
        ok("get deployment,service web -o yaml"),
        ok("get deployment web -o wide"),
        ok("apply -f -").input(WORK_CHANGED),
        ok("apply -f - --prune -l app=web --prune-allowlist=core/v1/Service").input(WORK_ALONE),
        ok("get service -l app=web"),
        ok("apply -f -").input(JOB),
        // Go prints its own structs in the message.
        fails("apply -f -").input(JOB_CHANGED).exit(),
        ok("create configmap plain --from-literal=a=b"),
        ok("apply -f -").input(PLAIN),
        ok("get configmap plain -o yaml"),
        ok("apply set-last-applied -f - --create-annotation").input(PLAIN),
        ok("label configmap c tier=back"),
        ok("label configmap c tier=back"),
        fails("label configmap c tier=front"),
        ok("label configmap c tier=front --overwrite"),
        ok("label configmap c tier- other-"),
        ok("label configmap c --list"),
        ok("annotate configmap c --list"),
        fails("label configmap none a=b"),
        ok("apply -f - --force").input(CHANGED),
        ok("apply -f - --overwrite=false").input(CHANGED),
        ok("apply -f - --wait").input(CHANGED),
        ok("delete -f - --ignore-not-found").input(MISSING),
        ok("label configmap --all all=yes"),
        ok("label configmap -l all=yes some=more --dry-run=server"),
        fails("label configmap c bad='not a value!'"),
        ok("annotate configmap c note='some words'"),
        fails("annotate configmap c note=else"),
        ok("annotate configmap c note=else --overwrite"),
        ok("annotate configmap c note-"),
        ok("annotate deployment web kubernetes.io/change-cause=because"),
        ok("get configmap c -o yaml"),
        ok("get configmap c -o yaml").save("old.yaml"),
        ok("label configmap c newer=yes"),
        fails("replace -f {dir}/old.yaml"),
        ok("replace -f -").input(PLAIN_REPLACED),
        ok("get configmap plain -o yaml"),
        fails("replace -f -").input(MISSING),
        ok("replace --force -f -").input(PLAIN_REPLACED),
        ok("replace -f - --dry-run=server -o yaml").input(PLAIN_REPLACED),
        ok("set image deployment/web web=registry.example/web:9"),
        ok("set image deployment/web web=registry.example/web:9"),
        ok("set env deployment/web MODE=fast -c web"),
        ok("set env deployment/web --list"),
        ok("set env deployment/web MODE-"),
        ok("set resources deployment/web --limits=cpu=200m,memory=64Mi --requests=cpu=100m"),
        ok("set serviceaccount deployment/web robot"),
        ok("set selector service/lone app=else"),
        ok("get deployment web -o yaml"),
        ok("get service lone -o yaml"),
        ok("create role r --verb=get --resource=pods"),
        ok("create rolebinding b --role=r --user=jane"),
        ok("set subject rolebinding b --user=joe --serviceaccount={ns}:robot"),
        ok("get rolebinding b -o yaml"),
        fails("set image deployment/nothing web=x"),
        fails("set image deployment/web other=x"),
        ok("auth reconcile -f -").input(ROLE),
        ok("get role reconciled -o yaml"),
        ok("auth reconcile -f -").input(ROLE_MORE),
        ok("get role reconciled -o yaml"),
        ok("get cm c -o jsonpath='{.metadata.annotations}'"),
    ]
}

const CONFIG: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: c, labels: {app: web}, annotations: {note: first}}
data: {a: one, b: two}
";

const CHANGED: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: c, labels: {app: web}}
data: {a: one, c: three}
";

const WORK: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'registry.example/web:1', ports: [{containerPort: 80}], env: [{name: A, value: a}, {name: B, value: b}]}
      - {name: side, image: 'registry.example/side:1'}
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec: {selector: {app: web}, ports: [{port: 80, name: http}, {port: 443, name: https}]}
---
apiVersion: v1
kind: Service
metadata: {name: lone}
spec: {selector: {app: web}, ports: [{port: 80}]}
";

const WORK_CHANGED: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web, extra: label}}
spec:
  selector: {matchLabels: {app: web}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: 'registry.example/web:2', ports: [{containerPort: 81}], env: [{name: B, value: c}]}
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec: {selector: {app: web}, ports: [{port: 443, name: https}, {port: 8080, name: more}]}
";

const WORK_ALONE: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web, extra: label}}
spec:
  selector: {matchLabels: {app: web}}
  strategy: {type: Recreate}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: 'registry.example/web:2'}]}
";

const JOB: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: j}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: j, image: i}]}}}
";

const JOB_CHANGED: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: j}
spec: {template: {spec: {restartPolicy: Never, containers: [{name: j, image: other}]}}}
";

const PLAIN: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: plain}, data: {a: c}}";

const PLAIN_REPLACED: &str =
    "{apiVersion: v1, kind: ConfigMap, metadata: {name: plain, labels: {re: placed}}, data: {z: z}}";

const MISSING: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: missing}}";

const ROLE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reconciled, namespace: '{ns}'}
rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]
";

const ROLE_MORE: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: reconciled, namespace: '{ns}'}
rules: [{apiGroups: [''], resources: [pods], verbs: [list]}]
";
