//! What a process uses, as the kernel tells it.
//!
//! Never averages and never waits: one look each.

use std::collections::BTreeSet;
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

/// The TCP ports at which it listens.
///
/// # Errors
/// The process has ended, or belongs to somebody else.
pub(crate) fn ports(process: u32) -> anyhow::Result<BTreeSet<u16>> {
    /// As the kernel writes `TCP_LISTEN`.
    const LISTENS: &str = "0A";
    let (folder, mut sockets) = (format!("/proc/{process}/fd"), BTreeSet::new());
    for entry in std::fs::read_dir(&folder).with_context(|| folder.clone())? {
        // One that was closed meanwhile is none of its own.
        let Ok(link) = std::fs::read_link(entry?.path()) else { continue };
        let link = link.to_string_lossy();
        let inode = link.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']'));
        sockets.extend(inode.map(ToOwned::to_owned));
    }
    // There is no second file on a machine without IPv6.
    let tables = proc(process, "net/tcp")? + &proc(process, "net/tcp6").unwrap_or_default();
    let mut ports = BTreeSet::new();
    for line in tables.lines() {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let [_, local, _, state, _, _, _, _, _, inode, ..] = *fields else { continue };
        if state == LISTENS && sockets.contains(inode) {
            let (_, port) = local.rsplit_once(':').with_context(|| line.to_owned())?;
            ports.insert(u16::from_str_radix(port, 16)?);
        }
    }
    Ok(ports)
}

fn proc(process: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{process}/{file}");
    std::fs::read_to_string(&path).context(path)
}
