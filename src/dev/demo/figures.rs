//! What the engine's `/metrics` say, as numbers; and what happened between two looks.
//!
//! Pure: text in, figures out. Never keeps more than one look.

use std::collections::BTreeMap;
use std::time::Duration;

/// Counters since the engine's start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Figures {
    /// Syncs that ended, well or not.
    pub(crate) syncs: u64,
    /// Hook calls that were answered with 200.
    pub(crate) answered: u64,
    /// Hook calls that weren't.
    pub(crate) failed: u64,
    /// Writes to the API server.
    pub(crate) writes: u64,
    /// Hook calls by their duration in microseconds, up to and with the bound; cumulative.
    durations: BTreeMap<u64, u64>,
}

impl Figures {
    /// Reads the text format of Prometheus; what isn't known is left out.
    pub(crate) fn parse(text: &str) -> Self {
        let mut figures = Self::default();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            let Ok(value) = value.parse::<f64>() else { continue };
            let count = whole(value);
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let label = |name: &str| label(labels, name);
            match name {
                "controller_runtime_reconcile_total" => figures.syncs += count,
                "ringmaster_hook_requests_total" if label("code") == Some("200") => figures.answered += count,
                "ringmaster_hook_requests_total" => figures.failed += count,
                "rest_client_requests_total" if label("method") != Some("GET") => figures.writes += count,
                "ringmaster_hook_duration_seconds_bucket" => {
                    let bound = label("le").and_then(|bound| bound.parse::<f64>().ok()).filter(|b| b.is_finite());
                    let bound = bound.map_or(u64::MAX, |seconds| whole(seconds * 1e6));
                    *figures.durations.entry(bound).or_default() += count;
                }
                _ => {}
            }
        }
        figures
    }

    /// What came since an earlier look.
    pub(crate) fn since(&self, earlier: &Self) -> Self {
        let past = |bound: &u64| earlier.durations.get(bound).copied().unwrap_or(0);
        Self {
            syncs: self.syncs.saturating_sub(earlier.syncs),
            answered: self.answered.saturating_sub(earlier.answered),
            failed: self.failed.saturating_sub(earlier.failed),
            writes: self.writes.saturating_sub(earlier.writes),
            durations: self.durations.iter().map(|(b, count)| (*b, count.saturating_sub(past(b)))).collect(),
        }
    }

    /// The duration that this share (0 to 1) of the hook calls stayed below, as far as the buckets tell; `None`
    /// without calls. Beyond the last bound it is that bound.
    pub(crate) fn hook_quantile(&self, share: f64) -> Option<Duration> {
        let total = self.durations.values().copied().max().filter(|total| *total > 0)?;
        // Counts on one machine are far below 2^53.
        #[allow(clippy::cast_precision_loss)]
        let rank = share * total as f64;
        let (mut below, mut lower) = (0, 0);
        for (bound, count) in &self.durations {
            #[allow(clippy::cast_precision_loss)]
            let (reached, within) = (*count as f64, (*count - below) as f64);
            if reached >= rank && within > 0.0 {
                if *bound == u64::MAX {
                    return Some(Duration::from_micros(lower));
                }
                #[allow(clippy::cast_precision_loss)]
                let part = (rank - below as f64).max(0.0) / within;
                return Some(
                    Duration::from_micros(lower).mul_f64(1.0 - part) + Duration::from_micros(*bound).mul_f64(part),
                );
            }
            (below, lower) = (*count, *bound);
        }
        Some(Duration::from_micros(lower))
    }
}

/// A count or a bound: never negative, never near 2^53.
#[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
fn whole(value: f64) -> u64 {
    value.max(0.0).round() as u64
}

fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let mut parts = labels.trim_end_matches('}').split("\",");
    parts.find_map(|part| part.strip_prefix(name)?.strip_prefix("=\"")).map(|value| value.trim_end_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "\
# HELP controller_runtime_reconcile Syncs by result.
controller_runtime_reconcile_total{controller=\"website\",result=\"success\"} 10
controller_runtime_reconcile_total{controller=\"website\",result=\"error\"} 2
ringmaster_hook_requests_total{controller=\"website\",hook=\"sync\",code=\"200\"} 9
ringmaster_hook_requests_total{controller=\"website\",hook=\"sync\",code=\"0\"} 3
rest_client_requests_total{method=\"GET\",code=\"200\"} 100
rest_client_requests_total{method=\"POST\",code=\"201\"} 30
rest_client_requests_total{method=\"PATCH\",code=\"200\"} 4
ringmaster_hook_duration_seconds_bucket{le=\"0.001\",controller=\"website\"} 0
ringmaster_hook_duration_seconds_bucket{le=\"0.002\",controller=\"website\"} 50
ringmaster_hook_duration_seconds_bucket{le=\"0.005\",controller=\"website\"} 100
ringmaster_hook_duration_seconds_bucket{le=\"+Inf\",controller=\"website\"} 100
ringmaster_hook_duration_seconds_sum{controller=\"website\"} 0.2
something_else 1
# EOF
";

    #[test]
    fn the_engines_metrics_are_read() {
        let figures = Figures::parse(TEXT);
        assert_eq!((figures.syncs, figures.answered, figures.failed, figures.writes), (12, 9, 3, 34));
        assert_eq!(figures.hook_quantile(0.5), Some(Duration::from_millis(2)));
        assert_eq!(figures.hook_quantile(0.25), Some(Duration::from_micros(1500)));
        assert_eq!(figures.hook_quantile(1.0), Some(Duration::from_millis(5)));
        assert_eq!(Figures::default().hook_quantile(0.5), None);
    }

    #[test]
    fn a_difference_tells_of_the_time_between() {
        let before = Figures::parse(TEXT);
        let slow = TEXT.replace("\"+Inf\",controller=\"website\"} 100", "\"+Inf\",controller=\"website\"} 110");
        let since = Figures::parse(&slow.replace("success\"} 10", "success\"} 25")).since(&before);
        assert_eq!((since.syncs, since.writes), (15, 0));
        // All of these calls took longer than the last bound.
        assert_eq!(since.hook_quantile(0.5), Some(Duration::from_millis(5)));
    }
}
