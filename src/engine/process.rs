//! What the operating system says of this process, under the names that Prometheus' clients use.
//!
//! Never fails: what can't be read isn't shown.

use crate::metrics::{Sample, count};

/// Clock ticks per second in `/proc/self/stat`: `USER_HZ`, the same on every Linux that we build for.
const TICKS_PER_SECOND: f64 = 100.0;
/// Bytes in a page, as on every Linux that we build for by default; statm counts pages.
const PAGE_BYTES: f64 = 4096.0;

/// The process as it is now, from `/proc` (Linux).
pub(crate) fn samples() -> Vec<Sample> {
    let mut samples = Vec::new();
    let mut show = |name, help, counter, value: Option<f64>| {
        let values = value.map(|value| (Vec::new(), value)).into_iter().collect();
        samples.push(Sample { name, help, counter, values });
    };
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    // The second field is the name in parentheses and may hold anything; utime and stime are fields 14 and 15.
    let fields: Vec<&str> = stat.rsplit_once(") ").map_or("", |(_, rest)| rest).split(' ').collect();
    let field = |number: usize| fields.get(number - 3).and_then(|field| field.parse::<f64>().ok());
    let cpu = field(14).zip(field(15)).map(|(user, system)| (user + system) / TICKS_PER_SECOND);
    show("process_cpu_seconds", "CPU time used, user and system", true, cpu);
    show("process_virtual_memory_bytes", "Virtual memory", false, field(23));
    show("process_resident_memory_bytes", "Resident memory", false, field(24).map(|pages| pages * PAGE_BYTES));
    show("process_threads", "Threads of the operating system", false, field(20));
    let started = boot_time().zip(field(22)).map(|(boot, ticks)| boot + ticks / TICKS_PER_SECOND);
    show("process_start_time_seconds", "Start of the process, in seconds since 1970", false, started);
    let open = std::fs::read_dir("/proc/self/fd").ok().map(|files| count(files.count()));
    show("process_open_fds", "Open file descriptors", false, open);
    show("process_max_fds", "File descriptors that may be open", false, max_fds());
    samples
}

/// Start of the machine, in seconds since 1970.
fn boot_time() -> Option<f64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

fn max_fds() -> Option<f64> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    limits.lines().find_map(|line| line.strip_prefix("Max open files"))?.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[expect(clippy::disallowed_methods, reason = "compared with what the operating system says of the wall clock")]
    fn a_process_has_memory_threads_and_a_past() {
        let samples = samples();
        let value = |name: &str| samples.iter().find(|sample| sample.name == name).unwrap().values[0].1;
        assert!(value("process_resident_memory_bytes") > 1e6);
        assert!(value("process_virtual_memory_bytes") >= value("process_resident_memory_bytes"));
        assert!(value("process_threads") >= 1.0 && value("process_open_fds") >= 3.0);
        assert!(value("process_max_fds") >= value("process_open_fds"));
        let now = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_secs_f64();
        let age = now - value("process_start_time_seconds");
        assert!((-2.0..3600.0).contains(&age), "{age}");
    }
}
