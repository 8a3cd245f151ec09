//! `edit` with a sed script as the editor.

use super::step::{Step, fails, ok};

pub(super) fn steps() -> Vec<Step> {
    vec![
        ok("create configmap c --from-literal=a=one"),
        ok("create deployment web --image=i:1"),
        ok("edit configmap c").editor("s/one/two/"),
        ok("get configmap c -o jsonpath={.data}"),
        ok("edit configmap c").editor("s/none/such/"),
        ok("edit deployment web").editor("s/replicas: 1/replicas: 3/; s/i:1/i:2/"),
        ok("get deployment web -o yaml"),
        ok("edit deployment/web configmap/c").editor("s/two/three/; s/i:2/i:3/"),
        ok("edit configmap c -o json").editor("s/three/four/"),
        ok("edit configmap c --save-config").editor("s/four/five/"),
        ok("get configmap c -o jsonpath={.data}"),
        fails("edit deployment web").editor("s/replicas: 3/replicas: -3/"),
        fails("edit deployment web").editor("s/replicas: 3/odd: 3/"),
        fails("edit deployment web").editor("s/^  name: web/  name: other/"),
        // It prints the whole object as Go does.
        fails("edit configmap c").editor("s/uid: .*/uid: 11111111-1111-4111-8111-111111111111/").exit(),
        ok("edit deployment web --subresource=status").editor("s/^status: {}/status: {replicas: 2}/"),
        fails("edit deployment web --subresource=scale").editor("s/replicas: 3/replicas: 5/"),
        ok("get deployment web"),
        fails("edit configmap none").editor("s/a/b/"),
        ok("apply -f -").input(APPLIED),
        ok("apply edit-last-applied configmap applied").editor("s/first/second/"),
        ok("apply view-last-applied configmap applied"),
        ok("get configmap applied -o jsonpath={.data}"),
        ok("create configmap made --from-literal=a=b --dry-run=client -o yaml").save("made.yaml"),
        ok("create -f {dir}/made.yaml --edit").editor("s/: b/: edited/"),
        ok("get configmap made -o yaml"),
    ]
}

const APPLIED: &str = "{apiVersion: v1, kind: ConfigMap, metadata: {name: applied}, data: {a: first}}";
