//! `ringmaster dev` and `ringmaster demo`, as somebody without a cluster uses them.
//!
//! Never looks into the processes: only at what they print, and at their API server through the kubeconfig they write.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::child::Child;
use crate::objects::{Objects, Resource};
use crate::trial::{Case, Scratch};

const BINARY: &str = env!("CARGO_BIN_EXE_ringmaster");
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/webhooks-examples/python/website");
/// How long something may take that takes a moment.
const SOON: Duration = Duration::from_secs(30);
/// How long a round of the demo's changes may take; each is followed by a pause of 3 s.
const ROUND: Duration = Duration::from_secs(90);
/// How long everything may take to end.
const STOP: Duration = Duration::from_secs(30);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::alone("dev", "runs_webhooks_and_keeps_objects", runs_webhooks_and_keeps_objects),
        Case::alone("dev", "refuses_what_it_cannot_do", refuses_what_it_cannot_do),
        Case::alone("demo", "once_ends_when_all_is_ready", once_ends_when_all_is_ready),
        Case::alone("demo", "once_fails_with_the_reason", once_fails_with_the_reason),
        Case::alone("demo", "goes_on_until_it_is_told", goes_on_until_it_is_told),
    ]
}

/// Starts it in the trial's folder.
fn start(scratch: &Scratch, name: &str, arguments: &[&str]) -> anyhow::Result<Child> {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let dir = scratch.dir().to_owned();
    Child::start("ringmaster", Path::new(BINARY), &arguments, &scratch.log_file(name), |command| {
        command.current_dir(dir).env_remove("KUBECONFIG");
    })
}

/// Runs it to its end: exit code, standard output, standard error.
fn run(dir: &Path, arguments: &[&str], path: Option<&Path>) -> anyhow::Result<(Option<i32>, String, String)> {
    let mut command = Command::new(BINARY);
    command.args(arguments).current_dir(dir).env_remove("KUBECONFIG");
    if let Some(path) = path {
        command.env("PATH", path);
    }
    let output = command.output()?;
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Ok((output.status.code(), text(&output.stdout), text(&output.stderr)))
}

fn printed(child: &Child) -> anyhow::Result<String> {
    Ok(std::fs::read_to_string(child.log_path())?)
}

async fn end(scratch: &Scratch, child: &mut Child, signal: &str) -> anyhow::Result<()> {
    child.signal(signal)?;
    let status = scratch.wait("it ends", STOP, async || child.status()?.context("it still runs")).await?;
    ensure!(status.success(), "{signal}: {status}");
    Ok(())
}

fn websites() -> Resource {
    Resource::new("example.ringmaster.dev/v1", "Website", "websites", Some("default"))
}

fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}

async fn runs_webhooks_and_keeps_objects(scratch: Scratch) -> anyhow::Result<()> {
    let dir = scratch.dir();
    let source = std::fs::read_to_string(Path::new(EXAMPLE).join("hook.py"))?;
    std::fs::write(dir.join("hook.py"), &source)?;
    let port = free_port()?;
    let (hook, resolve) = (
        format!("echo $$ > pid; exec python3 hook.py --listen 127.0.0.1:{port}"),
        format!("website-hook.website.svc:80=127.0.0.1:{port}"),
    );
    let file = |name: &str| format!("{EXAMPLE}/manifests/{name}.yaml");
    let (crds, controller, samples) = (file("crds"), file("controller"), file("samples"));
    let always = ["dev", "--hook", &hook, "--hook-resolve", &resolve, "--state", "objects"];
    let mut dev = start(&scratch, "first", &[&always[..], &["--apply", &crds, &controller, &samples]].concat())?;

    // What it prints is what a reader copies.
    let kubeconfig = scratch
        .wait("it prints where its kubeconfig is", SOON, async || {
            dev.check()?;
            let text = printed(&dev)?;
            let line = text.lines().find_map(|line| line.trim().strip_prefix("export KUBECONFIG=").map(str::to_owned));
            line.context(text)
        })
        .await?;
    let objects = Objects::of_kubeconfig(Path::new(&kubeconfig)).await?;
    let ready = async |name: &str| {
        scratch
            .wait(&format!("{name} is ready"), SOON, async || {
                let website = objects.get(&websites(), name).await?;
                ensure!(website["status"]["phase"] == "Ready", "{website}");
                Ok(website)
            })
            .await
    };
    let museum = ready("museum").await?;

    // Another source is another webhook.
    std::fs::write(dir.join("hook.py"), source.replace("serving with theme", "shining with theme"))?;
    scratch
        .wait("it tells of the change", SOON, async || {
            let text = printed(&dev)?;
            ensure!(text.contains("[hook] hook.py changed: starting again"), "{text}");
            ensure!(text.matches("[hook] listening on").count() == 2, "{text}");
            Ok(())
        })
        .await?;
    objects.patch_merge(&websites(), "museum", &json!({ "spec": { "title": "Renamed" } })).await?;
    scratch
        .wait("the new webhook answers", SOON, async || {
            let website = objects.get(&websites(), "museum").await?;
            ensure!(website["status"]["message"].as_str().is_some_and(|m| m.contains("shining")), "{website}");
            Ok(())
        })
        .await?;

    // A webhook that dies comes back.
    let id = std::fs::read_to_string(dir.join("pid"))?;
    let killed = Command::new("kill").args(["-s", "KILL", id.trim()]).status()?;
    ensure!(killed.success(), "{killed}");
    scratch
        .wait("it is started again", SOON, async || {
            let text = printed(&dev)?;
            ensure!(text.contains("[hook] ended ("), "{text}");
            ensure!(text.matches("[hook] listening on").count() == 3, "{text}");
            Ok(())
        })
        .await?;

    end(&scratch, &mut dev, "TERM").await?;
    ensure!(!Path::new(&kubeconfig).exists(), "{kubeconfig} is still there");
    ensure!(std::net::TcpStream::connect(("127.0.0.1", port)).is_err(), "the webhook still listens");

    // The same objects, and work goes on.
    let mut dev = start(&scratch, "second", &always)?;
    scratch
        .wait("the kubeconfig is back", SOON, async || {
            dev.check()?;
            ensure!(Path::new(&kubeconfig).exists(), "it isn't");
            Ok(())
        })
        .await?;
    let objects = Objects::of_kubeconfig(Path::new(&kubeconfig)).await?;
    let again = objects.get(&websites(), "museum").await?;
    ensure!(again["metadata"]["uid"] == museum["metadata"]["uid"] && again["spec"]["title"] == "Renamed", "{again}");
    let fresh = json!({ "metadata": { "name": "fresh", "labels": { "skip-workload": "" } },
        "spec": { "theme": "dark", "title": "Fresh" } });
    objects.create(&websites(), fresh).await?;
    scratch
        .wait("a new Website is ready", SOON, async || {
            let website = objects.get(&websites(), "fresh").await?;
            ensure!(website["status"]["phase"] == "Ready", "{website}");
            Ok(())
        })
        .await?;
    end(&scratch, &mut dev, "INT").await
}

async fn refuses_what_it_cannot_do(scratch: Scratch) -> anyhow::Result<()> {
    let dir = scratch.dir();
    std::fs::write(dir.join("bad.yaml"), "apiVersion: v1\nkind: Nonsense\nmetadata: {name: a}\n")?;
    std::fs::write(dir.join("state"), "not ours\n")?;
    for (code, names, arguments) in [
        (2, "--kubeconfig", &["--kubeconfig", "x"][..]),
        (2, "--apply none.yaml", &["--apply", "none.yaml"]),
        (2, "--workers", &["--workers", "0"]),
        (2, "--hook", &["--hook", " "]),
        (1, "--listen 0.0.0.0:0", &["--listen", "0.0.0.0:0"]),
        (1, "bad.yaml: Nonsense a: v1 Nonsense: no such kind", &["--apply", "bad.yaml"]),
        (1, "--state state", &["--state", "state"]),
    ] {
        let (ended, _, error) = run(dir, &[&["dev"], arguments].concat(), None)?;
        ensure!(ended == Some(code) && error.contains(names), "{arguments:?}: exit {ended:?}: {error}");
    }
    ensure!(std::fs::read_to_string(dir.join("state"))? == "not ours\n", "the file was overwritten");
    let left: Vec<_> = std::fs::read_dir(dir)?.map(|entry| entry.map(|e| e.file_name())).collect::<Result<_, _>>()?;
    ensure!(left.len() == 2, "{left:?}");
    Ok(())
}

async fn once_ends_when_all_is_ready(scratch: Scratch) -> anyhow::Result<()> {
    let (code, output, error) = run(scratch.dir(), &["demo", "--once"], None)?;
    ensure!(code == Some(0), "exit {code:?}: {output}{error}");
    ensure!(output.contains("200 of 200 Websites ready after"), "{output}");
    // Each Website needs two calls: one to make its children, one that sees them.
    let calls: u64 = output
        .lines()
        .find_map(|line| line.trim().strip_prefix("hook")?.trim().split(' ').next()?.parse().ok())
        .with_context(|| output.clone())?;
    ensure!(calls >= 400 && output.contains("calls over HTTP") && output.contains(", 0 failed"), "{output}");
    ensure!(std::fs::read_dir(scratch.dir())?.next().is_none(), "it left a file behind");
    Ok(())
}

async fn once_fails_with_the_reason(scratch: Scratch) -> anyhow::Result<()> {
    let dir = scratch.dir();
    let (code, _, error) = run(dir, &["demo", "--once", "--timeout", "0", "--websites", "2000"], None)?;
    ensure!(code == Some(1) && error.contains(" of 2000 Websites ready after 0 s ("), "exit {code:?}: {error}");
    let (code, _, error) = run(dir, &["demo", "--once"], Some(dir))?;
    ensure!(code == Some(1) && error.contains("install Python 3.9 or newer"), "exit {code:?}: {error}");
    // A Python that runs, and runs nothing.
    std::os::unix::fs::symlink("/bin/echo", dir.join("python3"))?;
    std::os::unix::fs::symlink("/bin/sh", dir.join("sh"))?;
    let (code, _, error) = run(dir, &["demo", "--once"], Some(dir))?;
    ensure!(code == Some(1) && error.contains("the webhook doesn't listen"), "exit {code:?}: {error}");
    let (code, _, error) = run(dir, &["demo", "--websites", "0"], None)?;
    ensure!(code == Some(2) && error.contains("--websites 0: give 1 to 5000"), "exit {code:?}: {error}");
    Ok(())
}

async fn goes_on_until_it_is_told(scratch: Scratch) -> anyhow::Result<()> {
    let mut demo = start(&scratch, "demo", &["demo", "--websites", "30"])?;
    let text = scratch
        .wait("a round of changes", ROUND, async || {
            demo.check()?;
            let text = printed(&demo)?;
            for outcome in
                ["page updated after", "made again after", "its Websites say so after", "all Websites ready after"]
            {
                ensure!(text.contains(outcome), "no {outcome:?} in {text}");
            }
            Ok(text)
        })
        .await?;
    ensure!(text.contains("websites: Ready 30;") && text.contains("Error 10;"), "{text}");
    ensure!(text.contains("unknown theme \"solarized\""), "{text}");

    // Somebody else's change is seen to as well.
    let objects = Objects::of_kubeconfig(&scratch.dir().join("ringmaster-demo.kubeconfig")).await?;
    let pages = Resource::new("v1", "ConfigMap", "configmaps", Some("demo"));
    let sites = Resource::new("example.ringmaster.dev/v1", "Website", "websites", Some("demo"));
    objects.patch_merge(&sites, "site-001", &json!({ "spec": { "title": "Mine" } })).await?;
    scratch
        .wait("the page has the title", SOON, async || {
            let page: Value = objects.get(&pages, "site-001").await?;
            ensure!(page["data"]["index.html"].as_str().is_some_and(|html| html.contains("<h1>Mine</h1>")), "{page}");
            Ok(())
        })
        .await?;
    end(&scratch, &mut demo, "INT").await?;
    ensure!(!scratch.dir().join("ringmaster-demo.kubeconfig").exists(), "the kubeconfig is still there");
    Ok(())
}
