//! The embedded server answers as the real one: scripts of raw requests, run on both, their transcripts compared.
//!
//! Each file in `conformance/scripts` is a script and a trial `both::conformance::<file>`; `script` says how one is
//! written, `run` plays it, `normal` takes away what must differ (names, uids, times, versions), `diff` shows what does.
//! Never looks through a client library: codes, headers and bodies are compared as they come.

mod diff;
mod normal;
mod run;
mod script;

use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context as _, ensure};

use crate::cluster::Context;
use crate::trial::Case;
use run::Record;
use script::Script;

/// Differences shown of one script; more are only counted.
const MAX_SHOWN: usize = 100;
/// Most scripts in the folder.
const MAX_SCRIPTS: usize = 256;

/// One trial a script; a folder that can't be read makes one that fails.
pub(crate) fn cases() -> Vec<Case> {
    match scripts() {
        Ok(paths) => paths.into_iter().map(|(name, path)| case(name, path)).collect(),
        Err(error) => {
            let error = Arc::new(error);
            vec![Case::both("conformance", "scripts", move |_, _| {
                let error = Arc::clone(&error);
                async move { anyhow::bail!("{error:#}") }
            })]
        }
    }
}

fn scripts() -> anyhow::Result<Vec<(&'static str, PathBuf)>> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/suites/suites/conformance/scripts");
    let mut found = Vec::new();
    for entry in std::fs::read_dir(&folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        let name = path.file_stem().and_then(|name| name.to_str()).context("a script's name is UTF-8")?.to_owned();
        // The names of trials live as long as the process.
        found.push((&*name.leak(), path));
    }
    ensure!(!found.is_empty() && found.len() <= MAX_SCRIPTS, "{}: {} scripts", folder.display(), found.len());
    found.sort();
    Ok(found)
}

fn case(name: &'static str, path: PathBuf) -> Case {
    Case::both("conformance", name, move |embedded, real| {
        let path = path.clone();
        async move { compare(&path, &embedded, &real).await }
    })
}

async fn compare(path: &Path, embedded: &Context, real: &Context) -> anyhow::Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
    let script = Script::parse(&text).with_context(|| path.display().to_string())?;
    let (ours, theirs) = futures::join!(run::play(&script, embedded), run::play(&script, real));
    let (ours, theirs) = (ours.context("on the embedded server")?, theirs.context("on the real server")?);
    let mut faults = Vec::new();
    for (index, step) in script.steps.iter().enumerate() {
        let (ours, theirs) = (&ours[index], &theirs[index]);
        let mut said: Vec<String> = Vec::new();
        for (server, record) in [("embedded", ours), ("real", theirs)] {
            said.extend(record.faults.iter().map(|fault| format!("{server}: {fault}")));
        }
        said.extend(diff::lines(&Record::shown(ours), &Record::shown(theirs)));
        if !said.is_empty() {
            faults.push(format!("step {} ({})\n    {}", index + 1, step.title(), said.join("\n    ")));
        }
    }
    let count = faults.len();
    faults.truncate(MAX_SHOWN);
    ensure!(count == 0, "{count} of {} steps differ (embedded != real):\n{}", script.steps.len(), faults.join("\n"));
    Ok(())
}
