//! Plays the cases that were recorded from kube-apiserver (`golden/*.json`, made by `tests/golden/kinds/generate`).

use std::collections::HashMap;

use serde_json::{Value, json};

use super::*;

const NOW: &str = "2026-01-01T00:00:00Z";

/// All addresses are free.
#[derive(Default)]
struct Free {
    node_ports: i64,
}

impl Addresses for Free {
    fn cluster_ip(&mut self, wanted: Option<&str>) -> Result<String, String> {
        match wanted {
            Some(ip) if !ip.starts_with("10.0.0.") => {
                Err("the provided network does not match the current range".to_owned())
            }
            _ => Ok("10.0.0.1".to_owned()),
        }
    }

    fn node_port(&mut self, _wanted: Option<i64>) -> Result<i64, String> {
        self.node_ports += 1;
        Ok(30_000 + self.node_ports)
    }
}

/// Cases the recorded order of which is that of a Go map, and changes from run to run.
const UNORDERED: [&str; 4] =
    ["configmap bad metadata", "configmap bad keys", "deployment bad template", "quantities refused"];

/// Answers that this server words otherwise, and why.
const DIFFERENT: [(&str, usize, &str); 3] = [
    ("job", 1, "the value of spec.template is printed as JSON of the internal type"),
    ("job update", 2, "the value of spec.template is printed as JSON of the internal type"),
    ("deployment types", 8, "quotes the bytes of the body"),
];

/// Answers that come from other parts of the server.
fn elsewhere(answer: &Value) -> bool {
    let cause = &answer["details"]["causes"][0];
    answer["code"] == 409
        || cause["field"] == "metadata.resourceVersion"
        || answer["message"].as_str().is_some_and(|text| text.contains("namespace sent on the request"))
}

fn causes(errors: &[FieldError]) -> Value {
    let cause = |error: &FieldError| {
        let text = error.to_string();
        json!({ "field": error.field, "reason": error.kind.reason(), "message": text[error.field.len() + 2..] })
    };
    errors.iter().map(cause).collect()
}

/// Texts or causes, whatever the order of them and of their fields.
fn sorted(values: &Value) -> Vec<String> {
    let text = |value: &Value| {
        format!("{} {} {} {}", value.as_str().unwrap_or_default(), value["field"], value["reason"], value["message"])
    };
    let mut texts: Vec<String> = values.as_array().into_iter().flatten().map(text).collect();
    texts.sort_unstable();
    texts
}

/// What was made, by path.
type Store = HashMap<String, Value>;

enum Outcome {
    Object(Value),
    Undecodable(String),
    Invalid(Vec<FieldError>),
    Refused(&'static str),
}

fn play(kind: &Kind, step: &Value, store: &mut Store, addresses: &mut Free) -> Outcome {
    let mut body: Value = step["body"].clone();
    if body["data"]["x"] == "$BIG" {
        body["data"]["x"] = "x".repeat((1 << 20) + 1).into();
    }
    let decoded = match decode(kind, body) {
        Ok(decoded) => decoded,
        Err(why) => return Outcome::Undecodable(why.to_string()),
    };
    let strict = step.get("fieldValidation").is_none_or(|validation| validation == "Strict");
    if strict && !decoded.strict.is_empty() {
        let why = format!("strict decoding error: {}", decoded.strict.join(", "));
        return Outcome::Undecodable(
            Undecodable { said: kind.kind.clone(), version: kind.version.clone(), kind: kind.kind.clone(), why }
                .to_string(),
        );
    }
    if step["fieldValidation"] == "Warn" {
        let warnings: Vec<String> = decoded.strict.iter().map(|text| format!("299 - {}", go_quoted(text))).collect();
        // In the order of the body there, in that of our maps here.
        assert_eq!(sorted(&json!(warnings)), sorted(&step["warnings"]));
    }
    let mut object = decoded.object;
    let path = format!("{}/{}", kind.plural, object["metadata"]["name"]);
    let old = if step["do"] == "create" { None } else { store.get(&path).cloned() };
    let metadata = object["metadata"].as_object_mut().unwrap();
    match &old {
        None => {
            metadata.insert("uid".to_owned(), "UID".into());
            metadata.insert("creationTimestamp".to_owned(), "CHANGES".into());
            metadata.remove("selfLink");
        }
        Some(old) => {
            for name in ["uid", "creationTimestamp"] {
                metadata.insert(name.to_owned(), old["metadata"][name].clone());
            }
        }
    }
    metadata.insert("resourceVersion".to_owned(), "CHANGES".into());
    metadata.remove("namespace");
    if kind.namespaced {
        metadata.insert("namespace".to_owned(), "golden".into());
    }
    let part = if step["do"] == "status" { Part::Status } else { Part::Main };
    default(kind, &mut object);
    let made = match &old {
        None => create(kind, &mut object, addresses, NOW),
        Some(old) => update(kind, &mut object, old, part, addresses),
    };
    if let Err(errors) = made {
        return Outcome::Invalid(errors);
    }
    let errors = validate(kind, &object, old.as_ref(), part);
    if !errors.is_empty() {
        return Outcome::Invalid(errors);
    }
    if let Some(why) = old.and_then(|old| refusal(kind, &object, &old)) {
        return Outcome::Refused(why);
    }
    store.insert(path, object.clone());
    Outcome::Object(object)
}

fn go_quoted(text: &str) -> String {
    crate::field_error::go_quote(text)
}

fn compare(name: &str, kind: &Kind, step: &Value, store: &mut Store, addresses: &mut Free) -> Result<(), String> {
    let answer = &step["answer"];
    let message = answer["message"].as_str().unwrap_or_default();
    match play(kind, step, store, addresses) {
        Outcome::Object(mut object) => {
            let mut expected = answer.clone();
            if object["status"]["conditions"][0]["reason"] == "SchedulingGated" {
                expected["status"]["conditions"][0]["lastTransitionTime"] = NOW.into();
            }
            if kind.plural == "customresourcedefinitions" {
                object.as_object_mut().unwrap().remove("status");
            }
            if kind.plural == "services" {
                for port in object["spec"]["ports"]
                    .as_array_mut()
                    .into_iter()
                    .flatten()
                    .filter(|port| !port["nodePort"].is_null())
                {
                    port["nodePort"] = 30_000.into();
                }
                if object["spec"]["ports"].is_null() {
                    object["spec"].as_object_mut().unwrap().remove("ports");
                }
                if object["spec"].get("healthCheckNodePort").is_some() {
                    object["spec"]["healthCheckNodePort"] = 30_000.into();
                }
            }
            if expected == object { Ok(()) } else { Err(format!("is\n{object:#}\nnot\n{expected:#}")) }
        }
        Outcome::Undecodable(why) => {
            // Unknown fields are named in the order of the body there, in that of our maps here.
            let parts = |text: &str| {
                let parts = text.split("unknown field ").map(|part| part.trim_end_matches(", ").to_owned());
                parts.collect::<std::collections::BTreeSet<String>>()
            };
            let same = answer["code"] == 400 && parts(&why) == parts(message);
            if same { Ok(()) } else { Err(format!("is\n400 {why}\nnot\n{answer}")) }
        }
        Outcome::Refused(why) => {
            let same = answer["code"] == 403 && message.ends_with(&format!("is forbidden: {why}"));
            if same { Ok(()) } else { Err(format!("is\n403 {why}\nnot\n{answer}")) }
        }
        Outcome::Invalid(errors) => {
            let ours = causes(&errors);
            // Go's picture of what differs between two structs isn't drawn here.
            let mut theirs = answer["details"]["causes"].clone();
            for cause in theirs.as_array_mut().into_iter().flatten() {
                cause["message"] = cause["message"].as_str().and_then(|text| text.split('\n').next()).into();
            }
            let same = ours == theirs || (UNORDERED.contains(&name) && sorted(&ours) == sorted(&theirs));
            if same { Ok(()) } else { Err(format!("is\n{ours:#}\nnot\n{theirs:#}")) }
        }
    }
}

#[test]
fn answers_are_the_real_server_s() {
    let files = [
        include_str!("golden/config.json"),
        include_str!("golden/net.json"),
        include_str!("golden/apps.json"),
        include_str!("golden/pods.json"),
        include_str!("golden/rbac.json"),
        include_str!("golden/updates.json"),
        include_str!("golden/templates.json"),
    ];
    let mut faults = Vec::new();
    let mut steps = 0;
    for file in files {
        let cases: serde_json::Map<String, Value> = serde_json::from_str(file).unwrap();
        for (name, case) in &cases {
            let (mut store, mut addresses) = (Store::new(), Free::default());
            for (i, step) in case.as_array().unwrap().iter().enumerate() {
                let (api_version, plural) = step["resource"].as_str().unwrap().split_once(' ').unwrap();
                let kind =
                    all().iter().find(|kind| kind.plural == plural && kind.api_version() == api_version).unwrap();
                steps += 1;
                let different = DIFFERENT.iter().any(|(case, at, _)| case == name && *at == i);
                if elsewhere(&step["answer"]) || different {
                    continue;
                }
                if let Err(fault) = compare(name, kind, step, &mut store, &mut addresses) {
                    faults.push(format!("{name} [{i}]: {fault}"));
                }
            }
        }
    }
    assert!(steps > 200);
    assert!(faults.is_empty(), "{} of {steps}\n{}", faults.len(), faults.join("\n\n"));
}

#[test]
fn all_kinds_have_what_discovery_tables_and_kubectl_need() {
    assert_eq!((all().len(), generated_from()), (24, "v1.36.3"));
    for kind in all() {
        assert!(!kind.columns.is_empty() && !kind.verbs.is_empty(), "{}", kind.kind);
        let schema = component(kind).unwrap();
        assert!(schema["properties"]["metadata"].is_object(), "{}", kind.kind);
        let document = openapi_v3_parsed(&kind.api_version()).unwrap();
        let gv = kind.api_version();
        let root = if kind.group.is_empty() { format!("/api/{gv}") } else { format!("/apis/{gv}") };
        let scope = if kind.namespaced { "/namespaces/{namespace}" } else { "" };
        let path = &document["paths"][format!("{root}{scope}/{}/{{name}}", kind.plural)];
        let parameters = path["patch"]["parameters"].as_array().unwrap();
        assert!(parameters.iter().any(|parameter| parameter["name"] == "fieldValidation"), "{}", kind.kind);
        // No reference leads nowhere.
        let text = std::str::from_utf8(openapi_v3(&gv).unwrap()).unwrap();
        for reference in text.split("#/components/schemas/").skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(document["components"]["schemas"][name].is_object(), "{name}");
        }
    }
    assert_eq!(find("apps", "v1", "deployments").unwrap().short_names, ["deploy"]);
    assert!(find("apps", "v1", "deployments").unwrap().has("scale"));
}
