//! Server-side apply and `metadata.managedFields`: the same requests to both servers lead to the same answers.
//!
//! A script is a list of requests over raw HTTP, each with the code that it must get, so that two servers that are both
//! wrong don't pass. What is different by nature (uids, times, versions, addresses) is replaced before answers are
//! compared: versions by their order in the script, so that one that wrongly changes, or doesn't, is seen.

mod built_in;
mod custom;
mod fields;

use std::collections::HashMap;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use kube::client::Body;
use serde_json::{Value, json};

use crate::cluster::Context;
use crate::server::write_private;
use crate::trial::Case;

/// How long one run of kubectl may take.
const KUBECTL: Duration = Duration::from_secs(60);
/// How the requests name themselves, where they name no field manager.
const AGENT: &str = "suite-agent/1.0 (test)";

/// One request. `{ns}`, `{group}`, `{id}` and `{rv}` (of the last answer) are filled in.
#[derive(Clone, Copy)]
struct Step {
    /// A method, or a kind of patch: `APPLY`, `MERGE`, `JSON`, `STRATEGIC`; or `CRD`, which creates one and gives it as it
    /// is once it is served.
    verb: &'static str,
    path: &'static str,
    body: &'static str,
    /// The code that it must get.
    code: u16,
}

const fn step(verb: &'static str, path: &'static str, body: &'static str, code: u16) -> Step {
    Step { verb, path, body, code }
}

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::both("apply", "updates_are_tracked", |e, r| both(e, r, fields::UPDATES)),
        Case::both("apply", "configurations_are_merged", |e, r| both(e, r, fields::APPLIES)),
        Case::both("apply", "requests_are_refused", |e, r| both(e, r, fields::REFUSED)),
        Case::both("apply", "built_in_kinds_are_tracked", |e, r| both(e, r, built_in::CREATED)),
        Case::both("apply", "built_in_kinds_are_applied", |e, r| both(e, r, built_in::APPLIED)),
        Case::both("apply", "custom_kinds_are_tracked_and_applied", |e, r| both(e, r, custom::THINGS)),
        Case::both("apply", "kubectl_applies", kubectl_applies),
    ]
}

async fn both(embedded: Context, real: Context, steps: &'static [Step]) -> anyhow::Result<()> {
    let (ours, theirs) = (play(&embedded, steps).await?, play(&real, steps).await?);
    let mut wrong = Vec::new();
    for (step, (ours, theirs)) in steps.iter().zip(ours.iter().zip(&theirs)) {
        let title = format!("{} {} {}", step.verb, step.path, step.body);
        if theirs.0 != step.code {
            wrong.push(format!("{title}\n  the real server says {}, not {}: {}", theirs.0, step.code, theirs.1));
        }
        if ours != theirs {
            wrong.push(format!("{title}\n  embedded {} real {}{}", ours.0, theirs.0, differences(&ours.1, &theirs.1)));
        }
    }
    ensure!(wrong.is_empty(), "{} of {} steps differ:\n{}", wrong.len(), steps.len(), wrong.join("\n"));
    Ok(())
}

/// What differs, one line a place.
fn differences(ours: &Value, theirs: &Value) -> String {
    let mut out = String::new();
    compare("", ours, theirs, &mut out);
    out
}

fn compare(path: &str, ours: &Value, theirs: &Value, out: &mut String) {
    match (ours, theirs) {
        (Value::Object(a), Value::Object(b)) => {
            for (name, value) in a {
                compare(&format!("{path}.{name}"), value, b.get(name).unwrap_or(&Value::Null), out);
            }
            for (name, value) in b.iter().filter(|(name, _)| !a.contains_key(*name)) {
                compare(&format!("{path}.{name}"), &Value::Null, value, out);
            }
        }
        (Value::Array(a), Value::Array(b)) if a.len() == b.len() => {
            for (index, (a, b)) in a.iter().zip(b).enumerate() {
                compare(&format!("{path}[{index}]"), a, b, out);
            }
        }
        _ if ours != theirs => out.push_str(&format!("\n  {path}: embedded {ours} real {theirs}")),
        _ => {}
    }
}

type Answer = (u16, Value);

async fn play(ctx: &Context, steps: &[Step]) -> anyhow::Result<Vec<Answer>> {
    let mut versions = HashMap::new();
    let mut answers = Vec::new();
    let mut last = String::new();
    for step in steps {
        let fill = |text: &str| {
            text.replace("{ns}", &ctx.namespace)
                .replace("{group}", &ctx.group())
                .replace("{id}", &ctx.id)
                .replace("{rv}", &last)
        };
        let verb = if step.verb == "CRD" { "POST" } else { step.verb };
        let (mut code, mut answer) = request(ctx, verb, &fill(step.path), &fill(step.body)).await?;
        if step.verb == "CRD" && code == 201 {
            crate::server::served(&ctx.admin, &answer).await?;
            let name = answer["metadata"]["name"].as_str().unwrap_or_default();
            (code, answer) = request(ctx, "GET", &format!("{}/{name}", step.path), "").await?;
        }
        if let Some(version) = answer["metadata"]["resourceVersion"].as_str() {
            version.clone_into(&mut last);
        }
        answers.push((code, normalised(ctx, answer, &mut versions)));
    }
    Ok(answers)
}

async fn request(ctx: &Context, verb: &str, path: &str, body: &str) -> anyhow::Result<Answer> {
    let (method, kind) = match verb {
        "APPLY" => ("PATCH", "application/apply-patch+yaml"),
        "MERGE" => ("PATCH", "application/merge-patch+json"),
        "JSON" => ("PATCH", "application/json-patch+json"),
        "STRATEGIC" => ("PATCH", "application/strategic-merge-patch+json"),
        method => (method, "application/json"),
    };
    let request = http::Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", kind)
        .header("user-agent", AGENT)
        .body(Body::from(body.as_bytes().to_vec()))?;
    let response = ctx.admin.client().send(request).await.with_context(|| format!("{verb} {path}"))?;
    let code = response.status().as_u16();
    let bytes = response.into_body().collect_bytes().await?;
    Ok((code, serde_json::from_slice(&bytes).with_context(|| format!("{verb} {path}"))?))
}

/// An answer without what is different by nature.
fn normalised(ctx: &Context, mut answer: Value, versions: &mut HashMap<String, usize>) -> Value {
    clean(&mut answer, &ctx.id, versions);
    for pointer in ["/details/causes", "/metadata/managedFields"] {
        // Their order is that of a Go map, or of times.
        if let Some(list) = answer.pointer_mut(pointer).and_then(Value::as_array_mut) {
            list.sort_by_key(ToString::to_string);
        }
    }
    if let Some(Value::String(message)) = answer.get_mut("message") {
        let mut lines: Vec<&str> = message.lines().collect();
        lines.sort_unstable();
        *message = lines.join("\n");
    }
    answer
}

fn clean(value: &mut Value, id: &str, versions: &mut HashMap<String, usize>) {
    match value {
        Value::Object(members) => {
            for (name, value) in members {
                match (name.as_str(), &*value) {
                    ("resourceVersion", Value::String(version)) => {
                        let next = versions.len();
                        *value = format!("version {}", versions.entry(version.clone()).or_insert(next)).into();
                    }
                    (
                        "uid"
                        | "time"
                        | "creationTimestamp"
                        | "deletionTimestamp"
                        | "lastTransitionTime"
                        | "clusterIP"
                        | "batch.kubernetes.io/controller-uid"
                        | "controller-uid",
                        Value::String(_),
                    ) => *value = format!("some {name}").into(),
                    ("clusterIPs", _) => *value = "some addresses".into(),
                    _ => clean(value, id, versions),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| clean(item, id, versions)),
        Value::String(text) => *text = text.replace(id, "ID"),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Arguments of kubectl, what it reads from its input, and whether it must succeed.
const KUBECTL_STEPS: &[(&str, &str, bool)] = &[
    ("apply -f -", "{apiVersion: v1, kind: ConfigMap, metadata: {name: k}, data: {a: '1', b: '2'}}", true),
    ("apply --server-side -f -", "{apiVersion: v1, kind: ConfigMap, metadata: {name: k}, data: {a: '3'}}", true),
    ("get configmap k -o json --show-managed-fields", "", true),
    (
        "apply --server-side --field-manager=me -f -",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: k}, data: {a: '4'}}",
        false,
    ),
    (
        "apply --server-side --field-manager=me --force-conflicts -f -",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: k}, data: {a: '4'}}",
        true,
    ),
    ("label configmap k x=y", "", true),
    ("annotate configmap k x=y --field-manager=me", "", true),
    ("get configmap k -o json --show-managed-fields", "", true),
    (
        "apply --server-side --dry-run=server -f - -o json --show-managed-fields",
        "{apiVersion: v1, kind: ConfigMap, metadata: {name: k}, data: {c: '5'}}",
        true,
    ),
    ("apply -f -", "{apiVersion: v1, kind: ConfigMap, metadata: {name: k}, data: {a: '6'}}", true),
    ("get configmap k -o yaml", "", true),
    (
        "create -f -",
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: i, image: 'i:1'}]}}}}",
        true,
    ),
    ("set image deployment/d i=i:2", "", true),
    ("get deployment d -o json --show-managed-fields", "", true),
    (
        "apply --server-side -f -",
        "{apiVersion: apps/v1, kind: Deployment, metadata: {name: d}, spec: {replicas: 3}}",
        false,
    ),
    ("apply --server-side -f -", "{apiVersion: v1, kind: ConfigMap, metadata: {name: n}, odd: 1}", false),
];

async fn kubectl_applies(embedded: Context, real: Context) -> anyhow::Result<()> {
    let (ours, theirs) = (run_all(&embedded).await?, run_all(&real).await?);
    let mut wrong = Vec::new();
    for ((arguments, _, fine), (ours, theirs)) in KUBECTL_STEPS.iter().zip(ours.iter().zip(&theirs)) {
        if (theirs.0 == 0) != *fine {
            wrong.push(format!("kubectl {arguments}: the real server's exit code is {}: {}", theirs.0, theirs.1));
        }
        if ours != theirs {
            let more = differences(&ours.1, &theirs.1);
            wrong.push(format!("kubectl {arguments}: embedded {} real {}{more}", ours.0, theirs.0));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// The exit code, and output and errors normalised, of each run.
async fn run_all(ctx: &Context) -> anyhow::Result<Vec<(i32, Value)>> {
    let text = ctx.server.kubeconfig("admin", ctx.server.ca_file())?;
    let kubeconfig = write_private(ctx.server.logs(), &format!("{}.kubeconfig", ctx.id), &text)?;
    let build = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/components/build");
    let assets = std::process::Command::new(build).output()?;
    let kubectl = std::path::Path::new(String::from_utf8(assets.stdout)?.trim()).join("kubectl");
    let mut versions = HashMap::new();
    let mut done = Vec::new();
    for (arguments, input, _) in KUBECTL_STEPS {
        let mut child = tokio::process::Command::new(&kubectl)
            .args(["--namespace", &ctx.namespace])
            .args(arguments.split(' '))
            .env("KUBECONFIG", &kubeconfig)
            .env("HOME", ctx.server.logs())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| kubectl.display().to_string())?;
        let mut stdin = child.stdin.take().context("no input")?;
        tokio::io::AsyncWriteExt::write_all(&mut stdin, input.as_bytes()).await?;
        drop(stdin);
        let Ok(output) = tokio::time::timeout(KUBECTL, child.wait_with_output()).await else {
            bail!("kubectl {arguments} didn't end within {KUBECTL:?}");
        };
        let output = output?;
        let (out, errors) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
        let out = match serde_json::from_str(&out) {
            Ok(object) => normalised(ctx, object, &mut versions),
            Err(_) => lines(ctx, &out).into(),
        };
        let code = output.status.code().context("kubectl was killed")?;
        done.push((code, json!({ "output": out, "errors": lines(ctx, &errors) })));
    }
    Ok(done)
}

/// Text without what is different by nature.
fn lines(ctx: &Context, text: &str) -> String {
    let different = ["uid:", "resourceVersion:", "creationTimestamp:"];
    let kept = text.lines().filter(|line| !different.iter().any(|name| line.trim_start().starts_with(name)));
    kept.map(|line| line.replace(&ctx.id, "ID")).collect::<Vec<_>>().join("\n")
}
