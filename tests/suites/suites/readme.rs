//! The commands of the README, and the files and commands of docs/first-controller.md, block by block as they stand there.
//!
//! Never edits a block: what a reader copies is what runs. Between blocks it looks whether what the text says came true.

use std::io::Write as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use tokio::sync::Mutex;

use super::{dev, troubleshooting};
use crate::built::Built;
use crate::child::Child;
use crate::cluster::Context;
use crate::objects::{Objects, Resource};
use crate::server::{components, write_private};
use crate::trial::{Case, Scratch};
use crate::wait;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A block may build the release binary.
const BLOCK: Duration = Duration::from_secs(1500);
/// What the README's processes listen on.
const PORTS: [u16; 3] = [8080, 8081, 9999];
const SOON: Duration = Duration::from_secs(30);

/// Trials of this suite share the ports: one at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::alone("readme", "the_first_five_minutes", first_five_minutes).needs(components).timeout(BLOCK * 2),
        Case::alone("readme", "the_first_controller", first_controller).needs(components).timeout(BLOCK * 2),
        Case::new("readme", "on_a_cluster", on_a_cluster).own_server().needs(components).timeout(BLOCK * 2),
    ]
}

/// The `sh` blocks under a heading.
fn blocks<const N: usize>(heading: &str) -> anyhow::Result<[String; N]> {
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md"))?;
    let section = readme.split("\n## ").find(|section| section.starts_with(heading)).unwrap_or_default();
    fenced(section, "sh").with_context(|| format!("README.md, {heading:?}"))
}

/// The blocks of a language in a document, which has so many.
fn fenced<const N: usize>(text: &str, language: &str) -> anyhow::Result<[String; N]> {
    let blocks: Vec<String> = troubleshooting::blocks(text, language).into_iter().map(str::to_owned).collect();
    let found = blocks.len();
    blocks.try_into().map_err(|_| anyhow!("{found} blocks of {language}, expected {N}"))
}

/// The folder of kubectl.
fn kubectl() -> anyhow::Result<PathBuf> {
    match components()? {
        Built::Found(folder) => Ok(folder),
        Built::Unavailable(reason) => bail!("{reason}"),
    }
}

/// Another trial may hold one of them for a moment.
async fn ports_are_free() -> anyhow::Result<()> {
    let free = async || {
        for port in PORTS {
            std::net::TcpListener::bind(("127.0.0.1", port))
                .with_context(|| format!("the README uses port {port}; end what listens there"))?;
        }
        Ok(())
    };
    wait::until("the README's ports are free", SOON * 2, |_| {}, free).await
}

/// A reader's terminal: blocks one after the other in one shell, which says when each is done.
struct Terminal {
    shell: std::process::Child,
    steps: ChildStdin,
    log: PathBuf,
    _group: Group,
}

impl Terminal {
    fn open(blocks: &[&String], kubeconfig: Option<&Path>, log: PathBuf) -> anyhow::Result<Self> {
        let mut script = String::from("set -e\n");
        for (index, block) in blocks.iter().enumerate() {
            script.push_str(&format!("read -r _\n{block}\necho README-BLOCK-{index}-DONE\n"));
        }
        let output = std::fs::File::create(&log)?;
        let mut command = Command::new("bash");
        command.args(["-c", &script]).current_dir(ROOT).env_remove("KUBECONFIG");
        if let Some(kubeconfig) = kubeconfig {
            command.env("KUBECONFIG", kubeconfig);
        }
        command.env("PATH", format!("{}:{}", kubectl()?.display(), std::env::var("PATH")?));
        command.stdin(Stdio::piped()).stdout(output.try_clone()?).stderr(output).process_group(0);
        let mut shell = command.spawn()?;
        let group = Group(shell.id());
        let steps = shell.stdin.take().context("no stdin")?;
        Ok(Self { shell, steps, log, _group: group })
    }

    /// Begins with the next block.
    fn next(&mut self) -> anyhow::Result<()> {
        Ok(self.steps.write_all(b"\n")?)
    }

    /// What was printed, as long as the shell runs.
    fn text(&mut self) -> anyhow::Result<anyhow::Result<String>> {
        let text = std::fs::read_to_string(&self.log)?;
        match self.shell.try_wait()? {
            // After the last block it ends well.
            Some(code) if !code.success() => Ok(Err(anyhow!("the README's shell ended with {code}:\n{text}"))),
            _ => Ok(Ok(text)),
        }
    }

    /// Whether a text was printed; the inner error says that it never will be.
    fn says(&mut self, what: &str) -> anyhow::Result<anyhow::Result<String>> {
        let text = match self.text()? {
            Ok(text) => text,
            Err(ended) => return Ok(Err(ended)),
        };
        ensure!(text.contains(what), "{text}");
        Ok(Ok(text))
    }
}

async fn first_controller(scratch: Scratch) -> anyhow::Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    ports_are_free().await?;
    let text = std::fs::read_to_string(Path::new(ROOT).join("docs/first-controller.md"))?;
    let [kind, controller] = fenced(&text, "yaml")?;
    let [hook] = fenced(&text, "python")?;
    let [run, make] = fenced(&text, "sh")?;
    let file = |name: &str| scratch.dir().join(name);
    for (name, text) in [("greetings.yaml", &kind), ("controller.yaml", &controller), ("hook.py", &hook)] {
        std::fs::write(file(name), text)?;
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_ringmaster"));
    let folder = binary.parent().context("no folder")?;
    let path = format!("{}:{}:{}", folder.display(), kubectl()?.display(), std::env::var("PATH")?);
    let arguments = ["-c".to_owned(), format!("exec {run}")];
    let mut dev = Child::start("dev", Path::new("bash"), &arguments, &scratch.log_file("dev"), |command| {
        command.current_dir(scratch.dir()).env("PATH", &path).env_remove("KUBECONFIG");
    })?;
    let said = async || {
        dev.check()?;
        dev::kubeconfig(&std::fs::read_to_string(dev.log_path())?)
    };
    let kubeconfig = scratch.wait("it prints where its kubeconfig is", SOON, said).await?;

    let arguments = ["-ec".to_owned(), make];
    let mut shell = Child::start("kubectl", Path::new("bash"), &arguments, &scratch.log_file("shell"), |command| {
        command.current_dir(scratch.dir()).env("PATH", &path).env("KUBECONFIG", &kubeconfig);
    })?;
    let status = scratch.wait("the commands end", SOON * 2, async || shell.status()?.context("they run")).await?;
    let text = std::fs::read_to_string(shell.log_path())?;
    ensure!(status.success() && text.ends_with("Hello, Ann!"), "{status}: {text}");

    std::fs::write(file("hook.py"), hook.replace("Hello", "Welcome"))?;
    let objects = Objects::of_kubeconfig(Path::new(&kubeconfig)).await?;
    let map = Resource::new("v1", "ConfigMap", "configmaps", Some("default"));
    let welcome = async || {
        let found = objects.get(&map, "ann").await?;
        ensure!(found["data"]["text"] == "Welcome, Ann!", "{found}");
        Ok(())
    };
    scratch.wait("the ConfigMap says what the new webhook says", SOON, welcome).await?;
    let (status, by_itself) = dev.stop(SOON)?;
    ensure!(status.success() && by_itself, "{status}");
    Ok(())
}

async fn first_five_minutes(scratch: Scratch) -> anyhow::Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let [demo, dev, look, change, own] = blocks("First five minutes")?;
    ports_are_free().await?;
    // The demo itself goes on until Ctrl-C.
    ensure!(demo == "make demo\n", "{demo}");
    let once = "make demo ARGS='--once --write-kubeconfig target/readme.kubeconfig'\n".to_owned();
    let mut terminal = Terminal::open(&[&once], None, scratch.log_file("demo"))?;
    terminal.next()?;
    let done = async || terminal.says("README-BLOCK-0-DONE");
    let text = scratch.wait("make demo is done", BLOCK, done).await??;
    ensure!(text.contains("200 of 200 Websites ready"), "{text}");

    let mut first = Terminal::open(&[&dev], None, scratch.log_file("dev"))?;
    first.next()?;
    scratch.wait("ringmaster dev is there", BLOCK, async || first.says("In another terminal:")).await??;
    let mut second = Terminal::open(&[&look, &change, &own], None, scratch.log_file("look"))?;
    second.next()?;
    let text = scratch.wait("the look is done", SOON * 3, async || second.says("README-BLOCK-0-DONE")).await??;
    ensure!(text.contains("configmap/museum") && text.contains("deployment.apps/garden"), "{text}");
    let objects = Objects::of_kubeconfig(&Path::new(ROOT).join("ringmaster-dev.kubeconfig")).await?;
    second.next()?;
    scratch.wait("the change is done", SOON, async || second.says("README-BLOCK-1-DONE")).await??;
    let [websites, configmaps, services, deployments] = kinds();
    scratch
        .wait("the changed title arrives, and the deleted child is back", SOON, async || {
            let page = objects.get(&configmaps, "museum").await?["data"]["index.html"].to_string();
            ensure!(page.contains("Open on Sundays"), "{page}");
            let website = objects.get(&websites, "museum").await?;
            ensure!(website["status"]["phase"] == "Ready" && website["status"]["observedGeneration"] == 2, "{website}");
            ensure!(objects.find(&configmaps, "garden").await?.is_some(), "no configmap garden");
            Ok(())
        })
        .await?;
    second.next()?;
    let text = scratch.wait("a Website of one's own", SOON, async || second.says("README-BLOCK-2-DONE")).await??;
    ensure!(text.contains("<h1>Fresh at Six</h1>"), "{text}");
    scratch
        .wait("the deleted Website's children are gone", SOON, async || {
            for kind in [&configmaps, &services, &deployments] {
                ensure!(objects.find(kind, "library").await?.is_none(), "{} library is still there", kind.kind);
            }
            Ok(())
        })
        .await
}

async fn on_a_cluster(ctx: Context) -> anyhow::Result<()> {
    let _one = ONE_AT_A_TIME.lock().await;
    let blocks: [String; 3] = blocks("On a cluster")?;
    ports_are_free().await?;
    // Only a person's kubeconfig: the README's reader is the administrator of a cluster of their own.
    let text = ctx.server.kubeconfig("admin", ctx.server.ca_file())?;
    let kubeconfig = write_private(ctx.server.logs(), "readme.kubeconfig", &text)?;
    let all: Vec<&String> = blocks.iter().collect();
    let mut terminal = Terminal::open(&all, Some(&kubeconfig), ctx.log_file("readme"))?;
    for index in 0..all.len() {
        terminal.next()?;
        let marker = format!("README-BLOCK-{index}-DONE");
        ctx.wait(&format!("README block {index} is done"), BLOCK, async || terminal.says(&marker)).await??;
    }
    let [websites, configmaps, services, deployments] = kinds();
    for name in ["museum", "library", "garden"] {
        ensure!(ctx.admin.get(&websites, name).await?["status"]["phase"] == "Ready", "{name}");
        for kind in [&configmaps, &services, &deployments] {
            ctx.admin.get(kind, name).await?;
        }
    }
    Ok(())
}

/// Websites and their children.
fn kinds() -> [Resource; 4] {
    let namespace = Some("default");
    [
        Resource::new("example.ringmaster.dev/v1", "Website", "websites", namespace),
        Resource::new("v1", "ConfigMap", "configmaps", namespace),
        Resource::new("v1", "Service", "services", namespace),
        Resource::new("apps/v1", "Deployment", "deployments", namespace),
    ]
}

/// Ends what the blocks started in the background.
struct Group(u32);

impl Drop for Terminal {
    fn drop(&mut self) {
        // Ctrl-C first: what runs in the terminal ends what it started itself.
        let _ = Command::new("kill").args(["-s", "INT", "--", &format!("-{}", self.shell.id())]).status();
        let end = std::time::Instant::now() + SOON;
        while self.shell.try_wait().is_ok_and(|ended| ended.is_none()) && std::time::Instant::now() < end {
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let group = format!("-{}", self.0);
        for signal in ["TERM", "KILL"] {
            let _ = Command::new("kill").args(["-s", signal, "--", &group]).stderr(Stdio::null()).status();
            let gone = || Command::new("kill").args(["-0", "--", &group]).stderr(Stdio::null()).status();
            let mut left = 100;
            while left > 0 && gone().is_ok_and(|status| status.success()) {
                // Bounded: at most five seconds for each signal.
                std::thread::sleep(Duration::from_millis(50));
                left -= 1;
            }
        }
    }
}
