//! `describe` of each kind.

use super::step::{Step, fails, ok};

pub(super) fn steps() -> Vec<Step> {
    vec![
        ok("apply -f -").input(OBJECTS),
        ok("describe configmap c"),
        ok("describe secret s"),
        // The real server's allocators may tell events.
        ok("describe service web --show-events=false"),
        ok("describe service outer --show-events=false"),
        ok("describe deployment web"),
        ok("describe replicaset rs"),
        ok("describe statefulset sts"),
        ok("describe daemonset ds"),
        ok("describe job j"),
        ok("describe pod p"),
        ok("describe serviceaccount robot"),
        ok("describe role r"),
        ok("describe rolebinding b"),
        ok("describe clusterrole {ns}"),
        ok("describe clusterrolebinding {ns}"),
        ok("describe ingress edge"),
        ok("describe persistentvolumeclaim disk"),
        ok("describe endpointslice slice"),
        ok("describe lease turn"),
        ok("describe event e"),
        // Quotas and limits aren't served.
        ok("describe namespace {ns}").lines(),
        ok("describe namespace default").lines(),
        ok("describe configmap -l app=x"),
        ok("describe configmap,secret"),
        ok("describe configmap --show-events=false"),
        ok("describe -f - --show-events=false").input(OBJECTS),
        fails("describe configmap none"),
        fails("describe nonsense x"),
        ok("delete clusterrole,clusterrolebinding {ns}"),
    ]
}

const OBJECTS: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: c, labels: {app: x}, annotations: {note: words}}
data: {a: one, b: 'more
 lines'}
binaryData: {bin: AAEC}
---
apiVersion: v1
kind: Secret
metadata: {name: s}
type: Opaque
stringData: {password: hidden}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, name: http, targetPort: web}]}
---
apiVersion: v1
kind: Service
metadata: {name: outer}
spec: {type: NodePort, selector: {app: web}, ports: [{port: 80, nodePort: 32123}], sessionAffinity: ClientIP}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, labels: {app: web}, annotations: {deployment.kubernetes.io/revision: '3'}}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      volumes: [{name: v, configMap: {name: c}}]
      containers:
      - name: web
        image: web:1
        ports: [{containerPort: 80}]
        resources: {limits: {cpu: 500m, memory: 64Mi}}
        env: [{name: A, value: b}, {name: S, valueFrom: {secretKeyRef: {name: s, key: password}}}]
        livenessProbe: {httpGet: {path: /ok, port: 80}}
        volumeMounts: [{name: v, mountPath: /v}]
---
apiVersion: apps/v1
kind: ReplicaSet
metadata: {name: rs}
spec:
  selector: {matchLabels: {app: rs}}
  template: {metadata: {labels: {app: rs}}, spec: {containers: [{name: rs, image: rs}]}}
---
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: sts}
spec:
  serviceName: sts
  selector: {matchLabels: {app: sts}}
  template: {metadata: {labels: {app: sts}}, spec: {containers: [{name: sts, image: sts}]}}
  volumeClaimTemplates: [{metadata: {name: d}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: ds}
spec:
  selector: {matchLabels: {app: ds}}
  template: {metadata: {labels: {app: ds}}, spec: {containers: [{name: ds, image: ds}]}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: j}
spec: {completions: 2, template: {spec: {restartPolicy: Never, containers: [{name: j, image: i, command: [run, it]}]}}}
---
apiVersion: v1
kind: Pod
metadata: {name: p, labels: {app: x}}
spec: {containers: [{name: p, image: i, resources: {requests: {cpu: 100m}}}], nodeSelector: {disk: fast}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: robot}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {name: r}
rules: [{apiGroups: ['', apps], resources: [pods, deployments], verbs: [get, list]}, {apiGroups: [''], resources: [secrets], resourceNames: [s], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: b}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: r}
subjects: [{kind: ServiceAccount, name: robot}, {kind: User, name: jane, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: '{ns}'}
rules: [{apiGroups: ['*'], resources: ['*'], verbs: ['*']}, {nonResourceURLs: [/metrics], verbs: [get]}]
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: '{ns}'}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: '{ns}'}
subjects: [{kind: Group, name: people, apiGroup: rbac.authorization.k8s.io}]
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: edge}
spec:
  tls: [{hosts: [example.com], secretName: s}]
  rules: [{host: example.com, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {number: 80}}}}]}}]
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
ports: [{port: 8080, name: http, protocol: TCP}]
endpoints: [{addresses: [10.1.2.3], conditions: {ready: true}}]
---
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: turn}
spec: {holderIdentity: me, leaseDurationSeconds: 15}
---
apiVersion: v1
kind: Event
metadata: {name: e}
involvedObject: {apiVersion: v1, kind: ConfigMap, name: c, namespace: '{ns}'}
reason: Seen
message: it was seen
type: Normal
firstTimestamp: '2026-01-02T03:04:05Z'
lastTimestamp: '2026-01-02T03:04:06Z'
source: {component: suites}
";
