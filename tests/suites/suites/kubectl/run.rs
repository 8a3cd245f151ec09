//! Runs a table: each command on both servers at once, within a bounded time, and compares.
//!
//! Never leaves a process behind: a command is killed when its time is over, or with the trial.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::process::{Child, Command};

use super::normal::{difference, normal};
use super::step::{Compare, Kind, Step, words};
use crate::cluster::Context;
use crate::objects::Resource;
use crate::server::kubectl;
use crate::wait;

/// How long one command may take.
const COMMAND: Duration = Duration::from_secs(60);
/// Steps whose differences are told in one failure.
const MAX_TOLD: usize = 40;

/// What a command came to.
#[derive(Debug, PartialEq, Eq)]
struct Output {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// One server with its own folder, and what runs beside the table.
struct Place {
    context: Context,
    dir: TempDir,
    namespace: String,
    group: String,
    running: Option<(Child, PathBuf)>,
}

/// Runs the steps of a theme on both servers.
///
/// # Errors
/// What differs, step by step; or a command can't be run.
pub(super) async fn theme(embedded: Context, real: Context, steps: Vec<Step>) -> anyhow::Result<()> {
    // One name for both servers: then nothing that holds it has to be replaced, and columns are as wide.
    let (namespace, group) = (format!("kubectl-{}", embedded.id), embedded.group());
    let kubectl = kubectl()?;
    let mut embedded = Place::new(embedded, &namespace, &group).await?;
    let mut real = Place::new(real, &namespace, &group).await?;
    let mut told = Vec::new();
    for (index, step) in steps.iter().enumerate() {
        let (a, b) = tokio::join!(embedded.step(&kubectl, step), real.step(&kubectl, step));
        let what = if step.line.is_empty() { format!("{:?}", step.kind) } else { format!("kubectl {}", step.line) };
        let (Some(a), Some(b)) = (a.context(what.clone())?, b.context(what.clone())?) else { continue };
        let faults = compare(step, &a, &b);
        if !faults.is_empty() {
            told.push(format!("step {}: {what}\n{faults}", index + 1));
        }
    }
    let count = told.len();
    told.truncate(MAX_TOLD);
    ensure!(count == 0, "{count} of {} steps differ\n{}", steps.len(), told.join("\n"));
    Ok(())
}

fn compare(step: &Step, embedded: &Output, real: &Output) -> String {
    let mut faults = String::new();
    for (name, output) in [("embedded", embedded), ("real", real)] {
        if step.kind == Kind::Run && (output.code == Some(0)) != step.succeeds {
            let wanted = if step.succeeds { "succeed" } else { "fail" };
            faults.push_str(&format!("    {name} should {wanted}; exit code {:?}\n", output.code));
        }
    }
    if embedded.code != real.code {
        faults.push_str(&format!("    exit code: embedded {:?}, real {:?}\n", embedded.code, real.code));
    }
    match step.compare {
        Compare::All => {
            faults.push_str(&difference(&embedded.stdout, &real.stdout));
            faults.push_str(&difference(&embedded.stderr, &real.stderr));
        }
        Compare::Lines => {
            // Columns are as wide as their longest line, which may be one that only one server has.
            let plain = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
            let mut others = real.stdout.lines().map(plain);
            // Kinds of other trials come and go.
            let lines = embedded.stdout.lines().filter(|line| !line.contains(".test.ringmaster.dev"));
            for line in lines.map(plain) {
                if !others.any(|other| other == line) {
                    faults.push_str(&format!("    real has no such line, or not behind the one before: {line}\n"));
                    others = real.stdout.lines().map(plain);
                }
            }
            faults.push_str(&difference(&embedded.stderr, &real.stderr));
        }
        Compare::Exit if !faults.is_empty() => {
            faults.push_str(&difference(&embedded.stderr, &real.stderr));
        }
        Compare::Exit => {}
    }
    faults
}

impl Place {
    async fn new(context: Context, namespace: &str, group: &str) -> anyhow::Result<Self> {
        let dir = tempfile::Builder::new().prefix("kubectl-").tempdir()?;
        let namespaces = Resource::new("v1", "Namespace", "namespaces", None);
        context.admin.create(&namespaces, json!({ "metadata": { "name": namespace } })).await?;
        let text = context.server.kubeconfig("admin", context.server.ca_file())?;
        let mut config: Value = serde_json::from_str(&text)?;
        config["contexts"][0]["context"]["namespace"] = namespace.into();
        std::fs::write(dir.path().join("kubeconfig"), config.to_string())?;
        let (namespace, group) = (namespace.to_owned(), group.to_owned());
        Ok(Self { context, dir, namespace, group, running: None })
    }

    /// Replaces `{ns}`, `{group}`, `{dir}`, and `{file:<name>}` by what was saved under that name.
    fn filled(&self, text: &str) -> anyhow::Result<String> {
        let text = text.replace("{ns}", &self.namespace).replace("{group}", &self.group);
        let mut text = text.replace("{dir}", &self.dir.path().display().to_string());
        while let Some((before, rest)) = text.split_once("{file:") {
            let (name, after) = rest.split_once('}').context("a placeholder isn't closed")?;
            let kept = std::fs::read_to_string(self.dir.path().join(name)).with_context(|| name.to_owned())?;
            text = format!("{before}{}{after}", kept.trim());
        }
        Ok(text)
    }

    async fn step(&mut self, kubectl: &Path, step: &Step) -> anyhow::Result<Option<Output>> {
        match step.kind {
            Kind::Run => self.run(kubectl, step).await.map(Some),
            Kind::Start => {
                ensure!(self.running.is_none(), "one command runs already");
                let path = self.dir.path().join("running");
                let file = std::fs::File::create(&path)?;
                let mut command = self.command(kubectl, step)?;
                command.stdin(Stdio::null()).stdout(file.try_clone()?).stderr(file);
                self.running = Some((command.spawn()?, path));
                Ok(None)
            }
            Kind::Await(text) => {
                let Some((_, path)) = &self.running else { bail!("nothing was started") };
                let (what, text) = (format!("the running command shows {text:?}"), self.filled(text)?);
                let ask = async || {
                    let seen = std::fs::read_to_string(path)?;
                    ensure!(seen.contains(&text), "it shows: {seen}");
                    Ok(())
                };
                wait::until(&what, COMMAND, |_| {}, ask).await?;
                Ok(None)
            }
            Kind::Stop => {
                let Some((mut child, path)) = self.running.take() else { bail!("nothing was started") };
                child.kill().await?;
                let stdout = normal(&std::fs::read_to_string(path)?, self.dir.path());
                Ok(Some(Output { code: None, stdout, stderr: String::new() }))
            }
        }
    }

    fn command(&self, kubectl: &Path, step: &Step) -> anyhow::Result<Command> {
        let dir = self.dir.path();
        let mut command = Command::new(kubectl);
        command.args(words(&self.filled(step.line)?)?).env_clear().current_dir(dir).kill_on_drop(true);
        command.env("HOME", dir).env("TMPDIR", dir).env("KUBECONFIG", dir.join("kubeconfig"));
        // For `edit`, `diff` and their like.
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        if let Some(script) = step.editor {
            command.env("KUBE_EDITOR", format!("sed -i -e '{}'", self.filled(script)?));
        }
        Ok(command)
    }

    async fn run(&self, kubectl: &Path, step: &Step) -> anyhow::Result<Output> {
        let mut command = self.command(kubectl, step)?;
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| kubectl.display().to_string())?;
        let mut stdin = child.stdin.take().context("no stdin")?;
        let input = self.filled(step.input)?;
        let ended = async {
            // A command that doesn't read its input closes it.
            let _ = stdin.write_all(input.as_bytes()).await;
            drop(stdin);
            child.wait_with_output().await
        };
        let output =
            tokio::time::timeout(COMMAND, ended).await.with_context(|| format!("not within {COMMAND:?}"))??;
        let dir = self.dir.path();
        if let Some(file) = step.save {
            std::fs::write(dir.join(file), &output.stdout)?;
        }
        let text = |bytes: &[u8]| normal(&String::from_utf8_lossy(bytes), dir);
        Ok(Output { code: output.status.code(), stdout: text(&output.stdout), stderr: text(&output.stderr) })
    }
}
