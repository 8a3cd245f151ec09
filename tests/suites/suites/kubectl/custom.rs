//! Custom resources: printer columns, status and scale, categories, schema faults.

use super::step::{Step, fails, ok};

pub(super) fn steps() -> Vec<Step> {
    vec![
        ok("apply -f -").input(CRD),
        ok("wait --for=condition=Established crd/gadgets.{group} --timeout=20s"),
        ok("get crd gadgets.{group}"),
        ok("get crd gadgets.{group} -o yaml"),
        ok("apply -f -").input(CRD),
        ok("create -f -").input(GADGETS),
        ok("get gadgets"),
        ok("get gd -o wide"),
        ok("get gadgets.{group} one -o yaml"),
        ok("get gadgets.v1.{group} one -o name"),
        ok("get gadget one -o jsonpath='{.spec}'"),
        ok("get toys-{ns}"),
        ok("get gadgets --sort-by .spec.replicas -o name"),
        ok("get gadgets -l kind=small --show-labels"),
        ok("get gadgets --field-selector spec.size=big -o name"),
        fails("get gadgets --field-selector spec.replicas=1"),
        ok("patch gadget one --type=merge -p '{\"spec\":{\"size\":\"huge\"}}'"),
        fails("patch gadget one -p '{\"spec\":{\"size\":\"huge\"}}'"),
        fails("patch gadget one --type=strategic -p '{\"spec\":{\"size\":\"huge\"}}'"),
        ok(
            "patch gadget one --subresource=status --type=merge -p '{\"status\":{\"phase\":\"Ready\",\"replicas\":1,\"selector\":\"a=b\"},\"spec\":{\"size\":\"ignored\"}}'",
        ),
        ok("get gadget one"),
        ok("get gadget one --subresource=status -o yaml"),
        ok("get gadget one --subresource=scale"),
        ok("get gadget one --subresource=scale -o yaml"),
        ok("scale gadget one --replicas=4"),
        ok("scale gadget/one --current-replicas=4 --replicas=5"),
        fails("scale gadget/one --current-replicas=4 --replicas=6"),
        ok("scale gadgets --all --replicas=2"),
        fails("scale gadget one --replicas=51"),
        fails("scale gadget none --replicas=1"),
        fails("patch gadget one --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":-1}}'"),
        fails("patch gadget one --type=merge -p '{\"spec\":{\"replicas\":-1}}'"),
        ok("patch gadget one --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":0}}' -o yaml"),
        ok("get gadgets"),
        ok("create -f -").input(EMPTY),
        fails("get gadget empty --subresource=scale"),
        ok("scale gadget empty --replicas=2"),
        ok("patch gadget empty --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":3}}'"),
        fails("create -f -").input(INVALID),
        fails("create -f -").input(INVALID_PARTS),
        fails("create -f -").input(UNKNOWN),
        ok("create -f - --validate=false").input(UNKNOWN),
        ok("create -f - --validate=warn").input(UNKNOWN_TOO),
        ok("get gadget unknown -o yaml"),
        fails("patch gadget one --type=merge -p '{\"spec\":{\"size\":3}}'"),
        ok("patch gadget one --type=merge -p '{\"spec\":{\"odd\":3}}'"),
        ok("apply -f -").input(APPLIED),
        ok("apply -f -").input(APPLIED_MORE),
        ok("get gadget applied -o yaml"),
        ok("label gadget applied a=b"),
        ok("annotate gadget --all note=all"),
        ok("wait --for=jsonpath='{.status.phase}'=Ready gadget/one --timeout=5s"),
        fails("wait --for=condition=Ready gadget/one --timeout=1s"),
        ok(
            "patch gadget one --subresource=status --type=merge -p '{\"status\":{\"conditions\":[{\"type\":\"Ready\",\"status\":\"True\"}]}}'",
        ),
        ok("wait --for=condition=Ready gadget/one --timeout=5s"),
        ok("describe gadget one"),
        ok("explain gadget"),
        ok("explain gadget.spec"),
        ok("explain gadget.spec.size"),
        ok("explain gadget --recursive"),
        fails("explain gadget.spec.none"),
        ok("api-resources --api-group={group}"),
        ok("api-resources --api-group={group} -o wide"),
        ok("edit gadget one").editor("s/huge/tiny/"),
        ok("get gadget one -o jsonpath={.spec.size}"),
        ok("delete gadget one"),
        ok("delete gadgets --all"),
        fails("apply -f -").input(CRD_BAD),
        fails(
            "patch crd gadgets.{group} --type=json -p '[{\"op\":\"replace\",\"path\":\"/spec/scope\",\"value\":\"Cluster\"}]'",
        ),
        ok("describe crd gadgets.{group}"),
        ok("delete crd gadgets.{group}"),
        fails("get gadgets"),
    ]
}

const CRD: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: 'gadgets.{group}'}
spec:
  group: '{group}'
  scope: Namespaced
  names: {plural: gadgets, singular: gadget, kind: Gadget, shortNames: [gd], categories: ['toys-{ns}']}
  versions:
  - name: v1
    served: true
    storage: true
    additionalPrinterColumns:
    - {name: Size, type: string, jsonPath: .spec.size}
    - {name: Replicas, type: integer, jsonPath: .spec.replicas}
    - {name: Phase, type: string, jsonPath: .status.phase, description: How it is}
    - {name: Ready, type: string, jsonPath: '.status.conditions[?(@.type==\"Ready\")].status', priority: 1}
    - {name: Age, type: date, jsonPath: .metadata.creationTimestamp}
    selectableFields: [{jsonPath: .spec.size}]
    subresources:
      status: {}
      scale: {specReplicasPath: .spec.replicas, statusReplicasPath: .status.replicas, labelSelectorPath: .status.selector}
    schema:
      openAPIV3Schema:
        type: object
        description: A gadget for the tests.
        properties:
          spec:
            type: object
            description: What is wanted.
            properties:
              size: {type: string, enum: [tiny, small, big, huge, ignored], default: small, description: How large it is.}
              replicas: {type: integer, format: int32, minimum: 0, maximum: 50}
              parts:
                type: array
                items: {type: object, required: [name], properties: {name: {type: string}, count: {type: integer}}}
          status:
            type: object
            properties:
              phase: {type: string}
              replicas: {type: integer}
              selector: {type: string}
              conditions: {type: array, items: {type: object, x-kubernetes-preserve-unknown-fields: true}}
";

const CRD_BAD: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: 'wrong.{group}'}
spec:
  group: '{group}'
  scope: Namespaced
  names: {plural: gizmos, singular: gizmo, kind: Gizmo}
  versions:
  - {name: v1, served: true, storage: true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: nonsense}}}}}
";

const GADGETS: &str = "
apiVersion: '{group}/v1'
kind: Gadget
metadata: {name: one, labels: {kind: small}}
spec: {replicas: 1, parts: [{name: a, count: 1}]}
---
apiVersion: '{group}/v1'
kind: Gadget
metadata: {name: two}
spec: {replicas: 3, size: big}
";

const EMPTY: &str = "{apiVersion: '{group}/v1', kind: Gadget, metadata: {name: empty}}";

const INVALID: &str = "
apiVersion: '{group}/v1'
kind: Gadget
metadata: {name: invalid}
spec: {size: enormous}
";

const INVALID_PARTS: &str = "
apiVersion: '{group}/v1'
kind: Gadget
metadata: {name: invalid}
spec: {parts: [{name: a}, {name: b, count: x}]}
";

const UNKNOWN: &str = "
apiVersion: '{group}/v1'
kind: Gadget
metadata: {name: unknown, odd: 1}
spec: {odd: 1, parts: [{name: a, odd: 2}]}
";

const UNKNOWN_TOO: &str = "
apiVersion: '{group}/v1'
kind: Gadget
metadata: {name: unknown-too}
spec: {odd: 1}
";

const APPLIED: &str = "
apiVersion: '{group}/v1'
kind: Gadget
metadata: {name: applied}
spec: {size: big, replicas: 2, parts: [{name: a}]}
";

const APPLIED_MORE: &str = "
apiVersion: '{group}/v1'
kind: Gadget
metadata: {name: applied, labels: {more: yes-more}}
spec: {size: big, parts: [{name: b}]}
";
