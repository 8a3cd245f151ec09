//! `scale` and `rollout`, where no deployment controller runs.

use super::step::{Step, fails, ok};

pub(super) fn steps() -> Vec<Step> {
    vec![
        ok("create deployment web --image=i:1"),
        ok("apply -f -").input(SETS),
        ok("scale deployment web --replicas=3"),
        ok("scale deployment/web statefulset/sts replicaset/rs --replicas=2"),
        ok("scale deployment web --current-replicas=2 --replicas=4"),
        ok("scale deployment web --replicas=4"),
        ok("get deployment web -o jsonpath='{.spec.replicas} {.metadata.generation}'"),
        ok("scale --replicas=1 -f -").input("{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: sts}}"),
        ok("scale deployment web --replicas=5 --dry-run=server"),
        ok("scale deployment web --replicas=5 --dry-run=client"),
        ok("scale deployment --all --replicas=1 -o name"),
        ok("get deployment,statefulset,replicaset"),
        ok("get statefulset sts --subresource=scale -o yaml"),
        ok("get replicaset rs --subresource=scale -o json"),
        fails("get daemonset ds --subresource=scale"),
        ok("get --raw /apis/apps/v1/namespaces/{ns}/deployments/web/scale").save("scale.json"),
        ok("replace --raw /apis/apps/v1/namespaces/{ns}/deployments/web/scale -f {dir}/scale.json"),
        ok("patch deployment web --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":2}}'"),
        fails("replace --raw /apis/apps/v1/namespaces/{ns}/deployments/web/scale -f {dir}/scale.json"),
        fails("replace --raw /apis/apps/v1/namespaces/{ns}/deployments/web/scale -f -").input(NAMELESS),
        fails("replace --raw /apis/apps/v1/namespaces/{ns}/deployments/web/scale -f -").input(STRANGE),
        fails("create --raw /apis/apps/v1/namespaces/{ns}/deployments/web/scale -f -").input(NAMELESS),
        fails("delete --raw /apis/apps/v1/namespaces/{ns}/deployments/web/scale"),
        fails("delete --raw /apis/apps/v1/namespaces/{ns}/deployments/web/status"),
        ok("rollout history deployment web"),
        ok("rollout history deployment web --revision=2"),
        fails("rollout status deployment web --timeout=1s"),
        ok("rollout status deployment web --watch=false"),
        fails("rollout undo deployment web"),
        ok("rollout pause deployment web"),
        fails("rollout pause deployment web"),
        fails("rollout undo deployment web"),
        fails("rollout restart deployment web"),
        ok("rollout resume deployment web"),
        fails("rollout resume deployment web"),
        ok("rollout restart statefulset sts"),
        ok("get statefulset sts -o jsonpath='{.metadata.generation}'"),
        ok("rollout status statefulset sts --watch=false"),
        ok("rollout history statefulset sts"),
        ok("rollout history daemonset ds"),
        fails("rollout undo daemonset ds"),
        fails("rollout status configmap none"),
        ok("get deployment web -o jsonpath={.metadata.uid}").save("web"),
        ok("create -f -").input(REVISIONS),
        ok("rollout history deployment web"),
        ok("rollout history deployment web --revision=1"),
        ok("rollout undo deployment web --to-revision=1"),
        ok("get deployment web -o yaml"),
        ok("rollout status deployment web --watch=false"),
        ok(
            "patch deployment web --subresource=status --type=merge -p '{\"status\":{\"observedGeneration\":99,\"replicas\":2,\"updatedReplicas\":2,\"readyReplicas\":2,\"availableReplicas\":2}}'",
        ),
        ok("rollout status deployment web --timeout=5s"),
    ]
}

const SETS: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: sts}
spec:
  serviceName: sts
  selector: {matchLabels: {app: sts}, matchExpressions: [{key: tier, operator: In, values: [b, a]}, {key: x, operator: DoesNotExist}]}
  template: {metadata: {labels: {app: sts, tier: a}}, spec: {containers: [{name: sts, image: sts}]}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: rs}
spec:
  selector: {matchLabels: {app: rs}}
  template: {metadata: {labels: {app: rs}}, spec: {containers: [{name: rs, image: rs}]}}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: ds}
spec:
  selector: {matchLabels: {app: ds}}
  template: {metadata: {labels: {app: ds}}, spec: {containers: [{name: ds, image: ds}]}}
";

const NAMELESS: &str = "{\"apiVersion\":\"autoscaling/v1\",\"kind\":\"Scale\",\"spec\":{\"replicas\":1}}";

const STRANGE: &str = "{\"apiVersion\":\"v1\",\"kind\":\"Pod\",\"metadata\":{\"name\":\"web\"}}";

const REVISIONS: &str = "
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: web-1
  labels: {app: web}
  annotations: {deployment.kubernetes.io/revision: '1', kubernetes.io/change-cause: the first}
  ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: '{file:web}', controller: true}]
spec:
  replicas: 0
  selector: {matchLabels: {app: web, pod-template-hash: one}}
  template: {metadata: {labels: {app: web, pod-template-hash: one}}, spec: {containers: [{name: i, image: 'i:0'}]}}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata:
  name: web-2
  labels: {app: web}
  annotations: {deployment.kubernetes.io/revision: '2'}
  ownerReferences: [{apiVersion: apps/v1, kind: Deployment, name: web, uid: '{file:web}', controller: true}]
spec:
  replicas: 0
  selector: {matchLabels: {app: web, pod-template-hash: two}}
  template: {metadata: {labels: {app: web, pod-template-hash: two}}, spec: {containers: [{name: i, image: 'i:1'}]}}
";
