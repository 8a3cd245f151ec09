//! `/metrics`: what docs/metrics.md lists is what is served, and other people's tools read it.
//!
//! Never about single values but for those that a trial itself brings about.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context as _, anyhow, bail, ensure};
use rustls::pki_types::PrivateKeyDer;
use serde_json::json;

use super::scene::{SOON, config_map, obey, spec};
use crate::built::Built;
use crate::cluster::{Context, Scope};
use crate::hook::{Hook, RawHook, Reply, read_request};
use crate::objects::Resource;
use crate::process::{Build, Ringmaster};
use crate::scrape::{Metric, Scrape, free_port};
use crate::trial::Case;

/// Most parents whose syncs fill a pipe, and what Ringmaster keeps beside it, with lines of the log.
const FULL: usize = 1000;

/// How the names of what Metacontroller has too begin, and its hooks, one of which follows.
const PARITY: &str = "metacontroller_";
const HOOKS: [&str; 3] = ["sync", "finalize", "customize"];

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::new("metrics", "are_those_of_the_docs", are_those_of_the_docs),
        Case::new("metrics", "are_accepted_by_promtool", are_accepted_by_promtool).needs(promtool),
        Case::new("metrics", "metacontroller_names", metacontroller_names),
        Case::new("metrics", "tell_where_the_time_goes", tell_where_the_time_goes),
        Case::new("metrics", "count_the_lines_that_nobody_read", count_the_lines_that_nobody_read),
    ]
}

pub(super) fn promtool() -> anyhow::Result<Built> {
    let found = Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/promtool/find")).output()?;
    if found.status.success() {
        let path = String::from_utf8(found.stdout)?;
        return Ok(Built::Found(path.lines().last().context("no path")?.into()));
    }
    Ok(Built::Unavailable("no promtool: install Prometheus (see tests/promtool/find)".to_owned()))
}

/// A Ringmaster whose metrics are served, with a controller whose hook does as its parents say.
struct Watched {
    ringmaster: Ringmaster,
    hook: Hook,
    url: String,
    things: Resource,
    controller: String,
    ctx: Context,
}

impl Watched {
    async fn start(ctx: Context) -> anyhow::Result<Self> {
        Self::start_with(ctx, |build| build).await
    }

    async fn start_with(ctx: Context, change: impl FnOnce(Build<'_>) -> Build<'_>) -> anyhow::Result<Self> {
        let things = ctx.crd("Thing", "things", Scope::Namespaced, None).await?;
        ctx.grant(&Context::rules_for(&[&things, &ctx.configmaps()])).await?;
        let hook = Hook::start(obey)?;
        let port = free_port()?;
        let build = Ringmaster::build(&ctx).arg(format!("--metrics-address=127.0.0.1:{port}"));
        let ringmaster = change(build).start()?;
        ctx.controller("c", spec(&things, &hook.url("/sync"), "InPlace")).await?;
        let url = format!("http://127.0.0.1:{port}/metrics");
        let controller = ctx.controller_name("c");
        Ok(Self { ringmaster, hook, url, things, controller, ctx })
    }

    async fn thing(&self, name: &str) -> anyhow::Result<()> {
        let reply = json!({ "children": [config_map(name, json!({}))], "status": { "seen": true } });
        let body = json!({ "metadata": { "name": name }, "spec": { "reply": reply } });
        self.ctx.admin.create(&self.things, body).await.map(drop)
    }

    fn scrape(&self) -> anyhow::Result<Scrape> {
        Scrape::of(&self.url)
    }

    async fn until(&self, what: &str, holds: impl Fn(&Scrape) -> bool) -> anyhow::Result<Scrape> {
        let ask = async || {
            let scrape = self.scrape()?;
            ensure!(holds(&scrape), "{}", scrape.text);
            Ok(scrape)
        };
        self.ctx.wait(what, SOON, ask).await
    }
}

/// The tables of docs/metrics.md that have a type and labels; and the limits.
fn documented() -> anyhow::Result<(BTreeMap<String, Metric>, BTreeSet<String>)> {
    let text = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md"))?;
    let (mut metrics, mut limits) = (BTreeMap::new(), BTreeSet::new());
    for line in text.lines().filter(|line| line.starts_with("| `")) {
        let cells: Vec<&str> = line.trim_matches('|').split('|').map(str::trim).collect();
        let name = cells[0].trim_matches('`').to_owned();
        match cells.as_slice() {
            [_, kind, labels, _] => {
                let labels = labels.split(',').map(|label| label.trim().trim_matches('`').to_owned());
                let labels = labels.filter(|label| !label.is_empty()).collect();
                metrics.insert(name, Metric { kind: (*kind).to_owned(), labels });
            }
            [_, _] => drop(limits.insert(name)),
            _ => bail!("docs/metrics.md: {line}"),
        }
    }
    Ok((metrics, limits))
}

async fn are_those_of_the_docs(ctx: Context) -> anyhow::Result<()> {
    let watched = Watched::start(ctx).await?;
    watched.thing("good").await?;
    watched.until("a hook call is counted", |scrape| scrape.sum("ringmaster_hook_requests_total", &[]) > 0.0).await?;
    watched.hook.set(|_, _| Reply::status(500));
    watched.ctx.admin.patch_merge(&watched.things, "good", &json!({ "spec": { "n": 1 } })).await?;
    let scrape = watched.until("a failure is counted", |scrape| scrape.sum("ringmaster_parents_failing", &[]) > 0.0);
    let scrape = scrape.await?;
    let (mut documented, limits) = documented()?;
    // The one whose series come only with a hit; its values are looked at below.
    let hits =
        documented.remove("ringmaster_limit_hits_total").context("no ringmaster_limit_hits_total in the docs")?;
    ensure!(hits.labels == BTreeSet::from(["limit".to_owned()]) && !limits.is_empty());
    let mut served = scrape.metrics;
    served.remove("ringmaster_limit_hits_total");
    // Those are served for controllers of its group only: see `metacontroller_names`.
    documented.retain(|name, _| !name.starts_with(PARITY));
    for (name, metric) in &documented {
        ensure!(served.get(name) == Some(metric), "{name}: the docs say {metric:?}, served is {:?}", served.get(name));
    }
    for name in served.keys() {
        ensure!(documented.contains_key(name), "{name} is served, but not in docs/metrics.md");
    }
    Ok(())
}

/// A hook by TLS with a new connection for each call, and the certificate that it shows, in PEM.
fn secure_hook() -> anyhow::Result<(RawHook, String)> {
    let certified = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()])?;
    let key = PrivateKeyDer::try_from(certified.signing_key.serialize_der()).map_err(|problem| anyhow!("{problem}"))?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = Arc::new(config.with_no_client_auth().with_single_cert(vec![certified.cert.der().clone()], key)?);
    let hook = RawHook::start(move |mut stream, _| {
        let Ok(mut connection) = rustls::ServerConnection::new(Arc::clone(&config)) else { return };
        let mut tls = rustls::Stream::new(&mut connection, &mut stream);
        let Ok((head, _)) = read_request(&mut tls) else { return };
        let body = match head.split_whitespace().nth(1) {
            Some("/finalize") => r#"{"finalized":true}"#,
            Some("/customize") => r#"{"relatedResources":[]}"#,
            _ => "{}",
        };
        let length = body.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}");
        // Whoever has gone wants no answer.
        let _ = tls.write_all(answer.as_bytes()).and_then(|()| tls.flush());
    })?;
    Ok((hook, certified.cert.pem()))
}

async fn metacontroller_names(ctx: Context) -> anyhow::Result<()> {
    let watched = Watched::start(ctx).await?;
    let (hook, certificate) = secure_hook()?;
    let url = |name: &str| hook.url(&format!("/{name}")).replace("http://127.0.0.1", "https://localhost");
    let webhook = |name: &str| json!({ "webhook": { "url": url(name), "caBundle": { "inline": certificate } } });
    let mut spec = spec(&watched.things, "", "InPlace");
    spec["hooks"] =
        json!({ "sync": webhook("sync"), "finalize": webhook("finalize"), "customize": webhook("customize") });
    let kind = Resource::new("metacontroller.k8s.io/v1alpha1", "CompositeController", "compositecontrollers", None);
    let name = watched.ctx.controller_name("m");
    let metadata = json!({ "name": name, "labels": { "suite": watched.ctx.id } });
    watched.ctx.admin.create(&kind, json!({ "metadata": metadata, "spec": spec })).await?;
    // Without children: each of the two controllers would take the other's for its own.
    watched.ctx.admin.create(&watched.things, json!({ "metadata": { "name": "p" } })).await?;
    let calls = |scrape: &Scrape, hook: &str| {
        scrape.sum(&format!("{PARITY}{hook}_requests_total"), &[("code", "200"), ("method", "post")])
    };
    watched.until("it is synced", |scrape| calls(scrape, "sync") >= 1.0).await?;
    watched.ctx.admin.delete(&watched.things, "p").await?;
    let runs = |scrape: &Scrape, hook: &str| scrape.sum(&format!("{PARITY}{hook}_in_flight_requests"), &[]);
    let done = |scrape: &Scrape| HOOKS.into_iter().all(|hook| calls(scrape, hook) >= 1.0 && runs(scrape, hook) == 0.0);
    let scrape = watched.until("all hooks were called", done).await?;
    let queued = scrape.sum("workqueue_adds_total", &[("name", name.as_str()), ("controller", name.as_str())]);
    ensure!(queued >= 1.0, "{}", scrape.text);
    for hook in HOOKS {
        let url = url(hook);
        let of =
            [("url", url.as_str()), ("controller_name", name.as_str()), ("controller_type", "CompositeController")];
        let sum = |rest: &str, more: (&str, &str)| {
            scrape.sum(&format!("{PARITY}{hook}_{rest}"), &[of[0], of[1], of[2], more])
        };
        let calls = sum("requests_total", ("method", "post"));
        ensure!(
            calls >= 1.0 && calls == sum("request_duration_histogram_seconds_count", ("method", "post")),
            "{calls}"
        );
        for (metric, events) in
            [("dns", ["dns_start", "dns_done"]), ("tls", ["tls_handshake_start", "tls_handshake_done"])]
        {
            for event in events {
                let count = sum(&format!("{metric}_duration_histogram_seconds_count"), ("event", event));
                ensure!(count >= 1.0, "{hook}: {count} of {event}: {}", scrape.text);
            }
        }
    }
    let its = |metrics: &BTreeMap<String, Metric>| -> BTreeMap<String, Metric> {
        let its = metrics.iter().filter(|(name, _)| name.starts_with(PARITY));
        its.map(|(name, metric)| (name.clone(), metric.clone())).collect()
    };
    let documented = its(&documented()?.0);
    let of_hook = |hook: &str| -> Vec<(String, Metric)> {
        documented.iter().map(|(name, metric)| (name.replace("HOOK", hook), metric.clone())).collect()
    };
    let documented: BTreeMap<String, Metric> = HOOKS.into_iter().flat_map(of_hook).collect();
    ensure!(
        its(&scrape.metrics) == documented,
        "{:?} are served, in the docs are {documented:?}",
        its(&scrape.metrics)
    );

    watched.ctx.admin.delete(&kind, &name).await?;
    watched.until("they are gone with it", |scrape| its(&scrape.metrics).is_empty()).await.map(drop)
}

async fn are_accepted_by_promtool(ctx: Context) -> anyhow::Result<()> {
    let watched = Watched::start(ctx).await?;
    watched.thing("good").await?;
    let scrape = watched.until("a sync is counted", |scrape| scrape.sum("ringmaster_parents", &[]) > 0.0).await?;
    let Built::Found(promtool) = promtool()? else { bail!("no promtool") };
    let mut check = Command::new(promtool)
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    check.stdin.take().context("no stdin")?.write_all(scrape.text.as_bytes())?;
    let output = check.wait_with_output()?;
    let said = [output.stdout, output.stderr].concat();
    ensure!(output.status.success() && said.is_empty(), "{}: {}", output.status, String::from_utf8_lossy(&said));
    Ok(())
}

async fn tell_where_the_time_goes(ctx: Context) -> anyhow::Result<()> {
    let watched = Watched::start(ctx).await?;
    let controller = [("controller", watched.controller.as_str())];
    for number in 0..5 {
        watched.thing(&format!("p{number}")).await?;
    }
    // Each takes two calls: one that makes the child, one that sees it.
    let scrape = watched
        .until("all is done", |scrape| {
            let done = scrape.sum("controller_runtime_reconcile_total", &[controller[0], ("result", "success")]);
            done >= 5.0 && scrape.sum("controller_runtime_active_workers", &controller) == 0.0
        })
        .await?;
    let calls = scrape.sum("ringmaster_hook_requests_total", &[controller[0], ("code", "200")]);
    ensure!(calls >= 10.0 && calls == scrape.sum("ringmaster_hook_duration_seconds_count", &controller), "{calls}");
    let syncs = scrape.sum("controller_runtime_reconcile_total", &controller);
    ensure!(syncs == scrape.sum("workqueue_queue_duration_seconds_count", &controller), "{syncs}");
    ensure!(syncs == scrape.sum("controller_runtime_reconcile_time_seconds_count", &controller), "{syncs}");
    ensure!(scrape.sum("workqueue_adds_total", &controller) >= 5.0);
    ensure!(scrape.sum("ringmaster_parents", &controller) == 5.0);
    ensure!(scrape.sum("ringmaster_cache_objects", &[("kind", "ConfigMap"), ("group", "")]) >= 5.0);
    ensure!(scrape.sum("rest_client_requests_total", &[("method", "POST"), ("code", "201")]) >= 5.0);

    // A hook that hangs shows while it hangs, not only afterwards.
    watched.hook.set(|_, _| Reply::json(&json!({})).delay(SOON * 10));
    watched.thing("slow").await?;
    watched
        .until("the running sync grows old", |scrape| {
            scrape.sum("workqueue_longest_running_processor_seconds", &controller) > 1.0
                && scrape.sum("controller_runtime_active_workers", &controller) == 1.0
        })
        .await?;
    watched.hook.set(|_, _| Reply::status(422));
    watched.thing("refused").await?;
    watched
        .until("the refused parent is counted", |scrape| scrape.sum("ringmaster_parents_refused", &controller) == 1.0)
        .await?;
    watched.hook.set(|_, _| Reply::status(500));
    watched.thing("failing").await?;
    let scrape = watched
        .until("the failures are counted", |scrape| scrape.sum("workqueue_retries_total", &controller) >= 2.0)
        .await?;
    ensure!(scrape.sum("controller_runtime_reconcile_errors_total", &controller) >= 2.0);
    ensure!(scrape.sum("controller_runtime_terminal_reconcile_errors_total", &controller) == 1.0);
    ensure!(scrape.sum("ringmaster_parents_failing", &controller) >= 1.0);
    Ok(())
}

/// Who should read the log has stopped: the work goes on, and so does the renewal of the Lease, without which the end
/// would be none in order.
async fn count_the_lines_that_nobody_read(ctx: Context) -> anyhow::Result<()> {
    const LEFT_OUT: &str = "ringmaster_log_lines_left_out_total";
    let (reader, writer) = std::io::pipe()?;
    let watched =
        Watched::start_with(ctx, |build| build.stderr(writer).arg("--log-level=trace,hyper_util=trace")).await?;
    let before = watched.until("its metrics are served", |_| true).await?;
    ensure!(before.sum(LEFT_OUT, &[]) == 0.0, "{}", before.text);
    for number in 0.. {
        watched.thing(&format!("t{number}")).await?;
        if watched.scrape()?.sum(LEFT_OUT, &[]) > 0.0 {
            break;
        }
        ensure!(number < FULL, "nothing is left out after {number} parents");
    }
    watched.thing("last").await?;
    let maps = watched.ctx.configmaps();
    watched.ctx.wait("the last one has its child", SOON, async || watched.ctx.admin.get(&maps, "last").await).await?;
    let status = watched.ringmaster.stop().await?;
    ensure!(status.success(), "{status}");
    drop(reader);
    Ok(())
}
