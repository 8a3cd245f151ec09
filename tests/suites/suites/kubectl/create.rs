//! `create` and its generators, `expose`, `run`.

use super::step::{Step, fails, ok};

pub(super) fn steps() -> Vec<Step> {
    vec![
        ok("create configmap a --from-literal=x=1 --from-literal=y=two"),
        ok("get configmap a -o yaml"),
        ok("create secret generic s --from-literal=password=hidden"),
        ok("get secret s -o json"),
        ok("create service clusterip web --tcp=80:8080"),
        ok("create service clusterip headless --clusterip=None"),
        ok("create service nodeport door --tcp=80"),
        ok("create service externalname far --external-name=example.com"),
        ok("get service web headless door far"),
        ok("get service web headless door far -o wide"),
        ok("get service web -o yaml"),
        ok("get service door -o yaml"),
        ok("create deployment web --image=registry.example/web:1 --replicas=2 --port=8080"),
        ok("get deployment web -o yaml"),
        ok("expose deployment web --port=80 --target-port=8080 --name=front"),
        ok("get service front -o yaml"),
        ok("run one --image=registry.example/one --restart=Never --labels=a=b --env=X=1"),
        ok("get pod one -o yaml"),
        ok("expose pod one --port=80"),
        ok("create job once --image=registry.example/job -- run it"),
        ok("get job once -o yaml"),
        ok("get jobs"),
        ok("create serviceaccount robot"),
        ok("create role reader --verb=get,list --resource=pods,configmaps"),
        ok("create role scaler --verb=update --resource=deployments.apps/scale"),
        ok("create rolebinding reads --role=reader --serviceaccount={ns}:robot --user=jane"),
        ok("get role,rolebinding -o yaml"),
        ok("get role,rolebinding,serviceaccount"),
        ok("get rolebinding -o wide"),
        ok("create clusterrole {ns} --verb=get --resource=namespaces --non-resource-url=/metrics"),
        ok("create clusterrolebinding {ns} --clusterrole={ns} --group=admins"),
        ok("get clusterrole,clusterrolebinding {ns}"),
        ok("get clusterrole,clusterrolebinding {ns} -o yaml"),
        ok("delete clusterrole,clusterrolebinding {ns}"),
        ok("create namespace {ns}-other"),
        ok("get namespace {ns}-other --show-labels"),
        ok("create ingress edge --rule=example.com/path*=web:80"),
        ok("get ingress edge -o yaml"),
        ok("get ingress"),
        ok("create -f - -o yaml").input(LEASE),
        ok("get lease turn"),
        ok("create configmap b --from-literal=x=1 --dry-run=client -o yaml"),
        ok("create configmap b --from-literal=x=1 --dry-run=server"),
        ok("create configmap b --from-literal=x=1 --dry-run=server -o yaml"),
        fails("get configmap b"),
        ok("create deployment dry --image=i --dry-run=server -o yaml"),
        ok("create -f -").input(LIST),
        ok("create -f - -o name").input(GENERATED).exit(),
        ok("create -f - --dry-run=client -o jsonpath={.metadata.generateName}").input(GENERATED),
        ok("create configmap files --from-env-file=/dev/stdin -o jsonpath={.data.A}").input("A=b"),
        ok(
            "create secret docker-registry pull --docker-username=u --docker-password=p --docker-server=registry.example",
        ),
        ok("get secret pull -o yaml"),
        ok("create -f - --save-config")
            .input("{apiVersion: v1, kind: ConfigMap, metadata: {name: saved}, data: {a: b}}"),
        ok("get configmap saved -o yaml"),
        ok("create job again --image=i --dry-run=server -o yaml"),
        ok("create clusterrole {ns}-sum --aggregation-rule=part=yes --dry-run=server -o yaml"),
        ok(
            "create deployment busy --image=a --image=b --port=1 -o jsonpath='{.spec.template.spec.containers[*].name}'",
        ),
        ok("create rolebinding all --clusterrole=view --group=people -o yaml"),
        ok(
            "create role many --verb='*' --resource=deployments.apps,services,leases.coordination.k8s.io --resource-name=x -o yaml",
        ),
        ok("get all"),
        ok("get all -o name"),
        fails("create configmap a --from-literal=x=1"),
        fails("create deployment web --image=i"),
        fails("create namespace {ns}"),
        fails("create -f -").input(LIST),
        fails("create configmap Not_A_Name"),
        fails("create role r --verb=get --resource=nonsense"),
        fails("expose deployment nothing --port=80"),
        fails("create service clusterip bad"),
        ok("delete namespace {ns}-other --wait=false"),
    ]
}

const LEASE: &str = "
apiVersion: coordination.k8s.io/v1
kind: Lease
metadata: {name: turn}
spec: {holderIdentity: me, leaseDurationSeconds: 15, renewTime: \"2026-01-02T03:04:05.678901Z\"}
";

const LIST: &str = "
apiVersion: v1
kind: List
items:
- {apiVersion: v1, kind: ConfigMap, metadata: {name: l1, labels: {in: list}}, data: {a: b}}
- {apiVersion: v1, kind: Secret, metadata: {name: l2, labels: {in: list}}, stringData: {a: b}}
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: l3}
";

const GENERATED: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {generateName: made-}}";
