//! The example shards, one for each language, built where they need to be.
//!
//! Never installs a language. One that this machine lacks is left out, which is told; with `CI=true` it is an error.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;

use anyhow::{Context as _, anyhow, bail};

use crate::built::Built;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

/// A language that there is a library for shards for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Language {
    /// kube-rs.
    Rust,
    /// controller-runtime.
    Go,
    /// kopf.
    Python,
}

impl Language {
    const ALL: [Self; 3] = [Self::Rust, Self::Go, Self::Python];

    /// Its name, part of its shards' names.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Rust => "rust",
            Self::Go => "go",
            Self::Python => "python",
        }
    }
}

impl fmt::Display for Language {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.name())
    }
}

/// The example shard in one language.
#[derive(Clone, Debug)]
pub(crate) struct Program {
    /// Which.
    pub(crate) language: Language,
    /// What is run.
    pub(crate) path: PathBuf,
    /// What comes before the shard's flags.
    pub(crate) args: Vec<String>,
}

/// The examples that this machine can run; built once a run, which may take minutes.
///
/// # Errors
/// One can't be built though its language is there; or none is; or, with `CI=true`, one isn't.
pub(crate) fn programs() -> anyhow::Result<&'static [Program]> {
    static BUILT: OnceLock<Result<Vec<Program>, String>> = OnceLock::new();
    let built = BUILT.get_or_init(|| all().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow!("{error}"))
}

/// As a trial asks for them before its time begins.
///
/// # Errors
/// As [`programs`].
pub(crate) fn needed() -> anyhow::Result<Built> {
    let programs = programs()?;
    let first = programs.first().context("no example shard can be run here")?;
    Ok(Built::Found(first.path.clone()))
}

fn all() -> anyhow::Result<Vec<Program>> {
    let mut programs = Vec::new();
    for language in Language::ALL {
        let program = match language {
            Language::Rust => rust().map(Some),
            Language::Go => go(),
            Language::Python => python(),
        };
        match program.with_context(|| format!("the example shard in {language}"))? {
            Some(program) => programs.push(program),
            None if std::env::var("CI").is_ok_and(|value| value == "true") => {
                bail!("no example shard in {language} (an error because CI=true); see above")
            }
            None => eprintln!("shards in {language} are left out: this machine can't run them"),
        }
    }
    Ok(programs)
}

/// Of the same profile and into the same folder as what is tested.
fn rust() -> anyhow::Result<Program> {
    let own = Path::new(env!("CARGO_BIN_EXE_ringmaster"));
    let folder = own.parent().and_then(Path::file_name).and_then(|name| name.to_str()).context("no target folder")?;
    let target = own.ancestors().nth(2).context("no target folder")?;
    let profile = if folder == "debug" { "dev" } else { folder };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .current_dir(ROOT)
        .args(["build", "--quiet", "--package=ringmaster-shard", "--example=checksums"])
        .arg(format!("--profile={profile}"))
        .arg("--target-dir")
        .arg(target)
        .stdin(Stdio::null())
        .status()
        .context("run cargo")?;
    if !status.success() {
        bail!("cargo build failed ({status}); it said why above");
    }
    let path = target.join(folder).join("examples/checksums");
    Ok(Program { language: Language::Rust, path, args: Vec::new() })
}

fn go() -> anyhow::Result<Option<Program>> {
    let has_go = Command::new("go").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    if !has_go {
        return Ok(None);
    }
    let path = printed("tests/components/goshard")?.context("it failed, and said why above")?;
    Ok(Some(Program { language: Language::Go, path, args: Vec::new() }))
}

/// What lacks is mostly a way to the package index, and the script says so.
fn python() -> anyhow::Result<Option<Program>> {
    let Some(path) = printed("tests/components/python")? else { return Ok(None) };
    let example = Path::new(ROOT).join("shards/python/checksums/checksums.py");
    Ok(Some(Program { language: Language::Python, path, args: vec![example.display().to_string()] }))
}

/// What a script prints last; `None` if it fails.
fn printed(script: &str) -> anyhow::Result<Option<PathBuf>> {
    let path = Path::new(ROOT).join(script);
    let mut command = Command::new(&path);
    let output = command.stdin(Stdio::null()).stderr(Stdio::inherit()).output();
    let output = output.with_context(|| format!("run {}", path.display()))?;
    if !output.status.success() {
        return Ok(None);
    }
    let text = String::from_utf8(output.stdout).with_context(|| format!("{script}: answer is no UTF-8"))?;
    Ok(Some(PathBuf::from(text.lines().last().with_context(|| format!("{script} printed nothing"))?)))
}
