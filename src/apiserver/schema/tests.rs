//! Compares with what kube-apiserver answered; `golden.json` names its version.
//!
//! An object passes all steps as in a create or an update; of faults in several fields the real server's order is
//! random, so those are compared sorted.

use serde_json::{Value, json};

use super::{Schema, normalize_numbers};
use crate::field_error::FieldError;

const GOLDEN: &str = include_str!("golden.json");
const PATH: &str = "spec.validation.openAPIV3Schema";

fn golden() -> Value {
    serde_json::from_str(GOLDEN).unwrap()
}

fn object(kind: &str, body: &Value) -> Value {
    let mut object = json!({ "apiVersion": "golden.example.com/v1", "kind": kind, "metadata": { "name": "x" } });
    for (name, value) in body.as_object().unwrap() {
        object[name] = value.clone();
    }
    object
}

fn causes(errors: &[FieldError]) -> Vec<(String, String, String)> {
    errors
        .iter()
        .map(|error| {
            let text = error.to_string();
            let message = text.strip_prefix(&format!("{}: ", error.field)).unwrap().to_owned();
            (error.kind.reason().to_owned(), error.field.clone(), message)
        })
        .collect()
}

fn wanted(case: &Value) -> Vec<(String, String, String)> {
    let text = |cause: &Value, name: &str| cause[name].as_str().unwrap_or_default().to_owned();
    let causes = case["causes"].as_array().map(Vec::as_slice).unwrap_or_default();
    causes.iter().map(|cause| (text(cause, "reason"), text(cause, "field"), text(cause, "message"))).collect()
}

fn sorted<T: Ord + Clone>(list: &[T]) -> Vec<T> {
    let mut list = list.to_vec();
    list.sort();
    list
}

fn differs(got: &[FieldError], case: &Value) -> Option<String> {
    let (got, wanted) = (causes(got), wanted(case));
    let same = if case["ordered"] == true { got == wanted } else { sorted(&got) == sorted(&wanted) };
    (!same).then(|| format!("got    {got:#?}\nwanted {wanted:#?}"))
}

fn report(failures: &[String], count: usize) {
    assert!(failures.is_empty(), "{} of {count} differ:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn objects_are_judged_like_the_real_server_does() {
    let mut failures = Vec::new();
    let mut count = 0;
    for crd in golden()["crds"].as_array().unwrap() {
        let plural = crd["plural"].as_str().unwrap();
        let schema = match Schema::compile(&crd["schema"], PATH, false) {
            Ok(schema) => schema,
            Err(errors) => {
                failures.push(format!("{plural}: {:#?}", causes(&errors)));
                continue;
            }
        };
        let kind = plural[..1].to_uppercase() + &plural[1..];
        for case in crd["cases"].as_array().unwrap() {
            count += 1;
            let name = case["name"].as_str().unwrap();
            let mut fail = |why: String| failures.push(format!("{plural}: {name}: {why}"));
            let mut new = object(&kind, &case["object"]);
            let prefix = format!("{kind} in version \"v1\" cannot be handled as a {kind}: ");
            if let Err(why) = schema.decodable(&new) {
                if case["message"] != format!("{prefix}{why}") {
                    fail(format!("not decodable: {why}"));
                }
                continue;
            }
            let unknown = schema.prune(&mut new);
            schema.default(&mut new);
            let old = case.get("old").map(|old| object(&kind, old));
            let errors = schema.validate(&new, old.as_ref());
            if let Some(why) = differs(&errors, case) {
                fail(why);
            } else if let Some(result) = case.get("result") {
                normalize_numbers(&mut new);
                let fields = new.as_object_mut().unwrap();
                ["apiVersion", "kind", "metadata"].into_iter().for_each(|name| {
                    fields.remove(name);
                });
                if new != *result {
                    fail(format!("got {new}\nwanted {result}"));
                }
                let unknown: Vec<String> = unknown.iter().map(|path| format!("unknown field \"{path}\"")).collect();
                let strict = format!("{prefix}strict decoding error: {}", unknown.join(", "));
                let wanted = case["strict"].as_str().unwrap_or_default();
                if !(unknown.is_empty() && wanted.is_empty()) && strict != wanted {
                    fail(format!("got {strict}\nwanted {wanted}"));
                }
            } else if case["code"] != 422 {
                fail("should not be decodable".to_owned());
            }
        }
    }
    assert!(count > 350, "{count} cases only");
    report(&failures, count);
}

/// What the real server finds by estimating costs, which isn't done here.
const COST_CASES: [&str; 1] = ["cost"];

#[test]
fn schemas_are_refused_like_the_real_server_does() {
    let golden = golden();
    let cases = golden["bad_schemas"].as_array().unwrap();
    let mut failures = Vec::new();
    for case in cases {
        let name = case["name"].as_str().unwrap();
        if COST_CASES.contains(&name) {
            continue;
        }
        let errors = Schema::compile(&case["schema"], PATH, case["status"] == true).err().unwrap_or_default();
        if let Some(why) = differs(&errors, case) {
            failures.push(format!("{name}: {why}"));
        }
    }
    report(&failures, cases.len());
}

/// Refused with other words, or refused there and not here: the parser expands `existsOne` of one variable, the places
/// of literals aren't known, and the type of an object has no name.
const OTHER_WORDS: [&str; 3] = ["self.l.existsOne(x, x == 2)", "[1, \"a\"].size() == 2", "self[\"i\"] == 1"];

#[test]
fn rules_are_judged_like_the_real_server_does() {
    let golden = golden();
    let rules = &golden["rules"];
    let mut failures = Vec::new();
    let cases = rules["list"].as_array().unwrap();
    for case in cases {
        let rule = case["rule"].as_str().unwrap();
        let spec =
            json!({ "type": "object", "properties": rules["schema"], "x-kubernetes-validations": [{ "rule": rule }] });
        let schema = Schema::compile(&json!({ "type": "object", "properties": { "spec": spec } }), PATH, false);
        let got = match schema {
            Err(errors) => json!({ "refused": errors.iter().map(|e| e.detail.clone()).collect::<Vec<_>>().join("\n") }),
            Ok(schema) => {
                let errors = schema.validate(&json!({ "spec": rules["object"] }), None);
                let texts: Vec<String> = causes(&errors).into_iter().map(|(_, _, message)| message).collect();
                json!({ "result": texts.join("\n") })
            }
        };
        let same = ["refused", "result"].iter().all(|name| got.get(name) == case.get(name));
        if !same && !OTHER_WORDS.contains(&rule) {
            failures.push(format!("{rule}\n  got {got}\n  wanted {} {}", case["refused"], case["result"]));
        }
    }
    report(&failures, cases.len());
}

#[test]
fn metadata_is_decoded_like_the_real_server_does() {
    let embedded = json!({ "type": "object", "x-kubernetes-embedded-resource": true, "x-kubernetes-preserve-unknown-fields": true });
    let schema = json!({ "type": "object", "properties": { "e": embedded } });
    let schema = Schema::compile(&schema, PATH, false).unwrap();
    let golden = golden();
    let cases = golden["metadata"].as_array().unwrap();
    let mut failures = Vec::new();
    for case in cases {
        let mut new = object("Metas", &case["object"]);
        let got = match schema.decodable(&new) {
            Ok(()) => json!({}),
            Err(why) => json!({ "message": format!("Metas in version \"v1\" cannot be handled as a Metas: {why}") }),
        };
        let wanted = match case.get("message") {
            Some(message) => json!({ "message": message }),
            None => json!({}),
        };
        if got != wanted {
            failures.push(format!("{}: got {got}\nwanted {wanted}", case["object"]));
        } else if let Some(result) = case.get("result") {
            schema.prune(&mut new);
            for name in ["e", "metadata"] {
                if let Some(wanted) = result.get(name)
                    && new[name] != *wanted
                {
                    failures.push(format!("{}: got {}\nwanted {wanted}", case["object"], new[name]));
                }
            }
        }
    }
    report(&failures, cases.len());
}

#[test]
fn status_is_validated_alone_but_for_rules() {
    let schema = json!({ "type": "object", "properties": {
        "spec": { "type": "object", "properties": { "n": { "type": "integer" } } },
        "status": { "type": "object", "properties": { "n": { "type": "integer" } },
            "x-kubernetes-validations": [{ "rule": "!has(self.n) || self.n > 0", "message": "positive" }] },
    } });
    let schema = Schema::compile(&schema, PATH, true).unwrap();
    let old = json!({ "spec": { "n": "bad" }, "status": {} });
    let new = |n: Value| json!({ "spec": { "n": "bad" }, "status": { "n": n } });
    let texts =
        |n: Value| -> Vec<String> { schema.validate_status(&new(n), &old).iter().map(ToString::to_string).collect() };
    assert!(texts(json!(1)).is_empty());
    assert_eq!(texts(json!(0)), ["status: Invalid value: positive"]);
    assert_eq!(
        texts(json!("a"))[0],
        "status.n: Invalid value: \"string\": n in body must be of type integer: \"string\""
    );
}

#[test]
fn rules_that_cost_too_much_or_are_unknown_are_faults() {
    let list = json!({ "type": "array", "items": { "type": "integer" }, "x-kubernetes-validations": [
        { "rule": "self.all(a, self.all(b, self.all(c, a + b + c < 0 || true)))" }, { "rule": "false" }] });
    let schema = json!({ "type": "object", "properties": { "l": list } });
    let schema = Schema::compile(&schema, PATH, false).unwrap();
    let items: Vec<i64> = (0..200).collect();
    let errors = schema.validate(&json!({ "l": items }), None);
    assert_eq!(errors.len(), 1, "{errors:?}");
    assert!(errors[0].detail.starts_with("'operation cancelled: actual cost limit exceeded'"));
}

#[test]
fn long_rules_need_little_stack() {
    for terms in [150, 2_000] {
        let rule = format!("self == {}", vec!["1"; terms].join(" + "));
        let n = json!({ "type": "integer", "x-kubernetes-validations": [{ "rule": rule }] });
        let schema = Schema::compile(&json!({ "type": "object", "properties": { "n": n } }), PATH, false);
        let errors = match schema {
            Ok(schema) => schema.validate(&json!({ "n": terms }), None),
            Err(errors) => errors,
        };
        // The longer one is beyond what is evaluated, and says so.
        assert_eq!(errors.is_empty(), terms == 150, "{errors:?}");
    }
}
