//! What a process uses, as the kernel tells it.
//!
//! Never averages and never waits: one look each.

use std::time::Duration;

use anyhow::Context as _;

/// Clock ticks per second in `/proc/<pid>/stat` (`USER_HZ`, the same on every Linux that we build for).
const TICKS_PER_SECOND: u64 = 100;

/// Resident memory, in KiB.
///
/// # Errors
/// The process has ended.
pub(crate) fn rss_kib(process: u32) -> anyhow::Result<u64> {
    let status = proc(process, "status")?;
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS: it has ended")?;
    value.trim().trim_end_matches(" kB").parse().with_context(|| format!("VmRSS:{value}"))
}

/// CPU time used so far, user and system, in steps of 10 ms.
///
/// # Errors
/// The process has ended.
pub(crate) fn cpu(process: u32) -> anyhow::Result<Duration> {
    let stat = proc(process, "stat")?;
    // The second field is the name in parentheses and may hold anything; utime and stime are fields 14 and 15.
    let (_, fields) = stat.rsplit_once(')').context("/proc/<pid>/stat has no name")?;
    let mut ticks = 0;
    for field in fields.split_whitespace().skip(11).take(2) {
        ticks += field.parse::<u64>()?;
    }
    Ok(Duration::from_millis(ticks * 1000 / TICKS_PER_SECOND))
}

fn proc(process: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{process}/{file}");
    std::fs::read_to_string(&path).context(path)
}
