//! `get` in all its forms.

use super::step::{Step, fails, ok};

pub(super) fn steps() -> Vec<Step> {
    vec![
        ok("apply -f -").input(OBJECTS),
        ok("get configmap"),
        ok("get configmap -o name"),
        ok("get cm c1"),
        ok("get cm c1 c3"),
        ok("get cm/c1 svc/web deploy/web"),
        ok("get configmap -o wide"),
        ok("get configmap c1 -o json"),
        ok("get configmap,deployment -o yaml"),
        ok("get configmap -o jsonpath='{range .items[*]}{.metadata.name}{\"=\"}{.data.a}{\"\\n\"}{end}'"),
        ok("get configmap -o jsonpath='{.items[?(@.data.a==\"2\")].metadata.name}'"),
        ok("get configmap c1 -o jsonpath-as-json='{.data}'"),
        ok("get configmap c1 -o go-template='{{.metadata.name}} {{len .data}}'"),
        ok("get configmap -o custom-columns=NAME:.metadata.name,A:.data.a,NONE:.data.none"),
        ok("get configmap --no-headers -o custom-columns=:metadata.name"),
        ok("get configmap -l color=red"),
        ok("get configmap -l color!=red -o name"),
        ok("get configmap -l 'color in (red,blue),size' -o name"),
        ok("get configmap -l '!color' -o name"),
        ok("get configmap -l color=none"),
        ok("get configmap --field-selector metadata.name=c2"),
        ok("get configmap --field-selector metadata.name!=c2 -o name"),
        ok("get secrets --field-selector type=Opaque"),
        ok("get services --field-selector spec.type=ClusterIP -o name"),
        ok("get pods --field-selector status.phase=Pending,spec.nodeName="),
        fails("get configmap --field-selector data.a=1"),
        ok("get configmap --sort-by .data.a"),
        ok("get configmap --sort-by '{.metadata.name}' -o name"),
        ok("get configmap --chunk-size=1 -o name"),
        ok("get configmap --chunk-size=2"),
        ok("get configmap --show-labels"),
        ok("get configmap -L color,size"),
        ok("get configmap --show-kind"),
        ok("get configmap --no-headers"),
        ok("get configmap -A -l app=read-{ns}"),
        ok("get deployment,service -A -l app=read-{ns}"),
        ok("get all -l app=read-{ns}"),
        ok("get deployment"),
        ok("get deployment -o wide"),
        ok("get deployment web -o yaml"),
        ok("get deployments.apps web"),
        ok("get deployments.v1.apps web -o name"),
        ok("get replicaset,statefulset,daemonset -o wide"),
        ok("get pods"),
        ok("get pods -o wide"),
        ok("get pod bare -o yaml"),
        ok("get persistentvolumeclaim"),
        ok("get pvc -o wide"),
        ok("get secret"),
        ok("get endpointslice"),
        ok("get namespace default {ns}"),
        ok("get namespace kube-system -o name"),
        ok("get -f - -o name").input(OBJECTS),
        fails("get --raw /api/v1/namespaces/{ns}/configmaps/none-such"),
        fails("get --raw /nothing"),
        ok("get --raw /healthz"),
        ok("get --raw /readyz"),
        ok("get configmap none --ignore-not-found"),
        ok("get configmap -n {ns}-none"),
        fails("get configmap c1 -n {ns}-none"),
        fails("get configmap c9"),
        fails("get configmap c1 c9"),
        fails("get nonsense"),
        fails("get nonsense c1"),
        fails("get configmap -l 'a in b'"),
        fails("get configmap -l 'a=b=c'"),
        fails("get configmap -l '=b'"),
        fails("get configmap -l 'a=/'"),
        fails("get jobs --field-selector x.y=1"),
        fails("get pods --field-selector x.y=1"),
        fails("get deployments --field-selector x.y=1"),
        fails("get pods --field-selector nonsense"),
        ok("get configmap -l 'a in ()' -o name"),
        ok("get configmap -l 'color notin (red),app' -o name"),
        ok("get configmap c1 --template='{{.data.a}}'"),
        ok("get deploy web -o jsonpath='{.spec.template.spec.containers[*].image}{\"\\n\"}{.metadata.labels}'"),
        ok("get deployment web -o custom-columns-file=/dev/stdin")
            .input("NAME REPLICAS\nmetadata.name spec.replicas\n"),
        ok("get svc web -o jsonpath='{.spec.ports[0].targetPort}'"),
        ok("get configmap,secret,service -o name --sort-by .metadata.name"),
        ok("get job,lease,ingress,role,rolebinding"),
        ok("get cm -A --field-selector metadata.namespace={ns},metadata.name=c1"),
        ok("get ns --field-selector status.phase=Active,metadata.name={ns} -o name"),
        ok("get configmap -n {ns} --ignore-not-found c1 c9"),
        ok("api-resources --api-group=autoscaling -o name --no-headers=true").exit(),
        fails("get configmap c1 -o nonsense"),
        ok("get deployment web --subresource=status"),
        ok("get deployment web --subresource=scale"),
        ok("get deployment web --subresource=scale -o yaml"),
        fails("get configmap c1 --subresource=status"),
        fails("get configmap c1 --subresource=scale"),
    ]
}

const OBJECTS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: c1, labels: {color: red, size: big, app: 'read-{ns}'}}
data: {a: '3'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c2, labels: {color: blue, app: 'read-{ns}'}}
data: {a: '2'}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: c3}
data: {a: '1', b: 'two
 lines'}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
stringData: {a: b}
---
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: 'read-{ns}'}}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: 'read-{ns}'}}
spec:
  replicas: 3
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec: {containers: [{name: web, image: web}, {name: side, image: side}]}
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: rs}
spec:
  selector: {matchLabels: {app: rs}}
  template:
    metadata: {labels: {app: rs}}
    spec: {containers: [{name: rs, image: rs}]}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: sts}
spec:
  serviceName: sts
  selector: {matchLabels: {app: sts}}
  template:
    metadata: {labels: {app: sts}}
    spec: {containers: [{name: sts, image: sts}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: ds}
spec:
  selector: {matchLabels: {app: ds}}
  template:
    metadata: {labels: {app: ds}}
    spec: {nodeSelector: {disk: fast}, containers: [{name: ds, image: ds}]}
---
apiVersion: v1
kind: Pod
metadata: {name: bare}
spec: {containers: [{name: bare, image: bare}], tolerations: [{operator: Exists}]}
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: disk}
spec: {accessModes: [ReadWriteOnce], storageClassName: none, resources: {requests: {storage: 1Gi}}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: slice, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{port: 80, name: http, protocol: TCP}]
endpoints: [{addresses: [10.1.2.3], conditions: {ready: true}}]
";
