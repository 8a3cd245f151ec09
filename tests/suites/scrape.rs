//! A scrape of `/metrics`, taken apart.
//!
//! Never judges a value: trials do.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use anyhow::{Context as _, ensure};

/// One metric: its type and the names of its labels.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Metric {
    /// `counter`, `gauge` or `histogram`.
    pub(crate) kind: String,
    /// Their names, without a histogram's `le`.
    pub(crate) labels: BTreeSet<String>,
}

/// A scrape: metrics by name, and the values of all series.
#[derive(Default)]
pub(crate) struct Scrape {
    /// As it was served.
    pub(crate) text: String,
    /// By name.
    pub(crate) metrics: BTreeMap<String, Metric>,
    series: Vec<(String, f64)>,
}

impl Scrape {
    /// Asks for it.
    ///
    /// # Errors
    /// No answer, or one that isn't Prometheus' text.
    pub(crate) fn of(url: &str) -> anyhow::Result<Self> {
        let output = Command::new("curl").args(["-fsS", "--max-time", "5", url]).output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Self::parse(String::from_utf8(output.stdout)?)
    }

    fn parse(text: String) -> anyhow::Result<Self> {
        let mut scrape = Self::default();
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').context("a TYPE without a type")?;
                let metric = Metric { kind: kind.to_owned(), labels: BTreeSet::new() };
                ensure!(scrape.metrics.insert(name.to_owned(), metric).is_none(), "{name} comes twice");
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').context("a series without a value")?;
                scrape.series.push((series.to_owned(), value.parse()?));
                let (name, labels) = series.split_once('{').unwrap_or((series, ""));
                let family = ["_bucket", "_sum", "_count"].iter().find_map(|suffix| {
                    let family = name.strip_suffix(suffix)?;
                    scrape.metrics.get(family).is_some_and(|metric| metric.kind == "histogram").then_some(family)
                });
                let metric =
                    scrape.metrics.get_mut(family.unwrap_or(name)).with_context(|| format!("no TYPE: {line}"))?;
                let names = labels.trim_end_matches('}').split("\",").filter_map(|part| part.split_once("=\""));
                metric.labels.extend(names.map(|(label, _)| label.to_owned()).filter(|label| label != "le"));
            }
        }
        scrape.text = text;
        Ok(scrape)
    }

    /// The sum of the series of a metric with these labels.
    pub(crate) fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let is = |series: &str| {
            let rest = series.strip_prefix(name).filter(|rest| rest.is_empty() || rest.starts_with('{'));
            rest.is_some_and(|rest| labels.iter().all(|(label, value)| rest.contains(&format!("{label}=\"{value}\""))))
        };
        self.series.iter().filter(|(series, _)| is(series)).map(|(_, value)| value).sum()
    }
}

/// A free port of loopback, for a process that is told its port (unless somebody takes it at that very time).
///
/// # Errors
/// There is none.
pub(crate) fn free_port() -> anyhow::Result<u16> {
    Ok(std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port())
}
