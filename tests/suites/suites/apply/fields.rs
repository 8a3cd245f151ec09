//! Scripts on ConfigMaps, Namespaces and Services: tracking, merging, refusals.

use super::{Step, step};

const MAPS: &str = "/api/v1/namespaces/{ns}/configmaps";
const C: &str = "/api/v1/namespaces/{ns}/configmaps/c";
const BY_A: &str = "/api/v1/namespaces/{ns}/configmaps/c?fieldManager=a";
const BY_B: &str = "/api/v1/namespaces/{ns}/configmaps/c?fieldManager=b";
const BY_B_FORCED: &str = "/api/v1/namespaces/{ns}/configmaps/c?fieldManager=b&force=true";
const NONE: &str = "/api/v1/namespaces/{ns}/configmaps/none?fieldManager=a";

/// Creates, updates and patches.
pub(super) const UPDATES: &[Step] = &[
    step(
        "POST",
        MAPS,
        r#"{"metadata":{"name":"c","labels":{"l":"1"},"annotations":{"x":"y"},"finalizers":["a.io/1"]},"data":{"k":"1","m":"2"}}"#,
        201,
    ),
    step("GET", C, "", 200),
    step(
        "PUT",
        BY_A,
        r#"{"metadata":{"name":"c","labels":{"l":"1"},"annotations":{"x":"z"},"finalizers":["a.io/1","b.io/2"]},"data":{"k":"2"}}"#,
        200,
    ),
    step(
        "PUT",
        BY_A,
        r#"{"metadata":{"name":"c","labels":{"l":"1"},"annotations":{"x":"z"},"finalizers":["a.io/1","b.io/2"]},"data":{"k":"2"}}"#,
        200,
    ),
    step("MERGE", BY_B, r#"{"data":{"n":"3"},"metadata":{"labels":{"l":null}}}"#, 200),
    step(
        "JSON",
        C,
        r#"[{"op":"add","path":"/data/o","value":"4"},{"op":"replace","path":"/data/k","value":"5"}]"#,
        200,
    ),
    step(
        "STRATEGIC",
        BY_B,
        r#"{"metadata":{"finalizers":["c.io/3"],"$deleteFromPrimitiveList/finalizers":["a.io/1"]}}"#,
        200,
    ),
    step("MERGE", BY_B, r#"{"metadata":{"finalizers":null}}"#, 200),
    step("MERGE", BY_B, r#"{}"#, 200),
    step("MERGE", "/api/v1/namespaces/{ns}/configmaps/c?fieldManager=b&dryRun=All", r#"{"data":{"dry":"1"}}"#, 200),
    step("JSON", BY_B, r#"[{"op":"replace","path":"/metadata/managedFields/0/manager","value":"renamed"}]"#, 200),
    step(
        "MERGE",
        BY_B,
        r#"{"metadata":{"managedFields":[{"manager":"z","operation":"Replace"}]},"data":{"q":"1"}}"#,
        200,
    ),
    step(
        "MERGE",
        BY_B,
        r#"{"metadata":{"managedFields":[{"manager":"z","operation":"Update","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":{"f:q":{}}}}]}}"#,
        200,
    ),
    step("MERGE", BY_B, r#"{"metadata":{"managedFields":null}}"#, 200),
    step("MERGE", BY_B, r#"{"metadata":{"managedFields":[]}}"#, 200),
    step("MERGE", BY_B, r#"{"data":{"r":"1"}}"#, 200),
    step("APPLY", BY_A, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"r":"1"}}"#, 200),
    step("GET", C, "", 200),
    step(
        "POST",
        MAPS,
        r#"{"metadata":{"name":"g","managedFields":[{"manager":"z","operation":"Apply","apiVersion":"v1","fieldsType":"FieldsV1","fieldsV1":{"f:data":{"f:q":{}}}}]},"data":{"k":"1"}}"#,
        201,
    ),
    step(
        "POST",
        "/api/v1/namespaces/{ns}/configmaps?dryRun=All&fieldManager=a",
        r#"{"metadata":{"name":"h"},"data":{"k":"1"}}"#,
        201,
    ),
    step("POST", "/api/v1/namespaces/{ns}/configmaps?fieldManager=a%0A", r#"{"metadata":{"name":"h"}}"#, 422),
    step("DELETE", C, "", 200),
];

/// Configurations.
pub(super) const APPLIES: &[Step] = &[
    step(
        "APPLY",
        BY_A,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","labels":{"l":"1"}},"data":{"k":"1","m":"2"}}"#,
        201,
    ),
    step(
        "APPLY",
        BY_A,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","labels":{"l":"1"}},"data":{"k":"1","m":"2"}}"#,
        200,
    ),
    step("APPLY", BY_B, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"k":"1"}}"#, 200),
    step(
        "APPLY",
        BY_B,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"k":"3","m":"3"}}"#,
        409,
    ),
    step("APPLY", BY_B, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"m":"3"}}"#, 409),
    step(
        "APPLY",
        "/api/v1/namespaces/{ns}/configmaps/c?fieldManager=b&force=true&dryRun=All",
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"k":"3"}}"#,
        200,
    ),
    step(
        "APPLY",
        BY_B_FORCED,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"k":"3"}}"#,
        200,
    ),
    step("APPLY", BY_A, "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\ndata:\n  m: '2'\n", 200),
    step("APPLY", BY_A, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}"#, 200),
    step("MERGE", C, r#"{"data":{"k":"9"}}"#, 200),
    step("APPLY", BY_B, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"},"data":{"k":"3"}}"#, 409),
    step(
        "APPLY",
        BY_B,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","resourceVersion":"1"},"data":{"x":"1"}}"#,
        409,
    ),
    step(
        "APPLY",
        BY_B,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","resourceVersion":"{rv}"},"data":{"x":"1"}}"#,
        200,
    ),
    step("GET", C, "", 200),
    step(
        "APPLY",
        BY_B,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c","resourceVersion":"{rv}"},"data":{"x":"1"}}"#,
        200,
    ),
    step(
        "APPLY",
        "/api/v1/namespaces/{ns}/configmaps/d?fieldManager=a&dryRun=All",
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"d"},"data":{"k":"1"}}"#,
        201,
    ),
    step("GET", "/api/v1/namespaces/{ns}/configmaps/d", "", 404),
    step(
        "APPLY",
        "/api/v1/namespaces/{ns}?fieldManager=a",
        r#"{"apiVersion":"v1","kind":"Namespace","metadata":{"name":"{ns}","labels":{"applied":"yes"}}}"#,
        200,
    ),
    step(
        "APPLY",
        "/api/v1/namespaces/{ns}/services/s?fieldManager=a",
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"ports":[{"port":80,"name":"http"},{"port":53,"protocol":"UDP","name":"dns"}],"selector":{"a":"b"}}}"#,
        201,
    ),
    step(
        "APPLY",
        "/api/v1/namespaces/{ns}/services/s?fieldManager=b",
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"ports":[{"port":443,"name":"https","targetPort":"tls"},{"port":80,"protocol":"TCP","targetPort":8080}]}}"#,
        200,
    ),
    step(
        "APPLY",
        "/api/v1/namespaces/{ns}/services/s?fieldManager=b",
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"ports":[{"port":443,"name":"https","targetPort":"tls"}]}}"#,
        200,
    ),
    step(
        "APPLY",
        "/api/v1/namespaces/{ns}/services/s?fieldManager=a",
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"ports":[{"port":53,"protocol":"UDP","name":"dns"}]}}"#,
        200,
    ),
    step(
        "APPLY",
        "/api/v1/namespaces/{ns}/services/s?fieldManager=b",
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"}}"#,
        200,
    ),
];

/// What is refused, and how.
pub(super) const REFUSED: &[Step] = &[
    step("APPLY", C, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}"#, 422),
    step("MERGE", "/api/v1/namespaces/{ns}/configmaps/c?force=true", r#"{}"#, 422),
    step("APPLY", NONE, r#"{"apiVersion":"v1","kind":"Secret","metadata":{"name":"none"}}"#, 400),
    step("APPLY", NONE, r#"{"apiVersion":"v2","kind":"ConfigMap","metadata":{"name":"none"}}"#, 400),
    step("APPLY", NONE, r#"{"kind":"ConfigMap","metadata":{"name":"none"}}"#, 400),
    step("APPLY", NONE, r#"{}"#, 400),
    step("APPLY", NONE, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"other"}}"#, 400),
    step("APPLY", NONE, r#"{"apiVersion":"v1","kind":"ConfigMap"}"#, 400),
    step(
        "APPLY",
        NONE,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"none","namespace":"elsewhere"}}"#,
        400,
    ),
    step("APPLY", NONE, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"none","uid":"u"}}"#, 409),
    step("APPLY", NONE, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"none","managedFields":[]}}"#, 400),
    step("APPLY", NONE, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"none"},"odd":1}"#, 500),
    step("APPLY", NONE, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"none"},"data":{"k":1}}"#, 500),
    step("APPLY", NONE, r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"none"},"data":["k"]}"#, 500),
    step(
        "APPLY",
        NONE,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"none"},"data":{"bad key":"x"}}"#,
        422,
    ),
    step(
        "APPLY",
        NONE,
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"none","finalizers":["a.io/1","a.io/1"]}}"#,
        500,
    ),
    step(
        "APPLY",
        "/api/v1/namespaces/{ns}/configmaps/Bad?fieldManager=a",
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"Bad"}}"#,
        422,
    ),
    step(
        "APPLY",
        "/api/v1/namespaces/missing-{ns}/configmaps/c?fieldManager=a",
        r#"{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"c"}}"#,
        404,
    ),
    step(
        "APPLY",
        "/apis/apps/v1/namespaces/{ns}/deployments/d/status?fieldManager=a",
        r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"}}"#,
        404,
    ),
    step(
        "APPLY",
        "/api/v1/namespaces/{ns}/services/s?fieldManager=a",
        r#"{"apiVersion":"v1","kind":"Service","metadata":{"name":"s"},"spec":{"ports":[{"port":80},{"port":80,"protocol":"TCP"}]}}"#,
        500,
    ),
    step(
        "APPLY",
        "/apis/apps/v1/namespaces/{ns}/deployments/d?fieldManager=a",
        r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"template":{"spec":{"containers":[{"image":"i"}]}}}}"#,
        422,
    ),
    step(
        "APPLY",
        "/apis/apps/v1/namespaces/{ns}/deployments/d?fieldManager=a",
        r#"{"apiVersion":"apps/v1","kind":"Deployment","metadata":{"name":"d"},"spec":{"replicas":1}}"#,
        422,
    ),
];
