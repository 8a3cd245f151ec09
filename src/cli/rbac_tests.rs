use super::*;

const RINGS: &str = "
apiVersion: ringmaster.dev/v1alpha1
kind: ControllerRing
metadata: {name: websites}
spec:
  resources:
    - group: example.com
      resource: websites
      controlledResources:
        - {group: apps, resource: deployments}
        - {resource: services}
        - {group: '', resource: configmaps}
    - {resource: secrets}
---
apiVersion: v1
kind: ConfigMap
metadata: {name: passed-over}
---
apiVersion: sharding.timebertt.dev/v1alpha1
kind: ControllerRing
metadata: {name: websites}
spec: {resources: [{group: example.com, resource: websites}]}
";

fn account(text: &str) -> Account {
    text.parse().unwrap()
}

/// Each rule as `group: resources: verbs`.
fn said(role: &Value) -> Vec<String> {
    let texts = |value: &Value| {
        let all: Vec<&str> = value.as_array().unwrap().iter().map(|text| text.as_str().unwrap()).collect();
        all.join(",")
    };
    let rule = |rule: &Value| ["apiGroups", "resources", "verbs"].map(|field| texts(&rule[field])).join(": ");
    role["rules"].as_array().unwrap().iter().map(rule).collect()
}

fn refused(text: &str, words: &[&str]) {
    let error = format!("{:#}", parse(text).unwrap_err());
    assert!(words.iter().all(|word| error.contains(word)), "{error} doesn't say {words:?}");
}

fn ring_of(name: &str, resources: &str) -> String {
    format!(
        "{{apiVersion: ringmaster.dev/v1alpha1, kind: ControllerRing, metadata: {{name: {name}}}, \
         spec: {{resources: {resources}}}}}"
    )
}

#[test]
fn ringmaster_reads_and_labels_what_is_in_a_ring() {
    let objects = rights(&parse(RINGS).unwrap(), &Whose::Ringmaster(Account::ringmaster()));
    let kinds: Vec<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ClusterRole", "ClusterRoleBinding", "ClusterRole", "ClusterRoleBinding"]);
    assert_eq!(
        said(&objects[0]),
        [
            ": configmaps,secrets,services: get,list,watch,patch",
            "apps: deployments: get,list,watch,patch",
            "example.com: websites: get,list,watch,patch",
        ]
    );
    assert_eq!(said(&objects[2]), ["example.com: websites: get,list,watch,patch"]);
    assert_eq!(objects[0]["metadata"], json!({"name": "ringmaster:ring:websites"}));
    assert_eq!(objects[2]["metadata"], json!({"name": "ringmaster:controllerring:websites"}));
    let subjects = json!([{"kind": "ServiceAccount", "name": "ringmaster", "namespace": "ringmaster-system"}]);
    for pair in objects.chunks(2) {
        assert_eq!(pair[1]["subjects"], subjects);
        assert_eq!(pair[1]["roleRef"]["name"], pair[0]["metadata"]["name"]);
    }
}

#[test]
fn a_shard_keeps_a_lease_and_makes_what_it_controls() {
    let whose = Whose::Shards { account: account("shop:websites"), leases: "leases".to_owned() };
    let objects = rights(&parse(RINGS).unwrap()[..1], &whose);
    assert_eq!(
        said(&objects[0]),
        [
            ": configmaps,services: get,list,watch,create,update,patch,delete",
            ": secrets: get,list,watch,patch",
            "apps: deployments: get,list,watch,create,update,patch,delete",
            "example.com: websites: get,list,watch,patch",
        ]
    );
    assert_eq!(said(&objects[2]), ["coordination.k8s.io: leases: get,create,update"]);
    let kinds: Vec<&str> = objects.iter().map(|object| object["kind"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["ClusterRole", "ClusterRoleBinding", "Role", "RoleBinding"]);
    for object in &objects[2..] {
        assert_eq!(object["metadata"], json!({"name": "ringmaster:ring:websites:shards", "namespace": "leases"}));
    }
    assert_eq!(objects[3]["roleRef"]["kind"], "Role");
    assert_eq!(objects[3]["subjects"][0], json!({"kind": "ServiceAccount", "name": "websites", "namespace": "shop"}));
}

#[test]
fn what_is_main_and_controlled_gets_the_wider_rights() {
    let twice = "[{resource: secrets, controlledResources: [{resource: secrets}]}, {resource: secrets}]";
    let rings = parse(&ring_of("r", twice)).unwrap();
    assert_eq!(rings[0].resources.values().collect::<Vec<_>>(), [&Part::Controlled]);
}

#[test]
fn a_list_is_as_good_as_documents() {
    let one = ring_of("a", "[{resource: secrets}]");
    for kind in ["List", "ControllerRingList"] {
        let list = format!("{{apiVersion: v1, kind: {kind}, items: [{one}, {{kind: Other}}]}}");
        assert_eq!(parse(&list).unwrap(), parse(&one).unwrap());
    }
}

#[test]
fn what_is_printed_is_read_back() {
    let objects = rights(&parse(RINGS).unwrap(), &Whose::Ringmaster(account("a:b.c")));
    let text = yaml(&objects).unwrap();
    assert!(text.starts_with("---\n") && text.ends_with('\n'), "{text}");
    assert_eq!(serde_saphyr::from_multiple::<Value>(&text).unwrap(), objects, "{text}");
}

#[test]
fn a_ring_that_would_make_a_wrong_role_is_refused_by_its_field() {
    refused("kind: ConfigMap", &["expected a ControllerRing", "ringmaster.dev or sharding.timebertt.dev"]);
    refused("{apiVersion: other.dev/v1, kind: ControllerRing, metadata: {name: a}}", &["expected a ControllerRing"]);
    refused("", &["expected a ControllerRing"]);
    refused("a: [", &["expected a ControllerRing"]);
    refused(&ring_of("''", "[]"), &["metadata.name", "1 to 63"]);
    refused(&ring_of(&"a".repeat(64), "[]"), &["metadata.name", "1 to 63"]);
    refused(&ring_of("a:b", "[]"), &["metadata.name"]);
    refused(&ring_of("a", "[]"), &["ControllerRing a", "spec.resources", "at least one"]);
    refused("{apiVersion: ringmaster.dev/v1, kind: ControllerRing, metadata: {name: a}}", &["spec.resources"]);
    refused(&ring_of("a", "x"), &["ControllerRing a", "spec", "sequence"]);
    refused(&ring_of("a", "[{resource: '*'}]"), &["spec.resources[0].resource", "\"*\"", "plural name"]);
    refused(&ring_of("a", "[{resource: pods/status}]"), &["spec.resources[0].resource", "plural name"]);
    refused(&ring_of("a", "[{resource: pods, group: '*'}]"), &["spec.resources[0].group", "core group"]);
    refused(&ring_of("a", "[{resurce: pods}]"), &["ControllerRing a", "spec", "`resurce`", "`resource`"]);
    refused(&ring_of("a", "[{resource: pods, controlledResources: [{kind: Pod}]}]"), &["`kind`", "`resource`"]);
    let controlled = "[{resource: pods}, {resource: a, controlledResources: [{resource: b}, {group: c}]}]";
    refused(&ring_of("a", controlled), &["spec.resources[1].controlledResources[1].resource", "plural name"]);
}

#[test]
fn accounts_have_a_namespace_and_a_name() {
    assert_eq!(account("shop:web.sites"), Account { namespace: "shop".to_owned(), name: "web.sites".to_owned() });
    for text in ["", "shop", "shop:", ":websites", "a:b:c", "A:b", "-a:b"] {
        assert!(text.parse::<Account>().is_err(), "{text}");
    }
    assert!(namespace("shop").is_ok() && namespace("").is_err() && namespace("a.b").is_err());
}
