//! A token bucket per object, for events.
//!
//! Never reads a clock: the time is an argument.

use std::collections::HashMap;
use std::time::Duration;

/// Objects whose buckets are remembered; when there are more, full ones are forgotten first, then all.
const MAX_BUCKETS: usize = 4096;

/// Buckets by a key's hash.
pub(crate) struct Buckets {
    per_second: f64,
    burst: f64,
    buckets: HashMap<u64, (f64, Duration)>,
}

impl Buckets {
    pub(crate) fn new(per_second: f64, burst: u32) -> Self {
        Self { per_second, burst: f64::from(burst), buckets: HashMap::new() }
    }

    /// Takes a token; `false` if there is none. `now` is the time since any fixed start.
    pub(crate) fn take(&mut self, key: u64, now: Duration) -> bool {
        if self.buckets.len() >= MAX_BUCKETS && !self.buckets.contains_key(&key) {
            let (per_second, burst) = (self.per_second, self.burst);
            self.buckets.retain(|_, (tokens, at)| refill(*tokens, *at, now, per_second, burst) < burst);
            if self.buckets.len() >= MAX_BUCKETS {
                self.buckets.clear();
            }
        }
        let (tokens, at) = self.buckets.entry(key).or_insert((self.burst, now));
        *tokens = refill(*tokens, *at, now, self.per_second, self.burst);
        *at = now;
        if *tokens < 1.0 {
            return false;
        }
        *tokens -= 1.0;
        true
    }
}

fn refill(tokens: f64, at: Duration, now: Duration, per_second: f64, burst: f64) -> f64 {
    per_second.mul_add(now.saturating_sub(at).as_secs_f64(), tokens).min(burst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_then_the_rate_and_each_key_for_itself() {
        let mut buckets = Buckets::new(0.5, 2);
        let at = Duration::from_secs;
        assert!(buckets.take(1, at(0)) && buckets.take(1, at(0)) && !buckets.take(1, at(0)));
        assert!(buckets.take(2, at(0)));
        assert!(!buckets.take(1, at(1)) && buckets.take(1, at(2)) && !buckets.take(1, at(2)));
        assert!(buckets.take(1, at(1000)) && buckets.take(1, at(1000)) && !buckets.take(1, at(1000)));
    }

    #[test]
    fn memory_is_bounded() {
        let mut buckets = Buckets::new(0.001, 1);
        for key in 0..(MAX_BUCKETS as u64 * 3) {
            buckets.take(key, Duration::ZERO);
        }
        assert!(buckets.buckets.len() <= MAX_BUCKETS);
    }
}
