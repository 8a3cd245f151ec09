//! Token buckets for events: per object and level, and of the process per level.
//!
//! Never reads a clock: the time is an argument.

use std::collections::HashMap;
use std::time::Duration;

use crate::events::Level;

/// Warnings a second, of the whole process, and how many more in a burst: when a hook or the API server is away, all
/// parents fail at once, and whoever looks needs some of them, not each.
const WARNINGS: (f64, u32) = (20.0, 200);
/// The same for what began or is well again.
const NOTICES: (f64, u32) = (5.0, 50);
/// The same for what is done all the time. Parents are made by the thousand: what goes well must cost the API server
/// little beside the work itself.
const ROUTINE: (f64, u32) = (5.0, 50);
/// The same for what hooks say, of either kind: how much that is, is theirs to choose, and takes nothing from what else
/// must be said.
const HOOKS: (f64, u32) = (5.0, 50);

/// Objects whose buckets are remembered; when there are more, full ones are forgotten first, then all.
const MAX_BUCKETS: usize = 4096;

/// With an empty bucket, a message that wasn't the last one still passes after this long: a new cause must not stay
/// unsaid because an old one was said too often.
const NEWS_AFTER: Duration = Duration::from_secs(10);

/// All rates that an event must pass.
pub(crate) struct Rates {
    objects: Buckets,
    warnings: Total,
    notices: Total,
    routine: Total,
    hook_warnings: Total,
    hook_notices: Total,
}

impl Rates {
    /// `per_second` and `burst` are those of one object at each level.
    pub(crate) fn new(per_second: f64, burst: u32) -> Self {
        Self {
            objects: Buckets::new(per_second, burst),
            warnings: Total::new(WARNINGS),
            notices: Total::new(NOTICES),
            routine: Total::new(ROUTINE),
            hook_warnings: Total::new(HOOKS),
            hook_notices: Total::new(HOOKS),
        }
    }

    /// Takes what an event of this level needs, all or nothing. `object` and `message` are hashes of what it is about
    /// and of what it says; `now` is the time since any fixed start.
    ///
    /// # Errors
    /// The limit that has no room.
    pub(crate) fn take(&mut self, level: Level, object: u64, message: u64, now: Duration) -> Result<(), &'static str> {
        let (total, limit) = match level {
            Level::Warning => (&mut self.warnings, "warning_events_rate"),
            Level::Notice => (&mut self.notices, "normal_events_rate"),
            Level::Routine => (&mut self.routine, "child_events_rate"),
            Level::HookWarning => (&mut self.hook_warnings, "hook_events_rate"),
            Level::HookNotice => (&mut self.hook_notices, "hook_events_rate"),
        };
        if !total.has_room(now) {
            return Err(limit);
        }
        // What its own object's rate drops takes nothing from that of all.
        let message = level.warns().then_some(message);
        if !self.objects.take((object, level), message, now) {
            return Err("events_rate");
        }
        total.tokens -= 1.0;
        Ok(())
    }
}

/// One bucket of the whole process.
struct Total {
    per_second: f64,
    burst: f64,
    tokens: f64,
    /// When tokens were counted last.
    at: Duration,
}

impl Total {
    fn new((per_second, burst): (f64, u32)) -> Self {
        let burst = f64::from(burst);
        Self { per_second, burst, tokens: burst, at: Duration::ZERO }
    }

    fn has_room(&mut self, now: Duration) -> bool {
        self.tokens = refill(self.tokens, self.at, now, self.per_second, self.burst);
        self.at = now;
        self.tokens >= 1.0
    }
}

/// What a bucket is for: the hash of an object, and a level.
type Key = (u64, Level);

/// Buckets by what they are for.
struct Buckets {
    per_second: f64,
    burst: f64,
    buckets: HashMap<Key, Bucket>,
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
    fn new(per_second: f64, burst: u32) -> Self {
        Self { per_second, burst: f64::from(burst), buckets: HashMap::new() }
    }

    /// Takes a token; `false` if there is none. `message` is a hash of what is to be said, `None` where no message is
    /// news; `now` is the time since any fixed start.
    fn take(&mut self, key: Key, message: Option<u64>, now: Duration) -> bool {
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
        let mut take = |key, seconds| buckets.take((key, Level::Warning), Some(7), at(seconds));
        assert!(take(1, 0) && take(1, 0) && !take(1, 0));
        assert!(take(2, 0));
        assert!(!take(1, 1) && take(1, 2) && !take(1, 2));
        assert!(take(1, 1000) && take(1, 1000) && !take(1, 1000));
    }

    #[test]
    fn a_new_message_passes_an_empty_bucket_now_and_then() {
        let mut buckets = Buckets::new(0.0001, 1);
        let mut take = |message, seconds| buckets.take((1, Level::Warning), message, Duration::from_secs(seconds));
        assert!(take(Some(7), 0) && !take(Some(7), 60));
        assert!(take(Some(8), 60), "a new cause");
        assert!(!take(Some(9), 61), "too soon after it");
        assert!(!take(Some(8), 90) && take(Some(9), 90));
        assert!(!take(None, 120), "nothing that is news");
    }

    #[test]
    fn one_object_takes_no_more_from_all_than_it_may_say() {
        let mut rates = Rates::new(0.001, 3);
        let at = Duration::ZERO;
        let said = (0..500).filter(|_| rates.take(Level::Routine, 1, 0, at).is_ok()).count();
        assert_eq!((said, rates.take(Level::Routine, 1, 0, at)), (3, Err("events_rate")));
        let others = (2..500).filter(|object| rates.take(Level::Routine, *object, 0, at).is_ok()).count();
        assert_eq!(others, ROUTINE.1 as usize - 3);
    }

    #[test]
    fn levels_share_no_rate_and_each_is_bounded() {
        let mut rates = Rates::new(0.001, 3);
        let table = [
            (Level::Routine, ROUTINE, "child_events_rate"),
            (Level::Notice, NOTICES, "normal_events_rate"),
            (Level::Warning, WARNINGS, "warning_events_rate"),
            (Level::HookWarning, HOOKS, "hook_events_rate"),
            (Level::HookNotice, HOOKS, "hook_events_rate"),
        ];
        for (level, (per_second, burst), limit) in table {
            let mut flood = |at| (0..1000).filter(|object| rates.take(level, *object, 0, at).is_ok()).count();
            assert_eq!(flood(Duration::ZERO), burst as usize, "{level:?}");
            assert_eq!(flood(Duration::from_secs(1)), per_second as usize, "{level:?}");
            assert_eq!(rates.take(level, 2000, 0, Duration::from_secs(1)), Err(limit));
        }
    }

    #[test]
    fn what_all_have_no_room_for_costs_its_object_nothing() {
        let mut rates = Rates::new(0.001, 1);
        for object in 0..1000 {
            let _ = rates.take(Level::Notice, object, 0, Duration::ZERO);
        }
        assert_eq!(rates.take(Level::Notice, 999, 0, Duration::ZERO), Err("normal_events_rate"));
        assert_eq!(rates.take(Level::Notice, 999, 0, Duration::from_secs(1)), Ok(()));
    }

    #[test]
    fn memory_is_bounded() {
        let mut buckets = Buckets::new(0.001, 1);
        for key in 0..(MAX_BUCKETS as u64 * 3) {
            buckets.take((key, Level::Notice), Some(0), Duration::ZERO);
        }
        assert!(buckets.buckets.len() <= MAX_BUCKETS);
    }
}
