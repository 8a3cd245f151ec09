//! Golden tests of patches. golden.json is written by tests/golden/strategic from the libraries that the real server
//! v1.36.3 patches with and from its OpenAPI documents; main.go there says how. The answers of the server itself to
//! malformed patches were taken from a running kube-apiserver v1.36.3.

use std::sync::LazyLock;

use serde_json::{Value, json};

use super::*;

static GOLDEN: LazyLock<Value> = LazyLock::new(|| serde_json::from_str(include_str!("golden.json")).unwrap());

/// Compares each case; `apply` is given the case. A Go panic (code 0) has to be a 500 here.
fn compare(list: &str, apply: impl Fn(&Value) -> Result<Value, Error>) {
    let mut wrong = Vec::new();
    let cases = GOLDEN[list].as_array().unwrap();
    for case in cases {
        let answer = apply(case);
        let right = match (&answer, case["code"].as_u64()) {
            (Ok(result), None) => as_go(result) == as_go(&case["result"]),
            (Err(error), Some(0)) => error.code == 500,
            (Err(error), Some(422)) => *error == unprocessable(),
            (Err(error), Some(code)) => u64::from(error.code) == code && case["error"] == error.message,
            _ => false,
        };
        if !right {
            wrong.push(format!("{}\n  wanted {}{}\n  got    {answer:?}", case["patch"], case["result"], case["error"]));
        }
    }
    assert!(wrong.is_empty(), "{} of {} differ:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
}

/// The value after Go has written it: 1.0 is 1.
fn as_go(value: &Value) -> Value {
    serde_json::from_str(&gotext::json(value)).unwrap()
}

fn tree(kind: &str) -> MergeTree {
    MergeTree::compile(&GOLDEN["schemas"], GOLDEN["kinds"][kind]["schema"].as_str().unwrap()).unwrap()
}

#[test]
fn strategic_merge_patches_are_as_apimachinery_s() {
    compare("strategic", |case| {
        let kind = case["kind"].as_str().unwrap();
        strategic(GOLDEN["originals"][kind].clone(), &case["patch"], &tree(kind))
    });
}

#[test]
fn json_patches_are_as_evanphx_s() {
    // The patch is text in the golden file: how a scalar is written matters.
    let text = include_str!("golden.json");
    let raw: std::collections::BTreeMap<String, &serde_json::value::RawValue> = serde_json::from_str(text).unwrap();
    let list: Vec<std::collections::BTreeMap<String, &serde_json::value::RawValue>> =
        serde_json::from_str(raw["json"].get()).unwrap();
    let mut at = std::cell::Cell::new(0);
    compare("json", |case| {
        let patch = list[at.get()]["patch"].get();
        at.set(at.get() + 1);
        json_patch(case["doc"].clone(), patch.as_bytes())
    });
    assert_eq!(*at.get_mut(), list.len());
}

#[test]
fn merge_patches_are_as_evanphx_s() {
    compare("merge", |case| Ok(merge_patch(case["doc"].clone(), &case["patch"])));
}

#[test]
fn malformed_json_is_told_in_go_s_words() {
    for case in GOLDEN["syntax"].as_array().unwrap() {
        let text = case[0].as_str().unwrap();
        assert_eq!(syntax_error(text.as_bytes()).as_deref(), case[1].as_str(), "{text}");
    }
    for text in ["{}", " [1, -0.5e+3, \"\\u00e9\\n\", true, false, null] ", "{\"a\": {\"b\": []}}", "0"] {
        assert_eq!(syntax_error(text.as_bytes()), None, "{text}");
    }
}

#[test]
fn malformed_patches_are_bad_requests() {
    let object = json!({ "data": { "a": "1" } });
    let refused = |patch: &str| json_patch(object.clone(), patch.as_bytes()).unwrap_err();
    for (patch, message) in [
        ("{}", "json: cannot unmarshal object into Go value of type []handlers.jsonPatchOp"),
        ("\"x\"", "json: cannot unmarshal string into Go value of type []handlers.jsonPatchOp"),
        ("[1]", "json: cannot unmarshal number into Go value of type handlers.jsonPatchOp"),
        ("[{\"op\":1}]", "json: cannot unmarshal number into Go struct field jsonPatchOp.op of type string"),
        ("not", "invalid character 'o' in literal null (expecting 'u')"),
        ("", "unexpected end of JSON input"),
    ] {
        assert_eq!(refused(patch), Error::bad_request(format!("error decoding patch: {message}")), "{patch}");
    }
    for (body, message) in [
        ("[]", "error decoding patch: json: cannot unmarshal array into Go value of type map[string]interface {}"),
        ("null", "Invalid JSON Patch"),
        ("", "error decoding patch: unexpected end of JSON input"),
    ] {
        assert_eq!(merge_body(body.as_bytes()).unwrap_err(), Error::bad_request(message));
    }
    let message = "json: cannot unmarshal number into Go value of type map[string]interface {}";
    assert_eq!(strategic_body(b"1").unwrap_err(), Error::bad_request(message));
    assert_eq!(strategic_body(b"null").unwrap(), json!({}));
    assert_eq!(merge_body(b"{\"a\":null}").unwrap(), json!({ "a": null }));
}

#[test]
fn json_patches_are_bounded() {
    let object = json!({ "a": "1" });
    let many = |count| serde_json::to_vec(&vec![json!({ "op": "test", "path": "/a", "value": "1" }); count]).unwrap();
    assert_eq!(json_patch(object.clone(), &many(OPERATIONS_LIMIT)).unwrap(), object);
    let error = json_patch(object, &many(OPERATIONS_LIMIT + 1)).unwrap_err();
    assert_eq!((error.code, &*error.reason), (413, "RequestEntityTooLarge"));
    assert!(error.message.ends_with("is 10000, got 10001"), "{}", error.message);

    // Each copy doubles what the next one copies.
    let copies = |count: usize| -> Vec<Value> {
        let copy = |at| json!({ "op": "copy", "from": "/a", "path": format!("/a/{at}") });
        (0..count).map(copy).collect()
    };
    let object = json!({ "a": { "text": "x".repeat(1000) } });
    let patch = |count| serde_json::to_vec(&copies(count)).unwrap();
    assert!(json_patch(object.clone(), &patch(11)).is_ok());
    assert_eq!(json_patch(object, &patch(12)).unwrap_err(), unprocessable());
}

#[test]
fn a_failed_operation_tells_as_much_as_the_real_server() {
    let patch = br#"[{"op":"test","path":"/a","value":"2"}]"#;
    let status = json_patch(json!({ "a": "1" }), patch).unwrap_err().status();
    assert_eq!(status["message"], "the server rejected our request due to an error in our request");
    assert_eq!((&status["reason"], &status["code"], &status["details"]), (&json!("Invalid"), &json!(422), &json!({})));
}

#[test]
fn a_missing_schema_is_named() {
    let schemas = json!({ "A": { "properties": { "b": { "$ref": "#/components/schemas/B" } } } });
    assert_eq!(MergeTree::compile(&schemas, "A").unwrap_err(), MissingSchema("B".to_owned()));
    assert_eq!(MergeTree::compile(&schemas, "C").unwrap_err(), MissingSchema("C".to_owned()));
}

#[test]
fn types_may_hold_themselves_and_maps_hold_no_types() {
    let props = json!({ "type": "object", "properties": {
        "not": { "$ref": "#/components/schemas/io.x.Props" },
        "properties": { "type": "object", "additionalProperties": { "$ref": "#/components/schemas/io.x.Props" } },
        "type": { "type": "string" },
    } });
    let tree = MergeTree::compile(&json!({ "io.x.Props": props }), "io.x.Props").unwrap();
    let object = json!({ "not": { "not": { "type": "a" } }, "properties": { "p": { "type": "b" } } });
    let patch = json!({ "not": { "not": { "not": { "type": "c" } } } });
    let result = strategic(object.clone(), &patch, &tree).unwrap();
    assert_eq!(result["not"]["not"], json!({ "type": "a", "not": { "type": "c" } }));
    let error = strategic(object.clone(), &json!({ "properties": { "p": { "type": "c" } } }), &tree).unwrap_err();
    assert_eq!(error.message, "merging an object in json but data type is not struct, instead is: map");
    let error = strategic(object, &json!({ "not": { "$setElementOrder/x": [] } }), &tree).unwrap_err();
    assert_eq!(error.message, "unable to find api field in struct Props for the json field \"x\"");
}
