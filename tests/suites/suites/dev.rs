//! `ringmaster dev` and `ringmaster demo`, as somebody without a cluster uses them.
//!
//! Never looks into the processes: only at what they print, and at their API server through the kubeconfig they write.

use std::io::{BufRead as _, BufReader};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::{Value, json};

use crate::child::Child;
use crate::objects::{Objects, Resource, code};
use crate::server::components;
use crate::trial::{Case, Scratch};

const BINARY: &str = env!("CARGO_BIN_EXE_ringmaster");
const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/webhooks-examples/python/website");
/// How long something may take that takes a moment.
const SOON: Duration = Duration::from_secs(30);
/// How long a round of the demo's changes, and one of its story, may take; each change is followed by a pause of 3 s, each
/// act by one of 8 s.
const ROUND: Duration = Duration::from_secs(240);
/// How long a command that ends by itself may take.
const END: Duration = Duration::from_secs(240);
/// How long everything may take to end.
const STOP: Duration = Duration::from_secs(30);

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::alone("dev", "runs_webhooks_and_keeps_objects", runs_webhooks_and_keeps_objects),
        Case::alone("dev", "refuses_what_it_cannot_do", refuses_what_it_cannot_do),
        Case::alone(
            "dev",
            "saves_when_the_terminal_goes_or_somebody_is_in_a_hurry",
            saves_when_the_terminal_goes_or_somebody_is_in_a_hurry,
        ),
        Case::alone("dev", "killed_leaves_no_webhook", killed_leaves_no_webhook),
        Case::alone("dev", "goes_on_without_a_reader", goes_on_without_a_reader),
        Case::alone("demo", "once_plays_the_story", once_plays_the_story),
        Case::alone("demo", "runs_the_webhook_in_go_too", runs_the_webhook_in_go_too).needs(components),
        Case::alone("demo", "once_fails_with_the_reason", once_fails_with_the_reason),
        Case::alone("demo", "goes_on_until_it_is_told", goes_on_until_it_is_told),
        Case::alone("demo", "killed_leaves_no_process", killed_leaves_no_process),
    ]
}

/// Starts it in the trial's folder; `change` may set its environment and its outputs.
fn start_with(
    scratch: &Scratch,
    name: &str,
    arguments: &[&str],
    change: impl FnOnce(&mut Command),
) -> anyhow::Result<Child> {
    let arguments: Vec<String> = arguments.iter().map(|argument| (*argument).to_owned()).collect();
    let dir = scratch.dir().to_owned();
    Child::start("ringmaster", Path::new(BINARY), &arguments, &scratch.log_file(name), |command| {
        for (name, _) in std::env::vars_os() {
            if name.to_string_lossy().starts_with("RINGMASTER_") {
                command.env_remove(name);
            }
        }
        // One that is killed leaves its temporary files behind.
        command.env("TMPDIR", &dir).current_dir(dir).env_remove("KUBECONFIG");
        change(command);
    })
}

fn start(scratch: &Scratch, name: &str, arguments: &[&str]) -> anyhow::Result<Child> {
    start_with(scratch, name, arguments, |_| {})
}

/// Runs it to its end: exit code, and all that it printed. `path` replaces the `PATH`.
async fn run_with(
    scratch: &Scratch,
    name: &str,
    arguments: &[&str],
    path: Option<&Path>,
) -> anyhow::Result<(Option<i32>, String)> {
    let mut child = start_with(scratch, name, arguments, |command| {
        if let Some(path) = path {
            command.env("PATH", path);
        }
    })?;
    let what = format!("{arguments:?} ends");
    let status = scratch.wait(&what, END, async || child.status()?.context("it still runs")).await?;
    Ok((status.code(), printed(&child)?))
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

/// The path that a reader copies from what it printed.
pub(super) fn kubeconfig(printed: &str) -> anyhow::Result<String> {
    let path = printed.lines().find_map(|line| line.trim().strip_prefix("export KUBECONFIG="));
    path.map(str::to_owned).with_context(|| printed.to_owned())
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
            kubeconfig(&printed(&dev)?)
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
    // Whoever only waits for the kubeconfig finds all that was applied.
    let text = printed(&dev)?;
    let (applied, written) = (text.rfind("samples.yaml ("), text.find("kubeconfig  "));
    ensure!(applied.is_some() && applied < written, "{text}");

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
    scratch
        .wait("the new webhook is asked for what is there", SOON, async || {
            let website = objects.get(&websites(), "museum").await?;
            ensure!(website["status"]["message"].as_str().is_some_and(|m| m.contains("shining")), "{website}");
            Ok(())
        })
        .await?;
    objects.patch_merge(&websites(), "museum", &json!({ "spec": { "title": "Renamed" } })).await?;

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
    std::fs::write(dir.join("config"), "apiVersion: v1\nkind: Config\n")?;
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0))?;
    let address = listener.local_addr()?;
    let (hook, resolve) = (format!("sleep 60 # --listen {address}"), format!("a.b.svc:80={address}"));
    let taken = format!("something else already listens at {address}; end it");
    let controller = json!({
        "apiVersion": "metacontroller.k8s.io/v1alpha1", "kind": "DecoratorController", "metadata": { "name": "d" },
        "spec": {
            "resources": [{ "apiVersion": "v1", "resource": "configmaps" }],
            "hooks": {
                "sync": { "webhook": { "url": "http://127.0.0.1:1/sync" } },
                "finalize": { "webhook": { "url": format!("http://{address}/finalize") } },
            },
        },
    });
    std::fs::write(dir.join("decorator.yaml"), controller.to_string())?;
    let of_controller = "choose another port, here and in the webhook of controller \"d\"".to_owned();
    for (number, (code, names, arguments)) in [
        (2, "--kubeconfig", &["--kubeconfig", "x"][..]),
        (2, "--apply none.yaml", &["--apply", "none.yaml"]),
        (2, "--workers", &["--workers", "0"]),
        (2, "--hook", &["--hook", " "]),
        (2, "--listen 0.0.0.0:0", &["--listen", "0.0.0.0:0"]),
        (2, "--listen 127.0.0.2:0", &["--listen", "127.0.0.2:0"]),
        (1, "bad.yaml: Nonsense a: v1 Nonsense: no such kind", &["--apply", "bad.yaml"]),
        (1, "--state state", &["--state", "state"]),
        (1, "--state none/state", &["--state", "none/state"]),
        (1, "--write-kubeconfig", &["--write-kubeconfig", "config"]),
        (1, &taken, &["--hook", &hook, "--hook-resolve", &resolve]),
        (1, &of_controller, &["--hook", &hook, "--apply", "decorator.yaml"]),
    ]
    .into_iter()
    .enumerate()
    {
        let (ended, text) =
            run_with(&scratch, &format!("refused-{number}"), &[&["dev"], arguments].concat(), None).await?;
        ensure!(ended == Some(code) && text.contains(names), "{arguments:?}: exit {ended:?}: {text}");
    }
    ensure!(std::fs::read_to_string(dir.join("state"))? == "not ours\n", "the file was overwritten");
    ensure!(std::fs::read_to_string(dir.join("config"))?.contains("kind: Config"), "the kubeconfig was overwritten");
    ensure!(!dir.join("ringmaster-dev.kubeconfig").exists(), "a kubeconfig is left");
    Ok(())
}

/// Starts it with a webhook that takes no hint and ConfigMap `kept`; gives back the webhook's process id.
async fn with_a_stubborn_hook(scratch: &Scratch, name: &str) -> anyhow::Result<(Child, String)> {
    let dir = scratch.dir();
    std::fs::write(dir.join("kept.yaml"), "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\n")?;
    let hook = "trap '' TERM; echo $$ > pid; while :; do sleep 0.1; done";
    let mut dev = start(scratch, name, &["dev", "--hook", hook, "--state", "objects", "--apply", "kept.yaml"])?;
    scratch
        .wait("it runs", SOON, async || {
            dev.check()?;
            let text = printed(&dev)?;
            ensure!(text.contains("In another terminal") && dir.join("pid").exists(), "{text}");
            Ok(())
        })
        .await?;
    let id = std::fs::read_to_string(dir.join("pid"))?;
    Ok((dev, id.trim().to_owned()))
}

async fn gone(scratch: &Scratch, id: &str) -> anyhow::Result<()> {
    scratch
        .wait("the webhook is gone", SOON, async || {
            let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
            ensure!(stat.is_empty() || stat.contains(") Z "), "{stat}");
            Ok(())
        })
        .await
}

async fn saves_when_the_terminal_goes_or_somebody_is_in_a_hurry(scratch: Scratch) -> anyhow::Result<()> {
    for (name, signals) in [("hangup", &["HUP"][..]), ("hurry", &["INT", "INT"])] {
        let (mut dev, id) = with_a_stubborn_hook(&scratch, name).await?;
        let start = std::time::Instant::now();
        for signal in signals {
            dev.signal(signal)?;
            // Two signals of one kind at one moment would be one.
            let heard = async || {
                let text = printed(&dev)?;
                ensure!(text.contains("stopping: other members take over"), "{text}");
                Ok(())
            };
            scratch.wait("the signal is heard", SOON, heard).await?;
        }
        scratch.wait("it ends", STOP, async || dev.status()?.context("it still runs")).await?;
        // The webhook has 5 s to end, unless somebody is in a hurry.
        ensure!(signals.len() == 1 || start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
        gone(&scratch, &id).await?;
        let saved = std::fs::read_to_string(scratch.dir().join("objects"))?;
        ensure!(saved.contains("\"name\":\"kept\""), "{name}: {saved}");
        ensure!(!scratch.dir().join("ringmaster-dev.kubeconfig").exists(), "{name}: the kubeconfig is left");
        std::fs::remove_file(scratch.dir().join("pid"))?;
        std::fs::remove_file(scratch.dir().join("objects"))?;
    }
    Ok(())
}

async fn killed_leaves_no_webhook(scratch: Scratch) -> anyhow::Result<()> {
    let (mut dev, id) = with_a_stubborn_hook(&scratch, "killed").await?;
    dev.kill()?;
    gone(&scratch, &id).await?;
    // What it left behind is in nobody's way.
    let mut dev = start(&scratch, "next", &["dev"])?;
    let there = async || {
        dev.check()?;
        let text = printed(&dev)?;
        ensure!(text.contains("In another terminal"), "{text}");
        Ok(())
    };
    scratch.wait("the next one runs", SOON, there).await?;
    end(&scratch, &mut dev, "TERM").await
}

async fn goes_on_without_a_reader(scratch: Scratch) -> anyhow::Result<()> {
    let dir = scratch.dir();
    let kubeconfig = dir.join("ringmaster-dev.kubeconfig");
    let hook = "while :; do echo aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa; done";
    // Nobody reads what it says: the pipe is closed after a line, or never read.
    for (name, is_closed) in [("closed", true), ("stalled", false)] {
        let (reader, writer) = std::io::pipe()?;
        let outputs = (writer.try_clone()?, writer);
        let arguments = ["dev", "--hook", hook, "--state", "objects"];
        let mut dev = start_with(&scratch, name, &arguments, |command| {
            command.stdout(outputs.0).stderr(outputs.1);
        })?;
        let mut reader = Some(BufReader::new(reader));
        if let Some(mut reader) = reader.take_if(|_| is_closed) {
            reader.read_line(&mut String::new())?;
        }
        let answers = async || {
            dev.check()?;
            let objects = Objects::of_kubeconfig(&kubeconfig).await?;
            objects.list(&websites().in_namespace(None), "").await.map(drop).or_else(|error| match code(&error) {
                Some(404) => Ok(()),
                _ => Err(error),
            })
        };
        scratch.wait("the API server answers", SOON, answers).await?;
        end(&scratch, &mut dev, "INT").await.context(name)?;
        drop(reader);
        let saved = std::fs::read_to_string(dir.join("objects"))?;
        ensure!(saved.contains("\"name\":\"kube-system\""), "{name}: {saved}");
        ensure!(!kubeconfig.exists(), "{name}: the kubeconfig is left");
        std::fs::remove_file(dir.join("objects"))?;
    }
    Ok(())
}

async fn once_plays_the_story(scratch: Scratch) -> anyhow::Result<()> {
    let (code, text) = run_with(&scratch, "once", &["demo", "--once"], None).await?;
    ensure!(code == Some(0), "exit {code:?}: {text}");
    ensure!(text.contains("200 of 200 Websites ready after"), "{text}");
    // It says at first what it will play, and at last that all went as it must.
    ensure!(
        text.starts_with(
            "Ringmaster demo, once, which takes about a minute: 200 Websites; 3 members and 2 webhooks (Python)"
        ),
        "{text}"
    );
    ensure!(text.lines().last().is_some_and(|line| line.starts_with("passed: ")), "{text}");
    // The story alone waits 26 s: 10 s of stillness before a member more gets its share, 8 s before a killed one is
    // replaced, and four times 2 s until all members know of a change of the webhooks. That is time for 520 changes, of
    // which a quarter must have been made.
    let made = text.split_once(" changes since, all served").map(|(before, _)| before.rsplit(' ').next());
    let made: u64 = made.flatten().with_context(|| text.clone())?.parse()?;
    ensure!(made >= 130, "{text}");
    let summary = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix("  ")?.strip_prefix(name)).map(str::trim);
        line.with_context(|| format!("no {name:?} in {text}"))
    };
    // Each Website needs two calls: one to make its children, one that sees them.
    let hook = summary("hook ")?;
    let calls: u64 = hook.split(' ').next().unwrap_or_default().parse()?;
    ensure!(calls >= 400 && hook.contains("calls over HTTP") && hook.contains(", 0 failed"), "{hook}");
    // 3 members have 85 or 86 shards each, 4 have 64.
    ensure!(summary("one more")?.contains(": 64 shards moved"), "{text}");
    ensure!(summary("one less")?.contains(": 64 shards moved"), "{text}");
    let killed = summary("killed")?;
    ensure!(killed.contains(": 85 shards") || killed.contains(": 86 shards"), "{text}");
    ensure!(killed.ends_with("; 0 objects forgotten"), "{text}");
    // From 2 to 8, three in four are to move; by the bound of what one replica gets, one in ten more may.
    let webhooks = summary("webhooks")?;
    let moved = webhooks.strip_prefix("2 -> 8: ").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
    ensure!((130..=185).contains(&moved.parse::<usize>()?), "{webhooks}");
    ensure!(webhooks.contains(" of 200 Websites moved; 8 -> 2: "), "{webhooks}");
    // Eight replicas have 25 each; who was killed has most, and what it had comes back.
    let (dead, back) = summary("one dies")?.split_once("; back: ").with_context(|| text.clone())?;
    let moved = dead.split(' ').next().unwrap_or_default();
    ensure!((26..=60).contains(&moved.parse::<usize>()?), "{dead}");
    ensure!(back.starts_with(&format!("{moved} of 200 ")), "{moved} moved away, and back: {back}");
    let calls = summary("affinity  0 of ")?.split(' ').next().unwrap_or_default();
    ensure!(calls.parse::<u64>()? >= 800, "{text}");
    ensure!(!scratch.dir().join("ringmaster-demo.kubeconfig").exists(), "it left its kubeconfig behind");
    ensure!(members(&scratch)?.is_empty(), "it left members behind");
    ensure!(webhooks_of(&scratch)?.is_empty(), "it left webhooks behind");
    Ok(())
}

/// The processes of the members that the trial's demo started.
fn members(scratch: &Scratch) -> anyhow::Result<Vec<String>> {
    let kubeconfig = format!("kubeconfig={}", scratch.dir().join("ringmaster-demo.kubeconfig").display());
    let found = Command::new("pgrep").args(["-f", &kubeconfig]).output()?;
    Ok(String::from_utf8(found.stdout)?.lines().map(str::to_owned).collect())
}

/// The processes of the webhook that the trial's demo started: they know its folder.
fn webhooks_of(scratch: &Scratch) -> anyhow::Result<Vec<String>> {
    let folder = format!("{}/ringmaster-demo-", scratch.dir().display());
    let found = Command::new("pgrep").args(["-f", &folder]).output()?;
    Ok(String::from_utf8(found.stdout)?.lines().map(str::to_owned).collect())
}

async fn killed_leaves_no_process(scratch: Scratch) -> anyhow::Result<()> {
    let mut demo = start(&scratch, "demo", &["demo", "--websites", "3", "--members", "2"])?;
    let both = async || {
        demo.check()?;
        let (members, webhooks, text) = (members(&scratch)?, webhooks_of(&scratch)?, printed(&demo)?);
        ensure!(members.len() == 2 && webhooks.len() == 2, "members {members:?}, webhooks {webhooks:?}");
        ensure!(text.contains("websites: Ready 3;"), "{text}");
        Ok(())
    };
    scratch.wait("two members and two webhooks run", SOON, both).await?;
    demo.kill()?;
    let none = async || {
        let (members, webhooks) = (members(&scratch)?, webhooks_of(&scratch)?);
        ensure!(members.is_empty() && webhooks.is_empty(), "members {members:?}, webhooks {webhooks:?}");
        Ok(())
    };
    scratch.wait("they are gone", SOON, none).await
}

async fn runs_the_webhook_in_go_too(scratch: Scratch) -> anyhow::Result<()> {
    // One member: nobody is there to take over when it is killed but the one that replaces it.
    let arguments = ["demo", "--once", "--hook", "go", "--websites", "20", "--members", "1"];
    let (code, text) = run_with(&scratch, "go", &arguments, None).await?;
    ensure!(code == Some(0) && text.contains("20 of 20 Websites ready after"), "exit {code:?}: {text}");
    ensure!(text.contains(": 256 shards moved") && text.contains("; 0 objects forgotten"), "{text}");
    Ok(())
}

async fn once_fails_with_the_reason(scratch: Scratch) -> anyhow::Result<()> {
    let dir = scratch.dir();
    // More than the webhook can be asked in a second.
    let late = ["demo", "--once", "--timeout", "1", "--websites", "5000"];
    let (code, text) = run_with(&scratch, "late", &late, None).await?;
    ensure!(code == Some(1) && text.contains(" of 5000 Websites ready after "), "exit {code:?}: {text}");
    for program in ["sh", "setpriv"] {
        let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output()?;
        let path = String::from_utf8(found.stdout)?;
        std::os::unix::fs::symlink(path.trim(), dir.join(program))?;
    }
    let (code, text) = run_with(&scratch, "no-python", &["demo", "--once"], Some(dir)).await?;
    ensure!(code == Some(1) && text.contains("install Python 3.9 or newer"), "exit {code:?}: {text}");
    // A Python that runs, and runs nothing.
    std::os::unix::fs::symlink("/bin/echo", dir.join("python3"))?;
    let (code, text) = run_with(&scratch, "idle-python", &["demo", "--once"], Some(dir)).await?;
    ensure!(code == Some(1) && text.contains("the webhook doesn't listen"), "exit {code:?}: {text}");
    let (code, text) = run_with(&scratch, "none", &["demo", "--websites", "0"], None).await?;
    ensure!(code == Some(2) && text.contains("--websites 0: give 1 to 5000"), "exit {code:?}: {text}");
    Ok(())
}

async fn goes_on_until_it_is_told(scratch: Scratch) -> anyhow::Result<()> {
    let mut demo = start(&scratch, "demo", &["demo", "--websites", "30"])?;
    let text = scratch
        .wait("a round of changes", ROUND, async || {
            demo.check()?;
            let text = printed(&demo)?;
            for outcome in [
                "page updated after",
                "made again after",
                "its Websites say so after",
                "its Websites are ready after",
                "member-4 starts: ",
                " leaves: ",
                " is killed: ",
                "webhooks: 2 -> 8: ",
                " is started again: ",
                "webhooks: 8 -> 2: ",
            ] {
                ensure!(text.contains(outcome), "no {outcome:?} in {text}");
            }
            Ok(text)
        })
        .await?;
    // A line comes with each change of the phases.
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
    // What all came to, as at the end of the story.
    let text = printed(&demo)?;
    let (_, summary) = text.split_once("\n30 of 30 Websites ready after").with_context(|| text.clone())?;
    for line in
        ["\n  hook  ", "\n  one more  ", "\n  one less  ", "\n  killed  ", "\n  webhooks  ", "\n  affinity  0 of "]
    {
        ensure!(summary.contains(line), "no {line:?} in {summary}");
    }
    Ok(())
}
