//! The command line: what it refuses, and the files that it writes.

use std::process::Command;

use anyhow::ensure;

use crate::trial::{Case, Scratch};

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![
        Case::alone("command", "bad_settings_exit_2_and_name_the_flag", bad_settings),
        Case::alone("command", "the_crds_in_manifests_are_current", crds),
    ]
}

fn ringmaster(arguments: &[&str]) -> anyhow::Result<(Option<i32>, String)> {
    let output = Command::new(env!("CARGO_BIN_EXE_ringmaster"))
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env("HOME", "/nonexistent")
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()?;
    Ok((output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned()))
}

async fn bad_settings(_: Scratch) -> anyhow::Result<()> {
    for (argument, names) in [
        ("--workers=0", "--workers"),
        ("--metrics-address=nowhere", "--metrics-address"),
        ("--target-label-selector=a in b", "--target-label-selector"),
        ("--apply-strategy=server-side-apply", "--apply-strategy"),
        ("--hook-resolve=x", "--hook-resolve"),
        ("--discovery-interval=-1s", "--discovery-interval"),
        ("--config=/nonexistent/file.yaml", "/nonexistent/file.yaml"),
        ("--no-such-flag", "--no-such-flag"),
    ] {
        let (code, text) = ringmaster(&["run", argument])?;
        ensure!(code == Some(2) && text.contains(names), "{argument}: exit {code:?}: {text}");
    }
    let (code, text) = ringmaster(&["run", "--kubeconfig=/nonexistent/kubeconfig"])?;
    ensure!(code == Some(1) && text.contains("/nonexistent/kubeconfig"), "exit {code:?}: {text}");
    Ok(())
}

async fn crds(_: Scratch) -> anyhow::Result<()> {
    let (code, text) = ringmaster(&["crds", "--out", "manifests/crds", "--check"])?;
    ensure!(code == Some(0), "exit {code:?}: {text}");
    Ok(())
}
