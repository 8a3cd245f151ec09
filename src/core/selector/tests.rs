//! Tables of what Kubernetes accepts, refuses and matches, and properties against a plain evaluation.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn parse(text: &str) -> Selector {
    Selector::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect()
}

#[test]
fn text_becomes_canonical() {
    for (text, canonical) in [
        ("", ""),
        (" \t", ""),
        ("a=b,c==d,e!=f,g in (x,y),h notin (z),i,!j", "a=b,c=d,e!=f,g in (x,y),h!=z,i,!j"),
        ("b=1,a=2", "a=2,b=1"),
        (" a = b , ! c ", "a=b,!c"),
        ("a in (z, y ,z)", "a in (y,z)"),
        ("a in(x)", "a=x"),
        ("a notin(x,y)", "a notin (x,y)"),
        ("a=", "a="),
        ("a=,b", "a=,b"),
        ("a!=", "a!="),
        ("a in ()", "a="),
        ("a in (,x)", "a in (,x)"),
        ("a in (x,)", "a in (,x)"),
        ("a in (x,,y)", "a in (,x,y)"),
        ("in in (in,notin)", "in in (in,notin)"),
        ("notin=in", "notin=in"),
        ("in", "in"),
        ("a=b,a=b", "a=b"),
        ("a=b,a=c", "a=b,a=c"),
        ("example.com/a-b_c.d=E", "example.com/a-b_c.d=E"),
        ("shard.ringmaster.dev/self notin (0,1,10,2)", "shard.ringmaster.dev/self notin (0,1,10,2)"),
    ] {
        assert_eq!(parse(text).to_string(), canonical, "{text:?}");
        assert_eq!(parse(canonical), parse(text), "{text:?}");
    }
}

#[test]
fn bad_text_names_the_part_and_its_place() {
    let long = "x".repeat(64);
    let prefix = format!("{}/a", "x".repeat(254));
    for (text, position, part) in [
        (",a", 1, "found ',', expected a label key"),
        ("a,", 3, "the text ends where a label key must follow"),
        ("a,,b", 3, "found ',', expected a label key"),
        ("!", 2, "the text ends where a label key"),
        ("!!a", 2, "found '!', expected a label key"),
        ("=a", 1, "found '=', expected a label key"),
        ("a b", 3, "found \"b\", expected one of =, ==, !=, in, notin"),
        ("a=b c", 5, "found \"c\", expected a comma or the end"),
        ("a===b", 4, "found '=', expected a comma or the end"),
        ("a=!b", 3, "found '!', expected a comma or the end"),
        ("!a=b", 3, "found '=', expected a comma or the end"),
        ("a>1", 2, "'>' is not supported; use one of"),
        ("a<1", 2, "'<' is not supported; use one of"),
        ("a in", 5, "the text ends where an opening parenthesis"),
        ("a in b", 6, "found \"b\", expected an opening parenthesis"),
        ("a in (b", 8, "the text ends where a comma or a closing parenthesis"),
        ("a in (b c)", 9, "found \"c\", expected a comma or a closing parenthesis"),
        ("a in ((b))", 7, "found '(', expected a comma or a closing"),
        ("a in (b))", 9, "found ')', expected a comma or the end"),
        ("a IN (b)", 3, "found \"IN\", expected one of"),
        ("b, é=x", 4, "key \"é\""),
        ("/a=x", 1, "DNS subdomain"),
        ("A.b/a=x", 1, "DNS subdomain"),
        ("a.-b/c", 1, "DNS subdomain"),
        ("a-.b/c", 1, "DNS subdomain"),
        ("a..b/c", 1, "DNS subdomain"),
        ("a/b/c=x", 1, "key \"a/b/c\": the name"),
        ("a/=x", 1, "key \"a/\": the name"),
        ("-a=x", 1, "key \"-a\""),
        ("a=x-", 3, "value \"x-\""),
        ("a in (ok,b/c)", 10, "value \"b/c\""),
        (long.as_str(), 1, "1 to 63 letters"),
        (prefix.as_str(), 1, "at most 253"),
    ] {
        let error = Selector::parse(text).expect_err(text);
        let Error::Text { position: at, problem } = &error else { panic!("{text:?}: {error}") };
        assert_eq!(*at, position, "{text:?}: {error}");
        assert!(problem.contains(part), "{text:?}: {error}");
        assert!(problem.len() < 400, "{text:?}: {error}");
    }
}

#[test]
fn limits_are_limits() {
    let name = "x".repeat(MAX_NAME_BYTES);
    let long = format!("{}/{name}={name}", "x".repeat(MAX_PREFIX_BYTES));
    assert_eq!(parse(&long).to_string(), long);

    let list = |count: usize| (0..count).map(|n| format!("k{n}")).collect::<Vec<_>>();
    assert!(Selector::parse(&list(MAX_REQUIREMENTS).join(",")).is_ok());
    assert!(Selector::parse(&list(MAX_REQUIREMENTS + 1).join(",")).is_err());
    let among = |count| format!("a in ({})", list(count).join(","));
    assert!(Selector::parse(&among(MAX_VALUES)).is_ok());
    assert!(Selector::parse(&among(MAX_VALUES + 1)).is_err());

    let expressions = |count: usize| {
        let items: Vec<_> = list(count).iter().map(|key| json!({"key": key, "operator": "Exists"})).collect();
        Selector::from_json(&json!({ "matchExpressions": items }))
    };
    assert!(expressions(MAX_REQUIREMENTS).is_ok());
    assert!(expressions(MAX_REQUIREMENTS + 1).is_err());
    let values = |count| {
        let expression = json!({"key": "a", "operator": "In", "values": list(count)});
        Selector::from_json(&json!({ "matchExpressions": [expression] }))
    };
    assert!(values(MAX_VALUES).is_ok());
    assert!(values(MAX_VALUES + 1).is_err());
}

#[test]
fn objects_become_selectors() {
    for (value, canonical) in [
        (json!(null), ""),
        (json!({}), ""),
        (json!({"matchLabels": {}, "matchExpressions": []}), ""),
        (json!({"matchLabels": null, "matchExpressions": null}), ""),
        (json!({"matchLabels": {"b": "", "a": "x"}}), "a=x,b="),
        (json!({"matchLabels": {"a": "x"}, "other": 1}), "a=x"),
        (
            json!({"matchLabels": {"z": "1"}, "matchExpressions": [
                {"key": "b", "operator": "In", "values": ["y", "x", "y"]},
                {"key": "c", "operator": "NotIn", "values": ["x"]},
                {"key": "d", "operator": "Exists", "values": null},
                {"key": "a", "operator": "DoesNotExist", "values": []},
            ]}),
            "!a,b in (x,y),c!=x,d,z=1",
        ),
    ] {
        let selector = Selector::from_json(&value).unwrap_or_else(|error| panic!("{value}: {error}"));
        assert_eq!(selector.to_string(), canonical, "{value}");
        assert_eq!(selector.is_everything(), canonical.is_empty(), "{value}");
        let text = value.to_string();
        let wire: Option<LabelSelector<'_>> = serde_json::from_str(&text).unwrap();
        assert_eq!(wire.unwrap_or_default().to_selector(), Ok(selector), "{value}");
    }
}

#[test]
fn the_wire_form_borrows() {
    let text = r#"{"matchLabels":{"a":"x"},"matchExpressions":[{"key":"k","operator":"In","values":["v"]}]}"#;
    let wire: LabelSelector<'_> = serde_json::from_str(text).unwrap();
    let (key, value) = wire.match_labels.as_ref().unwrap().iter().next().unwrap();
    let expression = &wire.match_expressions.as_ref().unwrap()[0];
    for Text(borrowed) in [key, value, &expression.key, &expression.operator, &expression.values.as_ref().unwrap()[0]] {
        assert!(matches!(borrowed, Cow::Borrowed(_)), "{borrowed}");
    }
}

#[test]
fn bad_objects_name_the_field_and_the_fix() {
    let expression =
        |value: serde_json::Value| json!({"matchExpressions": [{"key": "ok", "operator": "Exists"}, value]});
    for (value, message) in [
        (json!("a=b"), "not a string"),
        (json!({"matchlabels": {"a": "b"}}), "unknown field \"matchlabels\""),
        (json!({"matchLabels": ["a"]}), "matchLabels: must be an object of strings, not a list"),
        (json!({"matchLabels": {"a": 1}}), "matchLabels[\"a\"]: must be a string, not a number; put it in quotes"),
        (json!({"matchLabels": {"a": null}}), "matchLabels[\"a\"]: must be a string, not null"),
        (json!({"matchLabels": {"a b": "x"}}), "matchLabels: key \"a b\": the name must be"),
        (json!({"matchLabels": {"a": "x y"}}), "matchLabels[\"a\"]: value \"x y\": must be"),
        (json!({"matchExpressions": {}}), "matchExpressions: must be a list of objects, not an object"),
        (expression(json!("a")), "matchExpressions[1]: must be an object with key, operator and values, not a string"),
        (expression(json!({"operator": "In"})), "matchExpressions[1].key: is missing; add it"),
        (expression(json!({"key": "a"})), "matchExpressions[1].operator: is missing; add it"),
        (expression(json!({"key": 1, "operator": "In"})), "matchExpressions[1].key: must be a string"),
        (
            expression(json!({"key": "a", "operator": "in", "values": ["x"]})),
            "matchExpressions[1].operator: \"in\" is unknown; use In, NotIn, Exists or DoesNotExist",
        ),
        (
            expression(json!({"key": "a", "operator": "In"})),
            "matchExpressions[1].values: must not be empty with operator In; name a value",
        ),
        (
            expression(json!({"key": "a", "operator": "NotIn", "values": []})),
            "matchExpressions[1].values: must not be empty with operator NotIn",
        ),
        (
            expression(json!({"key": "a", "operator": "Exists", "values": ["x"]})),
            "matchExpressions[1].values: must be empty with operator Exists; remove it",
        ),
        (
            expression(json!({"key": "a", "operator": "DoesNotExist", "values": ["x"]})),
            "matchExpressions[1].values: must be empty with operator DoesNotExist",
        ),
        (expression(json!({"key": "a", "operator": "In", "values": "x"})), "values: must be a list of strings"),
        (expression(json!({"key": "a", "operator": "In", "values": ["x", true]})), "values[1]: must be a string"),
        (expression(json!({"key": "a", "operator": "In", "values": ["x", "-"]})), "values[1]: value \"-\""),
        (expression(json!({"key": "/a", "operator": "Exists"})), "matchExpressions[1].key: key \"/a\""),
    ] {
        let error = Selector::from_json(&value).expect_err(&value.to_string()).to_string();
        assert!(error.contains(message), "{value}: {error}");
    }
    let error = Selector::from_json(&json!({"matchLabels": {"k": "v".repeat(1 << 20)}})).unwrap_err();
    assert!(error.to_string().len() < 400, "an error doesn't repeat a long input");
}

#[test]
fn matching_is_kubernetes_matching() {
    let object = labels(&[("a", "x"), ("b", ""), ("c", "z")]);
    for (text, expected) in [
        ("", true),
        ("a=x", true),
        ("a=y", false),
        ("d=x", false),
        ("d=", false),
        ("b=", true),
        ("a!=x", false),
        ("a!=y", true),
        ("d!=x", true),
        ("d!=", true),
        ("b!=", false),
        ("a in (w,x)", true),
        ("a in (w,y)", false),
        ("d notin (x)", true),
        ("a notin (w,x)", false),
        ("b", true),
        ("!b", false),
        ("!d", true),
        ("d", false),
        ("a=x,c=z", true),
        ("a=x,c=y", false),
        ("a=x,a=y", false),
    ] {
        assert_eq!(parse(text).matches(&object), expected, "{text:?}");
    }
}

#[test]
fn labels_come_in_many_shapes() {
    let selector = parse("a=x,!b");
    let pairs = [("a", "x")];
    assert!(selector.matches(&pairs[..]));
    assert!(selector.matches(&labels(&pairs)));
    assert!(selector.matches(&HashMap::from([("a".to_owned(), "x".to_owned())])));
    assert!(selector.matches(json!({"a": "x", "b": 1}).as_object().unwrap()));
    assert!(!selector.matches(&[("a", "x"), ("b", "")][..]));
    assert!(Selector::default().matches::<[(&str, &str)]>(&[]));
    assert_eq!(Selector::default(), Selector::everything());
}

#[test]
fn exact_pairs_are_the_equalities() {
    let selector = parse("a=x,b in (y),c in (y,z),d!=w,e,!f,g=");
    assert_eq!(selector.exact_pairs().collect::<Vec<_>>(), [("a", "x"), ("b", "y"), ("g", "")]);
}

type Parts = Vec<(String, usize, Vec<String>)>;

fn parts() -> impl Strategy<Value = Parts> {
    let value = prop_oneof![Just(String::new()), "[xyz]"];
    prop::collection::vec(("[abc]", 0..4usize, prop::collection::vec(value, 1..4)), 0..5)
}

const OPERATORS: [&str; 4] = ["In", "NotIn", "Exists", "DoesNotExist"];

fn as_json(parts: &Parts) -> serde_json::Value {
    let expressions = parts.iter().map(|(key, operator, values)| {
        let values = if *operator < 2 { &values[..] } else { &[] };
        json!({"key": key, "operator": OPERATORS[*operator], "values": values})
    });
    json!({"matchExpressions": expressions.collect::<Vec<_>>()})
}

proptest! {
    #[test]
    fn the_text_form_round_trips(parts in parts()) {
        let selector = Selector::from_json(&as_json(&parts)).unwrap();
        let text = selector.to_string();
        prop_assert_eq!(Selector::parse(&text).unwrap(), selector, "{}", text);
    }

    #[test]
    fn matches_as_the_plain_reading(
        parts in parts(),
        object in prop::collection::btree_map("[abc]", prop_oneof![Just(String::new()), "[xyz]"], 0..4),
    ) {
        let selector = Selector::from_json(&as_json(&parts)).unwrap();
        let expected = parts.iter().all(|(key, operator, values)| match (OPERATORS[*operator], object.get(key)) {
            ("In", Some(label)) => values.contains(label),
            ("NotIn", Some(label)) => !values.contains(label),
            ("Exists", label) => label.is_some(),
            ("DoesNotExist", label) => label.is_none(),
            (operator, None) => operator == "NotIn",
            (operator, Some(_)) => panic!("{operator}"),
        });
        prop_assert_eq!(selector.matches(&object), expected);
        if expected {
            prop_assert!(selector.exact_pairs().all(|(key, value)| object.get(key).is_some_and(|label| label == value)));
        }
    }

    #[test]
    fn any_text_is_parsed_or_refused(text in "[ab,=!()<> é/.-]{0,24}") {
        match Selector::parse(&text) {
            Ok(selector) => prop_assert_eq!(Selector::parse(&selector.to_string()).unwrap(), selector),
            Err(Error::Text { position, .. }) => prop_assert!(position >= 1 && position <= text.chars().count() + 1),
            Err(error) => panic!("{error}"),
        }
    }
}
