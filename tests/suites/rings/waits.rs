//! What a stage waits for: that objects have their shards and show it, that nothing moves, that the record has come so far.
//!
//! Never loads the API server where the record says as much.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use serde_json::Value;

use crate::rings::checker::{forgotten, told};
use crate::rings::record::Kind;
use crate::rings::secrets::child;
use crate::rings::stage::{SETTLED, Stage};

/// How long the record may be behind the objects.
const RECORDED: Duration = Duration::from_secs(10);
/// How many times as long as a look took the pause after it is.
const PAUSES: u32 = 4;
/// For how long nothing moves where nothing will.
const QUIET: Duration = Duration::from_secs(2);

impl Stage {
    /// Waits until each Secret has a shard that runs and a ConfigMap there that shows its last change; how long it took.
    ///
    /// # Errors
    /// What isn't so in time.
    pub(crate) async fn settled(&self, deadline: Duration) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let ask = async || {
            let findings = forgotten(&self.present().await?);
            ensure!(findings.is_empty(), "{}", told(&findings));
            Ok(())
        };
        self.ctx.wait("all is where it shall be", deadline, async || paced(ask).await).await?;
        Ok(start.elapsed())
    }

    /// Waits until each Secret has a shard that lives, and its ConfigMap is there; what they hold may be on its way. How
    /// long it took.
    ///
    /// # Errors
    /// What isn't so in time.
    pub(crate) async fn placed(&self, deadline: Duration) -> anyhow::Result<Duration> {
        let start = Instant::now();
        let ask = async || {
            self.recorder.read(|history| {
                let [mains, children] = [Kind::Secret, Kind::ConfigMap].map(|kind| history.present(kind));
                for (name, main) in mains {
                    let shard = main.shard.as_ref();
                    let lives = shard.is_some_and(|it| self.shards.contains_key(it) || self.kept.contains(it));
                    ensure!(lives && !main.is_draining, "{name} is {shard:?}'s, to be let go: {}", main.is_draining);
                    let its = children.get(child(name).as_str()).map(|child| child.shard.as_ref());
                    ensure!(its == Some(shard), "{name} is {shard:?}'s, its child {its:?}'s");
                }
                Ok(())
            })
        };
        self.ctx.wait("all is where it shall be", deadline, ask).await?;
        Ok(start.elapsed())
    }

    /// Waits until the first object is to be let go, since a place of the record.
    ///
    /// # Errors
    /// None is.
    pub(crate) async fn draining(&self, mark: usize) -> anyhow::Result<()> {
        let end = Instant::now() + SETTLED;
        // Not by the usual wait, which would look too seldom.
        while !self.recorder.read(|history| history.events[mark..].iter().any(|seen| seen.is_draining)) {
            ensure!(Instant::now() < end, "nothing is to be let go within {SETTLED:?}");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        Ok(())
    }

    /// Waits until no label has changed for a while.
    ///
    /// # Errors
    /// They go on changing.
    pub(crate) async fn quiet(&self, span: Duration) -> anyhow::Result<()> {
        let ask = async || {
            let quiet = self.recorder.changed().is_none_or(|changed| changed.elapsed() >= span);
            ensure!(quiet, "labels change");
            Ok(())
        };
        self.ctx.wait("no label changes", SETTLED, ask).await
    }

    /// Waits until each shard that runs has its share of the Secrets, within [`Stage::bound`], and nothing moves; the
    /// largest share by the mean.
    ///
    /// # Errors
    /// They don't in time.
    pub(crate) async fn balanced(&self) -> anyhow::Result<f64> {
        let ask = async || {
            let (counts, total) = self.recorder.read(|history| (history.counts(), history.present(Kind::Secret).len()));
            let shards: BTreeSet<&String> = self.shards.keys().collect();
            ensure!(counts.keys().collect::<BTreeSet<_>>() == shards, "{counts:?}, not {shards:?}");
            let most = counts.values().copied().max().unwrap_or(0);
            let bound = self.bound(total, counts.len());
            ensure!(most <= bound, "{counts:?}: {most}, not {bound}");
            Ok(most as f64 * counts.len() as f64 / total.max(1) as f64)
        };
        let spread = self.ctx.wait("shards have as much as each other", SETTLED, ask).await?;
        self.placed(SETTLED).await?;
        self.quiet(QUIET).await?;
        Ok(spread)
    }

    /// Waits until the record has each object as it is.
    ///
    /// # Errors
    /// It hasn't in time.
    pub(crate) async fn recorded(&self) -> anyhow::Result<()> {
        let mut versions = BTreeMap::new();
        for (kind, resource) in [(Kind::Secret, self.secrets.resource()), (Kind::ConfigMap, &self.ctx.configmaps())] {
            for object in self.admin().list(resource, "").await? {
                let metadata = &object["metadata"];
                let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
                let version = text(&metadata["resourceVersion"]).parse::<u64>().context("a version")?;
                versions.insert((kind, text(&metadata["name"])), version);
            }
        }
        let ask = async || {
            self.recorder.read(|history| {
                let present = [Kind::Secret, Kind::ConfigMap].map(|kind| history.present(kind));
                for ((kind, name), version) in &versions {
                    let of_kind = &present[usize::from(*kind == Kind::ConfigMap)];
                    let seen = of_kind.get(name.as_str()).map_or(0, |seen| seen.version);
                    ensure!(seen >= *version, "{kind:?} {name} is of version {version}, the record has {seen}");
                }
                Ok(())
            })
        };
        self.ctx.wait("the record has come so far", RECORDED, async || paced(ask).await).await
    }
}

/// Asks, and pauses after a "not yet" that took its time: looking must not be what keeps all busy.
///
/// # Errors
/// That of the look.
pub(crate) async fn paced<T>(ask: impl AsyncFn() -> anyhow::Result<T>) -> anyhow::Result<T> {
    let start = Instant::now();
    let answer = ask().await;
    if answer.is_err() {
        tokio::time::sleep(start.elapsed() * PAUSES).await;
    }
    answer
}
