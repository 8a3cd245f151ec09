//! Benchmarks, each beside what it is compared with, in one run: `cargo bench --bench bench -- NAME` (`make bench`).
//!
//! Never judges by time alone: what counts are ratios. Figures go to stdout, and as JSON to `target/bench/NAME.json`.
//! `N` in the environment sets another size; budgets hold for the size without it.

// The suites' harness is here in parts; time is the benchmarks' own.
#![allow(dead_code, unused_imports, clippy::disallowed_methods)]

mod apiserver;
mod controllers;
mod embedded;
mod load;

#[path = "../suites/built.rs"]
mod built;
#[path = "../suites/child.rs"]
mod child;
#[path = "../suites/hook.rs"]
mod hook;
#[path = "../suites/objects.rs"]
mod objects;
#[path = "../suites/server/mod.rs"]
mod server;
#[path = "../suites/usage.rs"]
mod usage;
#[path = "../suites/wait.rs"]
mod wait;
#[path = "../suites/workload.rs"]
mod workload;

use std::path::Path;
use std::process::ExitCode;

use anyhow::{Context as _, bail};

/// As in the `ringmaster` binary, for the server that runs from this one.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> anyhow::Result<()> {
    // `cargo bench` adds a flag of its own.
    let words: Vec<String> = std::env::args().skip(1).filter(|word| word != "--bench").collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        [embedded::COMMAND, token] => embedded::serve(token),
        [] | ["controllers"] => controllers::run(size()?),
        ["apiserver"] => apiserver::run(size()?),
        other => bail!("{other:?}: there are controllers and apiserver"),
    }
}

/// The size that `N` asks for.
fn size() -> anyhow::Result<Option<usize>> {
    let text = std::env::var("N").unwrap_or_default();
    let number = (!text.is_empty()).then(|| text.parse().context("N must be a number"));
    number.transpose()
}

/// Writes figures to `target/bench`, and says where.
fn save(name: &str, figures: &serde_json::Value) -> anyhow::Result<()> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/bench");
    std::fs::create_dir_all(&folder)?;
    let file = folder.join(format!("{name}.json"));
    std::fs::write(&file, format!("{figures:#}\n")).with_context(|| file.display().to_string())?;
    println!("{}", file.display());
    Ok(())
}
