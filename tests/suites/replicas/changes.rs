//! Changes of parents under load, and how long after each a replica answered for it.
//!
//! Never judges: trials do.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use serde_json::json;

use crate::cluster::Context;
use crate::objects::Resource;
use crate::replicas::calls::{Call, now};

/// Changes parents all the time, and says when each change was answered.
pub(crate) struct Changes {
    task: tokio::task::JoinHandle<anyhow::Result<Vec<Change>>>,
    stop: Arc<tokio::sync::Notify>,
}

/// One change.
#[derive(Debug)]
pub(crate) struct Change {
    /// The parent's name.
    pub(crate) parent: String,
    /// Which it has since then.
    pub(crate) generation: u64,
    /// When the API server said so, since 1970.
    pub(crate) at: Duration,
}

impl Changes {
    /// So many a second, to parents by turns.
    pub(crate) fn start(ctx: &Context, things: &Resource, parents: usize, per_second: u32) -> Self {
        let (admin, things) = (ctx.admin.clone(), things.clone());
        let stop = Arc::<tokio::sync::Notify>::default();
        let stopped = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let (mut changes, mut number) = (Vec::new(), 0);
            let mut turn = tokio::time::interval(Duration::from_secs(1) / per_second);
            loop {
                tokio::select! {
                    () = stopped.notified() => return Ok(changes),
                    _ = turn.tick() => {}
                }
                number += 1;
                let parent = format!("thing-{}", number * 7 % parents);
                let patch = json!({ "spec": { "value": number } });
                let changed = admin.patch_merge(&things, &parent, &patch).await?;
                let generation = changed["metadata"]["generation"].as_u64().context("no generation")?;
                changes.push(Change { parent, generation, at: now() });
            }
        });
        Self { task, stop }
    }

    /// No more from now on; all that were made.
    ///
    /// # Errors
    /// The API server refused one.
    pub(crate) async fn stop(self) -> anyhow::Result<Vec<Change>> {
        self.stop.notify_one();
        self.task.await?
    }
}

/// How long after each change a call that carries it, or a later one, was answered well; `None` if none was.
pub(crate) fn served(changes: &[Change], calls: &[Call]) -> Vec<Option<Duration>> {
    let mut by_parent: HashMap<&str, Vec<&Call>> = HashMap::new();
    for call in calls {
        by_parent.entry(&call.parent).or_default().push(call);
    }
    let of = |change: &Change| {
        let calls = by_parent.get(change.parent.as_str())?;
        let good = calls.iter().filter(|call| call.generation >= change.generation);
        let ends = good.filter_map(|call| call.ended.filter(|(_, code)| *code == 200).map(|(at, _)| at));
        Some(ends.min()?.saturating_sub(change.at))
    };
    changes.iter().map(of).collect()
}

/// What happened to a change's parent, in seconds since a moment.
pub(crate) fn story(change: &Change, calls: &[Call], since: Duration) -> String {
    let ago = |moment: Duration| format!("{:.3}", moment.as_secs_f64() - since.as_secs_f64());
    let calls = calls.iter().filter(|call| call.parent == change.parent).map(|call| {
        let ended = call.ended.map_or_else(|| "never".to_owned(), |(end, code)| format!("{} ({code})", ago(end)));
        format!("generation {} at {} from {} to {ended}", call.generation, call.replica, ago(call.began))
    });
    format!(
        "{} became {} at {}; {}",
        change.parent,
        change.generation,
        ago(change.at),
        calls.collect::<Vec<_>>().join(", ")
    )
}

/// The longest and the 99th percentile, and how many were never served.
pub(crate) fn summary(served: &[Option<Duration>]) -> (Duration, Duration, usize) {
    let mut times: Vec<Duration> = served.iter().flatten().copied().collect();
    times.sort();
    let p99 = times.get((times.len() * 99 / 100).saturating_sub(1)).copied().unwrap_or_default();
    (times.last().copied().unwrap_or_default(), p99, served.iter().filter(|served| served.is_none()).count())
}
