//! `ringmaster rbac`: the rights that external rings need, as YAML for `kubectl apply`: Ringmaster's, or those of shards.
//!
//! Never grants anything: whoever applies it does. Never prints a wildcard, and never talks to an API server.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, IsTerminal as _, Read, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::str::FromStr;

use anyhow::{Context as _, anyhow, bail, ensure};
use ringmaster_core::dialect::{CONTROLLER_SHARDING_RING, RINGMASTER_RING, RingDialect};
use ringmaster_engine::print::Printer;
use serde::Deserialize;
use serde_json::{Value, json};

/// Largest file.
const MAX_BYTES: u64 = 4 << 20;
/// Longest name of a ring, in characters: it is part of the keys of labels.
const RING_NAME_MAX: usize = 63;
/// Longest name of an API group or account, in characters.
const DOMAIN_MAX: usize = 253;
/// Longest name of a namespace or resource, in characters.
const LABEL_MAX: usize = 63;

/// What precedes a ring's name in the name of its roles. No ring's name has a colon, so that none is another's.
static ROLES: [(&RingDialect, &str); 2] =
    [(&RINGMASTER_RING, "ringmaster:ring:"), (&CONTROLLER_SHARDING_RING, "ringmaster:controllerring:")];
/// What follows it in the name of its shards' roles.
const SHARDS: &str = ":shards";

/// On every resource of a ring: Ringmaster reads metadata, and patches labels.
const RINGMASTER_VERBS: &[&str] = &["get", "list", "watch", "patch"];
/// A shard takes its labels off a main object.
const MAIN_VERBS: &[&str] = &["get", "list", "watch", "patch"];
/// A shard makes what its main objects own.
const CONTROLLED_VERBS: &[&str] = &["get", "list", "watch", "create", "update", "patch", "delete"];
/// A shard keeps a Lease.
const LEASE_VERBS: &[&str] = &["get", "create", "update"];

/// Arguments of `ringmaster rbac`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Files with ControllerRings, of either group, as YAML or JSON; other objects in them are passed over. `-`, or no
    /// file: standard input
    #[arg(value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print what the rings' shards need; without it, what Ringmaster needs
    #[arg(long, requires = "account")]
    shard: bool,
    /// The ServiceAccount that gets the rights [default: ringmaster-system:ringmaster; none with --shard]
    #[arg(long, value_name = "NAMESPACE:NAME")]
    account: Option<Account>,
    /// With --shard: where the shards' Leases are [default: the account's namespace]
    #[arg(long, value_name = "NAMESPACE", requires = "shard", value_parser = namespace)]
    lease_namespace: Option<String>,
}

pub(crate) fn main(arguments: &Arguments, log: &Printer) -> ExitCode {
    match print(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::fail(log, 1, &error),
    }
}

fn print(arguments: &Arguments) -> anyhow::Result<()> {
    let account = arguments.account.clone().unwrap_or_else(Account::ringmaster);
    let whose = if arguments.shard {
        let leases = arguments.lease_namespace.clone().unwrap_or_else(|| account.namespace.clone());
        Whose::Shards { account, leases }
    } else {
        Whose::Ringmaster(account)
    };
    let input = [PathBuf::from("-")];
    if arguments.files.is_empty() && io::stdin().is_terminal() {
        bail!("name a file with ControllerRings, or give them on standard input: kubectl get controllerrings -o yaml");
    }
    let files: &[PathBuf] = if arguments.files.is_empty() { &input } else { &arguments.files };
    let mut rings = Vec::new();
    for path in files {
        rings.extend(read(path).and_then(|text| parse(&text)).with_context(|| named(path))?);
    }
    let mut seen = BTreeSet::new();
    for ring in &rings {
        ensure!(seen.insert(&ring.role), "ControllerRing {}: it is there twice; leave one", ring.name);
    }
    let text = yaml(&rights(&rings, &whose))?;
    io::stdout().lock().write_all(text.as_bytes()).context("writing to standard output")
}

fn named(path: &Path) -> String {
    if is_input(path) { "standard input".to_owned() } else { path.display().to_string() }
}

fn is_input(path: &Path) -> bool {
    path == Path::new("-")
}

fn read(path: &Path) -> anyhow::Result<String> {
    let from: Box<dyn Read> = if is_input(path) { Box::new(io::stdin().lock()) } else { Box::new(File::open(path)?) };
    let mut text = String::new();
    from.take(MAX_BYTES + 1).read_to_string(&mut text)?;
    ensure!(text.len() as u64 <= MAX_BYTES, "it has more than {MAX_BYTES} bytes; give the rings in smaller parts");
    Ok(text)
}

/// A ServiceAccount.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    namespace: String,
    name: String,
}

impl Account {
    /// That of `manifests/deploy`.
    fn ringmaster() -> Self {
        Self { namespace: "ringmaster-system".to_owned(), name: "ringmaster".to_owned() }
    }
}

impl FromStr for Account {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((namespace, name)) if is_label(namespace) && is_domain(name) => {
                Ok(Self { namespace: namespace.to_owned(), name: name.to_owned() })
            }
            _ => Err("give NAMESPACE:NAME of a ServiceAccount, such as shop:websites".to_owned()),
        }
    }
}

fn namespace(text: &str) -> Result<String, String> {
    if is_label(text) {
        return Ok(text.to_owned());
    }
    Err(format!("give a namespace: 1 to {LABEL_MAX} lower-case letters, digits and dashes"))
}

/// Who gets the rights.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Whose {
    Ringmaster(Account),
    Shards { account: Account, leases: String },
}

/// What is looked at of a ControllerRing.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ring {
    name: String,
    /// The name of its ClusterRole.
    role: String,
    resources: BTreeMap<Resource, Part>,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Resource {
    group: String,
    resource: String,
}

/// What a resource is in its ring. A resource that is both counts as the latter, which takes more rights.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    Main,
    Controlled,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Spec {
    resources: Vec<MainResource>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
struct MainResource {
    group: String,
    resource: String,
    controlled_resources: Vec<ControlledResource>,
}

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ControlledResource {
    group: String,
    resource: String,
}

/// The ControllerRings of a file: each a document, or in a list as `kubectl get -o yaml` prints it.
///
/// # Errors
/// If there is none, or one names what can't be granted; the field is named.
fn parse(text: &str) -> anyhow::Result<Vec<Ring>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)
        .map_err(|error| anyhow!("expected a ControllerRing as YAML or JSON: {error}"))?;
    let mut rings = Vec::new();
    for object in documents.into_iter().flat_map(items) {
        rings.extend(ring(&object)?);
    }
    let groups = ROLES.map(|(dialect, _)| dialect.group).join(" or ");
    ensure!(!rings.is_empty(), "expected a ControllerRing of {groups}, and found none");
    Ok(rings)
}

fn items(mut document: Value) -> Vec<Value> {
    let is_list = document["kind"].as_str().is_some_and(|kind| kind.ends_with("List"));
    match document.get_mut("items") {
        Some(Value::Array(items)) if is_list => std::mem::take(items),
        _ => vec![document],
    }
}

/// `None` if it is something else.
fn ring(object: &Value) -> anyhow::Result<Option<Ring>> {
    let group = object["apiVersion"].as_str().and_then(|version| version.split_once('/')).map(|(group, _)| group);
    let of_group = ROLES.iter().find(|(dialect, _)| group == Some(dialect.group));
    let Some((_, prefix)) = of_group.filter(|_| object["kind"] == "ControllerRing") else { return Ok(None) };
    let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
    ensure!(
        name.len() <= RING_NAME_MAX && is_domain(&name),
        "metadata.name of a ControllerRing: {name:?}; give 1 to {RING_NAME_MAX} lower-case letters, digits, dashes and dots"
    );
    let resources = resources(&object["spec"]).with_context(|| format!("ControllerRing {name}"))?;
    Ok(Some(Ring { role: [*prefix, name.as_str()].concat(), name, resources }))
}

fn resources(spec: &Value) -> anyhow::Result<BTreeMap<Resource, Part>> {
    let spec = Option::<Spec>::deserialize(spec).map_err(|error| anyhow!("spec: {error}"))?.unwrap_or_default();
    ensure!(!spec.resources.is_empty(), "spec.resources: name at least one");
    let mut resources = BTreeMap::new();
    for (at, main) in spec.resources.into_iter().enumerate() {
        let field = format!("spec.resources[{at}]");
        add(&mut resources, &field, Part::Main, main.group, main.resource)?;
        for (at, controlled) in main.controlled_resources.into_iter().enumerate() {
            let field = format!("{field}.controlledResources[{at}]");
            add(&mut resources, &field, Part::Controlled, controlled.group, controlled.resource)?;
        }
    }
    Ok(resources)
}

fn add(
    resources: &mut BTreeMap<Resource, Part>,
    field: &str,
    part: Part,
    group: String,
    resource: String,
) -> anyhow::Result<()> {
    ensure!(
        group.is_empty() || is_domain(&group),
        "{field}.group: {group:?} isn't an API group; give its name, such as apps, or \"\" for the core group"
    );
    ensure!(
        is_label(&resource),
        "{field}.resource: {resource:?} isn't a resource; give the plural name of a kind, such as configmaps"
    );
    let known = resources.entry(Resource { group, resource }).or_insert(part);
    *known = part.max(*known);
    Ok(())
}

fn is_label(text: &str) -> bool {
    let is_inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
    !text.is_empty()
        && text.len() <= LABEL_MAX
        && text.bytes().all(is_inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

fn is_domain(text: &str) -> bool {
    text.len() <= DOMAIN_MAX && text.split('.').all(is_label)
}

/// The objects that grant the rights, a role and its binding after each other.
fn rights(rings: &[Ring], whose: &Whose) -> Vec<Value> {
    let of_ring = |ring: &Ring| match whose {
        Whose::Ringmaster(account) => {
            let rules = rules(ring, |_| RINGMASTER_VERBS);
            Vec::from(grant(&ring.role, None, &rules, account))
        }
        Whose::Shards { account, leases } => {
            let name = [ring.role.as_str(), SHARDS].concat();
            let on_objects = rules(ring, |part| match part {
                Part::Main => MAIN_VERBS,
                Part::Controlled => CONTROLLED_VERBS,
            });
            let on_leases = [rule("coordination.k8s.io", &["leases"], LEASE_VERBS)];
            let mut objects = Vec::from(grant(&name, None, &on_objects, account));
            objects.extend(grant(&name, Some(leases), &on_leases, account));
            objects
        }
    };
    rings.iter().flat_map(of_ring).collect()
}

/// One rule for each group and each list of verbs, so that what is granted is easy to read.
fn rules(ring: &Ring, verbs: impl Fn(Part) -> &'static [&'static str]) -> Vec<Value> {
    let mut all: BTreeMap<(&str, &[&str]), Vec<&str>> = BTreeMap::new();
    for (resource, part) in &ring.resources {
        all.entry((resource.group.as_str(), verbs(*part))).or_default().push(resource.resource.as_str());
    }
    all.into_iter().map(|((group, verbs), resources)| rule(group, &resources, verbs)).collect()
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> Value {
    json!({"apiGroups": [group], "resources": resources, "verbs": verbs})
}

/// A ClusterRole and its binding, or in a namespace a Role and its binding.
fn grant(name: &str, namespace: Option<&str>, rules: &[Value], account: &Account) -> [Value; 2] {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let version = format!("{GROUP}/v1");
    let (kind, binding_kind) = match namespace {
        Some(_) => ("Role", "RoleBinding"),
        None => ("ClusterRole", "ClusterRoleBinding"),
    };
    let mut metadata = json!({"name": name});
    if let Some(namespace) = namespace {
        metadata["namespace"] = json!(namespace);
    }
    let role = json!({"apiVersion": version, "kind": kind, "metadata": metadata, "rules": rules});
    let binding = json!({
        "apiVersion": version,
        "kind": binding_kind,
        "metadata": metadata,
        "roleRef": {"apiGroup": GROUP, "kind": kind, "name": name},
        "subjects": [{"kind": "ServiceAccount", "name": account.name, "namespace": account.namespace}],
    });
    [role, binding]
}

fn yaml(objects: &[Value]) -> anyhow::Result<String> {
    let mut text = String::new();
    for object in objects {
        let document = serde_saphyr::to_string(object).map_err(|error| anyhow!("writing YAML: {error}"))?;
        text.extend(["---\n", document.trim_end(), "\n"]);
    }
    Ok(text)
}

#[cfg(test)]
#[path = "rbac_tests.rs"]
mod tests;
