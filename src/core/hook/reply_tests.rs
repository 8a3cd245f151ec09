//! What replies are read as, one by one, and whatever they are made of.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::dialect::METACONTROLLER;

fn parse(body: &str, strict: bool) -> Result<SyncReply, Error> {
    SyncReply::parse(body.as_bytes(), Limits::default(), strict, &METACONTROLLER)
}

fn fails(body: &str) -> String {
    parse(body, true).unwrap_err().to_string()
}

#[test]
fn reads_what_the_contract_allows() {
    let body = r#"{"status":{"a":1},"children":[{"apiVersion":"v1","kind":"Pod","metadata":{"name":"x","namespace":"n"}}],
        "resyncAfterSeconds":2.5,"finalized":false}"#;
    let reply = parse(body, true).unwrap();
    assert_eq!(reply.status.unwrap().get(), r#"{"a":1}"#);
    assert_eq!(reply.resync_after, Some(Duration::from_millis(2500)));
    let child = &reply.children[0];
    assert_eq!((&*child.api_version, &*child.kind, &*child.namespace, &*child.name), ("v1", "Pod", "n", "x"));
    for empty in ["{}", r#"{"status":null,"children":null,"resyncAfterSeconds":0}"#] {
        let reply = parse(empty, true).unwrap();
        assert!(reply.status.is_none() && reply.children.is_empty() && reply.resync_after.is_none());
    }
    assert_eq!(parse(r#"{"resyncAfterSeconds":1e300}"#, true).unwrap().resync_after, Some(MAX_RESYNC_AFTER));
    assert_eq!(parse(r#"{"resyncAfterSeconds":1e-9}"#, true).unwrap().resync_after, Some(MIN_RESYNC_AFTER));
    assert_eq!(parse(r#"{"resyncAfterSeconds":-3}"#, true).unwrap().resync_after, None);
}

#[test]
fn errors_name_the_field() {
    assert!(fails("").contains("empty") && fails(" \n").contains("empty"));
    assert!(fails("<html>").contains("not JSON"));
    assert!(fails("[]").contains("expected a JSON object"));
    assert!(fails(r#"{"status":[]}"#).contains("status: must be an object"));
    assert!(fails(r#"{"children":{}}"#).contains("children:"));
    assert!(fails(r#"{"children":[null]}"#).contains("children[0]: must be a JSON object"));
    assert!(fails(r#"{"children":[{"kind":"Pod","metadata":{"name":"x"}}]}"#).contains("children[0]: apiVersion"));
    assert!(fails(r#"{"children":[{"apiVersion":"v1","kind":"Pod"}]}"#).contains("children[0]: metadata.name"));
    assert!(fails(r#"{"resyncAfterSeconds":"soon"}"#).contains("resyncAfterSeconds"));
    assert!(fails("{\"status\":{\"a\":\"\u{1}\"}}").contains("not JSON"));
    // JavaScript and Python write a cut surrogate pair like this. A tree can't hold it: the child would be empty.
    for bad in [r#""\ud800""#, "1e999"] {
        let child = format!(r#"{{"apiVersion":"v1","kind":"P","metadata":{{"name":"x"}},"data":{{"a":[{bad}]}}}}"#);
        assert!(fails(&format!(r#"{{"children":[{child}]}}"#)).contains("children[0]: "), "{bad}");
        assert!(fails(&format!(r#"{{"status":{{"a":{bad}}}}}"#)).contains("status: "), "{bad}");
    }
    assert!(
        SyncReply::parse(b"{\"a\":\"\xff\"}", Limits::default(), true, &METACONTROLLER)
            .unwrap_err()
            .to_string()
            .contains("UTF-8")
    );
}

#[test]
fn errors_repeat_little_of_a_reply() {
    let long = "x".repeat(100_000);
    for body in [
        format!(r#"{{"resyncAfterSeconds":"{long}"}}"#),
        format!(r#"{{"status":"{long}"}}"#),
        format!(r#"{{"{long}":1}}"#),
        format!(r#"{{"children":[{{"apiVersion":"v1","kind":"P","metadata":"{long}"}}]}}"#),
    ] {
        let text = fails(&body);
        assert!(text.len() < 400, "{} bytes", text.len());
    }
}

#[test]
fn strict_refuses_what_loose_remarks_on() {
    assert_eq!(
        fails(r#"{"stauts":{}}"#),
        Error::Unknown { name: "stauts".into(), known: "status, children, resyncAfterSeconds and finalized" }
            .to_string()
    );
    assert_eq!(fails(r#"{"children":[],"children":[]}"#), Error::Duplicate("children".into()).to_string());
    let reply = parse(r#"{"stauts":{},"status":{"a":1},"status":{"a":2}}"#, false).unwrap();
    assert_eq!(reply.status.unwrap().get(), r#"{"a":2}"#);
    assert_eq!(reply.remarks.len(), 2);
}

#[test]
fn fields_of_a_child_are_named_when_they_are_wrong() {
    let child = |child: &str| fails(&format!(r#"{{"children":[{child}]}}"#));
    for (bad, field) in [
        (r#"{"apiVersion":1,"kind":"P","metadata":{"name":"x"}}"#, "apiVersion: invalid type"),
        (r#"{"apiVersion":"v1","kind":[],"metadata":{"name":"x"}}"#, "kind: invalid type"),
        (r#"{"apiVersion":"v1","kind":"P","metadata":[]}"#, "metadata: invalid type"),
        (r#"{"apiVersion":"v1","kind":"P","metadata":{"name":7}}"#, "metadata.name: invalid type"),
        (
            r#"{"apiVersion":"v1","kind":"P","metadata":{"name":"x","namespace":{}}}"#,
            "metadata.namespace: invalid type",
        ),
        (r#"{"apiVersion":"v1","kind":"P","metadata":{"name":""}}"#, "metadata.name is missing"),
        (r#"{"apiVersion":"v1","kind":"P","metadata":{"generateName":"x"}}"#, "generateName"),
        (r#"{"apiVersion":"v1","kind":"P","metadata":null}"#, "metadata.name is missing"),
    ] {
        assert!(
            child(bad).starts_with(&format!(
                "children[0]: {}",
                if field == "generateName" { "metadata.name" } else { field }
            )),
            "{}",
            child(bad)
        );
        assert!(child(bad).contains(field), "{}", child(bad));
    }
}

#[test]
fn fields_that_stand_twice_anywhere_are_refused_if_strict() {
    let body = r#"{"children":[{"apiVersion":"v1","kind":"P","metadata":{"name":"x"},"data":{"k":"1","k":"2"}}]}"#;
    assert!(fails(body).contains("children[0]: k stands twice"), "{}", fails(body));
    let twice = r#"{"children":[{"apiVersion":"v1","kind":"P","kind":"Q","metadata":{"name":"x"}}]}"#;
    assert!(fails(twice).contains("children[0]: kind stands twice"), "{}", fails(twice));
    assert_eq!(parse(twice, false).unwrap().children[0].kind, "Q");
    assert!(fails(r#"{"status":{"a":[{"b":1,"b":1}]}}"#).contains("status: b stands twice"));
    assert!(parse(body, false).is_ok());
}

#[test]
fn limits_hold_at_their_edge() {
    let limits = Limits { body_bytes: 1000, children: 2, depth: 4 };
    let child = r#"{"apiVersion":"v1","kind":"P","metadata":{"name":"x"}}"#;
    let two = format!(r#"{{"children":[{child},{child}]}}"#);
    assert_eq!(SyncReply::parse(two.as_bytes(), limits, true, &METACONTROLLER).unwrap().children.len(), 2);
    let three = format!(r#"{{"children":[{child},{child},{child}]}}"#);
    assert_eq!(
        SyncReply::parse(three.as_bytes(), limits, true, &METACONTROLLER).unwrap_err(),
        Error::Children { count: 3, limit: 2 }
    );
    let deep = r#"{"status":{"a":{"b":{"c":{}}}}}"#;
    assert_eq!(
        SyncReply::parse(deep.as_bytes(), limits, true, &METACONTROLLER).unwrap_err(),
        Error::Depth { limit: 4 }
    );
    let brackets_in_text = r#"{"status":{"a":"{{{{[[[[\"{{{{"}}"#;
    assert!(SyncReply::parse(brackets_in_text.as_bytes(), limits, true, &METACONTROLLER).is_ok());
    let large = format!(r#"{{"status":{{"a":"{}"}}}}"#, "x".repeat(1000));
    assert_eq!(
        SyncReply::parse(large.as_bytes(), limits, true, &METACONTROLLER).unwrap_err(),
        Error::Body { limit: 1000 }
    );
    let very_deep = "[".repeat(1_000_000);
    assert_eq!(
        SyncReply::parse(very_deep.as_bytes(), Limits::default(), true, &METACONTROLLER).unwrap_err(),
        Error::Depth { limit: 64 }
    );
}

/// Any small value, and now and then a field that stands for something.
fn value() -> impl Strategy<Value = Value> {
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        ".{0,6}".prop_map(Value::from),
    ];
    scalar.prop_recursive(3, 12, 3, |inner| {
        let field = prop_oneof!["[a-c]", Just("name".to_owned()), Just("metadata".to_owned())];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..3).prop_map(Value::Array),
            prop::collection::btree_map(field, inner, 0..4).prop_map(|fields| fields.into_iter().collect()),
        ]
    })
}

proptest! {
    #[test]
    fn a_good_reply_reads_as_it_was_meant(
        status in prop::collection::btree_map("[a-z]{1,3}", value(), 0..4),
        children in prop::collection::vec(("[a-z]{1,5}", prop::option::of("[a-z]{1,5}"), value()), 0..5),
        seconds in prop::option::of(0.1..1e7f64),
    ) {
        let child = |(name, namespace, spec): &(String, Option<String>, Value)| {
            json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace}, "spec": spec})
        };
        let list: Vec<Value> = children.iter().map(child).collect();
        let body = json!({"status": status, "children": list, "resyncAfterSeconds": seconds}).to_string();
        let reply = parse(&body, true).unwrap();
        let tree = |raw: &RawValue| serde_json::from_str::<Value>(raw.get()).unwrap();
        prop_assert_eq!(tree(&reply.status.unwrap()), json!(status));
        prop_assert_eq!(reply.children.len(), list.len());
        for (read, (meant, (name, namespace, _))) in reply.children.iter().zip(list.iter().zip(&children)) {
            prop_assert_eq!((&tree(&read.json), &read.name), (meant, name));
            prop_assert_eq!(Some(&read.namespace).filter(|namespace| !namespace.is_empty()), namespace.as_ref());
        }
        prop_assert_eq!(reply.resync_after, seconds.map(Duration::from_secs_f64));
        // One that breaks off is never taken for whole.
        prop_assert!(parse(&body[..body.len() - 1], false).is_err());
    }

    #[test]
    fn what_reads_strictly_reads_loosely_too(fields in prop::collection::vec((0..6usize, value()), 0..5)) {
        const NAMES: [&str; 6] = ["status", "children", "resyncAfterSeconds", "finalized", "x", "y"];
        let fields: Vec<String> = fields.iter().map(|(name, value)| format!(r#""{}":{value}"#, NAMES[*name])).collect();
        let body = format!("{{{}}}", fields.join(","));
        let (strict, loose) = (parse(&body, true), parse(&body, false));
        match (&strict, &loose) {
            (Ok(strict), Ok(loose)) => {
                prop_assert!(strict.remarks.is_empty() && loose.remarks.is_empty());
                prop_assert_eq!((strict.children.len(), strict.resync_after), (loose.children.len(), loose.resync_after));
            }
            (Err(Error::Unknown { .. } | Error::Duplicate(_)), Ok(loose)) => prop_assert!(!loose.remarks.is_empty()),
            (Err(_), Err(_)) => {}
            _ => prop_assert!(false, "{strict:?} {loose:?} {body}"),
        }
    }

    #[test]
    fn any_bytes_are_read_or_refused(body in prop::collection::vec(any::<u8>(), 0..40), strict in any::<bool>()) {
        if SyncReply::parse(&body, Limits::default(), strict, &METACONTROLLER).is_ok() {
            prop_assert_eq!(body.trim_ascii().first(), Some(&b'{'));
        }
    }
}
