//! `patch` of each type, and of subresources.

use super::step::{Step, fails, ok};

pub(super) fn steps() -> Vec<Step> {
    vec![
        ok("create deployment web --image=i:1 --replicas=1"),
        ok("create configmap c --from-literal=a=1 --from-literal=b=2"),
        ok("patch configmap c --type=merge -p '{\"data\":{\"a\":\"9\",\"b\":null}}'"),
        ok("patch configmap c --type=merge -p '{\"data\":{\"a\":\"9\"}}'"),
        ok(
            "patch configmap c --type=json -p '[{\"op\":\"add\",\"path\":\"/data/c\",\"value\":\"3\"},{\"op\":\"test\",\"path\":\"/data/a\",\"value\":\"9\"}]'",
        ),
        fails("patch configmap c --type=json -p '[{\"op\":\"test\",\"path\":\"/data/a\",\"value\":\"8\"}]'"),
        fails("patch configmap c --type=json -p '[{\"op\":\"remove\",\"path\":\"/data/none\"}]'"),
        fails("patch configmap c --type=json -p '{\"data\":{}}'"),
        fails("patch configmap c -p 'no json'"),
        fails("patch configmap c --type=merge -p '[]'"),
        ok("get configmap c -o yaml"),
        ok(
            "patch deployment web -p '{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"side\",\"image\":\"s\"}]}}}}'",
        ),
        ok(
            "patch deployment web -p '{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"i\",\"image\":\"i:2\"}]}}}}' -o yaml",
        ),
        ok(
            "patch deployment web -p '{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"$patch\":\"delete\",\"name\":\"side\"}]}}}}'",
        ),
        ok("patch deployment web -p '{\"spec\":{\"strategy\":{\"$retainKeys\":[\"type\"],\"type\":\"Recreate\"}}}'"),
        ok("patch deployment/web --type=strategic --patch-file=/dev/stdin").input("spec: {paused: true}"),
        ok("get deployment web -o yaml"),
        ok("patch deployment web -p '{\"spec\":{\"replicas\":4}}' --dry-run=server -o jsonpath={.spec.replicas}"),
        ok("patch deployment web -p '{\"spec\":{\"replicas\":4}}' --dry-run=client -o jsonpath={.spec.replicas}"),
        ok(
            "patch deployment web --subresource=status --type=merge -p '{\"status\":{\"replicas\":4,\"readyReplicas\":2}}'",
        ),
        ok("get deployment web"),
        ok("patch deployment web --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":5}}'"),
        ok("patch deployment web --subresource=scale -p '{\"spec\":{\"replicas\":6}}' -o yaml"),
        ok(
            "patch deployment web --subresource=scale --type=json -p '[{\"op\":\"replace\",\"path\":\"/spec/replicas\",\"value\":7}]'",
        ),
        fails("patch deployment web --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":-1}}'"),
        fails(
            "patch deployment web --subresource=scale --type=merge -p '{\"metadata\":{\"resourceVersion\":\"1\"},\"spec\":{\"replicas\":8}}'",
        ),
        fails("patch deployment web --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":\"many\"}}'"),
        ok("patch deployment web --subresource=scale --type=merge -p '{\"spec\":{\"odd\":1}}'"),
        fails("patch configmap c --subresource=status --type=merge -p '{}'"),
        fails("patch deployment web -p '{\"spec\":{\"replicas\":\"many\"}}'"),
        ok("patch deployment web -p '{\"spec\":{\"odd\":1}}'"),
        fails("patch deployment web -p '{\"spec\":{\"replicas\":-1}}'"),
        fails("patch deployment web -p '{\"spec\":{\"selector\":{\"matchLabels\":{\"app\":\"else\"}}}}'"),
        fails("patch deployment web --type=merge -p '{\"metadata\":{\"resourceVersion\":\"1\"}}'"),
        fails("patch deployment web --type=merge -p '{\"metadata\":{\"name\":\"other\"}}'"),
        fails("patch deployment web --type=merge -p '{\"kind\":\"Pod\"}'"),
        fails("patch configmap none -p '{}'"),
        ok("get deployment web -o yaml"),
    ]
}
