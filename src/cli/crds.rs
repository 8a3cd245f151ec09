//! `ringmaster crds`: writes the generated CRDs, or checks that those in a folder are what would be written.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context as _, bail};
use ringmaster_engine::print::Printer;

/// Arguments of `ringmaster crds`.
#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Write one file per CRD into this folder; without it, print all
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Write nothing; fail if a file in the folder isn't what would be written
    #[arg(long, requires = "out")]
    check: bool,
}

pub(crate) fn main(arguments: &Arguments, log: &Printer) -> ExitCode {
    match write(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => crate::fail(log, 1, &error),
    }
}

fn write(arguments: &Arguments) -> anyhow::Result<()> {
    let files = ringmaster_api::crds::all().context("generating the CRDs")?;
    let Some(folder) = &arguments.out else {
        for (_, yaml) in files.iter().filter(|(name, _)| *name != "kustomization.yaml") {
            println!("---\n{}", yaml.trim_end());
        }
        return Ok(());
    };
    for (name, yaml) in files {
        let path = folder.join(name);
        if arguments.check {
            if fs::read_to_string(&path).ok().as_deref() != Some(&yaml) {
                bail!("{} is stale: run `make crds`", path.display());
            }
        } else {
            fs::write(&path, yaml).with_context(|| format!("writing {}", path.display()))?;
        }
    }
    Ok(())
}
