//! docs/troubleshooting.md: each question's commands, as they stand there, against a scene with that very fault.
//!
//! Never edits a command: what a stranger copies is what runs, and the answer must be in what it prints.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};

use super::metrics::promtool;
use super::scene::{LATER, SOON, Scene, config_map, obey, spec};
use crate::built::Built;
use crate::cluster::Context;
use crate::hook::Reply;
use crate::objects::{Resource, read_yaml};
use crate::process::Ringmaster;
use crate::scrape::free_port;
use crate::server::{components, write_private};
use crate::trial::{Case, Scratch};
use crate::wait;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

const WRONG: &str = "Is anything wrong at all?";
const WHICH: &str = "Which objects fail, and why?";
const WHY: &str = "Why does this object fail?";
const SINCE: &str = "Since when does this object fail?";
const CHILDREN: &str = "What did Ringmaster do to this object's children?";
const SYNCED: &str = "Is this object's last change synced?";
const NOTHING: &str = "Why does a controller do nothing?";
const GOES: &str = "Why doesn't a controller go?";
const WEBHOOK: &str = "Does the webhook answer, and what?";
const AGAIN: &str = "Which parents did the hook refuse, and how are they called again?";
const SLOW: &str = "Is it slow in the queue, in the hook or at the API server?";
const STUCK: &str = "Is a controller stuck?";
const WORKERS: &str = "Are there too few workers?";
const REFUSED: &str = "Does the API server refuse or fail?";
const LIMIT: &str = "Is a limit hit?";
const MEMORY: &str = "What takes the memory?";
const READY: &str = "Is Ringmaster itself ready?";
const LOG: &str = "How do I turn the log up?";
const REPORT: &str = "What belongs into a bug report?";

/// All of them, in the order of the file.
const QUESTIONS: [&str; 19] = [
    WRONG, WHICH, WHY, SINCE, CHILDREN, SYNCED, NOTHING, GOES, WEBHOOK, AGAIN, SLOW, STUCK, WORKERS, REFUSED, LIMIT,
    MEMORY, READY, LOG, REPORT,
];

/// How long the API server is silent.
const FROZEN: Duration = Duration::from_secs(3);
/// How long a slow hook takes.
const DELAY: Duration = Duration::from_millis(400);
/// One command may take this long.
const COMMAND_SECONDS: &str = "30";

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    let case = |name, run: Run| Case::new("troubleshooting", name, run).needs(components);
    vec![
        case("a_failing_object", |ctx| Box::pin(failing_object(ctx))),
        case("a_controller_that_does_nothing", |ctx| Box::pin(idle_controller(ctx))),
        case("parents_that_the_hook_refused", |ctx| Box::pin(refused_parents(ctx))),
        case("a_slow_hook_and_a_full_queue", |ctx| Box::pin(slow_hook(ctx))),
        case("a_slow_api_server", |ctx| Box::pin(slow_api_server(ctx))).own_server(),
        case("an_api_server_that_refuses", |ctx| Box::pin(refusals(ctx))),
        case("a_limit_that_is_hit", |ctx| Box::pin(limit(ctx))),
        case("the_log_and_readiness", |ctx| Box::pin(log(ctx))),
        Case::alone("troubleshooting", "every_question_has_a_trial", every_question),
        Case::alone("troubleshooting", "expressions_are_prometheus", expressions).needs(promtool),
    ]
}

type Run = fn(Context) -> std::pin::Pin<Box<dyn Future<Output = anyhow::Result<()>>>>;

fn document() -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(Path::new(ROOT).join("docs/troubleshooting.md"))?)
}

/// The blocks of one language in a text.
pub(super) fn blocks<'a>(text: &'a str, language: &str) -> Vec<&'a str> {
    let open = format!("```{language}\n");
    text.split(open.as_str()).skip(1).filter_map(|block| block.split_once("```")).map(|(block, _)| block).collect()
}

/// The commands under a question.
fn commands(question: &str) -> anyhow::Result<String> {
    let text = document()?;
    let section =
        text.split("\n## ").find(|section| section.split_once('\n').is_some_and(|(head, _)| head == question));
    let commands = blocks(section.with_context(|| format!("no question {question:?}"))?, "sh").concat();
    ensure!(!commands.is_empty(), "no command under {question:?}");
    Ok(commands)
}

/// Somebody who knows the names of things, and has the documentation.
struct Stranger {
    env: Vec<(&'static str, String)>,
    dir: PathBuf,
}

impl Stranger {
    /// Asks about the controller `c` of the trial, and one of its parents.
    fn new(ctx: &Context, parents: &Resource, name: &str, ports: [u16; 2]) -> anyhow::Result<Self> {
        let Built::Found(kubectl) = components()? else { bail!("no kubectl") };
        let dir = ctx.server.logs().join(format!("{}-stranger-{name}", ctx.id));
        std::fs::create_dir_all(&dir)?;
        let text = ctx.server.kubeconfig("admin", ctx.server.ca_file())?;
        let kubeconfig = write_private(&dir, "kubeconfig", &text)?;
        let [metrics, health] = ports;
        let env = vec![
            ("PATH", format!("{}:{}", kubectl.display(), std::env::var("PATH")?)),
            ("KUBECONFIG", kubeconfig.display().to_string()),
            ("HOME", dir.display().to_string()),
            ("KIND", format!("{}.{}", parents.plural, parents.group())),
            ("NS", ctx.namespace.clone()),
            ("NAME", name.to_owned()),
            ("CONTROLLER", ctx.controller_name("c")),
            ("RELEASE_NS", ctx.namespace.clone()),
            ("METRICS", format!("http://127.0.0.1:{metrics}/metrics")),
            ("HEALTH", format!("http://127.0.0.1:{health}")),
        ];
        Ok(Self { env, dir })
    }

    /// All that the commands under a question print.
    fn ask(&self, question: &str) -> anyhow::Result<String> {
        let script = format!("exec 2>&1\n{}", commands(question)?);
        let output = Command::new("timeout")
            .args([COMMAND_SECONDS, "bash", "-c", &script])
            .current_dir(&self.dir)
            .env_clear()
            .envs(self.env.iter().cloned())
            .stdin(Stdio::null())
            .output()?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Asks until one line of the answer holds all `words`.
    async fn reads(&self, ctx: &Context, question: &str, words: &[&str]) -> anyhow::Result<String> {
        let ask = async || {
            let answer = self.ask(question)?;
            let line = answer.lines().find(|line| words.iter().all(|word| line.contains(word)));
            line.map(ToOwned::to_owned).with_context(|| answer.clone())
        };
        ctx.wait(&format!("{question:?} is answered with {words:?}"), SOON, ask).await
    }

    /// Asks until a series is as `holds` wants it: the number at the end of the line with these words.
    async fn counts(
        &self,
        ctx: &Context,
        question: &str,
        words: &[&str],
        holds: impl Fn(f64) -> bool,
    ) -> anyhow::Result<f64> {
        let ask = async || {
            let answer = self.ask(question)?;
            let line = answer.lines().find(|line| words.iter().all(|word| line.contains(word)));
            let number: f64 = line.and_then(|line| line.rsplit(' ').next()).with_context(|| answer.clone())?.parse()?;
            ensure!(holds(number), "{answer}");
            Ok(number)
        };
        ctx.wait(&format!("{question:?} is answered with a number at {words:?}"), SOON, ask).await
    }
}

/// A scene with ports, and a stranger who asks about a thing.
async fn scene(ctx: Context, name: &str, args: &[&str]) -> anyhow::Result<(Scene, Stranger)> {
    let ports = [free_port()?, free_port()?];
    let mut args: Vec<String> = args.iter().map(|arg| (*arg).to_owned()).collect();
    args.push(format!("--metrics-address=127.0.0.1:{}", ports[0]));
    args.push(format!("--health-probe-bind-address=127.0.0.1:{}", ports[1]));
    let scene = Scene::with_args(ctx, &args).await?;
    let stranger = Stranger::new(&scene.ctx, &scene.things, name, ports)?;
    Ok((scene, stranger))
}

fn now() -> anyhow::Result<String> {
    let output = Command::new("date").args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]).output()?;
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

async fn failing_object(ctx: Context) -> anyhow::Result<()> {
    let before = now()?;
    let (scene, stranger) = scene(ctx, "bad", &[]).await?;
    let ctx = &scene.ctx;
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let controller = ctx.controller_name("c");
    let child = |kind: &str, name: &str| json!({ "apiVersion": "v1", "kind": kind, "metadata": { "name": name } });
    scene.thing("good", json!({ "children": [child("ConfigMap", "a")] })).await?;
    scene.thing("bad", json!({ "children": [child("Secret", "s")] })).await?;

    stranger.reads(ctx, WRONG, &[&controller, "things", "True", "Running"]).await?;
    stranger.counts(ctx, WRONG, &["ringmaster_parents{", &controller], |n| n == 2.0).await?;
    stranger.counts(ctx, WRONG, &["ringmaster_parents_failing{", &controller], |n| n == 1.0).await?;
    let longest = ["ringmaster_parents_failing_longest_seconds{", controller.as_str()];
    stranger.counts(ctx, WRONG, &longest, |n| n > 0.0).await?;
    stranger.reads(ctx, WHICH, &["thing/bad", &controller, "Secret", "isn't declared"]).await?;
    stranger.reads(ctx, WHY, &["Warning", "SyncError", "isn't declared"]).await?;

    let first = stranger.reads(ctx, SINCE, &["SyncError", "isn't declared"]).await?;
    let first = first.split_whitespace().next().unwrap_or_default();
    let after = now()?;
    let second = |time: &str| time.get(..19).map(ToOwned::to_owned).unwrap_or_default();
    let is_now = |time: &str| second(&before) <= second(time) && second(time) <= second(&after);
    ensure!(is_now(first), "{first} isn't between {before} and {after}");
    let since = stranger.reads(ctx, SINCE, &["1 of 2 parents failed, of", "bad since "]).await?;
    let since = since.split_once("bad since ").map(|(_, rest)| rest.to_owned()).unwrap_or_default();
    ensure!(is_now(&since), "{since} isn't between {before} and {after}");

    stranger.reads(ctx, SYNCED, &["generation 1, synced"]).await?;
    ensure!(stranger.ask(SYNCED)?.trim_end().ends_with("synced"), "{}", stranger.ask(SYNCED)?);
    let good = Stranger::new(ctx, &scene.things, "good", [1, 1])?;
    good.reads(ctx, SYNCED, &["generation 1, synced 1"]).await?;
    good.reads(ctx, CHILDREN, &["ChildCreated", "thing/good", "created ConfigMap a"]).await?;
    let words = ["ringmaster_cache_bytes{", "kind=\"ConfigMap\""];
    stranger.counts(ctx, MEMORY, &words, |bytes| bytes > 100.0).await?;
    stranger.counts(ctx, MEMORY, &["process_resident_memory_bytes"], |bytes| bytes > 1_000_000.0).await?;

    // The report holds what was asked above.
    stranger.ask(REPORT)?;
    let report = std::fs::read_to_string(stranger.dir.join("ringmaster-report.txt"))?;
    for word in [controller.as_str(), "SyncError", "ringmaster_parents_failing", "Server Version", "childResources"] {
        ensure!(report.contains(word), "no {word} in the report:\n{report}");
    }

    scene.wants("bad", json!({ "children": [child("ConfigMap", "b")] })).await?;
    stranger.reads(ctx, WHY, &["Normal", "SyncRecovered", "synced again"]).await?;
    stranger.counts(ctx, WRONG, &["ringmaster_parents_failing{", &controller], |n| n == 0.0).await?;
    stranger.counts(ctx, WRONG, &longest, |n| n == 0.0).await?;
    stranger.reads(ctx, SYNCED, &["generation 2, synced 2"]).await?;
    Ok(())
}

async fn idle_controller(ctx: Context) -> anyhow::Result<()> {
    let (scene, stranger) = scene(ctx, "p", &[]).await?;
    let ctx = &scene.ctx;
    // Its parents' kind isn't there.
    let gadgets = ctx.namespaced(&scene.things.api_version, "Gadget", "gadgets");
    ctx.controller("c", spec(&gadgets, &scene.hook.url("/sync"), "InPlace")).await?;
    let wanted = ["Ready=False ParentKindNotServed since 20", "doesn't serve gadgets"];
    stranger.reads(ctx, NOTHING, &wanted).await?;
    stranger.reads(ctx, NOTHING, &["Accepted=True Valid"]).await?;
    stranger.reads(ctx, WRONG, &[&ctx.controller_name("c"), "gadgets", "False", "ParentKindNotServed"]).await?;
    // A controller of Metacontroller's group, in which something is wrong.
    let composites =
        Resource::new("metacontroller.k8s.io/v1alpha1", "CompositeController", "compositecontrollers", None);
    let mut spec = scene.spec("InPlace");
    spec["hooks"]["sync"]["version"] = "v9".into();
    let metadata = json!({ "name": ctx.controller_name("m"), "labels": { "suite": ctx.id } });
    ctx.admin.create(&composites, json!({ "metadata": metadata, "spec": spec })).await?;
    let wanted = ["CreateError", &ctx.controller_name("m"), "spec.hooks.sync.version"];
    stranger.reads(ctx, NOTHING, &wanted).await?;
    // The first one is deleted, and somebody keeps it.
    let (kind, name) = (Context::controllers(), ctx.controller_name("c"));
    let held = |finalizers: Value| json!({ "metadata": { "finalizers": finalizers } });
    ctx.admin.patch_merge(&kind, &name, &held(json!(["example.com/held"]))).await?;
    ctx.admin.delete(&kind, &name).await?;
    stranger.reads(ctx, GOES, &["deleted 20", "kept by", "example.com/held"]).await?;
    stranger.reads(ctx, GOES, &["Deleting since 20", "is being deleted"]).await?;
    ctx.admin.patch_merge(&kind, &name, &held(Value::Null)).await?;
    Ok(())
}

async fn refused_parents(ctx: Context) -> anyhow::Result<()> {
    const PARENTS: [&str; 2] = ["one", "other"];
    let (scene, stranger) = scene(ctx, "one", &[]).await?;
    scene.hook.set(|_, _| Reply::status(422));
    scene.ctx.controller("c", scene.spec("InPlace")).await?;
    let controller = scene.ctx.controller_name("c");
    for parent in PARENTS {
        let thing = scene.thing(parent, json!({})).await?;
        scene.event(&thing, "SyncError", &["422", "not called again"]).await?;
    }
    scene.hook.set(obey);
    scene.no_call("nobody can know that the hook is mended").await?;
    // Once: each time it calls all of them again.
    let answer = stranger.ask(AGAIN)?;
    let says = |words: &[&str]| answer.lines().any(|line| words.iter().all(|word| line.contains(word)));
    for parent in PARENTS {
        ensure!(says(&[&format!("thing/{parent} "), controller.as_str(), "not called again"]), "{parent}: {answer}");
    }
    ensure!(says(&["ringmaster_parents_refused{", controller.as_str(), "} 2"]), "{answer}");
    for parent in PARENTS {
        scene.synced(parent).await?;
    }
    Ok(())
}

async fn slow_hook(ctx: Context) -> anyhow::Result<()> {
    let (scene, stranger) = scene(ctx, "p0", &["--workers=2"]).await?;
    let ctx = &scene.ctx;
    scene.hook.set(|request, info| obey(request, info).delay(DELAY));
    ctx.controller("c", scene.spec("InPlace")).await?;
    let controller = ctx.controller_name("c");
    for number in 0..30 {
        scene.thing(&format!("p{number}"), json!({})).await?;
    }
    stranger.counts(ctx, WORKERS, &["workqueue_depth{", &controller], |waiting| waiting > 0.0).await?;
    stranger.counts(ctx, WORKERS, &["active_workers{", &controller], |running| running == 2.0).await?;
    stranger.counts(ctx, WORKERS, &["max_concurrent_reconciles{", &controller], |most| most == 2.0).await?;
    let milliseconds = |line: &str| line.trim_end_matches(" ms").rsplit(' ').next().and_then(|n| n.parse::<f64>().ok());
    let ask = async || {
        let answer = stranger.ask(SLOW)?;
        let of = |name: &str| {
            let line = answer.lines().find(|line| line.starts_with(name));
            line.and_then(milliseconds).with_context(|| answer.clone())
        };
        let (queue, hook, api) = (of("workqueue_queue ")?, of("ringmaster_hook ")?, of("rest_client_request ")?);
        ensure!(hook > 300.0 && hook < 3000.0 && api < hook && queue > hook, "{answer}");
        Ok(())
    };
    ctx.wait("the hook is what is slow, and parents wait for it", LATER, ask).await?;

    // It never comes back within a minute.
    scene.hook.set(|request, info| obey(request, info).delay(LATER));
    scene.thing("hangs", json!({})).await?;
    let longest = ["workqueue_longest_running_processor_seconds{", controller.as_str()];
    stranger.counts(ctx, STUCK, &longest, |seconds| seconds > 1.5).await?;
    stranger.counts(ctx, STUCK, &["active_workers{", &controller], |running| running >= 1.0).await?;

    scene.hook.set(|_, _| Reply::status(503));
    let words = ["ringmaster_hook_requests_total{", controller.as_str(), "code=\"503\""];
    scene.thing("refused", json!({})).await?;
    stranger.counts(ctx, WEBHOOK, &words, |calls| calls >= 1.0).await?;
    Ok(())
}

async fn slow_api_server(ctx: Context) -> anyhow::Result<()> {
    let (scene, stranger) = scene(ctx, "p0", &[]).await?;
    let ctx = &scene.ctx;
    // Each call wants something else, so that each second all parents write.
    scene.hook.set(|request, info| {
        let name = request["parent"]["metadata"]["name"].as_str().unwrap_or_default();
        Reply::json(&json!({ "children": [config_map(name, json!({ "n": info.number.to_string() }))] }))
    });
    for number in 0..10 {
        scene.thing(&format!("p{number}"), Value::Null).await?;
    }
    let mut spec = scene.spec("InPlace");
    spec["resyncPeriodSeconds"] = 1.into();
    ctx.controller("c", spec).await?;
    scene.map("p9", "is made", |_| Ok(())).await?;
    ctx.server.freeze_api(true)?;
    let frozen = wait::stays("ringmaster runs", FROZEN, async || scene.ringmaster.check()).await;
    ctx.server.freeze_api(false)?;
    frozen?;
    let ask = async || {
        let answer = stranger.ask(SLOW)?;
        let of = |name: &str| {
            let line =
                answer.lines().find_map(|line| line.strip_prefix(name)).and_then(|rest| rest.strip_suffix(" ms"));
            line.and_then(|number| number.trim().parse::<f64>().ok()).with_context(|| answer.clone())
        };
        let (hook, api) = (of("ringmaster_hook ")?, of("rest_client_request ")?);
        ensure!(api > 20.0 && api > 2.0 * hook, "{answer}");
        Ok(())
    };
    ctx.wait("the API server is what is slow", SOON, ask).await
}

async fn refusals(ctx: Context) -> anyhow::Result<()> {
    let (scene, stranger) = scene(ctx, "p", &[]).await?;
    let ctx = &scene.ctx;
    // A child kind that may be read, but not written.
    let rule = json!([{ "apiGroups": [""], "resources": ["services"], "verbs": ["get", "list", "watch"] }]);
    ctx.grant(&rule).await?;
    let mut spec = scene.spec("InPlace");
    spec["childResources"] = json!([{ "apiVersion": "v1", "resource": "services" }]);
    ctx.controller("c", spec).await?;
    let service = json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "s" },
        "spec": { "clusterIP": "None", "ports": [{ "port": 80 }] } });
    scene.thing("p", json!({ "children": [service] })).await?;
    let words = ["rest_client_requests_total{", "code=\"403\"", "method=\"POST\""];
    stranger.counts(ctx, REFUSED, &words, |calls| calls >= 1.0).await?;
    stranger.reads(ctx, WHICH, &["thing/p", "services", "forbidden"]).await?;
    stranger.reads(ctx, NOTHING, &["Ready=False SyncsFailing since 20", "services", "forbidden"]).await?;
    Ok(())
}

async fn limit(ctx: Context) -> anyhow::Result<()> {
    let (scene, stranger) = scene(ctx, "p", &["--events-burst=1"]).await?;
    let ctx = &scene.ctx;
    ensure!(stranger.ask(LIMIT)?.trim().is_empty(), "{}", stranger.ask(LIMIT)?);
    ctx.controller("c", scene.spec("InPlace")).await?;
    let wish = |x: &str| json!({ "children": [config_map("a", json!({ "x": x }))] });
    scene.thing("p", wish("1")).await?;
    scene.map("a", "is made", |_| Ok(())).await?;
    scene.wants("p", wish("2")).await?;
    stranger.counts(ctx, LIMIT, &["ringmaster_limit_hits_total{", "limit=\"events_rate\""], |hits| hits >= 1.0).await?;
    Ok(())
}

async fn log(ctx: Context) -> anyhow::Result<()> {
    // The shipped Deployment, in the trial's namespace; no kubelet runs it, so the trial is the kubelet.
    let documents = read_yaml(&Path::new(ROOT).join("manifests/deploy/deployment.yaml"))?;
    let mut deployment = documents.into_iter().next().context("no Deployment")?;
    deployment["metadata"]["namespace"] = ctx.namespace.clone().into();
    ctx.admin.apply(&deployment).await?;
    let things = ctx.crd("Thing", "things", crate::cluster::Scope::Namespaced, None).await?;
    let ports = [free_port()?, free_port()?];
    let stranger = Stranger::new(&ctx, &things, "p", ports)?;
    stranger.reads(&ctx, LOG, &["deployment.apps/ringmaster", "env updated"]).await?;
    let deployments = ctx.namespaced("apps/v1", "Deployment", "deployments");
    let deployment = ctx.admin.get(&deployments, "ringmaster").await?;
    let env = deployment.pointer("/spec/template/spec/containers/0/env").and_then(Value::as_array);
    let set = env.into_iter().flatten().find(|entry| entry["name"] == "RINGMASTER_LOG_LEVEL");
    let level = set.and_then(|entry| entry["value"].as_str()).context("no RINGMASTER_LOG_LEVEL")?;

    // Nobody answers before it runs.
    ensure!(stranger.ask(READY)?.trim().is_empty(), "{}", stranger.ask(READY)?);
    ctx.grant(&Context::rules_for(&[&things, &ctx.configmaps()])).await?;
    let build = Ringmaster::build(&ctx).env("RINGMASTER_LOG_LEVEL", level);
    let ringmaster = build.arg(format!("--health-probe-bind-address=127.0.0.1:{}", ports[1])).start()?;
    stranger.reads(&ctx, READY, &["ok"]).await?;
    // A failed sync of a hook that is down is a line only there.
    let address = crate::hook::refusing_address()?;
    ctx.controller("c", spec(&things, &format!("http://{address}/sync"), "InPlace")).await?;
    ctx.admin.create(&things, json!({ "metadata": { "name": "p" } })).await?;
    let line = ringmaster.wait_log(&ctx, "sync failed", SOON).await?;
    ensure!(line.contains("DEBUG") && line.contains(&address.to_string()), "{line}");
    Ok(())
}

async fn every_question(_: Scratch) -> anyhow::Result<()> {
    let text = document()?;
    let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("## ")).collect();
    ensure!(headings == QUESTIONS, "{headings:?}");
    // What links say is there.
    let anchor = |heading: &str| {
        let plain = heading.to_lowercase().replace(' ', "-");
        plain.chars().filter(|c| c.is_alphanumeric() || *c == '-').collect::<String>()
    };
    let anchors: BTreeSet<String> = headings.iter().map(|heading| anchor(heading)).collect();
    for link in text.split("](#").skip(1).filter_map(|rest| rest.split_once(')')).map(|(link, _)| link) {
        ensure!(anchors.contains(link), "no heading {link:?}");
    }
    QUESTIONS.iter().try_for_each(|question| commands(question).map(drop))
}

async fn expressions(scratch: Scratch) -> anyhow::Result<()> {
    let text = document()?;
    let expressions: Vec<&str> = blocks(&text, "promql").into_iter().flat_map(str::lines).collect();
    ensure!(expressions.len() >= 5, "{expressions:?}");
    let metrics = std::fs::read_to_string(Path::new(ROOT).join("docs/metrics.md"))?;
    let mut rules = Vec::new();
    for (index, expression) in expressions.iter().enumerate() {
        rules.push(json!({ "record": format!("r{index}"), "expr": expression }));
        let words = expression.split(|c: char| !c.is_alphanumeric() && c != '_');
        for word in
            words.filter(|word| word.contains("ringmaster_") || word.contains("rest_") || word.contains("workq"))
        {
            let name = word.strip_suffix("_bucket").unwrap_or(word);
            ensure!(metrics.contains(&format!("| `{name}` |")), "{name} isn't in docs/metrics.md: {expression}");
        }
    }
    let file = scratch.dir().join("rules.json");
    let groups = json!({ "groups": [{ "name": "troubleshooting", "rules": rules }] });
    std::fs::write(&file, groups.to_string())?;
    let Built::Found(promtool) = promtool()? else { bail!("no promtool") };
    let output = Command::new(promtool).args(["check", "rules"]).arg(&file).output()?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&said));
    Ok(())
}
