//! Waiting for a condition: asks until it holds or a deadline passes, then says what was awaited and what was seen.
//!
//! Never sleeps for a fixed time in place of a condition.

use std::time::{Duration, Instant};

use anyhow::anyhow;

/// How often a condition is asked.
pub(crate) const POLL: Duration = Duration::from_millis(50);

/// Asks `ask` every [`POLL`] until it is `Ok` or `deadline` has passed. An `Err` means "not yet" and says what was seen:
/// `ensure!` and `?` inside it are the way to write a condition. `seen` is told each such state.
///
/// # Errors
/// The deadline passed: names `what` and the last state.
pub(crate) async fn until<T>(
    what: &str,
    deadline: Duration,
    mut seen: impl FnMut(&str),
    mut ask: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    let mut last = "never answered".to_owned();
    loop {
        let left = deadline.saturating_sub(start.elapsed());
        match tokio::time::timeout(left.max(POLL), ask()).await {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(error)) => {
                last = format!("{error:#}");
                seen(&last);
            }
            Err(_) => {}
        }
        if start.elapsed() >= deadline {
            return Err(anyhow!("{what}: not within {deadline:?}; last state: {last}"));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Fails unless `ask` stays `Ok` for all of `span`; its last value otherwise.
///
/// # Errors
/// The first `Err` of `ask`, with `what` and how long it had held.
pub(crate) async fn stays<T>(
    what: &str,
    span: Duration,
    mut ask: impl AsyncFnMut() -> anyhow::Result<T>,
) -> anyhow::Result<T> {
    let start = Instant::now();
    loop {
        let value = ask().await.map_err(|error| error.context(format!("{what}: held only {:?}", start.elapsed())))?;
        if start.elapsed() >= span {
            return Ok(value);
        }
        tokio::time::sleep(POLL).await;
    }
}
