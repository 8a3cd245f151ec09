//! What becomes of good and bad rings of both groups.

use serde_json::{Value, json};

use super::*;

const UID: &str = "0f8fad5b-d9cb-469f-a165-70867728950e";
const BOTH: [&RingDialect; 2] = [&RINGMASTER_RING, &CONTROLLER_SHARDING_RING];

/// The smallest ring that both groups take.
fn object() -> Value {
    json!({
        "metadata": { "name": "checksums", "uid": UID, "generation": 3 },
        "spec": {
            "resources": [{
                "group": "",
                "resource": "secrets",
                "controlledResources": [{ "group": "", "resource": "configmaps" }],
            }],
        },
    })
}

fn convert(dialect: &RingDialect, mut object: Value) -> Result<ConvertedRing, Error> {
    object["apiVersion"] = json!(format!("{}/v1alpha1", dialect.group));
    object["kind"] = json!("ControllerRing");
    ring_from_json(dialect, &serde_json::to_vec(&object).unwrap())
}

/// The smallest ring with `value` at the JSON pointer `at`.
fn with(at: &str, value: Value) -> Value {
    let mut object = object();
    let (parent, name) = at.rsplit_once('/').unwrap();
    object.pointer_mut(parent).unwrap()[name] = value;
    object
}

/// The smallest ring with other resources.
fn of(resources: &Value) -> Value {
    with("/spec/resources", resources.clone())
}

fn refused(dialect: &RingDialect, object: Value) -> String {
    convert(dialect, object).unwrap_err().to_string()
}

#[test]
fn each_group_has_its_own_defaults() {
    let [ours, theirs] = BOTH.map(|dialect| convert(dialect, object()).unwrap());
    assert_eq!((ours.warnings, theirs.warnings), (Vec::new(), Vec::new()));
    let secrets = MainResource {
        resource: GroupResource::new("", "secrets"),
        controlled: vec![GroupResource::new("", "configmaps")],
    };
    let wanted = Ring {
        dialect: &RINGMASTER_RING,
        name: "checksums".into(),
        uid: ringmaster_core::key::Uid::new(UID),
        generation: 3,
        resources: vec![secrets],
        namespaces: Selector::parse("kubernetes.io/metadata.name!=kube-system").unwrap(),
        hash: Hash::BoundedLoad,
        rules: Rules { drain_limit: Duration::from_secs(60), escalates: false },
        pace: Settings::default(),
        is_deleting: false,
    };
    assert_eq!(ours.ring, wanted);
    let but = Selector::parse("kubernetes.io/metadata.name notin (kube-system,sharding-system)").unwrap();
    let wanted = Ring { dialect: &CONTROLLER_SHARDING_RING, namespaces: but, hash: Hash::Tokens, ..wanted };
    assert_eq!(theirs.ring, wanted);
}

#[test]
fn a_full_ring_of_ours_becomes_the_model() {
    let object = json!({
        "metadata": {
            "name": "shop.v2",
            "uid": UID,
            "generation": 7,
            "deletionTimestamp": "2026-01-02T03:04:05Z",
        },
        "spec": {
            "resources": [
                { "group": "shop.example", "resource": "sites", "controlledResources": [
                    { "resource": "services" }, { "group": "apps", "resource": "deployments" },
                ]},
                { "group": "shop.example", "resource": "carts", "controlledResources": [{ "resource": "services" }] },
            ],
            "namespaceSelector": { "matchLabels": { "tier": "front" } },
            "hash": "Tokens",
            "drain": { "timeoutSeconds": 86400, "escalate": true },
            "moves": { "concurrent": 1000, "settleSeconds": 0, "settleAtMostSeconds": 86400 },
        },
    });
    let ConvertedRing { ring, warnings } = convert(&RINGMASTER_RING, object).unwrap();
    assert_eq!(warnings, Vec::<String>::new());
    assert_eq!((&*ring.name, ring.generation, ring.is_deleting, ring.hash), ("shop.v2", 7, true, Hash::Tokens));
    let kinds: Vec<String> = ring.kinds().into_iter().map(ToString::to_string).collect();
    assert_eq!(kinds, ["services", "deployments.apps", "carts.shop.example", "sites.shop.example"]);
    assert_eq!(ring.namespaces, Selector::parse("tier=front").unwrap());
    assert_eq!(ring.rules, Rules { drain_limit: Duration::from_secs(86_400), escalates: true });
    let (settle, settle_at_most) = (Duration::ZERO, Duration::from_secs(86_400));
    assert_eq!(ring.pace, Settings { limit: 1000, settle, settle_at_most });
}

#[test]
fn an_empty_selector_is_every_namespace() {
    for dialect in BOTH {
        let ring = convert(dialect, with("/spec/namespaceSelector", json!({}))).unwrap().ring;
        assert!(ring.namespaces.is_everything());
    }
}

#[test]
fn drains_wait_no_shorter_than_shards_are_to_be_still() {
    let pace = |moves: &Value| {
        let ConvertedRing { ring, warnings } = convert(&RINGMASTER_RING, with("/spec/moves", moves.clone())).unwrap();
        (ring.pace.settle.as_secs(), ring.pace.settle_at_most.as_secs(), warnings.join("; "))
    };
    assert_eq!(pace(&json!({})), (10, 60, String::new()));
    assert_eq!(pace(&json!({ "settleSeconds": 600 })), (600, 600, String::new()));
    assert_eq!(pace(&json!({ "settleSeconds": 30, "settleAtMostSeconds": 30 })), (30, 30, String::new()));
    let (settle, at_most, warning) = pace(&json!({ "settleAtMostSeconds": 5 }));
    assert_eq!((settle, at_most), (10, 5));
    assert!(warning.starts_with("spec.moves.settleAtMostSeconds: is less than settleSeconds (10)"), "{warning}");
}

#[test]
fn a_ring_of_controller_shardings_may_have_nothing() {
    for empty in [json!({}), json!({ "resources": [] })] {
        let ConvertedRing { ring, warnings } = convert(&CONTROLLER_SHARDING_RING, with("/spec", empty)).unwrap();
        assert_eq!((ring.resources.len(), warnings.len()), (0, 1));
    }
    let object = with("/spec/drain", json!({ "timeoutSeconds": 1 }));
    let ring = convert(&CONTROLLER_SHARDING_RING, object).unwrap().ring;
    assert_eq!(ring.rules.drain_limit, DRAIN_TIMEOUT_DEFAULT, "not its field");
}

#[test]
fn what_is_wrong_in_both_groups_is_named() {
    let name = |name: &str| with("/metadata/name", json!(name));
    let kind = |group: &str, resource: &str| json!({ "group": group, "resource": resource });
    let main = |of: &Value, controlled: Value| {
        let mut main = of.clone();
        main["controlledResources"] = controlled;
        main
    };
    let (secrets, maps) = (kind("", "secrets"), kind("", "configmaps"));
    let cases = [
        (name(&"a".repeat(64)), "metadata.name: must be at most 63 characters"),
        (name("A"), "metadata.name: must be at most 63 characters, lower-case"),
        (name(""), "metadata.name: is missing"),
        (with("/metadata/uid", json!("")), "metadata.uid: is missing"),
        (of(&json!([kind("Apps", "x")])), "spec.resources[0].group: must be an API group such as apps"),
        (of(&json!([kind("apps/v1", "x")])), "spec.resources[0].group: must be an API group such as apps"),
        (of(&json!([kind("", "Secret")])), "spec.resources[0].resource: must be the plural name"),
        (of(&json!([kind("", "pods/status")])), "spec.resources[0].resource: must be the plural name"),
        (of(&json!([kind("*", "*")])), "spec.resources[0].group: must be an API group"),
        (of(&json!([secrets, maps, secrets])), "spec.resources[2]: names secrets again; one entry is enough"),
        (
            of(&json!([main(&secrets, json!([kind("", "x_y")]))])),
            "spec.resources[0].controlledResources[0].resource: must be the plural name",
        ),
        (
            of(&json!([main(&secrets, json!([maps, maps]))])),
            "spec.resources[0].controlledResources[1]: names configmaps again",
        ),
        (
            of(&json!([main(&secrets, json!([secrets]))])),
            "spec.resources[0].controlledResources[0]: secrets is divided by itself, in spec.resources[0]",
        ),
        (
            of(&json!([main(&secrets, json!([maps])), maps])),
            "spec.resources[0].controlledResources[0]: configmaps is divided by itself, in spec.resources[1]",
        ),
        (
            with("/spec/namespaceSelector", json!({ "matchExpressions": [{ "key": "a", "operator": "Is" }] })),
            "spec.namespaceSelector: matchExpressions[0].operator",
        ),
        (with("/spec/resources", json!("secrets")), "object: doesn't fit the kind"),
    ];
    for dialect in BOTH {
        for (object, wanted) in &cases {
            let message = refused(dialect, object.clone());
            assert!(message.starts_with(wanted), "{}: {message}, not {wanted}", dialect.group);
        }
    }
}

#[test]
fn two_kinds_may_control_the_same() {
    let controlled = json!([{ "group": "", "resource": "configmaps" }]);
    let main = |resource: &str| json!({ "group": "", "resource": resource, "controlledResources": controlled });
    for dialect in BOTH {
        let ring = convert(dialect, of(&json!([main("secrets"), main("services")]))).unwrap().ring;
        assert_eq!(ring.owners(&GroupResource::new("", "configmaps")).count(), 2);
    }
}

#[test]
fn what_is_wrong_in_ours_is_named() {
    let many = |count: usize| -> Value {
        (0..count).map(|number| json!({ "resource": format!("r{number}") })).collect::<Vec<_>>().into()
    };
    let moves = |name: &str, value: i32| with("/spec/moves", json!({ name: value }));
    let drain = |value: i32| with("/spec/drain", json!({ "timeoutSeconds": value }));
    let cases = [
        (of(&json!([])), "spec.resources: must have 1 to 64 entries"),
        (of(&many(65)), "spec.resources: must have 1 to 64 entries"),
        (
            of(&json!([{ "resource": "secrets", "controlledResources": many(65) }])),
            "spec.resources[0].controlledResources: must have at most 64 entries",
        ),
        (drain(0), "spec.drain.timeoutSeconds: must be between 1 and 86400 seconds"),
        (drain(86_401), "spec.drain.timeoutSeconds: must be between 1 and 86400 seconds"),
        (moves("concurrent", 0), "spec.moves.concurrent: must be between 1 and 1000; leave it out for 100"),
        (moves("concurrent", 1001), "spec.moves.concurrent: must be between 1 and 1000"),
        (moves("settleSeconds", -1), "spec.moves.settleSeconds: must be between 0 and 3600 seconds"),
        (moves("settleSeconds", 3601), "spec.moves.settleSeconds: must be between 0 and 3600 seconds"),
        (moves("settleAtMostSeconds", -1), "spec.moves.settleAtMostSeconds: must be between 0 and 86400 seconds"),
        (with("/spec/hash", json!("Rendezvous")), "object: doesn't fit the kind"),
    ];
    for (object, wanted) in cases {
        let message = refused(&RINGMASTER_RING, object);
        assert!(message.starts_with(wanted), "{message}, not {wanted}");
    }
    assert!(convert(&RINGMASTER_RING, of(&many(64))).is_ok());
}
