//! The checker: from the shards' logs, the recorded labels and the objects at the end, whether an object was acted on by a
//! shard that hadn't got it, was forgotten, or had its child made twice.
//!
//! Pure: never asks anybody, and never waits. resourceVersions are compared across kinds: they are revisions of one store,
//! at both servers.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use crate::rings::record::{History, Kind, Seen};
use crate::rings::secrets::child;
use crate::rings::shard::Line;

/// Most findings that are told of one trial.
const MAX_TOLD: usize = 20;

/// A Secret at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Main {
    /// Its name.
    pub(crate) name: String,
    /// The shard that its label names.
    pub(crate) shard: Option<String>,
    /// Whether it is to be let go.
    pub(crate) is_draining: bool,
    /// What its ConfigMap must hold.
    pub(crate) sums: BTreeMap<String, String>,
}

/// A ConfigMap at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Child {
    /// The shard that its label names.
    pub(crate) shard: Option<String>,
    /// What it holds.
    pub(crate) data: BTreeMap<String, String>,
}

/// What there is at the end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct End {
    /// The Secrets.
    pub(crate) mains: Vec<Main>,
    /// The ConfigMaps by name.
    pub(crate) children: BTreeMap<String, Child>,
    /// The shards that live.
    pub(crate) living: BTreeSet<String>,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Finding {
    /// A shard wrote for an object that wasn't its own then.
    Foreign(String),
    /// An object that nobody who lives has.
    Unassigned(String),
    /// An object that still is to be let go.
    Draining(String),
    /// An object whose child is missing, or holds something else.
    NotShown(String),
    /// A child that isn't where its owner is.
    Apart(String),
    /// A child that was created twice, or was to be.
    MadeTwice(String),
    /// A line that says too little to be judged.
    Unreadable(String),
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (what, text) = match self {
            Self::Foreign(text) => ("acted on by another", text),
            Self::Unassigned(text) => ("forgotten", text),
            Self::Draining(text) => ("not let go", text),
            Self::NotShown(text) => ("not reconciled", text),
            Self::Apart(text) => ("a child apart from its owner", text),
            Self::MadeTwice(text) => ("a child made twice", text),
            Self::Unreadable(text) => ("an unreadable line", text),
        };
        write!(out, "{what}: {text}")
    }
}

/// Each write was one for an object whose label named the writer, as of that write.
pub(crate) fn foreign(lines: &[Line], history: &History) -> Vec<Finding> {
    let mut versions: BTreeMap<&str, BTreeMap<u64, &Seen>> = BTreeMap::new();
    for seen in history.events.iter().filter(|seen| seen.kind == Kind::Secret) {
        versions.entry(&seen.name).or_default().insert(seen.version, seen);
    }
    let mut findings = Vec::new();
    for line in lines.iter().filter(|line| line.event == "wrote") {
        let (Ok(version), Some((_, name))) = (line.rv.parse::<u64>(), line.object.split_once('/')) else {
            findings.push(Finding::Unreadable(format!("{line:?}")));
            continue;
        };
        let before = versions.get(name).and_then(|versions| versions.range(..version).next_back());
        let Some((_, seen)) = before else {
            findings.push(Finding::Unreadable(format!("nothing is recorded of it: {line:?}")));
            continue;
        };
        // One that is gone is nobody's any more.
        if !seen.is_deleted && seen.shard.as_deref() != Some(line.shard.as_str()) {
            let Seen { shard, version: since, .. } = seen;
            findings.push(Finding::Foreign(format!("{name} was {shard:?}'s since version {since}: {line:?}")));
        }
    }
    findings
}

/// No child was created twice, and none was tried to be where it was.
pub(crate) fn made_twice(lines: &[Line]) -> Vec<Finding> {
    let mut made: BTreeMap<(&str, &str), Vec<&Line>> = BTreeMap::new();
    let mut findings = Vec::new();
    for line in lines.iter().filter(|line| line.verb == "create") {
        if line.event == "wrote" {
            made.entry((&line.object, &line.name)).or_default().push(line);
        } else if line.event == "failed" && line.reason.as_deref() == Some("AlreadyExists") {
            findings.push(Finding::MadeTwice(format!("{line:?}")));
        }
    }
    let twice = made.into_values().filter(|lines| lines.len() > 1);
    findings.extend(twice.map(|lines| Finding::MadeTwice(format!("{lines:?}"))));
    findings
}

/// Every object has a shard that lives, and a child there that shows its last change.
pub(crate) fn forgotten(end: &End) -> Vec<Finding> {
    let mut findings = Vec::new();
    for main in &end.mains {
        let Main { name, shard, is_draining, sums } = main;
        if !shard.as_ref().is_some_and(|shard| end.living.contains(shard)) {
            findings.push(Finding::Unassigned(format!("{name} is {shard:?}'s, who isn't of {:?}", end.living)));
        }
        if *is_draining {
            findings.push(Finding::Draining(name.clone()));
        }
        let Some(found) = end.children.get(&child(name)) else {
            findings.push(Finding::NotShown(format!("{name} of {shard:?} has no child")));
            continue;
        };
        if found.data != *sums {
            findings.push(Finding::NotShown(format!("{name} of {shard:?} wants {sums:?}, has {:?}", found.data)));
        }
        if found.shard != *shard {
            findings.push(Finding::Apart(format!("{name} is {shard:?}'s, its child {:?}'s", found.shard)));
        }
    }
    findings
}

/// All of it.
pub(crate) fn check(lines: &[Line], history: &History, end: &End) -> Vec<Finding> {
    let mut findings = foreign(lines, history);
    findings.extend(made_twice(lines));
    findings.extend(forgotten(end));
    findings
}

/// The first findings, and how many there are.
pub(crate) fn told(findings: &[Finding]) -> String {
    let lines: Vec<String> = findings.iter().take(MAX_TOLD).map(ToString::to_string).collect();
    format!("{} findings:\n{}", findings.len(), lines.join("\n"))
}
