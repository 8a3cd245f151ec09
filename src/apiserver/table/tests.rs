//! Tables, metadata and negotiation, against answers that a kube-apiserver v1.36.3 gave (`golden.json`).

use serde_json::{Value, json};

use super::age::Instant;
use super::jsonpath::{Path, SyntaxError};
use super::*;

/// Objects of every kind, the second at which the server printed them, and what it printed.
fn golden() -> Vec<Value> {
    serde_json::from_str(include_str!("golden.json")).unwrap()
}

fn columns_of(recorded: &Value) -> Columns {
    match recorded["group"].as_str().unwrap() {
        "t.example.com" => Columns::custom(&recorded["printerColumns"]),
        group => Columns::built_in(group, recorded["plural"].as_str().unwrap()),
    }
}

#[test]
fn tables_are_those_of_the_real_server() {
    let options = TableOptions { include: Include::Object, ..TableOptions::default() };
    let (mut kinds, mut rows) = (0, 0);
    for recorded in golden() {
        let objects = recorded["rows"].as_array().unwrap().iter().map(|row| &row["object"]);
        let now = recorded["now"].as_i64().unwrap();
        let made = table(&columns_of(&recorded), ListMeta::default(), objects, now, &options);
        let kind = &recorded["plural"];
        assert_eq!(made["columnDefinitions"], recorded["columnDefinitions"], "columns of {kind}");
        for (made, recorded) in made["rows"].as_array().unwrap().iter().zip(recorded["rows"].as_array().unwrap()) {
            // The real server prints a float without a fraction as a whole number.
            assert_eq!(numbers(made["cells"].clone()), numbers(recorded["cells"].clone()), "{kind}: {recorded}");
            assert_eq!(made["object"], recorded["object"]);
            assert_eq!(made.get("conditions"), recorded.get("conditions"), "{kind}: {recorded}");
            rows += 1;
        }
        kinds += 1;
    }
    assert_eq!((kinds, rows), (25, 101));
}

fn numbers(cells: Value) -> Vec<Value> {
    let Value::Array(cells) = cells else { panic!("cells are a list") };
    cells.into_iter().map(|cell| cell.as_f64().filter(|_| cell.as_i64().is_none()).map_or(cell, Value::from)).collect()
}

#[test]
fn a_bookmark_prints_as_an_empty_object() {
    let bookmark =
        json!({ "metadata": { "resourceVersion": "488", "annotations": { "k8s.io/initial-events-end": "true" } } });
    for (group, plural, cells) in [
        ("", "pods", json!(["", "0/0", "", "0", "<unknown>", "<none>", "<none>", "<none>", "<none>"])),
        ("", "namespaces", json!(["", "", "<unknown>"])),
        ("", "services", json!(["", "", "<none>", "<unknown>", "<none>", "<unknown>", "<none>"])),
        ("", "persistentvolumeclaims", json!(["", "", "", "", "", "", "<unset>", "<unknown>", "<unset>"])),
        ("", "events", json!(["<unknown>", "", "", "", "", "", "", "<unknown>", 1, ""])),
        ("apps", "deployments", json!(["", "0/0", 0, 0, "<unknown>", "", "", ""])),
        ("apps", "replicasets", json!(["", 0, 0, 0, "<unknown>", "", "", "<none>"])),
        ("apps", "daemonsets", json!(["", 0, 0, 0, 0, 0, "<none>", "<unknown>", "", "", "<none>"])),
        ("apps", "statefulsets", json!(["", "0/0", "<unknown>", "", ""])),
        ("batch", "jobs", json!(["", "Running", "0/1", "", "<unknown>", "", "", "<none>"])),
        ("networking.k8s.io", "ingresses", json!(["", "<none>", "*", "", "80", "<unknown>"])),
        ("rbac.authorization.k8s.io", "roles", json!(["", "0001-01-01T00:00:00Z"])),
        ("rbac.authorization.k8s.io", "rolebindings", json!(["", "/", "<unknown>", "", "", ""])),
        ("discovery.k8s.io", "endpointslices", json!(["", "", "<unset>", "<unset>", "<unknown>"])),
    ] {
        let options = TableOptions { include: Include::None, headers: false, ..TableOptions::default() };
        let made = table(&Columns::built_in(group, plural), ListMeta::of(&bookmark), [&bookmark], 0, &options);
        let expected = json!({
            "kind": "Table",
            "apiVersion": "meta.k8s.io/v1",
            "metadata": { "resourceVersion": "488" },
            "columnDefinitions": null,
            "rows": [{ "cells": cells, "object": metadata(&bookmark, Version::V1) }],
        });
        assert_eq!(made, expected, "{plural}");
    }
    let made = table(&Columns::custom(&Value::Null), ListMeta::of(&bookmark), [&bookmark], 0, &TableOptions::default());
    assert_eq!(made["rows"][0]["cells"], json!(["", null]));
}

#[test]
fn rows_hold_what_was_asked_for() {
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "data": { "a": "b" },
        "metadata": { "name": "two", "resourceVersion": "302", "labels": { "x": "y" } },
    });
    let columns = Columns::built_in("", "configmaps");
    let row = |parameter, version| {
        let options = TableOptions { include: Include::parse(parameter).unwrap(), version, headers: true };
        table(&columns, ListMeta::of(&object), [&object], 0, &options)["rows"][0]["object"].clone()
    };
    let partial =
        json!({ "kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": object["metadata"] });
    assert_eq!(row(None, Version::V1), partial);
    assert_eq!(row(Some(""), Version::V1), partial);
    assert_eq!(row(Some("Metadata"), Version::V1Beta1)["apiVersion"], "meta.k8s.io/v1beta1");
    assert_eq!(row(Some("None"), Version::V1), Value::Null);
    assert_eq!(row(Some("Object"), Version::V1), object);
    assert_eq!(
        Include::parse(Some("Foo")).unwrap_err().to_string(),
        "Unable to convert to Table as requested: includeObject: Invalid value: \"Foo\": \
         must be 'Metadata', 'Object', 'None', or empty"
    );
}

#[test]
fn lists_keep_their_metadata() {
    let meta = ListMeta { resource_version: "467", continue_token: Some("abc"), remaining_item_count: Some(1) };
    let expected = json!({ "resourceVersion": "467", "continue": "abc", "remainingItemCount": 1 });
    let none: [&Value; 0] = [];
    let made = table(&Columns::built_in("", "secrets"), meta, none, 0, &TableOptions::default());
    assert_eq!((&made["metadata"], &made["rows"]), (&expected, &json!([])));
    let expected = json!({
        "kind": "PartialObjectMetadataList", "apiVersion": "meta.k8s.io/v1beta1", "metadata": expected, "items": null,
    });
    assert_eq!(metadata_list(meta, none, Version::V1Beta1), expected);
    let object = json!({ "kind": "ConfigMap", "metadata": { "name": "a" } });
    let made = metadata_list(ListMeta::default(), [&object], Version::V1);
    assert_eq!(made["items"], json!([metadata(&object, Version::V1)]));
    assert_eq!(made["metadata"], json!({}));
}

#[test]
fn forms_that_do_not_fit_are_refused_by_the_type() {
    let (one, many) = (Form::Metadata(Version::V1), Form::MetadataList(Version::V1));
    let message = |form, group, kind, list| refusal(form, group, kind, list).unwrap().to_string();
    for (group, kind, go) in [
        ("", "ConfigMapList", "core.ConfigMapList"),
        ("events.k8s.io", "EventList", "core.EventList"),
        ("apps", "DeploymentList", "apps.DeploymentList"),
        ("networking.k8s.io", "IngressList", "networking.IngressList"),
        ("rbac.authorization.k8s.io", "RoleList", "rbac.RoleList"),
        ("apiextensions.k8s.io", "CustomResourceDefinitionList", "apiextensions.CustomResourceDefinitionList"),
    ] {
        let expected = format!("you requested PartialObjectMetadata, but the requested object is a list (*{go})");
        assert_eq!(message(one, Some(group), kind, true), expected);
    }
    assert!(message(one, None, "WideList", true).ends_with("(*unstructured.UnstructuredList)"));
    let expected = "you requested PartialObjectMetadataList, but the requested object is not a list (*core.ConfigMap)";
    assert_eq!(message(many, Some(""), "ConfigMap", false), expected);
    assert_eq!(refusal(one, Some(""), "ConfigMap", false), None);
    assert_eq!(refusal(many, Some(""), "ConfigMapList", true), None);
    assert_eq!(refusal(Form::Table(Version::V1), Some(""), "ConfigMapList", true), None);
    let status = refusal(many, Some(""), "ConfigMap", false).unwrap().status();
    assert_eq!((&status["code"], &status["reason"]), (&json!(406), &json!("NotAcceptable")));
}

// === ages ===

/// What apimachinery's `HumanDuration` printed, by milliseconds.
#[rustfmt::skip]
const DURATIONS: &[(i64, &str)] = &[
    (-9_000_000_000_000, "<invalid>"), (-5000, "<invalid>"), (-2000, "<invalid>"), (-1999, "0s"), (-1001, "0s"), (-1000, "0s"),
    (-500, "0s"), (-1, "0s"), (0, "0s"), (1, "0s"), (999, "0s"), (1000, "1s"), (59_000, "59s"), (60_000, "60s"),
    (119_000, "119s"), (119_999, "119s"), (120_000, "2m"), (121_000, "2m1s"), (599_000, "9m59s"), (599_999, "9m59s"),
    (600_000, "10m"), (601_000, "10m"), (3_599_000, "59m"), (3_600_000, "60m"), (7_260_000, "121m"), (10_799_000, "179m"),
    (10_800_000, "3h"), (10_860_000, "3h1m"), (14_400_000, "4h"), (28_799_000, "7h59m"), (28_800_000, "8h"),
    (86_399_000, "23h"), (86_400_000, "24h"), (172_799_000, "47h"), (172_800_000, "2d"), (176_400_000, "2d1h"),
    (691_199_000, "7d23h"), (691_200_000, "8d"), (63_071_999_000, "729d"), (63_072_000_000, "2y"), (63_331_200_000, "2y3d"),
    (94_608_000_000, "3y"), (252_287_999_000, "7y364d"), (252_288_000_000, "8y"), (315_360_000_000, "10y"),
    (9_000_000_000_000, "285y"),
];

#[test]
fn durations_read_as_apimachinery_writes_them() {
    for (millis, text) in DURATIONS {
        assert_eq!(human_duration(millis * 1_000_000), *text, "{millis} ms");
    }
    assert_eq!(human_duration(i64::MAX), "292y");
    assert_eq!(human_duration(i64::MIN), "<invalid>");
}

#[test]
fn times_are_rfc_3339() {
    let at = |seconds: i64| Some(Instant::at_unix_seconds(seconds));
    assert_eq!(Instant::parse("1970-01-01T00:00:00Z"), at(0));
    assert_eq!(Instant::parse("0001-01-01T00:00:00Z"), Some(Instant::ZERO));
    assert_eq!(Instant::parse("2024-02-29T12:34:56Z"), at(1_709_210_096));
    assert_eq!(Instant::parse("2024-02-29T12:34:56.000+02:30"), at(1_709_210_096 - 9000));
    assert_eq!(Instant::parse("1969-12-31T23:59:59-00:01"), at(59));
    let half = Instant::parse("1970-01-01T00:00:00.5Z").unwrap();
    assert_eq!(half.nanos_since(Instant::at_unix_seconds(0)), 500_000_000);
    assert_eq!(Instant::parse("9999-12-31T23:59:59Z").unwrap().nanos_since(Instant::ZERO), i64::MAX);
    for wrong in [
        "",
        "yesterday",
        "2024-01-01",
        "2024-13-01T00:00:00Z",
        "2023-02-29T00:00:00Z",
        "2024-01-01T24:00:00Z",
        "2024-01-01T00:00:60Z",
        "2024-01-01T00:00:00",
        "2024-01-01T00:00:00.Z",
        "2024-01-01T00:00:00+2:00",
        "2024-01-01 00:00:00Z",
        "+024-01-01T00:00:00Z",
        "2024-01-01T00:00:00é",
        "éééééééééé",
    ] {
        assert_eq!(Instant::parse(wrong), None, "{wrong:?}");
    }
}

// === paths ===

#[test]
fn paths_are_of_the_kubernetes_dialect() {
    let object = json!({
        "a": { "b.c": 1, "list": [{ "n": "x", "v": 1 }, { "n": "y", "v": 2 }], "deep": { "er": { "n": "z" } } },
        "quote": [{ "k": "it's (so)", "n": 1 }],
    });
    for (path, found) in [
        (".a.b\\.c", json!(1)),
        (".a['b\\.c']", json!(1)),
        (".a['b.c']", Value::Null),
        ("a", Value::Null),
        ("$.a.list[1].n", json!("y")),
        (".a.list[-2].n", json!("x")),
        (".a.list[0:2].v", json!(1)),
        (".a.list[::2].v", json!(1)),
        (".a.list[::0].v", Value::Null),
        (".a.list[2].n", Value::Null),
        (".a.list[2:2].n", Value::Null),
        (".a.list[].n", json!("x")),
        (".a.list[*].n", json!("x")),
        (".a.list[1,0].n", json!("y")),
        (".a.list[?(@.n=='y')].v", json!(2)),
        (".a.list[?(@.n == \"y\")].v", json!(2)),
        (".a.list[?(@.v>=2)].n", json!("y")),
        (".a.list[?(@.v<=1)].n", json!("x")),
        (".a.list[?(@.v=\"1\")].n", Value::Null),
        (".a.list[?(@.v)].n", json!("x")),
        (".a.list[?(2==@.v)].n", json!("y")),
        (".a.deep..n", json!("z")),
        ("..er.n", json!("z")),
        (".quote[?(@.k==\"it's (so)\")].n", json!(1)),
        (".quote[?(@.k=='it\\'s (so)')].n", json!(1)),
        (".a range", Value::Null),
    ] {
        let parsed = Path::parse(path).unwrap();
        assert_eq!(parsed.first(&object).cloned().unwrap_or_default(), found, "{path}");
    }
    for wrong in [
        ".a[",
        ".a[x]",
        ".a[1:2:3:4]",
        ".a[?(@.n",
        ".a[?(@.n)",
        ".a....b",
        ".a[0]!",
        ".a\n",
        ".a['b",
        "'open",
        "-",
        ".a[--1]",
    ] {
        assert_eq!(Path::parse(wrong), Err(SyntaxError), "{wrong}");
    }
}

/// What Go 1.26 prints of floats, and what its JSON says.
#[test]
fn floats_are_written_as_go_writes_them() {
    for (float, plain, json) in [
        (1e20, "1e+20", "100000000000000000000"),
        (1e21, "1e+21", "1e+21"),
        (999_999.5, "999999.5", "999999.5"),
        (1_000_000.5, "1.0000005e+06", "1000000.5"),
        (0.0001, "0.0001", "0.0001"),
        (0.00001, "1e-05", "0.00001"),
        (1e-6, "1e-06", "0.000001"),
        (1e-7, "1e-07", "1e-7"),
        (-2.5e30, "-2.5e+30", "-2.5e+30"),
    ] {
        assert_eq!(go::print(&json!(float)), plain);
        assert_eq!(go::print(&json!([float])), format!("[{json}]"));
    }
    assert_eq!(
        go::print(&json!({ "b": "<&>\u{2028}\n", "a": null })),
        r#"{"a":null,"b":"\u003c\u0026\u003e\u2028\n"}"#
    );
}

// === negotiation ===

const TABLE: &str = "application/json;as=Table;v=v1;g=meta.k8s.io";
const JSON: Accepted = Accepted { encoding: Encoding::Json { pretty: false }, form: Form::Full };
const YAML: Accepted = Accepted { encoding: Encoding::Yaml, form: Form::Full };
const LIST: Endpoint = Endpoint::BuiltIn { collection: true };

fn ask(accept: &str, endpoint: Endpoint) -> Result<Accepted, String> {
    negotiate(Client { accept, ..Client::default() }, endpoint, false).map_err(|error| error.to_string())
}

#[test]
fn the_accept_header_is_read_as_the_real_server_reads_it() {
    let form = |form| Accepted { form, ..JSON };
    for (accept, expected) in [
        ("", Some(JSON)),
        ("*/*", Some(JSON)),
        ("application/json", Some(JSON)),
        ("application/yaml", Some(YAML)),
        ("text/html,application/json", Some(JSON)),
        (",application/json", Some(JSON)),
        ("application/json/x,application/yaml", Some(YAML)),
        ("*/*,application/yaml", Some(YAML)),
        ("application/yaml,*/*", Some(YAML)),
        ("application/xml,text/html;q=0.9,image/png,*/*;q=0.5", Some(JSON)),
        ("application/json;q=0.1,application/yaml;q=0.9", Some(YAML)),
        ("application/json;q=abc,application/yaml;q=0.1", Some(YAML)),
        ("application/vnd.kubernetes.protobuf,application/json", Some(JSON)),
        ("application/vnd.kubernetes.protobuf;q=0.5,application/json;q=0.4", Some(JSON)),
        ("application/json;stream=watch", Some(JSON)),
        ("application/yaml;stream=watch", None),
        ("application/json;sv=v1", Some(JSON)),
        ("application/json;sv=v2", None),
        ("application/json;foo=bar", Some(JSON)),
        (TABLE, Some(form(Form::Table(Version::V1)))),
        ("application/json; as=Table; v=v1; g=meta.k8s.io", Some(form(Form::Table(Version::V1)))),
        ("application/json ;as=Table;v=v1beta1;g=meta.k8s.io", Some(form(Form::Table(Version::V1Beta1)))),
        ("application/yaml;as=Table;v=v1;g=meta.k8s.io", Some(Accepted { form: Form::Table(Version::V1), ..YAML })),
        ("application/json;as=Table;v=v2;g=meta.k8s.io,application/json", Some(JSON)),
        ("application/json;as=Table;v=v2;g=meta.k8s.io", None),
        ("application/json;as=Table", None),
        ("application/json;as=Foo;v=v1;g=meta.k8s.io", None),
        ("application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io", Some(form(Form::Metadata(Version::V1)))),
        (
            "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io",
            Some(form(Form::MetadataList(Version::V1))),
        ),
        ("application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io;q=0.1,application/json;q=0.9", Some(JSON)),
    ] {
        let refused = "only the following media types are accepted: application/json, application/yaml".to_owned();
        assert_eq!(ask(accept, LIST), expected.ok_or_else(|| refused.clone()), "{accept}");
        assert_eq!(ask(accept, Endpoint::Custom), expected.ok_or(refused), "{accept} of a custom kind");
    }
}

#[test]
fn only_so_many_clauses_are_looked_at() {
    let many = "text/html,".repeat(63);
    assert_eq!(ask(&format!("{many}application/json"), LIST), Ok(JSON));
    assert!(ask(&format!("{many}text/html,application/json"), LIST).is_err());
}

#[test]
fn built_in_kinds_take_exact_types_only() {
    let gate = "406: Not Acceptable\n\nAvailable representations: application/json, application/yaml";
    for accept in
        ["application/*", "*", "text/html", "json", "application/JSON", "APPLICATION/json", "application/json/x"]
    {
        assert_eq!(ask(accept, LIST), Err(format!("{gate}, application/json;stream=watch")), "{accept}");
        assert_eq!(ask(accept, Endpoint::BuiltIn { collection: false }), Err(gate.to_owned()), "{accept}");
        assert_eq!(ask(accept, Endpoint::BuiltInDiscovery), Err(gate.to_owned()), "{accept}");
        let elsewhere = matches!(accept, "application/*" | "*");
        assert_eq!(ask(accept, Endpoint::Custom).is_ok(), elsewhere, "{accept}");
        assert_eq!(ask(accept, Endpoint::Discovery).is_ok(), elsewhere, "{accept}");
    }
    let refused = negotiate(Client { accept: "text/html", ..Client::default() }, LIST, false).unwrap_err().status();
    assert_eq!(refused["details"], json!({}));
    let refused = negotiate(Client { accept: "text/html", ..Client::default() }, Endpoint::Custom, false).unwrap_err();
    assert_eq!(refused.status().get("details"), None);
    assert_eq!(ask(TABLE, Endpoint::Version).unwrap().encoding, Encoding::Json { pretty: true });
    assert!(ask("application/yaml", Endpoint::Version).is_err());
    assert!(ask(TABLE, Endpoint::Discovery).is_err() && ask(TABLE, Endpoint::BuiltInDiscovery).is_err());
}

#[test]
fn watches_and_errors_have_their_own_rules() {
    let watch = |accept| negotiate(Client { accept, ..Client::default() }, LIST, true);
    assert_eq!(watch(TABLE).unwrap().form, Form::Table(Version::V1));
    assert_eq!(watch("application/json;stream=watch"), Ok(JSON));
    let refused = "only the following media types are accepted: application/json;stream=watch";
    assert_eq!(watch("application/yaml").unwrap_err().to_string(), refused);
    assert_eq!(watch("application/yaml,application/json").unwrap_err().to_string(), refused);
    // An error that the client's Accept does not cover is indented JSON.
    let indented = Accepted { encoding: Encoding::Json { pretty: true }, form: Form::Full };
    for (accept, expected) in
        [("application/json", JSON), ("application/yaml", YAML), (TABLE, indented), ("text/html", indented)]
    {
        assert_eq!(ask(accept, Endpoint::Status), Ok(expected), "{accept}");
    }
}

#[test]
fn people_get_indented_json() {
    let pretty = |client| matches!(negotiate(client, LIST, false).unwrap().encoding, Encoding::Json { pretty: true });
    let client = Client { accept: "application/json", ..Client::default() };
    assert!(!pretty(client));
    assert!(pretty(Client { accept: "application/json;pretty=1", ..client }));
    assert!(pretty(Client { pretty: Some("true"), ..client }));
    assert!(pretty(Client { user_agent: "curl/8.0", ..client }));
    assert!(pretty(Client { user_agent: "Mozilla/5.0 (X11)", pretty: Some(""), ..client }));
    assert!(!pretty(Client { user_agent: "curl/8.0", pretty: Some("false"), ..client }));
    assert!(!pretty(Client { user_agent: "kubectl/v1.36.3", ..client }));
}

#[test]
fn aggregated_discovery_is_found_anywhere_in_the_header() {
    let json = Some(Encoding::Json { pretty: false });
    let ask = |accept: &str| wants_aggregated(Client { accept, ..Client::default() });
    let form = "g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";
    assert_eq!(ask(&format!("application/json;{form}")), json);
    assert_eq!(ask(&format!("application/json;{form};profile=nopeer")), json);
    assert_eq!(ask(&format!("application/json,application/json;{form}")), json);
    assert_eq!(
        ask(&format!("application/vnd.kubernetes.protobuf;{form},application/json;{form},application/json")),
        json
    );
    assert_eq!(ask(&format!("application/yaml;{form}")), Some(Encoding::Yaml));
    for accept in [
        "",
        "*/*",
        "application/json",
        "application/json;g=apidiscovery.k8s.io;v=v2beta1;as=APIGroupDiscoveryList",
        TABLE,
    ] {
        assert_eq!(ask(accept), None, "{accept}");
    }
}

#[test]
fn yaml_keeps_strings_that_look_like_something_else() {
    let text = [
        "true",
        "yes",
        "on",
        "null",
        "~",
        "1",
        "1.5",
        "1e3",
        "0x10",
        "",
        " a ",
        "a: b",
        "# c",
        "- d",
        "2024-01-01",
        "é\n",
    ];
    let value = json!({ "strings": text, "empty": {}, "none": [], "nothing": null, "number": 5, "float": 1.5 });
    let yaml = Encoding::Yaml.write(&value).unwrap();
    let read: Value = serde_saphyr::from_slice(&yaml).unwrap();
    assert_eq!(read, value, "{}", String::from_utf8_lossy(&yaml));
    assert_eq!(Encoding::Json { pretty: false }.write(&json!({ "a": 1 })).unwrap(), b"{\"a\":1}\n");
}
