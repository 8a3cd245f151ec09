//! A script on a custom kind with maps, sets, lists that are one value, free-form parts, a status and two versions.

use super::{Step, step};

const CRDS: &str = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
const THING: &str = "/apis/{group}/v1/namespaces/{ns}/things/t";
const BY_A: &str = "/apis/{group}/v1/namespaces/{ns}/things/t?fieldManager=a";
const BY_B: &str = "/apis/{group}/v1/namespaces/{ns}/things/t?fieldManager=b";
const V2_BY_B: &str = "/apis/{group}/v2/namespaces/{ns}/things/t?fieldManager=b";
const STATUS_BY_C: &str = "/apis/{group}/v1/namespaces/{ns}/things/t/status?fieldManager=c";

/// The CRD, and what is done to one object.
pub(super) const THINGS: &[Step] = &[
    step("CRD", CRDS, include_str!("things.json"), 200),
    step(
        "APPLY",
        BY_A,
        r#"{"apiVersion":"{group}/v1","kind":"Thing","metadata":{"name":"t","labels":{"a":"b"}},"spec":{"text":"1","set":["x","y"],"plain":[1,2],"free":{"a":{"b":1}},"atomic":{"k":"1"},"ports":[{"port":80},{"port":80,"protocol":"UDP"}]},"status":{"x":1}}"#,
        201,
    ),
    step(
        "APPLY",
        BY_A,
        r#"{"apiVersion":"{group}/v1","kind":"Thing","metadata":{"name":"t","labels":{"a":"b"}},"spec":{"text":"1","set":["x","y"],"plain":[1,2],"free":{"a":{"b":1}},"atomic":{"k":"1"},"ports":[{"port":80},{"port":80,"protocol":"UDP"}]}}"#,
        200,
    ),
    step(
        "APPLY",
        BY_B,
        r#"{"apiVersion":"{group}/v1","kind":"Thing","metadata":{"name":"t"},"spec":{"set":["z","y"],"free":{"a":{"c":2},"d":[1]},"ports":[{"port":81,"protocol":"TCP"}]}}"#,
        200,
    ),
    step(
        "APPLY",
        BY_B,
        r#"{"apiVersion":"{group}/v1","kind":"Thing","metadata":{"name":"t"},"spec":{"plain":[1],"atomic":{"l":"1"},"text":"2"}}"#,
        409,
    ),
    step(
        "APPLY",
        V2_BY_B,
        r#"{"apiVersion":"{group}/v2","kind":"Thing","metadata":{"name":"t"},"spec":{"text":"2"}}"#,
        409,
    ),
    step(
        "APPLY",
        "/apis/{group}/v2/namespaces/{ns}/things/t?fieldManager=b&force=true",
        r#"{"apiVersion":"{group}/v2","kind":"Thing","metadata":{"name":"t"},"spec":{"text":"2","number":1}}"#,
        200,
    ),
    step("GET", THING, "", 200),
    step("APPLY", V2_BY_B, r#"{"apiVersion":"{group}/v1","kind":"Thing","metadata":{"name":"t"}}"#, 400),
    step("MERGE", "/apis/{group}/v2/namespaces/{ns}/things/t", r#"{"spec":{"number":2,"colour":"blue"}}"#, 200),
    step(
        "PUT",
        THING,
        r#"{"apiVersion":"{group}/v1","kind":"Thing","metadata":{"name":"t","resourceVersion":"{rv}"},"spec":{"text":"3"}}"#,
        200,
    ),
    step(
        "PUT",
        "/apis/{group}/v1/namespaces/{ns}/things/t/status",
        r#"{"apiVersion":"{group}/v1","kind":"Thing","metadata":{"name":"t","resourceVersion":"{rv}","labels":{"not":"this"}},"spec":{"text":"9"},"status":{"conditions":[{"type":"A","status":"True"},{"type":"B","status":"False"}]}}"#,
        200,
    ),
    step(
        "APPLY",
        STATUS_BY_C,
        r#"{"apiVersion":"{group}/v1","kind":"Thing","metadata":{"name":"t","labels":{"not":"this"}},"status":{"conditions":[{"type":"C","status":"True"}],"y":1}}"#,
        200,
    ),
    step(
        "APPLY",
        STATUS_BY_C,
        r#"{"apiVersion":"{group}/v1","kind":"Thing","metadata":{"name":"t"},"status":{"conditions":[{"type":"B","status":"True"}]}}"#,
        409,
    ),
    step("APPLY", BY_A, r#"{"apiVersion":"{group}/v1","kind":"Thing","metadata":{"name":"t"},"spec":{"odd":1}}"#, 500),
    step(
        "APPLY",
        BY_A,
        r#"{"apiVersion":"{group}/v1","kind":"Thing","metadata":{"name":"t"},"spec":{"number":"x"}}"#,
        500,
    ),
    step(
        "APPLY",
        BY_A,
        r#"{"apiVersion":"{group}/v1","kind":"Thing","metadata":{"name":"t"},"spec":{"number":99}}"#,
        422,
    ),
    step(
        "APPLY",
        BY_A,
        r#"{"apiVersion":"{group}/v1","kind":"Thing","metadata":{"name":"t"},"spec":{"set":["a","a"]}}"#,
        500,
    ),
    step("APPLY", BY_A, r#"{"apiVersion":"{group}/v1","kind":"Thing","metadata":{"name":"t"},"spec":{"set":[]}}"#, 200),
    step("APPLY", BY_A, r#"{"apiVersion":"{group}/v1","kind":"Thing","metadata":{"name":"t"}}"#, 200),
    step("MERGE", BY_B, r#"{"metadata":{"finalizers":["a.io/b"]}}"#, 200),
    step("DELETE", THING, "", 200),
    step("MERGE", BY_B, r#"{"metadata":{"finalizers":null}}"#, 200),
    step("GET", THING, "", 404),
    step("GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/things.{group}", "", 200),
];
