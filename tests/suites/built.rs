//! Programs that a script beside their sources builds once with Go, and whose place it prints.
//!
//! Never builds by itself, and never takes a failed build for a missing tool.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, anyhow};

/// What a script came to.
pub(crate) enum Built {
    /// What it printed: a program, or the folder that holds them.
    Found(PathBuf),
    /// It can't be had on this machine; why, and what would help.
    Unavailable(String),
}

/// Runs a script of this repository; it builds if need be, which may take minutes and is told on stderr. Without Go it
/// is unavailable for the reason `without_go`, unless the variable `instead` says where it is.
///
/// # Errors
/// The script fails although it has what it needs.
pub(crate) fn by(script: &str, without_go: &str, instead: Option<&str>) -> anyhow::Result<Built> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(script);
    let output = Command::new(&path)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run {}", path.display()))?;
    if output.status.success() {
        let text = String::from_utf8(output.stdout).with_context(|| format!("{script}: answer is no UTF-8"))?;
        let last = text.lines().last().with_context(|| format!("{script} printed nothing"))?;
        return Ok(Built::Found(PathBuf::from(last)));
    }
    let has_go = Command::new("go").arg("version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    let named = instead.and_then(std::env::var_os).is_some_and(|value| !value.is_empty());
    if has_go || named {
        return Err(anyhow!("{script} failed ({}); it said why above", output.status));
    }
    Ok(Built::Unavailable(without_go.to_owned()))
}
