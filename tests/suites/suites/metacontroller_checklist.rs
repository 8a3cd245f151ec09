//! The checklist of parity: what it names is there, and nothing is missing in it.
//!
//! Never judges what a trial covers: whoever writes a row does.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, ensure};

use crate::trial::{Case, Scratch};

const ROOT: &str = env!("CARGO_MANIFEST_DIR");
const CHECKLIST: &str = "tests/metacontroller/CHECKLIST.md";
/// Sections of the contract that it goes through: 1.1 and so on.
const SECTIONS: usize = 11;
/// Suites all of whose trials stand in it.
const WHOLE: [&str; 2] = ["parity", "takeover"];
/// What a row without a test begins with, and least words of its reason.
const REASONS: [&str; 2] = ["Decided: ", "Left out: "];
const REASON_WORDS: usize = 5;
/// An attribute stands at most so many lines before its function.
const ATTRIBUTES: usize = 4;

/// The trials of this suite.
pub(crate) fn cases() -> Vec<Case> {
    vec![Case::alone("parity", "every_row_has_a_test", every_row)]
}

/// The names in back quotes, with both of `{a,b}`.
fn names(cell: &str) -> Vec<String> {
    let quoted = cell.split('`').skip(1).step_by(2).filter(|name| name.contains("::"));
    let mut names = Vec::new();
    for name in quoted {
        let parts = name.split_once('{').and_then(|(start, rest)| Some((start, rest.split_once('}')?)));
        match parts {
            Some((start, (each, end))) => names.extend(each.split(',').map(|part| format!("{start}{part}{end}"))),
            None => names.push(name.to_owned()),
        }
    }
    names
}

/// Paths below the root, and texts of all Rust files in a folder.
fn sources(folder: &str, files: &mut Vec<(String, String)>) -> anyhow::Result<()> {
    for entry in fs::read_dir(Path::new(ROOT).join(folder)).with_context(|| folder.to_owned())? {
        let entry = entry?;
        let path = format!("{folder}/{}", entry.file_name().to_string_lossy());
        if entry.file_type()?.is_dir() {
            sources(&path, files)?;
        } else if entry.path().extension().is_some_and(|extension| extension == "rs") {
            let text = fs::read_to_string(entry.path()).with_context(|| path.clone())?;
            files.push((path, text));
        }
    }
    Ok(())
}

fn has_test(text: &str, name: &str) -> bool {
    let head = format!("fn {name}(");
    let lines: Vec<&str> = text.lines().collect();
    let found = lines.iter().position(|line| line.contains(&head));
    found.is_some_and(|at| {
        let before = &lines[at.saturating_sub(ATTRIBUTES)..at];
        before.iter().any(|line| line.trim_start().starts_with("#[") && line.contains("test"))
    })
}

/// Whether a unit test `crate::module::test` stands in a file of this module, or of one within it.
fn is_unit(files: &[(String, String)], name: &str) -> bool {
    let Some((module, test)) = name.rsplit_once("::") else { return false };
    let module = module.strip_suffix("::tests").unwrap_or(module);
    let place = format!("src/{}", module.replace("::", "/"));
    let is_in = |path: &str| path.strip_prefix(&place).is_some_and(|rest| rest.starts_with(['.', '/', '_']));
    files.iter().any(|(path, text)| is_in(path) && has_test(text, test))
}

async fn every_row(_: Scratch) -> anyhow::Result<()> {
    let text = fs::read_to_string(Path::new(ROOT).join(CHECKLIST)).context(CHECKLIST)?;
    let mut files = Vec::new();
    sources("src", &mut files)?;
    let trials: BTreeSet<String> =
        super::known().iter().map(|case| format!("{}::{}", case.suite(), case.name())).collect();
    let (mut wrong, mut named, mut rows) = (Vec::new(), BTreeSet::new(), vec![0; SECTIONS]);
    let mut section = None;
    let lines: Vec<&str> = text.lines().collect();
    for (at, line) in lines.iter().enumerate() {
        if let Some(heading) = line.strip_prefix("## 1.") {
            let number: usize = heading.split(' ').next().unwrap_or_default().parse().context("a heading")?;
            section = number.checked_sub(1).filter(|index| *index < SECTIONS);
        }
        let is_head = lines.get(at + 1).is_some_and(|next| next.starts_with("|---"));
        if !line.starts_with("| ") || is_head {
            continue;
        }
        let section = section.with_context(|| format!("a row outside of the sections: {line}"))?;
        rows[section] += 1;
        let cells: Vec<&str> = line.trim_matches('|').split(" | ").map(str::trim).collect();
        let [_, covered] = *cells else {
            wrong.push(format!("not two cells: {line}"));
            continue;
        };
        let tests = names(covered);
        let is_reason = REASONS.iter().any(|start| covered.starts_with(start));
        if tests.is_empty() && !(is_reason && covered.split_whitespace().count() > REASON_WORDS) {
            wrong.push(format!("no test and no reason: {line}"));
        }
        for test in tests {
            if !trials.contains(&test) && !is_unit(&files, &test) {
                wrong.push(format!("{test} doesn't exist"));
            }
            named.insert(test);
        }
    }
    for (index, rows) in rows.iter().enumerate() {
        if *rows == 0 {
            wrong.push(format!("section 1.{} has no row", index + 1));
        }
    }
    for trial in &trials {
        let suite = trial.split("::").next().unwrap_or_default();
        if WHOLE.contains(&suite) && !named.contains(trial) {
            wrong.push(format!("{trial} stands in no row"));
        }
    }
    ensure!(wrong.is_empty(), "{CHECKLIST}:\n{}", wrong.join("\n"));
    Ok(())
}
