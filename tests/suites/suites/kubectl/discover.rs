//! What kubectl learns about the server: `api-resources`, `api-versions`, `explain`, `version`, `cluster-info`.

use super::step::{Step, fails, ok};

pub(super) fn steps() -> Vec<Step> {
    vec![
        ok("version"),
        ok("version -o yaml").exit(),
        ok("cluster-info"),
        ok("api-versions").lines(),
        ok("api-resources").lines(),
        ok("api-resources -o wide").lines(),
        ok("api-resources -o name").lines(),
        ok("api-resources --api-group=apps").lines(),
        ok("api-resources --namespaced=false").lines(),
        ok("api-resources --verbs=list,get --sort-by=kind").lines(),
        ok("api-resources --categories=all --no-headers").lines(),
        ok("explain configmap"),
        ok("explain pods"),
        ok("explain deployment"),
        ok("explain deploy.spec.template.spec.containers"),
        ok("explain deployment.spec.strategy.rollingUpdate.maxSurge"),
        ok("explain deployment --recursive"),
        ok("explain job --api-version=batch/v1"),
        ok("explain ingress.spec.rules.http.paths"),
        ok("explain service.spec.ports"),
        ok("explain lease.spec"),
        ok("explain role.rules"),
        ok("explain crd.spec.versions"),
        ok("explain mutatingwebhookconfiguration.webhooks"),
        ok("explain event --api-version=events.k8s.io/v1"),
        ok("explain namespace.status"),
        ok("explain persistentvolumeclaim.spec.resources"),
        fails("explain deployment.spec.none"),
        fails("explain nonsense"),
        ok("get --raw /api/v1/namespaces/default"),
        ok("get --raw /apis/apps"),
        ok("get --raw /apis/coordination.k8s.io/v1").exit(),
    ]
}
