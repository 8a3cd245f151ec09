//! A token bucket per object, for events.
//!
//! Never reads a clock: the time is an argument.

use std::collections::HashMap;
use std::time::Duration;

/// Objects whose buckets are remembered; when there are more, full ones are forgotten first, then all.
const MAX_BUCKETS: usize = 4096;

/// With an empty bucket, a message that wasn't the last one still passes after this long: a new cause must not stay
/// unsaid because an old one was said too often.
const NEWS_AFTER: Duration = Duration::from_secs(10);

/// Buckets by a key's hash.
pub(crate) struct Buckets {
    per_second: f64,
    burst: f64,
    buckets: HashMap<u64, Bucket>,
}

struct Bucket {
    tokens: f64,
    /// When tokens were counted last.
    at: Duration,
    /// The last message that passed, and when.
    message: Option<u64>,
    passed: Duration,
}

impl Buckets {
    pub(crate) fn new(per_second: f64, burst: u32) -> Self {
        Self { per_second, burst: f64::from(burst), buckets: HashMap::new() }
    }

    /// Takes a token; `false` if there is none. `message` is a hash of what is to be said, `None` where no message is
    /// news; `now` is the time since any fixed start.
    pub(crate) fn take(&mut self, key: u64, message: Option<u64>, now: Duration) -> bool {
        if self.buckets.len() >= MAX_BUCKETS && !self.buckets.contains_key(&key) {
            let (per_second, burst) = (self.per_second, self.burst);
            self.buckets.retain(|_, bucket| refill(bucket.tokens, bucket.at, now, per_second, burst) < burst);
            if self.buckets.len() >= MAX_BUCKETS {
                self.buckets.clear();
            }
        }
        let fresh = Bucket { tokens: self.burst, at: now, message, passed: now };
        let bucket = self.buckets.entry(key).or_insert(fresh);
        bucket.tokens = refill(bucket.tokens, bucket.at, now, self.per_second, self.burst);
        bucket.at = now;
        let news = message.is_some() && bucket.message != message && now.saturating_sub(bucket.passed) >= NEWS_AFTER;
        if bucket.tokens < 1.0 && !news {
            return false;
        }
        bucket.tokens = (bucket.tokens - 1.0).max(0.0);
        (bucket.message, bucket.passed) = (message, now);
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
        let mut take = |key, seconds| buckets.take(key, Some(7), at(seconds));
        assert!(take(1, 0) && take(1, 0) && !take(1, 0));
        assert!(take(2, 0));
        assert!(!take(1, 1) && take(1, 2) && !take(1, 2));
        assert!(take(1, 1000) && take(1, 1000) && !take(1, 1000));
    }

    #[test]
    fn a_new_message_passes_an_empty_bucket_now_and_then() {
        let mut buckets = Buckets::new(0.0001, 1);
        let at = Duration::from_secs;
        assert!(buckets.take(1, Some(7), at(0)) && !buckets.take(1, Some(7), at(60)));
        assert!(buckets.take(1, Some(8), at(60)), "a new cause");
        assert!(!buckets.take(1, Some(9), at(61)), "too soon after it");
        assert!(!buckets.take(1, Some(8), at(90)) && buckets.take(1, Some(9), at(90)));
        assert!(!buckets.take(1, None, at(120)), "nothing that is news");
    }

    #[test]
    fn memory_is_bounded() {
        let mut buckets = Buckets::new(0.001, 1);
        for key in 0..(MAX_BUCKETS as u64 * 3) {
            buckets.take(key, Some(0), Duration::ZERO);
        }
        assert!(buckets.buckets.len() <= MAX_BUCKETS);
    }
}
