//! What the server refuses: kubectl's words and exit codes for it.

use super::step::{Step, fails, ok};

pub(super) fn steps() -> Vec<Step> {
    vec![
        fails("create -f -").input("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, odd: 1, data: {a: b}}"),
        fails("apply -f -").input("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, odd: 1}"),
        ok("create -f - --validate=warn").input("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, odd: 1}"),
        ok("create -f - --validate=ignore").input("{apiVersion: v1, kind: ConfigMap, metadata: {name: b}, odd: 1}"),
        fails("create -f -").input("{apiVersion: v1, kind: ConfigMap, metadata: {name: d}, data: {a: 1}}"),
        fails("create -f -").input("{apiVersion: v1, kind: ConfigMap, metadata: {name: d}, data: {'a b': x}}"),
        fails("create -f -").input("{apiVersion: v1, kind: ConfigMap, metadata: {name: d, labels: {a: 'b c'}}}"),
        fails("create -f -").input("{apiVersion: v1, kind: ConfigMap, metadata: {name: D}}"),
        fails("create -f -").input("{apiVersion: v1, kind: ConfigMap, metadata: {}}"),
        fails("create -f -").input("{apiVersion: v1, kind: ConfigMap, metadata: {name: d, namespace: other-{ns}}}"),
        fails("create -f - -n other-{ns}").input("{apiVersion: v1, kind: ConfigMap, metadata: {name: d}}"),
        fails("create -f -").input("{apiVersion: v1, kind: Nonsense, metadata: {name: d}}"),
        fails("create -f -").input("{apiVersion: none.example.com/v1, kind: Nonsense, metadata: {name: d}}"),
        fails("create -f -").input("{apiVersion: v1, metadata: {name: d}}"),
        fails("create -f -").input("{kind: ConfigMap, metadata: {name: d}}"),
        fails("create -f -").input("no: [yaml"),
        fails("create -f -").input(""),
        fails("create -f {dir}/none.yaml"),
        fails("create -f -").input(DEPLOYMENT_BAD),
        fails("create -f -").input(DEPLOYMENT_ODD),
        fails("apply -f -").input(DEPLOYMENT_ODD),
        fails("create -f -").input(SERVICE_BAD),
        fails("create -f -").input(POD_BAD),
        fails("create -f -").input(ROLE_BAD),
        fails("create -f -").input("{apiVersion: v1, kind: Secret, metadata: {name: s}, data: {a: '%%%'}}"),
        fails("create -f -").input("{apiVersion: v1, kind: Namespace, metadata: {name: 'Bad Name'}}"),
        fails("create -f -").input(JOB_BAD),
        fails("create -f -").input(LEASE_BAD),
        fails("create -f -").input(INGRESS_BAD),
        ok("create configmap c --from-literal=a=b"),
        fails("create configmap c"),
        ok("get configmap c -o yaml").save("old.yaml"),
        ok("label configmap c new=er"),
        fails("replace -f {dir}/old.yaml"),
        fails("replace -f {dir}/old.yaml -o yaml"),
        fails("label configmap c newer=still --resource-version=1"),
        fails("annotate configmap c a=b --resource-version=1"),
        fails("scale deployment none --replicas=1"),
        ok("create deployment web --image=i"),
        fails("scale deployment web --replicas=3 --resource-version=1"),
        fails("scale deployment web --replicas=3 --current-replicas=2"),
        fails("scale deployment web --replicas=-1"),
        fails("scale configmap c --replicas=1"),
        fails("scale daemonset none --replicas=1"),
        fails("apply -f -").input("{apiVersion: v1, kind: Service, metadata: {name: web}, spec: {ports: [{port: 0}]}}"),
        ok("create configmap frozen --from-literal=a=b"),
        ok("patch configmap frozen --type=merge -p '{\"immutable\":true}'"),
        fails("patch configmap frozen --type=merge -p '{\"data\":{\"a\":\"c\"}}'"),
        fails("get configmap c --resource-version=1 --nonsense"),
        fails("logs none"),
        fails("delete --raw /api/v1/namespaces/{ns}/configmaps/c/status"),
        fails("create --raw /api/v1/namespaces/{ns}/configmaps/c -f -").input("{}"),
        fails("replace --raw /api/v1/namespaces/{ns}/configmaps/c -f -").input("{\"metadata\":{}}"),
        fails("replace --raw /api/v1/namespaces/{ns}/configmaps/c -f -")
            .input("{\"kind\":\"Pod\",\"apiVersion\":\"v1\",\"metadata\":{\"name\":\"c\"}}"),
        fails("replace --raw /api/v1/namespaces/{ns}/configmaps/c -f -")
            .input("{\"metadata\":{\"name\":\"c\",\"uid\":\"11111111-1111-4111-8111-111111111111\"}}"),
        fails("delete --raw /api/v1/namespaces/{ns}/configmaps/c?propagationPolicy=Nonsense"),
        fails("get --raw /api/v1/namespaces/{ns}/nonsense"),
        fails("get --raw /apis/none.example.com/v1/nonsense"),
        fails("get --raw /apis/apps/v1/namespaces/{ns}/deployments/web/nonsense"),
        fails("get --raw /apis/apps/v9/deployments"),
        fails("get --raw /api/v1/namespaces/{ns}/configmaps?limit=x"),
        fails("exec none -- true"),
        fails("set image deployment/web web="),
        fails("rollout status deployment/none"),
    ]
}

const DEPLOYMENT_BAD: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  replicas: -1
  selector: {matchLabels: {app: x}}
  template: {metadata: {labels: {app: y}}, spec: {containers: [{name: 'A b', image: ''}]}}
";

const DEPLOYMENT_ODD: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: d}
spec:
  replica: 1
  selector: {matchLabels: {app: x}}
  template: {metadata: {labels: {app: x}}, spec: {containers: [{name: c, image: i, imagePull: Always}]}}
";

const SERVICE_BAD: &str = "
apiVersion: v1
kind: Service
metadata: {name: s}
spec: {type: Nonsense, ports: [{port: 70000}, {port: 80}]}
";

const POD_BAD: &str = "{apiVersion: v1, kind: Pod, metadata: {name: p}, spec: {containers: []}}";

const ROLE_BAD: &str = "
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: r}
rules: [{apiGroups: [''], resources: [pods]}]
";

const JOB_BAD: &str = "
apiVersion: batch/v1
kind: Job
metadata: {name: j}
spec: {template: {spec: {containers: [{name: j, image: i}]}}}
";

const LEASE_BAD: &str = "
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: l}
spec: {leaseDurationSeconds: 0}
";

const INGRESS_BAD: &str = "
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: i}
spec: {rules: [{host: '*bad', http: {paths: [{path: nope, pathType: Exact, backend: {service: {name: a}}}]}}]}
";
