//! How many calls an endpoint takes at once: learnt from how long its answers take, and how many don't come in time.
//!
//! Never knows who calls. It is there so that a slow webhook isn't drowned: calls that wait here have not begun, and their
//! time has not either. A fast webhook never feels it: what takes little of its timeout is no sign of anything.
//!
//! Calls are judged in windows of about as many as run at once. A window is *crowded* if many of its calls were refused for
//! want of room, or if its answers took a good part of their timeouts and longer than they did with fewer at once, or if
//! many had no answer in time and the others took long too. Then the limit falls, and the next window shows whether that
//! helped. If it didn't, the webhook is slow by itself, the limit is what it was, and what answers take now is what they
//! take. A window that was full and not crowded raises the limit, unless that could bring answers to their timeouts; then
//! one more is tried now and then.

use std::num::NonZeroUsize;
use std::time::Duration;

/// Where the limit of a new endpoint begins.
const START: usize = 4;
/// Fewest calls in a window; fewer while the limit is found for the first time.
const WINDOW: (u32, u32) = (4, 16);
/// Windows that pass after a fall that didn't help before there may be another.
const HOLD: u32 = 8;
/// Full windows after which one more call is tried, although answers take long already.
const EXPLORE: u32 = 4;
/// The part of a window's calls above which it matters that they were refused, or had no answer.
const MANY: f64 = 0.2;

/// So many controllers at most may have one call beyond the limit.
pub const MOST_EXTRA: usize = 4;

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was answered.
    Answered,
    /// It wasn't in time.
    Late,
    /// The answer was that there is too much to do (429, 503, or HTTP/2's refusal of a stream).
    Refused,
}

/// The limit of one endpoint.
#[derive(Clone, Debug)]
pub struct Limit {
    most: f64,
    limit: f64,
    /// No window was crowded yet since the start: it doubles.
    starting: bool,
    /// What a call takes while there is no crowd, as far as is known, in seconds.
    base: Option<f64>,
    /// The crowded window that led to the last fall, and the limit before the first of the falls in a row.
    before_fall: Option<(Shown, f64)>,
    hold: u32,
    /// Full windows in a row in which the limit stayed for fear of timeouts.
    stayed: u32,
    /// The window before one more was tried.
    before_trial: Option<Shown>,
    /// A trial showed that answers take no longer with more at once.
    is_free: bool,
    /// It refused calls, or was left out: the limit is meant as it is.
    is_strict: bool,
    /// How often the limit fell: calls that began before it did last show nothing of what it is now.
    falls: u32,
    /// So many calls after a fall still stood behind those before it.
    behind: u32,
    window: Window,
}

/// A call's mark: under which limit it began.
#[derive(Clone, Copy, Debug)]
pub struct Begun(u32);

#[derive(Clone, Debug, Default)]
struct Window {
    calls: u32,
    late: u32,
    refused: u32,
    /// Sums of what the answered calls took, in seconds, and of what part of their timeouts that was.
    took: f64,
    pressure: f64,
    full: bool,
}

/// What a window showed.
#[derive(Clone, Copy, Debug)]
struct Shown {
    /// Seconds that an answer took, as a mean; without any, the timeout.
    mean: f64,
    /// Part of its timeout, as a mean.
    pressure: f64,
    /// The parts of the calls that were late, and that were refused.
    late: f64,
    refused: f64,
    limit: f64,
}

impl Shown {
    /// Whether it is no better than what was before with more calls at once.
    fn is_no_better_than(&self, before: &Self) -> bool {
        let lost = self.late + self.refused;
        // A third fewer is more than chance.
        let no_fewer = lost >= (before.late + before.refused) * 0.67;
        // Without one answer there is nothing to compare.
        self.mean > before.mean * 0.9 && no_fewer && lost < 1.0
    }
}

impl Limit {
    /// For a new endpoint, with at most so many calls at once.
    #[must_use]
    pub fn new(most: NonZeroUsize) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
        let most = most.get() as f64;
        #[expect(clippy::cast_precision_loss, reason = "a small constant")]
        let limit = most.min(START as f64);
        let window = Window::default();
        Self {
            most,
            limit,
            starting: true,
            base: None,
            before_fall: None,
            hold: 0,
            stayed: 0,
            before_trial: None,
            is_free: false,
            is_strict: false,
            falls: 0,
            behind: 0,
            window,
        }
    }

    /// How many calls may run at once.
    #[must_use]
    pub fn places(&self) -> NonZeroUsize {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 1 and `most`")]
        let places = self.limit as usize;
        NonZeroUsize::new(places).unwrap_or(NonZeroUsize::MIN)
    }

    /// How many calls may run beyond that, each the only one of its controller: none at an endpoint that refused some, or
    /// has just come back.
    #[must_use]
    pub fn extra(&self) -> usize {
        if self.is_strict { 0 } else { MOST_EXTRA }
    }

    /// The endpoint was left out and is back: one call at a time shows what it takes now.
    pub fn begin_anew(&mut self) {
        self.is_strict = true;
        (self.starting, self.before_fall, self.before_trial, self.hold) = (true, None, None, 0);
        self.fall(1.0);
        self.behind = 0;
    }

    /// A call begins.
    #[must_use]
    pub fn begin(&self) -> Begun {
        Begun(self.falls)
    }

    /// A call ended after `took` of its `timeout`. `full` says whether as many ran as may.
    pub fn ended(&mut self, begun: Begun, ended: Ended, took: Duration, timeout: Duration, full: bool) {
        if begun.0 != self.falls {
            return;
        }
        if self.behind > 0 {
            self.behind -= 1;
            return;
        }
        let window = &mut self.window;
        let seconds = took.as_secs_f64();
        window.calls += 1;
        match ended {
            Ended::Answered => {
                window.took += seconds;
                window.pressure += (seconds / timeout.as_secs_f64().max(f64::MIN_POSITIVE)).min(1.0);
            }
            Ended::Late => window.late += 1,
            Ended::Refused => window.refused += 1,
        }
        window.full |= full;
        let fewest = if self.starting { WINDOW.0 } else { WINDOW.1 };
        if f64::from(window.calls) >= self.limit.max(f64::from(fewest)) {
            let window = std::mem::take(window);
            let (calls, answered) = (f64::from(window.calls), window.calls - window.late - window.refused);
            let (mean, pressure) = match answered {
                0 => (timeout.as_secs_f64(), 1.0),
                answered => (window.took / f64::from(answered), window.pressure / f64::from(answered)),
            };
            let (late, refused) = (f64::from(window.late) / calls, f64::from(window.refused) / calls);
            self.judge(Shown { mean, pressure, late, refused, limit: self.limit }, window.full);
        }
    }

    fn judge(&mut self, shown: Shown, full: bool) {
        self.is_strict = shown.refused > 0.0;
        let fall = self.before_fall.take();
        if let Some((before, limit)) = &fall
            && shown.is_no_better_than(before)
        {
            // Fewer at once take as long: it is slow by itself.
            (self.limit, self.base, self.hold) = (*limit, Some(shown.mean), HOLD);
            return;
        }
        if let Some(before) = self.before_trial.take() {
            // As long as it has room for them, one more costs the others nothing.
            self.is_free = shown.mean < before.mean * (1.0 + (shown.limit / before.limit - 1.0) / 2.0);
        }
        let base = self.base.map_or(shown.mean, |base| base.min(shown.mean));
        self.base = Some(base);
        self.hold = self.hold.saturating_sub(1);
        let slow = |part: f64, times: f64| shown.pressure > part && shown.mean > base * times;
        // Calls that get no answer beside others that do at once are the fault of what they ask for.
        let overloaded = shown.refused > MANY || (shown.late > MANY && shown.pressure > 1.0 / 4.0);
        if overloaded || slow(1.0 / 4.0, 1.25) || slow(1.0 / 16.0, 2.0) {
            (self.starting, self.is_free, self.stayed) = (false, false, 0);
            if self.hold == 0 {
                self.before_fall = Some((shown, fall.map_or(self.limit, |(_, limit)| limit)));
                self.fall(self.limit * if overloaded { 0.5 } else { 0.75 });
            }
        } else if full {
            self.grow(&shown);
        }
    }

    fn grow(&mut self, shown: &Shown) {
        let more = if self.starting && shown.pressure <= 1.0 / 4.0 { self.limit } else { self.limit.sqrt() };
        // If all of them shared one thread, each would take as much longer as they are more.
        let may = |to: &f64| self.is_free || shown.pressure * to / self.limit < 0.9;
        let to = [self.limit + more, self.limit + 1.0].into_iter().find(may);
        self.stayed = if to.is_some() { 0 } else { self.stayed + 1 };
        let to = to.unwrap_or_else(|| {
            let tries = self.stayed.is_multiple_of(EXPLORE);
            self.before_trial = tries.then_some(*shown);
            self.limit + if tries { 1.0 } else { 0.0 }
        });
        self.limit = to.min(self.most);
    }

    fn fall(&mut self, to: f64) {
        self.limit = to.max(1.0);
        self.falls = self.falls.wrapping_add(1);
        self.behind = u32::try_from(self.places().get()).unwrap_or(u32::MAX);
        self.window = Window::default();
    }
}

#[cfg(test)]
mod tests {
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use super::*;

    const MOST: NonZeroUsize = NonZeroUsize::new(64).unwrap();
    const TIMEOUT: Duration = Duration::from_secs(10);

    /// A webhook with so many threads that is called as often as the limit allows: calls wait for a thread in their order,
    /// and each takes one for the time that `work` says, whether or not somebody still waits for its answer.
    struct World {
        limit: Limit,
        /// When each thread is free, in microseconds.
        threads: BinaryHeap<Reverse<u64>>,
        /// When a call ends for its caller, and when it began.
        running: BinaryHeap<Reverse<(u64, u64, u32)>>,
        now: u64,
    }

    #[derive(Debug, Default)]
    struct Seen {
        answered: u32,
        late: u32,
        longest_ms: u64,
        places: Vec<usize>,
    }

    impl World {
        fn new(threads: usize) -> Self {
            let threads = std::iter::repeat_n(Reverse(0), threads).collect();
            Self { limit: Limit::new(MOST), threads, running: BinaryHeap::new(), now: 0 }
        }

        fn calls(&mut self, count: u32, work_ms: impl Fn(u32) -> u64) -> Seen {
            let mut seen = Seen::default();
            let timeout = u64::try_from(TIMEOUT.as_micros()).unwrap();
            for number in 0..count {
                while self.running.len() < self.limit.places().get() {
                    let Reverse(free) = self.threads.pop().unwrap();
                    let done = free.max(self.now) + work_ms(number) * 1000;
                    self.threads.push(Reverse(done));
                    let Begun(mark) = self.limit.begin();
                    self.running.push(Reverse((done.min(self.now + timeout), self.now, mark)));
                }
                let full = self.running.len() >= self.limit.places().get();
                let Reverse((end, began, mark)) = self.running.pop().unwrap();
                self.now = end;
                let late = end - began >= timeout;
                let ended = if late { Ended::Late } else { Ended::Answered };
                self.limit.ended(Begun(mark), ended, Duration::from_micros(end - began), TIMEOUT, full);
                seen.answered += u32::from(!late);
                seen.late += u32::from(late);
                seen.longest_ms = seen.longest_ms.max((end - began) / 1000);
                seen.places.push(self.limit.places().get());
            }
            seen
        }
    }

    #[test]
    fn a_fast_webhook_gets_all_there_is() {
        for (threads, work) in [(64, 5), (1, 2), (4, 20), (64, 500)] {
            let seen = World::new(threads).calls(400, |_| work);
            assert_eq!(seen.places.last(), Some(&64), "{threads} threads, {work} ms: {:?}", seen.places);
            assert!(seen.places.iter().position(|places| *places == 64) < Some(100), "soon");
        }
    }

    #[test]
    fn a_slow_webhook_is_not_drowned() {
        // Alone, each would get 64 calls at once: 32 s of work, and hardly an answer in time.
        for (threads, work) in [(1, 500), (2, 1000), (1, 1500), (1, 3000)] {
            let mut world = World::new(threads);
            let first = world.calls(100, |_| work);
            let later = world.calls(1000, |_| work);
            let most = later.places.iter().max().unwrap();
            println!(
                "{threads} threads, {work} ms: late {} then {}, at most {most} places, {} ms",
                first.late, later.late, later.longest_ms
            );
            assert!(later.late * 50 <= later.answered, "{threads} threads, {work} ms: {later:?}");
            assert!(world.now / 1000 * threads as u64 <= 1100 * work * 11 / 10, "and it is busy all the time");
        }
    }

    #[test]
    fn a_webhook_that_takes_its_time_is_not_held_back_for_it() {
        // Each call takes 4 s of its 10, however many there are.
        let seen = World::new(64).calls(600, |_| 4000);
        assert_eq!((seen.late, seen.places.last()), (0, Some(&64)), "{:?}", seen.places);
        // And one that becomes slower by itself is as fast as it can be.
        let mut world = World::new(64);
        world.calls(300, |_| 500);
        let slower = world.calls(2000, |_| 4000);
        let mean = slower.places[500..].iter().sum::<usize>() / 1500;
        assert!(mean >= 40, "{mean}: {:?}", slower.places);
    }

    #[test]
    fn short_and_long_calls_beside_each_other_are_no_crowd() {
        let seen = World::new(64).calls(3000, |number| if number % 7 == 0 { 5000 } else { 20 });
        let mean = seen.places[1000..].iter().sum::<usize>() / 2000;
        assert!(mean >= 40, "{mean}");
    }

    #[test]
    fn parents_that_never_get_an_answer_are_no_crowd() {
        // Of 20, so many are never answered; the others are at once.
        for (never, fewest) in [(1, 40), (6, 32), (10, 32), (16, 16)] {
            let seen = World::new(4096).calls(4000, |number| if number * 7 % 20 < never { 60_000 } else { 20 });
            let mean = seen.places[1000..].iter().sum::<usize>() / 3000;
            println!("{never} of 20 never answered: {mean} places");
            assert!(mean >= fewest, "{never} of 20: {mean}");
        }
    }

    #[test]
    fn one_that_always_takes_most_of_its_timeout_gets_more_all_the_same() {
        for work in [5000, 8000, 9200] {
            let mut world = World::new(64);
            let seen = world.calls(3000, |_| work);
            assert_eq!((seen.late, seen.places.last()), (0, Some(&64)), "{work} ms: {:?}", seen.places);
            world.limit.begin_anew();
            let seen = world.calls(3000, |_| work);
            assert_eq!((seen.late, seen.places.last()), (0, Some(&64)), "{work} ms, anew: {:?}", seen.places);
        }
    }

    #[test]
    fn who_answers_nothing_any_more_gets_few() {
        let mut world = World::new(64);
        assert_eq!(world.calls(400, |_| 5).places.last(), Some(&64));
        let stuck = world.calls(600, |_| 3_600_000);
        assert_eq!(stuck.places.last(), Some(&1), "{:?}", stuck.places);
    }

    #[test]
    fn who_refuses_gets_fewer() {
        let mut limit = Limit::new(MOST);
        let mut places = Vec::new();
        for number in 0..2000_u32 {
            // It takes ten at once.
            let refuses = limit.places().get() > 10 && number % 3 == 0;
            let ended = if refuses { Ended::Refused } else { Ended::Answered };
            let begun = limit.begin();
            limit.ended(begun, ended, Duration::from_millis(5), TIMEOUT, true);
            places.push(limit.places().get());
        }
        let mean = places[200..].iter().sum::<usize>() / 1800;
        assert!((5..=20).contains(&mean), "{mean}");
        let mut strict = Limit::new(MOST);
        let end = |limit: &mut Limit, ended| {
            for _ in 0..80 {
                let begun = limit.begin();
                limit.ended(begun, ended, Duration::from_millis(5), TIMEOUT, true);
            }
            limit.extra()
        };
        assert_eq!(strict.extra(), MOST_EXTRA);
        assert_eq!((end(&mut strict, Ended::Refused), end(&mut strict, Ended::Answered)), (0, MOST_EXTRA));
        strict.begin_anew();
        assert_eq!((strict.extra(), end(&mut strict, Ended::Answered)), (0, MOST_EXTRA));
    }

    #[test]
    fn it_recovers_once_the_webhook_does() {
        let mut world = World::new(1);
        let crowded = world.calls(300, |_| 1500);
        assert!(*crowded.places.last().unwrap() < 10, "{:?}", crowded.places);
        let seen = world.calls(2000, |_| 5);
        assert_eq!(seen.places.last(), Some(&64));
        world.limit.begin_anew();
        assert_eq!(world.limit.places().get(), 1);
        assert_eq!(world.calls(200, |_| 5).places.last(), Some(&64));
    }
}
